"""How voices sound: tones of known pitch, level and slope; judges; the lines of a run."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from core import files
from core.config.settings import LogMel, replace
from core.data.corpora import CorpusError
from core.data.demo import actors, voices
from core.evaluation.hearing import acoustics, comparison, emotions, judges, recordings
from core.runs.directory import Run
from tests.support import small_pipeline

S = LogMel()
T = np.arange(S.rate) / S.rate


def harmonics(f0: np.ndarray | float, fall_db: float = 6.0) -> np.ndarray:
    """A second of harmonics of f0 up to 7 kHz that fall by `fall_db` an octave."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0, T.shape)) / S.rate
    most = int(7_000 / np.max(f0))
    wave = sum(10 ** (-fall_db * np.log2(k) / 20) * np.sin(k * phase) for k in range(1, most + 1))
    return (0.1 * wave / np.abs(wave).max()).astype(np.float32)


# --- acoustics ------------------------------------------------------------------------------------


@pytest.mark.slow  # librosa's pYIN is compiled for half a minute where no earlier run has done it
@pytest.mark.parametrize("f0", [90.0, 180.0, 320.0])
def test_the_mean_pitch_of_a_tone(f0):
    mean, spread = acoustics.pitch_features(acoustics.pitch(harmonics(f0), S))
    assert mean == pytest.approx(12 * np.log2(f0 / 55), abs=0.3)
    assert spread < 0.5


@pytest.mark.slow
def test_the_range_of_a_glide():
    """An even glide over an octave: its inner 80 % are 9.6 semitones."""
    mean, spread = acoustics.pitch_features(acoustics.pitch(harmonics(120 * 2**T), S))
    assert mean == pytest.approx(12 * np.log2(120 * 2**0.5 / 55), abs=0.5)
    assert spread == pytest.approx(9.6, abs=0.8)


def test_without_a_voiced_column_there_is_no_pitch():
    assert np.isnan(acoustics.pitch_features(np.zeros(50))).all()


@pytest.mark.slow
def test_silence_has_no_features():
    silence = acoustics.features(np.zeros((1, S.rate), np.float32), S)
    assert np.isnan(silence).all()


@pytest.mark.parametrize("fall", [3.0, 12.0])
def test_the_slope_of_harmonics_is_their_fall(fall):
    """Below 5 kHz each octave holds twice as many harmonics, but the power of a bin is theirs."""
    _, slope = acoustics.level_and_slope(harmonics(110.0, fall), S)
    assert slope == pytest.approx(-fall, abs=1.5)


def test_level_follows_the_gain_and_leaves_pauses_out():
    wave = harmonics(150.0)
    level, slope = acoustics.level_and_slope(wave, S)
    assert level == pytest.approx(20 * np.log10(wave.std()), abs=0.5)
    louder, same = acoustics.level_and_slope(2 * wave, S)
    assert louder - level == pytest.approx(6.02, abs=0.01)
    assert same == pytest.approx(slope, abs=0.01)
    paused = np.concatenate([wave, np.zeros_like(wave)])
    assert acoustics.level_and_slope(paused, S)[0] == pytest.approx(level, abs=0.5)


def test_differences_of_emotions_weigh_each_emotion_once_and_skip_unknown_values():
    values = np.array([[1.0, np.nan], [3.0, 4.0], [6.0, 8.0], [np.nan, np.nan]])
    labels = np.array([0, 0, 1, 2])
    out = acoustics.emotion_differences(values, labels, 3)
    assert out[:2] == pytest.approx(np.array([[-2.0, -2.0], [2.0, 2.0]]))
    assert np.isnan(out[2]).all()


def test_correlations_of_moved_shrunk_and_turned_emotions():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(6, 4)) * [2.0, 1.0, 5.0, 0.3]
    shrunk = acoustics.correlations(0.3 * real, real)
    assert all(v == pytest.approx(1) for v in shrunk.values())
    assert set(shrunk) == {*acoustics.FEATURES, "all"}
    turned = acoustics.correlations(-real, real)
    assert turned["all"] == pytest.approx(-1)
    flat = acoustics.correlations(np.zeros((6, 4)), real)
    assert np.isnan(list(flat.values())).all()
    loud = acoustics.correlations(real * [1, 1, -1, 1], real)  # a feature's unit has no say
    assert 0 < loud["all"] < 0.8


# --- judges ---------------------------------------------------------------------------------------


