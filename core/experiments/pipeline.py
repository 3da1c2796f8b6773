"""§3 and §4: run(config), the whole paper, one line per step; and what it writes into the run directory.

clips -> S1..S4 -> f_S on S1 -> alpha on S2 -> p-values for S3 -> c -> G, D, Q on S3 -> samples from S3's faces join S1's voices -> a
classifier scored on S4's real voices; samples from S4's faces -> IS, FID. S4 reaches no fit; whatever is watched while training
(curves, samples) is S2's, so that S4 is looked at once.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from core import files, runs
from core.config import PROTOCOL_VERSION, Config, GanSettings, replace, run_name, to_dict
from core.conformal import prediction
from core.data import splits
from core.data.splits import SampleSet
from core.evaluation import metrics
from core.evaluation.evaluator import (
    FittedClassifiers,
    TrainingMonitor,
    evaluate,
    image_tensor,
    seed_of,
    source_settings,
    target_settings,
)
from core.models import classifiers, cuda_graphs, gan, networks
from core.runs import Run

TrainFunction = Callable[[gan.GanState, gan.TrainingData, GanSettings], Iterator[gan.StepRecord]]
ProgressCallback = Callable[
    [str, int, int, str], None
]  # (phase, done, total, remark): the command line draws a bar from it


class TrainingStopped(Exception):
    """The run was asked to stop; its state is saved and it can be resumed."""


class DeviceError(files.UserError):
    """The device asked for cannot be used; the message says why and what to choose instead."""


def choose_device(name: str = "auto") -> torch.device:
    """`auto` | `cpu` | `cuda` -> a device that has been shown to work. Raises DeviceError: no card, or one that torch cannot use."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = (
            f"torch finds none (built for CUDA {built}; is the NVIDIA driver new enough?)"
            if built
            else "this torch is a CPU build"
        )
        raise DeviceError(
            f"no CUDA device: {why}. Use --device cpu, or install a driver / the CUDA build of torch."
        )
    try:
        torch.zeros(8, device="cuda").sum().item()
        return torch.device("cuda")
    except RuntimeError as e:
        if name == "auto":
            print(
                f"The NVIDIA card cannot be used ({str(e).splitlines()[0]}); continuing on the CPU.",
                file=sys.stderr,
            )
            return torch.device("cpu")
        card, major = torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0)
        known = ", ".join(torch.cuda.get_arch_list())
        raise DeviceError(
            f"{card} (compute capability {major[0]}.{major[1]}) cannot be used: {str(e).splitlines()[0]} "
            f"This torch knows {known}: the card or its driver is too old. Use --device cpu."
        ) from e


def train_with_cuda_graphs(
    state: gan.GanState, pool: gan.TrainingData, g: GanSettings
) -> Iterator[gan.StepRecord]:
    """`gan.train`, on a card with its steps recorded."""
    return gan.train(state, pool, g, cuda_graphs.new_step_function())


# ------------------------------------------------------------------ the story


