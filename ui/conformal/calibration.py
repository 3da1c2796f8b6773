"""The conformal laboratory's data, cached: problems, views, one point, generated voices, and the files that are taken away.

Names of an upload's classes and subjects are made plain before anything shows them.
"""

from __future__ import annotations

import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core import files
from core.conformal import analysis, calibration, prediction
from core.conformal.analysis import Analysis, LabelGroups
from core.conformal.calibration import CalibrationData, Modality
from core.conformal.prediction import Measure, Ranking
from core.runs import Run
from ui.session import cache
from ui.widgets import uploads

if TYPE_CHECKING:
    from ui.session.cache import GeneratedVoice

MAX_PRECOMPUTED_P_VALUES = (
    200_000  # p-values: for more, each calibration size is looked at when it is asked for
)
MAX_CHART_LABELS = 12  # labels, at most, that a chart of one point holds


@dataclass(frozen=True)
class AnalysisSettings:
    """The settings of a view."""

    measure: Measure = "margin"
    groups: LabelGroups = "pooled"
    smoothed: bool = False
    r: float = 1.0
    eps: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Point:
    """What is looked at: a test point, or a visitor's face."""

    name: str
    softmax: np.ndarray  # (K,)
    ranking: Ranking
    p: np.ndarray  # (K,) smoothed where the view is
    label: int | None  # class; None: nobody knows
    row: int | None  # among the test points

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
        """The labels that charts show: all, or the SHOWN of highest p-value."""
        return (
            np.arange(len(self.p))
            if len(self.p) <= MAX_CHART_LABELS
            else np.sort(np.argsort(-self.p, kind="stable")[:MAX_CHART_LABELS])
        )

    def noise(self, k: int) -> float:
        """The U of label k's smoothed p-value."""
        a = self.ranking
        return float((self.p[k] * (a.n[k] + 1) - a.above[k]) / (a.equal[k] + 1))


# ------------------------------------------------------------------ whose outputs


def run_choices() -> tuple[dict[str, cache.RunFamily], dict[str, str]]:
    """Families by their id, and what to choose from, id -> label: a family's runs share their classifiers, so one stands for all; then
    unfinished runs."""
    families = {f.id: f for f in cache.families()}
    unfinished = {
        r["run"]: f"{r['run']} · {r['state']}" for r in cache.run_rows() if r["state"] != "done"
    }
    return families, {k: f.label for k, f in families.items()} | unfinished


def load_run_outputs(run_id: str, modality: Modality) -> CalibrationData | str:
    """A run's outputs, or in words why there are none."""
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
    """A visitor's own outputs, or in words why they cannot be read. `key` names the upload."""
    try:
        return sanitise_names(
            calibration.data_from_upload(uploads.safe_file_name(name), bytes(_data))
        )
    except ValueError as error:
        return escape_upload_text(str(error))


def sanitise_names(own: CalibrationData) -> CalibrationData:
    """The same outputs under names that do nothing where they are shown: letters, digits, a few signs, and all classes different."""
    plain = [_sanitise_name(c) for c in own.classes]
    classes = tuple(f"{c} ({i})" if plain.count(c) > 1 else c for i, c in enumerate(plain))
    subjects = [
        None if s is None else np.array([_sanitise_name(x) for x in s.tolist()])
        for s in (own.subject_cal, own.subject_test)
    ]
    return replace(own, classes=classes, subject_cal=subjects[0], subject_test=subjects[1])


def _sanitise_name(name: str) -> str:
    return uploads.safe_file_name(name)[:24]


def escape_upload_text(text: str) -> str:
    """Text that may quote a visitor's file, so that Markdown shows it and does nothing else."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|~$:" else c for c in text)


def example_file() -> bytes:
    """A small CSV in the form that is read: 300 calibration and 400 test points of an invented classifier."""
    rng, names = np.random.default_rng(0), ("cat", "dog", "fox")
    label = rng.integers(0, 3, 700)
    z = 1.2 * rng.standard_normal((700, 3)) + 1.6 * np.eye(3)[label]
    o = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    lines = ["set,label,cat,dog,fox,subject"]
    for i in range(700):
        numbers = ",".join(f"{x:.6f}" for x in o[i])
        lines.append(
            f"{'cal' if i < 300 else 'test'},{names[label[i]]},{numbers},owner-{rng.integers(0, 8)}"
        )
    return "\n".join(lines).encode()


# ------------------------------------------------------------------ views


def analyse(key: str, source: CalibrationData, choice: AnalysisSettings, private: bool) -> Analysis:
    """`core.conformal.analysis.analyse_outputs`, kept: for all visitors, or for this one when the outputs are `private`. `key` names the source."""
    found = (_private_analysis if private else _shared_analysis)(key, source, choice)
    _bands_ready(key, source, choice)
    return found


def _bands_ready(key: str, source: CalibrationData, choice: AnalysisSettings) -> threading.Event:
    """Whether the bands of all calibration sizes are there; they do not depend on what is replaced here."""
    return _start_band_simulation(key, replace(choice, r=1.0, eps=0.1, measure="margin"), source)


def _is_small(source: CalibrationData) -> bool:
    return len(source.label_test) * len(source.classes) <= MAX_PRECOMPUTED_P_VALUES


@st.cache_resource(show_spinner=False, max_entries=64)
def _start_band_simulation(
    key: str, choice: AnalysisSettings, _source: CalibrationData
) -> threading.Event:
    """Bands are simulated once for each calibration size, behind the visitor's back, so that the sliders do not wait for them."""
    done = threading.Event()

    def simulate() -> None:
        time.sleep(0.5)  # what the visitor waits for goes first
        for r in analysis.CALIBRATION_SHARES[::-1]:
            analysis.analyse_outputs(_source, **vars(replace(choice, r=float(r))))
        done.set()

    if _is_small(_source):
        threading.Thread(target=simulate, daemon=True).start()
    return done


