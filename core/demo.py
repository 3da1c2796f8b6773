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

RATE = LogMel().rate  # Hz
SIZE = 192  # pixels of a face's side
F32 = np.float32
CODES = {"neutral": "NEU", "happy": "HAP", "sad": "SAD", "angry": "ANG", "fear": "FEA", "disgust": "DIS"}  # as CREMA-D names them

UNITS = {  # facial action unit -> activation 0..1 at full strength for neutral, happy, sad, angry, fear, disgust
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
    "tilt": (0.3, 0, 0.7, -1.1, 1.5, 0.1, -0.3),  # octaves around 2.6 kHz, above which the source falls by a further 6 dB per octave
    "breath": (1.5, 0, 0, 9, -4, 8, 2),  # dB of the noise of breathing
    "jitter": (0.3, 0, 0, 0.5, 0.8, 2.0, 1.2),  # % of a period
    "creak": (0.08, 0, 0, 0.1, 0, 0, 0.9),  # share of every second pulse that is lost
    "tremor": (0.1, 0, 0, 0.1, 0, 1, 0),  # semitones, 7 times a second
    "spread": (0.01, 0, 0.07, -0.02, 0.01, 0.02, -0.05),  # log of the formants' factor: lips spread in a smile shorten the tract
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
STOPS = (2, 3, 4, 11)  # b d g t


@dataclass(frozen=True)
class Difficulty:
    """How hard the emotions are to tell. Tuned so that, on new actors, the demo's f_T has 45-60 % and f_S 60-75 % of six classes."""

    weakest: float = 0.45  # strength of a take is uniform between these two; 1 is the textbook expression
    strongest: float = 1.0
    blend: float = 0.3  # largest share of another emotion in a take
    face_spread: float = 0.18  # sd of every action unit around its mood
    face_habit: float = 0.09  # sd of every action unit of an actor at rest
    voice_spread: float = 0.45  # sd of every measure of the voice around its mood, in PROSODY's spreads
    voice_habit: float = 0.45  # sd of an actor's own way of speaking, in the same
    pose: float = 0.06  # sd of the head's turn, radians


DEFAULT = Difficulty()


@dataclass(frozen=True)
class Take:
    """One clip of the corpus: `number` counts the takes of this actor and emotion from 0; `strength` is 0 (weak) to 1 (textbook)."""

    clip_id: str
    actor: int
    sex: str
    emotion: str
    number: int
    strength: float


def takes(takes_per_emotion: int = 10, actors: int = 24, seed: int = 0, difficulty: Difficulty = DEFAULT) -> list[Take]:
    """The corpus' index, `actors` x 6 x `takes_per_emotion`, by actor (from 1; odd ones male, as in RAVDESS), emotion, number."""
    return [
        Take(
            clip_id=f"demo_{actor:02d}_{CODES[emotion]}_{number:02d}",
            actor=actor,
            sex="male" if actor % 2 else "female",
            emotion=emotion,
            number=number,
            strength=float(_rng(seed, actor, emotion, number, "strength").uniform(difficulty.weakest, difficulty.strongest)),
        )
        for actor in range(1, actors + 1)
        for emotion in CREMA_EMOTIONS
        for number in range(takes_per_emotion)
    ]


def _rng(seed: int, actor: int, emotion: str, number: int, use: str) -> np.random.Generator:
    """A stream of its own for every use, so that no clip depends on which others were made before."""
    return np.random.default_rng([seed, actor, CREMA_EMOTIONS.index(emotion), number, *use.encode()])


def _mood(take: Take, seed: int, d: Difficulty) -> np.ndarray:
    """(6,) how much of each emotion is in the take: its own, some of another, the rest of 1 is neutral. Face and voice share it."""
    rng = _rng(seed, take.actor, take.emotion, take.number, "mood")
    own = CREMA_EMOTIONS.index(take.emotion)
    other = (own + rng.integers(1, 6)) % 6
    share = d.blend * rng.random()
    mood = np.zeros(6)
    mood[own], mood[other] = take.strength * (1 - share), take.strength * share
    return mood


# ---------------------------------------------------------------------------------------------------------------------------- voice


def _speech(take: Take, seed: int, d: Difficulty) -> SimpleNamespace:
    """What is said and how: `seconds`; `times` (n, 3) s of each syllable's consonant, vowel and end; `vowels`, `consonants` (n,), rows of
    the tables; `stress` (n,) 0..1; `how`, PROSODY's measures."""
    rng = _rng(seed, take.actor, take.emotion, take.number, "speech")
    habit = _rng(seed, take.actor, "neutral", 0, "voice habit").normal(size=len(PROSODY)) * d.voice_habit
    table = np.array(list(PROSODY.values()))  # (measures, 1 + 6)
    values = table[:, 1:] @ _mood(take, seed, d) + table[:, 0] * (habit + d.voice_spread * rng.normal(size=len(PROSODY)))
    how = dict(zip(PROSODY, values.tolist(), strict=True))
    n = int(rng.integers(3, 6))
    lengths = rng.uniform(0.9, 1.1, (n, 2)) * (0.09, 0.21) * 2 ** -how["rate"]
    lengths[-1, 1] *= 1.35  # the last syllable of a phrase is drawn out
    before, after = rng.uniform(0.12, 0.2, 2)
    seconds = float(np.clip(before + lengths.sum() + after, 1.6, 2.4))
    lengths *= min(1.0, (seconds - 0.24) / lengths.sum())
    ends = (seconds - lengths.sum()) * before / (before + after) + np.concatenate([[0.0], np.cumsum(lengths)])
    stress = rng.uniform(0, 0.5, n)
    stress[rng.integers(n)] = 1.0
    vowels, consonants = rng.integers(len(VOWELS), size=n), rng.integers(len(CONSONANTS), size=n)
    times = np.stack([ends[:-1:2], ends[1::2], ends[2::2]], axis=1)
    return SimpleNamespace(seconds=seconds, times=times, vowels=vowels, consonants=consonants, stress=stress, how=how)


def voice(take: Take, seed: int = 0, difficulty: Difficulty = DEFAULT) -> np.ndarray:
    """Nonsense speech of 3 to 5 syllables: (T,) float32 at 16 kHz, 1.6 to 2.4 s, peak below 1."""
    s = _speech(take, seed, difficulty)
    how, rng = s.how, _rng(seed, take.actor, take.emotion, take.number, "voice")
    body = _rng(seed, take.actor, "neutral", 0, "body")
    female = take.sex == "female"
    base = body.normal(205, 16) if female else body.normal(118, 12)  # Hz
    tract = body.normal(1.17 if female else 1.0, 0.03) * np.exp(how["spread"])
    step = 0.004
    t = np.arange(0, s.seconds, step)  # (N,) the score's clock

    # The score: what the articulators aim at, smoothed because they are slow.
    edges = np.concatenate([[0.0], s.times[:, :2].ravel(), [s.times[-1, 2]]])
    segment = np.searchsorted(edges, t, side="right") - 2  # -1 silence before, 2 k consonant, 2 k + 1 vowel, 2 n silence after
    n = len(s.vowels)
    syllable = np.clip(segment // 2, 0, n - 1)
    silent, vowel = (segment < 0) | (segment >= 2 * n), segment % 2 == 1
    c = CONSONANTS[s.consonants]
    formants = np.where(vowel[:, None], VOWELS[s.vowels[syllable], :3], c[syllable, :3]).T  # (3, N)
    loud = 10 ** (how["attack"] * (s.stress[syllable] - 0.4) * 6 / 20)
    voicing = np.where(silent, 0.0, np.where(vowel, 1.0, c[syllable, 3])) * loud
    hiss = np.where(silent | vowel, 0.0, c[syllable, 4]) * loud
    stop = np.isin(s.consonants, STOPS)[syllable]
    hiss *= np.where(stop, 2.5 * (s.times[syllable, 1] - t < 0.022), 1.0)  # closed, then a burst
    formants, voicing, hiss = _slow(formants, 0.022 / step), _slow(voicing, 0.012 / step), _slow(hiss, 0.008 / step)
    centre, width = c[syllable, 5], c[syllable, 6]
    voicing *= np.interp(t, [0, s.times[0, 0], s.times[-1, 2]], [1, 1, 0.65])  # breath runs out
    move = sum(k * np.exp(-(((t - v) / 0.09) ** 2)) for k, v in zip(2.2 * s.stress, s.times[:, 1] + 0.07, strict=True))
    semitones = how["pitch"] + 2 ** how["range"] * (move - 0.4) + (how["slope"] - 1.0) * (t - s.seconds / 2)
    semitones = semitones + max(how["tremor"], 0) * 0.6 * np.sin(2 * np.pi * (7 * t + rng.random())) + _slow(rng.normal(0, 1.2, len(t)), 6)
    f0 = base * 2 ** (semitones / 12)

    # Glottal pulses: at every whole turn of the phase, each with its own irregularity.
    turns = np.cumsum(f0) * step
    count = np.arange(1, int(turns[-1]))
    when = np.interp(count, turns, t)
    pitch = np.interp(when, t, f0)
    when = when + rng.normal(size=len(when)) * max(0.3, how["jitter"]) / 100 / pitch
    creak = np.clip(how["creak"], 0, 0.85) * (count % 2)
    when = when + 0.12 * creak / pitch
    strength = np.interp(when, t, voicing) * (1 - creak) * np.exp(0.02 * (1 + max(how["jitter"], 0)) * rng.normal(size=len(when)))
    keep = strength > 1e-3
    when, pitch, strength = when[keep], pitch[keep].astype(F32), strength[keep].astype(F32)
    f = np.fft.rfftfreq(512, 1 / RATE).astype(F32)  # 257 bins: a pulse rings for at most 32 ms
    turn = 1j * f / (0.9 * pitch[:, None])
    corner = 2600 * 2 ** how["tilt"] * strength[:, None] ** 0.5
    source = turn / (1 + turn) ** 2 / (1 + 1j * f / corner)
    at = when * RATE
    whole = at.astype(int)
    delay = np.exp((-2j * np.pi / RATE) * f * (at - whole).astype(F32)[:, None])
    pulses = np.fft.irfft(source * delay * _tract(f, t, formants, tract, when) * (strength * pitch**0.5)[:, None])
    out = np.zeros(int(s.seconds * RATE) + 1024)
    for k, pulse in zip(whole.tolist(), pulses, strict=True):
        out[k : k + 512] += pulse

    # Noise: breath through the whole tract, friction at the consonant's place; frames of 16 ms that overlap by half.
    middle = np.arange(0, s.seconds - 0.017, 0.008)
    frames = np.fft.rfft(rng.normal(size=(len(middle), 256)) * np.hanning(256), 512)
    g = [np.interp(middle, t, row)[:, None] for row in (voicing, hiss, centre, width)]
    breath = 10 ** ((how["breath"] - 30) / 20) * g[0] * _tract(f, t, formants, tract, middle) * f / (f + 1500)
    friction = 0.5 * g[1] / (1 + ((f - g[2]) / g[3]) ** 2) ** 1.5
    for k, frame in zip((middle * RATE).astype(int).tolist(), np.fft.irfft(frames * (4 * breath + friction)), strict=True):
        out[k : k + 512] += frame
    out = out[: int(s.seconds * RATE)] * 10 ** ((how["level"] - 20) / 20)
    out += rng.normal(0, 2e-4, len(out))  # the room
    return (out * min(1.0, 0.97 / np.abs(out).max())).astype(F32)


def _slow(x: np.ndarray, sd: float) -> np.ndarray:
    return gaussian_filter1d(x, sd, axis=-1, mode="nearest")


def _tract(f: np.ndarray, t: np.ndarray, formants: np.ndarray, scale: float, when: np.ndarray) -> np.ndarray:
    """Transfer function of the vocal tract at the times `when` (n,), seven resonators in a row: (n, 257) complex.

    f (257,) Hz; the score's clock t (N,) s and formants (3, N) Hz of a man; `scale` is his tract's length over the speaker's.
    """
    f = f / 1000  # kHz, or the product of fourteen frequencies leaves single precision
    below = np.ones((len(when), len(f)), np.complex64)
    above = np.ones((len(when), 1), F32)
    for k in range(7):
        hertz = np.interp(when, t, formants[k]) if k < 3 else np.full(len(when), 500.0 + 1000 * k)  # an even tube above F3
        peak = (hertz * scale / 1000).astype(F32)[:, None]
        below *= peak**2 - f * f + 1j * f * (0.045 + 0.04 * peak)
        above *= peak**2
    return above / below


def _units(take: Take, seed: int, t: float, d: Difficulty) -> dict[str, float]:
    """Action units 0..1.2 at time t: mood, the actor's face at rest, chance, and the mouth that speaks."""
    rng = _rng(seed, take.actor, take.emotion, take.number, "units")
    habit = _rng(seed, take.actor, "neutral", 0, "face habit").normal(size=len(UNITS)) * d.face_habit
    values = np.array(list(UNITS.values())) @ _mood(take, seed, d) + habit + d.face_spread * rng.normal(size=len(UNITS))
    units = dict(zip(UNITS, np.clip(values, 0, 1.1).tolist(), strict=True))
    s = _speech(take, seed, d)
    vowel, wide = s.times[:, 1:].mean(axis=1), np.diff(s.times[:, 1:]).ravel() * 0.6 + 0.02
    talk = float((VOWELS[s.vowels, 3] * np.exp(-(((t - vowel) / wide) ** 2))).max())
    units["open"] = min(1.2, units["open"] * (1 - 0.3 * talk) + 0.4 * talk)
    units["press"] *= 1 - talk
    blink = rng.uniform(0.1, 0.3) if rng.random() < 0.5 else s.seconds - rng.uniform(0.1, 0.3)  # never at the middle
    units["blink"] = max(0.0, 1 - abs(t - blink) / 0.09)
    return units


def face(take: Take, seed: int = 0, t: float = 0.0, size: int = SIZE, difficulty: Difficulty = DEFAULT) -> tuple[np.ndarray, np.ndarray]:
    """The actor's face t seconds into the clip: (size, size, 3) uint8 RGB, and (5, 2) float pixels (x, y) of the places that §3.4 aligns.

    The points are the centres of the eye on the image's left and right, the tip of the nose, the mouth's centre and the chin.
    The mouth follows the syllables of `voice`, so the frame of a spectrogram's middle is t = half of the voice's duration.
    """
    units = _units(take, seed, t, difficulty)
    rng = _rng(seed, take.actor, take.emotion, take.number, "pose")
    pose = (np.clip(rng.normal(size=5), -1.8, 1.8) * difficulty.pose * (0.8, 1.5, 1.1, 1.0, 0.7)).tolist()
    roll, yaw, pitch, sway, skew = pose
    pitch += 0.06 * units["corner_down"] - 0.03 * units["open"]
    roll += 0.02 * float(np.sin(2 * t + 20 * sway))
    gaze = (rng.normal(size=2) * (0.012, 0.006)).tolist()
    look = _look(_rng(seed, take.actor, "neutral", 0, "look"), take.actor, take.sex == "female")
    return _draw(look, units, (roll, yaw, pitch), skew, gaze, size)


def clip(take: Take, seed: int = 0, fps: int = 25, size: int = 320, difficulty: Difficulty = DEFAULT) -> tuple[np.ndarray, np.ndarray]:
    """The whole clip: (F, size, size, 3) uint8 frames at `fps` and the voice, (T,) float32 at 16 kHz, of the same duration."""
    wave = voice(take, seed, difficulty)
    frames = [face(take, seed, k / fps, size, difficulty)[0] for k in range(round(len(wave) / RATE * fps))]
    return np.stack(frames), wave


# ------------------------------------------------------------------------------------------------- the drawing: from numbers to a picture

# Lengths are in half heights of a face: x to the right of the image, y down, (0, 0) between the eyes. Colours are RGB 0..1, dark to light.
SKIN = np.array([(99, 86, 78), (96, 78, 66), (89, 68, 53), (76, 54, 39), (60, 41, 29), (48, 32, 23)], F32) / 100
HAIR = np.array([(13, 10, 10), (26, 16, 11), (36, 22, 14), (56, 55, 56), (60, 39, 21), (84, 68, 42), (58, 24, 12)], F32) / 100
IRIS = np.array([(20, 12, 8), (32, 19, 10), (42, 28, 14), (28, 44, 57), (34, 47, 32)], F32) / 100
SHIRT = np.array([(36, 52, 62), (72, 40, 36), (42, 55, 44), (55, 45, 62), (85, 70, 45), (30, 34, 45), (75, 55, 60)], F32) / 100
HAIR_ODDS = {"dark": (0.4, 0.35, 0.2, 0.05, 0, 0, 0), "light": (0.15, 0.2, 0.2, 0.05, 0.17, 0.13, 0.1)}  # by skin
MEASURES = {  # of a face: smallest and largest of a woman, of a man
    "width": (0.66, 0.72, 0.69, 0.75),
    "taper": (0.22, 0.33, 0.12, 0.25),  # how much narrower the jaw is
    "eye": (1.06, 1.22, 0.96, 1.10),
    "brow": (0.026, 0.036, 0.036, 0.050),  # half of its thickness
    "brow_y": (-0.23, -0.20, -0.23, -0.20),
    "nose": (0.85, 1.0, 0.94, 1.1),
    "lips": (1.0, 1.3, 0.75, 1.0),
    "mouth_y": (0.53, 0.57, 0.53, 0.57),
    "fringe": (-0.64, -0.52, -0.64, -0.52),  # y of the hair's edge
    "part": (-0.35, 0.35, -0.35, 0.35),  # x of the parting
}
LIGHT = np.array([-0.42, -0.50, 0.76]) / 1.0025  # from the upper left, unit length
EYE_X, EYE_Y = 0.295, 0.005


def _look(rng: np.random.Generator, actor: int, female: bool) -> SimpleNamespace:
    """What stays the same of an actor's face: MEASURES, colours (3,), style of the hair 0..3, beard 0..1."""
    tone = (rng.uniform(0, 0.12) + (actor // 2) * 0.382 + 0.45 * (actor % 2)) % 1 * (len(SKIN) - 1)  # golden steps: neighbours differ
    dark, k = tone > 0.45 * len(SKIN), int(tone)
    look = {name: rng.uniform(*(m[:2] if female else m[2:])) for name, m in MEASURES.items()}
    return SimpleNamespace(
        **look,
        female=female,
        skin=SKIN[k] + (SKIN[k + 1] - SKIN[k]) * F32(tone - k),
        hair=HAIR[rng.choice(len(HAIR), p=HAIR_ODDS["dark" if dark else "light"])],
        iris=IRIS[rng.integers(3 if dark else 5)],
        shirt=SHIRT[rng.integers(len(SHIRT))],
        wall=(0.88 + 0.05 * np.cos(rng.uniform(0, 2 * np.pi) + np.array([0, 2.1, 4.2]))).astype(F32),
        style=int(rng.integers(4)),
        beard=0.0 if female else float(rng.choice([0, 0, 0.2, 0.8])),
    )


@dataclass(frozen=True)
class _View:
    """A part of the picture, drawn on in place, and where its pixels lie on the head."""

    rgb: np.ndarray  # (3, h, w) float32
    maps: np.ndarray  # (5, h, w): u, v of the outline; x, y on the surface, where features are, which shift as the head turns; relief
    px: float  # a pixel's side
    at: tuple[float, float, float, float]  # cos and sin of the roll over px, pixel of the origin
    turn: tuple[float, float, float, float]  # yaw, pitch, half width and the chin's drop

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Column and row of a place on the surface."""
        c, s, ox, oy = self.at
        yaw, pitch, width, drop = self.turn
        u, v = x, y
        for _ in range(4):
            z = max(0.0, 1 - (u / width) ** 2 - (v / (1 + drop)) ** 2) ** 0.5
            u, v = x + yaw * z, y + pitch * z
        return c * u - s * v + ox, s * u + c * v + oy

    def window(self, x: float, y: float, rx: float, ry: float) -> _View:
        """The part around a place on the surface."""
        col, row = self.pixel(x, y)
        c, s = abs(self.at[0]), abs(self.at[1])
        w, h = c * rx + s * ry + 2, s * rx + c * ry + 2
        cut = (slice(None), slice(max(0, int(row - h)), max(0, int(row + h))), slice(max(0, int(col - w)), max(0, int(col + w))))
        return _View(self.rgb[cut], self.maps[cut], self.px, self.at, self.turn)

    def cover(self, distance: np.ndarray, blur: float = 0.0) -> np.ndarray:
        """Signed distance (inside is negative) -> share of the pixel that is covered, 0..1."""
        return np.clip(0.5 - distance / (self.px + blur), 0, 1)

    def paint(self, mask: np.ndarray, colour: np.ndarray) -> None:
        self.rgb[...] += mask * ((colour if colour.ndim == 3 else colour[:, None, None]) - self.rgb)


def _smooth(x):
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _bell(x, width):
    return np.exp(-((x / width) ** 2))


def _oval(x: np.ndarray, y: np.ndarray, rx: float, ry: float) -> np.ndarray:
    return (np.sqrt((x / rx) ** 2 + (y / ry) ** 2) - 1) * min(rx, ry)


def _rgb(r: float, g: float, b: float) -> np.ndarray:
    return np.array([r, g, b], F32)


def _shaded(colour: np.ndarray, shade: np.ndarray) -> np.ndarray:
    return colour[:, None, None] * shade


def _draw(
    look: SimpleNamespace, a: dict[str, float], turn: tuple[float, float, float], skew: float, gaze: list[float], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """A face of `look` with action units `a`, roll, yaw and pitch `turn` (rad): (size, size, 3) uint8 and the five points (5, 2)."""
    roll, yaw, pitch = turn
    scale = 0.325 * size  # pixels to a unit
    px, drop, ox, oy = 1 / scale, 0.10 * a["open"], (0.5 + 0.1 * roll) * size, 0.485 * size
    y, x = np.mgrid[0:size, 0:size].astype(F32)
    x, y = (x + (0.5 - ox)) * px, (y + (0.5 - oy)) * px
    c, s = float(np.cos(roll)), float(np.sin(roll))
    u, v = c * x + s * y, c * y - s * x
    rgb = _shaded(look.wall, 1 - 0.07 * (y + 0.3) ** 2 - 0.04 * (x + 0.4) ** 2)
    picture = _View(rgb, np.stack([u, v, x, y]), px, (c * scale, s * scale, ox, oy), (yaw, pitch, look.width, drop))
    _draw_body(picture, look)

    top, left = max(0, int(oy - 1.25 * scale)), max(0, int(ox - 1.02 * scale))
    cut = (slice(top, int(oy + 1.2 * scale)), slice(left, int(ox + 1.02 * scale)))
    u, v = u[cut], v[cut]
    width = look.width * (1 - look.taper * _smooth((v - 0.05) / 0.95) - 0.06 * _smooth((-v - 0.35) / 0.7))
    r = np.abs(u / width) ** 2.2 + np.abs(v / np.where(v < 0, F32(1), F32(0.95 + drop))) ** 2.4
    z = np.sqrt(np.maximum(0, 1 - r))
    maps = np.stack([u, v, u - yaw * z, v - pitch * z, 0.62 * z])
    head = _View(rgb[:, *cut], maps, px, (c * scale, s * scale, ox - left, oy - top), picture.turn)
    outside = (np.sqrt(r) - 1) * 0.72
    _draw_skin(head, look, a, outside)
    lids = [_draw_eye(head, look, a, side, gaze) for side in (-1, 1)]
    lips = _draw_mouth(head, look, a, skew)
    _draw_hair(head, look, outside)
    places = [(-EYE_X, lids[0]), (EYE_X, lids[1]), (0, 0.33), (0, lips), (0, 0.89 + drop)]  # where MediaPipe's model puts them
    points = np.array([head.pixel(*place) for place in places]) + (left, top)
    return np.ascontiguousarray(np.clip(rgb * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)), points


def _draw_body(view: _View, look: SimpleNamespace) -> None:
    """Hair behind the head, neck, shirt, ears."""
    u, v, x, y = view.maps
    long = look.female and look.style < 3
    if long:
        bottom = (1.35, 0.80, 1.0)[look.style]
        dx = np.maximum(np.abs(u) - (0.72 + 0.05 * np.sin(v * 5 + look.part * 6)), 0)
        dy = np.maximum(np.maximum(v - (bottom - 0.16), -0.2 - v), 0)
        mass = np.minimum(_oval(u, v + 0.18, look.width + 0.17, 0.96), np.sqrt(dx * dx + dy * dy) - 0.16)
        view.paint(view.cover(mass), _shaded(look.hair, 0.76 + 0.03 * np.sin(u * 40 + 2 * np.sin(v * 3))))
    elif look.female:  # a bun
        view.paint(view.cover(_oval(u - 0.3 * look.part, v + 1.12, 0.3, 0.27)), _shaded(look.hair, 0.85 - 0.25 * u))
    neck = np.abs(x) - ((0.30 if look.female else 0.38) + 0.10 * _smooth((y - 0.95) / 0.5))
    shade = (0.80 + 0.15 * _smooth((0.1 - x) / 0.6)) * (1 - 0.30 * _smooth((1.22 - y) / 0.35))
    view.paint(view.cover(np.maximum(neck, 0.4 - y)), _shaded(look.skin * _rgb(1, 0.94, 0.9), shade))
    body = np.maximum(1.19 + 0.3 * np.abs(x) ** 1.6 * (1.0 if look.female else 0.75) - y, -_oval(x, y - 1.12, 0.46, 0.34))
    view.paint(view.cover(body), _shaded(look.shirt, 0.78 + 0.2 * _smooth((1.0 - np.abs(x + 0.3)) / 1.2)))
    for side in () if long else (-1, 1):
        view.paint(view.cover(_oval(u - side * (look.width + 0.02), v - 0.10, 0.11, 0.19)), look.skin * _rgb(0.93, 0.84, 0.80))
        view.paint(0.35 * view.cover(_oval(u - side * (look.width + 0.025), v - 0.10, 0.055, 0.115)), look.skin * 0.6)


def _draw_skin(head: _View, look: SimpleNamespace, a: dict[str, float], outside: np.ndarray) -> None:
    """The head as a relief: bumps and folds, moved by the action units, in the light."""
    cheek, drop, n, lips = min(1.2, a["cheek"] + 0.6 * a["smile"]), head.turn[3], look.nose, look.mouth_y
    bumps = [  # x, y, half widths, height; those beside the middle stand on both sides
        (0.10 * n, 0.325 - 0.02 * a["wrinkle"], 0.055, 0.05, 0.055),  # wings of the nose
        (0, 0.32, 0.09, 0.07, 0.05),
        (EYE_X, EYE_Y, 0.18, 0.12, -0.05),  # sockets
        (EYE_X, EYE_Y, 0.11, 0.08, 0.035),
        (0.26, -0.17, 0.20, 0.07, 0.025 + 0.02 * a["lower_brow"]),
        (0.39, 0.30 - 0.05 * cheek, 0.17, 0.15, 0.035 + 0.05 * cheek),
        (0, 0.80 + drop, 0.16, 0.10, 0.05 + 0.03 * a["chin_raise"]),
        (0, 0.69 + 0.8 * drop, 0.16, 0.035, -0.03),
        (0, lips, 0.26, 0.12, 0.035),
        (0.035, lips - 0.13, 0.022, 0.06, 0.008),
        (0.045, -0.16, 0.018, 0.07, -0.030 * a["lower_brow"]),  # frown lines
        (0.12, 0.14, 0.06, 0.10, 0.03 * a["wrinkle"]),
        *((0, y, 0.09, 0.014, -0.022 * a["wrinkle"]) for y in (-0.06, -0.005, 0.05)),
        *((0, y, 0.30, 0.018, -0.006 * (a["inner_raise"] + a["outer_raise"])) for y in (-0.40, -0.49)),  # lines of the forehead
    ]
    for x0, y0, rx, ry, height in bumps:
        for side in (-1, 1) if x0 else (1,):
            _, _, x, y, relief = head.window(side * x0, y0, 2.4 * rx, 2.4 * ry).maps
            relief += height * np.exp(-(((x - side * x0) / rx) ** 2) - ((y - y0) / ry) ** 2)
    _, _, x, y, relief = head.window(0, 0.17, 0.30, 0.36).maps
    along = np.clip((y + 0.08) / 0.40, 0, 1)
    bridge = (0.05 + 0.15 * along**1.4) * _bell(np.maximum(y - 0.30, 0), 0.075) * _bell(np.minimum(y + 0.08, 0), 0.1)
    relief += n * bridge * _bell(x, (0.055 + 0.055 * along) * n)
    fold = 0.008 + 0.026 * max(a["smile"], a["lip_raise"], a["wrinkle"]) + 0.015 * a["stretch"]
    for side in (-1, 1):  # from the nose's wing to the mouth's corner
        _, _, x, y, relief = head.window(side * 0.25, 0.44, 0.22, 0.24).maps
        down = (y - 0.32) / 0.26
        place = 0.14 + (0.16 + 0.05 * a["smile"]) * np.clip(down, 0, 1)
        relief -= fold * _bell(x * side - place, 0.035) * _smooth(down * 4 + 0.6) * _smooth((1.15 - down) * 2)

    _, _, x, y, relief = head.maps
    gy, gx = np.gradient(relief, head.px)
    diffuse = np.clip((LIGHT[2] - LIGHT[0] * gx - LIGHT[1] * gy) / np.sqrt(1 + gx * gx + gy * gy), 0, 1)
    tone = np.clip(0.10 + 0.95 * diffuse, 0, 1.06)
    shadow = look.skin * _rgb(0.62, 0.45, 0.40)  # light that went through skin is red
    colour = shadow[:, None, None] + _shaded(look.skin - shadow, tone) + 0.08 * diffuse**12
    blush = _bell(np.abs(x) - 0.40, 0.20) * _bell(y - 0.26 + 0.04 * cheek, 0.16)
    colour *= 1 - _shaded(_rgb(0, 0.10, 0.09), blush * (0.7 + 0.5 * cheek))
    if look.beard:
        jaw = _smooth((y - 0.30 - 0.9 * np.maximum(0, 0.35 - np.abs(x))) / 0.25)
        jaw *= _smooth((np.sqrt(0.7 * x * x + (y - 0.5) ** 2) - 0.22) / 0.12)
        beard = np.maximum(jaw, np.exp(-((x / 0.26) ** 4)) * _bell(y - lips + 0.10, 0.045)) * look.beard
        colour += beard * (_shaded(look.hair, 0.55 + 0.35 * tone) - colour)
    head.paint(head.cover(outside), colour)


def _draw_eye(head: _View, look: SimpleNamespace, a: dict[str, float], side: int, gaze: list[float]) -> float:
    """Lids, eyeball, brow and nostril of one side (-1 is the image's left); returns the y of the eye's centre."""
    line, dark = look.skin * _rgb(0.42, 0.27, 0.22), look.hair * 0.45 + _rgb(0.04, 0.025, 0.025)
    half, lift = 0.142 * look.eye, a["lid_raise"]
    up = 0.096 * look.eye * (1 + 0.36 * lift - 0.32 * a["tighten"] * (1 - 0.5 * lift) - 0.42 * a["droop"] - 0.14 * a["cheek"])
    low = 0.050 * look.eye * (1 + 0.25 * lift - 0.45 * a["tighten"] - 0.55 * a["cheek"])
    up = max(up * (1 - a["blink"]) - low * a["blink"], 0.012 - low)
    w = head.window(side * EYE_X, EYE_Y, half + 0.10, 0.22)
    x, y = w.maps[2] * side - EYE_X, w.maps[3] - EYE_Y  # x grows outwards
    at = x / half
    arc = np.maximum(0, 1 - at * at)
    cant = (-0.02 + 0.03 * a["inner_raise"] * (0.3 + a["droop"])) * at
    top, bottom = cant - up * arc**0.75 * (1 - 0.18 * at), cant + low * arc**0.9
    inside = w.cover(np.maximum(top - y, y - bottom)) * (arc > 0)
    crease = np.abs(y - cant + (0.92 * up + 0.042) * np.maximum(0, 1 - (at / 1.15) ** 2) ** 0.7)
    w.paint(0.4 * w.cover(crease - 0.006) * (np.abs(at) < 1.1), line)
    w.paint(inside, _shaded(_rgb(0.97, 0.96, 0.95), 1 - 0.35 * _bell(y - top, 0.035)))
    radius = 0.079 * look.eye**0.5
    gx, gy = side * gaze[0], gaze[1] - 0.016
    far = np.sqrt((x - gx) ** 2 + (y - gy) ** 2)
    iris = (1 + 0.55 * _smooth((y - gy + 0.02) / 0.08) - 0.5 * _smooth((far / radius - 0.72) / 0.28)) * (1 - 0.35 * _bell(y - top, 0.03))
    w.paint(inside * w.cover(far - radius), _shaded(look.iris, iris))
    w.paint(inside * w.cover(far - 0.43 * radius), _rgb(0.03, 0.025, 0.025))
    w.paint(inside * w.cover(np.sqrt((x - gx + 0.026 * side) ** 2 + (y - gy + 0.026) ** 2) - 0.019), _rgb(1, 1, 1))  # glint
    lash = (0.017 if look.female else 0.011) * (1 + 0.5 * _smooth((at + 0.4) / 1.4))
    wing = np.maximum(0, at - 0.82) * 0.09 if look.female else 0.0
    ends = np.abs(x) - half * (1.08 if look.female else 1.02)
    w.paint(0.93 * w.cover(np.maximum(np.abs(y - top + wing) - lash, ends)), dark * 0.6)
    w.paint(0.35 * w.cover(np.maximum(np.abs(y - bottom - 0.004) - 0.005, np.abs(x) - 0.9 * half)), line)
    w.paint(0.35 * max(a["cheek"], 0.6 * a["tighten"]) * _bell(y - bottom - 0.045, 0.013) * _smooth(2 - 2 * np.abs(at)), line)

    inner = look.brow_y - 0.105 * a["inner_raise"] + 0.115 * a["lower_brow"] * (1 - 0.45 * a["inner_raise"]) + 0.04 * a["wrinkle"]
    peak = look.brow_y - 0.035 - 0.03 * a["inner_raise"] - 0.06 * a["outer_raise"] + 0.055 * a["lower_brow"] + 0.03 * a["wrinkle"]
    outer = look.brow_y + 0.02 - 0.105 * a["outer_raise"] - 0.01 * a["lower_brow"] + 0.045 * a["inner_raise"] * max(0, 1 - a["outer_raise"])
    start, end = 0.115 - 0.035 * a["lower_brow"], 0.485
    w = head.window(side * 0.29, look.brow_y, 0.29, 0.26)
    at = (w.maps[2] * side - start) / (end - start)
    k2, k1, k0 = np.polyfit([0, 0.55, 1], [inner, peak, outer], 2).tolist()
    slope = (2 * k2 * at + k1) / (end - start)
    thick = look.brow * _smooth(at * 4 + 0.55) * (1 - 0.75 * _smooth((at - 0.35) / 0.75))
    stroke = np.abs(w.maps[3] - (k2 * at + k1) * at - k0) / np.sqrt(1 + slope**2) - thick
    w.paint(0.88 * w.cover(np.maximum(stroke, np.maximum(-at, at - 1) * (end - start)), blur=0.012), dark)
    w = head.window(side * 0.06, 0.37, 0.09, 0.06)
    x, y = w.maps[2] * side, w.maps[3]
    w.paint(0.6 * _bell(x - 0.058 * look.nose, 0.036) * _bell(y - 0.387 + 0.25 * np.abs(x) + 0.03 * a["wrinkle"], 0.016), line * 0.7)
    return EYE_Y + 0.5 * (low - up) + 0.01


def _draw_mouth(head: _View, look: SimpleNamespace, a: dict[str, float], skew: float) -> float:
    """Lips, teeth and tongue; returns the y of the mouth's centre."""
    line = look.skin * _rgb(0.36, 0.22, 0.18)
    half = 0.235 * (1 + 0.28 * a["smile"] + 0.22 * a["stretch"] - 0.13 * a["press"] - 0.08 * a["corner_down"])
    corner = 0.075 * a["corner_down"] + 0.025 * a["stretch"] - 0.10 * a["smile"] - 0.02 * a["open"] - 0.012  # below the middle
    gap = 0.17 * a["open"] + 0.04 * a["lip_raise"]
    arch = 0.035 * a["chin_raise"] + 0.02 * a["corner_down"]
    thin = look.lips * (1 - 0.55 * a["press"]) * (1 - 0.2 * a["stretch"]) * (1 - 0.25 * a["smile"])
    w = head.window(0, look.mouth_y + 0.03, 0.44, 0.30)
    x, y = w.maps[2], w.maps[3] - look.mouth_y
    at = x / half
    arc = np.maximum(0, 1 - at * at)
    seam = corner * (at * at - 0.35) - arch * arc + 0.5 * skew * at
    upper, lower = seam - (0.30 * gap + 0.045 * a["lip_raise"]) * arc**0.65, seam + 0.75 * gap * arc**0.5
    rim = upper - 0.052 * thin * arc**0.75 * (1 - 0.22 * _bell(x, 0.035))
    foot = lower + np.maximum(0.02, (0.4 * arch + 0.068) * thin * arc**0.6 - 0.01)
    lip = look.skin * (_rgb(0.87, 0.52, 0.53) if look.female else _rgb(0.86, 0.62, 0.60))
    gloss = 1 - 0.18 * _smooth((upper - y) / 0.03) + 0.12 * _bell(y - lower - 0.03 * thin, 0.018) * _bell(x, 0.12)
    w.paint(0.9 * w.cover(np.maximum(rim - y, y - foot)) * _smooth(arc * 5), _shaded(lip, gloss))
    inside = w.cover(np.maximum(upper - y, y - lower)) * (arc > 0)
    w.paint(inside, _rgb(0.28, 0.07, 0.08))
    if gap > 0.02:
        w.paint(0.8 * inside * _smooth((y - lower + 0.065) / 0.05) * min(1.0, 10 * gap - 0.2), _rgb(0.75, 0.36, 0.38))  # tongue
        teeth = inside * w.cover(y - upper - min(0.06, 0.62 * gap + 0.02)) * _smooth(6 - 6 * np.abs(at))
        w.paint(teeth, _shaded(_rgb(0.96, 0.95, 0.92), 1 - 0.22 * _bell(y - upper, 0.016)))
    w.paint(0.7 * w.cover(np.abs(y - upper) - 0.007) * _smooth(arc * 6 + 0.3) * (arc > 0), line)
    for side in (-1, 1):
        w.paint(0.5 * _bell(x - side * half, 0.02) * _bell(y - 0.65 * corner - 0.5 * side * skew, 0.02), line)
    below = 0.75 * gap - 0.35 * corner - arch + 0.068 * thin + 0.04
    w.paint(0.2 * _bell(x, 0.13) * _bell(y - below, 0.025), line)
    return look.mouth_y + 0.05 * corner - 0.5 * arch + 0.2 * gap


def _draw_hair(head: _View, look: SimpleNamespace, outside: np.ndarray) -> None:
    """Hair on the skull and its shadow on the forehead."""
    u, v, part, side = head.maps[0], head.maps[1], look.part, np.abs(head.maps[0])
    wave = 0.008 * np.sin(31 * u + 9 * part) + 0.005 * np.sin(57 * u)
    cap, reach = _oval(u, v + 0.18, look.width + 0.17, 0.96), 0.42  # how far down it goes beside the face
    if look.female and look.style == 3:  # tied back
        cap, reach = _oval(u, v + 0.10, look.width + 0.045, 1.0), 0.02
        brink = -0.64 + 0.9 * side**2.4 + 2.5 * np.maximum(0, side - 0.56) + 0.3 * wave
    elif look.female and look.style == 2:  # a fringe
        brink = -0.36 + 1.6 * np.maximum(0, side - 0.48) + wave
    elif look.female:  # parted
        brink = look.fringe - 0.04 + 1.1 * np.abs(u - 0.4 * part) ** 1.9 + 0.6 * wave
    else:
        cap, reach = _oval(u, v + 0.10, look.width + 0.06, 1.0), 0.0
        brink = look.fringe - 0.08 + (0.10 * np.cos(3 * u + 4 * part) if look.style < 2 else -0.12 * _bell(u, 0.22)) + wave
        brink += 4 * np.maximum(0, side - 0.52)
    below = v - np.minimum(brink, np.where(side > 0.86 * look.width, F32(reach), F32(9)))
    below = np.where(outside > -0.02, np.minimum(below, v - reach), below)  # no wall between skull and hair
    shadow = 0.28 * head.cover(outside) * _smooth(1 - below / 0.13) * (below > 0) * (v < 0.3)
    head.paint(shadow, look.skin * _rgb(0.5, 0.36, 0.32))
    angle = np.arctan2(u - 0.4 * part, 1e-3 - v - 0.05)
    strands = 0.06 * np.sin(46 * angle + 3 * np.sin(3 * v)) + 0.04 * np.sin(83 * angle + 1)
    shine = _bell(np.sqrt((u / (look.width + 0.1)) ** 2 + ((v + 0.1) / 0.98) ** 2) - 0.8, 0.12) * np.clip(0.5 - 0.8 * u - 0.6 * v, 0, 1)
    tone = 0.80 + 0.24 * np.clip(-0.5 * u - 0.7 * v, -0.6, 1) + strands + 0.33 * shine
    if look.female:
        tone += (0.76 + strands - tone) * _smooth(v / 0.35)  # runs into the hair behind
    head.paint(head.cover(np.maximum(cap, 0.6 * below)), _shaded(look.hair, tone) + 0.05 * shine)
