"""From a log-mel spectrogram to a sound worth hearing (§3.3's way back): a small network that knows speech, and phases that hold.

28 mel bands have lost a voice's pitch and which of its parts are tone and which are breath. A network reads both, and the fine shape of the
spectrum, out of a spectrogram's neighbourhood; a pulse train of that pitch and noise are shaped by it, in the manner of a source-filter
model, and a few turns then hold the sound to the spectrogram that was asked for. Plain Griffin-Lim (`waveforms.griffin_lim`) needs no
network and is the reference and the fallback.

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
from core.config import LogMel
from core.media import spectrograms, waveforms

PITCH_BINS = 96  # of the pitch head, evenly apart in log frequency
MIN_F0, MAX_F0 = 60.0, 700.0  # Hz; an acted scream of RAVDESS reaches 650
MOMENTUM, RELAXATION = (
    0.9,
    0.6,
)  # of `held`; chosen on S2's voices (LOG.md); a band's energy is exact at a relaxation of 0.5
WEIGHTS_FOLDER = "vocoder"
LOGMEL_FIELDS = (
    "rate",
    "n_fft",
    "window",
    "hop",
    "bands",
    "f_min",
    "f_max",
)  # of LogMel: with others a network is of no use
MIN_INPUT_LEVEL = -4.0  # of the network's input, in units of 20 dB below a spectrogram's level: nothing softer is looked at


class ConvNeXtBlock(nn.Module):
    """A ConvNeXt block along time (Liu et al. 2022, as Vocos, Siuzdak 2023, uses it): (B, width, T) -> the same."""

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
    """What a spectrogram has lost. (B, T, bands) dB relative to its level, / 20 -> three maps of each column:

    logits of the pitch (B, T, PITCHES + 1), the last for "no pitch"; a correction of the spectrum (B, T, bins) in powers of ten of the
    magnitude; logits of how much of each bin is tone (B, T, bins).
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
    """(PITCHES,) Hz."""
    return torch.logspace(np.log10(MIN_F0), np.log10(MAX_F0), PITCH_BINS)


def to_network_input(db: Tensor) -> Tensor:
    """What the network sees of (B, T, bands) dB: relative to each spectrogram's level, so that loud and soft are one; / 20."""
    level = torch.quantile(db.flatten(1), 0.99, dim=1)[:, None, None]
    return ((db - level) / 20).clamp(MIN_INPUT_LEVEL, 1.0)


def spread_over_bins(mel: Tensor, s: LogMel) -> Tensor:
    """Band energies (…, bands) spread over the bins of their filters: power (…, bins), 0 where no filter reaches."""
    filters, weight, _ = _filters_and_window(s)
    return (mel / filters.sum(dim=1)) @ filters / weight.clamp(min=1e-8)


def stft_frames(wave: Tensor, s: LogMel) -> Tensor:
    """`spectrograms.stft` in torch, without its zeros at the ends: (B, n_fft + hop (T - 1)) -> (B, T, bins) complex64."""
    return torch.fft.rfft(wave.unfold(-1, s.n_fft, s.hop) * _filters_and_window(s)[2])


def pulse_spectrum(f0: Tensor, s: LogMel) -> Tensor:
    """The spectrum (B, T, bins) of a pulse train that follows f0 (B, T), all harmonics below f_max alike; a steady harmonic's peak is 1.

    The sum of the cosines is Dirichlet's kernel; the phase is the pitch's integral, so that it runs on from column to column.
    """
    half, columns = s.n_fft // 2, f0.shape[1]
    f = F.interpolate(
        f0[:, None].double(), (columns - 1) * s.hop + 1, mode="linear", align_corners=True
    )[:, 0]
    f = F.pad(f, (half, half - 1), mode="replicate")
    phi = 2 * torch.pi * torch.cumsum(f / s.rate, dim=1)
    k = torch.floor(s.f_max / f)
    below = torch.sin(phi / 2)
    safe = torch.where(below.abs() < 1e-6, torch.full_like(below, 1e-6), below)
    wave = torch.where(below.abs() < 1e-6, k, torch.sin((k + 0.5) * phi) / (2 * safe) - 0.5).float()
    return stft_frames(wave, s) * (2 / _filters_and_window(s)[2].sum())


