"""§4.2, tried: ways of teaching a classifier with generated samples, judged on S2 alone."""

import numpy as np
import pytest
import torch

from core import files
from core.config import ClassifierSettings, replace
from core.data import splits
from core.evaluation import mixing
from core.evaluation.mixing import Stream, Way
from tests.support.small_pipeline import core, tiny, weights, world  # noqa: F401

QUICK = ClassifierSettings(steps=6, batch=8)


def stream(seed: int, n: int = 24, classes: int = 3) -> Stream:
    random = torch.Generator().manual_seed(seed)
    y = torch.rand((n, 1, 28, 28), generator=random) * 2 - 1
    label = torch.arange(n) % classes
    return Stream.of(y, label, torch.nn.functional.one_hot(label, classes).float())


def same(a, b) -> bool:
    return all(
        torch.equal(p, q)
        for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_what_a_way_leaves_out_changes_nothing():
    real, other, made, more = (stream(k) for k in range(4))
    alone = mixing.fitted(Way("", share=0.0), real, made, QUICK, 0)
    assert same(alone, mixing.fitted(Way("", share=0.0), real, more, QUICK, 0))
    assert not same(alone, mixing.fitted(Way("", share=0.0), other, made, QUICK, 0))
    only = mixing.fitted(Way("", share=1.0), real, made, QUICK, 0)
    assert same(only, mixing.fitted(Way("", share=1.0), other, made, QUICK, 0))
    both = mixing.fitted(Way(""), real, made, QUICK, 0)
    assert not same(both, mixing.fitted(Way(""), other, made, QUICK, 0))
    assert not same(both, mixing.fitted(Way(""), real, more, QUICK, 0))


def test_weight_target_order_and_augmentation_matter():
    real, made = stream(0), stream(1)
    plain = mixing.fitted(Way(""), real, made, QUICK, 0)
    told = Stream(made.y, torch.full_like(made.target, 1 / 3), made.chance)
    for way, of in (
        (Way("", weight=0.3), made),
        (Way(""), told),
        (Way("", first=True), made),
        (Way("", plain=True), made),
    ):
        assert not same(plain, mixing.fitted(way, real, of, QUICK, 0))
    assert same(plain, mixing.fitted(Way(""), real, made, QUICK, 0))


def test_each_class_is_drawn_equally_often():
    label = torch.tensor([0] * 90 + [1] * 9 + [2])
    one = Stream.of(torch.zeros(100, 1, 1, 1), label, torch.zeros(100, 3))
    assert [float(one.chance[label == k].sum()) for k in range(3)] == pytest.approx([1, 1, 1])


def test_every_way_of_a_finished_run_is_judged_on_s2_alone(tiny, monkeypatch):  # noqa: F811
    before, build = weights(tiny), splits.build_sets

    def blind(config):
        sets = build(config)
        return {k: v for k, v in sets.items() if k != "S4"}  # S4 is not even there

    monkeypatch.setattr(splits, "build_sets", blind)
    result = mixing.compare(tiny, seeds=2, per_face=2)
    assert list(result["ways"]) == [w.name for w in mixing.WAYS]
    assert weights(tiny) == before
    assert tiny.json("ways") == result
    for way in mixing.WAYS:
        one = result["ways"][way.name]
        assert len(one["accuracy"]) == 2
        assert all(0 <= a <= 1 for a in one["accuracy"])
        assert one["kept"] == 1 if way.keep == "all" else 0 < one["kept"] <= 1
    assert mixing.text(result).count("\n| ") == len(mixing.WAYS)
    assert result == mixing.compare(tiny, seeds=2, per_face=2)


def test_who_calibrates_has_not_trained():
    """The CP that filters: with one subject of four held back, its own voices decide the threshold and train nothing."""
    random = torch.Generator().manual_seed(0)
    label = torch.arange(32) % 2
    y = torch.where(label[:, None, None, None] == 0, -0.8, 0.8) + 0.1 * torch.randn(
        (32, 1, 28, 28), generator=random
    )
    subject = np.array([f"s{k // 8}" for k in range(32)])
    quick = replace(QUICK, steps=60)
    right = mixing._credible(subject, y, label, y, label, quick, 2, 0, "voice")
    wrong = mixing._credible(subject, y, label, y, 1 - label, quick, 2, 0, "voice")
    assert right.mean() > 0.5
    assert wrong.mean() < 0.1


def test_a_run_without_condition_and_a_stop(tiny):  # noqa: F811
    with pytest.raises(files.StopRequested):
        mixing.compare(tiny, seeds=1, per_face=1, should_stop=lambda: True)
