"""This benchmark holds bf16 to fp32 by equivalence.

It tells how far FID and accuracy differ over paired seeds of a short demo training.

No timing: forty trainings, more than an hour of one core; so it runs only where it is asked for,
and goes on where it was stopped. A method that is equal, but whose trainings are independent,
passes for one figure in 6 of 100 tries with five pairs, in 32 with ten, in 81 with twenty
(simulated: normal figures of one spread).
"""

from __future__ import annotations

import os

import numpy as np
from scipy import stats

from benchmarks.table import Row
from core import files
from core.config.presets import PRESETS
from core.config.settings import Config, replace
from core.data import preparation, prepared_corpora
from core.evaluation.protocol import Cell
from core.experiments.sweeping import sweep
from core.runs.directory import Run

SEEDS = 20
SHORT_CONFIG = replace(
    PRESETS["demo"],
    name="precision",
    f_s={"steps": 300},
    f_t={"steps": 300},
    gan={"steps": 400},
    evaluate={"every": 400, "rows": ("S1 + generated",)},
)


def fid_and_accuracy(run: Run) -> tuple[float, float]:
    """FID, and the accuracy in points of a classifier trained on S1's voices and generated ones."""
    r = run.json("results")
    return r["quality"]["FID"], 100 * r["augmentation"]["S1 + generated"]["accuracy"]


def equivalence_row(name: str, plain: np.ndarray, other: np.ndarray) -> Row:
    """The ratio is the far end of the 90 % interval of the mean difference of pairs.

    Its unit is the standard deviation of `plain` between its seeds; below 1 the two are equivalent
    by this protocol. The row's spread is the interval itself, in the same unit.
    """
    d, sd = other - plain, plain.std(ddof=1)
    half = stats.t.ppf(0.95, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
    low, high = (d.mean() - half) / sd, (d.mean() + half) / sd
    note = (
        f"mean {plain.mean():.2f} and {other.mean():.2f}, difference {d.mean():+.2f} ± {half:.2f}, "
        f"seed-sd {sd:.2f}, {len(d)} pairs"
    )
    return Row(name, max(abs(low), abs(high)), low, high, "below 1", note)


def rows() -> list[Row]:
    def config(precision: str, seed: int) -> Config:
        return replace(SHORT_CONFIG, seed=seed, gan={"precision": precision})

    folder = files.checkpoints_folder() / ".cache" / "precision"
    cells = {
        (p, seed): Cell(p, "ours", config(p, seed))
        for seed in range(SEEDS)
        for p in ("fp32", "bf16")
    }
    workers = int(os.environ.get("WORKERS", "1"))
    if not prepared_corpora.corpus_path("demo", SHORT_CONFIG.data.demo_takes).exists():
        preparation.prepare_corpus(
            "demo", None, preparation.PreparationSettings(takes=SHORT_CONFIG.data.demo_takes)
        )
    done = sweep.train_cells(
        list(cells.values()),
        folder,
        workers,
        "cpu",
        tell=lambda o, n, of: print(o.line(n, of), flush=True),
    )
    ids = {o.cell.config: o.run for o in done if o.state in ("done", "was done")}
    if len(ids) < len(cells):
        raise SystemExit(
            f"{len(cells) - len(ids)} of {len(cells)} trainings did not end, "
            f"for the reasons above: give the command again"
        )
    got = {
        k: np.array(
            [fid_and_accuracy(Run(folder / ids[cells[k, seed].config])) for seed in range(SEEDS)]
        )
        for k in ("fp32", "bf16")
    }
    return [
        equivalence_row(
            f"bf16 / fp32: {n}, sds of fp32's seeds", got["fp32"][:, i], got["bf16"][:, i]
        )
        for i, n in enumerate(("FID", "accuracy"))
    ]
