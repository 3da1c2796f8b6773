"""Many runs: the cells of a grid, trained by worker processes of this machine, or of a cluster's (`remote`). No torch, but in `run_worker`.

The same config is the same run, so a sweep that is given again skips what is done and resumes what was begun. A worker is
`python -m core.experiments.sweep train`: it reads a config per line, trains it, and answers with a line; whatever happens to one, the others go on.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from core import files, runs
from core.config import Config, from_dict, replace, to_dict
from core.evaluation import protocol
from core.evaluation.protocol import Cell
from core.experiments import jobs
from core.runs import Run

if TYPE_CHECKING:
    from core.evaluation.augmentation import TableSettings

GPU_STACK_SIZE = 8  # runs that a card trains at once

OutcomeState = Literal["done", "was done", "stopped", "failed", "trained elsewhere"]


@dataclass(frozen=True)
class Outcome:
    """What became of a cell's run."""

    cell: Cell
    run: str  # id; "" where the corpus is not prepared
    state: OutcomeState
    seconds: float = 0.0
    reason: str = ""

    def line(self, done: int, total: int) -> str:
        """One line for people; `reason` is why it failed, or the first figures of what it gave."""
        return f"[{done}/{total}] {self.cell.title:<44} {self.state:<9} {self.seconds:6.0f} s  {self.run}  {self.reason}".rstrip()


PendingRuns = list[tuple[Cell, str]]  # what is to be trained, with the runs' ids
Engine = Callable[
    [PendingRuns, Path, str, "TableSettings | None", Callable[[Outcome], None], threading.Event],
    None,
]


def train_cells(
    cells: Sequence[Cell],
    folder: Path | None = None,
    workers: int = 1,
    device: str = "auto",
    plan: TableSettings | None = None,
    tell: Callable[[Outcome, int, int], None] = lambda *a: None,
    stop: threading.Event | None = None,
    serve: Engine | None = None,
) -> list[Outcome]:
    """Train what of `cells` is not yet trained, and with `plan` compute each run's augmentation table; one Outcome per different run.

    `workers` processes with one thread each share the runs, or whatever `serve` has (`train_locally`, `remote.serve`). `tell(outcome, how many are
    through, of how many)` after each. Once `stop` is set, the runs in hand save their state and end, and the same call resumes them.
    Nothing that befalls a run is raised.
    """
    folder, stop = folder or files.checkpoints_folder(), stop or threading.Event()
    folder.mkdir(parents=True, exist_ok=True)
    jobs.reconcile(folder)
    busy = {r["run"] for r in runs.list_runs(folder) if jobs.is_alive(r)}
    first: dict[str, Cell] = {}
    outcomes: list[Outcome] = []
    todo: PendingRuns = []
    guard = threading.Lock()
    every = protocol.identify_runs(cells)
    total = len({i or c.title for c, i, _ in every})

    def add(outcome: Outcome) -> None:
        with guard:
            outcomes.append(outcome)
            tell(outcome, len(outcomes), total)

    for cell, run_id, reason in every:
        if reason:
            add(Outcome(cell, "", "failed", reason=reason))
        elif run_id not in first:
            first[run_id] = cell
            if run_id in busy:
                add(Outcome(cell, run_id, "trained elsewhere"))
            elif _is_done(Run(folder / run_id), plan):
                add(Outcome(cell, run_id, "was done", reason=format_results(Run(folder / run_id))))
            else:
                todo.append((cell, run_id))
    if todo:
        (serve or functools.partial(train_locally, workers=workers))(
            todo, folder, device, plan, add, stop
        )
    return outcomes


def _is_done(run: Run, plan: TableSettings | None) -> bool:
    return bool(run.json("results")) and (
        plan is None or run.json("table").get("plan") == asdict(plan)
    )


def format_results(run: Run) -> str:
    """The first figures of a run that is done, for its line; "" for another."""
    results = run.json("results")
    rows = results.get("augmentation", {})
    said = [
        f"{row} {100 * rows[row]['accuracy']:.1f} %"
        for row in ("S1", "S1 + generated")
        if row in rows
    ]
    return " · ".join([*said, f"FID {results['quality']['FID']:.1f}"]) if results else ""


