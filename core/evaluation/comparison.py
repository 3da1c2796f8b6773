"""§4.3-4.6: finished runs side by side: comparability, best steps, folds, Tables 1 and 2.

Everything is read from saved files (config, results, curves): no torch, no corpus.
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
from core.config.settings import Config, replace
from core.data import prepared_corpora
from core.evaluation import protocol, significance
from core.evaluation import results as result_figures
from core.evaluation.protocol import CONDITION_NAMES, GENERATOR_NAMES
from core.evaluation.results import RowAccuracy
from core.paper.published import PUBLISHED_TABLE_1, PUBLISHED_TABLE_2
from core.runs.directory import Run

Curves = Mapping[str, tuple[list[int], list[float]]]  # name -> steps, values; `store.load_curves`
MIN_MEANINGFUL_STEPS = 100  # training steps below which a run only shows that the path works
MIN_FID_RATIO = 10  # samples per feature of the scorer from which FID is preferred to KID
BASELINES = ("audio baseline", "face baseline")
TABLE_CONDITIONS = ("label", "classifier", "CP")
PUBLISHED_CORPORA = {"crema-d": "CREMA-D", "ravdess": "RAVDESS"}
METRIC_LABELS = {"accuracy": "accuracy, %", "FID": "FID", "IS": "IS"}
METRIC_DIGITS = {"accuracy": 1, "FID": 2, "IS": 2}


@dataclass(frozen=True)
class RunSummary:
    """Summary of the saved files of a run, finished or not."""

    id: str
    state: str
    shipped: bool
    config: Config
    results: Mapping[str, Any]  # results.json; {} until it is done
    scorer: str  # digest of the network behind FID, KID and IS; "" if unknown
    best: tuple[int, str] | None  # `best_step`
    seconds: float  # of training; NaN if unknown
    digest: str  # of the prepared corpora
    table: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # table.json; {} without one

    @property
    def corpus(self) -> str:
        return protocol.corpora_text(self.config.data)

    @property
    def modality(self) -> str:
        """Modality that G generates and accuracies are measured on."""
        return "voices" if self.config.gan.direction == "face-voice" else "faces"

    @property
    def n(self) -> int | None:
        """Number of S4's real samples behind the accuracies, balanced by class."""
        return self.results.get(f"N test {self.modality}")

    @property
    def labels(self) -> str:
        return self.results.get("labels") or protocol.labels_mode(self.config)

    @property
    def condition(self) -> str:
        return CONDITION_NAMES[self.config.gan.condition]

    @property
    def test(self) -> tuple:
        """Key of the test set: accuracies compare only between runs with equal keys."""
        d = self.config.data
        takes = d.demo_takes if prepared_corpora.demo_corpora(d) else 0
        split = (d.sets, d.labels, d.ties, d.subjects, d.split_seed, d.fold, takes)
        return (self.corpus, self.digest, d.classes, self.config.logmel, split, self.modality)

    def row(self, name: str) -> RowAccuracy:
        """Accuracy of an augmentation row on S4: `results.row_accuracy`, at equal steps."""
        return result_figures.row_accuracy(self.results, self.table, name)

    def accuracy(self, row: str) -> float:
        """The same as a share, the mean over trainings; NaN if missing."""
        return self.row(row).mean

    def quality(self, name: str) -> float:
        """A figure of the samples on S4; NaN if it is missing or withdrawn."""
        return result_figures.quality(self.results, name)

    @property
    def people(self) -> int:
        """Number of S4's people; 0 if unknown or unfinished."""
        return len(result_figures.s4_people(self.results, self.table))


def summarise_run(run: Run, row: Mapping[str, Any], curves: Curves) -> RunSummary:
    """Summarise a run whose row in the index is `row`. Raises UserError for a damaged config."""
    results, config, provenance = run.json("results"), run.config, run.json("provenance")
    quality = results.get("quality", {})
    return RunSummary(
        id=run.id,
        state=row["state"],
        shipped=bool(row["shipped"]),
        config=config,
        results=results,
        scorer=quality.get("scorer", ""),
        best=best_step(curves, quality.get("features")),
        seconds=training_seconds(run, provenance) if results else math.nan,
        digest=str(provenance.get("corpus", "")),
        table=run.json("table"),
    )


