"""The augmentation table of a run: rows under both step rules, gains, and the test behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from core.data import prepared_corpora
from core.evaluation import comparison, protocol, results, significance
from core.evaluation.comparison import RunSummary
from core.evaluation.significance import STEP_RULE_NAMES, Gain
from core.experiments import tasks
from core.runs.directory import Run
from ui import theme
from ui.evaluate import figures, runs
from ui.session import cache, corpora
from ui.widgets import task_progress

SIGNIFICANCE_LEVEL = 0.05
QUESTIONS = {
    "a": "Do generated {0} improve a classifier trained on S1 alone?",
    "b": "Do generated {0} help beside S3's real {0} with their labels?",
}
TEST_EXPLANATION = """
**The unit is a person.** A classifier that errs on one voice of an actor errs on others too, so
voices are not independent. For each test person we take one number: the accuracy with generated
voices minus the one without, averaged over trainings.

**The question of the test.** If generated voices changed nothing, each person's number would be as
likely positive as negative. So we flip the signs in all possible patterns and look at the mean.
*p* is the share of patterns whose mean is at least as far from 0 as the observed one (the coloured
bars). A small p means that chance rarely does this.

**The interval** contains the mean for 95 % of redrawn groups of these people (bootstrap). If it
contains 0, the sign of the gain is open. Fewer than eight people cannot be redrawn to any purpose:
the interval would be too narrow, so each person's own difference is shown instead.

**Two rules.** *Equal steps*: every classifier is trained equally long. *Own best steps*: each as
long as its accuracy on S2 improves. A gain counts only if it holds under both, so that it does not
depend on training time. There are many other comparisons, and of many tests some succeed by luck:
their p are raised by Holm's method.

**Few people prove little.** With *m* test people no p below 2/2^m is possible: 0.0625 for five.
Over all folds everybody is tested once."""


# ------------------------------------------------------------------ cached tables


@st.cache_data(show_spinner=False, max_entries=64)
def _load_table(path: Path, stamp: int) -> dict[str, np.ndarray]:
    return Run(path.parent).arrays(path.stem)


def _table_paths(found: Sequence[RunSummary]) -> tuple[tuple[Path, int], ...]:
    """table.npz of the runs that have one, with its time of change."""
    paths = [cache.run_by_id(s.id).directory / "table.npz" for s in found]
    return tuple((p, p.stat().st_mtime_ns) for p in paths if p.exists())


@st.cache_data(show_spinner="Testing over people …", max_entries=64)
def _compute_gains(paths: tuple[tuple[Path, int], ...]) -> list[Gain]:
    return significance.gains([_load_table(*p) for p in paths])


def obstacle_text(s: RunSummary) -> str:
    """Why this run's table cannot be computed here; "" if it can."""
    run = cache.run_by_id(s.id)
    missing = [n for n in ("G", "Q", "f_S") if not run.model_path(n).exists()]
    if missing:
        return f"{s.id} has no networks {', '.join(missing)} here."
    d = s.config.data
    for role, name in {"faces": d.faces, "voices": d.voices}.items():
        path = prepared_corpora.corpus_path(name, d.demo_takes)
        if not path.exists():
            return f"The corpus {name} is not prepared here: the page Data explains how."
        known = corpora.load_summary(path.stem)
        if isinstance(known, str):
            return known
        then, now = run.json("corpus").get(role, {}), known.meta | {"clips": len(known.clip)}
        if not prepared_corpora.is_same_corpus(now, then):  # the computation checks more closely
            return (
                f"The corpus {name} that is prepared here ({now['clips']:,} clips, "
                f"{now['digest']}) is not the one on which {s.id} was trained "
                f"({then.get('clips', 0):,} clips, {then.get('digest', 'unknown')}), so its people "
                "could be split differently. Train the same settings here to make the table."
            )
    return ""


# ------------------------------------------------------------------ the view


def show_table(picked: Sequence[RunSummary], found: Sequence[RunSummary]) -> None:
    """The view of one run: the gain of generated voices, and whether it is more than chance."""
    done = [s for s in picked if s.results]
    if not done:
        words = "The augmentation table needs a finished run. None of the chosen runs is."
        st.info(words, icon=":material/hourglass_empty:")
        return
    names = comparison.short_names(done)
    left, right = st.columns(2, gap="large", vertical_alignment="bottom")
    with left:
        ids = list(names)
        chosen = runs.choose_from_list("Run", "run", ids, ids[0], format_func=names.get)
    s = next(x for x in done if x.id == chosen)
    table = cache.run_by_id(s.id).json("table")
    if not table:
        _show_rows(s, table)
        _show_computation(s)
        return
    repeated = next(g for g in comparison.repetitions(found) if s.id in {x.id for x in g})
    scope, tabled = [s], [x for x in repeated if cache.run_by_id(x.id).json("table")]
    if len(tabled) > 1:
        scopes = {"one": "This run", "all": f"All {len(tabled)} folds and seeds"}
        with right:
            over = runs.choose_one("Tested over", "over", tuple(scopes), "all", scopes.get)
        scope = tabled if over == "all" else scope
    paths = _table_paths(scope)
    tested = _compute_gains(paths) if paths else []
    _show_verdicts(tested, s.modality)
    _show_rows(s, table)
    _show_comparisons(tested)
    _show_sign_flip_test(tested, [_load_table(*p) for p in paths])
    with st.expander("How to read these tests", icon=":material/school:"):
        st.markdown(TEST_EXPLANATION)
    runs.show_command(f"python -m core table {s.id} --seeds {table['plan']['seeds']}")


