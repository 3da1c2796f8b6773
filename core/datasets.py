"""§4.1: clips -> arrays on disk; balance; the subject-disjoint sets S1-S4; pairing by clip or by emotion. No torch.

A prepared corpus is one npz without pickle, `data/processed/<name>.npz`. Faces are uint8 (28, 28); voices are float32 dB of the
middle 112 columns, so that every size, range and reference can be taken from the same file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core import corpora, runs, spectrograms
from core.config import Config, Data, LogMel
from core.corpora import CorpusError, Entry

COLUMNS = 112  # stored; smaller spectrograms are its middle
SETS = ("S1", "S2", "S3", "S4")
Tick = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Prepared:
    """A corpus as arrays, one row per clip; `face_of` and `voice_of` are rows of `faces` and `voices`, -1 where a clip has none."""

    name: str
    clip: np.ndarray  # (N,) str
    subject: np.ndarray  # (N,) str
    sex: np.ndarray  # (N,) str
    emotion: np.ndarray  # (N,) str
    face_of: np.ndarray  # (N,) int64
    voice_of: np.ndarray  # (N,) int64
    faces: np.ndarray  # (n_x, 28, 28) uint8
    voices: np.ndarray  # (n_y, 112, bands) float32 dB
    meta: dict  # ref_db, level, key, licence, source, left_out

    @property
    def digest(self) -> str:
        return self.meta["digest"]


@dataclass(frozen=True)
class Set:
    """One of S1-S4. With `paired` row i of x and of y is the same clip; otherwise they are split separately and meet by emotion."""

    x: np.ndarray  # (n_x, 28, 28) float32 in [-1, 1]
    x_label: np.ndarray  # (n_x,) int64
    x_subject: np.ndarray  # (n_x,) str
    y: np.ndarray  # (n_y, columns, bands) float32 in [-1, 1]
    y_label: np.ndarray  # (n_y,) int64
    y_subject: np.ndarray  # (n_y,) str
    paired: bool


# ------------------------------------------------------------------ from clips to one file


def folder() -> Path:
    """Where prepared corpora live: `data/processed/` of the project, or the folder that DACSSGAN_DATA names."""
    return Path(os.environ.get("DACSSGAN_DATA") or Path(__file__).resolve().parents[1] / "data") / "processed"


def path_of(name: str, takes: int = 10) -> Path:
    """File of a prepared corpus; the demo corpus has one per number of takes."""
    return folder() / (f"demo-{takes}.npz" if name == "demo" else f"{name}.npz")


def prepare(name: str, source: Path | None, workers: int = 0, tick: Tick | None = None, takes: int = 10) -> Path:
    """Clips of a corpus -> its npz; returns the path at once when the same source was prepared with the same settings before.

    `source` is the corpus' folder or zip; the demo corpus needs none. Clips without a usable face or voice are left out and listed
    in the file's `meta["left_out"]` with their reasons. Raises CorpusError when nothing is left.
    """
    target = path_of(name, takes)
    if name == "demo":
        return _prepare_demo(target, takes, tick)
    if source is None:
        raise CorpusError(f"say where {name} is: --source FOLDER_OR_ZIP")
    entries = corpora.index(name, source)
    key = _key([dataclasses.asdict(e) | {"video": _tail(e.video, source), "audio": _tail(e.audio, source)} for e in entries])
    if target.exists() and load_file(target).meta["key"] == key:
        return target
    ref = corpora.KNOWN.get(name)
    crops = [e for e in entries if e.crop]
    if crops:
        faces, left_out = _read_crops(crops, workers, tick)
        rows, voices = crops, [None] * len(crops)
    else:
        rows, faces, voices, left_out = _read_clips(entries, workers, tick)
    if not rows:
        raise CorpusError(f"no clip of {source} could be used; the first reason: {next(iter(left_out.values()), 'none')}")
    subjects = _near_duplicates(np.stack([f for f in faces if f is not None])) if crops else [e.subject for e in rows]
    return _write(target, name, rows, subjects, faces, voices, key, ref, left_out)


def _tail(reference: str | None, source: Path) -> str | None:
    return None if reference is None else reference.replace(str(source), "", 1)  # a moved corpus keeps its key


def _key(what) -> str:
    """Hash of everything that decides a prepared file's content."""
    version = 1
    s = dataclasses.replace(LogMel(), columns=COLUMNS, range_db=0.0)
    return hashlib.sha256(json.dumps([version, dataclasses.asdict(s), what], sort_keys=True).encode()).hexdigest()[:16]


