"""§4.1: the index of a corpus in any form on disk: clip, subject, sex, emotion, votes, media.

Forms: CREMA-D (git checkout, mirror, or any folders of its files), RAVDESS (the published zips,
unpacked or not), labelled face folders (FER2013's form: …/<emotion>/<image>), demo clips, and own
data. The index is made from names; only files whose ending is unknown are opened, as their first
bytes say whether they are media.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.data import labels
from core.data.corpora import (
    CREMA_WOMEN,
    EXPECTED_FILES,
    NAME_PATTERNS,
    RAVDESS_CODES,
    RAVDESS_STATEMENTS,
    ClipEntry,
    CorpusError,
)
from core.data.sources import media_files, own_data
from core.data.sources.media_files import file_stem, media_kind
from core.files import printable
from core.media.containers import UnreadableError

NO_PERSON = (  # of a folder that may name a person
    "a folder above emotions', taken for no person; if it is one, put all into a folder faces, as "
    "in faces/<person>/<emotion>/<image>.jpg"
)
SAME_PATH = "another file of the same path is taken"  # such as an unpacked zip beside the zip


@dataclass(frozen=True)
class CorpusIndex:
    """The clips of a corpus, and the files below its root that belong to none of them."""

    entries: list[ClipEntry]  # sorted by clip id
    passed_over: dict[str, str]  # path inside the root -> why it is not read


def index_clips(name: str, root: Path, song: bool = False) -> list[ClipEntry]:
    """Every usable clip of the corpus `name` below `root`, sorted by clip id (`index_corpus`)."""
    return index_corpus(name, root, song).entries


def index_corpus(name: str, root: Path, song: bool = False) -> CorpusIndex:
    """The clips of the corpus `name` below `root`, and the files that are passed over.

    `root` is a folder, a zip, or the csv table of own data; a name that is not in KNOWN_CORPORA
    means own data. RAVDESS' songs are left out unless `song`. Files with other names are left out;
    several copies of a clip count once. Raises CorpusError, which says which files were expected
    where, or what is wrong with the table.
    """
    media_files.check_source(root, f"give the folder, zip or table of {name} with --source")
    official = name in EXPECTED_FILES
    if own_data.is_table(root):
        if official:
            what = f"{root} is a table, and {name} is read from files like {EXPECTED_FILES[name]}"
            raise CorpusError(f"{what}. Unpack or convert it so; a table of your own needs a name")
        return CorpusIndex(own_data.table_entries(root), {})
    passed_over: dict[str, str] = {}
    found = media_files.list_files(root, passed_over, skip_broken=not official)
    if name == "ravdess":
        entries = _ravdess_entries(found, song)
    elif name == "crema-d":
        entries = _crema_entries(found)
    elif name == "demo-clips":
        entries = _demo_entries(found)
    else:
        entries = own_data.folder_entries(found, root) if not official else []
        entries = entries or _face_folder_entries(found, official=official)
    if not entries:
        raise CorpusError(_no_clip_message(name, root, found, passed_over))
    entries.sort(key=lambda e: e.clip)
    passed_over |= _passed_over(name, found, entries)
    if not any(e.subject for e in entries):
        people = own_data.unused_people(path for _, path in found)
        passed_over |= {printable(f"{folder}/"): NO_PERSON for folder in people}
    return CorpusIndex(entries, passed_over)


def _no_clip_message(
    name: str, root: Path, found: list[tuple[str, str]], passed_over: dict[str, str]
) -> str:
    """What `root` should hold, and what it holds instead."""
    if any(p in ("xl/workbook.xml", "word/document.xml", "content.xml") for _, p in found):
        return f"{root} is a spreadsheet or a document; save the table as 'CSV UTF-8' and give that"
    own = "faces/<emotion>/<image>.jpg and audio/<emotion>/<sound>.wav, or a csv table, "
    own += f"with emotion one of {', '.join(labels.EMOTIONS)}"
    inside = [p for _, p in found if p.lower().endswith(".zip")]
    fix = f". It holds {inside[0]} inside a zip: unpack the outer one" if inside else ""
    folders = dict.fromkeys(PurePosixPath(p).parent.name for _, p in found)
    if not fix and (right := [f for f in folders if labels.emotion_of(f)]):
        fix = f". Its folder {right[0]} is an emotion's: put it into a folder faces or audio, and"
        fix += " the people's folders into it"
    elif not fix and (misspelt := [f for f in folders if labels.similar_emotion(f)]):
        fix = f". Its folder {misspelt[0]} may mean {labels.similar_emotion(misspelt[0])}"
    fix += "".join(f". Its {path} is {reason}" for path, reason in list(passed_over.items())[:3])
    endings = Counter(PurePosixPath(p).suffix.lower() or "without ending" for _, p in found)
    held = ", ".join(f"{n:,} {ending}" for ending, n in endings.most_common(5))
    held = f" (its files: {held})" if held else " (it holds no file)"
    expected = f"expected files like {EXPECTED_FILES.get(name, own)}"
    return printable(f"{root} holds no clip of {name}{held}; {expected}{fix}")


def _passed_over(
    name: str, found: list[tuple[str, str]], entries: list[ClipEntry]
) -> dict[str, str]:
    """Path inside the root -> why no clip is made of that file, for all files that are not used."""
    used = {r for e in entries for r in (e.video, e.audio)}
    tables = ("VideoDemographics.csv", "summaryTable.csv") if name == "crema-d" else ()
    rest = [(r, p) for r, p in found if r not in used and PurePosixPath(p).name not in tables]
    clips, reasons = {e.clip for e in entries}, {}
    for reference, path in rest:
        shown = printable(path)
        if shown in clips:
            shown, reason = f"{shown} of {media_files.split_reference(reference)[0]}", SAME_PATH
        else:
            reason = _why_passed_over(name, reference, path)
        reasons[printable(shown)] = reason
    return reasons


def _why_passed_over(name: str, reference: str, path: str) -> str:
    try:
        role = media_files.media_role(reference, path)
    except UnreadableError as e:
        return str(e)
    if not role:
        inner = "a zip inside a zip: unpack the outer one"
        return inner if path.lower().endswith(".zip") else media_files.NO_MEDIUM
    if name in NAME_PATTERNS:
        match = NAME_PATTERNS[name].match(file_stem(path))
        if role == "picture" or not match:
            return f"not named as the files of {name}"
        is_song = name == "ravdess" and match[2] == "02"
        return "a song" if is_song else "another copy or form of a clip that is taken"
    folder = PurePosixPath(path).parent.name
    if not labels.emotion_of(folder) and not own_data.is_labelled(path):
        similar = labels.similar_emotion(folder)
        hint = f"; rename it if it means {similar}" if similar else ""
        return printable(f"its folder {folder or '.'} names no emotion{hint}")
    if role != "picture":
        word, where = ("video", "faces") if role == "video" else ("sound", "audio")
        return f"a {word}; own {word}s lie in {where}/<emotion>/"
    return "a picture outside of faces/<emotion>/, or a copy of one that is taken"


def _ravdess_entries(found: list[tuple[str, str]], song: bool) -> list[ClipEntry]:
    # A performance's code, which is its file name without the modality -> {(modality, kind): file}
    performances: dict[str, dict[tuple[str, str], str]] = {}
    for reference, path in found:
        stem, kind = file_stem(path), media_kind(path)[0]
        match = NAME_PATTERNS["ravdess"].match(stem)
        if match and kind in ("video", "audio") and (match[2] == "01" or song):  # 02 is song
            performances.setdefault(stem[3:], {}).setdefault((match[1], kind), reference)
    entries = []
    for code, media in performances.items():
        channel, emotion, intensity, statement, _, actor = code.split("-")
        film = media.get(("01", "video"))  # with sound; modality 02 is the same film without
        entry = ClipEntry(
            clip="ravdess-" + code if channel == "01" else "ravdess-song-" + code[3:],
            subject=f"ravdess-{actor}",
            sex="male" if int(actor) % 2 else "female",
            emotion=RAVDESS_CODES[int(emotion) - 1],
            intensity={"01": "normal", "02": "strong"}[intensity],
            statement=RAVDESS_STATEMENTS[statement],
            video=film or media.get(("02", "video")),
            audio=media.get(("03", "audio")) or media.get(("01", "audio")) or film,
        )
        entries.append(entry)
    return [e for e in entries if e.video or e.audio]


def _crema_entries(found: list[tuple[str, str]]) -> list[ClipEntry]:
    clips: dict[str, dict[str, tuple[int, str]]] = {}  # clip -> {kind: (rank, file)}
    tables: dict[str, str] = {}
    for reference, path in found:
        stem, (kind, rank) = file_stem(path), media_kind(path)
        if path.endswith(".csv"):
            tables.setdefault(PurePosixPath(path).name, reference)
        match = NAME_PATTERNS["crema-d"].match(stem)
        if match and kind in ("video", "audio"):
            media = clips.setdefault(_full_crema_name(stem), {})
            if kind not in media or rank < media[kind][0]:
                media[kind] = rank, reference
    sexes, votes = _crema_sexes(tables), _crema_votes(tables)
    entries = []
    for clip, media in clips.items():
        actor, statement, emotion, intensity = clip.split("_")
        sex = "male" if "1001" <= actor <= "1091" else ""
        video = media["video"][1] if "video" in media else None
        entry = ClipEntry(
            clip="crema-" + clip,
            subject=f"crema-{actor}",
            sex=sexes.get(actor) or ("female" if actor in CREMA_WOMEN else sex),
            emotion=labels.emotion_of(emotion),
            intensity=intensity,
            statement=statement,
            video=video,
            audio=media["audio"][1] if "audio" in media else video,
            votes=votes.get(clip, ("", "", "")),
        )
        entries.append(entry)
    return entries


def _full_crema_name(stem: str) -> str:
    """A clip's official name; old copies of CREMA-D write one X for XX."""
    match = NAME_PATTERNS["crema-d"].match(stem)
    return stem + "X" * bool(match and match[4] == "X")


