"""The page Condition lab in headless Chromium.

A strip moves and plays without the server, and the page takes the step where it stops.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from tests.support.app import wait_until

pytestmark = pytest.mark.browser

STRIP = "document.querySelector('.st-key-cond-strip .js-plotly-plot')"
ACTIVE = f"() => {STRIP}?._fullLayout?.sliders?.[0]?.active ?? -1"


@pytest.fixture(scope="module")
def home(visited_home) -> Path:
    """The home that all visits share."""
    return visited_home


def query(page, name: str) -> str | None:
    return parse_qs(urlparse(page.url).query).get(name, [None])[0]


@pytest.mark.slow
def test_a_strip_is_dragged_and_played_and_heard_where_it_stops(page):
    page.goto("/condition?face=drawn-happy&view=emotions&n=16&at=2")
    wait_until(page, lambda: page.evaluate(ACTIVE) == 1)
    page.wait_for_timeout(700)  # the listener looks for the chart three times a second
    strip = page.locator(".st-key-cond-strip")
    rail = strip.locator(".slider-rail-touch-rect")
    rail.scroll_into_view_if_needed()
    box = rail.bounding_box()
    y, before = box["y"] + box["height"] / 2, page.locator("audio").get_attribute("src")
    page.mouse.move(box["x"] + 0.1 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], y, steps=4)
    wait_until(
        page, lambda: page.evaluate(ACTIVE) > 10
    )  # the button is still held: the browser moved it
    assert query(page, "at") == "2"
    page.mouse.up()
    wait_until(page, lambda: query(page, "at") == str(page.evaluate(ACTIVE) + 1))
    wait_until(page, lambda: page.locator("audio").get_attribute("src") != before)

    strip.locator(".updatemenu-button").first.click()  # play: from the first step
    wait_until(page, lambda: 0 < page.evaluate(ACTIVE) < 13)
    strip.locator(".updatemenu-button").nth(1).click()
    page.wait_for_timeout(600)
    stopped = page.evaluate(ACTIVE)
    page.wait_for_timeout(1500)
    assert page.evaluate(ACTIVE) == stopped < 15
    wait_until(page, lambda: query(page, "at") == str(stopped + 1))
    page.reload()
    wait_until(page, lambda: page.evaluate(ACTIVE) == stopped)
    page.get_by_label("Sound of step").first.fill("5")
    page.keyboard.press("Enter")
    wait_until(page, lambda: page.evaluate(ACTIVE) == 4)
