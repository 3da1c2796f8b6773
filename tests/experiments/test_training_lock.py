"""One process trains a run, and a failure that cannot be written down keeps its reason."""

import os
import shutil
import subprocess
import sys

import pytest

from core import files
from core.config.serialisation import run_name
from core.data import prepared_corpora
from core.evaluation.protocol import Cell
from core.experiments import classifier_fitting, pipeline
from core.experiments.sweeping import sweep
from core.files import ROOT
from core.runs import store
from core.runs.directory import Run
from tests.support.small_pipeline import TINY

HOLD = """import sys
from pathlib import Path
from core.runs import store
with store.training_lock(store.Run(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_trainer_is_told_who_the_first_is(demo_world):
    folder = demo_world / "locked"
    run = Run(folder / run_name(TINY, prepared_corpora.corpus_digest(TINY.data)))
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(run.directory)]
    first = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(files.BusyError, match=f"process {first.pid} "):
            pipeline.run(TINY, folder, "cpu")
        assert not (run.directory / "corpus.json").exists()  # nothing was written for it
        first.kill()
        first.wait()
        assert pipeline.run(TINY, folder, "cpu").json("results")  # a death frees the run
    finally:
        first.kill()


def test_a_sweep_leaves_a_run_to_who_began_it_meanwhile(demo_world):
    folder = demo_world / "beside"
    run = Run(folder / run_name(TINY, prepared_corpora.corpus_digest(TINY.data)))
    with store.training_lock(run):
        (one,) = sweep.train_cells([Cell("one", "–", TINY)], folder, 1, "cpu")
    assert (one.state, one.run) == ("trained elsewhere", run.id)
    assert f"process {os.getpid()} " in one.reason


def test_the_reason_survives_a_folder_that_has_gone(demo_world, monkeypatch):
    folder = demo_world / "gone"

    def unplug(*_):
        shutil.rmtree(folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(classifier_fitting, "fit_classifiers", unplug)
    with pytest.raises(OSError, match="No space left"):
        pipeline.run(TINY, folder, "cpu")
    monkeypatch.undo()
    again = pipeline.run(TINY, folder, "cpu")
    assert store.list_runs(folder)[0]["state"] == "done"
    assert again.json("results")
