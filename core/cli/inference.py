"""Commands on finished runs: `generate`, `conformal`, `examples`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from core import files
from core.cli.options import (
    RUN_HELP,
    Between,
    Folder,
    Index,
    RunArgument,
    Seed,
    Sibling,
    placeholder,
)
from core.cli.progress import Progress
from core.files import UserError

if TYPE_CHECKING:
    import numpy as np

    from core.inference.generation import AnalysedClip, Audio, Explanation, LoadedRun

# the run that sounds best, and the one that has every condition
DEFAULT_RUN, RUN_OF_CONDITIONS = "listening", "fer2013-ravdess"
MAX_NAME_BYTES = 120  # of a clip's name in the name of a result; systems allow 255 in all


@dataclass(frozen=True)
class GenerateOptions:
    """Generate a voice spectrogram, and its sound, from a face clip or picture.

    It writes wav, png, json and npy, named by clip, run, emotion and seed. Example:
      python -m core generate face.mp4 --condition cp --out generated
    """

    clip: Annotated[Path, Positional, placeholder("CLIP")]
    """A video or picture that shows a face."""
    run: Annotated[
        str | None,
        arg(
            metavar="RUN",
            help=RUN_HELP,
            help_behavior_hint=f"(default: {DEFAULT_RUN}; with a condition {RUN_OF_CONDITIONS})",
        ),
    ] = None
    condition: Annotated[
        Literal["label", "classifier", "cp"] | None,
        arg(
            metavar="{label,classifier,cp}", help_behavior_hint="(default: cp where the run has it)"
        ),
    ] = None
    """What the generator gets besides the face."""
    emotion: Annotated[str | None, placeholder("EMOTION", "the face classifier's first choice")] = (
        None
    )
    """Emotion of the label condition."""
    seed: Seed = 0
    """Random seed of z and of the vocoder's noise."""
    person: Index = 0
    """Which face when there are several; 0 is the largest."""
    frame: Annotated[
        int | None, placeholder("N", "the face nearest the middle"), Between(0, 1_000_000)
    ] = None
    """Index of the frame whose face is used; without it the mean over frames tells the emotion."""
    whole: bool = False
    """A voice as long as the film, up to 20 s, that follows its face; otherwise one second."""
    video: bool = False
    """The film with that voice in step, as mp4 (H.264 and AAC) that says so; implies --whole."""
    out: Folder = Path("generated")
    """Folder for the files."""

    @property
    def is_whole(self) -> bool:
        return self.whole or self.video


@dataclass(frozen=True)
class ConformalOptions:
    """Measure a run's conformal predictor on subjects that it was not calibrated on.

    Error rates beside the promised ones, and the size of the prediction sets. Example:
      python -m core conformal demo --eps 0.1
    """

    run: RunArgument
    condition: Sibling = None
    modality: Literal["face", "voice"] = "face"
    """f_S on faces, or f_T on voices."""
    measure: Annotated[
        Literal["margin", "hinge"] | None, placeholder("{margin,hinge}", "the run's")
    ] = None
    """Nonconformity, Eq. (8)."""
    groups: Annotated[
        Literal["pooled", "class"] | None, placeholder("{pooled,class}", "the run's")
    ] = None
    """All calibration scores together, or each class by itself (Mondrian)."""
    r: Annotated[float, arg(metavar="SHARE")] = 1.0
    """Share of the calibration set that is used."""
    eps: Annotated[float, arg(metavar="SHARE")] = 0.1
    """Significance: the largest share of errors that is promised."""
    smoothed: bool = False
    """Break ties at random."""
    predictor: Literal["own", "inductive"] = "own"
    """The run's own, of whatever kind, or an inductive one on f_S's softmax."""
    choose_r: bool = False
    """Compare calibration sizes r with cross-conformal and full CP, by how they classify (§3.1)."""
    seed: Seed = 0
    """Random seed of the calibration subset and of the smoothing."""
    json: bool = False
    """Print everything as JSON."""


