"""TO WRITE."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from core.media.faces import detection, landmarker

ALIGNED_SIZE = 28  # of an aligned face (§3.4)

# Where the five points lie in an aligned face of side 1. The proportions are the mean of real faces seen from the front (eyes 1 apart:
# nose 0.64, mouth 1.13, chin 1.86 below them); the scale leaves raised brows and an open jaw inside.
CANONICAL_POINTS = np.array(
    [[0.31, 0.225], [0.69, 0.225], [0.50, 0.468], [0.50, 0.654], [0.50, 0.932]]
)

CANONICAL_POINTS.flags.writeable = False


def five_points(points: np.ndarray) -> np.ndarray:
    """(..., 478, 2) -> (..., 5, 2): left eye, right eye (means of their contours), nose tip, mouth (mean of the lips), chin (§3.4)."""
    parts = [
        list(landmarker.LEFT_EYE),
        list(landmarker.RIGHT_EYE),
        [landmarker.NOSE_TIP],
        list(landmarker.MOUTH),
        [landmarker.CHIN],
    ]
    return np.stack([points[..., part, :].mean(-2) for part in parts], -2)


def similarity_transform(src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """The turn, scale and shift that take src (..., n, 2) to dst (..., n, 2) with the least squared error: (..., 2, 3) float64 (§3.4).

    On complex numbers z = x + iy it is w = a z + b, a least-squares line; a mirror image cannot come out.
    Raises ValueError if all points of a src are one.
    """
    z, w = (
        np.asarray(p, np.float64)[..., 0] + 1j * np.asarray(p, np.float64)[..., 1]
        for p in (src, dst)
    )
    z0, w0 = z.mean(-1, keepdims=True), w.mean(-1, keepdims=True)
    power = (np.abs(z - z0) ** 2).sum(-1)
    if not (power > 0).all():
        raise ValueError("a similarity needs at least two different points")
    a = (np.conj(z - z0) * (w - w0)).sum(-1) / power
    b = w0[..., 0] - a * z0[..., 0]
    return np.stack(
        [np.stack([a.real, -a.imag, b.real], -1), np.stack([a.imag, a.real, b.imag], -1)], -2
    )


def align(frame: np.ndarray, points5: np.ndarray, size: int = ALIGNED_SIZE) -> np.ndarray:
    """A frame and its five points (5, 2) -> (size, size) uint8 grey (Rec. 601), the points brought to CANONICAL (§3.4).

    Antialiased: sampled bilinearly at least 4x4 times a pixel and averaged. Outside the frame its edge is repeated.
    Raises ValueError for points that are not finite, or no face in such a frame.
    """
    points5, (h, w) = np.asarray(points5, np.float64), frame.shape[:2]
    if points5.shape != (5, 2) or not np.isfinite(points5).all():
        raise ValueError(f"five finite points are needed, (5, 2) in pixels; got {points5.tolist()}")
    m = similarity_transform(points5, CANONICAL_POINTS * size)
    scale = math.hypot(m[0, 0], m[1, 0])
    if scale * 8 * max(h, w, size) < size:
        raise ValueError(
            f"these five points are no face in a frame of {w}x{h} pixels: {np.round(points5).tolist()}"
        )
    back = np.linalg.inv(np.vstack([m, [0, 0, 1]]))[:2]  # from the aligned face to the frame
    fine = min(max(4, math.ceil(1 / scale)), 32)  # one sample or more for each pixel of the frame
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ back.T
    lo, hi = np.floor(corners.min(0)).astype(int) - 1, np.ceil(corners.max(0)).astype(int) + 2
    # Only what is needed is copied, and converted to grey; a region far outside repeats the nearest edge.
    x, y = np.arange(lo[0], hi[0]).clip(0, w - 1), np.arange(lo[1], hi[1]).clip(0, h - 1)
    part = np.ascontiguousarray(frame[y[0] : y[-1] + 1, x[0] : x[-1] + 1])
    grey = np.asarray(Image.fromarray(part).convert("L"))[np.ix_(y - y[0], x - x[0])]
    (a, b, c), (d, e, f) = back / [fine, fine, 1]
    at = (a, b, c - lo[0], d, e, f - lo[1])
    big = Image.fromarray(grey).transform(
        (size * fine, size * fine), Image.Transform.AFFINE, at, Image.Resampling.BILINEAR
    )
    return np.rint(np.asarray(big, np.float32).reshape(size, fine, size, fine).mean((1, 3))).astype(
        np.uint8
    )


def align_crops(
    images: np.ndarray, progress: Callable[[int, int], None] | None = None, workers: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Tight grey crops (N, S, S) uint8, as FER2013's 48x48 -> faces (N, 28, 28) uint8 and found (N,) bool.

    The same landmarks and the same CANONICAL as for clips, so that a classifier sees an uploaded face as it saw its training faces.
    Crops without plausible landmarks are aligned by the median of the others' points. `progress(done, N)` is called from this thread;
    `workers` threads (0: one for each core). The result depends on neither.
    """
    if images.ndim != 3 or images.shape[1] != images.shape[2] or images.dtype != np.uint8:
        raise ValueError(f"crops are (N, S, S) uint8; these are {images.shape} {images.dtype}")
    count, size = len(images), images.shape[1]
    points = np.full((count, 5, 2), np.nan)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for k, five in enumerate(pool.map(crop_points, images)):
            if five is not None:
                points[k] = five
            if progress and (k % 50 == 49 or k == count - 1):
                progress(k + 1, count)
    found = np.isfinite(points).all((1, 2))
    points[~found] = np.median(points[found], axis=0) if found.any() else CANONICAL_POINTS * size
    faces = [align(image, five) for image, five in zip(images, points)]
    return np.array(faces, np.uint8).reshape(count, ALIGNED_SIZE, ALIGNED_SIZE), found


def crop_points(image: np.ndarray) -> np.ndarray | None:
    """The five points (5, 2) in a crop that one face fills, or None."""
    with landmarker.interpreters() as nets:
        look = detection.FaceFinder(nets, image)
        # BlazeFace wants surroundings; where it finds nothing still, the mesh tries the crop as it is.
        for roi in [*look.propose_rois([look.whole(1.75)])[:1], look.whole(1.15)]:
            face = look.fit_mesh(roi)
            five = five_points(face.points.astype(np.float64))
            if face.score >= detection.MIN_FACE_SCORE and _is_plausible(five, len(image)):
                return five
    return None


def _is_plausible(five: np.ndarray, size: int) -> bool:
    """Whether five points are a face that fills a crop of that size: its scale, turn, place and proportions."""
    m = similarity_transform(CANONICAL_POINTS * size, five)
    scale, turn = math.hypot(m[0, 0], m[1, 0]), math.degrees(math.atan2(m[1, 0], m[0, 0]))
    misfit = np.sqrt(
        ((CANONICAL_POINTS * size @ m[:, :2].T + m[:, 2] - five) ** 2).sum(1).mean()
    ) / (scale * size)
    return bool(
        0.4 < scale < 1.5
        and abs(turn) < 60
        and misfit < 0.12
        and np.abs(five.mean(0) / size - 0.5).max() < 0.3
    )
