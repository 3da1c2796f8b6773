"""The page Condition lab: every view and state, equality with core, and hostile URLs."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from core import files
from core.config.serialisation import to_dict
from core.config.settings import CREMA_EMOTIONS, replace
from core.inference import conditions, generation
from core.media import spectrograms
from core.media.faces import landmarker
from core.models import gan, networks
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from ui.condition import figures, interpolation, point, sampling

K = len(CREMA_EMOTIONS)
DRAWN = {"face": "drawn-happy"}  # a face for which nothing has to be found


def the_run(kind: str = "cp") -> Run:
    return Run(
        files.checkpoints_folder()
        / next(r["run"] for r in store.list_runs() if r["condition"] == kind)
    )


def lab(**query: str):
    return open_page("condition", **DRAWN | query)


def values(app) -> list[float]:
    return [app.slider(key=f"cond c {k}").value for k in range(K)]


def sound(app) -> str:
    (one,) = app.get("audio")
    return one.proto.url


@pytest.fixture
def seen(monkeypatch) -> list[conditions.GuidedSamples]:
    """All samples of the page, in order.

    Sounds cannot be compared: a voice's last bits depend on its batch.
    """
    made, draw = [], conditions.guided_samples
    monkeypatch.setattr(
        conditions, "guided_samples", lambda *a, **k: made.append(draw(*a, **k)) or made[-1]
    )
    return made


def preset(app):
    return next(g for g in app.button_group if g.key == "cond preset")


def untrained(cp: Run, **settings) -> Run:
    """Add a finished run with these settings of G, which is untrained; the rest is `cp`'s."""
    config = replace(cp.config, gan=settings)
    g, size = config.gan, (config.logmel.columns, config.logmel.bands)
    arguments = gan.generator_arguments(g, K, size)
    run = Run(cp.directory.with_name(f"tiny-{g.condition}-00000000"))
    shutil.copytree(cp.directory, run.directory)
    (run.directory / "config.json").write_text(json.dumps(to_dict(config)))
    G = networks.build(g.generator, arguments)
    networks.save(run.model_path("G"), G, g.generator, arguments)
    store.reindex()
    return run


# --- states ---------------------------------------------------------------------------------------


def test_without_any_run_it_says_what_to_do(home):
    app = open_page("condition")
    assert "no trained run yet" in page_text(app)
    assert count_elements(app, "page_link") == 1
    assert count_elements(app, "plotly_chart") == 0


def test_while_the_first_training_runs_it_leads_there(home):
    child = trained_runs.start_fake_training()
    try:
        trained_runs.fabricate_run("running", pid=child.pid)
        app = open_page("condition")
        assert [e.proto.label for e in app.get("page_link")] == [
            "Train the demo",
            "A training is under way: look at it",
        ]
    finally:
        child.kill()


def test_a_failed_run_is_not_offered(home):
    trained_runs.fabricate_run("failed", error="out of memory")
    assert "no trained run yet" in page_text(open_page("condition"))


@pytest.mark.parametrize("file", ["models/G.safetensors", "outputs.npz"])
def test_a_damaged_run_is_left_out(own_trained_home, file):
    path = the_run().directory / file
    path.write_bytes(path.read_bytes()[:400])
    app = lab()
    assert app.segmented_control(key="lab condition").options == ["Label", "Classifier"]


def test_a_condition_that_is_not_trained_is_offered_for_training(own_trained_home):
    store.update(the_run("label"), state="stopped")
    app = lab()
    assert "not trained yet" in page_text(app)
    assert app.segmented_control(key="lab condition").options == ["Classifier", "CP"]


def test_without_the_landmark_model_a_drawn_face_is_offered(own_trained_home, monkeypatch):
    def missing(*_):
        raise landmarker.ModelMissing("Faces need face_landmarker.task: put it at checkpoints/")

    monkeypatch.setattr("core.inference.generation.analyse_clip", missing)
    app = open_page("condition")
    assert "put it at" in app.error[0].value
    assert_no_exception(app.button(key="to drawn").click().run())
    assert not app.error
    assert app.selectbox(key="cond face").value == "drawn-happy"
    assert count_elements(app, "audio") == 1


