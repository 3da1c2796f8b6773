"""§3.4: a frame -> faces with 478 landmarks each.

Frames are (H, W, 3) uint8 RGB or (H, W) uint8 grey. Points are (x, y) in pixels from the frame's
upper left corner: the first pixel reaches from 0 to 1 and its centre is 0.5. Left and right are the
picture's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from core.files import UserError
from core.media.faces import landmarker

MIN_FACE_SCORE = 0.5  # MediaPipe's threshold, for the detector's and the mesh's score
# Detector's score in tiles, where spoons and cats' eyes reach 0.58; real faces pass 0.75, blurred
# ones of 28x28 pixels too.
MIN_TILE_SCORE = 0.65
MIN_FACE_SIDE = 16  # pixels of a face's longer side; a smaller one shows no expression
# Mean movement of the landmarks in a second fit, relative to the face's side; 98 % of FER2013's
# faces move less.
MAX_LANDMARK_JITTER = 0.04
MAX_FITS = 6  # fits of the mesh to one proposed region
MAX_TILES = 12  # tiles along one side of the frame

# Centres of BlazeFace's 896 anchors in 0..1: 2 per cell of a 16x16 grid, then 6 per cell of 8x8.
ANCHOR_CENTRES = np.concatenate(
    [
        np.repeat([((i + 0.5) / n, (j + 0.5) / n) for j in range(n) for i in range(n)], m, axis=0)
        for n, m in ((16, 2), (8, 6))
    ]
)

CENTRAL_ANCHORS = np.abs(ANCHOR_CENTRES - 0.5).max(axis=1) < 0.25
# The detector's views of a face, over the mesh's region, of which the better counts, and by how
# much that must be higher for the face turned by 180 degrees. Of 146 upright faces (RAVDESS,
# FER2013, invented ones) it is lower by 0.08 to 0.54 when turned; of 60 faces on their heads to
# which the mesh was fitted upside down it is higher by 0.07 to 0.44 in all but one.
DETECTOR_ZOOMS, MIN_TURNED_GAIN = (1.2, 1.75), 0.05
SURELY_UPRIGHT = 0.85  # of the nearer view; of 83 meshes on their heads none had more than 0.79
MIN_INSIDE_SHARE = 0.5  # of a face's landmarks that must lie inside the frame

# A square region: centre x, centre y, side (pixels), angle (radians, clockwise as seen).
_Roi = tuple[float, float, float, float]


class NoFaceError(UserError):
    """No face where one is needed; the message names the file and the fix."""


@dataclass(frozen=True)
class Face:
    """One face in one frame."""

    points: np.ndarray  # (478, 2) float32, pixels
    score: float  # probability that a face is there, 0..1

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Bounds x0, y0, x1, y1 of the landmarks, pixels."""
        return (*self.points.min(0).tolist(), *self.points.max(0).tolist())

    @property
    def side(self) -> float:
        """Longer side of the box, pixels."""
        return float(np.ptp(self.points, axis=0).max())


