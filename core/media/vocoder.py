"""Neural vocoder: log-mel spectrogram -> waveform with consistent phase (§3.3, inverse).

28 mel bands have lost a voice's pitch, and which parts of it are tone and which are breath. A
network estimates both, and the spectrum's fine shape, from the neighbourhood of each column. As in
a source-filter model, these shape a pulse train of that pitch and noise; a few iterations then make
the waveform consistent with the given spectrogram. Plain Griffin-Lim (`waveforms.griffin_lim`)
needs no network and is the reference and the fallback.

Shapes: a spectrogram is (B, T, bands) in dB, a waveform (B, (T - 1) * hop), f0 is (B, T) in Hz.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from core import files
from core.config.settings import LogMel
from core.files import UserError
from core.media import spectrograms, waveforms

PITCH_BINS = 96  # classes of the pitch head, evenly apart in log frequency
MIN_F0, MAX_F0 = 60.0, 700.0  # Hz; an acted scream of RAVDESS reaches 650
# Of `consistent_waveform`; chosen on S2's voices (LOG.md). At a relaxation of 0.5 a band's energy
# is exact.
MOMENTUM, RELAXATION = 0.9, 0.6
# Where the network is unsure, its share of tone lies between pulses and noise, which sounds like a
# whisper. Its logits are multiplied by the first and raised by the second; chosen on S2 (LOG.md).
TONE_SHARPNESS, TONE_OFFSET = 4.0, 2.0
WEIGHTS_FOLDER = "vocoder"
# Fields of LogMel that a network depends on.
LOGMEL_FIELDS = "rate", "n_fft", "window", "hop", "bands", "f_min", "f_max"
# Lowest input of the network, in units of 20 dB relative to a spectrogram's level.
MIN_INPUT_LEVEL = -4.0


class ConvNeXtBlock(nn.Module):
    """ConvNeXt block along time, (B, width, T) (Liu et al. 2022; as in Vocos, Siuzdak 2023)."""

    def __init__(self, width: int):
        super().__init__()
        self.near = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, h: Tensor) -> Tensor:
        inside = self.norm(self.near(h).transpose(1, 2))
        return h + (self.scale * self.narrow(F.gelu(self.wide(inside)))).transpose(1, 2)


class Vocoder(nn.Module):
    """Estimates what a spectrogram has lost: `to_network_input` (B, T, bands) -> three maps.

    Logits of the pitch (B, T, PITCH_BINS + 1), the last for "no pitch"; a correction of the
    magnitude (B, T, bins) in powers of ten; logits of the share of tone in each bin (B, T, bins).
    """

    def __init__(self, bands: int, bins: int, width: int = 144, blocks: int = 6):
        super().__init__()
        self.arguments = {"bands": bands, "bins": bins, "width": width, "blocks": blocks}
        self.first = nn.Conv1d(bands, width, 7, padding=3)
        self.blocks = nn.Sequential(*[ConvNeXtBlock(width) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList([nn.Linear(width, n) for n in (PITCH_BINS + 1, bins, bins)])
        for head in self.heads[1:]:
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.norm(self.blocks(self.first(v.transpose(1, 2))).transpose(1, 2))
        pitch, shape, tone = (head(h) for head in self.heads)
        return pitch, shape, tone


# ------------------------------------------------------------------ the parts of the sound


@functools.cache
def _filters_and_window(s: LogMel) -> tuple[Tensor, Tensor, Tensor]:
    """Mel filters (bands, bins), their sum over the bands (bins,), the window (n_fft,)."""
    filters = torch.from_numpy(np.ascontiguousarray(spectrograms.mel_filters(s)))
    return filters, filters.sum(dim=0), torch.from_numpy(spectrograms.hann(s))


def pitch_grid() -> Tensor:
    """Frequencies of the pitch head's classes, (PITCH_BINS,) Hz."""
    return torch.logspace(np.log10(MIN_F0), np.log10(MAX_F0), PITCH_BINS)


def to_network_input(db: Tensor) -> Tensor:
    """(B, T, bands) dB -> the network's input: relative to each spectrogram's level, over 20 dB."""
    level = torch.quantile(db.flatten(1), 0.99, dim=1)[:, None, None]
    return ((db - level) / 20).clamp(MIN_INPUT_LEVEL, 1.0)


def spread_over_bins(mel: Tensor, s: LogMel) -> Tensor:
    """Band energies (…, bands) -> power (…, bins), spread over the filters; 0 outside of them."""
    filters, weight, _ = _filters_and_window(s)
    return (mel / filters.sum(dim=1)) @ filters / weight.clamp(min=1e-8)


def stft_frames(wave: Tensor, s: LogMel) -> Tensor:
    """`spectrograms.stft` in torch, of a waveform that is padded already.

    (B, n_fft + hop (T - 1)) -> (B, T, bins) complex64.
    """
    return torch.fft.rfft(wave.unfold(-1, s.n_fft, s.hop) * _filters_and_window(s)[2])


