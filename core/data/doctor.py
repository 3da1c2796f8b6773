"""§4.1: what is wrong with a corpus before it is prepared: each fault with its count, its names, what it means and how to mend it.

Names, sizes and the first bytes of every file are always looked at. Contents, videos, sounds and faces are, within a budget of seconds,
spread evenly over the corpus: the report says how many of each. The corpus is only read. Levels are in dB of full scale (dBFS).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import files
from core.config import LogMel
from core.data import corpora, inventory
from core.data.corpora import KNOWN_CORPORA, CorpusError
from core.data.inventory import ClipFiles, Findings, MediaFile, ProgressCallback
from core.media import clips, probe

REPORT_VERSION = 1  # of the json form
# Of 1,200 RAVDESS voices the quietest peaks at -46.8 dBFS, so -50 leaves every voice of it in, and -60 all but excludes one.
MAX_SILENT_PEAK_DBFS, MAX_QUIET_PEAK_DBFS = (
    -60.0,
    -50.0,
)  # dBFS of the peak: nothing to hear, or hardly anything
MIN_CLIP_SECONDS = (
    LogMel().columns * LogMel().hop / LogMel().rate
)  # seconds that fill the 112 columns
# Seconds. By the sizes of its wavs CREMA-D's 7,442 clips last 1.3 to 5.0 s; 1,200 of RAVDESS last 2.9 to 5.3 s.
MAX_CLIP_SECONDS_BY_CORPUS = {"crema-d": 8.0, "ravdess": 8.0, "demo-clips": 8.0}
MAX_CLIP_SECONDS = 60.0  # seconds of any other clip; prepare reads no more
SAMPLE_RATES = {
    "crema-d": {16_000},
    "ravdess": {48_000, 16_000},
    "demo-clips": {16_000},
}  # Hz, official or resampled; else from 16 kHz on
# Share of the videos (or pictures), those of fewest bytes a second, in which faces are looked for first: a still error picture packs
# well. By the official sizes CREMA-D's 1076_MTI_SAD_XX is the 34th of 7,442.
SUSPECT_SHARE = 0.01
UNREADABLE_KINDS = (
    "pointer",
    "empty",
    "unreadable",
    "unreachable",
)  # there is nothing more to be looked at in these
SEVERITY_TITLES = {
    "error": "ERRORS: not usable as they are",
    "warning": "WARNINGS: usable, but you should know",
    "note": "NOTES",
}

# What makes a clip suspect of showing no face.
SUSPECT_KINDS = (
    *("silent", "quiet", "too-short", "too-long", "short-video", "no-duration", "cut-short"),
    *("video-without-sound", "no-sound", "duplicate"),
)
RETRIEVAL_HINTS = {
    "crema-d": "in the corpus' folder: git checkout -- . && git lfs pull",
    "ravdess": "download that actor's zip again (Zenodo record 1188976) and compare its md5 with the record's",
}
FAULT_KINDS = {  # kind -> severity, what it means, what to do ({again}: the corpus' own way to get a file anew)
    "pointer": ("error", "git-lfs pointers: a line of text stands where the media should be", "git lfs install && git lfs pull"),
    "empty": ("error", "files of zero bytes, of a download that broke off", "{again}"),
    "unreadable": ("error", "files that cannot be decoded: damaged, or no media at all", "{again}"),
    "unreachable": ("error", "files or folders that may not be read or are not there", "chmod -R u+rX FOLDER, as their owner"),
    "broken-archive": ("error", "zips that cannot be opened", "download them again: they are damaged or were cut short"),
    "no-sound": ("error", "videos without sound for which no sound file stands in", "put the wav of the same name beside them"),
    "silent": ("error", f"sounds whose peak is below {MAX_SILENT_PEAK_DBFS:g} dBFS: there is no voice in them", "leave these clips out"),
    "too-short": ("error", f"sounds below {MIN_CLIP_SECONDS:.2f} s, which cannot fill {LogMel().columns} columns", "{again}; else leave them out"),
    "too-long": ("error", "clips too long for one performance of one emotion", "cut them to the performance, or leave them out"),
    "no-face": ("error", "no face in the frames looked at: an error picture, a black one, nobody in sight", "leave these clips out"),
    "cut-short": ("warning", "files that end before the length that they promise", "{again}"),
    "short-video": ("warning", f"pictures below {MIN_CLIP_SECONDS:.2f} s: the face may not be that of the voice's middle", "{again}; else nothing"),
    "no-duration": ("warning", "videos whose header does not say how long they are", "nothing to do: the frames are counted"),
    "quiet": ("warning", f"sounds whose peak is between {MAX_SILENT_PEAK_DBFS:g} and {MAX_QUIET_PEAK_DBFS:g} dBFS: hardly a voice", "listen to them first"),
    "stereo": ("warning", "sounds of several channels: their mean is taken", "nothing to do if all hold the voice"),
    "odd-rate": ("warning", "sounds of another sample rate than the corpus has: resampled", "{again}, for the original rate"),
    "duplicate": ("warning", "one content under several names, perhaps under two labels", "compare them, and leave all but one out"),
    "name-twice": ("warning", "one name with several contents: the first is taken", "keep the right one, move the others away"),
    "no-video": ("warning", "sounds whose video is missing: a voice without a face", "{again}"),
    "no-wav": ("warning", "videos whose wav is missing: the video's own sound is taken", "{again}"),
    "missing-clips": ("warning", "official clips that are missing, of actors who are here", "{again}"),
    "not-official": ("warning", "clips named like the corpus' own that it never had", "move them away, unless you added them"),
    "wrong-name": ("warning", "media that are not named as the corpus' own: left out", "rename them, or move them away"),
    "no-landmarks": ("warning", "pictures without clear landmarks: aligned by the median of the others", "nothing to do if they are faces"),
    "video-without-sound": ("note", "videos without a sound of their own: the wav of the same name stands in", "nothing to do"),
    "odd-name": ("note", "names with a single X, as in old copies of CREMA-D: read as XX", "nothing to do"),
    "song": ("note", "songs of RAVDESS: left out", "nothing to do"),
    "nested-copy": ("note", "folders that hold the same files as others: each counts once", "delete one of the two, to save space"),
    "link-loop": ("note", "links to folders that were seen already", "nothing to do"),
    "actors-without-video": ("note", "actors without any video: they have voices and no faces", "download their videos, for their faces"),
    "actors-without-wav": ("note", "actors without any sound file: the videos' own sound is taken", "nothing to do"),
    "count": ("note", "another number than the official corpus has", "nothing to do if a part of it is what you want"),
    "no-model": ("note", "no face was looked for, as the landmark model is missing", "do as the reason says"),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One kind of fault, with every file or clip that has it."""

    kind: str  # a key of KINDS
    severity: str  # "error": unusable; "warning": prepare copes; "note"
    names: tuple[
        str, ...
    ]  # sorted; relative to the corpus' root, a zip's member as 'archive.zip!member'
    details: dict[str, str]  # name -> a reason or a figure, for some
    means: str
    fix: str


