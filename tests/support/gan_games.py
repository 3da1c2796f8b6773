"""Games of G and D at a small size, for fast paths that are held to the plain one."""

import numpy as np
import torch

from core.config.presets import PRESETS, with_method
from core.config.settings import GanSettings
from core.models import gan
from core.models.networks import Classifier

K, SHAPE = 3, (28, 28)

GAMES = {
    "ours": GanSettings(**(vars(PRESETS["demo"].gan) | {"batch": 2, "steps": 10, "z": 8})),
    "ours, augmented": GanSettings(
        **(
            vars(PRESETS["fer2013-ravdess"].gan)
            | {"batch": 2, "steps": 10, "z": 8, "condition": "label"}
        )
    ),
    "paper's": GanSettings(
        **(vars(with_method("strict", PRESETS["demo"]).gan) | {"batch": 6, "steps": 10, "z": 8})
    ),
    "U-Net, joint Q": GanSettings(
        generator="unet", q_training="joint", batch=2, steps=10, z=8, optimiser="adam"
    ),
}


def pool(seed):
    rng = np.random.default_rng(seed)
    x, y = (
        torch.from_numpy(rng.uniform(-1, 1, (12, 1, *size)).astype(np.float64))
        for size in ((28, 28), SHAPE)
    )
    c, label = (
        torch.from_numpy(rng.dirichlet(np.ones(K), 12)),
        torch.from_numpy(rng.integers(0, K, 12)),
    )
    return gan.TrainingData(
        x,
        c,
        label,
        y,
        label,
        lambda epoch: tuple(np.random.default_rng([seed, epoch]).permutation(12) for _ in range(2)),
    )


def state(g, seed):
    torch.manual_seed(seed)
    s = gan.new_state(g, K, SHAPE, Classifier(SHAPE, (4, 8), K, 8).eval(), seed, "cpu")
    for network in (s.G, s.D, s.Q, s.shown):
        # so that rounding, which Adam makes large where a gradient is next to nothing, hides no
        # error
        network.double()
    for optimiser in s.optimisers.values():
        for moments in optimiser.state.values():
            moments.update({k: v.double() for k, v in moments.items() if v.dim()})
    return s


def everything(s):
    """All numbers of a state, one after the other."""
    saved = gan.state_dict(s)
    flat = [v.flatten().double() for n in saved["networks"].values() for v in n.values()]
    flat += [
        v.flatten().double()
        for o in saved["optimisers"].values()
        for one in o["state"].values()
        for v in one.values()
    ]
    return torch.cat(flat)
