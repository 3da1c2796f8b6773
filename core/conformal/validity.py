"""Whether a conformal predictor keeps its promise: error curves with bands, uniformity, criteria.

Letters as in `core.conformal.prediction`. All test points are ranked among the *same* n calibration
scores, so their errors depend on each other. Given the calibration set, the number of errors at eps
is binomial with a random rate; over calibration sets it is beta-binomial(m, j, n - j + 1) with
j = floor(eps (n + 1)) (Vovk 2012, "Conditional validity of inductive conformal predictors"). All
bands here are simulated from that distribution for all eps together (`null_band`), never from
independent binomials. NumPy only; pure functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.conformal import prediction

# the eps of every curve; quotients, so that they equal p-values such as 7/100 exactly
EPS_LEVELS = np.arange(101) / 100
SIMULATED_CURVES = 2_000  # simulated curves per band
MANY_GROUPS = 64  # with more, a sum of their counts is drawn as normal: exact to its covariance
BAND_COVERAGE = 0.95  # share of valid predictors' curves that stay inside the band
MIN_BIN_POINTS = 10  # a reliability bin of fewer points shows little; charts grey it
HISTOGRAM_BINS = 20  # bins of the p-values' histogram; a divisor of the number of levels less one


@dataclass(frozen=True)
class NullBand:
    """Distribution of a valid predictor's error curves over EPS_LEVELS (L); shares in [0, 1]."""

    m: int  # test points
    expected: np.ndarray  # (L,) floor(eps (n + 1)) / (n + 1), or eps where smoothed
    lower: np.ndarray  # (L,) simultaneous band: BAND_COVERAGE of curves lie in it at every eps
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
    n: int  # calibration scores of all groups
    m: int  # test points
    error: np.ndarray  # (L,) share of true labels with p <= eps
    lower: np.ndarray  # (L,)
    upper: np.ndarray
    above: float  # largest excess over the band, more errors than promised; 0: none
    above_at: float  # its eps; NaN: none
    below: float  # largest distance under the band, more caution than needed; 0: none
    below_at: float


@dataclass(frozen=True)
class PValueHistogram:
    """Smoothed p-values of the true label; flat when the predictor is valid."""

    edges: np.ndarray  # (BINS + 1,)
    share: np.ndarray  # (BINS,)
    low: np.ndarray  # (BINS,) pointwise interval under exchangeability
    high: np.ndarray
    distance: float  # Kolmogorov's: largest |share of p <= eps - eps| over EPS_LEVELS
    p: float  # Monte Carlo p-value of the distance; small: points are not exchangeable


@dataclass(frozen=True)
class Efficiency:
    """Sizes of the prediction sets against eps: arrays over EPS_LEVELS."""

    size: np.ndarray  # (L,) mean number of labels in a set
    single: np.ndarray  # (L,) share of sets with one label
    empty: np.ndarray  # (L,) share of empty sets


@dataclass(frozen=True)
class Reliability:
    """Largest softmax probability against accuracy, in bins (NaN in empty ones)."""

    edges: np.ndarray  # (bins + 1,)
    count: np.ndarray  # (bins,)
    confidence: np.ndarray  # (bins,) mean largest probability
    accuracy: np.ndarray  # (bins,)
    low: np.ndarray  # (bins,) 95 % interval of the accuracy by Wilson, if points are independent
    high: np.ndarray
    ece: float  # mean |accuracy - confidence| weighted by count; biased upwards at small N


@dataclass(frozen=True)
class RandomSplits:
    """Error curves of exchangeable points: the test points, split at random into two sets."""

    n: int
    m: int
    error: np.ndarray  # (draws, L)
    null: NullBand
    left: float  # share of the draws whose curve leaves its band; about 1 - BAND_COVERAGE


