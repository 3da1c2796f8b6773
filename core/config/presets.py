"""Presets: the configurations that a training may start from, and the networks of each method.

Standard library only.
"""

from __future__ import annotations

from typing import Any, Literal

from core.config.settings import SHARED_EMOTIONS, Config, GanSettings, replace
from core.paper import published

PresetName = Literal[
    "stage",
    "smoke",
    "demo",
    "fer2013-ravdess",
    "listening",
    "surrogate-pairs",
    "fine",
    "paper",
    "ravdess",
    "studio",
]
# networks, losses and optimiser: the paper's with S3's labels for Q, the paper's without, or ours
Method = Literal["paper", "strict", "studio"]

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
OUR_FACES = {  # f_S for photographs of faces, ours: LOG.md has what each part gives
    "architecture": "residual",
    "channels": (16, 32, 64, 128),
    "steps": 4_000,
    "networks": 2,
    "optimiser": "adamw",
    "lr": 3e-3,
    "smoothing": 0.1,
    "augment": True,
    "dropout": 0.3,
    "average": 0.998,
    "temperature": True,
}
DEMO = replace(Config(), gan=OUR_GAN_SETTINGS | {"steps": 1_200}, evaluate={"every": 100})
STAGE = replace(  # to be watched: within a minute of Start its voices are heard as meant
    DEMO,
    name="stage",
    data={"demo_takes": 5},
    f_s={"steps": 200},
    f_t={"steps": 200},
    # a short average shows G some twenty steps ago, where the demo's lags by a hundred
    gan={
        **{"condition": "label", "steps": 100, "batch": 48, "average": 0.95},
        **{"lr_g": 1.5e-3, "lr_d": 1.5e-3, "classify": 0.3},
    },
    evaluate={"every": 20, "rows": ("S1", "S1 + generated")},
)
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
    f_s=OUR_FACES,
    f_t={"steps": 300},
    # S3 has some 260 real voices: without augmentation D memorises them within 500 steps
    gan={"steps": 1_200, "augment": True},
)
LISTENING = replace(  # to be heard: our flow, which learns from all people but S4's
    FER_RAVDESS,
    name="listening",
    data={"windows": "all", "speech": 0.6, "listening": True},
    f_s={"learns_from": "S1 and S3", "steps": 5_000, "networks": 3},  # more faces, more of both
    f_t={"steps": 1_500},
    gan={
        **{"generator": "flow", "condition": "label", "early_times": 0.3},
        # chosen on S2's faces: LOG.md
        **{"guidance": 1.5, "noise_scale": 0.7, "heun_steps": 12},
        **{"batch": 32, "steps": 4_000, "average": 0.999},
    },
    evaluate={"every": 500},
)
SURROGATE = replace(  # real faces and voices, joined once into clips by a hidden label
    FER_RAVDESS,
    name="surrogate-pairs",
    data={
        **{"faces": "surrogate-pairs", "voices": "surrogate-pairs", "pairing": "clip"},
        "f_s_corpus": "surrogate-faces",
    },
)
# 64 mel bands carry more of a voice than the paper's 28
FINE = replace(FER_RAVDESS, name="fine", data={"voices": "ravdess-64"}, logmel={"bands": 64})


def _steps(passes: int, corpus: str, part: int, batch: int) -> int:
    """Steps of so many passes over a set (0 for S1, 2 for S3) of one of the paper's corpora."""
    return round(passes * Config().data.sets[part] * published.CLIPS[corpus] / batch)


def _classifier_steps(corpus: str) -> int:
    """Steps of f_S and f_T on one of the paper's corpora."""
    return _steps(published.CLASSIFIER_EPOCHS, corpus, 0, published.CLASSIFIER_BATCH)