def _show_rows(s: RunSummary, table: Mapping[str, Any]) -> None:
    """Accuracy of every row; without a table, of the few rows in the results."""
    r = s.results
    st.markdown(
        f"**Training sets of a classifier of {s.modality}**: S1's real ones alone, or more; "
        "tested on S4's real ones."
    )
    if table:
        of = {
            row: {rule: [100 * v for v in t[rule]["accuracy"]] for rule in STEP_RULE_NAMES}
            for row, t in table["rows"].items()
        }
        note = f"{table['plan']['seeds']} trainings of each row"
    else:
        of = {row: {"equal": [100 * t["accuracy"]]} for row, t in r["augmentation"].items()}
        note = "one training of each row, at equal steps"
    st.caption(
        f"Labels of S3: {s.labels} · {len(r['classes'])} emotions, "
        f"chance {100 * r['chance']:.1f} % · N = {results.s4_text(r, table)} · {note}."
    )
    st.plotly_chart(
        figures.row_accuracies(of, 100 * r["chance"], s.modality),
        key="rows",
        config=figures.export_config(f"augmentation-{s.id}"),
        alt="accuracy of each row of the augmentation table",
    )
    rows = table["rows"] if table else r["augmentation"]
    lines = [_table_line(row, t, bool(table)) for row, t in rows.items()]
    number = st.column_config.NumberColumn(format="%.1f")
    columns = {k: number for k in lines[0] if k.endswith(("%", "sd"))}
    with st.expander("The rows as a table", icon=":material/table:", expanded=not table):
        height = 38 + 35 * len(lines)
        runs.show_dataframe(lines, "the augmentation table", columns, height=height)
        runs.show_csv_download(lines, f"augmentation-{s.id}")
    for row, why in table.get("left out", {}).items():
        st.caption(f"{row}: left out, as {why}.")


