"""Emotion in the sound itself: pitch, its range, level and spectral slope, by emotion.

Acted emotions differ in these (Banse & Scherer 1996). A generator that speaks with emotion moves
them as real voices do; one that only pleases a classifier need not.
"""

from __future__ import annotations

import numpy as np

from core.config.settings import LogMel
from core.files import UserError
from core.media import spectrograms
from core.media.vocoder import MAX_F0, MIN_F0

# unit of each: semitones above 55 Hz, semitones, dB of full scale, dB per octave
FEATURES = ("F0 mean", "F0 range", "level", "slope")
SLOPE_RANGE = 200.0, 5_000.0  # Hz between which the slope is fitted
ACTIVE_DB = 30.0  # columns less than this far below the loudest count as speech


def pitch(wave: np.ndarray, s: LogMel) -> np.ndarray:
    """Pitch (1 + samples // hop,) in Hz, 0 where unvoiced, by pYIN (Mauch & Dixon 2014).

    Raises UserError where librosa cannot be loaded.
    """
    try:
        from librosa import pyin
    except Exception as e:  # numba, under it, needs a folder for what it compiles
        hint = "install requirements.txt again, and set HOME to a folder that may be written to"
        raise UserError(f"librosa, which finds the pitch, cannot be loaded ({e}); {hint}") from e

    search: dict = {"fmin": MIN_F0, "fmax": MAX_F0, "resolution": 0.2}
    frames: dict = {"frame_length": 1024, "hop_length": s.hop, "pad_mode": "constant"}
    f0, voiced, _ = pyin(wave, sr=s.rate, **search, **frames)
    return np.where(voiced, f0, 0).astype(np.float32)


def pitch_features(f0: np.ndarray) -> tuple[float, float]:
    """Mean in semitones above 55 Hz, and range from the 10th to the 90th percentile in semitones.

    f0 (T,) in Hz, 0 where unvoiced; NaN if no column is voiced.

    >>> pitch_features(np.array([110.0, 220.0, 0.0, 110.0, 220.0]))
    (18.0, 12.0)
    """
    voiced = f0[f0 > 0]
    if not len(voiced):
        return float("nan"), float("nan")
    semitones = 12 * np.log2(voiced.astype(np.float64) / 55)
    low, high = np.percentile(semitones, (10, 90))
    return float(semitones.mean()), float(high - low)


def level_and_slope(wave: np.ndarray, s: LogMel) -> tuple[float, float]:
    """RMS level in dB of full scale, and spectral slope in dB per octave, of a sound's speech.

    The slope is a line fitted, within SLOPE_RANGE, to the mean power over the columns of speech.
    Silence gives NaN.
    """
    power = np.abs(spectrograms.stft(wave, s)) ** 2
    loudness = 10 * np.log10(power.sum(axis=1) + 1e-12)
    if loudness.max() <= -100:
        return float("nan"), float("nan")
    active = loudness > loudness.max() - ACTIVE_DB
    starts = np.nonzero(active)[0] * s.hop
    samples = np.concatenate([wave[max(0, k - s.hop // 2) : k + s.hop // 2] for k in starts])
    level = 10 * np.log10(np.square(samples, dtype=np.float64).mean() + 1e-12)
    frequency = np.arange(power.shape[1]) * s.rate / s.n_fft
    inside = (frequency >= SLOPE_RANGE[0]) & (frequency <= SLOPE_RANGE[1])
    spectrum = 10 * np.log10(power[active][:, inside].mean(axis=0) + 1e-12)
    # each octave counts alike, though it holds twice as many bins as the one below
    octaves, weight = np.log2(frequency[inside]), 1 / np.sqrt(frequency[inside])
    return float(level), float(np.polyfit(octaves, spectrum, 1, w=weight)[0])


def features(waves: np.ndarray, s: LogMel) -> np.ndarray:
    """FEATURES of sounds (n, samples): (n, 4) float64, NaN where a sound has no pitch."""
    rows = [(*pitch_features(pitch(w, s)), *level_and_slope(w, s)) for w in waves]
    return np.array(rows, np.float64).reshape(-1, len(FEATURES))


def emotion_differences(values: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Mean of each emotion less the mean over the emotions: (n, F), (n,) -> (classes, F).

    NaN values are left out; an emotion without any is NaN.

    >>> emotion_differences(np.array([[1.0], [3.0], [6.0]]), np.array([0, 0, 1]), 2)
    array([[-2.],
           [ 2.]])
    """
    rows = []
    for k in range(classes):
        of_class = values[labels == k]
        known = np.isfinite(of_class).sum(axis=0)
        total = np.nansum(of_class, axis=0)
        rows.append(np.where(known > 0, total / np.maximum(known, 1), np.nan))
    means = np.array(rows)
    return means - np.nanmean(means, axis=0)


def correlations(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Correlation of two sets of `emotion_differences` (K, 4), by feature and over all features.

    Over all, each feature is divided by the spread of its real differences, so that all count
    alike. NaN where fewer than three emotions are known, or all are equal.
    """
    spread = np.nanstd(real, axis=0)
    spread = np.where(spread > 0, spread, np.nan)
    found = {name: _correlation(generated[:, k], real[:, k]) for k, name in enumerate(FEATURES)}
    return found | {"all": _correlation((generated / spread).ravel(), (real / spread).ravel())}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 3 or np.std(a[known]) < 1e-12 or np.std(b[known]) < 1e-12:
        return float("nan")
    return float(np.corrcoef(a[known], b[known])[0, 1])
