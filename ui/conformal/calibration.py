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
from core.conformal import analysis, calibration, credibility, prediction, predictor
from core.conformal.analysis import Analysis
from core.conformal.calibration import CalibrationData, Modality
from core.conformal.credibility import CredibilityScale
from core.conformal.prediction import Groups, Measure, Ranking
from core.conformal.predictor import PointScores
from core.evaluation.reporting import calibration_share
from core.evaluation.reporting.calibration_share import Choice
from core.files import UserError
from core.runs.directory import Run
from ui.session import cache
from ui.widgets import uploads

if TYPE_CHECKING:
    from core.inference.generation import Explanation

MAX_PRECOMPUTED_P_VALUES = 200_000  # with more, each calibration size is analysed on demand
MAX_PRECOMPUTED_CLASSES = 40  # likewise: by class, each class is simulated
MAX_NAME_LETTERS = 24  # letters of a class or subject that are shown
COMPARED_DRAWS, COMPARED_POINTS = 3, 60  # of the comparison with full CP: some seconds
MAX_COMPARED = 1_500  # calibration points of that comparison, and
MAX_COMPARED_CLASSES = 12  # classes: a refit costs their third power
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
    own: bool = False  # the run's own predictor, of whatever kind, with its measure and groups


@dataclass(frozen=True)
class Point:
    """The point that the page shows: a test point, or a visitor's face."""

    name: str
    softmax: np.ndarray  # (K,)
    ranking: Ranking
    p: np.ndarray  # (K,) smoothed if the analysis is
    label: int | None  # true class; None: unknown
    row: int | None  # row among the test points; None: not one of them
    folds: tuple[PointScores, ...] = ()  # the scores behind p; the mean over folds is p

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
    rows = [r for r in cache.run_rows() if r["state"] != "done" and not r["fault"]]
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
    usual = replace(choice, r=1.0, eps=0.1, measure="margin", own=False)
    return _start_band_simulation(key, usual, source)


def _is_small(source: CalibrationData) -> bool:
    classes = len(source.classes)
    p_values = len(source.label_test) * classes
    return classes <= MAX_PRECOMPUTED_CLASSES and p_values <= MAX_PRECOMPUTED_P_VALUES


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

    The list is empty where there are too many p-values or classes, and for a run's own predictor,
    whose share is its own.
    """
    if choice.own or not _is_small(source):
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
    if uses_own_scores(v):
        return _own_point(v, o, p.own.features_test[row], v.p[row], name, label, row)
    return Point(name, o, _ranking(v, o), v.p[row], label, row, _inductive_scores(v, o))


def face_point(v: Analysis, face: Explanation, name: str) -> Point:
    """A visitor's face as a point, with the settings of the analysis."""
    softmax = face.softmax
    if uses_own_scores(v):
        return _own_point(v, softmax, face.features, face.p, name, None, None)
    alpha, groups = prediction.nonconformity(softmax[None], v.measure), ()
    if v.groups == "class":
        groups = (v.label_cal, np.arange(len(softmax)))
    noise = np.random.default_rng([v.seed, 3]) if v.smoothed else None
    p = prediction.p_values(v.alpha_cal, alpha, *groups, rng=noise)[0]
    folds = _inductive_scores(v, softmax)
    return Point(name, softmax, _ranking(v, softmax), p, None, None, folds)


def uses_own_scores(v: Analysis) -> bool:
    """Whether a run's own predictor, and no inductive one on the softmax, ranks the points."""
    return v.kind != "inductive" and v.problem.own is not None


def _own_point(v: Analysis, o: np.ndarray, features: np.ndarray, p: np.ndarray, *about) -> Point:
    """A point by the run's own predictor; `about` is its name, label and row."""
    folds = predictor.point_scores(v.problem.own.fitted, o, features)
    count = lambda compare: np.array(  # noqa: E731
        [[int(compare(s, a).sum()) for a, s in zip(f.alpha, f.scores)] for f in folds]
    ).sum(axis=0)
    n = np.array([[len(s) for s in f.scores] for f in folds]).sum(axis=0)
    alpha = np.mean([f.alpha for f in folds], axis=0)
    ranks = Ranking(alpha, count(np.greater), count(np.equal), n, p)
    name, label, row = about
    return Point(name, o, ranks, p, label, row, folds)


def _inductive_scores(v: Analysis, softmax: np.ndarray) -> tuple[PointScores, ...]:
    alpha = prediction.nonconformity(softmax[None], v.measure)[0]
    return (PointScores(alpha, tuple(scores(v, k) for k in range(len(softmax)))),)


