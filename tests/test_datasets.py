"""§4.1: who is in which set, balance, pairing; corpora in their published forms; prepared files."""

import zipfile

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from core import corpora, datasets
from core.config import DEMO, replace
from core.corpora import CorpusError


@given(st.integers(8, 91), st.integers(0, 50), st.integers(0, 4))
def test_sets_are_subject_disjoint_and_folds_test_everyone_once(n, seed, fold):
    subject = np.repeat([f"s{i:02d}" for i in range(n)], 3)
    sex = np.repeat(["female" if i % 2 else "male" for i in range(n)], 3)
    shares = DEMO.data.sets
    sets = datasets.split_subjects(subject, sex, shares, seed, fold)
    assert np.array_equal(np.sort(np.concatenate(list(sets.values()))), np.arange(3 * n))
    members = {k: set(subject[v]) for k, v in sets.items()}
    assert sum(map(len, members.values())) == n  # no subject twice
    for name, share in zip(datasets.SETS, shares, strict=True):
        assert abs(len(members[name]) - share * n) <= 1.5
        females = sum(sex[subject == s][0] == "female" for s in members[name])
        assert abs(females - len(members[name]) / 2) <= 1.5
    tested = [s for f in range(5) for s in set(subject[datasets.split_subjects(subject, sex, shares, seed, f)["S4"]])]
    assert sorted(tested) == sorted(set(subject))


@given(st.integers(0, 1000), st.booleans())
def test_pairs_are_balanced_and_meet_by_group(seed, paired):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], [5, 12, 9])
    x = y if paired else np.concatenate([np.arange(3), rng.integers(0, 3, 30)])
    i, j = datasets.pairs(x, y, paired, seed, epoch=3)
    assert np.bincount(y[j]).tolist() == [12, 12, 12]
    assert np.array_equal(x[i], y[j])
    assert set(j) == set(range(len(y)))  # every voice is used
    assert np.array_equal(j, datasets.pairs(x, y, paired, seed, epoch=3)[1])
    assert not np.array_equal(j, datasets.pairs(x, y, paired, seed, epoch=4)[1])


def test_balanced_subsample():
    labels = np.repeat([0, 1, 2], [5, 9, 7])
    rows = datasets.balanced(labels, seed=1)
    assert np.bincount(labels[rows]).tolist() == [5, 5, 5]
    assert len(set(rows)) == 15


