"""Whether the browser's window is narrow, as a phone's: charts then stand below each other."""

from __future__ import annotations

import streamlit as st

NARROW_PIXELS = 700  # a window below this width is narrow, as in the style sheet of ui.theme
# The server assumes a wide window; a narrow one makes the page run once more, when it opens.
JS = """export default function ({ data, setStateValue }) {
  const look = () => {
    const narrow = window.innerWidth < data.limit
    if (narrow !== data.narrow) setStateValue("narrow", narrow)
  }
  look()
  window.addEventListener("resize", look)
  return () => window.removeEventListener("resize", look)
}"""
_component = st.components.v2.component("dacssgan_viewport", js=JS)


def follow() -> None:
    """Called by the router on every page."""
    data = {"limit": NARROW_PIXELS, "narrow": is_narrow()}
    _component(key="viewport", data=data, on_narrow_change=lambda: None)


def is_narrow() -> bool:
    return bool(st.session_state.get("viewport", {}).get("narrow"))
