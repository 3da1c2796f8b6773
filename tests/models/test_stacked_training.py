"""A stack of runs gives each run what it would have had alone: weights, averages, moments, values, also after some of them have left."""

import numpy as np
import pytest
import torch

from core.config import PRESETS, GanSettings, with_method
from core.models import gan, stacked_training
from core.models.networks import Classifier

K, SHAPE = 3, (28, 28)
GAMES = {
    "ours": GanSettings(**(vars(PRESETS["demo"].gan) | {"batch": 2, "steps": 10, "z": 8})),
    "ours, augmented": GanSettings(
        **(
            vars(PRESETS["fer2013-ravdess"].gan)
            | {"batch": 2, "steps": 10, "z": 8, "condition": "label"}
        )
    ),
    "paper's": GanSettings(
        **(vars(with_method("paper", PRESETS["demo"]).gan) | {"batch": 6, "steps": 10, "z": 8})
    ),
    "U-Net, joint Q": GanSettings(
        generator="unet", q_training="joint", batch=2, steps=10, z=8, optimiser="adam"
    ),
}


def pool(seed):
    rng = np.random.default_rng(seed)
    x, y = (
        torch.from_numpy(rng.uniform(-1, 1, (12, 1, *size)).astype(np.float64))
        for size in ((28, 28), SHAPE)
    )
    c, label = (
        torch.from_numpy(rng.dirichlet(np.ones(K), 12)),
        torch.from_numpy(rng.integers(0, K, 12)),
    )
    return gan.TrainingData(
        x,
        c,
        label,
        y,
        label,
        lambda epoch: tuple(np.random.default_rng([seed, epoch]).permutation(12) for _ in range(2)),
    )


def state(g, seed):
    torch.manual_seed(seed)
    s = gan.new_state(g, K, SHAPE, Classifier(SHAPE, (4, 8), K, 8).eval(), seed, "cpu")
    for network in (s.G, s.D, s.Q, s.shown):
        network.double()  # so that rounding, which Adam makes large where a gradient is next to nothing, hides no error
    for optimiser in s.optimisers.values():
        for moments in optimiser.state.values():
            moments.update({k: v.double() for k, v in moments.items() if v.dim()})
    return s


def everything(s):
    """All numbers of a state, one after the other."""
    saved = gan.state_dict(s)
    flat = [v.flatten().double() for n in saved["networks"].values() for v in n.values()]
    flat += [
        v.flatten().double()
        for o in saved["optimisers"].values()
        for one in o["state"].values()
        for v in one.values()
    ]
    return torch.cat(flat)


def near(a, b):
    return torch.allclose(
        a, b, rtol=1e-6, atol=1e-6
    )  # a bias before batch norm moves by rounding alone, and moves nothing


def together(states, pools, settings, leave=()):
    """Each training in its thread; those in `leave` end after 4 steps. Returns each one's values of its last step."""
    last = {}

    def work(k, train):
        for record in train(states[k], pools[k], settings[k]):
            last[k] = record.values
            if k in leave and record.step == 4:
                break

    stacked_training.train_together(len(states), work)
    return last


@pytest.mark.parametrize("name", GAMES)
def test_a_stack_trains_each_run_as_if_alone(name):
    g = GAMES[name]
    alone = [state(g, k) for k in range(2)]
    for k, s in enumerate(alone):
        *_, record = gan.train(s, pool(k), g)
        if k == 1:
            values = record.values
    states = [state(g, k) for k in range(2)]
    last = together(states, [pool(k) for k in range(2)], [g] * 2)
    for a, b in zip(states, alone, strict=True):
        assert a.step == g.steps
        assert near(everything(a), everything(b))
        assert torch.equal(a.generator.get_state(), b.generator.get_state())
    assert last[1].keys() == values.keys()
    assert all(near(last[1][k], values[k]) for k in values)


def test_whoever_leaves_is_whole_and_the_others_go_on():
    g = GAMES["ours"]
    alone = [state(g, k) for k in range(3)]
    for k, s in enumerate(alone):
        for record in gan.train(s, pool(k), g):
            if k == 1 and record.step == 4:
                break
    states = [state(g, k) for k in range(3)]
    together(states, [pool(k) for k in range(3)], [g] * 3, leave=(1,))
    assert [s.step for s in states] == [10, 4, 10]
    for a, b in zip(states, alone, strict=True):
        assert near(everything(a), everything(b))


def test_two_of_which_one_leaves_end_apart():
    """The last one trains by itself, its counters its own again."""
    g = GAMES["ours"]
    b = state(g, 1)
    for _ in gan.train(b, pool(1), g):
        pass
    states = [state(g, k) for k in range(2)]
    together(states, [pool(k) for k in range(2)], [g] * 2, leave=(0,))
    assert near(everything(states[1]), everything(b))


def test_runs_that_are_not_alike_are_not_stacked(monkeypatch):
    a, b = GAMES["ours"], GanSettings(**(vars(GAMES["ours"]) | {"l1": 0.5}))
    states = [state(a, 0), state(b, 1)]
    assert not stacked_training.is_stackable([a, b], states)
    assert stacked_training.is_stackable([a, a], [state(a, 0), state(a, 1)])
    monkeypatch.delattr(stacked_training, "stack_states")
    together(states, [pool(0), pool(1)], [a, b])
    assert [s.step for s in states] == [10, 10]


def test_a_stack_saved_and_resumed_is_the_undisturbed_one():
    g = GAMES["ours"]
    whole = [state(g, k) for k in range(2)]
    together(whole, [pool(k) for k in range(2)], [g] * 2)
    half = [state(g, k) for k in range(2)]
    together(half, [pool(k) for k in range(2)], [g] * 2, leave=(0, 1))
    again = [state(g, 10 + k) for k in range(2)]
    for s, old in zip(again, half, strict=True):
        gan.load_state_dict(s, gan.state_dict(old))
    together(again, [pool(k) for k in range(2)], [g] * 2)
    for a, b in zip(again, whole, strict=True):
        assert near(everything(a), everything(b))


def test_states_at_different_steps_are_refused():
    g = GAMES["ours"]
    a, b = state(g, 0), state(g, 1)
    b.step = 3
    with pytest.raises(ValueError, match="same step"):
        stacked_training.stack_states([a, b])


def test_a_step_that_fails_fails_for_all_and_nobody_waits(monkeypatch):
    def refuse(*a):
        raise torch.OutOfMemoryError("no more")

    g, told = GAMES["ours"], []
    states = [state(g, k) for k in range(2)]
    monkeypatch.setattr(stacked_training, "stack_states", refuse)

    def work(k, train):
        with pytest.raises(torch.OutOfMemoryError, match="no more"):
            next(train(states[k], pool(k), g))
        told.append(k)

    stacked_training.train_together(2, work)
    assert sorted(told) == [0, 1]


def test_a_stack_in_bf16_stays_near_its_runs():
    """Torch may round elsewhere in a stack, so near is all that bf16 promises. The first step has D's penalty, the others have none."""
    g = GanSettings(**(vars(PRESETS["demo"].gan) | {"precision": "bf16", "batch": 4, "steps": 3}))
    torch.manual_seed(1)
    x, y = torch.rand(4, 1, 28, 28) * 2 - 1, torch.rand(4, 1, 112, 28) * 2 - 1
    batch = x, torch.rand(4, K).softmax(1), torch.arange(4) % K, y, torch.arange(4) % K

    def fresh():
        torch.manual_seed(0)
        return [
            gan.new_state(g, K, (112, 28), Classifier((112, 28), (4, 8), K, 8).eval(), k, "cpu")
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
