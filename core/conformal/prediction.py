"""§3.1: conformal prediction, Eqs (8) and (9) and Algorithm 1: inductive, cross and full.

Letters: o is a softmax row, alpha a nonconformity score, p a p-value; n, m, K and F are the numbers
of calibration scores, test points, classes and features. p-values are not probabilities and do not
sum to one. They promise P(p of the true label <= eps) <= eps for exchangeable data only: subjects
who are new since calibration, and every upload, break that premise. NumPy only; pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from core.conformal import logistic

Measure = Literal["margin", "hinge"]
Groups = Literal["pooled", "class"]

SCORES_PER_CHUNK = 1 << 17  # test scores ranked at a time: a few MB, within a processor's cache
TIE_TOLERANCE = 1e-8  # full CP: scores nearer than this count as equal; refits are more exact


def nonconformity(o: np.ndarray, measure: Measure = "margin") -> np.ndarray:
    """Eq. (8), §3.1: nonconformity of each label. (m, K) softmax -> (m, K); larger is stranger.

    hinge: 1 - o_k, in [0, 1]. margin, which the paper uses: max over i != k of o_i, minus o_k, in
    [-1, 1]. Raises ValueError for an unknown measure, fewer than two classes, or values that are
    not finite.

    >>> nonconformity(np.array([[0.75, 0.25, 0.0]])).tolist()
    [[-0.5, 0.5, 0.75]]
    >>> nonconformity(np.array([[0.75, 0.25, 0.0]]), "hinge").tolist()
    [[0.25, 0.75, 1.0]]
    """
    o = np.asarray(o, np.float64)
    if o.ndim != 2 or o.shape[1] < 2:
        raise ValueError(f"softmax outputs must be (m, K) with K >= 2, not {o.shape}")
    if not np.isfinite(o).all():
        raise ValueError("softmax outputs hold NaN or infinity")
    if measure == "hinge":
        return 1.0 - o
    if measure != "margin":
        raise ValueError(f"measure is {measure!r}; it must be 'margin' or 'hinge'")
    # the largest of the others is the row's largest, and for the argmax itself the second largest
    top = np.sort(o, axis=1)
    best, second = top[:, -1:], top[:, -2:-1]
    is_best = np.arange(o.shape[1]) == o.argmax(axis=1)[:, None]
    return np.where(is_best, second, best) - o


def true_scores(alpha: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The calibration scores, alpha of each row's own label: (n, K), (n,) -> (n,).

    Raises ValueError for labels outside 0..K-1.
    """
    labels, (n, K) = np.asarray(labels), alpha.shape
    if labels.shape != (n,) or (n and not (labels.min() >= 0 and labels.max() < K)):
        raise ValueError(f"labels must be ({n},) whole numbers from 0 to {K - 1}")
    return np.take_along_axis(alpha, labels[:, None], axis=1)[:, 0]


