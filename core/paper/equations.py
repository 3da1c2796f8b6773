"""The map from the paper's equations and sections to functions, with our repairs and departures.

Paper: C. Athanasiadis, E. Hortal, S. Asteriadis, "Audio-visual domain adaptation using conditional
semi-supervised Generative Adversarial Networks", 2019. Standard library only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class MapEntry:
    """One equation, algorithm, figure or section of the paper and the function that computes it."""

    tag: str
    what: str
    function: str  # 'core.module:name'
    latex: str = ""  # body of an `aligned` environment
    repair: str = ""  # our repair of the paper's text, or our choice
    departure: str = ""  # where our default, or the preset `paper` too, is not as printed
    where: str = ""  # section of the paper; empty if the tag is a section
    page: str = ""  # page of the app that shows it: a file in pages/, with a query
    also: tuple[str, ...] = ()  # further functions, 'core.module:name'

    @property
    def section(self) -> str:
        return self.where or self.tag

    @property
    def key(self) -> str:
        """Its name in a URL: 8 for Eq. (8), alg-1, fig-4a, and a section's function."""
        if number := re.search(r"\((\d+)\)", self.tag):
            return number[1]
        if self.tag.startswith("§"):
            return self.function.split(":")[1]
        return re.sub(r"\W+", "-", self.tag.lower())


