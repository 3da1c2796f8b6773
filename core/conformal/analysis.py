"""The conformal laboratory: a run's outputs, or any classifier's, -> every view of `core.conformal.validity` as plain arrays. NumPy only.

A `Problem` is softmax outputs and labels of calibration and test points; `analyse_outputs` looks at it with one choice of measure, groups and
calibration size. Runs give S2 (calibration) and S4 (test), faces or voices, whose subjects differ, so exchangeability is in doubt and the
views say by how much it fails. Uploads are checked for size before they are decoded, and for probabilities and labels after.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from core import runs
from core.conformal import calibration, prediction, validity
from core.conformal.prediction import Measure

LabelGroups = Literal["pooled", "class"]

CALIBRATION_SHARES = np.array(
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0]
)  # calibration sizes that are compared
MIN_SUBJECT_POINTS, MAX_SUBJECT_CURVES = (
    20,
    40,
)  # a subject's curve needs so many test points; so many subjects at most, the largest first

PART_SIMULATED_CURVES = (
    500  # simulated curves behind the band of one class or subject; the whole has validity.REPEATS
)

POINT_FIELDS = (
    "problem",
    "alpha_cal",
    "label_cal",
    "p",
    "sets",
)  # of a view: a value for each point, which its JSON leaves out
cached_null_band = functools.lru_cache(maxsize=512)(
    validity.null_band
)  # bands depend on sizes alone, so that moving eps or the measure costs none


@dataclass(frozen=True)
class Analysis:
    """A problem seen with one choice of settings. Curves are over `levels` (eps)."""

    problem: calibration.CalibrationData
    measure: Measure
    groups: LabelGroups
    smoothed: bool
    r: float
    eps: float
    seed: int
    n: int  # calibration scores used
    m: int
    alpha_cal: np.ndarray  # (n,) those scores
    label_cal: np.ndarray  # (n,) and whose they are
    notes: tuple[
        str, ...
    ]  # what a reader must know: empty groups, eps under the floor, new subjects
    floor: np.ndarray  # (K,) smallest unsmoothed p-value of each label
    p: np.ndarray  # (m, K)
    sets: np.ndarray  # (m, K) bool, at eps
    levels: np.ndarray  # (L,)
    expected: np.ndarray  # (L,) mean error under exchangeability
    overall: validity.ErrorCurve
    by_class: tuple[
        validity.ErrorCurve, ...
    ]  # with pooled scores nothing is promised for a class alone; the band is what a typical one shows
    by_subject: tuple[validity.ErrorCurve, ...]  # likewise
    histogram: validity.PValueHistogram
    efficiency: validity.Efficiency
    criteria: dict[str, float]  # named as in validity.CRITERIA
    reliability: dict[str, validity.Reliability]  # "width" and "mass"
    sizes: validity.CalibrationSizes
    reference: validity.RandomSplits  # the same scores where exchangeability holds by construction: random splits of the test points


def analyse_outputs(
    problem: calibration.CalibrationData,
    measure: Measure = "margin",
    groups: LabelGroups = "pooled",
    smoothed: bool = False,
    r: float = 1.0,
    eps: float = 0.1,
    seed: int = 0,
) -> Analysis:
    """Everything the laboratory shows. Same arguments, same arrays: `seed` rules the share r, the smoothing and the repeated draws.

    eps and r lie in (0, 1]; eps may be anything between the levels too. Raises ValueError for other settings or an ill-formed problem.
    """
    calibration.check_data(problem)
    if not 0 < r <= 1 or not 0 < eps < 1:
        raise ValueError(f"r is {r} and eps {eps}; r must lie in (0, 1] and eps in (0, 1)")
    if groups not in ("pooled", "class"):
        raise ValueError(f"groups is {groups!r}; it must be 'pooled' or 'class'")
    K, labels, by_class = len(problem.classes), problem.label_test, groups == "class"
    every = prediction.true_scores(
        prediction.nonconformity(problem.o_cal, measure), problem.label_cal
    )
    alpha = prediction.nonconformity(problem.o_test, measure)
    rows = np.sort(
        np.random.default_rng([seed, 0]).permutation(len(every))[: max(1, round(r * len(every)))]
    )
    alpha_cal, label_cal = every[rows], problem.label_cal[rows]
    true = prediction.true_scores(alpha, labels)

    def ranked(a_cal, g_cal, a, g, rng=None):
        return (
            prediction.p_values(a_cal, a, g_cal, g, rng)
            if by_class
            else prediction.p_values(a_cal, a, rng=rng)
        )

    p = ranked(
        alpha_cal,
        label_cal,
        alpha,
        np.arange(K),
        np.random.default_rng([seed, 1]) if smoothed else None,
    )
    whole = p if r == 1 and not smoothed else ranked(every, problem.label_cal, alpha, np.arange(K))
    p_true = prediction.true_scores(p, labels)
    uniform = ranked(
        alpha_cal, label_cal, true[:, None], labels[:, None], np.random.default_rng([seed, 2])
    )[:, 0]

    n, m = len(alpha_cal), len(labels)
    n_k = np.bincount(label_cal, minlength=K)

    def sizes(chosen: np.ndarray) -> tuple[tuple[int, int], ...]:
        m_k = np.bincount(labels[chosen], minlength=K)
        return (
            tuple((int(a), int(b)) for a, b in zip(n_k, m_k) if b)
            if by_class
            else ((n, int(m_k.sum())),)
        )

    def curve(name: str, chosen: np.ndarray) -> validity.ErrorCurve:
        s = sizes(chosen)
        band = (
            cached_null_band(s, smoothed)
            if chosen.all()
            else cached_null_band(s, smoothed, PART_SIMULATED_CURVES)
        )
        return validity.curve_with_band(name, p_true[chosen], sum(a for a, _ in s), band)

    all_points = np.ones(m, bool)
    floor = np.broadcast_to(prediction.min_p_value(n_k if by_class else n), K)
    return Analysis(
        *(problem, measure, groups, smoothed, r, eps, seed, n, m, alpha_cal, label_cal),
        notes=_notes(problem, by_class, n_k, floor, eps),
        floor=floor,
        p=p,
        sets=prediction.prediction_sets(p, eps),
        levels=validity.EPS_LEVELS,
        expected=cached_null_band(sizes(all_points), smoothed).expected,
        overall=curve("all", all_points),
        by_class=tuple(
            curve(c, labels == k) for k, c in enumerate(problem.classes) if (labels == k).any()
        ),
        by_subject=tuple(
            curve(str(s), problem.subject_test == s) for s in _subjects_with_curves(problem)
        ),
        histogram=validity.p_value_histogram(uniform, cached_null_band(sizes(all_points), True)),
        efficiency=validity.efficiency(p),
        criteria=validity.criteria(p, labels, eps),
        reliability={
            by: validity.reliability(problem.o_test, labels, 15, by) for by in ("width", "mass")
        },
        sizes=validity.calibration_sizes(
            every,
            whole,
            labels,
            eps,
            CALIBRATION_SHARES,
            seed=seed,
            group_cal=problem.label_cal if by_class else None,
        ),
        reference=validity.random_splits(
            true, n, cached_null_band, smoothed, seed=seed, group=labels if by_class else None
        ),
    )


def _subjects_with_curves(problem: calibration.CalibrationData) -> np.ndarray:
    if problem.subject_test is None:
        return np.array([], str)
    names, count = np.unique(problem.subject_test, return_counts=True)
    order = np.argsort(-count, kind="stable")
    return np.sort(names[order[count[order] >= MIN_SUBJECT_POINTS][:MAX_SUBJECT_CURVES]])


def _notes(
    problem: calibration.CalibrationData,
    by_class: bool,
    n_k: np.ndarray,
    floor: np.ndarray,
    eps: float,
) -> tuple[str, ...]:
    notes = []
    empty = [c for c, k in zip(problem.classes, n_k) if not k]
    if empty:
        what = (
            "their p-values are 1 and they are in every set"
            if by_class
            else "they are ranked among the other classes' scores"
        )
        notes.append(f"No calibration point is {', '.join(empty)}: {what}.")
    held = [c for c, f in zip(problem.classes, floor) if f > eps and c not in empty]
    if held:
        which = "No label" if len(held) == len(problem.classes) else ", ".join(held) + " never"
        notes.append(
            f"{which} can be rejected: eps {eps:g} is under the smallest p-value, 1/(n + 1) = {floor.max():.3g}."
        )
    if problem.subject_cal is None or problem.subject_test is None:
        notes.append(
            "Subjects are unknown. If they differ between calibration and test, the promise does not hold."
        )
        return tuple(notes)
    cal, test = set(problem.subject_cal.tolist()), set(problem.subject_test.tolist())
    if not cal & test:
        new = f"All {len(test)} test subjects are new since calibration ({len(cal)} subjects)"
        notes.append(f"{new}: the promise is for exchangeable points.")
    if not len(_subjects_with_curves(problem)):
        notes.append(f"No subject has {MIN_SUBJECT_POINTS} test points: no curves by subject.")
    return tuple(notes)


def to_json(v: Analysis) -> str:
    """Settings, figures and curves of a view; its points are `to_csv`'s."""
    facts = {
        f.name: calibration.to_json_value(getattr(v, f.name))
        for f in fields(v)
        if f.name not in POINT_FIELDS
    }
    facts["reference"]["null"].pop("deviation")
    return json.dumps(
        {"problem": v.problem.name, "classes": list(v.problem.classes)} | facts, ensure_ascii=False
    )


