"""Our flow: Heun's order, modes of a toy target, exact resume, guidance, what is told."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from core.config.settings import GanSettings
from core.models import cuda_graphs, gan, networks, stacked_training
from core.models.flow import matching, velocity
from core.models.flow.velocity import FlowGenerator, heun
from core.models.networks import Classifier

K, SHAPE = 4, (28, 28)
SMALL = GanSettings(
    generator="flow", batch=8, steps=6, condition="classifier", lr_g=1e-3, heun_steps=3
)
WIDTHS = (8, 8, 16)


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    monkeypatch.setitem(networks.GENERATOR_WIDTHS, "flow", {"compact": WIDTHS})


def pool(n=20, k=K):
    g = torch.Generator().manual_seed(0)
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
    return matching.new_state(settings, K, SHAPE, Q, seed, "cpu")


def weights(state):
    return torch.cat([p.detach().flatten() for n in (state.G, state.shown) for p in n.parameters()])


def run(state, settings=SMALL, p=None):
    steps = gan.train(state, p or pool(), settings, matching.step_function(settings))
    return [(r.step, {k: float(v) for k, v in r.values.items()}) for r in steps]


def awake(seed=0, **arguments):
    """A network whose last layers, zero at first, have weights too."""
    torch.manual_seed(seed)
    network = FlowGenerator(**{"classes": K, "shape": SHAPE, "widths": WIDTHS} | arguments).eval()
    for p in network.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return network


# --- Heun -----------------------------------------------------------------------------------------


def test_heun_is_exact_for_velocities_linear_in_time_and_of_second_order_for_others():
    y = torch.tensor([0.3, -2.0], dtype=torch.float64)
    line = heun(lambda y, t: torch.full_like(y, 3 * t - 1), y, steps=2)
    assert torch.allclose(line, y + 0.5, atol=1e-12)
    errors = [
        float((heun(lambda y, t: -2 * y + math.sin(t), y, n) - exact(y)).abs().max())
        for n in (16, 32, 64)
    ]
    ratios = [a / b for a, b in zip(errors, errors[1:], strict=False)]
    assert ratios == pytest.approx([4, 4], rel=0.15)  # half the step, a quarter of the error


def exact(y):
    """y(1) of dy/dt = -2 y + sin t, by integrating factors."""
    part = (2 * math.sin(1) - math.cos(1)) / 5 + math.exp(-2) / 5
    return y * math.exp(-2) + part


def test_a_straight_way_needs_one_step():
    """Towards a single target y the velocity is (y - y_t) / (1 - t): constant along the way."""
    y, z = torch.tensor([0.7]), torch.tensor([-1.2])
    slopes = []

    def towards(now, t):
        slopes.append(y - z)
        return y - z

    assert torch.allclose(heun(towards, z, 1), y)
    assert len(slopes) == 2


# --- matching -------------------------------------------------------------------------------------


def test_the_loss_is_zero_at_the_velocity_of_the_line_and_only_there():
    g = torch.Generator().manual_seed(0)
    z, y = (torch.randn(5, 1, 4, 4, generator=g) for _ in range(2))
    t = matching.training_times(5, 0.0, g, torch.device("cpu"))
    assert bool(((t > 0) & (t < 1)).all())
    assert torch.equal(matching.between(z, y, torch.zeros(5)), z)
    assert torch.allclose(matching.between(z, y, torch.ones(5)), y)
    at = matching.between(z, y, t)
    derivative = (matching.between(z, y, t + 1e-3) - at) / 1e-3
    assert torch.allclose(derivative, y - z, atol=1e-2)
    assert float(matching.velocity_loss(lambda *_: y - z, z, y, t)) == 0
    off = matching.velocity_loss(lambda *_: y - z + 0.5, z, y, t)
    assert float(off) == pytest.approx(0.25, rel=1e-5)


def test_times_are_the_logistic_of_normal_numbers():
    t = matching.training_times(40_000, 0.0, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert float(t.median()) == pytest.approx(0.5, abs=0.01)
    assert float(t.logit().std()) == pytest.approx(1, abs=0.02)


def test_a_share_of_the_times_is_early_and_none_changes_no_draw():
    def times(early):
        return matching.training_times(
            40_000, early, torch.Generator().manual_seed(0), torch.device("cpu")
        )

    plain = torch.randn(40_000, generator=torch.Generator().manual_seed(0)).sigmoid()
    assert torch.equal(times(0.0), plain)
    assert float((plain < 0.05).float().mean()) < 0.003
    cubes = 0.05 ** (1 / 3)  # the share of cubes of uniform numbers that lie below 0.05
    assert float((times(1.0) < 0.05).float().mean()) == pytest.approx(cubes, abs=0.01)
    mixed = times(0.3)
    assert float((mixed < 0.05).float().mean()) == pytest.approx(0.3 * cubes, abs=0.01)
    assert float((mixed == plain).float().mean()) == pytest.approx(0.7, abs=0.01)


def test_steps_at_both_ends_are_small_at_both_ends():
    late, both = (np.diff(velocity.step_times(8, ends)) for ends in (False, True))
    assert late.sum() == pytest.approx(1)
    assert both.sum() == pytest.approx(1)
    assert (np.diff(late) < 0).all()
    assert both == pytest.approx(both[::-1])
    assert (np.diff(both[:4]) > 0).all()
    assert both[0] < 0.2 * late[0]


@torch.no_grad()
def test_a_flow_of_early_times_samples_in_steps_at_both_ends():
    early = dataclasses.replace(SMALL, early_times=0.3)
    plain, ends = (gan.generator_arguments(g, K, SHAPE) for g in (SMALL, early))
    assert ends == plain | {"both_ends": True}
    one, other = awake(heun_steps=3), awake(heun_steps=3, both_ends=True)
    x, c, _ = inputs()
    z = networks.draw_noise(one, len(x), 64, 3)
    assert not torch.equal(one(x, c, z), other(x, c, z))
    one.both_ends = True
    assert torch.equal(one(x, c, z), other(x, c, z))


def test_a_flow_learns_early_times_where_its_settings_say_so():
    early = dataclasses.replace(SMALL, early_times=0.3)
    assert run(fresh(early), early) != run(fresh())


def test_samples_reach_both_modes_of_a_toy_target():
    """One number y is -0.8 or 0.4: a small network's flow from noise ends at these two."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    field = torch.nn.Sequential(
        *(torch.nn.Linear(2, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU()),
        torch.nn.Linear(64, 1),
    )

    def v(y, t):
        return field(torch.cat([y, t[:, None]], dim=1))

    optimiser, losses = torch.optim.Adam(field.parameters(), lr=5e-3), []
    for _ in range(600):
        y = torch.where(torch.rand(256, 1, generator=g) < 0.25, -0.8, 0.4)
        z, t = torch.randn(256, 1, generator=g), matching.training_times(256, 0.0, g, y.device)
        loss = matching.velocity_loss(v, z, y, t)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-50:]) < 0.8 * np.mean(losses[:20])
    with torch.no_grad():
        z = torch.randn(2_000, 1, generator=g)
        y = heun(lambda y, t: v(y, torch.full((len(y),), t)), z, 20)
    low = (y + 0.8).abs() < 0.2
    high = (y - 0.4).abs() < 0.2
    assert float((low | high).float().mean()) > 0.9
    assert float(low.float().mean()) == pytest.approx(0.25, abs=0.06)


