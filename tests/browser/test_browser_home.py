"""Home and Paper in headless Chromium.

The example sounds, a box leads on, an equation is found by its address.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from tests.support.app import wait_until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def home(visited_home) -> Path:
    """The home that all visits share."""
    return visited_home


@pytest.mark.slow
def test_the_example_sounds_and_its_boxes_lead_on(page):
    page.goto("/")
    play = page.get_by_role("button", name="Play the generated voice")
    play.click()
    page.locator(".play.sounding").wait_for()
    head = page.locator(".head.moving")
    wait_until(
        page, lambda: float(head.get_attribute("x1")) > float(head.get_attribute("data-from"))
    )
    page.get_by_role("button", name="Play the real voice").click()
    assert page.locator(".play.sounding").get_attribute("data-sound") == "real"  # one at a time
    wait_until(page, lambda: page.locator(".play.sounding").count() == 0)  # it ends by itself

    page.locator("a[data-name='Eqs (8), (9)']").click()
    page.wait_for_url("**/paper?eq=8")
    page.locator(".st-key-entry-8.found-entry").wait_for()
    wait_until(page, lambda: 0 <= page.locator(".st-key-entry-8").bounding_box()["y"] < 300)
    page.get_by_role("radio", name="(11)").click()
    wait_until(page, lambda: page.locator(".st-key-entry-11.found-entry").count() == 1)
    assert parse_qs(urlparse(page.url).query)["eq"] == ["11"]
    wait_until(page, lambda: 0 <= page.locator(".st-key-entry-11").bounding_box()["y"] < 500)
