"""Train a sweep's runs on the machines of a Ray cluster that share no disk.

Without torch, except in `train_on_cluster`. The sweep's own process is the driver: it alone writes
the folder of the runs and its index. Each processor (or GPU) of a machine has a `worker.Worker`,
which the driver asks for its records every few seconds, and for its checkpoint and files every few
minutes. If a machine is lost, its run resumes elsewhere from the driver's last checkpoint. A
classifier that several runs share is fitted once, so that unlike machines still have one scorer.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import files
from core.data import prepared_corpora
from core.evaluation.protocol import Cell
from core.experiments import jobs
from core.experiments.ray_cluster import connection, worker
from core.experiments.sweeping import sweep as sweeping
from core.experiments.sweeping.sweep import Outcome, PendingRuns, Work
from core.runs import store
from core.runs.directory import Run

POLL_SECONDS = 3.0  # seconds between two looks at a worker; well below store.HEARTBEAT_TIMEOUT
WORKER_TIMEOUT = 600.0  # seconds for a worker's answer, files included, before it counts as lost
MAX_LOST_MACHINES = 3  # lost machines without a new checkpoint; then the run may be their cause
AFTER_ALL_STEPS = 1 << 59  # a step beyond every run's


def print_warning(text: str) -> None:
    """Print a line to standard error, between those of the outcomes."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class SharedState:
    """State of the driver's threads, one for each worker; `change` guards what they modify."""

    ray: Any
    work: Work
    every: float  # seconds between two copies of a run's checkpoint
    warn: Callable[[str], None]
    classifiers: dict[str, dict[str, str]]  # run -> f_S, f_T, Q, scorer -> file in .cache
    todo: PendingRuns
    # prepared file -> (SHA-256, reference to its bytes)
    corpora: dict[str, tuple[str, Any]] = field(default_factory=dict)
    # run in training -> files in .cache that it is about to fit
    fitting: dict[str, set[str]] = field(default_factory=dict)
    # run -> machines lost since its last checkpoint
    lost_machines: dict[str, int] = field(default_factory=dict)
    # run that lost its machine -> its placeholder
    placeholders: dict[str, worker.PlaceholderProcess] = field(default_factory=dict)
    # machine (NodeID) -> why it gets no workers; "": it may have them
    refusals: dict[str, str] = field(default_factory=dict)
    change: threading.Condition = field(default_factory=threading.Condition)

    def left(self) -> int:
        """Number of unfinished runs."""
        with self.change:
            return len(self.todo) + len(self.fitting)

    def next_cell(self) -> tuple[Cell, str] | None:
        """The next run that no other is fitting a classifier for; waits, None at the end."""
        with self.change:
            while not self.work.stop.is_set() and (self.todo or self.fitting):
                for cell, run in self.todo:
                    missing = self._missing_classifiers(run)
                    if not any(missing & others for others in self.fitting.values()):
                        self.todo.remove((cell, run))
                        self.fitting[run] = missing
                        return cell, run
                self.change.wait(1)
        return None

    def _missing_classifiers(self, run: str) -> set[str]:
        names = self.classifiers[run]
        if all(Run(self.work.folder / run).model_path(n).exists() for n in names):
            return set()
        return {f for f in names.values() if not self.cached(f).exists()}

    def cached(self, name: str) -> Path:
        """Path of a classifier that runs share."""
        return self.work.folder / ".cache" / name

    def corpora_of(self, cell: Cell) -> dict[str, tuple[str, Any]]:
        """A cell's prepared files: name -> (SHA-256, reference to the bytes in Ray's store)."""
        d, out = cell.config.data, {}
        with self.change:
            for corpus in dict.fromkeys(filter(None, (d.faces, d.voices, d.f_s_corpus))):
                path = prepared_corpora.corpus_path(corpus, d.demo_takes)
                if path.name not in self.corpora:
                    content = path.read_bytes()
                    self.corpora[path.name] = files.digest(content), self.ray.put(content)
                out[path.name] = self.corpora[path.name]
        return out

    def store(self, run: Run, updates: worker.Updates) -> None:
        """Write a worker's updates: records, then files in the order of `write_rank`."""
        if updates.void_after is not None:
            store.drop_metrics_after(run, updates.void_after)
        for r in updates.records:
            store.record_metrics(run, r["step"], {k: v for k, v in r.items() if k != "step"})
        for name in sorted(updates.files, key=worker.write_rank):
            if name not in worker.DRIVER_FILES:
                worker.write_run_file(run.directory, name, updates.files[name])
        for name, data in updates.classifiers.items():
            if not self.cached(name).exists():
                worker.write_run_file(self.work.folder / ".cache", name, data)
        if updates.log:
            with open(self.cached("sweep.log"), "ab") as log:
                log.write(updates.log)
        with self.change:
            if updates.files:
                self.lost_machines.pop(run.id, None)
            self.fitting[run.id] -= set(updates.classifiers)
            self.change.notify_all()

    def finish_run(self, outcome: Outcome) -> None:
        """Report a run's end and wake the workers that wait for its classifiers."""
        with self.change:
            self.fitting.pop(outcome.run, None)
            self.change.notify_all()
        self.work.add(outcome)

    def refuse_machine(self, node: str, name: str, fault: str) -> None:
        """Record why a machine gets no workers; "" accepts it."""
        self.refusals[node] = fault and f"{name} {fault}"
        if fault and not self.work.stop.is_set():
            self.warn(f"machine {name} {fault}; it is left out")


