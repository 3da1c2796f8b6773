"""How long a user waits for a demo run's corpus, its evaluation and its table, on all cores.

A wait is told against its aim in seconds, or against one core.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch

from benchmarks.table import Row, measure_ratio, wall_seconds
from core.config.presets import DEMO
from core.config.settings import replace
from core.data import preparation
from core.evaluation import augmentation
from core.experiments import pipeline
from core.runs.directory import Run

REPEATS = 3
PREPARE_SECONDS, EVALUATION_SECONDS = 10.0, 15.0  # the aims
SHORT = replace(DEMO, f_s={"steps": 50}, gan={"steps": 20})
QUICK = replace(SHORT, f_t={"steps": 60})  # for a table of some ten rows


def against_aim(name: str, seconds: list[float], aim: float) -> Row:
    """A row of waits in seconds over their aim."""
    ratios = [s / aim for s in seconds]
    note = f"{statistics.median(seconds):.1f} s"
    return Row(
        f"{name} / {aim:.0f} s",
        *(f(ratios) for f in (statistics.median, min, max)),
        "at most 1",
        note,
    )


def prepare_seconds(folder: Path) -> float:
    """The whole demo corpus, drawn anew."""
    with mock.patch.dict(os.environ, {"DACSSGAN_DATA": str(folder)}):
        takes = preparation.PreparationSettings(takes=DEMO.data.demo_takes)
        cores = os.cpu_count() or 1
        return wall_seconds(
            lambda: preparation.prepare_corpus("demo", None, takes, workers=cores, again=True)
        )


def evaluation_seconds(folder: Path) -> float:
    """The evaluation at the end of a demo run, here of few GAN steps."""
    evaluate, seconds = pipeline.evaluate, list[float]()

    def timed(*given):
        found: list[dict] = []
        seconds.append(wall_seconds(lambda: found.append(evaluate(*given))))
        return found[0]

    with mock.patch.object(pipeline, "evaluate", timed):
        pipeline.run(SHORT, folder, "cpu")
    return seconds[0]


def compute_table(run: Run, threads: int) -> None:
    """The run's table from nothing, with so many threads."""
    for path in (run.directory / "table.json", run.directory / "table.npz"):
        path.unlink(missing_ok=True)
    shutil.rmtree(run.directory.parent / ".cache", ignore_errors=True)
    torch.set_num_threads(threads)
    augmentation.compute_table(run, augmentation.TableSettings(seeds=1, stretch=1))


def rows() -> Iterator[Row]:
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        waits = [prepare_seconds(home) for _ in range(REPEATS)]
        yield against_aim("prepare the demo corpus, 1,440 clips", waits, PREPARE_SECONDS)
        with mock.patch.dict(os.environ, {"DACSSGAN_DATA": name}):
            waits = [evaluation_seconds(home / str(k)) for k in range(REPEATS)]
            yield against_aim("evaluation at the end of a demo run", waits, EVALUATION_SECONDS)
            run = pipeline.run(QUICK, home / "table", "cpu")
            yield measure_ratio(
                f"a demo run's table, one core / {cores} cores",
                lambda: compute_table(run, 1),
                lambda: compute_table(run, cores),
                REPEATS,
                aim="at least 1.8",
                note=f"each row trained once for {QUICK.f_t.steps} steps; rows side by side",
            )
