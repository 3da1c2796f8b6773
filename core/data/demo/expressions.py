"""A demo actor's face at one moment: facial action units from emotion, habit, chance and speech.

Action units: Ekman, Friesen & Hager, FACS 2002. Units of each emotion: EMFACS; Du, Tao & Martinez,
PNAS 2014. Numbers are rounded from these by hand.
"""

from __future__ import annotations

import functools

import numpy as np

from core.data.demo import actors, rendering, voices
from core.media.faces import alignment

FRAME_SIZE = 192  # pixels of a face's side
# Facial action unit -> activation 0..1 at full strength, by CREMA_EMOTIONS.
ACTION_UNITS = {
    "inner_raise": (0, 0.1, 1, 0, 0.95, 0),  # AU1
    "outer_raise": (0, 0.15, 0, 0, 0.8, 0),  # AU2
    "lower_brow": (0, 0, 0.35, 1, 0.3, 0.6),  # AU4
    "lid_raise": (0, 0, 0, 0.55, 1, 0),  # AU5
    "cheek": (0, 0.9, 0, 0, 0, 0.4),  # AU6
    "tighten": (0, 0, 0, 0.6, 0, 0.7),  # AU7
    "wrinkle": (0, 0, 0, 0, 0, 1),  # AU9
    "lip_raise": (0, 0, 0, 0.15, 0, 0.95),  # AU10
    "smile": (0, 1, 0, 0, 0, 0),  # AU12
    "corner_down": (0, 0, 0.95, 0.15, 0, 0.4),  # AU15
    "chin_raise": (0, 0, 0.6, 0.25, 0, 0.3),  # AU17
    "stretch": (0, 0, 0, 0.1, 0.8, 0),  # AU20
    "press": (0, 0, 0.1, 0.75, 0, 0.1),  # AU23
    "open": (0, 0.6, 0, 0.1, 0.7, 0.2),  # AU25 and AU26
    "droop": (0, 0, 0.55, 0, 0, 0),  # AU43
}


def _action_units(take: actors.Take, seed: int, t: float, d: actors.Difficulty) -> dict[str, float]:
    """Action units 0..1.2 at time t (s): mixture, the actor's face at rest, chance, and speech."""
    rng, n = actors.take_stream(take, seed, "units"), len(ACTION_UNITS)
    habit = actors.actor_stream(take, seed, "face habit").normal(size=n) * d.face_habit
    table = np.array(list(ACTION_UNITS.values()))
    values = table @ actors.emotion_mixture(take, seed, d) + habit
    values = values + d.face_spread * rng.normal(size=n)
    units = dict(zip(ACTION_UNITS, np.clip(values, 0, 1.1).tolist(), strict=True))

    # The mouth opens with each vowel
    s = voices.speech_plan(take, seed, d)
    vowel, wide = s.times[:, 1:].mean(axis=1), np.diff(s.times[:, 1:]).ravel() * 0.4 + 0.02
    openness = voices.VOWELS[s.vowels, 3] * np.exp(-(((t - vowel) / wide) ** 2))
    talk = float(openness.max())
    units["open"] = min(1.2, units["open"] * (1 - 0.3 * talk) + 0.4 * talk)
    units["press"] *= 1 - talk

    # One blink, never in the middle of the clip
    early = rng.random() < 0.5
    blink = rng.uniform(0.1, 0.3)
    blink = blink if early else s.seconds - blink
    units["blink"] = max(0.0, 1 - abs(t - blink) / 0.09)
    return units


def render_face(
    take: actors.Take,
    seed: int = 0,
    t: float = 0.0,
    size: int = FRAME_SIZE,
    difficulty: actors.Difficulty = actors.DEFAULT_DIFFICULTY,
    needed: rendering.PartFunction | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The face at time t (s), (size, size, 3) uint8 RGB, and its five points (5, 2), pixels (x, y).

    The points are those that §3.4 aligns: centres of the eye on the image's left and right, tip of
    the nose, centre of the mouth, chin. The mouth follows the syllables of `synthesise_voice`, so
    that the frame of a spectrogram's middle is at half of the voice's duration. With `needed` only
    the part that it returns for the points is painted.
    """
    units = _action_units(take, seed, t, difficulty)
    rng = actors.take_stream(take, seed, "pose")
    pose = np.clip(rng.normal(size=5), -1.8, 1.8) * difficulty.pose * (0.8, 1.5, 1.1, 1.0, 0.7)
    roll, yaw, pitch, sway, skew = pose.tolist()
    pitch += 0.06 * units["corner_down"] - 0.03 * units["open"]
    roll += 0.02 * float(np.sin(2 * t + 20 * sway))
    gaze = (rng.normal(size=2) * (0.012, 0.006)).tolist()
    look = rendering.random_appearance(
        actors.actor_stream(take, seed, "look"), take.actor, take.sex == "female"
    )
    return rendering.draw_face(look, units, (roll, yaw, pitch), skew, gaze, size, needed)


def aligned_face(take: actors.Take, t: float) -> np.ndarray:
    """What §3.4 takes from `render_face` at time t (s), (28, 28) uint8; no more is painted."""
    read = functools.partial(alignment.read_part, (FRAME_SIZE, FRAME_SIZE))
    return alignment.align(*render_face(take, t=t, needed=read))
