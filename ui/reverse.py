"""The other way (§4.5, Fig. 7b): a visitor's or an example's voice, the faces that a run draws for it, and how they are shown."""

from __future__ import annotations

import base64
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
from core.config import Config
from core.media import spectrograms, waveforms
from core.runs import Run
from ui import theme
from ui.session import cache
from ui.widgets import contact_sheet

if TYPE_CHECKING:
    from core.inference.generation import Explanation

FACES_PER_ROW = 6  # faces in a row where one emotion is told
PICTURE_SCALE = 10  # pixels of a picture that is saved, for one of the face
MIN_AUDIBLE_PEAK = 1e-4  # of full scale; below it there is nothing to hear
TRAIN_COMMAND = "python -m core train --preset demo --name demo-reverse --gan.direction voice-face --gan.condition label --gan.l1 0"
ABOUT = """**The other way.** Everywhere else in this studio a face becomes a voice. Here source and target change places, and all else is
the same: one second of voice (a spectrogram), noise z and a condition c go into the generator, and a 28×28 face comes out (§4.5, Fig. 7b).

**Supervised.** The paper tries this direction with the emotion's *label* alone (§4.5, §4.7), so the generator was told the true emotion of
every voice while it learnt. Here you tell it: the voice classifier's first choice, an emotion of your own, or all of them side by side.
Tell it one that the voice does not have, and see which of the two the face follows.

**What is fixed, what varies.** Each face names the emotion that was told and its seed, which is the noise z. Below it a face classifier
(the scorer: trained on real faces, and no part of G's training) says what it sees, with ✓ or ✕ for whether that is what was told.

**Nobody's face.** A voice does not tell what its speaker looks like, and nothing here tries to find out: the face belongs to no one."""


@dataclass(frozen=True)
class SourceVoice:
    """One second of voice as a run hears it."""

    name: str  # of the clip, as text of ours or made plain
    y: np.ndarray  # (columns, bands) in [-1, 1]
    wav: bytes  # that second
    emotion: str = ""  # what it was meant as; "" where nobody has said so
    face: np.ndarray | None = None  # (28, 28) uint8, the same clip's own
    gain: float = 0.0  # dB applied, so that its level is the corpus'
    of: int = 0  # how many examples of this emotion there are
    again: bool = False  # the sound comes back from the spectrogram


@dataclass(frozen=True)
class GeneratedFace:
    """One generated face."""

    told: str  # the emotion that c is highest for; "" for a generator that is told nothing
    seed: int
    x: np.ndarray  # (28, 28) uint8
    o: np.ndarray  # (K,) the scorer's softmax

    def right(self, classes: Sequence[str]) -> bool:
        return classes[int(self.o.argmax())] == self.told


# ------------------------------------------------------------------ which runs


def list_runs() -> tuple[dict[str, dict], list[dict]]:
    """Runs of this direction: the finished ones by their ids, shipped ones first and then from the newest; and all others."""
    rows = [r for r in cache.run_rows() if _is_reverse_run(files.checkpoints_folder() / r["run"])]
    done = sorted((r for r in rows if r["state"] == "done"), key=lambda r: not r["shipped"])
    return {r["run"]: r for r in done}, [r for r in rows if r["state"] != "done"]


@st.cache_data(show_spinner=False, max_entries=500)
def _is_reverse_run(directory: Path) -> bool:
    """Whether a run makes faces. A run's configuration is never edited."""
    try:
        return Run(directory).config.gan.direction == "voice-face"
    except ValueError:
        return False


def run_label(row: dict) -> str:
    """A finished run, as the list of runs shows it."""
    return f"Run: {row['name']} · " + (
        "shipped" if row["shipped"] else f"{row['condition']} {row['run'].rsplit('-', 1)[-1]}"
    )


def show_no_run() -> None:
    """No run of this direction is finished: what to do."""
    words = "**There is no trained run from voices to faces yet.** Train one on the demo corpus, with no download."
    st.info(words, icon=":material/swap_horiz:")
    st.caption(
        "In a terminal, in the project's folder; it shows its progress here and on *Train*, and can be stopped and resumed:"
    )
    st.code(TRAIN_COMMAND, language="bash", wrap_lines=True)
    settings = {"preset": "demo", "condition": "label"}
    words = "Or on Train: under *All other settings*, Direction *voice-face* and weight of L1 *0*"
    st.page_link(
        "pages/train.py", label=words, icon=":material/model_training:", query_params=settings
    )


def show_unfinished_runs(others: Sequence[dict]) -> None:
    """Runs of this direction that are not finished, each with its state and the way to it."""
    for row in others:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            reason = (
                f": {theme.escape_markdown(row['error'])}"
                if row["state"] == "failed" and row["error"]
                else ""
            )
            step = f"step {row['step'] or 0:,} of {row['steps'] or 0:,}"
            st.markdown(
                f":{theme.STATE_COLOURS[row['state']]}-badge[**{row['state']}**] `{row['run']}` · {step}{reason}",
                width="stretch",
            )
            where = "Back to it" if row["state"] in cache.LIVE_STATES else "Resume it on Train"
            st.page_link(
                "pages/train.py",
                label=where,
                icon=":material/monitoring:",
                query_params={"run": row["run"]},
            )


