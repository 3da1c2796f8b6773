"""The demo corpus of PROTOCOL.md: invented actors who show an emotion with a drawn face and a synthetic voice, with no download.

Everything follows from (seed, actor, emotion, number of the take): a clip is the same bit for bit in whatever order clips are made.
A face is a relief lit from the upper left, moved by facial action units (Ekman, Friesen & Hager, FACS 2002; which units belong to which
emotion: EMFACS and Du, Tao & Martinez, PNAS 2014). A voice is a source and a filter: each glottal pulse (spectrum after Doval,
d'Alessandro & Henrich, Acta Acustica 2006) rings through the vocal tract as it stands at that moment (vowels: Peterson & Barney,
JASA 1952); how emotions colour it: Murray & Arnott, JASA 1993; Banse & Scherer, JPSP 1996; Juslin & Laukka, Psychological Bulletin 2003;
Tartter, Perception & Psychophysics 1980 on the smile. Numbers are rounded from these by hand.
Face and voice of a take share its mood (how strongly, and with which other emotion mixed), so a pair tells more than its class.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from core.config import CREMA_EMOTIONS, LogMel
from core.data.demo import rendering

RATE = LogMel().rate  # Hz
FRAME_SIZE = 192  # pixels of a face's side
F32 = np.float32
EMOTION_CODES = {
    "neutral": "NEU",
    "happy": "HAP",
    "sad": "SAD",
    "angry": "ANG",
    "fear": "FEA",
    "disgust": "DIS",
}  # as CREMA-D names them

ACTION_UNITS = {  # facial action unit -> activation 0..1 at full strength for neutral, happy, sad, angry, fear, disgust
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
PROSODY = {  # measure -> spread within one emotion, then its change at full strength for neutral, happy, sad, angry, fear, disgust
    "pitch": (1.0, 0, 5, -1.5, 4.5, 8, -2),  # semitones
    "range": (0.3, 0, 1.3, -0.8, 0.5, -0.3, -0.1),  # octaves of the size of the pitch movements
    "slope": (0.8, 0, 2.5, -1.2, -2, 1, -1.5),  # semitones per second over the clip
    "rate": (0.1, 0, 0.18, -0.45, 0.2, 0.42, -0.25),  # octaves of the speech rate
    "level": (1.5, 0, 4, -6, 8, 0, -1),  # dB
    "tilt": (
        0.3,
        0,
        0.7,
        -1.1,
        1.5,
        0.1,
        -0.3,
    ),  # octaves around 2.6 kHz, above which the source falls by a further 6 dB per octave
    "breath": (1.5, 0, 0, 9, -4, 8, 2),  # dB of the noise of breathing
    "jitter": (0.3, 0, 0, 0.5, 0.8, 2.0, 1.2),  # % of a period
    "creak": (0.08, 0, 0, 0.1, 0, 0, 0.9),  # share of every second pulse that is lost
    "tremor": (0.1, 0, 0, 0.1, 0, 1, 0),  # semitones, 7 times a second
    "spread": (
        0.01,
        0,
        0.07,
        -0.02,
        0.01,
        0.02,
        -0.05,
    ),  # log of the formants' factor: lips spread in a smile shorten the tract
    "attack": (0.15, 0, 0.3, -0.6, 1.0, -0.2, 0),  # how stressed syllables stand out
}
VOWELS = np.array(  # F1, F2, F3 in Hz of a man's i, ɪ, ɛ, æ, ɑ, ɔ, ʊ, u, ʌ, ɝ (Peterson & Barney 1952), and how open the mouth is
    [(270, 2290, 3010, 0.2), (390, 1990, 2550, 0.3), (530, 1840, 2480, 0.5), (660, 1720, 2410, 0.8), (730, 1090, 2440, 1.0),
     (570, 840, 2410, 0.6), (440, 1020, 2240, 0.3), (300, 870, 2240, 0.2), (640, 1190, 2390, 0.7), (490, 1350, 1690, 0.4)]
)  # fmt: skip
CONSONANTS = np.array(  # m n b d g l w v z s ʃ t: locus F1, F2, F3 (Hz), voicing 0..1, and noise: loudness 0..1, centre, width (Hz)
    [(270, 1100, 2200, 0.35, 0, 1000, 900), (270, 1600, 2500, 0.35, 0, 1000, 900), (220, 850, 2200, 0.12, 0.25, 900, 800),
     (220, 1700, 2600, 0.12, 0.35, 3600, 1500), (220, 2000, 2300, 0.12, 0.35, 2200, 800), (350, 1150, 2750, 0.6, 0, 1000, 900),
     (300, 700, 2200, 0.5, 0, 1000, 900), (250, 1100, 2300, 0.3, 0.15, 4500, 2500), (250, 1600, 2500, 0.25, 0.45, 5800, 1300),
     (250, 1600, 2500, 0, 0.7, 5900, 1300), (250, 1800, 2400, 0, 0.7, 3300, 1200), (250, 1700, 2600, 0, 0.5, 4200, 1500)]
)  # fmt: skip
STOP_CONSONANTS = (2, 3, 4, 11)  # b d g t


@dataclass(frozen=True)
class Difficulty:
    """How hard the emotions are to tell. Tuned so that, on new actors, the demo's f_T has 45-60 % and f_S 60-75 % of six classes."""

    weakest: float = (
        0.45  # strength of a take is uniform between these two; 1 is the textbook expression
    )
    strongest: float = 1.0
    blend: float = 0.3  # largest share of another emotion in a take
    face_spread: float = 0.18  # sd of every action unit around its mood
    face_habit: float = 0.09  # sd of every action unit of an actor at rest
    voice_spread: float = (
        0.45  # sd of every measure of the voice around its mood, in PROSODY's spreads
    )
    voice_habit: float = 0.45  # sd of an actor's own way of speaking, in the same
    pose: float = 0.06  # sd of the head's turn, radians


