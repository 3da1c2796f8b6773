"""§4.2, tried and judged on S2 alone: other ways of teaching a classifier with generated samples than adding one to S1 for each face.

A row of the augmentation table mixes a fixed set of samples with S1's voices. Here a batch is half real and half drawn from several
samples of each face, and what is drawn may be weighted, filtered, or told to the classifier by more than one class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core import files
from core.config import ClassifierSettings as Settings
from core.conformal import prediction
from core.data import splits
from core.evaluation import augmentation
from core.evaluation.evaluator import image_tensor, seed_of, target_settings
from core.models import classifiers, gan, networks
from core.models.classifiers import softmax
from core.models.networks import Classifier
from core.runs import Run

CREDIBLE = 0.2  # a sample is kept when its label's p-value is above it
HELD = 4  # one subject of so many in S1 calibrates that p-value and trains nothing


@dataclass(frozen=True)
class Way:
    """How generated samples are used beside S1's voices, in batches as large as those of f_T."""

    name: str
    share: float = 0.5  # of each batch that is generated
    weight: float = 1.0  # of a generated sample's loss
    told: Literal["label", "c", "f_S"] = (
        "label"  # its target: argmax c, c scaled to sum to one, or f_S' softmax of its face
    )
    keep: Literal["all", "credible", "agreed"] = (
        "all"  # credible: by the CP of a classifier of voices; agreed: Q names the label too
    )
    first: bool = (
        False  # generated samples alone in the first half of the steps, S1 alone in the second
    )
    plain: bool = False  # with the table's plain augmentation


WAYS = (
    Way("S1", share=0.0),
    Way("S1, plain augmentation", share=0.0, plain=True),
    Way("half generated"),
    Way("half generated, plain augmentation", plain=True),
    Way("half generated, weight 0.3", weight=0.3),
    Way("half generated, told c", told="c"),
    Way("half generated, told f_S' softmax", told="f_S"),
    Way("half generated, the credible", keep="credible"),
    Way("half generated, where Q agrees", keep="agreed"),
    Way("generated first, then S1", first=True),
    Way("generated alone", share=1.0),
)


@dataclass(frozen=True)
class Stream:
    """Samples to draw from, each class equally often."""

    y: Tensor  # (n, 1, columns, bands)
    target: Tensor  # (n, K) probabilities
    chance: Tensor  # (n,) of being drawn, up to a factor

    @classmethod
    def of(cls, y: Tensor, label: Tensor, told: Tensor) -> Stream:
        counts = torch.bincount(label, minlength=told.shape[1]).clamp(min=1)
        return cls(y, told, 1 / counts[label].float())


