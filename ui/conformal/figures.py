"""The laboratory's figures (Plotly). Small on the wire: numbers are rounded, histograms are counted here, many points go to WebGL.

Where eps is a slider inside a figure, the browser moves it by itself: every position's lines and words travel with the figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.conformal import prediction, validity
from core.conformal.analysis import Analysis
from core.conformal.prediction import Ranking
from core.conformal.validity import ErrorCurve
from ui import theme
from ui.widgets import charts
from ui.widgets.charts import apply_layout, cache_figure

MAIN_COLOUR, SECOND_COLOUR, THIRD_COLOUR, ALARM_COLOUR = (
    theme.LINE_COLOURS[0],
    theme.LINE_COLOURS[2],
    theme.LINE_COLOURS[1],
    theme.LINE_COLOURS[3],
)
GREY, BAND_COLOUR = theme.REFERENCE_COLOUR, "rgba(138,148,153,0.28)"
EPS_POSITIONS = validity.EPS_LEVELS[1:-1]  # positions of a slider
SCORE_BINS = 40  # of the histograms of scores and of confidence
UNDIMMED_BARS = {"marker": {"opacity": 1}}  # of a histogram, whatever is clicked
MEASURE_FORMULAS = {"margin": "largest other softmax − its own", "hinge": "1 − its own softmax"}


def class_colours(classes: Sequence[str]) -> list[str]:
    """An emotion's own colour; for other classes the colours of curves, in turn."""
    return [
        theme.EMOTION_COLOURS.get(c, theme.LINE_COLOURS[i % len(theme.LINE_COLOURS)])
        for i, c in enumerate(classes)
    ]


def _round_float32(a: np.ndarray, digits: int = 4) -> np.ndarray:
    return np.round(np.asarray(a, np.float64), digits).astype(np.float32)


def _eps_slider(steps: list[dict], eps: float, y: float = -0.28) -> list[dict]:
    active = int(np.abs(EPS_POSITIONS - eps).argmin())
    shown = {"prefix": "drag ε = ", "xanchor": "left", "font": {"size": 14, "color": ALARM_COLOUR}}
    look = {
        "bordercolor": GREY,
        "bgcolor": ALARM_COLOUR,
        "activebgcolor": ALARM_COLOUR,
        "ticklen": 0,
        "minorticklen": 0,
    }
    look["font"] = {
        "size": 1,
        "color": "rgba(0,0,0,0)",
    }  # the steps' own names: the axis above says them
    return [
        {
            "active": active,
            "steps": steps,
            "currentvalue": shown,
            "pad": {"t": 0, "b": 4},
            "x": 0,
            "len": 1.0,
            "y": y,
            **look,
        }
    ]


def _vertical_line(x: float, colour: str = ALARM_COLOUR, dash: str = "dash", **axes) -> dict:
    return {
        "type": "line",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "line": {"color": colour, "width": 2, "dash": dash},
        **axes,
    }


# ------------------------------------------------------------------ one point


