"""§4.1: what a clip shows, in one vocabulary for all corpora: spellings of emotions, raters' votes, and which of them is the label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from core.config import EMOTIONS

EMOTION_SYNONYMS = {  # every corpus' spelling -> the one vocabulary of config.EMOTIONS
    "neutral": "neutral", "neu": "neutral",
    "calm": "calm", "calmness": "calm",
    "happy": "happy", "hap": "happy", "happiness": "happy", "joy": "happy", "joyful": "happy",
    "sad": "sad", "sadness": "sad",
    "angry": "angry", "ang": "angry", "anger": "angry",
    "fear": "fear", "fea": "fear", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "disgust": "disgust", "dis": "disgust", "disgusted": "disgust",
    "surprise": "surprise", "surprised": "surprise", "sur": "surprise", "pleasant surprise": "surprise", "ps": "surprise",
}  # fmt: skip
VOTE_CODES = {
    "A": "angry",
    "D": "disgust",
    "F": "fear",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
}  # CREMA-D's summaryTable.csv
VOTE_MODALITIES = (
    "voice",
    "face",
    "both",
)  # what raters heard or saw: the order of `votes` everywhere

LabelSource = Literal["intended", "voice", "face", "both"]
TieRule = Literal["drop", "intended"]


def emotion_of(word: str) -> str:
    """The emotion of config.EMOTIONS that a corpus calls `word`, whatever its case; "" where it is none that we know."""
    return EMOTION_SYNONYMS.get(
        " ".join(word.lower().replace("_", " ").replace("-", " ").split()), ""
    )


def unknown_emotion_message(word: str) -> str:
    """What to tell whoever wrote `word` for an emotion: why it is not understood, and every spelling that is."""
    known = "; ".join(
        f"{e} ({', '.join(w for w, to in EMOTION_SYNONYMS.items() if to == e and w != e)})"
        for e in EMOTIONS
    )
    why = (
        ": numbers name other emotions in every corpus, so write the word"
        if word.strip().isdecimal()
        else ""
    )
    return f"unknown emotion {word!r}{why}; known are {known}"


def parse_vote(codes: str) -> str:
    """CREMA-D's vote "A", or a tie such as "D:A" -> "angry", "angry|disgust"; "" stays "".

    Raises ValueError on a code other than A, D, F, H, N and S.
    """
    parts = [c.strip() for c in codes.split(":")] if codes.strip() else []
    if not set(parts) <= set(VOTE_CODES):
        raise ValueError(
            f"the vote {codes!r} is none of {', '.join(VOTE_CODES)}, nor several of them joined by ':'"
        )
    return "|".join(sorted(VOTE_CODES[c] for c in set(parts)))


def choose_labels(
    intended: Sequence[str] | np.ndarray,
    votes: Iterable[Sequence[str]],
    labels: LabelSource,
    ties: TieRule,
) -> np.ndarray:
    """The label of each clip. Emotions (N,) and votes (N, 3) of VOTED -> (N,) str, "" where there is no usable label.

    A tied vote names no label; with `ties` = "intended" it leaves the intended emotion if that is among the tied.
    """
    if labels == "intended":
        return np.asarray(intended)
    column = VOTE_MODALITIES.index(labels)
    out = []
    for meant, row in zip(intended, votes, strict=True):
        voted = str(row[column]).split("|")
        kept = (
            voted[0]
            if len(voted) == 1
            else str(meant)
            if ties == "intended" and meant in voted
            else ""
        )
        out.append(kept)
    return np.array(out, dtype=str)
