"""A fault of the machine is never a fact about a clip: the work stops, is kept, and goes on."""

import errno
import io
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import core.__main__ as cli
from core import files
from core.data import extraction, features, preparation, prepared_corpora
from core.data.checks import doctor
from core.data.corpora import CorpusError
from core.data.features import MachineError
from core.data.sources import media_files
from core.media.containers import MediaError
from core.media.faces import landmarker
from tests.support import corpus_trees
from tests.support.trained_runs import install_landmark_model


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


@pytest.mark.parametrize(
    ("fault", "fix"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "put it back"),
        (PermissionError(errno.EACCES, "Permission denied"), "allow it"),
        (OSError(errno.EMFILE, "Too many open files"), "raise the limit of open files"),
    ],
)
def test_a_fault_of_reading_has_its_own_fix(tmp_path, home, monkeypatch, fault, fix):
    root = speakers(tmp_path / "r", 2)

    def faulty(*_):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", faulty)
        with pytest.raises(MachineError, match=rf"cannot be read \({fault.strerror}\); {fix}"):
            preparation.prepare_corpus("ravdess", root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", faulty)
        with pytest.raises(CorpusError, match=rf"cannot be examined: .*\({fault.strerror}\)"):
            doctor.examine_corpus(root)


def test_a_record_or_file_in_the_way_is_named_and_mended(tmp_path, home):
    root = speakers(tmp_path / "r", 2)
    path = preparation.prepare_corpus("ravdess", root)
    record, whole = prepared_corpora.source_record_path(path), path.read_bytes()
    before = record.read_bytes()
    for content in (b"\xff\xfe\0 noise", b"{", b"[1]"):
        record.write_bytes(content)
        preparation.prepare_corpus("ravdess", root)
        assert record.read_bytes() == before
    path.unlink()
    path.mkdir()
    with pytest.raises(MachineError, match=r"ravdess\.npz cannot be written .*a folder is in the"):
        preparation.prepare_corpus("ravdess", root)
    path.rmdir()
    assert preparation.prepare_corpus("ravdess", root).read_bytes() == whole


def test_a_large_member_of_a_zip_is_refused_before_it_is_unpacked(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "own.zip", "w", zipfile.ZIP_DEFLATED) as z,
        z.open("a.mp4", "w") as member,
    ):
        for _ in range(201):
            member.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(MediaError, match=r"a\.mp4 has 201 MiB; at most 200 are taken"):
            media_files.read_content(f"{tmp_path}/own.zip!a.mp4")
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


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
    monkeypatch.setitem(sys.modules, "soundfile", None)  # importing it fails
    with pytest.raises(MachineError, match="soundfile cannot be loaded .*requirements.txt"):
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
    tmp_path, home, monkeypatch, capsys
):
    install_landmark_model(tmp_path)
    face = Image.fromarray(corpus_trees.face_frames(None)[0, :, 12:84])
    root = tmp_path / "own"
    (root / "faces/happy").mkdir(parents=True)
    for i in range(2):
        face.save(root / f"faces/happy/{i}.png")
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


def test_a_home_that_may_not_be_written_to(tmp_path, home):
    """Preparing needs none; pYIN is compiled, and kept below HOME where the packages' own folder
    may not be written to."""
    root = speakers(tmp_path / "r", 2)
    variables = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "UserWideCacheLocator"}
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        variables.pop(name, None)

    def python(*words):
        return subprocess.run(
            [sys.executable, *words],
            env=variables | {"HOME": "/dev/null"},
            cwd=files.ROOT,
            capture_output=True,
            text=True,
        )

    assert python("-m", "core", *command(root)).returncode == 0
    finding = """
import numpy as np
from core.config.settings import LogMel
from core.evaluation.hearing import acoustics
acoustics.pitch(np.zeros(16_000, np.float32), LogMel())
"""
    done = python("-c", finding)
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "UserError: librosa, which finds the pitch, cannot be loaded" in line
    assert "no locator available" in line
    assert "set HOME to a folder that may be written to" in line
