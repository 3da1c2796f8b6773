"""A sweep's cells on the machines of a Ray cluster that have no disk in common. No torch, but in `train_on_cluster`.

The sweep's own process is the driver: it alone writes the runs' folder and its index. On each processor (or card) of a machine there is a
`seat.Seat`. The driver asks each of them every few seconds how far it is and takes over the records, and every few minutes its checkpoint
with the files beside it. When a machine is lost, its cell goes on elsewhere from the last checkpoint that the driver has. Classifiers that
several runs share are fitted once, so that machines of different kinds still have one scorer.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import files, runs
from core.data import splits
from core.evaluation.protocol import Cell
from core.experiments import jobs, ray_cluster, ray_worker
from core.experiments import sweep as sweeping
from core.experiments.sweep import Outcome, PendingRuns
from core.runs import Run

if TYPE_CHECKING:
    from core.evaluation.augmentation import TableSettings

POLL_SECONDS = 3.0  # seconds between two looks at a seat; well below runs.HEARTBEAT
WORKER_TIMEOUT = (
    600.0  # seconds that a seat may take to answer, files and all, before it counts as lost
)
MAX_LOST_MACHINES = 3  # machines that may be lost under one run with no checkpoint between them: perhaps it is the run that does it
PLACEHOLDER_CODE = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *a: print('asked', flush=True))\nsys.stdin.read()"


def print_warning(text: str) -> None:
    """A line for people, beside those of the outcomes."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class SharedState:
    """What the driver's threads, one for each seat, share. `change` guards todo, fitting, lost, waiting, refused."""

    ray: Any
    folder: Path
    device: str
    plan: TableSettings | None
    add: Callable[[Outcome], None]
    stop: threading.Event
    every: float
    warn: Callable[[str], None]
    classifiers: dict[str, dict[str, str]]  # run -> f_S, f_T, Q, scorer -> file in .cache
    todo: PendingRuns
    corpora: dict[str, tuple[str, Any]] = field(default_factory=dict)
    fitting: dict[str, set[str]] = field(
        default_factory=dict
    )  # run in hand -> classifiers that come of it
    lost_machines: dict[str, int] = field(
        default_factory=dict
    )  # run -> machines lost since its last checkpoint
    placeholders: dict[str, PlaceholderProcess] = field(
        default_factory=dict
    )  # run begun and given back
    refusals: dict[str, str] = field(
        default_factory=dict
    )  # machine (its NodeID) -> why it has no seats; "": it may have
    change: threading.Condition = field(default_factory=threading.Condition)

    def left(self) -> int:
        """Runs that are not through."""
        with self.change:
            return len(self.todo) + len(self.fitting)

    def next_cell(self) -> tuple[Cell, str] | None:
        """The next cell none of whose missing classifiers is just being fitted; waits for one, None when there will be none."""
        with self.change:
            while not self.stop.is_set() and (self.todo or self.fitting):
                for one in self.todo:
                    missing = self._missing(one[1])
                    if not any(missing & theirs for theirs in self.fitting.values()):
                        self.todo.remove(one)
                        self.fitting[one[1]] = missing
                        return one
                self.change.wait(1)
        return None

    def _missing(self, run: str) -> set[str]:
        files = self.classifiers[run]
        if all(Run(self.folder / run).model_path(n).exists() for n in files):
            return set()
        return {f for f in files.values() if not (self.folder / ".cache" / f).exists()}

    def corpora_of(self, cell: Cell) -> dict[str, tuple[str, Any]]:
        """The prepared files of a cell: name -> (SHA-256, reference to the bytes in Ray's store, from where each machine has them once)."""
        d, out = cell.config.data, {}
        with self.change:
            for corpus in dict.fromkeys(filter(None, (d.faces, d.voices, d.f_s_corpus))):
                path = splits.corpus_path(corpus, d.demo_takes)
                if path.name not in self.corpora:
                    content = path.read_bytes()
                    self.corpora[path.name] = files.digest(content), self.ray.put(content)
                out[path.name] = self.corpora[path.name]
        return out

    def keep(self, run: Run, news: dict) -> None:
        """Write what a seat sent: records first, then files, in the order in which one tells that the other is complete."""
        void, records = news["records"]
        if void is not None:
            runs.drop_metrics_after(run, void)
        for r in records:
            runs.record_metrics(run, r["step"], {k: v for k, v in r.items() if k != "step"})
        for name in sorted(news["files"], key=ray_worker.write_rank):
            if name not in ray_worker.DRIVER_FILES:
                ray_worker.write_run_file(run.directory, name, news["files"][name])
        for name, data in news["shared"].items():
            if not (self.folder / ".cache" / name).exists():
                ray_worker.write_run_file(self.folder / ".cache", name, data)
        if news["said"]:
            with open(self.folder / ".cache" / "sweep.log", "ab") as log:
                log.write(news["said"])
        with self.change:
            if news["files"]:
                self.lost_machines.pop(run.id, None)
            self.fitting[run.id] -= set(news["shared"])
            self.change.notify_all()

    def finish_run(self, outcome: Outcome) -> None:
        """A run has come to its end, whichever."""
        with self.change:
            self.fitting.pop(outcome.run, None)
            self.change.notify_all()
        self.add(outcome)


