"""Whole clips of the demo corpus, as arrays and as media files to try things on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from core import files
from core.data.demo import actors, expressions, voices
from core.media import waveforms

FRAME_RATE = 25  # frames a second


def render_clip(
    take: actors.Take,
    seed: int = 0,
    fps: int = FRAME_RATE,
    size: int = 320,
    difficulty: actors.Difficulty = actors.DEFAULT_DIFFICULTY,
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (F, size, size, 3) uint8 at `fps`, and the voice (T,) float32 at 16 kHz."""
    wave = voices.synthesise_voice(take, seed, difficulty)
    times = (k / fps for k in range(round(len(wave) / voices.RATE * fps)))
    frames = [expressions.render_face(take, seed, t, size, difficulty)[0] for t in times]
    return np.stack(frames), wave


def draw_demo_clips(
    folder: Path, count: int, tick: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Write clips as mp4 and wav, spread over actors and emotions; returns the videos.

    `tick(clips done, clips in all)` is called after each.
    """
    from core.media import clips

    folder.mkdir(parents=True, exist_ok=True)
    takes = actors.list_takes()
    # 67 shares no factor with 24 x 6 x 10, so that no clip is chosen twice
    chosen = [takes[(i * 67) % len(takes)] for i in range(min(count, len(takes)))]
    for i, take in enumerate(chosen):
        frames, wave = render_clip(take)
        clips.write_clip(folder / f"{take.clip_id}.mp4", frames, FRAME_RATE, wave)
        wav = waveforms.wav_bytes(wave, voices.RATE, "invented", fade=0.0)
        files.write_atomic(folder / f"{take.clip_id}.wav", wav)
        if tick:
            tick(i + 1, len(chosen))
    return [folder / f"{take.clip_id}.mp4" for take in chosen]
