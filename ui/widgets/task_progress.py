"""Long work in the background: its progress, its result, and how to stop it."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Sequence

import streamlit as st

from core.cli.progress import format_duration
from core.data import download, splits
from core.data.corpora import KNOWN_CORPORA
from core.experiments import tasks
from core.experiments.tasks import Task
from ui import theme
from ui.session import query_params

DEMO_ARGUMENTS = ["prepare", "demo"]  # the errand that draws the demo corpus

STATE_COLOURS = {"running": "blue", "stopped": "orange", "failed": "red", "done": "green"}

PHASE_TEXTS = {  # what an errand is doing -> the same in words, and what it counts
    "prepare": ("Reading", "clips"),
    "fetch": ("Fetching", "MB"),
    "names": ("Looking at names and first bytes", "files"),
    "contents": ("Comparing contents", "files"),
    "videos": ("Reading videos", "videos"),
    "sounds": ("Listening to sounds", "sounds"),
    "faces": ("Looking for faces", "clips"),
    "augmentation table": ("Training classifiers", "rows"),
}

CHECK_TEXTS = {
    "names": "names and first bytes",
    "contents": "contents compared",
    "videos": "videos read",
    "sounds": "sounds heard",
    "faces": "clips in which a face was looked for",
}

SEVERITY_STYLES = {  # -> colour, icon, words for one and for many, what it means
    "error": ("red", ":material/error:", "error", "errors", "not usable as they are"),
    "warning": (
        "orange",
        ":material/warning:",
        "warning",
        "warnings",
        "usable, but you should know",
    ),
    "note": ("gray", ":material/info:", "note", "notes", "good to know"),
}


def restart_task(name: str, arguments: Sequence[str]) -> None:
    """A button's callback: the same errand once more."""
    tasks.start(arguments)
    query_params.set_value("errand", name)


def open_corpus(stem: str) -> None:
    """Show the corpus that an errand has made."""
    query_params.set_value("part", "corpora")
    query_params.set_value("corpus", stem)
    st.rerun()


def use_download(form: str, path: str) -> None:
    """A button's callback: what was fetched goes into the form."""
    query_params.set_value("form", form)
    st.session_state["source"] = path


def task_title(e: Task) -> str:
    """An errand in a few words."""
    a = e.arguments
    if a[:2] == DEMO_ARGUMENTS:
        return "Draw the demo corpus"
    if a[:1] == ["doctor"]:
        return f"Examine {a[1]}"
    if a[:1] == ["table"]:
        return f"Augmentation table of {a[1]}"
    if a[:1] == ["fetch"]:
        return f"Fetch {KNOWN_CORPORA[a[1]].title if a[1] in KNOWN_CORPORA else a[1]}: {' and '.join(k for k in a if k in download.FILE_PATTERNS)}"
    return f"Prepare {a[1] if len(a) > 1 else ''} from {a[a.index('--source') + 1] if '--source' in a[:-1] else '?'}"


def watch_task(name: str) -> None:
    """An errand, live while it runs; whoever comes back finds it again."""
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
    left.markdown(
        f":{STATE_COLOURS[e.state]}-badge[**{e.state}**] {theme.escape_markdown(task_title(e))}"
    )
    with right, st.container(horizontal=True, horizontal_alignment="right"):
        if e.state == "running":
            stopping = e.phase == tasks.STOPPING_PHASE
            words, about = "Stop", "What is done is kept; it can be continued."
            if stopping:
                words, about = (
                    "End it now",
                    f"It has been asked to end. If it does not within {tasks.STOP_GRACE_SECONDS:.0f} s, press here.",
                )
            st.button(
                words,
                icon=":material/stop_circle:",
                key=f"stop {e.id}",
                help=about,
                on_click=tasks.stop,
                args=(e.id,),
            )
        else:
            words = {"stopped": "Continue", "failed": "Try again"}.get(e.state, "Do it again")
            st.button(
                words,
                icon=":material/resume:",
                key=f"again {e.id}",
                on_click=restart_task,
                args=(e.id, e.arguments),
            )
            about, go = (
                "Takes it off this list. What it made stays.",
                {"on_click": tasks.forget, "args": (e.id,)},
            )
            st.button("Forget", icon=":material/close:", key=f"forget {e.id}", help=about, **go)
    if e.state == "running":
        _show_progress(e)
    elif e.state == "stopped":
        st.info(
            "Stopped. What was done is kept: *Continue* goes on from there.",
            icon=":material/pause_circle:",
        )
    elif e.state == "failed":
        st.error(theme.escape_markdown(e.message), icon=":material/error:")
    else:
        _show_result(e)
    with st.expander("In a terminal", icon=":material/terminal:"):
        st.code(
            shlex.join(["python", "-m", "core", *tasks.cli_arguments(e.arguments)]),
            language="bash",
            wrap_lines=True,
        )
        if lines := tasks.errors(e.id, 4000).strip():
            st.code(lines, language=None, height=160)