def _table_line(row: str, t: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    """A row as a record: of the whole table, or of the results."""
    line: dict[str, Any] = {"trained on": row, "N": t["N train"]}
    if not whole:
        return line | {"equal steps, %": 100 * t["accuracy"]}
    for rule, words in STEP_RULE_NAMES.items():
        mean, sd = significance.mean_and_sd([100 * v for v in t[rule]["accuracy"]])
        line |= {f"{words}, %": mean, f"{words}, sd": None if sd != sd else sd}
    first, last = min(t["best"]["steps"]), max(t["best"]["steps"])
    return line | {"its best steps (S2)": f"{first}" if first == last else f"{first}–{last}"}


def _show_computation(s: RunSummary) -> None:
    """Explain the missing table; a button computes it in the background."""
    st.header("The whole table")
    st.markdown(
        f"It has {len(protocol.TABLE_ROWS)} rows, two rules for the training time, several "
        "trainings of each, and a test over people whether generated samples help. The GAN is not "
        "trained again. It takes some minutes, continues when you leave, and can be stopped and "
        "continued."
    )
    if why := obstacle_text(s):
        st.warning(theme.escape_markdown(why), icon=":material/block:")
        file = cache.run_by_id(s.id).directory / "config.json"
        command = f"python -m core train --config-file {file}"
        runs.show_command(command, title="Train it here, in a terminal:")
        return
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    label, key = "Trainings of each row", "table seeds"
    seeds = int(left.number_input(label, 1, 9, 3, key=key, persist_state="session"))
    work = [e for e in tasks.listing("table") if e.arguments[1] == s.id and e.state != "done"]
    look = {"icon": ":material/play_arrow:", "type": "primary", "key": "compute table"}
    busy = any(e.state == "running" for e in work)
    if right.button("Compute the table", disabled=busy, **look):
        try:
            tasks.start(["table", s.id, "--seeds", str(seeds)])
        except OSError as error:
            words = theme.escape_markdown(f"It cannot be started: {error}")
            st.error(words, icon=":material/error:")
            return
        st.rerun()
    if work:
        task_progress.watch_task(work[0].id)
    runs.show_command(f"python -m core table {s.id} --seeds {seeds}")


# ------------------------------------------------------------------ gains


def reasons_against(found: Sequence[Gain], name: str) -> list[str]:
    """Why a gain does not hold; [] if it does."""
    both, out = [g for g in found if g.name == name], []
    for g in both:
        rule = STEP_RULE_NAMES[g.rule]
        if g.difference <= 0:
            cost = f"{-100 * g.difference:.1f} points"
            out.append(f"at {rule} generated samples do not help but cost {cost}")
        elif g.adjusted >= SIGNIFICANCE_LEVEL:
            cases = f"{100 * g.adjusted:.0f} of 100 cases"
            out.append(f"at {rule} chance alone brings as much in {cases}")
    least = significance.min_p_value(min((g.subjects for g in both), default=0))
    if least >= SIGNIFICANCE_LEVEL:
        out.append(
            f"with {both[0].subjects} test people no p below {least:.4f} is possible, "
            "whatever the gain: more folds are needed"
        )
    return out


def _show_verdicts(found: Sequence[Gain], modality: str) -> None:
    st.header(f"What generated {modality} add")
    for column, name in zip(st.columns(2, gap="large"), QUESTIONS):
        both = [g for g in found if g.name == name]
        with column:
            st.markdown(f"**({name}) {QUESTIONS[name].format(modality)}**")
            if not both:
                st.caption("This table does not hold the rows for it.")
                continue
            holds = significance.is_significant(found, name, SIGNIFICANCE_LEVEL)
            verdict = ":orange-badge[**Not shown**] by this table."
            st.markdown(":green-badge[**It holds**] under both rules." if holds else verdict)
            for g in both:
                st.markdown(_verdict_item(g))
            if any(g.recovered is not None for g in both):
                st.caption(significance.CEILING_TEXT)
            if not holds:
                st.caption("Why not: " + "; ".join(reasons_against(found, name)) + ".")


def _verdict_item(g: Gain) -> str:
    """A gain under one rule as an item of a list."""
    points, extent = runs.signed_points(100 * g.difference), _extent_text(g)
    share = "" if g.recovered is None else f" · {100 * g.recovered:.0f} % of the way to the ceiling"
    rule = STEP_RULE_NAMES[g.rule].capitalize()
    return f"- {rule}: **{points} points** ({extent}), p = {g.p:.3f}{share}"


def _extent_text(g: Gain) -> str:
    """A gain's interval, or each person's difference where there are too few for one."""
    if g.interval is None:
        each = ", ".join(runs.signed_points(100 * d) for d in g.people.values())
        return f"its {g.subjects} people: {theme.escape_markdown(each)}"
    low, high = (runs.signed_points(100 * v) for v in g.interval)
    return f"95 %: {low} to {high}"


def _show_comparisons(found: Sequence[Gain]) -> None:
    """Every comparison, as a figure and a table."""
    st.plotly_chart(
        figures.gain_intervals(found),
        key="gains",
        config=figures.export_config("gains"),
        alt="differences in accuracy of all comparisons with their intervals",
    )
    share = "of the way to the ceiling, %"
    lines = [
        {
            "comparison": figures.COMPARISON_LABELS.get(g.name, g.name),
            "steps": STEP_RULE_NAMES[g.rule],
            "rows": " − ".join(g.rows),
            "points": 100 * g.difference,
            "from": 100 * g.interval[0] if g.interval else None,
            "to": 100 * g.interval[1] if g.interval else None,
            "p": g.p,
            "p, Holm": g.adjusted,
            "people": g.subjects,
            share: None if g.recovered is None else 100 * g.recovered,
            "above 0 and p < 0.05": g.difference > 0 and g.adjusted < SIGNIFICANCE_LEVEL,
        }
        for g in found
    ]
    formats = dict.fromkeys(("points", "from", "to"), "%+.1f") | {share: "%.0f"}
    formats |= dict.fromkeys(("p", "p, Holm"), "%.4f")
    columns = {k: st.column_config.NumberColumn(format=f) for k, f in formats.items()}
    with st.expander("All comparisons as a table", icon=":material/table:"):
        runs.show_dataframe(lines, "all comparisons", columns)
        st.caption(
            "*p, Holm*: raised because there are several secondary comparisons; "
            "(a) and (b) are tested first and are not raised. " + significance.CEILING_TEXT
        )
        runs.show_csv_download(lines, "gains")


def _show_sign_flip_test(found: Sequence[Gain], tables: Sequence[Mapping[str, np.ndarray]]) -> None:
    """The sign-flip test of one comparison, drawn."""
    st.header("Is it more than chance?")
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    labels, rules = figures.COMPARISON_LABELS, STEP_RULE_NAMES
    with left:
        names = list(dict.fromkeys(g.name for g in found))
        named = {k: labels.get(k, k) for k in names}
        name = runs.choose_from_list("Comparison", "gain", names, names[0], format_func=named.get)
    with right:
        rule = runs.choose_one("Steps", "steps", tuple(rules), "best", rules.get)
    of = significance.comparison_differences(tables, *significance.COMPARISONS[name], rule)[0]
    people, d = list(of), np.array(list(of.values()))
    g = next(g for g in found if g.name == name and g.rule == rule)
    st.plotly_chart(
        figures.sign_flip_test(people, d, g.p),
        key="chance",
        config=figures.export_config("sign-flip"),
        alt="each person's difference, and the means under flipped signs",
    )
    least = f"the smallest p possible with so many is {significance.min_p_value(len(d)):.2g}"
    st.caption(f"{' − '.join(g.rows)}: {len(d)} people; {least}.")
    points = [{"person": person, "points": 100 * v} for person, v in zip(people, d.tolist())]
    runs.show_csv_download(points, "people")
