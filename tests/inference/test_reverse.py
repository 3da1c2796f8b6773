"""§4.5 and §4.7 as settings: voices to faces, f_S of another corpus, all frames of a clip."""

import json
import os
from dataclasses import replace as changed
from unittest import mock

import numpy as np
import pytest
import torch

from core import files
from core.config.presets import DEMO
from core.config.serialisation import config_hash
from core.config.settings import Config, replace
from core.conformal import calibration
from core.data import prepared_corpora, splits
from core.data.corpora import CorpusError
from core.evaluation import evaluator, protocol
from core.experiments import gan_training, pipeline
from core.inference import generation
from core.models import gan, networks
from core.models.networks import CONV_WIDTHS, ENCDEC_WIDTHS, UNET_WIDTHS
from tests.support import noise_corpora, trained_runs

SMALL = replace(
    trained_runs.TINY_CONFIG,
    name="small",
    f_t={"channels": (4, 8), "batch": 16},
    gan={"steps": 4, "batch": 16, "z": 8},
)
REVERSED = replace(SMALL, name="reversed", gan={"direction": "voice-face", "condition": "label"})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A demo corpus of noise in a home of this module's own."""
    root = tmp_path_factory.mktemp("world")
    with mock.patch.dict(os.environ, trained_runs.home_environment(root)):
        trained_runs.prepare_noise_demo()
        yield root


@pytest.fixture(scope="module")
def turned(world):
    return pipeline.run(REVERSED, device="cpu")


@pytest.fixture(scope="module")
def plain(world):
    return pipeline.run(SMALL, device="cpu")


def weights(run, *names):
    return {k: run.model_path(k).read_bytes() for k in names}


# ------------------------------------------------------------------ voice → face


@pytest.mark.parametrize(
    ("kind", "widths"), [("encdec", ENCDEC_WIDTHS), ("unet", UNET_WIDTHS), ("conv", CONV_WIDTHS)]
)
@pytest.mark.parametrize("columns", [28, 112])
def test_generators_read_voices_and_draw_faces(kind, widths, columns):
    g = changed(SMALL.gan, generator=kind)
    arguments = gan.generator_arguments(g, 6, networks.FACE_SIZE, (columns, 28))
    G = networks.build(kind, arguments).eval()
    x, z = (
        torch.randn(3, 1, columns, 28, generator=torch.Generator().manual_seed(0)),
        torch.zeros(3, 8),
    )
    faces = G(x, torch.eye(6)[:3], z)
    assert faces.shape == (3, 1, 28, 28)
    assert not torch.equal(faces, G(-x, torch.eye(6)[:3], z))
    assert "source" not in gan.generator_arguments(
        g, 6, (112, 28)
    )  # so that files of the other direction keep their bytes
    assert arguments["widths"] == list(widths["compact"])


def test_a_run_from_voices_to_faces_is_whole(turned):
    results, out, sets = turned.json("results"), turned.arrays(), splits.build_sets(REVERSED)
    assert sets["S1"].source == "voice"
    assert sets["S1"].x.shape[1:] == (112, 28)
    assert sets["S1"].y.shape[1:] == (28, 28)
    assert results["direction"] == "voice-face"
    assert set(results["augmentation"]) == set(REVERSED.evaluate.rows)
    assert np.sum(results["face"]["confusion"]) == results["N test faces"]
    assert np.sum(results["voice"]["confusion"]) == results["N test voices"]
    assert turned.arrays("generated")["y"].shape[1:] == (28, 28)
    grid = files.read_arrays(sorted((turned.directory / "samples").iterdir())[-1])
    assert grid["y"].shape == (6, 28, 28)
    f_S, f_T, Q = (networks.load(turned.model_path(k)) for k in ("f_S", "f_T", "Q"))
    with torch.no_grad():
        assert f_S(torch.zeros(1, 1, 112, 28)).shape == Q(torch.zeros(1, 1, 28, 28)).shape == (1, 6)
        assert torch.allclose(
            f_S(torch.from_numpy(sets["S4"].x[:5])[:, None]).double().softmax(1),
            torch.from_numpy(out["o_S4"][:5]),
        )
    assert [len(m.layers) for m in (f_S.trunk, f_T.trunk)] == [
        2,
        2,
    ]  # voices: all of (4, 8); faces: (16, 32, 64) but the first
    assert json.loads((turned.directory / "sets.json").read_text())["S1"]["faces"]["clips"] == len(
        sets["S1"].y
    )


