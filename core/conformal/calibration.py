"""Calibration and test outputs of a classifier: a run's, or an uploaded NPZ or CSV file's."""

from __future__ import annotations

import csv
import io
import math
import zipfile
import zlib
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import Any, Literal

import numpy as np

from core.runs import Run

Modality = Literal["face", "voice"]

MAX_UPLOAD_BYTES = 64 << 20  # of an upload as sent, and of an npz unpacked

MAX_UPLOAD_CELLS, MAX_UPLOAD_ROWS = (
    4_000_000,
    500_000,
)  # softmax values, and rows, in one part of an upload

UPLOAD_LIMITS_TEXT = (
    f"at most {MAX_UPLOAD_ROWS:,} rows and {MAX_UPLOAD_CELLS:,} probabilities are taken"
)

PROBABILITY_TOLERANCE = 1e-3  # by which a row may miss the sum of one

UNKNOWN_SUBJECT_PREFIXES = (
    "image-",
    "clip: ",
)  # what outputs name in place of a subject where a corpus knows none (core.datasets)


@dataclass(frozen=True)
class CalibrationData:
    """Outputs of one classifier on calibration and test points. Subjects may be unknown (None)."""

    name: str
    classes: tuple[str, ...]
    o_cal: np.ndarray  # (n, K) softmax
    label_cal: np.ndarray  # (n,) 0..K-1
    o_test: np.ndarray  # (m, K)
    label_test: np.ndarray  # (m,)
    subject_cal: np.ndarray | None = None  # (n,) names
    subject_test: np.ndarray | None = None  # (m,)


def check_data(problem: CalibrationData) -> None:
    """Raises ValueError, with the problem's name and the first rows, for shapes, probabilities or labels that cannot be right."""
    K = len(problem.classes)
    if K < 2 or len(set(problem.classes)) != K:
        raise ValueError(
            f"{problem.name}: there must be at least two classes, all named differently, not {list(problem.classes)}"
        )
    for part, o, label, subject in (
        ("cal", problem.o_cal, problem.label_cal, problem.subject_cal),
        ("test", problem.o_test, problem.label_test, problem.subject_test),
    ):
        if o.ndim != 2 or o.shape[1] != K:
            raise ValueError(
                f"{problem.name}: {part}_softmax must be (rows, {K}), a column for each class, not {o.shape}"
            )
        if not len(o):
            raise ValueError(
                f"{problem.name}: there is no {part} row; both calibration and test points are needed"
            )
        if o.size > MAX_UPLOAD_CELLS or len(o) > MAX_UPLOAD_ROWS:
            raise ValueError(
                f"{problem.name}: {part}_softmax {o.shape} is too large; {UPLOAD_LIMITS_TEXT}"
            )
        for what, a in (("labels", label), ("subjects", subject)):
            if a is not None and a.shape != (len(o),):
                raise ValueError(
                    f"{problem.name}: {part}_{what} must be ({len(o)},), one for each row of {part}_softmax, not {a.shape}"
                )
        with np.errstate(invalid="ignore"):
            total = o.sum(axis=1)
            bad = ~(
                (np.abs(total - 1) <= PROBABILITY_TOLERANCE)
                & (o >= -PROBABILITY_TOLERANCE).all(axis=1)
            )
        if bad.any():
            some = ", ".join(
                f"{i} (sum {total[i]:.4g}, smallest {o[i].min():.4g})"
                for i in np.flatnonzero(bad)[:3]
            )
            raise ValueError(
                f"{problem.name}: {int(bad.sum())} row(s) of {part}_softmax are not probabilities, counted from 0: row {some}. "
                f"Rows must be 0 or more and sum to 1 within {PROBABILITY_TOLERANCE}; give the softmax, not the logits"
            )
        if not np.issubdtype(label.dtype, np.integer) or label.min() < 0 or label.max() >= K:
            wrong = (
                label[(label < 0) | (label >= K)][:3]
                if np.issubdtype(label.dtype, np.number)
                else label[:3]
            )
            raise ValueError(
                f"{problem.name}: {part}_labels must be whole numbers from 0 to {K - 1} (the classes' order), not {wrong}"
            )


