"""A really trained run of each condition, in some seconds.

The whole pipeline on a handful of steps, and runs in every other state.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from core import files
from core.config.presets import SMOKE
from core.config.settings import Config, replace
from core.experiments import pipeline
from core.inference import generation
from core.inference.gallery import generated_voices, real_items
from core.media.faces import landmarker
from core.runs import store
from core.runs.directory import Run
from tests.support.noise_corpora import prepare_noise_demo

TINY_CONFIG = replace(
    SMOKE,
    name="tiny",
    f_s={"steps": 5, "batch": 16},
    f_t={"steps": 5, "batch": 16},
    gan={"steps": 4, "batch": 8},
    evaluate={"every": 2},
)
BANDS_64_CONFIG = replace(
    TINY_CONFIG, name="finer", data={"faces": "demo-64", "voices": "demo-64"}, logmel={"bands": 64}
)
REVERSE_CONFIG = replace(
    TINY_CONFIG, name="turned", gan={"direction": "voice-face", "condition": "label"}
)


def home_environment(folder: Path) -> dict[str, str]:
    """The two environment variables that point the project at a folder of a test's own."""
    return {
        "DACSSGAN_CHECKPOINTS": str(folder / "checkpoints"),
        "DACSSGAN_DATA": str(folder / "data"),
    }


@functools.cache
def once(folder: Path, fill: Callable[[], object]) -> Path:
    """The home `folder`, which `fill` fills once for all test processes of a session."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # its temporary folder lies in the session's
        folder = folder.parent.parent / folder.name
    folder.mkdir(exist_ok=True)
    with files.file_lock(folder / "lock", "a test's home", wait=True):
        if not (folder / "filled").exists():
            with mock.patch.dict(os.environ, home_environment(folder)):
                files.checkpoints_folder().mkdir(parents=True, exist_ok=True)
                fill()
            (folder / "filled").touch()
    return folder


def trained_home(folder: Path) -> Path:
    """A home with finished runs of all three conditions."""
    return once(folder, _train_conditions)


def _train_conditions() -> None:
    prepare_noise_demo()
    for condition in ("cp", "label", "classifier"):
        run = pipeline.run(replace(TINY_CONFIG, gan={"condition": condition}), device="cpu")
        opened, shown = generation.load_run(run), real_items.load_real_items(run)
        generated_voices.load_generated_voices(opened, shown)  # the Gallery's cache


def reverse_home(folder: Path) -> Path:
    """A home with finished runs from voices to faces, told the label and the p-values."""
    return once(folder, _train_reversed)


def _train_reversed() -> None:
    prepare_noise_demo()
    for condition in ("cp", "label"):
        pipeline.run(replace(REVERSE_CONFIG, gan={"condition": condition}), device="cpu")


def bands_64_home(folder: Path) -> Path:
    """A home with a finished run on voices in 64 mel bands."""
    return once(folder, _train_64_bands)


def _train_64_bands() -> None:
    prepare_noise_demo("demo-64")
    pipeline.run(BANDS_64_CONFIG, device="cpu")


def the_run(condition: str = "cp") -> Run:
    """The run of a condition in the home that the environment names."""
    rows = (r["run"] for r in store.list_runs() if r["condition"] == condition)
    return Run(files.checkpoints_folder() / next(rows))


def copy_home(source: Path, target: Path) -> Path:
    """A home of a test's own, with the finished runs.

    Of state.pt, three quarters of a run, it has a hard link: trainings replace it, and write in
    none. Hundreds of homes are made in a session.
    """

    def copy(one: str, other: str) -> None:
        (os.link if Path(one).name == "state.pt" else shutil.copy2)(one, other)

    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=copy)
    return target


def install_landmark_model(home: Path) -> None:
    """Puts the landmark model into a home; skips where it cannot be had."""
    try:
        own = landmarker.model_path()
    except landmarker.ModelMissing as error:
        pytest.skip(f"the landmark model is not here: {error}")
    target = home / "checkpoints" / landmarker.MODEL_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(own, target)


def fabricate_run(state: str, config: Config = SMOKE, **fields) -> Run:
    """A run directory with curves, in any state, that nothing was trained for.

    Uses the home that the environment names.
    """
    run = store.create(
        files.checkpoints_folder() / f"{config.name}-{config.gan.condition}-{state:0<8}", config
    )
    steps = {
        0: {"FID": 17.0, "KID": 9.0, "IS": 1.2, "FID real": 1.6, "KID real": 0.1, "IS real": 1.9}
    }
    steps |= {s: {"loss/G": 7 - s / 10, "loss/D": 0.5, "loss/l1": 0.7} for s in (10, 20)}
    for step, values in steps.items():
        store.record_metrics(run, step, values)
    shape = (28, 28) if run.config.gan.direction == "voice-face" else (112, 28)
    y = np.random.default_rng(1).uniform(-1, 1, (6, *shape)).astype(np.float16)
    for step in (10, 20):
        files.write_arrays(
            run.directory / "samples" / f"step-{step:07d}.npz", y=y, label=np.arange(6)
        )
    (run.directory / "log.txt").write_text("train G, D, Q   20/40\n")
    store.update(run, state=state, step=20, **fields)
    return run


def start_fake_training() -> subprocess.Popen:
    """A process to stand for a training: `store.update(run, pid=...)` records that it is ours."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", "core", "train"])


SHIPPED = sorted(
    p.parent
    for p in (files.ROOT / "checkpoints").glob("*/CARD.md")
    if p.with_name("config.json").exists()
)  # the vocoder is no run
