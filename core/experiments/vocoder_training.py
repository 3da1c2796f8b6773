"""How `vocoder` is trained and what it is worth: recordings and their pitch, the losses, and its figures beside plain Griffin-Lim's.

Trained on the voices of S1 and S3 of a configuration's fold, chosen by S2's, measured on S4's, whom no network here has met.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import files
from core.config import Config, LogMel
from core.data import splits
from core.data.corpora import CorpusError
from core.data.sources import media_files
from core.files import StopRequested
from core.media import clips, spectrograms, vocoder
from core.media.vocoder import MAX_F0, MIN_F0, PITCH_BINS, Vocoder
from core.models import networks
from core.runs import Run

GAP_COLUMNS = 8  # columns of silence between two recordings
DYNAMIC_RANGE_DB = 80.0  # dB below a crop's level, under which nothing is asked of the network
ProgressCallback = Callable[[str, int, int, str], None]  # (phase, done, total, remark)
StopCallback = Callable[[], bool]


@dataclass(frozen=True)
class Speech:
    """Recordings end to end, with silence between them, and the pitch of each column."""

    wave: Tensor  # (samples,) float32 in [-1, 1]
    f0: Tensor  # (columns,) Hz, 0 where there is no pitch
    continuous_f0: Tensor  # (columns,) Hz, the same with its gaps bridged
    starts: Tensor  # columns at which a crop may begin


# ------------------------------------------------------------------ recordings


def load_recordings(config: Config, sets: tuple[str, ...]) -> list[tuple[str, np.ndarray]]:
    """(clip, (samples,) float32) of all recordings of the people in some of S1 to S4, whatever their emotion.

    Raises CorpusError where the recordings are not on this machine any more: a prepared corpus keeps spectrograms alone.
    """
    name, rate = config.data.voices, config.logmel.rate
    side = splits.corpus_path(name).with_suffix(".source.json")
    if not side.exists():
        raise CorpusError(
            f"{side} is not there, which says where the recordings of {name} lie; prepare the corpus again from its source"
        )
    found = splits.build_sets(config)
    people = {str(p) for k in sets for p in found[k].y_subject}
    corpus, told = splits.load_corpus(name), json.loads(side.read_text())["clips"]
    out = []
    for clip in (
        str(c) for c, who in zip(corpus.clip, corpus.subject, strict=True) if str(who) in people
    ):
        try:
            with media_files.media_file(told[clip]["audio"]) as path:
                out.append((clip, clips.read_waveform(path, rate)))
        except (OSError, KeyError) as e:
            raise CorpusError(
                f"the recording of {clip} is not where {side} says ({e}); prepare {name} again from its source"
            ) from e
    return out


def pitch(wave: np.ndarray, s: LogMel) -> np.ndarray:
    """(samples,) -> (1 + samples // hop,) Hz, 0 where there is none: pYIN (Mauch & Dixon 2014), as librosa has it."""
    import librosa

    f0, voiced, _ = librosa.pyin(
        wave,
        fmin=MIN_F0,
        fmax=MAX_F0,
        sr=s.rate,
        frame_length=1024,
        hop_length=s.hop,
        resolution=0.2,
        pad_mode="constant",
    )
    return np.where(voiced, f0, 0).astype(np.float32)


def join_recordings(spoken: list[tuple[np.ndarray, np.ndarray]], s: LogMel, columns: int) -> Speech:
    """Waveforms with their pitches as four tensors; crops are of `columns`."""
    waves, f0s, glides, starts, at = (
        [np.zeros(GAP_COLUMNS * s.hop)],
        [np.zeros(GAP_COLUMNS)],
        [np.full(GAP_COLUMNS, 150.0)],
        [],
        GAP_COLUMNS,
    )
    for wave, f0 in [
        *spoken,
        (np.zeros(2 * columns * s.hop), np.zeros(2 * columns)),
    ]:  # the last so that every crop ends in time
        n, given = len(f0) + GAP_COLUMNS, np.flatnonzero(f0)
        bridged = (
            np.exp(np.interp(np.arange(n), given, np.log(f0[given])))
            if len(given)
            else np.full(n, 150.0)
        )
        waves.append(np.pad(wave, (0, max(0, n * s.hop - len(wave))))[: n * s.hop])
        f0s.append(np.pad(f0, (0, GAP_COLUMNS)))
        glides.append(bridged)
        starts.append(at + np.arange(max(1, len(f0) - columns + 1)))
        at += n
    a, b, c = (
        torch.from_numpy(np.concatenate(parts).astype(np.float32)) for parts in (waves, f0s, glides)
    )
    return Speech(a, b, c, torch.from_numpy(np.concatenate(starts[:-1])))


# ------------------------------------------------------------------ training


def degrade_spectrograms(db: Tensor, generator: torch.Generator) -> Tensor:
    """As a generator draws them: half of the spectrograms (B, T, bands) blurred along time and bands, half noisy by up to 4 dB."""
    unit = torch.rand((4, len(db), 1, 1), generator=generator)
    blurred = F.avg_pool2d(F.pad(db[:, None], (1, 1, 2, 2), mode="replicate"), (5, 3), 1)[:, 0]
    mixed = db + torch.where(unit[0] < 0.5, unit[1], torch.zeros(())) * (blurred - db)
    rough = torch.where(unit[2] < 0.5, 4 * unit[3], torch.zeros(()))
    return mixed + rough * torch.randn(db.shape, generator=generator)


def losses(
    network: Vocoder,
    spoken: Speech,
    at: Tensor,
    columns: int,
    s: LogMel,
    generator: torch.Generator,
    robust: bool = True,
) -> dict[str, Tensor]:
    """What the network gets wrong on crops of `columns` that begin at the columns `at` (B,), with the true pitch in its hand.

    log: mean distance of the magnitudes in powers of ten. linear: their distance over their norm. pitch: cross-entropy of the pitch head.
    `robust`: the network sees the crop up to half a column early or late, blurred and noisy; what is asked of it stays the clean one.
    """
    n, offsets = len(at), torch.arange(s.n_fft + s.hop * (columns - 1))
    shift = (
        torch.randint(-s.hop // 2, s.hop // 2 + 1, (n, 1), generator=generator)
        if robust
        else torch.zeros((n, 1), dtype=torch.long)
    )
    samples = at[:, None] * s.hop - s.n_fft // 2 + offsets
    filters = torch.from_numpy(np.ascontiguousarray(spectrograms.mel_filters(s)))
    true = vocoder.stft_frames(spoken.wave[samples], s).abs()  # (B, T, bins)
    power = vocoder.stft_frames(spoken.wave[samples + shift], s).abs().square() @ filters.T
    db = 10 * power.clamp(min=1e-10).log10()
    top = torch.quantile(db.flatten(1), 0.99, dim=1)[:, None, None]
    db = db.maximum(top - DYNAMIC_RANGE_DB)
    db = degrade_spectrograms(db, generator) if robust else db
    maps = network(vocoder.to_network_input(db))
    rows = at[:, None] + torch.arange(columns)
    f0 = spoken.f0[rows][..., None]
    made = vocoder.shape_spectrum(
        db, maps, vocoder.pulse_spectrum(spoken.continuous_f0[rows], s).abs(), torch.ones(()), s
    )
    least = 10 ** ((top - DYNAMIC_RANGE_DB) / 20)
    reached = filters.sum(dim=0) > 1e-6
    log = ((made + least).log10() - (true + least).log10()).abs()[..., reached].mean()
    linear = (
        (made - true).flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1).clamp(min=1e-3)
    ).mean()
    steps = (
        (vocoder.pitch_grid().log() - f0.clamp(min=1).log())
        / np.log(MAX_F0 / MIN_F0)
        * (PITCH_BINS - 1)
    )
    near = torch.exp(-0.5 * steps.square())
    wanted = torch.cat(
        [near / near.sum(dim=-1, keepdim=True).clamp(min=1e-6) * (f0 > 0), (f0 == 0).float()],
        dim=-1,
    )
    return {
        "log": log,
        "linear": linear,
        "pitch": -(wanted * maps[0].log_softmax(dim=-1)).sum(dim=-1).mean(),
    }


@dataclass
class TrainingState:
    """All that a training step changes; `state_dict` and `load_state_dict` make it go on exactly."""

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
    """A fresh network from `seed`, AdamW, and a rate that rises for a twentieth of `steps` and then falls as half a cosine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Vocoder(s.bands, 1 + s.n_fft // 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.8, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lr, total_steps=steps + 1, pct_start=0.05
    )
    return TrainingState(network, optimiser, schedule, torch.Generator().manual_seed(seed))


def train(
    spoken: Speech,
    t: TrainingState,
    s: LogMel,
    steps: int = 5_000,
    batch: int = 16,
    columns: int = 112,
) -> Iterator[dict[str, Tensor]]:
    """Takes the steps from `t.step` to `steps`; yields the losses of each, between which `t` may be saved."""
    while t.step < steps:
        at = spoken.starts[torch.randint(len(spoken.starts), (batch,), generator=t.generator)]
        terms = losses(t.network, spoken, at, columns, s, t.generator)
        t.optimiser.zero_grad(set_to_none=True)
        (4 * terms["log"] + terms["linear"] + 0.3 * terms["pitch"]).backward()
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
    """Trains the network for spectrograms like `s` on the recordings of S1's and S3's people, and writes it into `folder`, the one of the
    runs. Returns its file, and where the weights are now that were in its place. `tick` is told (phase, done, total, remark).

    Raises Stopped when `should_stop` answers true: what it has found out and learnt is kept there, and the same call goes on from it.
    """
    waves = load_recordings(config, ("S1", "S3"))
    sums = files.digest(b"".join(w.tobytes() for _, w in waves))
    kept = folder / ".cache" / f"vocoder-{files.cache_key(sums, vars(s), steps, seed)}.pt"
    with files.file_lock(kept.with_suffix(".lock"), "this training"):
        pitches = cached_pitches(
            waves,
            s,
            folder / ".cache" / f"pitch-{files.cache_key(sums, s.rate, s.hop)}.npz",
            tick,
            should_stop,
        )
        spoken = join_recordings([(wave, pitches[clip]) for clip, wave in waves], s, s.columns)
        t = new_state(s, steps, seed=seed)
        if kept.exists():
            t.load_state_dict(torch.load(kept, weights_only=True))
        for terms in train(spoken, t, s, steps, columns=s.columns):
            asked = should_stop()
            if asked or t.step % 250 == 0:
                networks.save_checkpoint(kept, t.state_dict())
            if t.step % 50 == 0 or t.step == steps:
                tick(
                    "train",
                    t.step,
                    steps,
                    " ".join(f"{k} {float(v):.3f}" for k, v in terms.items()),
                )
            if asked:
                raise StopRequested(
                    f"stopped at step {t.step:,} of {steps:,}; the same command goes on from there"
                )
        path = folder / vocoder.WEIGHTS_FOLDER / f"{s.bands}.safetensors"
        before = path.with_stem(f"{path.stem}.{files.digest(path)[:8]}") if path.exists() else None
        if before:
            path.replace(before)
        vocoder.save(path, t.network, s)
        kept.unlink(missing_ok=True)
    return path, before


def cached_pitches(
    waves: list[tuple[str, np.ndarray]],
    s: LogMel,
    file: Path,
    tick: ProgressCallback,
    should_stop: StopCallback,
) -> dict[str, np.ndarray]:
    """clip -> its `pitch`, as far as `file` has it; the others are found out and written there. Raises Stopped, with those kept."""
    file.parent.mkdir(parents=True, exist_ok=True)
    known = files.read_arrays(file) if file.exists() else {}
    missing = [(clip, wave) for clip, wave in waves if clip not in known]
    for i, (clip, wave) in enumerate(missing):
        if should_stop():
            break
        known[clip] = pitch(wave, s)
        tick("pitch of recordings", len(known), len(waves), "")
        if i % 100 == 99:
            files.write_arrays(file, **known)
    if missing:
        files.write_arrays(file, **known)
    if len(known) < len(waves):
        raise StopRequested(
            f"stopped at the pitch of recording {len(known):,} of {len(waves):,}; the same command goes on from there"
        )
    return known


# ------------------------------------------------------------------ what it is worth


@dataclass(frozen=True)
class InversionQuality:
    """How well a way of inversion carries spectrograms; of generated ones there is no recording, so the first two are NaN."""

    distance: float  # log-spectral distance to the recording, dB: the root mean square over the bins, its mean over columns
    convergence: float  # spectral convergence: the distance of the magnitudes to the recording's, over their norm
    error: float  # mean absolute error of the spectrogram, analysed again, dB
    accuracy: float  # of the scorer on the spectrograms analysed again
    before: float  # of the scorer on the spectrograms themselves
    speed: float  # seconds of sound made in a second
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
    """Invert spectrograms y (n, columns, bands) in [-1, 1] and analyse the sounds again: `plain` by Griffin-Lim, else by the network.

    `waves` (n, (columns - 1) hop) are the recordings that y was made of, None for generated ones. The judge is the run's scorer.
    """
    s, scorer = run.config.logmel, networks.load(run.model_path("scorer"))
    vocoder.to_waveform(
        y[:1], ref_db, s, seed, plain
    )  # what is read and built once is no part of the speed
    begun = time.perf_counter()
    made, gain = vocoder.to_waveform(y, ref_db, s, seed, plain)
    took = time.perf_counter() - begun
    again = spectrograms.scale(spectrograms.log_mel(made, s) - gain[:, None, None], ref_db, s)

    def right(images: np.ndarray) -> float:
        with torch.no_grad():
            return float(
                (scorer(torch.from_numpy(images)[:, None]).argmax(dim=1).numpy() == label).mean()
            )

    distance = convergence = float("nan")
    if waves is not None:
        ours, theirs = (
            np.abs(spectrograms.stft(w, s)) for w in (made / 10 ** (gain[:, None] / 20), waves)
        )
        reached = spectrograms.mel_filters(s).sum(axis=0) > 1e-6
        least = theirs.max(axis=(1, 2), keepdims=True) * 10 ** (-DYNAMIC_RANGE_DB / 20)
        apart = (
            20
            * (np.log10(np.maximum(ours, least)) - np.log10(np.maximum(theirs, least)))[
                ..., reached
            ]
        )
        distance = float(np.sqrt((apart**2).mean(axis=-1)).mean())
        convergence = float(
            (
                np.linalg.norm(ours - theirs, axis=(1, 2)) / np.linalg.norm(theirs, axis=(1, 2))
            ).mean()
        )
    error = float(np.abs(again - y).mean() * s.range_db / 2)
    return InversionQuality(
        distance, convergence, error, right(again), right(y), made.size / s.rate / took, len(y)
    )


def centre_crops(waves: list[np.ndarray], s: LogMel) -> tuple[np.ndarray, np.ndarray]:
    """The middle of each recording as a spectrogram in dB (n, columns, bands) and as sound (n, (columns - 1) hop)."""
    db, parts = [], []
    for wave in waves:
        every = spectrograms.log_mel(wave, s)
        start = max(0, (len(every) - s.columns) // 2)
        part = wave[start * s.hop : (start + s.columns - 1) * s.hop]
        missing = (s.columns - 1) * s.hop - len(part)
        db.append(spectrograms.centre_crop(every, s.columns))
        parts.append(np.pad(part, (missing // 2, missing - missing // 2)))
    return np.stack(db), np.stack(parts)


def measure_inversion(run: Run) -> dict[str, InversionQuality]:
    """Both ways of inversion on the middle second of the recordings of S4, and on what the run has generated: way -> its worth.

    Raises CorpusError where the recordings are not on this machine.
    """
    config, ref_db, kept = (
        run.config,
        run.json("corpus")["voices"]["ref_db"],
        run.arrays("generated"),
    )
    classes, corpus = config.data.classes, splits.load_corpus(config.data.voices)
    emotion = dict(zip(map(str, corpus.clip), map(str, corpus.emotion), strict=True))
    spoken = [
        (emotion[clip], wave)
        for clip, wave in load_recordings(config, ("S4",))
        if emotion[clip] in classes
    ]
    db, waves = centre_crops([wave for _, wave in spoken], config.logmel)
    label = np.array([classes.index(e) for e, _ in spoken])
    real, made = spectrograms.scale(db, ref_db, config.logmel), kept["y"].astype(np.float32)
    ways = {"network": False, "Griffin-Lim": True}
    return {
        f"real, {k}": inversion_quality(run, real, label, waves, ref_db, v) for k, v in ways.items()
    } | {
        f"generated, {k}": inversion_quality(run, made, kept["label"], None, ref_db, v)
        for k, v in ways.items()
    }
