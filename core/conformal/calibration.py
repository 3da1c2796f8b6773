"""Calibration and test outputs of a classifier: a run's, or an uploaded NPZ or CSV file's."""

from __future__ import annotations

import csv
import io
import math
import zipfile
import zlib
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import PurePath
from typing import IO, Any, Literal

import numpy as np

from core import files
from core.conformal import predictor
from core.conformal.predictor import Predictor
from core.files import UserError
from core.runs import Run

Modality = Literal["face", "voice"]

MAX_UPLOAD_BYTES = 64 << 20  # size of an upload as sent, and of an npz unpacked
MAX_UPLOAD_CELLS = 4_000_000  # softmax values in one part of an upload
MAX_UPLOAD_ROWS = 500_000  # rows in one part of an upload
UPLOAD_LIMITS_TEXT = f"the limit is {MAX_UPLOAD_ROWS:,} rows and {MAX_UPLOAD_CELLS:,} probabilities"
PROBABILITY_TOLERANCE = 1e-3  # largest deviation of a row's sum from one
# prefixes that replace the subject in outputs of corpora without subjects (`core.data.splits`)
UNKNOWN_SUBJECT_PREFIXES = ("image-", "clip: ")
REQUIRED_ARRAYS = ("cal_softmax", "cal_labels", "test_softmax", "test_labels")
TEXT_ARRAYS = ("classes", "cal_subjects", "test_subjects")  # optional
NPZ_ERRORS = zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError


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
    if len(classes) < 2 or len(set(classes)) != len(classes):
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
            "give the softmax, not the logits"
        )


