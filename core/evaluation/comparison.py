"""§4.3-4.6: finished runs beside each other: what may be compared, best steps, folds, Tables 1 and 2, a gain's null distribution.

From saved files alone (config, results, curves, table.npz): no torch, and no corpus need be at hand.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import files
from core.config import PRESETS, Config, Method, replace, to_dict, with_method
from core.data import prepared_corpora
from core.data import splits
from core.evaluation import protocol
from core.evaluation.protocol import CONDITION_NAMES, Cell
from core.paper import PUBLISHED_TABLE_1, PUBLISHED_TABLE_2
from core.runs import Run

Curves = Mapping[
    str, tuple[list[int], list[float]]
]  # name -> steps, values, as runs.metrics gives them
MIN_MEANINGFUL_STEPS = 100  # training steps below which a run only shows that the path works
BASELINES = ("audio baseline", "face baseline")
TABLE_CONDITIONS = ("label", "classifier", "CP")
GENERATOR_NAMES = {
    "encdec": "EncDec",
    "unet": "U-Net",
    "conv": "convolutional",
}  # as protocol.cases calls them


@dataclass(frozen=True)
class RunSummary:
    """One run, finished or not, with what is known of it."""

    id: str
    state: str
    shipped: bool
    config: Config
    results: Mapping[str, Any]  # results.json; {} until it is done
    scorer: str  # digest of the network behind FID, KID and IS; "" where it is not known
    best: tuple[int, str] | None  # `best_step`
    seconds: float  # NaN where nobody wrote it down
    digest: str  # of the prepared corpora

    @property
    def corpus(self) -> str:
        d = self.config.data
        return d.voices if d.faces == d.voices else f"{d.faces} × {d.voices}"

    @property
    def made(self) -> str:
        """What G makes, and what the accuracies are of."""
        return "voices" if self.config.gan.direction == "face-voice" else "faces"

    @property
    def n(self) -> int | None:
        """How many real samples of S4 the accuracies are of, balanced by class."""
        return self.results.get(f"N test {self.made}")

    @property
    def labels(self) -> str:
        return self.results.get("labels") or protocol.labels_mode(self.config)

    @property
    def condition(self) -> str:
        return CONDITION_NAMES[self.config.gan.condition]

    @property
    def test(self) -> tuple:
        """What decides whose voices judge: accuracies of runs that agree in it are of the same test."""
        d = self.config.data
        split = (
            d.sets,
            d.labels,
            d.ties,
            d.subjects,
            d.split_seed,
            d.fold,
            d.demo_takes if prepared_corpora.demo_corpora(d) else 0,
        )
        return (self.corpus, self.digest, d.classes, self.config.logmel, split, self.made)

    def accuracy(self, row: str) -> float:
        """Of a row of the augmentation table, on S4, in [0, 1]; NaN where it is not there."""
        return float(self.results.get("augmentation", {}).get(row, {}).get("accuracy", math.nan))

    def quality(self, name: str) -> float:
        """FID, KID, IS, coverage, … on S4; NaN where it is not there."""
        return float(self.results.get("quality", {}).get(name, math.nan))

    def error(self) -> float:
        """Standard error of an accuracy near S1's, from the number of test samples; in [0, 0.5], NaN for an unfinished run."""
        p = self.accuracy("S1")
        return math.sqrt(p * (1 - p) / self.n) if p == p and self.n else math.nan


def summarise_run(run: Run, row: Mapping[str, Any], curves: Curves) -> RunSummary:
    """What is known of a run whose row in the index is `row`. Raises ValueError for a damaged config.json."""
    results, config, provenance = run.json("results"), run.config, run.json("provenance")
    quality = results.get("quality", {})
    return RunSummary(
        run.id, row["state"], bool(row["shipped"]), config, results, quality.get("scorer", ""),
        best_step(curves, quality.get("features")), training_seconds(run, provenance) if results else math.nan, str(provenance.get("corpus", "")),
    )  # fmt: skip


