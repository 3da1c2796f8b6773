"""Conditions c of a trained G set by hand: presets, guidance, interpolation, support (§3, §3.2).

NumPy arrays in and out; torch is loaded by the first generation, so that a page opens without it.
Shapes: faces x (n, 28, 28) uint8, conditions c (n, K), spectrograms y (n, columns, bands) in
[-1, 1]. An example with a shipped run and a face of the demo corpus:

    >>> from core import files
    >>> from core.data.demo import actors, expressions
    >>> from core.inference import generation
    >>> from core.media.faces import alignment
    >>> from core.runs.directory import Run
    >>> opened = generation.load_run(Run(files.ROOT / "checkpoints" / "demo-cp-87b4dc5a"))
    >>> picture, points = expressions.render_face(actors.list_takes(1)[0])
    >>> face = alignment.align(picture, points)
    >>> explanation = generation.explain_face(opened, face)
    >>> c = by_name(opened, explanation, "told")
    >>> happy = by_name(opened, explanation, "happy")
    >>> np.allclose(c, explanation.p), happy
    (True, array([0., 1., 0., 0., 0., 0.]))
    >>> way = interpolate(c, happy, 3)
    >>> guided_samples(opened, face[None], way, np.zeros(6), strength=1.5).y.shape
    (3, 112, 28)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core import files
from core.files import UserError
from core.media import spectrograms, waveforms

if TYPE_CHECKING:
    from core.config.settings import Config
    from core.inference.generation import Explanation, LoadedRun

NAMED_CONDITIONS = ("told", "softmax", "p", "uniform", "none")  # names beside the emotions
NOISY_LABELS_PER_EMOTION = 300  # drawn labels of each emotion, for the label condition's support


@dataclass(frozen=True)
class GuidedSamples:
    """Samples of G along a way, and their verdicts. Row i of each array is one point."""

    x: np.ndarray  # (n, 28, 28) uint8 the face
    c: np.ndarray  # (n, K) condition of G
    strength: np.ndarray  # (n,) of the guidance; 1 is G as it was trained
    y: np.ndarray  # (n, columns, bands) in [-1, 1]
    base: np.ndarray  # (n, columns, bands) y(c0): same face and noise, neutral condition
    Q: np.ndarray  # (n, K) Q's softmax
    scorer: np.ndarray  # (n, K) the scorer's softmax


@dataclass(frozen=True)
class TrainingConditions:
    """The conditions that G was trained with."""

    rows: np.ndarray  # (m, K)
    mean: np.ndarray  # (K,)
    low: np.ndarray  # (K,) smallest value of each emotion
    high: np.ndarray  # (K,) largest value
    total: tuple[float, float]  # smallest and largest sum
    spacing: np.ndarray  # (m,) sorted distances of each row from its nearest neighbour


@dataclass(frozen=True)
class TrainingSupport:
    """Comparison of a condition with those of the training."""

    distance: float  # to the nearest of them
    typical_distance: float  # 95 % quantile of their own nearest-neighbour distances
    most: float  # largest of their nearest-neighbour distances
    emotions_beyond: tuple[int, ...]  # emotions whose value is outside of [low, high]
    total: float  # sum of c
    is_total_beyond: bool  # the sum is outside of the training's sums

    @property
    def place(self) -> str:
        """`inside`, at the `edge`, or `outside`."""
        if self.distance <= self.typical_distance:
            return "inside"
        return "edge" if self.distance <= self.most else "outside"


# ------------------------------------------------------------------ conditions


def of_emotion(config: Config, k: int) -> np.ndarray:
    """One emotion alone, (K,): one-hot, softened for a label run as in its training (§3.2).

    >>> from core.config.settings import replace
    >>> from core.config.presets import DEMO
    >>> of_emotion(replace(DEMO, gan={"condition": "label"}), 0)
    array([0.9 , 0.02, 0.02, 0.02, 0.02, 0.02])
    """
    K, soft = len(config.data.classes), config.gan.soft if config.gan.condition == "label" else 0.0
    c = np.full(K, soft / (K - 1))
    c[k] = 1 - soft
    return c


def by_name(opened: LoadedRun, explanation: Explanation, name: str) -> np.ndarray:
    """A condition (K,) by name, for the face that `explanation` is about.

    told: this run's own condition. softmax, p: f_S's softmax, the p-values. uniform: 1/K each.
    none: zeros. Or an emotion. Raises UserError for another name.
    """
    from core.inference import generation

    K, classes = len(opened.classes), opened.classes
    if name in classes:
        return of_emotion(opened.config, classes.index(name))
    if name not in NAMED_CONDITIONS:
        known = ", ".join((*NAMED_CONDITIONS, *classes))
        raise UserError(f"{name!r} is no condition; there are {known}")
    if name == "told":
        return generation.condition_of(opened, explanation)[0].astype(np.float64)
    uniform, none = np.full(K, 1 / K), np.zeros(K)
    values = {"softmax": explanation.softmax, "p": explanation.p}
    return (values | {"uniform": uniform, "none": none})[name]


def rebalance(c: np.ndarray, k: int, value: float, digits: int = 2) -> np.ndarray:
    """c (K,) with c_k = value in [0, 1], the others scaled so that all sum to one.

    Values are multiples of 10^-digits, and the sum is exact. If the others are all zero, they share
    the rest evenly.

    >>> rebalance(np.array([0.2, 0.3, 0.5]), 0, 0.5)
    array([0.5 , 0.19, 0.31])
    """
    unit, others = 10**digits, np.arange(len(c)) != k
    rest = unit - round(np.clip(value, 0, 1) * unit)
    weight = np.clip(c[others], 0, None)
    even = np.full(len(weight), 1 / len(weight))
    exact = rest * (weight / weight.sum() if weight.sum() > 0 else even)
    whole = np.floor(exact + 1e-9)
    # Largest remainder: the values that rounding down costs most are rounded up
    whole[np.argsort(whole - exact, kind="stable")[: round(rest - whole.sum())]] += 1
    out = np.empty(len(c))
    out[others], out[k] = whole, unit - rest
    return out / unit


def of_training(opened: LoadedRun) -> TrainingConditions:
    """The conditions of the run's S3, from its saved outputs.

    For the label condition noisy labels are drawn as in §3.2, equally many of each emotion. Raises
    UserError if the run has no condition, or its outputs.npz lacks them.
    """
    g, K = opened.config.gan, len(opened.classes)
    if g.condition == "none":
        raise UserError(
            f"{opened.run.id} has no condition: its generator is told nothing; choose another run"
        )
    if g.condition == "label":
        one_hot = [of_emotion(opened.config, k) for k in range(K)]
        labels = np.repeat(one_hot, NOISY_LABELS_PER_EMOTION, axis=0)
        noise = np.random.default_rng(0).standard_normal(labels.shape)
        return summarise_rows(labels + g.label_noise * noise)
    name, arrays = {"classifier": "o_S3", "cp": "p_S3"}[g.condition], opened.run.arrays()
    if name not in arrays:
        path = opened.run.directory / "outputs.npz"
        raise UserError(
            f"{files.shown(path)} has no {name}: train the run again, or restore the file"
        )
    return summarise_rows(np.asarray(arrays[name], np.float64))


def summarise_rows(rows: np.ndarray) -> TrainingConditions:
    """`TrainingConditions` of any conditions (m, K), m at least 2."""
    from scipy.spatial import cKDTree

    spacing = np.sort(cKDTree(rows).query(rows, k=2)[0][:, 1])
    total = rows.sum(axis=1)
    low, high = rows.min(axis=0), rows.max(axis=0)
    sums = float(total.min()), float(total.max())
    return TrainingConditions(rows, rows.mean(axis=0), low, high, sums, spacing)


def training_support(
    known: TrainingConditions, c: np.ndarray, slack: float = 0.01
) -> TrainingSupport:
    """Compare c (K,) with the training's conditions, by its Euclidean distance to the nearest.

    The distance is compared with the spacing of the training's conditions. `slack` is the step in
    which c is set by hand.
    """
    distance = float(np.sqrt(((known.rows - c) ** 2).sum(axis=1)).min())
    beyond = np.flatnonzero((c < known.low - slack) | (c > known.high + slack))
    total, (low, high) = float(c.sum()), known.total
    aside = not low - slack * len(c) <= total <= high + slack * len(c)
    usual, most = float(np.quantile(known.spacing, 0.95)) + slack, float(known.spacing[-1]) + slack
    return TrainingSupport(distance, usual, most, tuple(beyond.tolist()), total, aside)


# ------------------------------------------------------------------ generation


def guided_samples(
    opened: LoadedRun,
    x: np.ndarray,
    c: np.ndarray,
    c0: np.ndarray,
    strength: float | np.ndarray | None = None,
    seed: int = 0,
    scale: float = 1.0,
) -> GuidedSamples:
    """G(x|c, z) for many points at once, guided: y = y(c0) + strength (y(c) - y(c0)), clipped.

    x (n, 28, 28), c (n, K), strength (n,), or one of each for all points; without a strength the
    run's `own_strength`. All points share one z, `scale` times the noise of
    `generation.generate_voices` for `seed`: scale 1 and the own strength give its spectrogram. A
    flow has classifier-free guidance instead of this line: its base is told neither face nor
    condition, and c0 has no effect. Raises UserError for a run that makes faces.
    """
    import torch

    from core.inference import generation
    from core.models import networks

    if opened.config.gan.direction != "face-voice":
        raise UserError(
            f"{opened.run.id} makes faces from voices; choose a run that makes voices from faces"
        )
    strength = own_strength(opened.config) if strength is None else strength
    n = max(len(x), len(c), np.size(strength))
    x = np.broadcast_to(x, (n, *x.shape[1:]))
    s = np.broadcast_to(np.asarray(strength, np.float64), n)
    c = np.broadcast_to(np.asarray(c, np.float64), (n, c.shape[1]))
    both = np.concatenate([c, np.broadcast_to(c0, c.shape)]).astype(np.float32)
    z = scale * networks.draw_noise(opened.G, 1, opened.config.gan.z, seed)
    faces = generation.faces_tensor(np.concatenate([x, x]))
    parts = faces, torch.from_numpy(both), z.expand(2 * n, -1)
    with torch.no_grad():
        if has_classifier_free_guidance(opened.config):
            # told nothing, all points have one base: the last row's
            weights = torch.from_numpy(np.append(s, 0).astype(np.float32))
            out = opened.G(*(t[[*range(n), -1]] for t in parts), weights)[:, 0].numpy()
            y, base = out[:n], np.repeat(out[n:], n, axis=0)
        else:
            out = opened.G(*parts)[:, 0].numpy()
            base = out[n:]
            y = apply_guidance(base, out[:n], s)
    heard = generation.classify_samples(opened, y)
    return GuidedSamples(
        np.array(x), np.array(c), np.array(s), y, base, heard["Q"], heard["scorer"]
    )


def has_classifier_free_guidance(config: Config) -> bool:
    """Whether a run's generator was trained with and without its condition: a flow's was."""
    return config.gan.generator == "flow"


def own_strength(config: Config) -> float:
    """The guidance strength that a run samples with: 1 is a GAN as it was trained."""
    return config.gan.guidance if has_classifier_free_guidance(config) else 1.0


def apply_guidance(base: np.ndarray, y: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Linear guidance: base + strength (y - base), clipped to [-1, 1], float32.

    base and y are (n, columns, bands), strength (n,). The form is that of classifier-free guidance,
    whose model is trained with and without c; a GAN's G always had a c.

    >>> apply_guidance(np.zeros((1, 1, 1)), np.full((1, 1, 1), 0.4), np.array([2.0])).item()
    0.800000011920929
    """
    s = np.asarray(strength, np.float32)[:, None, None]
    return np.clip(np.where(s == 1, y, base + s * (y - base)), -1, 1).astype(np.float32)


