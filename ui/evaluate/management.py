"""The table of runs: search, tags, and what is said of a run; archive and deletion with undo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from core import files
from core.evaluation.comparison import RunSummary
from core.experiments import jobs
from core.runs import notes, store
from core.runs.notes import Notes
from ui import theme
from ui.session import cache, query_params

FLAGS = {"True": True, "False": False}


def notes_of(found: Sequence[RunSummary]) -> dict[str, Notes]:
    """Run id -> what is said of it."""
    return {s.id: notes.read(cache.run_by_id(s.id)) for s in found}


def wants_archived() -> bool:
    """Whether archived runs are listed, too: the URL's `archived`."""
    return FLAGS.get(st.query_params.get("archived", ""), False)


def search(found: Sequence[RunSummary], said: dict[str, Notes]) -> list[RunSummary]:
    """Widgets of the search; returns the runs that they leave."""
    tags = sorted({tag for one in said.values() for tag in one.tags})
    columns = st.columns([4, 4, 2] if tags else [8, 2], vertical_alignment="bottom", gap="medium")
    bound = query_params.bind_widget("find", "find runs", "", lambda text: text[:100])
    about = "Words of a run's id, title, note, tags, corpora, condition, generator and state."
    word = columns[0].text_input("Search", help=about, **bound)
    chosen: list[str] = []
    if tags:
        with columns[1]:
            chosen = st.pills("Tags", tags, selection_mode="multi", key="tags of runs") or []
    bound = query_params.bind_widget("archived", "archived runs", False, FLAGS.get)
    columns[-1].toggle("Archived too", **bound)
    left = [s for s in found if _is_found(s, said[s.id], word, chosen)]
    if len(left) < len(found):
        st.caption(f"{len(left)} of {len(found)} runs")
    return left


def _is_found(s: RunSummary, one: Notes, word: str, tags: Sequence[str]) -> bool:
    data = s.config.data
    texts = [s.id, one.title, one.note, *one.tags, data.faces, data.voices, s.state]
    texts += [s.config.gan.condition, s.config.gan.generator]
    text = " ".join(texts).lower()
    return all(part in text for part in word.lower().split()) and set(tags) <= set(one.tags)


def with_notes(record: dict[str, Any], one: Notes) -> dict[str, Any]:
    """A row of the table with the run's title and tags after its id."""
    first = {"run": record["run"], "title": one.title, "tags": ", ".join(one.tags)}
    return first | record


def show_form(found: Sequence[RunSummary], picked: Sequence[RunSummary]) -> None:
    """What is said of one run, and the buttons that put it away; below them what was deleted."""
    with st.expander("Name, note, tag, archive or delete a run", icon=":material/edit_note:"):
        ids = [s.id for s in found]
        if ids:
            first = next((ids.index(s.id) for s in picked if s.id in ids), 0)
            run_id = st.selectbox("Run to change", ids, first, key="managed run")
            _show_fields(run_id)
        _show_deleted()


def _show_fields(run_id: str) -> None:
    run = cache.run_by_id(run_id)
    now = notes.read(run)
    left, middle = st.columns([1, 1], gap="medium")
    about = "Shown beside the id, which stays: it is made of the settings."
    keys = {name: f"{name} {run_id}" for name in ("title", "tags", "note")}
    texts = {"title": now.title, "tags": ", ".join(now.tags), "note": now.note}
    for name, key in keys.items():
        st.session_state.setdefault(key, texts[name])
    left.text_input("Title", key=keys["title"], max_chars=notes.MAX_TITLE, help=about)
    middle.text_input("Tags, with commas between them", key=keys["tags"])
    st.text_area("Note", key=keys["note"], max_chars=notes.MAX_NOTE, height=80)
    with st.container(horizontal=True):
        go = {"on_click": _save, "args": (run_id, keys)}
        st.button("Save", icon=":material/save:", type="primary", key="save notes", **go)
        words = "List it again" if now.archived else "Archive"
        about = "An archived run keeps all its files and is left out of lists and choices."
        go = {
            "on_click": _try,
            "args": (notes.write, run),
            "kwargs": {"archived": not now.archived},
        }
        st.button(words, icon=":material/archive:", help=about, key="archive run", **go)
        is_shipped = run.shipped
        about = "It can be undone below."
        if is_shipped:
            about = "It came with the project and is not deleted; archive it."
        go = {"on_click": _try, "args": (_delete, run_id), "disabled": is_shipped, "help": about}
        st.button("Delete", icon=":material/delete:", key="delete run", **go)
    if words := st.session_state.pop("management fault", ""):
        st.error(theme.escape_markdown(words), icon=":material/error:")


def _show_deleted() -> None:
    """The deleted runs, each with a button that brings it back."""
    gone = store.deleted_runs()
    if not gone:
        return
    place = f"checkpoints/{store.DELETED_FOLDER}"
    st.caption(f"Deleted; their folders wait in {place}, and are removed for good there.")
    for run_id in gone:
        go = {"on_click": _try, "args": (store.restore, run_id), "key": f"restore {run_id}"}
        st.button(f"Undo: bring back {run_id}", icon=":material/undo:", **go)


def _save(run_id: str, keys: dict[str, str]) -> None:
    texts = {name: st.session_state[key] for name, key in keys.items()}
    texts["tags"] = notes.parse_tags(texts["tags"].split(","))
    _try(notes.write, cache.run_by_id(run_id), **texts)


def _delete(run_id: str) -> None:
    jobs.dequeue(cache.run_by_id(run_id))
    store.delete(cache.run_by_id(run_id))


def _try(change: Callable, *args: Any, **kwargs: Any) -> None:
    """Callback of the buttons: what cannot be done is said at the next run of the page."""
    try:
        change(*args, **kwargs)
    except (files.UserError, OSError) as error:
        st.session_state["management fault"] = str(error)
