"""Inputs of the page Conformal: settings, ε and calibration share, own outputs, the test point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.conformal import analysis, prediction, predictor
from core.conformal.analysis import Analysis
from core.conformal.calibration import CalibrationData
from core.conformal.uploads import MAX_UPLOAD_CLASSES
from ui import theme
from ui.conformal import calibration, explanations, figure_parts
from ui.conformal.calibration import AnalysisSettings
from ui.session import query_params
from ui.widgets import choices, uploads

POINT_SOURCES = {"test": "Test point", "example": "Example", "upload": "Upload", "webcam": "Webcam"}
POINT_SOURCES |= {uploads.LAST: uploads.LAST_LABEL}  # offered once there is one
CALIBRATION_SHARES = [float(r) for r in analysis.CALIBRATION_SHARES]
MEASURE_LABELS = {"margin": "Margin (the paper's)", "hinge": "Hinge"}
GROUP_LABELS = {"pooled": "Pooled", "class": "By class"}
MAX_SEED = 10**6
NOTABLE_POINT_HELP = {
    "Clear": "One label fits well and all others are out.",
    "Undecided": "Several labels fit.",
    "Least credible": "The lowest credibility of all; it may still be high.",
    "No label fits": "A point whose p-values are all at most ε, if there is one.",
    "Sure and wrong": "High credibility and confidence, and yet wrong.",
}

UPLOAD_FORMAT = """**npz** (`np.savez`): `cal_softmax` (n, K), `cal_labels` (n,), `test_softmax`
(m, K), `test_labels` (m,); optional `classes` (K,), `cal_subjects`, `test_subjects`.

**csv**: a first line that names the columns `set` (cal or test), `label`, one column for each
class, and optionally `subject`; then a line for each point.

