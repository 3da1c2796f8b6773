"""A fault of the machine is never a fact about a clip: the work stops, is kept, and goes on."""

import builtins
import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import threading
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
from core.media.faces import landmarker
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


def command(root: Path, *options: str) -> list[str]:
    return ["data", "prepare", "ravdess", "--source", str(root), *options]


def test_a_worker_that_the_system_kills_stops_the_work(tmp_path, home, monkeypatch, capsys):
    """As where memory is short: SIGKILL, of which a process tells nothing."""
    root = tmp_path / "r"
    for i in range(12):
        path = root / f"Actor_01/03-01-0{i // 2 % 6 + 3}-01-0{i % 2 + 1}-01-01.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(voice())
    monkeypatch.setattr(extraction, "MIN_PARALLEL_CLIPS", 2)
    reference = preparation.prepare_corpus("ravdess", root, workers=1).read_bytes()
    (home / "ravdess.npz").unlink()
    whole, stepped = extraction.extract_corpus, []

    def killing(items, how, folder, engine, tick, should_stop):
        def tick_and_kill(done, total):
            stepped.append(done)
            if len(stepped) == 2:  # the first part is done
                children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
                for pid in children.read_text().split():
                    if b"LokyProcess" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(int(pid), signal.SIGKILL)

        return whole(items, how, folder, engine, tick_and_kill, should_stop)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "extract_corpus", killing)
        assert cli.main(command(root, "--workers", "2")) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the system ended a process that reads clips" in line
    assert "give fewer --workers" in line
    assert not (home / "ravdess.npz").exists()
    kept = len(list(home.glob(".parts/*/*.npz")))
    assert 1 <= kept < 12
    assert f"{kept} of 12 clips are done and kept" in line
    done = []
    path = preparation.prepare_corpus(
        "ravdess", root, workers=1, tick=lambda d, total: done.append(d)
    )
    assert (done[0], path.read_bytes()) == (kept, reference)


def test_a_missing_landmark_library_stops_before_the_first_clip(
    tmp_path, home, pool, monkeypatch, capsys
):
    root = tmp_path / "own"
    for i, (ending, content) in enumerate(pool.faces[:2]):
        (root / f"faces/happy/{i}{ending}").parent.mkdir(parents=True, exist_ok=True)
        (root / f"faces/happy/{i}{ending}").write_bytes(content)
    words = ["data", "prepare", "mine", "--source", str(root)]
    with monkeypatch.context() as patch:
        patch.setattr(landmarker, "idle_interpreters", [])
        patch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        assert cli.main(words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the landmark model cannot be loaded (import of ai_edge_litert.interpreter" in line
    assert "install requirements.txt again" in line
    assert not (home / "mine.npz").exists()
    assert cli.main(words) == 0
    assert len(prepared_corpora.load_corpus("mine").faces) == 2


def test_a_home_that_may_not_be_written_to_is_named(tmp_path, home):
    """The mel filters are compiled, and kept in a cache below HOME where the packages' own folder
    may not be written to."""
    root = speakers(tmp_path / "r", 2)
    variables = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "UserWideCacheLocator"}
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        variables.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "core", *command(root)],
        env=variables | {"HOME": "/dev/null"},
        cwd=files.ROOT,
        capture_output=True,
        text=True,
    )
    line = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "no locator available" in line
    assert "set HOME to a folder that may be written to" in line
    assert "the same command goes on" in line
    assert cli.main(command(root)) == 0


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
    paths, above = {}, draw(st.sampled_from(["", "mine/", "a/b c/", "down/here/faces/it/is/"]))
    for n in range(draw(st.integers(2, 7))):
        role = draw(st.sampled_from(["faces", "audio"]))
        ending, content = draw(st.sampled_from(getattr(pool, role)))
        emotion = draw(st.sampled_from(["happy", "Sad", "ANGER"]))
        subject = draw(st.sampled_from(["", "anna/", "Zoë/", "a b [c] 'd'/"]))
        paths[f"{above}{role}/{emotion}/{subject}{n}{ending}"] = content
    paths[f"{above}faces/happy/face.png"] = pool.faces[3][1]
    if draw(st.booleans()):
        paths[f"{above}README"] = b"read me\n"
    form = draw(st.sampled_from(["folder", "zip", "zip in a folder"]))
    if form != "folder":
        slash = draw(st.sampled_from(["/", "\\"]))
        inside = form == "zip in a folder"
        archive = root / "in/z.zip" if inside else root.with_suffix(".zip")
        archive.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(archive, "w") as z:
            for path, content in paths.items():
                info = zipfile.ZipInfo(path)
                info.filename = path.replace("/", slash)
                z.writestr(info, content)
        return (root, [f"in/z/{path}" for path in paths]) if inside else (archive, list(paths))
    for path, content in paths.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root, list(paths)


