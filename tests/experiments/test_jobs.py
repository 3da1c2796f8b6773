"""The queue of trainings.

Order, pause and resume, what befalls one and not the others, one worker, words for what went wrong.
"""

from __future__ import annotations

import signal
import time

import pytest

from core import files
from core.config.presets import SMOKE
from core.config.settings import replace
from core.data import prepared_corpora
from core.experiments import jobs
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A home of a test's own, in which no worker is started unless the test does so."""
    for name, value in trained_runs.home_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jobs, "start_queue_worker", lambda folder=None: False)
    return files.checkpoints_folder()


def queued(seed: int, place: bool = True, **fields) -> Run:
    """A run that waits for its turn."""
    config = replace(SMOKE, seed=seed)
    run = store.create(files.checkpoints_folder() / f"smoke-cp-{seed:08d}", config)
    if place:
        jobs.enqueue(run, "cpu")
    store.update(run, **{"state": "queued", "phase": "", "pid": 0} | fields)
    return run


def states() -> dict[str, str]:
    """Last digit of a run's id -> its state, in the queue's order; runs outside of it come last."""
    rows = sorted(store.list_runs(), key=lambda r: (r["place"] is None, r["place"] or 0, r["run"]))
    return {r["run"][-1]: r["state"] for r in rows}


class Trainings:
    """In place of training processes: each is as long as its run says, and ends as `ends` tells."""

    def __init__(self, monkeypatch, ends: dict[str, object]):
        self.ends, self.started, self.living = ends, [], set()
        monkeypatch.setattr(jobs, "spawn_python", self.launch)
        monkeypatch.setattr(jobs, "is_ours", lambda pid, process: pid in self.living)

    def launch(self, command, out, err, environment, keep=()):
        run = Run(
            files.checkpoints_folder() / command[command.index("--config-file") + 1].split("/")[-2]
        )
        self.started.append((run.id[-1], command[command.index("--device") + 1]))
        self.pid = 4_000_000 + len(self.started)
        self.living.add(self.pid)
        outer, pid = self, self.pid

        class Child:
            def __init__(self):
                self.pid = pid

            def terminate(self):
                outer.ends[run.id[-1]] = lambda: store.update(run, state="stopped")

            def wait(self):
                store.update(run, state="running", phase="sets", pid=pid)
                end = outer.ends.get(run.id[-1], lambda: store.update(run, state="done"))
                code = end()
                outer.living.discard(pid)
                return code or 0

        return Child()


def test_the_queue_is_worked_in_order_and_a_failed_run_holds_up_nobody(folder, monkeypatch):
    one, two, three = (queued(k) for k in (1, 2, 3))

    def crash():
        (one.directory / "log.txt").write_text("train G, D, Q 20/40\n")
        return -signal.SIGKILL

    trainings = Trainings(
        monkeypatch,
        {
            "1": crash,
            "2": lambda: store.update(two, state="failed", error="the losses became infinite"),
        },
    )
    jobs.move(three.id, -1)
    assert list(states()) == ["1", "3", "2"]
    jobs.run_queue(folder)
    assert trainings.started == [("1", "cpu"), ("3", "cpu"), ("2", "cpu")]
    assert states() == {"1": "failed", "2": "failed", "3": "done"}
    assert jobs.list_queue() == []
    errors = {r["run"]: r["error"] for r in store.list_runs()}
    assert "memory" in errors[one.id]
    assert errors[two.id] == "the losses became infinite"


def test_a_paused_run_keeps_its_place_and_holds_the_queue(folder, monkeypatch):
    one, two = queued(1), queued(2)
    trainings = Trainings(monkeypatch, {})
    asked = []
    monkeypatch.setattr(jobs.os, "kill", lambda pid, s: asked.append((pid, s)))

    def paused():
        assert jobs.pause(one.id) is False  # asked: it ends a moment later
        assert jobs.is_alive(next(r for r in store.list_runs() if r["run"] == one.id))
        store.update(one, state="stopped", step=20)

    trainings.ends["1"] = paused
    jobs.run_queue(folder)
    assert asked == [(4_000_001, signal.SIGTERM)]
    assert states() == {"1": "paused", "2": "queued"}
    assert jobs.next_in_queue(folder) is None
    jobs.run_queue(folder)
    assert len(trainings.started) == 1  # the queue waits

    jobs.move(two.id, -1)  # past the paused one
    assert jobs.next_in_queue(folder)["run"] == two.id
    jobs.move(two.id, 1)
    del trainings.ends["1"]
    store.update(one, state="queued", pid=0)  # as `start` does on resuming: the place is kept
    jobs.run_queue(folder)
    assert [s for s, _ in trainings.started] == ["1", "1", "2"]
    assert states() == {"1": "done", "2": "done"}