def fitted(
    way: Way, real: Stream, made: Stream, s: Settings, seed: int, role: str = "voice"
) -> Classifier:
    """A classifier after `s.steps` steps on batches of both streams, a function of its arguments alone."""
    cpu = torch.Generator().manual_seed(seed)
    random = torch.Generator(real.y.device).manual_seed(seed + 1)
    shape, K = (int(real.y.shape[2]), int(real.y.shape[3])), real.target.shape[1]
    network, optimiser = classifiers.new_classifier(s, shape, K, role, cpu, real.y.device)
    for step in range(s.steps):
        share = float(step < s.steps // 2) if way.first else way.share
        parts = []
        for stream, n, weight in (
            (real, s.batch - round(share * s.batch), 1.0),
            (made, round(share * s.batch), way.weight),
        ):
            if n:
                i = torch.multinomial(stream.chance, n, replacement=True, generator=random)
                parts.append(
                    (
                        stream.y[i],
                        stream.target[i],
                        torch.full((n,), weight, device=stream.y.device),
                    )
                )
        y, told, weights = (torch.cat(k) for k in zip(*parts))
        if way.plain:
            y = augmentation.plain_augmentation(y, random)
        y = y + s.noise * torch.randn(y.shape, generator=random, device=y.device)  # §3.2
        each = F.cross_entropy(network(y), told, label_smoothing=s.smoothing, reduction="none")
        optimiser.zero_grad(set_to_none=True)
        ((each * weights).sum() / weights.sum()).backward()
        optimiser.step()
    return network.eval()


def compare(
    run: Run,
    seeds: int = 3,
    per_face: int = 8,
    tick: Callable[[str, int, int, str], None] = lambda *a: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict:
    """Every way of WAYS with a finished run's generator, `per_face` samples of each of S3's faces; writes ways.json, returns its content.

    Accuracies are of S2's voices, balanced by class; S4 is not looked at. The CP that filters is calibrated on S1 subjects that its
    classifier has not seen. Raises ValueError where the run is not finished or its corpus is another, runs.Stopped when told to stop.
    """
    config = run.config
    sets, c = augmentation.load_sets(run, config)
    f_S, Q, G = (networks.load(run.model_path(n)) for n in ("f_S", "Q", "G"))
    assert isinstance(f_S, Classifier)
    assert isinstance(Q, Classifier)
    s, role = target_settings(config)
    K, S1, S2, S3 = len(config.data.classes), *(sets[k] for k in ("S1", "S2", "S3"))
    if not c["S3"].shape[1]:
        raise ValueError(
            f"{run.id} has no condition, so its samples have no label of their own; choose a run with one"
        )
    counted = splits.balanced_rows(S2.y_label, seed_of(config, "balance"))
    y2, label2 = image_tensor(S2.y[counted], torch.device("cpu")), S2.y_label[counted]
    y1, label1 = image_tensor(S1.y, torch.device("cpu")), torch.from_numpy(S1.y_label)
    pick = np.random.default_rng(seed_of(config, "ways")).permutation(len(S3.x))[
        : max(len(S1.y), len(S3.y))
    ]
    x, c3 = image_tensor(S3.x, torch.device("cpu"))[pick], torch.from_numpy(c["S3"][pick])
    made = torch.cat(
        [gan.sample(G, x, c3, config.gan.z, seed_of(config, "ways") + k) for k in range(per_face)]
    )
    label = c3.argmax(dim=1).repeat(per_face)
    told = {
        "label": F.one_hot(label, K).float(),
        "c": (c3 / c3.sum(dim=1, keepdim=True)).repeat(per_face, 1),
    }
    told["f_S"] = torch.from_numpy(softmax(f_S, x)).float().repeat(per_face, 1)
    kept = {
        "all": torch.ones(len(label), dtype=torch.bool),
        "agreed": torch.from_numpy(softmax(Q, made).argmax(axis=1)) == label,
    }
    kept["credible"] = torch.from_numpy(
        _credible(S1.y_subject, y1, label1, made, label, s, K, seed_of(config, "ways"), role)
    )
    real, found = Stream.of(y1, label1, F.one_hot(label1, K).float()), {}
    for i, way in enumerate(WAYS):
        k = kept[way.keep]
        stream = Stream.of(made[k], label[k], told[way.told][k])
        right = []
        for seed in range(seeds):
            tick("ways", i * seeds + seed, len(WAYS) * seeds, way.name)
            if should_stop():
                raise files.StopRequested(
                    "the comparison was stopped; the same command begins it anew"
                )
            network = fitted(way, real, stream, s, seed_of(config, "rows") + 10 * seed, role)
            right.append(float((softmax(network, y2).argmax(axis=1) == label2).mean()))
        found[way.name] = {"way": asdict(way), "accuracy": right, "kept": float(k.float().mean())}
    tick("ways", len(WAYS) * seeds, len(WAYS) * seeds, "")
    result = {
        "per_face": per_face,
        "N S2 voices": len(label2),
        "chance": 1 / K,
        "steps": s.steps,
        "ways": found,
    }
    files.write_json(run.directory / "ways.json", result)
    return result


def _credible(
    subject,
    y1: Tensor,
    label1: Tensor,
    made: Tensor,
    label: Tensor,
    s: Settings,
    K: int,
    seed: int,
    role: str,
) -> np.ndarray:
    """Which samples have a p-value of their label above CREDIBLE (n,), by a classifier of S1's voices without the subjects held back."""
    names = sorted(set(subject.tolist()))
    held = torch.from_numpy(np.isin(subject, names[HELD - 1 :: HELD] or names[-1:]))
    judge = classifiers.fit(y1[~held], label1[~held], s, K, seed, role)
    p = prediction.inductive_p_values(
        softmax(judge, y1[held]), label1[held].numpy(), softmax(judge, made)
    )
    return p[np.arange(len(label)), label.numpy()] > CREDIBLE


def text(result: dict) -> str:
    """The comparison as a table in Markdown."""
    lines = ["| way | accuracy on S2, % | sd | samples kept |", "|---|---|---|---|"]
    for name, one in result["ways"].items():
        a = 100 * np.array(one["accuracy"])
        lines.append(
            f"| {name} | {a.mean():.1f} | {a.std(ddof=1) if len(a) > 1 else float('nan'):.1f} | {one['kept']:.0%} |"
        )
    n = len(next(iter(result["ways"].values()))["accuracy"])
    return "\n".join(
        [
            *lines,
            "",
            f"{n} trainings each of {result['steps']} steps, N = {result['N S2 voices']}, chance {result['chance']:.1%}.",
        ]
    )
