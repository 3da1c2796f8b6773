"""Background work after the server's first page, which makes the first visit to others fast."""

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

FIRST_PAGE_SECONDS = 0.2  # pause in which the first page sends the rest of its content
VISITOR_SECONDS = 8  # pause before heavy work, which would take both cores from the visitor
CONTEXT_LOGGER = "streamlit.runtime.scriptrunner_utils.script_run_context"


@st.cache_resource(show_spinner=False)
def start_thread() -> None:
    """Preload the other pages in a thread; once per server, after its first page.

    Started earlier, the thread and the page would wait for each other's imports.
    """
    threading.Thread(target=_preload, daemon=True).start()


def _preload() -> None:
    time.sleep(FIRST_PAGE_SECONDS)
    from core.config.settings import LogMel
    from core.inference import generation  # noqa: F401
    from core.media import sandbox, spectrograms

    spectrograms.mel_filters(LogMel())
    if not (runtime.exists() and isinstance(runtime.get_instance(), runtime.Runtime)):
        return  # a single script, as in tests, has no other pages
    sandbox.keep_decoder_ready()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    time.sleep(VISITOR_SECONDS)
    from ui import listen
    from ui.gallery import voices

    # Streamlit warns of each spinner outside of a page; this thread has no page.
    me = threading.get_ident()
    logging.getLogger(CONTEXT_LOGGER).addFilter(lambda _: threading.get_ident() != me)
    with contextlib.suppress(*voices.LOAD_ERRORS):  # the page shows them itself
        listen.draw_first_voices()
    for first in cache.families()[:1]:  # the other pages' default
        with contextlib.suppress(*voices.LOAD_ERRORS):
            for run_id in first.members.values():
                cache.load_run(run_id)
            voices.load_set(first, "S4", quietly=True)
