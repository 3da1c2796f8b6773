"""§4.1: the kind of a media file, the limits for reading it, and the opening of its container.

The demuxer is chosen by the file's content, never by its name, so that no playlist or script of an
untrusted file is ever run.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from core import files
from core.files import UserError

# Kind of a file -> name of FFmpeg's demuxer, or of PIL's format. A gif with one picture is a
# picture, one with several is a film.
VIDEO_DEMUXERS = {"mp4": "mov", "webm": "matroska", "mpg": "mpeg", "ts": "mpegts"} | {
    kind: kind for kind in ("flv", "avi", "ogg", "asf", "gif")
}
AUDIO_DEMUXERS = {
    kind: kind for kind in ("wav", "mp3", "flac", "aac", "aiff", "caf", "au", "amr", "w64")
} | {"nist": "nistsphere"}  # the wav files of TIMIT and other speech corpora
PICTURE_FORMATS = {"jpg": "JPEG", "heic": "HEIF"} | {
    kind: kind.upper() for kind in ("png", "webp", "bmp", "tiff", "avif", "ppm")
}
MEDIA_KINDS = frozenset(VIDEO_DEMUXERS | AUDIO_DEMUXERS | PICTURE_FORMATS)
# Kinds that libsndfile reads too; it accepts more damaged headers than FFmpeg.
SOUNDFILE_KINDS = ("wav", "flac", "mp3", "ogg", "aiff", "caf", "au", "w64", "nist")

MAX_PEAK = 2.0  # of a sound's samples, where 1 is full scale; lossy sounds overshoot it by less
MIN_FILE_BYTES = 12  # bytes in which the kind of any file is told
SNIFF_BYTES = 600  # first bytes of a file that `sniff_kind` looks at
RETRY_HINT, EXPORT_HINT = "Copy or record it again", "Export it again as mp4 (H.264)"
SOUND_EXPORT_HINT = "Export it again as wav"

PathName = str | os.PathLike[str]
Content = bytes | str | os.PathLike[str]  # a file's bytes, or its path


class MediaError(UserError):
    """A file that cannot be used; the message names the file, the reason and the fix."""


class UnreadableError(MediaError):
    """The machine could not read the file; that says nothing about what the file holds."""


@dataclass(frozen=True)
class Limits:
    """Limits of one file. Above seconds, side, fps or frames, part is read; else it is an error."""

    seconds: float = 60.0  # s that are read, from the start
    bytes: int = 200 * 2**20  # size of the file
    pixels: int = 2**25  # pixels of one frame (8192 x 4096)
    side: int = 640  # pixels of a kept frame's long side; larger frames are scaled down
    fps: float = 12.5  # most frames kept per second
    frames: int = 400  # most frames kept; a longer clip keeps every 2nd (4th, ...). 0: audio only
    kept_bytes: int = 48 * 2**20  # of all kept frames together; of larger frames fewer are kept
    # of all frames that are decoded without `near`; one minute of 1920 x 1080 at 30 a second has 4
    decoded_pixels: float = 5e9
    near: float = np.inf  # s; if finite, the frame nearest this time is a video's only frame
    wall_seconds: float = 60.0  # s that the child process may take, also while it waits for us
    processor_seconds: int = 30  # s of its threads together
    memory: int = 3 * 2**30  # bytes that the child process may take


DEFAULT_LIMITS = Limits()

# First bytes of a file -> its kind.
MAGIC = {
    b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"GIF8": "gif", b"BM": "bmp",
    b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff", b"MM\0+": "tiff",
    b"\x1a\x45\xdf\xa3": "webm", b"FLV": "flv", b"\0\0\1\xba": "mpg", b"OggS": "ogg",
    b"\x30\x26\xb2\x75": "asf",
    b"RF64": "wav", b"BW64": "wav", b"RIFX": "wav", b"riff\x2e\x91\xcf\x11": "w64",
    b"NIST_1A": "nist", b"fLaC": "flac",
    b"ID3": "mp3", b"caff": "caf", b".snd": "au", b"#!AMR": "amr",
    b"version https://git-lfs": "lfs",
}  # fmt: skip
PORTABLE_MAP_HEADS = tuple(b"P" + bytes([n]) for n in b"123456")  # pbm, pgm, ppm; a space follows
ISO_BRANDS = {b"avif": "avif", b"avis": "avif"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "heic"
)
RIFF_FORMS = {b"WAVE": "wav", b"AVI ": "avi", b"AVIX": "avi", b"WEBP": "webp"}
# Packets of a transport stream begin with 0x47; a camcorder (AVCHD) puts four bytes before each.
TS_PACKETS = ((0, 188), (4, 192), (0, 204))  # first sync byte, bytes of a packet
# First bytes of archives and documents -> what they are, and how to get at the content.
OTHER_FILES = {
    b"PK\3\4": "a zip archive", b"Rar!": "a rar archive", b"7z\xbc\xaf": "a 7z archive",
    b"\x1f\x8b": "a gz archive", b"BZh": "a bz2 archive", b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zst archive", b"%PDF": "a PDF document",
    b"\xd0\xcf\x11\xe0": "an Office document",
}  # fmt: skip


def sniff_kind(head: bytes) -> str:
    r"""The kind of a file from its first SNIFF_BYTES.

    One of MEDIA_KINDS, or one of lfs (a git-lfs pointer), empty, text, unknown.

    >>> sniff_kind(b"RIFF\x24\x00\x00\x00WAVEfmt "), sniff_kind(b"hello"), sniff_kind(b"")
    ('wav', 'text', 'empty')
    >>> sniff_kind("path,Bänder".encode("utf-16"))
    'text'
    """
    if not head:
        return "empty"
    if head[4:8] == b"ftyp":
        return _iso_kind(head)
    if head[4:8] in (b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return "mp4"
    if head[:4] == b"RIFF":
        return RIFF_FORMS.get(head[8:12], "unknown")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[:2] in PORTABLE_MAP_HEADS and head[2:3].isspace():
        return "ppm"
    for first, size in TS_PACKETS:
        if head[first : first + 1] == head[first + size : first + size + 1] == b"\x47":
            return "ts"
    # An MPEG audio frame starts with eleven set bits; layer bits of 00 are AAC.
    if head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0 and head[1] != 0xFE:
        return "aac" if head[1] & 0x06 == 0 else "mp3"
    if is_mp3_frame(head.lstrip(b"\0")[:4]):  # some writers put zeros before the first frame
        return "mp3"
    return "text" if _is_text(head) else "unknown"


def _is_text(head: bytes) -> bool:
    """Whether bytes are the beginning of a text in UTF-8, or in UTF-16 with its mark."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)  # its last letter may be cut
    except UnicodeDecodeError:
        return False
    return bool(text) and all(c in "\t\r\n\f\x1b\ufeff" or c.isprintable() for c in text)


