"""The page Gallery in every state: no run, a trained one, no corpora, a damaged run.

Also the sheet, one item, the quiz, and hostile URLs.
"""

from __future__ import annotations

import io
import json
import re
import zipfile

import numpy as np
import pytest
import soundfile

from core import files, runs
from core.data import prepared_corpora
from core.inference.gallery import selection
from core.runs import Run
from tests.support import trained_runs
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from tests.support.noise_corpora import HOSTILE_TEXTS, page_markup
from ui.gallery import item, quiz
from ui.gallery import voices as gallery
from ui.session import cache, images
from ui.widgets import contact_sheet

TAKES = trained_runs.TINY_CONFIG.data.demo_takes


def the_run(condition: str = "cp") -> Run:
    return Run(
        files.checkpoints_folder()
        / next(r["run"] for r in runs.list_runs() if r["condition"] == condition)
    )


def the_shown(name: str = "S4") -> gallery.GallerySet:
    return gallery.load_set(cache.families()[0], name)


def without_corpus() -> None:
    prepared_corpora.corpus_path("demo", TAKES).unlink()


def test_without_any_run_it_says_what_to_do(home):
    app = open_page("gallery")
    assert "no trained run yet" in page_text(app)
    assert count_elements(app, "plotly_chart") == 0


@pytest.mark.parametrize("state", ["running", "failed", "stopped"])
def test_unfinished_runs_are_not_shown(home, state):
    trained_runs.fabricate_run(state)
    assert "no trained run yet" in page_text(open_page("gallery"))


def test_a_sheet_and_one_item_in_full(own_trained_home):
    app = open_page("gallery")
    s = the_shown()
    assert (count_elements(app, "plotly_chart"), count_elements(app, "bidi_component")) == (
        1,
        4,
    )  # the sheet; real and three conditions
    assert count_elements(app, "audio") == 2 + 3  # A and B, three times C
    assert f"{len(s.real)} of {len(s.real)} faces" in page_text(app)
    first = selection.select_items(s.real, s.generated["label"])[0]
    assert str(s.real.clip[first]) in page_markup(app)
    assert not app.error
    assert not app.query_params
    assert count_elements(app, "download_button") == 2


def test_all_choices_are_in_the_address_and_come_back(own_trained_home):
    app = open_page("gallery")
    s = the_shown()
    who = str(s.real.subject[s.real.label == 2][0])
    for name, value in (
        ("emotion", s.classes[2]),
        ("subject", who),
        ("condition", "cp"),
        ("sort", "strange"),
    ):
        app.selectbox(key=f"gallery {name}").set_value(value).run()
    app.segmented_control(key="gallery look").set_value("copy").run()
    rows = selection.select_items(s.real, s.generated["cp"], 2, who, order="strange")
    line = f"{len(rows)} of {len(s.real)} faces"
    assert line in page_text(assert_no_exception(app))
    assert str(s.real.clip[rows[0]]) in page_markup(app)
    kept = {k: v[0] if isinstance(v, list) else v for k, v in app.query_params.items()}
    assert kept == {
        "emotion": s.classes[2],
        "subject": who,
        "condition": "cp",
        "sort": "strange",
        "look": "copy",
    }
    again = open_page("gallery", **kept)
    assert line in page_text(again)
    assert (count_elements(again, "plotly_chart"), count_elements(again, "bidi_component")) == (
        2,
        2,
    )  # sheet and distances; generated and nearest
    d = s.generated["cp"].near_db[rows[0]]
    assert f"**{d:.1f} dB**" in page_text(again)
    assert str(s.real.trained.clip[s.generated["cp"].near[rows[0]]]) in page_markup(again)


def test_pages_of_the_sheet_and_an_item_by_its_row(own_trained_home):
    s = the_shown()
    item = len(s.real) - 1
    app = open_page("gallery", sheet="2", item=str(s.real.row[item]))
    assert app.number_input(key="gallery sheet").value == 2
    assert str(s.real.clip[item]) in page_markup(app)
    assert_no_exception(app.number_input(key="gallery sheet").set_value(1).run())
    assert str(s.real.clip[item]) in page_markup(app)  # who is open stays open
    assert app.query_params["sheet"] in ("1", ["1"])


def test_the_faces_that_were_trained_on_can_be_seen_too(own_trained_home):
    app = open_page("gallery", set="S3")
    s = the_shown("S3")
    assert app.selectbox(key="gallery set").value == "S3"
    assert f"of {len(s.real)} faces" in page_text(app)
    assert s.real.name == "S3"
    assert_no_exception(app.selectbox(key="gallery set").set_value("S4").run())
    assert f"of {len(the_shown().real)} faces" in page_text(app)


