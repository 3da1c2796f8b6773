"""§4.2: Eqs (10) and (11), KID, density and coverage, confusion matrices.

Functions of NumPy arrays in float64; no network, no file. IS, FID and KID compare only within one
scoring network, so ours never compare with the paper's: other scorer, N and classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MIN_FEATURES = 2  # samples of a set from which a covariance, or a kernel's mean, exists


class TooFewSamples(ValueError):
    """A measure is not defined for so few samples; the message says how many it needs."""


def inception_score(p: np.ndarray) -> float:
    """Eq. (10): exp(E_x KL(p(y|x) || p(y))), without splits, in [1, K].

    p (N, K) is the scorer's softmax; its rows sum to one. Raises TooFewSamples for N = 0 and
    ValueError for another shape.

    >>> round(inception_score(np.eye(3)), 6)  # certain of each sample, and all classes occur
    3.0
    >>> inception_score(np.full((4, 2), 0.5))
    1.0
    """
    p = np.asarray(p, np.float64)
    if p.ndim != 2 or not np.allclose(p.sum(axis=1), 1, atol=1e-4):
        raise ValueError("p must be (N, K) with rows that sum to one")
    if not len(p):
        raise TooFewSamples("the inception score needs a sample")
    marginal = p.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(p > 0, p * (np.log(p) - np.log(marginal)), 0.0).sum(axis=1)
    return float(np.exp(kl.mean()))


def fid(real: np.ndarray, generated: np.ndarray) -> float:
    """Eq. (11): ||mu_R - mu_G||^2 + Tr(S_R + S_G - 2 (S_R S_G)^(1/2)), >= 0.

    Features (N, F) and (M, F). Repair: the paper prints the mean term without its square. The trace
    of the root is the sum of the square roots of the eigenvalues of S_R^(1/2) S_G S_R^(1/2), which
    is symmetric: no matrix square root, no imaginary parts. Biased upwards at small N: compare at
    equal N. Raises TooFewSamples for N or M < 2, ValueError for other shapes, NaN or infinity.

    >>> real = np.random.default_rng(0).normal(size=(50, 2))
    >>> round(fid(real, real), 6)
    0.0
    >>> round(fid(real, real + [3, 4]), 6)  # shifted by 5: the squared distance of the means
    25.0
    """
    real, generated = _check_features(real, generated)
    mean = real.mean(axis=0) - generated.mean(axis=0)
    s_r, s_g = (np.atleast_2d(np.cov(f, rowvar=False)) for f in (real, generated))
    values, vectors = np.linalg.eigh(s_r)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s_g @ root), 0)).sum()
    return float(max(0.0, mean @ mean + np.trace(s_r) + np.trace(s_g) - 2 * cross))


KID_SUBSET_SIZE = 100  # most samples of each side in one estimate of KID


def kid(
    real: np.ndarray, generated: np.ndarray, seed: int = 0, subsets: int = 100
) -> tuple[float, float]:
    """Kernel inception distance (Bińkowski et al. 2018): mean and sd over random subsets.

    Features (N, F) and (M, F). Each of the `subsets` estimates the unbiased MMD^2 of
    min(N, M, 100) samples with the kernel (a.b / F + 1)^3. Unbiased at any N, so KID is preferred
    to FID where N < 10 F. The sd is NaN where all subsets are the same, as N = M <= 100. Raises
    TooFewSamples for N or M < 2, ValueError for other shapes, NaN or infinity.

    >>> one, other = np.random.default_rng(0).normal(size=(2, 50, 4))
    >>> round(kid(one, other)[0], 1), round(kid(one, other + 2)[0], 1)
    (-0.2, 124.3)
    """
    real, generated = _check_features(real, generated)
    rng = np.random.default_rng(seed)
    n = min(len(real), len(generated), KID_SUBSET_SIZE)

    is_subset = n < max(len(real), len(generated))

    def kernel(a, b):
        k = a @ b.T / a.shape[1] + 1
        return k * k * k  # ten times as fast as a power

    values = []
    for _ in range(subsets if is_subset else 1):  # all samples give one and the same estimate
        a, b = (f[rng.choice(len(f), n, replace=False)] for f in (real, generated))
        aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
        within = (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (n * (n - 1))
        values.append(within - 2 * ab.mean())
    return float(np.mean(values)), float(np.std(values)) if is_subset else np.nan


NEIGHBOURS = 5  # the ball around a real sample reaches its NEIGHBOURS-th nearest real neighbour


def density_coverage(
    real: np.ndarray, generated: np.ndarray, k: int = NEIGHBOURS
) -> tuple[float, float]:
    """Density (>= 0; 1 for equal distributions) and coverage in [0, 1] (Naeem et al. 2020).

    Features (N, F), N > k, and (M, F). The ball around a real sample reaches its k-th nearest real
    neighbour. Density: in how many balls a generated sample lies, divided by k. Coverage: the share
    of balls that hold a generated sample, near 0 for a generator that makes one picture.
    Raises TooFewSamples for N <= k or M < 2, ValueError for other shapes, NaN or infinity.

    >>> real = np.arange(6.0)[:, None]
    >>> density_coverage(real, real[:2], k=1)  # two of six, each in its own and a neighbour's ball
    (2.5, 0.5)
    """
    real, generated = _check_features(real, generated)
    if len(real) <= k:
        raise TooFewSamples(
            f"density and coverage need more than k = {k} real samples, not {len(real)}"
        )
    radius = np.sort(_distances(real, real), axis=1)[:, k]  # column 0 is the sample itself
    inside = _distances(real, generated) <= radius[:, None]
    return float(inside.sum(axis=0).mean() / k), float(inside.any(axis=1).mean())


def membership(generated: np.ndarray, members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """What generated samples (M, F) betray of the samples (N, F) that their generator learnt from.

    "attack": how often a member lies closer to a generated sample than one of `others` (L, F), who
    trained nothing, the AUC of guessing membership by that distance; 0.5 is chance, 1 that all
    members are found. "nearest": the median distance of a generated sample to its nearest member,
    over that of the others; near 0 for copies, about 1 for samples like new ones. Raises
    TooFewSamples and ValueError as `density_coverage`.

    >>> members, others = np.array([[0.0], [1.0]]), np.array([[4.0], [6.0]])
    >>> membership(members, members, others)
    {'attack': 1.0, 'nearest': 0.0}
    """
    generated, members = _check_features(generated, members)
    generated, others = _check_features(generated, others)
    of_members, of_others = (_distances(a, generated).min(axis=1) for a in (members, others))
    gap = of_others[None] - of_members[:, None]
    typical = float(np.median(_distances(others, members).min(axis=1)))
    found = {"attack": float(((gap > 0) + 0.5 * (gap == 0)).mean())}
    if typical > 0:
        found["nearest"] = float(np.median(_distances(generated, members).min(axis=1))) / typical
    return found


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(np.maximum(square, 0))


def _check_features(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets of features as float64, or ValueError; TooFewSamples for fewer than two."""
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    flat = real.ndim == generated.ndim == 2 and real.shape[1] == generated.shape[1]
    shapes = f"{real.shape} and {generated.shape}"
    if not flat:
        raise ValueError(f"features must be (N, F) and (M, F), not {shapes}")
    if min(len(real), len(generated)) < MIN_FEATURES:
        raise TooFewSamples(f"features must be of {MIN_FEATURES} samples or more, not {shapes}")
    if not (np.isfinite(real).all() and np.isfinite(generated).all()):
        raise ValueError("features hold NaN or infinity")
    return real, generated


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Fig. 8: counts (K, K) int64; rows are true classes, columns predictions. (N,), (N,).

    >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    flat = np.asarray(labels, np.int64) * classes + np.asarray(predictions, np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def accuracy(matrix: np.ndarray) -> float:
    """Share on the diagonal of the confusion matrix of a class-balanced set, in [0, 1].

    >>> accuracy(np.array([[3, 1], [0, 4]]))
    0.875
    """
    return float(np.trace(matrix) / max(1, matrix.sum()))


def normalise_rows(matrix: np.ndarray) -> np.ndarray:
    """Counts (K, K) as shares of each true class: rows sum to 1, or to 0 for an empty class.

    Sets of any size then share one scale. The difference of two such matrices lies in [-1, 1].
    """
    matrix = np.asarray(matrix, np.float64)
    return matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))