def is_mp3_frame(head: bytes) -> bool:
    """Whether four bytes are the header of a frame of MPEG audio: layer III or II.

    >>> is_mp3_frame(bytes.fromhex("fffb9064")), is_mp3_frame(bytes.fromhex("ffffffff"))
    (True, False)
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate, sampling = head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer in (1, 2) and rate not in (0, 15) and sampling != 3


def _behind_id3(content: bytes) -> bytes:
    """First bytes of a sound behind its ID3 tags, which may stand before any kind of sound."""
    at = 0
    while content[at : at + 3] == b"ID3" and len(content) > at + 10:
        size = 0
        for seven_bits in content[at + 6 : at + 10]:
            size = size << 7 | seven_bits & 0x7F
        at += 10 + size + 10 * bool(content[at + 5] & 0x10)
    return content[at : at + SNIFF_BYTES]


def _iso_kind(head: bytes) -> str:
    """mp4, avif or heic, by the brands in a file's first box; avif's own brand may come late."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))]
    if brands[0] in ISO_BRANDS and b"avif" in brands:
        return "avif"
    return ISO_BRANDS.get(brands[0], "mp4")


def describe_unknown(head: bytes) -> str:
    """What a file is that is no medium, from its first bytes, in words."""
    if sniff_kind(head) == "text":
        return "not a media file but text"
    for magic, what in OTHER_FILES.items():
        if head.startswith(magic):
            return f"not a media file but {what}"
    return "not a media file of a kind that is read here"


