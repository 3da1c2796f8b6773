"""§3: G, D and Q, or a flow, trained on S3, with exact resume, checkpoints and figures."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from core import files
from core.config.settings import Config, GanSettings
from core.data import splits
from core.data.splits import SampleSet
from core.evaluation.evaluator import (
    FittedClassifiers,
    TrainingMonitor,
    image_tensor,
    seed_of,
    target_settings,
)
from core.evaluation.quality import unknown_samples
from core.experiments import checkpoints
from core.experiments.classifier_fitting import image_sizes, target_windows
from core.files import StopRequested, UserError
from core.models import classifiers, convolutions, cuda_graphs, gan, networks
from core.models.flow import matching
from core.runs import diagnosis, store
from core.runs.directory import Run

TrainFunction = Callable[[gan.GanState, gan.TrainingData, GanSettings], Iterator[gan.StepRecord]]
LOG_INTERVAL = 10  # steps whose mean losses make one record of metrics.jsonl


def train_with_cuda_graphs(
    state: gan.GanState, pool: gan.TrainingData, g: GanSettings
) -> Iterator[gan.StepRecord]:
    """`gan.train`; on a GPU a GAN's steps are replayed as CUDA graphs."""
    return gan.train(state, pool, g, cuda_graphs.new_step_function())


def training_set(
    config: Config, sets: dict[str, SampleSet], c: dict[str, np.ndarray]
) -> tuple[SampleSet, np.ndarray]:
    """The set that G learns from and its conditions: S3, or in a listening run S1, S2 and S3."""
    if not config.data.listening:
        return sets["S3"], c["S3"]
    if config.data.frames == "all":
        raise UserError("a listening run takes one face of a clip; use --data.frames middle")
    names = ("S1", "S2", "S3")
    arrays = ("x", "x_label", "x_subject", "y", "y_label", "y_subject", "windows", "window_counts")
    join = lambda a: np.concatenate([getattr(sets[k], a) for k in names])  # noqa: E731
    whole: dict[str, Any] = {a: join(a) for a in arrays}
    return dataclasses.replace(sets["S3"], **whole), np.concatenate([c[k] for k in names])


