"""§4.2's second metric: IS, FID and others of a run's samples, each beside that of real ones.

Generated samples are of people whom the scorer has not met, and so are the two real sets of each
floor: S4's and S3's. A finished run is measured again from its saved networks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from core import files
from core.config.settings import Config, replace
from core.data import prepared_corpora, splits
from core.data.splits import SampleSet
from core.evaluation import metrics, results
from core.models import classifiers, gan, networks
from core.runs.directory import Run

NOT_MEASURED = "not measured"  # in notes on figures that so few samples do not define
DIVERSITY_DRAWS = 6  # of the noise for each face
FLOOR_DRAWS = 20  # random balanced draws of S3's voices over which a floor is averaged
# Rounding between machines, in probability of f_S: nearly all faces agree within the first. Where a
# landmark's last bit moves pixels by one level of 256, a face differs by less than the second.
SAME_SOFTMAX_TOLERANCE, PIXEL_TOLERANCE = 1e-3, 1e-2
MAX_PIXEL_SHARE = 0.02  # of the faces may differ by more than the first
SAME_IS_TOLERANCE = 1e-3  # the same for the inception score, as a share of its excess over 1
SEED_OFFSETS = {
    **{"f_S": 1, "f_T": 2, "Q": 3, "scorer": 4, "gan": 5},
    **{"samples": 6, "rows": 7, "pairs": 8, "balance": 9},
}


def seed_of(config: Config, draw: str) -> int:
    """An independent seed for each use of randomness, from the seed of the config."""
    return config.seed * 1000 + SEED_OFFSETS[draw]


def image_tensor(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """(n, H, W) -> (n, 1, H, W) float32 on the device."""
    return torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None].to(device)


def watched(config: Config, watch: Callable[..., None], phase: str, total: int) -> dict[str, Any]:
    """`gan.sample`'s batch and tick, which reports `total` samples as `watch(phase, done, total)`.

    A flow takes a fraction of a second for each, so its batches are small.
    """
    done = 0
    watch(phase, done, total)

    def tick(made: int) -> None:
        nonlocal done
        done += made
        watch(phase, done, total)

    return {"batch": 16 if config.gan.generator == "flow" else 1024, "tick": tick}


def diversity(
    G: torch.nn.Module,
    x: torch.Tensor,
    c: torch.Tensor,
    z: int,
    seed: int,
    y: np.ndarray,
    draws: int = DIVERSITY_DRAWS,
    **how,
) -> float:
    """How much the noise changes a sample: its sd over `draws` of z, divided by the sd of real y.

    Both are averaged over all cells. x (n, 1, 28, 28), c (n, K), y (m, columns, bands). Near 0 the
    generator makes one sample per face; FID, IS and the scorer may not show such a collapse. `how`
    is `gan.sample`'s batch and tick. Raises TooFewSamples without a face, or without two real y
    that differ.
    """
    spread = float(y.std(axis=0, ddof=1).mean()) if len(y) > 1 else 0.0
    if not len(x) or not spread > 0:
        raise metrics.TooFewSamples(f"diversity needs two real samples that differ, of {len(y)}")
    fakes = torch.stack([gan.sample(G, x, c, z, seed + k, **how) for k in range(draws)])
    return float(fakes.std(dim=0).mean()) / spread


class Measurements(dict[str, float]):
    """Figures by name, without those that are not defined for so few samples.

    `notes` says which are missing and why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def add(self, names: str, measure: Callable[[], float | tuple[float, ...]]) -> None:
        """Add what `measure` returns: a figure, or several in the order of `names`."""
        try:
            values = measure()
        except metrics.TooFewSamples as e:
            self.notes.append(f"{names} {NOT_MEASURED}: {e}")
            return
        each = values if isinstance(values, tuple) else (values,)
        named = zip(names.split(", "), each, strict=True)
        self.update({k: float(v) for k, v in named if np.isfinite(v)})


def measure_floors(
    out: Measurements, real: np.ndarray, other: np.ndarray, labels: np.ndarray, seed: int
) -> None:
    """Add FID, KID and coverage between two real sets: what a perfect generator would reach.

    Features (n, F) of the set that samples are compared with, and (m, F) of other people whom the
    scorer has not met, with their labels (m,). The mean over FLOOR_DRAWS class-balanced draws of n
    of the m, or of as many as there are ("N real").
    """
    pairs = []
    for draw in range(seed, seed + FLOOR_DRAWS):
        rows = balanced_draw(labels, len(real), draw)
        pairs.append((np.random.default_rng(draw).permutation(real)[: len(rows)], other[rows]))
    out["N real"] = len(pairs[0][0])
    out.add("FID real", lambda: float(np.mean([metrics.fid(*p) for p in pairs])))
    out.add("KID real", lambda: float(np.mean([metrics.kid(*p)[0] for p in pairs])))
    share = lambda: float(np.mean([metrics.density_coverage(*p)[1] for p in pairs]))  # noqa: E731
    out.add("coverage real", share)


