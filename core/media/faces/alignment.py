"""§3.4: landmarks -> a similarity transform on eyes, nose, mouth and chin -> a 28x28 grey face."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from core.media.faces import detection
from core.media.faces.landmarker import CHIN, LEFT_EYE, MOUTH, NOSE_TIP, RIGHT_EYE, interpreters

ALIGNED_SIZE = 28  # pixels, side of an aligned face (§3.4)

# Places of the five points in an aligned face of side 1. The proportions are the mean of real faces
# seen from the front (eyes 1 apart: nose 0.64, mouth 1.13, chin 1.86 below them); the scale leaves
# raised brows and an open jaw inside.
CANONICAL_POINTS = np.array(
    [[0.31, 0.225], [0.69, 0.225], [0.50, 0.468], [0.50, 0.654], [0.50, 0.932]]
)
CANONICAL_POINTS.flags.writeable = False

# Bounds of a plausible face that fills its crop, against the canonical places.
MIN_CROP_SCALE, MAX_CROP_SCALE = 0.4, 1.5  # of a canonical face over the crop's side
MAX_CROP_TURN = 60.0  # degrees
MAX_CROP_MISFIT = 0.12  # RMS distance of the five points, relative to the face's scale
MAX_CROP_SHIFT = 0.3  # of the five points' mean from the crop's centre, relative to its side


def to_unit(faces: np.ndarray) -> np.ndarray:
    """Grey levels uint8 0..255 -> the networks' range [-1, 1], float32; any shape.

    >>> to_unit(np.array([0, 255], np.uint8))
    array([-1.,  1.], dtype=float32)
    """
    return faces.astype(np.float32) / 127.5 - 1


def to_uint8(x: np.ndarray) -> np.ndarray:
    """[-1, 1] -> grey levels uint8 0..255, rounded; inverse of `to_unit`.

    >>> to_uint8(np.array([-1.0, 0.2, 1.0]))
    array([  0, 153, 255], dtype=uint8)
    """
    return np.rint((np.clip(x, -1, 1) + 1) * 127.5).astype(np.uint8)


def five_points(points: np.ndarray) -> np.ndarray:
    """Landmarks (..., 478, 2) -> (..., 5, 2): left eye, right eye, nose tip, mouth, chin (§3.4).

    Eyes and mouth are the means of their contours.
    """
    parts = [[*LEFT_EYE], [*RIGHT_EYE], [NOSE_TIP], [*MOUTH], [CHIN]]
    return np.stack([points[..., part, :].mean(-2) for part in parts], -2)


def similarity_transform(src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Rotation, scale and shift from src to dst with the least squared error (§3.4).

    src and dst (..., n, 2) -> (..., 2, 3) float64. On complex numbers z = x + iy it is the
    least-squares line w = a z + b, so it never mirrors. Raises ValueError if all points of a src
    are equal.
    """
    src, dst = np.asarray(src, np.float64), np.asarray(dst, np.float64)
    z, w = (p[..., 0] + 1j * p[..., 1] for p in (src, dst))
    z0, w0 = z.mean(-1, keepdims=True), w.mean(-1, keepdims=True)
    power = (np.abs(z - z0) ** 2).sum(-1)
    if not (power > 0).all():
        raise ValueError("a similarity needs at least two different points")
    a = (np.conj(z - z0) * (w - w0)).sum(-1) / power
    b = w0[..., 0] - a * z0[..., 0]
    rows = np.stack([a.real, -a.imag, b.real], -1), np.stack([a.imag, a.real, b.imag], -1)
    return np.stack(rows, -2)


def align(frame: np.ndarray, points5: np.ndarray, size: int = ALIGNED_SIZE) -> np.ndarray:
    """A frame and its five points -> an aligned face (size, size) uint8 grey, Rec. 601 (§3.4).

    `frame` is (H, W, 3) or (H, W) uint8; `points5` (5, 2) are moved to CANONICAL_POINTS * size.
    Antialiased: each pixel is the mean of at least 4x4 bilinear samples. Outside the frame its edge
    is repeated. Raises ValueError for points that are not finite, or are no face in such a frame.

    >>> frame = np.full((100, 100, 3), 200, np.uint8)
    >>> face = align(frame, CANONICAL_POINTS * 60 + 20)
    >>> face.shape, face.dtype.name, int(face.max())
    ((28, 28), 'uint8', 200)
    """
    back, scale, lo, hi = _face_region(frame.shape[:2], points5, size)
    fine = min(max(4, math.ceil(1 / scale)), 32)  # samples per side: one or more per frame pixel
    # Convert only the needed part to grey; a region far outside repeats the nearest edge.
    x, y = _region_pixels(frame.shape[:2], lo, hi)
    part = np.ascontiguousarray(frame[y[0] : y[-1] + 1, x[0] : x[-1] + 1])
    grey = np.asarray(Image.fromarray(part).convert("L"))[np.ix_(y - y[0], x - x[0])]
    (a, b, c), (d, e, f) = back / [fine, fine, 1]
    to_part, samples = (a, b, c - lo[0], d, e, f - lo[1]), (size * fine, size * fine)
    big = Image.fromarray(grey).transform(
        samples, Image.Transform.AFFINE, to_part, Image.Resampling.BILINEAR
    )
    mean = np.asarray(big, np.float32).reshape(size, fine, size, fine).mean((1, 3))
    return np.rint(mean).astype(np.uint8)


