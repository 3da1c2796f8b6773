"""Who is taken for whom: confusion matrices of runs' rows on one scale, people's own, and the difference between two."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from core.config import Config
from core.data import prepared_corpora
from core.data import labels, splits
from core.evaluation import comparison, metrics, protocol
from core.evaluation.comparison import RunSummary
from ui.evaluate import figures, runs
from ui.session import cache, corpora
from ui.widgets import charts

MAX_MATRICES = 12  # matrices on the page at once
FACE_ROW, RATER_ROW = "faces (f_S)", "people"


@dataclass(frozen=True)
class Matrix:
    """Counts (K, K): rows are the true classes."""

    counts: np.ndarray
    classes: tuple[str, ...]
    row: str  # what the classifier was trained on, FACES or PEOPLE

    def lines(self, name: str) -> list[dict[str, Any]]:
        """For a csv."""
        pairs = [(i, j) for i in range(len(self.classes)) for j in range(len(self.classes))]
        return [
            {
                "matrix": name,
                "true": self.classes[i],
                "predicted": self.classes[j],
                "count": float(self.counts[i, j]),
            }
            for i, j in pairs
        ]


@st.cache_data(show_spinner=False, max_entries=64)
def _rater_confusion(
    path: Path, stamp: int, classes: tuple[str, ...], sense: str
) -> np.ndarray | None:
    known = corpora.load_summary(path.stem)
    if isinstance(known, str) or not known.has_votes:
        return None
    return protocol.rater_confusion(
        known.emotion, known.votes[:, labels.VOTE_MODALITIES.index(sense)], classes
    )


def rater_confusion(config: Config) -> np.ndarray | None:
    """How raters took what a run's voices (or faces, where it makes these) mean, as counts (K, K); None where nobody voted or the corpus is
    not here."""
    d, sense = config.data, "voice" if config.gan.direction == "face-voice" else "face"
    path = prepared_corpora.corpus_path(d.voices if sense == "voice" else d.faces, d.demo_takes)
    return (
        _rater_confusion(path, path.stat().st_mtime_ns, d.classes, sense) if path.exists() else None
    )


def matrices_by_row(repetitions: Sequence[RunSummary], rule: str) -> dict[str, Matrix]:
    """Row -> its confusion under a step rule, summed over the runs given. At equal steps the run's own figures come before its table's."""
    out: dict[str, Matrix] = {}
    for s in repetitions:
        of = {
            row: t[rule]["confusion"]
            for row, t in cache.run_by_id(s.id).json("table").get("rows", {}).items()
        }
        if rule == "equal":
            of |= {row: t["confusion"] for row, t in s.results["augmentation"].items()}
        if "face" in s.results and s.made == "voices":
            of[FACE_ROW] = s.results["face"]["confusion"]
        for row, counts in of.items():
            before = out[row].counts if row in out else 0
            out[row] = Matrix(before + np.array(counts), tuple(s.results["classes"]), row)
    return out


def show_matrices(picked: Sequence[RunSummary], found: Sequence[RunSummary]) -> None:
    """The view: each row of each chosen run, people, and a difference."""
    done = [s for s in picked if s.results]
    if not done:
        st.info(
            "Confusion matrices come with a run's last step. None of the chosen runs is finished.",
            icon=":material/hourglass_empty:",
        )
        return
    repeated = {s.id: g for g in comparison.repetitions(found) for s in g}
    of, rows = _choose_matrices(done, repeated)
    names, every = comparison.short_names(done), dict[str, Matrix]()
    for s in done:
        for row, matrix in of[s.id].items():
            every.setdefault(row if _is_shared(row, of) else f"{names[s.id]}: {row}", matrix)
    rated = [(s, m) for s in done if (m := rater_confusion(s.config)) is not None]
    every |= {
        f"{RATER_ROW}, by {s.made[:-1]}, {s.corpus}": Matrix(m, s.config.data.classes, RATER_ROW)
        for s, m in rated
    }
    shown = [(k, m) for k, m in every.items() if m.row in (*rows, RATER_ROW)]
    for classes in dict.fromkeys(m.classes for _, m in shown[:MAX_MATRICES]):
        part = {html.escape(k): m.counts for k, m in shown[:MAX_MATRICES] if m.classes == classes}
        alt, save = (
            "confusion matrices, in per cent of each true emotion",
            figures.export_config("confusion"),
        )
        st.plotly_chart(
            charts.confusion_matrices(part, classes),
            key=f"confusion {classes}",
            config=save,
            alt=alt,
        )
    if len(shown) > MAX_MATRICES:
        st.caption(
            f"The first {MAX_MATRICES} of {len(shown)} are shown: choose fewer runs or rows."
        )
    if not rated:
        how = "python -m core data prepare crema-d --source FOLDER_OR_ZIP"
        st.caption(
            f"How people take them needs raters' votes, which CREMA-D has: `{how}`, and a run on it."
        )
    _show_difference(every)
    runs.show_csv_download([line for k, m in every.items() for line in m.lines(k)], "confusion")
    runs.show_command(*[f"python -m core evaluate {s.id} --json" for s in done[:3]])


def _choose_matrices(
    done: Sequence[RunSummary], repeated: Mapping[str, Sequence[RunSummary]]
) -> tuple[dict[str, dict[str, Matrix]], list[str]]:
    """The matrices of each run under what is chosen, and the rows to show."""
    above = st.container()
    pooled, rule = False, "equal"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="large"):
        if any(len(repeated[s.id]) > 1 for s in done):
            about = "Adds up the counts of all runs of the same settings."
            pooled = st.toggle(
                "Sum over folds and seeds",
                key="confusion pooled",
                help=about,
                persist_state="session",
            )
        if any(cache.run_by_id(s.id).json("table") for s in done):
            about = "Equal: every row is trained equally long. Best: each as long as S2 likes it, from the augmentation table."
            rule = runs.choose_one(
                "Trained for",
                "rule",
                tuple(figures.STEP_RULE_LABELS),
                "equal",
                figures.STEP_RULE_LABELS.get,
                help=about,
            )
    of = {s.id: matrices_by_row(repeated[s.id] if pooled else [s], rule) for s in done}
    rows = [
        r
        for r in (*(r.name for r in protocol.TABLE_ROWS), FACE_ROW)
        if any(r in m for m in of.values())
    ]
    with above:
        return of, runs.choose_several(
            "Trained on",
            "rows",
            rows,
            [r for r in ("S1", "S1 + generated") if r in rows] or rows[:2],
        )


def _is_shared(row: str, of: Mapping[str, Mapping[str, Matrix]]) -> bool:
    """Whether all runs have one and the same matrix of this row, as siblings have of S1."""
    found = [m[row] for m in of.values() if row in m]
    first = found[0]
    return len(found) == len(of) and all(
        m.classes == first.classes and np.array_equal(m.counts, first.counts) for m in found
    )


def _show_difference(every: Mapping[str, Matrix]) -> None:
    """Two matrices to choose, and the first minus the second, in points of each true class."""
    st.subheader("Difference of two")
    names = list(every)
    a, b = st.columns(2)
    with a:
        first = runs.choose_from_list(
            "This",
            "this",
            names,
            next((k for k in names if every[k].row == "S1 + generated"), names[0]),
        )
    same = [k for k in names if every[k].classes == every[first].classes]
    with b:
        second = runs.choose_from_list(
            "minus this", "minus", same, next((k for k in same if every[k].row == "S1"), same[0])
        )
    classes = every[first].classes
    gap = 100 * (
        metrics.normalise_rows(every[first].counts) - metrics.normalise_rows(every[second].counts)
    )
    left, right = st.columns([3, 2], gap="large", vertical_alignment="center")
    alt, save = f"{first} minus {second}, in points", figures.export_config("confusion-difference")
    left.plotly_chart(
        figures.confusion_difference(gap, classes), key="confusion difference", config=save, alt=alt
    )
    gained = np.diag(gap)
    most, least = int(gained.argmax()), int(gained.argmin())
    right.markdown(
        f"On the diagonal blue is good: the emotion is recognised more often. On average **{runs.signed_points(gained.mean())} points**; most "
        f"{classes[most]} ({runs.signed_points(gained[most])}), least {classes[least]} ({runs.signed_points(gained[least])}). Off it, red "
        "is good: fewer mix-ups."
    )
    right.caption(
        f"The colours end at ±{figures.COLOUR_LIMIT_POINTS} points in every difference; 0 is in the middle."
    )
