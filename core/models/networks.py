"""Figs 3 and 4: a GAN's three generators, D, and the classifier (Q, f_S, f_T, scorer).

A face x is (B, 1, 28, 28), a spectrogram y is (B, 1, columns, bands), both in [-1, 1]. In the other
direction (§4.5, voices to faces) a generator's `source` is the spectrogram's size and its `shape`
the face's. The paper's text gives no sizes. Width `paper` takes those of the authors' code where it
has some (EncDec; the first seven of D's ten convolutions; Q) and ours in the U-Net; `compact` keeps
a generator under 1.5 million parameters. The caller adds the input noise (§3.2): networks are pure
functions.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from core import files
from core.models.convolutions import Conv2d, to_channels_last, upsample_and_convolve
from core.models.flow.velocity import FLOW_WIDTHS, FlowGenerator
from core.models.trunks import LEAKY_RELU_SLOPE, PooledTrunk, ResidualTrunk, Trunk, conv_block

FACE_SIZE = (28, 28)  # pixels, height and width

ENCDEC_WIDTHS: dict[str, tuple[int, ...]] = {
    "paper": (1024, 1024, 1024, 1024, 512, 512),
    "compact": (320, 320, 320, 256),
}
# of the encoder's levels, each half as large as the one before, and last of the code of c and z
UNET_WIDTHS: dict[str, tuple[int, ...]] = {
    "paper": (64, 128, 256, 512, 512, 512),
    "compact": (8, 16, 32, 64),
}
CONV_WIDTHS: dict[str, tuple[int, ...]] = {
    "paper": (512, 256, 128, 64),
    "compact": (128, 64, 32, 16),
}
GENERATOR_WIDTHS = {
    **{"encdec": ENCDEC_WIDTHS, "unet": UNET_WIDTHS, "conv": CONV_WIDTHS},
    "flow": FLOW_WIDTHS,
}
DISCRIMINATOR_CHANNELS = {
    "paper": (64, 128, 512, 1024, 512, 512, 512),
    "compact": (16, 32, 64, 128),
}
# of the authors' Q: channels of its convolutions, and widths of its dense layers
WIDE_CLASSIFIER_CHANNELS = (12, 25)
WIDE_CLASSIFIER_DENSE = (512, 512, 256, 128)


def generator_widths(kind: str, width: str, use_source: bool = True) -> tuple[int, ...]:
    """Widths of a generator's layers; without the source the encoder is dropped, too (§4.4).

    In EncDec it is the first half of the layers; the other generators leave theirs out themselves.

    >>> generator_widths("encdec", "paper", use_source=False)
    (1024, 512, 512)
    """
    widths = GENERATOR_WIDTHS[kind][width]
    return widths[len(widths) // 2 :] if kind == "encdec" and not use_source else widths


def dense_block(n_in: int, n_out: int) -> nn.Sequential:
    """Linear, batch norm, LeakyReLU: the block of EncDec (§3.2 names the last two as remedies)."""
    return nn.Sequential(
        nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.LeakyReLU(LEAKY_RELU_SLOPE)
    )


class EncDec(nn.Module):
    """Fig. 4b: dense layers from (x, c, z) to the spectrogram, then tanh.

    Without the source the input is (c, z) alone, and `widths` are the decoder's (§4.4).
    """

    def __init__(
        self,
        classes: int,
        z: int,
        shape: tuple[int, int],
        widths: tuple[int, ...],
        use_source: bool = True,
        source: tuple[int, int] = FACE_SIZE,
    ):
        super().__init__()
        self.shape, self.use_source = shape, use_source
        self.norm = nn.BatchNorm1d(source[0] * source[1]) if use_source else None
        sizes = [(source[0] * source[1] if use_source else 0) + classes + z, *widths]
        self.layers = nn.Sequential(*[dense_block(a, b) for a, b in itertools.pairwise(sizes)])
        self.out = nn.Linear(sizes[-1], shape[0] * shape[1])

    def forward(self, x: Tensor, c: Tensor, z: Tensor) -> Tensor:
        parts = [c, z] if self.norm is None else [self.norm(x.flatten(1)), c, z]
        h = self.layers(torch.cat(parts, dim=1))
        return torch.tanh(self.out(h)).view(-1, 1, *self.shape)  # (B, 1, columns, bands)


class UNet(nn.Module):
    """Fig. 4a: convolutional encoder and decoder with skip connections; c and z join at the bottom.

    The source is resized to the target's size first and halved once per width after the first, the
    last of `widths` being that of the code of c and z. Without the source there are no encoder and
    no skip connections (§4.4).
    """

    def __init__(
        self,
        classes: int,
        z: int,
        shape: tuple[int, int],
        widths: tuple[int, ...],
        use_source: bool = True,
        source: tuple[int, int] = FACE_SIZE,
    ):
        super().__init__()
        self.use_source = use_source
        *levels, code = widths
        self.sizes = [shape]  # of the levels; two halvings end at 28 x 7 for 112 x 28
        for _ in levels[1:]:
            self.sizes.append((-(-self.sizes[-1][0] // 2), -(-self.sizes[-1][1] // 2)))
        bottom = self.sizes[-1]
        if use_source:
            halvings = [conv_block(a, b, 2) for a, b in itertools.pairwise(levels)]
            self.down = nn.ModuleList([conv_block(1, levels[0]), *halvings])
        self.coarse = (bottom[0] // 4 or 1, bottom[1])  # the code's size, coarse in time
        self.inject = nn.Linear(classes + z, code * self.coarse[0] * self.coarse[1])
        self.mix = conv_block((levels[-1] if use_source else 0) + code, code)
        given = [code, *reversed(levels[2:])]  # channels that a doubling gets from below
        skips = reversed(levels[:-1]) if use_source else [0] * len(given)
        both = zip(given, skips, reversed(levels[1:]), strict=True)
        self.up = nn.ModuleList([conv_block(below + skip, out) for below, skip, out in both])
        self.out = Conv2d(levels[1], 1, 3, padding=1)

    def forward(self, x: Tensor, c: Tensor, z: Tensor) -> Tensor:
        code = self.inject(torch.cat([c, z], dim=1)).view(len(c), -1, *self.coarse)
        h = F.interpolate(code, self.sizes[-1])
        skips: list[Tensor] = []
        if self.use_source:
            e = F.interpolate(x, self.sizes[0], mode="bilinear", align_corners=False)
            for layer in self.down:
                e = layer(e)
                skips.append(e)
            h = torch.cat([skips.pop(), h], dim=1)
        h = self.mix(h)
        for size, layer in zip(reversed(self.sizes[:-1]), self.up, strict=True):
            h = F.interpolate(h, size)
            h = layer(torch.cat([skips.pop(), h], dim=1) if skips else h)
        return torch.tanh(self.out(h))  # (B, 1, columns, bands)


class ConvGenerator(nn.Module):
    """Our generator: convolutions upsample a coarse map of a face code, c and z.

    Convolutions share what speech looks like between all places; the dense EncDec has to learn it
    for every cell separately.
    """

    def __init__(
        self,
        classes: int,
        z: int,
        shape: tuple[int, int],
        widths: tuple[int, ...],
        use_source: bool = True,
        source: tuple[int, int] = FACE_SIZE,
    ):
        super().__init__()
        self.use_source = use_source
        self.sizes = [shape]  # from the coarse map, 7 x 2 for 112 x 28, to the spectrogram
        for _ in widths:
            self.sizes.insert(0, (-(-self.sizes[0][0] // 2), -(-self.sizes[0][1] // 2)))
        a, b = widths[-1], 2 * widths[-1]
        if use_source:
            act = nn.LeakyReLU(LEAKY_RELU_SLOPE)
            code = nn.Linear(b * (source[0] // 4) * (source[1] // 4), 64)
            self.face = nn.Sequential(
                Conv2d(1, a, 4, 2, 1), act, Conv2d(a, b, 4, 2, 1), act, nn.Flatten(), code, act
            )
        coarse = widths[0] * self.sizes[0][0] * self.sizes[0][1]
        self.spread = nn.Linear((64 if use_source else 0) + classes + z, coarse)
        pairs = itertools.pairwise((*widths, widths[-1]))
        self.layers = nn.ModuleList([conv_block(p, q) for p, q in pairs])
        self.out = Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, x: Tensor, c: Tensor, z: Tensor) -> Tensor:
        parts = [self.face(x), c, z] if self.use_source else [c, z]
        h = self.spread(torch.cat(parts, dim=1)).view(len(z), -1, *self.sizes[0])
        h = to_channels_last(h)
        for size, layer in zip(self.sizes[1:], self.layers, strict=True):
            doubled = size[0] == 2 * h.shape[2] and 2 * h.shape[3] - size[1] in (0, 1)
            assert isinstance(layer, nn.Sequential)
            assert isinstance(layer[0], nn.Conv2d)
            if doubled:
                h = layer[1:](upsample_and_convolve(h, layer[0].weight, size))
            else:
                h = layer(F.interpolate(h, size))
        return torch.tanh(self.out(h))  # (B, 1, columns, bands)


class Discriminator(nn.Module):
    """D: is this spectrogram real? (B, 1, columns, bands) -> logits (B,).

    `norm` is `batch` (§3.2) or `group`. With `classes` D also sees the condition c (B, classes), by
    projection onto its features (Miyato & Koyama 2018); with 0, as Eq. (3) prints, it ignores c.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        channels: tuple[int, ...],
        norm: str = "batch",
        classes: int = 0,
    ):
        super().__init__()
        self.trunk = Trunk(shape, channels, 4, norm)
        self.head = nn.Linear(self.trunk.features, 1)
        self.embed = nn.Linear(classes, self.trunk.features, bias=False) if classes else None

    def forward(self, y: Tensor, c: Tensor | None = None) -> Tensor:
        h = self.trunk(y)
        logit = self.head(h)[:, 0]
        if self.embed is None:
            return logit
        return logit + (h @ self.embed.weight * c).sum(dim=1) / h.shape[1] ** 0.5


