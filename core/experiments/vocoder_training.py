"""Training of the vocoder: recordings and their pitch, losses, and a comparison with Griffin-Lim.

It is trained on the voices of S1 and S3 of a configuration's fold, selected on S2's, and measured
on S4's, which no network here has seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import files
from core.config.settings import Config, LogMel
from core.data import prepared_corpora
from core.evaluation.hearing.acoustics import pitch
from core.evaluation.hearing.recordings import Recordings, load_recordings
from core.experiments import checkpoints
from core.files import StopRequested
from core.media import spectrograms, vocoder
from core.media.vocoder import MAX_F0, MIN_F0, PITCH_BINS, Vocoder
from core.models import networks
from core.runs.directory import Run

GAP_COLUMNS = 8  # columns of silence between two recordings
UNVOICED_F0 = 150.0  # Hz; pitch of a recording in which no column is voiced
DYNAMIC_RANGE_DB = 80.0  # dB below a crop's level; weaker bins do not enter the loss
REACHED_MIN = 1e-6  # least sum of the mel filters in a bin that the spectrogram tells about
PITCH_WEIGHT, LOG_WEIGHT = 0.3, 4.0  # of the losses; the linear one has 1
CHECKPOINT_INTERVAL, REPORT_INTERVAL = 250, 50  # steps
ProgressCallback = Callable[[str, int, int, str], None]  # (phase, done, total, remark)
StopCallback = Callable[[], bool]


@dataclass(frozen=True)
class Speech:
    """Recordings end to end, with silence between them, and the pitch of each column."""

    wave: Tensor  # (samples,) float32 in [-1, 1]
    f0: Tensor  # (columns,) Hz, 0 where unvoiced
    continuous_f0: Tensor  # (columns,) Hz, interpolated where unvoiced
    starts: Tensor  # columns at which a crop may begin


# ------------------------------------------------------------------ recordings


def join_recordings(
    recordings: list[tuple[np.ndarray, np.ndarray]], s: LogMel, columns: int
) -> Speech:
    """Waveforms (samples,) and pitches (columns,) end to end, for crops of `columns` columns."""
    waves, f0s = [np.zeros(GAP_COLUMNS * s.hop)], [np.zeros(GAP_COLUMNS)]
    continuous, starts, at = [np.full(GAP_COLUMNS, UNVOICED_F0)], [], GAP_COLUMNS
    # silence at the end, so that every crop ends within the sound
    silence = np.zeros(2 * columns * s.hop), np.zeros(2 * columns)
    for wave, f0 in [*recordings, silence]:
        n, voiced = len(f0) + GAP_COLUMNS, np.flatnonzero(f0)
        bridged = np.full(n, UNVOICED_F0)
        if len(voiced):
            bridged = np.exp(np.interp(np.arange(n), voiced, np.log(f0[voiced])))
        waves.append(np.pad(wave, (0, max(0, n * s.hop - len(wave))))[: n * s.hop])
        f0s.append(np.pad(f0, (0, GAP_COLUMNS)))
        continuous.append(bridged)
        starts.append(at + np.arange(max(1, len(f0) - columns + 1)))
        at += n
    columnwise = [np.concatenate(parts).astype(np.float32) for parts in (waves, f0s, continuous)]
    return Speech(*map(torch.from_numpy, [*columnwise, np.concatenate(starts[:-1])]))


# ------------------------------------------------------------------ training


def degrade_spectrograms(db: Tensor, generator: torch.Generator) -> Tensor:
    """Spectrograms (B, T, bands) in dB degraded as generated ones are.

    Half of them are blurred along time and bands, half are noisy by up to 4 dB.
    """
    unit = torch.rand((4, len(db), 1, 1), generator=generator)
    blurred = F.avg_pool2d(F.pad(db[:, None], (1, 1, 2, 2), mode="replicate"), (5, 3), 1)[:, 0]
    mixed = db + torch.where(unit[0] < 0.5, unit[1], torch.zeros(())) * (blurred - db)
    noise = torch.where(unit[2] < 0.5, 4 * unit[3], torch.zeros(()))
    return mixed + noise * torch.randn(db.shape, generator=generator)


def losses(
    network: Vocoder,
    speech: Speech,
    at: Tensor,
    columns: int,
    s: LogMel,
    generator: torch.Generator,
    robust: bool = True,
) -> dict[str, Tensor]:
    """Training losses on crops of `columns` columns that begin at `at` (B,), given the true pitch.

    log: mean distance of the log10 magnitudes. linear: distance of the magnitudes over their norm.
    pitch: cross-entropy of the pitch head. With `robust` the network sees the crop shifted by up
    to half a column, blurred and noisy; its target stays the clean crop.
    """
    # the true magnitudes (B, T, bins), and the spectrogram that the network sees
    offsets = torch.arange(s.n_fft + s.hop * (columns - 1))
    shift = torch.zeros((len(at), 1), dtype=torch.long)
    if robust:
        shift = torch.randint(-s.hop // 2, s.hop // 2 + 1, shift.shape, generator=generator)
    samples = at[:, None] * s.hop - s.n_fft // 2 + offsets
    filters = torch.from_numpy(np.ascontiguousarray(spectrograms.mel_filters(s)))
    true = vocoder.stft_frames(speech.wave[samples], s).abs()
    power = vocoder.stft_frames(speech.wave[samples + shift], s).abs().square() @ filters.T
    db = 10 * power.clamp(min=1e-10).log10()
    top = torch.quantile(db.flatten(1), 0.99, dim=1)[:, None, None]
    db = db.maximum(top - DYNAMIC_RANGE_DB)
    db = degrade_spectrograms(db, generator) if robust else db
    # its magnitudes, with the pulses of the true pitch
    maps = network(vocoder.to_network_input(db))
    rows = at[:, None] + torch.arange(columns)
    pulses = vocoder.pulse_spectrum(speech.continuous_f0[rows], s).abs()
    out = vocoder.shape_spectrum(db, maps, pulses, torch.ones(()), s)
    # the losses of the magnitudes
    least = 10 ** ((top - DYNAMIC_RANGE_DB) / 20)
    reached = filters.sum(dim=0) > REACHED_MIN
    log = ((out + least).log10() - (true + least).log10()).abs()[..., reached].mean()
    distance, norm = (out - true).flatten(1).norm(dim=1), true.flatten(1).norm(dim=1)
    linear = (distance / norm.clamp(min=1e-3)).mean()
    # the loss of the pitch: a Gaussian around the true bin, or the bin "unvoiced"
    f0 = speech.f0[rows][..., None]
    octaves = (vocoder.pitch_grid().log() - f0.clamp(min=1).log()) / np.log(MAX_F0 / MIN_F0)
    near = torch.exp(-0.5 * (octaves * (PITCH_BINS - 1)).square())
    voiced = near / near.sum(dim=-1, keepdim=True).clamp(min=1e-6) * (f0 > 0)
    target = torch.cat([voiced, (f0 == 0).float()], dim=-1)
    return {
        "log": log,
        "linear": linear,
        "pitch": -(target * maps[0].log_softmax(dim=-1)).sum(dim=-1).mean(),
    }


@dataclass
class TrainingState:
    """All that a training step changes; saved and loaded, it continues exactly."""

    network: Vocoder
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    step: int = 0

    def state_dict(self) -> dict:
        parts = {k: getattr(self, k).state_dict() for k in ("network", "optimiser", "schedule")}
        return parts | {"generator": self.generator.get_state(), "step": self.step}

    def load_state_dict(self, saved: dict) -> None:
        for k in ("network", "optimiser", "schedule"):
            getattr(self, k).load_state_dict(saved[k])
        self.generator.set_state(saved["generator"])
        self.step = saved["step"]


def new_state(s: LogMel, steps: int = 5_000, lr: float = 2e-3, seed: int = 0) -> TrainingState:
    """A new network from `seed` and AdamW with a one-cycle learning rate.

    The rate rises for a twentieth of `steps` and then falls along half a cosine.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Vocoder(s.bands, 1 + s.n_fft // 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.8, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lr, total_steps=steps + 1, pct_start=0.05
    )
    return TrainingState(network, optimiser, schedule, torch.Generator().manual_seed(seed))


