"""§4.1: clips -> one file of arrays per corpus, resumable at any moment. No torch.

Parts of the work lie in `data/processed/.parts/<key>/` until the finished file is renamed into its
place; the same call continues killed work. The key is a hash of everything that decides the arrays,
and the file's bytes follow from it alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.config.settings import LogMel
from core.data import extraction, features, prepared_corpora
from core.data.corpora import KNOWN_CORPORA, ClipEntry, CorpusError
from core.data.extraction import Item, PartResults, ProgressCallback
from core.data.features import ClipFeatures, ExtractionSettings, MachineError
from core.data.prepared_corpora import STORED_COLUMNS
from core.data.sources import indexing, media_files
from core.media import spectrograms

CODE_VERSION = 2  # raised whenever the same clips would give other arrays
MAX_PARTS_AGE = 7 * 86400.0  # seconds after which unfinished parts of other settings are removed
MAX_HASH_DISTANCE = 3  # number of bits, of 64, by which the hashes of near duplicates may differ
MAX_COUNT = 100  # takes, frames and crops at most
HASH_BLOCK = 512  # rows of hashes that are compared at once, to bound the memory


@dataclass(frozen=True)
class PreparationSettings:
    """Settings that choose a corpus' clips, and how much of each clip is kept."""

    takes: int = 10  # of the demo corpus, per actor and emotion
    frames: int = 1  # faces of a clip; above 1 the file has `faces_more`
    crops: int = 1  # windows of a voice; above 1 the file has `voices_more`
    song: bool = False  # RAVDESS' songs too


DEFAULT_SETTINGS = PreparationSettings()


def prepare_corpus(
    name: str,
    source: Path | None,
    settings: PreparationSettings = DEFAULT_SETTINGS,
    workers: int = 0,
    tick: ProgressCallback | None = None,
    engine: Callable[..., PartResults] | None = None,
    should_stop: Callable[[], bool] | None = None,
    again: bool = False,
    warn: Callable[[str], None] | None = None,
) -> Path:
    """Prepare a corpus and return its npz; nothing is done if it is there with the same content.

    `source` is the corpus' folder, zip or table; the demo corpus needs none. A name that ends in a
    number of mel bands (`ravdess-64`) means the same clips in so many bands. `workers` processes
    (0: one per core) read clips, unless an `engine` such as `ray_cluster.connection.run_tasks` is
    given. Clips without a usable face or voice are left out and listed in `meta["left_out"]`; those
    whose reason may change are tried again by the next call. `again` reads all clips anew. `warn`
    is called with a sentence before another content of that name is replaced.

    Raises CorpusError when nothing is left, or a machine cannot do its part; MachineError where a
    fault of the machine, not of a clip, keeps clips from being read; BusyError while another
    process prepares this corpus; StopRequested soon after `should_stop()`. The same call continues.
    """
    _check_request(name, settings, workers)
    clips, bands = prepared_corpora.parse_name(name)
    target, drawn = prepared_corpora.corpus_path(name, settings.takes), clips == "demo"
    how = ExtractionSettings(settings.frames, settings.crops, bands, clips == "fer2013")
    items, passed_over = index_source(clips, source, settings)
    _check_bands(clips, source, items, bands)
    key = content_key(name, source, items, how)
    parts = target.parent / ".parts" / key
    if not again and _is_finished(target, key, drawn):
        shutil.rmtree(parts, ignore_errors=True)  # of a process killed between its last two steps
        _write_source_record(target, source, items, passed_over)
        return target
    # Trainings started together want the same demo corpus and wait for it. Another corpus is not
    # prepared twice by intent, so that the second process is refused.
    lock = parts.with_name(f"{target.stem}.lock")
    with files.file_lock(lock, f"preparing {name}", wait=drawn):
        if not again and _is_finished(target, key, drawn):
            return target
        if again:
            shutil.rmtree(parts, ignore_errors=True)
        if warn and (other := _other_content(target, source, key)):
            warn(other)
        _remove_leftovers(target, parts)
        if not drawn and any(e.video for e in items):
            from core.media.faces import landmarker

            landmarker.model_path()  # once, before many processes want it
        work = extraction.choose_engine(engine, items, workers, drawn)
        results = extraction.extract_corpus(items, how, parts, work, tick, should_stop)
        with _named_write_faults(target):
            # Before the file itself: after a kill between the two, the next call comes here again.
            _write_source_record(target, source, items, passed_over)
            _write_corpus(target, name, source, items, results, how, key)
        if not any(clip.may_change for clip in results):
            shutil.rmtree(parts, ignore_errors=True)
    return target


