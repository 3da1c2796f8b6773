"""The gallery's cached data: the voices that a family of runs generates from a set's faces.

Also their sounds, the original recordings, and the files that a visitor can download.
"""

from __future__ import annotations

import dataclasses
import io
import json
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from core import files
from core.config.settings import Config, LogMel
from core.data import download, prepared_corpora
from core.data.corpora import KNOWN_CORPORA
from core.files import UserError
from core.inference.gallery import selection
from core.media import spectrograms, waveforms
from core.runs.directory import Run
from ui import theme
from ui.session import cache, corpora, images
from ui.session.cache import RunFamily, cache_by_run
from ui.widgets import charts, contact_sheet

if TYPE_CHECKING:
    from core.inference.gallery.generated_voices import GeneratedVoices
    from core.inference.gallery.real_items import ProgressCallback, RealItems, SetName
    from core.inference.generation import Audio

OPENING_TEXT = "Opening the gallery …"
MAX_CACHED_SETS = 8  # sets of families in memory
PICTURE_SCALE = 6  # pixels of a downloaded picture for one cell of a spectrogram
# Exceptions of a damaged run's readers.
LOAD_ERRORS = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile)

_compute_lock = threading.Lock()  # one set at a time: the server may compute one ahead of a visit


@dataclass(frozen=True)
class GallerySet:
    """One set of a family: its real side, and each member's generated voices."""

    members: dict[str, str]  # condition -> run id, those that could be opened
    real: RealItems
    generated: dict[str, GeneratedVoices]  # condition -> its voices
    config: Config
    ref_db: float
    broken: tuple[str, ...]  # messages of the members that could not be opened
    key: tuple  # cache key: folder, runs, set, modification times
    recordings: dict[str, np.ndarray]  # clip -> its recording (T,), of clips drawn anew

    @property
    def classes(self) -> tuple[str, ...]:
        return self.config.data.classes


@st.cache_resource(show_spinner=False)
def _set_cache() -> dict[tuple, GallerySet]:
    """The sets in memory, shared by all visitors, the oldest first."""
    return {}


def load_set(family: RunFamily, name: SetName, quietly: bool = False) -> GallerySet:
    """A set of a family. The first visit computes it, with a progress bar unless `quietly`.

    Leaving the page stops that work; its finished part is kept on disk. Raises UserError for a run
    without outputs or samples, or a set that is not on this machine.
    """
    config = cache.run_config(family.id)
    runs, changed = tuple(family.members.values()), _modification_times(family, config)
    key = (files.checkpoints_folder(), runs, name, changed)
    store = _set_cache()
    if key not in store:
        place = None if quietly else st.empty()
        show = (lambda share, words: None) if place is None else place.progress
        show(0.0, OPENING_TEXT)
        while not _compute_lock.acquire(timeout=0.2):
            show(0.0, OPENING_TEXT)  # lets Streamlit stop a page that its visitor has left
        try:
            if key not in store:
                store[key] = _compute_set(family, name, config, key, show)
        finally:
            _compute_lock.release()
        if place is not None:
            place.empty()
        for old in list(store)[:-MAX_CACHED_SETS]:
            store.pop(old, None)
    return store[key]


def _modification_times(family: RunFamily, config: Config) -> tuple[int, ...]:
    """Modification times of the family's corpora and results; 0 for a missing file."""
    names, takes = (config.data.faces, config.data.voices), config.data.demo_takes
    paths = [prepared_corpora.corpus_path(n, takes) for n in names]
    paths += [cache.run_by_id(run).directory / "results.json" for run in family.members.values()]
    return tuple(p.stat().st_mtime_ns if p.exists() else 0 for p in paths)


def has_corpora(s: GallerySet) -> bool:
    """Whether the run's faces are on this machine, and not the kept ones alone, drawn anew."""
    return bool(len(s.real.face)) and not s.real.missing


def has_real_side(family: RunFamily) -> bool:
    """Whether a family's faces and real voices can be shown: they are here, or can be drawn."""
    d = cache.run_config(family.id).data
    paths = (prepared_corpora.corpus_path(n, d.demo_takes) for n in (d.faces, d.voices))
    return all(map(prepared_corpora.is_demo, (d.faces, d.voices))) or all(p.exists() for p in paths)


