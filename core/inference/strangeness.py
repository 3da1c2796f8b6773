"""§3.1: points that are no faces, and a nonconformity measure that flags them.

Both measures of Eq. (8) read the softmax, which always has a first choice: noise can get a softmax
of 1.00 and then a high credibility. `distance_p_values` ranks a picture by its distance to drawn
faces instead, as in nearest-neighbour conformal prediction, and gives noise the smallest p-value
possible. Pictures are seeded; NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.conformal import prediction
from core.data.demo import actors, expressions
from core.media.faces import alignment

SIZE = 28  # pixels of an aligned face
NEIGHBOURS = 3  # nearest faces of a label whose mean distance is its nonconformity
RENDERED_SIZE = 64  # pixels of a drawn face before it is aligned


def noise_picture(seed: int = 0) -> np.ndarray:
    """Pixels drawn at random from 0 to 255: (28, 28) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)


def cat_picture(seed: int = 0) -> np.ndarray:
    """A cat's head, drawn: round face, pointed ears, slit eyes, nose, whiskers; (28, 28) uint8.

    The seed moves it by a pixel and changes its greys, so that cats differ.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    x, y = x - rng.integers(-1, 2) - 13.5, y - rng.integers(-1, 2)
    wall, fur = 205 + 30 * rng.random(), 85 + 40 * rng.random()
    picture = np.full((SIZE, SIZE), wall)
    picture[x**2 + (y - 16) ** 2 < 85] = fur
    for side in (-1, 1):
        ear = (y >= 2) & (y <= 11) & (np.abs(x - 6.5 * side) <= (y - 2) / 2.2)
        eye, slit = (x - 3.5 * side) ** 2 / 4 + (y - 14) ** 2 / 7, np.abs(x - 3.5 * side) < 0.8
        picture[ear] = fur
        picture[eye < 1] = 235
        picture[slit & (np.abs(y - 14) < 2.5)] = 15
        for tilt in (-0.2, 0.0, 0.2):
            hair = np.abs(y - 19.5 - tilt * side * x) < 0.4
            picture[hair & (side * x > 3) & (side * x < 12)] = 240
    picture[(np.abs(x) < 1.6) & (np.abs(y - 18) < 1)] = 30
    return picture.astype(np.uint8)


def strange_pictures() -> dict[str, np.ndarray]:
    """Name -> picture (28, 28) uint8 of what is no face."""
    white = np.full((SIZE, SIZE), 255, np.uint8)
    noise = {"noise": noise_picture(0), "other noise": noise_picture(3)}
    return noise | {"a cat": cat_picture(0), "a white square": white}


@dataclass(frozen=True)
class DistancePredictor:
    """Drawn faces: some to measure the distance to, others of further people to calibrate."""

    known: np.ndarray  # (N, 784) standardised faces
    label: np.ndarray  # (N,) their emotions
    alpha: np.ndarray  # (n,) distances of the calibration faces under their own emotions
    classes: tuple[str, ...]


def fit_distances(classes: tuple[str, ...]) -> DistancePredictor:
    """One face of every invented actor and emotion: half of the actors is known, half calibrates.

    Emotions that the demo corpus does not draw have no face, and are left out.
    """
    takes = [t for t in actors.list_takes(1) if t.emotion in classes]
    drawn = tuple(c for c in classes if any(t.emotion == c for t in takes))
    faces = np.stack([draw_face(t) for t in takes])
    label = np.array([drawn.index(t.emotion) for t in takes])
    # odd actors are men and even ones women: pairs keep both halves balanced
    known = np.array([(t.actor - 1) // 2 % 2 == 0 for t in takes])
    x = standardise(faces)
    distance = distances(x[known], label[known], x[~known], len(drawn))
    alpha = prediction.true_scores(distance, label[~known])
    return DistancePredictor(x[known], label[known], alpha, drawn)


def draw_face(take: actors.Take) -> np.ndarray:
    """The aligned face (28, 28) uint8 of a take of the demo corpus."""
    return alignment.align(*expressions.render_face(take, t=0.6, size=RENDERED_SIZE))


def standardise(faces: np.ndarray) -> np.ndarray:
    """Faces (n, 28, 28) as rows (n, 784) of mean 0 and variance 1, so that light does not count.

    A picture of one grey becomes zeros.
    """
    x = faces.reshape(len(faces), -1).astype(np.float64)
    x = x - x.mean(axis=1, keepdims=True)
    return x / np.maximum(x.std(axis=1, keepdims=True), 1e-9)


def distances(known: np.ndarray, label: np.ndarray, x: np.ndarray, classes: int) -> np.ndarray:
    """Nonconformity (m, K): mean distance to the NEIGHBOURS nearest known faces of each label."""
    square = (x**2).sum(axis=1)[:, None] + (known**2).sum(axis=1) - 2 * x @ known.T
    apart = np.sqrt(np.maximum(square, 0))
    nearest = [np.sort(apart[:, label == k], axis=1)[:, :NEIGHBOURS] for k in range(classes)]
    return np.stack([d.mean(axis=1) for d in nearest], axis=1)


def distance_p_values(f: DistancePredictor, pictures: np.ndarray) -> np.ndarray:
    """Eq. (9) on distances: pictures (m, 28, 28) uint8 -> (m, K) p-values of `f.classes`."""
    alpha = distances(f.known, f.label, standardise(pictures), len(f.classes))
    return prediction.p_values(f.alpha, alpha)
