"""Repetitions over folds and seeds (the paper's Fig. 9), and its Tables 1 and 2 filled from the runs that exist."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.config import PRESETS, Config, replace
from core.evaluation import comparison, significance
from core.evaluation.comparison import (
    GENERATOR_NAMES,
    TABLE_CONDITIONS,
    BaseSettings,
    RunSummary,
    TableEntry,
)
from core.paper import PUBLISHED_TABLE_1, PUBLISHED_TABLE_2
from ui import theme
from ui.evaluate import figures, runs
from ui.session import cache

TABLE_1_CASES = [f"{kind} · {c}" for kind in PUBLISHED_TABLE_1 for c in TABLE_CONDITIONS]
METRIC_LABELS = {"accuracy": "accuracy, %", "FID": "FID", "IS": "IS"}
METRIC_DIGITS = {"accuracy": 1, "FID": 2, "IS": 2}

# ------------------------------------------------------------------ folds


def show_folds(picked: Sequence[RunSummary], found: Sequence[RunSummary]) -> None:
    """Every setting with its repetitions: those of the chosen runs, or of all runs on the same corpora."""
    st.markdown(
        "A fold is a group of test people. Only several folds tell how much is luck: each run is a point, the bar mean ± sd."
    )
    done = [s for s in picked if s.results]
    if not done:
        st.info(
            "None of the chosen runs is finished, so there is nothing to repeat yet.",
            icon=":material/hourglass_empty:",
        )
        return
    every = st.toggle(
        "All settings on these corpora, not only the chosen runs'",
        key="fold all",
        persist_state="session",
    )
    kinds = dict.fromkeys((s.corpus, s.config.data.classes, s.made) for s in done)
    ids = {s.id for s in done}
    groups = [
        g
        for g in comparison.repetitions(found)
        if (g[0].corpus, g[0].config.data.classes, g[0].made) in kinds
    ]
    groups = groups if every else [g for g in groups if ids & {s.id for s in g}]
    names = comparison.short_names([_first_run(g) for g in groups])
    lines = []
    for corpus, classes, what in kinds:
        of = {
            names[g[0].id]: g
            for g in groups
            if (g[0].corpus, g[0].config.data.classes, g[0].made) == (corpus, classes, what)
        }
        points = {
            name: {row: _accuracy_points(g, row) for row in figures.ROW_COLOURS}
            for name, g in of.items()
        }
        figure, save = (
            figures.fold_accuracies(points, 100 / len(classes), what),
            figures.export_config(f"folds-{corpus}".replace(" × ", "-")),
        )
        st.markdown(f"**{theme.escape_markdown(corpus)}**, {len(classes)} emotions, {what}")
        st.plotly_chart(
            figure,
            key=f"folds {corpus} {len(classes)} {what}",
            config=save,
            alt="accuracy over folds and seeds, mean and sd",
        )
        lines += [_repetitions_row(name, g) for name, g in of.items()]
    st.dataframe(
        {k: [x[k] for x in lines] for k in lines[0]},
        hide_index=True,
        column_config={
            k: st.column_config.NumberColumn(format="%.1f")
            for k in lines[0]
            if "%" in k or k.endswith("sd")
        },
        placeholder="–",
        alt="mean and sd over folds and seeds",
    )
    st.caption(
        "sd is that of single runs (n − 1); one run has none. S1, generated and ceiling of one run share its test people."
    )
    runs.show_csv_download(lines, "folds")
    alone = [g[0] for g in groups if len({s.config.data.fold for s in g}) < 2]
    if alone:
        st.info(
            f"{len(alone)} of {len(groups)} settings have one fold only, so no sd over people.",
            icon=":material/groups:",
        )
        runs.show_command(
            *dict.fromkeys(_other_folds_command(s) for s in alone[:3]),
            said="More folds, in a terminal:",
        )


def _first_run(group: Sequence[RunSummary]) -> RunSummary:
    return group[0]


def _accuracy_points(group: Sequence[RunSummary], row: str) -> list[tuple[float, str]]:
    return [
        (100 * v, f"fold {s.config.data.fold}, seed {s.config.seed}")
        for s in group
        if not math.isnan(v := s.accuracy(row))
    ]


def _repetitions_row(name: str, group: Sequence[RunSummary]) -> dict[str, Any]:
    """A setting as a line of a table."""
    line: dict[str, Any] = {
        "settings": name,
        "runs": len(group),
        "folds": len({s.config.data.fold for s in group}),
        "seeds": len({s.config.seed for s in group}),
        "test people": len({p for s in group for p in s.results.get("subjects", {}).get("S4", ())}),
    }
    for row in figures.ROW_COLOURS:
        mean, sd = (
            significance.mean_and_sd([v for v, _ in _accuracy_points(group, row)])
            if _accuracy_points(group, row)
            else (math.nan, math.nan)
        )
        line |= {
            f"{row}, %": None if mean != mean else mean,
            f"{row}, sd": None if sd != sd else sd,
        }
    return line


def _other_folds_command(s: RunSummary) -> str:
    """What trains the other folds of a run's settings."""
    condition = s.config.gan.condition
    for preset, config in PRESETS.items():
        if comparison.without_fold_and_seed(
            replace(config, gan={"condition": condition})
        ) == comparison.without_fold_and_seed(s.config):
            return f"python -m core sweep --grid studio --preset {preset} --condition {condition} --folds {_fold_count(s.config)} --seeds 1 --table"
    file = cache.run_by_id(s.id).directory / "config.json"
    others = " ".join(str(f) for f in range(_fold_count(s.config)) if f != s.config.data.fold)
    return f"for fold in {others}; do python -m core train --config-file {file} --data.fold $fold; done"


