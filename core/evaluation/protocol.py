"""§4.3-4.7: the paper's cases as changes of settings, grids, commands, augmentation rows.

Plain data, without torch. `identify_runs` and `locate_runs` alone read files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.config.presets import PRESETS, Method, with_method
from core.config.serialisation import run_name, to_dict
from core.config.settings import Config, DataSettings, fold_count, replace
from core.data import prepared_corpora
from core.data.corpora import CorpusError
from core.files import UserError
from core.paper.published import CONDITIONS, PUBLISHED_TABLE_1
from core.runs.directory import Run

Grid = Literal["quick", "paper", "studio", "labels"]
# default numbers of folds and seeds
GRID_SIZES: dict[Grid, tuple[int, int]] = {
    **{"quick": (1, 1), "paper": (5, 1), "studio": (5, 3), "labels": (5, 3)}
}
# the paper's names of the conditions and generators; the last two generators are ours, and the
# flow, which is no GAN, is no case of the paper's grid
CONDITION_NAMES = {"label": "label", "classifier": "classifier", "cp": "CP", "none": "none"}
GENERATOR_NAMES = {
    **{"encdec": "EncDec", "unet": "U-Net", "conv": "convolutional"},
    "flow": "flow (ours, no GAN)",
}
GENERATOR_SECTIONS = {"encdec": "§4.3, Table 2", "unet": "§4.4, Table 1", "conv": "ours"}


# ------------------------------------------------------------------ the cases


def corpora_text(d: DataSettings) -> str:
    """A run's corpora: one name, or that of the faces and that of the voices.

    >>> corpora_text(DataSettings(faces="fer2013", voices="ravdess"))
    'fer2013 × ravdess'
    """
    return d.voices if d.faces == d.voices else f"{d.faces} × {d.voices}"


@dataclass(frozen=True)
class Cell:
    """One run of a grid. Every run holds §4.3's baselines: the row S1 (voice) and f_S (face)."""

    name: str  # unique in its grid without fold and seed: "EncDec without L1 · CP"
    section: str  # of the paper, or "ours"
    config: Config

    @property
    def title(self) -> str:
        return f"{self.name} · fold {self.config.data.fold} · seed {self.config.seed}"

    @property
    def corpus(self) -> str:
        return corpora_text(self.config.data)


REVERSE_CASE = "voice → face · label"
JOINT_Q_CASE = "Q learns from S3's labels · CP"  # mode `paper`; its losses are Fig. 10
OTHER_CORPORA = {"crema-d": "ravdess", "ravdess": "crema-d"}  # §4.7's corpora of f_S
F_S_CORPUS_HINT = (
    "f_S of another corpus (§4.7): prepare one with faces of the same emotions "
    "and add --f-s-corpus NAME (make: F_S=NAME)"
)


def cases(base: Config, f_s_corpus: str = "") -> list[Cell]:
    """Every case of the paper on the settings of `base`; two cases may be the same run.

    Table 1 crosses the generators with the conditions; the other cases change one setting of the
    condition CP. `f_s_corpus` names a corpus whose faces train f_S in one more case (§4.7);
    F_S_CORPUS_HINT tells a user how to add it. The paper's two corpora have each other.
    """
    found = []

    def case(name: str, section: str, condition: str = "cp", gan: dict | None = None, **changes):
        changed = replace(base, gan=(gan or {}) | {"condition": condition}, **changes)
        found.append(Cell(name, section, changed))

    table_conditions = [(c, CONDITION_NAMES[c]) for c in ("label", "classifier", "cp")]
    for generator, section in GENERATOR_SECTIONS.items():
        called = GENERATOR_NAMES[generator]
        for c, named in table_conditions:
            case(f"{called} · {named}", section, c, {"generator": generator})
    for c, named in table_conditions:
        name, section = f"EncDec without L1 · {named}", "§4.4, Table 1"
        case(name, section, c, {"generator": "encdec", "l1": 0.0})
    for generator in ("encdec", "unet"):
        for c, named in table_conditions:
            name = f"{GENERATOR_NAMES[generator]} without source · {named}"
            case(name, "§4.4", c, {"generator": generator, "use_source": False})
    for columns in (28, 56, 112):
        case(f"{columns}×{base.logmel.bands} · CP", "§4.3", logmel={"columns": columns})
    for share in (1.0, 0.5, 0.2):
        for what, key in (("target data", "g_fraction"), ("classifier's voices", "clf_fraction")):
            case(f"{share:.0%} of the {what} · CP", "§4.6", data={key: share})
    kinds = {"inductive": "inductive CP", "head": "inductive CP of a light head"}
    kinds |= {"cross": "cross-conformal CP", "full": "full CP"}
    for kind, called in kinds.items():
        case(called, "§4.4", conformal={"kind": kind})
    for r in (1.0, 0.5, 0.25):
        case(f"{r:.0%} of S2 calibrates · CP", "§3.1", conformal={"r": r})
    for c, named in table_conditions[1:]:
        unread = {"q_training": "frozen", "q_labels": "condition"}
        case(f"S3's labels unread · {named}", "§3, mode strict", c, unread)
        read = {"q_training": "joint", "q_labels": "true"}
        case(f"Q learns from S3's labels · {named}", "§3, mode paper", c, read)
    case("no condition", "§4.7", "none")
    for other in dict.fromkeys((f_s_corpus, OTHER_CORPORA.get(base.data.faces, ""))):
        if other:
            case(f"f_S of {other} · CP", "§4.7", data={"f_s_corpus": other})
    for c, named in table_conditions:
        case(f"voice → face · {named}", "§4.5, Fig. 7b", c, {"direction": "voice-face"})
    return found


