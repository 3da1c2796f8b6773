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
from core.inference.conditions import Drawn, Familiarity, Training
from ui import theme
from ui.condition import figures as strips
from ui.session import cache, query_params
from ui.widgets import charts, choices, spectrogram, uploads

if TYPE_CHECKING:
    from core.inference.generation import Explanation, Opened, Sound

FACES = uploads.EXAMPLES | {f"drawn-{k}": f"Drawn face, {k} (invented)" for k in CREMA_EMOTIONS}
OWN = {"upload": "Upload …", "webcam": "Webcam …"}
VIEWS = {"point": "One condition", "emotions": "Between two emotions", "faces": "Between two faces", "strength": "Along the guidance"}
NAMES = {
    "told": "As trained",
    "softmax": "Softmax",
    "p": "p-values",
    "uniform": "Uniform",
    "none": "Nothing",
}  # of presets
BASES = {"mean": "Mean of training", "uniform": "Uniform"}
POINTS, LEAST, MOST = 12, 8, 16  # of a way
STRONGEST, LARGEST = 4.0, 1.5  # guidance, scale of the noise

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
class Face:
    """What is looked at."""

    key: str  # of FACES or OWN
    name: str
    x: np.ndarray  # (28, 28) uint8
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """How it is drawn."""

    seed: int = 0
    scale: float = 1.0
    strength: float = 1.0
    base: str = "mean"


# ------------------------------------------------------------------ cached


def opened(run_id: str) -> Opened:
    """A finished run's networks. Raises ValueError that names the file at fault."""
    try:
        return cache.opened(run_id)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{run_id}/outputs.npz is damaged ({error}): restore the file, or train the run again") from error


@st.cache_resource(show_spinner=False, max_entries=16)
def _drawn_face(emotion: str) -> np.ndarray:
    from core.data.demo import actors
    from core.media import faces

    take = max((t for t in actors.takes() if t.actor == 6 and t.emotion == emotion), key=lambda t: t.strength)
    return faces.align(*actors.face(take, t=0.6))


@st.cache_resource(show_spinner=False, max_entries=12)
def _training(directory: Path) -> Training | str:
    try:
        return conditions.training(cache.opened(directory.name))
    except (ValueError, OSError) as error:
        return str(error)


def training(run_id: str) -> Training | str:
    """The c's that a run was trained with, or in words why they are not known."""
    return _training(files.checkpoints() / run_id)


@st.cache_resource(show_spinner=False, max_entries=40, scope="session")
def _drawn(directory: Path, x: np.ndarray, c: np.ndarray, c0: np.ndarray, strength: np.ndarray, seed: int, scale: float) -> Drawn:
    return conditions.draw(cache.opened(directory.name), x, c, c0, strength, seed, scale)


@st.cache_resource(show_spinner=False, max_entries=60, scope="session")
def _sound(directory: Path, y: np.ndarray, seed: int) -> Sound:
    from core.inference import generation

    return generation.sound(cache.opened(directory.name), y, seed)


def told(run_id: str, x: np.ndarray) -> np.ndarray:
    """What a run's G is told of each of the faces (n, 28, 28): (n, K)."""
    return _told(files.checkpoints() / run_id, x)


@st.cache_resource(show_spinner=False, max_entries=24, scope="session")
def _told(directory: Path, x: np.ndarray) -> np.ndarray:
    return conditions.told(cache.opened(directory.name), x)


def draw(run_id: str, x: np.ndarray, c: np.ndarray, s: Setting, strength: np.ndarray | None = None) -> Drawn:
    """One point or a whole way, in one call of G; kept for the visitor's session."""
    known, K = training(run_id), c.shape[1]
    mean = known.mean if isinstance(known, Training) and s.base == "mean" else np.full(K, 1 / max(K, 1))
    along = np.full(1, s.strength) if strength is None else strength
    return _drawn(files.checkpoints() / run_id, x, c, mean, along, s.seed, s.scale)


# ------------------------------------------------------------------ what is chosen


