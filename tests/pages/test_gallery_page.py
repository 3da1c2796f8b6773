"""The page Gallery in every state: no run, a trained one, no corpora, a damaged run.

Also the sheet, one item, the quiz, and hostile URLs.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
import zlib

import numpy as np
import pytest
import soundfile

from core import files
from core.data import prepared_corpora
from core.data.demo import expressions
from core.data.demo import voices as demo_voices
from core.inference import examples
from core.inference.gallery import selection
from core.media.faces import alignment
from core.runs import store
from core.runs.directory import Run
from tests.support import trained_runs
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from tests.support.noise_corpora import HOSTILE_TEXTS, page_markup
from ui.gallery import item, quiz
from ui.gallery import voices as gallery
from ui.session import cache, images
from ui.widgets import contact_sheet, players

TAKES = trained_runs.TINY_CONFIG.data.demo_takes


def the_run(condition: str = "cp") -> Run:
    mine = (r for r in store.list_runs() if not r["shipped"] and r["condition"] == condition)
    return Run(files.checkpoints_folder() / next(mine)["run"])


def family_of(run: Run) -> cache.RunFamily:
    return next(f for f in cache.families() if run.id in f.members.values())


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


def test_the_open_item_is_one_of_the_sheet(own_trained_home):
    s = the_shown()
    order = selection.select_items(s.real, s.generated["label"])
    last = order[-1]
    app = open_page("gallery", item=str(s.real.row[last]))
    assert app.number_input(key="gallery sheet").value == -(-len(order) // 8)
    assert str(s.real.clip[last]) in page_markup(app)
    assert_no_exception(app.number_input(key="gallery sheet").set_value(1).run())
    assert str(s.real.clip[order[0]]) in page_markup(app)
    assert "item" not in app.query_params
    assert f"Page 1 of {-(-len(order) // 8)}" in [n.label for n in app.number_input]


def test_filters_close_an_item_that_they_leave_out(own_trained_home, monkeypatch):
    s = the_shown()
    zipped, draw = [], players.download

    def record(label, content, name, **more):
        zipped.append(name)
        draw(label, content, name, **more)

    monkeypatch.setattr(players, "download", record)
    happy, sad = (int(np.nonzero(s.real.label == k)[0][-1]) for k in (1, 2))
    app = open_page("gallery", item=str(s.real.row[happy]))
    app.selectbox(key="gallery emotion").set_value(s.classes[2])
    assert_no_exception(app.run())
    first = selection.select_items(s.real, s.generated["label"], 2)[0]
    assert str(s.real.clip[first]) in page_markup(app)
    assert str(s.real.clip[happy]) not in page_markup(app)
    assert zipped[-1].endswith(f"-{s.real.row[first]}.zip")
    assert "item" not in app.query_params
    app = open_page("gallery", item=str(s.real.row[sad]), emotion=s.classes[2])
    assert str(s.real.clip[sad]) in page_markup(app)  # one that they keep stays open


def test_all_items_can_be_reached_without_the_sheet(own_trained_home):
    s = the_shown()
    order = selection.select_items(s.real, s.generated["label"])
    app = open_page("gallery")
    assert app.button(key="previous item").disabled
    assert_no_exception(app.button(key="next item").click().run())
    assert str(s.real.clip[order[1]]) in page_markup(app)
    assert_no_exception(app.selectbox(key="gallery item").set_value(order[8]).run())
    assert str(s.real.clip[order[8]]) in page_markup(app)
    assert app.number_input(key="gallery sheet").value == 2
    assert_no_exception(app.button(key="previous item").click().run())
    assert str(s.real.clip[order[7]]) in page_markup(app)
    assert app.number_input(key="gallery sheet").value == 1
    assert_no_exception(app.selectbox(key="gallery item").set_value(order[-1]).run())
    assert app.button(key="next item").disabled


def test_an_item_is_told_in_words(own_trained_home):
    s = the_shown()
    words = item.item_text(s, np.array([5, 3]), 1, "cp")
    heard = int(s.generated["cp"].scorer[3].argmax())
    mark = "✓" if heard == s.real.label[3] else "✕"
    assert words == (
        f"2 of 2 · {s.classes[s.real.label[3]]} · {s.real.subject[3]} · "
        f"CP heard as {s.classes[heard]} {mark}"
    )


def test_every_verdict_and_order_has_its_words():
    assert item.VERDICT_LABELS.keys() == selection.VERDICTS.keys()
    assert item.ORDER_LABELS.keys() == selection.ORDERS.keys()


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


def with_shipped_run(name: str) -> Run:
    """A shipped run in the home that the environment names."""
    (source,) = (r for r in trained_runs.SHIPPED if r.name.startswith(name))
    shutil.copytree(source, files.checkpoints_folder() / source.name)
    store.index_existing()
    return Run(files.checkpoints_folder() / source.name)


def test_without_corpora_it_shows_what_the_run_ships_and_says_what_lacks(home):
    run = with_shipped_run("fer2013-ravdess-cp")
    app = open_page("gallery")
    stored = run.arrays("generated")
    assert "are not on this machine" in page_text(app)
    assert "no faces here" in page_text(app)
    assert f"{len(stored['row'])} samples" in page_text(app)
    assert "56 of ravdess that came with the run" in page_text(app)
    assert count_elements(app, "audio") == 2  # the real voice that the run brings, and a generated
    assert any("Fetch RAVDESS" in e.proto.label for e in app.get("page_link"))
    app = open_page("gallery", look="copy", set="S3")
    assert "training voices" in page_text(app)
    quiz = assert_no_exception(open_page("gallery", view="quiz"))
    assert "needs real voices" not in page_text(quiz)  # it has those that the run brings
    with zipfile.ZipFile(io.BytesIO(gallery.item_zip(the_shown(), 0))) as z:
        assert {"real.wav", "TERMS.txt"} <= set(z.namelist())
        assert "cp.wav" in z.namelist()


@pytest.fixture
def quick_demo(monkeypatch):
    """Invented faces and voices are noise of their take, which is made at once."""

    def noise(take) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(take.clip_id.encode()))

    def face(take, *_, **__):
        return noise(take).integers(0, 256, (64, 64, 3), np.uint8), alignment.CANONICAL_POINTS * 64

    def voice(take, *_, **__):
        return (0.1 * noise(take).standard_normal(26_000)).astype(np.float32)

    monkeypatch.setattr(expressions, "render_face", face)
    monkeypatch.setattr(demo_voices, "synthesise_voice", voice)


def test_without_corpora_the_demo_is_drawn_and_comes_first(own_trained_home, quick_demo):
    with_shipped_run("fer2013-ravdess-cp")
    without_corpus()
    run = the_run("cp")
    app = open_page("gallery")
    assert app.selectbox(key="gallery run").value == run.id
    assert r"**demo\-2 is not on this machine**" in page_text(app)  # as Data names it
    assert "drawn anew" in page_text(app)
    assert (count_elements(app, "plotly_chart"), count_elements(app, "bidi_component")) == (1, 4)
    assert count_elements(app, "audio") == 2 + 3
    assert any(
        e.proto.query_string == "part=corpora" and "Draw the demo" in e.proto.label
        for e in app.get("page_link")
    )
    s, kept = gallery.load_set(family_of(run), "S4"), run.arrays("generated")
    assert len(s.real.face) == len(s.real.voices.y) == len(kept["row"])
    np.testing.assert_array_equal(s.generated["cp"].y, kept["y"])  # the run's own, not others
    for i in (0, len(kept["row"]) - 1):
        number = int((s.real.label[:i] == s.real.label[i]).sum())
        one = examples.load_face_example(run, s.classes[s.real.label[i]], number)
        np.testing.assert_array_equal(s.real.face[i], one.face)
        np.testing.assert_array_equal(s.real.voices.y[i], one.real)
    assert "needs real voices" not in page_text(open_page("gallery", view="quiz"))


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


def test_a_run_without_outputs_is_left_out(own_trained_home):
    (the_run().directory / "outputs.npz").unlink()
    app = open_page("gallery")
    assert app.selectbox(key="gallery run").value == the_run("label").id
    assert count_elements(app, "bidi_component") == 3  # real, label and classifier


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