# ------------------------------------------------------------------ the main thread


def train_on_cluster(
    work: Work,
    workers: int | None = None,
    address: str | None = None,
    every: float = 180.0,
    say: Callable[[str], None] = print_warning,
) -> None:
    """Train on the Ray cluster at `address`, or on a local one: an engine of `sweep.train_cells`.

    At most `workers` runs are trained at once; None: one for each processor of a machine, or for
    each GPU where it has some and the device is not cpu. A run's checkpoint is copied here at most
    every `every` seconds. `say` gets warnings about machines that are left out or lost; machines
    may come and go. Raises CorpusError where Ray is not installed or there is no cluster.
    """
    classifiers = _classifier_files(work.todo)
    with connection.ray_connection(workers or 0, address) as ray:
        state = SharedState(ray, work, every, say, classifiers, list(work.todo))
        threads: dict[threading.Thread, str] = {}  # of a worker -> NodeID of its machine
        last_training, last_heartbeat = time.monotonic(), 0.0
        while state.left() and not (work.stop.is_set() and not state.fitting):
            # workers on new machines, and in the place of those that have ended
            threads = {t: node for t, node in threads.items() if t.is_alive()}
            nodes = [] if work.stop.is_set() else connection.machines(ray)
            _check_new_machines(state, nodes)
            for node in nodes:
                _start_workers(state, node, threads, workers or sys.maxsize)
            # the end, if no machine can train
            now = time.monotonic()
            if threads:
                last_training = now
            elif now - last_training > connection.MACHINE_TIMEOUT:
                _give_up(state)
            # a sign of life from runs that have lost their machine
            if now - last_heartbeat > store.HEARTBEAT_TIMEOUT / 4:
                last_heartbeat = now
                for run in list(state.placeholders):
                    phase = "waiting for another machine"
                    store.update(Run(work.folder / run), state="running", phase=phase)
            time.sleep(min(1.0, POLL_SECONDS))
        for t in threads:
            t.join()
        _end_remaining(state, "stopped", "")


def _classifier_files(todo: PendingRuns) -> dict[str, dict[str, str]]:
    from core.experiments import classifier_fitting

    digests: dict[tuple, str] = {}
    out = {}
    for cell, run in todo:
        d = cell.config.data
        key = d.faces, d.voices, d.f_s_corpus, d.demo_takes
        if key not in digests:
            digests[key] = prepared_corpora.corpus_digest(d)
        out[run] = classifier_fitting.classifier_files(cell.config, digests[key])
    return out


def _check_new_machines(state: SharedState, nodes: list[dict]) -> None:
    new = [n for n in nodes if n["NodeID"] not in state.refusals]
    code, packages = connection.code_digest(), connection.package_versions("torch", "numpy")
    for node, fault in connection.check_machines(state.ray, new, {}, code, packages):
        state.refuse_machine(node["NodeID"], connection.machine_name(node), fault)


