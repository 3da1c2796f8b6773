"""§3.1: p-values are exactly those of crepes, bounded, super-uniform, and unchanged by increasing maps of the scores."""

import numpy as np
import pytest
from crepes import ConformalClassifier
from crepes.extras import hinge, margin
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core import conformal


@st.composite
def problems(draw):
    """Softmax outputs of calibration and test points, with labels; coarse values so that ties are common."""
    k, n, m = draw(st.integers(2, 6)), draw(st.integers(1, 30)), draw(st.integers(1, 12))
    rows = draw(arrays(np.int64, (n + m, k), elements=st.integers(0, 7))) + 1e-3
    o = rows / rows.sum(axis=1, keepdims=True)
    return o[:n], draw(arrays(np.int64, n, elements=st.integers(0, k - 1))), o[n:]


@settings(max_examples=1000)
@given(problems(), st.sampled_from(["margin", "hinge"]))
def test_equal_to_crepes_to_the_last_bit(problem, measure):
    o_cal, labels, o_test = problem
    oracle = {"margin": margin, "hinge": hinge}[measure]
    classes = np.arange(o_cal.shape[1])
    assert np.array_equal(conformal.nonconformity(o_test, measure), oracle(o_test))
    alpha_cal = oracle(o_cal, classes, labels)
    theirs = ConformalClassifier().fit(alpha_cal).predict_p(oracle(o_test), smoothing=False)
    assert np.array_equal(conformal.inductive(o_cal, labels, o_test, measure), theirs)
    by_class = conformal.inductive(o_cal, labels, o_test, measure, "class")
    for k in classes:  # class-conditional by K calls
        if not (labels == k).any():
            assert (by_class[:, k] == 1).all()  # an empty group rejects nothing
            continue
        theirs = ConformalClassifier().fit(alpha_cal[labels == k]).predict_p(oracle(o_test)[:, k : k + 1], smoothing=False)
        assert np.array_equal(by_class[:, k], theirs[:, 0])


@given(problems())
def test_bounds_and_invariance(problem):
    o_cal, labels, o_test = problem
    alpha_cal = conformal.true_scores(conformal.nonconformity(o_cal), labels)
    alpha = conformal.nonconformity(o_test)
    p = conformal.p_values(alpha_cal, alpha)
    assert p.min() >= 1 / (len(labels) + 1)
    assert p.max() <= 1
    order = np.unique(np.concatenate([alpha_cal, alpha.ravel()]), return_inverse=True)[1].astype(float)  # an increasing map
    mapped = conformal.p_values(order[: len(alpha_cal)], order[len(alpha_cal) :].reshape(alpha.shape))
    assert np.array_equal(p, mapped)
    assert np.array_equal(conformal.credibility(p), p.max(axis=1))
    assert (conformal.confidence(p) <= 1 - p.min(axis=1)).all()


def test_p_values_of_true_labels_are_super_uniform():
    rng = np.random.default_rng(0)
    n, repeats = 19, 20_000
    scores = rng.random((repeats, n + 1))
    p = np.array([conformal.p_values(s[:n], s[None, n:])[0, 0] for s in scores])
    for eps in (0.05, 0.1, 0.25, 0.5):
        assert (p <= eps).mean() <= eps + 4 * np.sqrt(eps * (1 - eps) / repeats)
        assert (p <= eps).mean() >= eps - 4 * np.sqrt(eps * (1 - eps) / repeats)  # exact where eps (n + 1) is whole


def test_attribute_groups_compare_within_the_group():
    alpha_cal, group_cal = np.array([0.1, 0.2, 0.9, 0.8]), np.array([0, 0, 1, 1])
    p = conformal.p_values(alpha_cal, np.array([[0.5], [0.5]]), group_cal, np.array([[0], [1]]))
    assert p.tolist() == [[1 / 3], [1.0]]


def test_prediction_sets_grow_as_eps_falls():
    p = np.array([[0.9, 0.04, 0.3]])
    assert conformal.prediction_sets(p, 0.05).tolist() == [[True, False, True]]
    assert conformal.prediction_sets(p, 0.5).sum() == 1
    assert conformal.prediction(p).tolist() == [0]


@pytest.mark.parametrize(
    ("cal", "test", "groups"),
    [
        ([[0.1]], [[0.2]], {}),
        ([0.1], [0.2], {}),
        ([np.nan], [[0.2]], {}),
        ([0.1], [[np.nan]], {}),
        ([0.1], [[0.2]], {"group_cal": [0]}),
        ([0.1], [[0.2]], {"group_cal": [0, 1], "group_test": [[0]]}),
    ],
)
def test_shapes_that_do_not_fit_are_refused(cal, test, groups):
    with pytest.raises(ValueError, match=r"scores|group"):
        conformal.p_values(np.array(cal), np.array(test), **groups)


def test_bad_softmax_is_refused():
    for o in (np.ones((3, 1)), np.ones(3), np.array([[np.nan, 1.0]])):
        with pytest.raises(ValueError, match="softmax"):
            conformal.nonconformity(o)
    with pytest.raises(ValueError, match="measure"):
        conformal.nonconformity(np.ones((1, 2)), "other")  # type: ignore[arg-type]