def pulse_spectrum(f0: Tensor, s: LogMel) -> Tensor:
    """Spectrum (B, T, bins) of a pulse train that follows f0 (B, T) in Hz.

    All harmonics below f_max are equally strong; a steady harmonic's peak is 1. The sum of cosines
    is Dirichlet's kernel; the phase is the pitch's integral, so it is continuous over the columns.
    """
    half, samples = s.n_fft // 2, (f0.shape[1] - 1) * s.hop + 1
    f = F.interpolate(f0[:, None].double(), samples, mode="linear", align_corners=True)[:, 0]
    f = F.pad(f, (half, half - 1), mode="replicate")
    phi = 2 * torch.pi * torch.cumsum(f / s.rate, dim=1)
    k = torch.floor(s.f_max / f)
    below = torch.sin(phi / 2)
    safe = torch.where(below.abs() < 1e-6, torch.full_like(below, 1e-6), below)
    wave = torch.where(below.abs() < 1e-6, k, torch.sin((k + 0.5) * phi) / (2 * safe) - 0.5).float()
    return stft_frames(wave, s) * (2 / _filters_and_window(s)[2].sum())


def noise_phases(batch: int, columns: int, s: LogMel, seed: int) -> Tensor:
    """Phases of white noise: (batch, columns, bins) of magnitude 1, equal over the batch."""
    generator = torch.Generator().manual_seed(seed)
    wave = torch.randn((1, s.n_fft + s.hop * (columns - 1)), generator=generator)
    spectrum = stft_frames(wave, s)
    return (spectrum / spectrum.abs().clamp(min=1e-6)).expand(batch, -1, -1)


def viterbi_pitch(logits: Tensor, stiffness: float = 2.0) -> Tensor:
    """Likeliest pitch (B, T) in Hz for the pitch head's logits (B, T, PITCH_BINS + 1).

    Viterbi's algorithm with a cost for moving; a column is weighted by its probability of having a
    pitch. The path is refined by the mean of its neighbouring classes.
    """
    probability = logits.softmax(dim=-1)
    weighted = logits[..., :-1].log_softmax(dim=-1) * (1 - probability[..., -1:])
    step = torch.arange(PITCH_BINS)
    cost = -stiffness * (step[:, None] - step).abs().clamp(max=12).float() / 4
    # Forward: the best score of each class, and the class that it came from.
    score, sources = weighted[:, 0], []
    for t in range(1, weighted.shape[1]):
        best = (score[:, None, :] + cost).max(dim=2)
        sources.append(best.indices)
        score = best.values + weighted[:, t]
    # Backward: the best path.
    at = score.argmax(dim=1)
    path = [at]
    for source in reversed(sources):
        at = source.gather(1, at[:, None])[:, 0]
        path.append(at)
    track = torch.stack(path[::-1], dim=1)
    near = (step - track[..., None]).abs() <= 2
    weight = torch.where(near, probability[..., :-1], torch.zeros(())) + 1e-9 * near
    return ((weight * pitch_grid().log()).sum(dim=-1) / weight.sum(dim=-1)).exp()


def shape_spectrum(
    db: Tensor, maps: tuple[Tensor, Tensor, Tensor], E: Tensor, N: Tensor, s: LogMel
) -> Tensor:
    """Mix pulses E and noise N (B, T, bins) and shape them by `db` and the network's maps."""
    _, shape, tone = maps
    power = spread_over_bins(10 ** (db / 10), s).clamp(min=1e-12)
    envelope = power.sqrt() * 10 ** shape.clamp(-3, 3)
    m = tone.sigmoid()
    return envelope * (m * E + (1 - m) * N)


def consistent_waveform(spectrum: Tensor, db: Tensor, s: LogMel, n_iterations: int) -> Tensor:
    """A waveform (B, (T - 1) hop) near `spectrum` (B, T, bins) whose log-mel spectrogram is `db`.

    Like fast Griffin-Lim with momentum, but it keeps the bands' energies, not every bin's: each
    iteration analyses the waveform again and scales each band to its energy in `db` (B, T, bands).
    """
    filters, weight, _ = _filters_and_window(s)
    mel, half, length = 10 ** (db / 10), s.n_fft // 2, s.n_fft + s.hop * (db.shape[1] - 1)
    previous = torch.zeros_like(spectrum)
    for i in range(n_iterations):
        wave = waveforms.overlap_add(spectrum, s)
        wave[:, :half] = wave[:, length - half :] = 0
        rebuilt = stft_frames(wave, s)
        ahead = torch.lerp(previous, rebuilt, 1 + MOMENTUM) if i else rebuilt
        power = ahead.real.square() + ahead.imag.square()
        band_gain = (mel / (power @ filters.T).clamp(min=1e-12)).clamp(1e-4, 1e4)
        gain = band_gain @ filters / weight.clamp(min=1e-8)
        spectrum, previous = ahead * gain.pow(RELAXATION), rebuilt
    return waveforms.overlap_add(spectrum, s)[:, half : length - half]


# ------------------------------------------------------------------ the network's file


