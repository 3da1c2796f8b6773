"""What the server gets ready by itself after its first page, so that the other pages are quick when they are first asked for."""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
import time
from pathlib import Path

import streamlit as st
from streamlit import runtime

from ui import access


@st.cache_resource(show_spinner=False)
def warm() -> None:
    """Once per server, after the first page: get the others ready behind the visitor's back; sooner, both would wait for each other."""
    threading.Thread(target=_warm, daemon=True).start()


def _warm() -> None:
    time.sleep(0.2)  # what the first page has still to send goes first
    from core import apart, spectrograms, studio  # noqa: F401
    from core.config import LogMel

    spectrograms.mel_filters(LogMel())
    if not (runtime.exists() and isinstance(runtime.get_instance(), runtime.Runtime)):
        return  # a script alone: there are no other pages to come
    apart.stand_by()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        importlib.import_module(f"ui.{file.stem}")
    time.sleep(8)  # who has just come looks around; what follows would take both cores from them
    from ui import gallery

    me, context = threading.get_ident(), "streamlit.runtime.scriptrunner_utils.script_run_context"
    logging.getLogger(context).addFilter(lambda _: threading.get_ident() != me)  # it warns of spinners that no visitor sees: there is none
    for first in access.families()[:1]:  # the one that pages show until another is chosen; what is wrong with it is said there
        with contextlib.suppress(*gallery.FAULTS):
            for run_id in first.members.values():
                access.opened(run_id)
            gallery.shown(first, "S4", quietly=True)
