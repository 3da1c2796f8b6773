"""The app as a server, and a headless Chromium.

Measurements, pictures of pages and tests use them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from core.files import ROOT

VIEWPORT = {"width": 1280, "height": 720}
CHROMIUM_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PAGE_AT_REST_JS = """() => {
  const app = document.querySelector('[data-testid=stApp]');
  const isVisible = name => [...document.querySelectorAll(`[data-testid=${name}]`)]
    .some(e => e.getClientRects().length);
  return app?.dataset.testScriptState === 'notRunning'
    && !isVisible('stSpinner') && !isVisible('stSkeleton')
    && !!document.querySelector('.stMainBlockContainer h1')
    && !document.querySelector('[data-stale=true]');
}"""


@dataclass(frozen=True)
class StudioServer:
    """A running server."""

    address: str  # http://127.0.0.1:port
    pid: int


@contextlib.contextmanager
def studio_server(
    log: Path, environment: dict[str, str], app: Path = ROOT / "app.py", seconds: float = 120.0
) -> Iterator[StudioServer]:
    """A Streamlit app in its own process on a free port of 127.0.0.1, until the block ends.

    It prints into the file `log`. Raises RuntimeError with the end of that file if it does not
    answer within `seconds`.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(app), "--server.port", str(port)]
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=out, stderr=subprocess.STDOUT
        )
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + seconds
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The app does not start; its log:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield StudioServer(address, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def chromium_path() -> str:
    """The path of Chromium or Chrome. Raises RuntimeError if none is installed."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    raise RuntimeError("Pages need a browser: install Chromium (Debian: apt install chromium).")


@contextlib.contextmanager
def chromium() -> Iterator:
    """A headless browser, closed with the block. Raises RuntimeError if none is installed."""
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


def record_faults(tab) -> list[str]:
    """A list that collects a tab's console errors and its requests to other machines."""
    faults: list[str] = []

    def on_console(message) -> None:
        # Streamlit first looks for its server below the page's address, which answers 404
        if message.type == "error" and "/_stcore/" not in message.location["url"]:
            faults.append(f"{message.text} {message.location['url']}")

    def on_request(request) -> None:
        if urlparse(request.url).hostname not in ("127.0.0.1", None):
            faults.append(f"asks {request.url}")

    tab.on("console", on_console)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", on_request)
    return faults


def wait_for_page(tab, seconds: float = 120.0) -> None:
    """Wait until the page is complete: title shown, script ended, nothing loading or stale."""
    tab.wait_for_function(PAGE_AT_REST_JS, timeout=1000 * seconds)


def page_titles(tab) -> dict[str, str]:
    """Pages of the navigation: path below the server's address ("" is Home) -> title."""
    links = tab.locator("[data-testid=stTopNavLink]")
    links.first.wait_for()
    found = links.evaluate_all("all => all.map(a => [a.pathname, a.innerText.trim()])")
    return {path.strip("/"): title for path, title in found}
