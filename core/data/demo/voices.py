"""A demo actor's voice: nonsense speech by source and filter, coloured by the emotion.

Each glottal pulse (spectrum after Doval, d'Alessandro & Henrich, Acta Acustica 2006) excites the
vocal tract of that moment (vowels: Peterson & Barney, JASA 1952). Emotions: Murray & Arnott,
JASA 1993; Banse & Scherer, JPSP 1996; Juslin & Laukka, Psychological Bulletin 2003; smile: Tartter,
Perception & Psychophysics 1980. Numbers are rounded from these by hand.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from core.config.settings import LogMel
from core.data.demo import actors
from core.data.demo.actors import DEFAULT_DIFFICULTY, Difficulty, Take

F32 = np.float32
RATE = LogMel().rate  # Hz
STEP = 0.004  # seconds of the articulation's clock
FFT_SIZE = 512  # samples: a pulse rings for at most 32 ms
ROWS_AT_ONCE = 32  # spectra of FFT_SIZE: some 70 kB
NOISE_FRAME, NOISE_HOP = 256, 0.008  # samples of 16 ms, and seconds: frames overlap by half
# Measure -> spread within one emotion, then its change at full strength, by CREMA_EMOTIONS.
PROSODY = {
    "pitch": (1.0, 0, 5, -1.5, 4.5, 8, -2),  # semitones
    "range": (0.3, 0, 1.3, -0.8, 0.5, -0.3, -0.1),  # octaves of the size of the pitch movements
    "slope": (0.8, 0, 2.5, -1.2, -2, 1, -1.5),  # semitones per second over the clip
    "rate": (0.1, 0, 0.18, -0.45, 0.2, 0.42, -0.25),  # octaves of the speech rate
    "level": (1.5, 0, 4, -6, 8, 0, -1),  # dB
    # octaves around 2.6 kHz, above which the source falls by a further 6 dB per octave
    "tilt": (0.3, 0, 0.7, -1.1, 1.5, 0.1, -0.3),
    "breath": (1.5, 0, 0, 9, -4, 8, 2),  # dB of the noise of breathing
    "jitter": (0.3, 0, 0, 0.5, 0.8, 2.0, 1.2),  # % of a period
    "creak": (0.08, 0, 0, 0.1, 0, 0, 0.9),  # share of every second pulse that is lost
    "tremor": (0.1, 0, 0, 0.1, 0, 1, 0),  # semitones, 7 times a second
    # log of the formants' factor: lips spread in a smile shorten the tract
    "spread": (0.01, 0, 0.07, -0.02, 0.01, 0.02, -0.05),
    "attack": (0.15, 0, 0.3, -0.6, 1.0, -0.2, 0),  # stress: how far stressed syllables stand out
}
# i, ɪ, ɛ, æ, ɑ, ɔ, ʊ, u, ʌ, ɝ: a man's F1, F2, F3 (Hz), and how open the mouth is (0..1).
VOWELS = np.array([
    (270, 2290, 3010, 0.2), (390, 1990, 2550, 0.3), (530, 1840, 2480, 0.5), (660, 1720, 2410, 0.8),
    (730, 1090, 2440, 1.0), (570, 840, 2410, 0.6), (440, 1020, 2240, 0.3), (300, 870, 2240, 0.2),
    (640, 1190, 2390, 0.7), (490, 1350, 1690, 0.4),
])  # fmt: skip
# m n b d g l w v z s ʃ t: locus F1, F2, F3 (Hz), voicing 0..1; noise: loudness 0..1, centre and
# width (Hz).
CONSONANTS = np.array([
    (270, 1100, 2200, 0.35, 0, 1000, 900), (270, 1600, 2500, 0.35, 0, 1000, 900),
    (220, 850, 2200, 0.12, 0.25, 900, 800), (220, 1700, 2600, 0.12, 0.35, 3600, 1500),
    (220, 2000, 2300, 0.12, 0.35, 2200, 800), (350, 1150, 2750, 0.6, 0, 1000, 900),
    (300, 700, 2200, 0.5, 0, 1000, 900), (250, 1100, 2300, 0.3, 0.15, 4500, 2500),
    (250, 1600, 2500, 0.25, 0.45, 5800, 1300), (250, 1600, 2500, 0, 0.7, 5900, 1300),
    (250, 1800, 2400, 0, 0.7, 3300, 1200), (250, 1700, 2600, 0, 0.5, 4200, 1500),
])  # fmt: skip
STOP_CONSONANTS = (2, 3, 4, 11)  # b d g t


@functools.lru_cache(maxsize=16)  # a clip's face and voice, in turn
def speech_plan(take: Take, seed: int, d: Difficulty) -> SimpleNamespace:
    """One utterance: its syllables, their times and stress, and its prosody.

    `seconds`; `times` (n, 3) s of each syllable's consonant, vowel and end; `vowels`, `consonants`
    (n,), rows of the tables; `stress` (n,) 0..1; `how`, PROSODY's measures.
    """
    rng = actors.take_stream(take, seed, "speech")
    habit = actors.actor_stream(take, seed, "voice habit").normal(size=len(PROSODY)) * d.voice_habit
    table = np.array(list(PROSODY.values()))  # (measures, 1 + 6)
    chance = habit + d.voice_spread * rng.normal(size=len(PROSODY))
    values = table[:, 1:] @ actors.emotion_mixture(take, seed, d) + table[:, 0] * chance
    how = dict(zip(PROSODY, values.tolist(), strict=True))
    n = int(rng.integers(3, 6))
    lengths = rng.uniform(0.9, 1.1, (n, 2)) * (0.09, 0.21) * 2 ** -how["rate"]
    lengths[-1, 1] *= 1.35  # the last syllable of a phrase is drawn out
    before, after = rng.uniform(0.12, 0.2, 2)
    seconds = float(np.clip(before + lengths.sum() + after, 1.6, 2.4))
    lengths *= min(1.0, (seconds - 0.24) / lengths.sum())
    start = (seconds - lengths.sum()) * before / (before + after)
    ends = start + np.concatenate([[0.0], np.cumsum(lengths)])
    stress = rng.uniform(0, 0.5, n)
    stress[rng.integers(n)] = 1.0
    vowels, consonants = rng.integers(len(VOWELS), size=n), rng.integers(len(CONSONANTS), size=n)
    return SimpleNamespace(
        seconds=seconds,
        times=np.stack([ends[:-1:2], ends[1::2], ends[2::2]], axis=1),
        vowels=vowels,
        consonants=consonants,
        stress=stress,
        how=how,
    )


def synthesise_voice(
    take: Take, seed: int = 0, difficulty: Difficulty = DEFAULT_DIFFICULTY
) -> np.ndarray:
    """Nonsense speech of 3 to 5 syllables: (T,) float32 at 16 kHz, 1.6 to 2.4 s, peak below 1."""
    s = speech_plan(take, seed, difficulty)
    rng, body = actors.take_stream(take, seed, "voice"), actors.actor_stream(take, seed, "body")
    female = take.sex == "female"
    base = body.normal(205, 16) if female else body.normal(118, 12)  # Hz
    tract = body.normal(1.17 if female else 1.0, 0.03) * np.exp(s.how["spread"])
    a = _articulation(s)
    f0 = base * 2 ** (_semitones(s, a.t, rng) / 12)
    out = np.zeros(int(s.seconds * RATE) + 2 * FFT_SIZE)
    _add_pulses(out, s, a, f0, tract, rng)
    _add_noise(out, s, a, tract, rng)
    out = out[: int(s.seconds * RATE)] * 10 ** ((s.how["level"] - 20) / 20)
    out += rng.normal(0, 2e-4, len(out))  # the room
    return (out * min(1.0, 0.97 / np.abs(out).max())).astype(F32)


def _articulation(s: SimpleNamespace) -> SimpleNamespace:
    """Targets of the articulators, smoothed because they are slow, at the times `t` (N,) s.

    `formants` (3, N) Hz of a man; `voicing`, `hiss` (N,) from 0; `centre`, `width` (N,) Hz of the
    hiss.
    """
    t, n = np.arange(0, s.seconds, STEP), len(s.vowels)
    edges = np.concatenate([[0.0], s.times[:, :2].ravel(), [s.times[-1, 2]]])
    # -1: silence before, 2 k: consonant, 2 k + 1: vowel, 2 n: silence after
    segment = np.searchsorted(edges, t, side="right") - 2
    syllable = np.clip(segment // 2, 0, n - 1)
    silent, vowel = (segment < 0) | (segment >= 2 * n), segment % 2 == 1
    c = CONSONANTS[s.consonants]
    formants = np.where(vowel[:, None], VOWELS[s.vowels[syllable], :3], c[syllable, :3]).T
    loud = 10 ** (s.how["attack"] * (s.stress[syllable] - 0.4) * 6 / 20)
    voicing = np.where(silent, 0.0, np.where(vowel, 1.0, c[syllable, 3])) * loud
    hiss = np.where(silent | vowel, 0.0, c[syllable, 4]) * loud
    stop = np.isin(s.consonants, STOP_CONSONANTS)[syllable]
    hiss *= np.where(stop, 2.5 * (s.times[syllable, 1] - t < 0.022), 1.0)  # closed, then a burst
    voicing = _smooth_in_time(voicing, 0.012 / STEP)
    voicing *= np.interp(t, [0, s.times[0, 0], s.times[-1, 2]], [1, 1, 0.65])  # breath runs out
    return SimpleNamespace(
        t=t,
        formants=_smooth_in_time(formants, 0.022 / STEP),
        voicing=voicing,
        hiss=_smooth_in_time(hiss, 0.008 / STEP),
        centre=c[syllable, 5],
        width=c[syllable, 6],
    )


def _semitones(s: SimpleNamespace, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) the pitch's course in semitones: level, movements at stresses, slope, tremor, drift."""
    how, peaks = s.how, zip(2.2 * s.stress, s.times[:, 1] + 0.07, strict=True)
    move = sum(k * np.exp(-(((t - v) / 0.09) ** 2)) for k, v in peaks)
    course = how["pitch"] + 2 ** how["range"] * (move - 0.4)
    course = course + (how["slope"] - 1.0) * (t - s.seconds / 2)
    tremor = max(how["tremor"], 0) * 0.6 * np.sin(2 * np.pi * (7 * t + rng.random()))
    return course + tremor + _smooth_in_time(rng.normal(0, 1.2, len(t)), 6)


