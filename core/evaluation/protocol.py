"""§4.3-4.7: the paper's cases as differences of settings, the grids, the rows of the augmentation table and the tests between them.

Plain data and NumPy; no torch, no file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.config import Config, replace, run_name
from core.data import splits
from core.data.corpora import CorpusError

Grid = Literal["quick", "paper", "studio"]
GRID_SIZES: dict[Grid, tuple[int, int]] = {
    "quick": (1, 1),
    "paper": (5, 1),
    "studio": (5, 3),
}  # folds and seeds unless told otherwise
CONDITION_NAMES = {
    "label": "label",
    "classifier": "classifier",
    "cp": "CP",
    "none": "none",
}  # of the conditions, as the paper says them


# ------------------------------------------------------------------ the cases


@dataclass(frozen=True)
class Cell:
    """One run of a grid. The baselines of §4.3 are in every run: the row S1 (voice), and f_S (face)."""

    name: str  # unique in its grid without fold and seed: "EncDec without L1 · CP"
    section: str  # of the paper, or "ours"
    config: Config

    @property
    def title(self) -> str:
        return f"{self.name} · fold {self.config.data.fold} · seed {self.config.seed}"


REVERSE_CASE = "voice → face · label"
F_S_CORPUS_HINT = "f_S of another corpus (§4.7): prepare one with faces of the same emotions and add --f-s-corpus NAME (make: F_S=NAME)"


def cases(base: Config, f_s_corpus: str = "") -> list[Cell]:
    """Every case of the paper on the settings of `base`, each a difference of settings; two cases may be the same run.

    The generators are crossed with the conditions as in Table 1; the other cases vary one setting of the condition CP. The case of §4.7
    that takes f_S from another corpus is there where `f_s_corpus` names it (NO_OTHER says what to do where it does not).
    """
    found = []

    def case(name: str, section: str, **changes) -> None:
        found.append(Cell(name, section, replace(base, **changes)))

    conditions = ("label", "classifier", "cp")
    for generator, called in (("encdec", "EncDec"), ("unet", "U-Net"), ("conv", "convolutional")):
        section = (
            "ours"
            if generator == "conv"
            else "§4.4, Table 1"
            if generator == "unet"
            else "§4.3, Table 2"
        )
        for c in conditions:
            case(
                f"{called} · {CONDITION_NAMES[c]}",
                section,
                gan={"generator": generator, "condition": c},
            )
    for c in conditions:
        case(
            f"EncDec without L1 · {CONDITION_NAMES[c]}",
            "§4.4, Table 1",
            gan={"generator": "encdec", "condition": c, "l1": 0.0},
        )
    for generator, called in (("encdec", "EncDec"), ("unet", "U-Net")):
        for c in conditions:
            name = f"{called} without source · {CONDITION_NAMES[c]}"
            case(name, "§4.4", gan={"generator": generator, "condition": c, "use_source": False})
    for columns in (28, 56, 112):
        case(
            f"{columns}×{base.logmel.bands} · CP",
            "§4.3",
            gan={"condition": "cp"},
            logmel={"columns": columns},
        )
    for share in (1.0, 0.5, 0.2):
        case(
            f"{share:.0%} of the target data · CP",
            "§4.6",
            gan={"condition": "cp"},
            data={"g_fraction": share},
        )
        case(
            f"{share:.0%} of the classifier's voices · CP",
            "§4.6",
            gan={"condition": "cp"},
            data={"clf_fraction": share},
        )
    for kind, called in (
        ("inductive", "inductive CP"),
        ("head", "inductive CP of a light head"),
        ("full", "full CP"),
    ):
        case(called, "§4.4", gan={"condition": "cp"}, conformal={"kind": kind})
    for r in (1.0, 0.5, 0.25):
        case(f"{r:.0%} of S2 calibrates · CP", "§3.1", gan={"condition": "cp"}, conformal={"r": r})
    case(
        "Q asked for true labels · CP",
        "§3, mode paper",
        gan={"condition": "cp", "q_labels": "true"},
    )
    case("no condition", "§4.7", gan={"condition": "none"})
    if f_s_corpus:
        case(
            f"f_S of {f_s_corpus} · CP",
            "§4.7",
            gan={"condition": "cp"},
            data={"f_s_corpus": f_s_corpus},
        )
    case(REVERSE_CASE, "§4.5, Fig. 7b", gan={"condition": "label", "direction": "voice-face"})
    return found


def quick_config(base: Config) -> Config:
    """`base` with the fewest steps and the smallest networks that still go the whole way: seconds per run, and figures worth nothing."""
    return replace(
        base,
        name="quick",
        data={"demo_takes": 1},
        f_s={"steps": 8},
        f_t={"steps": 8, "channels": (4, 8), "batch": 16},
        gan={"steps": 4, "batch": 16, "z": 8},
        evaluate={"every": 2},
    )


def cells(
    grid: Grid,
    base: Config,
    folds: int | None = None,
    seeds: int | None = None,
    f_s_corpus: str = "",
) -> list[Cell]:
    """The runs of a grid, folds and seeds innermost (GRIDS says how many, if not told).

    quick: a few cases of `quick_config(base)`, to see that everything works. paper: `cases`. studio: `base` itself, for the headline gains.
    Raises ValueError for folds that would test a subject twice, or fewer than one of either.
    """
    usual = GRID_SIZES[grid]
    folds, seeds = usual[0] if folds is None else folds, usual[1] if seeds is None else seeds
    most = max(1, round(1 / base.data.sets[3])) if base.data.sets[3] > 0 else 1
    if not 1 <= folds <= most or seeds < 1:
        raise ValueError(
            f"folds must be 1 to {most}, as S4 is {base.data.sets[3]:.0%} of the subjects, and seeds at least 1"
        )
    if grid == "quick":
        few = {
            "EncDec · CP",
            "EncDec · label",
            "U-Net · classifier",
            "EncDec without source · CP",
            "28×28 · CP",
            "full CP",
        }
        found = [c for c in cases(quick_config(base)) if c.name in few]
    elif grid == "paper":
        found = cases(base, f_s_corpus)
    else:
        found = [
            Cell(f"{base.name} · {CONDITION_NAMES[base.gan.condition]}", "headline gains", base)
        ]
    every = [(f, s) for f in range(folds) for s in range(seeds)]
    return [
        dataclasses.replace(
            c,
            config=replace(c.config, seed=c.config.seed + s, data={"fold": c.config.data.fold + f}),
        )
        for c in found
        for f, s in every
    ]


def labels_mode(config: Config) -> str:
    """Who saw S3's labels: `strict` (nobody), `paper` (Q), or everybody, where pairs are made by emotion or the label is the condition."""
    if config.data.pairing == "emotion":
        return "label-supervised (paired by emotion)"
    if config.gan.condition == "label":
        return "label-supervised (the label is the condition)"
    return "paper" if config.gan.q_labels == "true" else "strict"


