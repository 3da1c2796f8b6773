"""Clips -> one file per corpus: what it holds, what its key notices, frames and crops."""

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core import files
from core.config.settings import LogMel
from core.data import extraction, features, preparation, prepared_corpora
from core.data.corpora import CorpusError
from core.data.sources import indexing
from tests.support.small_corpora import (
    FILM_SIZE,
    demo_takes,
    is_clean,
    write_noise,
    write_ravdess_sounds,
)
from tests.support.trained_runs import install_landmark_model


def pictures(root, count=3):
    """Faces of nobody: small noise, in which no landmarks are found but now and then."""
    rng = np.random.default_rng(0)
    for emotion in ("happy", "sad"):
        (root / emotion).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (48, 48), np.uint8)).save(
                root / emotion / f"{i}.png"
            )
    return root


def test_a_corpus_is_prepared_once_and_a_change_is_noticed(tmp_path, processed):
    root = write_ravdess_sounds(tmp_path / "r")
    path = preparation.prepare_corpus("ravdess", root)
    first = prepared_corpora.load_corpus("ravdess")
    assert (first.voices.shape, first.faces.shape, first.votes.shape) == (
        (6, 112, 28),
        (0, 28, 28),
        (6, 3),
    )
    assert (first.faces_more.size, first.voices_more.size) == (0, 0)
    assert is_clean(processed)
    stamp = path.stat().st_mtime_ns

    def again(workers=0, **settings):
        nonlocal stamp
        how = preparation.PreparationSettings(**settings)
        preparation.prepare_corpus("ravdess", root, how, workers)
        before, stamp = stamp, path.stat().st_mtime_ns
        return before != stamp

    assert not again()
    assert not again(workers=1)
    root = root.rename(tmp_path / "moved")
    assert not again()  # its key is in relative names
    write_noise(root / "Actor_02" / "03-01-03-01-02-01-02.wav")
    assert again()
    assert len(prepared_corpora.load_corpus("ravdess").clip) == 7
    changed = root / "Actor_02" / "03-01-03-01-02-01-02.wav"
    other = np.random.default_rng(9).normal(0, 0.05, (int(1.2 * 16_000), 1))
    soundfile.write(changed, other, 16_000)  # of the same size
    assert again()
    assert prepared_corpora.load_corpus("ravdess").digest != first.digest
    assert again(crops=2)
    assert not again(crops=2)
    path.write_bytes(path.read_bytes()[:-40])  # damaged: made anew
    assert again(crops=2)
    with pytest.raises(CorpusError, match="frames are 1 to 100"):
        again(frames=0)


def test_files_of_earlier_versions_are_read(tmp_path, processed):
    path = preparation.prepare_corpus("ravdess", write_ravdess_sounds(tmp_path / "r"))
    arrays = files.read_arrays(path)
    del arrays["votes"]
    files.write_arrays(path, **arrays)
    old = prepared_corpora.load_corpus("ravdess")
    assert old.votes.shape == (6, 3)
    assert not (old.votes != "").any()


def test_an_unreadable_clip_is_left_out_with_its_reason(tmp_path, processed):
    root = write_ravdess_sounds(tmp_path / "r")
    (root / "Actor_02" / "03-01-03-01-02-01-02.wav").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    preparation.prepare_corpus("ravdess", root)
    prepared = prepared_corpora.load_corpus("ravdess")
    assert len(prepared.clip) == 6
    assert "git lfs pull" in prepared.meta["left_out"]["ravdess-01-03-01-02-01-02"]
    for file in root.rglob("*.wav"):
        file.write_bytes(b"")
    with pytest.raises(CorpusError, match="could be used.* is empty"):
        preparation.prepare_corpus("ravdess", root)


def test_equal_arrays_are_equal_bytes(tmp_path, monkeypatch):
    arrays = {"a": np.arange(5), "b": np.array(["x"])}
    files.write_arrays(tmp_path / "one.npz", **arrays)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1500000000")
    files.write_arrays(tmp_path / "two.npz", **arrays)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_demo_clips_go_through_files_and_come_out_the_same(films, processed):
    """The invented clips as mp4 + wav, decoded, found by the landmark model and aligned, are the
    faces that were drawn directly.
    """
    from core.data.demo import expressions
    from core.media import spectrograms
    from core.media.faces import alignment

    preparation.prepare_corpus("demo-clips", films)
    prepared = prepared_corpora.load_corpus("demo-clips")
    assert prepared.faces.shape == (2, 28, 28)
    takes = {take.clip_id: (take, wave) for take, _, wave in demo_takes()}
    for i, clip in enumerate(prepared.clip):
        take, wave = takes[clip]
        middle = len(wave) / LogMel().rate / 2
        direct = alignment.align(*expressions.render_face(take, t=middle, size=FILM_SIZE))
        assert np.corrcoef(prepared.faces[prepared.face_of[i]].ravel(), direct.ravel())[0, 1] > 0.9
        db = spectrograms.centre_crop(spectrograms.log_mel(wave, LogMel()), 112)
        assert np.abs(prepared.voices[prepared.voice_of[i]] - db).mean() < 0.5
        assert prepared.emotion[i] == take.emotion


