"""The generator `flow`, ours: a velocity field of spectrograms and its way from noise to a sample.

A rectified flow (Liu et al., Lipman et al. 2023) moves noise z at time 0 along straight lines to a
spectrogram y at time 1: y_t = (1 - t) z + t y. The network estimates the velocity y - z from y_t,
t and what it is told: the face x and the condition c. Sampling follows the velocity in Heun steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOW_WIDTHS: dict[str, tuple[int, ...]] = {"paper": (64, 128, 192), "compact": (32, 64, 96)}
EMBEDDING = 128  # numbers that tell each block the time, the face and the condition
TIME_FEATURES = 64  # sines and cosines of the time
GROUPS = 8  # of each group norm
FOLD = 2  # columns in one cell of the network
# of the times of Heun's steps; LOG.md has what other steps cost the ear
STEP_POWER, BOTH_ENDS_POWER = 3, 1.5
# samples that move at once: more of them leave a CPU's cache
MOVED_TOGETHER = 16


def step_times(steps: int, both_ends: bool = False) -> list[float]:
    """Times between which the steps of a sample lie: they shrink towards 1, where details form.

    `both_ends`: towards 0 as well, where level and pitch form.

    >>> step_times(2), step_times(2, both_ends=True)
    ([0.0, 0.875, 1.0], [0.0, 0.5, 1.0])
    """
    u = [k / steps for k in range(steps + 1)]
    if both_ends:
        p = BOTH_ENDS_POWER
        return [v**p / (v**p + (1 - v) ** p) for v in u]
    return [1 - (1 - v) ** STEP_POWER for v in u]


def heun(
    velocity: Callable[[Tensor, float], Tensor], y: Tensor, steps: int, both_ends: bool = False
) -> Tensor:
    """y(1) from y(0) = `y` and dy/dt = velocity(y, t), in Heun steps of second order.

    >>> y = heun(lambda y, t: torch.full_like(y, 2 * t), torch.zeros(1), steps=3)  # y(1) = 1
    >>> round(y.item(), 6)
    1.0
    """
    for t, end in itertools.pairwise(step_times(steps, both_ends)):
        h = end - t
        slope = velocity(y, t)
        ahead = velocity(y + h * slope, end)
        y = y + h / 2 * (slope + ahead)
    return y


def time_features(t: Tensor) -> Tensor:
    """Sines and cosines of times (B,) in [0, 1] at rising frequencies: (B, TIME_FEATURES)."""
    half = torch.arange(TIME_FEATURES // 2, device=t.device) / (TIME_FEATURES // 2 - 1)
    angles = t[:, None] * 1000**half  # 1 to 1000 radians
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def fold_columns(y: Tensor) -> Tensor:
    """FOLD neighbouring columns as channels of one cell: (B, 1, columns, bands) -> (B, FOLD, …).

    Columns of 9 ms overlap by two thirds, and half as many cells cost half as much.
    """
    y = F.pad(y, (0, 0, 0, -y.shape[2] % FOLD))
    return y.reshape(len(y), -1, FOLD, y.shape[3]).transpose(1, 2)


def unfold_columns(cells: Tensor, columns: int) -> Tensor:
    """The inverse of `fold_columns`: (B, FOLD, …) -> (B, 1, columns, bands)."""
    return cells.transpose(1, 2).reshape(len(cells), 1, -1, cells.shape[3])[:, :, :columns]


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity; the embedding scales and shifts the second's input."""

    def __init__(self, n: int):
        super().__init__()
        self.norm, self.second_norm = nn.GroupNorm(GROUPS, n), nn.GroupNorm(GROUPS, n)
        self.conv, self.second_conv = (nn.Conv2d(n, n, 3, padding=1) for _ in range(2))
        self.film = nn.Linear(EMBEDDING, 2 * n)
        nn.init.zeros_(self.second_conv.weight)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        inner = self.second_norm(self.conv(F.silu(self.norm(h))))
        return h + self.second_conv(F.silu(torch.addcmul(shift, inner, 1 + scale)))


class TimeBlock(nn.Module):
    """Convolutions along time over all bands at once, beside an identity: (B, n, columns, bands).

    A convolution of columns and bands knows its neighbourhood alone; harmonics and formants tie
    distant bands together.
    """

    def __init__(self, n: int, bands: int):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, n)
        self.layers = nn.Sequential(
            *(nn.Conv1d(n * bands, n, 1), nn.SiLU()),
            *(nn.Conv1d(n, n, 5, padding=2), nn.SiLU(), nn.Conv1d(n, n, 5, padding=2), nn.SiLU()),
        )
        self.out = nn.Conv1d(n, n * bands, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, h: Tensor) -> Tensor:
        n, columns, bands = h.shape[1:]
        flat = self.norm(h).transpose(2, 3).reshape(len(h), -1, columns)
        return h + self.out(self.layers(flat)).view(len(h), n, bands, columns).transpose(2, 3)


