"""§3 and §4: the whole path on a tiny demo corpus.

What it writes, who reads what, stop and resume, the command line.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from core import files
from core.__main__ import main
from core.config import presets
from core.config.settings import LogMel, replace
from core.data import prepared_corpora, splits
from core.data.splits import SampleSet
from core.evaluation import quality
from core.experiments import gan_training, pipeline
from core.inference import export, generation
from core.media import spectrograms
from core.models import networks
from core.runs import checks, store
from core.runs.directory import Run
from tests.support import small_pipeline


def test_what_a_run_leaves(finished_run):
    results = finished_run.json("results")
    assert set(results["augmentation"]) == set(small_pipeline.TINY.evaluate.rows)
    assert results["labels"] == "strict"
    for table in results["augmentation"].values():
        matrix = np.array(table["confusion"])
        assert matrix.sum() == results["N test voices"]
        assert table["accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
    out = finished_run.arrays()
    n = results["conformal"]["n"]
    assert out["p_S3"].min() >= 1 / (n + 1)
    assert np.allclose(out["o_S4"].sum(axis=1), 1)
    curves = store.load_curves(finished_run.id, finished_run.directory.parent)
    assert curves["FID"][0] == [0, 3, 6]
    assert curves["FID real"][0] == [0]
    assert [p.name for p in sorted((finished_run.directory / "samples").iterdir())] == [
        f"step-{s:07d}.npz" for s in (0, 3, 6)
    ]
    assert finished_run.json("provenance")["corpus"] == prepared_corpora.corpus_digest(
        small_pipeline.TINY.data
    )
    assert not list(finished_run.directory.rglob("*.tmp*"))


def test_every_checkpoint_holds_what_the_scorer_hears_and_where_it_lies(finished_run):
    grids = [
        files.read_arrays(finished_run.directory / "samples" / f"step-{s:07d}.npz")
        for s in (0, 3, 6)
    ]
    curves = store.load_curves(finished_run.id, finished_run.directory.parent)
    for grid, recognised in zip(grids, curves["recognised"][1], strict=True):
        heard = grid["confusion"]
        assert heard.shape == (6, 6)
        assert np.trace(heard) / heard.sum() == pytest.approx(recognised)
        assert len(set(heard.sum(axis=1).tolist())) == 1  # balanced
        assert grid["at"].shape == (len(grid["of"]), 2)
        assert np.array_equal(grid["at_real"], grids[0]["at_real"])
        assert np.array_equal(grid["of_real"], grids[0]["of_real"])
        assert 0 < grid["share"].sum() <= 1 + 1e-9
    np.testing.assert_allclose(
        grids[0]["at_real"].mean(axis=0), 0, atol=1e-3
    )  # all of S2's voices fit in, so the centre is theirs
    assert not np.array_equal(grids[0]["at"], grids[2]["at"])


def test_the_sets_share_no_subject(finished_run):
    groups = [set(s) for s in finished_run.json("results")["subjects"].values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 24


def test_the_same_config_is_the_same_run(finished_run):
    stamp = (finished_run.directory / "results.json").stat().st_mtime_ns
    again = pipeline.run(
        replace(small_pipeline.TINY, name="tiny"), finished_run.directory.parent, "cpu"
    )
    assert again.directory == finished_run.directory
    assert (again.directory / "results.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("phase", ["fit f_S", "train G, D, Q", "sample S3", "score S1"])
def test_stop_and_resume_give_the_undisturbed_run(demo_world, finished_run, phase):
    calls = []

    def stop_in(p, done, total, remark):
        calls.append((p, done))

    folder = demo_world / f"stopped-{phase.split()[0]}"
    with pytest.raises(files.StopRequested):
        pipeline.run(
            small_pipeline.TINY,
            folder,
            "cpu",
            stop_in,
            lambda: bool(calls) and calls[-1][0].startswith(phase) and calls[-1][1] > 1,
        )
    row = store.list_runs(folder)[0]
    assert row["state"] == "stopped"
    resumed = pipeline.run(small_pipeline.TINY, folder, "cpu")
    assert small_pipeline.weights(resumed) == small_pipeline.weights(finished_run)

    def strip(r):
        return dict(r.json("results").items())

    assert strip(resumed) == strip(finished_run)
    assert store.load_curves(resumed.id, folder) == store.load_curves(
        finished_run.id, finished_run.directory.parent
    )


def test_a_stop_at_a_checkpoint_loses_nothing_of_its_step(demo_world):
    config, reached = replace(small_pipeline.TINY, gan={"steps": 20}, evaluate={"every": 10}), []

    def train(state, pool, g):
        for record in gan_training.train_with_cuda_graphs(state, pool, g):
            reached.append(record.step)
            yield record

    whole = pipeline.run(config, demo_world / "undisturbed", "cpu")
    with pytest.raises(files.StopRequested):
        pipeline.run(
            config,
            demo_world / "halfway",
            "cpu",
            should_stop=lambda: reached[-1:] == [10],
            train=train,
        )
    assert reached[-1] == 10
    resumed = pipeline.run(config, demo_world / "halfway", "cpu")
    assert small_pipeline.weights(resumed) == small_pipeline.weights(whole)
    assert store.load_curves(resumed.id, demo_world / "halfway") == store.load_curves(
        whole.id, demo_world / "undisturbed"
    )
    grids = [sorted(p.name for p in (r.directory / "samples").iterdir()) for r in (resumed, whole)]
    assert grids[0] == grids[1] == [f"step-{s:07d}.npz" for s in (0, 10, 20)]


def test_s4_reaches_no_fit(demo_world, finished_run, monkeypatch):
    """With S4 replaced by noise every network is the same, and so is all that is watched while
    training.
    """
    build = splits.build_sets

    def spoiled(config):
        sets, rng = build(config), np.random.default_rng(0)
        s = sets["S4"]
        x, y = (
            rng.uniform(-1, 1, s.x.shape).astype(np.float32),
            rng.uniform(-1, 1, s.y.shape).astype(np.float32),
        )
        return sets | {
            "S4": SampleSet(
                x, s.x_label[::-1], s.x_subject, y, s.y_label[::-1], s.y_subject, s.paired
            )
        }

    monkeypatch.setattr(splits, "build_sets", spoiled)
    other = pipeline.run(small_pipeline.TINY, demo_world / "spoiled", "cpu")
    assert small_pipeline.weights(other) == small_pipeline.weights(finished_run)
    assert store.load_curves(other.id, demo_world / "spoiled") == store.load_curves(
        finished_run.id, finished_run.directory.parent
    )
    assert other.json("results")["quality"]["FID"] != finished_run.json("results")["quality"]["FID"]


@pytest.mark.parametrize(
    ("condition", "read"), [("cp", False), ("classifier", False), ("label", True)]
)
def test_strict_mode_never_reads_s3s_labels(demo_world, monkeypatch, condition, read):
    """§ who sees labels.

    With S3's labels gone the networks are identical, but for the label condition, which is
    supervised.
    """
    config = replace(
        small_pipeline.TINY,
        gan={"condition": condition, "steps": 3},
        evaluate={"rows": ("S1", "S1 + generated")},
    )
    honest = pipeline.run(config, demo_world / f"honest-{condition}", "cpu")
    build = splits.build_sets

    def blind(config):
        sets = build(config)
        s = sets["S3"]
        gone = np.full_like(s.x_label, -1) if not read else (s.x_label + 1) % 6
        return sets | {"S3": SampleSet(s.x, gone, s.x_subject, s.y, gone, s.y_subject, s.paired)}

    monkeypatch.setattr(splits, "build_sets", blind)
    other = pipeline.run(config, demo_world / f"blind-{condition}", "cpu")
    assert (small_pipeline.weights(other) == small_pipeline.weights(honest)) == (not read)
    if not read:
        assert other.json("results")["augmentation"] == honest.json("results")["augmentation"]


def test_a_failure_is_recorded_in_words(demo_world, monkeypatch):
    def broken(*a, **k):
        raise RuntimeError("the losses became infinite")

    monkeypatch.setattr(gan_training, "train_gan", broken)
    with pytest.raises(RuntimeError):
        pipeline.run(small_pipeline.TINY, demo_world / "failed", "cpu")
    row = store.list_runs(demo_world / "failed")[0]
    assert row["state"] == "failed"
    assert row["error"] == "the losses became infinite"
    assert "Traceback" in (demo_world / "failed" / row["run"] / "log.txt").read_text()


def test_asking_for_a_card_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(pipeline.DeviceError, match="--device cpu"):
        pipeline.choose_device("cuda")
    assert pipeline.choose_device("auto").type == "cpu"


def test_running_out_of_memory_names_the_batch_that_fits(demo_world, monkeypatch):
    from core.models import gan

    real = gan.step

    def hungry(state, g, x, *rest):
        if len(x) > 4:
            raise torch.OutOfMemoryError("too large")
        return real(state, g, x, *rest)

    monkeypatch.setattr(gan, "step", hungry)
    with pytest.raises(files.UserError, match=r"batch 16; use --gan\.batch 4"):
        pipeline.run(small_pipeline.TINY, demo_world / "hungry", "cpu")


def test_a_shipped_run_needs_no_corpus(demo_world, finished_run, tmp_path, monkeypatch):
    shipped = export.ship_run(finished_run, tmp_path / "shipped")
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "none"))
    assert not (shipped / "state.pt").exists()
    assert not (shipped / "models" / "D.safetensors").exists()
    card = (shipped / "CARD.md").read_text()
    assert "must not be used" in card
    assert splits.SET_NAMES
    assert "MIT" in card
    run = store.resolve("tiny", "cp", tmp_path / "shipped")
    opened = generation.load_run(run)
    face = np.random.default_rng(0).integers(0, 255, (28, 28)).astype(np.uint8)
    explanation = generation.explain_face(opened, face)
    assert explanation.softmax.sum() == pytest.approx(1)
    c, told = generation.condition_of(opened, explanation)
    assert "p-values" in told
    y = generation.generate_voices(opened, face, c, seed=5, n=3)
    assert y.shape == (3, 112, 28)
    assert np.array_equal(y, generation.generate_voices(opened, face, c, seed=5, n=3))
    assert not np.array_equal(y[0], generation.generate_voices(opened, face, c, seed=6)[0])
    assert generation.classify_samples(opened, y)["scorer"].shape == (3, 6)
    sound = generation.to_audio(opened, y[0])
    assert sound.wav[:4] == b"RIFF"
    assert set(generation.siblings(run)) == {"cp"}


def test_an_f_s_of_several_networks_goes_the_whole_way(demo_world, tmp_path):
    """From training to a shipped copy, and measured again from its weights."""
    ours = {k: v for k, v in presets.OUR_FACES.items() if k != "steps"} | {"channels": (4, 8)}
    config = replace(small_pipeline.TINY, name="several", f_s=ours | {"networks": 3})
    run = pipeline.run(config, demo_world / "runs", "cpu")
    checks.check(run)
    assert len(networks.load(run.model_path("f_S")).members) == 3
    before = run.json("results")["quality"]["FID"]
    assert quality.measure_again(run, torch.device("cpu"))["quality"]["FID"] == pytest.approx(
        before
    )
    opened = generation.load_run(Run(export.ship_run(run, tmp_path / "shipped")))
    x, out = splits.build_sets(config)["S3"].x[:4], run.arrays()
    for row, face in enumerate(np.rint((x + 1) * 127.5).astype(np.uint8)):
        explained = generation.explain_face(opened, face)
        assert explained.softmax == pytest.approx(out["o_S3"][row], abs=1e-5)


def test_explain_is_the_conformal_predictor_of_the_outputs(demo_world, finished_run):
    """A face of S3 gets in the studio the p-values that the pipeline stored for it."""
    opened, sets, out = (
        generation.load_run(finished_run),
        splits.build_sets(small_pipeline.TINY),
        finished_run.arrays(),
    )
    for row in (0, 7, 20):
        face = np.rint((sets["S3"].x[row] + 1) * 127.5).astype(np.uint8)
        assert generation.explain_face(opened, face).softmax == pytest.approx(
            out["o_S3"][row], abs=1e-5
        )
        assert generation.explain_face(opened, face).p == pytest.approx(
            out["p_S3"][row], abs=1 / len(out["calibration"]) + 1e-9
        )


def test_generate_from_a_real_clip(demo_world, finished_run, tmp_path, shared_data):
    from core.media.faces.landmarker import model_path

    model = (
        model_path()
    )  # fetched once into the real checkpoints folder, then seen from the test's own
    (finished_run.directory.parent / model.name).write_bytes(model.read_bytes())
    clip = shared_data / "crema-d" / "VideoFlash" / "1001_DFA_HAP_XX.flv"
    done = small_pipeline.core(
        "generate",
        clip,
        "--run",
        finished_run.id,
        "--out",
        tmp_path,
        DACSSGAN_CHECKPOINTS=finished_run.directory.parent,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert sum(facts["softmax"].values()) == pytest.approx(1, abs=1e-4)
    assert max(facts["p-values"].values()) == pytest.approx(facts["credibility"], abs=1e-6)
    assert 0 <= facts["confidence"] <= 1
    y = np.load(next(tmp_path.glob("*.npy")))
    wave, rate = soundfile.read(next(tmp_path.glob("*.wav")), dtype="float32")
    assert rate == 16_000
    correlation, error = spectrograms.resynthesis_agreement(
        y, wave, facts["logmel"]["ref_db"], LogMel(), facts["sound"]["gain_db"]
    )
    assert (
        -1 <= correlation <= 1
    )  # a G of six steps draws next to nothing; test_shipped has the marks
    assert error == pytest.approx(facts["sound"]["error_db"], abs=0.5)
    assert next(tmp_path.glob("*.png")).stat().st_size > 10_000


def _status(arguments) -> int:
    """The exit status of a command in this process."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as e:
        return int(e.code or 0)


