"""Faces of a photograph (scikit-image's astronaut), drawn frames and real stills are found."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from core.media import clips
from core.media.faces.detection import detect
from tests.support.face_pictures import canvas, real

pytestmark = pytest.mark.usefixtures("model")


def mean_distance(a: np.ndarray, b: np.ndarray) -> float:
    return np.hypot(*(a - b).T).mean()


def reference(picture: np.ndarray, model: Path) -> np.ndarray:
    """mediapipe's own landmarks (478, 2), pixels."""
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        base = BaseOptions(model_asset_path=str(model))
        options = vision.FaceLandmarkerOptions(base_options=base)
        with vision.FaceLandmarker.create_from_options(options) as finder:
            rgb, data = mediapipe.ImageFormat.SRGB, np.ascontiguousarray(picture)
            result = finder.detect(mediapipe.Image(image_format=rgb, data=data))
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"mediapipe cannot run here (it needs libEGL and libGLES): {error}")
    h, w = picture.shape[:2]
    return np.array([[p.x * w, p.y * h] for p in result.face_landmarks[0]])


def test_landmarks_are_mediapipes(photo, face, model):
    theirs = reference(photo, model)
    assert mean_distance(face.points, theirs) < 1
    assert np.hypot(*(face.points - theirs).T).max() < 2
    assert face.points.shape == (478, 2)
    assert face.points.dtype == np.float32
    assert 0.99 < face.score <= 1
    wide = photo[:280]
    assert mean_distance(detect(wide)[0].points, reference(wide, model)) < 1


def test_the_box_bounds_the_points(face):
    x0, y0, x1, y1 = face.box
    assert (face.points >= np.float32([x0, y0])).all()
    assert (face.points <= np.float32([x1, y1])).all()
    assert 170 < x0 < 200
    assert 60 < y0 < 90
    assert face.side == pytest.approx(y1 - y0)
    assert 80 < face.side < 130


def test_two_faces_are_found_largest_first(photo):
    frame = canvas(512, 1024, (photo, 512, 0, 0), (photo, 256, 640, 120))
    large, small = detect(frame)
    assert large.box[2] < 512 < 640 < small.box[0]
    assert large.side / small.side == pytest.approx(2, rel=0.08)


@pytest.mark.parametrize("side", [320, 200, 130])
@pytest.mark.parametrize("shape", [(360, 640), (640, 360)], ids=["wide", "tall"])
def test_small_faces_are_found_in_tiles(photo, face, side, shape):
    h, w = shape
    x, y = w - side - 3, h - side - 5
    found = detect(canvas(h, w, (photo, side, x, y)))
    assert len(found) == 1
    expected = face.points * side / 512 + [x, y]
    assert mean_distance(found[0].points, expected) < 0.04 * found[0].side


@pytest.mark.parametrize(
    "box", [(170, 60, 290, 200), (190, 80, 265, 175)], ids=["tight", "tighter"]
)
def test_crops_without_surroundings_are_found(photo, face, box):
    found = detect(photo[box[1] : box[3], box[0] : box[2]])
    assert len(found) == 1
    assert mean_distance(found[0].points + box[:2], face.points) < 0.06 * face.side


@pytest.mark.parametrize("name", ["brick", "coffee", "chelsea", "rocket", "page", "grass"])
def test_no_face_where_there_is_none(name):
    assert detect(getattr(skimage.data, name)()) == []  # a spoon and a cat among them


def test_odd_frames():
    assert detect(np.zeros((2, 2, 3), np.uint8)) == []
    assert detect(np.full((40, 900), 128, np.uint8)) == []
    bad = [np.zeros(shape, np.uint8) for shape in ((10, 10, 4), (0, 5, 3), (5,))]
    for frame in (np.zeros((10, 10, 3)), *bad):
        with pytest.raises(ValueError, match="a frame is"):
            detect(frame)


def test_grey_frames_do(photo, face):
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    assert mean_distance(detect(grey)[0].points, face.points) < 1.5


def test_threads_get_the_same_bit_for_bit(photo):
    frames = [canvas(300, 400, (photo, 260 + 4 * k, 10 + 7 * k, 5 * k)) for k in range(4)]
    alone = [[(f.points, f.score) for f in detect(frame)] for frame in frames]
    assert all(len(found) == 1 for found in alone)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detect, frames * 2))
    for found, expected in zip(together, alone * 2, strict=True):
        assert len(found) == 1
        assert (found[0].points == expected[0][0]).all()
        assert found[0].score == expected[0][1]


def test_every_real_still_shows_one_face():
    for path in real("ravdess_stills/*.png")[1::2]:
        frame = clips.read_clip(path).frames[0]
        assert len(detect(frame)) == 1, path
