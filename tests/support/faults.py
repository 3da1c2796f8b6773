"""A campaign of faults: `python -m tests.support.faults --uploads 200` prints one table.

Each class is a function that tries `count` cases and returns what failed; a case that is refused in
words is survived. Cases come from the number's seed, so that a failure can be had again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from core import files
from core.__main__ import main
from core.config.serialisation import to_dict
from core.config.settings import replace
from core.data.demo import recordings
from core.media.containers import MediaError
from tests.support import (
    hostile_runs,
    media_files,
    process_kills,
    small_pipeline,
    trained_runs,
    visitors,
)

MAX_SECONDS = 10.0  # of one case without progress
GOOD = files.ROOT / "checkpoints" / "demo-cp-87b4dc5a"
COMMANDS = (["evaluate"], ["conformal"], ["runs", "ship"], ["runs", "export"], ["generate"])
PAGES = ("", "listen", "condition", "gallery", "reverse", "conformal", "evaluate", "train", "data")
CONFIG = replace(small_pipeline.TINY, name="fault")


# ------------------------------------------------------------------ trainings: kills and disks


def _start(folder: Path, *words: str, **options) -> subprocess.Popen:
    """`python -m core` with these words; the runs and the corpus lie in `folder`."""
    environment = {
        "DACSSGAN_CHECKPOINTS": str(folder / "checkpoints"),
        "DACSSGAN_DATA": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "core", *words],
        cwd=files.ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _train(folder: Path, **options) -> subprocess.Popen:
    """`python -m core train` of CONFIG."""
    files.write_json(folder / "config.json", to_dict(CONFIG))
    given = "--config-file", str(folder / "config.json")
    return _start(folder, "train", "--device", "cpu", *given, **options)


def _weights(folder: Path) -> dict[str, bytes]:
    (run,) = (folder / "checkpoints").glob(f"{CONFIG.name}-*/results.json")
    return {p.name: p.read_bytes() for p in sorted((run.parent / "models").iterdir())}


def kills(count: int, folder: Path) -> list[str]:
    """Kill -9 of a training at random moments; in the end it has the weights of an unkilled one."""
    start = time.monotonic()
    if _train(whole := _made(folder / "whole")).wait():
        return ["the training fails without a fault"]
    seconds, failures, rng = time.monotonic() - start, [], random.Random(count)
    chain, done = _made(folder / "chain-0"), 0
    while done < count:
        child = _train(chain)
        try:
            child.communicate(timeout=rng.uniform(0.05, 1.05) * seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            done += 1
            continue
        failures += _compare(child.returncode, chain, whole)
        chain = _made(folder / f"chain-{done}")
    last = _train(chain)
    last.communicate()
    return failures + _compare(last.returncode, chain, whole)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _compare(code: int, chain: Path, whole: Path) -> list[str]:
    if code:
        return [f"{chain.name}: exit status {code}"]
    half = [p.name for p in chain.rglob(".*.tmp")]
    same = _weights(chain) == _weights(whole)
    return [f"{chain.name}: other weights"] * (not same) + [f"{chain.name}: {n}" for n in half]


def _no_room(limit: int) -> Callable[[], None]:
    """What a process does first so that no file of its grows beyond `limit` bytes."""

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return before


def _told_in_words(child: subprocess.Popen, command: str, limit: int) -> list[str]:
    """What is wrong with the end of a command whose files had no room: a traceback, or no word."""
    _, said = child.communicate(timeout=300)
    if child.returncode and ("Traceback" in said or f"python -m core {command}:" not in said):
        return [f"{command}, files of {limit} bytes: {said.strip()[-300:]}"]
    return []


def disks(count: int, folder: Path) -> list[str]:
    """Trainings whose writes fail beyond a random size of a file; with room the same goes on."""
    failures, rng, home = [], random.Random(count), _made(folder / "disk")
    for i in range(count):
        limit = int(10 ** rng.uniform(1, 6))
        child = _train(home, preexec_fn=_no_room(limit))
        failures += _told_in_words(child, "train", limit)
        if not child.returncode:  # it had room enough: another begins
            shutil.rmtree(home / "checkpoints")
        elif i == count - 1:
            last = _train(home)
            _, said = last.communicate(timeout=300)
            failures += [f"with room again: {said[-300:]}"] * bool(last.returncode)
    return failures


def writes(count: int, folder: Path) -> list[str]:
    """Tables, evaluations, corpora and sounds without room for a file; with room the same go on."""
    home, failures, rng = _trained(folder)[0], [], random.Random(count)
    (results,) = (home / "checkpoints").glob(f"{CONFIG.name}-*/results.json")
    run = results.parent
    trained_runs.install_landmark_model(home)
    recordings.draw_demo_clips(_made(folder / "clips"), 1)
    clip = next((folder / "clips").glob("*.mp4"))
    commands = [
        ("table", run.name, "--seeds", "1", "--stretch", "1"),
        ("evaluate", run.name, "--again"),
        ("data", "prepare", "demo", "--takes", "1", "--again"),
        ("generate", str(clip), "--run", run.name, "--out", str(folder / "sounds")),
    ]
    for i in range(count):
        words, limit = commands[i % len(commands)], int(10 ** rng.uniform(1, 6))
        said_by = " ".join(words[: 2 if words[0] == "data" else 1])
        for old in run.glob("table.*"):
            old.unlink()
        shutil.rmtree(folder / "sounds", ignore_errors=True)
        failures += _told_in_words(_start(home, *words, preexec_fn=_no_room(limit)), said_by, limit)
        again = _start(home, *words)
        _, said = again.communicate(timeout=300)
        failures += [f"{said_by}, with room again: {said[-300:]}"] * bool(again.returncode)
        failures += [f"{said_by} left {p.name}" for p in home.rglob(".*.tmp")]
    return failures


def _trained(folder: Path) -> tuple[Path, Path]:
    """A home whose run of CONFIG is done without a fault, and one with its corpus alone."""
    if _train(whole := _made(folder / "whole")).wait():
        raise RuntimeError("the training fails without a fault")
    home = _made(folder / "home")
    shutil.copytree(whole / "data", home / "data")
    return whole, home


def queues(count: int, folder: Path) -> list[str]:
    """Kills of the queue process and of its training; the queue goes on to the same weights."""
    whole, home = _trained(folder)
    return process_kills.kill_queues(CONFIG, count, home, lambda h: _compare(0, h, whole))


def workers(count: int, folder: Path) -> list[str]:
    """Kills of a sweep's workers, which train the runs of a cluster too."""
    return process_kills.kill_workers(CONFIG, count, _trained(folder)[1])


