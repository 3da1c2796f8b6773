"""Data: which corpora are here, what they hold, who is in which set; and how another one is brought."""

import streamlit as st

from core.config import BANDS
from core.data import splits
from core.experiments import tasks
from ui import theme
from ui.data import corpus_import, overview
from ui.session import corpora, query_params
from ui.widgets import task_progress

PARTS = {"corpora": ":material/database: Corpora here", "bring": ":material/add: Bring a corpus"}
VIEWS = {"balance": "Balance", "sets": "Sets S1–S4", "clips": "Clips", "left-out": "Left out"}

title, choice = st.columns([3, 2], gap="medium", vertical_alignment="center")
title.title("Data: the faces and voices that runs learn from")
query_params.follow("part", "part", "corpora", lambda k: k if k in PARTS else None)
go = {"required": True, "label_visibility": "collapsed", "on_change": query_params.keep}
with choice, st.container(horizontal_alignment="right"):
    part = st.segmented_control("Part", list(PARTS), format_func=PARTS.get, key="part", args=("part", "part"), **go)

work = {e.id: e for e in tasks.listing()}
drawing = next((e for e in work.values() if e.arguments[:2] == task_progress.DEMO and e.state != "done"), None)

# ------------------------------------------------------------------ what is here

if part == "corpora":
    st.markdown(
        "Each clip of a *prepared* corpus is an aligned face of 28×28 pixels, and the middle second of the voice: "
        "a spectrogram of 112 columns in the paper's 28 mel bands, or in more."
    )
    here = {stem: corpora.opened(stem) for stem in corpora.names()}
    found = {stem: c for stem, c in here.items() if not isinstance(c, str)}
    for wrong in (c for c in here.values() if isinstance(c, str)):
        st.error(theme.escaped(wrong), icon=":material/error:")
    if drawing and (drawing.state == "running" or "demo-10" not in here):
        task_progress.watch(drawing.id)
    elif "demo-10" not in here:
        if not here:
            st.info(
                "**No corpus is prepared yet.** Draw the demo corpus: its faces and voices are invented, nothing is downloaded, and it "
                "takes a minute or two. Or bring a real one: *Bring a corpus*, above.",
                icon=":material/database_off:",
            )
        if st.button("Draw the demo corpus", icon=":material/brush:", type="secondary" if here else "primary", key="draw"):
            corpus_import.begin(task_progress.DEMO)
    if not found:
        st.stop()
    overview.overview(found)
    query_params.follow("corpus", "corpus", next(iter(found)), lambda k: k if k in found else None)
    query_params.follow("view", "view", "balance", lambda k: k if k in VIEWS else None)
    left, right = st.columns([2, 5], gap="medium", vertical_alignment="center")
    with left:
        stem = st.selectbox(
            "Corpus",
            list(found),
            key="corpus",
            format_func=lambda k: f"Corpus: {k}",
            label_visibility="collapsed",
            on_change=query_params.keep,
            args=("corpus", "corpus"),
        )
    with right:
        view = st.segmented_control("View", list(VIEWS), format_func=VIEWS.get, key="view", args=("view", "view"), **go)
    overview.head(found[stem])
    if view == "balance":
        overview.balance(found[stem])
    elif view == "sets":
        overview.sets(stem, found)
    elif view == "clips":
        overview.clips(found[stem])
    else:
        overview.left_out(found[stem])
    st.stop()

# ------------------------------------------------------------------ another one

form_side, work_side = st.columns([4, 7], gap="large")
with form_side:
    query_params.follow("form", "form", "ravdess", lambda k: k if k in corpus_import.FORMS else None)
    shown = lambda k: corpus_import.FORMS[k].title  # noqa: E731
    key = st.selectbox(
        "Which corpus", list(corpus_import.FORMS), format_func=shown, key="form", on_change=query_params.keep, args=("form", "form")
    )
    form = corpus_import.FORMS[key]
    st.caption(theme.escaped(form.looks))
    text = st.text_input("Path on this machine", key="source", placeholder="/home/me/corpora/…", persist_state="session")
    st.caption(":material/computer: On the machine where this app runs. Nothing is uploaded, and files are only read.")
    named = "" if form.corpus else st.text_input("Name for it", key="name", placeholder="from the file's name", persist_state="session")
    with st.popover("Options", icon=":material/tune:", width="stretch"):
        about = "The frame nearest the sound's middle, then further ones over the second around it."
        frames = st.number_input("Faces of each clip", 1, 9, key="frames", help=about, persist_state="session")
        about = "The middle second, then further ones over the clip's whole length."
        crops = st.number_input("Spectrograms of each clip", 1, 9, key="crops", help=about, persist_state="session")
        song = st.toggle("The sung clips too", key="song", persist_state="session") if key == "ravdess" else False
        bands = BANDS[0]
        if key != "fer2013":
            about = "28 are the paper's. More sound better, need a run of as many, and make a corpus of their own, such as ravdess-64."
            query_params.follow("bands", "bands", bands, lambda k: int(k) if k in map(str, BANDS) else None)
            again = {"on_change": query_params.keep, "args": ("bands", "bands")}
            bands = st.segmented_control("Mel bands of a voice", BANDS, required=True, key="bands", help=about, **again)
        minutes = st.number_input("Minutes for Examine at most", 1, 120, 10, key="minutes", persist_state="session")
    with st.container(horizontal=True):
        about = "Looks for missing, empty, silent, faceless and doubled files, and says what to do about each. Changes nothing."
        examine = st.button("Examine", icon=":material/stethoscope:", help=about, key="examine", width="stretch")
        about = "Reads every clip once and writes one file of arrays. It can be stopped, and goes on where it was."
        prepare = st.button("Prepare", icon=":material/play_arrow:", help=about, key="prepare", type="primary", width="stretch")
    if examine or prepare:
        path = corpus_import.place(text)
        if isinstance(path, str):
            st.error(theme.escaped(path), icon=":material/error:")
        elif examine:
            corpus_import.begin(["doctor", str(path), "--corpus", form.corpus or "own", "--seconds", str(60 * minutes), "--json"])
        else:
            try:
                name = splits.name_of(form.corpus or corpus_import.named(named, path), bands)
                more = ["--frames", str(frames)] * (frames > 1) + ["--crops", str(crops)] * (crops > 1) + ["--song"] * song
                corpus_import.begin(["prepare", name, "--source", str(path), *more])
            except ValueError as error:
                st.error(theme.escaped(str(error)), icon=":material/error:")

with work_side:
    words = "What my data must look like" if not form.corpus else f"I do not have {form.title.split(',')[0]} yet"
    with st.expander(words, icon=":material/help:", expanded=not work):
        corpus_import.how_to_get(key)
    if not work:
        st.info("Give a path and press *Examine* first: it changes nothing and says what to mend.", icon=":material/arrow_back:")
        st.stop()
    running = [k for k, e in work.items() if e.state == "running"]
    query_params.follow("errand", "errand", (running or list(work))[0], lambda k: k if k in work else None)
    label = lambda k: f"{task_progress.title(work[k])} · {work[k].state}"  # noqa: E731
    chosen = st.selectbox("Work", list(work), format_func=label, key="errand", on_change=query_params.keep, args=("errand", "errand"))
    task_progress.watch(chosen)
