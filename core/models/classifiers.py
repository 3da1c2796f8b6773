"""§4.3: training and outputs of the classifiers: f_S, f_T, Q, the scorer, the augmentation rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from core.config import ClassifierSettings as Settings
from core.models import networks
from core.models.networks import Classifier

# width of the penultimate layer; the scorer's keeps FID's samples per feature above ten
FEATURE_WIDTHS = {"face": 64, "voice": 64, "scorer": 16}


def arguments(
    settings: Settings, shape: tuple[int, int], classes: int, role: str = "voice"
) -> dict:
    """The architecture of a classifier as plain data; faces get one convolution less (§4.3).

    Width `paper` is that of the authors' Q. The scorer, which is ours, has always a compact one.
    """
    wide = settings.width == "paper" and role != "scorer"
    channels = networks.WIDE_CLASSIFIER_CHANNELS if wide else settings.channels
    channels = channels[1:] if role == "face" else channels
    if wide:
        *dense, features = networks.WIDE_CLASSIFIER_DENSE
        size = {"shape": list(shape), "channels": list(channels), "classes": classes}
        return size | {"features": features, "dense": dense}
    return {
        "shape": list(shape),
        "channels": list(channels),
        "classes": classes,
        "features": FEATURE_WIDTHS[role],
    }


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
    make = torch.optim.Adagrad if settings.optimiser == "adagrad" else torch.optim.Adam
    return network, make(network.parameters(), lr=settings.lr)


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

    The network is the same object each time, in training mode; a caller that evaluates it must
    restore that mode. `steps` overrides `settings.steps`; `change` transforms a batch before noise
    is added. Raises ValueError if there is no sample.
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
    for step in range(1, (steps or settings.steps) + 1):
        i = torch.multinomial(weights, settings.batch, replacement=True, generator=generator)
        batch = change(images[i]) if change else images[i]
        if settings.mirror:
            turned = torch.rand(len(batch), 1, 1, 1, generator=generator, device=device) < 0.5
            batch = torch.where(turned, batch.flip(-1), batch)
        noise = torch.randn(batch.shape, generator=generator, device=device)
        batch = batch + settings.noise * noise  # §3.2
        loss = F.cross_entropy(network(batch), labels[i], label_smoothing=settings.smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        yield step, network, loss.detach()


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


@torch.no_grad()
def outputs(
    network: Classifier, images: torch.Tensor, batch: int = 1024
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


def clip_softmax(network: Classifier, windows: torch.Tensor, counts: np.ndarray) -> np.ndarray:
    """Softmax of clips (n, K) float64: the mean over each one's first `counts` (n,) windows.

    windows (n, W, H, W').
    """
    n, W = windows.shape[:2]
    each = softmax(network, windows.flatten(0, 1)[:, None]).reshape(n, W, -1)
    known = np.arange(W) < counts[:, None]
    return (each * known[..., None]).sum(axis=1) / counts[:, None]


def softmax(network: Classifier, images: torch.Tensor) -> np.ndarray:
    """Softmax outputs alone: (N, 1, H, W) -> (N, K) float64."""
    return outputs(network, images)[0]
