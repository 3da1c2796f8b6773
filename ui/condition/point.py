"""The condition lab's view of one condition: sliders for c, and the sample with its verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core.inference import conditions
from core.inference.conditions import GuidedSamples, TrainingConditions, TrainingSupport
from ui import theme
from ui.condition import figures, sampling
from ui.condition.sampling import SamplingSettings, SourceFace
from ui.session import query_params
from ui.widgets import charts, choices, players, spectrogram

if TYPE_CHECKING:
    from core.inference.generation import Explanation, LoadedRun

NAMED_CONDITION_LABELS = {
    "told": "As trained",
    "softmax": "Softmax",
    "p": "p-values",
    "uniform": "Uniform",
    "none": "Nothing",
}
LOOKS = {"drawn": "Spectrogram", "change": "What c changes"}
MAX_URL_LETTERS = 200  # letters of c in the URL that are read
MIN_SHOWN_SPREAD = 0.005  # a narrower range of sums is shown as one number
REGION_TEXTS = {
    "inside": ":green[:material/check_circle: **As in training.**]",
    "edge": ":orange[:material/warning: **At the edge of training.**]",
    "outside": ":red[:material/error: **Outside of training:** "
    "G has never been told anything like it.]",
}


# ------------------------------------------------------------------ c in the URL


def _custom_condition(K: int) -> np.ndarray | None:
    """The c of the URL, or the last one set by hand: K numbers in [0, 1], or None."""
    text = st.query_params.get("c", st.session_state.get("last cond c", ""))
    try:
        values = np.array([float(part) for part in str(text)[:MAX_URL_LETTERS].split(",")])
    except ValueError:
        return None
    return values if len(values) == K and bool(((values >= 0) & (values <= 1)).all()) else None


def current_condition(o: LoadedRun, explanation: Explanation) -> tuple[str, np.ndarray]:
    """The name of the URL's preset (`own`: set by hand) and its c (K,)."""
    own, known = _custom_condition(len(o.classes)), (*conditions.NAMED_CONDITIONS, *o.classes)
    last = st.session_state.get("last cond preset", "told")
    name = st.query_params.get("preset", "own" if "c" in st.query_params else last)
    if name not in known and not (name == "own" and own is not None):
        name = "told"
    c = own if name == "own" and own is not None else conditions.by_name(o, explanation, name)
    st.session_state["last cond preset"] = name
    text = None
    if name == "own":
        st.session_state["last cond c"] = text = ",".join(f"{v:g}" for v in c)
    preset = None if name in ("told", "own") else name
    for key, value in (("preset", preset), ("c", text)):
        if st.query_params.get(key) != value:
            query_params.set_value(key, value)
    return name, c


def _apply_preset() -> None:
    query_params.set_value("c", None)
    query_params.set_value("preset", st.session_state["cond preset"] or "told")


def _apply_slider(k: int, K: int, whole: bool) -> None:
    """Callback of slider k: save c; with `whole` the others are rescaled so that c sums to one."""
    c = np.array([st.session_state[f"cond c {j}"] for j in range(K)])
    c = conditions.rebalance(c, k, c[k]) if whole else c
    query_params.set_value("preset", None)
    query_params.set_value("c", ",".join(f"{v:.2f}".rstrip("0").rstrip(".") for v in c))


# ------------------------------------------------------------------ widgets


def choose_condition(
    o: LoadedRun, explanation: Explanation, known: TrainingConditions | str
) -> np.ndarray:
    """Presets, a slider for each emotion, and c's distance from training. Returns c (K,)."""
    classes = o.classes
    name, c = current_condition(o, explanation)
    st.session_state["cond preset"] = None if name == "own" else name
    options = [*conditions.NAMED_CONDITIONS[:3], *classes, *conditions.NAMED_CONDITIONS[3:]]
    label = lambda k: NAMED_CONDITION_LABELS.get(k, k)  # noqa: E731
    more = {"key": "cond preset", "on_change": _apply_preset, "wrap": True}
    st.pills("What G is told", options, format_func=label, **more)
    whole = False
    if o.config.gan.condition != "cp":
        args = query_params.bind_widget("sum", "cond sum", True, choices.FLAGS.get)
        about = "Move one, and the others are rescaled in proportion."
        whole = st.toggle("Keep the sum at 1", help=about, **args)
    _show_sliders(classes, c, whole)
    if isinstance(known, str):
        words = "The conditions of training are not known, so guidance starts at uniform"
        st.caption(f"{words}: {known}")
    else:
        st.markdown(support_text(conditions.training_support(known, c), known, classes))
    return c