def p_values(
    alpha_cal: np.ndarray,
    alpha_test: np.ndarray,
    group_cal: np.ndarray | None = None,
    group_test: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Eq. (9), §3.1: p = (#{i <= n : alpha_i >= alpha_new} + 1) / (n + 1), in [1/(n+1), 1].

    (n,), (m, K) -> (m, K). The new point counts itself, which is Eq. (9)'s i = n + 1. Repair: the
    paper's text after Eq. (9) inverts the inequality; p is high when the calibration scores are *at
    least* as strange as the new one.
    Smoothing: with `rng`, p = (#{alpha_i > alpha_new} + U (#{alpha_i = alpha_new} + 1)) / (n + 1),
    in (0, 1], with U in (0, 1] drawn for each cell. The true label's p is then exactly uniform for
    exchangeable data.
    Mondrian: with `group_cal` (n,) and `group_test` (broadcast to (m, K): `np.arange(K)` for
    class-conditional p-values, (m, 1) for a group of points) each cell is compared within its own
    group and n is that group's size; an empty group gives 1 (or U).
    Cost: O((n + m K) log n), in chunks of SCORES_PER_CHUNK. Raises ValueError for NaN and for
    shapes that do not fit.

    >>> p_values(np.array([0.1, 0.2, 0.3]), np.array([[0.2, 0.4]])).tolist()
    [[0.75, 0.25]]
    """
    alpha_cal, alpha_test = np.asarray(alpha_cal), np.asarray(alpha_test)
    if alpha_cal.ndim != 1 or alpha_test.ndim != 2:
        given = f"{alpha_cal.shape} and {alpha_test.shape}"
        raise ValueError(f"scores must be (n,) and (m, K), not {given}")
    if np.isnan(alpha_cal).any():
        raise ValueError("nonconformity scores hold NaN")
    if (group_cal is None) != (group_test is None):
        raise ValueError("give both group_cal and group_test, or neither")
    u = None if rng is None else 1.0 - rng.random(alpha_test.shape)
    if group_cal is None or group_test is None:
        flat = None if u is None else u.ravel()
        return _pooled_p_values(alpha_cal, alpha_test.ravel(), flat).reshape(alpha_test.shape)
    group_cal, group_test = np.asarray(group_cal), np.asarray(group_test)
    if group_cal.shape != alpha_cal.shape:
        raise ValueError(f"group_cal must be {alpha_cal.shape}, not {group_cal.shape}")
    p = np.empty(alpha_test.shape)
    for g in np.unique(group_test):
        mask: Any = group_test == g
        # whole columns, where groups are columns: K masks of all cells would cost m K^2
        cells = (slice(None), mask) if mask.ndim == 1 else np.broadcast_to(mask, p.shape)
        scores = alpha_test[cells]
        part = None if u is None else u[cells].ravel()
        ranked = _pooled_p_values(alpha_cal[group_cal == g], scores.ravel(), part)
        p[cells] = ranked.reshape(scores.shape)
    return p


def _pooled_p_values(
    alpha_cal: np.ndarray, alpha_new: np.ndarray, u: np.ndarray | None
) -> np.ndarray:
    """`p_values` of one group: (n,), (m,), (m,) or None -> (m,).

    Test scores are sorted, so that the binary searches pass through memory in one direction.
    """
    kind = np.result_type(alpha_cal, alpha_new)
    scores, n = np.sort(alpha_cal.astype(kind, copy=False)), len(alpha_cal)
    p = np.empty(len(alpha_new))
    for i in range(0, len(p), SCORES_PER_CHUNK):
        chunk = slice(i, i + SCORES_PER_CHUNK)
        part = alpha_new[chunk].astype(kind, copy=False)
        order = np.argsort(part)
        part = part[order]
        if np.isnan(part[-1]):  # NaN sorts last
            raise ValueError("nonconformity scores hold NaN")
        below = np.searchsorted(scores, part, side="left")  # number of calibration scores
        if u is None:
            p[chunk][order] = (n - below + 1) / (n + 1)
        else:
            above = n - np.searchsorted(scores, part, side="right")
            p[chunk][order] = (above + u[chunk][order] * (n - below - above + 1)) / (n + 1)
    return p


@dataclass(frozen=True)
class Ranking:
    """The counts of Eq. (9) for one new point under each label. Arrays (K,)."""

    alpha: np.ndarray  # nonconformity of each label, Eq. (8)
    above: np.ndarray  # calibration scores strictly stranger
    equal: np.ndarray  # calibration scores exactly as strange
    n: np.ndarray  # calibration scores that the label is compared with
    p: np.ndarray  # (above + equal + 1) / (n + 1), the unsmoothed p-value


def ranking(
    alpha_cal: np.ndarray, alpha_new: np.ndarray, group_cal: np.ndarray | None = None
) -> Ranking:
    """The counts behind `p_values` of one point: (n,), (K,) -> Ranking.

    With `group_cal` (n,), the calibration labels, each class is its own group.
    """
    K = len(alpha_new)
    groups = [alpha_cal if group_cal is None else alpha_cal[group_cal == k] for k in range(K)]
    above, equal = (
        np.array([int(f(g, a).sum()) for g, a in zip(groups, alpha_new)])
        for f in (np.greater, np.equal)
    )
    n = np.array([len(g) for g in groups])
    return Ranking(np.asarray(alpha_new), above, equal, n, (above + equal + 1) / (n + 1))


def min_p_value(n):
    """The smallest unsmoothed p-value, 1 / (n + 1): at a smaller eps no label is ever rejected."""
    return 1.0 / (np.asarray(n) + 1.0)


def inductive_p_values(
    o_cal: np.ndarray,
    labels_cal: np.ndarray,
    o_test: np.ndarray,
    measure: Measure = "margin",
    groups: Groups = "pooled",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Inductive CP from softmax outputs, Eqs (8) and (9): (n, K), (n,), (m, K) -> (m, K).

    `pooled` compares with all calibration scores; `class` (Mondrian) compares the hypothesis k with
    the scores of class k alone. The paper does not say which it uses. `rng` smooths (`p_values`).

    >>> o = np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]])
    >>> inductive_p_values(o, np.array([0, 0, 1]), np.array([[0.625, 0.375]])).tolist()
    [[0.5, 0.25]]
    """
    alpha_cal = true_scores(nonconformity(o_cal, measure), labels_cal)
    alpha_test = nonconformity(o_test, measure)
    if groups == "pooled":
        return p_values(alpha_cal, alpha_test, rng=rng)
    if groups != "class":
        raise ValueError(f"groups is {groups!r}; it must be 'pooled' or 'class'")
    classes = np.arange(alpha_test.shape[1])
    return p_values(alpha_cal, alpha_test, np.asarray(labels_cal), classes, rng)


def split_p_values(
    features: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray,
    calibrates: np.ndarray,
    classes: int,
    fit: logistic.FitFunction | None = None,
    measure: Measure = "margin",
    groups: Groups = "pooled",
) -> np.ndarray:
    """Inductive CP with a light head, trained on the rows that do not calibrate.

    (n, F), (n,), (m, F), (n,) bool -> (m, K). This is the baseline of full CP: the same head
    (`fit_logistic` unless `fit` is given) on the same fixed features.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    calibrates = np.asarray(calibrates, bool)
    if calibrates.all() or not calibrates.any():
        raise ValueError("some rows must train the head and some must calibrate it")
    predict = (fit or logistic.fit_function(classes))(features[~calibrates], labels[~calibrates])
    return inductive_p_values(
        predict(features[calibrates]), labels[calibrates], predict(x), measure, groups
    )


def cross_p_values(
    features: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray,
    fold: np.ndarray,
    classes: int,
    fit: logistic.FitFunction | None = None,
    measure: Measure = "margin",
    groups: Groups = "pooled",
) -> np.ndarray:
    """Cross-conformal prediction (§2 of the paper; Vovk 2015): the mean p-values of all folds.

    (n, F), (n,), (m, F), fold of each row (n,) -> (m, K). Each fold calibrates a head that is
    trained on the other folds. The mean promises an error of at most 2 eps, not eps (Vovk & Wang
    2020), though the error is mostly near eps.
    """
    fold, how = np.asarray(fold), (classes, fit, measure, groups)
    folds = [split_p_values(features, labels, x, fold == k, *how) for k in np.unique(fold)]
    return np.mean(folds, axis=0)


def full_p_values(
    features: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray,
    classes: int,
    fit: logistic.FitFunction | None = None,
    measure: Measure = "margin",
    groups: Groups = "pooled",
) -> np.ndarray:
    """Algorithm 1, §3.1: full (transductive) CP of a light head on fixed features.

    (n, F), (n,), (m, F) -> (m, K). For each new point x and label k the head is refitted on the n
    points and (x, k); Eq. (8) scores all n + 1 points and Eq. (9) ranks the new one: m K refits,
    and no point is reserved for calibration. `fit` must not depend on the order of its rows, or the
    promise is lost; the default is `fit_logistic`, refitted for all K hypotheses together.
    Scores nearer than TIE_TOLERANCE count as equal, which can only raise p. The paper refits the
    network itself, which is too slow here. Raises ValueError for shapes that do not fit.
    """
    return full_ranking(features, labels, x, classes, fit, measure, groups)[0]


def full_ranking(
    features: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray,
    classes: int,
    fit: logistic.FitFunction | None = None,
    measure: Measure = "margin",
    groups: Groups = "pooled",
) -> tuple[np.ndarray, np.ndarray]:
    """`full_p_values`, and the new points' own scores alpha under each label: (m, K) each."""
    n, k = len(labels), np.arange(classes)
    same = np.ones((classes, n), bool)
    if groups == "class":
        same = np.asarray(labels) == k[:, None]
    p, alpha = np.empty((2, len(x), classes))
    for i, scores in enumerate(full_scores(features, labels, x, classes, fit, measure)):
        at_least = (same & (scores[:, :n] - scores[:, n:] >= -TIE_TOLERANCE)).sum(axis=1)
        p[i], alpha[i] = (at_least + 1) / (same.sum(axis=1) + 1), scores[:, n]
    return p, alpha


def full_scores(
    features: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray,
    classes: int,
    fit: logistic.FitFunction | None = None,
    measure: Measure = "margin",
) -> Iterator[np.ndarray]:
    """The scores of Algorithm 1, for one new point after the other: (K, n + 1), the new one last.

    Row k holds Eq. (8) of all points under their labels, with the head refitted on the n points and
    (x, k). Arguments as in `full_p_values`.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    x = np.asarray(x, np.float64)
    shapes = features.shape, labels.shape, x.shape
    fits = features.ndim == x.ndim == 2 and labels.shape == features.shape[:1]
    if not fits or x.shape[1] != features.shape[1]:
        raise ValueError(f"features, labels and x must be (n, F), (n,) and (m, F), not {shapes}")
    n, k = len(labels), np.arange(classes)
    hypotheses = np.concatenate([np.tile(labels, (classes, 1)), k[:, None]], axis=1)  # (K, n + 1)
    if fit is None:
        Y = logistic.one_hot(labels, classes)
        start = logistic.newton(logistic.with_bias(features), Y, logistic.L2_WEIGHT)
    for row in x:
        both = np.concatenate([features, row[None]])
        if fit is None:
            o = logistic.refit_last_row(logistic.with_bias(both), hypotheses, classes, start)
        else:
            o = np.stack([fit(both, h)(both) for h in hypotheses])  # (K, n + 1, K)
        scores = nonconformity(o.reshape(-1, classes), measure)
        yield true_scores(scores, hypotheses.ravel()).reshape(classes, n + 1)


def forced_prediction(p: np.ndarray) -> np.ndarray:
    """The label of highest p-value (§3.1), the forced prediction: (m, K) -> (m,)."""
    return p.argmax(axis=1)


def credibility(p: np.ndarray) -> np.ndarray:
    """The highest p-value (§3.1): low if the point is strange under every label. (m, K) -> (m,).

    >>> credibility(np.array([[0.75, 0.25, 0.5]])).tolist()
    [0.75]
    """
    return p.max(axis=1)


def confidence(p: np.ndarray) -> np.ndarray:
    """1 - the second highest p-value (§3.1): high if every other label is strange. (m, K) -> (m,).

    >>> confidence(np.array([[0.75, 0.25, 0.5]])).tolist()
    [0.5]
    """
    return 1.0 - np.sort(p, axis=1)[:, -2]


def prediction_sets(p: np.ndarray, eps: float) -> np.ndarray:
    """Labels that cannot be rejected at significance eps: p > eps. (m, K) -> (m, K) bool.

    >>> prediction_sets(np.array([[0.75, 0.25, 0.5]]), eps=0.25).tolist()
    [[True, False, True]]
    """
    return p > eps