# ------------------------------------------------------------------ a voice


@st.cache_resource(show_spinner="Preparing the voice …", max_entries=64)
def _load_example_voice(directory: Path, emotion: str, number: int) -> SourceVoice:
    from core.inference import examples
    from core.media import vocoder

    run = Run(directory)
    one, s = examples.load_voice_example(run, emotion, number), run.config.logmel
    wave, again = one.wave, one.wave is None
    if wave is None:
        wave = vocoder.to_waveform(one.y, run.json("corpus")["voices"]["ref_db"], s)[0]
    return SourceVoice(
        one.name or f"voice {one.number + 1}",
        one.y,
        _middle_wav(
            wave,
            run.config,
            spectrograms.RESYNTHESIS_COMMENT if again else "a recording's middle, invented",
        ),
        emotion,
        one.face,
        of=one.of,
        again=again,
    )


def load_example_voice(run_id: str, emotion: str, number: int) -> SourceVoice:
    """A voice that the run has not met, the same for all visitors. Raises ValueError in words where there is none."""
    return _load_example_voice(files.checkpoints_folder() / run_id, emotion, number)


@st.cache_resource(show_spinner=False, max_entries=8, scope="session")
def _load_visitor_voice(
    directory: Path, name: str, wave: np.ndarray, at: float
) -> SourceVoice | str:
    from core.inference import generation

    opened = cache.load_run(directory.name)
    rate, centre = opened.config.logmel.rate, len(wave) / 2
    centre = min(max(at * opened.config.logmel.rate, 1.0), len(wave) - 1.0) if at else centre
    half = int(min(centre, len(wave) - centre))
    part = wave[
        int(centre) - half : int(centre) + half
    ]  # its middle is the moment that was asked for
    wav = _middle_wav(part, opened.config, "a visitor's recording, its middle")
    if (
        len(part) < rate // 10
        or np.abs(_middle_second(part, opened.config)).max() < MIN_AUDIBLE_PEAK
    ):
        return f"{name} is silent there, or too short: there is no voice to draw a face for. Choose another moment, or record it again."
    y, gain = generation.voice_spectrogram(opened, part)
    return SourceVoice(name, y, wav, gain=gain)


def load_visitor_voice(
    run_id: str, name: str, wave: np.ndarray, at: float = 0.0
) -> SourceVoice | str:
    """A visitor's sound around the moment `at` (s; 0: its middle), as the run hears it; or in words why there is nothing to hear."""
    return _load_visitor_voice(files.checkpoints_folder() / run_id, name, wave, at)


def _middle_second(wave: np.ndarray, config: Config) -> np.ndarray:
    half, middle = config.logmel.columns * config.logmel.hop // 2, len(wave) // 2
    return wave[max(0, middle - half) : middle + half]


def _middle_wav(wave: np.ndarray, config: Config, words: str) -> bytes:
    """The middle of a sound, as much as a spectrogram shows, as a wav that says what it is."""
    return waveforms.crop_to_wav(wave, config.logmel.columns, config.logmel, comment=words)[0]


def explain_voice(run_id: str, y: np.ndarray) -> Explanation:
    """What the voice classifier and its conformal predictor say."""
    return _explain_voice(files.checkpoints_folder() / run_id, y)


@st.cache_resource(show_spinner=False, max_entries=64, scope="session")
def _explain_voice(directory: Path, y: np.ndarray) -> Explanation:
    from core.inference import generation

    return generation.explain_voice(cache.load_run(directory.name), y)


# ------------------------------------------------------------------ its faces


def generate_faces(
    run_id: str, y: np.ndarray, emotions: Sequence[str | None], seeds: Sequence[int]
) -> list[GeneratedFace]:
    """A face for each seed and, within it, each emotion (None: the classifier's first choice), as `studio.face_of` draws it."""
    return _generate_faces(files.checkpoints_folder() / run_id, y, tuple(emotions), tuple(seeds))


@st.cache_resource(show_spinner="Drawing faces …", max_entries=40, scope="session")
def _generate_faces(
    directory: Path, y: np.ndarray, emotions: tuple[str | None, ...], seeds: tuple[int, ...]
) -> list[GeneratedFace]:
    from core.inference import generation

    opened = cache.load_run(directory.name)
    said, made = generation.explain_voice(opened, y), []
    for seed in seeds:
        for emotion in emotions:
            c, _ = generation.condition_of(opened, said, emotion)
            x = generation.generate_faces(opened, y, c, seed)[0]
            made.append((opened.classes[int(c.argmax())] if len(c) else "", seed, x))
    verdicts = generation.classify_samples(opened, np.stack([x for *_, x in made]) / 127.5 - 1)[
        "scorer"
    ]
    return [GeneratedFace(*one, o) for one, o in zip(made, verdicts)]


