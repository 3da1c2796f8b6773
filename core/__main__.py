"""The command line: `python -m core data … | train | baseline | evaluate | table | sweep | report | generate | conformal |
vocoder | examples | runs`.

Each command has `--help`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from core.cli import data, experiments
from core.cli.data import Progress
from core.config import PRESETS, Config, from_dict

DEFAULT_RUN = "fer2013-ravdess"


@dataclass(frozen=True)
class Train:
    """Run the whole paper on one configuration: sets, face classifier, conformal prediction, GAN, metrics. Ctrl-C stops; the same
    command resumes. Examples: python -m core train --preset smoke · python -m core train --preset demo --gan.condition label"""

    preset: Literal["smoke", "demo", "fer2013-ravdess", "fine", "paper", "studio"] = "demo"
    """Where the settings below start from: smoke takes under a minute, demo some minutes, both need no download."""
    config_file: Path | None = None
    """A run's config.json to start from instead of a preset."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes an NVIDIA card where there is one."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


@dataclass(frozen=True)
class Baseline:
    """Accuracy of the voice or face classifier alone, over folds of subjects (§4.3). Example: python -m core baseline --preset demo"""

    modality: Literal["voice", "face"] = "voice"
    folds: int = 5
    """Each fold tests another fifth of the subjects."""
    preset: Literal["smoke", "demo", "fer2013-ravdess", "fine", "paper", "studio"] = "demo"
    """Where the settings below start from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


@dataclass(frozen=True)
class Evaluate:
    """Print the figures of a finished run: baselines, augmentation table, FID and IS with their reference lines."""

    run: Annotated[str, tyro.conf.Positional]
    """A run id, the beginning of one, or a name such as demo."""
    condition: Literal["label", "classifier", "cp", "none"] | None = None
    """Which sibling, when a name has several."""
    json: bool = False
    """Everything, for machines."""


@dataclass(frozen=True)
class Generate:
    """Make a voice spectrogram, and its sound, from a face clip or picture. Writes wav, png and json."""

    clip: Annotated[Path, tyro.conf.Positional]
    """A video or picture that shows a face."""
    run: str = DEFAULT_RUN
    """A run id, the beginning of one, or a name such as demo."""
    condition: Literal["label", "classifier", "cp"] = "cp"
    """What the generator is told besides the face."""
    emotion: str | None = None
    """For the label condition; without it the face classifier's first choice is taken."""
    seed: int = 0
    """Of the noise z and of the phase of the sound."""
    person: int = 0
    """Which face when there are several, 0 being the largest."""
    frame: int | None = None
    """Which kept frame; by default the one nearest the middle that shows the face."""
    whole: bool = False
    """A voice as long as the film, up to 20 s, that follows its face; otherwise one second."""
    out: Path = Path("generated")
    """Folder for the files."""


@dataclass(frozen=True)
class Conformal:
    """How well a run's conformal predictor keeps its promise on people it has not met, and what the promise is worth.
    Example: python -m core conformal demo --eps 0.1"""

    run: Annotated[str, tyro.conf.Positional]
    """A run id, the beginning of one, or a name such as demo."""
    condition: Literal["label", "classifier", "cp", "none"] | None = None
    """Which sibling, when a name has several; they share one face classifier."""
    modality: Literal["face", "voice"] = "face"
    """f_S on faces, or f_T on voices."""
    measure: Literal["margin", "hinge"] | None = None
    """Nonconformity, Eq. (8); without it the run's own."""
    groups: Literal["pooled", "class"] | None = None
    """All calibration scores together, or each class by itself (Mondrian); without it the run's own."""
    r: float = 1.0
    """Share of the calibration set that is used."""
    eps: float = 0.1
    """Significance: the share of errors that is promised at most."""
    smoothed: bool = False
    """Ties are broken at random, from the seed."""
    seed: int = 0
    """Of the share r and of smoothing."""
    json: bool = False
    """Everything, for machines."""


@dataclass(frozen=True)
class Runs:
    """List the runs, rebuild their index, make a small copy of a finished one that can be shipped, or export its curves as CSV.
    Example: python -m core runs export demo --out curves.csv"""

    action: Annotated[Literal["list", "reindex", "ship", "export"], tyro.conf.Positional] = "list"
    run: Annotated[str | None, tyro.conf.Positional] = None
    """ship, export: the run's id."""
    out: Path | None = None
    """ship: the folder in which the copy is put, checkpoints if none is given; export: the file, or TensorBoard's folder."""
    format: Literal["csv", "tensorboard"] = "csv"
    """export: a table of the curves, or event files where TensorBoard is installed."""


