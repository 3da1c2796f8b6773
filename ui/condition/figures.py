"""The condition lab's figures: the condition beside the verdicts, and a path of steps that plays.

The slider and the play button are Plotly's: every step travels with the figure, so that the browser
moves it by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.config.settings import LogMel
from core.inference.conditions import GuidedSamples, TrainingConditions
from core.media import spectrograms
from ui import theme
from ui.widgets import charts, players

GREY = theme.REFERENCE_COLOUR
MIN_SHOWN_PROBABILITY = 0.1  # an emotion whose curves stay below is not drawn
STEP_MS = 450  # duration of a step while the path plays
VERDICT_DASHES = {"scorer": "solid", "Q": "dash"}
OUTLINE_COLOUR = "#ffd84d"  # frame around the current step, visible on all of the colour map
NO_EASING = {"mode": "immediate", "transition": {"duration": 0}}


def condition_and_verdicts(
    classes: Sequence[str],
    c: np.ndarray,
    known: TrainingConditions | None,
    q: np.ndarray,
    scorer: np.ndarray,
    height: int = 240,
) -> go.Figure:
    """Left: c, with the range and mean of the training's c. Right: the softmax of Q and scorer."""
    names, colours = list(classes), [theme.emotion_colour(k) for k in classes]
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    left, right = {"row": 1, "col": 1}, {"row": 1, "col": 2}
    if len(c):
        look = {"orientation": "h", "marker_color": colours, "showlegend": False}
        hover = "%{y}: told %{x:.3f}<extra></extra>"
        figure.add_bar(y=names, x=c, hovertemplate=hover, **look, **left)
    if known is not None:
        _add_training_range(figure, names, known)
    for who, o, marker in (
        ("scorer", scorer, charts.solid_marker(colours)),
        ("Q", q, charts.hatched_marker(colours)),
    ):
        name = players.VERDICT_NAMES[who]
        look = {"orientation": "h", "name": name.partition(" (")[0], "marker": marker}
        hover = f"{name} hears %{{y}}: %{{x:.3f}}<extra></extra>"
        figure.add_bar(y=names, x=o, hovertemplate=hover, **look, **right)
    figure.update_xaxes(range=[0, 1.02], dtick=0.2)
    figure.update_xaxes(title="c, what G is told", **left)
    figure.update_xaxes(title="heard by judge and Q", **right)
    figure.update_yaxes(autorange="reversed", showgrid=False, dtick=1)
    figure.update_yaxes(title="emotion", **left)
    gaps = {"bargap": 0.25, "bargroupgap": 0.05}
    legend = charts.TOP_RIGHT_LEGEND
    return charts.apply_layout(figure, height, left=80, top=26, legend=legend, **gaps)


def _add_training_range(figure: go.Figure, names: list[str], known: TrainingConditions) -> None:
    low, high = np.clip(known.low, 0, 1), np.clip(known.high, 0, 1)
    ends = {"type": "data", "array": high - known.mean, "arrayminus": known.mean - low}
    ends |= {"color": GREY, "thickness": 1.5, "width": 4}
    span = "%{customdata[0]:.2f} to %{customdata[1]:.2f}"
    look = {
        "name": "training: mean and range",
        "mode": "markers",
        "error_x": ends,
        "marker": {"symbol": "diamond", "size": 7, "color": GREY},
        "customdata": np.stack([low, high], axis=1),
        "hovertemplate": f"%{{y}}, in training: mean %{{x:.2f}}, {span}<extra></extra>",
    }
    figure.add_scatter(y=names, x=known.mean, **look, row=1, col=1)


# ------------------------------------------------------------------ a path of steps


