"""A clip that was given once stays for the session, on every page that takes a face."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from core import files
from core.media import clips
from core.runs import store
from tests.support import trained_runs
from tests.support.app import assert_no_exception, open_page, page_text
from ui import film as speaking
from ui.widgets import uploads


@pytest.fixture
def film(landmark_model, tmp_path) -> bytes:
    """The drawn clip as a file."""
    clip, _ = uploads.load_example_clip("drawn")
    clips.write_clip(tmp_path / "talk.mp4", clip.frames, 12, clip.waveform)
    return (tmp_path / "talk.mp4").read_bytes()


def go(app, page: str):
    app.query_params.clear()
    return assert_no_exception(app.switch_page(f"pages/{page}.py").run())


def sounds(app) -> list[str]:
    return [a.proto.url for a in app.get("audio")]


def test_one_upload_is_a_choice_on_every_page(film):
    (turned,) = (r for r in trained_runs.SHIPPED if r.name.startswith("demo-reverse"))
    shutil.copytree(turned, files.checkpoints_folder() / turned.name)
    store.index_existing()
    app = open_page("listen")
    kinds = app.segmented_control(key="kind")
    assert uploads.LAST_LABEL not in kinds.options
    assert_no_exception(kinds.set_value("Upload").run())
    app.file_uploader(key="upload").set_value(("talk.mp4", film, "video/mp4")).run()
    frame = next(s for s in app.select_slider if s.label == "Frame at")
    assert_no_exception(frame.set_value(3).run())
    at = frame.format_func(3)
    heard = sounds(app)
    last = app.session_state["last clip"]
    assert f"{last.seen.times[last.seen.middle]:.2f} s" == at

    go(app, "condition")
    assert_no_exception(app.selectbox(key="cond face").set_value(uploads.LAST).run())
    assert len(sounds(app)) == 1
    assert "talk.mp4: your last clip" in page_text(app)

    go(app, "conformal")
    assert_no_exception(app.segmented_control(key="lab from").set_value(uploads.LAST).run())
    assert "talk.mp4 · not from the corpus" in page_text(app)
    assert_no_exception(app.segmented_control(key="lab step").set_value("generator").run())
    assert len(sounds(app)) == 3

    go(app, "reverse")
    kinds = app.segmented_control(key="reverse kind")
    assert_no_exception(kinds.set_value(uploads.LAST_LABEL).run())
    assert "its level was changed by" in page_text(app)

    go(app, "listen")  # as it was left: the uploader is empty, the clip, its frame and voices stay
    assert app.segmented_control(key="kind").value == "Upload"
    assert sounds(app) == heard
    choice = app.segmented_control(key="kind")
    assert_no_exception(choice.set_value(uploads.LAST_LABEL).run())
    assert sounds(app) == heard
    assert app.session_state["last clip"].tracked is last.tracked  # no copy


def test_a_clip_without_a_sound_is_no_voice_and_another_session_has_none(film, tmp_path):
    frames = uploads.load_example_clip("drawn")[0].frames
    clips.write_clip(tmp_path / "mute.mp4", frames, 12)
    app = open_page("listen")
    app.segmented_control(key="kind").set_value("Upload").run()
    mute = ("mute.mp4", (tmp_path / "mute.mp4").read_bytes(), "video/mp4")
    assert_no_exception(app.file_uploader(key="upload").set_value(mute).run())
    (turned,) = (r for r in trained_runs.SHIPPED if r.name.startswith("demo-reverse"))
    shutil.copytree(turned, files.checkpoints_folder() / turned.name)
    store.index_existing()
    go(app, "reverse")
    assert uploads.LAST_LABEL not in app.segmented_control(key="reverse kind").options
    other = open_page("condition", face=uploads.LAST)
    assert other.selectbox(key="cond face").value == "astronaut"
    assert not other.error


def test_a_film_is_made_of_the_frames_that_are_kept(landmark_model):
    clip, seen = uploads.load_example_clip("drawn")
    content = speaking.clip_content.__wrapped__("one", clip)
    again = clips.read_clip(content)
    assert np.abs(again.times[-1] - clip.times[-1]) < 0.1
    assert len(seen.aligned) == len(clip.frames)
