"""§4.1: what stands in a corpus, in one index whatever its form on disk: clip id, subject, sex, emotion, votes, media.

Forms: CREMA-D (git checkout, mirror, or any folders of its files), RAVDESS (the published zips, unpacked or not), labelled face folders
(FER2013's form: …/<emotion>/<image>), own data (faces/<label>/… and audio/<label>/…, or a table of clips), and the invented demo corpus,
which needs no media at all. An index is made of names only: no media file is opened, so git-lfs pointers are listed as if they were media.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core import files
from core.data import labels

RAVDESS_CODES = (
    "neutral",
    "calm",
    "happy",
    "sad",
    "angry",
    "fear",
    "disgust",
    "surprise",
)  # 01..08, Livingstone & Russo 2018
RAVDESS_STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
CREMA_NAME = re.compile(r"^(10\d\d)_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX|X)$")
CREMA_WOMEN = frozenset(  # VideoDemographics.csv; copies without that file must fall into the same sets S1-S4
    f"10{n:02d}" for n in (2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 18, 20, 21, 24, 25, 28, 29, 30, 37, 43, 46, 47, 49, 52, 53, 54, 55, 56, 58, 60,
                           61, 63, 72, 73, 74, 75, 76, 78, 79, 82, 84, 89, 91)
)  # fmt: skip
DEMO_NAME = re.compile(r"^demo_(\d\d)_(ANG|DIS|FEA|HAP|NEU|SAD)_(\d\d)$")
RAVDESS_NAME = re.compile(r"^(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-([01]\d|2[0-4])$")
MEDIA_EXTENSIONS = {  # by what its name ends in; content is looked at when a file is read
    "picture": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    "video": (
        ".flv",
        ".mp4",
        ".mov",
        ".m4v",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".ogv",
    ),
    "audio": (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg"),
}  # of two files of one clip CREMA-D takes that with the earlier ending: the official flv and wav before what was made of them
SEX_SYNONYMS = {
    "f": "female",
    "female": "female",
    "w": "female",
    "woman": "female",
    "m": "male",
    "male": "male",
    "man": "male",
    "": "",
}


class CorpusError(files.UserError):
    """A corpus that cannot be read; the message names the folder and what it should hold."""


@dataclass(frozen=True)
class ClipEntry:
    """One clip of a corpus. Media are 'path' or 'archive.zip!member'."""

    clip: str
    subject: str  # "" where unknown
    sex: str  # "female", "male" or "" where unknown
    emotion: str  # of config.EMOTIONS: what the clip was meant to show
    intensity: str = ""
    statement: str = ""
    video: str | None = None
    audio: str | None = None
    crop: bool = False  # `video` is a picture and not a film
    votes: tuple[str, str, str] = (
        "",
        "",
        "",
    )  # raters' emotion of voice, face, both; a tie is "angry|disgust", no vote ""


@dataclass(frozen=True)
class Corpus:
    """What is known of a corpus before looking: its dB reference (fixed, see `LogMel.range_db`) and its terms."""

    name: str
    title: str
    ref_db: float  # dB of log-mel power that is drawn as 1
    licence: str
    source: str


KNOWN_CORPORA = {
    "demo": Corpus(
        "demo",
        "Demo corpus (invented faces and voices)",
        10.0,
        "MIT, drawn and synthesised by this project",
        "core/demo.py",
    ),
    "demo-clips": Corpus(
        "demo-clips",
        "Demo clips (invented), through video and sound files",
        10.0,
        "MIT",
        "python -m core data draw",
    ),
    "ravdess": Corpus(
        "ravdess",
        "RAVDESS speech",
        5.0,
        "CC BY-NC-SA 4.0",
        "Livingstone & Russo 2018, Zenodo record 1188976",
    ),
    "crema-d": Corpus(
        "crema-d",
        "CREMA-D",
        5.0,
        "ODbL 1.0 / DbCL 1.0",
        "Cao et al. 2014, GitHub CheyneyComputerScience/CREMA-D",
    ),
    "fer2013": Corpus(
        "fer2013",
        "FER2013 faces",
        0.0,
        "public challenge data, research use",
        "Goodfellow et al. 2013",
    ),
}
EXPECTED_FILES = {
    "crema-d": "VideoFlash/1001_DFA_ANG_XX.flv and AudioWAV/1001_DFA_ANG_XX.wav",
    "demo-clips": "demo_01_ANG_00.mp4 and demo_01_ANG_00.wav; python -m core data draw writes them",
    "ravdess": "Actor_01/03-01-01-01-01-01-01.wav or the published zips",
    "fer2013": "train/<emotion>/<image>.jpg",
}


def index_clips(name: str, root: Path, song: bool = False) -> list[ClipEntry]:
    """Every usable clip of the corpus `name` below `root` (a folder, a zip, or the csv table of own data), sorted by clip id.

    Names not in KNOWN are own data. RAVDESS' songs are left out unless `song`. Files with odd names are left out; a clip that lies there
    in several copies counts once. Raises CorpusError that says what was expected where, or what is wrong with the table.
    """
    if not root.exists():
        raise CorpusError(f"{root} does not exist; give the folder or zip of {name} with --source")
    if name not in EXPECTED_FILES and root.suffix.lower() == ".csv":
        return _own_table_entries(root)
    found = _scan_files(root)
    if name == "ravdess":
        entries = _ravdess_entries(found, song)
    elif name == "crema-d":
        entries = _crema_entries(found)
    elif name == "demo-clips":
        entries = _demo_entries(found)
    else:
        entries = _own_folder_entries(found, root) if name not in EXPECTED_FILES else []
        entries = entries or _face_folder_entries(found, official=name in EXPECTED_FILES)
    if not entries:
        own = "faces/<emotion>/<image>.jpg and audio/<emotion>/<sound>.wav, or a csv table, with emotion one of "
        inside = [p for _, p in found if p.lower().endswith(".zip")]
        fix = f". It holds {inside[0]} inside a zip: unpack the outer one" if inside else ""
        raise CorpusError(
            f"{root} holds no clip of {name}; expected files like {EXPECTED_FILES.get(name) or own + ', '.join(labels.EMOTIONS)}{fix}"
        )
    return sorted(entries, key=lambda e: e.clip)


# ------------------------------------------------------------------ files and members of zips, by name


def list_files(root: Path) -> list[str]:
    """All files below a folder, in zips that lie there too, or all members of a zip, as media references 'path' or 'archive.zip!member'.

    Plain files come before members of zips, shallow before deep, then by name: of several copies the first is the one to read. Hidden files
    and folders (.git with its git-lfs objects) and __MACOSX are passed over. Raises CorpusError where a folder or zip cannot be read.
    """
    return [reference for reference, _ in _scan_files(root)]


def _scan_files(root: Path) -> list[tuple[str, str]]:
    """`list_files`, each with its path inside the corpus; a zip's members are as if it were unpacked into a folder of its name."""
    if root.is_file():
        return sorted(_list_members(str(root), ""), key=_sort_key)
    plain, packed = [], []
    seen = set()  # of folders, so that links in a circle end
    todo = [(str(root), "")]
    for folder, inside in todo:  # grows as it goes
        try:
            state = os.stat(folder)
            with os.scandir(folder) as scan:
                items = (
                    []
                    if (state.st_dev, state.st_ino) in seen
                    else sorted(scan, key=lambda item: item.name)
                )
        except OSError as e:
            raise CorpusError(
                f"{folder} cannot be read ({e.strerror}); allow it, or move it out of {root}"
            ) from e
        seen.add((state.st_dev, state.st_ino))
        for item in items:
            if _is_ignored(item.name):
                continue
            path = inside + item.name
            with contextlib.suppress(OSError):  # a link that leads nowhere is no file
                if item.is_dir():
                    todo.append((item.path, path + "/"))
                elif item.is_file():
                    plain.append((item.path, path))
    archives = [(file, path) for file, path in plain if path.lower().endswith(".zip")]
    for file, path in archives:
        packed += _list_members(file, path[:-4] + "/")
    return sorted(set(plain) - set(archives), key=_sort_key) + sorted(packed, key=_sort_key)


