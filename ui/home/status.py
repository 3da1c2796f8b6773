"""What Home shows: an example of a shipped run in the paper's Fig. 3, work that is going on, and the ways from there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from core import files
from core.experiments import tasks
from core.runs import Run
from ui import theme
from ui.home import diagram
from ui.session import cache, query_params
from ui.session.cache import RunFamily

if TYPE_CHECKING:
    from core.inference.examples import FaceExample

PAGE_GROUPS = (  # for whom, in a sentence, and the pages: file, label, icon
    (
        "Hear a face",
        "Bring a clip, a picture or your webcam, and hear three voices for it. Nothing leaves this machine.",
        (
            ("listen", "Listen to a face", "hearing"),
            ("condition", "Turn the emotion by hand", "tune"),
            ("gallery", "Generated beside real voices", "grid_view"),
            ("reverse", "The other way: voice to face", "swap_horiz"),
        ),
    ),
    (
        "Understand credibility",
        "A classifier always answers. See when conformal prediction believes it, and whether it keeps its promise.",
        (
            ("conformal", "Conformal prediction, step by step", "target"),
            ("paper", "The paper: every equation and its code", "menu_book"),
        ),
    ),
    (
        "Train and compare",
        "Train all of it on drawn or real faces, watch it learn, and hold the runs against each other.",
        (
            ("train", "Train a generator", "model_training"),
            ("evaluate", "Compare runs", "leaderboard"),
            ("data", "Look at the data", "database"),
        ),
    ),
)


# ------------------------------------------------------------------ the example


@dataclass(frozen=True)
class AudibleExample:
    """An example with its sounds."""

    example: FaceExample
    sounds: dict[str, bytes]  # "fake", "real" and "recorded" -> wav


def load_audible_example(run_id: str, emotion: str, number: int) -> AudibleExample:
    """An example of a finished run. Raises ValueError in words where it has kept none."""
    return _load_audible_example(files.checkpoints_folder() / run_id, emotion, number)


@st.cache_resource(show_spinner="Drawing a face and its voice …", max_entries=64)
def _load_audible_example(directory: Path, emotion: str, number: int) -> AudibleExample:
    from core.inference import examples
    from core.media import spectrograms, vocoder, waveforms

    run = Run(directory)
    found = examples.load_face_example(run, emotion, number)
    s, ref_db, sounds = run.config.logmel, run.json("corpus")["voices"]["ref_db"], {}
    for name, y in (("fake", found.y), ("real", found.real)):
        if y is not None:
            what = waveforms.wav_comment(
                spectrograms.GENERATED_COMMENT
                if name == "fake"
                else spectrograms.RESYNTHESIS_COMMENT,
                s,
                run.id,
                0,
                vocoder.inversion_name(s),
            )
            sounds[name] = waveforms.wav_bytes(vocoder.to_waveform(y, ref_db, s)[0], s.rate, what)
    if found.wave is not None:
        sounds["recorded"], _ = waveforms.crop_to_wav(
            found.wave, s.columns, s, comment=f"a recording's middle: {found.name}, invented"
        )
    return AudibleExample(found, sounds)


def example_family() -> RunFamily | None:
    """The runs that Home shows: the drawn corpus', of which everything is on this machine; else the first there are."""
    found = cache.families()
    return next(
        (f for f in found if cache.run_config(f.id).data.faces == "demo"),
        found[0] if found else None,
    )