def to_csv(v: Analysis) -> str:
    """A line for each test point: subject, label, softmax and p-value of each class, prediction, credibility, confidence, set at eps."""
    out, names, o = io.StringIO(), np.array(v.problem.classes), v.problem.o_test
    write = csv.writer(out, lineterminator="\n")
    heads = ["prediction", "credibility", "confidence", f"set at eps {v.eps:g}"]
    write.writerow(
        [
            "row",
            "subject",
            "label",
            *(f"softmax {c}" for c in names),
            *(f"p {c}" for c in names),
            *heads,
        ]
    )
    subject = v.problem.subject_test if v.problem.subject_test is not None else np.full(v.m, "")
    best, first, sure = (
        prediction.forced_prediction(v.p),
        prediction.credibility(v.p),
        prediction.confidence(v.p),
    )
    for i in range(v.m):
        numbers = [f"{x:.6g}" for x in (*o[i], *v.p[i])]
        end = [names[best[i]], f"{first[i]:.6g}", f"{sure[i]:.6g}", " ".join(names[v.sets[i]])]
        write.writerow([i, subject[i], names[v.problem.label_test[i]], *numbers, *end])
    return out.getvalue()


def run_report(
    run: str,
    condition: str | None = None,
    modality: calibration.Modality = "face",
    measure: Measure | None = None,
    groups: LabelGroups | None = None,
    as_json: bool = False,
    **settings: Any,
) -> str:
    """`analyse_outputs` of the run that `run` (and `condition`) means, as a table for people or as `to_json`. `settings`: r, eps, smoothed, seed.

    Measure and groups are the run's own unless given. Raises KeyError for an unknown run, ValueError as `problem_of` and `analyse_outputs` do.
    """
    found = runs.resolve(run, condition)
    own = found.config.conformal
    v = analyse_outputs(
        calibration.data_from_run(found, modality),
        measure or own.measure,
        groups or own.groups,
        **settings,
    )
    return to_json(v) if as_json else analysis_text(v)


