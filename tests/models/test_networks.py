"""Figs 3 and 4: shapes and sizes of the networks, and storage without loss."""

import itertools
import subprocess
import sys

import pytest
import torch

from core import files
from core.config.settings import ClassifierSettings, GanSettings
from core.models import classifiers, gan, networks
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


def test_without_source_the_encoders_are_dropped_and_older_files_load(tmp_path):
    """EncDec kept all its layers without a source before; such a file says so in its header."""
    for generator, width in itertools.product(("encdec", "unet", "conv"), ("compact", "paper")):
        whole = gan.generator_arguments(changed(generator, width), 6, (112, 28))
        bare = gan.generator_arguments(changed(generator, width, False), 6, (112, 28))
        names, left = (set(networks.build(generator, a).state_dict()) for a in (whole, bare))
        assert left < names
        encoder = {"encdec": "layers.", "unet": "down.", "conv": "face."}[generator]
        assert any(k.startswith(encoder) for k in names - left)
    old = {"classes": 6, "z": 16, "shape": [28, 28], "use_source": False}
    old["widths"] = list(ENCDEC_WIDTHS["compact"])
    networks.save(tmp_path / "G.safetensors", networks.build("encdec", old), "encdec", old)
    G = networks.load(tmp_path / "G.safetensors")
    assert sum(isinstance(m, torch.nn.Linear) for m in G.modules()) == 5
    assert G(*inputs()).shape == (3, 1, 28, 28)


def changed(generator, width, use_source=True):
    return GanSettings(generator=generator, width=width, use_source=use_source)


def test_the_wide_u_net_is_deep():
    sizes = UNet(6, 16, (112, 28), UNET_WIDTHS["paper"]).sizes
    assert sizes == [(112, 28), (56, 14), (28, 7), (14, 4), (7, 2)]
    assert UNet(6, 16, (112, 28), UNET_WIDTHS["compact"]).sizes == sizes[:3]


@pytest.mark.parametrize("shape", [(28, 28), (56, 28), (112, 28), (112, 64)])
def test_wide_networks_take_every_size(shape):
    x, c, z = inputs()
    for make, widths, _ in GENERATORS:
        assert make(6, 16, shape, widths["paper"])(x, c, z).shape == (3, 1, *shape)
    y = torch.randn(2, 1, *shape, generator=seeded())
    for role, convolutions in (("voice", [12, 25]), ("face", [25])):
        arguments = classifiers.arguments(ClassifierSettings(width="paper"), shape, 6, role)
        assert arguments["channels"] == convolutions
        Q = networks.build("classifier", arguments)
        assert Q(y).shape == (2, 6)
        assert [m.out_features for m in Q.modules() if isinstance(m, torch.nn.Linear)] == [
            *(512, 512, 256, 128),
            6,
        ]


def test_the_scorer_stays_narrow_at_every_width():
    scorer = [
        classifiers.arguments(ClassifierSettings(width=w), (112, 28), 6, "scorer")
        for w in ("compact", "paper")
    ]
    assert scorer[0] == scorer[1]
    assert scorer[0]["features"] <= 32


def test_a_file_is_compared_with_its_header_before_anything_is_allocated(tmp_path, monkeypatch):
    """A stranger's header may ask for any width: the layers are built of sizes alone."""
    arguments = {"classes": 6, "z": 8, "shape": [28, 28], "widths": [16, 16]}
    devices = []

    class Recorded(EncDec):
        def __init__(self, **given):
            super().__init__(**given)
            devices.append(next(self.parameters()).device.type)

    monkeypatch.setitem(networks.NETWORK_CLASSES, "encdec", Recorded)
    path, network = tmp_path / "G.safetensors", networks.build("encdec", arguments)
    networks.save(path, network, "encdec", arguments | {"widths": [100_000, 100_000]})
    del devices[:]
    with pytest.raises(files.DamagedError, match=r"layers\.0\.0\.\w+ is .* by the header"):
        networks.load(path)
    assert devices == ["meta"]
    networks.save(path, network, "encdec", arguments | {"widths": [16, 16, 16]})
    with pytest.raises(files.DamagedError, match="in the file or in the network alone"):
        networks.load(path)


def test_no_shipped_network_brings_sympy_in():
    """torch imports it, for seconds, where a network is sized by operations that need it."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom core.models import networks\n"
        "for path in sys.argv[1:]:\n    networks.load(Path(path))\n"
        "    assert 'sympy' not in sys.modules, path"
    )
    shipped = sorted(map(str, (files.ROOT / "checkpoints").glob("*/models/*.safetensors")))
    assert any("listening" in path for path in shipped)
    answer = subprocess.run(
        [sys.executable, "-c", script, *shipped], cwd=files.ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
