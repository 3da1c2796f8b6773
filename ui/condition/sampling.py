"""The condition lab's parts: which face, which condition, how it is drawn (all in the address); one point, and the ways between two."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core import files
from core.config import CREMA_EMOTIONS
from core.inference import conditions
from core.inference.conditions import GuidedSamples, TrainingConditions, TrainingSupport
from ui import theme
from ui.condition import figures as strips
from ui.session import cache, query_params
from ui.widgets import charts, choices, spectrogram, uploads

if TYPE_CHECKING:
    from core.inference.generation import Audio, Explanation, LoadedRun

EXAMPLE_FACES = uploads.EXAMPLES | {
    f"drawn-{k}": f"Drawn face, {k} (invented)" for k in CREMA_EMOTIONS
}
OWN_FACES = {"upload": "Upload …", "webcam": "Webcam …"}
VIEWS = {
    "point": "One condition",
    "emotions": "Between two emotions",
    "faces": "Between two faces",
    "strength": "Along the guidance",
}
NAMED_CONDITION_LABELS = {
    "told": "As trained",
    "softmax": "Softmax",
    "p": "p-values",
    "uniform": "Uniform",
    "none": "Nothing",
}  # of presets
BASE_LABELS = {"mean": "Mean of training", "uniform": "Uniform"}
DEFAULT_STEPS, MIN_STEPS, MAX_STEPS = 12, 8, 16  # of a way
MAX_GUIDANCE, MAX_NOISE_SCALE = 4.0, 1.5  # guidance, scale of the noise

ABOUT = """The generator G takes a face, noise z and a **condition c**: one number for each emotion. This page lets you say c yourself.

**The sliders** are c. *As trained* is what this run's G is told of this face: a label, the face classifier's softmax, or the conformal
p-values. The bars beside them show where the c's of training lay. G answers to any c, but only those near what it has seen mean
something; the line under the sliders says how far away yours is. p-values do not sum to one, labels and a softmax do.

**z** is what else may differ between two voices. The seed chooses it, the scale sizes it: 0 gives one typical voice, above 1 rare ones.

**Guidance** goes from a neutral output y(c₀) through y(c) and beyond: y = y(c₀) + s · (y(c) − y(c₀)), cut to [−1, 1]. At s = 0 c has no
say, at 1 it is G as trained, above 1 what c changed is exaggerated. This is a straight line between *outputs*. It is not classifier-free
guidance, for which a generator has to learn with its condition now and then left out; this one always had one.

**Q and the scorer** are two classifiers of real voices. Q taught G, so it is easily pleased; the scorer never met G. Trust it more.

**The ways** draw all steps between two ends at once. Drag the slider or press play; the sound below is that of the step you stop at."""


@dataclass(frozen=True)
class SourceFace:
    """What is looked at."""

    key: str  # of FACES or OWN
    name: str
    x: np.ndarray  # (28, 28) uint8
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SamplingSettings:
    """How it is drawn."""

    seed: int = 0
    scale: float = 1.0
    strength: float = 1.0
    base: str = "mean"


# ------------------------------------------------------------------ cached


def load_run(run_id: str) -> LoadedRun:
    """A finished run's networks. Raises ValueError that names the file at fault."""
    try:
        return cache.load_run(run_id)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{run_id}/outputs.npz is damaged ({error}): restore the file, or train the run again"
        ) from error


@st.cache_resource(show_spinner=False, max_entries=16)
def _render_demo_face(emotion: str) -> np.ndarray:
    from core.data.demo import actors
    from core.media.faces import alignment

    take = max(
        (t for t in actors.list_takes() if t.actor == 6 and t.emotion == emotion),
        key=lambda t: t.strength,
    )
    return alignment.align(*actors.render_face(take, t=0.6))


@st.cache_resource(show_spinner=False, max_entries=12)
def _training_conditions(directory: Path) -> TrainingConditions | str:
    try:
        return conditions.of_training(cache.load_run(directory.name))
    except (ValueError, OSError) as error:
        return str(error)


def training_conditions(run_id: str) -> TrainingConditions | str:
    """The c's that a run was trained with, or in words why they are not known."""
    return _training_conditions(files.checkpoints_folder() / run_id)


@st.cache_resource(show_spinner=False, max_entries=40, scope="session")
def _guided_samples(
    directory: Path,
    x: np.ndarray,
    c: np.ndarray,
    c0: np.ndarray,
    strength: np.ndarray,
    seed: int,
    scale: float,
) -> GuidedSamples:
    return conditions.guided_samples(
        cache.load_run(directory.name), x, c, c0, strength, seed, scale
    )


@st.cache_resource(show_spinner=False, max_entries=60, scope="session")
def _to_audio(directory: Path, y: np.ndarray, seed: int) -> Audio:
    from core.inference import generation

    return generation.to_audio(cache.load_run(directory.name), y, seed)


