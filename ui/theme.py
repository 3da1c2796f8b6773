"""One look for all pages: the emotions' colours, the run states' colours, and the few lines of CSS that Streamlit has no setting for."""

from __future__ import annotations

import streamlit as st

EMOTION = {  # told apart with normal, red-blind, green-blind and blue-blind sight, on the light and on the dark ground
    "neutral": "#788287",
    "calm": "#01bfdd",
    "happy": "#af7d00",
    "sad": "#6d83fd",
    "angry": "#b13a45",
    "fear": "#8f3eb7",
    "disgust": "#a1ba01",
    "surprise": "#f195a3",
}
OTHER = "#8a9499"  # an emotion outside the vocabulary
STATE = {"queued": "gray", "running": "blue", "stopped": "orange", "failed": "red", "done": "green"}  # Streamlit's badge colours
LINES = ("#2f8f9d", "#d1793b", "#8467c9", "#b8508c", "#7d8a3c", "#7b8790")  # curves that are no emotion, readable on both grounds
REFERENCE = "#8a9499"  # reference lines of real data
LEVELS = "Magma"  # every spectrogram's colour map
COUNTS = "Teal"  # every confusion matrix'

CONDITION = {
    "label": ("Told a label", "supervised: the generator is told one emotion"),
    "classifier": ("Told the classifier's belief", "semi-supervised: it is told the softmax of the face classifier f_S"),
    "cp": ("Told conformal p-values", "semi-supervised conformal prediction: it is told how well each emotion fits the calibration faces"),
    "none": ("Told nothing", "face and noise alone"),
}

CSS = """<style>
.stMainBlockContainer {padding-top: 4.25rem; padding-bottom: 3rem; max-width: 90rem;}
.stMainBlockContainer h1 {padding: 0 0 .25rem; font-size: 2rem;}
.stMainBlockContainer h3 {padding: .25rem 0;}
[class*="st-key-crisp"] img {image-rendering: pixelated; border-radius: 0;}
</style>"""


def dress() -> None:
    """Called once by the router."""
    st.html(CSS)


def colour(emotion: str) -> str:
    return EMOTION.get(emotion, OTHER)


def dot(emotion: str) -> str:
    """An emotion's name behind a dot of its colour, as HTML for `st.html` or Plotly's text."""
    return f'<span style="color:{colour(emotion)}">●</span> {emotion}'


def states(current: str) -> str:
    """The state machine as a row of badges, the current state in its colour, as Markdown."""
    ends = [s for s in ("stopped", "failed", "done") if s != current]
    path = ["queued", "running", *([current] if current not in ("queued", "running") else ["done"])]
    shown = [f":{STATE[s]}-badge[**{s}**]" if s == current else f":gray[{s}]" for s in path]
    return " → ".join(shown) + ("" if current in ("stopped", "failed", "done") else "  ·  " + " · ".join(f":gray[{s}]" for s in ends if s not in path))
