"""Logistic regression that is refitted in bulk, for Alg. 1's full conformal prediction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

L2_WEIGHT = 1.0  # weight of half the squared weights of the head, beside the summed cross-entropy

GRADIENT_TOLERANCE = 1e-12  # a head counts as fitted when no entry of its gradient exceeds this share of its largest possible size


def refit_last_row(
    X: np.ndarray, labels: np.ndarray, classes: int, start: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """`fit_logistic` for B labellings that share all rows but the last: (n, D), (B, n) -> softmax of the same rows (B, n, K).

    `start` = (weights, inverse Hessian) of the shared rows alone. Newton's steps with that Hessian, to which the last row's own part is
    added by Woodbury's identity at its current softmax; heads that do not settle so get full Newton steps.
    """
    W0, inverse = start
    Y, (n, D), B, solved, K = (
        one_hot(labels, classes).transpose(1, 0, 2),
        X.shape,
        len(labels),
        _gradient_limit(X),
        classes,
    )
    W = np.repeat(W0[:, None], B, axis=1)  # (D, B, K)
    MU = np.einsum(
        "pdk,d->pk", inverse.reshape(-1, D, K), X[-1]
    )  # inverse Hessian times x (x) I, (D K, K)
    UMU = np.einsum("dkl,d->kl", MU.reshape(D, K, K), X[-1])
    for _ in range(40):
        P = softmax((X @ W.reshape(D, -1)).reshape(n, B, K))
        gradient = (X.T @ (P - Y).reshape(n, -1)).reshape(D, B, K) + L2_WEIGHT * W
        worst = np.abs(gradient).max(axis=(0, 2))  # (B,)
        if (worst <= solved).all():
            break
        step = gradient.transpose(1, 0, 2).reshape(B, -1) @ inverse
        S = P[-1][:, :, None] * (
            np.eye(K) - P[-1][:, None, :]
        )  # the last row's part of the Hessian is x x^T (x) S, (B, K, K)
        inner = np.linalg.solve(
            np.eye(K) + UMU @ S, np.einsum("bdk,d->bk", step.reshape(B, D, K), X[-1])[:, :, None]
        )
        W = W - (step - (S @ inner)[:, :, 0] @ MU.T).reshape(B, D, K).transpose(1, 0, 2)
    else:
        for b in np.flatnonzero(worst > solved):
            W[:, b] = newton(X, Y[:, b], L2_WEIGHT)[0]
        P = softmax((X @ W.reshape(D, -1)).reshape(n, B, K))
    return P.transpose(1, 0, 2)


def newton(X: np.ndarray, Y: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """Damped Newton from zero on a strictly convex loss: (n, D), one-hot (n, K) -> weights (D, K), inverse Hessian (D K, D K)."""
    (n, D), K = X.shape, Y.shape[1]
    W, solved = np.zeros((D, K)), _gradient_limit(X)
    for _ in range(100):
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
        while size > 1e-6 and _regularised_loss(
            X, Y, W - size * step, l2
        ) > now - 1e-4 * size * slope + 1e-12 * abs(now):
            size /= 2
        W = W - size * step
    raise ValueError("the head's fit does not settle; scale the features to about unit size")


def _gradient_limit(X: np.ndarray) -> float:
    return GRADIENT_TOLERANCE * float(np.abs(X).sum(axis=0).max())


def _regularised_loss(X: np.ndarray, Y: np.ndarray, W: np.ndarray, l2: float) -> float:
    z = X @ W
    top = z.max(axis=1)
    return float(
        (top + np.log(np.exp(z - top[:, None]).sum(axis=1)) - (Y * z).sum(axis=1)).sum()
        + l2 / 2 * (W * W).sum()
    )


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def with_bias(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError(
            f"features must be (n, F) and finite, not {x.shape}"
            + " with NaN or infinity" * (x.ndim == 2)
        )
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"labels must be whole numbers from 0 to {classes - 1}")
    return np.eye(classes)[labels]


PredictFunction = Callable[[np.ndarray], np.ndarray]  # features (m, F) -> softmax (m, K)

FitFunction = Callable[
    [np.ndarray, np.ndarray], PredictFunction
]  # features (n, F), labels (n,) -> the head trained on them


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, classes: int, l2: float = L2_WEIGHT
) -> PredictFunction:
    """The light head: multinomial logistic regression, cross-entropy summed over rows + l2/2 ||W||^2 (bias included), solved exactly.

    (n, F), (n,) -> predict: (m, F) -> softmax (m, K). Raises ValueError for labels outside 0..K-1 and for features that are not finite.
    """
    W = newton(with_bias(features), one_hot(labels, classes), l2)[0]
    return lambda x: softmax(with_bias(x) @ W)


def fit_function(classes: int) -> FitFunction:
    return lambda features, labels: fit_logistic(features, labels, classes)
