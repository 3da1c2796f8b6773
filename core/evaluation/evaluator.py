"""§4.2: what is measured, and on whom. Curves and pictures while training are S2's; S4 is used once, here, in `evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from core import files
from core.config import ClassifierSettings, Config
from core.conformal import prediction
from core.data import splits
from core.data.splits import SampleSet
from core.evaluation import metrics, protocol
from core.models import classifiers, gan, networks
from core.runs import Run

FEATURE_POINTS_PER_CLASS = (
    60  # samples of each emotion whose places in feature space are kept at each checkpoint
)
SEED_OFFSETS = {
    "f_S": 1,
    "f_T": 2,
    "Q": 3,
    "scorer": 4,
    "gan": 5,
    "samples": 6,
    "rows": 7,
    "pairs": 8,
    "balance": 9,
}  # seeds, apart


def seed_of(config: Config, draw: str) -> int:
    """An independent seed for each use of randomness, from the config's one seed."""
    return config.seed * 1000 + SEED_OFFSETS[draw]


def source_settings(config: Config) -> tuple[ClassifierSettings, Literal["face", "voice"]]:
    """How f_S is trained, and what it looks at: faces, or in the reverse direction voices."""
    return (config.f_s, "face") if config.gan.direction == "face-voice" else (config.f_t, "voice")


def target_settings(config: Config) -> tuple[ClassifierSettings, Literal["face", "voice"]]:
    """How f_T, Q, the scorer and the rows of the table are trained, and what they look at: voices, or in the reverse direction faces."""
    return (config.f_t, "voice") if config.gan.direction == "face-voice" else (config.f_s, "face")


def image_tensor(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """(n, H, W) -> (n, 1, H, W) float32 on the device."""
    return torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None].to(device)


@dataclass(frozen=True)
class FittedClassifiers:
    """The classifiers of a run (§4.3), on its device."""

    f_S: networks.Classifier
    f_T: networks.Classifier
    Q: networks.Classifier
    scorer: networks.Classifier
    digest: str  # of the scorer's weights: figures of different digests are never put on one axis


def diversity(
    G: torch.nn.Module,
    x: torch.Tensor,
    c: torch.Tensor,
    z: int,
    seed: int,
    y: np.ndarray,
    draws: int = 6,
) -> float:
    """How much of a voice the noise decides: sd over `draws` of z for the same face, over sd of real y, both averaged over all cells.

    x (n, 1, 28, 28), c (n, K), y (m, columns, bands). Near 0 the generator has collapsed to one sample for each face; FID, IS and the
    scorer's verdicts can look tolerable all the same, since small patterns suffice to sway a network.
    """
    fakes = torch.stack([gan.sample(G, x, c, z, seed + k) for k in range(draws)])
    return float(fakes.std(dim=0).mean()) / float(y.std(axis=0, ddof=1).mean())


