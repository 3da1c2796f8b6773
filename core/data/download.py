"""Download RAVDESS over HTTPS, resumable and checked; for other corpora, the commands to type.

Standard library only. A file grows as `<name>.<md5>.part`, is compared with the record's md5 and
then renamed: a file under its own name is whole. After any interruption the same call continues.
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

# Livingstone & Russo 2018, CC BY-NC-SA 4.0
RECORD_ADDRESS = "https://zenodo.org/api/records/1188976"
RECORD_PAGE = "https://zenodo.org/records/1188976"  # for people
FILE_PATTERNS = {
    "audio": re.compile(r"Audio_Speech_Actors_01-24\.zip"),
    "video": re.compile(r"Video_Speech_Actor_\d\d\.zip"),
}
# Name, bytes and md5 of the one file that is known without the record.
AUDIO_ZIP = ("Audio_Speech_Actors_01-24.zip", 208_468_073, "bc696df654c87fed845eb13823edef8a")

MAX_FAILED_ATTEMPTS = 6  # in a row, without a new byte
FIRST_WAIT = 1.0  # seconds before the second attempt, doubled up to MAX_WAIT
MAX_WAIT = 60.0  # seconds
RESPONSE_TIMEOUT = 30.0  # seconds without an answer, or without a byte
READ_BYTES = 1 << 18  # bytes read at once
MIN_FREE_BYTES = 256 * 2**20  # bytes that stay free on the disk
MAX_RECORD_BYTES = 8 * 2**20  # bytes of the record's JSON that are read

ProgressCallback = Callable[[int, int], None]  # (bytes done, bytes in all)
MediaKind = Literal["audio", "video"]


class FetchError(CorpusError):
    """A download that failed; the message gives the reason and what to do."""


class _RefusedError(FetchError):
    """The server refused an address."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record."""

    name: str
    size: int  # bytes
    md5: str
    address: str


class _RetryableError(Exception):
    """A failed attempt that may succeed later; `wait` is the pause (s) that the server asks for."""

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
    """Download RAVDESS' speech zips into the folder `target` (audio 0.2 GB, video 12.4 GB).

    Files that are there and whole are kept. `base` is the record's address, for a mirror. Raises
    FetchError: no network, no room on the disk, a file that is missing or wrong; for a corpus that
    is not downloaded, its message is `manual_steps`. Raises BusyError where another process fetches
    into that folder, and StopRequested soon after `should_stop()`. The same call continues.
    """
    if name != "ravdess":
        raise FetchError(manual_steps(name, target))
    if unknown := ", ".join(sorted(set(what) - set(FILE_PATTERNS))):
        raise FetchError(f"{name} has no {unknown}; there are {' and '.join(FILE_PATTERNS)}")
    base = base or RECORD_ADDRESS
    target.mkdir(parents=True, exist_ok=True)
    with files.file_lock(target / ".fetch.lock", f"fetching {name} into {target}"):
        wanted = _list_remote_files(base, what)
        left = [f for f in wanted if not _is_complete(target / f.name, f)]
        _check_free_space(left, target)
        total, done = sum(f.size for f in wanted), sum(f.size for f in wanted if f not in left)

        def say(part: int) -> None:
            if tick:
                tick(done + part, total)
            if should_stop and should_stop():
                raise files.StopRequested("stopped; the same command continues")

        for f in left:
            _fetch_file(f, target, say)
            done += f.size
        if tick:
            tick(total, total)
    return [target / f.name for f in wanted]


def _check_free_space(left: list[RemoteFile], target: Path) -> None:
    """Raise FetchError where the disk has no room for the rest of the files."""
    need = sum(f.size - min(_file_size(part_path(target, f)), f.size) for f in left)
    free = shutil.disk_usage(target).free
    if left and need + MIN_FREE_BYTES > free:
        names = left[0].name + (f" and {len(left) - 1} more" if len(left) > 1 else "")
        room = f"{need / 1e9:.1f} GB more and {target} has {free / 1e9:.1f} GB free"
        fix = "make room, or name a folder on another disk with --to"
        raise FetchError(f"{names} need {room}; {fix}")


