"""Shared parts of the page Conformal's figures: colours, rounding, histogram bins and the ε slider.

Figures are kept small for the network: numbers are rounded, histograms are counted here and large
scatter plots use WebGL. The browser moves a slider inside a figure by itself, so a figure holds
the lines and texts of every slider position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from core.conformal import validity
from ui import theme

MAIN_COLOUR, THIRD_COLOUR, SECOND_COLOUR, ALARM_COLOUR = theme.LINE_COLOURS[:4]
GREY, BAND_COLOUR = theme.REFERENCE_COLOUR, "rgba(138,148,153,0.28)"
EPS_POSITIONS = validity.EPS_LEVELS[1:-1]  # the ε of each position of an ε slider
SCORE_BINS = 40  # bins of the histograms of scores and of confidence
DIAGONAL = {  # the dotted line y = x from 0 to 1
    "x": [0, 1],
    "y": [0, 1],
    "mode": "lines",
    "line": {"color": GREY, "dash": "dot", "width": 2},
    "hoverinfo": "skip",
}


def class_colours(classes: Sequence[str]) -> list[str]:
    """The theme's colour of each emotion; other classes get the line colours in turn."""
    return [
        theme.EMOTION_COLOURS.get(c, theme.LINE_COLOURS[i % len(theme.LINE_COLOURS)])
        for i, c in enumerate(classes)
    ]


def round_float32(a: np.ndarray, digits: int = 4) -> np.ndarray:
    return np.round(np.asarray(a, np.float64), digits).astype(np.float32)


def bin_centres(edges: np.ndarray) -> np.ndarray:
    return round_float32((edges[1:] + edges[:-1]) / 2)


def nearest_position(eps: float) -> int:
    """The slider position whose ε is nearest."""
    return int(np.abs(EPS_POSITIONS - eps).argmin())


def slider(prefix: str, colour: str, steps: list[dict], active: int, y: float) -> dict:
    """A slider below a figure, at `y` in plot heights; it prints `prefix` and its value."""
    font = {"size": 14, "color": colour}
    look = {"bordercolor": GREY, "bgcolor": colour, "activebgcolor": colour}
    look |= {"ticklen": 0, "minorticklen": 0, "pad": {"t": 0, "b": 4}, "x": 0, "len": 1.0, "y": y}
    look["font"] = {"size": 1, "color": "rgba(0,0,0,0)"}  # hides step labels: the axis has them
    value = {"prefix": prefix, "xanchor": "left", "font": font}
    return {"active": active, "steps": steps, "currentvalue": value, **look}


def eps_slider(steps: list[dict], eps: float, y: float) -> dict:
    return slider("drag ε = ", ALARM_COLOUR, steps, nearest_position(eps), y)


def vertical_line(x: float, dash: str = "dash", **axes) -> dict:
    """A line across a subplot's whole height; `axes` holds xref and yref."""
    line = {"color": ALARM_COLOUR, "width": 2, "dash": dash}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line, **axes}


def add_line(figure: go.Figure, x, y, colour: str, width: float = 2, **more) -> None:
    """Add a line; `more` goes to Plotly: name, row, col, hovertemplate …, `dash` to the line."""
    line = {"color": colour, "width": width}
    if "dash" in more:
        line["dash"] = more.pop("dash")
    figure.add_scatter(x=x, y=round_float32(y), mode="lines", line=line, **more)