def analyses_by_size(
    key: str, source: CalibrationData, choice: AnalysisSettings, private: bool
) -> list[Analysis] | None:
    """The view at every calibration size, smallest first, for a chart that goes from one to another by itself; None before their bands are
    simulated, and of very many points none ever."""
    if not _is_small(source):
        return []
    if not _bands_ready(key, source, choice).is_set():
        return None
    look = _private_analysis if private else _shared_analysis
    return [
        look(key, source, replace(choice, r=float(r), eps=0.1)) for r in analysis.CALIBRATION_SHARES
    ]


@st.cache_resource(show_spinner=False, max_entries=48)
def _shared_analysis(key: str, _source: CalibrationData, choice: AnalysisSettings) -> Analysis:
    return analysis.analyse_outputs(_source, **vars(choice))


@st.cache_resource(show_spinner=False, max_entries=16, scope="session")
def _private_analysis(key: str, _source: CalibrationData, choice: AnalysisSettings) -> Analysis:
    return analysis.analyse_outputs(_source, **vars(choice))


def test_point(v: Analysis, row: int) -> Point:
    """A point of the test set."""
    p, o = v.problem, v.problem.o_test[row]
    whose = "" if p.subject_test is None else f" · {p.subject_test[row]}"
    return Point(
        f"Test point {row}{whose}", o, _ranking(v, o), v.p[row], int(p.label_test[row]), row
    )


def face_point(v: Analysis, softmax: np.ndarray, name: str) -> Point:
    """A visitor's face, seen with the view's settings."""
    alpha, groups = prediction.nonconformity(softmax[None], v.measure), ()
    if v.groups == "class":
        groups = (v.label_cal, np.arange(len(softmax)))
    noise = np.random.default_rng([v.seed, 3]) if v.smoothed else None
    return Point(
        name,
        softmax,
        _ranking(v, softmax),
        prediction.p_values(v.alpha_cal, alpha, *groups, rng=noise)[0],
        None,
        None,
    )


def _ranking(v: Analysis, softmax: np.ndarray) -> Ranking:
    alpha = prediction.nonconformity(softmax[None], v.measure)[0]
    return prediction.ranking(v.alpha_cal, alpha, v.label_cal if v.groups == "class" else None)


def scores(v: Analysis, k: int) -> np.ndarray:
    """The calibration scores that label k is compared with."""
    return v.alpha_cal[v.label_cal == k] if v.groups == "class" else v.alpha_cal


def notable_points(v: Analysis) -> dict[str, int]:
    """Test points worth a look: name -> row."""
    best, first, sure = (
        prediction.forced_prediction(v.p),
        prediction.credibility(v.p),
        prediction.confidence(v.p),
    )
    wrong = best != v.problem.label_test
    found = {
        "Clear": int((first + sure - 3.0 * wrong).argmax()),
        "Undecided": int((first - sure).argmax()),
        "Strange": int(first.argmin()),
    }
    return found | (
        {"Sure and wrong": int((first + sure - 3.0 * ~wrong).argmax())} if wrong.any() else {}
    )


# ------------------------------------------------------------------ what the generator makes of it


@dataclass(frozen=True)
class ConditionVoice:
    """One condition's voice, with both verdicts."""

    voice: GeneratedVoice
    q_softmax: np.ndarray  # (K,) Q's softmax; the scorer's is the voice's own


def generate_voices(
    members: dict[str, str], face: np.ndarray, seed: int
) -> dict[str, ConditionVoice]:
    """One face under each condition that is trained, from the same noise. Raises ValueError for a damaged run."""
    found = {
        c: cache.generate_voice(run_id, face, None, seed)
        for c, run_id in members.items()
        if c != "none"
    }
    return {
        c: ConditionVoice(one, _q_softmax(files.checkpoints_folder() / members[c], one.y))
        for c, one in found.items()
    }


@st.cache_data(show_spinner=False, max_entries=60, scope="session")
def _q_softmax(directory: Path, y: np.ndarray) -> np.ndarray:
    from core.inference import generation

    return generation.classify_samples(cache.load_run(directory.name), y[None])["Q"][0]


# ------------------------------------------------------------------ to take away


def command_line(source: str, modality: Modality, choice: AnalysisSettings) -> str:
    """What to type for the same figures. `source` is a run's id."""
    given = [
        f"python -m core conformal {source}",
        f"--measure {choice.measure} --groups {choice.groups} --eps {choice.eps:g}",
    ]
    given += [f"--modality {modality}"] * (modality != "face") + [f"--r {choice.r:g}"] * (
        choice.r != 1
    )
    return " ".join(
        given + ["--smoothed"] * choice.smoothed + [f"--seed {choice.seed}"] * (choice.seed != 0)
    )


def label_names(classes: Sequence[str], members: np.ndarray) -> list[str]:
    """The names of the labels in a set (K,) bool."""
    return [c for c, held in zip(classes, members) if held]