def _is_ignored(name: str) -> bool:
    return name == "__MACOSX" or (name.startswith(".") and name not in (".", ".."))


def _sort_key(found: tuple[str, str]) -> tuple[int, str, str]:
    return found[1].count("/"), found[1], found[0]


def _list_members(archive: str, inside: str) -> list[tuple[str, str]]:
    try:
        with zipfile.ZipFile(archive) as z:
            names = [n for n in z.namelist() if not n.endswith("/")]
    except (zipfile.BadZipFile, OSError) as e:
        raise CorpusError(
            f"{archive} is not a zip archive or is damaged ({e}); download it again"
        ) from e
    pairs = [(f"{archive}!{n}", n.replace("\\", "/").removeprefix("./")) for n in names]
    return [(r, inside + p) for r, p in pairs if not any(map(_is_ignored, p.split("/")))]


@contextlib.contextmanager
def media_file(reference: str) -> Iterator[Path]:
    """The file behind a media reference; a member of a zip is unpacked to a temporary file for as long as it is needed."""
    archive, member = split_reference(reference)
    if not member:
        yield Path(reference)
        return
    with tempfile.TemporaryDirectory() as d:
        path = Path(d) / ("media" + Path(member).suffix)
        path.write_bytes(_open_archive(archive, Path(archive).stat().st_mtime_ns).read(member))
        yield path


