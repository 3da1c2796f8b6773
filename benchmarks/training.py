"""Training (§3, §3.2) against a textbook loop of the same networks, losses, batch and order: samples a second, data loading counted in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.table import Row, ratio
from benchmarks.textbook import Loop, Pairs
from core import gan
from core.config import PRESETS, Gan, by
from core.networks import Classifier

CLASSES, STEPS = 6, 16  # steps of one repeat; every eighth has D's penalty, so a multiple of that


def data(n: int, columns: int, bands: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Faces, conditions, targets and spectrograms of the right sizes: what they show does not change the time."""
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(-1, 1, (n, 1, *size)).astype(np.float32) for size in ((28, 28), (columns, bands)))
    return x, rng.random((n, CLASSES), dtype=np.float32), rng.integers(0, CLASSES, n), y


def some(steps: Iterator, device: str) -> Callable[[], None]:
    """The next STEPS steps of a training, to their end on the device."""

    def work() -> None:
        for _ in range(STEPS):
            next(steps)
        if device != "cpu":
            torch.cuda.synchronize()

    return work


def ours(g: Gan, Q: Classifier, arrays: tuple, device: str) -> Callable[[], None]:
    """STEPS steps of `core.gan.train`, from an endless training."""
    x, c, label, y = (torch.from_numpy(a).to(device) for a in arrays)
    state, rng = gan.new_state(g, CLASSES, tuple(y.shape[2:]), Q, 0, device), np.random.default_rng(0)  # type: ignore[arg-type]
    pool = gan.Pool(x, c, label, y, label, lambda epoch: (rng.permutation(len(x)), rng.permutation(len(x))))
    records = gan.train(state, pool, g)

    return some(records, device)


def textbook(g: Gan, Q: Classifier, arrays: tuple, device: str, workers: int) -> Callable[[], None]:
    """STEPS steps of the peer, its DataLoader going on from one call to the next."""
    loop = Loop(g, CLASSES, tuple(arrays[3].shape[2:]), Q, device)  # type: ignore[arg-type]
    loader = loop.loader(Pairs(*arrays), workers)

    def endless():
        while True:
            yield from loop.epoch(loader)

    return some(endless(), device)


def rows() -> list[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(os.cpu_count() or 1)
    found = []
    for name, config in (("studio", PRESETS["demo"]), ("paper", by("paper", PRESETS["demo"]))):
        g, s = config.gan, config.logmel
        if g.q_training == "joint":
            continue  # the textbook's Q is frozen
        channels = (16, 32, 64, 128)
        Q = Classifier((s.columns, s.bands), channels, CLASSES).to(device).eval()
        arrays = data(32 * g.batch, s.columns, s.bands)
        peers = {n: textbook(g, Q, arrays, device, n) for n in (0, 1, 2)}
        took = {}
        for n, peer in peers.items():
            peer()
            begun = time.perf_counter()
            peer()
            took[n] = time.perf_counter() - begun
        best = min(took, key=took.__getitem__)
        aim = "at least 15" if device == "cuda" else "at least 2.5"
        note = f"batch {g.batch}; DataLoader with {best} workers, the best of 0, 1, 2; {torch.get_num_threads()} threads each"
        what = f"training on {device}, {name}'s networks: ours / textbook loop, samples a second"
        found.append(ratio(what, peers[best], ours(g, Q, arrays, device), aim=aim, note=note))
    return found
