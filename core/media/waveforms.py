"""§3.3 backwards: log-mel spectrogram to waveform by Griffin-Lim, and WAV files."""

from __future__ import annotations

import functools
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from core.config import LogMel
from core.media import spectrograms

if TYPE_CHECKING:
    import torch

MAX_PEAK = 0.95  # of a wav's full scale; louder inversions are turned down, never clipped


def mel_to_magnitude(db: np.ndarray, s: LogMel, iterations: int = 30) -> np.ndarray:
    """Band-wise inverse: (..., columns, bands) dB -> (..., columns, bins) magnitudes whose mel bands match.

    Non-negative by multiplicative updates (Richardson-Lucy) from a start that spreads each band's energy over its filter.
    """
    filters = spectrograms.mel_filters(s)
    mel = 10 ** (db / 10)
    weight = filters.sum(axis=0) + 1e-12
    power = (mel / filters.sum(axis=1)) @ filters / weight
    for _ in range(iterations):
        power = power * ((mel / np.maximum(power @ filters.T, 1e-12)) @ filters / weight)
    power[..., weight < 1e-10] = 0  # bins below f_min and above f_max
    return np.sqrt(power).astype(np.float32)


SPECTROGRAMS_PER_TASK = 4  # spectrograms that a thread of Griffin-Lim takes at once: what it works on then stays in the processor's cache


@functools.cache
def thread_pool() -> ThreadPoolExecutor:
    """A thread for each processor, in which torch uses no threads of its own: those would wait for each other at every small operation,
    and long where something else keeps a processor busy."""
    import torch

    def alone() -> None:
        torch.get_num_threads()  # else its first operation would set it back to what all threads of the process have
        torch.set_num_threads(1)

    n, before = os.cpu_count() or 1, torch.get_num_threads()
    pool, started = ThreadPoolExecutor(n, "griffin-lim", alone), threading.Barrier(n)
    list(pool.map(lambda _: started.wait(), range(n)))
    torch.set_num_threads(before)  # of all other threads
    return pool


