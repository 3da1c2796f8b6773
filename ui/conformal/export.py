"""Downloads of the page Conformal for papers: data, report, and the main panels as pdf and png."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from core.conformal import analysis, prediction
from core.conformal.analysis import Analysis
from core.conformal.predictor import KIND_NAMES
from core.conformal.validity import EPS_LEVELS, MIN_BIN_POINTS
from ui.conformal.calibration import Point
from ui.conformal.figure_parts import (
    ALARM_COLOUR,
    MAIN_COLOUR,
    SCORE_BINS,
    SECOND_COLOUR,
    THIRD_COLOUR,
    class_colours,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALE_GREY = "#c9ced1"


def analysis_zip(v: Analysis, point: Point, how: str) -> bytes:
    """A zip of the points (csv), figures (json), report and panels; `how` says how to repeat it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("points.csv", analysis.to_csv(v))
        z.writestr("view.json", analysis.to_json(v))
        z.writestr("report.md", analysis.analysis_text(v))
        z.writestr("again.txt", how + "\n")
        for name, data in panel_files(v, point).items():
            z.writestr(name, data)
    return file.getvalue()


def panel_files(v: Analysis, point: Point) -> dict[str, bytes]:
    """Six panels of an analysis drawn with matplotlib: file name (pdf, png) -> content."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.6), layout="constrained")
    (a, b, c), (d, e, f) = figure.subplots(2, 3)
    _draw_p_values(a, v, point)
    _draw_scores(b, v, point)
    _draw_map(c, v, point)
    _draw_validity(d, v)
    e.plot(EPS_LEVELS, v.efficiency.size, color=SECOND_COLOUR)
    e.set(xlabel="ε", ylabel="labels in a set (mean)", title="efficiency")
    r = v.reliability["width"]
    f.plot([0, 1], [0, 1], ":", color="grey")
    for rows, colour, line in (
        (r.count < MIN_BIN_POINTS, PALE_GREY, "o"),
        (r.count >= MIN_BIN_POINTS, MAIN_COLOUR, "o-"),
    ):
        bars = np.stack([r.accuracy - r.low, r.high - r.accuracy])[:, rows]
        bars = np.clip(bars, 0, None)  # rounding
        f.errorbar(r.confidence[rows], r.accuracy[rows], bars, fmt=line, color=colour, lw=1)
    title = f"softmax: ECE {r.ece:.3f}"
    f.set(xlabel="softmax' largest probability", ylabel="share right", title=title)
    kind = "" if v.kind == "inductive" else f"{KIND_NAMES[v.kind]}, "
    smoothing = "smoothed" if v.smoothed else "unsmoothed"
    settings = f"{kind}{v.measure}, {v.groups}, {smoothing}, r = {v.r:g}"
    title = f"{v.problem.name} · {settings}, ε = {v.eps:g}, seed {v.seed}"
    figure.suptitle(title, fontsize=9)
    content = {}
    for kind, canvas in (("pdf", FigureCanvasPdf), ("png", FigureCanvasAgg)):
        file = io.BytesIO()
        canvas(figure).print_figure(file, format=kind, dpi=200)
        content[f"panels.{kind}"] = file.getvalue()
    return content


def _draw_p_values(axes: Axes, v: Analysis, point: Point) -> None:
    """Softmax and p-value of each label."""
    classes, shown = v.problem.classes, point.shown
    at, tint = np.arange(len(shown)), [class_colours(classes)[i] for i in shown]
    axes.barh(at - 0.2, point.softmax[shown], 0.38, color=tint)
    axes.barh(at + 0.2, point.p[shown], 0.38, color="white", edgecolor=tint, hatch="///")
    axes.axvline(v.eps, color=ALARM_COLOUR, ls="--")
    words = "softmax (solid) · p-value (hatched) · ε (dashed)"
    axes.set(yticks=at, yticklabels=[classes[i] for i in shown], xlim=(0, 1))
    axes.set(xlabel=words, title=point.name)
    axes.invert_yaxis()


def _draw_scores(axes: Axes, v: Analysis, point: Point) -> None:
    """Calibration scores as a histogram, with the point's own score under its prediction."""
    k = point.prediction
    own, alpha = point.folds[0].scores[k], float(point.folds[0].alpha[k])
    edges = np.linspace(-1.0 if v.measure == "margin" else 0.0, 1, SCORE_BINS + 1)
    parts = [own[own < alpha], own[own >= alpha]]
    axes.hist(parts, edges, stacked=True, color=[PALE_GREY, MAIN_COLOUR])
    axes.axvline(alpha, color=ALARM_COLOUR)
    title = f"p({v.problem.classes[k]}) = {point.p[k]:.3f}"
    if len(point.folds) > 1:
        title += f" (mean of {len(point.folds)} folds; the first is drawn)"
    axes.set(xlabel="nonconformity α", ylabel="calibration points", title=title)


def _draw_map(axes: Axes, v: Analysis, point: Point) -> None:
    """Credibility against confidence of all test points, the chosen one ringed."""
    right = prediction.forced_prediction(v.p) == v.problem.label_test
    for part, colour, mark, words in (
        (right, MAIN_COLOUR, ".", "right"),
        (~right, THIRD_COLOUR, "x", "wrong"),
    ):
        sure, best = prediction.confidence(v.p[part]), prediction.credibility(v.p[part])
        axes.plot(sure, best, mark, ms=3, alpha=0.4, color=colour, label=words, rasterized=True)
    ring = {"ms": 11, "mfc": "none", "mec": ALARM_COLOUR, "mew": 2}
    axes.plot(point.confidence, point.credibility, "o", **ring)
    axes.set(xlabel="confidence", ylabel="credibility", title=f"{v.m:,} test points")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    axes.legend(loc="center left")


def _draw_validity(axes: Axes, v: Analysis) -> None:
    """Error against ε with its band."""
    band = v.overall.lower, v.overall.upper
    axes.fill_between(EPS_LEVELS, *band, color=PALE_GREY, lw=0, label="95 % band")
    axes.plot(EPS_LEVELS, EPS_LEVELS, ":", color="grey")
    axes.plot(EPS_LEVELS, v.overall.error, color=MAIN_COLOUR, label="error")
    axes.set(xlabel="ε", ylabel="error", title=f"validity: n = {v.n:,}, m = {v.m:,}")
    axes.legend()
