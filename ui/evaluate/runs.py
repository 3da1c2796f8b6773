"""Runs beside each other: which are chosen, the table of all, their curves; and what the other views of Evaluate share."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from core import files, runs
from core.evaluation import comparison
from core.evaluation.comparison import RunSummary
from core.runs import Run
from ui import theme
from ui.evaluate import figures
from ui.session import cache, query_params
from ui.session.cache import LIVE_STATES

MULTISELECT_KEY, MAX_COMPARED_RUNS = "compared runs", 12  # the widget, and how many runs it takes
METRIC_TITLES = {
    "FID": "FID (lower is better)",
    "KID": "KID (lower is better)",
    "IS": "IS (higher is better)",
    "recognised": "recognised by the scorer (share)",
    "diversity": "diversity (real voices: 1)",
    "loss/G": "loss of G",
    "loss/D": "loss of D",
}


# ------------------------------------------------------------------ cached


def load_summaries() -> tuple[list[RunSummary], list[str]]:
    """All runs, newest first, and what is wrong with those that cannot be read."""
    found, wrong = [], []
    for row in cache.run_rows():
        results = files.checkpoints_folder() / row["run"] / "results.json"
        stamp = results.stat().st_mtime_ns if results.exists() else 0
        try:
            found.append(
                _load_summary(
                    files.checkpoints_folder() / row["run"],
                    row["state"],
                    row["shipped"],
                    row["step"],
                    stamp,
                )
            )
        except ValueError as error:
            wrong.append(str(error))
    return comparison.with_scorers(found, files.checkpoints_folder()), wrong


@st.cache_resource(show_spinner=False, max_entries=1000)
def _load_summary(directory: Path, state: str, shipped: int, step: int, stamp: int) -> RunSummary:
    run = Run(directory)
    return comparison.summarise_run(
        run, {"state": state, "shipped": shipped}, runs.load_curves(run.id, directory.parent)
    )


# ------------------------------------------------------------------ which runs


def _parse_run_ids(text: str | None, known: Mapping[str, RunSummary]) -> list[str] | None:
    """The runs that an address names, None where it names none that is here."""
    named = [k for k in dict.fromkeys((text or "").split(",")) if k in known][:MAX_COMPARED_RUNS]
    return named if named or text == "" else None


def choose_runs(found: Sequence[RunSummary]) -> list[RunSummary]:
    """The runs that are compared, in the address as ?runs=a,b."""
    known = {s.id: s for s in found}
    asked, last = st.query_params.get("runs"), st.session_state.get(f"last {MULTISELECT_KEY}")
    first = next((list(f.members.values()) for f in cache.families()), [s.id for s in found[:3]])
    usual = [k for k in first if k in known]
    named = _parse_run_ids(asked, known) if asked is not None else _parse_run_ids(last, known)
    now = usual if named is None else named
    if now != usual or (asked is not None and asked != ",".join(now)):
        query_params.set_value("runs", ",".join(now))
    st.session_state[MULTISELECT_KEY], st.session_state[f"last {MULTISELECT_KEY}"] = (
        now,
        ",".join(now),
    )
    st.multiselect(
        "Runs to compare",
        list(known),
        key=MULTISELECT_KEY,
        format_func=lambda k: f"{k} · {known[k].state}" if known[k].state != "done" else k,
        max_selections=MAX_COMPARED_RUNS,
        placeholder="Choose two or more",
        on_change=_save_choice,
    )
    return [known[k] for k in now]


def _save_choice() -> None:
    query_params.set_value("runs", ",".join(st.session_state[MULTISELECT_KEY]))
    st.session_state["table of runs"] = (
        st.session_state.get("table of runs", 0) + 1
    )  # drawn anew, with these rows marked


def _save_ticked_rows(key: str, ids: Sequence[str]) -> None:
    query_params.set_value(
        "runs", ",".join(ids[i] for i in st.session_state[key].selection.rows[:MAX_COMPARED_RUNS])
    )


def show_legend(picked: Sequence[RunSummary]) -> dict[str, str]:
    """Run id -> its name here; the colours of the runs above the figures."""
    names = comparison.short_names(picked)
    dots = [
        f'<span style="color:{figures.run_line_style(i)["color"]}">{"●" if figures.run_line_style(i)["dash"] == "solid" else "◌"}</span> '
        f"{html.escape(names[s.id])}"
        for i, s in enumerate(picked)
    ]
    st.html("&emsp;".join(dots))
    return names


def show_caveats(picked: Sequence[RunSummary]) -> None:
    """Why some of these figures may not stand beside others."""
    if found := comparison.caveats(picked):
        st.warning(
            "**Compare with care.**\n\n"
            + "\n".join(f"- {theme.escape_markdown(c)}" for c in found),
            icon=":material/balance:",
        )


def show_csv_download(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """A table as csv."""
    text = io.StringIO()
    table = csv.DictWriter(
        text, list(dict.fromkeys(k for r in rows for k in r)), lineterminator="\n"
    )
    table.writeheader()
    table.writerows(
        [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()} for r in rows]
    )
    go = {"icon": ":material/download:", "on_click": "ignore", "key": f"csv {name}"}
    st.download_button(f"{name}.csv", text.getvalue(), f"{name}.csv", "text/csv", **go)


def choose_from_list(label: str, name: str, options: Sequence[str], default: str, **more) -> str:
    """One of many, kept in the address."""
    key = f"eval {name}"
    query_params.restore_widget(name, key, default, lambda k: k if k in options else None)
    return st.selectbox(
        label, options, key=key, on_change=query_params.save_widget, args=(name, key), **more
    )


def choose_one(
    label: str, name: str, options: Sequence[str], default: str, shown: Callable, **more
) -> str:
    """One of a few, kept in the address."""
    key = f"eval {name}"
    query_params.restore_widget(name, key, default, lambda k: k if k in options else None)
    st.segmented_control(
        label,
        options,
        format_func=shown,
        required=True,
        key=key,
        on_change=query_params.save_widget,
        args=(name, key),
        **more,
    )
    return st.session_state[key]


def choose_several(
    label: str,
    name: str,
    options: Sequence[str],
    default: Sequence[str],
    shown: Callable = str,
    **more,
) -> list[str]:
    """Some of a few, kept in the address with bars between them; none is not a choice."""
    key = f"eval {name}"
    asked = st.query_params.get(name) or st.session_state.get(f"last {key}", "")
    now = [k for k in options if k in asked.split("|")] or list(default)
    st.session_state[key], st.session_state[f"last {key}"] = now, "|".join(now)
    query_params.set_value(name, "|".join(now) if now != list(default) else None)
    keep = lambda: query_params.set_value(
        name, "|".join(st.session_state[key]) or "|".join(default)
    )  # noqa: E731
    st.pills(
        label,
        options,
        selection_mode="multi",
        wrap=True,
        key=key,
        format_func=shown,
        on_change=keep,
        **more,
    )
    return now


def signed_points(points: float) -> str:
    """A difference in points, with its sign."""
    return f"{points:+.1f}".replace("-", "−")


def show_command(*lines: str, said: str = "The same from the command line:") -> None:
    st.caption(said)
    st.code("\n".join(lines), language="bash", wrap_lines=True)


# ------------------------------------------------------------------ the table of all runs


def _column_config() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    about = {
        "S1": "Accuracy of the voice classifier trained on S1's real voices: the baseline.",
        "S1 + generated": "The same classifier with generated voices added.",
        "ceiling": "The same with S3's real voices and their true labels: what perfect generated voices might reach.",
        "chance": "Accuracy of guessing.",
        "FID": "Generated against S4's real voices, lower is better.",
        "FID real": "The floor: FID between two real sets of other people, at the same N.",
        "KID": "As FID, without its bias at small N; lower is better.",
        "KID real": "KID between two real sets of other people.",
        "IS": "Sure and varied verdicts of the scorer; higher is better.",
        "IS real": "IS of S4's real voices.",
        "diversity": "How much of a voice the noise decides, against how real voices differ. Near 0: always the same voice.",
        "coverage": "Share of real voices that have a generated one near them.",
        "coverage real": "The same of real voices of other people.",
        "best step": "Where S2's voices liked the generator best. The figures are of the last step: S4 chooses nothing.",
        "minutes": "From the last start to the results. Unknown for runs that were shipped.",
        "N": "Real voices (or faces, where these are made) of S4, balanced by emotion.",
        "makes": "What the generator makes, and what the accuracies are of.",
        "scorer": "Digest of the network behind FID, KID and IS. Figures of different ones are never compared.",
        "labels": "Who saw S3's labels. strict: nobody.",
    }
    percent = {
        "S1": 60,
        "S1 + generated": 108,
        "ceiling": 78,
        "chance": 78,
        "coverage": 90,
        "coverage real": 115,
    }
    named = {"S1 + generated": "+ generated", "coverage real": "coverage floor"}
    out: dict[str, Any] = {
        k: number(f"{named.get(k, k)}, %", format="%.1f", help=about.get(k), width=w)
        for k, w in percent.items()
    }
    digits_of = {
        "FID": 2,
        "FID real": 2,
        "KID": 3,
        "KID real": 3,
        "IS": 2,
        "IS real": 2,
        "diversity": 2,
        "minutes": 0,
    }
    for k, digits in digits_of.items():
        label = {"FID real": "FID floor", "KID real": "KID floor"}.get(k, k)
        out[k] = number(
            label, format=f"%.{digits}f", help=about.get(k), width=max(60, 12 + 8 * len(label))
        )
    for k, w in {"N": 48, "best step": 78, "steps": 58, "fold": 48, "seed": 50}.items():
        out[k] = number(format="%d", help=about.get(k), width=w)
    return (
        out
        | {"run": text(pinned=True, width=230)}
        | {k: text(help=about[k]) for k in ("labels", "scorer", "makes")}
    )


def show_table(found: Sequence[RunSummary], picked: Sequence[RunSummary]) -> None:
    """All runs, a line each; those that are ticked are compared."""
    rows, ids = [comparison.run_record(s) for s in found], [s.id for s in found]
    st.caption(
        "Tick two or more runs to compare them; a click on a head sorts by it. Accuracies are of real samples of new people (S4)."
    )
    key = f"table of runs {st.session_state.get('table of runs', 0)} {hash(tuple(ids))}"
    st.dataframe(
        {k: [r[k] for r in rows] for k in rows[0]},
        key=key,
        hide_index=True,
        height=38 + 35 * min(len(rows), 9),
        column_config=_column_config(),
        on_select=lambda: _save_ticked_rows(key, ids),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [ids.index(s.id) for s in picked]}},
        placeholder="–",
        alt="all runs, a line each",
    )
    done = [s for s in picked if s.results]
    if done:
        errors = sorted({f"{100 * s.error():.1f} points at N = {s.n}" for s in done})
        st.caption(
            f"One standard error of an accuracy: {', '.join(errors)}. Smaller differences are noise; *Augmentation* tests them."
        )
    unfinished = [s.id for s in picked if not s.results]
    if unfinished:
        st.caption(
            f"No figures on S4 yet, as they are not finished: {', '.join(unfinished)}. Their curves are there already."
        )
    show_caveats(picked)  # below, so that a tick does not move the table
    show_csv_download(rows, "runs")
    show_command(*[f"python -m core evaluate {s.id}" for s in done[:3]] or ["python -m core runs"])


# ------------------------------------------------------------------ curves


def show_curves(picked: Sequence[RunSummary]) -> None:
    """The chosen runs' curves, one axis for each scorer; live while one of them trains."""
    said = lambda k: METRIC_TITLES[k] if "/" in k else k  # noqa: E731
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    with left:
        shown = choose_several("Curves", "curves", list(METRIC_TITLES), ["FID", "KID", "IS"], said)
    query_params.restore_widget("log", "eval log", False, {"True": True, "False": False}.get)
    about, go = (
        "FID and KID by powers of ten: what happens near the real voices' line is seen.",
        {"on_change": query_params.save_widget},
    )
    log = right.toggle("Log scale", key="eval log", help=about, args=("log", "eval log"), **go)
    states = {s.id: s.state for s in picked}
    names = show_legend(picked)

    @st.fragment(run_every=2 if any(s in LIVE_STATES for s in states.values()) else None)
    def drawn() -> None:
        if any(s in LIVE_STATES for s in states.values()):
            now = {r["run"]: r for r in cache.run_rows() if r["run"] in states}
            if any(now[k]["state"] != s for k, s in states.items() if k in now):
                st.rerun()  # the table and the choice above say the state too
            busy = [
                f"{names[k]}: step {r['step']:,} of {r['steps']:,}"
                for k, r in now.items()
                if r["state"] in LIVE_STATES
            ]
            st.caption(f":material/progress_activity: {theme.escape_markdown(' · '.join(busy))}")
        _show_curve_charts(picked, shown, names, log)

    drawn()


