"""A task in the background on a page: its progress, its result, and the button that stops it."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from core.cli.progress import format_duration
from core.data import download, prepared_corpora
from core.data.corpora import KNOWN_CORPORA
from core.experiments import tasks
from core.experiments.tasks import Task
from ui import theme
from ui.session import query_params
from ui.widgets import players

DEMO_ARGUMENTS = ["prepare", "demo"]  # the task that renders the demo corpus
MAX_ERROR_LETTERS = 4000  # letters of a task's error output that are shown, from its end

STATE_COLOURS = {"running": "blue", "stopped": "orange", "failed": "red", "done": "green"}

PHASE_TEXTS = {  # phase of a task -> its name on the page, and what it counts
    "prepare": ("Reading", "clips"),
    "fetch": ("Fetching", "MB"),
    "names": ("Checking names and first bytes", "files"),
    "contents": ("Comparing contents", "files"),
    "videos": ("Reading videos", "videos"),
    "sounds": ("Decoding sounds", "sounds"),
    "faces": ("Looking for faces", "clips"),
    "augmentation table": ("Training classifiers", "rows"),
}

CHECK_TEXTS = {
    "names": "names and first bytes",
    "contents": "contents compared",
    "videos": "videos read",
    "sounds": "sounds heard",
    "faces": "clips searched for a face",
}

SEVERITY_STYLES = {  # -> colour, icon, words for one and for many, what it means
    "error": ("red", ":material/error:", "error", "errors", "not usable as they are"),
    "warning": ("orange", ":material/warning:", "warning", "warnings", "usable with care"),
    "note": ("gray", ":material/info:", "note", "notes", "good to know"),
}


def restart_task(name: str, arguments: Sequence[str]) -> None:
    """Callback of a button: start the same task again."""
    tasks.start(arguments)
    query_params.set_value("errand", name)


def open_corpus(stem: str) -> None:
    """Show the corpus that a task has prepared."""
    query_params.set_value("part", "corpora")
    query_params.set_value("corpus", stem)
    st.rerun()


def use_download(form: str, path: str) -> None:
    """Callback of a button: enter a downloaded corpus into the import form."""
    query_params.set_value("form", form)
    st.session_state["source"] = path


def task_title(e: Task) -> str:
    """A task in a few words."""
    a = e.arguments
    if a[:2] == DEMO_ARGUMENTS:
        return "Draw the demo corpus"
    if a[:1] == ["doctor"]:
        return f"Examine {a[1]}"
    if a[:1] == ["table"]:
        return f"Augmentation table of {a[1]}"
    if a[:1] == ["fetch"]:
        title = KNOWN_CORPORA[a[1]].title if a[1] in KNOWN_CORPORA else a[1]
        return f"Fetch {title}: {' and '.join(k for k in a if k in download.FILE_PATTERNS)}"
    source = a[a.index("--source") + 1] if "--source" in a[:-1] else "?"
    return f"Prepare {a[1] if len(a) > 1 else ''} from {source}"


def watch_task(name: str) -> None:
    """A task, updated every second while it runs; found again by its name in the URL."""
    first = tasks.find(name)
    if first is None:
        return

    @st.fragment(run_every=1 if first.state == "running" else None)
    def watched() -> None:
        now = tasks.find(name)
        if now is None or now.state != first.state:
            st.rerun()
        _show_task(now)

    watched()


def _show_task(e: Task) -> None:
    left, right = st.columns([3, 2], vertical_alignment="center")
    badge = f":{STATE_COLOURS[e.state]}-badge[**{e.state}**]"
    left.markdown(f"{badge} {theme.escape_markdown(task_title(e))}")
    with right, st.container(horizontal=True, horizontal_alignment="right"):
        _show_buttons(e)
    if e.state == "running":
        _show_progress(e)
    elif e.state == "stopped":
        words = "Stopped. Finished work is kept; *Continue* resumes it."
        st.info(words, icon=":material/pause_circle:")
    elif e.state == "failed":
        st.error(theme.escape_markdown(e.message), icon=":material/error:")
    else:
        _show_result(e)
    with st.expander("In a terminal", icon=":material/terminal:"):
        command = shlex.join(["python", "-m", "core", *tasks.cli_arguments(e.arguments)])
        st.code(command, language="bash", wrap_lines=True)
        if lines := tasks.errors(e.id, MAX_ERROR_LETTERS).strip():
            st.code(lines, language=None, height=160)


def _show_buttons(e: Task) -> None:
    if e.state == "running":
        words, about = "Stop", "Finished work is kept; the task can be continued."
        if e.phase == tasks.STOPPING_PHASE:
            grace = f"{tasks.STOP_GRACE_SECONDS:.0f} s"
            words, about = "End it now", f"It is stopping. If that takes over {grace}, press here."
        go = {"on_click": tasks.stop, "args": (e.id,), "key": f"stop {e.id}"}
        st.button(words, icon=":material/stop_circle:", help=about, **go)
        return
    words = {"stopped": "Continue", "failed": "Try again"}.get(e.state, "Do it again")
    go = {"on_click": restart_task, "args": (e.id, e.arguments), "key": f"again {e.id}"}
    st.button(words, icon=":material/resume:", **go)
    about = "Takes the task off this list. Its results stay."
    go = {"on_click": tasks.forget, "args": (e.id,), "key": f"forget {e.id}"}
    st.button("Forget", icon=":material/close:", help=about, **go)


def _show_progress(e: Task) -> None:
    if e.phase == tasks.STOPPING_PHASE:
        st.progress(0.0, "Stopping: finished work is being kept …")
    elif not e.total:
        st.progress(0.0, "Starting …")
    else:
        words, unit = PHASE_TEXTS.get(e.phase, (e.phase, ""))
        words = "Drawing" if e.arguments[:2] == DEMO_ARGUMENTS else words
        size = 1e6 if unit == "MB" else 1
        digits = 0 if e.rate and e.rate / size >= 10 else 1
        speed = f" · {e.rate / size:,.{digits}f} {unit}/s" if e.rate else ""
        left = f" · {format_duration(e.left)} left" if math.isfinite(e.left) else ""
        done = f"{e.done / size:,.0f} of {e.total / size:,.0f} {unit}"
        st.progress(min(1.0, e.done / e.total), f"{words}: {done}{speed}{left}")


def _show_result(e: Task) -> None:
    a = e.arguments
    if a[0] == "doctor":
        try:
            show_report(json.loads(tasks.output(e.id)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            words = f"The report cannot be read ({error}); examine the corpus again."
            st.error(theme.escape_markdown(words), icon=":material/error:")
        return
    st.success(theme.escape_markdown(e.message), icon=":material/check_circle:")
    if a[0] == "prepare":
        stem, look = "demo-10" if a[1] == "demo" else a[1], ":material/visibility:"
        if st.button("Look at it", icon=look, type="primary", key=f"look {e.id}"):
            open_corpus(stem)
    if a[0] == "fetch":
        path = str(prepared_corpora.processed_folder().parent.resolve() / "raw" / a[1])
        go = {"on_click": use_download, "args": (a[1], path), "key": f"use {e.id}"}
        if st.button("Use it in the form", icon=":material/arrow_back:", type="primary", **go):
            st.rerun()


# ------------------------------------------------------------------ the report of a corpus check


def show_report(r: dict) -> None:
    """The checks of a corpus, its faults, and how to mend them."""
    escape = theme.escape_markdown
    known = KNOWN_CORPORA[r["corpus"]].title if r["corpus"] in KNOWN_CORPORA else "Own data"
    counts = ", ".join(f"{n:,} {escape(str(what))}" for what, n in r["counts"].items() if n)
    st.markdown(f"**{escape(known)}** in {escape(str(r['root']))}: {counts}")
    kinds = {s: [f for f in r["faults"] if f["severity"] == s] for s in SEVERITY_STYLES}
    badges = []
    for s, of in kinds.items():
        if n := sum(len(f["names"]) for f in of):
            badges.append(
                f":{SEVERITY_STYLES[s][0]}-badge[{n:,} {SEVERITY_STYLES[s][2 + (n != 1)]}]"
            )
    st.markdown(" ".join(badges) or ":green-badge[No fault was found]")
    checks = {p: of for p, of in r["looked_at"].items() if of[1]}
    words = " · ".join(
        f"{escape(CHECK_TEXTS.get(p, p))}: {'all' if a == b else f'{a:,} of'} {b:,}"
        for p, (a, b) in checks.items()
    )
    st.caption(f"Checked for {r['seconds']:.0f} s of at most {r['budget']:.0f} s: {words}")
    for s, of in kinds.items():
        for fault in of:
            _show_fault(fault, s)
    name = re.sub(r"[^\w.-]", "_", Path(str(r["root"])).name.removesuffix(".zip"))[-40:]
    content = json.dumps(r, indent=1, ensure_ascii=False)
    players.download("Report as JSON", content, f"report-{name}.json")


def _show_fault(fault: dict, severity: str) -> None:
    colour, icon, *_, meaning = SEVERITY_STYLES[severity]
    names, escape = [str(n) for n in fault["names"]], theme.escape_markdown
    with st.container(border=True):
        words = f"**{escape(fault['kind'])}** · {len(names):,} × {escape(fault['means'])}"
        st.markdown(f":{colour}[{icon}] {words}", help=f"{severity}: {meaning}")
        st.code(fault["fix"], language=None, wrap_lines=True)
        with st.expander(f"{len(names):,} {'name' if len(names) == 1 else 'names'}"):
            details = [str(fault["details"].get(n, "")) for n in names]
            table = {"Name": names} | ({"Detail": details} if any(details) else {})
            look = {"hide_index": True, "height": min(300, 38 + 35 * len(names))}
            st.dataframe(table, alt=f"files with {fault['kind']}", **look)
