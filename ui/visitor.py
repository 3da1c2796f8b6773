"""A visitor's clip: read, looked at, and forgotten.

An upload lies on disk, in a private folder and under a random name, only while it is decoded in a process of its own. What was decoded is
kept in memory for this visitor's session alone and dropped when the next clip comes or the page is closed.
"""

from __future__ import annotations

import re
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from ui.access import UPLOADS

if TYPE_CHECKING:
    from core.clips import Clip
    from core.studio import Seen

EXAMPLES = {
    "astronaut": "Photograph of an astronaut (Eileen Collins, public domain)",
    "drawn": "Clip of a drawn face that talks (invented)",
}


def plain(name: str) -> str:
    """A file's name as it may be shown: what a browser sends is not trusted, not even as text."""
    return re.sub(r"[^\w .()-]", "_", Path(name.replace("\\", "/")).name)[-60:].strip() or "the clip"


@st.cache_resource(show_spinner="Reading the clip …", max_entries=1, scope="session")
def decoded(key: str, name: str, _data: memoryview | bytes) -> Clip | str:
    """An upload as frames and sound, or in words why it is none. `key` names the upload; a new one takes the old one's place."""
    from core import clips

    with tempfile.TemporaryDirectory(prefix=UPLOADS) as folder:
        path = Path(folder, secrets.token_hex(16))
        path.write_bytes(_data)
        try:
            return clips.read_clip_apart(path, name=plain(name))
        except clips.MediaError as error:
            return str(error)


@st.cache_resource(show_spinner="Listening …", max_entries=1, scope="session")
def heard(key: str, name: str, _data: memoryview | bytes) -> np.ndarray | str:
    """The sound of an upload or a recording, (T,) at 16 kHz, or in words why it has none. As `decoded`."""
    from core import clips

    with tempfile.TemporaryDirectory(prefix=UPLOADS) as folder:
        path = Path(folder, secrets.token_hex(16))
        path.write_bytes(_data)
        try:
            wave = clips.read_clip_apart(path, clips.Limits(frames=0), name=plain(name)).waveform
            assert wave is not None  # a file without sound is refused
            return wave
        except clips.MediaError as error:
            return str(error)


@st.cache_resource(show_spinner="Looking for faces …", max_entries=3, scope="session")
def looked_at(key: str, person: int, _clip: Clip) -> Seen | str:
    """One person's face in every frame of a clip, or in words why there is none. Raises ModelMissing, which is not kept."""
    from core import faces, studio

    try:
        return studio.see(_clip, person)
    except faces.NoFaceError as error:
        return str(error)


@st.cache_resource(show_spinner="Preparing the example …", max_entries=4)
def example(name: str) -> tuple[Clip, Seen]:
    """A shipped example, the same for all visitors. Raises ModelMissing."""
    from core import clips, demo, studio

    if name == "astronaut":
        from skimage import data

        clip = clips.Clip("astronaut.png", np.zeros(1), data.astronaut()[None], None, is_still=True)
    else:
        take = max((t for t in demo.takes() if t.actor == 6 and t.emotion == "happy"), key=lambda t: t.strength)
        frames, wave = demo.clip(take, fps=12)
        clip = clips.Clip(f"{take.clip_id} (invented)", np.arange(len(frames)) / 12, frames, wave)
    return clip, studio.see(clip)
