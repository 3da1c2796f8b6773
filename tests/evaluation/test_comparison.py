"""Runs side by side: best steps, comparability, repetitions, the paper's tables, commands."""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import replace as changed

import numpy as np
import pytest
import tyro

from core.cli import training
from core.config.presets import DEMO, FER_RAVDESS, PRESETS
from core.config.settings import replace
from core.evaluation import comparison, protocol, results, significance
from core.evaluation.comparison import RunSummary
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.table_arrays import ON_S2, RIGHT, a_table

ROWS = {"S1": 0.5, "S1 + generated": 0.6, "S1 + S3": 0.7}


def a(config=DEMO, scorer="abc", name="run", digest="d", **rows) -> RunSummary:
    """A finished run."""
    quality = {"FID": 2.0, "IS": 2.5, "scorer": scorer, "features": 16}
    table = {k: {"accuracy": v} for k, v in (ROWS | rows).items()}
    results = {
        "augmentation": table,
        "quality": quality,
        "N test voices": 100,
        "face": {"accuracy": 0.65},
        "chance": 1 / 6,
    }
    return RunSummary(
        f"{name}-{config.data.fold}{config.seed}",
        "done",
        False,
        config,
        results,
        scorer,
        None,
        math.nan,
        digest,
    )


def curves(fid, kid, n=200):
    steps = [100 * k for k in range(len(fid))]
    return {"FID": (steps, fid), "KID": (steps, kid), "N": ([0], [float(n)])}


def test_the_best_step_is_s2s_and_fid_leads_only_where_n_allows_it():
    c = curves([0.1, 5, 3, 4], [0.1, 2, 2, 1])
    assert comparison.best_step(c, 16) == (200, "FID")  # step 0 is the untrained generator
    assert comparison.best_step(c, 21) == (
        300,
        "KID",
    )  # 200 voices are fewer than ten for each feature
    assert comparison.best_step(c, None) == (300, "KID")
    assert comparison.best_step(curves([1.0], [1.0]), 16) is None
    assert comparison.best_step({}, 16) is None
    assert comparison.best_step(curves([9, 3, 3], [9, 3, 3]), 16) == (
        100,
        "FID",
    )  # of equals the earliest


def test_a_run_as_a_line_holds_what_is_known_and_nothing_else():
    line = comparison.run_record(a())
    assert (line["S1"], line["S1 + S3"], line["N"], line["chance"]) == (
        50,
        70,
        100,
        pytest.approx(100 / 6),
    )
    assert line["KID"] is None
    assert line["minutes"] is None
    begun = comparison.run_record(
        RunSummary("x", "running", False, DEMO, {}, "", (300, "KID"), math.nan, "")
    )
    assert begun["S1"] is begun["FID"] is begun["N"] is None
    assert (begun["best step"], begun["labels"]) == (300, "strict")
    assert list(begun) == list(line)
    assert (line["trainings"], line["S1 sd"], line["people"]) == (1, None, None)


def test_several_trainings_replace_the_one_and_are_never_beside_it():
    rows = {"S1": {"N train": 9, "equal": {"accuracy": [0.2, 0.4]}, "best": {"accuracy": [0.9]}}}
    table = {"rows": rows, "test subjects": ["a", "b", "c"]}
    several = changed(a(), table=table)
    line = comparison.run_record(several)
    assert (line["S1"], line["trainings"], line["people"]) == (pytest.approx(30), 2, 3)
    assert line["S1 sd"] == pytest.approx(100 * np.std([0.2, 0.4], ddof=1), abs=0.05)
    assert several.accuracy("S1 + generated") == 0.6  # of the one training
    words = " ".join(comparison.caveats([several, a(name="alone")]))
    assert "means over 1 and 2 trainings" in words


def test_floors_of_an_earlier_rule_are_never_beside_new_ones():
    def measured(evaluation, name):
        s = a(name=name)
        quality = s.results["quality"] | {"FID real": 1.65, "KID real": 0.1, "coverage real": 0.73}
        rule = {"evaluation": evaluation} if evaluation else {}
        return changed(s, results=s.results | rule | {"quality": quality})

    now, then = measured(results.EVALUATION_VERSION, "now"), measured(None, "then")
    assert comparison.run_record(now)["FID real"] == 1.65
    line = comparison.run_record(then)
    assert line["FID real"] is line["KID real"] is line["coverage real"] is None
    assert line["FID"] == 2.0  # of generated samples, whose rule is the same
    assert results.WITHDRAWN in " ".join(comparison.caveats([now, then]))
    assert comparison.caveats([now, measured(results.EVALUATION_VERSION, "too")]) == []
    means = significance.format_mean([s.quality("FID real") for s in (now, then)], digits=2)
    assert means == "1.65"


