"""Conformal analysis of a classifier's outputs: all views of `core.conformal.validity` as arrays.

`analyse_outputs` analyses one `CalibrationData` with one choice of measure, groups and calibration
size. Runs give S2 (calibration) and S4 (test), of faces or voices. Their subjects differ, so
exchangeability is in doubt, and the views measure by how much it fails. NumPy only.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from core.conformal import calibration, prediction, predictor, uploads, validity
from core.conformal.prediction import Groups, Measure
from core.conformal.predictor import Kind
from core.files import UserError
from core.runs import store

CALIBRATION_SHARES = np.array([0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])  # compared sizes
MIN_SUBJECT_POINTS = 20  # test points that a subject's curve needs
MAX_CURVES = 40  # subjects, and classes, with a curve; those with the most points come first
BINS: tuple[Literal["width", "mass"], ...] = ("width", "mass")  # kinds of reliability diagrams
PART_SIMULATED_CURVES = 500  # curves per band of a class or subject; the band of all has more

# per-point fields of an Analysis, which its JSON leaves out; the p-values are in it
POINT_FIELDS = ("problem", "alpha_cal", "label_cal", "sets")
# bands depend on sizes alone: another eps or measure needs no simulation
cached_null_band = functools.lru_cache(maxsize=512)(validity.null_band)


@dataclass(frozen=True)
class Analysis:
    """The analysis of one problem with one choice of settings. Curves are over `levels` (eps)."""

    problem: calibration.CalibrationData
    measure: Measure
    groups: Groups
    smoothed: bool
    r: float
    eps: float
    seed: int
    kind: Kind  # of predictor; other kinds than inductive are a run's own
    n: int  # calibration scores used
    m: int
    alpha_cal: np.ndarray  # (n,) those scores
    label_cal: np.ndarray  # (n,) their labels
    notes: tuple[str, ...]  # warnings: empty groups, eps under the floor, new subjects
    floor: np.ndarray  # (K,) smallest unsmoothed p-value of each label
    p: np.ndarray  # (m, K)
    sets: np.ndarray  # (m, K) bool, at eps
    levels: np.ndarray  # (L,)
    expected: np.ndarray  # (L,) mean error under exchangeability
    overall: validity.ErrorCurve
    # pooled scores promise nothing for a class or subject; its band is that of a typical one
    by_class: tuple[validity.ErrorCurve, ...]
    by_subject: tuple[validity.ErrorCurve, ...]
    histogram: validity.PValueHistogram
    efficiency: validity.Efficiency
    criteria: dict[str, float]  # named as in validity.CRITERIA
    reliability: dict[str, validity.Reliability]  # "width" and "mass"
    sizes: calibration.CalibrationSizes
    reference: validity.RandomSplits  # the same scores, exchangeable by construction


def analyse_outputs(
    problem: calibration.CalibrationData,
    measure: Measure = "margin",
    groups: Groups = "pooled",
    smoothed: bool = False,
    r: float = 1.0,
    eps: float = 0.1,
    seed: int = 0,
    own: bool = False,
) -> Analysis:
    """All results of the Conformal page. Equal arguments give equal arrays.

    r in (0, 1] is the share of the calibration scores used, eps in (0, 1) the significance. `seed`
    decides the share, the smoothing and all draws. With `own` it is the run's own predictor,
    `problem.own`, of any kind, with its own measure and groups and unsmoothed; otherwise an
    inductive one on the softmax. Raises UserError for a bad setting or problem.
    """
    calibration.check_data(problem)
    if not 0 < r <= 1 or not 0 < eps < 1:
        raise UserError(f"r is {r} and eps {eps}; r must lie in (0, 1] and eps in (0, 1)")
    kind: Kind = "inductive"
    if own:
        f = own_predictor(problem).fitted
        kind, measure, groups, smoothed, r = f.kind, f.measure, f.groups, False, 1.0
    if groups not in ("pooled", "class"):
        raise UserError(f"groups is {groups!r}; it must be 'pooled' or 'class'")
    # scores of Eq. (8) and p-values of Eq. (9)
    ranks = _rank_inductively(problem, measure, groups, smoothed, r, seed)
    p, alpha_cal, label_cal, uniform = ranks.p, ranks.alpha_cal, ranks.label_cal, ranks.uniform
    if kind != "inductive":  # the run's stored p-values; they are not smoothed
        p, (alpha_cal, label_cal) = own_predictor(problem).p_test, predictor.calibration_scores(f)
        uniform = prediction.true_scores(p, problem.label_test)
    # curves, criteria and resampling of `validity`
    K, labels, by_class = len(problem.classes), problem.label_test, groups == "class"
    n, m, n_k = len(alpha_cal), len(labels), np.bincount(label_cal, minlength=K)
    curve = _curve_function(labels, prediction.true_scores(p, labels), n_k, by_class, smoothed)
    sizes, subject = _group_sizes(labels, n_k, by_class), problem.subject_test
    floor = np.broadcast_to(prediction.min_p_value(n_k if by_class else n), K)
    group_cal, group = (problem.label_cal, labels) if by_class else (None, None)
    shares, draws = (CALIBRATION_SHARES, 20, seed, group_cal), (smoothed, 20, seed, group)
    notes = (*predictor_notes(problem, kind, (measure, groups, smoothed, r)),)
    notes += _notes(problem, by_class, n_k, floor, eps)
    return Analysis(
        *(problem, measure, groups, smoothed, r, eps, seed, kind, n, m, alpha_cal, label_cal),
        *(notes, floor, p, prediction.prediction_sets(p, eps)),
        levels=validity.EPS_LEVELS,
        expected=cached_null_band(sizes, smoothed).expected,
        overall=curve("all", np.ones(m, bool)),
        by_class=tuple(curve(problem.classes[k], labels == k) for k in _most_frequent(labels)),
        by_subject=tuple(curve(str(s), subject == s) for s in _subjects_with_curves(problem)),
        histogram=validity.p_value_histogram(uniform, cached_null_band(sizes, True)),
        efficiency=validity.efficiency(p),
        criteria=validity.criteria(p, labels, eps),
        reliability={w: validity.reliability(problem.o_test, labels, 15, w) for w in BINS},
        sizes=calibration.calibration_sizes(ranks.every, ranks.whole, labels, eps, *shares),
        reference=validity.random_splits(ranks.true, n, cached_null_band, *draws),
    )


def own_predictor(problem: calibration.CalibrationData) -> calibration.OwnPredictor:
    """`problem.own`. Raises UserError for outputs that no run's predictor ranks."""
    if problem.own is None:
        fix = "choose measure and groups for them"
        raise UserError(f"{problem.name} has no predictor of a run: {fix}")
    return problem.own


