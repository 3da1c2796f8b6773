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
from core.conformal.analysis import Groups, View
from core.conformal.calibration import Modality, Problem
from core.conformal.prediction import Measure, Ranking
from core.runs import Run
from ui.session import cache
from ui.widgets import uploads

if TYPE_CHECKING:
    from ui.session.cache import Voice

AHEAD = 200_000  # p-values: for more, each calibration size is looked at when it is asked for
SHOWN = 12  # labels, at most, that a chart of one point holds


@dataclass(frozen=True)
class Choice:
    """The settings of a view."""

    measure: Measure = "margin"
    groups: Groups = "pooled"
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
    truth: int | None  # class; None: nobody knows
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
        return np.arange(len(self.p)) if len(self.p) <= SHOWN else np.sort(np.argsort(-self.p, kind="stable")[:SHOWN])

    def noise(self, k: int) -> float:
        """The U of label k's smoothed p-value."""
        a = self.ranking
        return float((self.p[k] * (a.n[k] + 1) - a.above[k]) / (a.equal[k] + 1))


# ------------------------------------------------------------------ whose outputs


def listed() -> tuple[dict[str, cache.Family], dict[str, str]]:
    """Families by their id, and what to choose from, id -> label: a family's runs share their classifiers, so one stands for all; then
    unfinished runs."""
    families = {f.id: f for f in cache.families()}
    unfinished = {r["run"]: f"{r['run']} · {r['state']}" for r in cache.rows() if r["state"] != "done"}
    return families, {k: f.label for k, f in families.items()} | unfinished


def problem(run_id: str, modality: Modality) -> Problem | str:
    """A run's outputs, or in words why there are none."""
    file = files.checkpoints() / run_id / "outputs.npz"
    try:
        return _problem(file, modality, file.stat().st_mtime_ns if file.exists() else 0)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        return str(error)


@st.cache_resource(show_spinner=False, max_entries=8)
def _problem(file: Path, modality: Modality, stamp: int) -> Problem:
    return calibration.problem_of(Run(file.parent), modality)


@st.cache_resource(show_spinner="Reading the outputs …", max_entries=1, scope="session")
def uploaded(key: str, name: str, _data: memoryview | bytes) -> Problem | str:
    """A visitor's own outputs, or in words why they cannot be read. `key` names the upload."""
    try:
        return tame(calibration.problem_from_upload(uploads.plain(name), bytes(_data)))
    except ValueError as error:
        return visible(str(error))


def tame(own: Problem) -> Problem:
    """The same outputs under names that do nothing where they are shown: letters, digits, a few signs, and all classes different."""
    plain = [_plain(c) for c in own.classes]
    classes = tuple(f"{c} ({i})" if plain.count(c) > 1 else c for i, c in enumerate(plain))
    subjects = [None if s is None else np.array([_plain(x) for x in s.tolist()]) for s in (own.subject_cal, own.subject_test)]
    return replace(own, classes=classes, subject_cal=subjects[0], subject_test=subjects[1])


def _plain(name: str) -> str:
    return uploads.plain(name)[:24]


def visible(text: str) -> str:
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
        lines.append(f"{'cal' if i < 300 else 'test'},{names[label[i]]},{numbers},owner-{rng.integers(0, 8)}")
    return "\n".join(lines).encode()


# ------------------------------------------------------------------ views


def view(key: str, source: Problem, choice: Choice, private: bool) -> View:
    """`core.conformal.analysis.view`, kept: for all visitors, or for this one when the outputs are `private`. `key` names the source."""
    found = (_own_view if private else _view)(key, source, choice)
    _bands(key, source, choice)
    return found


def _bands(key: str, source: Problem, choice: Choice) -> threading.Event:
    """Whether the bands of all calibration sizes are there; they do not depend on what is replaced here."""
    return _ahead(key, replace(choice, r=1.0, eps=0.1, measure="margin"), source)


def _few(source: Problem) -> bool:
    return len(source.label_test) * len(source.classes) <= AHEAD


@st.cache_resource(show_spinner=False, max_entries=64)
def _ahead(key: str, choice: Choice, _source: Problem) -> threading.Event:
    """Bands are simulated once for each calibration size, behind the visitor's back, so that the sliders do not wait for them."""
    done = threading.Event()

    def simulate() -> None:
        time.sleep(0.5)  # what the visitor waits for goes first
        for r in analysis.SHARES[::-1]:
            analysis.view(_source, **vars(replace(choice, r=float(r))))
        done.set()

    if _few(_source):
        threading.Thread(target=simulate, daemon=True).start()
    return done


