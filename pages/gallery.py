"""Gallery: what generators made of faces they never met, beside real voices; and a quiz on which is which."""

import numpy as np
import streamlit as st

from core.inference import selection
from ui import theme
from ui.gallery import audio_samples, item, quiz, voices
from ui.session import cache, query_params
from ui.widgets import charts, run_summary

ITEMS = 8  # rows of a page
VIEWS = {"browse": "Browse", "examples": "Examples", "quiz": "Real or generated?"}
SETS = {"S4": "S4: never met", "S3": "S3: trained on"}

title, choice, view_side = st.columns([4, 3, 4], gap="medium", vertical_alignment="center")
title.title("Gallery: real and generated")
families = cache.families()
if not families:
    run_summary.no_run()
    st.stop()


def follow(name: str, default, admit) -> dict:
    """A widget's place in the address: what it needs of `ui.session.query_params`, as arguments."""
    query_params.follow(name, f"gallery {name}", default, admit)
    return {"key": f"gallery {name}", "on_change": query_params.keep, "args": (name, f"gallery {name}")}


def among(name: str, options: dict, default: str) -> dict:
    return follow(name, default, lambda k: k if k in options else None) | {"options": list(options), "format_func": options.get}


# ------------------------------------------------------------------ which run, which set

of_run = {run: f.id for f in families for run in f.members.values()}
named = {f.id: f for f in families}
shown, bare = {k: f"Run: {f.label}" for k, f in named.items()}, {"label_visibility": "collapsed"}
go = follow("run", families[0].id, of_run.get)
family = named[choice.selectbox("Trained run", list(named), format_func=shown.get, **go, **bare)]
with view_side, st.container(horizontal_alignment="right"):
    view = st.segmented_control("View", required=True, **among("view", VIEWS, "browse"), **bare)
if view == "examples":
    audio_samples.show(family, follow)
    st.stop()
try:
    s = voices.shown(family, "S4")
    if view == "browse" and len(s.real.face) and st.query_params.get("set") == "S3":
        s = voices.shown(family, "S3")
except voices.FAULTS as error:
    st.error(theme.escaped(str(error)), icon=":material/error:")
    st.stop()
r, classes = s.real, s.classes
voices.absent(s)


@st.fragment
def game() -> None:
    quiz.play(s, family.id)


if view == "quiz":
    game()
    st.stop()

# ------------------------------------------------------------------ which items, in which order

sets = SETS if len(r.face) else {"S4": "S4: shipped"}
emotions = {"": "all emotions"} | {k: k for i, k in enumerate(classes) if (r.label == i).any()}
people = {"": "everybody" if r.subject.any() else "unknown people"} | {k: k for k in sorted(set(r.subject.tolist()) - {""})}
a, b, c, d, e, f = st.columns(6, gap="small")
about = "Voices of S4's faces are what FID is measured on. S3's faces trained the generator."
a.selectbox("Faces of", **among("set", sets, "S4"), help=about)
emotion = b.selectbox("Emotion", **among("emotion", emotions, ""))
subject = c.selectbox("Whose face", **among("subject", people, ""), disabled=not r.subject.any())
conditions = {k: theme.CONDITION[k][0] for k in s.made}
about = "Verdict, order and copies are of this one; the sheet shows all."
condition = d.selectbox("Condition", **among("condition", conditions, next(iter(conditions))), help=about)
verdict = e.selectbox("Verdict", **among("verdict", {k: v[0] for k, v in selection.VERDICTS.items()}, "any"))
orders = {k: selection.ORDERS[k][0] for k in selection.offered(s.made[condition])}
order = f.selectbox("Order", **among("sort", orders, "mixed"))
items = selection.chosen(r, s.made[condition], classes.index(emotion) if emotion else None, subject, verdict, order)

if not len(items):
    st.info("No voice is like that: choose another emotion, person or verdict.", icon=":material/search_off:")
    st.stop()
pages = -(-len(items) // ITEMS)
page = follow("sheet", 1, lambda k: int(k) if k.isascii() and k.isdecimal() and 0 < int(k[:9]) <= pages else None)
start = ITEMS * (st.session_state["gallery sheet"] - 1)
here = items[start : start + ITEMS]
asked = st.query_params.get("item", "")
found = np.nonzero(r.row == int(asked))[0] if asked.isascii() and asked.isdecimal() and len(asked) < 10 else []
i = int(found[0]) if len(found) else int(here[0])

# ------------------------------------------------------------------ the sheet, and one item in full


def clicked(key: str) -> None:
    """A click in the sheet opens that item."""
    at = [np.ravel(p["customdata"])[0] for p in st.session_state[key]["selection"]["points"] if "customdata" in p]
    if at:
        query_params.write("item", int(r.row[int(at[0])]))


left, right = st.columns([11, 12], gap="medium")
with left:
    key = f"sheet {family.id} {r.name} {start} {order} {verdict} {emotion} {subject} {condition}"
    sheet = voices.sheet(s, here.tolist(), i)
    words = "faces with their real and generated voices; choose one by a click"
    how = {"on_select": lambda: clicked(key), "selection_mode": "points", "config": charts.STILL, "alt": words}
    st.plotly_chart(sheet, key=key, **how)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.number_input(f"Page of {pages:,}", 1, pages, width=120, **page)
        line = f"{len(items):,} of {len(r):,} faces"
        st.caption(f"{line}. Click one to hear it.", width="stretch")
        more = {"on_click": "ignore", "icon": ":material/download:"}
        about = "These faces and voices with all verdicts and distances, a line each."
        st.download_button("List (csv)", lambda: voices.listing(s, items), "gallery.csv", "text/csv", key="csv", help=about, **more)
with right:
    facts, tools = st.columns([11, 5], gap="small", vertical_alignment="center")
    with facts:
        item.heading(s, i)
    with tools:
        look = st.segmented_control("Look", required=True, width="stretch", **among("look", item.LOOKS, "listen"), **bare)
        name, about = f"{family.name}-{r.name}-{r.row[i]}.zip", "Its sounds, pictures and arrays, the facts, and the terms of the data."
        zipped = lambda: voices.bundle(s, i)  # noqa: E731
        st.download_button("All of it (zip)", zipped, name, "application/zip", key="zip", help=about, width="stretch", **more)
    if look == "copy":
        item.copy(s, i, condition)
    else:
        item.listen(s, i)
with st.expander("What am I looking at?", icon=":material/help:"):
    st.markdown(item.ABOUT)
