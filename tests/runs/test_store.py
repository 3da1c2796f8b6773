"""The run store: atomic files, an index that can be rebuilt, exact resume, run names."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from core import files
from core.config.presets import SMOKE
from core.config.serialisation import config_hash, family_hash, from_dict, run_name, to_dict
from core.config.settings import Config, replace
from core.experiments import jobs
from core.runs import directory, store
from tests.support import trained_runs


@pytest.fixture
def run(tmp_path):
    return store.create(tmp_path / run_name(SMOKE, "digest"), SMOKE, provenance={"seed": 0})


def test_configs_survive_json_and_name_what_is_wrong():
    for config in (Config(), SMOKE):
        assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config
    with pytest.raises(ValueError, match="no setting"):
        from_dict(Config, {"gam": {}})
    with pytest.raises(ValueError, match=r"^gan\.generator"):
        from_dict(Config, {"gan": {"generator": "other"}})


def test_the_hash_knows_what_matters():
    assert config_hash(SMOKE, "a") == config_hash(replace(SMOKE, name="other"), "a")
    assert config_hash(SMOKE, "a") != config_hash(SMOKE, "b")
    assert config_hash(SMOKE, "a") != config_hash(replace(SMOKE, gan={"l1": 0.0}), "a")
    assert family_hash(SMOKE) == family_hash(replace(SMOKE, gan={"condition": "label"}))
    assert family_hash(SMOKE) != family_hash(replace(SMOKE, seed=1))


# fields that run ids depend on: listed defaults may change only with a new PROTOCOL_VERSION
DEFAULTS = {
    "data": {"faces": "demo", "voices": "demo", "pairing": "clip", "sets": [0.4, 0.15, 0.25,
        0.2], "g_fraction": 1.0, "demo_takes": 10},
    "logmel": {"rate": 16000, "n_fft": 512, "window": 400, "hop": 144, "bands": 28,
        "columns": 112, "range_db": 80.0},
    "f_s": {"channels": [16, 32, 64], "steps": 600, "batch": 64, "lr": 1e-3, "optimiser": "adam",
        "noise": 0.05, "mirror": True},
    "f_t": {"channels": [16, 32, 64], "steps": 400, "batch": 32, "lr": 1e-3, "optimiser": "adam",
        "noise": 0.2, "mirror": False},
    "conformal": {"measure": "margin", "groups": "pooled", "r": 1.0},
    "gan": {"generator": "encdec", "width": "compact", "condition": "cp", "z": 64, "l1": 1.0,
        "classify": 1.0, "optimiser": "adagrad",
            "lr_g": 2e-3, "lr_d": 2e-3, "average": 0.0, "batch": 64, "steps": 3000,
        "noise": 0.05, "soft": 0.1, "label_noise": 0.05},
    "evaluate": {"every": 150, "per_face": 1},
}  # fmt: skip


def test_defaults_are_part_of_every_run_id():
    now = to_dict(Config())
    assert {part: {k: now[part][k] for k in v} for part, v in DEFAULTS.items()} == DEFAULTS


def test_a_setting_that_joins_later_renames_no_run():
    """A config.json from before a setting existed reads as its default and keeps its hash."""
    old = to_dict(SMOKE)
    del old["gan"]["average"], old["data"]["labels"]
    assert config_hash(from_dict(Config, old), "a") == config_hash(
        replace(SMOKE, gan={"average": 0.0}), "a"
    )


def test_metrics_are_recorded_dropped_and_rebuilt(run, tmp_path):
    for step in (1, 2, 3):
        store.record_metrics(run, step, {"FID": 10.0 / step, "bad": float("nan")})
    assert store.load_curves(run.id, tmp_path) == {"FID": ([1, 2, 3], [10.0, 5.0, 10 / 3])}
    with open(run.directory / "metrics.jsonl", "a") as f:
        f.write('{"step": 4, "FID"')  # a kill in the middle of a line
    store.drop_metrics_after(run, 2)
    store.record_metrics(run, 3, {"FID": 1.0})
    expected = {"FID": ([1, 2, 3], [10.0, 5.0, 1.0])}
    assert store.load_curves(run.id, tmp_path) == expected
    assert store.load_curves(run.id, tmp_path, after=2) == {"FID": ([3], [1.0])}
    (tmp_path / "runs.sqlite").unlink()
    assert store.reindex(tmp_path) == 1
    assert store.load_curves(run.id, tmp_path) == expected


def test_rebuilding_the_index_keeps_a_running_process(run, tmp_path):
    store.update(run, state="running", pid=4321)
    before = store.list_runs(tmp_path)[0]
    assert store.reindex(tmp_path) == 1
    store.resolve(run.id, None, tmp_path)
    after = store.list_runs(tmp_path)[0]
    assert (after["state"], after["pid"], after["heartbeat"]) == (
        "running",
        4321,
        before["heartbeat"],
    )
    assert store.index_existing(tmp_path) == []


def test_config_json_is_never_edited(run):
    before = (run.directory / "config.json").read_bytes()
    store.create(run.directory, replace(SMOKE, seed=7))
    assert (run.directory / "config.json").read_bytes() == before


def test_a_name_resolves_to_a_run(tmp_path):
    made = {}
    for condition in ("label", "cp"):
        config = replace(SMOKE, gan={"condition": condition})
        made[condition] = store.create(tmp_path / run_name(config, "d"), config)
    assert store.resolve("smoke", "label", tmp_path).id == made["label"].id
    assert store.resolve(made["cp"].id, None, tmp_path).id == made["cp"].id
    assert store.resolve(made["cp"].id[:-4], None, tmp_path).id == made["cp"].id
    assert store.resolve(str(made["cp"].directory)).id == made["cp"].id
    with pytest.raises(files.UserError, match="there are"):
        store.resolve("nothing", None, tmp_path)


def test_a_finished_run_is_preferred(tmp_path):
    old = replace(SMOKE, seed=1)
    done = store.create(tmp_path / run_name(old, "d"), old)
    store.update(done, state="done")
    time.sleep(0.01)
    store.create(tmp_path / run_name(SMOKE, "d"), SMOKE)
    assert store.resolve("smoke", None, tmp_path).id == done.id


def test_arrays_without_pickle(run):
    files.write_arrays(run.directory / "outputs.npz", a=np.arange(3), b=np.array(["x", "y"]))
    assert run.arrays()["b"].tolist() == ["x", "y"]
    with pytest.raises(ValueError, match="pickle"):
        files.write_arrays(run.directory / "bad.npz", a=np.array([object()]))
    assert not (run.directory / "bad.npz").exists()


def test_many_writers_wait_for_each_other(run, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda s: store.record_metrics(run, s, {"v": float(s)}), range(100)))
    steps, values = store.load_curves(run.id, tmp_path)["v"]
    assert steps == list(range(100)) == values
    with sqlite3.connect(tmp_path / "runs.sqlite") as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_dead_process_is_noticed(run, tmp_path):
    store.update(run, state="running", pid=2**22 - 3)  # no such process
    assert jobs.reconcile(tmp_path) == [run.id]
    row = store.list_runs(tmp_path)[0]
    assert row["state"] == "failed"
    assert "log" in row["error"]
    (run.directory / "state.pt").write_bytes(b"x")
    store.update(run, state="running", pid=2**22 - 3)
    jobs.reconcile(tmp_path)
    assert store.list_runs(tmp_path)[0]["state"] == "stopped"  # it can be resumed


def reuse_pid(run, folder):
    """As if the pid of the run's process had been given to another process since."""
    with store.database(folder) as db:
        db.execute("UPDATE runs SET process = process || '0' WHERE run=?", (run.id,))