DEFAULT_DIFFICULTY = Difficulty()


@dataclass(frozen=True)
class Take:
    """One clip of the corpus: `number` counts the takes of this actor and emotion from 0; `strength` is 0 (weak) to 1 (textbook)."""

    clip_id: str
    actor: int
    sex: str
    emotion: str
    number: int
    strength: float


def list_takes(
    takes_per_emotion: int = 10,
    actors: int = 24,
    seed: int = 0,
    difficulty: Difficulty = DEFAULT_DIFFICULTY,
) -> list[Take]:
    """The corpus' index, `actors` x 6 x `takes_per_emotion`, by actor (from 1; odd ones male, as in RAVDESS), emotion, number."""
    return [
        Take(
            clip_id=f"demo_{actor:02d}_{EMOTION_CODES[emotion]}_{number:02d}",
            actor=actor,
            sex="male" if actor % 2 else "female",
            emotion=emotion,
            number=number,
            strength=float(
                _rng(seed, actor, emotion, number, "strength").uniform(
                    difficulty.weakest, difficulty.strongest
                )
            ),
        )
        for actor in range(1, actors + 1)
        for emotion in CREMA_EMOTIONS
        for number in range(takes_per_emotion)
    ]


def _rng(seed: int, actor: int, emotion: str, number: int, use: str) -> np.random.Generator:
    """A stream of its own for every use, so that no clip depends on which others were made before."""
    return np.random.default_rng(
        [seed, actor, CREMA_EMOTIONS.index(emotion), number, *use.encode()]
    )


def _emotion_mixture(take: Take, seed: int, d: Difficulty) -> np.ndarray:
    """(6,) how much of each emotion is in the take: its own, some of another, the rest of 1 is neutral. Face and voice share it."""
    rng = _rng(seed, take.actor, take.emotion, take.number, "mood")
    own = CREMA_EMOTIONS.index(take.emotion)
    other = (own + rng.integers(1, 6)) % 6
    share = d.blend * rng.random()
    mood = np.zeros(6)
    mood[own], mood[other] = take.strength * (1 - share), take.strength * share
    return mood


# ---------------------------------------------------------------------------------------------------------------------------- voice


