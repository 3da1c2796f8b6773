"""Training processes: start, pause, stop, resume, reconcile, and their queue. Without torch.

A training outlives the page that started it. Queued runs (`list_queue`) are trained one at a
time by a small queue process, `python -m core.experiments.jobs`, which ends with the queue. If it
was killed, the next page or command that looks at the runs starts it again, so the queue survives
the browser, the server and a reboot.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from core import files
from core.config.serialisation import run_name
from core.config.settings import Config
from core.data import prepared_corpora
from core.runs import store
from core.runs.directory import Run

NICENESS = 10  # of trainings, so that pages stay responsive
MAX_THREADS = 4  # threads of a training; small networks gain nothing beyond
STOP_GRACE_SECONDS = 10.0  # seconds for a training to save its state before it may be killed
QUEUE_POLL_SECONDS = 1.0  # seconds between two looks while a run outside of the queue is training
NEW_RUN_SECONDS = 5.0  # seconds in which a run's process may still be starting
LOG_TAIL_BYTES = 20_000  # bytes of a log's end that are read
ENDING_PHASES = ("stopping", "pausing")  # phases of a training that was asked to end
ERROR_PREFIX = "python -m core train: "  # begins the command line's error message


def start(config: Config, device: str = "auto", folder: Path | None = None) -> str:
    """Queue the training of this config and return its run's id; it begins at once if none runs.

    The same config is the same run. A run that is done, queued or running is left alone; a paused
    one resumes at its place, a stopped or failed one from its checkpoint at the queue's end.
    Raises CorpusError when the corpus is not prepared.
    """
    folder = folder or files.checkpoints_folder()
    run = store.create(
        folder / run_name(config, prepared_corpora.corpus_digest(config.data)), config
    )
    # the lock keeps two tabs from queueing the same training twice
    with files.file_lock(folder / ".starting.lock", "starting a training", wait=True):
        row = _index_row(run)
        if row and (row["state"] == "done" or is_alive(row) or _is_queued(row)):
            return run.id
        enqueue(run, device)
        store.update(run, state="queued", phase="", error="", pid=0)
    start_queue_worker(folder)
    return run.id


def _index_row(run: Run) -> dict | None:
    return next((r for r in store.list_runs(run.directory.parent) if r["run"] == run.id), None)


def _is_queued(row: dict) -> bool:
    return row["state"] == "queued" and row["place"] is not None


def spawn(arguments: list[str], out: IO[str], err: IO[str], environment: dict[str, str]) -> int:
    """Start `python -m core ARGUMENTS` in its own session, at low priority; returns the pid."""
    return spawn_python(["-m", "core", *arguments], out, err, environment).pid


def spawn_python(
    arguments: list[str],
    out: IO[str],
    err: IO[str],
    environment: dict[str, str],
    open_files: tuple[int, ...] = (),
) -> subprocess.Popen:
    """Start Python in its own session, at low priority; it inherits the descriptors given."""
    # all cores: its low priority leaves them to the pages when these need them
    defaults = {"OMP_NUM_THREADS": str(min(MAX_THREADS, os.cpu_count() or 1))}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=files.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
        env=defaults | os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        preexec_fn=None if os.name == "nt" else _lower_priority,
        pass_fds=open_files,
    )


def _lower_priority() -> None:
    os.nice(max(0, NICENESS - os.nice(0)))  # the queue process passes its niceness on already
    # Linux weighs whole sessions by autogroup, and processes within one by nice
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
        group.write(str(NICENESS))


def is_alive(row: dict) -> bool:
    """Whether the process that trains a row's run exists, however long it has been silent.

    A process of another machine, which shares the disk, is judged by its heartbeat.
    """
    if row["state"] not in ("running", "queued") or not row["pid"]:
        return False
    host = (row["process"] or "").partition(" ")[0]
    if host and host != platform.node():
        return time.time() - (row["heartbeat"] or 0) < store.HEARTBEAT_TIMEOUT
    return is_ours(row["pid"], row["process"])


def describe_silence(row: dict) -> str:
    """Why a living training says nothing, in words; "" if it does, or is not at work."""
    if row["state"] != "running" or not is_alive(row):
        return ""
    if files.is_suspended(row["pid"]):
        return f"suspended: its process was halted, and goes on with: kill -CONT {row['pid']}"
    seconds = time.time() - (row["heartbeat"] or row["created"])
    if seconds < store.HEARTBEAT_TIMEOUT:
        return ""
    return f"no sign for {seconds / 60:.0f} min, but its process is alive: a slow step, or a pause"


def is_ours(pid: int, process: str) -> bool:
    """Whether a pid still belongs to the process whose identity was recorded with it."""
    return bool(process) and files.process_identity(pid) == process


def stop(run_id: str, folder: Path | None = None, wait: float = 0.0) -> bool:
    """Ask a training to save its state and end, or take it out of the queue.

    Returns whether it has ended within `wait` seconds.
    """
    folder = folder or files.checkpoints_folder()
    dequeue(Run(folder / run_id))
    return _request_end(run_id, "stopping", folder, wait)


def pause(run_id: str, folder: Path | None = None, wait: float = 0.0) -> bool:
    """Stop a training but keep its place in the queue.

    The runs behind it wait until it is resumed, stopped or moved.
    """
    folder = folder or files.checkpoints_folder()
    row = _index_row(Run(folder / run_id))
    if row and row["place"] is None and is_alive(row):
        enqueue(Run(folder / run_id), first=True)  # it was started outside of the queue
    return _request_end(run_id, "pausing", folder, wait)


def _request_end(run_id: str, phase: str, folder: Path, wait: float) -> bool:
    run = Run(folder / run_id)
    row = _index_row(run)
    if row and row["state"] == "queued" and not row["pid"]:
        store.update(run, state="stopped", phase="")
        return True
    if not row or not _has_process(row):
        reconcile(folder)
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(row["pid"], signal.SIGTERM)
    store.update(run, phase=phase)
    end = time.monotonic() + wait
    while time.monotonic() < end:
        if not is_ours(row["pid"], row["process"]):
            reconcile(folder)
            return True
        time.sleep(0.1)
    return False


def _has_process(row: dict) -> bool:
    active = row["state"] in ("running", "queued") and row["pid"]
    return bool(active) and is_ours(row["pid"], row["process"])


def is_overdue(row: dict) -> bool:
    """Whether a training has not ended STOP_GRACE_SECONDS after the request, and may be killed."""
    is_ending = row["state"] == "running" and row["phase"] in ENDING_PHASES
    return is_ending and time.time() - (row["heartbeat"] or 0) > STOP_GRACE_SECONDS


def kill(run_id: str, folder: Path | None = None) -> None:
    """Kill an overdue training. Resuming it repeats the steps since its last checkpoint."""
    folder = folder or files.checkpoints_folder()
    row = _index_row(Run(folder / run_id))
    if row and is_overdue(row) and is_ours(row["pid"], row["process"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(row["pid"], signal.SIGKILL)


def resume(run_id: str, device: str = "auto", folder: Path | None = None) -> str:
    """Queue a paused, stopped or failed run, which continues from its checkpoint."""
    folder = folder or files.checkpoints_folder()
    return start(Run(folder / run_id).config, device, folder)


def reconcile(folder: Path | None = None) -> list[str]:
    """Correct the state of runs whose process has died; returns their ids.

    Cheap: call it before showing a list of runs.
    """
    folder, changed = folder or files.checkpoints_folder(), []
    for row in store.list_runs(folder):
        run = Run(folder / row["run"])
        if row["state"] in ("running", "queued") and not is_alive(row):
            age = time.time() - (row["heartbeat"] or row["created"])
            is_starting = row["state"] == "queued" and not row["pid"] and age < NEW_RUN_SECONDS
            is_in_queue = _is_queued(row) and not row["pid"]
            if is_starting or is_in_queue:
                continue
            _record_end(run, row)
            changed.append(row["run"])
        elif row["state"] in ("done", "failed") and row["place"] is not None:
            dequeue(run)
    return changed


def _record_end(run: Run, row: dict, code: int = 0) -> None:
    """Record the end of a run whose process died without doing so; `code` is its exit status."""
    was_asked = row["phase"] in ENDING_PHASES
    if not was_asked:
        dequeue(run)  # the next run's turn
    can_resume = was_asked or (run.directory / "state.pt").exists()
    error = "" if was_asked else _failure_reason(run, code)
    store.update(run, state="stopped" if can_resume else "failed", error=error)


def _failure_reason(run: Run, code: int) -> str:
    last_line = log_tail(run.id, 1, run.directory.parent).strip()
    if last_line.startswith(ERROR_PREFIX):
        return last_line.removeprefix(ERROR_PREFIX)
    if code == -signal.SIGKILL:
        return (
            "the system killed the training process, as it does when memory runs out. Choose a "
            "smaller batch, or close other programs; then resume it."
        )
    return "the training process ended without a message; see the log's last lines. Resume it."


# ------------------------------------------------------------------ the queue


@contextmanager
def _queue_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """The index, which alone holds the queue. Raises UserError where it cannot be used."""
    try:
        with store.database(folder) as db:
            yield db
    except sqlite3.Error as e:
        raise files.UserError(
            store.index_fault(folder) or f"{files.shown(folder / 'runs.sqlite')}: {e}"
        ) from e


def list_queue(folder: Path | None = None) -> list[dict]:
    """The rows of `list_runs` that are in the queue, in its order: running, paused or waiting."""
    queued = (r for r in store.list_runs(folder) if r["place"] is not None)
    return sorted(queued, key=lambda r: r["place"])


def enqueue(run: Run, device: str = "auto", first: bool = False) -> None:
    """Put a run at the end of the queue, or at its front; a queued run keeps its place.

    The run's device is set in either case.
    """
    place = "coalesce(min(place), 0) - 1" if first else "coalesce(max(place), 0) + 1"
    query = (
        f"INSERT INTO queue (run, place, device) VALUES (?, (SELECT {place} FROM queue), ?) "
        "ON CONFLICT(run) DO UPDATE SET device=excluded.device"
    )
    with _queue_database(run.directory.parent) as db:
        db.execute(query, (run.id, device))


def dequeue(run: Run) -> None:
    """Remove a run from the queue, if it is there; a damaged index holds no queue."""
    with contextlib.suppress(files.UserError), _queue_database(run.directory.parent) as db:
        db.execute("DELETE FROM queue WHERE run=?", (run.id,))


def swap_places(a: Run, b: Run) -> None:
    """Swap the places of two runs of the queue."""
    query = "SELECT run, place FROM queue WHERE run IN (?, ?)"
    with _queue_database(a.directory.parent) as db:
        places = dict(db.execute(query, (a.id, b.id)).fetchall())
        if len(places) == 2:
            swapped = [(places[b.id], a.id), (places[a.id], b.id)]
            db.executemany("UPDATE queue SET place=? WHERE run=?", swapped)


# ------------------------------------------------------------------ the queue process


def start_queue_worker(folder: Path | None = None) -> bool:
    """Start the queue process if a run waits and none is running; returns whether it was started.

    Cheap: call it beside `reconcile`. The process inherits `queue.lock` locked and holds it for
    life, so there is never a second one.
    """
    folder = folder or files.checkpoints_folder()
    if not next_in_queue(folder) or not (lock := take_queue_lock(folder)):
        return False
    command = ["-m", "core.experiments.jobs", str(lock.fileno())]
    environment = {"DACSSGAN_CHECKPOINTS": str(folder.resolve())}
    with lock, open(folder / "queue.log", "w") as log:
        spawn_python(command, log, log, environment, (lock.fileno(),))
    return True


def take_queue_lock(folder: Path) -> IO[str] | None:
    """The queue process's lock, or None if another process holds it."""
    import fcntl  # Unix alone; Windows can still read runs

    lock = open(folder / "queue.lock", "a+")  # noqa: SIM115  (its owner closes it)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def next_in_queue(folder: Path) -> dict | None:
    """Row of the next run to train; None if none waits, or a paused one is first."""
    waiting = [r for r in list_queue(folder) if is_waiting(r)]
    return waiting[0] if waiting and waiting[0]["state"] == "queued" else None