@cache_figure
def p_value_chain(
    classes: Sequence[str],
    softmax: np.ndarray,
    ranking: Ranking,
    p: np.ndarray,
    shown: np.ndarray,
    measure: str,
) -> go.Figure:
    """From left to right, a row for each label: softmax, how strange the label would be (Eq. 8), its p-value (Eq. 9)."""
    names, tint = [classes[k] for k in shown], [class_colours(classes)[k] for k in shown]
    figure = make_subplots(1, 3, shared_yaxes=True, horizontal_spacing=0.05)
    hatch = {
        "pattern": {
            "shape": "/",
            "fgcolor": tint,
            "bgcolor": "rgba(0,0,0,0)",
            "size": 5,
            "solidity": 0.35,
        }
    }
    outline = {"line": {"color": tint, "width": 1}}
    for column, (values, marker, hover) in enumerate(
        (
            (softmax, {"color": tint}, "%{y}: softmax %{x:.3f}"),
            (ranking.alpha, {"color": tint, "opacity": 0.55}, "%{y}: α = %{x:.3f}"),
            (p, {"color": tint} | hatch, "%{y}: p-value %{x:.4f}"),
        ),
        1,
    ):
        text = [f"{x:.3f}" for x in values[shown]]
        bar = go.Bar(
            y=names,
            x=_round_float32(values[shown]),
            orientation="h",
            marker=marker | outline,
            text=text,
            textposition="outside",
        )
        figure.add_trace(
            bar.update(hovertemplate=hover + "<extra></extra>", cliponaxis=False), row=1, col=column
        )
    low = -1.25 if measure == "margin" else 0
    figure.update_xaxes(range=[0, 1.2], tickvals=[0, 0.5, 1], zeroline=True)
    figure.update_xaxes(
        range=[low, 1.25],
        tickvals=[-1, 0, 1] if low else [0, 0.5, 1],
        title=f"α: {MEASURE_FORMULAS[measure]}",
        row=1,
        col=2,
    )
    figure.update_xaxes(title="softmax (probability)", row=1, col=1).update_xaxes(
        title="p-value (share)", row=1, col=3
    )
    figure.update_yaxes(autorange="reversed", showgrid=False).update_yaxes(
        title="label", row=1, col=1
    )
    for column, words in enumerate(
        (
            "what the classifier says",
            "→ how strange each label would be",
            "→ how many are as strange",
        ),
        1,
    ):
        charts.add_column_title(figure, column, f"<b>{words}</b>")
    return apply_layout(figure, 90 + 30 * len(names), left=80, top=30, bottom=44, showlegend=False)


def p_value_area(
    scores: np.ndarray, alpha: float, name: str, measure: str, colour: str
) -> go.Figure:
    """The calibration scores as a histogram, the label's own score as a line, and shaded what is at or beyond it: the p-value's area."""
    low = -1.0 if measure == "margin" else 0.0
    edges = np.linspace(low, 1.0, SCORE_BINS + 1)
    beyond = scores >= alpha
    counts = [np.histogram(np.clip(scores[part], low, 1), edges)[0] for part in (~beyond, beyond)]
    middle, width = _round_float32((edges[1:] + edges[:-1]) / 2), float(edges[1] - edges[0])
    figure = go.Figure()
    for count, words, marker in (
        (counts[0], "less strange", {"color": BAND_COLOUR, "line": {"color": GREY, "width": 1}}),
        (
            counts[1],
            "at least as strange",
            {"color": colour, "line": {"color": colour, "width": 1}},
        ),
    ):
        hover = f"%{{y}} calibration scores, {words}, α near %{{x:.2f}}<extra></extra>"
        figure.add_bar(
            x=middle,
            y=count,
            width=width,
            name=f"{words}: {count.sum():,}",
            marker=marker,
            hovertemplate=hover,
        )
    figure.add_shape(_vertical_line(alpha, ALARM_COLOUR, "solid", yref="paper"))
    side = "left" if alpha < (low + 1) / 2 else "right"
    figure.add_annotation(
        x=alpha,
        y=1,
        yref="paper",
        text=f"α of “{name}” = {alpha:.3f}",
        showarrow=False,
        xanchor=side,
        yanchor="top",
        xshift=5 if side == "left" else -5,
    )
    figure.update_xaxes(
        title="nonconformity α of a calibration point under its own, true label (stranger →)",
        range=[low - 0.02, 1.02],
    )
    figure.update_yaxes(title="calibration points (count)", rangemode="tozero")
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return apply_layout(
        figure, 270, left=54, top=30, bottom=44, barmode="stack", bargap=0, legend=legend
    )


