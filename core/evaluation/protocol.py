"""§4.3-4.7: the paper's cases as differences of settings, the grids, the rows of the augmentation table and the tests between them.

Plain data and NumPy; no torch, no file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.config import Config, replace
from core.evaluation import metrics

Grid = Literal["quick", "paper", "studio"]
GRIDS: dict[Grid, tuple[int, int]] = {"quick": (1, 1), "paper": (5, 1), "studio": (5, 3)}  # folds and seeds unless told otherwise
NAMES = {"label": "label", "classifier": "classifier", "cp": "CP", "none": "none"}  # of the conditions, as the paper says them
PUBLISHED = {  # Table 2: accuracy in %, FID, IS
    "CREMA-D": {"audio baseline": (49.34,), "face baseline": (64.50,), "label": (52.52, 59.44, 2.16),
                "classifier": (49.92, 60.13, 2.01), "CP": (50.29, 60.10, 2.00)},
    "RAVDESS": {"audio baseline": (44.73,), "face baseline": (59.79,), "label": (47.11, 49.77, 2.21),
                "classifier": (46.23, 50.33, 2.05), "CP": (46.55, 49.95, 2.01)},
}  # fmt: skip
ELSEWHERE = "For RAVDESS the paper also gives an audio baseline of 46.28 (§4.3) and 46.90 (abstract), and 48.65 for CP (abstract)."
PUBLISHED_1 = {  # Table 1, CREMA-D: accuracy in % by condition
    "EncDec": {"label": 52.52, "classifier": 49.92, "CP": 50.29},
    "U-Net": {"label": 50.24, "classifier": 50.12, "CP": 50.09},
    "EncDec without L1": {"label": 38.11, "classifier": 31.67, "CP": 31.69},
}


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


REVERSE = "voice → face · label"
NO_OTHER = "f_S of another corpus (§4.7): prepare one with faces of the same emotions and add --f-s-corpus NAME (make: F_S=NAME)"


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
        section = "ours" if generator == "conv" else "§4.4, Table 1" if generator == "unet" else "§4.3, Table 2"
        for c in conditions:
            case(f"{called} · {NAMES[c]}", section, gan={"generator": generator, "condition": c})
    for c in conditions:
        case(f"EncDec without L1 · {NAMES[c]}", "§4.4, Table 1", gan={"generator": "encdec", "condition": c, "l1": 0.0})
    for generator, called in (("encdec", "EncDec"), ("unet", "U-Net")):
        for c in conditions:
            name = f"{called} without source · {NAMES[c]}"
            case(name, "§4.4", gan={"generator": generator, "condition": c, "use_source": False})
    for columns in (28, 56, 112):
        case(f"{columns}×{base.logmel.bands} · CP", "§4.3", gan={"condition": "cp"}, logmel={"columns": columns})
    for share in (1.0, 0.5, 0.2):
        case(f"{share:.0%} of the target data · CP", "§4.6", gan={"condition": "cp"}, data={"g_fraction": share})
        case(f"{share:.0%} of the classifier's voices · CP", "§4.6", gan={"condition": "cp"}, data={"clf_fraction": share})
    for kind, called in (("inductive", "inductive CP"), ("head", "inductive CP of a light head"), ("full", "full CP")):
        case(called, "§4.4", gan={"condition": "cp"}, conformal={"kind": kind})
    for r in (1.0, 0.5, 0.25):
        case(f"{r:.0%} of S2 calibrates · CP", "§3.1", gan={"condition": "cp"}, conformal={"r": r})
    case("Q asked for true labels · CP", "§3, mode paper", gan={"condition": "cp", "q_labels": "true"})
    case("no condition", "§4.7", gan={"condition": "none"})
    if f_s_corpus:
        case(f"f_S of {f_s_corpus} · CP", "§4.7", gan={"condition": "cp"}, data={"f_s_corpus": f_s_corpus})
    case(REVERSE, "§4.5, Fig. 7b", gan={"condition": "label", "direction": "voice-face"})
    return found


def small(base: Config) -> Config:
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


def cells(grid: Grid, base: Config, folds: int | None = None, seeds: int | None = None, f_s_corpus: str = "") -> list[Cell]:
    """The runs of a grid, folds and seeds innermost (GRIDS says how many, if not told).

    quick: a few cases of `small(base)`, to see that everything works. paper: `cases`. studio: `base` itself, for the headline gains.
    Raises ValueError for folds that would test a subject twice, or fewer than one of either.
    """
    usual = GRIDS[grid]
    folds, seeds = usual[0] if folds is None else folds, usual[1] if seeds is None else seeds
    most = max(1, round(1 / base.data.sets[3])) if base.data.sets[3] > 0 else 1
    if not 1 <= folds <= most or seeds < 1:
        raise ValueError(f"folds must be 1 to {most}, as S4 is {base.data.sets[3]:.0%} of the subjects, and seeds at least 1")
    if grid == "quick":
        few = {"EncDec · CP", "EncDec · label", "U-Net · classifier", "EncDec without source · CP", "28×28 · CP", "full CP"}
        found = [c for c in cases(small(base)) if c.name in few]
    elif grid == "paper":
        found = cases(base, f_s_corpus)
    else:
        found = [Cell(f"{base.name} · {NAMES[base.gan.condition]}", "headline gains", base)]
    every = [(f, s) for f in range(folds) for s in range(seeds)]
    return [
        dataclasses.replace(c, config=replace(c.config, seed=c.config.seed + s, data={"fold": c.config.data.fold + f}))
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
class Row:
    """A training set of the table. All rows share the classifier, its steps, the crop and the balance of classes."""

    name: str
    parts: tuple[str, ...]  # of S1, S1 again (as many as are generated), S3, pseudo (S3 by f_S's labels), generated
    plain: bool = False  # trained under plain augmentation: time shift, noise, masking


PLAIN = " + plain augmentation"
ROWS = (
    Row("S1", ("S1",)),
    Row("S1 oversampled", ("S1", "S1 again")),
    Row("S1" + PLAIN, ("S1",), True),
    Row("S1 + pseudo-labelled S3", ("S1", "pseudo")),
    Row("S1 + generated", ("S1", "generated")),
    Row("S1 + generated" + PLAIN, ("S1", "generated"), True),
    Row("S1 + S3", ("S1", "S3")),
    Row("S1 + S3" + PLAIN, ("S1", "S3"), True),
    Row("S1 + S3 + generated", ("S1", "S3", "generated")),
    Row("S1 + S3 + generated" + PLAIN, ("S1", "S3", "generated"), True),
    Row("generated only", ("generated",)),
)
RULES = ("equal", "best")  # equal optimiser steps; each row at its own best steps, chosen on S2's voices

Family = tuple[str, ...]  # rows that do the same job; which of them stands for it is chosen on S2
S1_ROWS: Family = ("S1", "S1 oversampled", "S1" + PLAIN)
GENERATED: Family = ("S1 + generated", "S1 + generated" + PLAIN)
CEILING: Family = ("S1 + S3", "S1 + S3" + PLAIN)
PRIMARY: dict[str, tuple[Family, Family]] = {  # headline (a) and (b)
    "a": (GENERATED, S1_ROWS),
    "b": (("S1 + S3 + generated" + PLAIN,), ("S1 + S3" + PLAIN,)),
}
SECONDARY: dict[str, tuple[Family, Family]] = {
    "generated over the best row without a GAN": (GENERATED, (*S1_ROWS, "S1 + pseudo-labelled S3")),
    "generated, as the paper compares": (("S1 + generated",), ("S1",)),
    "plain augmentation": (("S1" + PLAIN,), ("S1",)),
    "pseudo-labels": (("S1 + pseudo-labelled S3",), ("S1",)),
    "generated beside S3, both without plain augmentation": (("S1 + S3 + generated",), ("S1 + S3",)),
    "generated only": (("generated only",), ("S1",)),
    "ceiling": (CEILING, S1_ROWS),
}
Table = Mapping[str, np.ndarray]  # a run's table.npz: core.augmentation.write says what is in it


@dataclass(frozen=True)
class Gain:
    """One comparison over all tables, under one step rule. Differences are accuracies, so 0.03 is three points."""

    name: str
    rule: str
    rows: tuple[str, str]  # compared: better minus worse, or "A or B" where runs chose differently
    difference: float  # mean over subjects
    interval: tuple[float, float]  # 95 %, bootstrap over subjects
    p: float  # two-sided sign-flip test over subjects
    adjusted: float  # p after Holm's correction among the secondary comparisons of the rule; p itself for (a) and (b)
    subjects: int
    recovered: float | None = None  # (a): share of the distance to the ceiling; None where that is less than a point or nothing is gained


def chosen(table: Table, family: Family, rule: str) -> str | None:
    """The row of a family that S2's voices prefer, by mean accuracy over seeds under the rule; None where the table has none of them."""
    names, marks = [str(n) for n in table["rows"]], table["marks"]
    there = [n for n in family if n in names]
    if not there:
        return None
    curves = np.stack([table["S2"][names.index(n)] for n in there])  # (rows, seeds, marks)
    at = curves[:, :, list(marks).index(int(table["equal"]))] if rule == "equal" else curves.max(axis=2)
    return there[int(at.mean(axis=1).argmax())]


