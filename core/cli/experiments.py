"""Commands that run experiments: `table`, `sweep`, `report`, `vocoder`."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from core.cli import grids
from core.cli.options import (
    Address,
    Between,
    Count,
    Device,
    Engine,
    Folder,
    RunArgument,
    Seed,
    Sibling,
    placeholder,
)
from core.cli.progress import Progress, format_duration, report_end
from core.cli.training import stop_on_signals
from core.config.presets import PRESETS, Method
from core.evaluation.few_labels.rows import FewLabelsSettings
from core.files import UserError

if TYPE_CHECKING:
    from core.experiments.sweeping.sweep import TablePlan


@dataclass(frozen=True)
class TableOptions:
    """Compute the whole augmentation table of a finished run, with tests over subjects.

    It uses the run's saved networks, under both step rules, and writes table.json and table.npz
    into the run. Example:
      python -m core table demo --condition cp
    """

    run: RunArgument
    condition: Sibling = None
    seeds: Count = 3
    """Trainings of each row."""
    stretch: Count = 3
    """Longest training of a row, in multiples of the common number of steps."""
    device: Device = "auto"


@dataclass(frozen=True)
class SweepOptions(grids.GridOptions):
    """Train the runs of a grid.

    Finished runs are skipped and unfinished ones resumed. Ctrl-C stops; the same command goes on.
    Machines of a Ray cluster need no shared disk, but this project and its packages at the same
    path; this machine alone writes the runs. Examples:
      python -m core sweep --grid studio --preset demo --folds 5 --seeds 3 --table
      python -m core sweep --grid paper --preset paper ravdess --cells "EncDec · CP"
      python -m core sweep --grid labels --preset demo
      python -m core sweep --grid paper --engine ray --address 10.0.0.1:6379
    """

    workers: Annotated[
        int | None, placeholder("N", "1; ray: the processors or cards"), Between(1, 1_000)
    ] = None
    """Processes that train at the same time, one thread each."""
    engine: Engine = "local"
    address: Address = None
    sync: Annotated[float, arg(metavar="MINUTES")] = 3.0
    """ray: time between two copies of a checkpoint, the most work that a lost machine costs."""
    table: bool = False
    """Also compute each run's augmentation table; labels has its own table in any case."""
    table_seeds: Annotated[int | None, placeholder("N", "3; labels: 1"), Between(1, 1_000)] = None
    """Trainings of each row of that table."""
    table_stretch: Annotated[int | None, placeholder("N", "3; labels: 2"), Between(1, 100)] = None
    """Longest training of its rows, in multiples of the common number of steps."""
    confidence: Annotated[float, placeholder("SHARE"), Between(0, 1)] = FewLabelsSettings.confidence
    """labels: confidence above which conformal prediction chooses a clip of S3."""
    per_face: Count = FewLabelsSettings.per_face
    """labels: generated voices for each face of S3."""
    own_share: Annotated[float, placeholder("SHARE"), Between(0, 0.95)] = (
        FewLabelsSettings.own_share
    )
    """labels: share of S1's few voices in the batches of a row that has more; 0: as many as there
    are."""
    device: Device = "auto"


@dataclass(frozen=True)
class ReportOptions(grids.GridOptions):
    """Report on the finished runs of a grid, beside the paper's figures.

    It writes Tables 1 and 2, Figs 6 to 11 and the augmentation tables with their tests into
    report.md, and each figure as png and pdf. The grid labels has a report of its own, which
    Evaluate's view Labels shows too. Examples:
      python -m core report --grid paper --preset demo --out report
      python -m core report --grid labels --preset demo
      python -m core report --grid paper --preset paper ravdess --folds 5
    """

    out: Folder = Path("checkpoints/report")
    """Folder for the files."""
    against: Annotated[Method | None, placeholder("{paper,strict,studio}", "none")] = None
    """studio, with --method: a method to compare with on the same folds, paired by subject."""


@dataclass(frozen=True)
class VocoderOptions:
    """Train the vocoder, or measure it beside plain Griffin-Lim.

    Ctrl-C stops a training; the same command continues it. Examples:
      python -m core vocoder train --preset fer2013-ravdess
      python -m core vocoder measure fer2013-ravdess --condition cp
    """

    action: Annotated[Literal["train", "measure"], Positional]
    """What to do."""
    run: Annotated[str | None, Positional, placeholder("[RUN]", "fer2013-ravdess")] = None
    """measure: the run that gives the spectrograms and the scorer."""
    condition: Sibling = None
    preset: Literal["fer2013-ravdess", "paper"] = "fer2013-ravdess"
    """train: the voices of S1 and S3 of its first fold are used."""
    bands: Count = 28
    """train: mel bands of the spectrograms; the same recordings serve any."""
    steps: Count = 5_000
    """train: training steps, some 0.25 s each on one core."""
    seed: Seed = 0
    """train: random seed of the first weights and of the crops."""
    ears: bool = False
    """measure: also judge the sounds by DNSMOS and voice activity (test tools)."""


def train_or_measure_vocoder(o: VocoderOptions) -> int:
    from core import files
    from core.experiments import vocoder_training
    from core.media import vocoder
    from core.runs import store

    if o.action == "measure":
        measured = store.resolve(o.run or "fer2013-ravdess", o.condition)
        _print_inversion_qualities(vocoder_training.measure_inversion(measured))
        if o.ears:
            from core.evaluation.hearing import comparison

            print(f"\n{comparison.scores_table(comparison.listen(measured))}")
        return 0
    config, stop = PRESETS[o.preset], stop_on_signals()
    s = dataclasses.replace(config.logmel, bands=o.bands)
    try:
        path, before = vocoder_training.train_vocoder(
            config, s, o.steps, o.seed, files.checkpoints_folder(), Progress(), stop.is_set
        )
    except files.StopRequested as e:
        print(f"\n{e}", file=sys.stderr)
        return 130
    print(f"\nwrote {path}, {sum(p.numel() for p in vocoder.load(path)[0].parameters()):,} weights")
    if before:
        print(f"the weights that were there are now {before}; rename them to have them back")
    return 0


