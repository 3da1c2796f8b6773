"""The condition lab's paths: between two emotions, between two faces, along the guidance.

All steps are drawn at once and played step by step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core.inference import conditions
from core.inference.conditions import TrainingConditions
from ui.condition import figures, point, sampling
from ui.condition.sampling import (
    EXAMPLE_FACES,
    MAX_GUIDANCE,
    OWN_FACES,
    SamplingSettings,
    SourceFace,
)
from ui.session import query_params, viewport
from ui.widgets import charts, choices, players

if TYPE_CHECKING:
    from core.inference.conditions import GuidedSamples
    from core.inference.generation import Explanation, LoadedRun

VIEWS = {
    "point": "One condition",
    "emotions": "Between two emotions",
    "faces": "Between two faces",
    "strength": "Along the guidance",
}
DEFAULT_STEPS, MIN_STEPS, MAX_STEPS = 12, 8, 16  # steps of a path
WIDE_SPACING, NARROW_SPACING = 0.085, 0.13  # of a page's width, between two plots
FOLLOW_LABELS = {"told": "what each face gives", "held": "held as set"}

STEP_EVENTS_JS = """export default function ({ data, setTriggerValue }) {
  const look = () => {
    const chart = document.querySelector('.st-key-cond-strip .js-plotly-plot')
    if (!chart || !chart.on) return
    chart.report = (at) => setTriggerValue("at", at)
    if (chart.isFollowed) return
    chart.isFollowed = true
    let timer
    const settled = () => {
      clearTimeout(timer)
      timer = setTimeout(() => {
        const slider = chart._fullLayout?.sliders?.[0]
        if (slider) chart.report(slider.steps[slider.active].label)
      }, 350)
    }
    for (const event of ["animated", "animationinterrupted", "sliderend"])
      chart.on(`plotly_${event}`, settled)
  }
  // Plotly rejects the promise of a play that is stopped, without a reason: that is no error.
  const quiet = (event) => event.reason === undefined && event.preventDefault()
  window.addEventListener("unhandledrejection", quiet)
  look()
  const timer = setInterval(look, 300)
  return () => { clearInterval(timer); window.removeEventListener("unhandledrejection", quiet) }
}"""
_step_events_component = st.components.v2.component("dacssgan_step", js=STEP_EVENTS_JS)


def _save_chart_step(n: int) -> None:
    """Save the step at which the chart's slider is released or its play ends."""

    def save_step() -> None:
        step = str(st.session_state["cond settled"]["at"])
        if step.isdecimal() and 1 <= int(step) <= n:
            query_params.set_value("at", int(step))

    _step_events_component(key="cond settled", on_at_change=save_step)


def show_steps(
    kind: str, o: LoadedRun, one: SourceFace, explanation: Explanation, s: SamplingSettings
) -> None:
    """A path of one `kind` of VIEWS: its ends, all steps, and the sound of one."""
    widths = [6, 2] if kind == "strength" else [3, 3, 2]
    columns = st.columns(widths, gap="medium", vertical_alignment="bottom")
    args = choices.integer_args("n", "cond n", DEFAULT_STEPS, MIN_STEPS, MAX_STEPS)
    n = int(columns[-1].slider("Steps", **args))
    along = np.linspace(0, 1, n)
    if kind == "emotions":
        d, axis = (
            _interpolate_emotions(columns, o, one, explanation, s, n),
            "share of the second end",
        )
    elif kind == "faces":
        d, axis = _interpolate_faces(columns, o, one, explanation, s, n), "share of the second face"
    else:
        name, c = point.current_condition(o, explanation)
        held = "set by hand" if name == "own" else point.NAMED_CONDITION_LABELS.get(name, name)
        letter, what, axis = "s", "c has", "guidance strength s"
        if conditions.has_classifier_free_guidance(o.config):
            letter, what, axis = "w", "face and c have", "guidance weight w"
        columns[0].markdown(
            f"c is held: **{held}**; it is chosen in *One condition*. The path goes from "
            f"{letter} = 0, where {what} no effect, over {letter} = 1, as trained, to "
            f"{letter} = {MAX_GUIDANCE:g}."
        )
        along = np.linspace(0, MAX_GUIDANCE, n)
        d = sampling.guided_samples(o.run.id, one.x[None], c[None], s, along)
    _show_path(kind, o, d, along, axis, s)


def _interpolate_emotions(
    columns, o: LoadedRun, one: SourceFace, explanation: Explanation, s: SamplingSettings, n: int
) -> GuidedSamples:
    classes = o.classes
    options = {k: k for k in classes} | {"c": "c as set in One condition"}
    last = "angry" if "angry" in classes[1:] else classes[-1]
    _, own = point.current_condition(o, explanation)
    ends = []
    for i, (label, name, default) in enumerate((("From", "a", classes[0]), ("To", "b", last))):
        args = choices.option_args(name, f"cond {name}", options, default)
        chosen = columns[i].selectbox(label, **args)
        ends.append(own if chosen == "c" else conditions.by_name(o, explanation, chosen))
    return sampling.guided_samples(o.run.id, one.x[None], conditions.interpolate(*ends, n), s)


