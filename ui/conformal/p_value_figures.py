"""Figures of p-values: one point's chain, area and prediction set, and the map of all points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.conformal import prediction
from core.conformal.analysis import Analysis
from core.conformal.prediction import Measure, Ranking
from ui.conformal import figure_parts as parts
from ui.conformal.figure_parts import ALARM_COLOUR, GREY, round_float32
from ui.widgets import charts
from ui.widgets.charts import apply_layout, cache_figure

MEASURE_FORMULAS = {"margin": "largest other softmax − its own", "hinge": "1 − its own softmax"}
UNDIMMED_BARS = {"marker": {"opacity": 1}}  # a click in the map does not fade the histogram
MIN_LARGE_MAP_POINTS = 3000  # from this many points on, the map's markers are smaller
MAX_MAP_POINTS = 20_000  # right, and wrong, points that the map draws


@cache_figure
def p_value_chain(
    classes: Sequence[str],
    softmax: np.ndarray,
    ranking: Ranking,
    p: np.ndarray,
    shown: np.ndarray,
    measure: Measure,
) -> go.Figure:
    """A row for each label, from left to right: softmax, nonconformity (Eq. 8), p-value (Eq. 9).

    `softmax` and `p` are (K,); `shown` holds the labels to draw.
    """
    names, tint = [classes[k] for k in shown], [parts.class_colours(classes)[k] for k in shown]
    figure = make_subplots(1, 3, shared_yaxes=True, horizontal_spacing=0.05)
    solid, hatched = charts.solid_marker(tint), charts.hatched_marker(tint)
    faded = solid | {"opacity": 0.55}
    # one column for each quantity
    columns = (
        ("what the classifier says", softmax, solid, "softmax %{x:.3f}"),
        ("→ how strange each label would be", ranking.alpha, faded, "α = %{x:.3f}"),
        ("→ how many are as strange", p, hatched, "p-value %{x:.4f}"),
    )
    for column, (title, values, marker, hover) in enumerate(columns, 1):
        text = [f"{x:.3f}" for x in values[shown]]
        bar = go.Bar(y=names, x=round_float32(values[shown]), orientation="h", marker=marker)
        bar.update(text=text, textposition="outside", cliponaxis=False)
        bar.hovertemplate = f"%{{y}}: {hover}<extra></extra>"
        figure.add_trace(bar, row=1, col=column)
        charts.add_column_title(figure, column, f"<b>{title}</b>")
    # axes: softmax and p-value run from 0 to 1, the margin from -1 to 1
    low, ticks = (-1.25, [-1, 0, 1]) if measure == "margin" else (0, [0, 0.5, 1])
    alpha_title = f"α: {MEASURE_FORMULAS[measure]}"
    figure.update_xaxes(range=[0, 1.2], tickvals=[0, 0.5, 1], zeroline=True)
    figure.update_xaxes(title="softmax (probability)", row=1, col=1)
    figure.update_xaxes(title=alpha_title, range=[low, 1.25], tickvals=ticks, row=1, col=2)
    figure.update_xaxes(title="p-value (share)", row=1, col=3)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(title="label", row=1, col=1)
    return apply_layout(figure, 78 + 22 * len(names), left=80, top=30, bottom=44, showlegend=False)


def p_value_area(
    scores: np.ndarray, alpha: float, name: str, measure: Measure, colour: str
) -> go.Figure:
    """Histogram of the calibration scores; the shaded part, at or beyond `alpha`, is the p-value.

    `scores` is (n,); `alpha` is the point's own score under the label `name`.
    """
    low = -1.0 if measure == "margin" else 0.0
    edges = np.linspace(low, 1.0, parts.SCORE_BINS + 1)
    beyond = scores >= alpha
    figure = go.Figure()
    for part, words, fill, line in (
        (~beyond, "less strange", parts.BAND_COLOUR, GREY),
        (beyond, "at least as strange", colour, colour),
    ):
        count = np.histogram(np.clip(scores[part], low, 1), edges)[0]
        marker = {"color": fill, "line": {"color": line, "width": 1}}
        hover = f"%{{y}} calibration scores, {words}, α near %{{x:.2f}}<extra></extra>"
        bars = {"x": parts.bin_centres(edges), "y": count, "width": float(edges[1] - edges[0])}
        legend = f"{words}: {count.sum():,}"
        figure.add_bar(**bars, name=legend, marker=marker, hovertemplate=hover)
    figure.add_shape(parts.vertical_line(alpha, "solid", yref="paper"))
    left = alpha < (low + 1) / 2
    at = {"x": alpha, "y": 1, "yref": "paper", "yanchor": "top", "xshift": 5 if left else -5}
    words, side = f"α of “{name}” = {alpha:.3f}", "left" if left else "right"
    figure.add_annotation(text=words, showarrow=False, xanchor=side, **at)
    title = "nonconformity α of a calibration point under its own, true label (stranger →)"
    figure.update_xaxes(title=title, range=[low - 0.02, 1.02])
    figure.update_yaxes(title="calibration points (count)", rangemode="tozero")
    layout = {"barmode": "stack", "bargap": 0, "legend": charts.TOP_LEFT_LEGEND}
    return apply_layout(figure, 250, left=54, top=30, bottom=44, **layout)


def label_set(
    classes: Sequence[str], p: np.ndarray, floor: np.ndarray, shown: np.ndarray, eps: float
) -> go.Figure:
    """p-values with a movable line at ε; the bars beyond it are bright and form the set.

    `p` and `floor`, the smallest possible p-values, are (K,); `shown` holds the labels to draw.
    """
    names, tint = [classes[k] for k in shown], [parts.class_colours(classes)[k] for k in shown]

    def set_at(e: float) -> tuple[list[float], str]:
        """The bars' opacities and the set in words, at significance `e`."""
        is_member = p[shown] > e
        members = ", ".join(k for k, held in zip(names, is_member) if held)
        words = f"<b>{{{members}}}</b>" if is_member.any() else "<b>{ }</b> – no label fits"
        return np.where(is_member, 1.0, 0.22).tolist(), f"Set: {words}"

    # bars, and a short mark at each label's floor
    opacity, words = set_at(eps)
    marker, hover = charts.hatched_marker(tint), "%{y}: p-value %{x:.4f}<extra></extra>"
    bars = {"y": names, "x": round_float32(p[shown]), "marker": marker | {"opacity": opacity}}
    figure = go.Figure(go.Bar(orientation="h", hovertemplate=hover, **bars))
    marker = {"symbol": "line-ns", "size": 14, "line": {"width": 2, "color": GREY}}
    hover = "the smallest possible p-value, 1/(n + 1) = %{x:.4f}<extra></extra>"
    marks = {"y": names, "x": round_float32(floor[shown]), "marker": marker}
    figure.add_scatter(mode="markers", hovertemplate=hover, **marks)
    # the line at ε, the set in words, and a slider that changes both
    figure.add_shape(parts.vertical_line(eps, yref="paper"))
    corner = {"xref": "paper", "yref": "paper", "x": 0, "y": 1}
    corner |= {"xanchor": "left", "yanchor": "bottom", "font_size": 14}
    figure.add_annotation(text=words, showarrow=False, **corner)
    steps = []
    for e in parts.EPS_POSITIONS.tolist():
        opacity, words = set_at(e)
        moved = {"shapes[0].x0": e, "shapes[0].x1": e, "annotations[0].text": words}
        change = [{"marker.opacity": [opacity]}, moved, [0]]
        steps.append({"method": "update", "label": f"{e:.2f}", "args": change})
    # axes
    title = "p-value (share) · dashed: ε · short marks: the floor 1/(n + 1)"
    figure.update_xaxes(title=title, range=[0, 1])
    figure.update_yaxes(autorange="reversed", title="label", showgrid=False)
    inner = 27 * len(names)  # pixels
    layout = {"showlegend": False, "sliders": [parts.eps_slider(steps, eps, -48 / inner)]}
    return apply_layout(figure, inner + 150, left=80, top=30, bottom=120, **layout)