def _show_sliders(classes: tuple[str, ...], c: np.ndarray, whole: bool) -> None:
    dots = "".join(
        f".st-key-cond-c-{k} label p::before "
        f"{{content: '● '; color: {theme.emotion_colour(emotion)}}}"
        for k, emotion in enumerate(classes)
    )
    st.html(f"<style>{dots}</style>")
    halves = [column.container(gap=None) for column in st.columns(2, gap="medium")]
    for k, emotion in enumerate(classes):
        st.session_state[f"cond c {k}"] = round(float(c[k]), 2)
        go = {"on_change": _apply_slider, "args": (k, len(classes), whole)}
        halves[k % 2].slider(emotion, 0.0, 1.0, step=0.01, key=f"cond c {k}", **go)


def support_text(f: TrainingSupport, known: TrainingConditions, classes: tuple[str, ...]) -> str:
    """How near the conditions of training come to c, in words."""
    parts = [
        f"{REGION_TEXTS[f.place]} The nearest c of training is {f.distance:.2f} away; 95 % of "
        f"those have another one within {f.typical_distance:.2f}."
    ]
    if f.emotions_beyond:
        parts.append(f"Beyond its range: {', '.join(classes[k] for k in f.emotions_beyond)}.")
    low, high = known.total
    is_range = high - low >= MIN_SHOWN_SPREAD
    seen = f", in training {low:.2f}" + (f" to {high:.2f}" if is_range else "")
    parts.append(f"Sum of c: **{f.total:.2f}**{seen if f.is_total_beyond or is_range else ''}.")
    return ":small[" + " ".join(parts) + "]"


# ------------------------------------------------------------------ the view


def show_one_condition(
    o: LoadedRun, one: SourceFace, explanation: Explanation, s: SamplingSettings
) -> None:
    """The sliders on the left; spectrogram, sound and verdicts on the right."""
    known = sampling.training_conditions(o.run.id)
    left, right = st.columns([5, 6], gap="medium")
    with left:
        if o.config.gan.condition == "none":
            words = "This generator is told nothing: it has the face and noise alone."
            st.info(f"{words} Try another seed.", icon=":material/info:")
            c = np.zeros(0)
        else:
            c = choose_condition(o, explanation, known)
    d = sampling.guided_samples(o.run.id, one.x[None], c[None], s)
    with right:
        _show_spectrogram(o, d)
        place = st.container()  # filled last, so that the browser gets both charts first
        trained = known if isinstance(known, TrainingConditions) else None
        verdicts = (d.Q[0], d.scorer[0])
        figure = figures.condition_and_verdicts(o.classes, c, trained, *verdicts, 210)
        alt = "what the generator is told, and what the judge and Q hear"
        st.plotly_chart(
            charts.fit(figure), key="cond told", config=charts.NO_TOOLBAR_CONFIG, alt=alt
        )
        with place:
            sampling.show_player(o, d.y[0], s)
        stem = f"condition-{o.config.name}-{s.seed}"
        with st.container(horizontal=True, gap="small"):
            # a function that is called on the click could not reach a visitor's own cache
            wav = sampling.to_audio(o, d.y[0], s).wav
            players.download("wav", wav, f"{stem}.wav", key="cond wav")
            about = "Face, c, spectrogram, y(c₀) and both verdicts as numbers."
            npz = lambda: sampling.npz_bytes(d)  # noqa: E731
            players.download("npz", npz, f"{stem}.npz", key="cond npz", help=about)


def _show_spectrogram(o: LoadedRun, d: GuidedSamples) -> None:
    """The sample's spectrogram, or its difference from y(c0)."""
    s, look = o.config.logmel, "drawn"
    if d.c.shape[1]:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            more = {"label_visibility": "collapsed"}
            look = choices.choose_one("Look at", "show", tuple(LOOKS), "drawn", LOOKS.get, **more)
            sampling.show_autoplay_toggle()
    if look == "drawn":
        alt = "the generated spectrogram"
        spectrogram.show_canvas(d.y[0], o.ref_db, s, "cond drawn", alt, 180)
        return
    told_nothing = conditions.has_classifier_free_guidance(o.config)
    change = {
        "y − y(told nothing)" if told_nothing else "y − y(c₀)": (d.y[0] - d.base[0])
        * s.range_db
        / 2
    }
    figure, alt = charts.spectrogram_differences(change, s), "what c changes in the spectrogram"
    st.plotly_chart(figure, key="cond change", config=charts.NO_TOOLBAR_CONFIG, alt=alt)
