"""§4.1: clips -> one file of arrays per corpus (see `datasets`), in parallel, on one machine or many, resumable at any moment. No torch.

The clips are cut into parts. What comes of a part lies in `data/processed/.parts/<key>/` from the moment it is done, and the finished
file is renamed into its place, so whoever is killed goes on where he was. The key is a hash of all that decides the arrays, and the file's
bytes follow from them alone: not from the order of the work, the number of workers, the engine or an interruption.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.config import LogMel
from core.data import corpora, features, splits
from core.data.corpora import ClipEntry, CorpusError
from core.data.features import ClipFeatures, ExtractionSettings
from core.data.sources import indexing, media_files
from core.data.splits import STORED_COLUMNS
from core.media import spectrograms, waveforms

CODE_VERSION = 2  # raised whenever the same clips would give other arrays
TARGET_PARTS, MAX_CLIPS_PER_PART = (
    200,
    50,
)  # a corpus has this many parts, of at most so many clips each
MIN_PARALLEL_CLIPS = 24  # clips below which further processes take longer to start than they save
MAX_PARTS_AGE = 7 * 86400.0  # seconds after which parts that nobody has come back for are removed

ProgressCallback = Callable[[int, int], None]  # (clips done, clips in all)
Item = Any  # a corpora.Entry, or a demo.Take


def prepare_corpus(
    name: str,
    source: Path | None,
    workers: int = 0,
    tick: ProgressCallback | None = None,
    takes: int = 10,
    frames: int = 1,
    crops: int = 1,
    song: bool = False,
    engine: Callable[..., PartResults] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Clips of a corpus -> its npz; returns the path at once when the same media were prepared with the same settings before.

    `source` is the corpus' folder, zip or table; the demo corpus needs none. A name that ends in a number of mel bands (`ravdess-64`) means
    the same clips in so many. `workers` processes (0: one for each core) read clips, unless an `engine`
    such as `experiments.ray_cluster.work` is given to do it elsewhere. With `frames` or `crops` above 1 the file has `faces_more` and `voices_more` too. Clips without a usable
    face or voice are left out and listed in `meta["left_out"]`.

    Raises CorpusError when nothing is left, or a machine cannot do its part; runs.Busy while another process prepares this corpus;
    runs.Stopped soon after `should_stop()`. However it ends, the same call continues.
    """
    if frames < 1 or crops < 1:
        raise CorpusError(f"frames and crops are at least 1; got {frames} and {crops}")
    clips, bands = splits.parse_name(name)
    target, how, items = (
        splits.corpus_path(name, takes),
        ExtractionSettings(frames, crops, bands),
        _list_items(clips, source, takes, song),
    )
    drawn = clips == "demo"
    if not drawn and bands != LogMel().bands and not any(e.audio for e in items):
        raise CorpusError(
            f"{clips} has no sound at {source}, so it has no mel bands; its faces are the same in the corpus {clips}"
        )
    key = _content_key(name, source, items, how)
    parts = target.parent / ".parts" / key
    if _read_key(target) == key:
        shutil.rmtree(parts, ignore_errors=True)  # of one killed between its last two steps
        _write_source_record(target, source, items)
        return target
    # Trainings started together want the same demo corpus: they wait for it. Whoever starts another corpus twice should be told.
    with files.file_lock(parts.with_name(f"{target.stem}.lock"), f"preparing {name}", wait=drawn):
        if _read_key(target) == key:
            return target
        _remove_leftovers(target, parts)
        if not drawn and any(e.video for e in items):
            from core.media.faces import landmarker

            landmarker.model_path()  # once, before many processes want it
        done = extract_parts(
            items, how, parts, _make_engine(engine, items, workers, name), tick, should_stop
        )
        _write_source_record(
            target, source, items
        )  # before the file itself: whoever is killed here comes back to `_sweep`
        _write_corpus(target, name, source, items, done, how, key)
        shutil.rmtree(parts, ignore_errors=True)
    return target


