"""Listen with whole clips and with plain Griffin-Lim: what is offered, played and written."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from core import files
from core.config.settings import LogMel, replace
from core.files import UserError
from core.inference import generation
from core.inference.film import dubbing
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
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


def test_the_server_draws_the_first_voices_before_a_visitor_comes(landmark_model, monkeypatch):
    drawn, draw = [], cache._draw_voice

    def counted(*given):
        drawn.append(given[3])
        return draw(*given)

    monkeypatch.setattr(cache, "_draw_voice", counted)
    listen.draw_first_voices()
    before = len(drawn)
    app = open_page("listen")
    assert len(drawn) == before, "the page draws none of them again"
    assert count_elements(app, "audio") > 0
    assert_no_exception(app.number_input(key="seed").set_value(listen.FIRST_SEED + 1).run())
    assert len(drawn) > before


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


def test_a_whole_clip_has_no_first_choice_of_one_frame(film):
    choice = film.selectbox(key="emotion")
    assert choice.format_func("").endswith("the face classifier's first choice")
    assert listen.WHOLE_CLIP_NOTE not in page_text(film)
    assert_no_exception(length(film).set_value("Whole clip").run())
    assert "in each window" in film.selectbox(key="emotion").format_func("")
    assert listen.WHOLE_CLIP_NOTE in page_text(film)
    assert "of 40</b> draws" not in page_markup(film)


def test_each_voice_says_how_often_it_is_heard_as_meant(film):
    assert page_markup(film).count("</b> draws (chance 7)") == VOICES
    assert page_markup(film).count("draw 40: heard as") == VOICES
    run = cache.load_run(trained_runs.the_run("label").id)
    _, seen = uploads.load_example_clip("drawn")
    x = seen.aligned[seen.middle]
    c, _ = generation.condition_of(run, generation.explain_face(run, x), "fear")
    heard = listen.heard_emotions.__wrapped__(run.run.directory, x, c, lambda done: None)
    one = generation.generate_voices(run, x, c, 0)
    assert heard[0] == generation.classify_samples(run, one)["scorer"][0].argmax()
    assert len(heard) == listen.DRAWS
    assert_no_exception(film.selectbox(key="emotion").set_value("fear").run())
    right = (heard == run.classes.index("fear")).sum()
    assert f"<b>{right} of 40</b> draws" in page_markup(film)
    for condition in ("label", "classifier", "cp"):
        share = listen.face_share.__wrapped__(trained_runs.the_run(condition).directory)
        assert listen.face_share_text(share) in page_text(film)


def test_a_slow_generator_is_asked_for_many_draws_by_a_button(landmark_model, monkeypatch):
    asked = []

    def heard(run_id, x, c, report):
        report(8)
        asked.append(run_id)
        return np.zeros(listen.DRAWS, int)

    monkeypatch.setattr(listen, "heard_emotions", heard)
    flow = replace(trained_runs.TINY_CONFIG, gan={"generator": "flow"})
    monkeypatch.setattr(listen.cache, "run_config", lambda run_id: flow)
    run = trained_runs.the_run("cp")

    def draw(run_id: str, K: int) -> None:
        import numpy

        from ui import listen

        listen.show_rate(run_id, numpy.zeros((28, 28), "uint8"), numpy.eye(K)[0], "sad")

    app = AppTest.from_function(draw, args=(run.id, len(flow.data.classes)))
    assert_no_exception(app.run())
    assert asked == []
    assert_no_exception(app.button(key=f"draws {run.id}").click().run())
    assert asked == [run.id]
    assert "<b>40 of 40</b>" in page_markup(app)
    assert len(app.button) == 0


@pytest.mark.parametrize(("share", "words"), [(0.0002, "less than 1 %"), (0.134, "13 %")])
def test_the_faces_share_is_said_in_whole_percents(share, words):
    assert f"the face decides {words}, the emotion and the noise the rest" in (
        listen.face_share_text(share)
    )


def test_dots_are_full_where_a_voice_is_heard_as_meant():
    text = listen.rate_html(np.array([1, 1, 0]), 1, ("happy", "sad"))
    assert "<b>2 of 3</b> draws (chance 2)" in text
    assert "what the judge hears in 3 draws: sad 2, happy 1" in text
    assert text.count("background:transparent") == 1
    assert "draw 3: heard as happy" in text


@pytest.mark.parametrize("example", ["astronaut", "drawn"])
def test_the_examples_open_with_voices_that_shipped_runs_make_as_meant(landmark_model, example):
    family = {"astronaut": "fer2013-ravdess", "drawn": "demo"}[example]
    seed = open_page("listen").number_input(key="seed").value
    _, seen = uploads.load_example_clip(example)
    x = seen.aligned[seen.middle]
    names = [f"{family}-{condition}" for condition in ("label", "classifier", "cp")]
    names += ["listening"] if example == "astronaut" else []
    for name in names:
        (source,) = (r for r in trained_runs.SHIPPED if r.name.startswith(name))
        run = generation.load_run(Run(source))
        judged = generation.judged_faces(seen)
        c, _ = generation.condition_of(run, generation.explain_film(run, judged))
        y = generation.generate_voices(run, x, c, seed)
        heard = generation.classify_samples(run, y)["scorer"][0]
        assert heard.argmax() == c.argmax(), name


def test_the_drawn_clip_goes_to_a_run_on_drawn_faces(landmark_model):
    (shipped,) = (r for r in trained_runs.SHIPPED if r.name.startswith("fer2013-ravdess-cp"))
    shutil.copytree(shipped, files.checkpoints_folder() / shipped.name)
    store.index_existing()
    app = open_page("listen")
    assert app.selectbox(key="listen run").value == shipped.name
    assert "**C** " not in page_text(app)  # a photograph has no A and B
    assert_no_exception(app.radio(key="example").set_value("drawn").run())
    assert app.selectbox(key="listen run").value == tiny_run("cp")
    assert_no_exception(app.radio(key="example").set_value("astronaut").run())
    assert app.selectbox(key="listen run").value == shipped.name


def test_it_opens_with_a_run_that_was_made_to_be_heard(landmark_model):
    for name in ("fer2013-ravdess-cp", "listening"):
        (shipped,) = (r for r in trained_runs.SHIPPED if r.name.startswith(name))
        shutil.copytree(shipped, files.checkpoints_folder() / shipped.name)
    store.index_existing()
    app = open_page("listen")
    assert app.selectbox(key="listen run").value == shipped.name
    assert "Made to be heard" in page_text(app)
    assert len(app.get("audio")) or "generated" in page_text(app)


def tiny_run(condition: str) -> str:
    mine = (r for r in store.list_runs() if not r["shipped"] and r["condition"] == condition)
    return next(mine)["run"]


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
    cp = next(r["run"] for r in store.list_runs() if r["condition"] == "cp")
    _, seen = uploads.load_example_clip("drawn")
    one = cache.generate_long_voice.__wrapped__(
        files.checkpoints_folder() / cp, "x", seen, None, 4
    )  # its cache belongs to a visitor
    from core.inference import long_form

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


def test_the_clip_speaks_with_the_chosen_sound(film, monkeypatch):
    asked = []

    def speak(content, name, wave, comment, report):
        report("Writing the film", 1, 2)
        asked.append((len(content) > 1000, name, round(len(wave) / 16_000, 1), comment))
        return b"a film"

    def own(content, name, report):
        raise UserError(f"{name} [has] no sound")

    monkeypatch.setattr(dubbing, "with_voice", speak)
    monkeypatch.setattr(dubbing, "with_own_sound", own)
    assert count_elements(film, "video") == len(asked) == 0  # nothing is encoded unasked
    sounds = next(c for c in film.segmented_control if c.label == "Play the clip with")
    assert sounds.options == ["Label", "Classifier", "CP", "Original sound"]
    assert_no_exception(sounds.set_value("cp").run())
    assert count_elements(film, "video") == 1
    long_enough, name, seconds, comment = asked.pop()
    _, seen = uploads.load_example_clip("drawn")
    assert long_enough
    assert seconds == round(len(seen.waveform) / 16_000, 1)
    assert trained_runs.the_run("cp").id in comment
    assert "nobody's voice" in comment
    sounds = next(c for c in film.segmented_control if c.label == "Play the clip with")
    assert_no_exception(sounds.set_value("original").run())
    assert count_elements(film, "video") == 0
    assert "no sound" in film.error[0].value
    assert asked == []
    assert_no_exception(film.radio(key="example").set_value("astronaut").run())
    assert "Play the clip with" not in [c.label for c in film.segmented_control]  # a still
