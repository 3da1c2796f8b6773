"""The page Conformal by AppTest: every step and state, core's numbers, and hostile uploads."""

from __future__ import annotations

import inspect
import io
import shlex
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from core import files
from core.config.presets import SMOKE
from core.config.settings import replace
from core.conformal import analysis, calibration, prediction
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from ui.conformal import calibration as lab
from ui.conformal import explanations, export, p_value_figures, validity_figures
from ui.conformal.calibration import AnalysisSettings
from ui.widgets import charts, choices

STEPS = list(explanations.LESSON_STEPS)


def the_run(condition: str = "cp") -> Run:
    return Run(
        files.checkpoints_folder()
        / next(r["run"] for r in store.list_runs() if r["condition"] == condition)
    )


def outputs(n: int = 60, m: int = 90, seed: int = 0) -> calibration.CalibrationData:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n + m)
    o = rng.dirichlet(np.ones(3), n + m) * 0.6 + 0.4 * np.eye(3)[label]
    return calibration.CalibrationData("own", ("a", "b", "c"), o[:n], label[:n], o[n:], label[n:])


def npz(problem: calibration.CalibrationData, **more: np.ndarray) -> bytes:
    file, p = io.BytesIO(), problem
    parts = {
        "cal_softmax": p.o_cal,
        "cal_labels": p.label_cal,
        "test_softmax": p.o_test,
        "test_labels": p.label_test,
    }
    np.savez(file, **(parts | {"classes": np.array(p.classes)} | more))
    return file.getvalue()


def given(content: bytes, name: str = "own.npz", **query: str):
    app = open_page("conformal", source="own", **query)
    app.file_uploader(key="lab file").set_value((name, content, "application/octet-stream")).run()
    return assert_no_exception(app)


def test_without_any_run_it_says_what_to_do(home):
    app = open_page("conformal")
    assert "no trained run yet" in page_text(app)
    assert count_elements(app, "plotly_chart") == 0


def test_a_run_without_outputs_says_what_is_missing(home):
    run = trained_runs.fabricate_run("stopped")
    app = open_page("conformal", run=run.id)
    assert "outputs.npz has no face outputs" in app.error[0].value
    assert count_elements(app, "plotly_chart") == 0


def test_a_run_with_damaged_outputs_is_left_out(own_trained_home):
    damaged = the_run().id
    file = the_run().directory / "outputs.npz"
    file.write_bytes(file.read_bytes()[:500])
    assert damaged not in page_text(open_page("conformal", run=damaged, row="3"))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("modality", ["face", "voice"])
def test_every_step_of_a_run_works_on_its_test_points(own_trained_home, step, modality):
    app = open_page("conformal", step=step, row="2", modality=modality)
    if modality == "voice" and step in explanations.FACE_STEPS:
        assert app.segmented_control(key="lab step").value == "chain"  # these need faces
        return
    assert app.segmented_control(key="lab step").value == step
    assert not app.error
    assert count_elements(app, "plotly_chart") == (step != "generator")
    point = lab.test_point(
        analysis.analyse_outputs(calibration.data_from_run(the_run(), modality)), 2
    )
    if step in ("chain", "area", "set", "map"):
        assert (
            f"Test point 2 · {calibration.data_from_run(the_run(), modality).subject_test[2]}"
            in page_text(app)
        )
    if step == "set":
        assert [m.value for m in app.metric] == [
            f"{point.credibility:.3f}",
            f"{point.confidence:.3f}",
        ]
    if step == "area":
        k, a = point.prediction, point.ranking
        fraction = f"({a.above[k] + a.equal[k]} + 1) / ({a.n[k]} + 1)"
        assert f"{fraction} = **{point.p[k]:.4f}**" in page_text(app)
    if step == "generator":
        assert "needs a picture" in page_text(app)


