"""A processor of a machine of a cluster: what `remote` asks of it, and how its run's files travel. No torch.

A `Worker` lives where no disk is shared with the driver. Its worker process is the local sweep's, in a folder of its own, and it answers what
in that folder is new.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from core import files, runs
from core.experiments import sweep
from core.runs import Run

WRITE_ORDER = (
    "state.pt",
    "models/G.safetensors",
    "results.json",
    "table.npz",
    "table.json",
)  # each tells that all before it is complete
DRIVER_FILES = ("config.json", "status.json", "metrics.jsonl")  # the driver writes these itself
RUN_FILE_NAME = re.compile(r"(?:[a-z]+/)?\w[\w.+-]*(?<!\.tmp)")  # a finished file of a run


def write_rank(name: str) -> int:
    """The place of a file in the order of writing; files of higher rank tell that those of lower rank are complete."""
    return WRITE_ORDER.index(name) if name in WRITE_ORDER else -1


def finished_files(directory: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of a run's finished files, in the order of reading: what a file tells is there when its turn comes."""
    found = {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}
    return iter(
        sorted(
            ((n, p) for n, p in found.items() if RUN_FILE_NAME.fullmatch(n)),
            key=lambda f: -write_rank(f[0]),
        )
    )


def write_run_file(folder: Path, name: str, data: bytes) -> None:
    """Write a file that came over the network into a run's folder. Raises ValueError for a name that is no file of a run."""
    if not RUN_FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no file of a run")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, data)


def _user_folder() -> Path:
    """This user's folder for seats on this machine. Raises PermissionError where somebody else could have put it there."""
    base = Path(tempfile.gettempdir()) / f"dacssgan-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{base} is not this user's alone; remove it, or name another folder with TMPDIR"
        )
    return base