def _write(target, name, entries, subjects, faces, voices, key, ref, left_out) -> Path:
    has_x, has_y = (np.array([a is not None for a in part]) for part in (faces, voices))
    x = np.stack([f for f in faces if f is not None]) if has_x.any() else np.zeros((0, 28, 28), np.uint8)
    y = np.stack([v for v in voices if v is not None]) if has_y.any() else np.zeros((0, COLUMNS, LogMel().bands), np.float32)
    digest = hashlib.sha256()
    for part in (x, y, np.array([f"{e.clip}|{s}|{e.emotion}" for e, s in zip(entries, subjects, strict=True)])):
        digest.update(np.ascontiguousarray(part).tobytes())
    meta = {
        "name": name,
        "key": key,
        "digest": digest.hexdigest()[:16],
        "ref_db": ref.ref_db if ref else (float(np.percentile(y, 99.9)) if len(y) else 0.0),
        "level": float(np.median(spectrograms.level(y))) if len(y) else 0.0,
        "title": ref.title if ref else name,
        "licence": ref.licence if ref else "the owner's",
        "source": ref.source if ref else "own data",
        "left_out": left_out,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    runs.write_arrays(
        target,
        clip=np.array([e.clip for e in entries]),
        subject=np.array(subjects),
        sex=np.array([e.sex for e in entries]),
        emotion=np.array([e.emotion for e in entries]),
        face_of=np.where(has_x, np.cumsum(has_x) - 1, -1),
        voice_of=np.where(has_y, np.cumsum(has_y) - 1, -1),
        faces=x,
        voices=y.astype(np.float32),
        meta=np.array(json.dumps(meta)),
    )
    return target


def _prepare_demo(target: Path, takes: int, tick: Tick | None) -> Path:
    from core import demo, drawing, faces

    key = _key(["demo", "middle frame", takes, *(hashlib.sha256(Path(str(m.__file__)).read_bytes()).hexdigest() for m in (demo, drawing))])
    if target.exists() and load_file(target).meta["key"] == key:
        return target
    all_takes = demo.takes(takes)
    x: list[np.ndarray | None] = []
    y: list[np.ndarray | None] = []
    for i, take in enumerate(all_takes):
        wave = demo.voice(take)
        x.append(faces.align(*demo.face(take, t=spectrograms.middle_time(len(wave) / LogMel().rate))))
        y.append(spectrograms.middle(spectrograms.log_mel(wave, LogMel()), COLUMNS))
        if tick:
            tick(i + 1, len(all_takes))
    entries = [Entry(t.clip_id, f"demo-{t.actor:02d}", t.sex, t.emotion) for t in all_takes]
    return _write(target, "demo", entries, [e.subject for e in entries], x, y, key, corpora.KNOWN["demo"], {})


def draw_demo_clips(folder: Path, count: int, tick: Tick | None = None) -> list[Path]:
    """Write `count` clips of the invented corpus, spread over actors and emotions, as mp4 and wav: media like anybody's."""
    from core import clips, demo

    folder.mkdir(parents=True, exist_ok=True)
    every = demo.takes()
    chosen = [every[(i * 67) % len(every)] for i in range(min(count, len(every)))]  # 67 shares no factor with 24 x 6 x 10
    for i, take in enumerate(chosen):
        frames, wave = demo.clip(take)
        clips.write_clip(folder / f"{take.clip_id}.mp4", frames, 25, wave)
        runs.write_atomic(folder / f"{take.clip_id}.wav", spectrograms.wav_bytes(wave, LogMel().rate, "invented", fade=0.0))
        if tick:
            tick(i + 1, len(chosen))
    return [folder / f"{take.clip_id}.mp4" for take in chosen]


def face_and_voice(entry: Entry) -> tuple[np.ndarray | None, np.ndarray | None]:
    """One clip through §3.3 and §3.4: aligned face (28, 28) uint8 of the frame nearest its sound's middle, and dB (112, bands)."""
    from core import clips, faces  # late: a training on prepared arrays needs no decoder and no landmarks

    x = y = None
    seconds = None
    if entry.audio:
        with corpora.media_file(entry.audio) as path:
            wave = clips.read_waveform(path)
        seconds = len(wave) / LogMel().rate
        y = spectrograms.middle(spectrograms.log_mel(wave, LogMel()), COLUMNS)
    if entry.video:
        with corpora.media_file(entry.video) as path:
            clip = clips.read_clip(path)
        at = spectrograms.middle_time(seconds if seconds is not None else float(clip.times[-1]))
        for i in np.argsort(np.abs(clip.times - at), kind="stable")[:25]:  # the nearest frame that shows a face
            found = faces.detect(clip.frames[i])
            if found:
                x = faces.align(clip.frames[i], faces.five_points(found[0].points))
                break
        else:
            raise faces.NoFaceError(f"{entry.clip}: no face within 25 frames of the middle")
    return x, y


def _read_clips(entries: list[Entry], workers: int, tick: Tick | None):
    from joblib import Parallel, delayed

    def one(entry):
        try:
            return entry, *face_and_voice(entry), ""
        except Exception as e:  # one odd clip must not stop a corpus; its reason is kept
            return entry, None, None, f"{type(e).__name__}: {e}"

    rows, faces, voices, left_out = [], [], [], {}
    parallel = Parallel(n_jobs=workers or os.cpu_count(), backend="threading", return_as="generator")
    for done, (entry, x, y, reason) in enumerate(parallel(delayed(one)(e) for e in entries), 1):
        if reason:
            left_out[entry.clip] = reason
        else:
            rows.append(entry)
            faces.append(x)
            voices.append(y)
        if tick:
            tick(done, len(entries))
    return rows, faces, voices, left_out


def _read_crops(entries: list[Entry], workers: int, tick: Tick | None):
    from PIL import Image

    from core import faces

    images = []
    for e in entries:
        with corpora.media_file(e.video or "") as path:
            images.append(np.asarray(Image.open(path).convert("L").resize((48, 48))))
    labels = np.array([e.emotion for e in entries])
    x, found = faces.align_crops(np.stack(images), progress=tick, workers=workers or os.cpu_count() or 1)
    missed = {str(k): int((~found[labels == k]).sum()) for k in np.unique(labels)}
    counts = {k: f"{n} of {int((labels == k).sum())} aligned by the median transform, no landmarks found" for k, n in missed.items() if n}
    return list(x), {f"landmarks/{k}": v for k, v in counts.items()}


def _near_duplicates(x: np.ndarray, bits: int = 3) -> list[str]:
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
    group = connected_components(coo_array((np.ones(len(r), bool), (r, c)), shape=(len(x), len(x))), directed=False)[1]
    return [f"image-{g:05d}" for g in group]


def load_file(path: Path) -> Prepared:
    """A prepared corpus; raises CorpusError with the command that makes it."""
    if not path.exists():
        takes = path.stem.removeprefix("demo-")
        command = f"demo --takes {takes}" if takes.isdecimal() else f"{path.stem} --source FOLDER_OR_ZIP"
        raise CorpusError(f"{path} is not there; make it with: python -m core data prepare {command}")
    try:
        arrays = runs.read_arrays(path)
        meta = json.loads(str(arrays.pop("meta")))
        return Prepared(name=meta["name"], meta=meta, **arrays)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CorpusError(f"{path} is damaged ({e}); remove it and prepare the corpus again") from e


def load(name: str, takes: int = 10) -> Prepared:
    """`load_file` by the corpus' name."""
    return load_file(path_of(name, takes))


# ------------------------------------------------------------------ from arrays to S1..S4


def corpus_digest(data: Data) -> str:
    """Digest of the prepared arrays a run stands on; part of its id."""
    return "+".join(dict.fromkeys(load(n, data.demo_takes).digest for n in (data.faces, data.voices)))


def describe(data: Data) -> dict:
    """What a run must know of its corpora when they are not at hand: dB reference, level, licence, source, counts."""
    out = {}
    for role, name in (("faces", data.faces), ("voices", data.voices)):
        corpus = load(name, data.demo_takes)
        out[role] = {k: v for k, v in corpus.meta.items() if k not in ("left_out", "key")} | {"clips": len(corpus.clip)}
    return out


def split_subjects(subject: np.ndarray, sex: np.ndarray, sets: tuple[float, ...], seed: int, fold: int) -> dict[str, np.ndarray]:
    """Subject-disjoint S1-S4: name -> rows. (N,), (N,) -> index arrays that part 0..N-1.

    Subjects are shuffled within each sex by `seed` and interleaved, so that every stretch of the order is balanced by sex; S4 is the
    fold's stretch, so that over the folds each subject is tested once; the others fill S1, S2, S3 by their shares.
    """
    rng = np.random.default_rng(seed)
    names, first = np.unique(subject, return_index=True)
    sexes = sex[first]
    places, members = [], []
    for s in np.unique(sexes):
        of_sex = rng.permutation(names[sexes == s])
        places.append((np.arange(len(of_sex)) + 0.5) / len(of_sex))
        members.append(of_sex)
    order = np.concatenate(members)[np.argsort(np.concatenate(places), kind="stable")]
    n, share = len(order), sets[3]
    folds = max(1, round(1 / share)) if share > 0 else 1
    a, b = (round((fold % folds + k) * n * share) for k in (0, 1))
    rest = np.concatenate([order[b:], order[:a]])
    cuts = [round(c) for c in np.cumsum(sets[:3]) / sum(sets[:3]) * len(rest)]
    groups = {"S1": rest[: cuts[0]], "S2": rest[cuts[0] : cuts[1]], "S3": rest[cuts[1] :], "S4": order[a:b]}
    return {k: np.nonzero(np.isin(subject, v))[0] for k, v in groups.items()}


def build(config: Config) -> dict[str, Set]:
    """The four sets of a configuration, S1..S4, from the prepared corpora. Raises CorpusError where a set would be empty."""
    d, s = config.data, config.logmel
    fx, fy = load(d.faces, d.demo_takes), load(d.voices, d.demo_takes)
    paired = d.pairing == "clip"
    if paired and d.faces != d.voices:
        raise CorpusError("pairing by clip needs faces and voices of one corpus; use pairing 'emotion' across corpora")
    keep = (fx.face_of >= 0) & np.isin(fx.emotion, d.classes), (fy.voice_of >= 0) & np.isin(fy.emotion, d.classes)
    if paired:
        keep = (keep[0] & keep[1],) * 2
    rows = [np.nonzero(k)[0] for k in keep]
    parts = []
    for c, r in zip((fx, fy), rows, strict=True):
        parts.append(split_subjects(c.subject[r], c.sex[r], d.sets, d.split_seed, d.fold))
    label = {k: i for i, k in enumerate(d.classes)}
    out = {}
    for name in SETS:
        i, j = rows[0][parts[0][name]], rows[1][parts[1][name]]
        if not len(i) or not len(j):
            raise CorpusError(f"{name} would be empty: {d.faces} × {d.voices} has too few subjects of {', '.join(d.classes)}")
        if not paired and set(fy.emotion[j]) - set(fx.emotion[i]):
            raise CorpusError(f"{name}: {d.faces} has no face for {sorted(set(fy.emotion[j]) - set(fx.emotion[i]))} of {d.voices}")
        y_label = np.array([label[e] for e in fy.emotion[j]], np.int64)
        if name == "S3" and d.g_fraction < 1:  # drawn without a look at the labels, which strict mode may not read
            part = np.random.default_rng(d.split_seed).permutation(len(j))[: max(1, round(d.g_fraction * len(j)))]
            i, j, y_label = (i[part] if paired else i), j[part], y_label[part]
        db = fy.voices[fy.voice_of[j]]
        start = (COLUMNS - s.columns) // 2
        out[name] = Set(
            x=fx.faces[fx.face_of[i]].astype(np.float32) / 127.5 - 1,
            x_label=np.array([label[e] for e in fx.emotion[i]], np.int64),
            x_subject=fx.subject[i],
            y=spectrograms.scale(db[:, start : start + s.columns], fy.meta["ref_db"], s),
            y_label=y_label,
            y_subject=fy.subject[j],
            paired=paired,
        )
    return out


def balanced(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rows of a seeded subsample with equally many of each class that occurs, in order: how evaluation is balanced (PROTOCOL)."""
    rng = np.random.default_rng(seed)
    parts = [np.nonzero(labels == k)[0] for k in np.unique(labels)]
    n = min(map(len, parts))
    return np.sort(np.concatenate([rng.permutation(p)[:n] for p in parts]))


def pairs(
    x_group: np.ndarray, y_group: np.ndarray, paired: bool, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """One epoch's training pairs, a pure function of its arguments: rows of x and of y, shuffled, groups oversampled to balance.

    (n_x,), (n_y,) -> two (n,) index arrays. Paired rows keep their clip; otherwise every voice meets a face of its own group, drawn
    anew each epoch. The groups are what the caller may know: true labels, or in the strict mode argmax c.
    """
    rng = np.random.default_rng([seed, epoch])
    by_group = [np.nonzero(y_group == k)[0] for k in np.unique(y_group)]
    most = max(map(len, by_group))
    j = rng.permutation(np.concatenate([np.resize(rng.permutation(p), most) for p in by_group]))
    if paired:
        return j, j
    i = np.empty_like(j)
    for k in np.unique(y_group):
        rows = y_group[j] == k
        i[rows] = rng.choice(np.nonzero(x_group == k)[0], int(rows.sum()))
    return i, j