def quick_config(base: Config) -> Config:
    """`base` with the fewest steps and smallest networks: seconds per run, meaningless figures."""
    return replace(
        base,
        name="quick",
        data={"demo_takes": 1},
        f_s={"steps": 8, "width": "compact"},
        f_t={"steps": 8, "width": "compact", "channels": (4, 8), "batch": 16},
        gan={"steps": 4, "width": "compact", "batch": 16, "z": 8},
        evaluate={"every": 2},
    )


LABEL_COUNTS = (10, 5, 20, 40, 0)  # labelled voices a class, the headline's first; 0: all


def few_labels_config(base: Config) -> Config:
    """`base` in the sizes of the grid `labels`: 150 runs, for which small networks must do.

    Q of few labels is weak, so it learns from what f_S says of S3 as well. An f_S that averages its
    weights keeps its steps: cut short, its average is still that of its first weights.
    """
    g, f_s_steps = base.gan, base.f_s.steps if base.f_s.average else min(base.f_s.steps, 300)
    return replace(
        base,
        name=f"{base.name}-labels",
        f_s={"steps": f_s_steps},
        f_t={"steps": min(base.f_t.steps, 150), "channels": (8, 16, 32)},
        gan={"steps": min(g.steps, 600), "batch": min(g.batch, 32), "q_learns_from": "S1 and S3"},
        evaluate={"every": 200, "rows": ("S1",)},
    )


def few_labels_cases(base: Config) -> list[Cell]:
    """The label-efficiency curve of CP; at its first count the other conditions, and our flow."""
    small, out, own = few_labels_config(base), [], base.gan.generator
    headline = [(c, own) for c in ("cp", "classifier", "label", "none")]
    headline += [(c, "flow") for c in ("cp", "classifier") if own != "flow"]
    for n in LABEL_COUNTS:
        for c, generator in headline if n == LABEL_COUNTS[0] else headline[:1]:
            game = {"condition": c, "generator": generator}
            config = replace(small, data={"labels_per_class": n}, gan=game)
            name = f"{f'{n} a class' if n else 'all labels'} · {CONDITION_NAMES[c]}"
            name += "" if generator == own else f" · {generator}"
            out.append(Cell(name, "few labels", config))
    return out


QUICK_CASES = {  # what Tables 1 and 2 and each figure need
    *(f"{kind} · {c}" for kind in PUBLISHED_TABLE_1 for c in CONDITIONS),
    *("EncDec without source · CP", "28×28 · CP", "56×28 · CP", "50% of the target data · CP"),
    *("100% of the target data · CP", "full CP", "inductive CP", JOINT_Q_CASE, REVERSE_CASE),
}


def grid_cases(
    grid: Grid, base: Config, f_s_corpus: str = "", names: Sequence[str] = ()
) -> list[Cell]:
    """The cases of a grid, or those of `names` that it has; signs and capitals do not matter."""
    if grid == "quick":
        found = cases(quick_config(base), f_s_corpus)
        found = found if names else [c for c in found if c.name in QUICK_CASES]
    elif grid == "paper":
        found = cases(base, f_s_corpus)
    elif grid == "labels":
        found = few_labels_cases(base)
    else:
        name = f"{base.name} · {CONDITION_NAMES[base.gan.condition]}"
        found = [Cell(name, "headline gains", base)]
    asked = {_words(n) for n in names}
    return [c for c in found if _words(c.name) in asked] if names else found


