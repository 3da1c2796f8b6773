"""§4.2: IS within its bounds, FID and KID against theory and oracle, confusion matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from core.evaluation import metrics


@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(1, 40))
def test_inception_score_is_between_1_and_k(seed, k, n):
    p = np.random.default_rng(seed).dirichlet(np.full(k, 0.3), n)
    assert 1 - 1e-9 <= metrics.inception_score(p) <= k + 1e-9


def test_inception_score_reaches_its_bounds():
    assert metrics.inception_score(np.eye(5)) == pytest.approx(5)
    assert metrics.inception_score(np.full((7, 4), 0.25)) == pytest.approx(1)
    with pytest.raises(ValueError, match="sum to one"):
        metrics.inception_score(np.ones((3, 3)))


def test_fid_of_a_set_with_itself_is_zero_and_a_shift_is_its_square():
    x = np.random.default_rng(0).normal(size=(200, 16))
    assert metrics.fid(x, x) == pytest.approx(0, abs=1e-9)
    shift = np.linspace(-1, 1, 16)
    assert metrics.fid(x, x + shift) == pytest.approx(
        shift @ shift
    )  # equal covariance: the squared mean distance


def test_fid_is_symmetric_and_that_of_pytorch_fid(pytorch_fid):
    rng = np.random.default_rng(1)
    a, b = (
        rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12)),
        rng.normal(size=(250, 12)) @ rng.normal(size=(12, 12)) + 0.3,
    )
    theirs = pytorch_fid.calculate_frechet_distance(
        a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)
    )
    assert metrics.fid(a, b) == pytest.approx(theirs, rel=1e-6)
    assert metrics.fid(b, a) == pytest.approx(metrics.fid(a, b), rel=1e-6)


def test_fid_of_a_singular_covariance():
    rng = np.random.default_rng(2)
    a = np.hstack([rng.normal(size=(50, 3)), np.zeros((50, 3))])
    assert metrics.fid(a, a + [0, 0, 0, 1, 0, 0]) == pytest.approx(1)


def test_kid_is_unbiased_around_zero_and_grows_with_a_shift():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(400, 8)), rng.normal(size=(400, 8))
    same, spread = metrics.kid(a, b)
    assert abs(same) < 3 * spread
    assert metrics.kid(a, b + 2)[0] > 10 * spread


def test_density_and_coverage_of_equal_laws_and_of_a_collapsed_generator():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(400, 8)), rng.normal(size=(400, 8))
    density, coverage = metrics.density_coverage(a, b)
    assert density == pytest.approx(1, abs=0.15)
    assert coverage > 0.9
    one = np.repeat(a[:1], 400, axis=0) + 1e-3 * b
    assert metrics.density_coverage(a, one)[1] < 0.1
    assert metrics.density_coverage(a, b + 50) == (0.0, 0.0)
    counted = [
        sum(np.linalg.norm(r - g) <= sorted(np.linalg.norm(a[:60] - r, axis=1))[3] for r in a[:60])
        for g in b[:30]
    ]
    assert metrics.density_coverage(a[:60], b[:30], k=3)[0] == pytest.approx(np.mean(counted) / 3)
    with pytest.raises(ValueError, match="more than k"):
        metrics.density_coverage(a[:5], b)


@pytest.mark.parametrize("n", range(13))
def test_few_samples_give_a_finite_figure_or_say_how_many_are_needed(n):
    rng = np.random.default_rng(n)
    a, b, p = rng.normal(size=(n, 4)), rng.normal(size=(n, 4)), rng.dirichlet(np.ones(3), n)
    measures = {
        "FID": (2, lambda: metrics.fid(a, b)),
        "KID": (2, lambda: metrics.kid(a, b)[0]),
        "density": (metrics.NEIGHBOURS + 1, lambda: metrics.density_coverage(a, b)[0]),
        "coverage": (metrics.NEIGHBOURS + 1, lambda: metrics.density_coverage(a, b)[1]),
        "IS": (1, lambda: metrics.inception_score(p)),
        "axes": (2, lambda: metrics.principal_axes(a)[1].sum()),
    }
    for name, (least, measure) in measures.items():
        if n < least:
            with pytest.raises(metrics.TooFewSamples):
                measure()
        else:
            assert np.isfinite(measure()), name


def test_kid_has_no_spread_where_every_subset_is_the_whole():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(100, 4)), rng.normal(size=(101, 4))
    assert np.isnan(metrics.kid(a, b[:100])[1])
    assert metrics.kid(a, b)[1] > 0


def test_features_that_do_not_fit_are_refused():
    for a, b in (
        (np.ones((3, 2)), np.ones((3, 3))),
        (np.ones((1, 2)), np.ones((3, 2))),
        (np.full((3, 2), np.nan), np.ones((3, 2))),
    ):
        with pytest.raises(ValueError, match="features"):
            metrics.fid(a, b)


def test_confusion_and_accuracy_are_those_of_scikit_learn():
    rng = np.random.default_rng(4)
    labels, guesses = rng.integers(0, 5, 300), rng.integers(0, 5, 300)
    matrix = metrics.confusion(labels, guesses, 5)
    assert np.array_equal(matrix, confusion_matrix(labels, guesses))
    assert metrics.accuracy(matrix) == pytest.approx((labels == guesses).mean())


def test_principal_axes_hold_the_most_variance_and_do_not_flip():
    rng = np.random.default_rng(0)
    real = rng.normal(0, 1, (200, 5)) * (1, 9, 1, 3, 1) + 7
    centre, axes, share = metrics.principal_axes(real)
    assert np.abs(axes.argmax(axis=0)).tolist() == [1, 3]
    assert axes.max(axis=0) == pytest.approx([1, 1], abs=0.05)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-12)
    assert share[0] == pytest.approx(
        ((real - centre) @ axes)[:, 0].var() * 5 / real.var(axis=0).sum() / 5
    )
    assert 1 > share.sum() > 0.9
    again = metrics.principal_axes(real[::-1].copy())
    np.testing.assert_allclose(again[1], axes, atol=1e-9)
    assert metrics.principal_axes(np.ones((3, 2)))[2].tolist() == [0, 0]
    with pytest.raises(ValueError, match="principal axes"):
        metrics.principal_axes(np.zeros((4, 1)))
