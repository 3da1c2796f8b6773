"""Convolution layers of Figs 3 and 4 that are fast on a CPU; equal to torch's but for rounding.

CPU kernels work on 16 channels. A layer with one input or output channel wastes 15/16 of them, so
it is computed here as a matrix product. In bf16 so is the gradient of a layer's weights, whose
kernel is no faster than in fp32. A GPU uses torch's own layers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

IntPair = Sequence[int]


class Unfold(torch.autograd.Function):
    """im2col: the patch under a kernel (h, w) at each output cell. x (B, H, W) -> (B, h w, cells).

    Linear; `Fold` is its adjoint.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, kernel: IntPair, stride: IntPair, padding: IntPair) -> Tensor:
        (h, w), (down, right) = kernel, padding
        padded = F.pad(x, (right, right, down, down))
        patches = padded.unfold(1, h, stride[0]).unfold(
            2, w, stride[1]
        )  # (B, H', W', h, w), a view
        return patches.permute(0, 3, 4, 1, 2).reshape(len(x), h * w, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, *ctx.form = inputs
        ctx.size, ctx.dtype = x.shape[1:], x.dtype

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        return Fold.apply(g, ctx.size, *ctx.form).to(ctx.dtype), None, None, None


class Fold(torch.autograd.Function):
    """col2im: images of `size` (H, W) as the sum of overlapping patches, in fp32 or better.

    (B, h w, cells) -> (B, H, W).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        parts: Tensor, size: IntPair, kernel: IntPair, stride: IntPair, padding: IntPair
    ) -> Tensor:
        (height, width), (h, w), (y, x), (down, right) = size, kernel, stride, padding
        tall, wide = ((n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, padding, kernel, stride))
        grid = parts.view(len(parts), h, w, tall, wide)
        kind = torch.promote_types(parts.dtype, torch.float32)
        rows = parts.new_zeros((len(parts), h, tall, width + 2 * right), dtype=kind)
        for j in range(w):
            rows[..., j : j + x * wide : x].add_(grid[:, :, j])
        out = parts.new_zeros((len(parts), height + 2 * down, width + 2 * right), dtype=kind)
        for i in range(h):
            out[:, i : i + y * tall : y].add_(rows[:, i])
        return out[:, down : down + height, right : right + width]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        parts, _, *ctx.form = inputs
        ctx.dtype = parts.dtype

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        return Unfold.apply(g.to(ctx.dtype), *ctx.form), None, None, None, None


class BatchedProduct(torch.autograd.Function):
    """taps (B, m, n) @ x (B, n, cells); the gradient of x has the memory layout of x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(taps: Tensor, x: Tensor) -> Tensor:
        return torch.bmm(taps, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        taps, x = ctx.saved_tensors
        of_taps = of_x = None
        if ctx.needs_input_grad[0]:
            of_taps = torch.bmm(g, x.transpose(1, 2).to(g.dtype)).to(taps.dtype)
        if ctx.needs_input_grad[1]:
            taps = taps.to(g.dtype)
            if x.stride(1) == 1:
                of_x = torch.bmm(g.transpose(1, 2), taps).transpose(1, 2)
            else:
                of_x = torch.bmm(taps.transpose(1, 2), g)
            of_x = of_x.to(x.dtype)
        return of_taps, of_x


class Bf16Conv(torch.autograd.Function):
    """A convolution, or with `transposed` its adjoint, in bf16.

    Kernel, stride and padding are square. The gradient of the weights is a matrix product of input
    patches and output gradients, summed in fp32.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, transposed: bool
    ) -> Tensor:
        return (F.conv_transpose2d if transposed else F.conv2d)(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, _, *ctx.form = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple:
        (x, weight), (stride, padding, transposed) = ctx.saved_tensors, ctx.form
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0] and transposed:
            of_x = F.conv2d(g, weight, None, stride, padding)
        elif ctx.needs_input_grad[0]:
            of_x = conv2d_input(list(x.shape), weight, g, stride, padding)
        if ctx.needs_input_grad[1]:
            (fine, coarse), k = (g, x) if transposed else (x, g), weight.shape[2]
            padded = F.pad(fine.permute(0, 2, 3, 1), (0, 0, *[padding] * 4))
            patches = padded.unfold(1, k, stride).unfold(2, k, stride)
            cells = coarse.permute(0, 2, 3, 1).reshape(-1, coarse.shape[1])
            product = cells.t() @ patches.permute(0, 1, 2, 4, 5, 3).reshape(len(cells), -1)
            of_weight = product.view(-1, k, k, fine.shape[1]).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[2]:
            of_bias = g.sum(dim=(0, 2, 3))
        return of_x, of_weight, of_bias, None, None, None


class MatchGradientLayout(torch.autograd.Function):
    """Identity on x (B, n, H, W); its gradient gets x's memory layout, which saves a later copy."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.channels_last = inputs[0].stride(1) == 1

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return to_channels_last(g) if ctx.channels_last else g.contiguous()


def to_channels_last(x: Tensor) -> Tensor:
    """x (B, n, H, W) with its channels adjacent in memory; works in a stack of networks too."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def product_dtype(x: Tensor) -> torch.dtype:
    """The data type of matrix products of x: autocast's, or that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def conv_from_one_channel(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: IntPair, padding: IntPair
) -> Tensor:
    """A convolution of images of one channel: (B, 1, H, W) -> (B, o, H', W').

    weight (o, 1, h, w), bias (o,) or None.
    """
    kernel = weight.shape[2:]
    size = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[2:], padding, kernel, stride)]
    patches = Unfold.apply(x[:, 0].to(product_dtype(x)), kernel, stride, padding)
    taps = weight.flatten(1).expand(len(x), -1, -1).to(patches.dtype)  # (B, o, h w)
    start = taps.new_zeros(len(weight)) if bias is None else bias.to(patches.dtype)
    if weight.stride(1) == 1:  # the output gets the weights' layout, channels last or not
        out = torch.baddbmm(start, patches.transpose(1, 2), taps.transpose(1, 2)).transpose(1, 2)
    else:
        out = torch.baddbmm(start[:, None], taps, patches)
    return out.unflatten(2, size)


