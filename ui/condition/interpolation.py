"""The condition lab's ways: between two emotions, between two faces, along the guidance; drawn at once, played step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core.inference import conditions
from core.inference.conditions import TrainingConditions
from ui.condition import figures, sampling
from ui.condition.sampling import (
    DEFAULT_STEPS,
    EXAMPLE_FACES,
    MAX_GUIDANCE,
    MAX_STEPS,
    MIN_STEPS,
    NAMED_CONDITION_LABELS,
    OWN_FACES,
    SamplingSettings,
    SourceFace,
)
from ui.session import query_params
from ui.widgets import charts, choices

if TYPE_CHECKING:
    from core.inference.conditions import GuidedSamples
    from core.inference.generation import Explanation, LoadedRun

STEP_EVENTS_JS = """export default function ({ data, setTriggerValue }) {
  const look = () => {
    const chart = document.querySelector('.st-key-cond-strip .js-plotly-plot')
    if (!chart || !chart.on) return
    chart.told = (at) => setTriggerValue("at", at)
    if (chart.isFollowed) return
    chart.isFollowed = true
    let timer
    const settled = () => {
      clearTimeout(timer)
      timer = setTimeout(() => {
        const slider = chart._fullLayout?.sliders?.[0]
        if (slider) chart.told(slider.steps[slider.active].label)
      }, 350)
    }
    for (const event of ["plotly_animated", "plotly_animationinterrupted", "plotly_sliderend"]) chart.on(event, settled)
  }
  // Plotly rejects the promise of a play that is stopped, without a reason, and nobody can catch it: that is no error.
  const quiet = (event) => event.reason === undefined && event.preventDefault()
  window.addEventListener("unhandledrejection", quiet)
  look()
  const timer = setInterval(look, 300)
  return () => { clearInterval(timer); window.removeEventListener("unhandledrejection", quiet) }
}"""
_step_events_component = st.components.v2.component("dacssgan_step", js=STEP_EVENTS_JS)


def _save_chart_step(n: int) -> None:
    """When the strip's slider is let go or its play ends, the page takes that step: the browser has moved the chart already."""

    def settled() -> None:
        step = str(st.session_state["cond settled"]["at"])
        if step.isdecimal() and 1 <= int(step) <= n:
            query_params.set_value("at", int(step))

    _step_events_component(key="cond settled", on_at_change=settled)


def _choose_end(column, label: str, name: str, options: list[str], default: str, shown) -> str:
    query_params.restore_widget(
        name, f"cond {name}", default, lambda k: k if k in options else None
    )
    go = {"on_change": query_params.save_widget, "args": (name, f"cond {name}")}
    return column.selectbox(label, options, format_func=shown, key=f"cond {name}", **go)


def show_steps(
    kind: str, o: LoadedRun, one: SourceFace, said: Explanation, s: SamplingSettings
) -> None:
    """A way of one `kind` of condition.VIEWS: its ends, the strip, and the sound of a step."""
    columns = st.columns(
        [3, 3, 2] if kind != "strength" else [6, 2], gap="medium", vertical_alignment="bottom"
    )
    n = _choose_step_count(columns[-1])
    along = np.linspace(0, 1, n)
    if kind == "emotions":
        made = _interpolate_emotions(columns, o, one, said, s, n)
        axis = "share of the second end"
    elif kind == "faces":
        made, axis = _interpolate_faces(columns, o, one, said, s, n), "share of the second face"
    else:
        name, c = sampling.current_condition(o, said)
        held = "set by hand" if name == "own" else NAMED_CONDITION_LABELS.get(name, name)
        columns[0].markdown(
            f"c is held: **{held}**; it is chosen in *One condition*. From s = 0, where it has no say, over s = 1, as trained, to four "
            "times what it changes."
        )
        along, axis = np.linspace(0, MAX_GUIDANCE, n), "guidance strength s"
        made = sampling.guided_samples(o.run.id, one.x[None], c[None], s, along)
    if made is not None:
        _show_strip(kind, o, made, along, axis, s, n)


def _choose_step_count(column) -> int:
    query_params.restore_widget(
        "n",
        "cond n",
        DEFAULT_STEPS,
        lambda k: int(k) if k in [str(j) for j in range(MIN_STEPS, MAX_STEPS + 1)] else None,
    )
    return int(
        column.slider(
            "Steps",
            MIN_STEPS,
            MAX_STEPS,
            key="cond n",
            on_change=query_params.save_widget,
            args=("n", "cond n"),
        )
    )


