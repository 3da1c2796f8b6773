"""Figs 3 and 4: shapes and sizes of the networks, and storage without loss."""

import pytest
import torch

from core.models import networks
from core.models.networks import (
    CONV_WIDTHS,
    DISCRIMINATOR_CHANNELS,
    ENCDEC_WIDTHS,
    UNET_WIDTHS,
    Classifier,
    ConvGenerator,
    Discriminator,
    EncDec,
    UNet,
)

GENERATORS = [
    (EncDec, ENCDEC_WIDTHS, "encdec"),
    (UNet, UNET_WIDTHS, "unet"),
    (ConvGenerator, CONV_WIDTHS, "conv"),
]


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def inputs(classes=6, batch=3):
    x, z = (
        torch.randn(batch, 1, 28, 28, generator=seeded(1)),
        torch.randn(batch, 16, generator=seeded(3)),
    )
    return x, torch.rand(batch, classes, generator=seeded(2)), z


@pytest.mark.parametrize("columns", [28, 56, 112])
@pytest.mark.parametrize("source", [True, False])
@pytest.mark.parametrize("classes", [6, 0])
@pytest.mark.parametrize("kind", GENERATORS, ids=["encdec", "unet", "conv"])
def test_generators(kind, columns, source, classes):
    make, widths, _ = kind
    G = networks.initialise_weights(
        make(classes, 16, (columns, 28), widths["compact"], source), seeded()
    ).eval()
    x, c, z = inputs(classes)
    y = G(x, c, z)
    assert y.shape == (3, 1, columns, 28)
    assert y.abs().max() <= 1
    assert (
        not torch.equal(y, G(-x, c, z))
    ) == source  # with the source the face matters, without it does not
    assert not torch.equal(y, G(x, c, -z))
    if classes:
        assert not torch.equal(y, G(x, 1 - c, z))


@pytest.mark.parametrize("kind", GENERATORS, ids=["encdec", "unet", "conv"])
def test_a_compact_generator_is_small(kind):
    make, widths, _ = kind
    assert (
        sum(p.numel() for p in make(7, 64, (112, 28), widths["compact"]).parameters()) <= 1_500_000
    )


@pytest.mark.parametrize("width", ["compact", "paper"])
@pytest.mark.parametrize("columns", [28, 112])
def test_discriminator_and_classifier(width, columns):
    y = torch.randn(2, 1, columns, 28, generator=seeded())
    assert Discriminator((columns, 28), DISCRIMINATOR_CHANNELS[width])(y).shape == (2,)
    conditional = Discriminator((columns, 28), DISCRIMINATOR_CHANNELS[width], "group", 6)
    c = torch.eye(6)[:2]
    assert conditional(y, c).shape == (2,)
    assert not torch.equal(conditional.eval()(y, c), conditional(y, c.flip(0)))
    Q = Classifier((columns, 28), (8, 16, 32), 6, features=16).eval()
    assert Q(y).shape == (2, 6)
    assert Q.penultimate(y).shape == (2, 16)


def test_initialise_draws_from_its_generator_alone():
    torch.manual_seed(0)
    a = networks.initialise_weights(EncDec(6, 16, (28, 28), ENCDEC_WIDTHS["compact"]), seeded(5))
    torch.manual_seed(1)
    b = networks.initialise_weights(EncDec(6, 16, (28, 28), ENCDEC_WIDTHS["compact"]), seeded(5))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_stored_and_loaded(tmp_path):
    arguments = {
        "classes": 6,
        "z": 16,
        "shape": [56, 28],
        "widths": list(UNET_WIDTHS["compact"]),
        "use_source": True,
    }
    G = networks.initialise_weights(networks.build("unet", arguments), seeded())
    G(*inputs())  # moves the batch norm's averages
    path = tmp_path / "G.safetensors"
    networks.save(path, G, "unet", arguments)
    again, twice = networks.load(path), tmp_path / "again.safetensors"
    assert not again.training
    assert (again(*inputs()) - G.eval()(*inputs())).abs().max() < 0.01  # half precision
    networks.save(twice, again, "unet", arguments)
    assert twice.read_bytes() == path.read_bytes()  # what was stored once is stored exactly


@pytest.mark.parametrize(
    "content", [b"", b"not weights", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "G.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"G\.safetensors"):
        networks.load(path)
