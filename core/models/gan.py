"""§3 and §3.2: the condition c, one training step of G, D and Q, the training loop and sampling.

x is the source and y the target: a face and a spectrogram, or with `direction="voice-face"` (§4.5)
the reverse. This module uses no files, runs or screen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from core.config.settings import Condition, GanSettings
from core.models import losses, networks
from core.models.networks import DISCRIMINATOR_CHANNELS, FACE_SIZE, Classifier, initialise_weights

# steps between two R1 penalties, each then R1_INTERVAL times as large (Karras et al. 2020)
R1_INTERVAL = 8


@dataclass(frozen=True)
class TrainingData:
    """S3 on the training device.

    `epoch_pairs(epoch)` returns the rows of x and of y that form an epoch's pairs: (n,) and (n,).
    """

    x: Tensor  # (n_x, 1, 28, 28) faces in [-1, 1]
    c: Tensor  # (n_x, K) condition, or (n_x, 0) for none
    target: Tensor  # (n_x,) class that Q should recognise in Eq. (6); -1 for none
    y: Tensor  # (n_y, 1, columns, bands) spectrograms in [-1, 1]
    y_target: Tensor  # (n_y,) class of y, for a jointly trained Q; -1 if unknown
    epoch_pairs: Callable[[int], tuple[np.ndarray, np.ndarray]]


@dataclass
class GanState:
    """Everything that a training step changes; `state_dict`, `load_state_dict` make resume exact.

    In a stack of runs (`stacked_training`) each network is a batch of networks, tensors have the
    run as an additional first dimension, and every run has its own random generator.
    """

    G: nn.Module
    D: nn.Module
    Q: nn.Module
    optimisers: dict[str, torch.optim.Optimizer]
    generator: torch.Generator | Sequence[torch.Generator]
    shown: nn.Module  # generator to sample and save: the EMA of G's weights, else G itself
    step: int = 0


@dataclass(frozen=True)
class StepRecord:
    """Losses of one step: detached scalars that stay on the device until they are read."""

    step: int
    values: dict[str, Tensor]


def condition(
    kind: Condition,
    labels: np.ndarray | None,
    o: np.ndarray | None,
    p: np.ndarray | None,
    classes: int,
    soft: float = 0.0,
) -> np.ndarray:
    """The condition c of Eq. (3), §3.1 and §4.3: (n, K) float32, or (n, 0) for `none` (§4.7).

    label: one-hot, softened so that the label keeps 1 - soft and the others share soft (§3.2).
    classifier: f_S's softmax o. cp: the conformal p-values p. Only that kind's array is read.
    """
    if kind == "label":
        assert labels is not None
        rows = np.full((len(labels), classes), soft / (classes - 1))
        rows[np.arange(len(labels)), labels] = 1 - soft
        return rows.astype(np.float32)
    if kind == "none":
        n = next(len(a) for a in (o, p, labels) if a is not None)
        return np.zeros((n, 0), np.float32)
    source = o if kind == "classifier" else p
    assert source is not None
    return source.astype(np.float32)


def generator_arguments(
    g: GanSettings, classes: int, shape: tuple[int, int], source: tuple[int, int] = FACE_SIZE
) -> dict:
    """The architecture of G as plain data, for its file's header; without `source` for a face."""
    arguments = {
        "classes": 0 if g.condition == "none" else classes,
        "z": g.z,
        "shape": list(shape),
        "widths": list(networks.generator_widths(g.generator, g.width, g.use_source)),
        "use_source": g.use_source,
    }
    if g.generator == "flow":  # its noise has the size of y
        del arguments["z"]
        arguments |= {"guidance": g.guidance, "heun_steps": g.heun_steps}
        arguments["noise_scale"] = g.noise_scale
        if g.early_times:
            arguments["both_ends"] = True
    return arguments if source == FACE_SIZE else arguments | {"source": list(source)}


def discriminator_arguments(g: GanSettings, classes: int, shape: tuple[int, int]) -> dict:
    """The architecture of D as plain data; `classes` is 0 if D does not see the condition."""
    return {
        "shape": list(shape),
        "channels": list(DISCRIMINATOR_CHANNELS[g.width]),
        "norm": g.d_norm,
        "classes": classes if g.projection and g.condition != "none" else 0,
    }


