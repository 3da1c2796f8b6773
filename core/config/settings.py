"""Every setting of an experiment, as frozen dataclasses.

Standard library only. An ablation of the paper is a difference between two `Config`s (`l1=0`,
`use_source=False`), never a second script. A setting's label and help stand in its metadata:
`python -m core train --help` and the Train page read them there.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

PROTOCOL_VERSION = 2  # part of every run id; raised when the same config would give other figures

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")
CREMA_EMOTIONS = ("neutral", "happy", "sad", "angry", "fear", "disgust")
SHARED_EMOTIONS = (*CREMA_EMOTIONS, "surprise")  # classes that both FER2013 and RAVDESS have
# Words that tables write where no subject is known, in any case
BLANK_SUBJECTS = (
    *("", "nan", "none", "na", "n/a", "#n/a", "<na>", "null", "nil", "unknown", "-", "?", "."),
)

Condition = Literal["label", "classifier", "cp", "none"]
CONDITIONS: tuple[Condition, ...] = typing.get_args(Condition)

BAND_COUNTS = (28, 64, 80)  # mel bands that a corpus may be prepared in; the first is the paper's

# lowest and highest values of numbers
Bounds = tuple[float, float]
SHARE, SOME_SHARE, WEIGHT, RATE = (0, 1), (0.001, 1), (0, 1e6), (1e-9, 10)
COUNT, SEED = (1, 100_000_000), (0, 2**32 - 1)


def setting(default: Any, label: str, help: str, bounds: Bounds | None = None) -> Any:
    """Dataclass field: default, label for the Train page, help, a number's lowest and highest."""
    return field(default=default, metadata={"label": label, "help": help, "bounds": bounds})


@dataclass(frozen=True)
class LogMel:
    """Log-mel spectrogram of §3.3, columns of 9 ms: 28/56/112 columns are 0.25/0.50/1.01 s."""

    rate: int = setting(
        16_000, "Sampling rate", "Samples per second (Hz) of the mono sound.", (4_000, 200_000)
    )
    n_fft: int = setting(512, "FFT size", "Samples of one Fourier transform.", (32, 65_536))
    window: int = setting(400, "Window", "Samples of the Hann window; 400 are 25 ms.", (8, 65_536))
    hop: int = setting(144, "Hop", "Samples between two columns; 144 are 9 ms.", (1, 16_384))
    bands: int = setting(
        28,
        "Mel bands",
        "As the voices were prepared: 28 in the paper; `ravdess-64` has 64.",
        (1, 512),
    )
    f_min: float = setting(
        60.0, "Lowest frequency", "Lower edge of the first mel band, in Hz.", (0, 100_000)
    )
    f_max: float = setting(
        7_600.0, "Highest frequency", "Upper edge of the last band, in Hz.", (1, 100_000)
    )
    columns: int = setting(
        112,
        "Length",
        "Columns of 9 ms: 28, 56 and 112 are the paper's 0.25, 0.5 and 1 s.",
        (8, 4_096),
    )
    range_db: float = setting(
        80.0,
        "Range (dB)",
        "Levels up to this far below the loudest are scaled to -1 … 1.",
        (1, 300),
    )


