"""Wherever a credibility is shown stand its possible range and its place among test points."""

from __future__ import annotations

import re

import numpy as np
import pytest

from core import files
from core.cli import inference as commands
from core.conformal import credibility
from core.data.demo import actors, recordings
from core.inference import export, generation
from core.media import clips
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import open_page, page_text
from tests.support.noise_corpora import page_markup

SCALE = r"\d\.\d\d; possible here \d\.\d\d to 1; lower than \d+ % of test {}"


def the_run(condition: str = "cp") -> Run:
    row = next(r for r in store.list_runs() if r["condition"] == condition)
    return Run(files.checkpoints_folder() / row["run"])


def assert_scale(text: str, points: str = "faces") -> None:
    assert re.search(SCALE.format(points), text), text[:3000]


def test_home_condition_lab_and_gallery(own_trained_home):
    for page, query in (
        ("", {}),
        ("condition", {"run": the_run().id, "face": "drawn-happy"}),
        ("gallery", {"run": the_run().id}),
    ):
        app = open_page(page, **query)
        assert_scale(page_text(app) + page_markup(app))


def test_listen(landmark_model):
    app = open_page("listen")
    assert_scale(page_text(app))
    metric = next(m for m in app.metric if m.label == "Credibility")
    assert "indecision, not strangeness" in metric.proto.help
    assert "unlike all of them" not in metric.proto.help


def test_reverse(home, tmp_path_factory):
    trained_runs.copy_home(
        trained_runs.reverse_home(tmp_path_factory.getbasetemp() / "turned"), home
    )
    app = open_page("reverse", run=the_run("label").id)
    assert_scale(page_text(app), "voices")


def test_what_generate_prints_and_writes(landmark_model, tmp_path):
    frames = recordings.render_clip(actors.list_takes()[0])[0]
    seen = generation.analyse_clip(clips.Clip("face", np.arange(len(frames)) / 25, frames, None))
    options = commands.GenerateOptions(tmp_path / "face.mp4", run=the_run().id)
    opened = generation.load_run(the_run())
    facts, _, _, _, words = commands._generate_voice(options, opened, seen)
    assert_scale(words)
    assert "indecision, not strangeness" in words
    assert facts["possible credibility"] == [opened.credibility.low, 1.0]
    assert facts["test faces of a higher credibility"] == pytest.approx(
        opened.credibility.share_above(facts["credibility"])
    )
    assert facts["predictor"] == "inductive CP on f_S's softmax, margin, pooled"


def test_the_card_names_the_range(own_trained_home):
    card = export.model_card(the_run())
    s = generation.load_run(the_run()).credibility
    assert f"A credibility lies between {s.low:.2f} and 1 here" in card
    assert "indecision, not strangeness" in card
    assert credibility.MEANING.startswith("The highest p-value")
