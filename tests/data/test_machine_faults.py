"""A fault of the machine is never a fact about a clip: the work stops, is kept, and goes on."""

import builtins
import contextlib
import errno
import io
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

import core.__main__ as cli
from core import files
from core.data import extraction, features, preparation, prepared_corpora
from core.data.checks import doctor
from core.data.features import MachineError
from core.data.sources import media_files
from tests.support import corpus_trees
from tests.support.trained_runs import install_landmark_model


def encoded(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def voice(seconds=1.2, seed=0, form="WAV"):
    file = io.BytesIO()
    wave = np.random.default_rng(seed).normal(0, 0.05, int(seconds * 16_000))
    soundfile.write(file, wave, 16_000, format=form)
    return file.getvalue()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "processed"


def speakers(root, count=6):
    for i in range(count):
        path = (
            root
            / f"Actor_{i % 2 + 1:02d}/03-01-0{i % 3 + 3}-01-0{i // 3 + 1}-01-{i % 2 + 1:02d}.wav"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(voice(seed=i))
    return root


FAULTS = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EMFILE, "Too many open files"),
    PermissionError(errno.EACCES, "Permission denied"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    MemoryError(),
    ImportError("No module named 'soundfile'"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: type(f).__name__)
def test_a_fault_stops_the_work_and_the_same_call_goes_on(tmp_path, home, monkeypatch, fault):
    root = speakers(tmp_path / "r")
    reference = preparation.prepare_corpus("ravdess", root).read_bytes()
    (home / "ravdess.npz").unlink()
    whole, count = media_files.read_content, 0

    def faulty(reference):
        nonlocal count
        count += 1
        if count == 4:
            raise fault
        return whole(reference)

    monkeypatch.setattr(media_files, "read_content", faulty)
    with pytest.raises(MachineError, match="3 of 6 clips are done and kept"):
        preparation.prepare_corpus("ravdess", root)
    assert not (home / "ravdess.npz").exists()
    assert preparation.prepare_corpus("ravdess", root).read_bytes() == reference


def test_a_damaged_clip_is_left_out_and_stops_nothing(tmp_path, home):
    root = speakers(tmp_path / "r")
    (root / "Actor_01/03-01-07-01-01-01-01.wav").write_bytes(b"RIFF\0\0\0\0WAVE" + bytes(40))
    path = preparation.prepare_corpus("ravdess", root)
    assert list(prepared_corpora.load_corpus_file(path).meta["left_out"])


def test_a_temporary_folder_is_not_needed(tmp_path, home, monkeypatch):
    root = speakers(tmp_path / "r")
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as z:
        for file in sorted(root.rglob("*.wav")):
            z.write(file, file.relative_to(root))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    path = preparation.prepare_corpus("ravdess", tmp_path / "r.zip")
    assert len(prepared_corpora.load_corpus_file(path).voices) == 6


def test_tools_are_loaded_before_the_first_clip(tmp_path, home, monkeypatch):
    from core.media import spectrograms

    def broken(s):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(spectrograms, "mel_filters", broken)
    with pytest.raises(MachineError, match="librosa.* cannot be loaded .*no locator.*HOME"):
        preparation.prepare_corpus("ravdess", speakers(tmp_path / "r"))


def test_a_reason_that_may_change_is_tried_again(tmp_path, home, monkeypatch):
    root = speakers(tmp_path / "r")
    reference = preparation.prepare_corpus("ravdess", root).read_bytes()
    (home / "ravdess.npz").unlink()
    whole = features._extract_entry

    def odd(entry, how):
        if entry.clip.endswith("-02"):
            raise ValueError("an odd library")
        return whole(entry, how)

    with monkeypatch.context() as patch:
        patch.setattr(features, "_extract_entry", odd)
        path = preparation.prepare_corpus("ravdess", root)
        assert len(prepared_corpora.load_corpus_file(path).meta["may_change"]) == 3
    assert preparation.prepare_corpus("ravdess", root).read_bytes() == reference
    assert not list(home.glob(".parts/*/*.npz"))


def test_again_reads_everything_anew(tmp_path, home, monkeypatch):
    root = speakers(tmp_path / "r")
    preparation.prepare_corpus("ravdess", root)
    done = []
    preparation.prepare_corpus("ravdess", root, tick=lambda d, t: done.append(d))
    assert done == []
    preparation.prepare_corpus("ravdess", root, again=True, tick=lambda d, t: done.append(d))
    assert done[0] == 0
    assert done[-1] == 6


def test_another_content_is_told_before_it_is_replaced(tmp_path, home):
    one, other = speakers(tmp_path / "one"), speakers(tmp_path / "other", 4)
    path = preparation.prepare_corpus("ravdess", one)
    before, told = path.read_bytes(), []

    def warn(sentence):
        told.append(sentence)
        assert path.read_bytes() == before

    preparation.prepare_corpus("ravdess", one, warn=warn)
    assert told == []
    preparation.prepare_corpus("ravdess", other, warn=warn)
    assert len(told) == 1
    assert all(str(p) in told[0] for p in (path, one, other))
    before = path.read_bytes()
    (other / "Actor_01/03-01-07-01-01-01-01.wav").write_bytes(voice(seed=77))
    preparation.prepare_corpus("ravdess", other, warn=warn)
    assert "has changed" in told[1]


def test_a_disk_that_is_full_at_the_end_loses_nothing(tmp_path, home, monkeypatch):
    root, done = speakers(tmp_path / "r"), []
    with monkeypatch.context() as patch:

        def full(*args, **arrays):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(preparation, "_write_corpus", full)
        with pytest.raises(MachineError, match="all clips are done and kept: make room"):
            preparation.prepare_corpus("ravdess", root)
    preparation.prepare_corpus("ravdess", root, tick=lambda d, t: done.append(d))
    assert done[0] == 6


@pytest.mark.parametrize(("bad", "status"), [(0, 0), (1, 0), (4, 1)])
def test_the_exit_status_tells_of_a_large_loss(tmp_path, home, capsys, bad, status):
    root = speakers(tmp_path / "r")
    for file in sorted(root.rglob("*.wav"))[:bad]:
        file.write_bytes(b"")
    assert cli.main(["data", "prepare", "ravdess", "--source", str(root)]) == status
    out = capsys.readouterr().out
    assert out.count("is empty. Copy or record it again") == bad
    last = out.strip().splitlines()[-1]
    assert bad == 0 or last.startswith(f"{bad} of 6 clips")
    assert ("exit status 1" in last) == (status == 1)


# ------------------------------------------------------------------ any layout, any fault


@dataclass(frozen=True)
class Pool:
    """Contents by the folder that they may lie in: (ending, bytes); short when it is printed."""

    faces: list[tuple[str, bytes]] = field(repr=False)
    audio: list[tuple[str, bytes]] = field(repr=False)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Contents by the role they can play: (ending, bytes); good ones, and some with a fault."""
    install_landmark_model(tmp_path_factory.mktemp("films"))
    frames = corpus_trees.face_frames(None)
    grey = np.asarray(Image.fromarray(frames[0]).convert("L"))[:, 12:84]
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    black = Image.new("L", (48, 48))
    film = corpus_trees.encode_film("mp4", frames)
    mute = corpus_trees.encode_film("mp4", np.zeros_like(frames), sound=False)
    face = Image.fromarray(grey)
    return Pool(
        faces=[
            *((f".{e}", encoded(face, k)) for e, k in (("jfif", "JPEG"), ("gif", "GIF"))),
            *((f".{e}", encoded(face, k)) for e, k in (("pgm", "PPM"), ("PNG", "PNG"))),
            (".png", encoded(deep, "PNG")),
            (".webp", encoded(face, "WEBP")),
            (".photo", encoded(face, "PNG")),
            (".png", encoded(black, "PNG")),
            (".jpg", encoded(face, "JPEG")[:300]),
            (".heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)),
            (".mp4", film),
            (".mp4", mute),
            (".jpg", b""),
            (".jpg", corpus_trees.lfs_pointer("a")),
            (".txt", b"no medium\n"),
        ],
        audio=[
            (".wav", voice()),
            (".aiff", voice(form="AIFF")),
            (".sound", voice(form="FLAC")),
            (".mp4", film),
            (".wav", corpus_trees.encode_wav(np.zeros(20_000, np.int16))),
            (".wav", np.random.default_rng(0).bytes(900)),
            (".mp3", b"<html>404</html>"),
            (".md", b"# notes\n"),
        ],
    )


def plant(root: Path, pool, draw) -> tuple[Path, list[str]]:
    """A corpus of random layout below root, folder or zip; the paths inside it."""
    paths, above = {}, draw(st.sampled_from(["", "mine/"]))
    for n in range(draw(st.integers(2, 7))):
        role = draw(st.sampled_from(["faces", "audio"]))
        ending, content = draw(st.sampled_from(getattr(pool, role)))
        emotion = draw(st.sampled_from(["happy", "Sad", "ANGER"]))
        subject = draw(st.sampled_from(["", "anna/", "Zoë/", "a b [c] 'd'/"]))
        paths[f"{above}{role}/{emotion}/{subject}{n}{ending}"] = content
    paths[f"{above}faces/happy/face.png"] = pool.faces[3][1]
    if draw(st.booleans()):
        paths[f"{above}README"] = b"read me\n"
    if draw(st.booleans()):
        slash = draw(st.sampled_from(["/", "\\"]))
        with zipfile.ZipFile(root.with_suffix(".zip"), "w") as z:
            for path, content in paths.items():
                info = zipfile.ZipInfo(path)
                info.filename = path.replace("/", slash)
                z.writestr(info, content)
        return root.with_suffix(".zip"), list(paths)
    for path, content in paths.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root, list(paths)


def fault_at(monkeypatch, root: Path, number: int) -> None:
    """Let the read of that number below a source fail."""
    seen, originals = [0], (builtins.open, io.open)

    def open_or_fail(original):
        def faulty(file, *args, **options):
            if isinstance(file, str | os.PathLike) and str(file).startswith(str(root)):
                seen[0] += 1
                if seen[0] == number:
                    raise OSError(errno.EIO, "Input/output error", str(file))
            return original(file, *args, **options)

        return faulty

    monkeypatch.setattr(builtins, "open", open_or_fail(originals[0]))
    monkeypatch.setattr(io, "open", open_or_fail(originals[1]))


@settings(
    max_examples=8,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_prepare_and_doctor_agree_on_any_corpus(tmp_path_factory, pool, data):
    folder = tmp_path_factory.mktemp("any")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "TARGET_PARTS", 3)
        patch.setenv("DACSSGAN_DATA", str(folder / "data"))
        root, paths = plant(folder / "corpus", pool, data.draw)
        path = preparation.prepare_corpus("mine", root, workers=1)
        corpus = prepared_corpora.load_corpus_file(path)
        record = prepared_corpora.read_source_record(path)
        # Each file is used, or named with a reason
        left_out = {k: v for k, v in corpus.meta["left_out"].items() if "landmarks/" not in k}
        passed = record["passed_over"]
        named = [set(corpus.clip.tolist()), set(left_out), set(passed)]
        assert sorted(x for names in named for x in names) == sorted(paths)
        assert all([*left_out.values(), *passed.values()])
        # Doctor says the same
        report = doctor.examine_corpus(root, workers=1)
        errors = {n for f in report.faults if f.severity == "error" for n in f.names}
        assert (report.corpus, errors) == ("own", set(left_out))
        assert report.names().get("passed-over", set()) == set(passed)
        # A fault at any single read leaves the same bytes once it is gone
        media_files._open_archive.cache_clear()
        reference = path.read_bytes()
        path.unlink()
        with pytest.MonkeyPatch.context() as faulty:
            fault_at(faulty, root, data.draw(st.integers(1, 9)))
            with contextlib.suppress(files.UserError, OSError):  # both become one line
                preparation.prepare_corpus("mine", root, workers=1)
        media_files._open_archive.cache_clear()
        assert preparation.prepare_corpus("mine", root, workers=1).read_bytes() == reference
