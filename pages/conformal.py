"""Conformal: a laboratory in steps. One point, its p-values, its set; the whole test set, whether the promise holds; the generator."""

import streamlit as st

from core.media.faces import ModelMissing
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
    origin = choices.chosen("Outputs of", "source", ("run", "own"), "run", {"run": "A trained run", "own": "My classifier"}.get)
    modality, source, families = "face", "", {}
    if origin == "run":
        families, named = calibration.listed()
    if origin == "run" and named:
        of_run = {run: f.id for f in families.values() for run in f.members.values()} | {k: k for k in named}
        query_params.follow("run", "lab run", next(iter(named)), of_run.get)
        go = {"on_change": query_params.keep, "args": ("run", "lab run")}
        source = st.selectbox("Trained run", list(named), format_func=named.get, key="lab run", **go)
        modality = choices.chosen(
            "Classifier of", "modality", ("face", "voice"), "face", {"face": "Faces (f_S)", "voice": "Voices (f_T)"}.get
        )
if origin == "run" and not named:
    run_summary.no_run()
    st.stop()
key, problem = (f"{source} {modality}", calibration.problem(source, modality)) if origin == "run" else panels.upload()
if isinstance(problem, str):
    st.error(problem, icon=":material/error:")
    st.stop()
with st.sidebar:
    settings = panels.settings()
whole = calibration.view(key, problem, settings, origin == "own")
classes = problem.classes

# ------------------------------------------------------------------ which step of the lesson, and which point

of_faces = origin == "run" and modality == "face"
steps = [k for k in explanations.STEPS if k != "generator" or of_faces]
step = choices.chosen("Step", "step", steps, "chain", explanations.short, label_visibility="collapsed", width="stretch")
kinds = ("test", "example", "upload", "webcam") if of_faces else ("test",)
default = "test" if not of_faces or "row" in st.query_params else "example"
seen = None
left, right = st.columns(2, gap="large") if step == "chain" else (None, None)
try:
    if step == "chain":
        with left:
            kind = choices.chosen("Look at", "from", kinds, default, panels.KINDS.get)
            seen = uploads.face(kind) if kind != "test" else None
            row = panels.row(whole, shown=kind == "test")
    else:
        kind, row = choices.remembered("from", kinds, default), panels.row(whole, shown=False)
        seen = uploads.last_face(kind) if step in explanations.OF_A_POINT else None
    softmax = cache.explain(source, seen.aligned[seen.middle]).softmax if seen else None
except (ModelMissing, ValueError) as error:
    st.error(f"{error}  \nTest points need no picture.", icon=":material/error:")
    st.button("Look at a test point", on_click=query_params.write, args=("from", "test"), key="to test")
    st.stop()
if step == "chain":
    with right:
        if seen:
            players.face(seen, seen.middle)
            st.caption(f"{uploads.plain(seen.name)} · not from the corpus, so no error rate is promised for it.")
        elif kind != "test":
            st.info(f"Until there is a picture, test point {row} is looked at. Nothing leaves this machine.", icon=":material/face:")
        elif of_faces:
            st.caption("Runs keep scores, no pictures: there is no face to see here. For one, choose *Example*, *Upload* or *Webcam*.")
explanations.heading(step, steps)

# ------------------------------------------------------------------ the step: what the two sliders change is drawn again, no more


@st.fragment
def lesson() -> None:
    choice = panels.moved(settings) if step != "generator" else settings  # a generator is told what it was trained with
    view = calibration.view(key, problem, choice, origin == "own")
    point = calibration.test_point(view, row) if softmax is None else calibration.new_point(view, softmax, uploads.plain(seen.name))
    if step != "promise":
        choices.begin_anew("promise")
    if step in explanations.OF_A_POINT:
        panels.reminder(point, classes, seen if step != "chain" else None, step != "chain")
    if step == "chain":
        chain = figures.chain(classes, point.softmax, point.ranking, point.p, point.shown, choice.measure)
        st.plotly_chart(chain, key="chain", config=charts.CONFIG, alt="softmax, nonconformity and p-value of each label")
    elif step == "area":
        panels.area(view, point)
    elif step == "set":
        panels.label_set(view, point)
    elif step == "map":
        panels.points(view, point)
    elif step == "promise":
        panels.promise(view, lambda: calibration.sizes(key, problem, choice, origin == "own"))
    elif step == "broken":
        panels.broken(view)
    else:
        panels.generator(families.get(source), source, seen.aligned[seen.middle] if seen else None)
    if step != "generator":
        panels.downloads(view, point, calibration.command(source, modality, choice) if origin == "run" else "")


lesson()
