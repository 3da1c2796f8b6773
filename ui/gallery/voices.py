"""The gallery's data, kept: what a family of runs made of a set's faces, sounds, originals, and the files that are taken away."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from core import files
from core.config import Config, LogMel
from core.data import download, splits
from core.data.corpora import KNOWN_CORPORA
from core.inference import selection
from core.media import spectrograms, waveforms
from ui import theme
from ui.session import cache, corpora
from ui.session.cache import RunFamily
from ui.widgets import charts, contact_sheet

if TYPE_CHECKING:
    from core.inference.gallery import GeneratedVoices, ProgressCallback, RealItems, SetName
    from core.inference.generation import Audio

OPENING_TEXT = "Opening the gallery …"
MAX_CACHED_SETS = 8  # sets of families in memory
LOAD_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    zipfile.BadZipFile,
)  # what a damaged run makes its readers raise


_compute_lock = threading.Lock()  # one at a time: the server may do it ahead of the first visit


@dataclass(frozen=True)
class GallerySet:
    """One set of a family: its real side, and what each member made of it."""

    members: dict[str, str]  # condition -> run id, those that could be opened
    real: RealItems
    made: dict[str, GeneratedVoices]  # condition -> its voices
    config: Config
    ref_db: float
    broken: tuple[str, ...]  # in words, members that could not be opened
    key: tuple  # what all of it depends on

    @property
    def classes(self) -> tuple[str, ...]:
        return self.config.data.classes


@st.cache_resource(show_spinner=False)
def _set_cache() -> dict[tuple, GallerySet]:
    """What is in memory, for all visitors, the oldest first."""
    return {}


def load_set(family: RunFamily, name: SetName, quietly: bool = False) -> GallerySet:
    """A set of a family. The first visit computes, with a bar; leaving the page ends that, and what is done is kept on disk.

    `quietly`, ahead of any visit: without the bar. Who comes meanwhile waits for it, and may leave.

    Raises ValueError in words: a run without outputs or samples, or a set of which nothing is here.
    """
    config = cache.run_config(family.id)
    key = (
        files.checkpoints_folder(),
        tuple(family.members.values()),
        name,
        _modification_times(family, config),
    )
    store = _set_cache()
    if key not in store:
        place = None if quietly else st.empty()
        say = (
            (lambda share, words: None)
            if place is None
            else (lambda share, words: place.progress(share, words))
        )
        say(0.0, OPENING_TEXT)
        while not _compute_lock.acquire(timeout=0.2):
            say(0.0, OPENING_TEXT)
        try:
            if key not in store:
                store[key] = _compute_set(family, name, config, key, say)
        finally:
            _compute_lock.release()
        if place is not None:
            place.empty()
        for old in list(store)[:-MAX_CACHED_SETS]:
            store.pop(old, None)
    return store[key]


def _modification_times(family: RunFamily, config: Config) -> tuple[int, ...]:
    """What changes when a corpus or a run does."""
    files = [
        splits.corpus_path(n, config.data.demo_takes)
        for n in (config.data.faces, config.data.voices)
    ]
    files += [cache.run_by_id(run).directory / "results.json" for run in family.members.values()]
    return tuple(f.stat().st_mtime_ns if f.exists() else 0 for f in files)


def _compute_set(
    family: RunFamily, name: SetName, config: Config, key: tuple, say: ProgressCallback
) -> GallerySet:
    from core.inference import gallery

    parts = len(family.members) + 1

    def tell(part: int):
        return lambda share, words: say(
            min(1.0, (part + share) / parts), f"{words} … kept for the next visit"
        )

    real = gallery.load_real_items(cache.run_by_id(family.id), name, tell(0))
    made, broken = {}, []
    for part, (condition, run_id) in enumerate(family.members.items(), 1):
        try:
            made[condition] = gallery.load_generated_voices(
                cache.load_run(run_id), real, tell(part)
            )
        except LOAD_ERRORS as error:
            broken.append(str(error))
    if not made:
        raise ValueError(" ".join(broken))
    members = {c: family.members[c] for c in made}
    return GallerySet(
        members,
        real,
        made,
        config,
        cache.load_run(next(iter(members.values()))).ref_db,
        tuple(broken),
        key,
    )


def sheet_figure(s: GallerySet, items: Sequence[int], looked_at: int) -> go.Figure:
    """The contact sheet of some items."""
    return _sheet_figure(s.key, tuple(items), looked_at, s)


@charts.cache_figure
def _sheet_figure(key: tuple, items: tuple[int, ...], looked_at: int, _s: GallerySet) -> go.Figure:
    return contact_sheet.build_figure(
        _s.real, _s.made, items, _s.classes, looked_at, _s.config.logmel
    )


# ------------------------------------------------------------------ what is not here


def show_missing_corpora(s: GallerySet) -> None:
    """Which real clips are not on this machine, what can be seen all the same, and the way to them."""
    r = s.real
    for note in r.notes:
        st.caption(f":material/info: {theme.escape_markdown(note)}")
    for words in s.broken:
        st.warning(theme.escape_markdown(words), icon=":material/warning:")
    if not r.missing:
        return
    lost = [
        w for w, gone in (("faces", not len(r.face)), ("real voices", not len(r.voices.y))) if gone
    ]
    more = "" if len(r.face) else f" You see the {len(r)} samples that come with the run."
    names = " and ".join(theme.escape_markdown(n) for n in r.missing)
    said = f"**{names} {'are' if len(r.missing) > 1 else 'is'} not on this machine**: no {' and no '.join(lost)} here.{more}"
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f":material/folder_off: {said}", width="stretch")
        for corpus in r.missing:
            clips, bands = splits.parse_name(corpus)
            if clips == "demo" and corpus != "demo":  # the page Data draws the paper's size alone
                st.code(
                    splits.prepare_command(corpus, s.config.data.demo_takes),
                    language="bash",
                    wrap_lines=True,
                )
                continue
            query = {
                "part": "bring",
                "form": clips if clips in KNOWN_CORPORA else "folder",
                "bands": str(bands),
            }
            query = {"part": "corpora"} if clips == "demo" else query
            st.page_link(
                "pages/data.py",
                label=corpus_link_label(corpus),
                icon=":material/database:",
                query_params=query,
            )


def corpus_link_label(corpus: str) -> str:
    """How a corpus comes here, with its size."""
    if corpus == "demo":
        return "Draw the demo corpus (no download)"
    if splits.parse_name(corpus)[0] == "ravdess":
        return f"Fetch RAVDESS ({download.AUDIO_SPEECH_ZIP[1] / 1e6:.0f} MB)"
    return f"Bring {theme.escape_markdown(corpus)}"


# ------------------------------------------------------------------ sounds


def to_audio(
    run_id: str, y: np.ndarray, seed: int = 0, what: str = "", plain: bool = False
) -> Audio:
    """A spectrogram of this family made audible; `what` it is stands in the file, with "" nothing."""
    return _to_audio(files.checkpoints_folder() / run_id, y, seed, what, plain)


@st.cache_resource(show_spinner=False, max_entries=200)
def _to_audio(directory: Path, y: np.ndarray, seed: int, what: str, plain: bool) -> Audio:
    from core.inference import generation

    return generation.to_audio(
        cache.load_run(directory.name), np.asarray(y, np.float32), seed, what, plain
    )


def classify_voice(run_id: str, y: np.ndarray) -> dict[str, np.ndarray]:
    """What Q and the scorer hear in one spectrogram: name -> (K,)."""
    return _classify_voice(files.checkpoints_folder() / run_id, y)


@st.cache_data(show_spinner=False, max_entries=400)
def _classify_voice(directory: Path, y: np.ndarray) -> dict[str, np.ndarray]:
    from core.inference import generation

    return {
        k: o[0]
        for k, o in generation.classify_samples(
            cache.load_run(directory.name), np.asarray(y, np.float32)[None]
        ).items()
    }


def load_recording(s: GallerySet, clip: str) -> tuple[bytes, float] | str:
    """The part of a clip's own recording that its spectrogram shows, at its own level, and the dB that a peak above 0.95 took from it.

    Or in words why it is not here.
    """
    stem = splits.corpus_path(s.config.data.voices, s.config.data.demo_takes).stem
    c = corpora.load_summary(stem)
    if isinstance(c, str):
        return c
    rows = np.nonzero(c.clip == clip)[0]
    if not len(rows):
        return "The clip is not in the corpus as prepared here."
    own = corpora.load_original(c, int(rows[0]))
    if own.wav is None:
        return (
            own.note
            or "Its source is not on this machine: prepared corpora keep spectrograms, no recordings."
        )
    return _crop_recording(
        own.wav, s.config.logmel, f"a recording's middle: {clip} of {s.config.data.voices}"
    )


@st.cache_data(show_spinner=False, max_entries=60)
def _crop_recording(wav: bytes, s: LogMel, comment: str) -> tuple[bytes, float]:
    import soundfile

    wave, _ = soundfile.read(io.BytesIO(wav), dtype="float32")
    return waveforms.crop_to_wav(wave, s.columns, s, comment=comment)


# ------------------------------------------------------------------ to take away


def items_csv(s: GallerySet, items: np.ndarray) -> str:
    """Some items as csv."""
    return selection.to_csv(s.real, s.made, items, s.classes)


def item_zip(s: GallerySet, i: int) -> bytes:
    """A zip of one item: its face, every voice as wav, npy and png, the facts, and the terms of the data."""
    r, file = s.real, io.BytesIO()
    voices = {c: (s.members[c], np.asarray(one.y[i], np.float32)) for c, one in s.made.items()}
    first = next(iter(s.members.values()))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(
            "facts.json",
            json.dumps(
                selection.item_record(r, s.made, i, s.classes, s.members),
                indent=1,
                ensure_ascii=False,
            )
            + "\n",
        )
        z.writestr("TERMS.txt", terms_text(s))
        if len(r.face):
            z.writestr("face.png", contact_sheet.png_bytes(r.face[i]))
            z.writestr("face.npy", _npy_bytes(r.face[i]))
        if r.voice_row[i] >= 0:
            voices = {"real": (first, r.voices.y[r.voice_row[i]])} | voices
            original = load_recording(s, str(r.voices.clip[r.voice_row[i]]))
            if not isinstance(original, str):
                z.writestr("real-recording.wav", original[0])
        for name, (run_id, y) in voices.items():
            z.writestr(
                f"{name}.wav",
                to_audio(
                    run_id,
                    y,
                    what=spectrograms.RESYNTHESIS_COMMENT
                    if name == "real"
                    else spectrograms.GENERATED_COMMENT,
                ).wav,
            )
            z.writestr(f"{name}.npy", _npy_bytes(y))
            z.writestr(
                f"{name}.png",
                contact_sheet.png_bytes(
                    np.kron(contact_sheet.spectrogram_image(y), np.ones((6, 6, 1), np.uint8))
                ),
            )
    return file.getvalue()


def _npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def terms_text(s: GallerySet) -> str:
    """Where the faces and voices come from, and under which terms."""
    lines = [
        f"{role}: {d.get('title', '')}; {d.get('licence', '')}; {d.get('source', '')}"
        for role, d in corpus_records(s).items()
    ]
    about = "The folder's generated voices are nobody's; they fall under the terms of the data, as the model card of their run says."
    return "\n".join([*lines, about, ""])


def corpus_records(s: GallerySet) -> dict[str, dict]:
    return cache.run_by_id(next(iter(s.members.values()))).json("corpus")


def verdict_html(o: np.ndarray, label: int, classes: Sequence[str], who: str) -> str:
    """One verdict as HTML."""
    k = int(o.argmax())
    mark = "✓" if k == label else "✕"
    return f"{who} {theme.emotion_html(classes[k])} <b>{o[k]:.0%}</b> {mark}"
