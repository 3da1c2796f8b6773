"""The page Evaluate by AppTest: every view in every state, its figures, the table as a task."""

from __future__ import annotations

import json
import math
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest

from core import files
from core.config.presets import DEMO, SMOKE
from core.config.serialisation import to_dict
from core.config.settings import CREMA_EMOTIONS, replace
from core.data import prepared_corpora
from core.evaluation import protocol, significance
from core.experiments import jobs, tasks
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import (
    assert_no_exception,
    count_elements,
    open_page,
    page_text,
    plotly_figure,
    plotly_numbers,
)
from tests.support.noise_corpora import (
    HOSTILE_TEXTS,
    progress_texts,
    write_noise_corpus,
    write_task,
)
from tests.support.table_arrays import ON_S2, RIGHT, a_table, write_table
from tests.support.trained_runs import the_run
from ui.evaluate import augmentation, confusion, figures
from ui.evaluate import runs as evaluate
from ui.session import cache, query_params

VIEWS = ("runs", "curves", "confusion", "augmentation", "folds", "paper")


def copied(run: Run, called: str, scorer: str = "", **changes) -> Run:
    """A finished run made of another one's files, with other settings."""
    target = Run(shutil.copytree(run.directory, files.checkpoints_folder() / called))
    config = replace(run.config, **changes)
    (target.directory / "config.json").write_text(json.dumps(to_dict(config)))
    results = target.json("results")
    results["quality"]["scorer"] = scorer or results["quality"]["scorer"]
    (target.directory / "results.json").write_text(json.dumps(results))
    store.index_existing()
    return target


# ------------------------------------------------------------------ states


def test_without_any_run_it_says_what_to_do(home):
    app = open_page("evaluate")
    assert "no trained run yet" in page_text(app)
    assert count_elements(app, "plotly_chart") == 0


@pytest.mark.parametrize(
    ("state", "view"), [*(("running", v) for v in VIEWS), ("failed", "runs"), ("stopped", "curves")]
)
def test_unfinished_runs_alone_are_shown_as_far_as_they_are(home, monkeypatch, state, view):
    monkeypatch.setattr(jobs, "is_alive", lambda row: row["state"] == "running")
    run = trained_runs.fabricate_run(state)
    app = open_page("evaluate", view=view)
    assert [e.value for e in app.error] == []
    if view == "runs":
        line = app.dataframe[0].value.iloc[0]
        assert (line["run"], line["state"]) == (run.id, state)
        assert line[["S1", "FID", "N"]].isna().all()
        assert "not finished" in page_text(app)
    if view == "curves":
        assert count_elements(app, "plotly_chart") == 3
        assert ("CP: step 20 of 40" in page_text(app).replace("\\", "")) == (state == "running")
    if view in ("confusion", "augmentation", "folds"):
        assert "None of the chosen runs is" in page_text(app)


def test_damaged_runs_are_named_and_the_others_plotly_figure(own_trained_home):
    broken = trained_runs.fabricate_run("stopped")
    (broken.directory / "config.json").write_text("{")
    app = open_page("evaluate")
    assert "cannot be read" in app.error[0].value
    assert len(app.dataframe[0].value) == 3


# ------------------------------------------------------------------ the table and the choice


def test_the_table_holds_what_the_runs_saved(own_trained_home):
    app = open_page("evaluate")
    table = app.dataframe[0].value.set_index("run")
    for row in store.list_runs():
        results, line = (
            Run(files.checkpoints_folder() / row["run"]).json("results"),
            table.loc[row["run"]],
        )
        q = results["quality"]
        assert line[["FID", "FID real", "KID", "IS", "IS real", "diversity"]].tolist() == [
            q[k] for k in ("FID", "FID real", "KID", "IS", "IS real", "diversity")
        ]
        rows = [
            100 * results["augmentation"][k]["accuracy"]
            for k in ("S1", "S1 + generated", "S1 + S3")
        ]
        assert line[["S1", "S1 + generated", "S1 + S3"]].tolist() == rows
        assert line["trainings"] == 1
        assert line["people"] == len(results["subjects"]["S4"])
        assert (line["N"], line["fold"], line["seed"], line["labels"]) == (
            results["N test voices"],
            0,
            0,
            results["labels"],
        )
        assert line["best step"] in (2, 4)
        assert line["chance"] == pytest.approx(100 / 6)
    assert "mean nothing" in app.warning[0].value  # four steps
    assert {b.label for b in app.get("download_button")} == {"runs.csv"}