def test_its_outputs_are_what_they_are_called(turned, plain):
    """The laboratory finds a run's faces and voices under their names in either direction."""
    for run, source in ((turned, "voice"), (plain, "face")):
        for modality in ("face", "voice"):
            problem, first = calibration.data_from_run(run, modality), modality == source
            assert problem.name.endswith(f"{modality}s ({'f_S' if first else 'f_T'})")
            infix = "" if first else f"{modality}_"
            assert np.array_equal(problem.o_test, run.arrays()[f"o_{infix}S4"])


def test_stop_and_resume_is_exact_in_this_direction_too(turned, world):
    calls = []

    def watch(phase, done, total, remark):
        calls.append((phase, done))

    folder = world / "stopped"
    with pytest.raises(files.StopRequested):
        pipeline.run(
            REVERSED,
            folder,
            "cpu",
            watch,
            lambda: bool(calls) and calls[-1][0].startswith("train G") and calls[-1][1] > 1,
        )
    again = pipeline.run(REVERSED, folder, "cpu")
    names = ("G", "D", "f_S", "f_T", "Q", "scorer")
    assert weights(again, *names) == weights(turned, *names)
    assert again.json("results") == turned.json("results")


def test_both_directions_share_no_classifier_by_mistake(turned, plain):
    for name in ("f_S", "f_T", "Q", "scorer"):
        assert weights(turned, name) != weights(plain, name)


def test_the_studio_makes_a_face_of_a_voice(turned, plain):
    opened, y = (
        generation.load_run(turned),
        np.random.default_rng(0).uniform(-1, 1, (112, 28)).astype(np.float32),
    )
    face = generation.generate_face(opened, y, "sad", seed=3)
    assert face.shape == (28, 28)
    assert face.dtype == np.uint8
    assert np.array_equal(face, generation.generate_face(opened, y, "sad", seed=3))
    assert not np.array_equal(face, generation.generate_face(opened, y, "sad", seed=4))
    assert not np.array_equal(face, generation.generate_face(opened, y, "angry", seed=3))
    assert not np.array_equal(face, generation.generate_face(opened, -y, "sad", seed=3))
    said = generation.explain_voice(opened, y)
    assert said.softmax.sum() == pytest.approx(1)
    assert "the voice classifier's first choice" in generation.condition_of(opened, said)[1]
    first = opened.classes[int(said.softmax.argmax())]
    assert np.array_equal(
        generation.generate_face(opened, y, seed=3),
        generation.generate_face(opened, y, first, seed=3),
    )
    with pytest.raises(ValueError, match="112×28, not 28×28"):
        generation.generate_face(opened, y[:28])
    with pytest.raises(ValueError, match="not an emotion"):
        generation.generate_face(opened, y, "calm")
    with pytest.raises(ValueError, match=r"makes voices from faces.*--gan\.direction voice-face"):
        generation.generate_face(generation.load_run(plain), y)
    for ask in (
        lambda: generation.explain_face(opened, face),
        lambda: generation.generate_voices(opened, face, np.zeros(6)),
    ):
        with pytest.raises(
            ValueError, match=r"makes faces from voices.*--gan\.direction face-voice"
        ):
            ask()