def manual_steps(name: str, target: Path) -> str:
    """The commands to type, in order, for a corpus that `fetch_corpus` does not download."""
    folder = shlex.quote(target.as_posix())
    prepare = f"python -m core data prepare {name} --source {folder}"
    if name == "crema-d":
        return f"""\
CREMA-D is a git-lfs repository (ODbL 1.0): 3.1 GB, and as much again for git-lfs' own copy.
With git and git-lfs (https://git-lfs.com) installed:

  git lfs install
  GIT_LFS_SKIP_SMUDGE=1 git clone https://github.com/CheyneyComputerScience/CREMA-D.git {folder}
  git -C {folder} lfs pull --include "VideoFlash/*,AudioWAV/*"
  python -m core data doctor {folder} --corpus crema-d
  {prepare}

Where GitHub's quota for large files is used up, use this address instead of GitHub's:
https://gitlab.com/cs-cooper-lab/crema-d-mirror.git. To continue an interrupted pull, give it again.
Files of some 130 bytes are pointers: they are not pulled yet."""
    if name == "fer2013":
        return f"""\
FER2013 is a challenge's data on Kaggle (research use) and needs a free account there:

  mkdir -p {folder}
  open https://www.kaggle.com/datasets/msambare/fer2013 in a browser, sign in, press Download (about
  60 MB), and move the zip into {folder}
  or:  pip install kaggle && kaggle datasets download msambare/fer2013 -p {folder}
  {prepare}

The zip needs no unpacking. Any folder or zip of this form will do: train/<emotion>/<image>.jpg,
with <emotion> one of angry, disgust, fear, happy, neutral, sad, surprise, and with train, test,
validation or nothing above it."""
    if name in ("demo", "demo-clips"):
        return "the demo corpus is drawn, not fetched: python -m core data prepare demo"
    other = "for crema-d and fer2013 this command prints what to type"
    return f"{name} is not known here: ravdess can be fetched; {other}"


# ------------------------------------------------------------------ the record


def _list_remote_files(base: str, what: Sequence[MediaKind]) -> list[RemoteFile]:
    """The wanted files of the record, by name. Without the record, AUDIO_ZIP is known."""
    try:
        record = json.loads(_with_retries(lambda: _read_document(base), tries=3))
        found = [_parse_record_file(f, base) for f in record["files"]]
    except (
        *(_RetryableError, _RefusedError, ValueError, KeyError, TypeError, AttributeError),
        RecursionError,
    ) as e:
        if isinstance(e, FetchError) and not isinstance(e, _RefusedError):
            raise
        if "video" in what:
            fix = f"try again later, only --what audio, or see {RECORD_PAGE}"
            raise FetchError(f"the list of files at {base} cannot be read ({e}); {fix}") from e
        address = f"{base.replace('/api/', '/')}/files/{AUDIO_ZIP[0]}?download=1"
        return [RemoteFile(*AUDIO_ZIP, address)]
    wanted: dict[str, RemoteFile] = {}
    for kind in what:
        of_kind = {f.name: f for f in found if f and FILE_PATTERNS[kind].fullmatch(f.name)}
        if not of_kind:
            missing = f"the record at {base} lists no {kind} files of RAVDESS"
            raise FetchError(f"{missing}; see {RECORD_PAGE}")
        wanted |= of_kind
    return [wanted[name] for name in sorted(wanted)]


def _parse_record_file(entry: dict, base: str) -> RemoteFile | None:
    """One entry of a record; None unless it has a plain name, a size, an md5 and an address."""
    name, size = str(entry["key"]), int(entry["size"])
    checksum, link = str(entry["checksum"]), str(entry["links"]["self"])
    md5 = re.fullmatch(r"md5:([0-9a-f]{32})", checksum)
    if not md5 or size < 0 or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        return None
    return RemoteFile(name, size, md5[1], check_address(link, base))


def check_address(address: str, base: str) -> str:
    """An address that `base` leads to. Raises FetchError unless its scheme is base's or https."""
    scheme, own = (urllib.parse.urlsplit(a).scheme for a in (address, base))
    if scheme not in ("https", own) or scheme not in ("http", "https"):
        what = f"{base} leads to {address[:200]!r}, which is no {own} address"
        raise FetchError(f"{what}: not followed")
    return address


# ------------------------------------------------------------------ requests


class _SameSchemeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        return super().redirect_request(
            req, fp, code, msg, headers, check_address(newurl, req.full_url)
        )


