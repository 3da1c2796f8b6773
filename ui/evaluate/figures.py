"""Figures that set runs beside each other (Plotly): curves, differences of confusion, spread over folds, rows, gains, chance.

A run keeps its colour on the whole page. Accuracies are in %, differences in points.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.evaluation import significance
from core.evaluation.significance import Gain
from ui import theme
from ui.widgets import charts
from ui.widgets.charts import TrainingCurves, apply_layout

COLOUR_LIMIT_POINTS = 50  # points at which the colours of every difference end
LINE_DASHES = ("solid", "dot", "dash")  # of runs beyond the colours
STEP_RULE_SYMBOLS = {"equal": "circle", "best": "diamond"}
STEP_RULE_LABELS = {"equal": "equal steps", "best": "own best steps"}
ROW_COLOURS = {
    "S1": theme.REFERENCE_COLOUR,
    "S1 + generated": theme.LINE_COLOURS[0],
    "S1 + S3": theme.LINE_COLOURS[1],
}  # of the paper's Fig. 9, and the ceiling
TOP_LEGEND = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
COMPARISON_LABELS = {
    "a": "(a) generated voices added to S1",
    "b": "(b) generated voices added to S1 + S3",
}


def export_config(name: str) -> dict[str, Any]:
    """Of a chart: one button, which saves it as <name>.svg."""
    return charts.EXPORT_CONFIG | {"toImageButtonOptions": {"format": "svg", "filename": name}}


def run_line_style(i: int) -> dict[str, Any]:
    """How the i-th run is drawn."""
    return {
        "color": theme.LINE_COLOURS[i % len(theme.LINE_COLOURS)],
        "dash": LINE_DASHES[i // len(theme.LINE_COLOURS) % len(LINE_DASHES)],
        "width": 2,
    }


def metric_curves(
    of: Mapping[str, TrainingCurves],
    name: str,
    title: str,
    lines: Mapping[str, dict],
    best: Mapping[str, int],
    steps: int,
    log: bool = False,
    what: str = "voices",
) -> go.Figure:
    """One figure of several runs over the steps: {run's name: curves}; a star at each run's best step, a dashed line for real ones.

    On a logarithmic axis what is not above 0 is left out, as a KID of real voices may be.
    """
    figure, real = go.Figure(), None
    for run, its in of.items():
        x, y = its.get(name, ([], []))
        label, mode = html.escape(run), "lines+markers" if len(x) < 30 else "lines"
        hover = f"{label}: %{{y:.3f}} at step %{{x:,}}<extra></extra>"
        look = {"line": lines[run], "marker": {"size": 5}, "cliponaxis": False}
        figure.add_scatter(
            x=x, y=y, name=label, mode=mode, legendgroup=label, hovertemplate=hover, **look
        )
        if run in best and best[run] in x:
            at = y[x.index(best[run])]
            star = {
                "symbol": "star",
                "size": 13,
                "color": lines[run]["color"],
                "line": {"width": 1, "color": theme.REFERENCE_COLOUR},
            }
            hover = f"{label}: best on S2, {at:.3f} at step {best[run]:,}<extra></extra>"
            look = {
                "marker": star,
                "mode": "markers",
                "legendgroup": label,
                "showlegend": False,
                "cliponaxis": False,
            }
            figure.add_scatter(
                x=[best[run]], y=[at], name=f"{label}, best", hovertemplate=hover, **look
            )
        real = real if real is not None else next(iter(its.get(f"{name} real", ([], []))[1]), None)
    if real is not None and (real > 0 or not log):
        figure.add_hline(real, line={"color": theme.REFERENCE_COLOUR, "dash": "dash", "width": 1.5})
        where = {
            "xref": "paper",
            "yref": "paper",
            "x": 0,
            "y": 1,
            "xanchor": "left",
            "yanchor": "bottom",
        }
        figure.add_annotation(text=f"╌╌ real {what} {real:.2f}", showarrow=False, **where)
    figure.update_xaxes(title="training step of G, D and Q", range=[0, max(1, steps)])
    if log:
        figure.update_yaxes(
            title=title, type="log", dtick=1, minor={"showgrid": True, "ticks": "inside"}
        )
    else:
        figure.update_yaxes(title=title, rangemode="tozero" if real is not None else "normal")
    return apply_layout(figure, 250, left=54, top=28, showlegend=False)


def confusion_difference(
    matrix: np.ndarray, classes: Sequence[str], height: int = 400
) -> go.Figure:
    """The difference (K, K) of two confusion matrices in points of the true class; colours end at ±REACH, 0 in the middle."""
    hover = "%{y} taken for %{x}: %{z:+.1f} points<extra></extra>"
    bar = {
        "title": {"text": "points of the<br>true class", "side": "top"},
        "thickness": 10,
        "outlinewidth": 0,
    }
    names = list(classes)
    heat = go.Heatmap(
        z=matrix, x=names, y=names, zmin=-COLOUR_LIMIT_POINTS, zmax=COLOUR_LIMIT_POINTS, zmid=0, colorscale="RdBu", colorbar=bar,
        texttemplate="%{z:+.0f}", hovertemplate=hover,
    )  # fmt: skip
    figure = go.Figure(heat).update_xaxes(title="predicted", tickangle=45, showgrid=False)
    figure.update_yaxes(title="true", autorange="reversed", showgrid=False)
    return apply_layout(figure, height, left=70, top=28, bottom=70)


def fold_accuracies(
    groups: Mapping[str, Mapping[str, Sequence[tuple[float, str]]]],
    chance: float,
    what: str = "voices",
) -> go.Figure:
    """Fig. 9: {setting: {row: [(accuracy in %, which fold and seed)]}}: every run a point, mean ± sd as a bar; chance in %."""
    figure, names = go.Figure(), list(groups)
    rows = [r for r in ROW_COLOURS if any(of.get(r) for of in groups.values())]
    for k, row in enumerate(rows):
        shift, colour = (k - (len(rows) - 1) / 2) * 0.24, ROW_COLOURS[row]
        known = {i: of[row] for i, of in enumerate(groups.values()) if of.get(row)}
        spread = {i: significance.mean_and_sd([v for v, _ in of]) for i, of in known.items()}
        sd = [0.0 if math.isnan(s) else s for _, s in spread.values()]
        bars = {"type": "data", "array": sd, "thickness": 2, "width": 6, "color": colour}
        hover = [
            f"{html.escape(names[i])}, {row}: {m:.1f} %"
            + (f" ± {s:.1f}" if s == s else "")
            + f" over {len(known[i])}"
            for i, (m, s) in spread.items()
        ]
        look = {
            "color": colour,
            "size": 11,
            "symbol": "line-ns",
            "line": {"width": 3, "color": colour},
        }
        figure.add_scatter(
            x=[m for m, _ in spread.values()], y=[i + shift for i in known], error_x=bars, mode="markers", name=row, marker=look,
            hovertext=hover, hoverinfo="text", legendgroup=row,
        )  # fmt: skip
        points = [
            (v, i + shift, f"{html.escape(said)}, {row}: {v:.1f} %")
            for i, of in known.items()
            for v, said in of
        ]
        figure.add_scatter(
            x=[p[0] for p in points], y=[p[1] for p in points], mode="markers", hovertext=[p[2] for p in points], hoverinfo="text",
            marker={"color": colour, "size": 6, "opacity": 0.55}, legendgroup=row, showlegend=False,
        )  # fmt: skip
    _add_chance_line(figure, chance)
    figure.update_xaxes(title=f"accuracy on real {what} of S4 (%)")
    ticks = {
        "tickvals": list(range(len(names))),
        "ticktext": [html.escape(n) for n in names],
        "title": "settings",
    }
    figure.update_yaxes(range=[len(names) - 0.5, -0.5], showgrid=False, zeroline=False, **ticks)
    return apply_layout(figure, 120 + 76 * len(names), left=210, top=30, legend=TOP_LEGEND)


def _add_chance_line(figure: go.Figure, chance: float) -> None:
    figure.add_vline(chance, line={"color": theme.REFERENCE_COLOUR, "dash": "dot", "width": 1.5})
    where = {
        "xref": "x",
        "yref": "paper",
        "x": chance,
        "y": 0,
        "xanchor": "left",
        "yanchor": "bottom",
        "xshift": 3,
    }
    figure.add_annotation(text=f"chance {chance:.1f} %", showarrow=False, **where)


def row_accuracies(
    of: Mapping[str, Mapping[str, Sequence[float]]], chance: float, what: str = "voices"
) -> go.Figure:
    """The augmentation table: {row: {rule: accuracies in % of its trainings}}: each a point, the mean a bar across; S1 as a line."""
    figure, names = go.Figure(), list(of)
    rules = [r for r in STEP_RULE_LABELS if any(r in values for values in of.values())]
    for k, rule in enumerate(rules):
        colour, shift = theme.LINE_COLOURS[k], (k - (len(rules) - 1) / 2) * 0.32
        points = [
            (v, i + shift, f"{n}, {STEP_RULE_LABELS[rule]}: {v:.1f} %")
            for i, n in enumerate(names)
            for v in of[n].get(rule, ())
        ]
        means = [
            (float(np.mean(of[n][rule])), i + shift, n)
            for i, n in enumerate(names)
            if len(of[n].get(rule, ()))
        ]
        look = {
            "color": colour,
            "size": 14,
            "symbol": "line-ns",
            "line": {"width": 3, "color": colour},
        }
        figure.add_scatter(
            x=[m for m, *_ in means], y=[y for _, y, _ in means], mode="markers", marker=look, name=f"{STEP_RULE_LABELS[rule]}: mean",
            hovertext=[f"{n}, {STEP_RULE_LABELS[rule]}: {m:.1f} % on average" for m, _, n in means], hoverinfo="text",
        )  # fmt: skip
        figure.add_scatter(
            x=[p[0] for p in points], y=[p[1] for p in points], mode="markers", name="one training", hoverinfo="text",
            hovertext=[p[2] for p in points], marker={"color": colour, "size": 7, "symbol": STEP_RULE_SYMBOLS[rule], "opacity": 0.6},
        )  # fmt: skip
    _add_chance_line(figure, chance)
    figure.update_xaxes(title=f"accuracy on real {what} of S4 (%)")
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "title": "trained on"}
    figure.update_yaxes(range=[len(names) - 0.5, -0.5], showgrid=False, zeroline=False, **ticks)
    return apply_layout(figure, 100 + 34 * len(names), left=250, top=30, legend=TOP_LEGEND)


def gain_intervals(found: Sequence[Gain]) -> go.Figure:
    """Every comparison: the mean difference over test people in points, with its 95 % interval, under both step rules."""
    figure, names = go.Figure(), list(dict.fromkeys(g.name for g in found))
    for k, rule in enumerate(STEP_RULE_LABELS):
        of = [g for g in found if g.rule == rule]
        up, down = (
            [100 * (g.interval[1] - g.difference) for g in of],
            [100 * (g.difference - g.interval[0]) for g in of],
        )
        bars = {
            "type": "data",
            "symmetric": False,
            "array": up,
            "arrayminus": down,
            "thickness": 2,
            "width": 5,
            "color": theme.LINE_COLOURS[k],
        }
        hover = [
            f"{g.rows[0]} − {g.rows[1]}<br>{100 * g.difference:+.1f} points [{100 * g.interval[0]:+.1f}, {100 * g.interval[1]:+.1f}], "
            f"p = {g.p:.3f}, {STEP_RULE_LABELS[rule]}"
            for g in of
        ]
        figure.add_scatter(
            x=[100 * g.difference for g in of], y=[names.index(g.name) + (k - 0.5) * 0.3 for g in of], error_x=bars, mode="markers",
            marker={"color": theme.LINE_COLOURS[k], "size": 9, "symbol": STEP_RULE_SYMBOLS[rule]}, name=STEP_RULE_LABELS[rule], hovertext=hover, hoverinfo="text",
        )  # fmt: skip
    figure.add_vline(0, line={"color": theme.REFERENCE_COLOUR, "width": 1.5})
    figure.update_xaxes(
        title="difference in accuracy (points), mean over test people, 95 % interval",
        zeroline=False,
    )
    words = [
        COMPARISON_LABELS.get(n, n)
        .replace(", both", ",<br>both")
        .replace("over the best", "over<br>the best")
        for n in names
    ]
    figure.update_yaxes(
        range=[len(names) - 0.5, -0.5],
        tickvals=list(range(len(names))),
        ticktext=words,
        title="comparison",
        showgrid=False,
        zeroline=False,
    )
    return apply_layout(figure, 100 + 42 * len(names), left=270, top=30, legend=TOP_LEGEND)


def sign_flip_test(people: Sequence[str], differences: np.ndarray, p: float) -> go.Figure:
    """The sign-flip test seen: each test person's difference in points, and where the mean would fall if each sign were a coin's."""
    titles = ("each person's difference", "the mean, if every sign were tossed")
    figure = make_subplots(
        1, 2, subplot_titles=titles, horizontal_spacing=0.14, column_widths=[0.42, 0.58]
    )
    d, mean = 100 * differences, 100 * float(differences.mean())
    colours = [
        theme.LINE_COLOURS[0]
        if v > 0
        else theme.LINE_COLOURS[1]
        if v < 0
        else theme.REFERENCE_COLOUR
        for v in d
    ]
    names = [html.escape(s) for s in people]
    bar = go.Bar(
        x=d,
        y=names,
        orientation="h",
        marker_color=colours,
        hovertemplate="%{y}: %{x:+.1f} points<extra></extra>",
    )
    figure.add_trace(bar, row=1, col=1)
    tossed = 100 * significance.sign_flip_means(differences)
    edge = max(float(np.abs(tossed).max()), 1e-9) * 1.02
    counts, edges = np.histogram(tossed, bins=41, range=(-edge, edge))
    middle, share = (edges[:-1] + edges[1:]) / 2, 100 * counts / len(tossed)
    far = np.abs(middle) >= abs(mean) - (edges[1] - edges[0]) / 2
    look = {
        "color": [theme.LINE_COLOURS[3] if f else theme.REFERENCE_COLOUR for f in far],
        "line_width": 0,
    }
    hover = "about %{x:+.1f} points: %{y:.1f} % of the tosses<extra></extra>"
    figure.add_trace(
        go.Bar(x=middle, y=share, marker=look, hovertemplate=hover, width=edges[1] - edges[0]),
        row=1,
        col=2,
    )
    figure.add_vline(mean, line={"color": theme.LINE_COLOURS[0], "width": 2.5}, row=1, col=2)
    text = f"found: {mean:+.1f}<br>p = {p:.3f}"
    side = (
        {"xanchor": "right", "align": "right", "xshift": -4}
        if mean > 0
        else {"xanchor": "left", "align": "left", "xshift": 4}
    )
    figure.add_annotation(
        text=text, x=mean, y=1, yref="y2 domain", xref="x2", yanchor="top", showarrow=False, **side
    )
    figure.update_xaxes(title="difference in accuracy (points)", row=1, col=1, zeroline=True)
    figure.update_xaxes(title="mean difference (points)", range=[-edge, edge], row=1, col=2)
    figure.update_yaxes(title="test person", autorange="reversed", showgrid=False, row=1, col=1)
    figure.update_yaxes(title="share of tosses (%)", row=1, col=2)
    return apply_layout(
        figure,
        min(640, max(280, 90 + 20 * len(names))),
        left=100,
        top=28,
        showlegend=False,
        bargap=0.25,
    )
