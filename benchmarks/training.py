"""Training (§3, §3.2) against a textbook loop with equal networks, losses, batches and order.

Measured are samples per second, data loading included. Each side runs in its own process, so that
neither profits from the other's set-up; they take turns.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from benchmarks.table import Row, measure_ratio, wall_seconds
from benchmarks.textbook import PairDataset, TextbookLoop
from core.config.presets import PRESETS, with_method
from core.config.settings import Config, GanSettings
from core.models import convolutions, cuda_graphs, gan, stacked_training
from core.models.networks import Classifier

CLASSES = 6
STEPS_PER_REPEAT = 16  # a multiple of 8, as every eighth step has D's penalty
BATCHES_PER_EPOCH = 32
STACKED_RUNS = 8
REPEATS = 7
PAPER_SAMPLES = 7_442 * 280  # of the preset `paper`: CREMA-D's clips times the authors' epochs
PAPER_SECONDS = 120  # the aim for them

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # x, c, label, y
Work = Callable[[], object]  # one repeat


def method_configs() -> dict[str, Config]:
    """The preset demo with the networks of both methods, Q frozen in both."""
    return {"studio": PRESETS["demo"], "paper": with_method("strict", PRESETS["demo"])}


def random_arrays(n: int, config: Config, classes: int = CLASSES) -> Arrays:
    """Random faces, conditions, labels and spectrograms; their content does not affect the time."""
    rng, s = np.random.default_rng(0), config.logmel
    sizes = (28, 28), (s.columns, s.bands)
    x, y = (rng.uniform(-1, 1, (n, 1, *size)).astype(np.float32) for size in sizes)
    return x, rng.random((n, classes), dtype=np.float32), rng.integers(0, classes, n), y


def frozen_classifier(arrays: Arrays, device: str = "cpu") -> Classifier:
    """A frozen Q of the usual size for these arrays."""
    _, c, _, y = arrays
    network = Classifier((y.shape[2], y.shape[3]), (16, 32, 64, 128), c.shape[1])
    return network.to(device).eval()


def new_state(g: GanSettings, arrays: Arrays, device: str, seed: int = 0) -> gan.GanState:
    """A new training for these arrays."""
    if device == "cpu":
        convolutions.retain_freed_memory()
    Q, (_, c, _, y) = frozen_classifier(arrays, device), arrays
    return gan.new_state(g, c.shape[1], (y.shape[2], y.shape[3]), Q, seed, torch.device(device))


def make_pool(arrays: Arrays, device: str) -> gan.TrainingData:
    """The arrays as tensors, paired at random."""
    x, c, label, y = (torch.from_numpy(a).to(device) for a in arrays)
    rng, n = np.random.default_rng(0), len(x)
    return gan.TrainingData(
        x, c, label, y, label, lambda epoch: (rng.permutation(n), rng.permutation(n))
    )


def next_steps(steps: Iterator, device: str, count: int) -> Work:
    """The next `count` steps of a training; ends when the device has finished them."""

    def work() -> None:
        for _ in range(count):
            next(steps)
        if device != "cpu":
            torch.cuda.synchronize()

    return work


def our_steps(g: GanSettings, arrays: Arrays, device: str, count: int = STEPS_PER_REPEAT) -> Work:
    """Some steps of our endless training."""
    state, pool = new_state(g, arrays, device), make_pool(arrays, device)
    endless = replace(g, steps=10**9)
    records = gan.train(state, pool, endless, cuda_graphs.new_step_function())
    return next_steps(records, device, count)


def textbook_steps(
    g: GanSettings, arrays: Arrays, device: str, workers: int, count: int = STEPS_PER_REPEAT
) -> Work:
    """Some steps of the peer, whose DataLoader continues from call to call."""
    y = arrays[3]
    Q = frozen_classifier(arrays)
    loop = TextbookLoop(g, arrays[1].shape[1], (y.shape[2], y.shape[3]), Q, device)
    loader = loop.loader(PairDataset(*arrays), workers)

    def endless():
        while True:
            yield from loop.epoch(loader)

    return next_steps(endless(), device, count)


def sequential_steps(g: GanSettings, arrays: Arrays, device: str) -> Work:
    """One step of each of STACKED_RUNS runs, one run after another."""
    runs = [our_steps(g, arrays, device, 1) for _ in range(STACKED_RUNS)]
    return lambda: [run() for run in runs]


def stacked_steps(g: GanSettings, arrays: Arrays, device: str, runs: int = STACKED_RUNS) -> Work:
    """One step of `runs` stacked runs."""
    states = [new_state(g, arrays, device, seed) for seed in range(runs)]
    stack, take_step = stacked_training.stack_states(states), cuda_graphs.new_step_function()
    p, i = make_pool(arrays, device), torch.arange(g.batch, device=device)
    batch = p.x[i], p.c[i], p.target[i], p.y[i], p.y_target[i]

    def work() -> None:
        stacked_training.step_together(stack, states, g, [batch] * runs, take_step)
        if device != "cpu":
            torch.cuda.synchronize()

    return work


# ------------------------------------------------------------------ each side in its own process


def cpu_threads() -> int:
    """Threads for torch: OMP_NUM_THREADS, or all cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def _serve_calls(pipe, make: Callable[..., Work], arguments: tuple) -> None:
    torch.set_num_threads(cpu_threads())
    work = make(*arguments)
    while pipe.recv():
        work()
        pipe.send(True)


