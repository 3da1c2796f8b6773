"""§4.1: facts about one media file with little decoding: its length, its level, its sound.

As in `clips`, a file is read by its content, not its name. Levels are in dB of full scale (dBFS),
lengths in seconds. Error messages call the file "it"; the caller knows its name.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
from dataclasses import dataclass
from typing import Any

import av

from core.config.settings import LogMel
from core.media import clips, containers, spectrograms
from core.media.containers import Content, MediaError


@dataclass(frozen=True)
class VideoInfo:
    """Facts from a video's packets; no frame is decoded."""

    seconds: float  # length of the picture that the file holds
    header_seconds: float | None  # seconds by its header, None where it states none
    sound: bool  # it has a sound stream with packets in it
    whole_seconds: float  # from the start of the earlier stream to the end of the later one


@dataclass(frozen=True)
class AudioInfo:
    """A sound whose first minute was decoded."""

    seconds: float  # length of the sound that the file holds, also beyond that minute
    header_seconds: float | None  # seconds by its header, where that can differ
    peak_dbfs: float  # dBFS of the channels' mean, at least -200
    rate: int  # Hz; 0 for the sound of a video
    channels: int
    # Column from which the voice is taken, and whether it is the middle; None: no voice anywhere
    start: int | None = 0
    is_middle: bool = True


def video_info(source: Content, kind: str) -> VideoInfo:
    """Facts about a video of that kind (a key of VIDEO_DEMUXERS), from its packets.

    Raises MediaError where it cannot be read or opened, or has no picture.
    """
    _, content = containers.read_media(source, "it")
    with containers.open_container(content, kind) as box:
        picture = _picture_stream(box)
        promised = box.duration / 1e6 if box.duration else None
        if kind == "flv":
            promised = _flv_header_seconds(content)
        # Of each stream: time of the first packet, of the last one, how many there are
        spans = {s.index: [math.inf, -math.inf, 0.0] for s in (picture, *box.streams.audio)}
        with contextlib.suppress(av.FFmpegError):  # the rest is lost; what is there is counted
            for packet in box.demux([picture, *box.streams.audio]):
                if packet.size and packet.pts is not None:
                    t, span = float(packet.pts * packet.time_base), spans[packet.stream.index]
                    last = float((packet.duration or 0) * packet.time_base)
                    last *= packet.stream is not picture
                    span[:] = min(span[0], t), max(span[1], t + last), span[2] + 1
        first, last, stamps = spans.pop(picture.index)
    if not stamps:
        raise MediaError("it has no picture in it")
    # From the first frame to the last, plus the time for which the last one is shown.
    seconds = (last - first) * stamps / max(stamps - 1, 1)
    ends = [(first, first + seconds), *((a, b) for a, b, n in spans.values() if n)]
    whole = max(b for _, b in ends) - min(a for a, _ in ends)
    promised = promised if promised and promised > 0 else None
    return VideoInfo(seconds, promised, any(n for *_, n in spans.values()), whole)


def _picture_stream(box: Any) -> Any:
    stream = containers.video_stream(box)
    if stream is None:
        raise MediaError("it has no picture that can be decoded")
    return stream


def _flv_header_seconds(content: bytes) -> float | None:
    """Seconds that an flv's script tag states; FFmpeg invents a length where the tag is missing."""
    head = content[: 2**14]
    at = head.find(b"duration\0")  # an AMF number follows: a zero, then 64 bits
    if not 0 <= at <= len(head) - 17:
        return None
    seconds = struct.unpack(">d", head[at + 9 : at + 17])[0]
    return seconds if 0 < seconds < 1e6 else None


def audio_info(source: Content, kind: str) -> AudioInfo:
    """Facts about the sound of a file of that kind; for a video, rate and channels are 0.

    Levels are those of the waveform that preparation takes: the channels' mean, at 16 kHz. `kind`
    is a key of AUDIO_DEMUXERS or VIDEO_DEMUXERS. Raises MediaError if there is no sound.
    """
    import soundfile

    _, content = containers.read_media(source, "it")
    wave, s = clips.read_waveform(content, name="it"), LogMel()
    peak, seconds = spectrograms.peak_dbfs(wave), len(wave) / s.rate
    start = spectrograms.voiced_start(wave, s, s.columns)
    window = start, start == max(0, (1 + len(wave) // s.hop - s.columns) // 2)
    if kind in containers.AUDIO_DEMUXERS and kind in containers.SOUNDFILE_KINDS:
        with (
            contextlib.suppress(soundfile.LibsndfileError),
            soundfile.SoundFile(io.BytesIO(content)) as file,
        ):
            seconds = file.frames / file.samplerate
            promised = _wav_header_seconds(content) if kind == "wav" else None
            return AudioInfo(seconds, promised, peak, file.samplerate, file.channels, *window)
    return AudioInfo(seconds, None, peak, 0, 0, *window)


def sound_lead(content: bytes, name: str = "the film") -> float:
    """Seconds after a film's first picture at which its sound begins; 0 if it begins before.

    That is the silence at the start of `read_clip`'s waveform, which `read_waveform` leaves out.
    """
    kind, _ = containers.read_media(content, name)
    if kind not in containers.VIDEO_DEMUXERS:
        return 0.0
    with containers.open_container(content, kind, name) as box:
        streams = containers.video_stream(box), next(iter(box.streams.audio), None)
        starts = [float((s.start_time or 0) * s.time_base) for s in streams if s]
    lead = starts[-1] - starts[0] if starts else 0.0
    return lead if 0 < lead <= clips.MAX_TIMESTAMP_JUMP else 0.0


def _wav_header_seconds(content: bytes) -> float | None:
    """Seconds that the header of a wav states; None for a stream whose end was not known."""
    head = content[: 2**16]
    at, per_second = 12, 0
    while at + 8 <= len(head):
        size = struct.unpack("<I", head[at + 4 : at + 8])[0]
        if head[at : at + 4] == b"fmt " and at + 20 <= len(head):
            per_second = struct.unpack("<I", head[at + 16 : at + 20])[0]
        if head[at : at + 4] == b"data":
            return size / per_second if per_second and 0 < size < 2**32 - 2**16 else None
        at += 8 + size + size % 2  # also over the FLLR chunk that Apple's writers pad with
    return None
