"""Conditions by hand: strength and scale 1 give G itself; a way equals its points one by one."""

from __future__ import annotations

import dataclasses
import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.config.presets import SMOKE
from core.config.settings import CONDITIONS, replace
from core.inference import conditions, generation
from core.media import vocoder
from core.models import gan
from core.runs.directory import Run
from tests.support import trained_runs

FACE = np.random.default_rng(3).integers(0, 256, (2, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, generation.LoadedRun]:
    """Finished runs of three conditions, opened."""
    home = trained_runs.trained_home(tmp_path_factory.getbasetemp() / "trained")
    found = {
        c: next((home / "checkpoints").glob(f"tiny-{c}-*")) for c in ("label", "classifier", "cp")
    }
    return {c: generation.load_run(Run(folder)) for c, folder in found.items()}


def drawn(o: generation.LoadedRun, c: np.ndarray, **more) -> conditions.GuidedSamples:
    return conditions.guided_samples(o, FACE[:1], c, np.full(len(o.classes), 0.1), **more)


def silent(config) -> generation.LoadedRun:
    """A run of a config, with no networks."""
    return SimpleNamespace(
        config=config, classes=config.data.classes, run=SimpleNamespace(id="a-run")
    )


# --- conditions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["label", "classifier", "cp"])
def test_one_emotion_is_the_label_that_training_showed(kind):
    config = replace(SMOKE, gan={"condition": kind})
    K, soft = len(config.data.classes), config.gan.soft if kind == "label" else 0.0
    for k in range(K):
        assert conditions.of_emotion(config, k) == pytest.approx(
            gan.condition("label", np.array([k]), None, None, K, soft)[0]
        )


@pytest.mark.parametrize("kind", ["label", "classifier", "cp"])
def test_presets_are_what_they_are_called(trained, kind):
    o = trained[kind]
    said, K = generation.explain_face(o, FACE[0]), len(o.classes)
    assert np.array_equal(conditions.by_name(o, said, "softmax"), said.softmax)
    assert np.array_equal(conditions.by_name(o, said, "p"), said.p)
    assert conditions.by_name(o, said, "uniform") == pytest.approx(np.full(K, 1 / K))
    assert not conditions.by_name(o, said, "none").any()
    assert conditions.by_name(o, said, "angry").argmax() == o.classes.index("angry")
    assert np.array_equal(
        conditions.by_name(o, said, "told").astype(np.float32), generation.condition_of(o, said)[0]
    )
    with pytest.raises(ValueError, match="'hungry' is no condition; there are told, softmax"):
        conditions.by_name(o, said, "hungry")


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.data())
def test_a_rebalanced_condition_sums_to_one_and_keeps_what_was_set(c, data):
    c = np.array(c)
    k, value = data.draw(st.integers(0, len(c) - 1)), data.draw(st.floats(0, 1))
    out = conditions.rebalance(c, k, value)
    assert round(100 * out.sum()) == 100
    assert out.sum() == pytest.approx(1, abs=1e-12)
    assert out[k] == pytest.approx(round(value * 100) / 100)
    assert (out >= 0).all()
    others = np.arange(len(c)) != k
    share = (
        c[others] / c[others].sum()
        if c[others].sum() > 0
        else np.full(len(c) - 1, 1 / (len(c) - 1))
    )
    assert out[others] == pytest.approx((1 - out[k]) * share, abs=0.01 + 1e-9)


def test_of_training_the_conditions_are_those_of_S3(trained):
    for kind, name in (("cp", "p_S3"), ("classifier", "o_S3")):
        known = conditions.of_training(trained[kind])
        assert np.array_equal(known.rows, trained[kind].run.arrays()[name])
        assert known.mean == pytest.approx(known.rows.mean(axis=0))
    noise = trained["label"].config.gan.label_noise
    known = conditions.of_training(trained["label"])
    assert known.mean == pytest.approx(np.full(6, 1 / 6), abs=0.01)
    assert known.rows[: conditions.NOISY_LABELS_PER_EMOTION].std(axis=0) == pytest.approx(
        np.full(6, noise), rel=0.2
    )
    assert known.rows[: conditions.NOISY_LABELS_PER_EMOTION].mean(axis=0) == pytest.approx(
        conditions.of_emotion(trained["label"].config, 0), abs=0.02
    )


def test_of_a_run_without_conditions_training_is_not_known(trained, monkeypatch):
    with pytest.raises(ValueError, match="a-run has no condition"):
        conditions.of_training(silent(replace(SMOKE, gan={"condition": "none"})))
    monkeypatch.setattr(Run, "arrays", lambda self: {})
    with pytest.raises(ValueError, match=r"outputs\.npz has no p_S3"):
        conditions.of_training(trained["cp"])


