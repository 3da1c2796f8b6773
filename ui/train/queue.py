"""The queue of trainings on this machine: running, paused and waiting, with its buttons."""

from __future__ import annotations

import streamlit as st

from core.experiments import jobs
from ui import theme


def queued_rows(rows: list[dict]) -> list[dict]:
    """The rows of `cache.run_rows` that are in the queue, in its order."""
    return sorted((r for r in rows if r["place"] is not None), key=lambda r: r["place"])


def show_entries(rows: list[dict], chosen: str) -> None:
    """The queue, unless it holds the chosen run's training alone."""
    waiting = [r for r in queued_rows(rows) if jobs.is_waiting(r)]
    busy = busy_rows(rows)
    if not waiting or (len(waiting) == 1 and not busy and waiting[0]["run"] == chosen):
        return
    with st.container(border=True, gap="small", key="queue"):
        count = f"one trains, {len(waiting)} after it" if busy else f"{len(waiting)} in it"
        st.markdown(f"**Queue** · {count}")
        for row in busy:
            at = f"step {row['step']:,} of {row['steps']:,}" if row["step"] else "at its beginning"
            st.markdown(f"{state_badge(row)} {theme.escape_markdown(row['run'])} · {at}")
        for k, row in enumerate(waiting):
            _show_entry(row, k, len(waiting))
        if waiting[0]["state"] == "paused":
            words = ":material/pause_circle: A paused run keeps its place."
            if len(waiting) > 1:
                words += " The others wait behind it: resume it, stop it, or move it down."
            st.caption(words)


def busy_rows(rows: list[dict]) -> list[dict]:
    """The rows of runs that have a training process."""
    return [r for r in rows if r["state"] == "running" or (r["state"] == "queued" and r["pid"])]


def _show_entry(row: dict, place: int, of: int) -> None:
    """A waiting run, `place` in 0 … `of` - 1, with buttons that move and remove it."""
    run, go = row["run"], {"type": "tertiary"}
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        name = theme.escape_markdown(run)
        st.markdown(f"{place + 1}. {state_badge(row)} {name}", width="stretch")
        for label, by, is_at_end, about in (
            ("Up", -1, place == 0, "Its turn comes earlier."),
            ("Down", 1, place == of - 1, "Its turn comes later."),
        ):
            go |= {"help": about, "disabled": is_at_end, "on_click": jobs.move, "args": (run, by)}
            st.button(label, key=f"{label.lower()} {run}", **go)
        go |= {"help": "Takes it out of the queue; what it has trained so far is kept."}
        go |= {"disabled": False, "on_click": jobs.stop, "args": (run,)}
        st.button("Remove", key=f"remove {run}", **go)


def state_badge(row: dict) -> str:
    return f":{theme.STATE_COLOURS[row['state']]}-badge[{row['state']}]"


def waiting_text(row: dict, rows: list[dict]) -> str:
    """A sentence on what a waiting run waits for."""
    ahead = [r for r in queued_rows(rows) if jobs.is_waiting(r) and r["place"] < row["place"]]
    paused = next((r for r in ahead if r["state"] == "paused"), None)
    if paused:
        return f"It waits behind {paused['run']}, which is paused and keeps its place."
    count = len(ahead) + sum(r["run"] != row["run"] for r in busy_rows(rows))
    if not count:
        return "It begins in a moment."
    return f"It begins by itself after {count} other training{'s' if count > 1 else ''}."
