"""§4.1: emotions in one vocabulary: each corpus' spellings, raters' votes, and the label."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from core.config.settings import CREMA_EMOTIONS, EMOTIONS

EMOTION_SYNONYMS = {  # every corpus' spelling -> the one vocabulary of config.EMOTIONS
    "neutral": "neutral", "neu": "neutral",
    "calm": "calm", "calmness": "calm",
    "happy": "happy", "hap": "happy", "happiness": "happy", "joy": "happy", "joyful": "happy",
    "sad": "sad", "sadness": "sad",
    "angry": "angry", "ang": "angry", "anger": "angry",
    "fear": "fear", "fea": "fear", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "disgust": "disgust", "dis": "disgust", "disgusted": "disgust",
    "surprise": "surprise", "surprised": "surprise", "sur": "surprise",
    "pleasant surprise": "surprise", "ps": "surprise",
}  # fmt: skip
VOTE_CODES = {e[0].upper(): e for e in sorted(CREMA_EMOTIONS)}  # of CREMA-D's summaryTable.csv
VOTE_MODALITIES = ("voice", "face", "both")  # material that raters judged: the columns of `votes`

LabelSource = Literal["intended", "voice", "face", "both"]
TieRule = Literal["drop", "intended"]


def emotion_of(word: str) -> str:
    """The emotion of config.EMOTIONS that a corpus calls `word`, in any case; "" if unknown.

    >>> emotion_of("Pleasant_Surprise"), emotion_of("FEA"), emotion_of("bored")
    ('surprise', 'fear', '')
    """
    words = word.lower().replace("_", " ").replace("-", " ").split()
    return EMOTION_SYNONYMS.get(" ".join(words), "")


def similar_emotion(word: str) -> str:
    """The emotion that a misspelt `word` may mean, or "".

    >>> similar_emotion("Hapy"), similar_emotion("contempt")
    ('happy', '')
    """
    words = " ".join(word.lower().replace("_", " ").replace("-", " ").split())
    near = difflib.get_close_matches(words, EMOTION_SYNONYMS, 1, 0.75) if len(words) > 3 else []
    return EMOTION_SYNONYMS[near[0]] if near else ""


def unknown_emotion_message(word: str) -> str:
    """The message that `word` is no known emotion, with every spelling that is one."""
    spellings = {
        e: ", ".join(w for w, to in EMOTION_SYNONYMS.items() if to == e and w != e)
        for e in EMOTIONS
    }
    known = "; ".join(f"{e} ({words})" for e, words in spellings.items())
    why = ""
    if word.strip().isdecimal():
        why = ": numbers name other emotions in every corpus, so write the word"
    elif similar := similar_emotion(word):
        why = f", perhaps {similar}"
    return f"unknown emotion {word!r}{why}; known are {known}"


def parse_vote(codes: str) -> str:
    """CREMA-D's vote as emotions; a tie is joined by "|", no vote is "".

    Raises ValueError on a code other than A, D, F, H, N and S.

    >>> parse_vote("A"), parse_vote("D:A")
    ('angry', 'angry|disgust')
    """
    parts = {c.strip() for c in codes.split(":")} if codes.strip() else set()
    if not parts <= set(VOTE_CODES):
        known = ", ".join(VOTE_CODES)
        raise ValueError(
            f"the vote {codes!r} is none of {known}, nor several of them joined by ':'"
        )
    return "|".join(sorted(VOTE_CODES[c] for c in parts))


def choose_labels(
    intended: Sequence[str] | np.ndarray,
    votes: Iterable[Sequence[str]],
    labels: LabelSource,
    ties: TieRule,
) -> np.ndarray:
    """The label of each clip, (N,) str, "" where there is no usable one.

    `intended` are emotions (N,), `votes` (N, 3) by VOTE_MODALITIES. A tied vote gives no label, or
    with `ties` = "intended" the intended emotion if it is among the tied ones.

    >>> votes = [("angry", "", ""), ("angry|fear", "", ""), ("", "", "")]
    >>> choose_labels(["sad", "fear", "sad"], votes, "voice", "intended").tolist()
    ['angry', 'fear', '']
    """
    if labels == "intended":
        return np.asarray(intended)
    column = VOTE_MODALITIES.index(labels)
    chosen = []
    for emotion, row in zip(intended, votes, strict=True):
        voted = str(row[column]).split("|")
        tied = str(emotion) if ties == "intended" and emotion in voted else ""
        chosen.append(voted[0] if len(voted) == 1 else tied)
    return np.array(chosen, dtype=str)