def test_more_frames_and_crops_stand_beside_the_same_first_ones(films, processed):
    path = preparation.prepare_corpus("demo-clips", films)
    one = prepared_corpora.load_corpus_file(path)
    preparation.prepare_corpus(
        "demo-clips", films, preparation.PreparationSettings(frames=4, crops=3)
    )
    more = prepared_corpora.load_corpus_file(path)
    assert np.array_equal(one.faces, more.faces)
    assert np.array_equal(one.voices, more.voices)
    assert (more.faces_more.shape, more.voices_more.shape) == ((2, 3, 28, 28), (2, 2, 112, 28))
    assert more.digest != one.digest
    assert more.meta["repeated"] == {"frames": 0, "crops": 0}
    for first, others in zip(more.faces, more.faces_more, strict=True):
        assert all(
            np.corrcoef(first.ravel(), o.ravel())[0, 1] > 0.5 for o in others
        )  # the same face
        assert len({f.tobytes() for f in (first, *others)}) == 4  # at four instants
    preparation.prepare_corpus(
        "demo-clips", films, preparation.PreparationSettings(frames=40)
    )  # a second has 12 or 13 frames
    assert prepared_corpora.load_corpus_file(path).meta["repeated"] == {"frames": 2, "crops": 0}


@given(st.integers(1, 12))
def test_further_places_are_even_apart_and_never_the_middle(n):
    places = features.further_positions(n)
    assert len(places) == len(set(places)) == n - 1
    assert all(0 <= p <= 1 and p != 0.5 for p in places)
    steps = np.diff(sorted([*places, 0.5]))
    assert n < 2 or np.allclose(steps, steps[0])


@given(st.integers(1, 5), st.integers(1, 60_000))
def test_crops_lie_within_the_clip(crops, length):
    from core.media import spectrograms

    wave = np.random.default_rng(length).normal(0, 0.1, length).astype(np.float32)
    db = spectrograms.log_mel(wave, LogMel())
    windows, few = features.spectrogram_windows(wave, features.ExtractionSettings(crops=crops))
    assert windows.shape == (crops, 112, 28)
    assert np.array_equal(windows[0], spectrograms.centre_crop(db, 112))
    assert few == (len({w.tobytes() for w in windows}) < crops)
    if len(db) > 112:
        inside = np.lib.stride_tricks.sliding_window_view(db, 112, axis=0).swapaxes(1, 2)
        assert all((inside == w).all((1, 2)).any() for w in windows)


def test_the_nearest_frame_alone_is_the_one_that_all_frames_have(films, shared_data):
    from core.media import clips, containers

    every = [
        *films.glob("*.mp4"),
        shared_data / "crema-d/VideoFlash/1001_DFA_SAD_XX.flv",
        next(shared_data.glob("grid/*.mpg")),
    ]
    for path in every:
        whole = clips.read_clip(path)
        for at in (0.61, 1.234, whole.times[-1] + 5):
            near = clips.read_clip(path, containers.Limits(near=at))
            k, i = np.abs(whole.times - at).argmin(), np.abs(near.times - at).argmin()
            assert near.times[i] == whole.times[k]
            assert np.array_equal(near.frames[i], whole.frames[k])
            assert len(near.frames) == 1 or at > whole.times[-1] + 1


def test_crops_and_photographs_in_one_folder(tmp_path, processed):
    """Small pictures are faces as they are.

    In large ones a face is looked for, and its lack is that picture's own misfortune.
    """
    pytest.importorskip("skimage")
    from skimage import data

    from core.media.faces import alignment, detection

    install_landmark_model(tmp_path)
    root = pictures(tmp_path / "own")
    Image.fromarray(data.astronaut()).save(root / "happy" / "photo.jpg")
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(root / "sad" / "empty.png")
    (root / "sad" / "text.png").write_text("no picture")
    preparation.prepare_corpus("own", root, preparation.PreparationSettings(frames=2))
    prepared = prepared_corpora.load_corpus("own")
    names = [Path(c).name for c in prepared.clip]
    assert sorted(names) == ["0.png", "0.png", "1.png", "1.png", "2.png", "2.png", "photo.jpg"]
    reasons = {Path(k).name: v for k, v in prepared.meta["left_out"].items()}
    assert reasons["empty.png"].startswith("NoFaceError")
    assert "text.png" in reasons
    face = max(detection.detect(data.astronaut()), key=lambda f: f.side)
    photo = prepared.faces[prepared.face_of[names.index("photo.jpg")]]
    assert (
        np.corrcoef(
            photo.ravel(),
            alignment.align(data.astronaut(), alignment.five_points(face.points)).ravel(),
        )[0, 1]
        > 0.9
    )
    assert prepared.meta["repeated"]["frames"] == 7  # a picture is one frame
    assert np.array_equal(prepared.faces_more[:, 0], prepared.faces)
    assert {s[:6] for s in prepared.subject} == {"image-"}