def strange_points(names: Sequence[str], best: dict[str, np.ndarray], eps: float) -> go.Figure:
    """Credibility of some pictures by several measures: measure -> (pictures,), and a line at ε."""
    figure = go.Figure()
    colours = (parts.MAIN_COLOUR, GREY, parts.THIRD_COLOUR, parts.SECOND_COLOUR)
    for i, (measure, values) in enumerate(best.items()):
        bar = {"x": list(names), "y": round_float32(values), "name": measure}
        bar |= {"marker": {"color": colours[i % 4]}, "text": [f"{x:.2f}" for x in values]}
        hover = f"%{{x}}, {measure}: credibility %{{y:.3f}}<extra></extra>"
        figure.add_bar(**bar, textposition="outside", cliponaxis=False, hovertemplate=hover)
    line = {"color": ALARM_COLOUR, "dash": "dash", "width": 2}
    figure.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=eps, y1=eps, line=line)
    figure.update_xaxes(title=f"a picture that is no face · dashed: ε = {eps:g}")
    figure.update_yaxes(title="credibility: highest p-value", range=[0, 1.12])
    above = charts.TOP_LEFT_LEGEND | {"y": 1.02, "yanchor": "bottom", "orientation": "h"}
    return apply_layout(figure, 280, left=54, top=40, barmode="group", legend=above)