def train(
    speech: Speech,
    t: TrainingState,
    s: LogMel,
    steps: int = 5_000,
    batch: int = 16,
    columns: int = 112,
) -> Iterator[dict[str, Tensor]]:
    """Take the steps from `t.step` to `steps`; yields each one's losses. `t` may be saved then."""
    while t.step < steps:
        at = speech.starts[torch.randint(len(speech.starts), (batch,), generator=t.generator)]
        terms = losses(t.network, speech, at, columns, s, t.generator)
        t.optimiser.zero_grad(set_to_none=True)
        weighted = LOG_WEIGHT * terms["log"] + terms["linear"] + PITCH_WEIGHT * terms["pitch"]
        weighted.backward()
        nn.utils.clip_grad_norm_(t.network.parameters(), 1.0)
        t.optimiser.step()
        t.schedule.step()
        t.step += 1
        yield {k: v.detach() for k, v in terms.items()}


def train_vocoder(
    config: Config,
    s: LogMel,
    steps: int,
    seed: int,
    folder: Path,
    tick: ProgressCallback,
    should_stop: StopCallback = lambda: False,
) -> tuple[Path, Path | None]:
    """Train the vocoder for spectrograms like `s` on S1's and S3's people; write it into `folder`.

    `folder` is that of the runs. Returns the file, and the new name of the weights it replaces, if
    any. Raises StopRequested once `should_stop` returns true; the same call then resumes.
    """
    recordings, cache = load_recordings(config, ("S1", "S3")), folder / ".cache"
    digest = files.digest(b"".join(wave.tobytes() for _, wave in recordings))
    checkpoint = cache / f"vocoder-{files.cache_key(digest, vars(s), steps, seed)}.pt"
    with files.file_lock(checkpoint.with_suffix(".lock"), "this training"):
        # the recordings with their pitch, and the state: new, or the checkpoint's
        pitch_file = cache / f"pitch-{files.cache_key(digest, s.rate, s.hop)}.npz"
        pitches = cached_pitches(recordings, s, pitch_file, tick, should_stop)
        speech = join_recordings([(w, pitches[clip]) for clip, w in recordings], s, s.columns)
        t = new_state(s, steps, seed=seed)
        if checkpoint.exists():
            t.load_state_dict(torch.load(checkpoint, weights_only=True))
        # the steps
        for terms in train(speech, t, s, steps, columns=s.columns):
            is_stopping = should_stop()
            if is_stopping or t.step % CHECKPOINT_INTERVAL == 0:
                checkpoints.save(checkpoint, t.state_dict())
            if t.step % REPORT_INTERVAL == 0 or t.step == steps:
                remark = " ".join(f"{k} {float(v):.3f}" for k, v in terms.items())
                tick("train", t.step, steps, remark)
            if is_stopping:
                raise StopRequested(
                    f"stopped at step {t.step:,} of {steps:,}; the same command goes on from there"
                )
        # the weights, in the place of older ones
        path = folder / vocoder.WEIGHTS_FOLDER / f"{s.bands}.safetensors"
        before = path.with_stem(f"{path.stem}.{files.digest(path)[:8]}") if path.exists() else None
        if before:
            path.replace(before)
        vocoder.save(path, t.network, s)
        checkpoint.unlink(missing_ok=True)
    return path, before


