"""§3.3 backwards: log-mel spectrogram to waveform by Griffin-Lim, and WAV files."""

from __future__ import annotations

import functools
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from core.config.settings import LogMel
from core.media import spectrograms

if TYPE_CHECKING:  # pages that make no sound do not wait for torch
    import torch

PLAYED_REF_DB = 17.0  # dB of a cell that is scaled to 1, when it is played
MAX_PEAK = 0.95  # relative to a wav's full scale; louder sounds are turned down, never clipped
SPECTROGRAMS_PER_TASK = 4  # per call of a thread, so that its data stay in the processor's cache


def mel_to_magnitude(db: np.ndarray, s: LogMel, iterations: int = 30) -> np.ndarray:
    """Band-wise inverse: (..., columns, bands) dB -> (..., columns, bins) magnitudes.

    Their mel bands match. Non-negative by multiplicative updates (Richardson-Lucy) from a start
    that spreads each band's energy over its filter.
    """
    filters = spectrograms.mel_filters(s)
    mel = 10 ** (db / 10)
    weight = filters.sum(axis=0) + 1e-12
    power = (mel / filters.sum(axis=1)) @ filters / weight
    for _ in range(iterations):
        power = power * ((mel / np.maximum(power @ filters.T, 1e-12)) @ filters / weight)
    power[..., weight < 1e-10] = 0  # bins below f_min and above f_max
    return np.sqrt(power).astype(np.float32)


@functools.cache
def thread_pool() -> ThreadPoolExecutor:
    """A thread per processor, in each of which torch computes on that thread alone.

    Torch's own threads would wait for each other at every small operation, and long where another
    program keeps a processor busy.
    """
    import torch

    def use_one_thread() -> None:
        torch.get_num_threads()  # else the first operation resets it to the process's number
        torch.set_num_threads(1)

    n, before = os.cpu_count() or 1, torch.get_num_threads()
    pool, started = ThreadPoolExecutor(n, "griffin-lim", use_one_thread), threading.Barrier(n)
    list(pool.map(lambda _: started.wait(), range(n)))
    torch.set_num_threads(before)  # for all other threads
    return pool


@functools.lru_cache(maxsize=16)
def _window_normaliser(columns: int, s: LogMel) -> np.ndarray:
    """Overlap-add normaliser: 1 / sum of squared windows at each sample, (samples,)."""
    power = np.zeros(s.n_fft + s.hop * (columns - 1), np.float32)
    for k in range(columns):
        power[k * s.hop : k * s.hop + s.n_fft] += spectrograms.hann(s) ** 2
    return 1 / np.maximum(power, 1e-3)


