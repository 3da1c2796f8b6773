"""A visitor's clip: read, looked at, and forgotten.

An upload lies on disk, in a private folder and under a random name, only while it is decoded in a process of its own. What was decoded is
kept in memory for this visitor's session alone and dropped when the next clip comes or the page is closed.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from ui.session.cache import UPLOAD_FOLDER_PREFIX
from ui.widgets import players

if TYPE_CHECKING:
    from core.inference.generation import AnalysedClip
    from core.media.clips import Clip
    from core.media.faces.tracking import TrackedClip, TrackingProgress

PROGRESS_INTERVAL = 0.1  # seconds between two signs of how far a film is

EXAMPLES = {
    "astronaut": "Photograph of an astronaut (Eileen Collins, public domain)",
    "drawn": "Clip of a drawn face that talks (invented)",
}


def safe_file_name(name: str) -> str:
    """A file's name as it may be shown: what a browser sends is not trusted, not even as text."""
    return (
        re.sub(r"[^\w .()-]", "_", Path(name.replace("\\", "/")).name)[-60:].strip() or "the clip"
    )


# ------------------------------------------------------------------ a film on its way


@dataclass
class PendingUpload:
    """An upload that is being read and looked at. A page that is drawn anew meanwhile goes on with it."""

    sights: Iterator[TrackingProgress | TrackedClip] | None = None
    done: TrackedClip | str | None = None  # or in words why it is none
    glimpse: TrackingProgress | None = None  # the first frame from the middle on that shows a face


@st.cache_resource(show_spinner=False, max_entries=1, scope="session")
def _pending_upload(key: str) -> PendingUpload:
    """The upload that `key` names; a new one takes the old one's place."""
    return PendingUpload()


def track_upload(
    key: str,
    name: str,
    data: memoryview | bytes,
    show: Callable[[TrackingProgress, TrackingProgress | None], None] | None = None,
) -> TrackedClip | str:
    """An upload as frames, sound and people, or in words why it is none. Raises ModelMissing, after which it is begun anew.

    `show` gets how far it is, some times a second, and the frame near its middle as soon as a face was found there.
    """
    from core.media import containers, spectrograms
    from core.media.faces import tracking

    one, shown = _pending_upload(key), 0.0
    while one.done is None:
        one.sights = one.sights or _track_bytes(name, data)
        try:
            sight = next(one.sights)
        except containers.MediaError as error:
            one.done = str(error)
            break
        except Exception:
            one.sights = None
            raise
        if isinstance(sight, tracking.TrackedClip):
            one.done = sight
            break
        found = (
            one.glimpse is None
            and bool(sight.faces)
            and sight.time >= spectrograms.centre_time(sight.header_seconds)
        )
        one.glimpse = sight if found else one.glimpse
        if show and (found or time.monotonic() - shown > PROGRESS_INTERVAL):
            show(sight, one.glimpse)
            shown = time.monotonic()
    one.sights = None
    return one.done


def _track_bytes(name: str, data: memoryview | bytes) -> Iterator[TrackingProgress | TrackedClip]:
    from core.media.faces import tracking

    with tempfile.TemporaryDirectory(prefix=UPLOAD_FOLDER_PREFIX) as folder:
        path = Path(folder, secrets.token_hex(16))
        path.write_bytes(data)
        yield from tracking.track_stream(path, name=safe_file_name(name))


@st.cache_resource(show_spinner=False, max_entries=3, scope="session")
def _analyse_person(key: str, person: int, _film: TrackedClip) -> AnalysedClip | str:
    from core.inference import generation
    from core.media.faces import detection

    try:
        return generation.analyse_clip(_film.clip, person, _film.tracks)
    except detection.NoFaceError as error:
        return str(error)


def analyse_upload(
    given: Any, person: int = 0, place: Any = None, bar: Any = None
) -> tuple[Clip | None, AnalysedClip | str]:
    """What came with a file_uploader or a camera: the clip, and one person's face in each of its frames, or in words why there is none.

    Meanwhile `bar` shows how much of it was read and looked at, and `place` the face near the middle once it is found (both st.empty).
    Raises ModelMissing.
    """
    drawn = False

    def show(sight: TrackingProgress, glimpse: TrackingProgress | None) -> None:
        nonlocal drawn
        players.show_progress(bar, sight)
        if glimpse and not drawn:
            drawn = True
            with place.container():
                players.show_preview(glimpse)

    film = track_upload(given.file_id, given.name, given.getbuffer(), show if bar else None)
    if bar:
        bar.empty()
    return (
        (None, film)
        if isinstance(film, str)
        else (film.clip, _analyse_person(given.file_id, person, film))
    )


# ------------------------------------------------------------------ what else is brought, and examples


@st.cache_resource(show_spinner="Listening …", max_entries=1, scope="session")
def read_waveform(key: str, name: str, _data: memoryview | bytes) -> np.ndarray | str:
    """The sound of an upload or a recording, (T,) at 16 kHz, or in words why it has none. `key` names it; a new one takes its place."""
    from core.media import containers, sandbox

    with tempfile.TemporaryDirectory(prefix=UPLOAD_FOLDER_PREFIX) as folder:
        path = Path(folder, secrets.token_hex(16))
        path.write_bytes(_data)
        try:
            wave = sandbox.read_clip(
                path, containers.Limits(frames=0), name=safe_file_name(name)
            ).waveform
            assert wave is not None  # a file without sound is refused
            return wave
        except containers.MediaError as error:
            return str(error)


@st.cache_resource(show_spinner="Preparing the example …", max_entries=4)
def load_example_clip(name: str) -> tuple[Clip, AnalysedClip]:
    """A shipped example, the same for all visitors. Raises ModelMissing."""
    from core.data.demo import actors
    from core.inference import generation
    from core.media import clips

    if name == "astronaut":
        from skimage import data

        clip = clips.Clip("astronaut.png", np.zeros(1), data.astronaut()[None], None, is_still=True)
    else:
        take = max(
            (t for t in actors.list_takes() if t.actor == 6 and t.emotion == "happy"),
            key=lambda t: t.strength,
        )
        frames, wave = actors.render_clip(take, fps=12)
        clip = clips.Clip(f"{take.clip_id} (invented)", np.arange(len(frames)) / 12, frames, wave)
    return clip, generation.analyse_clip(clip)


def choose_face(kind: str) -> AnalysedClip | None:
    """A visitor's or an example's face; the last one of its kind until there is another; None while there is none. Raises ModelMissing."""
    if kind == "example":
        options, shown = list(EXAMPLES), EXAMPLES.get
        return load_example_clip(
            st.radio(
                "Example", options, format_func=shown, key="lab example", persist_state="session"
            )
        )[1]
    if kind == "upload":
        given = st.file_uploader(
            "Video or picture that shows a face", key="lab upload", help="The first minute is read."
        )
    else:
        given = st.camera_input("Look straight into the camera", key="lab webcam")
    if given is None:
        return st.session_state.get(f"lab seen {kind}")
    with st.spinner("Looking for faces …"):
        _, seen = analyse_upload(given)
    if isinstance(seen, str):
        st.error(seen, icon=":material/error:")
        return None
    st.session_state[f"lab seen {kind}"] = seen
    return seen


def last_face(kind: str) -> AnalysedClip | None:
    """The face that was chosen in the first step, on a step that does not ask for one. Raises ModelMissing."""
    if kind == "example":
        return load_example_clip(st.session_state.get("lab example") or next(iter(EXAMPLES)))[1]
    return st.session_state.get(f"lab seen {kind}")
