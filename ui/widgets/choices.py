"""Sliders that wait for nothing: those inside charts, which the browser moves by itself, and rails that move them from outside.

A chart holds every position of its sliders, so it follows the hand at once; the server hears of it when the hand lets go, and brings the
words. A rail is what a keyboard can reach, and stands where it can be seen from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from ui.session import query_params

SLIDER_HTML = """<label><span class="line"><span class="name"></span><output></output></span><input type="range" min="0" step="1">
<span class="line ends"><span></span><span></span></span></label>"""
SLIDER_CSS = """label {display: block; font-family: var(--st-font); font-size: .875rem; color: var(--st-text-color);}
.line {display: flex; justify-content: space-between; gap: 1rem;}
output {font-weight: 600;}
.ends {opacity: .7;}
input {display: block; width: 100%; margin: .35rem 0 .15rem; height: 1.1rem; cursor: pointer; appearance: none; border-radius: .3rem;
  --to: calc(.55rem + (100% - 1.1rem) * var(--at)); /* browsers draw the empty part white, whatever the theme */
  background: linear-gradient(to right, var(--st-primary-color) var(--to), var(--st-border-color) var(--to)) center / 100% .4rem no-repeat;}
input::-webkit-slider-thumb {appearance: none; width: 1.1rem; height: 1.1rem; border-radius: 50%; background: var(--st-primary-color);}
input::-moz-range-thumb {border: 0; width: 1.1rem; height: 1.1rem; border-radius: 50%; background: var(--st-primary-color);}
input:focus-visible {outline: 2px solid var(--st-primary-color); outline-offset: 3px; border-radius: .3rem;}"""
SLIDER_JS = """export default function ({ data, parentElement, setStateValue }) {
  const find = (what) => parentElement.querySelector(what), input = find("input")
  const say = () => {
    find("output").textContent = data.names[input.value]
    input.setAttribute("aria-valuetext", data.names[input.value])
    input.style.setProperty("--at", input.value / input.max)
  }
  const move = ([key, which], tries = 10) => { // as if the hand had touched the slider inside the chart
    const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`)
    const rail = chart?.querySelectorAll(".slider-rail-touch-rect")[which], box = rail?.getBoundingClientRect()
    if (!box) return
    const inset = 10, x = box.x + inset + (box.width - 2 * inset) * input.value / input.max
    const touch = (kind, on) => on.dispatchEvent(new MouseEvent(kind, { bubbles: true, clientX: x, clientY: box.y + 2, view: window }))
    chart.isMovedFromOutside = true
    touch("mousedown", rail)
    touch("mouseup", chart)
    chart.isMovedFromOutside = false
    const stands = chart.layout.sliders[which].active === Number(input.value)
    if (!stands && tries) setTimeout(move, 40, [key, which], tries - 1) // a chart that is being drawn hears nothing
  }
  find(".name").textContent = data.label
  find("label").title = data.help
  const [first, last] = parentElement.querySelectorAll(".ends span")
  first.textContent = data.names[0]
  last.textContent = data.names[data.names.length - 1]
  input.max = data.names.length - 1
  const told = (input.told ??= []), heard = told.indexOf(data.at) // the server may answer what was told some presses ago
  if (heard >= 0) told.splice(0, heard + 1)
  else if (!told.length || data.at !== input.was) {
    told.length = 0
    input.value = data.at
  }
  input.was = data.at
  say()
  input.oninput = () => {
    say()
    data.moves.forEach((one) => move(one))
  }
  input.onchange = () => {
    told.push(Number(input.value))
    setStateValue("place", [Number(input.value), Date.now()]) // not a trigger: of two at once one is lost
  }
}"""
CHART_EVENTS_JS = """export default function ({ data, setStateValue }) {
  const look = () => data.charts.forEach((key) => {
    const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`)
    if (!chart || !chart.on) return
    chart.told = (which, step) => setStateValue("step", [which, step.label, Date.now()])
    if (chart.isFollowed) return
    chart.isFollowed = true
    chart.on("plotly_sliderend", (event) => chart.isMovedFromOutside || chart.told(event.slider._index, event.step))
  })
  look()
  const timer = setInterval(look, 300)
  return () => clearInterval(timer)
}"""
READOUT_HTML = """<div class="words"><div></div><div></div><div></div></div>"""
READOUT_CSS = """.words {display: grid; grid-template-columns: 1fr 1fr 1fr; column-gap: 7.5%; font-family: var(--st-font); font-size: .8rem;
  line-height: 1.35; color: var(--st-text-color); min-height: 2.7em;}"""
READOUT_JS = """export default function ({ data, parentElement }) {
  const words = parentElement.querySelector(".words"), said = words.children, share = (x) => `${(100 * x).toFixed(0)}%`
  words.style.padding = `0 ${data.right}px 0 ${data.left}px`
  const say = (sliders) => {
    const rows = data.table[sliders[1]?.active ?? 0] ?? data.table[0]
    const [low, error, high, where, size, single, empty] = rows[sliders[0].active]
    const state = ["below the band", "inside the band", "<b>above</b> the band"][where + 1]
    said[0].innerHTML = `<b>error ${error.toFixed(3)}</b>, ${state}<br>${low.toFixed(3)} to ${high.toFixed(3)}`
    said[1].innerHTML = `<b>${size.toFixed(2)} of ${data.labels} labels</b><br>in a set on average`
    said[2].innerHTML = `<b>${share(single)}</b> name one label<br>${share(empty)} are empty`
  }
  const look = () => {
    const chart = document.querySelector(`.st-key-${data.chart} .js-plotly-plot`)
    if (!chart?.on || !chart.layout?.sliders || chart.tells === say) return
    const again = () => chart.tells(chart.layout.sliders)
    if (!chart.tells) ["plotly_sliderchange", "plotly_afterplot"].forEach((kind) => chart.on(kind, again))
    chart.tells = say
    say(chart.layout.sliders)
  }
  look()
  const timer = setInterval(look, 200)
  return () => clearInterval(timer)
}"""
_slider_component = st.components.v2.component(
    "dacssgan_slider", html=SLIDER_HTML, css=SLIDER_CSS, js=SLIDER_JS
)
_chart_events_component = st.components.v2.component("dacssgan_follow", js=CHART_EVENTS_JS)
_readout_component = st.components.v2.component(
    "dacssgan_readout", html=READOUT_HTML, css=READOUT_CSS, js=READOUT_JS
)


def slider(
    label: str,
    name: str,
    key: str,
    options: Sequence[Any],
    default: Any,
    shown: Callable[[Any], str] = str,
    about: str = "",
    moves: Sequence[tuple[str, int]] = (),
) -> Any:
    """One of `options`, chosen on a rail and kept in the address under `name`; the page runs again when the handle is let go.

    Meanwhile it moves the sliders of the same options inside charts: `moves` names a chart's key and which of its sliders.
    """
    known = {str(o): o for o in options}
    query_params.restore_widget(name, key, default, known.get)
    state = f"{key} rail"

    def let_go() -> None:
        place, _ = st.session_state[state]["place"]
        if isinstance(place, int) and 0 <= place < len(options):
            query_params.set_value(name, options[place])

    at = list(options).index(st.session_state[key])
    told = {
        "label": label,
        "help": about,
        "names": [shown(o) for o in options],
        "at": at,
        "moves": moves,
    }
    _slider_component(key=state, data=told, on_place_change=let_go)
    return st.session_state[key]


def save_chart_sliders(names: dict[str, dict[str, Any]], *charts: str) -> None:
    """When a slider inside one of the charts is let go, its step goes into the address: the browser has moved the charts already.

    `names`: for each slider of a chart, in their order, the name in the address -> {a step's label: its value}.
    """
    key = f"{' '.join(names)} of a chart"

    def let_go() -> None:
        which, told, _ = st.session_state[key]["step"]
        for name, options in list(names.items())[which : which + 1]:
            if told in options:
                query_params.set_value(name, options[told])

    _chart_events_component(key=key, data={"charts": charts}, on_step_change=let_go)


def initial_positions(chart: str, what: Any, at: Any) -> Any:
    """Where a chart's sliders are drawn at: `at` when it is first drawn of `what`, and there ever after, since the browser moves them on
    and a chart that stays as it is need not be sent and drawn again."""
    kept = st.session_state.get(f"{chart} began")
    if kept is None or kept[0] != what:
        kept = st.session_state[f"{chart} began"] = (what, at)
    return kept[1]


def reset_positions(chart: str) -> None:
    """The chart is not on the page: its sliders are drawn where they stand when it comes back."""
    st.session_state.pop(f"{chart} began", None)


def show_readout(
    chart: str, labels: int, table: list[list[list[float]]], left: int, right: int
) -> None:
    """What curves are where a chart's sliders stand, in words above its three columns: numbers as `figures.readings` orders them, [position
    of the second slider][of the first]. `left` and `right` are the chart's margins in pixels."""
    _readout_component(
        key=f"{chart} in words",
        data={"chart": chart, "labels": labels, "table": table, "left": left, "right": right},
    )


def choose_one(
    label: str, name: str, options: Sequence[str], default: str, shown: Callable, **more
) -> str:
    """One of a few, kept in the address under `name`."""
    query_params.restore_widget(name, f"lab {name}", default, lambda k: k if k in options else None)
    go = {"on_change": query_params.save_widget, "args": (name, f"lab {name}")}
    st.segmented_control(
        label, options, format_func=shown, required=True, key=f"lab {name}", **go, **more
    )
    return st.session_state[f"lab {name}"]


def last_choice(name: str, options: Sequence[str], default: str) -> str:
    """What `choose_one` said when it was last on the page."""
    found = st.query_params.get(name, st.session_state.get(f"last lab {name}", default))
    return found if found in options else default
