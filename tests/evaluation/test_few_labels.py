"""Few labels: the rows of a run, the label-efficiency curve and its report."""

import io
import json
import shutil

import numpy as np
import pytest
import torch

from core import files
from core.config.presets import PRESETS
from core.config.settings import replace
from core.data import splits
from core.evaluation import evaluator, metrics, protocol
from core.evaluation.few_labels import curve, report, rows, table
from core.experiments.sweeping import sweep
from core.runs.directory import Run
from tests.support import few_labels
from tests.support.small_pipeline import TINY

PLAN = rows.FewLabelsSettings(seeds=1, stretch=1, looks=1, per_face=2, confidence=0.5)


@pytest.fixture(scope="module")
def tabled(finished_run):
    return table.compute(finished_run, PLAN)


def test_a_runs_rows_are_made_of_the_clips_that_conformal_prediction_chooses(finished_run, tabled):
    n = {k: v["N train"] for k, v in tabled["rows"].items()}
    sets, arrays = splits.build_sets(TINY), finished_run.arrays()
    chosen = int(table.chosen_faces(arrays, PLAN.confidence).sum())
    assert 0 < chosen < len(sets["S3"].y)
    assert list(n) == [row.name for row in rows.ROWS]
    assert n[rows.PSEUDO + rows.CONFIDENT] == n["S1"] + chosen
    assert n[rows.BOTH + rows.CONFIDENT] == n["S1"] + 3 * chosen
    assert n[rows.GENERATED] == n["S1"] + 2 * len(sets["S3"].x)
    assert n[rows.ALONE + rows.CONFIDENT] == 2 * chosen
    assert tabled["choice"]["share"] == pytest.approx(chosen / len(sets["S3"].x))
    assert tabled["labelled"]["voices"] == n["S1"]
    assert {g["name"] for g in tabled["gains"]} == {*rows.HEADLINES, *rows.SECONDARY}


def test_s3s_labels_train_the_ceiling_alone(finished_run, tabled, tmp_path, monkeypatch):
    build = splits.build_sets

    def spoiled(config):
        sets = build(config)
        gone = {"x_label": np.full_like(sets["S3"].x_label, 1)}
        gone["y_label"] = (sets["S3"].y_label + 1) % 6
        return sets | {"S3": splits.replace(sets["S3"], **gone)}

    copy = Run(shutil.copytree(finished_run.directory, tmp_path / finished_run.id))
    (copy.directory / "labels.json").unlink()
    monkeypatch.setattr(splits, "build_sets", spoiled)
    table.compute(copy, PLAN)
    a, b = copy.arrays("labels"), finished_run.arrays("labels")
    for i, row in enumerate(a["rows"]):
        same = np.array_equal(a["predicted"][i], b["predicted"][i])
        assert same == (row != rows.CEILING), row


def test_a_worker_of_a_sweep_makes_the_table_that_its_plan_names(finished_run, tabled):
    (finished_run.directory / "labels.json").unlink()
    cell = protocol.Cell("few labels", "ours", finished_run.config)
    request = sweep.encode_request([cell], finished_run.directory.parent, "cpu", PLAN)
    answers = io.StringIO()
    sweep.run_worker(io.StringIO(request + "\n"), answers)
    assert json.loads(answers.getvalue()) == {"state": "done", "reason": ""}
    assert finished_run.json("labels") == json.loads(json.dumps(tabled))


def test_a_run_paired_by_emotion_has_no_such_table(finished_run, tmp_path):
    copy = Run(shutil.copytree(finished_run.directory, tmp_path / "by-emotion"))
    content = json.loads((copy.directory / "config.json").read_text())
    content["data"]["pairing"] = "emotion"
    files.write_json(copy.directory / "config.json", content)
    with pytest.raises(files.UserError, match="clips have a face"):
        table.compute(copy, PLAN)


def test_more_labels_include_fewer_and_are_equally_many_of_each_class():
    labels = np.random.default_rng(0).integers(0, 6, 300)
    of = {
        n: evaluator.labelled_rows(replace(TINY, data={"labels_per_class": n}), labels)
        for n in (5, 10, 1_000)
    }
    assert np.bincount(labels[of[5]]).tolist() == [5] * 6
    assert set(of[5]) < set(of[10]) < set(of[1_000]) == set(range(300))


