"""The conformal laboratory: a run's outputs, or any classifier's, -> every view of `core.conformal.validity` as plain arrays. NumPy only.

A `Problem` is softmax outputs and labels of calibration and test points; `view` looks at it with one choice of measure, groups and
calibration size. Runs give S2 (calibration) and S4 (test), faces or voices, whose subjects differ, so exchangeability is in doubt and the
views say by how much it fails. Uploads are checked for size before they are decoded, and for probabilities and labels after.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import zipfile
import zlib
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import Any, Literal

import numpy as np

from core import runs
from core.conformal import prediction, validity
from core.conformal.prediction import Measure
from core.runs import Run

Modality = Literal["face", "voice"]
Groups = Literal["pooled", "class"]

UPLOAD_BYTES = 64 << 20  # of an upload as sent, and of an npz unpacked
UPLOAD_CELLS, UPLOAD_ROWS = 4_000_000, 500_000  # softmax values, and rows, in one part of an upload
MOST = f"at most {UPLOAD_ROWS:,} rows and {UPLOAD_CELLS:,} probabilities are taken"
TOLERANCE = 1e-3  # by which a row may miss the sum of one
SHARES = np.array([0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])  # calibration sizes that are compared
SUBJECT_POINTS, SUBJECTS = 20, 40  # a subject's curve needs so many test points; so many subjects at most, the largest first

PART_REPEATS = 500  # simulated curves behind the band of one class or subject; the whole has validity.REPEATS
UNKNOWN = ("image-", "clip: ")  # what outputs name in place of a subject where a corpus knows none (core.datasets)

POINTS = ("problem", "alpha_cal", "label_cal", "p", "sets")  # of a view: a value for each point, which its JSON leaves out
law = functools.lru_cache(maxsize=512)(validity.null)  # bands depend on sizes alone, so that moving eps or the measure costs none


@dataclass(frozen=True)
class Problem:
    """Outputs of one classifier on calibration and test points. Subjects may be unknown (None)."""

    name: str
    classes: tuple[str, ...]
    o_cal: np.ndarray  # (n, K) softmax
    label_cal: np.ndarray  # (n,) 0..K-1
    o_test: np.ndarray  # (m, K)
    label_test: np.ndarray  # (m,)
    subject_cal: np.ndarray | None = None  # (n,) names
    subject_test: np.ndarray | None = None  # (m,)


@dataclass(frozen=True)
class View:
    """A problem seen with one choice of settings. Curves are over `levels` (eps)."""

    problem: Problem
    measure: Measure
    groups: Groups
    smoothed: bool
    r: float
    eps: float
    seed: int
    n: int  # calibration scores used
    m: int
    alpha_cal: np.ndarray  # (n,) those scores
    label_cal: np.ndarray  # (n,) and whose they are
    notes: tuple[str, ...]  # what a reader must know: empty groups, eps under the floor, new subjects
    floor: np.ndarray  # (K,) smallest unsmoothed p-value of each label
    p: np.ndarray  # (m, K)
    sets: np.ndarray  # (m, K) bool, at eps
    levels: np.ndarray  # (L,)
    expected: np.ndarray  # (L,) mean error under exchangeability
    overall: validity.Curve
    by_class: tuple[validity.Curve, ...]  # with pooled scores nothing is promised for a class alone; the band is what a typical one shows
    by_subject: tuple[validity.Curve, ...]  # likewise
    histogram: validity.Histogram
    efficiency: validity.Efficiency
    criteria: dict[str, float]  # named as in validity.CRITERIA
    reliability: dict[str, validity.Reliability]  # "width" and "mass"
    sizes: validity.Sizes
    reference: validity.Reference  # the same scores where exchangeability holds by construction: random splits of the test points


def view(
    problem: Problem,
    measure: Measure = "margin",
    groups: Groups = "pooled",
    smoothed: bool = False,
    r: float = 1.0,
    eps: float = 0.1,
    seed: int = 0,
) -> View:
    """Everything the laboratory shows. Same arguments, same arrays: `seed` rules the share r, the smoothing and the repeated draws.

    eps and r lie in (0, 1]; eps may be anything between the levels too. Raises ValueError for other settings or an ill-formed problem.
    """
    check(problem)
    if not 0 < r <= 1 or not 0 < eps < 1:
        raise ValueError(f"r is {r} and eps {eps}; r must lie in (0, 1] and eps in (0, 1)")
    if groups not in ("pooled", "class"):
        raise ValueError(f"groups is {groups!r}; it must be 'pooled' or 'class'")
    K, labels, by_class = len(problem.classes), problem.label_test, groups == "class"
    every = prediction.true_scores(prediction.nonconformity(problem.o_cal, measure), problem.label_cal)
    alpha = prediction.nonconformity(problem.o_test, measure)
    rows = np.sort(np.random.default_rng([seed, 0]).permutation(len(every))[: max(1, round(r * len(every)))])
    alpha_cal, label_cal = every[rows], problem.label_cal[rows]
    true = prediction.true_scores(alpha, labels)

    def ranked(a_cal, g_cal, a, g, rng=None):
        return prediction.p_values(a_cal, a, g_cal, g, rng) if by_class else prediction.p_values(a_cal, a, rng=rng)

    p = ranked(alpha_cal, label_cal, alpha, np.arange(K), np.random.default_rng([seed, 1]) if smoothed else None)
    whole = p if r == 1 and not smoothed else ranked(every, problem.label_cal, alpha, np.arange(K))
    p_true = prediction.true_scores(p, labels)
    uniform = ranked(alpha_cal, label_cal, true[:, None], labels[:, None], np.random.default_rng([seed, 2]))[:, 0]

    n, m = len(alpha_cal), len(labels)
    n_k = np.bincount(label_cal, minlength=K)

    def sizes(chosen: np.ndarray) -> tuple[tuple[int, int], ...]:
        m_k = np.bincount(labels[chosen], minlength=K)
        return tuple((int(a), int(b)) for a, b in zip(n_k, m_k) if b) if by_class else ((n, int(m_k.sum())),)

    def curve(name: str, chosen: np.ndarray) -> validity.Curve:
        s = sizes(chosen)
        band = law(s, smoothed) if chosen.all() else law(s, smoothed, PART_REPEATS)
        return validity.curve(name, p_true[chosen], sum(a for a, _ in s), band)

    all_points = np.ones(m, bool)
    floor = np.broadcast_to(prediction.floor(n_k if by_class else n), K)
    return View(
        *(problem, measure, groups, smoothed, r, eps, seed, n, m, alpha_cal, label_cal),
        notes=_notes(problem, by_class, n_k, floor, eps),
        floor=floor,
        p=p,
        sets=prediction.prediction_sets(p, eps),
        levels=validity.LEVELS,
        expected=law(sizes(all_points), smoothed).expected,
        overall=curve("all", all_points),
        by_class=tuple(curve(c, labels == k) for k, c in enumerate(problem.classes) if (labels == k).any()),
        by_subject=tuple(curve(str(s), problem.subject_test == s) for s in _subjects(problem)),
        histogram=validity.histogram(uniform, law(sizes(all_points), True)),
        efficiency=validity.efficiency(p),
        criteria=validity.criteria(p, labels, eps),
        reliability={by: validity.reliability(problem.o_test, labels, 15, by) for by in ("width", "mass")},
        sizes=validity.calibration_sizes(every, whole, labels, eps, SHARES, seed=seed, group_cal=problem.label_cal if by_class else None),
        reference=validity.reference(true, n, law, smoothed, seed=seed, group=labels if by_class else None),
    )


def _subjects(problem: Problem) -> np.ndarray:
    if problem.subject_test is None:
        return np.array([], str)
    names, count = np.unique(problem.subject_test, return_counts=True)
    order = np.argsort(-count, kind="stable")
    return np.sort(names[order[count[order] >= SUBJECT_POINTS][:SUBJECTS]])


def _notes(problem: Problem, by_class: bool, n_k: np.ndarray, floor: np.ndarray, eps: float) -> tuple[str, ...]:
    notes = []
    empty = [c for c, k in zip(problem.classes, n_k) if not k]
    if empty:
        what = "their p-values are 1 and they are in every set" if by_class else "they are ranked among the other classes' scores"
        notes.append(f"No calibration point is {', '.join(empty)}: {what}.")
    held = [c for c, f in zip(problem.classes, floor) if f > eps and c not in empty]
    if held:
        which = "No label" if len(held) == len(problem.classes) else ", ".join(held) + " never"
        notes.append(f"{which} can be rejected: eps {eps:g} is under the smallest p-value, 1/(n + 1) = {floor.max():.3g}.")
    if problem.subject_cal is None or problem.subject_test is None:
        notes.append("Subjects are unknown. If they differ between calibration and test, the promise does not hold.")
        return tuple(notes)
    cal, test = set(problem.subject_cal.tolist()), set(problem.subject_test.tolist())
    if not cal & test:
        new = f"All {len(test)} test subjects are new since calibration ({len(cal)} subjects)"
        notes.append(f"{new}: the promise is for exchangeable points.")
    if not len(_subjects(problem)):
        notes.append(f"No subject has {SUBJECT_POINTS} test points: no curves by subject.")
    return tuple(notes)


def check(problem: Problem) -> None:
    """Raises ValueError, with the problem's name and the first rows, for shapes, probabilities or labels that cannot be right."""
    K = len(problem.classes)
    if K < 2 or len(set(problem.classes)) != K:
        raise ValueError(f"{problem.name}: there must be at least two classes, all named differently, not {list(problem.classes)}")
    for part, o, label, subject in (
        ("cal", problem.o_cal, problem.label_cal, problem.subject_cal),
        ("test", problem.o_test, problem.label_test, problem.subject_test),
    ):
        if o.ndim != 2 or o.shape[1] != K:
            raise ValueError(f"{problem.name}: {part}_softmax must be (rows, {K}), a column for each class, not {o.shape}")
        if not len(o):
            raise ValueError(f"{problem.name}: there is no {part} row; both calibration and test points are needed")
        if o.size > UPLOAD_CELLS or len(o) > UPLOAD_ROWS:
            raise ValueError(f"{problem.name}: {part}_softmax {o.shape} is too large; {MOST}")
        for what, a in (("labels", label), ("subjects", subject)):
            if a is not None and a.shape != (len(o),):
                raise ValueError(f"{problem.name}: {part}_{what} must be ({len(o)},), one for each row of {part}_softmax, not {a.shape}")
        with np.errstate(invalid="ignore"):
            total = o.sum(axis=1)
            bad = ~((np.abs(total - 1) <= TOLERANCE) & (o >= -TOLERANCE).all(axis=1))
        if bad.any():
            some = ", ".join(f"{i} (sum {total[i]:.4g}, smallest {o[i].min():.4g})" for i in np.flatnonzero(bad)[:3])
            raise ValueError(
                f"{problem.name}: {int(bad.sum())} row(s) of {part}_softmax are not probabilities, counted from 0: row {some}. "
                f"Rows must be 0 or more and sum to 1 within {TOLERANCE}; give the softmax, not the logits"
            )
        if not np.issubdtype(label.dtype, np.integer) or label.min() < 0 or label.max() >= K:
            wrong = label[(label < 0) | (label >= K)][:3] if np.issubdtype(label.dtype, np.number) else label[:3]
            raise ValueError(f"{problem.name}: {part}_labels must be whole numbers from 0 to {K - 1} (the classes' order), not {wrong}")


