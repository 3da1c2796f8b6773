"""The Train page: settings, queue, pause and resume, the step slider, the log, in each state."""

from __future__ import annotations

import dataclasses
import json
import shutil
import typing

import numpy as np
import pytest
import streamlit as st

from core import files
from core.config.presets import PRESETS, SMOKE, PresetName
from core.config.serialisation import run_name
from core.config.settings import CONDITIONS, Config, replace
from core.data import prepared_corpora
from core.experiments import jobs, tasks
from core.runs import store
from tests.support import trained_runs
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from ui.train import checkpoints, launch, queue, settings

K = SMOKE.data.classes


@pytest.fixture
def quiet(home, monkeypatch):
    """An empty home in which no worker is started, so that what waits goes on waiting."""
    monkeypatch.setattr(jobs, "start_queue_worker", lambda folder=None: False)
    return home


def waiting_run(seed: int):
    run = store.create(
        files.checkpoints_folder() / f"smoke-cp-{seed:08d}", replace(SMOKE, seed=seed)
    )
    jobs.enqueue(run)
    store.update(run, state="queued", phase="", pid=0)
    return run


def checkpoint(run, step: int, shift: float = 0.0) -> None:
    """What a checkpoint of today holds, with `shift` between real and generated."""
    rng = np.random.default_rng(step)
    arrays = {
        "y": rng.uniform(-1, 1, (6, 112, 28)).astype(np.float16),
        "label": np.arange(6),
        "confusion": np.eye(6, dtype=np.int64) * step + 1,
        "at": (rng.normal(0, 1, (30, 2)) + shift).astype(np.float32),
        "of": np.repeat(np.arange(6), 5),
        "at_real": np.random.default_rng(0).normal(0, 1, (30, 2)).astype(np.float32),
        "of_real": np.repeat(np.arange(6), 5),
        "share": np.array([0.6, 0.2]),
    }
    files.write_arrays(run.directory / "samples" / f"step-{step:07d}.npz", **arrays)


def test_a_running_training_can_be_paused_and_what_waits_is_listed_moved_and_removed(quiet):
    child = trained_runs.start_fake_training()
    try:
        run = trained_runs.fabricate_run(
            "running", pid=child.pid, phase="train G, D, Q 20/40", rate=160.0
        )
        jobs.enqueue(run)
        one, two = waiting_run(1), waiting_run(2)
        app = open_page("train", run=run.id)
        assert "one trains, 2 after it" in page_text(app)
        assert app.button(key=f"up {one.id}").disabled
        assert app.button(key=f"down {two.id}").disabled
        assert_no_exception(app.button(key=f"up {two.id}").click().run())
        assert [r["run"] for r in jobs.list_queue()] == [run.id, two.id, one.id]
        assert_no_exception(app.button(key=f"remove {one.id}").click().run())
        assert [r["run"] for r in jobs.list_queue()] == [run.id, two.id]
        assert {r["run"]: r["state"] for r in store.list_runs()}[one.id] == "stopped"
        assert app.button(key="start").label == "Add to the queue"

        waits = open_page("train", run=two.id)
        assert "begins by itself after 1 other training." in page_text(waits)
        assert waits.button(key="stop").label == "Take out of the queue"

        assert_no_exception(app.button(key="pause").click().run())
        child.wait(10)
        store.update(run, state="stopped")  # as the training itself says at its end
        app = open_page("train", run=run.id)
        assert "violet-badge[**paused**]" in page_text(app)
        assert "Paused at step 20 of 40" in page_text(app)
        assert "A paused run keeps its place" in page_text(app)
        assert app.button(key="resume").disabled is False
        assert f"waits behind {run.id}, which is paused" in page_text(
            open_page("train", run=two.id)
        )
        assert_no_exception(app.button(key="stop").click().run())
        assert [r["run"] for r in jobs.list_queue()] == [two.id]
        assert "orange-badge[**stopped**]" in page_text(app)
    finally:
        child.kill()