def test_every_look_at_promise_and_limits(own_trained_home):
    for name, step, looks in (
        ("look", "promise", ("curve", "uniform", "class", "subject", "criteria")),
        ("limit", "broken", ("people", "sizes", "softmax")),
    ):
        for look in looks:
            app = open_page("conformal", step=step, **{name: look})
            assert app.segmented_control(key=f"lab {name}").value == look
            assert not app.error
            if look == "criteria":
                assert len(app.dataframe) == 1
            elif look == "subject":
                assert count_elements(
                    app, "plotly_chart"
                ) == 1 or "no curves by subject" in page_text(app)
            else:
                assert count_elements(app, "plotly_chart") == 1


def test_a_face_goes_through_all_steps_to_three_voices(landmark_model):
    app = open_page("conformal", step="generator")
    assert count_elements(app, "audio") == 3
    assert (count_elements(app, "plotly_chart"), count_elements(app, "bidi_component")) == (
        1,
        3,
    )  # the differences; three spectrograms
    assert "no error rate" in page_text(open_page("conformal"))
    assert "astronaut.png" in page_text(open_page("conformal", step="set"))


def test_without_the_landmark_model_test_points_are_offered(own_trained_home, monkeypatch):
    from core.media.faces import landmarker

    def missing(*_):
        raise landmarker.ModelMissing("Faces need face_landmarker.task")

    monkeypatch.setattr("core.inference.generation.analyse_clip", missing)
    app = open_page("conformal")
    assert "face_landmarker.task" in app.error[0].value
    app.button(key="to test").click().run()
    assert "Test point" in page_text(assert_no_exception(app))
    assert not app.error


def test_every_setting_changes_the_view_and_the_address(own_trained_home):
    app = open_page("conformal", step="set", row="1")
    app.segmented_control(key="lab measure").set_value("hinge").run()
    app.segmented_control(key="lab groups").set_value("class").run()
    app.query_params["r"], app.query_params["eps"] = (
        "0.4",
        "0.2",
    )  # as the rails do when they are let go
    app.toggle(key="lab smoothed").set_value(True).run()
    assert_no_exception(app.number_input(key="lab seed").set_value(3).run())
    choice = AnalysisSettings("hinge", "class", True, 0.4, 0.2, 3)
    v = analysis.analyse_outputs(calibration.data_from_run(the_run()), **vars(choice))
    point = lab.test_point(v, 1)
    assert [m.value for m in app.metric] == [f"{point.credibility:.3f}", f"{point.confidence:.3f}"]
    kept = {
        k: app.query_params[k] for k in ("measure", "groups", "r", "eps", "smoothed", "seed", "row")
    }
    expected = {"measure": "hinge", "groups": "class", "r": "0.4", "eps": "0.2"}
    expected |= {"smoothed": "True", "seed": "3", "row": "1"}
    assert {k: v[0] if isinstance(v, list) else v for k, v in kept.items()} == expected
    again = open_page("conformal", step="set", **kept)
    assert [m.value for m in again.metric] == [m.value for m in app.metric]
    assert lab.command_line(the_run().id, "face", choice) in page_text(again)


def test_hostile_addresses_are_ignored(own_trained_home):
    bad = {
        "run": "../../etc",
        "source": "x",
        "modality": "\x00",
        "measure": "<b>",
        "groups": "attribute",
    }
    bad |= {"smoothed": "maybe", "r": "nan", "eps": "1e999", "seed": "-1"}
    app = open_page(
        "conformal",
        **bad,
        row="99999999999",
        step="../x",
        look="y",
        **{"from": "file:///etc/passwd", "label": "$\\input$"},
    )
    assert app.segmented_control(key="lab step").value == "chain"
    later = open_page("conformal", step="set", eps="1e999")
    assert later.session_state["lab eps"] == 0.1
    assert app.session_state["lab r"] == 1.0
    assert (
        app.segmented_control(key="lab from").value == "test"
    )  # as a row was asked for, though there is none of that number
    assert app.number_input(key="lab row").value < 10_000
    assert lab.command_line(the_run().id, "face", AnalysisSettings()) in page_text(app)


