"""§3.3: waveform -> log-mel spectrogram 28/56/112 x 28 (time x frequency), and back to sound.

A spectrogram here is one channel of log-mel energy with a known dB reference, not a coloured picture, so that it can be inverted.
Shapes: a waveform is (..., samples) float32 in [-1, 1] at `LogMel.rate`; a spectrogram is (..., columns, bands).
"""

from __future__ import annotations

import functools

import numpy as np

from core.config import LogMel

FLOOR_DB = -100.0  # 10 log10 of the smallest power kept; librosa's amin of 1e-10
GENERATED_COMMENT = "generated, nobody's voice"  # what a wav's comment says it is
RESYNTHESIS_COMMENT = "a real voice through mel bands and back"


@functools.cache
def mel_filters(s: LogMel) -> np.ndarray:
    """Slaney mel filters, (bands, 1 + n_fft // 2) float32, by librosa."""
    import librosa.filters  # a second of import that pages should not pay before they need sound

    return librosa.filters.mel(sr=s.rate, n_fft=s.n_fft, n_mels=s.bands, fmin=s.f_min, fmax=s.f_max)


@functools.cache
def hann(s: LogMel) -> np.ndarray:
    """Periodic Hann window of `window` samples, centred in `n_fft`: (n_fft,) float32."""
    w = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(s.window) / s.window)
    before = (s.n_fft - s.window) // 2
    return np.pad(w, (before, s.n_fft - s.window - before)).astype(np.float32)


def stft(wave: np.ndarray, s: LogMel) -> np.ndarray:
    """(..., samples) -> (..., 1 + samples // hop, 1 + n_fft // 2) complex64, frames centred, zeros beyond the ends."""
    half = s.n_fft // 2
    padded = np.pad(
        wave.astype(np.float32, copy=False), [(0, 0)] * (wave.ndim - 1) + [(half, half)]
    )
    frames = np.lib.stride_tricks.sliding_window_view(padded, s.n_fft, axis=-1)[..., :: s.hop, :]
    return np.fft.rfft(frames * hann(s), axis=-1)


@functools.lru_cache(maxsize=16)
def _window_normaliser(columns: int, s: LogMel) -> np.ndarray:
    """What each sample of overlapped frames is multiplied by: one over the sum of the squared windows that reach it, (samples,)."""
    power = np.zeros(s.n_fft + s.hop * (columns - 1), np.float32)
    for k in range(columns):
        power[k * s.hop : k * s.hop + s.n_fft] += hann(s) ** 2
    return 1 / np.maximum(power, 1e-3)


def log_mel(wave: np.ndarray, s: LogMel) -> np.ndarray:
    """Log-mel power in dB (10 log10, floor -100): (..., samples) -> (..., 1 + samples // hop, bands) float32. Equal to librosa's."""
    power = np.abs(stft(wave, s)) ** 2
    mel = power @ mel_filters(s).T
    return (10 * np.log10(np.maximum(mel, 1e-10))).astype(np.float32)


def centre_crop(db: np.ndarray, columns: int) -> np.ndarray:
    """The `columns` around the middle of (T, bands), §3.3; a shorter clip is centred between columns of silence (-100 dB)."""
    missing = columns - len(db)
    if missing > 0:
        return np.pad(
            db, ((missing // 2, missing - missing // 2), (0, 0)), constant_values=FLOOR_DB
        )
    start = (len(db) - columns) // 2
    return db[start : start + columns]


def centre_time(seconds: float) -> float:
    """The instant (s) that `centre_crop` centres on: half of the clip."""
    return seconds / 2


def scale(db: np.ndarray, ref_db: float, s: LogMel) -> np.ndarray:
    """dB -> [-1, 1]: `ref_db` and above is 1, `ref_db - range_db` and below is -1. Any shape, float32."""
    return np.clip(2 * (db - ref_db) / s.range_db + 1, -1, 1).astype(np.float32)


def unscale(y: np.ndarray, ref_db: float, s: LogMel) -> np.ndarray:
    """[-1, 1] -> dB; inverse of `scale` within its range."""
    return ((np.asarray(y, np.float32) - 1) * s.range_db / 2 + ref_db).astype(np.float32)


def level_db(db: np.ndarray) -> np.ndarray:
    """How loud a spectrogram is: the 99th percentile of its cells in dB; (..., columns, bands) -> (...)."""
    return np.percentile(db, 99, axis=(-2, -1))


def upload_gain_db(db: np.ndarray, corpus_level: float, most: float = 30.0) -> float:
    """The rule for a recording made elsewhere: the gain in dB that lifts its `level_db` to the corpus' median, within ±`most` dB."""
    return float(np.clip(corpus_level - level_db(db), -most, most))


def resynthesis_agreement(
    y: np.ndarray, wave: np.ndarray, ref_db: float, s: LogMel, gain_db: float = 0.0
) -> tuple[float, float]:
    """How well a sound carries a spectrogram: correlation and mean absolute error (dB) between y and the sound analysed again."""
    again = scale(log_mel(wave, s)[: y.shape[-2]] - gain_db, ref_db, s)
    if np.std(y) < 1e-9 or np.std(again) < 1e-9:
        return float("nan"), float(np.abs(y - again).mean() * s.range_db / 2)
    return float(np.corrcoef(y.ravel(), again.ravel())[0, 1]), float(
        np.abs(y - again).mean() * s.range_db / 2
    )
