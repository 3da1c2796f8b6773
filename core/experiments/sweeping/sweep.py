"""Many runs: the cells of a grid, trained by worker processes of this machine or of a cluster.

Without torch, except in the worker. The same config is the same run, so a repeated sweep skips what
is done and resumes what is not. A worker is `python -m core.experiments.sweeping.sweep train`: it
reads a request per line and answers with a line per run. If a run fails, the others go on.
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
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

from core import files
from core.config.serialisation import from_dict, to_dict
from core.config.settings import Config, replace
from core.evaluation import protocol, results
from core.evaluation.protocol import Cell
from core.experiments import jobs
from core.runs import store
from core.runs.directory import Run

if TYPE_CHECKING:
    from core.evaluation.augmentation import TableSettings
    from core.evaluation.few_labels.rows import FewLabelsSettings
    from core.experiments.gan_training import TrainFunction

TablePlan: TypeAlias = "TableSettings | FewLabelsSettings"  # which table a run gets, and how
GPU_STACK_SIZE = 8  # runs that a GPU trains at once
POLL_SECONDS = 0.2  # seconds between two looks at a worker's answer or at a thread's end

OutcomeState = Literal["done", "was done", "stopped", "failed", "trained elsewhere"]
PendingRuns = list[tuple[Cell, str]]  # runs to train, each with its id


@dataclass(frozen=True)
class Outcome:
    """The end of a cell's run."""

    cell: Cell
    run: str  # id; "" where the corpus is not prepared
    state: OutcomeState
    seconds: float = 0.0
    reason: str = ""  # why it failed, or its first results

    def line(self, done: int, total: int) -> str:
        """One line for the terminal."""
        cell, seconds = self.cell, f"{self.seconds:6.0f} s"
        text = f"{cell.title:<44} {cell.corpus:<10} {self.state:<9} {seconds}  {self.run}"
        return f"[{done}/{total}] {text}  {self.reason}".rstrip()


@dataclass(frozen=True)
class Work:
    """Runs that an engine has to train, and how."""

    todo: PendingRuns
    folder: Path  # of the runs
    device: str
    plan: TablePlan | None  # of each run's table; None: no table
    add: Callable[[Outcome], None]  # called once for each run, from any thread
    stop: threading.Event  # once set, running trainings save their state and end


Engine = Callable[[Work], None]


def train_cells(
    cells: Sequence[Cell],
    folder: Path | None = None,
    workers: int = 1,
    device: str = "auto",
    plan: TablePlan | None = None,
    tell: Callable[[Outcome, int, int], None] = lambda *a: None,
    stop: threading.Event | None = None,
    engine: Engine | None = None,
) -> list[Outcome]:
    """Train the cells that are not yet trained; returns one Outcome for each different run.

    With `plan` each run's table is computed too, that of augmentation or of few labels. `engine`
    trains the runs; by default `train_locally` with `workers` processes. `tell(outcome, finished,
    total)` is called after each run. After a stop the same call resumes. A run's failure is
    reported as an Outcome, not raised.
    """
    folder, stop = folder or files.checkpoints_folder(), stop or threading.Event()
    folder.mkdir(parents=True, exist_ok=True)
    jobs.reconcile(folder)
    busy = {r["run"] for r in store.list_runs(folder) if jobs.is_alive(r)}
    identified = protocol.identify_runs(cells)
    # a run counts once; a cell whose corpus is absent has no run and is told by itself
    total = len({run_id for _, run_id, _ in identified if run_id})
    total += sum(not run_id for _, run_id, _ in identified)
    outcomes: list[Outcome] = []
    todo: PendingRuns = []
    guard = threading.Lock()

    def add(outcome: Outcome) -> None:
        with guard:
            outcomes.append(outcome)
            tell(outcome, len(outcomes), total)

    seen = set()
    for cell, run_id, reason in identified:
        run = Run(folder / run_id)
        if reason:
            add(Outcome(cell, "", "failed", reason=reason))
        elif run_id in seen:
            continue
        elif run_id in busy:
            add(Outcome(cell, run_id, "trained elsewhere"))
        elif _is_done(run, plan):
            add(Outcome(cell, run_id, "was done", reason=format_results(run)))
        else:
            todo.append((cell, run_id))
        seen.add(run_id)
    if todo:
        engine = engine or functools.partial(train_locally, workers=workers)
        engine(Work(todo, folder, device, plan, add, stop))
    return outcomes


def missing_runs(
    cells: Sequence[Cell], plan: TablePlan | None = None, folder: Path | None = None
) -> list[Cell]:
    """A cell for each different run that is not finished, or lacks its table."""
    folder = folder or files.checkpoints_folder()
    known = {run_id: cell for cell, run_id, reason in protocol.identify_runs(cells) if not reason}
    return [cell for run_id, cell in known.items() if not _is_done(Run(folder / run_id), plan)]


