"""Similarity transforms and aligned faces: of drawn marks, the astronaut's photograph, FER2013."""

from __future__ import annotations

import io
import math
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from core.media.faces.alignment import (
    CANONICAL_POINTS,
    align,
    align_crops,
    crop_points,
    five_points,
    similarity_transform,
)
from core.media.faces.detection import detect
from tests.support.face_pictures import likeness, real

pytestmark = pytest.mark.usefixtures("model")


def random_similarities(rng: np.random.Generator, count: int) -> np.ndarray:
    turn, scale = rng.uniform(-np.pi, np.pi, count), rng.uniform(0.1, 10, count)
    c, s, (x, y) = scale * np.cos(turn), scale * np.sin(turn), rng.normal(0, 100, (2, count))
    return np.stack([np.stack([c, -s, x], -1), np.stack([s, c, y], -1)], -2)


def test_a_similarity_is_recovered_exactly_and_in_batches():
    rng = np.random.default_rng(0)
    m = random_similarities(rng, 50)
    src = rng.normal(0, 30, (50, 5, 2))
    dst = src @ m[:, :, :2].transpose(0, 2, 1) + m[:, None, :, 2]
    got = similarity_transform(src, dst)
    assert got.shape == (50, 2, 3)
    assert got == pytest.approx(m, abs=1e-8)
    assert similarity_transform(src[7], dst[7]) == pytest.approx(got[7])


def test_with_noise_it_is_the_least_squares_one_and_never_a_mirror():
    from skimage.transform import SimilarityTransform

    rng = np.random.default_rng(1)
    for _ in range(20):
        src, dst = rng.normal(0, 30, (5, 2)), rng.normal(0, 30, (5, 2))
        m = similarity_transform(src, dst)
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
    assert similarity_transform(src, near) == pytest.approx(theirs.params[:2], abs=1e-6)


def test_points_that_are_one_have_no_similarity():
    with pytest.raises(ValueError, match="two different points"):
        similarity_transform(np.ones((5, 2)), CANONICAL_POINTS)


def test_the_five_points_and_their_canonical_places(face):
    five = five_points(face.points)
    left, right, nose, mouth, chin = five
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1] < mouth[1] < chin[1]
    assert five_points(np.stack([face.points] * 3)[None]).shape == (1, 3, 5, 2)
    assert ((CANONICAL_POINTS > 0) & (CANONICAL_POINTS < 1)).all()
    assert CANONICAL_POINTS[:2, 0].mean() == 0.5
    m = similarity_transform(five, CANONICAL_POINTS * 28)
    placed = np.c_[face.points, np.ones(478)] @ m.T
    assert np.hypot(*(five_points(placed) - CANONICAL_POINTS * 28).T).max() < 2
    assert placed[152, 1] < 28
    assert placed[[105, 334], 1].min() > 0


@pytest.mark.parametrize("scale", [1.0, 2.5, 9.0, 25.0])
@pytest.mark.parametrize("turn", [0.0, 35.0, -120.0])
def test_marks_land_on_their_canonical_places(scale, turn):
    """Blobs at five points of a frame have their centroids at CANONICAL_POINTS, to 0.1 pixel."""
    h, w = 1100, 1200
    c, s = scale * math.cos(math.radians(turn)), scale * math.sin(math.radians(turn))
    five = (CANONICAL_POINTS - 0.5) * 28 @ np.array([[c, s], [-s, c]]) + [610.3, 540.8]
    # Blobs are given by the values at the pixels' centres.
    y, x = np.mgrid[:h, :w] + 0.5
    for k in range(5):
        squared = (x - five[k, 0]) ** 2 + (y - five[k, 1]) ** 2
        blob = 250 * np.exp(-squared / (2 * (0.9 * scale) ** 2))
        got = align(np.rint(blob).astype(np.uint8), five).astype(float)
        v, u = np.mgrid[:28, :28] + 0.5
        centroid = [(got * u).sum() / got.sum(), (got * v).sum() / got.sum()]
        assert centroid == pytest.approx(CANONICAL_POINTS[k] * 28, abs=0.1)