def test_alike_runs_need_no_caveat_and_each_difference_has_its_own():
    label = replace(DEMO, gan={"condition": "label"})
    assert comparison.caveats([a(), a(replace(DEMO, gan={"condition": "classifier"}))]) == []
    (said,) = comparison.caveats([a(), a(label, name="l")])
    assert "labels were seen by some" in said
    (said,) = comparison.caveats([a(), a(scorer="other", name="o")])
    assert "2 scoring networks" in said
    other = a(replace(DEMO, data={"fold": 1}), name="f")
    (said,) = comparison.caveats([a(), other])
    assert "other people" in said
    assert "another chance" in "".join(comparison.caveats([a(), a(FER_RAVDESS, name="r")]))
    assert "prepared otherwise" in "".join(comparison.caveats([a(), a(digest="e", name="p")]))
    (said,) = comparison.caveats([a(), a(replace(DEMO, seed=1), S1=0.4)])
    assert "compare gains" in said
    (said,) = comparison.caveats([a(replace(DEMO, gan={"steps": 4}))])
    assert "mean nothing" in said


def test_figures_of_two_scorers_never_share_an_axis():
    found = [a(), a(scorer="other", name="o"), a(replace(DEMO, seed=1))]
    assert [[s.id for s in g] for g in comparison.group_by_scorer(found).values()] == [
        ["run-00", "run-01"],
        ["o-00"],
    ]
    assert (
        len(comparison.group_by_scorer([changed(a(name=n), scorer="") for n in "ab"])) == 2
    )  # nobody knows whose they are


def test_an_unfinished_run_has_the_scorer_of_a_finished_one_if_its_file_is_the_same(tmp_path):
    for name, content in (("done-00", b"same"), ("run-a", b"same"), ("run-b", b"other")):
        (tmp_path / name / "models").mkdir(parents=True)
        (tmp_path / name / "models" / "scorer.safetensors").write_bytes(content)
    unfinished = [
        RunSummary(k, "running", False, DEMO, {}, "", None, math.nan, "")
        for k in ("run-a", "run-b", "run-c")
    ]
    found = {
        s.id: s.scorer for s in comparison.with_scorers([a(name="done"), *unfinished], tmp_path)
    }
    assert found["done-00"] == found["run-a"] == "abc"
    assert found["run-b"] not in ("", "abc")
    assert found["run-c"] == ""


def test_short_names_tell_runs_apart():
    assert list(comparison.short_names([a()]).values()) == ["CP"]
    two = [a(replace(DEMO, seed=s)) for s in (0, 1)]
    assert list(comparison.short_names(two).values()) == ["CP · seed 0", "CP · seed 1"]
    alike = [
        a(name="one"),
        a(replace(DEMO, data={"fold": 0}, gan={"l1": 0.0}), name="two", digest="x"),
    ]
    alike[1] = changed(alike[1], id="two-11")
    assert len(set(comparison.short_names(alike).values())) == 2


def test_repetitions_differ_in_fold_and_seed_alone():
    found = [a(replace(DEMO, seed=s, data={"fold": f})) for f in (1, 0) for s in (0, 1)]
    found += [a(replace(DEMO, gan={"l1": 0.0}), name="bare"), a(digest="another")]
    groups = comparison.repetitions(found)
    assert sorted(map(len, groups)) == [1, 1, 4]
    assert [(s.config.data.fold, s.config.seed) for s in groups[0]] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]


# ------------------------------------------------------------------ the paper's tables


def test_the_papers_tables_are_filled_from_the_runs_that_exist():
    cells = {c.name: c.config for c in protocol.cases(DEMO)}
    found = [
        a(
            replace(cells["EncDec · CP"], name="mine", seed=s),
            scorer=f"s{s}",
            **{"S1 + generated": 0.5 + s / 10},
        )
        for s in (0, 1)
    ]
    of = comparison.runs_by_case(DEMO, found)
    assert [s.id for s in of["EncDec · CP"]] == [s.id for s in found]
    one = {e.case: e for e in comparison.table_1(of)}
    assert one["EncDec · CP"].values == (50, pytest.approx(60))
    assert one["EncDec · CP"].published == {"CREMA-D": 50.29}
    assert one["U-Net · label"].values == ()
    two = {(e.case, e.metric): e for e in comparison.table_2(comparison.by_condition(of))}
    assert two["audio baseline", "accuracy"].values == (50, 50)
    assert two["face baseline", "accuracy"].values == (65, 65)
    assert two["CP", "FID"].values == (2, 2)
    assert two["CP", "FID"].n_scorers == 2
    assert two["CP", "FID"].published == {"CREMA-D": 60.10, "RAVDESS": 49.95}
    assert two["label", "IS"].values == ()
    rows = {r["case"]: r for r in comparison.table_2_rows(list(two.values()))}
    assert list(rows) == ["audio baseline", "face baseline", "label", "classifier", "CP"]
    assert rows["CP"]["ours: accuracy, %"] == "55.0 ± 7.1 (2)"
    assert (rows["CP"]["ours: FID"], rows["label"]["ours: IS"]) == ("2.00 ± 0.00 (2)", "–")
    assert (rows["CP"]["CREMA-D: FID"], rows["audio baseline"]["RAVDESS: IS"]) == ("60.10", "")
    row = comparison.table_1_rows(comparison.table_1(of))[-1]
    assert (row["condition"], row["EncDec: paper"], row["U-Net: ours"]) == ("CP", "50.29", "–")
    assert comparison.runs_by_case(FER_RAVDESS, found) == {}


