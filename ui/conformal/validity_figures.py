"""Figures of validity: error and set size against ε, uniformity, groups, limits and the softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.conformal.analysis import Analysis
from core.conformal.validity import EPS_LEVELS, MIN_BIN_POINTS, ErrorCurve
from core.evaluation.reporting.calibration_share import LEVELS, Choice
from ui.conformal import figure_parts as parts
from ui.conformal.figure_parts import (
    ALARM_COLOUR,
    GREY,
    MAIN_COLOUR,
    SECOND_COLOUR,
    THIRD_COLOUR,
    add_line,
    round_float32,
)
from ui.widgets import charts
from ui.widgets.charts import apply_layout

KIND_COLOURS = {
    **{"inductive": MAIN_COLOUR, "head": SECOND_COLOUR},
    **{"cross": THIRD_COLOUR, "full": ALARM_COLOUR},
}
VALIDITY_MARGINS = (50, 8)  # pixels at the left and right of `validity_curves`
MAX_DRAWN_SPLITS = 10  # random splits that `error_deviation` draws
BAND_TOLERANCE = 1e-12  # rounding error allowed before a curve counts as outside its band


def _band_outline(curve_lower: np.ndarray, curve_upper: np.ndarray) -> np.ndarray:
    return np.concatenate([curve_upper, curve_lower[::-1]])


def _add_band(figure: go.Figure, lower: np.ndarray, upper: np.ndarray, column: int = 1) -> None:
    """Add the 95 % band between two curves over ε."""
    x = round_float32(EPS_LEVELS, 2)
    band = {"x": np.concatenate([x, x[::-1]]), "y": round_float32(_band_outline(lower, upper))}
    band |= {"fill": "toself", "fillcolor": parts.BAND_COLOUR, "line_width": 0, "mode": "lines"}
    name = "95 % of valid curves stay in here"
    figure.add_scatter(**band, name=name, hoverinfo="skip", row=1, col=column)


def validity_curves(v: Analysis, sizes: Sequence[Analysis] = ()) -> go.Figure:
    """Error with its band, set size and shares of sets against ε; a slider moves a cursor over ε.

    `sizes` holds the analyses at other calibration sizes, smallest first and `v`'s own among them;
    a second slider then switches between them. The values at the cursor are not in the figure:
    `slider_readings` has them, so the figure stays the same wherever its sliders are.
    """
    figure = make_subplots(1, 3, horizontal_spacing=0.075)
    _add_band(figure, v.overall.lower, v.overall.upper)
    grid = round_float32(EPS_LEVELS, 2)
    for y, name, colour, column, dash in (
        (EPS_LEVELS, "promised: error = ε", GREY, 1, "dot"),
        (v.overall.error, "error", MAIN_COLOUR, 1, "solid"),
        (v.efficiency.size, "labels in a set", SECOND_COLOUR, 2, "solid"),
        (v.efficiency.single, "sets with one label", MAIN_COLOUR, 3, "solid"),
        (v.efficiency.empty, "empty sets", THIRD_COLOUR, 3, "dash"),
    ):
        hover = f"ε = %{{x}}: {name} %{{y:.3f}}<extra></extra>"
        line = {"name": name, "dash": dash, "hovertemplate": hover}
        add_line(figure, grid, y, colour, **line, row=1, col=column)
    # the cursor, one line in each plot, and its slider
    start = float(parts.EPS_POSITIONS[parts.nearest_position(v.eps)])
    for k in ("", "2", "3"):
        figure.add_shape(parts.vertical_line(start, xref=f"x{k}", yref=f"y{k} domain"))
    steps = []
    for eps in parts.EPS_POSITIONS.tolist():
        moved = {f"shapes[{k}].x{end}": eps for k in range(3) for end in (0, 1)}
        steps.append({"method": "relayout", "label": f"{eps:.2f}", "args": [moved]})
    sliders = [parts.eps_slider(steps, v.eps, -0.31)]
    if sizes:
        sliders.append(_size_slider(sizes, v.r))
    # axes
    figure.update_xaxes(title="ε (significance)", range=[0, 1], dtick=0.2)
    share = {"range": [0, 1.01], "row": 1}
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="error (share of test points)", col=1, **share)
    figure.update_yaxes(title="labels in a set (mean)", row=1, col=2)
    figure.update_yaxes(title="share of sets", col=3, **share)
    below = {"y": -0.97, "yanchor": "top"}  # below both sliders: the second may come later
    layout = {"legend": charts.TOP_LEFT_LEGEND | below, "sliders": sliders}
    left, right = VALIDITY_MARGINS
    return apply_layout(figure, 390, left=left, right=right, top=16, bottom=210, **layout)


def _size_slider(sizes: Sequence[Analysis], r: float) -> dict:
    """The slider that replaces the curves by those of another calibration size."""
    steps = []
    for v in sizes:
        curve, e = v.overall, v.efficiency
        lines = (_band_outline(curve.lower, curve.upper), curve.error, e.size, e.single, e.empty)
        change = [{"y": [round_float32(y) for y in lines]}, [0, 2, 3, 4, 5]]
        steps.append({"method": "restyle", "label": f"{v.r:g}", "args": change})
    active = [v.r for v in sizes].index(r)
    return parts.slider("drag share that calibrates = ", GREY, steps, active, -0.62)


def slider_readings(views: Sequence[Analysis]) -> list[list[list[float]]]:
    """The values of the curves in `views`, for each analysis and each position of the ε slider.

    Lower end of the band, error, upper end, place of the error (-1 below the band, 0 inside, 1
    above), mean labels in a set, share of sets with one label, share of empty sets.
    """
    readings = []
    for v in views:
        c, e = v.overall, v.efficiency
        is_below = c.error < c.lower - BAND_TOLERANCE
        place = np.where(c.error > c.upper + BAND_TOLERANCE, 1, np.where(is_below, -1, 0))
        columns = [c.lower, c.error, c.upper, place, e.size, e.single, e.empty]
        readings.append(np.round(np.column_stack(columns)[1:-1], 4).tolist())
    return readings


def p_value_histogram(v: Analysis) -> go.Figure:
    """Histogram of the true labels' smoothed p-values, with each bin's bounds if all is valid."""
    h = v.histogram
    is_outside = (h.share < h.low - BAND_TOLERANCE) | (h.share > h.high + BAND_TOLERANCE)
    pattern = {"shape": np.where(is_outside, "x", "").tolist(), "solidity": 0.4}
    colours = np.where(is_outside, THIRD_COLOUR, MAIN_COLOUR).tolist()
    figure = go.Figure()
    bars = {"x": parts.bin_centres(h.edges), "y": round_float32(h.share)}
    bars |= {"width": float(h.edges[1]) * 0.92, "marker": {"color": colours, "pattern": pattern}}
    hover = "p in %{x:.3f} ± 0.025: %{y:.1%} of points<extra></extra>"
    figure.add_bar(**bars, hovertemplate=hover, name="share of test points")
    x = np.repeat(round_float32(h.edges, 3), 2)[1:-1]
    bounds = "95 % of valid histograms' bars end between these lines"
    for bound, words in ((h.high, bounds), (h.low, "")):
        line = {"dash": "dot", "name": words, "showlegend": bool(words)}
        add_line(figure, x, np.repeat(bound, 2), GREY, 1.5, hoverinfo="skip", **line)
    figure.update_xaxes(title="p-value of the true label (smoothed)", range=[0, 1])
    figure.update_yaxes(title="share of test points", rangemode="tozero", tickformat=".0%")
    return apply_layout(figure, 270, left=54, top=30, legend=charts.TOP_LEFT_LEGEND, bargap=0)


def curves_by_group(
    curves: Sequence[ErrorCurve], tint: Sequence[str] | None, eps: float, what: str
) -> go.Figure:
    """Error curves of classes or subjects, and each group's error at ε beside its own band.

    `tint` holds a colour for each curve, None draws all of them grey; `what` titles the groups.
    """
    figure = make_subplots(1, 2, horizontal_spacing=0.16, column_widths=[0.5, 0.5])
    # left: the curves and the promised error
    dashes = ("solid", "dash", "dot", "dashdot")
    for i, c in enumerate(curves):
        look = (tint[i], 2, dashes[i % 4]) if tint else (GREY, 1, "solid")
        hover = f"{c.name}: ε = %{{x}}, error %{{y:.3f}}, N = {c.m:,}<extra></extra>"
        x, y = round_float32(EPS_LEVELS[::2], 2), round_float32(c.error[::2], 3)
        line = {"dash": look[2], "hovertemplate": hover, "row": 1, "col": 1}
        add_line(figure, x, y, *look[:2], **line)
    figure.add_scatter(**parts.DIAGONAL, row=1, col=1)
    # right: each group's band at ε as a thick error bar, and its error as a marker
    at = int(np.abs(EPS_LEVELS - eps).argmin())
    names = [c.name for c in curves]
    error, low, high = (
        round_float32([getattr(c, k)[at] for c in curves]) for k in ("error", "lower", "upper")
    )
    middle = (low + high) / 2
    band = {"type": "data", "array": high - middle, "color": GREY, "thickness": 7, "width": 0}
    hidden = {"marker": {"opacity": 0}, "hoverinfo": "skip", "row": 1, "col": 2}
    figure.add_scatter(x=middle, y=names, mode="markers", error_x=band, **hidden)
    symbols = np.where((error > high) | (error < low), "x", "circle").tolist()
    marker = {"size": 11, "color": tint or MAIN_COLOUR, "symbol": symbols}
    marker["line"] = {"width": 1, "color": GREY}
    points = {"x": error, "y": names, "customdata": np.array([c.m for c in curves])}
    hover = "%{y}: error %{x:.3f}, N = %{customdata:,}<extra></extra>"
    points |= {"marker": marker, "hovertemplate": hover}
    figure.add_scatter(mode="markers", **points, row=1, col=2)
    figure.add_shape(parts.vertical_line(eps, xref="x2", yref="y2 domain"))
    # axes
    title = f"error at ε = {eps:g} · bar: its band · ✕: outside"
    figure.update_xaxes(title="ε (significance)", range=[0, 1], row=1, col=1)
    figure.update_xaxes(title=title, rangemode="tozero", row=1, col=2)
    figure.update_yaxes(title="error (share)", range=[0, 1.01], row=1, col=1)
    figure.update_yaxes(title=what, autorange="reversed", showgrid=False, row=1, col=2)
    return apply_layout(figure, max(290, 80 + 19 * len(names)), left=54, showlegend=False)


def error_deviation(v: Analysis) -> go.Figure:
    """Error minus ε: on the test set, and on random splits of the test points themselves."""
    x, null = EPS_LEVELS, v.reference.null
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04)
    _add_band(figure, v.overall.lower - x, v.overall.upper - x)
    _add_band(figure, null.lower - x, null.upper - x, column=2)
    grid, hover = round_float32(x, 2), "ε = %{x}: error − ε = %{y:+.3f}<extra></extra>"
    for i, error in enumerate(v.reference.error[:MAX_DRAWN_SPLITS]):
        line = {"opacity": 0.6, "legendgroup": "draws", "showlegend": False, "row": 1, "col": 2}
        line |= {"name": f"split {i + 1}", "hovertemplate": hover}
        add_line(figure, grid[::2], (error - x)[::2], MAIN_COLOUR, 1, **line)
    line = {"name": "this", "hovertemplate": hover, "row": 1, "col": 1}
    add_line(figure, grid, v.overall.error - x, THIRD_COLOUR, 3, **line)
    drawn, splits = (len(e) for e in (v.reference.error[:MAX_DRAWN_SPLITS], v.reference.error))
    right = f"Test points split at random ({drawn} of {splits} splits)"
    for column, words in enumerate(("Calibration set → test set", right), 1):
        charts.add_column_title(figure, column, f"<b>{words}</b>")
    figure.update_xaxes(title="ε (significance)", range=[0, 1])
    figure.update_yaxes(title="error − ε (share)", row=1, col=1)
    return apply_layout(figure, 290, left=58, top=30, showlegend=False)


def error_by_calibration_size(v: Analysis) -> go.Figure:
    """Error and set size at ε over random calibration sets of growing size."""
    s = v.sizes
    figure = make_subplots(1, 2, horizontal_spacing=0.19)
    for column, (values, colour, words) in enumerate(
        ((s.error, MAIN_COLOUR, "error"), (s.size, SECOND_COLOUR, "labels in a set")), 1
    ):
        hover = f"n = %{{x:,}}: {words} %{{y:.3f}}<extra></extra>"
        marker = {"color": colour, "size": 6, "opacity": 0.45}
        dots = {"x": np.repeat(s.n, values.shape[1]), "y": round_float32(values.ravel())}
        dots |= {"marker": marker, "hovertemplate": hover, "row": 1, "col": column}
        figure.add_scatter(mode="markers", **dots)
        mean = values.mean(axis=1)
        add_line(figure, s.n, mean, colour, hoverinfo="skip", row=1, col=column)
    line = {"color": ALARM_COLOUR, "dash": "dash"}
    figure.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=v.eps, y1=v.eps, line=line)
    ticks = {"tickvals": s.n[::3], "ticktext": [f"{n:,}" for n in s.n[::3]], "tickangle": 0}
    figure.update_xaxes(title="calibration points n (log)", type="log", **ticks)
    figure.update_yaxes(title=f"error at ε = {v.eps:g}", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="labels in a set (mean)", rangemode="tozero", row=1, col=2)
    return apply_layout(figure, 270, left=54, showlegend=False)


def predictor_comparison(found: Sequence[Choice], eps: float) -> go.Figure:
    """Accuracy and set size of inductive(r), cross-conformal and full CP: mean and sd over draws.

    The set size is that at the level of LEVELS nearest to ε.
    """
    at = int(np.abs(np.array(LEVELS) - eps).argmin())
    names = [c.name for c in found]
    colours = [KIND_COLOURS[c.kind] for c in found]
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04)
    values = [c.accuracy for c in found], [c.size[:, at] for c in found]
    for column, (of, words) in enumerate(zip(values, ("accuracy", "labels in a set")), 1):
        mean, sd = ([f(x) for x in of] for f in (np.mean, np.std))
        bar = {"type": "data", "array": round_float32(sd), "thickness": 1.5}
        hover = f"%{{y}}: {words} %{{x:.3f}}<extra></extra>"
        dots = {"x": round_float32(mean), "y": names, "error_x": bar, "hovertemplate": hover}
        dots["marker"] = {"color": colours, "size": 11}
        figure.add_scatter(mode="markers", **dots, row=1, col=column)
    figure.update_xaxes(title="accuracy (share of judged points)", row=1, col=1)
    title = f"labels in a set at ε = {LEVELS[at]:g} (mean)"
    figure.update_xaxes(title=title, rangemode="tozero", row=1, col=2)
    figure.update_yaxes(autorange="reversed", title="predictor", row=1, col=1)
    return apply_layout(figure, 330, left=190, showlegend=False)


def reliability_diagram(v: Analysis) -> go.Figure:
    """Accuracy against the largest softmax probability, in bins of equal width, with intervals.

    Bins of fewer than MIN_BIN_POINTS points are grey and are joined by no line.
    """
    r = v.reliability["width"]
    figure = go.Figure()
    figure.add_scatter(**parts.DIAGONAL, name="calibrated")
    enough = r.count >= MIN_BIN_POINTS
    few = (r.count > 0) & ~enough
    hover = "says %{x:.2f}, is right %{y:.2f} of the time, N = %{customdata:,}<extra></extra>"
    for rows, colour, mode, name in (
        (few, GREY, "markers", f"bins of fewer than {MIN_BIN_POINTS} points"),
        (enough, MAIN_COLOUR, "lines+markers", "bins (size: points; bars: 95 % interval)"),
    ):
        accuracy = r.accuracy[rows]
        bins = {"x": round_float32(r.confidence[rows]), "y": round_float32(accuracy)}
        bins |= {"customdata": r.count[rows], "name": name}
        size = round_float32(8 + 26 * np.sqrt(r.count[rows] / r.count.max()), 1)
        bins |= {"marker": {"color": colour, "size": size, "opacity": 0.8}}
        up, down = round_float32(r.high[rows] - accuracy), round_float32(accuracy - r.low[rows])
        bar = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
        bar |= {"color": colour, "thickness": 1.5}
        figure.add_scatter(mode=mode, hovertemplate=hover, error_y=bar, **bins)
    figure.update_xaxes(title="largest softmax probability (mean)", range=[0, 1.02])
    figure.update_yaxes(title="how often right (share)", range=[0, 1.05])
    return apply_layout(figure, 290, left=54, top=30, legend=charts.TOP_LEFT_LEGEND)
