"""Co-training: f_T hears the clips of S3 that f_S sees; no label of S3 is read."""

import dataclasses

import numpy as np
import pytest
import torch

from core.config.settings import replace
from core.conformal import prediction
from core.evaluation.evaluator import FittedClassifiers, image_tensor
from core.experiments import condition_vectors
from core.files import UserError
from core.models import classifiers
from core.runs.directory import Run
from tests.support import small_pipeline
from tests.support.drawn_sets import drawn_sets

N, K, WEIGHT = 24, 6, 0.5
CONFIG = replace(small_pipeline.TINY, gan={"condition": "cp", "co_training": WEIGHT})


@pytest.fixture(scope="module")
def fitted():
    """f_S and f_T of two steps, on S1 of random images."""
    S1 = drawn_sets(N)["S1"]

    def fit(images, modality):
        x, labels = image_tensor(images, torch.device("cpu")), torch.from_numpy(S1.x_label)
        settings = dataclasses.replace(CONFIG.f_t, steps=2)
        return classifiers.fit(x, labels, settings, K, 0, modality)

    f_S, f_T = fit(S1.x, "face"), fit(S1.y, "voice")
    return FittedClassifiers(f_S=f_S, f_T=f_T, Q=f_T, scorer=f_T, digest="")


def computed(folder, fitted, config=CONFIG, **changed):
    """(conditions, arrays of outputs.npz) of drawn sets, some of whose fields are changed."""
    sets = drawn_sets(N)
    sets |= {k: dataclasses.replace(sets[k], **fields) for k, fields in changed.items()}
    folder.mkdir()
    c = condition_vectors.compute_conditions(config, sets, fitted, Run(folder))
    return c, Run(folder).arrays()


def test_the_voice_counts_in_the_conditions_of_s3_alone(tmp_path, fitted):
    plain_c, plain = computed(tmp_path / "plain", fitted, replace(CONFIG, gan={"co_training": 0.0}))
    c, found = computed(tmp_path / "both", fitted)
    y = image_tensor(drawn_sets(N)["S3"].y, torch.device("cpu"))
    heard = classifiers.softmax(fitted.f_T, y)
    product = plain["o_S3"] * heard**WEIGHT
    product /= product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["o_S3"], product, rtol=1e-5)
    assert not np.allclose(found["o_S3"], plain["o_S3"])
    for k in ("S2", "S4"):  # a new face brings no voice
        assert np.array_equal(found[f"o_{k}"], plain[f"o_{k}"])
        assert np.array_equal(found[f"p_{k}"], plain[f"p_{k}"])
        assert np.array_equal(c[k], plain_c[k])
    assert not np.array_equal(c["S3"], plain_c["S3"])
    np.testing.assert_allclose(c["S3"], found["p_S3"], rtol=1e-6)


def test_s2_calibrates_with_its_own_voices(tmp_path, fitted):
    _, found = computed(tmp_path / "run", fitted)
    S2 = drawn_sets(N)["S2"]
    heard = classifiers.softmax(fitted.f_T, image_tensor(S2.y, torch.device("cpu")))
    joint = condition_vectors.joint_softmax(found["o_S2"], heard, WEIGHT)
    rows = found["calibration"]
    p = prediction.inductive_p_values(
        joint[rows], S2.x_label[rows], found["o_S3"], CONFIG.conformal.measure, "pooled"
    )
    np.testing.assert_allclose(found["p_S3"], p)


def test_no_label_of_s3_is_read(tmp_path, fitted):
    no_labels = {"x_label": np.full(N, -1), "y_label": np.full(N, -1)}
    first, _ = computed(tmp_path / "run", fitted)
    same, _ = computed(tmp_path / "unlabelled", fitted, S3=no_labels)
    assert np.array_equal(first["S3"], same["S3"])


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        (CONFIG, {"S2": {"paired": False}}),
        (CONFIG, {"S3": {"paired": False}}),
        (replace(CONFIG, conformal={"kind": "head"}), {}),
    ],
)
def test_it_needs_the_clips_of_both_and_a_predictor_of_softmax(tmp_path, fitted, config, changed):
    with pytest.raises(UserError, match=r"use --gan\.co-training 0"):
        computed(tmp_path / "run", fitted, config, **changed)
