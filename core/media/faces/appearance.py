"""§3.4: what one should know of a face that is taken: turned, cut off, tiny, blurred, not alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from core.media.faces import alignment, detection
from core.media.faces.alignment import ALIGNED_SIZE
from core.media.faces.detection import Face
from core.media.faces.landmarker import interpreters

MAX_UPRIGHT_TURN = 45.0  # degrees of the eyes' line; beyond, the face lies on its side
MAX_SIDE_TURN = 135.0  # degrees; beyond, the face stands on its head
MIN_CLEAR_SIDE = 20  # pixels of a face's longer side, below which it is noted as tiny
MIN_WHOLE_SHARE = 0.95  # of the landmarks that lie inside the frame
# Mean Laplacian of an aligned face over its contrast. The least sharp of 150 faces of FER2013 has
# 0.40; faces blurred by a Gaussian of 4 % of their side have 0.21 to 0.27.
MIN_SHARPNESS = 0.3
# Detector's scores of a crop, upside down, and by how much that is above the score as it is; chosen
# on 1,500 crops of FER2013. Rates on others: docs/corpora.md.
MIN_TURNED_SCORE, MIN_TURNED_GAIN = 0.75, 0.06
MIN_DOUBTED_SCORE, MIN_DOUBTED_GAIN = 0.5, 0.0
# The same for a crop on its side. Of 400 crops of FER2013, 5 are doubted as they are and 300 when
# they are turned by 90 degrees: no rule that is sure enough to turn them.
MIN_SIDE_SCORE, MIN_SIDE_GAIN = 0.65, 0.06
MIN_CONTRAST = 8.0  # standard deviation of a face's grey levels, of 255, below which it is noted
FAINT_NOTE = "the face has hardly any contrast"


def describe(frame: np.ndarray, faces: Sequence[Face]) -> str:
    """Remarks on the first of the faces found in a frame (H, W[, 3]) uint8; "" for a plain case.

    The first is the one that is taken.
    """
    face, notes = faces[0], []
    if len(faces) > 1:
        notes.append(f"{len(faces)} faces are in the frame: the largest is taken")
    turn = abs(math.degrees(detection.next_roi(face)[3]))
    if turn > MAX_SIDE_TURN:
        notes.append("the face stands on its head: it was turned upright")
    elif turn > MAX_UPRIGHT_TURN:
        notes.append("the face lies on its side: it was turned upright")
    if detection.inside_share(face, frame.shape[1], frame.shape[0]) < MIN_WHOLE_SHARE:
        notes.append("a part of the face lies outside of the frame")
    aligned = alignment.align(frame, alignment.five_points(face.points))
    if aligned.std() < MIN_CONTRAST:
        notes.append(FAINT_NOTE)
    if face.side < MIN_CLEAR_SIDE:
        notes.append(f"the face is only {face.side:.0f} pixels large")
    elif face.side > ALIGNED_SIZE and sharpness(aligned) < MIN_SHARPNESS:
        notes.append("the face is blurred")
    return "; ".join(notes)


def sharpness(aligned: np.ndarray) -> float:
    """Mean absolute Laplacian of a face (28, 28) uint8 over the standard deviation of its levels.

    >>> stripes = np.tile([[0, 255]], (28, 14)).astype(np.uint8)
    >>> ramp = np.tile(np.arange(28) * 9, (28, 1)).astype(np.uint8)
    >>> sharpness(stripes), sharpness(ramp)
    (4.0, 0.0)
    """
    a = aligned.astype(np.float64)
    inner = a[1:-1, 1:-1]
    laplacian = 4 * inner - a[:-2, 1:-1] - a[2:, 1:-1] - a[1:-1, :-2] - a[1:-1, 2:]
    return float(np.abs(laplacian).mean() / max(a.std(), 1e-9))


def crop_turn(crop: np.ndarray) -> Literal["no", "perhaps", "yes", "side"]:
    """Whether a picture (S, S) uint8 that one face fills shows it on its head, or on its side."""
    with interpreters() as nets:
        finder = detection.FaceFinder(nets, crop)
        x, y, side, _ = finder.whole(1.75)  # the detector needs surroundings
        angles = 0.0, math.pi, math.pi / 2, -math.pi / 2
        upright, turned, *lying = (finder.detector_score((x, y, side, a)) for a in angles)
    if turned >= MIN_TURNED_SCORE and turned > upright + MIN_TURNED_GAIN:
        return "yes"
    if max(lying) >= MIN_SIDE_SCORE and max(lying) > max(upright + MIN_SIDE_GAIN, turned):
        return "side"
    is_doubted = turned >= MIN_DOUBTED_SCORE and turned > upright + MIN_DOUBTED_GAIN
    return "perhaps" if is_doubted else "no"
