"""A voice as long as its film on a page: its spectrogram, below it what the generator was told when, its player and files."""

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

PLOT_MARGINS = 46, 50  # pixels that a spectrogram's axis and scale take beside its picture


def show_long_voice(
    condition: str,
    one: GeneratedLongVoice,
    classes: Sequence[str],
    ref_db: float,
    s: LogMel,
    stem: str,
    plain: Audio | None = None,
) -> None:
    """One condition's voice of a whole film."""
    p = one.long_voice
    most = {classes[k] for k in p.c.argmax(axis=1)} if p.c.shape[1] else set()
    with st.container(border=True):
        left, right = st.columns([8, 3], gap="medium", vertical_alignment="center")
        with left:
            players.show_heading(condition, most.pop() if len(most) == 1 else "each face's own")
            spectrogram.show_canvas(
                p.y,
                ref_db,
                s,
                f"chart whole {condition}",
                f"generated spectrogram of the whole clip, {condition}",
                190,
            )
            st.html(windows_html(one.facts, classes))
        with right:
            players.show_generated(one.sound, f"{condition}, of the whole clip", plain)
            st.markdown(agreement_text(one.facts))
            words = " Longer films have a voice for their first 20 s." if p.is_truncated else ""
            st.caption(
                f"{len(one.sound.wave) / s.rate:.1f} s, {len(p.starts)} windows with one noise.{words}"
            )
            facts = lambda: json.dumps(one.facts, indent=1, ensure_ascii=False)  # noqa: E731
            players.show_downloads(
                one.sound, p.y, f"{stem}-{condition}-whole", f"whole {condition}", facts
            )


def windows_html(facts: Sequence[dict], classes: Sequence[str]) -> str:
    """What was told when, and below it what the scorer hears there, as HTML under a spectrogram's time axis.

    Each window is a bar of the emotions' colours by their shares.
    """
    left, right = PLOT_MARGINS
    place = f"margin:.25rem {right}px 0 {left}px;font-size:.8125rem"
    rows = [("heard by the scorer", "heard")]
    if facts[0]["c"]:
        rows.insert(0, ("c", "told"))
    seen = dict.fromkeys(
        k
        for k in classes
        if any(w[of][k] > 0.15 * sum(w[of].values()) for w in facts for of, _ in rows)
    )
    names = " &nbsp; ".join(theme.emotion_html(html.escape(k)) for k in seen)
    bars = "".join(_windows_row_html(facts, classes, of, word) for of, word in rows)
    return f"{bars}<div style='{place}'>{names}</div>"


def _windows_row_html(facts: Sequence[dict], classes: Sequence[str], of: str, word: str) -> str:
    left, right = PLOT_MARGINS
    bars = []
    for w in facts:
        total = max(sum(w[of].values()), 1e-9)
        parts = "".join(
            f"<div style='height:{100 * w[of][k] / total:.1f}%;background:{theme.emotion_colour(k)}'></div>"
            for k in reversed(classes)
        )
        best = sorted(w[of], key=w[of].__getitem__)[:-4:-1]
        about = (
            f"{w['from']:.2f} to {w['to']:.2f} s, face at {w['time']:.2f} s: {word} "
            + ", ".join(f"{k} {w[of][k]:.2f}" for k in best)
        )
        style = f"flex:{w['to'] - w['from']:.3f} 0 0;display:flex;flex-direction:column;height:100%"
        bars.append(f"<div title='{html.escape(about, quote=True)}' style='{style}'>{parts}</div>")
    return (
        f"<div style='display:flex;align-items:center;margin-bottom:3px;margin-right:{right}px;font-size:.8125rem'>"
        f"<div style='width:{left}px;flex:none'>{word}</div><div role='img' aria-label='what was {word} when' "
        f"style='flex:1;height:20px;display:flex;border-radius:4px;overflow:hidden'>{''.join(bars)}</div></div>"
    )


def agreement_text(facts: Sequence[dict]) -> str:
    """In how many windows the scorer hears what was told most of all; "" where nothing was told."""
    if not facts[0]["c"]:
        return ""
    alike = sum(
        max(w["c"], key=w["c"].get)
        == max(w["heard by the scorer"], key=w["heard by the scorer"].get)
        for w in facts
    )
    return f"The scorer hears what was told most of all in **{alike} of {len(facts)}** windows."
