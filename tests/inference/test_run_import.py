"""`runs import`: a run from a folder or a zip is taken whole or not at all."""

from __future__ import annotations

import os
import shutil
import zipfile

import pytest

from core import files
from core.__main__ import main
from core.inference import run_import
from core.runs import store
from tests.support import hostile_runs

GOOD = files.ROOT / "checkpoints" / "demo-cp-87b4dc5a"


def pack(folder, target, top="", more=()):
    """A zip of a folder's files below `top`, and further members (name, bytes)."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, top + path.relative_to(folder).as_posix())
        for name, data in more:
            archive.writestr(name, data)
    return target


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(tmp_path / "checkpoints"))
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("form", ["folder", "zip with a folder", "zip without one"])
def test_a_run_is_taken_in(tmp_path, folder, form, capsys):
    source = GOOD
    if form != "folder":
        top = f"{GOOD.name}/" if form == "zip with a folder" else ""
        source = pack(GOOD, tmp_path / f"{GOOD.name}.zip", top)
    assert main(["runs", "import", str(source)]) == 0
    assert GOOD.name in capsys.readouterr().out
    made = folder / GOOD.name
    for path in (p for p in GOOD.rglob("*") if p.is_file()):
        assert (made / path.relative_to(GOOD)).read_bytes() == path.read_bytes()
    assert store.resolve("demo").id == GOOD.name
    assert store.load_curves(GOOD.name)["FID"]
    assert main(["runs", "import", str(source)]) == 1
    assert "here already" in capsys.readouterr().err


def test_what_is_no_file_of_a_run_stays_outside(tmp_path, folder):
    strange = [
        "../../escaped.json",
        "/etc/escaped",
        f"{GOOD.name}/../../escaped",
        "models/../../escaped",
        "state.pt",
        "code.py",
        "models/evil.pkl",
    ]
    source = pack(GOOD, tmp_path / "demo-cp-87b4dc5a.zip", more=[(n, b"x") for n in strange])
    run, passed_over = run_import.import_run(source)
    assert set(passed_over) == set(strange)
    assert {p.name for p in tmp_path.iterdir()} == {source.name, "checkpoints"}
    kept = {p.relative_to(run.directory) for p in run.directory.rglob("*") if p.is_file()}
    assert kept == {p.relative_to(GOOD) for p in GOOD.rglob("*") if p.is_file()}


def test_links_of_a_folder_are_not_followed(tmp_path, folder):
    source = shutil.copytree(GOOD, tmp_path / GOOD.name)
    (source / "CARD.md").unlink()
    (source / "CARD.md").symlink_to("/etc/passwd")
    os.mkfifo(source / "sets.fifo")
    run, passed_over = run_import.import_run(source)
    assert not (run.directory / "CARD.md").exists()
    assert passed_over == []


@pytest.mark.parametrize("name", ["outputs-nan", "hop-0", "G-wide", "outputs-bomb", "no-quality"])
def test_what_breaks_a_rule_leaves_nothing_behind(tmp_path, folder, name, capsys):
    source = hostile_runs.spoil(name, GOOD, tmp_path)
    for given in (source, pack(source, tmp_path / f"{name}.zip")):
        assert main(["runs", "import", str(given)]) == 1
        err = capsys.readouterr().err
        assert hostile_runs.HOSTILE[name][0] in err
        assert len(err.strip().splitlines()) == 1
        assert list(folder.iterdir()) == []


def test_a_zip_that_unpacks_to_too_much_is_refused_unread(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(run_import, "MAX_BYTES", 1000)
    with pytest.raises(files.UserError, match="unpacks to more"):
        run_import.import_run(GOOD)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no zip"])
def test_what_is_no_zip_is_said(tmp_path, folder, content, capsys):
    (tmp_path / "x.zip").write_bytes(content)
    assert main(["runs", "import", str(tmp_path / "x.zip")]) == 1
    assert "no zip that can be read" in capsys.readouterr().err
    assert main(["runs", "import", str(tmp_path / "nothing")]) == 1
    assert "no folder and no zip" in capsys.readouterr().err
    assert main(["runs", "import"]) == 1