Probabilities, not logits: each row sums to one. The calibration points must be ones that the
classifier was *not* trained on."""


def choose_settings(outputs: CalibrationData, key: str, step: str) -> AnalysisSettings:
    """Predictor, nonconformity measure, label groups, smoothing and seed; the URL keeps them.

    They open on those of the run's own predictor. The step on strangeness opens with hinge. `key`
    identifies the outputs.
    """
    own, strange = outputs.own, step == "strange"
    _forget_other_defaults((key, strange))
    if own is not None and own.fitted.kind != "inductive" and not strange:
        labels = {"own": "The run's own", "inductive": "Inductive, to vary"}
        about = (
            f"The run's own is {own.fitted.name}: its p-values fed the generator. An inductive "
            "one on f_S's softmax lets you vary everything below."
        )
        given = "Predictor", "predictor", tuple(labels), "own", labels.get
        if choices.choose_one(*given, help=about) == "own":
            f = own.fitted
            st.caption(f"{predictor.describe(f, 'points')} {f.measure}, {f.groups}, unsmoothed.")
            return AnalysisSettings(f.measure, f.groups, own=True)
    about = (
        "How strange a label is: Eq. (8). Margin: the largest other softmax minus its own. "
        "Hinge: 1 minus its own."
    )
    options, default = tuple(MEASURE_LABELS), own.fitted.measure if own else "margin"
    default = "hinge" if strange else default
    measure = choices.choose_one(
        "Nonconformity", "measure", options, default, MEASURE_LABELS.get, help=about
    )
    about = (
        "The calibration points that a label is compared with: all of them, or those of its class "
        "(Mondrian)."
    )
    options, default = tuple(GROUP_LABELS), own.fitted.groups if own else "pooled"
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


def _forget_other_defaults(context: tuple[str, bool]) -> None:
    """Where other defaults hold (another run or step), a choice that nobody made is forgotten."""
    if st.session_state.get("lab defaults of") not in (None, context):
        for name in ("measure", "groups", "predictor"):
            st.session_state.pop(f"last lab {name}", None)
    st.session_state["lab defaults of"] = context


def chosen_eps() -> float:
    """The ε of the slider, before it is drawn."""
    text = st.query_params.get("eps", str(st.session_state.get("last lab eps", "")))
    known = {str(e): e for e in np.round(figure_parts.EPS_POSITIONS, 2).tolist()}
    return known.get(text, AnalysisSettings().eps)


def choose_eps_and_share(settings: AnalysisSettings, step: str) -> AnalysisSettings:
    """`settings` with ε and the share of calibration points, which two sliders choose.

    A slider stands only where it changes something. The run's own predictor of another kind has
    its own share, and the pictures that are no face are ranked among all calibration points.
    """
    left, right = st.columns(2, gap="large")
    if step not in explanations.EPS_STEPS:
        left, right, eps = right, left, chosen_eps()
    else:
        eps = _choose_eps(left)
    if settings.own or step == "strange":
        return replace(settings, eps=eps)
    with right:
        about = "A random share of the calibration set, drawn with the seed."
        slider = ("Calibration set used", "r", "lab r", CALIBRATION_SHARES, 1.0)
        r = choices.slider(*slider, lambda x: f"{x:.0%}", about, (("promise", 1),))
    return replace(settings, eps=eps, r=r)


def _choose_eps(place: DeltaGenerator) -> float:
    """The slider of ε, in a column of the page."""
    with place:
        levels = np.round(figure_parts.EPS_POSITIONS, 2).tolist()
        about = (
            "The accepted error rate. The set holds all labels whose p-value is above it. "
            "The sliders in charts move it too."
        )
        moves = ("set", 0), ("promise", 0)
        slider = ("ε, significance", "eps", "lab eps", levels, 0.1)
        return choices.slider(*slider, about=about, moves=moves)


def upload_outputs() -> tuple[str, CalibrationData | str]:
    """A visitor's own outputs under a key, or an error text; without a file, stops the page."""
    about = (
        f"At most 64 MB and {MAX_UPLOAD_CLASSES:,} classes. Of many points a random sample is "
        "analysed. It stays on this machine."
    )
    upload = st.file_uploader("Outputs of any classifier (npz or csv)", key="lab file", help=about)
    if upload is not None:
        data = upload.getbuffer()
        query_params.set_value("file", uploads.safe_file_name(upload.name))
        return upload.file_id, calibration.load_uploaded_outputs(upload.file_id, upload.name, data)
    if gone := st.query_params.get("file"):
        name = theme.escape_markdown(uploads.safe_file_name(gone))
        words = f"**{name}** was kept for that visit alone. Choose it again: the settings are kept."
        st.warning(words, icon=":material/history:")
    left, right = st.columns([3, 1], vertical_alignment="top")
    with left.expander("The file's format", icon=":material/description:", expanded=True):
        st.markdown(UPLOAD_FORMAT)
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
    eps = chosen_eps()
    notable = calibration.notable_points(v, eps)
    if not shown:
        last = st.query_params.get("row", st.session_state.get("last lab row", ""))
        row = choices.parse_integer(str(last), 0, v.m - 1)
        return notable["Clear"] if row is None else row
    bound = choices.integer_args("row", "lab row", notable["Clear"], 0, v.m - 1)
    number = list(explanations.LESSON_STEPS).index("map") + 1
    about = f"Or click one in the map of step {number}."
    row = st.number_input(f"Test point, 0 to {v.m - 1:,}", help=about, **bound)
    with st.container(horizontal=True, gap="small"):
        for name, at in notable.items():
            go = {"on_click": query_params.set_value, "args": ("row", at)}
            st.button(name, key=f"sight {name}", help=NOTABLE_POINT_HELP[name], **go)
        name = "No label fits"
        if name not in notable:
            asked = st.button(name, key=f"sight {name}", help=NOTABLE_POINT_HELP[name])
    if name not in notable and asked:
        st.info(no_empty_set_text(v, eps), icon=":material/block:")
    return int(row)


def no_empty_set_text(v: Analysis, eps: float) -> str:
    """Why no label set of a test point is empty at significance `eps`."""
    best = prediction.credibility(v.p).min()
    s = calibration.credibility_scale(v)
    words = f"At ε = {eps:g} some label fits every test point: the lowest credibility is {best:.2f}"
    if s.low > eps and s.is_exact:
        return (
            f"{words}, and with {v.measure} and {v.groups} scores none below {s.low:.2f} is "
            "possible. The step *Strange* says why."
        )
    return f"{words}. Lower ones are possible ({s.low:.2f} or more), but no point here has one."
