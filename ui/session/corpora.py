"""Cached access to prepared corpora.

Only the arrays that a view needs are read from a file, and kept until the file changes.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import streamlit as st

from core import files
from core.config.settings import BAND_COUNTS, EMOTIONS, Config, DataSettings, LogMel
from core.data import labels, prepared_corpora, splits
from core.data.corpora import CorpusError
from core.data.sources import media_files
from core.media import spectrograms, waveforms
from ui.session import images

PER_CLIP_ARRAYS = ("clip", "subject", "sex", "emotion", "face_of", "voice_of")
CLIPS_PER_PAGE = 100  # clips of one page of a table


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
    def title(self) -> str:
        """Its name for people; two demo corpora differ in their takes."""
        takes = prepared_corpora.parse_stem(self.stem)[1]
        more = f", {takes} take{'s' * (takes != 1)} of each emotion" if takes else ""
        return f"{self.meta.get('title', self.stem)}{more}"

    @cached_property
    def emotions(self) -> list[str]:
        return [e for e in EMOTIONS if e in set(self.emotion.tolist())]

    @cached_property
    def has_known_subject(self) -> np.ndarray:
        """(N,) whether a clip's subject is known."""
        names, index = np.unique(self.subject, return_inverse=True)
        known = [bool(s) and not splits.UNKNOWN_SUBJECT.fullmatch(s) for s in names]
        return np.array(known, bool)[index]

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
        """Settings of its spectrograms."""
        return LogMel(bands=self.meta.get("bands", BAND_COUNTS[0]))

    @cached_property
    def has_votes(self) -> bool:
        return bool((self.votes != "").any())

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Clip -> why it was left out."""
        notes = self.meta.get("left_out", {})
        return {k: str(v) for k, v in notes.items() if not k.startswith("landmarks/")}

    @cached_property
    def alignment_notes(self) -> dict[str, str]:
        """Emotion -> how many of its pictures were aligned without landmarks of their own."""
        notes, prefix = self.meta.get("left_out", {}), "landmarks/"
        return {k.removeprefix(prefix): str(v) for k, v in notes.items() if k.startswith(prefix)}


def prepared_stems() -> list[str]:
    """Files of prepared corpora without .npz, the demo first."""
    paths = prepared_corpora.processed_folder().glob("*.npz")
    stems = sorted(p.stem for p in paths if not p.name.startswith("."))
    return sorted(stems, key=lambda s: not s.startswith("demo-"))


def path_and_mtime(stem: str) -> tuple[Path, int]:
    """A corpus' file and its modification time in ns, 0 for a missing file."""
    path = prepared_corpora.processed_folder() / f"{stem}.npz"
    try:
        return path, path.stat().st_mtime_ns
    except OSError:
        return path, 0


def load_summary(stem: str) -> CorpusSummary | str:
    """A corpus of `prepared_stems`, or why it cannot be read."""
    return _load_summary(*path_and_mtime(stem))


@st.cache_resource(show_spinner=False, max_entries=16)
def _load_summary(path: Path, changed: int) -> CorpusSummary | str:
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as z:
            small, meta = {k: z[k] for k in PER_CLIP_ARRAYS}, json.loads(str(z["meta"]))
            votes = z["votes"] if "votes" in z.files else np.zeros((0, 3), "<U1")
        known_bands = meta.get("bands", BAND_COUNTS[0]) in BAND_COUNTS
        is_complete = known_bands and {"name", "digest", "ref_db"} <= set(meta)
        if len({len(a) for a in small.values()}) != 1 or not is_complete:
            raise ValueError("its parts do not fit together")
        return CorpusSummary(path.stem, meta, votes=votes, **small)
    except Exception as e:  # zip, zlib and NumPy raise anything for a damaged file
        return _damage_message(path, e)


