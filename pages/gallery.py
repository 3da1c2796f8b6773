"""Gallery: what generators made of faces they never met, beside real voices; and a quiz on which is which."""

import numpy as np
import streamlit as st

from core.inference import selection
from ui import theme
from ui.gallery import audio_samples, item, quiz, voices
from ui.session import cache, query_params
from ui.widgets import charts, run_summary

ITEMS_PER_PAGE = 8  # rows of a page
VIEW_LABELS = {"browse": "Browse", "examples": "Examples", "quiz": "Real or generated?"}
SET_LABELS = {"S4": "S4: never met", "S3": "S3: trained on"}

title, choice, view_side = st.columns([4, 3, 4], gap="medium", vertical_alignment="center")
title.title("Gallery: real and generated")
families = cache.families()
if not families:
    run_summary.show_no_run()
    st.stop()


def linked_args(name: str, default, admit) -> dict:
    """A widget's place in the address: what it needs of `ui.session.query_params`, as arguments."""
    query_params.restore_widget(name, f"gallery {name}", default, admit)
    return {
        "key": f"gallery {name}",
        "on_change": query_params.save_widget,
        "args": (name, f"gallery {name}"),
    }


def option_args(name: str, options: dict, default: str) -> dict:
    return linked_args(name, default, lambda k: k if k in options else None) | {
        "options": list(options),
        "format_func": options.get,
    }


# ------------------------------------------------------------------ which run, which set

family_id_by_run = {run: f.id for f in families for run in f.members.values()}
family_by_id = {f.id: f for f in families}
family_labels, hidden_label = (
    {k: f"Run: {f.label}" for k, f in family_by_id.items()},
    {"label_visibility": "collapsed"},
)
go = linked_args("run", families[0].id, family_id_by_run.get)
family = family_by_id[
    choice.selectbox(
        "Trained run", list(family_by_id), format_func=family_labels.get, **go, **hidden_label
    )
]
with view_side, st.container(horizontal_alignment="right"):
    view = st.segmented_control(
        "View", required=True, **option_args("view", VIEW_LABELS, "browse"), **hidden_label
    )
if view == "examples":
    audio_samples.show(family, linked_args)
    st.stop()
try:
    s = voices.load_set(family, "S4")
    if view == "browse" and len(s.real.face) and st.query_params.get("set") == "S3":
        s = voices.load_set(family, "S3")
except voices.LOAD_ERRORS as error:
    st.error(theme.escape_markdown(str(error)), icon=":material/error:")
    st.stop()
r, classes = s.real, s.classes
voices.show_missing_corpora(s)


@st.fragment
def show_quiz() -> None:
    quiz.show_game(s, family.id)


if view == "quiz":
    show_quiz()
    st.stop()

# ------------------------------------------------------------------ which items, in which order

set_labels = SET_LABELS if len(r.face) else {"S4": "S4: shipped"}
emotions = {"": "all emotions"} | {k: k for i, k in enumerate(classes) if (r.label == i).any()}
people = {"": "everybody" if r.subject.any() else "unknown people"} | {
    k: k for k in sorted(set(r.subject.tolist()) - {""})
}
a, b, c, d, e, f = st.columns(6, gap="small")
about = "Voices of S4's faces are what FID is measured on. S3's faces trained the generator."
a.selectbox("Faces of", **option_args("set", set_labels, "S4"), help=about)
emotion = b.selectbox("Emotion", **option_args("emotion", emotions, ""))
subject = c.selectbox(
    "Whose face", **option_args("subject", people, ""), disabled=not r.subject.any()
)
conditions = {k: theme.CONDITION_TEXTS[k][0] for k in s.made}
about = "Verdict, order and copies are of this one; the sheet shows all."
condition = d.selectbox(
    "Condition", **option_args("condition", conditions, next(iter(conditions))), help=about
)
verdict = e.selectbox(
    "Verdict", **option_args("verdict", {k: v[0] for k, v in selection.VERDICTS.items()}, "any")
)
orders = {k: selection.ORDERS[k][0] for k in selection.available_orders(s.made[condition])}
order = f.selectbox("Order", **option_args("sort", orders, "mixed"))
items = selection.select_items(
    r, s.made[condition], classes.index(emotion) if emotion else None, subject, verdict, order
)

if not len(items):
    st.info(
        "No voice is like that: choose another emotion, person or verdict.",
        icon=":material/search_off:",
    )
    st.stop()
pages = -(-len(items) // ITEMS_PER_PAGE)
page = linked_args(
    "sheet",
    1,
    lambda k: int(k) if k.isascii() and k.isdecimal() and 0 < int(k[:9]) <= pages else None,
)
start = ITEMS_PER_PAGE * (st.session_state["gallery sheet"] - 1)
page_items = items[start : start + ITEMS_PER_PAGE]
item_query = st.query_params.get("item", "")
item_rows = (
    np.nonzero(r.row == int(item_query))[0]
    if item_query.isascii() and item_query.isdecimal() and len(item_query) < 10
    else []
)
i = int(item_rows[0]) if len(item_rows) else int(page_items[0])

# ------------------------------------------------------------------ the sheet, and one item in full


def open_clicked_item(key: str) -> None:
    """A click in the sheet opens that item."""
    at = [
        np.ravel(p["customdata"])[0]
        for p in st.session_state[key]["selection"]["points"]
        if "customdata" in p
    ]
    if at:
        query_params.set_value("item", int(r.row[int(at[0])]))


left, right = st.columns([11, 12], gap="medium")
with left:
    key = f"sheet {family.id} {r.name} {start} {order} {verdict} {emotion} {subject} {condition}"
    sheet = voices.sheet_figure(s, page_items.tolist(), i)
    words = "faces with their real and generated voices; choose one by a click"
    chart_args = {
        "on_select": lambda: open_clicked_item(key),
        "selection_mode": "points",
        "config": charts.NO_TOOLBAR_CONFIG,
        "alt": words,
    }
    st.plotly_chart(sheet, key=key, **chart_args)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.number_input(f"Page of {pages:,}", 1, pages, width=120, **page)
        count_text = f"{len(items):,} of {len(r):,} faces"
        st.caption(f"{count_text}. Click one to hear it.", width="stretch")
        more = {"on_click": "ignore", "icon": ":material/download:"}
        about = "These faces and voices with all verdicts and distances, a line each."
        st.download_button(
            "List (csv)",
            lambda: voices.items_csv(s, items),
            "gallery.csv",
            "text/csv",
            key="csv",
            help=about,
            **more,
        )
with right:
    facts, tools = st.columns([11, 5], gap="small", vertical_alignment="center")
    with facts:
        item.show_heading(s, i)
    with tools:
        item_view = st.segmented_control(
            "Look",
            required=True,
            width="stretch",
            **option_args("look", item.VIEW_LABELS, "listen"),
            **hidden_label,
        )
        name, about = (
            f"{family.name}-{r.name}-{r.row[i]}.zip",
            "Its sounds, pictures and arrays, the facts, and the terms of the data.",
        )
        make_zip = lambda: voices.item_zip(s, i)  # noqa: E731
        st.download_button(
            "All of it (zip)",
            make_zip,
            name,
            "application/zip",
            key="zip",
            help=about,
            width="stretch",
            **more,
        )
    if item_view == "copy":
        item.show_nearest(s, i, condition)
    else:
        item.show_voices(s, i)
with st.expander("What am I looking at?", icon=":material/help:"):
    st.markdown(item.ABOUT)