def make_pool(
    config: Config, sets: dict[str, SampleSet], c: dict[str, np.ndarray], device
) -> gan.TrainingData:
    """G's training set as tensors. S3's labels are never read in the strict mode.

    Strict mode: q_labels = condition, no label condition, paired clips. With several frames of a
    clip, or windows of a voice, each pair of an epoch takes a random one of them; labels, c and the
    number of pairs stay the clip's.
    """
    S3, c3 = training_set(config, sets, c)
    g, windows = config.gan, max(1, S3.windows.shape[1])
    predicted = c3.argmax(axis=1) if c3.shape[1] else np.full(len(S3.x), -1)
    strict = S3.paired and g.q_labels == "condition" and g.condition != "label"
    x_group, y_group = (predicted, predicted) if strict else (S3.x_label, S3.y_label)
    target = predicted if g.q_labels == "condition" else S3.x_label
    seed = seed_of(config, "pairs")
    frames, faces_are_x = 1 + S3.more.shape[1], S3.source == "face"
    faces = len(S3.x) if faces_are_x else len(S3.y)

    def repeated(a: np.ndarray, of_faces: bool) -> torch.Tensor:
        """`a` once for each frame, if it belongs to the faces."""
        a = np.concatenate([a] * frames) if of_faces and frames > 1 else a
        return torch.from_numpy(a).to(device)

    def with_more_frames(a: np.ndarray, of_faces: bool) -> torch.Tensor:
        """The images `a`, and below them the clips' other frames, if they are the faces."""
        a = np.concatenate([a, *S3.more.swapaxes(0, 1)]) if of_faces and frames > 1 else a
        return image_tensor(a, device)

    def pairs_of(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        i, j = splits.epoch_pairs(x_group, y_group, S3.paired, seed, epoch)
        if windows > 1:
            window = np.random.default_rng([seed, epoch, windows, 1]).integers(0, windows, len(j))
            j = j + window * len(S3.y)
        if frames == 1:
            return i, j
        frame = np.random.default_rng([seed, epoch, frames]).integers(0, frames, len(i))
        return (i + frame * faces, j) if faces_are_x else (i, j + frame * faces)

    return gan.TrainingData(
        x=with_more_frames(S3.x, faces_are_x),
        c=repeated(c3, faces_are_x),
        target=repeated(target.astype(np.int64), faces_are_x),
        y=image_tensor(target_windows(S3)[0], device)
        if windows > 1
        else with_more_frames(S3.y, not faces_are_x),
        y_target=repeated(np.tile(y_group.astype(np.int64), windows), not faces_are_x),
        epoch_pairs=pairs_of,
    )


def train_gan(
    config: Config,
    sets: dict[str, SampleSet],
    fitted: FittedClassifiers,
    c: dict[str, np.ndarray],
    r: Run,
    device: torch.device,
    watch: Callable[..., None],
    train: TrainFunction = train_with_cuda_graphs,
) -> tuple[torch.nn.Module, FittedClassifiers]:
    """§3: train G, D and Q on S3, from state.pt if it exists, and save them.

    Returns G, and the classifiers with the jointly trained Q, as they were saved, so that a run
    that resumes in its evaluation is evaluated with the same networks.
    Raises UserError when the losses diverge or the batch does not fit into memory, StopRequested
    after saving the state.
    """
    g = config.gan
    if r.model_path("G").exists():
        try:
            return _load_trained(config, fitted, r, device)
        except files.DamagedError:  # the checkpoint of the last step makes it again
            r.model_path("G").unlink()
    _check_size(g, len(training_set(config, sets, c)[0].y))
    convolutions.retain_freed_memory()
    # S3 as tensors, and the state: fresh, or the checkpoint's
    pool = make_pool(config, sets, c, device)
    source, target = image_sizes(config)
    classes, seed = len(config.data.classes), seed_of(config, "gan")
    state = matching.start_function(g)(g, classes, target, fitted.Q, seed, device, source)
    checkpoint = r.directory / "state.pt"
    if checkpoint.exists():
        gan.load_state_dict(state, checkpoints.load(checkpoint, device))
    store.drop_metrics_after(r, state.step or -1)  # step 0 is recorded below
    # figures and samples of S2's faces before the first step
    monitor = TrainingMonitor(config, sets["S2"], c["S2"], fitted, device)
    if not state.step:
        reference = monitor.reference(unknown_samples(config, sets), device)
        store.record_metrics(r, 0, reference | monitor.figures(state.shown))
        monitor.save_samples(state.shown, r, 0)
    # the steps
    out_of_memory = False
    try:
        _take_steps(config, train(state, pool, g), state, r, monitor, watch)
    except torch.OutOfMemoryError:
        out_of_memory = True  # handled below, where the traceback no longer holds the tensors
    except StopRequested:
        if _has_finite_weights(state):
            checkpoints.save(checkpoint, gan.state_dict(state))
        raise
    if out_of_memory:
        batch = gan.largest_batch(g, state, pool, matching.step_function(g))
        advice = f"use --gan.batch {batch}, which fits" if batch else "use --device cpu"
        raise UserError(f"the device ran out of memory at batch {g.batch}; {advice}")
    _save_networks(config, state, r)
    return _load_trained(config, fitted, r, device)


def _check_size(g: GanSettings, pairs: int) -> None:
    """Raise UserError where a batch has one pair, of which batch norm has no spread."""
    if min(g.batch, pairs) < 2:
        raise UserError(
            f"G needs two pairs in a batch, of {g.batch}, and in its training set, of {pairs}; "
            "raise --gan.batch or --data.g-fraction, or add clips"
        )


def _load_trained(
    config: Config, fitted: FittedClassifiers, r: Run, device: torch.device
) -> tuple[torch.nn.Module, FittedClassifiers]:
    """G and the classifiers from the run's files; a frozen Q is the fitted one."""
    if config.gan.q_training == "joint":
        q: Any = networks.load(r.model_path("Q"), device)
        fitted = dataclasses.replace(fitted, Q=q)
    return networks.load(r.model_path("G"), device), fitted


def _take_steps(
    config: Config,
    records: Iterator[gan.StepRecord],
    state: gan.GanState,
    r: Run,
    monitor: TrainingMonitor,
    watch: Callable[..., None],
) -> None:
    """Take the training steps that `records` yields.

    Losses are logged every LOG_INTERVAL steps; S2's figures (Fig. 11), samples and a checkpoint
    every `evaluate.every` steps. Raises UserError before anything of a step whose losses or weights
    are not finite is written, so that the last good checkpoint stays.
    """
    g, sums, count = config.gan, dict[str, torch.Tensor](), 0
    first_step, started, words = state.step, time.monotonic(), ""
    for record in records:
        for k, v in record.values.items():
            sums[k] = sums[k] + v if k in sums else v
        count += 1
        step, is_last = record.step, record.step == g.steps
        is_logged = step % LOG_INTERVAL == 0 or is_last
        is_evaluated = step % config.evaluate.every == 0 or is_last
        if is_logged or is_evaluated:
            _check_finite(g, record, state if is_evaluated else None, r)
        if is_logged:
            store.record_metrics(r, step, {k: float(v) / count for k, v in sums.items()})
            sums, count = {}, 0
        if is_evaluated:
            store.record_metrics(r, step, monitor.figures(state.shown))
            monitor.save_samples(state.shown, r, step)
            checkpoints.save(r.directory / "state.pt", gan.state_dict(state))
            before = words
            curves = store.load_curves(r.id, r.directory.parent)
            words = diagnosis.generator_warning(config, curves)
            if words and not before:
                print(f"\n{words}", file=sys.stderr, flush=True)
        if is_logged:  # last, because it may stop the run, which then has all of this step
            rate = (step - first_step) * g.batch / max(1e-9, time.monotonic() - started)
            remark = f"{rate:.0f} samples/s" + (f" · {words.partition(':')[0]}" if words else "")
            phase = "train G" if g.generator == "flow" else "train G, D, Q"
            watch(phase, step, g.steps, remark, step=step, rate=rate)


def _has_finite_weights(state: gan.GanState) -> bool:
    """Whether the weights of G, D and Q are finite, and the average of G's."""
    networks_of_state = (state.G, state.D, state.Q, state.shown)
    return all(bool(torch.isfinite(p).all()) for n in networks_of_state for p in n.parameters())


def _check_finite(
    g: GanSettings, record: gan.StepRecord, state: gan.GanState | None, r: Run
) -> None:
    """Raise UserError where a step's losses, or the weights of a state that is to be saved, are
    not finite.
    """
    bad = [k for k, v in record.values.items() if not np.isfinite(float(v))]
    if state is not None and not bad and not _has_finite_weights(state):
        bad = ["a weight"]
    if not bad:
        return
    kept = "no checkpoint was written yet"
    if (r.directory / "state.pt").exists():
        kept = "the checkpoint before it is kept in state.pt, its samples in samples/"
    raise UserError(
        f"{' and '.join(bad[:2])} became infinite or NaN at step {record.step}; {kept}. Lower "
        f"--gan.lr-g and --gan.lr-d (now {g.lr_g:g} and {g.lr_d:g}): that makes another run"
    )


def _save_networks(config: Config, state: gan.GanState, r: Run) -> None:
    """Save D, if there is one, a jointly trained Q, and last G: its file says that all is done."""
    g, classes, (source, target) = config.gan, len(config.data.classes), image_sizes(config)
    if g.generator != "flow":
        d_arguments = gan.discriminator_arguments(g, classes, target)
        networks.save(r.model_path("D"), state.D, "discriminator", d_arguments)
    if g.q_training == "joint":
        settings, role = target_settings(config)
        q_arguments = classifiers.arguments(settings, target, classes, role)
        networks.save(r.model_path("Q"), state.Q, "classifier", q_arguments)
    g_arguments = gan.generator_arguments(g, classes, target, source)
    networks.save(r.model_path("G"), state.shown, g.generator, g_arguments)