def test_a_generator_that_is_told_nothing_has_no_sliders(own_trained_home):
    untrained(the_run(), condition="none")
    app = lab(condition="none")
    assert "told nothing" in page_text(app)
    assert {s.key for s in app.slider} == {"cond z"}
    assert app.segmented_control(key="lab view").options == ["One condition", "Between two faces"]
    assert count_elements(app, "audio") == 1
    app = lab(condition="none", view="faces")
    assert not app.error
    assert count_elements(app, "audio") == 1
    assert (
        lab(condition="none", view="emotions", c="1,0,0").segmented_control(key="lab view").value
        == "point"
    )


# --- one condition --------------------------------------------------------------------------------


def test_it_opens_as_the_run_was_trained(own_trained_home):
    app = lab()
    o = generation.load_run(the_run())
    face = generation.explain_face(o, sampling.example_face("drawn-happy").x)
    assert preset(app).value == "told"
    assert values(app) == pytest.approx(np.round(face.p, 2))
    assert (count_elements(app, "plotly_chart"), count_elements(app, "bidi_component")) == (1, 1)
    assert count_elements(app, "audio") == 1
    assert f"credibility <b>{face.credibility:.2f}" in "".join(
        e.proto.body for e in app.get("html")
    )
    assert "It is not\nclassifier-free guidance" in page_text(app)
    assert "Keep the sum" not in [t.label for t in app.toggle]
    place = conditions.training_support(conditions.of_training(o), face.p).place
    assert point.REGION_TEXTS[place].split("**")[1] in page_text(app)


def test_the_same_seed_gives_the_voice_of_the_other_pages(own_trained_home, seen):
    lab(seed="3")
    o, face = generation.load_run(the_run()), sampling.example_face("drawn-happy").x
    c, _ = generation.condition_of(o, generation.explain_face(o, face))
    assert seen[-1].y == pytest.approx(generation.generate_voices(o, face, c, 3), abs=1e-5)


def test_a_p_value_moves_alone_and_the_view_can_be_shared(own_trained_home):
    app = lab()
    before, first = values(app), sound(app)
    assert_no_exception(app.slider(key="cond c 4").set_value(0.7).run())
    assert values(app) == pytest.approx([*before[:4], 0.7, before[5]])
    assert app.query_params["c"] in (
        ",".join(f"{v:g}" for v in values(app)),
        [",".join(f"{v:g}" for v in values(app))],
    )
    assert not preset(app).value
    assert sound(app) != first
    assert_no_exception(app.slider(key="cond strength").set_value(2.5).run())
    assert_no_exception(app.slider(key="cond z").set_value(0.4).run())
    assert_no_exception(app.button(key="cond dice").click().run())
    query = {k: v[0] if isinstance(v, list) else v for k, v in app.query_params.items()}
    assert {k: query[k] for k in ("seed", "strength", "z")} == {
        "seed": "1",
        "strength": "2.5",
        "z": "0.4",
    }
    shared = open_page("condition", **query)
    assert values(shared) == pytest.approx(values(app))
    assert sound(shared) == sound(app)


@pytest.mark.parametrize("kind", ["label", "classifier"])
def test_what_sums_to_one_keeps_doing_so_unless_it_is_let_go(own_trained_home, kind):
    app = lab(condition=kind)
    assert_no_exception(app.slider(key="cond c 0").set_value(0.6).run())
    assert values(app)[0] == 0.6
    assert sum(values(app)) == pytest.approx(1)
    before = values(app)
    assert_no_exception(app.toggle(key="cond sum").set_value(False).run())
    assert values(app) == pytest.approx(before)
    assert_no_exception(app.slider(key="cond c 1").set_value(0.9).run())
    assert values(app) == pytest.approx([before[0], 0.9, *before[2:]])
    assert f"Sum of c: **{sum(values(app)):.2f}**" in page_text(app)


def test_presets_set_the_sliders(own_trained_home):
    app = lab(condition="classifier")
    o = generation.load_run(the_run("classifier"))
    face = generation.explain_face(o, sampling.example_face("drawn-happy").x)
    for name in ("p", "fear", "uniform", "none", "softmax"):
        assert_no_exception(preset(app).set_value(name).run())
        assert values(app) == pytest.approx(np.round(conditions.by_name(o, face, name), 2)), name
        assert app.query_params["preset"] in (name, [name])
    assert_no_exception(preset(app).set_value("none").run())
    assert "Outside of training" in page_text(app)
    assert values(lab(condition="cp", preset="fear")) == pytest.approx(
        np.eye(K)[CREMA_EMOTIONS.index("fear")]
    )


def test_what_c_changes_is_a_difference(own_trained_home):
    app = lab(show="change", preset="angry")
    assert app.segmented_control(key="lab show").value == "change"
    assert "apart on average" in app.get("plotly_chart")[0].proto.spec


