"""§3 and §3.2: the condition c, one training step of G, D and Q, train(), sample(). Knows no file, no run, no screen.

x is the source and y the target: a face and a spectrogram, or with `direction="voice-face"` (§4.5) the other way round.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from core.config import Condition, GanSettings
from core.models import losses, networks
from core.models.networks import (
    CONV_WIDTHS,
    DISCRIMINATOR_CHANNELS,
    ENCDEC_WIDTHS,
    FACE_SIZE,
    UNET_WIDTHS,
    Classifier,
    initialise_weights,
)

R1_INTERVAL = 8  # steps between two penalties on D's gradient, each then LAZY times as large (Karras et al. 2020)


@dataclass(frozen=True)
class TrainingData:
    """S3 on the device that trains. `pairs_of(epoch)` gives the rows of x and y that meet in an epoch, as index arrays (n,), (n,)."""

    x: Tensor  # (n_x, 1, 28, 28) faces in [-1, 1]
    c: Tensor  # (n_x, K) condition, or (n_x, 0) for none
    target: Tensor  # (n_x,) class that Eq. (6) asks Q for; -1 where there is none
    y: Tensor  # (n_y, 1, columns, bands) spectrograms in [-1, 1]
    y_target: Tensor  # (n_y,) class of y that a joint Q is trained on; -1 where unknown
    epoch_pairs: Callable[[int], tuple[np.ndarray, np.ndarray]]


@dataclass
class GanState:
    """Everything that a training step changes. `state_dict` and `load_state_dict` make resume exact.

    In a stack (`stacks.joined`) each network is several, tensors have a first dimension more, and every run draws from its own generator.
    """

    G: nn.Module
    D: nn.Module
    Q: nn.Module
    optimisers: dict[str, torch.optim.Optimizer]
    generator: torch.Generator | Sequence[torch.Generator]
    shown: nn.Module  # what is sampled and kept: the running average of G's weights, or G itself where there is none
    step: int = 0


@dataclass(frozen=True)
class StepRecord:
    """What one step did: detached scalars on the device, so that reading them is the reader's choice of moment."""

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

    label: one-hot, softened so that the label keeps 1 - soft and the others share it (§3.2). classifier: f_S's softmax o.
    cp: the conformal p-values p. Only the array that `kind` names is read.
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
    """The architecture of G as plain data, for its file's header: from `source` to `shape`; a face is the source where none is named."""
    widths = {"encdec": ENCDEC_WIDTHS, "unet": UNET_WIDTHS, "conv": CONV_WIDTHS}[g.generator][
        g.width
    ]
    n = 0 if g.condition == "none" else classes
    arguments = {
        "classes": n,
        "z": g.z,
        "shape": list(shape),
        "widths": list(widths),
        "use_source": g.use_source,
    }
    return arguments if source == FACE_SIZE else arguments | {"source": list(source)}


