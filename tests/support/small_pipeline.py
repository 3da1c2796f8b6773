"""A whole run of the pipeline in some seconds, shared by the tests of a module."""

import os
import shutil
import subprocess
import sys

import pytest

from core.config.presets import SMOKE
from core.config.settings import replace
from core.files import ROOT

TINY = replace(
    SMOKE,
    name="tiny",
    data={"demo_takes": 1},
    f_s={"steps": 8},
    f_t={"steps": 6, "channels": (4, 8), "batch": 16},
    gan={"steps": 6, "batch": 16, "z": 8},
    evaluate={"every": 3},
)


def _prepare_world() -> None:
    from core.data import preparation

    preparation.prepare_corpus("demo", None, preparation.PreparationSettings(takes=1))


def _train_world() -> None:
    from core.experiments import pipeline  # with torch

    _prepare_world()
    pipeline.run(TINY, device="cpu")


@pytest.fixture(scope="module")
def demo_world(tmp_path_factory):
    """A prepared demo corpus of one take each, in folders of this module's own."""
    from tests.support import trained_runs

    made = trained_runs.once(tmp_path_factory.getbasetemp() / "world", _train_world)
    root = tmp_path_factory.mktemp("world-")
    shutil.copytree(made / "data", root / "data")
    before = {k: os.environ.get(k) for k in ("DACSSGAN_DATA", "DACSSGAN_CHECKPOINTS")}
    os.environ["DACSSGAN_DATA"] = str(root / "data")
    yield root
    for k, v in before.items():
        os.environ.pop(k, None) if v is None else os.environ.__setitem__(k, v)


@pytest.fixture(scope="module")
def finished_run(demo_world, tmp_path_factory):
    """A run of TINY that is done."""
    from core.runs.directory import Run
    from tests.support import trained_runs

    made = trained_runs.once(tmp_path_factory.getbasetemp() / "world", _train_world)
    shutil.copytree(made / "checkpoints", demo_world / "runs")
    return Run(next(p.parent for p in (demo_world / "runs").glob("*/config.json")))


def weights(run):
    """Network -> the bytes of its file."""
    return {k: run.model_path(k).read_bytes() for k in ("G", "D", "f_S", "f_T", "Q", "scorer")}


def core(*arguments, **environment):
    """`python -m core ARGUMENTS` in a process of its own; its streams as text."""
    return subprocess.run(
        [sys.executable, "-m", "core", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {k: str(v) for k, v in environment.items()},
        timeout=240,
    )
