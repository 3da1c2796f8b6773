"""The Gallery in a browser.

A click in the contact sheet opens a face, its sound is there, and the address holds it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import browser
from tests.support.app import wait_until

pytestmark = pytest.mark.browser
SOURCE = "document.querySelectorAll('audio')[2].src"
LENGTH = (
    "(async () => { const a = document.querySelectorAll('audio')[2]; "
    "const r = await fetch(a.src); return (await r.blob()).size })()"
)


@pytest.fixture(scope="module")
def home(visited_home) -> Path:
    """The home that all visits share."""
    return visited_home


@pytest.mark.slow
def test_a_click_in_the_sheet_opens_that_face(page):
    page.goto("/gallery?sort=set")
    sheet = page.locator("[class*='st-key-sheet'] .js-plotly-plot .nsewdrag").first
    wait_until(page, lambda: page.locator("audio").count() == 5 and sheet.count() == 1, 90)
    page.wait_for_timeout(500)
    box, before = sheet.bounding_box(), page.evaluate(SOURCE)
    page.mouse.move(
        box["x"] + 0.05 * box["width"], box["y"] + 2.4 / 8 * box["height"]
    )  # the third face
    page.mouse.down()
    page.mouse.up()
    wait_until(page, lambda: "item=" in page.url)
    wait_until(page, lambda: page.locator("audio").count() == 5 and page.evaluate(SOURCE) != before)
    page.wait_for_timeout(500)
    assert page.evaluate(LENGTH) > 30_000  # a second at 16 kHz, 16 bits
    chosen = page.url
    page.reload()
    wait_until(page, lambda: page.locator("audio").count() == 5, 90)
    assert page.url == chosen


def test_the_next_face_and_any_other_are_opened_by_keys(page):
    page.goto("/gallery?sort=set")
    wait_until(page, lambda: page.locator("audio").count() == 5, 90)
    before = page.evaluate(SOURCE)
    page.get_by_role("button", name="Next", exact=True).focus()
    page.keyboard.press("Enter")
    wait_until(page, lambda: "item=1" in page.url)
    wait_until(page, lambda: page.locator("audio").count() == 5 and page.evaluate(SOURCE) != before)
    browser.wait_for_page(page)  # while it is drawn again there are two choosers
    chooser = page.get_by_role("combobox", name="Face and voices")
    chooser.focus()
    page.keyboard.type("9 of")
    page.keyboard.press("Enter")
    wait_until(page, lambda: "item=8" in page.url)
    page.wait_for_url("**sheet=2**")
