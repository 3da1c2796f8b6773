"""Real voices that a shared copy of a run brings along, and its card."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from core import files
from core.data import corpora
from core.evaluation.hearing import comparison
from core.files import UserError
from core.inference import export
from core.inference.gallery import real_items
from core.runs import checks, store
from core.runs.directory import Run
from tests.support import trained_runs


@pytest.fixture
def photographs(tmp_path) -> Run:
    """A copy of a shipped run whose corpora are not here, without voices of its own."""
    (source,) = [p for p in trained_runs.SHIPPED if p.name.startswith("fer2013-ravdess-label")]
    run = Run(shutil.copytree(source, tmp_path / "checkpoints" / source.name))
    for name in ("real_voices.npz", "ears.json"):
        (run.directory / name).unlink()
    return run


def some_voices(n=20, classes=7, speakers=3) -> real_items.RealVoices:
    y = np.random.default_rng(0).uniform(-1, 1, (n, 112, 28)).astype(np.float32)
    speaker = np.array([f"ravdess-{i % speakers:02d}" for i in range(n)])
    clip = np.array([f"03-{i:02d}" for i in range(n)])
    return real_items.RealVoices(y, np.arange(n) % classes, speaker, clip)


def test_few_voices_are_of_all_emotions_and_of_as_many_speakers_as_possible():
    v = some_voices(n=90, classes=2)
    kept = real_items.few_voices(v, most=3)
    assert np.bincount(kept["label"]).tolist() == [3, 3]
    for k in (0, 1):
        assert len(set(kept["subject"][kept["label"] == k])) == 3
    row = [v.clip.tolist().index(c) for c in kept["clip"]]
    np.testing.assert_allclose(kept["y"], v.y[row], atol=1e-3)


def test_a_copy_brings_real_voices_only_of_a_corpus_that_may_be_shared(
    own_trained_home, tmp_path, monkeypatch
):
    run = store.resolve("tiny", "label")
    assert not (export.ship_run(run, tmp_path / "a") / "real_voices.npz").exists()
    demo = replace(corpora.KNOWN_CORPORA["demo"], is_shareable=True)
    monkeypatch.setitem(corpora.KNOWN_CORPORA, "demo", demo)
    copy = Run(export.ship_run(run, tmp_path / "b"))
    here, kept = real_items.load_real_voices(run), real_items.kept_voices(copy)
    assert 0 < len(kept.y) <= 8 * 6
    row = [here.clip.tolist().index(c) for c in kept.clip]
    np.testing.assert_allclose(kept.y, here.y[row], atol=1e-3)
    card = (copy.directory / "CARD.md").read_text()
    assert f"{len(kept.y)} real spectrograms of S4's people" in card
    assert "under MIT" in card
    assert set(kept.subject) <= set(here.subject)


def test_without_the_corpus_the_kept_voices_stand_beside_the_generated(
    photographs, tmp_path, monkeypatch
):
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "nothing"))
    assert len(real_items.load_real_items(photographs).voices.y) == 0
    files.write_arrays(
        photographs.directory / "real_voices.npz", **real_items.few_voices(some_voices())
    )
    checks.check(photographs)
    r = real_items.load_real_items(photographs)
    assert len(r.voices.y) == 20
    assert not len(r.trained.y)
    assert (r.voice_row >= 0).all()
    assert (r.voices.label[r.voice_row] == r.label).all()
    assert any("20 of ravdess" in note for note in r.notes)


@pytest.mark.parametrize("fault", ["label", "y", "lost"])
def test_kept_voices_are_checked_as_all_files_of_a_run(fault, photographs):
    kept = real_items.few_voices(some_voices())
    if fault == "label":
        kept["label"] = kept["label"] + 7
    elif fault == "y":
        kept["y"] = kept["y"][:, :100]
    else:
        del kept["clip"]
    files.write_arrays(photographs.directory / "real_voices.npz", **kept)
    with pytest.raises(UserError, match="real_voices.npz"):
        checks.check(photographs)


def test_the_card_says_how_voices_sound(photographs):
    rng, labels = np.random.default_rng(0), np.arange(14) % 7
    lines = [
        comparison.Line(n, 14, {"OVRL": rng.normal(2, 0.1, 14)}, rng.normal(size=(14, 4)), labels)
        for n in (comparison.RECORDED, comparison.GENERATED)
    ]
    assert "How it sounds" not in export.model_card(photographs)
    ears = comparison.as_json(lines, photographs.config.data.classes)
    files.write_json(photographs.directory / "ears.json", ears)
    checks.check(photographs)
    card = export.model_card(photographs)
    mean, error = ears[comparison.GENERATED]["scores"]["OVRL"]
    assert f"| {comparison.GENERATED} | 14 | {mean:.2f} ± {error:.2f} |" in card
    assert "generated against real voices (N = 14 and 14)" in card
    alone = {comparison.GENERATED: ears[comparison.GENERATED]}  # the recordings were not there
    files.write_json(photographs.directory / "ears.json", alone)
    assert "against real voices (N" not in export.model_card(photographs)
    files.write_json(photographs.directory / "ears.json", {"real": {"N": "<b>"}})
    with pytest.raises(UserError, match="ears.json"):
        checks.check(photographs)
