"""§4.3: f_S, f_T, Q and the scorer, fitted once and cached for all runs that differ only in G."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core import files
from core.config.serialisation import to_dict
from core.config.settings import PROTOCOL_VERSION, ClassifierSettings, Config, DataSettings
from core.conformal import prediction
from core.data import splits
from core.data.splits import SampleSet
from core.evaluation.evaluator import (
    FittedClassifiers,
    image_tensor,
    labelled_rows,
    seed_of,
    source_settings,
    target_settings,
)
from core.evaluation.few_labels.rows import FewLabelsSettings
from core.evaluation.quality import scorer_digest
from core.models import classifiers, networks
from core.models.networks import AnyClassifier
from core.runs.directory import Run

# confidence of conformal prediction above which f_S may label a voice for Q
CONFIDENCE = FewLabelsSettings.confidence
# settings that were added after files had been named by the others
LATER_SETTINGS = (
    *("architecture", "augment", "dropout", "average"),
    *("temperature", "learns_from", "networks"),
)


def fit_classifiers(
    config: Config,
    sets: dict[str, SampleSet],
    digest: str,
    r: Run,
    device: torch.device,
    watch: Callable[..., None],
) -> FittedClassifiers:
    """f_S, f_T, Q and the scorer: each from the run's own file, from the cache, or fitted now.

    Those that are fitted now are so side by side, where there are cores. Runs that differ only in G
    share `checkpoints/.cache/`, in which a file's name is a hash of all that determines its
    classifier. `digest` is the corpora's. Raises UserError for a flow that should train Q jointly.
    """
    if config.gan.generator == "flow" and config.gan.q_training == "joint":
        raise files.UserError("a flow trains no Q beside it; use --gan.q-training frozen")
    names, data = classifier_files(config, digest), _training_data(config, sets)
    tell = classifiers.in_turn(watch)

    def fitted(name: str) -> torch.nn.Module:
        cached, own = r.directory.parent / ".cache" / names[name], r.model_path(name)
        # simultaneous runs wait here, so that each classifier is fitted once
        with files.file_lock(cached.with_suffix(".lock"), f"fitting {name}", wait=True):
            network = _load_first((own, cached), device)
            if network is None:
                _fit(name, config, sets, data[name], cached, device, tell)
                network = networks.load(cached, device)
        if not own.exists():
            files.copy_atomic(cached, own)
        return network

    # an f_S of several networks takes all cores by itself
    first = ["f_S"] if source_settings(config)[0].networks > 1 else []
    out: dict[str, Any] = {name: fitted(name) for name in first}
    others = [name for name in data if name not in first]
    tasks = [functools.partial(fitted, name) for name in others]
    out |= dict(zip(others, classifiers.side_by_side(tasks, device), strict=True))
    if config.gan.q_training == "joint":
        out["Q"] = _untrained_q(config).to(device)
    return FittedClassifiers(**out, digest=scorer_digest(out["scorer"]))


def teach_q(
    config: Config,
    sets: dict[str, SampleSet],
    fitted: FittedClassifiers,
    r: Run,
    watch: Callable[..., None] = lambda *a: None,
) -> FittedClassifiers:
    """Fit Q anew where `gan.q_learns_from` wants S3's voices too; save it in the run.

    Their labels are f_S's of the same clips' faces, of those alone whose conformal confidence is
    above CONFIDENCE; no label of S3 is read. S1's voices are repeated until they are as many.
    Raises UserError for unpaired faces and voices, or a Q that is trained jointly.
    """
    g, S1, S3, arrays = config.gan, sets["S1"], sets["S3"], r.arrays()
    if g.q_learns_from == "S1":
        return fitted
    if not S3.paired or g.q_training == "joint":
        raise files.UserError(
            "Q learns from S3 only where it is frozen and each voice has a face; use "
            "--gan.q-learns-from S1"
        )
    own = labelled_rows(config, S1.y_label)
    sure = np.flatnonzero(prediction.confidence(arrays["p_S3"]) > CONFIDENCE)
    own = np.tile(own, max(1, round(len(sure) / len(own))))
    y = np.concatenate([S1.y[own], S3.y[sure]])
    labels = np.concatenate([S1.y_label[own], arrays["o_S3"][sure].argmax(axis=1)])
    (settings, role), K = target_settings(config), len(config.data.classes)
    device = next(fitted.Q.parameters()).device
    x, t = image_tensor(y, device), torch.from_numpy(labels.astype(np.int64)).to(device)
    tick = step_callback(watch, "fit Q, with S3", settings.steps)
    network = classifiers.fit(x, t, settings, K, seed_of(config, "Q"), role, tick)
    arguments = classifiers.arguments(settings, y.shape[1:], K, role)
    networks.save(r.model_path("Q"), network, "classifier", arguments)
    q: Any = networks.load(r.model_path("Q"), device)
    return dataclasses.replace(fitted, Q=q)


def _fit(
    name: str,
    config: Config,
    sets: dict[str, SampleSet],
    data: tuple,
    path: Path,
    device: torch.device,
    tell: Callable[..., None],
) -> None:
    """Fit one classifier on its images and labels, and save it to `path`.

    An f_S of another corpus learns from the same faces in every fold, and only its temperature is
    the fold's own: it is trained once, and its weights before the temperature are cached, too.
    """
    (images, labels, settings, role), K = data, len(config.data.classes)
    is_source, seed = name == "f_S", seed_of(config, name)
    describe = classifiers.source_arguments if is_source else classifiers.arguments
    arguments = describe(settings, images.shape[1:], K, role)

    def trained() -> Any:
        x, t = image_tensor(images, device), torch.from_numpy(labels).to(device)
        tick = step_callback(tell, f"fit {name}", training_steps(settings, is_source))
        fit = classifiers.fit_source if is_source else classifiers.fit
        network = fit(x, t, settings, K, seed, role, tick)
        if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
            raise files.UserError(
                f"the loss of {name} became infinite or NaN, and nothing of it is kept; "
                f"lower its learning rate, now {settings.lr:g} (--f-s.lr, --f-t.lr)"
            )
        return network

    if is_source and config.data.f_s_corpus:
        content = [files.digest(np.ascontiguousarray(a).tobytes()) for a in (images, labels)]
        key = files.cache_key(*content, vars(settings), seed, role, K, PROTOCOL_VERSION)
        raw = path.with_name(f"f_S-before-temperature-{key}.safetensors")
        with files.file_lock(raw.with_suffix(".lock"), f"fitting {name}", wait=True):
            network: Any = _load_first((raw,), device)
            if network is None:
                networks.save(raw, trained(), "classifier", arguments)
                network = networks.load(raw, device)
    else:
        network = trained()
    if is_source:
        calibrate_source(config, sets, network)
    networks.save(path, network, "classifier", arguments)


def training_steps(settings: ClassifierSettings, is_source: bool) -> int:
    """Steps of a classifier; f_S may be the mean of several networks, each with its own."""
    return settings.steps * (settings.networks if is_source else 1)


def _load_first(paths: tuple[Path, ...], device: torch.device) -> torch.nn.Module | None:
    """The network of the first whole file; None if there is none. Damaged files are removed."""
    for path in paths:
        try:
            return networks.load(path, device)
        except FileNotFoundError:
            continue
        except files.DamagedError:
            path.unlink()
    return None


def _training_data(config: Config, sets: dict[str, SampleSet]) -> dict[str, tuple]:
    """Classifier -> (images, labels, settings, role) that it is fitted with.

    f_S: `source_training_data`. f_T (the baseline) and Q: S1's voices that have labels
    (`evaluator.labelled_rows`). Scorer: the voices of S1 and S2. With `data.windows` = all a voice
    is all its windows with speech. The reverse direction swaps faces and voices.
    """
    S1, S2 = sets["S1"], sets["S2"]
    rows, settings = labelled_rows(config, S1.y_label), target_settings(config)
    both = target_windows(S1), target_windows(S2)
    images, labels = (np.concatenate(pair) for pair in zip(*both, strict=True))
    own = target_windows(S1, rows)
    return {
        "f_S": (*source_training_data(config, sets), *source_settings(config)),
        "f_T": (*own, *settings),
        "Q": (*own, *settings),
        "scorer": (images, labels, settings[0], "scorer"),
    }


def source_training_data(
    config: Config, sets: dict[str, SampleSet]
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels that f_S learns from: S1's, or another corpus's; S3's with `learns_from`.

    Raises UserError where S3's may not be used: outside listening runs, or with another corpus.
    """
    settings, _ = source_settings(config)
    takes_s3, elsewhere = settings.learns_from != "S1", config.data.f_s_corpus
    if takes_s3 and (elsewhere or not config.data.listening):
        raise files.UserError(
            "f_S may learn from S3 in a listening run alone, and from no other corpus then; use "
            "--f-s.learns-from S1, or --data.listening without --data.f-s-corpus"
        )
    images, labels = splits.f_s_training_data(config, sets)
    if not takes_s3:
        return images, labels
    S3 = sets["S3"]
    return np.concatenate([images, S3.x]), np.concatenate([labels, S3.x_label])


