"""A run in a few words: data, figures and model card; what to do without a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from core.conformal import credibility
from core.conformal.credibility import CredibilityScale
from core.presets import PRESETS
from core.runs import Run
from ui import theme

if TYPE_CHECKING:
    from core.inference.generation import Explanation


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
    st.caption(f"Credibility {credibility.describe(scale, explanation.credibility)}.")


def show_results(run: Run) -> None:
    """Corpus, labels, accuracies and FID with N and references, and the model card."""
    corpus, results = run.json("corpus"), run.json("results")
    if not (corpus and results):
        return
    titles = dict.fromkeys(corpus[role]["title"] for role in ("faces", "voices"))
    rows, q = results["augmentation"], results["quality"]
    given, made = results.get("direction", "face-voice").split("-")
    figures = [
        f"{len(results['classes'])} emotions (chance {results['chance']:.1%})",
        f"labels: {results['labels']}",
    ]
    if "S1" in rows and "S1 + generated" in rows:
        before, after = (rows[k]["accuracy"] for k in ("S1", "S1 + generated"))
        n = f"N = {results[f'N test {made}s']} real test {made}s"
        figures.append(f"{made} classifier {before:.1%} → {after:.1%} with generated {made}s, {n}")
    n = results[f"N test {given}s"]
    figures.append(f"{given} classifier {results[given]['accuracy']:.1%}, N = {n}")
    figures.append(f"FID {q['FID']:.1f} (real against real {q['FID real']:.1f}), N = {q['N']}")
    st.markdown(f"`{run.id}` · {' × '.join(titles)}")
    st.caption(" · ".join(figures))
    card = run.directory / "CARD.md"
    if card.exists():
        title = "Model card: data, licence, figures, what it must not be used for"
        with st.expander(title, icon=":material/description:"):
            st.markdown(card.read_text())
