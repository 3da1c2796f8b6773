"""§3.1: p-values equal those of crepes, are bounded and super-uniform; full CP counts right."""

import numpy as np
import pytest
from crepes import ConformalClassifier
from crepes.extras import hinge, margin
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression

from core.conformal import logistic, prediction


@st.composite
def problems(draw):
    """Softmax outputs and labels of calibration and test points; coarse, so ties are common."""
    k, n, m = draw(st.integers(2, 6)), draw(st.integers(1, 30)), draw(st.integers(1, 12))
    rows = draw(arrays(np.int64, (n + m, k), elements=st.integers(0, 7))) + 1e-3
    o = rows / rows.sum(axis=1, keepdims=True)
    return o[:n], draw(arrays(np.int64, n, elements=st.integers(0, k - 1))), o[n:]


@settings(max_examples=200)
@given(problems(), st.sampled_from(["margin", "hinge"]))
def test_equal_to_crepes_to_the_last_bit(problem, measure):
    o_cal, labels, o_test = problem
    oracle = {"margin": margin, "hinge": hinge}[measure]
    classes = np.arange(o_cal.shape[1])
    assert np.array_equal(prediction.nonconformity(o_test, measure), oracle(o_test))
    alpha_cal = oracle(o_cal, classes, labels)
    theirs = ConformalClassifier().fit(alpha_cal).predict_p(oracle(o_test), smoothing=False)
    assert np.array_equal(prediction.inductive_p_values(o_cal, labels, o_test, measure), theirs)
    by_class = prediction.inductive_p_values(o_cal, labels, o_test, measure, "class")
    for k in classes:  # class-conditional by K calls
        if not (labels == k).any():
            assert (by_class[:, k] == 1).all()  # an empty group rejects nothing
            continue
        theirs = (
            ConformalClassifier()
            .fit(alpha_cal[labels == k])
            .predict_p(oracle(o_test)[:, k : k + 1], smoothing=False)
        )
        assert np.array_equal(by_class[:, k], theirs[:, 0])


@given(problems())
def test_bounds_and_invariance(problem):
    o_cal, labels, o_test = problem
    alpha_cal = prediction.true_scores(prediction.nonconformity(o_cal), labels)
    alpha = prediction.nonconformity(o_test)
    p = prediction.p_values(alpha_cal, alpha)
    assert p.min() >= 1 / (len(labels) + 1)
    assert p.max() <= 1
    order = np.unique(np.concatenate([alpha_cal, alpha.ravel()]), return_inverse=True)[1].astype(
        float
    )  # an increasing map
    mapped = prediction.p_values(
        order[: len(alpha_cal)], order[len(alpha_cal) :].reshape(alpha.shape)
    )
    assert np.array_equal(p, mapped)
    assert np.array_equal(prediction.credibility(p), p.max(axis=1))
    assert (prediction.confidence(p) <= 1 - p.min(axis=1)).all()


def test_p_values_of_true_labels_are_super_uniform():
    rng = np.random.default_rng(0)
    n, repeats = 19, 20_000
    scores = rng.random((repeats, n + 1))
    p = np.array([prediction.p_values(s[:n], s[None, n:])[0, 0] for s in scores])
    for eps in (0.05, 0.1, 0.25, 0.5):
        assert (p <= eps).mean() <= eps + 4 * np.sqrt(eps * (1 - eps) / repeats)
        assert (p <= eps).mean() >= eps - 4 * np.sqrt(
            eps * (1 - eps) / repeats
        )  # exact where eps (n + 1) is whole


def test_attribute_groups_compare_within_the_group():
    alpha_cal, group_cal = np.array([0.1, 0.2, 0.9, 0.8]), np.array([0, 0, 1, 1])
    p = prediction.p_values(alpha_cal, np.array([[0.5], [0.5]]), group_cal, np.array([[0], [1]]))
    assert p.tolist() == [[1 / 3], [1.0]]


def test_prediction_sets_grow_as_eps_falls():
    p = np.array([[0.9, 0.04, 0.3]])
    assert prediction.prediction_sets(p, 0.05).tolist() == [[True, False, True]]
    assert prediction.prediction_sets(p, 0.5).sum() == 1
    assert prediction.forced_prediction(p).tolist() == [0]


@pytest.mark.parametrize(
    ("cal", "test", "groups"),
    [
        ([[0.1]], [[0.2]], {}),
        ([0.1], [[0.2]], {"group_test": [[0]]}),
        ([0.1], [0.2], {}),
        ([np.nan], [[0.2]], {}),
        ([0.1], [[np.nan]], {}),
        ([0.1], [[0.2]], {"group_cal": [0]}),
        ([0.1], [[0.2]], {"group_cal": [0, 1], "group_test": [[0]]}),
    ],
)
def test_shapes_that_do_not_fit_are_refused(cal, test, groups):
    with pytest.raises(ValueError, match=r"scores|group"):
        prediction.p_values(np.array(cal), np.array(test), **groups)