def _add_pulses(
    out: np.ndarray,
    s: SimpleNamespace,
    a: SimpleNamespace,
    f0: np.ndarray,
    tract: float,
    rng: np.random.Generator,
) -> None:
    """Add glottal pulses, one at every whole turn of the phase, each with its own irregularity."""
    how, jitter = s.how, s.how["jitter"]
    turns = np.cumsum(f0) * STEP
    count = np.arange(1, int(turns[-1]))
    when = np.interp(count, turns, a.t)
    pitch = np.interp(when, a.t, f0)
    when = when + rng.normal(size=len(when)) * max(0.3, jitter) / 100 / pitch
    creak = np.clip(how["creak"], 0, 0.85) * (count % 2)
    when = when + 0.12 * creak / pitch
    shimmer = np.exp(0.02 * (1 + max(jitter, 0)) * rng.normal(size=len(when)))
    strength = np.interp(when, a.t, a.voicing) * (1 - creak) * shimmer
    keep = strength > 1e-3
    when, pitch, strength = when[keep], pitch[keep].astype(F32), strength[keep].astype(F32)
    f = _frequencies()
    at = when * RATE
    whole = at.astype(int)
    for few in _row_blocks(len(when)):
        turn = 1j * f / (0.9 * pitch[few, None])
        corner = 2600 * 2 ** how["tilt"] * strength[few, None] ** 0.5
        source = turn / (1 + turn) ** 2 / (1 + 1j * f / corner)
        delay = np.exp((-2j * np.pi / RATE) * f * (at - whole)[few].astype(F32)[:, None])
        loudness = (strength[few] * pitch[few] ** 0.5)[:, None]
        response = _tract_response(f, a, tract, when[few])
        pulses = np.fft.irfft(source * delay * response * loudness)
        for k, pulse in zip(whole[few].tolist(), pulses, strict=True):
            out[k : k + FFT_SIZE] += pulse


