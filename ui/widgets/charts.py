"""Plotly figures. Every axis has a title and a unit; colours that carry meaning come from the theme, all others from the page's."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas  # noqa: F401  (before Plotly builds anything: it would use a pandas that another visitor's page has half loaded)
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from core.config import LogMel
from core.media import spectrograms
from ui import theme

TrainingCurves = dict[str, tuple[list[int], list[float]]]  # name -> steps, values
MEL_TICKS_KHZ = (0.2, 0.5, 1, 2, 4, 7)  # kHz on a mel axis
NO_TOOLBAR_CONFIG: dict[str, Any] = {
    "displayModeBar": False,
    "scrollZoom": False,
}  # config of charts: no tool bar on top of them

# A chart of the same figures is built once and shared by all visitors: Plotly checks every property, which takes longer than all else on a
# page. So it may be shown, and copied with go.Figure(...), but not changed.
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
    """What every figure shares: its size in pixels, its margins, no dragging. `layout` goes to the figure as it is."""
    margin = {"l": left, "r": right, "t": top, "b": bottom}
    return figure.update_layout(
        height=height, margin=margin, font_size=12, uirevision="kept", dragmode=False, **layout
    )


@lru_cache
def band_centres_khz(s: LogMel) -> np.ndarray:
    """(bands,) kHz in the middle of each mel band."""
    filters = spectrograms.mel_filters(s)
    return filters @ np.linspace(0, s.rate / 2000, filters.shape[1]) / filters.sum(axis=1)


def mel_axis(s: LogMel) -> dict[str, Any]:
    at = np.interp(MEL_TICKS_KHZ, band_centres_khz(s), np.arange(s.bands))
    return {
        "title": "frequency (kHz, mel)",
        "tickvals": at,
        "ticktext": [f"{k:g}" for k in MEL_TICKS_KHZ],
        "showgrid": False,
        "zeroline": False,
    }


def _heatmap(y: np.ndarray, ref_db: float, s: LogMel, **more) -> go.Heatmap:
    db = spectrograms.unscale(y, ref_db, s).T
    kilohertz = np.broadcast_to(band_centres_khz(s)[:, None], db.shape).astype(np.float32)
    hover = "%{x:.2f} s · %{customdata:.2f} kHz · %{z:.0f} dB<extra></extra>"
    return go.Heatmap(
        z=db, x0=0, dx=s.hop / s.rate, customdata=kilohertz, hovertemplate=hover, **more
    )


@cache_figure
def spectrogram(y: np.ndarray, ref_db: float, s: LogMel, height: int = 215) -> go.Figure:
    """(columns, bands) in [-1, 1] as dB over time and mel frequency."""
    bar = {
        "title": {"text": "dB", "side": "top"},
        "thickness": 9,
        "len": 1.0,
        "outlinewidth": 0,
        "x": 1.01,
        "xpad": 4,
        "nticks": 5,
    }
    scale = {
        "colorscale": theme.SPECTROGRAM_COLOUR_SCALE,
        "zmin": ref_db - s.range_db,
        "zmax": ref_db,
        "colorbar": bar,
    }
    figure = go.Figure(_heatmap(y, ref_db, s, **scale))
    figure.update_xaxes(title="time (s)", showgrid=False, zeroline=False, nticks=6)
    return apply_layout(figure, height, right=4, top=14).update_yaxes(**mel_axis(s))


@cache_figure
def softmax_and_p_values(
    classes: Sequence[str], softmax: np.ndarray, p: np.ndarray, height: int = 250
) -> go.Figure:
    """The face classifier's softmax beside the conformal p-values, one pair of bars for each emotion."""
    colours = [theme.emotion_colour(k) for k in classes]
    names = list(classes)
    solid = {"color": colours, "line": {"color": colours, "width": 1}}
    hatched = solid | {
        "pattern": {
            "shape": "/",
            "fgcolor": colours,
            "bgcolor": "rgba(0,0,0,0)",
            "size": 5,
            "solidity": 0.35,
        }
    }
    figure = go.Figure(
        [
            go.Bar(
                y=names,
                x=softmax,
                name="softmax",
                orientation="h",
                marker=solid,
                hovertemplate="%{y}: softmax %{x:.3f}<extra></extra>",
            ),
            go.Bar(
                y=names,
                x=p,
                name="p-value",
                orientation="h",
                marker=hatched,
                hovertemplate="%{y}: p-value %{x:.3f}<extra></extra>",
            ),
        ]
    )
    figure.update_xaxes(
        title="probability (softmax) · p-value (conformal)", range=[0, 1], dtick=0.2
    )
    figure.update_yaxes(autorange="reversed", title="emotion", showgrid=False)
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"}
    return apply_layout(
        figure, height, left=80, top=26, legend=legend, bargap=0.25, bargroupgap=0.05
    )


