"""Listen with whole clips and with plain Griffin-Lim: what is offered, played and written."""

from __future__ import annotations

import json
import re

import pytest

from core import files, runs
from core.config import LogMel
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from tests.support.noise_corpora import page_markup
from ui import listen
from ui.session import cache
from ui.widgets import spectrogram, uploads

VOICES = 3


@pytest.fixture
def film(landmark_model):
    app = open_page("listen")
    assert not [
        c for c in app.segmented_control if c.label == "Voice for"
    ]  # a photograph has no length
    return assert_no_exception(app.radio(key="example").set_value("drawn").run())


def length(app):
    return next(c for c in app.segmented_control if c.label == "Voice for")


def test_a_films_whole_voice_with_what_was_told_when(film):
    short = [a.proto.url for a in film.get("audio")]
    assert_no_exception(length(film).set_value("Whole clip").run())
    whole = [a.proto.url for a in film.get("audio")]
    assert len(whole) == VOICES + 2  # a voice by each condition, A and B
    assert not set(whole) & set(short)
    assert count_elements(film, "bidi_component") == VOICES + 1
    assert count_elements(film, "download_button") == 3 * VOICES
    assert (
        page_markup(film).count("what was told when")
        == page_markup(film).count("what was heard when")
        == VOICES
    )
    assert "windows with one noise" in page_text(film)
    assert_no_exception(length(film).set_value("One second").run())
    assert [a.proto.url for a in film.get("audio")] == short


def test_an_emotion_that_is_named_is_told_all_the_time(film):
    film.selectbox(key="emotion").set_value("fear")
    assert_no_exception(length(film).set_value("Whole clip").run())
    assert "told one emotion: **fear**" in page_text(film)


def test_plain_griffin_lim_stands_beside(film):
    assert_no_exception(film.toggle(key="plain").set_value(True).run())
    assert count_elements(film, "audio") == 2 * VOICES + 2
    assert page_text(film).count("**C** Griffin-Lim") == VOICES
    assert_no_exception(length(film).set_value("Whole clip").run())
    assert count_elements(film, "audio") == 2 * VOICES + 2


def test_three_players_say_what_they_are(film):
    words = page_text(film)
    assert [words.count(f"**{letter}** ") for letter in "ABC"] == [
        2,
        2,
        VOICES,
    ]  # A and B are named once more in what is said of them
    assert re.search(r"changed by [+-]\d+\.\d dB", words)


def test_the_strip_shows_each_window_in_its_emotions_colours():
    classes = ("happy", "angry")
    one = {
        "from": 0.0,
        "to": 0.9,
        "time": 0.5,
        "c": {"happy": 0.75, "angry": 0.25},
        "heard by the scorer": {"happy": 0.6, "angry": 0.4},
    }
    two = {
        "from": 0.9,
        "to": 1.2,
        "time": 1.4,
        "c": {"happy": 0.0, "angry": 0.1},
        "heard by the scorer": {"happy": 0.9, "angry": 0.1},
    }
    html = listen.windows_html([one, two], classes)
    assert "0.90 to 1.20 s, face at 1.40 s: told angry 0.10, happy 0.00" in html
    assert "face at 0.50 s: heard happy 0.60, angry 0.40" in html
    assert "height:75.0%" in html
    assert "height:100.0%" in html  # p-values need not sum to one
    assert "flex:0.900" in html
    assert "1 of 2" in listen.agreement_text([one, two])
    bare = [one | {"c": {}}]  # a generator with no condition
    assert "told" not in listen.windows_html(bare, classes)
    assert listen.agreement_text(bare) == ""


def test_a_spectrogram_of_any_length_has_its_axis():
    for columns in (28, 112, 700, 2223, 6600):
        frame = spectrogram.axes_html(columns, -70.0, 10.0, LogMel(), "a voice")
        across = re.search(r'class="x">(.*?)<span class="title"', frame)
        assert 2 < across[1].count("<span") <= 7


def test_the_page_and_the_command_line_make_the_same(landmark_model):
    cp = next(r["run"] for r in runs.list_runs() if r["condition"] == "cp")
    _, seen = uploads.load_example_clip("drawn")
    one = cache.generate_long_voice.__wrapped__(
        files.checkpoints_folder() / cp, "x", seen, None, 4
    )  # its cache belongs to a visitor
    from core.inference import generation, long_form

    run = cache.load_run(cp)
    assert (
        one.sound.wav
        == generation.to_audio(run, long_form.generate_long_voice(run, seen, None, 4).y, 4).wav
    )
    json.dumps(one.facts)


def test_a_full_temporary_folder_is_no_fault_of_the_clip(tmp_path, monkeypatch):
    from core.media.containers import MediaError, UnreadableError
    from ui.widgets import uploads

    picture = b"\x89PNG\r\n\x1a\n"
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
        message = "could not be stored on the machine of this app.*Make room there"
        with pytest.raises(UnreadableError, match=message):
            next(uploads.track_bytes("clip.png", picture))
    with pytest.raises(MediaError, match="is a damaged picture"):
        next(uploads.track_bytes("clip.png", picture))
