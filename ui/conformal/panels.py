"""Parts of the laboratory's page that hold widgets: settings, the choice of a point, and the panels that a click changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core.conformal import analysis as core
from core.conformal.analysis import Analysis
from core.conformal.calibration import CalibrationData
from core.media import spectrograms
from ui import theme
from ui.conformal import calibration, explanations, export, figures
from ui.conformal.calibration import AnalysisSettings, Point
from ui.session import cache, query_params
from ui.widgets import charts, choices, players, run_summary

if TYPE_CHECKING:
    from core.conformal.validity import ErrorCurve
    from core.inference.generation import AnalysedClip
    from ui.session.cache import RunFamily

POINT_SOURCES = {"test": "Test point", "example": "Example", "upload": "Upload", "webcam": "Webcam"}
CALIBRATION_SHARES = [float(r) for r in core.CALIBRATION_SHARES]
MEASURE_LABELS = {"margin": "Margin (the paper's)", "hinge": "Hinge"}
EPS_BY_LABEL = {
    f"{e:.2f}": float(round(e, 2)) for e in figures.EPS_POSITIONS
}  # of the sliders in charts: label -> eps
GROUP_LABELS = {"pooled": "Pooled", "class": "By class"}


def parse_integer(text: str, most: int) -> int | None:
    return (
        int(text)
        if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= most
        else None
    )


def choose_settings() -> AnalysisSettings:
    """Measure, groups, smoothing and seed, kept in the address."""
    about = "How strange a label is: Eq. (8). Margin: the largest other softmax minus its own. Hinge: 1 minus its own."
    measure = choices.choose_one(
        "Nonconformity", "measure", tuple(MEASURE_LABELS), "margin", MEASURE_LABELS.get, help=about
    )
    about = (
        "Which calibration points a label is compared with: all, or those of its class (Mondrian)."
    )
    groups = choices.choose_one(
        "Compared with", "groups", tuple(GROUP_LABELS), "pooled", GROUP_LABELS.get, help=about
    )
    query_params.restore_widget(
        "smoothed", "lab smoothed", False, {"True": True, "False": False}.get
    )
    about, go = (
        "Ties are split at random, which makes p-values exactly uniform.",
        {"on_change": query_params.save_widget, "args": ("smoothed", "lab smoothed")},
    )
    smoothed = st.toggle("Smoothed p-values", key="lab smoothed", help=about, **go)
    query_params.restore_widget("seed", "lab seed", 0, lambda k: parse_integer(k, 10**6))
    about, go = (
        "Of the share, of smoothing and of all repeated draws.",
        {"on_change": query_params.save_widget, "args": ("seed", "lab seed")},
    )
    seed = int(st.number_input("Seed", 0, 10**6, key="lab seed", help=about, **go))
    return AnalysisSettings(measure, groups, smoothed, seed=seed)


def choose_eps_and_share(settings: AnalysisSettings) -> AnalysisSettings:
    """eps and the calibration size, above what they change."""
    left, right = st.columns(2, gap="large")
    levels = np.round(figures.EPS_POSITIONS, 2).tolist()
    with left:
        about = "The error rate that is accepted. The set holds all labels whose p-value is above it. The sliders in charts move it too."
        eps = choices.slider(
            "ε, significance",
            "eps",
            "lab eps",
            levels,
            0.1,
            about=about,
            moves=(("set", 0), ("promise", 0)),
        )
    with right:
        about = "A random share of the calibration set, drawn by the seed."
        r = choices.slider(
            "Calibration set used",
            "r",
            "lab r",
            CALIBRATION_SHARES,
            1.0,
            lambda x: f"{x:.0%}",
            about,
            (("promise", 1),),
        )
    return replace(settings, eps=eps, r=r)


def upload_outputs() -> tuple[str, CalibrationData | str]:
    """A visitor's own outputs; stops the page, saying what to do, while there are none."""
    given = st.file_uploader(
        "Outputs of any classifier (npz or csv)",
        key="lab file",
        help="At most 64 MB. It stays on this machine.",
    )
    left, right = st.columns([3, 1], vertical_alignment="top")
    if given is None:
        with left.expander("The form of the file", icon=":material/description:", expanded=True):
            st.markdown(explanations.UPLOAD_FORMAT)
        icon = ":material/download:"
        right.download_button(
            "Example file",
            calibration.example_file,
            "outputs.csv",
            "text/csv",
            key="example file",
            icon=icon,
            on_click="ignore",
        )
        st.info(
            "Choose a file, or try the example: download it and give it back here.",
            icon=":material/upload_file:",
        )
        st.stop()
    return given.file_id, calibration.load_uploaded_outputs(
        given.file_id, given.name, given.getbuffer()
    )