def test_a_training_that_does_not_end_can_be_killed(quiet, monkeypatch):
    child = trained_runs.start_fake_training()
    try:
        run = trained_runs.fabricate_run("running", pid=child.pid, phase="train G, D, Q 20/40")
        store.update(run, phase="stopping")
        app = open_page("train", run=run.id)
        assert app.button(key="stop").disabled
        assert "its state is being saved" in app.get("progress")[0].proto.text
        monkeypatch.setattr(jobs, "STOP_GRACE_SECONDS", -1.0)
        app = open_page("train", run=run.id)
        assert_no_exception(app.button(key="kill").click().run())
        child.wait(10)
        assert "orange-badge[**stopped**]" in page_text(assert_no_exception(app.run()))
    finally:
        child.kill()


def test_all_three_conditions_are_started_at_once(quiet, monkeypatch):
    asked = []

    def start(config, device):
        asked.append(config.gan.condition)
        return waiting_run(len(asked)).id

    monkeypatch.setattr(jobs, "start", start)
    trained_runs.prepare_noise_demo()
    app = open_page("train", preset="smoke", at="40")
    app.button(key="start all").click().run()
    assert_no_exception(app)
    assert asked == ["label", "classifier", "cp"]
    assert app.selectbox(key="train run").value == "smoke-cp-00000001"
    assert "at" not in app.query_params
    assert "one trains" not in page_text(app)
    assert "3 in it" in page_text(app)


@pytest.fixture
def shipped(quiet, monkeypatch):
    """A home with the shipped runs of the demo and without its corpus; what is started or drawn."""
    for run in trained_runs.SHIPPED:
        if run.name.startswith(("demo-cp", "demo-label")):
            shutil.copytree(run, files.checkpoints_folder() / run.name)
    store.index_existing()
    asked = []

    def start(config, device):
        asked.append((config.gan.condition, config.seed))
        return waiting_run(len(asked)).id

    monkeypatch.setattr(jobs, "start", start)
    monkeypatch.setattr(launch, "draw_demo", lambda name, takes: asked.append((name, takes)))
    return asked


def test_a_shipped_run_is_said_before_the_start_and_opened(shipped):
    app = open_page("train", preset="demo", run="demo-label-dc121551")
    assert "**This run exists (shipped).**" in page_text(app)
    assert app.button(key="start").label == "Train again as seed 1"
    assert_no_exception(app.button(key="open equal").click().run())
    assert app.selectbox(key="train run").value == "demo-cp-87b4dc5a"
    assert shipped == []
    assert_no_exception(app.button(key="start").click().run())
    assert shipped == [("demo", 10), ("cp", 1)]


def test_a_demo_corpus_that_cannot_be_drawn_is_said(quiet, monkeypatch):
    failed = tasks.Task("prepare-0", [], state="failed", message="no space is left")
    monkeypatch.setattr(tasks, "start", lambda arguments: failed.id)
    monkeypatch.setattr(tasks, "find", lambda name: failed)
    app = open_page("train", preset="smoke")
    app.button(key="start").click().run()
    assert [e.value for e in app.error] == [r"the demo corpus was not drawn\: no space is left"]


def test_settings_that_were_not_trained_have_no_such_run(shipped):
    app = open_page("train", preset="demo")
    app.number_input(key="demo seed").set_value(3)
    assert_no_exception(app.run())
    assert "This run exists" not in page_text(app)
    assert app.button(key="start").label == "Start"


def test_only_conditions_that_are_missing_are_trained(shipped):
    app = open_page("train", preset="demo")
    assert app.button(key="start all").label == "Train the conditions that are missing"
    app.button(key="start all").click().run()
    assert shipped == [("demo", 10), ("classifier", 0)]


def test_three_shipped_conditions_are_trained_anew_with_another_seed(shipped):
    (rest,) = (r for r in trained_runs.SHIPPED if r.name.startswith("demo-classifier"))
    shutil.copytree(rest, files.checkpoints_folder() / rest.name)
    store.index_existing()
    app = open_page("train", preset="demo")
    assert app.button(key="start all").label == "All three again as seed 1"
    app.button(key="start all").click().run()
    assert shipped == [("demo", 10), ("label", 1), ("classifier", 1), ("cp", 1)]


