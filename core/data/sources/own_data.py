"""§4.1: own data: folders faces/<label>/… and audio/<label>/…, or a csv table of clips."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core import files
from core.config.settings import BLANK_SUBJECTS
from core.data import labels
from core.data.corpora import ClipEntry, CorpusError
from core.data.sources import media_files
from core.data.sources.media_files import MEDIA_EXTENSIONS, media_role
from core.files import printable

SEX_SYNONYMS = (
    dict.fromkeys(("f", "female", "w", "woman"), "female")
    | dict.fromkeys(("m", "male", "man"), "male")
    | {"": ""}
)
ROLE_KINDS = {"faces": ("picture", "video"), "audio": ("audio", "video")}  # folder -> media kinds
# Folders above an emotion's that split a corpus and name nobody
SPLIT_FOLDER = re.compile(r"(train|test|val|dev|public|private|fold|part|set|split)", re.IGNORECASE)


@dataclass(frozen=True)
class LabelledPlace:
    """The place of a file below faces/<label>/ or faces/<person>/<label>/, or audio/ likewise."""

    above: str  # the folders above, "" for none
    role: str  # of ROLE_KINDS
    label: str
    person: str  # the folder beside the label, "" for none


def labelled_place(path: str) -> LabelledPlace | None:
    """Where a path lies below faces/ or audio/, in folders of any depth; None if nowhere.

    The label is the folder below, or the one below that if it alone is an emotion: the folder
    between is a person then, and else the one below the label is. Where faces or audio occur in
    several places, the first counts that is followed by an emotion.

    >>> place = labelled_place("faces/anna/happy/1.jpg")
    >>> place.label, place.person
    ('happy', 'anna')
    """
    folders = path.split("/")[:-1]
    direct: list[LabelledPlace] = []
    turned: list[LabelledPlace] = []
    for i, folder in enumerate(folders[:-1]):
        if folder.lower() in ROLE_KINDS:
            first, second = (*folders[i + 1 :], "")[:2]
            is_below = not labels.emotion_of(first) and labels.emotion_of(second) != ""
            label, person = (second, first) if is_below else (first, second)
            place = LabelledPlace("/".join(folders[:i]), folder.lower(), label, person)
            (turned if is_below else direct).append(place)
    places = direct + turned
    return next((p for p in places if labels.emotion_of(p.label)), (*places, None)[0])


def unused_people(paths: Iterable[str]) -> list[str]:
    """Folders directly above emotions' folders that may name people, in pictures without faces/.

    Such a layout says nothing of people, so its folders are named to the user and not used. A
    single folder, and one that splits a corpus (train, test), names nobody.

    >>> unused_people(["anna/happy/1.jpg", "ben/sad/1.jpg"]), unused_people(["train/sad/1.jpg"])
    (['anna', 'ben'], [])
    """
    parts = [path.split("/") for path in paths if not labelled_place(path)]
    folders = {p[-3] for p in parts if len(p) > 2 and labels.emotion_of(p[-2])}
    is_split = any(map(SPLIT_FOLDER.match, folders))
    return [] if is_split or len(folders) < 2 else sorted(folders)


def folder_entries(found: list[tuple[str, str]], root: Path) -> list[ClipEntry]:
    """Clips of faces/<label>/… and audio/<label>/…, which may lie inside further folders.

    A folder above or below the label names the subject. Empty where there are no such folders; of
    two files of one path the first is taken. Raises CorpusError on a label that is no emotion.
    """
    places = {path: place for _, path in found if (place := labelled_place(path))}
    roots = {place.above for place in places.values() if labels.emotion_of(place.label)}
    entries: dict[str, ClipEntry] = {}
    for reference, path in found:
        place = places.get(path)
        if place is None or place.above not in roots:
            continue
        kind = media_role(reference, path)
        if kind not in ROLE_KINDS[place.role]:
            continue
        emotion = labels.emotion_of(place.label)
        if not emotion:
            what = f"the folder of {path} has an {labels.unknown_emotion_message(place.label)}"
            raise CorpusError(f"{root}: {printable(what)}. Rename it, or move it out")
        subject, picture = subject_name(place.person), kind == "picture"
        video, audio = (reference, None) if place.role == "faces" else (None, reference)
        clip = printable(path)
        entry = ClipEntry(clip, subject, "", emotion, video=video, audio=audio, crop=picture)
        entries.setdefault(clip, entry)
    return list(entries.values())


def plain_name(text: str) -> str:
    r"""A name as people see it: composed (NFC), without invisible characters, others escaped.

    >>> plain_name("Zoe\u0308\u200b"), plain_name("a\x07")
    ('Zoë', 'a\\x07')
    """
    seen = (c for c in text if unicodedata.category(c) != "Cf")
    return printable(unicodedata.normalize("NFC", "".join(seen))).strip()


def subject_name(text: str) -> str:
    """A subject's name; "" for an unknown one, however a table says so."""
    name = plain_name(text)
    return "" if name.lower() in BLANK_SUBJECTS else name