class FaceFinder:
    """One frame, and the networks that look at its regions."""

    def __init__(self, nets: tuple[Any, Any], frame: np.ndarray) -> None:
        frame = np.asarray(frame)
        is_image = frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 3)
        if frame.dtype != np.uint8 or not is_image or 0 in frame.shape:
            expected = "a frame is (H, W, 3) RGB or (H, W) grey, uint8"
            raise ValueError(f"{expected}; this one is {frame.shape} {frame.dtype}")
        self.nets, self.image = nets, Image.fromarray(frame).convert("RGB")
        # Colour outside the frame. MediaPipe uses black; with the mean, 288 instead of 281 of 300
        # tight FER2013 crops are found.
        self.mean = self.image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))

    def run(self, net: Any, roi: _Roi, size: int, low: float) -> list[np.ndarray]:
        """A network's outputs for a region, resampled to (size, size, 3) and scaled to low..1."""
        x, y, side, angle = roi
        a, b, half = side / size * math.cos(angle), side / size * math.sin(angle), size / 2
        # PIL adds the half of the pixels' centres itself.
        to_image = (a, -b, x - half * (a - b), b, a, y - half * (a + b))
        patch = self.image.transform(
            (size, size),
            Image.Transform.AFFINE,
            to_image,
            Image.Resampling.BILINEAR,
            fillcolor=self.mean,
        )
        values = np.asarray(patch, np.float32)[None] * ((1 - low) / 255) + low
        net.set_tensor(net.get_input_details()[0]["index"], values)
        net.invoke()
        return [net.get_tensor(out["index"]) for out in net.get_output_details()]

    def propose_rois(self, views: Sequence[_Roi], least: float = MIN_FACE_SCORE) -> list[_Roi]:
        """Regions for the mesh, best first: BlazeFace on upright squares of the frame.

        Overlapping boxes are averaged, weighted by their scores.
        """
        boxes, scores = [np.empty((0, 8))], [np.empty(0)]
        for view in views:
            # Boxes above the threshold, as two corners and both eyes, in the view and then pixels.
            raw, logit = self.run(self.nets[0], view, 128, -1)  # (1, 896, 16), (1, 896, 1)
            score = 1 / (1 + np.exp(-np.clip(logit[0, :, 0].astype(np.float64), -100, 100)))
            keep = score > least
            box = raw[0, keep, :8] / 128 + np.tile(ANCHOR_CENTRES[keep], 4)
            half = raw[0, keep, 2:4] / 256
            corners = np.concatenate([box[:, :2] - half, box[:, :2] + half, box[:, 4:]], 1)
            origin = [view[0] - view[2] / 2, view[1] - view[2] / 2]
            boxes.append(corners * view[2] + np.tile(origin, 4))
            scores.append(score[keep])
        box, score, found = np.concatenate(boxes), np.concatenate(scores), []
        while len(score):
            # Average the best box with those that share more than 0.3 (intersection over union).
            best = score.argmax()
            upper, lower = (
                np.maximum(box[best, :2], box[:, :2]),
                np.minimum(box[best, 2:4], box[:, 2:4]),
            )
            inter = np.clip(lower - upper, 0, None).prod(1)
            area = (box[:, 2:4] - box[:, :2]).prod(1)
            near = inter > 0.3 * (area[best] + area - inter)
            near[best] = True  # also without an area
            x0, y0, x1, y1, *eyes = np.average(box[near], axis=0, weights=score[near]).tolist()
            angle = math.atan2(eyes[3] - eyes[1], eyes[2] - eyes[0])
            found.append(((x0 + x1) / 2, (y0 + y1) / 2, 1.5 * max(x1 - x0, y1 - y0), angle))
            box, score = box[~near], score[~near]
        return found

    def fit_mesh(self, roi: _Roi) -> Face:
        """478 landmarks inside a region; the score is low where no face is there."""
        x, y, side, angle = roi
        points, presence, _ = self.run(self.nets[1], roi, 256, 0)
        u, v = (points.reshape(478, 3)[:, :2].astype(np.float64).T / 256 - 0.5) * side
        c, s = math.cos(angle), math.sin(angle)
        score = 1 / (1 + math.exp(-min(max(float(presence.item()), -100.0), 100.0)))
        return Face(np.stack([c * u - s * v + x, s * u + c * v + y], 1).astype(np.float32), score)

    def detector_score(self, roi: _Roi) -> float:
        """BlazeFace's highest score (0..1) for an upright face in the middle of a region."""
        logit = self.run(self.nets[0], roi, 128, -1)[1][0, CENTRAL_ANCHORS, 0]
        return float(1 / (1 + np.exp(-np.clip(logit.max().astype(np.float64), -100, 100))))

    def confirm_face(self, roi: _Roi) -> Face | None:
        """The face in a proposed region, if it is sure, the right way up and mostly in the frame.

        The mesh also fits a face that stands on its head, with the eyes upside down: then the
        detector's score is higher for the region turned by 180 degrees.
        """
        face = self._fit_surely(roi)
        if face is None:
            return None
        x, y, side, angle = next_roi(face)
        near, far = DETECTOR_ZOOMS
        upright = self.detector_score((x, y, near * side, angle))
        if upright < SURELY_UPRIGHT:
            upright = max(upright, self.detector_score((x, y, far * side, angle)))
            other = angle + math.pi
            turned = max(self.detector_score((x, y, k * side, other)) for k in DETECTOR_ZOOMS)
            if turned > upright + MIN_TURNED_GAIN:
                face = self._fit_surely((x, y, side, other))
        return face if face and self.accepts(face) else None

    def accepts(self, face: Face) -> bool:
        """Whether most of a face lies in the frame, and it is no mirror image."""
        is_inside = inside_share(face, *self.image.size) >= MIN_INSIDE_SHARE
        return is_inside and not is_mirrored(face.points)

    def _fit_surely(self, roi: _Roi) -> Face | None:
        """The face in a region, if a second fit from its own landmarks agrees.

        The score alone does not suffice: spoons get 1.0, too. A face on its side needs a few
        fits; a face whose first fit is right is returned as MediaPipe would give it.
        """
        fits = [self.fit_mesh(roi)]
        while fits[-1].score >= MIN_FACE_SCORE and len(fits) < MAX_FITS:
            face = self.fit_mesh(next_roi(fits[-1]))
            moved = np.hypot(*(face.points - fits[-1].points).T).mean()
            if face.score >= MIN_FACE_SCORE and moved < MAX_LANDMARK_JITTER * face.side:
                return fits[0] if len(fits) == 1 else face
            fits.append(face)
        return None

    def place(self, rois: Sequence[_Roi], known: Sequence[Face] = ()) -> list[Face]:
        """Faces in the proposed regions, without the known ones."""
        new: list[Face] = []
        for roi in rois:
            face = None if _is_inside(roi, [*known, *new]) else self.confirm_face(roi)
            if face and is_new(face, [*known, *new]):
                new.append(face)
        return new

    def whole(self, zoom: float = 1.0) -> _Roi:
        """The square around the whole frame, times `zoom`."""
        return self.image.width / 2, self.image.height / 2, max(self.image.size) * zoom, 0.0

    def tile_rois(self, part: int) -> list[_Roi]:
        """Squares of 1/part of the frame's short side, each overlapping the next by half.

        None where a tile would be the whole frame, or too small for a face.
        """
        w, h = self.image.size
        side = min(w, h) / part
        if side < 2 * MIN_FACE_SIDE or w == h == side:
            return []
        counts = (min(math.ceil(2 * (n / side - 1)) + 1, MAX_TILES) for n in (w, h))
        xs, ys = (
            np.linspace(side / 2, n - side / 2, count).tolist() for n, count in zip((w, h), counts)
        )
        return [(x, y, side, 0.0) for y in ys for x in xs]

    def search(self, known: Sequence[Face] = ()) -> list[Face]:
        """All faces without the known ones.

        BlazeFace's short range misses faces below a tenth of its view, so tiles are searched too.
        It also misses crops without surroundings: if no face is found or known, the frame is
        searched again from further off and in smaller tiles.
        """
        tiles = self.tile_rois(1) + self.tile_rois(2)
        rois = self.propose_rois([self.whole()]) + self.propose_rois(tiles, MIN_TILE_SCORE)
        new = self.place(rois, known)
        if not new and not known:
            far, small = self.propose_rois([self.whole(1.75)]), self.tile_rois(3)
            new = self.place(far + self.propose_rois(small, MIN_TILE_SCORE))
        return new


