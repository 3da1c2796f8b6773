"""Cached access to runs and to the studio. torch comes in late, behind these functions, so that a page is there before it."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core import files, runs
from core.config import CONDITIONS, Config, family_hash
from core.experiments import jobs
from core.runs import Run

if TYPE_CHECKING:
    from core.inference.generation import AnalysedClip, Audio, Explanation, LoadedRun
    from core.inference.long_form import LongVoice

SHIPPED_NAMES = ("fer2013-ravdess", "demo")  # names of the shipped runs, the real one first
LIVE_STATES = ("queued", "running")  # states of a run that goes on by itself
UPLOAD_FOLDER_PREFIX = (
    "dacssgan-upload-"  # how folders of uploads begin, in the system's folder for temporary files
)


@st.cache_resource(show_spinner=False)
def prepare_server() -> None:
    """Once per server, before the first page: sweep what a killed server left, and take shipped runs into the index."""
    for folder in Path(tempfile.gettempdir()).glob(f"{UPLOAD_FOLDER_PREFIX}*"):
        if time.time() - folder.stat().st_mtime > 86_400:
            shutil.rmtree(folder, ignore_errors=True)
    runs.index_existing()


# ------------------------------------------------------------------ runs


@dataclass(frozen=True)
class RunFamily:
    """Finished runs that differ in the condition alone."""

    name: str
    members: dict[str, str]  # condition -> run id, in the paper's order
    shipped: bool

    @property
    def id(self) -> str:
        """The member that stands for all in an address."""
        return self.members.get("cp") or next(iter(self.members.values()))

    @property
    def shown(self) -> list[str]:
        """The paper's three conditions, trained or not, and `none` where it is trained."""
        return [c for c in CONDITIONS if c != "none" or c in self.members]

    @property
    def label(self) -> str:
        return f"{self.name} · " + ("shipped" if self.shipped else self.id.rsplit("-", 1)[-1])


def run_rows() -> list[dict]:
    """All runs, newest first, each in the state that it is really in; sees to it that the queue is worked."""
    jobs.reconcile()
    jobs.start_queue_worker()
    return runs.list_runs()


def families() -> list[RunFamily]:
    """Families with a finished run: the shipped real one, the demo, then the others from the newest."""
    done = tuple(
        (r["run"], r["condition"], r["shipped"]) for r in run_rows() if r["state"] == "done"
    )
    return _group_families(files.checkpoints_folder(), done)


@st.cache_data(show_spinner=False, max_entries=8)
def _group_families(folder: Path, done: tuple[tuple[str, str, int], ...]) -> list[RunFamily]:
    groups: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
    for run, condition, shipped in sorted(
        done, key=lambda r: -r[2]
    ):  # of two of one condition, the shipped or else the newest
        try:
            config = Run(folder / run).config
        except ValueError:
            continue
        if config.gan.direction != "face-voice":  # it makes faces: the page Reverse has it
            continue
        groups.setdefault((config.name, family_hash(config)), []).append((run, condition, shipped))
    found = []
    for (name, _), group in groups.items():
        first = {
            c: next(r for r, k, _ in group if k == c)
            for c in CONDITIONS
            if any(k == c for _, k, _ in group)
        }
        found.append(RunFamily(name, first, any(s for *_, s in group)))
    rank = {name: i for i, name in enumerate(SHIPPED_NAMES)}
    return sorted(found, key=lambda f: (rank.get(f.name, len(rank)), not f.shipped))


def run_by_id(run_id: str) -> Run:
    """A run by an id that came out of `run_rows` or `families`, never by one that came with an address."""
    return Run(files.checkpoints_folder() / run_id)


def load_run(run_id: str) -> LoadedRun:
    """A finished run's networks, shared by all visitors."""
    return _load_run(files.checkpoints_folder() / run_id)


@st.cache_resource(show_spinner="Opening the trained networks …", max_entries=12)
def _load_run(directory: Path) -> LoadedRun:
    import torch

    from core.inference import generation

    torch.set_num_threads(
        1
    )  # one face is little work; beside a training or other visitors, more threads only wait for each other
    return generation.load_run(Run(directory))


# ------------------------------------------------------------------ what a run says of a face; kept for the visitor's session only


@dataclass(frozen=True)
class GeneratedVoice:
    """One generated spectrogram, made audible and judged."""

    c: np.ndarray  # (K,) what the generator was told
    y: np.ndarray  # (columns, bands) in [-1, 1]
    sound: Audio
    heard: np.ndarray  # (K,) the scorer's softmax


def explain_face(run_id: str, face: np.ndarray) -> Explanation:
    return _explain_face(files.checkpoints_folder() / run_id, face)


@st.cache_resource(show_spinner=False, max_entries=200, scope="session")
def _explain_face(directory: Path, face: np.ndarray) -> Explanation:
    from core.inference import generation

    return generation.explain_face(_load_run(directory), face)


def generate_voice(run_id: str, face: np.ndarray, emotion: str | None, seed: int) -> GeneratedVoice:
    """As `python -m core generate` does: the same functions, the same seed."""
    return _generate_voice(files.checkpoints_folder() / run_id, face, emotion, seed)


