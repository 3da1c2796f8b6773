"""Time to quality (§4.2 on S2): seconds of training until generated voices are as good as asked.

That is an FID of at most FLOOR_FACTOR times that between real voices, and emotions heard at least
HEARD_SHARE as often as in real voices, both by the scorer, on the corpus, the condition and the
classifiers of the preset `stage`. Ours are its settings. The peers are the textbook loop with our
networks, once with our settings, so that the loop alone differs, and once with DCGAN's, which
tutorials take; and the textbook loop with the paper's networks, losses and optimiser. A peer that
has not arrived after LIMIT times our seconds has not. Only training steps are timed. QUALITY_SEEDS
sets the repeats.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.table import Row
from benchmarks.textbook import PairDataset, TextbookLoop
from benchmarks.training import cpu_threads
from core.config.presets import DEMO, STAGE, with_method
from core.config.settings import Config, GanSettings, replace
from core.data import preparation, prepared_corpora, splits
from core.data.splits import SampleSet
from core.evaluation import metrics
from core.evaluation.evaluator import FittedClassifiers, TrainingMonitor
from core.evaluation.quality import unknown_samples
from core.experiments import classifier_fitting, gan_training
from core.models import classifiers, convolutions, gan
from core.runs.directory import Run

FLOOR_FACTOR, HEARD_SHARE, LIMIT = 2.0, 0.9, 10.0
STEPS_BETWEEN_LOOKS = 10
SEEDS = int(os.environ.get("QUALITY_SEEDS", "3"))
# Radford et al. 2016 and torch's tutorial on it, with pix2pix's order of a step
DCGAN = {"lr_g": 2e-4, "lr_d": 2e-4, "average": 0.0, "r1": 0.0, "projection": False}


@dataclass(frozen=True)
class Task:
    """What every side trains on and is judged by."""

    config: Config
    sets: dict[str, SampleSet]
    c: dict[str, np.ndarray]
    fitted: FittedClassifiers
    monitor: TrainingMonitor
    floor: dict[str, float]  # of real voices
    device: torch.device


@dataclass(frozen=True)
class Contender:
    """A training: `steps` yields once per step; `shown` is the generator that is sampled."""

    steps: Iterator
    shown: Callable[[], nn.Module]
    z: int


def new_task(config: Config, folder: Path, device: torch.device) -> Task:
    """Sets, conditions and fitted classifiers of a configuration on the demo corpus."""
    takes = preparation.PreparationSettings(takes=config.data.demo_takes)
    preparation.prepare_corpus("demo", None, takes)
    sets, K = splits.build_sets(config), len(config.data.classes)
    digest = prepared_corpora.corpus_digest(config.data)
    run = Run(folder / "quality")
    (run.directory / "models").mkdir(parents=True)
    fitted = classifier_fitting.fit_classifiers(
        config, sets, digest, run, device, lambda *a, **k: None
    )
    c = {
        k: gan.condition("label", s.x_label, None, None, K, config.gan.soft)
        for k, s in sets.items()
    }
    monitor = TrainingMonitor(config, sets["S2"], c["S2"], fitted, device)
    floor = monitor.reference(unknown_samples(config, sets), device)
    return Task(config, sets, c, fitted, monitor, floor, device)


def our_training(task: Task, g: GanSettings, seed: int) -> Contender:
    """Our loop."""
    if task.device.type == "cpu":
        convolutions.retain_freed_memory()
    config = replace(task.config, gan=vars(g) | {"steps": 10**8})
    pool = gan_training.make_pool(config, task.sets, task.c, task.device)
    shape = classifier_fitting.image_sizes(config)[1]
    classes = len(config.data.classes)
    state = gan.new_state(config.gan, classes, shape, task.fitted.Q, seed, task.device)
    steps = gan_training.train_with_cuda_graphs(state, pool, config.gan)
    return Contender(steps, lambda: state.shown, g.z)


def textbook_training(task: Task, g: GanSettings, seed: int) -> Contender:
    """The textbook loop on the same pairs."""
    torch.manual_seed(seed)
    S3, device = task.sets["S3"], task.device.type
    shape = classifier_fitting.image_sizes(task.config)[1]
    Q = task.fitted.Q
    loop = TextbookLoop(g, len(task.config.data.classes), shape, Q, device)
    pairs = PairDataset(S3.x[:, None], task.c["S3"], S3.x_label, S3.y[:, None])
    loader = loop.loader(pairs, 0)

    def endless() -> Iterator[int]:
        while True:
            yield from loop.epoch(loader)

    def shown() -> nn.Module:
        for a, b in zip(loop.shown.buffers(), loop.G.buffers(), strict=True):
            a.copy_(b)  # the loop averages weights alone
        return loop.shown

    return Contender(endless(), shown, g.z)


def is_good_enough(task: Task, G: nn.Module, z: int) -> bool:
    """Whether G's voices of S2's faces reach the asked quality."""
    m, floor = task.monitor, task.floor
    o, features = classifiers.outputs(m.scorer, gan.sample(G, m.x, m.c, z, seed=0))
    heard = (o.argmax(axis=1) == m.labels).mean()
    n = min(len(m.real), len(features))
    return bool(
        heard >= HEARD_SHARE * floor["recognised real"]
        and metrics.fid(m.real[:n], features[:n]) <= FLOOR_FACTOR * floor["FID real"]
    )


def seconds_to_quality(
    one: Contender, is_good: Callable[[nn.Module, int], bool], limit: float
) -> tuple[float, int]:
    """Seconds of training steps until a look finds the quality, and steps; (inf, steps) if never.

    The looks are not timed.
    """
    spent, steps = 0.0, 0
    while spent < limit:
        begun = time.perf_counter()
        for _ in range(STEPS_BETWEEN_LOOKS):
            next(one.steps)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent += time.perf_counter() - begun
        steps += STEPS_BETWEEN_LOOKS
        if is_good(one.shown(), one.z):
            return spent, steps
    return float("inf"), steps


def rows(config: Config = STAGE, seeds: int = SEEDS, most: float = 600.0) -> Iterator[Row]:
    """A row per peer: its seconds over ours. `most` bounds our own training, in seconds.

    Each training's seconds are told on standard error as they are known.
    """
    torch.set_num_threads(cpu_threads())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours, peers = (
        config.gan,
        {
            "the textbook loop, our networks and settings": config.gan,
            "the textbook loop, our networks, DCGAN's settings": replace(config, gan=DCGAN).gan,
            "the textbook loop, the paper's method": with_method(
                "strict", replace(DEMO, gan={"condition": "label"})
            ).gan,
        },
    )
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in peers}
    own: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        task = new_task(config, Path(folder), device)
        look = lambda G, z: is_good_enough(task, G, z)  # noqa: E731
        for seed in range(seeds):
            own.append(seconds_to_quality(our_training(task, ours, seed), look, most))
            _tell(seed, "ours", own[-1])
            limit = LIMIT * min(own[-1][0], most)
            for name, g in peers.items():
                peer = textbook_training(task, g, seed)
                found[name].append(seconds_to_quality(peer, look, limit))
                _tell(seed, name, found[name][-1])
    aims = dict(zip(peers, ("", "at least 3", "at least 10"), strict=True))
    for name, times in found.items():
        yield quality_row(name, times, own, aims[name], task)


def _tell(seed: int, name: str, found: tuple[float, int]) -> None:
    seconds, steps = found
    arrived = (
        f"{seconds:.1f} s, {steps} steps" if seconds < float("inf") else f"not in {steps} steps"
    )
    print(f"seed {seed}, {name}: {arrived}", file=sys.stderr, flush=True)


def quality_row(
    name: str, times: list[tuple[float, int]], own: list[tuple[float, int]], aim: str, task: Task
) -> Row:
    """The row of a peer: its seconds and steps of each seed against ours."""
    ratios = [min(t / mine, LIMIT) for (t, _), (mine, _) in zip(times, own, strict=True)]
    never = sum(t == float("inf") for t, _ in times)
    each = ", ".join(f"{mine:.1f} s in {n} steps" for mine, n in own)
    note = (
        f"ours {each}; FID floor {task.floor['FID real']:.2f}, "
        f"heard in real voices {task.floor['recognised real']:.0%}, N = {len(task.monitor.real)}"
    )
    note += f"; {never} of {len(times)} not within {LIMIT:.0f} ×" if never else ""
    what = f"to FID ≤ {FLOOR_FACTOR:g} × floor, heard ≥ {HEARD_SHARE:g} × real: {name} / ours"
    return Row(what, statistics.median(ratios), min(ratios), max(ratios), aim, note)
