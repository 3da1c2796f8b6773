"""What a whole grid costs: hours on this machine, from steps that are timed here.

Writes docs/costs/grids.md, which `make costs` makes anew. Corpora of the paper's size need not be
here: films are drawn ones, and steps are timed on noise (`core.experiments.sweeping.planning`).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.__main__ import machine_text
from benchmarks.prepare import whole_preparation
from benchmarks.table import wall_seconds
from core import files
from core.config.presets import PRESETS
from core.config.settings import Config
from core.data.demo import recordings
from core.evaluation import augmentation, protocol
from core.evaluation.evaluator import target_settings
from core.evaluation.few_labels.rows import FewLabelsSettings
from core.evaluation.protocol import Grid
from core.experiments.sweeping import planning
from core.paper import published

PAGE = files.ROOT / "docs" / "costs" / "grids.md"
FILMS = 96  # drawn ones that are prepared for the rate
CARD_GUESS = 20  # times as fast as this machine; no card was at hand
GRIDS: tuple[tuple[Grid, str, int, int, object], ...] = (  # grid, preset, folds, seeds, table
    ("paper", "paper", 5, 1, None),
    ("paper", "ravdess", 5, 1, None),
    ("studio", "studio", 5, 3, augmentation.TableSettings()),
    ("studio", "demo", 5, 3, augmentation.TableSettings()),
    ("labels", "demo", 5, 3, FewLabelsSettings()),
)


def seconds_a_film(films: int = FILMS) -> float:
    """`data prepare` of drawn films on all cores, a film's share."""
    with tempfile.TemporaryDirectory() as name:
        recordings.draw_demo_clips(Path(name), films)
        return wall_seconds(whole_preparation(Path(name), os.cpu_count() or 1)) / films


def pieces(config: Config, times: planning.StepTimes) -> Iterator[tuple[str, float]]:
    """Parts of the paper's experiment on CREMA-D's clips, and their seconds."""
    clips = published.CLIPS["crema-d"]
    yield f"prepare {clips:,} films, at the rate of {FILMS} drawn ones", clips * seconds_a_film()
    steps = -(-round(config.data.sets[2] * clips) // config.gan.batch)
    what = f"an epoch of G, D and Q, {steps} steps of {config.gan.batch} at the paper's width"
    yield what, steps * times.of_gan(config)
    row = target_settings(config)[0].steps
    yield f"a row of the table, {row:,} steps", row * times.of_classifier(config, is_source=False)


def grid_lines(times: planning.StepTimes, device: torch.device) -> Iterator[str]:
    """A line of the page for each grid."""
    for grid, preset, folds, seeds, table in GRIDS:
        cells = protocol.cells(grid, PRESETS[preset], folds, seeds)
        hours = planning.training_seconds(cells, device, table, times) / 3600
        name = f"{grid}, preset `{preset}`" + (", with tables" if table else "")
        size = f"{len(cells) // folds // seeds} × {folds} × {seeds} = {len(cells)}"
        yield f"| {name} | {size} | {hours:,.1f} | {hours / CARD_GUESS:,.1f} |"


def page(parts: Sequence[tuple[str, float]], grids: Sequence[str]) -> str:
    """docs/costs/grids.md."""
    lines = [
        "# What a grid costs",
        "",
        f"Written by `make costs` on {time.strftime('%Y-%m-%d')}: {machine_text()}. Steps are",
        "timed on noise; corpora, figures between steps and sampling come on top. `sweep` prints",
        "this estimate for its own grid before it starts.",
        "",
        "| part, preset `paper` | seconds |",
        "|---|---|",
        *(f"| {name} | {seconds:,.0f} |" for name, seconds in parts),
        "",
        "| grid | cases × folds × seeds | hours here, one after the other | hours on a card, a "
        "guess |",
        "|---|---|---|---|",
        *grids,
        "",
        f"The guess takes a card for {CARD_GUESS} times this machine: none was at hand. On a",
        "cluster (`--engine ray`) runs share nothing but their classifiers' cache, so n machines",
        "take about an n-th; `--workers` does the same with the cores of one.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    times = planning.StepTimes(device)
    parts = list(pieces(PRESETS["paper"], times))
    for name, seconds in parts:
        print(f"{name}: {seconds:,.0f} s", flush=True)
    grids = list(grid_lines(times, device))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(parts, grids), "utf-8")
    print(f"Written: {PAGE}")


if __name__ == "__main__":
    main()
