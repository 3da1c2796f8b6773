"""§4.2: Eqs (10) and (11), KID, density and coverage, confusion matrices. NumPy functions of arrays in float64; no network, no file.

IS, FID and KID compare only within one scoring network: "other scorer, N, classes: not comparable" with the paper's figures.
"""

from __future__ import annotations

import numpy as np


def inception_score(p: np.ndarray) -> float:
    """Eq. (10): exp(E_x KL(p(y|x) || p(y))), unsplit, in [1, K]. p is (N, K), rows that sum to one, from the scorer."""
    p = np.asarray(p, np.float64)
    if p.ndim != 2 or not np.allclose(p.sum(axis=1), 1, atol=1e-4):
        raise ValueError("p must be (N, K) with rows that sum to one")
    marginal = p.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(p > 0, p * (np.log(p) - np.log(marginal)), 0.0).sum(axis=1)
    return float(np.exp(kl.mean()))


def fid(real: np.ndarray, generated: np.ndarray) -> float:
    """Eq. (11): ||mu_R - mu_G||^2 + Tr(S_R + S_G - 2 (S_R S_G)^(1/2)), >= 0, from features (N, F), (M, F).

    Repair: the paper prints the mean term without its square. The trace of the root is the sum of the square roots of the
    eigenvalues of S_R^(1/2) S_G S_R^(1/2), which is symmetric: no matrix square root, no imaginary parts. Biased upwards at
    small N: compare at equal N, with N beside it.
    """
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    _check_features(real, generated)
    mean = real.mean(axis=0) - generated.mean(axis=0)
    s_r, s_g = (
        np.atleast_2d(np.cov(real, rowvar=False)),
        np.atleast_2d(np.cov(generated, rowvar=False)),
    )
    values, vectors = np.linalg.eigh(s_r)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ s_g @ root)
    return float(
        max(
            0.0,
            mean @ mean + np.trace(s_r) + np.trace(s_g) - 2 * np.sqrt(np.maximum(product, 0)).sum(),
        )
    )


def kid(
    real: np.ndarray, generated: np.ndarray, seed: int = 0, subsets: int = 100
) -> tuple[float, float]:
    """Kernel inception distance (Bińkowski et al. 2018): mean and sd over `subsets` of min(N, 100) of the unbiased MMD^2.

    Kernel (a.b / F + 1)^3. Unbiased at any N, so it leads where N is under ten times F.
    """
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    _check_features(real, generated)
    rng = np.random.default_rng(seed)
    n = min(len(real), len(generated), 100)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    values = []
    for _ in range(subsets):
        a, b = (
            real[rng.choice(len(real), n, replace=False)],
            generated[rng.choice(len(generated), n, replace=False)],
        )
        aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
        within = (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (n * (n - 1))
        values.append(within - 2 * ab.mean())
    return float(np.mean(values)), float(np.std(values))


def density_coverage(real: np.ndarray, generated: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Naeem et al. (2020), from features (N, F), (M, F), N > k: density >= 0 (1 for equal laws), coverage in [0, 1].

    Around every real sample stands a ball up to its k-th real neighbour. Density: in how many balls a generated sample lies, over k.
    Coverage: the share of balls that hold a generated sample, so a generator that makes one picture covers next to nothing.
    """
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    _check_features(real, generated)
    if len(real) <= k:
        raise ValueError(
            f"density and coverage need more than k = {k} real samples, not {len(real)}"
        )
    radius = np.sort(_distances(real, real), axis=1)[:, k]  # column 0 is the sample itself
    inside = _distances(real, generated) <= radius[:, None]
    return float(inside.sum(axis=0).mean() / k), float(inside.any(axis=1).mean())


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(np.maximum(square, 0))


def _check_features(real: np.ndarray, generated: np.ndarray) -> None:
    if (
        real.ndim != 2
        or generated.ndim != 2
        or real.shape[1] != generated.shape[1]
        or min(len(real), len(generated)) < 2
    ):
        raise ValueError(
            f"features must be (N, F) and (M, F) with N, M >= 2, not {real.shape} and {generated.shape}"
        )
    if not (np.isfinite(real).all() and np.isfinite(generated).all()):
        raise ValueError("features hold NaN or infinity")


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Fig. 8: counts, rows are true classes, columns predictions. (N,), (N,) -> (K, K) int64."""
    flat = np.asarray(labels, np.int64) * classes + np.asarray(predictions, np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def accuracy(matrix: np.ndarray) -> float:
    """Share on the diagonal of a confusion matrix of a class-balanced set (evaluation subsamples to balance); in [0, 1]."""
    return float(np.trace(matrix) / max(1, matrix.sum()))


def balanced_accuracy(matrix: np.ndarray) -> float:
    """Mean over the classes that occur of each class's share recognised; equals `accuracy` on a balanced set. In [0, 1]."""
    matrix = np.asarray(matrix, np.float64)
    rows = matrix.sum(axis=1)
    return float((np.diag(matrix)[rows > 0] / rows[rows > 0]).mean())


def normalise_rows(matrix: np.ndarray) -> np.ndarray:
    """Shares of each true class, so that confusion matrices of sets of any size stand on one scale: rows sum to 1, or 0 where empty.

    (K, K) counts -> (K, K) in [0, 1]. The difference of two of them is in [-1, 1] and its rows sum to 0.
    """
    matrix = np.asarray(matrix, np.float64)
    return matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))


# ------------------------------------------------------------------ is a difference more than chance? The unit is the subject.


def principal_axes(real: np.ndarray, n: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The flat view of feature space that holds most of real data's variance: (N, F) -> centre (F,), axes (F, n), share (n,) of it.

    `(features - centre) @ axes` places any features in it, so that every checkpoint is drawn on the same axes. An axis' sign is chosen so
    that its largest component is positive. Raises ValueError for fewer than two samples or features than axes.
    """
    real = np.asarray(real, np.float64)
    if real.ndim != 2 or len(real) < 2 or real.shape[1] < n:
        raise ValueError(
            f"{n} principal axes need two samples of {n} features or more, not {real.shape}"
        )
    centre = real.mean(axis=0)
    _, size, axes = np.linalg.svd(real - centre, full_matrices=True)
    axes = axes[:n]
    signs = np.sign(axes[np.arange(n), np.abs(axes).argmax(axis=1)])
    share = np.zeros(n)
    share[: min(n, len(size))] = (size**2 / max((size**2).sum(), 1e-300))[:n]
    return centre, (axes * signs[:, None]).T, share