def _new_worker_folder(base: Path) -> tuple[Path, IO[str]]:
    """A new folder for a seat, and the open lock that says whose it is; what seats left that were killed is removed."""
    import fcntl  # of Unix

    with files.file_lock(base / "lock", "setting up a seat", wait=True):
        for old in base.glob("seat-*"):
            with contextlib.suppress(BlockingIOError), open(old / "lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
        _remove_unused_corpora(base)
        home = Path(tempfile.mkdtemp(prefix="seat-", dir=base))
        lock = open(home / "lock", "w")  # noqa: SIM115  (held as long as the seat or its worker lives)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return home, lock


def _remove_unused_corpora(base: Path) -> None:
    """Remove stored corpora that no seat links to."""
    for path in (base / "corpora").glob("*"):
        if path.stat().st_nlink == 1:
            path.unlink()


class Worker:
    """A processor of a machine: it trains one run after another by a worker process, in a folder of its own that goes with it."""

    def __init__(self) -> None:
        self.base = _user_folder()
        self.home, self.lock = _new_worker_folder(self.base)
        self.folder = self.home / "checkpoints"
        runs.list_runs(self.folder)  # the index is there before the worker comes
        self.worker: subprocess.Popen[str] | None = None
        self.reader = threading.Thread()
        self.answers: list[str] = []
        self.corpora: dict[str, str] = {}  # file name -> digest of what lies here
        self.driver_classifiers: set[str] = set()  # classifiers in `.cache` that the driver has
        self.run = Run(self.folder / "none")
        self.sent: dict[str, tuple] = {}  # file -> what it looked like when it was sent
        self.lines: list[str] = []  # records that the driver has

    def name(self) -> str:
        """Of the machine; the first call tells that the seat is there."""
        return platform.node()

    def begin(
        self,
        run: str,
        order: str,
        given: dict[str, bytes],
        shared: dict[str, bytes],
        corpora: dict[str, tuple[str, Any]],
    ) -> None:
        """Start a run's training from its files as the driver has them, `given`.

        `order` is a line of `sweep.encode_request`, `shared` the classifiers of `.cache` that it needs and that are fitted, `corpora` the prepared
        files: name -> (SHA-256, reference to the bytes).
        """
        shutil.rmtree(self.run.directory, ignore_errors=True)
        self.run, self.answers = Run(self.folder / run), []
        for name, (digest, data) in corpora.items():
            self._store_corpus(name, digest, data)
        for name, data in given.items():
            write_run_file(self.run.directory, name, data)
        for name, data in shared.items():
            write_run_file(self.folder / ".cache", name, data)
        self.driver_classifiers |= set(shared)
        self.sent = {n: _file_stamp(p) for n, p in finished_files(self.run.directory) if n in given}
        self.lines = given.get("metrics.jsonl", b"").decode().splitlines()
        data_home = {
            "DACSSGAN_DATA": str(self.home / "data"),
            "DACSSGAN_CHECKPOINTS": str(self.folder),
        }
        self.worker = self.worker or sweep.start_worker(
            self.folder, data_home, (self.lock.fileno(),)
        )
        assert self.worker.stdin
        assert self.worker.stdout
        with contextlib.suppress(BrokenPipeError):  # news tells
            self.worker.stdin.write(
                json.dumps(json.loads(order) | {"folder": str(self.folder)}) + "\n"
            )
            self.worker.stdin.flush()
        ears = self.worker.stdout, self.answers
        self.reader = threading.Thread(
            target=lambda out, heard: heard.append(out.readline()), args=ears, daemon=True
        )
        self.reader.start()

    def _store_corpus(self, name: str, digest: str, data: Any) -> None:
        """Put a prepared corpus where the worker looks for it: once per machine on disk, and once over the network, checked by digest."""
        if self.corpora.get(name) == digest:
            return
        path, here = self.base / "corpora" / digest, self.home / "data" / "processed" / name
        path.parent.mkdir(exist_ok=True)
        here.parent.mkdir(parents=True, exist_ok=True)
        with files.file_lock(self.base / "lock", "storing a corpus", wait=True):
            if not path.exists() or files.digest(path) != digest:
                import ray

                content = ray.get(data)
                if files.digest(content) != digest:
                    raise OSError(f"{name} came here damaged")
                files.write_atomic(path, content)
            here.unlink(missing_ok=True)
            os.link(path, here)
        self.corpora[name] = digest

    def collect_updates(self, everything: bool) -> dict:
        """What the driver does not have yet.

        row: the run's row of the index. records: (step from which on the driver's are void, or None; [record]). shared: classifiers newly
        fitted. files: name -> bytes, in full if `everything` or at the end. fresh: whether there is a checkpoint that was not sent.
        answer: the worker's line at the end, else "". code: exit status where it ended with none. said: what it printed.
        """
        over, answer, code, said = not self.reader.is_alive(), "", None, b""
        if over:
            answer = self.answers[0] if self.answers else ""
            if not answer and self.worker:
                code, self.worker = sweep.close_worker(self.worker), None
            log = self.folder / ".cache" / "sweep.log"
            said = log.read_bytes()
            os.truncate(log, 0)  # the worker appends
        out, fresh = {}, False
        for name, path in finished_files(self.run.directory) if self.run.directory.exists() else ():
            if name in DRIVER_FILES or self.sent.get(name) == (seen := _file_stamp(path)):
                continue
            fresh = fresh or name in ("state.pt", "results.json")
            if everything or over:
                out[name], self.sent[name] = path.read_bytes(), seen
        new = {
            p.name: p.read_bytes()
            for p in (self.folder / ".cache").glob("*.safetensors")
            if p.name not in self.driver_classifiers
        }
        self.driver_classifiers |= set(new)
        row = next((r for r in runs.list_runs(self.folder) if r["run"] == self.run.id), {})
        records = self._records()  # last, so that a checkpoint's are among them
        end = {"over": over, "answer": answer, "code": code, "said": said}
        return {
            "row": row,
            "records": records,
            "shared": new,
            "files": out,
            "fresh": fresh and not out,
        } | end

    def _records(self) -> tuple[int | None, list[dict]]:
        path = self.run.directory / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        lines = [
            line.rstrip("\n") for line in lines if line.endswith("}\n")
        ]  # the last one may be half written
        had, self.lines = self.lines, lines
        same = next(
            (i for i, line in enumerate(had) if i >= len(lines) or lines[i] != line), len(had)
        )
        if same == len(had):
            return None, [json.loads(line) for line in lines[same:]]
        first = json.loads(had[same])[
            "step"
        ]  # on resuming, what lay after the checkpoint was dropped
        return first - 1, [r for line in lines if (r := json.loads(line))["step"] >= first]

    def stop(self) -> None:
        """Ask the run to save its state and end."""
        if self.worker:
            self.worker.terminate()

    def close(self) -> None:
        """End the worker and leave nothing behind."""
        if self.worker:
            sweep.close_worker(self.worker)
        with files.file_lock(self.base / "lock", "leaving a seat", wait=True):
            shutil.rmtree(self.home, ignore_errors=True)
            _remove_unused_corpora(self.base)


def _file_stamp(path: Path) -> tuple:
    s = path.stat()
    return s.st_mtime_ns, s.st_size, s.st_ino
