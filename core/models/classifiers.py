"""§4.3: training and outputs of the classifiers: f_S, f_T, Q, the scorer, the augmentation rows."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from core.config.settings import ClassifierSettings as Settings
from core.models import convolutions, gan, networks
from core.models.networks import AnyClassifier, Classifier

# width of the penultimate layer; the scorer's keeps FID's samples per feature above ten
FEATURE_WIDTHS = {"face": 64, "voice": 64, "scorer": 16}
WEIGHT_DECAY = 0.05  # of AdamW, whose rate rises over the first WARM_UP of the steps
WARM_UP = 0.1
# Augmentation of faces, each drawn evenly up to this, in either direction
MAX_TURN = math.radians(12)
MAX_SHIFT = 0.16  # of half the side
MAX_STRETCH = 0.12  # of the logarithm of the size
MAX_LIGHT = 0.2  # of the logarithm of the contrast, and of the grey levels of -1..1
MEMBER_SEEDS = 1_000_003  # from the seed of one network of an ensemble to the next one's
PATCH_SIDES = (0.1, 0.4)  # shortest and longest side of a covered patch, as a part of the face's


Result = TypeVar("Result")


def arguments(
    settings: Settings, shape: tuple[int, int], classes: int, role: str = "voice"
) -> dict:
    """The architecture of a classifier as plain data; faces get one convolution less (§4.3).

    Width `paper` is that of the authors' Q. The scorer, which is ours, has always a compact one.
    Residual blocks are compact.
    """
    wide = settings.width == "paper" and role != "scorer"
    channels = networks.WIDE_CLASSIFIER_CHANNELS if wide else settings.channels
    residual = settings.architecture == "residual" and not wide
    channels = channels[1:] if role == "face" and not residual else channels
    if wide:
        *dense, features = networks.WIDE_CLASSIFIER_DENSE
        size = {"shape": list(shape), "channels": list(channels), "classes": classes}
        return size | {"features": features, "dense": dense}
    size = {"shape": list(shape), "channels": list(channels), "classes": classes}
    size["features"] = FEATURE_WIDTHS[role]
    # keys of residual networks alone: the header of a plain one stays what it was
    return size | ({"residual": True, "mirrored": settings.mirror} if residual else {})


def source_arguments(
    settings: Settings, shape: tuple[int, int], classes: int, role: str = "face"
) -> dict:
    """`arguments` of f_S, which may be the mean of several networks."""
    own = arguments(settings, shape, classes, role)
    return own | ({"members": settings.networks} if settings.networks > 1 else {})


def untrained(
    settings: Settings, shape: tuple[int, int], classes: int, role: str, generator: torch.Generator
) -> Classifier:
    """A classifier whose weights are drawn from `generator` alone."""
    network = networks.build("classifier", arguments(settings, shape, classes, role))
    return networks.initialise_weights(network, generator)  # type: ignore[return-value]


def new_classifier(
    settings: Settings,
    shape: tuple[int, int],
    classes: int,
    role: str,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Classifier, torch.optim.Optimizer]:
    """A classifier in training mode, drawn from `generator` alone, and its optimiser."""
    network = untrained(settings, shape, classes, role, generator).to(device).train()
    if settings.architecture == "residual":  # twice as fast on a CPU
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.optimiser == "adamw":
        return network, _decaying_adam(network, settings.lr)
    make = torch.optim.Adagrad if settings.optimiser == "adagrad" else torch.optim.Adam
    return network, make(network.parameters(), lr=settings.lr)


def _decaying_adam(network: torch.nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW that decays the weights of layers, and neither biases nor batch norm's."""
    of_layers = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    groups: list[dict] = [{"params": of_layers, "weight_decay": WEIGHT_DECAY}, {"params": others}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)


def one_cycle_rate(highest: float, share: float) -> float:
    """AdamW's learning rate after a share of the steps: up in a line, down in half a cosine.

    >>> [round(one_cycle_rate(1.0, k / 20), 2) for k in (1, 2, 11, 20)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if share < WARM_UP:
        return highest * share / WARM_UP
    return highest * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))) / 2


def augment_faces(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Faces (B, 1, H, W) turned, shifted, resized, lit and half of them covered in part, at random.

    What a turn brings in from outside repeats the border. Each face has its own draw.
    """
    n, device = len(x), x.device
    draws = torch.rand((12, n), generator=generator, device=device)
    turn, size, right, down, contrast, light, column, row, grey = 2 * draws[:9] - 1
    cosine, sine = (f(MAX_TURN * turn) * (MAX_STRETCH * size).exp() for f in (torch.cos, torch.sin))
    rows = ([cosine, -sine, MAX_SHIFT * right], [sine, cosine, MAX_SHIFT * down])
    affine = torch.stack([torch.stack(entries, dim=1) for entries in rows], dim=1)  # (B, 2, 3)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    each = (-1, 1, 1, 1)
    x = x * (MAX_LIGHT * contrast).exp().view(each) + (MAX_LIGHT * light).view(each)
    least, most = PATCH_SIDES
    half_width, half_height = (least + (most - least) * draws[9:11]).view(2, *each)
    down, right = (torch.linspace(-1, 1, k, device=device) for k in x.shape[2:])
    inside = (right - column.view(each)).abs() < half_width
    inside = inside & ((down[:, None] - row.view(each)).abs() < half_height)
    x = torch.where(inside & (draws[11] < 0.5).view(each), grey.view(each) / 2, x)
    return x.clamp(-1, 1)