def _check_bands(clips: str, source: Path | None, items: Sequence[Item], bands: int) -> None:
    media = [e for e in items if isinstance(e, ClipEntry)]
    if media and bands != LogMel().bands and not any(e.audio for e in media):
        what = f"{clips} has no sound at {source}, so it has no mel bands"
        raise CorpusError(f"{what}; its faces are the same in the corpus {clips}")


@contextlib.contextmanager
def _named_write_faults(target: Path) -> Iterator[None]:
    """Raise MachineError, with the fix, where a finished corpus cannot be written."""
    try:
        yield
    except OSError as e:
        file = e.filename2 or e.filename or target
        what = f"{file} cannot be written ({e.strerror or e}); all clips are done and kept"
        fix = files.DISK_FIXES.get(e.errno or 0, "once that is mended, the same command goes on")
        raise MachineError(f"{what}: {fix}") from e


def list_items(clips: str, source: Path | None, settings: PreparationSettings) -> Sequence[Item]:
    """The clips of a corpus."""
    return index_source(clips, source, settings)[0]


def index_source(
    clips: str, source: Path | None, settings: PreparationSettings
) -> tuple[Sequence[Item], dict[str, str]]:
    """The clips of a corpus, and the files that are passed over: path -> why."""
    if clips == "demo":
        from core.data.demo import actors

        return actors.list_takes(settings.takes), {}
    if source is None:
        raise CorpusError(f"say where {clips} is: --source FOLDER_OR_ZIP")
    media_files.check_source(source, f"give the folder, zip or table of {clips} with --source")
    # absolute, as a worker may have another working directory
    index = indexing.index_corpus(clips, source.resolve(), settings.song)
    return index.entries, index.passed_over


def _check_request(name: str, settings: PreparationSettings, workers: int) -> None:
    prepared_corpora.check_name(name)
    for what in ("takes", "frames", "crops"):
        if not 1 <= (n := getattr(settings, what)) <= MAX_COUNT:
            raise CorpusError(f"{what} are 1 to {MAX_COUNT}; got {n}")
    if workers < 0:
        raise CorpusError(f"workers are at least 0, which is one per core; got {workers}")


def _is_finished(target: Path, key: str, drawn: bool) -> bool:
    """Whether a file holds the content of that key, and no clip is to be read again.

    Clips are read again where their reason may have changed, or other readers read them.
    """
    meta = _read_meta(target)
    is_current = drawn or meta.get("readers") == features.READERS_VERSION
    return meta.get("key") == key and is_current and not meta.get("may_change")


def _other_content(target: Path, source: Path | None, key: str) -> str:
    """A sentence about the content of a file that is about to be replaced, "" if there is none."""
    meta = _read_meta(target)
    if not meta or meta.get("key") == key or source is None:
        return ""
    record = prepared_corpora.read_source_record(target)
    origin, count = record.get("source", "an unknown source"), len(record.get("clips", ()))
    before = f"{target} holds {count:,} clips of {origin}"
    if origin == (place := _place(source)):
        return f"{before}, which has changed or is prepared otherwise: the file will be replaced"
    return f"{before}, and {place} replaces it; to keep both, give another name"


def _place(source: Path) -> str:
    """The path of a source, the same in every locale."""
    return media_files.decoded(str(source.resolve()))


# ------------------------------------------------------------------ the key


def content_key(
    name: str, source: Path | None, items: Sequence[Item], how: ExtractionSettings
) -> str:
    """Hash of everything that decides a prepared file's content; moving a whole corpus keeps it."""
    sound = dataclasses.replace(LogMel(), bands=how.bands, columns=STORED_COLUMNS, range_db=0.0)
    counts = {"frames": how.frames, "crops": how.crops}
    what: list[Any] = [CODE_VERSION, dataclasses.asdict(sound), counts, name]
    if source is None or prepared_corpora.is_demo(name):
        from core.data import demo

        code = sorted(Path(demo.__path__[0]).glob("*.py"))
        return files.cache_key(*what, len(items), *map(files.digest, code))
    root = source.resolve()
    root = root if root.is_dir() else root.parent
    archives: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for e in items:
        media = {kind: getattr(e, kind) for kind in ("video", "audio") if getattr(e, kind)}
        media = {kind: _file_identity(r, root, archives) for kind, r in media.items()}
        what.append(dataclasses.asdict(e) | media)
    if any(e.video for e in items):
        from core.media.faces import alignment, detection, landmarker

        what += [landmarker.MODEL_SHA256, alignment.ALIGNED_SIZE, detection.MIN_FACE_SCORE]
        what += [alignment.CANONICAL_POINTS.tolist(), features.MAX_CROP_SIDE, features.CROP_SIZE]
        what += [features.MAX_SEARCHED_FRAMES]
    return files.cache_key(*what)