def _show_curve_charts(
    picked: Sequence[RunSummary], shown: Sequence[str], names: Mapping[str, str], log: bool
) -> None:
    lines = {names[s.id]: figures.run_line_style(i) for i, s in enumerate(picked)}
    groups = comparison.group_by_scorer(picked)
    quiet = []
    for scorer, members in groups.items():
        of = {names[s.id]: runs.load_curves(s.id) for s in members}
        of = {k: v for k, v in of.items() if v}
        quiet += [names[s.id] for s in members if names[s.id] not in of]
        if not of:
            continue
        if len(groups) > 1:
            st.markdown(f"**Scorer `{scorer}`**: {theme.escape_markdown(', '.join(of))}")
        points = {
            names[s.id]: comparison.best_step(of[names[s.id]], _feature_count(s))
            for s in members
            if names[s.id] in of
        }
        best, steps = (
            {k: p[0] for k, p in points.items() if p},
            max(s.config.gan.steps for s in members),
        )
        for column, name in zip(_three_columns(len(shown)), shown):
            figure = figures.metric_curves(
                of,
                name,
                METRIC_TITLES[name],
                lines,
                best,
                steps,
                log and name in ("FID", "KID"),
                members[0].made,
            )
            save = figures.export_config(f"{name.replace('/', '-')}-{scorer}")
            column.plotly_chart(
                figure,
                key=f"curve {scorer} {name}",
                config=save,
                alt=f"{METRIC_TITLES[name]} of the chosen runs over the steps",
            )
        told = [f"{k}: {p[0]:,} (by {p[1]})" for k, p in points.items() if p]
        if told:
            st.caption(
                f"★ the best step, chosen on S2: {theme.escape_markdown(' · '.join(told))}. Figures elsewhere are of the last step."
            )
    if quiet:
        st.caption(
            f"No curve yet: {theme.escape_markdown(', '.join(quiet))}. They begin with the generator's training, after the classifiers."
        )
    st.caption(
        "Curves are of S2's faces and voices, which the scorer was trained on too. Figures in the table are S4's, looked at once."
    )


def _feature_count(s: RunSummary) -> int | None:
    return s.results.get("quality", {}).get("features")


def _three_columns(n: int) -> list:
    """Places for n figures, three in a row."""
    return [c for _ in range(-(-n // 3)) for c in st.columns(3, gap="small")]
