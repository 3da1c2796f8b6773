"""§3.4: a frame -> facial landmarks -> a similarity transform on eyes, nose, mouth and chin -> a 28x28 grey face.

The paper finds its landmarks with an ensemble of regression trees; here MediaPipe's Face Landmarker v2 does it (BlazeFace proposes,
a mesh network places 478 points), run on LiteRT. Frames are (H, W, 3) uint8 RGB or (H, W) uint8 grey. Points are (x, y) pixels from
the upper left corner of the frame: the first pixel reaches from 0 to 1 and its centre is 0.5. Left and right are the picture's.
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

MIN_FACE_SCORE = (
    0.5  # MediaPipe's threshold, of the detector's score and of the mesh's presence score
)
MIN_TILE_SCORE = 0.65  # the detector's score in tiles, where spoons and cats' eyes reach 0.58; real faces, 28x28 blurred ones too, pass 0.75
MIN_FACE_SIDE = 16  # pixels of a face's longer side; below that nothing of an expression is left
MAX_LANDMARK_JITTER = 0.04  # of a face's side, that its landmarks may move in a second look; 98 % of FER2013's faces move less


# Centres of BlazeFace's 896 anchors in 0..1: two on each cell of a 16x16 grid, then six on each of 8x8.
ANCHOR_CENTRES = np.array(
    [
        ((i + 0.5) / n, (j + 0.5) / n)
        for n, m in ((16, 2), (8, 6))
        for j in range(n)
        for i in range(n)
        for _ in range(m)
    ]
)

_Roi = tuple[
    float, float, float, float
]  # a square: centre x, centre y, side (pixels), angle (radians, clockwise as seen)


class NoFaceError(UserError):
    """No face where one is needed; the message names the file and what to try."""


@dataclass(frozen=True)
class Face:
    """One face in one frame."""

    points: np.ndarray  # (478, 2) float32, pixels
    score: float  # that a face is present there, 0..1

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the landmarks, pixels."""
        return (*self.points.min(0).tolist(), *self.points.max(0).tolist())

    @property
    def side(self) -> float:
        """The longer side of the box, pixels."""
        return float(np.ptp(self.points, axis=0).max())


