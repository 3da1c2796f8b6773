"""Whether a page has little width, as on a phone: charts then stand below each other.

That is the width of the page's content, without the side bar and the edges.
"""

from __future__ import annotations

import streamlit as st

NARROW_PIXELS = 700  # content below this width is narrow
# The server assumes a wide page; a narrow one makes it run once more, when it opens.
JS = """export default function ({ data, setStateValue }) {
  const look = () => {
    const main = document.querySelector(".stMainBlockContainer")
    if (!main || !main.clientWidth) return
    const { paddingLeft, paddingRight } = getComputedStyle(main)
    const width = main.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight)
    const narrow = width < data.limit
    if (narrow !== data.narrow) setStateValue("narrow", narrow)
  }
  look()
  const watch = new ResizeObserver(look)  // the window, or the side bar, changes its size
  watch.observe(document.querySelector(".stMain") ?? document.body)
  return () => watch.disconnect()
}"""
_component = st.components.v2.component("dacssgan_viewport", js=JS)


def follow() -> None:
    """Called by the router on every page."""
    data = {"limit": NARROW_PIXELS, "narrow": is_narrow()}
    _component(key="viewport", data=data, on_narrow_change=lambda: None)


def is_narrow() -> bool:
    return bool(st.session_state.get("viewport", {}).get("narrow"))
