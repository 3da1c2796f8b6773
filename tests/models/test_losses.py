"""§3: the losses are the paper's formulas, and their gradients are finite differences."""

import math

import pytest
import torch

from core.models import losses

D_REAL, D_FAKE = (
    torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64),
    torch.tensor([-0.5, 0.1, 1.1], dtype=torch.float64),
)


def sigmoid(v):
    return 1 / (1 + math.exp(-float(v)))


def test_discriminator_loss_is_eq_3():
    expected = (
        -sum(math.log(sigmoid(v)) for v in D_REAL) / 3
        - sum(math.log(1 - sigmoid(v)) for v in D_FAKE) / 3
    )
    assert float(losses.discriminator_loss(D_REAL, D_FAKE)) == pytest.approx(expected)
    assert float(losses.discriminator_loss(D_REAL, D_FAKE, 0.9)) > 0


def test_both_forms_of_the_generators_game():
    assert float(losses.adversarial_loss(D_FAKE, "minmax")) == pytest.approx(
        sum(math.log(1 - sigmoid(v)) for v in D_FAKE) / 3
    )
    assert float(losses.adversarial_loss(D_FAKE)) == pytest.approx(
        -sum(math.log(sigmoid(v)) for v in D_FAKE) / 3
    )


def test_r1_is_half_the_mean_squared_slope_at_real_samples():
    y = torch.randn(
        5, 1, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    w = torch.linspace(-1, 1, 6, dtype=torch.float64)
    d = (y.flatten(1) @ w) ** 2  # slope 2 (y.w) w
    expected = (4 * (y.flatten(1) @ w) ** 2 * w.square().sum()).mean() / 2
    assert float(losses.r1_penalty(losses.logit_gradient(d, y)).detach()) == pytest.approx(
        float(expected.detach())
    )


@pytest.mark.parametrize("game", ["nonsaturating", "minmax"])
def test_the_generator_moves_d_upwards(game):
    d = D_FAKE.clone().requires_grad_()
    losses.adversarial_loss(d, game).backward()
    assert (
        d.grad < 0
    ).all()  # descending raises D(G): the sign that a known implementation has wrong


def test_class_loss_is_the_cross_entropy():
    q = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    log_p = q.log_softmax(dim=1)
    assert float(losses.class_loss(q, torch.tensor([0, 1]))) == pytest.approx(
        -float(log_p[0, 0] + log_p[1, 1]) / 2
    )


def test_eq_7_is_the_weighted_sum_of_its_terms():
    q, target = (
        torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 2]),
    )
    y, g = torch.rand(2, 3, 1, 5, 4, generator=torch.Generator().manual_seed(1))
    total, terms = losses.generator_loss(D_FAKE, q, target, y, g, 2.0, 3.0, 0.5)
    assert float(total) == pytest.approx(
        float(2 * terms["adversarial"] + 3 * terms["l1"] + 0.5 * terms["class"])
    )
    assert float(terms["l1"]) == pytest.approx(float((y - g).abs().mean()))
    without, _ = losses.generator_loss(D_FAKE, q, target, y, g, l1=0)
    assert float(without) == pytest.approx(float(terms["adversarial"] + terms["class"]))


def test_a_weight_of_as_many_as_the_cells_is_the_printed_norm_of_eq_4():
    rng = torch.Generator().manual_seed(0)
    y, g = (torch.rand(4, 1, 112, 28, generator=rng) for _ in range(2))
    q, target = torch.zeros(4, 6), torch.zeros(4, dtype=torch.long)
    printed = (y - g).abs().flatten(1).sum(dim=1).mean()  # E[||y - G||_1]
    weighted, _ = losses.generator_loss(
        torch.zeros(4), q, target, y, g, adversarial=0, l1=3136, classify=0
    )
    assert float(weighted) == pytest.approx(float(printed), rel=1e-5)


def test_gradients_are_finite_differences():
    generator = torch.Generator().manual_seed(2)
    q = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    y, g = (torch.rand(3, 1, 4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    d, g = D_FAKE.clone().requires_grad_(), g.requires_grad_()
    target = torch.tensor([0, 1, 2])
    for game in ("nonsaturating", "minmax"):
        torch.autograd.gradcheck(
            lambda d, q, g, m=game: losses.generator_loss(d, q, target, y, g, game=m)[0], (d, q, g)
        )
    torch.autograd.gradcheck(
        lambda a, b: losses.discriminator_loss(a, b, 0.9), (D_REAL.clone().requires_grad_(), d)
    )
