"""Home in every state: no run, finished runs, a running training and task; the drawing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from core import files
from core.config.presets import SMOKE
from core.config.settings import replace
from core.inference import examples
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from ui.home import diagram
from ui.home import status as ui_home
from ui.session import query_params

ROOT = Path(__file__).resolve().parents[2]


def drawn(app) -> dict:
    """What the drawing was given."""
    (one,) = [
        e for e in app.get("bidi_component") if e.proto.component_name.endswith("dacssgan_fig_3")
    ]
    return json.loads(one.proto.json) if one.proto.json else json.loads(one.proto.mixed.json)


def labels(app) -> list[str]:
    return [e.proto.label for e in app.get("page_link")]


def test_without_any_run_it_says_what_to_do(home):
    app = open_page()
    assert app.title[0].value == "A face that shows an emotion becomes the sound of it"
    assert "no trained run yet" in page_text(app)
    assert "python -m core train --preset demo" in page_text(app)
    assert count_elements(app, "bidi_component") == 1  # no drawing: the window's width alone
    assert {"Listen to a face", "Conformal prediction, step by step", "Train a generator"} <= set(
        labels(app)
    )
    assert "Running now" not in page_text(app)


def test_an_example_goes_through_the_paper_s_figure(own_trained_home):
    app = open_page()
    given = drawn(app)
    ElementTree.fromstring(given["svg"].replace("&nbsp;", " "))  # well-formed
    assert set(given["sounds"]) == {"fake", "real", "recorded"}
    assert all(s.startswith("data:audio/wav;base64,UklGR") for s in given["sounds"].values())
    assert given["svg"].count('role="button"') == 3
    for page in ("conformal", "data", "train", "paper"):
        assert f'href="{page}?' in given["svg"]
    assert "its emotion is *happy*" in page_text(app)
    assert app.segmented_control(key="home condition").value == "cp"


def test_what_is_chosen_is_in_the_address(own_trained_home):
    app = open_page()
    first = drawn(app)["svg"]
    assert_no_exception(app.pills(key="home emotion").set_value("sad").run())
    assert app.query_params["emotion"] == "sad"
    assert "its emotion is *sad*" in page_text(app)
    assert_no_exception(app.segmented_control(key="home condition").set_value("label").run())
    assert app.query_params["condition"] == "label"
    assert drawn(app)["svg"] != first
    assert_no_exception(app.button(key="another face").click().run())
    assert app.query_params["face"] == "1"
    again = open_page(emotion="sad", condition="label", face="1")
    assert drawn(again)["svg"] == drawn(app)["svg"]


@pytest.mark.parametrize(
    "strange",
    [
        {"emotion": "hungry"},
        {"condition": "../x"},
        {"face": "-1"},
        {"face": "²"},
        {"face": "99999999"},
    ],
)
def test_a_strange_address_changes_nothing(own_trained_home, strange):
    app = open_page(**strange)
    assert "its emotion is *happy*" in page_text(app)
    assert app.segmented_control(key="home condition").value == "cp"


def test_a_run_without_samples_is_said(own_trained_home):
    for row in store.list_runs():
        (files.checkpoints_folder() / row["run"] / "generated.npz").unlink()
    app = open_page()
    assert "has kept no sample" in app.warning[0].value
    assert count_elements(app, "bidi_component") == 1  # no drawing: the window's width alone
    assert "Train a generator" in labels(app)


def test_a_training_that_goes_on_can_be_found_again(home):
    child = trained_runs.start_fake_training()
    try:
        run = trained_runs.fabricate_run(
            "running", pid=child.pid, phase="train G, D, Q 20/40", rate=160.0
        )
        trained_runs.fabricate_run("stopped", replace(SMOKE, seed=3))
        app = open_page()
        assert "Running now" in page_text(app)
        assert run.id in page_text(app)
        assert "20 of 40 steps" in app.get("progress")[0].proto.text
        assert count_elements(app, "progress") == 1
        (back,) = [e.proto for e in app.get("page_link") if e.proto.label == "Back to it"]
        assert back.page.endswith("train")
        assert run.id in str(back)
    finally:
        child.kill()
    child.wait()
    assert "Running now" not in page_text(open_page())


def test_work_on_data_can_be_found_again(home, monkeypatch):
    from tests.support import noise_corpora

    one = noise_corpora.write_task(
        "prepare-1",
        "running",
        ["prepare", "own", "--source", "/x/<script>"],
        phase="reading",
        done=3,
        total=12,
    )
    monkeypatch.setattr("core.experiments.tasks.listing", lambda: [one])
    app = open_page()
    assert "Running now" in page_text(app)
    assert "3 of 12" in app.get("progress")[0].proto.text
    assert "<script>" not in noise_corpora.page_markup(app)


def test_only_pages_that_are_there_are_offered(own_trained_home, monkeypatch):
    monkeypatch.setattr(query_params, "page_names", lambda: ["data", "home", "listen"])
    app = open_page()
    assert labels(app) == ["Listen to a face", "Look at the data"]
    links = set(re.findall(r'href="(\w+)\?', drawn(app)["svg"]))
    assert links == {"data"}


# --- the drawing ----------------------------------------------------------------------------------


@pytest.fixture
def run(own_trained_home) -> Run:
    return next(
        Run(files.checkpoints_folder() / r["run"])
        for r in store.list_runs()
        if r["condition"] == "cp"
    )


@pytest.mark.parametrize("emotion", ["happy", "sad"])
def test_voices_that_are_heard_as_meant_come_first(run, emotion):
    k = run.config.data.classes.index(emotion)
    first = ui_home.load_audible_example(run.directory, emotion, 0)
    of = first.example.of
    each = [ui_home.load_audible_example(run.directory, emotion, n) for n in range(of)]
    is_heard = [one.example.heard.argmax() == k for one in each]
    assert is_heard == sorted(is_heard, reverse=True)
    assert sum(is_heard) == first.heard
    assert sorted(one.example.number for one in each) == list(range(of))
    assert ui_home.load_audible_example(run.directory, emotion, of).place == 0


PALE = {"label": {"f_S", "cp"}, "classifier": {"cp"}, "cp": set(), "none": {"f_S", "cp", "c"}}


@pytest.mark.parametrize(("condition", "pale"), PALE.items())
def test_what_a_condition_does_not_pass_is_pale(run, condition, pale):
    svg = diagram.fig_3_svg(run.config, condition, examples.load_face_example(run, "happy"), [], {})
    assert svg.count('<g class="pale">') == len(pale)
    assert svg.count('<g class="box">') == len(diagram.BOXES) - len(pale)
    assert "<a " not in svg
    assert 'role="button"' not in svg


def test_every_way_leads_to_a_page_of_the_router_and_every_equation_to_an_entry():
    from core.paper.equations import PAPER_MAP

    every = {
        re.match(r'    "(\w+)": "', line)[1]
        for line in (ROOT / "router.py").read_text().splitlines()
        if re.match(r'    "\w+": "', line)
    }
    assert "home" in every
    assert {b.page for b in diagram.BOXES.values()} | {
        p for *_, links in ui_home.PAGE_GROUPS for p, *_ in links
    } <= every
    assert {n for *_, n in diagram.EQUATIONS.values()} <= {e.key for e in PAPER_MAP}
    ways = diagram.link_targets("run-1", sorted(every))
    assert ways["cp"] == ("conformal", {"run": "run-1"})
    assert ways["Eq. (4)"] == ("paper", {"eq": "4"})


def test_boxes_do_not_overlap_and_stay_inside():
    boxes = [b.at for b in diagram.BOXES.values()]
    for i, (left, top, width, height) in enumerate(boxes):
        assert left >= 0
        assert top >= 0
        assert left + width <= diagram.DRAWING_WIDTH
        assert top + height <= diagram.DRAWING_HEIGHT
        for x, y, w, h in boxes[:i]:
            assert left >= x + w or x >= left + width or top >= y + h or y >= top + height
