"""The page Conformal in headless Chromium.

Eps moves without the server, a click in the map chooses, 10,000 rows stay quick.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

from benchmarks.browser import wait_for_page
from core.conformal import analysis, calibration
from core.runs.directory import Run
from tests.support.app import wait_until

pytestmark = pytest.mark.browser

CHART = "document.querySelector('.st-key-%s .js-plotly-plot')"
PAINTED = """([words]) => { window.painted = new Promise((done) => {
  const begun = performance.now()
  const band = () => document.querySelector(\
'.st-key-promise .js-plotly-plot')?._fullData?.[0].y[9] ?? null
  const before = band()
  const look = () => {
    const drawn = document.querySelector('[data-testid=stMain]').textContent.includes(words)\
 && ![null, before].includes(band())
    requestAnimationFrame(drawn\
 ? () => requestAnimationFrame(() => done(performance.now() - begun)) : look)
  }
  look()
}) }"""


@pytest.fixture(scope="module")
def home(visited_home) -> Path:
    """The home that all visits share."""
    return visited_home


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory) -> Path:
    """Outputs of an invented classifier.

    2,000 calibration and 10,000 test points, six classes, subjects.
    """
    rng, n, m, K = np.random.default_rng(0), 2_000, 10_000, 6
    label = rng.integers(0, K, n + m)
    z = 1.3 * rng.standard_normal((n + m, K)) + 1.8 * np.eye(K)[label]
    o = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    path, file = tmp_path_factory.mktemp("outputs") / "ten-thousand.npz", io.BytesIO()
    subjects = {
        "cal_subjects": np.array([f"c{i % 40}" for i in range(n)]),
        "test_subjects": np.array([f"t{i % 60}" for i in range(m)]),
    }
    np.savez(
        file,
        cal_softmax=o[:n],
        cal_labels=label[:n],
        test_softmax=o[n:],
        test_labels=label[n:],
        **subjects,
    )
    path.write_bytes(file.getvalue())
    return path


def query(page, name: str) -> str | None:
    return parse_qs(urlparse(page.url).query).get(name, [None])[0]


def words(page) -> str:
    """What stands above the curves: the figures at the cursor."""
    return " ".join(page.locator(".st-key-promise-in-words .words").all_inner_texts()).strip()


def sliders(page) -> int:
    """How many sliders the chart of the curves holds.

    Two as soon as all calibration sizes are in it.
    """
    return page.evaluate(f"() => {CHART % 'promise'}?.layout?.sliders?.length ?? 0")


def test_eps_moves_in_the_browser_and_the_page_follows_when_it_is_let_go(page):
    page.goto("/conformal?step=promise&row=3")
    wait_until(page, lambda: sliders(page) == 2 and "error" in words(page))
    before = words(page)
    page.wait_for_timeout(700)  # the listener looks for charts three times a second
    page.locator(".st-key-promise .slider-rail-touch-rect").first.scroll_into_view_if_needed()
    rail = page.locator(".st-key-promise .slider-rail-touch-rect").first.bounding_box()
    y = rail["y"] + rail["height"] / 2
    page.mouse.move(rail["x"] + 0.3 * rail["width"], y)
    page.mouse.down()
    page.mouse.move(rail["x"] + 0.6 * rail["width"], y, steps=4)
    wait_until(
        page, lambda: words(page) != before
    )  # the button is still held: nothing was asked of the server
    assert query(page, "eps") is None
    at = page.evaluate(f"() => {CHART % 'promise'}.layout.shapes[0].x0")
    assert 0.5 < at < 0.7
    page.mouse.up()
    wait_until(page, lambda: query(page, "eps") == str(round(at, 2)))
    wait_until(page, lambda: f"--eps {at:.2g}" in page.locator("[data-testid=stCode]").inner_text())
    page.reload()
    wait_until(
        page,
        lambda: (
            page.evaluate(f"() => {CHART % 'promise'}?.layout?.shapes?.[0]?.x0 ?? 0")
            == pytest.approx(at)
        ),
    )


@pytest.mark.slow
def test_the_curves_stand_where_the_rails_do_and_say_what_core_says(page, home):
    """The chart is not drawn again when a rail is let go.

    So it must come back right from another step and from a reload.
    """
    run = min((home / "checkpoints").glob("tiny-*/outputs.npz")).parent
    view = analysis.analyse_outputs(calibration.data_from_run(Run(run), "face"), r=0.4, eps=0.17)
    error = view.overall.error[int(np.abs(view.levels - 0.17).argmin())]
    page.goto(f"/conformal?step=promise&row=3&run={run.name}")
    wait_until(page, lambda: sliders(page) == 2)
    wait_for_page(page)  # keys that come while the page is drawn anew are lost
    page.locator(".st-key-lab-r-rail input").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    wait_until(page, lambda: query(page, "r") == "0.4")
    wait_for_page(page)
    page.locator(".st-key-lab-eps-rail input").focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    wait_until(page, lambda: (query(page, "r"), query(page, "eps")) == ("0.4", "0.17"))
    for back in (lambda: None, page.reload, lambda: there_and_back(page)):
        back()
        wait_until(
            page,
            lambda: (
                page.evaluate(
                    f"() => {CHART % 'promise'}?.layout?.sliders?.map((s) => s.active).join() ?? ''"
                )
                == "16,3"
            ),
        )
        assert page.evaluate(f"() => {CHART % 'promise'}.layout.shapes[0].x0") == pytest.approx(
            0.17
        )
        wait_until(page, lambda: words(page).startswith(f"error {error:.3f}"))


def there_and_back(page) -> None:
    page.get_by_role("radio", name="Set", exact=False).first.click()
    wait_until(
        page, lambda: query(page, "step") == "set" and page.locator(".st-key-promise").count() == 0
    )
    page.get_by_role("radio", name="Promise", exact=False).first.click()


def test_a_click_in_the_map_looks_at_that_point(page):
    page.goto("/conformal?step=map&row=0&measure=hinge")
    page.get_by_text("Test point 0").first.wait_for()
    wait_until(page, lambda: page.evaluate(f"() => ({CHART % 'map'}?.data?.length ?? 0) === 5"))
    page.locator(".st-key-map").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    x, y, row = page.evaluate(
        f"""() => {{ const c = {CHART % "map"}, f = c._fullLayout,\
 d = c._fullData.filter((t) => t.customdata)
        const [a, b, box] = [f.xaxis2, f.yaxis2, c.getBoundingClientRect()]
        for (const t of d) for (let i = 0; i < t.x.length; i++) if (t.customdata[i] > 0)
          return [box.x + a._offset + a.d2p(t.x[i]), box.y + b._offset + b.d2p(t.y[i]),\
 t.customdata[i]] }}"""
    )
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    page.mouse.click(x, y)
    wait_until(page, lambda: query(page, "row") not in (None, "0"))
    page.get_by_text(f"Test point {query(page, 'row')}").first.wait_for()
    assert row > 0


@pytest.mark.slow
def test_ten_thousand_rows_are_redrawn_quickly(page, ten_thousand, capsys):
    """From the release of the slider of calibration sizes to the last frame.

    Limits are those of a machine with nothing else to do.
    """
    page.goto("/conformal?source=own&step=promise")
    page.locator("input[type=file]").set_input_files(str(ten_thousand))
    page.get_by_text("n = 2,000 calibration points").wait_for()
    wait_until(page, lambda: sliders(page) == 2)  # the bands of all sizes are there
    page.wait_for_timeout(1_000)
    took = []
    for direction, sizes in (
        ("ArrowLeft", (1600, 1200, 800, 400)),
        ("ArrowRight", (800, 1200, 1600, 2000)),
    ):
        for n in sizes:
            page.locator(".st-key-lab-r-rail input").focus()
            page.evaluate(PAINTED, [f"n = {n:,} cal"])
            page.keyboard.press(direction)
            took.append(page.evaluate("() => window.painted"))
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    with capsys.disabled():
        print(
            f"\nrelease to paint, 10,000 rows: median {np.median(took):.0f} ms, "
            f"95 % {np.quantile(took, 0.95):.0f} ms, load ×{busy:.1f}"
        )
    assert np.median(took) < 300 * busy
    assert np.quantile(took, 0.95) < 600 * busy
