"""Eyes, brows, nostrils and mouth of a drawn face, moved by the action units `a`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from core.data.demo.canvas import Canvas, gaussian, rgb, shade, smoothstep

EYE_X, EYE_Y = 0.295, 0.005  # centre of the right eye, half heights of a face


def _line_colour(look: SimpleNamespace) -> np.ndarray:
    return look.skin * rgb(0.42, 0.27, 0.22)


def _lash_colour(look: SimpleNamespace) -> np.ndarray:
    return look.hair * 0.45 + rgb(0.04, 0.025, 0.025)


def _open_lids(look: SimpleNamespace, a: dict[str, float]) -> tuple[float, float]:
    """How far the upper lid stands above the middle of the eye, and the lower one below it."""
    lift = a["lid_raise"]
    up = (
        0.096
        * look.eye
        * (
            1
            + 0.36 * lift
            - 0.32 * a["tighten"] * (1 - 0.5 * lift)
            - 0.42 * a["droop"]
            - 0.14 * a["cheek"]
        )
    )
    low = 0.050 * look.eye * (1 + 0.25 * lift - 0.45 * a["tighten"] - 0.55 * a["cheek"])
    return max(up * (1 - a["blink"]) - low * a["blink"], 0.012 - low), low


def eye_centre(look: SimpleNamespace, a: dict[str, float]) -> float:
    """The y of the middle between the lids."""
    up, low = _open_lids(look, a)
    return EYE_Y + 0.5 * (low - up) + 0.01


def draw_eye(
    head: Canvas, look: SimpleNamespace, a: dict[str, float], side: int, gaze: list[float]
) -> None:
    """Lids and eyeball of one side (-1: the image's left)."""
    line, dark = _line_colour(look), _lash_colour(look)
    half, (up, low) = 0.142 * look.eye, _open_lids(look, a)
    w = head.window(side * EYE_X, EYE_Y, half + 0.10, 0.22)
    x, y = w.maps[2] * side - EYE_X, w.maps[3] - EYE_Y  # x grows outwards
    at = x / half
    arc = np.maximum(0, 1 - at * at)
    cant = (-0.02 + 0.03 * a["inner_raise"] * (0.3 + a["droop"])) * at
    top, bottom = cant - up * arc**0.75 * (1 - 0.18 * at), cant + low * arc**0.9
    inside = w.coverage(np.maximum(top - y, y - bottom)) * (arc > 0)
    crease = np.abs(y - cant + (0.92 * up + 0.042) * np.maximum(0, 1 - (at / 1.15) ** 2) ** 0.7)
    w.paint(0.4 * w.coverage(crease - 0.006) * (np.abs(at) < 1.1), line)
    w.paint(inside, shade(rgb(0.97, 0.96, 0.95), 1 - 0.35 * gaussian(y - top, 0.035)))
    radius = 0.079 * look.eye**0.5
    gx, gy = side * gaze[0], gaze[1] - 0.016
    far = np.sqrt((x - gx) ** 2 + (y - gy) ** 2)
    iris = (
        1
        + 0.55 * smoothstep((y - gy + 0.02) / 0.08)
        - 0.5 * smoothstep((far / radius - 0.72) / 0.28)
    ) * (1 - 0.35 * gaussian(y - top, 0.03))
    w.paint(inside * w.coverage(far - radius), shade(look.iris, iris))
    w.paint(inside * w.coverage(far - 0.43 * radius), rgb(0.03, 0.025, 0.025))
    w.paint(
        inside * w.coverage(np.sqrt((x - gx + 0.026 * side) ** 2 + (y - gy + 0.026) ** 2) - 0.019),
        rgb(1, 1, 1),
    )  # glint
    lash = (0.017 if look.female else 0.011) * (1 + 0.5 * smoothstep((at + 0.4) / 1.4))
    wing = np.maximum(0, at - 0.82) * 0.09 if look.female else 0.0
    ends = np.abs(x) - half * (1.08 if look.female else 1.02)
    w.paint(0.93 * w.coverage(np.maximum(np.abs(y - top + wing) - lash, ends)), dark * 0.6)
    w.paint(
        0.35 * w.coverage(np.maximum(np.abs(y - bottom - 0.004) - 0.005, np.abs(x) - 0.9 * half)),
        line,
    )
    w.paint(
        0.35
        * max(a["cheek"], 0.6 * a["tighten"])
        * gaussian(y - bottom - 0.045, 0.013)
        * smoothstep(2 - 2 * np.abs(at)),
        line,
    )


def draw_brow(head: Canvas, look: SimpleNamespace, a: dict[str, float], side: int) -> None:
    """The brow of one side: a parabola through its inner end, its peak and its outer end."""
    dark = _lash_colour(look)
    inner = (
        look.brow_y
        - 0.105 * a["inner_raise"]
        + 0.115 * a["lower_brow"] * (1 - 0.45 * a["inner_raise"])
        + 0.04 * a["wrinkle"]
    )
    peak = (
        look.brow_y
        - 0.035
        - 0.03 * a["inner_raise"]
        - 0.06 * a["outer_raise"]
        + 0.055 * a["lower_brow"]
        + 0.03 * a["wrinkle"]
    )
    outer = (
        look.brow_y
        + 0.02
        - 0.105 * a["outer_raise"]
        - 0.01 * a["lower_brow"]
        + 0.045 * a["inner_raise"] * max(0, 1 - a["outer_raise"])
    )
    start, end = 0.115 - 0.035 * a["lower_brow"], 0.485
    w = head.window(side * 0.29, look.brow_y, 0.29, 0.26)
    at = (w.maps[2] * side - start) / (end - start)
    k2, k1, k0 = np.polyfit([0, 0.55, 1], [inner, peak, outer], 2).tolist()
    slope = (2 * k2 * at + k1) / (end - start)
    thick = look.brow * smoothstep(at * 4 + 0.55) * (1 - 0.75 * smoothstep((at - 0.35) / 0.75))
    stroke = np.abs(w.maps[3] - (k2 * at + k1) * at - k0) / np.sqrt(1 + slope**2) - thick
    w.paint(
        0.88 * w.coverage(np.maximum(stroke, np.maximum(-at, at - 1) * (end - start)), blur=0.012),
        dark,
    )


def draw_nostril(head: Canvas, look: SimpleNamespace, a: dict[str, float], side: int) -> None:
    line = _line_colour(look)
    w = head.window(side * 0.06, 0.37, 0.09, 0.06)
    x, y = w.maps[2] * side, w.maps[3]
    w.paint(
        0.6
        * gaussian(x - 0.058 * look.nose, 0.036)
        * gaussian(y - 0.387 + 0.25 * np.abs(x) + 0.03 * a["wrinkle"], 0.016),
        line * 0.7,
    )


def _mouth_shape(a: dict[str, float]) -> tuple[float, float, float]:
    """How far the corners lie below the middle, the gap between the lips, and their arch."""
    corner = (
        0.075 * a["corner_down"]
        + 0.025 * a["stretch"]
        - 0.10 * a["smile"]
        - 0.02 * a["open"]
        - 0.012
    )
    gap = 0.17 * a["open"] + 0.04 * a["lip_raise"]
    return corner, gap, 0.035 * a["chin_raise"] + 0.02 * a["corner_down"]


def mouth_centre(look: SimpleNamespace, a: dict[str, float]) -> float:
    """The y of the mouth's centre."""
    corner, gap, arch = _mouth_shape(a)
    return look.mouth_y + 0.05 * corner - 0.5 * arch + 0.2 * gap


def draw_mouth(head: Canvas, look: SimpleNamespace, a: dict[str, float], skew: float) -> None:
    """Lips, teeth and tongue."""
    line, (corner, gap, arch) = look.skin * rgb(0.36, 0.22, 0.18), _mouth_shape(a)
    half = 0.235 * (
        1 + 0.28 * a["smile"] + 0.22 * a["stretch"] - 0.13 * a["press"] - 0.08 * a["corner_down"]
    )
    thin = look.lips * (1 - 0.55 * a["press"]) * (1 - 0.2 * a["stretch"]) * (1 - 0.25 * a["smile"])
    w = head.window(0, look.mouth_y + 0.03, 0.44, 0.30)
    x, y = w.maps[2], w.maps[3] - look.mouth_y
    at = x / half
    arc = np.maximum(0, 1 - at * at)
    seam = corner * (at * at - 0.35) - arch * arc + 0.5 * skew * at
    upper, lower = (
        seam - (0.30 * gap + 0.045 * a["lip_raise"]) * arc**0.65,
        seam + 0.75 * gap * arc**0.5,
    )
    rim = upper - 0.052 * thin * arc**0.75 * (1 - 0.22 * gaussian(x, 0.035))
    foot = lower + np.maximum(0.02, (0.4 * arch + 0.068) * thin * arc**0.6 - 0.01)
    lip = look.skin * (rgb(0.87, 0.52, 0.53) if look.female else rgb(0.86, 0.62, 0.60))
    gloss = (
        1
        - 0.18 * smoothstep((upper - y) / 0.03)
        + 0.12 * gaussian(y - lower - 0.03 * thin, 0.018) * gaussian(x, 0.12)
    )
    w.paint(
        0.9 * w.coverage(np.maximum(rim - y, y - foot)) * smoothstep(arc * 5), shade(lip, gloss)
    )
    inside = w.coverage(np.maximum(upper - y, y - lower)) * (arc > 0)
    w.paint(inside, rgb(0.28, 0.07, 0.08))
    if gap > 0.02:
        _draw_tongue_and_teeth(w, y, upper, lower, at, inside, gap)
    w.paint(
        0.7 * w.coverage(np.abs(y - upper) - 0.007) * smoothstep(arc * 6 + 0.3) * (arc > 0), line
    )
    for side in (-1, 1):
        w.paint(
            0.5
            * gaussian(x - side * half, 0.02)
            * gaussian(y - 0.65 * corner - 0.5 * side * skew, 0.02),
            line,
        )
    below = 0.75 * gap - 0.35 * corner - arch + 0.068 * thin + 0.04
    w.paint(0.2 * gaussian(x, 0.13) * gaussian(y - below, 0.025), line)


def _draw_tongue_and_teeth(
    w: Canvas,
    y: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
    at: np.ndarray,
    inside: np.ndarray,
    gap: float,
) -> None:
    w.paint(
        0.8 * inside * smoothstep((y - lower + 0.065) / 0.05) * min(1.0, 10 * gap - 0.2),
        rgb(0.75, 0.36, 0.38),
    )  # tongue
    teeth = (
        inside
        * w.coverage(y - upper - min(0.06, 0.62 * gap + 0.02))
        * smoothstep(6 - 6 * np.abs(at))
    )
    w.paint(teeth, shade(rgb(0.96, 0.95, 0.92), 1 - 0.22 * gaussian(y - upper, 0.016)))
