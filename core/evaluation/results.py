"""What the results and the table of a run say: one rule for every page, card and command. No torch.

Contents of results.json and table.json as plain dicts. Accuracies are shares in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.data.splits import UNKNOWN_SUBJECT
from core.evaluation import protocol, significance

Results = Mapping[str, Any]  # results.json; {} for a run that is not finished
Table = Mapping[str, Any]  # table.json; {} for a run without one
Curves = Mapping[str, tuple[list[int], list[float]]]  # name -> steps, values; `store.load_curves`

# Rules by which a finished run is measured. Version 2: the floors compare S4's voices with those of
# S3, which the scorer has not met (in 1: with S1's and S2's, on which it was trained).
EVALUATION_VERSION = 2
FLOORS = ("FID real", "KID real", "coverage real")  # figures of two sets of real samples
WITHDRAWN = "measured under an earlier rule: withdrawn"
ABSENT = "–"  # shown in place of a figure that could not be measured


def is_current(results: Results) -> bool:
    """Whether results (or a table) were measured under the present rules."""
    return results.get("evaluation", 1) == EVALUATION_VERSION


def has_withdrawn_floors(results: Results) -> bool:
    """Whether the results hold floors that were measured under an earlier rule."""
    return not is_current(results) and any(k in results.get("quality", {}) for k in FLOORS)


# ------------------------------------------------------------------ quality of samples


def quality(results: Results, name: str) -> float:
    """FID, KID, IS, coverage or another figure of the samples; NaN if absent or withdrawn."""
    if name in FLOORS and not is_current(results):
        return math.nan
    return float(results.get("quality", {}).get(name, math.nan))


def quality_text(results: Results, name: str, digits: int = 2, scale: float = 1.0) -> str:
    """`quality` as text: "–" for an absent figure, "withdrawn" for a floor of an earlier rule."""
    value = quality(results, name)
    if math.isnan(value):
        is_withdrawn = name in FLOORS and name in results.get("quality", {})
        return "withdrawn" if is_withdrawn and has_withdrawn_floors(results) else ABSENT
    return f"{scale * value:.{digits}f}"


def withdrawal_note(results: Results) -> str:
    """Sentence on withdrawn floors and how they are measured anew; "" for current results."""
    if not has_withdrawn_floors(results):
        return ""
    return (
        f"The floors (real against real) were {WITHDRAWN}. Where the corpus is prepared, "
        "`python -m core evaluate RUN --again` measures them anew without training."
    )


# ------------------------------------------------------------------ accuracy of a row


@dataclass(frozen=True)
class RowAccuracy:
    """Accuracy of a classifier trained on one row's samples, on S4's real ones."""

    mean: float  # over trainings; NaN if the row is missing
    sd: float  # over trainings (n - 1); NaN for one
    trainings: int
    samples: int | None  # S4's real samples, balanced by class
    people: int  # to whom they belong; 0 if unknown

    @property
    def text(self) -> str:
        """Mean in %, its sd over trainings, and their number.

        >>> RowAccuracy(0.411, 0.063, 3, 112, 4).text
        '41.1 ± 6.3 % (3 trainings)'
        >>> RowAccuracy(0.321, math.nan, 1, 112, 4).text
        '32.1 % (one training)'
        """
        if math.isnan(self.mean):
            return ABSENT
        spread = "" if math.isnan(self.sd) else f" ± {100 * self.sd:.1f}"
        count = "one training" if self.trainings == 1 else f"{self.trainings} trainings"
        return f"{100 * self.mean:.1f}{spread} % ({count})"


def target_of(results: Results) -> str:
    """What G makes and the rows are tested on: "voice" or "face"."""
    return results.get("direction", "face-voice").split("-")[1]


def row_accuracy(results: Results, table: Table, row: str, rule: str = "equal") -> RowAccuracy:
    """The accuracy of a row: the mean over the table's trainings, else the results' one training.

    `rule` is one of `significance.STEP_RULES`; without a table only "equal" is known.
    """
    values = _accuracies(results, table, row, rule)
    mean, sd = significance.mean_and_sd(values) if values else (math.nan, math.nan)
    samples = results.get(f"N test {target_of(results)}s")
    return RowAccuracy(mean, sd, len(values), samples, len(s4_people(results, table)))


def _accuracies(results: Results, table: Table, row: str, rule: str) -> list[float]:
    if row in table.get("rows", {}):
        return [float(v) for v in table["rows"][row][rule]["accuracy"]]
    one = results.get("augmentation", {}).get(row) if rule == "equal" else None
    return [float(one["accuracy"])] if one else []


def row_names(results: Results, table: Table) -> list[str]:
    """The rows that a run has, in the order of `protocol.TABLE_ROWS`."""
    known = {*results.get("augmentation", {}), *table.get("rows", {})}
    order = [r.name for r in protocol.TABLE_ROWS if r.name in known]
    return order + sorted(known - set(order))


def row_size(results: Results, table: Table, row: str) -> int:
    """Number of samples that the row's classifiers are trained on."""
    rows = table["rows"] if row in table.get("rows", {}) else results["augmentation"]
    return int(rows[row]["N train"])


