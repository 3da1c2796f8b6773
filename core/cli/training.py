"""Commands that train one configuration or print its figures: `train`, `baseline`, `evaluate`."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from core.cli.options import Between, Device, MethodOption, RunArgument, Sibling, placeholder
from core.cli.progress import Progress
from core.config.presets import Method, PresetName, preset_config, with_method
from core.config.serialisation import from_dict
from core.config.settings import Config
from core.files import UserError


@dataclass(frozen=True)
class StartOptions:
    """The options that decide the defaults of all others."""

    preset: PresetName = "demo"
    method: Method | None = None
    config_file: Path | None = None


@dataclass(frozen=True)
class TrainOptions:
    """Run the whole paper on one configuration, from sets to metrics.

    It splits the corpora, trains f_S, computes p-values, trains the GAN and scores it. Ctrl-C
    stops; the same command resumes. Examples:
      python -m core train --preset stage
      python -m core train --preset demo --gan.condition label
    """

    preset: PresetName = "demo"
    """Where the settings below start from; stage (a minute) and demo need no download."""
    method: MethodOption = None
    config_file: Annotated[Path | None, placeholder("FILE", "the preset")] = None
    """A run's config.json to start from instead of a preset."""
    device: Device = "auto"
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


@dataclass(frozen=True)
class BaselineOptions:
    """Measure the voice or face classifier alone, over folds of subjects (§4.3).

    Each fold trains on its own S1 and scores on its own S4. Example:
      python -m core baseline --preset demo
    """

    modality: Literal["voice", "face"] = "voice"
    """Which classifier."""
    folds: Annotated[int, placeholder("N"), Between(1, 20)] = 5
    """Number of folds; each tests another fifth of the subjects."""
    preset: PresetName = "demo"
    """Where the settings below start from."""
    method: MethodOption = None
    device: Device = "auto"
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


@dataclass(frozen=True)
class EvaluateOptions:
    """Print the figures of a finished run.

    They are the baselines, the augmentation table, FID and IS, with reference lines. Example:
      python -m core evaluate demo --condition cp
    """

    run: RunArgument
    condition: Sibling = None
    json: bool = False
    """Print all results as JSON."""
    again: bool = False
    """First measure IS, FID and their floors anew from the saved networks; nothing is trained."""
    ears: bool = False
    """Also judge how its voices sound, beside real ones: DNSMOS, voice activity, acoustics."""


def starting_config(args: Sequence[str], prog: str) -> tuple[PresetName, Config]:
    """Preset and settings that the StartOptions in `args` name; the defaults of all others.

    Raises UserError for a file that holds no configuration.
    """
    start, _ = tyro.cli(
        StartOptions, args=args, prog=prog, return_unknown_args=True, add_help=False
    )
    if start.config_file is None:
        return start.preset, preset_config(start.preset, start.method)
    try:
        config = from_dict(Config, json.loads(start.config_file.read_text()))
        return start.preset, with_method(start.method, config) if start.method else config
    except (ValueError, TypeError) as e:
        raise UserError(f"{start.config_file} is not a run's config.json: {e}") from e


def stop_on_signals() -> threading.Event:
    """Event that Ctrl-C and SIGTERM set from now on, instead of ending the process."""
    stop = threading.Event()
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, lambda *_: stop.set())
    return stop


def train(options: TrainOptions) -> int:
    from core import files
    from core.data import preparation, prepared_corpora
    from core.experiments import pipeline

    stop, progress, config = stop_on_signals(), Progress(), options.config
    start = time.monotonic()
    try:
        for name in prepared_corpora.demo_corpora(config.data):
            preparation.prepare_corpus(
                name,
                None,
                preparation.PreparationSettings(takes=config.data.demo_takes),
                tick=lambda done, total: progress("draw the demo corpus", done, total),
                should_stop=stop.is_set,
            )
        run = pipeline.run(config, device=options.device, report=progress, should_stop=stop.is_set)
    except files.StopRequested:
        print("\nstopped; the same command resumes it", file=sys.stderr)
        return 130
    print(f"\n{run.directory} is done, {time.monotonic() - start:.0f} s in this process\n")
    print(results_markdown(run.json("results"), run.json("table")))
    return 0