class FlowGenerator(nn.Module):
    """G(x|c, z): the noise z, moved to time 1 by a U-Net's velocity.

    `guidance`, `heun_steps`, `noise_scale` and `both_ends` (of `step_times`) are those of sampling:
    a sample starts from `noise_scale` z. z (B, columns bands) has the spectrogram's size;
    `noise_length` is that number.
    """

    place: Tensor  # (1, 1, columns / FOLD, bands) the coordinate of frequency, from -1 to 1

    def __init__(
        self,
        classes: int,
        shape: tuple[int, int],
        widths: tuple[int, ...],
        use_source: bool = True,
        source: tuple[int, int] = (28, 28),
        guidance: float = 2.0,
        heun_steps: int = 8,
        noise_scale: float = 1.0,
        both_ends: bool = False,
    ):
        super().__init__()
        self.shape, self.guidance, self.heun_steps = shape, guidance, heun_steps
        self.noise_scale, self.both_ends = noise_scale, both_ends
        self.noise_length, self.is_told = shape[0] * shape[1], use_source or classes > 0
        # what each block is told: time, face, condition
        act = nn.SiLU
        self.time = nn.Sequential(
            nn.Linear(TIME_FEATURES, EMBEDDING), act(), nn.Linear(EMBEDDING, EMBEDDING)
        )
        self.untold = nn.Parameter(torch.zeros(EMBEDDING))
        self.condition = nn.Linear(classes, EMBEDDING) if classes else None
        self.face = None
        if use_source:
            cells = 32 * (source[0] // 4) * (source[1] // 4)
            self.face = nn.Sequential(
                *(nn.Conv2d(1, 16, 4, 2, 1), act(), nn.Conv2d(16, 32, 4, 2, 1), act()),
                *(nn.Flatten(), nn.Linear(cells, 64), act(), nn.Linear(64, EMBEDDING)),
            )
        # the U-Net
        place = torch.empty(1, 1, -(-shape[0] // FOLD), shape[1])
        if not place.is_meta:  # linspace of sizes alone would import sympy, which takes seconds
            place[:] = torch.linspace(-1, 1, shape[1])
        self.register_buffer("place", place, persistent=False)
        self.enter = nn.Conv2d(FOLD + 1, widths[0], 3, padding=1)
        self.encode = nn.ModuleList([ResidualBlock(n) for n in widths])
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList([nn.Conv2d(a, b, 3, 2, padding=1) for a, b in pairs])
        self.bottom = TimeBlock(widths[-1], -(-shape[1] // 4))
        self.decode = nn.ModuleList([ResidualBlock(n) for n in widths])
        self.up = nn.ModuleList([nn.Conv2d(b, a, 1) for a, b in pairs])
        self.norm = nn.GroupNorm(GROUPS, widths[0])
        self.out = nn.Conv2d(widths[0], FOLD, 3, padding=1)
        nn.init.zeros_(self.out.weight)

    def embed(self, x: Tensor, c: Tensor) -> Tensor:
        """What the network is told, as (B, EMBEDDING): the sum of the codes of x and of c."""
        codes = [] if self.face is None else [self.face(x)]
        if self.condition is not None:
            codes.append(self.condition(c))
        return sum(codes[1:], codes[0]) if codes else self.untold.expand(len(c), -1)

    def velocity(self, y: Tensor, t: Tensor, told: Tensor) -> Tensor:
        """Estimated y - z: y (B, 1, columns, bands) at times t (B,), told (B, EMBEDDING)."""
        embedding = F.silu(self.time(time_features(t).to(y.dtype)) + told)
        cells = fold_columns(y)
        h = self.enter(torch.cat([cells, self.place.expand(len(y), -1, -1, -1)], dim=1))
        skips = []
        for block, smaller in zip(self.encode, self.down, strict=False):
            skips.append(block(h, embedding))
            h = smaller(skips[-1])
        h = self.bottom(self.encode[-1](h, embedding))
        h = self.decode[-1](h, embedding)
        for k in reversed(range(len(skips))):
            h = F.interpolate(self.up[k](h), skips[k].shape[2:]) + skips[k]
            h = self.decode[k](h, embedding)
        return unfold_columns(self.out(F.silu(self.norm(h))), self.shape[0])

    def forward(
        self, x: Tensor, c: Tensor, z: Tensor, guidance: float | Tensor | None = None
    ) -> Tensor:
        """Samples (B, 1, columns, bands) in [-1, 1] of z (B, columns bands).

        `guidance` w, one number or (B,), replaces the network's own: the velocity is that of
        nothing told plus w times what x and c change about it (Ho & Salimans 2022). At 0 neither x
        nor c has an effect, at 1 the velocity is that of training, above 1 they count for more.
        """
        w = torch.as_tensor(self.guidance if guidance is None else guidance, dtype=z.dtype)
        w = w.expand(len(z))  # a number stays on the host, where a look at it waits for nothing
        parts = zip(*(part.split(MOVED_TOGETHER) for part in (x, c, z, w)), strict=True)
        return torch.cat([self._move(*part) for part in parts])

    def _move(self, x: Tensor, c: Tensor, z: Tensor, w: Tensor) -> Tensor:
        told, untold = self.embed(x, c), self.untold.expand(len(z), -1)
        only = told if bool((w == 1).all()) else untold if bool((w == 0).all()) else None
        if not self.is_told:
            only = untold
        w = w.to(z.device)

        def velocity(y: Tensor, t: float) -> Tensor:
            if only is not None:
                return self.velocity(y, y.new_full((len(y),), t), only)
            both = torch.cat([y, y]), y.new_full((2 * len(y),), t), torch.cat([told, untold])
            with_, without = self.velocity(*both).chunk(2)
            return torch.lerp(without, with_, w[:, None, None, None])

        start = self.noise_scale * z.view(len(z), 1, *self.shape)
        y = heun(velocity, start, self.heun_steps, self.both_ends)
        return y.clamp(-1, 1)  # (B, 1, columns, bands)