def test_a_process_of_someone_else_is_not_ours(run, tmp_path):
    """A stranger whose command line looks like a training has the run's old pid."""
    command = [sys.executable, "-c", "import time; time.sleep(60)", "hardcore-training.mp4"]
    stranger = subprocess.Popen(command)
    try:
        store.update(run, state="running", pid=stranger.pid)
        assert jobs.is_alive(store.list_runs(tmp_path)[0])
        reuse_pid(run, tmp_path)
        assert not jobs.is_alive(store.list_runs(tmp_path)[0])
        assert jobs.stop(run.id, tmp_path)
        store.update(run, state="running", phase="stopping", heartbeat=0)
        jobs.kill(run.id, tmp_path)
        assert stranger.poll() is None
    finally:
        stranger.kill()


def test_a_suspended_training_is_alive(run, tmp_path):
    """As on a laptop that slept, or with a clock that was set back: the process decides."""
    child = trained_runs.start_fake_training()
    try:
        store.update(run, state="running", pid=child.pid)
        child.send_signal(signal.SIGSTOP)
        for beat in (0.0, time.time() - 7_200, time.time() + 7_200):
            with store.database(tmp_path) as db:
                db.execute("UPDATE runs SET heartbeat=?", (beat,))
            assert jobs.is_alive(store.list_runs(tmp_path)[0])
            assert jobs.reconcile(tmp_path) == []
    finally:
        child.kill()
        child.wait()
    assert jobs.reconcile(tmp_path) == [run.id]


