"""The augmentation table of a run: its rows under both step rules, what generated voices add, and what the test behind it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from core.data import splits
from core.evaluation import comparison, protocol, significance
from core.evaluation.comparison import Summary
from core.evaluation.significance import Gain
from core.experiments import tasks
from core.runs import Run
from ui import theme
from ui.evaluate import figures, runs
from ui.session import cache, corpora
from ui.widgets import task_progress

LEVEL = 0.05
ASKED = {
    "a": "Do generated {0} help where there are only S1's?",
    "b": "Do generated {0} help beside S3's real {0} with their labels?",
}
TEST = """
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
def _arrays(path: Path, stamp: int) -> dict[str, np.ndarray]:
    return Run(path.parent).arrays(path.stem)


def tables(found: Sequence[Summary]) -> list[dict[str, np.ndarray]]:
    """table.npz of the runs that have one."""
    paths = [cache.run(s.id).directory / "table.npz" for s in found]
    return [_arrays(p, p.stat().st_mtime_ns) for p in paths if p.exists()]


@st.cache_data(show_spinner="Testing over people …", max_entries=64)
def _gains(paths: tuple[tuple[Path, int], ...]) -> list[Gain]:
    return significance.gains([_arrays(*p) for p in paths])


def gains(found: Sequence[Summary]) -> list[Gain]:
    """The comparisons over the tables of these runs; [] where none has one."""
    paths = [cache.run(s.id).directory / "table.npz" for s in found]
    there = tuple((p, p.stat().st_mtime_ns) for p in paths if p.exists())
    return _gains(there) if there else []


def hindrance(s: Summary) -> str:
    """Why this run's table cannot be computed here, in words; "" where it can."""
    lacking = [n for n in ("G", "Q", "f_S") if not cache.run(s.id).model(n).exists()]
    if lacking:
        return f"{s.id} has no networks {', '.join(lacking)} here."
    d, then = s.config.data, cache.run(s.id).json("corpus")
    for role, name in {"faces": d.faces, "voices": d.voices}.items():
        path = splits.path_of(name, d.demo_takes)
        known = corpora.opened(path.stem) if path.exists() else f"The corpus {name} is not prepared here: the page Data says how."
        if isinstance(known, str):
            return known
        was = then.get(role, {})
        if not splits.resembles(known.meta | {"clips": len(known.clip)}, was):  # the computation itself looks closer
            return (
                f"The corpus {name} that is prepared here ({len(known.clip):,} clips, {known.meta['digest']}) is not the one that {s.id} "
                f"was trained on ({was.get('clips', 0):,} clips, {was.get('digest', 'unknown')}), so its people could be divided "
                "otherwise. On the same settings trained here the table can be made."
            )
    return ""


# ------------------------------------------------------------------ the view


def show(picked: Sequence[Summary], found: Sequence[Summary]) -> None:
    """The view of one run: what generated voices add to a voice classifier, and whether that is more than chance."""
    done = [s for s in picked if s.results]
    if not done:
        st.info("The augmentation table is made from a finished run. None of the chosen runs is.", icon=":material/hourglass_empty:")
        return
    names = comparison.short_names(done)
    left, right = st.columns(2, gap="large", vertical_alignment="bottom")
    with left:
        s = {x.id: x for x in done}[runs.select("Run", "run", list(names), done[0].id, format_func=names.get)]
    made = cache.run(s.id).json("table")
    if not made:
        _rows(s, made)
        _compute(s)
        return
    together = next(g for g in comparison.repetitions(found) if s.id in {x.id for x in g})
    scope, told = [s], [x for x in together if cache.run(x.id).json("table")]
    if len(told) > 1:
        words = {"one": "This run", "all": f"All {len(told)} folds and seeds"}
        with right:
            scope = told if runs.one("Tested over", "over", tuple(words), "all", words.get) == "all" else scope
    tested = gains(scope)
    _verdicts(tested, s.made)
    _rows(s, made)
    _list(tested)
    _chance(tested, tables(scope))
    with st.expander("How to read these tests", icon=":material/school:"):
        st.markdown(TEST)
    runs.command(f"python -m core table {s.id} --seeds {made['plan']['seeds']}")


