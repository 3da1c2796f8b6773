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

from core.config import BAND_COUNTS, EMOTIONS, Config, DataSettings, LogMel
from core.data import labels, splits
from core.data.corpora import CorpusError
from core.data.sources import media_files
from core.media import spectrograms, waveforms

PER_CLIP_ARRAYS = ("clip", "subject", "sex", "emotion", "face_of", "voice_of")
CLIPS_PER_PAGE = 100  # clips in a table at once


@dataclass(frozen=True)
class CorpusSummary:
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
    def has_known_subject(self) -> np.ndarray:
        """(N,) whether it is known who is seen or heard."""
        groups = np.array(
            [bool(splits.UNKNOWN_SUBJECT.fullmatch(s)) or not s for s in np.unique(self.subject)],
            bool,
        )
        return ~groups[np.unique(self.subject, return_inverse=True)[1]]

    @cached_property
    def subjects(self) -> list[str]:
        return np.unique(self.subject[self.has_known_subject]).tolist()

    @cached_property
    def faces(self) -> int:
        return int((self.face_of >= 0).sum())

    @cached_property
    def voices(self) -> int:
        return int((self.voice_of >= 0).sum())

    @property
    def logmel(self) -> LogMel:
        """What its voices are."""
        return LogMel(bands=self.meta.get("bands", BAND_COUNTS[0]))

    @cached_property
    def has_votes(self) -> bool:
        return bool((self.votes != "").any())

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Clip -> why it is not here."""
        return {
            k: str(v)
            for k, v in self.meta.get("left_out", {}).items()
            if not k.startswith("landmarks/")
        }

    @cached_property
    def alignment_notes(self) -> dict[str, str]:
        """Emotion -> how many of its pictures were aligned without landmarks of their own."""
        return {
            k.removeprefix("landmarks/"): str(v)
            for k, v in self.meta.get("left_out", {}).items()
            if k.startswith("landmarks/")
        }


def prepared_stems() -> list[str]:
    """Files of prepared corpora, the demo first."""
    here = sorted(
        p.stem for p in splits.processed_folder().glob("*.npz") if not p.name.startswith(".")
    )
    return sorted(here, key=lambda s: not s.startswith("demo-"))


def _path_and_mtime(stem: str) -> tuple[Path, int]:
    """Where a corpus of `prepared_stems` lies, and what changes when it does."""
    path = splits.processed_folder() / f"{stem}.npz"
    try:
        return path, path.stat().st_mtime_ns
    except OSError:
        return path, 0


def load_summary(stem: str) -> CorpusSummary | str:
    """A corpus of `prepared_stems`, or in words why it cannot be read."""
    return _load_summary(*_path_and_mtime(stem))


@st.cache_resource(show_spinner=False, max_entries=16)
def _load_summary(path: Path, changed: int) -> CorpusSummary | str:
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as z:
            small, meta = {k: z[k] for k in PER_CLIP_ARRAYS}, json.loads(str(z["meta"]))
            votes = z["votes"] if "votes" in z.files else np.zeros((0, 3), "<U1")
        whole = {"name", "digest", "ref_db"} <= set(meta) and meta.get(
            "bands", BAND_COUNTS[0]
        ) in BAND_COUNTS
        if len({len(a) for a in small.values()}) != 1 or not whole:
            raise ValueError("its parts do not fit together")
        return CorpusSummary(path.stem, meta, votes=votes, **small)
    except Exception as e:  # a damaged file makes zip, zlib and NumPy's header raise what they like
        return _damage_message(path, e)


def _damage_message(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({error}). Remove it and prepare the corpus again."


def overview_table(found: dict[str, CorpusSummary]) -> dict[str, list]:
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


def possible_pairs(stem: str, found: dict[str, CorpusSummary]) -> dict[str, tuple[str, str]]:
    """What a corpus can be split with: words -> files of the faces and of the voices."""
    own, pairs = found[stem], {}
    if own.faces and own.voices:
        pairs["its own faces and voices"] = (stem, stem)
    clips = {stem: splits.parse_name(c.meta["name"])[0] for stem, c in found.items()}
    for other, c in sorted(found.items(), key=lambda f: clips[f[0]] == "demo"):  # real ones first
        if (
            clips[other] == clips[stem]
        ):  # the same clips in other bands or, drawn, more of them: a run knows one such file
            continue
        if own.faces and c.voices:
            pairs[f"its faces with the voices of {other}"] = (stem, other)
        if own.voices and c.faces:
            pairs[f"its voices with the faces of {other}"] = (other, stem)
    return {k: v for k, v in pairs.items() if set(found[v[0]].emotions) & set(found[v[1]].emotions)}


def data_settings(pair: tuple[str, str], found: dict[str, CorpusSummary], **more) -> DataSettings:
    """The settings of a run on the faces and voices of two corpora (of one, perhaps)."""
    faces, voices = (found[p] for p in pair)
    takes = [n for p in pair if (n := splits.parse_stem(p)[1])]
    both = pair[0] == pair[1] and bool(((faces.face_of >= 0) & (faces.voice_of >= 0)).any())
    shared = tuple(e for e in faces.emotions if e in voices.emotions)
    known = {
        "faces": faces.meta["name"],
        "voices": voices.meta["name"],
        "classes": shared,
        "demo_takes": (takes or [10])[0],
    }
    return DataSettings(**known, pairing="clip" if both else "emotion", **more)


def set_table(pair: tuple[str, str], data: DataSettings) -> dict | str:
    """Who is in S1-S4, as `datasets.set_table` says, or in words why there are no such sets."""
    voices = load_summary(pair[1])
    s = voices.logmel if isinstance(voices, CorpusSummary) else LogMel()
    return _set_table(
        tuple(_path_and_mtime(p) for p in pair), data, replace(s, columns=28)
    )  # the shortest: only names are asked for


@st.cache_data(show_spinner="Parting the people into four sets …", max_entries=64)
def _set_table(files: tuple[tuple[Path, int], ...], data: DataSettings, s: LogMel) -> dict | str:
    try:
        return splits.set_table(splits.build_sets(Config(data=data, logmel=s)))
    except CorpusError as e:
        return str(e)
    except Exception as e:  # see _opened
        return _damage_message(files[0][0], e)


def band_mismatch(config: Config) -> str:
    """Why a run's voices are not in the mel bands that it asks for, and what mends it; "" where they are."""
    name = config.data.voices
    here = load_summary(splits.corpus_path(name, config.data.demo_takes).stem)
    return splits.band_mismatch(
        name,
        here.logmel.bands if isinstance(here, CorpusSummary) else splits.parse_name(name)[1],
        config.logmel,
    )


