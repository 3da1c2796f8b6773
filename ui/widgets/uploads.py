"""A visitor's clip: decoded, searched for faces, and forgotten.

An upload lies on disk only while it is decoded in the sandbox: in a private folder, under a random
name. The decoded clip stays in memory for this visitor's session alone, on all pages that take a
face. It is dropped when the next clip comes or the session ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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

PROGRESS_INTERVAL = 0.1  # seconds between two updates of the progress bar
MAX_NAME_LETTERS = 60  # letters of a file's name that are shown, from its end
EXAMPLES = {
    "astronaut": "Photograph of an astronaut (Eileen Collins, public domain)",
    "drawn": "Clip of a drawn face that talks (invented)",
}
LAST, LAST_LABEL = "last", "Your last clip"  # the choice of a clip that was given before


def safe_file_name(name: str) -> str:
    """A file's name as harmless text; a browser's name for it is not trusted."""
    base = Path(name.replace("\\", "/")).name
    return re.sub(r"[^\w .()-]", "_", base)[-MAX_NAME_LETTERS:].strip() or "the clip"


@contextmanager
def _temporary_file(data: memoryview | bytes) -> Iterator[Path]:
    """A file with an upload's content, in a private folder under a random name."""
    from core.media import containers

    with contextlib.ExitStack() as stack:
        try:
            folder = tempfile.TemporaryDirectory(prefix=f"{UPLOAD_FOLDER_PREFIX}{os.getpid()}-")
            path = Path(stack.enter_context(folder), secrets.token_hex(16))
            path.write_bytes(data)
        except OSError as error:
            reason = error.strerror or str(error)
            what = f"The upload could not be stored on the machine of this app ({reason})"
            raise containers.UnreadableError(f"{what}. Make room there, and try again") from error
        yield path


# ------------------------------------------------------------------ an upload in progress


@dataclass
class PendingUpload:
    """An upload that is being read. A page that runs again meanwhile continues it."""

    sights: Iterator[TrackingProgress | TrackedClip] | None = None
    result: TrackedClip | str | None = None  # or why it cannot be used
    preview: TrackingProgress | None = None  # first frame with a face, from the middle on


@st.cache_resource(show_spinner=False, max_entries=1, scope="session")
def pending_upload(key: str) -> PendingUpload:
    """The upload that `key` names; a new one replaces it."""
    return PendingUpload()


def track_upload(
    key: str,
    name: str,
    data: memoryview | bytes,
    show: Callable[[TrackingProgress, TrackingProgress | None], None] | None = None,
    on_wait: Callable[[int], None] | None = None,
) -> TrackedClip | str:
    """An upload's frames, sound and tracked faces, or why it cannot be used.

    `show` is called every `PROGRESS_INTERVAL` seconds with the progress and the preview: the first
    frame with a face from the clip's middle on; `on_wait` with the place in the line before that.
    Raises ModelMissing; the next call starts anew.
    """
    from core.media import containers, spectrograms
    from core.media.faces import tracking

    one, last_shown = pending_upload(key), 0.0
    while one.result is None:
        one.sights = one.sights or track_bytes(name, data, on_wait)
        try:
            sight = next(one.sights)
        except containers.UnreadableError as error:
            one.sights = None  # no fault of the clip: the next call starts anew
            return str(error)
        except containers.MediaError as error:
            one.result = str(error)
            break
        except Exception:
            one.sights = None
            raise
        if isinstance(sight, tracking.TrackedClip):
            one.result = sight
            break
        is_late = sight.time >= spectrograms.centre_time(sight.header_seconds)
        is_preview = one.preview is None and bool(sight.faces) and is_late
        one.preview = sight if is_preview else one.preview
        if show and (is_preview or time.monotonic() - last_shown > PROGRESS_INTERVAL):
            show(sight, one.preview)
            last_shown = time.monotonic()
    one.sights = None
    return one.result


def track_bytes(
    name: str, data: memoryview | bytes, on_wait: Callable[[int], None] | None = None
) -> Iterator[TrackingProgress | TrackedClip]:
    from core.media.faces import tracking

    with _temporary_file(data) as path:
        yield from tracking.track_stream(path, name=safe_file_name(name), on_wait=on_wait)


@st.cache_resource(show_spinner=False, max_entries=3, scope="session")
def _analyse_person(key: str, person: int, _tracked: TrackedClip) -> AnalysedClip | str:
    from core.inference import generation
    from core.media.faces import detection

    try:
        return generation.analyse_clip(_tracked.clip, person, _tracked.tracks)
    except detection.NoFaceError as error:
        return str(error)


def analyse_upload(
    given: Any, person: int = 0, place: Any = None, bar: Any = None
) -> tuple[Clip | None, AnalysedClip | str]:
    """The clip of a file_uploader or a camera, and one person's face in its frames, or why not.

    Meanwhile the placeholder `bar` shows the progress, and `place` the preview of the face.
    Raises ModelMissing.
    """
    is_drawn = False

    def show(sight: TrackingProgress, preview: TrackingProgress | None) -> None:
        nonlocal is_drawn
        players.show_progress(bar, sight)
        if preview and not is_drawn:
            is_drawn = True
            with place.container():
                players.show_preview(preview)

    def show_place(place: int) -> None:
        bar.progress(0.0, f"Others' clips are being read; yours is number {place} in the line")

    shows = (show, show_place) if bar else (None, None)
    tracked = track_upload(given.file_id, given.name, given.getbuffer(), *shows)
    if bar:
        bar.empty()
    if isinstance(tracked, str):
        return None, tracked
    return tracked.clip, _keep_last(given.file_id, person, tracked)


