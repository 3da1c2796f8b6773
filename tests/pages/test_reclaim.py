"""What a visitor leaves behind goes: his stored session, cycles of it, files of a dead server."""

import gc
import os
import tempfile
import time
import weakref
from types import SimpleNamespace

import pytest
from streamlit.runtime.memory_session_storage import MemorySessionStorage
from streamlit.runtime.session_manager import SessionInfo

from ui.session import cache, reclaim


class Session:
    id = "one"


def server(storage, active: int):
    """As much of Streamlit's runtime as is asked."""
    manager = SimpleNamespace(_session_storage=storage, num_active_sessions=lambda: active)
    return SimpleNamespace(_session_mgr=manager)


@pytest.mark.parametrize(("seconds", "stored"), [(1_000, 1), (0.01, 0)])
def test_a_session_whose_time_is_over_is_dropped_without_another_visitor(seconds, stored):
    storage = MemorySessionStorage(ttl_seconds=seconds)
    session = Session()
    gone = weakref.ref(session)
    storage.save(SessionInfo(client=None, session=session, script_run_count=1))
    del session
    time.sleep(0.05)
    assert gone() is not None  # Streamlit by itself keeps it until something is written
    assert reclaim.forget_expired(server(storage, 2)) == 2 + stored
    assert (gone() is not None) == bool(stored)


def test_another_version_of_streamlit_is_no_error():
    assert reclaim.forget_expired(server(None, 2)) == 2


def test_cycles_are_collected_and_heaps_limited():
    class Holder:
        pass

    one = Holder()
    one.itself, gone = one, weakref.ref(one)
    del one
    gc.disable()
    try:
        reclaim.limit_arenas()
        reclaim.return_memory()
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("owner", "age", "stays"),
    [
        (str(os.getpid()), 0, True),
        (str(2**22 - 3), 0, False),
        ("old", 0, True),
        ("old", 90_000, False),
    ],
    ids=["a live server's", "a dead server's", "unknown", "unknown and old"],
)
def test_uploads_of_a_server_that_was_killed_go_with_the_next_start(
    home, monkeypatch, owner, age, stays
):
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    folder = home / f"{cache.UPLOAD_FOLDER_PREFIX}{owner}-x"
    folder.mkdir()
    (folder / "upload").write_bytes(b"a visitor's clip")
    os.utime(folder, (time.time() - age,) * 2)
    cache.prepare_server()
    assert folder.exists() == stays
