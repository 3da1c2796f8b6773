"""Accuracies on pages: the mean over trainings wherever it exists, its spread, the people."""

import dataclasses
import math

import numpy as np
import pytest

from core import files
from core.cli import training
from core.config.settings import replace
from core.evaluation import results
from core.experiments.sweeping import sweep
from core.inference import export
from tests.support.app import open_page, page_text, plotly_figure
from tests.support.table_arrays import write_table
from tests.support.trained_runs import the_run
from ui.evaluate import confusion, figures, tables
from ui.evaluate import runs as evaluate
from ui.train import checkpoints
from ui.widgets import charts, run_summary


def test_the_mean_over_trainings_stands_on_every_page_where_a_table_exists(own_trained_home):
    """Runs, confusion, folds, the line of Listen and Reverse, and the commands agree with it."""
    cp = the_run()
    one = 100 * cp.json("results")["augmentation"]["S1"]["accuracy"]
    table, n = write_table(cp), cp.json("results")["N test voices"]
    mean = 100 * np.mean(table["rows"]["S1"]["equal"]["accuracy"])
    assert mean != pytest.approx(one)
    line = open_page("evaluate").dataframe[0].value.set_index("run").loc[cp.id]
    assert (line["S1"], line["trainings"], line["people"]) == (pytest.approx(mean), 2, 8)
    folds = open_page("evaluate", view="folds", runs=cp.id).dataframe[0].value.iloc[0]
    assert (folds["S1, %"], folds["trainings"]) == (pytest.approx(mean), "2")
    figure = plotly_figure(open_page("evaluate", view="confusion", runs=cp.id), "confusion (")
    assert "2 trainings" in figure["layout"]["annotations"][0]["text"]
    found = cp.json("results")
    text = f"{mean:.1f} ± 0.0 % (2 trainings)"
    assert text in " ".join(run_summary.figure_texts(found, table))
    assert f"{n} voices of 8 people" in " ".join(run_summary.figure_texts(found, table))
    assert text in training.results_markdown(found, table)
    assert f"{mean:.1f} ± 0.0 %" in sweep.format_results(cp)
    assert text in export.model_card(cp)
    train = open_page("train", run=cp.id)
    assert text in page_text(train)
    for app in (train, open_page("evaluate")):
        assert "differences are noise" not in page_text(app)
        assert "counts only if it holds over people" in page_text(app)


def test_runs_with_and_without_a_table_are_pooled_under_their_true_n(own_trained_home):
    cp = the_run()
    found = [s for s in evaluate.load_summaries()[0] if s.id == cp.id]
    table, n = write_table(cp), cp.json("results")["N test voices"]
    t = table["rows"]["S1"]["equal"]
    other = round(np.sum(t["confusion"]) / len(t["accuracy"]))  # of the invented table
    tabled = dataclasses.replace(found[0], table=table)
    plain = dataclasses.replace(found[0], table={})
    next_fold = replace(tabled.config, data={"fold": 1})
    tabled_1, plain_1 = (dataclasses.replace(s, config=next_fold) for s in (tabled, plain))
    for members, words in (
        ([tabled, plain_1], f"N = {other + n}"),
        ([plain_1, tabled], f"N = {other + n}"),
        ([tabled, tabled_1], f"N = {2 * other}, 2 trainings"),
        # another seed of a fold has the same people
        ([tabled, tabled], f"N = {other}, 4 trainings"),
        ([plain, plain, plain_1, plain_1], f"N = {2 * n}, 2 trainings"),
        ([tabled], f"N = {other}, 2 trainings"),
        ([plain], f"N = {n}"),
    ):
        m = confusion.matrices_by_row(members, "equal")["S1"]
        assert confusion._title("S1", m) == f"S1<br>{words}"


def test_s3_with_its_labels_is_no_ceiling_in_words():
    assert not [k for k in evaluate.COLUMN_HELP if "ceiling" in k]
    assert "ceiling" not in " ".join(figures.COMPARISON_LABELS.values())


def test_what_does_not_compare_with_the_paper_is_grey():
    frame = {"ours: FID", "ours: accuracy, %", "case", "condition", "EncDec: ours"}
    for corpus in ("", "CREMA-D", "RAVDESS"):
        assert not any(tables.is_foreign(c, corpus) for c in frame)
        assert tables.is_foreign("CREMA-D: FID", corpus)
        assert tables.is_foreign("RAVDESS: IS", corpus)
        assert tables.is_foreign("CREMA-D: accuracy, %", corpus) == (corpus != "CREMA-D")
        assert tables.is_foreign("EncDec: paper", corpus) == (corpus != "CREMA-D")


def test_the_floor_of_an_earlier_rule_is_withdrawn_on_pages(own_trained_home):
    cp = the_run()
    found = cp.json("results")
    floor = found["quality"]["FID real"]
    del found["evaluation"]
    files.write_json(cp.directory / "results.json", found)
    app = open_page("evaluate")
    table = app.dataframe[0].value.set_index("run")
    assert math.isnan(table.loc[cp.id, "FID real"])
    assert table.loc[the_run("label").id, "FID real"] > 0
    assert results.WITHDRAWN in app.warning[0].value.replace("\\", "")
    train = open_page("train", run=cp.id)
    fid = next(m for m in train.metric if m.label == "FID")
    assert fid.delta == "real voices withdrawn"
    assert results.WITHDRAWN in page_text(train)
    line = " ".join(run_summary.figure_texts(found, {}))
    assert "real against real withdrawn" in line
    assert f"{floor:.2f}" not in line.split("FID")[1]


def test_every_cell_of_a_confusion_matrix_says_of_how_many_it_is():
    counts = np.array([[3, 1], [2, 8]])
    one = checkpoints.confusion_heatmap(counts, ("sad", "happy")).data[0]
    many = charts.confusion_matrices({"S1": counts}, ("sad", "happy")).data[0]
    two = figures.confusion_difference(counts, counts.T, ("sad", "happy")).data[0]
    for trace in (one, many, two):
        assert np.array_equal(trace.customdata[..., 0], counts)
        assert trace.customdata[..., 1].tolist() == [[4, 4], [10, 10]]
        assert "%{customdata[0]:,} of %{customdata[1]:,}" in trace.hovertemplate
    assert two.customdata[..., 3].tolist() == [[5, 5], [9, 9]]
    assert charts.matrix_title("S1", counts) == "S1<br>N = 14"
    assert charts.matrix_title("S1", 3 * counts, 3) == "S1<br>N = 14, 3 trainings"
