"""Cached data of the page Conformal: outputs, analyses, points and generated voices.

Class and subject names of an upload are sanitised before any part of the page shows them.
"""

from __future__ import annotations

import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core import files
from core.conformal import analysis, calibration, prediction
from core.conformal.analysis import Analysis
from core.conformal.calibration import CalibrationData, Modality
from core.conformal.prediction import Groups, Measure, Ranking
from core.files import UserError
from core.runs import Run
from ui.session import cache
from ui.widgets import uploads

if TYPE_CHECKING:
    from ui.session.cache import GeneratedVoice

MAX_PRECOMPUTED_P_VALUES = 200_000  # with more, each calibration size is analysed on demand
MAX_NAME_LETTERS = 24  # letters of a class or subject that are shown
MAX_CHART_LABELS = 12  # most labels in a chart of one point


@dataclass(frozen=True)
class AnalysisSettings:
    """The settings of an analysis."""

    measure: Measure = "margin"
    groups: Groups = "pooled"
    smoothed: bool = False
    r: float = 1.0
    eps: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Point:
    """The point that the page shows: a test point, or a visitor's face."""

    name: str
    softmax: np.ndarray  # (K,)
    ranking: Ranking
    p: np.ndarray  # (K,) smoothed if the analysis is
    label: int | None  # true class; None: unknown
    row: int | None  # row among the test points; None: not one of them

    @property
    def prediction(self) -> int:
        return int(self.p.argmax())

    @property
    def credibility(self) -> float:
        return float(prediction.credibility(self.p[None])[0])

    @property
    def confidence(self) -> float:
        return float(prediction.confidence(self.p[None])[0])

    @property
    def shown(self) -> np.ndarray:
        """The labels that charts show: the MAX_CHART_LABELS of highest p-value, in order."""
        return np.sort(np.argsort(-self.p, kind="stable")[:MAX_CHART_LABELS])

    def noise(self, k: int) -> float:
        """The U of label k's smoothed p-value."""
        a = self.ranking
        return float((self.p[k] * (a.n[k] + 1) - a.above[k]) / (a.equal[k] + 1))


# ------------------------------------------------------------------ outputs


def run_choices() -> tuple[dict[str, cache.RunFamily], dict[str, str]]:
    """Run families by id, and the choices (id -> label): families first, then unfinished runs.

    The runs of a family share their classifiers, so a family is one choice.
    """
    families = {f.id: f for f in cache.families()}
    rows = [r for r in cache.run_rows() if r["state"] != "done"]
    unfinished = {r["run"]: f"{r['run']} · {r['state']}" for r in rows}
    return families, {k: f.label for k, f in families.items()} | unfinished


def load_run_outputs(run_id: str, modality: Modality) -> CalibrationData | str:
    """A run's outputs, or a text that says why there are none."""
    file = files.checkpoints_folder() / run_id / "outputs.npz"
    try:
        return _load_run_outputs(file, modality, file.stat().st_mtime_ns if file.exists() else 0)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        return str(error)


@st.cache_resource(show_spinner=False, max_entries=8)
def _load_run_outputs(file: Path, modality: Modality, stamp: int) -> CalibrationData:
    return calibration.data_from_run(Run(file.parent), modality)


@st.cache_resource(show_spinner="Reading the outputs …", max_entries=1, scope="session")
def load_uploaded_outputs(key: str, name: str, _data: memoryview | bytes) -> CalibrationData | str:
    """A visitor's own outputs, or a text that says why not; `key` identifies the upload."""
    try:
        data = calibration.data_from_upload(uploads.safe_file_name(name), bytes(_data))
        return sanitise_names(data)
    except UserError as error:
        return escape_upload_text(str(error))


def sanitise_names(own: CalibrationData) -> CalibrationData:
    """The same outputs with harmless names (letters, digits, few signs), none equal to another."""
    classes = _sanitise_all(own.classes)
    given = [s for s in (own.subject_cal, own.subject_test) if s is not None]
    subjects = _sanitise_all(dict.fromkeys(str(x) for s in given for x in s.tolist()))
    cal, test = (
        None if s is None else np.array([subjects[str(x)] for x in s.tolist()])
        for s in (own.subject_cal, own.subject_test)
    )
    return replace(own, classes=tuple(classes.values()), subject_cal=cal, subject_test=test)