def credibility_scale(v: Analysis) -> CredibilityScale:
    """The possible credibilities with the settings of an analysis, and those of its test points."""
    if uses_own_scores(v):
        return credibility.scale(v.problem.own.fitted, v.p)
    groups = [scores(v, k) for k in range(len(v.problem.classes))]
    low = credibility.lowest_of_scores(groups, v.measure)
    if v.smoothed:  # smoothing takes away at most the new point itself and its ties
        ties = np.unique(v.alpha_cal, return_counts=True)[1].max()
        low = max(0.0, low - (ties + 1) / (min(len(g) for g in groups) + 1))
    usual = np.sort(prediction.credibility(v.p))
    return CredibilityScale(low, 1.0, not v.smoothed, usual)


def _ranking(v: Analysis, softmax: np.ndarray) -> Ranking:
    alpha = prediction.nonconformity(softmax[None], v.measure)[0]
    return prediction.ranking(v.alpha_cal, alpha, v.label_cal if v.groups == "class" else None)


# ------------------------------------------------------------------ strange points


@st.cache_resource(show_spinner=False)
def strange_pictures() -> dict[str, np.ndarray]:
    from core.inference import strangeness

    return strangeness.strange_pictures()


@st.cache_resource(show_spinner="Drawing faces to compare with …", max_entries=8)
def distance_p_values(classes: tuple[str, ...]) -> np.ndarray:
    """p-values of `strange_pictures` by their distance to drawn faces of the classes."""
    from core.inference import strangeness

    f = strangeness.fit_distances(classes)
    return strangeness.distance_p_values(f, np.stack(list(strange_pictures().values())))


@st.cache_resource(show_spinner=False, max_entries=8, scope="session")
def compare_with_full(
    key: str, measure: Measure, groups: Groups, _source: CalibrationData
) -> tuple[Choice, ...]:
    """inductive(r), cross-conformal and full CP on halves of the calibration points."""
    own, o = _source.own, _source.o_cal
    features = standardised_logarithm(o)
    if own is not None and len(own.fitted.o) == len(o) and own.fitted.features.shape[1]:
        features = own.fitted.features
    points = calibration_share.Points(o, features, _source.label_cal)
    some = np.random.default_rng(0).permutation(len(o))[:MAX_COMPARED]
    pairs = calibration_share.held_back(points.take(some), COMPARED_DRAWS, COMPARED_POINTS, 0)
    return calibration_share.compare(pairs, measure, groups)


def standardised_logarithm(o: np.ndarray) -> np.ndarray:
    """Features (n, K) of outputs that have no others: log o, of mean 0 and variance 1."""
    f = np.log(np.clip(o, 1e-6, None))
    return (f - f.mean(axis=0)) / np.maximum(f.std(axis=0), 1e-9)


def scores(v: Analysis, k: int) -> np.ndarray:
    """The calibration scores that label k is compared with, by an inductive predictor."""
    return v.alpha_cal[v.label_cal == k] if v.groups == "class" else v.alpha_cal


def notable_points(v: Analysis, eps: float) -> dict[str, int]:
    """Typical test points: name -> row; a name is missing where there is no such point.

    "No label fits" is the least credible point, where its credibility is at most the chosen ε.
    """
    best, sure = prediction.credibility(v.p), prediction.confidence(v.p)
    wrong = prediction.forced_prediction(v.p) != v.problem.label_test
    rows = {
        "Clear": int((best + sure - 3.0 * wrong).argmax()),
        "Undecided": int((best - sure).argmax()),
        "Least credible": int(best.argmin()),
    }
    if best.min() <= eps:
        rows["No label fits"] = int(best.argmin())
    if wrong.any():
        rows["Sure and wrong"] = int((best + sure - 3.0 * ~wrong).argmax())
    return rows


# ------------------------------------------------------------------ the command line


def command_line(
    source: str, modality: Modality, choice: AnalysisSettings, inductive: bool = False
) -> str:
    """The command that prints the same figures; `source` is a run's id.

    `inductive`: the run's own predictor is of another kind, and an inductive one stands in for it.
    """
    words = [f"python -m core conformal {source}"]
    if not choice.own:
        words += [f"--measure {choice.measure} --groups {choice.groups}"]
        words += ["--predictor inductive"] * inductive
    words += [f"--eps {choice.eps:g}"]
    words += [f"--modality {modality}"] * (modality != "face")
    words += [f"--r {choice.r:g}"] * (choice.r != 1)
    words += ["--smoothed"] * choice.smoothed
    return " ".join(words + [f"--seed {choice.seed}"] * (choice.seed != 0))


def label_names(classes: Sequence[str], members: np.ndarray) -> list[str]:
    """The class names of a label set; `members` is (K,) bool."""
    return [c for c, is_member in zip(classes, members) if is_member]
