"""Memory that visitors leave behind is given back to the system.

Streamlit keeps the session of a visitor who has left, with his uploads, for
`server.disconnectedSessionTTL` seconds and then until another visitor leaves; the C library keeps
what was freed for its threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
import time

from streamlit import runtime

INTERVAL = 10.0  # seconds between two looks
M_ARENA_MAX, ARENAS = -8, 2  # of malloc.h; by default each thread may have a heap of its own


def limit_arenas() -> None:
    """Let all threads share two heaps, so that what one frees another uses; call it first."""
    with contextlib.suppress(OSError, AttributeError):  # not the GNU C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def start_thread() -> None:
    """Look after visitors who have left, for the life of this server; nothing outside of one."""
    if runtime.exists() and hasattr(server := runtime.get_instance(), "_session_mgr"):
        threading.Thread(target=_watch, args=(server,), daemon=True).start()


def _watch(server: runtime.Runtime) -> None:
    before = 0
    while True:
        time.sleep(INTERVAL)
        held = forget_expired(server)
        if held < before:
            return_memory()
        before = held


def forget_expired(server: runtime.Runtime) -> int:
    """Drop the stored sessions whose time is over; returns how many are stored or open.

    Dropped, a session deletes its uploads. The stored ones are Streamlit's own, so that another
    version of it may hide them: then they go when the next visitor leaves.
    """
    manager = server._session_mgr
    stored = getattr(getattr(manager, "_session_storage", None), "_cache", {})
    with getattr(manager, "_storage_lock", contextlib.nullcontext()):
        if hasattr(stored, "expire"):
            stored.expire()
        return len(stored) + manager.num_active_sessions()


def return_memory() -> None:
    """Collect what visitors' sessions held in cycles, and give free pages to the system."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not the GNU C library
        ctypes.CDLL(None).malloc_trim(0)
