"""The run store: one directory per run, and one SQLite database (WAL) that the pages query.

The run directories hold everything: config.json, provenance.json, status.json, metrics.jsonl,
outputs.npz, results.json, models/, samples/, state.pt, log.txt. `reindex` rebuilds the database
from them. Standard library and NumPy only.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core import files
from core.config.serialisation import to_dict
from core.config.settings import CONDITIONS, Config
from core.runs import checks, notes
from core.runs.checks import readable_runs
from core.runs.directory import Run, index_row, parse_record, read_records

# paused: a stopped run that keeps its place in the queue
RunState = Literal["queued", "running", "paused", "stopped", "failed", "done"]
SETTLED_STATES = ("done", "stopped", "failed")  # no process writes the run's files
DELETED_FOLDER = ".deleted"  # in the folder of runs; `restore` brings a run back from there
# seconds without a heartbeat after which a run that trains on another machine counts as dead
HEARTBEAT_TIMEOUT = 60.0

RUN_SLUG = re.compile(r"\w[\w.-]{0,79}")  # name of a config, the beginning of a run's id
INSERT_METRICS = "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)"
_TOLD_FAULTS: set[Path] = set()  # folders whose damaged index has been told

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


def _write_index(folder: Path, statements: list[tuple[str, list]]) -> None:
    """Change the index: queries, each with its rows of values.

    A fault of the index is told once on standard error and stops nothing: the directories hold
    everything, and `reindex` rebuilds it.
    """
    try:
        with database(folder) as db:
            for query, rows in statements:
                db.executemany(query, rows)
    except sqlite3.Error as e:
        if folder not in _TOLD_FAULTS:
            _TOLD_FAULTS.add(folder)
            print(
                index_fault(folder) or f"{files.shown(folder / 'runs.sqlite')}: {e}",
                file=sys.stderr,
            )


def create(
    directory: Path, config: Config, parent: str | None = None, provenance: dict | None = None
) -> Run:
    """Create (or reopen) a run directory and register it; an existing config.json is kept.

    Raises UserError for a name that could lead out of the folder of runs.
    """
    if not RUN_SLUG.fullmatch(config.name):
        raise files.UserError(
            f"the name {config.name[:60]!r} cannot be a folder's; "
            "use letters, digits, '-', '_' and '.', at most 80"
        )
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
    """Add a run directory to the database, or refresh its row. Raises UserError for a damaged run.

    A row that is there keeps its process and heartbeat.
    """
    row = index_row(run)
    marks, kept = ", ".join(":" + k for k in row), ("run", "pid", "process")
    updates = ", ".join(f"{k}=excluded.{k}" for k in row if k not in kept)
    query = f"INSERT INTO runs ({', '.join(row)}) VALUES ({marks}) ON CONFLICT(run) DO UPDATE"
    _write_index(run.directory.parent, [(f"{query} SET {updates}", [row])])


def training_lock(run: Run) -> AbstractContextManager[None]:
    """The lock of the one process that may train a run; it ends with the process, killed or not.

    Entering it raises BusyError, which names the process that holds it.
    """
    lock = run.directory.parent / ".cache" / f"{run.id}.lock"
    return files.file_lock(lock, f"the training of {run.id}")


def update(run: Run, **fields: Any) -> None:
    """Change columns of a run's row (state, phase, pid, step, rate, error) and its heartbeat.

    With `pid` the process's identity is recorded too. status.json gets a copy of the columns when
    the state or the phase changes.
    """
    fields["heartbeat"] = time.time()
    if "pid" in fields:
        fields["process"] = files.process_identity(fields["pid"]) if fields["pid"] else ""
    assignments = ", ".join(f"{k}=:{k}" for k in fields)
    values = fields | {"run": run.id}
    _write_index(
        run.directory.parent, [(f"UPDATE runs SET {assignments} WHERE run=:run", [values])]
    )
    if "state" in fields or "phase" in fields:
        names = ("state", "phase", "error", "step", "pid", "process")
        keep = {k: fields[k] for k in names if k in fields}
        files.write_json(run.directory / "status.json", run.json("status") | keep)


def record_metrics(run: Run, step: int, values: dict[str, float]) -> None:
    """Append one step's finite values to metrics.jsonl and to the database."""
    finite = {k: float(v) for k, v in values.items() if np.isfinite(v)}
    path = run.directory / "metrics.jsonl"
    try:
        with open(path, "a") as f:
            f.write(json.dumps({"step": step, **finite}) + "\n")
    except OSError as e:
        e.filename = str(path)  # a write does not name its file
        raise
    rows = [(run.id, step, k, v) for k, v in finite.items()]
    _write_index(run.directory.parent, [(INSERT_METRICS, rows)])


