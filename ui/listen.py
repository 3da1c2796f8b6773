"""A voice as long as its clip: spectrogram, conditions and verdicts over time, player, files."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from core.config import LogMel
from ui import theme
from ui.session.cache import GeneratedLongVoice
from ui.widgets import players, spectrogram

if TYPE_CHECKING:
    from core.inference.generation import Audio

PLOT_MARGINS = 46, 50  # pixels left and right of a spectrogram, for its axis and scale
MIN_NAMED_SHARE = 0.15  # an emotion below this share of every window is not in the legend


def show_long_voice(
    condition: str,
    one: GeneratedLongVoice,
    classes: Sequence[str],
    ref_db: float,
    s: LogMel,
    stem: str,
    plain: Audio | None = None,
) -> None:
    """One condition's voice of a whole clip; `plain` is the same by plain Griffin-Lim."""
    p = one.long_voice
    strongest = {classes[k] for k in p.c.argmax(axis=1)} if p.c.shape[1] else set()
    label = strongest.pop() if len(strongest) == 1 else "each face's own"
    with st.container(border=True):
        left, right = st.columns([8, 3], gap="medium", vertical_alignment="center")
        with left:
            players.show_heading(condition, label)
            alt = f"generated spectrogram of the whole clip, {condition}"
            spectrogram.show_canvas(p.y, ref_db, s, f"chart whole {condition}", alt, 190)
            st.html(windows_html(one.facts, classes))
        with right:
            players.show_generated(one.sound, f"{condition}, of the whole clip", plain)
            st.markdown(agreement_text(one.facts))
            seconds = f"{len(one.sound.wave) / s.rate:.1f} s"
            more = " Longer clips have a voice for their first 20 s." if p.is_truncated else ""
            st.caption(f"{seconds}, {len(p.starts)} windows with one noise.{more}")
            facts = lambda: json.dumps(one.facts, indent=1, ensure_ascii=False)  # noqa: E731
            names = f"{stem}-{condition}-whole", f"whole {condition}"
            players.show_downloads(one.sound, p.y, *names, facts)


def windows_html(facts: Sequence[dict], classes: Sequence[str]) -> str:
    """The told condition over time, and below it the scorer's softmax, as HTML.

    Each window is a bar, which the emotions' colours divide by their shares.
    """
    left, right = PLOT_MARGINS
    rows = [("heard by the scorer", "heard")]  # key of a window's record, word on the page
    if facts[0]["c"]:
        rows.insert(0, ("c", "told"))
    named = [
        k
        for k in classes
        if any(w[of][k] > MIN_NAMED_SHARE * sum(w[of].values()) for w in facts for of, _ in rows)
    ]
    legend = " &nbsp; ".join(theme.emotion_html(k) for k in named)
    bars = "".join(_windows_row_html(facts, classes, of, word) for of, word in rows)
    place = f"margin:.25rem {right}px 0 {left}px;font-size:.8125rem"
    return f"{bars}<div style='{place}'>{legend}</div>"


def _windows_row_html(facts: Sequence[dict], classes: Sequence[str], of: str, word: str) -> str:
    left, right = PLOT_MARGINS
    bars = []
    for w in facts:
        values, total = w[of], max(sum(w[of].values()), 1e-9)
        parts = "".join(
            f"<div style='height:{100 * values[k] / total:.1f}%;"
            f"background:{theme.emotion_colour(k)}'></div>"
            for k in reversed(classes)
        )
        best = sorted(values, key=values.__getitem__)[:-4:-1]
        words = f"{w['from']:.2f} to {w['to']:.2f} s, face at {w['time']:.2f} s: {word} "
        words += ", ".join(f"{k} {values[k]:.2f}" for k in best)
        width = f"flex:{w['to'] - w['from']:.3f} 0 0"
        style = f"{width};display:flex;flex-direction:column;height:100%"
        bars.append(f"<div title='{html.escape(words, quote=True)}' style='{style}'>{parts}</div>")
    row = f"margin-bottom:3px;margin-right:{right}px;font-size:.8125rem"
    strip = "flex:1;height:20px;display:flex;border-radius:4px;overflow:hidden"
    label = f"role='img' aria-label='what was {word} when'"
    return (
        f"<div style='display:flex;align-items:center;{row}'>"
        f"<div style='width:{left}px;flex:none'>{word}</div>"
        f"<div {label} style='{strip}'>{''.join(bars)}</div></div>"
    )


def agreement_text(facts: Sequence[dict]) -> str:
    """Sentence on the windows in which the scorer hears the told emotion; "" if none was told."""
    if not facts[0]["c"]:
        return ""
    pairs = ((w["c"], w["heard by the scorer"]) for w in facts)
    alike = sum(max(c, key=c.get) == max(heard, key=heard.get) for c, heard in pairs)
    return f"The scorer hears the emotion that was told in **{alike} of {len(facts)}** windows."