@dataclass(frozen=True)
class _InductiveRanks:
    """Scores and p-values of an inductive predictor."""

    every: np.ndarray  # (n_all,) scores of all calibration points
    alpha_cal: np.ndarray  # (n,) of the share that is used
    label_cal: np.ndarray  # (n,)
    true: np.ndarray  # (m,) scores of the test points under their true labels
    p: np.ndarray  # (m, K) as chosen
    whole: np.ndarray  # (m, K) unsmoothed, from all calibration points
    uniform: np.ndarray  # (m,) smoothed, of the true labels


def _rank_inductively(
    problem: calibration.CalibrationData,
    measure: Measure,
    groups: Groups,
    smoothed: bool,
    r: float,
    seed: int,
) -> _InductiveRanks:
    """Eqs (8) and (9) on the softmax, with a share r of the calibration points."""
    K, labels, by_class = len(problem.classes), problem.label_test, groups == "class"
    scores, alpha = (prediction.nonconformity(o, measure) for o in (problem.o_cal, problem.o_test))
    every = prediction.true_scores(scores, problem.label_cal)
    order = np.random.default_rng([seed, 0]).permutation(len(every))
    rows = np.sort(order[: max(1, round(r * len(every)))])
    alpha_cal, label_cal = every[rows], problem.label_cal[rows]
    true = prediction.true_scores(alpha, labels)

    def ranked(a_cal, g_cal, a, g, rng=None):
        g_cal, g = (g_cal, g) if by_class else (None, None)
        return prediction.p_values(a_cal, a, g_cal, g, rng)

    # as chosen, from all calibration scores, and smoothed for true labels
    noise = np.random.default_rng([seed, 1]) if smoothed else None
    p = ranked(alpha_cal, label_cal, alpha, np.arange(K), noise)
    whole = p if r == 1 and not smoothed else ranked(every, problem.label_cal, alpha, np.arange(K))
    noise = np.random.default_rng([seed, 2])
    uniform = ranked(alpha_cal, label_cal, true[:, None], labels[:, None], noise)[:, 0]
    return _InductiveRanks(every, alpha_cal, label_cal, true, p, whole, uniform)