def _file_identity(
    reference: str, root: Path, archives: dict[str, dict[str, zipfile.ZipInfo]]
) -> list:
    """Identity of a file that is not read: its place, its size, and its time (in a zip its CRC)."""
    archive, member = media_files.split_reference(reference)
    if member:
        if archive not in archives:
            with zipfile.ZipFile(archive) as z:
                archives[archive] = {i.filename: i for i in z.infolist()}
        info = archives[archive][member]
        return [member, info.file_size, info.CRC]
    stat = os.stat(archive)
    return [media_files.decoded(os.path.relpath(archive, root)), stat.st_size, stat.st_mtime_ns]


def _read_meta(path: Path) -> dict[str, Any]:
    """The facts in a finished file, {} where there is none or it is damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(json.loads(str(arrays["meta"])))
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        return {}


def _remove_leftovers(target: Path, parts: Path) -> None:
    """Remove half-written files of killed processes, and old parts of other settings."""
    for pattern in (f".{target.name}.*.tmp", f".{target.stem}.source.json.*.tmp"):
        for aside in target.parent.glob(pattern):
            aside.unlink(missing_ok=True)
    for aside in parts.glob(".*.tmp"):
        aside.unlink(missing_ok=True)
    for other in parts.parent.iterdir():
        age = time.time() - other.stat().st_mtime
        if other.is_dir() and other != parts and age > MAX_PARTS_AGE:
            shutil.rmtree(other, ignore_errors=True)


# ------------------------------------------------------------------ the file


def _write_corpus(
    target: Path,
    name: str,
    source: Path | None,
    items: Sequence[Item],
    results: list[ClipFeatures],
    how: ExtractionSettings,
    key: str,
) -> None:
    """Write all clips' arrays as one file."""
    clips = list(zip(map(_to_entry, items), results, strict=True))
    usable = [(e, clip) for e, clip in clips if not clip.reason]
    if not usable:
        reason = next((clip.reason for _, clip in clips), "none")
        raise CorpusError(f"no clip of {source} could be used; the first reason: {reason}")
    entries = [e for e, _ in usable]

    # Faces and voices, and which clips have them
    images, median_aligned = features.align_with_fallback(usable, how)
    voices = [clip.y for _, clip in usable]
    has_x, has_y = (np.array([a is not None for a in part]) for part in (images, voices))
    x = _stack(images, np.zeros((0, how.frames, 28, 28), np.uint8))
    y = _stack(voices, np.zeros((0, how.crops, STORED_COLUMNS, how.bands), np.float32))
    first, more = y[:, 0], {"faces_more": x[:, 1:]} if how.frames > 1 else {}
    more |= {"voices_more": y[:, 1:]} if how.crops > 1 else {}

    # Subjects; images of unknown subjects form groups of near duplicates
    face_of, voice_of = (np.where(has, np.cumsum(has) - 1, -1) for has in (has_x, has_y))
    subjects = _subjects(entries, has_x, face_of, x[:, 0])

    # The digest of everything that results depend on
    votes = np.array([e.votes for e in entries])
    ids = np.array([f"{e.clip}|{s}|{e.emotion}" for e, s in zip(entries, subjects, strict=True)])
    rated = [votes] if (votes != "").any() else []
    digest = _digest_arrays((x[:, 0], first, ids, *rated, *more.values()))

    repeats = [clip.repeats for _, clip in usable]
    meta = {
        **{"name": name, "key": key, "digest": digest},
        **_levels_and_terms(name, first, how),
        **{"frames": how.frames, "crops": how.crops},
        "repeated": {k: sum(r[i] for r in repeats) for i, k in enumerate(("frames", "crops"))},
        **_remarks(clips, median_aligned),
        **({"bands": how.bands} if how.bands != LogMel().bands else {}),
    }
    files.write_arrays(
        target,
        clip=np.array([e.clip for e in entries]),
        subject=subjects.astype(str),
        sex=np.array([e.sex for e in entries]),
        emotion=np.array([e.emotion for e in entries]),
        face_of=face_of,
        voice_of=voice_of,
        faces=x[:, 0],
        voices=first.astype(np.float32),
        votes=votes,
        meta=np.array(json.dumps(meta)),
        **more,
    )


