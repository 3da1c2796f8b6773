"""The peer of `benchmarks/training.py` is the training loop that a tutorial would write.

Its networks and losses are the same. It has a Dataset and a DataLoader, eager fp32, one sample
stacked after the other, torch's default threads and memory layout, the step in the order of pix2pix
(Isola et al. 2017): one generator forward, D's update, then G's with D's weights held still. It is
no straw man: it makes no gradient that it does not use, and reads no figure from the device but
once an epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from core.config.settings import GanSettings
from core.models import gan, losses, networks
from core.models.convolutions import Conv2d, ConvBlock
from core.models.networks import Classifier


class PairDataset(Dataset):
    """Faces, conditions, targets and spectrograms as arrays; one item is one pair."""

    def __init__(self, x: np.ndarray, c: np.ndarray, target: np.ndarray, y: np.ndarray):
        self.arrays = x, c, target, y

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, c, target, y = self.arrays
        return (
            torch.from_numpy(x[i]),
            torch.from_numpy(c[i]),
            torch.tensor(target[i]),
            torch.from_numpy(y[i]),
        )


class UpsamplingGenerator(networks.ConvGenerator):
    """The convolutional generator as it is drawn.

    Each map stretched to twice its size, then convolved.
    """

    def forward(self, x: Tensor, c: Tensor, z: Tensor) -> Tensor:
        parts = [self.face(x), c, z] if self.use_source else [c, z]
        h = self.spread(torch.cat(parts, dim=1)).view(len(z), -1, *self.sizes[0])
        for size, layer in zip(self.sizes[1:], self.layers, strict=True):
            h = layer(F.interpolate(h, size))
        return torch.tanh(self.out(h))


def use_torch_layers(network: nn.Module) -> nn.Module:
    """The same network of torch's own layers."""
    for module in network.modules():
        for ours, torchs in ((ConvBlock, nn.Sequential), (Conv2d, nn.Conv2d)):
            if type(module) is ours:
                module.__class__ = torchs
    return network


class TextbookLoop:
    """Networks, optimisers and the running average of G, as `core.models.gan.GanState` has them."""

    def __init__(
        self,
        g: GanSettings,
        classes: int,
        shape: tuple[int, int],
        Q: Classifier,
        device: str = "cpu",
    ):
        arguments = gan.generator_arguments(g, classes, shape)
        make = (
            UpsamplingGenerator if g.generator == "conv" else networks.NETWORK_CLASSES[g.generator]
        )
        self.g, self.device = g, device
        self.G = make(**{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})
        self.D = networks.build("discriminator", gan.discriminator_arguments(g, classes, shape))
        self.Q = copy.deepcopy(Q).eval().requires_grad_(False)
        for network in (self.G, self.D, self.Q):
            use_torch_layers(network).to(device)
        kind = torch.optim.Adagrad if g.optimiser == "adagrad" else torch.optim.Adam
        extra = {} if g.optimiser == "adagrad" else {"betas": (0.5, 0.99)}
        self.opt_g = kind(self.G.parameters(), lr=g.lr_g, **extra)
        self.opt_d = kind(self.D.parameters(), lr=g.lr_d, **extra)
        self.shown = copy.deepcopy(self.G) if g.average else self.G
        self.steps = 0

    def loader(self, pairs: PairDataset, workers: int) -> DataLoader:
        pinned = self.device != "cpu"
        return DataLoader(
            pairs,
            self.g.batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=pinned,
            persistent_workers=workers > 0,
        )

    def epoch(self, loader: DataLoader) -> Iterator[int]:
        """Trains once through the data; yields the samples of each step."""
        for batch in loader:
            self.step(*(t.to(self.device, non_blocking=True) for t in batch))
            yield len(batch[0])

    def step(self, x: Tensor, c: Tensor, target: Tensor, y: Tensor) -> None:
        g, G, D, Q = self.g, self.G, self.D, self.Q

        def noisy(t: Tensor) -> Tensor:
            return t + g.noise * torch.randn_like(t) if g.noise else t

        z = torch.randn(len(x), g.z, device=self.device)
        fake = G(noisy(x), c, z)

        D.requires_grad_(True)
        self.opt_d.zero_grad()
        real = noisy(y)
        penalised = g.r1 > 0 and self.steps % gan.R1_INTERVAL == 0
        real.requires_grad_(penalised)
        d_real = D(real, c)
        loss_d = losses.discriminator_loss(d_real, D(noisy(fake.detach()), c), g.real_target)
        if penalised:
            loss_d = loss_d + gan.R1_INTERVAL * g.r1 * losses.r1_penalty(
                losses.logit_gradient(d_real, real)
            )
        loss_d.backward()
        self.opt_d.step()

        D.requires_grad_(False)
        self.opt_g.zero_grad()
        loss_g, _ = losses.generator_loss(
            D(noisy(fake), c),
            Q(noisy(fake)),
            target,
            y,
            fake,
            g.adversarial,
            g.l1,
            g.classify,
            g.game,
        )
        loss_g.backward()
        self.opt_g.step()
        if g.average:
            with torch.no_grad():
                for a, b in zip(self.shown.parameters(), self.G.parameters()):
                    a.lerp_(b, 1 - g.average)
        self.steps += 1
