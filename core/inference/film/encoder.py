"""The child process of `dubbing`: decode a film within limits, mark its picture, encode it again.

It reads one request and sends one line of JSON per step of progress, then the film's bytes. The
decoder of an untrusted file and the encoder run here alone, so that neither can end the server.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.media import clips, sandbox
from core.media.clips import Clip, DecodedFrame
from core.media.containers import Limits, MediaError

RATE = 25  # frames/s of the film that is written
SOUND_RATE = 48_000  # Hz of the film's sound: some players refuse AAC at 16 kHz
PROGRESS_STEP = 5  # frames between two messages
READING, WRITING = "read", "written"  # phases of the work, in their order
MARK_HEIGHT = 22  # parts of the picture's height to one of its mark


def encode(
    clip: Clip,
    wave: np.ndarray,
    mark: str,
    metadata: dict[str, str],
    encoders: list[str],
    tell: Any,
) -> bytes:
    """An mp4 of H.264 and AAC: a clip's picture with `mark` in a corner, and `wave` at clip.rate.

    It is as long as the wave. `tell` is called with the frames written so far, and in all. Raises
    MediaError where no encoder of H.264 is installed.
    """
    name = next((n for n in encoders if n in av.codecs_available), None)
    if name is None:
        raise MediaError(
            "this installation of PyAV has no encoder of H.264, which films need: "
            "install the one of PyPI again (python -m pip install --force-reinstall av)"
        )
    total = max(1, round(len(wave) / clip.rate * RATE))
    # The frame that is nearest each moment; before the first and after the last these stay
    moments = np.arange(total) / RATE
    edges = (clip.times[1:] + clip.times[:-1]) / 2
    order = np.searchsorted(edges, moments, side="right")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as box:
        box.metadata.update(metadata)
        options = {"crf": "21", "preset": "veryfast"} if name == "libx264" else {}
        video: Any = box.add_stream(name, rate=RATE, options=options)
        height, width = (side + side % 2 for side in clip.frames.shape[1:3])
        video.height, video.width, video.pix_fmt = height, width, "yuv420p"
        audio: Any = box.add_stream("aac", rate=SOUND_RATE, layout="mono")
        label = _mark(mark, height, width)
        shown, picture = -1, clip.frames[0]
        for done, k in enumerate(order.tolist()):
            if k != shown:
                shown, picture = k, _marked(clip.frames[k], height, width, label)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = done, Fraction(1, RATE)
            box.mux(video.encode(frame))
            if done % PROGRESS_STEP == 0:
                tell(done, total)
        box.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(
            np.asarray(wave, np.float32)[None].clip(-1, 1), format="fltp", layout="mono"
        )
        sound.sample_rate, sound.pts, sound.time_base = clip.rate, 0, Fraction(1, clip.rate)
        resampler = av.AudioResampler("fltp", "mono", SOUND_RATE)
        for part in (*resampler.resample(sound), *resampler.resample(None)):
            box.mux(audio.encode(part))
        box.mux(audio.encode(None))
    return file.getvalue()


def _mark(words: str, height: int, width: int) -> np.ndarray:
    """(h, w, 4) uint8: white words on a dark ground, small enough for the picture."""
    size = max(9, height // MARK_HEIGHT)
    while True:
        font = ImageFont.load_default(size)
        left, top, right, bottom = (round(edge) for edge in font.getbbox(words))
        pad = size // 2
        w, h = right - left + 2 * pad, bottom - top + 2 * pad
        if w <= width or size <= 4:
            break
        size -= 1
    image = Image.new("RGBA", (min(w, width), min(h, height)), (0, 0, 0, 170))
    ImageDraw.Draw(image).text((pad - left, pad - top), words, "white", font)
    return np.asarray(image)


def _marked(frame: np.ndarray, height: int, width: int, label: np.ndarray) -> np.ndarray:
    """A frame of even sides with the label in its upper left corner: a player covers the lower."""
    odd = [(0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)]
    out = np.pad(frame, odd, mode="edge")
    h, w = label.shape[:2]
    corner, opacity = out[:h, :w], label[..., 3:] / 255
    corner[:] = (opacity * label[..., :3] + (1 - opacity) * corner).astype(np.uint8)
    return out


def serve(request: bytes, content: Any, pipe: Any) -> None:
    """Answer one request: its wave and its file follow in `content`."""
    asked = json.loads(request)
    limits = Limits(**asked["limits"])

    def send(**head: Any) -> None:
        pipe.write(json.dumps(head).encode() + b"\n")
        pipe.flush()

    def on_frame(one: DecodedFrame) -> None:
        if one.number % PROGRESS_STEP == 0:
            seconds = max(one.time, one.header_seconds)
            send(phase=READING, done=round(RATE * one.time), total=round(RATE * seconds))

    try:
        wave = np.frombuffer(content.read(4 * asked["samples"]), np.float32)
        source = content.read()
        sandbox.apply_limits(limits)
        clip = clips.read_clip(source, limits, not len(wave), asked["name"], on_frame)
        if clip.is_still:
            raise MediaError(f"{asked['name']} is a picture, not a film. Choose a film")
        if not len(wave):  # its own sound, which `read_clip` has asked for
            assert clip.waveform is not None
            wave = clip.waveform
        wave = wave[: round(limits.seconds * clip.rate)]
        tell = lambda done, total: send(phase=WRITING, done=done, total=total)  # noqa: E731
        film = encode(clip, wave, asked["mark"], asked["metadata"], asked["encoders"], tell)
        send(bytes=len(film))
        pipe.write(film)
        pipe.flush()
    except MediaError as error:
        send(failure=str(error))
    except MemoryError:
        send(failure=f"{asked['name']} needs more than {limits.memory / 2**20:.0f} MiB. Cut it")


def request_line(
    name: str,
    limits: Limits,
    samples: int,
    mark: str,
    metadata: dict[str, str],
    encoders: tuple[str, ...],
) -> bytes:
    """What `serve` reads first."""
    fields = {"name": name, "limits": dataclasses.asdict(limits), "samples": samples}
    fields |= {"mark": mark, "metadata": metadata, "encoders": encoders}
    return json.dumps(fields).encode() + b"\n"


if __name__ == "__main__":
    if line := sys.stdin.buffer.readline():  # empty where the parent has ended
        with os.fdopen(os.dup(1), "wb") as result_pipe:
            # A library that prints must not print into the messages.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            serve(line, sys.stdin.buffer, result_pipe)
