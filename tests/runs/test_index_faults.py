"""The index is derived: what it lacks or cannot say is read from the runs' directories.

A directory that holds no readable run is named, and changes nothing for the others.
"""

import json
import os
import sqlite3

import pytest

from core import files
from core.config.presets import SMOKE
from core.config.serialisation import run_name, to_dict
from core.config.settings import replace
from core.experiments import jobs
from core.runs import store
from tests.support.small_pipeline import core


@pytest.fixture
def run(tmp_path):
    """A stopped run with two recorded steps."""
    made = store.create(tmp_path / run_name(SMOKE, "digest"), SMOKE)
    store.update(made, state="stopped", step=20, pid=0)
    for step in (10, 20):
        store.record_metrics(made, step, {"FID": 3.0 - step / 20})
    return made


def noise(folder):
    for path in folder.glob("runs.sqlite*"):
        path.unlink()
    (folder / "runs.sqlite").write_bytes(b"noise" * 4_000)


def a_folder(folder):
    for path in folder.glob("runs.sqlite*"):
        path.unlink()
    (folder / "runs.sqlite").mkdir()


@pytest.mark.parametrize("damage", [noise, a_folder])
def test_runs_are_read_from_their_directories_where_the_index_is_damaged(
    run, tmp_path, damage, capsys
):
    row, curves = store.list_runs(tmp_path)[0], store.load_curves(run.id, tmp_path)
    damage(tmp_path)
    found = store.list_runs(tmp_path)
    unknown = ("heartbeat", "pid", "process", "created")
    assert [{k: v for k, v in r.items() if k not in unknown} for r in found] == [
        {k: v for k, v in row.items() if k not in unknown}
    ]
    assert store.load_curves(run.id, tmp_path) == curves
    assert store.load_curves(run.id, tmp_path, after=10) == {"FID": ([20], [2.0])}
    assert store.resolve(run.id, folder=tmp_path).id == run.id
    assert "reindex" in store.index_fault(tmp_path)
    # a training goes on, and says once that the index does not
    store.update(run, state="running", phase="train", pid=os.getpid())
    store.record_metrics(run, 30, {"FID": 1.0})
    store.drop_metrics_after(run, 20)
    assert jobs.is_alive(store.list_runs(tmp_path)[0])
    assert jobs.reconcile(tmp_path) == []
    assert capsys.readouterr().err.count("reindex") == 1


def test_reindex_replaces_a_damaged_index(run, tmp_path):
    curves = store.load_curves(run.id, tmp_path)
    store.update(run, state="running", phase="train", pid=os.getpid())
    noise(tmp_path)
    assert store.reindex(tmp_path) == 1
    assert store.index_fault(tmp_path) == ""
    assert store.load_curves(run.id, tmp_path) == curves
    assert jobs.is_alive(store.list_runs(tmp_path)[0])  # the process is known from status.json
    jobs.enqueue(run)
    assert [r["run"] for r in jobs.list_queue(tmp_path)] == [run.id]


def test_a_queue_that_cannot_be_written_is_said(run, tmp_path):
    noise(tmp_path)
    with pytest.raises(files.UserError, match="reindex"):
        jobs.enqueue(run)
    assert jobs.list_queue(tmp_path) == []


def test_an_index_that_another_process_locks_stops_no_training(run, tmp_path, monkeypatch):
    real = sqlite3.connect
    monkeypatch.setattr(store.sqlite3, "connect", lambda path, timeout: real(path, timeout=0.05))
    lock = real(tmp_path / "runs.sqlite", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    store.record_metrics(run, 30, {"FID": 1.0})
    store.update(run, step=30, state="running")
    lock.execute("ROLLBACK")
    lock.close()
    store.reindex(tmp_path)
    assert store.load_curves(run.id, tmp_path)["FID"] == ([10, 20, 30], [2.5, 2.0, 1.0])


HOSTILE = {
    "config.json": [
        *("", "[]", '""', "{", "null", '{"gan": []}', '{"gan": {"steps": Infinity}}'),
        *('{"gan": {"steps": 1e30}}', '{"gan": {"steps": "3"}}', '{"name": ["x"]}'),
        *('{"gan": {"condition": {}}}', "[" * 100_000, '{"no such setting": 1}'),
        json.dumps({"data": {"classes": ["x"] * 50_000}}),
    ],
    "status.json": [
        *("[]", "{", "[" * 100_000, '{"step": {}}', '{"state": []}', '{"pid": "1"}'),
        *('{"step": 1e400}', '{"step": -1}', '{"error": 3}'),
    ],
    "results.json": ["[]", "{", "[" * 100_000],
    "provenance.json": ["[]", '{"parent": {}}'],
}


@pytest.mark.parametrize(
    ("name", "content"), [(n, c) for n, of in HOSTILE.items() for c in of], ids=lambda v: v[:24]
)
def test_a_bad_directory_is_named_and_harms_no_other(run, tmp_path, name, content):
    bad = tmp_path / "bad-run"
    bad.mkdir()
    files.write_json(bad / "config.json", to_dict(replace(SMOKE, seed=5)))
    (bad / name).write_text(content)
    assert store.index_existing(tmp_path) == []
    assert [r["run"] for r in store.list_runs(tmp_path)] == [run.id]
    faults = store.unreadable_runs(tmp_path)
    assert list(faults) == ["bad-run"]
    assert name in faults["bad-run"]
    assert store.reindex(tmp_path) == 1
    assert store.resolve("smoke", folder=tmp_path).id == run.id


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "broken link"])
def test_what_is_no_plain_file_is_never_opened(run, tmp_path, kind):
    bad = tmp_path / "bad-run"
    bad.mkdir()
    path = bad / "config.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else tmp_path / "nowhere")
    assert store.index_existing(tmp_path) == []
    assert list(store.unreadable_runs(tmp_path)) == ["bad-run"]
    assert [r["run"] for r in store.list_runs(tmp_path)] == [run.id]


@pytest.mark.parametrize(
    "line",
    ["[1]", '{"step": null}', '{"step": 1, "a": [1]}', '{"step": 5, "a": 1e400}', "{"]
    + ['{"step": 1%s}' % ("0" * 40)],
)
def test_a_bad_line_of_the_curves_costs_that_line(run, tmp_path, line):
    before = store.load_curves(run.id, tmp_path)
    with open(run.directory / "metrics.jsonl", "a") as f:
        f.write(line + "\n")
    store.reindex(tmp_path)
    assert store.load_curves(run.id, tmp_path) == before


@pytest.mark.parametrize(
    "name", ["../../escaped", "/tmp/x", "", ".hidden", "a/b", "a\nb", "x" * 99]
)
def test_a_name_never_leads_out_of_the_folder(tmp_path, name):
    folder = tmp_path / "checkpoints"
    config = replace(SMOKE, name=name)
    with pytest.raises(files.UserError, match="cannot be a folder"):
        store.create(folder / run_name(config, "digest"), config)
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_runs_names_the_damage(run, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("[]")
    noise(tmp_path)
    done = core("runs", DACSSGAN_CHECKPOINTS=tmp_path)
    assert done.returncode == 0
    assert run.id in done.stdout
    assert "bad" in done.stdout
    assert "unreadable" in done.stdout
    assert "reindex" in done.stderr
    assert "Traceback" not in done.stderr
    assert core("runs", "reindex", DACSSGAN_CHECKPOINTS=tmp_path).returncode == 0
    assert "reindex" not in core("runs", DACSSGAN_CHECKPOINTS=tmp_path).stderr