def _add_noise(
    out: np.ndarray, s: SimpleNamespace, a: SimpleNamespace, tract: float, rng: np.random.Generator
) -> None:
    """Add breath through the whole tract, and friction at the consonant's place."""
    f, middle = _frequencies(), np.arange(0, s.seconds - 0.017, NOISE_HOP)
    noise = rng.normal(size=(len(middle), NOISE_FRAME)) * np.hanning(NOISE_FRAME)
    rows, at = (a.voicing, a.hiss, a.centre, a.width), (middle * RATE).astype(int)
    voicing, hiss, centre, width = (np.interp(middle, a.t, row)[:, None] for row in rows)
    for few in _row_blocks(len(middle)):
        breath = 10 ** ((s.how["breath"] - 30) / 20) * voicing[few]
        breath = breath * _tract_response(f, a, tract, middle[few]) * f / (f + 1500)
        friction = 0.5 * hiss[few] / (1 + ((f - centre[few]) / width[few]) ** 2) ** 1.5
        frames = np.fft.irfft(np.fft.rfft(noise[few], FFT_SIZE) * (4 * breath + friction))
        for k, frame in zip(at[few].tolist(), frames, strict=True):
            out[k : k + FFT_SIZE] += frame


def _row_blocks(n: int) -> list[slice]:
    """Slices of n rows, so few at a time that their spectra stay in a core's cache."""
    return [slice(k, k + ROWS_AT_ONCE) for k in range(0, n, ROWS_AT_ONCE)]


def _frequencies() -> np.ndarray:
    """(257,) float32 Hz."""
    return np.fft.rfftfreq(FFT_SIZE, 1 / RATE).astype(F32)


def _smooth_in_time(x: np.ndarray, sd: float) -> np.ndarray:
    return gaussian_filter1d(x, sd, axis=-1, mode="nearest")


def _tract_response(
    f: np.ndarray, a: SimpleNamespace, scale: float, when: np.ndarray
) -> np.ndarray:
    """Transfer function of the vocal tract, seven resonators in a row: (n, 257) complex.

    f (257,) Hz; `a` as of `_articulation`; `when` (n,) s; `scale` is a man's tract length over the
    speaker's.
    """
    f = f / 1000  # kHz, or the product of fourteen frequencies leaves single precision
    below = np.ones((len(when), len(f)), np.complex64)
    above, resonator = np.ones((len(when), 1), F32), np.empty_like(below)
    for k in range(7):
        even_tube = np.full(len(when), 500.0 + 1000 * k)  # above F3
        hertz = np.interp(when, a.t, a.formants[k]) if k < 3 else even_tube
        peak = (hertz * scale / 1000).astype(F32)[:, None]
        resonator.real, resonator.imag = peak**2 - f * f, f * (0.045 + 0.04 * peak)
        below *= resonator
        above *= peak**2
    return above / below