def label_set(
    classes: Sequence[str], p: np.ndarray, floor: np.ndarray, shown: np.ndarray, eps: float
) -> go.Figure:
    """The p-values with eps as a line that a slider moves: what lies beyond it is lit and is the set."""
    names, tint = [classes[k] for k in shown], [class_colours(classes)[k] for k in shown]

    def at(e: float) -> tuple[list[float], str]:
        held = p[shown] > e
        words = (
            "<b>{" + ", ".join(k for k, h in zip(names, held) if h) + "}</b>"
            if held.any()
            else "<b>{ }</b> – no label fits"
        )
        return np.where(held, 1.0, 0.22).tolist(), f"Set: {words}"

    lit, words = at(eps)
    hatch = {"shape": "/", "fgcolor": tint, "bgcolor": "rgba(0,0,0,0)", "size": 5, "solidity": 0.35}
    marker = {"color": tint, "line": {"color": tint, "width": 1}, "pattern": hatch, "opacity": lit}
    figure = go.Figure(
        go.Bar(
            y=names,
            x=_round_float32(p[shown]),
            orientation="h",
            marker=marker,
            hovertemplate="%{y}: p-value %{x:.4f}<extra></extra>",
        )
    )
    figure.add_scatter(
        y=names, x=_round_float32(floor[shown]), mode="markers", marker={"symbol": "line-ns", "size": 14, "line": {"width": 2, "color": GREY}},
        hovertemplate="the smallest p-value that can be, 1/(n + 1) = %{x:.4f}<extra></extra>",
    )  # fmt: skip
    figure.add_shape(_vertical_line(eps, yref="paper"))
    figure.add_annotation(
        text=words,
        showarrow=False,
        xref="paper",
        yref="paper",
        x=0,
        y=1,
        xanchor="left",
        yanchor="bottom",
        font_size=14,
    )
    steps = []
    for e in EPS_POSITIONS.tolist():
        lit, words = at(e)
        moved = {"shapes[0].x0": e, "shapes[0].x1": e, "annotations[0].text": words}
        steps.append(
            {
                "method": "update",
                "label": f"{e:.2f}",
                "args": [{"marker.opacity": [lit]}, moved, [0]],
            }
        )
    figure.update_xaxes(
        title="p-value (share) · dashed: ε · short marks: the floor 1/(n + 1)", range=[0, 1]
    )
    figure.update_yaxes(autorange="reversed", title="label", showgrid=False)
    inner = 27 * len(names)
    return apply_layout(
        figure,
        inner + 150,
        left=80,
        top=30,
        bottom=120,
        showlegend=False,
        sliders=_eps_slider(steps, eps, -48 / inner),
    )


# ------------------------------------------------------------------ the whole test set


def point_map(v: Analysis, credibility: float, confidence: float) -> go.Figure:
    """Credibility against confidence of every test point, right and wrong ones told apart by shape, and the point that is looked at."""
    right = prediction.forced_prediction(v.p) == v.problem.label_test
    first, sure = (
        _round_float32(prediction.credibility(v.p)),
        _round_float32(prediction.confidence(v.p)),
    )
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.24, 0.76], vertical_spacing=0.03)
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    size = 6 if v.m < 3000 else 5
    for part, words, colour, symbol, hatch in (
        (right, "prediction right", MAIN_COLOUR, "circle", ""),
        (~right, "prediction wrong", THIRD_COLOUR, "x", "x"),
    ):
        rows = np.flatnonzero(part)
        count, middle = (
            np.histogram(sure[rows], edges)[0],
            _round_float32((edges[1:] + edges[:-1]) / 2),
        )
        fill = {"color": colour, "pattern": {"shape": hatch, "solidity": 0.4}, "line": {"width": 0}}
        hover = f"confidence near %{{x:.2f}}: %{{y:,}} points, {words}<extra></extra>"
        bars = {
            "marker": fill,
            "hovertemplate": hover,
            "showlegend": False,
            "selected": UNDIMMED_BARS,
            "unselected": UNDIMMED_BARS,
        }
        figure.add_bar(x=middle, y=count, width=1 / SCORE_BINS, name=words, **bars, row=1, col=1)
        still = {"marker": {"opacity": 0.6}}
        figure.add_scattergl(
            x=sure[rows],
            y=first[rows],
            customdata=rows.astype(np.int32),
            mode="markers",
            name=f"{words}: {len(rows):,}",
            marker={"color": colour, "symbol": symbol, "size": size, "opacity": 0.6},
            selected=still,
            unselected=still,
            hovertemplate=f"point %{{customdata}}: credibility %{{y:.3f}}, confidence %{{x:.3f}}, {words}<extra></extra>",
            row=2,
            col=1,
        )
    ring = {"symbol": "circle-open", "size": 18, "color": ALARM_COLOUR, "line": {"width": 3}}
    hover = "looked at: credibility %{y:.3f}, confidence %{x:.3f}<extra></extra>"
    still = {"selected": {"marker": {"opacity": 1}}, "unselected": {"marker": {"opacity": 1}}}
    figure.add_scattergl(
        x=[confidence],
        y=[credibility],
        mode="markers",
        name="looked at",
        marker=ring,
        hovertemplate=hover,
        **still,
        row=2,
        col=1,
    )
    for x, y, words, where in (
        (0.99, 0.97, "one label fits", "right"),
        (0.99, 0.03, "no label fits", "right"),
        (0.01, 0.97, "several fit", "left"),
    ):
        figure.add_annotation(
            text=f"<i>{words}</i>",
            showarrow=False,
            x=x,
            y=y,
            xanchor=where,
            opacity=0.8,
            row=2,
            col=1,
        )
    figure.update_xaxes(range=[-0.01, 1.01]).update_xaxes(
        title="confidence: 1 − second highest p-value", row=2, col=1
    )
    figure.update_yaxes(title="points", row=1, col=1).update_yaxes(
        title="credibility: highest p-value", range=[-0.02, 1.04], row=2, col=1
    )
    legend = {
        "orientation": "h",
        "x": 0,
        "y": 1.0,
        "yanchor": "bottom",
        "itemsizing": "constant",
        "traceorder": "normal",
    }
    return apply_layout(
        figure,
        460,
        left=54,
        top=30,
        legend=legend,
        clickmode="event+select",
        hovermode="closest",
        barmode="stack",
        bargap=0,
    )


