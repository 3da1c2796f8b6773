"""The augmentation table of a run: its rows under both step rules, what generated voices add, and what the test behind it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from core.data import prepared_corpora
from core.data import splits
from core.evaluation import comparison, protocol, significance
from core.evaluation.comparison import RunSummary
from core.evaluation.significance import Gain
from core.experiments import tasks
from core.runs import Run
from ui import theme
from ui.evaluate import figures, runs
from ui.session import cache, corpora
from ui.widgets import task_progress

SIGNIFICANCE_LEVEL = 0.05
QUESTIONS = {
    "a": "Do generated {0} help where there are only S1's?",
    "b": "Do generated {0} help beside S3's real {0} with their labels?",
}
TEST_EXPLANATION = """
**The unit is a person.** A classifier that errs on one voice of an actor errs on others too, so voices are no independent tries.
For each test person we take one number: the accuracy with generated voices minus the one without, averaged over trainings.

**The question of the test.** If generated voices changed nothing, each person's number would be as likely positive as negative.
So we toss a coin for every sign and look at the mean, for all patterns of signs. *p* is the share of patterns whose mean is at
least as far from 0 as the one found (the coloured bars). A small p says: chance rarely does this.

**The interval** is where the mean lies for 95 % of redrawn groups of these people (bootstrap). If 0 is in it, the sign of the gain is open.

**Two rules.** *Equal steps*: every classifier is trained equally long. *Own best steps*: each as long as S2's voices like it. A gain
counts only if it holds under both, so that it is no matter of training time. The other comparisons are many, and of many tests some
succeed by luck: their p are raised by Holm's method.

**Few people say little.** With *m* test people no p below 2/2^m is possible: 0.0625 for five. Over all folds everybody is tested once."""


# ------------------------------------------------------------------ read


@st.cache_data(show_spinner=False, max_entries=64)
def _load_table(path: Path, stamp: int) -> dict[str, np.ndarray]:
    return Run(path.parent).arrays(path.stem)


def load_tables(found: Sequence[RunSummary]) -> list[dict[str, np.ndarray]]:
    """table.npz of the runs that have one."""
    paths = [cache.run_by_id(s.id).directory / "table.npz" for s in found]
    return [_load_table(p, p.stat().st_mtime_ns) for p in paths if p.exists()]


@st.cache_data(show_spinner="Testing over people …", max_entries=64)
def _compute_gains(paths: tuple[tuple[Path, int], ...]) -> list[Gain]:
    return significance.gains([_load_table(*p) for p in paths])


def compute_gains(found: Sequence[RunSummary]) -> list[Gain]:
    """The comparisons over the tables of these runs; [] where none has one."""
    paths = [cache.run_by_id(s.id).directory / "table.npz" for s in found]
    there = tuple((p, p.stat().st_mtime_ns) for p in paths if p.exists())
    return _compute_gains(there) if there else []


def obstacle_text(s: RunSummary) -> str:
    """Why this run's table cannot be computed here, in words; "" where it can."""
    lacking = [n for n in ("G", "Q", "f_S") if not cache.run_by_id(s.id).model_path(n).exists()]
    if lacking:
        return f"{s.id} has no networks {', '.join(lacking)} here."
    d, then = s.config.data, cache.run_by_id(s.id).json("corpus")
    for role, name in {"faces": d.faces, "voices": d.voices}.items():
        path = prepared_corpora.corpus_path(name, d.demo_takes)
        known = (
            corpora.load_summary(path.stem)
            if path.exists()
            else f"The corpus {name} is not prepared here: the page Data says how."
        )
        if isinstance(known, str):
            return known
        was = then.get(role, {})
        if not prepared_corpora.is_same_corpus(
            known.meta | {"clips": len(known.clip)}, was
        ):  # the computation itself looks closer
            return (
                f"The corpus {name} that is prepared here ({len(known.clip):,} clips, {known.meta['digest']}) is not the one that {s.id} "
                f"was trained on ({was.get('clips', 0):,} clips, {was.get('digest', 'unknown')}), so its people could be divided "
                "otherwise. On the same settings trained here the table can be made."
            )
    return ""


