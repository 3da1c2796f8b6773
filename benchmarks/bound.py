"""Device utilisation of a training step (§3): its FLOP/s over those of one large matrix product.

torch counts the multiplications and additions of all products and convolutions, forward and
backward. Everything else (norms, noise, optimisers, memory traffic) adds time and no operations.
No training reaches 1, and one of small networks stays far below: the ratio shows the headroom.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks import training
from benchmarks.table import Row, wall_seconds
from core.config.settings import GanSettings

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}  # rows of the square matrices
REPEATS = 7


def matrix_product(device: str, kind: torch.dtype) -> Callable[[], None]:
    """One product of two large square matrices; ends when the device has finished it."""
    a, b = (
        torch.randn(MATRIX_SIDE[device], MATRIX_SIDE[device], device=device).to(kind)
        for _ in range(2)
    )

    def work() -> None:
        a @ b
        if device != "cpu":
            torch.cuda.synchronize()

    return work


class OperationCounter(TorchDispatchMode):
    """Counts operations by torch's formulas.

    torch's FlopCounterMode also tracks modules, which fails for a gradient of a gradient (R1).
    """

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def count_operations(g: GanSettings, arrays: training.Arrays) -> float:
    """Multiplications and additions of a step: the mean of STEPS_PER_REPEAT steps on the CPU."""
    work = training.our_steps(g, arrays, "cpu")
    with OperationCounter() as counter:
        work()
    return counter.total / training.STEPS_PER_REPEAT


def rows() -> Iterator[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(training.cpu_threads())
    torch.backends.cuda.matmul.allow_tf32 = False
    kinds = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if device == "cuda" else {})
    for name, config in training.method_configs().items():
        g, steps, side = config.gan, training.STEPS_PER_REPEAT, MATRIX_SIDE[device]
        arrays = training.random_arrays(training.BATCHES_PER_EPOCH * g.batch, config)
        operations = count_operations(g, arrays)
        for precision, kind in kinds.items():
            settings = dataclasses.replace(g, precision=precision)
            step = training.our_steps(settings, arrays, device)
            product = matrix_product(device, kind)
            step(), product()
            # FLOP/s of both in turns
            pairs = [
                (steps * operations / wall_seconds(step), 2 * side**3 / wall_seconds(product))
                for _ in range(REPEATS)
            ]
            shares = [ours / bound for ours, bound in pairs]
            ours, bound = (statistics.median(p) / 1e9 for p in zip(*pairs, strict=True))
            note = (
                f"{ours:,.0f} of {bound:,.0f} GFLOP/s; {operations / g.batch / 1e6:,.1f} MFLOP for "
                f"each of {g.batch} pairs, {torch.get_num_threads()} threads, {steps} steps, "
                f"product of side {side:,}"
            )
            what = f"training on {device}, {name}'s networks, {precision}: FLOP/s of step / product"
            yield Row(what, statistics.median(shares), min(shares), max(shares), note=note)
