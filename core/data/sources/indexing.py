"""§4.1: the index of a corpus in any form on disk: clip, subject, sex, emotion, votes, media.

Forms: CREMA-D (git checkout, mirror, or any folders of its files), RAVDESS (the published zips,
unpacked or not), labelled face folders (FER2013's form: …/<emotion>/<image>), demo clips, and own
data. The index is made from names only; no media file is opened.
"""

from __future__ import annotations

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


def index_clips(name: str, root: Path, song: bool = False) -> list[ClipEntry]:
    """Every usable clip of the corpus `name` below `root`, sorted by clip id.

    `root` is a folder, a zip, or the csv table of own data; a name that is not in KNOWN_CORPORA
    means own data. RAVDESS' songs are left out unless `song`. Files with other names are left out;
    several copies of a clip count once. Raises CorpusError, which says which files were expected
    where, or what is wrong with the table.
    """
    if not root.exists():
        raise CorpusError(f"{root} does not exist; give the folder or zip of {name} with --source")
    if name not in EXPECTED_FILES and root.suffix.lower() == ".csv":
        return own_data.table_entries(root)
    found = media_files.list_files(root)
    if name == "ravdess":
        entries = _ravdess_entries(found, song)
    elif name == "crema-d":
        entries = _crema_entries(found)
    elif name == "demo-clips":
        entries = _demo_entries(found)
    else:
        entries = own_data.folder_entries(found, root) if name not in EXPECTED_FILES else []
        entries = entries or _face_folder_entries(found, official=name in EXPECTED_FILES)
    if not entries:
        own = "faces/<emotion>/<image>.jpg and audio/<emotion>/<sound>.wav, or a csv table, "
        own += f"with emotion one of {', '.join(labels.EMOTIONS)}"
        inside = [p for _, p in found if p.lower().endswith(".zip")]
        fix = f". It holds {inside[0]} inside a zip: unpack the outer one" if inside else ""
        expected = f"expected files like {EXPECTED_FILES.get(name, own)}"
        raise CorpusError(f"{root} holds no clip of {name}; {expected}{fix}")
    return sorted(entries, key=lambda e: e.clip)


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
    for clip, video in films.items():
        if match := NAME_PATTERNS["demo-clips"].match(clip):
            sex, emotion = "male" if int(match[1]) % 2 else "female", labels.emotion_of(match[2])
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
        if emotion and media_kind(path)[0] == "picture":
            clip = "/".join(parts[-3:])
            clip = path if clip in entries and not official else clip
            entries.setdefault(clip, ClipEntry(clip, "", "", emotion, video=reference, crop=True))
    return list(entries.values())