def training_curves(
    lines: TrainingCurves,
    title: str,
    shown: Sequence[str],
    reference: str = "",
    steps: int = 0,
    height: int = 250,
    known: str = "",
) -> go.Figure:
    """Figures over the training steps, one line each, and the real data's value as a dashed line with its name, `known`."""
    figure = go.Figure()
    for name, colour in zip(shown, theme.LINE_COLOURS):
        x, y = lines.get(name, ([], []))
        mode = "lines+markers" if len(x) < 30 else "lines"
        hover = f"{name.removeprefix('loss/')} %{{y:.3f}} at step %{{x}}<extra></extra>"
        label = name.removeprefix("loss/")
        figure.add_scatter(
            x=x,
            y=y,
            name=label,
            mode=mode,
            line={"color": colour, "width": 2},
            marker_size=5,
            cliponaxis=False,
            hovertemplate=hover,
        )
    real = lines.get(reference, ([], []))[1]
    if real:
        figure.add_hline(
            real[0], line={"color": theme.REFERENCE_COLOUR, "dash": "dash", "width": 1.5}
        )
        where = {
            "xref": "paper",
            "yref": "paper",
            "x": 1,
            "y": 1,
            "xanchor": "right",
            "yanchor": "bottom",
        }
        figure.add_annotation(
            text=f"╌╌ {known or 'real voices'} {real[0]:.2f}", showarrow=False, **where
        )
    figure.update_xaxes(
        title="training step of G, D and Q",
        range=[0, max(1, steps)] if steps else None,
        rangemode="tozero",
    )
    figure.update_yaxes(title=title, rangemode="tozero" if reference else "normal")
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return apply_layout(figure, height, left=54, top=28, showlegend=len(shown) > 1, legend=legend)


