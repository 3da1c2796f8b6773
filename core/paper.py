"""The paper's equations and figures: tag -> what it says, its LaTeX, its function, and our repair. Standard library only.

Paper: C. Athanasiadis, E. Hortal, S. Asteriadis, "Audio-visual domain adaptation using conditional semi-supervised Generative
Adversarial Networks", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One equation, algorithm, figure or section of the paper. `function` is 'core.module:name'."""

    tag: str
    what: str
    function: str
    latex: str = ""
    repair: str = ""


PAPER = (
    Entry(
        "Eq. (1)",
        "the adversarial game",
        "core.losses:discriminator_loss",
        r"\min_G\max_D V_1(D,G)=\mathbb{E}_{y\sim X_T}[\log D(y)]+\mathbb{E}_{z\sim P_z}[\log(1-D(G(z)))]",
        "the first term prints D(x) for D(y)",
    ),
    Entry(
        "Eq. (2)",
        "with the source x, a face",
        "core.losses:discriminator_loss",
        r"\min_G\max_D V_2(D,G)=\mathbb{E}_{y\sim X_T}[\log D(y)]+\mathbb{E}_{z\sim P_z,x\sim X_S}[\log(1-D(G(x,z)))]",
    ),
    Entry(
        "Eq. (3)",
        "with the condition c",
        "core.losses:adversarial_loss",
        r"\min_G\max_D V_3(D,G)=\mathbb{E}_{y\sim X_T}[\log D(y)]+\mathbb{E}_{z\sim P_z,x\sim X_S}[\log(1-D(G(x|c,z)))]",
        "G minimises the non-saturating -log D(G); `minmax` keeps the printed form",
    ),
    Entry(
        "Eq. (4)",
        "L1 distance to the paired target",
        "core.losses:l1_loss",
        r"L_1(G)=\mathbb{E}_{y,x,z}[\lVert y-G(x,z)\rVert_1]",
        "needs a paired y: the same clip, or the same emotion where faces and voices come from different corpora",
    ),
    Entry(
        "Eq. (5)",
        "Eq. (3) + Eq. (4)",
        "core.losses:generator_loss",
        r"\min_G\max_D\;V_3(D,G(x|c,z))+L_1(G(x|c,z))",
        "each term has a weight; `l1=0` is the ablation of Table 1",
    ),
    Entry(
        "Eq. (6)",
        "cross-entropy of Q on generated samples",
        "core.losses:class_loss",
        r"L_C=-\mathbb{E}[\log P(x_k\mid G(x|c,z))]",
        "printed without the minus sign, and with D's output inside P",
    ),
    Entry(
        "Eq. (7)",
        "the whole objective",
        "core.losses:generator_loss",
        r"\min_G\max_D\;V_3(D,G(x|c,z))+L_1(G(x|c,z))+L_C",
        "printed with V2 for V3",
    ),
    Entry(
        "Eq. (8)",
        "nonconformity: hinge, or margin (the one used)",
        "core.conformal:nonconformity",
        r"\alpha^{y^p}=1-o^{y^p}\quad\text{or}\quad\alpha^{y^p}=\max_{i\neq p}o^{y^i}-o^{y^p}",
    ),
    Entry(
        "Eq. (9)",
        "p-value",
        "core.conformal:p_values",
        r"p(\alpha_{n+1})=\frac{\#\{i\in\{1,\dots,n+1\}:\alpha_i\ge\alpha_{n+1}\}}{n+1}",
        "the text after it inverts the inequality; pooled or per class is unclear, so both exist by name",
    ),
    Entry("§3.1", "credibility: the highest p-value", "core.conformal:credibility", r"\max_k p_k"),
    Entry("§3.1", "confidence: 1 - the second highest p-value", "core.conformal:confidence", r"1-p_{(2)}"),
    Entry("§3.2", "noise on all inputs, soft and noisy labels, batch norm, LeakyReLU, Adagrad", "core.gan:step"),
    Entry("§3.3", "spectrograms 28, 56, 112 x 28 from the clip's middle", "core.spectrograms:log_mel"),
    Entry("§3.4", "face alignment by a similarity transform", "core.faces:align"),
    Entry("§4.1", "four subject-disjoint sets", "core.datasets:split_subjects"),
    Entry("§4.2", "accuracy when real data is augmented with generated", "core.evaluation:augmentation_sets"),
    Entry("§4.3", "label, classifier and conformal condition", "core.gan:condition"),
    Entry(
        "Alg. 1",
        "full conformal prediction: the classifier is fitted anew for every test point and every label",
        "core.conformal:full",
        r"p_k=\tfrac{1}{n+1}\,\#\{i\le n+1:\alpha_i^{(x,k)}\ge\alpha_{n+1}^{(x,k)}\},\quad\alpha^{(x,k)}\text{ fitted on }S\cup\{(x,k)\}",
        "refits a logistic head on fixed features; inductive and cross-conformal prediction with the same head stand beside it",
    ),
    Entry(
        "Eq. (10)",
        "Inception Score, by a network trained on real voices' emotions",
        "core.metrics:inception_score",
        r"\mathrm{IS}=\exp\big(\mathbb{E}_x\,\mathrm{KL}(p(y|x)\,\Vert\,p(y))\big)",
        "printed without the bar between p(y|x) and p(y); unsplit; the real data's score stands beside it",
    ),
    Entry(
        "Eq. (11)",
        "Fréchet distance on the same network's features",
        "core.metrics:fid",
        r"\mathrm{FID}=\lVert\mu_R-\mu_G\rVert^2+\mathrm{Tr}\big(\Sigma_R+\Sigma_G-2(\Sigma_R\Sigma_G)^{1/2}\big)",
        "printed without the square; equal N, and the distance between two real sets beside it",
    ),
    Entry("Fig. 3", "the whole architecture", "core.pipeline:run"),
    Entry("Fig. 4a", "U-Net generator", "core.networks:UNet"),
    Entry("Fig. 4b", "EncDec generator", "core.networks:EncDec"),
    Entry("Fig. 8", "confusion matrices", "core.metrics:confusion"),
)