def run(
    config: Config,
    folder: Path | None = None,
    device: str = "auto",
    report: ProgressCallback = lambda *a: None,
    should_stop: Callable[[], bool] = lambda: False,
    parent: str | None = None,
    train: TrainFunction = train_with_cuda_graphs,
) -> Run:
    """Train and evaluate one configuration, or continue it where it was left. Returns the run, whose results.json is then complete.
    `train` takes the GAN's steps, by itself or together with other runs (`stacks.Company`).

    The same config on the same corpus is the same run: a finished one is returned at once. Raises Stopped when `should_stop`
    answered true (state saved), CorpusError when the corpus is not prepared, DeviceError, or RuntimeError for lack of memory.
    """
    folder = folder or files.checkpoints_folder()
    where = choose_device(device)
    digest = splits.corpus_digest(config.data)
    r = runs.create(
        folder / run_name(config, digest), config, parent, provenance(config, digest, where)
    )
    if r.json("results"):
        return r
    files.write_json(r.directory / "corpus.json", splits.describe_corpora(config.data))
    runs.update(r, state="running", phase="sets", pid=os.getpid(), error="")
    watch = _ProgressMonitor(r, report, should_stop)
    try:
        sets = splits.build_sets(config)  # §4.1: S1..S4
        files.write_json(r.directory / "sets.json", splits.set_table(sets))
        fitted = fit_classifiers(
            config, sets, digest, where, watch, folder
        )  # §4.3: f_S, f_T, Q, scorer
        c = compute_conditions(config, sets, fitted, r, watch)  # §3.1: o, alpha, p, c
        G = train_gan(config, sets, fitted, c, r, where, watch, train)  # §3: G, D, Q on S3
        results = evaluate(
            config, sets, fitted, c, G, r, where, watch
        )  # §4.2: augmentation, IS, FID on S4
        files.write_json(r.directory / "results.json", results)
        runs.update(r, state="done", phase="done")
        return r
    except TrainingStopped:
        runs.update(r, state="stopped")
        raise
    except KeyboardInterrupt:
        runs.update(r, state="stopped")
        raise TrainingStopped from None
    except Exception as e:
        with open(r.directory / "log.txt", "a") as f:
            f.write(traceback.format_exc())
        runs.update(r, state="failed", error=f"{type(e).__name__}: {e}" if not str(e) else str(e))
        raise


@dataclass
class _ProgressMonitor:
    """Progress, heartbeat and the wish to stop, asked at every step and written to the database at most once a second."""

    run: Run
    report: ProgressCallback
    should_stop: Callable[[], bool]
    last_heartbeat: float = 0.0
    begun: tuple[str, float, int] = ("", 0.0, 0)  # the phase, since when, and from what

    def __call__(self, phase: str, done: int, total: int, remark: str = "", **fields) -> None:
        if self.should_stop():
            raise TrainingStopped
        now = time.monotonic()
        if phase != self.begun[0]:
            self.begun = phase, now, done
        if now - self.last_heartbeat > 1 or done in (0, total):
            self.last_heartbeat = now
            rate = {
                "rate": (done - self.begun[2]) / max(1e-9, now - self.begun[1])
            }  # steps per second, unless told otherwise
            runs.update(self.run, state="running", phase=f"{phase} {done}/{total}", **rate | fields)
            self.report(phase, done, total, remark)


def fit_classifiers(
    config: Config,
    sets: dict[str, SampleSet],
    digest: str,
    device,
    watch: _ProgressMonitor,
    folder: Path,
) -> FittedClassifiers:
    """f_S on S1's faces (or another corpus'); f_T (the baseline) and the frozen Q on S1's voices; the scorer on S1's and S2's voices.

    In the reverse direction faces and voices change places. Runs that differ only in G share them: they are kept in
    `checkpoints/.cache/` under the hash of what decides them.
    """
    K = len(config.data.classes)
    S1, S2 = sets["S1"], sets["S2"]
    keep = np.random.default_rng(seed_of(config, "balance")).permutation(len(S1.y))[
        : max(K, round(config.data.clf_fraction * len(S1.y)))
    ]
    y1, l1 = S1.y[keep], S1.y_label[keep]
    of_source, of_target = source_settings(config), target_settings(config)
    jobs: dict[str, tuple] = {
        "f_S": (*splits.f_s_training_data(config, sets), *of_source),
        "f_T": (y1, l1, *of_target),
        "Q": (y1, l1, *of_target),
        "scorer": (
            np.concatenate([S1.y, S2.y]),
            np.concatenate([S1.y_label, S2.y_label]),
            of_target[0],
            "scorer",
        ),
    }
    out: dict[str, Any] = {}
    names = classifier_files(config, digest)
    for name, (images, labels, settings, role) in jobs.items():
        cached = folder / ".cache" / names[name]
        own = watch.run.model_path(name)
        with files.file_lock(
            cached.with_suffix(".lock"), f"fitting {name}", wait=True
        ):  # runs beside each other fit it once
            if not own.exists() and not cached.exists():
                tick = functools.partial(_report_step, watch, f"fit {name}", settings.steps)
                x, t = image_tensor(images, device), torch.from_numpy(labels).to(device)
                network = classifiers.fit(x, t, settings, K, seed_of(config, name), role, tick)
                networks.save(
                    cached,
                    network,
                    "classifier",
                    classifiers.arguments(settings, images.shape[1:], K, role),
                )
        if not own.exists():
            shutil.copyfile(cached, own)
        out[name] = networks.load(own, device)
    if config.gan.q_training == "joint":
        shape = image_sizes(config)[1]
        a = classifiers.arguments(of_target[0], shape, K, of_target[1])
        fresh = networks.Classifier(shape, tuple(a["channels"]), K, a["features"])
        out["Q"] = networks.initialise_weights(
            fresh, torch.Generator().manual_seed(seed_of(config, "Q"))
        ).to(device)
    weights = b"".join(
        v.detach().cpu().numpy().tobytes() for v in out["scorer"].state_dict().values()
    )
    return FittedClassifiers(**out, digest=files.digest(weights)[:12])


