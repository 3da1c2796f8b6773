"""§4.1: one media file, cheaply: what it is, how long, how loud, whether a face is to be seen. Nothing is decoded that need not be.

As in `clips`, content and not the name decides how a file is read. Levels are in dB of full scale (dBFS), lengths in seconds.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from core.media import clips
from core.media.containers import (
    AUDIO_DEMUXERS,
    PICTURE_FORMATS,
    VIDEO_DEMUXERS,
    Limits,
    MediaError,
)

SNIFF_BYTES = 600  # bytes that `clips.sniff` wants
MIN_GREY_SD = 3.0  # standard deviation of grey levels, of 255, below which a picture shows nothing
MAX_FRAMES_AFTER_SEEK = (
    250  # frames that are decoded at most to get from a key frame to the moment wanted
)


@dataclass(frozen=True)
class VideoInfo:
    """What a video's packets say, with none decoded."""

    seconds: float  # of picture that is there
    header_seconds: float | None  # seconds by its header, None where that is silent
    sound: bool  # it has a stream of sound with something in it


@dataclass(frozen=True)
class AudioInfo:
    """A sound that was heard through, for its first minute."""

    seconds: float  # that are there, also beyond that minute
    header_seconds: float | None  # seconds by its header, where that can differ
    peak_dbfs: float  # dBFS, at least -200
    rate: int  # Hz; 0 for the sound of a video
    channels: int


@contextlib.contextmanager
def _open_container(path: Path, kind: str) -> Iterator[Any]:
    try:
        box = av.open(
            str(path.resolve()),
            format=(VIDEO_DEMUXERS | AUDIO_DEMUXERS)[kind],
            metadata_errors="ignore",
            options={"protocol_whitelist": "file"},
        )
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(f"it begins as {kind} but cannot be opened") from error
    with box:
        yield box


def video_info(path: Path, kind: str) -> VideoInfo:
    """A video of that kind (a key of clips.FILMS) from its packets. Raises MediaError where it cannot be opened or has no picture."""
    with _open_container(path, kind) as box:
        picture = _video_stream(box)
        promised = (
            _flv_header_seconds(path)
            if kind == "flv"
            else box.duration / 1e6
            if box.duration
            else None
        )
        first, last, stamps, heard = math.inf, -math.inf, 0, False
        with contextlib.suppress(av.FFmpegError):  # the rest is lost; what is there is counted
            for packet in box.demux([picture, *box.streams.audio]):
                heard |= packet.stream is not picture and packet.size > 0
                if packet.stream is picture and packet.size and packet.pts is not None:
                    t = float(packet.pts * packet.time_base)
                    first, last, stamps = min(first, t), max(last, t), stamps + 1
        if not stamps:
            raise MediaError("it has no picture in it")
        # From the first to the last frame, and the time for which that is shown.
        return VideoInfo(
            (last - first) * stamps / max(stamps - 1, 1),
            promised if promised and promised > 0 else None,
            heard,
        )


def _video_stream(box: Any) -> Any:
    stream = next(
        (s for s in box.streams.video if not s.disposition & av.stream.Disposition.attached_pic),
        None,
    )
    if stream is None or stream.codec_context is None:
        raise MediaError("it has no picture that can be decoded")
    return stream


def _flv_header_seconds(path: Path) -> float | None:
    """Seconds that the script tag at the start of an flv states; FFmpeg makes a length up where it is missing."""
    with path.open("rb") as file:
        head = file.read(2**14)
    at = head.find(b"duration\0")  # an AMF number follows: a zero, then 64 bits
    seconds = (
        struct.unpack(">d", head[at + 9 : at + 17])[0] if 0 <= at <= len(head) - 17 else math.nan
    )
    return seconds if 0 < seconds < 1e6 else None


