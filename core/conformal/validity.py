"""Whether a conformal predictor keeps its promise, and what the promise is worth: curves with bands, uniformity, criteria, reliability.

Letters as in `core.conformal.prediction`. All test points are ranked among the *same* n calibration scores, so their errors hang together: given the
calibration set the number of errors at eps is binomial with a random rate, over calibration sets it is beta-binomial(m, j, n - j + 1) with
j = floor(eps (n + 1)) (Vovk 2012, "Conditional validity of inductive conformal predictors"). Everything here compares with that law,
simulated for all eps together (`null_band`), never with independent binomials. NumPy only; functions of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.conformal import prediction

EPS_LEVELS = (
    np.arange(101) / 100
)  # the eps of every curve; quotients, so that they equal p-values such as 7/100 exactly
SIMULATED_CURVES = 2_000  # simulated curves behind a band
BAND_COVERAGE = 0.95
HISTOGRAM_BINS = 20  # of the histogram of p-values; a divisor of the number of levels


@dataclass(frozen=True)
class NullBand:
    """Error curves of a valid predictor: what exchangeability alone does to them. Arrays over LEVELS; shares in [0, 1]."""

    m: int  # test points
    expected: np.ndarray  # (L,) floor(eps (n + 1)) / (n + 1), or eps where smoothed
    lower: (
        np.ndarray
    )  # (L,) the simultaneous band: a share COVERAGE of curves lies within it at every eps at once
    upper: np.ndarray
    low: np.ndarray  # (L,) pointwise interval of the same coverage, for one eps chosen beforehand
    high: np.ndarray
    deviation: np.ndarray  # (R,) sorted: largest |error - eps| of each simulated curve
    bin_low: np.ndarray  # (BINS,) pointwise interval of the shares in the histogram's bins
    bin_high: np.ndarray


@dataclass(frozen=True)
class ErrorCurve:
    """Error against eps for some of the test points, with the band it should lie in."""

    name: str
    n: int  # calibration scores it is ranked among (all groups together)
    m: int  # test points
    error: np.ndarray  # (L,) share of true labels with p <= eps
    lower: np.ndarray  # (L,)
    upper: np.ndarray
    above: float  # by how much the curve leaves the band upwards, at worst: more errors than promised. 0: nowhere
    above_at: float  # the eps of it; NaN: nowhere
    below: float  # the same downwards: more caution than needed
    below_at: float


@dataclass(frozen=True)
class PValueHistogram:
    """Smoothed p-values of the true label; flat when the predictor is valid."""

    edges: np.ndarray  # (BINS + 1,)
    share: np.ndarray  # (BINS,)
    low: np.ndarray  # (BINS,) pointwise interval under exchangeability
    high: np.ndarray
    distance: float  # Kolmogorov's: largest |share of p <= eps - eps| over LEVELS
    p: float  # Monte Carlo p-value of the distance; small: not uniform, so calibration and test points are not exchangeable


@dataclass(frozen=True)
class Efficiency:
    """How much is said, against eps: arrays over LEVELS."""

    size: np.ndarray  # (L,) mean number of labels in a set
    single: np.ndarray  # (L,) share of sets with one label
    empty: np.ndarray  # (L,) share of empty sets


@dataclass(frozen=True)
class Reliability:
    """The softmax' largest probability against how often it is right, by bins (NaN in empty ones)."""

    edges: np.ndarray  # (bins + 1,)
    count: np.ndarray  # (bins,)
    confidence: np.ndarray  # (bins,) mean largest probability
    accuracy: np.ndarray  # (bins,)
    ece: float  # mean |accuracy - confidence| weighted by count; biased upwards at small N


@dataclass(frozen=True)
class CalibrationSizes:
    """What the calibration size does at one eps: draws of a share r of the calibration set."""

    r: np.ndarray  # (R,) shares
    n: np.ndarray  # (R,) scores
    error: np.ndarray  # (R, draws)
    size: np.ndarray  # (R, draws) mean number of labels in a set


@dataclass(frozen=True)
class RandomSplits:
    """What the error would be if calibration and test points were exchangeable: both drawn at random from the test points."""

    n: int
    m: int
    error: np.ndarray  # (draws, L)
    null: NullBand
    left: float  # share of the draws whose curve leaves its band somewhere; about 1 - COVERAGE


