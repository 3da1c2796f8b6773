"""PROTOCOL's gains and their tests over subjects: sign flips, bootstrap, Holm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.evaluation import protocol

STEP_RULES = (
    "equal",
    "best",
)  # equal optimiser steps; each row at its own best steps, chosen on S2's voices

RowFamily = tuple[
    str, ...
]  # rows that do the same job; which of them stands for it is chosen on S2

S1_ROWS: RowFamily = ("S1", "S1 oversampled", "S1" + protocol.PLAIN_SUFFIX)

GENERATED_ROWS: RowFamily = ("S1 + generated", "S1 + generated" + protocol.PLAIN_SUFFIX)

CEILING_ROWS: RowFamily = ("S1 + S3", "S1 + S3" + protocol.PLAIN_SUFFIX)

PRIMARY_COMPARISONS: dict[str, tuple[RowFamily, RowFamily]] = {  # headline (a) and (b)
    "a": (GENERATED_ROWS, S1_ROWS),
    "b": (("S1 + S3 + generated" + protocol.PLAIN_SUFFIX,), ("S1 + S3" + protocol.PLAIN_SUFFIX,)),
}

SECONDARY_COMPARISONS: dict[str, tuple[RowFamily, RowFamily]] = {
    "generated over the best row without a GAN": (
        GENERATED_ROWS,
        (*S1_ROWS, "S1 + pseudo-labelled S3"),
    ),
    "generated, as the paper compares": (("S1 + generated",), ("S1",)),
    "plain augmentation": (("S1" + protocol.PLAIN_SUFFIX,), ("S1",)),
    "pseudo-labels": (("S1 + pseudo-labelled S3",), ("S1",)),
    "generated beside S3, both without plain augmentation": (
        ("S1 + S3 + generated",),
        ("S1 + S3",),
    ),
    "generated only": (("generated only",), ("S1",)),
    "ceiling": (CEILING_ROWS, S1_ROWS),
}

TableArrays = Mapping[
    str, np.ndarray
]  # a run's table.npz: core.augmentation.write says what is in it


@dataclass(frozen=True)
class Gain:
    """One comparison over all tables, under one step rule. Differences are accuracies, so 0.03 is three points."""

    name: str
    rule: str
    rows: tuple[str, str]  # compared: better minus worse, or "A or B" where runs chose differently
    difference: float  # mean over subjects
    interval: tuple[float, float]  # 95 %, bootstrap over subjects
    p: float  # two-sided sign-flip test over subjects
    adjusted: float  # p after Holm's correction among the secondary comparisons of the rule; p itself for (a) and (b)
    subjects: int
    recovered: float | None = (
        None  # (a): share of the distance to the ceiling; None where that is less than a point or nothing is gained
    )


def choose_row(table: TableArrays, family: RowFamily, rule: str) -> str | None:
    """The row of a family that S2's voices prefer, by mean accuracy over seeds under the rule; None where the table has none of them."""
    names, marks = [str(n) for n in table["rows"]], table["marks"]
    there = [n for n in family if n in names]
    if not there:
        return None
    curves = np.stack([table["S2"][names.index(n)] for n in there])  # (rows, seeds, marks)
    at = (
        curves[:, :, list(marks).index(int(table["equal"]))]
        if rule == "equal"
        else curves.max(axis=2)
    )
    return there[int(at.mean(axis=1).argmax())]


def accuracy_differences(
    tables: Sequence[TableArrays], better: RowFamily, worse: RowFamily, rule: str
) -> tuple[np.ndarray, tuple[str, str]]:
    """Per subject, the accuracy of `better` minus that of `worse`, averaged over the runs that test it: (m,); and which rows these were.

    Balanced subsample of S4 only. (0,) where no table holds both. Each subject weighs the same, however many of its clips count.
    """
    of: dict[str, list[float]] = {}
    used: tuple[set[str], set[str]] = (set(), set())
    for t in tables:
        pair = choose_row(t, better, rule), choose_row(t, worse, rule)
        if pair[0] is None or pair[1] is None:
            continue
        names, counted, k = (
            [str(n) for n in t["rows"]],
            t["counted"].astype(bool),
            STEP_RULES.index(rule),
        )
        a, b = (t["predicted"][names.index(str(n)), k][:, counted] for n in pair)
        for who, d in zip(
            *subject_differences(t["label"][counted], a, b, t["subject"][counted]), strict=True
        ):
            of.setdefault(str(who), []).append(float(d))
        for seen, n in zip(used, pair, strict=True):
            seen.add(str(n))
    return np.array([np.mean(v) for _, v in sorted(of.items())]), (
        " or ".join(sorted(used[0])),
        " or ".join(sorted(used[1])),
    )


