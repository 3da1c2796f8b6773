"""Panels of the page Conformal, one for each step, with their charts, texts and downloads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from core import files
from core.conformal import analysis, credibility, prediction
from core.conformal.analysis import Analysis
from core.conformal.validity import MIN_BIN_POINTS
from core.media import spectrograms
from ui import theme
from ui.conformal import (
    calibration,
    explanations,
    export,
    figure_parts,
    p_value_figures,
    validity_figures,
)
from ui.conformal.calibration import Point
from ui.conformal.settings import CALIBRATION_SHARES, MAX_SEED
from ui.session import cache, query_params
from ui.widgets import charts, choices, players, run_summary

if TYPE_CHECKING:
    from core.conformal.validity import ErrorCurve
    from core.inference.generation import AnalysedClip
    from ui.session.cache import GeneratedVoice, RunFamily

# label of each step of an ε slider inside a chart -> ε
EPS_BY_LABEL = {f"{e:.2f}": float(round(e, 2)) for e in figure_parts.EPS_POSITIONS}
SHARE_BY_LABEL = {f"{r:g}": r for r in CALIBRATION_SHARES}
MAX_GROUP_CURVES = 40  # curves of one chart; those furthest from their bands are drawn
CONDITION_PAIRS = (("cp", "label"), ("cp", "classifier"), ("classifier", "label"))


def show_chart(figure: go.Figure, key: str, alt: str, **more) -> None:
    st.plotly_chart(charts.fit(figure), key=key, config=charts.EXPORT_CONFIG, alt=alt, **more)


# ------------------------------------------------------------------ one point


def show_current_point(
    point: Point, classes: Sequence[str], clip: AnalysedClip | None, back: bool
) -> None:
    """The chosen point in a line, with its face if there is a `clip`.

    `back` adds a button that returns to the choice of a point.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if clip:
            large = np.kron(clip.aligned[clip.middle], np.ones((2, 2), np.uint8))
            st.image(large, width=48, output_format="PNG", alt="the chosen face, aligned")
        words = f"**{point.name}**: prediction *{classes[point.prediction]}*"
        if point.label is not None and point.label == point.prediction:
            words += ", :material/check_circle: right"
        elif point.label is not None:
            words += f", :material/cancel: wrong, in truth *{classes[point.label]}*"
        st.markdown(words, width="stretch")
        look = {"icon": ":material/arrow_back:", "type": "tertiary", "key": "another"}
        if back and st.button("Another point", **look):
            query_params.set_value("step", "chain")
            st.rerun()  # the whole page: the point is chosen outside this fragment


def show_chain(point: Point, classes: Sequence[str], v: Analysis) -> None:
    """From softmax to p-value, for each label."""
    figure = p_value_figures.p_value_chain(
        classes, point.softmax, point.ranking, point.p, point.shown, v.measure
    )
    show_chart(figure, "chain", "softmax, nonconformity and p-value of each label")


def show_p_value_area(v: Analysis, point: Point) -> None:
    """The calibration scores and the point's own score, under a label that is chosen here."""
    classes, fold = v.problem.classes, 0
    options, default = [classes[k] for k in point.shown], classes[point.prediction]
    bound = choices.option_args("label", "lab label", options, default)
    name = st.pills("If the label were …", required=True, **bound)
    k = classes.index(name)
    if len(point.folds) > 1:
        look = {"required": True, "default": 0, "key": "lab fold"}
        name_of = lambda i: f"{i + 1}"  # noqa: E731
        numbers = list(range(len(point.folds)))
        fold = st.segmented_control("Fold that calibrates", numbers, format_func=name_of, **look)
    own, alpha = point.folds[fold].scores[k], float(point.folds[fold].alpha[k])
    colour = figure_parts.class_colours(classes)[k]
    figure = p_value_figures.p_value_area(own, alpha, name, v.measure, colour)
    alt = "histogram of the calibration scores, the p-value as the shaded area"
    show_chart(figure, "area", alt)
    st.markdown(explanations.p_value_text(point, k, name, v.smoothed))
    if v.kind == "full":
        st.caption(
            "Algorithm 1: the head is fitted again with this point under this label, so the whole "
            "histogram changes with the label, and with the point."
        )