def differences(tables: Sequence[Table], better: Family, worse: Family, rule: str) -> tuple[np.ndarray, tuple[str, str]]:
    """Per subject, the accuracy of `better` minus that of `worse`, averaged over the runs that test it: (m,); and which rows these were.

    Balanced subsample of S4 only. (0,) where no table holds both. Each subject weighs the same, however many of its clips count.
    """
    of: dict[str, list[float]] = {}
    used: tuple[set[str], set[str]] = (set(), set())
    for t in tables:
        pair = chosen(t, better, rule), chosen(t, worse, rule)
        if pair[0] is None or pair[1] is None:
            continue
        names, counted, k = [str(n) for n in t["rows"]], t["counted"].astype(bool), RULES.index(rule)
        a, b = (t["predicted"][names.index(str(n)), k][:, counted] for n in pair)
        for who, d in zip(*metrics.subject_differences(t["label"][counted], a, b, t["subject"][counted]), strict=True):
            of.setdefault(str(who), []).append(float(d))
        for seen, n in zip(used, pair, strict=True):
            seen.add(str(n))
    return np.array([np.mean(v) for _, v in sorted(of.items())]), (" or ".join(sorted(used[0])), " or ".join(sorted(used[1])))


MADE = ("S1 + generated", "S1 + S3 + generated", "generated only")  # rows in which two generators may be held against each other