def row_confusion(
    results: Results, table: Table, row: str, rule: str = "equal"
) -> tuple[np.ndarray, int] | None:
    """Counts (K, K) of a row, summed over its trainings, and their number; None if missing.

    The table's trainings, else the results' one, as in `row_accuracy`.
    """
    if row in table.get("rows", {}):
        t = table["rows"][row][rule]
        return np.array(t["confusion"]), len(t["accuracy"])
    one = results.get("augmentation", {}).get(row) if rule == "equal" else None
    return (np.array(one["confusion"]), 1) if one else None


def s4_people(results: Results, table: Table) -> list[str]:
    """S4's subjects; [] where the corpus does not know its people."""
    names = table.get("test subjects") or results.get("subjects", {}).get("S4", [])
    return [n for n in names if not UNKNOWN_SUBJECT.fullmatch(n)]


def s4_text(results: Results, table: Table) -> str:
    """N and the number of people of S4: "112 voices of 4 people"."""
    n, people = results.get(f"N test {target_of(results)}s"), len(s4_people(results, table))
    of = f" of {people} people" if people else ", people unknown"
    return f"{n} {target_of(results)}s{of}"


def noise_text(results: Results, table: Table) -> str:
    """Sentence on what a difference between two accuracies of a run is worth."""
    a = row_accuracy(results, table, "S1")
    spread = "one training of each row, so their spread over trainings is not known"
    if not math.isnan(a.sd):
        spread = f"trained {a.trainings} times, S1 alone moves by ± {100 * a.sd:.1f} points (sd)"
    return (
        f"Tested on {s4_text(results, table)}; {spread}. A difference between two rows counts "
        "only if it holds over people: *Augmentation* on the page Evaluate tests that."
    )


def rules_note(found: Mapping[str, tuple[Results, Table]]) -> str:
    """Sentences on the rules behind runs' figures, {id: (results, table)}; "" if they are one."""
    notes = []
    earlier = [run for run, (r, _) in found.items() if has_withdrawn_floors(r)]
    if earlier:
        more = f" and {len(earlier) - 3} more" if len(earlier) > 3 else ""
        notes.append(f"Floors of {', '.join(earlier[:3])}{more}: {WITHDRAWN}.")
    counts = {row_accuracy(r, t, "S1").trainings for r, t in found.values()} - {0}
    if len(counts) > 1:
        notes.append(
            "Accuracies are means over the trainings of a run's augmentation table, and of one "
            "training where it has none."
        )
    return " ".join(notes)


# ------------------------------------------------------------------ reference lines of curves


def reference_label(curves: Curves, samples: str = "voices") -> str:
    """Whose samples the dashed reference lines of a run's curves are of, for a legend."""
    return f"real {samples} of {'S3' if has_unknown_reference(curves) else 'S1, S2'}"


def reference_text(curves: Curves) -> str:
    """Sentence on the dashed reference lines of a run's curves."""
    if has_unknown_reference(curves):
        return (
            "The dashed lines are S3's real ones in the place of generated ones: of people whom "
            "the scorer has not met, as it has not met what G makes."
        )
    return (
        "The dashed lines were measured under an earlier rule, with real ones of S1 and S2, which "
        "the scorer was trained on: too good to be reached. Figures of S4 are free of that."
    )


def has_unknown_reference(curves: Curves) -> bool:
    """Whether the lines are of people whom the scorer has not met, as the present rules ask."""
    return curves.get("evaluation", ([], []))[1] == [EVALUATION_VERSION]
