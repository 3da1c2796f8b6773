"""Gallery: generated voices of faces from the test set beside real voices; a quiz on both."""

import numpy as np
import streamlit as st

from core.inference.gallery import selection
from ui import theme
from ui.gallery import item, quiz, voices
from ui.session import cache, query_params
from ui.widgets import charts, choices, players, run_summary

ITEMS_PER_PAGE = 8  # rows of the contact sheet
VIEW_LABELS = {"browse": "Browse", "quiz": "Real or generated?"}
SET_LABELS = {"S4": "test people (S4)", "S3": "training people (S3)"}
hidden_label = {"label_visibility": "collapsed"}

title, choice, view_side = st.columns([4, 3, 4], gap="medium", vertical_alignment="center")
title.title("Gallery: real and generated")
# A stable sort: of the runs whose real voices can be shown, the usual first one.
families = sorted(cache.families(), key=lambda f: not voices.has_real_side(f))
if not families:
    run_summary.show_no_run()
    st.stop()


def option_args(name: str, options: dict, default: str) -> dict:
    return choices.option_args(name, f"gallery {name}", options, default)


# ------------------------------------------------------------------ the run and the set

with choice:
    family = choices.choose_family(families, "gallery run", "Run: ", **hidden_label)
with view_side, st.container(horizontal_alignment="right"):
    more = option_args("view", VIEW_LABELS, "browse") | hidden_label
    view = st.segmented_control("View", required=True, **more)
try:
    s = voices.load_set(family, "S4")
    if view == "browse" and voices.has_corpora(s) and st.query_params.get("set") == "S3":
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

# ------------------------------------------------------------------ filters and order

set_labels = SET_LABELS if voices.has_corpora(s) else {"S4": SET_LABELS["S4"]}
emotions = {"": "all emotions"} | {k: k for i, k in enumerate(classes) if (r.label == i).any()}
people = {"": "everybody" if r.subject.any() else "not recorded"}
people |= {k: k for k in sorted(set(r.subject.tolist()) - {""})}
conditions = {k: theme.CONDITION_TEXTS[k][0] for k in s.generated}
a, b, c, d, e, f = st.columns(6, gap="small")
about = "FID is measured on the voices of S4's faces. S3's faces trained the generator."
a.selectbox("Faces of", **option_args("set", set_labels, "S4"), help=about)
emotion = b.selectbox("Emotion", **option_args("emotion", emotions, ""))
args = option_args("subject", people, "")
subject = c.selectbox("Whose face", disabled=not r.subject.any(), **args)
about = "Verdict, order and copies refer to this condition; the sheet shows all."
args = option_args("condition", conditions, next(iter(conditions)))
condition = d.selectbox("Condition", help=about, **args)
verdict = e.selectbox("Verdict", **option_args("verdict", item.VERDICT_LABELS, "any"))
orders = {k: item.ORDER_LABELS[k] for k in selection.available_orders(s.generated[condition])}
order = f.selectbox("Order", **option_args("sort", orders, "mixed"))
label = classes.index(emotion) if emotion else None
items = selection.select_items(r, s.generated[condition], label, subject, verdict, order)
if not len(items):
    words = "No voice is like that: choose another emotion, person or verdict."
    st.info(words, icon=":material/search_off:")
    st.stop()
# The open item is always one of those on the sheet: an item of the URL turns to its page.
rows = [int(k) for k in r.row[items]]
row = choices.parse_integer(st.query_params.get("item", ""), 0, 10**9 - 1)
if row not in rows:
    query_params.set_value("item", None)
else:
    query_params.set_value("sheet", 1 + rows.index(row) // ITEMS_PER_PAGE)
pages = -(-len(items) // ITEMS_PER_PAGE)
page_args = choices.integer_args("sheet", "gallery sheet", 1, 1, pages)
start = ITEMS_PER_PAGE * (st.session_state["gallery sheet"] - 1)
page_items = items[start : start + ITEMS_PER_PAGE]
at = rows.index(row) if row in rows else start
i = int(items[at])

# ------------------------------------------------------------------ the sheet, and one item in full


def open_clicked_item(key: str) -> None:
    """Callback of a click in the sheet: open that item."""
    points = st.session_state[key]["selection"]["points"]
    if at := [np.ravel(p["customdata"])[0] for p in points if "customdata" in p]:
        query_params.set_value("item", int(r.row[int(at[0])]))


def turn_page() -> None:
    """Callback of the page's number: its first item is opened."""
    query_params.set_value("item", None)
    query_params.save_widget("sheet", "gallery sheet")


left, right = st.columns([11, 12], gap="medium")
with left:
    key = f"sheet {family.id} {r.name} {start} {order} {verdict} {emotion} {subject} {condition}"
    sheet = voices.sheet_figure(s, page_items.tolist(), i)
    alt = "faces with their real and generated voices; choose one by a click"
    go = {"on_select": lambda: open_clicked_item(key), "selection_mode": "points"}
    st.plotly_chart(sheet, key=key, config=charts.NO_TOOLBAR_CONFIG, alt=alt, **go)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        words = f"Page {st.session_state['gallery sheet']:,} of {pages:,}"
        st.number_input(words, width=120, **page_args | {"on_change": turn_page, "args": ()})
        words = (
            f"{len(items):,} of {len(r):,} faces. Click one to hear it, or choose it at the right."
        )
        st.caption(f"{words} {item.rate_text(s, items, condition)}", width="stretch")
        about = "These faces and voices with all verdicts and distances, one per line."
        csv = lambda: voices.items_csv(s, items)  # noqa: E731
        players.download("List (csv)", csv, "gallery.csv", key="csv", help=about)
with right:
    item.choose_item(s, items, at, condition)
    facts, tools = st.columns([11, 5], gap="small", vertical_alignment="center")
    with facts:
        item.show_heading(s, i)
    with tools:
        more = option_args("look", item.VIEW_LABELS, "listen") | hidden_label
        item_view = st.segmented_control("Look", required=True, width="stretch", **more)
        name = f"{family.name}-{r.name}-{r.row[i]}.zip"
        about = "Its sounds, pictures and arrays, the facts, and the terms of the data."
        more = {"key": "zip", "help": about, "width": "stretch"}
        players.download("All of it (zip)", lambda: voices.item_zip(s, i), name, **more)
    if item_view == "copy":
        item.show_nearest(s, i, condition)
    else:
        item.show_voices(s, i)
with st.expander("What am I looking at?", icon=":material/help:"):
    st.markdown(item.ABOUT)