def point_map(v: Analysis, credibility: float, confidence: float, low: float = 0.0) -> go.Figure:
    """Credibility against confidence of every test point, with a ring around the chosen one.

    The marker's shape tells right predictions from wrong ones; a histogram of confidence is on top.
    `low` is the lowest credibility that is possible; a line marks it.
    """
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.24, 0.76], vertical_spacing=0.03)
    is_right = prediction.forced_prediction(v.p) == v.problem.label_test
    right, wrong = (np.flatnonzero(part) for part in (is_right, ~is_right))
    # right ones last: with margin and pooled scores all points share one line, and would be hidden
    _add_map_points(figure, v, wrong, "prediction wrong", parts.THIRD_COLOUR, "x")
    _add_map_points(figure, v, right, "prediction right", parts.MAIN_COLOUR, "circle")
    ring = {"symbol": "circle-open", "size": 18, "color": ALARM_COLOUR, "line": {"width": 3}}
    hover = "chosen: credibility %{y:.3f}, confidence %{x:.3f}<extra></extra>"
    still = {"selected": UNDIMMED_BARS, "unselected": UNDIMMED_BARS, "row": 2, "col": 1}
    chosen = {"x": [confidence], "y": [credibility], "name": "chosen point"}
    figure.add_scattergl(mode="markers", marker=ring, hovertemplate=hover, **chosen, **still)
    corners = [(0.99, 0.97, "one label fits", "right"), (0.01, 0.97, "several fit", "left")]
    if low > v.eps:
        corners.append((0.01, low - 0.06, f"lowest possible credibility: {low:.2f}", "left"))
        line = {"color": GREY, "dash": "dot", "width": 1}
        figure.add_hline(y=low, line=line, row=2, col=1)
    else:
        corners.append((0.99, 0.03, "no label fits", "right"))
    for x, y, words, side in corners:
        at = {"x": x, "y": y, "xanchor": side, "row": 2, "col": 1}
        figure.add_annotation(text=f"<i>{words}</i>", showarrow=False, opacity=0.8, **at)
    figure.update_xaxes(range=[-0.01, 1.01])
    figure.update_xaxes(title="confidence: 1 − second highest p-value", row=2, col=1)
    figure.update_yaxes(title="points", row=1, col=1)
    title = "credibility: highest p-value"
    figure.update_yaxes(title=title, range=[-0.02, 1.04], row=2, col=1)
    legend = charts.TOP_LEFT_LEGEND | {"itemsizing": "constant", "traceorder": "normal"}
    layout = {"legend": legend, "clickmode": "event+select", "hovermode": "closest"}
    return apply_layout(figure, 360, left=54, top=30, barmode="stack", bargap=0, **layout)


def _add_map_points(
    figure: go.Figure, v: Analysis, rows: np.ndarray, words: str, colour: str, symbol: str
) -> None:
    """Add the test points `rows` to the map, and their confidence to its histogram."""
    sure = round_float32(prediction.confidence(v.p))[rows]
    best = round_float32(prediction.credibility(v.p))[rows]
    edges = np.linspace(0, 1, parts.SCORE_BINS + 1)
    pattern = {"shape": "x" if symbol == "x" else "", "solidity": 0.4}
    hover = f"confidence near %{{x:.2f}}: %{{y:,}} points, {words}<extra></extra>"
    bars = {"x": parts.bin_centres(edges), "y": np.histogram(sure, edges)[0], "name": words}
    bars |= {"marker": {"color": colour, "pattern": pattern, "line": {"width": 0}}}
    bars |= {"selected": UNDIMMED_BARS, "unselected": UNDIMMED_BARS, "row": 1, "col": 1}
    width = 1 / parts.SCORE_BINS
    figure.add_bar(width=width, hovertemplate=hover, showlegend=False, **bars)

    size = 6 if v.m < MIN_LARGE_MAP_POINTS else 5
    marker = {"color": colour, "symbol": symbol, "size": size, "opacity": 0.6}
    hover = "point %{customdata}: credibility %{y:.3f}, confidence %{x:.3f}"
    kept = np.arange(len(rows))
    if len(rows) > MAX_MAP_POINTS:  # a browser draws and receives no more of them in time
        kept = np.sort(np.random.default_rng(0).choice(kept, MAX_MAP_POINTS, replace=False))
    points = {"x": sure[kept], "y": best[kept], "marker": marker}
    points["customdata"] = rows[kept].astype(np.int32)
    thinned = f", {len(kept):,} drawn" if len(kept) < len(rows) else ""
    points["name"] = f"{words}: {len(rows):,}{thinned}"
    points["hovertemplate"] = f"{hover}, {words}<extra></extra>"
    still = {"marker": {"opacity": 0.6}}
    points |= {"selected": still, "unselected": still, "row": 2, "col": 1}
    figure.add_scattergl(mode="markers", **points)