def _list_items(clips: str, source: Path | None, takes: int, song: bool) -> Sequence[Item]:
    if clips == "demo":
        from core.data.demo import actors

        return actors.list_takes(takes)
    if source is None:
        raise CorpusError(f"say where {clips} is: --source FOLDER_OR_ZIP")
    return indexing.index_clips(
        clips, source.resolve(), song
    )  # absolute: a worker may stand in another folder


# ------------------------------------------------------------------ the key


def _content_key(
    name: str, source: Path | None, items: Sequence[Item], how: ExtractionSettings
) -> str:
    """Hash of everything that decides a prepared file's content; a corpus that was moved as a whole keeps it."""
    sound = dataclasses.replace(LogMel(), bands=how.bands, columns=STORED_COLUMNS, range_db=0.0)
    what: list[Any] = [
        CODE_VERSION,
        dataclasses.asdict(sound),
        {"frames": how.frames, "crops": how.crops},
        name,
    ]
    if source is None or splits.is_demo(name):
        from core.data.demo import actors, rendering

        what += [len(items), *(files.digest(Path(str(m.__file__))) for m in (actors, rendering))]
    else:
        root = source.resolve()
        root = root if root.is_dir() else root.parent
        archives: dict[str, dict[str, zipfile.ZipInfo]] = {}
        for e in items:
            media = {
                kind: _file_identity(reference, root, archives)
                for kind in ("video", "audio")
                if (reference := getattr(e, kind))
            }
            what.append(dataclasses.asdict(e) | media)
        if any(e.video for e in items):
            from core.media.faces import alignment, detection, landmarker

            what += [
                landmarker.MODEL_SHA256,
                alignment.ALIGNED_SIZE,
                detection.MIN_FACE_SCORE,
                alignment.CANONICAL_POINTS.tolist(),
            ]
            what += [features.MAX_CROP_SIDE, features.CROP_SIZE, features.MAX_SEARCHED_FRAMES]
    return files.cache_key(*what)


def _file_identity(
    reference: str, root: Path, archives: dict[str, dict[str, zipfile.ZipInfo]]
) -> list:
    """What tells, without reading it, that a file is still the same: its place in the corpus, its size, and its time or, in a zip, sum."""
    archive, member = media_files.split_reference(reference)
    if member:
        if archive not in archives:
            with zipfile.ZipFile(archive) as z:
                archives[archive] = {i.filename: i for i in z.infolist()}
        info = archives[archive][member]
        return [member, info.file_size, info.CRC]
    stat = os.stat(archive)
    return [os.path.relpath(archive, root), stat.st_size, stat.st_mtime_ns]