def _interpolate_emotions(
    columns, o: LoadedRun, one: SourceFace, said: Explanation, s: SamplingSettings, n: int
) -> GuidedSamples:
    classes = list(o.classes)
    options, shown = [*classes, "c"], lambda k: "c as set in One condition" if k == "c" else k
    ends = [classes[0], "angry" if "angry" in classes[1:] else classes[-1]]
    a, b = (
        _choose_end(columns[i], f"{'From' if i == 0 else 'To'}", "ab"[i], options, ends[i], shown)
        for i in range(2)
    )
    _, own = sampling.current_condition(o, said)
    first, last = (own if k == "c" else conditions.by_name(o, said, k) for k in (a, b))
    return sampling.guided_samples(o.run.id, one.x[None], conditions.interpolate(first, last, n), s)


def _interpolate_faces(
    columns, o: LoadedRun, one: SourceFace, said: Explanation, s: SamplingSettings, n: int
) -> GuidedSamples:
    others = [k for k in EXAMPLE_FACES if k != one.key] + [
        k for k in OWN_FACES if k != one.key and st.session_state.get(f"lab seen {k}")
    ]
    other = _choose_end(
        columns[0],
        "To the face",
        "other",
        others,
        others[0],
        lambda k: (EXAMPLE_FACES | OWN_FACES)[k].removesuffix(" …"),
    )
    last = (
        sampling.example_face(other)
        if other in EXAMPLE_FACES
        else sampling.own_face(other, asked=False)
    )
    x = conditions.interpolate(one.x, last.x, n)
    follow = "told"
    if o.config.gan.condition != "none":
        with columns[1]:
            names = {"told": "what each face gives", "held": "held as set"}
            about = "What each face gives: f_S and the conformal predictor look at every step. Held: only the face changes."
            follow = choices.choose_one(
                "c along the way", "follow", tuple(names), "told", names.get, help=about
            )
    c = (
        sampling.conditions_of_faces(o.run.id, x)
        if follow == "told"
        else sampling.current_condition(o, said)[1][None]
    )
    return sampling.guided_samples(o.run.id, x, c, s)


def _show_strip(
    kind: str,
    o: LoadedRun,
    d: GuidedSamples,
    along: np.ndarray,
    axis: str,
    s: SamplingSettings,
    n: int,
) -> None:
    query_params.restore_widget(
        "at",
        "cond at",
        (n + 1) // 2,
        lambda k: int(k) if k in [str(j + 1) for j in range(n)] else None,
    )
    at = st.session_state["cond at"] - 1
    sent = st.session_state.get("cond sent")
    if sent is None or sent[0] is not d:
        st.session_state["cond sent"] = sent = (
            d,
            at,
        )  # what the browser has moved since is not sent again: it would stop a play
    figure = figures.interpolation_strip(
        d, o.classes, sent[1], along, axis, o.ref_db, o.config.logmel, kind == "faces"
    )
    st.plotly_chart(
        figure,
        key="cond strip",
        config=charts.NO_TOOLBAR_CONFIG,
        alt="all steps of the way, the chosen one large, and both verdicts",
    )
    _save_chart_step(n)
    left, right = st.columns([1, 4], gap="medium", vertical_alignment="bottom")
    left.number_input("Sound of step", 1, n, key="cond at", on_change=_apply_step_number)
    with right:
        sampling.show_player(o, d.y[at], s)
    k, j, name = (
        int(d.Q[at].argmax()),
        int(d.scorer[at].argmax()),
        f"{kind}-{o.config.name}-{s.seed}",
    )
    st.markdown(
        f"Step {at + 1}: Q hears *{o.classes[k]}* ({d.Q[at, k]:.0%}), the scorer *{o.classes[j]}* ({d.scorer[at, j]:.0%}). {_steps_support_text(o, d)}"
    )
    with st.container(horizontal=True, gap="small"):
        more = {"icon": ":material/download:", "on_click": "ignore"}
        about = "All steps one after the other, their loudness to one another kept."
        st.download_button(
            "Whole way (wav)",
            lambda: concatenated_wav(o, d, s),
            f"{name}.wav",
            "audio/wav",
            key="way wav",
            help=about,
            **more,
        )
        st.download_button(
            "Whole way (npz)",
            lambda: sampling.npz_bytes(d),
            f"{name}.npz",
            "application/octet-stream",
            key="way npz",
            **more,
        )
        sampling.show_autoplay_toggle()


def _apply_step_number() -> None:
    """A step by number: the chart has to be told."""
    query_params.save_widget("at", "cond at")
    st.session_state.pop("cond sent", None)


def concatenated_wav(o: LoadedRun, d: GuidedSamples, s: SamplingSettings) -> bytes:
    return conditions.concatenated_wav(o, d.y, s.seed)


def _steps_support_text(o: LoadedRun, d: GuidedSamples) -> str:
    """How much of the way training has shown."""
    known = sampling.training_conditions(o.run.id)
    if not isinstance(known, TrainingConditions):
        return ""
    far = sum(conditions.training_support(known, c).place == "outside" for c in d.c)
    return (
        "All of its c's are such as training has shown."
        if not far
        else f"**{far} of {len(d.c)}** c's lie outside of training."
    )
