"""The command line's experiments: table · sweep · report · vocoder · examples, and the export of a run's curves."""

from __future__ import annotations

import dataclasses
import functools
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from core.cli.progress import Progress
from core.config import PRESETS, Config, Method, replace, with_method


@dataclass(frozen=True)
class TableOptions:
    """The whole augmentation table of a finished run, under both step rules, with tests over subjects; from its saved networks.
    Writes table.json and table.npz into the run. Example: python -m core table demo --condition cp"""

    run: Annotated[str, tyro.conf.Positional]
    """A run id, the beginning of one, or a name such as demo."""
    condition: Literal["label", "classifier", "cp", "none"] | None = None
    """Which sibling, when a name has several."""
    seeds: int = 3
    """Trainings of each row."""
    stretch: int = 3
    """The longest training of a row, in multiples of the common number of steps."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes an NVIDIA card where there is one."""


@dataclass(frozen=True)
class GridOptions:
    """Which runs a sweep trains and a report is about."""

    grid: Literal["quick", "paper", "studio"] = "quick"
    """quick: a few tiny runs, to see that all works. paper: every case of the paper. studio: one preset over folds and seeds."""
    preset: Literal["smoke", "demo", "fer2013-ravdess", "fine", "paper", "studio"] = "demo"
    """Whose settings the cases start from."""
    method: Method | None = None
    """Whose generator and game: the paper's, or ours; if none is given, as the preset says."""
    condition: Literal["label", "classifier", "cp", "none"] | None = None
    """studio: what the generator is told, if not what the preset says."""
    folds: int | None = None
    """Each fold tests other subjects; paper and studio have 5 if none is given, quick 1."""
    seeds: int | None = None
    """Trainings of each fold; studio has 3 if none is given, the others 1."""
    f_s_corpus: str = ""
    """paper: another prepared corpus whose faces train f_S in one case more (§4.7), such as fer2013."""


@dataclass(frozen=True)
class SweepOptions(GridOptions):
    """Train the runs of a grid. What is done is skipped, what was begun is resumed; Ctrl-C stops, and the same command goes on. Examples:
    python -m core sweep --grid studio --preset demo --folds 5 --seeds 3 --table
    python -m core sweep --grid paper --engine ray --address 10.0.0.1:6379"""

    workers: int | None = None
    """Processes that train at the same time, one thread each. If none is given, 1; with ray one for each processor, or card, there is."""
    engine: Literal["local", "ray"] = "local"
    """ray trains on the machines of a Ray cluster (pip install -r requirements-cluster.txt). They need no disk in common, but this project
    and its packages at the same path; the runs are the same, and this machine alone writes them."""
    address: str | None = None
    """ray: where the cluster is, such as auto or 10.0.0.1:6379; without it one is started on this machine."""
    sync: float = 3.0
    """ray: minutes between two copies of a run's checkpoint to this machine. What a lost machine did since the last one is done again."""
    table: bool = False
    """Compute each run's augmentation table too."""
    table_seeds: int = 3
    """Trainings of each of its rows."""
    table_stretch: int = 3
    """The longest of them, in multiples of the common number of steps."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes an NVIDIA card where there is one."""


@dataclass(frozen=True)
class ReportOptions(GridOptions):
    """Tables 1 and 2, Figs 6 to 11 and the augmentation tables with their tests, of the runs of a grid that are done, beside the paper's
    figures. Writes report.md, and each figure as png and pdf. Example: python -m core report --grid paper --preset demo --out report"""

    out: Path = Path("checkpoints/report")
    """Folder for the files."""
    against: Method | None = None
    """studio, with --method: another method's runs of the same folds, whose rows are held against these, paired by test subject."""


