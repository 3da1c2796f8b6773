"""Runs side by side: their choice, the table of all, their curves; widgets of the other views."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from core import files
from core.evaluation import comparison
from core.evaluation import results as result_figures
from core.evaluation.comparison import RunSummary
from core.runs import store
from core.runs.directory import Run
from ui import theme
from ui.evaluate import figures, management
from ui.session import cache, query_params
from ui.session.cache import LIVE_STATES

MULTISELECT_KEY, MAX_COMPARED_RUNS = "compared runs", 12
MAX_TABLE_ROWS = 9  # rows of the table of runs in sight; more scroll
METRIC_TITLES = {
    "FID": "FID (lower is better)",
    "KID": "KID (lower is better)",
    "IS": "IS (higher is better)",
    "recognised": "recognised by the judge (share)",
    "diversity": "diversity (real voices: 1)",
    "loss/G": "loss of G",
    "loss/D": "loss of D",
}


# ------------------------------------------------------------------ cached


def load_summaries() -> tuple[list[RunSummary], list[str]]:
    """All runs, newest first, and the errors of those that cannot be read."""
    folder, found = files.checkpoints_folder(), []
    wrong = list(store.unreadable_runs().values())
    for row in cache.run_rows():
        if row["archived"] and not management.wants_archived():
            continue
        if row["fault"]:
            wrong.append(row["fault"])
            continue
        results = folder / row["run"] / "results.json"
        stamp = results.stat().st_mtime_ns if results.exists() else 0
        table = results.with_name("table.json")
        stamp += table.stat().st_mtime_ns if table.exists() else 0
        key = folder / row["run"], row["state"], row["shipped"], row["step"], stamp
        try:
            found.append(_load_summary(*key))
        except files.UserError as error:
            wrong.append(str(error))
    return comparison.with_scorers(found, folder), wrong


@st.cache_resource(show_spinner=False, max_entries=1000)
def _load_summary(directory: Path, state: str, shipped: int, step: int, stamp: int) -> RunSummary:
    run, row = Run(directory), {"state": state, "shipped": shipped}
    return comparison.summarise_run(run, row, store.load_curves(run.id, directory.parent))


# ------------------------------------------------------------------ choice of runs


def _parse_run_ids(text: str | None, known: Mapping[str, RunSummary]) -> list[str] | None:
    """Ids of known runs in a query parameter; None if it names runs and knows none of them."""
    named = [k for k in dict.fromkeys((text or "").split(",")) if k in known][:MAX_COMPARED_RUNS]
    return named if named or text == "" else None


def choose_runs(found: Sequence[RunSummary]) -> list[RunSummary]:
    """A multiselect of the runs to compare, linked to the query parameter ?runs=a,b."""
    known = {s.id: s for s in found}
    asked = st.query_params.get("runs")
    first = next((list(f.members.values()) for f in cache.families()), [s.id for s in found[:3]])
    usual = [k for k in first if k in known]
    named = _parse_run_ids(query_params.asked_text("runs", MULTISELECT_KEY), known)
    now = usual if named is None else named
    text = ",".join(now)
    if now != usual or (asked is not None and asked != text):
        query_params.set_value("runs", text)
    st.session_state[MULTISELECT_KEY], st.session_state[f"last {MULTISELECT_KEY}"] = now, text
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
    # a new key draws the table again, with these rows ticked
    st.session_state["table of runs"] = st.session_state.get("table of runs", 0) + 1


def save_ticked_rows(key: str, ids: Sequence[str]) -> None:
    rows = st.session_state[key].selection.rows[:MAX_COMPARED_RUNS]
    query_params.set_value("runs", ",".join(ids[i] for i in rows))


def show_legend(picked: Sequence[RunSummary]) -> dict[str, str]:
    """Show the runs' names with their colours; returns run id -> name."""
    names, dots = comparison.short_names(picked), []
    for i, s in enumerate(picked):
        style = figures.run_line_style(i)
        dot = "●" if style["dash"] == "solid" else "◌"
        colour = f'<span style="color:{style["color"]}">{dot}</span>'
        dots.append(f"{colour} {html.escape(names[s.id])}")
    st.html("&emsp;".join(dots))
    return names