@st.cache_data(show_spinner=False, max_entries=64)
def _classify_face(directory: Path, x: np.ndarray) -> np.ndarray:
    from core.inference import generation

    return generation.classify_samples(cache.load_run(directory.name), x[None] / 127.5 - 1)[
        "scorer"
    ][0]


def _figure_html(x: np.ndarray, alt: str, *lines: str) -> str:
    """One face, every pixel a square, above its lines of HTML."""
    address = "data:image/png;base64," + base64.b64encode(contact_sheet.png_bytes(x)).decode()
    style = "width:100%;max-width:190px;aspect-ratio:1;image-rendering:pixelated;border-radius:4px;display:block"
    words = "<br>".join(lines)
    return (
        f'<figure style="margin:0"><img src="{address}" alt="{html.escape(alt)}" style="{style}">'
        f'<figcaption style="font-size:.85rem;line-height:1.35;padding-top:.3rem">{words}</figcaption></figure>'
    )


def _verdict_html(o: np.ndarray, classes: Sequence[str], meant: str) -> str:
    k = int(o.argmax())
    mark = f" {'✓' if classes[k] == meant else '✕'}" if meant else ""
    return f"seen as {theme.emotion_html(classes[k])} <b>{o[k]:.0%}</b>{mark}"


def show_faces(made: Sequence[GeneratedFace], classes: Sequence[str], across: int) -> None:
    """The faces, `across` in a row, each with what was told, its seed and the scorer's verdict."""
    cells = []
    for one in made:
        told = f"told {theme.emotion_html(one.told)}" if one.told else "told nothing"
        alt = f"generated face, told {one.told or 'nothing'}, seed {one.seed}"
        cells.append(
            _figure_html(
                one.x, alt, f"{told} · seed {one.seed}", _verdict_html(one.o, classes, one.told)
            )
        )
    grid = f"display:grid;grid-template-columns:repeat({across},minmax(0,1fr));gap:.9rem .8rem"
    st.html(f'<div style="{grid}">{"".join(cells)}</div>')


def show_own_face(run_id: str, voice: SourceVoice, classes: Sequence[str]) -> None:
    """The real face of the same clip."""
    assert voice.face is not None
    verdict = _verdict_html(
        _classify_face(files.checkpoints_folder() / run_id, voice.face), classes, voice.emotion
    )
    st.html(
        _figure_html(
            voice.face,
            "the real face of the same clip",
            f"<b>real</b> · meant as {theme.emotion_html(voice.emotion)}",
            verdict,
        )
    )


def tally_text(run: Run, made: Sequence[GeneratedFace], classes: Sequence[str]) -> str:
    """How many faces are seen as what was told, and how much the noise changes in this run, in words."""
    right = sum(one.right(classes) for one in made)
    words = (
        f"The scorer sees the emotion that was told in {right} of {len(made)}. "
        if made[0].told
        else ""
    )
    share = run.json("results").get("quality", {}).get("diversity")
    more = "The noise decides {:.2f} of how much real faces differ (0: one face for a voice); the rest is voice and emotion."
    return words + (more.format(share) if share is not None else "")


# ------------------------------------------------------------------ to take away


def faces_png(made: Sequence[GeneratedFace], across: int) -> bytes:
    """All faces in rows, every pixel a square of ten, as png."""
    side, gap = 28 * PICTURE_SCALE, PICTURE_SCALE
    down = -(-len(made) // across)
    whole = np.full((down * (side + gap) - gap, across * (side + gap) - gap), 255, np.uint8)
    for i, one in enumerate(made):
        y, x = (k * (side + gap) for k in divmod(i, across))
        whole[y : y + side, x : x + side] = np.kron(
            one.x, np.ones((PICTURE_SCALE, PICTURE_SCALE), np.uint8)
        )
    return contact_sheet.png_bytes(whole)


def faces_npy(made: Sequence[GeneratedFace]) -> bytes:
    """(n, 28, 28) uint8 as npy, in the order of the page."""
    file = io.BytesIO()
    np.save(file, np.stack([one.x for one in made]))
    return file.getvalue()


def faces_csv(run_id: str, made: Sequence[GeneratedFace], classes: Sequence[str]) -> str:
    """A line for each face as csv: its place in the npy, run, what was told, seed, the scorer's softmax."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["index", "run", "told", "seed", "seen as", *(f"softmax {k}" for k in classes)])
    for i, one in enumerate(made):
        lines.writerow(
            [
                i,
                run_id,
                one.told,
                one.seed,
                classes[int(one.o.argmax())],
                *(f"{v:.4f}" for v in one.o),
            ]
        )
    return file.getvalue()