def best_step(curves: Curves, features: int | None) -> tuple[int, str] | None:
    """The training step at which S2's leading curve is lowest, and that curve's name; None before there is a point.

    FID leads where N is at least ten times the scorer's `features`, else, or where neither they nor the curves know, KID (PROTOCOL). The
    untrained generator of step 0 is no candidate.
    """
    n, known_features = curves.get("N", ([], []))[1], curves.get("features", ([], []))[1]
    features = features or (int(known_features[0]) if known_features else None)
    name = "FID" if features and n and n[0] >= 10 * features else "KID"
    steps, values = curves.get(name, ((), ()))
    known = [(v, s) for s, v in zip(steps, values, strict=True) if s > 0]
    return (min(known)[1], name) if known else None


def training_seconds(run: Run, provenance: Mapping[str, Any]) -> float:
    """Seconds from a run's last start to its results; NaN for one that was copied from elsewhere or looked at again since."""
    path = run.directory / "results.json"
    try:
        begun = time.mktime(time.strptime(str(provenance["created"]), "%Y-%m-%d %H:%M:%S"))
        seconds = path.stat().st_mtime - begun
    except (KeyError, ValueError, OSError):
        return math.nan
    return seconds if seconds > 0 and not run.shipped else math.nan


def with_scorers(found: Sequence[RunSummary], folder: Path) -> list[RunSummary]:
    """Give unfinished runs the scorer's digest too, where the file of their scorer is that of a finished run; else a name of its own."""
    if all(s.scorer for s in found):
        return list(found)
    of = {_scorer_digest(folder / s.id): s.scorer for s in found if s.scorer}
    out = []
    for s in found:
        mark = "" if s.scorer else _scorer_digest(folder / s.id)
        out.append(dataclasses.replace(s, scorer=of.get(mark, mark)) if mark else s)
    return out


def _scorer_digest(directory: Path) -> str:
    """A name for the bytes of a run's scorer; "" where it is not fitted yet."""
    path = Run(directory).model_path("scorer")
    return _file_digest(path, path.stat().st_mtime_ns) if path.exists() else ""


@functools.lru_cache(maxsize=512)
def _file_digest(path: Path, stamp: int) -> str:
    return files.digest(path)[:12]


def run_record(s: RunSummary) -> dict[str, str | int | float | None]:
    """A run as a line of the table: accuracies and coverage in %, None where a figure is not known."""
    d, r = s.config.data, s.results
    line: dict[str, str | int | float | None] = {
        "run": s.id, "state": s.state, "condition": s.condition, "corpus": s.corpus, "S1": 100 * s.accuracy("S1"),
        "S1 + generated": 100 * s.accuracy("S1 + generated"), "ceiling": 100 * s.accuracy("S1 + S3"), "N": s.n,
        "chance": 100 * r.get("chance", 1 / len(d.classes)), "FID": s.quality("FID"), "FID real": s.quality("FID real"),
        "KID": s.quality("KID"), "KID real": s.quality("KID real"), "IS": s.quality("IS"), "IS real": s.quality("IS real"),
        "diversity": s.quality("diversity"), "coverage": 100 * s.quality("coverage"), "coverage real": 100 * s.quality("coverage real"),
        "best step": s.best[0] if s.best else None, "chosen by": f"{s.best[1]} on S2" if s.best else "",
        "steps": r.get("steps", s.config.gan.steps), "fold": d.fold, "seed": s.config.seed,
        "generator": GENERATOR_NAMES.get(s.config.gan.generator, s.config.gan.generator), "makes": s.made, "labels": s.labels,
        "minutes": s.seconds / 60, "scorer": s.scorer,
    }  # fmt: skip
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in line.items()}


# ------------------------------------------------------------------ what may stand beside what


