"""The page Reverse (§4.5, Fig. 7b): a voice, the faces that a run draws for it, and their files."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core import files
from core.config.settings import Config
from core.files import UserError
from core.media import spectrograms, waveforms
from core.runs.directory import Run
from ui import theme
from ui.session import cache, images
from ui.session.cache import cache_by_run
from ui.widgets import players

if TYPE_CHECKING:
    from core.inference.generation import Explanation

FACES_PER_ROW = 6  # faces in a row where one emotion is told
PICTURE_SCALE = 10  # pixels of a downloaded picture for one pixel of a face
MIN_AUDIBLE_PEAK = 1e-4  # peak amplitude (full scale is 1) below which a sound counts as silent
TRAIN_COMMAND = (
    "python -m core train --preset demo --name demo-reverse "
    "--gan.direction voice-face --gan.condition label --gan.l1 0"
)
ABOUT = """**The other direction.** On the other pages a face becomes a voice. Here source and
target change places, and everything else stays the same: one second of voice (a spectrogram), noise
z and a condition c go into the generator, and a 28×28 face comes out (§4.5, Fig. 7b).

**Supervised.** The paper tries this direction with the emotion's *label* alone (§4.5, §4.7), so the
generator was told the true emotion of every voice in training. Here you tell it: the voice
classifier's first choice, an emotion of your own, or all of them side by side. Tell it one that the
voice does not have, and see which of the two the face follows.

**What is fixed, what varies.** Each face names the emotion that was told and its seed, which is the
noise z. Below it a face classifier (the judge: trained on real faces, it never met G)
names the emotion that it sees, with ✓ or ✕ for whether it was told.

**Nobody's face.** A voice does not tell what its speaker looks like, and nothing here tries to find
out: the face belongs to no one."""


@dataclass(frozen=True)
class SourceVoice:
    """One second of voice, as a run's networks get it."""

    name: str  # name of the clip, safe to show
    y: np.ndarray  # (columns, bands) in [-1, 1]
    wav: bytes  # that second
    emotion: str = ""  # the clip's emotion; "" if unknown
    face: np.ndarray | None = None  # (28, 28) uint8, the same clip's own
    gain: float = 0.0  # dB applied, so that its level is the corpus'
    of: int = 0  # number of examples of this emotion
    again: bool = False  # whether the sound was inverted from the spectrogram


@dataclass(frozen=True)
class GeneratedFace:
    """One generated face."""

    told: str  # the emotion with the highest c; "" for a generator that is told nothing
    seed: int
    x: np.ndarray  # (28, 28) uint8
    o: np.ndarray  # (K,) the scorer's softmax

    def right(self, classes: Sequence[str]) -> bool:
        return classes[int(self.o.argmax())] == self.told


# ------------------------------------------------------------------ runs


def list_runs() -> tuple[dict[str, dict], list[dict]]:
    """Runs of this direction: the finished ones by id, shipped ones first; and all others."""
    rows = [r for r in cache.run_rows() if _is_reverse_run(files.checkpoints_folder() / r["run"])]
    finished = (r for r in rows if r["state"] == "done" and not r["archived"])
    done = sorted(finished, key=lambda r: not r["shipped"])
    return {r["run"]: r for r in done}, [r for r in rows if r["state"] != "done"]


@st.cache_data(show_spinner=False, max_entries=500)
def _is_reverse_run(directory: Path) -> bool:
    """Whether a run generates faces; cached, as a run's configuration is never edited."""
    try:
        return Run(directory).config.gan.direction == "voice-face"
    except UserError:
        return False


def run_label(row: dict) -> str:
    """A finished run in the list of runs."""
    origin = "shipped" if row["shipped"] else f"{row['condition']} {row['run'].rsplit('-', 1)[-1]}"
    return f"Run: {row['name']} · {origin}"


def show_no_run() -> None:
    """Advice for when no run of this direction is finished."""
    words = "**There is no trained run from voices to faces yet.**"
    more = "Train one on the demo corpus, with no download."
    st.info(f"{words} {more}", icon=":material/swap_horiz:")
    st.caption(
        "In a terminal, in the project's folder; its progress is shown there and on *Train*, where "
        "it can be stopped and resumed:"
    )
    st.code(TRAIN_COMMAND, language="bash", wrap_lines=True)
    words = "Or on Train: under *All other settings*, Direction *voice-face* and weight of L1 *0*"
    link = {"icon": ":material/model_training:"}
    link["query_params"] = {"preset": "demo", "condition": "label"}
    st.page_link("pages/train.py", label=words, **link)