def new_state(
    g: GanSettings,
    classes: int,
    shape: tuple[int, int],
    Q: Classifier,
    seed: int,
    device: str | torch.device,
    source: tuple[int, int] = FACE_SIZE,
) -> GanState:
    """New G, D and optimisers, drawn from `seed` alone. Q comes trained, or new if it is joint."""
    cpu = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G = networks.build(g.generator, generator_arguments(g, classes, shape, source))
        D = networks.build("discriminator", discriminator_arguments(g, classes, shape))
    # The paper's networks start with its [54], He's initialisation. Ours keep torch's smaller one:
    # a norm cancels the size of a layer's weights, so larger weights learn more slowly; with He's
    # initialisation D fell behind G and the training failed (LOG.md).
    G = G if g.generator == "conv" else initialise_weights(G, cpu)
    D = initialise_weights(D, cpu) if g.d_norm == "batch" else D
    on_gpu = torch.device(device).type == "cuda"
    for network in (G, Q, D):  # channels last is 25 % faster, except for group norm on a CPU
        plain = network is D and g.d_norm == "group" and not on_gpu
        layout = torch.contiguous_format if plain else torch.channels_last
        network.to(device, memory_format=layout)  # type: ignore[call-overload]
    players = {"G": (G, g.lr_g), "D": (D, g.lr_d)}
    if g.q_training == "joint":
        players["Q"] = Q, g.lr_d
    make: Callable[..., torch.optim.Optimizer] = torch.optim.Adagrad
    if g.optimiser == "adam":
        adam = {"betas": (0.5, 0.99), "fused": True, "capturable": on_gpu}
        make = partial(torch.optim.Adam, **adam)  # type: ignore[arg-type]
    optimisers = {k: make(n.parameters(), lr=lr) for k, (n, lr) in players.items()}
    shown = copy.deepcopy(G).requires_grad_(False) if g.average else G
    return GanState(G, D, Q, optimisers, torch.Generator(device).manual_seed(seed + 1), shown)


def augment_spectrograms(y: Tensor, generator: torch.Generator) -> Tensor:
    """Differentiable random augmentation of spectrograms (B, 1, columns, bands), each its own draw.

    A circular time shift of at most 1/8, a gain of sd 0.1 (4 dB of 80) and a silent gap of at most
    1/8 of the columns; no frequency flips. D sees only augmented spectrograms (Zhao et al. 2020):
    it cannot memorise a few hundred real voices, and G still learns y itself.
    """
    n, _, columns, _ = y.shape
    unit = torch.rand((3, n), generator=generator, device=y.device)
    time = torch.arange(columns, device=y.device)
    shift = ((unit[0] - 0.5) * columns / 4).round().long()
    rows = ((time + shift[:, None]) % columns)[:, None, :, None].expand_as(y)
    gain = 0.1 * torch.randn((n, 1, 1, 1), generator=generator, device=y.device)
    start, length = unit[1, :, None] * columns, unit[2, :, None] * columns / 8
    gap = ((time - start) % columns < length)[:, None, :, None]
    return torch.where(gap, -torch.ones_like(y), y.gather(2, rows) + gain)


def augment_faces(y: Tensor, generator: torch.Generator) -> Tensor:
    """Differentiable random augmentation of faces (B, 1, 28, 28), each its own draw.

    Half of them are mirrored left to right; a shift of at most 2 pixels repeats the border; the
    brightness changes by sd 0.1.
    """
    n, _, height, width = y.shape
    unit = torch.rand((3, n, 1), generator=generator, device=y.device)
    down, right = ((unit[k] * 5).long() - 2 for k in (0, 1))  # (B, 1) in -2..2
    row = (torch.arange(height, device=y.device) + down).clamp(0, height - 1)
    row = row[:, None, :, None].expand_as(y)
    column = (torch.arange(width, device=y.device) + right).clamp(0, width - 1)
    column = torch.where(unit[2] < 0.5, width - 1 - column, column)[:, None, None, :].expand_as(y)
    light = 0.1 * torch.randn((n, 1, 1, 1), generator=generator, device=y.device)
    return y.gather(2, row).gather(3, column) + light