@dataclass(frozen=True)
class DataSettings:
    """Which faces and voices, how they are paired, and how subjects fall into S1-S4 (§4.1)."""

    faces: str = setting("demo", "Faces of", "A prepared corpus that has faces.")
    voices: str = setting("demo", "Voices of", "A prepared corpus that has voices.")
    classes: tuple[str, ...] = setting(
        CREMA_EMOTIONS, "Emotions", "The classes: emotions that both corpora have."
    )
    pairing: Literal["clip", "emotion"] = setting(
        "clip", "Pairs", "A face and a voice of one clip, or of one emotion (a use of labels)."
    )
    sets: tuple[float, float, float, float] = setting(
        (0.40, 0.15, 0.25, 0.20),
        "Sizes of the sets",
        "Shares of the people in S1, S2, S3, S4.",
        SHARE,
    )
    labels: Literal["intended", "voice", "face", "both"] = setting(
        "intended", "Emotion of a clip", "CREMA-D: the actor's intention, or most raters' vote."
    )
    ties: Literal["drop", "intended"] = setting(
        "drop", "Tied votes", "Drop the clip, or take the intended emotion if it is among the tied."
    )
    subjects: Literal["seeded", "luna-jimenez-2021"] = setting(
        "seeded",
        "Test people",
        "A seeded fifth, or the RAVDESS folds of Luna-Jiménez et al. (2021).",
    )
    split_seed: int = setting(
        0, "Seed of the split", "Decides which people fall into which set.", SEED
    )
    fold: int = setting(0, "Fold", "Which fifth of the people is the test set S4.", (0, 19))
    g_fraction: float = setting(
        1.0,
        "Share of S3 used",
        "The paper's sparsity (§4.6) of pairs for G, D and Q: 1, 0.5, 0.2.",
        SOME_SHARE,
    )
    clf_fraction: float = setting(
        1.0,
        "Share of S1's voices used",
        "By the voice classifiers and the augmentation rows.",
        SOME_SHARE,
    )
    labels_per_class: int = setting(
        0,
        "Labelled voices a class",
        "S1's voices of each emotion that the same may use; 0: the share above of all.",
        (0, 100_000),
    )
    demo_takes: int = setting(
        10, "Takes", "Demo corpus only: clips of each invented actor and emotion.", (1, 100)
    )
    f_s_corpus: str = setting(
        "", "f_S learns from", "Another prepared corpus for f_S (§4.7); empty: S1's own faces."
    )
    frames: Literal["middle", "all"] = setting(
        "middle", "Faces of a clip", "S3: the middle frame's, or all prepared ones (--frames)."
    )
    windows: Literal["middle", "all"] = setting(
        "middle", "Windows of a voice", "To learn from: the middle one, or all that hold speech."
    )
    speech: float = setting(
        0.3, "Least speech", "Windows 'all': share of each in which somebody speaks.", SHARE
    )
    listening: bool = setting(
        False, "Listening run", "G learns from all people but S4's; nothing is augmented with it."
    )


@dataclass(frozen=True)
class ClassifierSettings:
    """f_S, f_T, Q and the scorer (§4.3): one trunk, a class output.

    `f_s` is used for faces and `f_t` for voices, in either direction.
    """

    channels: tuple[int, ...] = setting(
        (16, 32, 64),
        "Channels",
        "Of each convolution (plain: faces have one fewer than voices).",
        (1, 4_096),
    )
    width: Literal["compact", "paper"] = setting(
        "compact", "Width", "`channels` alone, or as large as the authors' (also by gan.width)."
    )
    steps: int = setting(
        600,
        "Training steps",
        "The voice classifiers of all rows of the table take equally many.",
        COUNT,
    )
    batch: int = setting(64, "Batch", "Samples in one step, as many of each emotion.", (1, 65_536))
    lr: float = setting(1e-3, "Learning rate", "Lower it when the loss jumps.", RATE)
    optimiser: Literal["adagrad", "adam", "adamw"] = setting(
        "adam",
        "Optimiser",
        "The paper uses Adagrad; AdamW decays weights, and its rate rises and falls.",
    )
    noise: float = setting(
        0.05, "Input noise", "Standard deviation while training (§3.2).", (0, 10)
    )
    smoothing: float = setting(
        0.0, "Label smoothing", "Keeps the softmax away from 0 and 1.", (0, 0.99)
    )
    mirror: bool = setting(False, "Mirroring", "Faces: half are mirrored; residual judge both.")
    architecture: Literal["plain", "residual"] = setting(
        "plain", "Architecture", "Plain as in the paper, or our residual blocks (compact width)."
    )
    augment: bool = setting(
        False, "Augment faces", "Faces only: turns, shifts, sizes, light and covered patches."
    )
    dropout: float = setting(
        0.0,
        "Dropout",
        "Share of the features before the last two layers that a step hides.",
        (0, 0.99),
    )
    average: float = setting(
        0.0, "Average of weights", "Decay of their EMA; 0: the last weights.", (0, 0.99999)
    )
    temperature: bool = setting(
        False, "Temperature", "f_S only: S2's faces scale its logits, so that its softmax is true."
    )
    networks: int = setting(
        1, "Networks", "f_S only: so many of other seeds, whose logits are averaged.", (1, 16)
    )
    learns_from: Literal["S1", "S1 and S3"] = setting(
        "S1", "Learns from", "f_S only: S1's people; in a listening run also S3's. S2 calibrates."
    )


