"""How much of the device a training step (§3) uses: its floating-point operations a second as a share of one large matrix product's.

Multiplications and additions of all products and convolutions of a step, forward and backward, are counted by torch; whatever else a step
does (norms, noise, optimisers, moving memory) counts as time and not as work. So no training reaches 1, and one of small networks is far
below: it says what is left, not what is wrong.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks import training
from benchmarks.table import Row, wall_seconds
from core.config import PRESETS, GanSettings, with_method
from core.models.networks import Classifier

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}  # of the square matrices
REPEATS = 7


def matrix_product(device: str, kind: torch.dtype) -> Callable[[], None]:
    """One product of two large square matrices, to its end on the device."""
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
    """Counts by torch's own formulas. Its FlopCounterMode also follows modules, which a gradient of a gradient (R1) does not allow."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def count_operations(g: GanSettings, Q: Classifier, arrays: tuple) -> float:
    """Multiplications and additions of one step, the mean over STEPS of them: on the CPU, where each is really called."""
    work = training.our_steps(g, Q, arrays, "cpu")
    with OperationCounter() as counter:
        work()
    return counter.total / training.STEPS_PER_REPEAT


def rows() -> list[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    torch.backends.cuda.matmul.allow_tf32 = False
    kinds = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if device == "cuda" else {})
    found = []
    for name, config in (
        ("studio", PRESETS["demo"]),
        ("paper", with_method("paper", PRESETS["demo"])),
    ):
        g, s = config.gan, config.logmel
        Q = Classifier((s.columns, s.bands), (16, 32, 64, 128), training.CLASSES).eval()
        arrays = training.random_arrays(32 * g.batch, s.columns, s.bands)
        work = count_operations(g, Q, arrays)
        for precision, kind in kinds.items():
            told = dataclasses.replace(g, precision=precision)
            step, whole = (
                training.our_steps(told, Q.to(device), arrays, device),
                matrix_product(device, kind),
            )
            step(), whole()
            pairs = [
                (
                    training.STEPS_PER_REPEAT * work / wall_seconds(step),
                    2 * MATRIX_SIDE[device] ** 3 / wall_seconds(whole),
                )
                for _ in range(REPEATS)
            ]
            shares = [ours / bound for ours, bound in pairs]
            ours, bound = (statistics.median(p) / 1e9 for p in zip(*pairs))
            note = (
                f"{ours:,.0f} of {bound:,.0f} GFLOP/s; {work / g.batch / 1e6:,.1f} MFLOP for each of {g.batch} pairs, "
                f"{torch.get_num_threads()} threads, {training.STEPS_PER_REPEAT} steps, product of side {MATRIX_SIDE[device]:,}"
            )
            what = f"training on {device}, {name}'s networks, {precision}: step / matrix product, FLOP/s"
            found.append(Row(what, statistics.median(shares), min(shares), max(shares), note=note))
    return found