def predictor_notes(
    problem: calibration.CalibrationData, kind: Kind, settings: tuple[Measure, Groups, bool, float]
) -> list[str]:
    """What a reader must know of the predictor: that it is not the run's own, or its promise.

    settings: measure, groups, smoothed, r.
    """
    if problem.own is None:
        return []
    f = problem.own.fitted
    if (kind, *settings) != (f.kind, f.measure, f.groups, False, 1.0):
        return [
            f"These are not the run's own p-values: its generator was fed those of {f.name}, "
            "unsmoothed, with its whole calibration set."
        ]
    if kind == "cross":
        return [f"{predictor.CROSS_PROMISE} Its band is that of inductive CP at 2ε."]
    if kind == "full":
        return [
            "Full CP: the head is refitted for every point and label. The band is that of "
            "inductive CP with as many calibration points, since full CP has no exact one."
        ]
    return []


def _group_sizes(labels: np.ndarray, n_k: np.ndarray, by_class: bool) -> tuple:
    """(n, m) of each group of Eq. (9) for test points of these labels."""
    m_k = np.bincount(labels, minlength=len(n_k))
    if not by_class:
        return ((int(n_k.sum()), int(m_k.sum())),)
    return tuple((int(a), int(b)) for a, b in zip(n_k, m_k) if b)


def _curve_function(
    labels: np.ndarray, p_true: np.ndarray, n_k: np.ndarray, by_class: bool, smoothed: bool
) -> Callable[[str, np.ndarray], validity.ErrorCurve]:
    """A function of a name and chosen test points (m,) bool that gives their error curve."""

    def curve(name: str, chosen: np.ndarray) -> validity.ErrorCurve:
        sizes = _group_sizes(labels[chosen], n_k, by_class)
        repeats = () if chosen.all() else (PART_SIMULATED_CURVES,)
        band = cached_null_band(sizes, smoothed, *repeats)
        return validity.curve_with_band(name, p_true[chosen], sum(a for a, _ in sizes), band)

    return curve


def _most_frequent(values: np.ndarray, at_least: int = 1) -> np.ndarray:
    """Values with so many points, sorted: at most the MAX_CURVES that have the most."""
    names, count = np.unique(values, return_counts=True)
    order = np.argsort(-count, kind="stable")
    return np.sort(names[order[count[order] >= at_least][:MAX_CURVES]])


def _subjects_with_curves(problem: calibration.CalibrationData) -> np.ndarray:
    """Names of the test subjects with enough points for a curve, sorted."""
    who = np.array([], str) if problem.subject_test is None else problem.subject_test
    return _most_frequent(who, MIN_SUBJECT_POINTS)