def test_sounds_are_judged_at_one_level():
    waves = np.stack([harmonics(100.0), 0.01 * harmonics(100.0)])
    out = judges.set_level(waves)
    assert out[0] == pytest.approx(out[1], abs=1e-5)
    assert 20 * np.log10(out[0].std()) == pytest.approx(judges.LEVEL_DBFS, abs=0.01)
    click = np.zeros((1, S.rate))
    click[0, 5] = 1
    assert np.abs(judges.set_level(click)).max() == pytest.approx(judges.MAX_PEAK)
    assert not judges.set_level(np.zeros((1, 9))).any()


@pytest.mark.parametrize("package", ["speechmos", "silero_vad"])
def test_a_missing_judge_names_the_command(monkeypatch, package):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == package else find(n, *a)
    )
    monkeypatch.setitem(__import__("sys").modules, "speechmos.dnsmos", None)
    load = {"speechmos": judges._load_dnsmos, "silero_vad": judges._load_vad}[package]
    with pytest.raises(files.UserError, match=r"pip install -r requirements\.txt -r requirements-"):
        load.__wrapped__()


def test_judges_prefer_a_voice_to_noise():
    pytest.importorskip("speechmos")
    pytest.importorskip("onnxruntime")
    import torch

    threads = torch.get_num_threads()
    noise = np.random.default_rng(0).normal(0, 0.1, S.rate)
    voice = voices.synthesise_voice(actors.list_takes(1)[2])
    waves = np.stack([voice[len(voice) // 2 - S.rate // 2 :][: S.rate], noise])
    found = judges.judge(waves)
    assert set(found) == set(judges.SCORES)
    assert all(v.shape == (2,) and np.isfinite(v).all() for v in found.values())
    assert found["VAD"][0] > found["VAD"][1]
    assert found["OVRL"][0] > found["OVRL"][1]
    assert (found["VAD"] <= 1).all()
    again = judges.judge(0.1 * waves[:1])  # the level does not matter
    assert again["OVRL"][0] == pytest.approx(found["OVRL"][0], abs=1e-3)
    assert torch.get_num_threads() == threads


# --- a run ----------------------------------------------------------------------------------------


def test_rows_are_equally_many_of_each_class():
    labels = np.array([0] * 9 + [1] * 3 + [3] * 5)
    rows = comparison.first_of_each(labels, 4, 4)
    assert np.bincount(labels[rows], minlength=4).tolist() == [3, 3, 0, 3]
    assert np.array_equal(rows, comparison.first_of_each(labels, 4, 4))
    assert not np.array_equal(rows, comparison.first_of_each(labels, 4, 4, seed=1))


def test_recordings_of_the_demo_are_those_of_its_corpus(demo_world):
    """Their windows in dB are the corpus' own, of the people of the set asked for."""
    from core.data import prepared_corpora, splits

    config = small_pipeline.TINY
    labelled = recordings.labelled_recordings(config, ("S4",))
    sets = splits.build_sets(config)
    assert sorted(k for k, _ in labelled) == sorted(sets["S4"].y_label.tolist())
    db, waves = recordings.voiced_seconds([w for _, w in labelled[:3]], S)
    assert waves.shape == (3, (S.columns - 1) * S.hop)
    stored = prepared_corpora.load_corpus("demo", 1).voices
    stored = stored.reshape(-1, *db.shape[1:])
    for one in db:
        assert np.abs(stored - one).max(axis=(1, 2)).min() < 0.1


@pytest.fixture
def quick_judges(monkeypatch):
    """Judges that answer at once: the loudness of the first half, in five ways; one pitch."""

    def judge(waves):
        level = np.abs(waves[:, : waves.shape[1] // 2]).mean(axis=1)
        return {k: level + i for i, k in enumerate(judges.SCORES)}

    def pitch(wave, s):
        return np.full(1 + len(wave) // s.hop, 120.0, np.float32)

    monkeypatch.setattr(judges, "judge", judge)
    monkeypatch.setattr(acoustics, "pitch", pitch)
    quick = {k: dataclasses.replace(v, steps=2) for k, v in emotions.LISTENERS.items()}
    monkeypatch.setattr(emotions, "LISTENERS", quick)


def test_the_lines_of_a_run(finished_run, quick_judges):
    lines = comparison.listen(finished_run, most=2, measured=3)
    assert [x.name for x in lines] == [
        *(comparison.RECORDED, "real, 28 bands, vocoder"),
        *("real, 28 bands, Griffin-Lim", "generated, vocoder"),
    ]
    assert all(x.n == 12 and all(len(v) == 12 for v in x.scores.values()) for x in lines)
    counts = [np.bincount(x.labels, minlength=6) for x in lines]
    assert all(c.min() >= 2 and c.max() == 3 for c in counts)  # acoustics measure more
    table = comparison.scores_table(lines)
    assert table.count("±") == 4 * len([*judges.SCORES, *emotions.LISTENERS])
    for name in emotions.LISTENERS:
        assert all(set(x.scores[name]) <= {0.0, 1.0} for x in lines)
    acoustic = comparison.acoustics_table(lines, finished_run.config.data.classes)
    assert "correlation" in acoustic
    levels = [x.features[:, 2] for x in lines[:2]]
    assert np.nanmedian(np.abs(levels[0] - levels[1])) < 3  # sounds keep their own level
    whole = comparison.as_json(lines, finished_run.config.data.classes)
    assert json.loads(json.dumps(whole))[lines[0].name]["N"] == lines[0].n


def test_without_recordings_the_generated_voices_stand_alone(
    finished_run, quick_judges, monkeypatch
):
    def absent(*_):
        raise CorpusError("not here")

    monkeypatch.setattr(recordings, "load_recordings", absent)
    told = []
    lines = comparison.listen(finished_run, lambda *a: told.append(a[3]), most=1, measured=1)
    assert [x.name for x in lines] == ["generated, vocoder"]
    assert "no real ones: not here" in told


def test_listeners_learn_from_s1_and_s2_alone_and_are_kept(finished_run, quick_judges, monkeypatch):
    from core.data import splits

    build, trained = splits.build_sets, []
    training = emotions.classifiers.training_steps
    monkeypatch.setattr(
        emotions.classifiers,
        "training_steps",
        lambda *a, **k: trained.append(len(a[0])) or training(*a, **k),
    )

    def hidden(config):
        """Sets whose S3 and S4 cannot be learnt from."""
        sets = build(config)
        for k in ("S3", "S4"):
            nothing = np.full_like(sets[k].y, np.nan)
            sets[k] = dataclasses.replace(sets[k], y=nothing, y_label=np.full(len(nothing), -1))
        return sets

    cache = finished_run.directory.parent / ".cache"
    weights = []
    for known in (build, hidden):
        monkeypatch.setattr(splits, "build_sets", known)
        for old in cache.glob("listener-*.safetensors"):
            old.unlink()
        weights.append(emotions.fit_listeners(finished_run))
    sets = build(finished_run.config)
    assert trained == [len(sets["S1"].y) + len(sets["S2"].y)] * 4
    for name, network in weights[0].items():
        pairs = zip(network.parameters(), weights[1][name].parameters(), strict=True)
        assert all((p == q).all() for p, q in pairs)
    assert len(list(cache.glob("listener-*.safetensors"))) == len(emotions.LISTENERS)
    again = emotions.fit_listeners(finished_run)
    assert len(trained) == 4  # read from the cache
    first, second = again.values()
    assert {type(n.trunk).__name__ for n in (first, second)} == {"Trunk", "ResidualTrunk"}
    fuller = replace(finished_run.config, data={"speech": 0.6})
    emotions.fit_listeners(SimpleNamespace(config=fuller, directory=finished_run.directory))
    assert len(trained) == 4  # runs that learn from other windows have the same judges


def test_listeners_hear_the_sound_itself(finished_run):
    """A listener of loudness names class 0 for quiet sounds and class 1 for loud ones."""
    import torch
    from torch import nn

    class Loudness(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(1, 2)
            self.head.weight.data = torch.tensor([[0.0], [1.0]])
            self.head.bias.data = torch.tensor([0.0, 0.2])

        def penultimate(self, image):
            return image.mean(dim=(1, 2, 3))[:, None]

    tone = harmonics(120.0)
    waves = np.stack([tone, 0.001 * tone, tone, 0.001 * tone])
    labels = np.array([1, 0, 0, 1])
    found = emotions.heard({"loud": Loudness()}, waves, labels, finished_run)
    assert found["loud"].tolist() == [1, 1, 0, 0]
    assert emotions.heard({}, waves, labels, finished_run) == {}


def test_a_run_that_makes_faces_is_refused(finished_run, quick_judges, monkeypatch):
    turned = replace(finished_run.config, gan={"direction": "voice-face"})
    monkeypatch.setattr(Run, "config", property(lambda self: turned))
    with pytest.raises(files.UserError, match="makes faces"):
        comparison.listen(finished_run)
