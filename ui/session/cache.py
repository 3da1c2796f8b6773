"""Cached access to runs and to what they generate.

torch is imported inside these functions, so that a page is shown before torch is loaded.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from core import files
from core.config.serialisation import family_hash
from core.config.settings import CONDITIONS, Config
from core.conformal import credibility, predictor
from core.conformal.credibility import CredibilityScale
from core.experiments import jobs
from core.files import UserError
from core.runs import store
from core.runs.directory import Run
from ui.session import reclaim

if TYPE_CHECKING:
    from core.inference.generation import AnalysedClip, Audio, Explanation, LoadedRun
    from core.inference.long_form import LongVoice

SHIPPED_NAMES = ("fer2013-ravdess", "demo")  # names of the shipped runs, the real one first
LIVE_STATES = ("queued", "running")  # states of a run that continues by itself
UPLOAD_FOLDER_PREFIX = "dacssgan-upload-"  # of uploads' temporary folders; the pid follows
LEFTOVER_SECONDS = 86_400  # age at which an upload's folder cannot belong to a live server


def cache_by_run(max_entries: int, spinner: str | bool = False, **options) -> Callable:
    """Cache a function whose first argument is a run's directory; it is called with the run's id.

    The directory is the cache's key, so two checkpoints folders never share an entry.
    `scope="session"` keeps the results for one visitor alone.
    """

    def decorate(function: Callable) -> Callable[..., Any]:
        options.update(max_entries=max_entries, show_spinner=spinner)
        cached = st.cache_resource(**options)(function)

        @functools.wraps(function)
        def call(run_id: str, *args):
            return cached(files.checkpoints_folder() / run_id, *args)

        return call

    return decorate


@dataclass
class _Place:
    """Where a result is kept that Streamlit's cache must not see being made."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    results: list[Any] = field(default_factory=list)  # one, or none yet


def cache_with_progress(max_entries: int, **options) -> Callable:
    """`cache_by_run` for a function that draws on the page while it works, such as a progress bar.

    Streamlit's cache draws what a function drew again whenever it finds the result, and fails
    where the place of it is gone. It keeps an empty place here, which is filled outside of it.
    Arguments whose name begins with `_` are no part of the key, as in Streamlit.
    """

    def decorate(function: Callable) -> Callable[..., Any]:
        def new_place(directory: Path, *key: Any) -> _Place:
            return _Place()

        # by its name Streamlit tells one function's results from another's
        new_place.__module__, new_place.__qualname__ = function.__module__, function.__qualname__
        place_of = cache_by_run(max_entries, **options)(new_place)
        in_key = [not name.startswith("_") for name in inspect.signature(function).parameters][1:]

        @functools.wraps(function)
        def call(run_id: str, *args):
            place = place_of(run_id, *(a for a, is_key in zip(args, in_key) if is_key))
            with place.lock:
                if not place.results:
                    place.results.append(function(files.checkpoints_folder() / run_id, *args))
            return place.results[0]

        return call

    return decorate


@st.cache_resource(show_spinner=False)
def prepare_server() -> None:
    """Remove a killed server's leftovers and index the shipped runs; once per server."""
    for folder in Path(tempfile.gettempdir()).glob(f"{UPLOAD_FOLDER_PREFIX}*"):
        owner = folder.name.removeprefix(UPLOAD_FOLDER_PREFIX).partition("-")[0]
        is_dead = owner.isdecimal() and not files.process_identity(int(owner))
        if is_dead or time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    store.index_existing()
    reclaim.start_thread()


# ------------------------------------------------------------------ runs


@dataclass(frozen=True)
class RunFamily:
    """Finished runs that differ in the condition alone."""

    name: str
    members: dict[str, str]  # condition -> run id, in the paper's order
    shipped: bool

    @property
    def id(self) -> str:
        """The member that stands for the whole family in a URL."""
        return self.members.get("cp") or next(iter(self.members.values()))

    @property
    def shown(self) -> list[str]:
        """The paper's three conditions, trained or not, and `none` where it is trained."""
        return [c for c in CONDITIONS if c != "none" or c in self.members]

    @property
    def label(self) -> str:
        return f"{self.name} · " + ("shipped" if self.shipped else self.id.rsplit("-", 1)[-1])


def run_rows() -> list[dict]:
    """All runs, newest first, each with its true state; starts the queue's worker if needed."""
    jobs.reconcile()
    jobs.start_queue_worker()
    return store.list_runs()


