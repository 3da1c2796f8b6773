"""What tests of pages share: a home of their own, a page by AppTest, a server and a browser.

`conftest` takes the fixtures from here for every test, so what is heavy is imported by those that need it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import pytest

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


# --- by AppTest ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home: no run, no corpus."""
    import streamlit as st
    import tiny

    for name, value in tiny.home(tmp_path).items():
        monkeypatch.setenv(name, value)
    st.cache_resource.clear()
    st.cache_data.clear()
    return tmp_path


@pytest.fixture
def trained(home, tmp_path_factory):
    """A home of its own with finished runs of the three conditions."""
    import tiny

    return tiny.copy(tiny.trained(tmp_path_factory.getbasetemp() / "trained"), home)


@pytest.fixture
def faces_found(trained, monkeypatch):
    import tiny

    monkeypatch.delenv("DACSSGAN_CHECKPOINTS")
    tiny.landmarks(trained)
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(trained / "checkpoints"))


def opened(page: str = "", **query: str) -> AppTest:
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    if page:
        app.switch_page(f"pages/{page}.py")
    return well(app.run())


def well(app: AppTest) -> AppTest:
    assert [e.value for e in app.exception] == []
    return app


def said(app: AppTest) -> str:
    """All text of a page, to look for words in."""
    kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "error", "code", "success")
    return "\n".join(str(e.value) for kind in kinds for e in app.get(kind))


def count(app: AppTest, kind: str) -> int:
    return len(app.get(kind))


# --- in a browser -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(home) -> Iterator[str]:
    """The studio on a free port of the loopback; its address."""
    import tiny

    from core import jobs, runs

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    with open(home / "server.log", "w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | tiny.home(home), stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (home / "server.log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)
        for row in runs.listing(home / "checkpoints"):
            jobs.stop(row["run"], home / "checkpoints", wait=20)


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not path:
        pytest.skip("no chromium here (Debian: apt install chromium)")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, server):
    """A tab that fails its test on an error in the console, an exception box, or a request that leaves this machine."""
    context = chromium.new_context(base_url=server, viewport={"width": 1280, "height": 720}, accept_downloads=True)
    tab, faults = context.new_page(), []
    tab.set_default_timeout(45_000)
    # Streamlit looks for its server at /train/_stcore first, which a page's own address answers with 404.
    tab.on(
        "console", lambda m: m.type == "error" and "/_stcore/" not in m.location["url"] and faults.append(f"{m.text} {m.location['url']}")
    )
    tab.on("pageerror", lambda e: faults.append(str(e)))
    tab.on("request", lambda r: urlparse(r.url).hostname in ("127.0.0.1", None) or faults.append(f"asks {r.url}"))
    yield tab
    assert tab.locator("[data-testid=stException]").count() == 0
    assert faults == []
    context.close()


def wait_until(tab, what, seconds: float = 45.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        tab.wait_for_timeout(200)