def _speech_plan(take: Take, seed: int, d: Difficulty) -> SimpleNamespace:
    """What is said and how: `seconds`; `times` (n, 3) s of each syllable's consonant, vowel and end; `vowels`, `consonants` (n,), rows of
    the tables; `stress` (n,) 0..1; `how`, PROSODY's measures."""
    rng = _rng(seed, take.actor, take.emotion, take.number, "speech")
    habit = (
        _rng(seed, take.actor, "neutral", 0, "voice habit").normal(size=len(PROSODY))
        * d.voice_habit
    )
    table = np.array(list(PROSODY.values()))  # (measures, 1 + 6)
    values = table[:, 1:] @ _emotion_mixture(take, seed, d) + table[:, 0] * (
        habit + d.voice_spread * rng.normal(size=len(PROSODY))
    )
    how = dict(zip(PROSODY, values.tolist(), strict=True))
    n = int(rng.integers(3, 6))
    lengths = rng.uniform(0.9, 1.1, (n, 2)) * (0.09, 0.21) * 2 ** -how["rate"]
    lengths[-1, 1] *= 1.35  # the last syllable of a phrase is drawn out
    before, after = rng.uniform(0.12, 0.2, 2)
    seconds = float(np.clip(before + lengths.sum() + after, 1.6, 2.4))
    lengths *= min(1.0, (seconds - 0.24) / lengths.sum())
    ends = (seconds - lengths.sum()) * before / (before + after) + np.concatenate(
        [[0.0], np.cumsum(lengths)]
    )
    stress = rng.uniform(0, 0.5, n)
    stress[rng.integers(n)] = 1.0
    vowels, consonants = rng.integers(len(VOWELS), size=n), rng.integers(len(CONSONANTS), size=n)
    times = np.stack([ends[:-1:2], ends[1::2], ends[2::2]], axis=1)
    return SimpleNamespace(
        seconds=seconds, times=times, vowels=vowels, consonants=consonants, stress=stress, how=how
    )


