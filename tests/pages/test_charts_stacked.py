"""In a narrow window the plots of a chart stand below each other, as large as they were."""

from __future__ import annotations

import numpy as np
import pytest

from core.conformal import analysis, calibration
from ui.conformal import p_value_figures, validity_figures
from ui.session import viewport
from ui.widgets import charts

CLASSES = ("happy", "sad", "angry")


def view() -> analysis.Analysis:
    rng = np.random.default_rng(0)
    o, label = rng.dirichlet(np.ones(3), 60), rng.integers(0, 3, 60)
    return analysis.analyse_outputs(
        calibration.CalibrationData("x", CLASSES, o[:30], label[:30], o[30:], label[30:])
    )


def confusions(n: int):
    return charts.confusion_matrices({f"row {i}": np.eye(3) for i in range(n)}, CLASSES)


FIGURES = {
    "confusion of 2": (lambda: confusions(2), 2),
    "confusion of 4": (lambda: confusions(4), 4),
    "promise": (lambda: validity_figures.validity_curves(view(), [view()]), 3),
    "limits": (lambda: validity_figures.error_deviation(view()), 2),
}


def pixels(figure, share: float) -> float:
    return share * (figure.layout.height - figure.layout.margin.t - figure.layout.margin.b)


@pytest.mark.parametrize("name", FIGURES)
def test_plots_of_a_row_stand_below_each_other(name):
    make, n = FIGURES[name]
    wide = make()
    narrow = charts.stacked(wide)
    axes = [str(i) if i > 1 else "" for i in range(1, n + 1)]
    places = sorted(narrow.layout[f"yaxis{k}"].domain for k in axes)
    assert all(narrow.layout[f"xaxis{k}"].domain == (0, 1) for k in axes)
    assert all(low[1] < high[0] for low, high in zip(places, places[1:]))  # none over another
    for k in axes:
        before, after = (f.layout[f"yaxis{k}"].domain for f in (wide, narrow))
        high = pixels(wide, before[1] - before[0])
        assert pixels(narrow, after[1] - after[0]) == pytest.approx(high)
        assert narrow.layout[f"yaxis{k}"].title.text
    tops = sorted(narrow.layout[f"yaxis{k}"].domain[1] for k in axes)
    titles = sorted(a.y for a in narrow.layout.annotations if a.yref == "paper")
    assert titles == pytest.approx(tops[-len(titles) :] if titles else [])
    for a, b in zip(wide.layout.sliders, narrow.layout.sliders):
        assert pixels(narrow, b.y) == pytest.approx(pixels(wide, a.y))  # as far below the plots


def test_a_chart_of_one_column_stays_as_it_is():
    figure = p_value_figures.point_map(view(), 0.5, 0.5)
    assert charts.stacked(figure) is figure


def test_a_narrow_window_is_told_by_the_browser(monkeypatch):
    figure = confusions(2)
    assert charts.fit(figure) is figure
    monkeypatch.setattr(viewport, "is_narrow", lambda: True)
    assert charts.fit(figure).layout.height > figure.layout.height
