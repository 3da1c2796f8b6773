"""Recorded steps are the plain ones; plain steps are taken if recording fails."""

import contextlib
import dataclasses
from types import SimpleNamespace

import pytest
import torch

from core.models import cuda_graphs, gan, stacked_training
from core.models.networks import Classifier
from tests.support.gan_games import GAMES, SHAPE, K, everything, pool, state

G = dataclasses.replace(GAMES["ours"], steps=cuda_graphs.WARM_UP_STEPS + 2)


def test_without_a_card_the_plain_steps_are_taken():
    a, b = state(G, 0), state(G, 0)
    for _ in zip(
        gan.train(a, pool(0), G), gan.train(b, pool(0), G, cuda_graphs.new_step_function())
    ):
        pass
    assert torch.equal(everything(a), everything(b))


def test_a_recording_that_fails_is_told_once_and_costs_no_step(monkeypatch, capsys):
    class Stream:
        def wait_stream(self, other):
            pass

    def refuse(*a):
        raise RuntimeError("operation not permitted when stream is capturing")

    fake = SimpleNamespace(
        Stream=Stream, current_stream=Stream, stream=lambda s: contextlib.nullcontext()
    )
    monkeypatch.setattr(
        cuda_graphs, "torch", SimpleNamespace(cuda=fake, OutOfMemoryError=torch.OutOfMemoryError)
    )
    monkeypatch.setattr(cuda_graphs, "is_capturable", lambda *a: True)
    monkeypatch.setattr(cuda_graphs, "CapturedStep", refuse)
    a, b = state(G, 0), state(G, 0)
    for _ in zip(
        gan.train(a, pool(0), G), gan.train(b, pool(0), G, cuda_graphs.new_step_function())
    ):
        pass
    assert torch.equal(everything(a), everything(b))
    assert capsys.readouterr().err.count("not permitted") == 1


def on_the_card(seed):
    torch.manual_seed(seed)
    p = pool(seed)
    moved = gan.TrainingData(
        *(
            t.float().cuda() if t.is_floating_point() else t.cuda()
            for t in (p.x, p.c, p.target, p.y, p.y_target)
        ),
        p.epoch_pairs,
    )
    g = gan.GanSettings(**(vars(G) | {"steps": 30}))
    return (
        gan.new_state(g, K, SHAPE, Classifier(SHAPE, (4, 8), K, 8).eval(), seed, "cuda"),
        moved,
        g,
    )


@pytest.mark.gpu
def test_recorded_steps_are_the_plain_ones():
    a, p, g = on_the_card(0)
    b, _, _ = on_the_card(0)
    plain = [float(r.values["loss/G"]) for r in gan.train(a, p, g)]
    recorded = [
        float(r.values["loss/G"]) for r in gan.train(b, p, g, cuda_graphs.new_step_function())
    ]
    assert recorded == pytest.approx(plain, rel=1e-3)
    assert torch.equal(a.generator.get_state(), b.generator.get_state())


@pytest.mark.gpu
def test_a_stack_is_recorded_too():
    alone, p, g = on_the_card(0)
    plain = [float(r.values["loss/G"]) for r in gan.train(alone, p, g)]
    members, found = [on_the_card(k) for k in range(2)], {}
    stacked_training.train_together(
        2,
        lambda k, train: found.update({k: [float(r.values["loss/G"]) for r in train(*members[k])]}),
    )
    assert found[0] == pytest.approx(plain, rel=1e-2)
