"""Calibration and test outputs of a classifier: a run's, or an uploaded NPZ or CSV file's.

Also what a smaller calibration set would give.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

import numpy as np

from core.conformal import predictor, uploads
from core.conformal.predictor import Predictor
from core.conformal.uploads import MAX_UPLOAD_BYTES as MAX_UPLOAD_BYTES
from core.conformal.uploads import (
    MAX_UPLOAD_CELLS,
    MAX_UPLOAD_ROWS,
    PROBABILITY_TOLERANCE,
    UPLOAD_LIMITS_TEXT,
)
from core.files import UserError
from core.runs.directory import Run

Modality = Literal["face", "voice"]

# prefixes that replace the subject in outputs of corpora without subjects (`core.data.splits`)
UNKNOWN_SUBJECT_PREFIXES = ("image-", "clip: ")
PARTS = ("cal", "test")
# of each part of an upload, so that no view takes over ten seconds
MAX_ANALYSED_ROWS, MAX_ANALYSED_CELLS = 100_000, 1_000_000


@dataclass(frozen=True)
class CalibrationData:
    """Outputs of one classifier on calibration and test points; subjects may be unknown (None)."""

    name: str
    classes: tuple[str, ...]
    o_cal: np.ndarray  # (n, K) softmax
    label_cal: np.ndarray  # (n,) 0..K-1
    o_test: np.ndarray  # (m, K)
    label_test: np.ndarray  # (m,)
    subject_cal: np.ndarray | None = None  # (n,) names
    subject_test: np.ndarray | None = None  # (m,)
    own: OwnPredictor | None = None  # f_S of a run: the predictor whose p-values fed its generator
    note: str = ""  # what of an upload is left out
    row_test: np.ndarray | None = None  # (m,) rows of the upload, where some are left out


@dataclass(frozen=True)
class CalibrationSizes:
    """Effect of the calibration size at one eps: random subsets of share r of the set."""

    r: np.ndarray  # (R,) shares
    n: np.ndarray  # (R,) scores
    error: np.ndarray  # (R, draws)
    size: np.ndarray  # (R, draws) mean number of labels in a set


@dataclass(frozen=True)
class OwnPredictor:
    """A run's predictor, with what it needs of the test points and what it gave them."""

    fitted: Predictor
    features_test: np.ndarray  # (m, F) whitened features of f_S
    p_test: np.ndarray  # (m, K) p-values


def check_data(problem: CalibrationData) -> None:
    """Check shapes, probabilities and labels.

    Raises UserError, which gives the problem's name and the first wrong rows.
    """
    name, classes = problem.name, problem.classes
    if len(classes) < 2 or len(set(classes)) != len(classes) or not all(classes):
        needed = "there must be at least two classes, all named differently"
        raise UserError(f"{name}: {needed}, not {list(classes)}")
    cal = problem.o_cal, problem.label_cal, problem.subject_cal
    test = problem.o_test, problem.label_test, problem.subject_test
    for part, arrays in (("cal", cal), ("test", test)):
        _check_shapes(name, part, len(classes), *arrays)
        _check_probabilities(name, part, arrays[0])
        _check_labels(name, part, len(classes), arrays[1])


def _check_shapes(
    name: str, part: str, K: int, o: np.ndarray, label: np.ndarray, subject: np.ndarray | None
) -> None:
    softmax = f"{part}_softmax"
    if o.ndim != 2 or o.shape[1] != K:
        needed = f"must be (rows, {K}), one column per class"
        raise UserError(f"{name}: {softmax} {needed}, not {o.shape}")
    n = len(o)
    if not n:
        needed = "both calibration and test points are needed"
        raise UserError(f"{name}: there is no {part} row; {needed}")
    if o.size > MAX_UPLOAD_CELLS or n > MAX_UPLOAD_ROWS:
        raise UserError(f"{name}: {softmax} {o.shape} is too large; {UPLOAD_LIMITS_TEXT}")
    for what, a in (("labels", label), ("subjects", subject)):
        if a is not None and a.shape != (n,):
            needed = f"must be ({n},), one for each row of {softmax}"
            raise UserError(f"{name}: {part}_{what} {needed}, not {a.shape}")