def null_band(
    sizes: tuple[tuple[int, int], ...],
    smoothed: bool = False,
    repeats: int = SIMULATED_CURVES,
    seed: int = 0,
) -> NullBand:
    """Simulate error curves under exchangeability. `sizes`: (n, m) of each group of Eq. (9), one for pooled scores; hashable for a cache.

    Given the calibration set, test scores fall into its n + 1 gaps with the probabilities of n uniform points' spacings: Dirichlet, drawn
    here as gamma variables over the stretches between levels, then multinomial counts. Groups are added up.
    The band scales each level's pointwise quantiles by one factor, upwards and downwards apart (a global envelope by directional
    quantiles, Myllymäki et al. 2017), chosen so that a share COVERAGE of the simulated curves stays inside everywhere.
    Scores without ties are assumed: with ties the unsmoothed curve runs lower, which is safe.
    """
    rng, L = np.random.default_rng(seed), len(EPS_LEVELS)
    counts, expected, variance = np.zeros((repeats, L)), np.zeros(L), np.zeros(L)
    for n, m in sizes:
        at = EPS_LEVELS * (n + 1)
        j = np.floor(at + 1e-9).astype(np.int64)
        part = (
            np.clip(at - j, 0, 1) if smoothed else np.zeros(L)
        )  # of the next gap, which smoothing splits
        edges = np.unique(np.concatenate([j, np.minimum(j + 1, n + 1)]) if smoothed else j)
        gaps = rng.standard_gamma(np.diff(edges), (repeats, len(edges) - 1))
        rate = np.concatenate([np.zeros((repeats, 1)), np.cumsum(gaps, axis=1)], axis=1)
        rate /= rate[:, -1:]
        i = np.searchsorted(edges, j)
        rate = rate[:, i] + part * (rate[:, np.minimum(i + 1, len(edges) - 1)] - rate[:, i])
        steps = np.clip(np.diff(rate, axis=1), 0, None)
        counts[:, 1:] += np.cumsum(
            rng.multinomial(m, steps / steps.sum(axis=1, keepdims=True)), axis=1
        )
        mean = (j + part) / (n + 1)
        expected += m * mean
        variance += m * mean * (1 - mean) * (n + 1 + m) / (n + 2)  # beta-binomial
    M = max(1, sum(m for _, m in sizes))
    error, expected, sd = counts / M, expected / M, np.sqrt(variance) / M
    tails = (1 - BAND_COVERAGE) / 2
    low, high = np.quantile(error, [tails, 1 - tails], axis=0)
    up, down = np.maximum(high - expected, sd), np.maximum(expected - low, sd)
    open_ = sd > 1e-12  # where the curve can vary at all
    away = error[:, open_] - expected[open_]
    worst = (
        np.maximum(away / up[open_], -away / down[open_]).max(axis=1)
        if open_.any()
        else np.zeros(repeats)
    )
    factor = np.sort(worst)[min(repeats - 1, int(np.ceil(BAND_COVERAGE * (repeats + 1))) - 1)]
    bins = np.diff(error[:, :: (L - 1) // HISTOGRAM_BINS], axis=1)
    bin_low, bin_high = np.quantile(bins, [tails, 1 - tails], axis=0)
    return NullBand(
        m=M,
        expected=expected,
        lower=np.clip(expected - factor * down, 0, 1),
        upper=np.clip(expected + factor * up, 0, 1),
        low=low,
        high=high,
        deviation=np.sort(np.abs(error - EPS_LEVELS).max(axis=1)),
        bin_low=bin_low,
        bin_high=bin_high,
    )


def error_curve(p_true: np.ndarray) -> np.ndarray:
    """Share of points whose true label is rejected, p <= eps, at each of LEVELS: (m,) p-values of the true label -> (L,)."""
    return np.searchsorted(np.sort(p_true), EPS_LEVELS, side="right") / max(1, len(p_true))


def curve_with_band(name: str, p_true: np.ndarray, n: int, law: NullBand) -> ErrorCurve:
    """The error curve of some points beside the band of `law`, which must be the `null_band` of their own number."""
    error = error_curve(p_true)
    over, under = error - law.upper, law.lower - error
    a, b = int(over.argmax()), int(under.argmax())
    above, below = (float(max(0.0, v)) if v > 1e-12 else 0.0 for v in (over[a], under[b]))
    at = [float(EPS_LEVELS[i]) if v else float("nan") for i, v in ((a, above), (b, below))]
    return ErrorCurve(name, n, len(p_true), error, law.lower, law.upper, above, at[0], below, at[1])


def p_value_histogram(p_true: np.ndarray, law: NullBand) -> PValueHistogram:
    """Histogram and uniformity test of *smoothed* p-values of the true label; `law` is the smoothed `null_band` of the same sizes.

    The distance is compared with that of simulated curves, which share their calibration sets as the points do: the textbook
    Kolmogorov-Smirnov test would take the points as independent and reject far too often.
    """
    error = error_curve(p_true)
    distance = float(np.abs(error - EPS_LEVELS).max())
    reached = len(law.deviation) - np.searchsorted(law.deviation, distance - 1e-12, side="left")
    edges = EPS_LEVELS[:: (len(EPS_LEVELS) - 1) // HISTOGRAM_BINS]
    share = np.diff(error[:: (len(EPS_LEVELS) - 1) // HISTOGRAM_BINS])
    return PValueHistogram(
        edges,
        share,
        law.bin_low,
        law.bin_high,
        distance,
        float((reached + 1) / (len(law.deviation) + 1)),
    )


def efficiency(p: np.ndarray) -> Efficiency:
    """Mean set size, share of one-label and of empty sets at each of LEVELS: (m, K) -> arrays (L,)."""
    m = max(1, len(p))
    top = np.sort(p, axis=1)
    first, second = np.sort(top[:, -1]), np.sort(top[:, -2])
    has_one, has_two = (
        len(p) - np.searchsorted(v, EPS_LEVELS, side="right") for v in (first, second)
    )
    labels = p.size - np.searchsorted(np.sort(p, axis=None), EPS_LEVELS, side="right")
    return Efficiency(labels / m, (has_one - has_two) / m, 1 - has_one / m)


CRITERIA = {  # letters of Vovk, Fedorova, Nouretdinov & Gammerman, "Criteria of efficiency for conformal prediction" (COPA 2016)
    "error": "share of sets without the true label, at eps",
    "N": "number: mean labels in a set, at eps",
    "M": "multiple: share of sets with more than one label, at eps",
    "E": "excess: mean labels in a set beyond the first, at eps",
    "OM": "observed multiple: share of sets with a false label, at eps",
    "OE": "observed excess: mean false labels in a set, at eps",
    "S": "sum: mean sum of all p-values",
    "U": "unconfidence: mean second highest p-value",
    "F": "fuzziness: mean sum of all p-values but the highest",
    "OU": "observed unconfidence: mean highest p-value of the false labels",
    "OF": "observed fuzziness: mean sum of the false labels' p-values",
    "single": "share of sets with exactly one label, at eps",
    "single right": "share of those one-label sets that hold the true label, at eps",
    "empty": "share of empty sets, at eps",
    "credibility": "mean highest p-value",
    "confidence": "mean of 1 - the second highest p-value",
}


def criteria(p: np.ndarray, labels: np.ndarray, eps: float) -> dict[str, float]:
    """The criteria of CRITERIA, smaller being better for the lettered ones: (m, K) p-values, (m,) true labels -> name -> value.

    S, N, OF and OE are the "probabilistic" ones, for which scores made of the true conditional probabilities are optimal; prefer them
    (also Vovk, Nouretdinov, Fedorova, Petej & Gammerman 2017, Annals of Mathematics and Artificial Intelligence 81, 21-46).
    """
    kept = prediction.prediction_sets(p, eps)
    truth = np.arange(p.shape[1]) == np.asarray(labels)[:, None]
    size, false = kept.sum(axis=1), (kept & ~truth).sum(axis=1)
    top = np.sort(p, axis=1)
    single = size == 1
    return {
        "error": float(1 - kept[truth].mean()),
        "N": float(size.mean()),
        "M": float((size > 1).mean()),
        "E": float(np.maximum(size - 1, 0).mean()),
        "OM": float((false > 0).mean()),
        "OE": float(false.mean()),
        "S": float(p.sum(axis=1).mean()),
        "U": float(top[:, -2].mean()),
        "F": float(top[:, :-1].sum(axis=1).mean()),
        "OU": float(np.where(truth, -1.0, p).max(axis=1).mean()),
        "OF": float(np.where(truth, 0.0, p).sum(axis=1).mean()),
        "single": float(single.mean()),
        "single right": float((single & (false == 0)).sum() / single.sum())
        if single.any()
        else float("nan"),
        "empty": float((size == 0).mean()),
        "credibility": float(top[:, -1].mean()),
        "confidence": float(1 - top[:, -2].mean()),
    }


def reliability(
    o: np.ndarray, labels: np.ndarray, bins: int = 15, by: Literal["width", "mass"] = "width"
) -> Reliability:
    """Reliability diagram and expected calibration error of the softmax (Naeini et al. 2015; Guo et al. 2017): (m, K), (m,).

    Bins of the largest probability: of equal width on [0, 1] (closed on the right), or of equal mass, cut between ranks.
    """
    best, right = o.max(axis=1), o.argmax(axis=1) == labels
    if by == "width":
        edges = np.arange(bins + 1) / bins
        index = np.clip(np.ceil(best * bins - 1e-9).astype(np.int64) - 1, 0, bins - 1)
    else:
        order = np.argsort(best, kind="stable")
        index = np.empty(len(best), np.int64)
        index[order] = np.arange(len(best)) * bins // max(1, len(best))
        edges = np.quantile(best, np.arange(bins + 1) / bins)
    count = np.bincount(index, minlength=bins)
    held = np.where(count > 0, count, np.nan)
    confidence = np.bincount(index, best, minlength=bins) / held
    accuracy = np.bincount(index, right, minlength=bins) / held
    return Reliability(
        edges,
        count,
        confidence,
        accuracy,
        float(np.nansum(count * np.abs(accuracy - confidence)) / max(1, len(best))),
    )


def calibration_sizes(
    alpha_cal: np.ndarray,
    p: np.ndarray,
    labels: np.ndarray,
    eps: float,
    r: np.ndarray,
    draws: int = 20,
    seed: int = 0,
    group_cal: np.ndarray | None = None,
) -> CalibrationSizes:
    """Error and set size at eps when only a random share r of the calibration set is used. (n,), (m, K), (m,), (R,) -> (R, draws) each.

    `p` are the unsmoothed p-values with the whole set, pooled, or class-conditional when `group_cal` holds the calibration labels. Each
    draw is one order of the set, of which every share takes the beginning. At r = 1 all draws are the same.
    A p-value falls as alpha grows, so a set holds what lies at or below one calibration score: one order statistic decides a draw.
    """
    n, m = len(alpha_cal), max(1, len(p))
    groups = [(np.ones(n, bool), np.ones(p.shape[1], bool))]
    if group_cal is not None:
        groups = [(group_cal == k, np.arange(p.shape[1]) == k) for k in range(p.shape[1])]
    tables = []
    for rows, columns in groups:
        size = int(rows.sum())
        rank = np.full(n, -1)
        rank[rows] = np.argsort(np.argsort(alpha_cal[rows], kind="stable"))
        below = np.rint(size + 1 - p[:, columns] * (size + 1)).astype(
            np.int64
        )  # calibration scores below each cell
        true = below[(np.arange(p.shape[1])[columns] == labels[:, None])]
        tables.append(
            (rank, [np.cumsum(np.bincount(b, minlength=size + 1)) for b in (below.ravel(), true)])
        )
    rng = np.random.default_rng(seed)
    chosen_n = np.maximum(1, np.rint(r * n).astype(np.int64))
    error, size_ = np.zeros((len(r), draws)), np.zeros((len(r), draws))
    for d in range(draws):
        order = rng.permutation(n)
        for rank, (every, true) in tables:
            ranks = rank[order]
            for i, last in enumerate(chosen_n):
                chosen = ranks[:last][ranks[:last] >= 0]
                kept = int(
                    ((len(chosen) + 1 - np.arange(len(chosen) + 1)) / (len(chosen) + 1) > eps).sum()
                )  # ranks with p > eps
                if kept:
                    edge = (
                        len(every) - 1
                        if kept > len(chosen)
                        else np.partition(chosen, kept - 1)[kept - 1]
                    )
                    size_[i, d] += every[edge] / m
                    error[i, d] += true[edge] / m
    return CalibrationSizes(r, chosen_n, 1 - error, size_)


def random_splits(
    alpha_true: np.ndarray,
    n: int,
    law,
    smoothed: bool = False,
    draws: int = 20,
    seed: int = 0,
    group: np.ndarray | None = None,
) -> RandomSplits:
    """Split the test points themselves at random into calibration and test, `draws` times, and rank the one in the other. (m,) scores of
    the true labels; at most n, and at most half, calibrate. Within `group` (m,), when given, as class-conditional prediction does.

    Exchangeable by construction, whoever the subjects are: what the same curve looks like when the promise holds. `law(sizes, smoothed)`
    is `null_band`, or a cached form of it.
    """
    rng = np.random.default_rng(seed)
    group = np.zeros(len(alpha_true), np.int64) if group is None else np.asarray(group)
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    share = min(0.5, n / max(1, len(alpha_true)))
    cut = [int(share * len(rows)) for rows in members]
    expected = law(tuple((c, len(rows) - c) for c, rows in zip(cut, members)), smoothed)
    error = np.zeros((draws, len(EPS_LEVELS)))
    for d in range(draws):
        parts = [
            (shuffled[:c], shuffled[c:])
            for c, shuffled in ((c, rng.permutation(rows)) for c, rows in zip(cut, members))
        ]
        noise = rng if smoothed else None
        p = [
            prediction.p_values(alpha_true[a], alpha_true[b][None], rng=noise)[0] for a, b in parts
        ]
        error[d] = error_curve(np.concatenate(p))
    outside = ((error > expected.upper + 1e-12) | (error < expected.lower - 1e-12)).any(axis=1)
    return RandomSplits(sum(cut), expected.m, error, expected, float(outside.mean()))