def _is_done(run: Run, plan: TablePlan | None) -> bool:
    table, found = run.json(plan.stem) if plan else {}, run.json("results")
    has_table = plan is None or (table.get("plan") == asdict(plan) and results.is_current(table))
    return bool(found) and results.is_current(found) and has_table


def format_results(run: Run) -> str:
    """The first results of a finished run for its line; "" for another."""
    found, table = run.json("results"), run.json("table")
    if not found:
        return ""
    rows = [k for k in ("S1", "S1 + generated") if k in results.row_names(found, table)]
    parts = [f"{k} {results.row_accuracy(found, table, k).text}" for k in rows]
    return " · ".join([*parts, f"FID {results.quality_text(found, 'FID', 1)}"])


def one_line(error: Exception) -> str:
    """An exception's message, or its type, on one line.

    >>> one_line(ValueError("first\\n  second"))
    'first second'
    """
    return " ".join((str(error) or type(error).__name__).split())


def exit_reason(code: int) -> str:
    """Reason for the failure of a run, from the exit status of its worker process.

    >>> exit_reason(-9)
    'its process ended with SIGKILL, which may be lack of memory; the same command resumes it'
    """
    how = signal.Signals(-code).name if code < 0 else f"status {code}"
    return f"its process ended with {how}, which may be lack of memory; the same command resumes it"


def group_for_stacking(todo: PendingRuns, size: int) -> list[PendingRuns]:
    """Groups of at most `size` runs whose trainings differ in data, seed and condition alone.

    Groups are in the order of their first run.
    """
    groups: dict[str, list[PendingRuns]] = {}
    for cell, run_id in todo:
        c, values = cell.config, to_dict(cell.config)
        gan = to_dict(replace(c, gan={"condition": "none"}))["gan"]
        # labels are softened and noisy, and without a condition c has no columns
        kind = c.gan.condition if c.gan.condition in ("none", "label") else "given"
        key = json.dumps([gan, len(c.data.classes), values["logmel"], values["f_t"], kind])
        group = groups.setdefault(key, [[]])
        if len(group[-1]) == size:
            group.append([])
        group[-1].append((cell, run_id))
    return [g for group in groups.values() for g in group]


# ------------------------------------------------------------------ the driver


def train_locally(work: Work, workers: int = 1, stack: int = 0) -> None:
    """Train with `workers` processes of this machine.

    A worker trains up to `stack` runs at once (`models.stacked_training`); 0 means GPU_STACK_SIZE
    on a GPU and 1 on a CPU, where stacking gains nothing.
    """
    size = stack or (GPU_STACK_SIZE if work.device != "cpu" and jobs.gpus() else 1)
    waiting: queue.Queue[PendingRuns] = queue.Queue()
    for group in group_for_stacking(work.todo, size) if size > 1 else [[r] for r in work.todo]:
        waiting.put(group)
    threads = [
        threading.Thread(target=_drive_worker, args=(work, waiting), daemon=True)
        for _ in range(min(max(1, workers), waiting.qsize()))
    ]
    for t in threads:
        t.start()
    for t in threads:
        while t.is_alive():  # a join without a time limit would block signals
            t.join(POLL_SECONDS)


def _drive_worker(work: Work, waiting: queue.Queue[PendingRuns]) -> None:
    """Send groups of runs to one worker process.

    A worker that dies fails only the runs that it was training, and is replaced.
    """
    worker: subprocess.Popen[str] | None = None
    while not work.stop.is_set():
        try:
            group = waiting.get_nowait()
        except queue.Empty:
            break
        start = time.monotonic()
        worker = worker or start_worker(work.folder)
        cells = [cell for cell, _ in group]
        send_request(worker, encode_request(cells, work.folder.resolve(), work.device, work.plan))
        code = 0
        for cell, run_id in group:
            run = Run(work.folder / run_id)
            line = _read_answer(worker, work.stop) if worker else ""
            seconds = time.monotonic() - start
            if line:
                answer = json.loads(line)
                state, reason = answer["state"], answer["reason"]
                reason = format_results(run) if state == "done" else reason
                work.add(Outcome(cell, run_id, state, seconds, reason))
                continue
            if worker:
                code, worker = close_worker(worker), None
            if work.stop.is_set():  # it was stopped before it could answer
                work.add(Outcome(cell, run_id, "stopped", seconds))
                continue
            reason = exit_reason(code)
            if (run.directory / "config.json").exists():
                store.update(run, state="failed", error=reason)
            work.add(Outcome(cell, run_id, "failed", seconds, reason))
    if worker:
        close_worker(worker)


def start_worker(
    folder: Path, environment: Mapping[str, str] = {}, open_files: tuple[int, ...] = ()
) -> subprocess.Popen[str]:
    """A worker process in its own session, so that Ctrl-C in the terminal reaches the driver alone.

    It inherits the descriptors `open_files`; what it prints goes to `folder`/.cache/sweep.log.
    """
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    (folder / ".cache").mkdir(exist_ok=True)
    with open(folder / ".cache" / "sweep.log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "core.experiments.sweeping.sweep", "train"],
            cwd=files.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env=os.environ | dict.fromkeys(variables, "1") | dict(environment),
            pass_fds=open_files,
        )


