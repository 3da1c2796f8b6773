"""Check that a training's corpora are prepared and that it is not done already, and start it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import streamlit as st

from core.config.serialisation import run_name
from core.config.settings import CONDITIONS, Config, replace
from core.data import prepared_corpora
from core.experiments import jobs, tasks
from core.files import UserError
from ui import theme
from ui.session import cache, corpora, query_params

POLL_SECONDS = 0.2  # between looks at the drawing of the demo corpus
IDLE_STATES = ("paused", "stopped", "failed")  # states of a run that a start resumes


def show_corpus_state(config: Config) -> bool:
    """Show whether the corpora of `config` are prepared; returns whether a training can start."""
    data = config.data
    names = list(dict.fromkeys(n for n in (data.faces, data.voices, data.f_s_corpus) if n))
    demo = prepared_corpora.demo_corpora(data)
    exists = lambda *name: prepared_corpora.corpus_path(*name).exists()  # noqa: E731
    missing = [n for n in names if n not in demo and not exists(n)]
    mismatch = corpora.band_mismatch(config)
    if missing:
        _show_missing(missing)
    elif mismatch:
        words = theme.escape_markdown(mismatch) + ". Both are under *All other settings*."
        st.warning(words, icon=":material/graphic_eq:")
    elif not all(exists(n, data.demo_takes) for n in demo):
        st.caption(":material/brush: The demo corpus will be drawn first: nothing is downloaded.")
    else:
        st.caption(":material/check_circle: Corpus ready: " + " × ".join(names))
    has_classes = len(data.classes) > 1
    if not has_classes:
        words = "Choose two emotions or more, under *All other settings*."
        st.warning(words, icon=":material/rule:")
    return has_classes and not missing and not mismatch


def _show_missing(names: Sequence[str]) -> None:
    """The commands that prepare missing corpora, and a link to the page that does it too."""
    words = f"**Not prepared: {' and '.join(names)}.** Once, in a terminal, with the corpus as "
    st.warning(f"{words}published:", icon=":material/folder_off:")
    commands = "\n".join(map(prepared_corpora.prepare_command, names))
    st.code(commands, language="bash", wrap_lines=True)
    bands = max(prepared_corpora.parse_name(n)[1] for n in names)
    go = {"icon": ":material/database:", "query_params": {"part": "bring", "bands": str(bands)}}
    st.page_link("pages/data.py", label="Or on the Data page", **go)


# ------------------------------------------------------------------ runs of the same settings


def find_equal_run(config: Config, rows: Sequence[dict]) -> dict | None:
    """The row of the run of these settings and of the corpora of this machine, or None.

    A corpus that is not here yet counts as the one that a run has recorded.
    """
    data, here = config.data, {}
    for role, name in (("faces", data.faces), ("voices", data.voices), ("f_S", data.f_s_corpus)):
        path = prepared_corpora.corpus_path(name, data.demo_takes) if name else None
        one = corpora.load_summary(path.stem) if path and path.exists() else None
        if name:
            here[role] = "" if one is None else getattr(one, "meta", {}).get("digest", "damaged")
    for row in rows:
        if (row["name"], row["condition"]) == (config.name, config.gan.condition):
            recorded = cache.run_by_id(row["run"]).json("corpus")
            digests = (d or recorded.get(k, {}).get("digest", "") for k, d in here.items())
            if row["run"] == run_name(config, "+".join(dict.fromkeys(digests))):
                return row
    return None


def find_free_seed(configs: Sequence[Config], rows: Sequence[dict]) -> int:
    """The next seed with which none of these trainings exists."""
    for seed in itertools.count(configs[0].seed + 1):
        if not any(find_equal_run(replace(c, seed=seed), rows) for c in configs):
            return seed
    raise AssertionError  # the count has no end


def needs_start(row: dict | None) -> bool:
    """Whether a start trains anything: a run that is new, or stands still before its end."""
    return row is None or row["state"] in IDLE_STATES


def show_start_buttons(config: Config, rows: list[dict], device: str, can_start: bool) -> None:
    """The buttons that start one training, or one of each condition, and what exists of them."""
    trained = [replace(config, gan={"condition": c}) for c in CONDITIONS if c != "none"]
    equal = find_equal_run(config, rows)
    new = [c for c in trained if needs_start(find_equal_run(c, rows))]
    words, icon = "Start", ":material/play_arrow:"
    if any(r["state"] in cache.LIVE_STATES or r["state"] == "paused" for r in rows):
        words, icon = "Add to the queue", ":material/playlist_add:"
    if equal:
        show_equal_run(equal)
    if not needs_start(equal):
        config = replace(config, seed=find_free_seed([config], rows))
        words = f"Train again as seed {config.seed}"
    look = {"width": "stretch", "disabled": not can_start}
    one = st.button(words, key="start", type="primary", icon=icon, **look)
    words, about = "Train all three conditions", ""
    if not new:
        seed = find_free_seed(trained, rows)
        new, about = [replace(c, seed=seed) for c in trained], "These runs exist. "
        words = f"All three again as seed {seed}"
    elif len(new) < len(trained):
        words, about = "Train the conditions that are missing", "The others exist. "
    names = " and ".join(theme.CONDITION_TEXTS[c.gan.condition][0] for c in new)
    about += f"{names} with these settings, one after the other."
    every = st.button(words, key="start all", icon=":material/playlist_add:", help=about, **look)
    if one or every:
        start_trainings(new if every else [config], device)


def show_equal_run(row: dict) -> None:
    """Say that a run of the chosen settings exists, with a way to it."""
    state = "shipped" if row["shipped"] else row["state"]
    words, label = f"**This run exists ({state}).**", "Open the run"
    if row["state"] == "done":
        label = "Open the finished run"
    elif row["state"] in IDLE_STATES:
        words += " *Start* continues it from its last checkpoint."
    st.markdown(f":material/info: {words}")
    go = {"on_click": _open_run, "args": (row["run"],), "icon": ":material/folder_open:"}
    st.button(label, key="open equal", width="stretch", **go)


def _open_run(run_id: str) -> None:
    query_params.set_value("run", run_id)
    query_params.set_value("at", None)


def draw_demo(name: str, takes: int) -> None:
    """Draw a demo corpus that is not there, in a task, which uses all cores and outlives the page.

    Raises UserError if the task ended without it.
    """
    path = prepared_corpora.corpus_path(name, takes)
    if path.exists():
        return
    task_id = tasks.start(["prepare", name, "--takes", str(takes)])
    bar = st.progress(0.0, "Drawing the demo corpus …")
    while (task := tasks.find(task_id)) and task.state == "running":
        if task.total:
            words = f"Drawing the demo corpus: {task.done:,} of {task.total:,} clips"
            bar.progress(task.done / task.total, words)
        time.sleep(POLL_SECONDS)
    if not path.exists():
        why = task.message if task else "its task was removed"
        raise UserError(f"the demo corpus was not drawn: {why or 'it was stopped'}")


def start_trainings(configs: Sequence[Config], device: str) -> None:
    """Draw the demo corpus if it is needed, queue the trainings and show the first of them."""
    data = configs[0].data
    try:
        for name in prepared_corpora.demo_corpora(data):
            draw_demo(name, data.demo_takes)
        run_ids = [jobs.start(config, device) for config in configs]
    except (UserError, OSError) as error:
        st.error(theme.escape_markdown(str(error)), icon=":material/error:")
        return
    _open_run(run_ids[0])
    st.rerun()
