"""A finished run that somebody else has sent, from a folder or a zip: copied, checked, then shown.

Nothing is unpacked that is no file of a run, and nothing appears in the folder of runs before all
of it has passed `runs.checks`.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from core import files
from core.files import UserError
from core.runs import checks, store
from core.runs.directory import NAME, Run

MAX_BYTES = 4 << 30  # of all files of a run, unpacked
CHUNK_BYTES = 1 << 20
RUN_FILE = re.compile(
    r"(config|provenance|corpus|sets|results|table|ears)\.json"
    r"|(outputs|generated|table|real_voices)\.npz"
    r"|metrics\.jsonl|CARD\.md|models/(G|D|Q|f_S|f_T|scorer)\.safetensors"
    r"|samples/step-\d{1,12}\.npz"
)
Opener = Callable[[], IO[bytes]]


def import_run(source: Path, folder: Path | None = None) -> tuple[Run, list[str]]:
    """Copy a run into the folder of runs; returns it, and the names that were passed over.

    Raises UserError for what is no finished run, breaks a rule of `runs.checks`, unpacks to more
    than MAX_BYTES or has the id of a run that is here already.
    """
    folder = folder or files.checkpoints_folder()
    shown = files.printable(str(source))
    with _opened(source) as (run_id, members, passed_over):
        if not NAME.fullmatch(run_id):
            raise UserError(
                f"{shown}: {files.printable(run_id)[:60]!r} is no name of a run; rename it"
            )
        if (folder / run_id).exists():
            raise UserError(f"{run_id} is here already; remove {folder / run_id} to import it anew")
        if "config.json" not in members:
            raise UserError(f"{shown} holds no run: it has no config.json")
        if sum(size for size, _ in members.values()) > MAX_BYTES:
            raise UserError(f"{shown} unpacks to more than {MAX_BYTES >> 30} GB")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=folder) as aside:
            staged = Run(Path(aside) / run_id)
            for name, (size, opened) in members.items():
                _copy(opened, size, staged.directory / name, f"{shown}, {name}")
            checks.check(staged)
            if not staged.json("results"):
                raise UserError(f"{shown} is not finished: it has no results.json")
            staged.directory.rename(folder / run_id)
    store.index_existing(folder)
    return Run(folder / run_id), passed_over


@contextmanager
def _opened(source: Path) -> Iterator[tuple[str, dict[str, tuple[int, Opener]], list[str]]]:
    """The run's id, its files with their sizes and how to open them, and the other names."""
    shown = files.printable(str(source))
    if source.is_dir():
        found = {
            p.relative_to(source).as_posix(): p
            for p in source.rglob("*")
            if stat.S_ISREG(p.lstat().st_mode)
        }
        sized: dict[str, tuple[int, Opener]] = {
            n: (p.stat().st_size, partial(_open, p)) for n, p in found.items()
        }
        yield source.resolve().name, *_select(sized)
        return
    if not source.is_file():
        raise UserError(f"{shown} is no folder and no zip")
    try:
        with zipfile.ZipFile(source) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            tops = {PurePosixPath(m.filename).parts[0] for m in members if "/" in m.filename}
            is_nested = len(tops) == 1 and all("/" in m.filename for m in members)
            top = tops.pop() if is_nested else ""
            cut = len(top) + 1 if top else 0
            kept: dict[str, tuple[int, Opener]] = {
                m.filename[cut:]: (m.file_size, partial(archive.open, m)) for m in members
            }
            yield top or source.stem, *_select(kept)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        raise UserError(f"{shown} is no zip that can be read ({e}); pack the run anew") from e


def _open(path: Path) -> IO[bytes]:
    return open(path, "rb")


def _select(found: dict) -> tuple[dict[str, tuple[int, Opener]], list[str]]:
    """The files of a run among all names, and the other names."""
    kept = {n: of for n, of in found.items() if RUN_FILE.fullmatch(n)}
    return kept, sorted(files.printable(n) for n in found if n not in kept)


def _copy(opened: Opener, size: int, target: Path, shown: str) -> None:
    """Copy one file; a zip may hold more than it says, of which no more is read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened() as source, open(target, "wb") as out:
        left = size
        while part := source.read(min(CHUNK_BYTES, left + 1)):
            left -= len(part)
            if left < 0:
                raise UserError(f"{shown} is larger than it says")
            out.write(part)
        out.flush()
        os.fsync(out.fileno())