def test_an_index_without_the_process_column_is_read(run, tmp_path):
    with store.database(tmp_path) as db:
        db.execute("ALTER TABLE runs DROP COLUMN process")
    store.update(run, state="stopped", pid=0)
    assert [r["state"] for r in store.list_runs(tmp_path)] == ["stopped"]


def test_a_damaged_config_is_named(run):
    (run.directory / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json"):
        _ = run.config


@pytest.mark.parametrize("kind", ["bomb", "text", "cut", "empty", "other zip", "objects"])
def test_what_is_no_npz_of_arrays_is_named(tmp_path, monkeypatch, kind):
    path = tmp_path / "outputs.npz"
    np.savez_compressed(path, a=np.zeros(100_000))  # 800 kB in some 1 kB
    if kind == "bomb":
        monkeypatch.setattr(files, "MAX_ARRAY_BYTES", 700_000)
    elif kind == "objects":
        np.savez(path, a=np.array([object()], dtype=object))
    elif kind == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", b"no array")
    else:
        content = {"text": b"hello", "cut": path.read_bytes()[:200], "empty": b""}[kind]
        path.write_bytes(content)
    with pytest.raises(files.DamagedError, match=r"outputs\.npz"):
        files.read_arrays(path)
    if kind == "bomb":
        monkeypatch.undo()
        assert not files.read_arrays(path)["a"].any()


def test_a_name_of_several_runs_says_which_one_is_taken(home):
    for condition in ("label", "cp"):
        trained_runs.fabricate_run("done", replace(SMOKE, gan={"condition": condition}))
    taken = store.resolve("smoke")
    note = store.choice_note("smoke")
    assert f"this is {taken.id}, condition {taken.config.gan.condition}" in note
    (other,) = {r["run"] for r in store.list_runs()} - {taken.id}
    assert other in note
    assert "--condition" in note
    assert store.choice_note("smoke", "label") == store.choice_note(taken.id) == ""
    assert store.choice_note(str(taken.directory)) == ""


@pytest.mark.parametrize("order", [("cp", "label"), ("label", "cp")])
def test_of_shipped_runs_the_age_of_their_copy_decides_nothing(order, home, monkeypatch):
    made = [trained_runs.fabricate_run("done", replace(SMOKE, gan={"condition": c})) for c in order]
    monkeypatch.setattr(directory, "SHIPPED_RUNS", {r.id for r in made})
    for r in made:
        (r.directory / "CARD.md").write_text("shipped")
    store.reindex()
    assert store.resolve("smoke").config.gan.condition == "label"


def test_an_empty_name_is_no_run(run, tmp_path):
    with pytest.raises(files.UserError, match=f"no run ''; there are: {run.id}"):
        store.resolve("", None, tmp_path)
    assert store.choice_note("", None, tmp_path) == ""


@pytest.mark.parametrize("damage", ["outputs", "network", "checkpoint", "index"])
def test_messages_name_files_without_the_machines_folders(run, tmp_path, monkeypatch, damage):
    """Pages show them to visitors."""
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(tmp_path))
    inside = f"{tmp_path.name}/{run.id}"
    if damage == "index":
        for path in tmp_path.glob("runs.sqlite*"):
            path.unlink()
        (tmp_path / "runs.sqlite").write_bytes(b"noise" * 4_000)
        said, inside = store.index_fault(tmp_path), f"{tmp_path.name}/runs.sqlite"
    else:
        path = {"outputs": run.directory / "outputs.npz", "network": run.model_path("G")}.get(
            damage, run.directory / "state.pt"
        )
        path.write_bytes(b"noise")
        from core.experiments import checkpoints
        from core.models import networks

        read = {"outputs": run.arrays, "network": lambda: networks.load(path)}
        with pytest.raises(files.DamagedError) as e:
            read.get(damage, lambda: checkpoints.load(path))()
        said = str(e.value)
    assert inside in said
    assert str(tmp_path) not in said


def test_a_file_elsewhere_keeps_its_whole_path(tmp_path):
    assert files.shown(tmp_path / "elsewhere.npz") == str(tmp_path / "elsewhere.npz")
    assert files.shown(files.ROOT / "README.md") == "README.md"
