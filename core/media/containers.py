"""TO WRITE."""

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

VIDEO_DEMUXERS = {"mp4": "mov", "webm": "matroska", "mpg": "mpeg", "ts": "mpegts"} | {
    kind: kind for kind in ("flv", "avi", "ogg", "asf", "gif")
}

AUDIO_DEMUXERS = {
    kind: kind for kind in ("wav", "mp3", "flac", "aac")
}  # kind -> FFmpeg's demuxer, as in FILMS

PICTURE_FORMATS = {
    "jpg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "bmp": "BMP",
    "tiff": "TIFF",
    "avif": "AVIF",
}  # kind -> PIL's format

RETRY_HINT, EXPORT_HINT = "Copy or record it again", "Export it again as mp4 (H.264)"

PathName = str | os.PathLike[str]


class MediaError(UserError):
    """A file that cannot be used; the message names the file, the reason and what to do."""


@dataclass(frozen=True)
class Limits:
    """What a file may cost. Beyond seconds, side, fps and frames it is read in part; beyond the others it is refused."""

    seconds: float = 60.0  # read from the start
    bytes: int = 200 * 2**20  # of the file
    pixels: int = 2**25  # of one frame (8192 x 4096)
    side: int = 640  # of the long side of a frame kept; larger ones are scaled down
    fps: float = 12.5  # frames kept in a second, at most
    frames: int = 400  # kept at most; of longer clips every other one, as often as needed. 0: the sound alone, of a sound file too
    near: float = np.inf  # s; if finite, a film's only frame is the one nearest that time, and the others cost no more than decoding
    wall_seconds: float = 60.0  # of the child process
    memory: int = 3 * 2**30  # bytes that the child process may take


DEFAULT_LIMITS = Limits()


def sniff_kind(head: bytes) -> str:
    """The kind of a file from its first bytes (600 are enough): a key of FILMS, SOUNDS or STILLS, or lfs, empty, heic, text, unknown."""
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "lfs"
    if head[4:8] == b"ftyp":
        return {
            b"avif": "avif",
            b"heic": "heic",
            b"heix": "heic",
            b"mif1": "heic",
            b"msf1": "heic",
        }.get(head[8:12], "mp4")
    if head[4:8] in (b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return "mp4"
    if head[:4] == b"RIFF":
        return {b"WAVE": "wav", b"AVI ": "avi", b"WEBP": "webp"}.get(head[8:12], "unknown")
    for magic, kind in (
        (b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"II*\0", "tiff"), (b"MM\0*", "tiff"),
        (b"\x1a\x45\xdf\xa3", "webm"), (b"FLV", "flv"), (b"\0\0\1\xba", "mpg"), (b"OggS", "ogg"), (b"\x30\x26\xb2\x75", "asf"),
        (b"RF64", "wav"), (b"fLaC", "flac"), (b"ID3", "mp3"),
    ):  # fmt: skip
        if head.startswith(magic):
            return kind
    if head[0] == 0x47 and head[188:189] == b"\x47":
        return "ts"
    if (
        head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0
    ):  # an MPEG audio frame; layer bits 00 are AAC
        return "aac" if head[1] & 0x06 == 0 else "mp3"
    return (
        "text" if not head.translate(None, bytes(range(32, 127)) + b"\t\r\n\f\x1b") else "unknown"
    )


def _check_file(path: Path, name: str, limits: Limits) -> str:
    """The file's kind, if it is media of a bearable size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            kind = sniff_kind(file.read(600))
    except OSError as error:
        raise MediaError(
            f"{name} cannot be read ({error.strerror}). Check that the file is there and readable"
        ) from error
    if kind == "empty":
        raise MediaError(f"{name} is empty. {RETRY_HINT}")
    if kind == "lfs":
        raise MediaError(
            f"{name} is a git-lfs pointer, not the media itself. Run `git lfs pull` in the corpus' folder"
        )
    if kind == "heic":
        raise MediaError(
            f"{name} is a HEIC picture, which cannot be read here. Save it as jpg or png"
        )
    if kind not in VIDEO_DEMUXERS | AUDIO_DEMUXERS | PICTURE_FORMATS:
        raise MediaError(
            f"{name} is not a media file{' but text' if kind == 'text' else ''}. Choose a video, a picture or a sound"
        )
    if size > limits.bytes:
        raise MediaError(
            f"{name} has {size / 2**20:.0f} MiB; at most {limits.bytes / 2**20:.0f} are taken. Cut it or export it smaller"
        )
    return kind


@contextlib.contextmanager
def _open_container(path: Path, kind: str, name: str) -> Iterator[Any]:
    try:
        box = av.open(
            str(path.resolve()),
            format=(VIDEO_DEMUXERS | AUDIO_DEMUXERS)[kind],
            metadata_errors="ignore",
            options={"protocol_whitelist": "file"},
        )
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(
            f"{name} is damaged or cut short: it begins as {kind} but cannot be opened. {RETRY_HINT}. {EXPORT_HINT}"
        ) from error
    with box:
        yield box
