"""Home: an example of a shipped run in the paper's Fig. 3, running work, links to all pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from core import files
from core.config.settings import Config
from core.conformal import credibility
from core.experiments import tasks
from core.files import UserError
from core.runs import store
from core.runs.directory import Run
from ui import theme
from ui.home import diagram
from ui.session import cache, query_params
from ui.session.cache import RunFamily, cache_by_run
from ui.widgets import choices

if TYPE_CHECKING:
    from core.inference.examples import FaceExample

MAX_FACE_NUMBER = 999  # highest number of an example in the URL
PAGE_GROUPS = (  # title, a sentence, and the pages: file, label, icon
    (
        "Hear a face",
        "Bring a clip, a picture or your webcam, and hear a voice for it. "
        "Nothing leaves this machine.",
        (
            ("listen", "Listen to a face", "hearing"),
            ("condition", "Turn the emotion by hand", "tune"),
            ("gallery", "Generated beside real voices", "grid_view"),
            ("reverse", "The other way: voice to face", "swap_horiz"),
        ),
    ),
    (
        "Understand credibility",
        "A classifier always answers. See when conformal prediction believes it, "
        "and whether it keeps its promise.",
        (
            ("conformal", "Conformal prediction, step by step", "target"),
            ("paper", "The paper: every equation and its code", "menu_book"),
        ),
    ),
    (
        "Train and compare",
        "Train the whole method on drawn or real faces, watch it learn, and compare the runs.",
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
    sounds: dict[str, bytes]  # "fake", "real" and "recorded" -> WAV
    place: int  # among the emotion's examples, those heard as meant first
    heard: int  # how many of them are heard as meant


@cache_by_run(64, "Drawing a face and its voice …")
def load_audible_example(directory: Path, emotion: str, number: int) -> AudibleExample:
    """An example of a finished run, those heard as meant first.

    Raises UserError where the run has kept none.
    """
    from core.inference import examples
    from core.media import spectrograms, vocoder, waveforms

    run = Run(directory)
    is_heard = examples.heard_as_meant(run, emotion)
    place = number % max(1, len(is_heard))
    order = (~is_heard).argsort(kind="stable").tolist() or [0]
    found = examples.load_face_example(run, emotion, order[place])
    s, ref_db, sounds = run.config.logmel, run.json("corpus")["voices"]["ref_db"], {}
    for name, y, what in (
        ("fake", found.y, spectrograms.GENERATED_COMMENT),
        ("real", found.real, spectrograms.RESYNTHESIS_COMMENT),
    ):
        if y is not None:
            comment = waveforms.wav_comment(what, s, run.id, 0, vocoder.inversion_name(s))
            wave = vocoder.to_waveform(y, ref_db, s)[0]
            sounds[name] = waveforms.wav_bytes(wave, s.rate, comment)
    if found.wave is not None:
        comment = f"a recording's middle: {found.name}, invented"
        gain = waveforms.play_gain_db(ref_db)
        sounds["recorded"], _ = waveforms.crop_to_wav(found.wave, s.columns, s, gain, comment)
    return AudibleExample(found, sounds, place, int(is_heard.sum()))


def example_family() -> RunFamily | None:
    """The demo corpus' runs, since their data are on this machine; else the first family."""
    found = cache.families()
    drawn = [f for f in found if cache.run_config(f.id).data.faces == "demo"]
    return next(iter(drawn + found), None)


def show_example(of: RunFamily) -> None:
    """One face of S4 on its way through Fig. 3."""
    config = cache.run_config(of.id)
    emotion, condition, number = _choose_example(of, config.data.classes)
    run_id = of.members[condition]
    try:
        one = load_audible_example(run_id, emotion, number)
    except UserError as error:
        st.warning(theme.escape_markdown(str(error)), icon=":material/warning:")
        return
    targets = diagram.link_targets(run_id, query_params.page_names())
    with st.container(key="phone-player"):  # the drawing's own buttons lie beyond a phone's edge
        st.audio(one.sounds["fake"], "audio/wav", alt="the generated voice")
    svg = diagram.fig_3_svg(config, condition, one.example, list(one.sounds), targets)
    clicked = diagram.show_fig_3(svg, one.sounds, f"{run_id} {emotion} {one.example.number}")
    if clicked in targets:
        page, query = targets[clicked]
        st.switch_page(f"pages/{page}.py", query_params=query)
    st.caption(_example_text(one, emotion, config, run_id))


