"""§4.1: facts about each corpus: names of its files, official clips, licence, dB reference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

from core import files

# Emotions 01 to 08, Livingstone & Russo 2018.
RAVDESS_CODES = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")
RAVDESS_STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
# VideoDemographics.csv; copies of the corpus without that file must get the same sets S1-S4.
CREMA_WOMEN = frozenset(
    f"10{n:02d}"
    for n in (
        *(2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 18, 20, 21, 24, 25, 28, 29, 30, 37, 43, 46, 47, 49, 52),
        *(53, 54, 55, 56, 58, 60, 61, 63, 72, 73, 74, 75, 76, 78, 79, 82, 84, 89, 91),
    )
)
# IEO, the twelfth sentence, is spoken at three levels of intensity.
CREMA_SENTENCES = ("IOM", "IWL", "TAI", "TSI", "IWW", "DFA", "TIE", "ITS", "MTI", "ITH", "WSI")
CREMA_EMOTION_CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
# Beginnings of the names of clips that were never published.
CREMA_UNPUBLISHED = ("1002_TIE_NEU", "1008_WSI", "1009_MTI", "1019_ITH", "1076_ITS_NEU")
NAME_PATTERNS = {  # corpus -> pattern of its file names, without ending; they hold all facts
    "crema-d": re.compile(r"^(10\d\d)_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX|X)$"),
    "ravdess": re.compile(
        r"^(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-([01]\d|2[0-4])$"
    ),  # modality, channel, emotion, intensity, statement, repetition, actor
    "demo-clips": re.compile(r"^demo_(\d\d)_(ANG|DIS|FEA|HAP|NEU|SAD)_(\d\d)$"),
}


class CorpusError(files.UserError):
    """A corpus that cannot be read; the message names the folder and what it should hold."""


@dataclass(frozen=True)
class ClipEntry:
    """One clip of a corpus. Media are 'path' or 'archive.zip!member'."""

    clip: str
    subject: str  # "" where unknown
    sex: str  # "female", "male" or "" where unknown
    emotion: str  # of config.EMOTIONS: the intended one
    intensity: str = ""
    statement: str = ""
    video: str | None = None
    audio: str | None = None
    crop: bool = False  # `video` is a picture, not a film
    # Raters' emotion of voice, face, both; a tie is "angry|disgust", no vote "".
    votes: tuple[str, str, str] = ("", "", "")


@dataclass(frozen=True)
class Corpus:
    """Facts about a corpus, known in advance: fixed dB reference (see `LogMel`), terms of use."""

    name: str
    title: str
    ref_db: float  # dB of log-mel power that is drawn as 1
    licence: str
    source: str
    is_shareable: bool = False  # whether a few of its voices may go along with a run, attributed


KNOWN_CORPORA = {
    c.name: c
    for c in (
        Corpus(
            "demo",
            "Demo corpus (invented faces and voices)",
            10.0,
            "MIT, drawn and synthesised by this project",
            "core/data/demo",
        ),
        Corpus(
            "demo-clips",
            "Demo clips (invented), through video and sound files",
            10.0,
            "MIT",
            "python -m core data draw",
        ),
        Corpus(
            "ravdess",
            "RAVDESS speech",
            5.0,
            "CC BY-NC-SA 4.0",
            "Livingstone & Russo 2018, Zenodo record 1188976",
            is_shareable=True,
        ),
        Corpus(
            "crema-d",
            "CREMA-D",
            5.0,
            "ODbL 1.0 / DbCL 1.0",
            "Cao et al. 2014, GitHub CheyneyComputerScience/CREMA-D",
        ),
        Corpus(
            "fer2013",
            "FER2013 faces",
            0.0,
            "public challenge data, research use",
            "Goodfellow et al. 2013",
        ),
    )
}
EXPECTED_FILES = {
    "crema-d": "VideoFlash/1001_DFA_ANG_XX.flv and AudioWAV/1001_DFA_ANG_XX.wav",
    "demo-clips": "demo_01_ANG_00.mp4 and demo_01_ANG_00.wav; python -m core data draw writes them",
    "ravdess": "Actor_01/03-01-01-01-01-01-01.wav or the published zips",
    "fer2013": "train/<emotion>/<image>.jpg",
}


def official_clips(name: str) -> dict[str, set[str]]:
    """Actor -> names of every clip that the official corpus has of them; {} without such a list.

    CREMA-D: 7,442 of 91 actors, "1001_DFA_ANG_XX". RAVDESS speech: 1,440 of 24 actors,
    "01-01-01-01-01-01", which is the file's name without the modality.

    >>> sum(len(clips) for clips in official_clips("crema-d").values())
    7442
    """
    if name == "crema-d":
        rest = [f"{s}_{e}_XX" for s, e in product(CREMA_SENTENCES, CREMA_EMOTION_CODES)]
        levels = product([e for e in CREMA_EMOTION_CODES if e != "NEU"], ("LO", "MD", "HI"))
        rest += ["IEO_NEU_XX", *(f"IEO_{e}_{level}" for e, level in levels)]
        clips = {str(a): {f"{a}_{r}" for r in rest} for a in range(1001, 1092)}
        return {
            a: {c for c in of if not c.startswith(CREMA_UNPUBLISHED)} for a, of in clips.items()
        }
    if name == "ravdess":
        emotions = [f"{e:02d}" for e in range(1, 9)]
        codes = ["-".join(c) for c in product(["01"], emotions, *3 * [["01", "02"]])]
        codes = [c for c in codes if not c.startswith("01-01-02")]  # neutral has no strong form
        return {f"{a:02d}": {f"{c}-{a:02d}" for c in codes} for a in range(1, 25)}
    return {}
