"""The gallery's contact sheet, and the distances of voices to the training voices, as figures.

All faces and voices of the sheet are one picture behind the figure; invisible points catch clicks.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from core.config.settings import LogMel
from ui import theme
from ui.session import images
from ui.widgets import charts

if TYPE_CHECKING:
    from core.inference.gallery.generated_voices import GeneratedVoices
    from core.inference.gallery.real_items import RealItems

# Pixels of the picture, which is stretched to the figure's width.
FACE_WIDTH, VOICE_WIDTH, CELL_HEIGHT = 56, 112, 56
COLUMN_GAP, ROW_PITCH = 8, 64
SheetColumn = tuple[str, int, int]  # name, left edge, width


def _sheet_columns(r: RealItems, generated: dict[str, GeneratedVoices]) -> list[SheetColumn]:
    """The columns that have content: the face, the real voice, each condition."""
    names = (
        ["face"] * bool(len(r.face)) + ["real"] * bool((r.voice_row >= 0).any()) + list(generated)
    )
    out, x = [], 0
    for name in names:
        width = FACE_WIDTH if name == "face" else VOICE_WIDTH
        out.append((name, x, width))
        x += width + COLUMN_GAP
    return out


def _sheet_picture(
    r: RealItems,
    generated: dict[str, GeneratedVoices],
    items: Sequence[int],
    columns: Sequence[SheetColumn],
) -> str:
    """All cells of a page as one picture, transparent between them, as a data URL."""
    sheet = np.zeros((ROW_PITCH * len(items), columns[-1][1] + columns[-1][2], 4), np.uint8)
    for row, i in enumerate(items):
        top = ROW_PITCH * row
        for name, x, width in columns:
            if name == "face":
                cell = np.repeat(r.face[i][:, :, None], 3, axis=2)
            elif name == "real" and r.voice_row[i] < 0:
                continue
            else:
                y = r.voices.y[r.voice_row[i]] if name == "real" else generated[name].y[i]
                cell = images.spectrogram_image(y)
            # 64 bands are more than the height: BOX averages them, so that none is lost.
            cell = Image.fromarray(cell).resize((width, CELL_HEIGHT), Image.Resampling.BOX)
            sheet[top : top + CELL_HEIGHT, x : x + width, :3] = np.asarray(cell)
            sheet[top : top + CELL_HEIGHT, x : x + width, 3] = 255
    return images.png_data_url(sheet)


def column_title(name: str) -> str:
    """Title of a column: "face", "real" or a condition."""
    return {"face": "Face", "real": "Real voice"}.get(name) or theme.CONDITION_TEXTS[name][0]


def build_figure(
    r: RealItems,
    generated: dict[str, GeneratedVoices],
    items: Sequence[int],
    classes: Sequence[str],
    open_item: int,
    s: LogMel,
) -> go.Figure:
    """A row for each item: face, real voice, and the voice of each condition.

    A mark shows the emotion that the scorer hears; a frame surrounds the open item. Each point's
    `customdata` is its item, for clicks.
    """
    columns = _sheet_columns(r, generated)
    across, down = columns[-1][1] + columns[-1][2], ROW_PITCH * len(items)
    figure = go.Figure()
    _add_click_points(figure, r, generated, items, classes, columns)
    _add_verdict_marks(figure, r, generated, items, classes, columns)
    if open_item in items:
        top = ROW_PITCH * list(items).index(open_item)
        box = {"x0": -3, "x1": across + 3, "y0": top - 4, "y1": top + CELL_HEIGHT + 3}
        line = {"color": theme.LINE_COLOURS[0], "width": 3}
        figure.add_shape(type="rect", line=line, layer="above", **box)
    place = {"x": 0, "y": 0, "sizex": across, "sizey": down, "xref": "x", "yref": "y"}
    picture = _sheet_picture(r, generated, items, columns)
    figure.add_layout_image(source=picture, sizing="stretch", layer="below", **place)
    _label_axes(figure, r, items, classes, columns, s)
    margins = {"left": 96, "top": 26, "bottom": 22}
    clicks = {"clickmode": "event+select", "hovermode": "closest"}
    return charts.apply_layout(figure, down + 54, **margins, showlegend=False, **clicks)


def _add_click_points(figure: go.Figure, r, generated, items, classes, columns) -> None:
    """Invisible squares over the cells, one for each width of a face."""
    points = []
    for row, i in enumerate(items):
        for name, x, width in columns:
            words = f"{column_title(name)} · {classes[r.label[i]]}"
            if name in generated:
                o = generated[name].scorer[i]
                words += f"<br>the judge hears {classes[o.argmax()]}, {o.max():.0%}"
            for k in range(width // FACE_WIDTH):
                middle = ROW_PITCH * row + CELL_HEIGHT / 2
                points.append((x + FACE_WIDTH * (k + 0.5), middle, int(i), words))
    x, y, item, text = (list(column) for column in zip(*points))
    still = {"marker": {"opacity": 0}}
    look = {"size": FACE_WIDTH - 4, "symbol": "square", "opacity": 0}
    figure.add_scatter(
        x=x,
        y=y,
        customdata=item,
        text=text,
        mode="markers",
        marker=look | {"color": theme.REFERENCE_COLOUR},
        selected=still,
        unselected=still,
        hovertemplate="%{text}<extra></extra>",
    )


def _add_verdict_marks(figure: go.Figure, r, generated, items, classes, columns) -> None:
    """A mark in the corner of each generated voice: ● the judge is right, ✕ wrong."""
    marks = []
    for row, i in enumerate(items):
        for name, x, width in columns:
            if name in generated:
                k = int(generated[name].scorer[i].argmax())
                symbol = "circle" if k == r.label[i] else "x"
                colour = theme.emotion_colour(classes[k])
                marks.append((x + width - 8, ROW_PITCH * row + 9, colour, symbol))
    x, y, colours, symbols = (list(column) for column in zip(*marks))
    look = {"color": colours, "symbol": symbols, "size": 9}
    look["line"] = {"color": "white", "width": 1.5}
    full = {"selected": {"marker": {"opacity": 1}}, "unselected": {"marker": {"opacity": 1}}}
    figure.add_scatter(x=x, y=y, mode="markers", marker=look, hoverinfo="skip", **full)


def _label_axes(figure: go.Figure, r, items, classes, columns, s: LogMel) -> None:
    """Names of columns and rows, and a line on what the cells and marks show."""
    across, down = columns[-1][1] + columns[-1][2], ROW_PITCH * len(items)
    bare = {"showgrid": False, "zeroline": False}
    at, titles = zip(*((x + width / 2, column_title(name)) for name, x, width in columns))
    figure.update_xaxes(range=[-5, across + 5], tickvals=at, ticktext=titles, side="top", **bare)
    names = [theme.emotion_html(classes[r.label[i]]) for i in items]
    names = [
        name + (f"<br>{html.escape(_short_subject(r, i))}" if r.subject[i] else "")
        for name, i in zip(names, items)
    ]
    rows = [ROW_PITCH * k + CELL_HEIGHT / 2 for k in range(len(items))]
    title = "emotion · who" if r.subject.any() else "emotion"
    figure.update_yaxes(range=[down - 2, -5], tickvals=rows, ticktext=names, title=title, **bare)
    seconds, low, high = s.columns * s.hop / s.rate, s.f_min / 1000, s.f_max / 1000
    words = f"each voice: {seconds:.1f} s across, {low:g} to {high:g} kHz (mel) upwards"
    place = {"xref": "paper", "yref": "paper", "x": 0, "y": 0, "xanchor": "left", "yanchor": "top"}
    words += " · mark: ● the judge is right, ✕ wrong"
    figure.add_annotation(text=words, showarrow=False, yshift=-2, font={"size": 11}, **place)


def _short_subject(r: RealItems, i: int) -> str:
    """A subject's name without the corpus' name in front of it, cut to 12 characters."""
    known = sorted(set(r.subject.tolist()) - {""})
    name = str(r.subject[i]).removeprefix(charts.common_prefix(known))
    return name[:12] + "…" * (len(name) > 12)


def distance_histogram(typical: np.ndarray, own: dict[str, float], height: int = 210) -> go.Figure:
    """Distances in dB to the nearest training voice: real voices of S4, and this item's generated.

    `typical` holds one distance for each real voice, `own` one for each condition.
    """
    figure = go.Figure()
    edges = np.histogram_bin_edges(typical, 30)
    count, width = np.histogram(typical, edges)[0], float(edges[1] - edges[0])
    hover = "%{x:.1f} dB: %{y} real voices<extra></extra>"
    look = {"marker_color": theme.REFERENCE_COLOUR, "hovertemplate": hover, "name": "real voices"}
    figure.add_bar(x=(edges[1:] + edges[:-1]) / 2, y=count, width=width, **look)
    for (condition, d), colour in zip(own.items(), theme.LINE_COLOURS):
        name = column_title(condition)
        look = {"mode": "lines", "line": {"color": colour, "width": 3}, "name": name}
        hover = f"{name}: {d:.1f} dB<extra></extra>"
        figure.add_scatter(x=[d, d], y=[0, int(count.max())], hovertemplate=hover, **look)
    title = "distance to the nearest training voice (dB); a copy stands at 0"
    figure.update_xaxes(title=title, range=[0, max(edges[-1], *own.values()) * 1.03])
    figure.update_yaxes(title="real voices", rangemode="tozero")
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return charts.apply_layout(figure, height, left=50, top=28, legend=legend, bargap=0)