def _add_band(
    figure: go.Figure,
    lower,
    upper,
    row: int = 1,
    column: int = 1,
    words: str = "95 % of valid curves stay in here",
) -> None:
    x = _round_float32(validity.EPS_LEVELS, 2)
    both = {
        "x": np.concatenate([x, x[::-1]]),
        "y": _round_float32(np.concatenate([upper, lower[::-1]])),
    }
    figure.add_scatter(
        **both,
        fill="toself",
        fillcolor=BAND_COLOUR,
        line_width=0,
        name=words,
        hoverinfo="skip",
        mode="lines",
        row=row,
        col=column,
    )


def validity_curves(v: Analysis, sizes: Sequence[Analysis] = ()) -> go.Figure:
    """Error (with its band), set size and shares of sets against eps, with a cursor at v's eps that a slider moves.

    With the views of other calibration `error_by_calibration_size`, smallest first and v's own among them, a second slider goes from one to another. What the
    curves are at the cursor stands above them: `slider_readings`, so that the figure is the same wherever its sliders stand.
    """
    figure = make_subplots(1, 3, horizontal_spacing=0.075)
    _add_band(figure, v.overall.lower, v.overall.upper)
    grid = _round_float32(validity.EPS_LEVELS, 2)

    def line(y, name, colour, column, dash="solid", about="%{y:.3f}"):
        style = {"color": colour, "width": 2, "dash": dash}
        hover = f"ε = %{{x}}: {name} {about}<extra></extra>"
        figure.add_scatter(
            x=grid,
            y=_round_float32(y),
            mode="lines",
            name=name,
            line=style,
            hovertemplate=hover,
            row=1,
            col=column,
        )

    line(validity.EPS_LEVELS, "promised: error = ε", GREY, 1, "dot")
    line(v.overall.error, "error", MAIN_COLOUR, 1)
    line(v.efficiency.size, "labels in a set", SECOND_COLOUR, 2)
    line(v.efficiency.single, "sets with one label", MAIN_COLOUR, 3)
    line(v.efficiency.empty, "empty sets", THIRD_COLOUR, 3, "dash")
    start = float(EPS_POSITIONS[int(np.abs(EPS_POSITIONS - v.eps).argmin())])
    for k in ("", "2", "3"):
        figure.add_shape(_vertical_line(start, xref=f"x{k}", yref=f"y{k} domain"))
    steps = []
    for at in EPS_POSITIONS.tolist():
        moved = {f"shapes[{k}].x{end}": at for k in range(3) for end in (0, 1)}
        steps.append({"method": "relayout", "label": f"{at:.2f}", "args": [moved]})
    sliders = _eps_slider(steps, v.eps, -0.31)
    if sizes:
        moves = []
        for one in sizes:
            c, e = one.overall, one.efficiency
            y = [
                _round_float32(a)
                for a in (
                    np.concatenate([c.upper, c.lower[::-1]]),
                    c.error,
                    e.size,
                    e.single,
                    e.empty,
                )
            ]
            moves.append(
                {"method": "restyle", "label": f"{one.r:g}", "args": [{"y": y}, [0, 2, 3, 4, 5]]}
            )
        sliders += _eps_slider(moves, 0.0, -0.62)
        sliders[1] |= {
            "active": [one.r for one in sizes].index(v.r),
            "bgcolor": GREY,
            "activebgcolor": GREY,
        }
        sliders[1]["currentvalue"] |= {
            "prefix": "drag share that calibrates = ",
            "font": {"size": 14, "color": GREY},
        }
    figure.update_xaxes(title="ε (significance)", range=[0, 1], dtick=0.2)
    figure.update_yaxes(rangemode="tozero").update_yaxes(
        title="error (share of test points)", range=[0, 1.01], row=1, col=1
    )
    figure.update_yaxes(title="labels in a set (mean)", row=1, col=2).update_yaxes(
        title="share of sets", range=[0, 1.01], row=1, col=3
    )
    legend = {
        "orientation": "h",
        "x": 0,
        "y": -0.97,
        "yanchor": "top",
    }  # below both sliders, though the second may come later
    return apply_layout(
        figure,
        390,
        left=VALIDITY_MARGINS[0],
        right=VALIDITY_MARGINS[1],
        top=16,
        bottom=210,
        legend=legend,
        sliders=sliders,
    )


