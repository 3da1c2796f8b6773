"""All windows of a voice, and listening runs: what the networks learn from."""

import numpy as np
import pytest
import torch

from core import files
from core.config.serialisation import config_hash, run_name
from core.config.settings import replace
from core.data import prepared_corpora, splits
from core.data.corpora import CorpusError
from core.data.prepared_corpora import PreparedCorpus, speech_windows
from core.evaluation import augmentation
from core.experiments import classifier_fitting, gan_training, pipeline
from core.inference import export
from core.models import classifiers, networks
from tests.support import noise_corpora, small_pipeline

ALL = replace(small_pipeline.TINY, name="heard", data={"windows": "all", "listening": True})
CPU = torch.device("cpu")


def corpus(*clips: list[np.ndarray]) -> PreparedCorpus:
    """A corpus of voices alone: each clip a list of windows (112, 28) in dB."""
    n, empty = len(clips), np.array([""] * len(clips))
    first, more = np.stack([c[0] for c in clips]), np.stack([np.stack(c[1:]) for c in clips])
    at, none = np.arange(n), np.full(n, -1)
    pictures = np.zeros((0, 28, 28), np.uint8)
    return PreparedCorpus(
        *("x", empty, empty, empty, empty, none, at, pictures, first, {"ref_db": 0.0}),
        voices_more=more,
    )


def window(level: float, share: float = 1.0) -> np.ndarray:
    """A window with so many dB in a share of its columns, and silence in the others."""
    out = np.full((112, 28), -100.0, np.float32)
    out[: round(112 * share)] = level
    return out


def test_windows_of_silence_and_repeated_ones_are_left_out():
    loud, soft, pause = window(-10), window(-30), window(-60)
    short = window(-10, 0.2)
    db, counts = speech_windows(
        corpus([loud, soft, pause], [loud, loud, loud], [pause, loud, short]), np.arange(3), 0.3
    )
    assert db.shape == (3, 3, 112, 28)
    assert counts.tolist() == [2, 1, 2]
    assert np.array_equal(db[0], [loud, soft, loud])  # repeated, so that clips weigh alike
    assert (db[1] == loud).all()
    assert np.array_equal(db[2], [pause, loud, pause])  # the first always counts
    _, fuller = speech_windows(
        corpus([loud, window(-10, 0.5), window(-10, 0.7)]), np.arange(1), 0.6
    )
    assert fuller.tolist() == [2]


def test_a_clip_is_judged_by_the_mean_of_its_own_windows():
    network = networks.Classifier((28, 28), (4, 8), 3, 8).eval()
    windows = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    o = classifiers.clip_softmax(network, windows, np.array([2, 3]))
    for i, n in ((0, 2), (1, 3)):
        own = classifiers.softmax(network, windows[i, :n, None])
        assert o[i] == pytest.approx(own.mean(axis=0), abs=1e-6)


@pytest.fixture(scope="module")
def crops_world(tmp_path_factory):
    """A prepared demo corpus with three windows of each voice."""
    root = tmp_path_factory.mktemp("crops")
    with pytest.MonkeyPatch.context() as m:
        m.setenv("DACSSGAN_DATA", str(root / "data"))
        m.setenv("DACSSGAN_CHECKPOINTS", str(root / "runs"))
        noise_corpora.prepare_noise_demo(takes=1, crops=3)
        yield root


def test_defaults_keep_the_names_of_runs_and_of_cached_classifiers():
    config = small_pipeline.TINY
    assert config.data.windows == "middle"
    assert not config.data.listening
    plain = classifier_fitting.classifier_files(config, "d")
    heard = replace(config, data={"listening": True})
    assert classifier_fitting.classifier_files(heard, "d") == plain
    windows = replace(config, data={"windows": "all"})
    assert classifier_fitting.classifier_files(windows, "d") != plain
    fuller = replace(windows, data={"speech": 0.6})
    assert classifier_fitting.classifier_files(fuller, "d") != classifier_fitting.classifier_files(
        windows, "d"
    )
    unused = replace(config, data={"speech": 0.6})  # of middle windows it says nothing
    assert classifier_fitting.classifier_files(unused, "d") == plain
    assert len({config_hash(c, "d") for c in (config, heard, windows, fuller)}) == 4
    assert run_name(heard, "d").startswith("tiny-listening-cp-")
    assert run_name(config, "d").startswith("tiny-cp-")


