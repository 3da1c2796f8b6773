"""§3.1: a run's conformal predictor, fitted: softmax and features of new points -> p-values.

Training makes it from the arrays that it writes to the run's outputs.npz, and everything that shows
or uses the run reads it from there, so all give the same p-values. There are four kinds:

- inductive: Eqs (8) and (9) on f_S's softmax;
- head: the same on a light head, a logistic regression on f_S's features;
- cross: cross-conformal, the mean p-value of several such heads; it promises 2 eps only;
- full: Algorithm 1 with that head.

NumPy only.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core import files
from core.config.settings import ConformalSettings
from core.conformal import logistic, prediction
from core.conformal.prediction import Groups, Measure
from core.files import UserError
from core.runs.directory import Run

Kind = Literal["inductive", "head", "cross", "full"]
KIND_NAMES: dict[str, str] = {
    "inductive": "inductive CP on f_S's softmax",
    "head": "inductive CP on a light head",
    "cross": "cross-conformal prediction with a light head",
    "full": "full CP (Algorithm 1) with a light head",
}
CROSS_PROMISE = "Cross-conformal prediction promises an error of at most 2ε, not ε."
CROSS_FOLDS = 5  # folds of the cross-conformal predictor; fewer where points are fewer
HEAD_COMPONENTS = 16  # principal components of f_S's features that the light head uses; few, as
# Algorithm 1 fits the head once for each face and each label
UNUSED = -1  # fold of the points outside of the share r
HEAD_ARRAYS = ("features_centre", "features_scale", "features_S2", "fold_S2")


@dataclass(frozen=True)
class Predictor:
    """A fitted conformal predictor: its calibration points, and how a new point is ranked."""

    kind: Kind
    measure: Measure
    groups: Groups
    o: np.ndarray  # (n, K) f_S's softmax of the points that calibrate or train a head
    label: np.ndarray  # (n,) their classes
    features: np.ndarray  # (n, F) their whitened features of f_S; F = 0 where none are stored
    fold: np.ndarray  # (n,) the fold that a point calibrates, from 1; 0: it trains the head alone
    centre: np.ndarray  # (D,) of f_S's features, which `whiten` subtracts
    scale: np.ndarray  # (D, F) principal axes by which it multiplies

    @property
    def classes(self) -> int:
        return self.o.shape[1]

    @property
    def calibrates(self) -> np.ndarray:
        """(n,) bool: the points whose scores new points are ranked among."""
        return self.fold > 0

    @property
    def name(self) -> str:
        """The predictor in words: kind, nonconformity and groups."""
        groups = {"pooled": "pooled", "class": "by class"}[self.groups]
        return f"{KIND_NAMES[self.kind]}, {self.measure}, {groups}"

    @functools.cached_property
    def heads(self) -> tuple[tuple[np.ndarray, logistic.PredictFunction], ...]:
        """(rows that calibrate, the head fitted on the others) of each fold."""
        folds = [self.fold == k for k in np.unique(self.fold[self.calibrates])]
        fit = logistic.fit_function(self.classes)
        return tuple((rows, fit(self.features[~rows], self.label[~rows])) for rows in folds)


@dataclass(frozen=True)
class PointScores:
    """The scores behind one point's p-values in one fold; only `cross` has several folds."""

    alpha: np.ndarray  # (K,) nonconformity of the new point under each label, Eq. (8)
    scores: tuple[np.ndarray, ...]  # for each label the calibration scores that it is ranked among


# ------------------------------------------------------------------ from features to a predictor