def _rows(s: Summary, made: Mapping[str, Any]) -> None:
    """Accuracy of every row; of a run without a table those few that each run has."""
    r = s.results
    st.markdown(f"**What a classifier of {s.made} learns from** in this run: S1's real ones alone, or more; judged on S4's real ones.")
    if made:
        people, plan = len(made["test subjects"]), made["plan"]
        of = {row: {rule: [100 * v for v in t[rule]["accuracy"]] for rule in figures.RULES} for row, t in made["rows"].items()}
        few = f"{people} test people · {plan['seeds']} trainings of each row"
        n = made["N test voices"] if s.made == "voices" else s.n
    else:
        of = {row: {"equal": [100 * t["accuracy"]]} for row, t in r["augmentation"].items()}
        few, n = "one training of each row, at equal steps", s.n
    st.caption(f"Labels of S3: {s.labels} · {len(r['classes'])} emotions, chance {100 * r['chance']:.1f} % · N = {n} {s.made} · {few}.")
    figure, save = figures.rows(of, 100 * r["chance"], s.made), figures.config(f"augmentation-{s.id}")
    st.plotly_chart(figure, key="rows", config=save, alt="accuracy of each row of the augmentation table")
    lines = [_line(row, t, r, made) for row, t in (made["rows"] if made else r["augmentation"]).items()]
    numbers = {k: st.column_config.NumberColumn(format="%.1f") for k in lines[0] if k.endswith("%") or k.endswith("sd")}
    with st.expander("The rows as a table", icon=":material/table:", expanded=not made):
        columns = {k: [x[k] for x in lines] for k in lines[0]}
        high = 38 + 35 * len(lines)
        st.dataframe(columns, hide_index=True, height=high, column_config=numbers, placeholder="–", alt="the augmentation table")
        runs.download(lines, f"augmentation-{s.id}")
    for row, why in made.get("left out", {}).items():
        st.caption(f"{row}: left out, as {why}.")


