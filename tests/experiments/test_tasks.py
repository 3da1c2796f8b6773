"""Errands: a real one runs, is stopped, continues and ends.

And one that died, hangs or was never there is told apart.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from core import files
from core.data import prepared_corpora
from core.experiments import jobs, tasks
from core.experiments.tasks import Task
from core.media import waveforms
from tests.support import trained_runs


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    for name, value in (
        trained_runs.home_environment(tmp_path) | {"COLUMNS": "20"}
    ).items():  # as of a narrow terminal
        monkeypatch.setenv(name, value)
    tasks.folder().mkdir(parents=True)
    return tmp_path


def until(what, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return found


def ended(name: str) -> Task:
    return until(lambda: (e := tasks.find(name)) and e.state != "running" and e)


def written(**fields) -> Task:
    """A task's file, of no process."""
    e = Task(
        **{
            "id": "doctor-00000000",
            "arguments": ["doctor", "/x"],
            "started": 1.0,
            "beat": time.time(),
            "process": files.process_identity(fields.get("pid", 0)),
        }
        | fields
    )
    files.write_json(tasks.folder() / f"{e.id}.json", asdict(e))
    return e


def fake_task() -> subprocess.Popen:
    """A process that leads a session and does not listen to SIGTERM."""
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(1, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, "core", "data"], stdout=subprocess.PIPE, start_new_session=True
    )
    child.stdout.readline()
    return child


def test_an_examination_runs_to_its_end_and_leaves_a_report(home):
    sound = home / "my corpus" / "audio" / "happy" / "$(touch pwned) `x`; *.wav"
    sound.parent.mkdir(parents=True)
    wave = 0.1 * np.random.default_rng(0).standard_normal(32_000)
    sound.write_bytes(waveforms.wav_bytes(wave, 16_000))
    (sound.parent / "empty.wav").touch()
    arguments = ["doctor", str(home / "my corpus"), "--corpus", "own", "--json"]
    name = tasks.start(arguments)
    assert tasks.start(arguments) == name
    e = ended(name)
    assert (e.state, e.arguments, e.message) == ("done", arguments, "1 kind of errors found")
    report = json.loads(tasks.output(name))
    assert {f["kind"]: f["names"] for f in report["faults"]}["empty"] == ["audio/happy/empty.wav"]
    assert report["counts"]["clips"] == 2
    assert not list(home.rglob("pwned"))  # names are never commands
    assert [x.id for x in tasks.listing()] == [name]


def test_a_stopped_task_goes_on_where_it_was(home):
    arguments = ["prepare", "demo", "--takes", "1"]
    name = tasks.start(arguments)
    e = until(lambda: (e := tasks.find(name)) and e.done > 3 and e)
    assert (e.state, e.phase, e.total) == ("running", "prepare", 144)
    assert e.rate > 0
    assert e.left == pytest.approx((e.total - e.done) / e.rate)
    asked = time.monotonic()
    tasks.stop(name)
    assert tasks.find(name).phase in (tasks.STOPPING_PHASE, "prepare")
    e = ended(name)
    assert e.state == "stopped"
    assert time.monotonic() - asked < tasks.STOP_GRACE_SECONDS
    assert not prepared_corpora.corpus_path("demo", 1).exists()
    kept = len(list((prepared_corpora.processed_folder() / ".parts").rglob("*.npz")))
    assert kept >= e.done > 3
    assert tasks.start(arguments) == name  # at once, while the first may not be quite gone
    first = until(lambda: (e := tasks.find(name)) and e.total and e)
    assert first.done >= e.done
    assert first.phase == "prepare"
    tasks.stop(name)
    assert (e := ended(name)).state == "stopped"
    until(lambda: not jobs.is_ours(e.pid, e.process), tasks.STOP_GRACE_SECONDS)


def test_what_goes_wrong_is_told_in_words(home):
    name = tasks.start(["prepare", "ravdess", "--source", str(home / "nowhere")])
    e = ended(name)
    assert e.state == "failed"
    assert "nowhere does not exist" in e.message
    assert "Traceback" not in e.message


def test_a_task_whose_process_died_has_failed_and_says_its_last_line(home):
    e = written(pid=2**22 - 7, beat=time.time() - 60)
    (tasks.folder() / f"{e.id}.log").write_text("reading\nKilled: out of memory\n\n")
    found = tasks.find(e.id)
    assert found.state == "failed"
    assert "Killed: out of memory" in found.message
    assert tasks.find(e.id) == found  # written down


def test_one_that_dies_after_it_was_asked_to_end_is_stopped(home):
    e = written(pid=2**22 - 7)
    (tasks.folder() / f"{e.id}.stop").touch()
    assert tasks.find(e.id).state == "stopped"


def test_one_that_does_not_listen_is_killed_with_its_children_when_asked_again(home, monkeypatch):
    child = fake_task()
    try:
        e = written(pid=child.pid)
        tasks.stop(e.id)
        assert tasks.find(e.id).phase == tasks.STOPPING_PHASE
        tasks.stop(e.id)  # too early for more than asking
        time.sleep(0.2)
        assert child.poll() is None
        monkeypatch.setattr(tasks, "STOP_GRACE_SECONDS", 0.0)
        tasks.stop(e.id)
        assert child.wait(5) == -signal.SIGKILL
        assert tasks.find(e.id).state == "stopped"
    finally:
        child.kill()


def test_a_task_whose_process_is_not_known_yet_touches_no_other(home):
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    time.sleep(0.5)  # it has ended, and waits to be asked for its answer
    tasks.find(written(pid=0, beat=time.time() - 60).id)
    assert child.wait() == 3  # its answer was not asked for by somebody else


def test_nothing_else_is_ever_signalled(home):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        e = written(pid=other.pid, process="of one that has ended")  # the number was given on
        tasks.stop(e.id)
        time.sleep(0.2)
        assert other.poll() is None
    finally:
        other.kill()
    tasks.stop("doctor-nothing")
    tasks.stop(written(pid=0).id)  # 0 would be this process' whole group


def test_forgetting_takes_away_the_files_of_a_task_that_has_ended(home):
    e = written(state="done")
    (tasks.folder() / f"{e.id}.out").write_text("{}")
    tasks.forget(e.id)
    assert list(tasks.folder().iterdir()) == []
    child = fake_task()
    try:
        e = written(pid=child.pid)
        tasks.forget(e.id)
        assert tasks.find(e.id).state == "running"
    finally:
        child.kill()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"id": 1}', '{"id": "x", "arguments": [], "no such field": 1}']
)
def test_a_damaged_file_is_no_task(home, text):
    (tasks.folder() / "doctor-00000000.json").write_text(text)
    assert tasks.listing() == []
    assert tasks.output("nothing") == tasks.errors("nothing") == ""


def test_the_time_left_is_not_invented():
    assert math.isnan(Task("x", [], done=3, total=9).left)
    assert math.isnan(Task("x", [], done=9, total=9, rate=2).left)
    assert Task("x", [], done=3, total=9, rate=2).left == 3


def test_a_process_that_is_no_task_writes_nothing(home):
    assert tasks.TASK_FILE_VARIABLE not in os.environ
    tasks.report_progress("prepare", 1, 2, 3.0)
    tasks.report_end("done")
    assert list(tasks.folder().iterdir()) == []
