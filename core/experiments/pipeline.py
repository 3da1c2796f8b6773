"""§3 and §4: `run(config)` is the whole paper, a step per section, written into a run's directory.

clips -> S1..S4 -> f_S on S1 -> alpha on S2 -> p-values for S3 -> c -> G, D, Q on S3 -> samples from
S3's faces join S1's voices -> a classifier scored on S4's real voices; samples from S4's faces ->
IS, FID. No fit uses S4; curves and samples during training are S2's, so S4 is evaluated once.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from core import files
from core.config.serialisation import run_name
from core.config.settings import PROTOCOL_VERSION, Config, classifier_settings, fold_count, replace
from core.conformal import predictor, validity
from core.data import prepared_corpora, splits
from core.evaluation import metrics, quality, results
from core.evaluation.evaluator import evaluate, image_tensor, labelled_rows, seed_of
from core.experiments import classifier_fitting, condition_vectors, gan_training
from core.files import StopRequested, UserError
from core.models import classifiers
from core.runs import diagnosis, store
from core.runs.directory import Run

ProgressCallback = Callable[[str, int, int, str], None]  # (phase, done, total, remark)


class DeviceError(UserError):
    """The requested device cannot be used; the message says why and what to choose instead."""


def choose_device(name: str = "auto") -> torch.device:
    """`auto` | `cpu` | `cuda` -> a device that has been tested; auto falls back to the CPU.

    Raises DeviceError for cuda where there is no GPU, or one that torch cannot use.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        found = f"torch finds none (built for CUDA {built}; is the NVIDIA driver new enough?)"
        raise DeviceError(
            f"no CUDA device: {found if built else 'this torch is a CPU build'}. "
            "Use --device cpu, or install a driver / the CUDA build of torch."
        )
    try:
        torch.zeros(8, device="cuda").sum().item()
        return torch.device("cuda")
    except RuntimeError as e:
        reason = str(e).splitlines()[0]
        if name == "auto":
            fallback = f"The NVIDIA GPU cannot be used ({reason}); continuing on the CPU."
            print(fallback, file=sys.stderr)
            return torch.device("cpu")
        gpu, (major, minor) = torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0)
        raise DeviceError(
            f"{gpu} (compute capability {major}.{minor}) cannot be used: {reason} "
            f"This torch supports {', '.join(torch.cuda.get_arch_list())}: the GPU or its driver "
            "is too old. Use --device cpu."
        ) from e


# ------------------------------------------------------------------ the paper


def run(
    config: Config,
    folder: Path | None = None,
    device: str = "auto",
    report: ProgressCallback = lambda *a: None,
    should_stop: Callable[[], bool] = lambda: False,
    parent: str | None = None,
    train: gan_training.TrainFunction = gan_training.train_with_cuda_graphs,
) -> Run:
    """Train and evaluate one configuration, or resume it; returns the run with its results.json.

    The same config on the same corpus is the same run: a finished one is returned at once; if its
    results follow an earlier rule, it is first measured again from its saved networks. `train`
    takes the GAN's steps, alone or stacked with other runs (`models.stacked_training`).

    Raises StopRequested, with the state saved, once `should_stop` returns true, CorpusError for a
    corpus that is not prepared, DeviceError, BusyError while another process trains the run, and
    UserError when the memory does not suffice or the losses diverge.
    """
    folder = folder or files.checkpoints_folder()
    where = choose_device(device)
    digest = prepared_corpora.corpus_digest(config.data)
    finished = Run(folder / run_name(config, digest))
    if finished.json("results") and not predictor.lacks_arrays(config.conformal, finished.arrays()):
        store.register(finished)
        return evaluate_again(finished, where, report)
    origin = provenance(config, digest, where)
    r = store.create(finished.directory, config, parent, origin)
    with store.training_lock(r):
        monitor = _ProgressMonitor(r, report, should_stop)
        return _train_and_evaluate(r, digest, where, monitor, train)


def _train_and_evaluate(
    r: Run,
    digest: str,
    where: torch.device,
    watch: _ProgressMonitor,
    train: gan_training.TrainFunction,
) -> Run:
    """`run` for a run that this process alone trains; `digest` is the corpora's."""
    config = r.config
    files.write_json(r.directory / "corpus.json", prepared_corpora.describe_corpora(config.data))
    store.update(r, state="running", phase="sets", pid=os.getpid(), error="")
    try:
        # §4.1: S1..S4
        sets = splits.build_sets(config)
        table = splits.set_table(sets)
        files.write_json(r.directory / "sets.json", table)
        for words in diagnosis.set_warnings(config, table):
            print(words, file=sys.stderr, flush=True)
        # §4.3: f_S, f_T, Q, scorer
        fitted = classifier_fitting.fit_classifiers(config, sets, digest, r, where, watch)
        # §3.1: o, alpha, p, c
        c = condition_vectors.compute_conditions(config, sets, fitted, r, watch)
        fitted = classifier_fitting.teach_q(config, sets, fitted, r, watch)
        if r.json("results"):  # a finished run lacked the arrays of its predictor alone
            store.update(r, state="done", phase="done")
            return evaluate_again(r, where, watch.report)
        # §3: G, D, Q on S3
        G, fitted = gan_training.train_gan(config, sets, fitted, c, r, where, watch, train)
        # §4.2: augmentation, IS, FID on S4
        files.write_json(
            r.directory / "results.json", evaluate(config, sets, fitted, c, G, r, where, watch)
        )
        store.update(r, state="done", phase="done")
        return r
    except (StopRequested, KeyboardInterrupt):
        store.update(r, state="stopped")
        raise StopRequested("the training was stopped; the same command resumes it") from None
    except Exception as e:
        # a second error, of a full disk or a folder that has gone, must not hide this one
        with contextlib.suppress(OSError), open(r.directory / "log.txt", "a") as f:
            f.write(traceback.format_exc())
        with contextlib.suppress(OSError):
            store.update(r, state="failed", error=_reason(e))
        raise


