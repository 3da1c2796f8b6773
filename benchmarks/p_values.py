"""Conformal p-values (§3.1, Eq. 9) of a million rows: against the bare sort and search that any such count needs, and against crepes."""

from __future__ import annotations

import tracemalloc

import numpy as np

from benchmarks.table import Row, measure_ratio
from core.conformal import prediction

CALIBRATION_ROWS, TEST_ROWS, CLASSES = 100_000, 1_000_000, 6
CREPES_STRIDE = 100  # crepes gets one row in so many


def random_scores() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins of a middling classifier: calibration scores, their labels, test scores of every label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, CALIBRATION_ROWS + TEST_ROWS)
    z = (
        1.5 * rng.normal(size=(CALIBRATION_ROWS + TEST_ROWS, CLASSES))
        + 1.5 * np.eye(CLASSES)[labels]
    )
    o = np.exp(z - z.max(axis=1, keepdims=True))
    alpha = prediction.nonconformity(o / o.sum(axis=1, keepdims=True))
    return (
        prediction.true_scores(alpha[:CALIBRATION_ROWS], labels[:CALIBRATION_ROWS]),
        labels[:CALIBRATION_ROWS],
        np.ascontiguousarray(alpha[CALIBRATION_ROWS:]),
    )


def rows() -> list[Row]:
    from crepes import ConformalClassifier

    alpha_cal, labels, alpha = random_scores()
    size = f"{TEST_ROWS:,} rows × {CLASSES} classes, n = {CALIBRATION_ROWS:,}"

    def bare():
        return np.searchsorted(np.sort(alpha_cal), alpha)

    def bare_by_class():
        return [
            np.searchsorted(np.sort(alpha_cal[labels == k]), alpha[:, k]) for k in range(CLASSES)
        ]

    def ours(**smoothing):
        return prediction.p_values(alpha_cal, alpha, **smoothing)

    def ours_by_class():
        return prediction.p_values(alpha_cal, alpha, labels, np.arange(CLASSES))

    part = np.ascontiguousarray(alpha[::CREPES_STRIDE])
    theirs = ConformalClassifier().fit(alpha_cal)
    if not np.array_equal(
        theirs.predict_p(part[:50], smoothing=False), ours()[::CREPES_STRIDE][:50]
    ):
        raise AssertionError(
            "crepes gives other p-values: a comparison of times would mean nothing"
        )
    what = "np.sort + np.searchsorted"
    peak = f"peak {_peak_memory_mb(ours):.0f} MB, of which the answer {alpha.nbytes / 1e6:.0f} MB"
    peer = measure_ratio(
        f"p-values: crepes on 1 % of the rows, × {CREPES_STRIDE}, / ours, {size}",
        lambda: [theirs.predict_p(part, smoothing=False)],
        ours,
        repeats=3,
        note=f"scaled, not measured whole; peak on 1 %: {_peak_memory_mb(lambda: theirs.predict_p(part, smoothing=False)):.0f} MB",
    )
    return [
        measure_ratio(f"p-values: ours / {what}, {size}", ours, bare, aim="at most 1.5", note=peak),
        measure_ratio(
            "p-values by class: ours / the same for each class",
            ours_by_class,
            bare_by_class,
            aim="at most 1.5",
        ),
        measure_ratio(
            "p-values smoothed: ours / one bare search",
            lambda: ours(rng=np.random.default_rng(0)),
            bare,
            note=_smoothed_note(ours),
        ),
        Row(
            peer.name,
            peer.ratio * CREPES_STRIDE,
            peer.low * CREPES_STRIDE,
            peer.high * CREPES_STRIDE,
            note=peer.note,
        ),
    ]


def _smoothed_note(ours) -> str:
    return f"two searches and a random number for each cell; peak {_peak_memory_mb(lambda: ours(rng=np.random.default_rng(0))):.0f} MB"


def _peak_memory_mb(work) -> float:
    """Most memory that NumPy and Python held at once in one call beyond what they held before, MB."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6
