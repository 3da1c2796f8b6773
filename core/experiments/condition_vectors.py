"""§3.1: softmax outputs o, nonconformity scores alpha, p-values, and the condition c of a face."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from core import files
from core.config.settings import Config
from core.conformal import predictor
from core.conformal.predictor import Predictor
from core.data import splits
from core.data.splits import SampleSet
from core.evaluation.evaluator import FittedClassifiers, image_tensor, seed_of, target_settings
from core.files import UserError
from core.models import classifiers, gan, networks
from core.runs.directory import Run

CONDITIONED_SETS = ("S2", "S3", "S4")  # S1 trains f_S
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
    curves and samples during training, are slightly optimistic; those of S3 and S4 are not. The
    arrays hold all that the run's predictor needs (`conformal.predictor`), so that a finished run
    ranks a new face as its training did.
    """
    # softmax o, and p-values by the predictor that the arrays hold
    arrays, features = source_arrays(config, sets, fitted.f_S)
    f = predictor.from_arrays(config.conformal, arrays)
    o = {k: arrays[f"o_{k}"] for k in CONDITIONED_SETS}
    p = {k: _p_values(f, o[k], features[k], watch) for k in CONDITIONED_SETS}
    # the condition c: label, softmax or p-values
    K, g, c = len(config.data.classes), config.gan, {}
    for k in o:
        labels = sets[k].x_label if g.condition == "label" else None
        c[k] = gan.condition(g.condition, labels, o[k], p[k], K, g.soft)
    if config.data.listening:  # G learns from S1 too, whose faces f_S knows
        device = next(fitted.f_S.parameters()).device
        o1, raw = _outputs(fitted.f_S, sets["S1"].x, device)
        whitened = predictor.whiten(arrays["features_centre"], arrays["features_scale"], raw)
        p1, labels = _p_values(f, o1, whitened, watch), sets["S1"].x_label
        c["S1"] = gan.condition(g.condition, labels, o1, p1, K, g.soft)
    # arrays of the faces for the Conformal page, and of f_T's predictor, calibrated on S2 as well
    arrays |= {f"p_{k}": v for k, v in p.items()}
    target, device = target_settings(config)[1], next(fitted.f_T.parameters()).device
    for k in ("S2", "S4"):
        y = image_tensor(sets[k].y, device)
        arrays[f"o_{target}_{k}"] = classifiers.softmax(fitted.f_T, y)
        arrays[f"label_{target}_{k}"] = sets[k].y_label
        arrays[f"subject_{target}_{k}"] = sets[k].y_subject
    files.write_arrays(r.directory / "outputs.npz", **arrays)
    return c


def source_arrays(
    config: Config, sets: dict[str, SampleSet], f_S: torch.nn.Module
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """f_S's outputs as arrays of outputs.npz, and the whitened features of CONDITIONED_SETS.

    The arrays are softmax, labels, subjects, and what `predictor.from_arrays` reads.
    """
    device = next(f_S.parameters()).device
    centre, scale = predictor.whitening(_outputs(f_S, sets["S1"].x, device)[1])
    arrays, features = {}, {}
    for k in CONDITIONED_SETS:
        arrays[f"o_{k}"], raw = _outputs(f_S, sets[k].x, device)
        features[k] = predictor.whiten(centre, scale, raw)
        arrays[f"subject_{k}"] = sets[k].x_subject
    for k in ("S2", "S4"):
        arrays[f"label_{k}"], arrays[f"features_{k}"] = sets[k].x_label, features[k]
    s, n = config.conformal, len(sets["S2"].x)
    fold = predictor.draw_folds(s.kind, n, s.r, seed_of(config, "balance"))
    arrays |= {"fold_S2": fold, "calibration": np.flatnonzero(fold > 0)}
    return arrays | {"features_centre": centre, "features_scale": scale}, features


def _outputs(
    f_S: torch.nn.Module, x: np.ndarray, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax (n, K) and features (n, D) of f_S for images (n, H, W)."""
    assert isinstance(f_S, networks.AnyClassifier)
    return classifiers.outputs(f_S, image_tensor(x, device))


def _p_values(
    f: Predictor, o: np.ndarray, features: np.ndarray, watch: Callable[..., None]
) -> np.ndarray:
    """`predictor.rank`'s p-values (n, K); full CP in parts, with progress."""
    if f.kind != "full":
        return predictor.rank(f, o, features)[0]
    parts = []
    for i in range(0, len(o), FACES_PER_REPORT):
        watch("full conformal prediction", i, len(o))
        part = slice(i, i + FACES_PER_REPORT)
        parts.append(predictor.rank(f, o[part], features[part])[0])
    return np.concatenate(parts)


def arrays_of_run(run: Run) -> dict[str, np.ndarray]:
    """A run's outputs.npz, with the features of a light head computed anew where it lacks them.

    That needs its corpora. Raises CorpusError where they are not prepared here, and UserError where
    they fall into other sets than the run's.
    """
    arrays = run.arrays()
    if all(name in arrays for name in predictor.HEAD_ARRAYS):
        return arrays
    sets = splits.build_sets(run.config)
    found, _ = source_arrays(run.config, sets, networks.load(run.model_path("f_S")))
    for name in ("subject_S2", "subject_S4", "label_S2", "label_S4"):
        if not np.array_equal(found[name], arrays.get(name, ())):
            fix = "train the run again on the corpora of this machine"
            raise UserError(f"the corpora here give {run.id} another {name}: {fix}")
    return found | arrays