# ------------------------------------------------------------------ one point


def choose_row(v: Analysis, shown: bool) -> int:
    """The number of a test point, and ways to interesting ones; without `shown` the one that was looked at last."""
    sights = calibration.notable_points(v)
    if not shown:
        kept = parse_integer(
            str(st.query_params.get("row", st.session_state.get("last lab row", ""))), v.m - 1
        )
        return sights["Clear"] if kept is None else kept
    query_params.restore_widget(
        "row", "lab row", sights["Clear"], lambda k: parse_integer(k, v.m - 1)
    )
    go = {"on_change": query_params.save_widget, "args": ("row", "lab row")}
    number = st.number_input(
        f"Test point, 0 to {v.m - 1:,}",
        0,
        v.m - 1,
        key="lab row",
        help="Or click one in the map of step 4.",
        **go,
    )
    with st.container(horizontal=True, gap="small"):
        for name, at in sights.items():
            st.button(
                name,
                key=f"sight {name}",
                on_click=query_params.set_value,
                args=("row", at),
                help=NOTABLE_POINT_HELP[name],
            )
    return int(number)


NOTABLE_POINT_HELP = {
    "Clear": "One label fits well and all others are out.",
    "Undecided": "Several labels fit.",
    "Strange": "The lowest credibility: no label fits.",
    "Sure and wrong": "High credibility and confidence, and yet wrong.",
}


def show_current_point(
    point: Point, classes: Sequence[str], seen: AnalysedClip | None, back: bool
) -> None:
    """What is looked at, in a line."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if seen:
            big = np.kron(seen.aligned[seen.middle], np.ones((2, 2), np.uint8))
            st.image(big, width=48, output_format="PNG", alt="the aligned face that is looked at")
        said = f"**{point.name}**: prediction *{classes[point.prediction]}*"
        if point.label is not None:
            right = point.label == point.prediction
            said += f", {':material/check_circle: right' if right else f':material/cancel: wrong, in truth *{classes[point.label]}*'}"
        st.markdown(said, width="stretch")
        if back and st.button(
            "Another point", icon=":material/arrow_back:", type="tertiary", key="another"
        ):
            query_params.set_value("step", "chain")
            st.rerun()  # the whole page, as the point is chosen outside what the sliders redraw


def show_p_value_area(v: Analysis, point: Point) -> None:
    """The calibration scores with the point's own among them, under a label that is chosen here."""
    classes = v.problem.classes
    options = [classes[k] for k in point.shown]
    query_params.restore_widget(
        "label", "lab label", classes[point.prediction], lambda k: k if k in options else None
    )
    go = {"on_change": query_params.save_widget, "args": ("label", "lab label")}
    name = st.pills("If the label were …", options, required=True, key="lab label", **go)
    k = classes.index(name)
    own = calibration.scores(v, k)
    figure = figures.p_value_area(
        own, float(point.ranking.alpha[k]), name, v.measure, figures.class_colours(classes)[k]
    )
    st.plotly_chart(
        figure,
        key="area",
        config=charts.EXPORT_CONFIG,
        alt="histogram of the calibration scores, the p-value as the shaded area",
    )
    st.markdown(explanations.p_value_text(point, k, name, v.smoothed))


def show_prediction_set(v: Analysis, point: Point) -> None:
    """Credibility, confidence and the set, and what is often mistaken."""
    classes = v.problem.classes
    left, right = st.columns([2, 3], gap="large")
    with left:
        a, b = st.columns(2)
        a.metric(
            "Credibility",
            f"{point.credibility:.3f}",
            help="The highest p-value: does any label fit?",
        )
        b.metric(
            "Confidence",
            f"{point.confidence:.3f}",
            help="1 − the second highest p-value: are all others ruled out?",
        )
        st.markdown(explanations.prediction_text(point, classes, v.eps))
        st.html(explanations.label_set_html(classes, point.p, v.eps))
    with right:
        figure = figures.label_set(classes, point.p, v.floor, point.shown, v.eps)
        st.plotly_chart(
            figure,
            key="set",
            config=charts.EXPORT_CONFIG,
            alt="p-values with epsilon as a line that a slider moves",
        )
        choices.save_chart_sliders({"eps": EPS_BY_LABEL}, "set")
    with st.container(border=True):
        st.markdown("**Common mistakes**")
        for column, words in zip(st.columns(2, gap="large"), explanations.COMMON_MISTAKES):
            column.markdown(words)