def show_caveats(picked: Sequence[RunSummary]) -> None:
    """Warn of figures that compare only with care or not at all."""
    if found := comparison.caveats(picked):
        items = "\n".join(f"- {theme.escape_markdown(c)}" for c in found)
        st.warning(f"**Compare with care.**\n\n{items}", icon=":material/balance:")


# ------------------------------------------------------------------ widgets of all views


def show_dataframe(
    rows: Sequence[Mapping[str, Any]], alt: str, columns: Mapping[str, Any], **more
) -> None:
    """A table of records with the same keys; `columns` configures its columns."""
    table = {k: [r[k] for r in rows] for k in rows[0]}
    st.dataframe(table, hide_index=True, column_config=columns, placeholder="–", alt=alt, **more)


def show_csv_download(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """A button that downloads records as <name>.csv, numbers to six digits."""
    text = io.StringIO()
    columns = list(dict.fromkeys(k for r in rows for k in r))
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for r in rows:
        table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()})
    go = {"icon": ":material/download:", "on_click": "ignore", "key": f"csv {name}"}
    st.download_button(f"{name}.csv", text.getvalue(), f"{name}.csv", "text/csv", **go)


def _linked_key(name: str, options: Sequence[str], default: str) -> tuple[str, dict[str, Any]]:
    """Key and callback of a widget whose choice is linked to the query parameter `name`."""
    key = f"eval {name}"
    query_params.restore_widget(name, key, default, lambda k: k if k in options else None)
    return key, {"on_change": query_params.save_widget, "args": (name, key)}


def choose_from_list(label: str, name: str, options: Sequence[str], default: str, **more) -> str:
    """A select box linked to a query parameter."""
    key, go = _linked_key(name, options, default)
    return st.selectbox(label, options, key=key, **go, **more)


def choose_one(
    label: str, name: str, options: Sequence[str], default: str, shown: Callable, **more
) -> str:
    """A segmented control linked to a query parameter."""
    key, go = _linked_key(name, options, default)
    st.segmented_control(label, options, format_func=shown, required=True, key=key, **go, **more)
    return st.session_state[key]


def choose_several(
    label: str, name: str, options: Sequence[str], default: Sequence[str], shown: Callable = str
) -> list[str]:
    """Pills linked to a query parameter as "a|b"; an empty choice returns to the default."""
    key = f"eval {name}"
    asked = query_params.asked_text(name, key) or ""
    now = [k for k in options if k in asked.split("|")] or list(default)
    st.session_state[key], st.session_state[f"last {key}"] = now, "|".join(now)
    query_params.set_value(name, "|".join(now) if now != list(default) else None)

    def save() -> None:
        query_params.set_value(name, "|".join(st.session_state[key]) or "|".join(default))

    look = {"selection_mode": "multi", "wrap": True, "format_func": shown}
    st.pills(label, options, key=key, on_change=save, **look)
    return now


def signed_points(points: float) -> str:
    """A difference in points with its sign, with a real minus.

    >>> signed_points(-1.25)
    '−1.2'
    """
    return f"{round(points, 1) + 0.0:+.1f}".replace("-", "−")


def show_command(*lines: str, title: str = "The same from the command line:") -> None:
    st.caption(title)
    st.code("\n".join(lines), language="bash", wrap_lines=True)


# ------------------------------------------------------------------ the table of all runs


