"""Faces and voices on a page: a frame with its box; a spectrogram with its player and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw

from core.config.settings import LogMel
from ui import theme
from ui.session import images
from ui.session.cache import GeneratedVoice, OwnVoice
from ui.widgets import spectrogram

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from core.inference.generation import AnalysedClip, Audio
    from core.media.faces.tracking import TrackingProgress

MAX_FRAME_SIZE = (240, 165)  # largest width and height of a frame on the page, in pixels
SMALL_FRAME_SIZE = (150, 110)  # of a frame above a chart
MIN_SHOWN_LIMIT_DB = 0.05  # a level that was lowered by less is shown as unchanged
# The two networks that hear a generated voice, the independent one first, and their names on pages.
VERDICT_NAMES = {"scorer": "judge (never met G)", "Q": "Q (G's teacher)"}
MIME_TYPES = {
    ".wav": "audio/wav",
    ".png": "image/png",
    ".csv": "text/csv",
    ".json": "application/json",
    ".zip": "application/zip",
    ".mp4": "video/mp4",
}


def download(label: str, content: Any, file_name: str, **more) -> None:
    """A download button; `content` may be a function that is called on the click."""
    mime = MIME_TYPES.get(Path(file_name).suffix, "application/octet-stream")
    look = {"icon": ":material/download:", "on_click": "ignore"}
    st.download_button(label, content, file_name, mime, **look, **more)


# ------------------------------------------------------------------ faces


def show_pixels(
    x: np.ndarray, factor: int, width: int, alt: str = "the aligned face, 28 by 28 pixels"
) -> None:
    """A (28, 28) face with every pixel as a square of `factor` pixels."""
    st.image(images.enlarge(x, factor), width=width, output_format="PNG", alt=alt)


def show_face(seen: AnalysedClip, at: int, words: str = "") -> None:
    """One frame with its face in a box, beside the (28, 28) face that the networks get.

    With `words`, which stand beside them, both are small.
    """
    _show_frame(seen.frames[at], seen.boxes[at].tolist(), seen.aligned[at], seen.times[at], words)


def show_preview(sight: TrackingProgress) -> None:
    """`show_face` for a clip that is still being read: the largest face of that frame."""
    from core.media.faces import alignment

    face = sight.faces[0]
    aligned = alignment.align(sight.frame, alignment.five_points(face.points))
    _show_frame(sight.frame, list(face.box), aligned, sight.time)


def show_progress(bar: DeltaGenerator, sight: TrackingProgress) -> None:
    """Show in the placeholder `bar` how much of a clip was read and searched for faces."""
    total = sight.header_seconds
    share = min(sight.time / total, 1.0) if total else 0.0
    of = f" of {total:.1f} s" if total else " s"
    bar.progress(share, f"Read and searched for faces: {sight.time:.1f}{of}")


def _show_frame(
    pixels: np.ndarray, box: Sequence[float], aligned: np.ndarray, seconds: float, words: str = ""
) -> None:
    image = Image.fromarray(pixels)
    width, height = SMALL_FRAME_SIZE if words else MAX_FRAME_SIZE
    shrink = min(width / image.width, height / image.height)
    size = round(image.width * shrink), round(image.height * shrink)
    image = image.resize(size, Image.Resampling.LANCZOS)
    x0, y0, x1, y1 = (shrink * edge for edge in box)
    draw = ImageDraw.Draw(image)
    for k, colour in enumerate(("black", "#ffd84d", "#ffd84d", "black")):
        draw.rectangle([x0 - 1 + k, y0 - 1 + k, x1 + 1 - k, y1 + 1 - k], outline=colour)
    if words:
        left, right, beside = st.columns([4, 3, 5], gap="small")
    else:
        left, right = st.columns([5, 3], gap="small")
        beside = right
    alt = f"frame at {seconds:.2f} s with a box around the face"
    left.image(image, output_format="PNG", alt=alt)
    with right:
        size = SMALL_FRAME_SIZE[1] if words else 130
        show_pixels(aligned, 10, size, "the aligned face of 28 by 28 pixels")
    beside.caption("Aligned, 28×28: all that the networks get")
    if words:
        beside.caption(words)


# ------------------------------------------------------------------ verdicts


def verdict_html(who: str, o: np.ndarray, classes: Sequence[str], label: str = "") -> str:
    """A classifier's likeliest emotion as HTML, with ✓ or ✕ for whether it is `label`.

    `o` (K,) is the softmax; `who` precedes the emotion: "judge", "seen as".
    """
    k = int(o.argmax())
    mark = f" {'✓' if classes[k] == label else '✕'}" if label else ""
    return f"{who} {theme.emotion_html(classes[k])} <b>{o[k]:.0%}</b>{mark}"


def show_verdict(classes: Sequence[str], o: np.ndarray) -> None:
    """The two likeliest emotions of a voice for the judge, who never met G."""
    second = int(np.argsort(-o)[1])
    first = verdict_html("The judge hears", o, classes)
    st.html(f"{first}, {theme.emotion_html(classes[second])} {o[second]:.0%}")


# ------------------------------------------------------------------ A: recorded, B: its bands, C: G


def level_text(gain_db: float) -> str:
    """How a sound's level was changed, in words."""
    if gain_db > -MIN_SHOWN_LIMIT_DB:
        return "At its own level: all sounds here can be compared in loudness."
    lowered = f"Turned down by {-gain_db:.1f} dB, so that nothing is clipped"
    return f"{lowered}; otherwise at the level of the others."


