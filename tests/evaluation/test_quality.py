"""The floor is of people whom the scorer has not met; few samples; a run measured again."""

import json
import shutil
from dataclasses import replace as changed

import numpy as np
import pytest
import torch

from core import files
from core.config.settings import replace
from core.data import prepared_corpora, splits
from core.evaluation import augmentation, metrics, protocol, quality, results
from core.experiments import pipeline
from core.experiments.sweeping import sweep
from core.models import classifiers, networks
from core.runs import store
from core.runs.directory import Run
from tests.support.small_pipeline import TINY, weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def measured(finished_run):
    """The finished run's networks, sets and conditions."""
    sets, c = quality.load_sets(finished_run, TINY)
    scorer, G = (networks.load(finished_run.model_path(k)) for k in ("scorer", "G"))
    return sets, c, scorer, G


def cut(s: splits.SampleSet, n: int) -> splits.SampleSet:
    """The first n clips of each class in turn, so that n clips hold min(n, K) classes."""
    order = np.argsort([np.sum(s.x_label[:i] == k) for i, k in enumerate(s.x_label)], kind="stable")
    i = order[:n]
    parts = (s.x[i], s.x_label[i], s.x_subject[i], s.y[i], s.y_label[i], s.y_subject[i])
    return splits.SampleSet(*parts, s.paired, s.classes)


def test_the_floor_compares_s4_with_s3_and_with_nobody_else(finished_run, measured):
    sets, c, scorer, G = measured

    def figures(**other):
        return quality.measure_quality(TINY, sets | other, scorer, c["S4"], G, CPU)[2]

    base = figures()
    stored = finished_run.json("results")["quality"]
    assert base == {k: v for k, v in stored.items() if k != "scorer"}
    # the scorer's own training data is not even looked at
    assert figures(S1=None, S2=None) == base
    s = sets["S3"]
    noise = np.random.default_rng(0).uniform(-1, 1, s.y.shape).astype(np.float32)
    moved = figures(S3=changed(s, y=noise))
    for name in results.FLOORS:
        assert moved[name] != base[name]
    assert {k: v for k, v in moved.items() if k not in results.FLOORS} == {
        k: v for k, v in base.items() if k not in results.FLOORS
    }


def test_the_floor_is_the_mean_of_balanced_draws_of_the_same_number(measured):
    sets, _, scorer, _ = measured
    S3, S4 = sets["S3"], sets["S4"]
    real, other = (classifiers.outputs(scorer, quality.image_tensor(s.y, CPU))[1] for s in (S4, S3))
    out = quality.Measurements()
    quality.measure_floors(out, real, other, S3.y_label, 7)
    assert out["N real"] == len(real) == 30
    found = []
    for draw in range(7, 7 + quality.FLOOR_DRAWS):
        rows = quality.balanced_draw(S3.y_label, len(real), draw)
        assert np.bincount(S3.y_label[rows]).tolist() == [5] * 6
        assert len(set(rows)) == len(rows)
        found.append(metrics.fid(real, other[rows]))
    assert out["FID real"] == pytest.approx(np.mean(found), rel=1e-6)


def test_the_floor_is_of_all_of_s3_however_little_of_it_trains(demo_world):
    few = replace(TINY, data={"g_fraction": 0.2})
    whole, part = splits.build_sets(TINY), splits.build_sets(few)
    assert len(part["S3"].y) < len(whole["S3"].y)
    assert np.array_equal(quality.unknown_samples(few, part).y, whole["S3"].y)


@pytest.mark.parametrize("n", range(1, 13))
def test_every_figure_of_few_samples_is_finite_or_absent_with_a_reason(measured, n):
    sets, c, scorer, G = measured
    S4, S3 = cut(sets["S4"], n), cut(sets["S3"], n)
    *_, found, notes = quality.measure_quality(
        TINY, sets | {"S3": S3, "S4": S4}, scorer, c["S4"][:n], G, CPU
    )
    assert all(np.isfinite(v) for v in found.values())
    names = {"FID", "KID", "density", "coverage", "diversity", *results.FLOORS, "IS", "IS real"}
    for name in names - set(found):
        assert any(name in note for note in notes), (name, notes)
    if found["N"] > metrics.NEIGHBOURS:
        assert names <= set(found)
    if found["N"] == 1:
        assert names & set(found) == {"IS", "IS real"}
    json.loads(json.dumps(found, allow_nan=False))