def best_step(curves: Curves, features: int | None) -> tuple[int, str] | None:
    """The step with the lowest FID or KID on S2, and that metric; None without a point.

    FID decides if N is at least MIN_FID_RATIO times the scorer's number of `features`, else KID;
    also if neither the argument nor the curves know that number. Step 0, the untrained generator,
    is no candidate.
    """
    n, known_features = curves.get("N", ([], []))[1], curves.get("features", ([], []))[1]
    features = features or (int(known_features[0]) if known_features else None)
    name = "FID" if features and n and n[0] >= MIN_FID_RATIO * features else "KID"
    steps, values = curves.get(name, ((), ()))
    known = [(v, s) for s, v in zip(steps, values, strict=True) if s > 0]
    return (min(known)[1], name) if known else None


def training_seconds(run: Run, provenance: Mapping[str, Any]) -> float:
    """Seconds from a run's last start to its results.

    NaN for a run that was copied from elsewhere, shipped, or measured again after its training.
    """
    path = run.directory / "results.json"
    if "evaluated again" in provenance:
        return math.nan
    try:
        start = time.mktime(time.strptime(str(provenance["created"]), "%Y-%m-%d %H:%M:%S"))
        seconds = path.stat().st_mtime - start
    except (KeyError, ValueError, OSError):
        return math.nan
    return seconds if seconds > 0 and not run.is_copy else math.nan


def with_scorers(found: Sequence[RunSummary], folder: Path) -> list[RunSummary]:
    """Give unfinished runs a scorer's digest: that of a finished run whose scorer file is equal.

    A scorer that no finished run has is named by the digest of its file.
    """
    if all(s.scorer for s in found):
        return list(found)
    known = {_scorer_digest(folder / s.id): s.scorer for s in found if s.scorer}
    out = []
    for s in found:
        digest = "" if s.scorer else _scorer_digest(folder / s.id)
        scorer = known.get(digest, digest) if digest else s.scorer
        out.append(dataclasses.replace(s, scorer=scorer))
    return out


def _scorer_digest(directory: Path) -> str:
    """Digest of the file of a run's scorer; "" before it is trained."""
    path = Run(directory).model_path("scorer")
    return _file_digest(path, path.stat().st_mtime_ns) if path.exists() else ""


@functools.lru_cache(maxsize=512)
def _file_digest(path: Path, stamp: int) -> str:
    return files.digest(path)[:12]


def run_record(s: RunSummary) -> dict[str, str | int | float | None]:
    """A run as a row of the table: accuracies and coverage in %, None for unknown figures.

    Accuracies are means over `trainings`, with S1's sd over them.
    """
    d, r, baseline = s.config.data, s.results, s.row("S1")
    quality = ("FID", "FID real", "KID", "KID real", "IS", "IS real", "diversity")
    line: dict[str, str | int | float | None] = {
        **{"run": s.id, "state": s.state, "condition": s.condition, "corpus": s.corpus},
        **{row: 100 * s.accuracy(row) for row in ("S1", "S1 + generated", "S1 + S3")},
        "S1 sd": round(100 * baseline.sd, 1),
        "trainings": baseline.trainings or None,
        "N": s.n,
        "people": s.people or None,
        "chance": 100 * r.get("chance", 1 / len(d.classes)),
        **{k: s.quality(k) for k in quality},
        **{k: 100 * s.quality(k) for k in ("coverage", "coverage real")},
        "best step": s.best[0] if s.best else None,
        "chosen by": f"{s.best[1]} on S2" if s.best else "",
        "steps": r.get("steps", s.config.gan.steps),
        **{"fold": d.fold, "seed": s.config.seed},
        "generator": GENERATOR_NAMES.get(s.config.gan.generator, s.config.gan.generator),
        **{"makes": s.modality, "labels": s.labels},
        **{"minutes": s.seconds / 60, "scorer": s.scorer},
    }
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in line.items()}


# ------------------------------------------------------------------ comparability