def test_grey_is_rec_601_and_flat_stays_flat():
    five = CANONICAL_POINTS * 200 + 30
    levels = {(255, 0, 0): 76, (0, 255, 0): 150, (0, 0, 255): 29, (200, 200, 200): 200}
    for colour, grey in levels.items():
        frame = np.tile(np.array(colour, np.uint8), (300, 260, 1))
        assert np.abs(align(frame, five).astype(int) - grey).max() <= 1


def test_fine_patterns_become_grey_not_noise():
    frame = ((np.indices((600, 600)).sum(0) % 2) * 255).astype(np.uint8)
    got = align(frame, CANONICAL_POINTS * 500 + 40).astype(float)
    assert got.mean() == pytest.approx(127.5, abs=3)
    assert got.std() < 6


def test_beyond_the_frame_its_edge_is_repeated():
    frame = np.full((100, 100), 90, np.uint8)
    frame[:, 80:] = 200
    for shift, value in (((-60, -60), 90), ((500, 0), 200), ((0, -300), 90)):
        got = align(frame, CANONICAL_POINTS * 60 + shift)
        assert got.shape == (28, 28)
        assert (got == value).all()
    with pytest.raises(ValueError, match="five finite points"):
        align(frame, np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match="no face in a frame"):
        align(frame, CANONICAL_POINTS * 1e6)


@pytest.mark.parametrize("turn", [25, -40, 90, -90, 75])
def test_a_turned_photo_gives_the_same_face(photo, face, turn):
    straight = align(photo, five_points(face.points))
    turned = np.asarray(Image.fromarray(photo).rotate(turn, Image.Resampling.BICUBIC))
    (found,) = detect(turned)
    assert likeness(align(turned, five_points(found.points)), straight) > 0.93
    assert straight.std() > 30


def crops(photo: np.ndarray) -> np.ndarray:
    """Tight 48x48 grey crops of the astronaut's face, and two without one at the end."""
    rng = np.random.default_rng(0)
    grey, size, box = Image.fromarray(photo).convert("L"), (48, 48), Image.Resampling.BOX
    places = rng.integers((168, 58, 100), (181, 71, 121), (10, 3)).tolist()
    tight = [grey.resize(size, box, (x, y, x + side, y + side)) for x, y, side in places]
    without = [rng.integers(0, 256, size, np.uint8), np.full(size, 90, np.uint8)]
    return np.stack([*map(np.asarray, tight), *without])


def test_tight_crops_are_aligned_like_clips(photo, face):
    steps = []
    got, found = align_crops(crops(photo), lambda *step: steps.append(step), workers=2)
    assert (got.shape, got.dtype, steps[-1]) == ((12, 28, 28), np.uint8, (12, 12))
    assert found.tolist() == [True] * 10 + [False] * 2
    as_clip = align(photo, five_points(face.points))
    assert min(likeness(crop, as_clip) for crop in got[:10]) > 0.9
    alone, _ = align_crops(crops(photo), workers=1)
    assert (alone == got).all()


def test_crops_not_found_take_the_median_of_the_others(photo):
    images = crops(photo)
    got, found = align_crops(images)
    points = np.stack([crop_points(image) for image in images[:10]])
    assert (got[-2] == align(images[-2], np.median(points, axis=0))).all()
    assert not found[-2]
    alone, none = align_crops(images[-2:])
    assert not none.any()
    assert (alone[0] == align(images[-2], CANONICAL_POINTS * 48)).all()
    nothing, found = align_crops(images[:0])
    assert (nothing.shape, found.shape) == ((0, 28, 28), (0,))
    with pytest.raises(ValueError, match="crops are"):
        align_crops(images.astype(float))


def test_faces_are_found_in_nearly_all_fer_crops():
    (archive,) = real("fer2013_subset.zip")
    with zipfile.ZipFile(archive) as files:
        names = [n for n in files.namelist() if re.fullmatch(r"validation/.*\.jpg", n)]
        pictures = [Image.open(io.BytesIO(files.read(n))) for n in sorted(names)[::36]]
        images = np.stack([np.asarray(picture.convert("L")) for picture in pictures])
    got, found = align_crops(images)
    assert len(images) > 45
    assert found.mean() > 0.9
    assert got.std((1, 2)).min() > 3