@pytest.mark.parametrize(("name", "n"), [("S4", 5), ("S2", 1)])
def test_a_training_with_few_test_or_calibration_clips_ends_as_done(
    demo_world, monkeypatch, name, n
):
    build = splits.build_sets
    monkeypatch.setattr(splits, "build_sets", lambda c: (s := build(c)) | {name: cut(s[name], n)})
    run = pipeline.run(TINY, demo_world / f"few-{name}", "cpu")
    assert store.list_runs(demo_world / f"few-{name}")[0]["state"] == "done"
    found = run.json("results")
    if name == "S4":
        assert "coverage" not in found["quality"]
        assert any("more than k = 5" in note for note in found["notes"])
        assert results.quality_text(found, "coverage") == "–"
    table = augmentation.compute_table(run, augmentation.TableSettings(1, 1, 1))
    assert table["rows"]["S1"]["equal"]["accuracy"]


# ------------------------------------------------------------------ an earlier rule


def of_an_earlier_rule(run: Run, folder) -> Run:
    """A copy of a run whose floors were measured otherwise."""
    copy = Run(shutil.copytree(run.directory, folder / run.id))
    found = copy.json("results")
    del found["evaluation"]
    found["quality"] |= dict.fromkeys(results.FLOORS, 99.0)
    files.write_json(copy.directory / "results.json", found)
    return copy


def content(run: Run) -> dict[str, bytes]:
    """Weights, curves, samples, outputs and generated samples of a run, byte for byte."""
    changing = ("results.json", "provenance.json")
    paths = (p for p in sorted(run.directory.rglob("*")) if p.is_file() and p.name not in changing)
    return {str(p.relative_to(run.directory)): p.read_bytes() for p in paths}


def test_a_run_of_an_earlier_rule_is_measured_again_by_the_same_command_and_not_trained(
    finished_run, tmp_path, monkeypatch
):
    copy = of_an_earlier_rule(finished_run, tmp_path)
    before, said = content(copy), []

    def never(*a, **k):
        raise AssertionError("it trains")

    monkeypatch.setattr(classifiers, "training_steps", never)
    monkeypatch.setattr("core.models.gan.train", never)
    again = pipeline.run(TINY, tmp_path, "cpu", lambda *a: said.append(a))
    assert again.directory == copy.directory
    assert again.json("results") == finished_run.json("results")
    assert content(again) == before
    assert {s[0] for s in said} == {"evaluate again", "sample S4"}  # nothing is trained
    assert "nothing is trained" in said[0][3]
    assert again.json("provenance")["created"] == finished_run.json("provenance")["created"]
    assert "evaluated again" in again.json("provenance")
    said.clear()
    pipeline.run(TINY, tmp_path, "cpu", lambda *a: said.append(a))
    assert said == []


def test_a_sweep_measures_runs_of_an_earlier_rule_again(finished_run, tmp_path):
    of_an_earlier_rule(finished_run, tmp_path / "earlier")
    shutil.copytree(finished_run.directory, tmp_path / "current" / finished_run.id)
    cells, sent = [protocol.Cell("tiny", "ours", TINY)], []
    for name in ("earlier", "current"):
        sweep.train_cells(cells, tmp_path / name, engine=lambda work: sent.append(work.folder.name))
    assert sent == ["earlier"]