def encode_request(
    cells: Sequence[Cell], folder: Path, device: str, plan: TableSettings | None
) -> str:
    """The line that a worker is told for these cells, which it trains as one stack."""
    configs = [to_dict(c.config) for c in cells]
    return json.dumps(
        {
            "configs": configs,
            "folder": str(folder),
            "device": device,
            "plan": asdict(plan) if plan else None,
        }
    )


def group_for_stacking(todo: PendingRuns, most: int) -> list[PendingRuns]:
    """Cells whose trainings differ in data, seed and condition alone, at most this many together, in the order of their first."""
    groups: dict[str, list[PendingRuns]] = {}
    for cell, run_id in todo:
        c = cell.config
        alike = json.dumps(
            [
                to_dict(replace(c, gan={"condition": "none"}))["gan"],
                len(c.data.classes),
                to_dict(c)["logmel"],
                to_dict(c)["f_t"],
            ]
        )
        told = (
            c.gan.condition if c.gan.condition in ("none", "label") else "given"
        )  # a label is softened and noisy, none has no c at all
        of = groups.setdefault(alike + told, [[]])
        if len(of[-1]) == most:
            of.append([])
        of[-1].append((cell, run_id))
    return [g for of in groups.values() for g in of]


def exit_reason(code: int) -> str:
    """Why a run failed whose worker process ended with this status."""
    how = signal.Signals(-code).name if code < 0 else f"status {code}"
    return f"its process ended with {how}, which may be lack of memory; the same command resumes it"


def train_locally(
    todo: PendingRuns,
    folder: Path,
    device: str,
    plan: TableSettings | None,
    add: Callable[[Outcome], None],
    stop: threading.Event,
    workers: int = 1,
    stack: int = 0,
) -> None:
    """Train `todo` with this many worker processes of this machine; `add(outcome)` after each, from several threads.

    A worker trains up to `stack` runs at once (`stacks`); 0 is STACK on a card, and 1 on a CPU, where runs gain nothing from each other.
    """
    together = stack or (GPU_STACK_SIZE if device != "cpu" and jobs.gpus() else 1)
    waiting: queue.Queue[PendingRuns] = queue.Queue()
    for group in group_for_stacking(todo, together) if together > 1 else [[one] for one in todo]:
        waiting.put(group)
    threads = [
        threading.Thread(
            target=_drive_worker, args=(waiting, folder, device, plan, add, stop), daemon=True
        )
        for _ in range(min(max(1, workers), waiting.qsize()))
    ]
    for t in threads:
        t.start()
    for t in threads:
        while t.is_alive():  # a join without limit would keep signals waiting
            t.join(0.2)


def _drive_worker(
    todo: queue.Queue,
    folder: Path,
    device: str,
    plan: TableSettings | None,
    add: Callable[[Outcome], None],
    stop: threading.Event,
) -> None:
    """One worker process and the cells it is given; a worker that dies fails those alone that it had in hand, and is replaced."""
    worker: subprocess.Popen[str] | None = None
    while not stop.is_set():
        try:
            group: PendingRuns = todo.get_nowait()
        except queue.Empty:
            break
        begun = time.monotonic()
        worker = worker or start_worker(folder)
        assert worker.stdin
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(
                encode_request([cell for cell, _ in group], folder.resolve(), device, plan) + "\n"
            )
            worker.stdin.flush()
        for cell, run_id in group:
            answer = _read_answer(worker, stop) if worker else ""
            seconds = time.monotonic() - begun
            if answer:
                said = json.loads(answer)
                reason = (
                    format_results(Run(folder / run_id))
                    if said["state"] == "done"
                    else said["reason"]
                )
                add(Outcome(cell, run_id, said["state"], seconds, reason))
                continue
            if worker:
                code, worker = close_worker(worker), None
            if stop.is_set():  # it was asked before it listened
                add(Outcome(cell, run_id, "stopped", seconds))
                continue
            reason = exit_reason(code)
            if (folder / run_id / "config.json").exists():
                runs.update(Run(folder / run_id), state="failed", error=reason)
            add(Outcome(cell, run_id, "failed", seconds, reason))
    if worker:
        close_worker(worker)