def read_part(
    shape: tuple[int, int], points5: np.ndarray, size: int = ALIGNED_SIZE
) -> tuple[slice, slice]:
    """Rows and columns that `align` reads of a frame (h, w) with these five points.

    >>> read_part((100, 100), CANONICAL_POINTS * 60 + 20)
    (slice(19, 82, None), slice(19, 82, None))
    """
    x, y = _region_pixels(shape, *_face_region(shape, points5, size)[2:])
    return slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1)


def _face_region(
    shape: tuple[int, int], points5: np.ndarray, size: int
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """The map (2, 3) from an aligned face to its frame, its scale, and the corners in the frame."""
    points5, (h, w) = np.asarray(points5, np.float64), shape
    if points5.shape != (5, 2) or not np.isfinite(points5).all():
        raise ValueError(f"five finite points are needed, (5, 2) in pixels; got {points5.tolist()}")
    m = similarity_transform(points5, CANONICAL_POINTS * size)
    scale = math.hypot(m[0, 0], m[1, 0])
    if scale * 8 * max(h, w, size) < size:
        fault = f"these five points are no face in a frame of {w}x{h} pixels"
        raise ValueError(f"{fault}: {np.round(points5).tolist()}")
    back = np.linalg.inv(np.vstack([m, [0, 0, 1]]))[:2]
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ back.T
    lo, hi = np.floor(corners.min(0)).astype(int) - 1, np.ceil(corners.max(0)).astype(int) + 2
    return back, scale, lo, hi


def _region_pixels(
    shape: tuple[int, int], lo: np.ndarray, hi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the frame from `lo` to `hi`; those outside it are its nearest edge's."""
    h, w = shape
    return np.arange(lo[0], hi[0]).clip(0, w - 1), np.arange(lo[1], hi[1]).clip(0, h - 1)


def align_crops(
    images: np.ndarray, progress: Callable[[int, int], None] | None = None, workers: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Tight grey crops (N, S, S) uint8, as FER2013's -> faces (N, 28, 28) uint8, found (N,) bool.

    Aligned as the faces of clips are, so that a classifier sees an uploaded face as it saw its
    training faces. A crop without plausible landmarks takes the median of the others' points.
    `progress(done, N)` is called from this thread; `workers` threads are used (0: one per core).
    The result depends on neither.
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
    with interpreters() as nets:
        finder = detection.FaceFinder(nets, image)
        # BlazeFace needs surroundings; where it finds nothing, the mesh is fitted to the crop.
        for roi in [*finder.propose_rois([finder.whole(1.75)])[:1], finder.whole(1.15)]:
            face = finder.fit_mesh(roi)
            five = five_points(face.points.astype(np.float64))
            if face.score >= detection.MIN_FACE_SCORE and _is_plausible(five, len(image)):
                return five
    return None


def _is_plausible(five: np.ndarray, size: int) -> bool:
    """Whether five points are a face that fills a crop of that size."""
    canonical = CANONICAL_POINTS * size
    m = similarity_transform(canonical, five)
    scale, turn = math.hypot(m[0, 0], m[1, 0]), math.degrees(math.atan2(m[1, 0], m[0, 0]))
    error = np.sqrt(((canonical @ m[:, :2].T + m[:, 2] - five) ** 2).sum(1).mean())
    return bool(
        MIN_CROP_SCALE < scale < MAX_CROP_SCALE
        and abs(turn) < MAX_CROP_TURN
        and error / (scale * size) < MAX_CROP_MISFIT
        and np.abs(five.mean(0) / size - 0.5).max() < MAX_CROP_SHIFT
    )