def _interpolate_faces(
    columns, o: LoadedRun, one: SourceFace, explanation: Explanation, s: SamplingSettings, n: int
) -> GuidedSamples:
    # The other end: any example, or an own face that was given before.
    labels = EXAMPLE_FACES | ({} if one.key in OWN_FACES else sampling.last_choice())
    labels.pop(one.key, None)
    args = choices.option_args("other", "cond other", labels, next(iter(labels)))
    other = columns[0].selectbox("To the face", **args)
    in_examples = other in EXAMPLE_FACES
    last = sampling.example_face(other) if in_examples else sampling.own_face(other, ask=False)
    x = conditions.interpolate(one.x, last.x, n)
    # The condition of each step.
    follow = "told"
    if o.config.gan.condition != "none":
        about = (
            "What each face gives: f_S and the conformal predictor see every step. "
            "Held: only the face changes."
        )
        shown = FOLLOW_LABELS.get
        with columns[1]:
            options, label = tuple(FOLLOW_LABELS), "c along the path"
            follow = choices.choose_one(label, "follow", options, "told", shown, help=about)
    if follow == "told":
        c = sampling.conditions_of_faces(o.run.id, x)
    else:
        c = point.current_condition(o, explanation)[1][None]
    return sampling.guided_samples(o.run.id, x, c, s)


def _show_path(
    kind: str, o: LoadedRun, d: GuidedSamples, along: np.ndarray, axis: str, s: SamplingSettings
) -> None:
    """The figure of all steps, the sound and verdicts of one, and the files."""
    n, classes = len(along), o.classes
    step_args = choices.integer_args("at", "cond at", (n + 1) // 2, 1, n)
    at = st.session_state["cond at"] - 1
    # The browser moves the figure from the step it was sent with; sending it again ends a play.
    sent = st.session_state.get("cond sent")
    if sent is None or sent[0] is not d:
        st.session_state["cond sent"] = sent = (d, at)
    place = (sent[1], along, axis, o.ref_db, o.config.logmel, kind == "faces")
    spacing = NARROW_SPACING if viewport.is_narrow() else WIDE_SPACING
    # the sound stands above the figure, so that it is seen at once
    left, right = st.columns([1, 4], gap="medium", vertical_alignment="bottom")
    go = {"on_change": _apply_step_number, "args": ()}
    left.number_input("Sound of step", **step_args | go)
    sound = right.container()
    figure = figures.interpolation_strip(d, classes, *place, spacing)
    alt = "all steps of the path, the chosen one large, and both verdicts"
    st.plotly_chart(figure, key="cond strip", config=charts.NO_TOOLBAR_CONFIG, alt=alt)
    _save_chart_step(n)
    with sound:  # filled last, so that the browser gets the figure first
        sampling.show_player(o, d.y[at], s)
    q, scorer = d.Q[at], d.scorer[at]
    st.markdown(
        f"Step {at + 1}: the judge, who never met G, hears *{classes[int(scorer.argmax())]}* "
        f"({scorer.max():.0%}), Q, G's teacher, *{classes[int(q.argmax())]}* ({q.max():.0%}). "
        f"{_steps_support_text(o, d)}"
    )
    stem = f"{kind}-{o.config.name}-{s.seed}"
    with st.container(horizontal=True, gap="small"):
        about = "All steps one after the other, at their relative loudness."
        wav = lambda: concatenated_wav(o, d, s)  # noqa: E731
        players.download("Whole path (wav)", wav, f"{stem}.wav", key="way wav", help=about)
        npz = lambda: sampling.npz_bytes(d)  # noqa: E731
        players.download("Whole path (npz)", npz, f"{stem}.npz", key="way npz")
        sampling.show_autoplay_toggle()


def _apply_step_number() -> None:
    """Callback of the step's number: the figure is sent again, at this step."""
    query_params.save_widget("at", "cond at")
    st.session_state.pop("cond sent", None)


def concatenated_wav(o: LoadedRun, d: GuidedSamples, s: SamplingSettings) -> bytes:
    return conditions.concatenated_wav(o, d.y, s.seed)


def _steps_support_text(o: LoadedRun, d: GuidedSamples) -> str:
    """How many of the path's conditions lie outside those of training, in words."""
    known = sampling.training_conditions(o.run.id)
    if not isinstance(known, TrainingConditions):
        return ""
    far = sum(conditions.training_support(known, c).place == "outside" for c in d.c)
    if far:
        return f"**{far} of {len(d.c)}** c's lie outside of training."
    return "All of its c's are like those of training."
