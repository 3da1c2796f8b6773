"""Plotly figures. Every axis has a title and a unit.

Colours that carry meaning come from the theme, all others from the page's theme.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas  # noqa: F401  (Plotly would use a pandas that another thread has half imported)
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from core.config.settings import LogMel
from core.media import spectrograms
from ui import theme
from ui.session import viewport

TrainingCurves = dict[str, tuple[list[int], list[float]]]  # name -> steps, values
MEL_TICKS_KHZ = (0.2, 0.5, 1, 2, 4, 7)  # kHz on a mel axis
MAX_MARKED_POINTS = 30  # a curve of fewer points shows each as a marker
NO_TOOLBAR_CONFIG: dict[str, Any] = {"displayModeBar": False, "scrollZoom": False}
EXPORT_CONFIG: dict[str, Any] = {  # a tool bar with one button, which saves the picture
    "displaylogo": False,
    "scrollZoom": False,
    "displayModeBar": True,
    "modeBarButtons": [["toImage"]],
    "toImageButtonOptions": {"format": "svg", "filename": "conformal"},
}
MAX_STACK_GAP, STACK_SPACE = 130, 16  # pixels between two plots below each other
LEGEND_ROW = 20  # pixels
TOP_LEFT_LEGEND = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
TOP_RIGHT_LEGEND = TOP_LEFT_LEGEND | {"x": 1, "xanchor": "right"}
BARE_AXIS = {"showgrid": False, "zeroline": False}

# A figure of the same data is built once and shared by all visitors, since Plotly checks every
# property, which takes longer than the rest of a page. It may be shown and copied with
# go.Figure(...), but not changed.
cache_figure = st.cache_resource(show_spinner=False, max_entries=48)


def apply_layout(
    figure: go.Figure,
    height: int,
    left: int = 46,
    right: int = 8,
    top: int = 8,
    bottom: int = 38,
    **layout,
) -> go.Figure:
    """Set the size and margins in pixels, and what all figures share: no dragging, one font size.

    `layout` is passed on to the figure.
    """
    margin = {"l": left, "r": right, "t": top, "b": bottom}
    shared = {"font_size": 12, "uirevision": "kept", "dragmode": False}
    return figure.update_layout(height=height, margin=margin, **shared, **layout)


def fit(figure: go.Figure) -> go.Figure:
    """The figure, or in a narrow window a copy whose plots stand below each other."""
    return stacked(figure) if viewport.is_narrow() else figure


def stacked(figure: go.Figure) -> go.Figure:
    """A copy with one plot in a row, each as high as it was; without rows the figure itself."""
    old = figure.layout
    names = [k.removeprefix("xaxis") for k in old if k.startswith("xaxis")]
    domains = {k: (old[f"xaxis{k}"].domain, old[f"yaxis{k}"].domain) for k in names}
    if None in {d for pair in domains.values() for d in pair}:
        return figure
    names.sort(key=lambda k: (-domains[k][1][1], domains[k][0][0]))
    if len({y[1] for _, y in domains.values()}) == len(names):
        return figure
    copy, m = go.Figure(figure), old.margin
    inner = old.height - m.t - m.b
    gap = min(m.t + m.b + STACK_SPACE, MAX_STACK_GAP)
    heights = [inner * (domains[k][1][1] - domains[k][1][0]) for k in names]
    whole, top = sum(heights) + gap * (len(names) - 1), 0.0
    titles = [a for a in copy.layout.annotations if a.xref == a.yref == "paper"]
    for k, height in zip(names, heights):
        (left, right), (_, upper) = domains[k]
        at = 1 - top / whole
        for one in list(titles):  # above the plot
            if np.isclose(one.y, upper) and np.isclose(one.x, (left, (left + right) / 2)).any():
                titles.remove(one)
                one.update(x=0 if one.xanchor == "left" else 0.5, y=at)
        title = copy.layout[f"yaxis{k}"].title.text or copy.layout[f"yaxis{names[0]}"].title.text
        copy.layout[f"xaxis{k}"].update(domain=[0, 1], showticklabels=True)
        domain = [max(0.0, at - height / whole), at]
        copy.layout[f"yaxis{k}"].update(domain=domain, showticklabels=True, title=title)
        top += height + gap
    for one in (*copy.layout.sliders, copy.layout.legend):  # keep their distance in pixels
        if one.y is not None and not 0 <= one.y <= 1:
            edge = 0 if one.y < 0 else 1
            one.y = edge + (one.y - edge) * inner / whole
    height = old.height + whole - inner
    if old.legend.y is not None and old.legend.y < 0:  # a row for each entry
        more = LEGEND_ROW * sum(one.showlegend is not False for one in figure.data)
        copy.update_layout(margin_b=m.b + more)
        height += more
    return copy.update_layout(height=height)


@lru_cache
def band_centres_khz(s: LogMel) -> np.ndarray:
    """(bands,) centre of each mel band in kHz."""
    filters = spectrograms.mel_filters(s)
    return filters @ np.linspace(0, s.rate / 2000, filters.shape[1]) / filters.sum(axis=1)


def mel_axis(s: LogMel) -> dict[str, Any]:
    """Properties of an axis of mel bands with ticks in kHz."""
    at = np.interp(MEL_TICKS_KHZ, band_centres_khz(s), np.arange(s.bands))
    ticks = {"tickvals": at, "ticktext": [f"{k:g}" for k in MEL_TICKS_KHZ]}
    return {"title": "frequency (kHz, mel)", **ticks, **BARE_AXIS}


def solid_marker(colours: Sequence[str]) -> dict[str, Any]:
    return {"color": list(colours), "line": {"color": list(colours), "width": 1}}


def hatched_marker(colours: Sequence[str], shape: str = "/", size: int = 5) -> dict[str, Any]:
    look = {"shape": shape, "size": size, "solidity": 0.35}
    pattern = {"fgcolor": list(colours), "bgcolor": "rgba(0,0,0,0)", **look}
    return solid_marker(colours) | {"pattern": pattern}


@cache_figure
def spectrogram(y: np.ndarray, ref_db: float, s: LogMel, height: int = 215) -> go.Figure:
    """(columns, bands) in [-1, 1] as dB over time and mel frequency."""
    db = spectrograms.unscale(y, ref_db, s).T
    kilohertz = np.broadcast_to(band_centres_khz(s)[:, None], db.shape).astype(np.float32)
    hover = "%{x:.2f} s · %{customdata:.2f} kHz · %{z:.0f} dB<extra></extra>"
    bar = {"title": {"text": "dB", "side": "top"}, "thickness": 9, "len": 1.0, "outlinewidth": 0}
    bar |= {"x": 1.01, "xpad": 4, "nticks": 5}
    levels = {"zmin": ref_db - s.range_db, "zmax": ref_db, "colorbar": bar}
    place = {"x0": 0, "dx": s.hop / s.rate, "customdata": kilohertz, "hovertemplate": hover}
    colours = theme.SPECTROGRAM_COLOUR_SCALE
    figure = go.Figure(go.Heatmap(z=db, **place, colorscale=colours, **levels))
    figure.update_xaxes(title="time (s)", nticks=6, **BARE_AXIS)
    return apply_layout(figure, height, right=4, top=14).update_yaxes(**mel_axis(s))


@cache_figure
def softmax_and_p_values(
    classes: Sequence[str], softmax: np.ndarray, p: np.ndarray, height: int = 250
) -> go.Figure:
    """Each emotion's softmax (solid bar) beside its conformal p-value (hatched bar)."""
    colours, figure = [theme.emotion_colour(k) for k in classes], go.Figure()
    for name, values, marker in (
        ("softmax", softmax, solid_marker(colours)),
        ("p-value", p, hatched_marker(colours)),
    ):
        look = {"name": name, "orientation": "h", "marker": marker}
        hover = f"%{{y}}: {name} %{{x:.3f}}<extra></extra>"
        figure.add_bar(y=list(classes), x=values, hovertemplate=hover, **look)
    title = "probability (softmax)<br>p-value (conformal)"
    figure.update_xaxes(title=title, range=[0, 1], dtick=0.2)
    figure.update_yaxes(autorange="reversed", title="emotion", showgrid=False, dtick=1)
    gaps = {"bargap": 0.25, "bargroupgap": 0.05}
    place = {"left": 80, "top": 26, "bottom": 52}
    return apply_layout(figure, height + 14, legend=TOP_RIGHT_LEGEND, **place, **gaps)


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average, corrected for its start: the first value stays as it is.

    >>> [round(v, 2) for v in smooth([1.0, 1.0, 3.0], 0.5)]
    [1.0, 1.0, 2.14]
    """
    mean, norm, out = 0.0, 0.0, []
    for value in values:
        mean, norm = weight * mean + (1 - weight) * value, weight * norm + (1 - weight)
        out.append(mean / norm)
    return out


def matrix_title(name: str, counts: np.ndarray, trainings: int = 1) -> str:
    """Title of a confusion matrix with its N; `counts` (K, K) are summed over the trainings.

    >>> matrix_title("S1", np.full((2, 2), 6), 3)
    'S1<br>N = 8, 3 trainings'
    """
    n = round(float(counts.sum()) / trainings)
    return f"{name}<br>N = {n:,}" + (f", {trainings} trainings" if trainings > 1 else "")


@cache_figure
def confusion_matrices(tables: dict[str, np.ndarray], classes: Sequence[str]) -> go.Figure:
    """Confusion matrices (K, K) of counts side by side, each row in per cent of a true emotion."""
    across = 2 if len(tables) == 4 else 3
    down, names = -(-len(tables) // across), list(classes)
    gaps = {"horizontal_spacing": 0.03, "vertical_spacing": 0.56 / down}
    figure = make_subplots(down, across, subplot_titles=list(tables), shared_yaxes=True, **gaps)
    hover = "%{y} taken for %{x}: %{customdata[0]:,} of %{customdata[1]:,} (%{z:.0f} %)"
    for i, counts in enumerate(tables.values()):
        at = {"row": i // across + 1, "col": i % across + 1}
        whole = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
        share = 100 * counts / np.maximum(whole, 1)
        look = {"texttemplate": "%{z:.0f}", "hovertemplate": f"{hover}<extra></extra>"}
        look |= {"coloraxis": "coloraxis", "customdata": np.stack([counts, whole], axis=-1)}
        figure.add_heatmap(z=share, x=names, y=names, **look, **at)
        figure.update_xaxes(title="predicted", tickangle=45, **at)
        if at["col"] == 1:
            figure.update_yaxes(title="true", **at)
    figure.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(showgrid=False)
    bar = {"title": {"text": "% of the<br>true class", "side": "top"}}
    bar |= {"thickness": 10, "outlinewidth": 0}
    scale = {"colorscale": theme.CONFUSION_COLOUR_SCALE, "cmin": 0, "cmax": 100, "colorbar": bar}
    figure.update_layout(coloraxis=scale)
    return apply_layout(figure, 36 + 330 * down, left=70, top=44, bottom=70)


# ------------------------------------------------------------------ clips of a corpus

PATTERN_BY_SEX = {"female": "", "male": "/", "": "."}  # pattern of bars; "" is unknown sex
MAX_SUBJECT_TICKS, MAX_TICK_LETTERS = 24, 9  # ticks of an axis of subjects, letters of a tick


@cache_figure
def clips_by_emotion(counts: dict[str, dict[str, int]], height: int = 270) -> go.Figure:
    """Clips per emotion, {sex: {emotion: clips}}: a stacked bar for each emotion."""
    figure = go.Figure()
    for sex, of in counts.items():
        colours, shape = [theme.emotion_colour(k) for k in of], PATTERN_BY_SEX.get(sex)
        marker = hatched_marker(colours, shape, 6) if shape else solid_marker(colours)
        name = sex or "sex unknown"
        hover = f"%{{x}}, {name}: %{{y:,}}<extra></extra>"
        figure.add_bar(
            x=list(of), y=list(of.values()), name=name, marker=marker, hovertemplate=hover
        )
    figure.update_xaxes(title="emotion", showgrid=False)
    figure.update_yaxes(title="clips", rangemode="tozero")
    layout = {"barmode": "stack", "bargap": 0.3, "showlegend": set(counts) != {""}}
    return apply_layout(figure, height, left=56, top=26, legend=TOP_RIGHT_LEGEND, **layout)


@cache_figure
def clips_by_subject(
    subjects: Sequence[str], counts: dict[str, list[int]], height: int = 270
) -> go.Figure:
    """Clips per subject, {emotion: a count for each of `subjects`}: a stacked bar for each."""
    figure, start = go.Figure(), common_prefix(subjects)
    names = [html.escape(s) for s in subjects]
    for emotion, n in counts.items():
        look = {"marker": {"color": theme.emotion_colour(emotion), "line_width": 0}}
        hover = f"%{{customdata}}, {emotion}: %{{y:,}}<extra></extra>"
        x = list(range(len(names)))
        figure.add_bar(x=x, y=n, customdata=names, name=emotion, hovertemplate=hover, **look)
    at = list(range(0, len(names), -(-len(names) // MAX_SUBJECT_TICKS) or 1))
    short = [subjects[i].removeprefix(start) for i in at]
    most = MAX_TICK_LETTERS
    texts = [html.escape(name[:most] + "…" * (len(name) > most)) for name in short]
    title = f"subject ({html.escape(start)}…)" if start else "subject"
    ticks = {"tickvals": at, "ticktext": texts, "tickangle": -45}
    figure.update_xaxes(title=title, **BARE_AXIS, **ticks)
    figure.update_yaxes(title="clips", rangemode="tozero")
    layout = {"barmode": "stack", "bargap": 0.15, "showlegend": False}
    return apply_layout(figure, height, left=50, bottom=66, **layout)


def common_prefix(names: Sequence[str]) -> str:
    """The corpus' name in front of all its subjects' names, as "crema-", or ""."""
    first = re.match(r"[^\W\d]+-", names[0]) if names else None
    shared = first and all(n.startswith(first[0]) and n != first[0] for n in names)
    return first[0] if shared else ""


@cache_figure
def clips_by_set(tables: dict[str, dict[str, dict[str, int]]], height: int = 225) -> go.Figure:
    """Clips of each set by emotion, {"faces": {set: {emotion: clips}}, …}: one panel per table."""
    titles = {"subplot_titles": list(tables), "shared_yaxes": True, "horizontal_spacing": 0.04}
    figure = make_subplots(1, len(tables), **titles)
    for column, of in enumerate(tables.values(), 1):
        for emotion in dict.fromkeys(k for counts in of.values() for k in counts):
            n = [counts.get(emotion, 0) for counts in of.values()]
            look = {"marker": {"color": theme.emotion_colour(emotion), "line_width": 0}}
            look |= {"name": emotion, "orientation": "h", "showlegend": column == 1}
            hover = f"%{{y}}, {emotion}: %{{x:,}}<extra></extra>"
            figure.add_bar(y=list(of), x=n, hovertemplate=hover, **look, row=1, col=column)
        figure.update_xaxes(title="clips", rangemode="tozero", row=1, col=column)
    figure.update_yaxes(autorange="reversed", showgrid=False).update_yaxes(title="set", col=1)
    legend = {"orientation": "h", "x": 0, "y": -0.48, "yanchor": "top", "traceorder": "normal"}
    layout = {"barmode": "stack", "bargap": 0.25, "legend": legend}
    return apply_layout(figure, height, left=50, top=26, bottom=80, **layout)


# ------------------------------------------------------------------ pairs of spectrograms


def add_column_title(figure: go.Figure, column: int, text: str) -> None:
    """A title over one column of a figure."""
    left, _ = figure.get_subplot(1, column).xaxis.domain
    at = {"x": left, "xanchor": "left", "y": 1.0, "yanchor": "bottom", "yshift": 4}
    paper = {"xref": "paper", "yref": "paper"}
    figure.add_annotation(text=text, showarrow=False, align="left", **at, **paper)


def spectrogram_differences(db: dict[str, np.ndarray], s: LogMel) -> go.Figure:
    """Differences in dB (columns, bands) on one scale; blue is quieter, red louder."""
    most = max(6.0, float(np.ceil(max(np.abs(d).max() for d in db.values()))))
    figure = make_subplots(1, len(db), shared_yaxes=True, horizontal_spacing=0.03)
    hover = "%{x:.2f} s: %{z:+.1f} dB<extra></extra>"
    for column, (words, d) in enumerate(db.items(), 1):
        z = np.round(d.T, 1).astype(np.float32)
        place = {"x0": 0, "dx": s.hop / s.rate, "coloraxis": "coloraxis", "hovertemplate": hover}
        figure.add_heatmap(z=z, **place, row=1, col=column)
        title = f"<b>{words}</b>: {np.abs(d).mean():.1f} dB apart on average"
        add_column_title(figure, column, title)
    bar = {"title": {"text": "dB", "side": "top"}, "thickness": 9, "outlinewidth": 0, "nticks": 5}
    scale = {"colorscale": "RdBu_r", "cmin": -most, "cmax": most, "colorbar": bar}
    figure.update_layout(coloraxis=scale)
    figure.update_xaxes(title="time (s)", **BARE_AXIS)
    figure.update_yaxes(**mel_axis(s) | {"title": None})
    figure.update_yaxes(title="frequency (kHz, mel)", row=1, col=1)
    return apply_layout(figure, 230, right=4, top=28)