@dataclass(frozen=True)
class ExamplesOptions:
    """Write wavs to listen to, and print how well they carry their spectrograms.

    For each emotion a real voice and one by each condition, by the vocoder and by plain
    Griffin-Lim. Example:
      python -m core examples --run demo
    """

    run: Annotated[
        tuple[str, ...], placeholder("[RUN [RUN ...]]", "the runs that came with the project")
    ] = ()
    """Names or ids of runs; their siblings of other conditions join them."""
    out: Annotated[Path | None, placeholder("FOLDER", "checkpoints/examples")] = None
    """Folder for the wavs."""


def generate(options: GenerateOptions) -> int:
    import numpy as np

    from core.media.faces import tracking
    from core.runs import store

    if not options.clip.is_file():
        what = "is no file" if options.clip.exists() else "does not exist"
        raise UserError(f"{files.printable(str(options.clip))} {what}")
    name = options.run or (RUN_OF_CONDITIONS if options.condition else DEFAULT_RUN)
    run = store.resolve(name, options.condition, preferred="cp")
    options.out.mkdir(parents=True, exist_ok=True)
    clip_digest = files.digest(options.clip)
    stem = options.out / _result_name(options, run.id)
    _refuse_other_clip(stem, clip_digest)
    with tracking.track_beside(options.clip) as film:  # while torch is imported
        from core.inference import generation

        opened = generation.load_run(run)
        seen = generation.analyse_clip(film().clip, options.person, film().tracks)
    make = _generate_long_voice if options.is_whole else _generate_voice
    facts, sound, y, figure, summary = make(options, opened, seen)
    contents: dict[str, files.Content] = {
        "wav": sound.wav,
        "png": lambda file: figure.savefig(file, dpi=110),
        "json": json.dumps({"clip digest": clip_digest} | facts, indent=1, ensure_ascii=False),
        "npy": lambda file: np.save(file, y),
    }
    if options.video:
        contents["mp4"] = _speaking_film(options, opened, sound)
    paths = {end: Path(f"{stem}.{end}") for end in contents}
    files.write_together({paths[end]: content for end, content in contents.items()})
    for note in facts["notes"]:
        print(f"note: {note}")
    if summary:
        print(summary)
    print("wrote " + ", ".join(map(str, paths.values())))
    return 0


def _result_name(options: GenerateOptions, run_id: str) -> str:
    """Name of a result without its ending: all that decides it; a long clip's name is cut.

    The run's id holds its name and condition.
    """
    clip = files.printable(options.clip.name)
    if len(clip.encode()) > MAX_NAME_BYTES:
        clip = f"{clip.encode()[:MAX_NAME_BYTES].decode(errors='ignore')}~{files.digest(clip)[:8]}"
    parts = [clip, run_id, options.emotion, str(options.seed)]
    parts += [f"person{options.person}"] * bool(options.person)
    parts += [] if options.frame is None else [f"frame{options.frame}"]
    parts += ["whole"] * options.is_whole
    return "-".join(part.replace("/", "_") for part in parts if part)