# ------------------------------------------------------------------ the last clip of the session


@dataclass(frozen=True)
class LastClip:
    """The clip that a visitor gave last, with the person and the frame that he chose in it."""

    key: str  # of the upload
    tracked: TrackedClip
    seen: AnalysedClip  # its `middle` is the chosen frame


def last_clip() -> LastClip | None:
    """The last upload or picture of the webcam in which a face was found, on whatever page."""
    return st.session_state.get("last clip")


def _keep_last(key: str, person: int, tracked: TrackedClip) -> AnalysedClip | str:
    seen = _analyse_person(key, person, tracked)
    if not isinstance(seen, str):
        st.session_state["last clip"] = LastClip(key, tracked, seen)
    return seen


def analyse_last(one: LastClip, person: int) -> tuple[Clip, AnalysedClip | str]:
    """`analyse_upload` for the clip that was given last."""
    return one.tracked.clip, _keep_last(one.key, person, one.tracked)


def keep_frame(at: int) -> None:
    """Other pages get this frame of the last clip."""
    if one := last_clip():
        seen = replace(one.seen, middle=at)
        st.session_state["last clip"] = replace(one, seen=seen)


def show_last_name(one: LastClip) -> None:
    """Say beside an empty uploader which clip stands in for it."""
    st.caption(f"{safe_file_name(one.seen.name)}: your last clip, until there is another.")


# ------------------------------------------------------------------ sounds and examples


def read_waveform(key: str, name: str, data: memoryview | bytes) -> np.ndarray | str:
    """The sound of an upload or a recording, (T,) at 16 kHz, or why it has none.

    `key` names the upload; a new one replaces it.
    """
    from core.media import containers

    try:
        return _read_waveform(key, name, data)
    except containers.UnreadableError as error:
        return str(error)  # no fault of the sound: the next call tries again


@st.cache_resource(show_spinner="Listening …", max_entries=1, scope="session")
def _read_waveform(key: str, name: str, _data: memoryview | bytes) -> np.ndarray | str:
    from core.media import containers, sandbox

    sound_only = containers.Limits(frames=0)
    with _temporary_file(_data) as path:
        try:
            wave = sandbox.read_clip(path, sound_only, name=safe_file_name(name)).waveform
        except containers.UnreadableError:
            raise
        except containers.MediaError as error:
            return str(error)
    assert wave is not None  # a file without sound raises MediaError
    return wave


@st.cache_resource(show_spinner="Preparing the example …", max_entries=4)
def load_example_clip(name: str) -> tuple[Clip, AnalysedClip]:
    """A shipped example, shared by all visitors. Raises ModelMissing."""
    from core.data.demo import actors, recordings
    from core.inference import generation
    from core.media import clips

    if name == "astronaut":
        import skimage

        # Not by its own reader, which finds no plug-in where the project's path holds a bracket
        picture = Path(skimage.__file__).parent / "data" / "astronaut.png"
        clip = clips.read_clip(picture)
    else:
        happy = [t for t in actors.list_takes() if t.actor == 6 and t.emotion == "happy"]
        take = max(happy, key=lambda t: t.strength)
        frames, wave = recordings.render_clip(take, fps=12)
        clip = clips.Clip(f"{take.clip_id} (invented)", np.arange(len(frames)) / 12, frames, wave)
    return clip, generation.analyse_clip(clip)


def choose_face(kind: str) -> AnalysedClip | None:
    """The face of an example, an upload, the webcam or the last clip, which stands in for these.

    None while there is none. Raises ModelMissing.
    """
    if kind == "example":
        more = {"key": "lab example", "persist_state": "session"}
        name = st.radio("Example", list(EXAMPLES), format_func=EXAMPLES.get, **more)
        return load_example_clip(name)[1]
    given = None
    if kind == "upload":
        more = {"key": "lab upload", "help": "The first minute is read."}
        given = st.file_uploader("Video or picture that shows a face", **more)
    elif kind == "webcam":
        given = st.camera_input("Look straight into the camera", key="lab webcam")
    if given is None:
        if one := last_clip():
            show_last_name(one)
        return last_face(kind)
    with st.spinner("Looking for faces …"):
        _, seen = analyse_upload(given)
    if isinstance(seen, str):
        st.error(seen, icon=":material/error:")
        return None
    return seen


def last_face(kind: str) -> AnalysedClip | None:
    """The face that was chosen last, without asking for one. Raises ModelMissing."""
    if kind == "example":
        return load_example_clip(st.session_state.get("lab example") or next(iter(EXAMPLES)))[1]
    one = last_clip()
    return one.seen if one else None
