"""Training processes: start, stop, resume, reconcile. A training runs by itself and outlives the page that started it. No torch."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from core import datasets, runs
from core.config import Config, run_name
from core.runs import Run

NICE = 10  # a training gives way to the pages


def start(config: Config, device: str = "auto", folder: Path | None = None) -> str:
    """Start (or resume) training this config in a process of its own session, at low priority; returns the run id.

    The same config is the same run: one that is already running is left alone. Raises CorpusError when the corpus is not prepared.
    """
    folder = folder or runs.root()
    run = runs.create(folder / run_name(config, datasets.corpus_digest(config.data)), config)
    row = next((r for r in runs.listing(folder) if r["run"] == run.id), None)
    if row and (row["state"] == "done" or alive(row)):
        return run.id
    runs.update(run, state="queued", phase="starting", error="", pid=0)
    command = ["train", "--config-file", str(run.directory / "config.json"), "--device", device]
    with open(run.directory / "log.txt", "a") as log:
        runs.update(run, pid=spawn(command, log, log, {"DACSSGAN_CHECKPOINTS": str(folder.resolve())}))
    return run.id


def spawn(arguments: list[str], out: IO[str], err: IO[str], environment: dict[str, str]) -> int:
    """Start `python -m core ARGUMENTS` in a session of its own, at low priority; returns its process id."""
    threads = str(max(1, min(4, (os.cpu_count() or 2) - 1)))  # one core stays with the pages; small networks gain nothing beyond four
    return subprocess.Popen(
        [sys.executable, "-m", "core", *arguments],
        cwd=Path(__file__).resolve().parents[1],
        stdout=out,
        stderr=err,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={"OMP_NUM_THREADS": threads} | os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        preexec_fn=None if os.name == "nt" else functools.partial(os.nice, NICE),
    ).pid


def alive(row: dict) -> bool:
    """Whether the process of a run's row is there and beats its heart (a queued one has 60 s to begin)."""
    if row["state"] not in ("running", "queued") or not row["pid"]:
        return False
    fresh = time.time() - (row["heartbeat"] or 0) < runs.HEARTBEAT
    return fresh and is_ours(row["pid"], "train")


def is_ours(pid: int, command: str) -> bool:
    """Whether a pid is this project's, doing `command` (pids are used again by other programs)."""
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)  # a child that ended is a zombie until asked for
    found = subprocess.run(["ps", "-ww", "-p", str(pid), "-o", "args="], capture_output=True, text=True)  # whole, whatever COLUMNS says
    return "core" in found.stdout and command in found.stdout


def stop(run_id: str, folder: Path | None = None, wait: float = 0.0) -> bool:
    """Ask a training to save its state and end; True when it has ended within `wait` seconds (0: only asked)."""
    folder = folder or runs.root()
    row = next((r for r in runs.listing(folder) if r["run"] == run_id), None)
    if not row or not row["pid"] or not is_ours(row["pid"], "train"):
        reconcile(folder)
        return True
    os.kill(row["pid"], signal.SIGTERM)
    runs.update(Run(folder / run_id), phase="stopping")
    end = time.monotonic() + wait
    while time.monotonic() < end:
        if not is_ours(row["pid"], "train"):
            reconcile(folder)
            return True
        time.sleep(0.1)
    return False


def resume(run_id: str, device: str = "auto", folder: Path | None = None) -> str:
    """Continue a stopped or failed run from its checkpoint."""
    folder = folder or runs.root()
    return start(Run(folder / run_id).config, device, folder)


def reconcile(folder: Path | None = None) -> list[str]:
    """Give runs whose process is gone the state they are really in; returns their ids. Cheap: call it before showing a list."""
    folder, changed = folder or runs.root(), []
    for row in runs.listing(folder):
        if row["state"] in ("running", "queued") and not alive(row):
            if row["state"] == "queued" and not row["pid"] and time.time() - (row["heartbeat"] or row["created"]) < 5:
                continue  # its process is just being started
            run = Run(folder / row["run"])
            asked = row["phase"] == "stopping"  # it was stopped before it listened for that
            error = "" if asked else "the training process ended without saying why; the log's last lines may tell. It can be resumed."
            runs.update(run, state="stopped" if asked or (run.directory / "state.pt").exists() else "failed", error=error)
            changed.append(row["run"])
    return changed


def log_tail(run_id: str, lines: int = 40, folder: Path | None = None) -> str:
    """The end of a run's log."""
    path = (folder or runs.root()) / run_id / "log.txt"
    if not path.exists():
        return ""
    with open(path, "rb") as f:
        f.seek(max(0, path.stat().st_size - 20_000))
        return "\n".join(f.read().decode(errors="replace").splitlines()[-lines:])


def cards() -> list[str]:
    """NVIDIA cards as "name, memory", from the driver's own tool; [] without one. (torch is not asked: pages do not load it.)"""
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        out = subprocess.run(query, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in out.stdout.splitlines() if line.strip()] if out.returncode == 0 else []
