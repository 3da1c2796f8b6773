"""inductive(r) against full CP: each row is the textbook predictor; what is reported of it."""

import numpy as np
import pytest

from core import files
from core.config.presets import SMOKE
from core.config.settings import replace
from core.conformal import logistic, prediction, predictor
from core.evaluation.reporting import calibration_share
from core.evaluation.reporting.calibration_share import Points
from core.files import UserError
from core.runs import store

K = 3


def points(n: int, seed: int) -> Points:
    """Points of K classes whose softmax and features are noisy looks at their label."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, K, n)
    features = 1.2 * np.eye(K)[label] + rng.standard_normal((n, K))
    o = logistic.softmax(1.5 * features + 0.5 * rng.standard_normal((n, K)))
    return Points(o, features, label)


@pytest.mark.parametrize("groups", ["pooled", "class"])
def test_each_row_is_the_textbook_predictor(groups):
    cal, test = points(60, 0), points(40, 1)
    found = {c.name: c for c in calibration_share.compare([(cal, test)], "hinge", groups, seed=7)}
    assert len(found) == 9
    order = np.random.default_rng(7).permutation(60)
    for r in calibration_share.SHARES:
        rows, how = order[: round(r * 60)], ("hinge", groups)
        p = prediction.inductive_p_values(cal.o[rows], cal.label[rows], test.o, *how)
        assert_row(found[f"inductive({r:.0%}) on the softmax"], p, test.label, len(rows))
        if r < 1:
            calibrates = np.isin(np.arange(60), rows)
            parts = cal.features, cal.label, test.features, calibrates, K, None, *how
            p = prediction.split_p_values(*parts)
            assert_row(found[f"inductive({r:.0%}) on the light head"], p, test.label, len(rows))
    p = prediction.full_p_values(cal.features, cal.label, test.features, K, None, "hinge", groups)
    assert_row(found["full CP, light head"], p, test.label, 60)
    fold = predictor.draw_folds("cross", 60, 1.0, 7)
    parts = cal.features, cal.label, test.features, fold, K, None, "hinge", groups
    p = prediction.cross_p_values(*parts)
    assert_row(found["cross-conformal, light head"], p, test.label, 60)


def assert_row(c: calibration_share.Choice, p: np.ndarray, label: np.ndarray, n: int) -> None:
    assert (c.n, c.judged) == (n, len(label))
    best = p.max(axis=1)
    unique = (p == best[:, None]).sum(axis=1) == 1
    right = (p.argmax(axis=1) == label)[unique].sum()
    assert right <= round(c.accuracy[0] * len(label)) <= right + (~unique).sum()
    for i, eps in enumerate(calibration_share.LEVELS):
        kept = p > eps
        assert c.error[0, i] == pytest.approx(1 - kept[np.arange(len(label)), label].mean())
        assert c.size[0, i] == pytest.approx(kept.sum(axis=1).mean())


def test_among_equal_p_values_the_least_strange_label_is_predicted():
    p, alpha = np.array([[0.5, 0.5, 0.2]]), np.array([[0.1, -0.3, -0.9]])
    assert calibration_share.forced_prediction(p, alpha).tolist() == [1]


def test_every_predictor_keeps_its_promise_on_exchangeable_points():
    draws = calibration_share.held_back(points(600, 3), 6, 60, 0)
    assert all(len(a.label) == 300 and len(b.label) == 60 for a, b in draws)
    for c in calibration_share.compare(draws):
        allowed = np.array(calibration_share.LEVELS) * (2 if c.kind == "cross" else 1)
        assert (c.error.mean(axis=0) <= allowed + 0.05).all(), c.name


def fabricated(tmp_path, monkeypatch, **more) -> store.Run:
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(tmp_path))
    config = replace(SMOKE, name="toy", data={"classes": ("a", "b", "c")})
    run = store.create(tmp_path / "toy-cp-00000000", config)
    a, b = points(40, 0), points(30, 1)
    arrays = {f"{k}_S2": getattr(a, k) for k in ("o", "features", "label")}
    arrays |= {f"{k}_S4": getattr(b, k) for k in ("o", "features", "label")}
    arrays |= {"fold_S2": np.ones(40), "features_centre": np.zeros(3), "features_scale": np.eye(3)}
    dropped = more.get("without", ())
    kept = {k: v for k, v in arrays.items() if k not in dropped}
    files.write_arrays(run.directory / "outputs.npz", **kept)
    return run


def test_a_run_is_judged_on_s2_for_the_choice_and_on_s4_for_the_report(tmp_path, monkeypatch):
    run = fabricated(tmp_path, monkeypatch)
    for judged, n, m, where in (("S2", 20, 20, "held-back halves"), ("S4", 40, 25, "are new")):
        found = calibration_share.of_run(run, judged, draws=2, most=25)
        full = found[-1]
        assert (full.kind, full.n, full.judged, len(full.accuracy)) == ("full", n, m, 2)
        words = calibration_share.describe(run.config, found, judged)
        assert where in words
        assert f"N = {m} points, 2 draws" in words
        assert "at most 2ε" in words
        table = calibration_share.table(found)
        assert len(table.splitlines()) == 2 + 9
        assert f"| full CP, light head | {n} | {100 * full.accuracy.mean():.1f} (" in table
    seen = []
    calibration_share.of_run(run, "S4", draws=1, report=lambda *a: seen.append(a))
    assert seen[-1] == (9, 9)


def test_a_run_without_features_says_how_to_get_them(tmp_path, monkeypatch):
    run = fabricated(tmp_path, monkeypatch, without=("features_S4",))
    with pytest.raises(UserError, match="no features of f_S.*--choose-r"):
        calibration_share.of_run(run)
