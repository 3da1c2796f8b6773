"""What goes wrong in a training is said in words: small sets, and a generator that collapsed."""

import pytest

from core.config.presets import DEMO, SMOKE, STAGE
from core.config.settings import replace
from core.runs import diagnosis


def table(classes=None, subjects=2, clips=100):
    """A table of sets, as sets.json holds it, whose S3 is as given."""

    def side(classes, subjects, clips):
        return {
            "clips": clips,
            "classes": classes or {"happy": 5, "sad": 5},
            "subjects": {f"p{i}": {} for i in range(subjects)},
            "unknown": 0,
        }

    usual = {k: {s: side(None, 2, 100) for s in ("faces", "voices")} for k in ("S1", "S2", "S4")}
    return usual | {"S3": {s: side(classes, subjects, clips) for s in ("faces", "voices")}}


def test_of_whole_sets_nothing_is_said():
    assert diagnosis.set_warnings(SMOKE, table()) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"classes": {"happy": 5, "sad": 0}}, "S3 has no voices of sad"),
        ({"subjects": 1}, "The voices of S3 are of one person"),
        ({"clips": 12}, "G learns from 12 voices, fewer than a batch of 32"),
        ({"clips": 12}, "--gan.batch 12"),
    ],
)
def test_a_set_that_is_too_small_is_named(given, words):
    assert words in " ".join(diagnosis.set_warnings(SMOKE, table(**given)))


def test_a_listening_run_learns_from_three_sets():
    config = replace(SMOKE, data={"listening": True})
    assert diagnosis.set_warnings(config, table(clips=12)) == []


@pytest.mark.parametrize("odd", [[], {"S1": 3}, {"S3": {"voices": {}}}, {"S1": {"faces": None}}])
def test_a_strangers_table_is_no_warning_and_no_error(odd):
    assert diagnosis.set_warnings(SMOKE, odd) == []


def test_a_collapse_is_told_by_the_last_diversity_after_the_first_steps():
    steps = SMOKE.gan.steps
    assert diagnosis.collapse_warning(SMOKE, 0, 0.007) == ""  # an untrained G
    assert diagnosis.collapse_warning(STAGE, 20, 0.001) == ""  # its first look, on a stage
    assert diagnosis.collapse_warning(STAGE, 40, 0.001)
    assert diagnosis.collapse_warning(SMOKE, steps, 0.08) == ""  # as one of our shipped runs
    assert diagnosis.collapse_warning(SMOKE, steps, None) == ""
    assert "collapsed: at step 40" in diagnosis.collapse_warning(SMOKE, steps, 0.001)
    curves = {"diversity": ([0, 20, 40], [0.007, 0.001, 0.5])}
    assert diagnosis.training_warnings(SMOKE, table(), curves) == []
    curves = {"diversity": ([0, 20, 40], [0.007, 0.5, 0.001])}
    assert len(diagnosis.training_warnings(SMOKE, table(), curves)) == 1


@pytest.mark.parametrize(
    ("steps", "fid", "is_told"),
    [
        ([0, 300, 600], [17.0, 7.9, 10.3], True),  # a run of a grid: two thirds of what it was
        ([0, 300, 600], [15.3, 7.8, 3.6], False),
        ([0, 200], [17.0, 16.0], False),  # before half of the steps
        ([300, 600], [7.9, 10.3], False),  # what it was is not known
        ([0, 600], [17.0, float("nan")], False),
    ],
)
def test_a_generator_that_hardly_learns_is_told_by_its_fid_in_the_second_half(steps, fid, is_told):
    config = replace(DEMO, gan={"steps": 600})
    found = diagnosis.training_warnings(config, table(clips=99), {"FID": (steps, fid)})
    assert ["G hardly learns: at step 600" in words for words in found] == [True] * is_told
    assert diagnosis.generator_warning(SMOKE, {"FID": ([0, 40], [9.0, 9.0])}) == ""  # too short