def discriminator_arguments(g: GanSettings, classes: int, shape: tuple[int, int]) -> dict:
    """The architecture of D as plain data."""
    told = classes if g.projection and g.condition != "none" else 0
    return {
        "shape": list(shape),
        "channels": list(DISCRIMINATOR_CHANNELS[g.width]),
        "norm": g.d_norm,
        "classes": told,
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
    """Fresh G, D and their optimisers, drawn from `seed` alone. Q comes trained (frozen) or fresh (joint) from the caller."""
    cpu = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G = networks.build(g.generator, generator_arguments(g, classes, shape, source))
        D = networks.build("discriminator", discriminator_arguments(g, classes, shape))
    # The paper's networks start as its [54] says. Ours keep torch's smaller start: where norms make a layer blind to its weights' size,
    # larger weights are slower ones, and with He's start D fell behind G and the training was lost (LOG.md).
    G = G if g.generator == "conv" else initialise_weights(G, cpu)
    D = initialise_weights(D, cpu) if g.d_norm == "batch" else D
    on_gpu = torch.device(device).type == "cuda"
    for network in (
        G,
        Q,
        D,
    ):  # channels last: few channels are a quarter faster so, but not group norm on a CPU
        layout = (
            torch.contiguous_format
            if network is D and g.d_norm == "group" and not on_gpu
            else torch.channels_last
        )
        network.to(device, memory_format=layout)  # type: ignore[call-overload]
    make = torch.optim.Adagrad if g.optimiser == "adagrad" else torch.optim.Adam
    extra = (
        {}
        if g.optimiser == "adagrad"
        else {"betas": (0.5, 0.99), "fused": True, "capturable": on_gpu}
    )
    players = {"G": (G, g.lr_g), "D": (D, g.lr_d)} | (
        {"Q": (Q, g.lr_d)} if g.q_training == "joint" else {}
    )
    optimisers: dict[str, torch.optim.Optimizer] = {
        k: make(n.parameters(), lr=lr, **extra) for k, (n, lr) in players.items()
    }  # type: ignore[arg-type]
    shown = copy.deepcopy(G).requires_grad_(False) if g.average else G
    return GanState(G, D, Q, optimisers, torch.Generator(device).manual_seed(seed + 1), shown)


def augment_spectrograms(y: Tensor, generator: torch.Generator) -> Tensor:
    """Changes that leave a spectrogram (B, 1, columns, bands) speech, drawn for each sample: a shift around the circle of time by up to an
    eighth, a gain of sd 0.1 (4 dB of 80), silence over up to an eighth. Differentiable; no flips, as low and high are no equals in a voice.

    D sees nothing else (Zhao et al. 2020), so it cannot learn a few hundred real voices by heart, and what it teaches G is true of y.
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
    """`augment_spectrograms` for faces (B, 1, 28, 28): half of them mirrored left to right, shifted by up to two cells (the border is repeated),
    brighter or darker by an sd of 0.1. Drawn for each, differentiable."""
    n, _, height, width = y.shape
    unit = torch.rand((3, n, 1), generator=generator, device=y.device)
    down, right = ((unit[k] * 5).long() - 2 for k in (0, 1))  # (B, 1) in -2..2
    row = (
        (torch.arange(height, device=y.device) + down)
        .clamp(0, height - 1)[:, None, :, None]
        .expand_as(y)
    )
    column = (torch.arange(width, device=y.device) + right).clamp(0, width - 1)
    column = torch.where(unit[2] < 0.5, width - 1 - column, column)[:, None, None, :].expand_as(y)
    light = 0.1 * torch.randn((n, 1, 1, 1), generator=generator, device=y.device)
    return y.gather(2, row).gather(3, column) + light


def retain_freed_memory() -> None:
    """Let this process keep the memory that a step gives back, for the next step (glibc; elsewhere nothing happens).

    Else every step of a training on a CPU asks the system for some hundred megabytes anew, and each page of them is cleared.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter, value in (
        (-4, 0),
        (-1, 2**31 - 1),
        (-2, 2**28),
    ):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD of malloc.h
        mallopt(parameter, value)


def step(
    state: GanState,
    g: GanSettings,
    x: Tensor,
    c: Tensor,
    target: Tensor,
    y: Tensor,
    y_target: Tensor,
) -> dict[str, Tensor]:
    """One update of D, (a joint) Q and G on a batch of pairs: x (B, 1, 28, 28), c (B, K), y (B, 1, columns, bands).

    One generator forward serves both players. Noise is added to the inputs of all networks (§3.2), drawn on the device. In a stack of R
    runs all of these have R in front, and so have the values: each run's losses are its own, and their sum moves all weights at once.
    """
    G, D, Q, opt = state.G, state.D, state.Q, state.optimisers
    change = augment_spectrograms if g.direction == "face-voice" else augment_faces
    single = isinstance(state.generator, torch.Generator)
    cached = (
        x.device.type == "cpu"
    )  # a recorded step (`capture`) must make its own copies of the weights each time
    bf16 = torch.autocast(
        x.device.type, torch.bfloat16, enabled=g.precision == "bf16", cache_enabled=cached
    )

    def drawn(f: Callable[..., Tensor], *t: Tensor) -> Tensor:
        """f(*t, generator), in a stack for each run with its own generator."""
        if isinstance(state.generator, torch.Generator):
            return f(*t, state.generator)
        return torch.stack([f(*parts, r) for *parts, r in zip(*t, state.generator, strict=True)])

    def each(f: Callable, *t: Tensor, **settings):
        """The loss f of these tensors, in a stack of each run's."""
        return f(*t, **settings) if single else torch.vmap(lambda *a: f(*a, **settings))(*t)

    def of(network: nn.Module, *t: Tensor) -> Tensor:
        """What a network makes of its inputs, as precise as they are; in between it may be bf16."""
        with bf16:
            out = network(*t)
        return out.to(y.dtype)

    def noisy(t: Tensor, sd: float = g.noise) -> Tensor:
        return (
            drawn(
                lambda t, r: torch.add(
                    t, torch.randn(t.shape, generator=r, device=t.device), alpha=sd
                ),
                t,
            )
            if sd
            else t
        )

    def shown_to_d(t: Tensor) -> Tensor:
        return noisy(drawn(change, t) if g.augment else t)

    z = drawn(lambda x, r: torch.randn((len(x), g.z), generator=r, device=x.device), x)
    if g.condition == "label" and g.label_noise:
        c = noisy(c, g.label_noise)
    fake = of(G, noisy(x), c, z)  # Eq. (3): G(x|c, z)

    D.requires_grad_(True)
    penalised = g.r1 > 0 and state.step % R1_INTERVAL == 0
    real = shown_to_d(y).requires_grad_(penalised)
    seen = shown_to_d(fake.detach())
    if penalised:  # the gradient of a gradient stays as precise as its inputs
        d_real, d_fake = D(real, c), of(D, seen, c)
    elif single and g.d_norm == "group":  # D looks at each sample alone, so at all of them at once
        d_real, d_fake = of(D, torch.cat([real, seen]), torch.cat([c, c])).chunk(2)
    else:
        d_real, d_fake = of(D, real, c), of(D, seen, c)
    loss_d = each(losses.discriminator_loss, d_real, d_fake, real_target=g.real_target, game=g.game)
    if penalised:
        loss_d = loss_d + R1_INTERVAL * g.r1 * each(
            losses.r1_penalty, losses.logit_gradient(d_real, real)
        )
    opt["D"].zero_grad(set_to_none=True)
    loss_d.sum().backward()
    opt["D"].step()
    values = {
        "loss/D": loss_d,
        "D/real": d_real.sigmoid().mean(dim=-1),
        "D/generated": d_fake.sigmoid().mean(dim=-1),
    }

    if g.q_training == "joint":
        Q.train().requires_grad_(True)
        loss_q = each(losses.class_loss, of(Q, noisy(y)), y_target)
        opt["Q"].zero_grad(set_to_none=True)
        loss_q.sum().backward()
        opt["Q"].step()
        values["loss/Q"] = loss_q
    Q.eval().requires_grad_(False)

    D.requires_grad_(False)  # no gradients for D where only G moves
    weight = (
        g.classify if g.condition != "none" or g.q_labels == "true" else 0.0
    )  # without a class there is nothing to ask of Q
    aim = target if weight else target.clamp(min=0)
    weights = {"adversarial": g.adversarial, "l1": g.l1, "classify": weight, "game": g.game}
    loss_g, terms = each(
        losses.generator_loss,
        of(D, shown_to_d(fake), c),
        of(Q, noisy(fake)),
        aim,
        y,
        fake,
        **weights,
    )
    opt["G"].zero_grad(set_to_none=True)
    loss_g.sum().backward()
    opt["G"].step()
    if state.shown is not G:
        update_average(state.shown, G, g.average)
    values |= {"loss/G": loss_g} | {f"loss/{k}": v for k, v in terms.items()}
    return {k: v.detach() for k, v in values.items()}


@torch.no_grad()
def update_average(shown: nn.Module, G: nn.Module, decay: float) -> None:
    """shown = decay * shown + (1 - decay) * G, for weights and batch norm's statistics alike; counters are copied.

    D and G circle each other; the average stands where they circle around (Yazıcı et al., ICLR 2019).
    """
    pairs = list(
        zip([*shown.parameters(), *shown.buffers()], [*G.parameters(), *G.buffers()], strict=True)
    )
    mine, its = zip(*(p for p in pairs if p[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(mine, its, 1 - decay)
    for a, b in pairs:
        if not a.is_floating_point():
            a.copy_(b)


def eager_step(state: GanState, g: GanSettings, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """`step` of (x, c, target, y, y_target), counted."""
    values = step(state, g, *batch)
    state.step += 1
    return values


StepFunction = Callable[[GanState, GanSettings, tuple[Tensor, ...]], dict[str, Tensor]]


def train(
    state: GanState, pool: TrainingData, g: GanSettings, take: StepFunction = eager_step
) -> Iterator[StepRecord]:
    """Run the steps from `state.step` to `g.steps`, yielding a Record after each; `state` may be saved between any two.

    Batches are indices on the device; which pairs an epoch holds depends on its number alone, so a resumed run continues exactly.
    `take` takes a step with (x, c, target, y, y_target) and counts it: by itself, or together with other runs (`stacks`).
    """
    device = pool.y.device
    state.G.train()
    state.D.train()
    per_epoch = max(1, len(pool.epoch_pairs(0)[1]) // g.batch)
    epoch, rows = -1, (torch.empty(0), torch.empty(0))
    while state.step < g.steps:
        if state.step // per_epoch != epoch:
            epoch = state.step // per_epoch
            rows = tuple(
                torch.from_numpy(np.asarray(r)).to(device) for r in pool.epoch_pairs(epoch)
            )  # type: ignore[assignment]
        k = state.step % per_epoch * g.batch
        i, j = rows[0][k : k + g.batch], rows[1][k : k + g.batch]
        yield StepRecord(
            state.step + 1,
            take(state, g, (pool.x[i], pool.c[i], pool.target[i], pool.y[j], pool.y_target[j])),
        )


@torch.no_grad()
def sample(
    G: nn.Module, x: Tensor, c: Tensor, z_length: int, seed: int, batch: int = 1024
) -> Tensor:
    """G(x|c, z) in evaluation mode with z from `seed` alone: (n, 1, 28, 28), (n, K) -> (n, 1, columns, bands) in [-1, 1].

    Neither G's mode nor any random state of the training is changed.
    """
    training = G.training
    G.eval()
    z = torch.randn((len(x), z_length), generator=torch.Generator().manual_seed(seed)).to(x.device)
    parts = [
        G(x[i : i + batch], c[i : i + batch], z[i : i + batch]) for i in range(0, len(x), batch)
    ]
    G.train(training)
    return torch.cat(parts)


def state_dict(state: GanState) -> dict:
    """Tensors and numbers from which `load_state_dict` continues bit for bit (same machine, CPU, thread count)."""
    networks = {k: getattr(state, k).state_dict() for k in ("G", "D", "Q", "shown")}
    optimisers = {k: o.state_dict() for k, o in state.optimisers.items()}
    assert isinstance(state.generator, torch.Generator)  # a stack's members are saved one by one
    random = state.generator.get_state()
    return {
        "networks": networks,
        "optimisers": optimisers,
        "random": random,
        "step": state.step,
        "threads": torch.get_num_threads(),
    }


def load_state_dict(state: GanState, saved: dict) -> None:
    """Continue from what `state_dict` saved; restores the thread count, on which the last bit of sums depends."""
    for k, v in saved["networks"].items():
        getattr(state, k).load_state_dict(v)
    for k, v in saved["optimisers"].items():
        state.optimisers[k].load_state_dict(v)
        for p, moments in state.optimisers[
            k
        ].state.items():  # a fused optimiser reads memory as it lies, and layouts differ by device
            moments.update({n: copy_with_layout(m, p) for n, m in moments.items() if m.dim()})
    assert isinstance(state.generator, torch.Generator)
    state.generator.set_state(saved["random"].cpu())
    state.step = saved["step"]
    torch.set_num_threads(saved["threads"])


def copy_with_layout(t: Tensor, like: Tensor) -> Tensor:
    """A copy of t whose memory is ordered as that of `like`, a tensor of the same shape."""
    return torch.empty_like(like).copy_(t)


def largest_batch(g: GanSettings, state: GanState, pool: TrainingData) -> int:
    """The largest halving of the batch with which a step fits into the device's memory; 0 when not even one pair does."""
    batch = g.batch // 2
    while batch >= 2:
        try:
            torch.cuda.empty_cache()
            i = torch.zeros(batch, dtype=torch.long, device=pool.y.device)
            step(state, g, pool.x[i], pool.c[i], pool.target[i], pool.y[i], pool.y_target[i])
            return batch
        except torch.OutOfMemoryError:
            batch //= 2
    return 0