def test_the_rate_falls_as_half_a_cosine():
    rates = [matching.cosine_rate(1e-3, k, 100) for k in range(101)]
    assert rates[0] == 1e-3
    assert rates[50] == pytest.approx(5e-4)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in zip(rates, rates[1:], strict=False))


# --- the training ---------------------------------------------------------------------------------


def test_records_of_a_training_and_a_falling_loss():
    """The target is one ramp of bands, so that the velocity can be learnt in some steps."""
    settings = dataclasses.replace(SMALL, steps=60, lr_g=5e-3)
    state, p = fresh(settings), pool()
    p.y.copy_(torch.linspace(-1, 1, SHAPE[1]).expand_as(p.y))
    records = run(state, settings, p)
    assert [s for s, _ in records] == list(range(1, 61))
    loss = [v["loss/G"] for _, v in records]
    assert np.mean(loss[-10:]) < 0.75 * np.mean(loss[:5])
    assert not list(state.D.parameters())  # no discriminator


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("condition", ["label", "none"])
def test_resume_is_exact(tmp_path, average, condition):
    settings = dataclasses.replace(SMALL, average=average, condition=condition)
    p = pool(k=0 if condition == "none" else K)
    whole = fresh(settings)
    records = run(whole, settings, p)
    half = fresh(settings)
    steps = gan.train(half, p, settings, matching.take_step)
    for _ in range(3):
        next(steps)
    torch.save(gan.state_dict(half), tmp_path / "state.pt")
    resumed = fresh(settings, seed=99)  # other weights, which the file replaces
    gan.load_state_dict(resumed, torch.load(tmp_path / "state.pt", weights_only=True))
    assert run(resumed, settings, p) == records[3:]
    assert torch.equal(weights(resumed), weights(whole))


