"""A gallery's contact sheet as one figure: rows of faces, each beside its real voice and what was made of it. And how far from a copy."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.colors import hex_to_rgb

from core.config import LogMel
from ui import theme
from ui.widgets import charts

if TYPE_CHECKING:
    from core.inference.gallery import GeneratedVoices, RealItems

FACE_WIDTH, VOICE_WIDTH, CELL_HEIGHT = (
    56,
    112,
    56,
)  # pixels of a face and of a voice in a picture that is stretched to the figure's width
COLUMN_GAP, ROW_PITCH = 8, 64


def _colour_map() -> np.ndarray:
    """(256, 3) uint8: the spectrograms' colour map."""
    stops = np.array([hex_to_rgb(k) for k in theme.SPECTROGRAM_COLOUR_SCALE], float)
    at = np.linspace(0, 1, len(stops))
    return (
        np.stack([np.interp(np.linspace(0, 1, 256), at, stops[:, i]) for i in range(3)], axis=1)
        .round()
        .astype(np.uint8)
    )


COLOUR_MAP = _colour_map()


def spectrogram_image(y: np.ndarray) -> np.ndarray:
    """(columns, bands) in [-1, 1] -> (bands, columns, 3) uint8, low frequencies below."""
    level = np.clip((np.asarray(y, np.float32) + 1) * 127.5, 0, 255).astype(np.uint8)
    return COLOUR_MAP[level.T[::-1]]


