"""Two listeners that name the emotion of a sound, beside the run's own scorer.

The scorer knows the middle second of each recording, and a generator can learn a pattern that it
alone hears. These two know every prepared window with speech, shifted, noisy and masked, and are of
different architectures; what both hear is an emotion rather than a pattern.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from core import files
from core.config.serialisation import to_dict
from core.config.settings import PROTOCOL_VERSION, ClassifierSettings, Config, DataSettings, replace
from core.data import prepared_corpora, splits
from core.data.corpora import CorpusError
from core.data.splits import SampleSet
from core.evaluation.augmentation import plain_augmentation
from core.evaluation.quality import image_tensor, seed_of
from core.media import spectrograms
from core.models import classifiers, networks
from core.models.networks import Classifier
from core.runs.directory import Run

LISTENERS = {  # score's name -> settings; the residual one hears no level
    "emotion, plain": ClassifierSettings(steps=1_000, batch=32, noise=0.2, smoothing=0.1),
    "emotion, residual": ClassifierSettings(
        channels=(8, 16, 32, 64),
        architecture="residual",
        steps=1_000,
        batch=32,
        optimiser="adamw",
        lr=3e-3,
        noise=0.2,
        smoothing=0.1,
        dropout=0.3,
        average=0.99,
    ),
}
ProgressCallback = Callable[[str, int, int, str], None]  # (phase, done, total, remark)


def fit_listeners(run: Run, report: ProgressCallback = lambda *a: None) -> dict[str, Classifier]:
    """Each listener to a run's emotions, from the cache or fitted now.

    They learn from S1's and S2's voices, as the scorer does: S3's and S4's people are new to them.
    Raises CorpusError where the voices are not prepared here.
    """
    config, cpu = run.config, torch.device("cpu")
    sets, windows = _sets_with_windows(config)
    images, labels = _known_voices(sets)
    x, t, K = image_tensor(images, cpu), torch.from_numpy(labels), len(config.data.classes)
    digest = prepared_corpora.corpus_digest(replace(config, data={"f_s_corpus": ""}).data)
    out = {}
    for name, settings in LISTENERS.items():
        given = {k: to_dict(config)[k] for k in ("seed", "logmel")} | {"windows": windows}
        key = [name, digest, given, _split(config), vars(settings), PROTOCOL_VERSION]
        path = run.directory.parent / ".cache" / f"listener-{files.cache_key(*key)}.safetensors"
        path.parent.mkdir(exist_ok=True)
        with files.file_lock(path.with_suffix(".lock"), f"fitting {name}", wait=True):
            if not path.exists():
                fitted = _fit(x, t, settings, K, seed_of(config, "scorer"), name, report)
                arguments = classifiers.arguments(settings, images.shape[1:], K)
                networks.save(path, fitted, "classifier", arguments)
        network = networks.load(path)
        assert isinstance(network, Classifier)
        out[name] = network
    return out


def _split(config: Config) -> dict:
    """The settings that decide which voices lie in S1 and S2, and their labels."""
    others = {
        *("f_s_corpus", "frames", "windows", "speech"),
        *("listening", "g_fraction", "clf_fraction"),
    }
    return {k: v for k, v in to_dict(config)["data"].items() if k not in others}


def _sets_with_windows(config: Config) -> tuple[dict[str, SampleSet], str]:
    """S1-S4 with all prepared windows of a voice, or with the middle one where there is no more."""
    whole = {"windows": "all", "speech": DataSettings.speech}  # the same judges for every run
    try:
        return splits.build_sets(replace(config, data=whole)), "all"
    except CorpusError:
        return splits.build_sets(replace(config, data={"windows": "middle"})), "middle"


def _known_voices(sets: dict[str, SampleSet]) -> tuple[np.ndarray, np.ndarray]:
    """All windows (n, columns, bands) of S1's and S2's voices, and their labels."""
    images, labels = [], []
    for s in (sets["S1"], sets["S2"]):
        W = s.windows.shape[1]
        images.append(s.windows.reshape(-1, *s.windows.shape[2:]) if W else s.y)
        labels.append(np.repeat(s.y_label, max(1, W)))
    return np.concatenate(images), np.concatenate(labels)


def _fit(
    x: torch.Tensor,
    t: torch.Tensor,
    settings: ClassifierSettings,
    K: int,
    seed: int,
    name: str,
    report: ProgressCallback,
) -> Classifier:
    random = torch.Generator().manual_seed(seed + 2)
    change = functools.partial(plain_augmentation, generator=random)
    network = None
    steps = classifiers.training_steps(x, t, settings, K, seed, change=change)
    for step, network, _ in steps:  # noqa: B007
        report(f"fit a listener ({name})", step, settings.steps, "")
    assert network is not None
    return network.eval()


def heard(
    listeners: dict[str, Classifier], waves: np.ndarray, labels: np.ndarray, run: Run
) -> dict[str, np.ndarray]:
    """Score's name -> (n,) 1 where a listener names the class of a sound (n, samples), else 0.

    Every sound is analysed anew, whatever spectrogram it was made from.
    """
    if not listeners:
        return {}
    s, ref_db = run.config.logmel, run.json("corpus")["voices"]["ref_db"]
    db = [spectrograms.centre_crop(spectrograms.log_mel(w, s), s.columns) for w in waves]
    y = image_tensor(spectrograms.scale(np.stack(db), ref_db, s), torch.device("cpu"))
    return {
        name: (classifiers.softmax(network, y).argmax(axis=1) == labels).astype(np.float64)
        for name, network in listeners.items()
    }