def test_sampling_leaves_the_training_untouched():
    settings = dataclasses.replace(SMALL, average=0.9)
    a, b, p = fresh(settings), fresh(settings), pool()
    for state, looks in ((a, False), (b, True)):
        for _ in gan.train(state, p, settings, matching.take_step):
            if looks:
                before = torch.get_rng_state()
                y = gan.sample(state.shown, p.x, p.c, settings.z, seed=1)
                assert y.shape == (20, 1, *SHAPE)
                assert torch.equal(y, gan.sample(state.shown, p.x, p.c, settings.z, seed=1))
                assert torch.equal(before, torch.get_rng_state())
                other = gan.sample(state.shown, p.x, p.c, settings.z, seed=2)
                assert not torch.equal(y, other)
    assert torch.equal(weights(a), weights(b))


def test_nothing_depends_on_the_global_random_state():
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = fresh()
        run(state)
        found.append(weights(state))
    assert torch.equal(*found)
    assert not torch.equal(found[0], weights(fresh(seed=1)))


def test_a_flow_trains_alone_where_gans_are_stacked_or_recorded():
    state, settings = fresh(), SMALL
    assert not stacked_training.is_stackable([settings] * 2, [state, fresh(seed=1)])
    assert not cuda_graphs.is_capturable(state, settings)
    alone = [fresh(seed=k) for k in range(2)]
    for s in alone:
        run(s)
    together = [fresh(seed=k) for k in range(2)]

    def work(k, train):
        for _ in train(together[k], pool(), settings):
            pass

    stacked_training.train_together(2, work)
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(weights(a), weights(b))
    recorded = fresh()
    for _ in gan.train(recorded, pool(), settings, cuda_graphs.new_step_function()):
        pass
    assert torch.equal(weights(recorded), weights(alone[0]))


def test_the_largest_batch_is_asked_of_a_flows_step(monkeypatch):
    asked = []

    def take(state, g, batch):
        asked.append(len(batch[0]))
        if len(batch[0]) > 2:
            raise torch.OutOfMemoryError

    assert gan.largest_batch(SMALL, fresh(), pool(), take) == 2
    assert asked == [4, 2]


# --- guidance and what is told --------------------------------------------------------------------


def inputs(n=3):
    g = torch.Generator().manual_seed(4)
    x = torch.rand(n, 1, 28, 28, generator=g) * 2 - 1
    return x, torch.rand(n, K, generator=g), torch.randn(n, SHAPE[0] * SHAPE[1], generator=g)


@torch.no_grad()
def test_guidance_one_is_the_plain_velocity_and_zero_is_told_nothing():
    network = awake()
    x, c, z = inputs()
    told = network.embed(x, c)
    y = z.view(3, 1, *SHAPE)
    plain = heun(lambda y, t: network.velocity(y, torch.full((3,), t), told), y, 8).clamp(-1, 1)
    assert torch.equal(network(x, c, z, 1.0), plain)
    nothing = network(x, c, z, 0.0)
    assert torch.equal(nothing, network(-x, c.flip(1), z, 0.0))
    mixed = network(x, c, z, torch.tensor([1.0, 0.0, 2.0]))
    assert torch.allclose(mixed[0], plain[0], atol=1e-5)
    assert torch.allclose(mixed[1], nothing[1], atol=1e-5)
    assert torch.allclose(mixed[2], network(x, c, z)[2], atol=1e-5)  # its own guidance is 2