def _show_progress(e: Task) -> None:
    if e.phase == tasks.STOPPING_PHASE:
        st.progress(0.0, "Stopping: what is done is being kept …")
    elif not e.total:
        st.progress(0.0, "Starting …")
    else:
        words, unit = PHASE_TEXTS.get(e.phase, (e.phase, ""))
        words = "Drawing" if e.arguments[:2] == DEMO_ARGUMENTS else words
        size = 1e6 if unit == "MB" else 1
        speed = (
            f" · {e.rate / size:,.{0 if e.rate / size >= 10 else 1}f} {unit}/s" if e.rate else ""
        )
        left = f" · {format_duration(e.left)} left" if math.isfinite(e.left) else ""
        st.progress(
            min(1.0, e.done / e.total),
            f"{words}: {e.done / size:,.0f} of {e.total / size:,.0f} {unit}{speed}{left}",
        )


def _show_result(e: Task) -> None:
    a = e.arguments
    if a[0] == "doctor":
        try:
            show_report(json.loads(tasks.output(e.id)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            st.error(
                theme.escape_markdown(
                    f"The report cannot be read ({error}); examine the corpus again."
                ),
                icon=":material/error:",
            )
        return
    st.success(theme.escape_markdown(e.message), icon=":material/check_circle:")
    if a[0] == "prepare":
        stem = "demo-10" if a[1] == "demo" else a[1]
        if st.button(
            "Look at it", icon=":material/visibility:", type="primary", key=f"look {e.id}"
        ):
            open_corpus(stem)
    if a[0] == "fetch":
        path = str(splits.processed_folder().parent.resolve() / "raw" / a[1])
        go = {"on_click": use_download, "args": (a[1], path)}
        if st.button(
            "Use it in the form",
            icon=":material/arrow_back:",
            type="primary",
            key=f"use {e.id}",
            **go,
        ):
            st.rerun()


def show_report(r: dict) -> None:
    """What was looked at, what is wrong, and how to mend it."""
    known = KNOWN_CORPORA[r["corpus"]].title if r["corpus"] in KNOWN_CORPORA else "Own data"
    counts = ", ".join(
        f"{n:,} {theme.escape_markdown(str(what))}" for what, n in r["counts"].items() if n
    )
    st.markdown(
        f"**{theme.escape_markdown(known)}** in {theme.escape_markdown(str(r['root']))}: {counts}"
    )
    faults: list[dict] = r["faults"]
    kinds = {s: [f for f in faults if f["severity"] == s] for s in SEVERITY_STYLES}
    total = {s: sum(len(f["names"]) for f in of) for s, of in kinds.items()}
    badges = [
        f":{SEVERITY_STYLES[s][0]}-badge[{n:,} {SEVERITY_STYLES[s][2 + (n != 1)]}]"
        for s, n in total.items()
        if n
    ]
    st.markdown(" ".join(badges) or ":green-badge[No fault was found]")
    looked = {p: of for p, of in r["looked_at"].items() if of[1]}
    words = [
        f"{theme.escape_markdown(CHECK_TEXTS.get(p, p))}: {'all' if a == b else f'{a:,} of'} {b:,}"
        for p, (a, b) in looked.items()
    ]
    st.caption(
        f"Looked at for {r['seconds']:.0f} s of at most {r['budget']:.0f} s: " + " · ".join(words)
    )
    for s, of in kinds.items():
        for fault in of:
            _show_fault(fault, s)
    content = json.dumps(r, indent=1, ensure_ascii=False)
    name = re.sub(r"[^\w.-]", "_", str(r["root"]))[-40:]
    st.download_button(
        "Report as JSON",
        content,
        f"report-{name}.json",
        "application/json",
        icon=":material/download:",
        on_click="ignore",
    )


def _show_fault(fault: dict, severity: str) -> None:
    colour, icon, *_, meaning = SEVERITY_STYLES[severity]
    names = [str(n) for n in fault["names"]]
    with st.container(border=True):
        words = f":{colour}[{icon}] **{theme.escape_markdown(fault['kind'])}** · {len(names):,} × {theme.escape_markdown(fault['means'])}"
        st.markdown(words, help=f"{severity}: {meaning}")
        st.code(fault["fix"], language=None, wrap_lines=True)
        with st.expander(f"{len(names):,} {'name' if len(names) == 1 else 'names'}"):
            details = [str(fault["details"].get(n, "")) for n in names]
            shown = {"Name": names} | ({"Detail": details} if any(details) else {})
            st.dataframe(
                shown,
                hide_index=True,
                height=min(300, 38 + 35 * len(names)),
                alt=f"files with {fault['kind']}",
            )