def classifier_files(config: Config, digest: str) -> dict[str, str]:
    """f_S, f_T, Q, scorer -> name of its file in `checkpoints/.cache/`, a hash of all that decides it; `digest` is the corpora's."""
    data = to_dict(config)["data"]
    elsewhere = data.pop("f_s_corpus")  # only f_S stands on it, and none of them on G's frames
    del data["frames"]
    of_source, of_target = source_settings(config), target_settings(config)
    out = {}
    for name, settings in {
        "f_S": of_source[0],
        "f_T": of_target[0],
        "Q": of_target[0],
        "scorer": of_target[0],
    }.items():
        what = [
            name,
            digest,
            config.seed,
            data,
            to_dict(config)["logmel"],
            vars(settings),
            PROTOCOL_VERSION,
        ]
        what += [elsewhere] * (name == "f_S" and elsewhere != "") + [config.gan.direction] * (
            of_source[1] == "voice"
        )
        out[name] = f"{name}-{files.cache_key(*what)}.safetensors"
    return out


def image_sizes(config: Config) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of the source and of the target: a face's and a spectrogram's, or the reverse."""
    voice = (config.logmel.columns, config.logmel.bands)
    return (
        (networks.FACE_SIZE, voice)
        if config.gan.direction == "face-voice"
        else (voice, networks.FACE_SIZE)
    )


def compute_conditions(
    config: Config,
    sets: dict[str, SampleSet],
    fitted: FittedClassifiers,
    r: Run,
    watch: Callable[..., None] = lambda *a: None,
) -> dict[str, np.ndarray]:
    """§3.1: softmax o of S2's, S3's, S4's faces, alpha on S2, p-values, and c for each set. Saved as outputs.npz.

    S3's labels are read only for the label condition; S2's calibrate. S2 is its own calibration set, so its own p-values (used for
    curves and pictures while training) are slightly optimistic; those of S3 and S4 are not.
    """
    device = next(fitted.f_S.parameters()).device
    o = {
        k: classifiers.softmax(fitted.f_S, image_tensor(sets[k].x, device))
        for k in ("S2", "S3", "S4")
    }
    rows = calibration_rows(config, sets["S2"])
    cal = o["S2"][rows], sets["S2"].x_label[rows]
    if config.conformal.kind == "inductive":
        p = {
            k: prediction.inductive_p_values(
                *cal, o[k], config.conformal.measure, config.conformal.groups
            )
            for k in o
        }
    else:
        p, rows = light_head_p_values(config, sets, fitted.f_S, rows, watch)
    K = len(config.data.classes)
    g = config.gan
    c = {
        k: gan.condition(
            g.condition, sets[k].x_label if g.condition == "label" else None, o[k], p[k], K, g.soft
        )
        for k in o
    }
    arrays = {f"o_{k}": v for k, v in o.items()} | {f"p_{k}": v for k, v in p.items()}
    arrays |= {f"label_{k}": sets[k].x_label for k in ("S2", "S4")} | {
        f"subject_{k}": sets[k].x_subject for k in ("S2", "S3", "S4")
    }
    arrays["calibration"] = rows
    made = target_settings(config)[1]
    for k in (
        "S2",
        "S4",
    ):  # the same predictor for voices: f_T, calibrated on S2's (the laboratory shows both)
        voices = classifiers.softmax(fitted.f_T, image_tensor(sets[k].y, device))
        arrays |= {
            f"o_{made}_{k}": voices,
            f"label_{made}_{k}": sets[k].y_label,
            f"subject_{made}_{k}": sets[k].y_subject,
        }
    files.write_arrays(r.directory / "outputs.npz", **arrays)
    return c


HEAD_COMPONENTS = 16  # principal components of f_S's features that the light head sees: Alg. 1 fits it anew for each face and each label


def light_head_p_values(
    config: Config,
    sets: dict[str, SampleSet],
    f_S: networks.Classifier,
    rows: np.ndarray,
    watch: Callable[..., None],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """§4.4: p-values of S2's, S3's and S4's faces by a logistic head on f_S's features, and the rows of S2 that calibrate.

    full: Algorithm 1 over S2 and (x, k). head: the inductive predictor of the same head, which half of S2 trains and the other calibrates.
    Centre, axes and scale of the features are S1's, so that S2 and the new face are treated alike, as the promise asks.
    """
    f = {
        k: classifiers.outputs(f_S, image_tensor(sets[k].x, next(f_S.parameters()).device))[1]
        for k in splits.SET_NAMES
    }
    centre = f["S1"].mean(axis=0)
    _, size, axes = np.linalg.svd(f["S1"] - centre, full_matrices=False)
    used = size[:HEAD_COMPONENTS] > 1e-6 * size[0]
    scale = (axes[:HEAD_COMPONENTS][used] / size[:HEAD_COMPONENTS][used, None]).T * len(
        f["S1"]
    ) ** 0.5  # to unit variance on S1
    f = {k: (v - centre) @ scale for k, v in f.items()}
    K, label, how = (
        len(config.data.classes),
        sets["S2"].x_label[rows],
        (config.conformal.measure, config.conformal.groups),
    )
    calibrates = np.ones(len(rows), bool)
    if config.conformal.kind == "head":
        calibrates[
            np.random.default_rng(seed_of(config, "balance")).permutation(len(rows))[
                : len(rows) // 2
            ]
        ] = False
        p = {
            k: prediction.split_p_values(f["S2"][rows], label, f[k], calibrates, K, None, *how)
            for k in ("S2", "S3", "S4")
        }
        return p, rows[calibrates]
    p, done, total = {}, 0, sum(len(f[k]) for k in ("S2", "S3", "S4"))
    for k in ("S2", "S3", "S4"):
        parts = []
        for i in range(0, len(f[k]), 16):
            watch("full conformal prediction", done, total)
            parts.append(
                prediction.full_p_values(f["S2"][rows], label, f[k][i : i + 16], K, None, *how)
            )
            done += len(parts[-1])
        p[k] = np.concatenate(parts)
    return p, rows


def calibration_rows(config: Config, S2: SampleSet) -> np.ndarray:
    """The rows of S2's faces that calibrate f_S: a seeded share r of them, in order."""
    n = len(S2.x_label)
    order = np.random.default_rng(seed_of(config, "balance")).permutation(n)
    return np.sort(order[: max(1, round(config.conformal.r * n))])


