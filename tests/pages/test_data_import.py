"""The page Data, adding a corpus: form, instructions, tasks in every state, hostile names."""

from __future__ import annotations

import json

import pytest

from core.data import download, prepared_corpora
from core.experiments import tasks
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from tests.support.noise_corpora import (
    HOSTILE_TEXTS,
    page_markup,
    progress_texts,
    write_noise_corpus,
    write_task,
)
from ui.data import corpus_import
from ui.widgets import task_progress


@pytest.fixture
def asked(home, monkeypatch) -> list:
    """The arguments of every task that the page starts; none is really started."""
    got: list = []
    monkeypatch.setattr(tasks, "start", lambda arguments: got.append(list(arguments)) or "x-0")
    return got


def test_without_any_corpus_it_says_what_to_do_and_draws_the_demo(asked):
    app = open_page("data")
    assert "No corpus is prepared yet" in page_text(app)
    assert count_elements(app, "dataframe") == 0
    assert_no_exception(app.button(key="draw").click().run())
    assert asked == [["prepare", "demo"]]


def test_the_form_makes_arguments_and_never_a_command(asked, tmp_path):
    odd = tmp_path / "-rf $(x); 'y'"
    odd.mkdir()
    app = open_page("data", part="bring", form="ravdess")
    app.text_input(key="source").set_value(f" '{odd}' ").run()
    app.button(key="examine").click().run()
    app.number_input(key="frames").set_value(3).run()
    app.toggle(key="song").set_value(True).run()
    assert_no_exception(app.button(key="prepare").click().run())
    assert asked == [
        ["doctor", str(odd), "--corpus", "ravdess", "--seconds", "600", "--json"],
        ["prepare", "ravdess", "--source", str(odd), "--frames", "3", "--song"],
    ]
    assert app.query_params["errand"] == "x-0"
    assert str(odd) not in str(app.query_params)  # what is typed stays out of the address


@pytest.mark.parametrize(
    "path", ["", "   ", "/no/such/place", "\0", "~nobody-here/x", "<script>", "x" * 5000]
)
def test_a_path_that_is_none_starts_nothing(asked, path):
    app = open_page("data", part="bring", form="crema-d")
    app.text_input(key="source").set_value(path).run()
    assert_no_exception(app.button(key="examine").click().run())
    assert len(app.error) == 1
    assert "<" not in app.error[0].value.replace("\\<", "")
    assert asked == []


def test_a_typed_path_becomes_one_that_is_no_option(tmp_path, monkeypatch):
    (tmp_path / "--help").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("--help", "./--help/", "~/--help", f'"{tmp_path}/--help"'):
        assert corpus_import.parse_path(text) == tmp_path / "--help"


def test_own_data_gets_a_name_that_is_safe_as_a_file(asked, tmp_path):
    folder = tmp_path / "My Data ../x"
    folder.mkdir(parents=True)
    app = open_page("data", part="bring", form="folder")
    app.text_input(key="source").set_value(str(folder)).run()
    assert_no_exception(app.button(key="prepare").click().run())
    assert asked == [["prepare", "x", "--source", str(folder)]]
    for taken in ("RAVDESS", "demo-10", "123", "///"):
        app.text_input(key="name").set_value(taken).run()
        app.button(key="prepare").click().run()
        assert "cannot be a corpus" in page_text(assert_no_exception(app)), taken
    assert len(asked) == 1
    assert corpus_import.corpus_name("../../Etc/Päss wd", folder) == "etc-p-ss-wd"


@pytest.mark.parametrize("form", ["crema-d", "fer2013"])
def test_what_to_type_is_what_the_command_line_says(home, form):
    app = open_page("data", part="bring", form=form)
    raw = prepared_corpora.processed_folder().parent.resolve() / "raw"
    steps = download.manual_steps(form, raw / form)
    code = "\n".join(c.value for c in app.code)
    lines = [line.strip() for line in steps.splitlines() if line.startswith("  ")]
    assert lines
    assert all(line in code for line in lines)


def test_ravdess_is_fetched_if_there_is_room(asked, monkeypatch):
    app = open_page("data", part="bring")
    assert "0.2 GB from Zenodo" in page_text(app)
    assert_no_exception(app.button(key="fetch").click().run())
    assert asked == [["fetch", "ravdess", "--what", "audio"]]
    monkeypatch.setattr(
        corpus_import.shutil, "disk_usage", lambda p: type("U", (), {"free": 10**8})()
    )
    app = open_page("data", part="bring")
    assert "not enough room" in page_text(app)
    assert [b.key for b in app.button if b.key == "fetch"] == []


# --- tasks -----------------------------------------------------------------------


def test_a_running_task_is_shown_with_rate_and_time_left_and_can_be_stopped(home, monkeypatch):
    monkeypatch.setattr(tasks, "is_alive", lambda e: True)
    stopped = []
    monkeypatch.setattr(tasks, "stop", stopped.append)
    write_task(
        "prepare-1",
        "running",
        ["prepare", "crema-d", "--source", "/x"],
        pid=1,
        phase="prepare",
        done=1500,
        total=7442,
        rate=25.0,
    )
    app = open_page("data", part="bring", errand="prepare-1")
    assert progress_texts(app) == ["Reading: 1,500 of 7,442 clips · 25 clips/s · 4 min left"]
    assert_no_exception(app.button(key="stop prepare-1").click().run())
    assert stopped == ["prepare-1"]
    (tasks.folder() / "prepare-1.stop").touch()
    assert "Stopping" in progress_texts(open_page("data", part="bring", errand="prepare-1"))[0]


