"""The visitor's choices in the page's URL, so that a view can be shared and survives a reload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from core import files

PAGES_FOLDER = files.ROOT / "pages"


def page_names() -> list[str]:
    """Names of the pages that exist."""
    return [p.stem for p in sorted(PAGES_FOLDER.glob("*.py"))]


def set_value(name: str, value: Any) -> None:
    """Write a value into the URL; None removes it."""
    if value is None:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = str(value)


def note_page(name: str) -> None:
    """Called by the router with the page that it shows, before the page is drawn."""
    st.session_state["is arrival"] = st.session_state.get("shown page") != name
    st.session_state["shown page"] = name


def asked_text(name: str, key: str) -> str | None:
    """The URL's text of `name`, or, where a visitor comes from another page, the widget's last one.

    On the same page only the browser's Back and Forward take a parameter away: it was not there
    when the widget had its default.
    """
    text = st.query_params.get(name)
    if text is None and st.session_state.get("is arrival", True):
        return st.session_state.get(f"last {key}")
    return text


def save_widget(name: str, key: str) -> None:
    """Callback of the widget `key`: write its value into the URL."""
    set_value(name, st.session_state[key])


def restore_widget(name: str, key: str, default: Any, admit: Callable[[str], Any]) -> None:
    """Give the widget `key` the URL's value of `name`, before it is drawn.

    `admit` turns the text of `asked_text` into a value that the widget knows, or None, which gives
    the default.
    """
    text, asked = st.query_params.get(name), asked_text(name, key)
    value = admit("" if asked is None else str(asked))
    if value is None:
        value = default
    st.session_state[key] = st.session_state[f"last {key}"] = value
    if value != default or (text is not None and text != str(value)):
        set_value(name, value)


def bind_widget(name: str, key: str, default: Any, admit: Callable[[str], Any]) -> dict[str, Any]:
    """Restore the widget `key` from the URL's `name`; returns arguments that save it there."""
    restore_widget(name, key, default, admit)
    return {"key": key, "on_change": save_widget, "args": (name, key)}
