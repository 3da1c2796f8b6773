"""A training is seen and heard as it learns: curves over one axis, players, two runs together."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from core import files
from core.config.presets import SMOKE
from core.config.settings import replace
from core.runs import store
from tests.support import trained_runs
from tests.support.app import assert_no_exception, open_page, page_text, plotly_figure
from ui.train import curves, samples
from ui.widgets import charts

CLASSES = SMOKE.data.classes


def arrays(**lines) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    steps = np.arange(0, 100, 10)
    return {k.replace("_", "/"): (steps, np.asarray(v, float)) for k, v in lines.items()}


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    return arrays(loss_G=rng.normal(5, 1, 10), FID=rng.normal(9, 1, 10), KID=np.ones(10))


def test_all_curves_share_one_axis_and_one_hover_line(noisy):
    layout = curves.course_figure(noisy, 100, 50, (30, "FID")).to_dict()["layout"]
    assert (layout["hovermode"], layout["hoversubplots"]) == ("x unified", "axis")
    assert [k for k in layout if k.startswith("xaxis")] == ["xaxis"]  # a line goes through one axis
    assert layout["xaxis"]["anchor"] == "y4"
    lines = [s for s in layout["shapes"] if s["x0"] == s["x1"] == 50]
    assert [s["xref"] for s in lines] == ["x"] * 4  # the chosen step, in each panel
    figure = curves.course_figure(noisy, 100, 50, (30, "FID"))
    stars = [t for t in figure.data if t.marker.symbol == "star"]
    assert [t.y[0] for t in stars] == [noisy["FID"][1][3], 1.0]


def test_smoothing_keeps_the_measured_curve_behind_the_smooth_one(noisy):
    plain, smooth = (curves.course_figure(noisy, 100, None, None, weight=w) for w in (0.0, 0.8))
    names = [t.name for t in plain.data]
    assert [t.name for t in smooth.data] == [n for n in names for _ in range(2)]
    measured, drawn = smooth.data[0], smooth.data[1]
    np.testing.assert_array_equal(measured.y, noisy["loss/G"][1])
    assert measured.opacity == curves.RAW_OPACITY
    assert np.std(np.diff(drawn.y)) < 0.5 * np.std(np.diff(measured.y))
    assert drawn.y[0] == pytest.approx(measured.y[0])
    assert charts.smooth([2.0] * 5, 0.9) == pytest.approx([2.0] * 5)  # no pull towards 0


@pytest.mark.parametrize(
    ("steps", "heard"),
    [([5], [5]), ([1, 2, 3], [1, 2, 3]), (list(range(100)), [0, 9, 18, 27, 36, 45, 54, 63])],
)
def test_a_course_is_heard_at_evenly_chosen_checkpoints(steps, heard):
    found = samples.heard_steps(steps)
    assert found[: len(heard)] == heard
    assert (found[0], found[-1]) == (steps[0], steps[-1])
    assert len(found) <= samples.MAX_HEARD_STEPS


@pytest.fixture
def two_runs(home):
    runs = [trained_runs.fabricate_run("stopped")]
    runs.append(trained_runs.fabricate_run("stopped", replace(SMOKE, name="other", seed=1)))
    return runs


def sounds(app) -> list[str]:
    return [a.proto.url for a in app.get("audio")]


def test_every_checkpoints_voices_have_players(two_runs):
    run = two_runs[0]
    app = open_page("train", run=run.id)
    newest = sounds(app)
    assert len(newest) == len(CLASSES)
    assert_no_exception(app.get("select_slider")[0].set_value(10).run())
    assert len(sounds(app)) == len(CLASSES)
    path = run.directory / "samples" / "step-0000010.npz"
    wavs = samples.sample_sounds(path, 0.0, run.config.logmel)
    data, rate = soundfile.read(io.BytesIO(wavs[0]))
    assert len(data) / rate == pytest.approx(1.0, abs=0.02)
    assert b"nobody's voice" in wavs[0]


def test_the_scrubber_plays_the_chosen_emotion(two_runs):
    app = open_page("train", run=two_runs[0].id)
    assert not any(a.proto.autoplay for a in app.get("audio"))
    choice = next(c for c in app.segmented_control if c.label == "Hear it learn")
    assert_no_exception(choice.set_value(CLASSES[2]).run())
    course, *voices = app.get("audio")
    assert [a.proto.autoplay for a in voices] == [k == 2 for k in range(len(CLASSES))]
    assert not course.proto.autoplay
    assert "Heard in this order: step 10, 20" in page_text(app)
    folder = two_runs[0].directory / "samples"
    paths = tuple(sorted(folder.glob("*.npz")))
    wav = samples.course_sound(paths, 2, 0.0, SMOKE.logmel)
    data, rate = soundfile.read(io.BytesIO(wav))
    assert len(data) / rate == pytest.approx(2 * (1.0 + samples.GAP_SECONDS), abs=0.05)


def test_two_runs_are_heard_at_the_same_step(two_runs):
    one, two = two_runs
    y = np.zeros((len(CLASSES), 112, 28), np.float16)
    folder = two.directory / "samples"
    (folder / "step-0000010.npz").unlink()
    files.write_arrays(folder / "step-0000014.npz", y=y, label=np.arange(len(CLASSES)))
    other = store.create(
        files.checkpoints_folder() / "faces-cp-1", replace(SMOKE, gan={"direction": "voice-face"})
    )
    app = open_page("train", run=one.id, at="10")
    choice = app.selectbox(key="beside")
    assert two.id in choice.options
    assert other.id not in choice.options
    assert_no_exception(choice.set_value(two.id).run())
    assert len(sounds(app)) == 2 * len(CLASSES)
    assert f"{one.id}, step 10" in page_text(app).replace("\\", "")
    assert f"{two.id}, step 14" in page_text(app).replace("\\", "")  # the nearest that is kept
    assert app.query_params["beside"] in (two.id, [two.id])


def test_the_chart_says_its_last_values_to_who_cannot_see_it(two_runs):
    app = open_page("train", run=two_runs[0].id)
    alt = app.get("plotly_chart")[0].proto.alt
    assert "FID 17.00, KID 9.00, IS 1.20" in alt
    assert plotly_figure(app, "losses")["data"][0]["name"] == "G"


@pytest.mark.parametrize(
    ("name", "learnt_from", "of_pairs"),
    [("listening", "S1 and S3", False), ("fer2013-ravdess", "S1", True)],
)
def test_a_run_is_said_to_learn_from_whom_it_did(name, learnt_from, of_pairs):
    run = store.resolve(name, "label", files.ROOT / "checkpoints")
    app = open_page("train", run=run.id)
    assert f"f_S: faces, trained on {learnt_from}*" in page_text(app)
    assert ("of S3's" in page_text(app)) == of_pairs
