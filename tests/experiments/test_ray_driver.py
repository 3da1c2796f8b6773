"""A sweep on machines that may be lost, without Ray.

The workers are real, with processes and folders
of their own, and a fake of Ray calls them. With Ray itself: test_ray_cluster."""

import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
from types import SimpleNamespace

import pytest

from core.config.settings import replace
from core.data import prepared_corpora
from core.evaluation import protocol
from core.experiments import jobs
from core.experiments.ray_cluster import connection, driver, worker
from core.experiments.sweeping import sweep
from core.runs import store
from core.runs.directory import Run
from tests.support import cluster_runs


class Lost(RuntimeError):
    """What Ray raises for a lost worker."""


class Machines:
    """As much of the module ray as `driver` calls.

    Machines by name, on which actors live and can be lost with them.
    """

    exceptions = SimpleNamespace(RayError=Lost)

    def __init__(self, *names):
        self.alive, self.actors = list(names), []

    def nodes(self):
        same = {
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": "here",
            "Alive": True,
            "Resources": {"CPU": 1.0},
        }
        return [{"NodeID": n, "NodeName": n} | same for n in self.alive]

    def remote(self, *given, **options):
        if not given:
            return self.remote
        if not isinstance(given[0], type):
            return SimpleNamespace(
                options=lambda **k: SimpleNamespace(remote=lambda *a: (given[0], a))
            )
        return SimpleNamespace(
            options=lambda scheduling_strategy, **k: SimpleNamespace(
                remote=lambda: Actor(self, scheduling_strategy)
            )
        )

    def get(self, ref, timeout=None):
        if not callable(ref[0]):
            return ref[1]
        return ref[0](*ref[1])

    def put(self, value):
        return "stored", value

    def wait(self, refs, timeout=None):
        return refs, []

    def kill(self, actor):
        actor.die()

    def lose(self, name):
        self.alive.remove(name)
        for s in [s for s in self.actors if s.machine == name]:
            s.die()