VALIDITY_MARGINS = (50, 8)  # pixels beside those curves, left and right


def slider_readings(views: Sequence[Analysis]) -> list[list[list[float]]]:
    """For each view and each eps of EPS: lower end of the band, error, upper end, where the error is (-1 below the band, 0 inside it, 1
    above), labels in a set, share of sets with one label, of empty sets."""
    found = []
    for v in views:
        c, e = v.overall, v.efficiency
        where = np.where(c.error > c.upper + 1e-12, 1, np.where(c.error < c.lower - 1e-12, -1, 0))
        columns = [c.lower, c.error, c.upper, where, e.size, e.single, e.empty]
        found.append(np.round(np.column_stack(columns)[1:-1], 4).tolist())
    return found


def p_value_histogram(v: Analysis) -> go.Figure:
    """Histogram of the true label's smoothed p-values, and between which marks each bin lies when the promise holds."""
    h = v.histogram
    middle, width = _round_float32((h.edges[1:] + h.edges[:-1]) / 2), float(h.edges[1])
    out = (h.share < h.low - 1e-12) | (h.share > h.high + 1e-12)
    figure = go.Figure()
    hover = "p in %{x:.3f} ± 0.025: %{y:.1%} of points<extra></extra>"
    marker = {
        "color": np.where(out, THIRD_COLOUR, MAIN_COLOUR).tolist(),
        "pattern": {"shape": np.where(out, "x", "").tolist(), "solidity": 0.4},
    }
    figure.add_bar(
        x=middle,
        y=_round_float32(h.share),
        width=width * 0.92,
        marker=marker,
        hovertemplate=hover,
        name="share of test points",
    )
    x = np.repeat(_round_float32(h.edges, 3), 2)[1:-1]
    for bound, words in (
        (h.high, "95 % of valid histograms' bars end between these lines"),
        (h.low, ""),
    ):
        style = {"color": GREY, "width": 1.5, "dash": "dot"}
        figure.add_scatter(
            x=x,
            y=_round_float32(np.repeat(bound, 2)),
            mode="lines",
            line=style,
            name=words,
            hoverinfo="skip",
            showlegend=bool(words),
        )
    figure.update_xaxes(title="p-value of the true label (smoothed)", range=[0, 1])
    figure.update_yaxes(title="share of test points", rangemode="tozero", tickformat=".0%")
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return apply_layout(figure, 270, left=54, top=30, legend=legend, bargap=0)


