"""A face drawn from numbers: a relief lit from the upper left, moved by facial action units, for the invented actors of `demo`."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

F32 = np.float32

# Lengths are in half heights of a face: x to the right of the image, y down, (0, 0) between the eyes. Colours are RGB 0..1, dark to light.
SKIN_COLOURS = (
    np.array(
        [(99, 86, 78), (96, 78, 66), (89, 68, 53), (76, 54, 39), (60, 41, 29), (48, 32, 23)], F32
    )
    / 100
)
HAIR_COLOURS = (
    np.array(
        [
            (13, 10, 10),
            (26, 16, 11),
            (36, 22, 14),
            (56, 55, 56),
            (60, 39, 21),
            (84, 68, 42),
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
            (36, 52, 62),
            (72, 40, 36),
            (42, 55, 44),
            (55, 45, 62),
            (85, 70, 45),
            (30, 34, 45),
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
    "taper": (0.22, 0.33, 0.12, 0.25),  # how much narrower the jaw is
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
EYE_X, EYE_Y = 0.295, 0.005


def random_appearance(rng: np.random.Generator, actor: int, female: bool) -> SimpleNamespace:
    """What stays the same of an actor's face: MEASURES, colours (3,), style of the hair 0..3, beard 0..1."""
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


@dataclass(frozen=True)
class _Canvas:
    """A part of the picture, drawn on in place, and where its pixels lie on the head."""

    rgb: np.ndarray  # (3, h, w) float32
    maps: np.ndarray  # (5, h, w): u, v of the outline; x, y on the surface, where features are, which shift as the head turns; relief
    pixel_side: float  # a pixel's side
    at: tuple[float, float, float, float]  # cos and sin of the roll over px, pixel of the origin
    turn: tuple[float, float, float, float]  # yaw, pitch, half width and the chin's drop

    def to_pixel(self, x: float, y: float) -> tuple[float, float]:
        """Column and row of a place on the surface."""
        c, s, ox, oy = self.at
        yaw, pitch, width, drop = self.turn
        u, v = x, y
        for _ in range(4):
            z = max(0.0, 1 - (u / width) ** 2 - (v / (1 + drop)) ** 2) ** 0.5
            u, v = x + yaw * z, y + pitch * z
        return c * u - s * v + ox, s * u + c * v + oy

    def window(self, x: float, y: float, rx: float, ry: float) -> _Canvas:
        """The part around a place on the surface."""
        col, row = self.to_pixel(x, y)
        c, s = abs(self.at[0]), abs(self.at[1])
        w, h = c * rx + s * ry + 2, s * rx + c * ry + 2
        cut = (
            slice(None),
            slice(max(0, int(row - h)), max(0, int(row + h))),
            slice(max(0, int(col - w)), max(0, int(col + w))),
        )
        return _Canvas(self.rgb[cut], self.maps[cut], self.pixel_side, self.at, self.turn)

    def coverage(self, distance: np.ndarray, blur: float = 0.0) -> np.ndarray:
        """Signed distance (inside is negative) -> share of the pixel that is covered, 0..1."""
        return np.clip(0.5 - distance / (self.pixel_side + blur), 0, 1)

    def paint(self, mask: np.ndarray, colour: np.ndarray) -> None:
        self.rgb[...] += mask * ((colour if colour.ndim == 3 else colour[:, None, None]) - self.rgb)


def _smoothstep(x):
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _gaussian(x, width):
    return np.exp(-((x / width) ** 2))


def _ellipse_distance(x: np.ndarray, y: np.ndarray, rx: float, ry: float) -> np.ndarray:
    return (np.sqrt((x / rx) ** 2 + (y / ry) ** 2) - 1) * min(rx, ry)


def _rgb(r: float, g: float, b: float) -> np.ndarray:
    return np.array([r, g, b], F32)


def _shade(colour: np.ndarray, shade: np.ndarray) -> np.ndarray:
    return colour[:, None, None] * shade


