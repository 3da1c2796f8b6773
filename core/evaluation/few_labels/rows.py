"""Rows and comparisons of the experiment with few labels. No torch.

S1 has a few labelled voices, S3 has clips without labels whose faces f_S knows. Conformal
prediction may choose S3's clips: those whose confidence is above a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.evaluation.protocol import PLAIN_SUFFIX, TableRow
from core.evaluation.significance import Comparisons, RowFamily

STEM = "labels"  # of labels.json and labels.npz in a run
CONFIDENT = ", confident"  # of rows for which conformal prediction chose S3's clips
PSEUDO, GENERATED = "S1 + pseudo-labelled S3", "S1 + generated"
BOTH, ALONE = "S1 + pseudo-labelled S3 + generated", "generated only"
CEILING = "S1 + S3"
ROWS = (
    TableRow("S1", ("S1",)),
    TableRow("S1" + PLAIN_SUFFIX, ("S1",), True),
    TableRow(PSEUDO, ("S1", "pseudo")),
    TableRow(PSEUDO + CONFIDENT, ("S1", "pseudo confident")),
    TableRow(GENERATED, ("S1", "generated")),
    TableRow(GENERATED + CONFIDENT, ("S1", "generated confident")),
    TableRow(BOTH, ("S1", "pseudo", "generated")),
    TableRow(BOTH + CONFIDENT, ("S1", "pseudo confident", "generated confident")),
    TableRow(ALONE + CONFIDENT, ("generated confident",)),
    TableRow(CEILING, ("S1", "S3")),
)


def _with_confident(name: str) -> RowFamily:
    return (name, name + CONFIDENT)


WITHOUT_S3: RowFamily = ("S1", "S1" + PLAIN_SUFFIX)
GENERATED_ROWS, PSEUDO_ROWS, BOTH_ROWS = map(_with_confident, (GENERATED, PSEUDO, BOTH))
WHOLE: RowFamily = (BOTH + CONFIDENT,)
HEADLINES = {
    "a'": (GENERATED_ROWS, WITHOUT_S3),
    "b'": (BOTH_ROWS, PSEUDO_ROWS),
    "whole": (WHOLE, WITHOUT_S3),
}
SECONDARY = {
    "pseudo-labels": (PSEUDO_ROWS, WITHOUT_S3),
    "generated over pseudo-labels": (GENERATED_ROWS, PSEUDO_ROWS),
    "CP chooses pseudo-labels": ((PSEUDO + CONFIDENT,), (PSEUDO,)),
    "CP chooses generated": ((GENERATED + CONFIDENT,), (GENERATED,)),
    "generated only": ((ALONE + CONFIDENT,), WITHOUT_S3),
    "plain augmentation": (("S1" + PLAIN_SUFFIX,), ("S1",)),
    "ceiling": ((CEILING,), WITHOUT_S3),
}
COMPARISONS = Comparisons(HEADLINES, SECONDARY, ((CEILING,), WITHOUT_S3), ("a'", "whole"))
HEADLINE_TEXTS = {
    "a'": "generated voices over S1's best row without S3",
    "b'": "pseudo-labelled S3 and generated voices over pseudo-labelled S3",
    "whole": "the method whole (CP chooses; both) over S1's best row without S3",
}
# what two conditions of the generator are compared in
CONDITION_ROWS = (GENERATED, GENERATED + CONFIDENT, BOTH + CONFIDENT, ALONE + CONFIDENT)


@dataclass(frozen=True)
class FewLabelsSettings:
    """Trainings of each row, and what S3 gives them; `augmentation.TableSettings` and more."""

    seeds: int = 1
    stretch: int = 2
    looks: int = 4
    per_face: int = 4  # generated voices for each face of S3
    confidence: float = 0.9  # above which conformal prediction chooses a clip of S3
    own_share: float = 0.5  # of S1's labelled voices in the batches of a row with S3
    stem: ClassVar[str] = STEM