class PlaceholderProcess:
    """A process of this machine for a training on another: pages find it alive, and who stops it stops the training."""

    def __init__(self, run: str) -> None:
        command = [sys.executable, "-I", "-S", "-c", PLACEHOLDER_CODE, "core", "train", run]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.pid = self.process.pid

    def asked(self) -> bool:
        """Whether somebody asked it to end, or ended it."""
        assert self.process.stdout
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def close(self) -> None:
        self.process.communicate()


def train_on_cluster(
    todo: PendingRuns,
    folder: Path,
    device: str,
    plan: TableSettings | None,
    add: Callable[[Outcome], None],
    stop: threading.Event,
    workers: int | None = None,
    address: str | None = None,
    every: float = 180.0,
    say: Callable[[str], None] = print_warning,
) -> None:
    """Train `todo` on the Ray cluster at `address`, or on one of this machine; `add(outcome)` after each. For `sweep.train_cells`.

    `workers` runs at once at most; if it is None, as many as a machine has processors, or cards where there are some and `device` is not
    cpu. A run's checkpoint comes here at most every `every` seconds. `say` is told of machines that are left out or lost; they may come
    and go. Raises CorpusError where Ray is not installed or there is no cluster.
    """
    from core.experiments import pipeline

    digests: dict[tuple, str] = {}
    classifiers = {}
    for cell, run in todo:
        d = cell.config.data
        key = (d.faces, d.voices, d.f_s_corpus, d.demo_takes)
        digests[key] = digests.get(key) or splits.corpus_digest(d)
        classifiers[run] = pipeline.classifier_files(cell.config, digests[key])
    with ray_cluster.ray_connection(workers or 0, address) as ray:
        desk = SharedState(
            ray, folder, device, plan, add, stop, every, say, classifiers, list(todo)
        )
        needs: tuple = (
            {},
            ray_cluster.code_digest(),
            ray_cluster.package_versions("torch", "numpy"),
        )
        threads: dict[threading.Thread, str] = {}
        alone, beaten = time.monotonic(), 0.0
        while desk.left() and not (stop.is_set() and not desk.fitting):
            threads = {t: node for t, node in threads.items() if t.is_alive()}
            nodes = [] if stop.is_set() else ray_cluster.machines(ray)
            for node, fault in ray_cluster.check_machines(
                ray, [n for n in nodes if n["NodeID"] not in desk.refusals], *needs
            ).items():
                _refuse_machine(
                    desk,
                    node,
                    next(ray_cluster.machine_name(n) for n in nodes if n["NodeID"] == node),
                    fault,
                )
            for n in nodes:
                count, cards = _run_slots(n, device)
                while (
                    not desk.refusals.get(n["NodeID"])
                    and sum(node == n["NodeID"] for node in threads.values()) < count
                    and len(threads) < min(workers or sys.maxsize, desk.left())
                ):
                    thread = threading.Thread(
                        target=_drive_worker,
                        args=(desk, n["NodeID"], ray_cluster.machine_name(n), cards),
                        daemon=True,
                    )
                    threads[thread] = n["NodeID"]
                    thread.start()
            now = time.monotonic()
            if threads:
                alone = now
            elif now - alone > ray_cluster.MACHINE_TIMEOUT:
                why = "; ".join(
                    sorted({f for f in desk.refusals.values() if f})
                ) or "there is none" + " with a card" * (device == "cuda")
                _end_remaining(
                    desk,
                    "failed",
                    f"no machine of the cluster can train ({why}); the same command goes on",
                )
            if now - beaten > runs.HEARTBEAT_TIMEOUT / 4:
                beaten = now
                for run in list(desk.placeholders):
                    runs.update(
                        Run(folder / run), state="running", phase="waiting for another machine"
                    )
            time.sleep(min(1.0, POLL_SECONDS))
        for t in threads:
            t.join()
        _end_remaining(desk, "stopped", "")


