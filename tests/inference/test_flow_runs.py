"""A flow's whole path: run, resume, curves, samples, guidance, long form, card, command line."""

import numpy as np
import pytest
import torch

from core import files
from core.config.settings import replace
from core.data.demo import actors, expressions
from core.experiments import pipeline
from core.inference import conditions, export, generation, long_form
from core.media.faces import alignment
from core.models import networks
from core.runs import store
from tests.support import small_pipeline

FLOW = replace(
    small_pipeline.TINY,
    name="flowing",
    gan={"generator": "flow", "heun_steps": 1, "average": 0.9, "steps": 6},
)


@pytest.fixture(scope="module", autouse=True)
def _small_networks():
    with pytest.MonkeyPatch.context() as m:
        m.setitem(networks.GENERATOR_WIDTHS, "flow", {"compact": (8, 8, 16)})
        yield


@pytest.fixture(scope="module")
def flow_runs(demo_world):
    """Finished flow runs, opened, by condition."""
    folder, found = demo_world / "flows", {}
    for condition in ("cp", "label", "none"):
        run = pipeline.run(replace(FLOW, gan={"condition": condition}), folder, "cpu")
        found[condition] = generation.load_run(run)
    return found


def face():
    return alignment.align(*expressions.render_face(actors.list_takes(1)[0]))


def test_what_a_flows_run_leaves(flow_runs):
    run = flow_runs["cp"].run
    assert sorted(p.stem for p in (run.directory / "models").iterdir()) == [
        *("G", "Q", "f_S", "f_T", "scorer")
    ]
    curves = store.load_curves(run.id, run.directory.parent)
    assert curves["FID"][0] == [0, 3, 6]
    assert "loss/G" in curves
    assert "loss/D" not in curves
    results = run.json("results")
    assert set(results["augmentation"]) == set(small_pipeline.TINY.evaluate.rows)
    assert np.isfinite(results["quality"]["FID"])
    assert results["quality"]["diversity"] > 0


@pytest.mark.parametrize("condition", ["cp", pytest.param("none", marks=pytest.mark.slow)])
def test_a_stopped_flow_resumes_to_the_same_bits(demo_world, flow_runs, condition):
    calls, folder = [], demo_world / f"stopped-flow-{condition}"
    config = replace(FLOW, gan={"condition": condition})
    with pytest.raises(files.StopRequested):
        pipeline.run(
            config,
            folder,
            "cpu",
            lambda *a: calls.append(a),
            lambda: bool(calls) and calls[-1][0] == "train G",
        )
    resumed, whole = pipeline.run(config, folder, "cpu"), flow_runs[condition].run
    for name in ("G", "Q", "scorer"):
        assert resumed.model_path(name).read_bytes() == whole.model_path(name).read_bytes()
    assert resumed.json("results") == whole.json("results")


def test_a_flow_that_should_train_q_is_refused_before_any_fit(demo_world):
    config = replace(FLOW, gan={"q_training": "joint"})
    with pytest.raises(files.UserError, match="a flow trains no Q"):
        pipeline.run(config, demo_world / "joint", "cpu")
    assert not list((demo_world / "joint").rglob("*.safetensors"))


def test_a_voice_depends_on_its_seed_alone(flow_runs):
    o = flow_runs["cp"]
    c, _ = generation.condition_of(o, generation.explain_face(o, face()))
    before = torch.get_rng_state()
    y = generation.generate_voices(o, face(), c, seed=3, n=2)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(y, generation.generate_voices(o, face(), c, seed=3, n=2))
    assert not np.array_equal(y[0], y[1])
    assert not np.array_equal(y[0], generation.generate_voices(o, face(), c, seed=4)[0])


@pytest.mark.parametrize("kind", ["cp", "label"])
def test_the_labs_own_strength_is_what_the_run_samples(flow_runs, kind):
    o = flow_runs[kind]
    assert conditions.own_strength(o.config) == o.config.gan.guidance == 2
    c = conditions.by_name(o, generation.explain_face(o, face()), "told")
    y = generation.generate_voices(o, face(), c, seed=5)
    x = face()[None]
    d = conditions.guided_samples(o, x, c[None], np.zeros(6), seed=5)
    assert d.y == pytest.approx(y, abs=1e-5)
    ways = conditions.guided_samples(o, x, c[None], np.zeros(6), np.array([0.0, 1, 2]), seed=5)
    assert ways.y[0] == pytest.approx(ways.base[0], abs=1e-5)
    assert ways.y[2] == pytest.approx(y[0], abs=1e-5)
    other = conditions.guided_samples(o, 255 - x, np.eye(6)[:1], np.ones(6), 0.0, seed=5)
    assert other.y == pytest.approx(ways.y[:1], abs=1e-5)  # told nothing: no face, c or c0 in it


def test_a_flow_that_is_told_nothing_but_the_face(flow_runs):
    o = flow_runs["none"]
    d = conditions.guided_samples(o, face()[None], np.zeros((1, 0)), np.zeros(0), seed=1)
    assert d.y == pytest.approx(generation.generate_voices(o, face(), np.zeros(0), 1), abs=1e-5)


def test_the_voice_of_a_whole_film(flow_runs):
    o, rate = flow_runs["cp"], flow_runs["cp"].config.logmel.rate
    frames = np.repeat(face()[None], 4, axis=0)
    seen = generation.AnalysedClip(
        name="film",
        times=np.arange(4) * 0.8,
        frames=np.zeros((4, 8, 8, 3), np.uint8),
        boxes=np.zeros((4, 4)),
        aligned=frames,
        found=np.ones(4, bool),
        people=1,
        waveform=np.zeros(int(2.5 * rate), np.float32),
        notes=(),
        middle=2,
    )
    p = long_form.generate_long_voice(o, seen, seed=1)
    assert len(p.crops) == long_form.count_windows(o, seen) > 1
    assert p.crops[0] == pytest.approx(p.crops[1], abs=1e-5)  # one face, one noise: one voice
    assert np.isfinite(generation.to_audio(o, p.y).wave).all()


def test_its_card_tells_it_from_the_paper(flow_runs, finished_run, tmp_path):
    target = export.ship_run(flow_runs["cp"].run, tmp_path)
    card = (target / "CARD.md").read_text()
    assert "conditional flow matching, which is ours and not the paper's" in card
    assert "guidance 2, from" in card
    shipped = generation.load_run(store.Run(target))
    assert type(shipped.G).__name__ == "FlowGenerator"
    assert "flow" not in export.model_card(finished_run)