def audio_info(path: Path, kind: str) -> AudioInfo:
    """The sound of a file of that kind, a key of clips.SOUNDS, or of clips.FILMS (then rate and channels are 0).

    Raises MediaError if there is none.
    """
    import soundfile

    if kind in AUDIO_DEMUXERS:
        with contextlib.suppress(soundfile.LibsndfileError), soundfile.SoundFile(path) as file:
            peak, most = 0.0, round(Limits().seconds * file.samplerate)
            while file.tell() < most and len(data := file.read(2**16, dtype="float32")):
                peak = max(peak, float(np.nan_to_num(np.abs(data), posinf=1.0).max()))
            promised = _wav_header_seconds(path) if kind == "wav" else None
            return AudioInfo(
                file.frames / file.samplerate,
                promised,
                _to_dbfs(peak),
                file.samplerate,
                file.channels,
            )
    wave = clips.read_waveform(path, name="it")
    return AudioInfo(len(wave) / 16_000, None, _to_dbfs(float(np.abs(wave).max())), 0, 0)


def _to_dbfs(peak: float) -> float:
    return 20 * math.log10(max(peak, 1e-10))


def _wav_header_seconds(path: Path) -> float | None:
    """Seconds that the header of a wav promises. None where it says nothing, as of a stream whose end was not known."""
    with path.open("rb") as file:
        head = file.read(2**16)
    at, per_second = 12, 0
    while at + 8 <= len(head):
        size = struct.unpack("<I", head[at + 4 : at + 8])[0]
        if head[at : at + 4] == b"fmt " and at + 20 <= len(head):
            per_second = struct.unpack("<I", head[at + 16 : at + 20])[0]
        if head[at : at + 4] == b"data":
            return size / per_second if per_second and 0 < size < 2**32 - 2**16 else None
        at += (
            8 + size + size % 2
        )  # also over an FLLR chunk, with which Apple's writers fill the space before the data
    return None


def has_face(path: Path, kind: str, seconds: float, frames: int = 3) -> bool:
    """Whether one of at most `frames` frames of a picture or a video shows a face: first the middle of its `seconds`, then outwards.

    Raises MediaError if not one frame can be decoded, ModelMissing without the landmark model.
    """
    from core.media.faces import detection

    return any(detection.detect(picture) for picture in _sample_frames(path, kind, seconds, frames))


def crop_fault(path: Path, kind: str) -> str:
    """A picture that one face should fill: "" if it does, "no-landmarks" if none are found in it, "no-face" if it is plain.

    Raises MediaError for a damaged picture.
    """
    from PIL import Image

    from core.media.faces import alignment

    picture = next(_sample_frames(path, kind, 0.0, 1))
    grey = Image.fromarray(picture).convert("L").resize((48, 48))
    if np.asarray(grey).std() < MIN_GREY_SD:
        return "no-face"
    return "" if alignment.align_crops(np.asarray(grey)[None], workers=1)[1][0] else "no-landmarks"


def _sample_frames(path: Path, kind: str, seconds: float, most: int) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB, spread over the clip, the middle first."""
    if kind in PICTURE_FORMATS:
        yield clips.read_clip(path, name="it").frames[0]
        return
    with _open_container(path, kind) as box:
        stream = _video_stream(box)
        stream.codec_context.thread_count = 1
        start, shown = (box.start_time or 0) / 1e6, False
        for at in sorted(
            ((k + 0.5) / most for k in range(most)), key=lambda share: abs(share - 0.5)
        ):
            wanted, frame = start + at * seconds, None
            with contextlib.suppress(av.FFmpegError):
                box.seek(
                    int(wanted * 1e6)
                )  # to the key frame before it; where that fails reading goes on from where it stands
            with contextlib.suppress(av.FFmpegError, StopIteration):
                decoded = box.decode(stream)
                for _ in range(MAX_FRAMES_AFTER_SEEK):
                    frame = next(decoded)
                    if frame.time is None or frame.time >= wanted - 0.02:
                        break
            if frame is None:
                continue
            if frame.width * frame.height > Limits().pixels:
                raise MediaError(
                    f"it has {frame.width} x {frame.height} pixels, more than are taken"
                )
            shown = True
            yield frame.to_ndarray(format="rgb24")
    if not shown:
        raise MediaError("not one frame of it could be decoded")
