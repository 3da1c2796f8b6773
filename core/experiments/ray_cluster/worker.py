"""A Ray actor that trains runs on a machine without a shared disk and returns their new files.

Without torch. Its worker process is the local sweep's, in a temporary folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import select
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from core import files
from core.experiments.sweeping import sweep
from core.runs import store
from core.runs.directory import Run

# each file says that all before it are complete
CHECKPOINT_FILES = ("state.pt", "models/G.safetensors", "results.json", "table.npz", "table.json")
DRIVER_FILES = ("config.json", "status.json", "metrics.jsonl")  # written by the driver itself
RUN_FILE_NAME = re.compile(r"(?:[a-z]+/)?\w[\w.+-]*(?<!\.tmp)")  # a finished file of a run


def write_rank(name: str) -> int:
    """Rank of a run's file in the order of writing; files of lower rank are complete before it."""
    return CHECKPOINT_FILES.index(name) if name in CHECKPOINT_FILES else -1


def finished_files(directory: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of a run's finished files, highest `write_rank` first.

    A file shows that those of lower rank are complete, so it is read before them.
    """
    found = {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}
    names = sorted(filter(RUN_FILE_NAME.fullmatch, found), key=lambda name: -write_rank(name))
    return ((name, found[name]) for name in names)


def write_run_file(folder: Path, name: str, data: bytes) -> None:
    """Write a file from the network into a run's folder. Raises ValueError for a foreign name."""
    if not RUN_FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no file of a run")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, data)


def _user_folder() -> Path:
    """This user's folder for workers. Raises PermissionError if others could have created it."""
    base = Path(tempfile.gettempdir()) / f"dacssgan-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{base} is not this user's alone; remove it, or name another folder with TMPDIR"
        )
    return base


