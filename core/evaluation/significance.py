"""Gains of accuracy and their tests over subjects: sign flips, bootstrap, Holm's correction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.evaluation.protocol import PLAIN_SUFFIX

# equal: the same optimiser steps for each row. best: each row at its own best step, chosen on S2.
STEP_RULES = ("equal", "best")
STEP_RULE_NAMES = {"equal": "equal steps", "best": "own best steps"}

RowFamily = tuple[str, ...]  # rows that serve one purpose; S2 chooses which of them is compared
S1_ROWS: RowFamily = ("S1", "S1 oversampled", "S1" + PLAIN_SUFFIX)
GENERATED_ROWS: RowFamily = ("S1 + generated", "S1 + generated" + PLAIN_SUFFIX)
CEILING_ROWS: RowFamily = ("S1 + S3", "S1 + S3" + PLAIN_SUFFIX)

PRIMARY_COMPARISONS: dict[str, tuple[RowFamily, RowFamily]] = {  # headline gains (a) and (b)
    "a": (GENERATED_ROWS, S1_ROWS),
    "b": (("S1 + S3 + generated" + PLAIN_SUFFIX,), ("S1 + S3" + PLAIN_SUFFIX,)),
}
WITHOUT_GAN_ROWS: RowFamily = (*S1_ROWS, "S1 + pseudo-labelled S3")
SECONDARY_COMPARISONS: dict[str, tuple[RowFamily, RowFamily]] = {
    "generated over the best row without a GAN": (GENERATED_ROWS, WITHOUT_GAN_ROWS),
    "generated, as the paper compares": (("S1 + generated",), ("S1",)),
    "plain augmentation": (("S1" + PLAIN_SUFFIX,), ("S1",)),
    "pseudo-labels": (("S1 + pseudo-labelled S3",), ("S1",)),
    "generated beside S3, both without plain augmentation": (
        ("S1 + S3 + generated",),
        ("S1 + S3",),
    ),
    "generated only": (("generated only",), ("S1",)),
    "ceiling": (CEILING_ROWS, S1_ROWS),
}
COMPARISONS = PRIMARY_COMPARISONS | SECONDARY_COMPARISONS


@dataclass(frozen=True)
class Comparisons:
    """Which families of rows a kind of table compares: (better, worse) by name."""

    primary: Mapping[str, tuple[RowFamily, RowFamily]]
    secondary: Mapping[str, tuple[RowFamily, RowFamily]]
    ceiling: tuple[RowFamily, RowFamily]
    shares: tuple[str, ...]  # primary comparisons whose share of the way to the ceiling is given


AUGMENTATION = Comparisons(
    PRIMARY_COMPARISONS, SECONDARY_COMPARISONS, (CEILING_ROWS, S1_ROWS), ("a",)
)
# rows in which two generators are compared with each other
COMPARABLE_ROWS = ("S1 + generated", "S1 + S3 + generated", "generated only")
CEILING_TEXT = "The way to the ceiling: from S1's best row to S1 + S3 with true labels."
MIN_CEILING_GAIN = 0.01  # accuracy; below it a share of the way to the ceiling means nothing
# subjects from which a bootstrap interval is given: of fewer it is too narrow, so that it leaves
# out 0 where the exact test is far from significant; their own differences are given instead
MIN_INTERVAL_SUBJECTS = 8

TableArrays = Mapping[str, np.ndarray]  # a run's table.npz, see `augmentation._write_table`


@dataclass(frozen=True)
class Gain:
    """One comparison over all tables under one step rule, in accuracy: 0.03 is three points."""

    name: str
    rule: str
    rows: tuple[str, str]  # better and worse row; "A or B" where runs chose differently
    difference: float  # better minus worse, mean over subjects
    # 95 %, bootstrap over subjects; None below MIN_INTERVAL_SUBJECTS
    interval: tuple[float, float] | None
    p: float  # two-sided sign-flip test over subjects
    adjusted: float  # p with Holm's correction within a rule; for a primary comparison p itself
    subjects: int
    # of `Comparisons.shares`: share of the distance to the ceiling; None without a gain, or with a
    # ceiling less than a point above S1
    recovered: float | None = None
    people: Mapping[str, float] = dataclasses.field(default_factory=dict)  # subject -> difference


def choose_row(table: TableArrays, family: RowFamily, rule: str) -> str | None:
    """The row of a family with the best mean accuracy on S2 over seeds; None if it has none."""
    names, marks = [str(n) for n in table["rows"]], table["marks"].tolist()
    known = [n for n in family if n in names]
    if not known:
        return None
    curves = np.stack([table["S2"][names.index(n)] for n in known])  # (rows, seeds, marks)
    equal = marks.index(int(table["equal"]))
    at = curves[:, :, equal] if rule == "equal" else curves.max(axis=2)
    return known[int(at.mean(axis=1).argmax())]


def _row_differences(
    a: TableArrays, row: str, b: TableArrays, other: str, rule: str
) -> list[tuple[str, float]]:
    """Per subject, `row` of table a minus row `other` of table b, on S4's balanced subsample."""
    counted, k = a["counted"].astype(bool), STEP_RULES.index(rule)
    one, two = (
        t["predicted"][t["rows"].tolist().index(n), k][:, counted]
        for t, n in ((a, row), (b, other))
    )
    found = subject_differences(a["label"][counted], one, two, a["subject"][counted])
    return [(str(name), float(d)) for name, d in zip(*found, strict=True)]