def test_a_fetching_task_counts_megabytes_and_one_that_begins_says_so(home, monkeypatch):
    monkeypatch.setattr(tasks, "is_alive", lambda e: True)
    write_task(
        "fetch-1",
        "running",
        ["fetch", "ravdess", "--what", "audio"],
        pid=1,
        phase="fetch",
        done=10**8,
        total=2 * 10**8,
        rate=2.5e6,
    )
    assert progress_texts(open_page("data", part="bring", errand="fetch-1")) == [
        "Fetching: 100 of 200 MB · 2.5 MB/s · 40 s left"
    ]
    write_task("fetch-1", "running", ["fetch", "ravdess", "--what", "audio"], pid=1)
    assert progress_texts(open_page("data", part="bring")) == ["Starting …"]


def test_the_demo_that_is_being_drawn_is_seen_among_the_corpora(home, monkeypatch):
    monkeypatch.setattr(tasks, "is_alive", lambda e: True)
    write_task(
        "prepare-1",
        "running",
        ["prepare", "demo"],
        pid=1,
        phase="prepare",
        done=72,
        total=1440,
        rate=9.0,
    )
    app = open_page("data")
    assert "Drawing: 72 of 1,440 clips" in progress_texts(app)[0]
    assert [b.key for b in app.button if b.key == "draw"] == []


def test_failed_and_stopped_tasks_say_why_and_go_on(asked):
    failed = write_task(
        "doctor-1",
        "failed",
        ["doctor", HOSTILE_TEXTS[0]],
        message=f"{HOSTILE_TEXTS[0]} does not exist",
    )
    stopped = write_task("prepare-1", "stopped", ["prepare", "one", "--source", "/x"])
    app = open_page("data", part="bring", errand="doctor-1")
    assert "does not exist" in app.error[0].value
    assert HOSTILE_TEXTS[0] not in page_markup(app)
    assert_no_exception(app.button(key="again doctor-1").click().run())
    app = open_page("data", part="bring", errand="prepare-1")
    assert "Continue" in [b.label for b in app.button]
    assert_no_exception(app.button(key="again prepare-1").click().run())
    assert asked == [failed.arguments, stopped.arguments]
    app = open_page("data", part="bring", errand="prepare-1")
    app.button(key="forget prepare-1").click().run()
    assert app.selectbox(key="errand").options == ["Examine " + HOSTILE_TEXTS[0] + " · failed"]


def test_a_finished_task_leads_on(home):
    write_noise_corpus("one")
    write_noise_corpus("two")
    write_task("prepare-1", "done", ["prepare", "two", "--source", "/x"], message="60 clips")
    write_task("fetch-1", "done", ["fetch", "ravdess", "--what", "audio"], message="1 files")
    app = open_page("data", part="bring", errand="fetch-1")
    assert_no_exception(app.button(key="use fetch-1").click().run())
    assert app.text_input(key="source").value == str(
        prepared_corpora.processed_folder().parent.resolve() / "raw" / "ravdess"
    )
    assert_no_exception(app.selectbox(key="errand").set_value("prepare-1").run())
    assert_no_exception(app.button(key="look prepare-1").click().run())
    assert_no_exception(app.run())
    assert app.segmented_control(key="part").value == "corpora"
    assert app.selectbox(key="corpus").value == "two"


def report(**fields) -> dict:
    fault = {
        "kind": "unreadable",
        "severity": "error",
        "names": HOSTILE_TEXTS,
        "details": {HOSTILE_TEXTS[0]: HOSTILE_TEXTS[1]},
    }
    fault |= {"means": "files that cannot be decoded", "fix": "git lfs pull", "count": 5}
    looked = {"names": [7442, 7442], "sounds": [120, 7442], "faces": [0, 0]}
    about = {
        "version": 1,
        "corpus": "crema-d",
        "root": HOSTILE_TEXTS[4],
        "counts": {"files": 7442, "clips": 7000},
        "looked_at": looked,
    }
    faults = [fault, fault | {"severity": "note", "kind": "odd-name"}]
    return about | {"faults": faults, "suspects": 0, "seconds": 61.0, "budget": 60.0} | fields


def test_a_report_shows_faults_names_and_fixes_as_text(home):
    write_task("doctor-1", "done", ["doctor", "/x", "--json"], json.dumps(report()))
    app = open_page("data", part="bring")
    text = page_markup(app)
    assert "CREMA\\-D" in text
    assert ":red-badge[5 errors]" in text
    assert ":gray-badge[5 notes]" in text
    assert "sounds heard: 120 of 7,442" in text.replace("\\", "")
    assert all(h not in text for h in HOSTILE_TEXTS)
    assert [c.value for c in app.code].count("git lfs pull") == 2
    assert app.dataframe[0].value["Name"].tolist() == HOSTILE_TEXTS
    assert "5 names" in [e.label for e in app.expander]


def test_a_report_without_faults_and_one_that_is_damaged(home):
    write_task("doctor-1", "done", ["doctor", "/x", "--json"], json.dumps(report(faults=[])))
    assert "No fault was found" in page_markup(open_page("data", part="bring"))
    for broken in ("", "[]", '{"corpus": "x"}'):
        write_task("doctor-1", "done", ["doctor", "/x", "--json"], broken)
        assert "cannot be read" in page_text(open_page("data", part="bring"))


def test_every_phase_and_state_has_words():
    assert set(task_progress.CHECK_TEXTS) <= set(task_progress.PHASE_TEXTS)
    assert set(task_progress.STATE_COLOURS) == {"running", "stopped", "failed", "done"}