def show_prediction_set(v: Analysis, point: Point) -> None:
    """Credibility, confidence and the prediction set, and common mistakes about them."""
    classes = v.problem.classes
    left, right = st.columns([2, 3], gap="large")
    with left:
        a, b = st.columns(2)
        about = f"Does any label fit? {credibility.MEANING}"
        a.metric("Credibility", f"{point.credibility:.3f}", help=about)
        about = "1 − the second highest p-value: are all others ruled out?"
        b.metric("Confidence", f"{point.confidence:.3f}", help=about)
        scale = calibration.credibility_scale(v)
        st.caption(explanations.credibility_text(scale, point.credibility))
        st.markdown(explanations.prediction_text(point, classes, v.eps))
        st.html(explanations.label_set_html(classes, point.p, v.eps))
    with right:
        figure = p_value_figures.label_set(classes, point.p, v.floor, point.shown, v.eps)
        show_chart(figure, "set", "p-values with epsilon as a line that a slider moves")
        choices.save_chart_sliders({"eps": EPS_BY_LABEL}, "set")
    with st.container(border=True):
        st.markdown("**Common mistakes**")
        for column, words in zip(st.columns(2, gap="large"), explanations.COMMON_MISTAKES):
            column.markdown(words)


def show_strange_points(v: Analysis, family: RunFamily | None, source: str, point: Point) -> None:
    """Pictures that are no face: their credibility by the softmax, and by a measure that looks."""
    pictures = calibration.strange_pictures()
    p = {"distance to drawn faces": calibration.distance_p_values(v.problem.classes)}
    if family is None:
        words = "This run's training is not finished, so its f_S cannot be asked about pictures."
        st.info(words, icon=":material/hourglass_empty:")
    else:
        seen = [cache.explain_face(source, x) for x in pictures.values()]
        o = np.stack([e.softmax for e in seen])
        for measure in ("margin", "hinge"):
            known = v.problem.o_cal, v.problem.label_cal, o, measure, v.groups
            p[measure] = prediction.inductive_p_values(*known)
        if calibration.uses_own_scores(v) or v.problem.own.fitted.kind != "inductive":
            p["the run's own"] = np.stack([e.p for e in seen])
    best = {k: prediction.credibility(x) for k, x in p.items()}
    order = [k for k in (v.measure, "margin", "hinge", "the run's own", *best) if k in best]
    best = {k: best[k] for k in dict.fromkeys(order)}
    figure = p_value_figures.strange_points(list(pictures), best, v.eps)
    show_chart(figure, "strange", "credibility of pictures that are no face, by each measure")
    columns = st.columns(len(pictures), gap="small")
    for i, (column, (name, x)) in enumerate(zip(columns, pictures.items())):
        with column:
            large = np.kron(x, np.ones((4, 4), np.uint8))
            st.image(large, width=112, output_format="PNG", caption=name, alt=name)
            if family is not None:
                k = int(o[i].argmax())
                st.caption(f"softmax: *{v.problem.classes[k]}* {o[i, k]:.2f}")
    scale = calibration.credibility_scale(v)
    st.markdown(explanations.strange_text(v, best, scale, list(pictures)))
    st.caption(
        f"{point.name}, by {v.measure}: {explanations.credibility_text(scale, point.credibility)}"
    )
    st.markdown(explanations.why_margin_misses())


# ------------------------------------------------------------------ the whole test set


def _choose_clicked_point() -> None:
    """Callback of the map: the clicked point becomes the chosen one."""
    points = st.session_state["map"]["selection"]["points"]
    rows = [p["customdata"] for p in points if "customdata" in p]
    if rows:
        query_params.set_value("row", int(np.ravel(rows[0])[0]))
        query_params.set_value("from", "test")
        st.session_state["lab clicked"] = True


def show_point_map(v: Analysis, point: Point) -> None:
    """Credibility and confidence of all test points; a click chooses one."""
    if st.session_state.pop("lab clicked", False):
        st.rerun()  # the whole page: the point is chosen outside this fragment
    scale = calibration.credibility_scale(v)
    low = scale.low if scale.is_exact else 0.0
    figure = p_value_figures.point_map(v, point.credibility, point.confidence, low)
    select = {"on_select": _choose_clicked_point, "selection_mode": "points"}
    show_chart(figure, "map", "credibility against confidence of all test points", **select)
    st.caption(f"Ring: {point.name}. Click any other point to choose it.")