def drop_metrics_after(run: Run, step: int) -> None:
    """Drop the records after the checkpoint's step on resume, so that no step is recorded twice."""
    path = run.directory / "metrics.jsonl"
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if parse_record(line)[0] <= step]
        files.write_atomic(path, "".join(line + "\n" for line in lines))
    query = "DELETE FROM metrics WHERE run=? AND step>?"
    _write_index(run.directory.parent, [(query, [(run.id, step)])])


def load_curves(
    run: str, folder: Path | None = None, after: int = -1
) -> dict[str, tuple[list[int], list[float]]]:
    """Curves of a run after step `after`: name -> (steps, values), in the order of steps."""
    folder, query = folder or files.checkpoints_folder(), "SELECT step, name, value FROM metrics"
    try:
        with database(folder) as db:
            found = db.execute(f"{query} WHERE run=? AND step>? ORDER BY step", (run, after))
            points = [tuple(row) for row in found]
    except (sqlite3.Error, OSError):  # the run's own file has them too
        records = sorted(read_records(Run(folder / run)), key=lambda r: r[0])
        points = [(step, k, v) for step, of in records for k, v in of.items() if step > after]
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for step, name, value in points:
        steps, values = curves.setdefault(name, ([], []))
        steps.append(step)
        values.append(value)
    return curves


def list_runs(folder: Path | None = None) -> list[dict]:
    """All runs whose directory exists, newest first, as dicts of the database's columns.

    A row holds the run's notes too (title, note, tags, archived). `place` and `device` belong to
    the queue and are None for a run outside it. `rate` is samples
    per second while G and D train, and steps per second in the other phases. Where the index cannot
    be read, the runs are listed from their directories, without the queue. A run that is not at
    work and has files that cannot be used is "failed", and its `fault` says why.
    """
    folder = folder or files.checkpoints_folder()
    query = "SELECT * FROM runs LEFT JOIN queue USING (run) ORDER BY created DESC, run"
    try:
        with database(folder) as db:
            rows = [dict(r) for r in db.execute(query)]
    except (sqlite3.Error, OSError):
        unknown = dict.fromkeys(("heartbeat", "rate", "place", "device"))
        rows = [index_row(run) | unknown for run in readable_runs(folder)[0]]
        rows.sort(key=lambda r: (-r["created"], r["run"]))
    return [r for r in rows if _describe_truly(r, Run(folder / r["run"]))]


def _describe_truly(row: dict, run: Run) -> bool:
    """Complete a row of the index by what the run's files are; whether it is to be listed."""
    if not (run.directory / "config.json").is_file():
        return False
    row["shipped"] = int(run.shipped)
    row |= vars(notes.read(run))
    if row["state"] == "done":  # a copy to share has no record of its course
        row["step"] = row["step"] or row["steps"]
    fault = checks.fault(run) if row["state"] in SETTLED_STATES else None
    row["fault"] = fault.reason if fault else ""
    if fault:
        row["state"], row["error"] = "failed", fault.reason
    if row["state"] == "stopped" and row["place"] is not None:
        row["state"] = "paused"
    return not fault or fault.can_be_remade