def _new_worker_folder(base: Path) -> tuple[Path, IO[str]]:
    """A new folder for a worker, and its lock, open; folders of killed workers are removed."""
    import fcntl  # Unix alone

    with files.file_lock(base / "lock", "setting up a worker", wait=True):
        for old in base.glob("worker-*"):
            with contextlib.suppress(BlockingIOError), open(old / "lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
        _remove_unused_corpora(base)
        home = Path(tempfile.mkdtemp(prefix="worker-", dir=base))
        # held as long as this process or its worker process lives
        lock = open(home / "lock", "w")  # noqa: SIM115
        fcntl.flock(lock, fcntl.LOCK_EX)
    return home, lock


def _remove_unused_corpora(base: Path) -> None:
    """Remove stored corpora to which no worker has a link."""
    for path in (base / "corpora").glob("*"):
        if path.stat().st_nlink == 1:
            path.unlink()


@dataclass
class Updates:
    """New records and files of a worker, which the driver does not have yet."""

    row: dict[str, Any]  # the run's row of the index
    records: list[dict]  # of metrics.jsonl
    void_after: int | None  # the driver's records of later steps are void; None: all are valid
    classifiers: dict[str, bytes]  # newly fitted ones: name in .cache -> bytes
    files: dict[str, bytes]  # name -> bytes
    has_new_checkpoint: bool  # there is one, and it is not in `files`
    has_ended: bool
    answer: str = ""  # the worker process's answer; "" if it died
    exit_code: int | None = None  # exit status of a worker process that died
    log: bytes = b""  # printed output of the worker process, at the end


class Worker:
    """Trains one run after another in a worker process, on one processor or GPU of a machine."""

    def __init__(self) -> None:
        self.base = _user_folder()
        self.home, self.lock = _new_worker_folder(self.base)
        self.folder = self.home / "checkpoints"
        store.list_runs(self.folder)  # creates the index before the worker process needs it
        self.process: subprocess.Popen[str] | None = None
        self.reader = threading.Thread()  # waits for the answer
        self.answers: list[str] = []
        self.corpora: dict[str, str] = {}  # name of a prepared file -> digest of what is here
        self.driver_classifiers: set[str] = set()  # names in .cache that the driver has
        self.run = Run(self.folder / "none")
        self.sent: dict[str, tuple] = {}  # file -> its `_file_stamp` when it was sent
        self.sent_lines: list[str] = []  # records that the driver has

    def name(self) -> str:
        """The machine's name; the first answer says that the worker is ready."""
        return platform.node()

    def begin(
        self,
        run: str,
        request: str,
        run_files: dict[str, bytes],
        classifiers: dict[str, bytes],
        corpora: dict[str, tuple[str, Any]],
    ) -> None:
        """Start a run's training from the driver's files.

        request: a line of `sweep.encode_request`. run_files, classifiers: name -> bytes, of the
        run and of `.cache`. corpora: name of a prepared file -> (SHA-256, reference to the bytes).
        """
        shutil.rmtree(self.run.directory, ignore_errors=True)
        self.run = Run(self.folder / run)
        for name, (digest, data) in corpora.items():
            self.store_corpus(name, digest, data)
        for folder, given in (
            (self.run.directory, run_files),
            (self.folder / ".cache", classifiers),
        ):
            for name, data in given.items():
                write_run_file(folder, name, data)
        self.driver_classifiers |= set(classifiers)
        here = finished_files(self.run.directory)
        self.sent = {n: _file_stamp(p) for n, p in here if n in run_files}
        self.sent_lines = run_files.get("metrics.jsonl", b"").decode().splitlines()
        data_home, checkpoints = str(self.home / "data"), str(self.folder)
        environment = {"DACSSGAN_DATA": data_home, "DACSSGAN_CHECKPOINTS": checkpoints}
        lock = (self.lock.fileno(),)
        self.process = self.process or sweep.start_worker(self.folder, environment, lock)
        sweep.send_request(self.process, json.dumps(json.loads(request) | {"folder": checkpoints}))
        self.reader, self.answers = sweep.read_line(self.process)

    def store_corpus(self, name: str, digest: str, data: Any) -> None:
        """Link a prepared corpus into the worker's data folder.

        It crosses the network and lies on the disk once per machine. Raises OSError for bytes of
        another digest.
        """
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
                    raise OSError(f"{name} arrived damaged")
                files.write_atomic(path, content)
            here.unlink(missing_ok=True)
            os.link(path, here)
        self.corpora[name] = digest

    def collect_updates(self, with_files: bool) -> Updates:
        """The run's updates; its new files are among them if `with_files`, and at the end."""
        has_ended, answer, exit_code, log = not self.reader.is_alive(), "", None, b""
        if has_ended:
            answer = self.answers[0] if self.answers else ""
            if not answer and self.process:
                exit_code, self.process = sweep.close_worker(self.process), None
            path = self.folder / ".cache" / "sweep.log"
            log = path.read_bytes()
            os.truncate(path, 0)  # the worker process appends to it
        new_files, has_new_checkpoint = {}, False
        if self.run.directory.exists():
            for name, path in finished_files(self.run.directory):
                stamp = _file_stamp(path)
                if name in DRIVER_FILES or self.sent.get(name) == stamp:
                    continue
                has_new_checkpoint |= name in ("state.pt", "results.json")
                if with_files or has_ended:
                    new_files[name], self.sent[name] = path.read_bytes(), stamp
        cached = (self.folder / ".cache").glob("*.safetensors")
        fitted = {p.name: p.read_bytes() for p in cached if p.name not in self.driver_classifiers}
        self.driver_classifiers |= set(fitted)
        row = next((r for r in store.list_runs(self.folder) if r["run"] == self.run.id), {})
        void_after, records = self.new_records()  # last, so that a checkpoint's are among them
        has_new_checkpoint &= not new_files
        end = has_ended, answer, exit_code, log
        return Updates(row, records, void_after, fitted, new_files, has_new_checkpoint, *end)

    def new_records(self) -> tuple[int | None, list[dict]]:
        """(void_after, records) of `Updates`: resuming drops the records after the checkpoint."""
        path = self.run.directory / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        # the last line may be half written
        lines = [line[:-1] for line in text.splitlines(keepends=True) if line.endswith("}\n")]
        sent, self.sent_lines = self.sent_lines, lines
        for i, line in enumerate(sent):
            if i >= len(lines) or lines[i] != line:
                first = json.loads(line)["step"]
                records = [r for new in lines if (r := json.loads(new))["step"] >= first]
                return first - 1, records
        return None, [json.loads(line) for line in lines[len(sent) :]]

    def stop(self) -> None:
        """Ask the run to save its state and end."""
        if self.process:
            self.process.terminate()

    def close(self) -> None:
        """End the worker process and remove the worker's folder."""
        if self.process:
            sweep.close_worker(self.process)
        with files.file_lock(self.base / "lock", "removing a worker", wait=True):
            shutil.rmtree(self.home, ignore_errors=True)
            _remove_unused_corpora(self.base)


def _file_stamp(path: Path) -> tuple:
    s = path.stat()
    return s.st_mtime_ns, s.st_size, s.st_ino


PLACEHOLDER_CODE = """import signal, sys
signal.signal(signal.SIGTERM, lambda *a: print('asked', flush=True))
sys.stdin.read()"""


class PlaceholderProcess:
    """Local placeholder for a remote training: pages see a live process, and can stop it."""

    def __init__(self, run: str) -> None:
        command = [sys.executable, "-I", "-S", "-c", PLACEHOLDER_CODE, "core", "train", run]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)
        self.pid = self.process.pid

    def was_asked_to_end(self) -> bool:
        """Whether it was asked to end, or has ended."""
        assert self.process.stdout
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def close(self) -> None:
        self.process.communicate()