def test_what_d_sees_of_a_face_is_still_a_face():
    """Mirrored, shifted by up to two cells, brighter: cells are the face's own, plus a constant."""
    y = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0)).requires_grad_()
    a = gan.augment_faces(y, torch.Generator().manual_seed(1))
    assert a.shape == y.shape
    assert torch.equal(a, gan.augment_faces(y, torch.Generator().manual_seed(1)))
    light = [float((a[i, 0, 5:20, 5:20].mean() - y[i].mean()).detach()) for i in range(64)]
    assert 0.05 < np.std(light) < 0.2
    ramp = torch.arange(28.0).expand(64, 1, 28, 28)
    slopes = (
        gan.augment_faces(ramp, torch.Generator().manual_seed(2))[:, 0, 14, 10:18].diff(dim=1)
    ).round()
    assert 16 < int((slopes == -1).all(dim=1).sum()) < 48  # about half are mirrored
    assert ((slopes == 1).all(dim=1) | (slopes == -1).all(dim=1)).all()
    a.sum().backward()
    assert float(y.grad[:, :, 5:20, 5:20].min()) >= 1


def test_sparsity_is_of_the_target(world):
    noise_corpora.write_noise_corpus("looks", voices=False, takes=3)
    noise_corpora.write_noise_corpus("sounds", faces=False)
    apart = {"faces": "looks", "voices": "sounds", "pairing": "emotion", "g_fraction": 0.5}
    n = {
        d: splits.build_sets(replace(SMALL, data=apart, gan={"direction": d}))["S3"]
        for d in ("face-voice", "voice-face")
    }
    full = splits.build_sets(replace(SMALL, data=apart | {"g_fraction": 1.0}))["S3"]
    assert (len(n["face-voice"].x), len(n["face-voice"].y)) == (len(full.x), round(len(full.y) / 2))
    assert (len(n["voice-face"].x), len(n["voice-face"].y)) == (len(full.y), round(len(full.x) / 2))


# ------------------------------------------------------------------ f_S of another corpus


def test_f_s_learns_from_another_corpus_and_nothing_else_does(world, plain):
    noise_corpora.write_noise_corpus(
        "others", voices=False, subjects=tuple(f"q{i}" for i in range(8))
    )
    config = replace(SMALL, data={"f_s_corpus": "others"})
    assert config_hash(config, "a") != config_hash(SMALL, "a")
    assert prepared_corpora.corpus_digest(config.data).startswith(
        prepared_corpora.corpus_digest(SMALL.data) + "+"
    )
    sets = splits.build_sets(config)
    x, labels = splits.f_s_training_data(config, sets)
    assert x.shape == (48, 28, 28)
    assert np.bincount(labels).tolist() == [8] * 6
    before = {p.name for p in (files.checkpoints_folder() / ".cache").glob("*.safetensors")}
    run = pipeline.run(config, device="cpu")
    new = {
        p.name.split("-")[0]
        for p in (files.checkpoints_folder() / ".cache").glob("*.safetensors")
        if p.name not in before
    }
    assert new <= {"f_S", "f_T", "Q", "scorer"}
    assert weights(run, "f_S") != weights(plain, "f_S")
    assert weights(run, "f_T", "Q", "scorer") == weights(plain, "f_T", "Q", "scorer")
    assert np.array_equal(
        run.arrays()["label_S2"], plain.arrays()["label_S2"]
    )  # calibrated on this run's S2
    assert run.json("corpus")["f_S"]["title"] == "others"


def test_f_s_never_meets_who_is_calibrated_or_tested(world):
    """A corpus that holds people of S2, S3 and S4 gives f_S only the others."""
    sets = splits.build_sets(SMALL)
    met = sorted({str(s) for k in ("S2", "S3", "S4") for s in sets[k].x_subject})
    noise_corpora.write_noise_corpus("mixed", voices=False, subjects=(*met, "new-1", "new-2"))
    config = replace(SMALL, data={"f_s_corpus": "mixed"})
    assert len(splits.f_s_training_data(config, sets)[1]) == 2 * 6


