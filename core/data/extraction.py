"""§4.1: features of all clips of a corpus, part by part, in parallel and resumable.

The clips are cut into parts. The arrays of a part are kept in a folder from the moment it is done,
so that killed work continues there. They do not depend on the order of the work, the number of
workers, the engine or an interruption.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.data import features
from core.data.corpora import ClipEntry
from core.data.features import ClipFeatures, ExtractionSettings, MachineError
from core.data.sources import media_files

TARGET_PARTS, MAX_CLIPS_PER_PART = 200, 50  # parts of a corpus, unless they grow above 50 clips
MIN_PARALLEL_CLIPS = 24  # below that, further processes take longer to start than they save
MIN_PARALLEL_TAKES = 400  # the same of takes of the demo corpus, which are drawn sooner than read
ARRAY_NAMES = ("x", "y", "five", "crop")  # fields of ClipFeatures in a part's file

# What reading a part may raise that is missing, cut short or of an earlier version.
DAMAGED_PART_ERRORS = OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error

Item = Any  # a corpora.ClipEntry, or a demo.actors.Take
ProgressCallback = Callable[[int, int], None]  # (clips done, clips in all)
PartResults = Generator[tuple[int, dict[str, np.ndarray]], None, None]
ExtractionEngine = Callable[[dict[int, Sequence[Item]], ExtractionSettings], PartResults]


def extract_corpus(
    items: Sequence[Item],
    how: ExtractionSettings,
    folder: Path,
    engine: ExtractionEngine,
    tick: ProgressCallback | None,
    should_stop: Callable[[], bool] | None,
) -> list[ClipFeatures]:
    """Features of every clip, in order; parts that lie in `folder` are not extracted again.

    A part with a clip whose reason may change is. Raises StopRequested soon after `should_stop()`,
    MachineError where the machine keeps a clip from being read; what is done is kept.
    """
    size = min(MAX_CLIPS_PER_PART, -(-len(items) // TARGET_PARTS))
    parts = {i: items[i * size : (i + 1) * size] for i in range(-(-len(items) // size))}
    results = _kept_parts(parts, folder)
    done = sum(map(len, results.values()))
    if tick:
        tick(done, len(items))
    todo = {i: part for i, part in parts.items() if i not in results}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(engine(todo, how)) as finished:
            for i, arrays in finished:
                files.write_arrays(folder / f"{i:04d}.npz", **arrays)
                results[i] = _from_arrays(arrays)
                done += len(parts[i])
                if tick:
                    tick(done, len(items))
                if should_stop and should_stop() and len(results) < len(parts):
                    raise files.StopRequested("stopped; the same call continues")
    except (MachineError, OSError) as e:
        kept = f"{done:,} of {len(items):,} clips are done and kept"
        reason = e if isinstance(e, MachineError) else f"{e.filename or folder}: {e.strerror or e}"
        message = f"{reason}. {kept}; once that is mended, the same command goes on"
        raise MachineError(message) from e
    return [clip for i in parts for clip in results[i]]


def _kept_parts(parts: dict[int, Sequence[Item]], folder: Path) -> dict[int, list[ClipFeatures]]:
    """The parts that lie whole in `folder`, without those that are to be extracted again."""
    results = {}
    for i in parts:
        with contextlib.suppress(*DAMAGED_PART_ERRORS):
            arrays = files.read_arrays(folder / f"{i:04d}.npz")
            clips = _from_arrays(arrays)
            if arrays["readers"] != features.READERS_VERSION:
                continue
            if len(clips) == len(parts[i]) and not any(clip.may_change for clip in clips):
                results[i] = clips
    return results


def _to_arrays(clips: list[ClipFeatures]) -> dict[str, np.ndarray]:
    arrays = {
        "reason": np.array([clip.reason for clip in clips]),
        "repeats": np.array([clip.repeats for clip in clips]),
        "note": np.array([clip.note for clip in clips]),
        "readers": np.array(features.READERS_VERSION),
        "may_change": np.array([clip.may_change for clip in clips]),
    }
    for name in ARRAY_NAMES:
        values = {i: a for i, clip in enumerate(clips) if (a := getattr(clip, name)) is not None}
        arrays[f"{name}_at"] = np.array(list(values), np.int64)
        if values:
            arrays[name] = np.stack(list(values.values()))
    return arrays


def _from_arrays(arrays: dict[str, np.ndarray]) -> list[ClipFeatures]:
    names = ("reason", "repeats", "note", "may_change")
    rows = zip(*(arrays[name].tolist() for name in names), strict=True)
    fields: list[dict] = [dict(zip(names, row, strict=True)) for row in rows]
    for of in fields:
        of["repeats"] = tuple(of["repeats"])
    for name in ARRAY_NAMES:
        for k, i in enumerate(arrays[f"{name}_at"]):
            fields[i][name] = arrays[name][k]
    return [ClipFeatures(**f) for f in fields]


# ------------------------------------------------------------------ engines


def choose_engine(
    engine: Callable[..., PartResults] | None, items: Sequence[Item], workers: int, drawn: bool
) -> ExtractionEngine:
    """The given engine, or processes of this machine (0 workers: one per core)."""
    if engine:
        return functools.partial(engine, do=extract_part, media=sample_media(items))
    one = len(items) < (MIN_PARALLEL_TAKES if drawn else MIN_PARALLEL_CLIPS)
    return functools.partial(_extract_locally, workers=1 if one else workers or os.cpu_count() or 1)


def _extract_locally(
    parts: dict[int, Sequence[Item]], how: ExtractionSettings, workers: int
) -> PartResults:
    """Extract in processes. Two threads are hardly faster than one (`make bench ARGS=prepare`),
    because most work on an image holds the GIL."""
    from joblib import Parallel, delayed

    workers = min(workers, max(1, len(parts)))
    options: dict[str, Any] = {}
    if workers > 1:
        options = {"backend": "loky", "initializer": exit_with_parent, "initargs": (os.getpid(),)}
    from joblib.externals.loky.process_executor import BrokenProcessPool

    parallel = Parallel(n_jobs=workers, return_as="generator_unordered", **options)
    try:
        yield from parallel(delayed(extract_part)(i, items, how) for i, items in parts.items())
    except BrokenProcessPool as e:
        what = "the system ended a process that reads clips, perhaps as memory was short"
        raise MachineError(f"{what}; give fewer --workers") from e


def extract_part(
    i: int, items: Sequence[Item], how: ExtractionSettings
) -> tuple[int, dict[str, np.ndarray]]:
    """The arrays of part `i`: a worker's task, on any machine.

    NumPy's matrix products differ in their last bits with the number of threads, so one thread is
    used everywhere.
    """
    features.load_tools(items)
    with _blas_controller().limit(limits=1, user_api="blas"):
        return i, _to_arrays([features.extract_clip(item, how) for item in items])


@functools.cache
def _blas_controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def exit_with_parent(parent: int) -> None:
    """End this process soon after the process `parent`, killed or not, ends or has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)  # from a thread, as the worker may wait for a pipe that nobody reads any more

    threading.Thread(target=watch, daemon=True).start()


def sample_media(items: Sequence[Item], most: int = 8) -> dict[str, int]:
    """Path -> bytes of some media files of a corpus, which another machine must find too."""
    entries = [e for e in items if isinstance(e, ClipEntry)]
    references = [r for e in entries for r in (e.video, e.audio) if r]
    paths = [media_files.split_reference(r)[0] for r in references]
    few = list(dict.fromkeys(paths[:: max(1, len(paths) // most)]))[:most]
    return {path: os.stat(path).st_size for path in few}
