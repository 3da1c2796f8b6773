"""What the paper prints and leaves open: its numbers, the cells of its tables, our choices.

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

# ------------------------------------------------------------------ printed numbers

# Table 2: accuracy in %, FID, IS
PUBLISHED_TABLE_2: dict[str, dict[str, tuple[float, ...]]] = {
    "CREMA-D": {
        "audio baseline": (49.34,),
        "face baseline": (64.50,),
        "label": (52.52, 59.44, 2.16),
        "classifier": (49.92, 60.13, 2.01),
        "CP": (50.29, 60.10, 2.00),
    },
    "RAVDESS": {
        "audio baseline": (44.73,),
        "face baseline": (59.79,),
        "label": (47.11, 49.77, 2.21),
        "classifier": (46.23, 50.33, 2.05),
        "CP": (46.55, 49.95, 2.01),
    },
}

PUBLISHED_ELSEWHERE = (
    "For RAVDESS the paper also gives an audio baseline of 46.28 (§4.3) and 46.90 (abstract), "
    "and 48.65 for CP (abstract)."
)

PUBLISHED_TABLE_1 = {  # Table 1, CREMA-D: accuracy in % by condition
    "EncDec": {"label": 52.52, "classifier": 49.92, "CP": 50.29},
    "U-Net": {"label": 50.24, "classifier": 50.12, "CP": 50.09},
    "EncDec without L1": {"label": 38.11, "classifier": 31.67, "CP": 31.69},
}

CONFLICTING_NUMBERS = (  # quantities for which the paper prints different numbers
    "The audio baseline of RAVDESS is 44.73 % in Table 2, 46.28 % in §4.3 and 46.90 % in the "
    "abstract.",
    "RAVDESS under conformal prediction is 46.55 % in Table 2 and 48.65 % in the abstract.",
)

# ------------------------------------------------------------------ the paper's cells


@dataclass(frozen=True)
class PaperCell:
    """One experiment that the paper reports, and the case of the grid `paper` that repeats it."""

    where: str  # table, figure or section
    corpus: str  # CREMA-D or RAVDESS
    case: str  # `core.evaluation.protocol.cases`


CONDITIONS = ("label", "classifier", "CP")
PAPER_CELLS = (
    *(
        PaperCell("Table 1", "CREMA-D", f"{kind} · {c}")
        for kind in PUBLISHED_TABLE_1
        for c in CONDITIONS
    ),
    *(
        PaperCell("Table 2", corpus, f"EncDec · {c}")
        for corpus in PUBLISHED_TABLE_2
        for c in CONDITIONS
    ),
    *(PaperCell("§4.3, sizes", "CREMA-D", f"{n}×28 · CP") for n in (28, 56, 112)),
    *(
        PaperCell("§4.4, without source", "CREMA-D", f"{kind} without source · {c}")
        for kind in ("EncDec", "U-Net")
        for c in CONDITIONS
    ),
    PaperCell("§4.4, conformal prediction", "CREMA-D", "inductive CP"),
    PaperCell("§4.4, conformal prediction", "CREMA-D", "full CP"),
    *(
        PaperCell("§4.6, Fig. 11", corpus, f"{share} of the target data · CP")
        for corpus in PUBLISHED_TABLE_2
        for share in ("100%", "50%", "20%")
    ),
    PaperCell("Fig. 7b", "CREMA-D", "voice → face · label"),
    *(PaperCell("Fig. 9", corpus, "EncDec · CP") for corpus in PUBLISHED_TABLE_2),
    *(PaperCell("Fig. 10", corpus, "EncDec · CP") for corpus in PUBLISHED_TABLE_2),
    PaperCell("§4.7, another corpus", "CREMA-D", "f_S of ravdess · CP"),
    PaperCell("§4.7, another corpus", "RAVDESS", "f_S of crema-d · CP"),
    *(PaperCell("§4.7, no condition", corpus, "no condition") for corpus in PUBLISHED_TABLE_2),
)

# ------------------------------------------------------------------ what the paper leaves open

CLIPS = {"crema-d": 7_442, "ravdess": 1_056}  # of the six classes; neutral has fewer in both
GAN_RATE = 3e-3  # of Adagrad for G, D and Q: LOG.md has what was tried
CLASSIFIER_RATE = 1e-2  # of Adagrad for f_S, f_T, a frozen Q and the scorer
GAN_EPOCHS = 280  # passes over S3, as in the authors' code
GAN_BATCH = 100  # as in the authors' code; later 32
CLASSIFIER_EPOCHS = 40  # passes over S1
CLASSIFIER_BATCH = 64
Z_LENGTH = 100
RAVDESS_SHARE = 26 / 48  # of CREMA-D's training steps: the hours that the paper reports (§4.6)


@dataclass(frozen=True)
class Choice:
    """Something that the paper does not give, and what the preset `paper` has."""

    what: str
    choice: str
    why: str


CHOICES = (
    Choice(
        "learning rate of G, D and Q",
        f"{GAN_RATE:g} for Adagrad",
        "the authors' code has 1e-5, at which L1 stays at 0.672 for 1,600 steps",
    ),
    Choice(
        "learning rate of the classifiers",
        f"{CLASSIFIER_RATE:g} for Adagrad, which our scorer takes as well",
        "`f_s.lr` and `f_t.lr`",
    ),
    Choice(
        "length of a training",
        f"{GAN_EPOCHS} passes over S3 in batches of {GAN_BATCH}; on RAVDESS 26/48 of the steps",
        "the authors' code (later 500 passes in batches of 32), and the hours of §4.6",
    ),
    Choice(
        "training of f_S, f_T and Q",
        f"{CLASSIFIER_EPOCHS} passes over S1 in batches of {CLASSIFIER_BATCH}",
        "the same for every row of a table",
    ),
    Choice(
        "Q's target",
        "the true labels of S3 (mode `paper`); `--method strict` reads none",
        "§3 names a correct classification, §3.1 a generator without labels",
    ),
    Choice(
        "sizes of EncDec",
        "dense 1024 ×4 and 512 ×2; without the source the last three",
        "the authors' code; where Fig. 4b's encoder ends is not told",
    ),
    Choice(
        "sizes of U-Net",
        "four halvings with 64 to 512 channels; c and z join at the bottom",
        "the text has `deep` alone",
    ),
    Choice(
        "sizes of D",
        "4×4 convolutions 64·128·512, 3×3 convolutions 1024·512·512·512, a dense output",
        "the first seven of the authors' ten; 28 bands can be halved three times",
    ),
    Choice(
        "sizes of Q, f_S and f_T",
        "5×5 convolutions 12 and 25 with pooling, dense 512·512·256·128; faces the second alone",
        "the authors' Q; the baselines differ by one convolution (§4.3)",
    ),
    Choice("length of z", f"{Z_LENGTH}", "the authors' code does not feed z"),
    Choice("soft and noisy labels", "0.9 and 0.02, noise of sd 0.05", "the code has 0.99 and 0.01"),
    Choice("noise on inputs", "sd 0.05, voice classifiers 0.2", "the paper has `some noise`"),
    Choice(
        "norm of Eq. (4)",
        "a mean over cells; `gan.l1` = 3136 weighs the printed sum by 1",
        "a sum weighs 3,136 times as much as the other two terms",
    ),
    Choice(
        "classes of RAVDESS",
        "the six of CREMA-D",
        "f_S has six outputs (§4.3); the paper also names eight emotions",
    ),
    Choice("shares of S1 to S4", "40, 15, 25 and 20 % of the people", "no share is given"),
    Choice("r", "all of S2; the grid has less", "it was tuned, and its value is not given"),
)