def servers(count: int, folder: Path) -> list[str]:
    """Kills of the server while a clip is read."""
    return process_kills.kill_servers(count, folder)


def guests(count: int, folder: Path) -> list[str]:
    """Visitors at once for five minutes: the server's memory while they are here, and after."""
    return visitors.judge(visitors.receive(count, 300.0)) if count else []


# ------------------------------------------------------------------ uploads


def _spoilt(data: bytes, rng: random.Random) -> bytes:
    """The bytes cut, with flipped bytes, with a hole, doubled or with noise after their head."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    flipped = bytearray(data)
    for _ in range(rng.randrange(1, 40)):
        flipped[rng.randrange(len(data))] = rng.randrange(256)
    ways = (data[:a], bytes(flipped), data[:a] + data[b:], data[:a] + data, b"\xff" * 64 + data[a:])
    return rng.choice([*ways, data[:16] + rng.randbytes(b - a)])


def uploads(count: int, folder: Path) -> list[str]:
    """Damaged clips, pictures and sounds in the sandbox: read or refused in words, in time."""
    from core.media import clips, sandbox

    folder = _made(folder / "uploads")
    clips.write_clip(folder / "a.mp4", media_files.pictures(12), 12, media_files.tone(1.0))
    from PIL import Image

    for end in ("png", "jpg", "gif"):
        Image.fromarray(media_files.pictures(1)[0]).save(folder / f"a.{end}")
    originals = [p.read_bytes() for p in sorted(folder.iterdir())]
    failures, rng, path = [], random.Random(count), folder / "upload"
    for i in range(count):
        path.write_bytes(_spoilt(originals[i % len(originals)], rng))
        start = time.monotonic()
        try:
            sandbox.read_clip(path)
        except MediaError:
            pass
        except Exception as e:  # whatever else is a failure of this campaign
            failures.append(f"upload {i}: {type(e).__name__}: {e}")
        if (seconds := time.monotonic() - start) > MAX_SECONDS:
            failures.append(f"upload {i}: {seconds:.0f} s")
    sandbox.end_idle_decoders()
    return failures


def conformal(count: int, folder: Path) -> list[str]:
    """Damaged tables of a classifier's outputs: analysed or refused in words, in time."""
    from core.conformal import analysis, calibration

    rng, noise, failures = random.Random(count), np.random.default_rng(0), []
    rows = ["set,label,a,b,c"]
    for i in range(60):
        o = noise.dirichlet(np.ones(3))
        rows.append(f"{'cal' if i % 2 else 'test'},{'abc'[i % 3]},{o[0]},{o[1]},{o[2]}")
    table = "\n".join(rows).encode()
    for i in range(count):
        start = time.monotonic()
        try:
            found = calibration.data_from_upload("mine.csv", _spoilt(table, rng))
            analysis.analyse_outputs(found, "margin", "pooled")
        except files.UserError:
            pass
        except Exception as e:  # whatever else is a failure of this campaign
            failures.append(f"table {i}: {type(e).__name__}: {e}")
        if (seconds := time.monotonic() - start) > MAX_SECONDS:
            failures.append(f"table {i}: {seconds:.0f} s")
    return failures


