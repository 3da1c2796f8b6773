"""Condition lab: one face, what the generator is told of it, and what comes out; and the ways between two."""

import streamlit as st

from core.media.faces import ModelMissing
from ui import theme
from ui.condition import interpolation, sampling
from ui.session import cache, query_params
from ui.widgets import choices, run_summary

with st.container(horizontal=True, vertical_alignment="center", gap="small"):
    st.title("Condition lab: say it, and hear what comes out", width="stretch")
    with st.popover("What am I looking at?", icon=":material/help:", type="tertiary", key="about condition"):
        st.markdown(sampling.ABOUT)

# ------------------------------------------------------------------ which run, and which of its conditions (at the left)

families = cache.families()
if not families:
    run_summary.no_run()
    running = [r for r in cache.rows() if r["state"] in ("queued", "running")]
    if running:
        st.page_link("pages/train.py", label="A training is under way: look at it", icon=":material/hourglass_top:")
    st.stop()
named = {f.id: f for f in families}
of_run = {run: f.id for f in families for run in f.members.values()}
query_params.follow("run", "cond run", families[0].id, of_run.get)
with st.sidebar:
    go = {"on_change": query_params.keep, "args": ("run", "cond run")}
    family = named[st.selectbox("Trained run", list(named), format_func=lambda k: named[k].label, key="cond run", **go)]
    members, name = list(family.members), lambda k: theme.CONDITION[k][0]
    default = "cp" if "cp" in members else members[0]
    about = "What the generator was told while it was trained: a label, the face classifier's softmax, or the conformal p-values."
    kind = choices.chosen("Trained with", "condition", members, default, name, help=about)
    for missing in [k for k in family.shown if k not in members]:
        run_summary.not_trained(missing, family.name)

# ------------------------------------------------------------------ which face

run_id = family.members[kind]
try:
    opened = sampling.opened(run_id)
    with st.sidebar:
        face = sampling.face()
        said = cache.explain(run_id, face.x) if face else None
        if face:
            sampling.portrait(face, said, opened.classes)
            setting = sampling.settings(kind != "none")
except (ModelMissing, ValueError) as error:
    st.error(str(error), icon=":material/error:")
    if isinstance(error, ModelMissing):
        st.button("Take a drawn face, which needs no model", on_click=query_params.write, args=("face", "drawn-happy"), key="to drawn")
    st.stop()
if face is None:
    st.info("Give a picture or a clip at the left. Nothing leaves this machine.", icon=":material/familiar_face_and_zone:")
    st.stop()
if not opened.config.gan.use_source:
    st.caption("This generator was trained without the face: it is drawn from c and the noise alone.")

# ------------------------------------------------------------------ what is drawn again when something is moved


@st.fragment
def lab() -> None:
    views = [k for k in sampling.VIEWS if kind != "none" or k in ("point", "faces")]
    view = choices.chosen("View", "view", views, "point", sampling.VIEWS.get, label_visibility="collapsed", width="stretch")
    if view == "point":
        sampling.point(opened, face, said, setting)
    else:
        interpolation.way(view, opened, face, said, setting)


lab()
