"""Confusion matrices of runs' rows and of human raters on one scale, and differences of two."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from core.config.settings import Config, DataSettings
from core.data import labels, prepared_corpora
from core.evaluation import comparison, metrics, protocol, results
from core.evaluation.comparison import RunSummary
from core.evaluation.significance import STEP_RULE_NAMES
from ui.evaluate import figures, runs
from ui.session import cache, corpora
from ui.widgets import charts

MAX_MATRICES = 12  # on the page at once
FACE_ROW, RATER_ROW = "faces (f_S)", "people"


@dataclass(frozen=True)
class Matrix:
    """Counts (K, K): rows are the true classes."""

    counts: np.ndarray
    classes: tuple[str, ...]
    row: str  # training set of the classifier, FACE_ROW or RATER_ROW
    trainings: int = 1  # on the same samples, whose counts are added up; 0: runs differ in it
    sizes: np.ndarray | None = None  # (K,) samples of each class; None: the counts of one training

    @property
    def class_sizes(self) -> np.ndarray:
        """(K,) samples of each true class, each counted once whatever the number of trainings."""
        return self.counts.sum(axis=1) / self.trainings if self.sizes is None else self.sizes

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A record per cell, for CSV."""
        return [
            {"matrix": name, "true": true, "predicted": predicted, "count": float(count)}
            for true, row in zip(self.classes, self.counts)
            for predicted, count in zip(self.classes, row)
        ]


@st.cache_data(show_spinner=False, max_entries=64)
def _rater_confusion(
    path: Path, stamp: int, classes: tuple[str, ...], modality: str
) -> np.ndarray | None:
    known = corpora.load_summary(path.stem)
    if isinstance(known, str) or not known.has_votes:
        return None
    votes = known.votes[:, labels.VOTE_MODALITIES.index(modality)]
    return metrics.rater_confusion(known.emotion, votes, classes)


def rater_confusion(config: Config) -> np.ndarray | None:
    """Human raters' counts (K, K) on a run's target modality; None without votes or the corpus."""
    d, modality = config.data, "voice" if config.gan.direction == "face-voice" else "face"
    name = d.voices if modality == "voice" else d.faces
    path = prepared_corpora.corpus_path(name, d.demo_takes)
    if not path.exists():
        return None
    return _rater_confusion(path, path.stat().st_mtime_ns, d.classes, modality)


def matrices_by_row(repetitions: Sequence[RunSummary], rule: str) -> dict[str, Matrix]:
    """Row -> its confusion under a step rule, summed over the runs and their trainings.

    It is of the trainings whose mean accuracy `results.row_accuracy` gives.
    """
    found: dict[str, list[tuple[DataSettings, np.ndarray, int]]] = {}
    for s in repetitions:
        rows = results.row_names(s.results, s.table)
        of = {row: results.row_confusion(s.results, s.table, row, rule) for row in rows}
        if "face" in s.results and s.modality == "voices":
            of[FACE_ROW] = np.array(s.results["face"]["confusion"]), 1
        for row, matrix in of.items():
            if matrix is not None:
                found.setdefault(row, []).append((s.config.data, *matrix))
    classes = tuple(repetitions[0].results["classes"]) if found else ()
    return {row: _sum_of(parts, classes, row) for row, parts in found.items()}


def _sum_of(
    parts: Sequence[tuple[DataSettings, np.ndarray, int]], classes: tuple[str, ...], row: str
) -> Matrix:
    """One matrix of several runs' counts and trainings; runs of one fold have the same samples."""
    sizes: dict[DataSettings, np.ndarray] = {}
    trainings: dict[DataSettings, int] = {}
    for data, counts, n in parts:
        sizes[data] = counts.sum(axis=1) / n
        trainings[data] = trainings.get(data, 0) + n
    each = set(trainings.values())  # folds with and without a table differ in their trainings
    total = np.sum([counts for _, counts, _ in parts], axis=0)
    many = each.pop() if len(each) == 1 else 0
    return Matrix(total, classes, row, many, np.sum(list(sizes.values()), axis=0))


def show_matrices(picked: Sequence[RunSummary], found: Sequence[RunSummary]) -> None:
    """The view: the rows of each chosen run, human raters, and a difference."""
    done = [s for s in picked if s.results]
    if not done:
        words = (
            "Confusion matrices come with a run's last step. None of the chosen runs is finished."
        )
        st.info(words, icon=":material/hourglass_empty:")
        return
    repeated = {s.id: g for g in comparison.repetitions(found) for s in g}
    of, rows = _choose_matrices(done, repeated)
    names, matrices = comparison.short_names(done), dict[str, Matrix]()
    for s in done:
        for row, matrix in of[s.id].items():
            matrices.setdefault(row if _is_shared(row, of) else f"{names[s.id]}: {row}", matrix)
    rated = [(s, m) for s in done if (m := rater_confusion(s.config)) is not None]
    for s, m in rated:
        name = f"{RATER_ROW}, by {s.modality[:-1]}, {s.corpus}"
        matrices[name] = Matrix(m, s.config.data.classes, RATER_ROW)
    _show_charts([(k, m) for k, m in matrices.items() if m.row in (*rows, RATER_ROW)])
    if not rated:
        how = "python -m core data prepare crema-d --source FOLDER_OR_ZIP"
        st.caption(
            "The confusion of people needs raters' votes, which CREMA-D has: "
            f"`{how}`, and a run on it."
        )
    _show_difference(matrices)
    runs.show_csv_download([line for k, m in matrices.items() for line in m.lines(k)], "confusion")
    runs.show_command(*[f"python -m core evaluate {s.id} --json" for s in done[:3]])


