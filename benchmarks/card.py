"""The figures of this folder on a CUDA card, in one go that fits into ten minutes.

Steps of both methods against the textbook loop, stacked runs, use of the device, the preset `paper`
and time to quality, in this order: what is left after BUDGET_SECONDS is named and not begun. On a
machine without a card nothing is measured, unless a device is given, as the tests do.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import torch

from benchmarks import bound, quality, training
from benchmarks.table import Row, measure_ratio, wall_seconds
from core.config.settings import Config

BUDGET_SECONDS = 480.0  # of ten minutes, the last measurement may take two


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of each is measured."""

    batch: int = 0  # pairs of a step; 0: the preset's
    batches: int = training.BATCHES_PER_EPOCH
    steps: int = training.STEPS_PER_REPEAT
    repeats: int = 5
    stack: int = training.STACKED_RUNS


def rows(device: str = "cuda", sizes: Sizes = Sizes(), most: float = BUDGET_SECONDS) -> Iterator:
    """Rows of all parts that fit into `most` seconds, and a line for each that does not."""
    if device == "cuda" and not torch.cuda.is_available():
        yield "no CUDA card: nothing measured"
        return
    yield device_line(device)
    begun = time.monotonic()
    for name, part in parts(device, sizes).items():
        if time.monotonic() - begun > most:
            yield f"{name}: not begun, {most:.0f} s were spent before it"
            continue
        yield from part()


def device_line(device: str) -> str:
    """What is measured on."""
    if device != "cuda":
        return f"{device}, torch {torch.__version__}"
    card = torch.cuda.get_device_properties(0)
    memory = f"{card.total_memory / 2**30:.0f} GiB"
    return f"{card.name}, {memory}, CUDA {torch.version.cuda}, torch {torch.__version__}"


def parts(device: str, sizes: Sizes) -> dict[str, Callable[[], Iterator[Row]]]:
    """Name -> measurement."""
    configs = training.method_configs()
    out: dict[str, Callable[[], Iterator[Row]]] = {
        f"steps of {name}": lambda name=name: step_rows(name, configs[name], device, sizes)
        for name in configs
    }
    out["stacked runs"] = lambda: stack_rows(configs["studio"], device, sizes)
    if device == "cuda":
        out["use of the device"] = bound.rows
        out["preset paper"] = lambda: iter([training.paper_preset_row()])
        out["time to quality"] = lambda: quality.rows(seeds=1)
    return out


def _settings(config: Config, sizes: Sizes, precision: str):
    batch = sizes.batch or config.gan.batch
    return dataclasses.replace(config.gan, batch=batch, precision=precision)


def step_rows(name: str, config: Config, device: str, sizes: Sizes) -> Iterator[Row]:
    """Steps of the textbook loop over ours, with our samples a second."""
    plain = _settings(config, sizes, "fp32")
    arrays = training.random_arrays(sizes.batches * plain.batch, config)
    peer = training.textbook_steps(plain, arrays, device, 0, sizes.steps)
    for precision in ("fp32", "bf16"):
        ours = training.our_steps(_settings(config, sizes, precision), arrays, device, sizes.steps)
        what = f"training on {device}, {name}'s networks, {precision}: textbook / ours"
        row = measure_ratio(what, peer, ours, sizes.repeats)
        rate = sizes.steps * plain.batch / wall_seconds(ours)
        note = f"batch {plain.batch}, no DataLoader workers, ours {rate:,.0f} samples/s"
        yield dataclasses.replace(row, note=note)


def stack_rows(config: Config, device: str, sizes: Sizes) -> Iterator[Row]:
    """A step of several stacked runs over one run's."""
    g = _settings(config, sizes, "fp32")
    arrays = training.random_arrays(sizes.batches * g.batch, config)
    stacked = training.stacked_steps(g, arrays, device, sizes.stack)
    single = training.our_steps(g, arrays, device, 1)
    what = f"a step on {device}, fp32: {sizes.stack} stacked runs / one"
    yield measure_ratio(what, stacked, single, sizes.repeats)