def unreadable_runs(folder: Path | None = None) -> dict[str, str]:
    """Directory in the folder of runs that holds no readable run -> the reason, with the fix."""
    return readable_runs(folder or files.checkpoints_folder())[1]


def index_fault(folder: Path | None = None) -> str:
    """One line on why the index cannot be used, with the fix; "" if it can be."""
    folder = folder or files.checkpoints_folder()
    try:
        with database(folder) as db:
            db.execute("SELECT count(*) FROM runs").fetchone()
    except (sqlite3.Error, OSError) as e:
        reason = (isinstance(e, OSError) and e.strerror) or e  # without the path
        return (
            f"The index {files.shown(folder / 'runs.sqlite')} cannot be used ({reason}). Runs are "
            "listed from their folders, without the queue; `python -m core runs reindex` rebuilds "
            "the index."
        )
    return ""


def index_existing(folder: Path | None = None) -> list[str]:
    """Add run directories that the index lacks, such as shipped ones, with their curves.

    Returns the ids of the added runs; directories that hold no readable run are passed over.
    """
    folder = folder or files.checkpoints_folder()
    known = {r["run"] for r in list_runs(folder)}
    found = [run for run in readable_runs(folder)[0] if run.id not in known]
    for run in found:
        register(run)
        rows = [(run.id, step, k, v) for step, of in read_records(run) for k, v in of.items()]
        _write_index(folder, [(INSERT_METRICS, rows)])
    return [run.id for run in found]


def reindex(folder: Path | None = None) -> int:
    """Rebuild the database from the run directories; returns the number of runs.

    Running and queued runs keep their process and heartbeat. A damaged database is replaced; its
    queue is lost. Raises UserError where the database cannot be written.
    """
    folder = folder or files.checkpoints_folder()
    columns = "run, state, pid, process, heartbeat"
    query = f"SELECT {columns} FROM runs WHERE state IN ('running', 'queued')"
    live: list[dict] = []
    try:
        with database(folder) as db:
            live = [dict(r) for r in db.execute(query)]
            db.execute("DELETE FROM runs")
            db.execute("DELETE FROM metrics")
    except sqlite3.OperationalError as e:  # locked, read-only, a full disk
        raise files.UserError(f"{folder / 'runs.sqlite'} cannot be written: {e}") from e
    except sqlite3.DatabaseError:  # no database
        for path in folder.glob("runs.sqlite*"):
            path.unlink()
        live = [index_row(r) | {"heartbeat": None} for r in readable_runs(folder)[0]]
        live = [r for r in live if r["state"] in ("running", "queued")]
    found = index_existing(folder)
    update_process = (
        "UPDATE runs SET state=:state, pid=:pid, process=:process, heartbeat=:heartbeat"
    )
    _write_index(folder, [(f"{update_process} WHERE run=:run", live)])
    return len(found)


# ------------------------------------------------------------------ deletion, and its undoing


def delete(run: Run) -> None:
    """Put a run's folder among the deleted ones, from where `restore` brings it back.

    Raises UserError for a shipped run, one that is at work or waits for it, and one whose earlier
    self lies there already.
    """
    folder = run.directory.parent
    if run.shipped:
        raise files.UserError(f"{run.id} came with the project and is not deleted; archive it")
    row = next((r for r in list_runs(folder) if r["run"] == run.id), None)
    if row and row["state"] not in SETTLED_STATES:
        raise files.UserError(f"{run.id} is {row['state']}: stop its training first")
    target = folder / DELETED_FOLDER / run.id
    if target.exists():
        raise files.UserError(f"{target} is an earlier run of this id: remove that folder first")
    with training_lock(run):
        target.parent.mkdir(exist_ok=True)
        run.directory.rename(target)
    gone = [(run.id,)]
    tables = ("runs", "metrics", "queue")
    _write_index(folder, [(f"DELETE FROM {table} WHERE run=?", gone) for table in tables])


