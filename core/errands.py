"""Errands: long work on data (fetch, doctor, prepare) in a process of its own, watched through one small file. No torch.

The same arguments are the same errand: starting it again continues where it was left, as the work itself can be resumed. An errand is
`data/.errands/<id>.json` (state, written by the process itself), `.out` (what it printed) and `.log` (its errors).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from core import datasets, jobs, runs

FILE = "DACSSGAN_ERRAND"  # names the errand's file to its process


@dataclass(frozen=True)
class Errand:
    """What is known of one errand."""

    id: str
    arguments: list[str]
    state: Literal["running", "stopped", "failed", "done"] = "running"
    pid: int = 0
    phase: str = ""
    done: int = 0
    total: int = 0
    rate: float = 0.0  # of `done` per second
    message: str = ""  # why it failed, or what it came to
    started: float = 0.0
    beat: float = 0.0


def folder() -> Path:
    return datasets.folder().parent / ".errands"


def start(arguments: list[str]) -> str:
    """Start `python -m core data ARGUMENTS`, unless it is already running; returns the errand's id."""
    key = hashlib.sha256("\0".join(arguments).encode()).hexdigest()[:8]
    name = "-".join([*arguments[:1], key])
    known = find(name)
    if known and known.state == "running":
        return name
    folder().mkdir(parents=True, exist_ok=True)
    path = folder() / f"{name}.json"
    errand = Errand(name, list(arguments), started=time.time(), beat=time.time())
    runs.write_json(path, asdict(errand))
    with open(path.with_suffix(".out"), "w") as out, open(path.with_suffix(".log"), "w") as err:
        pid = jobs.spawn(["data", *arguments], out, err, {FILE: str(path.resolve())})
    if (now := _read(path)) and not now.pid:  # its process may have written first
        runs.write_json(path, asdict(replace(now, pid=pid)))
    return name


def _read(path: Path) -> Errand | None:
    try:
        return Errand(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def find(name: str) -> Errand | None:
    """One errand in the state that it is really in, or None."""
    path = folder() / f"{name}.json"
    errand = _read(path)
    if errand and errand.state == "running" and not jobs.is_ours(errand.pid, "data") and time.time() - errand.beat > 2:
        errand = _read(path) or errand  # it may have ended between the two looks
        if errand.state == "running":
            errand = replace(errand, state="failed", message="its process ended without saying why; start it again to continue")
            runs.write_json(path, asdict(errand))
    return errand


def listing() -> list[Errand]:
    """All errands, newest first."""
    found = [find(p.stem) for p in folder().glob("*.json")]
    return sorted((e for e in found if e), key=lambda e: -e.started)


def stop(name: str) -> None:
    """Ask an errand to end; what it has done is kept."""
    errand = find(name)
    if errand and errand.state == "running" and errand.pid:
        os.kill(errand.pid, signal.SIGTERM)


def output(name: str) -> str:
    """What an errand has printed."""
    path = folder() / f"{name}.out"
    return path.read_text(errors="replace") if path.exists() else ""


# ------------------------------------------------------------------ said by the process itself


def beat(phase: str, done: int, total: int, rate: float) -> None:
    """Progress of this process' errand, if it runs as one."""
    _say(phase=phase, done=done, total=total, rate=rate)


def ended(state: Literal["stopped", "failed", "done"], message: str = "") -> None:
    """How this process' errand ended, if it runs as one."""
    _say(state=state, message=message)


def _say(**fields) -> None:
    path = os.environ.get(FILE)
    errand = _read(Path(path)) if path else None
    if path and errand:
        runs.write_json(Path(path), asdict(replace(errand, pid=os.getpid(), beat=time.time(), **fields)))
