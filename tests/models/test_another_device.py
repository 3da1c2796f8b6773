"""Training, sampling and measuring keep to the device of their data.

No card is needed: `meta` stands in for it (tests/support/pretend_device.py).
"""

import dataclasses

import numpy as np
import pytest
import torch

from core.config.presets import PRESETS
from core.config.settings import replace
from core.data.splits import SampleSet
from core.evaluation.evaluator import FittedClassifiers, TrainingMonitor
from core.evaluation.quality import measure_quality
from core.models import classifiers, gan
from core.models.flow import matching
from core.models.networks import Classifier
from tests.support.gan_games import GAMES, SHAPE, K
from tests.support.pretend_device import CARD, on_card, pretend_device

FLOW = dataclasses.replace(PRESETS["listening"].gan, batch=2, steps=10)
ALL = GAMES | {"flow": FLOW}
STEPS = 2  # the first with the penalty R1, the second without


@pytest.fixture
def card(monkeypatch):
    with pretend_device(monkeypatch) as device:
        yield device


def pairs(g, n=12):
    """S3 on the card."""
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(-1, 1, (n, 1, *size)).astype(np.float32) for size in ((28, 28), SHAPE))
    label = rng.integers(0, K, n)
    c = np.eye(K, dtype=np.float32)[label]
    rows = np.arange(n)
    tensors = map(on_card, (x, c, label, y, label))
    return gan.TrainingData(*tensors, lambda epoch: (rows, rows))


def new_state(g):
    Q = Classifier(SHAPE, (4, 8), K, 8).eval()
    return matching.start_function(g)(g, K, SHAPE, Q, 0, CARD)


@pytest.mark.parametrize("name", ALL)
def test_steps_keep_to_the_device_and_wait_for_nothing(name, card):
    g = dataclasses.replace(ALL[name], steps=STEPS)
    state = new_state(g)
    records = list(gan.train(state, pairs(g), g, matching.step_function(g)))
    assert len(records) == STEPS
    assert {v.device for record in records for v in record.values.values()} == {CARD}
    weights = [p for n in (state.G, state.D, state.Q, state.shown) for p in n.parameters()]
    assert {p.device for p in weights} == {CARD}
    assert card.copies == []


@pytest.mark.parametrize("name", ALL)
def test_sampling_keeps_to_the_device(name, card):
    g, state, data = ALL[name], new_state(ALL[name]), pairs(ALL[name])
    made = gan.sample(state.shown, data.x, data.c, g.z, seed=1)
    assert (made.device, made.shape) == (CARD, data.y.shape)
    assert card.copies == []


@pytest.mark.parametrize("role", ["face", "voice"])
def test_classifiers_train_and_answer_there(role, card):
    data = pairs(None)
    images = data.x if role == "face" else data.y
    settings = dataclasses.replace(
        PRESETS["fer2013-ravdess"].f_s if role == "face" else PRESETS["demo"].f_t, steps=3, batch=4
    )
    steps = list(classifiers.training_steps(images, data.target, settings, K, 0, role))
    assert [step for step, *_ in steps] == [1, 2, 3]
    o, features = classifiers.outputs(steps[-1][1].eval(), images)
    assert (len(o), len(features)) == (12, 12)


def test_figures_are_measured_there_and_only_results_come_home(card):
    rng, n = np.random.default_rng(0), 12
    label = np.arange(n) % K
    people = label.astype(str)
    x, y = (rng.uniform(-1, 1, (n, *size)).astype(np.float32) for size in ((28, 28), SHAPE))
    sets = dict.fromkeys(("S2", "S3", "S4"), SampleSet(x, label, people, y, label, people, True))
    config = replace(PRESETS["demo"], gan=vars(GAMES["ours"]))
    c, state = np.eye(K, dtype=np.float32)[label], new_state(config.gan)
    scorer = Classifier(SHAPE, (4, 8), K, 8).eval().to(CARD)
    fitted = FittedClassifiers(scorer, scorer, scorer, scorer, "digest")
    monitor = TrainingMonitor(config, sets["S2"], c, fitted, CARD)
    card.copies.clear()
    assert {"FID", "recognised"} <= set(monitor.figures(state.shown))
    assert card.copies == ["cpu", "cpu", "__float__"]  # softmax, features, diversity
    fake, *_ = measure_quality(config, sets, scorer, c, state.shown, CARD)
    assert (fake.device, fake.shape) == (CARD, (n, 1, *SHAPE))


def test_a_tensor_or_a_generator_of_another_device_is_refused(card):
    g = dataclasses.replace(GAMES["ours"], steps=1)
    data = pairs(g)
    mixed = dataclasses.replace(data, y=torch.zeros(data.y.shape))
    with pytest.raises(RuntimeError, match="device|generator of meta"):
        list(gan.train(new_state(g), mixed, g))
    state = new_state(g)
    state.generator = torch.Generator("cpu")
    with pytest.raises(RuntimeError, match="generator of cpu"):
        list(gan.train(state, data, g))


def test_a_copy_to_the_host_is_counted(card):
    float(on_card(np.zeros(1, np.float32)).sum())
    on_card(np.zeros(1, np.float32)).to("cpu")
    assert card.copies == ["__float__", "to"]