def _print_inversion_qualities(qualities: dict) -> None:
    """Print a Markdown table, a row for each kind of spectrogram and way of inversion."""
    print(
        "| spectrograms, way | N | log-spectral distance, dB | spectral convergence | "
        "analysed again, dB | scorer before | after | speed |"
    )
    print("|---" * 8 + "|")
    for name, q in qualities.items():
        print(
            f"| {name} | {q.n} | {q.distance:.2f} | {q.convergence:.3f} | {q.error:.3f} | "
            f"{q.before:.1%} | {q.accuracy:.1%} | {q.speed:.0f} × |"
        )


@report_end
def table(o: TableOptions) -> tuple[int, str]:
    from core.evaluation import augmentation
    from core.evaluation.reporting import tables
    from core.experiments import pipeline
    from core.runs import store

    stop = stop_on_signals()
    run, device = store.resolve(o.run, o.condition), str(pipeline.choose_device(o.device))
    if note := store.choice_note(o.run, o.condition):
        print(note, file=sys.stderr)
    settings = augmentation.TableSettings(o.seeds, o.stretch)
    found = augmentation.compute_table(run, settings, device, Progress(), stop.is_set)
    rows, gains = tables.augmentation_text([found]), tables.gains_text(tables.gains_of([run]))
    print(f"\n{run.id}, condition {run.config.gan.condition}\n\n{rows}\n\n{gains}")
    return 0, f"{run.id} has its augmentation table."


def sweep(o: SweepOptions) -> int:
    from core import files
    from core.data import preparation, prepared_corpora
    from core.data.sources import surrogate_pairs
    from core.experiments import pipeline
    from core.experiments.ray_cluster import driver
    from core.experiments.sweeping import planning
    from core.experiments.sweeping import sweep as sweeping

    if o.address and o.engine != "ray":
        raise UserError("--address belongs to --engine ray")
    serve = functools.partial(
        driver.train_on_cluster, workers=o.workers, address=o.address, every=60 * o.sync
    )
    cells, stop, start = grids.grid_cells(o), stop_on_signals(), time.monotonic()
    settings = [c.config.data for c in cells]
    if any(surrogate_pairs.is_surrogate(d.voices) for d in settings):
        surrogate_pairs.prepare()
    try:
        for name, takes in sorted(
            {(name, d.demo_takes) for d in settings for name in prepared_corpora.demo_corpora(d)}
        ):
            preparation.prepare_corpus(
                name, None, preparation.PreparationSettings(takes=takes), should_stop=stop.is_set
            )
    except files.StopRequested:
        print("stopped; the same command resumes it", file=sys.stderr)
        return 130
    plan = _table_plan(o)
    if (missing := sweeping.missing_runs(cells, plan)) and o.engine != "ray":
        unfinished, device = sweeping.missing_runs(cells), pipeline.choose_device(o.device)
        trained = [c for c in missing if c not in unfinished]
        seconds = planning.training_seconds(missing, device, plan, trained=trained)
        words = format_duration(seconds / max(1, o.workers or 1))
        tables = f", {len(trained)} lack their table" if trained else ""
        what = f"{len(unfinished)} runs to train{tables}"
        print(f"{what}; their steps take at most {words} here", flush=True)
    outcomes = sweeping.train_cells(
        cells,
        None,
        o.workers or 1,
        o.device,
        plan,
        lambda outcome, done, total: print(outcome.line(done, total), flush=True),
        stop,
        serve if o.engine == "ray" else None,
    )
    count = Counter(x.state for x in outcomes)
    states = ", ".join(f"{n} {state}" for state, n in count.items())
    print(f"\n{states}, {time.monotonic() - start:.0f} s; next: {grids.command_line(o, 'report')}")
    if stop.is_set():
        print("stopped; the same command resumes it", file=sys.stderr)
        return 130
    return int("failed" in count)


def _table_plan(o: SweepOptions) -> TablePlan | None:
    """The settings of each run's table; None if it gets none."""
    from core.evaluation.augmentation import TableSettings

    given = {"seeds": o.table_seeds, "stretch": o.table_stretch}
    sizes = {k: v for k, v in given.items() if v is not None}
    if o.grid == "labels":
        return FewLabelsSettings(
            **sizes, per_face=o.per_face, confidence=o.confidence, own_share=o.own_share
        )
    return TableSettings(**sizes) if o.table else None


def report(o: ReportOptions) -> int:
    from core.evaluation.few_labels import report as few_labels
    from core.evaluation.reporting import report as reporting

    if o.against and (o.grid != "studio" or o.method in (None, o.against)):
        raise UserError("--against belongs to --grid studio with another --method")
    others = grids.grid_cells(grids.of_method(o, o.against)) if o.against else ()
    against = f" --against {o.against}" if o.against else ""
    here = f"{grids.command_line(o, 'report')}{against} --out {o.out}"
    cells, made_by = grids.grid_cells(o), grids.command_line(o, "sweep")
    if o.grid == "labels":
        paths = [
            few_labels.write(of, o.out / name, made_by, here)
            for name, of in few_labels.by_preset(cells).items()
        ]
        print("\n".join(f"wrote {path}" for path in paths))
        return 0
    path = reporting.write(cells, o.out, made_by, here, against=others)
    print(f"wrote {path}")
    return 0