def training_steps(
    images: torch.Tensor,
    labels: torch.Tensor,
    settings: Settings,
    classes: int,
    seed: int,
    role: str = "voice",
    steps: int = 0,
    change: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Iterator[tuple[int, Classifier, torch.Tensor]]:
    """Train as `fit` does; yield (step, network, loss) after each step.

    The network is the same object each time, in training mode (of an average, a copy that no step
    trains); a caller that evaluates it must restore that mode. `steps` overrides `settings.steps`;
    `change` transforms a batch before noise is added. Raises ValueError if there is no sample.
    """
    device = images.device
    cpu = torch.Generator().manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed + 1)
    shape = (int(images.shape[2]), int(images.shape[3]))
    network, optimiser = new_classifier(settings, shape, classes, role, cpu, device)
    counts = torch.bincount(labels, minlength=classes)
    if counts.sum() == 0:
        raise ValueError("there is no sample to train a classifier on")
    weights = (1.0 / counts.clamp(min=1).double())[labels].float()
    shown = copy.deepcopy(network).requires_grad_(False) if settings.average else network
    last = steps or settings.steps
    for step in range(1, last + 1):
        if settings.optimiser == "adamw":
            for group in optimiser.param_groups:
                group["lr"] = one_cycle_rate(settings.lr, step / last)
        i = torch.multinomial(weights, settings.batch, replacement=True, generator=generator)
        batch = change(images[i]) if change else images[i]
        if settings.mirror:
            turned = torch.rand(len(batch), 1, 1, 1, generator=generator, device=device) < 0.5
            batch = torch.where(turned, batch.flip(-1), batch)
        if settings.augment:
            batch = augment_faces(batch, generator)
        noise = torch.randn(batch.shape, generator=generator, device=device)
        batch = batch + settings.noise * noise  # §3.2
        h = network.dense(network.trunk(batch))
        if settings.dropout:
            is_kept = torch.rand(h.shape, generator=generator, device=device) >= settings.dropout
            h = h * is_kept / (1 - settings.dropout)
        logits = network.head(network.hidden(h))
        loss = F.cross_entropy(logits, labels[i], label_smoothing=settings.smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if shown is not network:  # the first steps' weights leave the average soon
            gan.update_average(shown, network, min(settings.average, (1 + step) / (10 + step)))
        yield step, shown, loss.detach()


def fit(
    images: torch.Tensor,
    labels: torch.Tensor,
    settings: Settings,
    classes: int,
    seed: int,
    role: str = "voice",
    tick: Callable[[int, float], None] | None = None,
) -> Classifier:
    """Train a classifier for `settings.steps` steps on class-balanced batches.

    images (N, 1, H, W) in [-1, 1] and labels (N,) lie on the training device. The batches are drawn
    there from one generator, so equal seeds give equal weights, and training sets of all sizes get
    equally many steps. `tick(step, loss)` is called after each step; the loss is NaN in most steps,
    which saves waiting for the device. Raises ValueError if there is no sample or no step.
    """
    network = None
    for step, network, loss in training_steps(images, labels, settings, classes, seed, role):  # noqa: B007
        if tick:
            tick(step, float(loss) if step % 20 == 0 or step == settings.steps else float("nan"))
    if network is None:
        raise ValueError(f"a classifier needs at least one step, not {settings.steps}")
    return network.eval()


def fit_source(
    images: torch.Tensor,
    labels: torch.Tensor,
    settings: Settings,
    classes: int,
    seed: int,
    role: str = "face",
    tick: Callable[[int, float], None] | None = None,
) -> AnyClassifier:
    """Train f_S as `fit` does, or `settings.networks` of them side by side, whose mean is f_S.

    `tick(step, loss)` counts the steps of all.
    """
    if settings.networks == 1:
        return fit(images, labels, settings, classes, seed, role, tick)
    done, guard = itertools.count(1), threading.Lock()

    def count(_: int, loss: float) -> None:
        with guard:
            if tick:
                tick(next(done), loss)

    def member(k: int) -> Classifier:
        return fit(images, labels, settings, classes, seed + k * MEMBER_SEEDS, role, count)

    tasks = [functools.partial(member, k) for k in range(settings.networks)]
    shape = (int(images.shape[2]), int(images.shape[3]))
    own = source_arguments(settings, shape, classes, role)
    return networks.average_logits(side_by_side(tasks, images.device), own)


def side_by_side(tasks: Sequence[Callable[[], Result]], device: torch.device) -> list[Result]:
    """Results of the tasks in order; on a CPU as many tasks at once as torch has threads.

    Each then computes with one thread: two small trainings beside each other take half the time of
    two in turns, and a result is the same bit for bit on any number of cores. The first error is
    raised once the tasks that run have ended; the others are not begun.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu":
        return [task() for task in tasks]
    convolutions.retain_freed_memory()

    def with_one_thread(task: Callable[[], Result]) -> Result:
        torch.set_num_threads(1)  # of the calling thread
        return task()

    try:
        if threads == 1:
            return [task() for task in tasks]
        with ThreadPoolExecutor(threads) as pool:
            results = [pool.submit(with_one_thread, task) for task in tasks]
            try:
                return [r.result() for r in results]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        torch.set_num_threads(threads)


def in_turn(report: Callable[..., None]) -> Callable[..., None]:
    """`report(phase, done, total, remark)` for tasks side by side: the first unfinished one's.

    Each phase's end is reported, too. An error of `report`, a wish to stop, is raised in the task
    that reports, and so in all of them.
    """
    latest: dict[str, tuple[int, int, str]] = {}
    guard = threading.Lock()

    def tell(phase: str, done: int, total: int, remark: str = "") -> None:
        with guard:
            latest[phase] = done, total, remark
            unfinished = (p for p, (d, t, _) in latest.items() if d < t)
            shown = phase if done == total else next(unfinished)
            report(shown, *latest[shown])

    return tell


@torch.no_grad()
def apply_temperature(network: AnyClassifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Divide the logits by the T that makes labels of unseen images likeliest; returns T.

    Each class weighs as much as any other (Guo et al. 2017, on balanced classes). T is written into
    the weights of the last layer, and changes no order of classes. Without an image T is 1.
    """
    if not len(images):
        return 1.0
    features = torch.cat([network.penultimate(part) for part in images.split(1024)])
    logits, labels = network.head(features).double().cpu(), labels.cpu()
    weights = 1.0 / torch.bincount(labels, minlength=logits.shape[1]).double()[labels]
    given = logits.gather(1, labels[:, None])[:, 0]
    low, high = math.log(1 / 20), math.log(20)  # of the factor 1/T
    for _ in range(50):  # the likelihood is concave in 1/T: its slope has one zero
        factor = math.exp((low + high) / 2)
        expected = (logits * (factor * logits).softmax(dim=1)).sum(dim=1)
        if (weights * (given - expected)).sum() > 0:
            low = math.log(factor)
        else:
            high = math.log(factor)
    for parameter in network.head.parameters():
        parameter.mul_(factor)
    return 1 / factor


@torch.no_grad()
def outputs(
    network: AnyClassifier, images: torch.Tensor, batch: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax outputs (N, K) and penultimate features (N, F) of images (N, 1, H, W) as float64."""
    rows, features = [], []
    for part in images.split(batch):
        f = network.penultimate(part)
        features.append(f.double().cpu())
        rows.append(network.head(f).double().softmax(dim=1).cpu())
    if not rows:
        return np.zeros((0, network.head.out_features)), np.zeros((0, network.head.in_features))
    return torch.cat(rows).numpy(), torch.cat(features).numpy()


def clip_softmax(network: AnyClassifier, windows: torch.Tensor, counts: np.ndarray) -> np.ndarray:
    """Softmax of clips (n, K) float64: the mean over each one's first `counts` (n,) windows.

    windows (n, W, H, W').
    """
    n, W = windows.shape[:2]
    each = softmax(network, windows.flatten(0, 1)[:, None]).reshape(n, W, -1)
    known = np.arange(W) < counts[:, None]
    return (each * known[..., None]).sum(axis=1) / counts[:, None]


def softmax(network: AnyClassifier, images: torch.Tensor) -> np.ndarray:
    """Softmax outputs alone: (N, 1, H, W) -> (N, K) float64."""
    return outputs(network, images)[0]
