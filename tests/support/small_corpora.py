"""Corpora of a few clips, and what preparation leaves in its folder."""

import functools
from pathlib import Path

import numpy as np
import soundfile

from core.config.settings import LogMel
from core.data.demo import actors, recordings
from core.media import clips

FILM_FPS, FILM_SIZE = 12, 160  # frames a second; pixels of a side


def write_noise(path: Path, seconds: float = 1.2, channels: int = 1) -> None:
    """A wav of noise that is another one for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([ord(c) for c in path.name])
    soundfile.write(path, rng.normal(0, 0.05, (int(seconds * 16_000), channels)), 16_000)


def write_ravdess_sounds(root: Path, people: int = 2, emotions=(1, 2, 5)) -> Path:
    """Sounds of noise under RAVDESS' names, of one channel and of two."""
    for actor in range(1, people + 1):
        for emotion in emotions:
            name = f"03-01-{emotion:02d}-01-02-01-{actor:02d}.wav"
            folder, seconds = root / f"Actor_{actor:02d}", 0.8 + 0.1 * emotion
            write_noise(folder / name, seconds, channels=1 + actor % 2)
    return root


@functools.cache
def demo_takes(count: int = 2) -> list[tuple[actors.Take, np.ndarray, np.ndarray]]:
    """Takes of several actors and emotions, with their frames and voices."""
    takes = actors.list_takes()[::67][:count]
    return [(t, *recordings.render_clip(t, fps=FILM_FPS, size=FILM_SIZE)) for t in takes]


def write_demo_clips(folder: Path, count: int = 2) -> Path:
    """Clips of the invented corpus as mp4 and wav."""
    for take, frames, wave in demo_takes(count):
        clips.write_clip(folder / f"{take.clip_id}.mp4", frames, FILM_FPS, wave)
        soundfile.write(folder / f"{take.clip_id}.wav", wave, LogMel().rate)
    return folder


def is_clean(processed: Path) -> bool:
    """Whether nothing but finished files and locks is left.

    The arrays, where their media lie, and no parts.
    """
    lying = {p.relative_to(processed).as_posix() for p in processed.rglob("*") if p.is_file()}
    whole = {f for f in lying if not f.startswith(".") and f.endswith((".npz", ".source.json"))}
    folders = {p.name for p in processed.rglob("*") if p.is_dir()}
    locks = {f".parts/{Path(f).stem}.lock" for f in whole}
    return lying - whole <= locks and folders <= {".parts"}