# ------------------------------------------------------------------ the view


def show_table(picked: Sequence[RunSummary], found: Sequence[RunSummary]) -> None:
    """The view of one run: what generated voices add to a voice classifier, and whether that is more than chance."""
    done = [s for s in picked if s.results]
    if not done:
        st.info(
            "The augmentation table is made from a finished run. None of the chosen runs is.",
            icon=":material/hourglass_empty:",
        )
        return
    names = comparison.short_names(done)
    left, right = st.columns(2, gap="large", vertical_alignment="bottom")
    with left:
        s = {x.id: x for x in done}[
            runs.choose_from_list("Run", "run", list(names), done[0].id, format_func=names.get)
        ]
    made = cache.run_by_id(s.id).json("table")
    if not made:
        _show_rows(s, made)
        _show_computation(s)
        return
    together = next(g for g in comparison.repetitions(found) if s.id in {x.id for x in g})
    scope, told = [s], [x for x in together if cache.run_by_id(x.id).json("table")]
    if len(told) > 1:
        words = {"one": "This run", "all": f"All {len(told)} folds and seeds"}
        with right:
            scope = (
                told
                if runs.choose_one("Tested over", "over", tuple(words), "all", words.get) == "all"
                else scope
            )
    tested = compute_gains(scope)
    _show_verdicts(tested, s.made)
    _show_rows(s, made)
    _show_comparisons(tested)
    _show_sign_flip_test(tested, load_tables(scope))
    with st.expander("How to read these tests", icon=":material/school:"):
        st.markdown(TEST_EXPLANATION)
    runs.show_command(f"python -m core table {s.id} --seeds {made['plan']['seeds']}")


def _show_rows(s: RunSummary, made: Mapping[str, Any]) -> None:
    """Accuracy of every row; of a run without a table those few that each run has."""
    r = s.results
    st.markdown(
        f"**What a classifier of {s.made} learns from** in this run: S1's real ones alone, or more; judged on S4's real ones."
    )
    if made:
        people, plan = len(made["test subjects"]), made["plan"]
        of = {
            row: {rule: [100 * v for v in t[rule]["accuracy"]] for rule in figures.STEP_RULE_LABELS}
            for row, t in made["rows"].items()
        }
        few = f"{people} test people · {plan['seeds']} trainings of each row"
        n = made["N test voices"] if s.made == "voices" else s.n
    else:
        of = {row: {"equal": [100 * t["accuracy"]]} for row, t in r["augmentation"].items()}
        few, n = "one training of each row, at equal steps", s.n
    st.caption(
        f"Labels of S3: {s.labels} · {len(r['classes'])} emotions, chance {100 * r['chance']:.1f} % · N = {n} {s.made} · {few}."
    )
    figure, save = (
        figures.row_accuracies(of, 100 * r["chance"], s.made),
        figures.export_config(f"augmentation-{s.id}"),
    )
    st.plotly_chart(
        figure, key="rows", config=save, alt="accuracy of each row of the augmentation table"
    )
    lines = [
        _table_line(row, t, r, made)
        for row, t in (made["rows"] if made else r["augmentation"]).items()
    ]
    numbers = {
        k: st.column_config.NumberColumn(format="%.1f")
        for k in lines[0]
        if k.endswith("%") or k.endswith("sd")
    }
    with st.expander("The rows as a table", icon=":material/table:", expanded=not made):
        columns = {k: [x[k] for x in lines] for k in lines[0]}
        high = 38 + 35 * len(lines)
        st.dataframe(
            columns,
            hide_index=True,
            height=high,
            column_config=numbers,
            placeholder="–",
            alt="the augmentation table",
        )
        runs.show_csv_download(lines, f"augmentation-{s.id}")
    for row, why in made.get("left out", {}).items():
        st.caption(f"{row}: left out, as {why}.")


