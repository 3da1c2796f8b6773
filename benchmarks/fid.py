"""FID (§4.2, Eq. 11) against pytorch-fid on equal features in float64, and their difference.

Means and covariances are part of the measured time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from benchmarks.table import Row, measure_ratio
from core.evaluation import metrics

# (width of the features, samples per set, repeats): our scorer's, and half of an Inception's
SIZES = ((16, 500, 15), (1024, 2048, 3))


def import_pytorch_fid():
    """The module `pytorch_fid.fid_score`. Raises ImportError if it is not installed.

    It imports torchvision, whose PyPI wheel fails on a CPU build of torch: its compiled operators
    do not load, and its Python part misses two of them. Declaring them suffices; nothing calls
    them.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", signature)
    from pytorch_fid import fid_score

    return fid_score


def random_features(width: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets (n, width) with different means and covariances."""
    rng = np.random.default_rng(0)
    a, b = (
        rng.normal(size=(n, width)) @ (rng.normal(size=(width, width)) / np.sqrt(width))
        for _ in range(2)
    )
    return a, b + 0.3


def rows() -> Iterator[Row | str]:
    try:
        fid_score = import_pytorch_fid()
    except ImportError as error:
        yield f"FID: skipped, pytorch-fid is not installed ({error}); see requirements-test.txt"
        return
    for width, n, repeats in SIZES:
        a, b = random_features(width, n)

        def theirs(a: np.ndarray = a, b: np.ndarray = b) -> float:
            moments = (m for x in (a, b) for m in (x.mean(0), np.cov(x, rowvar=False)))
            return float(fid_score.calculate_frechet_distance(*moments))

        def ours(a: np.ndarray = a, b: np.ndarray = b) -> float:
            return metrics.fid(a, b)

        difference = abs(ours() - theirs()) / theirs()
        what = f"FID: pytorch-fid / ours, {n:,} × {width} features twice"
        note = f"{ours():.6g}, relative difference {difference:.0e}"
        yield measure_ratio(what, theirs, ours, repeats, note=note)
