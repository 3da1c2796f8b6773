"""Convolutions of D and of the classifiers, which turn an image into features.

The paper's have stride 2, or pooling in the authors' Q; the residual ones are ours.
"""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from core.models.convolutions import Conv2d, ConvBlock, MatchGradientLayout

LEAKY_RELU_SLOPE = 0.1  # slope of every LeakyReLU below zero
# added to an image's standard deviation: of plain images noise is not blown up
CONTRAST_FLOOR = 0.05


def conv_block(
    n_in: int, n_out: int, stride: int = 1, kernel: int = 3, norm: str = "batch"
) -> ConvBlock:
    """Convolution (same padding for odd kernels), batch or group norm, LeakyReLU."""
    conv = Conv2d(n_in, n_out, kernel, stride, (kernel - 1) // 2, bias=norm != "batch")
    act = nn.LeakyReLU(LEAKY_RELU_SLOPE, inplace=True)
    normed = nn.GroupNorm(4, n_out) if norm == "group" else nn.BatchNorm2d(n_out)
    return ConvBlock(conv, normed, act)


class Trunk(nn.Module):
    """Convolutions of stride 2, for D, Q, f_S, f_T and the scorer: (B, 1, H, W) -> (B, features).

    The authors report kernels of 4x4 in D and 5x5 in the classifiers.
    """

    def __init__(
        self, shape: tuple[int, int], channels: tuple[int, ...], kernel: int, norm: str = "batch"
    ):
        super().__init__()
        layers, (h, w) = [], shape
        for a, b in itertools.pairwise((1, *channels)):
            shrink = min(h, w) > 3  # D of width `paper` has more layers than 28 bands can be halved
            layers.append(conv_block(a, b, 2 if shrink else 1, kernel if shrink else 3, norm))
            if shrink:
                h, w = ((n + 2 * ((kernel - 1) // 2) - kernel) // 2 + 1 for n in (h, w))
        self.layers = nn.Sequential(*layers)
        self.features = channels[-1] * h * w

    def forward(self, image: Tensor) -> Tensor:
        return MatchGradientLayout.apply(self.layers(image)).flatten(1)


class PooledTrunk(nn.Module):
    """The authors' convolutions in Q, 5x5, each with a pooling: (B, 1, H, W) -> (B, features)."""

    def __init__(self, shape: tuple[int, int], channels: tuple[int, ...]):
        super().__init__()
        pairs = itertools.pairwise((1, *channels))
        self.layers = nn.ModuleList([conv_block(a, b, kernel=5) for a, b in pairs])
        h, w = (n // 2 ** len(channels) for n in shape)
        self.features = channels[-1] * h * w

    def forward(self, image: Tensor) -> Tensor:
        for layer in self.layers:
            image = F.max_pool2d(layer(image), 2)
        return MatchGradientLayout.apply(image).flatten(1)


def standardise(image: Tensor) -> Tensor:
    """Images (B, 1, H, W) with mean 0 and standard deviation near 1: light and contrast are gone.

    Photographs of a training corpus and frames of a film differ in these more than in faces.

    >>> import torch
    >>> image = torch.rand(1, 1, 4, 4)
    >>> torch.allclose(standardise(image), standardise(image + 0.3), atol=1e-5)
    True
    """
    centred = image - image.mean(dim=(2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(2, 3), keepdim=True).sqrt() + CONTRAST_FLOOR)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one of 2x2 means (He et al. 2016), halving the image."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.first = conv_block(n_in, n_out, stride=2)
        second = Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.second = nn.Sequential(second, nn.BatchNorm2d(n_out))
        mean = nn.AvgPool2d(2, ceil_mode=True)
        shortcut = Conv2d(n_in, n_out, 1, bias=False)
        self.shortcut = nn.Sequential(mean, shortcut, nn.BatchNorm2d(n_out))

    def forward(self, h: Tensor) -> Tensor:
        h = self.second(self.first(h)) + self.shortcut(h)
        return F.leaky_relu(h, LEAKY_RELU_SLOPE)


class ResidualTrunk(nn.Module):
    """Ours, for faces: (B, 1, H, W) -> (B, features), a stem and a residual block per halving.

    Faces are aligned, so each channel has a weight for each place of the last map in place of a
    mean over them.
    """

    def __init__(self, shape: tuple[int, int], channels: tuple[int, ...]):
        super().__init__()
        self.stem = conv_block(1, channels[0])
        pairs = itertools.pairwise(channels)
        self.blocks = nn.Sequential(*[ResidualBlock(a, b) for a, b in pairs])
        self.features, halvings = channels[-1], 2 ** (len(channels) - 1)
        places = tuple(-(-n // halvings) for n in shape)
        weighted = nn.Conv2d(self.features, self.features, places, groups=self.features, bias=False)
        self.places = nn.Sequential(weighted, nn.BatchNorm2d(self.features))

    def forward(self, image: Tensor) -> Tensor:
        return self.places(self.blocks(self.stem(standardise(image)))).flatten(1)