def test_the_choice_of_runs_is_in_the_address_and_strangers_are_not(own_trained_home):
    first, second = the_run("label").id, the_run("cp").id
    app = open_page("evaluate", view="curves", runs=f"{first},{second}")
    assert app.multiselect[0].value == [first, second]
    assert "label" in page_text(app)
    app.multiselect[0].set_value([second]).run()
    assert app.query_params["runs"] == [second] or app.query_params["runs"] == second
    app.multiselect[0].set_value([]).run()
    assert "Choose runs above" in page_text(assert_no_exception(app))
    for strange in ("../../etc", "nothing", "a,b", HOSTILE_TEXTS[0]):
        assert len(open_page("evaluate", runs=strange).multiselect[0].value) == 3
    assert open_page("evaluate", view="nowhere").dataframe[0].value.shape[0] == 3


def test_ticked_rows_of_the_table_go_into_the_address(monkeypatch):
    rows, written = SimpleNamespace(selection=SimpleNamespace(rows=[2, 0])), []
    monkeypatch.setattr(evaluate.st, "session_state", {"table": rows})
    monkeypatch.setattr(query_params, "set_value", lambda *a: written.append(a))
    evaluate.save_ticked_rows("table", ["a", "b", "c"])
    assert written == [("runs", "c,a")]


def test_what_may_not_be_compared_is_said(own_trained_home):
    other = copied(the_run(), "tiny-cp-other", "anotherone", data={"fold": 1})
    app = open_page("evaluate", runs=f"{the_run('label').id},{other.id}")
    assert "2 scoring networks" in app.warning[0].value.replace("\\", "")
    assert "other people" in app.warning[0].value


# ------------------------------------------------------------------ curves


def test_curves_stand_on_one_axis_within_a_scorer_only(own_trained_home):
    three = open_page("evaluate", view="curves")
    assert count_elements(three, "plotly_chart") == 3
    scorer = the_run().json("results")["quality"]["scorer"]
    figure = plotly_figure(three, f"curve {scorer} FID")
    lines = [t for t in figure["data"] if t["mode"] != "markers"]
    assert len(lines) == 3
    for line in lines:
        condition = {"CP": "cp"}.get(line["name"], line["name"])
        assert line["y"] == store.load_curves(the_run(condition).id)["FID"][1]
    stars = [t for t in figure["data"] if t.get("marker", {}).get("symbol") == "star"]
    assert len(stars) == 3
    other = copied(the_run(), "tiny-cp-other", "anotherone")
    app = open_page("evaluate", view="curves", runs=f"{the_run('label').id},{other.id}")
    assert count_elements(app, "plotly_chart") == 6
    assert "anotherone" in page_text(app)


def test_other_curves_and_a_log_scale_are_in_the_address(own_trained_home):
    app = open_page("evaluate", view="curves", curves="KID|loss/G", log="True")
    assert count_elements(app, "plotly_chart") == 2
    scorer = the_run().json("results")["quality"]["scorer"]
    assert plotly_figure(app, f"curve {scorer} KID")["layout"]["yaxis"]["type"] == "log"
    assert "type" not in plotly_figure(app, f"curve {scorer} loss/G")["layout"]["yaxis"]
    app.get("button_group")[1].set_value(["IS"]).run()
    assert app.query_params["curves"] in ("IS", ["IS"])
    assert count_elements(assert_no_exception(app), "plotly_chart") == 1


# ------------------------------------------------------------------ confusion


def test_confusion_is_that_of_the_runs_and_the_difference_that_of_two(own_trained_home):
    cp = the_run()
    app = open_page("evaluate", view="confusion", runs=cp.id)
    results = cp.json("results")
    a, b = (np.array(results["augmentation"][k]["confusion"]) for k in ("S1 + generated", "S1"))
    figure = plotly_figure(app, "confusion (")
    n = results["N test voices"]
    titles = [t["text"] for t in figure["layout"]["annotations"]]
    assert titles == [f"S1<br>N = {n}", f"S1 + generated<br>N = {n}"]
    for trace, counts in zip(figure["data"], (b, a), strict=True):
        hover = np.array(plotly_numbers(trace["customdata"])).reshape(6, 6, 2)
        assert np.array_equal(hover[..., 0], counts)
        assert np.array_equal(hover[..., 1], np.repeat(counts.sum(1)[:, None], 6, 1))
        assert "of %{customdata[1]:,}" in trace["hovertemplate"]
    assert figure["layout"]["coloraxis"]["cmin"] == 0
    assert figure["layout"]["coloraxis"]["cmax"] == 100
    gap = plotly_figure(app, "confusion difference")["data"][0]
    assert (gap["zmin"], gap["zmid"], gap["zmax"]) == (
        -figures.COLOUR_LIMIT_POINTS,
        0,
        figures.COLOUR_LIMIT_POINTS,
    )
    expected = 100 * (
        a / np.maximum(1, a.sum(1, keepdims=True)) - b / np.maximum(1, b.sum(1, keepdims=True))
    )
    assert np.array(plotly_numbers(gap["z"])).reshape(6, 6) == pytest.approx(expected)
    assert "raters' votes" in page_text(app)
    swapped = open_page("evaluate", view="confusion", runs=cp.id, this="S1", minus="S1 + generated")
    assert np.array(
        plotly_numbers(plotly_figure(swapped, "confusion difference")["data"][0]["z"])
    ).reshape(6, 6) == pytest.approx(-expected)


