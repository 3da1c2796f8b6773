"""Pages in every state, by Streamlit's AppTest: no exception, fitting words, kept choices."""

from __future__ import annotations

import functools
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from streamlit.testing.v1 import AppTest

from core import files
from core.config.presets import PRESETS, SMOKE
from core.config.settings import CONDITIONS, EMOTIONS, replace
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from ui import listen, theme
from ui.session import cache
from ui.train import curves, progress, settings
from ui.widgets import charts, players, uploads

# --- Listen ---------------------------------------------------------------------------------------


def test_listen_without_any_run_says_what_to_do(home):
    app = open_page("listen")
    assert "no trained run yet" in page_text(app)
    assert "python -m core train --preset demo" in page_text(app)
    assert "Not this person's voice" in page_text(app)
    assert count_elements(app, "audio") == 0


def test_listen_plays_the_example_for_all_three_conditions(landmark_model):
    app = open_page("listen")
    assert "Not this person's voice" in page_text(app)
    assert "deleted after the session" in page_text(app)
    assert count_elements(app, "audio") == 3
    assert (count_elements(app, "plotly_chart"), count_elements(app, "bidi_component")) == (
        1,
        3,
    )  # beliefs, and a spectrogram for each condition
    assert [m.label for m in app.metric] == ["Prediction", "Credibility", "Confidence"]
    assert "no sound" in page_text(app)
    assert "FID" in page_text(app)
    assert "chance 16.7%" in page_text(app)


def test_listen_compares_with_the_clips_own_voice(landmark_model):
    app = open_page("listen")
    app.radio(key="example").set_value("drawn").run()
    assert count_elements(assert_no_exception(app), "audio") == 5
    assert len(app.get("select_slider")) == 1


def test_listen_keeps_what_was_chosen_and_writes_it_into_the_address(landmark_model):
    app = open_page("listen")
    before = [a.proto.url for a in app.get("audio")]
    app.selectbox(key="emotion").set_value("fear").run()
    assert_no_exception(app.button[-1].click().run())  # another voice
    after = [a.proto.url for a in app.get("audio")]
    assert not set(before) & set(after)
    assert app.query_params["emotion"] == "fear"
    assert app.query_params["seed"] == str(listen.FIRST_SEED + 1)
    assert app.selectbox(key="emotion").value == "fear"
    assert app.number_input(key="seed").value == listen.FIRST_SEED + 1
    shared = open_page("listen", emotion="fear", seed=str(listen.FIRST_SEED + 1))
    assert [a.proto.url for a in shared.get("audio")] == after


def test_listen_takes_a_run_from_the_address_only_if_it_is_known(landmark_model):
    label = next(r["run"] for r in store.list_runs() if r["condition"] == "label")
    cp = next(r["run"] for r in store.list_runs() if r["condition"] == "cp")
    assert (
        open_page("listen", run=label).selectbox(key="listen run").value == cp
    )  # a sibling means its family
    for strange in ("../../etc", "nothing", cp + "/../" + cp, ""):
        app = open_page("listen", run=strange, seed="-3", emotion="hungry")
        assert app.selectbox(key="listen run").value == cp
        assert app.number_input(key="seed").value == listen.FIRST_SEED
        assert count_elements(app, "audio") == 3


def test_listen_leaves_a_damaged_run_out(landmark_model):
    row = next(r for r in store.list_runs() if r["condition"] == "cp")
    (files.checkpoints_folder() / row["run"] / "models" / "G.safetensors").write_bytes(b"cut")
    app = open_page("listen")
    assert count_elements(app, "audio") == 2
    assert "models/G.safetensors" in page_text(open_page("home")).replace("\\", "")


def test_listen_without_the_landmark_model_says_where_to_put_it(own_trained_home, monkeypatch):
    from core.media.faces import landmarker

    def missing():
        raise landmarker.ModelMissing("Faces need face_landmarker.task: put it at checkpoints/")

    monkeypatch.setattr(landmarker, "model_path", missing)
    monkeypatch.setattr("core.inference.generation.analyse_clip", lambda *a: missing())
    assert "put it at" in page_text(open_page("listen"))


