"""What tests of pages share: a home of their own, a page by AppTest, a server and a browser.

`conftest` takes the fixtures from here for every test, so what is heavy is imported by those that
need it.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks import browser
from core.files import ROOT

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest


# ------------------------------------------------------------------ by AppTest


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home: no run, no corpus."""
    import streamlit as st

    from tests.support import trained_runs

    for name, value in trained_runs.home_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    st.cache_resource.clear()
    st.cache_data.clear()
    return tmp_path


@pytest.fixture
def own_trained_home(home, tmp_path_factory):
    """A home of its own with finished runs of the three conditions."""
    from tests.support import trained_runs

    return trained_runs.copy_home(
        trained_runs.trained_home(tmp_path_factory.getbasetemp() / "trained"), home
    )


@pytest.fixture
def landmark_model(own_trained_home, monkeypatch):
    from tests.support import trained_runs

    monkeypatch.delenv("DACSSGAN_CHECKPOINTS")
    trained_runs.install_landmark_model(own_trained_home)
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(own_trained_home / "checkpoints"))


def kept_uploads() -> list[Path]:
    """Folders of uploads that this process has left behind."""
    from ui.session.cache import UPLOAD_FOLDER_PREFIX

    return list(Path(tempfile.gettempdir()).glob(f"{UPLOAD_FOLDER_PREFIX}{os.getpid()}-*"))


def plotly_figure(app, key: str) -> dict:
    """A chart's figure, by its widget's key."""
    return next(json.loads(c.proto.spec) for c in app.get("plotly_chart") if key in c.proto.id)


def plotly_numbers(z) -> list:
    """Plotly's arrays, which travel as base64."""
    if not isinstance(z, dict):
        return z
    return np.frombuffer(base64.b64decode(z["bdata"]), z["dtype"]).tolist()


def open_page(page: str = "", **query: str) -> AppTest:
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(ROOT / "router.py"), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    if page:
        app.switch_page(f"pages/{page}.py")
    return assert_no_exception(app.run())


def assert_no_exception(app: AppTest) -> AppTest:
    assert [e.value for e in app.exception] == []
    return app


def page_text(app: AppTest) -> str:
    """All text of a page, to look for words in."""
    kinds = (
        "title",
        "header",
        "markdown",
        "caption",
        "info",
        "warning",
        "error",
        "code",
        "success",
    )
    return "\n".join(str(e.value) for kind in kinds for e in app.get(kind))


def count_elements(app: AppTest, kind: str) -> int:
    return len(app.get(kind))


# ------------------------------------------------------------------ in a browser


@pytest.fixture(scope="session")
def visited_home(tmp_path_factory) -> Path:
    """A home with the landmark model and finished runs of the three conditions, for all visits."""
    from tests.support import trained_runs

    folder = tmp_path_factory.mktemp("visited")
    trained_runs.install_landmark_model(folder)
    trained = trained_runs.trained_home(tmp_path_factory.getbasetemp() / "trained")
    return trained_runs.copy_home(trained, folder)


@pytest.fixture(scope="session")
def visited_studio(visited_home) -> Iterator[browser.StudioServer]:
    """The one server of all tests in a browser that need no home of their own."""
    yield from serve(visited_home)


@pytest.fixture(scope="module")
def studio(request, visited_home) -> Iterator[browser.StudioServer]:
    """The studio on a free port of the loopback: the shared one, or one on the module's `home`."""
    home = request.getfixturevalue("home")
    if home == visited_home:
        yield request.getfixturevalue("visited_studio")
    else:
        yield from serve(home)


def serve(home: Path, more: dict[str, str] | None = None) -> Iterator[browser.StudioServer]:
    """A server until the generator ends; trainings that are still at work are stopped then.

    `more` are environment variables beside the home's.
    """
    from core.experiments import jobs
    from core.runs import store
    from tests.support import trained_runs

    try:
        with browser.studio_server(
            home / "server.log", trained_runs.home_environment(home) | (more or {})
        ) as running:
            yield running
    finally:
        for row in store.list_runs(home / "checkpoints"):
            jobs.stop(row["run"], home / "checkpoints", wait=20)


@pytest.fixture(scope="module")
def server(studio) -> str:
    """The studio's address."""
    return studio.address


@pytest.fixture(scope="module")
def chromium():
    pytest.importorskip("playwright.sync_api")
    try:
        browser.chromium_path()
    except RuntimeError as error:
        pytest.skip(str(error))
    with browser.chromium() as running:
        yield running


@pytest.fixture
def page(chromium, server):
    """A tab that fails its test on a console error, an exception box or an outgoing request."""
    context = chromium.new_context(
        base_url=server, viewport=browser.VIEWPORT, accept_downloads=True
    )
    tab = context.new_page()
    tab.set_default_timeout(45_000)
    faults = browser.record_faults(tab)
    yield tab
    assert tab.locator("[data-testid=stException]").count() == 0
    # A sound that a newer one replaced before it was loaded is no fault; one that stays on the page
    # is. A page that is being drawn gets some seconds.
    sources = "all => all.map(e => e.currentSrc || e.src)"
    for _ in range(50):
        shown = tab.eval_on_selector_all("audio, video", sources)
        here = [f for f in faults if "/media/" not in f or any(src and src in f for src in shown)]
        if not here:
            break
        tab.wait_for_timeout(100)
    assert here == [], faults
    context.close()


def wait_until(tab, what, seconds: float = 45.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        tab.wait_for_timeout(200)
