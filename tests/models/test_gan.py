"""§3: conditions, training steps, exact resume and equality with a textbook loop."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.textbook import TextbookLoop
from core.config.presets import OUR_GAN_SETTINGS, PRESETS, with_method
from core.config.settings import GanSettings
from core.models import gan, networks
from core.models.networks import Classifier

K, SHAPE = 4, (28, 28)
SMALL = GanSettings(batch=8, z=8, steps=6, condition="classifier")


def pool(seed=0, n=20, k=K):
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % K
    return gan.TrainingData(
        x=torch.rand(n, 1, 28, 28, generator=g) * 2 - 1,
        c=torch.rand(n, k, generator=g).softmax(1) if k else torch.zeros(n, 0),
        target=label,
        y=torch.rand(n, 1, *SHAPE, generator=g) * 2 - 1,
        y_target=label,
        epoch_pairs=lambda epoch: (np.random.default_rng(epoch).permutation(n),) * 2,
    )


def fresh(settings=SMALL, seed=0):
    Q = networks.initialise_weights(
        Classifier(SHAPE, (4, 8), K, 8), torch.Generator().manual_seed(1)
    )
    return gan.new_state(settings, K, SHAPE, Q, seed, "cpu")


def weights(state):
    parts = ("G", "D", "Q", "shown")
    return torch.cat(
        [p.detach().flatten() for k in parts for p in getattr(state, k).state_dict().values()]
    )


def changed(**settings):
    return dataclasses.replace(SMALL, **settings)


def run(state, settings=SMALL, p=None):
    return [
        (r.step, {k: float(v) for k, v in r.values.items()})
        for r in gan.train(state, p or pool(), settings)
    ]


def test_conditions_of_section_4_3():
    o, p = np.array([[0.7, 0.2, 0.1]]), np.array([[0.9, 0.3, 0.05]])
    assert np.array_equal(gan.condition("classifier", None, o, p, 3), o.astype(np.float32))
    assert np.array_equal(gan.condition("cp", None, o, p, 3), p.astype(np.float32))
    assert gan.condition("none", None, o, p, 3).shape == (1, 0)
    label = gan.condition("label", np.array([2]), None, None, 3, soft=0.2)
    assert label == pytest.approx(np.array([[0.1, 0.1, 0.8]]))


def test_records_and_finite_losses():
    records = run(fresh())
    assert [s for s, _ in records] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(v) for _, values in records for v in values.values())
    assert {"loss/G", "loss/D", "loss/l1", "loss/class", "loss/adversarial"} <= set(records[0][1])


@pytest.mark.parametrize("q_training", ["frozen", "joint"])
def test_a_frozen_q_stays_and_a_joint_one_moves(q_training):
    settings = changed(q_training=q_training)
    state = fresh(settings)
    before = {k: v.clone() for k, v in state.Q.state_dict().items()}
    run(state, settings)
    same = all(torch.equal(v, before[k]) for k, v in state.Q.state_dict().items())
    assert same == (q_training == "frozen")


@pytest.mark.parametrize("optimiser", ["adagrad", "adam"])
@pytest.mark.parametrize("q_training", ["frozen", "joint"])
@pytest.mark.parametrize(
    "ours", [{}, OUR_GAN_SETTINGS | {"average": 0.9}, {"generator": "unet", "game": "minmax"}]
)
def test_resume_is_exact(tmp_path, optimiser, q_training, ours):
    settings = changed(**ours | {"optimiser": optimiser, "q_training": q_training})
    whole = fresh(settings)
    records = run(whole, settings)
    half = fresh(settings)
    steps = gan.train(half, pool(), settings)
    first = [next(steps) for _ in range(3)]
    torch.save(gan.state_dict(half), tmp_path / "state.pt")
    resumed = fresh(settings, seed=99)  # other weights, which the file replaces
    gan.load_state_dict(resumed, torch.load(tmp_path / "state.pt", weights_only=True))
    rest = run(resumed, settings)
    assert [r.step for r in first] + [s for s, _ in rest] == [s for s, _ in records]
    assert rest == records[3:]
    assert torch.equal(weights(resumed), weights(whole))


def test_sampling_leaves_the_training_untouched():
    a, b, p = fresh(), fresh(), pool()
    for state, look in ((a, False), (b, True)):
        for _ in gan.train(state, p, SMALL):
            if look:
                before = torch.get_rng_state()
                y = gan.sample(state.G, p.x, p.c, SMALL.z, seed=1)
                assert y.shape == (20, 1, *SHAPE)
                assert (
                    torch.equal(
                        y, gan.sample(state.G, p.x, p.c, SMALL.z, seed=1, batch=7).reshape(y.shape)
                    )
                    or (y - gan.sample(state.G, p.x, p.c, SMALL.z, seed=1, batch=7)).abs().max()
                    < 1e-5
                )
                assert torch.equal(before, torch.get_rng_state())
                assert state.G.training
    assert torch.equal(weights(a), weights(b))


def test_augmentation_keeps_what_speech_keeps():
    """Each sample has its own draw, bands stay bands, gaps are at most 1/8, gradients pass."""
    y = (
        (torch.arange(28.0) / 28).expand(64, 1, 112, 28).clone().requires_grad_()
    )  # every column alike, bands rising
    a = gan.augment_spectrograms(y, torch.Generator().manual_seed(0))
    assert torch.equal(a, gan.augment_spectrograms(y, torch.Generator().manual_seed(0)))
    silent = (a == -1).all(dim=3)[:, 0]
    assert 0 < silent.sum(dim=1).max() <= 112 / 8 + 1
    slopes = (a[..., 1:] - a[..., :-1])[~silent[:, None]]
    assert torch.allclose(slopes, torch.full_like(slopes, 1 / 28), atol=1e-5)
    a.sum().backward()
    assert float(y.grad.sum(dim=(1, 2, 3)).min()) >= 28 * (112 - 15)
    moving = torch.linspace(-0.5, 0.5, 112)[None, None, :, None].expand(64, 1, 112, 28)
    assert (
        len(
            {
                int(k)
                for k in gan.augment_spectrograms(moving, torch.Generator().manual_seed(1))[
                    :, 0, :, 0
                ].argmax(dim=1)
            }
        )
        > 10
    )


def test_the_average_follows_g_and_never_leads_it():
    """After each step shown = 0.8 shown + 0.2 G, batch statistics too; G trains as without it."""
    settings = changed(average=0.8)
    state, plain = fresh(settings), fresh()
    expected = {
        k: v.clone().double() for k, v in state.G.state_dict().items() if v.is_floating_point()
    }
    for _ in gan.train(state, pool(), settings):
        now = state.G.state_dict()
        expected = {k: 0.8 * v + 0.2 * now[k].double() for k, v in expected.items()}
    run(plain)
    shown = state.shown.state_dict()
    assert all(torch.allclose(shown[k].double(), v, atol=1e-6) for k, v in expected.items())
    assert all(torch.equal(v, now[k]) for k, v in shown.items() if not v.is_floating_point())
    assert all(
        torch.equal(v, w)
        for v, w in zip(state.G.state_dict().values(), plain.G.state_dict().values(), strict=True)
    )
    assert plain.shown is plain.G


@pytest.mark.parametrize("d_norm", ["batch", "group"])
def test_nothing_depends_on_the_global_random_state(d_norm):
    settings = changed(d_norm=d_norm)
    torch.manual_seed(1)
    a = fresh(settings)
    run(a, settings)
    torch.manual_seed(2)
    b = fresh(settings)
    run(b, settings)
    assert torch.equal(weights(a), weights(b))
    other = fresh(settings, seed=1)
    assert not torch.equal(weights(a), weights(other))


def test_weights_of_eq_7_are_ablations():
    """With its weight at zero a term has no gradient; with all at zero nothing moves G."""
    settings = changed(l1=0.0, adversarial=0.0, classify=0.0)
    state = fresh(settings)
    before = [p.clone() for p in state.G.parameters()]
    run(state, settings)
    assert all(torch.equal(p, q) for p, q in zip(state.G.parameters(), before, strict=True))
    settings = changed(adversarial=0.0, classify=0.0, steps=60, noise=0.0, lr_g=0.01)
    records = run(fresh(settings), settings)
    assert np.mean([v["loss/l1"] for _, v in records[-10:]]) < 0.95 * np.mean(
        [v["loss/l1"] for _, v in records[:5]]
    )


def test_without_a_condition_q_is_asked_nothing():
    settings = changed(condition="none")
    p = pool(k=0)
    p.target.fill_(-1)
    a = fresh(settings)
    run(a, settings, p)
    no_class = changed(condition="none", classify=0.0)
    b = fresh(no_class)
    run(b, no_class, p)
    assert torch.equal(weights(a), weights(b))


@pytest.mark.parametrize("method", ["studio", "strict"])
def test_ten_fast_steps_are_a_tutorials(method):
    """Ten steps give the weights of the textbook loop of `benchmarks`, within 1e-5.

    In double precision, so that rounding hides no difference, and without input noise, which the
    two draw differently.
    """
    g = dataclasses.replace(
        with_method(method, PRESETS["demo"]).gan, batch=8, steps=10, noise=0.0, augment=False
    )
    shape = (28, 28)
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.uniform(-1, 1, (8, 1, 28, 28))) for _ in range(2))
    c, target = (
        torch.from_numpy(rng.dirichlet(np.ones(K), 8)),
        torch.from_numpy(rng.integers(0, K, 8)),
    )
    Q = Classifier(shape, (4, 8), K, 8).eval()
    fast, plain = (
        gan.new_state(g, K, shape, copy.deepcopy(Q), 0, "cpu"),
        TextbookLoop(g, K, shape, Q),
    )
    for mine, its in ((fast.G, plain.G), (fast.D, plain.D), (fast.shown, plain.shown)):
        its.load_state_dict(mine.state_dict())
    for network in (fast.G, fast.D, fast.Q, fast.shown, plain.G, plain.D, plain.Q, plain.shown):
        network.double()
    for _ in range(g.steps):
        fast.generator.manual_seed(fast.step)
        torch.manual_seed(fast.step)
        plain.step(x, c, target, y)
        gan.eager_step(fast, g, (x, c, target, y, target))
    for mine, its in ((fast.G, plain.G), (fast.D, plain.D), (fast.shown, plain.shown)):
        for (name, a), b in zip(mine.named_parameters(), its.parameters(), strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-5), name


def test_bf16_stays_near_fp32_and_keeps_its_weights_whole():
    a, b = (
        dataclasses.replace(SMALL, generator="conv", d_norm="group", precision=p)
        for p in ("fp32", "bf16")
    )
    values = []
    for g in (a, b):
        state = fresh(g)
        values.append([float(r.values["loss/G"]) for r in gan.train(state, pool(), g)])
        assert all(p.dtype == torch.float32 for p in (*state.G.parameters(), *state.D.parameters()))
    assert values[0] != values[1]
    assert values[1] == pytest.approx(values[0], rel=0.1)


@pytest.mark.gpu
def test_a_smoke_training_on_the_card():
    p = pool()
    p = gan.TrainingData(
        p.x.cuda(), p.c.cuda(), p.target.cuda(), p.y.cuda(), p.y_target.cuda(), p.epoch_pairs
    )
    Q = networks.initialise_weights(
        Classifier(SHAPE, (4, 8), K, 8), torch.Generator().manual_seed(1)
    )
    state = gan.new_state(SMALL, K, SHAPE, Q, 0, "cuda")
    steps = gan.train(state, p, SMALL)
    for _ in range(3):
        next(steps)
    resumed = gan.new_state(SMALL, K, SHAPE, Q, 1, "cuda")
    gan.load_state_dict(resumed, gan.state_dict(state))
    rest = [float(r.values["loss/G"]) for r in gan.train(resumed, p, SMALL)]
    assert len(rest) == 3
    assert np.isfinite(rest).all()