def picture(size=(120, 90)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(file, "PNG")
    return file.getvalue()


SILENCE = io.BytesIO()
soundfile.write(SILENCE, np.zeros(16_000), 16_000, format="WAV")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.mp4", b"This is no film at all.\n", "not a media file"),
        ("voice.wav", SILENCE.getvalue(), "no picture"),
        ("empty.mp4", b"", "is empty"),
        ("wall.png", picture(), "no face was found"),
        ("../../<script>alert(1)</script>.png", picture(), "script_.png: no face was found"),
    ],
    ids=["text", "sound", "empty", "no face", "hostile name"],
)
def test_listen_says_what_is_wrong_with_an_upload_and_leaves_no_file(
    landmark_model, name, content, words
):
    app = open_page("listen")
    app.segmented_control(key="kind").set_value("Upload").run()
    assert "will appear here" in page_text(assert_no_exception(app))
    app.file_uploader(key="upload").set_value((name, content, "video/mp4")).run()
    wrong = "\n".join(e.value for e in assert_no_exception(app).error)
    assert words in wrong
    assert "<" not in wrong
    assert (
        list(Path(tempfile.gettempdir()).glob(f"{uploads.UPLOAD_FOLDER_PREFIX}{os.getpid()}-*"))
        == []
    )


def test_an_upload_becomes_voices_and_leaves_no_file(landmark_model):
    from skimage import data

    file = io.BytesIO()
    Image.fromarray(data.astronaut()).save(file, "PNG")
    example = [a.proto.url for a in open_page("listen").get("audio")]
    app = open_page("listen")
    app.segmented_control(key="kind").set_value("Upload").run()
    app.file_uploader(key="upload").set_value(("me.png", file.getvalue(), "image/png")).run()
    assert [
        a.proto.url for a in assert_no_exception(app).get("audio")
    ] == example  # the same picture, the same voices
    assert (
        list(Path(tempfile.gettempdir()).glob(f"{uploads.UPLOAD_FOLDER_PREFIX}{os.getpid()}-*"))
        == []
    )


@pytest.fixture
def talking(tmp_path):
    """A film of two seconds with sound: a drawn face that talks."""
    from core.data.demo import actors, recordings
    from core.media import clips

    frames, wave = recordings.render_clip(
        max(actors.list_takes(), key=lambda t: t.strength), fps=12
    )
    clips.write_clip(tmp_path / "talks.mp4", frames, 12, wave)
    return tmp_path / "talks.mp4"


def test_a_film_shows_its_face_while_it_is_still_read(landmark_model, monkeypatch, talking):
    sights, glimpses, draw, show = [], [], players.show_preview, players.show_progress
    monkeypatch.setattr(uploads, "PROGRESS_INTERVAL", 0.0)
    monkeypatch.setattr(
        players, "show_progress", lambda bar, sight: (sights.append(sight), show(bar, sight))
    )
    monkeypatch.setattr(
        players, "show_preview", lambda sight: (glimpses.append((len(sights), sight)), draw(sight))
    )
    app = open_page("listen")
    app.segmented_control(key="kind").set_value("Upload").run()
    shown, show_face = [], players.show_face
    monkeypatch.setattr(
        players, "show_face", lambda seen, at: (shown.append(at), show_face(seen, at))
    )
    app.file_uploader(key="upload").set_value(
        (talking.name, talking.read_bytes(), "video/mp4")
    ).run()
    assert count_elements(assert_no_exception(app), "audio") == 5
    assert count_elements(app, "progress") == 0
    assert (np.diff([s.time for s in sights]) > 0).all()
    assert all(
        0 <= s.time <= s.header_seconds + 0.05 for s in sights
    )  # a share of what the film says it lasts
    ((after, glimpse),) = glimpses
    assert 0.4 < after / len(sights) < 0.6
    assert glimpse is sights[after - 1]
    assert app.select_slider[0].value is None  # the whole film
    assert shown == [pytest.approx(after, abs=1)]  # in the end that frame or its neighbour


