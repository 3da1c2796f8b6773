"""Runs are named, noted, tagged, put away and brought back, and nothing of them is lost."""

from __future__ import annotations

import json

import pytest

from core.__main__ import main
from core.config.presets import SMOKE
from core.config.serialisation import run_name
from core.files import UserError
from core.runs import notes, store
from core.runs.directory import SHIPPED_RUNS


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(folder):
    made = store.create(folder / run_name(SMOKE, "digest"), SMOKE)
    store.record_metrics(made, 3, {"FID": 2.0})
    store.update(made, state="stopped", step=3)
    return made


def row(run):
    return next((r for r in store.list_runs() if r["run"] == run.id), None)


def runs(*words, capsys):
    status = main(["runs", *words])
    out = capsys.readouterr()
    return status, out.out + out.err


def test_a_run_is_named_noted_and_tagged_from_the_terminal(run, capsys):
    assert runs("rename", run.id, "For the talk", capsys=capsys)[0] == 0
    assert runs("note", run.id, "flat after step 900", capsys=capsys)[0] == 0
    assert runs("tag", run.id, "Talk, best, talk", capsys=capsys)[0] == 0
    assert notes.read(run) == notes.Notes("For the talk", "flat after step 900", ("talk", "best"))
    assert store.reindex() == 1  # they lie in the run's folder
    assert (row(run)["title"], row(run)["tags"]) == ("For the talk", ("talk", "best"))
    for word in ("TALK", "step 900", run.id[:8]):
        assert run.id in runs("list", word, capsys=capsys)[1]
    assert run.id not in runs("list", "another", capsys=capsys)[1]
    assert runs("tag", run.id, capsys=capsys)[0] == 0
    assert notes.read(run).tags == ()
    status, said = runs("rename", run.id, "x" * 81, capsys=capsys)
    assert status == 1
    assert "at most 80 letters" in said
    notes.write(run, title="", note="")
    assert not (run.directory / notes.FILE).exists()


def test_a_deleted_run_comes_back_whole(run, capsys):
    before = {p.name: p.read_bytes() for p in run.directory.iterdir() if p.is_file()}
    status, said = runs("delete", run.id, capsys=capsys)
    assert status == 0
    assert f"runs restore {run.id}" in said
    assert row(run) is None
    assert store.load_curves(run.id) == {}
    assert store.deleted_runs() == [run.id]
    assert "deleted, for `runs restore`" in runs(capsys=capsys)[1]
    assert runs("restore", run.id, capsys=capsys)[0] == 0
    assert {p.name: p.read_bytes() for p in run.directory.iterdir() if p.is_file()} == before
    assert row(run)["state"] == "stopped"
    assert store.load_curves(run.id) == {"FID": ([3], [2.0])}
    assert store.deleted_runs() == []


def test_what_must_not_be_deleted_stays_and_says_why(run, folder):
    store.update(run, state="running", pid=0)
    with pytest.raises(UserError, match="stop its training first"):
        store.delete(run)
    store.update(run, state="stopped")
    with store.training_lock(run), pytest.raises(UserError):
        store.delete(run)
    shipped = store.create(folder / sorted(SHIPPED_RUNS)[0], SMOKE)
    (shipped.directory / "CARD.md").touch()
    store.update(shipped, state="done")
    with pytest.raises(UserError, match="archive it"):
        store.delete(shipped)
    store.delete(run)
    again = store.create(run.directory, SMOKE)
    store.update(again, state="stopped")
    with pytest.raises(UserError, match="delete that run first"):
        store.restore(run.id)
    with pytest.raises(UserError, match="remove that folder first"):
        store.delete(again)
    with pytest.raises(UserError, match="no deleted run 'other'; there are: " + run.id):
        store.restore("other")


def test_an_archived_run_is_chosen_last_and_brought_back(folder, run, capsys):
    newer = store.create(folder / f"{SMOKE.name}-newer", SMOKE)
    store.update(newer, state="stopped")
    assert runs("archive", newer.id, capsys=capsys)[0] == 0
    assert row(newer)["archived"] is True
    assert store.resolve(SMOKE.name) == run
    assert runs("restore", newer.id, capsys=capsys)[0] == 0
    assert row(newer)["archived"] is False


def test_only_an_exact_id_names_a_run_that_is_changed(run, capsys):
    for action in ("rename", "note", "tag", "archive", "delete"):
        status, said = runs(action, SMOKE.name, "text", capsys=capsys)
        assert status == 1
        assert f"did you mean {run.id}?" in said
        assert runs(action, capsys=capsys)[0] == 1
    assert notes.read(run) == notes.Notes()


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("[1, 2]", notes.Notes()),
        ("{", notes.Notes()),
        ('{"title": 3, "tags": "abc", "archived": "yes", "note": ["x"]}', notes.Notes()),
        ('{"title": "a\\u001b[2J"}', notes.Notes(title="a\\x1b[2J")),
        ('{"note": "one\\ntwo"}', notes.Notes(note="one\ntwo")),
        (json.dumps({"tags": [1, "A", "a"], "title": "t" * 99}), notes.Notes("t" * 80, "", ("a",))),
    ],
)
def test_a_strangers_notes_harm_nothing(run, content, read):
    (run.directory / notes.FILE).write_text(content)
    assert notes.read(run) == read
    assert row(run)["title"] == read.title


def test_a_finished_run_without_a_record_of_its_course_has_all_its_steps(folder):
    run = store.create(folder / "smoke-copy", SMOKE)
    store.update(run, state="done")
    assert row(run)["step"] == SMOKE.gan.steps