def principal_axes(real: np.ndarray, n: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first n principal axes of real features (N, F): centre (F,), axes (F, n), shares (n,).

    `(features - centre) @ axes` projects any features, so that all checkpoints share their axes.
    The shares are of the variance. The largest component of each axis is positive.
    Raises TooFewSamples for fewer than two samples, ValueError for fewer features than axes.
    """
    real = np.asarray(real, np.float64)
    if real.ndim == 2 and len(real) < MIN_FEATURES:
        raise TooFewSamples(f"principal axes need two samples, not {len(real)}")
    if real.ndim != 2 or real.shape[1] < n:
        raise ValueError(f"{n} principal axes need {n} features or more, not {real.shape}")
    centre = real.mean(axis=0)
    _, size, axes = np.linalg.svd(real - centre, full_matrices=True)
    axes = axes[:n]
    signs = np.sign(axes[np.arange(n), np.abs(axes).argmax(axis=1)])
    share = np.zeros(n)
    share[: min(n, len(size))] = (size**2 / max((size**2).sum(), 1e-300))[:n]
    return centre, (axes * signs[:, None]).T, share


def rater_confusion(emotion: np.ndarray, votes: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Fig. 8's reference: how human raters confuse the emotions, as counts (K, K) float64.

    Intended emotion (N,) in rows, winning vote of one modality (N,) in columns. A tie such as
    "angry|disgust" counts in equal parts; clips without votes and classes outside `classes` drop
    out. Winning votes make the matrix sharper than single ratings would.
    """
    place, out = {k: i for i, k in enumerate(classes)}, np.zeros((len(classes), len(classes)))
    for meant, vote in zip(map(str, emotion), map(str, votes), strict=True):
        winners = [v for v in vote.split("|") if v in place]
        if meant in place and winners:
            out[place[meant], [place[v] for v in winners]] += 1 / len(winners)
    return out
