"""Sliders that wait for nothing: those inside charts, which the browser moves by itself, and rails that move them from outside.

A chart holds every position of its sliders, so it follows the hand at once; the server hears of it when the hand lets go, and brings the
words. A rail is what a keyboard can reach, and stands where it can be seen from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from ui import address

HTML = """<label><span class="line"><span class="name"></span><output></output></span><input type="range" min="0" step="1">
<span class="line ends"><span></span><span></span></span></label>"""
CSS = """label {display: block; font-family: var(--st-font); font-size: .875rem; color: var(--st-text-color);}
.line {display: flex; justify-content: space-between; gap: 1rem;}
output {color: var(--st-primary-color); font-weight: 600;}
.ends {opacity: .7;}
input {display: block; width: 100%; margin: .35rem 0 .15rem; height: 1.1rem; accent-color: var(--st-primary-color); cursor: pointer;}
input:focus-visible {outline: 2px solid var(--st-primary-color); outline-offset: 3px; border-radius: .3rem;}"""
JS = """export default function ({ data, parentElement, setTriggerValue }) {
  const find = (what) => parentElement.querySelector(what), input = find("input")
  const say = () => {
    find("output").textContent = data.names[input.value]
    input.setAttribute("aria-valuetext", data.names[input.value])
  }
  const move = ([key, which]) => { // as if the hand had touched the slider inside the chart
    const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`)
    const rail = chart?.querySelectorAll(".slider-rail-touch-rect")[which], box = rail?.getBoundingClientRect()
    if (!box) return
    const inset = 5, x = box.x + inset + (box.width - 2 * inset) * input.value / input.max
    const touch = (kind, on) => on.dispatchEvent(new MouseEvent(kind, { bubbles: true, clientX: x, clientY: box.y + 2, view: window }))
    chart.isMovedFromOutside = true
    touch("mousedown", rail)
    touch("mouseup", chart)
    chart.isMovedFromOutside = false
  }
  find(".name").textContent = data.label
  find("label").title = data.help
  const [first, last] = parentElement.querySelectorAll(".ends span")
  first.textContent = data.names[0]
  last.textContent = data.names[data.names.length - 1]
  input.max = data.names.length - 1
  if (input.told !== data.at) input.value = input.told = data.at
  say()
  input.oninput = () => {
    say()
    data.moves.forEach(move)
  }
  input.onchange = () => {
    input.told = Number(input.value)
    setTriggerValue("place", input.told)
  }
}"""
FOLLOW = """export default function ({ data, setTriggerValue }) {
  const look = () => data.charts.forEach((key) => {
    const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`)
    if (!chart || !chart.on) return
    chart.told = (which, step) => setTriggerValue("step", [which, step.label])
    if (chart.isFollowed) return
    chart.isFollowed = true
    chart.on("plotly_sliderend", (event) => chart.isMovedFromOutside || chart.told(event.slider._index, event.step))
  })
  look()
  const timer = setInterval(look, 300)
  return () => clearInterval(timer)
}"""
_slider = st.components.v2.component("dacssgan_slider", html=HTML, css=CSS, js=JS)
_follow = st.components.v2.component("dacssgan_follow", js=FOLLOW)


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
    address.follow(name, key, default, known.get)
    state = f"{key} rail"

    def let_go() -> None:
        place = st.session_state[state]["place"]
        if isinstance(place, int) and 0 <= place < len(options):
            address.write(name, options[place])

    at = list(options).index(st.session_state[key])
    told = {"label": label, "help": about, "names": [shown(o) for o in options], "at": at, "moves": moves}
    _slider(key=state, data=told, on_place_change=let_go)
    return st.session_state[key]


def follow(names: dict[str, dict[str, Any]], *charts: str) -> None:
    """When a slider inside one of the charts is let go, its step goes into the address: the browser has moved the charts already.

    `names`: for each slider of a chart, in their order, the name in the address -> {a step's label: its value}.
    """
    key = f"{' '.join(names)} of a chart"

    def let_go() -> None:
        which, told = st.session_state[key]["step"]
        for name, options in list(names.items())[which : which + 1]:
            if told in options:
                address.write(name, options[told])

    _follow(key=key, data={"charts": charts}, on_step_change=let_go)
