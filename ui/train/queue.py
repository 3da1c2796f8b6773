"""The queue of trainings: what trains on this machine, what is paused, what waits, in order; and the buttons that change it."""

from __future__ import annotations

import streamlit as st

from core.experiments import jobs
from ui import theme


def queued_rows(rows: list[dict]) -> list[dict]:
    """The rows of `access.rows` that are in the queue, in its order."""
    return sorted((r for r in rows if r["place"] is not None), key=lambda r: r["place"])


def show_entries(rows: list[dict], chosen: str) -> None:
    """The queue, where it is more than the chosen run's own training."""
    waiting = [r for r in queued_rows(rows) if jobs.is_waiting(r)]
    busy = [r for r in rows if r["state"] == "running" or (r["state"] == "queued" and r["pid"])]
    if not waiting or (len(waiting) == 1 and not busy and waiting[0]["run"] == chosen):
        return
    with st.container(border=True, gap="small", key="queue"):
        st.markdown(
            f"**Queue** · one trains, {len(waiting)} after it"
            if busy
            else f"**Queue** · {len(waiting)} in it"
        )
        for row in busy:
            at = f"step {row['step']:,} of {row['steps']:,}" if row["step"] else "at its beginning"
            st.markdown(f"{state_badge(row)} {theme.escape_markdown(row['run'])} · {at}")
        for k, row in enumerate(waiting):
            _show_entry(row, k, len(waiting))
        if waiting[0]["state"] == "paused":
            after = (
                " The others wait behind it: resume it, stop it, or move it down."
                if len(waiting) > 1
                else ""
            )
            st.caption(f":material/pause_circle: A paused run keeps its place.{after}")


def _show_entry(row: dict, place: int, of: int) -> None:
    run, go = row["run"], {"type": "tertiary"}
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown(
            f"{place + 1}. {state_badge(row)} {theme.escape_markdown(run)}", width="stretch"
        )
        st.button(
            "Up",
            key=f"up {run}",
            disabled=place == 0,
            help="Its turn comes earlier.",
            on_click=jobs.move,
            args=(run, -1),
            **go,
        )
        last = place == of - 1
        st.button(
            "Down",
            key=f"down {run}",
            disabled=last,
            help="Its turn comes later.",
            on_click=jobs.move,
            args=(run, 1),
            **go,
        )
        about = "Takes it out of the queue; what it has trained so far is kept."
        st.button("Remove", key=f"remove {run}", help=about, on_click=jobs.stop, args=(run,), **go)


def state_badge(row: dict) -> str:
    return f":{theme.STATE_COLOURS[row['state']]}-badge[{row['state']}]"


def waiting_text(row: dict, rows: list[dict]) -> str:
    """What a waiting run waits for, in words."""
    ahead = [r for r in queued_rows(rows) if jobs.is_waiting(r) and r["place"] < row["place"]]
    held = next((r for r in ahead if r["state"] == "paused"), None)
    if held:
        return f"It waits behind {held['run']}, which is paused and keeps its place."
    busy = [
        r
        for r in rows
        if r["run"] != row["run"]
        and (r["state"] == "running" or (r["state"] == "queued" and r["pid"]))
    ]
    many = len(ahead) + len(busy)
    return (
        f"It begins by itself after {many} other training{'s' if many > 1 else ''}."
        if many
        else "It begins in a moment."
    )
