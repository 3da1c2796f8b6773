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

from core.files import ROOT
from ui.session import cache


@st.cache_resource(show_spinner=False)
def start_thread() -> None:
    """Once per server, after the first page: get the others ready behind the visitor's back; sooner, both would wait for each other."""
    threading.Thread(target=_preload, daemon=True).start()


def _preload() -> None:
    time.sleep(0.2)  # what the first page has still to send goes first
    from core.config import LogMel
    from core.inference import generation  # noqa: F401
    from core.media import sandbox, spectrograms

    spectrograms.mel_filters(LogMel())
    if not (runtime.exists() and isinstance(runtime.get_instance(), runtime.Runtime)):
        return  # a script alone: there are no other pages to come
    sandbox.keep_decoder_ready()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    time.sleep(8)  # who has just come looks around; what follows would take both cores from them
    from ui.gallery import voices

    me, context = threading.get_ident(), "streamlit.runtime.scriptrunner_utils.script_run_context"
    logging.getLogger(context).addFilter(
        lambda _: threading.get_ident() != me
    )  # it warns of spinners that no visitor sees: there is none
    for first in cache.families()[
        :1
    ]:  # the one that pages show until another is chosen; what is wrong with it is said there
        with contextlib.suppress(*voices.LOAD_ERRORS):
            for run_id in first.members.values():
                cache.load_run(run_id)
            voices.load_set(first, "S4", quietly=True)
