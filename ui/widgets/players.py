"""Faces and voices on a page: a frame with its box, a spectrogram with its player and files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw

from core.config import LogMel
from ui import theme
from ui.session.cache import GeneratedVoice, OwnVoice
from ui.widgets import spectrogram

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from core.inference.generation import AnalysedClip, Audio
    from core.media.faces.tracking import TrackingProgress

MAX_FRAME_SIZE = (270, 220)  # pixels at most of a frame on the page, width and height


def show_face(seen: AnalysedClip, at: int) -> None:
    """One frame with its face in a box, and beside it the (28, 28) face that the networks see, every pixel a square."""
    _show_frame(seen.frames[at], seen.boxes[at].tolist(), seen.aligned[at], seen.times[at])


def show_preview(sight: TrackingProgress) -> None:
    """`show_face` for a film that is still looked at: its largest face of that frame."""
    from core.media.faces import alignment

    found = sight.faces[0]
    _show_frame(
        sight.frame,
        list(found.box),
        alignment.align(sight.frame, alignment.five_points(found.points)),
        sight.time,
    )


def show_progress(bar: DeltaGenerator, sight: TrackingProgress) -> None:
    """In the place of a bar (st.empty): how much of a film was read and looked at."""
    of = f" of {sight.header_seconds:.1f} s" if sight.header_seconds else " s"
    bar.progress(
        min(sight.time / sight.header_seconds, 1.0) if sight.header_seconds else 0.0,
        f"Read and looked at: {sight.time:.1f}{of}",
    )


def _show_frame(
    pixels: np.ndarray, box: Sequence[float], aligned: np.ndarray, seconds: float
) -> None:
    image = Image.fromarray(pixels)
    shrink = min(MAX_FRAME_SIZE[0] / image.width, MAX_FRAME_SIZE[1] / image.height)
    image = image.resize(
        (round(image.width * shrink), round(image.height * shrink)), Image.Resampling.LANCZOS
    )
    x0, y0, x1, y1 = (shrink * edge for edge in box)
    draw = ImageDraw.Draw(image)
    for k, colour in enumerate(("black", "#ffd84d", "#ffd84d", "black")):
        draw.rectangle([x0 - 1 + k, y0 - 1 + k, x1 + 1 - k, y1 + 1 - k], outline=colour)
    left, right = st.columns([5, 3], gap="small")
    left.image(
        image, output_format="PNG", alt=f"frame at {seconds:.2f} s with a box around the face"
    )
    big = np.kron(aligned, np.ones((10, 10), np.uint8))
    right.image(big, width=130, output_format="PNG", alt="the aligned face of 28 by 28 pixels")
    right.caption("Aligned, 28×28: all that the networks see")


def verdict_html(classes: Sequence[str], o: np.ndarray) -> str:
    """What the scorer makes of a voice, its two likeliest emotions, as HTML."""
    first, second = np.argsort(-o)[:2]
    return f"The scorer hears {theme.emotion_html(classes[first])} <b>{o[first]:.0%}</b>, {theme.emotion_html(classes[second])} {o[second]:.0%}"


# ------------------------------------------------------------------ A, B, C: a recording, what its bands carry of it, what G made


def level_text(gain_db: float) -> str:
    """What was done to a sound's level, in words."""
    if gain_db > -0.05:
        return "At its own level: A, B and C can be compared in loudness."
    return f"Turned down by {-gain_db:.1f} dB, so that nothing is clipped; otherwise at the level of the others."


def show_player(letter: str, words: str, wav: bytes, gain_db: float, alt: str) -> None:
    """One player with its letter, and by how much it was turned down where it was."""
    st.audio(wav, "audio/wav", alt=f"{letter}: {alt}")
    less = f" · {gain_db:.1f} dB" if gain_db <= -0.05 else ""
    st.caption(f"**{letter}** {words}{less}", help=level_text(gain_db))