@contextlib.contextmanager
def separate_process(make: Callable[..., Work], *arguments) -> Iterator[Work]:
    """The work that `make` returns for the arguments, in its own process until the block ends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve_calls, args=(there, make, arguments))
    process.start()
    there.close()

    def work() -> None:
        here.send(True)
        here.recv()

    try:
        yield work
    finally:
        with contextlib.suppress(BrokenPipeError):
            here.send(False)
        process.join(30)


# ------------------------------------------------------------------ the rows


def rows() -> Iterator[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, config in method_configs().items():
        g, arrays = config.gan, random_arrays(BATCHES_PER_EPOCH * config.gan.batch, config)
        workers = _best_worker_count(g, arrays, device)
        yield from _step_rows(name, g, arrays, device, workers)
        if name == "studio":
            yield from _epoch_and_stack_rows(g, arrays, device, workers)
    if device == "cuda":
        yield paper_preset_row()


def _best_worker_count(g: GanSettings, arrays: Arrays, device: str) -> int:
    """The number of DataLoader workers with which the textbook loop is fastest: 0, 1 or 2."""
    seconds = {}
    for workers in (0, 1, 2):
        with separate_process(textbook_steps, g, arrays, device, workers) as peer:
            peer()
            seconds[workers] = wall_seconds(peer)
    return min(seconds, key=seconds.__getitem__)


def _step_rows(
    name: str, g: GanSettings, arrays: Arrays, device: str, workers: int
) -> Iterator[Row]:
    aim = f"at least {15 if device == 'cuda' else 2.5}"
    note = f"batch {g.batch}; DataLoader with {workers} workers, the best of 0, 1, 2"
    with separate_process(textbook_steps, g, arrays, device, workers) as peer:
        for precision in ("fp32", "bf16"):
            settings = replace(g, precision=precision)
            with separate_process(our_steps, settings, arrays, device) as ours:
                what = f"training on {device}, {name}'s networks, {precision}: textbook / ours"
                yield measure_ratio(what, peer, ours, REPEATS, aim, note)


def _epoch_and_stack_rows(
    g: GanSettings, arrays: Arrays, device: str, workers: int
) -> Iterator[Row]:
    epoch = arrays, device, workers, BATCHES_PER_EPOCH
    with (
        separate_process(textbook_steps, g, *epoch) as peer,
        separate_process(our_steps, g, arrays, device, BATCHES_PER_EPOCH) as ours,
    ):
        what = f"an epoch of {BATCHES_PER_EPOCH} batches on {device}, fp32: textbook / ours"
        yield measure_ratio(what, peer, ours, repeats=3)
    with separate_process(stacked_steps, g, arrays, device) as stacked:
        with separate_process(sequential_steps, g, arrays, device) as sequential:
            what = f"{STACKED_RUNS} runs on {device}, fp32: one after another / stacked"
            yield measure_ratio(what, sequential, stacked)
        with separate_process(our_steps, g, arrays, device, 1) as single:
            aim = "at most 2.5" if device == "cuda" else ""
            what = f"a step on {device}, fp32: {STACKED_RUNS} stacked runs / one"
            yield measure_ratio(what, stacked, single, aim=aim)


def paper_preset_row() -> Row:
    """Time of the preset `paper` for its samples, extrapolated from repeats, over two minutes."""
    config = PRESETS["paper"]
    g = replace(config.gan, precision="bf16")
    arrays = random_arrays(BATCHES_PER_EPOCH * g.batch, config)
    scale = PAPER_SAMPLES / (STEPS_PER_REPEAT * g.batch) / PAPER_SECONDS
    with separate_process(our_steps, g, arrays, "cuda") as work:
        work()
        ratios = sorted(wall_seconds(work) * scale for _ in range(5))
    what = f"{PAPER_SAMPLES:,} samples of the preset paper, bf16 / two minutes"
    return Row(what, ratios[2], ratios[0], ratios[-1], "at most 1")
