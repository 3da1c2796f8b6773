"""Repetitions over folds and seeds (Fig. 9), and the paper's Tables 1 and 2 from existing runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas
import streamlit as st

from core.config.presets import PRESETS
from core.config.settings import Config, replace
from core.evaluation import comparison, protocol, results, significance
from core.evaluation.comparison import TABLE_CONDITIONS, RunSummary, TableEntry
from core.evaluation.protocol import GENERATOR_NAMES, BaseSettings
from core.paper.published import PUBLISHED_TABLE_1
from ui import theme
from ui.evaluate import figures, runs
from ui.session import cache

FOREIGN_COLOUR = "#757575"  # figures that do not compare: grey, and legible in both themes
TABLE_1_CASES = [f"{kind} · {c}" for kind in PUBLISHED_TABLE_1 for c in TABLE_CONDITIONS]

# ------------------------------------------------------------------ folds


def show_folds(picked: Sequence[RunSummary], found: Sequence[RunSummary]) -> None:
    """Repetitions of the chosen runs' settings, or of all settings on the same corpora."""
    st.markdown(
        "A fold is a group of test people. Only several folds show the spread over people: "
        "each run is a point, the bar is mean ± sd."
    )
    done = [s for s in picked if s.results]
    if not done:
        words = "None of the chosen runs is finished, so there is nothing to repeat yet."
        st.info(words, icon=":material/hourglass_empty:")
        return
    kinds = dict.fromkeys(_test_kind(s) for s in done)
    ids = {s.id for s in done}
    groups = [g for g in comparison.repetitions(found) if _test_kind(g[0]) in kinds]
    chosen = [g for g in groups if ids & {s.id for s in g}]
    label = "All settings on these corpora, not only the chosen runs'"
    is_more = len(groups) > len(chosen)  # or the switch would change nothing
    if not (is_more and st.toggle(label, key="fold all", persist_state="session")):
        groups = chosen
    names = comparison.short_names([g[0] for g in groups])
    lines = []
    for kind in kinds:
        of = {names[g[0].id]: g for g in groups if _test_kind(g[0]) == kind}
        _show_fold_chart(of, *kind)
        lines += [_repetitions_row(name, g) for name, g in of.items()]
    number = st.column_config.NumberColumn(format="%.1f")
    runs.show_dataframe(
        lines,
        "mean and sd over folds and seeds",
        {k: number for k in lines[0] if "%" in k or k.endswith("sd")},
    )
    st.caption(
        "sd is that of single runs (n − 1); one run has none. The rows of one run share its test "
        "people. A run's accuracy is the mean over its trainings: of those of its augmentation "
        "table, if it has one."
    )
    runs.show_csv_download(lines, "folds")
    alone = [g[0] for g in groups if len({s.config.data.fold for s in g}) < 2]
    if alone:
        words = f"{len(alone)} of {len(groups)} settings have one fold only: no sd over people."
        st.info(words, icon=":material/groups:")
        commands = dict.fromkeys(_other_folds_command(s) for s in alone[:3])
        runs.show_command(*commands, title="More folds, in a terminal:")


def _test_kind(s: RunSummary) -> tuple[str, tuple[str, ...], str]:
    """Corpus, classes and modality: runs that agree in them share a chart."""
    return s.corpus, s.config.data.classes, s.modality


def _show_fold_chart(
    of: Mapping[str, Sequence[RunSummary]], corpus: str, classes: tuple[str, ...], what: str
) -> None:
    points = {
        name: {row: _accuracy_points(g, row) for row in figures.ROW_COLOURS}
        for name, g in of.items()
    }
    st.markdown(f"**{theme.escape_markdown(corpus)}**, {len(classes)} emotions, {what}")
    st.plotly_chart(
        figures.fold_accuracies(points, 100 / len(classes), what),
        key=f"folds {corpus} {len(classes)} {what}",
        config=figures.export_config(f"folds-{corpus}".replace(" × ", "-")),
        alt="accuracy over folds and seeds, mean and sd",
    )


