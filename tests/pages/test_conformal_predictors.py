"""The page Conformal opens on a run's own predictor, of any kind, and tells what strange means."""

from __future__ import annotations

import numpy as np
import pytest

from core import files
from core.config.settings import replace
from core.conformal import analysis, calibration, prediction, predictor
from core.data.demo import actors
from core.evaluation.reporting import calibration_share
from core.experiments import pipeline
from core.inference import strangeness
from core.paper import equations
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import open_page, page_text
from ui.conformal import calibration as lab
from ui.conformal import explanations, export, settings, validity_figures

KINDS = ("head", "cross", "full")


@pytest.fixture(scope="module")
def kinds_home(tmp_path_factory):
    """A home with a finished run of each kind of predictor, class-conditional with hinge."""
    folder = trained_runs.trained_home(tmp_path_factory.getbasetemp() / "trained")
    home = trained_runs.copy_home(folder, tmp_path_factory.mktemp("kinds"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in trained_runs.home_environment(home).items():
            patch.setenv(name, value)
        for kind in KINDS:
            conformal = {"kind": kind, "measure": "hinge", "groups": "class"}
            config = replace(trained_runs.TINY_CONFIG, name=kind, conformal=conformal)
            pipeline.run(config, device="cpu")
    return home


@pytest.fixture
def own_kinds(home, kinds_home):
    return trained_runs.copy_home(kinds_home, home)


def run_named(name: str) -> Run:
    rows = [r["run"] for r in store.list_runs() if r["name"] == name and r["condition"] == "cp"]
    return Run(files.checkpoints_folder() / rows[0])


# ------------------------------------------------------------------ the run's own predictor


@pytest.mark.parametrize("kind", KINDS)
def test_it_opens_on_the_predictor_that_fed_the_generator(own_kinds, kind):
    run = run_named(kind)
    p = run.arrays()["p_S4"]
    name = predictor.of_run(run).name
    for row in (0, 5):
        app = open_page("conformal", run=run.id, step="set", row=str(row))
        assert not app.error
        best, second = np.sort(p[row])[[-1, -2]]
        assert [m.value for m in app.metric] == [f"{best:.3f}", f"{1 - second:.3f}"]
        assert f"The run's own predictor, whose p-values fed its generator: {name}" in page_text(
            app
        )
    assert (predictor.CROSS_PROMISE in page_text(app)) == (kind == "cross")
    assert f"python -m core conformal {run.id} --eps 0.1" in page_text(app)
    # every other step holds, and the fractions are the p-values
    for step in ("chain", "map", "promise", "broken", "strange"):
        assert not open_page("conformal", run=run.id, step=step, row="5").error
    app = open_page("conformal", run=run.id, step="area", row="5")
    assert f"**{p[5].max():.4f}**" in page_text(app)
    assert ("Algorithm 1: the head is fitted again" in page_text(app)) == (kind == "full")


def test_the_laboratory_says_that_other_settings_are_not_the_runs_own(own_kinds):
    run = run_named("full")
    app = open_page("conformal", run=run.id, step="set", row="2", predictor="inductive")
    assert "These are not the run's own p-values" in page_text(app)
    assert app.segmented_control(key="lab measure").value == "hinge"  # the run's own at first
    assert app.segmented_control(key="lab groups").value == "class"
    assert "--predictor inductive" in page_text(app)
    # an inductive run says it of another measure alone
    tiny = run_named("tiny")
    assert "These are not" not in page_text(open_page("conformal", run=tiny.id, step="set"))
    app = open_page("conformal", run=tiny.id, step="set", measure="hinge")
    assert "These are not the run's own p-values" in page_text(app)


def test_a_point_by_the_runs_own_predictor_has_its_scores(own_kinds):
    for kind in KINDS:
        data = calibration.data_from_run(run_named(kind))
        v = analysis.analyse_outputs(data, own=True)
        point = lab.test_point(v, 3)
        shares = [
            [(np.sum(s >= a) + 1) / (len(s) + 1) for a, s in zip(f.alpha, f.scores)]
            for f in point.folds
        ]
        assert np.mean(shares, axis=0) == pytest.approx(v.p[3])
        for k in range(len(v.problem.classes)):
            assert f"{v.p[3, k]:.4f}" in explanations.p_value_text(point, k, "x", False)
        scale = lab.credibility_scale(v)
        assert prediction.credibility(v.p).min() >= scale.low - 1e-9
    assert export.panel_files(v, point)["panels.pdf"][:5] == b"%PDF-"  # of the last kind, full CP


# ------------------------------------------------------------------ strange points


def test_pictures_that_are_no_face_are_seeded_and_flagged_by_distance():
    pictures = strangeness.strange_pictures()
    again = strangeness.strange_pictures()
    assert all(np.array_equal(pictures[k], again[k]) for k in pictures)
    assert all(x.shape == (28, 28) and x.dtype == np.uint8 for x in pictures.values())
    assert not np.array_equal(strangeness.cat_picture(1), strangeness.cat_picture(2))
    f = strangeness.fit_distances(("neutral", "happy", "sad", "surprise"))
    assert f.classes == ("neutral", "happy", "sad")  # no drawn face is surprised
    cats = [strangeness.cat_picture(i) for i in range(5)]
    noise = [strangeness.noise_picture(i) for i in range(5)]
    best = prediction.credibility(strangeness.distance_p_values(f, np.stack([*cats, *noise])))
    assert best.tolist() == [prediction.min_p_value(len(f.alpha))] * 10
    # other takes of the drawn people are usual
    takes = [t for t in actors.list_takes(2) if t.number == 1 and t.emotion == "happy"]
    drawn = np.stack([strangeness.draw_face(t) for t in takes])
    assert np.median(prediction.credibility(strangeness.distance_p_values(f, drawn))) > 0.3


def test_the_step_on_strangeness_opens_with_hinge_and_shows_what_margin_misses(own_kinds):
    run = run_named("tiny")
    app = open_page("conformal", run=run.id, step="strange")
    assert app.segmented_control(key="lab measure").value == "hinge"
    text = page_text(app)
    assert "**distance to drawn faces** flags noise, other noise, a cat, a white square" in text
    assert "Why margin misses it" in text
    assert "possible for this classifier" in text
    # other steps keep the run's own
    app.segmented_control(key="lab step").set_value("set").run()
    assert app.segmented_control(key="lab measure").value == "margin"


def test_sliders_stand_only_in_steps_that_they_change(own_trained_home):
    run = trained_runs.the_run()
    for step in explanations.LESSON_STEPS:
        app = open_page("conformal", run=run.id, step=step, eps="0.3", r="0.2")
        state = app.session_state
        assert ("lab eps" in state) == (step in ("set", "strange", "promise", "broken")), step
        assert ("lab r" in state) == (step not in ("strange", "generator")), step
        if step != "generator":  # the address is kept where no slider shows it
            text = page_text(app)
            assert "--eps 0.3" in text, step
            assert ("--r 0.2" in text) == (step != "strange"), step


def test_an_empty_set_is_not_called_strange():
    point = lab.Point("x", np.full(2, 0.5), None, np.array([0.1, 0.05]), None, None)
    text = explanations.prediction_text(point, ("a", "b"), 0.2)
    assert "no label fits" in text
    assert "unlike" not in text


def test_a_button_opens_a_point_that_no_label_fits_or_says_why_there_is_none(own_kinds):
    run = run_named("tiny")
    v = analysis.analyse_outputs(calibration.data_from_run(run))
    best = prediction.credibility(v.p)
    assert best.min() > 0.05
    app = open_page("conformal", run=run.id, **{"from": "test", "eps": "0.05"})
    app.button(key="sight No label fits").click().run()
    words = app.info[0].value
    assert f"the lowest credibility is {best.min():.2f}" in words
    assert f"none below {lab.credibility_scale(v).low:.2f} is possible" in words
    eps = f"{np.ceil(best.min() * 100 + 1) / 100:g}"
    app = open_page("conformal", run=run.id, **{"from": "test", "eps": eps})
    app.button(key="sight No label fits").click().run()
    row = app.number_input(key="lab row").value
    assert best[row] == best.min()
    assert (v.p[row] <= float(eps)).all()
    assert settings.no_empty_set_text(v, 0.05) == words


# ------------------------------------------------------------------ words and figures


def test_terms_are_defined_where_they_first_stand(own_kinds):
    run = run_named("tiny")
    for step, term in (
        ("chain", "**calibration set** is points of known"),
        ("promise", "drawn al"),
    ):
        app = open_page("conformal", run=run.id, step=step)
        assert term in page_text(app).replace("\n", " ")
        assert explanations.first_paragraph(step) in page_text(app)
    for step in explanations.LESSON_STEPS:
        assert len(explanations.first_paragraph(step)) > 60


def test_verdicts_promise_nothing_for_new_people():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, 400)
    o = rng.dirichlet(np.ones(3), 400) * 0.6 + 0.4 * np.eye(3)[label]
    people = np.array([f"p{i}" for i in rng.integers(0, 3, 400)])
    data = calibration.CalibrationData(
        *("x", ("a", "b", "c"), o[:200], label[:200], o[200:], label[200:]),
        *(people[:200], np.char.add("q", people[200:])),
    )
    words = explanations.validity_text(analysis.analyse_outputs(data))
    assert "for these points;** nothing follows for new people (3 calibrate, 3 test)" in words
    # marks of one eps are told from curves over all
    v = analysis.analyse_outputs(data, eps=0.2)
    moved = [
        replace_error(c, 0.2, float(c.upper[20]) + 0.1) if i == 0 else replace_error(c, 0.4, 1.0)
        for i, c in enumerate(v.by_class)
    ]
    words = explanations.worst_curve_text(tuple(moved), "class", 0.2)
    assert "At some ε or other, 3 of 3 curves leave the band" in words
    assert "At ε = 0.2 alone, which the marks at the right show, 1 do" in words


def replace_error(curve, eps: float, value: float):
    """The curve with another error at one eps, and outside of its band there."""
    import dataclasses

    error = np.clip(curve.error, curve.lower, curve.upper)
    error[round(eps * 100)] = value
    return dataclasses.replace(curve, error=error, above=0.1, above_at=eps, below=0.0)


def test_small_bins_are_grey_and_joined_by_no_line():
    rng = np.random.default_rng(0)
    o = rng.dirichlet(np.ones(3) * 0.5, 500)
    label = np.array([rng.choice(3, p=row) for row in o])
    o[0] = (0.34, 0.33, 0.33)
    data = calibration.CalibrationData(
        "x", ("a", "b", "c"), o[250:], label[250:], o[:250], label[:250]
    )
    v = analysis.analyse_outputs(data)
    r = v.reliability["width"]
    few, enough = (validity_figures.reliability_diagram(v).data[i] for i in (1, 2))
    assert few.marker.color == validity_figures.GREY != enough.marker.color
    assert (few.mode, enough.mode) == ("markers", "lines+markers")
    assert (np.array(few.customdata) < 10).all()
    assert (np.array(enough.customdata) >= 10).all()
    assert len(few.x) + len(enough.x) == (r.count > 0).sum()
    high = np.array(enough.y) + np.array(enough.error_y.array)
    assert high == pytest.approx(r.high[r.count >= 10], abs=1e-3)


def test_right_predictions_are_drawn_over_wrong_ones(own_kinds):
    from ui.conformal import p_value_figures

    v = analysis.analyse_outputs(calibration.data_from_run(run_named("tiny")))
    figure = p_value_figures.point_map(v, 0.5, 0.5)
    names = [t.name for t in figure.data if t.type == "scattergl"]
    assert names[0].startswith("prediction wrong")
    assert names[1].startswith("prediction right")
    # and no empty set is promised where none is possible
    for low, there in ((0.0, "no label fits"), (0.42, "lowest possible credibility: 0.42")):
        figure = p_value_figures.point_map(v, 0.5, 0.5, low)
        words = " ".join(a.text for a in figure.layout.annotations)
        assert there in words
        assert ("no label fits" in words) == (low == 0)


def test_algorithm_1_leads_to_the_comparison_with_full_cp(own_kinds):
    (entry,) = [e for e in equations.PAPER_MAP if e.tag == "Alg. 1"]
    assert entry.page == "conformal?step=broken&limit=full"
    app = open_page("conformal", run=run_named("full").id, step="broken", limit="full")
    assert app.segmented_control(key="lab limit").value == "full"
    assert "The light head reads f_S's features" in page_text(app)
    assert len(app.get("plotly_chart")) == 1
    # outputs without features, as an upload's: the head reads the softmax
    o = np.random.default_rng(0).dirichlet(np.ones(3), 90)
    label = np.arange(90) % 3
    data = calibration.CalibrationData("x", ("a", "b", "c"), o, label, o, label)
    features = lab.standardised_logarithm(o)
    pairs = calibration_share.held_back(calibration_share.Points(o, features, label), 1, 20, 0)
    found = calibration_share.compare(pairs)
    assert "the logarithm of the softmax" in explanations.comparison_text(found, data)
    assert validity_figures.predictor_comparison(found, 0.1).data[0].y[-1] == found[-1].name