def results_markdown(found: dict, table: dict) -> str:
    """A run's results (and table, {} without one) as a short table in Markdown."""
    from core.evaluation import results

    made = results.target_of(found)
    given = "voice" if made == "face" else "face"
    lines = [
        f"labels: {found['labels']} · {len(found['classes'])} classes · "
        f"chance {100 * found['chance']:.1f} % · {results.s4_text(found, table)} of S4, "
        f"{found[f'N test {given}s']} {given}s",
        "",
        f"| trained on | N | accuracy on real S4 {made}s |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row} | {results.row_size(found, table, row)} | "
        f"{results.row_accuracy(found, table, row).text} |"
        for row in results.row_names(found, table)
    ]
    digits = {"FID": 2, "KID": 3, "IS": 2, "coverage": 2}
    figures = [
        f"{name} {results.quality_text(found, name, n)} "
        f"(real {results.quality_text(found, f'{name} real', n)})"
        for name, n in digits.items()
    ]
    recognised = (
        f"recognised {results.quality_text(found, 'recognised', 1, 100)} % "
        f"(real {results.quality_text(found, 'recognised real', 1, 100)} %)"
    )
    q = found["quality"]
    scorer = f"N = {q['N']}, {q['features']} features, scorer {q['scorer']}"
    face = f"{given}s (f_S) {100 * found[given]['accuracy']:.1f} %"
    lines += ["", " · ".join([face, *figures, recognised, scorer])]
    notes = [*found["notes"], results.withdrawal_note(found)]
    return "\n".join([*lines, *filter(None, notes)])


def evaluate(options: EvaluateOptions) -> int:
    from core import files
    from core.runs import store

    run = store.resolve(options.run, options.condition)
    if note := store.choice_note(options.run, options.condition):
        print(note, file=sys.stderr)
    if not run.json("results"):
        command = f"python -m core train --config-file {run.directory}/config.json"
        raise UserError(f"{run.id} has no results yet; let its training finish: {command}")
    if options.again:
        from core.experiments import pipeline

        pipeline.evaluate_again(run, pipeline.choose_device("cpu"), Progress(), anew=True)
    results, table = run.json("results"), run.json("table")
    text = f"{run.id}\n\n{results_markdown(results, table)}"
    if options.ears:
        from core.evaluation.hearing import comparison

        classes = run.config.data.classes
        lines = comparison.listen(run, Progress())
        text += f"\n\n{comparison.tables(lines, classes)}"
        ears = comparison.as_json(lines, classes)
        files.write_json(run.directory / "ears.json", ears)  # for the run's card
        results |= {"ears": ears}
    print(json.dumps(results, indent=1) if options.json else text)
    return 0


def baseline(options: BaselineOptions) -> int:
    import numpy as np

    from core.experiments import pipeline

    folds = pipeline.baselines(
        options.config, options.folds, options.modality, options.device, Progress()
    )
    data, accuracy = options.config.data, np.array([100 * f["accuracy"] for f in folds])
    corpus = data.voices if options.modality == "voice" else data.faces
    own = options.config.f_s if options.modality == "face" else options.config.f_t
    print(f"\n{options.modality}s of {corpus}, trained on {own.learns_from}, scored on S4")
    for f in folds:
        print(
            f"  fold {f['fold']}: {100 * f['accuracy']:.2f} %, N = {f['N']}, "
            f"calibration error (ECE) {f['ECE']:.3f}"
        )
    n, k = sum(f["N"] for f in folds), len(data.classes)
    mean = f"mean {accuracy.mean():.2f} % of one fold, which has no spread"
    if len(folds) > 1:
        spread = accuracy.std(ddof=1)
        mean = f"mean {accuracy.mean():.2f} ± {spread:.2f} % over {len(folds)} folds"
    print(f"  {mean}; {k} classes, chance {100 / k:.1f} %, N = {n}, seed {options.config.seed}")
    return 0