def _table_line(
    row: str, t: Mapping[str, Any], r: Mapping[str, Any], made: Mapping[str, Any]
) -> dict[str, Any]:
    if not made:
        return {"trained on": row, "N": t["N train"], "equal steps, %": 100 * t["accuracy"]}
    line: dict[str, Any] = {"trained on": row, "N": t["N train"]}
    for rule, words in figures.STEP_RULE_LABELS.items():
        mean, sd = significance.mean_and_sd([100 * v for v in t[rule]["accuracy"]])
        line |= {f"{words}, %": mean, f"{words}, sd": None if sd != sd else sd}
    steps = sorted(t["best"]["steps"])
    return line | {
        "its best steps (S2)": f"{steps[0]}" if steps[0] == steps[-1] else f"{steps[0]}–{steps[-1]}"
    }


def _show_computation(s: RunSummary) -> None:
    """The table is not there yet: what it is, and a button that makes it in the background."""
    st.subheader("The whole table")
    rows = len(protocol.TABLE_ROWS)
    st.markdown(
        f"It has {rows} rows, two rules for the training time, several trainings of each, and a test over people of whether it helps to "
        "add what is generated. Nothing of the GAN is trained again. It takes some minutes, goes on when you leave, and can be stopped and "
        "continued."
    )
    if why := obstacle_text(s):
        st.warning(theme.escape_markdown(why), icon=":material/block:")
        runs.show_command(
            f"python -m core train --config-file {cache.run_by_id(s.id).directory}/config.json",
            said="Train it here, in a terminal:",
        )
        return
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    seeds = int(
        left.number_input(
            "Trainings of each row", 1, 9, 3, key="table seeds", persist_state="session"
        )
    )
    work = [e for e in tasks.listing("table") if e.arguments[1] == s.id and e.state != "done"]
    busy = any(e.state == "running" for e in work)
    if right.button(
        "Compute the table",
        icon=":material/play_arrow:",
        type="primary",
        key="compute table",
        disabled=busy,
    ):
        try:
            tasks.start(["table", s.id, "--seeds", str(seeds)])
        except OSError as error:
            st.error(
                theme.escape_markdown(f"It cannot be started: {error}"), icon=":material/error:"
            )
            return
        st.rerun()
    if work:
        task_progress.watch_task(work[0].id)
    runs.show_command(f"python -m core table {s.id} --seeds {seeds}")


# ------------------------------------------------------------------ what was gained


def reasons_against(found: Sequence[Gain], name: str) -> list[str]:
    """Why a gain does not hold, in words; [] where it does."""
    both, out = [g for g in found if g.name == name], []
    for g in both:
        rule = figures.STEP_RULE_LABELS[g.rule]
        if g.difference <= 0:
            out.append(
                f"at {rule} what is generated does not help but costs {-100 * g.difference:.1f} points"
            )
        elif g.adjusted >= SIGNIFICANCE_LEVEL:
            out.append(
                f"at {rule} chance alone brings as much in {100 * g.adjusted:.0f} of 100 cases"
            )
    least = significance.min_p_value(min((g.subjects for g in both), default=0))
    if least >= SIGNIFICANCE_LEVEL:
        out.append(
            f"with {both[0].subjects} test people no p below {least:.4f} is possible, whatever the gain: more folds are needed"
        )
    return out