def _words(name: str) -> tuple[str, ...]:
    """What tells the name of a case from others: "EncDec · CP" -> ("encdec", "cp")."""
    return tuple(re.findall(r"[^\W_]+|%", re.sub(r"(?<=\d)[x×](?=\d)", " ", name.lower())))


def check_case_names(names: Sequence[str], known: Sequence[Cell]) -> None:
    """Raise UserError for a name that no case among `known` has; it lists them."""
    have = {_words(c.name) for c in known}
    if unknown := [n for n in names if _words(n) not in have]:
        listed = "; ".join(dict.fromkeys(c.name for c in known))
        raise UserError(f"no case of this grid is called {', '.join(unknown)}; it has: {listed}")


def cells(
    grid: Grid,
    base: Config,
    folds: int | None = None,
    seeds: int | None = None,
    f_s_corpus: str = "",
    names: Sequence[str] = (),
) -> list[Cell]:
    """The runs of a grid, in the order case, fold, seed; GRID_SIZES has the default numbers.

    quick: QUICK_CASES of `quick_config(base)`, which test the whole path. paper: all `cases`.
    studio: `base` alone, for the headline gains. labels: `few_labels_cases`. `names` of cases
    choose among all of them. Raises UserError for fewer than one fold or seed, or for so many
    folds that one would test a subject twice.
    """
    default, share = GRID_SIZES[grid], base.data.sets[3]
    folds, seeds = default[0] if folds is None else folds, default[1] if seeds is None else seeds
    most = fold_count(share)
    if not 1 <= folds <= most or seeds < 1:
        raise UserError(
            f"folds must be 1 to {most}, as S4 is {share:.0%} of the subjects, and seeds at least 1"
        )
    out = []
    for c in grid_cases(grid, base, f_s_corpus, names):
        for fold in range(folds):
            for seed in range(seeds):
                data = {"fold": (c.config.data.fold + fold) % most}
                config = replace(c.config, seed=c.config.seed + seed, data=data)
                out.append(dataclasses.replace(c, config=config))
    return out


def labels_mode(config: Config) -> str:
    """Use of S3's labels: `strict` (none), `paper` (by Q alone), else `label-supervised (why)`.

    Supervised are runs that pair faces and voices by emotion, or whose condition is the label.
    """
    if config.data.pairing == "emotion":
        return "label-supervised (paired by emotion)"
    if config.gan.condition == "label":
        return "label-supervised (the label is the condition)"
    return "paper" if config.gan.q_labels == "true" else "strict"


# ------------------------------------------------------------------ the augmentation table


@dataclass(frozen=True)
class TableRow:
    """A training set; all rows share the classifier, its steps, the crop and the class balance."""

    name: str
    # parts: S1, S1 again (as often as samples are generated), S3, generated,
    # pseudo (S3 with the labels that f_S gives)
    parts: tuple[str, ...]
    plain: bool = False  # trained with plain augmentation: time shift, noise, masking


PLAIN_SUFFIX = " + plain augmentation"
TABLE_ROWS = (
    TableRow("S1", ("S1",)),
    TableRow("S1 oversampled", ("S1", "S1 again")),
    TableRow("S1" + PLAIN_SUFFIX, ("S1",), True),
    TableRow("S1 + pseudo-labelled S3", ("S1", "pseudo")),
    TableRow("S1 + generated", ("S1", "generated")),
    TableRow("S1 + generated" + PLAIN_SUFFIX, ("S1", "generated"), True),
    TableRow("S1 + S3", ("S1", "S3")),
    TableRow("S1 + S3" + PLAIN_SUFFIX, ("S1", "S3"), True),
    TableRow("S1 + S3 + generated", ("S1", "S3", "generated")),
    TableRow("S1 + S3 + generated" + PLAIN_SUFFIX, ("S1", "S3", "generated"), True),
    TableRow("generated only", ("generated",)),
)


# ------------------------------------------------------------------ run ids