def data_from_run(run: Run, modality: Modality = "face") -> CalibrationData:
    """A run's own problem: f_S's faces (calibrated by exactly the rows that made its p-values) or f_T's voices, S2 against S4.

    Raises ValueError when the run holds no such outputs.
    """
    if modality not in ("face", "voice"):
        raise ValueError(f"modality is {modality!r}; it must be 'face' or 'voice'")
    infixes = (
        {"face": "", "voice": "voice_"}
        if run.config.gan.direction == "face-voice"
        else {"face": "face_", "voice": ""}
    )
    arrays, infix = run.arrays(), infixes[modality]
    needed = [f"{a}_{infix}{s}" for a in ("o", "label", "subject") for s in ("S2", "S4")]
    missing = [a for a in needed + ["calibration"] * (not infix) if a not in arrays]
    if missing:
        others = [k for k in infixes if k != modality and f"o_{infixes[k]}S2" in arrays]
        remedy = (
            f"look at its {others[0]}s instead, or train it again"
            if others
            else "let its training get as far as the face classifier"
        )
        raise ValueError(
            f"{run.directory / 'outputs.npz'} has no {modality} outputs ({missing[0]} is missing): {remedy}"
        )
    rows = arrays["calibration"] if not infix else slice(None)
    o, label, subject = (
        [arrays[f"{a}_{infix}{s}"] for s in ("S2", "S4")] for a in ("o", "label", "subject")
    )
    known = not all(str(s).startswith(UNKNOWN_SUBJECT_PREFIXES) for s in np.unique(subject[1]))
    subjects = (subject[0][rows], subject[1]) if known else (None, None)
    name = f"{run.id} · {modality}s ({'f_T' if infix else 'f_S'})"
    return CalibrationData(
        name, run.config.data.classes, o[0][rows], label[0][rows], o[1], label[1], *subjects
    )


def data_from_upload(name: str, data: bytes) -> CalibrationData:
    """Any classifier's outputs. Raises ValueError, in words for the visitor, for anything that is not as follows.

    npz: cal_softmax (n, K), cal_labels (n,), test_softmax (m, K), test_labels (m,); optional classes (K,), cal_subjects, test_subjects.
    csv: columns `set` (cal or test), `label` (a class' name, or its number from 0), one column for each class, optional `subject`.
    Labels of an npz may be names where classes are given.
    """
    name = PurePath(name).name[:80] or "upload"
    if len(data) > MAX_UPLOAD_BYTES:
        raise ValueError(
            f"{name} is {len(data) >> 20} MB, more than {MAX_UPLOAD_BYTES >> 20} MB; send fewer rows"
        )
    columns = _read_npz(name, data) if data[:4] == b"PK\x03\x04" else _read_csv(name, data)
    classes = tuple(str(c) for c in columns["classes"])
    o = [np.asarray(columns[f"{part}_softmax"], np.float64) for part in ("cal", "test")]
    label = [
        _label_numbers(name, what, columns[what], classes) for what in ("cal_labels", "test_labels")
    ]
    problem = CalibrationData(
        name,
        classes,
        o[0],
        label[0],
        o[1],
        label[1],
        columns.get("cal_subjects"),
        columns.get("test_subjects"),
    )
    check_data(problem)
    return problem


def _label_numbers(
    name: str, what: str, labels: np.ndarray, classes: tuple[str, ...]
) -> np.ndarray:
    """Labels as numbers: names are looked up, whole floats and numerals taken as they are."""
    if (
        np.issubdtype(labels.dtype, np.floating)
        and np.isfinite(labels).all()
        and (labels == np.rint(labels)).all()
    ):
        return labels.astype(np.int64)
    if labels.dtype.kind != "U":
        return labels.astype(np.int64) if labels.dtype.kind in "iub" else labels
    known = {str(i): i for i in range(len(classes))} | {c: i for i, c in enumerate(classes)}
    values, index = np.unique(labels, return_inverse=True)
    unknown = [v for v in values.tolist() if v not in known]
    if unknown:
        raise ValueError(
            f"{name}: {what} holds {unknown[:3]}, which is no class; the classes are {list(classes)}"
        )
    return np.array([known[v] for v in values.tolist()], np.int64)[index.reshape(labels.shape)]