def synthesise_voice(
    take: Take, seed: int = 0, difficulty: Difficulty = DEFAULT_DIFFICULTY
) -> np.ndarray:
    """Nonsense speech of 3 to 5 syllables: (T,) float32 at 16 kHz, 1.6 to 2.4 s, peak below 1."""
    s = _speech_plan(take, seed, difficulty)
    how, rng = s.how, _rng(seed, take.actor, take.emotion, take.number, "voice")
    body = _rng(seed, take.actor, "neutral", 0, "body")
    female = take.sex == "female"
    base = body.normal(205, 16) if female else body.normal(118, 12)  # Hz
    tract = body.normal(1.17 if female else 1.0, 0.03) * np.exp(how["spread"])
    step = 0.004
    t = np.arange(0, s.seconds, step)  # (N,) the score's clock

    # The score: what the articulators aim at, smoothed because they are slow.
    edges = np.concatenate([[0.0], s.times[:, :2].ravel(), [s.times[-1, 2]]])
    segment = (
        np.searchsorted(edges, t, side="right") - 2
    )  # -1 silence before, 2 k consonant, 2 k + 1 vowel, 2 n silence after
    n = len(s.vowels)
    syllable = np.clip(segment // 2, 0, n - 1)
    silent, vowel = (segment < 0) | (segment >= 2 * n), segment % 2 == 1
    c = CONSONANTS[s.consonants]
    formants = np.where(vowel[:, None], VOWELS[s.vowels[syllable], :3], c[syllable, :3]).T  # (3, N)
    loud = 10 ** (how["attack"] * (s.stress[syllable] - 0.4) * 6 / 20)
    voicing = np.where(silent, 0.0, np.where(vowel, 1.0, c[syllable, 3])) * loud
    hiss = np.where(silent | vowel, 0.0, c[syllable, 4]) * loud
    stop = np.isin(s.consonants, STOP_CONSONANTS)[syllable]
    hiss *= np.where(stop, 2.5 * (s.times[syllable, 1] - t < 0.022), 1.0)  # closed, then a burst
    formants, voicing, hiss = (
        _smooth_in_time(formants, 0.022 / step),
        _smooth_in_time(voicing, 0.012 / step),
        _smooth_in_time(hiss, 0.008 / step),
    )
    centre, width = c[syllable, 5], c[syllable, 6]
    voicing *= np.interp(t, [0, s.times[0, 0], s.times[-1, 2]], [1, 1, 0.65])  # breath runs out
    move = sum(
        k * np.exp(-(((t - v) / 0.09) ** 2))
        for k, v in zip(2.2 * s.stress, s.times[:, 1] + 0.07, strict=True)
    )
    semitones = (
        how["pitch"] + 2 ** how["range"] * (move - 0.4) + (how["slope"] - 1.0) * (t - s.seconds / 2)
    )
    semitones = (
        semitones
        + max(how["tremor"], 0) * 0.6 * np.sin(2 * np.pi * (7 * t + rng.random()))
        + _smooth_in_time(rng.normal(0, 1.2, len(t)), 6)
    )
    f0 = base * 2 ** (semitones / 12)

    # Glottal pulses: at every whole turn of the phase, each with its own irregularity.
    turns = np.cumsum(f0) * step
    count = np.arange(1, int(turns[-1]))
    when = np.interp(count, turns, t)
    pitch = np.interp(when, t, f0)
    when = when + rng.normal(size=len(when)) * max(0.3, how["jitter"]) / 100 / pitch
    creak = np.clip(how["creak"], 0, 0.85) * (count % 2)
    when = when + 0.12 * creak / pitch
    strength = (
        np.interp(when, t, voicing)
        * (1 - creak)
        * np.exp(0.02 * (1 + max(how["jitter"], 0)) * rng.normal(size=len(when)))
    )
    keep = strength > 1e-3
    when, pitch, strength = when[keep], pitch[keep].astype(F32), strength[keep].astype(F32)
    f = np.fft.rfftfreq(512, 1 / RATE).astype(F32)  # 257 bins: a pulse rings for at most 32 ms
    turn = 1j * f / (0.9 * pitch[:, None])
    corner = 2600 * 2 ** how["tilt"] * strength[:, None] ** 0.5
    source = turn / (1 + turn) ** 2 / (1 + 1j * f / corner)
    at = when * RATE
    whole = at.astype(int)
    delay = np.exp((-2j * np.pi / RATE) * f * (at - whole).astype(F32)[:, None])
    pulses = np.fft.irfft(
        source
        * delay
        * _tract_response(f, t, formants, tract, when)
        * (strength * pitch**0.5)[:, None]
    )
    out = np.zeros(int(s.seconds * RATE) + 1024)
    for k, pulse in zip(whole.tolist(), pulses, strict=True):
        out[k : k + 512] += pulse

    # Noise: breath through the whole tract, friction at the consonant's place; frames of 16 ms that overlap by half.
    middle = np.arange(0, s.seconds - 0.017, 0.008)
    frames = np.fft.rfft(rng.normal(size=(len(middle), 256)) * np.hanning(256), 512)
    g = [np.interp(middle, t, row)[:, None] for row in (voicing, hiss, centre, width)]
    breath = (
        10 ** ((how["breath"] - 30) / 20)
        * g[0]
        * _tract_response(f, t, formants, tract, middle)
        * f
        / (f + 1500)
    )
    friction = 0.5 * g[1] / (1 + ((f - g[2]) / g[3]) ** 2) ** 1.5
    for k, frame in zip(
        (middle * RATE).astype(int).tolist(),
        np.fft.irfft(frames * (4 * breath + friction)),
        strict=True,
    ):
        out[k : k + 512] += frame
    out = out[: int(s.seconds * RATE)] * 10 ** ((how["level"] - 20) / 20)
    out += rng.normal(0, 2e-4, len(out))  # the room
    return (out * min(1.0, 0.97 / np.abs(out).max())).astype(F32)


def _smooth_in_time(x: np.ndarray, sd: float) -> np.ndarray:
    return gaussian_filter1d(x, sd, axis=-1, mode="nearest")


def _tract_response(
    f: np.ndarray, t: np.ndarray, formants: np.ndarray, scale: float, when: np.ndarray
) -> np.ndarray:
    """Transfer function of the vocal tract at the times `when` (n,), seven resonators in a row: (n, 257) complex.

    f (257,) Hz; the score's clock t (N,) s and formants (3, N) Hz of a man; `scale` is his tract's length over the speaker's.
    """
    f = f / 1000  # kHz, or the product of fourteen frequencies leaves single precision
    below = np.ones((len(when), len(f)), np.complex64)
    above = np.ones((len(when), 1), F32)
    for k in range(7):
        hertz = (
            np.interp(when, t, formants[k]) if k < 3 else np.full(len(when), 500.0 + 1000 * k)
        )  # an even tube above F3
        peak = (hertz * scale / 1000).astype(F32)[:, None]
        below *= peak**2 - f * f + 1j * f * (0.045 + 0.04 * peak)
        above *= peak**2
    return above / below


def _action_units(take: Take, seed: int, t: float, d: Difficulty) -> dict[str, float]:
    """Action units 0..1.2 at time t: mood, the actor's face at rest, chance, and the mouth that speaks."""
    rng = _rng(seed, take.actor, take.emotion, take.number, "units")
    habit = (
        _rng(seed, take.actor, "neutral", 0, "face habit").normal(size=len(ACTION_UNITS))
        * d.face_habit
    )
    values = (
        np.array(list(ACTION_UNITS.values())) @ _emotion_mixture(take, seed, d)
        + habit
        + d.face_spread * rng.normal(size=len(ACTION_UNITS))
    )
    units = dict(zip(ACTION_UNITS, np.clip(values, 0, 1.1).tolist(), strict=True))
    s = _speech_plan(take, seed, d)
    vowel, wide = s.times[:, 1:].mean(axis=1), np.diff(s.times[:, 1:]).ravel() * 0.4 + 0.02
    talk = float((VOWELS[s.vowels, 3] * np.exp(-(((t - vowel) / wide) ** 2))).max())
    units["open"] = min(1.2, units["open"] * (1 - 0.3 * talk) + 0.4 * talk)
    units["press"] *= 1 - talk
    blink = (
        rng.uniform(0.1, 0.3) if rng.random() < 0.5 else s.seconds - rng.uniform(0.1, 0.3)
    )  # never at the middle
    units["blink"] = max(0.0, 1 - abs(t - blink) / 0.09)
    return units


def render_face(
    take: Take,
    seed: int = 0,
    t: float = 0.0,
    size: int = FRAME_SIZE,
    difficulty: Difficulty = DEFAULT_DIFFICULTY,
) -> tuple[np.ndarray, np.ndarray]:
    """The actor's face t seconds into the clip: (size, size, 3) uint8 RGB, and (5, 2) float pixels (x, y) of the places that §3.4 aligns.

    The points are the centres of the eye on the image's left and right, the tip of the nose, the mouth's centre and the chin.
    The mouth follows the syllables of `synthesise_voice`, so the frame of a spectrogram's middle is t = half of the voice's duration.
    """
    units = _action_units(take, seed, t, difficulty)
    rng = _rng(seed, take.actor, take.emotion, take.number, "pose")
    pose = (
        np.clip(rng.normal(size=5), -1.8, 1.8) * difficulty.pose * (0.8, 1.5, 1.1, 1.0, 0.7)
    ).tolist()
    roll, yaw, pitch, sway, skew = pose
    pitch += 0.06 * units["corner_down"] - 0.03 * units["open"]
    roll += 0.02 * float(np.sin(2 * t + 20 * sway))
    gaze = (rng.normal(size=2) * (0.012, 0.006)).tolist()
    look = rendering.random_appearance(
        _rng(seed, take.actor, "neutral", 0, "look"), take.actor, take.sex == "female"
    )
    return rendering.draw_face(look, units, (roll, yaw, pitch), skew, gaze, size)


def render_clip(
    take: Take,
    seed: int = 0,
    fps: int = 25,
    size: int = 320,
    difficulty: Difficulty = DEFAULT_DIFFICULTY,
) -> tuple[np.ndarray, np.ndarray]:
    """The whole clip: (F, size, size, 3) uint8 frames at `fps` and the voice, (T,) float32 at 16 kHz, of the same duration."""
    wave = synthesise_voice(take, seed, difficulty)
    frames = [
        render_face(take, seed, k / fps, size, difficulty)[0]
        for k in range(round(len(wave) / RATE * fps))
    ]
    return np.stack(frames), wave