def _number(most: float):
    def admit(text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            return None
        return round(value, 2) if 0 <= value <= most else None

    return admit


def _shown(key: str) -> str:
    return (FACES | OWN)[key]


def face() -> Face | None:
    """The face to look at, chosen here; None while there is none. Raises ModelMissing."""
    options = [*FACES, *OWN]
    query_params.follow("face", "cond face", options[0], lambda k: k if k in options else None)
    st.selectbox("Face", options, format_func=_shown, key="cond face", on_change=query_params.keep, args=("face", "cond face"))
    key = st.session_state["cond face"]
    return given(key) if key in OWN else example(key)


def given(key: str, asked: bool = True) -> Face | None:
    """A visitor's own face; the last one where it is not `asked` for again; None while there is none. Raises ModelMissing."""
    seen = uploads.face(key) if asked else uploads.last_face(key)
    return Face(key, uploads.plain(seen.name), seen.aligned[seen.middle], seen.notes) if seen else None


def example(key: str) -> Face:
    """A face that is always at hand. Raises ModelMissing where it has to be looked for in a picture."""
    if key in uploads.EXAMPLES:
        seen = uploads.example(key)[1]
        return Face(key, uploads.EXAMPLES[key], seen.aligned[seen.middle])
    return Face(key, FACES[key], _drawn_face(key.removeprefix("drawn-")))


def portrait(one: Face, said: Explanation, classes: tuple[str, ...]) -> None:
    """The 28 by 28 pixels that G sees, and what the face classifier and the conformal predictor make of them."""
    left, right = st.columns([2, 3], gap="small", vertical_alignment="center")
    left.image(np.kron(one.x, np.ones((4, 4), np.uint8)), width=104, output_format="PNG", alt="the aligned face, 28 by 28 pixels")
    k = said.prediction
    right.html(f"It looks {theme.dot(classes[k])}<br>softmax <b>{said.softmax[k]:.2f}</b><br>credibility <b>{said.credibility:.2f}</b>")
    if one.notes:
        st.caption(" · ".join(one.notes))


def settings(conditional: bool) -> Setting:
    """Noise and, where there is a condition, guidance."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        query_params.follow("seed", "cond seed", 0, lambda k: int(k) if k.isdecimal() and k.isascii() and len(k) < 10 else None)
        go = {"on_change": query_params.keep, "args": ("seed", "cond seed")}
        seed = int(st.number_input("Noise z: seed", 0, 10**9 - 1, key="cond seed", width=130, help="Of z and of the sound's phase.", **go))
        go = {"on_click": query_params.write, "args": ("seed", (seed + 1) % 10**9)}
        st.button("New", icon=":material/casino:", key="cond dice", help="The next seed: other noise.", **go)
    about = "z is multiplied by it. 1: as in training. 0: the same voice for every seed."
    scale = _slider("Noise z: scale", "z", 1.0, LARGEST, about)
    if not conditional:
        return Setting(seed, scale)
    about = "y = y(c₀) + s · (y(c) − y(c₀)). 0: c has no say. 1: as trained. Above 1: exaggerated. A straight line between outputs."
    strength = _slider("Guidance strength s", "strength", 1.0, STRONGEST, about)
    about = "The neutral condition from which guidance starts: the mean of all c's in training, or 1/K for each emotion."
    base = choices.chosen("Guidance starts at c₀", "base", tuple(BASES), "mean", BASES.get, help=about)
    return Setting(seed, scale, strength, base)


def _slider(label: str, name: str, default: float, most: float, about: str) -> float:
    query_params.follow(name, f"cond {name}", default, _number(most))
    go = {"on_change": query_params.keep, "args": (name, f"cond {name}")}
    return float(st.slider(label, 0.0, most, step=0.05, key=f"cond {name}", help=about, **go))


# ------------------------------------------------------------------ the condition, by hand


def _by_hand(K: int) -> np.ndarray | None:
    """The address' c, or the one that was set last: K numbers in [0, 1], or None."""
    text = str(st.query_params.get("c", st.session_state.get("last cond c", "")))[:200]
    try:
        values = np.array([float(part) for part in text.split(",")])
    except ValueError:
        return None
    return values if len(values) == K and bool(((values >= 0) & (values <= 1)).all()) else None


def condition(o: Opened, said: Explanation) -> tuple[str, np.ndarray]:
    """The preset's name (`own`: set by hand) and c (K,), as the address says."""
    own, known = _by_hand(len(o.classes)), (*conditions.PRESETS, *o.classes)
    fallback = "own" if "c" in st.query_params else st.session_state.get("last cond preset", "told")
    name = st.query_params.get("preset", fallback)
    if name not in known and not (name == "own" and own is not None):
        name = "told"
    c = own if name == "own" and own is not None else conditions.preset(o, said, name)
    st.session_state["last cond preset"] = name
    if name == "own":
        st.session_state["last cond c"] = text = ",".join(f"{v:g}" for v in c)
    wanted = {"preset": None if name in ("told", "own") else name, "c": text if name == "own" else None}
    for key, value in wanted.items():
        if st.query_params.get(key) != value:
            query_params.write(key, value)
    return name, c


def _preset() -> None:
    query_params.write("c", None)
    query_params.write("preset", st.session_state["cond preset"] or "told")


def _moved(k: int, K: int, whole: bool) -> None:
    """A slider was let go: its c, with all others as they stand or, where they are to sum to one, rescaled."""
    c = np.array([st.session_state[f"cond c {j}"] for j in range(K)])
    c = conditions.rebalanced(c, k, c[k]) if whole else c
    query_params.write("preset", None)
    query_params.write("c", ",".join(f"{v:.2f}".rstrip("0").rstrip(".") for v in c))


def sliders(o: Opened, said: Explanation, known: Training | str) -> np.ndarray:
    """Presets, a slider for each emotion, and whether training has shown such a c. Gives c (K,)."""
    classes, kind = o.classes, o.config.gan.condition
    name, c = condition(o, said)
    st.session_state["cond preset"] = None if name == "own" else name
    options, shown = [*conditions.PRESETS[:3], *classes, *conditions.PRESETS[3:]], lambda k: NAMES.get(k, k)
    st.pills("What G is told", options, format_func=shown, key="cond preset", on_change=_preset, wrap=True)
    whole = False
    if kind != "cp":
        query_params.follow("sum", "cond sum", True, {"True": True, "False": False}.get)
        about, go = "Move one, and the others give way in proportion.", {"on_change": query_params.keep, "args": ("sum", "cond sum")}
        whole = st.toggle("Keep the sum at 1", key="cond sum", help=about, **go)
    tints = "".join(f".st-key-cond-c-{k} label p::before {{content: '● '; color: {theme.colour(e)}}}" for k, e in enumerate(classes))
    st.html(f"<style>{tints}</style>")
    halves = [column.container(gap=None) for column in st.columns(2, gap="medium")]
    for k, column in zip(range(len(classes)), halves * len(classes)):
        st.session_state[f"cond c {k}"] = round(float(c[k]), 2)
        go = {"on_change": _moved, "args": (k, len(classes), whole)}
        column.slider(classes[k], 0.0, 1.0, step=0.01, key=f"cond c {k}", **go)
    if isinstance(known, str):
        st.caption(f"What training has shown is not known, so guidance starts at uniform: {known}")
    else:
        st.markdown(familiar(conditions.familiarity(known, c), known, classes))
    return c


PLACES = {
    "inside": ":green[:material/check_circle: **As in training.**]",
    "edge": ":orange[:material/warning: **At the edge of training.**]",
    "outside": ":red[:material/error: **Outside of training:** G has never been told anything like it.]",
}


def familiar(f: Familiarity, known: Training, classes: tuple[str, ...]) -> str:
    """Whether training has shown such a c, in words."""
    said = [f"{PLACES[f.place]} The nearest c that it saw is {f.distance:.2f} away; 95 % of those have one within {f.usual:.2f}."]
    if f.beyond:
        said.append(f"Beyond its range: {', '.join(classes[k] for k in f.beyond)}.")
    low, high = known.total
    seen = f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"
    said.append(f"Sum of c: **{f.total:.2f}**" + (f", in training {seen}." if f.total_beyond or high - low >= 0.005 else "."))
    return ":small[" + " ".join(said) + "]"


# ------------------------------------------------------------------ one condition


def point(o: Opened, one: Face, said: Explanation, s: Setting) -> None:
    """The sliders at the left; at the right spectrogram, verdicts and sound."""
    known = training(o.run.id)
    left, right = st.columns([5, 6], gap="medium")
    with left:
        if o.config.gan.condition == "none":
            st.info("This generator is told nothing: it has the face and noise alone. Try another seed.", icon=":material/info:")
            c = np.zeros(0)
        else:
            c = sliders(o, said, known)
    d = draw(o.run.id, one.x[None], c[None], s)
    with right:
        logmel, look = o.config.logmel, "drawn"
        if len(c):
            looks = {"drawn": "Spectrogram", "change": "What c changes"}
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                look = choices.chosen("Look at", "show", tuple(looks), "drawn", looks.get, label_visibility="collapsed")
                at_once()
        if look == "drawn":
            spectrogram.show(d.y[0], o.ref_db, logmel, "cond drawn", "the generated spectrogram", 180)
        else:
            figure = charts.differences({"y − y(c₀)": (d.y[0] - d.base[0]) * logmel.range_db / 2}, logmel)
            st.plotly_chart(figure, key="cond change", config=charts.STILL, alt="what c changes in the spectrogram")
        sounding = st.container()  # between the charts, filled when both are there: they go first
        figure = strips.told(o.classes, c, known if isinstance(known, Training) else None, d.Q[0], d.scorer[0], 210)
        st.plotly_chart(figure, key="cond told", config=charts.STILL, alt="what the generator is told, and what Q and the scorer hear")
        with sounding:
            play(o, d.y[0], s)
        text = f"condition-{o.config.name}-{s.seed}"
        with st.container(horizontal=True, gap="small"):
            more = {"icon": ":material/download:", "on_click": "ignore"}
            st.download_button("wav", lambda: sound(o, d.y[0], s).wav, f"{text}.wav", "audio/wav", key="cond wav", **more)
            about = "Face, c, spectrogram, y(c₀) and both verdicts as numbers."
            st.download_button("npz", lambda: packed(d), f"{text}.npz", "application/octet-stream", key="cond npz", help=about, **more)


def sound(o: Opened, y: np.ndarray, s: Setting) -> Sound:
    return _sound(files.checkpoints() / o.run.id, y, s.seed)


def at_once() -> None:
    st.toggle("Play at once", key="cond autoplay", persist_state="session", help="Whenever something changes.")


def play(o: Opened, y: np.ndarray, s: Setting) -> None:
    st.audio(sound(o, y, s).wav, "audio/wav", autoplay=bool(st.session_state.get("cond autoplay")), alt="the generated voice")


def packed(d: Drawn) -> bytes:
    """A way's arrays as npz."""
    file = io.BytesIO()
    np.savez_compressed(file, **vars(d))
    return file.getvalue()
