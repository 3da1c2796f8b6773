"""The run store: a directory per run, and one SQLite database (WAL) that pages query. Standard library and NumPy only.

A run directory is the truth: config.json, provenance.json, status.json, metrics.jsonl, outputs.npz, results.json, models/, samples/,
state.pt, log.txt. The database is derived from it and can be rebuilt by `reindex`. Files are written aside, flushed and renamed.
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

RunState = Literal[
    "queued", "running", "paused", "stopped", "failed", "done"
]  # paused: stopped, but it holds its place in the queue
HEARTBEAT_TIMEOUT = 60.0  # seconds without a heartbeat after which a running run counts as dead

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, name TEXT, condition TEXT, state TEXT, phase TEXT, pid INTEGER,
  heartbeat REAL, step INTEGER, steps INTEGER, rate REAL, error TEXT, parent TEXT, created REAL, shipped INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS metrics (run TEXT, step INTEGER, name TEXT, value REAL, PRIMARY KEY (run, step, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue (run TEXT PRIMARY KEY, place INTEGER, device TEXT) WITHOUT ROWID;
"""


@contextmanager
def database(folder: Path | None = None) -> Iterator[sqlite3.Connection]:
    """The index `runs.sqlite` of a checkpoints folder, created on first use; commits on leaving, waits 10 s for a writer."""
    folder = folder or files.checkpoints_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "runs.sqlite", timeout=10)) as db:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(SCHEMA)
        with db:
            yield db


@dataclass(frozen=True)
class Run:
    """One run on disk. `directory` need not be listed in the database for any of this to work."""

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
            raise ValueError(
                f"{path} cannot be read as a configuration ({e}); restore the run or remove its folder"
            ) from e

    def json(self, name: str) -> dict:
        """`results`, `provenance`, `status` or `card` of the run; {} where it has none yet."""
        path = self.directory / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def arrays(self, name: str = "outputs") -> dict[str, np.ndarray]:
        """The arrays of `<name>.npz`; {} where there are none yet."""
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
    """Make (or reopen) a run directory and register it. config.json is never edited: another config in its place is an error."""
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
    """Put a run directory into the database, or refresh its row."""
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
    """Change columns of a run's row (state, phase, pid, step, rate, error) and beat its heart. status.json keeps a copy."""
    fields["heartbeat"] = time.time()
    with database(run.directory.parent) as db:
        assignments = ", ".join(f"{k}=:{k}" for k in fields)
        db.execute(f"UPDATE runs SET {assignments} WHERE run=:run", fields | {"run": run.id})
    if "state" in fields or "phase" in fields:
        keep = {k: fields[k] for k in ("state", "phase", "error", "step", "pid") if k in fields}
        files.write_json(run.directory / "status.json", run.json("status") | keep)


def record_metrics(run: Run, step: int, values: dict[str, float]) -> None:
    """Append one step's figures to metrics.jsonl and to the database."""
    finite = {k: float(v) for k, v in values.items() if np.isfinite(v)}
    with open(run.directory / "metrics.jsonl", "a") as f:
        f.write(json.dumps({"step": step, **finite}) + "\n")
    with database(run.directory.parent) as db:
        db.executemany(
            "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)",
            [(run.id, step, k, v) for k, v in finite.items()],
        )


def drop_metrics_after(run: Run, step: int) -> None:
    """On resume: forget the records after the checkpoint's step, so that no step is drawn twice."""
    path = run.directory / "metrics.jsonl"
    if path.exists():
        kept = [
            line
            for line in path.read_text().splitlines()
            if _step_of(line) is not None and _step_of(line) <= step
        ]
        files.write_atomic(path, "".join(line + "\n" for line in kept))
    with database(run.directory.parent) as db:
        db.execute("DELETE FROM metrics WHERE run=? AND step>?", (run.id, step))


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 1 << 60  # a line cut by a kill is dropped