def wav(path, seconds=1.2, rate=16_000, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (int(seconds * rate), channels)
    soundfile.write(path, np.random.default_rng(abs(hash(path.name)) % 1000).normal(0, 0.05, shape), rate)


@pytest.fixture
def ravdess(tmp_path):
    for actor in (1, 2):
        for emotion in (1, 2, 5):
            wav(tmp_path / "r" / f"Actor_{actor:02d}" / f"03-01-{emotion:02d}-01-02-01-{actor:02d}.wav", channels=1 + actor % 2)
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
    entries = corpora.index("ravdess", root)
    assert len(entries) == 6
    e = entries[0]
    assert (e.clip, e.subject, e.sex, e.emotion, e.intensity) == ("ravdess-01-01-01-02-01-01", "ravdess-01", "male", "neutral", "normal")
    assert {e.emotion for e in entries} == {"neutral", "calm", "angry"}
    with corpora.media_file(e.audio) as path:
        assert soundfile.info(path).samplerate == 16_000


def test_prepare_writes_once_and_notices_a_change(ravdess, data_folder):
    path = datasets.prepare("ravdess", ravdess)
    prepared = datasets.load("ravdess")
    assert prepared.voices.shape == (6, 112, 28)
    assert len(prepared.faces) == 0
    stamp = path.stat().st_mtime_ns
    assert datasets.prepare("ravdess", ravdess).stat().st_mtime_ns == stamp
    wav(ravdess / "Actor_02" / "03-01-03-01-02-01-02.wav")
    datasets.prepare("ravdess", ravdess)
    assert len(datasets.load("ravdess").clip) == 7
    assert datasets.load("ravdess").digest != prepared.digest


def test_an_unreadable_clip_is_left_out_with_its_reason(ravdess, data_folder):
    broken = ravdess / "Actor_02" / "03-01-03-01-02-01-02.wav"
    broken.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    datasets.prepare("ravdess", ravdess)
    prepared = datasets.load("ravdess")
    assert len(prepared.clip) == 6
    assert "git lfs pull" in prepared.meta["left_out"]["ravdess-01-03-01-02-01-02"]


def test_clear_words_where_there_is_no_corpus(tmp_path, data_folder):
    with pytest.raises(CorpusError, match="does not exist"):
        datasets.prepare("ravdess", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="holds no clip of crema-d"):
        datasets.prepare("crema-d", tmp_path / "empty")
    with pytest.raises(CorpusError, match="data prepare demo"):
        datasets.load("demo")
    data_folder.mkdir(exist_ok=True)
    (data_folder / "processed").mkdir(exist_ok=True)
    (data_folder / "processed" / "ravdess.npz").write_bytes(b"PK nonsense")
    with pytest.raises(CorpusError, match=r"ravdess\.npz is damaged"):
        datasets.load("ravdess")


def test_demo_clips_go_through_files_and_come_out_the_same(tmp_path, data_folder):
    """The invented clips as mp4 + wav, decoded, found by the landmark model and aligned, are the faces that were drawn directly."""
    from core import demo, faces, spectrograms
    from core.config import LogMel

    datasets.draw_demo_clips(tmp_path / "clips", 3)
    datasets.prepare("demo-clips", tmp_path / "clips")
    prepared = datasets.load("demo-clips")
    assert prepared.faces.shape == (3, 28, 28)
    takes = {t.clip_id: t for t in demo.takes()}
    for i, clip in enumerate(prepared.clip):
        wave = demo.voice(takes[clip])
        direct = faces.align(*demo.face(takes[clip], t=len(wave) / LogMel().rate / 2, size=320))
        assert np.corrcoef(prepared.faces[prepared.face_of[i]].ravel(), direct.ravel())[0, 1] > 0.9
        db = spectrograms.middle(spectrograms.log_mel(wave, LogMel()), 112)
        assert np.abs(prepared.voices[prepared.voice_of[i]] - db).mean() < 0.5
        assert prepared.emotion[i] == takes[clip].emotion


def test_near_duplicates_share_a_group():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (20, 28, 28)).astype(np.uint8)
    x[7] = x[3] // 2 + 20  # the same picture, darker
    groups = datasets._near_duplicates(x)
    assert groups[7] == groups[3]
    assert len(set(groups)) == 19


def test_pairing_by_clip_needs_one_corpus(ravdess, data_folder):
    datasets.prepare("ravdess", ravdess)
    datasets.prepare("demo", None, takes=1)
    with pytest.raises(CorpusError, match="pairing"):
        datasets.build(replace(DEMO, data={"voices": "ravdess", "demo_takes": 1}))


def test_real_crema_clips(shared_data, data_folder):
    datasets.prepare("crema-d", shared_data / "crema-d")
    prepared = datasets.load("crema-d")
    assert (prepared.face_of >= 0).sum() == 4  # four videos
    assert (prepared.voice_of >= 0).sum() == len(prepared.clip) == 8  # four more voices without one
    assert set(prepared.subject) == {"crema-1001", "crema-1002"}
    assert {s: prepared.sex[prepared.subject == s][0] for s in set(prepared.subject)} == {"crema-1001": "male", "crema-1002": "female"}
    assert prepared.faces.std() > 20


def test_the_real_ravdess_zip_is_indexed(shared_data):
    entries = corpora.index("ravdess", shared_data / "ravdess_audio_actors_01-20_16k.zip")
    assert len(entries) == 1200
    assert len({e.subject for e in entries}) == 20
    counts = {e: sum(x.emotion == e for x in entries) for e in ("neutral", "happy")}
    assert counts == {"neutral": 80, "happy": 160}