def test_crops_in_parts_are_aligned_as_in_one_go(tmp_path, processed, shared_data, monkeypatch):
    """The median of all landmarks stands in where there are none, however the work was cut up and
    interrupted.
    """
    import io
    import zipfile

    from core.media.faces import alignment

    root = pictures(tmp_path / "own", 2)
    with zipfile.ZipFile(shared_data / "fer2013_subset.zip") as archive:
        for name in sorted(
            n
            for n in archive.namelist()
            if n.startswith("validation/happy/") and n.endswith(".jpg")
        )[:8]:
            (root / "happy" / Path(name).name).write_bytes(archive.read(name))
    monkeypatch.setattr(extraction, "TARGET_PARTS", 5)
    calls = iter(range(100))
    with pytest.raises(files.StopRequested):
        preparation.prepare_corpus("fer2013", root, should_stop=lambda: next(calls) > 1)
    done = []
    preparation.prepare_corpus("fer2013", root, tick=lambda d, t: done.append((d, t)))
    assert done[0] == (9, 12)  # three parts were kept
    prepared = prepared_corpora.load_corpus("fer2013")
    entries = indexing.index_clips("fer2013", root)
    images = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(Path(e.video).read_bytes())).convert("L"))
            for e in entries
        ]
    )
    direct, found = alignment.align_crops(images)
    assert 0 < found.sum() < len(found)
    assert np.array_equal(prepared.faces, direct)
    assert sum(int(v.split()[0]) for v in prepared.meta["left_out"].values()) == (~found).sum()


def test_near_duplicates_share_a_group():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (20, 28, 28)).astype(np.uint8)
    x[7] = x[3] // 2 + 20  # the same picture, darker
    groups = preparation.near_duplicate_groups(x)
    assert groups[7] == groups[3]
    assert len(set(groups)) == 19


def test_real_crema_clips(shared_data, processed):
    preparation.prepare_corpus("crema-d", shared_data / "crema-d")
    prepared = prepared_corpora.load_corpus("crema-d")
    assert (prepared.face_of >= 0).sum() == 4  # four videos
    assert (prepared.voice_of >= 0).sum() == len(prepared.clip) == 8  # four more voices without one
    assert set(prepared.subject) == {"crema-1001", "crema-1002"}
    assert {s: prepared.sex[prepared.subject == s][0] for s in set(prepared.subject)} == {
        "crema-1001": "male",
        "crema-1002": "female",
    }
    assert prepared.faces.std() > 20
    assert (prepared.votes != "").all()


def test_the_demo_corpus_needs_no_source_and_its_size_is_part_of_its_name(processed, monkeypatch):
    from core.data.demo import expressions, voices
    from core.media.faces import alignment

    monkeypatch.setattr(
        expressions,
        "render_face",
        lambda take, **_: (np.zeros((64, 64, 3), np.uint8), alignment.CANONICAL_POINTS * 64),
    )
    monkeypatch.setattr(voices, "synthesise_voice", lambda take: np.zeros(20_000, np.float32))
    said = []
    path = preparation.prepare_corpus(
        "demo",
        None,
        preparation.PreparationSettings(takes=1),
        tick=lambda d, t: said.append((d, t)),
    )
    assert path.name == "demo-1.npz"
    assert (said[0], said[-1]) == ((0, 144), (144, 144))
    assert len(prepared_corpora.load_corpus("demo", 1).clip) == 144


def test_processes_draw_the_same_demo_corpus(tmp_path, monkeypatch):
    from core.data.demo import actors

    few = actors.list_takes(1)[:10]
    monkeypatch.setattr(actors, "list_takes", lambda takes: few)
    monkeypatch.setattr(extraction, "MIN_PARALLEL_TAKES", len(few))
    drawn = {}
    for workers in (1, 2):
        monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / str(workers)))
        drawn[workers] = preparation.prepare_corpus("demo", None, workers=workers).read_bytes()
    assert drawn[1] == drawn[2]