# ------------------------------------------------------------------ clips


def select_clips(c: CorpusSummary, emotion: str, subject: str, text: str) -> np.ndarray:
    """Rows of the clips of an emotion and a subject whose name holds a text; "" is any."""
    keep = np.ones(len(c.clip), bool)
    for column, value in ((c.emotion, emotion), (c.subject, subject)):
        if value:
            keep &= column == value
    if text.strip():
        keep &= np.char.find(np.char.lower(c.clip), text.strip().lower()) >= 0
    return np.nonzero(keep)[0]


def clip_table(c: CorpusSummary, rows: np.ndarray) -> dict[str, list]:
    """Some clips with their faces, as a table."""
    out: dict[str, list] = {}
    if c.faces:
        x = _load_faces(*_path_and_mtime(c.stem))
        out["Face"] = [
            _png_data_url(x[c.face_of[i]]) if 0 <= c.face_of[i] < len(x) else "" for i in rows
        ]
    out |= {"Clip": c.clip[rows].tolist(), "Emotion": c.emotion[rows].tolist()}
    return out | (
        {"Subject": np.where(c.has_known_subject[rows], c.subject[rows], "").tolist()}
        if c.subjects
        else {}
    )


@st.cache_resource(show_spinner=False, max_entries=2)
def _load_faces(path: Path, changed: int) -> np.ndarray:
    """(n_x, 28, 28) uint8; none where that part of the file is damaged."""
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as z:
            return z["faces"]
    except Exception:  # see _opened; whoever opens such a clip is told
        return np.zeros((0, 28, 28), np.uint8)