def _open_address(address: str, headers: dict[str, str]) -> Any:
    """A 2xx answer. Raises _RetryableError where another attempt may help, else FetchError."""
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise FetchError(f"{address} is no https address")
    headers = {"User-Agent": "dacssGAN-studio", "Accept-Encoding": "identity"} | headers
    request = urllib.request.Request(address, headers=headers)
    opener = urllib.request.build_opener(_SameSchemeRedirects)
    try:
        return opener.open(request, timeout=RESPONSE_TIMEOUT)
    except urllib.error.HTTPError as e:
        with e:
            if e.code == 416:
                raise
            if e.code in (408, 425, 429) or e.code >= 500:
                pause = e.headers.get("Retry-After", "")
                wait = float(pause) if pause.isdecimal() else 0.0
                raise _RetryableError(f"the server answers {e.code}", wait) from e
            refusal = f"{address} is refused with status {e.code} ({e.reason})"
            raise _RefusedError(f"{refusal}; see {RECORD_PAGE}") from e
    except urllib.error.URLError as e:
        if isinstance(e.reason, ssl.SSLCertVerificationError):
            why = f"its certificate is not valid ({e.reason.verify_message})"
            raise FetchError(f"{address}: {why}; nothing was fetched") from e
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
            return answer.read(MAX_RECORD_BYTES)
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
    """Repeat `attempt()` until it succeeds, with growing pauses, in which `say()` is called.

    Attempts that increased `progress()` do not count. Raises FetchError without a network, or the
    last _RetryableError.
    """
    failed, last = 0, progress()
    while True:
        try:
            return attempt()
        except _RetryableError as e:
            failed = 0 if progress() > last else failed + 1
            last = max(last, progress())
            cause: Any = e.__cause__
            cause = cause.reason if isinstance(cause, urllib.error.URLError) else cause
            nowhere = isinstance(cause, socket.gaierror | ConnectionRefusedError) and failed >= 3
            if nowhere or getattr(cause, "errno", 0) == errno.ENETUNREACH:
                fix = "the finished part is kept: give the command again later"
                raise FetchError(f"no network, or no way to the server ({e}); {fix}") from e
            if failed >= tries:
                raise
            pause = min(MAX_WAIT, max(FIRST_WAIT * 2 ** max(0, failed - 1), e.wait))
            end = time.monotonic() + pause
            while time.monotonic() < end:
                if say:
                    say()
                time.sleep(min(0.2, pause))


# ------------------------------------------------------------------ one file


def part_path(target: Path, f: RemoteFile) -> Path:
    """The growing file; its name has the md5, as another edition's bytes must not be continued."""
    return target / f"{f.name}.{f.md5[:8]}.part"


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_complete(path: Path, f: RemoteFile) -> bool:
    return _file_size(path) == f.size and path.exists() and _file_md5(path) == f.md5


def _file_md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fetch_file(f: RemoteFile, target: Path, say: Callable[[int], None]) -> None:
    """Download one file to its name in `target`; a wrong one is removed and fetched once more."""
    part = part_path(target, f)
    for last in (False, True):
        try:
            _with_retries(
                lambda: _fetch_rest(f, part, say),
                progress=lambda: _file_size(part),
                say=lambda: say(_file_size(part)),
            )
        except _RetryableError as e:
            done = f"{_file_size(part):,} of {f.size:,} bytes are kept"
            why = f"{f.name}: {e}, {MAX_FAILED_ATTEMPTS} times in a row"
            raise FetchError(f"{why}; {done}: give the command again later") from e
        size, fault = _file_size(part), ""
        if size != f.size:
            fault = f"has {size:,} bytes instead of {f.size:,}"
        elif (md5 := _file_md5(part)) != f.md5:
            fault = f"has the md5 {md5} instead of {f.md5}"
        else:
            os.replace(part, target / f.name)
            return
        part.unlink()
        if last:
            hint = f"The server's copy may be damaged: see {RECORD_PAGE}"
            raise FetchError(f"{f.name} as fetched {fault}, twice; it was removed. {hint}")


def _fetch_rest(f: RemoteFile, part: Path, say: Callable[[int], None]) -> None:
    """Append the missing rest of a file, until the server has nothing more.

    Raises _RetryableError when the transfer is cut off.
    """
    have = _file_size(part)
    if have >= f.size > 0:
        return
    try:
        answer = _open_address(f.address, {"Range": f"bytes={have}-"} if have else {})
    except urllib.error.HTTPError:  # 416: the server's file is not longer than what is here
        return
    with answer:
        content = answer.headers.get("Content-Range", "")
        span = re.match(r"bytes (\d+)-\d+/(\d+|\*)", content)
        fits = span and int(span[1]) == have and span[2] in ("*", str(f.size))
        fits = fits and answer.status == 206
        if answer.status == 206 and not fits:
            part.unlink(missing_ok=True)
            raise _RetryableError(f"the server sends {content!r} for the bytes from {have}")
        start = done = have if fits else 0  # a server that knows no ranges sends all of it
        with open(part, "ab" if fits else "wb") as file:
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
        short = promised.isdecimal() and int(promised) + start < f.size
        if done < f.size and not short:
            raise _RetryableError(f"the transfer was cut off after {done:,} of {f.size:,} bytes")