def _notes(
    problem: calibration.CalibrationData,
    by_class: bool,
    n_k: np.ndarray,
    floor: np.ndarray,
    eps: float,
) -> tuple[str, ...]:
    """Warnings that a reader of the results needs."""
    notes = [problem.note] if problem.note else []
    if (found := len(np.unique(problem.label_test))) > MAX_CURVES:
        notes.append(f"Of {found:,} classes the {MAX_CURVES} with the most points have a curve.")
    empty = [c for c, k in zip(problem.classes, n_k) if not k]
    if empty:
        what = "they are ranked among the other classes' scores"
        if by_class:
            what = "their p-values are 1 and they are in every set"
        notes.append(f"No calibration point is {uploads.name_some(empty)}: {what}.")
    # By class the p-values of an empty one are 1; pooled, all classes have one floor
    without = empty if by_class else []
    never = [c for c, f in zip(problem.classes, floor) if f > eps and c not in without]
    if never:
        which = (
            "No label"
            if len(never) == len(problem.classes)
            else f"{uploads.name_some(never)} never"
        )
        smallest = f"the smallest p-value, 1/(n + 1) = {floor.max():.3g}"
        notes.append(f"{which} can be rejected: eps {eps:g} is under {smallest}.")
    if problem.subject_cal is None or problem.subject_test is None:
        doubt = "If they differ between calibration and test, the promise does not hold."
        notes.append(f"Subjects are unknown. {doubt}")
        return tuple(notes)
    cal, test = map(calibration.known_subjects, (problem.subject_cal, problem.subject_test))
    if not cal & test:
        new = f"All {len(test)} test subjects are new since calibration ({len(cal)} subjects)"
        notes.append(f"{new}: the promise is for exchangeable points.")
    _, count = np.unique(problem.subject_test, return_counts=True)
    if (found := int((count >= MIN_SUBJECT_POINTS).sum())) > MAX_CURVES:
        notes.append(f"Of {found:,} subjects the {MAX_CURVES} with the most points have a curve.")
    if not found:
        notes.append(f"No subject has {MIN_SUBJECT_POINTS} test points: no curves by subject.")
    return tuple(notes)


def to_json(v: Analysis) -> str:
    """Settings, figures, curves and p-values of an analysis as JSON; `to_csv` has the points."""
    names = [f.name for f in fields(v) if f.name not in POINT_FIELDS]
    facts = {name: calibration.to_json_value(getattr(v, name)) for name in names}
    facts["reference"]["null"].pop("deviation")
    about = {"problem": v.problem.name, "classes": list(v.problem.classes)}
    return json.dumps(about | facts, ensure_ascii=False)


def to_csv(v: Analysis) -> str:
    """The test points as CSV, one line each.

    Subject, label, softmax and p-value of each class, prediction, credibility, confidence, set.
    """
    out, names, o = io.StringIO(), np.array(v.problem.classes), v.problem.o_test
    write = csv.writer(out, lineterminator="\n")
    columns = [*(f"softmax {c}" for c in names), *(f"p {c}" for c in names)]
    columns += ["prediction", "credibility", "confidence", f"set at eps {v.eps:g}"]
    write.writerow(["row", "subject", "label", *columns])
    subject = v.problem.subject_test if v.problem.subject_test is not None else np.full(v.m, "")
    best, first = prediction.forced_prediction(v.p), prediction.credibility(v.p)
    sure = prediction.confidence(v.p)
    rows = np.arange(v.m) if v.problem.row_test is None else v.problem.row_test
    for i in range(v.m):
        numbers = [f"{x:.6g}" for x in (*o[i], *v.p[i])]
        end = [names[best[i]], f"{first[i]:.6g}", f"{sure[i]:.6g}", " ".join(names[v.sets[i]])]
        write.writerow([rows[i], subject[i], names[v.problem.label_test[i]], *numbers, *end])
    return out.getvalue()


def run_report(
    run: str,
    condition: str | None = None,
    modality: calibration.Modality = "face",
    measure: Measure | None = None,
    groups: Groups | None = None,
    as_json: bool = False,
    inductive: bool = False,
    **settings: Any,
) -> str:
    """`analyse_outputs` of a run, as Markdown or with `as_json` as JSON.

    `run` and `condition` as in `store.resolve`; `settings` are r, eps, smoothed and seed. The run's
    own predictor is analysed, of whatever kind, unless measure, groups, r, smoothed or `inductive`
    ask for an inductive one on the softmax. Raises UserError for an unknown run, missing outputs or
    settings out of range.
    """
    found = store.resolve(run, condition)
    data, own = calibration.data_from_run(found, modality), found.config.conformal
    how = measure or own.measure, groups or own.groups
    is_own = not inductive and is_own_choice(data, *how, **settings)
    v = analyse_outputs(data, *how, **settings, own=is_own)
    return to_json(v) if as_json else analysis_text(v)


def is_own_choice(
    problem: calibration.CalibrationData,
    measure: Measure,
    groups: Groups,
    r: float = 1.0,
    smoothed: bool = False,
    kind: Kind | None = None,
    **_: Any,
) -> bool:
    """Whether these settings, and `kind` if given, are those of the run's own predictor."""
    if problem.own is None:
        return False
    f = problem.own.fitted
    known = measure, groups, r, smoothed, kind or f.kind
    return known == (f.measure, f.groups, 1.0, False, f.kind)


