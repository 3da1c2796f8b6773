"""§4.1: who is in which set, balance, pairing; corpora in their published forms; prepared files."""

import zipfile

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from core.config.presets import DEMO
from core.config.settings import replace
from core.data import preparation, prepared_corpora, splits
from core.data.corpora import CorpusError
from core.data.sources import indexing, media_files
from tests.support.noise_corpora import write_noise_corpus


@given(st.integers(8, 91), st.integers(0, 50), st.integers(0, 4))
def test_sets_are_subject_disjoint_and_folds_test_everyone_once(n, seed, fold):
    subject = np.repeat([f"s{i:02d}" for i in range(n)], 3)
    sex = np.repeat(["female" if i % 2 else "male" for i in range(n)], 3)
    shares = DEMO.data.sets
    sets = splits.by_subject(subject, sex, shares, seed, fold)
    assert np.array_equal(np.sort(np.concatenate(list(sets.values()))), np.arange(3 * n))
    members = {k: set(subject[v]) for k, v in sets.items()}
    assert sum(map(len, members.values())) == n  # no subject twice
    for name, share in zip(splits.SET_NAMES, shares, strict=True):
        assert abs(len(members[name]) - share * n) <= 1.5
        females = sum(sex[subject == s][0] == "female" for s in members[name])
        assert abs(females - len(members[name]) / 2) <= 1.5
    tested = [
        s
        for f in range(5)
        for s in set(subject[splits.by_subject(subject, sex, shares, seed, f)["S4"]])
    ]
    assert sorted(tested) == sorted(set(subject))


@given(st.integers(0, 1000), st.booleans())
def test_pairs_are_balanced_and_meet_by_group(seed, paired):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], [5, 12, 9])
    x = y if paired else np.concatenate([np.arange(3), rng.integers(0, 3, 30)])
    i, j = splits.epoch_pairs(x, y, paired, seed, epoch=3)
    assert np.bincount(y[j]).tolist() == [12, 12, 12]
    assert np.array_equal(x[i], y[j])
    assert set(j) == set(range(len(y)))  # every voice is used
    assert np.array_equal(j, splits.epoch_pairs(x, y, paired, seed, epoch=3)[1])
    assert not np.array_equal(j, splits.epoch_pairs(x, y, paired, seed, epoch=4)[1])


def test_balanced_subsample():
    labels = np.repeat([0, 1, 2], [5, 9, 7])
    rows = splits.balanced_rows(labels, seed=1)
    assert np.bincount(labels[rows]).tolist() == [5, 5, 5]
    assert len(set(rows)) == 15


def wav(path, seconds=1.2, rate=16_000, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (int(seconds * rate), channels)
    soundfile.write(
        path, np.random.default_rng(abs(hash(path.name)) % 1000).normal(0, 0.05, shape), rate
    )


@pytest.fixture
def ravdess(tmp_path):
    for actor in (1, 2):
        for emotion in (1, 2, 5):
            wav(
                tmp_path
                / "r"
                / f"Actor_{actor:02d}"
                / f"03-01-{emotion:02d}-01-02-01-{actor:02d}.wav",
                channels=1 + actor % 2,
            )
    wav(tmp_path / "r" / "Actor_01" / "03-02-01-01-01-01-01.wav")  # a song
    wav(tmp_path / "r" / "Actor_01" / "notes.wav")
    return tmp_path / "r"


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.parametrize("form", ["folder", "nested", "zip"])
def test_ravdess_in_its_forms(ravdess, tmp_path, form):
    root = ravdess
    if form == "nested":
        (tmp_path / "outer").mkdir()
        root = ravdess.rename(tmp_path / "outer" / "r").parent
    if form == "zip":
        root = tmp_path / "r.zip"
        with zipfile.ZipFile(root, "w") as z:
            for p in ravdess.rglob("*.wav"):
                z.write(p, p.relative_to(ravdess))
    entries = indexing.index_clips("ravdess", root)
    assert len(entries) == 6
    e = entries[0]
    assert (e.clip, e.subject, e.sex, e.emotion, e.intensity) == (
        "ravdess-01-01-01-02-01-01",
        "ravdess-01",
        "male",
        "neutral",
        "normal",
    )
    assert {e.emotion for e in entries} == {"neutral", "calm", "angry"}
    with media_files.media_file(e.audio) as path:
        assert soundfile.info(path).samplerate == 16_000


def test_clear_words_where_there_is_no_corpus(tmp_path, data_folder):
    with pytest.raises(CorpusError, match="does not exist"):
        preparation.prepare_corpus("ravdess", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="holds no clip of crema-d"):
        preparation.prepare_corpus("crema-d", tmp_path / "empty")
    with pytest.raises(CorpusError, match="data prepare demo"):
        prepared_corpora.load_corpus("demo")
    data_folder.mkdir(exist_ok=True)
    (data_folder / "processed").mkdir(exist_ok=True)
    (data_folder / "processed" / "ravdess.npz").write_bytes(b"PK nonsense")
    with pytest.raises(CorpusError, match=r"ravdess\.npz is damaged"):
        prepared_corpora.load_corpus("ravdess")


def test_pairing_by_clip_needs_one_corpus(data_folder):
    for name in ("one", "other"):
        write_noise_corpus(name)
    with pytest.raises(CorpusError, match="pairing"):
        splits.build_sets(replace(DEMO, data={"faces": "one", "voices": "other"}))


@pytest.mark.parametrize("pairing", ["clip", "emotion"])
def test_a_class_without_a_clip_is_refused_by_name(pairing, data_folder):
    write_noise_corpus("noise")
    given = {"faces": "noise", "voices": "noise", "pairing": pairing}
    classes = ("happy", "joy")
    with pytest.raises(CorpusError, match=r"no (face|voice) of noise is joy; its are .*--data\.cl"):
        splits.build_sets(replace(DEMO, data=given | {"classes": classes}))


def test_a_fold_beyond_the_last_is_refused(data_folder):
    write_noise_corpus("noise")
    with pytest.raises(CorpusError, match=r"data\.fold is 5, .*S4 of 20% .*the folds are 0 to 4"):
        splits.build_sets(replace(DEMO, data={"faces": "noise", "voices": "noise", "fold": 5}))
