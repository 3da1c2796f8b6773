"""§3.1: inductive conformal prediction, Eqs (8) and (9). NumPy only; functions of arrays.

Letters: o is a softmax row, alpha a nonconformity score, p a p-value, n the number of calibration scores, m of test points, K of classes.
p-values are not probabilities and do not sum to one. They promise P(p of the true label <= eps) <= eps for exchangeable data only:
subjects who are new since calibration, and every upload, break that premise.
"""

from __future__ import annotations

from typing import Literal

import numpy as np


def nonconformity(o: np.ndarray, measure: Literal["margin", "hinge"] = "margin") -> np.ndarray:
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
    top = np.sort(o, axis=1)  # the largest of the others is the row's largest, or its second for the argmax itself
    best, second = top[:, -1:], top[:, -2:-1]
    is_best = np.arange(o.shape[1]) == o.argmax(axis=1)[:, None]
    return np.where(is_best, second, best) - o


def true_scores(alpha: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The calibration scores: alpha of each row's own label. (n, K), (n,) -> (n,)."""
    return np.take_along_axis(alpha, np.asarray(labels)[:, None], axis=1)[:, 0]


def p_values(
    alpha_cal: np.ndarray, alpha_test: np.ndarray, group_cal: np.ndarray | None = None, group_test: np.ndarray | None = None
) -> np.ndarray:
    """Eq. (9), §3.1, unsmoothed: p = (#{i <= n : alpha_i >= alpha_new} + 1) / (n + 1). (n,), (m, K) -> (m, K) in [1/(n+1), 1].

    The new point counts itself, which is Eq. (9)'s i = n + 1. Repair: the paper's text after Eq. (9) inverts the inequality; the
    p-value is high when the calibration scores are *at least* as strange as the new one.
    Mondrian: with `group_cal` (n,) and `group_test` (broadcast to (m, K): `np.arange(K)` for class-conditional, (m, 1) for an
    attribute of the point) each cell is compared within its own group, n being that group's size; an empty group gives 1.
    One sort and one binary search per group: O((n + m K) log n). Raises ValueError for NaN or shapes that do not fit.
    """
    alpha_cal, alpha_test = np.asarray(alpha_cal), np.asarray(alpha_test)
    if alpha_cal.ndim != 1 or alpha_test.ndim != 2:
        raise ValueError(f"scores must be (n,) and (m, K), not {alpha_cal.shape} and {alpha_test.shape}")
    if np.isnan(alpha_cal).any() or np.isnan(alpha_test).any():
        raise ValueError("nonconformity scores hold NaN")
    if (group_cal is None) != (group_test is None):
        raise ValueError("give both group_cal and group_test, or neither")
    if group_cal is None or group_test is None:
        return _rank(alpha_cal, alpha_test)
    group_cal = np.asarray(group_cal)
    if group_cal.shape != alpha_cal.shape:
        raise ValueError(f"group_cal must be {alpha_cal.shape}, not {group_cal.shape}")
    group_test = np.broadcast_to(group_test, alpha_test.shape)
    p = np.empty(alpha_test.shape)
    for g in np.unique(group_test):
        cells = group_test == g
        p[cells] = _rank(alpha_cal[group_cal == g], alpha_test[cells])
    return p


def _rank(alpha_cal: np.ndarray, alpha_new: np.ndarray) -> np.ndarray:
    n = len(alpha_cal)
    below = np.searchsorted(np.sort(alpha_cal), alpha_new, side="left")
    return (n - below + 1) / (n + 1)


def inductive(
    o_cal: np.ndarray,
    labels_cal: np.ndarray,
    o_test: np.ndarray,
    measure: Literal["margin", "hinge"] = "margin",
    groups: Literal["pooled", "class"] = "pooled",
) -> np.ndarray:
    """The inductive conformal predictor from softmax outputs: Eq. (8) on both sets, then Eq. (9). (n, K), (n,), (m, K) -> (m, K).

    `pooled` compares with all calibration scores; `class` (Mondrian) compares the hypothesis k with class k's scores alone. The
    paper does not say which it means; both are offered, by name.
    """
    alpha_cal = true_scores(nonconformity(o_cal, measure), labels_cal)
    alpha_test = nonconformity(o_test, measure)
    if groups == "pooled":
        return p_values(alpha_cal, alpha_test)
    if groups != "class":
        raise ValueError(f"groups is {groups!r}; it must be 'pooled' or 'class'")
    return p_values(alpha_cal, alpha_test, np.asarray(labels_cal), np.arange(alpha_test.shape[1]))


def prediction(p: np.ndarray) -> np.ndarray:
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