def _accuracy_points(group: Sequence[RunSummary], row: str) -> list[tuple[float, str]]:
    """Accuracy in % and name of each run of a group that has the row."""
    return [
        (100 * v, f"fold {s.config.data.fold}, seed {s.config.seed}")
        for s in group
        if not math.isnan(v := s.accuracy(row))
    ]


def _mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """`significance.mean_and_sd` with None for unknown."""
    mean, sd = significance.mean_and_sd(values) if values else (math.nan, math.nan)
    return None if mean != mean else mean, None if sd != sd else sd


def _repetitions_row(name: str, group: Sequence[RunSummary]) -> dict[str, Any]:
    """A setting as a row of the table."""
    line: dict[str, Any] = {
        "settings": name,
        "runs": len(group),
        "folds": len({s.config.data.fold for s in group}),
        "seeds": len({s.config.seed for s in group}),
        "test people": len({p for s in group for p in results.s4_people(s.results, s.table)}),
        "trainings": _counts_text(s.row("S1").trainings for s in group),
    }
    for row in figures.ROW_COLOURS:
        values = [v for v, _ in _accuracy_points(group, row)]
        line[f"{row}, %"], line[f"{row}, sd"] = _mean_and_sd(values)
    return line


def _counts_text(counts: Iterable[int]) -> str:
    """Different numbers in order: "3", or "1 and 3"."""
    return " and ".join(map(str, sorted(set(counts))))


def _other_folds_command(s: RunSummary) -> str:
    """The command that trains the other folds of a run's settings."""
    condition, share = s.config.gan.condition, s.config.data.sets[3]
    folds = max(1, round(1 / share)) if share > 0 else 1
    settings = comparison.without_fold_and_seed(s.config)
    for preset, config in PRESETS.items():
        base: Config = replace(config, gan={"condition": condition})
        if comparison.without_fold_and_seed(base) == settings:
            return (
                f"python -m core sweep --grid studio --preset {preset} --condition {condition} "
                f"--folds {folds} --seeds 1 --table"
            )
    command = f"python -m core train --config-file {cache.run_by_id(s.id).directory}/config.json"
    others = " ".join(str(f) for f in range(folds) if f != s.config.data.fold)
    return f"for fold in {others}; do {command} --data.fold $fold; done"


# ------------------------------------------------------------------ the paper's tables


def show_paper(found: Sequence[RunSummary]) -> None:
    """Tables 1 and 2 on one base of settings, beside the paper's figures."""
    bases = {b.title: b for b in protocol.base_settings()}
    of = {title: comparison.runs_by_case(b.config, found) for title, b in bases.items()}
    count = {title: len({s.id for m in cases.values() for s in m}) for title, cases in of.items()}
    order = sorted(bases, key=lambda t: -count[t])
    left, right = st.columns(2, gap="large")
    with left:
        title = runs.choose_from_list(
            "Settings to start from",
            "base",
            order,
            order[0],
            format_func=lambda t: f"{t} · {count[t]} {'run' if count[t] == 1 else 'runs'}",
            help="Every case of the paper changes some of these settings. "
            "Runs are found by their settings, not by their name.",
        )
    base, here = bases[title], of[title]
    with right:
        kinds = list(GENERATOR_NAMES.values())
        n_runs = {k: sum(map(len, comparison.by_condition(here, k).values())) for k in kinds}
        usual = max(kinds, key=n_runs.__getitem__)
        about = "The paper's are EncDec and U-Net (Fig. 4); the convolutional one is ours."
        kind = runs.choose_one("Generator of Table 2", "generator", kinds, usual, str, help=about)
    _show_comparability(base)
    st.header("Table 2: baselines and conditions")
    second = comparison.table_2(comparison.by_condition(here, kind))
    _show_with_foreign(comparison.table_2_rows(second), base, "Table 2, ours beside the paper's")
    st.caption(
        f"{_repetitions_note(second)} Grey: the paper's figures that do not compare with ours, as "
        "they are of another corpus, or of another scorer (FID and IS always)."
    )
    st.header("Table 1: generators, accuracy with S1 + generated, %")
    first = comparison.table_1(here)
    _show_with_foreign(comparison.table_1_rows(first), base, "Table 1, ours beside the paper's")
    st.caption("The paper's column is of CREMA-D.")
    entries = [("Table 1", e) for e in first] + [("Table 2", e) for e in second]
    runs.show_csv_download([_csv_row(*e) for e in entries], "paper")
    _show_missing_cases(base, here, kind)
    runs.show_command(base.command("report"))


