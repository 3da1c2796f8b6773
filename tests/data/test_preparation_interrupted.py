"""Preparation by several processes, locks, damaged parts, and kills at any moment."""

import functools
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core import files
from core.config.settings import LogMel
from core.data import extraction, preparation
from core.data.corpora import CorpusError
from core.experiments.ray_cluster import connection
from core.media import spectrograms
from tests.support.small_corpora import is_clean, write_ravdess_sounds

KILLS = max(
    1, round(0.6 * int(os.environ.get("FAULTS", "5")))
)  # the other part falls to test_download.py


# ------------------------------------------------------------------ locks, damage, kills


def test_two_at_once_are_told_of_each_other(tmp_path, processed):
    root = write_ravdess_sounds(tmp_path / "r")
    lock = files.file_lock(processed / ".parts" / "ravdess.lock", "preparing ravdess")
    with lock, pytest.raises(files.BusyError, match=rf"process {os.getpid()} on "):
        preparation.prepare_corpus("ravdess", root)
    preparation.prepare_corpus("ravdess", root)  # the lock file is there, and nobody holds it


def test_half_written_and_long_forgotten_parts_are_taken_care_of(tmp_path, processed):
    root = write_ravdess_sounds(tmp_path / "r")
    reference = preparation.prepare_corpus("ravdess", root).read_bytes()
    (processed / "ravdess.npz").unlink()
    calls = iter(range(100))
    with pytest.raises(files.StopRequested):
        preparation.prepare_corpus("ravdess", root, should_stop=lambda: next(calls) > 2)
    parts = sorted(processed.glob(".parts/*/*.npz"))
    assert len(parts) == 4
    parts[0].write_bytes(parts[0].read_bytes()[:-30])
    parts[1].write_bytes(b"")
    (parts[0].parent / ".0005.npz.99-1.tmp").write_bytes(b"half")
    for name in (".ravdess.npz.99-1.tmp", ".ravdess.source.json.99-1.tmp"):
        (processed / name).write_bytes(b"half")
    old, fresh = (
        processed / ".parts" / "0123456789abcdef",
        processed / ".parts" / "fedcba9876543210",
    )
    for folder in (old, fresh):
        folder.mkdir()
    os.utime(old, (1e9, 1e9))
    said = []
    preparation.prepare_corpus("ravdess", root, tick=lambda d, t: said.append(d))
    assert said[0] == 2
    assert (processed / "ravdess.npz").read_bytes() == reference
    assert not old.exists()
    fresh.rmdir()
    assert is_clean(processed)


IMPORTS = """
import sys
from pathlib import Path
from core.data import extraction, preparation
"""


@pytest.mark.parametrize("moment", [0.0, 1.0] if KILLS < 4 else [0.0, 0.3, 1.0, 2.0])
def test_workers_end_with_whoever_started_them(tmp_path, films, moment):
    """Killed at any moment of their start, too, when they have been given nothing to do yet."""
    script = f"{IMPORTS}\nextraction.MIN_PARALLEL_CLIPS = 0\nprint('ready', flush=True)\n"
    script += "settings = preparation.PreparationSettings(frames=12)\n"
    script += "preparation.prepare_corpus('demo-clips', Path(sys.argv[1]), settings, workers=2)"
    env, place = os.environ | {"DACSSGAN_DATA": str(tmp_path)}, Path(__file__).resolve().parents[2]
    command, nothing = [sys.executable, "-c", script, str(films)], subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=place, env=env, stdout=subprocess.PIPE, stderr=nothing)
    assert process.stdout.readline() == b"ready\n"
    time.sleep(moment)
    process.kill()
    process.communicate(timeout=20)  # the end of their output, which the workers hold as well


def test_a_worker_without_its_starter_ends():
    script = f"{IMPORTS}\nimport time\nextraction.exit_with_parent(1 << 30)\ntime.sleep(60)"
    place = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=place, timeout=30, capture_output=True)
    assert (ended.returncode, ended.stderr) == (1, b"")


