"""§3: Eqs (1) to (7) as pure functions of D's logits, Q's logits and spectrograms.

Each loss is a scalar that its player minimises.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Game = Literal["nonsaturating", "minmax"]


def discriminator_loss(d_real: Tensor, d_fake: Tensor, real_target: float = 1.0) -> Tensor:
    """D's side of Eqs (1), (2) and (3): -E[log D(y)] - E[log(1 - D(G(x|c,z)))].

    d_real (B,) and d_fake (B,) are logits. `real_target` = 1 is the equation; below 1 it is
    one-sided label smoothing (Salimans et al. 2016), ours: §3.2's soft and noisy labels are those
    of the condition.

    >>> round(discriminator_loss(torch.zeros(2), torch.zeros(2)).item(), 4)  # 2 log 2
    1.3863
    """
    real = F.binary_cross_entropy_with_logits(d_real, torch.full_like(d_real, real_target))
    fake = F.binary_cross_entropy_with_logits(d_fake, torch.zeros_like(d_fake))
    return real + fake


def logit_gradient(d_real: Tensor, real: Tensor) -> Tensor:
    """The gradient of D's logits (B,) at real samples (B, ...); it can be differentiated itself.

    `real` must require gradients.
    """
    return torch.autograd.grad(d_real.sum(), real, create_graph=True)[0]


def r1_penalty(slope: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018), ours: half the mean squared norm of `logit_gradient` (B, ...).

    It keeps D flat at real samples. In Eqs (1) and (3) as printed, D's gradient there may grow
    without bound while G stands still.
    """
    return slope.square().flatten(1).sum(dim=1).mean() / 2


def adversarial_loss(d_fake: Tensor, game: Game = "nonsaturating") -> Tensor:
    """G's side of Eq. (3), from logits d_fake (B,).

    `nonsaturating`: -E[log D(G)], with the same fixed point (Goodfellow et al. 2014). `minmax`: the
    printed E[log(1 - D(G))], whose gradient vanishes while D wins.

    >>> round(adversarial_loss(torch.zeros(2)).item(), 4)  # log 2
    0.6931
    """
    if game == "minmax":
        return -F.softplus(d_fake).mean()  # log(1 - sigmoid(d)) = -softplus(d)
    return F.softplus(-d_fake).mean()


def l1_loss(y: Tensor, g: Tensor) -> Tensor:
    """Eq. (4): E[||y - G(x, z)||_1] per cell.

    y is the paired target and g the generated sample, both (B, 1, columns, bands). The printed norm
    is a sum over cells: this mean times columns x bands, 3,136 for 112 x 28.

    >>> l1_loss(torch.ones(2, 1, 112, 28), torch.zeros(2, 1, 112, 28)).item()
    1.0
    """
    return (y - g).abs().mean()


def class_loss(q_fake: Tensor, target: Tensor) -> Tensor:
    """Eq. (6): cross-entropy of Q's logits (B, K) on generated samples.

    `target` is (B,) classes or (B, K) probabilities. Repair: Eq. (6) prints E[log P], without the
    minus sign that a quantity which G minimises must have.
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
    """Eq. (7) = Eq. (5) + Eq. (6), where Eq. (5) = Eq. (3) + Eq. (4); each term has a weight.

    The weights are 1 in the paper. Returns the weighted sum and the unweighted terms. Repair:
    Eq. (7) prints V2 where it means V3 of Eq. (5), the conditional game.
    """
    terms = {
        "adversarial": adversarial_loss(d_fake, game),
        "l1": l1_loss(y, g),
        "class": class_loss(q_fake, target),
    }
    return adversarial * terms["adversarial"] + l1 * terms["l1"] + classify * terms["class"], terms
