"""§4.2: the measurements of a run, each on its set.

Curves and samples while training are of S2; S4 is used once, in `evaluate`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from core import files
from core.config.settings import ClassifierSettings, Config, classifier_settings
from core.conformal import prediction
from core.data import splits
from core.data.splits import SampleSet
from core.evaluation import metrics, protocol, results
from core.evaluation.quality import (
    Measurements,
    diversity,
    image_tensor,
    measure_floors,
    measure_quality,
    seed_of,
    watched,
)
from core.models import classifiers, gan, networks
from core.runs.directory import Run

FLOW_CURVE_FACES = 120  # faces of S2 in a flow's curves, whose samples take longer than a GAN's
FEATURE_POINTS_PER_CLASS = 60  # samples whose projected features a checkpoint stores
CONFORMAL_LEVELS = (0.05, 0.1, 0.2)  # significance levels epsilon of the summary
Parts = dict[str, tuple[torch.Tensor, torch.Tensor]]  # name -> (n, 1, columns, bands), labels (n,)


def source_settings(config: Config) -> tuple[ClassifierSettings, Literal["face", "voice"]]:
    """Settings of f_S and its modality: faces, or voices in the reverse direction."""
    modality: Literal["face", "voice"] = "face" if config.gan.direction == "face-voice" else "voice"
    return classifier_settings(config, modality), modality


def target_settings(config: Config) -> tuple[ClassifierSettings, Literal["face", "voice"]]:
    """Settings and modality of f_T, Q, the scorer and the table's rows: voices (reverse: faces)."""
    modality: Literal["face", "voice"] = "voice" if config.gan.direction == "face-voice" else "face"
    return classifier_settings(config, modality), modality


@dataclass(frozen=True)
class FittedClassifiers:
    """The classifiers of a run (§4.3), on its device."""

    f_S: networks.AnyClassifier
    f_T: networks.Classifier
    Q: networks.Classifier
    scorer: networks.Classifier
    digest: str  # of the scorer's weights; figures of different digests never share an axis