def test_a_corpus_that_f_s_cannot_learn_from_is_named(world, turned):
    sets = splits.build_sets(SMALL)
    noise_corpora.write_noise_corpus("voiced", faces=False)
    for name, words in (
        ("nowhere", r"nowhere\.npz is not there.*prepare nowhere --source"),
        ("demo", "f_s_corpus is demo, of which the faces of S1 train f_S anyway"),
        ("voiced", "voiced, which has no face for neutral, happy"),
    ):
        with pytest.raises(CorpusError, match=words):
            splits.f_s_training_data(replace(SMALL, data={"f_s_corpus": name}), sets)
    voices = splits.f_s_training_data(
        replace(REVERSED, data={"f_s_corpus": "voiced"}), splits.build_sets(REVERSED)
    )[0]
    assert voices.shape[1:] == (112, 28)  # in the reverse direction its voices


# ------------------------------------------------------------------ all frames


def filmed(name: str, frames: int) -> None:
    """A prepared corpus of noise with further frames."""
    path = noise_corpora.write_noise_corpus(name, takes=2, frames=frames)
    arrays = files.read_arrays(path)
    n = len(arrays["faces"])
    files.write_arrays(
        path,
        **arrays,
        faces_more=np.random.default_rng(1).integers(0, 256, (n, frames - 1, 28, 28), np.uint8),
    )


@pytest.mark.parametrize("direction", ["face-voice", "voice-face"])
def test_all_frames_of_s3_are_pairs_and_a_clip_stays_one(world, direction):
    filmed("film", 3)
    whole = {"faces": "film", "voices": "film", "frames": "all"}
    config = replace(SMALL, data=whole, gan={"direction": direction})
    sets, device = splits.build_sets(config), torch.device("cpu")
    one = splits.build_sets(replace(config, data={"frames": "middle"}))
    for k in splits.SET_NAMES:
        assert np.array_equal(sets[k].x, one[k].x)
        assert (sets[k].more.shape[1] == 2) == (k == "S3")
    n = len(sets["S3"].x)
    c = {"S3": np.random.default_rng(0).random((n, 6)).astype(np.float32)}
    pool, few = (
        gan_training.make_pool(config, sets, c, device),
        gan_training.make_pool(config, one, c, device),
    )
    faces, voices = (pool.x, pool.y) if direction == "face-voice" else (pool.y, pool.x)
    assert (len(faces), len(voices)) == (3 * n, n)
    seen = set()
    for epoch in range(4):
        i, j = pool.epoch_pairs(epoch)
        assert np.array_equal(i % n, few.epoch_pairs(epoch)[0])  # the same clips as with one frame
        assert np.array_equal(j % n, few.epoch_pairs(epoch)[1])
        assert np.array_equal(i, pool.epoch_pairs(epoch)[0])
        seen |= set((i if direction == "face-voice" else j).tolist())
        assert torch.equal(pool.c[i], few.c[i % n])
        assert torch.equal(pool.target[i], few.target[i % n])
        assert torch.equal(pool.y_target[j], few.y_target[j % n])
    assert len(seen) > 2 * n
    assert max(seen) >= 2 * n
    own = sets["S3"].more[5, 1]
    assert torch.equal(faces[2 * n + 5, 0], torch.from_numpy(own))


def test_one_frame_is_not_all(world):
    with pytest.raises(CorpusError, match=r"demo was prepared with one frame.*--frames 3"):
        splits.build_sets(replace(SMALL, data={"frames": "all"}))


# ------------------------------------------------------------------ the cases


def test_the_papers_last_cases_are_cases():
    cases = {c.name: c for c in protocol.cases(DEMO, "fer2013")}
    turned, other = cases[protocol.REVERSE_CASE].config, cases["f_S of fer2013 · CP"].config
    assert replace(turned, gan={"direction": "face-voice"}) == replace(
        DEMO, gan={"condition": "label"}
    )
    assert replace(other, data={"f_s_corpus": ""}) == replace(DEMO, gan={"condition": "cp"})
    assert {c.name for c in protocol.cases(DEMO)} == set(cases) - {"f_S of fer2013 · CP"}
    assert protocol.labels_mode(turned).startswith("label-supervised")
    assert evaluator.target_settings(turned) == (DEMO.f_s, "face")
    assert evaluator.source_settings(Config()) == (Config().f_s, "face")
