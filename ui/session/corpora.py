"""Cached access to prepared corpora. Of a file only the arrays that a view needs are read, and kept until the file changes."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from core.config import BANDS, EMOTIONS, Config, Data, LogMel
from core.data import corpora, labels, splits
from core.data.corpora import CorpusError
from core.media import spectrograms, waveforms

SMALL = ("clip", "subject", "sex", "emotion", "face_of", "voice_of")
PAGE = 100  # clips in a table at once


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus without its faces and voices."""

    stem: str  # the file's name without .npz
    meta: dict
    clip: np.ndarray  # (N,) str
    subject: np.ndarray  # (N,) str
    sex: np.ndarray  # (N,) str
    emotion: np.ndarray  # (N,) str
    face_of: np.ndarray  # (N,) int64
    voice_of: np.ndarray  # (N,) int64
    votes: np.ndarray  # (N, 3) str, or (0, 3)

    @cached_property
    def emotions(self) -> list[str]:
        return [e for e in EMOTIONS if e in set(self.emotion.tolist())]

    @cached_property
    def known(self) -> np.ndarray:
        """(N,) whether it is known who is seen or heard."""
        groups = np.array([bool(splits.UNKNOWN.fullmatch(s)) or not s for s in np.unique(self.subject)], bool)
        return ~groups[np.unique(self.subject, return_inverse=True)[1]]

    @cached_property
    def subjects(self) -> list[str]:
        return np.unique(self.subject[self.known]).tolist()

    @cached_property
    def faces(self) -> int:
        return int((self.face_of >= 0).sum())

    @cached_property
    def voices(self) -> int:
        return int((self.voice_of >= 0).sum())

    @property
    def logmel(self) -> LogMel:
        """What its voices are."""
        return LogMel(bands=self.meta.get("bands", BANDS[0]))

    @cached_property
    def rated(self) -> bool:
        return bool((self.votes != "").any())

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Clip -> why it is not here."""
        return {k: str(v) for k, v in self.meta.get("left_out", {}).items() if not k.startswith("landmarks/")}

    @cached_property
    def remarks(self) -> dict[str, str]:
        """Emotion -> how many of its pictures were aligned without landmarks of their own."""
        return {k.removeprefix("landmarks/"): str(v) for k, v in self.meta.get("left_out", {}).items() if k.startswith("landmarks/")}


def names() -> list[str]:
    """Files of prepared corpora, the demo first."""
    here = sorted(p.stem for p in splits.folder().glob("*.npz") if not p.name.startswith("."))
    return sorted(here, key=lambda s: not s.startswith("demo-"))


def _path(stem: str) -> tuple[Path, int]:
    """Where a corpus of `names` lies, and what changes when it does."""
    path = splits.folder() / f"{stem}.npz"
    try:
        return path, path.stat().st_mtime_ns
    except OSError:
        return path, 0


def opened(stem: str) -> Corpus | str:
    """A corpus of `names`, or in words why it cannot be read."""
    return _opened(*_path(stem))


@st.cache_resource(show_spinner=False, max_entries=16)
def _opened(path: Path, changed: int) -> Corpus | str:
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as z:
            small, meta = {k: z[k] for k in SMALL}, json.loads(str(z["meta"]))
            votes = z["votes"] if "votes" in z.files else np.zeros((0, 3), "<U1")
        whole = {"name", "digest", "ref_db"} <= set(meta) and meta.get("bands", BANDS[0]) in BANDS
        if len({len(a) for a in small.values()}) != 1 or not whole:
            raise ValueError("its parts do not fit together")
        return Corpus(path.stem, meta, votes=votes, **small)
    except Exception as e:  # a damaged file makes zip, zlib and NumPy's header raise what they like
        return _damaged(path, e)


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({error}). Remove it and prepare the corpus again."


def overview(found: dict[str, Corpus]) -> dict[str, list]:
    """All corpora as a table."""
    rows = found.values()
    return {
        "Name": list(found),
        "Title": [c.meta.get("title", c.stem) for c in rows],
        "Clips": [len(c.clip) for c in rows],
        "Faces": [c.faces for c in rows],
        "Voices": [c.voices for c in rows],
        "Subjects": [f"{len(c.subjects):,}" if c.subjects else "unknown" for c in rows],
        "Emotions": [len(c.emotions) for c in rows],
        "Left out": [len(c.left_out) for c in rows],
        "Licence": [c.meta.get("licence", "") for c in rows],
        "Digest": [c.meta["digest"] for c in rows],
    }


# ------------------------------------------------------------------ who is in which set


def partners(stem: str, found: dict[str, Corpus]) -> dict[str, tuple[str, str]]:
    """What a corpus can be split with: words -> files of the faces and of the voices."""
    own, pairs = found[stem], {}
    if own.faces and own.voices:
        pairs["its own faces and voices"] = (stem, stem)
    clips = {stem: splits.clips_of(c.meta["name"])[0] for stem, c in found.items()}
    for other, c in sorted(found.items(), key=lambda f: clips[f[0]] == "demo"):  # real ones first
        if clips[other] == clips[stem]:  # the same clips in other bands or, drawn, more of them: a run knows one such file
            continue
        if own.faces and c.voices:
            pairs[f"its faces with the voices of {other}"] = (stem, other)
        if own.voices and c.faces:
            pairs[f"its voices with the faces of {other}"] = (other, stem)
    return {k: v for k, v in pairs.items() if set(found[v[0]].emotions) & set(found[v[1]].emotions)}


def data_of(pair: tuple[str, str], found: dict[str, Corpus], **more) -> Data:
    """The settings of a run on the faces and voices of two corpora (of one, perhaps)."""
    faces, voices = (found[p] for p in pair)
    takes = [n for p in pair if (n := splits.of_stem(p)[1])]
    both = pair[0] == pair[1] and bool(((faces.face_of >= 0) & (faces.voice_of >= 0)).any())
    shared = tuple(e for e in faces.emotions if e in voices.emotions)
    known = {"faces": faces.meta["name"], "voices": voices.meta["name"], "classes": shared, "demo_takes": (takes or [10])[0]}
    return Data(**known, pairing="clip" if both else "emotion", **more)


def sets(pair: tuple[str, str], data: Data) -> dict | str:
    """Who is in S1-S4, as `datasets.set_table` says, or in words why there are no such sets."""
    voices = opened(pair[1])
    s = voices.logmel if isinstance(voices, Corpus) else LogMel()
    return _sets(tuple(_path(p) for p in pair), data, replace(s, columns=28))  # the shortest: only names are asked for


@st.cache_data(show_spinner="Parting the people into four sets …", max_entries=64)
def _sets(files: tuple[tuple[Path, int], ...], data: Data, s: LogMel) -> dict | str:
    try:
        return splits.set_table(splits.build(Config(data=data, logmel=s)))
    except CorpusError as e:
        return str(e)
    except Exception as e:  # see _opened
        return _damaged(files[0][0], e)


def misfit(config: Config) -> str:
    """Why a run's voices are not in the mel bands that it asks for, and what mends it; "" where they are."""
    name = config.data.voices
    here = opened(splits.path_of(name, config.data.demo_takes).stem)
    return splits.misfit(name, here.logmel.bands if isinstance(here, Corpus) else splits.clips_of(name)[1], config.logmel)


