"""§3.1, §4.4: the calibration size r, chosen as the paper chose it: against full CP.

The paper compares inductive CP with a random calibration set of size r with Algorithm 1, by how
well both classify. `compare` does so for one set of calibration points and one of judged points:
inductive(r) on f_S's softmax and on a light head, which trains on the rest; cross-conformal; full.
r is chosen on held-back points of S2 (`held_back`); S4 shows what the choice comes to. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from core.config.settings import Config
from core.conformal import prediction, predictor
from core.conformal.prediction import Groups, Measure
from core.conformal.predictor import Kind, Predictor
from core.files import UserError
from core.runs.directory import Run

SHARES = (0.25, 0.5, 0.75, 1.0)
LEVELS = (0.05, 0.1, 0.2)  # significance levels eps at which error and set size are measured
DRAWS = 5  # random draws of the calibration points; more where a spread must be exact
MAX_JUDGED = 300  # judged points of a draw: full CP refits the head for each of them and each label
HELD_BACK = 0.5  # share of S2 that judges, where r is chosen

Judged = Literal["S2", "S4"]


@dataclass(frozen=True)
class Points:
    """Outputs of f_S for some faces (reverse runs: voices)."""

    o: np.ndarray  # (n, K) softmax
    features: np.ndarray  # (n, F) whitened
    label: np.ndarray  # (n,)

    def take(self, rows: np.ndarray) -> Points:
        return Points(self.o[rows], self.features[rows], self.label[rows])


@dataclass(frozen=True)
class Choice:
    """How one predictor classifies the judged points, over random draws D of its points."""

    name: str  # as in "inductive(50 %) on the softmax"
    kind: Kind
    r: float  # share of the points that calibrates
    n: int  # scores that a new point is ranked among
    judged: int  # points of one draw that are judged
    accuracy: np.ndarray  # (D,) share of right forced predictions
    error: np.ndarray  # (D, levels) share of sets without the true label, at LEVELS
    size: np.ndarray  # (D, levels) mean number of labels in a set


def predictors(
    cal: Points, measure: Measure, groups: Groups, seed: int
) -> Iterator[tuple[str, float, Predictor]]:
    """The compared predictors, one draw of each: name, r, predictor.

    inductive(r): a share r calibrates, on the light head the rest trains it.
    """
    n, none = len(cal.label), np.zeros(0)
    f = Predictor("inductive", measure, groups, cal.o, cal.label, cal.features, none, none, none)
    order = np.random.default_rng(seed).permutation(n)
    for kind, where in (("inductive", "on the softmax"), ("head", "on the light head")):
        for r in SHARES[: None if kind == "inductive" else -1]:
            fold = np.zeros(n, np.int64)
            fold[order[: max(1, round(r * n))]] = 1
            name = f"inductive({r:.0%}) {where}"
            yield name, r, replace(f, kind=kind, fold=fold)  # type: ignore[arg-type]
    for kind, name in (("cross", "cross-conformal, light head"), ("full", "full CP, light head")):
        fold = predictor.draw_folds(kind, n, 1.0, seed)  # type: ignore[arg-type]
        yield name, 1.0, replace(f, kind=kind, fold=fold)  # type: ignore[arg-type]


def forced_prediction(p: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The label of highest p-value, among equal ones the least strange: (m, K), (m, K) -> (m,)."""
    return np.where(p == p.max(axis=1, keepdims=True), alpha, np.inf).argmin(axis=1)


def compare(
    draws: list[tuple[Points, Points]],
    measure: Measure = "margin",
    groups: Groups = "pooled",
    seed: int = 0,
    report: Callable[[int, int], None] = lambda *a: None,
) -> tuple[Choice, ...]:
    """Every predictor on every draw (calibration points, judged points), in the order of a table.

    `report(done, total)` is called after each predictor.
    """
    found: dict[str, list] = {}
    for d, (cal, test) in enumerate(draws):
        rows = list(predictors(cal, measure, groups, seed + d))
        for i, (name, r, f) in enumerate(rows):
            if f.kind == "full" and d and draws[d] is draws[0]:  # it draws nothing at random
                found[name].append(found[name][0])
                continue
            p, alpha = predictor.rank(f, test.o, test.features)
            true = prediction.true_scores(p, test.label)
            right = float((forced_prediction(p, alpha) == test.label).mean())
            error = [float((true <= eps).mean()) for eps in LEVELS]
            size = [float(prediction.prediction_sets(p, eps).sum(axis=1).mean()) for eps in LEVELS]
            about = f.kind, r, int(f.calibrates.sum()), len(test.label)
            found.setdefault(name, []).append((about, right, error, size))
            report(d * len(rows) + i + 1, len(draws) * len(rows))
    return tuple(
        Choice(name, *parts[0][0], *(np.array([p[k] for p in parts]) for k in (1, 2, 3)))
        for name, parts in found.items()
    )


