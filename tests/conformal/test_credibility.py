"""The range of a credibility: no point falls below it, and a softmax reaches it."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import files
from core.config.settings import ConformalSettings
from core.conformal import credibility, prediction, predictor
from core.runs import store

MEASURES, GROUPS = ("margin", "hinge"), ("pooled", "class")


def softmax_rows(rng: np.random.Generator, K: int, n: int) -> np.ndarray:
    """Rows of every kind: peaked, flat, of two labels, and rounded so that scores tie."""
    rows = [rng.dirichlet(np.full(K, a), n) for a in (0.1, 0.5, 1, 5, 50)]
    pairs, share = np.zeros((n, K)), rng.random(n)
    for row, t in zip(pairs, share):
        row[rng.permutation(K)[:2]] = t, 1 - t
    tied = np.round(rows[2] * 4)
    tied[np.arange(n), 0] += 4 - tied.sum(axis=1)
    return np.concatenate([*rows, pairs, np.clip(tied, 0, 4) / np.clip(tied, 0, 4).sum(1)[:, None]])


def fit(rng, K: int, n: int, kind: str, measure: str, groups: str) -> predictor.Predictor:
    """A predictor of random points, whose features are their log softmax."""
    o, label = rng.dirichlet(np.ones(K), n), rng.integers(0, K, n)
    fold = predictor.draw_folds(kind, n, 1.0, int(rng.integers(1000)))
    features = np.log(o + 0.01)
    centre, scale = predictor.whitening(features)
    arrays = {"o_S2": o, "label_S2": label, "fold_S2": fold}
    arrays |= {"features_centre": centre, "features_scale": scale}
    arrays["features_S2"] = predictor.whiten(centre, scale, features)
    return predictor.from_arrays(ConformalSettings(measure, groups, 1.0, kind), arrays)


@settings(max_examples=120)
@given(
    seed=st.integers(0, 10**6),
    K=st.integers(2, 6),
    n=st.integers(1, 50),
    measure=st.sampled_from(MEASURES),
    groups=st.sampled_from(GROUPS),
)
def test_no_softmax_falls_below_the_range_and_one_reaches_it(seed, K, n, measure, groups):
    rng = np.random.default_rng(seed)
    f = fit(rng, K, n, "inductive", measure, groups)
    low, is_exact = credibility.lowest(f)
    points = softmax_rows(rng, K, 60)
    best = prediction.credibility(predictor.rank(f, points, np.zeros((len(points), 0)))[0])
    assert is_exact
    assert best.min() >= low - 1e-9
    # the softmax that reaches it, from the scores that each label must exceed
    scores, label = predictor.calibration_scores(f)
    own = [scores[label == k] if groups == "class" else scores for k in range(K)]
    limits = np.array([credibility._limit(np.sort(g)[::-1], low) for g in own])
    o = credibility.reaching_softmax(limits, measure)
    assert o is not None
    assert o.sum() == pytest.approx(1)
    p = predictor.rank(f, o[None], np.zeros((1, 0)))[0]
    assert prediction.credibility(p)[0] == pytest.approx(low, abs=1e-9)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    K=st.integers(2, 4),
    n=st.integers(8, 30),
    kind=st.sampled_from(("head", "cross", "full")),
    measure=st.sampled_from(MEASURES),
    groups=st.sampled_from(GROUPS),
)
def test_no_point_falls_below_the_range_of_any_kind(seed, K, n, kind, measure, groups):
    rng = np.random.default_rng(seed)
    f = fit(rng, K, n, kind, measure, groups)
    x = rng.normal(0, 3, (12, f.features.shape[1])) * rng.choice([0.1, 1, 10], (12, 1))
    p = predictor.rank(f, np.full((12, K), 1 / K), x)[0]
    low, is_exact = credibility.lowest(f)
    assert prediction.credibility(p).min() >= low - 1e-9
    assert is_exact == (kind == "head")
    assert 0 < low <= 1


def test_margin_and_pooled_it_is_the_share_of_scores_from_zero():
    alpha = np.array([-0.9, -0.5, 0.1, 0.3, 0.6])
    assert credibility.lowest_of_scores([alpha] * 4, "margin") == pytest.approx((3 + 1) / 6)
    # hinge: the flattest softmax has alpha = 1 - 1/K under every label
    assert credibility.lowest_of_scores([np.array([0.1, 0.7, 0.8])] * 4, "hinge") == 0.5
    # a class that no point calibrates is in every set
    assert credibility.lowest_of_scores([alpha, np.zeros(0)], "margin") == 1.0


@pytest.mark.parametrize(
    ("name", "low"), [("fer2013-ravdess-cp-e4390286", 0.46), ("demo-cp-87b4dc5a", 0.33)]
)
def test_the_shipped_runs_cannot_give_a_low_credibility(name, low):
    run = store.Run(files.ROOT / "checkpoints" / name)
    f, p = predictor.of_run(run), run.arrays()["p_S4"]
    s = credibility.scale(f, p)
    assert s.low == pytest.approx(low, abs=0.005)
    assert prediction.credibility(p).min() >= s.low
    alpha, _ = predictor.calibration_scores(f)
    assert s.low == pytest.approx(((alpha >= 0).sum() + 1) / (len(alpha) + 1))
    # the percentile counts the test points of a higher credibility
    best = prediction.credibility(p)
    for value in np.quantile(best, (0.1, 0.5, 0.9)):
        assert s.share_above(float(value)) == pytest.approx((best > value + 1e-12).mean())
    assert (s.share_above(1.0), s.share_above(0.0)) == (0.0, 1.0)
    words = credibility.describe(s, float(best.min()))
    assert f"possible here {s.low:.2f} to 1; lower than " in words
    assert words.endswith("% of test faces")


def test_without_test_points_the_range_stands_alone():
    s = credibility.CredibilityScale(0.25, 1.0, False, np.zeros(0))
    assert credibility.describe(s, 0.5) == "0.50; possible here 0.25 or more"


def test_a_thousand_labels_are_searched_at_once():
    rng = np.random.default_rng(0)
    groups = [rng.uniform(-1, 1, 20) for _ in range(1_000)]
    start = time.process_time()
    assert 0 < credibility.lowest_of_scores(groups) <= 1
    assert time.process_time() - start < 5