class Classifier(nn.Module):
    """Q, f_S, f_T and the scorer, which predict the emotion: (B, 1, H, W) -> logits (B, K).

    `features` is the width of the penultimate layer. The scorer has 16, so that FID's sample size
    is at least ten times as large. `dense` are widths of dense layers before it; with
    any the convolutions are pooled, as in the authors' Q, else they have stride 2 or, `residual`,
    are our residual blocks. `mirrored`: in evaluation the features are the mean of those of an
    image and of its mirror image, so that both get one answer.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        channels: tuple[int, ...],
        classes: int,
        features: int = 64,
        dense: tuple[int, ...] = (),
        residual: bool = False,
        mirrored: bool = False,
    ):
        super().__init__()
        self.trunk: PooledTrunk | ResidualTrunk | Trunk
        if residual:
            self.trunk = ResidualTrunk(shape, channels)
        else:
            self.trunk = PooledTrunk(shape, channels) if dense else Trunk(shape, channels, kernel=5)
        self.mirrored = mirrored
        sizes = [self.trunk.features, *dense]
        self.dense = nn.Sequential(*[dense_block(a, b) for a, b in itertools.pairwise(sizes)])
        self.hidden = dense_block(sizes[-1], features)
        self.head = nn.Linear(features, classes)

    def penultimate(self, image: Tensor) -> Tensor:
        """The features of Eqs (10) and (11): (B, 1, H, W) -> (B, features)."""
        found = self.hidden(self.dense(self.trunk(image)))
        if self.training or not self.mirrored:
            return found
        return (found + self.hidden(self.dense(self.trunk(image.flip(-1))))) / 2

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.penultimate(image))


class Ensemble(nn.Module):
    """Classifiers of one architecture as one, its logits the mean of theirs (ours, for f_S).

    Its features are all members' side by side, so that the mean is one linear layer of them, and
    all that reads features, softmax or temperature of a Classifier reads these.
    """

    def __init__(self, members: int, **arguments: Any):
        super().__init__()
        networks = [Classifier(**arguments) for _ in range(members)]
        self.head = nn.Linear(members * networks[0].head.in_features, arguments["classes"])
        for network in networks:
            del network.head
        self.members = nn.ModuleList(networks)

    def penultimate(self, image: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, members * features)."""
        each: list[Any] = list(self.members)
        return torch.cat([member.penultimate(image) for member in each], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.penultimate(image))