def png_bytes(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _sheet_columns(r: RealItems, made: dict[str, GeneratedVoices]) -> list[tuple[str, int, int]]:
    """Columns of the sheet: what, where from, how wide. Only what is there."""
    names = (
        (["face"] if len(r.face) else [])
        + (["real"] if (r.voice_row >= 0).any() else [])
        + list(made)
    )
    out, x = [], 0
    for name in names:
        width = FACE_WIDTH if name == "face" else VOICE_WIDTH
        out.append((name, x, width))
        x += width + COLUMN_GAP
    return out


def _sprite_data_url(
    r: RealItems,
    made: dict[str, GeneratedVoices],
    items: Sequence[int],
    cells: list[tuple[str, int, int]],
) -> str:
    """All cells of a page as one picture, transparent between them, as a data address."""
    sheet = np.zeros((ROW_PITCH * len(items), cells[-1][1] + cells[-1][2], 4), np.uint8)
    for row, i in enumerate(items):
        for name, x, width in cells:
            if name == "face":
                one = np.repeat(r.face[i][:, :, None], 3, axis=2)
            elif name == "real" and r.voice_row[i] < 0:
                continue
            else:
                one = spectrogram_image(
                    r.voices.y[r.voice_row[i]] if name == "real" else made[name].y[i]
                )
            big = np.asarray(
                Image.fromarray(one).resize((width, CELL_HEIGHT), Image.Resampling.BOX)
            )  # 64 bands are more than HIGH: none is lost
            sheet[ROW_PITCH * row : ROW_PITCH * row + CELL_HEIGHT, x : x + width] = np.dstack(
                [big, np.full(big.shape[:2], 255, np.uint8)]
            )
    return "data:image/png;base64," + base64.b64encode(png_bytes(sheet)).decode()


def column_title(name: str) -> str:
    """A column's name."""
    return {"face": "Face", "real": "Real voice"}.get(name) or theme.CONDITION_TEXTS[name][0]


def build_figure(
    r: RealItems,
    made: dict[str, GeneratedVoices],
    items: Sequence[int],
    classes: Sequence[str],
    looked_at: int,
    s: LogMel,
) -> go.Figure:
    """A row for each item: face, real voice, and the voice of each condition; a mark shows what the scorer hears, a frame who is open.

    Points carry the item, for clicks.
    """
    cells = _sheet_columns(r, made)
    across, down = cells[-1][1] + cells[-1][2], ROW_PITCH * len(items)
    figure = go.Figure()
    spots: dict[str, list] = {"x": [], "y": [], "item": [], "text": []}
    marks: dict[str, list] = {"x": [], "y": [], "colour": [], "symbol": []}
    for row, i in enumerate(items):
        middle, emotion = ROW_PITCH * row + CELL_HEIGHT / 2, classes[r.label[i]]
        for name, x, width in cells:
            words = f"{column_title(name)} · {emotion}"
            if name in made:
                o = made[name].scorer[i]
                k = int(o.argmax())
                words += f"<br>the scorer hears {classes[k]}, {o[k]:.0%}"
                marks["x"].append(x + width - 8)
                marks["y"].append(ROW_PITCH * row + 9)
                marks["colour"].append(theme.emotion_colour(classes[k]))
                marks["symbol"].append("circle" if k == r.label[i] else "x")
            for k in range(width // FACE_WIDTH):
                for key, value in (
                    ("x", x + FACE_WIDTH * (k + 0.5)),
                    ("y", middle),
                    ("item", int(i)),
                    ("text", words),
                ):
                    spots[key].append(value)
        if i == looked_at:
            box = {
                "x0": -3,
                "x1": across + 3,
                "y0": ROW_PITCH * row - 4,
                "y1": ROW_PITCH * row + CELL_HEIGHT + 3,
            }
            figure.add_shape(
                type="rect", line={"color": theme.LINE_COLOURS[0], "width": 3}, layer="above", **box
            )
    still = {"marker": {"opacity": 0}}
    figure.add_scatter(
        x=spots["x"],
        y=spots["y"],
        customdata=spots["item"],
        text=spots["text"],
        mode="markers",
        marker={
            "size": FACE_WIDTH - 4,
            "symbol": "square",
            "opacity": 0,
            "color": theme.REFERENCE_COLOUR,
        },
        selected=still,
        unselected=still,
        hovertemplate="%{text}<extra></extra>",
    )
    full = {"marker": {"opacity": 1}}
    look = {
        "color": marks["colour"],
        "symbol": marks["symbol"],
        "size": 9,
        "line": {"color": "white", "width": 1.5},
    }
    figure.add_scatter(
        x=marks["x"],
        y=marks["y"],
        mode="markers",
        marker=look,
        hoverinfo="skip",
        selected=full,
        unselected=full,
    )
    figure.add_layout_image(
        source=_sprite_data_url(r, made, items, cells),
        x=0,
        y=0,
        sizex=across,
        sizey=down,
        xref="x",
        yref="y",
        sizing="stretch",
        layer="below",
    )
    names = [
        theme.emotion_html(html.escape(classes[r.label[i]]))
        + (f"<br>{html.escape(_short_subject(r, i))}" if r.subject[i] else "")
        for i in items
    ]
    at = [x + width / 2 for _, x, width in cells]
    seconds, top = s.columns * s.hop / s.rate, s.f_max / 1000
    figure.update_xaxes(
        range=[-5, across + 5],
        tickvals=at,
        ticktext=[column_title(n) for n, *_ in cells],
        side="top",
        showgrid=False,
        zeroline=False,
    )
    figure.add_annotation(
        text=f"each voice: {seconds:.1f} s across, {s.f_min / 1000:g} to {top:g} kHz (mel) upwards · mark: ● the scorer is right, ✕ wrong",
        showarrow=False,
        **{
            "xref": "paper",
            "yref": "paper",
            "x": 0,
            "y": 0,
            "xanchor": "left",
            "yanchor": "top",
            "yshift": -2,
            "font": {"size": 11},
        },
    )
    about = "emotion · who" if r.subject.any() else "emotion"
    rows = [ROW_PITCH * k + CELL_HEIGHT / 2 for k in range(len(items))]
    figure.update_yaxes(
        range=[down - 2, -5],
        tickvals=rows,
        ticktext=names,
        title=about,
        showgrid=False,
        zeroline=False,
    )
    return charts.apply_layout(
        figure,
        down + 54,
        left=96,
        top=26,
        bottom=22,
        showlegend=False,
        clickmode="event+select",
        hovermode="closest",
    )


def _short_subject(r: RealItems, i: int) -> str:
    """A subject without the corpus' name in front."""
    known = sorted(set(r.subject.tolist()) - {""})
    name = str(r.subject[i]).removeprefix(charts.common_prefix(known))
    return name[:12] + "…" * (len(name) > 12)


def distance_histogram(typical: np.ndarray, own: dict[str, float], height: int = 210) -> go.Figure:
    """How near real voices of new people come to a training voice, and how near this item's generated ones do: {condition: dB}."""
    figure = go.Figure()
    edges = np.histogram_bin_edges(typical, 30)
    count, width = np.histogram(typical, edges)[0], float(edges[1] - edges[0])
    hover = "%{x:.1f} dB: %{y} real voices<extra></extra>"
    figure.add_bar(
        x=(edges[1:] + edges[:-1]) / 2,
        y=count,
        width=width,
        name="real voices",
        marker_color=theme.REFERENCE_COLOUR,
        hovertemplate=hover,
    )
    for (name, d), colour in zip(own.items(), theme.LINE_COLOURS):
        line = {"color": colour, "width": 3}
        hover = f"{column_title(name)}: {d:.1f} dB<extra></extra>"
        figure.add_scatter(
            x=[d, d],
            y=[0, int(count.max())],
            mode="lines",
            name=column_title(name),
            line=line,
            hovertemplate=hover,
        )
    figure.update_xaxes(
        title="distance to the nearest training voice (dB); a copy stands at 0",
        range=[0, max(edges[-1], *own.values()) * 1.03],
    )
    figure.update_yaxes(title="real voices", rangemode="tozero")
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return charts.apply_layout(figure, height, left=50, top=28, legend=legend, bargap=0)
