"""The laboratory's main panels as files for papers: one pdf, and the same as png. matplotlib, without a screen."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from core.conformal import analysis, prediction
from core.conformal.analysis import Analysis
from core.conformal.validity import EPS_LEVELS
from ui.conformal.calibration import Point, scores
from ui.conformal.figures import (
    ALARM_COLOUR,
    MAIN_COLOUR,
    SCORE_BINS,
    SECOND_COLOUR,
    THIRD_COLOUR,
    class_colours,
)

PALE_GREY = "#c9ced1"


def analysis_zip(v: Analysis, point: Point, how: str) -> bytes:
    """A zip: the points as csv, the figures as json, the main panels as pdf and png, and how to make them again."""
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
    """File name -> its content."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.6), layout="constrained")
    (a, b, c), (d, e, f) = figure.subplots(2, 3)
    classes, shown, k = v.problem.classes, point.shown, point.prediction
    names, at, tint = (
        [classes[i] for i in shown],
        np.arange(len(shown)),
        [class_colours(classes)[i] for i in shown],
    )
    a.barh(at - 0.2, point.softmax[shown], 0.38, color=tint)
    a.barh(at + 0.2, point.p[shown], 0.38, color="white", edgecolor=tint, hatch="///")
    a.axvline(v.eps, color=ALARM_COLOUR, ls="--")
    a.set(
        yticks=at,
        yticklabels=names,
        xlim=(0, 1),
        xlabel="softmax (solid) · p-value (hatched) · ε (dashed)",
        title=point.name,
    )
    a.invert_yaxis()

    own, low = scores(v, k), -1.0 if v.measure == "margin" else 0.0
    edges = np.linspace(low, 1, SCORE_BINS + 1)
    alpha = float(point.ranking.alpha[k])
    b.hist(
        [own[own < alpha], own[own >= alpha]], edges, stacked=True, color=[PALE_GREY, MAIN_COLOUR]
    )
    b.axvline(alpha, color=ALARM_COLOUR)
    b.set(
        xlabel="nonconformity α",
        ylabel="calibration points",
        title=f"p({classes[k]}) = {point.p[k]:.3f}",
    )

    right = prediction.forced_prediction(v.p) == v.problem.label_test
    for part, colour, mark, words in (
        (right, MAIN_COLOUR, ".", "right"),
        (~right, THIRD_COLOUR, "x", "wrong"),
    ):
        c.plot(
            prediction.confidence(v.p[part]),
            prediction.credibility(v.p[part]),
            mark,
            ms=3,
            alpha=0.4,
            color=colour,
            label=words,
            rasterized=True,
        )
    c.plot(point.confidence, point.credibility, "o", ms=11, mfc="none", mec=ALARM_COLOUR, mew=2)
    c.set(
        xlabel="confidence",
        ylabel="credibility",
        title=f"{v.m:,} test points",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.04),
    )
    c.legend(loc="center left")

    d.fill_between(
        EPS_LEVELS, v.overall.lower, v.overall.upper, color=PALE_GREY, lw=0, label="95 % band"
    )
    d.plot(EPS_LEVELS, EPS_LEVELS, ":", color="grey")
    d.plot(EPS_LEVELS, v.overall.error, color=MAIN_COLOUR, label="error")
    d.set(xlabel="ε", ylabel="error", title=f"validity: n = {v.n:,}, m = {v.m:,}")
    d.legend()
    e.plot(EPS_LEVELS, v.efficiency.size, color=SECOND_COLOUR)
    e.set(xlabel="ε", ylabel="labels in a set (mean)", title="efficiency")
    r = v.reliability["width"]
    f.plot([0, 1], [0, 1], ":", color="grey")
    f.plot(r.confidence, r.accuracy, "o-", color=MAIN_COLOUR)
    f.set(
        xlabel="softmax' largest probability",
        ylabel="share right",
        title=f"softmax: ECE {r.ece:.3f}",
    )
    how = f"{v.measure}, {v.groups}, {'smoothed' if v.smoothed else 'unsmoothed'}, r = {v.r:g}, ε = {v.eps:g}, seed {v.seed}"
    figure.suptitle(f"{v.problem.name} · {how}", fontsize=9)
    made = {}
    for kind, canvas in (("pdf", FigureCanvasPdf), ("png", FigureCanvasAgg)):
        file = io.BytesIO()
        canvas(figure).print_figure(file, format=kind, dpi=200)
        made[f"panels.{kind}"] = file.getvalue()
    return made
