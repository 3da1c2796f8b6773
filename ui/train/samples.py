"""A checkpoint's voices with players, beside another run's, and the course of one as a sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import streamlit as st

from core import files
from core.config.settings import LogMel
from core.media import spectrograms
from core.runs.directory import Run
from ui import theme
from ui.session import cache
from ui.train import checkpoints
from ui.widgets import choices, spectrogram

MAX_HEARD_STEPS = 12  # checkpoints in the sound of a course
GAP_SECONDS = 0.3  # silence between two of them
CANVAS_HEIGHT = 164  # pixels


@st.cache_resource(show_spinner=False, max_entries=40)
def sample_sounds(path: Path, ref_db: float, s: LogMel) -> list[bytes]:
    """The wav of each sample of a checkpoint's file."""
    from core.media import vocoder, waveforms

    y = cache.checkpoint_samples(path)["y"].astype(np.float32)
    waves, _ = vocoder.to_waveform(y, ref_db, s)
    comment = f"dacssGAN {path.parent.parent.name}, {path.stem}; {spectrograms.GENERATED_COMMENT}"
    return [waveforms.wav_bytes(wave, s.rate, comment) for wave in waves]


@st.cache_resource(show_spinner=False, max_entries=20)
def course_sound(paths: tuple[Path, ...], k: int, ref_db: float, s: LogMel) -> bytes:
    """Sample `k` of one checkpoint after the other as one wav, with silence between them."""
    from core.media import vocoder, waveforms

    y = np.stack([cache.checkpoint_samples(p)["y"][k] for p in paths]).astype(np.float32)
    waves, _ = vocoder.to_waveform(y, ref_db, s)
    padded = np.pad(waves, ((0, 0), (0, round(GAP_SECONDS * s.rate))))
    return waveforms.wav_bytes(padded.reshape(-1), s.rate, spectrograms.GENERATED_COMMENT)


def heard_steps(steps: Sequence[int]) -> list[int]:
    """At most MAX_HEARD_STEPS of the steps, evenly, the first and the last among them."""
    n = min(len(steps), MAX_HEARD_STEPS)
    return [steps[round(i)] for i in np.linspace(0, len(steps) - 1, n)]


def show_voices(row: dict, rows: Sequence[dict], step: int, names: Sequence[str]) -> None:
    """The voices of one checkpoint with their players, beside another run's of the same step."""
    st.caption(
        f"One face of each emotion in S2, the same faces and noise at every step. Step {step:,}."
    )
    left, right = st.columns([3, 2], gap="medium", vertical_alignment="bottom")
    with left:
        about = (
            "Its voice at one checkpoint after the other in one player; and whenever the "
            "checkpoint above changes, the voice is played."
        )
        more = {"key": "learnt emotion", "help": about}
        heard = st.segmented_control("Hear it learn", names, **more)
    with right:
        other = _choose_other(row, rows)
    if heard:
        _show_course(row["run"], list(names).index(heard))
    beside = [row["run"], *([other] if other else [])]
    shown = [(run, _nearest(run, step)) for run in beside]
    across = 3 if len(names) <= 6 else 4
    cells = [c for _ in range(0, len(names), across) for c in st.columns(across, gap="small")]
    for k, (cell, name) in enumerate(zip(cells, names)):
        with cell:
            st.html(theme.emotion_html(name))
            for i, (run, at) in enumerate(shown):
                if other:
                    st.caption(f"{theme.escape_markdown(run)}, step {at:,}" if at else run)
                _show_voice(run, at, k, name, i, autoplay=name == heard and i == 0)


def _show_voice(run: str, at: int | None, k: int, name: str, place: int, autoplay: bool) -> None:
    path = checkpoints.samples_by_step(run).get(at) if at is not None else None
    y = cache.checkpoint_samples(path)["y"] if path else np.zeros((0, 0, 0))
    if path is None or k >= len(y):
        st.caption("No sample of it is kept.")
        return
    s, ref_db = _scale(run)
    alt = f"generated spectrogram, {name}" + (f", {run}" if place else "")
    key = f"sample {k}" + (f" beside {place}" if place else "")
    spectrogram.show_canvas(y[k].astype(np.float32), ref_db, s, key, alt, CANVAS_HEIGHT)
    sound = sample_sounds(path, ref_db, s)[k]
    st.audio(sound, "audio/wav", autoplay=autoplay, alt=f"{alt}, step {at}")


def _show_course(run: str, k: int) -> None:
    """One player of a sample at all its checkpoints."""
    by_step = checkpoints.samples_by_step(run)
    steps = heard_steps(list(by_step))
    s, ref_db = _scale(run)
    sound = course_sound(tuple(by_step[i] for i in steps), k, ref_db, s)
    st.audio(sound, "audio/wav", alt="the voice at one checkpoint after the other")
    st.caption("Heard in this order: step " + ", ".join(f"{i:,}" for i in steps))


def _scale(run: str) -> tuple[LogMel, float]:
    """Settings of a run's spectrograms, and the dB that is scaled to 1."""
    voices = cache.run_by_id(run).json("corpus").get("voices", {})
    return cache.run_config(run).logmel, voices.get("ref_db", 0.0)


def _nearest(run: str, step: int) -> int | None:
    return min(checkpoints.samples_by_step(run), key=lambda at: abs(at - step), default=None)


def _choose_other(row: dict, rows: Sequence[dict]) -> str:
    """Another run of the same emotions whose voices are shown beside these; "" for none."""
    folder = files.checkpoints_folder()
    own = _emotions(folder / row["run"])
    others = [r["run"] for r in rows if r["run"] != row["run"] and not r["archived"]]
    alike = {run: run for run in others if _emotions(folder / run) == own}
    if not alike:
        return ""
    names = {"": "no other run"} | alike
    bound = choices.option_args("beside", "beside", names, "")
    return st.selectbox("Beside the voices of", **bound)


@st.cache_data(show_spinner=False, max_entries=500)
def _emotions(directory: Path) -> tuple[str, ...]:
    """What a run's samples are of; () for a run that makes faces or cannot be read."""
    try:
        config = Run(directory).config
    except files.UserError:
        return ()
    return config.data.classes if config.gan.direction == "face-voice" else (directory.name,)