def held_back(points: Points, draws: int, most: int, seed: int) -> list[tuple[Points, Points]]:
    """Random halves of the same points: one calibrates, at most `most` of the other are judged."""
    found, cut = [], round((1 - HELD_BACK) * len(points.label))
    for d in range(draws):
        order = np.random.default_rng([seed, d]).permutation(len(points.label))
        found.append((points.take(order[:cut]), points.take(order[cut:][:most])))
    return found


def of_run(
    run: Run,
    judged: Judged = "S2",
    arrays: Mapping[str, np.ndarray] | None = None,
    draws: int = DRAWS,
    most: int = MAX_JUDGED,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda *a: None,
) -> tuple[Choice, ...]:
    """`compare` for a run, with its measure and groups.

    judged S2: halves of S2, for choosing r. S4: all of S2 against the same `most` points of S4 in
    every draw, for reporting. `arrays` stands for the run's own outputs.npz, where that holds no
    features of f_S. Raises UserError without such features.
    """
    arrays = run.arrays() if arrays is None else arrays
    if any(name not in arrays for name in (*predictor.HEAD_ARRAYS, "features_S4")):
        raise UserError(
            f"{run.shown('outputs.npz')} has no features of f_S, which a light head needs: "
            f"prepare the run's corpora and use python -m core conformal {run.id} --choose-r, "
            "or train it again"
        )
    s = run.config.conformal
    S2, S4 = (Points(*(arrays[f"{a}_{k}"] for a in ("o", "features", "label"))) for k in _SETS)
    if judged == "S2":
        pairs = held_back(S2, draws, most, seed)
    else:
        rows = np.random.default_rng(seed).permutation(len(S4.label))[:most]
        pairs = [(S2, S4.take(np.sort(rows)))] * draws
    return compare(pairs, s.measure, s.groups, seed, report)


_SETS = ("S2", "S4")


def table(choices: tuple[Choice, ...]) -> str:
    """The comparison as a Markdown table: mean (sd over draws)."""
    head = ["predictor", "n", "accuracy", *(f"error at {eps:g}" for eps in LEVELS)]
    head += [f"labels in a set at {eps:g}" for eps in LEVELS]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for c in choices:
        cells = [c.name, f"{c.n:,}", _spread(100 * c.accuracy, 1) + " %"]
        cells += [_spread(c.error[:, i], 3) for i in range(len(LEVELS))]
        cells += [_spread(c.size[:, i], 2) for i in range(len(LEVELS))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: np.ndarray, digits: int) -> str:
    sd = values.std(ddof=1) if len(values) > 1 else 0.0
    return f"{values.mean():.{digits}f} ({sd:.{digits}f})"


def describe(config: Config, choices: tuple[Choice, ...], judged: Judged) -> str:
    """What a table was measured on, and how far inductive(r) is from full CP, in words."""
    full = next(c for c in choices if c.kind == "full")
    inductive = [c for c in choices if c.kind in ("inductive", "head")]
    gaps = {c.name: c.accuracy.mean() - full.accuracy.mean() for c in inductive}
    low, high = min(gaps, key=lambda k: gaps[k]), max(gaps, key=lambda k: gaps[k])
    s, draws = config.conformal, len(full.accuracy)
    where = "held-back halves of S2, on which r is chosen"
    if judged == "S4":
        where = "S4, whose people are new: for the report, not for the choice"
    return (
        f"Judged on {where}: N = {full.judged} points, {draws} draws; mean (sd over draws); "
        f"{s.measure}, {s.groups}. Against full CP's accuracy: from {100 * gaps[low]:+.1f} points "
        f"({low}) to {100 * gaps[high]:+.1f} ({high}). {predictor.CROSS_PROMISE}"
    )


def to_dict(c: Choice) -> dict:
    """A row as plain data, ready for json."""
    arrays = {k: getattr(c, k).tolist() for k in ("accuracy", "error", "size")}
    return {"name": c.name, "kind": c.kind, "r": c.r, "n": c.n, "judged": c.judged} | arrays
