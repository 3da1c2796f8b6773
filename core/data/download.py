"""Corpora from where they are published: RAVDESS over HTTPS, resumable and summed; for the others, what to type. Standard library only.

A file grows as `<name>.part`, is compared with the record's md5 and renamed: what bears its own name is whole. Whatever cuts a
transfer off, the same call goes on where it was.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core import files
from core.data.corpora import CorpusError

RECORD_ADDRESS = (
    "https://zenodo.org/api/records/1188976"  # Livingstone & Russo 2018, CC BY-NC-SA 4.0
)
RECORD_PAGE = "https://zenodo.org/records/1188976"  # for people
FILE_PATTERNS = {
    "audio": re.compile(r"Audio_Speech_Actors_01-24\.zip"),
    "video": re.compile(r"Video_Speech_Actor_\d\d\.zip"),
}
AUDIO_SPEECH_ZIP = (
    "Audio_Speech_Actors_01-24.zip",
    208_468_073,
    "bc696df654c87fed845eb13823edef8a",
)  # known without asking: name, bytes, md5

MAX_FAILED_ATTEMPTS = 6  # attempts in a row that bring nothing
FIRST_WAIT = 1.0  # seconds before the second attempt, doubled up to LONGEST_WAIT
MAX_WAIT = 60.0
RESPONSE_TIMEOUT = 30.0  # seconds without an answer, or without a byte
READ_BYTES = 1 << 18  # bytes
MIN_FREE_BYTES = 256 * 2**20  # bytes that stay free on the disk

ProgressCallback = Callable[[int, int], None]  # (bytes here, bytes in all)
MediaKind = Literal["audio", "video"]


class FetchError(CorpusError):
    """What could not be fetched, why, and what to do."""


class _RefusedError(FetchError):
    """The server answered that it will not give this address."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record."""

    name: str
    size: int  # bytes
    md5: str
    address: str


class _RetryableError(Exception):
    """An attempt that failed in a way that another may not; `wait` is how long the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def fetch_corpus(
    name: str,
    target: Path,
    what: Sequence[MediaKind] = ("audio", "video"),
    tick: ProgressCallback | None = None,
    base: str | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Path]:
    """Bring RAVDESS' speech zips into the folder `target` (audio 0.2 GB, video 12.4 GB); files that are there and right stay.

    `base` is the record's address, for a mirror. Raises FetchError: no network, no room on the disk, a file that is not there or wrong;
    for a corpus that is not fetched so, its message is `manual_steps`. Raises runs.Busy where another process fetches into that folder, and
    runs.Stopped soon after `should_stop()`. However it ends, the same call continues.
    """
    if name != "ravdess":
        raise FetchError(manual_steps(name, target))
    if unknown := set(what) - set(FILE_PATTERNS):
        raise FetchError(
            f"{name} has no {', '.join(sorted(unknown))}; there are {' and '.join(FILE_PATTERNS)}"
        )
    base = base or RECORD_ADDRESS
    target.mkdir(parents=True, exist_ok=True)
    with files.file_lock(target / ".fetch.lock", f"fetching {name} into {target}"):
        wanted = _list_remote_files(base, what)
        left = [f for f in wanted if not _is_complete(target / f.name, f)]
        begun = {f.name: _file_size(_part_path(target, f)) for f in left}
        need, free = (
            sum(f.size - min(begun[f.name], f.size) for f in left),
            shutil.disk_usage(target).free,
        )
        if left and need + MIN_FREE_BYTES > free:
            names = left[0].name + (f" and {len(left) - 1} more" if len(left) > 1 else "")
            room = f"{need / 1e9:.1f} GB more and {target} has {free / 1e9:.1f} GB free"
            raise FetchError(
                f"{names} need {room}; make room, or name a folder on another disk with --to"
            )
        total, here = sum(f.size for f in wanted), sum(f.size for f in wanted if f not in left)
        for f in left:
            before = here

            def say(done: int, before: int = before) -> None:
                if tick:
                    tick(before + done, total)
                if should_stop and should_stop():
                    raise files.StopRequested("stopped; the same command continues")

            _fetch_file(f, target, say)
            here += f.size
        if tick:
            tick(total, total)
    return [target / f.name for f in wanted]


def manual_steps(name: str, target: Path) -> str:
    """What to type, in order, for a corpus that is not fetched by `fetch_corpus`."""
    folder = shlex.quote(target.as_posix())
    prepare = f"python -m core data prepare {name} --source {folder}"
    if name == "crema-d":
        return f"""CREMA-D is a git-lfs repository (ODbL 1.0): 3.1 GB, and as much again since git-lfs keeps its own copy.