def _fold_count(config: Config) -> int:
    share = config.data.sets[3]
    return max(1, round(1 / share)) if share > 0 else 1


# ------------------------------------------------------------------ the paper's tables


def show_paper(found: Sequence[RunSummary]) -> None:
    """Tables 1 and 2 on one base of settings, beside the paper's figures."""
    bases = {b.title: b for b in comparison.base_settings()}
    of = {title: comparison.runs_by_case(b.config, found) for title, b in bases.items()}
    count = {
        title: len({s.id for members in m.values() for s in members}) for title, m in of.items()
    }
    order = sorted(bases, key=lambda t: -count[t])
    said = lambda t: f"{t} · {count[t]} {'run' if count[t] == 1 else 'runs'}"  # noqa: E731
    left, right = st.columns(2, gap="large")
    with left:
        about = "Every case of the paper is a difference of settings from these. Runs are found by their settings, whatever their name."
        title = runs.choose_from_list(
            "Settings to start from", "base", order, order[0], format_func=said, help=about
        )
    base, here = bases[title], of[title]
    with right:
        kinds = list(GENERATOR_NAMES.values())
        usual = max(
            kinds, key=lambda k: sum(len(here.get(f"{k} · {c}", ())) for c in TABLE_CONDITIONS)
        )
        about = "The paper's are EncDec and U-Net (Fig. 4); the convolutional one is ours."
        kind = runs.choose_one("Generator of Table 2", "generator", kinds, usual, str, help=about)
    _show_comparability(base)
    st.subheader("Table 2: baselines and conditions")
    second = comparison.table_2(here, kind)
    st.dataframe(_table_2_rows(second), hide_index=True, alt="Table 2, ours beside the paper's")
    st.caption(_repetitions_note(second))
    st.subheader("Table 1: generators, accuracy with S1 + generated, %")
    first = comparison.table_1(here)
    st.dataframe(_table_1_rows(first), hide_index=True, alt="Table 1, ours beside the paper's")
    st.caption("The paper's column is of CREMA-D.")
    runs.show_csv_download(
        [_csv_row("Table 1", e) for e in first] + [_csv_row("Table 2", e) for e in second], "paper"
    )
    lacking = comparison.missing_cases(
        base, here, [*(f"{kind} · {c}" for c in TABLE_CONDITIONS), *TABLE_1_CASES]
    )
    if lacking:
        with st.expander(
            f"{len(lacking)} cells have no run yet: what trains them",
            icon=":material/model_training:",
            expanded=not here,
        ):
            st.markdown("All cases of the paper on these settings, each trained once:")
            st.code(base.command(), language="bash", wrap_lines=True)
            for name, command in lacking.items():
                st.caption(name)
                st.code(command, language="bash", wrap_lines=True)
    runs.show_command(base.command("report"))


