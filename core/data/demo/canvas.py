"""A picture that a face is painted on, and the shapes it is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

F32 = np.float32
Four = tuple[float, float, float, float]


@dataclass(frozen=True)
class Canvas:
    """A part of the picture, painted in place, and the position of its pixels on the head."""

    rgb: np.ndarray  # (3, h, w) float32
    # (5, h, w): u, v of the outline; x, y on the surface, which shift as the head turns; relief
    maps: np.ndarray
    pixel_side: float  # length of a pixel's side
    at: Four  # cos and sin of the roll over px, pixel of the origin
    turn: Four  # yaw, pitch, half width and the chin's drop

    def to_pixel(self, x: float, y: float) -> tuple[float, float]:
        """Column and row of a point on the surface."""
        return project(x, y, self.at, self.turn)

    def window(self, x: float, y: float, rx: float, ry: float) -> Canvas:
        """The part around a point on the surface."""
        col, row = self.to_pixel(x, y)
        c, s = abs(self.at[0]), abs(self.at[1])
        w, h = c * rx + s * ry + 2, s * rx + c * ry + 2
        rows = slice(max(0, int(row - h)), max(0, int(row + h)))
        cut = slice(None), rows, slice(max(0, int(col - w)), max(0, int(col + w)))
        return Canvas(self.rgb[cut], self.maps[cut], self.pixel_side, self.at, self.turn)

    def coverage(self, distance: np.ndarray, blur: float = 0.0) -> np.ndarray:
        """Signed distance (inside is negative) -> share of the pixel that is covered, 0..1."""
        return np.clip(0.5 - distance / (self.pixel_side + blur), 0, 1)

    def paint(self, mask: np.ndarray, colour: np.ndarray) -> None:
        """Blend a colour (3,) or (3, h, w) over the part; `mask` is the opacity 0..1."""
        self.rgb[...] += mask * ((colour if colour.ndim == 3 else colour[:, None, None]) - self.rgb)


def project(x: float, y: float, at: Four, turn: Four) -> tuple[float, float]:
    """Column and row of a point on the surface of a head, `at` and `turn` as a canvas has them."""
    c, s, ox, oy = at
    yaw, pitch, width, drop = turn
    u, v = x, y
    for _ in range(4):
        z = max(0.0, 1 - (u / width) ** 2 - (v / (1 + drop)) ** 2) ** 0.5
        u, v = x + yaw * z, y + pitch * z
    return c * u - s * v + ox, s * u + c * v + oy


def smoothstep(x):
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def gaussian(x, width):
    return np.exp(-((x / width) ** 2))


def ellipse_distance(x: np.ndarray, y: np.ndarray, rx: float, ry: float) -> np.ndarray:
    return (np.sqrt((x / rx) ** 2 + (y / ry) ** 2) - 1) * min(rx, ry)


def rgb(r: float, g: float, b: float) -> np.ndarray:
    return np.array([r, g, b], F32)


def shade(colour: np.ndarray, shade: np.ndarray) -> np.ndarray:
    return colour[:, None, None] * shade
