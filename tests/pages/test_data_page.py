"""The page Data, prepared corpora: none, some, damaged; balance, sets, clips, hostile names."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest

from core import files
from core.config.settings import CREMA_EMOTIONS, Config, DataSettings
from core.data import preparation, prepared_corpora, splits
from core.data.demo import recordings
from tests.support import trained_runs
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from tests.support.noise_corpora import HOSTILE_TEXTS, page_markup, write_noise_corpus
from ui.data import set_split
from ui.session import corpora
from ui.widgets import charts

# --- what is here ------------------------------------------------------------------


def test_the_demo_is_shown_in_every_view(home):
    trained_runs.prepare_noise_demo()
    stem = corpora.prepared_stems()[0]
    app = open_page("data")
    shown = app.dataframe[0].value
    assert shown["Name"].tolist() == [stem]
    assert (shown[["Clips", "Faces", "Voices"]] == len(corpora.load_summary(stem).clip)).all(
        axis=None
    )
    assert shown["Digest"].tolist() == [
        prepared_corpora.load_corpus_file(
            prepared_corpora.processed_folder() / f"{stem}.npz"
        ).digest
    ]
    assert count_elements(app, "plotly_chart") == 2
    assert "12 female" in page_text(app)
    assert "of each emotion: evenly spread" in page_text(app)
    for view, words in (
        ("sets", "Nobody is in two sets"),
        ("clips", "drawn again"),
        ("left-out", "Nothing was left out"),
    ):
        app.segmented_control(key="view").set_value(view).run()
        assert words in page_text(assert_no_exception(app)), view
        assert app.query_params["view"] == view


def test_of_several_corpora_the_one_in_the_address_is_shown_if_it_is_there(home):
    write_noise_corpus("one")
    write_noise_corpus("two", faces=False)
    assert open_page("data").selectbox(key="corpus").value == "one"
    app = open_page("data", corpus="two", view="clips")
    assert app.selectbox(key="corpus").value == "two"
    assert "This clip has no face" in page_text(app)
    assert_no_exception(app.selectbox(key="corpus").set_value("one").run())
    assert app.query_params["corpus"] == "one"
    for strange in (*HOSTILE_TEXTS, "../one", "one.npz", ""):
        query = dict.fromkeys(
            (
                "corpus",
                "part",
                "view",
                "emotion",
                "subject",
                "clip",
                "fold",
                "seed",
                "form",
                "errand",
            ),
            strange,
        )
        app = open_page("data", **query)
        assert app.selectbox(key="corpus").value == "one"
        assert strange == "" or strange not in page_markup(app)


@pytest.mark.parametrize("damage", ["cut", "text", "lengths", "pickle", "no meta"])
def test_a_damaged_corpus_is_named_and_the_others_stay(home, damage):
    write_noise_corpus("good")
    path = write_noise_corpus("bad")
    arrays = files.read_arrays(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:900])
    elif damage == "text":
        path.write_text("no zip")
    elif damage == "pickle":
        np.savez(path, **arrays | {"clip": np.array([{}], object)})
    else:
        files.write_arrays(
            path,
            **(
                arrays | {"clip": arrays["clip"][:3]}
                if damage == "lengths"
                else arrays | {"meta": np.array("{}")}
            ),
        )
    app = open_page("data", corpus="bad")
    assert "is damaged" in page_text(app)
    assert "Remove it and prepare the corpus again" in page_text(app)
    assert app.selectbox(key="corpus").value == "good"
    assert count_elements(app, "plotly_chart") == 2


def test_nothing_large_is_read_before_it_is_asked_for(home):
    path = write_noise_corpus("one")
    with zipfile.ZipFile(path) as z:
        at = z.getinfo("voices.npy").header_offset + 200
    with open(path, "r+b") as f:  # what reads the voices will stumble over this
        f.seek(at)
        f.write(bytes(400))
    assert count_elements(open_page("data"), "plotly_chart") == 2
    app = open_page("data", view="clips")
    assert "is damaged" in page_text(app)
    assert count_elements(app, "audio") == 0


# --- balance, sets, left out -------------------------------------------------------


def test_the_sets_are_those_of_a_run_and_nobody_is_in_two(home):
    write_noise_corpus("one", votes="happy|sad")
    found = {"one": corpora.load_summary("one")}
    data = corpora.data_settings(("one", "one"), found, fold=3, split_seed=7)
    assert data == DataSettings(
        faces="one", voices="one", classes=CREMA_EMOTIONS, pairing="clip", fold=3, split_seed=7
    )
    table = corpora.set_table(("one", "one"), data)
    assert table == splits.set_table(splits.build_sets(Config(data=data)))
    app = open_page("data", corpus="one", view="sets", fold="3", seed="7")
    assert "10 subjects of the clips, each in exactly one set" in page_text(app)
    shown = page_markup(app)
    for name, of in table.items():
        assert f"**{name}**" in shown
        assert set(of["voices"]["subjects"]) <= set(found["one"].subjects)
    assert_no_exception(app.number_input(key="fold").set_value(4).run())
    assert app.query_params["fold"] == "4"


def test_somebody_in_two_sets_would_be_seen(home, monkeypatch):
    write_noise_corpus("one")
    real = corpora.set_table(
        ("one", "one"), corpora.data_settings(("one", "one"), {"one": corpora.load_summary("one")})
    )
    real["S4"]["voices"]["subjects"] |= {"p_*0*": {"sad": 1}}
    real["S1"]["voices"]["subjects"] |= {"p_*0*": {"sad": 1}}
    monkeypatch.setattr(corpora, "set_table", lambda *_: real)
    app = open_page("data", view="sets")
    assert "In two sets: p_*0*" in page_text(app).replace("\\", "")
    assert "Nobody" not in page_text(app)


def test_a_tied_vote_names_no_label_unless_it_is_wished(home):
    write_noise_corpus("one", votes="happy|sad")
    app = open_page("data", corpus="one", view="sets")
    assert_no_exception(app.selectbox(key="labels one True").set_value("both").run())
    assert "would be empty" in page_text(app)  # all are tied, so all are dropped
    assert_no_exception(app.segmented_control(key="ties one").set_value("intended").run())
    assert "has too few subjects" not in page_text(app)
    assert "Nobody is in two sets" in page_text(app)


def test_faces_and_voices_of_two_corpora_are_split_each_for_itself(home):
    write_noise_corpus("mouths", voices=False, subjects=tuple(f"image-{i:05d}" for i in range(40)))
    app = open_page("data", corpus="mouths", view="sets")
    assert "has no voices of its own" in page_text(app)
    write_noise_corpus("ears", faces=False)
    app = open_page("data", corpus="mouths", view="sets")
    assert "10 subjects of the voices, each in exactly one set" in page_text(app)
    assert "40 groups" in page_text(app)
    assert "meet by emotion" in page_text(app)
    app = open_page("data", corpus="mouths", view="balance")
    assert "not known who is seen" in page_text(app)
    assert count_elements(app, "plotly_chart") == 1


def test_what_was_left_out_is_grouped_by_its_reason(home):
    reasons = {
        f"c-{i}_X": f"NoFaceError: c-{i}_X: no face within 25 frames of the middle"
        for i in range(3)
    }
    reasons |= {
        HOSTILE_TEXTS[0]: f"MediaError: {HOSTILE_TEXTS[0]} is empty. Copy or record it again",
        "landmarks/happy": "3 of 9 aligned",
    }
    write_noise_corpus("one", left_out=reasons)
    app = open_page("data", view="left-out")
    assert "4 of 64 clips" in page_text(app)
    labels = [e.label for e in app.expander]
    assert labels[0].startswith("3 × ")
    assert "no face within … frames of the middle" in labels[0].replace("\\", "")
    assert all("<" not in label.replace("\\<", "") for label in labels)
    assert (
        sum(HOSTILE_TEXTS[0] in str(d.value) for d in app.dataframe) == 1
    )  # a table's cells are text
    assert "Kept, with a remark" in page_text(app)


def test_remarks_and_files_passed_over_are_grouped(home):
    notes = {f"p00{i}_sad": f"{i + 2} faces are in the frame: the largest is taken" for i in (0, 1)}
    notes["p000_fear"] = f"the face is blurred; {HOSTILE_TEXTS[0]}"
    path = write_noise_corpus("one", notes=notes)
    passed = {"a.docx": "no medium", "b/c.DOCX": "no medium", HOSTILE_TEXTS[1]: HOSTILE_TEXTS[0]}
    side = prepared_corpora.source_record_path(path)
    side.write_text(json.dumps({"source": "/x", "clips": {}, "passed_over": passed}))
    app = open_page("data", view="left-out")
    assert "3 files of the source belong to no clip" in page_text(app)
    assert "Nothing was left out" not in page_text(app)
    labels = [e.label.replace("\\", "") for e in app.expander]
    assert labels[0] == "2 × … faces are in the frame: the largest is taken"
    assert "1 × the face is blurred" in labels
    assert "2 × .docx: no medium" in labels
    tables = [d.value.to_dict("list") for d in app.dataframe]
    assert {"File": ["a.docx", "b/c.DOCX"]} in tables
    assert {"Clip": ["p000_fear"], "Remark": ["the face is blurred"]} in tables
    assert all(text not in page_markup(app) for text in HOSTILE_TEXTS[:1])
    side.write_text(json.dumps({"passed_over": ["damaged"]}))
    assert "Passed over" not in page_text(open_page("data", view="left-out"))


# --- clips -------------------------------------------------------------------------


def test_rows_are_read_without_the_rest(home):
    arrays = files.read_arrays(write_noise_corpus("one"))
    c = corpora.load_summary("one")
    for row in (0, 17, len(c.clip) - 1):
        np.testing.assert_array_equal(corpora.load_face(c, row), arrays["faces"][row])
        np.testing.assert_allclose(
            corpora.load_voice(c, row),
            np.clip(2 * arrays["voices"][row] / 80 + 1, -1, 1),
            atol=1e-6,
        )
    assert "has no row" in corpora.read_array_row(*corpora.path_and_mtime("one"), "faces", -1)


def test_clips_are_chosen_by_emotion_subject_name_and_address(home):
    write_noise_corpus("one", votes="sad", subjects=tuple(f"p{i:03d}" for i in range(30)))
    app = open_page("data", view="clips", clip="p017_fear")
    assert "p017_fear" in page_markup(app)
    assert "raters who heard" in page_markup(app)
    assert "≠ meant" in page_markup(app)
    assert count_elements(app, "audio") == 1
    assert "180 of 180 clips" in page_text(app)
    assert len(app.dataframe[1].value) == corpora.CLIPS_PER_PAGE
    assert_no_exception(app.selectbox(key="emotion one").set_value("sad").run())
    assert_no_exception(app.selectbox(key="subject one").set_value("p003").run())
    assert app.dataframe[1].value["Clip"].tolist() == ["p003_sad"]
    assert (app.query_params["emotion"], app.query_params["subject"]) == ("sad", "p003")
    assert_no_exception(app.text_input(key="search one").set_value("nothing like this").run())
    assert "No clip is like that" in page_text(app)


def test_names_of_people_and_clips_are_only_ever_text(home):
    write_noise_corpus("one", subjects=tuple(HOSTILE_TEXTS))
    for view in ("balance", "sets", "clips"):
        app = open_page("data", view=view, clip=f"{HOSTILE_TEXTS[4]}_sad")
        assert all(h not in page_markup(app) for h in (HOSTILE_TEXTS[0], HOSTILE_TEXTS[4])), view
    figure = charts.clips_by_subject(HOSTILE_TEXTS, {"sad": [1] * 5})
    assert "<script" not in figure.to_json()


def test_the_original_is_shown_while_its_source_is_there(home, tmp_path):
    trained_runs.install_landmark_model(home)
    source = tmp_path / "drawn"
    recordings.draw_demo_clips(source, 2)
    path = preparation.prepare_corpus("demo-clips", source, workers=1)
    digest = prepared_corpora.load_corpus_file(path).digest
    side = json.loads(path.with_suffix(".source.json").read_text())
    assert side["source"] == str(source)
    assert set(side["clips"]) == set(prepared_corpora.load_corpus_file(path).clip)
    app = open_page("data", corpus="demo-clips", view="clips")
    assert count_elements(app, "audio") == 2
    assert "The frame in the middle of the recording" in page_text(app)
    moved = source.rename(tmp_path / "moved")
    second = {
        "corpus": "demo-clips",
        "view": "clips",
        "clip": str(prepared_corpora.load_corpus_file(path).clip[1]),
    }
    app = open_page("data", **second)
    assert f"no longer at {source}" in page_text(app).replace("\\", "")
    assert count_elements(app, "audio") == 1
    assert (
        preparation.prepare_corpus("demo-clips", moved, workers=1) == path
    )  # at once, and the place is known again
    assert prepared_corpora.load_corpus_file(path).digest == digest
    assert count_elements(open_page("data", **second), "audio") == 2
    shutil.rmtree(moved)
    path.with_suffix(".source.json").write_text('{"source": 3}')
    assert "not known where its source lies" in page_text(
        open_page("data", corpus="demo-clips", view="clips")
    )


def test_every_set_has_words():
    assert set(set_split.SET_ROLES) == set(splits.SET_NAMES)


def test_every_chart_of_a_corpus_names_its_axes():
    tables = {"faces": {s: {"sad": 1} for s in splits.SET_NAMES}}
    for figure in (
        charts.clips_by_emotion({"": {"sad": 3}}),
        charts.clips_by_subject(["a"], {"sad": [3]}),
        charts.clips_by_set(tables),
    ):
        layout = figure.to_dict()["layout"]
        assert layout["xaxis"]["title"]["text"]
        assert layout["yaxis"]["title"]["text"]


@pytest.mark.parametrize(("stem", "end"), [("demo-2", ", 2 takes of each emotion"), ("grid", "")])
def test_demo_corpora_of_other_sizes_have_other_titles(stem, end):
    none = np.array([], str)
    index = np.array([], int)
    one = corpora.CorpusSummary(stem, {"title": "T"}, *[none] * 4, index, index, none)
    assert one.title == f"T{end}"
