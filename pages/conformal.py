"""Conformal: a laboratory in steps. One point, its p-values, its set; the whole test set, whether the promise holds; the generator."""

import streamlit as st
from core.media.faces.landmarker import ModelMissing

from ui.conformal import calibration, explanations, figures, panels
from ui.session import cache, query_params
from ui.widgets import charts, choices, players, run_summary, uploads

st.title("Conformal: how sure, and can it be trusted?")
if st.query_params.get("step", "chain") == "chain":
    st.markdown(
        "A classifier always answers. *Conformal prediction* says how well each answer fits what was seen before, with an error rate that "
        "can be checked. Touch it, step by step: from one face to the whole test set."
    )
else:
    st.space("xxsmall")

# ------------------------------------------------------------------ whose outputs, and with which settings (at the left)

with st.sidebar:
    origin = choices.choose_one(
        "Outputs of",
        "source",
        ("run", "own"),
        "run",
        {"run": "A trained run", "own": "My classifier"}.get,
    )
    modality, source, families = "face", "", {}
    if origin == "run":
        families, run_labels = calibration.run_choices()
    if origin == "run" and run_labels:
        choice_by_run = {run: f.id for f in families.values() for run in f.members.values()} | {
            k: k for k in run_labels
        }
        query_params.restore_widget("run", "lab run", next(iter(run_labels)), choice_by_run.get)
        go = {"on_change": query_params.save_widget, "args": ("run", "lab run")}
        source = st.selectbox(
            "Trained run", list(run_labels), format_func=run_labels.get, key="lab run", **go
        )
        modality = choices.choose_one(
            "Classifier of",
            "modality",
            ("face", "voice"),
            "face",
            {"face": "Faces (f_S)", "voice": "Voices (f_T)"}.get,
        )
if origin == "run" and not run_labels:
    run_summary.show_no_run()
    st.stop()
key, outputs = (
    (f"{source} {modality}", calibration.load_run_outputs(source, modality))
    if origin == "run"
    else panels.upload_outputs()
)
if isinstance(outputs, str):
    st.error(outputs, icon=":material/error:")
    st.stop()
with st.sidebar:
    settings = panels.choose_settings()
full_analysis = calibration.analyse(key, outputs, settings, origin == "own")
classes = outputs.classes

# ------------------------------------------------------------------ which step of the lesson, and which point

is_face_classifier = origin == "run" and modality == "face"
steps = [k for k in explanations.LESSON_STEPS if k != "generator" or is_face_classifier]
step = choices.choose_one(
    "Step",
    "step",
    steps,
    "chain",
    explanations.short_title,
    label_visibility="collapsed",
    width="stretch",
)
kinds = ("test", "example", "upload", "webcam") if is_face_classifier else ("test",)
default = "test" if not is_face_classifier or "row" in st.query_params else "example"
analysed_clip = None
left, right = st.columns(2, gap="large") if step == "chain" else (None, None)
try:
    if step == "chain":
        with left:
            kind = choices.choose_one("Look at", "from", kinds, default, panels.POINT_SOURCES.get)
            analysed_clip = uploads.choose_face(kind) if kind != "test" else None
            row = panels.choose_row(full_analysis, shown=kind == "test")
    else:
        kind, row = (
            choices.last_choice("from", kinds, default),
            panels.choose_row(full_analysis, shown=False),
        )
        analysed_clip = uploads.last_face(kind) if step in explanations.POINT_STEPS else None
    softmax = (
        cache.explain_face(source, analysed_clip.aligned[analysed_clip.middle]).softmax
        if analysed_clip
        else None
    )
except (ModelMissing, ValueError) as error:
    st.error(f"{error}  \nTest points need no picture.", icon=":material/error:")
    st.button(
        "Look at a test point",
        on_click=query_params.set_value,
        args=("from", "test"),
        key="to test",
    )
    st.stop()
if step == "chain":
    with right:
        if analysed_clip:
            players.show_face(analysed_clip, analysed_clip.middle)
            st.caption(
                f"{uploads.safe_file_name(analysed_clip.name)} · not from the corpus, so no error rate is promised for it."
            )
        elif kind != "test":
            st.info(
                f"Until there is a picture, test point {row} is looked at. Nothing leaves this machine.",
                icon=":material/face:",
            )
        elif is_face_classifier:
            st.caption(
                "Runs keep scores, no pictures: there is no face to see here. For one, choose *Example*, *Upload* or *Webcam*."
            )
explanations.show_heading(step, steps)

# ------------------------------------------------------------------ the step: what the two sliders change is drawn again, no more


@st.fragment
def show_step() -> None:
    choice = (
        panels.choose_eps_and_share(settings) if step != "generator" else settings
    )  # a generator is told what it was trained with
    view = calibration.analyse(key, outputs, choice, origin == "own")
    point = (
        calibration.test_point(view, row)
        if softmax is None
        else calibration.face_point(view, softmax, uploads.safe_file_name(analysed_clip.name))
    )
    if step != "promise":
        choices.reset_positions("promise")
    if step in explanations.POINT_STEPS:
        panels.show_current_point(
            point, classes, analysed_clip if step != "chain" else None, step != "chain"
        )
    if step == "chain":
        chain = figures.p_value_chain(
            classes, point.softmax, point.ranking, point.p, point.shown, choice.measure
        )
        st.plotly_chart(
            chain,
            key="chain",
            config=charts.EXPORT_CONFIG,
            alt="softmax, nonconformity and p-value of each label",
        )
    elif step == "area":
        panels.show_p_value_area(view, point)
    elif step == "set":
        panels.show_prediction_set(view, point)
    elif step == "map":
        panels.show_point_map(view, point)
    elif step == "promise":
        panels.show_validity(
            view, lambda: calibration.analyses_by_size(key, outputs, choice, origin == "own")
        )
    elif step == "broken":
        panels.show_limits(view)
    else:
        panels.show_generated_voices(
            families.get(source),
            source,
            analysed_clip.aligned[analysed_clip.middle] if analysed_clip else None,
        )
    if step != "generator":
        panels.show_downloads(
            view,
            point,
            calibration.command_line(source, modality, choice) if origin == "run" else "",
        )


show_step()