AnyClassifier: TypeAlias = Classifier | Ensemble  # f_S may be either


def average_logits(networks: Sequence[Classifier], arguments: dict) -> Ensemble:
    """The ensemble of trained classifiers; `arguments` are the ensemble's."""
    out: Any = build("classifier", arguments)
    for member, network in zip(out.members, networks, strict=True):
        own = network.state_dict()
        member.load_state_dict({k: own[k] for k in member.state_dict()})
    heads = [network.head for network in networks]
    with torch.no_grad():
        out.head.weight.copy_(torch.cat([h.weight for h in heads], dim=1) / len(heads))
        out.head.bias.copy_(torch.stack([h.bias for h in heads]).mean(dim=0))
    return out.to(heads[0].weight.device).eval()


def _classifier(members: int = 1, **arguments: Any) -> AnyClassifier:
    return Classifier(**arguments) if members == 1 else Ensemble(members, **arguments)


NETWORK_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "encdec": EncDec,
    "unet": UNet,
    "conv": ConvGenerator,
    "flow": FlowGenerator,
    "discriminator": Discriminator,
    "classifier": _classifier,
}


def draw_noise(G: nn.Module, n: int, z: int, seed: int) -> Tensor:
    """n draws of a generator's noise from `seed` alone: (n, z), or (n, G.noise_length) of a flow.

    A flow moves its noise to the spectrogram, so its noise has the spectrogram's size.
    """
    length = getattr(G, "noise_length", z)
    return torch.randn((n, length), generator=torch.Generator().manual_seed(seed))


