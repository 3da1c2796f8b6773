"""Augmentation tables made up from given accuracies."""

import numpy as np

from core import files
from core.config.settings import CREMA_EMOTIONS
from core.evaluation import results, significance
from core.runs.directory import Run


def a_table(accuracy, s2, subjects=8, clips=10, first=0):
    """A table.npz in which the rows get the given share of each subject's clips right, the same in
    both rules and in two seeds.
    """
    n, names = subjects * clips, list(accuracy)
    label = np.zeros(n, np.int64)
    wrong = (np.arange(n) % clips)[None] >= (
        np.array([accuracy[k] for k in names]) * clips
    ).round()[:, None]
    predicted = np.broadcast_to(wrong[:, None, None], (len(names), 2, 2, n)).astype(np.int8)
    curves = np.stack([np.broadcast_to([0.0, s2[k], 0.0], (2, 3)) for k in names])
    subject = np.array([f"s{first + i // clips}" for i in range(n)])
    arrays = {
        "rows": np.array(names),
        "predicted": predicted,
        "S2": curves,
        "marks": np.array([1, 2, 3]),
        "equal": np.array(2),
    }
    return arrays | {
        "label": label,
        "subject": subject,
        "row": np.arange(n),
        "counted": np.ones(n, bool),
    }


RIGHT = {
    "S1": 0.3,
    "S1 oversampled": 0.6,
    "S1 + plain augmentation": 0.4,
    "S1 + pseudo-labelled S3": 0.4,
    "S1 + generated": 0.5,
    "S1 + generated + plain augmentation": 0.1,
    "S1 + S3": 0.8,
    "S1 + S3 + plain augmentation": 0.7,
    "S1 + S3 + generated": 0.8,
    "S1 + S3 + generated + plain augmentation": 0.8,
    "generated only": 0.2,
}

ON_S2 = dict(RIGHT) | {"S1 oversampled": 0.1}  # S4 would choose the oversampled row, S2 does not


def write_table(run: Run, arrays: dict | None = None) -> dict:
    """An augmentation table as `core.evaluation.augmentation` writes it, of made-up answers."""
    arrays = arrays or a_table(RIGHT, ON_S2)
    n, counted = arrays["predicted"].shape[-1], arrays["counted"]
    rows = {}
    for i, name in enumerate(arrays["rows"]):
        share = (arrays["predicted"][i] == arrays["label"])[..., counted].mean(
            axis=-1
        )  # (rules, seeds)
        rows[str(name)] = {"N train": 10} | {
            rule: {
                "accuracy": share[k].tolist(),
                "steps": [2, 2 + k],
                "S2": [0.5, 0.5],
                "confusion": (np.eye(6) * n).tolist(),
            }
            for k, rule in enumerate(significance.STEP_RULES)
        }
    table = {
        "evaluation": results.EVALUATION_VERSION,
        "plan": {"seeds": 2, "stretch": 3, "looks": 4},
        "chance": 1 / 6,
        "N test voices": n,
        "left out": {},
        "rows": rows,
    }
    table |= {
        "test subjects": sorted(set(map(str, arrays["subject"]))),
        "labels": "strict",
        "classes": list(CREMA_EMOTIONS),
    }
    files.write_arrays(run.directory / "table.npz", **arrays)
    files.write_json(run.directory / "table.json", table)
    return table