def _reason(error: Exception) -> str:
    """An exception in words, for the index and the page Train."""
    if not isinstance(error, OSError):
        return str(error) or type(error).__name__
    file = files.shown(Path(str(error.filename))) if error.filename else None
    return files.disk_fault(OSError(error.errno, error.strerror or str(error), file))


def evaluate_again(
    r: Run, device: torch.device, report: ProgressCallback = lambda *a: None, anew: bool = False
) -> Run:
    """Measure a finished run again if its results follow an earlier rule, or always if `anew`.

    Nothing is trained: weights, curves, samples and the rows' accuracies stay; provenance.json
    records the date. Raises UserError if the corpus is not the run's, and leaves the run as it was.
    """
    if not anew and results.is_current(r.json("results")):
        return r
    note = "measured under the present rules from the saved networks; nothing is trained"
    report("evaluate again", 0, 1, note)
    watch = lambda phase, done, total: report(phase, done, total, "")  # noqa: E731
    files.write_json(r.directory / "results.json", quality.measure_again(r, device, watch))
    when = {"evaluated again": time.strftime("%Y-%m-%d %H:%M:%S")}
    files.write_json(r.directory / "provenance.json", r.json("provenance") | when)
    report("evaluate again", 1, 1, note)
    return r


@dataclass
class _ProgressMonitor:
    """Callback of every step: raises StopRequested, and reports at most once a second."""

    run: Run
    report: ProgressCallback
    should_stop: Callable[[], bool]
    last_heartbeat: float = 0.0
    phase_start: tuple[str, float, int] = ("", 0.0, 0)  # phase, time in s, `done` at that time

    def __call__(self, phase: str, done: int, total: int, remark: str = "", **fields) -> None:
        if self.should_stop():
            raise StopRequested
        now = time.monotonic()
        if phase != self.phase_start[0]:
            self.phase_start = phase, now, done
        if now - self.last_heartbeat > 1 or done in (0, total):
            self.last_heartbeat = now
            _, started, first = self.phase_start
            rate = (done - first) / max(1e-9, now - started)
            fields = {"rate": rate, "pid": os.getpid()} | fields
            store.update(self.run, state="running", phase=f"{phase} {done}/{total}", **fields)
            self.report(phase, done, total, remark)


def provenance(config: Config, digest: str, device: torch.device) -> dict:
    """Versions, device, corpus digest, seed and time that a run's provenance.json records."""
    is_cuda = device.type == "cuda"
    cpu = platform.processor() or platform.machine()
    name = torch.cuda.get_device_name(0) if is_cuda else cpu
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "protocol": PROTOCOL_VERSION,
        },
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "corpus": digest,
        "seed": config.seed,
        "created": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


# ------------------------------------------------------------------ the baselines


def baselines(
    config: Config,
    folds: int,
    modality: Literal["voice", "face"],
    device: str = "auto",
    report: ProgressCallback = lambda *a: None,
) -> list[dict]:
    """§4.3: f_T (voice) or f_S (face) trained on S1 and scored once on S4, balanced by class.

    `data.clf_fraction`, `data.windows` and `data.f_s_corpus` decide what they are trained on, as in
    a run; with all windows a voice is judged by the mean softmax of its own. The first fold is
    `data.fold`. Returns a dict per fold: fold, accuracy, N, confusion, ECE (expected calibration
    error). Every subject is tested once if folds times the share of S4 is 1.
    """
    where, K, out = choose_device(device), len(config.data.classes), []
    if folds > (most := fold_count(config.data.sets[3])):
        raise UserError(f"--folds is {folds}; these sets have {most}, and more test people twice")
    for number in range(folds):
        fold = (config.data.fold + number) % most
        c = replace(config, data={"fold": fold}, gan={"direction": "face-voice"})
        sets, settings = splits.build_sets(c), classifier_settings(c, modality)
        S1, S4 = sets["S1"], sets["S4"]
        if modality == "voice":
            name, test, truth = "f_T", S4.y, S4.y_label
            rows = np.sort(labelled_rows(c, S1.y_label))
            images, labels = classifier_fitting.target_windows(S1, rows)
        else:
            name, test, truth = "f_S", S4.x, S4.x_label
            images, labels = classifier_fitting.source_training_data(c, sets)
        x, t = image_tensor(images, where), torch.from_numpy(labels).to(where)
        phase = f"{name}, fold {number + 1} of {folds}"
        is_source = modality == "face"
        steps = classifier_fitting.training_steps(settings, is_source)
        tick = classifier_fitting.step_callback(report, phase, steps)
        fit = classifiers.fit_source if is_source else classifiers.fit
        network = fit(x, t, settings, K, seed_of(c, name), modality, tick)
        if is_source:
            classifier_fitting.calibrate_source(c, sets, network)
        rows = splits.balanced_rows(truth, seed_of(c, "balance"))
        if modality == "voice" and S4.windows.shape[1]:
            windows = torch.from_numpy(S4.windows[rows]).to(where)
            o = classifiers.clip_softmax(network, windows, S4.window_counts[rows])
        else:
            o = classifiers.softmax(network, image_tensor(test[rows], where))
        predicted = o.argmax(axis=1)
        matrix = metrics.confusion(truth[rows], predicted, K)
        result = {"fold": fold, "accuracy": metrics.accuracy(matrix), "N": len(rows)}
        result["ECE"] = validity.reliability(o, truth[rows]).ece
        out.append(result | {"confusion": matrix.tolist()})
    return out