def next_roi(face: Face) -> _Roi:
    """The region to fit next: 1.5 times the landmarks' box, turned with the eyes' outer corners.

    As in MediaPipe.
    """
    x0, y0, x1, y1 = face.box
    across = face.points[landmarker.RIGHT_EYE[0]] - face.points[landmarker.LEFT_EYE[0]]
    return (x0 + x1) / 2, (y0 + y1) / 2, 1.5 * face.side, math.atan2(across[1], across[0])


def inside_share(face: Face, width: int, height: int) -> float:
    """Share of a face's landmarks that lie inside a frame of that size (pixels)."""
    x, y = face.points.T
    return float(((x >= 0) & (x <= width) & (y >= 0) & (y <= height)).mean())


def is_mirrored(points: np.ndarray) -> bool:
    """Whether landmarks (478, 2) have the left eye on the right, as seen with the chin below.

    No face looks so, and an alignment without mirroring would place its points wrongly.
    """
    left, right = (points[list(eye)].mean(0) for eye in (landmarker.LEFT_EYE, landmarker.RIGHT_EYE))
    across, down = right - left, points[landmarker.CHIN] - (left + right) / 2
    return bool(across[0] * down[1] - across[1] * down[0] <= 0)


def _is_inside(roi: _Roi, faces: Sequence[Face]) -> bool:
    return any(f.box[0] < roi[0] < f.box[2] and f.box[1] < roi[1] < f.box[3] for f in faces)


def is_new(face: Face, known: Sequence[Face]) -> bool:
    """Whether a fit is a face of usable size that does not lie inside a known one."""
    is_usable = face.score >= MIN_FACE_SCORE and face.side >= MIN_FACE_SIDE
    return is_usable and not _is_inside(next_roi(face), known)


def detect(frame: np.ndarray) -> list[Face]:
    """All faces of a frame (H, W, 3) or (H, W) uint8, the largest first; [] if there is none.

    Finds faces above about 1/18 of the frame's short side, and at least MIN_FACE_SIDE pixels.
    Raises ValueError for any other frame, ModelMissing without the model file.
    """
    with landmarker.interpreters() as nets:
        return sorted(FaceFinder(nets, frame).search(), key=lambda face: -face.side)