# ------------------------------------------------------------------ runs of strangers


def hostile(count: int, folder: Path) -> list[str]:
    """Hostile directories of runs: each opened by every command and by pages through the router."""
    from tests.support.app import open_page

    home = _made(folder / "hostile")
    names, failures = list(hostile_runs.HOSTILE)[:count], []
    environment = {"DACSSGAN_CHECKPOINTS": str(home / "checkpoints")}
    environment |= {"DACSSGAN_DATA": str(home / "data")}
    shutil.copytree(GOOD, home / "checkpoints" / GOOD.name)
    picture = home / "face.png"
    picture.write_bytes(b"no picture")
    with mock.patch.dict(os.environ, environment):
        for name in names:
            hostile_runs.spoil(name, GOOD, home / "checkpoints")
            for words in COMMANDS:
                given = [str(picture), "--run", name] if words == ["generate"] else [name]
                err = io.StringIO()
                try:
                    with contextlib.redirect_stderr(err):
                        code = main([*words, *given])
                    if code != 1 or len(err.getvalue().strip().splitlines()) != 1:
                        failures.append(f"{name}: {words}: {code}, {err.getvalue()[-200:]}")
                except Exception as e:  # a traceback to a user
                    failures.append(f"{name}: {words}: {type(e).__name__}: {e}")
        for page in PAGES:
            for name in names if count > len(PAGES) else names[:1]:
                try:
                    open_page(page, run=name)
                except AssertionError as e:
                    failures.append(f"{name}: page {page or 'home'}: {str(e)[:200]}")
    return failures


CLASSES: dict[str, tuple[int, Callable[[int, Path], list[str]]]] = {
    "kills": (200, kills),
    "disks": (60, disks),
    "writes": (40, writes),
    "queues": (20, queues),
    "workers": (20, workers),
    "servers": (20, servers),
    "guests": (12, guests),
    "uploads": (2_000, uploads),
    "hostile": (len(hostile_runs.HOSTILE), hostile),
    "conformal": (150, conformal),
}


def campaign(counts: dict[str, int]) -> int:
    """Run the classes and print the table; returns the number of failures."""
    print(f"{'class':<12} {'tried':>7} {'survived':>9} {'seconds':>8}", flush=True)
    total, told = 0, []
    for name, (_, attack) in CLASSES.items():
        if not (count := counts[name]):
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="dacssgan-faults-") as folder:
            failures = attack(count, Path(folder))
        seconds = time.monotonic() - start
        print(f"{name:<12} {count:>7} {count - len(failures):>9} {seconds:>8.0f}", flush=True)
        total, told = total + len(failures), told + [f"{name}: {f}" for f in failures]
    print("\n".join(told))
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, (most, attack) in CLASSES.items():
        parser.add_argument(f"--{name}", type=int, default=most, help=attack.__doc__)
    sys.exit(min(1, campaign(vars(parser.parse_args()))))
