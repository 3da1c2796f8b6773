"""Presets: the configurations that a training may start from, and the networks of each method.

Standard library only.
"""

from __future__ import annotations

from typing import Literal

from core.config import SHARED_EMOTIONS, Config, GanSettings, replace

PresetName = Literal["smoke", "demo", "fer2013-ravdess", "fine", "paper", "studio"]
Method = Literal["paper", "studio"]  # networks, losses and optimiser: the paper's, or ours

OUR_GAN_SETTINGS = {  # what differs from the paper; LOG.md has the gain of each
    "generator": "conv",
    "d_norm": "group",
    "r1": 0.3,
    "projection": True,
    "optimiser": "adam",
    "lr_g": 1e-3,
    "lr_d": 1e-3,
    "l1": 0.1,
    "classify": 0.5,
    "average": 0.99,
}
DEMO = replace(Config(), gan=OUR_GAN_SETTINGS | {"steps": 1_200}, evaluate={"every": 100})
SMOKE = replace(
    DEMO,
    name="smoke",
    data={"demo_takes": 2},
    f_s={"steps": 40},
    f_t={"steps": 40, "channels": (8, 16, 32)},
    gan={"steps": 40, "batch": 32},
    evaluate={"every": 20},
)
FER_RAVDESS = replace(
    DEMO,
    name="fer2013-ravdess",
    data={
        "faces": "fer2013",
        "voices": "ravdess",
        "classes": SHARED_EMOTIONS,
        "pairing": "emotion",
    },
    f_s={"steps": 2_000, "channels": (32, 48, 96), "noise": 0.3, "smoothing": 0.1},
    f_t={"steps": 300},
    # S3 has some 260 real voices: without augmentation D memorises them within 500 steps
    gan={"steps": 1_200, "augment": True},
)
# 64 mel bands sound better than the paper's 28
FINE = replace(FER_RAVDESS, name="fine", data={"voices": "ravdess-64"}, logmel={"bands": 64})
PAPER = replace(
    Config(),
    name="paper",
    data={"faces": "crema-d", "voices": "crema-d"},
    gan={"width": "paper", "lr_g": 1e-5, "lr_d": 1e-5, "batch": 100, "steps": 20_000, "z": 100},
    evaluate={"every": 500},
)
STUDIO = replace(
    PAPER,
    name="studio",
    gan=vars(GanSettings()) | OUR_GAN_SETTINGS | {"augment": True, "steps": 6_000},
)
PRESETS: dict[str, Config] = {  # the keys are those of PresetName
    "smoke": SMOKE,
    "demo": DEMO,
    "fer2013-ravdess": FER_RAVDESS,
    "fine": FINE,
    "paper": PAPER,
    "studio": STUDIO,
}


def with_method(method: Method, config: Config) -> Config:
    """Return `config` with a method's networks, losses and optimiser; the condition is unchanged.

    paper: compact networks, its losses, Adagrad with a rate that fits both, 3,000 steps. studio:
    ours. Data, classifiers and the conformal predictor are unchanged.
    """
    gan = vars(GanSettings(condition=config.gan.condition))
    if method == "studio":
        gan |= OUR_GAN_SETTINGS | {
            k: getattr(config.gan, k) for k in ("steps", "augment", "batch", "z")
        }
    return replace(config, name=f"{config.name}-{method}", gan=gan)
