"""§3 and §3.2: a trained G steered by hand. Any condition c, noise of any size, guidance, ways between two, and which c training has shown.

NumPy arrays in and out. torch is loaded when something is first drawn, so that a page may import this module at once.
Shapes: faces x are (n, 28, 28) uint8, conditions c are (n, K), spectrograms y are (n, columns, bands) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.media import spectrograms, waveforms

if TYPE_CHECKING:
    from core.config import Config
    from core.inference.generation import Explanation, LoadedRun

NAMED_CONDITIONS = (
    "told",
    "softmax",
    "p",
    "uniform",
    "none",
)  # names that `preset` knows beside the emotions
NOISY_LABELS_PER_EMOTION = (
    300  # conditions of each emotion that stand for the noisy labels of a training
)


@dataclass(frozen=True)
class GuidedSamples:
    """What came out of G, and what two classifiers of real voices hear in it. Row i of each array belongs to one point of the way."""

    x: np.ndarray  # (n, 28, 28) uint8 the face
    c: np.ndarray  # (n, K) what G was told
    strength: np.ndarray  # (n,) of the guidance; 1 is G as it was trained
    y: np.ndarray  # (n, columns, bands) in [-1, 1]
    base: (
        np.ndarray
    )  # (n, columns, bands) y(c0), the same face and noise under the neutral condition
    Q: np.ndarray  # (n, K) Q's softmax
    scorer: np.ndarray  # (n, K) the scorer's softmax


@dataclass(frozen=True)
class TrainingConditions:
    """The conditions that G was trained with."""

    rows: np.ndarray  # (m, K)
    mean: np.ndarray  # (K,)
    low: np.ndarray  # (K,) smallest value of each emotion
    high: np.ndarray  # (K,) largest
    total: tuple[float, float]  # smallest and largest sum
    spacing: np.ndarray  # (m,) sorted distances of each row from its nearest neighbour


@dataclass(frozen=True)
class TrainingSupport:
    """How a condition lies among those of the training."""

    distance: float  # from the nearest of them
    typical_distance: float  # 95 % of them are at most this far from their own nearest neighbour
    most: float  # the loneliest one's distance
    emotions_beyond: tuple[int, ...]  # emotions whose value is outside of [low, high]
    total: float  # the sum of c
    is_total_beyond: bool  # that is outside of the training's sums

    @property
    def place(self) -> str:
        """`inside`, at the `edge`, or `outside`."""
        return (
            "inside"
            if self.distance <= self.typical_distance
            else "edge"
            if self.distance <= self.most
            else "outside"
        )


# ------------------------------------------------------------------ conditions


def of_emotion(config: Config, k: int) -> np.ndarray:
    """One emotion alone, (K,): one-hot, softened for a label run exactly as in its training (§3.2)."""
    K, soft = len(config.data.classes), config.gan.soft if config.gan.condition == "label" else 0.0
    c = np.full(K, soft / (K - 1))
    c[k] = 1 - soft
    return c


def by_name(opened: LoadedRun, said: Explanation, name: str) -> np.ndarray:
    """A condition (K,) by name, of the face that `said` explains.

    told: what this run's G is told of it. softmax, p: f_S's softmax, the p-values. uniform: 1/K each. none: zeros. Or an emotion.
    Raises ValueError for another name.
    """
    from core.inference import generation

    K, classes = len(opened.classes), opened.classes
    if name in classes:
        return of_emotion(opened.config, classes.index(name))
    if name not in NAMED_CONDITIONS:
        raise ValueError(
            f"{name!r} is no condition; there are {', '.join((*NAMED_CONDITIONS, *classes))}"
        )
    if name == "told":
        return generation.condition_of(opened, said)[0].astype(np.float64)
    return {
        "softmax": said.softmax,
        "p": said.p,
        "uniform": np.full(K, 1 / K),
        "none": np.zeros(K),
    }[name]


def rebalance(c: np.ndarray, k: int, value: float, digits: int = 2) -> np.ndarray:
    """c (K,) with c_k = value in [0, 1] and the others scaled so that all sum to exactly one, in steps of 10^-digits.

    Where the others are all zero, they share the rest evenly.
    """
    unit, others = 10**digits, np.arange(len(c)) != k
    rest = unit - round(np.clip(value, 0, 1) * unit)
    weight = np.clip(c[others], 0, None)
    exact = rest * (
        weight / weight.sum() if weight.sum() > 0 else np.full(len(weight), 1 / len(weight))
    )
    whole = np.floor(exact + 1e-9)
    whole[np.argsort(whole - exact, kind="stable")[: round(rest - whole.sum())]] += (
        1  # those that rounding down cost most
    )
    out = np.empty(len(c))
    out[others], out[k] = whole, unit - rest
    return out / unit


def of_training(opened: LoadedRun) -> TrainingConditions:
    """The conditions of the run's S3, from its saved outputs; for the label condition noisy labels as §3.2 makes them, as many of each.

    Raises ValueError where the run has no condition, or its file of outputs is not whole.
    """
    g, K = opened.config.gan, len(opened.classes)
    if g.condition == "none":
        raise ValueError(f"{opened.run.id} has no condition: its generator is told nothing")
    if g.condition == "label":
        labels = np.repeat(
            [of_emotion(opened.config, k) for k in range(K)], NOISY_LABELS_PER_EMOTION, axis=0
        )
        rows = labels + g.label_noise * np.random.default_rng(0).standard_normal(labels.shape)
    else:
        name, arrays = {"classifier": "o_S3", "cp": "p_S3"}[g.condition], opened.run.arrays()
        if name not in arrays:
            raise ValueError(
                f"{opened.run.directory / 'outputs.npz'} has no {name}: train the run again, or restore the file"
            )
        rows = np.asarray(arrays[name], np.float64)
    return summarise_rows(rows)


def summarise_rows(rows: np.ndarray) -> TrainingConditions:
    """The same for any conditions (m, K), m at least 2."""
    from scipy.spatial import cKDTree

    spacing = np.sort(cKDTree(rows).query(rows, k=2)[0][:, 1])
    total = rows.sum(axis=1)
    return TrainingConditions(
        rows,
        rows.mean(axis=0),
        rows.min(axis=0),
        rows.max(axis=0),
        (float(total.min()), float(total.max())),
        spacing,
    )


def training_support(
    known: TrainingConditions, c: np.ndarray, slack: float = 0.01
) -> TrainingSupport:
    """Has training shown such a c (K,)? Its distance (Euclidean) from the nearest condition, held against how far those lie apart.

    `slack` is the step in which c is set by hand.
    """
    distance = float(np.sqrt(((known.rows - c) ** 2).sum(axis=1)).min())
    beyond = np.flatnonzero((c < known.low - slack) | (c > known.high + slack))
    total, (low, high) = float(c.sum()), known.total
    aside = not low - slack * len(c) <= total <= high + slack * len(c)
    usual, most = float(np.quantile(known.spacing, 0.95)) + slack, float(known.spacing[-1]) + slack
    return TrainingSupport(distance, usual, most, tuple(beyond.tolist()), total, aside)


# ------------------------------------------------------------------ drawing


def guided_samples(
    opened: LoadedRun,
    x: np.ndarray,
    c: np.ndarray,
    c0: np.ndarray,
    strength: float | np.ndarray = 1.0,
    seed: int = 0,
    scale: float = 1.0,
) -> GuidedSamples:
    """G(x|c, z) for a whole way at once, guided: y = y(c0) + strength (y(c) - y(c0)), clipped to [-1, 1].

    x (n, 28, 28), c (n, K), strength (n,) or each of them once for all. One z serves all points: `scale` times the noise that
    `studio.generate` draws from `seed`, so that strength 1 and scale 1 give its spectrogram. Raises ValueError for a run that makes faces.
    """
    import torch

    from core.inference import generation

    if opened.config.gan.direction != "face-voice":
        raise ValueError(
            f"{opened.run.id} makes faces from voices; here a run is needed that makes voices from faces"
        )
    n = max(len(x), len(c), np.size(strength))
    x, s = (
        np.broadcast_to(x, (n, *x.shape[1:])),
        np.broadcast_to(np.asarray(strength, np.float64), n),
    )
    c = np.broadcast_to(np.asarray(c, np.float64), (n, c.shape[1]))
    both = np.concatenate([c, np.broadcast_to(c0, c.shape)]).astype(np.float32)
    z = scale * torch.randn((1, opened.config.gan.z), generator=torch.Generator().manual_seed(seed))
    faces = torch.from_numpy(x.astype(np.float32) / 127.5 - 1)[:, None]
    with torch.no_grad():
        out = opened.G(torch.cat([faces, faces]), torch.from_numpy(both), z.expand(2 * n, -1))[
            :, 0
        ].numpy()
    y = apply_guidance(out[n:], out[:n], s)
    heard = generation.classify_samples(opened, y)
    return GuidedSamples(
        np.array(x), np.array(c), np.array(s), y, out[n:], heard["Q"], heard["scorer"]
    )


def apply_guidance(base: np.ndarray, y: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Linear guidance of outputs: base + strength (y - base), clipped to [-1, 1]; (n, columns, bands) twice, (n,) -> float32.

    It borrows its form from classifier-free guidance, which does this to a model trained with and without c; here G always had one.
    """
    s = np.asarray(strength, np.float32)[:, None, None]
    return np.clip(np.where(s == 1, y, base + s * (y - base)), -1, 1).astype(np.float32)


