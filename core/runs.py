"""The run store: one directory per run, and one SQLite database (WAL) that the pages query.

The run directories hold everything: config.json, provenance.json, status.json, metrics.jsonl,
outputs.npz, results.json, models/, samples/, state.pt, log.txt. `reindex` rebuilds the database
from them. Standard library and NumPy only.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core import files
from core.config import Config, from_dict, to_dict

# paused: a stopped run that keeps its place in the queue
RunState = Literal["queued", "running", "paused", "stopped", "failed", "done"]
NO_STEP = 1 << 60  # step of an unreadable line of metrics.jsonl: later than every checkpoint
# seconds without a heartbeat after which a run that trains on another machine counts as dead
HEARTBEAT_TIMEOUT = 60.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, name TEXT, condition TEXT, state TEXT,
  phase TEXT, pid INTEGER, process TEXT, heartbeat REAL, step INTEGER, steps INTEGER, rate REAL,
  error TEXT, parent TEXT, created REAL, shipped INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS metrics (run TEXT, step INTEGER, name TEXT, value REAL,
  PRIMARY KEY (run, step, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue (run TEXT PRIMARY KEY, place INTEGER, device TEXT) WITHOUT ROWID;
"""


@contextmanager
def database(folder: Path | None = None) -> Iterator[sqlite3.Connection]:
    """Open the index `runs.sqlite` of a checkpoints folder; created on first use, commits on exit.

    Waits up to 10 seconds for another writer.
    """
    folder = folder or files.checkpoints_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "runs.sqlite", timeout=10)) as db:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(SCHEMA)
        columns = {row["name"] for row in db.execute("PRAGMA table_info(runs)")}
        if "process" not in columns:  # an index of an earlier version
            db.execute("ALTER TABLE runs ADD COLUMN process TEXT")
        with db:
            yield db