def show_unfinished_runs(others: Sequence[dict]) -> None:
    """Unfinished runs of this direction, each with its state and a link to it."""
    for row in others:
        state = row["state"]
        failed = state == "failed" and row["error"]
        reason = f": {theme.escape_markdown(row['error'])}" if failed else ""
        step = f"step {row['step'] or 0:,} of {row['steps'] or 0:,}"
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            badge = f":{theme.STATE_COLOURS[state]}-badge[**{state}**]"
            st.markdown(f"{badge} `{row['run']}` · {step}{reason}", width="stretch")
            where = "Back to it" if state in cache.LIVE_STATES else "Resume it on Train"
            link = {"icon": ":material/monitoring:", "query_params": {"run": row["run"]}}
            st.page_link("pages/train.py", label=where, **link)


# ------------------------------------------------------------------ the voice


@cache_by_run(64, "Preparing the voice …")
def load_example_voice(directory: Path, emotion: str, number: int) -> SourceVoice:
    """A voice of S4, the same for all visitors. Raises UserError where there is none."""
    from core.inference import examples
    from core.media import vocoder

    run = Run(directory)
    one, s = examples.load_voice_example(run, emotion, number), run.config.logmel
    wave, comment = one.wave, "a recording's middle, invented"
    if wave is None:
        wave = vocoder.to_waveform(one.y, run.json("corpus")["voices"]["ref_db"], s)[0]
        comment = spectrograms.RESYNTHESIS_COMMENT
    wav, name = _middle_wav(wave, run.config, comment), one.name or f"voice {one.number + 1}"
    origin = {"of": one.of, "again": one.wave is None}
    return SourceVoice(name, one.y, wav, emotion, one.face, **origin)


@cache_by_run(8, scope="session")
def load_visitor_voice(
    directory: Path, name: str, wave: np.ndarray, at: float = 0.0
) -> SourceVoice | str:
    """A visitor's sound around the moment `at` (s; 0: its middle), or why there is no voice."""
    from core.inference import generation

    run = cache.load_run(directory.name)
    rate, centre = run.config.logmel.rate, len(wave) / 2
    if at:
        centre = min(max(at * rate, 1.0), len(wave) - 1.0)
    half = int(min(centre, len(wave) - centre))
    part = wave[int(centre) - half : int(centre) + half]  # the chosen moment is its middle
    wav = _middle_wav(part, run.config, "a visitor's recording, its middle")
    peak = np.abs(_middle_second(part, run.config)).max(initial=0)
    if len(part) < rate // 10 or peak < MIN_AUDIBLE_PEAK:
        return (
            f"{name} is silent there, or too short: there is no voice to draw a face for. "
            "Choose another moment, or record it again."
        )
    y, gain = generation.voice_spectrogram(run, part)
    return SourceVoice(name, y, wav, gain=gain)


def _middle_second(wave: np.ndarray, config: Config) -> np.ndarray:
    half, middle = config.logmel.columns * config.logmel.hop // 2, len(wave) // 2
    return wave[max(0, middle - half) : middle + half]


def _middle_wav(wave: np.ndarray, config: Config, comment: str) -> bytes:
    """The part of a sound's middle that a spectrogram shows, as WAV."""
    return waveforms.crop_to_wav(wave, config.logmel.columns, config.logmel, comment=comment)[0]


@cache_by_run(64, scope="session")
def explain_voice(directory: Path, y: np.ndarray) -> Explanation:
    """The voice classifier's softmax and the p-values of a spectrogram."""
    from core.inference import generation

    return generation.explain_voice(cache.load_run(directory.name), y)


# ------------------------------------------------------------------ its faces


def _classify_faces(run, x: np.ndarray) -> np.ndarray:
    """The scorer's softmax (n, K) of the faces (n, 28, 28) uint8."""
    from core.inference import generation

    return generation.classify_samples(run, x / 127.5 - 1)["scorer"]


@cache_by_run(40, "Drawing faces …", scope="session")
def generate_faces(
    directory: Path, y: np.ndarray, emotions: tuple[str | None, ...], seeds: Sequence[int]
) -> list[GeneratedFace]:
    """A face for each seed and, within it, each emotion, as `generation.generate_face` draws it.

    The emotion None stands for the voice classifier's first choice.
    """
    from core.inference import generation

    run = cache.load_run(directory.name)
    explanation, faces = generation.explain_voice(run, y), []
    for seed in seeds:
        for emotion in emotions:
            c, _ = generation.condition_of(run, explanation, emotion)
            told = run.classes[int(c.argmax())] if len(c) else ""
            faces.append((told, seed, generation.generate_faces(run, y, c, seed)[0]))
    verdicts = _classify_faces(run, np.stack([x for *_, x in faces]))
    return [GeneratedFace(*one, o) for one, o in zip(faces, verdicts)]


