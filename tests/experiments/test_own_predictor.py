"""A run's predictor is one thing: training, generation, page and command give the same p-values."""

import json

import numpy as np
import pytest

from core import files
from core.cli import inference as commands
from core.config.settings import replace
from core.conformal import analysis, calibration, credibility, prediction, predictor
from core.data import splits
from core.experiments import condition_vectors, pipeline
from core.files import UserError
from core.inference import conditions, generation, long_form
from core.media.faces import alignment
from core.models import classifiers
from core.runs import store
from core.runs.directory import Run
from tests.support import small_pipeline

KINDS = ("inductive", "head", "cross", "full")


@pytest.fixture(scope="module")
def run_of_kind(demo_world):
    """kind -> a run of it that is done; trained at the first call."""
    done: dict[str, Run] = {}

    def train(kind: str) -> Run:
        config = replace(
            small_pipeline.TINY,
            name=kind,
            f_s={"steps": 60},
            conformal={"kind": kind, "r": 0.9},
            evaluate={"rows": ("S1",)},
        )
        if kind not in done:
            done[kind] = pipeline.run(config, demo_world / "runs", "cpu")
        return done[kind]

    return train


def faces_of(run: Run, name: str) -> np.ndarray:
    return alignment.to_uint8(splits.build_sets(run.config)[name].x)