def _show_charts(matrices: Sequence[tuple[str, Matrix]]) -> None:
    """Up to MAX_MATRICES named matrices, a chart per set of classes."""
    shown = matrices[:MAX_MATRICES]
    for classes in dict.fromkeys(m.classes for _, m in shown):
        part = {_title(html.escape(k), m): m.counts for k, m in shown if m.classes == classes}
        st.plotly_chart(
            charts.fit(charts.confusion_matrices(part, classes)),
            key=f"confusion {classes}",
            config=figures.export_config("confusion"),
            alt="confusion matrices, in per cent of each true emotion",
        )
    if len(matrices) > MAX_MATRICES:
        words = f"The first {MAX_MATRICES} of {len(matrices)} are shown"
        st.caption(f"{words}: choose fewer runs or rows.")


def _title(name: str, m: Matrix) -> str:
    """A matrix' name and N; its trainings where all of its runs have as many."""
    many = max(1, m.trainings)
    return charts.matrix_title(name, many * m.class_sizes, many)


def _choose_matrices(
    done: Sequence[RunSummary], repeated: Mapping[str, Sequence[RunSummary]]
) -> tuple[dict[str, dict[str, Matrix]], list[str]]:
    """Widgets for pooling, step rule and rows: run id -> its matrices by row, and chosen rows."""
    above = st.container()
    pooled, rule = False, "equal"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="large"):
        if any(len(repeated[s.id]) > 1 for s in done):
            about, key = "Adds up the counts of all runs of the same settings.", "confusion pooled"
            label = "Sum over folds and seeds"
            pooled = st.toggle(label, key=key, help=about, persist_state="session")
        if any(cache.run_by_id(s.id).json("table") for s in done):
            about = (
                "Equal: every row is trained equally long. Best: each up to its best step on S2, "
            )
            about += "from the augmentation table."
            rules = STEP_RULE_NAMES
            options = tuple(rules)
            rule = runs.choose_one("Trained for", "rule", options, "equal", rules.get, help=about)
    of = {s.id: matrices_by_row(repeated[s.id] if pooled else [s], rule) for s in done}
    row_names = (*(r.name for r in protocol.TABLE_ROWS), FACE_ROW)
    rows = [r for r in row_names if any(r in m for m in of.values())]
    default = [r for r in ("S1", "S1 + generated") if r in rows] or rows[:2]
    with above:
        return of, runs.choose_several("Trained on", "rows", rows, default)


def _is_shared(row: str, of: Mapping[str, Mapping[str, Matrix]]) -> bool:
    """Whether all runs have an equal matrix of this row, as siblings have of S1."""
    found = [m[row] for m in of.values() if row in m]
    first = found[0]
    return len(found) == len(of) and all(
        m.classes == first.classes and np.array_equal(m.counts, first.counts) for m in found
    )


def _show_difference(matrices: Mapping[str, Matrix]) -> None:
    """Two matrices to choose; the first minus the second in points of each true class."""
    st.header("Difference of two")
    names = list(matrices)
    a, b = st.columns(2)
    with a:
        default = next((k for k in names if matrices[k].row == "S1 + generated"), names[0])
        first = runs.choose_from_list("This", "this", names, default)
    same = [k for k in names if matrices[k].classes == matrices[first].classes]
    with b:
        default = next((k for k in same if matrices[k].row == "S1"), same[0])
        second = runs.choose_from_list("minus this", "minus", same, default)
    classes, both = matrices[first].classes, [matrices[k].counts for k in (first, second)]
    gap = 100 * np.subtract(*map(metrics.normalise_rows, both))
    left, right = st.columns([3, 2], gap="large", vertical_alignment="center")
    left.plotly_chart(
        figures.confusion_difference(*both, classes),
        key="confusion difference",
        config=figures.export_config("confusion-difference"),
        alt=f"{first} minus {second}, in points",
    )
    gains = np.diag(gap)
    most, least = int(gains.argmax()), int(gains.argmin())
    mean, high, low = map(runs.signed_points, (gains.mean(), gains[most], gains[least]))
    right.markdown(
        "Blue on the diagonal is good: the emotion is recognised more often. On average "
        f"**{mean} points**; most {classes[most]} ({high}), least {classes[least]} ({low}), each "
        f"of {_class_sizes(matrices[first])}. "
        "Red off the diagonal is good: fewer confusions."
    )
    limit = figures.COLOUR_LIMIT_POINTS
    right.caption(f"The colours end at ±{limit} points in every difference; 0 is in the middle.")


def _class_sizes(m: Matrix) -> str:
    """Samples of a class behind a matrix, and trainings: "16 samples a class, 3 trainings"."""
    sizes = sorted({round(float(n)) for n in m.class_sizes})
    count = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"{count} samples a class" + (f", {m.trainings} trainings" * (m.trainings > 1))
