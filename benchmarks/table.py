"""A benchmark is a ratio against a named peer, measured in the same run.

Repeats are taken in turns; the table shows their median with its spread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table. `measure_ratio` says which of the two is on top.

    The ratio is time of ours / time of the bound, or of the peer / ours.
    """

    name: str  # what was measured, against what, at which size
    ratio: float  # median over the repeats
    low: float  # smallest and largest of the repeats
    high: float
    aim: str = ""  # e.g. "at most 1.5"; "" where none is set
    note: str = ""

    def __str__(self) -> str:
        spread = f"{self.low:.2f}–{self.high:.2f}"
        rest = [t for t in (self.aim and f"aim: {self.aim}", self.note) if t]
        return "  ".join([f"{self.name:<76} {self.ratio:6.2f}×  ({spread})", *rest])


def wall_seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure_ratio(
    name: str,
    top: Callable[[], object],
    bottom: Callable[[], object],
    repeats: int = 5,
    aim: str = "",
    note: str = "",
) -> Row:
    """The row's ratio is time of `top` / time of `bottom`.

    There is one warm-up of each, then `repeats` of both in turns, so that noise meets both alike.
    """
    top(), bottom()
    found = [wall_seconds(top) / wall_seconds(bottom) for _ in range(repeats)]
    return Row(name, statistics.median(found), min(found), max(found), aim, note)