def families() -> list[RunFamily]:
    """Families with a finished run: the shipped real one, the demo, then the others, newest first.

    Runs that generate faces are not among them; the page Reverse shows those.
    """
    rows = [r for r in run_rows() if r["state"] == "done" and not r["archived"]]
    done = tuple((r["run"], r["condition"], r["shipped"]) for r in rows)
    return group_families(files.checkpoints_folder(), done)


@st.cache_data(show_spinner=False, max_entries=8)
def group_families(folder: Path, done: tuple[tuple[str, str, int], ...]) -> list[RunFamily]:
    groups: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
    # Of two runs with one condition the shipped one comes first, or else the newest.
    for run, condition, shipped in sorted(done, key=lambda r: -r[2]):
        try:
            config = Run(folder / run).config
        except UserError:
            continue
        if config.gan.direction == "face-voice":
            group = groups.setdefault((config.name, family_hash(config)), [])
            group.append((run, condition, shipped))
    found = []
    for (name, _), group in groups.items():
        first = {k: run for run, k, _ in reversed(group)}
        members = {c: first[c] for c in CONDITIONS if c in first}
        found.append(RunFamily(name, members, any(s for *_, s in group)))
    rank = {name: i for i, name in enumerate(SHIPPED_NAMES)}
    return sorted(found, key=lambda f: (not f.shipped, rank.get(f.name, len(rank))))


def run_by_id(run_id: str) -> Run:
    """A run by an id from `run_rows` or `families`, never by one from a URL."""
    return Run(files.checkpoints_folder() / run_id)


def run_config(run_id: str) -> Config:
    return run_by_id(run_id).config


@cache_by_run(12, "Opening the trained networks …")
def load_run(directory: Path) -> LoadedRun:
    """A finished run's networks, shared by all visitors.

    Raises UserError that names a missing or damaged file.
    """
    import torch

    from core.inference import generation

    # A single face is little work: more threads would only wait for a training's or a visitor's.
    torch.set_num_threads(1)
    try:
        return generation.load_run(Run(directory))
    except UserError as error:  # a page does not tell where the runs lie
        raise UserError(str(error).replace(f"{directory.parent}{os.sep}", "")) from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        file = "corpus.json" if isinstance(error, json.JSONDecodeError) else "outputs.npz"
        words = f"{directory.name}/{file} is damaged ({error})"
        raise UserError(f"{words}: restore the file, or train the run again") from error


@cache_by_run(24)
def credibility_scale(directory: Path) -> CredibilityScale:
    """The possible credibilities of a run's predictor, and those of its test points."""
    run = Run(directory)
    return credibility.scale(predictor.of_run(run), run.arrays().get("p_S4"))


# ------------------------------------------------------------------ voices, kept for one session


@dataclass(frozen=True)
class GeneratedVoice:
    """One generated spectrogram with its sound and the scorer's verdict."""

    c: np.ndarray  # (K,) the generator's condition
    y: np.ndarray  # (columns, bands) in [-1, 1]
    sound: Audio
    heard: np.ndarray  # (K,) the scorer's softmax


@cache_by_run(200, scope="session")
def explain_face(directory: Path, face: np.ndarray) -> Explanation:
    """The face classifier's softmax and the p-values of a (28, 28) uint8 face."""
    from core.inference import generation

    return generation.explain_face(load_run(directory.name), face)


def judged_faces(seen: AnalysedClip, frame: int | None = None) -> np.ndarray:
    """The faces (m, 28, 28) whose mean says how a film looks; with a frame, that one's alone."""
    from core.inference import generation

    return generation.judged_faces(seen, frame)


@cache_by_run(200, scope="session")
def explain_film(directory: Path, faces: np.ndarray) -> Explanation:
    """`explain_face` of the mean over faces (m, 28, 28) uint8 of one person."""
    from core.inference import generation

    return generation.explain_film(load_run(directory.name), faces)


@cache_by_run(60, "Drawing a voice …", scope="session")
def generate_voice(
    directory: Path, face: np.ndarray, emotion: str | None, seed: int, judged: np.ndarray
) -> GeneratedVoice:
    """The voice that `python -m core generate` makes of this face with this seed.

    `judged` are the faces whose mean tells the emotion.
    """
    return _draw_voice(load_run(directory.name), face, emotion, seed, judged)