def make_pool(
    config: Config, sets: dict[str, SampleSet], c: dict[str, np.ndarray], device
) -> gan.TrainingData:
    """S3 as tensors. In the strict mode (q_labels = condition, no label condition, paired clips) S3's labels are never read.

    With all frames of its clips each pair of an epoch takes one of them by chance; labels, c and the number of pairs stay the clip's.
    """
    S3, g = sets["S3"], config.gan
    guessed = c["S3"].argmax(axis=1) if c["S3"].shape[1] else np.full(len(S3.x), -1)
    strict = S3.paired and g.q_labels == "condition" and g.condition != "label"
    x_group = guessed if strict else S3.x_label
    y_group = guessed if strict else S3.y_label
    aim = guessed if g.q_labels == "condition" else S3.x_label
    seed = seed_of(config, "pairs")
    frames, of_x = 1 + S3.more.shape[1], S3.source == "face"

    def repeated(a: np.ndarray, whether: bool) -> np.ndarray:
        return np.concatenate([a] * frames) if whether and frames > 1 else a

    def filmed(a: np.ndarray, whether: bool) -> np.ndarray:
        return np.concatenate([a, *S3.more.swapaxes(0, 1)]) if whether and frames > 1 else a

    def pairs_of(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        i, j = splits.epoch_pairs(x_group, y_group, S3.paired, seed, epoch)
        if frames == 1:
            return i, j
        shift = np.random.default_rng([seed, epoch, frames]).integers(0, frames, len(i)) * (
            len(S3.x) if of_x else len(S3.y)
        )
        return (i + shift, j) if of_x else (i, j + shift)

    return gan.TrainingData(
        x=image_tensor(filmed(S3.x, of_x), device),
        c=torch.from_numpy(repeated(c["S3"], of_x)).to(
            device
        ),  # one for each clip, whatever the frame
        target=torch.from_numpy(repeated(aim, of_x).astype(np.int64)).to(device),
        y=image_tensor(filmed(S3.y, not of_x), device),
        y_target=torch.from_numpy(repeated(y_group, not of_x).astype(np.int64)).to(device),
        epoch_pairs=pairs_of,
    )


def train_gan(
    config: Config,
    sets: dict[str, SampleSet],
    fitted: FittedClassifiers,
    c: dict,
    r: Run,
    device,
    watch: _ProgressMonitor,
    train: TrainFunction = train_with_cuda_graphs,
) -> torch.nn.Module:
    """§3: G, D, Q on S3, resumed from state.pt where there is one; every `evaluate.every` steps a point of Fig. 11 and a checkpoint."""
    g, K, (given, shape) = config.gan, len(config.data.classes), image_sizes(config)
    if r.model_path("G").exists():
        return networks.load(r.model_path("G"), device)
    gan.retain_freed_memory()
    pool = make_pool(config, sets, c, device)
    state = gan.new_state(g, K, shape, fitted.Q, seed_of(config, "gan"), device, given)
    checkpoint = r.directory / "state.pt"
    if checkpoint.exists():
        gan.load_state_dict(state, torch.load(checkpoint, map_location=device, weights_only=True))
    runs.drop_metrics_after(r, state.step)
    look = TrainingMonitor(config, sets["S2"], c["S2"], fitted, device)
    if not state.step:
        runs.record_metrics(r, 0, look.reference(sets["S1"], device) | look.figures(state.shown))
        look.save_samples(state.shown, r, 0)

    sums: dict[str, torch.Tensor] = {}
    since, begun, first = 0, time.monotonic(), state.step
    try:
        for record in train(state, pool, g):
            for k, v in record.values.items():
                sums[k] = sums[k] + v if k in sums else v
            since += 1
            s = record.step
            told = s % 10 == 0 or s == g.steps
            if told:
                runs.record_metrics(r, s, {k: float(v) / since for k, v in sums.items()})
                sums, since = {}, 0
            if s % config.evaluate.every == 0 or s == g.steps:
                runs.record_metrics(r, s, look.figures(state.shown))
                look.save_samples(state.shown, r, s)
                networks.save_checkpoint(checkpoint, gan.state_dict(state))
                if not np.isfinite(float(record.values["loss/G"])):
                    raise RuntimeError(
                        f"the losses became infinite or NaN at step {s}; lower gan.lr_g and gan.lr_d"
                    )
            if told:  # last, as it may stop the run, which then has all of this step
                rate = (s - first) * g.batch / max(1e-9, time.monotonic() - begun)
                watch("train G, D, Q", s, g.steps, f"{rate:.0f} samples/s", step=s, rate=rate)
    except torch.OutOfMemoryError:
        fits = -1
    except TrainingStopped:
        networks.save_checkpoint(checkpoint, gan.state_dict(state))
        raise
    else:
        fits = 0
    if fits:
        fits = gan.largest_batch(g, state, pool)
        advice = f"use --gan.batch {fits}, which fits" if fits else "use --device cpu"
        raise RuntimeError(f"the device ran out of memory at batch {g.batch}; {advice}")
    networks.save(
        r.model_path("D"), state.D, "discriminator", gan.discriminator_arguments(g, K, shape)
    )
    if g.q_training == "joint":
        settings, role = target_settings(config)
        networks.save(
            r.model_path("Q"),
            state.Q,
            "classifier",
            classifiers.arguments(settings, shape, K, role),
        )
    networks.save(
        r.model_path("G"), state.shown, g.generator, gan.generator_arguments(g, K, shape, given)
    )
    return networks.load(r.model_path("G"), device)


def baselines(
    config: Config,
    folds: int,
    modality: Literal["voice", "face"],
    device: str = "auto",
    report: ProgressCallback = lambda *a: None,
) -> list[dict]:
    """§4.3: the baseline f_T (voice) or f_S (face) over folds: trained on S1's subjects, scored once on S4's, balanced by class.

    Returns a dict per fold: fold, accuracy, N, confusion. Every subject is tested once where folds times the share of S4 is 1.
    """
    where, K, out = choose_device(device), len(config.data.classes), []
    for fold in range(folds):
        c = replace(config, data={"fold": fold}, gan={"direction": "face-voice"})
        sets = splits.build_sets(c)
        settings, draw = (c.f_t, "f_T") if modality == "voice" else (c.f_s, "f_S")
        phase = f"{draw}, fold {fold + 1} of {folds}"
        (images, labels), (test, truth) = (
            (s.y, s.y_label) if modality == "voice" else (s.x, s.x_label)
            for s in (sets["S1"], sets["S4"])
        )
        x, t = image_tensor(images, where), torch.from_numpy(labels).to(where)
        tick = functools.partial(_report_step, report, phase, settings.steps)
        network = classifiers.fit(x, t, settings, K, seed_of(c, draw), modality, tick)
        rows = splits.balanced_rows(truth, seed_of(c, "balance"))
        guesses = classifiers.softmax(network, image_tensor(test[rows], where)).argmax(axis=1)
        matrix = metrics.confusion(truth[rows], guesses, K)
        out.append(
            {
                "fold": fold,
                "accuracy": metrics.accuracy(matrix),
                "N": len(rows),
                "confusion": matrix.tolist(),
            }
        )
    return out


def _report_step(report: ProgressCallback, phase: str, total: int, step: int, loss: float) -> None:
    report(phase, step, total, f"loss {loss:.3f}" if np.isfinite(loss) else "")


def provenance(config: Config, digest: str, device: torch.device) -> dict:
    """Where a run comes from: versions, device, corpus digest, seed, command."""
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "protocol": PROTOCOL_VERSION,
    }
    name = (
        torch.cuda.get_device_name(0)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "versions": versions,
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "corpus": digest,
        "seed": config.seed,
        "created": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