def is_waiting(row: dict) -> bool:
    """Whether a run is in the queue and has no process: it waits or is paused."""
    is_paused = row["place"] is not None and row["state"] == "paused"
    return is_paused or (_is_queued(row) and not row["pid"])


def move(run_id: str, by: int, folder: Path | None = None) -> None:
    """Swap a waiting or paused run with the waiting run before (by = -1) or after (1) it."""
    folder = folder or files.checkpoints_folder()
    line = [r["run"] for r in list_queue(folder) if is_waiting(r)]
    if run_id in line and 0 <= (other := line.index(run_id) + by) < len(line):
        swap_places(Run(folder / run_id), Run(folder / line[other]))
        start_queue_worker(folder)


def run_queue(folder: Path) -> None:
    """Train the queued runs one at a time, until none waits or a paused one is first."""
    while row := next_in_queue(folder):
        reconcile(folder)
        if any(is_alive(r) for r in store.list_runs(folder)):
            time.sleep(QUEUE_POLL_SECONDS)  # a run outside of the queue is training
            continue
        run = Run(folder / row["run"])
        try:
            _train_run(run, row["device"])
        except OSError as e:  # such as a full disk or process table
            dequeue(run)
            error = f"its training process could not be started: {e}"
            store.update(run, state="failed", error=error)
        reconcile(folder)