@cache_by_run(64)
def _classify_face(directory: Path, x: np.ndarray) -> np.ndarray:
    return _classify_faces(cache.load_run(directory.name), x[None])[0]


def _figure_html(x: np.ndarray, alt: str, *lines: str) -> str:
    """One face, every pixel a square, above its lines of HTML."""
    image_style = (
        "width:100%;max-width:190px;aspect-ratio:1;image-rendering:pixelated;"
        "border-radius:4px;display:block"
    )
    image = f'src="{images.png_data_url(x)}" alt="{html.escape(alt)}" style="{image_style}"'
    style = "font-size:.85rem;line-height:1.35;padding-top:.3rem"
    caption = f'<figcaption style="{style}">{"<br>".join(lines)}</figcaption>'
    return f'<figure style="margin:0"><img {image}>{caption}</figure>'


def show_faces(faces: Sequence[GeneratedFace], classes: Sequence[str], across: int) -> None:
    """The faces, `across` in a row, each with the told emotion, its seed and the verdict."""
    cells = []
    for one in faces:
        told = f"told {theme.emotion_html(one.told)}" if one.told else "told nothing"
        alt = f"generated face, told {one.told or 'nothing'}, seed {one.seed}"
        verdict = players.verdict_html("seen as", one.o, classes, one.told)
        cells.append(_figure_html(one.x, alt, f"{told} · seed {one.seed}", verdict))
    grid = f"display:grid;grid-template-columns:repeat({across},minmax(0,1fr));gap:.9rem .8rem"
    st.html(f'<div style="{grid}">{"".join(cells)}</div>')


def show_own_face(run_id: str, voice: SourceVoice, classes: Sequence[str]) -> None:
    """The real face of the same clip."""
    assert voice.face is not None
    o = _classify_face(run_id, voice.face)
    verdict = players.verdict_html("seen as", o, classes, voice.emotion)
    line = f"<b>real</b> · {theme.emotion_html(voice.emotion)}"
    st.html(_figure_html(voice.face, "the real face of the same clip", line, verdict))


def tally_text(run: Run, faces: Sequence[GeneratedFace], classes: Sequence[str]) -> str:
    """How many faces show the told emotion, and how much the noise changes, in words."""
    words = ""
    if faces[0].told:
        right = sum(one.right(classes) for one in faces)
        words = f"The judge sees the emotion that was told in {right} of {len(faces)}. "
    share = run.json("results").get("quality", {}).get("diversity")
    if share is None:
        return words
    return (
        f"{words}The noise decides {share:.2f} of how much real faces differ (0: one face for a "
        "voice); the rest is voice and emotion."
    )


# ------------------------------------------------------------------ downloads


def faces_png(faces: Sequence[GeneratedFace], across: int) -> bytes:
    """All faces in rows, enlarged, as PNG."""
    side, gap = 28 * PICTURE_SCALE, PICTURE_SCALE
    down = -(-len(faces) // across)
    sheet = np.full((down * (side + gap) - gap, across * (side + gap) - gap), 255, np.uint8)
    for i, one in enumerate(faces):
        y, x = (k * (side + gap) for k in divmod(i, across))
        sheet[y : y + side, x : x + side] = images.enlarge(one.x, PICTURE_SCALE)
    return images.png_bytes(sheet)


def faces_npy(faces: Sequence[GeneratedFace]) -> bytes:
    """(n, 28, 28) uint8 as npy, in the order of the page."""
    return images.npy_bytes(np.stack([one.x for one in faces]))


def faces_csv(run_id: str, faces: Sequence[GeneratedFace], classes: Sequence[str]) -> str:
    """A line for each face as CSV: index in the npy, run, told emotion, seed, scorer's softmax."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["index", "run", "told", "seed", "seen as", *(f"softmax {k}" for k in classes)])
    for i, one in enumerate(faces):
        verdict = [classes[int(one.o.argmax())], *(f"{v:.4f}" for v in one.o)]
        lines.writerow([i, run_id, one.told, one.seed, *verdict])
    return file.getvalue()