def test_bad_softmax_is_refused():
    for o in (np.ones((3, 1)), np.ones(3), np.array([[np.nan, 1.0]])):
        with pytest.raises(ValueError, match="softmax"):
            prediction.nonconformity(o)
    with pytest.raises(ValueError, match="measure"):
        prediction.nonconformity(np.ones((1, 2)), "other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="labels"):
        prediction.inductive_p_values(
            np.full((2, 3), 1 / 3), np.array([0, 3]), np.full((1, 3), 1 / 3)
        )
    with pytest.raises(ValueError, match="labels"):
        prediction.inductive_p_values(
            np.full((2, 3), 1 / 3), np.array([0, -1]), np.full((1, 3), 1 / 3)
        )


@given(problems(), st.sampled_from([1, 3, 1 << 17]), st.integers(0, 99))
def test_smoothed_is_its_formula_and_chunks_change_nothing(problem, chunk, seed):
    o_cal, labels, o_test = problem
    alpha_cal, alpha = (
        prediction.true_scores(prediction.nonconformity(o_cal), labels),
        prediction.nonconformity(o_test),
    )
    n, u = len(labels), 1 - np.random.default_rng(seed).random(alpha.shape)
    greater, equal = (
        (op(alpha_cal, alpha[..., None])).sum(axis=-1) for op in (np.greater, np.equal)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "SCORES_PER_CHUNK", chunk)
        p = prediction.p_values(alpha_cal, alpha, rng=np.random.default_rng(seed))
        plain = prediction.p_values(alpha_cal, alpha)
        by_class = prediction.p_values(
            alpha_cal, alpha, labels, np.arange(alpha.shape[1]), np.random.default_rng(seed)
        )
    assert np.array_equal(p, (greater + u * (equal + 1)) / (n + 1))
    assert np.array_equal(plain, (greater + equal + 1) / (n + 1))
    assert p.min() > 0
    assert (p <= plain).all()
    for k in range(alpha.shape[1]):
        own = alpha_cal[labels == k]
        above, tied = (op(own, alpha[:, k, None]).sum(axis=-1) for op in (np.greater, np.equal))
        assert np.array_equal(by_class[:, k], (above + u[:, k] * (tied + 1)) / (len(own) + 1))


def test_scores_of_any_kind_are_ranked_by_value():
    alpha_cal = np.array([0.0, -0.0, np.inf, -np.inf, 1.5])
    new = np.array([[0.0, -0.0, np.inf, -np.inf, 2.0]])
    assert (prediction.p_values(alpha_cal, new) * 6).round().tolist() == [[5, 5, 2, 6, 2]]
    thirds = (
        np.array([1, 2, 3]) / 3
    )  # float32 thirds are not the float64 ones: compared by value, not rounded to each other
    p = prediction.p_values(thirds, thirds.astype(np.float32)[None])
    assert np.array_equal(
        p[0] * 4, [(thirds >= float(t)).sum() + 1 for t in thirds.astype(np.float32)]
    )
    assert prediction.p_values(np.array([1, 2, 3]), np.array([[2.5]])).tolist() == [[0.5]]
    assert prediction.p_values(np.array([1.0]), np.zeros((0, 4))).shape == (0, 4)


@given(problems())
def test_mondrian_floors(problem):
    o_cal, labels, o_test = problem
    p = prediction.inductive_p_values(o_cal, labels, o_test, groups="class")
    n_k = np.bincount(labels, minlength=o_cal.shape[1])
    assert (p >= prediction.min_p_value(n_k)).all()
    assert prediction.min_p_value(19) == 0.05
    strangest = prediction.p_values(np.arange(4.0), np.array([[9.0]]))
    assert strangest[0, 0] == prediction.min_p_value(4)


def test_smoothed_p_values_of_true_labels_are_uniform_even_with_ties():
    rng = np.random.default_rng(1)
    p = np.array(
        [
            prediction.p_values(s[:9], s[None, 9:], rng=rng)[0, 0]
            for s in rng.integers(0, 3, (8_000, 10))
        ]
    )
    for eps in (0.03, 0.1, 0.37, 0.8):
        assert abs((p <= eps).mean() - eps) <= 4 * np.sqrt(eps * (1 - eps) / len(p))


def test_unknown_groups_are_refused():
    o, labels = np.full((2, 3), 1 / 3), np.array([0, 1])
    with pytest.raises(ValueError, match="groups"):
        prediction.inductive_p_values(o, labels, o, groups="sex")  # type: ignore[arg-type]


def nearest_mean(features, labels, classes=3):
    """A toy head: softmax of minus the distance to each class' mean."""
    far = np.full((1, features.shape[1]), 9.0)  # where a class without points stands
    means = np.stack(
        [
            (features[labels == k] if (labels == k).any() else far).mean(axis=0)
            for k in range(classes)
        ]
    )

    def predict(x):
        e = np.exp(-np.abs(x[:, None] - means).sum(axis=-1))
        return e / e.sum(axis=1, keepdims=True)

    return predict


def sklearn_head(features, labels):
    model = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-9, max_iter=5_000)
    one = lambda x: np.hstack([x, np.ones((len(x), 1))])  # noqa: E731
    model.fit(one(features), labels)
    return lambda x: model.predict_proba(one(x))


