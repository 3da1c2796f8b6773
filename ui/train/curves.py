"""The curves of one training, one above the other over the same steps, with one hover line."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from core.evaluation import results
from ui import theme
from ui.session import cache
from ui.train import checkpoints
from ui.widgets import charts
from ui.widgets.charts import TrainingCurves

LOSSES = ("loss/G", "loss/adversarial", "loss/l1", "loss/class", "loss/D")
MAX_SMOOTHING = 0.95
RAW_OPACITY = 0.45  # of a curve whose smoothed one lies on it
LOSS_HEIGHT, MEASURE_HEIGHT = 200, 130  # pixels of a panel


def show_curves(row: dict, lines: TrainingCurves, step: int | None) -> None:
    """Losses and the measures of generated samples over the steps, smoothed by a slider."""
    top = checkpoints.best_step(row, lines)
    target = checkpoints.source_and_target(cache.run_config(row["run"]))[1]
    about = "Moving average over the steps; the curve as it was measured stays behind it. 0: none."
    more = {"key": "smoothing", "persist_state": "session", "help": about, "width": 260}
    weight = st.slider("Smoothing of the curves", 0.0, MAX_SMOOTHING, 0.0, 0.05, **more)
    names = [*LOSSES, *(n for k in checkpoints.BETTER_DIRECTION for n in (k, f"{k} real"))]
    arrays = {k: (np.array(lines[k][0]), np.array(lines[k][1])) for k in names if k in lines}
    known = results.reference_label(lines, f"{target}s")
    figure = course_figure(arrays, row["steps"], step, top, known, weight)
    alt = f"Over the steps: losses of G, its terms and D, and below them {_last_values(lines)}"
    st.plotly_chart(figure, key="losses", config=charts.NO_TOOLBAR_CONFIG, alt=alt)
    star = ""
    if top:
        star = f" ★ the best step on S2, {top[0]:,} (by {top[1]}), which need not be the last."
    st.caption(
        f"Measured on S2, whose {target}s the judge knows. {results.reference_text(lines)} "
        f"S4 is evaluated once, at the end.{star}"
    )


def _last_values(lines: TrainingCurves) -> str:
    """The last value of each measure, in words."""
    last = [f"{k} {lines[k][1][-1]:.2f}" for k in checkpoints.BETTER_DIRECTION if lines.get(k)]
    return ", ".join(last) or "FID, KID and IS"


@charts.cache_figure
def course_figure(
    arrays: dict[str, tuple[np.ndarray, np.ndarray]],
    steps: int,
    step: int | None,
    top: tuple[int, str] | None,
    known: str = "",
    weight: float = 0.0,
) -> go.Figure:
    """Losses, FID, KID and IS, each in a panel; a line at the chosen step, a star at the best one.

    `known` labels the dashed value of real samples; `weight` in [0, 1) smooths the curves.
    """
    better = checkpoints.BETTER_DIRECTION
    heights = [LOSS_HEIGHT, *[MEASURE_HEIGHT] * len(better)]
    layout = {"shared_xaxes": True, "vertical_spacing": 0.045, "row_heights": heights}
    figure = make_subplots(len(heights), 1, **layout)
    for name, colour in zip(LOSSES, theme.LINE_COLOURS):
        if name in arrays:
            _add_curve(figure, 1, name.removeprefix("loss/"), colour, arrays[name], weight, True)
    figure.update_yaxes(title="loss", row=1, col=1)
    for panel, (name, direction) in enumerate(better.items(), 2):
        x, y = arrays.get(name, (np.zeros(0), np.zeros(0)))
        _add_curve(figure, panel, name, theme.LINE_COLOURS[0], (x, y), weight)
        title = f"{name}<br>({direction} is better)"
        figure.update_yaxes(title=title, rangemode="tozero", row=panel, col=1)
        _add_reference(figure, panel, arrays.get(f"{name} real"), known)
        if top and top[0] in x.tolist():
            _add_star(figure, panel, top, float(y[x.tolist().index(top[0])]))
    if step is not None:
        line = {"color": theme.REFERENCE_COLOUR, "width": 1.5, "dash": "dot"}
        figure.add_vline(step, line=line)
    _share_axis(figure, len(heights))
    title = {"title": "training step", "range": [0, max(1, steps)]}
    figure.layout.xaxis.update(showspikes=True, spikemode="across", spikethickness=1, **title)
    hover = {"hovermode": "x unified", "hoversubplots": "axis", "legend": charts.TOP_LEFT_LEGEND}
    return charts.apply_layout(figure, 100 + sum(heights), left=64, top=28, **hover)


def _share_axis(figure: go.Figure, panels: int) -> None:
    """Put all panels on the one axis below them: a hover line goes through panels of one axis."""
    figure.update_traces(xaxis="x")
    for one in (*figure.layout.shapes, *figure.layout.annotations):
        one.xref = "x domain" if "domain" in (one.xref or "") else "x"
    for k in range(2, panels + 1):
        figure.layout[f"xaxis{k}"] = None
        figure.layout[f"yaxis{k}"].anchor = "x"
    figure.layout.xaxis.update(anchor=f"y{panels}", showticklabels=True, matches=None)


def _add_curve(
    figure: go.Figure,
    panel: int,
    label: str,
    colour: str,
    points: tuple[np.ndarray, np.ndarray],
    weight: float,
    in_legend: bool = False,
) -> None:
    x, y = points[0].tolist(), points[1].tolist()
    mode = "lines+markers" if len(x) < charts.MAX_MARKED_POINTS else "lines"
    look = {"mode": mode, "line": {"color": colour, "width": 2}, "marker_size": 5}
    look |= {"cliponaxis": False, "name": label, "legendgroup": label}
    hover = f"{label} %{{y:.3f}}<extra></extra>"
    at = {"row": panel, "col": 1}
    if not weight:
        figure.add_scatter(x=x, y=y, hovertemplate=hover, showlegend=in_legend, **look, **at)
        return
    raw = look | {"opacity": RAW_OPACITY, "line": {"color": colour, "width": 1}, "mode": "lines"}
    figure.add_scatter(x=x, y=y, hovertemplate=hover, showlegend=False, **raw, **at)
    y = charts.smooth(y, weight)  # who points at it reads what was measured
    figure.add_scatter(x=x, y=y, hoverinfo="skip", showlegend=in_legend, **look, **at)


def _add_reference(
    figure: go.Figure, panel: int, points: tuple[np.ndarray, np.ndarray] | None, known: str
) -> None:
    """The value of real samples as a dashed line with its label."""
    if points is None or not len(points[1]):
        return
    value, dashed = float(points[1][0]), {"dash": "dash", "width": 1.5}
    line = dashed | {"color": theme.REFERENCE_COLOUR}
    text = f"╌╌ {known or 'real voices'} {value:.2f}"
    corner = {"annotation_text": text, "annotation_position": "top right"}
    figure.add_hline(value, line=line, row=panel, col=1, **corner)


def _add_star(figure: go.Figure, panel: int, top: tuple[int, str], value: float) -> None:
    edge = {"width": 1, "color": theme.REFERENCE_COLOUR}
    star = {"symbol": "star", "size": 12, "color": theme.LINE_COLOURS[1], "line": edge}
    hover = f"★ the best step by {top[1]}<extra></extra>"
    point = {"x": [top[0]], "y": [value], "marker": star, "hovertemplate": hover}
    look = {"mode": "markers", "showlegend": False, "cliponaxis": False, "name": "best"}
    figure.add_scatter(**point, **look, row=panel, col=1)