# ------------------------------------------------------------------ clips


def chosen(c: Corpus, emotion: str, subject: str, text: str) -> np.ndarray:
    """Rows of the clips of an emotion and a subject whose name holds a text; "" is any."""
    keep = np.ones(len(c.clip), bool)
    for column, value in ((c.emotion, emotion), (c.subject, subject)):
        if value:
            keep &= column == value
    if text.strip():
        keep &= np.char.find(np.char.lower(c.clip), text.strip().lower()) >= 0
    return np.nonzero(keep)[0]


def table(c: Corpus, rows: np.ndarray) -> dict[str, list]:
    """Some clips with their faces, as a table."""
    out: dict[str, list] = {}
    if c.faces:
        x = _faces(*_path(c.stem))
        out["Face"] = [_address(x[c.face_of[i]]) if 0 <= c.face_of[i] < len(x) else "" for i in rows]
    out |= {"Clip": c.clip[rows].tolist(), "Emotion": c.emotion[rows].tolist()}
    return out | ({"Subject": np.where(c.known[rows], c.subject[rows], "").tolist()} if c.subjects else {})


@st.cache_resource(show_spinner=False, max_entries=2)
def _faces(path: Path, changed: int) -> np.ndarray:
    """(n_x, 28, 28) uint8; none where that part of the file is damaged."""
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as z:
            return z["faces"]
    except Exception:  # see _opened; whoever opens such a clip is told
        return np.zeros((0, 28, 28), np.uint8)