def show_recording(original: tuple[bytes, float] | str, again: Audio, s: LogMel) -> None:
    """A: the recording with the gain that it was turned down by, or in words why it is not here. B: the same through the run's bands."""
    a, b = st.columns(2, gap="small")
    with a:
        if isinstance(original, str):
            st.caption("**A** not here", help=theme.escape_markdown(original))
        else:
            show_player("A", "recorded", *original, "the real recording")
    with b:
        show_player(
            "B",
            f"{s.bands} bands",
            again.wav,
            again.gain_db,
            f"the real voice through {s.bands} bands and back",
        )


def show_generated(sound: Audio, whose: str, plain: Audio | None = None) -> None:
    """C: a generated voice; beside it the same spectrogram by plain Griffin-Lim, where that is given."""
    if plain is None:
        show_player("C", "generated", sound.wav, sound.gain_db, f"generated voice, {whose}")
        return
    a, b = st.columns(2, gap="small")
    with a:
        show_player("C", "generated", sound.wav, sound.gain_db, f"generated voice, {whose}")
    with b:
        show_player(
            "C",
            "Griffin-Lim",
            plain.wav,
            plain.gain_db,
            f"generated voice, {whose}, by plain Griffin-Lim",
        )


def show_downloads(
    sound: Audio, y: np.ndarray, stem: str, key: str, facts: Callable[[], str] | None = None
) -> None:
    """The wav and the spectrogram to take away, and with `facts` what is known of them as json."""
    array = io.BytesIO()
    np.save(array, y)
    more = {"icon": ":material/download:", "on_click": "ignore"}
    about = "The spectrogram as numbers in [-1, 1], time × mel band, as `python -m core generate` writes it."
    with st.container(horizontal=True, gap="small"):
        st.download_button("wav", sound.wav, f"{stem}.wav", "audio/wav", key=f"wav {key}", **more)
        st.download_button(
            "npy",
            array.getvalue(),
            f"{stem}.npy",
            "application/octet-stream",
            key=f"npy {key}",
            help=about,
            **more,
        )
        if facts:
            st.download_button(
                "json", facts, f"{stem}.json", "application/json", key=f"json {key}", **more
            )


def show_heading(condition: str, label: str) -> None:
    """Which condition, and what the generator is told; `label` is the emotion that it is told most of all."""
    title, told, about = theme.CONDITION_TEXTS[condition]
    st.markdown(f"**{title}** · told {told.format(label)}", help=about)


def show_voice(
    condition: str,
    one: GeneratedVoice,
    classes: Sequence[str],
    ref_db: float,
    s: LogMel,
    stem: str,
    plain: Audio | None = None,
) -> None:
    """A generated voice: where it comes from, spectrogram, player, verdict, files."""
    show_heading(condition, classes[int(one.c.argmax())] if len(one.c) else "")
    spectrogram.show_canvas(
        one.y, ref_db, s, f"chart {condition}", f"generated spectrogram, {condition}"
    )
    show_generated(one.sound, condition, plain)
    st.html(verdict_html(classes, one.heard))
    show_downloads(one.sound, one.y, f"{stem}-{condition}", condition)


def show_own_voice(
    one: OwnVoice, classes: Sequence[str], ref_db: float, s: LogMel, whole: bool = False
) -> None:
    """The clip's own voice: spectrogram, the recording, and the recording after the same journey as the generated ones."""
    left, right = st.columns([2, 1] if whole else [1, 2], gap="medium", vertical_alignment="center")
    with left:
        spectrogram.show_canvas(
            one.y, ref_db, s, "chart own", "spectrogram of the clip's own voice"
        )
    with right:
        show_recording((one.wav, one.limit_db), one.again, s)
        st.html(verdict_html(classes, one.heard))
        which = "**A** is the recording" if whole else "**A** is the recording's middle second"
        st.caption(
            f"{which}, changed by {one.gain:+.1f} dB to the level of the voices that the run was trained on, "
            f"so that it is as loud as for the networks. **B** is the same through {s.bands} mel bands and back: no generated voice can "
            "sound better."
        )