def is_table(root: Path) -> bool:
    """Whether a source is a table (csv, or any file of text) and no folder or archive."""
    if not root.is_file():
        return False
    if root.suffix.lower() in (".csv", ".tsv", ".txt", ".xls", ".xlsx", ".ods"):
        return True
    return media_files.head_kind(str(root)) == "text"


def is_labelled(path: str) -> bool:
    """Whether a file lies below faces/<emotion>/ or audio/<emotion>/."""
    place = labelled_place(path)
    return place is not None and labels.emotion_of(place.label) != ""


def table_entries(table: Path) -> list[ClipEntry]:
    """Clips of a csv with the columns path, subject, label, clip; audio, sex, intensity, statement.

    The last four columns are optional. Rows of the same clip id are one clip; `path` is a picture,
    a video or a sound, `audio` the sound that goes with it; both are relative to the table. The sex
    of a subject may be given once. Raises CorpusError that names the line.
    """
    clips: dict[str, dict[str, str]] = {}
    missing: dict[str, int] = {}
    for line, row in read_table_rows(str(table), ("path", "subject", "label", "clip")):
        where = f"{table}, line {line}"
        values = _row_values(row, where) | _row_media(row, where, table.parent, line, missing)
        clip = clips.setdefault(plain_name(row["clip"]), {})
        for key, value in values.items():
            if value and clip.setdefault(key, value) != value:
                both = f"two values of {key}: {clip[key]} and {value}"
                message = f"{where}: clip {row['clip']} has {both}; give each clip one"
                raise CorpusError(printable(message))
    if missing:
        first = ", ".join(f"{name} (line {line})" for name, line in list(missing.items())[:5])
        what = f"{len(missing)} files are not there, counted from the table's folder"
        raise CorpusError(printable(f"{table}: {what}: {first}"))
    if not clips:
        header = "write one for each file below the header path,subject,label,clip"
        raise CorpusError(f"{table} has no rows; {header}")
    sexes = {c["subject"]: c["sex"] for c in clips.values() if c.get("subject") and c.get("sex")}
    entries = []
    for name, c in sorted(clips.items()):
        subject, video = c.get("subject", ""), c.get("video")
        picture = video is not None and media_role(video, video) == "picture"
        sex = c.get("sex", sexes.get(subject, ""))
        if sex != sexes.get(subject, sex):
            both = f"subject {subject} is female in one row and male in another"
            raise CorpusError(f"{table}: {both}; give each subject one sex")
        entry = ClipEntry(
            clip=name,
            subject=subject,
            sex=sex,
            emotion=c["label"],
            intensity=c.get("intensity", ""),
            statement=c.get("statement", ""),
            video=video,
            audio=c.get("audio") or (None if picture else video),
            crop=picture,
        )
        entries.append(entry)
    return entries