def test_a_page_that_is_drawn_anew_goes_on_with_its_film(home, monkeypatch, talking):
    times = []

    def show(sight, glimpse):
        times.append(sight.time)
        if len(times) == 5:
            raise RuntimeError("the visitor clicks something")

    monkeypatch.setattr(uploads, "PROGRESS_INTERVAL", 0.0)
    monkeypatch.setattr(
        uploads, "pending_upload", functools.cache(lambda key: uploads.PendingUpload())
    )
    with pytest.raises(RuntimeError, match="clicks"):
        uploads.track_upload("a", talking.name, talking.read_bytes(), show)
    film = uploads.track_upload("a", talking.name, b"", show)
    assert len(times) == len(film.clip.frames)  # none twice
    assert uploads.track_upload("a", talking.name, b"", show) is film
    assert isinstance(uploads.track_upload("b", "x", b"no film"), str)
    uploads.track_upload("c", talking.name, talking.read_bytes(), lambda *_: None)
    assert (
        list(Path(tempfile.gettempdir()).glob(f"{uploads.UPLOAD_FOLDER_PREFIX}{os.getpid()}-*"))
        == []
    )


def test_a_film_is_begun_anew_once_the_landmark_model_is_there(
    landmark_model, monkeypatch, talking
):
    from core.media.faces import landmarker

    def missing():
        raise landmarker.ModelMissing("it is missing")

    monkeypatch.setattr(landmarker, "idle_interpreters", [])
    monkeypatch.setattr(
        uploads, "pending_upload", functools.cache(lambda key: uploads.PendingUpload())
    )
    with monkeypatch.context() as without:
        without.setattr(landmarker, "model_path", missing)
        for _ in range(2):
            with pytest.raises(landmarker.ModelMissing):
                uploads.track_upload("m", talking.name, talking.read_bytes())
    assert not isinstance(uploads.track_upload("m", talking.name, talking.read_bytes()), str)


def test_of_two_people_either_can_be_chosen(landmark_model):
    from skimage import data

    large = Image.fromarray(data.astronaut())
    both = Image.new("RGB", (900, 512), "grey")
    both.paste(large, (0, 0))
    both.paste(large.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((384, 384)), (516, 64))
    file = io.BytesIO()
    both.save(file, "PNG")
    app = open_page("listen")
    app.segmented_control(key="kind").set_value("Upload").run()
    app.file_uploader(key="upload").set_value(("us.png", file.getvalue(), "image/png")).run()
    first = [a.proto.url for a in assert_no_exception(app).get("audio")]
    person = next(c for c in app.segmented_control if c.label == "Person")
    assert_no_exception(person.set_value(1).run())
    second = [a.proto.url for a in app.get("audio")]
    assert len(second) == 3
    assert not set(first) & set(second)
    assert "this is number 2" in page_text(app)


