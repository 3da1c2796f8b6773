"""Every view by axe-core, the checker of accessibility: no serious and no critical finding.

In both themes, on a screen and on a phone.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import browser
from tests.support.app import wait_until

pytestmark = pytest.mark.browser
SIZES = {"screen": (1280, 720), "phone": (390, 844)}
THEMES = ("light", "dark")
GROUND = "() => getComputedStyle(document.querySelector('.stApp')).backgroundColor"
# The page's settings are kept while it is measured: only findings are described.
RUN_AXE = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
  .filter((v) => ['serious', 'critical'].includes(v.impact))
  .flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.html.slice(0, 120)}`))"""
CONFORMAL = ("chain", "area", "set", "strange", "map", "promise", "broken", "generator")
EVALUATE = ("runs", "curves", "confusion", "augmentation", "labels", "folds", "paper")
VIEWS = (
    *("/", "/listen", "/reverse", "/paper", "/paper?part=tables", "/gallery?view=quiz"),
    *("/gallery", "/gallery?look=copy", "/condition?face=drawn-happy"),
    *(f"/condition?face=drawn-happy&view={v}" for v in ("emotions", "strength")),
    *(f"/conformal?step={v}" for v in CONFORMAL),
    *(f"/evaluate?view={v}" for v in EVALUATE),
    *("/train", "/train?preset=smoke", "/data", "/data?part=bring"),
)


@pytest.fixture(scope="module")
def home(visited_home) -> Path:
    """The home that all visits share."""
    return visited_home


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script."""
    package = pytest.importorskip("axe_playwright_python")
    return Path(package.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


ALWAYS = ("/", "/listen")


@pytest.mark.parametrize(
    "view", [pytest.param(v, marks=() if v in ALWAYS else pytest.mark.slow) for v in VIEWS]
)
def test_a_view_can_be_used_by_everybody(page, axe, view):
    page.emulate_media(color_scheme="light")
    page.goto(view)
    browser.wait_for_page(page)
    page.evaluate(axe)
    found, grounds = [], set()
    for theme in THEMES:
        before = page.evaluate(GROUND)
        page.emulate_media(color_scheme=theme)
        if grounds:
            wait_until(page, lambda old=before: page.evaluate(GROUND) != old)
        grounds.add(page.evaluate(GROUND))
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(300)  # charts follow the width
            found += [f"{theme} {size} {words}" for words in page.evaluate(RUN_AXE)]
    assert found == []
    assert len(grounds) == len(THEMES)
