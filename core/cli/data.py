"""Commands on corpora: `data prepare`, `data fetch`, `data doctor`, `data draw`.

Each runs in a terminal, or as a task that a page watches.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from core.cli.options import Address, Between, Count, Engine, Index, placeholder
from core.cli.progress import Progress, report_end
from core.files import UserError

Few = Annotated[int, placeholder("N"), Between(1, 100)]


@dataclass(frozen=True)
class PrepareOptions:
    """Turn a corpus into arrays, once.

    Ctrl-C stops; the same command continues. Examples:
      python -m core data prepare ravdess --source ~/RAVDESS --bands 64
      python -m core data prepare demo
    """

    corpus: Annotated[str, Positional, placeholder("CORPUS")]
    """demo, demo-clips, ravdess, crema-d, fer2013, surrogate-pairs (of fer2013 and ravdess as they
    are prepared), or a name for your own table or folder."""
    source: Annotated[str | None, placeholder("FOLDER", "none, for the demo corpus")] = None
    """Folder, zip or table as published; or your own table (csv), or folder of EMOTION/IMAGE."""
    workers: Index = 0
    """Processes that read clips at the same time; 0: one for each core."""
    takes: Few = 10
    """Demo corpus only: clips of each invented actor and emotion."""
    bands: Literal[28, 64, 80] = 28
    """Mel bands; 64 or 80 make a corpus of its own, whose name may say it too: ravdess-64."""
    frames: Few = 1
    """Faces of each clip: the middle frame, then further ones over the second around it."""
    crops: Few = 1
    """Spectrograms of each clip: the middle second, then further ones over the whole clip."""
    song: bool = False
    """RAVDESS only: the sung clips too."""
    again: bool = False
    """Read all clips anew, also those that are prepared."""
    lost: Annotated[float, arg(metavar="SHARE")] = 0.2
    """Exit with status 1 where a larger share of the clips is left out."""
    engine: Engine = "local"
    address: Address = None


@dataclass(frozen=True)
class FetchOptions:
    """Download RAVDESS, or print the exact commands that bring another corpus.

    An interrupted download is resumed, and checksums are checked. Example:
      python -m core data fetch ravdess --what audio
    """

    corpus: Annotated[str, Positional, placeholder("CORPUS")]
    """ravdess, crema-d or fer2013."""
    to: Annotated[str | None, placeholder("FOLDER", "data/raw/CORPUS")] = None
    """Folder for the files."""
    what: tuple[Literal["audio", "video"], ...] = ("audio", "video")
    """ravdess: audio is one zip of 0.2 GB, video 24 zips of 12.4 GB."""


@dataclass(frozen=True)
class DoctorOptions:
    """Check a corpus before it is prepared, and say what to do about each fault.

    It finds missing, empty, silent, faceless and doubled files. The exit status is 1 where
    something is unusable. Example:
      python -m core data doctor ~/CREMA-D
    """

    path: Annotated[str, Positional, placeholder("FOLDER")]
    """Folder or zip of the corpus, or the csv table of own data."""
    corpus: Annotated[str | None, placeholder("CORPUS", "recognised by its files")] = None
    """Which corpus it is."""
    json: bool = False
    """Print the report as JSON."""
    seconds: Annotated[float, arg(metavar="SECONDS")] = 600.0
    """Longest time to take; the report names what was not checked in it."""


@dataclass(frozen=True)
class DrawOptions:
    """Write some clips of the invented corpus as mp4 and wav, to try things on.

    The command `data prepare demo-clips --source FOLDER` reads them. Example:
      python -m core data draw clips --count 6
    """

    folder: Annotated[str, Positional, placeholder("FOLDER")]
    """Folder for the clips."""
    count: Count = 12
    """Number of clips."""


def _parse_path(text: str, option: str) -> Path:
    """A path as typed. Raises UserError for an empty one, which would mean the current folder."""
    if not text.strip():
        raise UserError(f"{option} is empty; give a path, or . for the current folder")
    path = Path(text)
    if text.startswith("~") and not path.exists():  # shells leave --source=~/x as it is
        with contextlib.suppress(RuntimeError):  # there is no such user, or no HOME
            path = path.expanduser()
    return path


@report_end
def prepare(o: PrepareOptions) -> tuple[int, str]:
    from core.data import preparation, prepared_corpora
    from core.data.sources import surrogate_pairs
    from core.experiments.ray_cluster import connection

    if surrogate_pairs.is_surrogate(o.corpus):
        return _join_surrogate_pairs()
    if not 0 <= o.lost <= 1:
        raise UserError(f"--lost is a share of the clips, 0 to 1; got {o.lost:g}")
    # The mel bands stand in the corpus' name or in --bands
    clips, bands = prepared_corpora.parse_name(o.corpus)
    if len({bands, o.bands} - {PrepareOptions.bands}) > 1:
        raise UserError(
            f"{o.corpus} means {bands} mel bands, and --bands says {o.bands}; leave one of them out"
        )
    name, progress = prepared_corpora.name_with_bands(clips, max(bands, o.bands)), Progress()
    engine = functools.partial(connection.run_tasks, workers=o.workers, address=o.address)
    path = preparation.prepare_corpus(
        name,
        None if o.source is None else _parse_path(o.source, "--source"),
        preparation.PreparationSettings(takes=o.takes, frames=o.frames, crops=o.crops, song=o.song),
        workers=o.workers,
        tick=lambda done, total: progress("prepare", done, total),
        engine=engine if o.engine == "ray" else None,
        again=o.again,
        warn=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )
    corpus = prepared_corpora.load_corpus_file(path)
    counts = f"{len(corpus.clip)} clips, {len(corpus.faces)} faces, {len(corpus.voices)} voices"
    print(f"\n{path}: {counts}, digest {corpus.digest}")
    if corpus.bands != PrepareOptions.bands and len(corpus.voices):
        print(f"  a run takes it by: --data.voices {name} --logmel.bands {corpus.bands}")
    for what, number, kind in (("frames", o.frames, "faces"), ("crops", o.crops, "voices")):
        if number > 1:
            repeating = f"{corpus.meta['repeated'][what]} clips have fewer different ones"
            print(f"  {number} {kind} of each clip; {repeating} and repeat some")
    _print_passed_over(prepared_corpora.read_source_record(path).get("passed_over", {}))
    _print_notes(corpus.meta.get("notes", {}))
    left_out = dict(corpus.meta["left_out"])
    for clip, reason in left_out.items():
        print(f"  {clip}: {reason}")
    lost = sum(not clip.startswith("landmarks/") for clip in left_out)
    message = f"{counts}, digest {corpus.digest}"
    if not lost:
        return 0, message
    share = lost / (lost + len(corpus.clip))
    words = f"{lost} of {lost + len(corpus.clip)} clips ({share:.0%}) are left out"
    print(f"{words}, more than {o.lost:.0%}: exit status 1" if share > o.lost else words)
    return int(share > o.lost), f"{message}; {words}"


def _join_surrogate_pairs() -> tuple[int, str]:
    from core.data import prepared_corpora
    from core.data.sources import surrogate_pairs

    surrogate_pairs.prepare()
    told = []
    for name in (surrogate_pairs.PAIRS, surrogate_pairs.OTHER_FACES):
        corpus = prepared_corpora.load_corpus(name)
        told.append(f"{name}: {len(corpus.clip)} clips, digest {corpus.digest}")
    print("\n".join(told))
    return 0, "; ".join(told)


def _print_passed_over(passed_over: dict[str, str], most: int = 10) -> None:
    """Files of the source that belong to no clip, by reason and ending; at most `most` names each.

    All of them stand in the record beside the prepared file.
    """
    from core.data import prepared_corpora

    for ending, reason, names in prepared_corpora.group_passed_over(passed_over):
        more = f" and {len(names) - most} more" if len(names) > most else ""
        listed = ", ".join(names[:most])
        print(f"  passed over, {len(names)} of {ending}: {reason}: {listed}{more}")


def _print_notes(notes: dict[str, str], most: int = 10) -> None:
    """Remarks on clips that are taken: each with its number and the names of some clips."""
    from core.data import prepared_corpora

    for kind, group in prepared_corpora.group_notes(notes):
        clips = [f"{clip} ({one})" for clip, one in group]
        more = f" and {len(clips) - most} more" if len(clips) > most else ""
        print(f"  taken with a remark, {len(clips)} ({kind}): {', '.join(clips[:most])}{more}")


@report_end
def fetch(o: FetchOptions) -> tuple[int, str]:
    from core.data import download, prepared_corpora

    target = prepared_corpora.processed_folder().parent / "raw" / o.corpus
    target = target if o.to is None else _parse_path(o.to, "--to")
    if o.corpus != "ravdess":
        text = download.manual_steps(o.corpus, target)
        if "not known" in text:
            raise UserError(text)
        print(text)
        return 0, f"what to type for {o.corpus}"
    progress = Progress((1e6, " MB"))
    paths = download.fetch_corpus(o.corpus, target, o.what, functools.partial(progress, "fetch"))
    print(f"\n{len(paths)} files, whole and right, in {target}")
    print(f"next: python -m core data prepare {o.corpus} --source {target}")
    return 0, f"{len(paths)} files in {target}"


@report_end
def doctor(o: DoctorOptions) -> tuple[int, str]:
    from core.data.checks import doctor as doctors
    from core.data.checks import faults

    if not o.seconds >= 0:
        raise UserError(f"--seconds are at least 0; got {o.seconds:g}")
    path, progress = _parse_path(o.path, "the corpus' path"), Progress()
    report = doctors.examine_corpus(
        path, o.corpus, seconds=o.seconds, tick=lambda d, t, phase: progress(phase, d, t)
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if o.json:
        print(json.dumps(faults.to_dict(report), indent=1, ensure_ascii=False))
    else:
        print(faults.to_text(report))
    found = sum(f.severity == "error" for f in report.faults)
    kinds = f"{found} kind{'s' * (found != 1)} of errors found"
    return int(found > 0), kinds if found else "no errors found"


@report_end
def draw(o: DrawOptions) -> tuple[int, str]:
    from core.data.demo import recordings

    folder = _parse_path(o.folder, "the folder")
    progress = functools.partial(Progress(), "draw clips")
    paths = recordings.draw_demo_clips(folder, o.count, progress)
    message = f"wrote {len(paths)} clips of invented actors to {folder}"
    print(f"\n{message}")
    return 0, message