@dataclass(frozen=True)
class ConformalSettings:
    """How f_S becomes p-values (§3.1, Eqs 8 and 9)."""

    measure: Literal["margin", "hinge"] = setting(
        "margin", "Nonconformity", "Eq. (8): the paper uses the margin."
    )
    groups: Literal["pooled", "class"] = setting(
        "pooled", "Calibration", "All classes together, or each class by itself (Mondrian)."
    )
    r: float = setting(
        1.0, "Share of S2 that calibrates", "The paper's r, which it tuned.", SOME_SHARE
    )
    kind: Literal["inductive", "head", "cross", "full"] = setting(
        "inductive",
        "Predictor",
        "Inductive on f_S; or a light head on its features: inductive, cross-conformal (promises "
        "an error of 2 eps only), or in full by Alg. 1 (slow).",
    )


@dataclass(frozen=True)
class GanSettings:
    """G, D and Q (§3, Figs 3 and 4) and the weights of Eq. (7)'s three terms."""

    direction: Literal["face-voice", "voice-face"] = setting(
        "face-voice", "Direction", "Face to voice, or the reverse (§4.5; take the label condition)."
    )
    generator: Literal["encdec", "unet", "conv", "flow"] = setting(
        "encdec",
        "Generator",
        "The paper's two (Fig. 4), our convolutional one, or our flow, which is no GAN.",
    )
    width: Literal["compact", "paper"] = setting(
        "compact", "Width", "Of G, D, f_S, f_T and Q: compact, or as large as the authors'."
    )
    condition: Condition = setting(
        "cp", "Condition", "What G gets beside the face: labels, softmax, p-values or nothing."
    )
    use_source: bool = setting(
        True, "Use the face", "Off: G has no encoder, and noise and condition alone (§4.4)."
    )
    z: int = setting(
        64,
        "Length of the noise z",
        "More numbers leave more room for different voices of one face.",
        (1, 4_096),
    )
    adversarial: float = setting(
        1.0,
        "Weight of the adversarial term",
        "Eq. (3): how much the generator must fool D.",
        WEIGHT,
    )
    l1: float = setting(
        1.0,
        "Weight of L1",
        "Eq. (4) as a mean over cells; 0 is the paper's ablation, 3136 its printed sum at 112×28.",
        WEIGHT,
    )
    classify: float = setting(
        1.0, "Weight of the class term", "Eq. (6): how much Q must recognise the emotion.", WEIGHT
    )
    game: Literal["nonsaturating", "minmax"] = setting(
        "nonsaturating", "Form of the game", "Eq. (1): non-saturating, or as printed (slow)."
    )
    d_norm: Literal["batch", "group"] = setting(
        "batch", "Norm in D", "Batch as in the paper (§3.2), or group within each sample."
    )
    r1: float = setting(
        0.0,
        "Weight of R1",
        "Penalty on D's gradient at real samples; 0, as in the paper: none.",
        WEIGHT,
    )
    augment: bool = setting(
        False, "Augment what D sees", "Time shifts, gains and gaps, so that D memorises no voice."
    )
    projection: bool = setting(
        False, "Show D the condition", "D sees c too, by a projection, and checks whether it fits."
    )
    q_training: Literal["frozen", "joint"] = setting(
        "frozen", "Q's training", "Frozen: before, on S1's voices; joint, as in §4.1: on S3's."
    )
    q_labels: Literal["true", "condition"] = setting(
        "condition", "Target of Q", "Eq. (6): the true labels as in the paper, or argmax c."
    )
    q_learns_from: Literal["S1", "S1 and S3"] = setting(
        "S1",
        "Q learns from",
        "Frozen Q: S1's labelled voices; or as many again of S3, labelled by f_S where CP is sure.",
    )
    optimiser: Literal["adagrad", "adam"] = setting(
        "adagrad", "Optimiser", "The paper uses Adagrad."
    )
    lr_g: float = setting(2e-3, "Learning rate of G", "Lower it when the losses jump.", RATE)
    lr_d: float = setting(2e-3, "Learning rate of D", "Lower it when D wins at once.", RATE)
    average: float = setting(
        0.0,
        "Average of G",
        "Decay of the EMA of G's weights, which is sampled; 0: the last G.",
        (0, 0.99999),
    )
    guidance: float = setting(
        2.0,
        "Guidance",
        "Flow only: how much face and condition count in sampling; 1: as trained.",
        (0, 100),
    )
    early_times: float = setting(
        0.0, "Early times", "Flow only: share of the batch near time 0, where level forms.", SHARE
    )
    heun_steps: int = setting(
        8, "Steps of a sample", "Flow only: half as many take half the time.", (1, 1_000)
    )
    noise_scale: float = setting(
        1.0,
        "Noise of a sample",
        "Flow only: factor of the noise that a sample starts from; below 1: cleaner, more alike.",
        (0, 2),
    )
    batch: int = setting(64, "Batch", "Pairs in one step; more needs more memory.", (1, 65_536))
    steps: int = setting(3_000, "Training steps", "Steps of G, D and Q.", COUNT)
    precision: Literal["fp32", "bf16"] = setting(
        "fp32", "Precision", "bf16: computes in half the bits; weights and losses stay fp32."
    )
    noise: float = setting(
        0.05,
        "Input noise",
        "Standard deviation of the noise on inputs of G, D and Q (§3.2).",
        (0, 10),
    )
    soft: float = setting(
        0.1,
        "Soft labels",
        "Label condition: what the true class gives to the others (§3.2).",
        SHARE,
    )
    label_noise: float = setting(
        0.05,
        "Noisy labels",
        "Label condition: standard deviation of the noise on c (§3.2).",
        (0, 10),
    )
    real_target: float = setting(
        0.9, "D's target for real", "1 in the paper; below, D is never quite sure (ours).", SHARE
    )