def test_own_outputs_are_asked_for_read_and_shown(home):
    app = open_page("conformal", source="own")
    assert "cal_softmax" in page_text(app)
    assert count_elements(app, "download_button") == 1
    v = analysis.analyse_outputs(outputs())
    app = given(npz(outputs()), step="promise")
    assert explanations.validity_text(v) in page_text(app)
    assert "python -m core conformal" not in page_text(app)
    assert (
        given(lab.example_file(), "outputs.csv", step="promise", look="subject")
        .segmented_control(key="lab look")
        .value
        == "subject"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "set, label"),
        (b"PK\x03\x04 not a zip", "np"),
        (npz(outputs(), cal_labels=np.full(60, 9)), "whole numbers from 0 to 2"),
        (npz(outputs(), test_softmax=np.ones((90, 3))), "not probabilities"),
        (b"set,label,a,b\ncal,a,1,0\nfoo,a,1,0\n", "must be cal or test"),
    ],
    ids=["empty", "no zip", "labels", "logits", "set"],
)
def test_a_file_that_cannot_be_read_is_explained(home, content, words):
    app = given(content, "../../<script>.npz")
    wrong = app.error[0].value.replace("\\", "")
    assert words in wrong
    assert "<" not in wrong
    assert count_elements(app, "plotly_chart") == 0


def test_names_in_a_file_are_shown_and_do_nothing(home):
    evil = np.array(
        [
            "![x](http://127.0.0.1:9/x.png)",
            "<img src=x onerror=alert(1)>",
            "$\\href{javascript:1}{c}$",
        ]
    )
    for step in ("chain", "area", "set", "promise"):
        app = given(
            npz(outputs(), classes=evil, test_subjects=np.array(["**[x](http://e)**"] * 90)),
            step=step,
        )
        for text in (page_text(app), *(c.proto.spec for c in app.get("plotly_chart"))):
            assert "http://" not in text
            assert "onerror=" not in text
            assert "](" not in text.replace("\\](", "")
    twice = lab.sanitise_names(
        calibration.data_from_upload(
            "x.npz", npz(outputs(), classes=np.array(["<a>", "(a)", "_a_"]))
        )
    )
    assert len(set(twice.classes)) == 3


def test_subjects_of_any_length_stay_apart(home):
    """Ids that begin alike, end alike, or differ in signs alone; in both parts the same name."""
    ids = [f"study-2021-participant-{i:04d}" for i in range(12)]
    ids += [f"{i}-{'x' * 80}" for i in range(12)]
    ids += ["a/x", "b/x", "a:x", "a;x", "clip: 3", "clip: 4"]
    o, label = np.full((len(ids), 2), 0.5), np.arange(len(ids)) % 2
    own = calibration.CalibrationData(
        "own", ("a", "b"), o, label, o, label, np.array(ids), np.array(ids[::-1])
    )
    plain = lab.sanitise_names(own)
    assert len(set(plain.subject_cal)) == len(ids)
    assert plain.subject_cal.tolist() == plain.subject_test.tolist()[::-1]
    known = calibration.known_subjects(plain.subject_cal)
    assert len(known) == len(ids) - 2
    words = explanations.exchangeability_text(analysis.analyse_outputs(plain))
    assert words.startswith(f"{len(known)} subjects calibrate, {len(known)} are tested")


def test_many_classes_are_cut_to_the_likeliest():
    o = np.random.default_rng(0).dirichlet(np.ones(40), 120)
    labels = np.arange(120) % 40
    v = analysis.analyse_outputs(
        calibration.CalibrationData(
            "x", tuple(f"c{i}" for i in range(40)), o[:60], labels[:60], o[60:], labels[60:]
        )
    )
    point = lab.test_point(v, 0)
    assert len(point.shown) == lab.MAX_CHART_LABELS
    assert point.prediction in point.shown