@dataclass(frozen=True)
class CorpusReport:
    """What `examine_corpus` found."""

    corpus: str
    root: str  # name of the folder or file
    counts: dict[str, int]  # files, videos, sounds, pictures, clips, subjects
    faults: tuple[Fault, ...]  # errors first
    looked_at: dict[str, tuple[int, int]]  # phase -> how many of how many
    suspects: int  # of the clips looked at for faces: those looked at first, since something else was odd about them
    seconds: float  # taken
    budget: float  # seconds allowed

    def names(self) -> dict[str, set[str]]:
        """kind -> names."""
        return {fault.kind: set(fault.names) for fault in self.faults}


# ------------------------------------------------------------------ the examination


def examine_corpus(
    root: Path,
    name: str | None = None,
    seconds: float = 600,
    faces_per_clip: int = 3,
    tick: ProgressCallback | None = None,
    face_clips: int | None = None,
    workers: int = 0,
) -> CorpusReport:
    """Look through the corpus below `root` (a folder, a zip, or the csv table of own data) and report what is wrong with it.

    `name` as for `corpora.index_clips`; None recognises it by its files. `seconds` is the budget: files that are being read when it ends are
    finished. At most `faces_per_clip` frames of a clip, and `face_clips` clips (0: none), are looked at for a face. `tick(done, total,
    phase)` is called from this thread; `workers` threads decode (0: one per core). Raises CorpusError where there is nothing to examine.
    """
    start = time.monotonic()
    root, found = Path(root), defaultdict[str, dict[str, str]](dict)
    if not root.exists():
        raise CorpusError(f"{root} does not exist; give the folder or zip of a corpus")
    looked: dict[str, tuple[int, int]] = {}
    each = functools.partial(_apply_to_each, found, looked, tick, workers or os.cpu_count() or 1)
    early, deadline = start + 0.8 * seconds, start + seconds  # a fifth is kept for the faces
    files = inventory.list_media_files(root, found, tick)
    name = name or inventory.recognise_corpus(root, files, found)
    if not files and not any(found.values()):
        raise CorpusError(f"{root} holds no media; give the folder or zip of {name}")
    for file in files:
        kind = {"lfs": "pointer", "empty": "empty"}.get(file.kind, "")
        if kind or (
            file.kind
            and file.kind not in clips.VIDEO_DEMUXERS | clips.AUDIO_DEMUXERS | clips.PICTURE_FORMATS
        ):
            found[kind or "unreadable"][file.name] = "" if kind else f"no media but {file.kind}"
    alive = [f for f in files if not _is_unreadable(f, found)]

    looked["names"] = len(files), len(files)
    equal = _possible_duplicates(alive)
    sums = each("contents", _content_digest, _spread_evenly(equal), early)
    looked["contents"] = (
        len(alive) - len(equal) + looked["contents"][0],
        len(alive),
    )  # one of its size has no equal
    groups = inventory.group_by_clip(
        name, root, inventory.deduplicate(name, files, sums, found), found
    )
    used = [f for clip in groups.values() for f in (*clip.videos, *clip.sounds)]
    _note_duplicates({f: sums[f] for f in used if f in sums}, found)

    films = [f for f in used if f.role == "video" and not _is_unreadable(f, found)]
    facts = each("videos", _video_info, _spread_evenly(films), early)
    _note_video_faults(facts, MAX_CLIP_SECONDS_BY_CORPUS.get(name, MAX_CLIP_SECONDS), found)
    sounds = [
        f for f in _note_missing_media(name, groups, facts, found) if not _is_unreadable(f, found)
    ]
    heard = each("sounds", _audio_info, _spread_evenly(sounds), early)
    _note_audio_faults(
        heard, SAMPLE_RATES.get(name), MAX_CLIP_SECONDS_BY_CORPUS.get(name, MAX_CLIP_SECONDS), found
    )
    _compare_with_official(name, groups, found)

    shown = {
        c.videos[0]: c
        for c in groups.values()
        if c.videos and not _is_unreadable(c.videos[0], found)
    }
    order, suspects = _face_order(shown, facts, found)
    order = (
        order[: len(order) if face_clips is None else face_clips]
        if faces_per_clip > 0 and _has_face_model(found)
        else []
    )

    def look(file: MediaFile) -> str:
        with file.content() as path:
            if shown[file].crop:
                return probe.crop_fault(path, file.kind)
            length = facts[file].seconds if file in facts else 0.0
            return "" if probe.has_face(path, file.kind, length, faces_per_clip) else "no-face"

    seen = each("faces", look, order, deadline)
    looked["faces"] = looked["faces"][0], len(shown)
    for file, kind in seen.items():
        if kind:
            found[kind][file.name] = ""

    counts = {"files": len(files)} | {
        f"{role} files": sum(f.role == role for f in used) for role in corpora.MEDIA_EXTENSIONS
    }
    counts |= {"clips": len(groups), "subjects": len({c.subject for c in groups.values()} - {""})}
    again = RETRIEVAL_HINTS.get(name, "copy or export these files again")
    faults = [_make_fault(kind, found[kind], again) for kind in FAULT_KINDS if found.get(kind)]
    faults.sort(key=lambda fault: list(SEVERITY_TITLES).index(fault.severity))
    taken = round(time.monotonic() - start, 2)
    return CorpusReport(
        name,
        root.name or str(root),
        counts,
        tuple(faults),
        looked,
        min(suspects, looked["faces"][0]),
        taken,
        float(seconds),
    )