def encode_request(cells: Sequence[Cell], folder: Path, device: str, plan: TablePlan | None) -> str:
    """The line that asks a worker to train these cells, several as one stack."""
    request = {"configs": [to_dict(c.config) for c in cells], "folder": str(folder)}
    table = {"plan": asdict(plan), "table": plan.stem} if plan else {"plan": None}
    return json.dumps(request | {"device": device} | table)


def send_request(worker: subprocess.Popen[str], request: str) -> None:
    """Write a line to a worker; one that has died is noticed when its answer is read."""
    assert worker.stdin
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write(request + "\n")
        worker.stdin.flush()


def _read_answer(worker: subprocess.Popen[str], stop: threading.Event) -> str:
    """The worker's next line, "" if it died. Once `stop` is set, it is asked to save and answer."""
    reader, lines = read_line(worker)
    was_asked = False
    while reader.is_alive():
        if stop.is_set() and not was_asked:
            was_asked = True
            worker.send_signal(signal.SIGTERM)
        reader.join(POLL_SECONDS)
    return lines[0] if lines else ""


def read_line(worker: subprocess.Popen[str]) -> tuple[threading.Thread, list[str]]:
    """A thread that reads the worker's next line, and the list into which it puts it."""
    lines: list[str] = []
    assert worker.stdout
    out = worker.stdout
    reader = threading.Thread(target=lambda: lines.append(out.readline()), daemon=True)
    reader.start()
    return reader, lines


def close_worker(worker: subprocess.Popen[str]) -> int:
    """End a worker after its last request; returns its exit status."""
    assert worker.stdin
    assert worker.stdout
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.close()
    code = worker.wait()
    worker.stdout.close()
    return code


# ------------------------------------------------------------------ the worker process


def run_worker(requests: IO[str], answers: IO[str]) -> None:
    """Train the configs of each request, a line of JSON: configs, folder, device, plan, table.

    When all of a request's runs have ended, a line (state, reason) is written for each. SIGTERM or
    the death of the driver stops the runs that are training.
    """
    stop_signals, driver = list[int](), os.getppid()
    signal.signal(signal.SIGTERM, lambda *a: stop_signals.append(1))

    def should_stop() -> bool:
        return bool(stop_signals) or os.getppid() != driver

    for line in requests:
        for state, reason in _train_request(json.loads(line), should_stop):
            answers.write(json.dumps({"state": state, "reason": reason}) + "\n")
        stop_signals.clear()
        answers.flush()


def _train_request(
    request: dict[str, Any], should_stop: Callable[[], bool]
) -> list[tuple[OutcomeState, str]]:
    """Train a request's configs, several as a stack; (state, reason) of each."""
    from core.experiments.gan_training import train_with_cuda_graphs
    from core.models import stacked_training

    configs = request["configs"]
    if len(configs) == 1:
        return [_train_config(request, configs[0], should_stop, train_with_cuda_graphs)]
    ends: dict[int, tuple[OutcomeState, str]] = {}

    def train_one(k: int, train: TrainFunction) -> None:
        ends[k] = _train_config(request, configs[k], should_stop, train)

    stacked_training.train_together(len(configs), train_one)
    return [ends[k] for k in range(len(configs))]


def _train_config(
    request: dict[str, Any], config: dict, should_stop: Callable[[], bool], train: TrainFunction
) -> tuple[OutcomeState, str]:
    from core.evaluation import augmentation
    from core.evaluation.few_labels import rows, table
    from core.experiments import pipeline

    folder, device = Path(request["folder"]), request["device"]
    try:
        given = from_dict(Config, config)
        run = pipeline.run(given, folder, device, should_stop=should_stop, train=train)
        if request["plan"]:
            where = str(pipeline.choose_device(device))
            if request["table"] == rows.STEM:
                few = rows.FewLabelsSettings(**request["plan"])
                table.compute(run, few, where, should_stop=should_stop)
            else:
                plan = augmentation.TableSettings(**request["plan"])
                augmentation.compute_table(run, plan, where, should_stop=should_stop)
    except files.StopRequested:
        return "stopped", ""
    except files.BusyError as e:  # another sweep began it after this one had looked
        return "trained elsewhere", one_line(e)
    except Exception as e:
        if not isinstance(e, files.UserError):  # a bug keeps its traceback, in the log
            traceback.print_exc()
        return "failed", one_line(e)
    return "done", ""


if __name__ == "__main__":
    os.nice(jobs.NICENESS)
    answer_stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # printed text goes to the log, never among the answers
    run_worker(sys.stdin, answer_stream)