def test_filters_that_leave_nothing_say_so(own_trained_home):
    s = the_shown()
    wanted = next(
        (v, e)
        for v in selection.VERDICTS
        for e in range(6)
        if not len(selection.select_items(s.real, s.generated["cp"], e, verdict=v))
    )
    app = open_page("gallery", condition="cp", verdict=wanted[0], emotion=s.classes[wanted[1]])
    assert "No voice is like that" in page_text(app)
    assert count_elements(app, "plotly_chart") == 0


def test_hostile_addresses_are_ignored(own_trained_home):
    names = (
        "run",
        "view",
        "set",
        "emotion",
        "subject",
        "condition",
        "verdict",
        "sort",
        "sheet",
        "item",
        "look",
    )
    for text in (HOSTILE_TEXTS[0], HOSTILE_TEXTS[3], "9" * 30, "٣"):
        app = open_page("gallery", **dict.fromkeys(names, text))
        assert app.selectbox(key="gallery run").value == the_run().id
        assert app.number_input(key="gallery sheet").value == 1
        assert count_elements(app, "audio") == 5
        assert len(text) < 3 or text not in page_markup(app)


# --- what is not here -----------------------------------------------------------------------------


def test_without_corpora_it_shows_what_the_run_ships_and_says_what_lacks(own_trained_home):
    without_corpus()
    app = open_page("gallery")
    stored = the_run().arrays("generated")
    assert "demo is not on this machine" in page_text(app)
    assert "no faces and no real voices" in page_text(app)
    assert f"{len(stored['row'])} samples" in page_text(app)
    assert (count_elements(app, "plotly_chart"), count_elements(app, "bidi_component")) == (1, 3)
    assert count_elements(app, "audio") == 3
    links = [e.proto for e in app.get("page_link")]
    assert any(
        "Draw the demo" in link.label and link.query_string == "part=corpora" for link in links
    )
    app = open_page("gallery", look="copy", set="S3")
    assert "training voices" in page_text(app)
    assert "needs real voices" in page_text(open_page("gallery", view="quiz"))
    with zipfile.ZipFile(io.BytesIO(gallery.item_zip(the_shown(), 0))) as z:
        assert "real.wav" not in z.namelist()
        assert "cp.wav" in z.namelist()


def test_the_ways_to_a_corpus_name_its_size():
    assert gallery.corpus_link_label("ravdess") == "Fetch RAVDESS (208 MB)"
    assert "no download" in gallery.corpus_link_label("demo")
    assert gallery.corpus_link_label("my-own") == "Bring my\\-own"


def test_one_damaged_member_is_left_out_and_the_others_stay(own_trained_home):
    the_run("label").model_path("G").write_bytes(b"nothing")
    app = open_page("gallery")
    assert (count_elements(app, "plotly_chart"), count_elements(app, "bidi_component")) == (1, 3)
    for condition in ("cp", "classifier"):
        the_run(condition).model_path("G").unlink()
    import streamlit as st

    st.cache_resource.clear()
    app = open_page("gallery")
    assert "no trained generator" in app.error[0].value
    assert count_elements(app, "plotly_chart") == 0


def test_a_run_without_outputs_is_named(own_trained_home):
    (the_run().directory / "outputs.npz").unlink()
    assert "outputs.npz" in open_page("gallery").error[0].value.replace("\\", "")


# --- what is taken away ---------------------------------------------------------------------------


def test_the_bundle_holds_sounds_pictures_arrays_and_facts(own_trained_home):
    s = the_shown()
    i, m = 3, s.config.logmel
    with zipfile.ZipFile(io.BytesIO(gallery.item_zip(s, i))) as z:
        names = set(z.namelist())
        voices = ("real", "label", "classifier", "cp")
        assert names == {f"{v}.{k}" for v in voices for k in ("wav", "npy", "png")} | {
            "face.png", "face.npy", "facts.json", "TERMS.txt", "real-recording.wav",
        }  # fmt: skip
        np.testing.assert_array_equal(
            np.load(io.BytesIO(z.read("cp.npy"))), s.generated["cp"].y[i].astype(np.float32)
        )
        np.testing.assert_array_equal(np.load(io.BytesIO(z.read("face.npy"))), s.real.face[i])
        assert json.loads(z.read("facts.json"))["clip"] == s.real.clip[i]
        assert s.real.voices.clip[s.real.voice_row[i]] == s.real.clip[i]
        assert "invented" in z.read("TERMS.txt").decode()
        for name in ("real.wav", "cp.wav", "real-recording.wav"):
            wave, rate = soundfile.read(io.BytesIO(z.read(name)))
            assert rate == m.rate
            assert abs(len(wave) - m.columns * m.hop) <= m.hop
    assert gallery.items_csv(s, np.arange(5)).count("\n") == 6


