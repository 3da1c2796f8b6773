"""Training processes: start, pause, stop, resume, reconcile, and the queue. No torch.

A training runs by itself and outlives the page that asked for it. Those that were asked for stand in a queue (`runs.queue`), which one
small process of this machine works, a run after the other: `python -m core.experiments.jobs`. It ends with the queue, and whoever looks at the runs
next starts it again if it was killed, so the queue outlives the browser, the server and the machine's sleep.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from core import files, runs
from core.config import Config, run_name
from core.data import splits
from core.runs import Run

NICENESS = 10  # a training gives way to the pages
STOP_GRACE_SECONDS = (
    10.0  # seconds that a training has to save its state and end, before it may be killed
)
QUEUE_POLL_SECONDS = 1.0  # seconds between two looks of the queue's worker while a training that it did not start has the machine
ENDING_PHASES = ("stopping", "pausing")  # phases of a training that was asked to end


def start(config: Config, device: str = "auto", folder: Path | None = None) -> str:
    """Put this config into the queue of trainings and return its run's id; it begins at once where nothing else trains.

    The same config is the same run: one that is done, waits or runs is left alone, a paused one goes on at its place, a stopped or failed
    one from its checkpoint at the queue's end. Raises CorpusError when the corpus is not prepared.
    """
    folder = folder or files.checkpoints_folder()
    run = runs.create(folder / run_name(config, splits.corpus_digest(config.data)), config)
    with files.file_lock(
        folder / ".starting.lock", "starting a training", wait=True
    ):  # two tabs, one training
        row = _index_row(run)
        if row and (
            row["state"] == "done"
            or is_alive(row)
            or (row["state"] == "queued" and row["place"] is not None)
        ):
            return run.id
        runs.enqueue(run, device)
        runs.update(run, state="queued", phase="", error="", pid=0)
    start_queue_worker(folder)
    return run.id


def _index_row(run: Run) -> dict | None:
    return next((r for r in runs.list_runs(run.directory.parent) if r["run"] == run.id), None)


def spawn(arguments: list[str], out: IO[str], err: IO[str], environment: dict[str, str]) -> int:
    """Start `python -m core ARGUMENTS` in a session of its own, at low priority; returns its process id."""
    return _spawn_python(["-m", "core", *arguments], out, err, environment).pid


def _spawn_python(
    command: list[str],
    out: IO[str],
    err: IO[str],
    environment: dict[str, str],
    keep: tuple[int, ...] = (),
) -> subprocess.Popen:
    """Python with `command`, in a session of its own, at low priority; it inherits the files `keep` besides its output."""
    threads = str(
        max(1, min(4, (os.cpu_count() or 2) - 1))
    )  # one core stays with the pages; small networks gain nothing beyond four
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=files.ROOT,
        stdout=out,
        stderr=err,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={"OMP_NUM_THREADS": threads} | os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        preexec_fn=None if os.name == "nt" else _lower_priority,
        pass_fds=keep,
    )


def _lower_priority() -> None:
    os.nice(
        max(0, NICENESS - os.nice(0))
    )  # the queue's worker gives way already, and its trainings no more than it
    with (
        contextlib.suppress(OSError),
        open("/proc/self/autogroup", "w") as group,
    ):  # Linux weighs sessions by this, and nice within one
        group.write(str(NICENESS))


def is_alive(row: dict) -> bool:
    """Whether the process of a run's row is there and beats its heart (a queued one has 60 s to begin)."""
    if row["state"] not in ("running", "queued") or not row["pid"]:
        return False
    fresh = time.time() - (row["heartbeat"] or 0) < runs.HEARTBEAT_TIMEOUT
    return fresh and is_ours(row["pid"], "train")


def is_ours(pid: int, command: str) -> bool:
    """Whether a pid is this project's, doing `command` (pids are used again by other programs)."""
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)  # a child that ended is a zombie until asked for
    found = subprocess.run(
        ["ps", "-ww", "-p", str(pid), "-o", "args="], capture_output=True, text=True
    )  # whole, whatever COLUMNS says
    return "core" in found.stdout and command in found.stdout


def stop(run_id: str, folder: Path | None = None, wait: float = 0.0) -> bool:
    """Ask a training to save its state and end, or take it out of the queue. True when it has ended within `wait` s (0: only asked)."""
    folder = folder or files.checkpoints_folder()
    runs.dequeue(Run(folder / run_id))
    return _request_end(run_id, "stopping", folder, wait)


