"""Conditional flow matching: how the generator `flow` is trained, in place of G, D and Q's game.

D and Q take no part in it; Q and the scorer judge the samples as they judge a GAN's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from core.config.settings import GanSettings
from core.models import gan, networks
from core.models.flow.velocity import FlowGenerator
from core.models.gan import GanState, StepFunction
from core.models.networks import FACE_SIZE

# share of the samples of which the network is told neither face nor condition
UNTOLD_SHARE = 0.1


def new_state(
    g: GanSettings,
    classes: int,
    shape: tuple[int, int],
    Q: nn.Module,
    seed: int,
    device: str | torch.device,
    source: tuple[int, int] = FACE_SIZE,
) -> GanState:
    """As `gan.new_state`: a new G and its optimiser, drawn from `seed` alone. D is empty."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G = networks.build(g.generator, gan.generator_arguments(g, classes, shape, source))
    for network in (G, Q):
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(G.parameters(), lr=g.lr_g, fused=True)
    shown = copy.deepcopy(G).requires_grad_(False) if g.average else G
    noise = torch.Generator(device).manual_seed(seed + 1)
    return GanState(G, nn.Identity(), Q, {"G": optimiser}, noise, shown)


def cosine_rate(highest: float, step: int, steps: int) -> float:
    """The learning rate of a step: half a cosine from `highest` at 0 to 0 at `steps`.

    >>> [round(cosine_rate(0.4, k, 4), 3) for k in range(5)]
    [0.4, 0.341, 0.2, 0.059, 0.0]
    """
    return highest * (1 + math.cos(math.pi * min(step / steps, 1))) / 2


def between(z: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """y_t = (1 - t) z + t y, on the line from noise z to y, both (B, ...), at times t (B,)."""
    return torch.lerp(z, y, t.view(-1, *[1] * (y.dim() - 1)))


def velocity_loss(
    velocity: Callable[[Tensor, Tensor], Tensor], z: Tensor, y: Tensor, t: Tensor
) -> Tensor:
    """E[(v(y_t, t) - (y - z))²] per cell: its minimum is the mean velocity at y_t."""
    return (velocity(between(z, y, t), t) - (y - z)).square().mean()


def training_times(
    n: int, early: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Times (n,) in [0, 1), the logistic function of normal numbers (Esser et al. 2024).

    The middle of the way, where noise and voice are hardest to tell apart, is trained most. Of
    these times 0.2 % lie below 0.05, though by then level and pitch are decided: so a share `early`
    of the times are cubes of uniform numbers, more than a third of which lie there.
    """
    t = torch.randn(n, generator=generator, device=device).sigmoid()
    if not early:
        return t
    u, choice = torch.rand(2, n, generator=generator, device=device)
    return torch.where(choice < early, u**3, t)


def step(state: GanState, g: GanSettings, x: Tensor, c: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Update G once on a batch of pairs: faces x, conditions c and spectrograms y (B, ...).

    The face, and a label as condition, are noisy as in a GAN's training (§3.2).
    """
    G, generator = state.G, state.generator
    assert isinstance(G, FlowGenerator)
    assert isinstance(generator, torch.Generator)
    normal = partial(torch.randn, generator=generator, device=y.device)
    x = x + g.noise * normal(x.shape)
    if g.condition == "label" and g.label_noise:
        c = c + g.label_noise * normal(c.shape)
    z, t = normal(y.shape), training_times(len(y), g.early_times, generator, y.device)
    is_untold = torch.rand(len(y), 1, generator=generator, device=y.device) < UNTOLD_SHARE
    with torch.autocast(y.device.type, torch.bfloat16, enabled=g.precision == "bf16"):
        told = torch.where(is_untold, G.untold, G.embed(x, c))
        loss = velocity_loss(lambda y, t: G.velocity(y, t, told).to(y.dtype), z, y, t)
    optimiser = state.optimisers["G"]
    for group in optimiser.param_groups:
        group["lr"] = cosine_rate(g.lr_g, state.step, g.steps)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    if state.shown is not G:  # the first steps' weights leave the average soon
        gan.update_average(state.shown, G, min(g.average, (1 + state.step) / (10 + state.step)))
    return {"loss/G": loss.detach()}


def take_step(state: GanState, g: GanSettings, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """As `gan.eager_step`: one `step` with the batch (x, c, target, y, y_target), counted."""
    x, c, _, y, _ = batch
    values = step(state, g, x, c, y)
    state.step += 1
    return values


def start_function(g: GanSettings) -> Callable[..., GanState]:
    """What makes the new state that these settings train from: a flow's, or a GAN's."""
    return new_state if g.generator == "flow" else gan.new_state


def step_function(g: GanSettings) -> StepFunction:
    """The step that these settings train with: a flow's, or a GAN's."""
    return take_step if g.generator == "flow" else gan.eager_step
