"""Training (§3, §3.2) against a textbook loop of the same networks, losses, batch and order: samples a second, data loading counted in.

Each side has a process of its own, so that neither gains by what the other has set up; they take turns.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from benchmarks.table import Row, measure_ratio
from benchmarks.textbook import PairDataset, TextbookLoop
from core.config import PRESETS, GanSettings, with_method
from core.models import cuda_graphs, gan, stacked_training
from core.models.networks import Classifier

CLASSES, STEPS_PER_REPEAT = (
    6,
    16,
)  # steps of one repeat; every eighth has D's penalty, so a multiple of that
BATCHES_PER_EPOCH = 32  # batches in an epoch
STACKED_RUNS = 8  # in a stack
PAPER_SAMPLES = 7_442 * 280  # of the preset `paper`: CREMA-D's clips, and the authors' epochs


def random_arrays(
    n: int, columns: int, bands: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Faces, conditions, targets and spectrograms of the right sizes: what they show does not change the time."""
    rng = np.random.default_rng(0)
    x, y = (
        rng.uniform(-1, 1, (n, 1, *size)).astype(np.float32)
        for size in ((28, 28), (columns, bands))
    )
    return x, rng.random((n, CLASSES), dtype=np.float32), rng.integers(0, CLASSES, n), y


def frozen_classifier(y: np.ndarray, device: str) -> Classifier:
    """A frozen Q of the usual size."""
    return Classifier((y.shape[2], y.shape[3]), (16, 32, 64, 128), CLASSES).to(device).eval()


def next_steps(steps: Iterator, device: str, count: int = STEPS_PER_REPEAT) -> Callable[[], None]:
    """The next `count` steps of a training, to their end on the device."""

    def work() -> None:
        for _ in range(count):
            next(steps)
        if device != "cpu":
            torch.cuda.synchronize()

    return work


def make_pool(arrays: tuple, device: str) -> gan.TrainingData:
    x, c, label, y = (torch.from_numpy(a).to(device) for a in arrays)
    rng = np.random.default_rng(0)
    return gan.TrainingData(
        x, c, label, y, label, lambda epoch: (rng.permutation(len(x)), rng.permutation(len(x)))
    )


def our_steps(
    g: GanSettings, Q: Classifier, arrays: tuple, device: str, count: int = STEPS_PER_REPEAT
) -> Callable[[], None]:
    """Some steps of an endless training of ours, as the pipeline has it."""
    state = gan.new_state(g, CLASSES, tuple(arrays[3].shape[2:]), Q, 0, device)  # type: ignore[arg-type]
    if device == "cpu":
        gan.retain_freed_memory()
    return next_steps(
        gan.train(
            state,
            make_pool(arrays, device),
            replace(g, steps=10**9),
            cuda_graphs.new_step_function(),
        ),
        device,
        count,
    )


def textbook_steps(
    g: GanSettings,
    Q: Classifier,
    arrays: tuple,
    device: str,
    workers: int,
    count: int = STEPS_PER_REPEAT,
) -> Callable[[], None]:
    """Some steps of the peer, its DataLoader going on from one call to the next."""
    loop = TextbookLoop(g, CLASSES, tuple(arrays[3].shape[2:]), Q, device)  # type: ignore[arg-type]
    loader = loop.loader(PairDataset(*arrays), workers)

    def endless():
        while True:
            yield from loop.epoch(loader)

    return next_steps(endless(), device, count)


def sequential_steps(
    g: GanSettings, Q: Classifier, arrays: tuple, device: str
) -> Callable[[], None]:
    """A step of each of RUNS runs."""
    runs = [
        our_steps(g, frozen_classifier(arrays[3], device), arrays, device, 1)
        for _ in range(STACKED_RUNS)
    ]
    return lambda: [run() for run in runs] and None


def stacked_steps(g: GanSettings, Q: Classifier, arrays: tuple, device: str) -> Callable[[], None]:
    """A step of RUNS runs at once."""
    shape = tuple(arrays[3].shape[2:])
    states = [
        gan.new_state(g, CLASSES, shape, frozen_classifier(arrays[3], device), k, device)
        for k in range(STACKED_RUNS)
    ]  # type: ignore[arg-type]
    together, p, take, i = (
        stacked_training.stack_states(states),
        make_pool(arrays, device),
        cuda_graphs.new_step_function(),
        torch.arange(g.batch, device=device),
    )
    if device == "cpu":
        gan.retain_freed_memory()
    batch = p.x[i], p.c[i], p.target[i], p.y[i], p.y_target[i]

    def work() -> None:
        stacked_training.step_together(together, states, g, [batch] * STACKED_RUNS, take)
        if device != "cpu":
            torch.cuda.synchronize()

    return work