def _start_workers(
    state: SharedState, node: dict, threads: dict[threading.Thread, str], limit: int
) -> None:
    """Start workers on a machine until it, the limit of all, or the number of runs is reached."""
    name, (slots, gpus) = node["NodeID"], run_slots(node, state.work.device)
    if state.refusals.get(name):
        return
    busy = sum(other == name for other in threads.values())
    for _ in range(min(slots - busy, min(limit, state.left()) - len(threads))):
        arguments = state, name, connection.machine_name(node), gpus
        thread = threading.Thread(target=_drive_worker, args=arguments, daemon=True)
        threads[thread] = name
        thread.start()


def run_slots(node: dict, device: str) -> tuple[int, int]:
    """(runs that a machine trains at once, GPUs of each).

    >>> run_slots({"Resources": {"CPU": 8.0, "GPU": 2.0}}, "auto")
    (2, 1)
    """
    cpus, gpus = (int(node["Resources"].get(k, 0)) for k in ("CPU", "GPU"))
    return (min(cpus, gpus), 1) if device == "cuda" or (device == "auto" and gpus) else (cpus, 0)


def _give_up(state: SharedState) -> None:
    faults = "; ".join(sorted({f for f in state.refusals.values() if f}))
    kind = " with a GPU" if state.work.device == "cuda" else ""
    reason = f"no machine of the cluster can train ({faults or 'there is none' + kind})"
    _end_remaining(state, "failed", f"{reason}; the same command goes on")


def _end_remaining(state: SharedState, end: sweeping.OutcomeState, reason: str) -> None:
    """End the runs that will not be trained now; failed ones even if they never began."""
    with state.change:
        remaining, state.todo = state.todo, []
    for cell, run in remaining:
        if placeholder := state.placeholders.pop(run, None):
            _record_end(Run(state.work.folder / run), end, reason)
            placeholder.close()
        if placeholder or end == "failed":
            state.finish_run(Outcome(cell, run, end, reason=reason))


# ------------------------------------------------------------------ a worker's thread


def _drive_worker(state: SharedState, node: str, name: str, gpus: int) -> None:
    """Create a worker on a machine and give it runs until none is left or the worker is lost."""
    ray, start, has_warned = state.ray, time.monotonic(), False
    here = connection.node_affinity(node)
    options = {"num_cpus": 1, "num_gpus": gpus, "scheduling_strategy": here}
    actor = ray.remote(worker.Worker).options(**options).remote()
    try:
        # its processor may be taken by other work on the cluster
        ready = actor.name.remote()
        while not ray.wait([ready], timeout=POLL_SECONDS)[0]:
            if state.work.stop.is_set() or not state.left():
                return
            if not has_warned and time.monotonic() - start > connection.MACHINE_TIMEOUT:
                has_warned = True
                state.warn(f"machine {name} has no free processor yet; waiting for one")
        ray.get(ready)
        while pending := state.next_cell():
            if not _train_cell(state, actor, name, *pending):
                return
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(actor.close.remote(), timeout=connection.MACHINE_TIMEOUT)
    except Exception as e:  # an error of the worker; a run's error is caught in `_train_cell`
        state.refuse_machine(node, name, f"cannot be used ({connection.last_error_line(e)})")
    finally:
        with contextlib.suppress(Exception):  # the actor may be lost, and Ray with it
            ray.kill(actor)


def _train_cell(state: SharedState, actor: Any, name: str, cell: Cell, run_id: str) -> bool:
    """Train one run on a worker; returns whether the worker can take another."""
    run, start = Run(state.work.folder / run_id), time.monotonic()
    if run_id not in state.placeholders and _is_training(run):
        state.finish_run(Outcome(cell, run_id, "trained elsewhere"))
        return True
    placeholder = state.placeholders.pop(run_id, None) or worker.PlaceholderProcess(run_id)
    is_usable = False
    try:
        end, reason = _monitor_run(state, actor, name, cell, run, placeholder)
        is_usable = True
    except state.ray.exceptions.RayError as e:
        fault = connection.last_error_line(e)
        with state.change:
            lost = state.lost_machines[run_id] = state.lost_machines.get(run_id, 0) + 1
            if lost < MAX_LOST_MACHINES and not state.work.stop.is_set():
                del state.fitting[run_id]
                state.placeholders[run_id] = placeholder
                state.todo.insert(0, (cell, run_id))
                state.change.notify_all()
                state.warn(
                    f"machine {name} was lost under {cell.title} ({fault}); it goes on elsewhere "
                    "from its last checkpoint"
                )
                return False
        end, reason = (
            "failed",
            (
                f"{lost} machines were lost under it with no checkpoint between them ({fault}); "
                "the same command resumes it"
            ),
        )
        if state.work.stop.is_set():
            end, reason = "stopped", ""
        _record_end(run, end, reason)
    except Exception as e:  # an error of this machine, such as a full disk
        end, reason = "failed", sweeping.one_line(e)
        with contextlib.suppress(OSError, ValueError):
            _record_end(run, end, reason)
    placeholder.close()
    state.finish_run(Outcome(cell, run_id, end, time.monotonic() - start, reason))
    return is_usable