def fault_at(monkeypatch, root: Path, number: int) -> list[int]:
    """Let the read of that number below a source fail: of a file, a folder, or a zip's member.

    Returns the list whose only number is that of the reads so far.
    """
    seen = [0]

    def reads(original, place=lambda *args: args[0]):
        def faulty(*args, **options):
            at = place(*args)
            if isinstance(at, str | os.PathLike) and str(at).startswith(str(root)):
                seen[0] += 1
                if seen[0] == number:
                    raise OSError(errno.EIO, "Input/output error", str(at))
            return original(*args, **options)

        return faulty

    for module, name in ((builtins, "open"), (io, "open"), (os, "scandir"), (os, "stat")):
        monkeypatch.setattr(module, name, reads(getattr(module, name)))
    of_archive = reads(zipfile.ZipFile.open, lambda archive, *_: archive.filename)
    monkeypatch.setattr(zipfile.ZipFile, "open", of_archive)
    return seen


@pytest.mark.parametrize("form", ["folder", "zip", "zip in a folder", "table"])
def test_a_fault_at_each_single_read_leaves_the_same_bytes(tmp_path, home, form):
    root, contents = tmp_path / "source" / "own", {}
    for i, emotion in enumerate(("happy", "sad")):
        contents[f"audio/{emotion}/anna/{i}.sound" if i else f"audio/{emotion}/0.wav"] = voice()
    contents["audio/sad/notes.text"] = b"words\n"
    contents["t.csv"] = b"path,subject,label,clip\n" + b"".join(
        f"{path},anna,happy,{i}\n".encode() for i, path in enumerate([*contents][:2])
    )
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    if "zip" in form:
        archive = (root / "z.zip") if "folder" in form else root.with_suffix(".zip")
        with zipfile.ZipFile(archive, "w") as z:
            for path, content in contents.items():
                z.writestr(path, content)
    source = {"zip": root.with_suffix(".zip"), "table": root / "t.csv"}.get(form, root)

    def results():
        media_files._open_archive.cache_clear()
        path = preparation.prepare_corpus("mine", source, workers=1)
        record = prepared_corpora.source_record_path(path)
        both = path.read_bytes(), record.read_bytes()
        path.unlink()
        record.unlink()
        return both

    reference, number = results(), 0
    while True:
        number += 1
        with pytest.MonkeyPatch.context() as faulty:
            seen, stopped = fault_at(faulty, root.parent, number), False
            try:
                disturbed = results()
            except (files.UserError, OSError):  # both become one line
                stopped = True
            if seen[0] < number:
                break
        assert stopped or disturbed[0] == reference[0], number
        assert results() == reference, number
    assert number > 8


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
        errors = {name.replace(".zip!", "/") for name in errors}
        assert (report.corpus, errors) == ("own", set(left_out))
        assert report.names().get("passed-over", set()) == set(passed)
        # A fault at any single read leaves the same bytes once it is gone
        media_files._open_archive.cache_clear()
        reference = path.read_bytes()
        path.unlink()
        with pytest.MonkeyPatch.context() as faulty:
            fault_at(faulty, root, data.draw(st.integers(1, 40)))
            with contextlib.suppress(files.UserError, OSError):  # both become one line
                preparation.prepare_corpus("mine", root, workers=1)
        media_files._open_archive.cache_clear()
        assert preparation.prepare_corpus("mine", root, workers=1).read_bytes() == reference
