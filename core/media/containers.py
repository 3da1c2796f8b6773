"""§4.1: the kind of a media file, the limits for reading it, and the opening of its container.

The demuxer is chosen by the file's content, never by its name, so that no playlist or script of an
untrusted file is ever run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from core.files import UserError

# Kind of a file -> name of FFmpeg's demuxer, or of PIL's format.
VIDEO_DEMUXERS = {"mp4": "mov", "webm": "matroska", "mpg": "mpeg", "ts": "mpegts"} | {
    kind: kind for kind in ("flv", "avi", "ogg", "asf", "gif")
}
AUDIO_DEMUXERS = {kind: kind for kind in ("wav", "mp3", "flac", "aac")}
PICTURE_FORMATS = {"jpg": "JPEG"} | {
    kind: kind.upper() for kind in ("png", "webp", "bmp", "tiff", "avif")
}

SNIFF_BYTES = 600  # first bytes of a file that `sniff_kind` looks at
RETRY_HINT, EXPORT_HINT = "Copy or record it again", "Export it again as mp4 (H.264)"

PathName = str | os.PathLike[str]


class MediaError(UserError):
    """A file that cannot be used; the message names the file, the reason and the fix."""


@dataclass(frozen=True)
class Limits:
    """Limits of one file. Above seconds, side, fps or frames, part is read; else it is an error."""

    seconds: float = 60.0  # s that are read, from the start
    bytes: int = 200 * 2**20  # size of the file
    pixels: int = 2**25  # pixels of one frame (8192 x 4096)
    side: int = 640  # pixels of a kept frame's long side; larger frames are scaled down
    fps: float = 12.5  # most frames kept per second
    frames: int = 400  # most frames kept; a longer clip keeps every 2nd (4th, ...). 0: audio only
    near: float = np.inf  # s; if finite, the frame nearest this time is a video's only frame
    wall_seconds: float = 60.0  # s that the child process may take
    memory: int = 3 * 2**30  # bytes that the child process may take


DEFAULT_LIMITS = Limits()

# First bytes of a file -> its kind.
MAGIC = {
    b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"GIF8": "gif", b"BM": "bmp",
    b"II*\0": "tiff", b"MM\0*": "tiff", b"\x1a\x45\xdf\xa3": "webm", b"FLV": "flv",
    b"\0\0\1\xba": "mpg", b"OggS": "ogg", b"\x30\x26\xb2\x75": "asf", b"RF64": "wav",
    b"fLaC": "flac", b"ID3": "mp3", b"version https://git-lfs": "lfs",
}  # fmt: skip
ISO_BRANDS = {b"avif": "avif"} | dict.fromkeys((b"heic", b"heix", b"mif1", b"msf1"), "heic")
RIFF_FORMS = {b"WAVE": "wav", b"AVI ": "avi", b"WEBP": "webp"}


def sniff_kind(head: bytes) -> str:
    r"""The kind of a file from its first SNIFF_BYTES.

    A key of VIDEO_DEMUXERS, AUDIO_DEMUXERS or PICTURE_FORMATS, or one of lfs (a git-lfs pointer),
    empty, heic, text, unknown.

    >>> sniff_kind(b"RIFF\x24\x00\x00\x00WAVEfmt "), sniff_kind(b"hello"), sniff_kind(b"")
    ('wav', 'text', 'empty')
    """
    if not head:
        return "empty"
    if head[4:8] == b"ftyp":
        return ISO_BRANDS.get(head[8:12], "mp4")
    if head[4:8] in (b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return "mp4"
    if head[:4] == b"RIFF":
        return RIFF_FORMS.get(head[8:12], "unknown")
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[0] == 0x47 and head[188:189] == b"\x47":
        return "ts"
    # An MPEG audio frame starts with eleven set bits; layer bits of 00 are AAC.
    if head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0x06 == 0 else "mp3"
    is_text = not head.translate(None, bytes(range(32, 127)) + b"\t\r\n\f\x1b")
    return "text" if is_text else "unknown"


def check_file(path: Path, name: str, limits: Limits) -> str:
    """The kind of a media file. Raises MediaError for any other file, and above limits.bytes."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            kind = sniff_kind(file.read(SNIFF_BYTES))
    except OSError as error:
        hint = "Check that the file is there and readable"
        raise MediaError(f"{name} cannot be read ({error.strerror}). {hint}") from error
    fault = ""
    if kind == "empty":
        fault = f"is empty. {RETRY_HINT}"
    elif kind == "lfs":
        hint = "Run `git lfs pull` in the corpus' folder"
        fault = f"is a git-lfs pointer, not the media itself. {hint}"
    elif kind == "heic":
        fault = "is a HEIC picture, which cannot be read here. Save it as jpg or png"
    elif kind not in VIDEO_DEMUXERS | AUDIO_DEMUXERS | PICTURE_FORMATS:
        what = "not a media file but text" if kind == "text" else "not a media file"
        fault = f"is {what}. Choose a video, a picture or a sound"
    elif size > limits.bytes:
        most = f"{limits.bytes / 2**20:.0f}"
        fault = f"has {size / 2**20:.0f} MiB; at most {most} are taken. Cut it or export it smaller"
    if fault:
        raise MediaError(f"{name} {fault}")
    return kind


@contextlib.contextmanager
def open_container(path: Path, kind: str, name: str = "") -> Iterator[Any]:
    """The container of a video or sound, opened by PyAV with the demuxer of its kind.

    Raises MediaError; the message names the file and the fix if there is a `name`.
    """
    demuxer, options = (VIDEO_DEMUXERS | AUDIO_DEMUXERS)[kind], {"protocol_whitelist": "file"}
    try:
        box = av.open(
            str(path.resolve()), format=demuxer, metadata_errors="ignore", options=options
        )
    except (av.FFmpegError, ValueError) as error:
        fault = f"it begins as {kind} but cannot be opened"
        if name:
            fault = f"{name} is damaged or cut short: {fault}. {RETRY_HINT}. {EXPORT_HINT}"
        raise MediaError(fault) from error
    with box:
        yield box


def video_stream(box: Any) -> Any:
    """The first video stream that can be decoded and is no cover picture, or None."""
    attached = av.stream.Disposition.attached_pic
    stream = next((s for s in box.streams.video if not s.disposition & attached), None)
    return stream if stream is not None and stream.codec_context is not None else None