def _make_fault(kind: str, names: dict[str, str], again: str) -> Fault:
    severity, means, fix = FAULT_KINDS[kind]
    return Fault(
        kind,
        severity,
        tuple(sorted(names)),
        {n: d for n, d in sorted(names.items()) if d},
        means,
        fix.format(again=again),
    )


def to_dict(report: CorpusReport) -> dict:
    """A report as plain dicts and lists, ready for json."""
    faults = [
        dataclasses.asdict(f) | {"names": list(f.names), "count": len(f.names)}
        for f in report.faults
    ]
    looked = {phase: list(of) for phase, of in report.looked_at.items()}
    return (
        {"version": REPORT_VERSION}
        | dataclasses.asdict(report)
        | {"faults": faults, "looked_at": looked}
    )


def to_text(report: CorpusReport, most: int = 5) -> str:
    """A report for people: the first `most` names of each fault, what it means, what to do."""
    title = KNOWN_CORPORA[report.corpus].title if report.corpus in KNOWN_CORPORA else report.corpus
    lines = [
        f"{title} in {report.root}: "
        + ", ".join(f"{n:,} {what}" for what, n in report.counts.items() if n)
    ]
    lines.append(f"Looked at for {report.seconds:.1f} s of at most {report.budget:g} s:")
    words = {
        "names": "names and first bytes",
        "contents": "contents compared",
        "videos": "videos read",
        "sounds": "sounds heard",
    }
    for phase, (done, total) in report.looked_at.items():
        if total and phase in words:
            lines.append(
                f"  {words[phase]}: "
                + (f"all {total:,}" if done == total else f"{done:,} of {total:,}, evenly spread")
            )
    done, total = report.looked_at["faces"]
    if total:
        how = (
            f" ({report.suspects:,} that looked odd first, the rest evenly spread)"
            if 0 < done < total
            else ""
        )
        lines.append(f"  faces looked for in {done:,} of {total:,} clips{how}")
    for severity, heading in SEVERITY_TITLES.items():
        of = [fault for fault in report.faults if fault.severity == severity]
        lines += ["", heading] if of else []
        for fault in of:
            lines.append(f"  {fault.kind} ({len(fault.names):,}): {fault.means}")
            some = [
                n + (f" ({fault.details[n]})" if n in fault.details else "")
                for n in fault.names[:most]
            ]
            more = f" and {len(fault.names) - most:,} more" if len(fault.names) > most else ""
            lines += [f"    {', '.join(some)}{more}", f"    -> {fault.fix}"]
    return "\n".join([*lines, *([] if report.faults else ["", "No fault was found."])])


