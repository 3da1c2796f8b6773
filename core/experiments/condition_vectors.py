"""§3.1: softmax outputs o, nonconformity scores alpha, p-values, and the condition c of a face."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core import files
from core.config import Config
from core.conformal import prediction
from core.data import splits
from core.data.splits import SampleSet
from core.evaluation.evaluator import FittedClassifiers, image_tensor, seed_of, target_settings
from core.models import classifiers, gan, networks
from core.runs import Run

CONDITIONED_SETS = ("S2", "S3", "S4")  # S1 trains f_S
HEAD_COMPONENTS = 16  # principal components of f_S's features that the light head uses; few, as
# Algorithm 1 fits the head once for each face and each label
FACES_PER_REPORT = 16  # faces of full conformal prediction between two reports of progress


def compute_conditions(
    config: Config,
    sets: dict[str, SampleSet],
    fitted: FittedClassifiers,
    r: Run,
    watch: Callable[..., None] = lambda *a: None,
) -> dict[str, np.ndarray]:
    """§3.1: set -> conditions c (n, K) of its faces; o, p-values and c's sources go to outputs.npz.

    S2 calibrates. S3's labels are read only for the label condition. S2's own p-values, used for
    curves and samples during training, are slightly optimistic; those of S3 and S4 are not.
    """
    device, conformal = next(fitted.f_S.parameters()).device, config.conformal
    # softmax o, and p-values from the nonconformity scores on S2
    o = {
        k: classifiers.softmax(fitted.f_S, image_tensor(sets[k].x, device))
        for k in CONDITIONED_SETS
    }
    rows = calibration_rows(config, sets["S2"])
    if conformal.kind == "inductive":
        calibration = o["S2"][rows], sets["S2"].x_label[rows]
        how = conformal.measure, conformal.groups
        p = {k: prediction.inductive_p_values(*calibration, o[k], *how) for k in o}
    else:
        p, rows = light_head_p_values(config, sets, fitted.f_S, rows, watch)
    # the condition c: label, softmax or p-values
    K, g, c = len(config.data.classes), config.gan, {}
    for k in o:
        labels = sets[k].x_label if g.condition == "label" else None
        c[k] = gan.condition(g.condition, labels, o[k], p[k], K, g.soft)
    # arrays of the faces for the Conformal page, and of f_T's predictor, calibrated on S2 as well
    arrays = {f"o_{k}": v for k, v in o.items()} | {f"p_{k}": v for k, v in p.items()}
    arrays |= {f"label_{k}": sets[k].x_label for k in ("S2", "S4")}
    arrays |= {f"subject_{k}": sets[k].x_subject for k in CONDITIONED_SETS}
    arrays["calibration"] = rows
    target = target_settings(config)[1]
    for k in ("S2", "S4"):
        y = image_tensor(sets[k].y, device)
        arrays[f"o_{target}_{k}"] = classifiers.softmax(fitted.f_T, y)
        arrays[f"label_{target}_{k}"] = sets[k].y_label
        arrays[f"subject_{target}_{k}"] = sets[k].y_subject
    files.write_arrays(r.directory / "outputs.npz", **arrays)
    return c


def light_head_p_values(
    config: Config,
    sets: dict[str, SampleSet],
    f_S: networks.Classifier,
    rows: np.ndarray,
    watch: Callable[..., None],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """§4.4: p-values from a logistic head on f_S's features; and the rows of S2 that calibrate it.

    kind full: Algorithm 1 over S2 and (x, k). kind head: the inductive predictor of the same head,
    trained on one half of `rows` and calibrated on the other.
    """
    f = _whitened_features(sets, f_S)
    conformal, K, label = config.conformal, len(config.data.classes), sets["S2"].x_label[rows]
    how = K, None, conformal.measure, conformal.groups
    if conformal.kind == "head":
        order = np.random.default_rng(seed_of(config, "balance")).permutation(len(rows))
        calibrates = np.ones(len(rows), bool)
        calibrates[order[: len(rows) // 2]] = False
        return {
            k: prediction.split_p_values(f["S2"][rows], label, f[k], calibrates, *how)
            for k in CONDITIONED_SETS
        }, rows[calibrates]
    p, done, total = {}, 0, sum(len(f[k]) for k in CONDITIONED_SETS)
    for k in CONDITIONED_SETS:
        parts = []
        for i in range(0, len(f[k]), FACES_PER_REPORT):
            watch("full conformal prediction", done, total)
            x = f[k][i : i + FACES_PER_REPORT]
            parts.append(prediction.full_p_values(f["S2"][rows], label, x, *how))
            done += len(x)
        p[k] = np.concatenate(parts)
    return p, rows


def _whitened_features(
    sets: dict[str, SampleSet], f_S: networks.Classifier
) -> dict[str, np.ndarray]:
    """Set -> principal components (n, at most HEAD_COMPONENTS) of f_S's features of its faces.

    Centre, axes and scale (to unit variance) are S1's, so that S2 and a new face are treated alike,
    as the conformal guarantee requires.
    """
    device = next(f_S.parameters()).device
    f = {k: classifiers.outputs(f_S, image_tensor(sets[k].x, device))[1] for k in splits.SET_NAMES}
    centre = f["S1"].mean(axis=0)
    _, size, axes = np.linalg.svd(f["S1"] - centre, full_matrices=False)
    size, axes = size[:HEAD_COMPONENTS], axes[:HEAD_COMPONENTS]
    used = size > 1e-6 * size[0]
    scale = (axes[used] / size[used, None]).T * len(f["S1"]) ** 0.5
    return {k: (v - centre) @ scale for k, v in f.items()}


def calibration_rows(config: Config, S2: SampleSet) -> np.ndarray:
    """Sorted rows of S2's faces that calibrate f_S: a random share `conformal.r`, from the seed."""
    n = len(S2.x_label)
    order = np.random.default_rng(seed_of(config, "balance")).permutation(n)
    return np.sort(order[: max(1, round(config.conformal.r * n))])
