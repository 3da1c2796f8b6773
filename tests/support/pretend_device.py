"""A card that is not there: the device `meta`, which knows shapes and devices but no numbers.

Kernels refuse tensors of two devices there as on a card. What a card allows and `meta` does not is
added: a random generator of its own, one that refuses to draw for another device, and copies to the
host, which are counted and whose rows sum to 1, as a softmax does.
"""

from contextlib import contextmanager

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

CARD = torch.device("meta")
TO_HOST = (torch.Tensor.cpu, torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__float__)
TO_HOST += (torch.Tensor.__bool__, torch.Tensor.__int__, torch.Tensor.__index__)


class DeviceGenerator(torch.Generator):
    """A generator that says which device it draws for; torch has none for `meta`."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made.of = torch.device(device).type
        return made

    def __init__(self, device="cpu"):
        pass


class PretendDevice(TorchFunctionMode):
    """Within it `meta` behaves as a card; `copies` are the functions that waited for the host."""

    def __init__(self):
        super().__init__()
        self.copies: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if isinstance(kwargs.get("generator"), DeviceGenerator):
            self._check_generator(function, args, kwargs)
        on_card = bool(args) and isinstance(args[0], torch.Tensor) and args[0].device == CARD
        goes_home = function is torch.Tensor.to and "cpu" in map(str, [*args[1:], *kwargs.values()])
        if on_card and (function in TO_HOST or goes_home):
            self.copies.append(function.__name__)
            shape, dtype = args[0].shape, args[0].dtype
            value = 1 / shape[-1] if shape and dtype.is_floating_point else 0
            copy = torch.full(shape, value, dtype=dtype)
            return copy if goes_home or function is torch.Tensor.cpu else function(copy)
        if on_card and function is torch.bincount:  # `meta` lacks it
            return torch.zeros(kwargs["minlength"], dtype=torch.int64, device=CARD)
        return function(*args, **kwargs)

    def _check_generator(self, function, args, kwargs):
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        device = kwargs.get("device") or (tensors[0].device if tensors else "cpu")
        drawn_for = torch.device(device).type
        if kwargs["generator"].of != drawn_for:
            drawn_by = kwargs["generator"].of
            raise RuntimeError(f"{function.__name__} on {drawn_for}, generator of {drawn_by}")
        if drawn_for == CARD.type:
            del kwargs["generator"]


@contextmanager
def pretend_device(monkeypatch):
    """`CARD` as a card. Fused optimisers, which refuse `meta`, take their plain form."""
    with monkeypatch.context() as patch, PretendDevice() as device:
        patch.setattr(torch, "Generator", DeviceGenerator)
        for name in ("Adam", "AdamW"):
            plain = getattr(torch.optim, name)
            without = lambda p, plain=plain, fused=None, **k: plain(p, **k)  # noqa: E731
            patch.setattr(torch.optim, name, without)
        autocast = torch.autocast  # knows real devices alone
        host = lambda kind, *a, **k: autocast("cpu" if kind == CARD.type else kind, *a, **k)  # noqa: E731
        patch.setattr(torch, "autocast", host)
        yield device


def on_card(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor of the card, float32 or int64."""
    return torch.from_numpy(array).to(CARD)
