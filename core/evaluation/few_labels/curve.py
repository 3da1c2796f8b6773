"""The label-efficiency curve: accuracy against labelled voices a class, without torch.

The unit is the test person: an accuracy is a mean over people, each averaged over the seeds that
test them, and its band redraws people. The summary is plain data, which the report prints, a file
keeps and the page shows.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.config.settings import Config
from core.evaluation import protocol, significance
from core.evaluation.few_labels import rows
from core.evaluation.protocol import CONDITION_NAMES, Cell
from core.evaluation.significance import STEP_RULES, TableArrays
from core.runs.directory import Run

FAMILIES = {  # lines of the curve -> rows of which S2 chooses
    "S1, best row without S3": rows.WITHOUT_S3,
    "S1 + generated": rows.GENERATED_ROWS,
    "S1 + pseudo-labelled S3": rows.PSEUDO_ROWS,
    "both": rows.BOTH_ROWS,
    "the method whole": rows.WHOLE,
    "ceiling: S1 + S3 with true labels": (rows.CEILING,),
}
BASE, MADE = "S1, best row without S3", "S1 + generated"
WITHOUT_GENERATED = (BASE, "S1 + pseudo-labelled S3", "ceiling: S1 + S3 with true labels")
HEADLINE_COUNT = protocol.LABEL_COUNTS[0]  # labelled voices a class of the headline tests
CONTESTS = (  # two generators, by what they are told, and which kind they are
    *(("CP", "classifier"), ("CP", "label"), ("CP", "none")),
    *(("CP, flow", "CP"), ("classifier, flow", "classifier"), ("CP, flow", "classifier, flow")),
)
REDRAWS = 2_000  # of the people, for the band of a number of labels
PARTS = {  # of a summary
    *("corpus", "preset", "labels", "classes", "chance", "command", "cells", "settings"),
    *("points", "worth", "conditions"),
}
Members = Sequence[tuple[Cell, Run]]


def summary(cells: Sequence[Cell], command: str, folder: Path | None = None) -> dict[str, Any]:
    """What the finished runs of a grid show, as plain data (see the module's functions).

    Raises UserError where no run has its table of few labels.
    """
    found = _with_tables(cells, folder or files.checkpoints_folder())
    if not found:
        raise files.UserError(f"no run of this grid has its table; train them with: {command}")
    config, done = cells[0].config, [c.config for of in found.values() for c, _ in of]
    points = {key: point_summary(of) for key, of in found.items()}
    tables = {key: _arrays(of) for key, of in found.items()}
    return {
        "corpus": config.data.voices,
        "preset": config.name.removesuffix("-labels"),
        "labels": protocol.labels_mode(config),
        "classes": list(config.data.classes),
        "chance": 1 / len(config.data.classes),
        "command": command,
        "cells": {"done": sum(map(len, found.values())), "all": len(cells)},
        "settings": f"{settings_text(done)}; {plan_text(found)}",
        "points": [points[key] for key in found],
        "worth": {
            c: {rule: label_worth(tables, points, c, rule) for rule in STEP_RULES}
            for n, c in found
            if n == HEADLINE_COUNT
        },
        "conditions": _condition_gains(tables),
    }


def told(config: Config) -> str:
    """What a run's generator is told, and the generator where it is our flow.

    >>> told(Config())
    'CP'
    """
    flow = ", flow" if config.gan.generator == "flow" else ""
    return CONDITION_NAMES[config.gan.condition] + flow


def settings_text(configs: Sequence[Config]) -> str:
    """Generators, their steps and the classifiers' of a grid's runs, in words."""
    g, t = configs[0].gan, configs[0].f_t
    kinds = dict.fromkeys(protocol.GENERATOR_NAMES[c.gan.generator] for c in configs)
    s = "s" * (len(kinds) > 1)
    return (
        f"{' and '.join(kinds)} generator{s}, {g.steps} steps; classifiers of rows "
        f"{'·'.join(map(str, t.channels))} channels, {t.steps} steps at equal steps, up to twice "
        "as many at their own best"
    )


def plan_text(found: Mapping[Any, Members]) -> str:
    """What the tables of a grid were asked for, in words; of the first, as all are alike."""
    plan = next(iter(found.values()))[0][1].json(rows.STEM)["plan"]
    return (
        f"{plan['per_face']} generated voices a face, confidence above {plan['confidence']:g}, "
        f"S1 at least {100 * plan['own_share']:.0f} % of a row's batches"
    )


def _with_tables(cells: Sequence[Cell], folder: Path) -> dict[tuple[int, str], list]:
    """(labelled voices a class, `told`) -> the cells and runs that have labels.npz."""
    found: dict[tuple[int, str], list[tuple[Cell, Run]]] = {}
    for cell, run in protocol.locate_runs(cells, folder):
        if run and run.json(rows.STEM) and (run.directory / f"{rows.STEM}.npz").exists():
            key = cell.config.data.labels_per_class, told(cell.config)
            found.setdefault(key, []).append((cell, run))
    return found


def _arrays(of: Members) -> list[TableArrays]:
    return [run.arrays(rows.STEM) for _, run in of]


# ------------------------------------------------------------------ one point of the curve


def point_summary(of: Members) -> dict[str, Any]:
    """One number of labels under one condition: accuracies, gains, CP's choice, privacy."""
    tables, texts, config = _arrays(of), [r.json(rows.STEM) for _, r in of], of[0][0].config
    people = {str(s) for t in tables for s in t["subject"][t["counted"].astype(bool)]}
    gains = [
        {k: v for k, v in dataclasses.asdict(g).items() if k != "people"}
        for g in significance.gains(tables, rows.COMPARISONS)
    ]
    names = [row.name for row in rows.ROWS if any(row.name in t["rows"] for t in tables)]
    lines = {n: (n,) for n in names} | FAMILIES
    return {
        "a class": config.data.labels_per_class,
        "condition": told(config),
        "labelled": float(np.mean([t["labelled"]["voices"] for t in texts])),
        "runs": len(of),
        "folds": len({c.config.data.fold for c, _ in of}),
        "seeds": len({c.config.seed for c, _ in of}),
        "N": sorted({t["N test voices"] for t in texts}),
        "people": len(people),
        "lines": {
            name: {rule: accuracy(tables, family, rule) for rule in STEP_RULES}
            for name, family in lines.items()
        },
        "gains": gains,
        "choice": _mean_of([t["choice"] for t in texts]),
        "privacy": {
            k: _mean_of([t["privacy"][k] for t in texts]) for k in ("spectrograms", "features")
        },
    }


def _mean_of(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over the runs that have it."""
    names = dict.fromkeys(k for one in each for k in one)
    return {k: float(np.mean([one[k] for one in each if k in one])) for k in names}


def people_accuracies(
    tables: Sequence[TableArrays], family: significance.RowFamily, rule: str
) -> dict[str, float]:
    """Test person -> accuracy of the row that S2 chooses of a family, averaged over seeds."""
    of: dict[str, list[float]] = {}
    for t in tables:
        row = significance.choose_row(t, family, rule)
        if row is None:
            continue
        counted, at = t["counted"].astype(bool), t["rows"].tolist().index(row)
        predicted = t["predicted"][at, STEP_RULES.index(rule)][:, counted]
        right = (predicted == t["label"][counted]).mean(axis=0)
        for name in np.unique(t["subject"][counted]):
            of.setdefault(str(name), []).append(float(right[t["subject"][counted] == name].mean()))
    return {name: float(np.mean(v)) for name, v in sorted(of.items())}


def accuracy(
    tables: Sequence[TableArrays], family: significance.RowFamily, rule: str
) -> dict[str, Any]:
    """Mean over people, 95 % band over redrawn people, sd over runs; {} if no run has the rows."""
    of = people_accuracies(tables, family, rule)
    if not of:
        return {}
    each = [float(np.mean([*people_accuracies([t], family, rule).values()])) for t in tables]
    sd = significance.mean_and_sd(each)[1]
    values = np.array(list(of.values()))
    found: dict[str, Any] = {"mean": float(values.mean()), "sd": None if math.isnan(sd) else sd}
    if len(values) >= significance.MIN_INTERVAL_SUBJECTS:
        found["band"] = list(significance.bootstrap_interval(values))
    return found


# ------------------------------------------------------------------ what generation is worth


def label_worth(
    tables: Mapping[tuple[int, str], Sequence[TableArrays]],
    points: Mapping[tuple[int, str], dict],
    condition: str,
    rule: str,
) -> dict[str, Any]:
    """Labelled voices a class that S1 alone needs to match S1 + generated at HEADLINE_COUNT.

    Generated voices are a condition's; S1's rows are those of any condition, as they know none.
    Straight lines between the measured counts, over the logarithm of the count, of the people that
    all counts test. "needs" is that number, or None where S1 never gets there, with the highest
    count in "beyond"; "band" redraws the people. {} without at least two counts.
    """
    keys = {key[0]: key for key in tables}
    keys |= {n: (n, c) for n, c in tables if c == condition}
    if len(keys) < 2:
        return {}
    first = points[HEADLINE_COUNT, condition]
    classes = max(1, round(first["labelled"] / HEADLINE_COUNT))  # labels are balanced
    count = {n: points[key]["labelled"] / classes for n, key in keys.items()}
    order = sorted(keys, key=count.__getitem__)
    base = {n: people_accuracies(tables[keys[n]], FAMILIES[BASE], rule) for n in order}
    made = people_accuracies(tables[HEADLINE_COUNT, condition], FAMILIES[MADE], rule)
    shared = sorted(set(made).intersection(*base.values()))
    if not shared:
        return {}
    x = np.log([count[n] for n in order])
    y = np.array([[base[n][name] for name in shared] for n in order])  # (counts, people)
    target = np.array([made[name] for name in shared])
    found = _crossing(x, y.mean(axis=1), target.mean())
    rng, draws = np.random.default_rng(0), []
    for _ in range(REDRAWS):
        at = rng.integers(0, len(shared), len(shared))
        draws.append(_crossing(x, y[:, at].mean(axis=1), target[at].mean()))
    low, high = np.quantile(draws, (0.025, 0.975), method="nearest")
    highest = float(np.exp(x[-1]))
    finite = lambda v: float(v) if math.isfinite(v) else None  # noqa: E731
    out = {"labels": HEADLINE_COUNT, "needs": finite(found), "beyond": highest}
    return out | {"people": len(shared), "band": [finite(low), finite(high)]}


def _crossing(x: np.ndarray, y: np.ndarray, target: float) -> float:
    """exp of the first x at which lines through (x, y) reach the target; infinity if none does."""
    if y[0] >= target:
        return float(np.exp(x[0]))
    for i in range(1, len(x)):
        if y[i] >= target:
            share = (target - y[i - 1]) / (y[i] - y[i - 1])
            return float(np.exp(x[i - 1] + share * (x[i] - x[i - 1])))
    return math.inf


# ------------------------------------------------------------------ conditions, paired


def _condition_gains(tables: Mapping[tuple[int, str], Sequence[TableArrays]]) -> list[dict]:
    """CONTESTS at HEADLINE_COUNT, paired by person, in CONDITION_ROWS."""
    out = []
    for one, other in CONTESTS:
        ours, theirs = (tables.get((HEADLINE_COUNT, name), ()) for name in (one, other))
        for g in significance.method_gains(ours, theirs, rows.CONDITION_ROWS):
            line = {k: v for k, v in dataclasses.asdict(g).items() if k != "people"}
            out.append({"of": one, "against": other} | line)
    return out


# ------------------------------------------------------------------ files


def results_folder() -> Path:
    """Folder of the summaries, one file per preset; the project's own are shipped in it."""
    return files.checkpoints_folder() / "labels"


def save(found: Mapping[str, Any]) -> Path:
    """Write a summary; returns its path."""
    path = results_folder() / f"{found['preset']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, found)
    return path


def load_all() -> dict[str, dict[str, Any]]:
    """Preset -> its summary. Raises UserError, which names the file, for one that is damaged."""
    found = {}
    for path in sorted(results_folder().glob("*.json")):
        try:
            one = json.loads(path.read_text(encoding="utf-8"))
            if lacking := PARTS - set(one):
                raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
            if not all("of" in g for g in one["conditions"]):
                raise ValueError("it is of an earlier form")
            found[str(one["preset"])] = one
        except (ValueError, TypeError) as e:
            fix = "remove it and make it again with: python -m core report --grid labels"
            raise files.UserError(f"{path} cannot be read ({e}); {fix}") from e
    return found