# ------------------------------------------------------------------ each side in its own process


def _serve_calls(
    pipe, make: Callable[..., Callable[[], None]], arguments: tuple, threads: int
) -> None:
    torch.set_num_threads(threads)
    work = make(*arguments)
    while pipe.recv():
        work()
        pipe.send(True)


@contextlib.contextmanager
def separate_process(
    make: Callable[..., Callable[[], None]], *arguments
) -> Iterator[Callable[[], None]]:
    """What `make` makes of the arguments, living in a process of its own until the block ends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=_serve_calls,
        args=(
            there,
            make,
            arguments,
            int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        ),
    )
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


def rows() -> list[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    aim = f"at least {15 if device == 'cuda' else 2.5}"
    found = []
    for name, config in (
        ("studio", PRESETS["demo"]),
        ("paper", with_method("paper", PRESETS["demo"])),
    ):
        g, s = config.gan, config.logmel
        arrays = random_arrays(BATCHES_PER_EPOCH * g.batch, s.columns, s.bands)
        Q = frozen_classifier(arrays[3], "cpu")
        with contextlib.ExitStack() as stack:
            took = {}
            for n in (0, 1, 2):
                with separate_process(textbook_steps, g, Q, arrays, device, n) as peer:
                    peer()
                    begun = time.perf_counter()
                    peer()
                    took[n] = time.perf_counter() - begun
            best = min(took, key=took.__getitem__)
            peer = stack.enter_context(separate_process(textbook_steps, g, Q, arrays, device, best))
            note = f"batch {g.batch}; DataLoader with {best} workers, the best of 0, 1, 2"
            for precision in ("fp32", "bf16"):
                mine = stack.enter_context(
                    separate_process(our_steps, replace(g, precision=precision), Q, arrays, device)
                )
                what = f"training on {device}, {name}'s networks, {precision}: textbook / ours"
                found.append(measure_ratio(what, peer, mine, aim=aim, note=note, repeats=7))
        if name == "studio":
            with (
                separate_process(
                    textbook_steps, g, Q, arrays, device, best, BATCHES_PER_EPOCH
                ) as peer,
                separate_process(our_steps, g, Q, arrays, device, BATCHES_PER_EPOCH) as mine,
            ):
                found.append(
                    measure_ratio(
                        f"an epoch of {BATCHES_PER_EPOCH} batches on {device}, fp32: textbook / ours",
                        peer,
                        mine,
                        repeats=3,
                    )
                )
            with (
                separate_process(sequential_steps, g, Q, arrays, device) as singly,
                separate_process(stacked_steps, g, Q, arrays, device) as together,
            ):
                found.append(
                    measure_ratio(
                        f"{STACKED_RUNS} runs on {device}, fp32: one after another / stacked",
                        singly,
                        together,
                    )
                )
            with (
                separate_process(our_steps, g, Q, arrays, device, 1) as single,
                separate_process(stacked_steps, g, Q, arrays, device) as together,
            ):
                goal = "at most 2.5" if device == "cuda" else ""
                found.append(
                    measure_ratio(
                        f"a step on {device}, fp32: {STACKED_RUNS} stacked runs / one",
                        together,
                        single,
                        aim=goal,
                    )
                )
    if device == "cuda":
        found.append(paper_preset_row())
    return found


def paper_preset_row() -> Row:
    """The time that the preset `paper` takes for its samples, from a repeat's rate, over two minutes."""
    g, s = replace(PRESETS["paper"].gan, precision="bf16"), PRESETS["paper"].logmel
    arrays = random_arrays(BATCHES_PER_EPOCH * g.batch, s.columns, s.bands)
    with separate_process(
        our_steps, g, frozen_classifier(arrays[3], "cpu"), arrays, "cuda"
    ) as work:
        work()
        spent = []
        for _ in range(5):
            begun = time.perf_counter()
            work()
            spent.append(
                (time.perf_counter() - begun) / (STEPS_PER_REPEAT * g.batch) * PAPER_SAMPLES / 120
            )
    spent.sort()
    return Row(
        f"{PAPER_SAMPLES:,} samples of the preset paper, bf16 / two minutes",
        spent[2],
        spent[0],
        spent[-1],
        "at most 1",
    )
