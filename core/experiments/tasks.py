"""Errands: long work on data (fetch, doctor, prepare) or on a run (table) in a process of its own, watched through a small file. No torch.

The same arguments are the same errand: starting it again continues where it was left, as the work itself can be resumed. An errand is
`data/processed/.errands/<id>.json` (state, written by the process itself), `.out` (what it printed), `.log` (its errors) and, from when
it is asked to end, `.stop`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from core import files
from core.data import splits
from core.experiments import jobs

TASK_FILE_VARIABLE = "DACSSGAN_ERRAND"  # names the errand's file to its process
STOP_GRACE_SECONDS = 10.0  # seconds that an errand has to end by itself
STOPPING_PHASE = "stopping"  # the phase of one that was asked to end


@dataclass(frozen=True)
class Task:
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

    @property
    def left(self) -> float:
        """Seconds until `total`, at the present rate; NaN where that is not known."""
        return (
            (self.total - self.done) / self.rate
            if self.rate > 0 and self.total > self.done
            else float("nan")
        )


def folder() -> Path:
    return splits.processed_folder() / ".errands"


def cli_arguments(arguments: Sequence[str]) -> list[str]:
    """What `python -m core` is told: `table ARGUMENTS` works on a run, all others are `data ARGUMENTS`."""
    return list(arguments) if arguments[:1] == ["table"] else ["data", *arguments]


def start(arguments: Sequence[str]) -> str:
    """Start an errand (`cli_arguments`), unless it is already running; returns its id."""
    key = files.digest("\0".join(arguments).encode(errors="surrogateescape"))[:8]
    name = "-".join([*arguments[:1], key])
    folder().mkdir(parents=True, exist_ok=True)
    path = folder() / f"{name}.json"
    with files.file_lock(
        path.with_suffix(".lock"), "starting this errand", wait=True
    ):  # two tabs, one errand
        known = find(name)
        if known and known.state == "running":
            return name
        end = time.monotonic() + STOP_GRACE_SECONDS
        while known and _is_alive(known) and time.monotonic() < end:
            time.sleep(0.1)  # it has said how it ended, and still holds what the next one needs
        path.with_suffix(".stop").unlink(missing_ok=True)
        files.write_json(
            path, asdict(Task(name, list(arguments), started=time.time(), beat=time.time()))
        )
        with open(path.with_suffix(".out"), "w") as out, open(path.with_suffix(".log"), "w") as err:
            pid = jobs.spawn(
                cli_arguments(arguments), out, err, {TASK_FILE_VARIABLE: str(path.resolve())}
            )
        if (now := _read_task(path)) and not now.pid:  # its process may have written first
            files.write_json(path, asdict(replace(now, pid=pid)))
    return name


def _read_task(path: Path) -> Task | None:
    try:
        return Task(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_alive(errand: Task) -> bool:
    return errand.pid > 0 and jobs.is_ours(errand.pid, cli_arguments(errand.arguments)[0])


def find(name: str) -> Task | None:
    """One errand in the state that it is really in, or None."""
    path = folder() / f"{name}.json"
    errand, asked = _read_task(path), path.with_suffix(".stop").exists()
    if (
        errand
        and errand.state == "running"
        and not _is_alive(errand)
        and (asked or time.time() - errand.beat > 2)
    ):
        errand = _read_task(path) or errand  # it may have ended between the two looks
        if errand.state == "running":
            said = [
                line
                for line in _read_text(path.with_suffix(".log"))[-4000:].splitlines()
                if line.strip()
            ]
            why = "its process ended without saying why" + (
                f" (its last line: {said[-1].strip()[:200]})" if said else ""
            )
            end = (
                {"state": "stopped"}
                if asked
                else {"state": "failed", "message": f"{why}; start it again to continue"}
            )
            errand = replace(errand, **end)  # type: ignore[arg-type]
            files.write_json(path, asdict(errand))
    return (
        replace(errand, phase=STOPPING_PHASE)
        if errand and asked and errand.state == "running"
        else errand
    )


def listing(of: Literal["data", "table"] = "data") -> list[Task]:
    """All errands on data, or on runs' tables, newest first."""
    found = [find(p.stem) for p in folder().glob("*.json") if not p.name.startswith(".")]
    return sorted(
        (e for e in found if e and cli_arguments(e.arguments)[0] == of), key=lambda e: -e.started
    )


def stop(name: str) -> None:
    """Ask an errand to end; what it has done is kept. Asked again after GRACE seconds, it and its children are killed: nothing is lost
    by that either, as the work is on the disk at any moment."""
    errand, mark = find(name), folder() / f"{name}.stop"
    if not errand or errand.state != "running" or not _is_alive(errand):
        return
    late = mark.exists() and time.time() - mark.stat().st_mtime > STOP_GRACE_SECONDS
    if not mark.exists():
        mark.touch()
    with contextlib.suppress(ProcessLookupError):
        if late:
            os.killpg(errand.pid, signal.SIGKILL)  # an errand leads a session of its own
        else:
            os.kill(errand.pid, signal.SIGTERM)


def forget(name: str) -> None:
    """Take an errand that has ended off the list. What it made, or has done so far, stays."""
    errand = find(name)
    if errand and errand.state != "running":
        for ending in (".json", ".out", ".log", ".stop", ".lock"):
            (folder() / f"{name}{ending}").unlink(missing_ok=True)


def output(name: str) -> str:
    """What an errand has printed."""
    return _read_text(folder() / f"{name}.out")


def errors(name: str, most: int = 20_000) -> str:
    """The end of what an errand has written to its log: progress, warnings, errors."""
    return _read_text(folder() / f"{name}.log")[-most:]


def _read_text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


# ------------------------------------------------------------------ said by the process itself


def report_progress(phase: str, done: int, total: int, rate: float) -> None:
    """Progress of this process' errand, if it runs as one."""
    _update_own_task(phase=phase, done=done, total=total, rate=rate)


def report_end(state: Literal["stopped", "failed", "done"], message: str = "") -> None:
    """How this process' errand ended, if it runs as one."""
    _update_own_task(state=state, message=message)


def _update_own_task(**fields) -> None:
    path = os.environ.get(TASK_FILE_VARIABLE)
    errand = _read_task(Path(path)) if path else None
    if path and errand:
        files.write_json(
            Path(path), asdict(replace(errand, pid=os.getpid(), beat=time.time(), **fields))
        )