HOSTILE = (
    {
        "c": "nan,0,0,0,0,0",
        "preset": "own",
        "seed": "-1",
        "z": "inf",
        "strength": "nan",
        "view": "all",
        "face": "drawn-happy/../x",
    },
    {
        "c": "1e999,0,0,0,0,0",
        "preset": "../x",
        "seed": "1e3",
        "z": "nan",
        "strength": "-1",
        "base": "mode",
        "run": "../../etc",
    },
    {
        "c": "<b>," * 99,
        "preset": "<script>",
        "seed": "9" * 14,
        "z": "-1",
        "strength": "x",
        "condition": "../cp",
        "sum": "maybe",
    },
)


def test_an_address_that_makes_no_sense_is_left_aside(landmark_model):
    plain = open_page("condition")
    for query in HOSTILE:
        app = open_page("condition", **query)
        assert not app.error
        assert (values(app), sound(app)) == (values(plain), sound(plain)), query


# --- faces ----------------------------------------------------------------------------------------


def test_an_upload_is_steered_like_the_example(landmark_model):
    from skimage import data

    file = io.BytesIO()
    Image.fromarray(data.astronaut()).save(file, "PNG")
    example = sound(open_page("condition"))
    app = open_page("condition", face="upload")
    assert "Give a picture" in page_text(app)
    app.file_uploader(key="lab upload").set_value(("<b>me.png", file.getvalue(), "image/png")).run()
    assert sound(assert_no_exception(app)) == example
    app.selectbox(key="cond face").set_value("drawn-sad").run()
    app.segmented_control(key="lab view").set_value("faces").run()
    assert_no_exception(app.selectbox(key="cond other").set_value("last").run())
    assert count_elements(app, "audio") == 1


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "kind"), [("emotions", "label"), ("faces", "cp"), ("strength", "classifier")]
)
def test_every_way_shows_its_steps_and_plays_the_chosen_one(own_trained_home, view, kind):
    app = lab(view=view, condition=kind, n="8", at="1", other="drawn-sad")
    assert not app.error
    assert count_elements(app, "plotly_chart") == 1
    assert app.number_input(key="cond at").value == 1
    first = sound(app)
    assert_no_exception(app.number_input(key="cond at").set_value(8).run())
    assert app.query_params["at"] in ("8", ["8"])
    assert sound(app) != first
    assert "Step 8: the judge" in page_text(app)
    shared = lab(view=view, condition=kind, n="8", at="8", other="drawn-sad")
    assert sound(shared) == sound(app)
    assert (
        lab(view=view, n="99", at="77").number_input(key="cond at").value
        == (interpolation.DEFAULT_STEPS + 1) // 2
    )


