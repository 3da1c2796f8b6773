"""Evaluate's view Labels by AppTest: kept curves, none, a damaged one."""

from __future__ import annotations

import pytest

from core import files
from core.evaluation.few_labels import curve, report
from tests.support import few_labels, trained_runs
from tests.support.app import count_elements, open_page, page_text
from ui.evaluate import labels


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    return curve.summary(few_labels.write_grid(folder), "the command", folder)


@pytest.fixture
def with_run(home):
    trained_runs.fabricate_run("stopped")


def test_a_kept_curve_is_shown_with_its_tests_and_its_command(with_run, summary):
    curve.save(summary)
    app = open_page("evaluate", view="labels")
    assert [e.value for e in app.error] == []
    shown = {m.label: m.value for m in app.metric}
    assert shown["(c') to match 10 and generated, S1 needs"] == "28 labels"
    assert shown["(a'): holds under both rules"] == "+20.0 points"
    assert count_elements(app, "plotly_chart") == 1
    assert "python -m core sweep --grid labels --preset demo" in app.code[0].value
    assert report.gains_text(report.headline_points(summary)["CP"]) in page_text(app)
    assert {b.label for b in app.get("download_button")} == {"labels.csv"}


def test_another_condition_has_its_curve_and_its_gains(with_run, summary):
    curve.save(summary)
    app = open_page("evaluate", view="labels", condition="none")
    shown = {m.label: m.value for m in app.metric}
    assert shown["(c') to match 10 and generated, S1 needs"] == "20 labels"
    assert shown["(a'): holds under both rules"] == "+10.0 points"
    drawn = {t.name: t for t in labels.curve_figure(summary, "none", "equal").data}
    lone = [drawn[name] for name in curve.FAMILIES if name not in curve.WITHOUT_GENERATED]
    assert [round(line.x[0], 1) for line in lone] == [9.4, 10, 10.6]  # side by side, each its bar
    assert all(len(line.x) == 1 and line.error_y.visible for line in lone)
    assert not drawn[curve.BASE].error_y.visible
    assert "1 fold × 1 seed, 8 people" in app.caption[-1].value
    assert list(drawn[curve.BASE].x) == [5, 10, 20, 40, 100]


def test_the_figure_has_a_line_for_each_family_of_rows(summary):
    drawn = labels.curve_figure(summary, "CP", "equal").data
    lines = {t.name: t for t in drawn if t.mode == "lines+markers"}
    assert list(lines) == list(curve.FAMILIES)
    assert list(lines[curve.BASE].x) == [5, 10, 20, 40, 100]
    assert list(lines[curve.BASE].y) == pytest.approx([20, 30, 40, 60, 60])


def test_surrogate_pairs_are_said_on_the_page(with_run, summary):
    curve.save(summary | {"corpus": "surrogate-pairs", "preset": "surrogate-pairs"})
    app = open_page("evaluate", view="labels")
    assert app.warning[0].value == report.SURROGATE_NOTE


def test_without_a_curve_the_view_says_how_to_make_one(with_run):
    app = open_page("evaluate", view="labels")
    assert "No curve is kept here" in page_text(app)
    assert "report --grid labels" in app.code[0].value


def test_a_damaged_curve_is_named(with_run):
    curve.results_folder().mkdir()
    (files.checkpoints_folder() / "labels" / "demo.json").write_text("[1")
    app = open_page("evaluate", view="labels")
    assert "cannot be read" in app.error[0].value
