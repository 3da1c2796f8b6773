"""Options of sweep and report: presets, methods, nested settings and cells by name."""

import re
import shlex
import shutil
import subprocess

import pytest

from core import __main__ as command_line
from core.cli import grids
from core.config.presets import DEMO, PAPER, RAVDESS, with_method
from core.config.settings import replace
from core.files import ROOT


def parsed(*words):
    return command_line._parse(words)


def cells_of(*words):
    return grids.grid_cells(parsed("sweep", *words))


def test_a_preset_and_its_own_method_name_the_same_cells():
    plain = cells_of("--grid", "paper", "--preset", "paper", "--folds", "1")
    method = cells_of("--grid", "paper", "--preset", "paper", "--method", "paper", "--folds", "1")
    assert plain == method


def test_nested_settings_reach_every_cell_of_every_preset():
    words = ("--grid", "paper", "--preset", "paper", "ravdess", "--folds", "1")
    words += ("--data.classes", "happy", "sad", "--gan.steps", "7", "--seed", "3")
    cells = cells_of(*words)
    assert {c.config.data.voices for c in cells} == {"crema-d", "ravdess"}
    assert {c.config.data.classes for c in cells} == {("happy", "sad")}
    assert {(c.config.gan.steps, c.config.seed) for c in cells} == {(7, 3)}
    # what is not named stays each preset's own
    assert {c.config.f_t.steps for c in cells} == {PAPER.f_t.steps, RAVDESS.f_t.steps}


def test_other_corpora_are_two_options():
    words = ("--grid", "studio", "--preset", "demo", "--folds", "1", "--seeds", "1")
    (cell,) = cells_of(*words, "--data.faces", "mine", "--data.voices", "mine")
    assert cell.config == replace(DEMO, data={"faces": "mine", "voices": "mine"})


def test_a_case_of_one_preset_is_no_error_in_the_other():
    words = ("--grid", "paper", "--preset", "paper", "ravdess", "--folds", "1", "--cells")
    cells = cells_of(*words, "f_S of ravdess · CP", "encdec label")
    names = [(c.name, c.config.data.voices) for c in cells]
    assert names == [
        ("EncDec · label", "crema-d"),
        ("f_S of ravdess · CP", "crema-d"),
        ("EncDec · label", "ravdess"),
    ]
    with pytest.raises(ValueError, match=r"no case of this grid is called f_S of demo; it has"):
        cells_of(*words, "f_S of demo")


def test_a_preset_is_named_once():
    with pytest.raises(ValueError, match="--preset paper paper names a preset twice"):
        cells_of("--grid", "paper", "--preset", "paper", "paper")


@pytest.mark.parametrize(
    "words",
    [
        ("--grid", "paper", "--preset", "paper", "ravdess", "--cells", "EncDec · CP"),
        ("--preset", "demo", "--method", "strict", "--data.fold", "2", "--gan.no-use-source"),
        ("--grid", "studio", "--preset", "demo", "--data.classes", "happy", "sad", "--folds", "2"),
        ("--grid", "paper", "--f-s-corpus", "fer2013", "--folds", "1"),
        ("--grid", "labels", "--cells", "10 a class · CP", "--seeds", "2"),
    ],
)
def test_the_printed_command_names_the_same_cells(words):
    options = parsed("sweep", *words)
    again = shlex.split(grids.command_line(options, "report"))
    assert again[:4] == ["python", "-m", "core", "report"]
    assert grids.grid_cells(parsed(*again[3:])) == grids.grid_cells(options)


def test_two_methods_keep_the_changes_of_their_settings():
    options = parsed("report", "--grid", "studio", "--method", "studio", "--gan.batch", "9")
    other = grids.of_method(options, "strict")
    for cell in grids.grid_cells(other):
        assert cell.config.gan.batch == 9
        assert cell.config.gan.optimiser == "adagrad"
    assert with_method("strict", DEMO).gan.batch != 9


def test_train_takes_a_method():
    assert parsed("train", "--preset", "ravdess", "--method", "strict").config == with_method(
        "strict", RAVDESS
    )
    assert parsed("baseline", "--preset", "paper").config == PAPER


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("words", "presets", "folds", "prepared"),
    [
        (("CORPUS=demo",), ("demo",), 5, ["demo"]),
        (("CORPUS=crema-d", "SOURCE=/a b"), ("paper",), 5, ["crema-d"]),
        (("CORPUS=ravdess", "SOURCE=/r", "METHOD=strict"), ("ravdess",), 5, ["ravdess"]),
        (("CORPUS=fer2013-ravdess", "RAVDESS=/r"), ("fer2013-ravdess",), 5, ["ravdess"]),
        (
            ("CORPUS=both", "CREMA_D=/c", "RAVDESS=/r", "GRID=quick"),
            ("paper", "ravdess"),
            1,
            ["crema-d", "ravdess"],
        ),
        (("CORPUS=both", 'CELLS="EncDec · CP"', "FOLDS=2"), ("paper", "ravdess"), 2, []),
    ],
)
def test_make_reproduce_prepares_trains_and_reports_one_grid(words, presets, folds, prepared):
    done = subprocess.run(
        ["make", "-n", "reproduce", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    sweep, report = (
        next(line for line in done.stdout.splitlines() if f" -m core {name} " in line)
        for name in ("sweep", "report")
    )
    asked = [parsed(*shlex.split(line.split("||")[0])[3:]) for line in (sweep, report)]
    for options in asked:
        assert options.preset == presets
        assert options.folds == folds
    assert grids.grid_cells(asked[0]) == grids.grid_cells(asked[1])
    # the loop over folders, with an echo in the place of the command
    loop = done.stdout.split("for one in")[1].split("done")[0]
    loop = re.sub(r"\S+ -m core data prepare", "echo PREPARE", f"for one in{loop}done")
    text = subprocess.run(["sh", "-c", loop], capture_output=True, text=True, check=True).stdout
    text += "".join(line for line in done.stdout.splitlines() if line.endswith("prepare demo"))
    assert re.findall(r"(?:PREPARE|prepare) (\S+)", text) == prepared