def draw_face(
    look: SimpleNamespace,
    a: dict[str, float],
    turn: tuple[float, float, float],
    skew: float,
    gaze: list[float],
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """A face of `look` with action units `a`, roll, yaw and pitch `turn` (rad): (size, size, 3) uint8 and the five points (5, 2)."""
    roll, yaw, pitch = turn
    scale = 0.325 * size  # pixels to a unit
    px, drop, ox, oy = 1 / scale, 0.10 * a["open"], (0.5 + 0.1 * roll) * size, 0.485 * size
    y, x = np.mgrid[0:size, 0:size].astype(F32)
    x, y = (x + (0.5 - ox)) * px, (y + (0.5 - oy)) * px
    c, s = float(np.cos(roll)), float(np.sin(roll))
    u, v = c * x + s * y, c * y - s * x
    rgb = _shade(look.wall, 1 - 0.07 * (y + 0.3) ** 2 - 0.04 * (x + 0.4) ** 2)
    picture = _Canvas(
        rgb,
        np.stack([u, v, x, y]),
        px,
        (c * scale, s * scale, ox, oy),
        (yaw, pitch, look.width, drop),
    )
    _draw_body(picture, look)

    top, left = max(0, int(oy - 1.25 * scale)), max(0, int(ox - 1.02 * scale))
    cut = (slice(top, int(oy + 1.2 * scale)), slice(left, int(ox + 1.02 * scale)))
    u, v = u[cut], v[cut]
    width = look.width * (
        1 - look.taper * _smoothstep((v - 0.05) / 0.95) - 0.06 * _smoothstep((-v - 0.35) / 0.7)
    )
    r = np.abs(u / width) ** 2.2 + np.abs(v / np.where(v < 0, F32(1), F32(0.95 + drop))) ** 2.4
    z = np.sqrt(np.maximum(0, 1 - r))
    maps = np.stack([u, v, u - yaw * z, v - pitch * z, 0.62 * z])
    head = _Canvas(
        rgb[:, *cut], maps, px, (c * scale, s * scale, ox - left, oy - top), picture.turn
    )
    outside = (np.sqrt(r) - 1) * 0.72
    _draw_skin(head, look, a, outside)
    lids = [_draw_eye(head, look, a, side, gaze) for side in (-1, 1)]
    lips = _draw_mouth(head, look, a, skew)
    _draw_hair(head, look, outside)
    places = [
        (-EYE_X, lids[0]),
        (EYE_X, lids[1]),
        (0, 0.33),
        (0, lips),
        (0, 0.89 + drop),
    ]  # where MediaPipe's model puts them
    points = np.array([head.to_pixel(*place) for place in places]) + (left, top)
    return np.ascontiguousarray(
        np.clip(rgb * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    ), points


def _draw_body(view: _Canvas, look: SimpleNamespace) -> None:
    """Hair behind the head, neck, shirt, ears."""
    u, v, x, y = view.maps
    long = look.female and look.style < 3
    if long:
        bottom = (1.35, 0.80, 1.0)[look.style]
        dx = np.maximum(np.abs(u) - (0.72 + 0.05 * np.sin(v * 5 + look.part * 6)), 0)
        dy = np.maximum(np.maximum(v - (bottom - 0.16), -0.2 - v), 0)
        mass = np.minimum(
            _ellipse_distance(u, v + 0.18, look.width + 0.17, 0.96),
            np.sqrt(dx * dx + dy * dy) - 0.16,
        )
        view.paint(
            view.coverage(mass), _shade(look.hair, 0.76 + 0.03 * np.sin(u * 40 + 2 * np.sin(v * 3)))
        )
    elif look.female:  # a bun
        view.paint(
            view.coverage(_ellipse_distance(u - 0.3 * look.part, v + 1.12, 0.3, 0.27)),
            _shade(look.hair, 0.85 - 0.25 * u),
        )
    neck = np.abs(x) - ((0.30 if look.female else 0.38) + 0.10 * _smoothstep((y - 0.95) / 0.5))
    shade = (0.80 + 0.15 * _smoothstep((0.1 - x) / 0.6)) * (
        1 - 0.30 * _smoothstep((1.22 - y) / 0.35)
    )
    view.paint(
        view.coverage(np.maximum(neck, 0.4 - y)), _shade(look.skin * _rgb(1, 0.94, 0.9), shade)
    )
    body = np.maximum(
        1.19 + 0.3 * np.abs(x) ** 1.6 * (1.0 if look.female else 0.75) - y,
        -_ellipse_distance(x, y - 1.12, 0.46, 0.34),
    )
    view.paint(
        view.coverage(body),
        _shade(look.shirt, 0.78 + 0.2 * _smoothstep((1.0 - np.abs(x + 0.3)) / 1.2)),
    )
    for side in () if long else (-1, 1):
        view.paint(
            view.coverage(_ellipse_distance(u - side * (look.width + 0.02), v - 0.10, 0.11, 0.19)),
            look.skin * _rgb(0.93, 0.84, 0.80),
        )
        view.paint(
            0.35
            * view.coverage(
                _ellipse_distance(u - side * (look.width + 0.025), v - 0.10, 0.055, 0.115)
            ),
            look.skin * 0.6,
        )


def _draw_skin(
    head: _Canvas, look: SimpleNamespace, a: dict[str, float], outside: np.ndarray
) -> None:
    """The head as a relief: bumps and folds, moved by the action units, in the light."""
    cheek, drop, n, lips = (
        min(1.2, a["cheek"] + 0.6 * a["smile"]),
        head.turn[3],
        look.nose,
        look.mouth_y,
    )
    bumps = [  # x, y, half widths, height; those beside the middle stand on both sides
        (0.10 * n, 0.325 - 0.02 * a["wrinkle"], 0.055, 0.05, 0.055),  # wings of the nose
        (0, 0.32, 0.09, 0.07, 0.05),
        (EYE_X, EYE_Y, 0.18, 0.12, -0.05),  # sockets
        (EYE_X, EYE_Y, 0.11, 0.08, 0.035),
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
        * _gaussian(np.maximum(y - 0.30, 0), 0.075)
        * _gaussian(np.minimum(y + 0.08, 0), 0.1)
    )
    relief += n * bridge * _gaussian(x, (0.055 + 0.055 * along) * n)
    fold = 0.008 + 0.026 * max(a["smile"], a["lip_raise"], a["wrinkle"]) + 0.015 * a["stretch"]
    for side in (-1, 1):  # from the nose's wing to the mouth's corner
        _, _, x, y, relief = head.window(side * 0.25, 0.44, 0.22, 0.24).maps
        down = (y - 0.32) / 0.26
        place = 0.14 + (0.16 + 0.05 * a["smile"]) * np.clip(down, 0, 1)
        relief -= (
            fold
            * _gaussian(x * side - place, 0.035)
            * _smoothstep(down * 4 + 0.6)
            * _smoothstep((1.15 - down) * 2)
        )

    _, _, x, y, relief = head.maps
    gy, gx = np.gradient(relief, head.pixel_side)
    diffuse = np.clip(
        (LIGHT_DIRECTION[2] - LIGHT_DIRECTION[0] * gx - LIGHT_DIRECTION[1] * gy)
        / np.sqrt(1 + gx * gx + gy * gy),
        0,
        1,
    )
    tone = np.clip(0.10 + 0.95 * diffuse, 0, 1.06)
    shadow = look.skin * _rgb(0.62, 0.45, 0.40)  # light that went through skin is red
    colour = shadow[:, None, None] + _shade(look.skin - shadow, tone) + 0.08 * diffuse**12
    blush = _gaussian(np.abs(x) - 0.40, 0.20) * _gaussian(y - 0.26 + 0.04 * cheek, 0.16)
    colour *= 1 - _shade(_rgb(0, 0.10, 0.09), blush * (0.7 + 0.5 * cheek))
    if look.beard:
        jaw = _smoothstep((y - 0.30 - 0.9 * np.maximum(0, 0.35 - np.abs(x))) / 0.25)
        jaw *= _smoothstep((np.sqrt(0.7 * x * x + (y - 0.5) ** 2) - 0.22) / 0.12)
        beard = (
            np.maximum(jaw, np.exp(-((x / 0.26) ** 4)) * _gaussian(y - lips + 0.10, 0.045))
            * look.beard
        )
        colour += beard * (_shade(look.hair, 0.55 + 0.35 * tone) - colour)
    head.paint(head.coverage(outside), colour)


def _draw_eye(
    head: _Canvas, look: SimpleNamespace, a: dict[str, float], side: int, gaze: list[float]
) -> float:
    """Lids, eyeball, brow and nostril of one side (-1 is the image's left); returns the y of the eye's centre."""
    line, dark = look.skin * _rgb(0.42, 0.27, 0.22), look.hair * 0.45 + _rgb(0.04, 0.025, 0.025)
    half, lift = 0.142 * look.eye, a["lid_raise"]
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
    up = max(up * (1 - a["blink"]) - low * a["blink"], 0.012 - low)
    w = head.window(side * EYE_X, EYE_Y, half + 0.10, 0.22)
    x, y = w.maps[2] * side - EYE_X, w.maps[3] - EYE_Y  # x grows outwards
    at = x / half
    arc = np.maximum(0, 1 - at * at)
    cant = (-0.02 + 0.03 * a["inner_raise"] * (0.3 + a["droop"])) * at
    top, bottom = cant - up * arc**0.75 * (1 - 0.18 * at), cant + low * arc**0.9
    inside = w.coverage(np.maximum(top - y, y - bottom)) * (arc > 0)
    crease = np.abs(y - cant + (0.92 * up + 0.042) * np.maximum(0, 1 - (at / 1.15) ** 2) ** 0.7)
    w.paint(0.4 * w.coverage(crease - 0.006) * (np.abs(at) < 1.1), line)
    w.paint(inside, _shade(_rgb(0.97, 0.96, 0.95), 1 - 0.35 * _gaussian(y - top, 0.035)))
    radius = 0.079 * look.eye**0.5
    gx, gy = side * gaze[0], gaze[1] - 0.016
    far = np.sqrt((x - gx) ** 2 + (y - gy) ** 2)
    iris = (
        1
        + 0.55 * _smoothstep((y - gy + 0.02) / 0.08)
        - 0.5 * _smoothstep((far / radius - 0.72) / 0.28)
    ) * (1 - 0.35 * _gaussian(y - top, 0.03))
    w.paint(inside * w.coverage(far - radius), _shade(look.iris, iris))
    w.paint(inside * w.coverage(far - 0.43 * radius), _rgb(0.03, 0.025, 0.025))
    w.paint(
        inside * w.coverage(np.sqrt((x - gx + 0.026 * side) ** 2 + (y - gy + 0.026) ** 2) - 0.019),
        _rgb(1, 1, 1),
    )  # glint
    lash = (0.017 if look.female else 0.011) * (1 + 0.5 * _smoothstep((at + 0.4) / 1.4))
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
        * _gaussian(y - bottom - 0.045, 0.013)
        * _smoothstep(2 - 2 * np.abs(at)),
        line,
    )

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
    thick = look.brow * _smoothstep(at * 4 + 0.55) * (1 - 0.75 * _smoothstep((at - 0.35) / 0.75))
    stroke = np.abs(w.maps[3] - (k2 * at + k1) * at - k0) / np.sqrt(1 + slope**2) - thick
    w.paint(
        0.88 * w.coverage(np.maximum(stroke, np.maximum(-at, at - 1) * (end - start)), blur=0.012),
        dark,
    )
    w = head.window(side * 0.06, 0.37, 0.09, 0.06)
    x, y = w.maps[2] * side, w.maps[3]
    w.paint(
        0.6
        * _gaussian(x - 0.058 * look.nose, 0.036)
        * _gaussian(y - 0.387 + 0.25 * np.abs(x) + 0.03 * a["wrinkle"], 0.016),
        line * 0.7,
    )
    return EYE_Y + 0.5 * (low - up) + 0.01


def _draw_mouth(head: _Canvas, look: SimpleNamespace, a: dict[str, float], skew: float) -> float:
    """Lips, teeth and tongue; returns the y of the mouth's centre."""
    line = look.skin * _rgb(0.36, 0.22, 0.18)
    half = 0.235 * (
        1 + 0.28 * a["smile"] + 0.22 * a["stretch"] - 0.13 * a["press"] - 0.08 * a["corner_down"]
    )
    corner = (
        0.075 * a["corner_down"]
        + 0.025 * a["stretch"]
        - 0.10 * a["smile"]
        - 0.02 * a["open"]
        - 0.012
    )  # below the middle
    gap = 0.17 * a["open"] + 0.04 * a["lip_raise"]
    arch = 0.035 * a["chin_raise"] + 0.02 * a["corner_down"]
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
    rim = upper - 0.052 * thin * arc**0.75 * (1 - 0.22 * _gaussian(x, 0.035))
    foot = lower + np.maximum(0.02, (0.4 * arch + 0.068) * thin * arc**0.6 - 0.01)
    lip = look.skin * (_rgb(0.87, 0.52, 0.53) if look.female else _rgb(0.86, 0.62, 0.60))
    gloss = (
        1
        - 0.18 * _smoothstep((upper - y) / 0.03)
        + 0.12 * _gaussian(y - lower - 0.03 * thin, 0.018) * _gaussian(x, 0.12)
    )
    w.paint(
        0.9 * w.coverage(np.maximum(rim - y, y - foot)) * _smoothstep(arc * 5), _shade(lip, gloss)
    )
    inside = w.coverage(np.maximum(upper - y, y - lower)) * (arc > 0)
    w.paint(inside, _rgb(0.28, 0.07, 0.08))
    if gap > 0.02:
        w.paint(
            0.8 * inside * _smoothstep((y - lower + 0.065) / 0.05) * min(1.0, 10 * gap - 0.2),
            _rgb(0.75, 0.36, 0.38),
        )  # tongue
        teeth = (
            inside
            * w.coverage(y - upper - min(0.06, 0.62 * gap + 0.02))
            * _smoothstep(6 - 6 * np.abs(at))
        )
        w.paint(teeth, _shade(_rgb(0.96, 0.95, 0.92), 1 - 0.22 * _gaussian(y - upper, 0.016)))
    w.paint(
        0.7 * w.coverage(np.abs(y - upper) - 0.007) * _smoothstep(arc * 6 + 0.3) * (arc > 0), line
    )
    for side in (-1, 1):
        w.paint(
            0.5
            * _gaussian(x - side * half, 0.02)
            * _gaussian(y - 0.65 * corner - 0.5 * side * skew, 0.02),
            line,
        )
    below = 0.75 * gap - 0.35 * corner - arch + 0.068 * thin + 0.04
    w.paint(0.2 * _gaussian(x, 0.13) * _gaussian(y - below, 0.025), line)
    return look.mouth_y + 0.05 * corner - 0.5 * arch + 0.2 * gap


def _draw_hair(head: _Canvas, look: SimpleNamespace, outside: np.ndarray) -> None:
    """Hair on the skull and its shadow on the forehead."""
    u, v, part, side = head.maps[0], head.maps[1], look.part, np.abs(head.maps[0])
    wave = 0.008 * np.sin(31 * u + 9 * part) + 0.005 * np.sin(57 * u)
    cap, reach = (
        _ellipse_distance(u, v + 0.18, look.width + 0.17, 0.96),
        0.42,
    )  # how far down it goes beside the face
    if look.female and look.style == 3:  # tied back
        cap, reach = _ellipse_distance(u, v + 0.10, look.width + 0.045, 1.0), 0.02
        brink = -0.64 + 0.9 * side**2.4 + 2.5 * np.maximum(0, side - 0.56) + 0.3 * wave
    elif look.female and look.style == 2:  # a fringe
        brink = -0.36 + 1.6 * np.maximum(0, side - 0.48) + wave
    elif look.female:  # parted
        brink = look.fringe - 0.04 + 1.1 * np.abs(u - 0.4 * part) ** 1.9 + 0.6 * wave
    else:
        cap, reach = _ellipse_distance(u, v + 0.10, look.width + 0.06, 1.0), 0.0
        brink = (
            look.fringe
            - 0.08
            + (0.10 * np.cos(3 * u + 4 * part) if look.style < 2 else -0.12 * _gaussian(u, 0.22))
            + wave
        )
        brink += 4 * np.maximum(0, side - 0.52)
    below = v - np.minimum(brink, np.where(side > 0.86 * look.width, F32(reach), F32(9)))
    below = np.where(
        outside > -0.02, np.minimum(below, v - reach), below
    )  # no wall between skull and hair
    shadow = 0.28 * head.coverage(outside) * _smoothstep(1 - below / 0.13) * (below > 0) * (v < 0.3)
    head.paint(shadow, look.skin * _rgb(0.5, 0.36, 0.32))
    angle = np.arctan2(u - 0.4 * part, 1e-3 - v - 0.05)
    strands = 0.06 * np.sin(46 * angle + 3 * np.sin(3 * v)) + 0.04 * np.sin(83 * angle + 1)
    shine = _gaussian(
        np.sqrt((u / (look.width + 0.1)) ** 2 + ((v + 0.1) / 0.98) ** 2) - 0.8, 0.12
    ) * np.clip(0.5 - 0.8 * u - 0.6 * v, 0, 1)
    tone = 0.80 + 0.24 * np.clip(-0.5 * u - 0.7 * v, -0.6, 1) + strands + 0.33 * shine
    if look.female:
        tone += (0.76 + strands - tone) * _smoothstep(v / 0.35)  # runs into the hair behind
    head.paint(head.coverage(np.maximum(cap, 0.6 * below)), _shade(look.hair, tone) + 0.05 * shine)
