"""The studio as a server of its own and a headless Chromium that visits it: for measurements and pictures of pages, and for tests."""

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

ROOT = Path(__file__).resolve().parents[1]
VIEWPORT = {"width": 1280, "height": 720}
CHROMIUM_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PAGE_AT_REST_JS = """() => {
  const app = document.querySelector('[data-testid=stApp]');
  const seen = name => [...document.querySelectorAll(`[data-testid=${name}]`)].some(e => e.getClientRects().length);
  return app?.dataset.testScriptState === 'notRunning' && !seen('stSpinner') && !seen('stSkeleton')
    && !!document.querySelector('.stMainBlockContainer h1') && !document.querySelector('[data-stale=true]');
}"""


@dataclass(frozen=True)
class StudioServer:
    """A server that answers."""

    address: str  # http://127.0.0.1:port
    pid: int


@contextlib.contextmanager
def studio_server(
    log: Path, environment: dict[str, str], app: Path = ROOT / "app.py", seconds: float = 120.0
) -> Iterator[StudioServer]:
    """A Streamlit app on a free port of the loopback, in a process of its own; it ends with the block.

    What it prints goes into the file `log`. Raises RuntimeError with the end of that file when it does not answer.
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
                raise RuntimeError(
                    f"The studio does not start. The end of what it printed:\n{log.read_text()[-2000:]}"
                )
            time.sleep(0.05)
        yield StudioServer(address, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def chromium_path() -> str:
    """The path of Chromium or Chrome. Raises RuntimeError where there is none."""
    path = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not path:
        raise RuntimeError(
            "No Chromium was found: pages need a browser to be shown in. On Debian: apt install chromium."
        )
    return path


@contextlib.contextmanager
def chromium() -> Iterator:
    """A headless browser, closed with the block. Raises RuntimeError where none is installed."""
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


def record_faults(tab) -> list[str]:
    """Errors of a tab's console and its requests that leave this machine, in a list that fills as they come."""
    faults: list[str] = []
    # Streamlit looks for its server at /train/_stcore first, which a page's own address answers with 404.
    tab.on(
        "console",
        lambda m: (
            m.type == "error"
            and "/_stcore/" not in m.location["url"]
            and faults.append(f"{m.text} {m.location['url']}")
        ),
    )
    tab.on("pageerror", lambda e: faults.append(str(e)))
    tab.on(
        "request",
        lambda r: urlparse(r.url).hostname in ("127.0.0.1", None) or faults.append(f"asks {r.url}"),
    )
    return faults


def wait_for_page(tab, seconds: float = 120.0) -> None:
    """Wait until the page is whole: its title is there, its script has ended, nothing spins or is about to be replaced."""
    tab.wait_for_function(PAGE_AT_REST_JS, timeout=1000 * seconds)


def page_titles(tab) -> dict[str, str]:
    """The pages that the navigation offers: address below the server ("" is Home) -> title."""
    tab.locator("[data-testid=stTopNavLink]").first.wait_for()
    links = tab.locator("[data-testid=stTopNavLink]").evaluate_all(
        "all => all.map(a => [a.pathname, a.innerText.trim()])"
    )
    return {path.strip("/"): title for path, title in links}