# ------------------------------------------------------------------ the augmentation table


@dataclass(frozen=True)
class TableRow:
    """A training set of the table. All rows share the classifier, its steps, the crop and the balance of classes."""

    name: str
    parts: tuple[
        str, ...
    ]  # of S1, S1 again (as many as are generated), S3, pseudo (S3 by f_S's labels), generated
    plain: bool = False  # trained under plain augmentation: time shift, noise, masking


PLAIN_SUFFIX = " + plain augmentation"
TABLE_ROWS = (
    TableRow("S1", ("S1",)),
    TableRow("S1 oversampled", ("S1", "S1 again")),
    TableRow("S1" + PLAIN_SUFFIX, ("S1",), True),
    TableRow("S1 + pseudo-labelled S3", ("S1", "pseudo")),
    TableRow("S1 + generated", ("S1", "generated")),
    TableRow("S1 + generated" + PLAIN_SUFFIX, ("S1", "generated"), True),
    TableRow("S1 + S3", ("S1", "S3")),
    TableRow("S1 + S3" + PLAIN_SUFFIX, ("S1", "S3"), True),
    TableRow("S1 + S3 + generated", ("S1", "S3", "generated")),
    TableRow("S1 + S3 + generated" + PLAIN_SUFFIX, ("S1", "S3", "generated"), True),
    TableRow("generated only", ("generated",)),
)


# ------------------------------------------------------------------ what runs say together, and what people say


def rater_confusion(emotion: np.ndarray, votes: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Fig. 8's yardstick: how people confuse the emotions. Intended (N,), winning votes of one modality (N,) -> (K, K) float64 counts.

    Rows are what was meant, columns what most raters said; a tie such as "angry|disgust" counts in equal parts. Clips nobody rated and
    classes outside `classes` drop out. Votes are a clip's winners, so the matrix is sharper than single ratings would be.
    """
    place, out = {k: i for i, k in enumerate(classes)}, np.zeros((len(classes), len(classes)))
    for meant, vote in zip(map(str, emotion), map(str, votes), strict=True):
        said = [v for v in vote.split("|") if v in place]
        if meant in place and said:
            out[place[meant], [place[v] for v in said]] += 1 / len(said)
    return out


def identify_runs(cells: Sequence[Cell]) -> list[tuple[Cell, str, str]]:
    """Each cell with its run's id and, where its corpus is not prepared, the reason instead: (cell, id or "", reason or "")."""
    digests: dict[tuple, str | CorpusError] = {}
    out = []
    for cell in cells:
        d = cell.config.data
        key = (d.faces, d.voices, d.f_s_corpus, d.demo_takes)
        if key not in digests:
            try:
                digests[key] = splits.corpus_digest(d)
            except CorpusError as e:
                digests[key] = e
        found = digests[key]
        out.append(
            (cell, run_name(cell.config, found), "")
            if isinstance(found, str)
            else (cell, "", str(found))
        )
    return out