def problem_of(run: Run, modality: Modality = "face") -> Problem:
    """A run's own problem: f_S's faces (calibrated by exactly the rows that made its p-values) or f_T's voices, S2 against S4.

    Raises ValueError when the run holds no such outputs.
    """
    if modality not in ("face", "voice"):
        raise ValueError(f"modality is {modality!r}; it must be 'face' or 'voice'")
    infixes = {"face": "", "voice": "voice_"} if run.config.gan.direction == "face-voice" else {"face": "face_", "voice": ""}
    arrays, infix = run.arrays(), infixes[modality]
    needed = [f"{a}_{infix}{s}" for a in ("o", "label", "subject") for s in ("S2", "S4")]
    missing = [a for a in needed + ["calibration"] * (not infix) if a not in arrays]
    if missing:
        others = [k for k in infixes if k != modality and f"o_{infixes[k]}S2" in arrays]
        remedy = f"look at its {others[0]}s instead, or train it again" if others else "let its training get as far as the face classifier"
        raise ValueError(f"{run.directory / 'outputs.npz'} has no {modality} outputs ({missing[0]} is missing): {remedy}")
    rows = arrays["calibration"] if not infix else slice(None)
    o, label, subject = ([arrays[f"{a}_{infix}{s}"] for s in ("S2", "S4")] for a in ("o", "label", "subject"))
    known = not all(str(s).startswith(UNKNOWN) for s in np.unique(subject[1]))
    subjects = (subject[0][rows], subject[1]) if known else (None, None)
    name = f"{run.id} · {modality}s ({'f_T' if infix else 'f_S'})"
    return Problem(name, run.config.data.classes, o[0][rows], label[0][rows], o[1], label[1], *subjects)


