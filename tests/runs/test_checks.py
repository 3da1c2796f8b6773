"""A stranger's run is data: one validation, the reason beside the run, and no other run harmed.

The damages stand in tests/support/hostile_runs; tests/support/faults opens each by every page.
"""

from __future__ import annotations

import resource
import shutil

import pytest

from core import files
from core.__main__ import main
from core.runs import checks, store
from core.runs.directory import SHIPPED_RUNS, Run
from tests.support import hostile_runs, trained_runs
from tests.support.app import open_page, page_text

GOOD = files.ROOT / "checkpoints" / "demo-cp-87b4dc5a"


# One for each way in which pages and commands meet it.
FEW = (
    "hop-0",
    "config-fifo",
    "no name ![x](y)",
    "ref-db-nan",
    "row-markup",
    "outputs-nan",
    "G-cut",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder of runs: a good one, and a few hostile ones."""
    folder = tmp_path_factory.mktemp("hostile") / "checkpoints"
    shutil.copytree(GOOD, folder / GOOD.name)
    for name in FEW:
        hostile_runs.spoil(name, GOOD, folder)
    store.index_existing(folder)
    return folder


@pytest.mark.parametrize("path", trained_runs.SHIPPED, ids=lambda p: p.name)
def test_the_projects_own_runs_pass(path):
    assert checks.fault(Run(path)) is None


def test_the_shipped_runs_are_these():
    assert {p.name for p in trained_runs.SHIPPED} == SHIPPED_RUNS


@pytest.mark.parametrize("name", hostile_runs.HOSTILE)
def test_what_is_wrong_is_named_with_the_fix(tmp_path, name):
    fault = checks.fault(Run(hostile_runs.spoil(name, GOOD, tmp_path)))
    assert hostile_runs.HOSTILE[name][0] in fault.reason
    assert any(word in fault.reason for word in ("remove", "restore", "rename"))
    assert len(fault.reason.splitlines()) == 1


def test_a_run_that_can_be_made_again_stays_in_the_list(hostile):
    left_out = store.unreadable_runs(hostile)
    rows = {r["run"]: r for r in store.list_runs(hostile)}
    assert set(left_out) == set(FEW[:3])
    assert set(rows) == {GOOD.name, *FEW[3:]}
    assert all(rows[name]["state"] == "failed" for name in FEW[3:])


def test_the_good_one_is_as_before(hostile):
    found = {r["run"] for r in store.list_runs(hostile) if r["state"] == "done"}
    assert found == {GOOD.name}
    assert store.resolve("demo", folder=hostile).id == GOOD.name


def test_checking_takes_no_memory_for_what_a_header_promises(tmp_path):
    names = ("G-wide", "Q-offsets", "outputs-bomb", "classes-50000", "config-zero")
    for name in names:
        hostile_runs.spoil(name, GOOD, tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in names:
        with pytest.raises(files.UserError):
            checks.check(Run(tmp_path / name))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_every_command_says_it_in_one_line(hostile, monkeypatch, capsys):
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(hostile))
    for name in FEW:
        for words in (["evaluate"], ["conformal"], ["runs", "ship"]):
            assert main([*words, name]) == 1, (name, words)
            err = capsys.readouterr().err
            assert len(err.strip().splitlines()) == 1
            assert "Traceback" not in err
    assert main(["runs"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in FEW)


@pytest.mark.parametrize("page", ["", "train", "evaluate"])
def test_pages_go_through_the_router_and_show_it(hostile, home, monkeypatch, page):
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(hostile))
    app = open_page(page)
    text = page_text(app)
    if not page:
        assert all(name in text.replace("\\", "") for name in FEW)
    assert str(hostile) not in text


def test_a_model_card_makes_no_run_the_projects_own(home):
    folder = files.checkpoints_folder()
    shutil.copytree(GOOD, folder / GOOD.name)
    false = shutil.copytree(GOOD, folder / "fer2013-ravdess-cp-00000000")
    settings = false / "config.json"
    settings.write_text(settings.read_text().replace('"name": "demo"', '"name": "fer2013-ravdess"'))
    store.index_existing(folder)
    shown = {r["run"]: r["shipped"] for r in store.list_runs(folder)}
    assert shown == {GOOD.name: 1, false.name: 0}
    app = open_page("listen")
    assert app.selectbox(key="listen run").value == GOOD.name