def weights_path(bands: int) -> Path:
    """File of the weights for this many bands: in the folder of the runs, else the shipped one."""
    name = Path(WEIGHTS_FOLDER) / f"{bands}.safetensors"
    own = files.checkpoints_folder() / name
    return own if own.exists() else files.ROOT / "checkpoints" / name


def save(path: Path, network: Vocoder, s: LogMel) -> None:
    """Write weights as float16 safetensors; architecture and LOGMEL_FIELDS are in the header."""
    tensors = {k: v.detach().half().contiguous() for k, v in network.state_dict().items()}
    header = {"arguments": network.arguments, "logmel": {k: getattr(s, k) for k in LOGMEL_FIELDS}}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, serialise(tensors, {"vocoder": json.dumps(header, sort_keys=True)}))


@functools.cache
def load(path: Path) -> tuple[Vocoder, dict]:
    """The network of a file of `save`, float32, in evaluation mode, and its LOGMEL_FIELDS; cached.

    Raises UserError for any other file.
    """
    try:
        with safe_open(path, "pt") as f:
            header = json.loads((f.metadata() or {})["vocoder"])
            # safe_open is no dict
            tensors = {k: f.get_tensor(k).float() for k in f.keys()}  # noqa: SIM118
        network = Vocoder(**header["arguments"])
        network.load_state_dict(tensors)
    except Exception as e:  # safetensors raises its own class for damaged files
        hint = "restore the file, or train it again: python -m core vocoder"
        raise UserError(f"{files.shown(path)} is no vocoder of this project ({e}); {hint}") from e
    return network.eval().requires_grad_(False), header["logmel"]


def has_network(s: LogMel) -> bool:
    """Whether there is a network for these settings; length and range do not matter.

    >>> has_network(LogMel(columns=28)), has_network(LogMel(bands=29))
    (True, False)
    """
    path = weights_path(s.bands)
    return path.exists() and load(path)[1] == {k: getattr(s, k) for k in LOGMEL_FIELDS}


# ------------------------------------------------------------------ inversion


def iterations(s: LogMel) -> int:
    """Number of phase-consistency iterations.

    Narrow mel bands overlap more and converge more slowly.
    """
    return 40 if s.bands <= 40 else 80


def inversion_name(s: LogMel, plain: bool = False) -> str:
    """Name of the inversion that `to_waveform` uses, for people."""
    return "plain Griffin-Lim" if plain or not has_network(s) else "the vocoder"


@torch.no_grad()
def invert_with_network(network: Vocoder, db: np.ndarray, s: LogMel, seed: int = 0) -> np.ndarray:
    """(B, T, bands) dB -> waveforms (B, (T - 1) hop) float32, in parallel.

    `seed` alone decides their noise.
    """

    def invert(wanted: Tensor) -> Tensor:
        pitch, shape, tone = network(to_network_input(wanted))
        maps = pitch, shape, TONE_SHARPNESS * tone + TONE_OFFSET
        pulses = pulse_spectrum(viterbi_pitch(pitch), s)
        noise = noise_phases(len(wanted), wanted.shape[1], s, seed)
        spectrum = shape_spectrum(wanted, maps, pulses, noise, s)
        return consistent_waveform(spectrum, wanted, s, iterations(s))

    if not len(db):
        return np.zeros((0, (db.shape[1] - 1) * s.hop), np.float32)
    wanted = torch.from_numpy(np.ascontiguousarray(db, np.float32))
    blocks = wanted.split(waveforms.SPECTROGRAMS_PER_TASK)
    return torch.cat(list(waveforms.thread_pool().map(invert, blocks))).numpy()


def to_waveform(
    y: np.ndarray, ref_db: float, s: LogMel, seed: int = 0, plain: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Spectrogram in [-1, 1] -> waveform in [-1, 1] and the gain in dB applied.

    (..., columns, bands) -> (..., (columns - 1) * hop) float32, (...). By the network for these
    settings, or by Griffin-Lim if there is none or `plain`. Cells at the bottom of the range are
    silence. All sounds of a corpus are amplified alike (`waveforms.play_gain_db`), but those whose
    peak would be above 0.95 less; nothing is clipped.

    >>> s = LogMel(columns=28)
    >>> wave, gain_db = to_waveform(np.zeros((2, 28, 28)), ref_db=0.0, s=s)
    >>> wave.shape == (2, 27 * s.hop), wave.dtype.name, gain_db.shape
    (True, 'float32', (2,))
    """
    y = np.asarray(y, np.float32)
    db = waveforms.to_inversion_db(y, ref_db, s)
    if plain or not has_network(s):
        wave = waveforms.griffin_lim(waveforms.mel_to_magnitude(db, s), s, seed)
    else:
        network = load(weights_path(s.bands))[0]
        wave = invert_with_network(network, db.reshape(-1, *db.shape[-2:]), s, seed)
        wave = wave.reshape(*db.shape[:-2], (db.shape[-2] - 1) * s.hop)
    play_gain = waveforms.play_gain_db(ref_db)
    wave, limit = waveforms.limit_peak(wave * np.float32(10 ** (play_gain / 20)))
    return wave, limit + np.float32(play_gain)
