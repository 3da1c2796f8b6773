"""Conformal p-values (§3.1, Eq. 9) of a million rows against a bare sort and search, and crepes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np

from benchmarks.table import Row, measure_ratio
from core.conformal import prediction

CALIBRATION_ROWS, TEST_ROWS, CLASSES = 100_000, 1_000_000, 6
CREPES_STRIDE = 100  # one row in this many goes to crepes


def random_scores() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nonconformity of a mediocre classifier: calibration scores, their labels, all test scores."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, CALIBRATION_ROWS + TEST_ROWS)
    noise = rng.normal(size=(CALIBRATION_ROWS + TEST_ROWS, CLASSES))
    z = 1.5 * noise + 1.5 * np.eye(CLASSES)[labels]
    o = np.exp(z - z.max(axis=1, keepdims=True))
    alpha = prediction.nonconformity(o / o.sum(axis=1, keepdims=True))
    labels, n = labels[:CALIBRATION_ROWS], CALIBRATION_ROWS
    return prediction.true_scores(alpha[:n], labels), labels, np.ascontiguousarray(alpha[n:])


def rows() -> Iterator[Row]:
    from crepes import ConformalClassifier

    alpha_cal, labels, alpha = random_scores()
    size = f"{TEST_ROWS:,} rows × {CLASSES} classes, n = {CALIBRATION_ROWS:,}"

    def bare():
        return np.searchsorted(np.sort(alpha_cal), alpha)

    def bare_by_class():
        groups = [np.sort(alpha_cal[labels == k]) for k in range(CLASSES)]
        return [np.searchsorted(group, alpha[:, k]) for k, group in enumerate(groups)]

    def ours():
        return prediction.p_values(alpha_cal, alpha)

    def ours_by_class():
        return prediction.p_values(alpha_cal, alpha, labels, np.arange(CLASSES))

    def ours_smoothed():
        return prediction.p_values(alpha_cal, alpha, rng=np.random.default_rng(0))

    aim, answer = "at most 1.5", f"of which the answer {alpha.nbytes / 1e6:.0f} MB"
    note = f"peak {_peak_memory_mb(ours):.0f} MB, {answer}"
    what = f"p-values: ours / np.sort + np.searchsorted, {size}"
    yield measure_ratio(what, ours, bare, aim=aim, note=note)
    what = "p-values by class: ours / the same for each class"
    yield measure_ratio(what, ours_by_class, bare_by_class, aim=aim)
    peak = _peak_memory_mb(ours_smoothed)
    note = f"two searches and a random number for each cell; peak {peak:.0f} MB"
    what = "p-values smoothed: ours / one bare search"
    yield measure_ratio(what, ours_smoothed, bare, note=note)

    part = np.ascontiguousarray(alpha[::CREPES_STRIDE])
    crepes = ConformalClassifier().fit(alpha_cal)

    def theirs(rows: np.ndarray = part):
        return crepes.predict_p(rows, smoothing=False)

    if not np.array_equal(theirs(part[:50]), ours()[::CREPES_STRIDE][:50]):
        raise AssertionError("crepes gives other p-values; comparing times would mean nothing")
    what = f"p-values: crepes on 1 % of the rows, × {CREPES_STRIDE}, / ours, {size}"
    note = f"scaled, not measured whole; peak on 1 %: {_peak_memory_mb(theirs):.0f} MB"
    row = measure_ratio(what, theirs, ours, repeats=3, note=note)
    ratios = (CREPES_STRIDE * value for value in (row.ratio, row.low, row.high))
    yield Row(what, *ratios, note=note)


def _peak_memory_mb(work) -> float:
    """Peak memory of NumPy and Python in one call, beyond what they held before, MB."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6
