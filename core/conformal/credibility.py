"""§3.1: the scale of a credibility: which values a predictor can give, and the usual ones.

Credibility is the highest p-value of a point. Both measures of Eq. (8) read the softmax alone,
which always has a first choice, so many predictors cannot give a low one: with margin and pooled
scores the first choice has alpha <= 0, and its p-value counts every calibration point of
alpha >= 0. A high credibility then means that the classifier is decided, not that the point is a
usual one.
NumPy only; pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.conformal import prediction, predictor
from core.conformal.prediction import Measure
from core.conformal.predictor import Predictor

# what a credibility measures, in two sentences for every place that shows one
MEANING = (
    "The highest p-value. Both measures of Eq. (8) read the softmax alone: they measure "
    "indecision, not strangeness."
)
SLACK = 1e-9  # rounding of a softmax' sum: a limit that a score misses by less counts as met


@dataclass(frozen=True)
class CredibilityScale:
    """Bounds of the credibility by one predictor, and the credibilities of its test points."""

    low: float  # no point is below
    high: float  # no point is above
    is_exact: bool  # some softmax reaches `low`; False: it is a bound that may be too low
    usual: np.ndarray  # (m,) sorted credibilities of the test points; (0,) where unknown

    def share_above(self, value: float) -> float:
        """Share of the test points of a higher credibility; NaN where they are unknown."""
        if not len(self.usual):
            return float("nan")
        rank = np.searchsorted(self.usual, value + 1e-12, side="right")
        return float(1 - rank / len(self.usual))


def scale(f: Predictor, p_test: np.ndarray | None = None) -> CredibilityScale:
    """The scale of a predictor; p_test (m, K) are the p-values of test points, if known."""
    low, is_exact = lowest(f)
    usual = np.zeros(0) if p_test is None else np.sort(prediction.credibility(p_test))
    return CredibilityScale(low, 1.0, is_exact, usual)


def describe(s: CredibilityScale, value: float, points: str = "test faces") -> str:
    """A credibility with its scale, as in "0.57; possible here 0.52 to 1; lower than 80 % of …"."""
    at_least = f"{s.low:.2f} to 1" if s.is_exact else f"{s.low:.2f} or more"
    words = f"{value:.2f}; possible here {at_least}"
    if not len(s.usual):
        return words
    return f"{words}; lower than {100 * s.share_above(value):.0f} % of {points}"


def lowest(f: Predictor) -> tuple[float, bool]:
    """The lowest credibility that a predictor can give, and whether a softmax reaches it.

    inductive, head: exact, over all softmax outputs. cross: the mean over folds of p-values whose
    first choices may differ, so a bound only. full: the head is refitted with the point, so any
    p-value down to 1 / (n + 1) is possible; a bound as well.
    """
    scores, label = predictor.calibration_scores(f)
    groups = _groups(scores, label, f.classes, f.groups == "class")
    if f.kind in ("inductive", "head"):
        return lowest_of_scores(groups, f.measure), True
    if f.kind == "full":
        return float(max(prediction.min_p_value(len(g)) for g in groups)), False
    fold, parts = f.fold[f.calibrates], []
    for k in np.unique(fold):
        rows = fold == k
        own = _groups(scores[rows], label[rows], f.classes, f.groups == "class")
        floor = min(prediction.min_p_value(len(g)) for g in own)
        parts.append((lowest_of_scores(own, f.measure), floor))
    least, floor = np.array(parts).T
    # some label is the first choice of a fold, and of at least 1/K of them by weight
    alone = (floor.sum() + (least - floor).max()) / len(parts)
    return float(max(alone, least.mean() / f.classes)), False


def _groups(
    scores: np.ndarray, label: np.ndarray, classes: int, by_class: bool
) -> list[np.ndarray]:
    """For each label the calibration scores that it is compared with."""
    return [scores[label == k] if by_class else scores for k in range(classes)]


def lowest_of_scores(groups: list[np.ndarray], measure: Measure = "margin") -> float:
    """The lowest highest p-value over all softmax outputs, by Eqs (8) and (9).

    groups[k] (n_k,) are the calibration scores of label k. The level t is reached by a softmax with
    p_k <= t for every k, and that is alpha_k > T_k(t), the score of rank floor(t (n_k + 1)) from
    the top (+inf where the level is below the floor). A bisection over the p-values that exist
    finds the smallest such level.

    >>> alpha = np.array([-0.9, -0.5, 0.1, 0.3])  # two of four are at least 0
    >>> lowest_of_scores([alpha, alpha, alpha])
    0.6
    """
    sizes = np.array([len(g) for g in groups])
    descending = [np.sort(g)[::-1] for g in groups]
    levels = np.unique(np.concatenate([np.arange(1, n + 2) / (n + 1) for n in np.unique(sizes)]))
    first, last = 0, len(levels) - 1  # the level 1 is always reached
    while first < last:
        middle = (first + last) // 2
        limits = np.array([_limit(d, levels[middle]) for d in descending])
        if reaching_softmax(limits, measure) is not None:
            last = middle
        else:
            first = middle + 1
    return float(levels[last])


def _limit(descending: np.ndarray, level: float) -> float:
    """What a label's alpha must exceed for a p-value of at most `level`."""
    n = len(descending)
    count = int(np.floor(level * (n + 1) + 1e-9)) - 1  # calibration scores that may be >= alpha
    if count < 0:
        return np.inf
    return -np.inf if count >= n else float(descending[count])


def reaching_softmax(limits: np.ndarray, measure: Measure = "margin") -> np.ndarray | None:
    """A softmax o (K,) whose alpha of Eq. (8) exceeds `limits` (K,) for every label; None: none.

    hinge: alpha_k = 1 - o_k, so o_k < 1 - limits[k], which is possible if these sum to more than 1.
    margin: with first choice j, second l and gap g = o_j - o_l, alpha_j = -g, alpha_l = g, and the
    others' alpha is at most (1 + g) / 2, which o_j + o_l = 1 attains; a g in [0, 1] must fit all.
    Of the second choices the one of the smallest limit leaves most room.
    """
    K = len(limits)
    if (limits == np.inf).any():
        return None
    if measure == "hinge":
        room = 1 - np.maximum(limits - SLACK, -1.0)
        fits = (room > 0).all() and room.sum() > 1
        return room / room.sum() if fits else None
    order = np.argsort(limits, kind="stable")
    for j in range(K):
        second = order[0] if order[0] != j else order[1]
        rest = [limits[k] for k in order[:-4:-1] if k not in (j, second)]
        low = max(limits[second], 2 * (rest[0] - SLACK) - 1 if rest else -np.inf)
        high = -limits[j]
        if high > max(low, 0.0) and low < 1:
            o, g = np.zeros(K), 0.0 if low < 0 else (low + min(high, 1.0)) / 2
            o[[j, second]] = (1 + g) / 2, (1 - g) / 2
            return o
    return None