def _png_data_url(face: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(face).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def load_face(c: CorpusSummary, row: int) -> np.ndarray | str:
    """(28, 28) uint8 of a clip, or in words why not."""
    return _read_array_row(*_path_and_mtime(c.stem), "faces", int(c.face_of[row]))


def load_voice(c: CorpusSummary, row: int) -> np.ndarray | str:
    """A clip's spectrogram (112, bands) in [-1, 1], or in words why not."""
    db = _read_array_row(*_path_and_mtime(c.stem), "voices", int(c.voice_of[row]))
    return db if isinstance(db, str) else spectrograms.scale(db, c.meta["ref_db"], c.logmel)


@st.cache_data(show_spinner=False, max_entries=200)
def _read_array_row(path: Path, changed: int, array: str, i: int) -> np.ndarray | str:
    """One row of a large array, without the memory for all."""
    try:
        with zipfile.ZipFile(path) as z, z.open(f"{array}.npy") as f:
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, fortran, kind = read[np.lib.format.read_magic(f)](f)
            if fortran or kind.hasobject or not 0 <= i < shape[0]:
                raise ValueError(f"it has no row {i} of {array}")
            size = kind.itemsize * int(np.prod(shape[1:]))
            f.seek(i * size, io.SEEK_CUR)
            return np.frombuffer(f.read(size), kind).reshape(shape[1:])
    except Exception as e:  # see _opened
        return _damage_message(path, e)


@st.cache_data(show_spinner=False, max_entries=60)
def to_wav(y: np.ndarray, ref_db: float) -> bytes:
    """A spectrogram as a wav file."""
    from core.media import vocoder

    s = LogMel(bands=y.shape[1])
    return waveforms.wav_bytes(
        vocoder.to_waveform(y, ref_db, s)[0], s.rate, f"made from a spectrogram of {s.bands} bands"
    )


def rater_votes(c: CorpusSummary, row: int) -> dict[str, str]:
    """What the raters of a clip voted: of voice, face, both -> the emotion; a tie names all that are tied."""
    return dict(zip(labels.VOTE_MODALITIES, map(str, c.votes[row]))) if c.has_votes else {}


# ------------------------------------------------------------------ the media that a clip was made from


@dataclass(frozen=True)
class OriginalClip:
    """A clip as it was recorded, or drawn."""

    frame: np.ndarray | None  # (h, w, 3) uint8
    wav: bytes | None
    facts: dict[str, str]  # intensity, statement, files
    note: str = ""  # in words, what is missing


def load_original(c: CorpusSummary, row: int) -> OriginalClip:
    """A clip's frame in the middle and its whole sound, if its source is where it was when it was prepared."""
    side = splits.processed_folder() / f"{c.stem}.source.json"
    return _load_original(
        *_path_and_mtime(c.stem),
        side.stat().st_mtime_ns if side.exists() else 0,
        c.meta["name"],
        str(c.clip[row]),
    )


@st.cache_resource(show_spinner=False, max_entries=32)
def _load_original(path: Path, changed: int, told: int, name: str, clip: str) -> OriginalClip:
    if splits.is_demo(name):
        return _render_demo_clip(path.stem, clip)
    source, media = _load_source_record(path.with_name(f"{path.stem}.source.json"), told)
    if clip not in media:
        return OriginalClip(
            None,
            None,
            {},
            "It is not known where its source lies. Prepare the corpus again, and the originals are found.",
        )
    m = {k: v for k, v in media[clip].items() if isinstance(v, str)}
    facts = {k: m[k] for k in ("intensity", "statement") if m.get(k)}
    facts |= {
        k: m[k].removeprefix(source).lstrip("/!")
        for k in dict.fromkeys(("video", "audio"))
        if m.get(k)
    }
    from core.media import clips, containers

    frame, wav, note = None, None, ""
    if not Path(source).exists():
        return OriginalClip(
            None,
            None,
            facts,
            f"Its source is no longer at {source}: only what was prepared can be shown.",
        )
    try:
        middle = None
        if m.get("audio"):
            with media_files.media_file(m["audio"]) as file:
                wave = clips.read_waveform(file)
            middle = spectrograms.centre_time(len(wave) / LogMel().rate)
            wav = waveforms.wav_bytes(wave, LogMel().rate, f"a recording: {clip} of {name}")
        if m.get("video"):
            with media_files.media_file(m["video"]) as file:
                near = clips.read_clip(
                    file,
                    containers.Limits(near=middle) if middle is not None else containers.Limits(),
                )
            frame = near.frames[len(near.frames) // 2]
    except (containers.MediaError, OSError, KeyError, zipfile.BadZipFile) as e:
        note = f"Its source cannot be read any more: {e}"
    return OriginalClip(frame, wav, facts, note)


def _render_demo_clip(stem: str, clip: str) -> OriginalClip:
    """The invented corpus has no media: its clips are drawn again."""
    from core.data.demo import actors

    take = next(
        (t for t in actors.list_takes(splits.parse_stem(stem)[1] or 10) if t.clip_id == clip), None
    )
    if take is None:
        return OriginalClip(None, None, {}, "It was drawn by another version of this project.")
    wave = actors.synthesise_voice(take)
    frame = actors.render_face(take, t=spectrograms.centre_time(len(wave) / LogMel().rate))[0]
    return OriginalClip(
        frame,
        waveforms.wav_bytes(wave, LogMel().rate, f"invented: {clip}"),
        {"intensity": f"{take.strength:.2f} of 1"},
    )


@st.cache_resource(show_spinner=False, max_entries=4)
def _load_source_record(path: Path, told: int) -> tuple[str, dict[str, dict]]:
    """Where a corpus came from, and its clips' media; ("", {}) where that was not written down."""
    try:
        side = json.loads(path.read_text())
        return str(side["source"]), dict(side["clips"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}