COMPARABLE_ROWS = (
    "S1 + generated",
    "S1 + S3 + generated",
    "generated only",
)  # rows in which two generators may be held against each other


def method_gains(ours: Sequence[TableArrays], theirs: Sequence[TableArrays]) -> list[Gain]:
    """Ours minus theirs in each row of MADE, paired by test subject, Holm-corrected within a rule: two methods on equal S1 to S4.

    Tables that have no partner with the same test voices are left out.
    """
    out: list[Gain] = []
    for rule in STEP_RULES:
        k, later = STEP_RULES.index(rule), list[Gain]()
        for name in COMPARABLE_ROWS:
            of: dict[str, list[float]] = {}
            for a, b in _pair_tables(ours, theirs):
                if name not in a["rows"] or name not in b["rows"]:
                    continue
                counted = a["counted"].astype(bool)
                one, other = (
                    t["predicted"][list(t["rows"]).index(name), k][:, counted] for t in (a, b)
                )
                found = subject_differences(a["label"][counted], one, other, a["subject"][counted])
                for who, d in zip(*found, strict=True):
                    of.setdefault(str(who), []).append(float(d))
            if of:
                d = np.array([np.mean(v) for _, v in sorted(of.items())])
                p = sign_flip_p_value(d)
                later.append(
                    Gain(
                        name,
                        rule,
                        (name, name),
                        float(d.mean()),
                        bootstrap_interval(d),
                        p,
                        p,
                        len(d),
                    )
                )
        adjusted = holm_p_values(np.array([g.p for g in later]))
        out += [
            dataclasses.replace(g, adjusted=float(p)) for g, p in zip(later, adjusted, strict=True)
        ]
    return out


def _pair_tables(
    ours: Sequence[TableArrays], theirs: Sequence[TableArrays]
) -> list[tuple[TableArrays, TableArrays]]:
    """Tables of the same test voices, each used once, in the order of `ours`."""
    left, pairs = list(theirs), []
    for a in ours:
        same = [
            i
            for i, b in enumerate(left)
            if all(np.array_equal(a[n], b[n]) for n in ("label", "subject", "row", "counted"))
        ]
        if same:
            pairs.append((a, left.pop(same[0])))
    return pairs


def gains(tables: Sequence[TableArrays]) -> list[Gain]:
    """Headline (a) and (b) and the secondary comparisons, under both step rules, over the tables of one setting's folds and seeds.

    A claim holds only if it does under both rules (`is_significant`). Comparisons that no table allows are left out.
    """
    out: list[Gain] = []
    for rule in STEP_RULES:
        later: list[Gain] = []
        for name, (better, worse) in (PRIMARY_COMPARISONS | SECONDARY_COMPARISONS).items():
            d, rows = accuracy_differences(tables, better, worse, rule)
            if not len(d):
                continue
            p, recovered = sign_flip_p_value(d), None
            if name == "a":
                whole = accuracy_differences(tables, CEILING_ROWS, S1_ROWS, rule)[0]
                recovered = (
                    float(d.mean() / whole.mean())
                    if d.mean() > 0 and len(whole) and whole.mean() >= 0.01
                    else None
                )
            gain = Gain(
                name, rule, rows, float(d.mean()), bootstrap_interval(d), p, p, len(d), recovered
            )
            (out if name in PRIMARY_COMPARISONS else later).append(gain)
        adjusted = holm_p_values(np.array([g.p for g in later]))
        out += [
            dataclasses.replace(g, adjusted=float(p)) for g, p in zip(later, adjusted, strict=True)
        ]
    return out


def is_significant(found: Sequence[Gain], name: str, level: float = 0.05) -> bool:
    """Whether a gain is above 0 and significant under both step rules."""
    both = [g for g in found if g.name == name]
    return {g.rule for g in both} == set(STEP_RULES) and all(
        g.difference > 0 and g.adjusted < level for g in both
    )


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sd (n - 1) over runs, as in the paper's Fig. 9; the sd of one run is NaN."""
    v = np.asarray(values, np.float64)
    return float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else math.nan


MAX_EXACT_SUBJECTS = 14  # subjects up to which all 2^m sign patterns are counted


