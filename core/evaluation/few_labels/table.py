"""The table of a run with few labels: what S3 gives to S1, and what a generator gives away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from core import files
from core.conformal import prediction
from core.evaluation import augmentation, metrics
from core.evaluation.augmentation import Material
from core.evaluation.evaluator import Parts, s1_voice_rows
from core.evaluation.few_labels import rows
from core.evaluation.few_labels.rows import FewLabelsSettings
from core.evaluation.quality import image_tensor, seed_of
from core.models import classifiers, gan
from core.runs.directory import Run


def compute(
    run: Run,
    plan: FewLabelsSettings | None = None,
    device: str = "cpu",
    tick: Callable[[str, int, int, str], None] = lambda *a: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict:
    """A finished run's labels.json, computed as `augmentation.compute_table` computes its table.

    Raises UserError for a run whose faces and voices are not of the same clips.
    """
    if run.config.data.pairing != "clip" or run.config.gan.direction != "face-voice":
        raise files.UserError(
            f"{run.id}: few labels are measured on voices whose clips have a face; use "
            "--data.pairing clip and --gan.direction face-voice"
        )
    plan = plan or FewLabelsSettings()
    return augmentation.compute_table(run, plan, device, tick, should_stop, KIND)


def chosen_faces(arrays, confidence: float) -> np.ndarray:
    """Mask (n,) of S3's faces whose conformal confidence is above a threshold; reads no label."""
    return prediction.confidence(arrays["p_S3"]) > confidence


def sharp_conditions(c: np.ndarray) -> np.ndarray:
    """Conditions (n, K) that name argmax c alone: the highest value there, the lowest elsewhere.

    >>> sharp_conditions(np.array([[0.5, 0.25, 0.0], [0.0, 0.125, 1.0]])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if not c.size:
        return c
    sharp = np.full_like(c, c.min())
    sharp[np.arange(len(c)), c.argmax(axis=1)] = c.max()
    return sharp


def parts(m: Material, draw: int, plan: FewLabelsSettings) -> Parts:
    """The parts of `rows.ROWS`: labelled S1, S3 under f_S's labels, true ones, and generated.

    `confident` parts are of the clips that conformal prediction chooses, and their voices are
    generated from sharp conditions. A generated voice is labelled argmax c, or, without a
    condition, as f_S labels its face. `draw` selects the noise.
    """
    S1, S3, own = m.sets["S1"], m.sets["S3"], s1_voice_rows(m.config, m.sets["S1"])
    x3, y3, c3 = image_tensor(S3.x, m.device), image_tensor(S3.y, m.device), m.c["S3"]
    seed, repeats = seed_of(m.config, "samples") + 100 * draw, plan.per_face
    pseudo = m.arrays["o_S3"].argmax(axis=1).astype(np.int64)
    label = c3.argmax(axis=1).astype(np.int64) if c3.shape[1] else pseudo

    def tensor(a: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(a).to(m.device)

    def generated(c: np.ndarray, keep: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        at = tensor(np.flatnonzero(keep))
        made = [
            gan.sample(m.networks["G"], x3[at], tensor(c)[at], m.config.gan.z, seed + k)
            for k in range(repeats)
        ]
        return torch.cat(made), tensor(label)[at].repeat(repeats)

    out = {
        "S1": (image_tensor(S1.y[own], m.device), tensor(S1.y_label[own])),
        "pseudo": (y3, tensor(pseudo)),
        "generated": generated(c3, np.ones(len(S3.x), bool)),
        "S3": (y3, tensor(S3.y_label)),
    }
    chosen = chosen_faces(m.arrays, plan.confidence)
    if chosen.any():
        at = tensor(np.flatnonzero(chosen))
        out["pseudo confident"] = y3[at], tensor(pseudo)[at]
        out["generated confident"] = generated(sharp_conditions(c3), chosen)
    return out


def facts(m: Material, plan: FewLabelsSettings, found: Parts) -> dict:
    """How many voices have labels, whom conformal prediction chose, and what G gives away.

    `found` are the table's parts. S3's labels are read here for figures, after all training.
    """
    own, S3 = s1_voice_rows(m.config, m.sets["S1"]), m.sets["S3"]
    chosen = chosen_faces(m.arrays, plan.confidence)
    right = m.arrays["o_S3"].argmax(axis=1) == S3.x_label
    choice = {"share": float(chosen.mean()), "right": float(right.mean())}
    if chosen.any():
        choice["right where chosen"] = float(right[chosen].mean())
    voices = {
        "generated": found["generated"][0],
        "members": image_tensor(S3.y, m.device),
        "others": image_tensor(m.sets["S4"].y, m.device),
    }
    scorer, cells = m.networks["scorer"], {k: v.flatten(1).cpu() for k, v in voices.items()}
    features = {k: classifiers.outputs(scorer, v)[1] for k, v in voices.items()}
    return {
        "labelled": {"voices": len(own), "a class": m.config.data.labels_per_class},
        "choice": choice,
        "privacy": {
            "spectrograms": metrics.membership(**{k: v.numpy() for k, v in cells.items()}),
            "features": metrics.membership(**features),
        },
    }


KIND = augmentation.TableKind(
    rows.STEM,
    "few labels",
    rows.ROWS,
    parts,
    rows.COMPARISONS,
    lambda row: "conformal prediction chose no clip of S3",
    facts,
)