def balanced_draw(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """At most n rows, as equally many of each class that occurs as n allows."""
    rows = splits.balanced_rows(labels, seed)
    order = np.random.default_rng(seed).permutation(rows)
    place = np.empty(len(order), np.int64)  # of each row among those of its class
    for k in np.unique(labels):
        of_class = labels[order] == k
        place[of_class] = np.arange(of_class.sum())
    return order[np.argsort(place, kind="stable")][:n]


def unknown_samples(config: Config, sets: dict[str, SampleSet]) -> SampleSet:
    """S3 with all of its real samples, whatever share of them trains G (`data.g_fraction`).

    The scorer is trained on S1 and S2, so S3 and S4 hold the people whom it has not met.
    """
    if config.data.g_fraction >= 1:
        return sets["S3"]
    return splits.build_sets(replace(config, data={"g_fraction": 1.0}))["S3"]


def measure_quality(
    config: Config,
    sets: dict[str, SampleSet],
    scorer: networks.Classifier,
    c4: np.ndarray,
    G: torch.nn.Module,
    device,
    watch: Callable[..., None] = lambda *a: None,
) -> tuple[torch.Tensor, tuple[np.ndarray, np.ndarray], dict, list[str]]:
    """Samples of S4's faces (conditions c4) and their figures against S4's real samples.

    Returns the samples; the scorer's softmax and features of them; the figures, FID, KID, density
    and coverage at equal N, IS and the share recognised of all samples, each with its reference;
    and notes on those that so few samples do not define. The references FID, KID and coverage
    compare S4's real samples with S3's, whom the scorer has not met either.
    """
    S4, seed = sets["S4"], seed_of(config, "samples")
    faces = splits.balanced_rows(S4.x_label, seed_of(config, "balance"))
    voices = splits.balanced_rows(S4.y_label, seed_of(config, "balance"))
    x, c = image_tensor(S4.x[faces], device), torch.from_numpy(c4[faces]).to(device)
    few = slice(None, None, 4)  # of the faces, for the diversity
    how = watched(config, watch, "sample S4", len(x) + DIVERSITY_DRAWS * len(x[few]))
    fake = gan.sample(G, x, c, config.gan.z, seed, **how)
    o, features = scores = classifiers.outputs(scorer, fake)
    o_real, real = classifiers.outputs(scorer, image_tensor(S4.y[voices], device))
    S3 = unknown_samples(config, sets)
    other = classifiers.outputs(scorer, image_tensor(S3.y, device))[1]

    # random subsets of equal N: S4's real samples, generated ones
    n, rng = min(len(real), len(features)), np.random.default_rng(seed)
    a, b = rng.permutation(len(real))[:n], rng.permutation(len(features))[:n]

    # figures of the samples and of real voices
    right, right_real = (
        p.argmax(axis=1) == t for p, t in ((o, S4.x_label[faces]), (o_real, S4.y_label[voices]))
    )
    out = Measurements()
    out.add("FID", lambda: metrics.fid(real[a], features[b]))
    out.add("KID, KID sd", lambda: metrics.kid(real[a], features[b]))
    out.add("density, coverage", lambda: metrics.density_coverage(real[a], features[b]))
    measure_floors(out, real[a], other, S3.y_label, seed)
    out.add("IS", lambda: metrics.inception_score(o))
    out.add("IS real", lambda: metrics.inception_score(o_real))
    out.add("recognised, recognised real", lambda: (right.mean(), right_real.mean()))
    out.add(
        "diversity", lambda: diversity(G, x[few], c[few], config.gan.z, seed, S4.y[voices], **how)
    )
    figures = dict(out) | {"N": n, "features": int(real.shape[1])}
    return fake, scores, figures, out.notes


# ------------------------------------------------------------------ a finished run, measured again


def scorer_digest(scorer: networks.Classifier) -> str:
    """Digest of a scorer's weights; figures of different digests never share an axis."""
    values = scorer.state_dict().values()
    return files.digest(b"".join(v.detach().cpu().numpy().tobytes() for v in values))[:12]


def measure_again(
    run: Run, device: torch.device, watch: Callable[..., None] = lambda *a: None
) -> dict:
    """results.json's content of a finished run, its quality measured under the present rules.

    Only the saved G and scorer are used. Nothing is trained, so the accuracies of the rows, whose
    rules have not changed, stay. Raises UserError if the corpus or the scorer is another one.
    """
    config, earlier = run.config, run.json("results")
    sets, c = load_sets(run, config)
    scorer, G = (networks.load(run.model_path(name), device) for name in ("scorer", "G"))
    assert isinstance(scorer, networks.Classifier)
    if (digest := scorer_digest(scorer)) != earlier["quality"].get("scorer", digest):
        raise files.UserError(
            f"{run.model_path('scorer')} is not the scorer of {run.id}'s results; "
            "copy the run's folder again"
        )
    *_, quality, notes = measure_quality(config, sets, scorer, c["S4"], G, device, watch)
    kept = [n for n in earlier.get("notes", []) if NOT_MEASURED not in n]
    return earlier | {
        "evaluation": results.EVALUATION_VERSION,
        "quality": quality | {"scorer": digest},
        "notes": notes + kept,
    }


def load_sets(
    run: Run, config: Config
) -> tuple[dict[str, splits.SampleSet], dict[str, np.ndarray]]:
    """A run's sets, and the conditions of S3's and S4's faces from the scores that it stored.

    Raises UserError for a run without a generator, or a corpus that has changed since.
    """
    if not run.model_path("G").exists():
        command = f"python -m core train --config-file {files.shown(run.directory / 'config.json')}"
        raise files.UserError(f"{run.id} has no generator yet; let its training finish: {command}")
    sets, out = splits.build_sets(config), run.arrays()
    digest, current = (
        run.json("provenance").get("corpus"),
        prepared_corpora.corpus_digest(config.data),
    )
    if digest != current and not has_same_sets(run, config, sets, out):
        raise files.UserError(
            f"{run.id} was trained on the corpus {digest} and {current} is prepared here; "
            "prepare that corpus again"
        )
    g, K, c = config.gan, len(config.data.classes), {}
    for k in ("S3", "S4"):
        x, labels = sets[k].x, sets[k].x_label if g.condition == "label" else None
        if len(out.get(f"o_{k}", ())) != len(x):
            path = run.directory / "outputs.npz"
            raise files.UserError(
                f"{files.shown(path)} does not fit {k}'s {len(x)} faces; train the run again"
            )
        c[k] = gan.condition(g.condition, labels, out[f"o_{k}"], out[f"p_{k}"], K, g.soft)
    return sets, c


def has_same_sets(
    run: Run, config: Config, sets: dict[str, splits.SampleSet], out: dict[str, np.ndarray]
) -> bool:
    """Whether the sets equal a run's, though the corpus digest differs by rounding.

    A corpus prepared on another machine differs in the last bits. The same: number of clips, dB
    reference, subjects in the same order, and the scores of the run's own networks, which are f_S
    on S3's faces and the scorer's inception score of S4's voices, within tolerance.
    """
    earlier = run.json("results")
    people = {k: sorted(set(map(str, s.y_subject))) for k, s in sets.items()}
    if people != earlier.get("subjects", people):
        return False
    now, then = prepared_corpora.describe_corpora(config.data), run.json("corpus")
    if not all(
        prepared_corpora.is_same_corpus(now[role], then[role]) for role in ("faces", "voices")
    ):
        return False
    if not all(np.array_equal(sets[k].x_subject, out[f"subject_{k}"]) for k in ("S2", "S3", "S4")):
        return False

    def scores(name: str, images: np.ndarray) -> np.ndarray:
        network = networks.load(run.model_path(name))
        assert isinstance(network, networks.AnyClassifier)
        return classifiers.softmax(network, image_tensor(images, torch.device("cpu")))

    rows = splits.balanced_rows(sets["S4"].y_label, seed_of(config, "balance"))
    score = metrics.inception_score(scores("scorer", sets["S4"].y[rows]))
    known = results.quality(earlier, "IS real")  # NaN if S4 was too small for it
    gap = np.abs(scores("f_S", sets["S3"].x) - out["o_S3"]).max(axis=1)
    return bool(
        gap.max() < PIXEL_TOLERANCE
        and (gap >= SAME_SOFTMAX_TOLERANCE).mean() <= MAX_PIXEL_SHARE
        and not abs(score - known) >= SAME_IS_TOLERANCE * (known - 1)
    )