def caveats(found: Sequence[RunSummary]) -> list[str]:
    """Warnings about figures that cannot, or hardly, be compared; they name the runs."""
    names, done, out = short_names(found), [s for s in found if s.results], []

    def joined(groups: Mapping[Any, Sequence[RunSummary]]) -> str:
        return "; ".join(", ".join(names[s.id] for s in of) for of in groups.values())

    scorers = _group_by(done, lambda s: s.scorer)
    if len(scorers) > 1:
        out.append(
            f"FID, KID, IS and coverage come from {len(scorers)} scoring networks: "
            f"compare them within one only ({joined(scorers)})."
        )
    tests = _group_by(done, lambda s: s.test)
    if len(tests) > 1:
        if len({s.modality for s in done}) > 1:
            why = "voices here, faces there"
        elif len({(s.corpus, s.config.data.classes) for s in done}) > 1:
            why = "other corpora or emotions, so another chance"
        else:
            why = "other people, or a corpus prepared otherwise"
        out.append(
            f"Accuracies are of {len(tests)} different tests ({why}): "
            f"do not compare them between tests ({joined(tests)})."
        )
    for of in tests.values():
        if len({s.accuracy("S1") for s in of}) > 1:
            out.append(
                f"{joined({0: of})} have different baselines S1 (another seed, share of data or "
                "classifier): compare gains, not accuracies."
            )
        counts = {s.row("S1").trainings for s in of}
        if len(counts) > 1:
            out.append(
                f"{joined({0: of})} have means over {' and '.join(map(str, sorted(counts)))} "
                "trainings: compute the missing augmentation tables before you compare them."
            )
    earlier = [s for s in done if result_figures.has_withdrawn_floors(s.results)]
    if earlier:
        out.append(
            f"The floors (real against real) of {joined({0: earlier})} were "
            f"{result_figures.WITHDRAWN}. python -m core evaluate RUN --again measures them anew."
        )
    modes = _group_by(done, lambda s: s.labels)
    if len(modes) > 1:
        listed = "; ".join(f"{mode}: {joined({0: of})}" for mode, of in modes.items())
        out.append(f"S3's labels were seen by some and not by others: {listed}.")
    few = [s for s in found if s.config.gan.steps < MIN_MEANINGFUL_STEPS]
    if few:
        out.append(
            f"Fewer than {MIN_MEANINGFUL_STEPS} training steps, so their figures mean nothing: "
            f"{joined({0: few})}."
        )
    return out


def _group_by(found: Sequence[RunSummary], key) -> dict[Any, list[RunSummary]]:
    groups: dict[Any, list[RunSummary]] = {}
    for s in found:
        groups.setdefault(key(s), []).append(s)
    return groups