def curves_by_group(
    curves: Sequence[ErrorCurve], tint: Sequence[str] | None, eps: float, what: str
) -> go.Figure:
    """Error curves of classes or subjects, and beside them each one's error at eps between the ends of its own band."""
    figure = make_subplots(1, 2, horizontal_spacing=0.16, column_widths=[0.5, 0.5])
    dashes = ("solid", "dash", "dot", "dashdot")
    for i, c in enumerate(curves):
        style = {
            "color": tint[i] if tint else GREY,
            "width": 2 if tint else 1,
            "dash": dashes[i % 4] if tint else "solid",
        }
        hover = f"{c.name}: ε = %{{x}}, error %{{y:.3f}}, N = {c.m:,}<extra></extra>"
        figure.add_scatter(
            x=_round_float32(validity.EPS_LEVELS[::2], 2),
            y=_round_float32(c.error[::2], 3),
            mode="lines",
            line=style,
            hovertemplate=hover,
            row=1,
            col=1,
        )
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": GREY, "dash": "dot", "width": 2},
        hoverinfo="skip",
        row=1,
        col=1,
    )
    at = int(np.abs(validity.EPS_LEVELS - eps).argmin())
    names = [c.name for c in curves]
    error, low, high = (
        _round_float32([getattr(c, k)[at] for c in curves]) for k in ("error", "lower", "upper")
    )
    out = (error > high) | (error < low)
    middle = (low + high) / 2
    ends = {"type": "data", "array": high - middle, "color": GREY, "thickness": 7, "width": 0}
    figure.add_scatter(
        x=middle,
        y=names,
        mode="markers",
        marker={"opacity": 0},
        error_x=ends,
        hoverinfo="skip",
        row=1,
        col=2,
    )
    mark = {
        "size": 11,
        "color": tint or MAIN_COLOUR,
        "symbol": np.where(out, "x", "circle").tolist(),
        "line": {"width": 1, "color": GREY},
    }
    counts = np.array([c.m for c in curves])
    hover = "%{y}: error %{x:.3f}, N = %{customdata:,}<extra></extra>"
    figure.add_scatter(
        x=error,
        y=names,
        mode="markers",
        marker=mark,
        customdata=counts,
        hovertemplate=hover,
        row=1,
        col=2,
    )
    figure.add_shape(_vertical_line(eps, xref="x2", yref="y2 domain"))
    figure.update_xaxes(title="ε (significance)", range=[0, 1], row=1, col=1)
    figure.update_xaxes(
        title=f"error at ε = {eps:g} · bar: its band · ✕: outside", rangemode="tozero", row=1, col=2
    )
    figure.update_yaxes(title="error (share)", range=[0, 1.01], row=1, col=1)
    figure.update_yaxes(title=what, autorange="reversed", showgrid=False, row=1, col=2)
    return apply_layout(figure, max(290, 80 + 19 * len(names)), left=54, showlegend=False)


# ------------------------------------------------------------------ when the promise breaks