def overlap_add(spectrum: torch.Tensor, s: LogMel) -> torch.Tensor:
    """The least-squares inverse of `stft`, with what lies beyond its ends: (B, columns, bins) complex64 -> (B, n_fft + hop (columns - 1)).

    Frames are added by hops, few times for all of them.
    """
    import torch  # pages that make no sound do not wait for it

    columns, per = spectrum.shape[1], -(-s.n_fft // s.hop)
    length = s.n_fft + s.hop * (columns - 1)
    frames = torch.fft.irfft(spectrum, n=s.n_fft).mul_(torch.from_numpy(spectrograms.hann(s)))
    frames = torch.nn.functional.pad(frames, (0, per * s.hop - s.n_fft))
    out = torch.zeros(len(frames), columns + per - 1, s.hop)
    for k in range(per):
        out[:, k : k + columns] += frames[:, :, k * s.hop : (k + 1) * s.hop]
    return out.view(len(frames), -1)[:, :length].mul_(
        torch.from_numpy(spectrograms._window_normaliser(columns, s))
    )


def griffin_lim(
    magnitude: np.ndarray, s: LogMel, seed: int = 0, iterations: int = 48, momentum: float = 0.99
) -> np.ndarray:
    """Phase by the fast Griffin-Lim algorithm (Perraudin, Balazs, Søndergaard 2013), batched, seeded.

    (..., columns, bins) magnitudes -> (..., (columns - 1) * hop) float32. In each turn the signal of the spectrum is analysed again, and
    the new phase is that of `rebuilt + momentum * (rebuilt - previous)`; tests hold this to the same four lines of NumPy.
    """
    import torch  # pages that make no sound do not wait for it

    columns, bins = magnitude.shape[-2:]
    random = (
        np.random.default_rng(seed)
        .random(magnitude.shape, dtype=np.float32)
        .reshape(-1, columns, bins)
    )
    wanted, window = (
        np.ascontiguousarray(magnitude, np.float32).reshape(-1, columns, bins),
        torch.from_numpy(spectrograms.hann(s)),
    )
    half, length = s.n_fft // 2, s.n_fft + s.hop * (columns - 1)

    def block(m: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        spectrum = torch.polar(m, 2 * np.pi * turn)
        previous = torch.zeros_like(spectrum)
        for _ in range(iterations):
            wave = overlap_add(spectrum, s)
            wave[:, :half] = wave[:, length - half :] = 0
            rebuilt = torch.fft.rfft(wave.unfold(-1, s.n_fft, s.hop) * window)
            sides = torch.view_as_real(
                torch.sub(rebuilt, previous, alpha=momentum / (1 + momentum))
            )  # the sum's phase; its size falls out
            scale = (
                sides[..., 0]
                .square()
                .addcmul_(sides[..., 1], sides[..., 1])
                .clamp_(min=1e-24)
                .rsqrt_()
                .mul_(m)
            )
            spectrum, previous = torch.view_as_complex(sides * scale[..., None]), rebuilt
        return overlap_add(spectrum, s)[:, half : length - half]

    if not len(wanted):
        return np.zeros((*magnitude.shape[:-2], length - 2 * half), np.float32)
    blocks = (torch.from_numpy(a).split(SPECTROGRAMS_PER_TASK) for a in (wanted, random))
    return (
        torch.cat(list(thread_pool().map(block, *blocks)))
        .numpy()
        .reshape(*magnitude.shape[:-2], length - 2 * half)
    )


def to_inversion_db(y: np.ndarray, ref_db: float, s: LogMel) -> np.ndarray:
    """`unscale` for an inversion: cells at the bottom of the range are silence (-100 dB). Any shape."""
    return np.where(np.asarray(y) <= -1, spectrograms.FLOOR_DB, spectrograms.unscale(y, ref_db, s))


def limit_peak(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., samples) with no peak above 0.95, each sound turned down as a whole and nothing clipped; and the gain in dB, at most 0."""
    peak = np.maximum(np.abs(wave).max(axis=-1, keepdims=True), 1e-9)
    gain = np.minimum(1.0, MAX_PEAK / peak)
    return (wave * gain).astype(np.float32), (20 * np.log10(gain[..., 0])).astype(np.float32)


def wav_bytes(wave: np.ndarray, rate: int, comment: str = "", fade: float = 0.005) -> bytes:
    """A 16-bit wav file of (samples,) float32, with `fade` seconds of fade at both ends and `comment` in its metadata."""
    import soundfile

    wave = np.array(wave, np.float32)
    n = min(int(fade * rate), len(wave) // 2)
    if n:
        ramp = np.linspace(0, 1, n, dtype=np.float32)
        wave[:n] *= ramp
        wave[-n:] *= ramp[::-1]
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, "PCM_16", format="WAV") as f:
        if comment:
            f.comment = comment
        f.write(np.clip(wave, -1, 1))
    return buffer.getvalue()


def wav_comment(what: str, s: LogMel, run: str = "", seed: int | None = None, way: str = "") -> str:
    """A wav's comment: what it is, and what made it: the run, the seed, the way back to sound, the spectrogram's settings."""
    made = f"dacssGAN {run} seed {seed}; " if run else ""
    by = f", made sound by {way}" if way else ""
    return f"{made}{what}{by}; {s.bands} mel bands from {s.f_min:g} to {s.f_max:g} Hz, a column each {1000 * s.hop / s.rate:g} ms"


def crop_to_wav(
    wave: np.ndarray,
    columns: int,
    s: LogMel,
    gain_db: float = 0.0,
    comment: str = "",
    start: int | None = None,
) -> tuple[bytes, float]:
    """The recording (samples,) under `columns` of its spectrogram, those in its middle or from `start` on, as a wav of (columns - 1) hop.

    At the level that `gain_db` gives it; and the gain that a peak above 0.95 then took away, in dB, at most 0.
    """
    first = max(0, (1 + len(wave) // s.hop - columns) // 2) if start is None else start
    part = wave[first * s.hop : (first + columns - 1) * s.hop] * np.float32(10 ** (gain_db / 20))
    part, less = limit_peak(part if len(part) else np.zeros(1, np.float32))
    return wav_bytes(part, s.rate, comment), float(less)