def split_reference(reference: str) -> tuple[str, str]:
    """(archive, member) of a reference, (path, "") of a plain file; names of folders and files may hold '!' themselves."""
    at = reference.find("!")
    while at >= 0:
        if os.path.isfile(reference[:at]):
            return reference[:at], reference[at + 1 :]
        at = reference.find("!", at + 1)
    return reference, ""


@functools.lru_cache(maxsize=64)  # RAVDESS is 48 zips and its clips are read across them
def _open_archive(path: str, mtime: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(
        path
    )  # kept open: its directory of thousands of members is read once; reading is thread-safe


def _media_kind(path: str) -> tuple[str, int]:
    """What a file is by its name, and its place among its like; ("", 0) for what is no medium."""
    suffix = os.path.splitext(path)[1].lower()
    return next(
        (
            (kind, endings.index(suffix))
            for kind, endings in MEDIA_EXTENSIONS.items()
            if suffix in endings
        ),
        ("", 0),
    )


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


# ------------------------------------------------------------------ official corpora


def _ravdess_entries(found: list[tuple[str, str]], song: bool) -> list[ClipEntry]:
    performances: dict[
        str, dict[tuple[str, str], str]
    ] = {}  # code without its modality -> {(modality, kind): file}
    for reference, path in found:
        stem, kind = _stem(path), _media_kind(path)[0]
        match = RAVDESS_NAME.match(stem)
        if (
            match and kind in ("video", "audio") and (match[2] == "01" or song)
        ):  # channel 01: speech, 02: song
            performances.setdefault(stem[3:], {}).setdefault((match[1], kind), reference)
    entries = []
    for code, media in performances.items():
        channel, emotion, intensity, statement, _, actor = code.split("-")
        film = media.get(("01", "video"))  # with sound; 02 is the same without
        entries.append(
            ClipEntry(
                clip="ravdess-" + code if channel == "01" else "ravdess-song-" + code[3:],
                subject=f"ravdess-{actor}",
                sex="male" if int(actor) % 2 else "female",
                emotion=RAVDESS_CODES[int(emotion) - 1],
                intensity={"01": "normal", "02": "strong"}[intensity],
                statement=RAVDESS_STATEMENTS[statement],
                video=film or media.get(("02", "video")),
                audio=media.get(("03", "audio")) or media.get(("01", "audio")) or film,
            )
        )
    return [e for e in entries if e.video or e.audio]


def _crema_entries(found: list[tuple[str, str]]) -> list[ClipEntry]:
    clips: dict[str, dict[str, tuple[int, str]]] = {}  # clip -> {kind: (place, file)}
    tables: dict[str, str] = {}
    for reference, path in found:
        if path.endswith(".csv"):
            tables.setdefault(os.path.basename(path), reference)
        match, (kind, place) = CREMA_NAME.match(_stem(path)), _media_kind(path)
        if match and kind in ("video", "audio"):
            clip = _stem(path) + "X" * (match[4] == "X")  # an old copy writes one X for XX
            media = clips.setdefault(clip, {})
            if kind not in media or place < media[kind][0]:
                media[kind] = place, reference
    sexes, votes = _crema_sexes(tables), _crema_votes(tables)
    entries = []
    for clip, media in clips.items():
        actor, statement, emotion, intensity = clip.split("_")
        video = media["video"][1] if "video" in media else None
        entries.append(
            ClipEntry(
                clip="crema-" + clip,
                subject=f"crema-{actor}",
                sex=sexes.get(actor)
                or (
                    "female"
                    if actor in CREMA_WOMEN
                    else "male"
                    if "1001" <= actor <= "1091"
                    else ""
                ),
                emotion=labels.emotion_of(emotion),
                intensity=intensity,
                statement=statement,
                video=video,
                audio=media["audio"][1] if "audio" in media else video,
                votes=votes.get(clip, ("", "", "")),
            )
        )
    return entries


def _crema_sexes(tables: dict[str, str]) -> dict[str, str]:
    if "VideoDemographics.csv" not in tables:
        return {}
    rows = _read_table_rows(tables["VideoDemographics.csv"], ("actorid", "sex"))
    return {row["actorid"]: SEX_SYNONYMS.get(row["sex"].lower(), "") for _, row in rows}


def _crema_votes(tables: dict[str, str]) -> dict[str, tuple[str, str, str]]:
    """What most raters heard, saw, and heard and saw, by clip; of the clips that the table names, not all need be there."""
    if "summaryTable.csv" not in tables:
        return {}
    votes = {}
    columns = ("voicevote", "facevote", "multimodalvote")
    for line, row in _read_table_rows(tables["summaryTable.csv"], ("filename", *columns)):
        match = CREMA_NAME.match(row["filename"])
        try:
            voice, face, both = (labels.parse_vote(row[c]) for c in columns)
        except ValueError as e:
            raise CorpusError(
                f"{tables['summaryTable.csv']}, line {line}: {e}; take the file from CREMA-D again"
            ) from e
        votes[row["filename"] + "X" * bool(match and match[4] == "X")] = (voice, face, both)
    return votes


def _demo_entries(found: list[tuple[str, str]]) -> list[ClipEntry]:
    films = {
        _stem(path): reference
        for reference, path in reversed(found)
        if path.lower().endswith(".mp4")
    }
    sounds = {
        _stem(path): reference
        for reference, path in reversed(found)
        if path.lower().endswith(".wav")
    }
    entries = []
    for clip, video in films.items():
        if match := DEMO_NAME.match(clip):
            sex = "male" if int(match[1]) % 2 else "female"
            entries.append(
                ClipEntry(
                    clip,
                    f"demo-{match[1]}",
                    sex,
                    labels.emotion_of(match[2]),
                    video=video,
                    audio=sounds.get(clip, video),
                )
            )
    return entries


def _face_folder_entries(found: list[tuple[str, str]], official: bool) -> list[ClipEntry]:
    """Pictures in folders named for emotions. The same official name is the same picture; of own ones that is not known."""
    entries: dict[str, ClipEntry] = {}
    for reference, path in found:
        parts = PurePosixPath(path).parts
        emotion = labels.emotion_of(parts[-2]) if len(parts) > 1 else ""
        if emotion and _media_kind(path)[0] == "picture":
            clip = "/".join(parts[-3:])
            clip = path if clip in entries and not official else clip
            entries.setdefault(
                clip,
                ClipEntry(clip, subject="", sex="", emotion=emotion, video=reference, crop=True),
            )
    return list(entries.values())


# ------------------------------------------------------------------ own data


def _own_folder_entries(found: list[tuple[str, str]], root: Path) -> list[ClipEntry]:
    """faces/<label>/… and audio/<label>/…, perhaps in one folder more; a folder between label and file names the subject.

    Empty where there are no such folders. Raises CorpusError on a label that is no emotion.
    """
    depths = [
        d
        for d in (0, 1)
        if any(_label_at(path, d) and labels.emotion_of(_label_at(path, d)) for _, path in found)
    ]
    if not depths:
        return []
    entries = []
    for reference, path in found:
        kind, label = _media_kind(path)[0], _label_at(path, depths[0])
        role = path.split("/")[depths[0]].lower() if label else ""
        if kind not in {"faces": ("picture", "video"), "audio": ("audio", "video")}.get(role, ()):
            continue
        emotion = labels.emotion_of(label)
        if not emotion:
            raise CorpusError(
                f"{root}: the folder of {path} has an {labels.unknown_emotion_message(label)}. Rename it, or move it out"
            )
        rest = path.split("/")[depths[0] + 2 :]
        video, audio = (reference, None) if role == "faces" else (None, reference)
        subject = rest[0] if len(rest) > 1 else ""
        entries.append(
            ClipEntry(path, subject, "", emotion, video=video, audio=audio, crop=kind == "picture")
        )
    return entries


def _label_at(path: str, depth: int) -> str:
    """The folder below faces/ or audio/, where that stands at `depth`; "" elsewhere."""
    parts = path.split("/")
    return (
        parts[depth + 1]
        if len(parts) > depth + 2 and parts[depth].lower() in ("faces", "audio")
        else ""
    )


def _own_table_entries(root: Path) -> list[ClipEntry]:
    """A csv with the columns path, subject, label and clip, perhaps audio, sex, intensity and statement.

    Rows of the same clip id are one clip; `path` is a picture, a video or a sound, `audio` the sound that goes with it; both are relative
    to the table. Raises CorpusError that names the line.
    """
    clips: dict[str, dict[str, str]] = {}
    missing: dict[str, int] = {}
    for line, row in _read_table_rows(str(root), ("path", "subject", "label", "clip")):
        where, emotion = f"{root}, line {line}", labels.emotion_of(row["label"])
        given = {key: row.get(key, "") for key in ("subject", "intensity", "statement")} | {
            "label": emotion
        }
        if not emotion:
            raise CorpusError(f"{where}: {labels.unknown_emotion_message(row['label'])}")
        if not row["clip"] or not (row["path"] or row.get("audio")):
            raise CorpusError(
                f"{where}: {'the path' if row['clip'] else 'the clip id'} is empty; each row needs both"
            )
        if row.get("sex", "").lower() not in SEX_SYNONYMS:
            raise CorpusError(
                f"{where}: sex is {row['sex']!r}; write female or male, or leave it empty"
            )
        given["sex"] = SEX_SYNONYMS[row.get("sex", "").lower()]
        for column in ("path", "audio"):
            if name := row.get(column):
                kind = _media_kind(name)[0]
                if not kind or (column == "audio" and kind == "picture"):
                    endings = " ".join(
                        e
                        for k, v in MEDIA_EXTENSIONS.items()
                        if column == "path" or k != "picture"
                        for e in v
                    )
                    raise CorpusError(
                        f"{where}: {name} is no {column} that can be read; files end in {endings}"
                    )
                file = str(root.parent / name)
                if not os.path.isfile(file):
                    file = file.replace("\\", "/")  # as Windows writes paths
                    if not os.path.isfile(file):
                        missing.setdefault(name, line)
                given["audio" if kind == "audio" or column == "audio" else "video"] = file
        known = clips.setdefault(row["clip"], {})
        for key, value in given.items():
            if value and known.setdefault(key, value) != value:
                raise CorpusError(
                    f"{where}: clip {row['clip']} has two values of {key}: {known[key]} and {value}; give each clip one"
                )
    if missing:
        first = ", ".join(f"{name} (line {line})" for name, line in list(missing.items())[:5])
        raise CorpusError(
            f"{root}: {len(missing)} files are not there, counted from the table's folder: {first}"
        )
    sexes = {c["subject"]: c["sex"] for c in clips.values() if c.get("subject") and c.get("sex")}
    entries = []
    for clip, c in clips.items():
        subject, video, picture = (
            c.get("subject", ""),
            c.get("video"),
            _media_kind(c.get("video", ""))[0] == "picture",
        )
        sex = c.get("sex", sexes.get(subject, ""))  # said once, it holds for all clips of a subject
        if sex != sexes.get(subject, sex):
            raise CorpusError(
                f"{root}: subject {subject} is female in one row and male in another; give each subject one sex"
            )
        audio = c.get("audio") or (None if picture else video)
        entries.append(
            ClipEntry(
                clip,
                subject,
                sex,
                c["label"],
                c.get("intensity", ""),
                c.get("statement", ""),
                video=video,
                audio=audio,
                crop=picture,
            )
        )
    if not entries:
        raise CorpusError(
            f"{root} has no rows; write one for each file below the header path,subject,label,clip"
        )
    return sorted(entries, key=lambda e: e.clip)


def _read_table_rows(reference: str, needed: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """A table's rows that are not empty, with their line numbers; columns in lower case, separated by comma, semicolon or tab.

    Raises CorpusError that names the file where it is no such text or lacks a needed column.
    """
    with media_file(reference) as path:
        data = path.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as e:
        raise CorpusError(
            f"{reference} is not UTF-8 text ({e.reason} at byte {e.start}); save it as 'CSV UTF-8'"
        ) from e
    if text.startswith("version https://git-lfs"):
        raise CorpusError(
            f"{reference} is a git-lfs pointer, not the table; in its folder run: git lfs pull"
        )
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    try:
        lines = [(reader.line_num, [value.strip() for value in row]) for row in reader]
    except csv.Error as e:
        raise CorpusError(
            f"{reference}, line {reader.line_num}: {e}; save it as 'CSV UTF-8' again"
        ) from e
    columns = [
        "clip" if c.lower() in ("clip id", "clip_id", "clip-id") else c.lower()
        for c in (lines or [(0, [])])[0][1]
    ]
    if lacking := [c for c in needed if c not in columns]:
        raise CorpusError(
            f"{reference} has no column {' nor '.join(lacking)}; its first line must name {', '.join(needed)}"
        )
    if twice := [c for c in needed if columns.count(c) > 1]:
        raise CorpusError(f"{reference} has two columns {twice[0]}; remove one")
    rows = []
    for number, values in lines[1:]:
        if len(values) > len(columns) and any(values[len(columns) :]):
            raise CorpusError(
                f"{reference}, line {number}: more fields than the header; put fields that hold the separator in quotes"
            )
        if any(values):
            rows.append(
                (
                    number,
                    dict(zip(columns, values + [""] * (len(columns) - len(values)), strict=False)),
                )
            )
    return rows
