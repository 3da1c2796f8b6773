"""Commands that ask a trained run: generate, conformal, evaluate, runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from core.cli import experiments, training

DEFAULT_RUN = "fer2013-ravdess"


@dataclass(frozen=True)
class EvaluateOptions:
    """Print the figures of a finished run: baselines, augmentation table, FID and IS with their reference lines."""

    run: Annotated[str, tyro.conf.Positional]
    """A run id, the beginning of one, or a name such as demo."""
    condition: Literal["label", "classifier", "cp", "none"] | None = None
    """Which sibling, when a name has several."""
    json: bool = False
    """Everything, for machines."""


@dataclass(frozen=True)
class GenerateOptions:
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
class ConformalOptions:
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
class RunsOptions:
    """List the runs, rebuild their index, make a small copy of a finished one that can be shipped, or export its curves as CSV.
    Example: python -m core runs export demo --out curves.csv"""

    action: Annotated[Literal["list", "reindex", "ship", "export"], tyro.conf.Positional] = "list"
    run: Annotated[str | None, tyro.conf.Positional] = None
    """ship, export: the run's id."""
    out: Path | None = None
    """ship: the folder in which the copy is put, checkpoints if none is given; export: the file, or TensorBoard's folder."""
    format: Literal["csv", "tensorboard"] = "csv"
    """export: a table of the curves, or event files where TensorBoard is installed."""


def evaluate(options: EvaluateOptions) -> int:
    from core import runs

    run = runs.resolve(options.run, options.condition)
    results = run.json("results")
    if not results:
        command = f"python -m core train --config-file {run.directory}/config.json"
        raise ValueError(f"{run.id} has no results yet; let its training finish: {command}")
    print(
        json.dumps(results, indent=1)
        if options.json
        else f"{run.id}\n\n{training.results_markdown(results)}"
    )
    return 0


