"""A run on disk: its files, read with their kinds and sizes checked, for it may be a stranger's.

Standard library and NumPy only.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.config.serialisation import from_dict
from core.config.settings import Config

NO_STEP = 1 << 60  # step of an unreadable line of metrics.jsonl: later than every checkpoint
NAME = re.compile(r"\w[\w.+-]{0,199}")  # of a run's folder: leads nowhere else, and is no markup
MAX_JSON_BYTES = 64 << 20  # of a run's json files; a table has some 100 kB
# The runs that come with the project; a model card alone makes no other run one of them.
SHIPPED_RUNS = frozenset(
    (
        "demo-classifier-ef718b05",
        "demo-cp-87b4dc5a",
        "demo-label-dc121551",
        "demo-reverse-label-169ef66d",
        "fer2013-ravdess-classifier-18800633",
        "fer2013-ravdess-cp-e4390286",
        "fer2013-ravdess-label-d5538767",
        "listening-label-35a1c015",
    )
)


@dataclass(frozen=True)
class Run:
    """One run on disk; it need not be in the database."""

    directory: Path

    @property
    def id(self) -> str:
        return self.directory.name

    @property
    def config(self) -> Config:
        """The run's settings. Raises UserError, which names the file, if it holds anything else."""
        path = self.directory / "config.json"
        try:
            return from_dict(Config, _read_json(path))
        except (OSError, ValueError) as e:
            fix = "restore the run or remove its folder"
            reason = (isinstance(e, OSError) and e.strerror) or e  # without the path
            shown = self.shown("config.json")
            raise files.UserError(
                f"{shown} cannot be read as a configuration ({reason}); {fix}"
            ) from e

    def json(self, name: str) -> dict:
        """Content of `<name>.json` (results, provenance, status, card); {} if there is none yet.

        Raises UserError, which names the file, for anything but a JSON object of ordinary size.
        """
        path = self.directory / f"{name}.json"
        try:
            return _read_json(path) if os.path.lexists(path) else {}
        except ValueError as e:
            shown = self.shown(path.name)
            raise files.UserError(f"{shown} cannot be read ({e}); remove it or the run") from e

    def arrays(self, name: str = "outputs") -> dict[str, np.ndarray]:
        """The arrays of `<name>.npz`; {} if there is none yet."""
        path = self.directory / f"{name}.npz"
        return files.read_arrays(path) if path.exists() else {}

    def shown(self, file: str) -> str:
        """A file of the run for people, without the machine's folders before it."""
        return f"{files.printable(self.id)}/{file}"

    def model_path(self, name: str) -> Path:
        """Path of a network file: G, D, Q, f_S, f_T or scorer."""
        return self.directory / "models" / f"{name}.safetensors"

    @property
    def shipped(self) -> bool:
        """Whether it is one of the project's own, which pages show first."""
        return self.id in SHIPPED_RUNS and self.is_copy

    @property
    def is_copy(self) -> bool:
        """Whether `runs ship` made it, with a model card and without what training needs."""
        return (self.directory / "CARD.md").is_file()


def _read_json(path: Path) -> dict:
    """The object in a JSON file. Raises ValueError for anything else, OSError if it is absent."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no plain file")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"it is larger than {MAX_JSON_BYTES >> 20} MB")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return found


def index_row(run: Run) -> dict[str, Any]:
    """A run's row of the index, read from its directory. Raises UserError for a damaged run."""
    if not NAME.fullmatch(run.id):
        fix = "rename the folder: letters, digits, '-', '_' and '.'"
        raise files.UserError(f"{files.printable(run.id)[:80]} is no name of a run; {fix}")
    c, status = run.config, run.json("status")
    is_done, step = bool(run.json("results")), status.get("step", 0)
    row = {
        "run": run.id,
        "name": c.name,
        "condition": c.gan.condition,
        "state": "done" if is_done else status.get("state", "queued"),
        "phase": status.get("phase", ""),
        "pid": status.get("pid", 0),
        "process": status.get("process", ""),
        "step": step,
        "steps": c.gan.steps,
        "error": status.get("error", ""),
        "parent": run.json("provenance").get("parent"),
        "created": (run.directory / "config.json").stat().st_mtime,
        "shipped": int(run.shipped),
    }
    kinds = {"state": str, "phase": str, "pid": int, "process": str, "step": int, "error": str}
    for name, kind in kinds.items():
        if not isinstance(row[name], kind) or (kind is int and not 0 <= row[name] < NO_STEP):
            path = run.shown("status.json")
            raise files.UserError(f"{path}: {name} is {str(row[name])[:40]!r}; remove the file")
    if not isinstance(row["parent"], str | None):
        raise files.UserError(f"{run.shown('provenance.json')}: parent is no run; remove it")
    return row


def parse_record(line: str) -> tuple[int, dict[str, float]]:
    """Step and finite values of a line of metrics.jsonl; NO_STEP and {} for anything else.

    A process that was killed while it wrote leaves half a line.
    """
    try:
        record = json.loads(line)
        step = record.pop("step")
        values = {str(k): float(v) for k, v in record.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return NO_STEP, {}
    is_step = type(step) is int and 0 <= step < NO_STEP
    return (step, values) if is_step and np.isfinite(list(values.values())).all() else (NO_STEP, {})


def read_records(run: Run) -> list[tuple[int, dict[str, float]]]:
    """The whole records of a run's metrics.jsonl; [] without one."""
    path = run.directory / "metrics.jsonl"
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return [r for line in lines if (r := parse_record(line))[0] < NO_STEP]