def pause(run_id: str, folder: Path | None = None, wait: float = 0.0) -> bool:
    """As `stop`, but the run keeps its place in the queue, and those behind it wait until it is resumed, stopped or moved."""
    folder = folder or files.checkpoints_folder()
    row = _index_row(Run(folder / run_id))
    if row and row["place"] is None and is_alive(row):
        runs.enqueue(Run(folder / run_id), first=True)  # started by hand
    return _request_end(run_id, "pausing", folder, wait)


def _request_end(run_id: str, phase: str, folder: Path, wait: float) -> bool:
    run = Run(folder / run_id)
    row = _index_row(run)
    if row and row["state"] == "queued" and not row["pid"]:
        runs.update(run, state="stopped", phase="")
        return True
    if (
        not row
        or row["state"] not in ("running", "queued")
        or not row["pid"]
        or not is_ours(row["pid"], "train")
    ):
        reconcile(folder)
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(row["pid"], signal.SIGTERM)
    runs.update(run, phase=phase)
    end = time.monotonic() + wait
    while time.monotonic() < end:
        if not is_ours(row["pid"], "train"):
            reconcile(folder)
            return True
        time.sleep(0.1)
    return False


def is_overdue(row: dict) -> bool:
    """Whether a training that was asked to end has not done so within GRACE seconds, and may be killed."""
    return (
        row["state"] == "running"
        and row["phase"] in ENDING_PHASES
        and time.time() - (row["heartbeat"] or 0) > STOP_GRACE_SECONDS
    )