def generate(options: GenerateOptions) -> int:
    import numpy as np

    from core import runs
    from core.inference import generation

    if not options.clip.exists():
        raise ValueError(f"{options.clip} does not exist")
    opened = generation.load_run(runs.resolve(options.run, options.condition))
    seen = generation.analyse_file(options.clip, options.person)
    if options.whole:
        return _generate_long_voice(options, opened, seen)
    frame = seen.middle if options.frame is None else options.frame
    if not (0 <= frame < len(seen.frames) and seen.found[frame]):
        raise ValueError(
            f"{options.clip.name}: frame {frame} shows no face; choose one of {np.nonzero(seen.found)[0].tolist()[:30]}"
        )
    x = seen.aligned[frame]
    explanation = generation.explain_face(opened, x)
    c, told = generation.condition_of(opened, explanation, options.emotion)
    y = generation.generate_voices(opened, x, c, options.seed)
    sound = generation.to_audio(opened, y[0], options.seed)
    verdicts = generation.classify_samples(opened, y)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = (
        options.out / f"{options.clip.stem}-{opened.config.name}-{options.condition}-{options.seed}"
    )

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
        "sound": {
            "gain_db": sound.gain_db,
            "correlation": sound.correlation,
            "error_db": sound.error_db,
        },
        "logmel": vars(opened.config.logmel) | {"ref_db": opened.ref_db},
        "notes": list(seen.notes),
    }
    stem.with_suffix(".wav").write_bytes(sound.wav)
    stem.with_suffix(".json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    np.save(stem.with_suffix(".npy"), y[0])
    _save_voice_figure(stem.with_suffix(".png"), x, y[0], opened, explanation, told)
    for note in seen.notes:
        print(f"note: {note}")
    sure = f"credibility {explanation.credibility:.2f}, confidence {explanation.confidence:.2f}"
    print(f"the face looks {facts['prediction']} ({sure}); {told}")
    print("wrote " + ", ".join(str(stem.with_suffix(s)) for s in (".wav", ".png", ".json", ".npy")))
    return 0


def _generate_long_voice(options: GenerateOptions, opened, seen) -> int:
    """`generate --whole`: one voice for all of a film, and what it was told when."""
    import numpy as np

    from core.inference import generation, long_form

    if options.frame is not None:
        raise ValueError(
            "--frame belongs to a voice of one second; --whole takes the frames that it needs"
        )
    p = long_form.generate_long_voice(opened, seen, options.emotion, options.seed)
    sound, windows = (
        generation.to_audio(opened, p.y, options.seed),
        long_form.window_records(opened, seen, p, long_form.classify_windows(opened, p)),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    stem = str(
        options.out
        / f"{options.clip.stem}-{opened.config.name}-{options.condition}-{options.seed}-whole"
    )
    notes = [
        *seen.notes,
        *(
            [
                f"the film is longer than {long_form.MAX_SECONDS:g} s: its first {long_form.MAX_SECONDS:g} s have a voice"
            ]
            * p.is_truncated
        ),
    ]
    facts = {
        "clip": options.clip.name,
        "run": opened.run.id,
        "condition": options.condition,
        "told": p.told,
        "seed": options.seed,
        "seconds": round(len(sound.wave) / opened.config.logmel.rate, 3),
        "windows": windows,
        "sound": {
            "gain_db": sound.gain_db,
            "correlation": sound.correlation,
            "error_db": sound.error_db,
        },
        "logmel": vars(opened.config.logmel) | {"ref_db": opened.ref_db},
        "notes": notes,
    }
    Path(f"{stem}.wav").write_bytes(sound.wav)
    Path(f"{stem}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    np.save(f"{stem}.npy", p.y)
    _save_long_voice_figure(Path(f"{stem}.png"), p, windows, opened)
    for note in notes:
        print(f"note: {note}")
    if p.c.shape[1]:
        said = ", ".join(f"{w['from']:.1f} s {max(w['c'], key=w['c'].get)}" for w in windows)
        print(
            f"{facts['seconds']:.1f} s in {len(windows)} window{'s' * (len(windows) > 1)}, told most of all: {said}"
        )
    print("wrote " + ", ".join(stem + end for end in (".wav", ".png", ".json", ".npy")))
    return 0


def _save_long_voice_figure(path: Path, p, windows: list[dict], opened) -> None:
    """A film's spectrogram, and below it what the generator was told when."""
    from matplotlib.figure import Figure

    s = opened.config.logmel
    figure = Figure((12, 4), layout="constrained")
    a, b = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    seconds = len(p.y) * s.hop / s.rate
    image = a.imshow(
        p.y.T,
        origin="lower",
        aspect="auto",
        vmin=-1,
        vmax=1,
        cmap="magma",
        extent=(0, seconds, 0, s.bands),
    )
    a.set(ylabel="mel band", title=f"generated voice · {p.told}")
    figure.colorbar(image, ax=a, label="level, -1 is the floor")
    if p.c.shape[1]:
        edges = [w["from"] for w in windows] + [windows[-1]["to"]]
        for k, emotion in enumerate(opened.classes):
            b.stairs(p.c[:, k], edges, label=emotion)
        b.legend(fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    b.set(xlabel="time (s)", ylabel="c, as told", ylim=(0, 1.02))
    figure.savefig(path, dpi=110)


def _save_voice_figure(path: Path, x, y, opened, explanation, told: str) -> None:
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
    image = c.imshow(
        y.T,
        origin="lower",
        aspect="auto",
        vmin=-1,
        vmax=1,
        cmap="magma",
        extent=(0, seconds, 0, s.bands),
    )
    c.set(xlabel="time (s)", ylabel="mel band", title=f"generated voice · {told}")
    figure.colorbar(image, ax=c, label="level, -1 is the floor")
    figure.savefig(path, dpi=110)


def conformal(options: ConformalOptions) -> int:
    from core.conformal import analysis

    o = options
    settings = {"r": o.r, "eps": o.eps, "smoothed": o.smoothed, "seed": o.seed}
    print(
        analysis.run_report(o.run, o.condition, o.modality, o.measure, o.groups, o.json, **settings)
    )
    return 0


def manage_runs(options: RunsOptions) -> int:
    from core import files, runs
    from core.experiments import jobs

    if options.action == "reindex":
        print(f"{runs.reindex()} runs in {files.checkpoints_folder()}")
    elif options.action == "ship":
        from core.inference import export

        print(export.ship_run(runs.resolve(options.run or ""), options.out or Path("checkpoints")))
    elif options.action == "export":
        return experiments.export_curves(options.run or "", options.out, options.format)
    else:
        jobs.reconcile()
        for r in runs.list_runs():
            print(
                f"{r['run']:<40} {r['state']:<8} {r['step'] or 0}/{r['steps']}  {r['error'] or ''}"
            )
    return 0
