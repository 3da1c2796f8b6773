"""Plotly figures that compare runs: curves, confusion, spread over folds, rows, gains, tests.

A run has one colour on the whole page. Accuracies are in %, differences in points.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.evaluation import metrics, results, significance
from core.evaluation.significance import STEP_RULE_NAMES, Gain
from ui import theme
from ui.widgets import charts
from ui.widgets.charts import TrainingCurves, apply_layout

COLOUR_LIMIT_POINTS = 50  # difference, in points, at the ends of the colour scale
MAX_MARKED_POINTS = 30  # curves with fewer points show them as markers
LINE_DASHES = ("solid", "dot", "dash")  # when the colours are used up
STEP_RULE_SYMBOLS = {"equal": "circle", "best": "diamond"}
ROW_COLOURS = {  # rows of the paper's Fig. 9, and S3 with its true labels
    "S1": theme.REFERENCE_COLOUR,
    "S1 + generated": theme.LINE_COLOURS[0],
    "S1 + S3": theme.LINE_COLOURS[1],
}
TOP_LEGEND = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
CORNER = {"xanchor": "left", "yanchor": "bottom", "showarrow": False}  # of an annotation
COMPARISON_LABELS = {
    "a": "(a) generated voices added to S1",
    "b": "(b) generated voices added to S1 + S3",
    "ceiling": "S3 with true labels added to S1",
}


def export_config(name: str) -> dict[str, Any]:
    """Plotly config with one button, which saves the chart as <name>.svg."""
    return charts.EXPORT_CONFIG | {"toImageButtonOptions": {"format": "svg", "filename": name}}


def run_line_style(i: int) -> dict[str, Any]:
    """Plotly line of the i-th run."""
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
    """A metric of several runs over the steps, from {run's name: curves}.

    A star marks each run's best step, a dashed line the value of real samples, whose rule its label
    names. A logarithmic axis leaves out values that are not positive, such as a KID of real voices.
    """
    figure, real = go.Figure(), _reference(of, name, what)
    for run, its in of.items():
        x, y = its.get(name, ([], []))
        label, mode = html.escape(run), "lines+markers" if len(x) < MAX_MARKED_POINTS else "lines"
        look = {"legendgroup": label, "cliponaxis": False}
        hover = f"{label}: %{{y:.3f}} at step %{{x:,}}<extra></extra>"
        line = {"line": lines[run], "marker": {"size": 5}, "mode": mode}
        figure.add_scatter(x=x, y=y, name=label, hovertemplate=hover, **line, **look)
        if run in best and best[run] in x:
            step, value = best[run], y[x.index(best[run])]
            edge = {"width": 1, "color": theme.REFERENCE_COLOUR}
            star = {"symbol": "star", "size": 13, "color": lines[run]["color"], "line": edge}
            look |= {"marker": star, "mode": "markers", "showlegend": False}
            hover = f"{label}: best on S2, {value:.3f} at step {step:,}<extra></extra>"
            figure.add_scatter(
                x=[step], y=[value], name=f"{label}, best", hovertemplate=hover, **look
            )
    if real and (real[0] > 0 or not log):
        line = {"color": theme.REFERENCE_COLOUR, "dash": "dash", "width": 1.5}
        figure.add_hline(real[0], line=line)
        text = f"╌╌ {real[1]} {real[0]:.2f}"
        figure.add_annotation(text=text, x=0, y=1, xref="paper", yref="paper", **CORNER)
    figure.update_xaxes(title="training step", range=[0, max(1, steps)])
    if log:
        minor = {"showgrid": True, "ticks": "inside"}
        figure.update_yaxes(title=title, type="log", dtick=1, minor=minor)
    else:
        figure.update_yaxes(title=title, rangemode="tozero" if real is not None else "normal")
    return apply_layout(figure, 250, left=54, top=28, showlegend=False)


def _reference(of: Mapping[str, TrainingCurves], name: str, what: str) -> tuple[float, str] | None:
    """Value and label of a metric's reference line; of the present rules, if a run has it so."""
    known = [c for c in of.values() if c.get(f"{name} real", ([], []))[1]]
    known.sort(key=lambda c: not results.has_unknown_reference(c))
    if not known:
        return None
    return known[0][f"{name} real"][1][0], results.reference_label(known[0], what)


def confusion_difference(
    first: np.ndarray, second: np.ndarray, classes: Sequence[str], height: int = 400
) -> go.Figure:
    """The first minus the second of two confusion matrices (K, K) in points of the true class.

    Both are counts. The colours are centred on 0 and end at ±COLOUR_LIMIT_POINTS.
    """
    names, limit = list(classes), COLOUR_LIMIT_POINTS
    matrix = 100 * (metrics.normalise_rows(first) - metrics.normalise_rows(second))
    of = [
        np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
        for counts in (first, second)
    ]
    hover = (
        "%{y} taken for %{x}: %{z:+.1f} points<br>%{customdata[0]:,} of %{customdata[1]:,} "
        "against %{customdata[2]:,} of %{customdata[3]:,}<extra></extra>"
    )
    title = {"text": "points of the<br>true class", "side": "top"}
    heat = go.Heatmap(
        z=matrix,
        x=names,
        y=names,
        zmin=-limit,
        zmax=limit,
        zmid=0,
        colorscale="RdBu",
        colorbar={"title": title, "thickness": 10, "outlinewidth": 0},
        texttemplate="%{z:+.0f}",
        customdata=np.stack([first, of[0], second, of[1]], axis=-1),
        hovertemplate=hover,
    )
    figure = go.Figure(heat).update_xaxes(title="predicted", tickangle=45, showgrid=False)
    figure.update_yaxes(title="true", autorange="reversed", showgrid=False)
    return apply_layout(figure, height, left=70, top=28, bottom=70)


def fold_accuracies(
    groups: Mapping[str, Mapping[str, Sequence[tuple[float, str]]]],
    chance: float,
    what: str = "voices",
) -> go.Figure:
    """Fig. 9, from {setting: {row: [(accuracy in %, name of the run)]}}, with chance in %.

    Each run is a point; a tick and a bar show mean ± sd.
    """
    figure, names = go.Figure(), list(groups)
    rows = [r for r in ROW_COLOURS if any(of.get(r) for of in groups.values())]
    for k, row in enumerate(rows):
        shift, colour = (k - (len(rows) - 1) / 2) * 0.24, ROW_COLOURS[row]
        known = {i: of[row] for i, of in enumerate(groups.values()) if of.get(row)}
        spread = {i: significance.mean_and_sd([v for v, _ in of]) for i, of in known.items()}
        means = []
        for i, (mean, sd) in spread.items():
            text = f"{mean:.1f} %" + (f" ± {sd:.1f}" if sd == sd else "") + f" over {len(known[i])}"
            means.append((mean, i + shift, f"{html.escape(names[i])}, {row}: {text}"))
        lengths = [0.0 if math.isnan(sd) else sd for _, sd in spread.values()]
        bars = {"type": "data", "array": lengths, "thickness": 2, "width": 6, "color": colour}
        look = {"legendgroup": row, "error_x": bars}
        _add_points(figure, means, _tick_marker(colour, 11), name=row, **look)
        points = [
            (v, i + shift, f"{html.escape(run)}, {row}: {v:.1f} %")
            for i, of in known.items()
            for v, run in of
        ]
        marker = {"color": colour, "size": 6, "opacity": 0.55}
        _add_points(figure, points, marker, legendgroup=row, showlegend=False)
    labels = [html.escape(n) for n in names]
    height = 120 + 76 * len(names)
    return _accuracy_layout(figure, chance, what, labels, "settings", height, left=210)


Point = tuple[float, float, str]  # x, y and hover text


def _add_points(figure: go.Figure, points: Sequence[Point], marker: dict, **more) -> None:
    """Markers with a text of their own each."""
    x, y, text = ([p[i] for p in points] for i in range(3))
    look = {"mode": "markers", "marker": marker, "hoverinfo": "text"}
    figure.add_scatter(x=x, y=y, hovertext=text, **look, **more)


def _tick_marker(colour: str, size: int) -> dict[str, Any]:
    """A vertical stroke, for means."""
    line = {"width": 3, "color": colour}
    return {"color": colour, "size": size, "symbol": "line-ns", "line": line}


def _accuracy_layout(
    figure: go.Figure,
    chance: float,
    what: str,
    labels: Sequence[str],
    title: str,
    height: int,
    left: int,
) -> go.Figure:
    """Accuracy to the right, a labelled line per row of the chart, chance as a dotted line."""
    figure.add_vline(chance, line={"color": theme.REFERENCE_COLOUR, "dash": "dot", "width": 1.5})
    place = {"x": chance, "y": 0, "xref": "x", "yref": "paper", "xshift": 3}
    figure.add_annotation(text=f"chance {chance:.1f} %", **place, **CORNER)
    figure.update_xaxes(title=f"accuracy on real {what} of S4 (%)")
    figure.update_yaxes(**_row_axis(labels), title=title)
    return apply_layout(figure, height, left=left, top=30, legend=TOP_LEGEND)


def _row_axis(labels: Sequence[str]) -> dict[str, Any]:
    """A y axis with a label per row, the first on top."""
    ticks = {"tickvals": list(range(len(labels))), "ticktext": list(labels)}
    return {"range": [len(labels) - 0.5, -0.5], "showgrid": False, "zeroline": False, **ticks}


def row_accuracies(
    of: Mapping[str, Mapping[str, Sequence[float]]], chance: float, what: str = "voices"
) -> go.Figure:
    """The augmentation table, from {row: {rule: accuracies of its trainings in %}}.

    Each training is a point, the mean a tick; chance in % is a line.
    """
    figure, names = go.Figure(), list(of)
    rules = [r for r in STEP_RULE_NAMES if any(r in values for values in of.values())]
    for k, rule in enumerate(rules):
        colour, shift = theme.LINE_COLOURS[k], (k - (len(rules) - 1) / 2) * 0.32
        label, means, points = STEP_RULE_NAMES[rule], list[Point](), list[Point]()
        for i, n in enumerate(names):
            values = of[n].get(rule, ())
            points += [(v, i + shift, f"{n}, {label}: {v:.1f} %") for v in values]
            if len(values):
                mean = float(np.mean(values))
                means.append((mean, i + shift, f"{n}, {label}: {mean:.1f} % on average"))
        _add_points(figure, means, _tick_marker(colour, 14), name=f"{label}: mean")
        marker = {"color": colour, "size": 7, "symbol": STEP_RULE_SYMBOLS[rule], "opacity": 0.6}
        _add_points(figure, points, marker, name="one training")
    height = 100 + 34 * len(names)
    return _accuracy_layout(figure, chance, what, names, "trained on", height, left=250)


def gain_intervals(found: Sequence[Gain]) -> go.Figure:
    """Mean difference of every comparison in points by step rule, with its 95 % interval.

    Below `significance.MIN_INTERVAL_SUBJECTS` people there is none: each person is a small point.
    """
    figure, names = go.Figure(), list(dict.fromkeys(g.name for g in found))
    for k, (rule, label) in enumerate(STEP_RULE_NAMES.items()):
        of, points, colour = [g for g in found if g.rule == rule], [], theme.LINE_COLOURS[k]
        each, up, down = list[Point](), list[float](), list[float]()
        for g in of:
            place = names.index(g.name) + (k - 0.5) * 0.3
            text = f"{g.rows[0]} − {g.rows[1]}<br>{significance.format_gain(g)}"
            points.append((100 * g.difference, place, f"{text}, p = {g.p:.3f}, {label}"))
            low, high = g.interval or (g.difference, g.difference)
            up.append(100 * (high - g.difference))
            down.append(100 * (g.difference - low))
            people = g.people if g.interval is None else {}
            each += [
                (100 * d, place, f"{html.escape(person)}: {100 * d:+.1f} points, {label}")
                for person, d in people.items()
            ]
        bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
        bars |= {"thickness": 2, "width": 5, "color": colour}
        marker = {"color": colour, "size": 9, "symbol": STEP_RULE_SYMBOLS[rule]}
        _add_points(figure, points, marker, error_x=bars, name=label)
        if each:
            small = {"color": colour, "size": 5, "opacity": 0.5}
            _add_points(figure, each, small, name="one person", legendgroup=rule)
    figure.add_vline(0, line={"color": theme.REFERENCE_COLOUR, "width": 1.5})
    spread = "95 % interval" if any(g.interval for g in found) else "small: one person"
    title = f"difference in accuracy (points), mean over test people, {spread}"
    figure.update_xaxes(title=title, zeroline=False)
    labels = [COMPARISON_LABELS.get(n, n) for n in names]
    for words, lines in ((", both", ",<br>both"), ("over the best", "over<br>the best")):
        labels = [label.replace(words, lines) for label in labels]
    figure.update_yaxes(**_row_axis(labels), title="comparison")
    return apply_layout(figure, 100 + 42 * len(names), left=270, top=30, legend=TOP_LEGEND)


def sign_flip_test(people: Sequence[str], differences: np.ndarray, p: float) -> go.Figure:
    """Each test person's difference in points, and the distribution of means under flipped signs.

    Means at least as far from 0 as the observed one are coloured.
    """
    titles = ("each person's difference", "the mean under all patterns of signs")
    figure = make_subplots(
        1, 2, subplot_titles=titles, horizontal_spacing=0.14, column_widths=[0.42, 0.58]
    )
    # left: a bar per person, coloured by sign
    d, mean = 100 * differences, 100 * float(differences.mean())
    names = [html.escape(s) for s in people]
    by_sign = {1: theme.LINE_COLOURS[0], -1: theme.LINE_COLOURS[1], 0: theme.REFERENCE_COLOUR}
    colours = [by_sign[int(v)] for v in np.sign(d)]
    hover = "%{y}: %{x:+.1f} points<extra></extra>"
    bar = go.Bar(x=d, y=names, orientation="h", marker_color=colours, hovertemplate=hover)
    figure.add_trace(bar, row=1, col=1)

    # right: histogram of the means, the observed one as a line
    means = 100 * significance.sign_flip_means(differences)
    edge = max(float(np.abs(means).max()), 1e-9) * 1.02
    counts, edges = np.histogram(means, bins=41, range=(-edge, edge))
    middle, share = (edges[:-1] + edges[1:]) / 2, 100 * counts / len(means)
    width = edges[1] - edges[0]
    far = np.abs(middle) >= abs(mean) - width / 2
    colours = [theme.LINE_COLOURS[3] if f else theme.REFERENCE_COLOUR for f in far]
    look = {"color": colours, "line_width": 0}
    hover = "about %{x:+.1f} points: %{y:.1f} % of the patterns<extra></extra>"
    bar = go.Bar(x=middle, y=share, marker=look, hovertemplate=hover, width=width)
    figure.add_trace(bar, row=1, col=2)
    figure.add_vline(mean, line={"color": theme.LINE_COLOURS[0], "width": 2.5}, row=1, col=2)
    side = "right" if mean > 0 else "left"
    # above the plot, where no bar is
    place = {"x": mean, "y": 1, "xref": "x2", "yref": "y2 domain", "yanchor": "bottom"}
    place |= {"xanchor": side, "align": side}
    text = f"found: {mean:+.1f}, p = {p:.3f}"
    figure.add_annotation(text=text, showarrow=False, **place)

    # axes
    figure.update_xaxes(title="difference in accuracy (points)", row=1, col=1, zeroline=True)
    figure.update_xaxes(title="mean difference (points)", range=[-edge, edge], row=1, col=2)
    figure.update_yaxes(title="test person", autorange="reversed", showgrid=False, row=1, col=1)
    figure.update_yaxes(title="share of patterns (%)", row=1, col=2)
    height = min(640, max(280, 90 + 20 * len(names)))
    return apply_layout(figure, height, left=100, top=28, showlegend=False, bargap=0.25)