def _show_verdicts(found: Sequence[Gain], made: str) -> None:
    st.subheader(f"What generated {made} add")
    for column, name in zip(st.columns(2, gap="large"), QUESTIONS):
        both = [g for g in found if g.name == name]
        with column:
            st.markdown(f"**({name}) {QUESTIONS[name].format(made)}**")
            if not both:
                st.caption("This table does not hold the rows for it.")
                continue
            holds = significance.is_significant(found, name, SIGNIFICANCE_LEVEL)
            st.markdown(
                ":green-badge[**It holds**] under both rules."
                if holds
                else ":orange-badge[**Not shown**] by this table."
            )
            for g in both:
                low, high = (100 * v for v in g.interval)
                share = (
                    ""
                    if g.recovered is None
                    else f" · {100 * g.recovered:.0f} % of the way to the ceiling"
                )
                st.markdown(
                    f"- {figures.STEP_RULE_LABELS[g.rule].capitalize()}: **{runs.signed_points(100 * g.difference)} points** "
                    f"(95 %: {runs.signed_points(low)} to {runs.signed_points(high)}), p = {g.p:.3f}{share}"
                )
            if not holds:
                st.caption("Why not: " + "; ".join(reasons_against(found, name)) + ".")


def _show_comparisons(found: Sequence[Gain]) -> None:
    """Every comparison, as a figure and a table."""
    figure, save = figures.gain_intervals(found), figures.export_config("gains")
    st.plotly_chart(
        figure,
        key="gains",
        config=save,
        alt="differences in accuracy of all comparisons with their intervals",
    )
    lines = [
        {
            "comparison": figures.COMPARISON_LABELS.get(g.name, g.name),
            "steps": figures.STEP_RULE_LABELS[g.rule],
            "rows": " − ".join(g.rows),
            "points": 100 * g.difference,
            "from": 100 * g.interval[0],
            "to": 100 * g.interval[1],
            "p": g.p,
            "p, Holm": g.adjusted,
            "people": g.subjects,
            "of the way to the ceiling, %": None if g.recovered is None else 100 * g.recovered,
            "above 0 and p < 0.05": g.difference > 0 and g.adjusted < SIGNIFICANCE_LEVEL,
        }
        for g in found
    ]
    numbers = {k: st.column_config.NumberColumn(format="%+.1f") for k in ("points", "from", "to")}
    numbers |= {k: st.column_config.NumberColumn(format="%.4f") for k in ("p", "p, Holm")}
    numbers["of the way to the ceiling, %"] = st.column_config.NumberColumn(format="%.0f")
    with st.expander("All comparisons as a table", icon=":material/table:"):
        st.dataframe(
            {k: [x[k] for x in lines] for k in lines[0]},
            hide_index=True,
            column_config=numbers,
            placeholder="–",
            alt="all comparisons",
        )
        st.caption(
            "*p, Holm*: raised because there are several secondary comparisons; (a) and (b) are asked first and stand as they are."
        )
        runs.show_csv_download(lines, "gains")


def _show_sign_flip_test(
    found: Sequence[Gain], tables: Sequence[Mapping[str, np.ndarray]]
) -> None:
    """The test seen, for one comparison."""
    st.subheader("Is it more than chance?")
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        names = list(dict.fromkeys(g.name for g in found))
        name = runs.choose_from_list(
            "Comparison",
            "gain",
            names,
            names[0],
            format_func=lambda k: figures.COMPARISON_LABELS.get(k, k),
        )
    with right:
        rule = runs.choose_one(
            "Steps", "steps", tuple(figures.STEP_RULE_LABELS), "best", figures.STEP_RULE_LABELS.get
        )
    of = significance.comparison_differences(tables, *significance.COMPARISONS[name], rule)[0]
    people, d = list(of), np.array(list(of.values()))
    g = next(g for g in found if g.name == name and g.rule == rule)
    alt, save = (
        "each person's difference, and the means that tossed signs would give",
        figures.export_config("sign-flip"),
    )
    st.plotly_chart(figures.sign_flip_test(people, d, g.p), key="chance", config=save, alt=alt)
    st.caption(
        f"{' − '.join(g.rows)}: {len(d)} people; the smallest p possible with so many is {significance.min_p_value(len(d)):.2g}."
    )
    runs.show_csv_download(
        [{"person": who, "points": 100 * v} for who, v in zip(people, d.tolist())], "people"
    )