def file_name(content: Content) -> str:
    """A file's name for people."""
    return "the file" if isinstance(content, bytes) else files.printable(Path(content).name)


def read_media(content: Content, name: str, limits: Limits = DEFAULT_LIMITS) -> tuple[str, bytes]:
    """The kind of a media file, and all its bytes.

    A file is read whole before it is decoded: a read that fails is the machine's fault
    (UnreadableError), a decoder that fails is the file's. Raises MediaError for what is no medium,
    and above limits.bytes.
    """
    try:
        kind, size, head = _look(content)
        if fault := _fault_of_kind(kind, size, head, limits):
            raise MediaError(f"{name} {fault}")
        data = content if isinstance(content, bytes) else Path(content).read_bytes()
        inner = sniff_kind(_behind_id3(data)) if head.startswith(b"ID3") else kind
        return inner if inner in AUDIO_DEMUXERS else kind, data
    except OSError as error:
        hint = "Check that the file is there and readable"
        reason = error.strerror or str(error)
        raise UnreadableError(f"{name} cannot be read ({reason}). {hint}") from error


def _look(content: Content) -> tuple[str, int, bytes]:
    """Kind, size in bytes, and first bytes. Raises OSError."""
    if isinstance(content, bytes):
        head, size = content[:SNIFF_BYTES], len(content)
    else:
        with Path(content).open("rb") as file:
            head, size = file.read(SNIFF_BYTES), os.fstat(file.fileno()).st_size
    return sniff_kind(head), size, head


def _fault_of_kind(kind: str, size: int, head: bytes, limits: Limits) -> str:
    """Why a file of that kind and size is not read, "" if it is."""
    if kind == "empty":
        return f"is empty. {RETRY_HINT}"
    if kind == "lfs":
        hint = "Run `git lfs pull` in the corpus' folder"
        return f"is a git-lfs pointer, not the media itself. {hint}"
    if kind == "unknown" and size < MIN_FILE_BYTES:
        return f"ends after {size} bytes. {RETRY_HINT}"
    if kind not in MEDIA_KINDS:
        return f"is {describe_unknown(head)}. Choose a video, a picture or a sound"
    if size > limits.bytes:
        most = f"{limits.bytes / 2**20:.0f}"
        return f"has {size / 2**20:.0f} MiB; at most {most} are taken. Cut it or export it smaller"
    return ""


@contextlib.contextmanager
def open_container(content: bytes, kind: str, name: str = "") -> Iterator[Any]:
    """The container of a video or sound, opened by PyAV with the demuxer of its kind.

    It reads from memory, so that it can open no other file. Raises MediaError; the message names
    the file and the fix if there is a `name`.
    """
    demuxer = (VIDEO_DEMUXERS | AUDIO_DEMUXERS)[kind]
    try:
        options = {"protocol_whitelist": "none"}  # a film may name other files
        box = av.open(
            io.BytesIO(content), format=demuxer, metadata_errors="ignore", options=options
        )
    except av.error.MemoryError as error:
        raise MemoryError(f"no memory is left to open {name or 'a file'}") from error
    except (av.FFmpegError, ValueError) as error:
        fault = f"it begins as {kind} but cannot be opened"
        if name:
            hint = SOUND_EXPORT_HINT if kind in AUDIO_DEMUXERS else EXPORT_HINT
            fault = f"{name} is damaged or cut short: {fault}. {RETRY_HINT}. {hint}"
        raise MediaError(fault) from error
    with box:
        yield box


def check_peak(wave: np.ndarray, name: str) -> None:
    """Raise MediaError for a sound of floats of another scale; cut off at 1 it would be noise."""
    peak = float(np.abs(wave, where=np.isfinite(wave), out=np.zeros_like(wave)).max())
    if peak > MAX_PEAK:
        hint = "Save it as 16-bit PCM, or divide its samples so that they lie in -1..1"
        raise MediaError(f"{name} has samples up to {peak:,.0f}, where 1 is full scale. {hint}")


def video_stream(box: Any) -> Any:
    """The first video stream that can be decoded and is no cover picture, or None."""
    attached = av.stream.Disposition.attached_pic
    stream = next((s for s in box.streams.video if not s.disposition & attached), None)
    return stream if stream is not None and stream.codec_context is not None else None