@dataclass(frozen=True)
class VocoderOptions:
    """Train the network that makes spectrograms audible (Ctrl-C stops; the same command continues), or measure it beside plain
    Griffin-Lim. Examples:
    python -m core vocoder train --preset fer2013-ravdess · python -m core vocoder measure fer2013-ravdess --condition cp"""

    action: Annotated[Literal["train", "measure"], tyro.conf.Positional]
    run: Annotated[str | None, tyro.conf.Positional] = None
    """measure: a run whose spectrograms are made audible, and whose scorer listens."""
    condition: Literal["label", "classifier", "cp", "none"] | None = None
    """measure: which sibling, when a name has several."""
    preset: Literal["fer2013-ravdess", "paper"] = "fer2013-ravdess"
    """train: whose voices; those of S1 and S3 of its first fold."""
    bands: int = 28
    """train: mel bands of the spectrograms; the same recordings serve any."""
    steps: int = 5_000
    """train: some 0.25 s each on one core."""
    seed: int = 0
    """train: of the first weights and of the crops."""


@dataclass(frozen=True)
class ExamplesOptions:
    """Wavs to listen to: of each emotion a real voice and one by each condition, by the vocoder and by plain Griffin-Lim, with an index
    that says how well they carry their spectrograms and what the scorer hears. Example: python -m core examples --run demo"""

    run: tuple[str, ...] = ()
    """Names or ids of runs, with their siblings; by default the runs that came with the project."""
    out: Path | None = None
    """Folder for the wavs; by default checkpoints/examples, where the Gallery finds them."""


def grid_cells(g: GridOptions):
    """The cells that a command line names; raises ValueError for a condition outside the grid studio."""
    from core.evaluation import protocol

    base: Config = PRESETS[g.preset]
    base = with_method(g.method, base) if g.method else base
    if g.condition and g.grid != "studio":
        raise ValueError(
            "--condition belongs to --grid studio; the other grids have every condition"
        )
    if g.condition:
        base = replace(base, gan={"condition": g.condition})
    return protocol.cells(g.grid, base, g.folds, g.seeds, g.f_s_corpus)


def command_line(g: GridOptions, name: str) -> str:
    """What to type for a sweep or report of this grid."""
    parts = [f"python -m core {name} --grid {g.grid} --preset {g.preset}"]
    given = {
        "method": g.method,
        "condition": g.condition,
        "folds": g.folds,
        "seeds": g.seeds,
        "f-s-corpus": g.f_s_corpus or None,
    }
    parts += [f"--{k} {v}" for k, v in given.items() if v is not None]
    return " ".join(parts)


def train_or_measure_vocoder(o: VocoderOptions) -> int:
    from core import files, runs
    from core.experiments import vocoder_training
    from core.media import vocoder

    if o.action == "measure":
        ways = vocoder_training.measure_inversion(
            runs.resolve(o.run or "fer2013-ravdess", o.condition)
        )
        heads = (
            "spectrograms, way",
            "N",
            "log-spectral distance, dB",
            "spectral convergence",
            "analysed again, dB",
        )
        print(
            "| "
            + " | ".join([*heads, "scorer before", "after", "speed"])
            + " |\n"
            + "|---" * 8
            + "|"
        )
        for name, w in ways.items():
            figures = f"{w.distance:.2f} | {w.convergence:.3f} | {w.error:.3f} | {w.before:.1%} | {w.accuracy:.1%} | {w.speed:.0f} ×"
            print(f"| {name} | {w.n} | {figures} |")
        return 0
    config, stop = PRESETS[o.preset], _stop_on_signals()
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


def _stop_on_signals() -> threading.Event:
    """Set by Ctrl-C and SIGTERM from now on, which otherwise do nothing."""
    stop = threading.Event()
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, lambda *a: stop.set())
    return stop


def table(o: TableOptions) -> int:
    from core import files, runs
    from core.cli.progress import Progress
    from core.evaluation import augmentation, report
    from core.experiments import pipeline, tasks

    stop = _stop_on_signals()
    try:
        run, where = runs.resolve(o.run, o.condition), str(pipeline.choose_device(o.device))
        made = augmentation.compute_table(
            run, augmentation.TableSettings(o.seeds, o.stretch), where, Progress(), stop.is_set
        )
    except files.StopRequested as e:
        tasks.report_end("stopped")
        print(f"\n{e}", file=sys.stderr)
        return 130
    except BaseException as e:
        tasks.report_end(
            "failed",
            str(e.args[0] if isinstance(e, KeyError) and e.args else e) or type(e).__name__,
        )
        raise
    tasks.report_end("done", f"{run.id} has its augmentation table.")
    print(
        f"\n{run.id}\n\n{report.augmentation_text([made])}\n\n{report.gains_text(report.gains_of([run]))}"
    )
    return 0