def show_player(letter: str, words: str, wav: bytes, gain_db: float, alt: str) -> None:
    """One player with its letter, if any, and by how much its level was lowered, if it was."""
    st.audio(wav, "audio/wav", alt=f"{letter}: {alt}" if letter else alt)
    lowered = f" · {gain_db:.1f} dB" if gain_db <= -MIN_SHOWN_LIMIT_DB else ""
    mark = f"**{letter}** " if letter else ""
    st.caption(f"{mark}{words}{lowered}", help=level_text(gain_db))


def show_recording(original: tuple[bytes, float] | str, again: Audio, s: LogMel) -> None:
    """A: the recording. B: the same through the run's mel bands and back.

    `original` is the recording with the gain in dB that avoids clipping, or why it is missing.
    """
    a, b = st.columns(2, gap="small")
    with a:
        if isinstance(original, str):
            st.caption("**A** not here", help=theme.escape_markdown(original))
        else:
            show_player("A", "recorded", *original, "the real recording")
    with b:
        alt = f"the real voice through {s.bands} bands and back"
        show_player("B", f"{s.bands} bands", again.wav, again.limit_db, alt)


def show_generated(sound: Audio, whose: str, letter: str = "", plain: Audio | None = None) -> None:
    """A generated voice; beside it the same by plain Griffin-Lim, if given.

    Its `letter` is "C" where A and B stand on the page, else "".
    """
    both = [("generated", sound, "")]
    if plain is not None:
        both.append(("Griffin-Lim", plain, ", by plain Griffin-Lim"))
    columns = st.columns(2, gap="small") if plain is not None else [st.container()]
    for column, (words, one, how) in zip(columns, both):
        with column:
            show_player(letter, words, one.wav, one.limit_db, f"generated voice, {whose}{how}")


def show_downloads(
    sound: Audio, y: np.ndarray, stem: str, key: str, facts: Callable[[], str] | None = None
) -> None:
    """Downloads of the WAV and the spectrogram, and with `facts` of a JSON file."""
    about = "The spectrogram as numbers in [-1, 1], time × mel band, as `python -m core generate` "
    condition = key.split()[-1]  # a button's name tells it from the other conditions'
    whose = theme.CONDITION_TEXTS[condition][0] if condition in theme.CONDITION_TEXTS else key
    with st.container(horizontal=True, gap="small"):
        download(f"{whose} wav", sound.wav, f"{stem}.wav", key=f"wav {key}")
        npy = images.npy_bytes(y)
        download(f"{whose} npy", npy, f"{stem}.npy", key=f"npy {key}", help=about + "writes it.")
        if facts:
            download(f"{whose} json", facts, f"{stem}.json", key=f"json {key}")


def show_heading(condition: str, label: str) -> None:
    """The condition and what the generator is told; `label` is its strongest emotion."""
    title, given, about = theme.CONDITION_TEXTS[condition]
    st.markdown(f"**{title}** · told {given.format(label)}", help=about)


def show_voice(
    condition: str,
    one: GeneratedVoice,
    classes: Sequence[str],
    ref_db: float,
    s: LogMel,
    stem: str,
    letter: str = "",
    plain: Audio | None = None,
) -> DeltaGenerator:
    """A generated voice: condition, player, verdict, spectrogram, files.

    Returns a place below the verdict.
    """
    show_heading(condition, classes[int(one.c.argmax())] if len(one.c) else "")
    show_generated(one.sound, condition, letter, plain)
    show_verdict(classes, one.heard)
    place = st.container()
    alt = f"generated spectrogram, {condition}"
    spectrogram.show_canvas(one.y, ref_db, s, f"chart {condition}", alt)
    show_downloads(one.sound, one.y, f"{stem}-{condition}", condition)
    return place


def show_own_voice(
    one: OwnVoice, classes: Sequence[str], ref_db: float, s: LogMel, whole: bool = False
) -> None:
    """The clip's own voice: spectrogram, the recording (A), and the inverted spectrogram (B)."""
    left, right = st.columns([2, 1] if whole else [1, 2], gap="medium", vertical_alignment="center")
    with left:
        alt = "spectrogram of the clip's own voice"
        spectrogram.show_canvas(one.y, ref_db, s, "chart own", alt)
    with right:
        show_recording((one.wav, one.limit_db), one.again, s)
        show_verdict(classes, one.heard)
        which = "**A** is the recording" if whole else "**A** is the recording's middle second"
        st.caption(
            f"{which}, changed by {one.gain:+.1f} dB, so that it is played at the level of the "
            f"voices that the run was trained on. **B** is the same through {s.bands} mel bands "
            "and back: no generated voice can sound better."
        )
