"""`make costs`: how time grows with size, as plots and exponents of fitted power laws.

Writes the pictures and README.md of docs/costs/. Exponent 1: twice the size takes twice the time;
0: size does not matter. It holds for the measured sizes alone, because a constant share of the time
weighs most where sizes are small.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import training
from benchmarks.__main__ import machine_text
from benchmarks.table import wall_seconds
from core import files
from core.config.presets import PRESETS
from core.config.settings import replace
from core.conformal import prediction
from core.models import gan

FOLDER = files.ROOT / "docs" / "costs"
REPEATS, BATCH, CLASSES = 3, 16, 6
STEPS = gan.R1_INTERVAL  # of a repeat; one of them has D's penalty
MAX_IDLE_LOAD = 0.3  # processors that other programs may take
SIZES = {
    "calibration": (1_000, 4_000, 16_000, 64_000, 256_000),
    "rows": (1_000, 4_000, 16_000, 64_000, 256_000),
    "batch": (4, 8, 16, 32, 64),
    "pairs": (128, 256, 512, 1024),
    "classes": (2, 4, 8, 16, 32),
    "stack": (1, 2, 4, 8),
}


@dataclass(frozen=True)
class Growth:
    """Times of one kind of work at growing sizes."""

    key: str  # a key of SIZES, and the picture's name
    title: str  # the work
    axis: str  # what grows
    sizes: tuple[int, ...]
    times: tuple[tuple[float, ...], ...]  # seconds, REPEATS of each size

    @property
    def medians(self) -> list[float]:
        return [statistics.median(t) for t in self.times]

    def exponent(self) -> str:
        b, error, _ = power_law(self.sizes, self.medians)
        return f"{b:.2f} ± {error:.2f}"


def power_law(sizes, times) -> tuple[float, float, float]:
    """time = a · size^b by least squares on logarithms: (b, its standard error, a).

    The error assumes independent deviations from the line: it measures scatter, and only in part
    that the growth is no power law. Raises ValueError for fewer than three different positive sizes
    or times that are not positive.

    >>> [round(value, 3) for value in power_law([1, 10, 100], [2, 20, 200])]
    [1.0, 0.0, 2.0]
    """
    x, y = np.asarray(sizes, np.float64), np.asarray(times, np.float64)
    if len(x) != len(y) or len(x) < 3 or not (x > 0).all() or not (y > 0).all() or np.ptp(x) == 0:
        raise ValueError(
            "a power law needs three different positive sizes and times, "
            f"not {list(sizes)} and {list(times)}"
        )
    x, y = np.log(x), np.log(y)
    away = x - x.mean()
    b = float(away @ y / (away @ away))
    rest = y - y.mean() - b * away
    error = float(np.sqrt(rest @ rest / (len(x) - 2) / (away @ away)))
    return b, error, float(np.exp(y.mean() - b * x.mean()))


# ------------------------------------------------------------------ the work


def p_values(n: int, m: int) -> Callable[[], object]:
    """§3.1, Eq. (9): m rows of CLASSES scores against n calibration scores."""
    rng = np.random.default_rng(0)
    alpha_cal, alpha = rng.normal(size=n), rng.normal(size=(m, CLASSES))
    return lambda: prediction.p_values(alpha_cal, alpha)


def gan_steps(
    batch: int = BATCH, classes: int = CLASSES, pairs: int = 0, runs: int = 0
) -> Callable[[], object]:
    """STEPS training steps (§3.2), with `pairs` an epoch of them, or STEPS of `runs` as a stack."""
    config = replace(PRESETS["demo"], gan={"batch": batch})
    arrays = training.random_arrays(pairs or 4 * batch, config, classes)
    if runs:
        step = training.stacked_steps(config.gan, arrays, "cpu", runs)
        return lambda: [step() for _ in range(STEPS)]
    return training.our_steps(config.gan, arrays, "cpu", pairs // batch or STEPS)


def growths() -> Iterator[Growth]:
    """The measured growths; sizes take turns, so that other load affects all of them alike."""
    n, m = SIZES["calibration"][2], SIZES["rows"][3]
    steps, axis = f"{STEPS} training steps", f"test rows m (× {CLASSES} classes)"
    kinds: dict[str, tuple[str, str, Callable[[int], Callable[[], object]]]] = {
        "calibration": (
            f"p-values of {m:,} rows × {CLASSES}",
            "calibration scores n",
            lambda size: p_values(size, m),
        ),
        "rows": (f"p-values, n = {n:,}", axis, lambda size: p_values(n, size)),
        "batch": (steps, "pairs in a batch", lambda size: gan_steps(batch=size)),
        "pairs": (f"an epoch in batches of {BATCH}", "pairs", lambda size: gan_steps(pairs=size)),
        "classes": (f"{steps} of {BATCH} pairs", "classes", lambda size: gan_steps(classes=size)),
        "stack": (
            f"{steps} of {BATCH} pairs for each run",
            "runs stacked",
            lambda size: gan_steps(runs=size),
        ),
    }
    for key, (title, axis, make) in kinds.items():
        work = [make(size) for size in SIZES[key]]
        for warm_up in work:
            warm_up()
        rounds = [[wall_seconds(repeat) for repeat in work] for _ in range(REPEATS)]
        yield Growth(key, title, axis, SIZES[key], tuple(zip(*rounds, strict=True)))


# ------------------------------------------------------------------ the report


def draw(g: Growth, path: Path) -> None:
    """Draw all repeats as dots and the power law as a line, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    b, _, a = power_law(g.sizes, g.medians)
    figure, axes = pyplot.subplots(figsize=(4.4, 3.2), dpi=90, layout="constrained")
    ends = np.array([g.sizes[0], g.sizes[-1]], np.float64)
    axes.loglog(ends, a * ends**b, color="#7a8499", lw=1.2)
    for size, times in zip(g.sizes, g.times, strict=True):
        axes.loglog([size] * len(times), times, ".", color="#2f6fde", ms=6)
    axes.set(title=f"{g.title}\nexponent {g.exponent()}", xlabel=g.axis, ylabel="seconds")
    axes.set_xticks(g.sizes, [f"{size:,}" for size in g.sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.title.set_fontsize(10)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def table(growths: list[Growth], load: float) -> str:
    """docs/costs/README.md: a row for each growth, and how it was measured."""
    busy = f"**other programs took about {load:.1f} processors**: figures are rough"
    state = "the machine was idle" if load < MAX_IDLE_LOAD else busy
    lines = [
        "# How cost grows",
        "",
        f"Written by `make costs` on {time.strftime('%Y-%m-%d')}: {machine_text()}; {state}.",
        f"Medians of {REPEATS} repeats, smallest and largest in brackets; the exponent b of",
        "time = a · size^b by least squares on logarithms, with its standard error. The networks",
        "are those of the preset demo.",
        "",
        "| work | what grows | from | to | exponent |",
        "|---|---|---|---|---|",
    ]
    for g in growths:
        first, last = (f"{g.sizes[k]:,}: {_range(g.times[k])}" for k in (0, -1))
        lines.append(f"| {g.title} | {g.axis} | {first} | {last} | **{g.exponent()}** |")
    pictures = [f"![{g.title}: seconds against {g.axis}]({g.key}.png)" for g in growths]
    return "\n".join([*lines, "", " ".join(pictures), ""])


def _range(times: tuple[float, ...]) -> str:
    unit, scale = ("s", 1.0) if min(times) >= 1 else ("ms", 1e3)
    low, middle, high = (scale * f(times) for f in (min, statistics.median, max))
    return f"{middle:.3g} {unit} ({low:.3g}–{high:.3g})"


def main() -> None:
    load = os.getloadavg()[0]
    FOLDER.mkdir(exist_ok=True)
    measured = []
    for g in growths():
        draw(g, FOLDER / f"{g.key}.png")
        print(f"{g.title:<52} against {g.axis:<28} exponent {g.exponent()}", flush=True)
        measured.append(g)
    (FOLDER / "README.md").write_text(table(measured, load), "utf-8")
    print(f"Written: {FOLDER / 'README.md'}")


if __name__ == "__main__":
    main()
