"""Augmentation tables made up from given accuracies."""

import numpy as np


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