class TrainingMonitor:
    """Figures while training: samples from S2's faces against S2's voices, through the scorer."""

    def __init__(
        self, config: Config, S2: SampleSet, c: np.ndarray, fitted: FittedClassifiers, device
    ):
        rows = splits.balanced_rows(S2.x_label, seed_of(config, "balance"))
        if config.gan.generator == "flow":
            rows = np.random.default_rng(0).permutation(rows)[:FLOW_CURVE_FACES]
        self.config, self.scorer = config, fitted.scorer
        self.x, self.c = image_tensor(S2.x[rows], device), torch.from_numpy(c[rows]).to(device)
        self.labels = S2.x_label[rows]
        voices = splits.balanced_rows(S2.y_label, seed_of(config, "balance"))
        self.real_labels, self.y = S2.y_label[voices], S2.y[voices]
        self.o_real, self.real = classifiers.outputs(fitted.scorer, image_tensor(self.y, device))
        self.saved_rows = _first_rows(self.labels, 1)[: config.evaluate.samples]
        # of one voice there are no axes, and no embedding is stored
        self.plane = metrics.principal_axes(self.real) if len(self.real) > 1 else None
        # softmax and features of the samples that `figures` measured last
        self.seen: tuple[np.ndarray, np.ndarray] | None = None

    def _sample(self, G: torch.nn.Module, rows=slice(None)) -> torch.Tensor:
        seed = seed_of(self.config, "samples")
        return gan.sample(G, self.x[rows], self.c[rows], self.config.gan.z, seed)

    def figures(self, G: torch.nn.Module) -> dict[str, float]:
        """FID at equal N, KID, IS, recognition and diversity of samples beside S2's voices.

        Figures that are not defined for so few voices are left out.
        """
        o, features = self.seen = classifiers.outputs(self.scorer, self._sample(G))
        n = min(len(self.real), len(features))
        pick = np.random.default_rng(0).permutation(len(features))[:n]
        kept = np.random.default_rng(0).permutation(len(self.real))[:n]
        x, c, seed = self.x[::4], self.c[::4], seed_of(self.config, "samples")
        out = Measurements()
        out.add("FID", lambda: metrics.fid(self.real[kept], features[pick]))
        out.add("KID, KID sd", lambda: metrics.kid(self.real, features[pick]))
        out.add("IS", lambda: metrics.inception_score(o))
        out.add("recognised", lambda: float((o.argmax(axis=1) == self.labels).mean()))
        out.add("diversity", lambda: diversity(G, x, c, self.config.gan.z, seed, self.y))
        return dict(out)

    def reference(self, S3: SampleSet, device) -> dict[str, float]:
        """Reference lines of the curves: S3's real samples in the place of generated ones.

        Generated samples are compared with S2's, which the scorer knows; it knows neither them nor
        S3's people, as `unknown_samples` gives them. S3's labels balance the draw, and train
        nothing.
        """
        o, features = classifiers.outputs(self.scorer, image_tensor(S3.y, device))
        rows, out = splits.balanced_rows(S3.y_label), Measurements()
        measure_floors(out, self.real, features, S3.y_label, 0)
        out.add("IS real", lambda: metrics.inception_score(o[rows]))
        right = o[rows].argmax(axis=1) == S3.y_label[rows]
        out.add("recognised real", lambda: float(right.mean()))
        size = {"N": len(self.real), "features": self.real.shape[1]}
        return out | size | {"evaluation": results.EVALUATION_VERSION}

    def save_samples(self, G: torch.nn.Module, r: Run, step: int) -> None:
        """Write samples/step-<n>.npz: the sample `y` of one face per class, with its `label`.

        Of the samples that `figures` measured it adds `confusion` (K, K), the faces' emotion
        against the scorer's prediction; `at` (n, 2), their features on the two principal axes of
        S2's real features, with their classes `of` (n,); the same of S2's voices in `at_real` and
        `of_real`; and `share` (2,), the variance that the axes hold.
        """
        arrays = {
            "y": self._sample(G, self.saved_rows)[:, 0].cpu().numpy().astype(np.float16),
            "label": self.labels[self.saved_rows],
        }
        if self.seen:
            o, features = self.seen
            arrays["confusion"] = metrics.confusion(self.labels, o.argmax(axis=1), o.shape[1])
        if self.seen and self.plane:
            centre, axes, arrays["share"] = self.plane
            both = (("", features, self.labels), ("_real", self.real, self.real_labels))
            for name, f, labels in both:
                rows = _first_rows(labels, FEATURE_POINTS_PER_CLASS)
                at = (f[rows] - centre) @ axes
                arrays |= {f"at{name}": at.astype(np.float32), f"of{name}": labels[rows]}
        files.write_arrays(r.directory / "samples" / f"step-{step:07d}.npz", **arrays)


def _first_rows(labels: np.ndarray, n: int) -> np.ndarray:
    """The first n rows of each class, class by class."""
    return np.concatenate([np.nonzero(labels == k)[0][:n] for k in np.unique(labels)])


def evaluate(
    config: Config,
    sets,
    fitted: FittedClassifiers,
    c: dict,
    G,
    r: Run,
    device,
    watch: Callable[..., None],
) -> dict:
    """The final figures, S4's only use: results.json's content; also writes generated.npz.

    Accuracy of f_S and of each augmentation row with confusion matrices; IS, FID, KID, density,
    coverage, recognition and diversity with their real references; the conformal summary.
    """
    K, S4 = len(config.data.classes), sets["S4"]
    faces = splits.balanced_rows(S4.x_label, seed_of(config, "balance"))
    voices = splits.balanced_rows(S4.y_label, seed_of(config, "balance"))
    y, labels = image_tensor(S4.y[voices], device), S4.y_label[voices]
    o_S = classifiers.softmax(fitted.f_S, image_tensor(S4.x[faces], device))
    source = metrics.confusion(S4.x_label[faces], o_S.argmax(axis=1), K)

    # samples of S4's faces, and their quality
    fake, scores, quality, notes = measure_quality(
        config, sets, fitted.scorer, c["S4"], G, device, watch
    )

    # classifiers of the augmentation rows
    rows = augmentation_sets(config, sets, c, fitted, G, device, watch)
    tables = _score_rows(config, rows, y, labels, watch)
    notes += [
        f"{row}: not measured in a listening run, whose G learnt from all people but S4's"
        if "generated" in row and config.data.listening
        else f"{row}: not defined for voices paired with faces by emotion"
        for row in config.evaluate.rows
        if row not in rows
    ]
    files.write_arrays(
        r.directory / "generated.npz",
        y=fake[:, 0].cpu().numpy().astype(np.float16),
        label=S4.x_label[faces],
        row=faces,
        o=scores[0].astype(np.float32),
        c=c["S4"][faces],
    )
    return {
        "evaluation": results.EVALUATION_VERSION,
        "classes": list(config.data.classes),
        "chance": 1 / K,
        "labels": protocol.labels_mode(config),
        **_classifier_results(config, source, fitted, y, labels),
        "conformal": _conformal_summary(sets, r),
        "quality": quality | {"scorer": fitted.digest},
        "augmentation": tables,
        "notes": notes,
        "steps": config.gan.steps,
        "parameters": {"G": sum(p.numel() for p in G.parameters())},
        "subjects": {k: sorted(set(map(str, s.y_subject))) for k, s in sets.items()},
    }