class FaceFinder:
    """One frame, and the networks to look at parts of it with."""

    def __init__(self, nets: tuple[Any, Any], frame: np.ndarray) -> None:
        frame = np.asarray(frame)
        if (
            frame.dtype != np.uint8
            or not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 3))
            or 0 in frame.shape
        ):
            raise ValueError(
                f"a frame is (H, W, 3) RGB or (H, W) grey, uint8; this one is {frame.shape} {frame.dtype}"
            )
        self.nets, self.image = nets, Image.fromarray(frame).convert("RGB")
        # Fills what lies outside. MediaPipe fills with black; with the mean, 288 instead of 281 of 300 tight FER2013 crops are found.
        self.mean = self.image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))

    def run(self, net: Any, roi: _Roi, size: int, low: float) -> list[np.ndarray]:
        """A network's outputs for a square of the frame, (size, size, 3), bilinear, its values scaled to low..1."""
        x, y, side, angle = roi
        a, b, half = side / size * math.cos(angle), side / size * math.sin(angle), size / 2
        to_image = (
            a,
            -b,
            x - half * (a - b),
            b,
            a,
            y - half * (a + b),
        )  # PIL adds the pixel centres' half itself
        at = self.image.transform(
            (size, size),
            Image.Transform.AFFINE,
            to_image,
            Image.Resampling.BILINEAR,
            fillcolor=self.mean,
        )
        net.set_tensor(
            net.get_input_details()[0]["index"],
            np.asarray(at, np.float32)[None] * ((1 - low) / 255) + low,
        )
        net.invoke()
        return [net.get_tensor(out["index"]) for out in net.get_output_details()]

    def propose_rois(self, views: Sequence[_Roi], least: float = MIN_FACE_SCORE) -> list[_Roi]:
        """BlazeFace on upright squares of the frame -> regions for the mesh, best first; overlapping boxes are averaged by their scores."""
        boxes, scores = [np.empty((0, 8))], [np.empty(0)]
        for view in views:
            raw, logit = self.run(self.nets[0], view, 128, -1)  # (1, 896, 16), (1, 896, 1)
            score = 1 / (1 + np.exp(-np.clip(logit[0, :, 0].astype(np.float64), -100, 100)))
            keep = score > least
            box, half = (
                raw[0, keep, :8] / 128 + np.tile(ANCHOR_CENTRES[keep], 4),
                raw[0, keep, 2:4] / 256,
            )  # centre, size, both eyes
            corners = np.concatenate([box[:, :2] - half, box[:, :2] + half, box[:, 4:]], 1)
            boxes.append(
                corners * view[2] + np.tile([view[0] - view[2] / 2, view[1] - view[2] / 2], 4)
            )
            scores.append(score[keep])
        box, score, found = np.concatenate(boxes), np.concatenate(scores), []
        while len(score):
            best = score.argmax()
            inter = np.clip(
                np.minimum(box[best, 2:4], box[:, 2:4]) - np.maximum(box[best, :2], box[:, :2]),
                0,
                None,
            ).prod(1)
            area = (box[:, 2:4] - box[:, :2]).prod(1)
            near = inter > 0.3 * (area[best] + area - inter)
            near[best] = True  # also without an area
            x0, y0, x1, y1, *eyes = np.average(box[near], axis=0, weights=score[near]).tolist()
            turn = math.atan2(eyes[3] - eyes[1], eyes[2] - eyes[0])
            found.append(((x0 + x1) / 2, (y0 + y1) / 2, 1.5 * max(x1 - x0, y1 - y0), turn))
            box, score = box[~near], score[~near]
        return found

    def fit_mesh(self, roi: _Roi) -> Face:
        """478 landmarks inside a region, whether or not a face is there: the score says."""
        x, y, side, angle = roi
        points, presence, _ = self.run(self.nets[1], roi, 256, 0)
        u, v = (points.reshape(478, 3)[:, :2].astype(np.float64).T / 256 - 0.5) * side
        c, s = math.cos(angle), math.sin(angle)
        score = 1 / (1 + math.exp(-min(max(float(presence.item()), -100.0), 100.0)))
        return Face(np.stack([c * u - s * v + x, s * u + c * v + y], 1).astype(np.float32), score)

    def confirm_face(self, roi: _Roi) -> Face | None:
        """The face in a proposed region, if a look from its own landmarks agrees: the score alone is 1.0 for spoons, too.

        One that lies on its side comes right within a few looks. One that is right at once is left as MediaPipe would give it.
        """
        looks = [self.fit_mesh(roi)]
        while looks[-1].score >= MIN_FACE_SCORE and len(looks) < 6:
            face = self.fit_mesh(next_roi(looks[-1]))
            moved = np.hypot(*(face.points - looks[-1].points).T).mean()
            if face.score >= MIN_FACE_SCORE and moved < MAX_LANDMARK_JITTER * face.side:
                return looks[0] if len(looks) == 1 else face
            looks.append(face)
        return None

    def place(self, rois: Sequence[_Roi], known: Sequence[Face] = ()) -> list[Face]:
        """Faces in those proposed regions, but for the known ones."""
        new: list[Face] = []
        for roi in rois:
            face = None if _is_inside(roi, [*known, *new]) else self.confirm_face(roi)
            if face and is_new(face, [*known, *new]):
                new.append(face)
        return new

    def whole(self, zoom: float = 1.0) -> _Roi:
        return self.image.width / 2, self.image.height / 2, max(self.image.size) * zoom, 0.0

    def tile_rois(self, part: int) -> list[_Roi]:
        """Squares of 1/part of the frame's short side, each half over the next; none where they would be the frame, or too small."""
        w, h = self.image.size
        side = min(w, h) / part
        if side < 2 * MIN_FACE_SIDE or w == h == side:
            return []
        xs, ys = (
            np.linspace(side / 2, n - side / 2, min(math.ceil(2 * (n / side - 1)) + 1, 12)).tolist()
            for n in (w, h)
        )
        return [(x, y, side, 0.0) for y in ys for x in xs]

    def search(self, known: Sequence[Face] = ()) -> list[Face]:
        """All faces but the known ones. BlazeFace's short range misses faces below a tenth of its view: so tiles too.

        It also misses crops without surroundings: so, if there is nothing yet, from further off and by smaller tiles.
        """
        new = self.place(
            self.propose_rois([self.whole()])
            + self.propose_rois(self.tile_rois(1) + self.tile_rois(2), MIN_TILE_SCORE),
            known,
        )
        if not new and not known:
            new = self.place(
                self.propose_rois([self.whole(1.75)])
                + self.propose_rois(self.tile_rois(3), MIN_TILE_SCORE)
            )
        return new


def next_roi(face: Face) -> _Roi:
    """Where to look in the next frame: 1.5 times the landmarks' box, turned with the eyes' outer corners (as MediaPipe does)."""
    x0, y0, x1, y1 = face.box
    across = face.points[landmarker.RIGHT_EYE[0]] - face.points[landmarker.LEFT_EYE[0]]
    return (x0 + x1) / 2, (y0 + y1) / 2, 1.5 * face.side, math.atan2(across[1], across[0])


def _is_inside(roi: _Roi, faces: Sequence[Face]) -> bool:
    return any(f.box[0] < roi[0] < f.box[2] and f.box[1] < roi[1] < f.box[3] for f in faces)


def is_new(face: Face, known: Sequence[Face]) -> bool:
    return (
        face.score >= MIN_FACE_SCORE
        and face.side >= MIN_FACE_SIDE
        and not _is_inside(next_roi(face), known)
    )


def detect(frame: np.ndarray) -> list[Face]:
    """All faces of a frame (H, W, 3) or (H, W) uint8, largest first; an empty list if there is none.

    Faces from about an eighteenth of the frame's short side on are found, and none below SMALLEST pixels.
    Raises ValueError for anything but a uint8 frame, ModelMissing without the model file.
    """
    with landmarker.interpreters() as nets:
        return sorted(FaceFinder(nets, frame).search(), key=lambda face: -face.side)
