"""The studio in headless Chromium: a training is started, watched, paused, resumed and stopped.

A clip goes in and a voice comes out.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
import soundfile

from core.__main__ import main
from core.media import clips, spectrograms
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import wait_until

CLIP = "crema-d/VideoFlash/1001_DFA_HAP_XX.flv"
HEARD = ",".join(["true"] * 5)  # a voice by each condition, and the clip's own twice
BADGE = "[data-testid=stMarkdownContainer] .stMarkdownBadge"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def home(visited_home) -> Path:
    """The home that all visits share."""
    return visited_home


def points(tab, chart: str) -> int:
    """How many points the first line of a chart has; 0 while there is no chart."""
    return tab.evaluate(
        f"() => document.querySelector('.st-key-{chart} .js-plotly-plot')"
        "?.data?.[0]?.x?.length ?? 0"
    )


def shown_fid(tab) -> float:
    """The FID of the checkpoint on show; infinite before there is one."""
    found = re.search(r"FID (\d+\.\d+)", tab.locator(".stMain").inner_text())
    return float(found[1]) if found else np.inf


def sounds(tab) -> list[str]:
    """The addresses of the sounds that can be played."""
    return tab.evaluate("() => [...document.querySelectorAll('audio')].map(a => a.src)")


def state(tab) -> str:
    return tab.locator(BADGE).first.inner_text()


@pytest.mark.slow  # it draws its corpus, and hears a generator learn
@pytest.mark.timeout(900)
def test_a_training_is_started_watched_found_again_paused_scrubbed_resumed_and_stopped(page, home):
    # the first page that this server shows: the router must frame it all the same
    page.goto("/train")
    page.get_by_role("link", name="Listen").wait_for()
    steps = page.get_by_label("Steps", exact=True)
    steps.fill("3000")
    steps.press("Enter")
    page.get_by_role("button", name="Start").click()
    # the corpus is drawn first, at low priority beside all other tests
    page.get_by_role("button", name="Stop training").wait_for(timeout=240_000)
    wait_until(page, lambda: points(page, "losses") > 0, seconds=150)  # classifiers come first
    before = points(page, "losses")
    wait_until(page, lambda: points(page, "losses") > before)
    # refreshing has not touched the form
    assert page.get_by_label("Steps", exact=True).input_value() == "3000"
    wait_until(page, lambda: len(sounds(page)) > 1, seconds=60)
    first, fid = sounds(page), shown_fid(page)
    wait_until(page, lambda: len(sounds(page)) > 1 and not set(sounds(page)) & set(first), 60)
    wait_until(page, lambda: shown_fid(page) < 0.9 * fid < np.inf, 90)
    run = parse_qs(urlparse(page.url).query)["run"][0]

    page.reload()
    wait_until(page, lambda: page.locator(BADGE).count() and state(page) == "running")
    assert run in page.get_by_role("combobox", name="Run").input_value()
    assert parse_qs(urlparse(page.url).query)["run"] == [run]
    checkpoint = page.get_by_role("slider", name="Checkpoint (training step)")
    checkpoint.wait_for()  # two checkpoints or more
    page.get_by_role("button", name="Pause training").click()
    wait_until(page, lambda: state(page) == "paused")
    assert (home / "checkpoints" / run / "state.pt").exists()

    checkpoint.press("ArrowLeft")
    wait_until(page, lambda: "at" in parse_qs(urlparse(page.url).query))
    at = parse_qs(urlparse(page.url).query)["at"][0]
    page.get_by_text(f"Step {int(at):,} of 3,000").wait_for()
    page.reload()
    page.get_by_text(f"Step {int(at):,} of 3,000").wait_for()
    wait_until(page, lambda: points(page, "heard") > 0 and points(page, "losses") > 0)
    before = points(page, "losses")

    page.get_by_role("button", name="Resume training").click()
    wait_until(page, lambda: state(page) == "running" and points(page, "losses") > before, 150)
    assert parse_qs(urlparse(page.url).query)["at"] == [at]  # what was chosen stays, whatever comes
    page.get_by_role("button", name="Stop training").click()
    wait_until(page, lambda: state(page) == "stopped")
    page.get_by_role("button", name="Resume training").wait_for()


SEEN = """window.early = [];
new MutationObserver(() => {
  const bar = document.querySelector('[data-testid=stProgress]');
  const faces = document.querySelectorAll('img[alt*="box around the face"]');
  const fresh = [...faces].filter(f => !f.closest('[data-stale=true]')).length;
  if (bar) window.early.push([bar.innerText.trim(), fresh]);
}).observe(document, {subtree: true, childList: true, attributes: true, characterData: true});"""


def upload(page, path: Path) -> None:
    page.goto("/listen")
    page.locator(".st-key-wav-cp button").wait_for()  # the example has come
    page.get_by_text("Upload", exact=True).click()
    page.locator("input[type=file]").set_input_files(str(path))
    page.get_by_text(path.name).first.wait_for()
    page.locator(".st-key-wav-cp button").wait_for()


def download(page, key: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator(f".st-key-{key} button").first.click()
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def shown_seed(page) -> str:
    """The seed that the page Listen shows."""
    return page.locator(".st-key-seed input").input_value()


def commanded(home: Path, run: Run, clip: Path, out: Path, *options: str) -> np.ndarray:
    """The spectrogram that the command line makes of a clip."""
    named = ["--run", run.id, "--condition", "cp", "--out", str(out)]
    with mock.patch.dict(os.environ, trained_runs.home_environment(home)):
        assert main(["generate", str(clip), *named, *options]) == 0
    return np.load(next(out.glob("*.npy")), allow_pickle=False)


def test_a_clip_becomes_the_voice_that_the_command_line_makes(page, home, shared_data, tmp_path):
    clip = shared_data / CLIP
    page.add_init_script(SEEN)
    upload(page, clip)
    early = page.evaluate("window.early")
    text = r"Read and searched for faces: \d\.\d of 1\.9 s"
    assert all(re.fullmatch(text, words) for words, _ in early)
    assert any(faces for _, faces in early)  # the face is there while it is still read
    page.locator("audio").nth(4).wait_for(
        state="attached"
    )  # three conditions, and the clip's own voice twice
    wait_until(
        page,
        lambda: page.evaluate(
            "() => [...document.querySelectorAll('audio')].every(a => a.duration > 0.9)"
        ),
    )
    for condition in ("label", "classifier", "cp"):
        wave, rate = soundfile.read(download(page, f"wav-{condition}", tmp_path))
        assert rate == 16_000
        assert 0.9 < len(wave) / rate < 1.1
        assert np.sqrt((wave**2).mean()) > 1e-3
    y = np.load(download(page, "npy-cp", tmp_path), allow_pickle=False)

    run = Run(next((home / "checkpoints").glob("tiny-cp-*")))
    made = commanded(home, run, clip, tmp_path / "out", "--seed", shown_seed(page))
    np.testing.assert_allclose(y, made, atol=1e-5)
    shown = (
        np.array(page.locator(".st-key-chart-cp canvas").evaluate("c => [...c.decibels]")).reshape(
            y.shape[-2:]
        )
        / 100
    )
    page.locator(".st-key-chart-cp canvas").hover()
    page.get_by_text(re.compile(r"^0\.\d\d s · \d\.\d\d kHz · -?\d+ dB$")).wait_for()
    ref = run.json("corpus")["voices"]["ref_db"]
    np.testing.assert_allclose(shown, spectrograms.unscale(made, ref, run.config.logmel), atol=6e-3)


@pytest.mark.slow
def test_a_film_has_a_voice_of_its_length_that_the_command_line_makes_too(
    page, home, shared_data, tmp_path
):
    clip = shared_data / CLIP
    upload(page, clip)
    page.get_by_text("Whole clip", exact=True).click()
    page.locator(".st-key-wav-whole-cp button").wait_for()
    wait_until(
        page,
        lambda: (
            page.evaluate(
                "() => [...document.querySelectorAll('audio')].map(a => a.duration > 1.5).join()"
            )
            == HEARD
        ),
    )
    heard = """async () => { const a = document.querySelector('audio');\
 a.muted = true; a.currentTime = 1.2; await a.play();
      await new Promise(r => setTimeout(r, 400)); return a.currentTime; }"""
    assert page.evaluate(heard) > 1.2  # it is heard beyond its first second
    bars = page.get_by_role("img", name="what was told when")
    assert bars.count() == 3
    y = np.load(download(page, "npy-whole-cp", tmp_path), allow_pickle=False)
    picture = page.locator(".st-key-chart-whole-cp canvas")
    left, right = (box["x"] for box in (picture.bounding_box(), bars.first.bounding_box()))
    assert abs(left - right) < 3  # what was told stands below the moment it was told for

    page.locator(".st-key-film").get_by_text("CP", exact=True).click()
    page.locator("video").wait_for(state="attached")
    ready = "() => { const v = document.querySelector('video'); return [v.duration, v.videoWidth] }"
    wait_until(page, lambda: all(page.evaluate(ready)))
    seconds, width = page.evaluate(ready)
    assert (seconds, width) == (pytest.approx(1.9, abs=0.1), 480)
    film = download(page, "mp4-film", tmp_path).read_bytes()
    assert b"nobody's voice" in film

    run = Run(next((home / "checkpoints").glob("tiny-cp-*")))
    seed = shown_seed(page)
    np.testing.assert_allclose(
        y, commanded(home, run, clip, tmp_path / "out", "--whole", "--seed", seed), atol=1e-5
    )


@pytest.mark.slow
def test_a_clip_that_a_phone_took_upright_is_turned(page, shared_data, tmp_path):
    clip = clips.read_clip(shared_data / CLIP)
    path = tmp_path / "phone.mp4"
    clips.write_clip(path, np.rot90(clip.frames, axes=(1, 2)), 10, clip.waveform)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44  # the picture's matrix: turn by 90 degrees
    one = 1 << 16
    content[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    upload(page, path)
    page.get_by_text("turned by 90 degrees").wait_for()
    wait_until(page, lambda: page.locator("audio").count() == 5)
    frame = page.get_by_alt_text("with a box around the face").bounding_box()
    assert frame["width"] > frame["height"]  # as the clip was before it was laid on its side
    heard = sounds(page)
    page.get_by_role("link", name="Condition lab").click()  # and back: the clip is still there
    page.get_by_role("heading", level=1, name="Condition lab").wait_for()
    page.get_by_role("link", name="Listen").click()
    page.get_by_text("phone.mp4: your last clip").wait_for()
    wait_until(page, lambda: sounds(page) == heard)