def _read_key(path: Path) -> str | None:
    """The key that a finished file was made with, None where there is none or it is damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return json.loads(str(arrays["meta"]))["key"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _remove_leftovers(target: Path, parts: Path) -> None:
    """Before work begins: what killed processes left half written, and parts of other settings that nobody has come back for."""
    halves = (f".{target.name}.*.tmp", f".{target.stem}.source.json.*.tmp")
    for aside in (*(p for half in halves for p in target.parent.glob(half)), *parts.glob(".*.tmp")):
        aside.unlink(missing_ok=True)
    for other in parts.parent.iterdir():
        if (
            other.is_dir()
            and other != parts
            and time.time() - other.stat().st_mtime > MAX_PARTS_AGE
        ):
            shutil.rmtree(other, ignore_errors=True)


# ------------------------------------------------------------------ parts, and who does them

PartResults = Generator[tuple[int, dict[str, np.ndarray]], None, None]
ExtractionEngine = Callable[[dict[int, Sequence[Item]], ExtractionSettings], PartResults]


def extract_parts(
    items: Sequence[Item],
    how: ExtractionSettings,
    folder: Path,
    engine: ExtractionEngine,
    tick: ProgressCallback | None,
    should_stop: Callable[[], bool] | None,
) -> list[ClipFeatures]:
    """What has come of every clip, in order; parts that lie in `folder` are not done again."""
    size = min(MAX_CLIPS_PER_PART, -(-len(items) // TARGET_PARTS))
    every = {i: items[i * size : (i + 1) * size] for i in range(-(-len(items) // size))}
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[int, list[ClipFeatures]] = {}
    for i in every:
        with contextlib.suppress(
            OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile
        ):  # not there, or damaged: done again
            made[i] = _from_arrays(files.read_arrays(folder / f"{i:04d}.npz"))
    done = sum(len(ones) for ones in made.values())
    if tick:
        tick(done, len(items))
    with contextlib.closing(
        engine({i: part for i, part in every.items() if i not in made}, how)
    ) as results:
        for i, arrays in results:
            files.write_arrays(folder / f"{i:04d}.npz", **arrays)
            made[i] = _from_arrays(arrays)
            done += len(every[i])
            if tick:
                tick(done, len(items))
            if should_stop and should_stop() and len(made) < len(every):
                raise files.StopRequested("stopped; the same call continues")
    return [one for i in every for one in made[i]]


def _to_arrays(ones: list[ClipFeatures]) -> dict[str, np.ndarray]:
    arrays = {
        "reason": np.array([one.reason for one in ones]),
        "repeats": np.array([one.repeats for one in ones]),
    }
    for name in ("x", "y", "five", "crop"):
        given = [getattr(one, name) for one in ones]
        arrays[f"{name}_at"] = np.array([i for i, a in enumerate(given) if a is not None], np.int64)
        if len(arrays[f"{name}_at"]):
            arrays[name] = np.stack([a for a in given if a is not None])
    return arrays


def _from_arrays(arrays: dict[str, np.ndarray]) -> list[ClipFeatures]:
    said = zip(arrays["reason"].tolist(), arrays["repeats"].tolist(), strict=True)
    fields: list[dict] = [{"reason": reason, "repeats": tuple(repeats)} for reason, repeats in said]
    for name in ("x", "y", "five", "crop"):
        for k, i in enumerate(arrays[f"{name}_at"]):
            fields[i][name] = arrays[name][k]
    return [ClipFeatures(**f) for f in fields]


def _make_engine(
    engine: Callable[..., PartResults] | None, items: Sequence[Item], workers: int, name: str
) -> ExtractionEngine:
    if engine:
        return functools.partial(engine, do=_extract_part, media=_sample_media(items))
    # The demo corpus is drawn by this process: NumPy on small arrays gains nothing from threads, and a page's server starts no processes.
    return functools.partial(
        _extract_locally,
        workers=1
        if splits.is_demo(name) or len(items) < MIN_PARALLEL_CLIPS
        else workers or os.cpu_count() or 1,
    )


def _extract_locally(
    parts: dict[int, Sequence[Item]], how: ExtractionSettings, workers: int
) -> PartResults:
    """Processes, not threads: pictures pass through Python often enough that two threads hardly outrun one (`make bench ARGS=prepare`)."""
    from joblib import Parallel, delayed

    workers = min(workers, max(1, len(parts)))
    apart: dict[str, Any] = (
        {"backend": "loky", "initializer": _exit_with_parent, "initargs": (os.getpid(),)}
        if workers > 1
        else {}
    )
    parallel = Parallel(n_jobs=workers, return_as="generator_unordered", **apart)
    yield from parallel(delayed(_extract_part)(i, items, how) for i, items in parts.items())


def _extract_part(
    i: int, items: Sequence[Item], how: ExtractionSettings
) -> tuple[int, dict[str, np.ndarray]]:
    """One part: what a worker does, wherever it is."""
    with _blas_controller().limit(limits=1, user_api="blas"):
        return i, _to_arrays([features.extract_clip(item, how) for item in items])


@functools.cache
def _blas_controller() -> Any:
    """NumPy's matrix products differ in their last bits with the number of threads, and the arrays must not: one, everywhere."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _exit_with_parent(starter: int) -> None:
    """Ends this worker soon after the process that started it, also where that was killed and could not say so, be it by now."""

    def watch() -> None:
        while os.getppid() == starter:
            time.sleep(0.5)
        os._exit(1)  # from a thread, as the worker may wait for a pipe that nobody reads any more

    threading.Thread(target=watch, daemon=True).start()