def test_people_stand_beside_the_machine_where_they_voted(own_trained_home):
    write_noise_corpus("crema-d", votes="sad|fear")
    run = copied(the_run(), "tiny-cp-crema", data={"faces": "crema-d", "voices": "crema-d"})
    app = open_page("evaluate", view="confusion", runs=run.id)
    titles = [t["text"] for t in plotly_figure(app, "confusion (")["layout"]["annotations"]]
    assert titles[-1] == "people, by voice, crema-d<br>N = 60"
    found = confusion.rater_confusion(run.config)
    assert (
        found[:, CREMA_EMOTIONS.index("sad")].tolist() == [5] * 6
    )  # ten clips of each emotion, half a vote
    assert "raters' votes" not in page_text(app)


def test_folds_are_summed_where_that_is_asked(own_trained_home):
    cp = the_run()
    other = copied(cp, "tiny-cp-fold1", "second", data={"fold": 1})
    s = next(x for x in evaluate.load_summaries()[0] if x.id == cp.id)
    t = next(x for x in evaluate.load_summaries()[0] if x.id == other.id)
    once, twice = (
        confusion.matrices_by_row([s], "equal")["S1"].counts,
        confusion.matrices_by_row([s, t], "equal")["S1"].counts,
    )
    assert np.array_equal(2 * once, twice)
    app = open_page("evaluate", view="confusion", runs=cp.id)
    app.toggle(key="confusion pooled").set_value(True).run()
    assert count_elements(assert_no_exception(app), "plotly_chart") == 2


# ------------------------------------------------------------------ the augmentation table


def test_a_missing_table_is_computed_as_a_task(own_trained_home, monkeypatch):
    asked = []
    monkeypatch.setattr(
        tasks, "start", lambda arguments: asked.append(list(arguments)) or "table-1"
    )
    cp = the_run()
    app = open_page("evaluate", view="augmentation", runs=cp.id)
    rows = app.dataframe[0].value
    assert rows["trained on"].tolist() == list(cp.json("results")["augmentation"])
    app.number_input(key="table seeds").set_value(2).run()
    assert_no_exception(app.button(key="compute table").click().run())
    assert asked == [["table", cp.id, "--seeds", "2"]]


def test_a_table_in_work_shows_its_progress_and_one_that_failed_says_why(
    own_trained_home, monkeypatch
):
    monkeypatch.setattr(tasks, "is_alive", lambda e: True)
    stopped = []
    monkeypatch.setattr(tasks, "stop", stopped.append)
    cp, words = the_run().id, {"phase": "augmentation table", "done": 11, "total": 33, "rate": 0.5}
    write_task("table-1", "running", ["table", cp, "--seeds", "3"], pid=1, **words)
    app = open_page("evaluate", view="augmentation", runs=cp)
    assert progress_texts(app) == ["Training classifiers: 11 of 33 rows · 0.5 rows/s · 44 s left"]
    assert app.button(key="compute table").disabled
    assert_no_exception(app.button(key="stop table-1").click().run())
    assert stopped == ["table-1"]
    write_task("table-1", "failed", ["table", cp, "--seeds", "3"], message="no room <b>left</b>")
    failed = open_page("evaluate", view="augmentation", runs=cp)
    assert "no room" in failed.error[0].value.replace("\\", "")
    assert not failed.button(key="compute table").disabled
    assert [e.id for e in tasks.listing()] == []  # the page Data does not show it
    assert [e.id for e in tasks.listing("table")] == ["table-1"]