def brute_force(features, labels, x, fit, measure, groups):
    """Algorithm 1 by the letter, one loop in another."""
    p = np.zeros((len(x), 3))
    for j, row in enumerate(x):
        for k in range(3):
            z, t = np.vstack([features, row]), np.append(labels, k)
            o = fit(z, t)(z)
            score = [
                1 - o[i, t[i]] if measure == "hinge" else max(np.delete(o[i], t[i])) - o[i, t[i]]
                for i in range(len(z))
            ]
            peers = [i for i in range(len(z)) if groups == "pooled" or t[i] == k]
            p[j, k] = sum(score[i] >= score[-1] - 1e-8 for i in peers) / len(peers)
    return p


def blobs(n, m, seed=0, f=2):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(3), rng.integers(0, 3, n + m - 3)])
    x = rng.normal(size=(n + m, f)) + 1.5 * np.eye(3, f)[labels]
    return x[:n], labels[:n], x[n:], labels[n:]


@pytest.mark.parametrize("measure", ["margin", "hinge"])
@pytest.mark.parametrize("groups", ["pooled", "class"])
def test_full_equals_brute_force(measure, groups):
    features, labels, x, _ = blobs(20, 4)
    theirs = brute_force(features, labels, x, nearest_mean, measure, groups)
    assert np.array_equal(
        prediction.full_p_values(features, labels, x, 3, nearest_mean, measure, groups), theirs
    )
    theirs = brute_force(features, labels, x, sklearn_head, measure, groups)
    assert (
        np.abs(
            prediction.full_p_values(features, labels, x, 3, None, measure, groups) - theirs
        ).max()
        < 1e-12
    )


def test_refitting_together_equals_refitting_alone_even_for_outliers():
    features, labels, x, _ = blobs(40, 3, seed=2, f=4)
    x = np.vstack([x, 30 * x[0], -1_000 * x[1], features[5]])
    alone = prediction.full_p_values(
        features, labels, x, 3, lambda f, t: logistic.fit_logistic(f, t, 3)
    )
    assert np.array_equal(prediction.full_p_values(features, labels, x, 3), alone)


def test_a_repeated_point_is_a_tie():
    features, labels, _, _ = blobs(7, 1, seed=3)
    p = prediction.full_p_values(
        np.repeat(features[:3], 5, axis=0), np.repeat(labels[:3], 5), features[:1], 3
    )
    assert p[0, labels[0]] * 16 >= 6 - 1e-9  # the point's five copies are as strange as itself


def test_full_keeps_its_promise():
    errors = []
    for seed in range(150):
        features, labels, x, truth = blobs(9, 2, seed)
        # blobs' first three labels are fixed; shuffled rows are exchangeable
        order = np.random.default_rng(seed).permutation(11)
        z, t = np.vstack([features, x])[order], np.append(labels, truth)[order]
        p = prediction.full_p_values(z[:9], t[:9], z[9:], 3, nearest_mean)
        errors += (p[np.arange(2), t[9:]] <= 0.3).tolist()
    bound = 4 * np.sqrt(0.3 * 0.7 / 150)  # the two points of one repeat depend on each other
    assert abs(np.mean(errors) - 0.3) < bound


def test_cross_is_the_mean_of_splits_and_both_promise_something():
    features, labels, x, truth = blobs(60, 400, seed=4)
    fold = np.arange(60) % 3
    p = prediction.cross_p_values(features, labels, x, fold, 3)
    splits = [prediction.split_p_values(features, labels, x, fold == k, 3) for k in range(3)]
    assert np.array_equal(p, np.mean(splits, axis=0))
    assert not np.array_equal(splits[0], splits[1])
    true = prediction.true_scores(p, truth)
    assert (true <= 0.1).mean() <= 0.2
    by_class = prediction.split_p_values(
        features, labels, x, fold == 0, 3, nearest_mean, "hinge", "class"
    )
    head = nearest_mean(features[fold != 0], labels[fold != 0])
    assert np.array_equal(
        by_class,
        prediction.inductive_p_values(
            head(features[fold == 0]), labels[fold == 0], head(x), "hinge", "class"
        ),
    )
    with pytest.raises(ValueError, match="calibrate"):
        prediction.split_p_values(features, labels, x, np.ones(60, bool), 3)


def test_the_head_is_scikit_learns_and_refuses_nonsense():
    features, labels, x, _ = blobs(200, 50, seed=5, f=6)
    assert (
        np.abs(
            logistic.fit_logistic(features, labels, 3)(x) - sklearn_head(features, labels)(x)
        ).max()
        < 1e-5
    )
    hard = logistic.fit_logistic(1e3 * features, labels, 3)(
        1e3 * x
    )  # nearly separable and badly scaled, still settles
    assert np.isfinite(hard).all()
    with pytest.raises(ValueError, match="labels"):
        logistic.fit_logistic(features, labels + 1, 3)
    with pytest.raises(ValueError, match="features"):
        logistic.fit_logistic(features + np.nan, labels, 3)
    with pytest.raises(ValueError, match="features"):
        prediction.full_p_values(features, labels, x[:, :2], 3)