def _sample_media(items: Sequence[Item], most: int = 8) -> dict[str, int]:
    """Some media files of a corpus with their sizes: what another machine must find under the same names."""
    files = [
        media_files.split_reference(reference)[0]
        for e in items
        if isinstance(e, ClipEntry)
        for reference in (e.video, e.audio)
        if reference
    ]
    few = list(dict.fromkeys(files[:: max(1, len(files) // most)]))[:most]
    return {f: os.stat(f).st_size for f in few}


# ------------------------------------------------------------------ the file


def _write_corpus(
    target: Path,
    name: str,
    source: Path | None,
    items: Sequence[Item],
    done: list[ClipFeatures],
    how: ExtractionSettings,
    key: str,
) -> None:
    """All clips' arrays as one file."""
    left_out = {
        _clip_name(item): one.reason for item, one in zip(items, done, strict=True) if one.reason
    }
    kept = [(_to_entry(item), one) for item, one in zip(items, done, strict=True) if not one.reason]
    if not kept:
        raise CorpusError(
            f"no clip of {source} could be used; the first reason: {next(iter(left_out.values()), 'none')}"
        )
    entries = [e for e, _ in kept]
    faces_, more_left_out = _align_with_fallback(kept, how)
    left_out |= more_left_out
    x = (
        np.stack(f)
        if (f := [a for a in faces_ if a is not None])
        else np.zeros((0, how.frames, 28, 28), np.uint8)
    )
    voices = [one.y for _, one in kept]
    y = (
        np.stack(v)
        if (v := [a for a in voices if a is not None])
        else np.zeros((0, how.crops, STORED_COLUMNS, how.bands), np.float32)
    )
    has_x, has_y = (np.array([a is not None for a in part]) for part in (faces_, voices))
    subjects = np.array([e.subject for e in entries])
    unknown = has_x & (subjects == "")
    if unknown.any():
        groups = _near_duplicate_groups(x[(np.cumsum(has_x) - 1)[unknown], 0])
        subjects = subjects.astype(object)
        subjects[unknown] = groups
    votes = np.array([getattr(e, "votes", ("", "", "")) for e in entries])
    more = {"faces_more": x[:, 1:]} if how.frames > 1 else {}
    more |= {"voices_more": y[:, 1:]} if how.crops > 1 else {}
    digest = hashlib.sha256()
    ids = np.array([f"{e.clip}|{s}|{e.emotion}" for e, s in zip(entries, subjects, strict=True)])
    for part in (x[:, 0], y[:, 0], ids, *([votes] if (votes != "").any() else []), *more.values()):
        digest.update(np.ascontiguousarray(part).tobytes())
    clips, finer = splits.parse_name(name)[0], how.bands != LogMel().bands
    ref = corpora.KNOWN_CORPORA.get(clips)
    first = y[:, 0]
    meta = {
        "name": name,
        "key": key,
        "digest": digest.hexdigest()[:16],
        "ref_db": ref.ref_db if ref else (float(np.percentile(first, 99.9)) if len(y) else 0.0),
        "level": float(np.median(spectrograms.level_db(first))) if len(y) else 0.0,
        "title": (ref.title if ref else clips) + f", {how.bands} mel bands" * finer,
        "licence": ref.licence if ref else "the owner's",
        "source": ref.source if ref else "own data",
        "frames": how.frames,
        "crops": how.crops,
        "repeated": {
            k: sum(one.repeats[i] for _, one in kept) for i, k in enumerate(("frames", "crops"))
        },
        "left_out": left_out,
    } | ({"bands": how.bands} if finer else {})
    files.write_arrays(
        target,
        clip=np.array([e.clip for e in entries]),
        subject=subjects.astype(str),
        sex=np.array([e.sex for e in entries]),
        emotion=np.array([e.emotion for e in entries]),
        face_of=np.where(has_x, np.cumsum(has_x) - 1, -1),
        voice_of=np.where(has_y, np.cumsum(has_y) - 1, -1),
        faces=x[:, 0],
        voices=first.astype(np.float32),
        votes=votes,
        meta=np.array(json.dumps(meta)),
        **more,
    )


def _write_source_record(target: Path, source: Path | None, items: Sequence[Item]) -> None:
    """Beside the file, in `<name>.source.json`, where its clips' media lie, for people who want to see them; it follows a moved corpus."""
    if source is None or not all(isinstance(e, ClipEntry) for e in items):
        return
    fields = ("video", "audio", "intensity", "statement")
    clips = {e.clip: {k: value for k in fields if (value := getattr(e, k))} for e in items}
    text = json.dumps({"source": str(source.resolve()), "clips": clips})
    side = target.with_suffix(".source.json")
    if not side.exists() or side.read_text() != text:
        files.write_atomic(side, text)


def _clip_name(item: Item) -> str:
    return item.clip if isinstance(item, ClipEntry) else item.clip_id


def _to_entry(item: Item) -> ClipEntry:
    return (
        item
        if isinstance(item, ClipEntry)
        else ClipEntry(item.clip_id, f"demo-{item.actor:02d}", item.sex, item.emotion)
    )


def _align_with_fallback(
    kept: list[tuple[ClipEntry, ClipFeatures]], how: ExtractionSettings
) -> tuple[list[np.ndarray | None], dict[str, str]]:
    """Faces of all clips: crops without landmarks are aligned by the median of the others', as `faces.align_crops` does; their number."""
    crops = [(e, one) for e, one in kept if one.five is not None]
    if not crops:
        return [one.x for _, one in kept], {}
    from core.media.faces import alignment

    points = np.stack([one.five for _, one in crops])  # type: ignore[misc]
    found = np.isfinite(points).all((1, 2))
    median = (
        np.median(points[found], axis=0)
        if found.any()
        else alignment.CANONICAL_POINTS * features.CROP_SIZE
    )
    x = [
        one.x if one.crop is None else np.stack([alignment.align(one.crop, median)] * how.frames)
        for _, one in kept
    ]
    emotions = np.array([e.emotion for e, _ in crops])
    missed = {
        str(k): (int((~found[emotions == k]).sum()), int((emotions == k).sum()))
        for k in np.unique(emotions)
    }
    said = {
        f"landmarks/{k}": f"{n} of {of} aligned by the median transform, no landmarks found"
        for k, (n, of) in missed.items()
        if n
    }
    return x, said


def _near_duplicate_groups(x: np.ndarray, bits: int = 3) -> list[str]:
    """Group ids for images whose 64-bit difference hash is within `bits`: without subject ids, near duplicates must stay together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    small = x[:, :24, :27].reshape(len(x), 8, 3, 9, 3).mean(axis=(2, 4))
    signs = (small[:, :, 1:] > small[:, :, :-1]).reshape(len(x), 64)
    hashes = np.packbits(signs, axis=1).view(np.uint64)[:, 0]
    rows, columns = [], []
    for i in range(0, len(x), 512):
        near = np.bitwise_count(hashes[i : i + 512, None] ^ hashes[None, :]) <= bits
        r, c = np.nonzero(near)
        rows.append(r + i)
        columns.append(c)
    r, c = np.concatenate(rows), np.concatenate(columns)
    group = connected_components(
        coo_array((np.ones(len(r), bool), (r, c)), shape=(len(x), len(x))), directed=False
    )[1]
    return [f"image-{g:05d}" for g in group]


# ------------------------------------------------------------------ media to try things on


def draw_demo_clips(folder: Path, count: int, tick: ProgressCallback | None = None) -> list[Path]:
    """Write `count` clips of the invented corpus, spread over actors and emotions, as mp4 and wav: media like anybody's."""
    from core.data.demo import actors
    from core.media import clips

    folder.mkdir(parents=True, exist_ok=True)
    every = actors.list_takes()
    chosen = [
        every[(i * 67) % len(every)] for i in range(min(count, len(every)))
    ]  # 67 shares no factor with 24 x 6 x 10
    for i, take in enumerate(chosen):
        frames, wave = actors.render_clip(take)
        clips.write_clip(folder / f"{take.clip_id}.mp4", frames, 25, wave)
        files.write_atomic(
            folder / f"{take.clip_id}.wav",
            waveforms.wav_bytes(wave, LogMel().rate, "invented", fade=0.0),
        )
        if tick:
            tick(i + 1, len(chosen))
    return [folder / f"{take.clip_id}.mp4" for take in chosen]
