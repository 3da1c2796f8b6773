"""The look of all pages: colours of emotions and states, and CSS beyond Streamlit's settings."""

from __future__ import annotations

import html
import re

import streamlit as st
from PIL import Image, ImageDraw
from plotly.colors import sequential

# Distinct for normal, red-blind, green-blind and blue-blind sight, in the light and dark theme.
EMOTION_COLOURS = {
    "neutral": "#788287",
    "calm": "#01bfdd",
    "happy": "#af7d00",
    "sad": "#6d83fd",
    "angry": "#b13a45",
    "fear": "#8f3eb7",
    "disgust": "#a1ba01",
    "surprise": "#f195a3",
}
OTHER_EMOTION_COLOUR = "#8a9499"  # an emotion outside the vocabulary
STATE_COLOURS = {  # Streamlit's badge colours
    "queued": "gray",
    "running": "blue",
    "paused": "violet",
    "stopped": "orange",
    "failed": "red",
    "done": "green",
}
# Curves that are no emotion, readable in both themes.
LINE_COLOURS = ("#2f8f9d", "#d1793b", "#8467c9", "#b8508c", "#7d8a3c", "#7b8790")
REFERENCE_COLOUR = "#8a9499"  # reference lines of real data
# The colour map of all spectrograms: magma. Streamlit replaces the colours #000001 to #000016 by
# others, and magma begins there.
SPECTROGRAM_COLOUR_SCALE = [k.replace("#000004", "#01010a") for k in sequential.Magma]
CONFUSION_COLOUR_SCALE = "Teal"  # colour scale of all confusion matrices

CONDITION_TEXTS = {  # name on a page, what the generator is told, the paper's name and meaning
    "label": (
        "Label",
        "one emotion: **{}**",
        "Supervised: the generator is told the face and one emotion.",
    ),
    "classifier": (
        "Classifier",
        "the softmax",
        "Semi-supervised: the generator is told the face and the face classifier's softmax, "
        "the solid bars.",
    ),
    "cp": (
        "CP",
        "the p-values",
        "Semi-supervised conformal prediction: the generator is told the face and the p-values, "
        "the hatched bars.",
    ),
    "none": ("None", "the face alone", "No condition: face and noise alone."),
}

CSS = """<style>
.stMainBlockContainer {padding-top: 4rem; padding-bottom: 3rem; max-width: 90rem;}
.stMainBlockContainer h1 {padding: 0; font-size: 1.75rem;}
.stMainBlockContainer h2 {padding: .25rem 0 .5rem; font-size: 1.15rem;}
.stMainBlockContainer h3 {padding: .25rem 0 .5rem; font-size: 1rem;}
.stMainBlockContainer hr {margin: .5rem 0;}
.stApp button:is([data-variant="segmented_control"], [data-variant="pills"])[data-selected] {
  color: inherit;}
.stApp button:is([data-variant="segmented_control"], [data-variant="pills"])[data-selected] p {
  font-weight: 600;}
[data-testid="stMetricValue"] {font-size: 1.5rem;}
.st-key-viewport {position: absolute;}
/* A window narrower than a screen has small edges, and nothing in it is cut: words and rows of
   options wrap, and players that would lose their button stand below each other. */
@media (max-width: 1200px) {.stMainBlockContainer {padding-left: 2rem; padding-right: 2rem;}}
@media (max-width: 700px) {.stMainBlockContainer {padding-left: 1rem; padding-right: 1rem;}}
.stApp :is([data-testid="stPageLink"], [data-testid="stMetricLabel"], [data-testid="stButton"],
  [data-testid="stDownloadButton"], [data-testid="stPopover"]) p {
  white-space: normal; overflow: visible;}
.stApp [data-testid="stButtonGroup"] [role="radiogroup"] {flex-wrap: wrap;}
.stApp [data-testid="stColumn"]:has(audio) {min-width: 9.5rem;}
.stApp [data-testid="stColumn"]:has([data-testid="stMetric"]) {min-width: 6.5rem;}
.st-key-phone-player {display: none;}
@media (max-width: 700px) {.st-key-phone-player {display: flex;}}
/* Streamlit's own quiet colours have a contrast below 4.5:1; a share of the text's has more. */
.stApp :is([data-testid="stSliderThumbValue"], [data-testid="stCaptionContainer"],
  [data-testid="stCaptionContainer"] code,
  [data-testid="stMarkdownContainer"] code, .token.parameter, .token.comment) {color: inherit;}
.stApp :is([data-testid="stCaptionContainer"], .token.comment) {opacity: .82;}
.stApp [data-testid="stMarkdownContainer"] :not(pre) > code {font-size: .875em;}
.stApp .token:is(.keyword, .function, .builtin, .class-name, .decorator, .boolean) {
  color: light-dark(#0b5c8a, #8cc8f2);}
.stApp .token.number {color: light-dark(#8a3f0b, #f0b080);}
.stApp .token:is(.string, .triple-quoted-string) {color: light-dark(#0a6b2c, #7fd99a);}
/* A long equation wraps: what scrolls cannot be reached by keyboard. */
.stApp .katex-display {overflow: visible !important;}
.stApp .katex-display > .katex {white-space: normal;}
.stApp :is(a, button, summary, [role="tab"], [role="radio"]):focus-visible {
  outline: 2px solid currentColor; outline-offset: 2px;}
</style>"""


def icon() -> Image.Image:
    """The browser tab's picture: a voice as five bars.

    It is drawn here, as Streamlit would fetch a named symbol from the network.
    """
    image = Image.new("RGBA", (64, 64))
    draw = ImageDraw.Draw(image)
    for k, height in enumerate((18, 40, 58, 34, 22)):
        box = [4 + 12 * k, 32 - height / 2, 11 + 12 * k, 32 + height / 2]
        draw.rounded_rectangle(box, 3, "#1b828b")
    return image


def apply_css() -> None:
    """Apply the CSS; called once by the router."""
    st.html(CSS)


def emotion_colour(emotion: str) -> str:
    return EMOTION_COLOURS.get(emotion, OTHER_EMOTION_COLOUR)


def emotion_html(emotion: str) -> str:
    """An emotion's name behind a dot of its colour, as HTML for `st.html` or Plotly's text."""
    return f'<span style="color:{emotion_colour(emotion)}">●</span> {html.escape(emotion)}'


def escape_markdown(text: str) -> str:
    """An untrusted text as one line of Markdown that shows it letter by letter."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def state_badges(current: str) -> str:
    """The states of a training as a row of words, the current one as a badge, as Markdown."""
    queued, running, paused, stopped, failed, done = (
        f":{colour}-badge[**{s}**]" if s == current else f":gray[{s}]"
        for s, colour in STATE_COLOURS.items()
    )
    return f"{queued} → {running} ⇄ {paused}  →  {done} / {stopped} / {failed}"