def test_few_labels_are_repeated_until_they_are_their_share_of_a_row():
    y = torch.zeros(1, 1, 2, 2)
    parts = {
        name: (y.expand(n, -1, -1, -1), torch.full((n,), k))
        for k, (name, n) in enumerate({"S1": 10, "S3": 90, "generated": 5}.items())
    }
    row = (protocol.TableRow("S1 + S3", ("S1", "S3")),)
    counts = [
        evaluator.join_parts(parts, row, share)["S1 + S3"][1].bincount().tolist()
        for share in (0.0, 0.05, 0.5)
    ]
    assert counts == [[10, 90], [10, 90], [90, 90]]


def test_copies_are_found_and_new_samples_are_not():
    rng = np.random.default_rng(0)
    members, others, new = (rng.normal(size=(200, 4)) for _ in range(3))
    copied = metrics.membership(members + 1e-3, members, others)
    assert copied["attack"] > 0.99
    assert copied["nearest"] < 0.1
    fresh = metrics.membership(new, members, others)
    assert abs(fresh["attack"] - 0.5) < 0.1
    assert abs(fresh["nearest"] - 1) < 0.2


# ------------------------------------------------------------------ the curve


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    return curve.summary(few_labels.write_grid(folder), "the command", folder)


def test_generation_is_worth_the_labels_at_which_s1_alone_is_as_good(summary):
    # S1 reaches 0.5, what ten labels and generation give, half way from 20 to 40 on a log scale
    worth = summary["worth"]
    assert worth["CP"]["equal"]["needs"] == pytest.approx(20 * 2**0.5)
    assert worth["CP"]["equal"]["people"] == 8
    assert "needs 28 a class" in report.worth_text(summary, "CP")
    # without a condition generation gives 0.4, as much as twenty labels
    assert worth["none"]["equal"]["needs"] == pytest.approx(20)


def test_a_row_that_s1_never_matches_is_worth_more_than_all_labels(tmp_path):
    for cell in (grid := few_labels.cells()):
        few_labels.write_run(tmp_path, cell.config)
    found = curve.summary(grid, "the command", tmp_path)
    assert found["worth"]["CP"]["best"]["needs"] is None
    assert "needs more than 100 a class" in report.worth_text(found, "CP")


def test_the_headline_gains_are_over_people_under_both_rules(summary):
    point = report.headline_points(summary)["CP"]
    gains = {(g["name"], g["rule"]): g for g in point["gains"]}
    assert point["people"] == 8
    for rule in ("equal", "best"):
        assert gains["a'", rule]["difference"] == pytest.approx(0.2)  # 0.5 over S1's best row
        assert gains["a'", rule]["recovered"] == pytest.approx(0.4)
        assert gains["whole", rule]["difference"] == pytest.approx(0.4)
        assert gains["b'", rule]["difference"] == pytest.approx(0.2)
        assert gains["b'", rule]["p"] < 0.01
    assert all(report.holds_in(point, name) for name in rows.HEADLINES)
    line = point["lines"]["S1 + generated"]["equal"]
    assert line["band"][0] <= line["mean"] <= line["band"][1]


def test_a_condition_with_one_number_of_labels_borrows_the_lines_that_know_no_generator(summary):
    points = {p["a class"]: p for p in report.curve_points(summary, "none")}
    assert list(points) == [5, 10, 20, 40, 0]
    assert points[10]["lines"]["S1 + generated"]["equal"]["mean"] == pytest.approx(0.4)
    assert points[20]["lines"]["S1 + generated"]["equal"] == {}
    assert points[20]["lines"][curve.BASE]["equal"]["mean"] == pytest.approx(0.4)
    assert "Generator told: none." in report.sections(summary)