def _mean_by_subject(differences: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Subject -> its mean difference over runs, sorted by name; each subject weighs the same."""
    of: dict[str, list[float]] = {}
    for name, d in differences:
        of.setdefault(name, []).append(d)
    return {name: float(np.mean(v)) for name, v in sorted(of.items())}


def comparison_differences(
    tables: Sequence[TableArrays], better: RowFamily, worse: RowFamily, rule: str
) -> tuple[dict[str, float], tuple[str, str]]:
    """Test subject -> accuracy of `better` minus `worse`, averaged over the runs that test it.

    On S4's balanced subsample, with the names of the rows that were compared. Tables without
    both families are left out; ({}, ("", "")) if all are.
    """
    pairs = [(t, choose_row(t, better, rule), choose_row(t, worse, rule)) for t in tables]
    both = [(t, a, b) for t, a, b in pairs if a and b]
    of = _mean_by_subject(d for t, a, b in both for d in _row_differences(t, a, t, b, rule))
    used = {a for _, a, _ in both}, {b for _, _, b in both}
    return of, (" or ".join(sorted(used[0])), " or ".join(sorted(used[1])))


def _gain(
    name: str,
    rule: str,
    rows: tuple[str, str],
    people: Mapping[str, float],
    recovered: float | None = None,
) -> Gain:
    """The tests of the subjects' differences, before Holm's correction."""
    d = np.array(list(people.values()))
    p, interval = sign_flip_p_value(d), None
    if len(d) >= MIN_INTERVAL_SUBJECTS:
        interval = bootstrap_interval(d)
    return Gain(name, rule, rows, float(d.mean()), interval, p, p, len(d), recovered, people)


def _with_holm(found: Sequence[Gain]) -> list[Gain]:
    adjusted = holm_p_values(np.array([g.p for g in found])).tolist()
    return [dataclasses.replace(g, adjusted=p) for g, p in zip(found, adjusted, strict=True)]


def gains(tables: Sequence[TableArrays], kind: Comparisons = AUGMENTATION) -> list[Gain]:
    """Headline gains, (a) and (b), and the secondary comparisons, under both step rules.

    `tables` are those of one setting's folds and seeds. A gain holds only under both rules
    (`is_significant`). Comparisons whose rows no table has are left out.
    """
    out: list[Gain] = []
    for rule in STEP_RULES:
        secondary: list[Gain] = []
        for name, (better, worse) in {**kind.primary, **kind.secondary}.items():
            of, rows = comparison_differences(tables, better, worse, rule)
            if not of:
                continue
            d, recovered = np.array(list(of.values())), None
            if name in kind.shares:
                ceiling = comparison_differences(tables, *kind.ceiling, rule)[0]
                whole = np.mean(list(ceiling.values())) if ceiling else 0.0
                if d.mean() > 0 and whole >= MIN_CEILING_GAIN:
                    recovered = float(d.mean() / whole)
            group = out if name in kind.primary else secondary
            group.append(_gain(name, rule, rows, of, recovered))
        out += _with_holm(secondary)
    return out


def method_gains(
    ours: Sequence[TableArrays],
    theirs: Sequence[TableArrays],
    rows: Sequence[str] = COMPARABLE_ROWS,
) -> list[Gain]:
    """Our method minus another on equal S1 to S4, in each of `rows`, paired by subject.

    Holm-corrected within a rule. Tables without a partner of the same test voices are left out.
    """
    out: list[Gain] = []
    pairs = _pair_tables(ours, theirs)
    for rule in STEP_RULES:
        found = []
        for name in rows:
            both = [(a, b) for a, b in pairs if name in a["rows"] and name in b["rows"]]
            of = _mean_by_subject(
                d for a, b in both for d in _row_differences(a, name, b, name, rule)
            )
            if of:
                found.append(_gain(name, rule, (name, name), of))
        out += _with_holm(found)
    return out


def _pair_tables(
    ours: Sequence[TableArrays], theirs: Sequence[TableArrays]
) -> list[tuple[TableArrays, TableArrays]]:
    """Pairs of tables of the same test voices, in the order of `ours`, each table used once."""
    keys, left, pairs = ("label", "subject", "row", "counted"), list(theirs), []
    for a in ours:
        same = [i for i, b in enumerate(left) if all(np.array_equal(a[k], b[k]) for k in keys)]
        if same:
            pairs.append((a, left.pop(same[0])))
    return pairs


def is_significant(found: Sequence[Gain], name: str, level: float = 0.05) -> bool:
    """Whether a gain is above 0 and significant under both step rules."""
    both = [g for g in found if g.name == name]
    held = all(g.difference > 0 and g.adjusted < level for g in both)
    return {g.rule for g in both} == set(STEP_RULES) and held


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sd (n - 1) over runs, as in the paper's Fig. 9; the sd of one run is NaN.

    >>> mean_and_sd([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    v = np.asarray(values, np.float64)
    return float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else math.nan


# ------------------------------------------------------------------ tests; the unit is the subject


MAX_EXACT_SUBJECTS = 14  # most subjects for which all 2^m sign patterns are enumerated
SIGN_PATTERN_BATCH = 4096  # random sign patterns per matrix product: bounds memory


def subject_differences(
    labels: np.ndarray, a: np.ndarray, b: np.ndarray, subject: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per subject, the accuracy of predictions a minus that of b: names (m,), differences (m,).

    labels and subject (n,); a and b (s, n) are the classes predicted by s trainings each, over
    which accuracies are averaged. Raises ValueError for shapes that do not fit.
    """
    labels, subject = np.asarray(labels), np.asarray(subject)
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    if not (a.shape[1] == b.shape[1] == len(labels) == len(subject) and len(labels)):
        shapes = ", ".join(str(v.shape) for v in (labels, a, b, subject))
        raise ValueError(f"labels, predictions and subjects must be of one length, not {shapes}")
    right, wrong = ((v == labels).mean(axis=0, dtype=np.float64) for v in (a, b))  # (n,)
    names, row = np.unique(subject, return_inverse=True)
    return names, np.bincount(row, right - wrong) / np.bincount(row)


def sign_flip_p_value(differences: np.ndarray, draws: int = 50_000, seed: int = 0) -> float:
    """Two-sided sign-flip permutation test that differences (m,) are symmetric about 0.

    The p-value in (0, 1] is the share of sign patterns whose mean is at least as far from 0: of all
    2^m up to MAX_EXACT_SUBJECTS, else of `draws` seeded ones and the observed one,
    (1 + count) / (1 + draws) (Phipson & Smyth 2010). Super-uniform under the hypothesis.
    Raises ValueError for no differences, NaN or infinity.

    >>> sign_flip_p_value([0.1, 0.2, 0.1, 0.3])  # all positive: 2 of 16 sign patterns
    0.125
    >>> sign_flip_p_value([0.1, 0.2, -0.3])
    1.0
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError(f"differences must be (m,), m >= 1, and finite, not {d.shape}")
    # sums that are equal up to rounding count as equal, which can only raise p
    limit = abs(d.sum()) - 1e-12 * np.abs(d).sum()
    if len(d) <= MAX_EXACT_SUBJECTS:
        return float((np.abs(_all_signs(len(d)) @ d) >= limit).mean())
    rng, count = np.random.default_rng(seed), 0
    for start in range(0, draws, SIGN_PATTERN_BATCH):
        n = min(draws - start, SIGN_PATTERN_BATCH)
        count += int((np.abs(rng.choice((-1.0, 1.0), (n, len(d))) @ d) >= limit).sum())
    return (1 + count) / (1 + draws)


def _all_signs(m: int) -> np.ndarray:
    """All sign patterns of m differences: (2^m, m), of -1.0 and 1.0."""
    return 1.0 - 2.0 * (np.arange(2**m)[:, None] >> np.arange(m) & 1)


def sign_flip_means(differences: np.ndarray, draws: int = 20_000, seed: int = 0) -> np.ndarray:
    """The mean of differences (m,) under each sign pattern: all 2^m means, or `draws` seeded ones.

    `sign_flip_p_value` is the share of them at least as far from 0 as the observed mean.
    Raises ValueError for no differences.
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not len(d):
        raise ValueError(f"differences must be (m,), m >= 1, not {d.shape}")
    m = len(d)
    if m <= MAX_EXACT_SUBJECTS:
        return _all_signs(m) @ d / m
    return np.random.default_rng(seed).choice((-1.0, 1.0), (draws, m)) @ d / m


def min_p_value(subjects: int) -> float:
    """The smallest p-value of a two-sided sign-flip test over this many subjects.

    >>> min_p_value(5)
    0.0625
    """
    return min(1.0, 2.0 / 2**subjects)


def bootstrap_interval(
    differences: np.ndarray, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean of differences (m,) over subjects.

    >>> low, high = bootstrap_interval([0.1, 0.2, 0.1, 0.3])
    >>> round(low, 3), round(high, 3)
    (0.1, 0.25)
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not len(d) or not 0 < level < 1:
        raise ValueError(
            f"differences must be (m,), m >= 1, and level in (0, 1), not {d.shape} and {level}"
        )
    means = d[np.random.default_rng(seed).integers(0, len(d), (draws, len(d)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm_p_values(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) correction of m p-values (m,) -> (m,).

    Rejecting all at or below a level makes any false rejection at most that probable.

    >>> holm_p_values([0.01, 0.5, 0.04]).round(2).tolist()
    [0.03, 0.5, 0.08]
    """
    p = np.asarray(p, np.float64)
    order, m = np.argsort(p, kind="stable"), len(p)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * (m - np.arange(m))))
    return adjusted


def format_gain(g: Gain, digits: int = 1) -> str:
    """A gain in points with its interval, or with each person's difference where they are few.

    >>> few = Gain("a", "equal", ("x", "y"), 0.02, None, 0.5, 0.5, 2, None, {"b": 0.03, "c": 0.01})
    >>> format_gain(few)
    '+2.0 points (2 people: +3.0, +1.0)'
    """

    def points(v: float) -> str:
        return f"{round(100 * v, digits) + 0.0:+.{digits}f}"  # + 0.0: no "-0.0"

    text = f"{points(g.difference)} points"
    if g.interval is not None:
        low, high = map(points, g.interval)
        return f"{text} (95 %: {low} to {high})"
    each = ", ".join(map(points, g.people.values()))
    return f"{text} ({g.subjects} people: {each})"


def format_mean(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Mean ± sd (n - 1) of scaled values; the mean alone for one value, "–" for none.

    NaN, an unknown value, is left out.

    >>> format_mean([0.5, 0.6], scale=100), format_mean([0.5, math.nan]), format_mean([])
    ('55.0 ± 7.1', '0.5', '–')
    """
    values = [v for v in values if not math.isnan(v)]
    if not values:
        return "–"
    mean, sd = mean_and_sd([scale * v for v in values])
    return f"{mean:.{digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{digits}f}")


def format_p_value(p: float) -> str:
    """A p-value to four decimals, never 0.

    >>> format_p_value(0.0312), format_p_value(1e-6)
    ('0.0312', '< 0.0001')
    """
    return f"{p:.4f}" if p >= 0.00005 else "< 0.0001"