def sweep(o: SweepOptions) -> int:
    from core import files
    from core.data import preparation as preparing
    from core.data import splits
    from core.evaluation import augmentation
    from core.experiments import sweep as sweeping
    from core.experiments.ray_cluster import driver

    if o.address and o.engine != "ray":
        raise ValueError("--address belongs to --engine ray")
    serve = (
        functools.partial(
            driver.train_on_cluster, workers=o.workers, address=o.address, every=60 * o.sync
        )
        if o.engine == "ray"
        else None
    )
    cells, stop, begun = grid_cells(o), _stop_on_signals(), time.monotonic()
    try:
        for name, takes in sorted(
            {
                (n, c.config.data.demo_takes)
                for c in cells
                for n in splits.demo_corpora(c.config.data)
            }
        ):
            preparing.prepare_corpus(name, None, takes=takes, should_stop=stop.is_set)
    except files.StopRequested:
        print("stopped; the same command resumes it", file=sys.stderr)
        return 130
    plan = augmentation.TableSettings(o.table_seeds, o.table_stretch) if o.table else None
    tell = lambda outcome, done, total: print(outcome.line(done, total), flush=True)  # noqa: E731
    outcomes = sweeping.train_cells(cells, None, o.workers or 1, o.device, plan, tell, stop, serve)
    count = {
        s: sum(x.state == s for x in outcomes) for s in dict.fromkeys(x.state for x in outcomes)
    }
    print(
        f"\n{', '.join(f'{n} {s}' for s, n in count.items())}, {time.monotonic() - begun:.0f} s; next: {command_line(o, 'report')}"
    )
    if stop.is_set():
        print("stopped; the same command resumes it", file=sys.stderr)
        return 130
    return int("failed" in count)


def report(o: ReportOptions) -> int:
    from core.evaluation import report as reporting

    if o.against and (o.grid != "studio" or o.method in (None, o.against)):
        raise ValueError("--against belongs to --grid studio with another --method")
    others = grid_cells(dataclasses.replace(o, method=o.against)) if o.against else ()
    here = (
        f"{command_line(o, 'report')}{f' --against {o.against}' if o.against else ''} --out {o.out}"
    )
    path = reporting.write(grid_cells(o), o.out, command_line(o, "sweep"), here, against=others)
    print(f"wrote {path}")
    return 0


def export_curves(name: str, out: Path | None, form: Literal["csv", "tensorboard"] = "csv") -> int:
    """`runs export`: the curves of a run as CSV, or as event files of TensorBoard."""
    from core import runs
    from core.inference import export

    run = runs.resolve(name)
    if form == "csv":
        print(f"wrote {export.export_csv(run, out or Path(f'{run.id}.csv'))}")
    else:
        folder = export.export_events(run, out or Path("tensorboard") / run.id)
        print(f"wrote {folder}; look at it with: tensorboard --logdir {folder}")
    return 0


def write_examples(o: ExamplesOptions) -> int:
    from core.inference import audio_samples

    progress = Progress()
    pieces = audio_samples.write_samples(
        audio_samples.resolve_runs(o.run), o.out, lambda done, of: progress("examples", done, of)
    )
    print(
        f"\n{audio_samples.table(pieces)}\n\nwrote {len(pieces)} wavs and {(o.out or audio_samples.folder()) / audio_samples.INDEX}"
    )
    return 0


ACTIONS = {
    TableOptions: table,
    SweepOptions: sweep,
    ReportOptions: report,
    VocoderOptions: train_or_measure_vocoder,
    ExamplesOptions: write_examples,
}
