"""The command line: help texts, exit statuses, presets as starting values, errors in one line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from core import __main__ as command_line
from core.__main__ import COMMANDS, main
from core.cli import training
from core.config.presets import PRESETS
from core.config.serialisation import to_dict
from core.config.settings import Config, replace
from core.files import ROOT, UserError


def help_text(capsys, *words: str) -> str:
    """What `--help` of a command prints; it must exit with status 0 and leave stderr empty."""
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")


def test_help_lists_every_command_with_one_sentence(capsys):
    for group in ((), ("data",)):
        lines = [s for s in help_text(capsys, *group).splitlines() if "•" in s]
        listed = {s.split("•")[1].split()[0]: s.strip("│ ") for s in lines}
        names = {w[len(group)] for w in COMMANDS if w[: len(group)] == group}
        assert set(listed) == names
        assert all(line.endswith(".") and line.count(". ") == 0 for line in listed.values())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_has_an_example_on_a_line_of_its_own_and_explains_every_option(words, capsys):
    text = help_text(capsys, *words)
    if words[0] != "runs":
        assert f"\n  python -m core {' '.join(words)} " in text
    assert "{None}" not in text
    assert "(default: None)" not in text
    for line in text.splitlines():  # an option, then its help, then its default
        if line.startswith("│ --"):
            assert (
                len(line.split("(default")[0].strip("│ ").split("  ")) > 1 or line.count("  ") > 9
            )


@pytest.mark.parametrize("args", [[], ["data"]])
def test_without_a_command_the_help_goes_to_stderr_with_status_2(args, capsys):
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: python -m core" in err


@pytest.mark.parametrize("args", [["nonsense"], ["data", "nonsense"], ["train", "--nonsense"]])
def test_an_unknown_word_ends_with_status_2(args):
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 2


@pytest.fixture
def trained(monkeypatch):
    """Configurations that `train` was asked for, none of which is trained."""
    configs: list[Config] = []
    record = lambda options: configs.append(options.config) or 0  # noqa: E731
    monkeypatch.setitem(COMMANDS, ("train",), (training.TrainOptions, record))
    return configs


def test_a_preset_gives_the_starting_values_wherever_it_stands(trained):
    assert main(["train"]) == 0
    assert main(["train", "--preset", "smoke", "--gan.l1", "0"]) == 0
    assert main(["train", "--gan.l1", "0", "--preset=smoke"]) == 0
    expected = replace(PRESETS["smoke"], gan={"l1": 0.0})
    assert trained == [PRESETS["demo"], expected, expected]


def test_a_config_file_gives_the_starting_values(trained, tmp_path, capsys):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict(replace(PRESETS["fine"], seed=7))))
    assert main(["train", "--config-file", str(file), "--gan.steps", "3"]) == 0
    assert trained == [replace(PRESETS["fine"], seed=7, gan={"steps": 3})]
    for content in ("{", '{"nothing": 1}', "[1]"):
        file.write_text(content)
        assert main(["train", "--config-file", str(file)]) == 1
        assert f"python -m core train: {file} is not a run's config.json" in capsys.readouterr().err
    assert main(["train", "--config-file", str(tmp_path / "missing")]) == 1
    message = capsys.readouterr().err
    assert message == f"python -m core train: {tmp_path / 'missing'}: No such file or directory\n"


@dataclass(frozen=True)
class NoOptions:
    """Fail."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("mend it"), "mend it"),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), "a.csv: No such file"),
        (OSError("the disk is full"), "the disk is full"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_1(error, line, monkeypatch, capsys):
    def fail(options):
        raise error

    monkeypatch.setitem(COMMANDS, ("runs",), (NoOptions, fail))
    assert main(["runs"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"python -m core runs: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("train --gan.steps 0", "gan.steps is 0; it must lie between 1 and 100,000,000"),
        ("train --gan.batch -3", "gan.batch is -3; it must lie between 1 and 65,536"),
        ("baseline --conformal.r 7", "conformal.r is 7.0; it must lie between 0.001 and 1"),
        ("sweep --data.fold -1", "data.fold is -1; it must lie between 0 and 19"),
        ("baseline --folds 0", "--folds is 0; it must lie between 1 and 20"),
        ("report --seeds 0", "--seeds is 0; it must lie between 1 and 1,000"),
        ("table demo --seeds 0", "--seeds is 0; it must lie between 1 and 1,000,000"),
        ("generate a.png --person -1", "--person is -1; it must lie between 0 and 1,000,000"),
        ("generate a.png --frame -1", "--frame is -1; it must lie between 0 and 1,000,000"),
    ],
)
def test_a_number_out_of_its_range_is_one_line(words, line, capsys):
    assert main(words.split()) == 1
    assert capsys.readouterr().err == f"python -m core {words.split()[0]}: {line}\n"


@pytest.mark.parametrize("error", [ValueError("bug"), KeyError("bug"), BrokenPipeError()])
def test_a_bug_keeps_its_traceback(error, monkeypatch):
    def fail(options):
        raise error

    monkeypatch.setitem(COMMANDS, ("runs",), (NoOptions, fail))
    with pytest.raises(type(error)):
        main(["runs"])


def test_help_needs_no_torch():
    script = f"""
import contextlib, sys
from core.__main__ import main
for words in {[*COMMANDS, ()]}:
    with contextlib.suppress(SystemExit):
        main([*words, "--help"])
assert not {{"torch", "librosa", "matplotlib", "ray"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(("set_before", "then"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(
    set_before, then, monkeypatch, capsys
):
    monkeypatch.setenv("OMP_WAIT_POLICY", "to be restored")
    if set_before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", set_before)
    assert main([]) == 2
    assert os.environ["OMP_WAIT_POLICY"] == then


def test_the_program_is_named_as_it_is_typed():
    assert command_line.PROGRAM == "python -m core"
    assert Path(command_line.__file__).name == "__main__.py"


@pytest.mark.parametrize(("folds", "words"), [(1, "of one fold"), (2, "41.00 ± 1.41 % over 2")])
def test_the_baseline_of_one_fold_has_no_spread(folds, words, monkeypatch, capsys):
    from core.experiments import pipeline

    found = [{"fold": i, "accuracy": 0.4 + 0.02 * i, "N": 10, "ECE": 0.05} for i in range(folds)]
    monkeypatch.setattr(pipeline, "baselines", lambda *a: found)
    assert command_line.main(["baseline", "--folds", str(folds)]) == 0
    text = capsys.readouterr().out
    assert words in text
    assert "fold 0: 40.00 %, N = 10, calibration error (ECE) 0.050" in text
    assert "nan" not in text


def test_generate_writes_whole_files_for_any_name(tmp_path, model, capsys):
    """A name that is no UTF-8, of an old Latin-1 system."""
    from PIL import Image
    from skimage import data

    name = b"M\xfcller.png".decode(errors="surrogateescape")
    with open(tmp_path / name, "wb") as file:
        Image.fromarray(data.astronaut()).save(file, "PNG")
    out = tmp_path / "out"
    command = ["generate", str(tmp_path / name), "--run", "demo", "--condition", "cp"]
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), errors="backslashreplace")):
        assert main([*command, "--out", str(out)]) == 0
    assert sorted(p.suffix for p in out.iterdir()) == [".json", ".npy", ".png", ".wav"]
    assert all(p.stat().st_size > 500 for p in out.iterdir())
    (record,) = out.glob("*.json")
    assert json.loads(record.read_text(encoding="utf-8"))["clip"] == "M\\udcfcller.png"
    assert main([*command, "--out", str(out), "--person", "4"]) == 1
    assert "one person is seen, and none is number 4" in capsys.readouterr().err
