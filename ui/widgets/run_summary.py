"""A run in a few words: data, figures and model card; what to do without a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from core.config.presets import PRESETS
from core.conformal import credibility
from core.conformal.credibility import CredibilityScale
from core.evaluation import results
from core.evaluation.results import Results, Table
from core.runs.directory import Run
from ui import theme

if TYPE_CHECKING:
    from core.inference.generation import Explanation

MAX_CARD_BYTES = 100_000  # of a model card that is shown; ours have some 3 kB


def show_no_run() -> None:
    """Say that no run exists yet, with a link and a command that train the demo."""
    st.info(
        "**There is no trained run yet.** Train the demo: it needs no download and takes some "
        "minutes. Its faces and voices are invented.",
        icon=":material/model_training:",
    )
    label, preset = "Train the demo", {"preset": "demo"}
    icon = ":material/arrow_forward:"
    st.page_link("pages/train.py", label=label, icon=icon, query_params=preset)
    st.caption("Or in a terminal, in the project's folder:")
    st.code("python -m core train --preset demo", language="bash")


def show_untrained_condition(condition: str, name: str) -> None:
    """Placeholder for a voice whose condition has no finished run, with a link to Train."""
    title, _, about = theme.CONDITION_TEXTS[condition]
    st.markdown(f"**{title}** · not trained yet", help=about)
    known = {"condition": condition} | ({"preset": name} if name in PRESETS else {})
    icon = ":material/model_training:"
    st.page_link("pages/train.py", label="Train it", icon=icon, query_params=known)


def show_certainty(
    classes: Sequence[str], explanation: Explanation, scale: CredibilityScale
) -> None:
    """Prediction, credibility and confidence as metrics; below them the credibility's scale."""
    certainty = {
        "Prediction": (classes[explanation.prediction], "The emotion with the highest p-value."),
        "Credibility": (
            f"{explanation.credibility:.2f}",
            f"{credibility.MEANING} A picture of no face at all may get a high one.",
        ),
        "Confidence": (
            f"{explanation.confidence:.2f}",
            "One minus the second highest p-value: how clearly all other emotions can be ruled "
            "out. p-values do not sum to one.",
        ),
    }
    for column, (name, (value, about)) in zip(st.columns(3, gap="small"), certainty.items()):
        column.metric(name, value, help=about)
    sure = credibility.describe(scale, explanation.credibility)
    st.caption(f"Credibility {sure}. It measures indecision, not strangeness.")


def show_results(run: Run) -> None:
    """Corpus, labels, accuracies and FID with N and references, and the model card."""
    corpus, found = run.json("corpus"), run.json("results")
    if not (corpus and found):
        return
    titles = dict.fromkeys(corpus[role]["title"] for role in ("faces", "voices"))
    shown = " × ".join(map(theme.escape_markdown, titles))
    st.markdown(f"`{run.id}` · {shown}")
    st.caption(" · ".join(figure_texts(found, run.json("table"))))
    card = run.directory / "CARD.md"
    if card.is_file() and card.stat().st_size <= MAX_CARD_BYTES:
        title = "Model card: data, licence, figures, what it must not be used for"
        with st.expander(title, icon=":material/description:"):
            st.markdown(card.read_text(encoding="utf-8", errors="replace"))


def figure_texts(found: Results, table: Table) -> list[str]:
    """Chance, labels, accuracies and FID of results and their table ({} without one), each a text.

    An accuracy is the mean over trainings wherever several exist, as on every page.
    """
    made = results.target_of(found)
    given = "voice" if made == "face" else "face"
    texts = [
        f"{len(found['classes'])} emotions (chance {found['chance']:.1%})",
        f"labels: {found['labels']}",
    ]
    rows = [r for r in ("S1", "S1 + generated") if r in results.row_names(found, table)]
    if len(rows) == 2:
        before, after = (results.row_accuracy(found, table, r).text for r in rows)
        texts.append(
            f"{made} classifier {before} on real {made}s alone, {after} with generated ones, "
            f"on {results.s4_text(found, table)}"
        )
    n = found[f"N test {given}s"]
    texts.append(f"{given} classifier {found[given]['accuracy']:.1%}, N = {n}")
    fid, floor = (results.quality_text(found, k) for k in ("FID", "FID real"))
    return [*texts, f"FID {fid} (real against real {floor}), N = {found['quality']['N']}"]
