"""Paths, atomic writes, locks and digests of files, and the errors that a user can mend.

`core` reads and writes through these functions: a reader finds the old file or the new one, never
half of one, and no pickle is ever loaded. Standard library and NumPy only.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from _csv import Reader

MAX_ARRAY_BYTES = 8 << 30  # of the arrays in one npz; CREMA-D with all windows has some 2 GB
Content = bytes | str | Callable[[IO[bytes]], object]  # of a file that is written
_NO_ROOM = "make room there, and give the same command again"
_NO_RIGHT = "make it writable for this user, or choose another folder, and give the command again"
DISK_FIXES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), and give the same command again",
    errno.EROFS: _NO_RIGHT,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.ENOTDIR: "a file is in the way: remove it, or choose another folder",
    errno.EEXIST: "a file is in the way: remove it, or choose another folder",
    errno.EISDIR: "a folder is in the way: remove it, or choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}
ROOT = Path(__file__).resolve().parents[1]  # the project: app.py, core/, checkpoints/, data/


class UserError(ValueError):
    """An error that the user can mend; the message names the file or option and the fix.

    Commands and pages show it as one line. Any other exception is a bug and keeps its traceback.
    """


class DamagedError(UserError):
    """A file holds something else than it should; whoever can make it again may remove it."""


class BusyError(UserError):
    """Another process does this work already; the message names the process."""


class StopRequested(RuntimeError):
    """A long task was asked to stop. Its finished part is kept, and the same call continues it."""


def checkpoints_folder() -> Path:
    """Folder of the runs: the variable DACSSGAN_CHECKPOINTS, else the project's `checkpoints/`."""
    return Path(os.environ.get("DACSSGAN_CHECKPOINTS") or ROOT / "checkpoints")


def data_folder() -> Path:
    """Folder of the corpora: the variable DACSSGAN_DATA, else the project's `data/`."""
    return Path(os.environ.get("DACSSGAN_DATA") or ROOT / "data")


def write_atomic(path: Path, content: Content) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it.

    `content` is bytes, text (written as UTF-8) or a function that writes to the open file. After
    a power cut the file is the old one or the new one. Raises OSError, which names the file.
    """
    write_together({path: content})


def write_together(contents: dict[Path, Content]) -> None:
    """`write_atomic` for several files of one folder: none is renamed before all are on the disk.

    Without room for the last of them, none appears.
    """
    asides: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            mark = f"{os.getpid()}-{threading.get_ident():x}"
            asides[path] = path.with_name(f".{path.name}.{mark}.tmp")
            _write_flushed(asides[path], path, content)
        for path, aside in asides.items():
            aside.replace(path)
    finally:
        for aside in asides.values():
            aside.unlink(missing_ok=True)
    for folder in {path.parent for path in contents}:
        _flush_folder(folder)


def _write_flushed(aside: Path, path: Path, content: Content) -> None:
    """Write to `aside` and flush it; an OSError names `path`, for which it stands."""
    try:
        with open(aside, "wb") as f:
            if callable(content):
                content(f)
            else:
                f.write(content.encode() if isinstance(content, str) else content)
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        e.filename = str(path)
        raise


def disk_fault(error: OSError) -> str:
    """An OSError as one line: the file, the reason, and the fix where there is a usual one."""
    where = f"{printable(str(error.filename))}: " if error.filename else ""
    # NumPy's own error of a short write has no number
    fix = _NO_ROOM if error.errno is None else DISK_FIXES.get(error.errno, "")
    return f"{where}{error.strerror or error}{fix and '; ' + fix}"


def _flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows and some network disks cannot
        entry = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


def copy_atomic(source: Path, target: Path) -> None:
    """Copy a file so that `target` is whole or absent. Raises OSError."""
    with open(source, "rb") as f:
        write_atomic(target, lambda out: shutil.copyfileobj(f, out))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as a compressed npz, atomically; equal arrays in equal order give equal bytes.

    Raises ValueError for arrays of objects, which would need pickle.
    """
    for name, a in arrays.items():
        if np.asarray(a).dtype.hasobject:
            raise ValueError(f"{name} would need pickle")
    write_atomic(path, lambda f: np.savez_compressed(f, **arrays))  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz; pickle is refused.

    Raises DamagedError, which names the file, if it is no npz, holds objects, or states arrays of
    more than MAX_ARRAY_BYTES in all (nothing is unpacked then). Raises OSError if it is absent.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_ARRAY_BYTES:
            raise ValueError(f"it unpacks to {size >> 20:,} MB; at most {MAX_ARRAY_BYTES >> 20:,}")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as f:
            found = {k: f[k] for k in f.files}
        if other := [k for k, a in found.items() if not isinstance(a, np.ndarray)]:
            raise ValueError(f"{other[0]} is no array")
        return found
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, SyntaxError) as e:
        raise DamagedError(
            f"{shown(path)} cannot be read ({e}); remove it and make it again"
        ) from e


def shown(path: Path) -> str:
    """A file for people who may be visitors: without the machine's folders above the project's.

    Files elsewhere, which only somebody at this machine can name, keep their whole path.
    """
    whole = Path(os.path.abspath(path))
    for folder in (checkpoints_folder(), data_folder()):
        if whole.is_relative_to(home := Path(os.path.abspath(folder))):
            return printable(str(whole.relative_to(home.parent)))
    return printable(str(whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else path))