def _sanitise_all(names: Iterable[str]) -> dict[str, str]:
    """Each of several distinct names -> a harmless one; those that become equal get a number."""
    plain = {name: _sanitise_name(name) for name in names}
    count = Counter(plain.values())
    return {
        name: f"{short} ({i})" if count[short] > 1 else short
        for i, (name, short) in enumerate(plain.items())
    }


def _sanitise_name(name: str) -> str:
    unknown = next((p for p in calibration.UNKNOWN_SUBJECT_PREFIXES if name.startswith(p)), "")
    rest = uploads.safe_file_name(name.removeprefix(unknown))
    if len(rest) > MAX_NAME_LETTERS:  # long names often differ at their end
        rest = f"{rest[:8]}..{rest[10 - MAX_NAME_LETTERS :]}"
    return unknown + rest


def escape_upload_text(text: str) -> str:
    """Escape a text that may quote a visitor's file, so that Markdown only shows it."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|~$:" else c for c in text)


def example_file() -> bytes:
    """An example CSV: 300 calibration and 400 test points of an invented classifier."""
    rng, names = np.random.default_rng(0), ("cat", "dog", "fox")
    label = rng.integers(0, 3, 700)
    z = 1.2 * rng.standard_normal((700, 3)) + 1.6 * np.eye(3)[label]
    o = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    lines = ["set,label,cat,dog,fox,subject"]
    for i in range(700):
        part, numbers = "cal" if i < 300 else "test", ",".join(f"{x:.6f}" for x in o[i])
        lines.append(f"{part},{names[label[i]]},{numbers},owner-{rng.integers(0, 8)}")
    return "\n".join(lines).encode()


# ------------------------------------------------------------------ analyses


def analyse(key: str, source: CalibrationData, choice: AnalysisSettings, private: bool) -> Analysis:
    """Cached `analyse_outputs`; a `private` analysis is kept for this visitor alone.

    `key` identifies the source.
    """
    result = (_private_analysis if private else _shared_analysis)(key, source, choice)
    _bands_ready(key, source, choice)
    return result


def _bands_ready(key: str, source: CalibrationData, choice: AnalysisSettings) -> threading.Event:
    """Start simulating the bands of all calibration sizes; the event is set when they are there.

    Bands do not depend on the settings that are replaced here.
    """
    return _start_band_simulation(key, replace(choice, r=1.0, eps=0.1, measure="margin"), source)


def _is_small(source: CalibrationData) -> bool:
    return len(source.label_test) * len(source.classes) <= MAX_PRECOMPUTED_P_VALUES


@st.cache_resource(show_spinner=False, max_entries=64)
def _start_band_simulation(
    key: str, choice: AnalysisSettings, _source: CalibrationData
) -> threading.Event:
    """Simulate the bands of each calibration size once, in a thread, so that sliders never wait."""
    done = threading.Event()

    def simulate() -> None:
        time.sleep(0.5)  # seconds: the page that the visitor waits for is computed first
        for r in analysis.CALIBRATION_SHARES[::-1]:
            analysis.analyse_outputs(_source, **vars(replace(choice, r=float(r))))
        done.set()

    if _is_small(_source):
        threading.Thread(target=simulate, daemon=True).start()
    return done


def analyses_by_size(
    key: str, source: CalibrationData, choice: AnalysisSettings, private: bool
) -> list[Analysis] | None:
    """The analyses at all calibration sizes, smallest first; None until their bands are simulated.

    The list is empty for more than MAX_PRECOMPUTED_P_VALUES p-values.
    """
    if not _is_small(source):
        return []
    if not _bands_ready(key, source, choice).is_set():
        return None
    cached = _private_analysis if private else _shared_analysis
    sizes = [replace(choice, r=float(r), eps=0.1) for r in analysis.CALIBRATION_SHARES]
    return [cached(key, source, one) for one in sizes]


@st.cache_resource(show_spinner=False, max_entries=48)
def _shared_analysis(key: str, _source: CalibrationData, choice: AnalysisSettings) -> Analysis:
    return analysis.analyse_outputs(_source, **vars(choice))


@st.cache_resource(show_spinner=False, max_entries=16, scope="session")
def _private_analysis(key: str, _source: CalibrationData, choice: AnalysisSettings) -> Analysis:
    return analysis.analyse_outputs(_source, **vars(choice))


def test_point(v: Analysis, row: int) -> Point:
    """A point of the test set."""
    p, o = v.problem, v.problem.o_test[row]
    subject = "" if p.subject_test is None else f" · {p.subject_test[row]}"
    name, label = f"Test point {row}{subject}", int(p.label_test[row])
    return Point(name, o, _ranking(v, o), v.p[row], label, row)


def face_point(v: Analysis, softmax: np.ndarray, name: str) -> Point:
    """A visitor's face as a point, with the settings of the analysis."""
    alpha, groups = prediction.nonconformity(softmax[None], v.measure), ()
    if v.groups == "class":
        groups = (v.label_cal, np.arange(len(softmax)))
    noise = np.random.default_rng([v.seed, 3]) if v.smoothed else None
    p = prediction.p_values(v.alpha_cal, alpha, *groups, rng=noise)[0]
    return Point(name, softmax, _ranking(v, softmax), p, None, None)