def caveats(found: Sequence[RunSummary]) -> list[str]:
    """Why figures of these runs may not be compared, or only with care; in words, with the runs' short names. [] for none."""
    names, done, out = short_names(found), [s for s in found if s.results], []

    def named(groups: Mapping[Any, Sequence[RunSummary]]) -> str:
        return "; ".join(", ".join(names[s.id] for s in of) for of in groups.values())

    scorers = _group_by(done, lambda s: s.scorer)
    if len(scorers) > 1:
        out.append(
            f"FID, KID, IS and coverage come from {len(scorers)} scoring networks: compare them within one only ({named(scorers)})."
        )
    tests = _group_by(done, lambda s: s.test)
    if len(tests) > 1:
        corpora = len({(s.corpus, s.config.data.classes) for s in done})
        why = (
            "other corpora or emotions, so another chance"
            if corpora > 1
            else "other people, or a corpus prepared otherwise"
        )
        why = "voices here, faces there" if len({s.made for s in done}) > 1 else why
        out.append(
            f"Accuracies are of {len(tests)} different tests ({why}): no difference between them counts ({named(tests)})."
        )
    for of in tests.values():
        if len({s.accuracy("S1") for s in of}) > 1:
            same = ", ".join(names[s.id] for s in of)
            out.append(
                f"{same} have different baselines S1 (another seed, share of data or classifier): compare gains, not accuracies."
            )
    modes = _group_by(done, lambda s: s.labels)
    if len(modes) > 1:
        seen = "; ".join(f"{mode}: {named({0: of})}" for mode, of in modes.items())
        out.append(f"S3's labels were seen by some and not by others: {seen}.")
    few = [names[s.id] for s in found if s.config.gan.steps < MIN_MEANINGFUL_STEPS]
    if few:
        out.append(
            f"Fewer than {MIN_MEANINGFUL_STEPS} training steps, so their figures mean nothing: {', '.join(few)}."
        )
    return out


def _group_by(found: Sequence[RunSummary], key) -> dict[Any, list[RunSummary]]:
    groups: dict[Any, list[RunSummary]] = {}
    for s in found:
        groups.setdefault(key(s), []).append(s)
    return groups


