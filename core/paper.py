"""The paper's equations and figures: tag -> what it says, its LaTeX, its function as it stands, and our repair. Standard library only.

Paper: C. Athanasiadis, E. Hortal, S. Asteriadis, "Audio-visual domain adaptation using conditional semi-supervised Generative
Adversarial Networks", 2019.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class MapEntry:
    """One equation, algorithm, figure or section of the paper. `function` is 'core.module:name'."""

    tag: str
    what: str
    function: str
    latex: str = ""  # lines, as LaTeX's `aligned` has them
    repair: str = ""
    where: str = ""  # section of the paper; a tag that is a section says it itself
    page: str = ""  # of the app, where it can be seen at work: file in pages/, with a query

    @property
    def section(self) -> str:
        return self.where or self.tag

    @property
    def key(self) -> str:
        """Its name in an address: 8 for Eq. (8), alg-1, fig-4a, and a section's function."""
        number = re.search(r"\((\d+)\)", self.tag)
        if number:
            return number[1]
        return (
            self.function.split(":")[1]
            if self.tag.startswith("§")
            else re.sub(r"\W+", "-", self.tag.lower())
        )


PAPER_MAP = (
    MapEntry(
        "Eq. (1)",
        "the adversarial game",
        "core.models.losses:discriminator_loss",
        r"\min_G\max_D V_1(D,G)&=\mathbb{E}_{y\sim X_T}[\log D(y)]\\&+\mathbb{E}_{z\sim P_z}[\log(1-D(G(z)))]",
        "the first term prints D(x) for D(y)",
        where="§3",
        page="train",
    ),
    MapEntry(
        "Eq. (2)",
        "with the source x, a face",
        "core.models.losses:discriminator_loss",
        r"\min_G\max_D V_2(D,G)&=\mathbb{E}_{y\sim X_T}[\log D(y)]\\&+\mathbb{E}_{z\sim P_z,x\sim X_S}[\log(1-D(G(x,z)))]",
        where="§3",
        page="train",
    ),
    MapEntry(
        "Eq. (3)",
        "with the condition c",
        "core.models.losses:adversarial_loss",
        r"\min_G\max_D V_3(D,G)&=\mathbb{E}_{y\sim X_T}[\log D(y)]\\&+\mathbb{E}_{z\sim P_z,x\sim X_S}[\log(1-D(G(x|c,z)))]",
        "G minimises the non-saturating -log D(G); `minmax` keeps the printed form",
        where="§3",
        page="train",
    ),
    MapEntry(
        "Eq. (4)",
        "L1 distance to the paired target",
        "core.models.losses:l1_loss",
        r"L_1(G)=\mathbb{E}_{y,x,z}[\lVert y-G(x,z)\rVert_1]",
        "needs a paired y: the same clip, or the same emotion where faces and voices come from different corpora",
        where="§3",
        page="gallery",
    ),
    MapEntry(
        "Eq. (5)",
        "Eq. (3) + Eq. (4)",
        "core.models.losses:generator_loss",
        r"\min_G\max_D\;V_3(D,G(x|c,z))+L_1(G(x|c,z))",
        "each term has a weight; `l1=0` is the ablation of Table 1",
        where="§3",
        page="train",
    ),
    MapEntry(
        "Eq. (6)",
        "cross-entropy of Q on generated samples",
        "core.models.losses:class_loss",
        r"L_C=-\mathbb{E}[\log P(x_k\mid G(x|c,z))]",
        "printed without the minus sign, and with D's output inside P",
        where="§3",
        page="evaluate",
    ),
    MapEntry(
        "Eq. (7)",
        "the whole objective",
        "core.models.losses:generator_loss",
        r"\min_G\max_D\;V_3(D,G(x|c,z))+L_1(G(x|c,z))+L_C",
        "printed with V2 for V3",
        where="§3",
        page="train",
    ),
    MapEntry(
        "Eq. (8)",
        "nonconformity: hinge, or margin (the one used)",
        "core.conformal.prediction:nonconformity",
        r"\alpha^{y^p}&=1-o^{y^p}\quad\text{or}\\\alpha^{y^p}&=\max_{i\neq p}o^{y^i}-o^{y^p}",
        where="§3.1",
        page="conformal?step=chain",
    ),
    MapEntry(
        "Eq. (9)",
        "p-value",
        "core.conformal.prediction:p_values",
        r"p(\alpha_{n+1})=\frac{\#\{i\in\{1,\dots,n+1\}:\alpha_i\ge\alpha_{n+1}\}}{n+1}",
        "the text after it inverts the inequality; pooled or per class is unclear, so both exist by name",
        where="§3.1",
        page="conformal?step=area",
    ),
    MapEntry(
        "§3.1",
        "credibility: the highest p-value",
        "core.conformal.prediction:credibility",
        r"\max_k p_k",
        page="conformal?step=set",
    ),
    MapEntry(
        "§3.1",
        "confidence: 1 - the second highest p-value",
        "core.conformal.prediction:confidence",
        r"1-p_{(2)}",
        page="conformal?step=map",
    ),
    MapEntry(
        "§3.2",
        "noise on all inputs, soft and noisy labels, batch norm, LeakyReLU, Adagrad",
        "core.models.gan:step",
        page="train",
    ),
    MapEntry(
        "§3.3",
        "spectrograms 28, 56, 112 x 28 from the clip's middle",
        "core.media.spectrograms:log_mel",
        page="listen",
    ),
    MapEntry(
        "§3.4",
        "face alignment by a similarity transform",
        "core.media.faces.alignment:align",
        page="listen",
    ),
    MapEntry(
        "§4.1", "four subject-disjoint sets", "core.data.splits:by_subject", page="data?view=sets"
    ),
    MapEntry(
        "§4.2",
        "accuracy when real data is augmented with generated",
        "core.evaluation.evaluator:augmentation_sets",
        page="evaluate",
    ),
    MapEntry(
        "§4.3",
        "label, classifier and conformal condition",
        "core.models.gan:condition",
        page="condition",
    ),
    MapEntry(
        "Alg. 1",
        "full conformal prediction: the classifier is fitted anew for every test point and every label",
        "core.conformal.prediction:full_p_values",
        r"p_k&=\tfrac{1}{n+1}\,\#\{i\le n+1:\alpha_i^{(x,k)}\ge\alpha_{n+1}^{(x,k)}\},\\&\alpha^{(x,k)}\text{ fitted on }S\cup\{(x,k)\}",
        "refits a logistic head on fixed features; inductive and cross-conformal prediction with the same head stand beside it",
        where="§3.1",
        page="conformal?step=promise",
    ),
    MapEntry(
        "Eq. (10)",
        "Inception Score, by a network trained on real voices' emotions",
        "core.evaluation.metrics:inception_score",
        r"\mathrm{IS}=\exp\big(\mathbb{E}_x\,\mathrm{KL}(p(y|x)\,\Vert\,p(y))\big)",
        "printed without the bar between p(y|x) and p(y); unsplit; the real data's score stands beside it",
        where="§4.2",
        page="evaluate",
    ),
    MapEntry(
        "Eq. (11)",
        "Fréchet distance on the same network's features",
        "core.evaluation.metrics:fid",
        r"\mathrm{FID}&=\lVert\mu_R-\mu_G\rVert^2\\&+\mathrm{Tr}\big(\Sigma_R+\Sigma_G-2(\Sigma_R\Sigma_G)^{1/2}\big)",
        "printed without the square; equal N, and the distance between two real sets beside it",
        where="§4.2",
        page="evaluate",
    ),
    MapEntry(
        "Fig. 3", "the whole architecture", "core.experiments.pipeline:run", where="§3", page="home"
    ),
    MapEntry("Fig. 4a", "U-Net generator", "core.models.networks:UNet", where="§3", page="train"),
    MapEntry(
        "Fig. 4b", "EncDec generator", "core.models.networks:EncDec", where="§3", page="train"
    ),
    MapEntry(
        "Fig. 8",
        "confusion matrices",
        "core.evaluation.metrics:confusion",
        where="§4.5",
        page="evaluate",
    ),
)


