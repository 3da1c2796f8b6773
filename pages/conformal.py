"""Conformal: a lesson in steps, from one point's p-values to the test set and the generator."""

import streamlit as st

from core.media.faces.landmarker import ModelMissing
from ui.conformal import calibration, explanations, panels
from ui.conformal import settings as inputs
from ui.session import cache, query_params
from ui.widgets import choices, players, run_summary, uploads

st.title("Conformal: how sure, and can it be trusted?")
if st.query_params.get("step", "chain") == "chain":
    st.caption(
        "A classifier always answers; *conformal prediction* says how well an answer fits what was "
        "seen before."
    )
else:
    st.space("xxsmall")

# ------------------------------------------------------------------ sidebar: outputs and settings

with st.sidebar:
    labels = {"run": "A trained run", "own": "My classifier"}
    origin = choices.choose_one("Outputs of", "source", ("run", "own"), "run", labels.get)
    modality, source, families = "face", "", {}
    if origin == "run":
        families, run_labels = calibration.run_choices()
    if origin == "run" and run_labels:
        choice_by_run = {run: f.id for f in families.values() for run in f.members.values()}
        choice_by_run |= {k: k for k in run_labels}
        first = next(iter(run_labels))
        bound = query_params.bind_widget("run", "lab run", first, choice_by_run.get)
        source = st.selectbox("Trained run", list(run_labels), format_func=run_labels.get, **bound)
        labels = {"face": "Faces (f_S)", "voice": "Voices (f_T)"}
        modality = choices.choose_one("Classifier of", "modality", list(labels), "face", labels.get)
if origin == "run" and not run_labels:
    run_summary.show_no_run()
    st.stop()
if origin == "run":
    key, outputs = f"{source} {modality}", calibration.load_run_outputs(source, modality)
else:
    key, outputs = inputs.upload_outputs()
if isinstance(outputs, str):
    st.error(outputs, icon=":material/error:")
    st.stop()
is_face_classifier = origin == "run" and modality == "face"
steps = explanations.steps_for(is_face_classifier)
with st.sidebar:
    expanded = choices.last_choice("step", steps, "chain") not in ("chain", "area")
    with st.expander("Settings", icon=":material/tune:", expanded=expanded):
        step = choices.last_choice("step", steps, "chain")
        settings = inputs.choose_settings(outputs, key, step)
full_analysis = calibration.analyse(key, outputs, settings, origin == "own")
classes = outputs.classes

# ------------------------------------------------------------------ the step and the point

look = {"label_visibility": "collapsed", "width": "stretch"}
step = choices.choose_one("Step", "step", steps, "chain", explanations.short_title, **look)
kinds = list(inputs.POINT_SOURCES) if is_face_classifier else ["test"]
if is_face_classifier and uploads.last_clip() is None:
    kinds.remove(uploads.LAST)
default = "test" if not is_face_classifier or "row" in st.query_params else "example"
clip = face = seen = None
left, right = st.columns(2, gap="large") if step == "chain" else (None, None)
try:
    if step == "chain":
        with left:
            kind = choices.choose_one("Look at", "from", kinds, default, inputs.POINT_SOURCES.get)
            clip = uploads.choose_face(kind) if kind != "test" else None
            row = inputs.choose_row(full_analysis, shown=kind == "test")
    else:
        kind = choices.last_choice("from", kinds, default)
        row = inputs.choose_row(full_analysis, shown=False)
        clip = uploads.last_face(kind) if step in explanations.POINT_STEPS else None
    if clip:
        face = clip.aligned[clip.middle]
        seen = cache.explain_face(source, face)
except (ModelMissing, ValueError) as error:
    st.error(f"{error}  \nTest points can still be looked at.", icon=":material/error:")
    go = {"on_click": query_params.set_value, "args": ("from", "test")}
    st.button("Look at a test point", key="to test", **go)
    st.stop()
if step == "chain":
    with right:
        if clip:
            name = uploads.safe_file_name(clip.name)
            words = f"{name} · not from the corpus, so no error rate is promised for it."
            players.show_face(clip, clip.middle, words)
        elif kind != "test":
            st.info(
                f"Until there is a picture, test point {row} is shown. "
                "Nothing leaves this machine.",
                icon=":material/face:",
            )
        elif is_face_classifier:
            st.caption(
                "Runs keep scores, no pictures, so a test point has no face to show. For a face, "
                "choose *Example*, *Upload* or *Webcam*."
            )
explanations.show_heading(step, steps)

# ------------------------------------------------------------------ the step's panel


@st.fragment  # ε and the calibration share redraw this part of the page alone
def show_step() -> None:
    panel, sliders = st.container(), st.container()  # the chart is above the fold
    choice = settings  # the generator's condition does not depend on ε and the share
    if step != "generator":
        with sliders:
            choice = inputs.choose_eps_and_share(settings, step)
    view = calibration.analyse(key, outputs, choice, origin == "own")
    if seen is None:
        point = calibration.test_point(view, row)
    else:
        point = calibration.face_point(view, seen, uploads.safe_file_name(clip.name))
    if step != "promise":
        choices.reset_positions("promise")
    with panel:
        show_panel(view, point, choice)
    st.markdown(explanations.predictor_text(view))
    if step != "generator":
        is_run = origin == "run"
        other_kind = outputs.own is not None and outputs.own.fitted.kind != "inductive"
        named = source, modality, choice, other_kind
        command = calibration.command_line(*named) if is_run else ""
        panels.show_downloads(view, point, command)


def show_panel(view, point, choice) -> None:
    """The chosen point and the step's charts."""
    if step in explanations.POINT_STEPS and step != "chain":
        panels.show_current_point(point, classes, clip, back=True)
    if step == "chain":
        panels.show_chain(point, classes, view)
    elif step == "area":
        panels.show_p_value_area(view, point)
    elif step == "set":
        panels.show_prediction_set(view, point)
    elif step == "strange":
        panels.show_strange_points(view, families.get(source), source, point)
    elif step == "map":
        panels.show_point_map(view, point)
    elif step == "promise":
        args = (key, outputs, choice, origin == "own")
        panels.show_validity(view, lambda: calibration.analyses_by_size(*args))
    elif step == "broken":
        panels.show_limits(view, key)
    else:
        panels.show_generated_voices(families.get(source), source, face)
    if step == "chain":
        panels.show_current_point(point, classes, None, back=False)


show_step()