def is_foreign(column: str, corpus: str) -> bool:
    """Whether a column of the paper's tables holds figures that do not compare with ours.

    `corpus` is the paper's name of the corpus that our settings use, "" for another one.
    """
    source, _, figure = column.partition(": ")
    if source == "ours" or figure in ("", "ours"):
        return False
    of = "CREMA-D" if figure == "paper" else source  # Table 1 is of CREMA-D
    return of != corpus or figure in ("FID", "IS")


def _show_with_foreign(rows: Sequence[Mapping[str, str]], base: BaseSettings, alt: str) -> None:
    """A table of ours and the paper's figures, in grey those that do not compare."""
    corpus = comparison.published_corpus(base.config)
    frame = pandas.DataFrame(list(rows))
    foreign = [c for c in frame.columns if is_foreign(c, corpus)]
    styled = frame.style.set_properties(subset=foreign, color=FOREIGN_COLOUR)
    st.dataframe(styled, hide_index=True, alt=alt)


def _show_missing_cases(base: BaseSettings, here: Mapping[str, Any], kind: str) -> None:
    names = [*(f"{kind} · {c}" for c in TABLE_CONDITIONS), *TABLE_1_CASES]
    missing = protocol.missing_cases(base, here, names)
    if not missing:
        return
    title = f"{len(missing)} cells have no run yet: commands that train them"
    with st.expander(title, icon=":material/model_training:", expanded=not here):
        st.markdown("All cases of the paper on these settings, each trained once:")
        st.code(base.command(), language="bash", wrap_lines=True)
        for name, command in missing.items():
            st.caption(name)
            st.code(command, language="bash", wrap_lines=True)


def _show_comparability(base: BaseSettings) -> None:
    d, corpus = base.config.data, comparison.published_corpus(base.config)
    ours = d.voices if d.faces == d.voices else f"{d.faces} faces and {d.voices} voices"
    words = (
        f"These settings use {ours}, the paper CREMA-D and RAVDESS: **another corpus, not "
        "comparable.** The paper's figures are only a yardstick."
    )
    if corpus:
        words = f"These settings use {corpus}, as the paper does: compare accuracies with care, "
        words += "as its sets are not known exactly."
    words += " FID and IS never compare: other scorer, other N, other classes."
    st.info(words, icon=":material/balance:")


def _repetitions_note(entries: Sequence[TableEntry]) -> str:
    n = max((len(e.values) for e in entries), default=0)
    scorers = max((e.n_scorers for e in entries), default=0)
    words = "Ours: one run of each case, so no spread."
    if n > 1:
        words = "Ours: mean ± sd over folds and seeds, in brackets the number of runs."
    if scorers > 1:
        words += f" FID and IS are averaged over {scorers} scorers, one per fold and seed."
    return words


def _csv_row(table: str, e: TableEntry) -> Mapping[str, Any]:
    mean, sd = _mean_and_sd(e.values)
    ours = {"mean": mean, "sd": sd, "runs": len(e.values)}
    paper = {f"paper, {c}": v for c, v in e.published.items()}
    return {"table": table, "case": e.case, "figure": e.metric, **ours, **paper}
