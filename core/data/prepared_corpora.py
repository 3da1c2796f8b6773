"""§4.1: a prepared corpus: its name, its file, its arrays. No torch.

The file is `data/processed/<name>.npz`, without pickle. Faces are uint8 (28, 28); voices are
float32 dB of the middle 112 columns, so that every length, range and dB reference can be taken from
one file. Mel bands cannot: the same clips in more bands than the paper's are a corpus of their own,
whose name says so (`ravdess-64`).
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core import files
from core.config.settings import BAND_COUNTS, DataSettings, LogMel
from core.data.corpora import EXPECTED_FILES, CorpusError

# A name is part of a file's name on any system: a path or a device of Windows is none.
NAME_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}", re.ASCII)
WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)\d)", re.ASCII)
STORED_COLUMNS = 112  # columns of a stored spectrogram; smaller ones are its middle
SPEECH_RANGE_DB = 30.0  # below the loudest column, within which a column is speech
REF_DB_TOLERANCE = 1e-3  # dB by which two preparations of the same clips may differ


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus as arrays, one row per clip.

    `face_of` and `voice_of` are rows of `faces` and `voices`, -1 where a clip has none.
    """

    name: str
    clip: np.ndarray  # (N,) str
    subject: np.ndarray  # (N,) str
    sex: np.ndarray  # (N,) str
    emotion: np.ndarray  # (N,) str
    face_of: np.ndarray  # (N,) int64
    voice_of: np.ndarray  # (N,) int64
    faces: np.ndarray  # (n_x, 28, 28) uint8
    voices: np.ndarray  # (n_y, 112, bands) float32 dB
    meta: dict  # ref_db, level, key, digest, licence, source, left_out, frames, crops, repeated
    # (N, 3) str of labels.VOTE_MODALITIES; (0, 3): nobody voted
    votes: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), "<U1"))
    # (n_x, frames - 1, 28, 28) uint8: further frames
    faces_more: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 28, 28), np.uint8))
    # (n_y, crops - 1, 112, bands) float32 dB: further windows
    voices_more: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 0, STORED_COLUMNS, BAND_COUNTS[0]), np.float32)
    )

    @property
    def digest(self) -> str:
        return self.meta["digest"]

    @property
    def bands(self) -> int:
        """Mel bands of its voices."""
        return self.voices.shape[2]


def processed_folder() -> Path:
    """Folder of the prepared corpora: `processed/` in `files.data_folder()`."""
    return files.data_folder() / "processed"


# ------------------------------------------------------------------ names


def parse_name(name: str) -> tuple[str, int]:
    """The clips that a prepared corpus holds, and its mel bands.

    >>> parse_name("ravdess-64"), parse_name("ravdess")
    (('ravdess', 64), ('ravdess', 28))
    """
    of, _, bands = name.rpartition("-")
    return (of, int(bands)) if of and bands in map(str, BAND_COUNTS[1:]) else (name, BAND_COUNTS[0])


def name_with_bands(clips: str, bands: int) -> str:
    """Inverse of `parse_name`."""
    return clips if bands == BAND_COUNTS[0] else f"{clips}-{bands}"


def check_name(name: str) -> None:
    """Raise CorpusError, which gives the rule, where a corpus cannot have that name."""
    clips, small = parse_name(name)[0], parse_name(name)[0].lower()
    shown = files.printable(name[:60]) + "…" * (len(name) > 60)
    if small in ("demo", *EXPECTED_FILES):
        if clips != small:
            raise CorpusError(f"{shown!r} cannot be a corpus' name: write {small}, or another name")
        return
    fault = ""
    if not NAME_PATTERN.fullmatch(clips):
        fault = "it must be 1 to 40 letters a to z, digits, - or _, and begin with a letter"
    elif small.startswith("demo"):
        fault = "names that begin with demo are those of the invented corpora"
    elif WINDOWS_DEVICES.fullmatch(small):
        fault = "Windows keeps that name for a device"
    if fault:
        raise CorpusError(f"{shown!r} cannot be a corpus' name: {fault}")


def is_demo(name: str) -> bool:
    """Whether a corpus is the invented one, which needs no source, in any number of bands."""
    return parse_name(name)[0] == "demo"


def demo_corpora(data: DataSettings) -> list[str]:
    """The invented corpora among a run's faces and voices."""
    return [n for n in dict.fromkeys((data.faces, data.voices)) if is_demo(n)]


def corpus_path(name: str, takes: int = 10) -> Path:
    """File of a prepared corpus; the demo corpus has one per number of takes."""
    clips, bands = parse_name(name)
    stem = name_with_bands(f"demo-{takes}", bands) if clips == "demo" else name
    return processed_folder() / f"{stem}.npz"