PAPER_MAP = (
    MapEntry(
        "Eq. (1)",
        "the adversarial game",
        "core.models.losses:discriminator_loss",
        r"\min_G\max_D V_1(D,G)&=\mathbb{E}_{y\sim X_T}[\log D(y)]"
        r"\\&+\mathbb{E}_{z\sim P_z}[\log(1-D(G(z)))]",
        "the first term prints D(x) for D(y)",
        where="§3",
        page="train",
        departure="D aims at 0.9 for real samples (`gan.real_target`); the preset `paper` at 1",
    ),
    MapEntry(
        "Eq. (2)",
        "with the source x, a face",
        "core.models.losses:discriminator_loss",
        r"\min_G\max_D V_2(D,G)&=\mathbb{E}_{y\sim X_T}[\log D(y)]"
        r"\\&+\mathbb{E}_{z\sim P_z,x\sim X_S}[\log(1-D(G(x,z)))]",
        where="§3",
        page="train",
    ),
    MapEntry(
        "Eq. (3)",
        "with the condition c",
        "core.models.losses:adversarial_loss",
        r"\min_G\max_D V_3(D,G)&=\mathbb{E}_{y\sim X_T}[\log D(y)]"
        r"\\&+\mathbb{E}_{z\sim P_z,x\sim X_S}[\log(1-D(G(x|c,z)))]",
        "G minimises the non-saturating -log D(G); `gan.game=minmax` keeps the printed form",
        where="§3",
        page="train",
        departure="our method shows D the condition (`gan.projection`) and adds R1",
    ),
    MapEntry(
        "Eq. (4)",
        "L1 distance to the paired target",
        "core.models.losses:l1_loss",
        r"L_1(G)=\mathbb{E}_{y,x,z}[\lVert y-G(x,z)\rVert_1]",
        "needs a paired y: the same clip, or the same emotion if the corpora differ",
        where="§3",
        page="gallery",
        departure="a mean over 3,136 cells of 112 x 28; `gan.l1` = 3136 gives the printed sum",
    ),
    MapEntry(
        "Eq. (5)",
        "Eq. (3) + Eq. (4)",
        "core.models.losses:generator_loss",
        r"\min_G\max_D\;V_3(D,G(x|c,z))+L_1(G(x|c,z))",
        "each term has a weight; `gan.l1=0` is the ablation of Table 1",
        where="§3",
        page="train",
        departure="weights 1:1:1 of means; our method has 0.1 for L1",
    ),
    MapEntry(
        "Eq. (6)",
        "cross-entropy of Q on generated samples",
        "core.models.losses:class_loss",
        r"L_C=-\mathbb{E}[\log P(x_k\mid G(x|c,z))]",
        "printed without the minus sign, and with D's output inside P",
        where="§3",
        page="evaluate",
        departure="Q is frozen, trained on S1; the preset `paper` trains it on S3 (§4.1)",
    ),
    MapEntry(
        "Eq. (7)",
        "the whole objective",
        "core.models.losses:generator_loss",
        r"\min_G\max_D\;V_3(D,G(x|c,z))+L_1(G(x|c,z))+L_C",
        "printed with V2 for V3",
        where="§3",
        page="train",
        departure="Q's target is argmax c, so S3's labels stay unread; `paper` has true labels",
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
        "the text after it inverts the inequality; pooled or per class is unclear: both exist",
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
        "remedies against mode collapse",
        "core.models.gan:step",
        repair="noise on all inputs, soft and noisy labels of c, batch norm, LeakyReLU, Adagrad",
        page="train",
        also=("core.models.trunks:conv_block",),
        departure="only the presets `paper` and `ravdess` train every network by Adagrad; D's "
        "target of 0.9 is no remedy of §3.2, whose soft and noisy labels are those of c",
    ),
    MapEntry(
        "§3.3",
        "spectrograms 28, 56, 112 x 28 from the clip's middle",
        "core.media.spectrograms:log_mel",
        repair="one channel with a known reference in dB, so that a vocoder can invert it",
        page="listen",
        also=("core.media.vocoder:to_waveform",),
        departure="one channel of log-mel energy for the authors' colour picture",
    ),
    MapEntry(
        "§3.4",
        "face alignment by a similarity transform",
        "core.media.faces.alignment:align",
        repair="478 landmarks of a network instead of the paper's regression trees (ERT)",
        page="listen",
        departure="grey, one frame of a clip",
    ),
    MapEntry(
        "§4.1",
        "four subject-disjoint sets S1 to S4",
        "core.data.splits:by_subject",
        repair="40, 15, 25 and 20 % of the subjects, balanced by sex, seeded",
        page="data?view=sets",
        departure="training is balanced by oversampling, tests by subsampling",
    ),
    MapEntry(
        "§4.2",
        "accuracy when real data is augmented with generated",
        "core.evaluation.evaluator:augmentation_sets",
        repair="equal training steps in all rows, and a ceiling row",
        page="evaluate",
        departure="more rows: S1 oversampled, plain augmentation, pseudo-labels",
    ),
    MapEntry(
        "§4.3",
        "label, classifier and conformal condition",
        "core.models.gan:condition",
        repair="also `none` (§4.7)",
        page="condition",
    ),
    MapEntry(
        "§4.7",
        "f_S of another corpus",
        "core.data.splits:f_s_training_data",
        repair="`data.f_s_corpus`; calibrated on this run's S2; nobody of S2 to S4 is in it",
        page="train",
    ),
    MapEntry(
        "Fig. 7b",
        "voice to face",
        "core.inference.generation:generate_face",
        repair="`gan.direction=voice-face` swaps source and target in the same pipeline",
        where="§4.5",
        page="reverse",
    ),
    MapEntry(
        "Alg. 1",
        "full conformal prediction: one refit of the classifier per test point and label",
        "core.conformal.prediction:full_p_values",
        r"p_k&=\tfrac{1}{n+1}\,\#\{i\le n+1:\alpha_i^{(x,k)}\ge\alpha_{n+1}^{(x,k)}\},"
        r"\\&\alpha^{(x,k)}\text{ fitted on }S\cup\{(x,k)\}",
        "refits a logistic head on fixed features; inductive and cross-conformal CP use it too",
        where="§3.1",
        page="conformal?step=broken&limit=full",
        also=(
            "core.conformal.prediction:split_p_values",
            "core.conformal.prediction:cross_p_values",
        ),
        departure="the bag is S2, not the training set; a light head is refitted, not f_S",
    ),
    MapEntry(
        "Eq. (10)",
        "Inception Score, by a network trained on real voices' emotions",
        "core.evaluation.metrics:inception_score",
        r"\mathrm{IS}=\exp\big(\mathbb{E}_x\,\mathrm{KL}(p(y|x)\,\Vert\,p(y))\big)",
        "printed without the bar in p(y|x); unsplit; the real data's score is the reference",
        where="§4.2",
        page="evaluate",
        departure="a small CNN of 16 features for an Inception network: not comparable",
    ),
    MapEntry(
        "Eq. (11)",
        "Fréchet distance on the same network's features",
        "core.evaluation.metrics:fid",
        r"\mathrm{FID}&=\lVert\mu_R-\mu_G\rVert^2"
        r"\\&+\mathrm{Tr}\big(\Sigma_R+\Sigma_G-2(\Sigma_R\Sigma_G)^{1/2}\big)",
        "printed without the square; equal N; the reference is the distance of S3's and S4's real "
        "samples, of people whom the scorer has not met",
        where="§4.2",
        page="evaluate",
        departure="the same small CNN; N is printed, as FID is biased at small N",
    ),
    MapEntry(
        "Fig. 3", "the whole architecture", "core.experiments.pipeline:run", where="§3", page="home"
    ),
    MapEntry(
        "Fig. 2",
        "the discriminator D",
        "core.models.networks:Discriminator",
        where="§3",
        page="train",
        departure="the first seven of the ten convolutions of the authors' code, dense output",
    ),
    MapEntry(
        "Fig. 4a",
        "U-Net generator",
        "core.models.networks:UNet",
        repair="no size is given: four halvings at width `paper`, two in compact networks",
        where="§3",
        page="train",
        departure="the face is stretched to the spectrogram's size, and c and z join at the bottom",
    ),
    MapEntry(
        "Fig. 4b",
        "EncDec generator",
        "core.models.networks:EncDec",
        repair="the text gives no size: width `paper` has those of the authors' code; without "
        "source (§4.4) the first half of the layers is the encoder and goes, too",
        where="§3",
        page="train",
        also=("core.models.networks:generator_widths",),
    ),
    MapEntry(
        "§4.3",
        "the classifiers f_S, f_T and Q",
        "core.models.networks:Classifier",
        repair="voices have one convolution more than faces; width `paper` is the authors' Q",
        page="evaluate",
        departure="compact networks convolve with stride 2 and train with Adam; `paper` as printed",
        also=("core.models.classifiers:arguments",),
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
    """A figure or table of the paper and its counterpart here: a page, and a command for files."""

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


@dataclass(frozen=True)
class SourceCode:
    """The source text of a function or class."""

    file: str  # path below the project's folder
    line: int  # number of the first line, from 1
    text: str


def read_source_code(function: str) -> SourceCode:
    """The source text of 'core.module:name' or 'core.module:Class.name'; nothing is imported.

    Raises ValueError, which names the file, if there is no such function or class.
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
            raise ValueError(f"{path} has no {name}; core/paper/equations.py names it")
        found, inside = node, node.body
    assert isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    first = min([found.lineno, *(d.lineno for d in found.decorator_list)])
    lines = text.splitlines()[first - 1 : found.end_lineno]
    return SourceCode(path.relative_to(ROOT).as_posix(), first, "\n".join(lines))


def equations_table() -> str:
    """`PAPER_MAP` as a Markdown table: in the paper, function, our repair or choice, departure."""
    rows = []
    for entry in PAPER_MAP:
        functions = ", ".join(f"`{f.replace(':', '.')}`" for f in (entry.function, *entry.also))
        place = "" if entry.section == entry.tag else f", {entry.section}"
        what = f"{entry.tag}{place}: {entry.what}"
        rows.append((what, functions, entry.repair, entry.departure))
    head = ("in the paper", "function", "our repair or choice", "where ours departs")
    return markdown_table(head, rows)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a | within a cell is escaped."""
    lines = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
