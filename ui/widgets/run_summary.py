"""A run in a few words: what it was trained on and how well it does, its card, what to do where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from core.config import PRESETS
from core.runs import Run
from ui import theme

if TYPE_CHECKING:
    from core.inference.generation import Explanation


def show_no_run() -> None:
    """Nothing is trained yet: what to do."""
    st.info(
        "**There is no trained run yet.** Train the demo: it needs no download and takes some minutes. Its faces and voices are invented.",
        icon=":material/model_training:",
    )
    st.page_link(
        "pages/train.py",
        label="Train the demo",
        icon=":material/arrow_forward:",
        query_params={"preset": "demo"},
    )
    st.caption("Or in a terminal, in the project's folder:")
    st.code("python -m core train --preset demo", language="bash")


def show_untrained_condition(condition: str, name: str) -> None:
    """In the place of a voice whose condition has no finished run in this family."""
    title, _, about = theme.CONDITION_TEXTS[condition]
    st.markdown(f"**{title}** · not trained yet", help=about)
    known = {"condition": condition} | ({"preset": name} if name in PRESETS else {})
    st.page_link(
        "pages/train.py", label="Train it", icon=":material/model_training:", query_params=known
    )


def show_certainty(classes: Sequence[str], said: Explanation) -> None:
    """Credibility and confidence, in words."""
    a, b, c = st.columns(3, gap="small")
    a.metric("Prediction", classes[said.prediction], help="The emotion with the highest p-value.")
    b.metric(
        "Credibility",
        f"{said.credibility:.2f}",
        help="The highest p-value: how well the best emotion fits the calibration faces. Near 0: this face is unlike all of them.",
    )
    c.metric(
        "Confidence",
        f"{said.confidence:.2f}",
        help="One minus the second highest p-value: how clearly all other emotions can be ruled out. p-values do not sum to one.",
    )


def show_results(run: Run) -> None:
    """Corpus, labels, N, accuracy and FID with their references, and the model card."""
    corpus, results = run.json("corpus"), run.json("results")
    if not (corpus and results):
        return
    titles = dict.fromkeys(corpus[role]["title"] for role in ("faces", "voices"))
    rows, q = results["augmentation"], results["quality"]
    given, made = (
        ("voice", "face") if results.get("direction") == "voice-face" else ("face", "voice")
    )
    figures = [
        f"{len(results['classes'])} emotions (chance {results['chance']:.1%})",
        f"labels: {results['labels']}",
    ]
    if "S1" in rows and "S1 + generated" in rows:
        figures.append(
            f"{made} classifier {rows['S1']['accuracy']:.1%} → {rows['S1 + generated']['accuracy']:.1%} with generated {made}s, "
            f"N = {results[f'N test {made}s']} real test {made}s"
        )
    figures.append(
        f"{given} classifier {results[given]['accuracy']:.1%}, N = {results[f'N test {given}s']}"
    )
    figures.append(f"FID {q['FID']:.1f} (real against real {q['FID real']:.1f}), N = {q['N']}")
    st.markdown(f"`{run.id}` · {' × '.join(titles)}")
    st.caption(" · ".join(figures))
    card = run.directory / "CARD.md"
    if card.exists():
        with st.expander(
            "Model card: data, licence, figures, what it must not be used for",
            icon=":material/description:",
        ):
            st.markdown(card.read_text())