def _score_rows(config: Config, rows: Parts, y, labels: np.ndarray, watch) -> dict[str, dict]:
    """Train a classifier on each augmentation row and score it on S4's real voices y, labels."""
    settings, role = target_settings(config)
    K, seed, tell = len(config.data.classes), seed_of(config, "rows"), classifiers.in_turn(watch)

    def scored(row: str) -> dict:
        tick = lambda s, loss: tell(f"score {row}", s, settings.steps, "")  # noqa: E731
        network = classifiers.fit(*rows[row], settings, K, seed, role, tick)
        matrix = metrics.confusion(labels, classifiers.softmax(network, y).argmax(axis=1), K)
        accuracy = metrics.accuracy(matrix)
        return {"confusion": matrix.tolist(), "N train": len(rows[row][1]), "accuracy": accuracy}

    names = [row for row in config.evaluate.rows if row in rows]
    tasks = [functools.partial(scored, row) for row in names]
    return dict(zip(names, classifiers.side_by_side(tasks, y.device), strict=True))


def _classifier_results(
    config: Config, source: np.ndarray, fitted: FittedClassifiers, y, labels: np.ndarray
) -> dict:
    """Accuracies and confusions of f_S, and in the reverse direction of f_T, with their N."""

    def scored(matrix: np.ndarray) -> dict:
        return {"accuracy": metrics.accuracy(matrix), "confusion": matrix.tolist()}

    n_source, n_target = int(source.sum()), len(labels)
    if config.gan.direction == "face-voice":
        return {"N test voices": n_target, "N test faces": n_source, "face": scored(source)}
    o_T = classifiers.softmax(fitted.f_T, y).argmax(axis=1)
    target = metrics.confusion(labels, o_T, len(config.data.classes))
    return {
        "direction": config.gan.direction,
        "N test voices": n_source,
        "N test faces": n_target,
        "voice": scored(source),
        "face": scored(target),
    }


def _conformal_summary(sets, r: Run) -> dict:
    """Error rate and mean set size on S4 at CONFORMAL_LEVELS, mean credibility and confidence."""
    p, labels = r.arrays()["p_S4"], sets["S4"].x_label
    true = np.take_along_axis(p, labels[:, None], axis=1)[:, 0]
    levels = {
        str(e): {"error": float((true <= e).mean()), "set size": float((p > e).sum(axis=1).mean())}
        for e in CONFORMAL_LEVELS
    }
    return {
        "n": len(r.arrays()["calibration"]),
        "levels": levels,
        "credibility": float(prediction.credibility(p).mean()),
        "confidence": float(prediction.confidence(p).mean()),
    }


# ------------------------------------------------------------------ training sets of the rows


