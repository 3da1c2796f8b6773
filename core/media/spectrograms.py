"""§3.3: waveform -> log-mel spectrogram, 28/56/112 columns x 28 bands (time x frequency).

A spectrogram is one channel of log-mel energy with a known dB reference, not a coloured picture, so
that it can be inverted (`waveforms`, `vocoder`). A waveform is (..., samples) float32 in [-1, 1] at
`LogMel.rate`; a spectrogram is (..., columns, bands).
"""

from __future__ import annotations

import functools

import numpy as np

from core.config.settings import LogMel

FLOOR_DB = -100.0  # 10 log10 of the smallest power kept; librosa's amin of 1e-10
MAX_SILENT_DBFS = -60.0  # peak of a column's samples, below which no voice is in it
MIN_VOICED_COLUMNS = 11  # columns, 0.11 s: a window with fewer voiced ones is silent
# Slaney's scale: 15 mel below 1000 Hz, even in Hz; above it 27 mel to each factor of 6.4
LINEAR_HZ, LINEAR_MEL = 1000.0, 15.0
MEL_STEP = np.log(6.4) / 27  # of the logarithm of a frequency above
GENERATED_COMMENT = "generated, nobody's voice"  # content of a wav, as its comment describes it
RESYNTHESIS_COMMENT = "a real voice through mel bands and back"


@functools.cache
def mel_filters(s: LogMel) -> np.ndarray:
    """Slaney mel filters, (bands, 1 + n_fft // 2) float32, equal to `librosa.filters.mel`.

    Triangles whose corners are evenly spaced in mel, each of unit area. Importing librosa's takes
    over a second (it loads scipy.signal), which each `generate` and each start of the app would
    wait for.
    """
    low, high = (_hz_to_mel(f) for f in (s.f_min, s.f_max))
    corners = _mel_to_hz(np.linspace(low, high, s.bands + 2))
    frequency = np.fft.rfftfreq(s.n_fft, 1 / s.rate)
    distance = corners[:, None] - frequency
    width = np.diff(corners)[:, None]
    rising, falling = -distance[:-2] / width[:-1], distance[2:] / width[1:]
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    triangles *= (2 / (corners[2:] - corners[:-2]))[:, None]
    return triangles


def _hz_to_mel(hz: float) -> float:
    if hz < LINEAR_HZ:
        return hz * LINEAR_MEL / LINEAR_HZ
    return LINEAR_MEL + float(np.log(hz / LINEAR_HZ)) / MEL_STEP


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    above = LINEAR_HZ * np.exp(MEL_STEP * (mel - LINEAR_MEL))
    return np.where(mel < LINEAR_MEL, mel * (LINEAR_HZ / LINEAR_MEL), above)


@functools.cache
def hann(s: LogMel) -> np.ndarray:
    """Periodic Hann window of `window` samples, centred in `n_fft`: (n_fft,) float32."""
    w = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(s.window) / s.window)
    before = (s.n_fft - s.window) // 2
    return np.pad(w, (before, s.n_fft - s.window - before)).astype(np.float32)


