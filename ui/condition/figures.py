"""The condition lab's figures: what a generator is told beside what is heard, and a way between two ends as a strip that plays.

The strip's slider and its play button are Plotly's: every step travels with the figure, so that the browser moves it by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.config import LogMel
from core.inference.conditions import GuidedSamples, TrainingConditions
from core.media import spectrograms
from ui import theme
from ui.widgets.charts import apply_layout, mel_axis

GREY = theme.REFERENCE_COLOUR
MIN_SHOWN_PROBABILITY = 0.1  # an emotion whose curve stays below is left out of the strip's curves
STEP_MS = 450  # a step's time while the strip plays


def _hatched_marker(colours: Sequence[str]) -> dict[str, Any]:
    pattern = {
        "shape": "/",
        "fgcolor": list(colours),
        "bgcolor": "rgba(0,0,0,0)",
        "size": 5,
        "solidity": 0.35,
    }
    return {
        "color": list(colours),
        "line": {"color": list(colours), "width": 1},
        "pattern": pattern,
    }


def condition_and_verdicts(
    classes: Sequence[str],
    c: np.ndarray,
    known: TrainingConditions | None,
    q: np.ndarray,
    scorer: np.ndarray,
    height: int = 240,
) -> go.Figure:
    """Left what G is told, each bar with the range and the mean of training; right what Q and the scorer hear."""
    names, colours = list(classes), [theme.emotion_colour(k) for k in classes]
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    if len(c):
        hover = "%{y}: told %{x:.3f}<extra></extra>"
        figure.add_bar(
            y=names,
            x=c,
            orientation="h",
            marker_color=colours,
            hovertemplate=hover,
            showlegend=False,
            row=1,
            col=1,
        )
    if known is not None:
        low, high = np.clip(known.low, 0, 1), np.clip(known.high, 0, 1)
        ends = {
            "type": "data",
            "array": high - known.mean,
            "arrayminus": known.mean - low,
            "color": GREY,
            "thickness": 1.5,
            "width": 4,
        }
        mark = {"symbol": "diamond", "size": 7, "color": GREY}
        hover = "%{y}, in training: mean %{x:.2f}, %{customdata[0]:.2f} to %{customdata[1]:.2f}<extra></extra>"
        more = {
            "error_x": ends,
            "marker": mark,
            "customdata": np.stack([low, high], axis=1),
            "hovertemplate": hover,
        }
        figure.add_scatter(
            y=names,
            x=known.mean,
            mode="markers",
            name="training: mean and range",
            **more,
            row=1,
            col=1,
        )
    plain = {"color": colours, "line": {"color": colours, "width": 1}}
    for name, o, look in (("Q", q, plain), ("scorer", scorer, _hatched_marker(colours))):
        hover = f"{name} hears %{{y}}: %{{x:.3f}}<extra></extra>"
        figure.add_bar(
            y=names, x=o, orientation="h", name=name, marker=look, hovertemplate=hover, row=1, col=2
        )
    figure.update_xaxes(range=[0, 1.02], dtick=0.2).update_xaxes(
        title="c, what G is told", row=1, col=1
    )
    figure.update_xaxes(title="heard: probability (softmax)", row=1, col=2)
    figure.update_yaxes(autorange="reversed", showgrid=False).update_yaxes(
        title="emotion", row=1, col=1
    )
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"}
    return apply_layout(
        figure, height, left=80, top=26, legend=legend, bargap=0.25, bargroupgap=0.05
    )


# ------------------------------------------------------------------ a way as a strip


def _concatenate_pictures(pictures: np.ndarray, shorten: int = 1) -> np.ndarray:
    """(n, columns, bands) -> (bands, n * columns / shorten), `shorten` columns averaged into one."""
    n, columns, bands = pictures.shape
    parts = pictures.reshape(n, columns // shorten, shorten, bands).mean(axis=2)
    return parts.reshape(-1, bands).T


def _to_int8_db(db: np.ndarray) -> np.ndarray:
    """Whole decibels, a byte each: a strip is sent as one file."""
    return np.rint(np.clip(db, -127, 127)).astype(np.int8)


def interpolation_strip(
    d: GuidedSamples,
    classes: Sequence[str],
    at: int,
    positions: np.ndarray,
    axis: str,
    ref_db: float,
    s: LogMel,
    faces: bool = False,
) -> go.Figure:
    """All n steps side by side (with `faces`, their faces too), and of step `at` (from 0) the spectrogram; c and both verdicts as curves.

    `positions` (n,) are the steps' places on the curves' x-axis, which `axis` names.
    """
    n, db = len(d.y), _to_int8_db(spectrograms.unscale(d.y, ref_db, s))
    parts = (
        [(0.82, 1), (0.64, 0.8), (0, 0.48)] if faces else [(0.74, 1), (0, 0.55)]
    )  # of the height, from top to bottom
    rows = len(parts)
    specs = [[{"colspan": 3}, None, None]] * (rows - 1) + [[{}, {}, {}]]
    figure = make_subplots(rows, 3, specs=specs, horizontal_spacing=0.085)
    for row, part in enumerate(parts, 1):
        figure.update_yaxes(domain=part, row=row)
    level = {
        "colorscale": theme.SPECTROGRAM_COLOUR_SCALE,
        "zmin": ref_db - s.range_db,
        "zmax": ref_db,
    }
    shorten = 2 if s.columns % 2 == 0 else 1
    cells = s.columns // shorten
    if faces:
        bricks = _concatenate_pictures(np.transpose(d.x, (0, 2, 1))).astype(np.uint8)
        side = d.x.shape[2]
        place = {
            "x0": -0.5 + 0.5 / side,
            "dx": 1 / side,
            "zmin": 0,
            "zmax": 255,
            "colorscale": [[0, "#010101"], [1, "#fefefe"]],
        }
        figure.add_heatmap(
            z=bricks,
            showscale=False,
            hovertemplate="the face at step %{x:.0f}<extra></extra>",
            **place,
            row=1,
            col=1,
        )
        figure.update_yaxes(autorange="reversed", row=1, col=1)
    film, hover = _to_int8_db(_concatenate_pictures(db, shorten)), "%{z} dB<extra></extra>"
    place = {"x0": -0.5 + 0.5 / cells, "dx": 1 / cells}
    figure.add_heatmap(
        z=film, showscale=False, hovertemplate=hover, **place, **level, row=rows - 1, col=1
    )
    for row in range(1, rows):
        ticks = {"tickvals": list(range(n)), "ticktext": [str(k + 1) for k in range(n)]}
        figure.update_xaxes(
            showgrid=False, zeroline=False, range=[-0.5, n - 0.5], **ticks, row=row, col=1
        )
        for k in range(1, n):
            side_line = {
                "x0": k - 0.5,
                "x1": k - 0.5,
                "y0": 0,
                "y1": 1,
                "yref": f"y{row if row > 1 else ''} domain",
            }
            figure.add_shape(
                type="line",
                xref=f"x{row if row > 1 else ''}",
                line={"color": GREY, "width": 1},
                **side_line,
            )
    figure.update_xaxes(title="step", title_standoff=2, row=rows - 1, col=1)
    figure.update_yaxes(
        **mel_axis(s)
        | {"title": "kHz", "tickvals": mel_axis(s)["tickvals"][::2], "ticktext": ("0.2", "1", "4")}
    )
    if faces:
        figure.update_xaxes(showticklabels=False, ticks="", row=1, col=1)
        figure.update_yaxes(title="face", tickvals=[], ticktext=[], row=1, col=1)

    _add_curves(figure, d, classes, positions, axis, rows)
    first = len(figure.data)
    bar = {
        "title": {"text": "dB", "side": "top"},
        "thickness": 7,
        "outlinewidth": 0,
        "x": 0.24,
        "xpad": 2,
        "nticks": 4,
    }
    bar |= {"len": parts[-1][1] - 0.08, "y": 0, "yanchor": "bottom"}
    big = {
        "x0": 0,
        "dx": s.hop / s.rate,
        "hovertemplate": "%{x:.2f} s · %{z} dB<extra></extra>",
    } | level
    figure.add_heatmap(z=db[at].T, **big, colorbar=bar, row=rows, col=1)
    figure.update_xaxes(title="time (s)", showgrid=False, zeroline=False, nticks=5, row=rows, col=1)
    figure.update_xaxes(domain=[0, 0.24], row=rows, col=1)
    figure.update_yaxes(**mel_axis(s), row=rows, col=1)
    for trace, column in ((_cursor(positions[at]), 2), (_cursor(positions[at]), 3)):
        figure.add_trace(trace, row=rows, col=column)
    figure.add_trace(_step_outline(at, s.bands), row=rows - 1, col=1)

    moving = list(range(first, first + 4))
    figure.frames = [
        go.Frame(
            name=str(k + 1),
            data=[go.Heatmap(z=db[k].T), *[_cursor(positions[k])] * 2, _step_outline(k, s.bands)],
            traces=moving,
        )
        for k in range(n)
    ]
    legend = {
        "orientation": "h",
        "x": 0,
        "y": 1.01,
        "yanchor": "bottom",
        "traceorder": "normal",
        "itemsizing": "constant",
    }
    more = {
        "sliders": _step_slider(n, at),
        "updatemenus": _play_buttons(),
        "legend": legend,
        "hovermode": "closest",
    }
    return apply_layout(figure, 455 if faces else 440, left=58, right=6, top=30, bottom=122, **more)


def _add_curves(
    figure: go.Figure,
    d: GuidedSamples,
    classes: Sequence[str],
    positions: np.ndarray,
    axis: str,
    row: int,
) -> None:
    """What is told and what is heard along the way, an emotion that hardly appears left out."""
    x, mode = np.round(positions, 3), {"mode": "lines", "row": row}
    heard = np.maximum(d.Q.max(axis=0), d.scorer.max(axis=0))
    for k, name in enumerate(classes):
        is_told = d.c.shape[1] > 0 and d.c[:, k].max() >= MIN_SHOWN_PROBABILITY
        if not is_told and heard[k] < MIN_SHOWN_PROBABILITY:
            continue
        colour, group = theme.emotion_colour(name), {"legendgroup": name, "name": name}
        if d.c.shape[1]:
            style, hover = {"color": colour, "width": 2.5}, f"told {name} %{{y:.2f}}<extra></extra>"
            figure.add_scatter(
                x=x,
                y=np.round(d.c[:, k], 4),
                line=style,
                hovertemplate=hover,
                showlegend=False,
                col=2,
                **group,
                **mode,
            )
        for who, o, dash in (("Q", d.Q, "solid"), ("scorer", d.scorer, "dash")):
            style, hover = (
                {"color": colour, "width": 2.5, "dash": dash},
                f"{who} hears {name} %{{y:.2f}}<extra></extra>",
            )
            show = {"showlegend": who == "Q"}
            figure.add_scatter(
                x=x,
                y=np.round(o[:, k], 4),
                line=style,
                hovertemplate=hover,
                col=3,
                **group,
                **mode,
                **show,
            )
    for who, dash in (("Q", "solid"), ("scorer", "dash")):
        figure.add_scatter(
            x=[None],
            y=[None],
            line={"color": GREY, "width": 2.5, "dash": dash},
            name=who,
            col=3,
            **mode,
        )
    if not d.c.shape[1]:
        figure.add_scatter(
            x=[positions[0]], y=[None], showlegend=False, hoverinfo="skip", col=2, **mode
        )
    ends = [float(positions[0]), float(positions[-1])]
    for column, words in ((2, "c, what G is told"), (3, "heard: probability")):
        figure.update_yaxes(
            title=words,
            range=[-0.02, 1.02],
            tickvals=[0, 0.25, 0.5, 0.75, 1],
            ticktext=None,
            row=row,
            col=column,
        )
        figure.update_yaxes(title_standoff=4, showgrid=True, row=row, col=column)
        figure.update_xaxes(title=axis, range=ends, zeroline=False, row=row, col=column)


def _cursor(x: float) -> go.Scatter:
    return go.Scatter(
        x=[float(x)] * 2,
        y=[-0.02, 1.02],
        mode="lines",
        line={"color": GREY, "width": 2, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )


def _step_outline(k: int, bands: int) -> go.Scatter:
    """A frame around step k of the film."""
    x, y = (
        np.array([-0.47, 0.47, 0.47, -0.47, -0.47]) + k,
        np.array([0, 0, bands - 1, bands - 1, 0]),
    )
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": "#ffd84d", "width": 3},
        hoverinfo="skip",
        showlegend=False,
    )


def _step_slider(n: int, at: int) -> list[dict[str, Any]]:
    now = {
        "mode": "immediate",
        "frame": {"duration": 0, "redraw": True},
        "transition": {"duration": 0},
    }
    steps = [
        {"method": "animate", "label": str(k + 1), "args": [[str(k + 1)], now]} for k in range(n)
    ]
    words = {"prefix": "step ", "xanchor": "left", "font": {"size": 12}, "offset": 6}
    place = {
        "x": 0.17,
        "len": 0.83,
        "y": 0,
        "yanchor": "top",
        "pad": {"t": 44, "b": 4, "l": 0, "r": 0},
    }
    return [
        {
            "active": at,
            "steps": steps,
            "currentvalue": words,
            "font": {"size": 11},
            "bgcolor": GREY,
            "bordercolor": GREY,
            **place,
        }
    ]


def _play_buttons() -> list[dict[str, Any]]:
    play = {
        "mode": "immediate",
        "frame": {"duration": STEP_MS, "redraw": True},
        "transition": {"duration": 0},
    }
    stop = {
        "mode": "immediate",
        "frame": {"duration": 0, "redraw": False},
        "transition": {"duration": 0},
    }
    buttons = [
        {"method": "animate", "label": "▶ Play", "args": [None, play]},
        {"method": "animate", "label": "❚❚", "args": [[None], stop]},
    ]
    look = {
        "bgcolor": "rgba(138,148,153,0.25)",
        "bordercolor": GREY,
        "font": {"size": 12},
        "active": -1,
        "showactive": False,
    }
    place = {"x": -0.03, "xanchor": "left", "y": 0, "yanchor": "top", "pad": {"t": 62, "l": 0}}
    return [{"type": "buttons", "direction": "left", "buttons": buttons, **look, **place}]
