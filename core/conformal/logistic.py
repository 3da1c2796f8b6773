"""Logistic regression with many refits at once, for full conformal prediction (Alg. 1)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

PredictFunction = Callable[[np.ndarray], np.ndarray]  # features (m, F) -> softmax (m, K)
# features (n, F), labels (n,) -> the head trained on them
FitFunction = Callable[[np.ndarray, np.ndarray], PredictFunction]

L2_WEIGHT = 1.0  # weight of half the squared weights, beside the summed cross-entropy
# largest gradient entry of a fitted head, as a share of its largest possible size
GRADIENT_TOLERANCE = 1e-12
MAX_REFIT_STEPS = 40  # steps with a fixed Hessian; heads that need more get full Newton steps
MAX_NEWTON_STEPS = 100


def refit_last_row(
    X: np.ndarray, labels: np.ndarray, classes: int, start: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """`fit_logistic` for B labellings of the same rows which differ in the last label only.

    (n, D), (B, n) -> softmax of these rows (B, n, K). `start` holds the weights and the inverse
    Hessian of the rows without the last. Newton's steps use that Hessian, to which Woodbury's
    identity adds the last row's part at its current softmax.
    """
    W0, inverse = start
    Y, (n, D), B, K = one_hot(labels, classes).transpose(1, 0, 2), X.shape, len(labels), classes
    solved = _gradient_limit(X)
    W = np.repeat(W0[:, None], B, axis=1)  # (D, B, K)
    # inverse Hessian times x (x) I, (D K, K)
    MU = np.einsum("pdk,d->pk", inverse.reshape(-1, D, K), X[-1])
    UMU = np.einsum("dkl,d->kl", MU.reshape(D, K, K), X[-1])
    for _ in range(MAX_REFIT_STEPS):
        P = softmax((X @ W.reshape(D, -1)).reshape(n, B, K))
        gradient = (X.T @ (P - Y).reshape(n, -1)).reshape(D, B, K) + L2_WEIGHT * W
        worst = np.abs(gradient).max(axis=(0, 2))  # (B,)
        if (worst <= solved).all():
            break
        step = gradient.transpose(1, 0, 2).reshape(B, -1) @ inverse
        # the last row's part of the Hessian is x x^T (x) S, with S (B, K, K)
        S = P[-1][:, :, None] * (np.eye(K) - P[-1][:, None, :])
        projected = np.einsum("bdk,d->bk", step.reshape(B, D, K), X[-1])[:, :, None]
        inner = np.linalg.solve(np.eye(K) + UMU @ S, projected)
        W = W - (step - (S @ inner)[:, :, 0] @ MU.T).reshape(B, D, K).transpose(1, 0, 2)
    else:
        for b in np.flatnonzero(worst > solved):
            W[:, b] = newton(X, Y[:, b], L2_WEIGHT)[0]
        P = softmax((X @ W.reshape(D, -1)).reshape(n, B, K))
    return P.transpose(1, 0, 2)


def newton(X: np.ndarray, Y: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """Damped Newton's method from zero: (n, D), one-hot (n, K) -> weights (D, K), inverse Hessian.

    The inverse Hessian is (D K, D K). Raises ValueError if it does not converge.
    """
    (n, D), K = X.shape, Y.shape[1]
    W, solved = np.zeros((D, K)), _gradient_limit(X)
    for _ in range(MAX_NEWTON_STEPS):
        P = softmax(X @ W)
        gradient = X.T @ (P - Y) + l2 * W
        A = (X[:, :, None] * P[:, None, :]).reshape(n, D * K)
        H = -(A.T @ A) + l2 * np.eye(D * K)
        for k in range(K):
            H.reshape(D, K, D, K)[:, k, :, k] += (X * P[:, k, None]).T @ X
        if np.abs(gradient).max() <= solved:
            return W, np.linalg.inv(H)
        step, size = np.linalg.solve(H, gradient.ravel()).reshape(D, K), 1.0
        now, slope = _regularised_loss(X, Y, W, l2), float((gradient * step).sum())
        while size > 1e-6:
            limit = now - 1e-4 * size * slope + 1e-12 * abs(now)  # Armijo's rule, but for rounding
            if not _regularised_loss(X, Y, W - size * step, l2) > limit:
                break
            size /= 2
        W = W - size * step
    raise ValueError("the head's fit does not converge; scale the features to about unit size")


def _gradient_limit(X: np.ndarray) -> float:
    return GRADIENT_TOLERANCE * float(np.abs(X).sum(axis=0).max())


def _regularised_loss(X: np.ndarray, Y: np.ndarray, W: np.ndarray, l2: float) -> float:
    z = X @ W
    top = z.max(axis=1)
    entropy = (top + np.log(np.exp(z - top[:, None]).sum(axis=1)) - (Y * z).sum(axis=1)).sum()
    return float(entropy + l2 / 2 * (W * W).sum())


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def with_bias(x: np.ndarray) -> np.ndarray:
    """Features (n, F) with a column of ones: (n, F + 1)."""
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        given = f"{x.shape}" + " with NaN or infinity" * (x.ndim == 2)
        raise ValueError(f"features must be (n, F) and finite, not {given}")
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"labels must be whole numbers from 0 to {classes - 1}")
    return np.eye(classes)[labels]


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, classes: int, l2: float = L2_WEIGHT
) -> PredictFunction:
    """Multinomial logistic regression, the light head: (n, F), (n,) -> predict.

    predict: (m, F) -> softmax (m, K). Minimises exactly the cross-entropy summed over rows
    + l2/2 ||W||^2, bias included. Raises ValueError for labels outside 0..K-1 and for features that
    are not finite.

    >>> predict = fit_logistic(np.array([[-1.0], [1.0]]), np.array([0, 1]), classes=2)
    >>> predict(np.array([[0.0], [2.0]])).round(2).tolist()
    [[0.5, 0.5], [0.11, 0.89]]
    """
    W = newton(with_bias(features), one_hot(labels, classes), l2)[0]
    return lambda x: softmax(with_bias(x) @ W)


def fit_function(classes: int) -> FitFunction:
    """`fit_logistic` as a function of features and labels."""
    return lambda features, labels: fit_logistic(features, labels, classes)
