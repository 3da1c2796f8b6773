"""Condition lab: one face, what the generator is told of it, and what comes out; and the ways between two."""

import streamlit as st
from core.media.faces.landmarker import ModelMissing

from ui import theme
from ui.condition import interpolation, sampling
from ui.session import cache, query_params
from ui.widgets import choices, run_summary

with st.container(horizontal=True, vertical_alignment="center", gap="small"):
    st.title("Condition lab: say it, and hear what comes out", width="stretch")
    with st.popover(
        "What am I looking at?", icon=":material/help:", type="tertiary", key="about condition"
    ):
        st.markdown(sampling.ABOUT)

# ------------------------------------------------------------------ which run, and which of its conditions (at the left)

families = cache.families()
if not families:
    run_summary.show_no_run()
    unfinished_runs = [r for r in cache.run_rows() if r["state"] in ("queued", "running")]
    if unfinished_runs:
        st.page_link(
            "pages/train.py",
            label="A training is under way: look at it",
            icon=":material/hourglass_top:",
        )
    st.stop()
family_by_id = {f.id: f for f in families}
family_id_by_run = {run: f.id for f in families for run in f.members.values()}
query_params.restore_widget("run", "cond run", families[0].id, family_id_by_run.get)
with st.sidebar:
    go = {"on_change": query_params.save_widget, "args": ("run", "cond run")}
    family = family_by_id[
        st.selectbox(
            "Trained run",
            list(family_by_id),
            format_func=lambda k: family_by_id[k].label,
            key="cond run",
            **go,
        )
    ]
    members, condition_label = list(family.members), lambda k: theme.CONDITION_TEXTS[k][0]
    default = "cp" if "cp" in members else members[0]
    about = "What the generator was told while it was trained: a label, the face classifier's softmax, or the conformal p-values."
    kind = choices.choose_one(
        "Trained with", "condition", members, default, condition_label, help=about
    )
    for missing in [k for k in family.shown if k not in members]:
        run_summary.show_untrained_condition(missing, family.name)

# ------------------------------------------------------------------ which face

run_id = family.members[kind]
try:
    loaded_run = sampling.load_run(run_id)
    with st.sidebar:
        face = sampling.choose_face()
        explanation = cache.explain_face(run_id, face.x) if face else None
        if face:
            sampling.show_portrait(face, explanation, loaded_run.classes)
            sampling_settings = sampling.choose_settings(kind != "none")
except (ModelMissing, ValueError) as error:
    st.error(str(error), icon=":material/error:")
    if isinstance(error, ModelMissing):
        st.button(
            "Take a drawn face, which needs no model",
            on_click=query_params.set_value,
            args=("face", "drawn-happy"),
            key="to drawn",
        )
    st.stop()
if face is None:
    st.info(
        "Give a picture or a clip at the left. Nothing leaves this machine.",
        icon=":material/familiar_face_and_zone:",
    )
    st.stop()
if not loaded_run.config.gan.use_source:
    st.caption(
        "This generator was trained without the face: it is drawn from c and the noise alone."
    )

# ------------------------------------------------------------------ what is drawn again when something is moved


@st.fragment
def show_view() -> None:
    views = [k for k in sampling.VIEWS if kind != "none" or k in ("point", "faces")]
    view = choices.choose_one(
        "View",
        "view",
        views,
        "point",
        sampling.VIEWS.get,
        label_visibility="collapsed",
        width="stretch",
    )
    if view == "point":
        sampling.show_one_condition(loaded_run, face, explanation, sampling_settings)
    else:
        interpolation.show_steps(view, loaded_run, face, explanation, sampling_settings)


show_view()