# ------------------------------------------------------------------ contents


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
    """A function of each file, in threads, until a moment; of files that cannot be read the reason goes to `found`.

    `looked[phase]` becomes (how many were tried, how many there are).
    """
    from joblib import Parallel, delayed

    def one(file: MediaFile):
        if time.monotonic() > until:
            return file, "late", None
        try:
            return file, "", function(file)
        except OSError as error:
            return file, "unreachable", inventory.error_reason(error)
        except (
            Exception
        ) as error:  # a corpus may hold anything; one odd file must not end the examination
            return file, "unreadable", inventory.error_reason(error)

    done: dict[MediaFile, Any] = {}
    tried = 0
    parallel = Parallel(n_jobs=workers, backend="threading", return_as="generator")
    for n, (file, fault, result) in enumerate(parallel(delayed(one)(f) for f in files), 1):
        tried += fault != "late"
        if fault in UNREADABLE_KINDS:
            found[fault][file.name] = result
        elif not fault:
            done[file] = result
        if tick:
            tick(n, len(files), phase)
    looked[phase] = (tried, len(files))
    return done


def _is_unreadable(file: MediaFile, found: Findings) -> bool:
    return any(file.name in found[kind] for kind in UNREADABLE_KINDS)


def _spread_evenly(files: Sequence[MediaFile]) -> list[MediaFile]:
    """The same files in an order of which every beginning is spread evenly over the whole (multiples of the golden ratio)."""
    keys = [i * 0.6180339887498949 % 1 for i in range(len(files))]
    return [files[i] for i in sorted(range(len(files)), key=keys.__getitem__)]