class TrainingMonitor:
    """What is watched while training: samples from S2's faces against S2's voices, through the scorer. Real features computed once."""

    def __init__(
        self, config: Config, S2: SampleSet, c: np.ndarray, fitted: FittedClassifiers, device
    ):
        rows = splits.balanced_rows(S2.x_label, seed_of(config, "balance"))
        self.config, self.scorer = config, fitted.scorer
        self.x, self.c = image_tensor(S2.x[rows], device), torch.from_numpy(c[rows]).to(device)
        voices = splits.balanced_rows(S2.y_label, seed_of(config, "balance"))
        self.labels = S2.x_label[rows]
        self.o_real, self.real = classifiers.outputs(
            fitted.scorer, image_tensor(S2.y[voices], device)
        )
        self.real_labels, self.y = S2.y_label[voices], S2.y[voices]
        few = np.concatenate([np.nonzero(self.labels == k)[0][:1] for k in np.unique(self.labels)])
        self.saved_rows = few[: config.evaluate.samples]
        self.centre, self.axes, self.share = metrics.principal_axes(self.real)
        self.seen: tuple[np.ndarray, np.ndarray] | None = (
            None  # softmax and features of the last samples that were measured
        )

    def figures(self, G: torch.nn.Module) -> dict[str, float]:
        """FID, KID, IS and the scorer's agreement with the faces' emotion, of samples at equal N with S2's real voices."""
        fake = gan.sample(G, self.x, self.c, self.config.gan.z, seed_of(self.config, "samples"))
        o, features = self.seen = classifiers.outputs(self.scorer, fake)
        n = min(len(self.real), len(features))
        pick = np.random.default_rng(0).permutation(len(features))[:n]
        k, spread = metrics.kid(self.real, features[pick])
        return {
            "FID": metrics.fid(self.real[:n], features[pick]),
            "KID": k,
            "KID sd": spread,
            "IS": metrics.inception_score(o),
            "recognised": float((o.argmax(axis=1) == self.labels).mean()),
            "diversity": diversity(
                G,
                self.x[::4],
                self.c[::4],
                self.config.gan.z,
                seed_of(self.config, "samples"),
                self.y,
            ),
        }

    def reference(self, S1: SampleSet, device) -> dict[str, float]:
        """The real-data lines beside the curves: IS and recognition of real S2, FID and KID between real S1 and real S2 at equal N."""
        n = len(self.real)
        rows = np.random.default_rng(0).permutation(splits.balanced_rows(S1.y_label))[:n]
        features = classifiers.outputs(self.scorer, image_tensor(S1.y[rows], device))[1]
        m = min(n, len(rows))
        return {
            "IS real": metrics.inception_score(self.o_real),
            "FID real": metrics.fid(self.real[:m], features[:m]),
            "KID real": metrics.kid(self.real, features)[0],
            "recognised real": float((self.o_real.argmax(axis=1) == self.real_labels).mean()),
            "N": n,
            "features": self.real.shape[1],
        }

    def save_samples(self, G: torch.nn.Module, r: Run, step: int) -> None:
        """samples/step-<n>.npz: the sample `y` of one face per class with its `label`; then, of the samples that `figures` measured, the
        `confusion` (K, K) of their faces' emotion with what the scorer hears, and where the scorer's features lie: `at` (n, 2) of
        generated, `at_real` (m, 2) of S2's real voices, on the real ones' two principal axes, which hold `share` (2,) of the variance.
        """
        fake = gan.sample(
            G,
            self.x[self.saved_rows],
            self.c[self.saved_rows],
            self.config.gan.z,
            seed_of(self.config, "samples"),
        )
        path = r.directory / "samples" / f"step-{step:07d}.npz"
        arrays = {
            "y": fake[:, 0].cpu().numpy().astype(np.float16),
            "label": self.labels[self.saved_rows],
        }
        if self.seen:
            o, features = self.seen
            arrays["confusion"] = metrics.confusion(self.labels, o.argmax(axis=1), o.shape[1])
            for name, f, labels in (
                ("", features, self.labels),
                ("_real", self.real, self.real_labels),
            ):
                shown = np.concatenate(
                    [
                        np.nonzero(labels == k)[0][:FEATURE_POINTS_PER_CLASS]
                        for k in np.unique(labels)
                    ]
                )
                arrays |= {
                    f"at{name}": ((f[shown] - self.centre) @ self.axes).astype(np.float32),
                    f"of{name}": labels[shown],
                }
            arrays["share"] = self.share
        files.write_arrays(path, **arrays)


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
    """The final figures, S4's only use: augmentation rows, confusion matrices, IS, FID and KID with their reference lines."""
    K, seed = len(config.data.classes), seed_of(config, "samples")
    S1, S4 = sets["S1"], sets["S4"]
    faces4 = splits.balanced_rows(S4.x_label, seed_of(config, "balance"))
    voices4 = splits.balanced_rows(S4.y_label, seed_of(config, "balance"))
    y4, l4 = image_tensor(S4.y[voices4], device), S4.y_label[voices4]
    o_S = classifiers.softmax(fitted.f_S, image_tensor(S4.x[faces4], device))
    face = metrics.confusion(S4.x_label[faces4], o_S.argmax(axis=1), K)

    fake4 = gan.sample(
        G,
        image_tensor(S4.x[faces4], device),
        torch.from_numpy(c["S4"][faces4]).to(device),
        config.gan.z,
        seed,
    )
    o_real, real = classifiers.outputs(fitted.scorer, y4)
    o_fake, features = classifiers.outputs(fitted.scorer, fake4)
    n = min(len(real), len(features))
    rng = np.random.default_rng(seed)
    a, b = rng.permutation(len(real))[:n], rng.permutation(len(features))[:n]
    floor = np.concatenate([S1.y_label, sets["S2"].y_label])
    other = rng.permutation(splits.balanced_rows(floor))[:n]
    real_other = classifiers.outputs(
        fitted.scorer, image_tensor(np.concatenate([S1.y, sets["S2"].y])[other], device)
    )[1]
    m = min(n, len(other))
    kid, kid_sd = metrics.kid(real[a], features[b])
    density, coverage = metrics.density_coverage(real[a], features[b])
    x4, c4 = (
        image_tensor(S4.x[faces4[::4]], device),
        torch.from_numpy(c["S4"][faces4[::4]]).to(device),
    )
    quality = {
        "FID": metrics.fid(real[a], features[b]),
        "FID real": metrics.fid(real[a][:m], real_other[:m]),
        "KID": kid,
        "KID sd": kid_sd,
        "KID real": metrics.kid(real[a], real_other)[0],
        "IS": metrics.inception_score(o_fake),
        "IS real": metrics.inception_score(o_real),
        "recognised": float((o_fake.argmax(axis=1) == S4.x_label[faces4]).mean()),
        "recognised real": float((o_real.argmax(axis=1) == l4).mean()),
        "density": density,
        "coverage": coverage,
        "coverage real": metrics.density_coverage(real[a][:m], real_other[:m])[1],
        "diversity": diversity(G, x4, c4, config.gan.z, seed, S4.y[voices4]),
        "N": n,
        "features": int(real.shape[1]),
        "scorer": fitted.digest,
    }

    settings, made = target_settings(config)
    rows, tables, notes = augmentation_sets(config, sets, c, fitted, G, device), {}, []
    for row in config.evaluate.rows:
        if row not in rows:
            notes.append(f"{row}: not defined for voices paired with faces by emotion")
            continue
        y, labels = rows[row]
        tick = lambda s, loss, row=row: watch(f"score {row}", s, settings.steps, "")  # noqa: E731
        network = classifiers.fit(y, labels, settings, K, seed_of(config, "rows"), made, tick)
        o = classifiers.softmax(network, y4)
        tables[row] = {
            "confusion": metrics.confusion(l4, o.argmax(axis=1), K).tolist(),
            "N train": len(labels),
        }
        tables[row]["accuracy"] = metrics.accuracy(np.array(tables[row]["confusion"]))
    files.write_arrays(
        r.directory / "generated.npz",
        y=fake4[:, 0].cpu().numpy().astype(np.float16),
        label=S4.x_label[faces4],
        row=faces4,
        o=o_fake.astype(np.float32),
        c=c["S4"][faces4],
    )
    alone = {"accuracy": metrics.accuracy(face), "confusion": face.tolist()}
    results = {"N test voices": len(l4), "N test faces": len(faces4), "face": alone}
    if made == "face":  # every name says what it is of, in this direction too
        o_T = classifiers.softmax(fitted.f_T, y4).argmax(axis=1)
        heard = metrics.confusion(l4, o_T, K)
        results = {
            "direction": config.gan.direction,
            "N test voices": len(faces4),
            "N test faces": len(l4),
            "voice": alone,
        }
        results |= {"face": {"accuracy": metrics.accuracy(heard), "confusion": heard.tolist()}}
    return {
        "classes": list(config.data.classes),
        "chance": 1 / K,
        "labels": protocol.labels_mode(config),
        **results,
        "conformal": _conformal_summary(config, sets, r),
        "quality": quality,
        "augmentation": tables,
        "notes": notes,
        "steps": config.gan.steps,
        "parameters": {"G": sum(p.numel() for p in G.parameters())},
        "subjects": {k: sorted(set(map(str, s.y_subject))) for k, s in sets.items()},
    }