def analysis_text(v: Analysis) -> str:
    """The results of an analysis in words and Markdown tables."""
    smoothing = "smoothed" if v.smoothed else "unsmoothed"
    kind = "" if v.kind == "inductive" else f"{predictor.KIND_NAMES[v.kind]}, "
    how = f"{kind}{v.measure}, {v.groups}, {smoothing}, r = {v.r:g}, seed {v.seed}"
    floor = f"{v.floor.min():.4f}" + (f"–{v.floor.max():.4f} by class" if np.ptp(v.floor) else "")
    numbers = f"n = {v.n} calibration scores, m = {v.m} test points · smallest p-value {floor}"
    parts = [v.problem.name, f"{how} · {numbers}", *v.notes, ""]
    return "\n".join([*parts, *_overall_lines(v), "", *_part_lines(v), "", *_size_lines(v)])


def _overall_lines(v: Analysis) -> list[str]:
    """Error and set size of all points by eps, uniformity of p-values, random splits."""
    lines = [
        "| eps | error | band, 95 % of curves | mean set size | one label | empty |",
        "|---|---|---|---|---|---|",
    ]
    c, e, h, ref, K = v.overall, v.efficiency, v.histogram, v.reference, len(v.problem.classes)
    for i in np.searchsorted(v.levels, (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)):
        line = f"| {v.levels[i]:g} | {c.error[i]:.3f} | {c.lower[i]:.3f}–{c.upper[i]:.3f} "
        lines.append(line + f"| {e.size[i]:.2f} of {K} | {e.single[i]:.3f} | {e.empty[i]:.3f} |")
    uniform = f"Are the true labels' p-values uniform? distance {h.distance:.3f}, p = {h.p:.4f}."
    typical = np.abs(ref.error.mean(axis=0) - ref.null.expected).max()
    left = f"{round(ref.left * len(ref.error))} of {len(ref.error)} leave their band"
    splits = f"Random splits of the test points themselves (n = {ref.n}, m = {ref.m})"
    return [
        *lines,
        "",
        f"Against its band the error curve {_band_verdict(c)}. {uniform}",
        f"{splits}: {left}; mean error within {typical:.3f} of its expectation.",
    ]


def _part_lines(v: Analysis) -> list[str]:
    """Error at eps of each class and subject, criteria, calibration of the softmax."""
    head = f"| points | m | error at {v.eps:g} | against their own band |"
    at = int(np.abs(v.levels - v.eps).argmin())
    rows = [
        f"| {k.name} | {k.m} | {k.error[at]:.3f} | {_band_verdict(k)} |"
        for k in (*v.by_class, *v.by_subject)
    ]
    criteria = ", ".join(f"{k} {x:.3f}" for k, x in v.criteria.items())
    width, mass = v.reliability["width"].ece, v.reliability["mass"].ece
    ece = f"softmax: ECE {width:.3f} (15 bins of equal width), {mass:.3f} (of equal mass)"
    return [head, "|---|---|---|---|", *rows, "", f"criteria at eps = {v.eps:g}: {criteria}", ece]


def _size_lines(v: Analysis) -> list[str]:
    """Error and set size by calibration size."""
    error = f"error at {v.eps:g} over {v.sizes.error.shape[1]} draws (sd)"
    draws = zip(v.sizes.r, v.sizes.n, v.sizes.error, v.sizes.size)
    rows = [
        f"| {r:g} | {n} | {a.mean():.3f} ({a.std():.3f}) | {b.mean():.2f} ({b.std():.2f}) |"
        for r, n, a, b in draws
    ]
    return [f"| r | n | {error} | mean set size (sd) |", "|---|---|---|---|", *rows]


def _band_verdict(c: validity.ErrorCurve) -> str:
    """The position of an error curve relative to its band, as the end of a sentence."""
    up = f"leaves it upwards by {c.above:.3f} at eps {c.above_at:g}" if c.above else ""
    down = f"leaves it downwards by {c.below:.3f} at eps {c.below_at:g}" if c.below else ""
    return " and ".join(filter(None, (up, down))) or "stays within it"