def _choose_example(of: RunFamily, classes: tuple[str, ...]) -> tuple[str, str, int]:
    """The emotion, the condition and the number of an example, chosen on the page."""
    conditions = {k: theme.CONDITION_TEXTS[k][0] for k in of.members}
    defaults = [
        "happy" if "happy" in classes else classes[0],
        "cp" if "cp" in conditions else next(iter(conditions)),
    ]
    emotions = choices.option_args("emotion", "home emotion", classes, defaults[0])
    told = choices.option_args("condition", "home condition", conditions, defaults[1])
    choices.integer_args("face", "home face", 0, 0, MAX_FACE_NUMBER)
    look = {"required": True, "label_visibility": "collapsed"}
    row = {"horizontal": True, "horizontal_alignment": "right", "vertical_alignment": "center"}
    left, right = st.columns([7, 5], gap="small", vertical_alignment="center")
    with left:
        emotion = st.pills("Emotion of the face", **emotions, **look)
    with right, st.container(**row):
        condition = st.segmented_control("The generator is told", **told, **look)
        number = st.session_state["home face"]
        go = {"on_click": query_params.set_value, "args": ("face", number + 1)}
        about = "The next face that the run has kept."
        st.button("Another face", icon=":material/face:", key="another face", help=about, **go)
    return emotion, condition, number


def _example_text(one: AudibleExample, emotion: str, config: Config, run_id: str) -> str:
    """The example's origin and the classifiers' verdicts, in words."""
    e, classes = one.example, config.data.classes
    hint = ", the small button plays the recording itself" if "recorded" in one.sounds else ""
    scale = cache.credibility_scale(run_id)
    missing = " Its corpus is not on this machine, so the picture is missing."
    return (
        f"{f'`{e.name}`, a face' if e.name else 'A face'} that no network was trained on (S4; "
        f"{one.place + 1} of {e.of} kept); its emotion is *{emotion}*."
        f"{missing if e.face is None else ''} "
        f"f_S takes it for *{classes[int(e.softmax.argmax())]}* ({e.softmax.max():.0%}), "
        f"credibility {credibility.describe(scale, float(e.p.max()))}. "
        "The judge, who learnt from real voices and never met G, hears "
        f"*{classes[int(e.heard.argmax())]}* ({e.heard.max():.0%}) in the generated one. "
        f"**{'●' * one.heard}{'○' * (e.of - one.heard)}** heard as *{emotion}* for {one.heard} of "
        f"these {e.of} faces, chance {e.of / len(classes):.1f}; those come first. "
        f"Both sounds come back from {config.logmel.bands} mel bands{hint}. Run `{run_id}`."
    )


# ------------------------------------------------------------------ running work


def _live_work() -> tuple[list[dict], list[tasks.Task]]:
    shown = (*cache.LIVE_STATES, "paused")  # a paused run holds up the queue
    trainings = [r for r in cache.run_rows() if r["state"] in shown]
    return trainings, [e for e in tasks.listing() if e.state == "running"]


def show_live_work() -> None:
    """Trainings and tasks that run or wait, with progress and a link; nothing without any."""

    def is_live(trainings: list[dict], running: list[tasks.Task]) -> bool:
        return bool(running) or any(r["state"] in cache.LIVE_STATES for r in trainings)

    every = 2 if is_live(*_live_work()) else None

    @st.fragment(run_every=every)
    def watched() -> None:
        trainings, running = _live_work()
        if every and not is_live(trainings, running):
            st.rerun()  # the last one has ended: stop refreshing
        if not (trainings or running):
            return
        # These import Plotly and pandas, which would delay the page's first paint.
        from ui.train import progress
        from ui.widgets import task_progress

        st.header("Running now")
        row_look = {"horizontal": True, "vertical_alignment": "center", "border": True}
        link = {"label": "Back to it", "icon": ":material/monitoring:"}
        for row in trainings:
            with st.container(**row_look):
                with st.container():
                    st.markdown(f"{theme.state_badges(row['state'])}  ·  `{row['run']}`")
                    if row["state"] == "paused":
                        st.caption("Those behind it in the queue wait until it goes on.")
                    else:
                        progress.show_stage(row, row["phase"] or "")
                st.page_link("pages/train.py", query_params={"run": row["run"]}, **link)
        for one in running:
            with st.container(**row_look):
                with st.container():
                    title = theme.escape_markdown(task_progress.task_title(one))
                    st.markdown(f"**{title}** · {theme.escape_markdown(one.phase)}")
                    words = f"{one.done:,} of {one.total:,}" if one.total else "…"
                    st.progress(min(1.0, one.done / max(1, one.total)), words)
                query = {"part": "bring", "errand": one.id}
                st.page_link("pages/data.py", query_params=query, **link)

    watched()


def show_faults() -> None:
    """A line on the index, and one on each directory of runs that cannot be read, if any."""
    if fault := store.index_fault():
        st.warning(theme.escape_markdown(fault))
    damaged = {r["run"]: r["fault"] for r in cache.run_rows() if r["fault"]}
    for name, reason in (store.unreadable_runs() | damaged).items():
        st.warning(theme.escape_markdown(f"{files.printable(name)} is left out: {reason}"))


# ------------------------------------------------------------------ links


def show_page_links() -> None:
    """The pages in three groups, for three kinds of visitors."""
    known = query_params.page_names()
    for column, (title, words, links) in zip(st.columns(3, gap="medium"), PAGE_GROUPS):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{title}**  \n{words}")
            for page, label, icon in links:
                if page in known:
                    st.page_link(f"pages/{page}.py", label=label, icon=f":material/{icon}:")