def _possible_duplicates(files: Sequence[MediaFile]) -> list[MediaFile]:
    """Those that may be equal: of one size, and of one CRC where zips tell it."""
    sizes: dict[int, list[MediaFile]] = defaultdict(list)
    for f in files:
        sizes[f.size].append(f)
    equal = []
    for same in sizes.values():
        sums = [f.crc for f in same]
        equal += [f for f in same if len(same) > 1 and (None in sums or sums.count(f.crc) > 1)]
    return equal


def _content_digest(file: MediaFile) -> str:
    with file.content() as path:
        return files.digest(path)


def _video_info(file: MediaFile) -> probe.VideoInfo:
    with file.content() as path:
        return probe.video_info(path, file.kind)


def _audio_info(file: MediaFile) -> probe.AudioInfo:
    with file.content() as path:
        return probe.audio_info(path, file.kind)


def _note_duplicates(sums: dict[MediaFile, str], found: Findings) -> None:
    same: dict[str, list[str]] = defaultdict(list)
    for file, digest in sums.items():
        same[digest].append(file.name)
    for names in same.values():
        if len(names) > 1:
            found["duplicate"][" = ".join(sorted(names))] = ""


def _note_video_faults(
    facts: dict[MediaFile, probe.VideoInfo], longest: float, found: Findings
) -> None:
    for file, film in facts.items():
        says = f"{film.seconds:.2f} s"
        if film.header_seconds is None:
            found["no-duration"][file.name] = says
        elif film.seconds < 0.95 * film.header_seconds - 0.3:
            found["cut-short"][file.name] = f"{says} of {film.header_seconds:.2f} s"
        if film.seconds < MIN_CLIP_SECONDS:
            found["short-video"][file.name] = says
        if film.seconds > longest:
            found["too-long"][file.name] = says


def _note_audio_faults(
    heard: dict[MediaFile, probe.AudioInfo], rates: set[int] | None, longest: float, found: Findings
) -> None:
    for file, sound in heard.items():
        if sound.peak_dbfs < MAX_QUIET_PEAK_DBFS:
            found["silent" if sound.peak_dbfs < MAX_SILENT_PEAK_DBFS else "quiet"][file.name] = (
                f"{sound.peak_dbfs:.0f} dBFS" if sound.peak_dbfs > -200 else "all zero"
            )
        if sound.seconds < MIN_CLIP_SECONDS or sound.seconds > longest:
            found["too-short" if sound.seconds < MIN_CLIP_SECONDS else "too-long"][file.name] = (
                f"{sound.seconds:.2f} s"
            )
        if sound.header_seconds and sound.seconds < 0.95 * sound.header_seconds - 0.1:
            found["cut-short"][file.name] = f"{sound.seconds:.2f} s of {sound.header_seconds:.2f} s"
        if sound.channels > 1:
            found["stereo"][file.name] = f"{sound.channels} channels" if sound.channels > 2 else ""
        if sound.rate and (sound.rate not in rates if rates else sound.rate < LogMel().rate):
            found["odd-rate"][file.name] = f"{sound.rate} Hz"


