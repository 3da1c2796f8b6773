"""A trainer that says nothing is shown as what it is: suspended, slow, or dead."""

import os
import signal
import time

import pytest

from core.__main__ import main
from core.experiments import jobs
from core.runs import store
from tests.support import trained_runs


@pytest.fixture
def trainer(home):
    """A run that a living process trains, and that process."""
    child = trained_runs.start_fake_training()
    run = trained_runs.fabricate_run("running", pid=child.pid, phase="train G, D, Q 20/40")
    yield run, child
    child.kill()
    child.wait()


def row_of(run):
    return next(r for r in store.list_runs() if r["run"] == run.id)


def wait_until(what):
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_suspended_trainer_is_alive_and_called_suspended(trainer, capsys):
    run, child = trainer
    assert jobs.describe_silence(row_of(run)) == ""
    os.kill(child.pid, signal.SIGSTOP)
    wait_until(lambda: "suspended" in jobs.describe_silence(row_of(run)))
    assert jobs.reconcile() == []
    assert main(["runs"]) == 0
    assert f"kill -CONT {child.pid}" in capsys.readouterr().out
    os.kill(child.pid, signal.SIGCONT)
    wait_until(lambda: jobs.describe_silence(row_of(run)) == "")


def test_a_slow_trainer_is_called_slow_and_a_dead_one_is_not(trainer):
    run, child = trainer
    late = row_of(run) | {"heartbeat": time.time() - 600}
    assert "no sign for 10 min, but its process is alive" in jobs.describe_silence(late)
    child.kill()
    child.wait()
    assert jobs.describe_silence(late) == ""
