"""Error curves, bands and criteria of conformal predictors against simulations and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from core.conformal import calibration, prediction, validity
from core.conformal.validity import EPS_LEVELS

SIZES = [((180, 300),), ((19, 40),), ((30, 50), (12, 0), (25, 90))]


def exchangeable(sizes, repeats, seed, smoothed):
    """p-values of true labels for exchangeable scores, with a new calibration set per repeat."""
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        yield np.concatenate(
            [
                prediction.p_values(
                    rng.random(n), rng.random((1, m)), rng=rng if smoothed else None
                )[0]
                for n, m in sizes
            ]
        )


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("smoothed", [False, True])
def test_the_band_is_left_in_3_to_7_percent_of_500_repeats(sizes, smoothed):
    law = validity.null_band(sizes, smoothed)
    curves = [
        validity.curve_with_band("", p, 0, law) for p in exchangeable(sizes, 500, 1, smoothed)
    ]
    assert 0.03 <= np.mean([c.above > 0 or c.below > 0 for c in curves]) <= 0.07


@pytest.mark.parametrize(("n", "m"), [(180, 300), (40, 25), (5, 200)])
def test_each_level_is_beta_binomial(n, m):
    law = validity.null_band(((n, m),), repeats=4_000, seed=3)
    j = EPS_LEVELS * (n + 1)
    j = np.floor(j + 1e-9).astype(int)
    assert np.allclose(law.expected, j / (n + 1), atol=1e-12)
    inside = (j > 0) & (j <= n)
    exact = stats.betabinom(m, j[inside], n - j[inside] + 1)
    for tail, found in (
        (0.025, law.low),
        (0.975, law.high),
    ):  # the simulated quantile lies between the exact ones of near tails
        counts = np.round(found[inside] * m, 6)
        assert (counts >= exact.ppf(tail - 0.012)).all()
        assert (counts <= exact.ppf(tail + 0.012)).all()
    assert (law.upper[~inside] == law.expected[~inside]).all()
    assert (
        (law.lower <= law.low) & (law.upper >= law.high) | ~inside
    ).all()  # simultaneous is wider than pointwise


def test_the_band_is_wider_than_independent_binomials_would_say():
    n, m = 100, 5_000
    law, at = validity.null_band(((n, m),)), 10
    pointwise = law.high[at] - law.low[at]
    assert pointwise > 3 * np.diff(stats.binom(m, 0.1).ppf([0.025, 0.975]) / m)[0]


def test_same_arguments_same_band():
    a, b, other = (validity.null_band(((50, 60),), True, 300, seed) for seed in (0, 0, 1))
    assert np.array_equal(a.upper, b.upper)
    assert np.array_equal(a.deviation, b.deviation)
    assert not np.array_equal(a.deviation, other.deviation)


@pytest.mark.parametrize("sizes", [((50, 400),), ((20, 100), (30, 100))])
def test_uniformity_is_rejected_as_often_as_it_says_and_a_textbook_test_is_not(sizes):
    law = validity.null_band(sizes, True)
    p = list(exchangeable(sizes, 500, 2, True))
    ours = np.mean([validity.p_value_histogram(v, law).p <= 0.05 for v in p])
    textbook = np.mean([stats.kstest(v, "uniform").pvalue <= 0.05 for v in p[:100]])
    assert 0.03 <= ours <= 0.07
    assert textbook > 0.3
    shifted = validity.p_value_histogram(p[0] ** 2, law)
    assert shifted.p < 0.01
    assert shifted.share[0] > shifted.high[0]


def test_histogram_shares_and_interval():
    law = validity.null_band(((200, 300),), True)
    p = list(exchangeable(((200, 300),), 60, 5, True))
    found = [validity.p_value_histogram(v, law) for v in p]
    for v, h in zip(p[:5], found):
        assert np.allclose(h.share * 300, np.histogram(v, h.edges)[0])
    assert (
        0.9
        <= np.mean([(h.share >= h.low - 1e-12) & (h.share <= h.high + 1e-12) for h in found])
        <= 0.99
    )


def test_a_curve_says_where_it_leaves_the_band():
    law = validity.null_band(((500, 400),))
    good = (np.arange(400) + 1) / 401
    assert (
        validity.curve_with_band("x", good, 500, law).above,
        validity.curve_with_band("x", good, 500, law).below,
    ) == (0, 0)
    bad = validity.curve_with_band("bad", np.maximum(good**2, 0.002), 500, law)
    worst = bad.error - law.upper
    assert bad.above == pytest.approx(worst.max())
    assert worst[int(round(100 * bad.above_at))] == worst.max()
    assert bad.below == 0
    assert np.isnan(bad.below_at)
    assert validity.curve_with_band("shy", np.sqrt(good), 500, law).below > 0.1


p_arrays = st.integers(2, 6).flatmap(
    lambda k: st.tuples(
        arrays(
            np.float64,
            st.tuples(st.integers(1, 12), st.just(k)),
            elements=st.sampled_from([0.01, 0.05, 0.07, 0.2, 0.29, 0.5, 1.0]),
        ),
        st.lists(st.integers(0, k - 1), min_size=12, max_size=12),
        st.sampled_from([0.05, 0.07, 0.1, 0.29, 0.33, 0.5]),
    )
)


@settings(max_examples=60)
@given(p_arrays)
def test_curves_and_criteria_are_their_definitions(drawn):
    p, labels, eps = drawn
    labels = np.array(labels[: len(p)])
    e, error = validity.efficiency(p), validity.error_curve(prediction.true_scores(p, labels))
    for i, level in enumerate(EPS_LEVELS):
        size = (p > level).sum(axis=1)
        assert e.size[i] == pytest.approx(size.mean())
        assert e.single[i] == pytest.approx((size == 1).mean())
        assert e.empty[i] == pytest.approx((size == 0).mean())
        assert error[i] == pytest.approx(np.mean([row[t] <= level for row, t in zip(p, labels)]))
    c = validity.criteria(p, labels, eps)
    assert set(c) == set(validity.CRITERIA)
    sets = [{k for k, v in enumerate(row) if v > eps} for row in p]
    falses = [np.delete(row, t) for row, t in zip(p, labels)]
    by_hand = {
        "error": [t not in s for s, t in zip(sets, labels)],
        "N": [len(s) for s in sets],
        "M": [len(s) > 1 for s in sets],
        "E": [max(len(s) - 1, 0) for s in sets],
        "OM": [bool(s - {t}) for s, t in zip(sets, labels)],
        "OE": [len(s - {t}) for s, t in zip(sets, labels)],
        "S": [sum(row) for row in p],
        "U": [sorted(row)[-2] for row in p],
        "F": [sum(sorted(row)[:-1]) for row in p],
        "OU": [max(f) for f in falses],
        "OF": [sum(f) for f in falses],
        "single": [len(s) == 1 for s in sets],
        "empty": [not s for s in sets],
        "credibility": [max(row) for row in p],
        "confidence": [1 - sorted(row)[-2] for row in p],
    }
    for name, values in by_hand.items():
        assert c[name] == pytest.approx(np.mean(values)), name
    right = [s == {t} for s, t in zip(sets, labels) if len(s) == 1]
    assert (
        c["single right"] == pytest.approx(np.mean(right)) if right else np.isnan(c["single right"])
    )


def test_reliability_by_hand():
    o = np.array([[0.9, 0.1], [0.95, 0.05], [0.3, 0.7], [0.4, 0.6]])
    found = validity.reliability(o, np.array([0, 1, 1, 0]), bins=10)
    assert found.count.tolist() == [
        0,
        0,
        0,
        0,
        0,
        1,
        1,
        0,
        1,
        1,
    ]  # bins are closed on the right: 0.6 is in (0.5, 0.6]
    assert found.ece == pytest.approx((0.1 + 0.95 + 0.3 + 0.6) / 4)
    assert np.isnan(found.accuracy[0])


@pytest.mark.parametrize("by", ["width", "mass"])
def test_a_calibrated_softmax_has_little_error_and_a_boastful_one_much(by):
    rng = np.random.default_rng(0)
    o = rng.dirichlet(np.full(4, 0.8), 20_000)
    labels = (o.cumsum(axis=1) < rng.random((len(o), 1))).sum(axis=1)
    honest = validity.reliability(o, labels, by=by)
    assert honest.count.sum() == len(o)
    assert honest.ece < 0.02
    sharp = o**3 / (o**3).sum(axis=1, keepdims=True)
    assert validity.reliability(sharp, labels, by=by).ece > 0.1
    if by == "mass":
        assert np.ptp(honest.count) <= 1
        assert (np.diff(honest.confidence) >= 0).all()


def softmaxes(n, m, k=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n + m)
    o = np.round(rng.dirichlet(np.ones(k), n + m) + 0.4 * np.eye(k)[labels], 2)  # rounded: ties
    return o[:n] / 1.4, labels[:n], o[n:] / 1.4, labels[n:]


@pytest.mark.parametrize("groups", ["pooled", "class"])
@pytest.mark.parametrize("eps", [0.05, 0.2, 0.5])
def test_calibration_sizes_are_what_smaller_sets_give(groups, eps):
    o_cal, l_cal, o, labels = softmaxes(60, 50)
    alpha = prediction.true_scores(prediction.nonconformity(o_cal), l_cal)
    p = prediction.inductive_p_values(o_cal, l_cal, o, groups=groups)
    r, by = np.array([0.02, 0.3, 0.75, 1.0]), l_cal if groups == "class" else None
    found = calibration.calibration_sizes(alpha, p, labels, eps, r, draws=3, seed=9, group_cal=by)
    rng = np.random.default_rng(9)
    for d in range(3):
        order = rng.permutation(60)
        for i, n in enumerate(found.n):
            rows = order[:n]
            kept = prediction.inductive_p_values(o_cal[rows], l_cal[rows], o, groups=groups) > eps
            assert found.size[i, d] == pytest.approx(kept.sum(axis=1).mean())
            assert found.error[i, d] == pytest.approx(1 - kept[np.arange(50), labels].mean())
    assert np.ptp(found.size[-1]) == 0


@pytest.mark.parametrize("group", [None, np.arange(600) % 3])
def test_the_reference_is_valid_whatever_the_subjects(group):
    rng = np.random.default_rng(0)
    alpha = np.concatenate(
        [rng.normal(size=300), 3 + rng.normal(size=300)]
    )  # two very different people
    found = validity.random_splits(alpha, 10_000, validity.null_band, draws=200, group=group)
    assert (found.n, found.m) == (300, 300)
    assert 0.01 <= found.left <= 0.09
    assert np.abs(found.error.mean(axis=0) - EPS_LEVELS).max() < 0.02
    across = validity.curve_with_band(
        "new subject",
        prediction.p_values(alpha[:300], alpha[None, 300:])[0],
        300,
        validity.null_band(((300, 300),)),
    )
    assert across.above > 0.5
    few = validity.random_splits(alpha, 50, validity.null_band, smoothed=True, draws=2)
    assert (few.n, few.m) == (50, 550)


@pytest.mark.parametrize("smoothed", [False, True])
def test_of_many_groups_the_normal_curves_are_the_simulated_ones(monkeypatch, smoothed):
    rng = np.random.default_rng(0)
    sizes = tuple((int(n), int(m)) for n, m in rng.integers(1, 12, (80, 2)))
    normal = validity.null_band(sizes, smoothed)
    monkeypatch.setattr(validity, "MANY_GROUPS", 80)
    simulated = validity.null_band(sizes, smoothed)
    assert normal.expected == pytest.approx(simulated.expected, abs=1e-12)
    for name in ("low", "high", "lower", "upper", "bin_low", "bin_high"):
        one, other = getattr(normal, name), getattr(simulated, name)
        assert np.abs(one - other).max() < 0.015, name
    half = len(normal.deviation) // 2
    assert normal.deviation[half] == pytest.approx(simulated.deviation[half], rel=0.1)