def test_conditions_are_compared_in_pairs(summary):
    gains = {
        (f"{g['of']} − {g['against']}", g["name"]): g["difference"]
        for g in summary["conditions"]
        if g["rule"] == "equal"
    }
    assert list(dict.fromkeys(pair for pair, _ in gains)) == [
        *("CP − classifier", "CP − label", "CP − none"),
        *("CP, flow − CP", "classifier, flow − classifier", "CP, flow − classifier, flow"),
    ]
    assert gains["CP − none", rows.GENERATED] == pytest.approx(0.1)
    assert gains["CP − none", rows.BOTH + rows.CONFIDENT] == 0
    assert gains["classifier, flow − classifier", rows.GENERATED] == pytest.approx(0.2)


def test_a_flow_is_told_apart(summary):
    assert report.conditions(summary)[-2:] == ["CP, flow", "classifier, flow"]
    assert "convolutional and flow (ours, no GAN) generators" in report.describe(summary)
    points = report.headline_points(summary)
    made = {k: p["lines"]["S1 + generated"]["equal"]["mean"] for k, p in points.items()}
    assert made["classifier, flow"] == pytest.approx(0.6)
    assert made["classifier"] == pytest.approx(0.4)


def test_a_half_done_grid_is_summarised_and_an_empty_one_names_its_command(tmp_path):
    grid = few_labels.cells()
    with pytest.raises(files.UserError, match="train them with: the command"):
        curve.summary(grid, "the command", tmp_path)
    few_labels.write_run(tmp_path, grid[0].config)
    found = curve.summary(grid, "the command", tmp_path)
    assert found["cells"] == {"done": 1, "all": len(grid)}
    assert found["worth"] == {"CP": {"equal": {}, "best": {}}}
    assert found["conditions"] == []
    assert "needs S1 at two numbers" in "\n".join(report.sections(found))


def test_the_report_is_written_and_kept_for_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "checkpoints_folder", lambda: tmp_path / "runs")
    grid = few_labels.write_grid(tmp_path / "runs")
    path = report.write(grid, tmp_path / "out", "the sweep", "this report")
    text = path.read_text()
    assert "(a') generated voices over S1's best row without S3" in text
    assert "| CP − classifier |" in text
    told = ("cp", "classifier", "label", "none", "cp-flow", "classifier-flow")
    pictures = {f"labels-{name}.{ending}" for name in told for ending in ("png", "pdf")}
    assert {p.name for p in path.parent.iterdir()} == {"report.md"} | pictures
    kept = curve.load_all()
    assert list(kept) == ["demo"]
    assert report.sections(kept["demo"])[1] in text
    old = json.dumps(kept["demo"] | {"conditions": [{"against": "none"}]})
    for damaged, why in (
        ("{", "cannot be read"),
        ('{"preset": "demo"}', "it lacks cells"),
        (old, "of an earlier form.*report --grid labels"),
    ):
        (curve.results_folder() / "demo.json").write_text(damaged)
        with pytest.raises(files.UserError, match=why):
            curve.load_all()


def test_surrogate_pairs_are_named_in_the_report(summary):
    said = report.sections(summary | {"corpus": "surrogate-pairs"})
    assert report.SURROGATE_NOTE in said
    assert report.SURROGATE_NOTE not in report.sections(summary)


def test_the_grid_has_the_curve_and_each_condition_at_its_headline():
    cells = protocol.cells("labels", few_labels.BASE)
    assert len(cells) == 10 * 5 * 3
    at = {(c.config.data.labels_per_class, curve.told(c.config)) for c in cells}
    assert at == {(n, "CP") for n in (5, 10, 20, 40, 0)} | {
        (10, c) for c in ("classifier", "label", "none", "CP, flow", "classifier, flow")
    }
    flow = replace(few_labels.BASE, gan={"generator": "flow"})
    own = protocol.cells("labels", flow)
    assert len(own) == 8 * 5 * 3
    assert {c.config for c in cells if "flow" in c.name} < {c.config for c in own}


def test_a_face_classifier_that_averages_its_weights_is_not_cut_short():
    for name, steps in (("demo", 300), ("surrogate-pairs", PRESETS["surrogate-pairs"].f_s.steps)):
        found = {c.config.f_s.steps for c in protocol.cells("labels", PRESETS[name], 1, 1)}
        assert found == {steps}