def step(
    state: GanState,
    g: GanSettings,
    x: Tensor,
    c: Tensor,
    target: Tensor,
    y: Tensor,
    y_target: Tensor,
) -> dict[str, Tensor]:
    """Update D, a jointly trained Q, and G once on a batch of pairs, Eqs (1) to (7).

    x (B, 1, 28, 28), c (B, K), y (B, 1, columns, bands), classes (B,). One forward pass of G serves
    both players. All networks get noisy inputs (§3.2), drawn on the device. In a stack of R runs
    all tensors and the returned values have R as first dimension; each run has its own losses, and
    the gradient of their sum updates all runs at once.
    """
    G, D, Q, opt = state.G, state.D, state.Q, state.optimisers
    augment = augment_spectrograms if g.direction == "face-voice" else augment_faces
    single = isinstance(state.generator, torch.Generator)
    # A recorded step (`cuda_graphs`) must cast the weights anew in each replay: no cache on cards.
    device, cached = x.device.type, x.device.type == "cpu"
    bf16 = partial(torch.autocast, device, torch.bfloat16, cache_enabled=cached)

    def random(f: Callable[..., Tensor], *t: Tensor) -> Tensor:
        """f(*t, generator); in a stack once per run, with the run's own generator."""
        if isinstance(state.generator, torch.Generator):
            return f(*t, state.generator)
        return torch.stack([f(*parts, r) for *parts, r in zip(*t, state.generator, strict=True)])

    def loss(f: Callable, *t: Tensor, **settings):
        """The loss f of these tensors; in a stack one loss per run."""
        return f(*t, **settings) if single else torch.vmap(lambda *a: f(*a, **settings))(*t)

    def apply(network: nn.Module, *t: Tensor) -> Tensor:
        """The network's output in the precision of y; computed in bf16 if the settings say so."""
        with bf16(enabled=g.precision == "bf16"):
            out = network(*t)
        return out.to(y.dtype)

    def normal(t: Tensor, r: torch.Generator) -> Tensor:
        return torch.randn(t.shape, generator=r, device=t.device)

    def noisy(t: Tensor, sd: float = g.noise) -> Tensor:
        return random(lambda t, r: torch.add(t, normal(t, r), alpha=sd), t) if sd else t

    def input_of_d(t: Tensor) -> Tensor:
        return noisy(random(augment, t) if g.augment else t)

    def descend(player: str, value: Tensor) -> None:
        opt[player].zero_grad(set_to_none=True)
        value.sum().backward()
        opt[player].step()

    # Draw z, and noise on a one-hot condition (§3.2); generate G(x|c, z), Eq. (3).
    z = random(lambda x, r: torch.randn((len(x), g.z), generator=r, device=x.device), x)
    if g.condition == "label" and g.label_noise:
        c = noisy(c, g.label_noise)
    fake = apply(G, noisy(x), c, z)

    # D's logits of real and generated samples.
    D.requires_grad_(True)
    penalised = g.r1 > 0 and state.step % R1_INTERVAL == 0
    real = input_of_d(y).requires_grad_(penalised)
    generated = input_of_d(fake.detach())
    if penalised:  # R1 needs a gradient's gradient, so D's real pass stays in full precision
        d_real, d_fake = D(real, c), apply(D, generated, c)
    elif single and g.d_norm == "group":  # no batch statistics: one pass for all samples is equal
        d_real, d_fake = apply(D, torch.cat([real, generated]), torch.cat([c, c])).chunk(2)
    else:
        d_real, d_fake = apply(D, real, c), apply(D, generated, c)

    # Update D: ascend Eq. (3), with R1 in every R1_INTERVAL-th step.
    loss_d = loss(losses.discriminator_loss, d_real, d_fake, real_target=g.real_target)
    if penalised:
        penalty = loss(losses.r1_penalty, losses.logit_gradient(d_real, real))
        loss_d = loss_d + R1_INTERVAL * g.r1 * penalty
    descend("D", loss_d)
    values = {
        "loss/D": loss_d,
        "D/real": d_real.sigmoid().mean(dim=-1),
        "D/generated": d_fake.sigmoid().mean(dim=-1),
    }

    # Update a jointly trained Q on real samples; G's update only reads Q.
    if g.q_training == "joint":
        Q.train().requires_grad_(True)
        values["loss/Q"] = loss(losses.class_loss, apply(Q, noisy(y)), y_target)
        descend("Q", values["loss/Q"])
    Q.eval().requires_grad_(False)

    # Update G: descend Eq. (7). Without a condition there is no class to recognise, Eq. (6).
    D.requires_grad_(False)
    weight = g.classify if g.condition != "none" or g.q_labels == "true" else 0.0
    classes = target if weight else target.clamp(min=0)
    weights = {"adversarial": g.adversarial, "l1": g.l1, "classify": weight, "game": g.game}
    logits = apply(D, input_of_d(fake), c), apply(Q, noisy(fake))
    loss_g, terms = loss(losses.generator_loss, *logits, classes, y, fake, **weights)
    descend("G", loss_g)

    # Update the EMA of G's weights.
    if state.shown is not G:
        update_average(state.shown, G, g.average)
    values |= {"loss/G": loss_g} | {f"loss/{k}": v for k, v in terms.items()}
    return {k: v.detach() for k, v in values.items()}