def whitening(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre (D,) and scale (D, F <= HEAD_COMPONENTS) of a training set's features (N, D).

    (f - centre) @ scale are its principal components, of unit variance. They come from S1, so that
    calibration points and new ones are treated alike, as the conformal guarantee requires.
    """
    centre = features.mean(axis=0)
    _, size, axes = np.linalg.svd(features - centre, full_matrices=False)
    size, axes = size[:HEAD_COMPONENTS], axes[:HEAD_COMPONENTS]
    used = size > 1e-6 * size[0]
    return centre, (axes[used] / size[used, None]).T * len(features) ** 0.5


def whiten(centre: np.ndarray, scale: np.ndarray, features: np.ndarray) -> np.ndarray:
    """f_S's features (m, D) -> (m, F); (m, 0) for a predictor that stores no features."""
    if not scale.size:
        return np.zeros((len(features), 0))
    return (features - centre) @ scale


def draw_folds(kind: Kind, n: int, r: float, seed: int) -> np.ndarray:
    """The role of each of n points, (n,): UNUSED, 0: trains the head, k > 0: calibrates fold k.

    A random share r is used. inductive and full: all of it calibrates. head: one half trains the
    head. cross: CROSS_FOLDS folds, each of which calibrates the head of the others. Raises
    UserError where a single point is left for both.
    """
    used = np.sort(np.random.default_rng(seed).permutation(n)[: max(1, round(r * n))])
    fold = np.full(n, UNUSED)
    fold[used] = 1
    if kind in ("head", "cross") and len(used) < 2:
        needed = "two points or more, one to train the head and one to calibrate it"
        raise UserError(f"conformal.kind {kind} needs {needed}: raise conformal.r, which is {r:g}")
    order = used[np.random.default_rng(seed).permutation(len(used))]
    if kind == "head":
        fold[order[: len(order) // 2]] = 0
    elif kind == "cross":
        fold[order] = np.arange(len(order)) % min(CROSS_FOLDS, len(order)) + 1
    return fold


def from_arrays(settings: ConformalSettings, arrays: Mapping[str, np.ndarray]) -> Predictor:
    """The predictor of the arrays of an outputs.npz; HEAD_ARRAYS may be missing if inductive."""
    o, label = arrays["o_S2"], arrays["label_S2"]
    if all(name in arrays for name in HEAD_ARRAYS):
        centre, scale, features, fold = (arrays[name] for name in HEAD_ARRAYS)
    else:
        centre, scale, features = np.zeros(0), np.zeros((0, 0)), np.zeros((len(o), 0))
        fold = np.full(len(o), UNUSED)
        fold[arrays["calibration"]] = 1
    used = fold != UNUSED
    how = settings.kind, settings.measure, settings.groups
    return Predictor(*how, o[used], label[used], features[used], fold[used], centre, scale)


def of_run(run: Run) -> Predictor:
    """A run's own predictor. Raises UserError, which says the fix, if its arrays are missing."""
    settings, arrays = run.config.conformal, run.arrays()
    shown = files.shown(run.directory / "outputs.npz")
    if "o_S2" not in arrays:
        raise UserError(f"{shown} has no outputs of f_S yet; let the run's training finish")
    if lacks_arrays(settings, arrays):
        raise UserError(
            f"{shown} lacks what the run's predictor ({KIND_NAMES[settings.kind]}) was fitted "
            "with. The same command that trained the run computes it anew: "
            f"python -m core train --config-file {files.shown(run.directory / 'config.json')}"
        )
    return from_arrays(settings, arrays)


def describe(f: Predictor, points: str = "faces") -> str:
    """How a run's p-values come about, in a sentence or two; cross names its weaker promise."""
    n = f"{int(f.calibrates.sum()):,} calibration {points}"
    if f.kind == "inductive":
        return f"p-values from {n}."
    words = f"p-values by {KIND_NAMES[f.kind]}, from {n}."
    return f"{words} {CROSS_PROMISE}" if f.kind == "cross" else words


def lacks_arrays(settings: ConformalSettings, arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether an outputs.npz is without the arrays that this kind of predictor needs."""
    return settings.kind != "inductive" and any(name not in arrays for name in HEAD_ARRAYS)


# ------------------------------------------------------------------ new points


def rank(f: Predictor, o: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p-values, Eq. (9), and nonconformity alpha, Eq. (8), of new points: (m, K) each.

    o (m, K) is f_S's softmax, features (m, F) are whitened. alpha is that of the light head where
    there is one: refitted with the point under each label (full), or its mean over folds (cross).
    """
    how = f.measure, f.groups
    if f.kind == "inductive":
        rows = f.calibrates
        p = prediction.inductive_p_values(f.o[rows], f.label[rows], o, *how)
        return p, prediction.nonconformity(o, f.measure)
    if f.kind == "full":
        return prediction.full_ranking(f.features, f.label, features, f.classes, None, *how)
    p, alpha = np.zeros((2, len(features), f.classes))
    for rows, head in f.heads:
        known = head(f.features[rows]), f.label[rows], head(features)
        p += prediction.inductive_p_values(*known, *how) / len(f.heads)
        alpha += prediction.nonconformity(known[2], f.measure) / len(f.heads)
    return p, alpha


def point_scores(f: Predictor, o: np.ndarray, features: np.ndarray) -> tuple[PointScores, ...]:
    """The scores that decide one point's p-values, (K,) and (F,): one entry for each fold.

    The mean over folds of (#{scores >= alpha} + 1) / (n + 1) is its p-value by `rank`; for `full`
    scores within TIE_TOLERANCE of alpha are set equal to it.
    """
    if f.kind == "full":
        given = f.features, f.label, features[None], f.classes, None, f.measure
        every = next(prediction.full_scores(*given))  # (K, n + 1)
        alpha, scores = every[:, -1], every[:, :-1]
        near = np.abs(scores - alpha[:, None]) <= prediction.TIE_TOLERANCE
        scores = np.where(near, alpha[:, None], scores)
        return (PointScores(alpha, _by_group(f, list(scores), f.label)),)
    if f.kind == "inductive":
        folds = [(f.calibrates, f.o[f.calibrates], o)]
    else:
        folds = [(rows, head(f.features[rows]), head(features[None])[0]) for rows, head in f.heads]
    found = []
    for rows, o_cal, o_new in folds:
        label, alpha = f.label[rows], prediction.nonconformity(o_new[None], f.measure)[0]
        own = prediction.true_scores(prediction.nonconformity(o_cal, f.measure), label)
        found.append(PointScores(alpha, _by_group(f, [own] * f.classes, label)))
    return tuple(found)


def _by_group(f: Predictor, scores: list[np.ndarray], label: np.ndarray) -> tuple[np.ndarray, ...]:
    """For each label k `scores[k]` (n,), or, class-conditional, those of class k alone."""
    if f.groups == "pooled":
        return tuple(scores)
    return tuple(own[label == k] for k, own in enumerate(scores))


def calibration_scores(f: Predictor) -> tuple[np.ndarray, np.ndarray]:
    """(n,) nonconformity of each calibration point under its own label, and (n,) these labels.

    cross: each fold by its own head. full: by the head of all points without a new one.
    """
    rows, o = f.calibrates, f.o.astype(np.float64)
    if f.kind == "full":
        o = logistic.fit_logistic(f.features, f.label, f.classes)(f.features)
    elif f.kind != "inductive":
        o = o.copy()
        for part, head in f.heads:
            o[part] = head(f.features[part])
    alpha = prediction.true_scores(prediction.nonconformity(o[rows], f.measure), f.label[rows])
    return alpha, f.label[rows]
