"""Every setting of an experiment, as frozen dataclasses, and the run id that is their hash. Standard library only.

An ablation of the paper is a difference between two `Config`s (`l1=0`, `use_source=False`), never a second script.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Literal

PROTOCOL_VERSION = (
    2  # raised whenever the same config would give other figures; part of every run id
)

EMOTIONS = (
    "neutral",
    "calm",
    "happy",
    "sad",
    "angry",
    "fear",
    "disgust",
    "surprise",
)  # one vocabulary for all corpora
CREMA_EMOTIONS = ("neutral", "happy", "sad", "angry", "fear", "disgust")
SHARED_EMOTIONS = (
    "neutral",
    "happy",
    "sad",
    "angry",
    "fear",
    "disgust",
    "surprise",
)  # FER2013 and RAVDESS both name these

Condition = Literal["label", "classifier", "cp", "none"]
CONDITIONS: tuple[Condition, ...] = ("label", "classifier", "cp", "none")

BAND_COUNTS = (28, 64, 80)  # mel bands that a corpus may be prepared in; the first is the paper's


@dataclass(frozen=True)
class LogMel:
    """The spectrogram of §3.3: 28 mel bands (or one of BANDS), columns of 9 ms, so that 28/56/112 columns are 0.25/0.50/1.01 s."""

    rate: int = 16_000  # Hz, mono
    n_fft: int = 512
    window: int = 400  # samples of the Hann window (25 ms)
    hop: int = 144  # samples between columns (9 ms)
    bands: int = 28  # of the voices as they were prepared
    f_min: float = 60.0  # Hz
    f_max: float = 7_600.0  # Hz
    columns: int = 112  # 28, 56 or 112; taken from the clip's middle
    range_db: float = 80.0  # [ref_db - range_db, ref_db] is scaled to [-1, 1]


@dataclass(frozen=True)
class DataSettings:
    """Which faces and voices, how they are paired, and how subjects fall into S1-S4 (§4.1)."""

    faces: str = "demo"  # name of a prepared corpus that has faces
    voices: str = "demo"  # name of a prepared corpus that has voices
    classes: tuple[str, ...] = CREMA_EMOTIONS
    pairing: Literal["clip", "emotion"] = (
        "clip"  # by emotion is a use of labels: PROTOCOL prints it as label-supervised
    )
    sets: tuple[float, float, float, float] = (
        0.40,
        0.15,
        0.25,
        0.20,
    )  # shares of the subjects in S1, S2, S3, S4
    labels: Literal["intended", "voice", "face", "both"] = (
        "intended"  # CREMA-D: what was meant, or what raters voted
    )
    ties: Literal["drop", "intended"] = (
        "drop"  # a tied vote: leave the clip out, or take the intended emotion if it is among the tied
    )
    subjects: Literal["seeded", "luna-jimenez-2021"] = (
        "seeded"  # S4: a fifth of the seeded order, or published folds
    )
    split_seed: int = 0
    fold: int = 0  # which fifth (for a share of 0.20) of the shuffled subjects is S4
    g_fraction: float = 1.0  # share of S3's pairs that G, D, Q see (the paper's sparsity, §4.6)
    clf_fraction: float = 1.0  # share of S1's voices that the audio classifiers see
    demo_takes: int = 10  # demo corpus only: clips per invented actor and emotion
    f_s_corpus: str = (
        ""  # another prepared corpus, of other people, whose samples train f_S (§4.7); "": S1's own
    )
    frames: Literal["middle", "all"] = (
        "middle"  # S3: the face nearest a clip's middle, or all that were prepared (`--frames`) as pairs
    )


@dataclass(frozen=True)
class ClassifierSettings:
    """f_S, f_T, Q and the scorer (§4.3): one trunk, a class output. `f_s` is used for faces and `f_t` for voices in either direction."""

    channels: tuple[int, ...] = (16, 32, 64)  # the voice has these convolutions; the face one fewer
    steps: int = 600
    batch: int = 64
    lr: float = 1e-3
    optimiser: Literal["adagrad", "adam"] = "adam"
    noise: float = 0.05  # sd of the Gaussian noise on the inputs while training (§3.2)
    smoothing: float = 0.0  # of the one-hot targets; keeps softmax outputs from saturating
    mirror: bool = False  # faces only: half of a batch is mirrored left to right


@dataclass(frozen=True)
class ConformalSettings:
    """How f_S becomes p-values (§3.1, Eqs 8 and 9)."""

    measure: Literal["margin", "hinge"] = "margin"  # the paper uses the margin
    groups: Literal["pooled", "class"] = (
        "pooled"  # calibration scores of all classes, or Mondrian per class
    )
    r: float = 1.0  # share of S2 used for calibration (the paper's r was tuned)
    kind: Literal["inductive", "head", "full"] = (
        "inductive"  # of f_S itself; or of a light head on its features: inductive, or Alg. 1
    )


@dataclass(frozen=True)
class GanSettings:
    """G, D and Q (§3, Figs 3 and 4) and the weights of Eq. (7)'s three terms."""

    direction: Literal["face-voice", "voice-face"] = (
        "face-voice"  # what G is given and what it makes; the second is §4.5's reverse
    )
    generator: Literal["encdec", "unet", "conv"] = (
        "encdec"  # the paper's two (Fig. 4), and our convolutional one
    )
    width: Literal["compact", "paper"] = "compact"
    condition: Condition = "cp"
    use_source: bool = True  # False: z and c alone (§4.4)
    z: int = 64  # length of the noise vector
    adversarial: float = 1.0  # weight of Eq. (3)
    l1: float = 1.0  # weight of Eq. (4); 0 is the paper's ablation
    classify: float = 1.0  # weight of Eq. (6)
    game: Literal["nonsaturating", "minmax", "hinge"] = (
        "nonsaturating"  # Eq. (1)'s usual form, its literal one, or the hinge
    )
    d_norm: Literal["batch", "group", "spectral"] = (
        "batch"  # of D's convolutions; the paper names batch norm (§3.2)
    )
    r1: float = (
        0.0  # weight of the penalty on D's gradient at real samples; 0, as in the paper: none
    )
    augment: bool = False  # D sees real and generated spectrograms shifted in time, louder or softer, and with a gap
    projection: bool = False  # D is told c too, by a projection; in Eq. (3) as printed D sees the spectrogram alone
    q_training: Literal["frozen", "joint"] = (
        "frozen"  # Q trained before on S1's voices, or beside D on S3's
    )
    q_labels: Literal["true", "condition"] = (
        "condition"  # what Eq. (6) aims at: S3's labels, or argmax c
    )
    optimiser: Literal["adagrad", "adam"] = "adagrad"
    lr_g: float = 2e-3
    lr_d: float = 2e-3
    average: float = 0.0  # decay of a running average of the weights of G, kept in its place; 0: the last G, as in the paper
    batch: int = 64
    steps: int = 3_000
    precision: Literal["fp32", "bf16"] = (
        "fp32"  # of what networks compute while training; weights and losses stay fp32
    )
    noise: float = 0.05  # sd of the Gaussian noise on the inputs of G, D and Q (§3.2)
    soft: float = 0.1  # label condition: 1 becomes 1 - soft, the rest shares it (§3.2)
    label_noise: float = (
        0.05  # label condition: sd of the Gaussian noise on c while training (§3.2)
    )
    real_target: float = 0.9  # D's target for real samples (one-sided smoothing)