def calibrate_source(config: Config, sets: dict[str, SampleSet], f_S: AnyClassifier) -> None:
    """Fit f_S's temperature on S2's images, if its settings want it (S2 calibrates)."""
    if source_settings(config)[0].temperature:
        S2, device = sets["S2"], next(f_S.parameters()).device
        labels = torch.from_numpy(S2.x_label).to(device)
        classifiers.apply_temperature(f_S, image_tensor(S2.x, device), labels)


def target_windows(s: SampleSet, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Targets y of some rows to learn from, and their labels: one each, or all their windows."""
    rows = np.arange(len(s.y)) if rows is None else rows
    if not s.windows.shape[1]:
        return s.y[rows], s.y_label[rows]
    W = s.windows.shape[1]
    return np.concatenate(s.windows[rows].swapaxes(0, 1)), np.tile(s.y_label[rows], W)


def _untrained_q(config: Config) -> torch.nn.Module:
    """Q before training: `gan.q_training` = joint trains it together with G and D."""
    shape, (settings, role) = image_sizes(config)[1], target_settings(config)
    generator = torch.Generator().manual_seed(seed_of(config, "Q"))
    return classifiers.untrained(settings, shape, len(config.data.classes), role, generator)


def step_callback(
    report: Callable[..., None], phase: str, steps: int
) -> Callable[[int, float], None]:
    """A callback (step, loss) for `classifiers.fit` that reports progress as `phase`."""
    return lambda step, loss: report(
        phase, step, steps, f"loss {loss:.3f}" if np.isfinite(loss) else ""
    )


def classifier_files(config: Config, digest: str) -> dict[str, str]:
    """f_S, f_T, Q, scorer -> file name in `checkpoints/.cache/`, a hash of all that determines it.

    `digest` is the corpora's.
    """
    data, logmel = to_dict(config)["data"], to_dict(config)["logmel"]
    f_s_corpus = data.pop("f_s_corpus")  # other faces affect f_S alone
    del data["frames"], data["listening"]  # they affect G alone
    labelled = data.pop("labels_per_class")  # f_S and the scorer know all of S1
    speech = data.pop("speech")
    if data["windows"] == "middle":
        del data["windows"]
    elif speech != DataSettings.speech:
        data["speech"] = speech
    (source, source_role), (target, _) = source_settings(config), target_settings(config)
    defaults, names = vars(ClassifierSettings()), LATER_SETTINGS
    later = {k: defaults[k] for k in names}  # at their defaults, they leave names as they were
    out = {}
    for name, settings in {"f_S": source, "f_T": target, "Q": target, "scorer": target}.items():
        given = {k: v for k, v in vars(settings).items() if k not in later or v != later[k]}
        key = [name, digest, config.seed, data, logmel, given, PROTOCOL_VERSION]
        if name == "f_S" and f_s_corpus:
            key.append(f_s_corpus)
        if name in ("f_T", "Q") and labelled:
            key.append(labelled)
        if source_role == "voice":
            key.append(config.gan.direction)
        out[name] = f"{name}-{files.cache_key(*key)}.safetensors"
    return out


def image_sizes(config: Config) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of source and target: face and spectrogram, or the reverse."""
    face, voice = networks.FACE_SIZE, (config.logmel.columns, config.logmel.bands)
    return (face, voice) if config.gan.direction == "face-voice" else (voice, face)