def parse_stem(stem: str) -> tuple[str, int]:
    """Inverse of `corpus_path`: a file's stem -> the corpus' name and its takes, 0 if not the demo.

    >>> parse_stem("demo-10-64"), parse_stem("crema-d")
    (('demo-64', 10), ('crema-d', 0))
    """
    found = re.fullmatch(r"demo-(\d+)((?:-\d+)?)", stem)
    return (f"demo{found[2]}", int(found[1])) if found else (stem, 0)


def prepare_command(name: str, takes: int = 0) -> str:
    """The command line that prepares a corpus."""
    clips, bands = parse_name(name)
    of = f"demo --takes {takes or 10}" if clips == "demo" else f"{clips} --source FOLDER_OR_ZIP"
    return f"python -m core data prepare {of}" + f" --bands {bands}" * (bands != BAND_COUNTS[0])


def band_mismatch(name: str, bands: int, s: LogMel) -> str:
    """Why voices in so many mel bands do not fit a run, and what to do; "" where they fit."""
    if bands == s.bands:
        return ""
    what = f"{name} holds voices in {bands} mel bands, and the run asks for {s.bands}; "
    what += f"use --logmel.bands {bands}"
    if s.bands not in BAND_COUNTS:
        return what
    fitting = name_with_bands(parse_name(name)[0], s.bands)
    return f"{what}, or --data.voices {fitting}, which this makes: {prepare_command(fitting)}"


# ------------------------------------------------------------------ reading


def load_corpus_file(path: Path) -> PreparedCorpus:
    """A prepared corpus. Raises CorpusError, which gives the command that prepares it."""
    if not path.exists():
        command = prepare_command(*parse_stem(path.stem))
        raise CorpusError(f"{files.shown(path)} is not there; make it with: {command}")
    try:
        arrays = files.read_arrays(path)
        meta = json.loads(str(arrays.pop("meta")))
        # files of earlier versions have no votes
        arrays.setdefault("votes", np.full((len(arrays["clip"]), 3), ""))
        return PreparedCorpus(name=meta["name"], meta=meta, **arrays)
    except (
        *(OSError, ValueError, KeyError, TypeError, EOFError, SyntaxError),
        *(zipfile.BadZipFile, zlib.error),
    ) as e:
        raise CorpusError(
            f"{files.shown(path)} is damaged ({e}); remove it and prepare the corpus again"
        ) from e


def source_record_path(target: Path) -> Path:
    """File beside a prepared corpus that says where its clips' media lie."""
    return target.with_name(f"{target.stem}.source.json")


