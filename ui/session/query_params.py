"""What is chosen, in the page's address, so that a view can be shared and survives a reload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from core import files


def restore_widget(name: str, key: str, default: Any, admit: Callable[[str], Any]) -> None:
    """Give the widget `key` the address' value of `name`, before it is drawn.

    `admit` turns the address' text into a value that the widget knows, or None; then what was chosen before stays, or the default.
    """
    asked = st.query_params.get(name)
    value = (
        admit(asked) if asked is not None else admit(str(st.session_state.get(f"last {key}", "")))
    )
    if value is None:
        value = default
    st.session_state[key] = st.session_state[f"last {key}"] = value
    if value != default or (asked is not None and asked != str(value)):
        set_value(name, value)


def save_widget(name: str, key: str) -> None:
    """The widget's callback: what was chosen goes into the address."""
    set_value(name, st.session_state[key])


def set_value(name: str, value: Any) -> None:
    if value is None:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = str(value)


PAGES_FOLDER = files.ROOT / "pages"


def page_names() -> list[str]:
    """The pages that there are."""
    return [p.stem for p in sorted(PAGES_FOLDER.glob("*.py"))]


def bind_widget(name: str, key: str, default: Any, admit: Callable[[str], Any]) -> dict[str, Any]:
    """Restore the widget `key` from the URL's `name`; returns arguments that save it there."""
    restore_widget(name, key, default, admit)
    return {"key": key, "on_change": save_widget, "args": (name, key)}
