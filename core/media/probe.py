"""§4.1: facts about one media file with little decoding: length, level, whether it shows a face.

As in `clips`, a file is read by its content, not its name. Levels are in dB of full scale (dBFS),
lengths in seconds. Error messages call the file "it"; the caller knows its name.
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

from core.media import clips, containers
from core.media.containers import DEFAULT_LIMITS, MediaError

MIN_GREY_SD = 3.0  # standard deviation of grey levels, of 255, below which a picture is plain
MAX_FRAMES_AFTER_SEEK = 250  # frames decoded to get from a key frame to the wanted moment


@dataclass(frozen=True)
class VideoInfo:
    """Facts from a video's packets; no frame is decoded."""

    seconds: float  # length of the picture that the file holds
    header_seconds: float | None  # seconds by its header, None where it states none
    sound: bool  # it has a sound stream with packets in it


@dataclass(frozen=True)
class AudioInfo:
    """A sound whose first minute was decoded."""

    seconds: float  # length of the sound that the file holds, also beyond that minute
    header_seconds: float | None  # seconds by its header, where that can differ
    peak_dbfs: float  # dBFS, at least -200
    rate: int  # Hz; 0 for the sound of a video
    channels: int


def video_info(path: Path, kind: str) -> VideoInfo:
    """Facts about a video of that kind (a key of VIDEO_DEMUXERS), from its packets.

    Raises MediaError where it cannot be opened or has no picture.
    """
    with containers.open_container(path, kind) as box:
        picture = _picture_stream(box)
        promised = box.duration / 1e6 if box.duration else None
        if kind == "flv":
            promised = _flv_header_seconds(path)
        first, last, stamps, has_sound = math.inf, -math.inf, 0, False
        with contextlib.suppress(av.FFmpegError):  # the rest is lost; what is there is counted
            for packet in box.demux([picture, *box.streams.audio]):
                has_sound |= packet.stream is not picture and packet.size > 0
                if packet.stream is picture and packet.size and packet.pts is not None:
                    t = float(packet.pts * packet.time_base)
                    first, last, stamps = min(first, t), max(last, t), stamps + 1
    if not stamps:
        raise MediaError("it has no picture in it")
    # From the first frame to the last, plus the time for which the last one is shown.
    seconds = (last - first) * stamps / max(stamps - 1, 1)
    return VideoInfo(seconds, promised if promised and promised > 0 else None, has_sound)


def _picture_stream(box: Any) -> Any:
    stream = containers.video_stream(box)
    if stream is None:
        raise MediaError("it has no picture that can be decoded")
    return stream


def _flv_header_seconds(path: Path) -> float | None:
    """Seconds that an flv's script tag states; FFmpeg invents a length where the tag is missing."""
    with path.open("rb") as file:
        head = file.read(2**14)
    at = head.find(b"duration\0")  # an AMF number follows: a zero, then 64 bits
    if not 0 <= at <= len(head) - 17:
        return None
    seconds = struct.unpack(">d", head[at + 9 : at + 17])[0]
    return seconds if 0 < seconds < 1e6 else None


def audio_info(path: Path, kind: str) -> AudioInfo:
    """Facts about the sound of a file of that kind; for a video, rate and channels are 0.

    `kind` is a key of AUDIO_DEMUXERS or VIDEO_DEMUXERS. Raises MediaError if there is no sound.
    """
    import soundfile

    if kind in containers.AUDIO_DEMUXERS:
        with contextlib.suppress(soundfile.LibsndfileError), soundfile.SoundFile(path) as file:
            peak, most = 0.0, round(DEFAULT_LIMITS.seconds * file.samplerate)
            while file.tell() < most and len(data := file.read(2**16, dtype="float32")):
                peak = max(peak, float(np.nan_to_num(np.abs(data), posinf=1.0).max()))
            seconds, promised = file.frames / file.samplerate, None
            if kind == "wav":
                promised = _wav_header_seconds(path)
            return AudioInfo(seconds, promised, _to_dbfs(peak), file.samplerate, file.channels)
    wave = clips.read_waveform(path, name="it")
    return AudioInfo(len(wave) / 16_000, None, _to_dbfs(float(np.abs(wave).max())), 0, 0)


def _to_dbfs(peak: float) -> float:
    return 20 * math.log10(max(peak, 1e-10))


def _wav_header_seconds(path: Path) -> float | None:
    """Seconds that the header of a wav states; None for a stream whose end was not known."""
    with path.open("rb") as file:
        head = file.read(2**16)
    at, per_second = 12, 0
    while at + 8 <= len(head):
        size = struct.unpack("<I", head[at + 4 : at + 8])[0]
        if head[at : at + 4] == b"fmt " and at + 20 <= len(head):
            per_second = struct.unpack("<I", head[at + 16 : at + 20])[0]
        if head[at : at + 4] == b"data":
            return size / per_second if per_second and 0 < size < 2**32 - 2**16 else None
        at += 8 + size + size % 2  # also over the FLLR chunk that Apple's writers pad with
    return None


def has_face(path: Path, kind: str, seconds: float, frames: int = 3) -> bool:
    """Whether one of at most `frames` frames of a picture or video of that length shows a face.

    The middle frame is decoded first. Raises MediaError if not one frame can be decoded,
    ModelMissing without the landmark model.
    """
    from core.media.faces import detection

    return any(detection.detect(frame) for frame in _sample_frames(path, kind, seconds, frames))


def crop_fault(path: Path, kind: str) -> str:
    """The fault of a picture that one face should fill, or "" if it has none.

    "no-landmarks" if no landmarks are found, "no-face" if the picture is plain. Raises MediaError
    for a damaged picture.
    """
    from PIL import Image

    from core.media.faces import alignment

    picture = next(_sample_frames(path, kind, 0.0, 1))
    grey = np.asarray(Image.fromarray(picture).convert("L").resize((48, 48)))
    if grey.std() < MIN_GREY_SD:
        return "no-face"
    return "" if alignment.align_crops(grey[None], workers=1)[1][0] else "no-landmarks"


def _sample_frames(path: Path, kind: str, seconds: float, most: int) -> Iterator[np.ndarray]:
    """At most `most` frames (H, W, 3) uint8 RGB, spread over the clip, the middle first."""
    if kind in containers.PICTURE_FORMATS:
        yield clips.read_clip(path, name="it").frames[0]
        return
    with containers.open_container(path, kind) as box:
        stream = _picture_stream(box)
        stream.codec_context.thread_count = 1
        start, shown = (box.start_time or 0) / 1e6, False
        shares = [(k + 0.5) / most for k in range(most)]
        for at in sorted(shares, key=lambda share: abs(share - 0.5)):
            wanted, frame = start + at * seconds, None
            # Seek to the key frame before; if that fails, decoding goes on from where it is.
            with contextlib.suppress(av.FFmpegError):
                box.seek(int(wanted * 1e6))
            with contextlib.suppress(av.FFmpegError, StopIteration):
                decoded = box.decode(stream)
                for _ in range(MAX_FRAMES_AFTER_SEEK):
                    frame = next(decoded)
                    if frame.time is None or frame.time >= wanted - 0.02:
                        break
            if frame is None:
                continue
            if frame.width * frame.height > DEFAULT_LIMITS.pixels:
                size = f"{frame.width} x {frame.height} pixels"
                raise MediaError(f"it has {size}, more than are taken")
            shown = True
            yield frame.to_ndarray(format="rgb24")
    if not shown:
        raise MediaError("not one frame of it could be decoded")
