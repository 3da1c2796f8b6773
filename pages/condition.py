"""Condition lab: one face, a condition set by hand, and the voice; paths between two of them."""

import streamlit as st

from core.files import UserError
from core.media.faces.landmarker import ModelMissing
from ui import theme
from ui.condition import interpolation, point, sampling
from ui.session import cache, query_params
from ui.widgets import choices, run_summary

with st.container(horizontal=True, vertical_alignment="center", gap="small"):
    st.title("Condition lab: say it, and hear what comes out", width="stretch")
    look = {"icon": ":material/help:", "type": "tertiary", "key": "about condition"}
    with st.popover("What am I looking at?", **look):
        st.markdown(sampling.ABOUT)

# ------------------------------------------------------------------ the run, in the side bar

families = cache.families()
if not families:
    run_summary.show_no_run()
    if any(r["state"] in cache.LIVE_STATES for r in cache.run_rows()):
        label = "A training is under way: look at it"
        st.page_link("pages/train.py", label=label, icon=":material/hourglass_top:")
    st.stop()
with st.sidebar:
    family = choices.choose_family(families, "cond run")
    members = list(family.members)
    default = "cp" if "cp" in members else members[0]
    about = (
        "What the generator was told during training: a label, the face classifier's softmax, or "
        "the conformal p-values."
    )
    label = lambda k: theme.CONDITION_TEXTS[k][0]  # noqa: E731
    kind = choices.choose_one("Trained with", "condition", members, default, label, help=about)
    for missing in [k for k in family.shown if k not in members]:
        run_summary.show_untrained_condition(missing, family.name)

# ------------------------------------------------------------------ the face, in the side bar

run_id = family.members[kind]
try:
    loaded_run = cache.load_run(run_id)
    with st.sidebar:
        face = sampling.choose_face()
        explanation = cache.explain_face(run_id, face.x) if face else None
        if face:
            sampling.show_portrait(face, explanation, loaded_run)
            sampling_settings = sampling.choose_settings(loaded_run.config)
except UserError as error:
    st.error(str(error), icon=":material/error:")
    if isinstance(error, ModelMissing):
        go = {"on_click": query_params.set_value, "args": ("face", "drawn-happy")}
        st.button("Take a drawn face, which needs no model", key="to drawn", **go)
    st.stop()
if face is None:
    words = "Give a picture or a clip at the left. Nothing leaves this machine."
    st.info(words, icon=":material/familiar_face_and_zone:")
    st.stop()
if not loaded_run.config.gan.use_source:
    words = "This generator was trained without the face: it draws from c and the noise alone."
    st.caption(words)

# ------------------------------------------------------------------ the view, drawn again by itself


@st.fragment
def show_view() -> None:
    views = [k for k in interpolation.VIEWS if kind != "none" or k in ("point", "faces")]
    more = {"label_visibility": "collapsed", "width": "stretch"}
    view = choices.choose_one("View", "view", views, "point", interpolation.VIEWS.get, **more)
    args = loaded_run, face, explanation, sampling_settings
    if view == "point":
        point.show_one_condition(*args)
    else:
        interpolation.show_steps(view, *args)


show_view()