def main(argv: list[str] | None = None) -> int:
    """Parse, run, and turn expected failures into one line on stderr; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["data"]:
        commands: dict[str, Any] = {"prepare": data.Prepare, "fetch": data.Fetch, "doctor": data.Doctor, "draw": data.Draw}
        prog, argv = "python -m core data", argv[1:]
    else:
        commands = {"data": None, "train": Train, "baseline": Baseline, "evaluate": Evaluate, "generate": Generate}
        commands |= {"table": experiments.Table, "sweep": experiments.Sweep, "report": experiments.Report}
        commands |= {"conformal": Conformal, "vocoder": experiments.Vocoder, "examples": experiments.Examples, "runs": Runs}
        prog = "python -m core"
    if not argv or argv[0] not in commands:
        print(f"usage: {prog} {{{','.join(commands)}}} …    (each with --help)", file=sys.stderr)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    name, rest = argv[0], argv[1:]
    kind = commands[name]
    preset = _preset(rest)
    default = kind(preset=preset, config=_base(rest, preset)) if kind in (Train, Baseline) else None
    options = tyro.cli(kind, args=rest, default=default, prog=f"{prog} {name}")
    from core.data.corpora import CorpusError
    from core.media.clips import MediaError
    from core.media.faces import ModelMissing, NoFaceError

    actions: dict[Any, Any] = {Train: train, Baseline: baseline, Evaluate: evaluate, Generate: generate}
    actions |= {Conformal: conformal, Runs: manage} | experiments.ACTIONS
    try:
        return actions.get(kind, data.run)(options)
    except (CorpusError, MediaError, NoFaceError, ModelMissing, KeyError, ValueError, RuntimeError) as e:
        print(f"{prog} {name}: {e.args[0] if isinstance(e, KeyError) else e}", file=sys.stderr)
        return 1


def _preset(args: list[str]) -> str:
    for i, a in enumerate(args):
        if a == "--preset" and i + 1 < len(args) and args[i + 1] in PRESETS:
            return args[i + 1]
        if a.startswith("--preset=") and a.split("=", 1)[1] in PRESETS:
            return a.split("=", 1)[1]
    return "demo"


def _base(args: list[str], preset: str) -> Config:
    for i, a in enumerate(args):
        if a == "--config-file" and i + 1 < len(args):
            return from_dict(Config, json.loads(Path(args[i + 1]).read_text()))
    return PRESETS[preset]


def train(options: Train) -> int:
    from core import files
    from core.data import preparation as preparing
    from core.data import splits
    from core.experiments import pipeline

    asked = []
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *a: asked.append(1))
    progress, config = Progress(), options.config
    begun = time.monotonic()
    try:
        for name in splits.drawn(config.data):
            preparing.prepare(
                name,
                None,
                tick=lambda d, t: progress("draw the demo corpus", d, t),
                takes=config.data.demo_takes,
                should_stop=lambda: bool(asked),
            )
        run = pipeline.run(config, device=options.device, report=progress, should_stop=lambda: bool(asked))
    except (pipeline.Stopped, files.Stopped):
        print("\nstopped; the same command resumes it", file=sys.stderr)
        return 130
    print(f"\n{run.directory} is done, {time.monotonic() - begun:.0f} s in this process\n")
    print(figures(run.json("results")))
    return 0


def figures(results: dict) -> str:
    """A run's results as a short table in Markdown."""
    q = results["quality"]
    chance, k = 100 * results["chance"], len(results["classes"])
    given, made = ("voice", "face") if results.get("direction") == "voice-face" else ("face", "voice")
    lines = [
        f"labels: {results['labels']} · {k} classes · chance {chance:.1f} % · "
        f"N = {results['N test voices']} voices, {results['N test faces']} faces of S4",
        "",
        f"| trained on | N | accuracy on real S4 {made}s |",
        "|---|---|---|",
    ]
    lines += [f"| {row} | {t['N train']} | {100 * t['accuracy']:.2f} % |" for row, t in results["augmentation"].items()]
    lines += [
        "",
        f"{given}s (f_S) {100 * results[given]['accuracy']:.2f} % · FID {q['FID']:.2f} (real {q['FID real']:.2f}) · "
        f"KID {q['KID']:.3f} ± {q['KID sd']:.3f} (real {q['KID real']:.3f}) · IS {q['IS']:.2f} (real {q['IS real']:.2f}) · "
        f"recognised {100 * q['recognised']:.1f} % (real {100 * q['recognised real']:.1f} %) · N = {q['N']}, {q['features']} features, "
        f"scorer {q['scorer']}",
    ]
    return "\n".join(lines + results["notes"])


