"""Fast layers on a CPU: values and gradients equal torch's own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.models import convolutions
from core.models.convolutions import Bf16Conv, Conv2d, ConvBlock, Fold, Unfold


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=dtype
    ).requires_grad_()


def same(ours, plain, inputs, atol=1e-11):
    """Values and gradients for the same pull."""
    torch.testing.assert_close(ours, plain, rtol=0, atol=atol)
    pull = drawn(*plain.shape, seed=9).detach()
    for a, b in zip(
        torch.autograd.grad(ours, inputs, pull),
        torch.autograd.grad(plain, inputs, pull),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


FORMS = [
    ((12, 8), 4, 2, 1),
    ((13, 9), 5, 2, 2),
    ((5, 6), 3, 1, 1),
    ((7, 7), 4, 2, 1),
]  # size, kernel, stride, padding


@pytest.mark.parametrize(("size", "k", "s", "p"), FORMS)
def test_patches_and_overlay_are_each_others_adjoint(size, k, s, p):
    """<Unfold x, u> = <x, Fold u>: each is the other's gradient; patches equal torch's unfold."""
    x, form = drawn(3, *size), ((k, k), (s, s), (p, p))
    met = Unfold.apply(x, *form)
    torch.testing.assert_close(met, F.unfold(x[:, None], k, padding=p, stride=s), rtol=0, atol=0)
    u = drawn(*met.shape, seed=1)
    laid = Fold.apply(u, size, *form)
    torch.testing.assert_close((met * u).sum(), (x * laid).sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        laid, F.fold(u, size, k, padding=p, stride=s)[:, 0], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("size", "k", "s", "p"), FORMS)
def test_a_picture_of_one_channel_in_and_out(size, k, s, p, last):
    x, w, b = drawn(3, 1, *size), drawn(4, 1, k, k, seed=1), drawn(4, seed=2)
    laid = w.to(memory_format=torch.channels_last) if last else w
    ours = convolutions.conv_from_one_channel(x, laid, b, (s, s), (p, p))
    assert ours.is_contiguous(memory_format=torch.channels_last) == last
    same(ours, F.conv2d(x, w, b, s, p), (x, w, b))
    assert torch.autograd.gradgradcheck(
        lambda x, w, b: convolutions.conv_from_one_channel(x, w, b, (s, s), (p, p)), (x, w, b)
    )
    h, out, bias = drawn(3, 4, *size, seed=3), drawn(1, 4, 3, 3, seed=4), drawn(1, seed=5)
    wide = h.to(memory_format=torch.channels_last) if last else h
    same(
        convolutions.conv_to_one_channel(wide, out, bias, (1, 1)),
        F.conv2d(h, out, bias, 1, 1),
        (h, out, bias),
    )


@pytest.mark.parametrize("width", [0, 1])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 4)])
def test_a_convolution_of_doubled_cells_is_the_plain_one(size, width):
    """At the borders too, and where the last column of what is doubled is not wanted."""
    h, weight = drawn(3, 5, *size), drawn(6, 5, 3, 3, seed=1)
    target = (2 * size[0], 2 * size[1] - width)
    same(
        convolutions.upsample_and_convolve(h, weight, target),
        F.conv2d(F.interpolate(h, target), weight, padding=1),
        (h, weight),
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_of_halved_weights(transposed):
    """In float64, where only the arithmetic counts; strides, padding and both directions."""
    for k, s, p in ((4, 2, 1), (3, 1, 1)):
        x, w = drawn(3, 6, 8, 4), drawn(*((6, 5) if transposed else (5, 6)), k, k, seed=1)
        plain = (
            F.conv_transpose2d(x, w, stride=s, padding=p)
            if transposed
            else F.conv2d(x, w, stride=s, padding=p)
        )
        same(Bf16Conv.apply(x, w, None, s, p, transposed), plain, (x, w))


def test_in_bf16_a_layer_stays_as_near_as_bf16_is():
    layer = Conv2d(16, 32, 4, 2, 1)
    x = drawn(8, 16, 12, 8, dtype=torch.float32)
    plain = nn.Conv2d.forward(layer, x)
    pull = torch.randn_like(plain)
    exact = torch.autograd.grad(plain, (x, *layer.parameters()), pull)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolutions.is_bf16_product_faster(x, layer.weight)
        ours = layer(x)
    near = torch.autograd.grad(ours.float(), (x, *layer.parameters()), pull)
    for a, b in ((plain, ours.float()), *zip(exact, near, strict=True)):
        assert float((a - b).detach().norm() / a.detach().norm()) < 0.01
        assert a.dtype == b.dtype


@pytest.mark.parametrize("channels", [1, 8])
def test_a_batch_norm_at_rest_is_part_of_the_weights(channels):
    block = ConvBlock(
        Conv2d(channels, 6, 5, 2, 2, bias=False), nn.BatchNorm2d(6), nn.LeakyReLU(0.1)
    ).double()
    block(drawn(9, channels, 9, 7) * 3 + 1)  # moves what it has learnt
    with torch.no_grad():
        block[1].weight.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
        block[1].bias.normal_(generator=torch.Generator().manual_seed(2))
    block.eval()
    plain = nn.Sequential(*copy.deepcopy(block).children())
    x = drawn(4, channels, 9, 7, seed=4)
    same(block(x), plain(x), (x,))