@dataclass(frozen=True)
class EvaluationSettings:
    """How often the curves of Fig. 11 get a point, and how the augmentation rows are trained (§4.2)."""

    every: int = 150  # steps between points; a checkpoint is written with each
    samples: int = 8  # faces in the saved sample grid
    per_face: int = 1  # generated samples per S3 face in the augmented set
    rows: tuple[str, ...] = ("S1", "S1 + pseudo-labelled S3", "S1 + generated", "S1 + S3")


@dataclass(frozen=True)
class Config:
    """One experiment. Its hash (with the corpus digest) names its run."""

    name: str = "demo"  # a slug for people; not part of the hash
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    logmel: LogMel = field(default_factory=LogMel)
    f_s: ClassifierSettings = field(default_factory=lambda: ClassifierSettings(mirror=True))
    f_t: ClassifierSettings = field(
        default_factory=lambda: ClassifierSettings(steps=400, batch=32, noise=0.2)
    )  # also Q, scorer, augmentation rows
    conformal: ConformalSettings = field(default_factory=ConformalSettings)
    gan: GanSettings = field(default_factory=GanSettings)
    evaluate: EvaluationSettings = field(default_factory=EvaluationSettings)


def to_dict(config) -> dict:
    """A config as nested plain dicts and lists, ready for json."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls, data: dict):
    """Inverse of `to_dict` for dataclass `cls`; raises ValueError that names an unknown or missing-typed key."""
    hints = typing.get_type_hints(cls)
    unknown = set(data) - set(hints)
    if unknown:
        raise ValueError(
            f"{cls.__name__} has no setting {sorted(unknown)}; it knows {sorted(hints)}"
        )
    return cls(
        **{
            key: _parse_value(hints[key], value, f"{cls.__name__}.{key}")
            for key, value in data.items()
        }
    )


def _parse_value(hint, value, where: str):
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)
    origin = typing.get_origin(hint)
    if origin is tuple:
        return tuple(value)
    if origin in (typing.Literal, typing.Union, types.UnionType):
        if origin is typing.Literal and value not in typing.get_args(hint):
            raise ValueError(f"{where} is {value!r}; it must be one of {typing.get_args(hint)}")
        return value
    return hint(value)


def replace(config: Config, **changes) -> Config:
    """`replace(config, gan={"l1": 0}, seed=3)`: a copy with nested settings changed."""
    top = {}
    for key, value in changes.items():
        current = getattr(config, key)
        nested = dataclasses.is_dataclass(current) and isinstance(value, dict)
        top[key] = dataclasses.replace(current, **value) if nested else value
    return dataclasses.replace(config, **top)


def config_hash(config: Config, corpus_digest: str) -> str:
    """8 hex digits of SHA-256 over what decides the results: the config but its name, corpus digest, protocol version.

    Only settings that differ from their defaults are hashed, so that a setting added later leaves the old runs their names; in turn
    a changed default raises PROTOCOL_VERSION (a test holds the defaults).
    """
    relevant = _changed_settings(
        to_dict(replace(config, name="")), to_dict(replace(Config(), name=""))
    )
    payload = json.dumps([relevant, corpus_digest, PROTOCOL_VERSION], sort_keys=True)
    return hashlib.sha256(payload.encode()).hexdigest()[:8]


def _changed_settings(a: dict, b: dict) -> dict:
    """What of `a` is not as in `b`, both nested plain dicts of the same keys."""
    return {
        k: _changed_settings(v, b[k]) if isinstance(v, dict) else v
        for k, v in a.items()
        if v != b[k]
    }


def family_hash(config: Config) -> str:
    """Hash of everything but the condition: runs that differ only in c are siblings and are shown together."""
    neutral = replace(config, name="", gan={"condition": "none"})
    return hashlib.sha256(json.dumps(to_dict(neutral), sort_keys=True).encode()).hexdigest()[:8]


def run_name(config: Config, corpus_digest: str) -> str:
    """Directory name of a run: `<name>-<condition>-<8 hex>`."""
    return f"{config.name}-{config.gan.condition}-{config_hash(config, corpus_digest)}"


OUR_GAN_SETTINGS = {  # where we leave the paper, and LOG.md says what it brought
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
    gan={
        "steps": 1_200,
        "augment": True,
    },  # some 260 real voices in S3: without augmentation D has learnt them by heart after 500 steps
)
FINE = replace(
    FER_RAVDESS, name="fine", data={"voices": "ravdess-64"}, logmel={"bands": 64}
)  # better sound than the paper's size allows
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
PRESETS = {
    "smoke": SMOKE,
    "demo": DEMO,
    "fer2013-ravdess": FER_RAVDESS,
    "fine": FINE,
    "paper": PAPER,
    "studio": STUDIO,
}

Method = Literal["paper", "studio"]


def with_method(method: Method, config: Config) -> Config:
    """`config` with the G, D and Q of a method, its condition as before: the paper's networks, losses and Adagrad (compact, 3,000 steps,
    a rate that fits both), or ours. The data, the classifiers and the conformal predictor stay."""
    gan = vars(GanSettings(condition=config.gan.condition))
    gan |= (
        OUR_GAN_SETTINGS | {k: getattr(config.gan, k) for k in ("steps", "augment", "batch", "z")}
        if method == "studio"
        else {}
    )
    return replace(config, name=f"{config.name}-{method}", gan=gan)