def analysis_text(v: Analysis) -> str:
    """A view's figures in words and Markdown tables."""
    p = v.problem
    how = f"{v.measure}, {v.groups}, {'smoothed' if v.smoothed else 'unsmoothed'}, r = {v.r:g}, seed {v.seed}"
    floor = f"{v.floor.min():.4f}" + (f"–{v.floor.max():.4f} by class" if np.ptp(v.floor) else "")
    lines = [
        p.name,
        f"{how} · n = {v.n} calibration scores, m = {v.m} test points · smallest p-value {floor}",
        *v.notes,
        "",
    ]
    lines += [
        "| eps | error | band, 95 % of curves | mean set size | one label | empty |",
        "|---|---|---|---|---|---|",
    ]
    c, e, h, ref, K = v.overall, v.efficiency, v.histogram, v.reference, len(p.classes)
    for i in np.searchsorted(v.levels, (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)):
        line = f"| {v.levels[i]:g} | {c.error[i]:.3f} | {c.lower[i]:.3f}–{c.upper[i]:.3f} "
        lines.append(line + f"| {e.size[i]:.2f} of {K} | {e.single[i]:.3f} | {e.empty[i]:.3f} |")
    uniform = f"distance {h.distance:.3f}, p = {h.p:.4f}"
    lines += [
        "",
        f"Against its band the error curve {_band_verdict(c)}. Are the true labels' p-values uniform? {uniform}.",
    ]
    typical, splits = (
        np.abs(ref.error.mean(axis=0) - ref.null.expected).max(),
        f"(n = {ref.n}, m = {ref.m})",
    )
    left = f"{round(ref.left * len(ref.error))} of {len(ref.error)} leave their band"
    lines.append(
        f"Random splits of the test points themselves {splits}: {left}; mean error within {typical:.3f} of its expectation."
    )
    lines += [
        "",
        f"| points | m | error at {v.eps:g} | against their own band |",
        "|---|---|---|---|",
    ]
    at = int(np.abs(v.levels - v.eps).argmin())
    lines += [
        f"| {k.name} | {k.m} | {k.error[at]:.3f} | {_band_verdict(k)} |"
        for k in (*v.by_class, *v.by_subject)
    ]
    lines += [
        "",
        f"criteria at eps = {v.eps:g}: " + ", ".join(f"{k} {x:.3f}" for k, x in v.criteria.items()),
    ]
    width, mass = v.reliability["width"], v.reliability["mass"]
    lines.append(
        f"softmax: ECE {width.ece:.3f} (15 bins of equal width), {mass.ece:.3f} (of equal mass)"
    )
    lines += [
        "",
        f"| r | n | error at {v.eps:g} over {v.sizes.error.shape[1]} draws (sd) | mean set size (sd) |",
        "|---|---|---|---|",
    ]
    draws = zip(v.sizes.r, v.sizes.n, v.sizes.error, v.sizes.size)
    lines += [
        f"| {r:g} | {n} | {a.mean():.3f} ({a.std():.3f}) | {b.mean():.2f} ({b.std():.2f}) |"
        for r, n, a, b in draws
    ]
    return "\n".join(lines)


def _band_verdict(c: validity.ErrorCurve) -> str:
    up = f"leaves it upwards by {c.above:.3f} at eps {c.above_at:g}" if c.above else ""
    down = f"leaves it downwards by {c.below:.3f} at eps {c.below_at:g}" if c.below else ""
    return " and ".join(filter(None, (up, down))) or "stays within it"