def prepare(root: Path, data: Path) -> Path:
    os.environ["DACSSGAN_DATA"] = str(data)
    settings = preparation.PreparationSettings(crops=2)
    return preparation.prepare_corpus("ravdess", root, settings, workers=1)


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path, processed):
    """The killed process is a fork of this one, which has loaded everything."""
    root, rng = (
        write_ravdess_sounds(tmp_path / "r", people=3, emotions=range(1, 9)),
        random.Random(0),
    )
    fork = multiprocessing.get_context("fork")
    spectrograms.mel_filters(LogMel())
    reference = prepare(root, tmp_path / "warm").read_bytes()
    begun = time.monotonic()
    assert prepare(root, tmp_path / "undisturbed").read_bytes() == reference
    lasts, seen = time.monotonic() - begun, set()
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        process = fork.Process(target=prepare, args=(root, folder))
        process.start()
        time.sleep(rng.uniform(0, 1.05 * lasts))
        process.kill()
        process.join(30)
        seen.add(len(list(folder.rglob("????.npz"))))
        assert prepare(root, folder).read_bytes() == reference
        record = json.loads((folder / "processed/ravdess.source.json").read_text())
        assert record["source"] == str(root)
        assert is_clean(folder / "processed")
        shutil.rmtree(folder)
    assert KILLS < 20 or len(seen) > 5  # the kills fell into different moments


# ------------------------------------------------------------------ engines


def on_ray(workers=0, address=None):
    return functools.partial(connection.run_tasks, workers=workers, address=address)


def test_workers_make_the_same_bytes(films, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "MIN_PARALLEL_CLIPS", 0)
    made = []
    for workers in (1, 2):
        monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / str(workers)))
        made.append(
            preparation.prepare_corpus(
                "demo-clips", films, preparation.PreparationSettings(frames=2), workers=workers
            ).read_bytes()
        )
    assert made[0] == made[1]


def test_what_a_machine_of_a_cluster_lacks(tmp_path):
    there = tmp_path / "a.wav"
    there.write_bytes(b"12345")
    assert connection.what_differs({str(there): 5}, connection.code_digest()) == ""
    assert f"cannot read {tmp_path}/b.wav" in connection.what_differs(
        {str(there): 5, f"{tmp_path}/b.wav": 5}, connection.code_digest()
    )
    assert f"5 bytes in {there}, where 6 are" in connection.what_differs(
        {str(there): 6}, connection.code_digest()
    )
    assert "another version of this project" in connection.what_differs({}, "0")


def test_without_ray_it_says_how_to_get_it(films, processed, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CorpusError, match=r"pip install -r requirements-cluster\.txt"):
        preparation.prepare_corpus("demo-clips", films, engine=on_ray())


def test_ray_makes_the_same_bytes(films, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="the engine ray is optional: requirements-cluster.txt")
    made = []
    for engine in ("local", "ray"):
        monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / engine))
        made.append(
            preparation.prepare_corpus(
                "demo-clips", films, workers=2, engine=on_ray(2) if engine == "ray" else None
            ).read_bytes()
        )
    assert made[0] == made[1]
    with pytest.raises(CorpusError, match="no Ray cluster answers at 127.0.0.1:9"):
        preparation.prepare_corpus(
            "demo-clips",
            films,
            preparation.PreparationSettings(frames=2),
            engine=on_ray(address="127.0.0.1:9"),
        )
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        monkeypatch.setattr(extraction, "sample_media", lambda items: {"/nowhere/x.wav": 3})
        with pytest.raises(CorpusError, match="machine .* cannot read /nowhere/x.wav"):
            preparation.prepare_corpus(
                "demo-clips", films, preparation.PreparationSettings(frames=2), engine=on_ray()
            )
    finally:
        ray.shutdown()
