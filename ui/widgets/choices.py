"""Widgets whose value is kept in the URL, and sliders that the browser moves by itself.

A Plotly chart holds every position of its sliders, so it follows the hand at once. The server gets
the value when the handle is released, and updates the text. A rail is a slider outside the charts:
it can be reached by keyboard, is visible from the start, and moves the sliders inside the charts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from ui.session import query_params
from ui.session.cache import RunFamily

FLAGS = {"True": True, "False": False}  # a toggle's text in the URL -> its value
SLIDER_HTML = """<label><span class="line"><span class="name"></span><output></output></span>
<input type="range" min="0" step="1">
<span class="line ends"><span></span><span></span></span></label>"""
SLIDER_CSS = """label {display: block; font-family: var(--st-font); font-size: .875rem;
  color: var(--st-text-color);}
.line {display: flex; justify-content: space-between; gap: 1rem;}
output {font-weight: 600;}
.ends {opacity: .7;}
input {display: block; width: 100%; margin: .35rem 0 .15rem; height: 1.1rem; cursor: pointer;
  appearance: none; border-radius: .3rem;
  /* browsers draw the empty part white in every theme */
  --to: calc(.55rem + (100% - 1.1rem) * var(--at));
  background: linear-gradient(to right, var(--st-primary-color) var(--to),
    var(--st-border-color) var(--to)) center / 100% .4rem no-repeat;}
input::-webkit-slider-thumb {appearance: none; width: 1.1rem; height: 1.1rem; border-radius: 50%;
  background: var(--st-primary-color);}
input::-moz-range-thumb {border: 0; width: 1.1rem; height: 1.1rem; border-radius: 50%;
  background: var(--st-primary-color);}
input:focus-visible {outline: 2px solid var(--st-primary-color); outline-offset: 3px;
  border-radius: .3rem;}"""
SLIDER_JS = """export default function ({ data, parentElement, setStateValue }) {
  const find = (what) => parentElement.querySelector(what), input = find("input")
  const say = () => {
    find("output").textContent = data.names[input.value]
    input.setAttribute("aria-valuetext", data.names[input.value])
    input.style.setProperty("--at", input.value / input.max)
  }
  // imitates a hand that touches the slider inside the chart
  const move = ([key, which], tries = 10) => {
    const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`)
    const rail = chart?.querySelectorAll(".slider-rail-touch-rect")[which]
    const box = rail?.getBoundingClientRect()
    if (!box) return
    const inset = 10, x = box.x + inset + (box.width - 2 * inset) * input.value / input.max
    const place = { bubbles: true, clientX: x, clientY: box.y + 2, view: window }
    const touch = (kind, on) => on.dispatchEvent(new MouseEvent(kind, place))
    chart.isMovedFromOutside = true
    touch("mousedown", rail)
    touch("mouseup", chart)
    chart.isMovedFromOutside = false
    const stands = chart.layout.sliders[which].active === Number(input.value)
    // a chart that is being drawn ignores events
    if (!stands && tries) setTimeout(move, 40, [key, which], tries - 1)
  }
  find(".name").textContent = data.label
  find("label").title = data.help
  const [first, last] = parentElement.querySelectorAll(".ends span")
  first.textContent = data.names[0]
  last.textContent = data.names[data.names.length - 1]
  input.max = data.names.length - 1
  // the server may answer a value that was sent some presses ago
  const sent = (input.sent ??= []), answered = sent.indexOf(data.at)
  if (answered >= 0) sent.splice(0, answered + 1)
  else if (!sent.length || data.at !== input.was) {
    sent.length = 0
    input.value = data.at
  }
  input.was = data.at
  say()
  input.oninput = () => {
    say()
    data.moves.forEach((one) => move(one))
  }
  input.onchange = () => {
    sent.push(Number(input.value))
    // a state, since of two triggers at once one is lost
    setStateValue("place", [Number(input.value), Date.now()])
  }
}"""
CHART_EVENTS_JS = """export default function ({ data, setStateValue }) {
  const look = () => data.charts.forEach((key) => {
    const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`)
    if (!chart || !chart.on) return
    chart.report = (which, step) => setStateValue("step", [which, step.label, Date.now()])
    if (chart.isFollowed) return
    chart.isFollowed = true
    chart.on("plotly_sliderend", (event) =>
      chart.isMovedFromOutside || chart.report(event.slider._index, event.step))
  })
  look()
  const timer = setInterval(look, 300)
  return () => clearInterval(timer)
}"""
READOUT_HTML = """<div class="words"><div></div><div></div><div></div></div>"""
READOUT_CSS = """.words {display: grid; grid-template-columns: 1fr 1fr 1fr; column-gap: 7.5%;
  font-family: var(--st-font); font-size: .8rem; line-height: 1.35; color: var(--st-text-color);
  min-height: 2.7em;}