COLUMN_HELP = {
    "S1": "Accuracy of the voice classifier trained on S1's real voices: the baseline. As in the "
    "next two columns, the mean over trainings.",
    "S1 sd": "Standard deviation of S1's accuracy over trainings, in points.",
    "trainings": "Trainings of each row: one, or those of the augmentation table.",
    "people": "Test people to whom the N samples belong.",
    "S1 + generated": "The same classifier with generated voices added.",
    "S1 + S3": "The same with S3's real voices and true labels: what perfect generated voices "
    "would reach, if it is above S1.",
    "chance": "Accuracy of guessing.",
    "FID": "Generated against S4's real voices, lower is better.",
    "FID real": "The floor: FID between S4's and S3's real voices, at the same N. The scorer has "
    "met neither. Empty where it was measured under an earlier rule.",
    "KID": "As FID, without its bias at small N; lower is better.",
    "KID real": "KID between S4's and S3's real voices, as the FID floor.",
    "IS": "How certain and how varied the scorer's predictions are; higher is better.",
    "IS real": "IS of S4's real voices.",
    "diversity": "Spread of voices over the noise, divided by that of real voices. "
    "Near 0: always the same voice.",
    "coverage": "Share of real voices that have a generated one near them.",
    "coverage real": "The same for S3's real voices in the place of generated ones.",
    "best step": "The step with the best generator on S2. All figures are of the last step: "
    "S4 selects nothing.",
    "minutes": "From the last start to the results. Unknown for shipped runs.",
    "N": "Real voices (or faces, if these are generated) of S4, balanced by emotion.",
    "makes": "Modality that the generator makes and accuracies are measured on.",
    "scorer": "Digest of the network behind FID, KID and IS. Never compare different ones.",
    "labels": "Who sees S3's labels. strict: no part of the method.",
}
PERCENT_WIDTHS = {  # pixels
    **{"S1": 60, "S1 + generated": 108, "S1 + S3": 78, "chance": 78},
    **{"coverage": 90, "coverage real": 115},
}
COLUMN_DIGITS = {
    **{"FID": 2, "FID real": 2, "KID": 3, "KID real": 3, "IS": 2, "IS real": 2},
    **{"S1 sd": 1, "diversity": 2, "minutes": 0},
}
COUNT_WIDTHS = {  # pixels
    **{"N": 48, "people": 62, "trainings": 78, "best step": 78},
    **{"steps": 58, "fold": 48, "seed": 50},
}
COLUMN_TITLES = {
    "S1 + generated": "+ generated",
    "coverage real": "coverage floor",
    "FID real": "FID floor",
    "KID real": "KID floor",
}


def _column_config() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    titles = {k: COLUMN_TITLES.get(k, k) for k in (*PERCENT_WIDTHS, *COLUMN_DIGITS)}
    about, out = COLUMN_HELP.get, dict[str, Any]()
    for k, w in PERCENT_WIDTHS.items():
        out[k] = number(f"{titles[k]}, %", format="%.1f", help=about(k), width=w)
    for k, digits in COLUMN_DIGITS.items():
        width = max(60, 12 + 8 * len(titles[k]))
        out[k] = number(titles[k], format=f"%.{digits}f", help=about(k), width=width)
    for k, w in COUNT_WIDTHS.items():
        out[k] = number(format="%d", help=about(k), width=w)
    out["run"] = text(pinned=True, width=230)
    return out | {k: text(help=about(k)) for k in ("labels", "scorer", "makes")}


def show_table(found: Sequence[RunSummary], picked: Sequence[RunSummary]) -> None:
    """The table of all runs; the ticked rows are compared."""
    said = management.notes_of(found)
    every, found = found, management.search(found, said)
    if not found:
        st.info("No run is found by these words.", icon=":material/search_off:")
        management.show_form(every, picked)
        return
    rows = [management.with_notes(comparison.run_record(s), said[s.id]) for s in found]
    ids = [s.id for s in found]
    for k in ("title", "tags"):  # a column that nobody has used takes no room
        if not any(r[k] for r in rows):
            rows = [{c: v for c, v in r.items() if c != k} for r in rows]
    st.caption(
        "Tick two or more runs to compare them; click a column's head to sort. "
        "Accuracies are of real samples of new people (S4)."
    )
    key = f"table of runs {st.session_state.get('table of runs', 0)} {hash(tuple(ids))}"
    show_dataframe(
        rows,
        "all runs, a line each",
        _column_config(),
        key=key,
        height=38 + 35 * min(len(rows), MAX_TABLE_ROWS),
        on_select=lambda: save_ticked_rows(key, ids),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [ids.index(s.id) for s in picked if s.id in ids]}},
    )
    management.show_form(found, picked)
    done = [s for s in picked if s.results]
    if done:
        names = comparison.short_names(done)
        notes = dict[str, list[str]]()
        for s in done:
            notes.setdefault(result_figures.noise_text(s.results, s.table), []).append(names[s.id])
        for note, of in notes.items():
            who = "" if len(notes) == 1 else f"{theme.escape_markdown(', '.join(of))}: "
            st.caption(f"{who}{note}")
    unfinished = [s.id for s in picked if not s.results]
    if unfinished:
        st.caption(
            f"Without figures on S4, as they are not finished: {', '.join(unfinished)}. "
            "Their curves exist already."
        )
    show_caveats(picked)  # below the table, so that a tick does not move it
    show_csv_download(rows, "runs")
    show_command(*[f"python -m core evaluate {s.id}" for s in done[:3]] or ["python -m core runs"])