def baseline(options: Baseline) -> int:
    import numpy as np

    from core.experiments import pipeline

    folds = pipeline.baselines(options.config, options.folds, options.modality, options.device, Progress())
    data, accuracy = options.config.data, np.array([100 * f["accuracy"] for f in folds])
    print(f"\n{options.modality}s of {data.voices if options.modality == 'voice' else data.faces}, trained on S1, scored on S4")
    for f in folds:
        print(f"  fold {f['fold']}: {100 * f['accuracy']:.2f} %, N = {f['N']}")
    spread = accuracy.std(ddof=1) if len(folds) > 1 else float("nan")
    n, k = sum(f["N"] for f in folds), len(data.classes)
    of = f"{k} classes, chance {100 / k:.1f} %, N = {n}, seed {options.config.seed}"
    print(f"  mean {accuracy.mean():.2f} ± {spread:.2f} % over {len(folds)} folds; {of}")
    return 0


def evaluate(options: Evaluate) -> int:
    from core import runs

    run = runs.find(options.run, options.condition)
    results = run.json("results")
    if not results:
        command = f"python -m core train --config-file {run.directory}/config.json"
        raise ValueError(f"{run.id} has no results yet; let its training finish: {command}")
    print(json.dumps(results, indent=1) if options.json else f"{run.id}\n\n{figures(results)}")
    return 0