def _remarks(
    clips: list[tuple[ClipEntry, ClipFeatures]], median_aligned: dict[str, str]
) -> dict[str, Any]:
    """What is left out and why, remarks on what is taken, and what is to be tried again."""
    left_out = {e.clip: clip.reason for e, clip in clips if clip.reason}
    return {
        "left_out": left_out | median_aligned,
        "notes": {e.clip: clip.note for e, clip in clips if clip.note},
        "may_change": [e.clip for e, clip in clips if clip.may_change],
        "readers": features.READERS_VERSION,
    }


def _subjects(
    entries: list[ClipEntry], has_x: np.ndarray, face_of: np.ndarray, x: np.ndarray
) -> np.ndarray:
    subjects = np.array([e.subject for e in entries])
    unknown = has_x & (subjects == "")
    if unknown.any():
        subjects = subjects.astype(object)
        subjects[unknown] = near_duplicate_groups(x[face_of[unknown]])
    return subjects


def _digest_arrays(arrays: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for a in arrays:
        digest.update(np.ascontiguousarray(a).tobytes())
    return digest.hexdigest()[:16]


def _stack(arrays: list[np.ndarray | None], empty: np.ndarray) -> np.ndarray:
    present = [a for a in arrays if a is not None]
    return np.stack(present) if present else empty


def _levels_and_terms(name: str, y: np.ndarray, how: ExtractionSettings) -> dict[str, Any]:
    """dB reference, median level (dB), title, licence and source of a corpus."""
    clips = prepared_corpora.parse_name(name)[0]
    known = KNOWN_CORPORA.get(clips)
    bands = f", {how.bands} mel bands" if how.bands != LogMel().bands else ""
    reference = float(np.percentile(y, 99.9)) if len(y) else 0.0
    return {
        "ref_db": known.ref_db if known else reference,
        "level": float(np.median(spectrograms.level_db(y))) if len(y) else 0.0,
        "title": (known.title if known else clips) + bands,
        "licence": known.licence if known else "the owner's",
        "source": known.source if known else "own data",
    }


def _write_source_record(
    target: Path, source: Path | None, items: Sequence[Item], passed_over: dict[str, str]
) -> None:
    """Write where the clips' media lie, so that pages can show them: `<name>.source.json`."""
    if source is None or not all(isinstance(e, ClipEntry) for e in items):
        return
    fields = ("video", "audio", "intensity", "statement")
    clips = {e.clip: {k: value for k in fields if (value := getattr(e, k))} for e in items}
    record = {"source": _place(source), "clips": clips, "passed_over": passed_over}
    side, text = prepared_corpora.source_record_path(target), json.dumps(record)
    if not side.exists() or side.read_bytes() != text.encode():
        files.write_atomic(side, text)


def _to_entry(item: Item) -> ClipEntry:
    if isinstance(item, ClipEntry):
        return item
    return ClipEntry(item.clip_id, f"demo-{item.actor:02d}", item.sex, item.emotion)


def near_duplicate_groups(x: np.ndarray) -> list[str]:
    """Group ids of images (n, 28, 28), by a 64-bit difference hash.

    Without subject ids, near duplicates must stay together in S1-S4.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    small = x[:, :24, :27].reshape(len(x), 8, 3, 9, 3).mean(axis=(2, 4))
    signs = (small[:, :, 1:] > small[:, :, :-1]).reshape(len(x), 64)
    hashes = np.packbits(signs, axis=1).view(np.uint64)[:, 0]
    rows, columns = [], []
    for i in range(0, len(x), HASH_BLOCK):
        distance = np.bitwise_count(hashes[i : i + HASH_BLOCK, None] ^ hashes[None, :])
        r, c = np.nonzero(distance <= MAX_HASH_DISTANCE)
        rows.append(r + i)
        columns.append(c)
    edges = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(len(edges[0]), bool), edges), shape=(len(x), len(x)))
    return [f"image-{g:05d}" for g in connected_components(graph, directed=False)[1]]