def kill(run_id: str, folder: Path | None = None) -> None:
    """End a training that does not listen. It goes on from its last checkpoint; steps after that are trained again."""
    folder = folder or files.checkpoints_folder()
    row = _index_row(Run(folder / run_id))
    if row and is_overdue(row) and is_ours(row["pid"], "train"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(row["pid"], signal.SIGKILL)


def resume(run_id: str, device: str = "auto", folder: Path | None = None) -> str:
    """Continue a paused, stopped or failed run from its checkpoint, when its turn comes."""
    folder = folder or files.checkpoints_folder()
    return start(Run(folder / run_id).config, device, folder)


def reconcile(folder: Path | None = None) -> list[str]:
    """Give runs whose process is gone the state they are really in; returns their ids. Cheap: call it before showing a list."""
    folder, changed = folder or files.checkpoints_folder(), []
    for row in runs.list_runs(folder):
        run = Run(folder / row["run"])
        if row["state"] in ("running", "queued") and not is_alive(row):
            new = time.time() - (row["heartbeat"] or row["created"]) < 5
            if row["state"] == "queued" and not row["pid"] and (new or row["place"] is not None):
                continue  # its process is just being started, or it waits
            _record_end(run, row)
            changed.append(row["run"])
        elif row["state"] in ("done", "failed") and row["place"] is not None:
            runs.dequeue(run)
    return changed


def _record_end(run: Run, row: dict, code: int = 0) -> None:
    """Write down that a run's process is gone, with the exit `code` where that is known, though the run did not say how it ended."""
    asked = row["phase"] in ENDING_PHASES  # it was asked to end before it listened for that
    if not asked:
        runs.dequeue(run)  # the next one's turn
    kept = asked or (run.directory / "state.pt").exists()
    runs.update(
        run,
        state="stopped" if kept else "failed",
        error="" if asked else _failure_reason(run, code),
    )


def _failure_reason(run: Run, code: int) -> str:
    said = log_tail(run.id, 1, run.directory.parent).strip()
    if said.startswith(ERROR_PREFIX):  # an expected failure, in one line that says what to do
        return said.removeprefix(ERROR_PREFIX)
    if code == -signal.SIGKILL:
        return (
            "the system killed the training process, as it does when memory runs out. Choose a smaller batch, or close other programs; "
            "then resume it."
        )
    return "the training process ended without saying why; the log's last lines may tell. It can be resumed."


ERROR_PREFIX = "python -m core train: "  # how the command line begins the line in which it says why it could not do its work


# ------------------------------------------------------------------ the queue's worker


def start_queue_worker(folder: Path | None = None) -> bool:
    """Start the queue's worker if a run waits and nobody works the queue; True if it was. Cheap: call it beside `reconcile`.

    The worker holds the lock on `queue.lock` for as long as it lives: it is handed over to it locked, so there is never a second one.
    """
    folder = folder or files.checkpoints_folder()
    if not _next_in_queue(folder) or not (lock := _take_queue_lock(folder)):
        return False
    with lock, open(folder / "queue.log", "w") as log:
        _spawn_python(
            ["-m", "core.experiments.jobs", str(lock.fileno())],
            log,
            log,
            {"DACSSGAN_CHECKPOINTS": str(folder.resolve())},
            (lock.fileno(),),
        )
    return True


def _take_queue_lock(folder: Path) -> IO[str] | None:
    """The lock of the queue's worker, or None where somebody has it."""
    import fcntl  # of Unix; runs are read without it

    lock = open(folder / "queue.lock", "a+")  # noqa: SIM115  (it is handed on)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _next_in_queue(folder: Path) -> dict | None:
    """The row of the run whose turn comes next; None where none waits, or a paused one is before it."""
    line = [r for r in runs.list_queue(folder) if is_waiting(r)]
    return line[0] if line and line[0]["state"] == "queued" else None


def is_waiting(row: dict) -> bool:
    """Whether a run is in the queue and no process trains it: its turn has not come, or it is paused."""
    return row["place"] is not None and (
        row["state"] == "paused" or (row["state"] == "queued" and not row["pid"])
    )


def move(run_id: str, by: int, folder: Path | None = None) -> None:
    """Move a waiting or paused run up (-1) or down (1) in the queue, past the next one that does not run."""
    folder = folder or files.checkpoints_folder()
    line = [r["run"] for r in runs.list_queue(folder) if is_waiting(r)]
    if run_id in line and 0 <= (other := line.index(run_id) + by) < len(line):
        runs.swap_places(Run(folder / run_id), Run(folder / line[other]))
        start_queue_worker(folder)


def run_queue(folder: Path) -> None:
    """Train what is in the queue, one run after the other, until none waits or a paused one holds the rest."""
    while row := _next_in_queue(folder):
        reconcile(folder)
        if any(is_alive(r) for r in runs.list_runs(folder)):
            time.sleep(
                QUEUE_POLL_SECONDS
            )  # a training started by hand or by a sweep has the machine
            continue
        run = Run(folder / row["run"])
        try:
            _train_run(run, row["device"])
        except OSError as e:  # no process, no disk
            runs.dequeue(run)
            runs.update(
                run, state="failed", error=f"its training process could not be started: {e}"
            )
        reconcile(folder)


def _train_run(run: Run, device: str) -> None:
    """Train a run in a process of its own and wait for its end."""
    command = [
        "-m",
        "core",
        "train",
        "--config-file",
        str(run.directory / "config.json"),
        "--device",
        device,
    ]
    runs.update(run, phase="starting")
    with open(run.directory / "log.txt", "a") as log:
        child = _spawn_python(
            command, log, log, {"DACSSGAN_CHECKPOINTS": str(run.directory.parent.resolve())}
        )
    runs.update(run, pid=child.pid)
    if (row := _index_row(run)) and row["place"] is None:
        child.terminate()  # it was taken out of the queue at this moment
    code = child.wait()
    if (row := _index_row(run)) and row["state"] in ("queued", "running"):
        _record_end(run, row, code)


def log_tail(run_id: str, lines: int = 40, folder: Path | None = None) -> str:
    """The end of a run's log."""
    path = (folder or files.checkpoints_folder()) / run_id / "log.txt"
    if not path.exists():
        return ""
    with open(path, "rb") as f:
        f.seek(max(0, path.stat().st_size - 20_000))
        return "\n".join(f.read().decode(errors="replace").splitlines()[-lines:])


def gpus() -> list[str]:
    """NVIDIA cards as "name, memory", from the driver's own tool; [] without one. (torch is not asked: pages do not load it.)"""
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        out = subprocess.run(query, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return (
        [line.strip() for line in out.stdout.splitlines() if line.strip()]
        if out.returncode == 0
        else []
    )


if __name__ == "__main__":  # as `attend` starts it: the argument is the lock's file
    with os.fdopen(int(sys.argv[1])):
        run_queue(files.checkpoints_folder())
    start_queue_worker()  # one may have come between the last look and the lock's end