def _row_values(row: dict[str, str], where: str) -> dict[str, str]:
    """Subject, intensity, statement, label and sex of a row, checked and in our words."""
    emotion, sex = labels.emotion_of(row["label"]), subject_name(row.get("sex", "")).lower()
    if not emotion:
        raise CorpusError(f"{where}: {labels.unknown_emotion_message(row['label'])}")
    if not plain_name(row["clip"]) or not (row["path"] or row.get("audio")):
        empty = "the path" if plain_name(row["clip"]) else "the clip id"
        raise CorpusError(f"{where}: {empty} is empty; each row needs both")
    if sex not in SEX_SYNONYMS:
        what = f"sex is {row['sex']!r}"
        raise CorpusError(f"{where}: {what}; write female or male, or leave it empty")
    plain = {key: plain_name(row.get(key, "")) for key in ("intensity", "statement")}
    plain["subject"] = subject_name(row["subject"])
    return plain | {"label": emotion, "sex": SEX_SYNONYMS[sex]}


def _row_media(
    row: dict[str, str], where: str, folder: Path, line: int, missing: dict[str, int]
) -> dict[str, str]:
    """{"video" or "audio": file} of a row; files that are not there go to `missing`."""
    media = {}
    for column in ("path", "audio"):
        name = row.get(column)
        if not name:
            continue
        try:
            file = media_files.find_file(folder, name)
        except OSError as e:
            what = f"{name} cannot be looked up ({e.strerror}); allow it"
            raise CorpusError(f"{where}: {what}") from e
        if file is None:
            missing.setdefault(name, line)
        kind = media_role(file, name) if file else media_files.media_kind(name)[0]
        if not kind or (column == "audio" and kind == "picture"):
            kinds = [k for k in MEDIA_EXTENSIONS if column == "path" or k != "picture"]
            endings = " ".join(e for k in kinds for e in MEDIA_EXTENSIONS[k])
            what = f"{printable(name)} is no {column} that can be read"
            raise CorpusError(f"{where}: {what}; files end in {endings}")
        media["audio" if kind == "audio" or column == "audio" else "video"] = file or name
    return media


def read_table_rows(reference: str, needed: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a table that are not empty, with their line numbers.

    Column names are lower case; fields are separated by comma, semicolon or tab. Raises CorpusError
    that names the file where it is not UTF-8 or UTF-16 text, or lacks a needed column.
    """
    reader = files.read_delimited(_read_text(reference))
    try:
        lines = [(reader.line_num, [value.strip() for value in row]) for row in reader]
        while lines and not any(lines[0][1]):  # empty lines before the header
            del lines[0]
    except csv.Error as e:
        where = f"{reference}, line {reader.line_num}"
        raise CorpusError(f"{where}: {e}; save it as 'CSV UTF-8' again") from e
    columns = [c.lower() for c in (lines[0][1] if lines else [])]
    columns = ["clip" if c in ("clip id", "clip_id", "clip-id") else c for c in columns]
    if lacking := [c for c in needed if c not in columns]:
        what = f"{reference} has no column {' nor '.join(lacking)}"
        raise CorpusError(f"{what}; its first line must name {', '.join(needed)}")
    if twice := [c for c in needed if columns.count(c) > 1]:
        raise CorpusError(f"{reference} has two columns {twice[0]}; remove one")
    rows, filled = [], [values for _, values in lines[1:] if any(values)]
    is_longer = all(len(values) == len(columns) + 1 for values in filled)
    if is_longer and len({v[0] for v in filled if v[0].isdigit()}) == len(filled):
        columns = ["", *columns]  # R's row names have no header
    for number, values in lines[1:]:
        if any(values[len(columns) :]):
            what = "more fields than the header; put fields that hold the separator in quotes"
            raise CorpusError(f"{reference}, line {number}: {what}")
        if any(values):
            padded = values + [""] * (len(columns) - len(values))
            rows.append((number, dict(zip(columns, padded, strict=False))))
    return rows


def _read_text(reference: str) -> str:
    try:
        text = files.decode_text(reference, media_files.read_content(reference))
    except files.UserError as e:
        raise CorpusError(str(e)) from e
    if text.startswith("version https://git-lfs"):
        what = f"{reference} is a git-lfs pointer, not the table"
        raise CorpusError(f"{what}; in its folder run: git lfs pull")
    return text
