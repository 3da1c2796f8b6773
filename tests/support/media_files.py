"""Media that a test makes itself.

Frames, tones, films of any container, and how a refusal is asserted.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from core.config.settings import LogMel
from core.media.containers import MediaError

S = LogMel()

RATE = 16_000


def pictures(count: int = 25, h: int = 96, w: int = 128) -> np.ndarray:
    """Grey frames that grow brighter, with a white mark in the upper left corner and a black one in
    the lower left.
    """
    frames = np.empty((count, h, w, 3), np.uint8)
    frames[:] = np.linspace(60, 180, count).astype(np.uint8)[:, None, None, None]
    frames[:, : h // 4, : w // 4] = 255
    frames[:, -h // 4 :, : w // 4] = 0
    return frames


def tone(seconds: float = 1.0, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def write(
    path,
    codec="mpeg4",
    frames=None,
    sound=None,
    audio="aac",
    pix="yuv420p",
    pts=None,
    rate=44_100,
    start=0,
    shape=1,
    options=None,
):
    """A file by PyAV: `sound` (T,) or (2, T) at `rate` Hz from sample `start` on.

    `pts` in milliseconds, one for each frame.
    """
    frames = pictures() if frames is None else frames
    with av.open(str(path), "w", options=options or {}) as box:
        layout = "stereo" if np.ndim(sound) == 2 else "mono"
        video = box.add_stream(codec, rate=25) if len(frames) else None
        voice = box.add_stream(audio, rate=rate, layout=layout) if sound is not None else None
        if video:
            video.height, video.width, video.pix_fmt, video.bit_rate = (
                *frames.shape[1:3],
                pix,
                4_000_000,
            )
            video.codec_context.sample_aspect_ratio = shape
            for k, frame in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                if pts is not None:
                    picture.pts, picture.time_base, video.codec_context.time_base = (
                        pts[k],
                        Fraction(1, 1000),
                        Fraction(1, 1000),
                    )
                box.mux(video.encode(picture))
            box.mux(video.encode(None))
        if voice:
            heard = av.AudioFrame.from_ndarray(
                np.atleast_2d(sound).astype(np.float32), format="fltp", layout=layout
            )
            heard.sample_rate, heard.pts, heard.time_base = rate, start, Fraction(1, rate)
            box.mux(voice.encode(heard))
            box.mux(voice.encode(None))
    return path


def refused(says: str, read, *args, **options) -> None:
    with pytest.raises(MediaError, match=says):
        read(*args, **options)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def voice_like(seconds=1.5, seed=0):
    """A buzz with a moving pitch and formant-like colour, so that tests need no recording."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * S.rate)) / S.rate
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(3 * t)) / S.rate
    wave = sum(np.sin(h * phase) / h * (1 + np.cos(h * 0.7)) for h in range(1, 30)) * (
        0.6 + 0.4 * np.sin(9 * t)
    )
    return (0.1 * wave + 0.002 * rng.normal(size=len(t))).astype(np.float32)