def error_deviation(v: Analysis) -> go.Figure:
    """By how much the error misses eps: on the test set, and on random splits of the test points themselves."""
    x, n = validity.EPS_LEVELS, v.reference.null
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04)
    _add_band(figure, v.overall.lower - x, v.overall.upper - x)
    _add_band(figure, n.lower - x, n.upper - x, column=2)
    grid, hover = _round_float32(x, 2), "ε = %{x}: error − ε = %{y:+.3f}<extra></extra>"
    for i, one in enumerate(v.reference.error[:10]):
        style = {"color": MAIN_COLOUR, "width": 1}
        more = {
            "opacity": 0.6,
            "legendgroup": "draws",
            "showlegend": False,
            "name": f"split {i + 1}",
        }
        figure.add_scatter(
            x=grid[::2],
            y=_round_float32(one - x)[::2],
            mode="lines",
            line=style,
            hovertemplate=hover,
            row=1,
            col=2,
            **more,
        )
    style = {"color": THIRD_COLOUR, "width": 3}
    figure.add_scatter(
        x=grid,
        y=_round_float32(v.overall.error - x),
        mode="lines",
        line=style,
        hovertemplate=hover,
        name="this",
        row=1,
        col=1,
    )
    for column, words in (
        (1, "Calibration set → test set"),
        (2, "Test points split at random (10 times)"),
    ):
        charts.add_column_title(figure, column, f"<b>{words}</b>")
    figure.update_xaxes(title="ε (significance)", range=[0, 1]).update_yaxes(
        title="error − ε (share)", row=1, col=1
    )
    return apply_layout(figure, 290, left=58, top=30, showlegend=False)


def error_by_calibration_size(v: Analysis) -> go.Figure:
    """Error and set size at eps over random calibration sets of growing size."""
    s = v.sizes
    figure = make_subplots(1, 2, horizontal_spacing=0.19)
    for column, (values, colour, words) in enumerate(
        ((s.error, MAIN_COLOUR, "error"), (s.size, SECOND_COLOUR, "labels in a set")), 1
    ):
        x, y = np.repeat(s.n, values.shape[1]), _round_float32(values.ravel())
        hover = f"n = %{{x:,}}: {words} %{{y:.3f}}<extra></extra>"
        marker = {"color": colour, "size": 6, "opacity": 0.45}
        figure.add_scatter(
            x=x, y=y, mode="markers", marker=marker, hovertemplate=hover, row=1, col=column
        )
        style = {"color": colour, "width": 2}
        figure.add_scatter(
            x=s.n,
            y=_round_float32(values.mean(axis=1)),
            mode="lines",
            line=style,
            hoverinfo="skip",
            row=1,
            col=column,
        )
    figure.add_shape(
        {
            "type": "line",
            "x0": 0,
            "x1": 1,
            "xref": "x domain",
            "y0": v.eps,
            "y1": v.eps,
            "line": {"color": ALARM_COLOUR, "dash": "dash"},
        }
    )
    figure.update_xaxes(
        title="calibration points n (log)",
        type="log",
        tickvals=s.n[::3],
        ticktext=[f"{n:,}" for n in s.n[::3]],
        tickangle=0,
    )
    figure.update_yaxes(title=f"error at ε = {v.eps:g}", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="labels in a set (mean)", rangemode="tozero", row=1, col=2)
    return apply_layout(figure, 270, left=54, showlegend=False)


def reliability_diagram(v: Analysis) -> go.Figure:
    """How often the softmax' largest probability is right, by bins, beside how often it says it is."""
    r = v.reliability["width"]
    held = r.count > 0
    figure = go.Figure()
    hover = "says %{x:.2f}, is right %{y:.2f} of the time, N = %{customdata:,}<extra></extra>"
    size = 8 + 26 * np.sqrt(r.count[held] / r.count.max())
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": GREY, "dash": "dot", "width": 2},
        hoverinfo="skip",
        name="calibrated",
    )
    more = {
        "customdata": r.count[held],
        "hovertemplate": hover,
        "marker": {"color": MAIN_COLOUR, "size": _round_float32(size, 1), "opacity": 0.8},
    }
    figure.add_scatter(
        x=_round_float32(r.confidence[held]),
        y=_round_float32(r.accuracy[held]),
        mode="lines+markers",
        name="bins (size: points)",
        **more,
    )
    figure.update_xaxes(title="largest softmax probability (mean)", range=[0, 1.02])
    figure.update_yaxes(title="how often right (share)", range=[0, 1.05])
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return apply_layout(figure, 290, left=54, top=30, legend=legend)


# ------------------------------------------------------------------ what the generator makes of it