def test_what_a_killed_server_left_is_swept(home, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, new = (
        tmp_path / f"{uploads.UPLOAD_FOLDER_PREFIX}old",
        tmp_path / f"{uploads.UPLOAD_FOLDER_PREFIX}new",
    )
    for folder in (old, new):
        folder.mkdir()
        (folder / "face").write_bytes(b"x")
    os.utime(old, (time.time() - 100_000,) * 2)
    cache.prepare_server()
    assert not old.exists()
    assert new.exists()


# --- Train ----------------------------------------------------------------------------------------


def test_train_without_any_run_offers_the_demo(home):
    app = open_page("train")
    assert "No run yet" in page_text(app)
    assert "nothing is downloaded" in page_text(app)
    assert app.button(key="start").disabled is False


def test_train_with_a_corpus_that_is_not_prepared_gives_the_command(home):
    app = open_page("train", preset="fer2013-ravdess")
    assert "python -m core data prepare fer2013 --source" in page_text(app)
    assert "python -m core data prepare ravdess --source" in page_text(app)
    assert app.button(key="start").disabled is True


def test_train_shows_a_running_training(home):
    child = trained_runs.start_fake_training()
    try:
        run = trained_runs.fabricate_run(
            "running", pid=child.pid, phase="train G, D, Q 20/40", rate=160.0
        )
        app = open_page("train", run=run.id)
        assert "blue-badge[**running**]" in page_text(app)
        assert app.button(key="stop").disabled is False
        assert (count_elements(app, "plotly_chart"), count_elements(app, "bidi_component")) == (
            1,
            6,
        )  # losses, FID, KID, IS in one figure; a sample for each emotion
        bar = app.get("progress")[0].proto
        assert "20 of 40 steps" in bar.text
        assert "160 samples/s" in bar.text
        assert "4 s left" in bar.text
        again = open_page("train", run=run.id)  # a second tab
        assert again.selectbox(key="train run").value == run.id
        assert_no_exception(app.button(key="stop").click().run())
        assert child.wait(10) is not None
        assert_no_exception(app.run())
        assert "orange-badge[**stopped**]" in page_text(app)
        assert app.button(key="resume").disabled is False
    finally:
        child.kill()


def test_train_shows_queued_failed_and_stopped_runs(home):
    child = trained_runs.start_fake_training()
    try:
        queued = trained_runs.fabricate_run(
            "queued", replace(SMOKE, seed=1), pid=child.pid, phase="starting"
        )
        failed = trained_runs.fabricate_run(
            "failed",
            error="the device ran out of memory at batch 64; use --gan.batch 32, which fits",
        )
        stopped = trained_runs.fabricate_run("stopped", replace(SMOKE, seed=2))
        assert "gray-badge[**queued**]" in page_text(open_page("train", run=queued.id))
        app = open_page("train", run=failed.id)
        assert "red-badge[**failed**]" in page_text(app)
        assert theme.escape_markdown("use --gan.batch 32") in app.error[0].value
        assert "train G, D, Q   20/40" in page_text(app)
        app = open_page("train", run=stopped.id)
        assert "Stopped at step 20 of 40" in page_text(app)
        app.button(key="resume").click().run()  # its corpus is gone
        assert "data prepare demo" in "\n".join(e.value for e in assert_no_exception(app).error)
    finally:
        child.kill()


def test_train_finds_a_training_that_died(home):
    run = trained_runs.fabricate_run("running", pid=2**22 - 7, phase="train G, D, Q 20/40")
    app = open_page("train", run=run.id)
    assert "ended without a message" in app.error[0].value
    assert "red-badge[**failed**]" in page_text(app)


def test_train_shows_the_results_of_a_finished_run(own_trained_home):
    row = next(r for r in store.list_runs() if r["condition"] == "label")
    app = open_page("train", run=row["run"])
    assert app.selectbox(key="train run").value == row["run"]
    assert "green-badge[**done**]" in page_text(app)
    assert "S1 + generated" in page_text(app)
    assert "chance 16.7%" in page_text(app)
    assert {"FID", "KID", "IS", "Recognised, %"} <= {m.label for m in app.metric}
    assert count_elements(app, "plotly_chart") == 1  # losses, FID, KID, IS in one figure
    app.session_state[f"verdicts {row['run']}"] = True
    # what the scorer hears and where they lie, once they are looked at; then the confusions
    assert count_elements(assert_no_exception(app.run()), "plotly_chart") == 3
    app.session_state["matrices"] = True
    assert count_elements(assert_no_exception(app.run()), "plotly_chart") == 4
    slider = app.get("select_slider")[0]
    assert slider.value == 4
    assert_no_exception(slider.set_value(2).run())
    assert app.get("select_slider")[0].value == 2


def test_train_takes_the_condition_from_the_address(home):
    app = open_page("train", preset="smoke", condition="classifier")
    assert app.segmented_control(key="smoke condition").value == "classifier"
    assert (
        open_page("train", preset="smoke", condition="../x")
        .segmented_control(key="smoke condition")
        .value
        == "cp"
    )


def test_starting_a_configuration_that_is_done_shows_it(own_trained_home, monkeypatch):
    from core.experiments import jobs

    asked = []
    monkeypatch.setattr(
        jobs,
        "start",
        lambda config, device: asked.append((config, device)) or store.list_runs()[0]["run"],
    )
    app = open_page("train", preset="smoke")
    app.number_input(key="smoke steps").set_value(7).run()
    app.segmented_control(key="smoke condition").set_value("label").run()
    app.button(key="start").click().run()
    assert_no_exception(app)
    assert asked == [(replace(SMOKE, gan={"steps": 7, "condition": "label"}), "auto")]
    assert app.query_params["run"] == store.list_runs()[0]["run"]
    assert app.number_input(key="smoke steps").value == 7


def test_every_setting_that_is_not_touched_stays_the_presets(home):
    for name, preset in PRESETS.items():

        def page(name):
            import streamlit as st

            from core.config.presets import PRESETS
            from ui.train import settings

            st.session_state["made"] = settings.show_form(PRESETS[name], name)

        app = AppTest.from_function(page, kwargs={"name": name}).run()
        assert assert_no_exception(app).session_state["made"] == preset


# --- what they share ------------------------------------------------------------------------------


def test_every_emotion_and_every_state_has_its_colour():
    assert set(theme.EMOTION_COLOURS) == set(EMOTIONS)
    assert len(set(theme.EMOTION_COLOURS.values())) == len(EMOTIONS)
    for state in ("queued", "running", "stopped", "failed", "done"):
        assert f"{theme.STATE_COLOURS[state]}-badge[**{state}**]" in theme.state_badges(state)
    assert set(theme.CONDITION_TEXTS) == set(CONDITIONS)


def test_every_chart_names_its_axes():
    y, s = np.zeros((112, 28)), SMOKE.logmel
    lines = {"loss/G": ([10], [1.0]), "FID": ([0], [3.0]), "FID real": ([0], [1.0])}
    arrays = {k: (np.array(x), np.array(y)) for k, (x, y) in lines.items()}
    figures = [
        charts.spectrogram(y, 0.0, s),
        charts.softmax_and_p_values(SMOKE.data.classes, np.full(6, 1 / 6), np.full(6, 0.5)),
        curves.course_figure(arrays, 40, 0, (0, "FID"), weight=0.5),
        charts.confusion_matrices(
            {"faces": np.eye(6, dtype=int), "S1": np.eye(6, dtype=int)}, SMOKE.data.classes
        ),
    ]
    for figure in figures:
        layout = figure.to_dict()["layout"]
        for kind in ("xaxis", "yaxis"):
            assert any(
                layout[k].get("title", {}).get("text") for k in layout if k.startswith(kind)
            ), (figure.layout.title, kind)
    shown = figures[0].data[0]
    assert shown.zmax - shown.zmin == s.range_db
    assert shown.colorbar.title.text == "dB"
    assert figures[0].layout.xaxis.title.text == "time (s)"


def test_spectrograms_use_no_colour_that_streamlit_replaces():
    assert not [k for k in theme.SPECTROGRAM_COLOUR_SCALE if int(k[1:], 16) < 0x100]


@pytest.mark.parametrize(
    ("phase", "words"),
    [("fit f_S 20/600", "20 of 600"), ("score S1 + generated 3/40", "3 of 40"), ("sets", "…")],
)
def test_every_phase_of_a_training_has_words(phase, words):
    row = {"run": "x", "rate": None}

    def page(row, phase):
        from ui.train import progress

        progress.show_stage(row, phase)

    app = assert_no_exception(
        AppTest.from_function(page, kwargs={"row": row, "phase": phase}).run()
    )
    assert words in app.get("progress")[0].proto.text
    assert progress.format_duration(30) == "30 s"
    assert progress.format_duration(600) == "10 min"


def test_every_setting_on_the_page_exists():
    config = PRESETS["demo"]
    for section, (_, fields) in settings.SECTIONS.items():
        assert [f for f in fields if not hasattr(getattr(config, section), f)] == []


def test_families_put_the_real_shipped_run_first(home, own_trained_home):
    rows = [("a-cp-1", "cp", 0), ("b-cp-2", "cp", 0)]
    for (run, *_), name in zip(rows, ("demo", "fer2013-ravdess"), strict=True):
        store.create(files.checkpoints_folder() / run, replace(SMOKE, name=name))
    assert [f.name for f in cache.group_families(files.checkpoints_folder(), tuple(rows))] == [
        "fer2013-ravdess",
        "demo",
    ]
    assert Run(files.checkpoints_folder() / "a-cp-1").config.name == "demo"