def between(ours: Sequence[Table], theirs: Sequence[Table]) -> list[Gain]:
    """Ours minus theirs in each row of MADE, paired by test subject, Holm-corrected within a rule: two methods on equal S1 to S4.

    Tables that have no partner with the same test voices are left out.
    """
    out: list[Gain] = []
    for rule in RULES:
        k, later = RULES.index(rule), list[Gain]()
        for name in MADE:
            of: dict[str, list[float]] = {}
            for a, b in _paired(ours, theirs):
                if name not in a["rows"] or name not in b["rows"]:
                    continue
                counted = a["counted"].astype(bool)
                one, other = (t["predicted"][list(t["rows"]).index(name), k][:, counted] for t in (a, b))
                found = metrics.subject_differences(a["label"][counted], one, other, a["subject"][counted])
                for who, d in zip(*found, strict=True):
                    of.setdefault(str(who), []).append(float(d))
            if of:
                d = np.array([np.mean(v) for _, v in sorted(of.items())])
                p = metrics.sign_flip(d)
                later.append(Gain(name, rule, (name, name), float(d.mean()), metrics.bootstrap(d), p, p, len(d)))
        adjusted = metrics.holm(np.array([g.p for g in later]))
        out += [dataclasses.replace(g, adjusted=float(p)) for g, p in zip(later, adjusted, strict=True)]
    return out


def _paired(ours: Sequence[Table], theirs: Sequence[Table]) -> list[tuple[Table, Table]]:
    """Tables of the same test voices, each used once, in the order of `ours`."""
    left, pairs = list(theirs), []
    for a in ours:
        same = [i for i, b in enumerate(left) if all(np.array_equal(a[n], b[n]) for n in ("label", "subject", "row", "counted"))]
        if same:
            pairs.append((a, left.pop(same[0])))
    return pairs


def gains(tables: Sequence[Table]) -> list[Gain]:
    """Headline (a) and (b) and the secondary comparisons, under both step rules, over the tables of one setting's folds and seeds.

    A claim holds only if it does under both rules (`holds`). Comparisons that no table allows are left out.
    """
    out: list[Gain] = []
    for rule in RULES:
        later: list[Gain] = []
        for name, (better, worse) in (PRIMARY | SECONDARY).items():
            d, rows = differences(tables, better, worse, rule)
            if not len(d):
                continue
            p, recovered = metrics.sign_flip(d), None
            if name == "a":
                whole = differences(tables, CEILING, S1_ROWS, rule)[0]
                recovered = float(d.mean() / whole.mean()) if d.mean() > 0 and len(whole) and whole.mean() >= 0.01 else None
            gain = Gain(name, rule, rows, float(d.mean()), metrics.bootstrap(d), p, p, len(d), recovered)
            (out if name in PRIMARY else later).append(gain)
        adjusted = metrics.holm(np.array([g.p for g in later]))
        out += [dataclasses.replace(g, adjusted=float(p)) for g, p in zip(later, adjusted, strict=True)]
    return out


def holds(found: Sequence[Gain], name: str, level: float = 0.05) -> bool:
    """Whether a gain is above 0 and significant under both step rules."""
    both = [g for g in found if g.name == name]
    return {g.rule for g in both} == set(RULES) and all(g.difference > 0 and g.adjusted < level for g in both)


# ------------------------------------------------------------------ what runs say together, and what people say


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sd (n - 1) over runs, as in the paper's Fig. 9; the sd of one run is NaN."""
    v = np.asarray(values, np.float64)
    return float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else math.nan


def raters(emotion: np.ndarray, votes: np.ndarray, classes: Sequence[str]) -> np.ndarray:
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