With git and git-lfs (https://git-lfs.com) installed:

  git lfs install
  GIT_LFS_SKIP_SMUDGE=1 git clone https://github.com/CheyneyComputerScience/CREMA-D.git {folder}
  git -C {folder} lfs pull --include "VideoFlash/*,AudioWAV/*"
  python -m core data doctor {folder} --corpus crema-d
  {prepare}

Where GitHub's quota for large files is used up, clone https://gitlab.com/cs-cooper-lab/crema-d-mirror.git instead; all else is the same.
An interrupted pull goes on when it is given again. Files of some 130 bytes are pointers: their pull has not happened yet."""
    if name == "fer2013":
        return f"""FER2013 is a challenge's data on Kaggle (research use) and needs a free account there:

  mkdir -p {folder}
  open https://www.kaggle.com/datasets/msambare/fer2013 in a browser, sign in, press Download (about 60 MB), and move the zip into {folder}
  or with Kaggle's own tool:  pip install kaggle && kaggle datasets download msambare/fer2013 -p {folder}
  {prepare}

The zip needs no unpacking. Any folder or zip of this form will do: train/<emotion>/<image>.jpg, with <emotion> one of
angry, disgust, fear, happy, neutral, sad, surprise; above it may stand train, test, validation or nothing."""
    if name in ("demo", "demo-clips"):
        return "the demo corpus is drawn, not fetched: python -m core data prepare demo"
    return f"{name} is not known here: ravdess can be fetched; for crema-d and fer2013 it is said what to type"


# ------------------------------------------------------------------ what there is


def _list_remote_files(base: str, what: Sequence[MediaKind]) -> list[RemoteFile]:
    """The record's files that are wanted, by name. Only what is known by heart is sure without the record's own list."""
    try:
        record = json.loads(_with_retries(lambda: _read_document(base), tries=3))
        found = [_parse_record_file(f, base) for f in record["files"]]
    except (_RetryableError, _RefusedError, ValueError, KeyError, TypeError, AttributeError) as e:
        if isinstance(e, FetchError) and not isinstance(e, _RefusedError):
            raise
        if "video" in what:
            raise FetchError(
                f"the list of files at {base} cannot be read ({e}); try again later, only --what audio, or see {RECORD_PAGE}"
            ) from e
        size, md5 = AUDIO_SPEECH_ZIP[1:]
        return [
            RemoteFile(
                AUDIO_SPEECH_ZIP[0],
                size,
                md5,
                f"{base.replace('/api/', '/')}/files/{AUDIO_SPEECH_ZIP[0]}?download=1",
            )
        ]
    wanted = [
        f
        for kind in ("audio", "video")
        if kind in what
        for f in found
        if f and FILE_PATTERNS[kind].fullmatch(f.name)
    ]
    wanted = sorted({f.name: f for f in wanted}.values(), key=lambda f: f.name)
    for kind in what:
        if not any(FILE_PATTERNS[kind].fullmatch(f.name) for f in wanted):
            raise FetchError(
                f"the record at {base} lists no {kind} files of RAVDESS; see {RECORD_PAGE}"
            )
    return wanted


def _parse_record_file(entry: dict, base: str) -> RemoteFile | None:
    """One entry of a record; None for what is no plain name with a size, an md5 and an address."""
    name, size, checksum, link = (
        str(entry["key"]),
        int(entry["size"]),
        str(entry["checksum"]),
        str(entry["links"]["self"]),
    )
    md5 = re.fullmatch(r"md5:([0-9a-f]{32})", checksum)
    if not md5 or size < 0 or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        return None
    return RemoteFile(name, size, md5[1], _check_address(link, base))


def _check_address(address: str, base: str) -> str:
    """An address that `base` leads to, if its scheme is base's own or https; raises FetchError for any other."""
    scheme = urllib.parse.urlsplit(address).scheme
    if scheme not in ("https", urllib.parse.urlsplit(base).scheme) or scheme not in (
        "http",
        "https",
    ):
        raise FetchError(
            f"{base} leads to {address[:200]!r}, which is no {urllib.parse.urlsplit(base).scheme} address: not followed"
        )
    return address


# ------------------------------------------------------------------ asking


class _SameSchemeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        return super().redirect_request(
            req, fp, code, msg, headers, _check_address(newurl, req.full_url)
        )


def _open_address(address: str, headers: dict[str, str]) -> Any:
    """An answer of the server, 2xx. Raises _Again where another attempt may help, FetchError where not."""
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise FetchError(f"{address} is no https address")
    request = urllib.request.Request(
        address, headers={"User-Agent": "dacssGAN-studio", "Accept-Encoding": "identity"} | headers
    )
    try:
        return urllib.request.build_opener(_SameSchemeRedirects).open(
            request, timeout=RESPONSE_TIMEOUT
        )
    except urllib.error.HTTPError as e:
        with e:
            if e.code == 416:
                raise
            if e.code in (408, 425, 429) or e.code >= 500:
                asked = e.headers.get("Retry-After", "")
                raise _RetryableError(
                    f"the server answers {e.code}", float(asked) if asked.isdecimal() else 0.0
                ) from e
            raise _RefusedError(
                f"{address} is refused with status {e.code} ({e.reason}); see {RECORD_PAGE}"
            ) from e
    except urllib.error.URLError as e:
        if isinstance(e.reason, ssl.SSLCertVerificationError):
            raise FetchError(
                f"{address}: its certificate is not valid ({e.reason.verify_message}); nothing was fetched"
            ) from e
        raise _RetryableError(_error_text(e.reason)) from e
    except (OSError, http.client.HTTPException) as e:
        raise _RetryableError(_error_text(e)) from e


def _error_text(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {RESPONSE_TIMEOUT:.0f} s"
    return " ".join(str(error).split()) or type(error).__name__


def _read_document(address: str) -> bytes:
    try:
        with _open_address(address, {"Accept": "application/json"}) as answer:
            return answer.read(8 * 2**20)
    except urllib.error.URLError as e:
        raise FetchError(f"{address}: {_error_text(e)}") from e
    except (OSError, http.client.HTTPException) as e:
        raise _RetryableError(_error_text(e)) from e


def _with_retries(
    attempt: Callable[[], Any],
    tries: int = MAX_FAILED_ATTEMPTS,
    progress: Callable[[], int] = lambda: 0,
    say: Any = None,
) -> Any:
    """`attempt()` until it succeeds, with growing pauses; attempts that moved `progress()` on do not count. Raises FetchError, or the last
    _Again where the server did answer."""
    failed, last = 0, progress()
    while True:
        try:
            return attempt()
        except _RetryableError as e:
            failed = 0 if progress() > last else failed + 1
            last = max(last, progress())
            cause = (
                e.__cause__.reason
                if isinstance(e.__cause__, urllib.error.URLError)
                else e.__cause__
            )
            nowhere = isinstance(cause, socket.gaierror | ConnectionRefusedError) and failed >= 3
            if nowhere or getattr(cause, "errno", 0) == errno.ENETUNREACH:
                raise FetchError(
                    f"no network, or no way to the server ({e}); what is here is kept: give the command again later"
                ) from e
            if failed >= tries:
                raise
            pause = min(MAX_WAIT, max(FIRST_WAIT * 2 ** max(0, failed - 1), e.wait))
            end = time.monotonic() + pause
            while time.monotonic() < end:
                if say:
                    say()
                time.sleep(min(0.2, pause))


# ------------------------------------------------------------------ one file


def _part_path(target: Path, f: RemoteFile) -> Path:
    return (
        target / f"{f.name}.{f.md5[:8]}.part"
    )  # of this content: of another edition of the file nothing is taken over


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_complete(path: Path, f: RemoteFile) -> bool:
    return _file_size(path) == f.size and path.exists() and _file_md5(path) == f.md5


def _file_md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fetch_file(f: RemoteFile, target: Path, say: Callable[[int], None]) -> None:
    """One file, whole and right, under its name in `target`; a wrong one is removed and fetched once more from the start."""
    part = _part_path(target, f)
    for last in (False, True):
        try:
            _with_retries(
                lambda: _fetch_rest(f, part, say),
                MAX_FAILED_ATTEMPTS,
                lambda: _file_size(part),
                lambda: say(_file_size(part)),
            )
        except _RetryableError as e:
            kept = f"{_file_size(part):,} of {f.size:,} bytes are kept"
            raise FetchError(
                f"{f.name}: {e}, {MAX_FAILED_ATTEMPTS} times in a row; {kept}: give the command again later"
            ) from e
        fault = (
            f"has {_file_size(part):,} bytes instead of {f.size:,}"
            if _file_size(part) != f.size
            else ""
        )
        fault = fault or (
            "" if (sum_ := _file_md5(part)) == f.md5 else f"has the md5 {sum_} instead of {f.md5}"
        )
        if not fault:
            os.replace(part, target / f.name)
            return
        part.unlink()
        if last:
            raise FetchError(
                f"{f.name} as fetched {fault}, twice; it was removed. The server's copy may be damaged: see {RECORD_PAGE}"
            )


def _fetch_rest(f: RemoteFile, part: Path, say: Callable[[int], None]) -> None:
    """What is still lacking of a file, appended; returns when the server has nothing more. Raises _Again when the transfer is cut off."""
    have = _file_size(part)
    if have >= f.size > 0:
        return
    try:
        answer = _open_address(f.address, {"Range": f"bytes={have}-"} if have else {})
    except urllib.error.HTTPError:  # 416: the server's file is not longer than what is here
        return
    with answer:
        span = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        fits = (
            answer.status == 206 and span and int(span[1]) == have and span[2] in ("*", str(f.size))
        )
        if answer.status == 206 and not fits:
            part.unlink(missing_ok=True)
            raise _RetryableError(
                f"the server sends {answer.headers.get('Content-Range')!r} for the bytes from {have}"
            )
        with open(
            part, "ab" if fits else "wb"
        ) as file:  # a server that knows no ranges sends all of it
            done = have if fits else 0
            say(done)
            while done <= f.size:
                try:
                    block = answer.read1(READ_BYTES)
                except (OSError, http.client.HTTPException) as e:
                    raise _RetryableError(f"the transfer was cut off ({_error_text(e)})") from e
                if not block:
                    break
                file.write(block[: f.size + 1 - done])
                done += len(block)
                say(min(done, f.size))
            file.flush()
            os.fsync(file.fileno())
        promised = answer.headers.get("Content-Length", "")
        if done < f.size and not (
            promised.isdecimal() and int(promised) + (have if fits else 0) < f.size
        ):
            raise _RetryableError(f"the transfer was cut off after {done:,} of {f.size:,} bytes")
