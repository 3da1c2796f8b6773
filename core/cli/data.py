"""The command line's `data` half: prepare · fetch · doctor · draw. Each runs in a terminal, or as an errand that a page watches."""

from __future__ import annotations

import functools
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from core.cli.progress import Progress
from core.experiments import tasks


@dataclass(frozen=True)
class PrepareOptions:
    """Turn a corpus into arrays (once). Ctrl-C stops; the same command continues. Examples:
    python -m core data prepare ravdess --source ~/RAVDESS (--bands 64) · python -m core data prepare demo"""

    corpus: Annotated[str, tyro.conf.Positional]
    """demo, demo-clips, ravdess, crema-d, fer2013, or a name of your own for a table (csv) or a folder of <emotion>/<image>.
    A name that ends in -64 or -80 says the mel bands, too."""
    source: Path | None = None
    """Folder, zip or table of the corpus as published. The demo corpus needs none."""
    workers: int = 0
    """Processes that read clips at the same time; 0 is one per core."""
    takes: int = 10
    """Demo corpus only: clips per invented actor and emotion."""
    bands: Literal[28, 64, 80] = 28
    """Mel bands of a spectrogram. More than the paper's 28 make a corpus of its own, named after them: ravdess-64."""
    frames: int = 1
    """Faces per clip: the frame nearest the sound's middle, then further ones over the second around it."""
    crops: int = 1
    """Spectrograms per clip: the middle second, then further ones over the clip's whole length."""
    song: bool = False
    """RAVDESS only: the sung clips too."""
    engine: Literal["local", "ray"] = "local"
    """ray reads the clips on the machines of a Ray cluster (pip install -r requirements-cluster.txt); the arrays are the same."""
    address: str | None = None
    """ray: where the cluster is, such as auto or 10.0.0.1:6379; without it one is started on this machine."""


@dataclass(frozen=True)
class FetchOptions:
    """Bring a corpus onto this machine: ravdess is downloaded (resumable, its sums checked), for crema-d and fer2013 the exact
    commands are printed. Example: python -m core data fetch ravdess --what audio"""

    corpus: Annotated[str, tyro.conf.Positional]
    """ravdess, crema-d or fer2013."""
    to: Path | None = None
    """Folder for the files; data/raw/<corpus> if none is given."""
    what: tuple[Literal["audio", "video"], ...] = ("audio", "video")
    """ravdess: audio is one zip of 0.2 GB, video 24 zips of 12.4 GB."""


@dataclass(frozen=True)
class DoctorOptions:
    """Look a corpus through before it is prepared: missing, empty, silent, faceless, doubled files, and what to do about each.
    Example: python -m core data doctor ~/CREMA-D"""

    path: Annotated[Path, tyro.conf.Positional]
    """Folder or zip of the corpus, or the csv table of own data."""
    corpus: str | None = None
    """Which corpus it is, if that cannot be told from its files."""
    json: bool = False
    """The report for machines."""
    seconds: float = 600.0
    """How long it may take; what was not looked at in that time is said. The exit status is 1 where something is unusable."""


@dataclass(frozen=True)
class DrawOptions:
    """Write some clips of the invented corpus as mp4 and wav, to try things on; `data prepare demo-clips --source FOLDER` reads them."""

    folder: Annotated[Path, tyro.conf.Positional]
    count: int = 12
    """How many."""


def run_command(options: Any) -> int:
    """Carry out one of `data`'s commands; returns the exit status. Stopped by a signal, it says how to continue.

    Raises what the work raises for expected failures, after telling the errand.
    """
    from core.files import StopRequested

    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # as Ctrl-C: what is done is on the disk at any moment
    actions: dict[Any, Any] = {
        PrepareOptions: prepare,
        FetchOptions: fetch,
        DoctorOptions: doctor,
        DrawOptions: draw,
    }
    try:
        code, message = actions[type(options)](options)
    except (KeyboardInterrupt, StopRequested):
        for s in (
            signal.SIGINT,
            signal.SIGTERM,
        ):  # whoever is impatient must not break off the farewell
            signal.signal(s, signal.SIG_IGN)
        tasks.report_end("stopped")
        print("\nstopped; the same command continues", file=sys.stderr)
        return 130
    except BaseException as e:
        tasks.report_end(
            "failed",
            str(e.args[0] if isinstance(e, KeyError) and e.args else e) or type(e).__name__,
        )
        raise
    tasks.report_end("done", message)
    return code


