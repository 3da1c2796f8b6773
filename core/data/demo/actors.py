"""The demo corpus: invented actors who show emotions by face and voice, no download.

Everything follows from (seed, actor, emotion, number of the take): a clip is the same bit for bit
in any order of the work. Face and voice of a take share its emotion mixture (how strong,
and with which other emotion mixed), so that a pair tells more than its class.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from core.config.settings import CREMA_EMOTIONS

EMOTION_CODES = dict(  # emotion -> code in a clip's name, as in CREMA-D
    zip(CREMA_EMOTIONS, ("NEU", "HAP", "SAD", "ANG", "FEA", "DIS"), strict=True)
)


@dataclass(frozen=True)
class Difficulty:
    """Settings for how hard the emotions are to tell apart.

    Tuned so that, on new actors, the demo's f_T has 45-60 % and f_S 60-75 % of six classes.
    """

    weakest: float = 0.45  # smallest strength of a take, uniform up to `strongest`
    strongest: float = 1.0  # 1 is the textbook expression
    blend: float = 0.3  # largest share of another emotion in a take
    face_spread: float = 0.18  # sd of every action unit around its mixture
    face_habit: float = 0.09  # sd of every action unit of an actor at rest
    voice_spread: float = 0.45  # sd of every measure of the voice, in PROSODY's spreads
    voice_habit: float = 0.45  # sd of an actor's own way of speaking, in the same unit
    pose: float = 0.06  # sd of the head's turn, radians


DEFAULT_DIFFICULTY = Difficulty()


@dataclass(frozen=True)
class Take:
    """One clip of the corpus."""

    clip_id: str
    actor: int  # from 1; odd ones are male
    sex: str
    emotion: str
    number: int  # of the takes of this actor and emotion, from 0
    strength: float  # 0 (weak) to 1 (textbook)


@functools.cache  # pages ask for it again and again
def list_takes(
    takes_per_emotion: int = 10,
    actors: int = 24,
    seed: int = 0,
    difficulty: Difficulty = DEFAULT_DIFFICULTY,
) -> tuple[Take, ...]:
    """The corpus' index by actor, emotion, number: `actors` x 6 x `takes_per_emotion` takes.

    Actors count from 1; odd ones are male, as in RAVDESS.

    >>> [take.clip_id for take in list_takes(1)[:2]]
    ['demo_01_NEU_00', 'demo_01_HAP_00']
    """
    takes = []
    for actor in range(1, actors + 1):
        sex = "male" if actor % 2 else "female"
        for emotion in CREMA_EMOTIONS:
            for number in range(takes_per_emotion):
                rng = random_stream(seed, actor, emotion, number, "strength")
                strength = float(rng.uniform(difficulty.weakest, difficulty.strongest))
                clip_id = f"demo_{actor:02d}_{EMOTION_CODES[emotion]}_{number:02d}"
                takes.append(Take(clip_id, actor, sex, emotion, number, strength))
    return tuple(takes)


def random_stream(
    seed: int, actor: int, emotion: str, number: int, use: str
) -> np.random.Generator:
    """A stream of its own for every use, so that no clip depends on which were made before."""
    key = [seed, actor, CREMA_EMOTIONS.index(emotion), number, *use.encode()]
    return np.random.default_rng(key)


def take_stream(take: Take, seed: int, use: str) -> np.random.Generator:
    """The random stream of one use in one take."""
    return random_stream(seed, take.actor, take.emotion, take.number, use)


def actor_stream(take: Take, seed: int, use: str) -> np.random.Generator:
    """The random stream of what all takes of an actor share."""
    return random_stream(seed, take.actor, "neutral", 0, use)


def emotion_mixture(take: Take, seed: int, d: Difficulty) -> np.ndarray:
    """(6,) share of each emotion in a take: its own, some of another; the rest of 1 is neutral."""
    rng = take_stream(take, seed, "mood")
    own = CREMA_EMOTIONS.index(take.emotion)
    other = (own + rng.integers(1, 6)) % 6
    share = d.blend * rng.random()
    mixture = np.zeros(6)
    mixture[own], mixture[other] = take.strength * (1 - share), take.strength * share
    return mixture