def problem_from_upload(name: str, data: bytes) -> Problem:
    """Any classifier's outputs. Raises ValueError, in words for the visitor, for anything that is not as follows.

    npz: cal_softmax (n, K), cal_labels (n,), test_softmax (m, K), test_labels (m,); optional classes (K,), cal_subjects, test_subjects.
    csv: columns `set` (cal or test), `label` (a class' name, or its number from 0), one column for each class, optional `subject`.
    Labels of an npz may be names where classes are given.
    """
    name = PurePath(name).name[:80] or "upload"
    if len(data) > UPLOAD_BYTES:
        raise ValueError(f"{name} is {len(data) >> 20} MB, more than {UPLOAD_BYTES >> 20} MB; send fewer rows")
    columns = _from_npz(name, data) if data[:4] == b"PK\x03\x04" else _from_csv(name, data)
    classes = tuple(str(c) for c in columns["classes"])
    o = [np.asarray(columns[f"{part}_softmax"], np.float64) for part in ("cal", "test")]
    label = [_numbers(name, what, columns[what], classes) for what in ("cal_labels", "test_labels")]
    problem = Problem(name, classes, o[0], label[0], o[1], label[1], columns.get("cal_subjects"), columns.get("test_subjects"))
    check(problem)
    return problem


def _numbers(name: str, what: str, labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Labels as numbers: names are looked up, whole floats and numerals taken as they are."""
    if np.issubdtype(labels.dtype, np.floating) and np.isfinite(labels).all() and (labels == np.rint(labels)).all():
        return labels.astype(np.int64)
    if labels.dtype.kind != "U":
        return labels.astype(np.int64) if labels.dtype.kind in "iub" else labels
    known = {str(i): i for i in range(len(classes))} | {c: i for i, c in enumerate(classes)}
    values, index = np.unique(labels, return_inverse=True)
    unknown = [v for v in values.tolist() if v not in known]
    if unknown:
        raise ValueError(f"{name}: {what} holds {unknown[:3]}, which is no class; the classes are {list(classes)}")
    return np.array([known[v] for v in values.tolist()], np.int64)[index.reshape(labels.shape)]


def _from_npz(name: str, data: bytes) -> dict[str, np.ndarray]:
    wanted = ("cal_softmax", "cal_labels", "test_softmax", "test_labels", "classes", "cal_subjects", "test_subjects")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.removesuffix(".npy") in wanted}
            missing = [w for w in wanted[:4] if w not in members]
            if missing:
                raise ValueError(f"{name} has no {', '.join(missing)}; np.savez needs {', '.join(wanted[:4])}")
            unpacked = sum(i.file_size for i in members.values())
            if unpacked > UPLOAD_BYTES:  # zipfile never unpacks more than a member's stated size
                raise ValueError(f"{name} unpacks to {unpacked >> 20} MB, more than {UPLOAD_BYTES >> 20} MB; send fewer rows")
            arrays = {}
            for key, info in members.items():
                with archive.open(info) as member:
                    _check_header(name, key, member, info.file_size)
                with archive.open(info) as member:
                    arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError) as e:
        raise ValueError(f"{name} cannot be read as an npz file ({e}); write it with np.savez") from e
    for key in ("classes", "cal_subjects", "test_subjects"):
        if key in arrays:
            arrays[key] = arrays[key].astype(str)
    if arrays["cal_softmax"].ndim != 2:
        raise ValueError(f"{name}: cal_softmax must be (rows, classes), not {arrays['cal_softmax'].shape}")
    arrays.setdefault("classes", np.arange(arrays["cal_softmax"].shape[1]).astype(str))
    if arrays["classes"].ndim != 1:
        raise ValueError(f"{name}: classes must be a list of names, not {arrays['classes'].shape}")
    return arrays


def _check_header(name: str, key: str, member, size: int) -> None:
    """An npy header may promise any shape, which would be allocated before a byte is read."""
    try:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[np.lib.format.read_magic(member)]
        shape, _, dtype = read(member)
    except (ValueError, KeyError) as e:
        raise ValueError(f"{name}: {key} is no NumPy array ({e}); write it with np.savez") from e
    if dtype.hasobject or dtype.kind not in "fiubU":
        raise ValueError(f"{name}: {key} is an array of {dtype}; only numbers and text are read (convert with np.asarray(…, str) or float)")
    values = math.prod(shape)
    if any(s < 0 for s in shape) or values * dtype.itemsize > size:
        raise ValueError(f"{name}: {key} promises more values than it holds; the file is damaged")
    if values > (UPLOAD_CELLS if key.endswith("softmax") else UPLOAD_ROWS):
        raise ValueError(f"{name}: {key} {shape} is too large; {MOST}")
    if key.endswith("softmax") and dtype.kind == "U":
        raise ValueError(f"{name}: {key} holds text; it must hold probabilities")


def _from_csv(name: str, data: bytes) -> dict[str, np.ndarray]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{name} is neither an npz file nor text in UTF-8; send an npz or a csv") from e
    first = text.split("\n", 1)[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    try:
        header = [h.strip() for h in next(rows, [])]
        classes = [h for h in header if h not in ("set", "label", "subject")]
        if "set" not in header or "label" not in header or len(classes) < 2 or len(set(header)) < len(header):
            needed = "the first line must name the columns set, label and each class once (subject if known)"
            raise ValueError(f"{name}: {needed}, not {header[:20]}")
        at = {h: i for i, h in enumerate(header)}
        parts: dict[str, tuple[list, list, list]] = {"cal": ([], [], []), "test": ([], [], [])}
        where = [at[c] for c in classes]
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(f"{name}, line {rows.line_num}: {len(row)} values for {len(header)} columns")
            if row[at["set"]].strip() not in parts:
                raise ValueError(f"{name}, line {rows.line_num}: set is {row[at['set']][:20]!r}; it must be cal or test")
            o, label, subject = parts[row[at["set"]].strip()]
            try:
                o.append([float(row[i]) for i in where])
            except ValueError as e:
                raise ValueError(f"{name}, line {rows.line_num}: {e}; the class columns must hold probabilities") from e
            label.append(row[at["label"]].strip())
            subject.append(row[at["subject"]].strip() if "subject" in at else "")
    except csv.Error as e:
        raise ValueError(f"{name}, line {rows.line_num}: {e}; send a plain csv file") from e
    out = {"classes": np.array(classes)}
    for part, (o, label, subject) in parts.items():
        out[f"{part}_softmax"], out[f"{part}_labels"] = np.array(o).reshape(-1, len(classes)), np.array(label, dtype=str)
        if "subject" in at:
            out[f"{part}_subjects"] = np.array(subject, dtype=str)
    return out


def _plain(value: Any) -> Any:
    """Dataclasses, arrays and NaN as what JSON knows."""
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def to_json(v: View) -> str:
    """Settings, figures and curves of a view; its points are `to_csv`'s."""
    facts = {f.name: _plain(getattr(v, f.name)) for f in fields(v) if f.name not in POINTS}
    facts["reference"]["null"].pop("deviation")
    return json.dumps({"problem": v.problem.name, "classes": list(v.problem.classes)} | facts, ensure_ascii=False)


def to_csv(v: View) -> str:
    """A line for each test point: subject, label, softmax and p-value of each class, prediction, credibility, confidence, set at eps."""
    out, names, o = io.StringIO(), np.array(v.problem.classes), v.problem.o_test
    write = csv.writer(out, lineterminator="\n")
    heads = ["prediction", "credibility", "confidence", f"set at eps {v.eps:g}"]
    write.writerow(["row", "subject", "label", *(f"softmax {c}" for c in names), *(f"p {c}" for c in names), *heads])
    subject = v.problem.subject_test if v.problem.subject_test is not None else np.full(v.m, "")
    best, first, sure = prediction.prediction(v.p), prediction.credibility(v.p), prediction.confidence(v.p)
    for i in range(v.m):
        numbers = [f"{x:.6g}" for x in (*o[i], *v.p[i])]
        end = [names[best[i]], f"{first[i]:.6g}", f"{sure[i]:.6g}", " ".join(names[v.sets[i]])]
        write.writerow([i, subject[i], names[v.problem.label_test[i]], *numbers, *end])
    return out.getvalue()


def report(
    run: str,
    condition: str | None = None,
    modality: Modality = "face",
    measure: Measure | None = None,
    groups: Groups | None = None,
    as_json: bool = False,
    **settings: Any,
) -> str:
    """`view` of the run that `run` (and `condition`) means, as a table for people or as `to_json`. `settings`: r, eps, smoothed, seed.

    Measure and groups are the run's own unless given. Raises KeyError for an unknown run, ValueError as `problem_of` and `view` do.
    """
    found = runs.find(run, condition)
    own = found.config.conformal
    v = view(problem_of(found, modality), measure or own.measure, groups or own.groups, **settings)
    return to_json(v) if as_json else table(v)


def table(v: View) -> str:
    """A view's figures in words and Markdown tables."""
    p = v.problem
    how = f"{v.measure}, {v.groups}, {'smoothed' if v.smoothed else 'unsmoothed'}, r = {v.r:g}, seed {v.seed}"
    floor = f"{v.floor.min():.4f}" + (f"–{v.floor.max():.4f} by class" if np.ptp(v.floor) else "")
    lines = [p.name, f"{how} · n = {v.n} calibration scores, m = {v.m} test points · smallest p-value {floor}", *v.notes, ""]
    lines += ["| eps | error | band, 95 % of curves | mean set size | one label | empty |", "|---|---|---|---|---|---|"]
    c, e, h, ref, K = v.overall, v.efficiency, v.histogram, v.reference, len(p.classes)
    for i in np.searchsorted(v.levels, (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)):
        line = f"| {v.levels[i]:g} | {c.error[i]:.3f} | {c.lower[i]:.3f}–{c.upper[i]:.3f} "
        lines.append(line + f"| {e.size[i]:.2f} of {K} | {e.single[i]:.3f} | {e.empty[i]:.3f} |")
    uniform = f"distance {h.distance:.3f}, p = {h.p:.4f}"
    lines += ["", f"Against its band the error curve {_leaves(c)}. Are the true labels' p-values uniform? {uniform}."]
    typical, splits = np.abs(ref.error.mean(axis=0) - ref.null.expected).max(), f"(n = {ref.n}, m = {ref.m})"
    left = f"{round(ref.left * len(ref.error))} of {len(ref.error)} leave their band"
    lines.append(f"Random splits of the test points themselves {splits}: {left}; mean error within {typical:.3f} of its expectation.")
    lines += ["", f"| points | m | error at {v.eps:g} | against their own band |", "|---|---|---|---|"]
    at = int(np.abs(v.levels - v.eps).argmin())
    lines += [f"| {k.name} | {k.m} | {k.error[at]:.3f} | {_leaves(k)} |" for k in (*v.by_class, *v.by_subject)]
    lines += ["", f"criteria at eps = {v.eps:g}: " + ", ".join(f"{k} {x:.3f}" for k, x in v.criteria.items())]
    width, mass = v.reliability["width"], v.reliability["mass"]
    lines.append(f"softmax: ECE {width.ece:.3f} (15 bins of equal width), {mass.ece:.3f} (of equal mass)")
    lines += ["", f"| r | n | error at {v.eps:g} over {v.sizes.error.shape[1]} draws (sd) | mean set size (sd) |", "|---|---|---|---|"]
    draws = zip(v.sizes.r, v.sizes.n, v.sizes.error, v.sizes.size)
    lines += [f"| {r:g} | {n} | {a.mean():.3f} ({a.std():.3f}) | {b.mean():.2f} ({b.std():.2f}) |" for r, n, a, b in draws]
    return "\n".join(lines)


def _leaves(c: validity.Curve) -> str:
    up = f"leaves it upwards by {c.above:.3f} at eps {c.above_at:g}" if c.above else ""
    down = f"leaves it downwards by {c.below:.3f} at eps {c.below_at:g}" if c.below else ""
    return " and ".join(filter(None, (up, down))) or "stays within it"