@dataclass(frozen=True)
class EvaluationSettings:
    """How often the curves of Fig. 11 get a point, and how the augmentation rows are trained."""

    every: int = setting(
        150, "Steps between evaluations", "FID, KID, IS, samples and a checkpoint each time.", COUNT
    )
    samples: int = setting(8, "Samples shown", "Faces in the saved sample grid.", (1, 64))
    per_face: int = setting(
        1,
        "Samples for each face of S3",
        "Generated for the augmented training set (§4.2).",
        (1, 100),
    )
    rows: tuple[str, ...] = setting(
        ("S1", "S1 + pseudo-labelled S3", "S1 + generated", "S1 + S3"),
        "Rows",
        "Training sets of the augmentation table (§4.2).",
    )


@dataclass(frozen=True)
class Config:
    """One experiment. Its hash (with the corpus digest) names its run."""

    name: str = setting("demo", "Name", "A slug for people; not part of the run's hash.")
    seed: int = setting(0, "Seed", "Random seed of weights, batches and noise.", SEED)
    data: DataSettings = field(default_factory=DataSettings)
    logmel: LogMel = field(default_factory=LogMel)
    f_s: ClassifierSettings = field(default_factory=lambda: ClassifierSettings(mirror=True))
    f_t: ClassifierSettings = field(  # also Q, the scorer and the rows of the augmentation table
        default_factory=lambda: ClassifierSettings(steps=400, batch=32, noise=0.2)
    )
    conformal: ConformalSettings = field(default_factory=ConformalSettings)
    gan: GanSettings = field(default_factory=GanSettings)
    evaluate: EvaluationSettings = field(default_factory=EvaluationSettings)


def fold_count(share: float) -> int:
    """Folds in which each subject is tested once, where S4 is `share` of the subjects.

    >>> fold_count(0.2), fold_count(0.25)
    (5, 4)
    """
    return max(1, round(1 / share)) if share > 0 else 1


def replace(config: Config, **changes) -> Config:
    """`replace(config, gan={"l1": 0}, seed=3)`: a copy with nested settings changed."""
    top = {}
    for key, value in changes.items():
        current = getattr(config, key)
        nested = dataclasses.is_dataclass(current) and isinstance(value, dict)
        top[key] = dataclasses.replace(current, **value) if nested else value
    return dataclasses.replace(config, **top)


def classifier_settings(config: Config, modality: Literal["face", "voice"]) -> ClassifierSettings:
    """Settings of the classifiers of a modality; `gan.width` = paper widens them, too."""
    settings = config.f_s if modality == "face" else config.f_t
    return dataclasses.replace(settings, width="paper") if config.gan.width == "paper" else settings
