"""Finished runs of the grid `labels` with made-up answers, on a corpus that is not prepared."""

import dataclasses

from core import files
from core.config.presets import DEMO
from core.config.serialisation import run_name, to_dict
from core.config.settings import Config, replace
from core.evaluation import protocol
from core.evaluation.few_labels import rows
from core.runs.directory import Run
from tests.support.table_arrays import a_table

BASE = replace(DEMO, data={"demo_takes": 99})
RIGHT = {  # of ten clips of each person
    "S1": 0.2,
    "S1 + plain augmentation": 0.3,
    rows.PSEUDO: 0.4,
    rows.PSEUDO + rows.CONFIDENT: 0.5,
    rows.GENERATED: 0.5,
    rows.GENERATED + rows.CONFIDENT: 0.4,
    rows.BOTH: 0.5,
    rows.BOTH + rows.CONFIDENT: 0.7,
    rows.ALONE + rows.CONFIDENT: 0.1,
    rows.CEILING: 0.8,
}
FACTS = {
    "plan": dataclasses.asdict(rows.FewLabelsSettings()),
    "labelled": {"voices": 0, "a class": 0},
    "choice": {"share": 0.5, "right": 0.7, "right where chosen": 0.9},
    "privacy": {
        "spectrograms": {"attack": 0.5, "nearest": 1.0},
        "features": {"attack": 0.5, "nearest": 1.0},
    },
    "N test voices": 80,
}


def cells(folds: int = 1, seeds: int = 1) -> list[protocol.Cell]:
    return protocol.cells("labels", BASE, folds, seeds)


def write_run(folder, config: Config, right=RIGHT, subjects: int = 8) -> Run:
    """A run with its table of few labels; fold k tests the people s10k to s10k+7."""
    run = Run(folder / run_name(config, "made-up"))
    n = config.data.labels_per_class or 100
    run.directory.mkdir(parents=True)
    arrays = a_table(right, right, subjects, first=10 * config.data.fold)
    files.write_json(run.directory / "config.json", to_dict(config))
    files.write_json(run.directory / "results.json", {"chance": 1 / 6})
    labelled = {"voices": 6 * n, "a class": config.data.labels_per_class}
    files.write_json(run.directory / "labels.json", FACTS | {"labelled": labelled})
    files.write_arrays(run.directory / "labels.npz", **arrays)
    return run


def write_grid(folder, folds: int = 1) -> list[protocol.Cell]:
    """All runs: S1's best row gains 0.1 with each doubling of the labels; CP beats the others,
    and a flow both."""
    of = {5: 0.2, 10: 0.3, 20: 0.4, 40: 0.6, 0: 0.6}
    grid = cells(folds)
    for cell in grid:
        d, own = cell.config.data, dict(RIGHT)
        own["S1 + plain augmentation"] = of[d.labels_per_class]
        if cell.config.gan.condition != "cp":
            own[rows.GENERATED] = 0.4
        if cell.config.gan.generator == "flow":
            own[rows.GENERATED] = 0.6
        write_run(folder, cell.config, own)
    return grid