def _run_slots(node: dict, device: str) -> tuple[int, int]:
    """How many runs a machine trains at once, and how many cards each has."""
    cpus, cards = (int(node["Resources"].get(k, 0)) for k in ("CPU", "GPU"))
    return (min(cpus, cards), 1) if device == "cuda" or (device == "auto" and cards) else (cpus, 0)


def _refuse_machine(desk: SharedState, node: str, name: str, fault: str) -> None:
    desk.refusals[node] = fault and f"{name} {fault}"
    if fault and not desk.stop.is_set():
        desk.warn(f"machine {name} {fault}; it is left out")


def _end_remaining(desk: SharedState, state: sweeping.OutcomeState, reason: str) -> None:
    """Runs that nobody will train now: those that were begun are put down with `state`, and where that is failed, the others too."""
    with desk.change:
        left, desk.todo = desk.todo, []
    for cell, run in left:
        if begun := desk.placeholders.pop(run, None):
            _record_end(Run(desk.folder / run), state, reason)
            begun.close()
        if begun or state == "failed":
            desk.finish_run(Outcome(cell, run, state, reason=reason))


def _drive_worker(desk: SharedState, node: str, name: str, cards: int) -> None:
    """A seat on this machine, and the cells it is given."""
    ray, begun, told = desk.ray, time.monotonic(), False
    at = (
        ray.remote(ray_worker.Worker)
        .options(num_cpus=1, num_gpus=cards, scheduling_strategy=ray_cluster.node_affinity(node))
        .remote()
    )
    try:
        there = at.name.remote()
        while not ray.wait([there], timeout=POLL_SECONDS)[
            0
        ]:  # its processor may be taken by others' work
            if desk.stop.is_set() or not desk.left():
                return
            if not told and time.monotonic() - begun > ray_cluster.MACHINE_TIMEOUT:
                told = True
                desk.warn(f"machine {name} has no free processor yet; waiting for one")
        ray.get(there)
        while one := desk.next_cell():
            if not _train_cell(desk, at, name, *one):
                return
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(at.close.remote(), timeout=ray_cluster.MACHINE_TIMEOUT)
    except Exception as e:  # of the seat; what befalls a run is caught where it is trained
        _refuse_machine(desk, node, name, f"cannot be used ({ray_cluster.last_error_line(e)})")
    finally:
        with contextlib.suppress(Exception):  # it may be gone, and Ray with it
            ray.kill(at)