def build(kind: str, arguments: dict) -> nn.Module:
    """A network of `NETWORK_CLASSES` with the arguments of a file's header (lists become tuples).

    >>> network = build("classifier", {"shape": [28, 28], "channels": [8, 16], "classes": 6})
    >>> network(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 6])
    """
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    return NETWORK_CLASSES[kind](**tuples)


def initialise_weights(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """He initialisation (the paper's [54]), drawn from `generator` and no global random state."""
    gain = nn.init.calculate_gain("leaky_relu", LEAKY_RELU_SLOPE)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight, fan_in = module.weight, module.weight[0].numel()
            with torch.no_grad():
                weight.copy_(torch.randn(weight.shape, generator=generator) * gain / fan_in**0.5)
                if module.bias is not None:
                    module.bias.zero_()
    return network


def save(path: Path, network: nn.Module, kind: str, arguments: dict) -> None:
    """Write a network as float16 safetensors with its architecture in the header, atomically.

    Callers use a trained network only after loading it back, so that every reported number belongs
    to the stored weights.

    >>> import tempfile
    >>> arguments = {"shape": [28, 28], "channels": [8, 16], "classes": 6}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "Q.safetensors"
    ...     save(path, build("classifier", arguments), "classifier", arguments)
    ...     load(path)(torch.zeros(1, 1, 28, 28)).shape
    torch.Size([1, 6])
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    halves = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    # A header of one key has one order: equal networks give equal bytes.
    header = {"network": json.dumps({"kind": kind, "arguments": arguments})}
    files.write_atomic(path, serialise(halves, header))


def _check_shapes(network: nn.Module, file: Any) -> None:
    """Raise ValueError unless an open file's tensors are those of the network, name by name."""
    wanted = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    if odd := sorted(wanted.keys() ^ set(file.keys())):
        raise ValueError(f"{odd[0][:60]} is in the file or in the network alone")
    for name, shape in wanted.items():
        found = tuple(file.get_slice(name).get_shape())
        if found != shape:
            raise ValueError(f"{name[:60]} is {found}, and {shape} by the header")


def load(path: Path, device: str | torch.device = "cpu") -> nn.Module:
    """The network of a file that `save` wrote, in evaluation mode, float32.

    Raises DamagedError, which names the file, if it is damaged or something else.
    """
    fix = "remove the file and give the run's train command again, or restore it"
    try:
        with safe_open(path, "pt") as f:
            header = json.loads((f.metadata() or {})["network"])
            # of sizes alone: what a stranger's header asks for must not be allocated
            with torch.device("meta"):
                _check_shapes(build(header["kind"], header["arguments"]), f)
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118  (safe_open is no dict)
        network = build(header["kind"], header["arguments"])
        floats = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        network.load_state_dict(floats)
    except OSError:
        raise  # the file is missing or cannot be read; its content may be whole
    except (KeyError, RuntimeError, ValueError, TypeError) as e:
        raise files.DamagedError(
            f"{files.shown(path)} is not a network of this project ({e}); {fix}"
        ) from e
    except Exception as e:  # safetensors raises its own class for damaged files
        raise files.DamagedError(f"{files.shown(path)} is damaged ({e}); {fix}") from e
    return network.to(device).eval()
