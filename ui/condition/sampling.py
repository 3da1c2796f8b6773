"""The condition lab's inputs: face, noise and guidance, kept in the URL; and the samples of G."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core.config.settings import CREMA_EMOTIONS, Config
from core.conformal import credibility, predictor
from core.inference import conditions
from core.inference.conditions import GuidedSamples, TrainingConditions
from ui import theme
from ui.session import cache, query_params
from ui.session.cache import cache_by_run
from ui.widgets import choices, players, uploads

if TYPE_CHECKING:
    from core.inference.generation import Audio, Explanation, LoadedRun

EXAMPLE_FACES = uploads.EXAMPLES | {
    f"drawn-{k}": f"Drawn face, {k} (invented)" for k in CREMA_EMOTIONS
}
OWN_FACES = {"upload": "Upload …", "webcam": "Webcam …"}
BASE_LABELS = {"mean": "Mean of training", "uniform": "Uniform"}  # where guidance starts
MAX_GUIDANCE, MAX_NOISE_SCALE = 4.0, 1.5  # highest guidance strength s, highest factor of z
MAX_SEED = 10**9 - 1

ABOUT = """The generator G takes a face, noise z and a **condition c**: one number for each
emotion. On this page you set c yourself.

**The sliders** are c. *As trained* is what this run's G is told of this face: a label, the face
classifier's softmax, or the conformal p-values. The bars beside them show the range of c in
training. G accepts any c, but its answer means something only near those of training; the line
under the sliders tells how far away yours is. p-values do not sum to one, labels and a softmax do.

**z** is everything else that differs between two voices. The seed chooses it, the scale multiplies
it: 0 gives one typical voice, above 1 rare ones.

**Guidance of a GAN** goes from a neutral output y(c₀) through y(c) and beyond:
y = y(c₀) + s · (y(c) − y(c₀)), cut to [−1, 1]. At s = 0 c has no effect, at 1 it is G as trained,
above 1 the effect of c is exaggerated. This is a straight line between *outputs*. It is not
classifier-free guidance, for which a generator is trained both with and without its condition;
a GAN's always had one.

**Guidance of a flow** is classifier-free: in a tenth of its training a flow was told neither face
nor condition. On the whole way from noise to voice it moves with v₀ + w · (v(x, c) − v₀), where v₀
is its velocity when told nothing. At w = 0 neither face nor c has an effect, at 1 it is the flow as
trained, above 1 both count for more.

**The judge and Q** are two classifiers of real voices. Q was G's teacher, so G has learnt to please
it; the judge (the scorer of FID and IS) never met G. Trust the judge more.

**The other views** draw all steps between two ends at once. Drag the slider or press play; the
sound below is that of the step you stop at."""


@dataclass(frozen=True)
class SourceFace:
    """The face that G gets."""

    key: str  # of EXAMPLE_FACES or OWN_FACES, or uploads.LAST
    name: str
    x: np.ndarray  # (28, 28) uint8
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SamplingSettings:
    """Noise and guidance of a sample."""

    seed: int = 0
    scale: float = 1.0  # factor of z
    strength: float = 1.0  # guidance strength s; w of a flow
    base: str = "mean"  # c0, one of BASE_LABELS


# ------------------------------------------------------------------ samples


@cache_by_run(12)
def training_conditions(directory: Path) -> TrainingConditions | str:
    """The conditions that a run was trained with, or why they are not known."""
    try:
        return conditions.of_training(cache.load_run(directory.name))
    except (ValueError, OSError) as error:
        return str(error)


@cache_by_run(24, scope="session")
def conditions_of_faces(directory: Path, x: np.ndarray) -> np.ndarray:
    """A run's conditions (n, K) of the faces (n, 28, 28)."""
    return conditions.of_faces(cache.load_run(directory.name), x)


@cache_by_run(40, scope="session")
def _guided_samples(directory: Path, *args) -> GuidedSamples:
    return conditions.guided_samples(cache.load_run(directory.name), *args)


def guided_samples(
    run_id: str,
    x: np.ndarray,
    c: np.ndarray,
    s: SamplingSettings,
    strength: np.ndarray | None = None,
) -> GuidedSamples:
    """One sample or a whole path in one call of G; `strength` replaces that of the settings."""
    known, K = training_conditions(run_id), c.shape[1]
    if isinstance(known, TrainingConditions) and s.base == "mean":
        c0 = known.mean
    else:
        c0 = np.full(K, 1 / max(K, 1))
    along = np.full(1, s.strength) if strength is None else strength
    return _guided_samples(run_id, x, c, c0, along, s.seed, s.scale)


@cache_by_run(60, scope="session")
def _to_audio(directory: Path, y: np.ndarray, seed: int) -> Audio:
    from core.inference import generation

    return generation.to_audio(cache.load_run(directory.name), y, seed)


def to_audio(o: LoadedRun, y: np.ndarray, s: SamplingSettings) -> Audio:
    return _to_audio(o.run.id, y, s.seed)


def npz_bytes(d: GuidedSamples) -> bytes:
    """The arrays of samples as npz."""
    file = io.BytesIO()
    np.savez_compressed(file, **vars(d))
    return file.getvalue()


def show_autoplay_toggle() -> None:
    more = {"persist_state": "session", "help": "Plays the sound after every change."}
    st.toggle("Play at once", key="cond autoplay", **more)


