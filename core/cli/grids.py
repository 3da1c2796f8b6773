"""Options of the commands of a grid of runs, `sweep` and `report`, and the cells that they name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from tyro.conf import arg

from core.cli.options import Between, MethodOption, placeholder
from core.config.presets import Method, PresetName, preset_config
from core.config.serialisation import apply_changes
from core.config.settings import Condition, Config, replace
from core.evaluation import protocol
from core.files import UserError

Presets = tuple[PresetName, ...]


@dataclass(frozen=True)
class StartOptions:
    """The options that decide the defaults of all others."""

    preset: Presets = ("demo",)
    method: Method | None = None


@dataclass(frozen=True)
class GridOptions:
    """Which runs a sweep trains and a report is about."""

    grid: Literal["quick", "paper", "studio", "labels"] = "quick"
    """quick: a few tiny runs; paper: every case of the paper; studio: a preset, folds × seeds;
    labels: S1 with few labelled voices, more of them, and each condition."""
    preset: Annotated[tuple[PresetName, ...], placeholder("PRESET")] = ("demo",)
    """Where the settings of the cases start from; several, such as paper ravdess, make one report
    (stage, smoke, demo, fer2013-ravdess, listening, fine, paper, ravdess, studio)."""
    method: MethodOption = None
    cells: Annotated[tuple[str, ...], placeholder("NAME", "all of the grid")] = ()
    """Cases by name, such as "EncDec · CP"; an unknown name lists the known ones."""
    condition: Annotated[
        Condition | None, placeholder("{label,classifier,cp,none}", "the preset's")
    ] = None
    """studio: the condition of the generator."""
    folds: Annotated[int | None, placeholder("N", "5; quick: 1"), Between(1, 20)] = None
    """Number of folds; each tests other subjects."""
    seeds: Annotated[
        int | None, placeholder("N", "studio, labels: 3; else 1"), Between(1, 1_000)
    ] = None
    """Trainings of each fold."""
    f_s_corpus: Annotated[str, placeholder("CORPUS", "none")] = ""
    """paper: a corpus, such as fer2013, whose faces train f_S in one further case (§4.7)."""
    config: Annotated[Config, arg(name="")] = field(default_factory=Config)


def starting_config(args: Sequence[str], prog: str) -> tuple[Presets, Config]:
    """Presets that `--preset` in `args` names, and the first one's settings under `--method`."""
    start, _ = tyro.cli(
        StartOptions, args=args, prog=prog, return_unknown_args=True, add_help=False
    )
    return start.preset, preset_config(start.preset[0], start.method)


def grid_cells(g: GridOptions) -> list[protocol.Cell]:
    """The cells that a grid's options name, one preset after the other.

    What the options change of the first preset's settings is changed in the others as well. Raises
    UserError for a condition outside the grid studio.
    """
    if g.condition and g.grid != "studio":
        raise UserError(
            "--condition belongs to --grid studio; the other grids have every condition"
        )
    if len(set(g.preset)) < len(g.preset):
        raise UserError(f"--preset {' '.join(g.preset)} names a preset twice; name each once")
    condition = {"condition": g.condition} if g.condition else {}
    start, bases = preset_config(g.preset[0], g.method), list[Config]()
    for name in g.preset:
        base = apply_changes(preset_config(name, g.method), start, g.config)
        bases.append(replace(base, gan=condition))
    if g.cells:
        known = [protocol.grid_cases(g.grid, b, g.f_s_corpus) for b in bases]
        if g.grid == "quick":
            known = [protocol.cases(b, g.f_s_corpus) for b in bases]
        protocol.check_case_names(g.cells, [c for of in known for c in of])
    sizes = g.folds, g.seeds, g.f_s_corpus, g.cells
    return [c for base in bases for c in protocol.cells(g.grid, base, *sizes)]


def of_method(g: GridOptions, method: Method) -> GridOptions:
    """The same grid under another method, with the same changes of the first preset's settings."""
    own, other = (preset_config(g.preset[0], m) for m in (g.method, method))
    return dataclasses.replace(g, method=method, config=apply_changes(other, own, g.config))


def command_line(g: GridOptions, name: str) -> str:
    """The command `name`, sweep or report, for this grid."""
    parts = [f"python -m core {name} --grid {g.grid} --preset {' '.join(g.preset)}"]
    for option in ("method", "condition", "folds", "seeds", "f_s_corpus"):
        value = getattr(g, option)
        if value is not None and value != "":
            parts.append(f"--{option.replace('_', '-')} {value}")
    if g.cells:
        parts.append("--cells " + " ".join(f'"{case}"' for case in g.cells))
    start = preset_config(g.preset[0], g.method)
    return " ".join([*parts, *protocol.changed_options(g.config, start)])
