"""`make costs`: how time grows with what is asked for. A plot for each, with the exponent of a power law fitted to it, and a table of all.

Pictures and README.md of docs/costs/ are written anew. An exponent of 1 is twice the time for twice the size, 0 is the same time for any;
it holds for the sizes drawn and no others, as what does not grow weighs most where sizes are small.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.__main__ import processor_name
from benchmarks.table import wall_seconds
from core.config import PRESETS, GanSettings, replace
from core.conformal import prediction
from core.models import gan
from core.models.networks import Classifier

FOLDER = Path(__file__).with_name("costs")
REPEATS, STEPS, BATCH, CLASSES = 3, gan.R1_INTERVAL, 16, 6  # so many steps hold D's penalty once
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
    """Times at growing sizes."""

    key: str  # a key of SIZES, and the picture's name
    title: str  # what is done
    axis: str  # what grows
    sizes: tuple[int, ...]
    times: tuple[tuple[float, ...], ...]  # s, REPEATS of each size

    @property
    def medians(self) -> list[float]:
        return [statistics.median(t) for t in self.times]


def power_law(sizes, times) -> tuple[float, float, float]:
    """time = a · size^b by least squares on logarithms: b, b's standard error, a. Raises ValueError for fewer than three, or not positive.

    The error is that of a line through independent points: it tells scatter, and only in part that the law is none.
    """
    x, y = np.asarray(sizes, np.float64), np.asarray(times, np.float64)
    if len(x) != len(y) or len(x) < 3 or not (x > 0).all() or not (y > 0).all() or np.ptp(x) == 0:
        raise ValueError(
            f"a power law needs three different positive sizes and times, not {list(sizes)} and {list(times)}"
        )
    x, y = np.log(x), np.log(y)
    away = x - x.mean()
    b = float(away @ y / (away @ away))
    rest = y - y.mean() - b * away
    return (
        b,
        float(np.sqrt(rest @ rest / (len(x) - 2) / (away @ away))),
        float(np.exp(y.mean() - b * x.mean())),
    )


# ------------------------------------------------------------------ what is measured


def p_values(n: int, m: int) -> Callable[[], object]:
    """§3.1, Eq. (9) for m rows of CLASSES scores against n calibration scores."""
    rng = np.random.default_rng(0)
    alpha_cal, alpha = rng.normal(size=n), rng.normal(size=(m, CLASSES))
    return lambda: prediction.p_values(alpha_cal, alpha)


def training(g: GanSettings, classes: int, pairs: int) -> tuple[gan.GanState, gan.TrainingData]:
    """A fresh training of these networks and so many pairs of noise of the right sizes, which take as long as real ones."""
    rng, s = np.random.default_rng(0), PRESETS["demo"].logmel
    x, y = (
        torch.from_numpy(rng.uniform(-1, 1, (pairs, 1, *size)).astype(np.float32))
        for size in ((28, 28), (s.columns, s.bands))
    )
    c, label = (
        torch.from_numpy(rng.random((pairs, classes), dtype=np.float32)),
        torch.from_numpy(rng.integers(0, classes, pairs)),
    )
    Q = Classifier((s.columns, s.bands), (16, 32, 64, 128), classes).eval()
    state = gan.new_state(g, classes, (s.columns, s.bands), Q, 0, "cpu")
    return state, gan.TrainingData(
        x, c, label, y, label, lambda epoch: (rng.permutation(pairs), rng.permutation(pairs))
    )


def steps(records: Iterator, count: int = STEPS) -> Callable[[], object]:
    return lambda: [next(records) for _ in range(count)]


def trained(batch: int = BATCH, classes: int = CLASSES, pairs: int = 0) -> Callable[[], object]:
    """STEPS steps of §3.2, or with `pairs` one epoch of them."""
    g = replace(PRESETS["demo"], gan={"batch": batch, "steps": 10**6}).gan
    state, pool = training(g, classes, pairs or 4 * batch)
    return steps(gan.train(state, pool, g), pairs // batch or STEPS)


def stacked(runs: int) -> Callable[[], object]:
    """STEPS steps of so many runs as one stack."""
    from core.models import stacked_training

    g = replace(PRESETS["demo"], gan={"batch": BATCH, "steps": 10**6}).gan
    states, pools = zip(*(training(g, CLASSES, 4 * BATCH) for _ in range(runs)), strict=True)
    together = stacked_training.stack_states(states)
    batches = [tuple(t[:BATCH] for t in (p.x, p.c, p.target, p.y, p.y_target)) for p in pools]
    return lambda: [
        stacked_training.step_together(together, states, g, batches) for _ in range(STEPS)
    ]


def growths() -> Iterator[Growth]:
    """Each in turn. Of one series the sizes take turns, so that a busy moment of the machine meets them all."""
    n, m, each = SIZES["calibration"][2], SIZES["rows"][3], f"{STEPS} training steps"
    made = {
        "calibration": (
            f"p-values of {m:,} rows × {CLASSES}",
            "calibration scores n",
            lambda size: p_values(size, m),
        ),
        "rows": (
            f"p-values, n = {n:,}",
            f"test rows m (× {CLASSES} classes)",
            lambda size: p_values(n, size),
        ),
        "batch": (each, "pairs in a batch", lambda size: trained(batch=size)),
        "pairs": (f"an epoch in batches of {BATCH}", "pairs", lambda size: trained(pairs=size)),
        "classes": (f"{each} of {BATCH} pairs", "classes", lambda size: trained(classes=size)),
        "stack": (f"{each} of {BATCH} pairs for each run", "runs stacked", stacked),
    }
    if not importlib.util.find_spec("core.models.stacked_training"):
        made.pop("stack")
    for key, (title, axis, make) in made.items():
        work = [make(size) for size in SIZES[key]]
        for once in work:
            once()
        rounds = [[wall_seconds(once) for once in work] for _ in range(REPEATS)]
        yield Growth(key, title, axis, SIZES[key], tuple(zip(*rounds)))


# ------------------------------------------------------------------ how it is told


def draw(g: Growth, path: Path) -> None:
    """All repeats as dots, the law as a line, both axes logarithmic; a small file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    b, error, a = power_law(g.sizes, g.medians)
    figure, axes = pyplot.subplots(figsize=(4.4, 3.2), dpi=90, layout="constrained")
    ends = np.array([g.sizes[0], g.sizes[-1]], np.float64)
    axes.loglog(ends, a * ends**b, color="#7a8499", lw=1.2)
    for size, times in zip(g.sizes, g.times):
        axes.loglog([size] * len(times), times, ".", color="#2f6fde", ms=6)
    axes.set(title=f"{g.title}\nexponent {b:.2f} ± {error:.2f}", xlabel=g.axis, ylabel="seconds")
    axes.set_xticks(g.sizes, [f"{size:,}" for size in g.sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.title.set_fontsize(10)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def table(found: list[Growth], load: float) -> str:
    """docs/costs/README.md: a row for each, and where and how it was measured."""
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    busy = (
        "the machine was idle"
        if load < 0.3
        else f"**other programs took about {load:.1f} processors meanwhile**: figures are rough"
    )
    head = (
        f"# How cost grows\n\nWritten by `make costs` on {time.strftime('%Y-%m-%d')}: {processor_name()}, {cores} cores, {threads} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}; {busy}. Medians of {REPEATS} repeats, smallest and largest in "
        "brackets; the exponent b of time = a · size^b by least squares on logarithms, with its standard error. The networks are those of "
        "the preset demo.\n\n"
        "| what is done | what grows | from | to | exponent |\n|---|---|---|---|---|\n"
    )
    rows = []
    for g in found:
        b, error, _ = power_law(g.sizes, g.medians)
        ends = [f"{g.sizes[k]:,}: {_range(g.times[k])}" for k in (0, -1)]
        rows.append(f"| {g.title} | {g.axis} | {ends[0]} | {ends[1]} | **{b:.2f} ± {error:.2f}** |")
    pictures = " ".join(f"![{g.title}: seconds against {g.axis}]({g.key}.png)" for g in found)
    return head + "\n".join(rows) + f"\n\n{pictures}\n"


def _range(times: tuple[float, ...]) -> str:
    unit, scale = ("s", 1.0) if min(times) >= 1 else ("ms", 1e3)
    return f"{scale * statistics.median(times):.3g} {unit} ({scale * min(times):.3g}–{scale * max(times):.3g})"


def main() -> None:
    load = os.getloadavg()[0]
    FOLDER.mkdir(exist_ok=True)
    found = []
    for g in growths():
        b, error, _ = power_law(g.sizes, g.medians)
        draw(g, FOLDER / f"{g.key}.png")
        print(f"{g.title:<52} against {g.axis:<28} exponent {b:5.2f} ± {error:.2f}", flush=True)
        found.append(g)
    (FOLDER / "README.md").write_text(table(found, load), "utf-8")
    print(f"Written: {FOLDER / 'README.md'}")


if __name__ == "__main__":
    main()
