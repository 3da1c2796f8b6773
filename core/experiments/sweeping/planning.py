"""How long a sweep takes: steps of each kind are timed on noise before it starts.

The estimate holds training steps alone, which are most of a run: those of G, D and Q, of the
classifiers that no earlier run has left in the cache, and of the rows of both tables. Corpora,
figures between steps and sampling come on top.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from core.config.serialisation import to_dict
from core.config.settings import Config
from core.evaluation.evaluator import source_settings, target_settings
from core.evaluation.protocol import Cell
from core.experiments.classifier_fitting import classifier_files, image_sizes, training_steps
from core.files import cache_key
from core.models import classifiers, gan
from core.models.flow import matching

# a kind of step is timed so long and so often, but no longer than that many times the seconds
TIMED_SECONDS, TIMED_STEPS = 0.5, 3
# settings of the game that change no step's time
TIMELESS = ("condition", "adversarial", "lr_g", "lr_d", "steps", "noise", "soft")
ROWS_OF_TABLE = 10  # about as many rows are trained for each run's table


class StepTimes:
    """Seconds of a step by its kind, each measured once on the given device."""

    def __init__(self, device: torch.device):
        self.device = device
        self.known: dict[str, float] = {}

    def of_gan(self, config: Config) -> float:
        """Seconds of one step of G, and of D and Q where there are."""
        sizes, classes = image_sizes(config), len(config.data.classes)
        game = {k: v for k, v in to_dict(config)["gan"].items() if k not in TIMELESS}
        key = cache_key("gan", game, sizes, classes, to_dict(config)["f_t"])
        if key not in self.known:
            self.known[key] = _seconds_of_each(_gan_steps(config, self.device))
        return self.known[key]

    def of_classifier(self, config: Config, is_source: bool) -> float:
        """Seconds of one step of f_S, or of f_T, Q, the scorer and a table's row."""
        settings, role = (source_settings if is_source else target_settings)(config)
        shape, classes = image_sizes(config)[0 if is_source else 1], len(config.data.classes)
        key = cache_key("classifier", vars(settings), shape, role, classes)
        if key not in self.known:
            images = torch.rand((settings.batch, 1, *shape), device=self.device) * 2 - 1
            labels = torch.arange(len(images), device=self.device) % classes
            steps = classifiers.training_steps(images, labels, settings, classes, 0, role)
            self.known[key] = _seconds_of_each(steps)
        return self.known[key]


def _gan_steps(config: Config, device: torch.device) -> Iterator[object]:
    """Steps of a config's game on noise."""
    g, (source, target) = config.gan, image_sizes(config)
    classes, n = len(config.data.classes), config.gan.batch
    settings, role = target_settings(config)
    Q = classifiers.untrained(settings, target, classes, role, torch.Generator().manual_seed(0))
    state = matching.start_function(g)(g, classes, target, Q.eval(), 0, device, source)
    x, y = (torch.rand((n, 1, *size), device=device) * 2 - 1 for size in (source, target))
    labels, rows = torch.arange(n, device=device) % classes, np.arange(n)
    c = torch.nn.functional.one_hot(labels, classes).float()
    c = c[:, :0] if g.condition == "none" else c
    pool = gan.TrainingData(x, c, labels, y, labels, lambda epoch: (rows, rows))
    return gan.train(state, pool, g, matching.step_function(g))


def _seconds_of_each(steps: Iterator[object]) -> float:
    """Mean seconds of the steps after the first, which loads what it needs."""
    next(steps, None)
    count, start = 0, time.perf_counter()
    for count, _ in enumerate(steps, 1):
        spent = time.perf_counter() - start
        if spent > TIMED_SECONDS and (count >= TIMED_STEPS or spent > TIMED_STEPS * TIMED_SECONDS):
            break
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / max(1, count)


def training_seconds(
    cells: Sequence[Cell],
    device: torch.device,
    table: Any = None,
    known: StepTimes | None = None,
    trained: Sequence[Cell] = (),
) -> float:
    """Seconds that the training steps of these runs take one after the other on this machine.

    `table` are the settings of each run's table, with `seeds` and `stretch`; None if there is none.
    The runs of `trained`, some of the cells, lack their table alone.
    """
    known, total, made = known or StepTimes(device), 0.0, set()
    for cell in cells:
        config = cell.config
        of_row = target_settings(config)[0].steps * known.of_classifier(config, is_source=False)
        total += table.seeds * table.stretch * ROWS_OF_TABLE * of_row if table else 0
        if cell in trained:
            continue
        total += config.gan.steps * known.of_gan(config)
        for name, file in classifier_files(config, _digest(config)).items():
            if name == "f_S" and config.data.f_s_corpus:  # trained once for all folds
                file = cache_key(
                    config.data.f_s_corpus, vars(source_settings(config)[0]), config.seed
                )
            if file not in made:
                made.add(file)
                of_f_s = known.of_classifier(config, is_source=True)
                of_source = training_steps(source_settings(config)[0], is_source=True) * of_f_s
                total += of_source if name == "f_S" else of_row
        total += len(config.evaluate.rows) * of_row
    return total


def _digest(config: Config) -> str:
    """What tells the corpora of runs apart: their names, as they need not be here yet."""
    return "+".join(dict.fromkeys([config.data.faces, config.data.voices]))
