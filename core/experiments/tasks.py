"""Background tasks: long work on data or on a run in its own process, watched through a file.

Without torch. Equal arguments are the same task: starting it again continues it, because the work
itself can be resumed. A task's files are `data/processed/.tasks/<id>.json` (state, written by its
process), `.out` (standard output), `.log` (standard error) and, once asked to end, `.stop`.
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
from typing import Any, Literal

from core import files
from core.data import prepared_corpora
from core.experiments import jobs

TASK_FILE_VARIABLE = "DACSSGAN_TASK"  # environment variable: path of the process's task file
STOP_GRACE_SECONDS = 10.0  # seconds for a task to end by itself
STOPPING_PHASE = "stopping"  # phase of a task that was asked to end
START_SECONDS = 2.0  # seconds for a new process to show up before its task counts as failed


@dataclass(frozen=True)
class Task:
    """State of one task.

    >>> Task("prepare-0", ["prepare", "demo"], done=3, total=9, rate=2.0).left
    3.0
    """

    id: str
    arguments: list[str]
    state: Literal["running", "stopped", "failed", "done"] = "running"
    pid: int = 0
    process: str = ""  # identity of the process with this pid
    phase: str = ""
    done: int = 0
    total: int = 0
    rate: float = 0.0  # increase of `done` per second
    message: str = ""  # reason of a failure, or the result
    started: float = 0.0  # seconds since the epoch
    beat: float = 0.0  # last sign of life, seconds since the epoch

    @property
    def left(self) -> float:
        """Seconds until `total` at the present rate; NaN where unknown."""
        known = self.rate > 0 and self.total > self.done
        return (self.total - self.done) / self.rate if known else float("nan")


def folder() -> Path:
    """Folder of the tasks' files."""
    return prepared_corpora.processed_folder() / ".tasks"


def cli_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments of `python -m core`: `table ARGUMENTS` for a run, `data ARGUMENTS` for all others.

    >>> cli_arguments(["doctor", "CREMA-D"])
    ['data', 'doctor', 'CREMA-D']
    """
    return list(arguments) if arguments[:1] == ["table"] else ["data", *arguments]


def start(arguments: Sequence[str]) -> str:
    """Start the task with these `cli_arguments`, unless it is running; returns its id."""
    key = files.digest("\0".join(arguments).encode(errors="surrogateescape"))[:8]
    name = "-".join([*arguments[:1], key])
    folder().mkdir(parents=True, exist_ok=True)
    path = folder() / f"{name}.json"
    # the lock keeps two tabs from starting the same task twice
    with files.file_lock(path.with_suffix(".lock"), "starting this task", wait=True):
        known = find(name)
        if known and known.state == "running":
            return name
        # a process that has reported its end may still hold what the next one needs
        end = time.monotonic() + STOP_GRACE_SECONDS
        while known and is_alive(known) and time.monotonic() < end:
            time.sleep(0.1)
        path.with_suffix(".stop").unlink(missing_ok=True)
        now = time.time()
        files.write_json(path, asdict(Task(name, list(arguments), started=now, beat=now)))
        environment = {TASK_FILE_VARIABLE: str(path.resolve())}
        with open(path.with_suffix(".out"), "w") as out, open(path.with_suffix(".log"), "w") as err:
            pid = jobs.spawn(cli_arguments(arguments), out, err, environment)
        if (task := _read_task(path)) and not task.pid:  # the process itself may have written first
            identity = files.process_identity(pid)
            files.write_json(path, asdict(replace(task, pid=pid, process=identity)))
    return name


def _read_task(path: Path) -> Task | None:
    try:
        return Task(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_alive(task: Task) -> bool:
    return task.pid > 0 and jobs.is_ours(task.pid, task.process)


def find(name: str) -> Task | None:
    """The task in its true state, or None; a task whose process died becomes stopped or failed."""
    path = folder() / f"{name}.json"
    task, is_stopping = _read_task(path), path.with_suffix(".stop").exists()
    if not task or task.state != "running":
        return task
    if not is_alive(task) and (is_stopping or time.time() - task.beat > START_SECONDS):
        task = _read_task(path) or task  # the process may have reported its end since
        if task.state != "running":
            return task
        end: dict[str, Any] = {"state": "stopped"}
        if not is_stopping:
            end = {"state": "failed", "message": _death_message(path.with_suffix(".log"))}
        task = replace(task, **end)
        files.write_json(path, asdict(task))
        return task
    return replace(task, phase=STOPPING_PHASE) if is_stopping else task


def _death_message(log: Path) -> str:
    lines = [line for line in _read_text(log)[-4000:].splitlines() if line.strip()]
    last = f" (its last line: {lines[-1].strip()[:200]})" if lines else ""
    return f"its process ended without a message{last}; start it again to continue"


def listing(of: Literal["data", "table"] = "data") -> list[Task]:
    """All tasks on data, or on runs' tables, newest first."""
    tasks = [find(p.stem) for p in folder().glob("*.json") if not p.name.startswith(".")]
    matching = (t for t in tasks if t and cli_arguments(t.arguments)[0] == of)
    return sorted(matching, key=lambda t: -t.started)


def stop(name: str) -> None:
    """Ask a task to end; a second request after STOP_GRACE_SECONDS kills it and its children.

    Nothing is lost by either: finished work is always on the disk.
    """
    task, mark = find(name), folder() / f"{name}.stop"
    if not task or task.state != "running" or not is_alive(task):
        return
    is_late = mark.exists() and time.time() - mark.stat().st_mtime > STOP_GRACE_SECONDS
    if not mark.exists():
        mark.touch()
    with contextlib.suppress(ProcessLookupError):
        if is_late:
            os.killpg(task.pid, signal.SIGKILL)  # a task leads its own process group
        else:
            os.kill(task.pid, signal.SIGTERM)


def forget(name: str) -> None:
    """Remove the files of a task that has ended; its results stay."""
    task = find(name)
    if task and task.state != "running":
        for ending in (".json", ".out", ".log", ".stop", ".lock"):
            (folder() / f"{name}{ending}").unlink(missing_ok=True)


def output(name: str) -> str:
    """A task's standard output."""
    return _read_text(folder() / f"{name}.out")


def errors(name: str, characters: int = 20_000) -> str:
    """The last `characters` of a task's log: progress, warnings, errors."""
    return _read_text(folder() / f"{name}.log")[-characters:]


def _read_text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


# ------------------------------------------------------------------ inside the task's process


def report_progress(phase: str, done: int, total: int, rate: float) -> None:
    """Write progress into the task's file, if this process is a task."""
    _update_own_task(phase=phase, done=done, total=total, rate=rate)


def report_end(state: Literal["stopped", "failed", "done"], message: str = "") -> None:
    """Write the final state into the task's file, if this process is a task."""
    _update_own_task(state=state, message=message)


def _update_own_task(**fields) -> None:
    path = os.environ.get(TASK_FILE_VARIABLE)
    if path and (task := _read_task(Path(path))):
        pid, process = os.getpid(), files.process_identity(os.getpid())
        now = replace(task, pid=pid, process=process, beat=time.time(), **fields)
        files.write_json(Path(path), asdict(now))