def overlap_add(spectrum: torch.Tensor, s: LogMel) -> torch.Tensor:
    """Least-squares inverse of `spectrograms.stft`, including the padding beyond both ends.

    (B, columns, bins) complex64 -> (B, n_fft + hop (columns - 1)). All frames are added at once,
    one hop of each at a time.
    """
    import torch

    columns, per = spectrum.shape[1], -(-s.n_fft // s.hop)
    length = s.n_fft + s.hop * (columns - 1)
    frames = torch.fft.irfft(spectrum, n=s.n_fft).mul_(torch.from_numpy(spectrograms.hann(s)))
    frames = torch.nn.functional.pad(frames, (0, per * s.hop - s.n_fft))
    out = torch.zeros(len(frames), columns + per - 1, s.hop)
    for k in range(per):
        out[:, k : k + columns] += frames[:, :, k * s.hop : (k + 1) * s.hop]
    normaliser = torch.from_numpy(_window_normaliser(columns, s))
    return out.view(len(frames), -1)[:, :length].mul_(normaliser)


def griffin_lim(
    magnitude: np.ndarray, s: LogMel, seed: int = 0, iterations: int = 48, momentum: float = 0.99
) -> np.ndarray:
    """Phase by the fast Griffin-Lim algorithm (Perraudin, Balazs, Søndergaard 2013), batched.

    (..., columns, bins) magnitudes -> (..., (columns - 1) * hop) float32. Each iteration analyses
    the spectrum's signal again and takes the phase of `rebuilt + momentum * (rebuilt - previous)`.
    Tests hold this to the same four lines of NumPy.

    >>> s = LogMel()
    >>> wave = np.sin(2 * np.pi * 440 * np.arange(3600) / s.rate)
    >>> again = griffin_lim(np.abs(spectrograms.stft(wave, s)), s, seed=0)
    >>> again.shape, f"{again.std() / wave.std():.1f}"
    ((3600,), '1.0')
    """
    import torch

    columns, bins = magnitude.shape[-2:]
    half, length = s.n_fft // 2, s.n_fft + s.hop * (columns - 1)
    shape = (*magnitude.shape[:-2], length - 2 * half)
    if not magnitude.size:
        return np.zeros(shape, np.float32)
    wanted = np.ascontiguousarray(magnitude, np.float32).reshape(-1, columns, bins)
    turns = np.random.default_rng(seed).random(wanted.shape, dtype=np.float32)  # phases / 2 pi
    window = torch.from_numpy(spectrograms.hann(s))

    def invert(m: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        spectrum = torch.polar(m, 2 * np.pi * turn)
        previous = torch.zeros_like(spectrum)
        for _ in range(iterations):
            wave = overlap_add(spectrum, s)
            wave[:, :half] = wave[:, length - half :] = 0
            rebuilt = torch.fft.rfft(wave.unfold(-1, s.n_fft, s.hop) * window)
            # Same phase as the formula's; the magnitude is replaced by m.
            ahead = torch.sub(rebuilt, previous, alpha=momentum / (1 + momentum))
            parts = torch.view_as_real(ahead)
            power = parts[..., 0].square().addcmul_(parts[..., 1], parts[..., 1])
            scale = power.clamp_(min=1e-24).rsqrt_().mul_(m)
            spectrum, previous = torch.view_as_complex(parts * scale[..., None]), rebuilt
        return overlap_add(spectrum, s)[:, half : length - half]

    blocks = (torch.from_numpy(a).split(SPECTROGRAMS_PER_TASK) for a in (wanted, turns))
    return torch.cat(list(thread_pool().map(invert, *blocks))).numpy().reshape(shape)


def to_inversion_db(y: np.ndarray, ref_db: float, s: LogMel) -> np.ndarray:
    """`unscale` for an inversion: cells at the range's bottom are silence (-100 dB). Any shape."""
    return np.where(np.asarray(y) <= -1, spectrograms.FLOOR_DB, spectrograms.unscale(y, ref_db, s))


def play_gain_db(ref_db: float) -> float:
    """Gain in dB that makes a corpus' voices loud enough to play, the same for all of them.

    `ref_db` is the level that its spectrograms scale to 1; recordings of studios are quiet.

    >>> play_gain_db(5.0)
    12.0
    """
    return PLAYED_REF_DB - ref_db


def limit_peak(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn down each sound whose peak is above MAX_PEAK as a whole; nothing is clipped.

    (..., samples) -> (..., samples) and the gain (...) in dB, at most 0; float32.
    """
    peak = np.maximum(np.abs(wave).max(axis=-1, keepdims=True), 1e-9)
    gain = np.minimum(1.0, MAX_PEAK / peak)
    return (wave * gain).astype(np.float32), (20 * np.log10(gain[..., 0])).astype(np.float32)


def wav_bytes(wave: np.ndarray, rate: int, comment: str = "", fade: float = 0.005) -> bytes:
    """A 16-bit WAV file of (samples,) float32, faded over `fade` seconds at both ends.

    `comment` is put into its metadata.
    """
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
    """A WAV's comment: what it is, its run and seed, its inversion, its spectrogram's settings.

    `way` is the inversion's name, as of `vocoder.inversion_name`.
    """
    origin = f"dacssGAN {run} seed {seed}; " if run else ""
    inversion = f", made sound by {way}" if way else ""
    bands = f"{s.bands} mel bands from {s.f_min:g} to {s.f_max:g} Hz"
    return f"{origin}{what}{inversion}; {bands}, a column each {1000 * s.hop / s.rate:g} ms"


def crop_to_wav(
    wave: np.ndarray,
    columns: int,
    s: LogMel,
    gain_db: float = 0.0,
    comment: str = "",
    start: int | None = None,
) -> tuple[bytes, float]:
    """The part of a recording (samples,) under some of its spectrogram's columns, as a WAV.

    `columns` from `start` on (the middle ones if None) last (columns - 1) hop. `gain_db` is
    applied; the second value is the gain in dB, at most 0, that `limit_peak` applied besides.
    """
    first = max(0, (1 + len(wave) // s.hop - columns) // 2) if start is None else start
    part = wave[first * s.hop : (first + columns - 1) * s.hop] * np.float32(10 ** (gain_db / 20))
    part, less = limit_peak(part if len(part) else np.zeros(1, np.float32))
    return wav_bytes(part, s.rate, comment), float(less)