@st.cache_resource(show_spinner="Drawing a voice …", max_entries=60, scope="session")
def _generate_voice(
    directory: Path, face: np.ndarray, emotion: str | None, seed: int
) -> GeneratedVoice:
    from core.inference import generation

    run = _load_run(directory)
    c, _ = generation.condition_of(run, generation.explain_face(run, face), emotion)
    y = generation.generate_voices(run, face, c, seed)
    return GeneratedVoice(
        c,
        y[0],
        generation.to_audio(run, y[0], seed),
        generation.classify_samples(run, y)["scorer"][0],
    )


@dataclass(frozen=True)
class GeneratedLongVoice:
    """A generated voice as long as its film, made audible and judged."""

    long_voice: LongVoice
    sound: Audio
    facts: list[dict]  # of each window: when, from which frame, what was told and heard


def count_windows(run_id: str, seen: AnalysedClip) -> int:
    """How many windows a run needs for all of a film; 1 where a second is all of it."""
    from core.inference import long_form

    return long_form.count_windows(load_run(run_id), seen)


def generate_long_voice(
    run_id: str, key: str, seen: AnalysedClip, emotion: str | None, seed: int
) -> GeneratedLongVoice:
    """The voice of all of the film that `key` names, as `python -m core generate --whole` makes it."""
    return _generate_long_voice(files.checkpoints_folder() / run_id, key, seen, emotion, seed)


@st.cache_resource(
    show_spinner="Drawing a voice for the whole clip …", max_entries=12, scope="session"
)
def _generate_long_voice(
    directory: Path, key: str, _seen: AnalysedClip, emotion: str | None, seed: int
) -> GeneratedLongVoice:
    from core.inference import generation, long_form

    run = _load_run(directory)
    p = long_form.generate_long_voice(run, _seen, emotion, seed)
    return GeneratedLongVoice(
        p,
        generation.to_audio(run, p.y, seed),
        long_form.window_records(run, _seen, p, long_form.classify_windows(run, p)),
    )


def griffin_lim_audio(run_id: str, y: np.ndarray, seed: int) -> Audio:
    """A generated spectrogram by plain Griffin-Lim, for comparison."""
    return _griffin_lim_audio(files.checkpoints_folder() / run_id, y, seed)


@st.cache_resource(show_spinner="Griffin-Lim …", max_entries=40, scope="session")
def _griffin_lim_audio(directory: Path, y: np.ndarray, seed: int) -> Audio:
    from core.inference import generation

    return generation.to_audio(_load_run(directory), y, seed, plain=True)


@dataclass(frozen=True)
class OwnVoice:
    """A clip's own voice, its middle or all of it, as a run sees it."""

    y: np.ndarray  # (columns, bands) in [-1, 1]
    gain: float  # dB applied, so that its level is the corpus'
    wav: bytes  # the recording itself, at the level of the spectrogram
    limit_db: float  # dB <= 0: what it was turned down by, so that nothing clips
    again: Audio  # the recording through the same mel bands and back, as the generated ones sound
    heard: np.ndarray  # (K,) the scorer's softmax


def own_voice(run_id: str, key: str, waveform: np.ndarray, columns: int | None = None) -> OwnVoice:
    """The voice of the clip that `key` names, as a run sees it: its middle, or so many columns from its beginning."""
    return _own_voice(files.checkpoints_folder() / run_id, key, waveform, columns)


@st.cache_resource(show_spinner=False, max_entries=4, scope="session")
def _own_voice(directory: Path, key: str, _waveform: np.ndarray, columns: int | None) -> OwnVoice:
    from core.inference import generation, long_form
    from core.media import spectrograms, waveforms

    o = _load_run(directory)
    s = o.config.logmel
    y, gain = (
        long_form.voice_spectrogram(o, _waveform, columns)
        if columns
        else generation.voice_spectrogram(o, _waveform)
    )
    words = f"a recording{'' if columns else ', its middle'}, {gain:+.1f} dB"
    wav, less = waveforms.crop_to_wav(
        _waveform, len(y), s, gain, words, start=0 if columns else None
    )
    ends = np.arange(
        s.columns, len(y) + 1, s.columns
    )  # judged by windows, as a run's networks hear
    o_heard = generation.classify_samples(o, np.stack([y[k - s.columns : k] for k in ends]))[
        "scorer"
    ].mean(axis=0)
    return OwnVoice(
        y,
        gain,
        wav,
        less,
        generation.to_audio(o, y, what=spectrograms.RESYNTHESIS_COMMENT),
        o_heard,
    )


# ------------------------------------------------------------------ training


@st.cache_data(show_spinner=False, ttl=60)
def gpus() -> list[str]:
    """NVIDIA cards with their memory."""
    return jobs.gpus()


@st.cache_data(show_spinner=False, max_entries=64)
def checkpoint_samples(path: Path) -> dict[str, np.ndarray]:
    """A checkpoint's samples: y (n, columns, bands), label (n,)."""
    return files.read_arrays(path)


def run_config(run_id: str) -> Config:
    return run_by_id(run_id).config
