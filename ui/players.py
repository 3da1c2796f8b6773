"""Faces and voices on a page: a frame with its box, a spectrogram with its player and files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw

from core.config import LogMel
from ui import spectra, theme
from ui.access import Own, Voice

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from core.studio import Seen
    from core.tracking import Sight

FRAME = (270, 220)  # pixels at most of a frame on the page, width and height


def face(seen: Seen, at: int) -> None:
    """One frame with its face in a box, and beside it the (28, 28) face that the networks see, every pixel a square."""
    _frame(seen.frames[at], seen.boxes[at].tolist(), seen.aligned[at], seen.times[at])


def glimpse(sight: Sight) -> None:
    """`face` for a film that is still looked at: its largest face of that frame."""
    from core import faces

    found = sight.faces[0]
    _frame(sight.frame, list(found.box), faces.align(sight.frame, faces.five_points(found.points)), sight.time)


def progress(bar: DeltaGenerator, sight: Sight) -> None:
    """In the place of a bar (st.empty): how much of a film was read and looked at."""
    of = f" of {sight.promised:.1f} s" if sight.promised else " s"
    bar.progress(min(sight.time / sight.promised, 1.0) if sight.promised else 0.0, f"Read and looked at: {sight.time:.1f}{of}")


def _frame(pixels: np.ndarray, box: Sequence[float], aligned: np.ndarray, seconds: float) -> None:
    image = Image.fromarray(pixels)
    shrink = min(FRAME[0] / image.width, FRAME[1] / image.height)
    image = image.resize((round(image.width * shrink), round(image.height * shrink)), Image.Resampling.LANCZOS)
    x0, y0, x1, y1 = (shrink * edge for edge in box)
    draw = ImageDraw.Draw(image)
    for k, colour in enumerate(("black", "#ffd84d", "#ffd84d", "black")):
        draw.rectangle([x0 - 1 + k, y0 - 1 + k, x1 + 1 - k, y1 + 1 - k], outline=colour)
    left, right = st.columns([5, 3], gap="small")
    left.image(image, output_format="PNG", alt=f"frame at {seconds:.2f} s with a box around the face")
    big = np.kron(aligned, np.ones((10, 10), np.uint8))
    right.image(big, width=130, output_format="PNG", alt="the aligned face of 28 by 28 pixels")
    right.caption("Aligned, 28×28: all that the networks see")


def heard(classes: Sequence[str], o: np.ndarray) -> str:
    """What the scorer makes of a voice, its two likeliest emotions, as HTML."""
    first, second = np.argsort(-o)[:2]
    return f"The scorer hears {theme.dot(classes[first])} <b>{o[first]:.0%}</b>, {theme.dot(classes[second])} {o[second]:.0%}"


def voice(condition: str, one: Voice, classes: Sequence[str], ref_db: float, s: LogMel, stem: str) -> None:
    """A generated voice: where it comes from, spectrogram, player, verdict, files."""
    title, told, about = theme.CONDITION[condition]
    st.markdown(f"**{title}** · told {told.format(classes[int(one.c.argmax())] if len(one.c) else '')}", help=about)
    spectra.show(one.y, ref_db, s, f"chart {condition}", f"generated spectrogram, {condition}")
    st.audio(one.sound.wav, "audio/wav", alt=f"generated voice, {condition}")
    st.html(heard(classes, one.heard))
    array = io.BytesIO()
    np.save(array, one.y)
    with st.container(horizontal=True, gap="small"):
        icon, stem = ":material/download:", f"{stem}-{condition}"
        st.download_button("wav", one.sound.wav, f"{stem}.wav", "audio/wav", key=f"wav {condition}", icon=icon, on_click="ignore")
        spectrum = "The spectrogram as numbers in [-1, 1], time × mel band, as `python -m core generate` writes it."
        st.download_button(
            "npy",
            array.getvalue(),
            f"{stem}.npy",
            "application/octet-stream",
            key=f"npy {condition}",
            icon=icon,
            on_click="ignore",
            help=spectrum,
        )


def own(one: Own, classes: Sequence[str], ref_db: float, s: LogMel) -> None:
    """The clip's own voice: spectrogram, the recording, and the recording after the same journey as the generated ones."""
    left, right = st.columns([1, 2], gap="medium")
    with left:
        spectra.show(one.y, ref_db, s, "chart own", "spectrogram of the clip's own voice")
    with right:
        st.markdown("The recording's middle second")
        st.audio(one.wav, "audio/wav", alt="the clip's own voice")
        st.markdown("The same through 28 mel bands and back, as the generated voices are heard")
        st.audio(one.again.wav, "audio/wav", alt="the clip's own voice through 28 mel bands and back")
        st.html(heard(classes, one.heard))
        st.caption(
            f"Its level was changed by {one.gain:+.1f} dB for the spectrogram, to the level of the voices that the run was trained on."
        )