def _train_run(run: Run, device: str) -> None:
    """Train a run in its own process and wait for its end."""
    config = str(run.directory / "config.json")
    command = ["-m", "core", "train", "--config-file", config, "--device", device]
    environment = {"DACSSGAN_CHECKPOINTS": str(run.directory.parent.resolve())}
    store.update(run, phase="starting")
    with open(run.directory / "log.txt", "a") as log:
        child = spawn_python(command, log, log, environment)
    store.update(run, pid=child.pid)
    if (row := _index_row(run)) and row["place"] is None:
        child.terminate()  # it was taken out of the queue while it started
    code = child.wait()
    if (row := _index_row(run)) and row["state"] in ("queued", "running"):
        _record_end(run, row, code)


def log_tail(run_id: str, lines: int = 40, folder: Path | None = None) -> str:
    """The last lines of a run's log."""
    path = (folder or files.checkpoints_folder()) / run_id / "log.txt"
    if not path.exists():
        return ""
    with open(path, "rb") as f:
        f.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
        return "\n".join(f.read().decode(errors="replace").splitlines()[-lines:])


def gpus() -> list[str]:
    """NVIDIA GPUs as "name, memory", from nvidia-smi, so that pages need no torch; [] if none."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        out = subprocess.run(query, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = out.stdout.splitlines() if out.returncode == 0 else []
    return [line.strip() for line in lines if line.strip()]


if __name__ == "__main__":  # started by `start_queue_worker` with the lock's file descriptor
    with os.fdopen(int(sys.argv[1])):
        run_queue(files.checkpoints_folder())
    start_queue_worker()  # a run may have been queued just before the lock was released