@torch.no_grad()
def test_face_condition_and_noise_each_change_a_sample():
    network = awake()
    x, c, z = inputs()
    y = network(x, c, z)
    for other in (network(-x, c, z), network(x, c.flip(1), z), network(x, c, -z)):
        assert float((y - other).abs().max()) > 1e-3
    assert float(y.abs().max()) <= 1
    rows = torch.cat([network(*(t[k : k + 1] for t in (x, c, z))) for k in range(3)])
    assert torch.allclose(rows, y, atol=1e-4)  # samples do not see each other


@torch.no_grad()
def test_without_face_and_condition_guidance_changes_nothing():
    network = awake(classes=0, use_source=False)
    x, _, z = inputs()
    c = torch.zeros(3, 0)
    assert torch.equal(network(x, c, z, 3.0), network(-x, c, z, 1.0))


def test_a_tenth_of_the_samples_is_told_nothing(monkeypatch):
    """Seen through the embeddings that the velocity gets during training."""
    seen, true = [], FlowGenerator.velocity

    def look(self, y, t, told):
        seen.append((told == self.untold).all(dim=1))
        return true(self, y, t, told)

    monkeypatch.setattr(FlowGenerator, "velocity", look)
    settings = dataclasses.replace(SMALL, steps=60, batch=20)
    state = fresh(settings)
    before = state.G.untold.clone()
    run(state, settings)
    share = float(torch.cat(seen).float().mean())
    assert share == pytest.approx(matching.UNTOLD_SHARE, abs=0.04)
    assert not torch.equal(before, state.G.untold)  # it is learnt


# --- sizes and files ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(112, 28), (56, 28), (28, 28), (112, 64), (112, 80), (27, 30)])
@torch.no_grad()
def test_every_size_of_a_spectrogram(shape):
    network = awake(shape=shape, heun_steps=1)
    x, c, _ = inputs(2)
    y = network(x, c, torch.randn(2, network.noise_length))
    assert y.shape == (2, 1, *shape)
    folded = velocity.fold_columns(y)
    assert folded.shape[1] == velocity.FOLD
    assert torch.equal(velocity.unfold_columns(folded, shape[0]), y)


@torch.no_grad()
def test_faces_from_voices():
    network = awake(source=(112, 28))
    y = network(torch.zeros(2, 1, 112, 28), torch.rand(2, K), torch.randn(2, 784))
    assert y.shape == (2, 1, 28, 28)


def test_the_shipped_size_has_at_most_one_and_a_half_million_weights():
    for bands in (28, 64):
        network = FlowGenerator(8, (112, bands), velocity.FLOW_WIDTHS["compact"])
        assert sum(p.numel() for p in network.parameters()) <= 1.5e6


@torch.no_grad()
def test_its_file_brings_back_the_same_samples(tmp_path):
    arguments = gan.generator_arguments(SMALL, K, SHAPE)
    assert "z" not in arguments
    network = networks.build("flow", arguments).eval()
    networks.save(tmp_path / "G.safetensors", network, "flow", arguments)
    loaded = networks.load(tmp_path / "G.safetensors")
    kept = (loaded.guidance, loaded.heun_steps, loaded.noise_scale)
    assert kept == (SMALL.guidance, SMALL.heun_steps, SMALL.noise_scale)
    networks.save(tmp_path / "again.safetensors", loaded, "flow", arguments)
    again = networks.load(tmp_path / "again.safetensors")
    x, c, _ = inputs()
    assert torch.equal(gan.sample(loaded, x, c, 64, 0), gan.sample(again, x, c, 64, 0))


def test_noise_has_the_length_that_the_generator_needs():
    flow, conv = awake(), torch.nn.Linear(1, 1)
    assert networks.draw_noise(flow, 2, 64, 0).shape == (2, 784)
    noise = networks.draw_noise(conv, 2, 64, 0)
    assert torch.equal(noise, torch.randn(2, 64, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def test_a_sample_starts_from_its_scaled_noise():
    """noise_scale 0.5 on z is noise_scale 1 on half of z."""
    whole, scaled = awake(heun_steps=2), awake(heun_steps=2, noise_scale=0.5)
    x, c, _ = inputs()
    z = networks.draw_noise(whole, len(x), 64, 3)
    assert torch.equal(scaled(x, c, z), whole(x, c, z / 2))
    assert not torch.equal(scaled(x, c, z), whole(x, c, z))
