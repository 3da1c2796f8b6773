"""§4.1: examine a corpus before it is prepared: each fault with its count, its names and the fix.

Names, sizes and first bytes of all files are always read. Contents, videos, sounds and faces are
read within a budget of seconds, spread evenly over the corpus; the report says how many of each.
The corpus is only read. Levels are in dB of full scale (dBFS).
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core import files
from core.config.settings import LogMel
from core.data import corpora, features
from core.data.checks import inventory
from core.data.checks.faults import (
    FAULT_KINDS,
    MAX_QUIET_PEAK_DBFS,
    MIN_CLIP_SECONDS,
    SEVERITY_TITLES,
    CorpusReport,
    make_fault,
)
from core.data.checks.inventory import ClipFiles, Findings, MediaFile, ProgressCallback
from core.data.corpora import CorpusError
from core.data.sources import media_files
from core.media import containers, probe, spectrograms

# Seconds. By the sizes of its wavs, CREMA-D's 7,442 clips last 1.3 to 5.0 s; 1,200 of RAVDESS last
# 2.9 to 5.3 s.
MAX_CLIP_SECONDS_BY_CORPUS = {"crema-d": 8.0, "ravdess": 8.0, "demo-clips": 8.0}
MAX_CLIP_SECONDS = 60.0  # seconds of any other clip; preparation reads no more
# Hz, official or resampled; other corpora: from LogMel's rate upwards.
SAMPLE_RATES = {"crema-d": {16_000}, "ravdess": {48_000, 16_000}, "demo-clips": {16_000}}
# Share of the videos (or pictures) that are searched for faces first, those of fewest bytes a
# second: a frozen error image compresses well. By the official sizes CREMA-D's error image
# 1076_MTI_SAD_XX is the 34th of 7,442.
SUSPECT_SHARE = 0.01
FACE_BUDGET_SHARE = 0.2  # of the seconds, kept for the search for faces
UNREADABLE_KINDS = ("pointer", "empty", "unreadable", "unreachable")  # not examined any further
SUSPECT_KINDS = (  # faults that make a clip suspect of showing no face
    *("silent", "quiet", "too-short", "too-long", "short-video", "no-duration", "cut-short"),
    *("video-without-sound", "no-sound", "duplicate"),
)


def examine_corpus(
    root: Path,
    name: str | None = None,
    seconds: float = 600,
    tick: ProgressCallback | None = None,
    face_clips: int | None = None,
    workers: int = 0,
) -> CorpusReport:
    """Examine the corpus below `root` (a folder, a zip, or the csv table of own data).

    `name` as for `indexing.index_clips`; None recognises it by its files. `seconds` is the budget:
    files that are being read when it ends are finished. At most `face_clips` clips (0: none) are
    searched for a face. `tick(done, total, phase)` is called
    from this thread; `workers` threads decode (0: one per core). Raises CorpusError without media.
    """
    start = time.monotonic()
    root, found = Path(root), defaultdict[str, dict[str, str]](dict)
    media_files.check_source(root, "give the folder, zip or table of a corpus")
    looked: dict[str, tuple[int, int]] = {}
    each = functools.partial(_apply_to_each, found, looked, tick, workers or os.cpu_count() or 1)
    early, deadline = start + (1 - FACE_BUDGET_SHARE) * seconds, start + seconds

    # Names and first bytes of every file
    media = inventory.list_media_files(root, found, tick)
    name = name or inventory.recognise_corpus(root, media, found)
    if not media and not any(found.values()):
        raise CorpusError(f"{root} holds no media; give the folder or zip of {name}")
    _note_kinds(media, found)
    looked["names"] = len(media), len(media)

    # Contents: copies, duplicates, and the clips that remain
    digests = _compare_contents(media, found, looked, each, early)
    unique = inventory.deduplicate(name, media, digests, found)
    groups = inventory.group_by_clip(name, root, unique, found)
    used = [f for clip in groups.values() for f in (*clip.videos, *clip.sounds)]
    _note_duplicates({f: digests[f] for f in used if f in digests}, found)

    # Videos and sounds
    longest = MAX_CLIP_SECONDS_BY_CORPUS.get(name, MAX_CLIP_SECONDS)
    films = [f for f in used if f.role == "video" and f.kind not in containers.PICTURE_FORMATS]
    films = [f for f in films if not _is_unreadable(f, found)]
    facts = each("videos", _video_info, spread_evenly(films), early)
    _note_video_faults(facts, longest, found)
    sounds = _note_missing_media(name, groups, facts, found)
    sounds = [f for f in sounds if not _is_unreadable(f, found)]
    audio = each("sounds", _audio_info, spread_evenly(sounds), early)
    _note_audio_faults(audio, SAMPLE_RATES.get(name), longest, found)
    inventory.compare_with_official(name, groups, found)

    # Faces, in suspect clips first
    suspects = _search_faces(groups, facts, audio, found, looked, each, deadline, face_clips)

    # The report
    counts = {"files": len(media)} | _counts(groups, used)
    faults = [make_fault(kind, found[kind], name) for kind in FAULT_KINDS if found.get(kind)]
    faults.sort(key=lambda fault: list(SEVERITY_TITLES).index(fault.severity))
    taken, title = round(time.monotonic() - start, 2), root.name or str(root)
    return CorpusReport(name, title, counts, tuple(faults), looked, suspects, taken, float(seconds))


def _compare_contents(
    media: Sequence[MediaFile],
    found: Findings,
    looked: dict[str, tuple[int, int]],
    each: Callable[..., dict[MediaFile, str]],
    until: float,
) -> dict[MediaFile, str]:
    """Digests of the files that may equal another; `looked["contents"]` counts the others too."""
    readable = [f for f in media if not _is_unreadable(f, found)]
    alike = _possible_duplicates(readable)
    digests = each("contents", _content_digest, spread_evenly(alike), until)
    unlike = len(readable) - len(alike)  # the only files of their size have no duplicate
    looked["contents"] = unlike + looked["contents"][0], len(readable)
    return digests


def _counts(groups: dict[str, ClipFiles], used: Sequence[MediaFile]) -> dict[str, int]:
    roles = {f"{r} files": sum(f.role == r for f in used) for r in media_files.MEDIA_EXTENSIONS}
    subjects = {c.subject for c in groups.values()} - {""}
    return roles | {"clips": len(groups), "subjects": len(subjects)}


def _apply_to_each(
    found: Findings,
    looked: dict[str, tuple[int, int]],
    tick: ProgressCallback | None,
    workers: int,
    phase: str,
    function: Callable[[MediaFile], Any],
    files: Sequence[MediaFile],
    until: float,
) -> dict[MediaFile, Any]:
    """Apply a function to each file in threads, until a deadline; `found` gets the failures.

    `looked[phase]` becomes (how many were tried, how many there are).
    """
    from joblib import Parallel, delayed

    def one(file: MediaFile):
        if time.monotonic() > until:
            return file, "late", None
        try:
            return file, "", function(file)
        except (OSError, containers.UnreadableError) as error:
            return file, "unreachable", inventory.error_reason(error)
        except Exception as error:  # a corpus may hold anything; one odd file must not end all
            return file, "unreadable", inventory.error_reason(error)

    results: dict[MediaFile, Any] = {}
    tried = 0
    parallel = Parallel(n_jobs=workers, backend="threading", return_as="generator")
    for n, (file, fault, result) in enumerate(parallel(delayed(one)(f) for f in files), 1):
        tried += fault != "late"
        if fault in UNREADABLE_KINDS:
            found[fault][file.name] = result
        elif not fault:
            results[file] = result
        if tick:
            tick(n, len(files), phase)
    looked[phase] = (tried, len(files))
    return results


# ------------------------------------------------------------------ names and contents


def _note_kinds(media: Sequence[MediaFile], found: Findings) -> None:
    """Note files that their first bytes show to be pointers, empty, or no media."""
    for file in media:
        if file.kind in ("lfs", "empty"):
            found["pointer" if file.kind == "lfs" else "empty"][file.name] = ""
        elif file.kind and file.kind not in containers.MEDIA_KINDS:
            what = f"no media but {file.kind}"
            if file.kind == "unknown":
                is_cut = file.size < containers.MIN_FILE_BYTES
                what = f"ends after {file.size} bytes" if is_cut else "of a kind that is not read"
            found["unreadable"][file.name] = what


def _is_unreadable(file: MediaFile, found: Findings) -> bool:
    return any(file.name in found[kind] for kind in UNREADABLE_KINDS)


def spread_evenly(files: Sequence[MediaFile]) -> list[MediaFile]:
    """The files in an order in which the first n are spread evenly, for every n (golden ratio)."""
    keys = [i * 0.6180339887498949 % 1 for i in range(len(files))]
    return [files[i] for i in sorted(range(len(files)), key=keys.__getitem__)]


def _possible_duplicates(files: Sequence[MediaFile]) -> list[MediaFile]:
    """Files that share their size with another, and their CRC where zips give it."""
    sizes: dict[int, list[MediaFile]] = defaultdict(list)
    for f in files:
        sizes[f.size].append(f)
    alike = []
    for same in sizes.values():
        crcs = [f.crc for f in same]
        alike += [f for f in same if len(same) > 1 and (None in crcs or crcs.count(f.crc) > 1)]
    return alike


def _content_digest(file: MediaFile) -> str:
    return files.digest(file.content())


def _note_duplicates(digests: dict[MediaFile, str], found: Findings) -> None:
    same: dict[str, list[str]] = defaultdict(list)
    for file, digest in digests.items():
        same[digest].append(file.name)
    for names in same.values():
        if len(names) > 1:
            found["duplicate"][" = ".join(sorted(names))] = ""


# ------------------------------------------------------------------ videos, sounds, clips


def _video_info(file: MediaFile) -> probe.VideoInfo:
    return probe.video_info(file.content(), file.kind)


def _audio_info(file: MediaFile) -> probe.AudioInfo:
    return probe.audio_info(file.content(), file.kind)


def _note_video_faults(
    facts: dict[MediaFile, probe.VideoInfo], longest: float, found: Findings
) -> None:
    for file, film in facts.items():
        length = f"{film.seconds:.2f} s"
        if film.header_seconds is None:
            found["no-duration"][file.name] = length
        elif film.whole_seconds < 0.95 * film.header_seconds - 0.3:
            whole = f"{film.whole_seconds:.2f} s"
            found["cut-short"][file.name] = f"{whole} of {film.header_seconds:.2f} s"
        if film.seconds < MIN_CLIP_SECONDS:
            found["short-video"][file.name] = length
        if film.seconds > longest:
            found["too-long"][file.name] = length


def _note_audio_faults(
    facts: dict[MediaFile, probe.AudioInfo], rates: set[int] | None, longest: float, found: Findings
) -> None:
    for file, sound in facts.items():
        name, length = file.name, f"{sound.seconds:.2f} s"
        if sound.start is None or sound.peak_dbfs < MAX_QUIET_PEAK_DBFS:
            kind = "silent" if sound.start is None else "quiet"
            zero = sound.peak_dbfs <= -200
            found[kind][name] = "all zero" if zero else f"{sound.peak_dbfs:.0f} dBFS"
        elif not sound.is_middle:
            at = sound.start * LogMel().hop / LogMel().rate
            found["silent-middle"][name] = f"taken from {at:.1f} s on"
        if sound.seconds < MIN_CLIP_SECONDS:
            found["too-short"][name] = length
        elif sound.seconds > longest:
            found["too-long"][name] = length
        if sound.header_seconds and sound.seconds < 0.95 * sound.header_seconds - 0.1:
            found["cut-short"][name] = f"{length} of {sound.header_seconds:.2f} s"
        if sound.channels > 1 and sound.start is not None:
            found["stereo"][name] = f"{sound.channels} channels" if sound.channels > 2 else ""
        if sound.rate and (sound.rate not in rates if rates else sound.rate < LogMel().rate):
            found["odd-rate"][name] = f"{sound.rate} Hz"


def _note_missing_media(
    name: str,
    groups: dict[str, ClipFiles],
    facts: dict[MediaFile, probe.VideoInfo],
    found: Findings,
) -> list[MediaFile]:
    """Note clips that lack a face or a voice; return the files that voices will be taken from."""
    filmed = {c.subject for c in groups.values() if c.videos}
    voiced = {c.subject for c in groups.values() if c.sounds}
    sounds = []
    for clip in groups.values():
        video = clip.videos[0] if clip.videos else None
        sound = clip.sounds[0] if clip.sounds else None
        film = facts.get(video) if video else None
        silent = video if film and not film.sound else None  # a video without sound
        if sound:
            sounds.append(sound)
            if not video and name in corpora.NAME_PATTERNS:
                if clip.subject in filmed:
                    found["no-video"][sound.name] = ""
                else:
                    found["actors-without-video"][clip.subject] = ""
            # RAVDESS' modality 02 is silent by design
            if silent and not (name == "ravdess" and silent.stem.startswith("02")):
                found["video-without-sound"][silent.name] = ""
        elif silent and clip.needs_sound:
            found["no-sound"][silent.name] = ""
        elif video and not clip.crop and clip.needs_sound:
            if film:
                sounds.append(video)
            if name in corpora.NAME_PATTERNS and name != "demo-clips":
                if clip.subject in voiced:
                    found["no-wav"][video.name] = ""
                else:
                    found["actors-without-wav"][clip.subject] = ""
    return sounds


# ------------------------------------------------------------------ faces


def _search_faces(
    groups: dict[str, ClipFiles],
    facts: dict[MediaFile, probe.VideoInfo],
    audio: dict[MediaFile, probe.AudioInfo],
    found: Findings,
    looked: dict[str, tuple[int, int]],
    each: Callable[..., dict[MediaFile, tuple[str, str]]],
    until: float,
    most: int | None,
) -> int:
    """Note clips without a face; returns how many suspects were searched.

    `most` is the largest number of clips that are searched (None: all).
    """
    shown = {c.videos[0]: c for c in groups.values() if c.videos}
    shown = {f: c for f, c in shown.items() if not _is_unreadable(f, found)}
    order, suspects = _face_order(shown, facts, found)
    order = order[:most] if most != 0 and _has_face_model(found) else []
    look = functools.partial(_face_fault, shown, audio)
    for file, (kind, detail) in each("faces", look, order, until).items():
        if kind:
            found[kind][file.name] = detail
    looked["faces"] = looked["faces"][0], len(shown)
    return min(suspects, looked["faces"][0])


def _face_order(
    shown: dict[MediaFile, ClipFiles], facts: dict[MediaFile, probe.VideoInfo], found: Findings
) -> tuple[list[MediaFile], int]:
    """The order in which clips are searched for faces, and how many suspects come first in it."""
    odd = {name for kind in SUSPECT_KINDS for names in found[kind] for name in names.split(" = ")}
    rate = {f: f.size / (max(facts[f].seconds, 0.04) if f in facts else 1.0) for f in shown}
    light = sorted((f for f in shown if f in facts or shown[f].crop), key=rate.__getitem__)
    first = {f for f, c in shown.items() if any(m.name in odd for m in (*c.videos, *c.sounds))}
    first |= set(light[: math.ceil(SUSPECT_SHARE * len(shown))])
    rest = spread_evenly([f for f in shown if f not in first])
    return [*sorted(first, key=lambda f: (rate[f], f.name)), *rest], len(first)


def _face_fault(
    shown: dict[MediaFile, ClipFiles], audio: dict[MediaFile, probe.AudioInfo], file: MediaFile
) -> tuple[str, str]:
    """The kind of fault of a clip's face and a detail, "" for none, by preparation's own reading.

    A film is looked at around the middle of its voice.
    """
    clip, content = shown[file], file.content()
    sound = clip.sounds[0] if clip.sounds else file
    middle = _voice_middle(audio[sound]) if sound in audio else None
    if middle is not None and sound is file:
        middle += probe.sound_lead(content, "it")
    return features.face_fault(content, clip.crop, middle, clip.as_published)


def _voice_middle(sound: probe.AudioInfo) -> float:
    """Time (s) of the middle of the window from which the voice is taken."""
    if sound.is_middle or sound.start is None:
        return spectrograms.centre_time(min(sound.seconds, MAX_CLIP_SECONDS))
    return sound.start * LogMel().hop / LogMel().rate + features.WINDOW_SECONDS / 2


def _has_face_model(found: Findings) -> bool:
    from core.media.faces import landmarker

    try:
        landmarker.model_path()
    except landmarker.ModelMissing as error:
        found["no-model"][landmarker.MODEL_FILE] = inventory.error_reason(error)
    return not found["no-model"]