def test_an_equal_run_counts_for_the_corpus_that_is_here(own_trained_home, monkeypatch):
    rows, config = store.list_runs(), trained_runs.TINY_CONFIG
    found = launch.find_equal_run(config, rows)
    assert found["run"] == trained_runs.the_run(config.gan.condition).id
    path = prepared_corpora.corpus_path("demo", config.data.demo_takes)
    arrays = files.read_arrays(path)
    meta = json.loads(str(arrays.pop("meta"))) | {"digest": "of other clips"}
    files.write_arrays(path, meta=np.array(json.dumps(meta)), **arrays)
    st.cache_resource.clear()
    assert launch.find_equal_run(config, rows) is None


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_start_continues_a_run_that_stands_still(quiet, state):
    trained_runs.prepare_noise_demo()
    config = replace(SMOKE, gan={"condition": "cp"})
    run = store.create(
        files.checkpoints_folder() / run_name(config, prepared_corpora.corpus_digest(config.data)),
        config,
    )
    store.update(run, state=state, step=20)
    app = open_page("train", preset="smoke", condition="cp")
    assert f"exists ({state}).** *Start* continues it" in page_text(app)
    assert app.button(key="start").label == "Start"


def test_all_other_settings_are_drawn_when_they_are_looked_at_and_hold_when_they_are_not(
    quiet, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        jobs, "start", lambda config, device: asked.append(config) or waiting_run(len(asked)).id
    )
    trained_runs.prepare_noise_demo()
    app = open_page("train", preset="smoke")
    assert "smoke gan.l1" not in [n.key for n in app.number_input]
    app.session_state["settings"] = True
    assert_no_exception(app.run())
    app.number_input(key="smoke gan.l1").set_value(0.5)
    app.number_input(key="smoke gan.batch").set_value(8)
    app.pills(key="smoke data.classes").set_value(["sad", "happy"])
    assert_no_exception(app.run())
    app.session_state["settings"] = False
    assert_no_exception(app.run())
    assert "smoke gan.l1" not in [n.key for n in app.number_input]
    app.button(key="start").click().run()
    assert (asked[0].gan.l1, asked[0].gan.batch, set(asked[0].data.classes)) == (
        0.5,
        8,
        {"happy", "sad"},
    )
    app.session_state["settings"] = True
    assert assert_no_exception(app.run()).number_input(key="smoke gan.l1").value == 0.5


def test_one_slider_moves_everything_and_stands_in_the_address(quiet):
    run = trained_runs.fabricate_run("stopped")
    for step, fid in ((10, 5.0), (20, 9.0)):
        checkpoint(run, step, 0.5 * step)
        store.record_metrics(
            run, step, {"FID": fid, "KID": fid / 2, "IS": 1.5, "recognised": step / 40}
        )
    app = open_page("train", run=run.id)
    assert app.get("select_slider")[0].value == 20  # the newest
    assert "at" not in app.query_params
    assert count_elements(app, "plotly_chart") == 3
    assert count_elements(app, "bidi_component") == 6  # samples
    assert "Step 20 of 40" in page_text(app)
    assert "FID 9.00 · KID 4.50 · IS 1.50 · emotion recognised 50%" in page_text(app)
    assert app.button(key="best").label == "Best: 10"
    assert_no_exception(app.button(key="best").click().run())
    assert app.query_params["at"] in ("10", ["10"])
    assert app.get("select_slider")[0].value == 10
    assert "Step 10 of 40" in page_text(app)
    assert "emotion recognised 25%" in page_text(app)
    heard = 6 * 11 / (6 * 11 + 30)
    assert f"{heard:.0%} heard as the face's emotion" in page_text(app)
    assert (
        open_page("train", run=run.id, at="10").get("select_slider")[0].value == 10
    )  # a second tab, or after a reload

    checkpoint(run, 30)  # a new one comes: what was chosen stays
    assert_no_exception(app.run())
    assert app.get("select_slider")[0].value == 10
    assert_no_exception(app.button(key="newest").click().run())
    assert app.get("select_slider")[0].value == 30
    assert "at" not in app.query_params
    assert open_page("train", run=run.id, at="../x").get("select_slider")[0].value == 30