def group_by_scorer(found: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """Runs whose FID, KID and IS may stand on one axis, by the scorer's digest; one whose scorer is not known stands by itself."""
    return _group_by(found, lambda s: s.scorer or s.id)


def short_names(found: Sequence[RunSummary]) -> dict[str, str]:
    """Run id -> as few words as tell these runs apart: the condition, and of name, generator, fold and seed what differs, else the hash."""
    parts = [
        [s.config.name for s in found],
        [s.condition for s in found],
        [GENERATOR_NAMES.get(s.config.gan.generator, s.config.gan.generator) for s in found],
        [f"fold {s.config.data.fold}" for s in found],
        [f"seed {s.config.seed}" for s in found],
    ]
    told = [p for i, p in enumerate(parts) if i == 1 or len(set(p)) > 1]
    if len(set(zip(*told))) < len(found):
        told.append([s.id.rsplit("-", 1)[-1] for s in found])
    return {s.id: " · ".join(words) for s, words in zip(found, zip(*told), strict=True)}


def without_fold_and_seed(config: Config) -> Config:
    """`config` without name, fold and seed: runs that agree in it are repetitions of one experiment."""
    return replace(config, name="", seed=0, data={"fold": 0})


def repetitions(found: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """Finished runs by `without_fold_and_seed` and corpus digest, each in order of fold and seed."""
    groups = _group_by(
        [s for s in found if s.results], lambda s: (without_fold_and_seed(s.config), s.digest)
    )
    return [sorted(g, key=lambda s: (s.config.data.fold, s.config.seed)) for g in groups.values()]


# ------------------------------------------------------------------ Tables 1 and 2 of the runs that exist


@dataclass(frozen=True)
class BaseSettings:
    """Settings that the paper's cases start from: a preset, perhaps with a method's generator and game."""

    preset: str
    method: Method | None
    config: Config

    @property
    def title(self) -> str:
        return self.preset + {"paper": ", the paper's method", "studio": ", our method"}.get(
            self.method or "", ""
        )

    def command(self, name: str = "sweep") -> str:
        """What trains, or reports, every case of the paper on this base."""
        method = f" --method {self.method}" if self.method else ""
        return f"python -m core {name} --grid paper --preset {self.preset}{method}"


@dataclass(frozen=True)
class TableEntry:
    """A figure of a table: ours over the runs of a case, and the paper's beside it."""

    case: str
    metric: str  # accuracy (in %), FID or IS
    values: tuple[float, ...]  # of our runs; () where none is done
    published: Mapping[str, float]  # by the paper's corpus
    n_scorers: int = 1  # networks behind ours


def base_settings() -> list[BaseSettings]:
    """Every preset and method whose cases differ."""
    found: dict[Config, BaseSettings] = {}
    for preset, config in PRESETS.items():
        methods: tuple[Method | None, ...] = (None, "paper", "studio")
        for method in methods:
            base = with_method(method, config) if method else config
            found.setdefault(
                replace(base, name="", gan={"condition": "cp"}), BaseSettings(preset, method, base)
            )
    return list(found.values())


def runs_by_case(base: Config, found: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """The finished runs of each case of `protocol.cases(base)`, over folds and seeds; cases that no run has are left out."""
    having = _group_by([s for s in found if s.results], lambda s: without_fold_and_seed(s.config))
    out = {}
    for case in protocol.cases(base):
        if of := having.get(without_fold_and_seed(case.config)):
            out[case.name] = of
    return out


def table_1(of: Mapping[str, Sequence[RunSummary]]) -> list[TableEntry]:
    """Table 1: accuracy with S1 + generated, by condition and by generator, from `runs_by_case` runs."""
    return [
        TableEntry(
            f"{kind} · {c}",
            "accuracy",
            _accuracies_percent(of.get(f"{kind} · {c}", ()), "S1 + generated"),
            {"CREMA-D": PUBLISHED_TABLE_1[kind][c]},
        )
        for c in TABLE_CONDITIONS
        for kind in PUBLISHED_TABLE_1
    ]


def table_2(of: Mapping[str, Sequence[RunSummary]], generator: str = "EncDec") -> list[TableEntry]:
    """Table 2: both baselines, then accuracy, FID and IS by condition, for one kind of generator, from `runs_by_case` runs.

    The baselines do not depend on the condition: those of the condition with the most runs are taken.
    """
    named = {c: of.get(f"{generator} · {c}", ()) for c in TABLE_CONDITIONS}
    most = max(named.values(), key=len)
    faces = tuple(100 * float(s.results["face"]["accuracy"]) for s in most if "face" in s.results)
    out = [
        TableEntry(k, "accuracy", v, _published_values(k, 0))
        for k, v in zip(BASELINES, (_accuracies_percent(most, "S1"), faces), strict=True)
    ]
    for c, runs_of in named.items():
        out.append(
            TableEntry(
                c,
                "accuracy",
                _accuracies_percent(runs_of, "S1 + generated"),
                _published_values(c, 0),
            )
        )
        for i, name in ((1, "FID"), (2, "IS")):
            values = tuple(v for s in runs_of if (v := s.quality(name)) == v)
            out.append(
                TableEntry(
                    c, name, values, _published_values(c, i), len({s.scorer for s in runs_of})
                )
            )
    return out


def _accuracies_percent(found: Sequence[RunSummary], row: str) -> tuple[float, ...]:
    return tuple(100 * v for s in found if (v := s.accuracy(row)) == v)


def _published_values(case: str, i: int) -> dict[str, float]:
    return {
        corpus: said[case][i]
        for corpus, said in PUBLISHED_TABLE_2.items()
        if len(said.get(case, ())) > i
    }


def published_corpus(base: Config) -> str:
    """The paper's corpus that runs of `base` are of, or "" where theirs is another and no figure may be compared."""
    d = base.data
    return (
        {"crema-d": "CREMA-D", "ravdess": "RAVDESS"}.get(d.voices, "")
        if d.faces == d.voices
        else ""
    )


def missing_cases(
    base: BaseSettings, of: Mapping[str, Sequence[RunSummary]], names: Sequence[str]
) -> dict[str, str]:
    """Cases among `names` that no run has -> the command that trains one."""
    cells = {c.name: c for c in protocol.cases(base.config)}
    return {n: training_command(cells[n], base.preset) for n in names if n in cells and n not in of}


def training_command(cell: Cell, preset: str) -> str:
    """What trains a cell: the preset, and every setting in which it differs from that."""
    return " ".join(
        [
            f"python -m core train --preset {preset}",
            *_flags(to_dict(cell.config), to_dict(PRESETS[preset])),
        ]
    )


def _flags(a: Mapping[str, Any], b: Mapping[str, Any], at: str = "") -> list[str]:
    """Options of the command line for what of `a` is not as in `b`, both nested plain dicts of the same keys."""
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


# ------------------------------------------------------------------ a gain and chance
