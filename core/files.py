"""Where files lie, how they are written whole, locked and named by content; errors that a user can mend.

Standard library and NumPy. `core` reads and writes through these functions, so that a reader always finds
the old file or the new one, never half of one, and no pickle is ever loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]  # the project: app.py, core/, checkpoints/, data/


class UserError(ValueError):
    """Something that the user can mend; the message names the file and the fix.

    Commands and pages show it as one line. Any other exception is a bug and keeps its traceback.
    """


class BusyError(UserError):
    """Another process is at this work; the message names it."""


class StopRequested(RuntimeError):
    """Long work was asked to stop. What it has done is kept, and the same call continues it."""


def checkpoints_folder() -> Path:
    """Folder of the runs: `checkpoints/` of the project, or what DACSSGAN_CHECKPOINTS names."""
    return Path(os.environ.get("DACSSGAN_CHECKPOINTS") or ROOT / "checkpoints")


def data_folder() -> Path:
    """Folder of the corpora: `data/` of the project, or what DACSSGAN_DATA names."""
    return Path(os.environ.get("DACSSGAN_DATA") or ROOT / "data")


def write_atomic(path: Path, content: bytes | str | Callable[[IO[bytes]], object]) -> None:
    """Write a file aside, flush it to the disk and rename it; `content` may be a function that writes it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident():x}.tmp")
    try:
        with open(aside, "wb") as f:
            if callable(content):
                content(f)
            else:
                f.write(content.encode() if isinstance(content, str) else content)
            f.flush()
            os.fsync(f.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of readable JSON."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """`write_atomic` of a compressed npz without pickle: equal arrays in equal order give equal bytes.

    Raises ValueError for arrays of objects.
    """
    for name, a in arrays.items():
        if np.asarray(a).dtype.hasobject:
            raise ValueError(f"{name} would need pickle")
    write_atomic(path, lambda f: np.savez_compressed(f, **arrays))  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz, pickle refused."""
    with (
        open(path, "rb") as file,
        np.load(file, allow_pickle=False) as f,
    ):  # a damaged file is closed too
        return {k: f[k] for k in f.files}


def cache_key(*what: Any) -> str:
    """16 hex digits of SHA-256 over what decides a result: the name of the file that keeps it."""
    return digest(json.dumps(what, sort_keys=True, default=list))[:16]


def digest(content: Path | bytes | str) -> str:
    """SHA-256 of a file, of bytes, or of a text's UTF-8 form, as 64 hex digits."""
    if isinstance(content, Path):
        with open(content, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


@contextmanager
def file_lock(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold the system's lock on the file `path`; it ends with its process, killed or not.

    Raises Busy, which says that `what` is being done and by which process, unless told to `wait`.
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
