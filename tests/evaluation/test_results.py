"""Figures of results and tables: one rule for a row's accuracy, floors withdrawn, texts."""

import math

import numpy as np
import pytest

from core.evaluation import results
from core.evaluation.results import EVALUATION_VERSION

QUALITY = {"FID": 1.742, "FID real": 0.9, "coverage real": 0.73, "N": 112}


def found(**more) -> dict:
    """Results of a run of one training for each row, tested on 8 voices of 2 people."""
    row = {"accuracy": 0.25, "confusion": [[1, 3], [3, 1]], "N train": 40}
    base = {"augmentation": {"S1": row, "S1 + S3": row}, "quality": QUALITY, "N test voices": 8}
    return base | {"subjects": {"S4": ["a", "b"]}, "evaluation": EVALUATION_VERSION} | more


def table(**rows) -> dict:
    """A table of three trainings of the row S1."""
    one = {"accuracy": [0.25, 0.5, 0.75], "confusion": [[6, 6], [6, 6]]}
    best = {"accuracy": [0.5, 0.5, 0.5], "confusion": [[6, 6], [6, 6]]}
    rows = rows or {"S1": {"N train": 41, "equal": one, "best": best}}
    return {"rows": rows, "test subjects": ["a", "b"]}


def test_an_accuracy_is_the_tables_mean_and_else_the_one_training():
    one = results.row_accuracy(found(), {}, "S1")
    assert (one.mean, one.trainings, one.samples, one.people) == (0.25, 1, 8, 2)
    assert math.isnan(one.sd)
    many = results.row_accuracy(found(), table(), "S1")
    assert (many.mean, many.sd, many.trainings) == (0.5, 0.25, 3)
    assert many.text == "50.0 ± 25.0 % (3 trainings)"
    assert one.text == "25.0 % (one training)"
    assert results.row_accuracy(found(), table(), "S1", "best").sd == 0
    assert results.row_accuracy(found(), table(), "S1 + S3").trainings == 1  # not in the table
    missing = results.row_accuracy(found(), {}, "S1", "best")
    assert (missing.trainings, missing.text) == (0, "–")
    assert results.row_accuracy({}, {}, "S1").trainings == 0


@pytest.mark.parametrize("made", [{}, table()])
def test_the_confusion_is_of_the_trainings_behind_the_accuracy(made):
    counts, trainings = results.row_confusion(found(), made, "S1")
    a = results.row_accuracy(found(), made, "S1")
    assert trainings == a.trainings
    assert counts.sum() == 8 * trainings
    assert np.trace(counts) / counts.sum() == pytest.approx(a.mean)
    assert results.row_confusion(found(), made, "no row") is None


def test_rows_stand_in_the_tables_order_and_sizes_are_those_of_the_accuracy():
    assert results.row_names(found(), table()) == ["S1", "S1 + S3"]
    assert results.row_size(found(), table(), "S1") == 41
    assert results.row_size(found(), {}, "S1") == 40


@pytest.mark.parametrize("evaluation", [None, 1, EVALUATION_VERSION + 1])
def test_floors_of_another_rule_are_withdrawn_and_nothing_else(evaluation):
    old = found(evaluation=evaluation) if evaluation else found()
    if not evaluation:
        del old["evaluation"]
    assert math.isnan(results.quality(old, "FID real"))
    assert results.quality_text(old, "coverage real") == "withdrawn"
    assert results.quality_text(old, "KID real") == "–"  # it was never measured
    assert results.quality(old, "FID") == 1.742
    assert results.WITHDRAWN in results.withdrawal_note(old)
    assert "run-1" in results.rules_note({"run-1": (old, {})})
    assert results.quality_text(found(), "FID real") == "0.90"
    assert results.withdrawal_note(found()) == results.withdrawal_note({}) == ""
    assert results.rules_note({"run-1": (found(), {}), "run-2": (found(), {})}) == ""
    assert "of one training" in results.rules_note({"a": (found(), {}), "b": (found(), table())})


def test_people_who_are_not_known_are_not_counted():
    unknown = found(subjects={"S4": ["image-00001", "clip: x.jpg"]})
    assert results.row_accuracy(unknown, {}, "S1").people == 0
    assert "people unknown" in results.s4_text(unknown, {})
    assert results.s4_text(found(), {}) == "8 voices of 2 people"


def test_a_difference_is_said_to_be_worth_what_the_trainings_show():
    many, one = results.noise_text(found(), table()), results.noise_text(found(), {})
    assert "± 25.0 points" in many
    assert "not known" in one
    for text in (many, one):
        assert "8 voices of 2 people" in text
        assert "noise" not in text


def test_the_curves_reference_names_the_rule_that_it_follows():
    of = {"FID real": ([0], [1.0])}
    now = of | {"evaluation": ([0], [float(EVALUATION_VERSION)])}
    assert results.reference_label(now, "faces") == "real faces of S3"
    assert "S1" in results.reference_label(of)
    assert "not met" in results.reference_text(now)
    assert "earlier rule" in results.reference_text(of)