def printable(name: str) -> str:
    r"""A name that can be shown and stored: undecodable bytes and control characters as escapes.

    >>> printable("caf\udce9.mp4")
    'caf\\udce9.mp4'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def decode_text(name: str, data: bytes) -> str:
    """The text of a table: UTF-8 or UTF-16, with or without a byte order mark.

    Raises UserError, which names the file, what it is instead, and the fix.
    """
    if data[:4] == b"PK\3\4" or data[:4] == b"\xd0\xcf\x11\xe0":
        raise UserError(f"{name} is a spreadsheet; save it as 'CSV UTF-8' and give that")
    encoding = "utf-8-sig"
    if data[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        encoding = "utf-32"
    elif data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in data[:2]:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        text = data.decode(encoding).lstrip("\ufeff")
    except UnicodeDecodeError as e:
        if _is_binary(data):
            raise UserError(f"{name} is no text; save the table as 'CSV UTF-8'") from e
        line = data[: e.start].count(b"\n") + 1
        what = f"{name} is not UTF-8 text (byte {data[e.start]:#04x} in line {line}"
        what += "; it may be Latin-1)" if encoding == "utf-8-sig" else ")"
        raise UserError(f"{what}; save it as 'CSV UTF-8'") from e
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        what = f"{name} is no text (zero bytes in line {line})"
        raise UserError(f"{what}; save the table as 'CSV UTF-8' again")
    return text


def _is_binary(data: bytes) -> bool:
    """Whether control characters that no text holds are among the first bytes."""
    control = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1a\x1b"))
    return len(data[:4096].translate(None, control)) < len(data[:4096])


def read_delimited(text: str) -> Reader:
    r"""Rows of a CSV text; the delimiter is the most frequent of , ; tab and | in its first line.

    A first line of the form `sep=;`, as Excel writes it, names the delimiter and is passed over.
    The iterator has `line_num`, the lines read so far. Raises csv.Error for a malformed row.

    >>> list(read_delimited("set;label\ncal;'a, b'"))
    [['set', 'label'], ['cal', "'a, b'"]]
    >>> list(read_delimited("sep=;\r\nset;label\r\n"))
    [['set', 'label']]
    """
    first = text.lstrip().split("\n", 1)[0].strip().strip('"')
    file = io.StringIO(text, newline="")
    if len(first) == 5 and first.lower().startswith("sep=") or first.lower() == "sep=":
        rows = csv.reader(file, delimiter=first[4:] or "\t")
        next(rows)
        return rows
    return csv.reader(file, delimiter=max(",;\t|", key=first.count))


def npy_header(file: IO[bytes], c_order: bool = False) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype that an npy file's header states; leaves the file at its first value.

    Nothing is allocated: a header may state any shape. Raises ValueError for other files, for a
    later version of the format and, with `c_order`, for an array in Fortran order.

    >>> file = io.BytesIO()
    >>> np.save(file, np.zeros((2, 3), np.float32))
    >>> _ = file.seek(0)
    >>> npy_header(file)
    ((2, 3), dtype('float32'))
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of the npy format is not read")
    if c_order and fortran:
        raise ValueError("the array is in Fortran order")
    return shape, dtype


def cache_key(*what: Any) -> str:
    """File name for a cached result: 16 hex digits of SHA-256 over everything that decides it.

    >>> cache_key("faces", {"b": 1, "a": 2}) == cache_key("faces", {"a": 2, "b": 1})
    True
    """
    return digest(json.dumps(what, sort_keys=True, default=list))[:16]


def digest(content: Path | bytes | str) -> str:
    """SHA-256 of a file, of bytes, or of a text's UTF-8 form, as 64 hex digits.

    >>> digest("voice")[:16]
    'c57d7e92019708b6'
    """
    if isinstance(content, Path):
        with open(content, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


@contextmanager
def file_lock(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive system lock on the file `path`; it ends with the process, killed or not.

    With `wait` the call blocks until the lock is free. Otherwise it raises BusyError, whose message
    names the task `what` and the process that holds the lock.
    """
    import fcntl  # Unix only; runs are read without it

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            f.seek(0)
            who = f.read().strip() or "another process"
            raise BusyError(
                f"{what} is being done by {who}; wait for it or end it, and give the command again"
            ) from None
        f.truncate(0)
        f.write(f"process {os.getpid()} on {platform.node()}")
        f.flush()
        yield


def process_identity(pid: int) -> str:
    """Host, boot and start time of a running process; "" if there is none.

    A pid is given to another process later; this text never is.
    """
    if pid <= 0:
        return ""
    try:
        # the name in parentheses may hold anything; state is field 3, start time field 22
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, start = fields[0], f"{boot}/{fields[19]}"
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return ""
        query = ["ps", "-ww", "-p", str(pid), "-o", "stat=,lstart="]  # macOS
        state, _, start = subprocess.run(query, capture_output=True, text=True).stdout.partition(
            " "
        )
    has_ended = not state or state[0] in "ZX"  # a zombie waits for its parent
    return "" if has_ended else f"{platform.node()} {' '.join(start.split())}"


def is_suspended(pid: int) -> bool:
    """Whether a process is halted by a signal (SIGSTOP), where the system tells it in /proc."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in "Tt"