def cached_pitches(
    recordings: Recordings, s: LogMel, file: Path, tick: ProgressCallback, should_stop: StopCallback
) -> dict[str, np.ndarray]:
    """Clip -> its `pitch`, from `file` or computed and added to it.

    Raises StopRequested, with what is computed in `file`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    known = files.read_arrays(file) if file.exists() else {}
    missing = [(clip, wave) for clip, wave in recordings if clip not in known]
    for i, (clip, wave) in enumerate(missing):
        if should_stop():
            break
        known[clip] = pitch(wave, s)
        tick("pitch of recordings", len(known), len(recordings), "")
        if i % 100 == 99:
            files.write_arrays(file, **known)
    if missing:
        files.write_arrays(file, **known)
    if len(known) < len(recordings):
        raise StopRequested(
            f"stopped at the pitch of recording {len(known):,} of {len(recordings):,}; "
            "the same command goes on from there"
        )
    return known


# ------------------------------------------------------------------ quality


@dataclass(frozen=True)
class InversionQuality:
    """Quality of the sounds of spectrograms; the first two are NaN where there is no recording."""

    distance: float  # log-spectral distance to the recording, dB: RMS over bins, mean over columns
    convergence: float  # spectral convergence: distance of the magnitudes over the recording's norm
    error: float  # mean absolute error of the sound's spectrogram, dB
    accuracy: float  # of the scorer on the sounds' spectrograms
    before: float  # of the scorer on the given spectrograms
    speed: float  # seconds of sound per second
    n: int


def inversion_quality(
    run: Run,
    y: np.ndarray,
    label: np.ndarray,
    waves: np.ndarray | None,
    ref_db: float,
    plain: bool,
    seed: int = 0,
) -> InversionQuality:
    """Invert spectrograms y (n, columns, bands) in [-1, 1] and analyse the sounds again.

    `plain` inverts by Griffin-Lim, else by the vocoder. `waves` (n, (columns - 1) hop) are y's
    recordings, None for generated ones. The run's scorer classifies.
    """
    s, scorer = run.config.logmel, networks.load(run.model_path("scorer"))
    vocoder.to_waveform(y[:1], ref_db, s, seed, plain)  # warm-up, outside of the measured time
    start = time.perf_counter()
    sounds, gain = vocoder.to_waveform(y, ref_db, s, seed, plain)
    seconds = time.perf_counter() - start
    again = spectrograms.scale(spectrograms.log_mel(sounds, s) - gain[:, None, None], ref_db, s)

    def accuracy(images: np.ndarray) -> float:
        with torch.no_grad():
            guesses = scorer(torch.from_numpy(images)[:, None]).argmax(dim=1).numpy()
        return float((guesses == label).mean())

    distance = convergence = float("nan")
    if waves is not None:
        distance, convergence = _spectral_distances(sounds / 10 ** (gain[:, None] / 20), waves, s)
    error = float(np.abs(again - y).mean() * s.range_db / 2)
    speed = sounds.size / s.rate / seconds
    return InversionQuality(
        distance, convergence, error, accuracy(again), accuracy(y), speed, len(y)
    )


def _spectral_distances(ours: np.ndarray, theirs: np.ndarray, s: LogMel) -> tuple[float, float]:
    """(log-spectral distance in dB, spectral convergence) of sounds (n, samples) to recordings."""
    a, b = (np.abs(spectrograms.stft(waves, s)) for waves in (ours, theirs))
    reached = spectrograms.mel_filters(s).sum(axis=0) > REACHED_MIN
    least = b.max(axis=(1, 2), keepdims=True) * 10 ** (-DYNAMIC_RANGE_DB / 20)
    db = 20 * (np.log10(np.maximum(a, least)) - np.log10(np.maximum(b, least)))[..., reached]
    convergence = np.linalg.norm(a - b, axis=(1, 2)) / np.linalg.norm(b, axis=(1, 2))
    return float(np.sqrt((db**2).mean(axis=-1)).mean()), float(convergence.mean())


def centre_crops(waves: list[np.ndarray], s: LogMel) -> tuple[np.ndarray, np.ndarray]:
    """Middle of each recording: spectrograms (n, columns, bands) in dB, and the sounds.

    The sounds are (n, (columns - 1) hop).
    """
    db, parts = [], []
    for wave in waves:
        whole = spectrograms.log_mel(wave, s)
        start = max(0, (len(whole) - s.columns) // 2)
        part = wave[start * s.hop : (start + s.columns - 1) * s.hop]
        missing = (s.columns - 1) * s.hop - len(part)
        db.append(spectrograms.centre_crop(whole, s.columns))
        parts.append(np.pad(part, (missing // 2, missing - missing // 2)))
    return np.stack(db), np.stack(parts)


def measure_inversion(run: Run) -> dict[str, InversionQuality]:
    """Quality of vocoder and Griffin-Lim; keys such as "real, network".

    real: the middle second of S4's recordings. generated: the run's saved spectrograms. Raises
    CorpusError where the recordings are not on this machine.
    """
    config, generated = run.config, run.arrays("generated")
    ref_db, classes = run.json("corpus")["voices"]["ref_db"], config.data.classes
    corpus = prepared_corpora.load_corpus(config.data.voices)
    emotion = dict(zip(map(str, corpus.clip), map(str, corpus.emotion), strict=True))
    labelled = [
        (classes.index(emotion[clip]), wave)
        for clip, wave in load_recordings(config, ("S4",))
        if emotion[clip] in classes
    ]
    db, waves = centre_crops([wave for _, wave in labelled], config.logmel)
    real = spectrograms.scale(db, ref_db, config.logmel)
    label = np.array([k for k, _ in labelled])
    y = generated["y"].astype(np.float32)
    methods = {"network": False, "Griffin-Lim": True}
    return {
        f"real, {name}": inversion_quality(run, real, label, waves, ref_db, plain)
        for name, plain in methods.items()
    } | {
        f"generated, {name}": inversion_quality(run, y, generated["label"], None, ref_db, plain)
        for name, plain in methods.items()
    }
