"""§3.1: conformal prediction, Eqs (8) and (9) and Algorithm 1: inductive, cross and full. NumPy only; functions of arrays.

Letters: o is a softmax row, alpha a nonconformity score, p a p-value, n the number of calibration scores, m of test points, K of classes,
F of features. p-values are not probabilities and do not sum to one. They promise P(p of the true label <= eps) <= eps for exchangeable
data only: subjects who are new since calibration, and every upload, break that premise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.conformal import logistic

Measure = Literal["margin", "hinge"]
Groups = Literal["pooled", "class", "attribute"]

SCORES_PER_CHUNK = (
    1 << 17
)  # test scores ranked at a time: a few MB of scratch, within a processor's cache
TIE_TOLERANCE = (
    1e-8  # full CP: refits are solved to better than this, so scores nearer than it count as equal
)


def nonconformity(o: np.ndarray, measure: Measure = "margin") -> np.ndarray:
    """Eq. (8), §3.1: how strange each label would be. (m, K) softmax -> (m, K), larger is stranger.

    hinge: 1 - o_k, in [0, 1]. margin (the one the paper uses): max over i != k of o_i, minus o_k, in [-1, 1].
    Raises ValueError for an unknown measure, fewer than two classes, or values that are not finite.
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
    top = np.sort(
        o, axis=1
    )  # the largest of the others is the row's largest, or its second for the argmax itself
    best, second = top[:, -1:], top[:, -2:-1]
    is_best = np.arange(o.shape[1]) == o.argmax(axis=1)[:, None]
    return np.where(is_best, second, best) - o


