"""The columns of an uploaded NPZ or CSV file, which may come from any program; labels by name.

Nothing is guessed: what has two readings is refused with the name of its column.
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
import zipfile
import zlib
from array import array
from collections.abc import Sequence
from itertools import combinations
from typing import IO

import numpy as np

from core import files
from core.config.settings import BLANK_SUBJECTS
from core.files import UserError

MAX_UPLOAD_BYTES = 64 << 20  # size of an upload as sent, and of an npz unpacked
MAX_UPLOAD_CELLS = 4_000_000  # softmax values in one part of an upload
MAX_UPLOAD_ROWS = 500_000  # rows in one part of an upload
MAX_UPLOAD_CLASSES = 1_000
UPLOAD_LIMITS_TEXT = (
    f"the limit is {MAX_UPLOAD_CLASSES:,} classes, {MAX_UPLOAD_ROWS:,} rows and "
    f"{MAX_UPLOAD_CELLS:,} probabilities"
)
PROBABILITY_TOLERANCE = 1e-3  # largest deviation of a row's sum from one
ROUNDED_TOLERANCE = 0.05  # within which a row's sum looks like that of rounded probabilities
REQUIRED_ARRAYS = ("cal_softmax", "cal_labels", "test_softmax", "test_labels")
TEXT_ARRAYS = ("classes", "cal_subjects", "test_subjects")  # optional
NPZ_ERRORS = zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError
SPREADSHEET_MEMBERS = ("[Content_Types].xml", "xl/workbook.xml", "content.xml", "mimetype")
RESERVED_COLUMNS = ("set", "label", "subject")
INDEX_HEADER = re.compile(r"(unnamed: \d+)?", re.IGNORECASE)  # of pandas' and R's row names
IMAGE_NAME = re.compile(r"image-(?!\d{5}$).*")  # of people; unknown ones have five digits
MIN_SHIFT_GAIN = 0.1  # gain in accuracy by which labels are seen to be counted from 1
MAX_PAIRED_COLUMNS = 30  # columns among which two are sought that may be no classes
MAX_NAMED_CLASSES = 8  # class names that a message lists

Columns = dict[str, np.ndarray]


def read_columns(name: str, data: bytes) -> Columns:
    """The arrays of an npz, or the columns of a csv under the same names. Raises UserError."""
    return read_npz(name, data) if data[:4] == b"PK\x03\x04" else read_csv(name, data)


def check_size(name: str, verb: str, size: int) -> None:
    """Raise UserError above MAX_UPLOAD_BYTES."""
    if size > MAX_UPLOAD_BYTES:
        limit = f"more than {MAX_UPLOAD_BYTES >> 20} MB; send fewer rows"
        raise UserError(f"{name} {verb} {size >> 20} MB, {limit}")


def composed(text: str) -> str:
    """A name in Unicode's composed form (NFC), without spaces around it."""
    return unicodedata.normalize("NFC", text).strip()


def name_some(names: Sequence[str]) -> str:
    """Some of many names, as a message shows them.

    >>> name_some(["a", "b"]), name_some([str(i) for i in range(200)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7 and 192 more')
    """
    more = f" and {len(names) - MAX_NAMED_CLASSES} more" if len(names) > MAX_NAMED_CLASSES else ""
    return ", ".join(names[:MAX_NAMED_CLASSES]) + more


# ------------------------------------------------------------------ labels and subjects


