"""Three visitors of a fresh clone, without a dead end: shipped runs, no corpus.

A researcher on a stage, a student, and somebody with a phone and a keyboard.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import browser
from tests.support import trained_runs
from tests.support.app import wait_until

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}
SOUNDS = ".stMainBlockContainer audio"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """What a clone brings, and the landmark model."""
    folder = tmp_path_factory.mktemp("fresh")
    trained_runs.install_landmark_model(folder)
    for run in trained_runs.SHIPPED:
        shutil.copytree(run, folder / "checkpoints" / run.name)
    return folder


def rest(page) -> None:
    """Wait for the page, which must say no error."""
    browser.wait_for_page(page)
    assert page.locator("[data-testid=stAlertContentError]").all_inner_texts() == []


def go(page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.click()
    page.get_by_role("heading", level=1, name=name).wait_for()
    rest(page)


def source(page, at: int = 0) -> str:
    sound = page.locator(SOUNDS).nth(at)
    sound.wait_for(state="attached")
    return sound.get_attribute("src")


def test_a_researcher_shows_it_on_a_stage(page):
    page.goto("/")
    rest(page)
    page.get_by_role("button", name="Play the generated voice").click()
    page.locator(".play.sounding").wait_for()
    go(page, "Listen")
    before = source(page)
    page.get_by_role("button", name="Another voice").click()
    wait_until(page, lambda: page.locator(SOUNDS).count() and source(page) != before)
    go(page, "Gallery")
    wait_until(page, lambda: page.locator(SOUNDS).count() == 5)  # real beside generated
    page.get_by_role("radio", name="Real or generated?").click()
    page.get_by_text("Is it real, or did a generator").first.wait_for()
    go(page, "Evaluate")
    page.get_by_role("radio", name="Confusion").click()
    page.locator(".js-plotly-plot .heatmaplayer").first.wait_for(state="attached")
    go(page, "Train")
    assert page.get_by_role("button", name="Start", exact=True).is_enabled()


def test_a_student_goes_through_the_lesson_and_brings_a_classifier(page, tmp_path):
    page.goto("/conformal")
    rest(page)
    following, headings = page.get_by_role("button", name="Next", exact=True), set()
    while True:
        headings.add(page.locator(".stMainBlockContainer h2").first.inner_text())
        page.locator(".js-plotly-plot").first.wait_for(state="attached")
        if not following.count():
            break
        following.click()
        wait_until(
            page,
            lambda: page.locator(".stMainBlockContainer h2").first.inner_text() not in headings,
        )
        rest(page)
    assert len(headings) == 8
    page.goto("/conformal?source=own")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Example file").click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    page.locator("input[type=file]").set_input_files(str(file))
    page.locator(".js-plotly-plot").first.wait_for(state="attached")
    page.reload()  # the file is gone, and the page says so
    page.get_by_text("was kept for that visit alone").wait_for()
    page.goto("/paper?part=glossary")
    page.get_by_text("Calibration set").first.wait_for()


def test_somebody_with_a_phone_and_a_keyboard_hears_a_voice(page):
    page.set_viewport_size(PHONE)
    page.goto("/")
    rest(page)
    sound = page.locator(SOUNDS).first
    sound.wait_for()
    box = sound.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
    assert box["y"] + box["height"] <= PHONE["height"]
    page.goto("/conformal?step=promise")
    plots = "document.querySelector('.st-key-promise .js-plotly-plot')?.layout"
    wait_until(page, lambda: page.evaluate(f"() => {plots}?.xaxis3?.domain?.join()") == "0,1")
    page.goto("/gallery")
    rest(page)
    wait_until(page, lambda: page.locator(SOUNDS).count() == 5)
    before = source(page, 2)
    page.get_by_role("button", name="Next", exact=True).focus()
    page.keyboard.press("Enter")
    wait_until(page, lambda: page.locator(SOUNDS).count() == 5 and source(page, 2) != before)