def deleted_runs(folder: Path | None = None) -> list[str]:
    """Ids of the runs that `restore` can bring back, the last deleted first."""
    place = (folder or files.checkpoints_folder()) / DELETED_FOLDER
    found = [p for p in place.glob("*") if (p / "config.json").is_file()]
    return [p.name for p in sorted(found, key=lambda p: (-p.stat().st_ctime_ns, p.name))]


def restore(run_id: str, folder: Path | None = None) -> Run:
    """Bring a deleted run back. Raises UserError for one that is not there, or exists again."""
    folder = folder or files.checkpoints_folder()
    if run_id not in deleted_runs(folder):
        known = ", ".join(deleted_runs(folder)) or "none"
        raise files.UserError(
            f"no deleted run {files.printable(run_id)[:80]!r}; there are: {known}"
        )
    run = Run(folder / run_id)
    if run.directory.exists():
        raise files.UserError(f"{run.id} was trained again meanwhile: delete that run first")
    (folder / DELETED_FOLDER / run_id).rename(run.directory)
    index_existing(folder)
    return run


def _matching_rows(
    name: str, condition: str | None, folder: Path, preferred: str = ""
) -> tuple[list[dict], list[dict]]:
    """The runs that a name may mean, narrowed by the condition, the chosen one first; all runs.

    Archived runs come last, done before running and other ones, those of the `preferred` condition
    before others, shipped before local ones. Shipped
    ones come in the order of CONDITIONS, for their files have the age of their copy; others newest
    first.
    """
    index_existing(folder)
    rows = list_runs(folder)
    matches = (
        [r for r in rows if r["run"] == name]
        or [r for r in rows if r["name"] == name]
        or [r for r in rows if name and r["run"].startswith(name)]
    )
    if condition:
        matches = [r for r in matches if r["condition"] == condition]
    order = {"done": 0, "running": 1}

    def rank(r: dict) -> tuple:
        known = r["condition"] in CONDITIONS
        place = CONDITIONS.index(r["condition"]) if known else len(CONDITIONS)
        age = (place, r["run"]) if r["shipped"] else (-r["created"], r["run"])
        other = bool(preferred) and r["condition"] != preferred
        return r["archived"], order.get(r["state"], 2), other, -r["shipped"], *age

    return sorted(matches, key=rank), rows


def resolve(
    name: str, condition: str | None = None, folder: Path | None = None, preferred: str = ""
) -> Run:
    """The run that `name` identifies: a directory, a run id, its beginning, or a name like `demo`.

    `condition` narrows the choice, of which the first of `_matching_rows` is taken. Raises
    UserError, which lists the known runs, or names the file of the run that cannot be used.
    """
    path = Path(name)
    if name and (path / "config.json").exists():
        checks.check(Run(path.resolve()))
        return Run(path)
    folder = folder or files.checkpoints_folder()
    matches, rows = _matching_rows(name, condition, folder, preferred)
    if not matches:
        known = ", ".join(r["run"] for r in rows) or "none"
        narrowed = f" with condition {condition!r}" if condition else ""
        raise files.UserError(
            f"no run {files.printable(name)[:80]!r}{narrowed}; there are: {known}"
        )
    run = Run(folder / matches[0]["run"])
    if fault := checks.fault(run):
        raise files.UserError(fault.reason)
    return run


def choice_note(name: str, condition: str | None = None, folder: Path | None = None) -> str:
    """Which of several runs `resolve` takes for a name, and how to choose another; "" for one."""
    if name and (Path(name) / "config.json").exists():
        return ""
    matches, _ = _matching_rows(name, condition, folder or files.checkpoints_folder())
    if len(matches) < 2:
        return ""
    taken, others = matches[0], ", ".join(r["run"] for r in matches[1:])
    return (
        f"{name} names {len(matches)} runs; this is {taken['run']}, condition "
        f"{taken['condition']}. Others, by --condition or their id: {others}"
    )