def interpolation_strip(
    d: GuidedSamples,
    classes: Sequence[str],
    at: int,
    positions: np.ndarray,
    axis: str,
    ref_db: float,
    s: LogMel,
    faces: bool = False,
    spacing: float = 0.1,
) -> go.Figure:
    """All n steps side by side; below them step `at` large, and c and both verdicts as curves.

    `positions` (n,) are the steps' places on the curves' x-axis, whose title is `axis`. With
    `faces` the steps' faces are shown too. `spacing` is the share of the width between two plots.
    """
    n, db = len(d.y), _to_int8_db(spectrograms.unscale(d.y, ref_db, s))
    # Share of the height that each row takes, from top to bottom.
    spans = [(0.82, 1), (0.64, 0.8), (0, 0.48)] if faces else [(0.74, 1), (0, 0.55)]
    rows = len(spans)
    specs = [[{"colspan": 3}, None, None]] * (rows - 1) + [[{}, {}, {}]]
    figure = make_subplots(rows, 3, specs=specs, horizontal_spacing=spacing)
    for row, span in enumerate(spans, 1):
        figure.update_yaxes(domain=span, row=row)
    scale = theme.SPECTROGRAM_COLOUR_SCALE
    levels = {"colorscale": scale, "zmin": ref_db - s.range_db, "zmax": ref_db}
    # The rows of steps.
    if faces:
        _add_faces(figure, d.x)
    _add_spectrograms(figure, db, s, levels, rows - 1)
    _separate_steps(figure, n, rows)
    kilohertz = {"title": "kHz", "tickvals": charts.mel_axis(s)["tickvals"][::2]}
    figure.update_yaxes(**charts.mel_axis(s) | kilohertz | {"ticktext": ("0.2", "1", "4")})
    if faces:
        figure.update_xaxes(showticklabels=False, ticks="", row=1, col=1)
        figure.update_yaxes(title="face", tickvals=[], ticktext=[], row=1, col=1)
    # The curves, and the four traces that move from step to step.
    _add_curves(figure, d, classes, positions, axis, rows)
    first = len(figure.data)
    _add_large_step(figure, db[at], s, levels, rows, spans[-1][1])
    for column in (2, 3):
        figure.add_trace(_cursor(positions[at]), row=rows, col=column)
    figure.add_trace(_step_outline(at, s.bands), row=rows - 1, col=1)
    moving = list(range(first, first + 4))
    frames = []
    for k in range(n):
        cursor = _cursor(positions[k])
        data = [go.Heatmap(z=db[k].T), cursor, cursor, _step_outline(k, s.bands)]
        frames.append(go.Frame(name=str(k + 1), data=data, traces=moving))
    figure.frames = frames
    legend = {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"}
    legend |= {"traceorder": "normal", "itemsizing": "constant"}
    moves = {"sliders": _step_slider(n, at), "updatemenus": _play_buttons()}
    margins = {"left": 58, "right": 6, "top": 30, "bottom": 122}
    layout = {"legend": legend, "hovermode": "closest"}
    return charts.apply_layout(figure, 455 if faces else 440, **margins, **moves, **layout)


def _concatenate_pictures(pictures: np.ndarray, shorten: int = 1) -> np.ndarray:
    """(n, columns, bands) -> (bands, n * columns / shorten), each `shorten` columns averaged."""
    n, columns, bands = pictures.shape
    parts = pictures.reshape(n, columns // shorten, shorten, bands).mean(axis=2)
    return parts.reshape(-1, bands).T


def _to_int8_db(db: np.ndarray) -> np.ndarray:
    """Whole decibels, one byte each, which keeps the figure small."""
    return np.rint(np.clip(db, -127, 127)).astype(np.int8)


def _add_faces(figure: go.Figure, x: np.ndarray) -> None:
    """Row 1: the faces (n, 28, 28) of all steps."""
    pixels, side = _concatenate_pictures(np.transpose(x, (0, 2, 1))).astype(np.uint8), x.shape[2]
    place = {"x0": -0.5 + 0.5 / side, "dx": 1 / side, "zmin": 0, "zmax": 255}
    look = {"colorscale": [[0, "#010101"], [1, "#fefefe"]], "showscale": False}
    hover = "the face at step %{x:.0f}<extra></extra>"
    figure.add_heatmap(z=pixels, hovertemplate=hover, **place, **look, row=1, col=1)
    figure.update_yaxes(autorange="reversed", row=1, col=1)


def _add_spectrograms(figure: go.Figure, db: np.ndarray, s: LogMel, levels, row: int) -> None:
    """The spectrograms of all steps, at half their resolution in time where that is possible."""
    shorten = 2 if s.columns % 2 == 0 else 1
    cells = s.columns // shorten
    z = _to_int8_db(_concatenate_pictures(db, shorten))
    place = {"x0": -0.5 + 0.5 / cells, "dx": 1 / cells, "showscale": False}
    hover = "%{z} dB<extra></extra>"
    figure.add_heatmap(z=z, hovertemplate=hover, **place, **levels, row=row, col=1)


def _separate_steps(figure: go.Figure, n: int, rows: int) -> None:
    """Number the n steps of each row but the last, with a line between two steps."""
    ticks = {"tickvals": list(range(n)), "ticktext": [str(k + 1) for k in range(n)]}
    for row in range(1, rows):
        number = row if row > 1 else ""
        figure.update_xaxes(range=[-0.5, n - 0.5], **charts.BARE_AXIS, **ticks, row=row, col=1)
        for k in range(1, n):
            ends = {"x0": k - 0.5, "x1": k - 0.5, "y0": 0, "y1": 1}
            axes = {"xref": f"x{number}", "yref": f"y{number} domain"}
            figure.add_shape(type="line", line={"color": GREY, "width": 1}, **ends, **axes)
    figure.update_xaxes(title="step", title_standoff=2, row=rows - 1, col=1)


def _add_large_step(
    figure: go.Figure, db: np.ndarray, s: LogMel, levels: dict, row: int, top: float
) -> None:
    """The spectrogram of one step, with its axes and its colour bar."""
    bar = {"title": {"text": "dB", "side": "top"}, "thickness": 7, "outlinewidth": 0, "nticks": 4}
    bar |= {"x": 0.24, "xpad": 2, "len": top - 0.08, "y": 0, "yanchor": "bottom"}
    hover = "%{x:.2f} s · %{z} dB<extra></extra>"
    place = {"x0": 0, "dx": s.hop / s.rate, "hovertemplate": hover, "colorbar": bar}
    figure.add_heatmap(z=db.T, **place, **levels, row=row, col=1)
    axis = {"title": "time (s)", "nticks": 5, "domain": [0, 0.24]}
    figure.update_xaxes(**axis, **charts.BARE_AXIS, row=row, col=1)
    figure.update_yaxes(**charts.mel_axis(s), row=row, col=1)


def _add_curves(
    figure: go.Figure,
    d: GuidedSamples,
    classes: Sequence[str],
    positions: np.ndarray,
    axis: str,
    row: int,
) -> None:
    """c and both verdicts over the steps, without emotions that hardly appear."""
    line = {"x": np.round(positions, 3), "mode": "lines", "row": row}
    heard = np.maximum(d.Q.max(axis=0), d.scorer.max(axis=0))
    for k, name in enumerate(classes):
        is_told = d.c.shape[1] > 0 and d.c[:, k].max() >= MIN_SHOWN_PROBABILITY
        if not is_told and heard[k] < MIN_SHOWN_PROBABILITY:
            continue
        style = {"color": theme.emotion_colour(name), "width": 2.5}
        group = {"legendgroup": name, "name": name}
        if d.c.shape[1]:
            hover = {"hovertemplate": f"told {name} %{{y:.2f}}<extra></extra>"}
            look = {"line": style, "showlegend": False, "col": 2} | hover
            figure.add_scatter(y=np.round(d.c[:, k], 4), **look, **group, **line)
        for who, o in (("scorer", d.scorer), ("Q", d.Q)):
            name = players.VERDICT_NAMES[who]
            hover = {"hovertemplate": f"{name} hears {name} %{{y:.2f}}<extra></extra>"}
            look = {
                "line": style | {"dash": VERDICT_DASHES[who]},
                "showlegend": who == "scorer",
            } | hover
            figure.add_scatter(y=np.round(o[:, k], 4), col=3, **look, **group, **line)
    # Legend entries of the two classifiers, and a trace that keeps an empty panel's axes.
    empty = {"mode": "lines", "row": row, "y": [None]}
    for who, dash in VERDICT_DASHES.items():
        style = {"color": GREY, "width": 2.5, "dash": dash}
        figure.add_scatter(x=[None], line=style, name=players.VERDICT_NAMES[who], col=3, **empty)
    if not d.c.shape[1]:
        figure.add_scatter(x=[positions[0]], showlegend=False, hoverinfo="skip", col=2, **empty)
    ends = [float(positions[0]), float(positions[-1])]
    ticks = {"tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": None, "range": [-0.02, 1.02]}
    for column, words in ((2, "c, what G is told"), (3, "heard: probability")):
        cell = {"row": row, "col": column}
        figure.update_yaxes(title=words, title_standoff=4, showgrid=True, **ticks, **cell)
        figure.update_xaxes(title=axis, range=ends, zeroline=False, **cell)


def _cursor(x: float) -> go.Scatter:
    line, bare = {"color": GREY, "width": 2, "dash": "dot"}, {"showlegend": False}
    bare |= {"mode": "lines", "hoverinfo": "skip"}
    return go.Scatter(x=[float(x)] * 2, y=[-0.02, 1.02], line=line, **bare)


def _step_outline(k: int, bands: int) -> go.Scatter:
    """A frame around step k in the row of spectrograms."""
    x = np.array([-0.47, 0.47, 0.47, -0.47, -0.47]) + k
    y = np.array([0, 0, bands - 1, bands - 1, 0])
    bare = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
    return go.Scatter(x=x, y=y, line={"color": OUTLINE_COLOUR, "width": 3}, **bare)


def _step_slider(n: int, at: int) -> list[dict[str, Any]]:
    now = NO_EASING | {"frame": {"duration": 0, "redraw": True}}
    names = [str(k + 1) for k in range(n)]
    steps = [{"method": "animate", "label": k, "args": [[k], now]} for k in names]
    words = {"prefix": "step ", "xanchor": "left", "font": {"size": 12}, "offset": 6}
    look = {"currentvalue": words, "font": {"size": 11}, "bgcolor": GREY, "bordercolor": GREY}
    place = {"x": 0.17, "len": 0.83, "y": 0, "yanchor": "top"}
    place["pad"] = {"t": 44, "b": 4, "l": 0, "r": 0}
    return [{"active": at, "steps": steps, **look, **place}]


def _play_buttons() -> list[dict[str, Any]]:
    play = NO_EASING | {"frame": {"duration": STEP_MS, "redraw": True}}
    stop = NO_EASING | {"frame": {"duration": 0, "redraw": False}}
    buttons = [
        {"method": "animate", "label": "▶ Play", "args": [None, play]},
        {"method": "animate", "label": "❚❚", "args": [[None], stop]},
    ]
    look = {"bgcolor": "rgba(138,148,153,0.25)", "bordercolor": GREY, "font": {"size": 12}}
    look |= {"active": -1, "showactive": False, "type": "buttons", "direction": "left"}
    place = {"x": -0.03, "xanchor": "left", "y": 0, "yanchor": "top", "pad": {"t": 62, "l": 0}}
    return [{"buttons": buttons, **look, **place}]