# ------------------------------------------------------------------ the whole test set


def _choose_clicked_point() -> None:
    """A click in the map chooses a point."""
    rows = [
        p["customdata"] for p in st.session_state["map"]["selection"]["points"] if "customdata" in p
    ]
    if rows:
        query_params.set_value("row", int(np.ravel(rows[0])[0]))
        query_params.set_value("from", "test")
        st.session_state["lab clicked"] = True


def show_point_map(v: Analysis, point: Point) -> None:
    if st.session_state.pop("lab clicked", False):
        st.rerun()  # the whole page: the point is chosen outside
    figure = figures.point_map(v, point.credibility, point.confidence)
    st.plotly_chart(
        figure,
        key="map",
        config=charts.EXPORT_CONFIG,
        alt="credibility against confidence of all test points",
        on_select=_choose_clicked_point,
        selection_mode="points",
    )
    st.caption(f"Ring: {point.name}. Click any other point to look at it above.")


def show_validity(v: Analysis, sizes: Callable[[], list[Analysis] | None]) -> None:
    """One look at validity and efficiency at a time; `sizes` gives the views of all calibration sizes, None while they are made."""
    st.markdown(
        "  \n".join(
            [
                explanations.validity_text(v),
                *(f":small[:material/info: {note}]" for note in v.notes),
            ]
        )
    )
    looks = {
        "curve": "All points",
        "uniform": "Uniformity",
        "class": "By class",
        "subject": "By subject",
        "criteria": "Criteria",
    }
    look = choices.choose_one(
        "Look", "look", tuple(looks), "curve", looks.get, label_visibility="collapsed"
    )
    if look != "curve":
        choices.reset_positions("promise")
    if look == "curve":
        _show_curves(v, sizes() or [])
        if sizes() is None:
            st.fragment(lambda: sizes() and st.rerun(), run_every=0.5)()
    elif look == "uniform":
        explanations.show_help("uniform", "About this look")
        st.plotly_chart(
            figures.p_value_histogram(v),
            key="uniform",
            config=charts.EXPORT_CONFIG,
            alt="histogram of the true labels' p-values",
        )
        st.markdown(explanations.uniformity_text(v))
    elif look == "criteria":
        explanations.show_help("criteria", "About this look")
        st.dataframe(
            explanations.criteria_rows(v), hide_index=True, height="content", key="criteria"
        )
    else:
        explanations.show_help("parts", "About this look")
        _show_group_curves(v, v.by_class if look == "class" else v.by_subject, look)


def _show_curves(v: Analysis, sizes: list[Analysis]) -> None:
    """The curves, drawn once where they hold all calibration sizes: the browser moves them, and only words come from here."""
    what = (id(v.problem), v.measure, v.groups, v.smoothed, v.seed, v.r if not sizes else None)
    eps, r = choices.initial_positions("promise", what, (v.eps, v.r))
    first = replace(next((one for one in sizes if one.r == r), v), eps=eps)
    choices.show_readout(
        "promise",
        len(v.problem.classes),
        figures.slider_readings(sizes or [v]),
        *figures.VALIDITY_MARGINS,
    )
    figure = figures.validity_curves(first, sizes)
    st.plotly_chart(
        figure,
        key="promise",
        config=charts.EXPORT_CONFIG,
        alt="error, set size and shares of sets against epsilon",
    )
    choices.save_chart_sliders(
        {"eps": EPS_BY_LABEL, "r": {f"{r:g}": r for r in CALIBRATION_SHARES}}, "promise"
    )


def _show_group_curves(v: Analysis, every: Sequence[ErrorCurve], what: str) -> None:
    """Curves by class or by subject."""
    curves = sorted(every, key=lambda c: -max(c.above, c.below))[:40]
    if not curves:
        why = (
            "subjects are unknown"
            if v.problem.subject_test is None
            else f"no subject has {core.MIN_SUBJECT_POINTS} test points"
        )
        st.info(f"There are no curves by subject here: {why}.", icon=":material/group_off:")
        return
    tint = (
        [
            dict(zip(v.problem.classes, figures.class_colours(v.problem.classes)))[c.name]
            for c in curves
        ]
        if what == "class"
        else None
    )
    st.plotly_chart(
        figures.curves_by_group(curves, tint, v.eps, what),
        key="parts",
        config=charts.EXPORT_CONFIG,
        alt=f"error by {what}",
    )
    st.markdown(explanations.worst_curve_text(every, what))


