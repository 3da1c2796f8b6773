"""The runs that come with the project.

Small, complete, honest in their cards, and able to turn a real clip into sound.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from core.evaluation import results
from core.inference import generation
from core.media import spectrograms
from core.models import networks
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs

ROOT = Path(__file__).resolve().parents[2]


def turned(run: Run) -> bool:
    """From voices to faces (§4.5)."""
    return run.config.gan.direction == "voice-face"


def test_both_families_have_a_run_for_each_condition():
    found = {
        (Run(p).config.name, Run(p).config.gan.condition)
        for p in trained_runs.SHIPPED
        if not turned(Run(p))
    }
    assert found == {
        (n, c) for n in ("demo", "fer2013-ravdess") for c in ("label", "classifier", "cp")
    } | {("listening", "label")}
    assert {
        (Run(p).config.name, Run(p).config.gan.condition)
        for p in trained_runs.SHIPPED
        if turned(Run(p))
    } <= {("demo-reverse", "label")}


def test_they_are_small():
    files = [f for p in trained_runs.SHIPPED for f in p.rglob("*") if f.is_file()]
    unique = {
        hashlib.sha256(f.read_bytes()).digest(): f.stat().st_size for f in files
    }  # git keeps equal files once
    assert sum(unique.values()) < 25 * 2**20
    names = {f.name for f in files}
    assert not names & {"state.pt", "D.safetensors", "f_T.safetensors", "log.txt"}


@pytest.mark.parametrize("path", trained_runs.SHIPPED, ids=lambda p: p.name)
def test_a_run_is_whole(path):
    run = Run(path)
    G = networks.load(run.model_path("G"))
    assert sum(p.numel() for p in G.parameters()) <= 1_500_000
    found, card = run.json("results"), (path / "CARD.md").read_text()
    assert "must not be used" in card
    assert run.json("corpus")["voices"]["licence"] in card
    made = run.json("table")
    for row in results.row_names(found, made):  # of several trainings where they exist
        assert results.row_accuracy(found, made, row).text in card
    assert results.is_current(found)
    for floor in results.FLOORS:
        assert results.quality_text(found, floor, 3 if "KID" in floor else 2) in card
    if made:
        assert results.is_current(made)
        assert f"{len(made['rows'])} rows with {made['plan']['seeds']} trainings" in card
        assert all(
            f"{100 * g['difference']:+.1f} points" in card
            for g in made["gains"]
            if g["name"] in ("a", "b")
        )
        assert made["N test voices"] == found["N test voices"]
    if run.config.data.voices != "demo":
        assert "CC BY-NC-SA 4.0" in card
        assert {s for group in found["subjects"].values() for s in group} == {
            f"ravdess-{a:02d}" for a in range(1, 21)
        }
    for name in ("outputs", "generated"):
        for key, a in run.arrays(name).items():
            if (
                turned(run)
                and run.config.data.faces == "demo"
                and (name, key) == ("generated", "y")
            ):
                continue  # drawn faces: what it makes
            assert not (a.ndim >= 3 and a.shape[-2:] == (28, 28)), (
                f"{name}.{key} looks like pictures of faces"
            )


def test_the_demo_keeps_its_marks():
    """The marks for the demo corpus at its default difficulty, from the shipped runs of the default
    preset, whatever the condition.
    """
    for path in trained_runs.SHIPPED:
        run, found = Run(path), Run(path).json("results")
        if run.config.name != "demo":
            continue
        assert 0.45 <= results.row_accuracy(found, run.json("table"), "S1").mean <= 0.60
        assert 0.60 <= found["face"]["accuracy"] <= 0.75
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        fid = [r["FID"] for r in lines if "FID" in r]
        last = [r["FID"] for r in lines if "FID" in r and r["step"] > 0.75 * found["steps"]]
        assert np.mean(last) <= 0.6 * fid[0]
        assert found["quality"]["recognised"] >= 0.6 * found["quality"]["recognised real"]


def test_no_generator_has_collapsed():
    """Networks can be swayed by patterns that nobody sees.

    So the samples themselves must differ, from draw to draw and face to face.
    """
    for path in trained_runs.SHIPPED:
        quality, y = (
            Run(path).json("results")["quality"],
            Run(path).arrays("generated")["y"].astype(np.float32),
        )
        if turned(Run(path)):
            continue  # below
        assert quality["diversity"] > 0.2, path.name
        assert quality["coverage"] > 0.2, path.name
        assert y.std(axis=0).mean() > 0.1, path.name


@pytest.mark.parametrize(
    "path", [p for p in trained_runs.SHIPPED if turned(Run(p))], ids=lambda p: p.name
)
def test_faces_for_voices_have_not_collapsed(path):
    """A voice leaves the noise less to decide than a face does, so here the samples must differ
    from voice to voice of one emotion.
    """
    kept, quality = Run(path).arrays("generated"), Run(path).json("results")["quality"]
    spread = [
        kept["y"][kept["label"] == k].astype(np.float32).std(axis=0).mean()
        for k in np.unique(kept["label"])
    ]
    assert min(spread) > 0.1
    assert quality["diversity"] > 0.05
    assert quality["coverage"] > 0.4
    assert quality["recognised"] >= 0.9 * quality["recognised real"]


@pytest.mark.parametrize(
    ("asked", "run"), [((), "listening-label"), (("--condition", "cp"), "fer2013-ravdess-cp")]
)
def test_generate_with_the_default_run(shared_data, tmp_path, asked, run):
    """The command of the README on an original CREMA-D clip.

    Its wav, analysed again, is the generated spectrogram.
    """
    clip = shared_data / "crema-d" / "VideoFlash" / "1001_DFA_HAP_XX.flv"
    command = [sys.executable, "-m", "core", "generate", str(clip), *asked, "--out", str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DACSSGAN")}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "wrote" in done.stdout
    facts = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert facts["run"].startswith(run)
    y, (wave, rate) = (
        np.load(next(tmp_path.glob("*.npy"))),
        soundfile.read(next(tmp_path.glob("*.wav")), dtype="float32"),
    )
    opened = generation.load_run(store.resolve(facts["run"], folder=ROOT / "checkpoints"))
    correlation, error = spectrograms.resynthesis_agreement(
        y, wave, opened.ref_db, opened.config.logmel, facts["sound"]["gain_db"]
    )
    assert rate == opened.config.logmel.rate
    assert correlation >= 0.9
    assert error <= 6
    assert np.abs(wave).max() < 1
    assert np.sqrt((wave**2).mean()) > 0.01  # it can be heard


def test_the_readme_and_the_architecture_name_every_package():
    readme, house = ((ROOT / p).read_text() for p in ("README.md", "docs/architecture.md"))
    for folder in (p.parent for p in (ROOT / "core").glob("*/__init__.py")):
        assert f"`core/{folder.name}`" in readme
        assert f"`{folder.name}`" in house
    for folder in (p.parent for p in (ROOT / "core").glob("*/*/__init__.py")):
        assert f"`{folder.parent.name}/{folder.name}`" in house