def show_validity(v: Analysis, sizes: Callable[[], list[Analysis] | None]) -> None:
    """Validity and efficiency, one view at a time.

    `sizes` returns the analyses at all calibration sizes, or None while they are computed.
    """
    labels = {"curve": "All points", "uniform": "Uniformity", "class": "Each class"}
    labels |= {"subject": "Each subject", "criteria": "Criteria"}
    look = choices.choose_one(
        "Look", "look", tuple(labels), "curve", labels.get, label_visibility="collapsed"
    )
    notes = [f":small[:material/info: {note}]" for note in v.notes]
    words = "  \n".join([explanations.validity_text(v), *notes])
    if look == "curve":
        _show_curves(v, sizes() or [])
        st.markdown(words)
        if sizes() is None:
            st.fragment(lambda: sizes() and st.rerun(), run_every=0.5)()
        return
    choices.reset_positions("promise")
    explanations.show_help(look if look in ("uniform", "criteria") else "parts", "About this view")
    if look == "uniform":
        figure = validity_figures.p_value_histogram(v)
        show_chart(figure, "uniform", "histogram of the true labels' p-values")
        st.markdown(explanations.uniformity_text(v))
    elif look == "criteria":
        rows = explanations.criteria_rows(v)
        st.dataframe(rows, hide_index=True, height="content", key="criteria")
    else:
        _show_group_curves(v, v.by_class if look == "class" else v.by_subject, look)
    st.markdown(words)


def _show_curves(v: Analysis, sizes: list[Analysis]) -> None:
    """The validity curves, whose sliders the browser moves, and a readout above them.

    With `sizes`, the figure holds all calibration sizes and is sent only once.
    """
    what = (id(v.problem), v.measure, v.groups, v.smoothed, v.seed, v.r if not sizes else None)
    eps, r = choices.initial_positions("promise", what, (v.eps, v.r))
    first = replace(next((one for one in sizes if one.r == r), v), eps=eps)
    readings = validity_figures.slider_readings(sizes or [v])
    margins = validity_figures.VALIDITY_MARGINS
    choices.show_readout("promise", len(v.problem.classes), readings, *margins)
    figure = validity_figures.validity_curves(first, sizes)
    show_chart(figure, "promise", "error, set size and shares of sets against epsilon")
    choices.save_chart_sliders({"eps": EPS_BY_LABEL, "r": SHARE_BY_LABEL}, "promise")


def _show_group_curves(v: Analysis, every: Sequence[ErrorCurve], what: str) -> None:
    """Error curves by `what` (class or subject); the furthest outside their bands come first."""
    curves = sorted(every, key=lambda c: -max(c.above, c.below))[:MAX_GROUP_CURVES]
    if not curves:
        why = f"no subject has {analysis.MIN_SUBJECT_POINTS} test points"
        if v.problem.subject_test is None:
            why = "subjects are unknown"
        words = f"There are no curves by subject here: {why}."
        st.info(words, icon=":material/group_off:")
        return
    classes = v.problem.classes
    colours = dict(zip(classes, figure_parts.class_colours(classes)))
    tint = [colours[c.name] for c in curves] if what == "class" else None
    figure = validity_figures.curves_by_group(curves, tint, v.eps, what)
    show_chart(figure, "parts", f"error by {what}")
    st.markdown(explanations.worst_curve_text(every, what, v.eps))


def show_limits(v: Analysis, key: str) -> None:
    """Limits of validity: new people, few calibration points, full CP, and the plain softmax.

    `key` identifies the outputs.
    """
    labels = {"people": "New people", "sizes": "Calibration size", "full": "Full CP (Algorithm 1)"}
    labels |= {"softmax": "The softmax instead"}
    look = choices.choose_one(
        "Limit", "limit", tuple(labels), "people", labels.get, label_visibility="collapsed"
    )
    if look == "people":
        figure = validity_figures.error_deviation(v)
        show_chart(figure, "broken", "error minus epsilon, on the test set and on random splits")
        st.markdown(explanations.exchangeability_text(v))
        return
    explanations.show_help(look, "About this view")
    if look == "sizes":
        figure = validity_figures.error_by_calibration_size(v)
        show_chart(figure, "sizes", "error and set size against the calibration size")
        if calibration.uses_own_scores(v):
            st.caption("For inductive CP on f_S's softmax; the run's own predictor has one size.")
    elif look == "full" and len(v.problem.classes) > calibration.MAX_COMPARED_CLASSES:
        most = calibration.MAX_COMPARED_CLASSES
        words = f"Full CP refits a head for every label; this view takes at most {most} classes."
        st.info(words, icon=":material/block:")
    elif look == "full":
        with st.spinner("Fitting the head again for every point and label …"):
            found = calibration.compare_with_full(key, v.measure, v.groups, v.problem)
        figure = validity_figures.predictor_comparison(found, v.eps)
        show_chart(figure, "full", "accuracy and set size of inductive, cross and full CP")
        st.markdown(explanations.comparison_text(found, v.problem))
    else:
        figure = validity_figures.reliability_diagram(v)
        show_chart(figure, "reliability", "reliability diagram of the softmax")
        width, mass = v.reliability["width"].ece, v.reliability["mass"].ece
        st.markdown(
            f"Expected calibration error: **{width:.3f}** (15 bins of equal width), "
            f"**{mass:.3f}** (15 of equal mass). Bars are 95 % intervals (Wilson); a bin of fewer "
            f"than {MIN_BIN_POINTS} points is grey and shows little."
        )