def noise_phases(batch: int, columns: int, s: LogMel, seed: int) -> Tensor:
    """The phases of white noise: a spectrum (batch, columns, bins) of magnitude 1, the same noise for each of the batch."""
    wave = torch.randn(
        (1, s.n_fft + s.hop * (columns - 1)), generator=torch.Generator().manual_seed(seed)
    )
    spectrum = stft_frames(wave, s)
    return (spectrum / spectrum.abs().clamp(min=1e-6)).expand(batch, -1, -1)


def viterbi_pitch(logits: Tensor, stiffness: float = 2.0) -> Tensor:
    """The pitch (B, T) in Hz that the pitch head's logits (B, T, PITCHES + 1) make likeliest: the best path, moving being costly.

    Viterbi's algorithm; a column counts as much as it is believed to have a pitch at all. The path is refined by its neighbours' mean.
    """
    likely = logits.softmax(dim=-1)
    given = logits[..., :-1].log_softmax(dim=-1) * (1 - likely[..., -1:])
    n, columns = given.shape[:2]
    step = torch.arange(PITCH_BINS)
    cost = -stiffness * (step[:, None] - step).abs().clamp(max=12).float() / 4
    score, came = given[:, 0], []
    for t in range(1, columns):
        best = (score[:, None, :] + cost).max(dim=2)
        came.append(best.indices)
        score = best.values + given[:, t]
    at = score.argmax(dim=1)
    path = [at]
    for back in reversed(came):
        at = back.gather(1, at[:, None])[:, 0]
        path.append(at)
    track = torch.stack(path[::-1], dim=1)
    near = (step - track[..., None]).abs() <= 2
    weight = torch.where(near, likely[..., :-1], torch.zeros(())) + 1e-9 * near
    return ((weight * pitch_grid().log()).sum(dim=-1) / weight.sum(dim=-1)).exp()


def shape_spectrum(
    db: Tensor, maps: tuple[Tensor, Tensor, Tensor], E: Tensor, N: Tensor, s: LogMel
) -> Tensor:
    """The spectrum (B, T, bins) of pulses E and noise N, mixed and shaped as the network's maps say."""
    _, shape, tone = maps
    envelope = spread_over_bins(10 ** (db / 10), s).clamp(min=1e-12).sqrt() * 10 ** shape.clamp(
        -3, 3
    )
    m = tone.sigmoid()
    return envelope * (m * E + (1 - m) * N)


def consistent_waveform(spectrum: Tensor, db: Tensor, s: LogMel, turns: int) -> Tensor:
    """A waveform (B, (T - 1) hop) whose log-mel spectrogram is `db` (B, T, bands), and which is otherwise near `spectrum` (B, T, bins).

    As fast Griffin-Lim, with its momentum, but only the energies of the bands are held and not every bin: in each turn the sound is
    analysed again, and each band is made louder or softer where it stands.
    """
    filters, weight, _ = _filters_and_window(s)
    mel, half, length = 10 ** (db / 10), s.n_fft // 2, s.n_fft + s.hop * (db.shape[1] - 1)
    previous = torch.zeros_like(spectrum)
    for turn in range(turns):
        wave = waveforms.overlap_add(spectrum, s)
        wave[:, :half] = wave[:, length - half :] = 0
        rebuilt = stft_frames(wave, s)
        ahead = torch.lerp(previous, rebuilt, 1 + MOMENTUM) if turn else rebuilt
        power = ahead.real.square() + ahead.imag.square()
        gain = (
            (mel / (power @ filters.T).clamp(min=1e-12)).clamp(1e-4, 1e4)
            @ filters
            / weight.clamp(min=1e-8)
        )
        spectrum, previous = ahead * gain.pow(RELAXATION), rebuilt
    return waveforms.overlap_add(spectrum, s)[:, half : length - half]


# ------------------------------------------------------------------ the way back


def iterations(s: LogMel) -> int:
    """How many turns of `consistent_waveform` a spectrogram is given: narrow bands, which share their bins with others, settle more slowly."""
    return 40 if s.bands <= 40 else 80


