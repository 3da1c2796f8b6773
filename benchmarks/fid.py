"""FID (§4.2, Eq. 11) against pytorch-fid's on the same features in float64: means and covariances counted in, how far the two are apart."""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.table import Row, measure_ratio
from core.evaluation import metrics

SIZES = (
    (16, 500, 15),
    (1024, 2048, 3),
)  # width of the features (our scorer's; half of an Inception network's), samples in a set, repeats


def import_pytorch_fid():
    """The module `pytorch_fid.fid_score`. Raises ImportError where it is not installed.

    It imports torchvision, whose wheel from PyPI fails on a CPU build of torch: its compiled operators do not load, and its Python part
    then misses two names. Declaring them is enough; nothing calls them.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
    from pytorch_fid import fid_score

    return fid_score


def random_features(width: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets (n, width) with covariances of their own, as a real and a generated one."""
    rng = np.random.default_rng(0)
    a, b = (
        rng.normal(size=(n, width)) @ (rng.normal(size=(width, width)) / np.sqrt(width))
        for _ in range(2)
    )
    return a, b + 0.3


def rows() -> list[Row | str]:
    try:
        score = import_pytorch_fid()
    except ImportError as error:
        return [f"FID: skipped, pytorch-fid is not here ({error}); requirements.txt names it"]

    found: list[Row | str] = []
    for width, n, repeats in SIZES:
        a, b = random_features(width, n)

        def theirs(a: np.ndarray = a, b: np.ndarray = b) -> float:
            return float(
                score.calculate_frechet_distance(
                    a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)
                )
            )

        def ours(a: np.ndarray = a, b: np.ndarray = b) -> float:
            return metrics.fid(a, b)

        apart = abs(ours() - theirs()) / theirs()
        note = f"{ours():.6g}, apart by {apart:.0e} of it"
        found.append(
            measure_ratio(
                f"FID: pytorch-fid / ours, {n:,} × {width} features twice",
                theirs,
                ours,
                repeats,
                note=note,
            )
        )
    return found
