"""Nothing can be pressed that does nothing: a visitor in headless Chromium presses everything.

On every page, on a fresh machine and with a corpus. A press changes what is shown, or the address,
or gives a file that opens, or a reason; `tests/support/presses.py` says how that is seen.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from benchmarks import browser
from tests.support import trained_runs
from tests.support.app import serve
from tests.support.presses import Press, Visit

pytestmark = pytest.mark.browser

STATES = ("fresh", "corpus")
PAGES = (  # those that change runs and corpora come last, as the others need them
    *("/", "/listen", "/condition?face=drawn-happy", "/gallery", "/reverse", "/conformal"),
    *("/paper", "/evaluate", "/data", "/train"),
)
SHORT_KINDS = {"file", "expander", "toggle", "button", "popover"}
# Choices that act when a training, a task or a search is started; a button beside them does that.
LATER = re.compile(
    r"(option|select|step|toggle) (\S+-)?"
    r"(device|generator|steps|seed|frames|crops|song|bands|minutes) "
)
# Fields of a training's settings, which act when it starts; a camera, which no test has.
LEFT = re.compile(r" \S+-(gan|conformal|f_s|f_t|data|logmel|evaluate)-\S+ |Webcam|Microphone")
OFFLINE = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https")}  # nobody is there


@pytest.fixture(scope="module", params=STATES)
def home(request, tmp_path_factory) -> Iterator[Path]:
    """What a clone brings, or finished runs and their corpus; and the landmark model."""
    folder = tmp_path_factory.mktemp(request.param)
    trained_runs.install_landmark_model(folder)
    if request.param == "fresh":
        for run in trained_runs.SHIPPED:
            shutil.copytree(run, folder / "checkpoints" / run.name)
    else:
        base = tmp_path_factory.getbasetemp()
        turned = trained_runs.reverse_home(base / "turned") / "checkpoints"
        trained_runs.copy_home(trained_runs.trained_home(base / "trained"), folder)
        for run in turned.glob("turned-*"):
            shutil.copytree(run, folder / "checkpoints" / run.name)
    with mock.patch.dict(os.environ, trained_runs.home_environment(folder)):
        yield folder


@pytest.fixture(scope="module")
def studio(home) -> Iterator[browser.StudioServer]:
    """A server that cannot fetch a corpus from the network."""
    yield from serve(home, OFFLINE)


@pytest.fixture
def visit(page, home, tmp_path) -> Iterator[Visit]:
    one = Visit(page, home, tmp_path, LATER, LEFT)
    yield one
    one.end_everything()
    print(*one.lines, sep="\n")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("address", PAGES)
def test_everything_that_is_pressed_has_an_effect(visit, address):
    visit.press_all(address)
    assert visit.faults == []
    assert len(visit.lines) > 2  # it found what to press


@pytest.mark.slow
@pytest.mark.parametrize("home", ["fresh"], indirect=True)
def test_files_and_buttons_of_a_page_have_an_effect(visit, home):
    def is_short(press: Press) -> bool:
        return press.kind in SHORT_KINDS

    visit.press_all("/gallery", is_short)
    assert visit.faults == []
    assert sum(line.startswith("file") for line in visit.lines) == 2
    assert len(visit.lines) > 4