@dataclass(frozen=True)
class FigureEntry:
    """A figure or table of the paper, and what makes ours: a page of the app and, where files are wanted, a command."""

    tag: str
    what: str
    page: str
    command: str = ""


REPORT_COMMAND = "python -m core report"
FIGURES = (
    FigureEntry("Fig. 1", "the face and the voice of one clip", "listen"),
    FigureEntry("Fig. 2", "a generator and a discriminator", "paper?eq=1"),
    FigureEntry("Fig. 3", "the whole architecture", "home"),
    FigureEntry(
        "Fig. 4",
        "the two generators, U-Net and EncDec",
        "train",
        "python -m core train --preset demo --gan.generator unet",
    ),
    FigureEntry("Fig. 5", "real spectrograms and aligned faces", "data?view=clips"),
    FigureEntry("Fig. 6", "generated spectrograms, by condition", "gallery", REPORT_COMMAND),
    FigureEntry(
        "Fig. 7a", "generated spectrograms under conformal prediction", "gallery", REPORT_COMMAND
    ),
    FigureEntry("Fig. 7b", "faces generated from voices", "reverse", REPORT_COMMAND),
    FigureEntry("Fig. 8", "confusion matrices", "evaluate", REPORT_COMMAND),
    FigureEntry("Fig. 9", "mean and spread over folds of subjects", "evaluate", REPORT_COMMAND),
    FigureEntry("Fig. 10", "losses of G, D and Q over training", "train", REPORT_COMMAND),
    FigureEntry(
        "Fig. 11", "IS and FID over training, and with less data", "evaluate", REPORT_COMMAND
    ),
    FigureEntry("Table 1", "ablations: generators, and no L1", "evaluate", REPORT_COMMAND),
    FigureEntry("Table 2", "accuracy, FID and IS of every condition", "evaluate", REPORT_COMMAND),
)
CONFLICTING_NUMBERS = (  # where the paper gives more than one figure for one thing
    "The audio baseline of RAVDESS is 44.73 % in Table 2, 46.28 % in §4.3 and 46.90 % in the abstract.",
    "RAVDESS under conformal prediction is 46.55 % in Table 2 and 48.65 % in the abstract.",
)