def augmentation_parts(
    config: Config,
    sets,
    c: dict,
    f_S,
    Q,
    G,
    device,
    draw: int = 0,
    watch: Callable[..., None] = lambda *a: None,
) -> Parts:
    """The parts that augmentation rows are made of, on the device.

    S1 (what of it has labels); S3 with its true labels; pseudo, S3 with f_S's labels of the same
    clips' faces (the way without a GAN; only for paired faces and voices); generated, from S3's
    faces, labelled argmax c, or by Q without a condition; a listening run, whose G knows S1's and
    S2's people too, has no such part. `draw` selects other faces and noise.
    """
    S1, S3, seed = sets["S1"], sets["S3"], seed_of(config, "samples") + 100 * draw
    own, repeats = s1_voice_rows(config, S1), config.evaluate.per_face
    x3, y3 = image_tensor(S3.x, device), image_tensor(S3.y, device)
    parts = {
        "S1": (image_tensor(S1.y[own], device), torch.from_numpy(S1.y_label[own]).to(device)),
        "S3": (y3, torch.from_numpy(S3.y_label).to(device)),
    }
    if S3.paired:
        pseudo = classifiers.softmax(f_S, x3).argmax(axis=1)
        parts["pseudo"] = (y3, torch.from_numpy(pseudo).to(device))
    if config.data.listening:
        return parts
    # faces can outnumber voices tenfold: bound the samples, or they drown S1
    most = max(len(S1.y), len(S3.y)) * repeats
    pick = np.random.default_rng(seed).permutation(len(S3.x))[:most]
    c3 = torch.from_numpy(c["S3"][pick]).to(device)
    how = watched(config, watch, "sample S3", len(pick) * repeats)
    fakes = [gan.sample(G, x3[pick], c3, config.gan.z, seed + k, **how) for k in range(repeats)]
    scores = c["S3"][pick] if c["S3"].shape[1] else classifiers.softmax(Q, fakes[0])
    label = torch.from_numpy(scores.argmax(axis=1).astype(np.int64)).to(device).repeat(repeats)
    return parts | {"generated": (torch.cat(fakes), label)}


def s1_voice_rows(config: Config, S1: SampleSet) -> np.ndarray:
    """S1's voices that train rows: those of f_T and Q, in order if they are all."""
    rows = labelled_rows(config, S1.y_label)
    return np.arange(len(rows)) if len(rows) == len(S1.y) else rows


def labelled_rows(config: Config, labels: np.ndarray) -> np.ndarray:
    """Rows of S1's voices (n,) whose labels are known, in the order drawn.

    `labels_per_class` of each class, or fewer where it has fewer, so that more labels include
    fewer; without it the share `clf_fraction` of all.
    """
    d, rng = config.data, np.random.default_rng(seed_of(config, "balance"))
    order = rng.permutation(len(labels))
    if not d.labels_per_class:
        return order[: max(len(d.classes), round(d.clf_fraction * len(labels)))]
    of_class = [order[labels[order] == k][: d.labels_per_class] for k in range(len(d.classes))]
    return np.concatenate(of_class)


def augmentation_sets(
    config: Config, sets, c: dict, fitted: FittedClassifiers, G, device, watch: Callable[..., None]
) -> Parts:
    """The training sets of `protocol.TABLE_ROWS`; classifier, steps and balance are the same."""
    f_S, Q = fitted.f_S, fitted.Q
    return join_parts(augmentation_parts(config, sets, c, f_S, Q, G, device, watch=watch))


def join_parts(
    parts: Parts, rows: Sequence[protocol.TableRow] = protocol.TABLE_ROWS, own_share: float = 0.0
) -> Parts:
    """Those of `rows` whose parts exist; "S1 again" repeats S1 once per generated sample.

    S1 is repeated until it is about `own_share` of a row, so of the batches that are drawn from it.
    """
    y1, l1 = parts["S1"]
    if "generated" in parts:
        again = torch.arange(len(parts["generated"][0]), device=y1.device) % len(y1)
        parts = parts | {"S1 again": (y1[again], l1[again])}
    out = {}
    for row in rows:
        if set(row.parts) <= set(parts):
            y, labels = zip(*(parts[p] for p in row.parts))
            if "S1" in row.parts and own_share:
                others = sum(map(len, labels)) - len(l1)
                more = round(own_share / (1 - own_share) * others / len(l1)) - 1
                y, labels = (*y, *[y1] * more), (*labels, *[l1] * more)
            out[row.name] = (torch.cat(y), torch.cat(labels))
    return out