def show_example(of: RunFamily) -> None:
    """One face of S4 on its way through Fig. 3."""
    conditions = list(of.members)
    config = cache.run_config(of.id)
    classes = config.data.classes
    first = "happy" if "happy" in classes else classes[0]
    query_params.restore_widget(
        "emotion", "home emotion", first, lambda k: k if k in classes else None
    )
    query_params.restore_widget(
        "condition",
        "home condition",
        "cp" if "cp" in conditions else conditions[0],
        lambda k: k if k in conditions else None,
    )
    query_params.restore_widget(
        "face",
        "home face",
        0,
        lambda k: int(k) if k.isascii() and k.isdecimal() and len(k) < 4 else None,
    )
    go = {"required": True, "on_change": query_params.save_widget, "label_visibility": "collapsed"}
    left, right = st.columns([7, 5], gap="small", vertical_alignment="center")
    with left:
        emotion = st.pills(
            "Emotion of the face",
            classes,
            key="home emotion",
            args=("emotion", "home emotion"),
            **go,
        )
    with (
        right,
        st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"),
    ):
        told = lambda k: theme.CONDITION_TEXTS[k][0]  # noqa: E731
        condition = st.segmented_control(
            "The generator is told",
            conditions,
            format_func=told,
            key="home condition",
            args=("condition", "home condition"),
            **go,
        )
        number = st.session_state["home face"]
        after = {"on_click": query_params.set_value, "args": ("face", number + 1)}
        st.button(
            "Another face",
            icon=":material/face:",
            key="another face",
            help="The next face that the run has kept.",
            **after,
        )
    run_id = of.members[condition]
    try:
        one = load_audible_example(run_id, emotion, number)
    except ValueError as error:
        st.warning(theme.escape_markdown(str(error)), icon=":material/warning:")
        return
    e = one.example
    onwards = diagram.link_targets(run_id, query_params.page_names())
    svg = diagram.fig_3_svg(config, condition, e, list(one.sounds), onwards)
    clicked = diagram.show_fig_3(svg, one.sounds, f"{run_id} {emotion} {e.number}")
    if clicked in onwards:
        page, query = onwards[clicked]
        st.switch_page(f"pages/{page}.py", query_params=query)
    small = ", the small button plays the recording itself" if "recorded" in one.sounds else ""
    best, chosen = classes[int(e.heard.argmax())], classes[int(e.softmax.argmax())]
    whose = f"`{e.name}`, a face" if e.name else "A face"
    face = (
        ""
        if e.face is not None
        else " Its corpus is not on this machine, so the picture is missing."
    )
    st.caption(
        f"{whose} that no network was trained on (S4; {e.number + 1} of {e.of} kept, in the corpus' order), meant as *{emotion}*.{face} "
        f"f_S takes it for *{chosen}* ({e.softmax.max():.0%}), credibility {e.p.max():.2f}. A classifier of real voices hears *{best}* "
        f"({e.heard.max():.0%}) in the generated one. "
        f"Both sounds come back from {config.logmel.bands} mel bands{small}; all are at their own level. Run `{run_id}`."
    )


# ------------------------------------------------------------------ work that goes on


def _live_work() -> tuple[list[dict], list]:
    return [r for r in cache.run_rows() if r["state"] in cache.LIVE_STATES], [
        e for e in tasks.listing() if e.state == "running"
    ]


def show_live_work() -> None:
    """Trainings and work on data that run now, each with its progress and the way back to it; nothing where none does."""
    trainings, work = _live_work()
    every = 2 if trainings or work else None

    @st.fragment(run_every=every)
    def watched() -> None:
        trainings, work = _live_work()
        if not (trainings or work):
            if every:
                st.rerun()  # the last one has ended: no more looking
            return
        from ui.train import (
            progress,  # with Plotly and pandas, which the first paint does not wait for
        )
        from ui.widgets import task_progress

        st.subheader("Running now")
        for row in trainings:
            with st.container(horizontal=True, vertical_alignment="center", border=True):
                with st.container():
                    st.markdown(f"{theme.state_badges(row['state'])}  ·  `{row['run']}`")
                    progress.show_stage(row, row["phase"] or "")
                st.page_link(
                    "pages/train.py",
                    label="Back to it",
                    icon=":material/monitoring:",
                    query_params={"run": row["run"]},
                )
        for one in work:
            with st.container(horizontal=True, vertical_alignment="center", border=True):
                with st.container():
                    st.markdown(
                        f"**{theme.escape_markdown(task_progress.task_title(one))}** · {theme.escape_markdown(one.phase)}"
                    )
                    st.progress(
                        min(1.0, one.done / max(1, one.total)),
                        f"{one.done:,} of {one.total:,}" if one.total else "…",
                    )
                link = {"part": "bring", "errand": one.id}
                st.page_link(
                    "pages/data.py",
                    label="Back to it",
                    icon=":material/monitoring:",
                    query_params=link,
                )

    watched()


# ------------------------------------------------------------------ where to go


def show_page_links() -> None:
    """Three ways on, for three kinds of visitors."""
    there = query_params.page_names()
    for column, (title, words, links) in zip(st.columns(3, gap="medium"), PAGE_GROUPS):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{title}**  \n{words}")
            for page, label, icon in links:
                if page in there:
                    st.page_link(f"pages/{page}.py", label=label, icon=f":material/{icon}:")