def ends(seen: list[conditions.GuidedSamples], **query: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Face, c and voice of the first and the last point that a page draws."""
    lab(**query)
    d = seen[-1]
    return [(d.x[i], d.c[i], d.y[i]) for i in (0, -1)]


def same(a, b) -> bool:
    return all(np.allclose(p, q, atol=1e-4) for p, q in zip(a, b, strict=True))


def test_the_way_of_emotions_goes_from_end_to_end(own_trained_home, seen):
    first, last = ends(seen, view="emotions", a="sad", b="fear")
    assert same(first, ends(seen, preset="sad")[0])
    assert same(last, ends(seen, preset="fear")[0])
    assert not same(first, last)
    assert len(seen[0].y) == interpolation.DEFAULT_STEPS
    by_hand = "0.3,0.2,0.1,0.9,0,0.4"
    assert same(ends(seen, view="emotions", b="c", c=by_hand)[1], ends(seen, c=by_hand)[0])


def test_the_way_of_faces_ends_at_the_other_face(own_trained_home, seen):
    way = {"view": "faces", "other": "drawn-angry"}
    first, last = ends(seen, **way)
    assert same(first, ends(seen)[0])
    assert same(last, ends(seen, face="drawn-angry")[0])
    (_, told, _), (x, held, _) = ends(seen, follow="held", **way)
    assert np.array_equal(x, last[0])
    assert np.array_equal(held, told)


def test_the_way_of_guidance_begins_without_c(own_trained_home, seen):
    lab(view="strength", preset="sad")
    way = seen[-1]
    assert way.strength == pytest.approx(
        np.linspace(0, sampling.MAX_GUIDANCE, interpolation.DEFAULT_STEPS)
    )
    assert way.y[0] == pytest.approx(ends(seen, strength="0", preset="happy")[0][2], abs=1e-4)
    assert way.y[-1] == pytest.approx(ends(seen, strength="4", preset="sad")[0][2], abs=1e-4)


def test_a_flow_is_guided_classifier_free(own_trained_home, seen, monkeypatch):
    """Its weight is the run's own at first; the way begins where neither face nor c has effect."""
    monkeypatch.setitem(networks.GENERATOR_WIDTHS, "flow", {"compact": (8, 8, 16)})
    run = untrained(the_run(), generator="flow", heun_steps=1, guidance=1.5)
    app = lab(run=run.id)
    assert app.slider(key="cond weight").value == 1.5
    assert not [s for s in app.slider if s.key == "cond strength"]
    assert "Guidance of a flow" in page_text(app)
    opened = generation.load_run(run)
    c, _ = generation.condition_of(opened, generation.explain_face(opened, seen[-1].x[0]))
    y = generation.generate_voices(opened, seen[-1].x[0], c)
    assert seen[-1].y == pytest.approx(y, abs=1e-4)
    way = lab(run=run.id, view="strength")
    assert "where face and c have no effect" in page_text(way)
    assert seen[-1].y[0] == pytest.approx(seen[-1].base[0], abs=1e-4)


# --- figures --------------------------------------------------------------------------------------


def drawn(n: int = 12, k: int = K) -> conditions.GuidedSamples:
    rng = np.random.default_rng(0)
    o = rng.dirichlet(np.ones(K), (3, n))
    y = rng.uniform(-1, 1, (n, 112, 28)).astype(np.float32)
    return conditions.GuidedSamples(
        rng.integers(0, 256, (n, 28, 28), np.uint8), o[0][:, :k], np.ones(n), y, y, o[1], o[2]
    )


@pytest.mark.parametrize("faces", [False, True])
@pytest.mark.parametrize("k", [K, 0])
def test_a_strip_moves_in_the_browser_and_is_light_on_the_wire(faces, k):
    d, s = drawn(16, k), trained_runs.TINY_CONFIG.logmel
    figure = figures.interpolation_strip(
        d, CREMA_EMOTIONS, 4, np.linspace(0, 1, 16), "share of the second end", -10.0, s, faces
    )
    assert (
        [f.name for f in figure.frames]
        == [step.label for step in figure.layout.sliders[0].steps]
        == [str(i + 1) for i in range(16)]
    )
    assert figure.layout.sliders[0].active == 4
    moved = figure.frames[9]
    big, *cursors, around = (figure.data[i] for i in moved.traces)
    assert np.array_equal(big.z, np.rint(spectrograms.unscale(d.y[4], -10.0, s)).T)
    assert np.array_equal(moved.data[0].z, np.rint(spectrograms.unscale(d.y[9], -10.0, s)).T)
    assert {c.x[0] for c in cursors} == {4 / 15}
    assert {c.x[0] for c in moved.data[1:3]} == {9 / 15}
    assert np.mean(moved.data[3].x[:4]) == pytest.approx(9)
    assert np.mean(around.x[:4]) == pytest.approx(4)
    assert len(figure.to_json()) < 250_000


def test_every_chart_names_its_axes():
    d, s = drawn(), trained_runs.TINY_CONFIG.logmel
    known = conditions.summarise_rows(d.c)
    for figure in (
        figures.condition_and_verdicts(CREMA_EMOTIONS, d.c[0], known, d.Q[0], d.scorer[0]),
        figures.interpolation_strip(
            d, CREMA_EMOTIONS, 0, np.linspace(0, 4, 12), "guidance strength s", 0.0, s
        ),
    ):
        layout = figure.to_dict()["layout"]
        axes = [v for k, v in layout.items() if k.startswith(("xaxis", "yaxis"))]
        shared = [a for a in axes if a.get("matches")]
        assert all(a.get("title", {}).get("text") for a in axes if a not in shared), axes
    bars = {
        bar.name: bar
        for bar in figures.condition_and_verdicts(
            CREMA_EMOTIONS, d.c[0], known, d.Q[0], d.scorer[0]
        ).data
    }
    assert np.array_equal(bars["Q"].x, d.Q[0])
    assert np.array_equal(bars["judge"].x, d.scorer[0])
    assert np.array_equal(bars["training: mean and range"].x, known.mean)
    assert bars["training: mean and range"].error_x.array == pytest.approx(known.high - known.mean)