def test_stopping_lets_the_next_one_go(folder, monkeypatch):
    one, _, three = queued(1), queued(2), queued(3)
    trainings = Trainings(monkeypatch, {})
    monkeypatch.setattr(jobs.os, "kill", lambda pid, s: None)

    def stopped():
        jobs.stop(one.id)
        assert jobs.stop(three.id) is True  # it only waited
        store.update(one, state="stopped")

    trainings.ends["1"] = stopped
    jobs.run_queue(folder)
    assert [s for s, _ in trainings.started] == ["1", "2"]
    assert states() == {"1": "stopped", "2": "done", "3": "stopped"}


def test_one_that_died_leaves_the_queue_and_the_index_can_be_rebuilt(folder, monkeypatch):
    one, two = queued(1, pid=4_321_000), queued(2)
    (one.directory / "state.pt").write_bytes(b"x")
    monkeypatch.setattr(jobs, "is_ours", lambda pid, process: False)
    assert jobs.reconcile() == [
        one.id
    ]  # as after the machine was switched off; the other still waits
    assert states() == {"2": "queued", "1": "stopped"}
    store.reindex()
    assert states() == {"2": "queued", "1": "stopped"}
    assert jobs.next_in_queue(folder)["run"] == two.id


def test_a_run_outside_of_the_queue_is_waited_for(folder, monkeypatch):
    by_hand, one = queued(1, place=False, state="running", pid=77), queued(2)
    trainings = Trainings(monkeypatch, {})
    trainings.living.add(77)
    naps = []

    def nap(seconds):
        naps.append(seconds)
        trainings.living.discard(77)
        store.update(by_hand, state="done")

    monkeypatch.setattr(jobs.time, "sleep", nap)
    jobs.run_queue(folder)
    assert naps == [jobs.QUEUE_POLL_SECONDS]
    assert states() == {"1": "done", "2": "done"}
    assert [s for s, _ in trainings.started] == [one.id[-1]]


def test_a_training_that_does_not_listen_can_be_killed_but_not_at_once(folder, monkeypatch):
    run = queued(1, state="running", phase="stopping", pid=77)
    monkeypatch.setattr(jobs, "is_ours", lambda pid, process: pid == 77)
    asked = []
    monkeypatch.setattr(jobs.os, "kill", lambda pid, s: asked.append(s))
    row = store.list_runs()[0]
    assert not jobs.is_overdue(row)
    jobs.kill(run.id)
    assert asked == []
    monkeypatch.setattr(jobs, "STOP_GRACE_SECONDS", -1.0)
    assert jobs.is_overdue(row)
    jobs.kill(run.id)
    assert asked == [signal.SIGKILL]


def test_starting_twice_is_starting_once(folder, monkeypatch):
    monkeypatch.setattr(prepared_corpora, "corpus_digest", lambda data: "digest")
    first = jobs.start(SMOKE, "cpu")
    assert jobs.start(SMOKE, "auto") == first
    assert [(r["run"], r["device"]) for r in jobs.list_queue()] == [(first, "cpu")]
    jobs.stop(first)
    assert store.list_runs()[0]["state"] == "stopped"
    assert jobs.resume(first, "auto") == first
    assert [(r["state"], r["device"]) for r in jobs.list_queue()] == [("queued", "auto")]


def test_a_worker_of_its_own_process_says_why_a_training_could_not_begin(tmp_path, monkeypatch):
    """The real thing: a worker, started once, gives a run to a real training process.

    Its corpus is missing.
    """
    for name, value in trained_runs.home_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    made = [queued(1)]
    for run in made:
        text = (
            (run.directory / "config.json")
            .read_text()
            .replace('"faces": "demo"', '"faces": "absent"')
        )
        (run.directory / "config.json").write_text(
            text.replace('"voices": "demo"', '"voices": "absent"')
        )
    assert jobs.start_queue_worker() is True
    assert jobs.start_queue_worker() is False  # it holds the lock from the start
    end = time.monotonic() + 240
    while (
        lock := jobs.take_queue_lock(files.checkpoints_folder())
    ) is None and time.monotonic() < end:
        time.sleep(0.1)
    assert lock is not None  # the worker has ended with the queue
    lock.close()
    rows = store.list_runs()
    assert jobs.list_queue() == []
    assert {r["state"] for r in rows} == {"failed"}, (
        files.checkpoints_folder() / "queue.log"
    ).read_text()
    for row in rows:
        assert "python -m core data prepare absent" in row["error"]
        assert not row["error"].startswith("python -m core train")