def test_a_shipped_copy_is_measured_again_from_what_it_holds(finished_run, tmp_path):
    from core.inference import export

    copy = export.ship_run(of_an_earlier_rule(finished_run, tmp_path / "a"), tmp_path / "b")
    copy = Run(copy)
    assert "withdrawn" in (copy.directory / "CARD.md").read_text()
    pipeline.evaluate_again(copy, CPU)
    now, then = copy.json("results"), finished_run.json("results")
    assert now["quality"] == pytest.approx(then["quality"])
    assert {k: v for k, v in now.items() if k != "quality"} == {
        k: v for k, v in then.items() if k != "quality"
    }


def test_without_its_corpus_a_run_keeps_its_results_and_its_floor_is_withdrawn(
    finished_run, tmp_path, monkeypatch
):
    copy = of_an_earlier_rule(finished_run, tmp_path)
    before = (copy.directory / "results.json").read_bytes()
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "none"))
    with pytest.raises(files.UserError, match="make it with"):
        pipeline.evaluate_again(copy, CPU)
    assert (copy.directory / "results.json").read_bytes() == before
    assert results.quality_text(copy.json("results"), "FID real") == "withdrawn"


def with_moved_pixels(s: splits.SampleSet) -> splits.SampleSet:
    """A pixel of one face in 60 moved by one level of grey."""
    x = s.x.copy()
    x[::60, 14, 14] += np.float32(1 / 127.5)
    return changed(s, x=x)


def with_another_face(s: splits.SampleSet) -> splits.SampleSet:
    """One face in 60 turned over."""
    x = s.x.copy()
    x[::60] *= -1
    return changed(s, x=x)


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (with_moved_pixels, True),
        (with_another_face, False),
        (lambda s: changed(s, x=s.x + np.float32(1e-6), y=s.y - np.float32(1e-6)), True),
        (lambda s: changed(s, y=-s.y), False),
        (lambda s: changed(s, y_subject=np.char.add(s.y_subject, "x")), False),
    ],
    ids=["moved pixels", "other faces", "other bits", "other voices", "other people"],
)
def test_only_the_runs_own_corpus_measures_it_again(
    finished_run, tmp_path, monkeypatch, change, taken
):
    copy, build = of_an_earlier_rule(finished_run, tmp_path), splits.build_sets
    monkeypatch.setattr(splits, "build_sets", lambda c: {k: change(s) for k, s in build(c).items()})
    monkeypatch.setattr(prepared_corpora, "corpus_digest", lambda data: "other")
    if taken:
        pipeline.evaluate_again(copy, CPU)
        floor = results.quality(copy.json("results"), "FID real")
        assert floor == pytest.approx(
            results.quality(finished_run.json("results"), "FID real"), rel=1e-3
        )
    else:
        with pytest.raises(files.UserError, match="prepare that corpus again"):
            pipeline.evaluate_again(copy, CPU)
        assert not results.is_current(copy.json("results"))


def test_another_scorer_is_refused(finished_run, tmp_path):
    copy = of_an_earlier_rule(finished_run, tmp_path)
    shutil.copyfile(copy.model_path("Q"), copy.model_path("scorer"))
    with pytest.raises(files.UserError, match="is not the scorer"):
        pipeline.evaluate_again(copy, CPU)
    assert weights(finished_run)["scorer"] != weights(copy)["scorer"]


def test_a_tables_tests_follow_the_present_rule_without_a_training(
    finished_run, tmp_path, monkeypatch
):
    plan = augmentation.TableSettings(1, 1, 1)
    copy = Run(shutil.copytree(finished_run.directory, tmp_path / finished_run.id))
    table = augmentation.compute_table(copy, plan)
    assert table["evaluation"] == results.EVALUATION_VERSION
    old = table | {"gains": [g | {"interval": [0.1, 0.2]} for g in table["gains"]]}
    del old["evaluation"]
    files.write_json(copy.directory / "table.json", old)
    arrays = (copy.directory / "table.npz").read_bytes()
    monkeypatch.setattr(classifiers, "training_steps", None)
    again = augmentation.compute_table(copy, plan)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(table))
    assert all(g["interval"] is None for g in again["gains"])  # five people
    assert all(len(g["people"]) == g["subjects"] for g in again["gains"])
    assert (copy.directory / "table.npz").read_bytes() == arrays
