"""Data: which corpora are here, what they hold, who is in which set; and how another one is brought."""

import streamlit as st

from core.config import BAND_COUNTS
from core.data import splits
from core.experiments import tasks
from ui import theme
from ui.data import corpus_import, overview
from ui.session import corpora, query_params
from ui.widgets import task_progress

PART_LABELS = {
    "corpora": ":material/database: Corpora here",
    "bring": ":material/add: Bring a corpus",
}
VIEW_LABELS = {"balance": "Balance", "sets": "Sets S1–S4", "clips": "Clips", "left-out": "Left out"}

title, choice = st.columns([3, 2], gap="medium", vertical_alignment="center")
title.title("Data: the faces and voices that runs learn from")
query_params.restore_widget("part", "part", "corpora", lambda k: k if k in PART_LABELS else None)
go = {"required": True, "label_visibility": "collapsed", "on_change": query_params.save_widget}
with choice, st.container(horizontal_alignment="right"):
    part = st.segmented_control(
        "Part",
        list(PART_LABELS),
        format_func=PART_LABELS.get,
        key="part",
        args=("part", "part"),
        **go,
    )

tasks_by_id = {e.id: e for e in tasks.listing()}
demo_task = next(
    (
        e
        for e in tasks_by_id.values()
        if e.arguments[:2] == task_progress.DEMO_ARGUMENTS and e.state != "done"
    ),
    None,
)

# ------------------------------------------------------------------ what is here

if part == "corpora":
    st.markdown(
        "Each clip of a *prepared* corpus is an aligned face of 28×28 pixels, and the middle second of the voice: "
        "a spectrogram of 112 columns in the paper's 28 mel bands, or in more."
    )
    loaded = {stem: corpora.load_summary(stem) for stem in corpora.prepared_stems()}
    readable = {stem: c for stem, c in loaded.items() if not isinstance(c, str)}
    for wrong in (c for c in loaded.values() if isinstance(c, str)):
        st.error(theme.escape_markdown(wrong), icon=":material/error:")
    if demo_task and (demo_task.state == "running" or "demo-10" not in loaded):
        task_progress.watch_task(demo_task.id)
    elif "demo-10" not in loaded:
        if not loaded:
            st.info(
                "**No corpus is prepared yet.** Draw the demo corpus: its faces and voices are invented, nothing is downloaded, and it "
                "takes a minute or two. Or bring a real one: *Bring a corpus*, above.",
                icon=":material/database_off:",
            )
        if st.button(
            "Draw the demo corpus",
            icon=":material/brush:",
            type="secondary" if loaded else "primary",
            key="draw",
        ):
            corpus_import.start_task(task_progress.DEMO_ARGUMENTS)
    if not readable:
        st.stop()
    overview.show_corpora(readable)
    query_params.restore_widget(
        "corpus", "corpus", next(iter(readable)), lambda k: k if k in readable else None
    )
    query_params.restore_widget(
        "view", "view", "balance", lambda k: k if k in VIEW_LABELS else None
    )
    left, right = st.columns([2, 5], gap="medium", vertical_alignment="center")
    with left:
        stem = st.selectbox(
            "Corpus",
            list(readable),
            key="corpus",
            format_func=lambda k: f"Corpus: {k}",
            label_visibility="collapsed",
            on_change=query_params.save_widget,
            args=("corpus", "corpus"),
        )
    with right:
        view = st.segmented_control(
            "View",
            list(VIEW_LABELS),
            format_func=VIEW_LABELS.get,
            key="view",
            args=("view", "view"),
            **go,
        )
    overview.show_source(readable[stem])
    if view == "balance":
        overview.show_balance(readable[stem])
    elif view == "sets":
        overview.show_sets(stem, readable)
    elif view == "clips":
        overview.show_clips(readable[stem])
    else:
        overview.show_left_out(readable[stem])
    st.stop()

# ------------------------------------------------------------------ another one

