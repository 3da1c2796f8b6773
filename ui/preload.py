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

QUIET_SECONDS = 3  # without a page before the imports, which would slow each page down
MOST_SECONDS = 30  # after which they begin anyway
VISITOR_SECONDS = 8  # pause before heavy work, which would take both cores from the visitor
CONTEXT_LOGGER = "streamlit.runtime.scriptrunner_utils.script_run_context"


_last_page = [0.0]  # when a page was run last, s


def note_page() -> None:
    """Note that a page was run; the first one starts the thread."""
    _last_page[0] = time.monotonic()
    _start_thread()


@st.cache_resource(show_spinner=False)
def _start_thread() -> None:
    """Preload the other pages in a thread; once per server, after its first page.

    Started earlier, the thread and the page would wait for each other's imports.
    """
    threading.Thread(target=_preload, daemon=True).start()


def _preload() -> None:
    begun = time.monotonic()
    while time.monotonic() < min(_last_page[0] + QUIET_SECONDS, begun + MOST_SECONDS):
        time.sleep(0.1)
    from core.inference import generation  # noqa: F401
    from core.media import sandbox

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