def test_the_pictures_show_what_the_arrays_hold():
    y = np.full((112, 28), -1.0, np.float32)
    y[10, 0] = 1.0
    image = images.spectrogram_image(y)
    assert image.shape == (28, 112, 3)
    assert image[27, 10].sum() > 600  # low frequencies below, loud is bright
    assert image[0].sum(axis=1).max() < 60


def test_the_sheet_marks_verdicts_and_who_is_open(own_trained_home):
    s = the_shown()
    items = [0, 1, 2]
    figure = contact_sheet.build_figure(s.real, s.generated, items, s.classes, 1, s.config.logmel)
    spots, marks = figure.data
    assert sorted(set(spots.customdata)) == items
    wrong = [
        s.generated[c].scorer[i].argmax() != s.real.label[i] for i in items for c in s.generated
    ]
    assert [m == "x" for m in marks.marker.symbol] == wrong
    assert len(figure.layout.shapes) == 1
    assert len(figure.to_json()) < 400_000
    figure = contact_sheet.distance_histogram(s.real.real_nearest_db, {"cp": 3.0, "label": 99.0})
    assert figure.data[0].y.sum() == len(s.real.real_nearest_db)
    assert "dB" in figure.layout.xaxis.title.text
    assert figure.layout.xaxis.range[1] > 99


# --- the quiz -------------------------------------------------------------------------------------


def test_a_whole_game_is_played_scored_and_begun_anew(own_trained_home):
    app = open_page("gallery", view="quiz")
    s, name = the_shown(), f"quiz {cache.families()[0].id}"
    questions = selection.make_rounds(s.real, list(s.generated), app.session_state[name]["seed"])
    answers = [q.is_generated for q in questions]
    answers[4] = not answers[4]  # one mistake
    for number, answer in enumerate(answers):
        assert f"Voice {number + 1} of 10" in page_text(app)
        assert count_elements(app, "audio") == 1  # one voice, and no picture of it
        assert count_elements(app, "bidi_component") == 0
        assert_no_exception(
            app.button(key=f"quiz {quiz.ANSWER_LABELS[answer]} {number}").click().run()
        )
        assert ("Right: it was" in page_text(app)) == (number != 4)
        assert count_elements(app, "audio") == count_elements(app, "bidi_component") == 2
        assert_no_exception(app.button(key="quiz next").click().run())
    score = selection.score_answers(questions, answers, s.real.label)
    assert [m.value for m in app.metric] == ["9 of 10", "5", "5"]
    assert f"**{score.chance:.0%}**" in page_text(app)
    assert s.classes[s.real.label[questions[4].item]] in page_markup(app)
    assert app.query_params in ({"view": "quiz"}, {"view": ["quiz"]})  # nothing to peek at
    assert_no_exception(app.button(key="quiz again").click().run())
    assert "Voice 1 of 10" in page_text(app)
    assert "9 of 10" in page_text(app)
    assert app.session_state[name]["answers"] == []


def test_both_kinds_of_voices_look_the_same_from_outside(own_trained_home):
    s = the_shown()
    game = selection.make_rounds(s.real, list(s.generated), 1)
    waves = {
        q.is_generated: gallery.to_audio(s.members[q.condition], quiz.question_voice(s, q)).wav
        for q in game
    }
    heads = [re.sub(rb"data.*", b"", w, flags=re.S) for w in waves.values()]
    assert len({len(w) for w in waves.values()}) == 1
    assert len(set(heads)) == 1  # no comment, no other format
    assert quiz.question_voice(s, game[0]).dtype == np.float32


def test_a_game_left_in_the_middle_goes_on(own_trained_home):
    app = open_page("gallery", view="quiz")
    assert_no_exception(app.button(key="quiz Real 0").click().run())
    assert_no_exception(app.segmented_control(key="gallery view").set_value("browse").run())
    assert (count_elements(app, "plotly_chart"), count_elements(app, "bidi_component")) == (1, 4)
    assert_no_exception(app.segmented_control(key="gallery view").set_value("quiz").run())
    assert count_elements(app, "audio") == 2
    assert app.metric[0].value in ("0 of 1", "1 of 1")


def test_what_is_explained_names_all_three_players():
    for letter in ("A", "B", "C"):
        assert f"({letter})" in item.ABOUT
