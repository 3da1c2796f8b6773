"""Inputs of the page Conformal: settings, ε and calibration share, own outputs, the test point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from core.conformal import analysis
from core.conformal.analysis import Analysis
from core.conformal.calibration import CalibrationData
from ui.conformal import calibration, explanations, figure_parts
from ui.conformal.calibration import AnalysisSettings
from ui.session import query_params
from ui.widgets import choices

POINT_SOURCES = {"test": "Test point", "example": "Example", "upload": "Upload", "webcam": "Webcam"}
CALIBRATION_SHARES = [float(r) for r in analysis.CALIBRATION_SHARES]
MEASURE_LABELS = {"margin": "Margin (the paper's)", "hinge": "Hinge"}
GROUP_LABELS = {"pooled": "Pooled", "class": "By class"}
MAX_SEED = 10**6
NOTABLE_POINT_HELP = {
    "Clear": "One label fits well and all others are out.",
    "Undecided": "Several labels fit.",
    "Strange": "The lowest credibility: no label fits.",
    "Sure and wrong": "High credibility and confidence, and yet wrong.",
}


def choose_settings() -> AnalysisSettings:
    """Nonconformity measure, label groups, smoothing and seed; the URL keeps them."""
    about = (
        "How strange a label is: Eq. (8). Margin: the largest other softmax minus its own. "
        "Hinge: 1 minus its own."
    )
    options, default = tuple(MEASURE_LABELS), "margin"
    measure = choices.choose_one(
        "Nonconformity", "measure", options, default, MEASURE_LABELS.get, help=about
    )
    about = (
        "The calibration points that a label is compared with: all of them, or those of its class "
        "(Mondrian)."
    )
    options, default = tuple(GROUP_LABELS), "pooled"
    groups = choices.choose_one(
        "Compared with", "groups", options, default, GROUP_LABELS.get, help=about
    )
    bound = query_params.bind_widget("smoothed", "lab smoothed", False, choices.FLAGS.get)
    about = "Ties are split at random, which makes p-values exactly uniform."
    smoothed = st.toggle("Smoothed p-values", help=about, **bound)
    about = "Seed of the calibration share, of smoothing and of all repeated draws."
    bound = choices.integer_args("seed", "lab seed", 0, 0, MAX_SEED)
    seed = int(st.number_input("Seed", help=about, **bound))
    return AnalysisSettings(measure, groups, smoothed, seed=seed)


def choose_eps_and_share(settings: AnalysisSettings) -> AnalysisSettings:
    """`settings` with ε and the share of calibration points, which two sliders choose."""
    left, right = st.columns(2, gap="large")
    with left:
        levels = np.round(figure_parts.EPS_POSITIONS, 2).tolist()
        about = (
            "The accepted error rate. The set holds all labels whose p-value is above it. "
            "The sliders in charts move it too."
        )
        moves = ("set", 0), ("promise", 0)
        slider = ("ε, significance", "eps", "lab eps", levels, 0.1)
        eps = choices.slider(*slider, about=about, moves=moves)
    with right:
        about = "A random share of the calibration set, drawn with the seed."
        slider = ("Calibration set used", "r", "lab r", CALIBRATION_SHARES, 1.0)
        r = choices.slider(*slider, lambda x: f"{x:.0%}", about, (("promise", 1),))
    return replace(settings, eps=eps, r=r)


def upload_outputs() -> tuple[str, CalibrationData | str]:
    """A visitor's own outputs under a key, or an error text; without a file, stops the page."""
    about = "At most 64 MB. It stays on this machine."
    upload = st.file_uploader("Outputs of any classifier (npz or csv)", key="lab file", help=about)
    if upload is not None:
        data = upload.getbuffer()
        return upload.file_id, calibration.load_uploaded_outputs(upload.file_id, upload.name, data)
    left, right = st.columns([3, 1], vertical_alignment="top")
    with left.expander("The file's format", icon=":material/description:", expanded=True):
        st.markdown(explanations.UPLOAD_FORMAT)
    button = {"key": "example file", "icon": ":material/download:", "on_click": "ignore"}
    example = (calibration.example_file, "outputs.csv", "text/csv")
    right.download_button("Example file", *example, **button)
    words = "Choose a file, or try the example: download it and upload it here."
    st.info(words, icon=":material/upload_file:")
    st.stop()


def choose_row(v: Analysis, shown: bool) -> int:
    """The row of a test point; with `shown`, an input and buttons for notable points.

    Without `shown`, it is the row that was chosen last, or the clearest point.
    """
    notable = calibration.notable_points(v)
    if not shown:
        last = st.query_params.get("row", st.session_state.get("last lab row", ""))
        row = choices.parse_integer(str(last), 0, v.m - 1)
        return notable["Clear"] if row is None else row
    bound = choices.integer_args("row", "lab row", notable["Clear"], 0, v.m - 1)
    about = "Or click one in the map of step 4."
    row = st.number_input(f"Test point, 0 to {v.m - 1:,}", help=about, **bound)
    with st.container(horizontal=True, gap="small"):
        for name, at in notable.items():
            go = {"on_click": query_params.set_value, "args": ("row", at)}
            st.button(name, key=f"sight {name}", help=NOTABLE_POINT_HELP[name], **go)
    return int(row)