def close_worker(worker: subprocess.Popen[str]) -> int:
    """Give a worker no more orders and wait for its end; returns its exit status."""
    assert worker.stdin
    assert worker.stdout
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.close()
    code = worker.wait()
    worker.stdout.close()
    return code


def _read_answer(worker: subprocess.Popen[str], stop: threading.Event) -> str:
    """The worker's next line, "" when it died. Once `stop` is set the worker is asked to save and answer."""
    lines: list[str] = []
    assert worker.stdout
    reader = threading.Thread(
        target=lambda out: lines.append(out.readline()), args=(worker.stdout,), daemon=True
    )
    reader.start()
    asked = False
    while reader.is_alive():
        if stop.is_set() and not asked:
            asked = True
            worker.send_signal(signal.SIGTERM)
        reader.join(0.2)
    return lines[0] if lines else ""


def start_worker(
    folder: Path, environment: Mapping[str, str] = {}, keep: tuple[int, ...] = ()
) -> subprocess.Popen[str]:
    """A worker in a session of its own, so that the terminal's Ctrl-C reaches the driver alone; it inherits the open files `keep`.

    What it prints goes to `folder`/.cache/sweep.log.
    """
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    (folder / ".cache").mkdir(exist_ok=True)
    with open(folder / ".cache" / "sweep.log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "core.experiments.sweep", "train"],
            cwd=files.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env=os.environ | one | dict(environment),
            pass_fds=keep,
        )


def run_worker(orders: IO[str], answers: IO[str]) -> None:
    """The worker: a line of json per order (configs, folder, device, plan), until the end. For each of an order's configs a line of json
    (state, reason) is the answer, when all of them have ended; several are trained as a stack.

    SIGTERM stops the runs in hand, as does the death of the driver.
    """
    asked, driver = list[int](), os.getppid()
    signal.signal(signal.SIGTERM, lambda *a: asked.append(1))
    from core.evaluation import augmentation
    from core.experiments import pipeline
    from core.models import stacked_training

    def should_stop() -> bool:
        return bool(asked) or os.getppid() != driver

    def one(
        given: dict[str, Any],
        config: dict,
        train: pipeline.TrainFunction = pipeline.train_with_cuda_graphs,
    ) -> tuple[OutcomeState, str]:
        try:
            run = pipeline.run(
                from_dict(Config, config),
                Path(given["folder"]),
                given["device"],
                should_stop=should_stop,
                train=train,
            )
            if given["plan"]:
                where = str(pipeline.choose_device(given["device"]))
                augmentation.compute_table(
                    run, augmentation.TableSettings(**given["plan"]), where, should_stop=should_stop
                )
        except (pipeline.TrainingStopped, files.StopRequested):
            return "stopped", ""
        except Exception as e:
            return "failed", " ".join(f"{e or type(e).__name__}".split())
        return "done", ""

    def all_of(given: dict[str, Any]) -> list[tuple[OutcomeState, str]]:
        configs = given["configs"]
        if len(configs) == 1:
            return [one(given, configs[0])]
        said: dict[int, tuple[OutcomeState, str]] = {}
        stacked_training.train_together(
            len(configs), lambda k, train: said.update({k: one(given, configs[k], train)})
        )
        return [said[k] for k in range(len(configs))]

    for line in orders:
        for state, reason in all_of(json.loads(line)):
            answers.write(json.dumps({"state": state, "reason": reason}) + "\n")
        asked.clear()
        answers.flush()


if __name__ == "__main__":
    os.nice(jobs.NICENESS)
    speaking = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints must not be taken for an answer
    run_worker(sys.stdin, speaking)