def _check_labels(name: str, part: str, K: int, label: np.ndarray) -> None:
    if np.issubdtype(label.dtype, np.integer) and label.min() >= 0 and label.max() < K:
        return
    number = np.issubdtype(label.dtype, np.number)
    wrong = (label[(label < 0) | (label >= K)] if number else label)[:3]
    needed = f"must be whole numbers from 0 to {K - 1} (the classes' order)"
    raise UserError(f"{name}: {part}_labels {needed}, not {wrong}")


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
        what = (
            f"{run.directory / 'outputs.npz'} has no {modality} outputs ({missing[0]} is missing)"
        )
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
    classes (K,), cal_subjects (n,), test_subjects (m,). Labels may be names if classes are given.
    csv: columns `set` (cal or test), `label` (a class name, or its number from 0), one column per
    class, optional `subject`.
    Raises UserError for any other content.
    """
    name = PurePath(name).name[:80] or "upload"
    _check_size(name, "is", len(data))
    columns = _read_npz(name, data) if data[:4] == b"PK\x03\x04" else _read_csv(name, data)
    classes = tuple(str(c) for c in columns["classes"])
    cal, test = (
        (
            np.asarray(columns[f"{part}_softmax"], np.float64),
            _label_numbers(name, f"{part}_labels", columns[f"{part}_labels"], classes),
        )
        for part in ("cal", "test")
    )
    subjects = columns.get("cal_subjects"), columns.get("test_subjects")
    problem = CalibrationData(name, classes, *cal, *test, *subjects)
    check_data(problem)
    return problem


def _check_size(name: str, verb: str, size: int) -> None:
    if size > MAX_UPLOAD_BYTES:
        limit = f"more than {MAX_UPLOAD_BYTES >> 20} MB; send fewer rows"
        raise UserError(f"{name} {verb} {size >> 20} MB, {limit}")


def _label_numbers(
    name: str, what: str, labels: np.ndarray, classes: tuple[str, ...]
) -> np.ndarray:
    """Labels as whole numbers: class names are looked up, whole floats and numerals converted."""
    if np.issubdtype(labels.dtype, np.floating):
        whole = np.isfinite(labels).all() and (labels == np.rint(labels)).all()
        return labels.astype(np.int64) if whole else labels
    if labels.dtype.kind != "U":
        return labels.astype(np.int64) if labels.dtype.kind in "iub" else labels
    known = {str(i): i for i in range(len(classes))} | {c: i for i, c in enumerate(classes)}
    values, index = np.unique(labels, return_inverse=True)
    unknown = [v for v in values.tolist() if v not in known]
    if unknown:
        given = f"holds {unknown[:3]}, which is no class; the classes are {list(classes)}"
        raise UserError(f"{name}: {what} {given}")
    return np.array([known[v] for v in values.tolist()], np.int64)[index.reshape(labels.shape)]


def _read_npz(name: str, data: bytes) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            wanted = (*REQUIRED_ARRAYS, *TEXT_ARRAYS)
            members = {k: i for k, i in members.items() if k in wanted}
            missing = [w for w in REQUIRED_ARRAYS if w not in members]
            if missing:
                needed = f"np.savez needs {', '.join(REQUIRED_ARRAYS)}"
                raise UserError(f"{name} has no {', '.join(missing)}; {needed}")
            # zipfile never unpacks more than a member's stated size
            _check_size(name, "unpacks to", sum(i.file_size for i in members.values()))
            arrays = {}
            for key, info in members.items():
                with archive.open(info) as member:
                    _check_npy_header(name, key, member, info.file_size)
                with archive.open(info) as member:
                    arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
    except UserError:
        raise
    except NPZ_ERRORS as e:
        fix = "write it with np.savez"
        raise UserError(f"{name} cannot be read as an npz file ({e}); {fix}") from e
    arrays |= {key: arrays[key].astype(str) for key in TEXT_ARRAYS if key in arrays}
    shape = arrays["cal_softmax"].shape
    if len(shape) != 2:
        raise UserError(f"{name}: cal_softmax must be (rows, classes), not {shape}")
    classes = arrays.setdefault("classes", np.arange(shape[1]).astype(str))
    if classes.ndim != 1:
        raise UserError(f"{name}: classes must be a list of names, not {classes.shape}")
    return arrays


def _check_npy_header(name: str, key: str, member: IO[bytes], size: int) -> None:
    """Check shape and type of an array before it is read: reading allocates the stated shape."""
    try:
        shape, dtype = files.npy_header(member)
    except ValueError as e:
        raise UserError(f"{name}: {key} is no NumPy array ({e}); write it with np.savez") from e
    if dtype.hasobject or dtype.kind not in "fiubU":
        fix = "only numbers and text are read (convert with np.asarray(…, str) or float)"
        raise UserError(f"{name}: {key} is an array of {dtype}; {fix}")
    values, softmax = math.prod(shape), key.endswith("softmax")
    if any(s < 0 for s in shape) or values * dtype.itemsize > size:
        raise UserError(f"{name}: {key} promises more values than it holds; the file is damaged")
    if values > (MAX_UPLOAD_CELLS if softmax else MAX_UPLOAD_ROWS):
        raise UserError(f"{name}: {key} {shape} is too large; {UPLOAD_LIMITS_TEXT}")
    if softmax and dtype.kind == "U":
        raise UserError(f"{name}: {key} holds text; it must hold probabilities")


def _read_csv(name: str, data: bytes) -> dict[str, np.ndarray]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        fix = "send an npz or a csv"
        raise UserError(f"{name} is neither an npz file nor text in UTF-8; {fix}") from e
    rows = files.read_delimited(text)
    parts: dict[str, tuple[list, list, list]] = {"cal": ([], [], []), "test": ([], [], [])}
    try:
        at, classes = _csv_columns(name, [h.strip() for h in next(rows, [])])
        for row in filter(None, rows):
            line = f"{name}, line {rows.line_num}"
            if len(row) != len(at):
                raise UserError(f"{line}: {len(row)} values for {len(at)} columns")
            part = row[at["set"]].strip()
            if part not in parts:
                raise UserError(f"{line}: set is {row[at['set']][:20]!r}; it must be cal or test")
            o, label, subject = parts[part]
            try:
                o.append([float(row[at[c]]) for c in classes])
            except ValueError as e:
                raise UserError(f"{line}: {e}; the class columns must hold probabilities") from e
            label.append(row[at["label"]].strip())
            subject.append(row[at["subject"]].strip() if "subject" in at else "")
    except csv.Error as e:
        raise UserError(f"{name}, line {rows.line_num}: {e}; send a plain csv file") from e
    columns = {"classes": np.array(classes)}
    for part, (o, label, subject) in parts.items():
        columns[f"{part}_softmax"] = np.array(o).reshape(-1, len(classes))
        columns[f"{part}_labels"] = np.array(label, dtype=str)
        if "subject" in at:
            columns[f"{part}_subjects"] = np.array(subject, dtype=str)
    return columns


def _csv_columns(name: str, header: list[str]) -> tuple[dict[str, int], list[str]]:
    """Column name -> its position, and the columns that are classes."""
    classes = [h for h in header if h not in ("set", "label", "subject")]
    complete = "set" in header and "label" in header and len(classes) > 1
    if not complete or len(set(header)) < len(header):
        needed = "set, label and each class once (subject if known)"
        raise UserError(f"{name}: the first line must name the columns {needed}, not {header[:20]}")
    return {h: i for i, h in enumerate(header)}, classes


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