@pytest.mark.parametrize("kind", KINDS)
def test_every_user_of_a_run_gets_its_own_p_values(run_of_kind, kind, monkeypatch):
    """Generation, condition lab, long form, page and command: p_S4 of outputs.npz, and its c."""
    run = run_of_kind(kind)
    stored, faces = run.arrays()["p_S4"], faces_of(run, "S4")
    opened = generation.load_run(run)
    seen = generation.explain_faces(opened, faces)
    assert np.array_equal(np.stack([e.p for e in seen]), stored)
    # the c that is fed to G, by each way to it
    told = np.stack([generation.condition_of(opened, e)[0] for e in seen])
    assert np.array_equal(told, stored.astype(told.dtype))
    some = conditions.of_faces(opened, faces[:4])
    assert np.abs(some - stored[:4]).max() <= 2 / opened.predictor.calibrates.sum()
    clip = generation.AnalysedClip(
        *("clip", np.arange(3.0), np.zeros((3, 8, 8, 3), np.uint8), np.zeros((3, 4)), faces[:3]),
        *(np.ones(3, bool), 1, None, (), 1),
    )
    voice = long_form.generate_long_voice(opened, clip)
    assert np.array_equal(voice.c, np.stack([e.p for e in voice.explanations]).astype(np.float32))
    # the page's analysis and the command's
    data = calibration.data_from_run(run)
    view = analysis.analyse_outputs(data, own=True)
    assert (view.kind, view.n) == (kind, opened.predictor.calibrates.sum())
    assert np.array_equal(view.p, stored)
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(run.directory.parent))
    report = json.loads(analysis.run_report(run.id, as_json=True))
    assert (report["kind"], report["p"]) == (kind, stored.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_the_scores_that_a_page_shows_are_those_behind_the_p_values(run_of_kind, kind):
    run = run_of_kind(kind)
    f, out = predictor.of_run(run), run.arrays()
    p, alpha = predictor.rank(f, out["o_S4"], out["features_S4"])
    for i in range(0, len(p), 7):
        folds = predictor.point_scores(f, out["o_S4"][i], out["features_S4"][i])
        assert len(folds) == (predictor.CROSS_FOLDS if kind == "cross" else 1)
        mean = np.mean(
            [
                [(np.sum(s >= a) + 1) / (len(s) + 1) for a, s in zip(one.alpha, one.scores)]
                for one in folds
            ],
            axis=0,
        )
        assert mean == pytest.approx(p[i], abs=1e-12)
        assert np.mean([one.alpha for one in folds], axis=0) == pytest.approx(alpha[i], abs=1e-6)


def test_the_kinds_are_the_textbook_functions(run_of_kind):
    """head, cross and full are the pure functions of `prediction` on the stored arrays."""
    for kind, expected in (
        ("head", lambda a: prediction.split_p_values(*a[:3], a[3] == 1, 6)),
        ("cross", lambda a: prediction.cross_p_values(*a[:3], a[3], 6)),
        ("full", lambda a: prediction.full_p_values(*a[:3], 6)),
    ):
        run = run_of_kind(kind)
        f, out = predictor.of_run(run), run.arrays()
        parts = f.features, f.label, out["features_S4"], f.fold
        assert expected(parts) == pytest.approx(out["p_S4"], abs=1e-9), kind
        assert not np.allclose(out["p_S4"], run_of_kind("inductive").arrays()["p_S4"], atol=0.05)


@pytest.mark.parametrize("kind", ["head", "cross", "full"])
def test_a_run_without_its_predictors_arrays_says_so_and_its_command_mends_it(run_of_kind, kind):
    run = run_of_kind(kind)
    path, whole = run.directory / "outputs.npz", run.arrays()
    results = (run.directory / "results.json").read_bytes()
    old = {k: v for k, v in whole.items() if not k.startswith(("features_", "fold_"))}
    files.write_arrays(path, **old)
    for read in (generation.load_run, calibration.data_from_run):
        with pytest.raises(UserError, match=r"outputs.npz lacks .*python -m core train --config-f"):
            read(run)
    pipeline.run(run.config, run.directory.parent, "cpu")
    assert run.arrays().keys() == whole.keys()
    assert all(np.array_equal(v, run.arrays()[k]) for k, v in whole.items())
    assert (run.directory / "results.json").read_bytes() == results
    assert store.list_runs(run.directory.parent)[0]["state"] == "done"


def test_an_inductive_run_without_features_opens_as_before(run_of_kind):
    """Runs from before the features were stored: inductive, with the rows that calibrated."""
    run = run_of_kind("inductive")
    whole = run.arrays()
    new = ("features_", "fold_")
    files.write_arrays(
        run.directory / "outputs.npz", **{k: v for k, v in whole.items() if not k.startswith(new)}
    )
    opened = generation.load_run(run)
    p = np.stack([e.p for e in generation.explain_faces(opened, faces_of(run, "S4"))])
    assert np.array_equal(p, whole["p_S4"])
    anew = condition_vectors.arrays_of_run(run)
    assert anew["features_S4"] == pytest.approx(whole["features_S4"], abs=1e-5)
    files.write_arrays(run.directory / "outputs.npz", **whole)


def test_a_share_that_leaves_one_point_is_refused():
    assert predictor.draw_folds("full", 3, 0.3, 0).tolist().count(1) == 1
    for kind in ("head", "cross"):
        with pytest.raises(UserError, match="raise conformal.r"):
            predictor.draw_folds(kind, 3, 0.3, 0)


def test_what_generate_writes_names_the_scale_of_a_credibility(run_of_kind):
    run = run_of_kind("full")
    opened = generation.load_run(run)
    s = opened.credibility
    assert s.low == pytest.approx(1 / (opened.predictor.calibrates.sum() + 1))
    assert np.array_equal(s.usual, np.sort(prediction.credibility(run.arrays()["p_S4"])))
    assert credibility.describe(s, 0.5).startswith("0.50; possible here")
    assert classifiers.FEATURE_WIDTHS["face"] == len(opened.predictor.centre)


def test_the_command_compares_calibration_sizes_with_full_cp(run_of_kind, monkeypatch, capsys):
    """On a run that stores no features too, as long as its corpus is here."""
    run = run_of_kind("inductive")
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(run.directory.parent))
    whole = run.arrays()
    old = {k: v for k, v in whole.items() if not k.startswith(("features_", "fold_"))}
    files.write_arrays(run.directory / "outputs.npz", **old)
    commands.conformal(commands.ConformalOptions(run.id, choose_r=True, json=True))
    files.write_arrays(run.directory / "outputs.npz", **whole)
    found = json.loads(capsys.readouterr().out)
    full = found["S4"][-1]
    assert (full["kind"], full["n"], full["judged"]) == ("full", *map(len, _labels(whole)))
    softmax = next(c for c in found["S4"] if c["name"] == "inductive(100%) on the softmax")
    f = predictor.of_run(run)
    every = replace(run.config, conformal={"r": 1.0}).conformal
    o, label = whole["o_S2"], whole["label_S2"]
    p = prediction.inductive_p_values(o, label, whole["o_S4"], every.measure, every.groups)
    error = (prediction.true_scores(p, whole["label_S4"]) <= 0.1).mean()
    assert softmax["error"][0][1] == pytest.approx(error)
    assert f.measure == every.measure


def _labels(arrays):
    return arrays["label_S2"], arrays["label_S4"]