def _damage_message(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({error}). Remove it and prepare the corpus again."


def overview_table(found: dict[str, CorpusSummary]) -> dict[str, list]:
    """All corpora as a table."""
    rows = found.values()
    return {
        "Name": list(found),
        "Title": [c.title for c in rows],
        "Clips": [len(c.clip) for c in rows],
        "Faces": [c.faces for c in rows],
        "Voices": [c.voices for c in rows],
        "Subjects": [f"{len(c.subjects):,}" if c.subjects else "unknown" for c in rows],
        "Emotions": [len(c.emotions) for c in rows],
        "Left out": [len(c.left_out) for c in rows],
        "Licence": [c.meta.get("licence", "") for c in rows],
        "Digest": [c.meta["digest"] for c in rows],
    }


# ------------------------------------------------------------------ the sets S1 to S4


def possible_pairs(stem: str, found: dict[str, CorpusSummary]) -> dict[str, tuple[str, str]]:
    """Pairs of files that can be split: label -> files of the faces and of the voices.

    Real corpora come first. Other files of the same clips (other mel bands, or more takes of the
    demo) are not paired, because a run uses one of them.
    """
    own, pairs = found[stem], {}
    if own.faces and own.voices:
        pairs["its own faces and voices"] = (stem, stem)
    clips = {k: prepared_corpora.parse_name(c.meta["name"])[0] for k, c in found.items()}
    for other, c in sorted(found.items(), key=lambda f: clips[f[0]] == "demo"):
        if clips[other] == clips[stem]:
            continue
        if own.faces and c.voices:
            pairs[f"its faces with the voices of {other}"] = (stem, other)
        if own.voices and c.faces:
            pairs[f"its voices with the faces of {other}"] = (other, stem)
    return {k: v for k, v in pairs.items() if set(found[v[0]].emotions) & set(found[v[1]].emotions)}


def data_settings(pair: tuple[str, str], found: dict[str, CorpusSummary], **more) -> DataSettings:
    """Settings of a run on the faces of one corpus and the voices of another or the same."""
    faces, voices = (found[p] for p in pair)
    takes = [n for p in pair if (n := prepared_corpora.parse_stem(p)[1])]
    both = pair[0] == pair[1] and bool(((faces.face_of >= 0) & (faces.voice_of >= 0)).any())
    return DataSettings(
        faces=faces.meta["name"],
        voices=voices.meta["name"],
        classes=tuple(e for e in faces.emotions if e in voices.emotions),
        demo_takes=(takes or [10])[0],
        pairing="clip" if both else "emotion",
        **more,
    )


def set_table(pair: tuple[str, str], data: DataSettings) -> dict | str:
    """The subjects of S1-S4 as `splits.set_table` lists them, or why there are no such sets."""
    voices = load_summary(pair[1])
    s = voices.logmel if isinstance(voices, CorpusSummary) else LogMel()
    paths = tuple(path_and_mtime(p) for p in pair)
    return _set_table(paths, data, replace(s, columns=28))  # shortest: only names are needed


@st.cache_data(show_spinner="Splitting the subjects into four sets …", max_entries=64)
def _set_table(paths: tuple[tuple[Path, int], ...], data: DataSettings, s: LogMel) -> dict | str:
    try:
        return splits.set_table(splits.build_sets(Config(data=data, logmel=s)))
    except CorpusError as e:
        return str(e)
    except Exception as e:  # see _load_summary
        return _damage_message(paths[0][0], e)


def band_mismatch(config: Config) -> str:
    """Why a run's corpus lacks the mel bands that it needs, and the fix; "" if it has them."""
    name = config.data.voices
    here = load_summary(prepared_corpora.corpus_path(name, config.data.demo_takes).stem)
    is_readable = isinstance(here, CorpusSummary)
    bands = here.logmel.bands if is_readable else prepared_corpora.parse_name(name)[1]
    return prepared_corpora.band_mismatch(name, bands, config.logmel)


# ------------------------------------------------------------------ clips


def select_clips(c: CorpusSummary, emotion: str, subject: str, text: str) -> np.ndarray:
    """Rows of clips with this emotion and subject and this text in their name; "" is any."""
    keep = np.ones(len(c.clip), bool)
    for column, value in ((c.emotion, emotion), (c.subject, subject)):
        if value:
            keep &= column == value
    if text.strip():
        keep &= np.char.find(np.char.lower(c.clip), text.strip().lower()) >= 0
    return np.nonzero(keep)[0]


def clip_table(c: CorpusSummary, rows: np.ndarray) -> dict[str, list]:
    """Some clips with their faces, as a table."""
    table: dict[str, list] = {}
    if c.faces:
        x, places = _load_faces(*path_and_mtime(c.stem)), c.face_of[rows]
        table["Face"] = [images.png_data_url(x[i]) if 0 <= i < len(x) else "" for i in places]
    table |= {"Clip": c.clip[rows].tolist(), "Emotion": c.emotion[rows].tolist()}
    if c.subjects:
        table["Subject"] = np.where(c.has_known_subject[rows], c.subject[rows], "").tolist()
    return table


@st.cache_resource(show_spinner=False, max_entries=2)
def _load_faces(path: Path, changed: int) -> np.ndarray:
    """(n_x, 28, 28) uint8; empty where that part of the file is damaged."""
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as z:
            return z["faces"]
    except Exception:  # see _load_summary; load_face returns the message
        return np.zeros((0, 28, 28), np.uint8)


def load_face(c: CorpusSummary, row: int) -> np.ndarray | str:
    """(28, 28) uint8 of a clip, or why it cannot be read."""
    return read_array_row(*path_and_mtime(c.stem), "faces", int(c.face_of[row]))


def load_voice(c: CorpusSummary, row: int) -> np.ndarray | str:
    """A clip's spectrogram (112, bands) in [-1, 1], or why it cannot be read."""
    db = read_array_row(*path_and_mtime(c.stem), "voices", int(c.voice_of[row]))
    return db if isinstance(db, str) else spectrograms.scale(db, c.meta["ref_db"], c.logmel)


@st.cache_data(show_spinner=False, max_entries=200)
def read_array_row(path: Path, changed: int, array: str, i: int) -> np.ndarray | str:
    """One row of a large array, without loading the others."""
    try:
        with zipfile.ZipFile(path) as z, z.open(f"{array}.npy") as f:
            shape, kind = files.npy_header(f, c_order=True)
            if kind.hasobject or not 0 <= i < shape[0]:
                raise ValueError(f"it has no row {i} of {array}")
            size = kind.itemsize * int(np.prod(shape[1:]))
            f.seek(i * size, io.SEEK_CUR)
            return np.frombuffer(f.read(size), kind).reshape(shape[1:])
    except Exception as e:  # see _load_summary
        return _damage_message(path, e)


@st.cache_data(show_spinner=False, max_entries=60)
def to_wav(y: np.ndarray, ref_db: float) -> bytes:
    """A spectrogram's sound as WAV."""
    from core.media import vocoder

    s = LogMel(bands=y.shape[1])
    comment = f"made from a spectrogram of {s.bands} bands"
    return waveforms.wav_bytes(vocoder.to_waveform(y, ref_db, s)[0], s.rate, comment)


def rater_votes(c: CorpusSummary, row: int) -> dict[str, str]:
    """The raters' votes on a clip: voice, face, both -> the emotion; a tie names all tied ones."""
    return dict(zip(labels.VOTE_MODALITIES, map(str, c.votes[row]))) if c.has_votes else {}


# ------------------------------------------------------------------ a clip's original media


@dataclass(frozen=True)
class OriginalClip:
    """A clip as it was recorded or rendered."""

    frame: np.ndarray | None  # (h, w, 3) uint8
    wav: bytes | None
    facts: dict[str, str]  # intensity, statement, files
    note: str = ""  # the missing part, and the reason


def load_original(c: CorpusSummary, row: int) -> OriginalClip:
    """A clip's middle frame and its whole sound, if its source is still where it was."""
    path, changed = path_and_mtime(c.stem)
    record = path.with_name(f"{c.stem}.source.json")
    record_changed = record.stat().st_mtime_ns if record.exists() else 0
    return _load_original(path, changed, record_changed, c.meta["name"], str(c.clip[row]))


@st.cache_resource(show_spinner=False, max_entries=32)
def _load_original(
    path: Path, changed: int, record_changed: int, name: str, clip: str
) -> OriginalClip:
    if prepared_corpora.is_demo(name):
        return _render_demo_clip(path.stem, clip)
    source, media = _load_source_record(path.with_name(f"{path.stem}.source.json"), record_changed)
    if clip not in media:
        note = "It is not known where its source lies. Prepare the corpus again to see it."
        return OriginalClip(None, None, {}, note)
    m = {k: v for k, v in media[clip].items() if isinstance(v, str) and v}
    facts = {k: m[k] for k in ("intensity", "statement") if k in m}
    facts |= {k: m[k].removeprefix(source).lstrip("/!") for k in ("video", "audio") if k in m}
    if not Path(source).exists():
        note = f"Its source is no longer at {source}: only the prepared data can be shown."
        return OriginalClip(None, None, facts, note)
    return _read_original(m, facts, f"a recording: {clip} of {name}")


def _read_original(m: dict[str, str], facts: dict[str, str], comment: str) -> OriginalClip:
    """The frame and sound of the files "video" and "audio" of `m`."""
    from core.media import clips, containers

    frame, wav, note, limits, rate = None, None, "", containers.Limits(), LogMel().rate
    try:
        if "audio" in m:
            with media_files.media_file(m["audio"]) as file:
                wave = clips.read_waveform(file)
            limits = containers.Limits(near=spectrograms.centre_time(len(wave) / rate))
            wav = waveforms.wav_bytes(wave, rate, comment)
        if "video" in m:
            with media_files.media_file(m["video"]) as file:
                frames = clips.read_clip(file, limits).frames
            frame = frames[len(frames) // 2]
    except (containers.MediaError, OSError, KeyError, zipfile.BadZipFile) as e:
        note = f"Its source cannot be read any more: {e}"
    return OriginalClip(frame, wav, facts, note)


def _render_demo_clip(stem: str, clip: str) -> OriginalClip:
    """A clip of the demo corpus, which has no media: it is rendered again."""
    from core.data.demo import actors, expressions, voices

    takes = actors.list_takes(prepared_corpora.parse_stem(stem)[1] or 10)
    take = next((t for t in takes if t.clip_id == clip), None)
    if take is None:
        return OriginalClip(None, None, {}, "It was drawn by another version of this project.")
    wave, rate = voices.synthesise_voice(take), LogMel().rate
    frame = expressions.render_face(take, t=spectrograms.centre_time(len(wave) / rate))[0]
    wav = waveforms.wav_bytes(wave, rate, f"invented: {clip}")
    return OriginalClip(frame, wav, {"intensity": f"{take.strength:.2f} of 1"})


@st.cache_resource(show_spinner=False, max_entries=4)
def _load_source_record(path: Path, changed: int) -> tuple[str, dict[str, dict]]:
    """A corpus' source and its clips' media; ("", {}) without a readable record."""
    try:
        record = json.loads(path.read_text())
        return str(record["source"]), dict(record["clips"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}