@pytest.mark.parametrize("groups", ["pooled", "class"])
@pytest.mark.parametrize("smoothed", [False, True])
def test_the_written_fraction_is_the_p_value(groups, smoothed):
    v = analysis.analyse_outputs(outputs(), groups=groups, smoothed=smoothed, r=0.4)
    for row in (0, 7):
        point = lab.test_point(v, row)
        for k in range(3):
            a = point.ranking
            assert a.above[k] + a.equal[k] == (lab.scores(v, k) >= a.alpha[k]).sum()
            if smoothed:
                assert 0 < point.noise(k) <= 1
            else:
                assert a.p[k] == pytest.approx(point.p[k])
            assert f"{point.p[k]:.4f}" in explanations.p_value_text(point, k, "a", smoothed)
        if not smoothed:
            face = SimpleNamespace(softmax=point.softmax)
            np.testing.assert_allclose(lab.face_point(v, face, "me").p, point.p)


def test_the_fraction_of_a_class_that_was_never_calibrated():
    o = outputs()
    v = analysis.analyse_outputs(
        calibration.CalibrationData(
            "x",
            o.classes,
            o.o_cal[o.label_cal < 2],
            o.label_cal[o.label_cal < 2],
            o.o_test,
            o.label_test,
        ),
        groups="class",
    )
    assert "nothing to compare with" in explanations.p_value_text(
        lab.test_point(v, 0), 2, "c", False
    )


def test_sights_are_what_they_are_called():
    v = analysis.analyse_outputs(outputs(), measure="hinge")
    at = lab.notable_points(v, eps=0.3)
    first = prediction.credibility(v.p)
    right = prediction.forced_prediction(v.p) == v.problem.label_test
    assert right[at["Clear"]]
    assert not right[at["Sure and wrong"]]
    assert first[at["Least credible"]] == first.min() <= 0.3
    assert at["No label fits"] == at["Least credible"]
    assert "No label fits" not in lab.notable_points(v, eps=float(first.min()) / 2)
    assert (
        first[at["Undecided"]] - prediction.confidence(v.p)[at["Undecided"]]
        == (first - prediction.confidence(v.p)).max()
    )


def test_every_position_of_a_slider_says_what_core_says():
    v = analysis.analyse_outputs(outputs(), measure="hinge")
    point = lab.test_point(v, 4)
    steps = (
        p_value_figures.label_set(v.problem.classes, point.p, v.floor, point.shown, 0.1)
        .layout.sliders[0]
        .steps
    )
    assert len(steps) == 99
    for step in steps[::7]:
        held = prediction.prediction_sets(point.p, float(step.label))
        assert [o == 1 for o in step.args[0]["marker.opacity"][0]] == held.tolist()
        assert step.args[1]["shapes[0].x0"] == pytest.approx(float(step.label))
    few = analysis.analyse_outputs(outputs(), measure="hinge", r=0.4)
    steps, sizes = (
        slider.steps for slider in validity_figures.validity_curves(v, [few, v]).layout.sliders
    )
    assert [s.label for s in sizes] == ["0.4", "1"]
    for table, of in zip(validity_figures.slider_readings([few, v]), (few, v)):
        assert len(table) == len(steps) == 99
        for i in (1, 30, 99):
            low, error, high, where, size, single, empty = table[i - 1]
            assert steps[i - 1].args[0]["shapes[0].x0"] == pytest.approx(v.levels[i])
            assert (low, error, high) == pytest.approx(
                (of.overall.lower[i], of.overall.error[i], of.overall.upper[i]), abs=1e-4
            )
            over, under = (
                of.overall.error[i] > of.overall.upper[i] + 1e-12,
                of.overall.error[i] < of.overall.lower[i] - 1e-12,
            )
            assert where == int(over) - int(under)
            assert (size, single, empty) == pytest.approx(
                [x[i] for x in (of.efficiency.size, of.efficiency.single, of.efficiency.empty)],
                abs=1e-4,
            )
    assert sizes[0].args[0]["y"][1] == pytest.approx(few.overall.error, abs=1e-4)