def _read_npz(name: str, data: bytes) -> dict[str, np.ndarray]:
    wanted = (
        "cal_softmax",
        "cal_labels",
        "test_softmax",
        "test_labels",
        "classes",
        "cal_subjects",
        "test_subjects",
    )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {
                i.filename.removesuffix(".npy"): i
                for i in archive.infolist()
                if i.filename.removesuffix(".npy") in wanted
            }
            missing = [w for w in wanted[:4] if w not in members]
            if missing:
                raise ValueError(
                    f"{name} has no {', '.join(missing)}; np.savez needs {', '.join(wanted[:4])}"
                )
            unpacked = sum(i.file_size for i in members.values())
            if (
                unpacked > MAX_UPLOAD_BYTES
            ):  # zipfile never unpacks more than a member's stated size
                raise ValueError(
                    f"{name} unpacks to {unpacked >> 20} MB, more than {MAX_UPLOAD_BYTES >> 20} MB; send fewer rows"
                )
            arrays = {}
            for key, info in members.items():
                with archive.open(info) as member:
                    _check_npy_header(name, key, member, info.file_size)
                with archive.open(info) as member:
                    arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
    except (
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        NotImplementedError,
        EOFError,
        OSError,
    ) as e:
        raise ValueError(
            f"{name} cannot be read as an npz file ({e}); write it with np.savez"
        ) from e
    for key in ("classes", "cal_subjects", "test_subjects"):
        if key in arrays:
            arrays[key] = arrays[key].astype(str)
    if arrays["cal_softmax"].ndim != 2:
        raise ValueError(
            f"{name}: cal_softmax must be (rows, classes), not {arrays['cal_softmax'].shape}"
        )
    arrays.setdefault("classes", np.arange(arrays["cal_softmax"].shape[1]).astype(str))
    if arrays["classes"].ndim != 1:
        raise ValueError(f"{name}: classes must be a list of names, not {arrays['classes'].shape}")
    return arrays


def _check_npy_header(name: str, key: str, member, size: int) -> None:
    """An npy header may promise any shape, which would be allocated before a byte is read."""
    try:
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(member)]
        shape, _, dtype = read(member)
    except (ValueError, KeyError) as e:
        raise ValueError(f"{name}: {key} is no NumPy array ({e}); write it with np.savez") from e
    if dtype.hasobject or dtype.kind not in "fiubU":
        raise ValueError(
            f"{name}: {key} is an array of {dtype}; only numbers and text are read (convert with np.asarray(…, str) or float)"
        )
    values = math.prod(shape)
    if any(s < 0 for s in shape) or values * dtype.itemsize > size:
        raise ValueError(f"{name}: {key} promises more values than it holds; the file is damaged")
    if values > (MAX_UPLOAD_CELLS if key.endswith("softmax") else MAX_UPLOAD_ROWS):
        raise ValueError(f"{name}: {key} {shape} is too large; {UPLOAD_LIMITS_TEXT}")
    if key.endswith("softmax") and dtype.kind == "U":
        raise ValueError(f"{name}: {key} holds text; it must hold probabilities")


def _read_csv(name: str, data: bytes) -> dict[str, np.ndarray]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(
            f"{name} is neither an npz file nor text in UTF-8; send an npz or a csv"
        ) from e
    first = text.split("\n", 1)[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    try:
        header = [h.strip() for h in next(rows, [])]
        classes = [h for h in header if h not in ("set", "label", "subject")]
        if (
            "set" not in header
            or "label" not in header
            or len(classes) < 2
            or len(set(header)) < len(header)
        ):
            needed = "the first line must name the columns set, label and each class once (subject if known)"
            raise ValueError(f"{name}: {needed}, not {header[:20]}")
        at = {h: i for i, h in enumerate(header)}
        parts: dict[str, tuple[list, list, list]] = {"cal": ([], [], []), "test": ([], [], [])}
        where = [at[c] for c in classes]
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{name}, line {rows.line_num}: {len(row)} values for {len(header)} columns"
                )
            if row[at["set"]].strip() not in parts:
                raise ValueError(
                    f"{name}, line {rows.line_num}: set is {row[at['set']][:20]!r}; it must be cal or test"
                )
            o, label, subject = parts[row[at["set"]].strip()]
            try:
                o.append([float(row[i]) for i in where])
            except ValueError as e:
                raise ValueError(
                    f"{name}, line {rows.line_num}: {e}; the class columns must hold probabilities"
                ) from e
            label.append(row[at["label"]].strip())
            subject.append(row[at["subject"]].strip() if "subject" in at else "")
    except csv.Error as e:
        raise ValueError(f"{name}, line {rows.line_num}: {e}; send a plain csv file") from e
    out = {"classes": np.array(classes)}
    for part, (o, label, subject) in parts.items():
        out[f"{part}_softmax"], out[f"{part}_labels"] = (
            np.array(o).reshape(-1, len(classes)),
            np.array(label, dtype=str),
        )
        if "subject" in at:
            out[f"{part}_subjects"] = np.array(subject, dtype=str)
    return out


def _to_json_value(value: Any) -> Any:
    """Dataclasses, arrays and NaN as what JSON knows."""
    if is_dataclass(value):
        return {f.name: _to_json_value(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {k: _to_json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [
            _to_json_value(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)
        ]
    return None if isinstance(value, float) and not np.isfinite(value) else value