def identify_runs(cells: Sequence[Cell]) -> list[tuple[Cell, str, str]]:
    """Each cell as (cell, run id, ""), or (cell, "", reason) if its corpus is not prepared."""
    digests: dict[tuple, str | CorpusError] = {}
    out = []
    for cell in cells:
        d = cell.config.data
        key = (d.faces, d.voices, d.f_s_corpus, d.demo_takes)
        if key not in digests:
            try:
                digests[key] = prepared_corpora.corpus_digest(d)
            except CorpusError as e:
                digests[key] = e
        digest = digests[key]
        if isinstance(digest, str):
            out.append((cell, run_name(cell.config, digest), ""))
        else:
            out.append((cell, "", str(digest)))
    return out


def locate_runs(cells: Sequence[Cell], folder: Path) -> list[tuple[Cell, Run | None]]:
    """Each cell with its run in `folder` that has results, or None.

    A run's name holds its corpora's digest. If a corpus is not on this machine, the run is found by
    its settings instead, so that runs trained elsewhere can be reported; the newest comes first.
    """
    located, elsewhere = [], None
    for cell, run_id, _ in identify_runs(cells):
        run = Run(folder / run_id) if run_id else None
        if run is None:
            elsewhere = _finished_by_settings(folder) if elsewhere is None else elsewhere
            run = elsewhere.get(_settings_key(cell.config))
        located.append((cell, run if run and run.json("results") else None))
    return located


def _finished_by_settings(folder: Path) -> dict[str, Run]:
    """Settings -> the newest run in `folder` that has results."""
    found = {}
    for path in sorted(folder.glob("*/results.json"), key=lambda p: p.stat().st_mtime):
        with contextlib.suppress(ValueError):  # not a run of this version
            run = Run(path.parent)
            found[_settings_key(run.config)] = run
    return found


def _settings_key(config: Config) -> str:
    """All settings but the name, which does not decide a run's results."""
    return json.dumps(to_dict(replace(config, name="")), sort_keys=True)


# ------------------------------------------------------------------ commands


METHOD_TITLES = {
    None: "",
    "paper": ", the paper's method",
    "strict": ", the paper's method, S3's labels unread",
    "studio": ", our method",
}


@dataclass(frozen=True)
class BaseSettings:
    """Settings that the paper's cases vary: a preset, with the networks of a method if given."""

    preset: str
    method: Method | None
    config: Config

    @property
    def title(self) -> str:
        return self.preset + METHOD_TITLES[self.method]

    def command(self, name: str = "sweep") -> str:
        """The command that trains (or reports) every case of the paper on these settings."""
        method = f" --method {self.method}" if self.method else ""
        return f"python -m core {name} --grid paper --preset {self.preset}{method}"


def base_settings() -> list[BaseSettings]:
    """Every preset and method whose cases differ."""
    found: dict[Config, BaseSettings] = {}
    methods: tuple[Method | None, ...] = (None, "paper", "strict", "studio")
    for preset, config in PRESETS.items():
        for method in methods:
            base = with_method(method, config) if method else config
            key = replace(base, name="", gan={"condition": "cp"})
            found.setdefault(key, BaseSettings(preset, method, base))
    return list(found.values())


def missing_cases(
    base: BaseSettings, done: Collection[str], names: Sequence[str]
) -> dict[str, str]:
    """Case among `names` without a run -> the command that trains one."""
    cells_by_name = {c.name: c for c in cases(base.config)}
    return {
        n: training_command(cells_by_name[n], base.preset)
        for n in names
        if n in cells_by_name and n not in done
    }


def training_command(cell: Cell, preset: str) -> str:
    """The command that trains a cell: its preset and every setting that differs from it."""
    options = changed_options(cell.config, PRESETS[preset])
    return " ".join([f"python -m core train --preset {preset}", *options])


def changed_options(config: Config, start: Config) -> list[str]:
    """Command-line options of the settings in which `config` differs from `start`."""
    return _flags(to_dict(config), to_dict(start))


def _flags(a: Mapping[str, Any], b: Mapping[str, Any], at: str = "") -> list[str]:
    """Command-line options of the settings that differ from b in a, two nested dicts."""
    out: list[str] = []
    for k, v in a.items():
        name = f"{at}{k.replace('_', '-')}"
        if isinstance(v, dict):
            out += _flags(v, b[k], f"{name}.")
        elif v != b[k] and isinstance(v, bool):
            out.append(f"--{name}" if v else f"--{at}no-{k.replace('_', '-')}")
        elif v != b[k]:
            out.append(f"--{name} {' '.join(map(str, v)) if isinstance(v, list) else v}")
    return out