def prepare(o: PrepareOptions) -> tuple[int, str]:
    from core.data import preparation as preparing
    from core.data import splits
    from core.data.corpora import CorpusError
    from core.experiments import ray_cluster

    clips, bands = splits.parse_name(o.corpus)  # the name may say it, too
    if len({bands, o.bands} - {PrepareOptions.bands}) > 1:
        raise CorpusError(
            f"{o.corpus} means {bands} mel bands, and --bands says {o.bands}; leave one of them out"
        )
    name, progress = splits.name_with_bands(clips, max(bands, o.bands)), Progress()
    engine = (
        functools.partial(ray_cluster.run_tasks, workers=o.workers, address=o.address)
        if o.engine == "ray"
        else None
    )
    path = preparing.prepare_corpus(
        name,
        o.source,
        o.workers,
        lambda d, t: progress("prepare", d, t),
        o.takes,
        o.frames,
        o.crops,
        o.song,
        engine,
    )
    corpus = splits.load_corpus_file(path)
    message = f"{len(corpus.clip)} clips, {len(corpus.faces)} faces, {len(corpus.voices)} voices, digest {corpus.digest}"
    print(f"\n{path}: {message}")
    if corpus.bands != PrepareOptions.bands and len(corpus.voices):
        print(f"  a run takes it by: --data.voices {name} --logmel.bands {corpus.bands}")
    for what, asked, kind in (("frames", o.frames, "faces"), ("crops", o.crops, "voices")):
        if asked > 1:
            print(
                f"  {asked} {kind} of each clip; {corpus.meta['repeated'][what]} clips have fewer different ones and repeat some"
            )
    left_out = list(corpus.meta["left_out"].items())
    for clip, reason in left_out[:20]:
        print(f"  {clip}: {reason}")
    if len(left_out) > 20:
        print(f'  … and {len(left_out) - 20} more: meta["left_out"] of that file')
    return 0, message


def fetch(o: FetchOptions) -> tuple[int, str]:
    from core.data import download as fetching
    from core.data import splits

    target = o.to or splits.processed_folder().parent / "raw" / o.corpus
    if o.corpus != "ravdess":
        text = fetching.manual_steps(o.corpus, target)
        if "not known" in text:
            raise fetching.FetchError(text)
        print(text)
        return 0, f"what to type for {o.corpus}"
    progress = Progress((1e6, " MB"))
    paths = fetching.fetch_corpus(o.corpus, target, o.what, lambda d, t: progress("fetch", d, t))
    print(
        f"\n{len(paths)} files, whole and right, in {target}\nnext: python -m core data prepare {o.corpus} --source {target}"
    )
    return 0, f"{len(paths)} files in {target}"


def doctor(o: DoctorOptions) -> tuple[int, str]:
    from core.data import doctor as doctors

    progress = Progress()
    report = doctors.examine_corpus(
        o.path, o.corpus, seconds=o.seconds, tick=lambda d, t, phase: progress(phase, d, t)
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(
        json.dumps(doctors.to_dict(report), indent=1, ensure_ascii=False)
        if o.json
        else doctors.to_text(report)
    )
    found = sum(f.severity == "error" for f in report.faults)
    return int(
        found > 0
    ), f"{found} kind{'s' * (found != 1)} of errors found" if found else "no errors found"


def draw(o: DrawOptions) -> tuple[int, str]:
    from core.data import preparation as preparing

    progress = Progress()
    paths = preparing.draw_demo_clips(o.folder, o.count, lambda d, t: progress("draw clips", d, t))
    message = f"wrote {len(paths)} clips of invented actors to {o.folder}"
    print(f"\n{message}")
    return 0, message