def interpolate(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """n points on the straight line from a to b, both ends included: (n, *a.shape).

    uint8 stays uint8, rounded. Raises ValueError for n below 2.

    >>> interpolate(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 3)
    array([[0. , 1. ],
           [0.5, 0.5],
           [1. , 0. ]])
    """
    if n < 2:
        raise ValueError(f"an interpolation has two points or more, not {n}")
    t = np.linspace(0, 1, n).reshape(-1, *[1] * np.ndim(a))
    way = (1 - t) * np.asarray(a, np.float64) + t * np.asarray(b, np.float64)
    return np.rint(way).astype(np.uint8) if a.dtype == np.uint8 else way


def of_faces(opened: LoadedRun, x: np.ndarray) -> np.ndarray:
    """This run's conditions (n, K) of faces (n, 28, 28)."""
    from core.inference import generation

    return np.stack([by_name(opened, generation.explain_face(opened, one), "told") for one in x])


def face_share(
    opened: LoadedRun, x: np.ndarray, c: np.ndarray, draws: int = 4, seed: int = 0
) -> float:
    """How much of the variance of G's voices the face decides: what condition and noise leave.

    The variance over the faces x (n, 28, 28) at one c and z, divided by that over all faces,
    conditions c (m, K) and `draws` of z from `seed`; means over all cells. This is Sobol's total
    index of the face. 0 for a generator that makes one voice.
    """
    from core.inference import generation

    y = [[generation.generate_voices(opened, one, row, seed, draws) for row in c] for one in x]
    voices = np.asarray(y, np.float64)  # (n, m, draws, columns, bands)
    whole = voices.reshape(-1, *voices.shape[3:]).var(axis=0).mean()
    return float(voices.var(axis=0).mean() / whole) if whole > 0 else 0.0


def concatenated_wav(
    opened: LoadedRun, y: Sequence[np.ndarray] | np.ndarray, seed: int = 0, pause: float = 0.12
) -> bytes:
    """Spectrograms (n, columns, bands) one after the other as one wav.

    There are `pause` seconds of silence after each; their relative loudness is kept.
    """
    from core.media import vocoder

    s = opened.config.logmel
    waves, gain = vocoder.to_waveform(np.asarray(y), opened.ref_db, s, seed)
    waves = waves * 10 ** ((gain.min() - gain) / 20)[:, None]
    ramp = np.arange(waves.shape[1])
    fade = np.minimum(1, np.minimum(ramp, ramp[::-1]) / (0.005 * s.rate))  # 5 ms at both ends
    way = vocoder.inversion_name(s)
    comment = waveforms.wav_comment(spectrograms.GENERATED_COMMENT, s, opened.run.id, seed, way)
    silence = np.zeros((len(waves), round(pause * s.rate)), np.float32)
    whole = np.concatenate([waves * fade, silence], axis=1).ravel()
    return waveforms.wav_bytes(whole, s.rate, comment)