def _train_cell(desk: SharedState, at: Any, name: str, cell: Cell, run_id: str) -> bool:
    """One cell on a seat, to its end or until the seat is lost: False then."""
    run, begun = Run(desk.folder / run_id), time.monotonic()
    if run_id not in desk.placeholders and any(
        r["run"] == run_id and jobs.is_alive(r) for r in runs.list_runs(desk.folder)
    ):
        desk.finish_run(Outcome(cell, run_id, "trained elsewhere"))
        return True
    here = desk.placeholders.pop(run_id, None) or PlaceholderProcess(run_id)
    try:
        state, reason = _monitor_run(desk, at, name, cell, run, here)
    except desk.ray.exceptions.RayError as e:
        why = ray_cluster.last_error_line(e)
        with desk.change:
            lost = desk.lost_machines[run_id] = desk.lost_machines.get(run_id, 0) + 1
            if lost < MAX_LOST_MACHINES and not desk.stop.is_set():
                del desk.fitting[run_id]
                desk.placeholders[run_id] = here
                desk.todo.insert(0, (cell, run_id))
                desk.change.notify_all()
                desk.warn(
                    f"machine {name} was lost under {cell.title} ({why}); it goes on elsewhere from its last checkpoint"
                )
                return False
        reason = f"{lost} machines were lost under it with no checkpoint between them ({why}); the same command resumes it"
        state, reason = ("stopped", "") if desk.stop.is_set() else ("failed", reason)
        _record_end(run, state, reason)
        ended = False
    except Exception as e:  # of this machine, such as a full disk
        state, reason, ended = "failed", " ".join(f"{e or type(e).__name__}".split()), False
        with contextlib.suppress(OSError, ValueError):
            _record_end(run, state, reason)
    else:
        ended = True
    here.close()
    desk.finish_run(Outcome(cell, run_id, state, time.monotonic() - begun, reason))
    return ended


def _monitor_run(
    desk: SharedState, at: Any, name: str, cell: Cell, run: Run, here: PlaceholderProcess
) -> tuple[Any, str]:
    """Begin a run on a seat and write down what it sends until it ends; returns its state and the reason."""
    ray, asked, fresh = desk.ray, False, False
    runs.create(run.directory, cell.config)
    runs.drop_metrics_after(run, 1 << 59)  # but a line that was cut by a kill
    runs.update(run, state="running", phase=f"sent to {name}", pid=here.pid, error="")
    own = {
        n: p.read_bytes() for n, p in ray_worker.finished_files(run.directory) if n != "status.json"
    }
    paths = [desk.folder / ".cache" / f for f in desk.classifiers[run.id].values()]
    shared = {p.name: p.read_bytes() for p in paths if p.exists()}
    order = sweeping.encode_request([cell], desk.folder, desk.device, desk.plan)
    ray.get(
        at.begin.remote(run.id, order, own, shared, desk.corpora_of(cell)), timeout=WORKER_TIMEOUT
    )
    taken = time.monotonic()
    while True:
        time.sleep(POLL_SECONDS)
        if not asked and (desk.stop.is_set() or here.asked()):
            asked = True
            ray.get(at.stop.remote(), timeout=WORKER_TIMEOUT)
        news = ray.get(
            at.collect_updates.remote(fresh and time.monotonic() - taken >= desk.every),
            timeout=WORKER_TIMEOUT,
        )
        desk.keep(run, news)
        fresh, row = (
            news["fresh"],
            {
                k: news["row"][k]
                for k in ("state", "phase", "step", "rate", "error")
                if k in news["row"]
            },
        )
        if news["files"]:
            taken = time.monotonic()
        if not news["over"]:
            if row.get("state") == "done":
                row["phase"] = "augmentation table"
            if not asked:  # what asked it wrote down that it did
                runs.update(run, **row | {"state": "running", "pid": here.pid})
            continue
        said = (
            json.loads(news["answer"])
            if news["answer"]
            else {"state": "stopped" if asked else "failed", "reason": ""}
        )
        state, reason = said["state"], said["reason"]
        if state == "failed" and not news["answer"]:
            reason = sweeping.exit_reason(news["code"])
        if state == "done" and not run.json("results"):
            state, reason = (
                "failed",
                "its corpus was prepared anew while the sweep ran; the same command trains on what is there now",
            )
        _record_end(run, state, reason, row)
        return state, sweeping.format_results(run) if state == "done" else reason


def _record_end(run: Run, state: str, reason: str, row: dict | None = None) -> None:
    """Write down how a run ended; one that has its results is done, whatever became of its table."""
    done = bool(run.json("results"))
    runs.update(
        run,
        **(row or {})
        | {
            "state": "done" if done else state,
            "error": reason if state == "failed" and not done else "",
        },
    )