def _ranking(v: Analysis, softmax: np.ndarray) -> Ranking:
    alpha = prediction.nonconformity(softmax[None], v.measure)[0]
    return prediction.ranking(v.alpha_cal, alpha, v.label_cal if v.groups == "class" else None)


def scores(v: Analysis, k: int) -> np.ndarray:
    """The calibration scores that label k is compared with."""
    return v.alpha_cal[v.label_cal == k] if v.groups == "class" else v.alpha_cal


def notable_points(v: Analysis) -> dict[str, int]:
    """Typical test points: name -> row. "Sure and wrong" is missing if no prediction is wrong."""
    best, sure = prediction.credibility(v.p), prediction.confidence(v.p)
    wrong = prediction.forced_prediction(v.p) != v.problem.label_test
    rows = {
        "Clear": int((best + sure - 3.0 * wrong).argmax()),
        "Undecided": int((best - sure).argmax()),
        "Strange": int(best.argmin()),
    }
    if wrong.any():
        rows["Sure and wrong"] = int((best + sure - 3.0 * ~wrong).argmax())
    return rows


# ------------------------------------------------------------------ generated voices


@dataclass(frozen=True)
class ConditionVoice:
    """The voice under one condition, with the verdicts of Q and the scorer."""

    voice: GeneratedVoice
    q_softmax: np.ndarray  # (K,) Q's softmax; the scorer's is the voice's own


def generate_voices(
    members: dict[str, str], face: np.ndarray, seed: int
) -> dict[str, ConditionVoice]:
    """One face's voice under each trained condition, from the same noise.

    `members` maps a condition to its run. Raises ValueError for a damaged run.
    """
    voices = {}
    for condition, run_id in members.items():
        if condition != "none":
            voice = cache.generate_voice(run_id, face, None, seed)
            q = _q_softmax(files.checkpoints_folder() / run_id, voice.y)
            voices[condition] = ConditionVoice(voice, q)
    return voices


@st.cache_data(show_spinner=False, max_entries=60, scope="session")
def _q_softmax(directory: Path, y: np.ndarray) -> np.ndarray:
    from core.inference import generation

    return generation.classify_samples(cache.load_run(directory.name), y[None])["Q"][0]


# ------------------------------------------------------------------ the command line


def command_line(source: str, modality: Modality, choice: AnalysisSettings) -> str:
    """The command that prints the same figures; `source` is a run's id."""
    words = [
        f"python -m core conformal {source}",
        f"--measure {choice.measure} --groups {choice.groups} --eps {choice.eps:g}",
    ]
    words += [f"--modality {modality}"] * (modality != "face")
    words += [f"--r {choice.r:g}"] * (choice.r != 1)
    words += ["--smoothed"] * choice.smoothed
    return " ".join(words + [f"--seed {choice.seed}"] * (choice.seed != 0))


def label_names(classes: Sequence[str], members: np.ndarray) -> list[str]:
    """The class names of a label set; `members` is (K,) bool."""
    return [c for c, is_member in zip(classes, members) if is_member]