def test_a_table_that_cannot_be_made_here_says_why_and_what_to_do(own_trained_home):
    cp = the_run()
    (cp.directory / "models" / "G.safetensors").unlink()
    app = open_page("evaluate", view="augmentation", runs=cp.id)
    assert "no networks G here" in app.warning[0].value.replace("\\", "")
    assert f"core train --config-file {cp.directory}/config.json" in page_text(app)
    label = the_run("label")
    corpus = label.json("corpus")
    for role, clips in (("voices", 0), ("faces", 1)):
        corpus[role] |= {"digest": "elsewhere", "clips": corpus[role]["clips"] + clips}
        (label.directory / "corpus.json").write_text(json.dumps(corpus))
        cache.st.cache_resource.clear()
        app = open_page("evaluate", view="augmentation", runs=label.id)
        if (
            clips
        ):  # another number of them is another corpus, other bits alone may be another machine's
            assert "is not the one" in app.warning[0].value
            assert "elsewhere" in app.warning[0].value
        else:
            assert not app.warning
            assert not app.button(key="compute table").disabled
    prepared_corpora.corpus_path("demo", SMOKE.data.demo_takes).unlink()
    app = open_page("evaluate", view="augmentation", runs=the_run("classifier").id)
    assert "not prepared here" in app.warning[0].value
    assert count_elements(app, "button") == 0


def test_what_a_table_says_is_said_in_plain_words(own_trained_home):
    cp = the_run()
    write_table(cp)
    app = open_page("evaluate", view="augmentation", runs=cp.id)
    text = page_text(app)
    assert "**It holds**" in text  # eight people, ten points each
    assert (
        "+10.0 points** (95 %: +10.0 to +10.0), p = 0.008 · 25 % of the way to the ceiling" in text
    )
    assert count_elements(app, "plotly_chart") == 3
    assert "flip the signs in all possible patterns" in text
    table = app.dataframe[0].value.set_index("trained on")
    assert table.loc["S1 + generated", "equal steps, %"] == pytest.approx(50)
    listed = app.dataframe[1].value
    assert len(listed) == 2 * len(
        significance.PRIMARY_COMPARISONS | significance.SECONDARY_COMPARISONS
    )
    with_s3 = figures.COMPARISON_LABELS["ceiling"]
    assert listed[listed["comparison"] == with_s3]["above 0 and p < 0.05"].tolist() == [
        False,
        False,
    ]  # p = 7 · 2/2^8 by Holm
    other = open_page("evaluate", view="augmentation", runs=cp.id, gain="ceiling", steps="equal")
    assert "S1 + S3 − S1 + plain augmentation: 8 people" in page_text(other)


def test_why_a_gain_is_not_plotly_figure():
    few = significance.gains([a_table(RIGHT, ON_S2, subjects=5)])
    assert not significance.is_significant(few, "a")
    assert "no p below 0.0625 is possible" in " ".join(augmentation.reasons_against(few, "a"))
    worse = significance.gains([a_table(RIGHT | {"S1 + generated": 0.2}, ON_S2)])
    assert "cost 20.0 points" in " ".join(augmentation.reasons_against(worse, "a"))
    assert augmentation.reasons_against(significance.gains([a_table(RIGHT, ON_S2)]), "a") == []


def test_folds_bring_their_people_together(own_trained_home):
    cp = the_run()
    write_table(cp, a_table(RIGHT, ON_S2, subjects=4))
    other = copied(cp, "tiny-cp-fold1", "second", data={"fold": 1})
    write_table(other, a_table(RIGHT, ON_S2, subjects=4, first=4))
    app = open_page("evaluate", view="augmentation", runs=cp.id)
    assert ": 8 people" in page_text(app)
    one = open_page("evaluate", view="augmentation", runs=cp.id, over="one")
    assert ": 4 people" in page_text(one)
    assert "its 4 people: +10.0, +10.0, +10.0, +10.0" in page_text(one).replace("\\", "")
    assert "95 %:" not in page_text(one)
    assert one.dataframe[1].value["from"].isna().all()
    assert "95 %: +10.0 to +10.0" in page_text(app)
    assert "no p below 0.1250 is possible" in page_text(one)