def _note_missing_media(
    name: str,
    groups: dict[str, ClipFiles],
    facts: dict[MediaFile, probe.VideoInfo],
    found: Findings,
) -> list[MediaFile]:
    """Notes clips that lack a face or a voice; returns the files from which voices will be taken."""
    filmed = {c.subject for c in groups.values() if c.videos}
    voiced = {c.subject for c in groups.values() if c.sounds}
    sounds = []
    for clip in groups.values():
        video = clip.videos[0] if clip.videos else None
        sound = clip.sounds[0] if clip.sounds else None
        film = facts.get(video) if video else None
        if sound:
            sounds.append(sound)
            if name in inventory.NAME_PATTERNS and not video:
                whole = clip.subject not in filmed
                found["actors-without-video" if whole else "no-video"][
                    clip.subject if whole else sound.name
                ] = ""
            if (
                video
                and film
                and not film.sound
                and not (name == "ravdess" and video.stem.startswith("02"))
            ):  # silent by design
                found["video-without-sound"][video.name] = ""
        elif video and film and not film.sound:
            found["no-sound"][video.name] = ""
        elif video and not clip.crop:
            if film:
                sounds.append(video)
            if name in inventory.NAME_PATTERNS and name != "demo-clips":
                whole = clip.subject not in voiced
                found["actors-without-wav" if whole else "no-wav"][
                    clip.subject if whole else video.name
                ] = ""
    return sounds


def _compare_with_official(name: str, groups: dict[str, ClipFiles], found: Findings) -> None:
    """Against the official list: clips that an actor lacks of whom most are here, and the sums of what is evidently a part."""
    lists = inventory.official_clips(name)
    mine: dict[str, set[str]] = defaultdict(set)
    for key, clip in groups.items():
        mine[clip.subject].add(key)
    for actor, expected in lists.items():
        if 2 * len(mine[actor] & expected) > len(expected):
            found["missing-clips"] |= dict.fromkeys(expected - mine[actor], "")
            for modality in ("01", "02") if name == "ravdess" else ():
                there = {
                    f.stem[3:]
                    for key in mine[actor]
                    for f in groups[key].videos
                    if f.stem[:2] == modality
                }
                if 2 * len(there) > len(expected):
                    absent = {key for key in expected & mine[actor] - there if groups[key].videos}
                    found["missing-clips"] |= {f"{modality}-{key}": "" for key in absent}
    total = sum(map(len, lists.values()))
    if lists:
        found["not-official"] |= dict.fromkeys(set(groups) - set().union(*lists.values()), "")
        actors, videos = (
            len({c.subject for c in groups.values()}),
            sum(len(c.videos) for c in groups.values()),
        )
        if len(groups) != total:
            found["count"][
                f"{len(groups):,} of {total:,} clips, {actors} of {len(lists)} actors"
            ] = ""
        if name == "ravdess" and videos not in (0, 2 * total):
            found["count"][f"{videos:,} of {2 * total:,} videos"] = ""


def _face_order(
    shown: dict[MediaFile, ClipFiles], facts: dict[MediaFile, probe.VideoInfo], found: Findings
) -> tuple[list[MediaFile], int]:
    """The order in which faces are looked for, and how many of it come first since something else is odd about them."""
    odd = {name for kind in SUSPECT_KINDS for names in found[kind] for name in names.split(" = ")}
    rate = {f: f.size / (max(facts[f].seconds, 0.04) if f in facts else 1.0) for f in shown}
    light = sorted((f for f in shown if f in facts or shown[f].crop), key=rate.__getitem__)[
        : math.ceil(SUSPECT_SHARE * len(shown))
    ]
    first = {
        f for f in shown if any(m.name in odd for m in (*shown[f].videos, *shown[f].sounds))
    } | set(light)
    return [
        *sorted(first, key=lambda f: (rate[f], f.name)),
        *_spread_evenly([f for f in shown if f not in first]),
    ], len(first)


def _has_face_model(found: Findings) -> bool:
    from core.media import faces

    try:
        faces.model_path()
    except faces.ModelMissing as error:
        found["no-model"][faces.MODEL_FILE] = inventory.error_reason(error)
    return not found["no-model"]