def test_what_is_missing_names_a_command_that_trains_just_that():
    bases = {b.title: b for b in protocol.base_settings()}
    for base in (bases["demo, the paper's method"], bases["studio"]):
        cells = {c.name: c.config for c in protocol.cases(base.config)}
        names = [
            "U-Net · label",
            "EncDec without L1 · classifier",
            "EncDec without source · CP",
            "28×28 · CP",
        ]
        for name, command in protocol.missing_cases(base, {}, names).items():
            words = shlex.split(command)
            assert words[:4] == ["python", "-m", "core", "train"]
            default = training.TrainOptions(preset=base.preset, config=PRESETS[base.preset])
            parsed = tyro.cli(training.TrainOptions, args=words[4:], default=default)
            assert parsed.config == cells[name], command
    assert (
        protocol.missing_cases(
            bases["demo"], {"EncDec · CP": [a()]}, ["EncDec · CP", "no such case"]
        )
        == {}
    )


def test_only_the_papers_own_corpora_compare():
    assert comparison.published_corpus(PRESETS["paper"]) == "CREMA-D"
    assert comparison.published_corpus(DEMO) == comparison.published_corpus(FER_RAVDESS) == ""


# ------------------------------------------------------------------ chance


@pytest.mark.parametrize("m", [1, 5, 9])
def test_p_is_the_share_of_tossed_means_as_far_from_0(m):
    d = np.random.default_rng(m).normal(0.1, 0.3, m)
    tossed = significance.sign_flip_means(d)
    assert len(tossed) == 2**m
    assert significance.sign_flip_p_value(d) == pytest.approx(
        (np.abs(tossed) >= abs(d.mean()) - 1e-12).mean()
    )
    assert significance.sign_flip_p_value(np.ones(m)) == significance.min_p_value(m)


def test_many_people_are_tossed_at_random_from_a_seed():
    d = np.random.default_rng(0).normal(0, 1, 30)
    assert np.array_equal(
        significance.sign_flip_means(d, 500), significance.sign_flip_means(d, 500)
    )
    assert abs(significance.sign_flip_means(d).mean()) < 0.02
    with pytest.raises(ValueError, match="m >= 1"):
        significance.sign_flip_means(np.array([]))


def test_the_differences_of_people_are_those_of_the_gain():
    tables = [a_table(RIGHT, ON_S2, 4), a_table(RIGHT, ON_S2, 4, first=4)]
    for g in significance.gains(tables):
        rows = significance.COMPARISONS[g.name]
        assert g.people == significance.comparison_differences(tables, *rows, g.rule)[0]
        of, _ = significance.comparison_differences(tables, *rows, g.rule)
        assert list(of) == [f"s{k}" for k in range(8)]
        assert np.mean(list(of.values())) == pytest.approx(g.difference)
    bare = a_table({k: v for k, v in RIGHT.items() if "pseudo" not in k}, ON_S2)
    rows = significance.COMPARISONS["pseudo-labels"]
    assert significance.comparison_differences([bare], *rows, "best")[0] == {}


@pytest.mark.parametrize("people", range(1, 12))
def test_few_people_are_shown_and_no_interval(people):
    for g in significance.gains([a_table(RIGHT, ON_S2, people)]):
        assert len(g.people) == g.subjects == people
        text = significance.format_gain(g)
        if people < significance.MIN_INTERVAL_SUBJECTS:
            assert g.interval is None
            assert text.count("+") + text.count("-") == 1 + people
        else:
            assert g.interval[0] <= g.difference <= g.interval[1]
            assert "95 %" in text


def test_a_run_on_disk_is_read_without_its_networks(home):
    run = trained_runs.fabricate_run("running")
    row = next(r for r in store.list_runs() if r["run"] == run.id)
    s = comparison.summarise_run(run, row, store.load_curves(run.id))
    assert (s.state, s.results, s.best, s.condition) == ("running", {}, None, "CP")
    assert math.isnan(s.seconds)
    (run.directory / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        comparison.summarise_run(Run(run.directory), row, {})


def test_the_time_of_a_run_is_from_its_last_start_to_its_results(home):
    run = trained_runs.fabricate_run("running")
    (run.directory / "results.json").write_text("{}")
    stamp = (run.directory / "results.json").stat().st_mtime
    said = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stamp - 600))
    assert comparison.training_seconds(run, {"created": said}) == pytest.approx(600, abs=1.5)
    later = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stamp + 600))
    assert math.isnan(
        comparison.training_seconds(run, {"created": later})
    )  # it was opened again since
    assert math.isnan(comparison.training_seconds(run, {}))
    again = {"created": said, "evaluated again": later}
    assert math.isnan(comparison.training_seconds(run, again))
    (run.directory / "CARD.md").write_text("shipped")
    assert math.isnan(comparison.training_seconds(run, {"created": said}))