def null_band(
    sizes: tuple[tuple[int, int], ...],
    smoothed: bool = False,
    repeats: int = SIMULATED_CURVES,
    seed: int = 0,
) -> NullBand:
    """Simulate error curves under exchangeability and put a band around them.

    `sizes`: (n, m) of each group of Eq. (9), one group for pooled scores; hashable for a cache.
    The band scales each level's pointwise quantiles by one factor (a global envelope by directional
    quantiles, Myllymäki et al. 2017), chosen so that a share BAND_COVERAGE of the simulated curves
    stays inside everywhere. Scores without ties are assumed: with ties the unsmoothed curve is
    lower, which is safe. Of more than MANY_GROUPS groups the curves are normal.
    """
    simulate = _simulate_curves if len(sizes) <= MANY_GROUPS else _normal_curves
    error, expected, sd = simulate(sizes, smoothed, repeats, seed)
    # pointwise quantiles, and the factor that makes them simultaneous
    tails = (1 - BAND_COVERAGE) / 2
    low, high = np.quantile(error, [tails, 1 - tails], axis=0)
    up, down = np.maximum(high - expected, sd), np.maximum(expected - low, sd)
    varies, worst = sd > 1e-12, np.zeros(repeats)
    if varies.any():
        away = error[:, varies] - expected[varies]
        worst = np.maximum(away / up[varies], -away / down[varies]).max(axis=1)
    factor = np.sort(worst)[min(repeats - 1, int(np.ceil(BAND_COVERAGE * (repeats + 1))) - 1)]
    bins = np.diff(error[:, :: (len(EPS_LEVELS) - 1) // HISTOGRAM_BINS], axis=1)
    bin_low, bin_high = np.quantile(bins, [tails, 1 - tails], axis=0)
    return NullBand(
        m=max(1, sum(m for _, m in sizes)),
        expected=expected,
        lower=np.clip(expected - factor * down, 0, 1),
        upper=np.clip(expected + factor * up, 0, 1),
        low=low,
        high=high,
        deviation=np.sort(np.abs(error - EPS_LEVELS).max(axis=1)),
        bin_low=bin_low,
        bin_high=bin_high,
    )


def _simulate_curves(
    sizes: tuple[tuple[int, int], ...], smoothed: bool, repeats: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Error curves (repeats, L), their expectation (L,) and standard deviation (L,).

    Given the calibration set, test scores fall into its n + 1 gaps with the probabilities of n
    uniform points' spacings, which are Dirichlet: gamma variables over the stretches between
    levels, then multinomial counts. The counts of the groups are added.
    """
    rng, L = np.random.default_rng(seed), len(EPS_LEVELS)
    counts, expected, variance = np.zeros((repeats, L)), np.zeros(L), np.zeros(L)
    for n, m in sizes:
        at = EPS_LEVELS * (n + 1)
        j = np.floor(at + 1e-9).astype(np.int64)
        # share of the next gap, which smoothing splits
        part = np.clip(at - j, 0, 1) if smoothed else np.zeros(L)
        edges = np.unique(np.concatenate([j, np.minimum(j + 1, n + 1)]) if smoothed else j)
        gaps = rng.standard_gamma(np.diff(edges), (repeats, len(edges) - 1))
        rate = np.concatenate([np.zeros((repeats, 1)), np.cumsum(gaps, axis=1)], axis=1)
        rate /= rate[:, -1:]
        i = np.searchsorted(edges, j)
        rate = rate[:, i] + part * (rate[:, np.minimum(i + 1, len(edges) - 1)] - rate[:, i])
        steps = np.clip(np.diff(rate, axis=1), 0, None)
        drawn = rng.multinomial(m, steps / steps.sum(axis=1, keepdims=True))
        counts[:, 1:] += np.cumsum(drawn, axis=1)
        mean = (j + part) / (n + 1)
        expected += m * mean
        variance += m * mean * (1 - mean) * (n + 1 + m) / (n + 2)  # beta-binomial
    M = max(1, sum(m for _, m in sizes))
    return counts / M, expected / M, np.sqrt(variance) / M


def _normal_curves(
    sizes: tuple[tuple[int, int], ...], smoothed: bool, repeats: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_simulate_curves` for a sum over many groups, of which only mean and covariance count.

    A group's rate at a level is a sum of the Dirichlet gaps below it, the last one in part; for
    levels s <= t its counts have the covariance m E_s (1 - E_t) + m (m - 1) Cov(rate_s, rate_t).
    """
    L = len(EPS_LEVELS)
    mean, covariance = np.zeros(L), np.zeros((L, L))
    for (n, m), groups in Counter(sizes).items():
        at = EPS_LEVELS * (n + 1)
        j = np.floor(at + 1e-9)
        part = np.clip(at - j, 0, 1) if smoothed else np.zeros(L)
        gaps = j + part  # below each level
        common = j[:, None] + part[:, None] * np.where(j > j[:, None], 1, part)
        rates = (common - np.outer(gaps, gaps) / (n + 1)) / ((n + 1) * (n + 2))
        e = gaps / (n + 1)
        mean += groups * m * e
        covariance += groups * (m * np.outer(e, 1 - e) + m * (m - 1) * rates)
    upper = np.triu(covariance)
    covariance = upper + np.triu(upper, 1).T
    M = max(1, sum(m for _, m in sizes))
    drawn = np.random.default_rng(seed).multivariate_normal(mean, covariance, repeats)
    return np.clip(drawn / M, 0, 1), mean / M, np.sqrt(np.diag(covariance)) / M


def error_curve(p_true: np.ndarray) -> np.ndarray:
    """Share of points whose true label is rejected, p <= eps: (m,) of true labels -> (L,)."""
    return np.searchsorted(np.sort(p_true), EPS_LEVELS, side="right") / max(1, len(p_true))


def curve_with_band(name: str, p_true: np.ndarray, n: int, band: NullBand) -> ErrorCurve:
    """The error curve of some points with a band, which must be the `null_band` of their sizes."""
    error = error_curve(p_true)
    over, under = error - band.upper, band.lower - error
    a, b = int(over.argmax()), int(under.argmax())
    above, below = (float(max(0.0, v)) if v > 1e-12 else 0.0 for v in (over[a], under[b]))
    at = [float(EPS_LEVELS[i]) if v else float("nan") for i, v in ((a, above), (b, below))]
    return ErrorCurve(
        name, n, len(p_true), error, band.lower, band.upper, above, at[0], below, at[1]
    )


def p_value_histogram(p_true: np.ndarray, band: NullBand) -> PValueHistogram:
    """Histogram and uniformity test of *smoothed* p-values of the true label.

    `band` is the smoothed `null_band` of the same sizes. The distance is compared with that of
    simulated curves, whose points share a calibration set too; the textbook Kolmogorov-Smirnov test
    assumes independent points and rejects far too often.
    """
    error = error_curve(p_true)
    distance = float(np.abs(error - EPS_LEVELS).max())
    reached = len(band.deviation) - np.searchsorted(band.deviation, distance - 1e-12, side="left")
    width = (len(EPS_LEVELS) - 1) // HISTOGRAM_BINS
    edges, share = EPS_LEVELS[::width], np.diff(error[::width])
    p = float((reached + 1) / (len(band.deviation) + 1))
    return PValueHistogram(edges, share, band.bin_low, band.bin_high, distance, p)


def efficiency(p: np.ndarray) -> Efficiency:
    """Mean set size, share of one-label and of empty sets against eps: (m, K) -> arrays (L,)."""
    m = max(1, len(p))
    top = np.sort(p, axis=1)
    first, second = np.sort(top[:, -1]), np.sort(top[:, -2])
    has_one, has_two = (
        len(p) - np.searchsorted(v, EPS_LEVELS, side="right") for v in (first, second)
    )
    labels = p.size - np.searchsorted(np.sort(p, axis=None), EPS_LEVELS, side="right")
    return Efficiency(labels / m, (has_one - has_two) / m, 1 - has_one / m)


# letters of Vovk, Fedorova, Nouretdinov & Gammerman, "Criteria of efficiency for conformal
# prediction" (COPA 2016)
CRITERIA = {
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
    """The values of CRITERIA by name, from (m, K) p-values and (m,) true labels.

    Smaller is better for the lettered ones. Prefer S, N, OF and OE, the "probabilistic" ones, for
    which scores from the true conditional probabilities are optimal (also Vovk, Nouretdinov,
    Fedorova, Petej & Gammerman 2017, Annals of Mathematics and Artificial Intelligence 81, 21-46).
    """
    kept = prediction.prediction_sets(p, eps)
    truth = np.arange(p.shape[1]) == np.asarray(labels)[:, None]
    size, false = kept.sum(axis=1), (kept & ~truth).sum(axis=1)
    top = np.sort(p, axis=1)
    single = size == 1
    right = float((single & (false == 0)).sum() / single.sum()) if single.any() else float("nan")
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
        "single right": right,
        "empty": float((size == 0).mean()),
        "credibility": float(top[:, -1].mean()),
        "confidence": float(1 - top[:, -2].mean()),
    }


def reliability(
    o: np.ndarray, labels: np.ndarray, bins: int = 15, by: Literal["width", "mass"] = "width"
) -> Reliability:
    """Reliability diagram and expected calibration error of the softmax: (m, K), (m,).

    The bins of the largest probability have equal width on [0, 1] (closed on the right), or equal
    mass, cut between ranks. Naeini et al. 2015; Guo et al. 2017.
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
    divisor = np.where(count > 0, count, np.nan)
    confidence = np.bincount(index, best, minlength=bins) / divisor
    accuracy = np.bincount(index, right, minlength=bins) / divisor
    ece = float(np.nansum(count * np.abs(accuracy - confidence)) / max(1, len(best)))
    interval = wilson_interval(np.bincount(index, right, minlength=bins), count)
    return Reliability(edges, count, confidence, accuracy, *interval, ece)


def wilson_interval(successes: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a share, Wilson 1927: (b,) successes of (b,) trials -> low, high (b,).

    NaN where there is no trial. It lies in [0, 1], also for no success or nothing else.

    >>> low, high = wilson_interval(np.array([0.0, 8.0]), np.array([10, 10]))
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 0.49], [0.278, 0.943])
    """
    z2 = 1.959964**2  # squared 97.5 % quantile of the normal distribution
    trials = np.where(n > 0, n, np.nan)
    share = successes / trials
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def random_splits(
    alpha_true: np.ndarray,
    n: int,
    band_of: Callable[[tuple[tuple[int, int], ...], bool], NullBand],
    smoothed: bool = False,
    draws: int = 20,
    seed: int = 0,
    group: np.ndarray | None = None,
) -> RandomSplits:
    """Split the test points at random into calibration and test points, `draws` times.

    alpha_true (m,): scores of the true labels; at most n of them, and at most half, calibrate.
    `group` (m,) makes the p-values class-conditional. The two parts are exchangeable, so this is
    how the curve looks if the promise holds. `band_of(sizes, smoothed)` is `null_band` or a cached
    form of it.
    """
    rng = np.random.default_rng(seed)
    group = np.zeros(len(alpha_true), np.int64) if group is None else np.asarray(group)
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    share = min(0.5, n / max(1, len(alpha_true)))
    cut = [int(share * len(rows)) for rows in members]
    expected = band_of(tuple((c, len(rows) - c) for c, rows in zip(cut, members)), smoothed)
    error = np.zeros((draws, len(EPS_LEVELS)))
    for d in range(draws):
        shuffled = [rng.permutation(rows) for rows in members]
        noise = rng if smoothed else None
        p = [
            prediction.p_values(alpha_true[rows[:c]], alpha_true[rows[c:]][None], rng=noise)[0]
            for c, rows in zip(cut, shuffled)
        ]
        error[d] = error_curve(np.concatenate(p))
    outside = ((error > expected.upper + 1e-12) | (error < expected.lower - 1e-12)).any(axis=1)
    return RandomSplits(sum(cut), expected.m, error, expected, float(outside.mean()))
