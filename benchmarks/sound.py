"""This benchmark compares the way from spectrogram to sound (§3.3) with librosa's.

Both are Griffin-Lim, ours batched, at equal turns and equally close to what was asked.
"""

from __future__ import annotations

import numpy as np

from benchmarks.table import Row, measure_ratio
from core.config.settings import LogMel
from core.media import spectrograms, waveforms

BATCH, ITERATIONS = 64, 32


def buzz_magnitudes(s: LogMel) -> np.ndarray:
    """(AT_ONCE, columns, bins) of buzzes with a moving pitch, as a voice has."""
    rng, t = np.random.default_rng(0), np.arange((s.columns - 1) * s.hop) / s.rate
    pitch = (
        120
        + 80 * rng.random((BATCH, 1))
        + 30 * np.sin(2 * np.pi * (1 + 3 * rng.random((BATCH, 1))) * t)
    )
    phase = 2 * np.pi * np.cumsum(pitch, axis=1) / s.rate
    waves = sum(np.sin(h * phase) / h for h in range(1, 25)) + 0.02 * rng.standard_normal(
        phase.shape
    )
    return np.abs(spectrograms.stft(0.1 * np.asarray(waves, np.float32), s))


def rows() -> list[Row]:
    import librosa

    s = LogMel()
    wanted = buzz_magnitudes(s)
    turned = np.ascontiguousarray(wanted.swapaxes(-1, -2))
    settings = {
        "n_iter": ITERATIONS,
        "hop_length": s.hop,
        "win_length": s.window,
        "n_fft": s.n_fft,
        "momentum": 0.99,
        "random_state": 0,
    }

    def theirs(m: np.ndarray = turned) -> np.ndarray:
        return librosa.griffinlim(m, pad_mode="constant", **settings)

    def ours(m: np.ndarray = wanted) -> np.ndarray:
        return waveforms.griffin_lim(m, s, iterations=ITERATIONS)

    def apart(waves: np.ndarray) -> float:
        """Spectral convergence tells how far the sound's magnitudes are from those asked for."""
        return float(
            np.linalg.norm(np.abs(spectrograms.stft(waves, s)) - wanted) / np.linalg.norm(wanted)
        )

    note = (
        f"spectral convergence {apart(ours()):.4f}, librosa's {apart(theirs()):.4f}; "
        f"{ITERATIONS} turns, momentum 0.99"
    )
    one = measure_ratio(
        "Griffin-Lim: librosa / ours, one at a time",
        lambda: theirs(turned[0]),
        lambda: ours(wanted[0]),
        repeats=15,
    )
    return [
        measure_ratio(
            f"Griffin-Lim: librosa / ours, {BATCH} at once",
            theirs,
            ours,
            aim="at least 3",
            note=note,
        ),
        one,
    ]