def conv_to_one_channel(x: Tensor, weight: Tensor, bias: Tensor, padding: IntPair) -> Tensor:
    """A convolution of stride 1 to images of one channel: (B, n, H, W) -> (B, 1, H', W').

    weight (1, n, h, w), bias (1,).
    """
    kernel = weight.shape[2:]
    size = [n + 2 * p - k + 1 for n, p, k in zip(x.shape[2:], padding, kernel)]
    taps = weight[0].flip(1, 2).flatten(1).t().expand(len(x), -1, -1)  # (B, h w, n)
    parts = BatchedProduct.apply(taps.to(product_dtype(x)), x.flatten(2).to(product_dtype(x)))
    margin = [k - 1 - p for k, p in zip(kernel, padding)]
    return (Fold.apply(parts, size, kernel, (1, 1), margin) + bias)[:, None]


def is_bf16_product_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether `Bf16Conv` is faster for these weights; with few channels copying costs too much."""
    bf16 = weight.requires_grad and product_dtype(x) == torch.bfloat16
    return bf16 and weight.shape[0] > 16 and weight.shape[1] > 8


class Conv2d(nn.Conv2d):
    """torch's Conv2d, computed by the functions above on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return self.of(x, self.weight, self.bias)

    def of(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """This layer with other weights."""
        stride, padding = self.stride, self.padding
        assert not isinstance(padding, str)
        if x.device.type == "cpu":
            if weight.shape[1] == 1 and x.requires_grad:
                return conv_from_one_channel(x, weight, bias, stride, padding)
            if weight.shape[0] == 1 and stride == (1, 1) and bias is not None:
                return conv_to_one_channel(x, weight, bias, padding)
            if is_bf16_product_faster(x, weight):
                half = x.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16()
                return Bf16Conv.apply(*half, stride[0], padding[0], False)
        return F.conv2d(x, weight, bias, stride, padding)


class ConvBlock(nn.Sequential):
    """Convolution, norm, LeakyReLU; evaluation mode folds batch norm into the convolution."""

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, act = self[0], self[1], self[-1]
        if not isinstance(norm, nn.BatchNorm2d) or norm.training:
            return super().forward(x)
        assert isinstance(conv, Conv2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert isinstance(act, nn.LeakyReLU)
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight, bias = conv.weight * scale[:, None, None, None], norm.bias
        h = conv.of(x, weight, bias - norm.running_mean * scale)
        return F.leaky_relu(h, act.negative_slope)  # in place, backward would copy views of h


# (4, 3): which of three taps fall on each of four upsampled cells, in reverse order
_TAP_SUMS_1D = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
_TAP_SUMS_2D = torch.kron(_TAP_SUMS_1D, _TAP_SUMS_1D)  # (16, 9)


def upsample_and_convolve(h: Tensor, weight: Tensor, size: IntPair) -> Tensor:
    """A 3x3 convolution (padding 1, no bias) of h upsampled by nearest neighbours to `size`.

    h (B, n, H, W), weight (o, n, 3, 3) -> (B, o, *size); `size` is (2 H, 2 W) or (2 H, 2 W - 1).
    Each cell occurs four times in the upsampled h, so the kernel's taps on the same cell are added
    first. The result is a transposed convolution with a 4x4 kernel and stride 2: 4 products per
    value instead of 9, and no upsampled copy.
    """
    o, n = weight.shape[:2]
    with torch.autocast(h.device.type, enabled=False):  # sums of weights keep their precision
        taps = weight.transpose(0, 1).reshape(n * o, 9) @ _TAP_SUMS_2D.t().to(weight)
        taps = taps.view(n, o, 4, 4)
        right = weight[..., 2].transpose(0, 1) @ _TAP_SUMS_1D.t().to(weight)  # (n, o, 4)
    if h.device.type == "cpu" and is_bf16_product_faster(h, taps):
        out = Bf16Conv.apply(h.bfloat16(), taps.bfloat16(), None, 2, 1, True)
    else:
        out = F.conv_transpose2d(h, taps, stride=2, padding=1)
    if size[1] == out.shape[3]:
        return out
    # Cut the last column, and subtract its contribution to its neighbour by the right taps.
    beyond = F.conv_transpose1d(h[..., -1], right, stride=2, padding=1)
    return out[..., :-1] - F.pad(beyond[..., None], (size[1] - 1, 0))


def retain_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step; without glibc nothing happens.

    Otherwise each CPU step requests some 100 MB from the system, which clears every page of it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    # M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD of malloc.h, the last two in bytes
    for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):
        mallopt(parameter, value)