@cache_by_run(24, "Drawing a voice …")
def example_voice(
    directory: Path, face: np.ndarray, emotion: str | None, seed: int, judged: np.ndarray
) -> GeneratedVoice:
    """`generate_voice` of a shipped example, shared by all visitors."""
    return _draw_voice(load_run(directory.name), face, emotion, seed, judged)


def _draw_voice(
    run: LoadedRun, face: np.ndarray, emotion: str | None, seed: int, judged: np.ndarray
) -> GeneratedVoice:
    from core.inference import generation

    c, _ = generation.condition_of(run, generation.explain_film(run, judged), emotion)
    y = generation.generate_voices(run, face, c, seed)
    sound = generation.to_audio(run, y[0], seed)
    return GeneratedVoice(c, y[0], sound, generation.classify_samples(run, y)["scorer"][0])


@dataclass(frozen=True)
class GeneratedLongVoice:
    """A generated voice as long as its clip, with its sound and the scorer's verdicts."""

    long_voice: LongVoice
    sound: Audio
    facts: list[dict]  # for each window: time, frame, condition, the scorer's softmax


def count_windows(run_id: str, seen: AnalysedClip) -> int:
    """Number of windows that cover a clip; 1 where one second covers it."""
    from core.inference import long_form

    return long_form.count_windows(load_run(run_id), seen)


@cache_by_run(12, "Drawing a voice for the whole clip …", scope="session")
def generate_long_voice(
    directory: Path, key: str, _seen: AnalysedClip, emotion: str | None, seed: int
) -> GeneratedLongVoice:
    """The voice that `python -m core generate --whole` makes of the clip that `key` names."""
    from core.inference import generation, long_form

    run = load_run(directory.name)
    p = long_form.generate_long_voice(run, _seen, emotion, seed)
    sound = generation.to_audio(run, p.y, seed)
    facts = long_form.window_records(run, _seen, p, long_form.classify_windows(run, p))
    return GeneratedLongVoice(p, sound, facts)


@cache_by_run(40, "Griffin-Lim …", scope="session")
def griffin_lim_audio(directory: Path, y: np.ndarray, seed: int) -> Audio:
    """A generated spectrogram inverted by plain Griffin-Lim, for comparison."""
    from core.inference import generation

    return generation.to_audio(load_run(directory.name), y, seed, plain=True)


@dataclass(frozen=True)
class OwnVoice:
    """A clip's own voice, its middle or all of it, as a run's networks get it."""

    y: np.ndarray  # (columns, bands) in [-1, 1]
    gain: float  # dB applied to the recording, so that it is played as loud as generated voices
    wav: bytes  # the recording itself, at that level
    limit_db: float  # dB <= 0: gain that keeps the peaks from clipping
    again: Audio  # the spectrogram inverted, for comparison with generated voices
    heard: np.ndarray  # (K,) the scorer's softmax


@cache_by_run(4, scope="session")
def own_voice(
    directory: Path, key: str, _waveform: np.ndarray, columns: int | None = None
) -> OwnVoice:
    """The voice of the clip that `key` names: its middle, or so many columns from its start."""
    from core.inference import generation, long_form
    from core.media import spectrograms, waveforms

    run = load_run(directory.name)
    s = run.config.logmel
    if columns:
        y, gain = long_form.voice_spectrogram(run, _waveform, columns)
    else:
        y, gain = generation.voice_spectrogram(run, _waveform)
    gain += waveforms.play_gain_db(run.ref_db)
    comment = f"a recording{'' if columns else ', its middle'}, {gain:+.1f} dB"
    start = 0 if columns else None
    wav, limit_db = waveforms.crop_to_wav(_waveform, len(y), s, gain, comment, start=start)
    ends = np.arange(s.columns, len(y) + 1, s.columns)  # the scorer classifies window by window
    windows = np.stack([y[k - s.columns : k] for k in ends])
    heard = generation.classify_samples(run, windows)["scorer"].mean(axis=0)
    again = generation.to_audio(run, y, what=spectrograms.RESYNTHESIS_COMMENT)
    return OwnVoice(y, gain, wav, limit_db, again, heard)


# ------------------------------------------------------------------ training


@st.cache_data(show_spinner=False, ttl=60)
def gpus() -> list[str]:
    """NVIDIA cards with their memory."""
    return jobs.gpus()


@st.cache_data(show_spinner=False, max_entries=64)
def checkpoint_samples(path: Path) -> dict[str, np.ndarray]:
    """A checkpoint's samples: y (n, columns, bands), label (n,)."""
    return files.read_arrays(path)
