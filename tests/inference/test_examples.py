"""What a run has kept of single faces: drawn again exactly, counted round, and refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core import files
from core.config.settings import replace
from core.data import prepared_corpora, splits
from core.data.demo import actors, expressions, voices
from core.inference import examples
from core.media import spectrograms
from core.media.faces import alignment
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.fixture
def run(own_trained_home) -> Run:
    return next(
        Run(files.checkpoints_folder() / r["run"])
        for r in store.list_runs()
        if r["condition"] == "cp"
    )


def test_an_example_is_what_the_run_has_kept(run):
    kept, out = run.arrays("generated"), run.arrays()
    own = np.nonzero(kept["label"] == run.config.data.classes.index("sad"))[0]
    e = examples.load_face_example(run, "sad", 1)
    assert (e.number, e.of, e.run) == (1 % len(own), len(own), run.id)
    np.testing.assert_array_equal(e.y, kept["y"][own[e.number]].astype(np.float32))
    np.testing.assert_array_equal(e.p, out["p_S4"][kept["row"][own[e.number]]])
    np.testing.assert_allclose(e.c, e.p, atol=1e-6)  # CP is told the p-values
    assert e.heard.sum() == pytest.approx(1, abs=1e-4)


def test_examples_are_counted_round(run):
    first = examples.load_face_example(run, "happy", 0)
    again = examples.load_face_example(run, "happy", first.of)
    assert again.number == 0
    np.testing.assert_array_equal(first.y, again.y)


def test_a_drawn_face_is_the_one_of_the_row(run):
    e = examples.load_face_example(run, "fear")
    assert e.name.split("_")[2] == "FEA"
    actor = int(e.name.split("_")[1])
    row = run.arrays("generated")["row"][
        run.arrays("generated")["label"] == run.config.data.classes.index("fear")
    ][0]
    assert run.arrays()["subject_S4"][row] == f"demo-{actor:02d}"
    take = next(t for t in actors.list_takes(run.config.data.demo_takes) if t.clip_id == e.name)
    wave = voices.synthesise_voice(take)
    np.testing.assert_array_equal(
        e.face,
        alignment.align(
            *expressions.render_face(take, t=spectrograms.centre_time(len(wave) / 16_000))
        ),
    )
    assert e.real.shape == e.y.shape


@pytest.mark.skipif(
    not (SHIPPED.parent / "data/processed/demo-10.npz").exists(),
    reason="the demo corpus is not prepared here",
)
def test_what_is_drawn_again_is_what_was_prepared(monkeypatch):
    monkeypatch.delenv("DACSSGAN_DATA", raising=False)
    run = Run(next(SHIPPED.glob("demo-cp-*")))
    S4 = splits.build_sets(run.config)["S4"]
    kept = run.arrays("generated")
    for emotion in ("neutral", "disgust"):
        e = examples.load_face_example(run, emotion, 2)
        row = kept["row"][np.nonzero(kept["label"] == run.config.data.classes.index(emotion))[0][2]]
        assert np.abs((S4.x[row] + 1) * 127.5 - e.face).max() <= 1
        np.testing.assert_allclose(S4.y[row], e.real, atol=1e-3)


def test_a_corpus_that_is_not_here_leaves_the_picture_out(run):
    c = replace(run.config, data={"faces": "fer2013", "voices": "ravdess", "pairing": "emotion"})
    files.write_json(run.directory / "config.json", store.to_dict(c))
    e = examples.load_face_example(run, "angry")
    assert (e.face, e.picture, e.real, e.name) == (None, None, None, "")
    assert e.y.shape == (112, 28)


def test_another_corpus_of_the_same_name_is_not_taken_for_it(run):
    c = replace(run.config, data={"faces": "made", "voices": "made"})
    source = prepared_corpora.corpus_path("demo", c.data.demo_takes)
    prepared_corpora.corpus_path("made").write_bytes(source.read_bytes())
    files.write_json(run.directory / "config.json", store.to_dict(c))
    assert examples.load_face_example(run, "angry").face is not None
    corpus = run.json("corpus")
    corpus["faces"]["digest"] = "0" * 16
    files.write_json(run.directory / "corpus.json", corpus)
    assert examples.load_face_example(run, "angry").face is None


@pytest.mark.parametrize("emotion", ["calm", "", "<b>"])
def test_what_is_not_kept_is_said(run, emotion):
    with pytest.raises(ValueError, match="has kept no sample"):
        examples.load_face_example(run, emotion)


def test_an_unfinished_run_has_no_example(home):
    with pytest.raises(ValueError, match="let its training finish"):
        examples.load_face_example(trained_runs.fabricate_run("stopped"), "happy")


def test_a_run_the_other_way_round_has_no_voices(run):
    files.write_json(
        run.directory / "config.json",
        store.to_dict(replace(run.config, gan={"direction": "voice-face"})),
    )
    with pytest.raises(ValueError, match="makes faces from voices"):
        examples.load_face_example(run, "happy")
