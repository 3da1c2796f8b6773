"""A face drawn from numbers: a relief lit from the upper left, moved by facial action units.

Lengths are in half heights of a face: x to the right of the image, y down, (0, 0) between the eyes.
Colours are RGB 0..1. Action units `a` are those of `expressions`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from core.data.demo import facial_features
from core.data.demo.canvas import (
    F32,
    Canvas,
    ellipse_distance,
    gaussian,
    project,
    rgb,
    shade,
    smoothstep,
)

PartFunction = Callable[[np.ndarray], tuple[slice, slice]]  # points (5, 2) -> rows and columns

# Colours in percent, from dark to light where they have an order.
SKIN_COLOURS = (
    np.array(
        [(99, 86, 78), (96, 78, 66), (89, 68, 53), (76, 54, 39), (60, 41, 29), (48, 32, 23)], F32
    )
    / 100
)
HAIR_COLOURS = (
    np.array(
        [
            *((13, 10, 10), (26, 16, 11), (36, 22, 14), (56, 55, 56), (60, 39, 21), (84, 68, 42)),
            (58, 24, 12),
        ],
        F32,
    )
    / 100
)
IRIS_COLOURS = (
    np.array([(20, 12, 8), (32, 19, 10), (42, 28, 14), (28, 44, 57), (34, 47, 32)], F32) / 100
)
SHIRT_COLOURS = (
    np.array(
        [
            *((36, 52, 62), (72, 40, 36), (42, 55, 44), (55, 45, 62), (85, 70, 45), (30, 34, 45)),
            (75, 55, 60),
        ],
        F32,
    )
    / 100
)
HAIR_PROBABILITIES = {
    "dark": (0.4, 0.35, 0.2, 0.05, 0, 0, 0),
    "light": (0.15, 0.2, 0.2, 0.05, 0.17, 0.13, 0.1),
}  # by skin
FACE_MEASURES = {  # of a face: smallest and largest of a woman, of a man
    "width": (0.66, 0.72, 0.69, 0.75),
    "taper": (0.22, 0.33, 0.12, 0.25),  # narrowing of the jaw
    "eye": (1.06, 1.22, 0.96, 1.10),
    "brow": (0.026, 0.036, 0.036, 0.050),  # half of its thickness
    "brow_y": (-0.23, -0.20, -0.23, -0.20),
    "nose": (0.85, 1.0, 0.94, 1.1),
    "lips": (1.0, 1.3, 0.75, 1.0),
    "mouth_y": (0.53, 0.57, 0.53, 0.57),
    "fringe": (-0.64, -0.52, -0.64, -0.52),  # y of the hair's edge
    "part": (-0.35, 0.35, -0.35, 0.35),  # x of the parting
}
LIGHT_DIRECTION = np.array([-0.42, -0.50, 0.76]) / 1.0025  # from the upper left, unit length


def random_appearance(rng: np.random.Generator, actor: int, female: bool) -> SimpleNamespace:
    """An actor's face: FACE_MEASURES, colours (3,), style of the hair 0..3, beard 0..1."""
    tone = (
        (rng.uniform(0, 0.12) + (actor // 2) * 0.382 + 0.45 * (actor % 2))
        % 1
        * (len(SKIN_COLOURS) - 1)
    )  # golden steps: neighbours differ
    dark, k = tone > 0.45 * len(SKIN_COLOURS), int(tone)
    look = {name: rng.uniform(*(m[:2] if female else m[2:])) for name, m in FACE_MEASURES.items()}
    return SimpleNamespace(
        **look,
        female=female,
        skin=SKIN_COLOURS[k] + (SKIN_COLOURS[k + 1] - SKIN_COLOURS[k]) * F32(tone - k),
        hair=HAIR_COLOURS[
            rng.choice(len(HAIR_COLOURS), p=HAIR_PROBABILITIES["dark" if dark else "light"])
        ],
        iris=IRIS_COLOURS[rng.integers(3 if dark else 5)],
        shirt=SHIRT_COLOURS[rng.integers(len(SHIRT_COLOURS))],
        wall=(0.88 + 0.05 * np.cos(rng.uniform(0, 2 * np.pi) + np.array([0, 2.1, 4.2]))).astype(
            F32
        ),
        style=int(rng.integers(4)),
        beard=0.0 if female else float(rng.choice([0, 0, 0.2, 0.8])),
    )


def draw_face(
    look: SimpleNamespace,
    a: dict[str, float],
    turn: tuple[float, float, float],
    skew: float,
    gaze: list[float],
    size: int,
    needed: PartFunction | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A face (size, size, 3) uint8 RGB, and its five points (5, 2) in pixels.

    `turn`: roll, yaw, pitch (rad); `skew` lifts a corner of the mouth, `gaze` shifts the irises.
    Only the rows and columns that `needed` returns for the points are painted, the rest is black.
    """
    roll, yaw, pitch = turn
    scale = 0.325 * size  # pixels to a unit
    px, drop, ox, oy = 1 / scale, 0.10 * a["open"], (0.5 + 0.1 * roll) * size, 0.485 * size
    c, s = float(np.cos(roll)), float(np.sin(roll))
    top, left = max(0, int(oy - 1.25 * scale)), max(0, int(ox - 1.02 * scale))
    pose, origin = (yaw, pitch, look.width, drop), (c * scale, s * scale, ox - left, oy - top)
    eyes = facial_features.eye_centre(look, a)
    places = [
        *((-facial_features.EYE_X, eyes), (facial_features.EYE_X, eyes), (0, 0.33)),
        *((0, facial_features.mouth_centre(look, a)), (0, 0.89 + drop)),
    ]  # where MediaPipe's model puts them
    points = np.array([project(*place, origin, pose) for place in places]) + (left, top)
    rows, columns = _with_border(needed(points), size) if needed else (slice(0, size),) * 2

    y, x = np.mgrid[rows, columns].astype(F32)
    x, y = (x + (0.5 - ox)) * px, (y + (0.5 - oy)) * px
    u, v = c * x + s * y, c * y - s * x
    pixels = shade(look.wall, 1 - 0.07 * (y + 0.3) ** 2 - 0.04 * (x + 0.4) ** 2)
    at = c * scale, s * scale, ox - columns.start, oy - rows.start
    _draw_body(Canvas(pixels, np.stack([u, v, x, y]), px, at, pose), look)

    top, left = max(top - rows.start, 0), max(left - columns.start, 0)
    cut = (
        slice(top, max(top, int(oy + 1.2 * scale) - rows.start)),
        slice(left, max(left, int(ox + 1.02 * scale) - columns.start)),
    )
    u, v = u[cut], v[cut]
    width = look.width * (
        1 - look.taper * smoothstep((v - 0.05) / 0.95) - 0.06 * smoothstep((-v - 0.35) / 0.7)
    )
    r = np.abs(u / width) ** 2.2 + np.abs(v / np.where(v < 0, F32(1), F32(0.95 + drop))) ** 2.4
    z = np.sqrt(np.maximum(0, 1 - r))
    maps = np.stack([u, v, u - yaw * z, v - pitch * z, 0.62 * z])
    at = c * scale, s * scale, ox - columns.start - left, oy - rows.start - top
    head = Canvas(pixels[:, *cut], maps, px, at, pose)
    outside = (np.sqrt(r) - 1) * 0.72
    _draw_skin(head, look, a, outside)
    for side in (-1, 1):
        facial_features.draw_eye(head, look, a, side, gaze)
        facial_features.draw_brow(head, look, a, side)
        facial_features.draw_nostril(head, look, a, side)
    facial_features.draw_mouth(head, look, a, skew)
    _draw_hair(head, look, outside)
    picture = np.zeros((size, size, 3), np.uint8)
    picture[rows, columns] = np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return picture, points


def _with_border(part: tuple[slice, slice], size: int) -> tuple[slice, slice]:
    """A part of the picture and the pixel around it, from which the relief's slope is taken."""
    rows, columns = (slice(max(0, p.start - 1), min(size, p.stop + 1)) for p in part)
    return rows, columns


def _draw_body(view: Canvas, look: SimpleNamespace) -> None:
    """Hair behind the head, neck, shirt, ears."""
    u, v, x, y = view.maps
    long = look.female and look.style < 3
    if long:
        bottom = (1.35, 0.80, 1.0)[look.style]
        dx = np.maximum(np.abs(u) - (0.72 + 0.05 * np.sin(v * 5 + look.part * 6)), 0)
        dy = np.maximum(np.maximum(v - (bottom - 0.16), -0.2 - v), 0)
        mass = np.minimum(
            ellipse_distance(u, v + 0.18, look.width + 0.17, 0.96),
            np.sqrt(dx * dx + dy * dy) - 0.16,
        )
        view.paint(
            view.coverage(mass), shade(look.hair, 0.76 + 0.03 * np.sin(u * 40 + 2 * np.sin(v * 3)))
        )
    elif look.female:  # a bun
        view.paint(
            view.coverage(ellipse_distance(u - 0.3 * look.part, v + 1.12, 0.3, 0.27)),
            shade(look.hair, 0.85 - 0.25 * u),
        )
    neck = np.abs(x) - ((0.30 if look.female else 0.38) + 0.10 * smoothstep((y - 0.95) / 0.5))
    neck_light = (0.80 + 0.15 * smoothstep((0.1 - x) / 0.6)) * (
        1 - 0.30 * smoothstep((1.22 - y) / 0.35)
    )
    view.paint(
        view.coverage(np.maximum(neck, 0.4 - y)), shade(look.skin * rgb(1, 0.94, 0.9), neck_light)
    )
    body = np.maximum(
        1.19 + 0.3 * np.abs(x) ** 1.6 * (1.0 if look.female else 0.75) - y,
        -ellipse_distance(x, y - 1.12, 0.46, 0.34),
    )
    view.paint(
        view.coverage(body),
        shade(look.shirt, 0.78 + 0.2 * smoothstep((1.0 - np.abs(x + 0.3)) / 1.2)),
    )
    for side in () if long else (-1, 1):
        view.paint(
            view.coverage(ellipse_distance(u - side * (look.width + 0.02), v - 0.10, 0.11, 0.19)),
            look.skin * rgb(0.93, 0.84, 0.80),
        )
        view.paint(
            0.35
            * view.coverage(
                ellipse_distance(u - side * (look.width + 0.025), v - 0.10, 0.055, 0.115)
            ),
            look.skin * 0.6,
        )


def _raised_cheek(a: dict[str, float]) -> float:
    return min(1.2, a["cheek"] + 0.6 * a["smile"])


def _raise_relief(head: Canvas, look: SimpleNamespace, a: dict[str, float]) -> None:
    """Add bumps and folds to the head's relief, moved by the action units."""
    cheek, drop, n, lips = _raised_cheek(a), head.turn[3], look.nose, look.mouth_y
    bumps = [  # x, y, half widths, height; those beside the middle stand on both sides
        (0.10 * n, 0.325 - 0.02 * a["wrinkle"], 0.055, 0.05, 0.055),  # wings of the nose
        (0, 0.32, 0.09, 0.07, 0.05),
        (facial_features.EYE_X, facial_features.EYE_Y, 0.18, 0.12, -0.05),  # sockets
        (facial_features.EYE_X, facial_features.EYE_Y, 0.11, 0.08, 0.035),
        (0.26, -0.17, 0.20, 0.07, 0.025 + 0.02 * a["lower_brow"]),
        (0.39, 0.30 - 0.05 * cheek, 0.17, 0.15, 0.035 + 0.05 * cheek),
        (0, 0.80 + drop, 0.16, 0.10, 0.05 + 0.03 * a["chin_raise"]),
        (0, 0.69 + 0.8 * drop, 0.16, 0.035, -0.03),
        (0, lips, 0.26, 0.12, 0.035),
        (0.035, lips - 0.13, 0.022, 0.06, 0.008),
        (0.045, -0.16, 0.018, 0.07, -0.030 * a["lower_brow"]),  # frown lines
        (0.12, 0.14, 0.06, 0.10, 0.03 * a["wrinkle"]),
        *((0, y, 0.09, 0.014, -0.022 * a["wrinkle"]) for y in (-0.06, -0.005, 0.05)),
        *(
            (0, y, 0.30, 0.018, -0.006 * (a["inner_raise"] + a["outer_raise"]))
            for y in (-0.40, -0.49)
        ),  # lines of the forehead
    ]
    for x0, y0, rx, ry, height in bumps:
        for side in (-1, 1) if x0 else (1,):
            _, _, x, y, relief = head.window(side * x0, y0, 2.4 * rx, 2.4 * ry).maps
            relief += height * np.exp(-(((x - side * x0) / rx) ** 2) - ((y - y0) / ry) ** 2)
    _, _, x, y, relief = head.window(0, 0.17, 0.30, 0.36).maps
    along = np.clip((y + 0.08) / 0.40, 0, 1)
    bridge = (
        (0.05 + 0.15 * along**1.4)
        * gaussian(np.maximum(y - 0.30, 0), 0.075)
        * gaussian(np.minimum(y + 0.08, 0), 0.1)
    )
    relief += n * bridge * gaussian(x, (0.055 + 0.055 * along) * n)
    fold = 0.008 + 0.026 * max(a["smile"], a["lip_raise"], a["wrinkle"]) + 0.015 * a["stretch"]
    for side in (-1, 1):  # from the nose's wing to the mouth's corner
        _, _, x, y, relief = head.window(side * 0.25, 0.44, 0.22, 0.24).maps
        down = (y - 0.32) / 0.26
        place = 0.14 + (0.16 + 0.05 * a["smile"]) * np.clip(down, 0, 1)
        relief -= (
            fold
            * gaussian(x * side - place, 0.035)
            * smoothstep(down * 4 + 0.6)
            * smoothstep((1.15 - down) * 2)
        )


def _draw_skin(
    head: Canvas, look: SimpleNamespace, a: dict[str, float], outside: np.ndarray
) -> None:
    """The head's relief in the light, with blush and beard."""
    _raise_relief(head, look, a)
    cheek, lips = _raised_cheek(a), look.mouth_y
    _, _, x, y, relief = head.maps
    gy, gx = np.gradient(relief, head.pixel_side)
    diffuse = np.clip(
        (LIGHT_DIRECTION[2] - LIGHT_DIRECTION[0] * gx - LIGHT_DIRECTION[1] * gy)
        / np.sqrt(1 + gx * gx + gy * gy),
        0,
        1,
    )
    tone = np.clip(0.10 + 0.95 * diffuse, 0, 1.06)
    shadow = look.skin * rgb(0.62, 0.45, 0.40)  # light that went through skin is red
    colour = shadow[:, None, None] + shade(look.skin - shadow, tone) + 0.08 * diffuse**12
    blush = gaussian(np.abs(x) - 0.40, 0.20) * gaussian(y - 0.26 + 0.04 * cheek, 0.16)
    colour *= 1 - shade(rgb(0, 0.10, 0.09), blush * (0.7 + 0.5 * cheek))
    if look.beard:
        jaw = smoothstep((y - 0.30 - 0.9 * np.maximum(0, 0.35 - np.abs(x))) / 0.25)
        jaw *= smoothstep((np.sqrt(0.7 * x * x + (y - 0.5) ** 2) - 0.22) / 0.12)
        beard = (
            np.maximum(jaw, np.exp(-((x / 0.26) ** 4)) * gaussian(y - lips + 0.10, 0.045))
            * look.beard
        )
        colour += beard * (shade(look.hair, 0.55 + 0.35 * tone) - colour)
    head.paint(head.coverage(outside), colour)


def _draw_hair(head: Canvas, look: SimpleNamespace, outside: np.ndarray) -> None:
    """Hair on the skull and its shadow on the forehead."""
    u, v, part, side = head.maps[0], head.maps[1], look.part, np.abs(head.maps[0])
    wave = 0.008 * np.sin(31 * u + 9 * part) + 0.005 * np.sin(57 * u)
    cap, reach = (
        ellipse_distance(u, v + 0.18, look.width + 0.17, 0.96),
        0.42,
    )  # lower end of the hair beside the face
    if look.female and look.style == 3:  # tied back
        cap, reach = ellipse_distance(u, v + 0.10, look.width + 0.045, 1.0), 0.02
        brink = -0.64 + 0.9 * side**2.4 + 2.5 * np.maximum(0, side - 0.56) + 0.3 * wave
    elif look.female and look.style == 2:  # a fringe
        brink = -0.36 + 1.6 * np.maximum(0, side - 0.48) + wave
    elif look.female:  # parted
        brink = look.fringe - 0.04 + 1.1 * np.abs(u - 0.4 * part) ** 1.9 + 0.6 * wave
    else:
        cap, reach = ellipse_distance(u, v + 0.10, look.width + 0.06, 1.0), 0.0
        brink = (
            look.fringe
            - 0.08
            + (0.10 * np.cos(3 * u + 4 * part) if look.style < 2 else -0.12 * gaussian(u, 0.22))
            + wave
        )
        brink += 4 * np.maximum(0, side - 0.52)
    below = v - np.minimum(brink, np.where(side > 0.86 * look.width, F32(reach), F32(9)))
    below = np.where(
        outside > -0.02, np.minimum(below, v - reach), below
    )  # no wall between skull and hair
    shadow = 0.28 * head.coverage(outside) * smoothstep(1 - below / 0.13) * (below > 0) * (v < 0.3)
    head.paint(shadow, look.skin * rgb(0.5, 0.36, 0.32))
    angle = np.arctan2(u - 0.4 * part, 1e-3 - v - 0.05)
    strands = 0.06 * np.sin(46 * angle + 3 * np.sin(3 * v)) + 0.04 * np.sin(83 * angle + 1)
    shine = gaussian(
        np.sqrt((u / (look.width + 0.1)) ** 2 + ((v + 0.1) / 0.98) ** 2) - 0.8, 0.12
    ) * np.clip(0.5 - 0.8 * u - 0.6 * v, 0, 1)
    tone = 0.80 + 0.24 * np.clip(-0.5 * u - 0.7 * v, -0.6, 1) + strands + 0.33 * shine
    if look.female:
        tone += (0.76 + strands - tone) * smoothstep(v / 0.35)  # runs into the hair behind
    head.paint(head.coverage(np.maximum(cap, 0.6 * below)), shade(look.hair, tone) + 0.05 * shine)