@pytest.mark.slow
def test_a_real_task_makes_the_table(own_trained_home):
    cp = the_run()
    name = tasks.start(["table", cp.id, "--seeds", "1"])
    end = time.monotonic() + 600  # seconds where nothing else runs
    while (now := tasks.find(name)).state == "running":
        assert time.monotonic() < end
        time.sleep(0.2)
    assert (now.state, now.message) == ("done", f"{cp.id} has its augmentation table."), (
        tasks.errors(name)
    )
    assert now.done == now.total == len(protocol.TABLE_ROWS)
    assert set(cp.json("table")["rows"]) == {r.name for r in protocol.TABLE_ROWS}
    app = open_page("evaluate", view="augmentation", runs=cp.id)
    assert "What generated voices add" in page_text(app)
    assert count_elements(app, "plotly_chart") == 3


def test_a_table_of_an_unknown_run_fails_in_words(home):
    from core.cli import experiments

    with pytest.raises(files.UserError, match="no run"):
        experiments.table(experiments.TableOptions("nobody"))


# ------------------------------------------------------------------ folds, and the paper's tables


def test_folds_show_every_run_with_mean_and_sd(own_trained_home):
    cp = the_run()
    other = copied(cp, "tiny-cp-fold1", "second", data={"fold": 1})
    results = other.json("results")
    results["augmentation"]["S1"]["accuracy"] += 0.1
    (other.directory / "results.json").write_text(json.dumps(results))
    app = open_page("evaluate", view="folds", runs=f"{cp.id},{the_run('label').id}")
    table = app.dataframe[0].value.set_index("settings")
    own = 100 * cp.json("results")["augmentation"]["S1"]["accuracy"]
    assert table.loc["CP", ["runs", "folds", "seeds"]].tolist() == [2, 2, 1]
    assert table.loc["CP", "S1, %"] == pytest.approx(own + 5)
    assert table.loc["CP", "S1, sd"] == pytest.approx(10 / 2**0.5)
    assert math.isnan(table.loc["label", "S1, sd"])
    assert "1 of 2 settings have one fold only" in page_text(app)
    assert "for fold in 1 2 3 4; do python -m core train --config-file" in page_text(app)
    app.toggle(key="fold all").set_value(True).run()
    assert len(assert_no_exception(app).dataframe[0].value) == 3
    every = ",".join(the_run(c).id for c in ("cp", "label", "classifier"))
    assert not open_page("evaluate", view="folds", runs=every).toggle  # nothing more to show


def test_the_papers_tables_hold_our_runs_and_what_trains_the_others(own_trained_home):
    copied(the_run(), "mine", **vars(replace(DEMO, gan={"generator": "encdec"})))
    app = open_page("evaluate", view="paper", base="demo", generator="EncDec")
    mine = Run(files.checkpoints_folder() / "mine").json("results")
    second, first = (d.value for d in app.dataframe[:2])
    row = second.set_index("case").loc["CP"]
    assert (
        row["ours: accuracy, %"]
        == f"{100 * mine['augmentation']['S1 + generated']['accuracy']:.1f}"
    )
    assert row["CREMA-D: FID"] == "60.10"
    assert second.set_index("case").loc["label", "ours: FID"] == "–"
    assert first.set_index("condition").loc["label", "U-Net: paper"] == "50.24"
    assert "not comparable" in page_text(app)
    assert "8 cells have no run yet" in app.get("expander")[0].label
    assert (
        "python -m core train --preset demo --gan.generator unet --gan.condition label"
        in page_text(app)
    )
    assert open_page("evaluate", view="paper", base="strange").selectbox[0].value == "demo"


# ------------------------------------------------------------------ figures


def test_every_figure_says_what_its_axes_are():
    d = np.array([0.1, -0.1, 0.2])
    lines = {"a": ([0, 1, 2], [1.0, 2.0, 3.0])}
    made_ones = [
        figures.metric_curves(
            {"r": {"FID": lines["a"]}},
            "FID",
            "FID (lower is better)",
            {"r": figures.run_line_style(0)},
            {"r": 1},
            2,
        ),
        figures.confusion_difference(np.eye(2), np.ones((2, 2)), ("a", "b")),
        figures.fold_accuracies({"s": {"S1": [(50.0, "fold 0"), (52.0, "fold 1")]}}, 16.7),
        figures.row_accuracies({"S1": {"equal": [50.0]}}, 16.7),
        figures.gain_intervals(significance.gains([a_table(RIGHT, ON_S2)])),
        figures.sign_flip_test(["x", "y", "z"], d, 0.5),
    ]
    for figure in made_ones:
        axes = [
            v
            for k, v in figure.to_plotly_json()["layout"].items()
            if k.startswith(("xaxis", "yaxis"))
        ]
        assert axes
        assert all(a["title"]["text"] for a in axes)