def test_every_figure_names_its_axes_and_stays_small():
    v = analysis.analyse_outputs(outputs(400, 10_000))
    point = lab.test_point(v, 0)
    made = [
        p_value_figures.p_value_chain(
            v.problem.classes, point.softmax, point.ranking, point.p, point.shown, "margin"
        ),
        p_value_figures.p_value_area(lab.scores(v, 0), 0.2, "a", "margin", "#123456"),
        p_value_figures.label_set(v.problem.classes, point.p, v.floor, point.shown, 0.1),
        p_value_figures.point_map(v, point.credibility, point.confidence),
        *(
            f(v)
            for f in (
                validity_figures.p_value_histogram,
                validity_figures.error_deviation,
                validity_figures.error_by_calibration_size,
                validity_figures.reliability_diagram,
            )
        ),
        validity_figures.validity_curves(v),
        validity_figures.curves_by_group(v.by_class, None, 0.1, "class"),
        charts.spectrogram_differences({"CP − Label": np.zeros((112, 28))}, SMOKE.logmel),
    ]
    for figure in made:
        layout = figure.to_dict()["layout"]
        for kind in ("xaxis", "yaxis"):
            assert any(
                layout[k].get("title", {}).get("text") for k in layout if k.startswith(kind)
            ), figure
        assert len(figure.to_json()) < 400_000
    histogram = made[1].data
    assert histogram[1].y.sum() == (lab.scores(v, 0) >= 0.2).sum()  # the area is the count


def test_the_verdicts_follow_the_view():
    rng = np.random.default_rng(0)
    o = outputs(500, 900)
    v = analysis.analyse_outputs(o)
    assert "Yes" in explanations.validity_text(v) or v.overall.above or v.overall.below
    shuffled = calibration.CalibrationData(
        "x", o.classes, o.o_cal, o.label_cal, o.o_test, rng.permutation(o.label_test)
    )
    v = analysis.analyse_outputs(shuffled)
    assert "No." in explanations.validity_text(v)
    assert f"{v.overall.above:.3f}" in explanations.validity_text(v)
    assert "not exchangeable" in explanations.uniformity_text(v)
    assert set(explanations.LESSON_STEPS) <= set(explanations.PANEL_HELP)
    assert all(c["what it means"] for c in explanations.criteria_rows(v))


def test_the_bundle_holds_what_it_says(home):
    v = analysis.analyse_outputs(outputs(), groups="class")
    with zipfile.ZipFile(io.BytesIO(export.analysis_zip(v, lab.test_point(v, 0), "how"))) as z:
        assert set(z.namelist()) == {
            "points.csv",
            "view.json",
            "report.md",
            "again.txt",
            "panels.pdf",
            "panels.png",
        }
        assert z.read("panels.pdf")[:5] == b"%PDF-"
        assert z.read("panels.png")[:4] == b"\x89PNG"
        assert z.read("points.csv").decode().count("\n") == v.m + 1
        assert "alpha_cal" not in z.read("view.json").decode()


def test_the_command_names_what_the_report_takes():
    words = shlex.split(
        lab.command_line(
            "demo-cp-1", "voice", AnalysisSettings("hinge", "class", True, 0.4, 0.25, 7)
        )
    )
    options = {w[2:] for w in words if w.startswith("--")}
    known = set(inspect.signature(analysis.run_report).parameters) | set(
        inspect.signature(analysis.analyse_outputs).parameters
    )
    assert options == {"modality", "measure", "groups", "smoothed", "r", "eps", "seed"}
    assert options <= known


def test_one_run_stands_for_a_family_and_unfinished_ones_stand_apart(own_trained_home):
    trained_runs.fabricate_run("stopped", replace(SMOKE, seed=5))
    families, named = lab.run_choices()
    assert len(named) == 2
    (family,) = families.values()
    for run in family.members.values():
        assert (
            open_page("conformal", run=run, row="0").selectbox(key="lab run").value
            == family.members["cp"]
        )


def test_a_whole_number_of_an_address_is_nothing_else():
    assert [choices.parse_integer(t, 0, 50) for t in ("7", "51", "-1", "٣", "1e3", "", "007")] == [
        7,
        None,
        None,
        None,
        None,
        None,
        7,
    ]