# ------------------------------------------------------------------ the generator, and files


@dataclass(frozen=True)
class ConditionVoice:
    """The voice under one condition, with the verdicts of Q and the scorer."""

    voice: GeneratedVoice
    q_softmax: np.ndarray  # (K,) Q's softmax; the scorer's is the voice's own


def generate_voices(
    members: dict[str, str], face: np.ndarray, seed: int
) -> dict[str, ConditionVoice]:
    """One face's voice under each trained condition, from the same noise.

    `members` maps a condition to its run. Raises ValueError for a damaged run.
    """
    voices = {}
    for condition, run_id in members.items():
        if condition != "none":
            voice = cache.generate_voice(run_id, face, None, seed, face[None])
            q = _q_softmax(files.checkpoints_folder() / run_id, voice.y)
            voices[condition] = ConditionVoice(voice, q)
    return voices


@st.cache_data(show_spinner=False, max_entries=60, scope="session")
def _q_softmax(directory: Path, y: np.ndarray) -> np.ndarray:
    from core.inference import generation

    return generation.classify_samples(cache.load_run(directory.name), y[None])["Q"][0]


def show_generated_voices(family: RunFamily | None, source: str, face: np.ndarray | None) -> None:
    """One face's voice under each condition from the same noise, with verdicts and differences."""
    if family is None:
        words = "This run's training is not finished, so there is no generator yet."
        st.info(words, icon=":material/hourglass_empty:")
        return
    if face is None:
        words = "A generator needs a picture. Choose *Example*, *Upload* or *Webcam* above."
        st.info(words, icon=":material/arrow_upward:")
        return
    seed = int(st.number_input("Seed of the noise", 0, MAX_SEED, 0, key="lab noise", width=180))
    try:
        voices = generate_voices(family.members, face, seed)
        run = cache.load_run(source)
    except ValueError as error:  # a damaged run
        st.error(str(error), icon=":material/error:")
        return
    logmel = run.config.logmel
    shown = [c for c in family.shown if c != "none"]
    for column, condition in zip(st.columns(len(shown), gap="medium"), shown):
        with column:
            if condition not in voices:
                run_summary.show_untrained_condition(condition, family.name)
                continue
            one, file_name = voices[condition], f"{family.name}-{seed}"
            players.show_voice(condition, one.voice, run.classes, run.ref_db, logmel, file_name)
            best = int(one.q_softmax.argmax())
            label = theme.emotion_html(run.classes[best])
            st.html(f"Q hears {label} <b>{one.q_softmax[best]:.0%}</b>")
    db = {c: spectrograms.unscale(one.voice.y, run.ref_db, logmel) for c, one in voices.items()}
    titles = {c: texts[0] for c, texts in theme.CONDITION_TEXTS.items()}
    pairs = [(a, b) for a, b in CONDITION_PAIRS if a in db and b in db]
    if pairs:
        differences = {f"{titles[a]} − {titles[b]}": db[a] - db[b] for a, b in pairs}
        figure = charts.spectrogram_differences(differences, logmel)
        alt = "differences between the generated spectrograms in decibels"
        show_chart(figure, "differences", alt)


def show_downloads(v: Analysis, point: Point, command: str) -> None:
    """Downloads of the points, the figures and everything; `command` gives the same elsewhere."""
    source = "an upload: give the same file to the page Conformal, with the settings of view.json"
    how = command or source
    look = {"icon": ":material/download:", "on_click": "ignore"}
    with st.container(horizontal=True, gap="small"):
        points = (lambda: analysis.to_csv(v), "conformal.csv", "text/csv")
        st.download_button("Points (csv)", *points, key="lab csv", **look)
        figures = (lambda: analysis.to_json(v), "conformal.json", "application/json")
        st.download_button("Figures (json)", *figures, key="lab json", **look)
        about = (
            "csv, json, a report, and the main panels as pdf and png for a paper. "
            "Takes some seconds."
        )
        bundle = (lambda: export.analysis_zip(v, point, how), "conformal.zip", "application/zip")
        st.download_button("Everything (zip)", *bundle, key="lab zip", help=about, **look)
    saves = "The camera button of a chart saves it; the URL holds all settings"
    if command:
        st.code(command, language="bash", wrap_lines=True)
        st.caption(f"The command gives the same figures in a terminal. {saves}.")
    else:
        st.caption(f"{saves}, but not your file: after a reload it is asked for again.")