def subject_differences(
    labels: np.ndarray, a: np.ndarray, b: np.ndarray, subject: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How much better `a` names the voices of each subject than `b`: (n,), (s, n), (s, n), (n,) -> names (m,), differences (m,) in [-1, 1].

    a and b are predicted classes by s trainings of their own each; accuracies are averaged over them first. Raises ValueError for shapes
    that do not fit.
    """
    labels, subject, a, b = (
        np.asarray(labels),
        np.asarray(subject),
        np.atleast_2d(a),
        np.atleast_2d(b),
    )
    if not (a.shape[1] == b.shape[1] == len(labels) == len(subject) and len(labels)):
        shapes = ", ".join(str(v.shape) for v in (labels, a, b, subject))
        raise ValueError(f"labels, predictions and subjects must be of one length, not {shapes}")
    gain = (a == labels).mean(axis=0, dtype=np.float64) - (b == labels).mean(
        axis=0, dtype=np.float64
    )  # (n,)
    names, row = np.unique(subject, return_inverse=True)
    return names, np.bincount(row, gain) / np.bincount(row)


def sign_flip_p_value(differences: np.ndarray, draws: int = 50_000, seed: int = 0) -> float:
    """Two-sided sign-flip permutation test that differences (m,) lie about 0: a p-value in (0, 1], super-uniform if they do symmetrically.

    p is the share of sign patterns whose mean is at least as far from 0: of all 2^m up to EXACT subjects, else of the `draws` seeded ones
    and the observed one, (1 + count) / (1 + draws) (Phipson & Smyth 2010). Raises ValueError where there is nothing, or NaN.
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError(f"differences must be (m,), m >= 1, and finite, not {d.shape}")
    reached = (
        abs(d.sum()) - 1e-12 * np.abs(d).sum()
    )  # equal up to rounding counts as equal, which can only raise p
    if len(d) <= MAX_EXACT_SUBJECTS:
        signs = 1.0 - 2.0 * (np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1)
        return float((np.abs(signs @ d) >= reached).mean())
    rng, count, left = np.random.default_rng(seed), 0, draws
    while left:
        n = min(left, 4096)
        count += int((np.abs(rng.choice((-1.0, 1.0), (n, len(d))) @ d) >= reached).sum())
        left -= n
    return (1 + count) / (1 + draws)


def bootstrap_interval(
    differences: np.ndarray, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of differences (m,) over `draws` seeded resamplings of the subjects: (low, high)."""
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not len(d) or not 0 < level < 1:
        raise ValueError(
            f"differences must be (m,), m >= 1, and level in (0, 1), not {d.shape} and {level}"
        )
    means = d[np.random.default_rng(seed).integers(0, len(d), (draws, len(d)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm_p_values(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) correction of m p-values (m,) -> (m,): rejecting those at or below a level makes one or more
    false rejections no more often than the level says."""
    p = np.asarray(p, np.float64)
    order, m = np.argsort(p, kind="stable"), len(p)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * (m - np.arange(m))))
    return adjusted


def sign_flip_means(differences: np.ndarray, draws: int = 20_000, seed: int = 0) -> np.ndarray:
    """What the mean of subjects' differences (m,) would be if each one's sign were a coin's: all 2^m means, or `draws` seeded ones.

    `sign_flip_p_value` is the share of these that lie at least as far from 0 as the mean itself. Raises ValueError where there is none.
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not len(d):
        raise ValueError(f"differences must be (m,), m >= 1, not {d.shape}")
    m = len(d)
    if m <= MAX_EXACT_SUBJECTS:
        signs = 1.0 - 2.0 * (np.arange(2**m)[:, None] >> np.arange(m) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), (draws, m))
    return signs @ d / m


def comparison_differences(
    tables: Sequence[TableArrays], name: str, rule: str
) -> tuple[list[str], np.ndarray]:
    """The test subjects (m) and their differences (m,) of a comparison of `gains`, under a rule; ([], (0,)): no table has it."""
    better, worse = (PRIMARY_COMPARISONS | SECONDARY_COMPARISONS)[name]
    have = [t for t in tables if choose_row(t, better, rule) and choose_row(t, worse, rule)]
    d, _ = accuracy_differences(have, better, worse, rule)
    return sorted({str(s) for t in have for s in t["subject"][t["counted"].astype(bool)]}), d


def min_p_value(subjects: int) -> float:
    """The smallest p that a two-sided sign-flip test over so many subjects can give."""
    return min(1.0, 2.0 / 2**subjects)