def stft(wave: np.ndarray, s: LogMel) -> np.ndarray:
    """Short-time Fourier transform, frames centred, zeros beyond the ends.

    (..., samples) -> (..., 1 + samples // hop, 1 + n_fft // 2) complex64.
    """
    ends = [(0, 0)] * (wave.ndim - 1) + [(s.n_fft // 2, s.n_fft // 2)]
    padded = np.pad(wave.astype(np.float32, copy=False), ends)
    frames = np.lib.stride_tricks.sliding_window_view(padded, s.n_fft, axis=-1)[..., :: s.hop, :]
    return np.fft.rfft(frames * hann(s), axis=-1)


def log_mel(wave: np.ndarray, s: LogMel) -> np.ndarray:
    """Log-mel power in dB (10 log10, at least -100), equal to librosa's.

    (..., samples) -> (..., 1 + samples // hop, bands) float32.

    >>> s = LogMel()
    >>> db = log_mel(np.sin(2 * np.pi * 1000 * np.arange(s.rate) / s.rate), s)
    >>> db.shape, f"{db.max():.1f} dB in band {db[56].argmax()}"
    ((112, 28), '20.7 dB in band 8')
    >>> float(log_mel(np.zeros(s.rate), s).max())
    -100.0
    """
    power = np.abs(stft(wave, s)) ** 2
    mel = power @ mel_filters(s).T
    db = 10 * np.log10(np.maximum(mel, 1e-10))
    return np.maximum(db, -100).astype(np.float32)  # some processors' log10 rounds below it


def centre_crop(db: np.ndarray, columns: int) -> np.ndarray:
    """The middle `columns` of (T, bands), §3.3; a shorter clip is centred in silence (-100 dB)."""
    missing = columns - len(db)
    if missing > 0:
        ends = ((missing // 2, missing - missing // 2), (0, 0))
        return np.pad(db, ends, constant_values=FLOOR_DB)
    start = (len(db) - columns) // 2
    return db[start : start + columns]


def centre_time(seconds: float) -> float:
    """The instant (s) that `centre_crop` centres on: half of the clip."""
    return seconds / 2


def peak_dbfs(wave: np.ndarray) -> float:
    """The largest deviation of a waveform (T,) from its mean, in dB of full scale, at least -200.

    >>> peak_dbfs(np.array([0.5, -0.5])), peak_dbfs(np.full(9, 0.7))
    (-6.020599913279624, -200.0)
    """
    peak = float(np.abs(wave - wave.mean(dtype=np.float64)).max()) if len(wave) else 0.0
    return 20 * float(np.log10(max(peak, 1e-10)))


def voiced_start(wave: np.ndarray, s: LogMel, columns: int) -> int | None:
    """First column of the window of a waveform (T,) from which its voice is taken.

    That is `centre_crop`'s unless the middle is silent: then it is the window with most voiced
    columns, of equal ones the loudest. None where no window has MIN_VOICED_COLUMNS of them. A
    column is voiced where its samples reach MAX_SILENT_DBFS, without a constant offset.

    >>> s, noise = LogMel(), np.random.default_rng(0).normal(0, 0.1, 16_000)
    >>> voiced_start(np.concatenate([np.zeros(48_000), noise]), s, 112)
    333
    >>> voiced_start(np.zeros(48_000), s, 112) is None
    True
    """
    levels = _column_levels(wave, s)
    voiced, total = voiced_columns(wave, s), len(levels)
    middle, window = max(0, (total - columns) // 2), min(columns, total)
    if voiced[middle : middle + window].sum() >= MIN_VOICED_COLUMNS:
        return middle
    score = voiced + levels / (levels.sum() + 1e-12)  # the levels sum to 1: they decide ties alone
    best = int(np.convolve(score, np.ones(window), "valid").argmax())
    return best if voiced[best : best + window].sum() >= MIN_VOICED_COLUMNS else None


def voiced_columns(wave: np.ndarray, s: LogMel) -> np.ndarray:
    """Whether the samples around each column reach MAX_SILENT_DBFS: (T,) -> (columns,) bool."""
    return _column_levels(wave, s) >= 10 ** (MAX_SILENT_DBFS / 20)


def _column_levels(wave: np.ndarray, s: LogMel) -> np.ndarray:
    """Peak of the hop around each column of `log_mel`, without a constant offset: (columns,)."""
    total = 1 + len(wave) // s.hop
    centred = wave - wave.mean(dtype=np.float64) if len(wave) else wave
    padded = np.pad(centred, (s.hop // 2, s.hop))[: total * s.hop]
    return np.abs(padded.reshape(total, s.hop)).max(axis=1)


def scale(db: np.ndarray, ref_db: float, s: LogMel) -> np.ndarray:
    """dB -> [-1, 1]: `ref_db` and above is 1, `ref_db - range_db` and below is -1; float32.

    >>> scale(np.array([-100.0, -30.0, 0.0, 9.0]), 0.0, LogMel(range_db=60.0))
    array([-1.,  0.,  1.,  1.], dtype=float32)
    """
    return np.clip(2 * (db - ref_db) / s.range_db + 1, -1, 1).astype(np.float32)


def unscale(y: np.ndarray, ref_db: float, s: LogMel) -> np.ndarray:
    """[-1, 1] -> dB float32; inverse of `scale` within its range.

    >>> unscale(np.array([-1.0, 0.0, 1.0]), 0.0, LogMel(range_db=60.0))
    array([-60., -30.,   0.], dtype=float32)
    """
    return ((np.asarray(y, np.float32) - 1) * s.range_db / 2 + ref_db).astype(np.float32)


def level_db(db: np.ndarray) -> np.ndarray:
    """Loudness of a spectrogram, its cells' 99th percentile: (..., columns, bands) -> (...) dB."""
    return np.percentile(db, 99, axis=(-2, -1))


def upload_gain_db(db: np.ndarray, corpus_level: float, most: float = 30.0) -> float:
    """Gain in dB, within ±`most`, that brings an upload's `level_db` to the corpus' median."""
    return float(np.clip(corpus_level - level_db(db), -most, most))


def resynthesis_agreement(
    y: np.ndarray, wave: np.ndarray, ref_db: float, s: LogMel, gain_db: float = 0.0
) -> tuple[float, float]:
    """Correlation and mean absolute error (dB) between y and the spectrogram of its waveform.

    The correlation is NaN if either is constant.
    """
    again = scale(log_mel(wave, s)[: y.shape[-2]] - gain_db, ref_db, s)
    error = float(np.abs(y - again).mean() * s.range_db / 2)
    if np.std(y) < 1e-9 or np.std(again) < 1e-9:
        return float("nan"), error
    return float(np.corrcoef(y.ravel(), again.ravel())[0, 1]), error