def augmentation_parts(
    config: Config, sets, c: dict, f_S, Q, G, device, draw: int = 0
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What training sets are put together from: name -> voices (n, 1, columns, bands), labels (n,), on the device.

    S1 (its share `clf_fraction`), S3 with true labels, pseudo (S3 with f_S's labels from the same clips' faces, the way without a GAN;
    only where a clip holds face and voice), generated. Generated samples come from S3's faces; a sample's label is the condition's own,
    else argmax c, else what Q names. `draw` draws other faces and noise.
    """
    S1, S3, seed = sets["S1"], sets["S3"], seed_of(config, "samples") + 100 * draw
    own = s1_voice_rows(config, S1)
    y1, l1 = image_tensor(S1.y[own], device), torch.from_numpy(S1.y_label[own]).to(device)
    x3 = image_tensor(S3.x, device)
    most = (
        max(len(S1.y), len(S3.y)) * config.evaluate.per_face
    )  # faces may outnumber voices tenfold; generated ones should not drown S1
    pick = np.random.default_rng(seed).permutation(len(S3.x))[:most]
    c3 = torch.from_numpy(c["S3"][pick]).to(device)
    fakes = [
        gan.sample(G, x3[pick], c3, config.gan.z, seed + k) for k in range(config.evaluate.per_face)
    ]
    if c["S3"].shape[1]:
        given = c["S3"][pick].argmax(axis=1)
    else:
        given = classifiers.softmax(Q, fakes[0]).argmax(
            axis=1
        )  # no condition: Q names what was made
    fake_label = torch.from_numpy(given.astype(np.int64)).to(device).repeat(len(fakes))
    y3 = image_tensor(S3.y, device)
    parts = {
        "S1": (y1, l1),
        "generated": (torch.cat(fakes), fake_label),
        "S3": (y3, torch.from_numpy(S3.y_label).to(device)),
    }
    if S3.paired:
        parts["pseudo"] = (
            y3,
            torch.from_numpy(classifiers.softmax(f_S, x3).argmax(axis=1)).to(device),
        )
    return parts


def s1_voice_rows(config: Config, S1: SampleSet) -> np.ndarray:
    """Rows of S1's voices that the rows of the table may see: all, or the seeded share `clf_fraction` that f_T and Q see too."""
    n = len(S1.y)
    if config.data.clf_fraction >= 1:
        return np.arange(n)
    order = np.random.default_rng(seed_of(config, "balance")).permutation(n)
    return order[: max(len(config.data.classes), round(config.data.clf_fraction * n))]


def augmentation_sets(
    config: Config, sets, c: dict, fitted: FittedClassifiers, G, device
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The training sets of `protocol.TABLE_ROWS` without plain augmentation: row name -> voices (n, 1, columns, bands), labels (n,).

    Every row is trained with the same classifier, steps and balance.
    """
    return join_parts(augmentation_parts(config, sets, c, fitted.f_S, fitted.Q, G, device))


def join_parts(
    parts: dict[str, tuple[torch.Tensor, torch.Tensor]],
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Rows of `protocol.TABLE_ROWS` whose parts are there: row name -> voices, labels. "S1 again" repeats S1 as often as samples are made."""
    y1, l1 = parts["S1"]
    again = torch.arange(len(parts["generated"][0]), device=y1.device) % len(y1)
    parts = parts | {"S1 again": (y1[again], l1[again])}
    there = [row for row in protocol.TABLE_ROWS if set(row.parts) <= set(parts)]
    return {
        row.name: tuple(torch.cat([parts[p][k] for p in row.parts]) for k in (0, 1))
        for row in there
    }  # type: ignore[misc]


def _conformal_summary(config: Config, sets, r: Run) -> dict:
    """How the conformal predictor does on S4: share of true labels left out and mean set size at three levels, credibility, confidence."""
    p, labels = r.arrays()["p_S4"], sets["S4"].x_label
    true = np.take_along_axis(p, labels[:, None], axis=1)[:, 0]
    levels = {
        str(e): {"error": float((true <= e).mean()), "set size": float((p > e).sum(axis=1).mean())}
        for e in (0.05, 0.1, 0.2)
    }
    summary = {"n": len(r.arrays()["calibration"]), "levels": levels}
    return summary | {
        "credibility": float(prediction.credibility(p).mean()),
        "confidence": float(prediction.confidence(p).mean()),
    }