def _crema_sexes(tables: dict[str, str]) -> dict[str, str]:
    if "VideoDemographics.csv" not in tables:
        return {}
    rows = own_data.read_table_rows(tables["VideoDemographics.csv"], ("actorid", "sex"))
    return {row["actorid"]: own_data.SEX_SYNONYMS.get(row["sex"].lower(), "") for _, row in rows}


def _crema_votes(tables: dict[str, str]) -> dict[str, tuple[str, str, str]]:
    """Clip -> majority votes of raters who heard it, saw it, did both; also of absent clips."""
    if "summaryTable.csv" not in tables:
        return {}
    table, columns = tables["summaryTable.csv"], ("voicevote", "facevote", "multimodalvote")
    votes = {}
    for line, row in own_data.read_table_rows(table, ("filename", *columns)):
        try:
            voice, face, both = (labels.parse_vote(row[c]) for c in columns)
        except ValueError as e:
            message = f"{table}, line {line}: {e}; take the file from CREMA-D again"
            raise CorpusError(message) from e
        votes[_full_crema_name(row["filename"])] = (voice, face, both)
    return votes


def _demo_entries(found: list[tuple[str, str]]) -> list[ClipEntry]:
    films, sounds = (
        {file_stem(p): reference for reference, p in reversed(found) if p.lower().endswith(ending)}
        for ending in (".mp4", ".wav")
    )
    entries = []
    for clip in films | sounds:
        if match := NAME_PATTERNS["demo-clips"].match(clip):
            sex, emotion = "male" if int(match[1]) % 2 else "female", labels.emotion_of(match[2])
            video = films.get(clip)
            audio = sounds.get(clip, video)
            entries.append(
                ClipEntry(clip, f"demo-{match[1]}", sex, emotion, video=video, audio=audio)
            )
    return entries


def _face_folder_entries(found: list[tuple[str, str]], official: bool) -> list[ClipEntry]:
    """Pictures in folders named by emotions.

    Two official files of one name are one picture; two own files may be different ones.
    """
    entries: dict[str, ClipEntry] = {}
    for reference, path in found:
        parts = PurePosixPath(path).parts
        emotion = labels.emotion_of(parts[-2]) if len(parts) > 1 else ""
        if emotion and media_files.media_role(reference, path) == "picture":
            clip = printable("/".join(parts[-3:]))
            clip = printable(path) if clip in entries and not official else clip
            entries.setdefault(clip, ClipEntry(clip, "", "", emotion, video=reference, crop=True))
    return list(entries.values())