def _address(face: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(face).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def face(c: Corpus, row: int) -> np.ndarray | str:
    """(28, 28) uint8 of a clip, or in words why not."""
    return _row(*_path(c.stem), "faces", int(c.face_of[row]))


def voice(c: Corpus, row: int) -> np.ndarray | str:
    """A clip's spectrogram (112, bands) in [-1, 1], or in words why not."""
    db = _row(*_path(c.stem), "voices", int(c.voice_of[row]))
    return db if isinstance(db, str) else spectrograms.scale(db, c.meta["ref_db"], c.logmel)


@st.cache_data(show_spinner=False, max_entries=200)
def _row(path: Path, changed: int, array: str, i: int) -> np.ndarray | str:
    """One row of a large array, without the memory for all."""
    try:
        with zipfile.ZipFile(path) as z, z.open(f"{array}.npy") as f:
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, kind = read[np.lib.format.read_magic(f)](f)
            if fortran or kind.hasobject or not 0 <= i < shape[0]:
                raise ValueError(f"it has no row {i} of {array}")
            size = kind.itemsize * int(np.prod(shape[1:]))
            f.seek(i * size, io.SEEK_CUR)
            return np.frombuffer(f.read(size), kind).reshape(shape[1:])
    except Exception as e:  # see _opened
        return _damaged(path, e)


@st.cache_data(show_spinner=False, max_entries=60)
def sound(y: np.ndarray, ref_db: float) -> bytes:
    """A spectrogram as a wav file."""
    from core.media import vocoder

    s = LogMel(bands=y.shape[1])
    return waveforms.wav_bytes(vocoder.to_sound(y, ref_db, s)[0], s.rate, f"made from a spectrogram of {s.bands} bands")


def said(c: Corpus, row: int) -> dict[str, str]:
    """What the raters of a clip voted: of voice, face, both -> the emotion; a tie names all that are tied."""
    return dict(zip(labels.VOTED, map(str, c.votes[row]))) if c.rated else {}


# ------------------------------------------------------------------ the media that a clip was made from


@dataclass(frozen=True)
class Original:
    """A clip as it was recorded, or drawn."""

    frame: np.ndarray | None  # (h, w, 3) uint8
    wav: bytes | None
    facts: dict[str, str]  # intensity, statement, files
    note: str = ""  # in words, what is missing


def original(c: Corpus, row: int) -> Original:
    """A clip's frame in the middle and its whole sound, if its source is where it was when it was prepared."""
    side = splits.folder() / f"{c.stem}.source.json"
    return _original(*_path(c.stem), side.stat().st_mtime_ns if side.exists() else 0, c.meta["name"], str(c.clip[row]))


@st.cache_resource(show_spinner=False, max_entries=32)
def _original(path: Path, changed: int, told: int, name: str, clip: str) -> Original:
    if splits.is_drawn(name):
        return _drawn(path.stem, clip)
    source, media = _source(path.with_name(f"{path.stem}.source.json"), told)
    if clip not in media:
        return Original(None, None, {}, "It is not known where its source lies. Prepare the corpus again, and the originals are found.")
    m = {k: v for k, v in media[clip].items() if isinstance(v, str)}
    facts = {k: m[k] for k in ("intensity", "statement") if m.get(k)}
    facts |= {k: m[k].removeprefix(source).lstrip("/!") for k in dict.fromkeys(("video", "audio")) if m.get(k)}
    from core.media import clips

    frame, wav, note = None, None, ""
    if not Path(source).exists():
        return Original(None, None, facts, f"Its source is no longer at {source}: only what was prepared can be shown.")
    try:
        middle = None
        if m.get("audio"):
            with corpora.media_file(m["audio"]) as file:
                wave = clips.read_waveform(file)
            middle = spectrograms.middle_time(len(wave) / LogMel().rate)
            wav = waveforms.wav_bytes(wave, LogMel().rate, f"a recording: {clip} of {name}")
        if m.get("video"):
            with corpora.media_file(m["video"]) as file:
                near = clips.read_clip(file, clips.Limits(near=middle) if middle is not None else clips.Limits())
            frame = near.frames[len(near.frames) // 2]
    except (clips.MediaError, OSError, KeyError, zipfile.BadZipFile) as e:
        note = f"Its source cannot be read any more: {e}"
    return Original(frame, wav, facts, note)


def _drawn(stem: str, clip: str) -> Original:
    """The invented corpus has no media: its clips are drawn again."""
    from core.data.demo import actors

    take = next((t for t in actors.takes(splits.of_stem(stem)[1] or 10) if t.clip_id == clip), None)
    if take is None:
        return Original(None, None, {}, "It was drawn by another version of this project.")
    wave = actors.voice(take)
    frame = actors.face(take, t=spectrograms.middle_time(len(wave) / LogMel().rate))[0]
    return Original(frame, waveforms.wav_bytes(wave, LogMel().rate, f"invented: {clip}"), {"intensity": f"{take.strength:.2f} of 1"})


@st.cache_resource(show_spinner=False, max_entries=4)
def _source(path: Path, told: int) -> tuple[str, dict[str, dict]]:
    """Where a corpus came from, and its clips' media; ("", {}) where that was not written down."""
    try:
        side = json.loads(path.read_text())
        return str(side["source"]), dict(side["clips"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}