def load_curves(
    run: str, folder: Path | None = None, after: int = -1
) -> dict[str, tuple[list[int], list[float]]]:
    """Curves of a run: name -> (steps, values), in order of steps."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    with database(folder) as db:
        for row in db.execute(
            "SELECT step, name, value FROM metrics WHERE run=? AND step>? ORDER BY step",
            (run, after),
        ):
            steps, values = curves.setdefault(row["name"], ([], []))
            steps.append(row["step"])
            values.append(row["value"])
    return curves


def list_runs(folder: Path | None = None) -> list[dict]:
    """All runs, newest first, as dicts of the database's columns; runs whose directory is gone are left out.

    `place` and `device` are those of the queue, None for a run that is not in it. `rate` is samples per second while G and D train, else
    steps per second of the phase.
    """
    folder = folder or files.checkpoints_folder()
    with database(folder) as db:
        rows = [
            dict(r)
            for r in db.execute(
                "SELECT * FROM runs LEFT JOIN queue USING (run) ORDER BY created DESC, run"
            )
        ]
    for r in rows:
        if r["state"] == "stopped" and r["place"] is not None:
            r["state"] = "paused"
    return [r for r in rows if (folder / r["run"] / "config.json").exists()]


# ------------------------------------------------------------------ the queue: which runs train on this machine, one after the other


def list_queue(folder: Path | None = None) -> list[dict]:
    """The rows of `list_runs` that are in the queue, in its order: what trains, what is paused, what waits."""
    return sorted(
        (r for r in list_runs(folder) if r["place"] is not None), key=lambda r: r["place"]
    )


def enqueue(run: Run, device: str = "auto", first: bool = False) -> None:
    """Put a run at the end of the queue, or in front of it; one that is there keeps its place and takes the device."""
    end = (
        "(SELECT coalesce(min(place), 0) - 1 FROM queue)"
        if first
        else "(SELECT coalesce(max(place), 0) + 1 FROM queue)"
    )
    with database(run.directory.parent) as db:
        known = "ON CONFLICT(run) DO UPDATE SET device=excluded.device"
        db.execute(
            f"INSERT INTO queue (run, place, device) VALUES (?, {end}, ?) {known}", (run.id, device)
        )


def dequeue(run: Run) -> None:
    """Take a run out of the queue, if it is there."""
    with database(run.directory.parent) as db:
        db.execute("DELETE FROM queue WHERE run=?", (run.id,))


def swap_places(a: Run, b: Run) -> None:
    """Let two runs of the queue change places."""
    with database(a.directory.parent) as db:
        places = dict(
            db.execute("SELECT run, place FROM queue WHERE run IN (?, ?)", (a.id, b.id)).fetchall()
        )
        if len(places) == 2:
            db.executemany(
                "UPDATE queue SET place=? WHERE run=?", [(places[b.id], a.id), (places[a.id], b.id)]
            )


def index_existing(folder: Path | None = None) -> list[str]:
    """Take run directories that the index does not know, such as shipped ones, into it with their curves; returns their ids."""
    folder = folder or files.checkpoints_folder()
    known, found = {r["run"] for r in list_runs(folder)}, []
    for path in sorted(folder.glob("*/config.json")):
        run = Run(path.parent)
        if run.id in known:
            continue
        try:
            register(run)
        except ValueError:
            continue  # a folder that is no run of this version
        log = run.directory / "metrics.jsonl"
        rows = (
            [json.loads(line) for line in log.read_text().splitlines() if _step_of(line) < 1 << 60]
            if log.exists()
            else []
        )
        values = [(run.id, r["step"], k, v) for r in rows for k, v in r.items() if k != "step"]
        with database(folder) as db:
            db.executemany("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)", values)
        found.append(run.id)
    return found


def reindex(folder: Path | None = None) -> int:
    """Rebuild the database from the run directories; returns how many there are. The processes of running ones stay known."""
    folder = folder or files.checkpoints_folder()
    with database(folder) as db:
        live = [
            dict(r)
            for r in db.execute(
                "SELECT run, state, pid, heartbeat FROM runs WHERE state IN ('running', 'queued')"
            )
        ]
        db.execute("DELETE FROM runs")
        db.execute("DELETE FROM metrics")
    found = index_existing(folder)
    with database(folder) as db:
        db.executemany(
            "UPDATE runs SET state=:state, pid=:pid, heartbeat=:heartbeat WHERE run=:run", live
        )
    return len(found)


def resolve(name: str, condition: str | None = None, folder: Path | None = None) -> Run:
    """The run that `name` means: a directory, a run id, a beginning of one, or a family name such as `demo` with a `condition`.

    Done runs come before unfinished ones, shipped before others of the same name. Raises KeyError that lists what there is.
    """
    path = Path(name)
    if (path / "config.json").exists():
        return Run(path)
    folder = folder or files.checkpoints_folder()
    index_existing(folder)
    rows = list_runs(folder)
    exact = [r for r in rows if r["run"] == name]
    matches = (
        exact
        or [r for r in rows if r["name"] == name]
        or [r for r in rows if r["run"].startswith(name)]
    )
    if condition:
        matches = [r for r in matches if r["condition"] == condition]
    if not matches:
        known = ", ".join(r["run"] for r in rows) or "none"
        raise KeyError(
            f"no run {name!r}"
            + (f" with condition {condition!r}" if condition else "")
            + f"; there are: {known}"
        )
    order = {"done": 0, "running": 1}
    best = min(matches, key=lambda r: (order.get(r["state"], 2), -r["shipped"], -r["created"]))
    return Run(folder / best["run"])