def _show_comparability(base: BaseSettings) -> None:
    d, corpus = base.config.data, comparison.published_corpus(base.config)
    ours = d.voices if d.faces == d.voices else f"{d.faces} faces and {d.voices} voices"
    if corpus:
        words = f"These settings use {corpus}, as the paper does: compare accuracies with care, as its sets are not known exactly."
    else:
        words = f"These settings use {ours}, the paper CREMA-D and RAVDESS: **another corpus, not comparable.** The paper's are a yardstick."
    st.info(
        f"{words} FID and IS never compare: other scorer, other N, other classes.",
        icon=":material/balance:",
    )


def _our_value(e: TableEntry) -> str:
    """Mean ± sd, and over how many runs; a dash for none."""
    if not e.values:
        return "–"
    mean, sd = significance.mean_and_sd(e.values)
    d = METRIC_DIGITS[e.metric]
    return f"{mean:.{d}f}" + ("" if math.isnan(sd) else f" ± {sd:.{d}f} ({len(e.values)})")


def _published_value(e: TableEntry, corpus: str) -> str:
    return f"{e.published[corpus]:.2f}" if corpus in e.published else "–"


def _table_1_rows(entries: Sequence[TableEntry]) -> list[dict[str, str]]:
    at = {e.case: e for e in entries}
    rows = []
    for c in TABLE_CONDITIONS:
        row = {"condition": c}
        for kind in PUBLISHED_TABLE_1:
            e = at[f"{kind} · {c}"]
            row |= {
                f"{kind}: ours": _our_value(e),
                f"{kind}: paper": _published_value(e, "CREMA-D"),
            }
        rows.append(row)
    return rows


def _table_2_rows(entries: Sequence[TableEntry]) -> list[dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for e in entries:
        places = [
            f"{whose}: {u}"
            for whose in ("ours", *PUBLISHED_TABLE_2)
            for u in METRIC_LABELS.values()
        ]
        row = rows.setdefault(e.case, {"case": e.case} | dict.fromkeys(places, ""))
        row[f"ours: {METRIC_LABELS[e.metric]}"] = _our_value(e)
        row |= {
            f"{corpus}: {METRIC_LABELS[e.metric]}": _published_value(e, corpus)
            for corpus in PUBLISHED_TABLE_2
        }
    return list(rows.values())


def _repetitions_note(entries: Sequence[TableEntry]) -> str:
    n = max((len(e.values) for e in entries), default=0)
    scorers = max((e.n_scorers for e in entries), default=0)
    words = (
        "Ours: mean ± sd over folds and seeds, in brackets how many runs."
        if n > 1
        else "Ours: one run of each case, so no spread."
    )
    return words + (
        f" FID and IS are averaged over {scorers} scorers, one of each fold and seed."
        if scorers > 1
        else ""
    )


def _csv_row(table: str, e: TableEntry) -> Mapping[str, Any]:
    mean, sd = significance.mean_and_sd(e.values) if e.values else (math.nan, math.nan)
    ours = {
        "mean": None if mean != mean else mean,
        "sd": None if sd != sd else sd,
        "runs": len(e.values),
    }
    return {
        "table": table,
        "case": e.case,
        "figure": e.metric,
        **ours,
        **{f"paper, {c}": v for c, v in e.published.items()},
    }