PAPER_GAME = {  # §3 as it is printed, with S3's labels for Q (mode `paper`)
    "q_training": "joint",
    "q_labels": "true",
    "real_target": 1.0,
}
STRICT_GAME = PAPER_GAME | {"q_training": "frozen", "q_labels": "condition"}
PAPER_SIZES = {  # for the paper's corpora; `core.paper.published.CHOICES` says why
    "width": "paper",
    "lr_g": published.GAN_RATE,
    "lr_d": published.GAN_RATE,
    "batch": published.GAN_BATCH,
    "z": published.Z_LENGTH,
    "steps": _steps(published.GAN_EPOCHS, "crema-d", 2, published.GAN_BATCH),
}
PAPER_CLASSIFIER = {
    "width": "paper",
    "optimiser": "adagrad",
    "lr": published.CLASSIFIER_RATE,
    "batch": published.CLASSIFIER_BATCH,
}
PAPER = replace(
    Config(),
    name="paper",
    data={"faces": "crema-d", "voices": "crema-d"},
    f_s=PAPER_CLASSIFIER | {"steps": _classifier_steps("crema-d")},
    f_t=PAPER_CLASSIFIER | {"steps": _classifier_steps("crema-d")},
    gan=PAPER_GAME | PAPER_SIZES,
    evaluate={"every": 500},
)
RAVDESS = replace(
    PAPER,
    name="ravdess",
    data={"faces": "ravdess", "voices": "ravdess"},
    f_s={"steps": _classifier_steps("ravdess")},
    f_t={"steps": _classifier_steps("ravdess")},
    gan={"steps": round(published.RAVDESS_SHARE * PAPER.gan.steps)},
    evaluate={"every": 250},
)
STUDIO = replace(
    Config(),
    name="studio",
    data={"faces": "crema-d", "voices": "crema-d"},
    f_s={"steps": _classifier_steps("crema-d")},
    f_t={"steps": _classifier_steps("crema-d"), "batch": published.CLASSIFIER_BATCH},
    gan=OUR_GAN_SETTINGS | {"augment": True, "steps": 6_000},
    evaluate={"every": 500},
)
PRESETS: dict[str, Config] = {  # the keys are those of PresetName
    "stage": STAGE,
    "smoke": SMOKE,
    "demo": DEMO,
    "fer2013-ravdess": FER_RAVDESS,
    "listening": LISTENING,
    "surrogate-pairs": SURROGATE,
    "fine": FINE,
    "paper": PAPER,
    "ravdess": RAVDESS,
    "studio": STUDIO,
}


def with_method(method: Method, config: Config) -> Config:
    """Return `config` with a method's networks, losses and optimiser; the condition is unchanged.

    paper: the paper's game, in which Q learns from S3's labels. strict: the same without these
    labels, Q being trained on S1. studio: ours. On the paper's corpora they have the sizes of the
    presets `paper` and `studio`; elsewhere the paper's have compact networks and 3,000 steps, at a
    rate that fits both. Data, classifiers and the conformal predictor are unchanged. A config that
    is of the method already is returned as it is.
    """
    d, own = config.data, config.gan
    if method == "studio" and own.generator in ("flow", OUR_GAN_SETTINGS["generator"]):  # ours
        return config
    of_paper = d.faces == d.voices and d.voices in published.CLIPS
    changed: dict[str, Any] = dict(vars(GanSettings()))
    if method == "studio" and of_paper:
        changed |= vars(STUDIO.gan)
    elif method == "studio":
        changed |= OUR_GAN_SETTINGS | {k: vars(own)[k] for k in ("steps", "augment", "batch", "z")}
    else:
        changed |= PAPER_GAME if method == "paper" else STRICT_GAME
        changed |= PAPER_SIZES if of_paper else {}
        if of_paper and d.voices == "ravdess":
            changed["steps"] = RAVDESS.gan.steps
    changed["condition"] = own.condition
    if changed == vars(own):
        return config
    return replace(config, name=f"{config.name}-{method}", gan=changed)


def preset_config(name: PresetName, method: Method | None = None) -> Config:
    """The configuration of a preset, under a method if one is given."""
    return with_method(method, PRESETS[name]) if method else PRESETS[name]