def label_numbers(name: str, what: str, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Labels as places among the classes, counted from 0; labels that are no class stay as given.

    Where the classes are numbers, a label is one of these numbers. Where they are words, it is a
    word, or in a column of numbers alone a place. Raises UserError for an unknown name.
    """
    if np.issubdtype(labels.dtype, np.floating):
        whole = np.isfinite(labels).all() and (labels == np.rint(labels)).all()
        if not whole:
            return labels
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iubU":
        return labels
    values, index = np.unique(labels, return_inverse=True)
    words = [_numeral(composed(str(v))) for v in values.tolist()]
    known = {_numeral(c): i for i, c in enumerate(classes)}
    if len(known) < len(set(classes)):
        what = "two classes are the same number, written in two ways"
        raise UserError(f"{name}: {what}: {name_some(classes)}; rename one")
    are_numbers = all(_is_numeral(w) for w in words)
    if are_numbers and (not all(map(_is_numeral, known)) or _are_places(classes)):
        return np.array([int(w) for w in words], np.int64)[index.reshape(labels.shape)]
    if unknown := [w for w in words if w not in known]:
        given = f"holds {unknown[:3]}, which is no class; the classes are {name_some(classes)}"
        raise UserError(f"{name}: {what} {given}")
    return np.array([known[w] for w in words], np.int64)[index.reshape(labels.shape)]


def _are_places(classes: Sequence[str]) -> bool:
    """Whether the classes are named 0, 1, 2, …: then both readings of a number are the same."""
    return [_numeral(c) for c in classes] == [str(i) for i in range(len(classes))]


def _is_numeral(word: str) -> bool:
    return bool(re.fullmatch(r"-?\d{1,15}", word, re.ASCII))


def _numeral(word: str) -> str:
    """A whole number in its plain form: 2 for 2.0, 02 or +2; any other word as it is."""
    found = re.fullmatch(r"([+-]?)0*(\d{1,15})(\.0*)?", word, re.ASCII)
    if not found:
        return word
    return "-" * (found[1] == "-" and found[2] != "0") + found[2]


def subject_names(subjects: np.ndarray | None, part: str) -> np.ndarray | None:
    """Subjects in composed form; a point whose subject is blank gets a name of its own.

    A person who is called as this project calls unknown ones (image-1) is told apart from these.
    """
    if subjects is None or subjects.ndim != 1:
        return subjects
    names = [composed(str(s)) for s in subjects.tolist()]
    blank = [s.lower() in BLANK_SUBJECTS for s in names]
    named = [
        f"clip: {part} {i}" if is_blank else s for i, (s, is_blank) in enumerate(zip(names, blank))
    ]
    named = [f"subject {s}" if IMAGE_NAME.fullmatch(s) else s for s in named]
    return np.array(named, dtype=str)


def check_classes(
    name: str,
    classes: Sequence[str],
    cal: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
) -> None:
    """Raise UserError where labels look counted from 1, or a column is zero and no label names it.

    `cal` and `test` are (probabilities (n, K), labels (n,)), checked.
    """
    o, label = np.concatenate([cal[0], test[0]]), np.concatenate([cal[1], test[1]])
    if label.min() >= 1:
        best = o.argmax(1)
        hit, shifted = float((best == label).mean()), float((best == label - 1).mean())
        if shifted > max(hit, 1 / len(classes)) + MIN_SHIFT_GAIN:
            what = (
                f"no label is {classes[0]} (0), and with 1 subtracted {shifted:.0%} of the labels"
            )
            what += f" are the likeliest class instead of {hit:.0%}: they look counted from 1"
            raise UserError(f"{name}: {what}. Subtract 1 from each, or write the classes' names")
    is_empty = ~o.any(axis=0) & ~np.isin(np.arange(len(classes)), label)
    empty = np.flatnonzero(is_empty).tolist()
    if empty:
        what = f"the column {name_some([classes[k] for k in empty])} is zero in each row"
        raise UserError(f"{name}: {what} and no label names it; remove it, if it is no class")


# ------------------------------------------------------------------ npz


def read_npz(name: str, data: bytes) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            wanted = (*REQUIRED_ARRAYS, *TEXT_ARRAYS)
            members = {k: i for k, i in members.items() if k in wanted}
            missing = [w for w in REQUIRED_ARRAYS if w not in members]
            if missing and any(i.filename in SPREADSHEET_MEMBERS for i in archive.infolist()):
                raise UserError(f"{name} is a spreadsheet; save it as 'CSV UTF-8' and send that")
            if missing:
                needed = f"np.savez needs {', '.join(REQUIRED_ARRAYS)}"
                raise UserError(f"{name} has no {', '.join(missing)}; {needed}")
            # zipfile never unpacks more than a member's stated size
            check_size(name, "unpacks to", sum(i.file_size for i in members.values()))
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
    arrays |= {key: _as_text(arrays[key]) for key in TEXT_ARRAYS if key in arrays}
    shape = arrays["cal_softmax"].shape
    if len(shape) != 2:
        raise UserError(f"{name}: cal_softmax must be (rows, classes), not {shape}")
    _check_class_count(name, shape[1])
    classes = arrays.setdefault("classes", np.arange(shape[1]).astype(str))
    if classes.ndim != 1:
        raise UserError(f"{name}: classes must be a list of names, not {classes.shape}")
    return arrays


def _as_text(values: np.ndarray) -> np.ndarray:
    """Names as text; whole numbers without a point, as a missing one makes floats of all others."""
    text = values.astype(str)
    if np.issubdtype(values.dtype, np.floating):
        text = np.char.replace(text, ".0", "") if _are_whole(values) else text
    return text


def _are_whole(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    return bool((known == np.rint(known)).all() and (np.abs(known) < 1e15).all())


def _check_class_count(name: str, classes: int) -> None:
    if classes > MAX_UPLOAD_CLASSES:
        raise UserError(f"{name} has {classes:,} classes; {UPLOAD_LIMITS_TEXT}")


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


# ------------------------------------------------------------------ csv


def read_csv(name: str, data: bytes) -> Columns:
    """The columns of a csv under the names of the npz' arrays. Raises UserError."""
    try:
        rows = files.read_delimited(files.decode_text(name, data))
    except UserError as e:
        if "spreadsheet" in str(e):
            raise
        if "is no text" in str(e):
            what = f"{name} is neither an npz file nor text"
            raise UserError(f"{what}; write it with np.savez, or save it as 'CSV UTF-8'") from e
        fix = str(e).removeprefix(f"{name} is ").replace("not UTF-8 text ", "")
        raise UserError(f"{name} is neither an npz file nor text in UTF-8 {fix}") from e
    except csv.Error as e:
        raise UserError(f"{name}: {e}; send a plain csv file") from e
    try:
        header, first = next(filter(any, rows), []), next(rows, [])
        first_line = rows.line_num
        if len(first) == len(header) + 1:  # R's row names have no header
            header = ["", *header]
        at, classes = _csv_columns(name, [composed(h) for h in header])
        _check_class_count(name, len(classes))
        parts = {part: (array("d"), list[str](), list[str]()) for part in ("cal", "test")}
        if first:
            _add_row(f"{name}, line {first_line}", first, len(header), at, classes, parts)
        for row in filter(None, rows):
            _add_row(f"{name}, line {rows.line_num}", row, len(header), at, classes, parts)
    except csv.Error as e:
        raise UserError(f"{name}, line {rows.line_num}: {e}; send a plain csv file") from e
    columns = {"classes": np.array(classes)}
    for part, (o, label, subject) in parts.items():
        columns[f"{part}_softmax"] = np.array(o).reshape(-1, len(classes))
        columns[f"{part}_labels"] = np.array(label, dtype=str)
        if "subject" in at:
            columns[f"{part}_subjects"] = np.array(subject, dtype=str)
    _refuse_other_columns(name, classes, columns)
    return columns


def _add_row(
    line: str,
    row: list[str],
    width: int,
    at: dict[str, int],
    classes: list[str],
    parts: dict[str, tuple[array, list[str], list[str]]],
) -> None:
    if len(row) != width:
        raise UserError(f"{line}: {len(row)} values for {width} columns")
    part = row[at["set"]].strip().lower()
    if part not in parts:
        raise UserError(f"{line}: set is {row[at['set']][:20]!r}; it must be cal or test")
    o, label, subject = parts[part]
    numbers = []
    for c in classes:
        try:
            numbers.append(float(row[at[c]].strip().replace(",", ".")))  # also a decimal comma
        except ValueError as e:
            what = f"column {c!r} is taken for a class and must hold probabilities"
            raise UserError(f"{line}: {e}; {what}: remove it if it is no class") from e
    if len(label) >= MAX_UPLOAD_ROWS or len(o) + len(numbers) > MAX_UPLOAD_CELLS:
        raise UserError(f"{line}: the file is too large; {UPLOAD_LIMITS_TEXT} a set")
    o.extend(numbers)
    label.append(row[at["label"]].strip())
    subject.append(row[at["subject"]].strip() if "subject" in at else "")


def _csv_columns(name: str, header: list[str]) -> tuple[dict[str, int], list[str]]:
    """Column name -> its place, and the columns that are classes; unnamed ones are passed over."""
    named = {}
    names = [h.lower() if h.lower() in RESERVED_COLUMNS else h for h in header]
    for i, h in enumerate(names):
        if not INDEX_HEADER.fullmatch(h):
            named[h] = i
    classes = [h for h in named if h not in RESERVED_COLUMNS]
    complete = "set" in named and "label" in named and len(classes) > 1
    twice = len(named) < sum(not INDEX_HEADER.fullmatch(h) for h in names)
    if not complete or twice:
        needed = "set, label and each class once (subject if known)"
        raise UserError(f"{name}: the first line must name the columns {needed}, not {header[:20]}")
    return named, classes


def _refuse_other_columns(name: str, classes: list[str], columns: Columns) -> None:
    """Raise UserError that names the columns without which all rows are probabilities.

    These are an index, a fold, an identifier: columns that were taken for classes.
    """
    o = np.concatenate([columns["cal_softmax"], columns["test_softmax"]])
    if not len(o) or _are_probabilities(o):
        return
    with np.errstate(invalid="ignore"):
        beyond = ~((o >= -PROBABILITY_TOLERANCE) & (o <= 1 + PROBABILITY_TOLERANCE)).all(axis=0)
    suspects = np.flatnonzero(beyond).tolist()
    rest = [k for k in range(len(classes)) if k not in suspects]
    total = o[:, rest].sum(axis=1)  # without those that are beyond, and below without some more
    pairs = combinations(rest, 2) if len(rest) <= MAX_PAIRED_COLUMNS else ()
    for more in ((), *((k,) for k in rest), *pairs):
        others = [*suspects, *more]
        left = total - o[:, list(more)].sum(axis=1)
        is_one = (np.abs(left - 1) <= PROBABILITY_TOLERANCE).all()
        if others and len(others) < len(classes) - 1 and is_one:
            what = name_some([classes[k] for k in sorted(others)])
            plural = "columns" if len(others) > 1 else "column"
            raise UserError(
                f"{name}: the {plural} {what} cannot be a class: without it each row sums to 1. "
                f"Remove the {plural}"
            )


def probability_fix(o: np.ndarray) -> str:
    """What is to be done with rows (n, K) that are no probabilities, by what they look like."""
    with np.errstate(invalid="ignore"):
        total = o.sum(axis=1)
        if not np.isfinite(o).all():
            return "remove the rows in which a number is missing or infinite"
        if (o <= 0).all():
            return "they look like logarithms: give their exponentials"
        if (o >= 0).all() and (np.abs(total / 100 - 1) <= ROUNDED_TOLERANCE).all():
            return "they look like percent: divide them by 100"
        if (o >= 0).all() and (np.abs(total - 1) <= ROUNDED_TOLERANCE).all():
            return "they look rounded: write them with more digits"
    return "give the softmax, not the logits"


def _are_probabilities(o: np.ndarray) -> bool:
    slack = PROBABILITY_TOLERANCE
    with np.errstate(invalid="ignore"):
        return bool((np.abs(o.sum(axis=1) - 1) <= slack).all() and (o >= -slack).all())