def _draw_demo_items(
    run: Run, r: RealItems, report: ProgressCallback
) -> tuple[RealItems, dict[str, np.ndarray]]:
    """The kept items of a run on the demo corpus, their faces and real voices drawn anew.

    Also returns each clip's recording.
    """
    from core.inference import examples
    from core.inference.gallery.real_items import RealVoices

    classes, drawn = run.config.data.classes, []
    for i, label in enumerate(r.label):
        report(i / len(r), f"Drawing invented faces and voices: {i} of {len(r)}")
        number = int((r.label[:i] == label).sum())
        drawn.append(examples.load_face_example(run, classes[label], number))
    if any(one.face is None or one.real is None for one in drawn):
        return r, {}
    clip = np.array([one.name for one in drawn])
    real = RealVoices(np.stack([one.real for one in drawn]), r.label, r.subject, clip)
    face, beside = np.stack([one.face for one in drawn]), np.arange(len(drawn))
    r = dataclasses.replace(r, face=face, clip=clip, voices=real, voice_row=beside)
    return r, {one.name: one.wave for one in drawn if one.wave is not None}


def _compute_set(
    family: RunFamily, name: SetName, config: Config, key: tuple, show: Callable
) -> GallerySet:
    from core.inference import examples
    from core.inference.gallery import generated_voices, real_items

    run, parts = cache.run_by_id(family.id), len(family.members) + 1

    def progress_of(part: int) -> ProgressCallback:
        return lambda share, words: show(
            min(1.0, (part + share) / parts), f"{words} … kept for the next visit"
        )

    real = real_items.load_real_items(run, name, progress_of(0))
    recordings: dict[str, np.ndarray] = {}
    if real.missing and examples.is_demo(config):
        real, recordings = _draw_demo_items(run, real, progress_of(0))
    # Kept voices belong to kept faces; sampled for these few faces alone, they would be others.
    asked = dataclasses.replace(real, face=real.face[:0]) if real.missing else real
    generated, broken = {}, []
    for part, (condition, run_id) in enumerate(family.members.items(), 1):
        try:
            opened, progress = cache.load_run(run_id), progress_of(part)
            generated[condition] = generated_voices.load_generated_voices(opened, asked, progress)
        except LOAD_ERRORS as error:
            broken.append(str(error))
    if not generated:
        raise UserError(" ".join(broken))
    members = {c: family.members[c] for c in generated}
    ref_db = cache.load_run(next(iter(members.values()))).ref_db
    return GallerySet(members, real, generated, config, ref_db, tuple(broken), key, recordings)


def sheet_figure(s: GallerySet, items: Sequence[int], open_item: int) -> go.Figure:
    """The contact sheet of some items."""
    return _sheet_figure(s.key, tuple(items), open_item, s)


@charts.cache_figure
def _sheet_figure(key: tuple, items: tuple[int, ...], open_item: int, _s: GallerySet) -> go.Figure:
    s = _s
    return contact_sheet.build_figure(
        s.real, s.generated, items, s.classes, open_item, s.config.logmel
    )


# ------------------------------------------------------------------ missing corpora


def show_missing_corpora(s: GallerySet) -> None:
    """The corpora that are not on this machine, with links to get them; other notes on the set."""
    r, escape = s.real, theme.escape_markdown
    for note in r.notes:
        st.caption(f":material/info: {escape(note)}")
    for words in s.broken:
        st.warning(escape(words), icon=":material/warning:")
    if not r.missing:
        return
    empty = {"faces": not len(r.face), "real voices": not len(r.voices.y)}
    lost = " and no ".join(words for words, is_empty in empty.items() if is_empty)
    lost, more = f"no {lost} here.", f" You see the {len(r)} samples that come with the run."
    if len(r.face):
        lost, more = f"you see the {len(r)} faces and voices of the run's samples, drawn anew.", ""
    verb = "are" if len(r.missing) > 1 else "is"
    takes = s.config.data.demo_takes
    stems = [prepared_corpora.corpus_path(n, takes).stem for n in r.missing]
    names = f"**{' and '.join(escape(n) for n in stems)} {verb} not on this machine**"
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        words = f":material/folder_off: {names}: {lost}{more}"
        st.markdown(words, width="stretch")
        for corpus in r.missing:
            _show_corpus_link(corpus, takes)


def _show_corpus_link(corpus: str, demo_takes: int) -> None:
    """The way to get a corpus: a link to the page Data, or a command."""
    clips, bands = prepared_corpora.parse_name(corpus)
    if clips == "demo" and corpus != "demo":  # the page Data draws the demo in one size only
        command = prepared_corpora.prepare_command(corpus, demo_takes)
        st.code(command, language="bash", wrap_lines=True)
        return
    query = {"part": "corpora"}
    if clips != "demo":
        form = clips if clips in KNOWN_CORPORA else "folder"
        query = {"part": "bring", "form": form, "bands": str(bands)}
    look = {"label": corpus_link_label(corpus), "icon": ":material/database:"}
    st.page_link("pages/data.py", query_params=query, **look)


