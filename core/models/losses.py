"""§3: Eqs (1) to (7) as pure functions of D's logits, Q's logits and spectrograms. Each returns a scalar to be minimised."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Game = Literal["nonsaturating", "minmax", "hinge"]


def discriminator_loss(
    d_real: Tensor, d_fake: Tensor, real_target: float = 1.0, game: Game = "nonsaturating"
) -> Tensor:
    """D's side of Eqs (1), (2) and (3): -E[log D(y)] - E[log(1 - D(G(x|c,z)))], from logits (B,), (B,).

    `real_target` < 1 is one-sided label smoothing (a remedy of §3.2); 1 is the equation. `hinge` is the geometric game's form (Lim & Ye
    2017), E[max(0, 1 - D(y))] + E[max(0, 1 + D(G))], which has no use for the smoothing.
    """
    if game == "hinge":
        return F.relu(1 - d_real).mean() + F.relu(1 + d_fake).mean()
    real = F.binary_cross_entropy_with_logits(d_real, torch.full_like(d_real, real_target))
    fake = F.binary_cross_entropy_with_logits(d_fake, torch.zeros_like(d_fake))
    return real + fake


def logit_gradient(d_real: Tensor, real: Tensor) -> Tensor:
    """The gradient of D's logits (B,) at real samples (B, ...), which must require gradients; itself differentiable."""
    return torch.autograd.grad(d_real.sum(), real, create_graph=True)[0]


def r1_penalty(slope: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018), ours: half the mean squared `logit_gradient` (B, ...) of D at real samples.

    It keeps D flat there, against Eqs (1) and (3) as printed, where D's gradient may grow without bound while G stands still.
    """
    return slope.square().flatten(1).sum(dim=1).mean() / 2


def adversarial_loss(d_fake: Tensor, game: Game = "nonsaturating") -> Tensor:
    """G's side of Eq. (3), from logits (B,). `minmax`: the printed E[log(1 - D(G))], whose gradient vanishes while D wins.

    `nonsaturating`: -E[log D(G)], same fixed point (Goodfellow et al. 2014), the default. `hinge`: -E[D(G)].
    """
    if game == "hinge":
        return -d_fake.mean()
    if game == "minmax":
        return -F.softplus(d_fake).mean()  # log(1 - sigmoid(d)) = -softplus(d)
    return F.softplus(-d_fake).mean()


def l1_loss(y: Tensor, g: Tensor) -> Tensor:
    """Eq. (4): E[||y - G(x, z)||_1] per cell, between paired target y and generated g, both (B, 1, columns, bands)."""
    return (y - g).abs().mean()


def class_loss(q_fake: Tensor, target: Tensor) -> Tensor:
    """Eq. (6): cross-entropy of Q on generated samples, logits (B, K), target (B,) classes or (B, K) probabilities.

    Repair: printed as E[log P], without the minus sign a quantity that G minimises must have.
    """
    return F.cross_entropy(q_fake, target)


def generator_loss(
    d_fake: Tensor,
    q_fake: Tensor,
    target: Tensor,
    y: Tensor,
    g: Tensor,
    adversarial: float = 1.0,
    l1: float = 1.0,
    classify: float = 1.0,
    game: Game = "nonsaturating",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. (7) = Eq. (5) + Eq. (6), with Eq. (5) = Eq. (3) + Eq. (4), each term with its weight; the weights are 1 in the paper.

    Repair: Eq. (7) prints V2 where Eq. (5)'s V3, the conditional game, is meant. Returns the sum and its unweighted terms.
    """
    terms = {
        "adversarial": adversarial_loss(d_fake, game),
        "l1": l1_loss(y, g),
        "class": class_loss(q_fake, target),
    }
    return adversarial * terms["adversarial"] + l1 * terms["l1"] + classify * terms["class"], terms