def generate(options: Generate) -> int:
    import numpy as np

    from core import runs
    from core.inference import generation

    if not options.clip.exists():
        raise ValueError(f"{options.clip} does not exist")
    opened = generation.open_run(runs.find(options.run, options.condition))
    seen = generation.look_at(options.clip, options.person)
    if options.whole:
        return _whole(options, opened, seen)
    frame = seen.middle if options.frame is None else options.frame
    if not (0 <= frame < len(seen.frames) and seen.found[frame]):
        raise ValueError(f"{options.clip.name}: frame {frame} shows no face; choose one of {np.nonzero(seen.found)[0].tolist()[:30]}")
    x = seen.aligned[frame]
    explanation = generation.explain(opened, x)
    c, told = generation.condition_of(opened, explanation, options.emotion)
    y = generation.generate(opened, x, c, options.seed)
    sound = generation.sound(opened, y[0], options.seed)
    verdicts = generation.judge(opened, y)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"{options.clip.stem}-{opened.config.name}-{options.condition}-{options.seed}"

    def named(v):
        return {k: round(float(a), 6) for k, a in zip(opened.classes, v, strict=True)}

    facts = {
        "clip": options.clip.name,
        "run": opened.run.id,
        "condition": options.condition,
        "told": told,
        "c": named(c) if len(c) else {},
        "seed": options.seed,
        "frame": int(frame),
        "time": round(float(seen.times[frame]), 3),
        "softmax": named(explanation.softmax),
        "p-values": named(explanation.p),
        "prediction": opened.classes[explanation.prediction],
        "credibility": explanation.credibility,
        "confidence": explanation.confidence,
        "heard by Q": named(verdicts["Q"][0]),
        "heard by the scorer": named(verdicts["scorer"][0]),
        "sound": {"gain_db": sound.gain_db, "correlation": sound.correlation, "error_db": sound.error_db},
        "logmel": vars(opened.config.logmel) | {"ref_db": opened.ref_db},
        "notes": list(seen.notes),
    }
    stem.with_suffix(".wav").write_bytes(sound.wav)
    stem.with_suffix(".json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    np.save(stem.with_suffix(".npy"), y[0])
    _picture(stem.with_suffix(".png"), x, y[0], opened, explanation, told)
    for note in seen.notes:
        print(f"note: {note}")
    sure = f"credibility {explanation.credibility:.2f}, confidence {explanation.confidence:.2f}"
    print(f"the face looks {facts['prediction']} ({sure}); {told}")
    print("wrote " + ", ".join(str(stem.with_suffix(s)) for s in (".wav", ".png", ".json", ".npy")))
    return 0


def _whole(options: Generate, opened, seen) -> int:
    """`generate --whole`: one voice for all of a film, and what it was told when."""
    import numpy as np

    from core.inference import generation, long_form

    if options.frame is not None:
        raise ValueError("--frame belongs to a voice of one second; --whole takes the frames that it needs")
    p = long_form.spoken(opened, seen, options.emotion, options.seed)
    sound, windows = generation.sound(opened, p.y, options.seed), long_form.facts(opened, seen, p, long_form.judged(opened, p))
    options.out.mkdir(parents=True, exist_ok=True)
    stem = str(options.out / f"{options.clip.stem}-{opened.config.name}-{options.condition}-{options.seed}-whole")
    notes = [*seen.notes, *([f"the film is longer than {long_form.LONGEST:g} s: its first {long_form.LONGEST:g} s have a voice"] * p.cut)]
    facts = {
        "clip": options.clip.name,
        "run": opened.run.id,
        "condition": options.condition,
        "told": p.told,
        "seed": options.seed,
        "seconds": round(len(sound.wave) / opened.config.logmel.rate, 3),
        "windows": windows,
        "sound": {"gain_db": sound.gain_db, "correlation": sound.correlation, "error_db": sound.error_db},
        "logmel": vars(opened.config.logmel) | {"ref_db": opened.ref_db},
        "notes": notes,
    }
    Path(f"{stem}.wav").write_bytes(sound.wav)
    Path(f"{stem}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    np.save(f"{stem}.npy", p.y)
    _strip(Path(f"{stem}.png"), p, windows, opened)
    for note in notes:
        print(f"note: {note}")
    if p.c.shape[1]:
        said = ", ".join(f"{w['from']:.1f} s {max(w['c'], key=w['c'].get)}" for w in windows)
        print(f"{facts['seconds']:.1f} s in {len(windows)} window{'s' * (len(windows) > 1)}, told most of all: {said}")
    print("wrote " + ", ".join(stem + end for end in (".wav", ".png", ".json", ".npy")))
    return 0


def _strip(path: Path, p, windows: list[dict], opened) -> None:
    """A film's spectrogram, and below it what the generator was told when."""
    from matplotlib.figure import Figure

    s = opened.config.logmel
    figure = Figure((12, 4), layout="constrained")
    a, b = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    seconds = len(p.y) * s.hop / s.rate
    image = a.imshow(p.y.T, origin="lower", aspect="auto", vmin=-1, vmax=1, cmap="magma", extent=(0, seconds, 0, s.bands))
    a.set(ylabel="mel band", title=f"generated voice · {p.told}")
    figure.colorbar(image, ax=a, label="level, -1 is the floor")
    if p.c.shape[1]:
        edges = [w["from"] for w in windows] + [windows[-1]["to"]]
        for k, emotion in enumerate(opened.classes):
            b.stairs(p.c[:, k], edges, label=emotion)
        b.legend(fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    b.set(xlabel="time (s)", ylabel="c, as told", ylim=(0, 1.02))
    figure.savefig(path, dpi=110)


def _picture(path: Path, x, y, opened, explanation, told: str) -> None:
    """The face, what was said of it, and the spectrogram, as a picture."""
    from matplotlib.figure import Figure

    s = opened.config.logmel
    figure = Figure((10, 3), layout="constrained")
    a, b, c = figure.subplots(1, 3, width_ratios=(1, 1.6, 2.4))
    a.imshow(x, cmap="gray", vmin=0, vmax=255)
    a.set_title("aligned face")
    a.axis("off")
    k = range(len(opened.classes))
    b.barh([i - 0.2 for i in k], explanation.softmax, 0.4, label="softmax")
    b.barh([i + 0.2 for i in k], explanation.p, 0.4, label="p-value")
    b.set_yticks(list(k), opened.classes)
    b.set_xlim(0, 1)
    b.legend(fontsize=7)
    b.set_title("face classifier")
    seconds = len(y) * s.hop / s.rate
    image = c.imshow(y.T, origin="lower", aspect="auto", vmin=-1, vmax=1, cmap="magma", extent=(0, seconds, 0, s.bands))
    c.set(xlabel="time (s)", ylabel="mel band", title=f"generated voice · {told}")
    figure.colorbar(image, ax=c, label="level, -1 is the floor")
    figure.savefig(path, dpi=110)


def conformal(options: Conformal) -> int:
    from core.conformal import analysis

    o = options
    settings = {"r": o.r, "eps": o.eps, "smoothed": o.smoothed, "seed": o.seed}
    print(analysis.report(o.run, o.condition, o.modality, o.measure, o.groups, o.json, **settings))
    return 0


def manage(options: Runs) -> int:
    from core import files, runs
    from core.experiments import jobs

    if options.action == "reindex":
        print(f"{runs.reindex()} runs in {files.checkpoints()}")
    elif options.action == "ship":
        from core.inference import export

        print(export.ship(runs.find(options.run or ""), options.out or Path("checkpoints")))
    elif options.action == "export":
        return experiments.export(options.run or "", options.out, options.format)
    else:
        jobs.reconcile()
        for r in runs.listing():
            print(f"{r['run']:<40} {r['state']:<8} {r['step'] or 0}/{r['steps']}  {r['error'] or ''}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