@cache_figure
def confusion_matrices(tables: dict[str, np.ndarray], classes: Sequence[str]) -> go.Figure:
    """Confusion matrices (K, K) of counts side by side: each row is what one true emotion was taken for, in per cent."""
    across = 2 if len(tables) == 4 else 3
    down = -(-len(tables) // across)
    figure = make_subplots(
        down,
        across,
        subplot_titles=list(tables),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.46 / down,
    )
    for i, counts in enumerate(tables.values()):
        share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        hover = "%{y} taken for %{x}: %{customdata} (%{z:.0f} %)<extra></extra>"
        one = go.Heatmap(
            z=share,
            x=list(classes),
            y=list(classes),
            customdata=counts,
            texttemplate="%{z:.0f}",
            hovertemplate=hover,
            coloraxis="coloraxis",
        )
        figure.add_trace(one, row=i // across + 1, col=i % across + 1)
        figure.update_xaxes(
            title="predicted", tickangle=45, row=i // across + 1, col=i % across + 1
        )
        if i % across == 0:
            figure.update_yaxes(title="true", row=i // across + 1, col=1)
    figure.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(showgrid=False)
    bar = {
        "title": {"text": "% of the<br>true class", "side": "top"},
        "thickness": 10,
        "outlinewidth": 0,
    }
    figure.update_layout(
        coloraxis={
            "colorscale": theme.CONFUSION_COLOUR_SCALE,
            "cmin": 0,
            "cmax": 100,
            "colorbar": bar,
        }
    )
    return apply_layout(figure, 60 + 290 * down, left=70, top=28, bottom=70)


# ------------------------------------------------------------------ what a corpus holds

PATTERN_BY_SEX = {"female": "", "male": "/", "": "."}  # of bars, by sex; "" is unknown


@cache_figure
def clips_by_emotion(counts: dict[str, dict[str, int]], height: int = 270) -> go.Figure:
    """Clips per emotion, {sex: {emotion: clips}}, one bar of parts for each."""
    figure = go.Figure()
    for sex, of in counts.items():
        colours = [theme.emotion_colour(k) for k in of]
        solid = {"color": colours, "line": {"color": colours, "width": 1}}
        if PATTERN_BY_SEX.get(sex):
            solid["pattern"] = {
                "shape": PATTERN_BY_SEX[sex],
                "fgcolor": colours,
                "bgcolor": "rgba(0,0,0,0)",
                "size": 6,
                "solidity": 0.35,
            }
        name = sex or "sex unknown"
        figure.add_bar(
            x=list(of),
            y=list(of.values()),
            name=name,
            marker=solid,
            hovertemplate=f"%{{x}}, {name}: %{{y:,}}<extra></extra>",
        )
    figure.update_xaxes(title="emotion", showgrid=False).update_yaxes(
        title="clips", rangemode="tozero"
    )
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"}
    return apply_layout(
        figure,
        height,
        left=56,
        top=26,
        barmode="stack",
        bargap=0.3,
        legend=legend,
        showlegend=set(counts) != {""},
    )


@cache_figure
def clips_by_subject(
    subjects: Sequence[str], counts: dict[str, list[int]], height: int = 270
) -> go.Figure:
    """Clips per subject, {emotion: one count for each of `subjects`}, a bar of parts for each subject."""
    figure, start = go.Figure(), common_prefix(subjects)
    names = [html.escape(s) for s in subjects]
    for emotion, n in counts.items():
        look, hover = (
            {"color": theme.emotion_colour(emotion), "line_width": 0},
            f"%{{customdata}}, {emotion}: %{{y:,}}<extra></extra>",
        )
        figure.add_bar(
            x=list(range(len(names))),
            y=n,
            customdata=names,
            name=emotion,
            marker=look,
            hovertemplate=hover,
        )
    at = range(0, len(names), -(-len(names) // 24) or 1)
    short = [s.removeprefix(start) for s in subjects]
    ticks = {
        "tickvals": list(at),
        "ticktext": [html.escape(short[i][:9] + "…" * (len(short[i]) > 9)) for i in at],
        "tickangle": -45,
    }
    figure.update_xaxes(
        title=f"subject ({html.escape(start)}…)" if start else "subject",
        showgrid=False,
        zeroline=False,
        **ticks,
    )
    figure.update_yaxes(title="clips", rangemode="tozero")
    return apply_layout(
        figure, height, left=50, bottom=66, barmode="stack", bargap=0.15, showlegend=False
    )


def common_prefix(names: Sequence[str]) -> str:
    """The corpus' name in front of all its subjects' names, as "crema-"; "" where there is none."""
    first = re.match(r"[^\W\d]+-", names[0]) if names else None
    return (
        first[0] if first and all(n.startswith(first[0]) and n != first[0] for n in names) else ""
    )


@cache_figure
def clips_by_set(tables: dict[str, dict[str, dict[str, int]]], height: int = 225) -> go.Figure:
    """Clips of each set by emotion, {"faces": {set: {emotion: clips}}, …}: a bar of parts for each set, side by side."""
    figure = make_subplots(
        1, len(tables), subplot_titles=list(tables), shared_yaxes=True, horizontal_spacing=0.04
    )
    for column, of in enumerate(tables.values(), 1):
        for emotion in dict.fromkeys(k for counts in of.values() for k in counts):
            n = [counts.get(emotion, 0) for counts in of.values()]
            look = {"color": theme.emotion_colour(emotion), "line_width": 0}
            hover = f"%{{y}}, {emotion}: %{{x:,}}<extra></extra>"
            bar = go.Bar(
                y=list(of),
                x=n,
                name=emotion,
                orientation="h",
                marker=look,
                hovertemplate=hover,
                showlegend=column == 1,
            )
            figure.add_trace(bar, row=1, col=column)
        figure.update_xaxes(title="clips", rangemode="tozero", row=1, col=column)
    figure.update_yaxes(autorange="reversed", showgrid=False).update_yaxes(title="set", col=1)
    legend = {"orientation": "h", "x": 0, "y": -0.48, "yanchor": "top", "traceorder": "normal"}
    return apply_layout(
        figure, height, left=50, top=26, bottom=80, barmode="stack", bargap=0.25, legend=legend
    )


EXPORT_CONFIG: dict[str, Any] = {  # of every chart here: one button, which saves the picture
    "displaylogo": False,
    "scrollZoom": False,
    "displayModeBar": True,
    "modeBarButtons": [["toImage"]],
    "toImageButtonOptions": {"format": "svg", "filename": "conformal"},
}


def add_column_title(figure: go.Figure, column: int, text: str) -> None:
    """A title over one column of a figure."""
    left, right = figure.get_subplot(1, column).xaxis.domain
    at = {
        "x": left,
        "xanchor": "left",
        "y": 1.0,
        "yanchor": "bottom",
        "xref": "paper",
        "yref": "paper",
        "yshift": 4,
    }
    figure.add_annotation(text=text, showarrow=False, align="left", **at)


def spectrogram_differences(db: dict[str, np.ndarray], s: LogMel) -> go.Figure:
    """Pairs' differences in dB (columns, bands), each named; blue is quieter, red louder, on one scale."""
    most = max(6.0, float(np.ceil(max(np.abs(d).max() for d in db.values()))))
    figure = make_subplots(1, len(db), shared_yaxes=True, horizontal_spacing=0.03)
    for column, (words, d) in enumerate(db.items(), 1):
        hover = "%{x:.2f} s: %{z:+.1f} dB<extra></extra>"
        one = go.Heatmap(
            z=np.round(d.T, 1).astype(np.float32),
            x0=0,
            dx=s.hop / s.rate,
            coloraxis="coloraxis",
            hovertemplate=hover,
        )
        figure.add_trace(one, row=1, col=column)
        add_column_title(
            figure, column, f"<b>{words}</b>: {np.abs(d).mean():.1f} dB apart on average"
        )
    bar = {"title": {"text": "dB", "side": "top"}, "thickness": 9, "outlinewidth": 0, "nticks": 5}
    figure.update_layout(
        coloraxis={"colorscale": "RdBu_r", "cmin": -most, "cmax": most, "colorbar": bar}
    )
    figure.update_xaxes(title="time (s)", showgrid=False, zeroline=False).update_yaxes(
        **mel_axis(s) | {"title": None}
    )
    return apply_layout(
        figure.update_yaxes(title="frequency (kHz, mel)", row=1, col=1), 230, right=4, top=28
    )