def test_a_run_from_before_says_what_its_checkpoints_lack(quiet):
    app = open_page("train", run=trained_runs.fabricate_run("stopped").id)
    assert page_text(app).count(checkpoints.OLD_CHECKPOINT_NOTE) == 2
    assert count_elements(app, "plotly_chart") == 1


def test_the_log_is_shown_and_can_be_taken_along(quiet):
    run = trained_runs.fabricate_run("failed", error="[x](http://evil.example) broke")
    app = open_page("train", run=run.id)
    assert "train G, D, Q   20/40" in page_text(app)
    assert app.get("download_button")[0].proto.label == "The whole log"
    assert "](http" not in app.error[0].value
    assert "Resume training* tries again" in page_text(app)
    (run.directory / "log.txt").unlink()
    assert "There is no log" in page_text(open_page("train", run=run.id))


def test_the_embedding_keeps_its_frame_and_counts_what_lies_beyond(quiet):
    run = trained_runs.fabricate_run("stopped")
    frames = []
    for step, shift in ((10, 0.0), (20, 50.0)):
        checkpoint(run, step, shift)
        figure, beyond = checkpoints.embedding_figure(
            files.read_arrays(run.directory / "samples" / f"step-{step:07d}.npz"), K
        )
        frames.append((figure.layout.xaxis.range, figure.layout.yaxis.range))
        assert (beyond == 30) == (shift > 0)
        drawn = np.concatenate([np.asarray(t.x, float) for t in figure.data if t.x[0] is not None])
        assert drawn.max() <= figure.layout.xaxis.range[1]
    assert frames[0] == frames[1]
    assert "60 %" in figure.layout.xaxis.title.text
    assert (
        checkpoints.confusion_heatmap(np.eye(6, dtype=int), K).layout.yaxis.title.text
        == "emotion of the face"
    )


def test_what_a_run_waits_for_is_said_in_words():
    row = {"run": "c", "state": "queued", "pid": 0, "place": 3}
    paused = {"run": "a", "state": "paused", "pid": 5, "place": 1}
    busy = {"run": "b", "state": "running", "pid": 5, "place": 2}
    assert "behind a, which is paused" in queue.waiting_text(row, [row, paused, busy])
    assert "after 1 other training." in queue.waiting_text(row, [row, busy])
    assert "in a moment" in queue.waiting_text(row, [row])


def test_every_setting_has_a_label_and_a_help_text_of_its_own():
    parts = [f.name for f in dataclasses.fields(Config) if f.name not in ("name", "seed")]
    described = [*dataclasses.fields(Config)[:2]]
    for part in parts:
        described += dataclasses.fields(getattr(Config(), part))
    for f in described:
        assert f.metadata["label"], f.name
        assert f.metadata["help"].endswith("."), f.name
    labels = [s.label for name in settings.SECTIONS for s in settings.settings_of(SMOKE, name)]
    assert len(set(labels)) == len(labels)


def test_names_of_presets_and_conditions_are_listed_once():
    assert tuple(PRESETS) == typing.get_args(PresetName)
    assert CONDITIONS == ("label", "classifier", "cp", "none")


def test_what_goes_wrong_in_a_training_is_said_on_its_page(quiet):
    run = trained_runs.fabricate_run("stopped")
    store.record_metrics(run, 40, {"diversity": 0.001})
    side = {"clips": 5, "classes": {"sad": 0}, "subjects": {"p": {}}, "unknown": 0}
    files.write_json(run.directory / "sets.json", {"S3": {"faces": side, "voices": side}})
    warned = "\n".join(w.value for w in open_page("train", run=run.id).warning)
    for words in (
        "G has collapsed",
        "fewer than a batch of 32",
        "of one person",
        "has no voices of",
    ):
        assert words in warned.replace("\\", "")