def interpolate(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """n points on the straight line from a to b, both ends among them: shape (n, *a.shape); bytes stay bytes. n is at least 2."""
    if n < 2:
        raise ValueError(f"a way has two ends or more points; {n} were asked for")
    t = np.linspace(0, 1, n).reshape(-1, *[1] * np.ndim(a))
    way = (1 - t) * np.asarray(a, np.float64) + t * np.asarray(b, np.float64)
    return np.rint(way).astype(np.uint8) if a.dtype == np.uint8 else way


def of_faces(opened: LoadedRun, x: np.ndarray) -> np.ndarray:
    """What this run's G is told of each of the faces (n, 28, 28): (n, K)."""
    from core.inference import generation

    return np.stack([by_name(opened, generation.explain_face(opened, one), "told") for one in x])


def concatenated_wav(
    opened: LoadedRun, y: Sequence[np.ndarray] | np.ndarray, seed: int = 0, pause: float = 0.12
) -> bytes:
    """Spectrograms (n, columns, bands) one after the other as one wav, `pause` seconds between them, their loudness to one another kept."""
    from core.media import vocoder

    s = opened.config.logmel
    waves, gain = vocoder.to_waveform(np.asarray(y), opened.ref_db, s, seed)
    waves = waves * 10 ** ((gain.min() - gain) / 20)[:, None]
    fade = np.minimum(
        1, np.minimum(np.arange(waves.shape[1]), np.arange(waves.shape[1])[::-1]) / (0.005 * s.rate)
    )
    words = waveforms.wav_comment(
        spectrograms.GENERATED_COMMENT, s, opened.run.id, seed, vocoder.inversion_name(s)
    )
    silence = np.zeros((len(waves), round(pause * s.rate)), np.float32)
    return waveforms.wav_bytes(
        np.concatenate([waves * fade, silence], axis=1).ravel(), s.rate, words
    )