def weights_path(bands: int) -> Path:
    """Where the weights for this many bands lie: in the folder of the runs, or with the runs that came with the project."""
    name = Path(WEIGHTS_FOLDER) / f"{bands}.safetensors"
    own = files.checkpoints_folder() / name
    return own if own.exists() else files.ROOT / "checkpoints" / name


def save(path: Path, network: Vocoder, s: LogMel) -> None:
    """Weights as float16 safetensors, with the architecture and the spectrogram's settings in the header. Written aside, then renamed."""
    tensors = {k: v.detach().half().contiguous() for k, v in network.state_dict().items()}
    header = {"arguments": network.arguments, "logmel": {k: getattr(s, k) for k in LOGMEL_FIELDS}}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, serialise(tensors, {"vocoder": json.dumps(header, sort_keys=True)}))


@functools.cache
def load(path: Path) -> tuple[Vocoder, dict]:
    """The network of a file that `save` wrote, in evaluation mode, float32, and the settings of its spectrograms; read once.

    Raises ValueError naming a file that is not one.
    """
    try:
        with safe_open(path, "pt") as f:
            header = json.loads((f.metadata() or {})["vocoder"])
            tensors = {k: f.get_tensor(k).float() for k in f.keys()}  # noqa: SIM118  (safe_open is no dict)
        network = Vocoder(**header["arguments"])
        network.load_state_dict(tensors)
    except Exception as e:  # safetensors raises its own class for damaged files
        raise ValueError(
            f"{path} is no vocoder of this project ({e}); restore the file, or train it again: python -m core vocoder"
        ) from e
    return network.eval().requires_grad_(False), header["logmel"]


def has_network(s: LogMel) -> bool:
    """Whether there is a network for spectrograms of these settings, whatever their length and range."""
    path = weights_path(s.bands)
    return path.exists() and load(path)[1] == {k: getattr(s, k) for k in LOGMEL_FIELDS}


def inversion_name(s: LogMel, plain: bool = False) -> str:
    """How `to_waveform` makes sound of such spectrograms, in words."""
    return "plain Griffin-Lim" if plain or not has_network(s) else "the vocoder"


@torch.no_grad()
def invert_with_network(network: Vocoder, db: np.ndarray, s: LogMel, seed: int = 0) -> np.ndarray:
    """(B, T, bands) dB -> waveforms (B, (T - 1) hop) float32; the noise in them from `seed` alone. Spectrograms share the processors."""

    def block(wanted: Tensor) -> Tensor:
        maps = network(to_network_input(wanted))
        n, columns = wanted.shape[:2]
        return consistent_waveform(
            shape_spectrum(
                wanted,
                maps,
                pulse_spectrum(viterbi_pitch(maps[0]), s),
                noise_phases(n, columns, s, seed),
                s,
            ),
            wanted,
            s,
            iterations(s),
        )

    if not len(db):
        return np.zeros((0, (db.shape[1] - 1) * s.hop), np.float32)
    blocks = torch.from_numpy(np.ascontiguousarray(db, np.float32)).split(
        waveforms.SPECTROGRAMS_PER_TASK
    )
    return torch.cat(list(waveforms.thread_pool().map(block, blocks))).numpy()


def to_waveform(
    y: np.ndarray, ref_db: float, s: LogMel, seed: int = 0, plain: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Spectrogram in [-1, 1] -> waveform: (..., columns, bands) -> (..., (columns - 1) * hop) float32, and the gain in dB applied.

    By the network for these settings; by Griffin-Lim where there is none, or where it is asked for (`plain`). Cells at the bottom of the
    range are silence. A peak above 0.95 turns the whole sound down (gain < 0); nothing is clipped.
    """
    y = np.asarray(y, np.float32)
    db = waveforms.to_inversion_db(y, ref_db, s)
    if plain or not has_network(s):
        wave = waveforms.griffin_lim(waveforms.mel_to_magnitude(db, s), s, seed)
    else:
        wave = invert_with_network(
            load(weights_path(s.bands))[0], db.reshape(-1, *db.shape[-2:]), s, seed
        ).reshape(*db.shape[:-2], (db.shape[-2] - 1) * s.hop)
    return waveforms.limit_peak(wave)