def read_source_record(target: Path) -> dict:
    """The record of a prepared corpus: source, clips, passed_over; {} without a readable one."""
    try:
        return dict(json.loads(source_record_path(target).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def group_passed_over(passed_over: dict[str, str]) -> list[tuple[str, str, list[str]]]:
    """(ending, reason, files) of files that belong to no clip, file -> reason; many files first.

    >>> group_passed_over({"a.txt": "no medium", "b.TXT": "no medium"})
    [('.txt', 'no medium', ['a.txt', 'b.TXT'])]
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for file, reason in passed_over.items():
        ending = "folders" if file.endswith("/") else Path(file).suffix.lower() or "no ending"
        groups.setdefault((ending, reason), []).append(file)
    order = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [(ending, reason, names) for (ending, reason), names in order]


def unnamed(sentence: str, clip: str) -> str:
    """A sentence that says "the clip" for a clip's name.

    >>> unnamed("a.wav has a voice", "a.wav"), unnamed("faces", "a")
    ('the clip has a voice', 'faces')
    """
    return re.sub(rf"(?<!\w){re.escape(clip)}(?!\w)", "the clip", sentence) if clip else sentence


def group_notes(notes: dict[str, str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(kind of remark, [(clip, remark)]) of clips that are taken; remarks differ by numbers alone.

    >>> group_notes({"a": "2 faces; blurred", "b": "3 faces"})
    [('… faces', [('a', '2 faces'), ('b', '3 faces')]), ('blurred', [('a', 'blurred')])]
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for clip, note in notes.items():
        for one in note.split("; "):
            plain = unnamed(unnamed(one, clip), Path(clip).name)
            groups.setdefault(re.sub(r"\d+(\.\d+)?", "…", plain), []).append((clip, one))
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def load_corpus(name: str, takes: int = 10) -> PreparedCorpus:
    """`load_corpus_file` by the corpus' name."""
    return load_corpus_file(corpus_path(name, takes))


def further_faces(c: PreparedCorpus, rows: np.ndarray) -> np.ndarray:
    """(n, frames - 1, 28, 28) float32 in [-1, 1]: the further frames of clips."""
    if not c.faces_more.shape[1]:
        raise CorpusError(
            f"{c.name} was prepared with one frame of each clip; use frames 'middle', or prepare "
            f"it again with more: {prepare_command(c.name)} --frames 3"
        )
    return c.faces_more[c.face_of[rows]].astype(np.float32) / 127.5 - 1


def speech_windows(
    c: PreparedCorpus, rows: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Windows with speech of clips (n,): (n, W, 112, bands) dB, and how many of them differ (n,).

    A window has speech if a share `least` of its columns lies within SPEECH_RANGE_DB of the clip's
    loudest; the first window always counts. Windows of a short clip that repeat another are left
    out. A clip with fewer than W windows repeats its own, so that all clips weigh alike. Raises
    CorpusError where one window of each clip was prepared.
    """
    if not c.voices_more.shape[1]:
        raise CorpusError(
            f"{c.name} was prepared with one window of each voice; use windows 'middle', or "
            f"prepare it again with more: {prepare_command(c.name)} --crops 7"
        )
    v = c.voice_of[rows]
    db = np.concatenate([c.voices[v][:, None], c.voices_more[v]], axis=1)
    power = (10.0 ** (db / 10)).sum(axis=3)
    loudest = power.max(axis=(1, 2), keepdims=True)
    active = power > loudest * 10 ** (-SPEECH_RANGE_DB / 10)
    keep = active.mean(axis=2) >= least
    keep[:, 0] = True
    for k in range(1, db.shape[1]):
        same = (db[:, :k] == db[:, k : k + 1]).all(axis=(2, 3)).any(axis=1)
        keep[:, k] &= ~same
    order = [np.resize(np.flatnonzero(of_clip), len(of_clip)) for of_clip in keep]
    return db[np.arange(len(db))[:, None], np.array(order)], keep.sum(axis=1)


def corpus_digest(data: DataSettings) -> str:
    """Digest of the prepared arrays that a run is trained on; part of the run's id."""
    names = [n for n in (data.faces, data.voices, data.f_s_corpus) if n]
    return "+".join(dict.fromkeys(load_corpus(n, data.demo_takes).digest for n in names))


def describe_corpora(data: DataSettings) -> dict:
    """A run's record of its corpora, by role: dB reference, level, licence, source, counts."""
    descriptions = {}
    for role, name in (("faces", data.faces), ("voices", data.voices), ("f_S", data.f_s_corpus)):
        if name:
            corpus = load_corpus(name, data.demo_takes)
            meta = {k: v for k, v in corpus.meta.items() if k not in ("left_out", "key")}
            descriptions[role] = meta | {"clips": len(corpus.clip)}
    return descriptions


def is_same_corpus(now: Mapping, then: Mapping) -> bool:
    """Whether two descriptions of `describe_corpora` may be of the same corpus.

    They are if the digests agree, or the number of clips and the dB reference: a digest is of exact
    bits, and the last bits differ between processors.
    """
    return now["digest"] == then.get("digest") or all(
        abs(now[k] - then.get(k, np.nan)) < REF_DB_TOLERANCE for k in ("clips", "ref_db")
    )


def check_classes(corpus: str, kind: str, emotions: np.ndarray, classes: Sequence[str]) -> None:
    """Raise CorpusError if a class has no sample: chance would be told as lower than it is."""
    found = set(emotions.tolist()) - {""}
    if lacking := [c for c in classes if c not in found]:
        what = f"no {kind} of {corpus} is {' or '.join(lacking)}"
        known = f"; its are {', '.join(sorted(found))}" if found else ""
        raise CorpusError(f"{what}{known}: name its classes with --data.classes")


def check_pairing(faces: PreparedCorpus, voices: PreparedCorpus, data: DataSettings) -> None:
    """Raise CorpusError where no clips of two corpora can be faces and voices of a run.

    The message gives the reason: no faces, no voices, none of the classes, or no clip with both.
    """
    paired = data.pairing == "clip"
    if paired and data.faces != data.voices:
        what = "pairing by clip needs faces and voices of one corpus"
        raise CorpusError(f"{what}; use pairing 'emotion' across corpora")
    has_face, has_voice = faces.face_of >= 0, voices.voice_of >= 0
    for corpus, has, kind in ((faces, has_face, "face"), (voices, has_voice, "voice")):
        if not has.any():
            what = f"no clip of {corpus.name} has a {kind}"
            raise CorpusError(f"{what}; name a corpus of {kind}s with --data.{kind}s")
        if data.labels == "intended":
            check_classes(corpus.name, kind, corpus.emotion[has], data.classes)
    if paired and not (has_face & has_voice).any():
        what = f"no clip of {faces.name} has a face and a voice: {int(has_face.sum())} have a face "
        what += f"alone and {int(has_voice.sum())} a voice alone"
        raise CorpusError(
            f"{what}; use --data.pairing emotion, or name both files of a clip in a table with one "
            "clip id"
        )