@media (max-width: 700px) {.words {grid-template-columns: 1fr; padding: 0 !important;}}"""
READOUT_JS = """export default function ({ data, parentElement }) {
  const words = parentElement.querySelector(".words"), parts = words.children
  const share = (x) => `${(100 * x).toFixed(0)}%`
  words.style.padding = `0 ${data.right}px 0 ${data.left}px`
  const say = (sliders) => {
    const rows = data.table[sliders[1]?.active ?? 0] ?? data.table[0]
    const [low, error, high, where, size, single, empty] = rows[sliders[0].active]
    const state = ["below the band", "inside the band", "<b>above</b> the band"][where + 1]
    const band = `${low.toFixed(3)} to ${high.toFixed(3)}`
    parts[0].innerHTML = `<b>error ${error.toFixed(3)}</b>, ${state}<br>${band}`
    parts[1].innerHTML = `<b>${size.toFixed(2)} of ${data.labels} labels</b><br>in a set on average`
    parts[2].innerHTML = `<b>${share(single)}</b> name one label<br>${share(empty)} are empty`
  }
  const look = () => {
    const chart = document.querySelector(`.st-key-${data.chart} .js-plotly-plot`)
    if (!chart?.on || !chart.layout?.sliders || chart.readOut === say) return
    const again = () => chart.readOut(chart.layout.sliders), kinds = ["sliderchange", "afterplot"]
    if (!chart.readOut) kinds.forEach((kind) => chart.on(`plotly_${kind}`, again))
    chart.readOut = say
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


# ------------------------------------------------------------------ widgets of Streamlit


def option_args(name: str, key: str, options: Sequence | Mapping, default: Any) -> dict[str, Any]:
    """Arguments of a widget of `options` (a mapping: option -> its label) that the URL keeps.

    The URL's `name` is ignored where it is none of the options' texts.
    """
    known = {str(o): o for o in options}
    args = query_params.bind_widget(name, key, default, known.get) | {"options": list(options)}
    return args | ({"format_func": options.get} if isinstance(options, Mapping) else {})


def parse_integer(text: str, low: int, high: int) -> int | None:
    """A whole number from `low` to `high` in plain digits, or None."""
    known = text.isascii() and text.isdecimal() and len(text) < 10 and low <= int(text) <= high
    return int(text) if known else None


def integer_args(name: str, key: str, default: int, low: int, high: int) -> dict[str, Any]:
    """Arguments of a widget of a whole number from `low` to `high` that the URL keeps."""
    admit = lambda text: parse_integer(text, low, high)  # noqa: E731
    bounds = {"min_value": low, "max_value": high}
    return bounds | query_params.bind_widget(name, key, default, admit)


def choose_one(
    label: str, name: str, options: Sequence[str], default: str, shown: Callable, **more
) -> str:
    """One of a few, kept in the URL under `name`."""
    args = option_args(name, f"lab {name}", options, default) | more
    st.segmented_control(label, format_func=shown, required=True, **args)
    return st.session_state[f"lab {name}"]


def last_choice(name: str, options: Sequence[str], default: str) -> str:
    """The value of `choose_one` when it was last on the page."""
    found = query_params.asked_text(name, f"lab {name}")
    return found if found in options else default


def choose_family(families: Sequence[RunFamily], key: str, prefix: str = "", **more) -> RunFamily:
    """A family of trained runs; the URL's `run` may name any member of it."""
    by_id = {f.id: f for f in families}
    id_by_member = {run: f.id for f in families for run in f.members.values()}
    args = query_params.bind_widget("run", key, families[0].id, id_by_member.get) | more
    label = lambda k: f"{prefix}{by_id[k].label}"  # noqa: E731
    return by_id[st.selectbox("Trained run", list(by_id), format_func=label, **args)]


# ------------------------------------------------------------------ rails and sliders of charts


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
    """One of `options`, chosen on a rail and kept in the URL under `name`.

    The page runs again when the handle is released. Until then the rail moves the sliders of the
    same options inside charts: `moves` names a chart's key and the number of its slider.
    """
    known = {str(o): o for o in options}
    query_params.restore_widget(name, key, default, known.get)
    state = f"{key} rail"

    def save_place() -> None:
        place, _ = st.session_state[state]["place"]
        if isinstance(place, int) and 0 <= place < len(options):
            query_params.set_value(name, options[place])

    at, names = list(options).index(st.session_state[key]), [shown(o) for o in options]
    data = {"label": label, "help": about, "names": names, "at": at, "moves": moves}
    _slider_component(key=state, data=data, on_place_change=save_place)
    return st.session_state[key]


def save_chart_sliders(names: dict[str, dict[str, Any]], *charts: str) -> None:
    """Write the step of a chart's slider into the URL when it is released.

    `names`: for each slider of a chart, in their order, the name in the URL -> {label of a step:
    its value}. The browser has moved the charts already.
    """
    key = f"{' '.join(names)} of a chart"

    def save_step() -> None:
        which, label, _ = st.session_state[key]["step"]
        for name, options in list(names.items())[which : which + 1]:
            if label in options:
                query_params.set_value(name, options[label])

    _chart_events_component(key=key, data={"charts": charts}, on_step_change=save_step)


def initial_positions(chart: str, what: Any, at: Any) -> Any:
    """The slider positions a chart is drawn at: `at` when `what` is first drawn, then unchanged.

    The browser moves the sliders from there; an unchanged chart is not sent and drawn again.
    """
    first = st.session_state.get(f"{chart} began")
    if first is None or first[0] != what:
        first = st.session_state[f"{chart} began"] = (what, at)
    return first[1]


def reset_positions(chart: str) -> None:
    """Forget the initial positions of a chart that is not on the page.

    When it comes back, its sliders are drawn at their current values.
    """
    st.session_state.pop(f"{chart} began", None)


def show_readout(
    chart: str, labels: int, table: list[list[list[float]]], left: int, right: int
) -> None:
    """Show the curves' values at the slider positions as text above a chart's three columns.

    `table[i][j]` holds the numbers, as `slider_readings` orders them, at position i of the second
    slider and j of the first. `left` and `right` are the chart's margins in pixels.
    """
    data = {"chart": chart, "labels": labels, "table": table, "left": left, "right": right}
    _readout_component(key=f"{chart} in words", data=data)