def test_familiarity_by_counting():
    rows = np.random.default_rng(0).dirichlet(np.ones(4), 300)
    known = conditions.summarise_rows(rows)
    apart = np.sqrt(((rows[:, None] - rows) ** 2).sum(axis=2)) + 9 * np.eye(300)
    assert known.spacing == pytest.approx(np.sort(apart.min(axis=1)))
    same = conditions.training_support(known, rows[7])
    assert (same.place, same.distance, same.emotions_beyond, same.is_total_beyond) == (
        "inside",
        0.0,
        (),
        False,
    )
    far = conditions.training_support(known, np.array([1.0, 1.0, 0.2, 0.2]))
    assert far.place == "outside"
    assert far.emotions_beyond == (0, 1) or set(far.emotions_beyond) <= {0, 1}
    assert far.total == pytest.approx(2.4)
    assert far.is_total_beyond
    assert far.distance == pytest.approx(
        np.sqrt(((rows - [1, 1, 0.2, 0.2]) ** 2).sum(axis=1)).min()
    )
    lonely = rows[apart.min(axis=1).argmax()]
    others = conditions.summarise_rows(rows[~(rows == lonely).all(axis=1)])
    assert conditions.training_support(others, lonely).place != "inside"


# --- drawing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["label", "classifier", "cp"])
@pytest.mark.parametrize("seed", [0, 5])
def test_unsteered_it_is_what_the_studio_generates(trained, kind, seed):
    o = trained[kind]
    c = conditions.by_name(o, generation.explain_face(o, FACE[0]), "told")
    before = torch.get_rng_state()
    d = drawn(o, c[None], seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    y = generation.generate_voices(o, FACE[0], c, seed)
    assert d.y == pytest.approx(y, abs=1e-5)
    assert pytest.approx(generation.classify_samples(o, y)["scorer"], abs=1e-4) == d.scorer
    assert d.Q.sum(axis=1) == pytest.approx(1)


def test_guidance_is_a_line_that_is_cut_at_the_range(trained):
    o, c = trained["cp"], np.eye(6)[2:3]
    s = np.array([0.0, 0.5, 1.0, 3.0, 1e6])
    d = drawn(o, c, strength=s)
    neutral, plain = (
        generation.generate_voices(o, FACE[0], np.full(6, 0.1)),
        generation.generate_voices(o, FACE[0], c[0]),
    )
    assert d.base == pytest.approx(np.repeat(neutral, 5, axis=0), abs=1e-5)
    assert d.y[0] == pytest.approx(neutral[0], abs=1e-5)
    assert d.y[2] == pytest.approx(plain[0], abs=1e-5)
    assert d.y[1] == pytest.approx((neutral + plain)[0] / 2, abs=1e-5)
    assert d.y[3] == pytest.approx(np.clip(neutral + 3 * (plain - neutral), -1, 1)[0], abs=1e-4)
    assert np.abs(d.y).max() == 1  # cut
    assert d.y.dtype == np.float32


def test_a_way_is_its_points_one_by_one(trained):
    o = trained["classifier"]
    x, c = conditions.interpolate(*FACE, 5), conditions.interpolate(*np.eye(6)[:2], 5)
    way = conditions.guided_samples(o, x, c, np.full(6, 1 / 6), 2.0, seed=4, scale=0.7)
    for i in range(5):
        one = conditions.guided_samples(
            o, x[i : i + 1], c[i : i + 1], np.full(6, 1 / 6), 2.0, seed=4, scale=0.7
        )
        for name in ("x", "c", "strength", "y", "base", "Q", "scorer"):
            assert getattr(one, name)[0] == pytest.approx(getattr(way, name)[i], abs=1e-4), name


def test_without_noise_the_seed_says_nothing(trained):
    o, c = trained["cp"], np.eye(6)[:1]
    assert np.array_equal(drawn(o, c, seed=1, scale=0.0).y, drawn(o, c, seed=2, scale=0.0).y)
    assert not np.array_equal(drawn(o, c, seed=1).y, drawn(o, c, seed=2).y)
    assert not np.array_equal(drawn(o, c, seed=1, scale=0.5).y, drawn(o, c, seed=1).y)


def test_a_run_that_makes_faces_is_refused():
    with pytest.raises(ValueError, match="makes faces from voices"):
        drawn(silent(replace(SMOKE, gan={"direction": "voice-face"})), np.eye(6)[:1])


def test_a_generator_that_is_told_nothing_is_drawn_too(trained):
    """Its condition has no numbers in it; a stand-in for G sees that the shapes are right."""
    config = replace(SMOKE, gan={"condition": "none"})
    shapes = []

    def G(x, c, z):
        shapes.append((tuple(x.shape), tuple(c.shape), tuple(z.shape)))
        return torch.zeros(len(x), 1, 112, 28)

    o = dataclasses.replace(trained["cp"], config=config, G=G)
    d = conditions.guided_samples(o, FACE, np.zeros((1, 0)), np.zeros(0))
    assert shapes == [((4, 1, 28, 28), (4, 0), (4, config.gan.z))]
    assert d.c.shape == (2, 0)


def test_between_has_both_ends_and_even_steps():
    way = conditions.interpolate(np.array([0.0, 1.0]), np.array([1.0, 0.5]), 5)
    assert way == pytest.approx(
        np.array([[0, 1], [0.25, 0.875], [0.5, 0.75], [0.75, 0.625], [1, 0.5]])
    )
    faces = conditions.interpolate(*FACE, 9)
    assert faces.dtype == np.uint8
    assert np.array_equal(faces[[0, -1]], FACE)
    assert faces[4] == pytest.approx(FACE.mean(axis=0), abs=0.51)
    with pytest.raises(ValueError, match="two points"):
        conditions.interpolate(*FACE, 1)


@pytest.mark.parametrize("kind", ["label", "classifier", "cp"])
def test_along_a_way_of_faces_each_tells_its_own(trained, kind):
    o = trained[kind]
    assert set(trained) | {"none"} == set(CONDITIONS)
    c = conditions.of_faces(o, FACE)
    for i in range(2):
        assert np.array_equal(
            c[i].astype(np.float32),
            generation.condition_of(o, generation.explain_face(o, FACE[i]))[0],
        )


def test_a_way_is_heard_in_one_piece_and_its_loudness_kept(trained):
    o = trained["cp"]
    s = o.config.logmel
    rng = np.random.default_rng(0)
    loud = np.clip(0.7 + 0.1 * rng.standard_normal((s.columns, s.bands)), -1, 1)
    y = np.stack([loud, loud - 2 * 20 / s.range_db])  # the second is 20 dB quieter
    assert (
        vocoder.to_waveform(y, o.ref_db, s)[1].min() < -1
    )  # the first alone would have been turned down
    wave, rate = soundfile.read(io.BytesIO(conditions.concatenated_wav(o, y, pause=0.1)))
    one = (s.columns - 1) * s.hop + round(0.1 * rate)
    assert (rate, len(wave)) == (s.rate, 2 * one)
    first, second = (np.sqrt((part[: one // 2] ** 2).mean()) for part in (wave[:one], wave[one:]))
    assert 20 * np.log10(first / second) == pytest.approx(20, abs=1.5)
    assert np.abs(wave).max() < 1
    assert not wave[one - round(0.1 * rate) : one].any()


# --- who decides ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("face", "emotion", "noise"), [(0, 1, 1), (1, 0, 0), (2, 1, 3)])
def test_the_face_decides_its_share_of_a_sum(monkeypatch, face, emotion, noise):
    """Voices that are a sum of independent parts: the shares are those of their variances."""
    z = np.random.default_rng(0).standard_normal(5)

    def voices(o, x, c, seed, n):
        y = face * float(x[0, 0]) + emotion * 10 * c[0] + noise * 10 * z[:n]
        return y[:, None, None] + np.zeros((1, 3, 2))

    monkeypatch.setattr(generation, "generate_voices", voices)
    x = np.array([0, 10, 30], np.uint8)[:, None, None] + np.zeros((1, 28, 28), np.uint8)
    c = np.array([[0.0], [1.0], [5.0], [2.0]])
    parts = face**2 * x[:, 0, 0].var(), emotion**2 * (10 * c).var(), noise**2 * (10 * z).var()
    share = conditions.face_share(silent(SMOKE), x, c, draws=5)
    assert share == pytest.approx(parts[0] / sum(parts))


def test_a_generator_that_makes_one_voice_leaves_nothing_to_the_face(monkeypatch):
    same = lambda o, x, c, seed, n: np.ones((n, 3, 2))  # noqa: E731
    monkeypatch.setattr(generation, "generate_voices", same)
    assert conditions.face_share(silent(SMOKE), FACE, np.eye(2)) == 0