class Actor:
    """A worker whose methods answer only while its machine is there."""

    def __init__(self, machines, machine):
        self.machines, self.machine, self.worker = machines, machine, worker.Worker()
        machines.actors.append(self)

    def __getattr__(self, method):
        return SimpleNamespace(remote=lambda *a: (self.call, (method, *a)))

    def call(self, method, *given):
        if self not in self.machines.actors:
            raise Lost(f"The actor died.\nIts machine {self.machine} is gone.")
        return getattr(self.worker, method)(*given)

    def die(self):
        if self in self.machines.actors:
            self.machines.actors.remove(self)
            with contextlib.suppress(AttributeError):
                self.worker.process.kill()
            self.worker.lock.close()


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two machines of one processor.

    What they have in common with the driver is only what it sends.
    """
    machines = Machines("one", "other")
    monkeypatch.setitem(sys.modules, "ray", machines)
    monkeypatch.setattr(connection, "ray_connection", lambda *a: contextlib.nullcontext(machines))
    monkeypatch.setattr(connection, "node_affinity", lambda node: node)
    monkeypatch.setattr(driver, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(worker.tempfile, "gettempdir", lambda: str(tmp_path))
    yield machines
    assert machines.actors == []  # none is left behind


def far(todo, folder, plan=None, stop=None, every=0.0, said=None):
    say = [].append if said is None else said.append
    return sweep.train_cells(
        todo,
        folder,
        1,
        "cpu",
        plan,
        stop=stop,
        engine=lambda work: driver.train_on_cluster(work, every=every, say=say),
    )


@pytest.mark.slow
def test_far_runs_equal_near_ones(two, demo_world, tmp_path):
    todo = cluster_runs.cells(cluster_runs.TINY, condition=("label", "cp"))
    broken = protocol.Cell(
        "no subject in S2", "–", replace(cluster_runs.TINY, data={"sets": (0.5, 0.0, 0.3, 0.2)})
    )
    near, away = tmp_path / "near", tmp_path / "away"
    here = {o.run: o for o in sweep.train_cells([*todo, broken], near, 1, "cpu", cluster_runs.PLAN)}
    there = {o.run: o for o in far([*todo, broken], away, cluster_runs.PLAN)}
    assert {r: (o.state, o.reason) for r, o in here.items()} == {
        r: (o.state, o.reason) for r, o in there.items()
    }
    assert sorted(o.state for o in there.values()) == ["done", "done", "failed"]
    cluster_runs.assert_equal_runs(there.values(), away, near)
    for run in here:
        assert sorted(p.name for p in (near / run).rglob("*")) == sorted(
            p.name for p in (away / run).rglob("*")
        )
    fitted = [
        {p.name: p.read_bytes() for p in (f / ".cache").glob("*.safetensors")} for f in (near, away)
    ]
    assert fitted[0] == fitted[1]
    assert {o.state for o in far(todo, away, cluster_runs.PLAN)} == {"was done"}
    assert (
        list(tmp_path.glob("dacssgan-*/worker-*"))
        == list(tmp_path.glob("dacssgan-*/corpora/*"))
        == []
    )  # workers leave nothing


@pytest.mark.slow
def test_a_lost_machines_run_goes_on_from_its_checkpoint(two, demo_world, tmp_path):
    todo, said = (
        cluster_runs.cells(
            replace(cluster_runs.TINY, gan={"steps": 60}, evaluate={"every": 20}), l1=(0.1,)
        ),
        [],
    )
    away, near = tmp_path / "away", tmp_path / "near"
    [(_, run, _)] = protocol.identify_runs(todo)
    begun = []

    def lose():
        begun.append((away / run / "state.pt").stat().st_mtime)
        two.lose(two.actors[0].machine)

    loser = cluster_runs.until((away / run / "state.pt").exists, lose)
    [outcome] = far(todo, away, said=said)
    loser.join()
    assert begun
    assert outcome.state == "done"
    assert len(said) == 1
    assert (
        "was lost under l1 = 0.1 · fold 0 · seed 0 (Its machine one is gone); it goes on" in said[0]
    )
    sweep.train_cells(todo, near, 1, "cpu")
    cluster_runs.assert_equal_runs([outcome], away, near)
    index = cluster_runs.indexed(away)
    store.reindex(away)
    assert {k: v[1] for k, v in cluster_runs.indexed(away).items()} == {
        k: v[1] for k, v in index.items()
    }


@pytest.mark.slow
def test_stopping_one_run_and_then_the_sweep(two, demo_world, tmp_path):
    todo = cluster_runs.cells(replace(cluster_runs.TINY, gan={"steps": 100_000}), l1=(0.1, 0.2))
    stop, away = threading.Event(), tmp_path / "away"
    first, second = (run for _, run, _ in protocol.identify_runs(todo))
    step = lambda run: next((r["step"] or 0 for r in store.list_runs(away) if r["run"] == run), 0)  # noqa: E731
    threads = [cluster_runs.until(lambda: step(first) >= 10, lambda: jobs.stop(first, away))]
    threads.append(
        cluster_runs.until(
            lambda: step(second) >= 10 and store.list_runs(away)[-1]["state"] == "stopped", stop.set
        )
    )
    outcomes = {o.run: o.state for o in far(todo, away, stop=stop, every=1e9)}
    for t in threads:
        t.join()
    assert outcomes == {first: "stopped", second: "stopped"}
    for run in outcomes:
        assert (away / run / "state.pt").exists()  # it came home though its time had not come
        assert min(store.load_curves(run, away)["loss/G"][0]) == 10
    assert {r["state"] for r in store.list_runs(away)} == {"stopped"}


def test_a_run_that_takes_its_machines_with_it_is_given_up(two, demo_world, tmp_path, monkeypatch):
    said, todo = [], cluster_runs.cells(cluster_runs.TINY, l1=(0.1,))
    begin = worker.Worker.begin

    def fall(self, *given):
        begin(self, *given)
        self.process.kill()
        raise Lost("it is gone")

    monkeypatch.setattr(worker.Worker, "begin", fall)
    [outcome] = far(todo, tmp_path / "away", said=said)
    assert outcome.state == "failed"
    assert (
        "3 machines were lost under it with no checkpoint between them (it is gone)"
        in outcome.reason
    )
    assert len(said) == driver.MAX_LOST_MACHINES - 1
    assert [(r["state"], r["error"]) for r in store.list_runs(tmp_path / "away")] == [
        ("failed", outcome.reason)
    ]


@pytest.mark.slow
def test_a_dead_worker_fails_its_run_alone(two, demo_world, tmp_path):
    todo = cluster_runs.cells(
        replace(cluster_runs.TINY, gan={"steps": 100_000}), l1=(0.1,)
    ) + cluster_runs.cells(cluster_runs.TINY, l1=(0.2,))
    away = tmp_path / "away"
    first = protocol.identify_runs(todo)[0][1]

    def kill():
        os.kill(
            next(s.worker.process.pid for s in two.actors if s.worker.run.id == first),
            signal.SIGKILL,
        )

    killer = cluster_runs.until((away / first / "state.pt").exists, kill)
    outcomes = {o.run: o for o in far(todo, away)}
    killer.join()
    assert sorted(o.state for o in outcomes.values()) == ["done", "failed"]
    assert "its process ended with SIGKILL" in outcomes[first].reason


def test_machines_that_are_not_like_this_one_are_left_out(two, demo_world, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(connection, "MACHINE_TIMEOUT", 0.0)
    monkeypatch.setattr(
        connection, "what_differs", lambda *a: "has torch 1.0, where 2.0 is expected"
    )
    [outcome] = far(cluster_runs.cells(cluster_runs.TINY, l1=(0.1,)), tmp_path, said=said)
    assert outcome.state == "failed"
    assert "other has torch 1.0" in outcome.reason
    assert said[0] == "machine one has torch 1.0, where 2.0 is expected; it is left out"
    two.alive.clear()
    monkeypatch.setattr(connection, "what_differs", lambda *a: "")
    [outcome] = far(cluster_runs.cells(cluster_runs.TINY, l1=(0.1,)), tmp_path)
    assert "no machine of the cluster can train (there is none)" in outcome.reason


def test_a_shared_classifier_is_fitted_once(tmp_path):
    a, b, c = (("cell", run) for run in "abc")
    files = {"a": {"f_S": "f_S-1"}, "b": {"f_S": "f_S-1"}, "c": {"f_S": "f_S-2"}}
    work = sweep.Work([a, b, c], tmp_path, "cpu", None, [].append, threading.Event())
    state = driver.SharedState(None, work, 0.0, [].append, files, [a, b, c])
    assert [state.next_cell(), state.next_cell()] == [a, c]  # b waits for a
    taken = []
    thread = threading.Thread(target=lambda: taken.append(state.next_cell()))
    thread.start()
    thread.join(0.3)
    assert taken == []
    fitted = worker.Updates({}, [], None, {"f_S-1": b"x"}, {}, False, False)
    state.store(Run(tmp_path / "a"), fitted)
    thread.join(10)
    assert taken == [b]
    assert (tmp_path / ".cache" / "f_S-1").read_bytes() == b"x"


def test_the_slots_of_a_machine():
    node = {"Resources": {"CPU": 8.0, "GPU": 2.0}}
    assert [driver.run_slots(node, d) for d in ("cpu", "auto", "cuda")] == [(8, 0), (2, 1), (2, 1)]
    assert [driver.run_slots({"Resources": {"CPU": 8.0}}, d) for d in ("cpu", "auto", "cuda")] == [
        (8, 0),
        (8, 0),
        (0, 1),
    ]


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../x", ".x", "a/b/c", "", "state.tmp", "models/.x"]
)
def test_only_names_of_a_runs_files_are_written(tmp_path, name):
    with pytest.raises(ValueError, match="no file of a run"):
        worker.write_run_file(tmp_path, name, b"")


def test_records_that_a_resumed_run_dropped_are_void(two, tmp_path):
    here = worker.Worker()
    here.run = Run(tmp_path / "run")
    here.run.directory.mkdir()
    path = here.run.directory / "metrics.jsonl"
    lines = [json.dumps({"step": s, "a": float(s)}) + "\n" for s in (0, 10, 20, 20, 30)]
    path.write_text("".join(lines) + '{"step": 4')  # one is just being written
    assert here.new_records() == (None, [json.loads(line) for line in lines])
    assert here.new_records() == (None, [])
    path.write_text("".join(lines[:3]))  # resumed from 10, and so far done again
    assert here.new_records() == (19, [{"step": 20, "a": 20.0}])
    path.write_text("".join(lines))
    assert here.new_records() == (None, [json.loads(line) for line in lines[3:]])
    here.close()


def test_corpora_lie_once_on_a_machine_and_go_with_its_last_worker(two, tmp_path, monkeypatch):
    one, other = worker.Worker(), worker.Worker()
    good = hashlib.sha256(b"arrays").hexdigest()
    for s in (one, other):
        s.store_corpus("demo-1.npz", good, ("stored", b"arrays"))
        assert (s.home / "data" / "processed" / "demo-1.npz").read_bytes() == b"arrays"
    [stored] = (one.base / "corpora").iterdir()
    assert stored.stat().st_nlink == 3
    with pytest.raises(OSError, match="damaged"):
        one.store_corpus("x.npz", "0" * 64, ("stored", b"arrays"))
    monkeypatch.setenv("DACSSGAN_DATA", str(other.home / "data"))
    assert prepared_corpora.corpus_path("demo", 1).exists()
    other.lock.close()  # killed
    new = worker.Worker()
    assert not other.home.exists()
    assert stored.stat().st_nlink == 2
    one.close()
    assert not stored.exists()
    new.close()
    one.base.chmod(0o755)
    with pytest.raises(PermissionError, match="not this user's alone"):
        worker.Worker()
    one.base.chmod(0o700)
