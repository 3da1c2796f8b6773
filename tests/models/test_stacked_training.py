"""Runs that train together get the weights and values that they get alone."""

import pytest
import torch

from core.config.presets import PRESETS
from core.config.settings import GanSettings
from core.models import gan, stacked_training
from core.models.networks import Classifier
from tests.support import gan_games


def near(a, b):
    return torch.allclose(
        a, b, rtol=1e-6, atol=1e-6
    )  # a bias before batch norm moves by rounding alone, and moves nothing


def together(states, pools, settings, leave=()):
    """Train each in its thread, those in `leave` for 4 steps; return the last steps' values."""
    last = {}

    def work(k, train):
        for record in train(states[k], pools[k], settings[k]):
            last[k] = record.values
            if k in leave and record.step == 4:
                break

    stacked_training.train_together(len(states), work)
    return last


@pytest.mark.parametrize("name", gan_games.GAMES)
def test_a_stack_trains_each_run_as_if_alone(name):
    g = gan_games.GAMES[name]
    alone = [gan_games.state(g, k) for k in range(2)]
    for k, s in enumerate(alone):
        *_, record = gan.train(s, gan_games.pool(k), g)
        if k == 1:
            values = record.values
    states = [gan_games.state(g, k) for k in range(2)]
    last = together(states, [gan_games.pool(k) for k in range(2)], [g] * 2)
    for a, b in zip(states, alone, strict=True):
        assert a.step == g.steps
        assert near(gan_games.everything(a), gan_games.everything(b))
        assert torch.equal(a.generator.get_state(), b.generator.get_state())
    assert last[1].keys() == values.keys()
    assert all(near(last[1][k], values[k]) for k in values)


def test_whoever_leaves_is_whole_and_the_others_go_on():
    g = gan_games.GAMES["ours"]
    alone = [gan_games.state(g, k) for k in range(3)]
    for k, s in enumerate(alone):
        for record in gan.train(s, gan_games.pool(k), g):
            if k == 1 and record.step == 4:
                break
    states = [gan_games.state(g, k) for k in range(3)]
    together(states, [gan_games.pool(k) for k in range(3)], [g] * 3, leave=(1,))
    assert [s.step for s in states] == [10, 4, 10]
    for a, b in zip(states, alone, strict=True):
        assert near(gan_games.everything(a), gan_games.everything(b))


def test_two_of_which_one_leaves_end_apart():
    """The last one trains by itself, its counters its own again."""
    g = gan_games.GAMES["ours"]
    b = gan_games.state(g, 1)
    for _ in gan.train(b, gan_games.pool(1), g):
        pass
    states = [gan_games.state(g, k) for k in range(2)]
    together(states, [gan_games.pool(k) for k in range(2)], [g] * 2, leave=(0,))
    assert near(gan_games.everything(states[1]), gan_games.everything(b))


def test_runs_that_are_not_alike_are_not_stacked(monkeypatch):
    a, b = gan_games.GAMES["ours"], GanSettings(**(vars(gan_games.GAMES["ours"]) | {"l1": 0.5}))
    states = [gan_games.state(a, 0), gan_games.state(b, 1)]
    assert not stacked_training.is_stackable([a, b], states)
    assert stacked_training.is_stackable([a, a], [gan_games.state(a, 0), gan_games.state(a, 1)])
    monkeypatch.delattr(stacked_training, "stack_states")
    together(states, [gan_games.pool(0), gan_games.pool(1)], [a, b])
    assert [s.step for s in states] == [10, 10]


def test_a_stack_saved_and_resumed_is_the_undisturbed_one():
    g = gan_games.GAMES["ours"]
    whole = [gan_games.state(g, k) for k in range(2)]
    together(whole, [gan_games.pool(k) for k in range(2)], [g] * 2)
    half = [gan_games.state(g, k) for k in range(2)]
    together(half, [gan_games.pool(k) for k in range(2)], [g] * 2, leave=(0, 1))
    again = [gan_games.state(g, 10 + k) for k in range(2)]
    for s, old in zip(again, half, strict=True):
        gan.load_state_dict(s, gan.state_dict(old))
    together(again, [gan_games.pool(k) for k in range(2)], [g] * 2)
    for a, b in zip(again, whole, strict=True):
        assert near(gan_games.everything(a), gan_games.everything(b))


def test_states_at_different_steps_are_refused():
    g = gan_games.GAMES["ours"]
    a, b = gan_games.state(g, 0), gan_games.state(g, 1)
    b.step = 3
    with pytest.raises(ValueError, match="same step"):
        stacked_training.stack_states([a, b])


def test_a_step_that_fails_fails_for_all_and_nobody_waits(monkeypatch):
    def refuse(*a):
        raise torch.OutOfMemoryError("no more")

    g, told = gan_games.GAMES["ours"], []
    states = [gan_games.state(g, k) for k in range(2)]
    monkeypatch.setattr(stacked_training, "stack_states", refuse)

    def work(k, train):
        with pytest.raises(torch.OutOfMemoryError, match="no more"):
            next(train(states[k], gan_games.pool(k), g))
        told.append(k)

    stacked_training.train_together(2, work)
    assert sorted(told) == [0, 1]


def test_a_stack_in_bf16_stays_near_its_runs():
    """A stack may round differently, so bf16 is only close. The first step has R1."""
    g = GanSettings(**(vars(PRESETS["demo"].gan) | {"precision": "bf16", "batch": 4, "steps": 3}))
    torch.manual_seed(1)
    x, y = torch.rand(4, 1, 28, 28) * 2 - 1, torch.rand(4, 1, 112, 28) * 2 - 1
    batch = (
        x,
        torch.rand(4, gan_games.K).softmax(1),
        torch.arange(4) % gan_games.K,
        y,
        torch.arange(4) % gan_games.K,
    )

    def fresh():
        torch.manual_seed(0)
        return [
            gan.new_state(
                g,
                gan_games.K,
                (112, 28),
                Classifier((112, 28), (4, 8), gan_games.K, 8).eval(),
                k,
                "cpu",
            )
            for k in range(2)
        ]

    together, alone = fresh(), fresh()
    stack = stacked_training.stack_states(together)
    for _ in range(g.steps):
        values = stacked_training.step_together(stack, together, g, [batch] * 2)
        for mine, its in zip(values, [gan.eager_step(s, g, batch) for s in alone], strict=True):
            assert {k: float(v) for k, v in mine.items()} == pytest.approx(
                {k: float(v) for k, v in its.items()}, rel=0.1, abs=0.02
            )
