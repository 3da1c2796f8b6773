"""Kills of what stands around a training: the queue, a sweep's worker, the server.

A worker of a Ray cluster trains in the same process as a sweep's; with Ray itself, on two nodes:
`make test-cluster`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from benchmarks import browser
from core import files
from core.config.settings import Config, replace
from core.evaluation.protocol import Cell
from core.experiments import jobs
from core.experiments.sweeping import sweep
from core.runs import store
from core.runs.directory import Run
from tests.support import visitors
from ui.session.cache import UPLOAD_FOLDER_PREFIX

MAX_WAIT = 1_800.0  # seconds for a training to end, also on a busy machine
LATEST_KILL = 12.0  # seconds after a start


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _own(words: str) -> list[int]:
    """The pids of this process's children whose command line holds the words."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            stat = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            is_child = int(stat[1]) == os.getpid() and stat[0] != "Z"
            if is_child and words in Path(f"/proc/{name}/cmdline").read_text().replace("\0", " "):
                found.append(int(name))
    return found


def kill_queues(
    config: Config, count: int, home: Path, compare: Callable[[Path], list[str]]
) -> list[str]:
    """Kill the queue process, its training or both; the next start of the queue ends the run.

    The corpus lies in `home`/data; `compare(home)` says how the finished run is not as it should.
    """
    failures, rng = [], random.Random(count)
    environment = {"DACSSGAN_CHECKPOINTS": str(home / "checkpoints")}
    environment |= {"DACSSGAN_DATA": str(home / "data"), "OMP_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, environment):
        run_id = jobs.start(config, "cpu")
        for _ in range(count):
            time.sleep(rng.uniform(0.1, LATEST_KILL))
            whom = rng.choice(("queue", "training", "both"))
            if whom != "training":
                for pid in _own("core.experiments.jobs"):
                    _kill(pid)
            row = next(r for r in store.list_runs() if r["run"] == run_id)
            if whom != "queue" and row["pid"]:
                _kill(row["pid"])
            time.sleep(0.2)
            jobs.reconcile()
            jobs.resume(run_id, "cpu")  # leaves alone what is done, waits or trains
            jobs.start_queue_worker()
        end = time.monotonic() + MAX_WAIT
        while (row := store.list_runs()[0])["state"] != "done" and time.monotonic() < end:
            if jobs.reconcile() or row["state"] in ("failed", "stopped"):
                jobs.resume(run_id, "cpu")
            jobs.start_queue_worker()
            time.sleep(0.5)
        if row["state"] != "done":
            failures.append(f"{run_id}: {row['state']}, {row['error']}")
            for pid in filter(None, (*_own("core.experiments.jobs"), row["pid"])):
                _kill(pid)  # nothing is left behind
        jobs.reconcile()  # a killed queue process leaves the place of a finished run to this
        failures += [f"{run_id} is still queued"] * bool(jobs.list_queue())
    return failures + (compare(home) if not failures else [])


def kill_workers(config: Config, count: int, home: Path) -> list[str]:
    """Kill a sweep's worker at random moments; the other run ends, and the same sweep resumes."""
    failures, rng = [], random.Random(count)
    cells = [Cell(f"seed {s}", "–", replace(config, seed=s)) for s in (0, 1)]
    folder, stop = home / "checkpoints", threading.Event()
    killed = 0

    def kill() -> None:
        nonlocal killed
        while not stop.wait(rng.uniform(1, LATEST_KILL)):
            for pid in _own("core.experiments.sweeping.sweep")[: count - killed]:
                _kill(pid)
                killed += 1

    environment = {"DACSSGAN_DATA": str(home / "data"), "OMP_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, environment):
        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        for _ in range(count + 1):
            outcomes = sweep.train_cells(cells, folder, 2, "cpu")
            if all(o.state in ("done", "was done") for o in outcomes):
                if killed >= count:
                    break
                for o in outcomes:  # to be killed again on its way
                    (Run(folder / o.run).directory / "results.json").unlink()
                    Run(folder / o.run).model_path("G").unlink()
            failures += [
                f"{o.run}: {o.reason}"
                for o in outcomes
                if o.state == "failed" and "SIGKILL" not in o.reason
            ]
        stop.set()
        killer.join()
        last = sweep.train_cells(cells, folder, 2, "cpu")
    failures += [f"{o.run}: {o.state}" for o in last if o.state not in ("done", "was done")]
    return failures + [f"half: {p.name}" for p in folder.rglob(".*.tmp")]


def kill_servers(count: int, home: Path) -> list[str]:
    """Kill a server while a visitor's clip is read; the next one has every page and no old file."""
    failures, rng = [], random.Random(count)
    data = visitors.film(home, 3.0)
    environment = {"DACSSGAN_CHECKPOINTS": str(home / "checkpoints")}
    environment |= {"DACSSGAN_DATA": str(home / "data"), "TMPDIR": str(home)}
    for k in range(count + 1):
        with browser.studio_server(home / f"server-{k}.txt", environment) as server:
            left = list(home.glob(f"{UPLOAD_FOLDER_PREFIX}*"))
            try:
                with visitors.visit(server.address) as one:
                    failures += [f"start {k}: {e}" for e in one.exceptions]
                    left = list(home.glob(f"{UPLOAD_FOLDER_PREFIX}*"))
                    if k < count:
                        killer = threading.Timer(rng.uniform(0, 3), _kill, [server.pid])
                        killer.start()
                        with contextlib.suppress(Exception):  # the server has gone
                            one.upload("film.mp4", data)
                        killer.join()
            except OSError as e:
                failures.append(f"start {k}: {e}")
            failures += [f"start {k}: {p.name} is left" for p in left]
    with mock.patch.dict(os.environ, environment):
        failures += [files.printable(f)] if (f := store.index_fault()) else []
    return failures