def _line(row: str, t: Mapping[str, Any], r: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    if not made:
        return {"trained on": row, "N": t["N train"], "equal steps, %": 100 * t["accuracy"]}
    line: dict[str, Any] = {"trained on": row, "N": t["N train"]}
    for rule, words in figures.RULES.items():
        mean, sd = significance.spread([100 * v for v in t[rule]["accuracy"]])
        line |= {f"{words}, %": mean, f"{words}, sd": None if sd != sd else sd}
    steps = sorted(t["best"]["steps"])
    return line | {"its best steps (S2)": f"{steps[0]}" if steps[0] == steps[-1] else f"{steps[0]}–{steps[-1]}"}


def _compute(s: Summary) -> None:
    """The table is not there yet: what it is, and a button that makes it in the background."""
    st.subheader("The whole table")
    rows = len(protocol.ROWS)
    st.markdown(
        f"It has {rows} rows, two rules for the training time, several trainings of each, and a test over people of whether it helps to "
        "add what is generated. Nothing of the GAN is trained again. It takes some minutes, goes on when you leave, and can be stopped and "
        "continued."
    )
    if why := hindrance(s):
        st.warning(theme.escaped(why), icon=":material/block:")
        runs.command(f"python -m core train --config-file {cache.run(s.id).directory}/config.json", said="Train it here, in a terminal:")
        return
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    seeds = int(left.number_input("Trainings of each row", 1, 9, 3, key="table seeds", persist_state="session"))
    work = [e for e in tasks.listing("table") if e.arguments[1] == s.id and e.state != "done"]
    busy = any(e.state == "running" for e in work)
    if right.button("Compute the table", icon=":material/play_arrow:", type="primary", key="compute table", disabled=busy):
        try:
            tasks.start(["table", s.id, "--seeds", str(seeds)])
        except OSError as error:
            st.error(theme.escaped(f"It cannot be started: {error}"), icon=":material/error:")
            return
        st.rerun()
    if work:
        task_progress.watch(work[0].id)
    runs.command(f"python -m core table {s.id} --seeds {seeds}")


# ------------------------------------------------------------------ what was gained


def reasons(found: Sequence[Gain], name: str) -> list[str]:
    """Why a gain does not hold, in words; [] where it does."""
    both, out = [g for g in found if g.name == name], []
    for g in both:
        rule = figures.RULES[g.rule]
        if g.difference <= 0:
            out.append(f"at {rule} what is generated does not help but costs {-100 * g.difference:.1f} points")
        elif g.adjusted >= LEVEL:
            out.append(f"at {rule} chance alone brings as much in {100 * g.adjusted:.0f} of 100 cases")
    least = significance.least_p(min((g.subjects for g in both), default=0))
    if least >= LEVEL:
        out.append(f"with {both[0].subjects} test people no p below {least:.4f} is possible, whatever the gain: more folds are needed")
    return out


def _verdicts(found: Sequence[Gain], made: str) -> None:
    st.subheader(f"What generated {made} add")
    for column, name in zip(st.columns(2, gap="large"), ASKED):
        both = [g for g in found if g.name == name]
        with column:
            st.markdown(f"**({name}) {ASKED[name].format(made)}**")
            if not both:
                st.caption("This table does not hold the rows for it.")
                continue
            holds = significance.holds(found, name, LEVEL)
            st.markdown(":green-badge[**It holds**] under both rules." if holds else ":orange-badge[**Not shown**] by this table.")
            for g in both:
                low, high = (100 * v for v in g.interval)
                share = "" if g.recovered is None else f" · {100 * g.recovered:.0f} % of the way to the ceiling"
                st.markdown(
                    f"- {figures.RULES[g.rule].capitalize()}: **{runs.signed(100 * g.difference)} points** "
                    f"(95 %: {runs.signed(low)} to {runs.signed(high)}), p = {g.p:.3f}{share}"
                )
            if not holds:
                st.caption("Why not: " + "; ".join(reasons(found, name)) + ".")


def _list(found: Sequence[Gain]) -> None:
    """Every comparison, as a figure and a table."""
    figure, save = figures.gains(found), figures.config("gains")
    st.plotly_chart(figure, key="gains", config=save, alt="differences in accuracy of all comparisons with their intervals")
    lines = [
        {
            "comparison": figures.WORDS.get(g.name, g.name),
            "steps": figures.RULES[g.rule],
            "rows": " − ".join(g.rows),
            "points": 100 * g.difference,
            "from": 100 * g.interval[0],
            "to": 100 * g.interval[1],
            "p": g.p,
            "p, Holm": g.adjusted,
            "people": g.subjects,
            "of the way to the ceiling, %": None if g.recovered is None else 100 * g.recovered,
            "above 0 and p < 0.05": g.difference > 0 and g.adjusted < LEVEL,
        }
        for g in found
    ]
    numbers = {k: st.column_config.NumberColumn(format="%+.1f") for k in ("points", "from", "to")}
    numbers |= {k: st.column_config.NumberColumn(format="%.4f") for k in ("p", "p, Holm")}
    numbers["of the way to the ceiling, %"] = st.column_config.NumberColumn(format="%.0f")
    with st.expander("All comparisons as a table", icon=":material/table:"):
        st.dataframe(
            {k: [x[k] for x in lines] for k in lines[0]}, hide_index=True, column_config=numbers, placeholder="–", alt="all comparisons"
        )
        st.caption("*p, Holm*: raised because there are several secondary comparisons; (a) and (b) are asked first and stand as they are.")
        runs.download(lines, "gains")


def _chance(found: Sequence[Gain], of: Sequence[Mapping[str, np.ndarray]]) -> None:
    """The test seen, for one comparison."""
    st.subheader("Is it more than chance?")
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        names = list(dict.fromkeys(g.name for g in found))
        name = runs.select("Comparison", "gain", names, names[0], format_func=lambda k: figures.WORDS.get(k, k))
    with right:
        rule = runs.one("Steps", "steps", tuple(figures.RULES), "best", figures.RULES.get)
    people, d = significance.by_subject(of, name, rule)
    g = next(g for g in found if g.name == name and g.rule == rule)
    alt, save = "each person's difference, and the means that tossed signs would give", figures.config("sign-flip")
    st.plotly_chart(figures.chance(people, d, g.p), key="chance", config=save, alt=alt)
    st.caption(f"{' − '.join(g.rows)}: {len(d)} people; the smallest p possible with so many is {significance.least_p(len(d)):.2g}.")
    runs.download([{"person": who, "points": 100 * v} for who, v in zip(people, d.tolist())], "people")
