"""Examples to listen to: for each emotion of a family of runs a real voice and one by each condition, by the vocoder and Griffin-Lim."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from ui import theme
from ui.session.cache import RunFamily

if TYPE_CHECKING:
    from core.inference.audio_samples import AudioSample

COMMAND = "python -m core examples"
WAYS = {"vocoder": "Vocoder", "griffin-lim": "Plain Griffin-Lim", "both": "Both"}


def show(family: RunFamily, follow: Callable[..., dict[str, Any]]) -> None:
    """The collection's part of a family; without one, how it is made. `follow` gives a widget its place in the address."""
    from core.inference import audio_samples

    runs = set(family.members.values())
    pieces = [p for p in audio_samples.read() if p.run in runs]
    if not pieces:
        with st.container(border=True):
            st.markdown(
                ":material/library_music: **There are no examples of this run yet.** One command makes them, in half a minute: for each "
                "emotion a real voice (where its corpus is on this machine) and one by each condition, each by the vocoder and by plain "
                "Griffin-Lim, with how well it carries its spectrogram and what the scorer hears."
            )
            st.code(COMMAND if family.shipped else f"{COMMAND} --run {family.id}", language="bash")
        return
    made = {p.way for p in pieces}
    options = list(WAYS) if len(made) > 1 else [w for w in WAYS if w in made]
    left, right = st.columns([5, 3], gap="medium", vertical_alignment="center")
    left.markdown(
        "The first sample of each emotion that the runs have kept: nothing is picked. **Real** is a real voice through the same mel bands "
        "and back, so that it has what a generated one can have. Below each: what the scorer hears in it, and how far the sound, analysed "
        "again, is from its spectrogram."
    )
    with right, st.container(horizontal_alignment="right"):
        go = follow("way", options[0], lambda k: k if k in options else None)
        way = st.segmented_control(
            "Made sound by",
            options,
            format_func=WAYS.get,
            required=True,
            label_visibility="collapsed",
            **go,
        )
    ways = ["vocoder", "griffin-lim"] if way == "both" else [way]
    have = {p.condition for p in pieces}
    shown = [k for k in ("", *family.members) if k in have]
    widths = [1, *[2] * len(shown)]
    for column, k in zip(st.columns(widths, gap="small")[1:], shown):
        about = (
            theme.CONDITION_TEXTS[k][2]
            if k
            else "Of the same clip where a clip holds face and voice, else of the same emotion."
        )
        column.markdown(f"**{theme.CONDITION_TEXTS[k][0] if k else 'Real'}**", help=about)
    for emotion in dict.fromkeys(p.emotion for p in pieces):
        cells = st.columns(widths, gap="small", vertical_alignment="center")
        cells[0].html(f"<b>{theme.emotion_html(html.escape(emotion))}</b>")
        for cell, k in zip(cells[1:], shown):
            with cell:
                for one in (
                    p
                    for w in ways
                    for p in pieces
                    if (p.condition, p.emotion, p.way) == (k, emotion, w)
                ):
                    _player(one, len(ways) > 1)
    with st.expander("How well the sounds carry their spectrograms", icon=":material/query_stats:"):
        st.markdown(audio_samples.table(pieces))
        st.caption(
            f"Each sound is analysed again and held against its spectrogram: the mean absolute error over its cells. `{COMMAND}` makes all "
            f"{len(pieces)} wavs and {audio_samples.INDEX} anew in {theme.escape_markdown(str(audio_samples.folder()))}."
        )


def _player(one: AudioSample, named: bool) -> None:
    from core.inference import audio_samples

    path = audio_samples.folder() / one.file  # one of those that `read` has found in the folder
    whose = f"{theme.CONDITION_TEXTS[one.condition][0]}, generated" if one.condition else "real"
    st.audio(
        _wav(str(path), path.stat().st_mtime_ns),
        "audio/wav",
        alt=f"{one.emotion}, {whose}, by {WAYS[one.way]}",
    )
    best = max(one.heard_again, key=one.heard_again.__getitem__)
    words = f"{html.escape(WAYS[one.way])} · " if named else ""
    mark, less = (
        "✓" if best == one.emotion else "✕",
        f" · {one.gain_db:.1f} dB" if one.gain_db <= -0.05 else "",
    )
    line = f"{words}{theme.emotion_html(html.escape(best))} {one.heard_again[best]:.0%} {mark} · ±{one.error_db:.2f} dB{less}"
    about = "What the scorer hears in the sound; how far the sound, analysed again, is from its spectrogram; what it was turned down by."
    st.html(
        f"<div title='{html.escape(about, quote=True)}' style='font-size:.8125rem'>{line}</div>"
    )


@st.cache_data(show_spinner=False, max_entries=400)
def _wav(path: str, changed: int) -> bytes:
    with open(path, "rb") as file:
        return file.read()