def sizes(key: str, source: Problem, choice: Choice, private: bool) -> list[View] | None:
    """The view at every calibration size, smallest first, for a chart that goes from one to another by itself; None before their bands are
    simulated, and of very many points none ever."""
    if not _few(source):
        return []
    if not _bands(key, source, choice).is_set():
        return None
    look = _own_view if private else _view
    return [look(key, source, replace(choice, r=float(r), eps=0.1)) for r in analysis.SHARES]


@st.cache_resource(show_spinner=False, max_entries=48)
def _view(key: str, _source: Problem, choice: Choice) -> View:
    return analysis.view(_source, **vars(choice))


@st.cache_resource(show_spinner=False, max_entries=16, scope="session")
def _own_view(key: str, _source: Problem, choice: Choice) -> View:
    return analysis.view(_source, **vars(choice))


def test_point(v: View, row: int) -> Point:
    """A point of the test set."""
    p, o = v.problem, v.problem.o_test[row]
    whose = "" if p.subject_test is None else f" · {p.subject_test[row]}"
    return Point(f"Test point {row}{whose}", o, _ranking(v, o), v.p[row], int(p.label_test[row]), row)


def new_point(v: View, softmax: np.ndarray, name: str) -> Point:
    """A visitor's face, seen with the view's settings."""
    alpha, groups = prediction.nonconformity(softmax[None], v.measure), ()
    if v.groups == "class":
        groups = (v.label_cal, np.arange(len(softmax)))
    noise = np.random.default_rng([v.seed, 3]) if v.smoothed else None
    return Point(name, softmax, _ranking(v, softmax), prediction.p_values(v.alpha_cal, alpha, *groups, rng=noise)[0], None, None)


def _ranking(v: View, softmax: np.ndarray) -> Ranking:
    alpha = prediction.nonconformity(softmax[None], v.measure)[0]
    return prediction.ranking(v.alpha_cal, alpha, v.label_cal if v.groups == "class" else None)


def scores(v: View, k: int) -> np.ndarray:
    """The calibration scores that label k is compared with."""
    return v.alpha_cal[v.label_cal == k] if v.groups == "class" else v.alpha_cal


def sights(v: View) -> dict[str, int]:
    """Test points worth a look: name -> row."""
    best, first, sure = prediction.prediction(v.p), prediction.credibility(v.p), prediction.confidence(v.p)
    wrong = best != v.problem.label_test
    found = {
        "Clear": int((first + sure - 3.0 * wrong).argmax()),
        "Undecided": int((first - sure).argmax()),
        "Strange": int(first.argmin()),
    }
    return found | ({"Sure and wrong": int((first + sure - 3.0 * ~wrong).argmax())} if wrong.any() else {})


# ------------------------------------------------------------------ what the generator makes of it


@dataclass(frozen=True)
class Told:
    """One condition's voice, with both verdicts."""

    voice: Voice
    by_q: np.ndarray  # (K,) Q's softmax; the scorer's is the voice's own


def voices(members: dict[str, str], face: np.ndarray, seed: int) -> dict[str, Told]:
    """One face under each condition that is trained, from the same noise. Raises ValueError for a damaged run."""
    found = {c: cache.generate(run_id, face, None, seed) for c, run_id in members.items() if c != "none"}
    return {c: Told(one, _heard_by_q(files.checkpoints() / members[c], one.y)) for c, one in found.items()}


@st.cache_data(show_spinner=False, max_entries=60, scope="session")
def _heard_by_q(directory: Path, y: np.ndarray) -> np.ndarray:
    from core.inference import generation

    return generation.judge(cache.opened(directory.name), y[None])["Q"][0]


# ------------------------------------------------------------------ to take away


def command(source: str, modality: Modality, choice: Choice) -> str:
    """What to type for the same figures. `source` is a run's id."""
    given = [f"python -m core conformal {source}", f"--measure {choice.measure} --groups {choice.groups} --eps {choice.eps:g}"]
    given += [f"--modality {modality}"] * (modality != "face") + [f"--r {choice.r:g}"] * (choice.r != 1)
    return " ".join(given + ["--smoothed"] * choice.smoothed + [f"--seed {choice.seed}"] * (choice.seed != 0))


def names(classes: Sequence[str], members: np.ndarray) -> list[str]:
    """The names of the labels in a set (K,) bool."""
    return [c for c, held in zip(classes, members) if held]