def group_by_scorer(found: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """Runs by their scorer's digest, so that FID, KID and IS compare within a group.

    A run with an unknown scorer is a group of its own.
    """
    return _group_by(found, lambda s: s.scorer or s.id)


def short_names(found: Sequence[RunSummary]) -> dict[str, str]:
    """Run id -> a short unique name: the condition and what differs, if needed also the hash.

    Name, generator, fold and seed are included where they differ between the runs.
    """
    parts = [
        [s.config.name for s in found],
        [s.condition for s in found],
        [GENERATOR_NAMES.get(s.config.gan.generator, s.config.gan.generator) for s in found],
        [f"fold {s.config.data.fold}" for s in found],
        [f"seed {s.config.seed}" for s in found],
    ]
    words = [p for i, p in enumerate(parts) if i == 1 or len(set(p)) > 1]
    if len(set(zip(*words))) < len(found):
        words.append([s.id.rsplit("-", 1)[-1] for s in found])
    return {s.id: " · ".join(w) for s, w in zip(found, zip(*words), strict=True)}


def without_fold_and_seed(config: Config) -> Config:
    """`config` without name, fold and seed: equal for repetitions of one experiment."""
    return replace(config, name="", seed=0, data={"fold": 0})


def repetitions(found: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """Finished runs grouped by settings and corpus digest, each group by fold and seed."""
    done = [s for s in found if s.results]
    groups = _group_by(done, lambda s: (without_fold_and_seed(s.config), s.digest))
    return [sorted(g, key=lambda s: (s.config.data.fold, s.config.seed)) for g in groups.values()]


# ------------------------------------------------------------------ Tables 1 and 2


@dataclass(frozen=True)
class TableEntry:
    """One figure of Table 1 or 2: that of our runs of a case, and the paper's."""

    case: str
    metric: str  # accuracy (in %), FID or IS
    values: tuple[float, ...]  # of our runs; () without a finished run
    published: Mapping[str, float]  # by the paper's corpus
    n_scorers: int = 1  # networks behind our values

    @property
    def ours(self) -> str:
        """Mean ± sd over runs and their number; "–" without a run."""
        text = significance.format_mean(self.values, digits=METRIC_DIGITS[self.metric])
        return f"{text} ({len(self.values)})" if len(self.values) > 1 else text

    def paper(self, corpus: str) -> str:
        return f"{self.published[corpus]:.2f}" if corpus in self.published else "–"


def runs_by_case(base: Config, found: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """Finished runs of each case of `protocol.cases(base)`; cases without a run are left out."""
    groups = _group_by([s for s in found if s.results], lambda s: without_fold_and_seed(s.config))
    keys = {case.name: without_fold_and_seed(case.config) for case in protocol.cases(base)}
    return {name: groups[key] for name, key in keys.items() if key in groups}


def by_condition(
    of: Mapping[str, Sequence[RunSummary]], generator: str = "EncDec"
) -> dict[str, Sequence[RunSummary]]:
    """The rows of Table 2: condition -> runs of that generator, from `runs_by_case`."""
    return {c: of.get(f"{generator} · {c}", ()) for c in TABLE_CONDITIONS}


def table_1(of: Mapping[str, Sequence[RunSummary]]) -> list[TableEntry]:
    """Table 1: accuracy of S1 + generated by condition and generator, from `runs_by_case`."""
    out = []
    for c in TABLE_CONDITIONS:
        for kind, published in PUBLISHED_TABLE_1.items():
            values = _accuracies_percent(of.get(f"{kind} · {c}", ()), "S1 + generated")
            paper = {"CREMA-D": published[c]}
            out.append(TableEntry(f"{kind} · {c}", "accuracy", values, paper))
    return out


def table_2(rows: Mapping[str, Sequence[RunSummary]]) -> list[TableEntry]:
    """Table 2: both baselines, then accuracy, FID and IS of each row, from `by_condition`.

    The baselines do not depend on the condition: they are of the row with the most runs.
    """
    most = max(rows.values(), key=len)
    faces = tuple(100 * float(s.results["face"]["accuracy"]) for s in most if "face" in s.results)
    baselines = zip(BASELINES, (_accuracies_percent(most, "S1"), faces), strict=True)
    out = [TableEntry(k, "accuracy", v, _published_values(k, 0)) for k, v in baselines]
    for name, of in rows.items():
        values = _accuracies_percent(of, "S1 + generated")
        out.append(TableEntry(name, "accuracy", values, _published_values(name, 0)))
        scorers = len({s.scorer for s in of})
        for i, metric in ((1, "FID"), (2, "IS")):
            values = tuple(v for s in of if (v := s.quality(metric)) == v)
            out.append(TableEntry(name, metric, values, _published_values(name, i), scorers))
    return out


def table_1_rows(entries: Sequence[TableEntry]) -> list[dict[str, str]]:
    """Table 1 as text, a row per condition: ours and the paper's figure per generator."""
    at = {e.case: e for e in entries}
    rows = []
    for c in TABLE_CONDITIONS:
        row = {"condition": c}
        for kind in PUBLISHED_TABLE_1:
            e = at[f"{kind} · {c}"]
            row |= {f"{kind}: ours": e.ours, f"{kind}: paper": e.paper("CREMA-D")}
        rows.append(row)
    return rows


def table_2_rows(entries: Sequence[TableEntry]) -> list[dict[str, str]]:
    """Table 2 as text, a row per case: each metric of ours, then of the paper by corpus."""
    sources = ("ours", *PUBLISHED_TABLE_2)
    columns = [f"{source}: {label}" for source in sources for label in METRIC_LABELS.values()]
    rows: dict[str, dict[str, str]] = {}
    for e in entries:
        row = rows.setdefault(e.case, {"case": e.case} | dict.fromkeys(columns, ""))
        label = METRIC_LABELS[e.metric]
        row[f"ours: {label}"] = e.ours
        row |= {f"{corpus}: {label}": e.paper(corpus) for corpus in PUBLISHED_TABLE_2}
    return list(rows.values())


def _accuracies_percent(found: Sequence[RunSummary], row: str) -> tuple[float, ...]:
    return tuple(100 * v for s in found if (v := s.accuracy(row)) == v)


def _published_values(case: str, i: int) -> dict[str, float]:
    """The i-th figure of a case in the paper's Table 2, by corpus."""
    cases = {corpus: table.get(case, ()) for corpus, table in PUBLISHED_TABLE_2.items()}
    return {corpus: values[i] for corpus, values in cases.items() if len(values) > i}


def published_corpus(config: Config) -> str:
    """The paper's corpus on which runs of `config` train, or "" if none: then nothing compares."""
    d = config.data
    return PUBLISHED_CORPORA.get(d.voices, "") if d.faces == d.voices else ""