# ------------------------------------------------------------------ curves


def show_curves(picked: Sequence[RunSummary]) -> None:
    """The chosen runs' curves, a chart per metric and scorer; live while one of them trains."""
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    with left:
        titles = {k: title if "/" in k else k for k, title in METRIC_TITLES.items()}
        usual = ["FID", "KID", "IS"]
        shown = choose_several("Curves", "curves", list(titles), usual, titles.__getitem__)
    query_params.restore_widget("log", "eval log", False, {"True": True, "False": False}.get)
    about = "FID and KID by powers of ten, which spreads the values near the real voices' line."
    go = {"on_change": query_params.save_widget, "args": ("log", "eval log")}
    log = right.toggle("Log scale", key="eval log", help=about, **go)
    states = {s.id: s.state for s in picked}
    live = any(s in LIVE_STATES for s in states.values())
    names = show_legend(picked)

    @st.fragment(run_every=2 if live else None)  # seconds
    def drawn() -> None:
        if live:
            now = {r["run"]: r for r in cache.run_rows() if r["run"] in states}
            if any(now[k]["state"] != s for k, s in states.items() if k in now):
                st.rerun()  # the choice above shows the state too
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
    groups, empty = comparison.group_by_scorer(picked), []
    for scorer, members in groups.items():
        curves = {s.id: store.load_curves(s.id) for s in members}
        empty += [names[s.id] for s in members if not curves[s.id]]
        known = [s for s in members if curves[s.id]]
        if not known:
            continue
        of = {names[s.id]: curves[s.id] for s in known}
        if len(groups) > 1:
            st.markdown(f"**Judge `{scorer}`**: {theme.escape_markdown(', '.join(of))}")
        best = {}  # run's name -> step and metric
        for s in known:
            features = s.results.get("quality", {}).get("features")
            if point := comparison.best_step(curves[s.id], features):
                best[names[s.id]] = point
        places = [c for _ in range(-(-len(shown) // 3)) for c in st.columns(3, gap="small")]
        for column, name in zip(places, shown):
            figure = figures.metric_curves(
                of,
                name,
                METRIC_TITLES[name],
                lines,
                {k: step for k, (step, _) in best.items()},
                max(s.config.gan.steps for s in members),
                log and name in ("FID", "KID"),
                members[0].modality,
            )
            column.plotly_chart(
                figure,
                key=f"curve {scorer} {name}",
                config=figures.export_config(f"{name.replace('/', '-')}-{scorer}"),
                alt=f"{METRIC_TITLES[name]} of the chosen runs over the steps",
            )
        if best:
            points = " · ".join(f"{k}: {step:,} (by {by})" for k, (step, by) in best.items())
            st.caption(
                f"★ the best step, chosen on S2: {theme.escape_markdown(points)}. "
                "Figures elsewhere are of the last step."
            )
    if empty:
        st.caption(
            f"No curve yet: {theme.escape_markdown(', '.join(empty))}. "
            "Curves begin with the generator's training, after the classifiers."
        )
    st.caption(
        f"Curves are of S2's faces and voices, which the scorer knows. {_reference_text(picked)} "
        "Figures in the table are of S4, which is used once."
    )


def _reference_text(picked: Sequence[RunSummary]) -> str:
    """What the dashed lines of these runs' curves are, each rule once."""
    curves = [c for s in picked if (c := store.load_curves(s.id))]
    return " ".join(dict.fromkeys(map(result_figures.reference_text, curves)))
