"""§4.1: what stands in a corpus, in one index whatever its published form: clip id, subject, sex, emotion, media.

Forms: CREMA-D (a folder with VideoFlash/ and AudioWAV/), RAVDESS speech (folder or zip as published), labelled face folders or zips
(FER2013's form: …/<emotion>/<image>), and the invented demo corpus, which needs no media at all.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SYNONYMS = {  # every corpus' spelling -> the one vocabulary of config.EMOTIONS
    "neutral": "neutral", "neu": "neutral", "calm": "calm",
    "happy": "happy", "hap": "happy", "happiness": "happy", "joy": "happy",
    "sad": "sad", "sadness": "sad",
    "angry": "angry", "ang": "angry", "anger": "angry",
    "fear": "fear", "fea": "fear", "fearful": "fear",
    "disgust": "disgust", "dis": "disgust", "disgusted": "disgust",
    "surprise": "surprise", "surprised": "surprise",
}  # fmt: skip
RAVDESS_CODES = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")  # 01..08, Livingstone & Russo 2018
CREMA_NAME = re.compile(r"^(10\d\d)_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX|X)$")
DEMO_NAME = re.compile(r"^demo_(\d\d)_(ANG|DIS|FEA|HAP|NEU|SAD)_(\d\d)$")
RAVDESS_NAME = re.compile(r"^(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-([01]\d|2[0-4])$")
IMAGES = {".jpg", ".jpeg", ".png"}


class CorpusError(ValueError):
    """A corpus that cannot be read; the message names the folder and what it should hold."""


@dataclass(frozen=True)
class Entry:
    """One clip of a corpus. Media are 'path' or 'archive.zip!member'; `crop` marks a face that is already cut out."""

    clip: str
    subject: str
    sex: str  # "female", "male" or "" where unknown
    emotion: str  # of config.EMOTIONS
    intensity: str = ""
    statement: str = ""
    video: str | None = None
    audio: str | None = None
    crop: bool = False


@dataclass(frozen=True)
class Corpus:
    """What is known of a corpus before looking: its dB reference (fixed, see `LogMel.range_db`) and its terms."""

    name: str
    title: str
    ref_db: float  # dB of log-mel power that is drawn as 1
    licence: str
    source: str


KNOWN = {
    "demo": Corpus("demo", "Demo corpus (invented faces and voices)", 10.0, "MIT, drawn and synthesised by this project", "core/demo.py"),
    "demo-clips": Corpus("demo-clips", "Demo clips (invented), through video and sound files", 10.0, "MIT", "python -m core data draw"),
    "ravdess": Corpus(
        "ravdess", "RAVDESS speech", 5.0, "CC BY-NC-SA 4.0", "Livingstone & Russo 2018, Zenodo record 1188976"
    ),
    "crema-d": Corpus("crema-d", "CREMA-D", 5.0, "ODbL 1.0 / DbCL 1.0", "Cao et al. 2014, GitHub CheyneyComputerScience/CREMA-D"),
    "fer2013": Corpus("fer2013", "FER2013 faces", 0.0, "public challenge data, research use", "Goodfellow et al. 2013"),
}


def index(name: str, root: Path) -> list[Entry]:
    """Every usable clip of the corpus `name` below `root` (a folder or a zip), sorted by clip id.

    Raises CorpusError that says what was expected where; clips with odd names are left out.
    """
    if not root.exists():
        raise CorpusError(f"{root} does not exist; give the folder or zip of {name} with --source")
    readers = {"crema-d": _crema, "ravdess": _ravdess, "fer2013": _faces, "demo-clips": _demo_clips}
    entries = readers.get(name, _faces)(root)
    if not entries:
        expected = {
            "crema-d": "VideoFlash/1001_DFA_ANG_XX.flv and AudioWAV/1001_DFA_ANG_XX.wav",
            "demo-clips": "demo_01_ANG_00.mp4 and demo_01_ANG_00.wav; python -m core data draw writes them",
            "ravdess": "Actor_01/03-01-01-01-01-01-01.wav or the published zip",
        }.get(name, "<emotion>/<image>.jpg with emotion one of " + ", ".join(sorted(set(SYNONYMS.values()))))
        raise CorpusError(f"{root} holds no clip of {name}; expected files like {expected}")
    return sorted(entries, key=lambda e: e.clip)


def files(root: Path) -> list[str]:
    """All files below a folder, or all members of a zip, as media references."""
    if root.is_file():
        try:
            with zipfile.ZipFile(root) as z:
                return [f"{root}!{n}" for n in z.namelist() if not n.endswith("/")]
        except zipfile.BadZipFile as e:
            raise CorpusError(f"{root} is not a zip archive or is damaged ({e}); download it again") from e
    return [str(p) for p in root.rglob("*") if p.is_file()]


@contextlib.contextmanager
def media_file(reference: str) -> Iterator[Path]:
    """The file behind a media reference; a member of a zip is unpacked to a temporary file for as long as it is needed."""
    if "!" not in reference:
        yield Path(reference)
        return
    archive, member = reference.split("!", 1)
    with tempfile.TemporaryDirectory() as d:
        path = Path(d) / ("media" + Path(member).suffix)
        path.write_bytes(_archive(archive, Path(archive).stat().st_mtime_ns).read(member))
        yield path


@functools.lru_cache(maxsize=4)
def _archive(path: str, mtime: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)  # kept open: its directory of thousands of members is read once; reading is thread-safe


def _stem(reference: str) -> str:
    return Path(reference.split("!")[-1]).stem


def _ravdess(root: Path) -> list[Entry]:
    performances: dict[str, dict[str, str]] = {}  # code without its modality -> {"01": file, "02": …, "03": …}
    for f in files(root):
        match = RAVDESS_NAME.match(_stem(f))
        if match and match[2] == "01" and Path(f.split("!")[-1]).suffix.lower() in {".wav", ".mp4"}:  # channel 01: speech, not song
            performances.setdefault(_stem(f)[3:], {}).setdefault(match[1], f)
    entries = []
    for code, media in performances.items():
        _, emotion, intensity, statement, _, actor = code.split("-")
        entries.append(
            Entry(
                clip="ravdess-" + code,
                subject=f"ravdess-{actor}",
                sex="male" if int(actor) % 2 else "female",
                emotion=RAVDESS_CODES[int(emotion) - 1],
                intensity={"01": "normal", "02": "strong"}[intensity],
                statement={"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}[statement],
                video=media.get("01") or media.get("02"),
                audio=media.get("03") or media.get("01"),
            )
        )
    return entries


def _crema(root: Path) -> list[Entry]:
    clips: dict[str, dict[str, str]] = {}
    sexes: dict[str, str] = {}
    for f in files(root):
        path = Path(f)
        if path.name == "VideoDemographics.csv":
            with open(path, newline="", encoding="utf-8") as handle:
                sexes = {row["ActorID"]: row["Sex"].lower() for row in csv.DictReader(handle)}
        elif CREMA_NAME.match(path.stem) and path.suffix.lower() in {".flv", ".mp4", ".wav", ".mp3"}:
            kind = "audio" if path.suffix.lower() in {".wav", ".mp3"} else "video"
            if path.suffix.lower() == ".wav" or kind not in clips.get(path.stem, {}):
                clips.setdefault(path.stem, {})[kind] = f
    entries = []
    for clip, media in clips.items():
        actor, statement, emotion, intensity = clip.split("_")
        entries.append(
            Entry(
                clip="crema-" + clip,
                subject=f"crema-{actor}",
                sex=sexes.get(actor, ""),
                emotion=SYNONYMS[emotion.lower()],
                intensity=intensity,
                statement=statement,
                video=media.get("video"),
                audio=media.get("audio") or media.get("video"),
            )
        )
    return entries


def _demo_clips(root: Path) -> list[Entry]:
    found = {_stem(f): f for f in files(root) if DEMO_NAME.match(_stem(f)) and f.lower().endswith(".mp4")}
    sound = {_stem(f): f for f in files(root) if f.lower().endswith(".wav")}
    entries = []
    for clip, video in found.items():
        _, actor, emotion, _ = clip.split("_")
        sex = "male" if int(actor) % 2 else "female"
        entries.append(Entry(clip, f"demo-{actor}", sex, SYNONYMS[emotion.lower()], video=video, audio=sound.get(clip, video)))
    return entries


def _faces(root: Path) -> list[Entry]:
    entries = []
    for f in files(root):
        path = Path(f.split("!")[-1])
        emotion = SYNONYMS.get(path.parent.name.lower())
        if emotion and path.suffix.lower() in IMAGES:
            inside = "/".join(path.parts[-3:])
            entries.append(Entry(clip=inside, subject="", sex="", emotion=emotion, video=f, crop=True))
    return entries
