"""Listen: the clip itself, played with a generated voice in step with its picture."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from core.files import UserError
from ui import theme
from ui.session import cache
from ui.session.cache import RunFamily, cache_with_progress
from ui.widgets import players, uploads

if TYPE_CHECKING:
    from core.inference.generation import AnalysedClip
    from core.media.clips import Clip

ORIGINAL = "original"
MAX_WIDTH, MAX_HEIGHT = 480, 320  # pixels of the player
ABOUT = (
    "The film of up to 20 s with its picture in step with the voice, as mp4 (H.264 and AAC). It "
    "says in a corner of its picture and in its metadata that its voice is nobody's. The "
    "original sound is there for comparison."
)
Report = Callable[[str, float, float], None]


@st.cache_resource(show_spinner=False, max_entries=2, scope="session")
def clip_content(key: str, _clip: Clip) -> bytes:
    """A film of the frames that are kept of the clip that `key` names, whose file is not here."""
    from core.media import clips

    clip = _clip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "example.mp4")
        fps = (len(clip.times) - 1) / float(clip.times[-1])
        clips.write_clip(path, clip.frames, fps, clip.waveform)
        return path.read_bytes()


@cache_with_progress(6, scope="session")
def speaking_film(
    directory: Path,
    key: str,
    sound: str,
    emotion: str | None,
    seed: int,
    _content: bytes,
    _name: str,
    _seen: AnalysedClip,
    _report: Report,
) -> bytes:
    """The film that `key` names with the voice of this run, or with its own sound. Raises
    UserError.
    """
    from core.inference.film import dubbing

    if sound == ORIGINAL:
        return dubbing.with_own_sound(_content, _name, _report)
    voice = cache.generate_long_voice(directory.name, key, _seen, emotion, seed)
    comment = f"dacssGAN {directory.name} seed {seed}; {dubbing.GENERATED_MARK}"
    return dubbing.with_voice(_content, _name, voice.sound.wave, comment, _report)


def show_film(
    family: RunFamily,
    clip: Clip,
    seen: AnalysedClip,
    key: str,
    content: Callable[[], bytes],
    emotion: str | None,
    seed: int,
    stem: str,
) -> None:
    """A choice of sounds, and the film with the chosen one; nothing is encoded before a choice."""
    titles = {k: theme.CONDITION_TEXTS[k][0] for k in family.shown if k in family.members}
    if seen.waveform is not None:
        titles[ORIGINAL] = "Original sound"
    left, right = st.columns([1, 2], gap="medium")
    with left:
        more = {"key": "film", "persist_state": "session", "help": ABOUT}
        sound = st.segmented_control("Play the clip with", titles, format_func=titles.get, **more)
    if sound not in titles:
        right.caption("Choose a sound: the clip is played with it, in step with the picture.")
        return
    bar = right.empty()
    report = lambda words, done, total: bar.progress(  # noqa: E731
        min(done / total, 1.0) if total else 0.0, f"{words} …"
    )
    run_id = family.members.get(sound, family.id)
    told = emotion if sound == "label" else None
    name = uploads.safe_file_name(clip.name)
    try:
        film = speaking_film(run_id, key, sound, told, seed, content(), name, seen, report)
    except UserError as error:
        bar.error(theme.escape_markdown(str(error)), icon=":material/error:")
        return
    bar.empty()
    with right:
        height, width = clip.frames.shape[1:3]
        st.video(film, "video/mp4", width=min(MAX_WIDTH, round(MAX_HEIGHT * width / height)))
    with left:
        players.download("mp4", film, f"{stem}-{sound}.mp4", key="mp4 film")
        if sound == ORIGINAL:
            st.caption("The clip as it is, encoded in the same way.")
        else:
            st.caption("Generated, nobody's voice: the film says so in its picture and metadata.")