def show_player(o: LoadedRun, y: np.ndarray, s: SamplingSettings) -> None:
    autoplay = bool(st.session_state.get("cond autoplay"))
    wav = to_audio(o, y, s).wav
    st.audio(wav, "audio/wav", autoplay=autoplay, alt="the generated voice")


# ------------------------------------------------------------------ the face


def choose_face() -> SourceFace | None:
    """The chosen face; None while there is none. Raises ModelMissing."""
    options = EXAMPLE_FACES | last_choice() | OWN_FACES
    key = st.selectbox("Face", **choices.option_args("face", "cond face", options, "astronaut"))
    return example_face(key) if key in EXAMPLE_FACES else own_face(key)


def last_choice() -> dict[str, str]:
    """The clip that was given last, on whatever page, as an option of a face."""
    return {uploads.LAST: uploads.LAST_LABEL} if uploads.last_clip() else {}


def own_face(key: str, ask: bool = True) -> SourceFace | None:
    """A visitor's own face; without `ask` the last one. None while there is none.

    Raises ModelMissing.
    """
    seen = uploads.choose_face(key) if ask else uploads.last_face(key)
    if seen is None:
        return None
    name = uploads.safe_file_name(seen.name)
    return SourceFace(key, name, seen.aligned[seen.middle], seen.notes)


def example_face(key: str) -> SourceFace:
    """A shipped face. Raises ModelMissing where it has to be found in a picture."""
    if key in uploads.EXAMPLES:
        seen = uploads.load_example_clip(key)[1]
        return SourceFace(key, uploads.EXAMPLES[key], seen.aligned[seen.middle])
    return SourceFace(key, EXAMPLE_FACES[key], _render_demo_face(key.removeprefix("drawn-")))


@st.cache_resource(show_spinner=False, max_entries=16)
def _render_demo_face(emotion: str) -> np.ndarray:
    from core.data.demo import actors, expressions
    from core.media.faces import alignment

    takes = [t for t in actors.list_takes() if t.actor == 6 and t.emotion == emotion]
    return alignment.align(*expressions.render_face(max(takes, key=lambda t: t.strength), t=0.6))


def show_portrait(one: SourceFace, explanation: Explanation, o: LoadedRun) -> None:
    """The 28 by 28 pixels that G gets, and the face classifier's and conformal verdict."""
    classes = o.classes
    left, right = st.columns([2, 3], gap="small", vertical_alignment="center")
    with left:
        players.show_pixels(one.x, 4, 104)
    k = explanation.prediction
    lines = [
        f"It looks {theme.emotion_html(classes[k])}",
        f"softmax <b>{explanation.softmax[k]:.2f}</b>",
        f"credibility <b>{explanation.credibility:.2f}</b>",
    ]
    right.html("<br>".join(lines))
    sure = credibility.describe(o.credibility, explanation.credibility)
    about = f"{credibility.MEANING} {predictor.describe(o.predictor)}"
    st.caption(f"Credibility {sure}.", help=about)
    if one.notes:
        st.caption(" · ".join(one.notes))


# ------------------------------------------------------------------ noise and guidance


def choose_settings(config: Config) -> SamplingSettings:
    """Noise and, where there is a condition, guidance."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        args = choices.integer_args("seed", "cond seed", 0, 0, MAX_SEED)
        about = "Random seed of z and of the sound's phase."
        seed = int(st.number_input("Noise z: seed", width=130, help=about, **args))
        go = {"on_click": query_params.set_value, "args": ("seed", (seed + 1) % (MAX_SEED + 1))}
        more = {"key": "cond dice", "help": "The next seed: other noise."}
        st.button("New", icon=":material/casino:", **more, **go)
    about = "z is multiplied by it. 1: as in training. 0: the same voice for every seed."
    scale = _choose_number("Noise z: scale", "z", 1.0, MAX_NOISE_SCALE, about)
    own = conditions.own_strength(config)
    if config.gan.condition == "none":
        return SamplingSettings(seed, scale, own)
    if conditions.has_classifier_free_guidance(config):
        about = (
            "Classifier-free guidance: v = v₀ + w · (v(x, c) − v₀). 0: face and c have no effect. "
            f"1: as trained. This run's own voices have w = {own:g}."
        )
        weight = _choose_number("Guidance weight w", "weight", own, MAX_GUIDANCE, about)
        return SamplingSettings(seed, scale, weight)
    about = (
        "y = y(c₀) + s · (y(c) − y(c₀)). 0: c has no effect. 1: as trained. Above 1: exaggerated. "
        "A straight line between outputs."
    )
    strength = _choose_number("Guidance strength s", "strength", 1.0, MAX_GUIDANCE, about)
    about = (
        "The neutral condition from which guidance starts: the mean of all c's in training, or 1/K "
        "for each emotion."
    )
    options, label = tuple(BASE_LABELS), "Guidance starts at c₀"
    base = choices.choose_one(label, "base", options, "mean", BASE_LABELS.get, help=about)
    return SamplingSettings(seed, scale, strength, base)


def _choose_number(label: str, name: str, default: float, most: float, about: str) -> float:
    def admit(text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            return None
        return round(value, 2) if 0 <= value <= most else None

    args = query_params.bind_widget(name, f"cond {name}", default, admit)
    return float(st.slider(label, 0.0, most, step=0.05, help=about, **args))