def conditions_of_faces(run_id: str, x: np.ndarray) -> np.ndarray:
    """What a run's G is told of each of the faces (n, 28, 28): (n, K)."""
    return _conditions_of_faces(files.checkpoints_folder() / run_id, x)


@st.cache_resource(show_spinner=False, max_entries=24, scope="session")
def _conditions_of_faces(directory: Path, x: np.ndarray) -> np.ndarray:
    return conditions.of_faces(cache.load_run(directory.name), x)


def guided_samples(
    run_id: str,
    x: np.ndarray,
    c: np.ndarray,
    s: SamplingSettings,
    strength: np.ndarray | None = None,
) -> GuidedSamples:
    """One point or a whole way, in one call of G; kept for the visitor's session."""
    known, K = training_conditions(run_id), c.shape[1]
    mean = (
        known.mean
        if isinstance(known, TrainingConditions) and s.base == "mean"
        else np.full(K, 1 / max(K, 1))
    )
    along = np.full(1, s.strength) if strength is None else strength
    return _guided_samples(files.checkpoints_folder() / run_id, x, c, mean, along, s.seed, s.scale)


# ------------------------------------------------------------------ what is chosen


def _make_number_parser(most: float):
    def admit(text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            return None
        return round(value, 2) if 0 <= value <= most else None

    return admit


def _face_label(key: str) -> str:
    return (EXAMPLE_FACES | OWN_FACES)[key]


def choose_face() -> SourceFace | None:
    """The face to look at, chosen here; None while there is none. Raises ModelMissing."""
    options = [*EXAMPLE_FACES, *OWN_FACES]
    query_params.restore_widget(
        "face", "cond face", options[0], lambda k: k if k in options else None
    )
    st.selectbox(
        "Face",
        options,
        format_func=_face_label,
        key="cond face",
        on_change=query_params.save_widget,
        args=("face", "cond face"),
    )
    key = st.session_state["cond face"]
    return own_face(key) if key in OWN_FACES else example_face(key)


def own_face(key: str, asked: bool = True) -> SourceFace | None:
    """A visitor's own face; the last one where it is not `asked` for again; None while there is none. Raises ModelMissing."""
    seen = uploads.choose_face(key) if asked else uploads.last_face(key)
    return (
        SourceFace(key, uploads.safe_file_name(seen.name), seen.aligned[seen.middle], seen.notes)
        if seen
        else None
    )


def example_face(key: str) -> SourceFace:
    """A face that is always at hand. Raises ModelMissing where it has to be looked for in a picture."""
    if key in uploads.EXAMPLES:
        seen = uploads.load_example_clip(key)[1]
        return SourceFace(key, uploads.EXAMPLES[key], seen.aligned[seen.middle])
    return SourceFace(key, EXAMPLE_FACES[key], _render_demo_face(key.removeprefix("drawn-")))


def show_portrait(one: SourceFace, said: Explanation, classes: tuple[str, ...]) -> None:
    """The 28 by 28 pixels that G sees, and what the face classifier and the conformal predictor make of them."""
    left, right = st.columns([2, 3], gap="small", vertical_alignment="center")
    left.image(
        np.kron(one.x, np.ones((4, 4), np.uint8)),
        width=104,
        output_format="PNG",
        alt="the aligned face, 28 by 28 pixels",
    )
    k = said.prediction
    right.html(
        f"It looks {theme.emotion_html(classes[k])}<br>softmax <b>{said.softmax[k]:.2f}</b><br>credibility <b>{said.credibility:.2f}</b>"
    )
    if one.notes:
        st.caption(" · ".join(one.notes))


def choose_settings(conditional: bool) -> SamplingSettings:
    """Noise and, where there is a condition, guidance."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        query_params.restore_widget(
            "seed",
            "cond seed",
            0,
            lambda k: int(k) if k.isdecimal() and k.isascii() and len(k) < 10 else None,
        )
        go = {"on_change": query_params.save_widget, "args": ("seed", "cond seed")}
        seed = int(
            st.number_input(
                "Noise z: seed",
                0,
                10**9 - 1,
                key="cond seed",
                width=130,
                help="Of z and of the sound's phase.",
                **go,
            )
        )
        go = {"on_click": query_params.set_value, "args": ("seed", (seed + 1) % 10**9)}
        st.button(
            "New",
            icon=":material/casino:",
            key="cond dice",
            help="The next seed: other noise.",
            **go,
        )
    about = "z is multiplied by it. 1: as in training. 0: the same voice for every seed."
    scale = _choose_number("Noise z: scale", "z", 1.0, MAX_NOISE_SCALE, about)
    if not conditional:
        return SamplingSettings(seed, scale)
    about = "y = y(c₀) + s · (y(c) − y(c₀)). 0: c has no say. 1: as trained. Above 1: exaggerated. A straight line between outputs."
    strength = _choose_number("Guidance strength s", "strength", 1.0, MAX_GUIDANCE, about)
    about = "The neutral condition from which guidance starts: the mean of all c's in training, or 1/K for each emotion."
    base = choices.choose_one(
        "Guidance starts at c₀", "base", tuple(BASE_LABELS), "mean", BASE_LABELS.get, help=about
    )
    return SamplingSettings(seed, scale, strength, base)


def _choose_number(label: str, name: str, default: float, most: float, about: str) -> float:
    query_params.restore_widget(name, f"cond {name}", default, _make_number_parser(most))
    go = {"on_change": query_params.save_widget, "args": (name, f"cond {name}")}
    return float(st.slider(label, 0.0, most, step=0.05, key=f"cond {name}", help=about, **go))


# ------------------------------------------------------------------ the condition, by hand


def _custom_condition(K: int) -> np.ndarray | None:
    """The address' c, or the one that was set last: K numbers in [0, 1], or None."""
    text = str(st.query_params.get("c", st.session_state.get("last cond c", "")))[:200]
    try:
        values = np.array([float(part) for part in text.split(",")])
    except ValueError:
        return None
    return values if len(values) == K and bool(((values >= 0) & (values <= 1)).all()) else None


def current_condition(o: LoadedRun, said: Explanation) -> tuple[str, np.ndarray]:
    """The preset's name (`own`: set by hand) and c (K,), as the address says."""
    own, known = _custom_condition(len(o.classes)), (*conditions.NAMED_CONDITIONS, *o.classes)
    fallback = "own" if "c" in st.query_params else st.session_state.get("last cond preset", "told")
    name = st.query_params.get("preset", fallback)
    if name not in known and not (name == "own" and own is not None):
        name = "told"
    c = own if name == "own" and own is not None else conditions.by_name(o, said, name)
    st.session_state["last cond preset"] = name
    if name == "own":
        st.session_state["last cond c"] = text = ",".join(f"{v:g}" for v in c)
    wanted = {
        "preset": None if name in ("told", "own") else name,
        "c": text if name == "own" else None,
    }
    for key, value in wanted.items():
        if st.query_params.get(key) != value:
            query_params.set_value(key, value)
    return name, c


def _apply_preset() -> None:
    query_params.set_value("c", None)
    query_params.set_value("preset", st.session_state["cond preset"] or "told")


def _apply_slider(k: int, K: int, whole: bool) -> None:
    """A slider was let go: its c, with all others as they stand or, where they are to sum to one, rescaled."""
    c = np.array([st.session_state[f"cond c {j}"] for j in range(K)])
    c = conditions.rebalance(c, k, c[k]) if whole else c
    query_params.set_value("preset", None)
    query_params.set_value("c", ",".join(f"{v:.2f}".rstrip("0").rstrip(".") for v in c))


def choose_condition(
    o: LoadedRun, said: Explanation, known: TrainingConditions | str
) -> np.ndarray:
    """Presets, a slider for each emotion, and whether training has shown such a c. Gives c (K,)."""
    classes, kind = o.classes, o.config.gan.condition
    name, c = current_condition(o, said)
    st.session_state["cond preset"] = None if name == "own" else name
    options, shown = (
        [*conditions.NAMED_CONDITIONS[:3], *classes, *conditions.NAMED_CONDITIONS[3:]],
        lambda k: NAMED_CONDITION_LABELS.get(k, k),
    )
    st.pills(
        "What G is told",
        options,
        format_func=shown,
        key="cond preset",
        on_change=_apply_preset,
        wrap=True,
    )
    whole = False
    if kind != "cp":
        query_params.restore_widget("sum", "cond sum", True, {"True": True, "False": False}.get)
        about, go = (
            "Move one, and the others give way in proportion.",
            {"on_change": query_params.save_widget, "args": ("sum", "cond sum")},
        )
        whole = st.toggle("Keep the sum at 1", key="cond sum", help=about, **go)
    tints = "".join(
        f".st-key-cond-c-{k} label p::before {{content: '● '; color: {theme.emotion_colour(e)}}}"
        for k, e in enumerate(classes)
    )
    st.html(f"<style>{tints}</style>")
    halves = [column.container(gap=None) for column in st.columns(2, gap="medium")]
    for k, column in zip(range(len(classes)), halves * len(classes)):
        st.session_state[f"cond c {k}"] = round(float(c[k]), 2)
        go = {"on_change": _apply_slider, "args": (k, len(classes), whole)}
        column.slider(classes[k], 0.0, 1.0, step=0.01, key=f"cond c {k}", **go)
    if isinstance(known, str):
        st.caption(f"What training has shown is not known, so guidance starts at uniform: {known}")
    else:
        st.markdown(support_text(conditions.training_support(known, c), known, classes))
    return c


REGION_TEXTS = {
    "inside": ":green[:material/check_circle: **As in training.**]",
    "edge": ":orange[:material/warning: **At the edge of training.**]",
    "outside": ":red[:material/error: **Outside of training:** G has never been told anything like it.]",
}


def support_text(f: TrainingSupport, known: TrainingConditions, classes: tuple[str, ...]) -> str:
    """Whether training has shown such a c, in words."""
    said = [
        f"{REGION_TEXTS[f.place]} The nearest c that it saw is {f.distance:.2f} away; 95 % of those have one within {f.typical_distance:.2f}."
    ]
    if f.emotions_beyond:
        said.append(f"Beyond its range: {', '.join(classes[k] for k in f.emotions_beyond)}.")
    low, high = known.total
    seen = f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"
    said.append(
        f"Sum of c: **{f.total:.2f}**"
        + (f", in training {seen}." if f.is_total_beyond or high - low >= 0.005 else ".")
    )
    return ":small[" + " ".join(said) + "]"


# ------------------------------------------------------------------ one condition


def show_one_condition(
    o: LoadedRun, one: SourceFace, said: Explanation, s: SamplingSettings
) -> None:
    """The sliders at the left; at the right spectrogram, verdicts and sound."""
    known = training_conditions(o.run.id)
    left, right = st.columns([5, 6], gap="medium")
    with left:
        if o.config.gan.condition == "none":
            st.info(
                "This generator is told nothing: it has the face and noise alone. Try another seed.",
                icon=":material/info:",
            )
            c = np.zeros(0)
        else:
            c = choose_condition(o, said, known)
    d = guided_samples(o.run.id, one.x[None], c[None], s)
    with right:
        logmel, look = o.config.logmel, "drawn"
        if len(c):
            looks = {"drawn": "Spectrogram", "change": "What c changes"}
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                look = choices.choose_one(
                    "Look at",
                    "show",
                    tuple(looks),
                    "drawn",
                    looks.get,
                    label_visibility="collapsed",
                )
                show_autoplay_toggle()
        if look == "drawn":
            spectrogram.show_canvas(
                d.y[0], o.ref_db, logmel, "cond drawn", "the generated spectrogram", 180
            )
        else:
            figure = charts.spectrogram_differences(
                {"y − y(c₀)": (d.y[0] - d.base[0]) * logmel.range_db / 2}, logmel
            )
            st.plotly_chart(
                figure,
                key="cond change",
                config=charts.NO_TOOLBAR_CONFIG,
                alt="what c changes in the spectrogram",
            )
        sounding = st.container()  # between the charts, filled when both are there: they go first
        figure = strips.condition_and_verdicts(
            o.classes,
            c,
            known if isinstance(known, TrainingConditions) else None,
            d.Q[0],
            d.scorer[0],
            210,
        )
        st.plotly_chart(
            figure,
            key="cond told",
            config=charts.NO_TOOLBAR_CONFIG,
            alt="what the generator is told, and what Q and the scorer hear",
        )
        with sounding:
            show_player(o, d.y[0], s)
        text = f"condition-{o.config.name}-{s.seed}"
        with st.container(horizontal=True, gap="small"):
            more = {"icon": ":material/download:", "on_click": "ignore"}
            st.download_button(
                "wav",
                lambda: to_audio(o, d.y[0], s).wav,
                f"{text}.wav",
                "audio/wav",
                key="cond wav",
                **more,
            )
            about = "Face, c, spectrogram, y(c₀) and both verdicts as numbers."
            st.download_button(
                "npz",
                lambda: npz_bytes(d),
                f"{text}.npz",
                "application/octet-stream",
                key="cond npz",
                help=about,
                **more,
            )


def to_audio(o: LoadedRun, y: np.ndarray, s: SamplingSettings) -> Audio:
    return _to_audio(files.checkpoints_folder() / o.run.id, y, s.seed)


def show_autoplay_toggle() -> None:
    st.toggle(
        "Play at once",
        key="cond autoplay",
        persist_state="session",
        help="Whenever something changes.",
    )


def show_player(o: LoadedRun, y: np.ndarray, s: SamplingSettings) -> None:
    st.audio(
        to_audio(o, y, s).wav,
        "audio/wav",
        autoplay=bool(st.session_state.get("cond autoplay")),
        alt="the generated voice",
    )


def npz_bytes(d: GuidedSamples) -> bytes:
    """A way's arrays as npz."""
    file = io.BytesIO()
    np.savez_compressed(file, **vars(d))
    return file.getvalue()
