"""Data: the prepared corpora, their contents and sets; and how to add another."""

import streamlit as st

from core.config.settings import BAND_COUNTS
from core.data import prepared_corpora
from core.experiments import tasks
from core.files import UserError
from ui import theme
from ui.data import clip_browser, corpus_import, overview, set_split
from ui.session import corpora
from ui.widgets import choices, task_progress

PART_LABELS = {
    "corpora": ":material/database: Corpora here",
    "bring": ":material/add: Bring a corpus",
}
VIEW_LABELS = {"balance": "Balance", "sets": "Sets S1–S4", "clips": "Clips", "left-out": "Left out"}
SEGMENTS = {"required": True, "label_visibility": "collapsed"}
STRETCHED_ROW = {"gap": "medium", "vertical_alignment": "center"}

title, choice = st.columns([3, 2], **STRETCHED_ROW)
title.title("Data: the faces and voices that runs learn from")
with choice, st.container(horizontal_alignment="right"):
    bound = choices.option_args("part", "part", PART_LABELS, "corpora")
    part = st.segmented_control("Part", **bound, **SEGMENTS)

tasks_by_id = {task.id: task for task in tasks.listing()}

# ------------------------------------------------------------------ prepared corpora

if part == "corpora":
    st.markdown(
        "Each clip of a *prepared* corpus is an aligned face of 28×28 pixels, and the middle "
        "second of the voice: a spectrogram of 112 columns in the paper's 28 mel bands, or in more."
    )
    loaded = {stem: corpora.load_summary(stem) for stem in corpora.prepared_stems()}
    readable = {stem: c for stem, c in loaded.items() if not isinstance(c, str)}
    for error in (c for c in loaded.values() if isinstance(c, str)):
        st.error(theme.escape_markdown(error), icon=":material/error:")
    demo_tasks = (
        task
        for task in tasks_by_id.values()
        if task.arguments[:2] == task_progress.DEMO_ARGUMENTS and task.state != "done"
    )
    demo_task = next(demo_tasks, None)
    has_demo = "demo-10" in loaded
    if demo_task and (demo_task.state == "running" or not has_demo):
        task_progress.watch_task(demo_task.id)
    elif not has_demo:
        if not loaded:
            st.info(
                "**No corpus is prepared yet.** Draw the demo corpus: its faces and voices are "
                "invented, nothing is downloaded, and it takes a minute or two. Or add a real one: "
                "*Bring a corpus*, above.",
                icon=":material/database_off:",
            )
        look = {"icon": ":material/brush:", "type": "secondary" if loaded else "primary"}
        if st.button("Draw the demo corpus", key="draw", **look):
            corpus_import.start_task(task_progress.DEMO_ARGUMENTS)
    if not readable:
        st.stop()
    overview.show_corpora(readable)
    left, right = st.columns([2, 5], **STRETCHED_ROW)
    labels = {stem: f"Corpus: {stem}" for stem in readable}
    bound = choices.option_args("corpus", "corpus", labels, next(iter(readable)))
    stem = left.selectbox("Corpus", label_visibility="collapsed", **bound)
    bound = choices.option_args("view", "view", VIEW_LABELS, "balance")
    view = right.segmented_control("View", **bound, **SEGMENTS)
    overview.show_source(readable[stem])
    if view == "balance":
        overview.show_balance(readable[stem])
    elif view == "sets":
        set_split.show_sets(stem, readable)
    elif view == "clips":
        clip_browser.show_clips(readable[stem])
    else:
        overview.show_left_out(readable[stem])
    st.stop()

# ------------------------------------------------------------------ another corpus

form_side, work_side = st.columns([4, 7], gap="large")
keep = {"persist_state": "session"}
with form_side:
    titles = {key: form.title for key, form in corpus_import.CORPUS_FORMATS.items()}
    key = st.selectbox("Which corpus", **choices.option_args("form", "form", titles, "ravdess"))
    form = corpus_import.CORPUS_FORMATS[key]
    st.caption(theme.escape_markdown(form.looks))
    example = "/home/me/corpora/…"
    text = st.text_input("Path on this machine", key="source", placeholder=example, **keep)
    st.caption(
        ":material/computer: On the machine where this app runs. Nothing is uploaded, and files "
        "are only read."
    )
    own_name = ""
    if not form.corpus:
        example = "from the file's name"
        own_name = st.text_input("Name for it", key="name", placeholder=example, **keep)
    with st.popover("Options", icon=":material/tune:", width="stretch"):
        about = "The frame nearest the sound's middle, then further ones over the second around it."
        frames = st.number_input("Faces of each clip", 1, 9, key="frames", help=about, **keep)
        about = "The middle second, then further ones over the clip's whole length."
        crops = st.number_input("Spectrograms of each clip", 1, 9, key="crops", help=about, **keep)
        song = key == "ravdess" and st.toggle("The sung clips too", key="song", **keep)
        bands = BAND_COUNTS[0]
        if key != "fer2013":
            about = (
                "28 are the paper's. More bands carry more of a voice, need a run with as many, "
                "and make a separate corpus, such as ravdess-64."
            )
            bound = choices.option_args("bands", "bands", BAND_COUNTS, bands)
            bands = st.segmented_control("Mel bands of a voice", required=True, help=about, **bound)
        minutes = st.number_input("Minutes for Examine at most", 1, 120, 10, key="minutes", **keep)
    with st.container(horizontal=True):
        about = (
            "Looks for missing, empty, silent, faceless and duplicate files, and says what to do "
            "about each. Changes nothing."
        )
        look = {"icon": ":material/stethoscope:", "width": "stretch"}
        examine = st.button("Examine", key="examine", help=about, **look)
        about = (
            "Reads every clip once and writes one file of arrays. If it is stopped, it continues "
            "where it was."
        )
        look = {"icon": ":material/play_arrow:", "width": "stretch", "type": "primary"}
        prepare = st.button("Prepare", key="prepare", help=about, **look)
    if examine or prepare:
        path = corpus_import.parse_path(text)
        if isinstance(path, str):
            st.error(theme.escape_markdown(path), icon=":material/error:")
        elif examine:
            arguments = ["doctor", str(path), "--corpus", form.corpus or "own"]
            corpus_import.start_task([*arguments, "--seconds", str(60 * minutes), "--json"])
        else:
            try:
                name = form.corpus or corpus_import.corpus_name(own_name, path)
                name = prepared_corpora.name_with_bands(name, bands)
                arguments = ["prepare", name, "--source", str(path)]
                arguments += ["--frames", str(frames)] * (frames > 1)
                arguments += ["--crops", str(crops)] * (crops > 1) + ["--song"] * song
                corpus_import.start_task(arguments)
            except UserError as error:
                st.error(theme.escape_markdown(str(error)), icon=":material/error:")

with work_side:
    words = "What my data must look like"
    if form.corpus:
        words = f"I do not have {form.title.split(',')[0]} yet"
    with st.expander(words, icon=":material/help:", expanded=not tasks_by_id):
        corpus_import.show_instructions(key)
    if not tasks_by_id:
        words = "Enter a path and press *Examine* first: it changes nothing and says what to fix."
        st.info(words, icon=":material/arrow_back:")
        st.stop()
    running_ids = [k for k, task in tasks_by_id.items() if task.state == "running"]
    labels = {
        k: f"{task_progress.task_title(task)} · {task.state}" for k, task in tasks_by_id.items()
    }
    bound = choices.option_args("errand", "errand", labels, [*running_ids, *labels][0])
    task_progress.watch_task(st.selectbox("Work", **bound))