def corpus_link_label(corpus: str) -> str:
    """The label of a link to get a corpus, with its size."""
    if corpus == "demo":
        return "Draw the demo corpus (no download)"
    if prepared_corpora.parse_name(corpus)[0] == "ravdess":
        return f"Fetch RAVDESS ({download.AUDIO_ZIP[1] / 1e6:.0f} MB)"
    return f"Bring {theme.escape_markdown(corpus)}"


# ------------------------------------------------------------------ sounds


@cache_by_run(200)
def to_audio(directory: Path, y: np.ndarray, seed: int = 0, what: str = "") -> Audio:
    """The sound of a spectrogram; `what` it is becomes the WAV's comment, "" for none."""
    from core.inference import generation

    y = np.asarray(y, np.float32)
    return generation.to_audio(cache.load_run(directory.name), y, seed, what)


@cache_by_run(400)
def classify_voice(directory: Path, y: np.ndarray) -> dict[str, np.ndarray]:
    """The softmax (K,) of Q and of the scorer for one spectrogram."""
    from core.inference import generation

    batch = np.asarray(y, np.float32)[None]
    verdicts = generation.classify_samples(cache.load_run(directory.name), batch)
    return {who: o[0] for who, o in verdicts.items()}


def load_recording(s: GallerySet, clip: str) -> tuple[bytes, float] | str:
    """The part of a clip's recording that its spectrogram shows, as WAV, and its gain in dB.

    The gain (<= 0) keeps the peak below 0.95. A string tells why there is no recording.
    """
    data = s.config.data
    comment = f"a recording's middle: {clip} of {data.voices}"
    if clip in s.recordings:
        wave, m = s.recordings[clip], s.config.logmel
        return waveforms.crop_to_wav(wave, m.columns, m, comment=f"{comment}, invented")
    stem = prepared_corpora.corpus_path(data.voices, data.demo_takes).stem
    c = corpora.load_summary(stem)
    if isinstance(c, str):
        return c
    rows = np.nonzero(c.clip == clip)[0]
    if not len(rows):
        return "The clip is not in the corpus as prepared here."
    own = corpora.load_original(c, int(rows[0]))
    if own.wav is None:
        missing = "Its source is not on this machine: prepared corpora hold no recordings."
        return own.note or missing
    return _crop_recording(own.wav, s.config.logmel, comment)


@st.cache_data(show_spinner=False, max_entries=60)
def _crop_recording(wav: bytes, s: LogMel, comment: str) -> tuple[bytes, float]:
    import soundfile

    wave, _ = soundfile.read(io.BytesIO(wav), dtype="float32")
    return waveforms.crop_to_wav(wave, s.columns, s, comment=comment)


# ------------------------------------------------------------------ downloads


def items_csv(s: GallerySet, items: np.ndarray) -> str:
    """Some items as CSV, one per line."""
    return selection.to_csv(s.real, s.generated, items, s.classes)


def item_zip(s: GallerySet, i: int) -> bytes:
    """A zip of one item: face, each voice as WAV, NPY and PNG, the facts, the data's terms."""
    r, file = s.real, io.BytesIO()
    voices = {c: (s.members[c], np.asarray(one.y[i], np.float32)) for c, one in s.generated.items()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
        facts = selection.item_record(r, s.generated, i, s.classes, s.members)
        z.writestr("facts.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        z.writestr("TERMS.txt", terms_text(s))
        if len(r.face):
            z.writestr("face.png", images.png_bytes(r.face[i]))
            z.writestr("face.npy", images.npy_bytes(r.face[i]))
        if r.voice_row[i] >= 0:
            j, first = int(r.voice_row[i]), next(iter(s.members.values()))
            voices = {"real": (first, r.voices.y[j])} | voices
            original = load_recording(s, str(r.voices.clip[j]))
            if not isinstance(original, str):
                z.writestr("real-recording.wav", original[0])
        for name, (run_id, y) in voices.items():
            is_real, picture = name == "real", images.spectrogram_image(y)
            kinds = spectrograms.RESYNTHESIS_COMMENT, spectrograms.GENERATED_COMMENT
            z.writestr(f"{name}.wav", to_audio(run_id, y, 0, kinds[not is_real]).wav)
            z.writestr(f"{name}.npy", images.npy_bytes(y))
            large = images.enlarge(picture, PICTURE_SCALE)
            z.writestr(f"{name}.png", images.png_bytes(large))
    return file.getvalue()


def terms_text(s: GallerySet) -> str:
    """The origin of the faces and voices, and their terms of use."""
    records = cache.run_by_id(next(iter(s.members.values()))).json("corpus")
    lines = [
        f"{role}: {d.get('title', '')}; {d.get('licence', '')}; {d.get('source', '')}"
        for role, d in records.items()
    ]
    about = (
        "The folder's generated voices are nobody's; they fall under the terms of the data, "
        "as the model card of their run says."
    )
    return "\n".join([*lines, about, ""])