def _refuse_other_clip(stem: Path, clip_digest: str) -> None:
    """Raise UserError where another clip of the same name has its result already."""
    record = Path(f"{stem}.json")
    try:
        known = json.loads(record.read_text(encoding="utf-8"))["clip digest"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        known = ""
    if known != clip_digest:
        raise UserError(
            f"{record} is the result of another clip of this name; "
            "keep it by naming another folder with --out, or remove it"
        )


def _generate_voice(options: GenerateOptions, opened: LoadedRun, seen: AnalysedClip) -> tuple:
    """Generate a second for one face: facts for the json, sound, y (columns, bands), figure, text.

    Raises UserError for a frame without a face.
    """
    import numpy as np

    from core.conformal import credibility, predictor
    from core.inference import generation

    frame = seen.middle if options.frame is None else options.frame
    if not (0 <= frame < len(seen.frames) and seen.found[frame]):
        usable = np.nonzero(seen.found)[0].tolist()[:30]
        name = files.printable(options.clip.name)
        raise UserError(f"{name}: frame {frame} shows no face; choose one of {usable}")
    # Face -> explanation -> condition -> spectrogram -> sound and verdicts
    x, judged = seen.aligned[frame], generation.judged_faces(seen, options.frame)
    explanation = generation.explain_film(opened, judged)
    c, told = generation.condition_of(opened, explanation, options.emotion)
    y = generation.generate_voices(opened, x, c, options.seed)
    sound = generation.to_audio(opened, y[0], options.seed)
    verdicts = generation.classify_samples(opened, y)
    # The record for the json file
    prediction = opened.classes[explanation.prediction]
    own = {
        "c": generation.by_class(opened, c) if len(c) else {},
        "seed": options.seed,
        "frame": int(frame),
        "time": round(float(seen.times[frame]), 3),
        "frames judged": len(judged),
        "softmax": generation.by_class(opened, explanation.softmax),
        "p-values": generation.by_class(opened, explanation.p),
        "prediction": prediction,
        "credibility": explanation.credibility,
        "test faces of a higher credibility": opened.credibility.share_above(
            explanation.credibility
        ),
        "confidence": explanation.confidence,
        "heard by Q": generation.by_class(opened, verdicts["Q"][0]),
        "heard by the scorer": generation.by_class(opened, verdicts["scorer"][0]),
    }
    facts = _facts(options, opened, told, own, sound, list(seen.notes))
    figure = _voice_figure(x, y[0], opened, explanation, told)
    sure = credibility.describe(opened.credibility, explanation.credibility)
    mean = f", mean over {len(judged)} frames" if len(judged) > 1 else ""
    words = f"the face looks {prediction}{mean} (confidence {explanation.confidence:.2f}); {told}"
    words += f"\ncredibility {sure}. {credibility.MEANING}"
    return facts, sound, y[0], figure, f"{words}\n{predictor.describe(opened.predictor)}"


def _generate_long_voice(options: GenerateOptions, opened: LoadedRun, seen: AnalysedClip) -> tuple:
    """`--whole`: one voice for the whole film; returns the same as `_generate_voice`."""
    from core.inference import generation, long_form

    if options.frame is not None:
        raise UserError(
            "--frame belongs to a voice of one second; --whole takes the frames that it needs"
        )
    voice = long_form.generate_long_voice(opened, seen, options.emotion, options.seed)
    sound = generation.to_audio(opened, voice.y, options.seed)
    verdicts = long_form.classify_windows(opened, voice)
    windows = long_form.window_records(opened, seen, voice, verdicts)
    limit = f"{long_form.MAX_SECONDS:g} s"
    cut = f"the film is longer than {limit}: its first {limit} have a voice"
    seconds = round(len(sound.wave) / opened.config.logmel.rate, 3)
    own = {"seed": options.seed, "seconds": seconds, "windows": windows}
    notes = [*seen.notes, *[cut] * voice.is_truncated]
    facts = _facts(options, opened, voice.told, own, sound, notes)
    summary = ""
    if voice.c.shape[1]:
        strongest = ", ".join(f"{w['from']:.1f} s {max(w['c'], key=w['c'].get)}" for w in windows)
        count = f"{len(windows)} window{'s' * (len(windows) > 1)}"
        summary = f"{seconds:.1f} s in {count}, told most of all: {strongest}"
    return facts, sound, voice.y, _long_voice_figure(voice, windows, opened), summary


def _speaking_film(options: GenerateOptions, opened: LoadedRun, sound: Audio) -> bytes:
    """`--video`: the film with the voice of `sound`."""
    from core.inference.film import dubbing

    name = files.printable(options.clip.name)
    comment = f"dacssGAN {opened.run.id} seed {options.seed}; {dubbing.GENERATED_MARK}"
    return dubbing.with_voice(options.clip.read_bytes(), name, sound.wave, comment, Progress())


def _facts(
    options: GenerateOptions,
    opened: LoadedRun,
    told: str,
    own: dict[str, Any],
    sound: Audio,
    notes: list[str],
) -> dict[str, Any]:
    """The record of a generated voice; `own` holds what only one second or a whole film has."""
    return {
        "clip": files.printable(options.clip.name),
        "run": opened.run.id,
        "condition": opened.config.gan.condition,
        "told": told,
        "predictor": opened.predictor.name,
        "possible credibility": [opened.credibility.low, opened.credibility.high],
        **own,
        "sound": {k: getattr(sound, k) for k in ("gain_db", "correlation", "error_db")},
        "logmel": vars(opened.config.logmel) | {"ref_db": opened.ref_db},
        "notes": notes,
    }


def _show_spectrogram(axes, y: np.ndarray, opened: LoadedRun):
    """Draw y (columns, bands) in [-1, 1] with its colour bar."""
    s = opened.config.logmel
    image = axes.imshow(
        y.T,
        origin="lower",
        aspect="auto",
        vmin=-1,
        vmax=1,
        cmap="magma",
        extent=(0, len(y) * s.hop / s.rate, 0, s.bands),
    )
    axes.figure.colorbar(image, ax=axes, label="level, -1 is the floor")


def _long_voice_figure(voice, windows: list[dict], opened: LoadedRun):
    """A film's spectrogram, and below it the condition of each window."""
    from matplotlib.figure import Figure

    figure = Figure((12, 4), layout="constrained")
    a, b = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _show_spectrogram(a, voice.y, opened)
    a.set(ylabel="mel band", title=f"generated voice · {voice.told}")
    if voice.c.shape[1]:
        edges = [w["from"] for w in windows] + [windows[-1]["to"]]
        for k, emotion in enumerate(opened.classes):
            b.stairs(voice.c[:, k], edges, label=emotion)
        b.legend(fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    b.set(xlabel="time (s)", ylabel="c, as told", ylim=(0, 1.02))
    return figure


def _voice_figure(
    x: np.ndarray, y: np.ndarray, opened: LoadedRun, explanation: Explanation, told: str
):
    """The face, its softmax and p-values, and the spectrogram."""
    from matplotlib.figure import Figure

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
    _show_spectrogram(c, y, opened)
    c.set(xlabel="time (s)", ylabel="mel band", title=f"generated voice · {told}")
    return figure


def conformal(options: ConformalOptions) -> int:
    from core.conformal import analysis

    o = options
    if o.choose_r:
        return _choose_calibration_size(o)
    settings: dict[str, Any] = {"r": o.r, "eps": o.eps, "smoothed": o.smoothed, "seed": o.seed}
    print(
        analysis.run_report(
            *(o.run, o.condition, o.modality, o.measure, o.groups, o.json),
            inductive=o.predictor == "inductive",
            **settings,
        )
    )
    return 0


def _choose_calibration_size(o: ConformalOptions) -> int:
    """`--choose-r`: inductive(r), cross-conformal and full CP in classification, as tables."""
    from core.evaluation.reporting import calibration_share
    from core.experiments import condition_vectors
    from core.runs import store

    run, progress = store.resolve(o.run, o.condition), Progress()
    arrays, seed = condition_vectors.arrays_of_run(run), {"seed": o.seed}
    found = {}
    judged: calibration_share.Judged
    for judged in ("S2", "S4"):
        tick = lambda d, t, on=judged: progress(f"judged on {on}", d, t)  # noqa: E731
        found[judged] = calibration_share.of_run(run, judged, arrays, **seed, report=tick)
    if o.json:
        print(json.dumps({k: [calibration_share.to_dict(c) for c in v] for k, v in found.items()}))
        return 0
    print(f"{run.id}")
    for judged, choices in found.items():
        words = calibration_share.describe(run.config, choices, judged)
        print(f"\n{words}\n\n{calibration_share.table(choices)}")
    return 0


def write_examples(o: ExamplesOptions) -> int:
    from core.inference import audio_samples

    progress, folder = Progress(), o.out or audio_samples.folder()
    samples = audio_samples.write_samples(
        audio_samples.resolve_runs(o.run), folder, lambda d, t: progress("examples", d, t)
    )
    print(f"\n{audio_samples.table(samples)}\n\nwrote {len(samples)} wavs to {folder}")
    return 0