@torch.no_grad()
def update_average(shown: nn.Module, G: nn.Module, decay: float) -> None:
    """EMA: shown = decay shown + (1 - decay) G, for weights and batch statistics.

    Counters are copied. D and G circle around a point that the average approaches (Yazıcı et al.,
    ICLR 2019).
    """
    averages, values = [*shown.parameters(), *shown.buffers()], [*G.parameters(), *G.buffers()]
    pairs = list(zip(averages, values, strict=True))
    old, new = zip(*(p for p in pairs if p[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(old, new, 1 - decay)
    for a, b in pairs:
        if not a.is_floating_point():
            a.copy_(b)


def eager_step(state: GanState, g: GanSettings, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Take one `step` with the batch (x, c, target, y, y_target) and count it."""
    values = step(state, g, *batch)
    state.step += 1
    return values


StepFunction = Callable[[GanState, GanSettings, tuple[Tensor, ...]], dict[str, Tensor]]


def train(
    state: GanState, pool: TrainingData, g: GanSettings, take: StepFunction = eager_step
) -> Iterator[StepRecord]:
    """Train from `state.step` to `g.steps`; yield a StepRecord after each step.

    `state` may be saved between any two steps. The pairs of an epoch depend on its number alone, so
    a resumed run continues exactly. `take` performs and counts a step, given the batch (x, c,
    target, y, y_target): for this run, or together with other runs (`stacked_training`).
    """
    device = pool.y.device
    state.G.train()
    state.D.train()
    per_epoch = max(1, len(pool.epoch_pairs(0)[1]) // g.batch)
    epoch, rows = -1, (torch.empty(0), torch.empty(0))
    while state.step < g.steps:
        if state.step // per_epoch != epoch:
            epoch = state.step // per_epoch
            a, b = (torch.from_numpy(np.asarray(r)).to(device) for r in pool.epoch_pairs(epoch))
            rows = a, b
        k = state.step % per_epoch * g.batch
        i, j = rows[0][k : k + g.batch], rows[1][k : k + g.batch]
        batch = pool.x[i], pool.c[i], pool.target[i], pool.y[j], pool.y_target[j]
        yield StepRecord(state.step + 1, take(state, g, batch))


@torch.no_grad()
def sample(
    G: nn.Module, x: Tensor, c: Tensor, z_length: int, seed: int, batch: int = 1024, tick=None
) -> Tensor:
    """G(x|c, z) in evaluation mode, with z drawn from `seed` alone.

    (n, 1, 28, 28), (n, K) -> (n, 1, columns, bands) in [-1, 1]. G's mode and the random states of
    the training stay as they are. `tick(n)` is called after each batch of n samples.
    """
    training, parts = G.training, []
    G.eval()
    z = networks.draw_noise(G, len(x), z_length, seed).to(x.device)
    for some in zip(x.split(batch), c.split(batch), z.split(batch), strict=True):
        parts.append(G(*some))
        if tick:
            tick(len(parts[-1]))
    G.train(training)
    return torch.cat(parts)


def state_dict(state: GanState) -> dict:
    """Everything from which `load_state_dict` continues bit for bit on the same machine."""
    assert isinstance(state.generator, torch.Generator)  # stacked runs are saved one by one
    return {
        "networks": {k: getattr(state, k).state_dict() for k in ("G", "D", "Q", "shown")},
        "optimisers": {k: o.state_dict() for k, o in state.optimisers.items()},
        "random": state.generator.get_state(),
        "step": state.step,
        "threads": torch.get_num_threads(),
    }


def load_state_dict(state: GanState, saved: dict) -> None:
    """Restore what `state_dict` saved.

    The thread count is restored too, since the last bit of a sum depends on it.
    """
    for k, v in saved["networks"].items():
        getattr(state, k).load_state_dict(v)
    for k, v in saved["optimisers"].items():
        state.optimisers[k].load_state_dict(v)
        # A fused optimiser needs moments in the weights' memory layout, which differs by device.
        for p, moments in state.optimisers[k].state.items():
            moments.update({n: copy_with_layout(m, p) for n, m in moments.items() if m.dim()})
    assert isinstance(state.generator, torch.Generator)
    state.generator.set_state(saved["random"].cpu())
    state.step = saved["step"]
    torch.set_num_threads(saved["threads"])


def copy_with_layout(t: Tensor, like: Tensor) -> Tensor:
    """A copy of t with the memory layout of `like`, a tensor of the same shape."""
    return torch.empty_like(like).copy_(t)


def largest_batch(
    g: GanSettings, state: GanState, pool: TrainingData, take: StepFunction = eager_step
) -> int:
    """The largest halving of the batch that fits into the device memory; 0 if none does."""
    batch = g.batch // 2
    while batch >= 2:
        try:
            torch.cuda.empty_cache()
            i = torch.zeros(batch, dtype=torch.long, device=pool.y.device)
            take(state, g, (pool.x[i], pool.c[i], pool.target[i], pool.y[i], pool.y_target[i]))
            return batch
        except torch.OutOfMemoryError:
            batch //= 2
    return 0