def show_limits(v: Analysis) -> None:
    """New people, few calibration points, and the softmax."""
    looks = {"people": "New people", "sizes": "Calibration size", "softmax": "The softmax instead"}
    look = choices.choose_one(
        "Limit", "limit", tuple(looks), "people", looks.get, label_visibility="collapsed"
    )
    if look == "people":
        st.markdown(explanations.exchangeability_text(v))
        st.plotly_chart(
            figures.error_deviation(v),
            key="broken",
            config=charts.EXPORT_CONFIG,
            alt="error minus epsilon, on the test set and on random splits",
        )
    elif look == "sizes":
        explanations.show_help("sizes", "About this look")
        st.plotly_chart(
            figures.error_by_calibration_size(v),
            key="sizes",
            config=charts.EXPORT_CONFIG,
            alt="error and set size against the calibration size",
        )
    else:
        explanations.show_help("softmax", "About this look")
        st.plotly_chart(
            figures.reliability_diagram(v),
            key="reliability",
            config=charts.EXPORT_CONFIG,
            alt="reliability diagram of the softmax",
        )
        width, mass = v.reliability["width"].ece, v.reliability["mass"].ece
        st.markdown(
            f"Expected calibration error: **{width:.3f}** (15 bins of equal width), **{mass:.3f}** (15 of equal mass)."
        )


# ------------------------------------------------------------------ the generator, and files


def show_generated_voices(family: RunFamily | None, source: str, face: np.ndarray | None) -> None:
    """One face under each condition, from one noise: spectrograms, sounds, verdicts, differences."""
    if family is None:
        st.info(
            "This run's training is not finished, so there is no generator yet.",
            icon=":material/hourglass_empty:",
        )
        return
    if face is None:
        st.info(
            "A generator needs a picture. Choose *Example*, *Upload* or *Webcam* above.",
            icon=":material/arrow_upward:",
        )
        return
    seed = int(st.number_input("Seed of the noise", 0, 10**6, 0, key="lab noise", width=180))
    try:
        told, opened = (
            calibration.generate_voices(family.members, face, seed),
            cache.load_run(source),
        )
    except ValueError as error:
        st.error(str(error), icon=":material/error:")
        return
    classes, s = opened.classes, opened.config.logmel
    shown = [c for c in family.shown if c != "none"]
    for column, condition in zip(st.columns(len(shown), gap="medium"), shown):
        with column:
            if condition not in told:
                run_summary.show_untrained_condition(condition, family.name)
                continue
            one = told[condition]
            players.show_voice(
                condition, one.voice, classes, opened.ref_db, s, f"{family.name}-{seed}"
            )
            first = int(one.q_softmax.argmax())
            st.html(
                f"Q hears {theme.emotion_html(classes[first])} <b>{one.q_softmax[first]:.0%}</b>"
            )
    db = {c: spectrograms.unscale(one.voice.y, opened.ref_db, s) for c, one in told.items()}
    pairs = {
        f"{theme.CONDITION_TEXTS[a][0]} − {theme.CONDITION_TEXTS[b][0]}": db[a] - db[b]
        for a, b in CONDITION_PAIRS
        if a in db and b in db
    }
    if pairs:
        figure = charts.spectrogram_differences(pairs, s)
        st.plotly_chart(
            figure,
            key="differences",
            config=charts.EXPORT_CONFIG,
            alt="differences between the generated spectrograms in decibels",
        )


CONDITION_PAIRS = (("cp", "label"), ("cp", "classifier"), ("classifier", "label"))


def show_downloads(v: Analysis, point: Point, command: str) -> None:
    with st.container(horizontal=True, gap="small"):
        more = {"icon": ":material/download:", "on_click": "ignore"}
        st.download_button(
            "Points (csv)",
            lambda: core.to_csv(v),
            "conformal.csv",
            "text/csv",
            key="lab csv",
            **more,
        )
        st.download_button(
            "Figures (json)",
            lambda: core.to_json(v),
            "conformal.json",
            "application/json",
            key="lab json",
            **more,
        )
        how = (
            command
            or "an upload: give the same file to the page Conformal, with the settings of view.json"
        )
        about = "csv, json, a report, and the main panels as pdf and png for a paper. Takes some seconds."
        made = lambda: export.analysis_zip(v, point, how)  # noqa: E731
        st.download_button(
            "Everything (zip)",
            made,
            "conformal.zip",
            "application/zip",
            key="lab zip",
            help=about,
            **more,
        )
    if command:
        st.code(command, language="bash", wrap_lines=True)
    st.caption(
        "The command gives the same figures in a terminal. Charts save themselves (the camera); the address holds all settings."
    )