@dataclass(frozen=True)
class SourceCode:
    """A function or class as it stands in its file."""

    file: str  # from the project's folder
    line: int  # of its first line
    text: str


def read_source_code(function: str) -> SourceCode:
    """The source text of 'core.module:name' or 'core.module:Class.name', read off the file: nothing of it is imported or run.

    Raises ValueError naming the file where there is no such thing in it.
    """
    module, _, name = function.partition(":")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not path.exists():
        raise ValueError(f"{function}: there is no file {path}")
    text = path.read_text(encoding="utf-8")
    inside: list[ast.stmt] = ast.parse(text).body
    found: ast.stmt | None = None
    for part in name.split("."):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        node = next((n for n in inside if isinstance(n, kinds) and n.name == part), None)
        if node is None:
            raise ValueError(f"{path} has no {name}; core/paper.py names it")
        found, inside = node, node.body
    assert isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    first = min([found.lineno, *(d.lineno for d in found.decorator_list)])
    lines = text.splitlines()[first - 1 : found.end_lineno]
    return SourceCode(path.relative_to(ROOT).as_posix(), first, "\n".join(lines))


PUBLISHED_TABLE_2 = {  # Table 2: accuracy in %, FID, IS
    "CREMA-D": {"audio baseline": (49.34,), "face baseline": (64.50,), "label": (52.52, 59.44, 2.16),
                "classifier": (49.92, 60.13, 2.01), "CP": (50.29, 60.10, 2.00)},
    "RAVDESS": {"audio baseline": (44.73,), "face baseline": (59.79,), "label": (47.11, 49.77, 2.21),
                "classifier": (46.23, 50.33, 2.05), "CP": (46.55, 49.95, 2.01)},
}  # fmt: skip

PUBLISHED_ELSEWHERE = "For RAVDESS the paper also gives an audio baseline of 46.28 (§4.3) and 46.90 (abstract), and 48.65 for CP (abstract)."

PUBLISHED_TABLE_1 = {  # Table 1, CREMA-D: accuracy in % by condition
    "EncDec": {"label": 52.52, "classifier": 49.92, "CP": 50.29},
    "U-Net": {"label": 50.24, "classifier": 50.12, "CP": 50.09},
    "EncDec without L1": {"label": 38.11, "classifier": 31.67, "CP": 31.69},
}