@dataclass(frozen=True)
class Run:
    """One run on disk; it need not be in the database."""

    directory: Path

    @property
    def id(self) -> str:
        return self.directory.name

    @property
    def config(self) -> Config:
        path = self.directory / "config.json"
        try:
            return from_dict(Config, json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as e:
            fix = "restore the run or remove its folder"
            raise files.UserError(f"{path} cannot be read as a configuration ({e}); {fix}") from e

    def json(self, name: str) -> dict:
        """Content of `<name>.json` (results, provenance, status, card); {} if there is none yet."""
        path = self.directory / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def arrays(self, name: str = "outputs") -> dict[str, np.ndarray]:
        """The arrays of `<name>.npz`; {} if there is none yet."""
        path = self.directory / f"{name}.npz"
        return files.read_arrays(path) if path.exists() else {}

    def model_path(self, name: str) -> Path:
        """Path of a network file: G, D, Q, f_S, f_T or scorer."""
        return self.directory / "models" / f"{name}.safetensors"

    @property
    def shipped(self) -> bool:
        return (self.directory / "CARD.md").exists()


def create(
    directory: Path, config: Config, parent: str | None = None, provenance: dict | None = None
) -> Run:
    """Create (or reopen) a run directory and register it; an existing config.json is kept."""
    run = Run(directory)
    (directory / "models").mkdir(parents=True, exist_ok=True)
    (directory / "samples").mkdir(exist_ok=True)
    path = directory / "config.json"
    if not path.exists():
        files.write_json(path, to_dict(config))
    if provenance:
        files.write_json(directory / "provenance.json", provenance | {"parent": parent})
    register(run)
    return run


def register(run: Run) -> None:
    """Add a run directory to the database, or refresh its row."""
    c, status = run.config, run.json("status")
    row = {
        "run": run.id,
        "name": c.name,
        "condition": c.gan.condition,
        "state": "done" if run.json("results") else status.get("state", "queued"),
        "phase": status.get("phase", ""),
        "step": status.get("step", 0),
        "steps": c.gan.steps,
        "error": status.get("error", ""),
        "parent": run.json("provenance").get("parent"),
        "created": (run.directory / "config.json").stat().st_mtime,
        "shipped": int(run.shipped),
    }
    with database(run.directory.parent) as db:
        names = ", ".join(row)
        marks = ", ".join(":" + k for k in row)
        updates = ", ".join(f"{k}=excluded.{k}" for k in row if k != "run")
        db.execute(
            f"INSERT INTO runs ({names}) VALUES ({marks}) ON CONFLICT(run) DO UPDATE SET {updates}",
            row,
        )


def update(run: Run, **fields: Any) -> None:
    """Change columns of a run's row (state, phase, pid, step, rate, error) and its heartbeat.

    With `pid` the process's identity is recorded too. status.json gets a copy of the columns when
    the state or the phase changes.
    """
    fields["heartbeat"] = time.time()
    if "pid" in fields:
        fields["process"] = files.process_identity(fields["pid"]) if fields["pid"] else ""
    with database(run.directory.parent) as db:
        assignments = ", ".join(f"{k}=:{k}" for k in fields)
        db.execute(f"UPDATE runs SET {assignments} WHERE run=:run", fields | {"run": run.id})
    if "state" in fields or "phase" in fields:
        keep = {k: fields[k] for k in ("state", "phase", "error", "step", "pid") if k in fields}
        files.write_json(run.directory / "status.json", run.json("status") | keep)


def record_metrics(run: Run, step: int, values: dict[str, float]) -> None:
    """Append one step's finite values to metrics.jsonl and to the database."""
    finite = {k: float(v) for k, v in values.items() if np.isfinite(v)}
    with open(run.directory / "metrics.jsonl", "a") as f:
        f.write(json.dumps({"step": step, **finite}) + "\n")
    with database(run.directory.parent) as db:
        db.executemany(
            "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)",
            [(run.id, step, k, v) for k, v in finite.items()],
        )


def drop_metrics_after(run: Run, step: int) -> None:
    """Drop the records after the checkpoint's step on resume, so that no step is recorded twice."""
    path = run.directory / "metrics.jsonl"
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        files.write_atomic(path, "".join(line + "\n" for line in lines))
    with database(run.directory.parent) as db:
        db.execute("DELETE FROM metrics WHERE run=? AND step>?", (run.id, step))


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return NO_STEP  # a process killed while writing left half a line


def load_curves(
    run: str, folder: Path | None = None, after: int = -1
) -> dict[str, tuple[list[int], list[float]]]:
    """Curves of a run after step `after`: name -> (steps, values), in the order of steps."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    query = "SELECT step, name, value FROM metrics WHERE run=? AND step>? ORDER BY step"
    with database(folder) as db:
        for row in db.execute(query, (run, after)):
            steps, values = curves.setdefault(row["name"], ([], []))
            steps.append(row["step"])
            values.append(row["value"])
    return curves


def list_runs(folder: Path | None = None) -> list[dict]:
    """All runs whose directory exists, newest first, as dicts of the database's columns.

    `place` and `device` belong to the queue and are None for a run outside it. `rate` is samples
    per second while G and D train, and steps per second in the other phases.
    """
    folder = folder or files.checkpoints_folder()
    query = "SELECT * FROM runs LEFT JOIN queue USING (run) ORDER BY created DESC, run"
    with database(folder) as db:
        rows = [dict(r) for r in db.execute(query)]
    for r in rows:
        if r["state"] == "stopped" and r["place"] is not None:
            r["state"] = "paused"
    return [r for r in rows if (folder / r["run"] / "config.json").exists()]


# ------------------------------------- the queue: runs that train one at a time on this machine


def list_queue(folder: Path | None = None) -> list[dict]:
    """The rows of `list_runs` that are in the queue, in its order: running, paused or waiting."""
    queued = (r for r in list_runs(folder) if r["place"] is not None)
    return sorted(queued, key=lambda r: r["place"])


def enqueue(run: Run, device: str = "auto", first: bool = False) -> None:
    """Put a run at the end of the queue, or at its front; a queued run keeps its place.

    The run's device is set in either case.
    """
    place = "coalesce(min(place), 0) - 1" if first else "coalesce(max(place), 0) + 1"
    query = (
        f"INSERT INTO queue (run, place, device) VALUES (?, (SELECT {place} FROM queue), ?) "
        "ON CONFLICT(run) DO UPDATE SET device=excluded.device"
    )
    with database(run.directory.parent) as db:
        db.execute(query, (run.id, device))


def dequeue(run: Run) -> None:
    """Remove a run from the queue, if it is there."""
    with database(run.directory.parent) as db:
        db.execute("DELETE FROM queue WHERE run=?", (run.id,))


def swap_places(a: Run, b: Run) -> None:
    """Swap the places of two runs of the queue."""
    query = "SELECT run, place FROM queue WHERE run IN (?, ?)"
    with database(a.directory.parent) as db:
        places = dict(db.execute(query, (a.id, b.id)).fetchall())
        if len(places) == 2:
            swapped = [(places[b.id], a.id), (places[a.id], b.id)]
            db.executemany("UPDATE queue SET place=? WHERE run=?", swapped)


def index_existing(folder: Path | None = None) -> list[str]:
    """Add run directories that the index lacks, such as shipped ones, with their curves.

    Returns the ids of the added runs.
    """
    folder = folder or files.checkpoints_folder()
    known, found = {r["run"] for r in list_runs(folder)}, []
    for path in sorted(folder.glob("*/config.json")):
        run = Run(path.parent)
        if run.id in known:
            continue
        try:
            register(run)
        except ValueError:
            continue  # the folder is not a run of this version
        log = run.directory / "metrics.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        rows = [json.loads(line) for line in lines if _step_of(line) < NO_STEP]
        values = [(run.id, r["step"], k, v) for r in rows for k, v in r.items() if k != "step"]
        with database(folder) as db:
            db.executemany("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)", values)
        found.append(run.id)
    return found


def reindex(folder: Path | None = None) -> int:
    """Rebuild the database from the run directories; returns the number of runs.

    Running and queued runs keep their process and heartbeat.
    """
    folder = folder or files.checkpoints_folder()
    columns = "run, state, pid, process, heartbeat"
    query = f"SELECT {columns} FROM runs WHERE state IN ('running', 'queued')"
    with database(folder) as db:
        live = [dict(r) for r in db.execute(query)]
        db.execute("DELETE FROM runs")
        db.execute("DELETE FROM metrics")
    found = index_existing(folder)
    with database(folder) as db:
        db.executemany(
            "UPDATE runs SET state=:state, pid=:pid, process=:process, heartbeat=:heartbeat "
            "WHERE run=:run",
            live,
        )
    return len(found)


def resolve(name: str, condition: str | None = None, folder: Path | None = None) -> Run:
    """The run that `name` identifies: a directory, a run id, its beginning, or a name like `demo`.

    `condition` narrows the choice. Done runs come before running and other ones, then shipped
    before local ones, then newer before older. Raises UserError, which lists the known runs.
    """
    path = Path(name)
    if (path / "config.json").exists():
        return Run(path)
    folder = folder or files.checkpoints_folder()
    index_existing(folder)
    rows = list_runs(folder)
    matches = (
        [r for r in rows if r["run"] == name]
        or [r for r in rows if r["name"] == name]
        or [r for r in rows if r["run"].startswith(name)]
    )
    if condition:
        matches = [r for r in matches if r["condition"] == condition]
    if not matches:
        known = ", ".join(r["run"] for r in rows) or "none"
        narrowed = f" with condition {condition!r}" if condition else ""
        raise files.UserError(f"no run {name!r}{narrowed}; there are: {known}")
    order = {"done": 0, "running": 1}
    best = min(matches, key=lambda r: (order.get(r["state"], 2), -r["shipped"], -r["created"]))
    return Run(folder / best["run"])
