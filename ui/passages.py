"""A voice as long as its film on a page: its spectrogram, below it what the generator was told when, its player and files."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from core.config import LogMel
from ui import players, spectra, theme
from ui.access import Whole

if TYPE_CHECKING:
    from core.studio import Sound

SIDES = 46, 50  # pixels that a spectrogram's axis and scale take beside its picture


def show(condition: str, one: Whole, classes: Sequence[str], ref_db: float, s: LogMel, stem: str, plain: Sound | None = None) -> None:
    """One condition's voice of a whole film."""
    p = one.passage
    most = {classes[k] for k in p.c.argmax(axis=1)} if p.c.shape[1] else set()
    with st.container(border=True):
        left, right = st.columns([8, 3], gap="medium", vertical_alignment="center")
        with left:
            players.heading(condition, most.pop() if len(most) == 1 else "each face's own")
            spectra.show(p.y, ref_db, s, f"chart whole {condition}", f"generated spectrogram of the whole clip, {condition}", 190)
            st.html(strip(one.facts, classes))
        with right:
            players.made(one.sound, f"{condition}, of the whole clip", plain)
            st.html(players.heard(classes, one.heard))
            count = len(p.starts)
            words = "Longer films have a voice for their first 20 s." if p.cut else ""
            st.caption(f"{len(one.sound.wave) / s.rate:.1f} s, {count} windows with one noise; the verdict is their mean. {words}")
            facts = lambda: json.dumps(one.facts, indent=1, ensure_ascii=False)  # noqa: E731
            players.files(one.sound, p.y, f"{stem}-{condition}-whole", f"whole {condition}", facts)


def strip(facts: Sequence[dict], classes: Sequence[str]) -> str:
    """What was told when, as HTML under a spectrogram's time axis: each window a bar of the emotions' colours by their shares."""
    if not facts[0]["c"]:
        return "<div style='font-size:.8125rem;opacity:.7'>This generator is told nothing but the face.</div>"
    bars, seen = [], dict.fromkeys(k for k in classes if any(w["c"][k] > 0.15 * sum(w["c"].values()) for w in facts))
    for w in facts:
        total = max(sum(w["c"].values()), 1e-9)
        parts = "".join(
            f"<div style='height:{100 * w['c'][k] / total:.1f}%;background:{theme.colour(k)}'></div>" for k in reversed(classes)
        )
        best = sorted(w["c"], key=w["c"].__getitem__)[:-4:-1]
        about = f"{w['from']:.2f} to {w['to']:.2f} s, face at {w['time']:.2f} s: " + ", ".join(f"{k} {w['c'][k]:.2f}" for k in best)
        style = f"flex:{w['to'] - w['from']:.3f} 0 0;display:flex;flex-direction:column;height:100%"
        bars.append(f"<div title='{html.escape(about, quote=True)}' style='{style}'>{parts}</div>")
    names = " &nbsp; ".join(theme.dot(html.escape(k)) for k in seen)
    left, right = SIDES
    return (
        f"<div role='img' aria-label='what the generator was told when' style='margin:0 {right}px 0 {left}px;height:26px;display:flex;"
        f"border-radius:4px;overflow:hidden'>{''.join(bars)}</div>"
        f"<div style='margin:.25rem {right}px 0 {left}px;font-size:.8125rem'>told: {names}</div>"
    )