def _is_training(run: Run) -> bool:
    rows = store.list_runs(run.directory.parent)
    return any(r["run"] == run.id and jobs.is_alive(r) for r in rows)


def _monitor_run(
    state: SharedState,
    actor: Any,
    name: str,
    cell: Cell,
    run: Run,
    placeholder: worker.PlaceholderProcess,
) -> tuple[Any, str]:
    """Start a run on a worker and store its updates until it ends; returns its state and reason."""
    ray, was_asked, has_new_checkpoint = state.ray, False, False
    _begin_run(state, actor, name, cell, run, placeholder)
    last_copy = time.monotonic()
    while True:
        time.sleep(POLL_SECONDS)
        # a request to stop, of the sweep or of this run
        if not was_asked and (state.work.stop.is_set() or placeholder.was_asked_to_end()):
            was_asked = True
            ray.get(actor.stop.remote(), timeout=WORKER_TIMEOUT)
        # records, and at times the checkpoint
        with_files = has_new_checkpoint and time.monotonic() - last_copy >= state.every
        answer = actor.collect_updates.remote(with_files)
        updates: worker.Updates = ray.get(answer, timeout=WORKER_TIMEOUT)
        state.store(run, updates)
        has_new_checkpoint = updates.has_new_checkpoint
        if updates.files:
            last_copy = time.monotonic()
        # the run's row of the index
        fields = ("state", "phase", "step", "rate", "error")
        row = {k: updates.row[k] for k in fields if k in updates.row}
        if updates.has_ended:
            break
        if row.get("state") == "done":
            row["phase"] = "augmentation table"
        if not was_asked:  # the phase that the request to stop has set stays
            store.update(run, **row | {"state": "running", "pid": placeholder.pid})
    end, reason = _read_end(run, updates, was_asked)
    _record_end(run, end, reason, row)
    return end, sweeping.format_results(run) if end == "done" else reason


def _begin_run(
    state: SharedState,
    actor: Any,
    name: str,
    cell: Cell,
    run: Run,
    placeholder: worker.PlaceholderProcess,
) -> None:
    """Send a run's files, classifiers and corpora to a worker, which starts to train it."""
    store.create(run.directory, cell.config)
    store.drop_metrics_after(run, AFTER_ALL_STEPS)  # removes a line that a kill has cut
    store.update(run, state="running", phase=f"sent to {name}", pid=placeholder.pid, error="")
    found = worker.finished_files(run.directory)
    run_files = {n: p.read_bytes() for n, p in found if n != "status.json"}
    paths = [state.cached(f) for f in state.classifiers[run.id].values()]
    classifiers = {p.name: p.read_bytes() for p in paths if p.exists()}
    work = state.work
    request = sweeping.encode_request([cell], work.folder, work.device, work.plan)
    corpora = state.corpora_of(cell)
    started = actor.begin.remote(run.id, request, run_files, classifiers, corpora)
    state.ray.get(started, timeout=WORKER_TIMEOUT)


def _read_end(run: Run, updates: worker.Updates, was_asked: bool) -> tuple[str, str]:
    """(state, reason) of a run that has ended."""
    if updates.answer:
        answer = json.loads(updates.answer)
        if answer["state"] == "done" and not run.json("results"):
            return "failed", (
                "its corpus was prepared anew while the sweep ran; "
                "the same command trains on what is there now"
            )
        return answer["state"], answer["reason"]
    return (
        ("stopped", "") if was_asked else ("failed", sweeping.exit_reason(updates.exit_code or 0))
    )


def _record_end(run: Run, state: str, reason: str, row: dict | None = None) -> None:
    """Record a run's end; a run with results is done, even if its table failed."""
    is_done = bool(run.json("results"))
    error = reason if state == "failed" and not is_done else ""
    store.update(run, **(row or {}) | {"state": "done" if is_done else state, "error": error})