def true_scores(alpha: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The calibration scores: alpha of each row's own label. (n, K), (n,) -> (n,). Raises ValueError for labels outside 0..K-1."""
    labels = np.asarray(labels)
    if labels.shape != alpha.shape[:1] or (
        len(labels) and not (labels.min() >= 0 and labels.max() < alpha.shape[1])
    ):
        raise ValueError(
            f"labels must be ({len(alpha)},) whole numbers from 0 to {alpha.shape[1] - 1}"
        )
    return np.take_along_axis(alpha, labels[:, None], axis=1)[:, 0]


def p_values(
    alpha_cal: np.ndarray,
    alpha_test: np.ndarray,
    group_cal: np.ndarray | None = None,
    group_test: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Eq. (9), §3.1: p = (#{i <= n : alpha_i >= alpha_new} + 1) / (n + 1). (n,), (m, K) -> (m, K) in [1/(n+1), 1].

    The new point counts itself, which is Eq. (9)'s i = n + 1. Repair: the paper's text after Eq. (9) inverts the inequality; the
    p-value is high when the calibration scores are *at least* as strange as the new one.
    With `rng` it is smoothed, which makes it exactly uniform for the true label of exchangeable data: with U in (0, 1] drawn for each
    cell, p = (#{alpha_i > alpha_new} + U (#{alpha_i = alpha_new} + 1)) / (n + 1), in (0, 1].
    Mondrian: with `group_cal` (n,) and `group_test` (broadcast to (m, K): `np.arange(K)` for class-conditional, (m, 1) for an
    attribute of the point) each cell is compared within its own group, n being that group's size; an empty group gives 1 (or U).
    One sort per group, then binary searches in test scores sorted by chunks: O((n + m K) log n), scratch memory bounded by CHUNK.
    Raises ValueError for NaN or shapes that do not fit.
    """
    alpha_cal, alpha_test = np.asarray(alpha_cal), np.asarray(alpha_test)
    if alpha_cal.ndim != 1 or alpha_test.ndim != 2:
        raise ValueError(
            f"scores must be (n,) and (m, K), not {alpha_cal.shape} and {alpha_test.shape}"
        )
    if np.isnan(alpha_cal).any():
        raise ValueError("nonconformity scores hold NaN")
    if (group_cal is None) != (group_test is None):
        raise ValueError("give both group_cal and group_test, or neither")
    u = None if rng is None else 1.0 - rng.random(alpha_test.shape)
    if group_cal is None or group_test is None:
        return _pooled_p_values(
            alpha_cal, alpha_test.ravel(), None if u is None else u.ravel()
        ).reshape(alpha_test.shape)
    group_cal, group_test = np.asarray(group_cal), np.asarray(group_test)
    if group_cal.shape != alpha_cal.shape:
        raise ValueError(f"group_cal must be {alpha_cal.shape}, not {group_cal.shape}")
    p = np.empty(alpha_test.shape)
    for g in np.unique(group_test):
        cells = np.broadcast_to(group_test == g, alpha_test.shape)
        p[cells] = _pooled_p_values(
            alpha_cal[group_cal == g], alpha_test[cells], None if u is None else u[cells]
        )
    return p


def _pooled_p_values(
    alpha_cal: np.ndarray, alpha_new: np.ndarray, u: np.ndarray | None
) -> np.ndarray:
    """(n,), (m,), (m,) or None -> (m,). Searches for sorted values walk through the calibration scores once instead of jumping about."""
    kind = np.result_type(alpha_cal, alpha_new)
    scores, n = np.sort(alpha_cal.astype(kind, copy=False)), len(alpha_cal)
    p = np.empty(len(alpha_new))
    for i in range(0, len(p), SCORES_PER_CHUNK):
        part = alpha_new[i : i + SCORES_PER_CHUNK].astype(kind, copy=False)
        order = np.argsort(part)
        part = part[order]
        if np.isnan(part[-1]):  # NaN sorts last
            raise ValueError("nonconformity scores hold NaN")
        count = np.searchsorted(scores, part, side="left")  # calibration scores below
        if u is None:
            p[i : i + SCORES_PER_CHUNK][order] = (n - count + 1) / (n + 1)
        else:
            above = n - np.searchsorted(scores, part, side="right")
            p[i : i + SCORES_PER_CHUNK][order] = (
                above + u[i : i + SCORES_PER_CHUNK][order] * (n - count - above + 1)
            ) / (n + 1)
    return p


@dataclass(frozen=True)
class Ranking:
    """Eq. (9) for one new point, taken apart: what is counted under each label. Arrays (K,)."""

    alpha: np.ndarray  # how strange each label would be
    above: np.ndarray  # calibration scores strictly stranger
    equal: np.ndarray  # calibration scores exactly as strange
    n: np.ndarray  # calibration scores that the label is compared with
    p: np.ndarray  # (above + equal + 1) / (n + 1), the unsmoothed p-value


def ranking(
    alpha_cal: np.ndarray, alpha_new: np.ndarray, group_cal: np.ndarray | None = None
) -> Ranking:
    """The counts behind `p_values` of one point: (n,), (K,) -> Ranking. With `group_cal` (n,), the labels, each class is its own group."""
    K = len(alpha_new)
    groups = [alpha_cal if group_cal is None else alpha_cal[group_cal == k] for k in range(K)]
    above, equal = (
        np.array([int(f(g, a).sum()) for g, a in zip(groups, alpha_new)])
        for f in (np.greater, np.equal)
    )
    n = np.array([len(g) for g in groups])
    return Ranking(np.asarray(alpha_new), above, equal, n, (above + equal + 1) / (n + 1))


def min_p_value(n):
    """The smallest value that an unsmoothed p-value can take, 1 / (n + 1): no label is ever rejected at an eps below it."""
    return 1.0 / (np.asarray(n) + 1.0)


def inductive_p_values(
    o_cal: np.ndarray,
    labels_cal: np.ndarray,
    o_test: np.ndarray,
    measure: Measure = "margin",
    groups: Groups = "pooled",
    attribute: tuple[np.ndarray, np.ndarray] | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """The inductive conformal predictor from softmax outputs: Eq. (8) on both sets, then Eq. (9). (n, K), (n,), (m, K) -> (m, K).

    `pooled` compares with all calibration scores; `class` (Mondrian) compares the hypothesis k with class k's scores alone. The
    paper does not say which it means; both are offered, by name. `attribute` compares within a group that is known of a point without
    its label (sex, age band; never an unseen subject): `attribute` is then ((n,), (m,)). `rng` smooths, see `p_values`.
    """
    alpha_cal = true_scores(nonconformity(o_cal, measure), labels_cal)
    alpha_test = nonconformity(o_test, measure)
    if groups == "pooled":
        return p_values(alpha_cal, alpha_test, rng=rng)
    if groups == "class":
        return p_values(
            alpha_cal, alpha_test, np.asarray(labels_cal), np.arange(alpha_test.shape[1]), rng
        )
    if groups != "attribute":
        raise ValueError(f"groups is {groups!r}; it must be 'pooled', 'class' or 'attribute'")
    if attribute is None:
        raise ValueError(
            "groups is 'attribute': give attribute=(values of the calibration points, values of the test points)"
        )
    return p_values(
        alpha_cal, alpha_test, np.asarray(attribute[0]), np.asarray(attribute[1])[:, None], rng
    )


def split_p_values(
    features: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray,
    calibrates: np.ndarray,
    classes: int,
    fit: logistic.FitFunction | None = None,
    measure: Measure = "margin",
    groups: Literal["pooled", "class"] = "pooled",
) -> np.ndarray:
    """Inductive CP with a light head: trained on the rows that do not calibrate. (n, F), (n,), (m, F), (n,) bool -> (m, K).

    What full CP is compared with: the same head (`fit_logistic` unless `fit` is given) on the same fixed features.
    """
    features, labels, calibrates = (
        np.asarray(features),
        np.asarray(labels),
        np.asarray(calibrates, bool),
    )
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
    groups: Literal["pooled", "class"] = "pooled",
) -> np.ndarray:
    """Cross-conformal prediction (§2 of the paper; Vovk 2015): each fold calibrates a head trained on the others, and the p-values are
    averaged. (n, F), (n,), (m, F), fold of each row (n,) -> (m, K).

    The average of p-values promises an error of at most 2 eps only, not eps (Vovk & Wang 2020), though it is mostly near eps.
    """
    fold = np.asarray(fold)
    return np.mean(
        [
            split_p_values(features, labels, x, fold == k, classes, fit, measure, groups)
            for k in np.unique(fold)
        ],
        axis=0,
    )


def full_p_values(
    features: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray,
    classes: int,
    fit: logistic.FitFunction | None = None,
    measure: Measure = "margin",
    groups: Literal["pooled", "class"] = "pooled",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Algorithm 1, §3.1: full (transductive) CP of a light head on fixed features. (n, F), (n,), (m, F) -> (m, K).

    For each new point and each label k the head is refitted on the n points and (x, k); Eq. (8) scores all n + 1 and Eq. (9) ranks the
    new one: m K refits, no point spent on calibration alone. `fit` must treat its rows alike, whatever their order, or the promise is
    lost; without it the head is `fit_logistic`, for all K hypotheses of a point together.
    Scores nearer than TIE count as equal, which can only raise p. The paper refits the network itself, which no small machine can.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    x = np.asarray(x, np.float64)
    if (
        features.ndim != 2
        or labels.shape != features.shape[:1]
        or x.ndim != 2
        or x.shape[1] != features.shape[1]
    ):
        raise ValueError(
            f"features, labels and x must be (n, F), (n,) and (m, F), not {features.shape}, {labels.shape} and {x.shape}"
        )
    n, k = len(labels), np.arange(classes)
    hypotheses = np.concatenate([np.tile(labels, (classes, 1)), k[:, None]], axis=1)  # (K, n + 1)
    same = hypotheses[:, :n] == k[:, None] if groups == "class" else np.ones((classes, n), bool)
    start = (
        logistic.newton(
            logistic.with_bias(features), logistic.one_hot(labels, classes), logistic.L2_WEIGHT
        )
        if fit is None
        else None
    )
    u = None if rng is None else 1.0 - rng.random((len(x), classes))
    p = np.empty((len(x), classes))
    for i, row in enumerate(x):
        both = np.concatenate([features, row[None]])
        if start is not None:
            o = logistic.refit_last_row(
                logistic.with_bias(both), hypotheses, classes, start
            )  # (K, n + 1, K)
        elif fit is not None:
            o = np.stack([fit(both, h)(both) for h in hypotheses])
        alpha = true_scores(
            nonconformity(o.reshape(-1, classes), measure), hypotheses.ravel()
        ).reshape(classes, n + 1)
        difference = alpha[:, :n] - alpha[:, n:]
        at_least = (same & (difference >= -TIE_TOLERANCE)).sum(axis=1)
        if u is None:
            p[i] = (at_least + 1) / (same.sum(axis=1) + 1)
        else:
            above = (same & (difference > TIE_TOLERANCE)).sum(axis=1)
            p[i] = (above + u[i] * (at_least - above + 1)) / (same.sum(axis=1) + 1)
    return p


def forced_prediction(p: np.ndarray) -> np.ndarray:
    """The forced prediction, the label of highest p-value (§3.1): (m, K) -> (m,)."""
    return p.argmax(axis=1)


def credibility(p: np.ndarray) -> np.ndarray:
    """The highest p-value (§3.1): low when the point is strange under every label. (m, K) -> (m,)."""
    return p.max(axis=1)


def confidence(p: np.ndarray) -> np.ndarray:
    """1 - the second highest p-value (§3.1): high when every other label is strange. (m, K) -> (m,)."""
    return 1.0 - np.sort(p, axis=1)[:, -2]


def prediction_sets(p: np.ndarray, eps: float) -> np.ndarray:
    """Labels that cannot be rejected at significance eps: p > eps. (m, K) -> (m, K) bool."""
    return p > eps
