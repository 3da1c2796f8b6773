"""Evaluate's table of runs: search, tags, notes, archive, and deletion that can be undone."""

from __future__ import annotations

import pytest

from core.runs import notes, store
from tests.support import trained_runs
from tests.support.app import assert_no_exception, open_page
from ui.session import cache


@pytest.fixture
def app(own_trained_home):
    return open_page("evaluate")


def listed(app) -> set[str]:
    return set(app.dataframe[0].value["run"]) if len(app.dataframe) else set()


def ids() -> set[str]:
    return {r["run"] for r in store.list_runs()}


def write(app, **texts) -> str:
    """Fill the form of the run that it shows, and save; returns the run's id."""
    run_id = app.selectbox(key="managed run").value
    for name, text in texts.items():
        field = app.text_area if name == "note" else app.text_input
        field(key=f"{name} {run_id}").set_value(text)
    assert_no_exception(app.button(key="save notes").click().run())
    return run_id


def test_what_is_said_of_a_run_stands_in_the_table_and_finds_it(app):
    assert "title" not in app.dataframe[0].value.columns  # nobody has said anything
    run_id = write(app, title="For the talk", tags="Best, talk", note="flat after step 3")
    assert notes.read(cache.run_by_id(run_id)).tags == ("best", "talk")
    row = app.dataframe[0].value.set_index("run").loc[run_id]
    assert (row["title"], row["tags"]) == ("For the talk", "best, talk")
    for word in ("talk", "FLAT step", run_id[-8:]):
        assert_no_exception(app.text_input(key="find runs").set_value(word).run())
        assert listed(app) == {run_id}
    assert app.query_params["find"] in (run_id[-8:], [run_id[-8:]])
    assert_no_exception(app.text_input(key="find runs").set_value("no such word").run())
    assert listed(app) == set()
    assert "No run is found" in app.info[0].value
    assert_no_exception(app.text_input(key="find runs").set_value("").run())
    assert listed(app) == ids()
    tags = next(b for b in app.get("button_group") if b.label == "Tags")
    assert_no_exception(tags.set_value(["best"]).run())
    assert listed(app) == {run_id}


def test_a_deleted_run_comes_back_by_a_button(app):
    before, run_id = ids(), app.selectbox(key="managed run").value
    assert_no_exception(app.button(key="delete run").click().run())
    assert ids() == listed(app) == before - {run_id}
    assert store.deleted_runs() == [run_id]
    assert_no_exception(app.button(key=f"restore {run_id}").click().run())
    assert ids() == listed(app) == before


def test_an_archived_run_leaves_lists_and_choices_until_it_is_asked_for(app):
    run_id = app.selectbox(key="managed run").value
    members = {m for f in cache.families() for m in f.members.values()}
    assert run_id in members
    assert_no_exception(app.button(key="archive run").click().run())
    assert listed(app) == ids() - {run_id}
    assert members - {m for f in cache.families() for m in f.members.values()} == {run_id}
    assert run_id not in open_page("train").selectbox(key="train run").options
    assert_no_exception(app.toggle(key="archived runs").set_value(True).run())
    assert listed(app) == ids()
    assert_no_exception(app.selectbox(key="managed run").set_value(run_id).run())
    assert app.button(key="archive run").label == "List it again"
    assert_no_exception(app.button(key="archive run").click().run())
    assert not notes.read(cache.run_by_id(run_id)).archived


def test_why_a_run_cannot_be_deleted_is_said(app, monkeypatch):
    run = trained_runs.the_run()
    (store.files.checkpoints_folder() / store.DELETED_FOLDER / run.id).mkdir(parents=True)
    assert_no_exception(app.selectbox(key="managed run").set_value(run.id).run())
    assert_no_exception(app.button(key="delete run").click().run())
    assert "earlier run of this id" in app.error[0].value
    monkeypatch.setattr("core.runs.directory.SHIPPED_RUNS", frozenset([run.id]))
    (run.directory / "CARD.md").touch()
    assert_no_exception(app.run())
    assert app.button(key="delete run").disabled