form_side, work_side = st.columns([4, 7], gap="large")
with form_side:
    query_params.restore_widget(
        "form", "form", "ravdess", lambda k: k if k in corpus_import.CORPUS_FORMATS else None
    )
    format_title = lambda k: corpus_import.CORPUS_FORMATS[k].title  # noqa: E731
    key = st.selectbox(
        "Which corpus",
        list(corpus_import.CORPUS_FORMATS),
        format_func=format_title,
        key="form",
        on_change=query_params.save_widget,
        args=("form", "form"),
    )
    corpus_format = corpus_import.CORPUS_FORMATS[key]
    st.caption(theme.escape_markdown(corpus_format.looks))
    text = st.text_input(
        "Path on this machine",
        key="source",
        placeholder="/home/me/corpora/…",
        persist_state="session",
    )
    st.caption(
        ":material/computer: On the machine where this app runs. Nothing is uploaded, and files are only read."
    )
    own_name = (
        ""
        if corpus_format.corpus
        else st.text_input(
            "Name for it", key="name", placeholder="from the file's name", persist_state="session"
        )
    )
    with st.popover("Options", icon=":material/tune:", width="stretch"):
        about = "The frame nearest the sound's middle, then further ones over the second around it."
        frames = st.number_input(
            "Faces of each clip", 1, 9, key="frames", help=about, persist_state="session"
        )
        about = "The middle second, then further ones over the clip's whole length."
        crops = st.number_input(
            "Spectrograms of each clip", 1, 9, key="crops", help=about, persist_state="session"
        )
        song = (
            st.toggle("The sung clips too", key="song", persist_state="session")
            if key == "ravdess"
            else False
        )
        bands = BAND_COUNTS[0]
        if key != "fer2013":
            about = "28 are the paper's. More sound better, need a run of as many, and make a corpus of their own, such as ravdess-64."
            query_params.restore_widget(
                "bands", "bands", bands, lambda k: int(k) if k in map(str, BAND_COUNTS) else None
            )
            bands_args = {"on_change": query_params.save_widget, "args": ("bands", "bands")}
            bands = st.segmented_control(
                "Mel bands of a voice",
                BAND_COUNTS,
                required=True,
                key="bands",
                help=about,
                **bands_args,
            )
        minutes = st.number_input(
            "Minutes for Examine at most", 1, 120, 10, key="minutes", persist_state="session"
        )
    with st.container(horizontal=True):
        about = "Looks for missing, empty, silent, faceless and doubled files, and says what to do about each. Changes nothing."
        examine = st.button(
            "Examine", icon=":material/stethoscope:", help=about, key="examine", width="stretch"
        )
        about = "Reads every clip once and writes one file of arrays. It can be stopped, and goes on where it was."
        prepare = st.button(
            "Prepare",
            icon=":material/play_arrow:",
            help=about,
            key="prepare",
            type="primary",
            width="stretch",
        )
    if examine or prepare:
        path = corpus_import.parse_path(text)
        if isinstance(path, str):
            st.error(theme.escape_markdown(path), icon=":material/error:")
        elif examine:
            corpus_import.start_task(
                [
                    "doctor",
                    str(path),
                    "--corpus",
                    corpus_format.corpus or "own",
                    "--seconds",
                    str(60 * minutes),
                    "--json",
                ]
            )
        else:
            try:
                name = splits.name_with_bands(
                    corpus_format.corpus or corpus_import.corpus_name(own_name, path), bands
                )
                more = (
                    ["--frames", str(frames)] * (frames > 1)
                    + ["--crops", str(crops)] * (crops > 1)
                    + ["--song"] * song
                )
                corpus_import.start_task(["prepare", name, "--source", str(path), *more])
            except ValueError as error:
                st.error(theme.escape_markdown(str(error)), icon=":material/error:")

with work_side:
    words = (
        "What my data must look like"
        if not corpus_format.corpus
        else f"I do not have {corpus_format.title.split(',')[0]} yet"
    )
    with st.expander(words, icon=":material/help:", expanded=not tasks_by_id):
        corpus_import.show_instructions(key)
    if not tasks_by_id:
        st.info(
            "Give a path and press *Examine* first: it changes nothing and says what to mend.",
            icon=":material/arrow_back:",
        )
        st.stop()
    running_ids = [k for k, e in tasks_by_id.items() if e.state == "running"]
    query_params.restore_widget(
        "errand",
        "errand",
        (running_ids or list(tasks_by_id))[0],
        lambda k: k if k in tasks_by_id else None,
    )
    task_label = lambda k: f"{task_progress.task_title(tasks_by_id[k])} · {tasks_by_id[k].state}"  # noqa: E731
    task_id = st.selectbox(
        "Work",
        list(tasks_by_id),
        format_func=task_label,
        key="errand",
        on_change=query_params.save_widget,
        args=("errand", "errand"),
    )
    task_progress.watch_task(task_id)