def _check_probabilities(name: str, part: str, o: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        total, slack = o.sum(axis=1), PROBABILITY_TOLERANCE
        bad = ~((np.abs(total - 1) <= slack) & (o >= -slack).all(axis=1))
    if bad.any():
        first = np.flatnonzero(bad)[:3]
        rows = (f"{i} (sum {total[i]:.4g}, smallest {o[i].min():.4g})" for i in first)
        raise UserError(
            f"{name}: {int(bad.sum())} row(s) of {part}_softmax are not probabilities, counted "
            f"from 0: row {', '.join(rows)}. Rows must be 0 or more and sum to 1 within {slack}; "
            f"{uploads.probability_fix(o)}"
        )


def _check_labels(name: str, part: str, K: int, label: np.ndarray) -> None:
    if np.issubdtype(label.dtype, np.integer) and label.min() >= 0 and label.max() < K:
        return
    number = np.issubdtype(label.dtype, np.number)
    wrong = (label[(label < 0) | (label >= K)] if number else label)[:3]
    needed = f"must be whole numbers from 0 to {K - 1} (the classes' order)"
    fix = ""
    if number and label.min() >= 1 and label.max() == K:
        fix = ". They look counted from 1: subtract 1 from each, or give the classes' numbers"
    raise UserError(f"{name}: {part}_labels {needed}, not {wrong}{fix}")


def data_from_run(run: Run, modality: Modality = "face") -> CalibrationData:
    """A run's outputs on S2 (calibration) and S4 (test): f_S's of faces, or f_T's of voices.

    The source classifier is calibrated by exactly the rows that gave the run its p-values, and has
    `own`. Raises UserError if the run has no such outputs.
    """
    if modality not in ("face", "voice"):
        raise UserError(f"modality is {modality!r}; it must be 'face' or 'voice'")
    infixes = {"face": "face_", "voice": ""}
    if run.config.gan.direction == "face-voice":
        infixes = {"face": "", "voice": "voice_"}
    arrays, infix = run.arrays(), infixes[modality]
    needed = [f"{a}_{infix}{s}" for a in ("o", "label", "subject") for s in ("S2", "S4")]
    missing = [a for a in needed + ["calibration"] * (not infix) if a not in arrays]
    if missing:
        others = [k for k in infixes if k != modality and f"o_{infixes[k]}S2" in arrays]
        fix = "let its training get as far as the face classifier"
        if others:
            fix = f"look at its {others[0]}s instead, or train it again"
        what = f"{run.shown('outputs.npz')} has no {modality} outputs ({missing[0]} is missing)"
        raise UserError(f"{what}: {fix}")
    rows = arrays["calibration"] if not infix else slice(None)
    o, label, subject = (
        [arrays[f"{a}_{infix}{s}"] for s in ("S2", "S4")] for a in ("o", "label", "subject")
    )
    known = not all(str(s).startswith(UNKNOWN_SUBJECT_PREFIXES) for s in np.unique(subject[1]))
    subjects = (subject[0][rows], subject[1]) if known else (None, None)
    name = f"{run.id} · {modality}s ({'f_T' if infix else 'f_S'})"
    cal, test = (o[0][rows], label[0][rows]), (o[1], label[1])
    data = CalibrationData(name, run.config.data.classes, *cal, *test, *subjects)
    return data if infix else replace(data, own=_own_predictor(run, arrays))


def _own_predictor(run: Run, arrays: dict[str, np.ndarray]) -> OwnPredictor | None:
    if "p_S4" not in arrays:
        return None
    f, o = predictor.of_run(run), arrays["o_S4"]
    features = arrays.get("features_S4", np.zeros((len(o), 0)))
    return OwnPredictor(f, features, arrays["p_S4"])


def data_from_upload(name: str, data: bytes) -> CalibrationData:
    """Any classifier's outputs from the bytes of an npz or csv file.

    npz: cal_softmax (n, K), cal_labels (n,), test_softmax (m, K), test_labels (m,); optional
    classes (K,), cal_subjects (n,), test_subjects (m,). csv: columns `set` (cal or test), `label`,
    one column per class, optional `subject`. A label is a class' name; where classes are numbers it
    is such a number, not its place; where names are words it may be a place, counted from 0. A
    blank subject is unknown. Of many rows a random sample is kept (`draw_sample`). Raises UserError
    for any other content.
    """
    name = PurePath(name).name[:80] or "upload"
    uploads.check_size(name, "is", len(data))
    columns = uploads.read_columns(name, data)
    classes = tuple(uploads.composed(str(c)) for c in columns["classes"])
    cal, test = (
        (
            np.asarray(columns[f"{part}_softmax"], np.float64),
            uploads.label_numbers(name, f"{part}_labels", columns[f"{part}_labels"], classes),
        )
        for part in ("cal", "test")
    )
    who = [uploads.subject_names(columns.get(f"{part}_subjects"), part) for part in PARTS]
    if any(s is not None and not known_subjects(s) for s in who):
        who = [None, None]
    problem = CalibrationData(name, classes, *cal, *test, subject_cal=who[0], subject_test=who[1])
    check_data(problem)
    uploads.check_classes(name, classes, cal, test)
    return draw_sample(problem)


def draw_sample(problem: CalibrationData) -> CalibrationData:
    """The problem with at most MAX_ANALYSED_ROWS and MAX_ANALYSED_CELLS of each part, at random.

    A random sample of exchangeable points is exchangeable, so every view keeps its meaning; `note`
    says what is left out. Equal problems give equal samples.
    """
    rng, most = np.random.default_rng(0), MAX_ANALYSED_CELLS // len(problem.classes)
    most, kept, said = min(most, MAX_ANALYSED_ROWS), dict[str, np.ndarray | slice](), []
    sizes = {"calibration": len(problem.label_cal), "test": len(problem.label_test)}
    for part, n in sizes.items():
        kept[part] = slice(None)
        if n > most:
            kept[part] = np.sort(rng.choice(n, most, replace=False))
            said.append(f"{most:,} of {n:,} {part} points")
    if not said:
        return problem
    cal, test = kept["calibration"], kept["test"]
    who = problem.subject_cal, problem.subject_test
    return replace(
        problem,
        o_cal=problem.o_cal[cal],
        label_cal=problem.label_cal[cal],
        o_test=problem.o_test[test],
        label_test=problem.label_test[test],
        subject_cal=None if who[0] is None else who[0][cal],
        subject_test=None if who[1] is None else who[1][test],
        note=f"A random sample is analysed, so that no view takes long: {' and '.join(said)}.",
        row_test=None if isinstance(test, slice) else test,
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
    """Error and set size at eps if only a random share r of the calibration set is used.

    alpha_cal (n,), p (m, K), labels (m,), r (R,) -> (R, draws) each. `p` are unsmoothed p-values
    with the whole set; `group_cal` holds the calibration labels if they are class-conditional. Each
    draw is one order of the set, and each share uses its beginning. At r = 1 all draws are equal.
    A p-value falls as alpha grows, so a set contains the labels at or below one calibration score:
    one order statistic decides a draw.
    """
    n, m = len(alpha_cal), max(1, len(p))
    groups = [(np.arange(n), np.ones(p.shape[1], bool))]
    if group_cal is not None:
        k = np.arange(p.shape[1])
        groups = [(np.flatnonzero(group_cal == g), k == g) for g in k]
    tables = []
    for rows, columns in groups:
        size = len(rows)
        rank = np.argsort(np.argsort(alpha_cal[rows], kind="stable"))
        # number of calibration scores below each cell
        below = np.rint(size + 1 - p[:, columns] * (size + 1)).astype(np.int64)
        true = below[(np.arange(p.shape[1])[columns] == labels[:, None])]
        sums = [np.cumsum(np.bincount(b, minlength=size + 1)) for b in (below.ravel(), true)]
        tables.append((rows, rank, sums))
    rng = np.random.default_rng(seed)
    chosen_n = np.maximum(1, np.rint(r * n).astype(np.int64))
    error, size_ = np.zeros((len(r), draws)), np.zeros((len(r), draws))
    for d in range(draws):
        place = np.argsort(rng.permutation(n))  # of each score in the order of the draw
        for rows, rank, (every, true) in tables:
            order = np.argsort(place[rows])
            for i, count in enumerate(np.searchsorted(place[rows][order], chosen_n)):
                chosen = rank[order[:count]]
                # number of ranks with p > eps
                kept = int(((count + 1 - np.arange(count + 1)) / (count + 1) > eps).sum())
                if kept:
                    edge = len(every) - 1
                    if kept <= count:
                        edge = np.partition(chosen, kept - 1)[kept - 1]
                    size_[i, d] += every[edge] / m
                    error[i, d] += true[edge] / m
    return CalibrationSizes(r, chosen_n, 1 - error, size_)


def known_subjects(subjects: np.ndarray) -> set[str]:
    """The subjects that are known: a clip of an unknown one has a name of its own instead.

    >>> sorted(known_subjects(np.array(["anna", "clip: 3", "anna"])))
    ['anna']
    """
    names = map(str, np.unique(subjects).tolist())
    return {s for s in names if not s.startswith(UNKNOWN_SUBJECT_PREFIXES)}


def to_json_value(value: Any) -> Any:
    """A value as JSON knows it: dataclasses become objects, arrays lists, and NaN null."""
    if is_dataclass(value):
        return {f.name: to_json_value(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {k: to_json_value(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [to_json_value(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