def test_the_command_line_fails_in_one_line(tmp_path, monkeypatch, capsys):
    for name in ("DACSSGAN_CHECKPOINTS", "DACSSGAN_DATA"):
        monkeypatch.setenv(name, str(tmp_path))
    text = tmp_path / "clip.mp4"
    text.write_text("no film")
    for arguments, words in (
        (["generate", text, "--run", "nothing"], "no run 'nothing'"),
        (["generate", tmp_path / "none.mp4"], "does not exist"),
        (["data", "prepare", "ravdess"], "--source"),
        (["evaluate", "nothing"], "no run"),
        (["fly"], "Available subcommands: data, train"),
    ):
        assert _status(arguments) != 0
        said = capsys.readouterr().err
        assert words in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    "command", [["train"], ["generate"], ["data", "prepare"], ["evaluate"], ["runs"]]
)
def test_help_of_each_command(command, capsys):
    assert _status([*command, "--help"]) == 0
    assert len(capsys.readouterr().out) > 300


def test_training_on_prepared_arrays_needs_only_torch_numpy_and_safetensors(demo_world):
    """So that it runs on a bare GPU machine to which the arrays are carried."""
    program = """
import sys
for name in ("scipy", "av", "PIL", "librosa", "soundfile", "joblib", "skimage", "pandas", "sklearn",
             "matplotlib", "plotly", "streamlit", "tyro", "ai_edge_litert", "tqdm"):
    sys.modules[name] = None  # importing it now fails
from core.experiments import pipeline
from core.config.settings import Config
from core.config.serialisation import from_dict
import json, pathlib
config = from_dict(Config, json.loads(sys.argv[1]))
print(pipeline.run(config, pathlib.Path(sys.argv[2]), "cpu").json("results")["labels"])
"""
    from core.config.serialisation import to_dict

    command = [
        sys.executable,
        "-c",
        program,
        json.dumps(to_dict(small_pipeline.TINY)),
        str(demo_world / "bare"),
    ]
    done = subprocess.run(
        command,
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "strict"


def test_a_joint_q_is_the_trained_one_when_a_run_resumes_in_its_evaluation(demo_world):
    joint = {"q_training": "joint", "q_labels": "true", "condition": "none"}
    config = replace(small_pipeline.TINY, gan=joint)
    run = pipeline.run(config, demo_world / "joint", "cpu")
    first, q = run.json("results"), run.model_path("Q").read_bytes()
    (run.directory / "results.json").unlink()
    again = pipeline.run(config, demo_world / "joint", "cpu")
    assert again.json("results") == first
    assert again.model_path("Q").read_bytes() == q


def test_a_baseline_is_trained_on_what_its_settings_name(demo_world, monkeypatch):
    from core.data.corpora import CorpusError
    from core.models import classifiers

    fit, sizes = classifiers.fit, []
    monkeypatch.setattr(classifiers, "fit", lambda x, *a: sizes.append(len(x)) or fit(x, *a))
    for share in (1.0, 0.3):
        config = replace(small_pipeline.TINY, data={"clf_fraction": share})
        pipeline.baselines(config, 1, "voice", "cpu")
    assert sizes[1] == round(0.3 * sizes[0])
    elsewhere = replace(small_pipeline.TINY, data={"f_s_corpus": "is-not-here"})
    with pytest.raises(CorpusError, match="is-not-here"):
        pipeline.baselines(elsewhere, 1, "face", "cpu")