def test_networks_learn_from_all_windows(crops_world):
    sets = splits.build_sets(ALL)
    S1 = sets["S1"]
    n, W = S1.windows.shape[:2]
    assert (n, W) == (len(S1.y), 3)
    assert np.array_equal(S1.windows[:, 0], S1.y)  # the first is the middle
    assert (S1.window_counts >= 1).all()
    assert S1.window_counts.max() > 1
    y, labels = classifier_fitting.target_windows(S1)
    assert len(y) == len(labels) == 3 * n
    assert np.array_equal(y[n : 2 * n], S1.windows[:, 1])
    assert np.array_equal(labels, np.tile(S1.y_label, 3))
    few, _ = classifier_fitting.target_windows(S1, np.array([4, 2]))
    assert np.array_equal(few[:2], S1.y[[4, 2]])


def test_g_learns_from_every_window_and_in_a_listening_run_from_s1_to_s3(crops_world):
    sets = splits.build_sets(ALL)
    c = {k: np.eye(6, dtype=np.float32)[s.x_label] for k, s in sets.items()}
    pool = gan_training.make_pool(ALL, sets, c, CPU)
    n = sum(len(sets[k].y) for k in ("S1", "S2", "S3"))
    assert len(pool.y) == len(pool.y_target) == 3 * n
    assert len(pool.x) == len(pool.c) == n
    i, j = pool.epoch_pairs(0)
    assert np.array_equal(i, j % n)  # a clip's face meets a window of its own voice
    assert set((j // n).tolist()) == {0, 1, 2}
    known = {s for k in ("S1", "S2", "S3") for s in sets[k].y_subject}
    assert not known & set(sets["S4"].y_subject)
    four = torch.from_numpy(sets["S4"].y)[:, None]
    assert not (pool.y[:, None] == four[None]).flatten(2).all(dim=2).any()
    plain = replace(ALL, data={"listening": False})
    assert len(gan_training.make_pool(plain, sets, c, CPU).x) == len(sets["S3"].x)
    with pytest.raises(files.UserError, match="one face of a clip"):
        gan_training.make_pool(replace(ALL, data={"frames": "all"}), sets, c, CPU)


def test_one_prepared_window_is_told(crops_world, tmp_path, monkeypatch):
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path))
    noise_corpora.prepare_noise_demo(takes=1)
    with pytest.raises(CorpusError, match="--crops 7"):
        splits.build_sets(ALL)
    turned = replace(ALL, gan={"direction": "voice-face"})
    with pytest.raises(CorpusError, match="use windows 'middle'"):
        splits.build_sets(turned)


def test_a_listening_run_has_no_augmentation_and_says_what_it_is(crops_world):
    phases = set()
    run = pipeline.run(ALL, device="cpu", report=lambda phase, *_: phases.add(phase))
    assert {"sample S4", "score S1"} < phases
    assert "sample S3" not in phases  # no row uses such samples
    assert run.id.startswith("heard-listening-cp-")
    results = run.json("results")
    assert set(results["augmentation"]) == {"S1", "S1 + pseudo-labelled S3", "S1 + S3"}
    assert "S1 + generated: not measured in a listening run" in " ".join(results["notes"])
    assert "A listening run" in export.model_card(run)
    with pytest.raises(files.UserError, match="listening run"):
        augmentation.compute_table(run)
    folds = pipeline.baselines(replace(ALL, data={"fold": 4}), 2, "voice", "cpu")
    assert [f["fold"] for f in folds] == [4, 0]
    assert folds[0]["N"] > 0
    assert prepared_corpora.is_demo(run.config.data.voices)
