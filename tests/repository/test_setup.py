"""The set-up (setup_env.py, Makefile, settings).

What a person types on a bare machine, and what is said when something is missing.
"""

import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import setup_env

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
PIN = re.compile(r"[\w.-]+==[\w.]+ +# \S.*")


@pytest.mark.parametrize("version", [(3, 11, "0"), (3, 12, "1"), (3, 14, "2")])
@pytest.mark.parametrize(
    ("system", "machine"), [("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")]
)
def test_supported_pythons_pass(version, system, machine):
    assert setup_env.python_problem(version, system, machine) == ""


@pytest.mark.parametrize(
    ("version", "system", "machine", "missing", "words"),
    [
        ((3, 9, "18"), "Linux", "x86_64", (), ("3.11 to 3.14", "3.9.18", "PYTHON=")),
        ((3, 15, "0"), "Linux", "x86_64", (), ("3.11 to 3.14", "3.15.0", "PYTHON=")),
        ((3, 12, "1"), "Windows", "AMD64", (), ("Linux", "WSL")),
        ((3, 12, "1"), "Darwin", "x86_64", (), ("arm64",)),
        (
            (3, 12, "1"),
            "Linux",
            "x86_64",
            ("ensurepip",),
            ("ensurepip", "apt install python3.12-venv"),
        ),
    ],
)
def test_a_problem_is_one_line_that_names_the_remedy(version, system, machine, missing, words):
    problem = setup_env.python_problem(version, system, machine, missing)
    assert "\n" not in problem
    assert all(word in problem for word in words)


@pytest.mark.parametrize(
    ("offered", "system", "build"),
    [
        (["2.14.0", "2.13.0"], "Linux", "cuda"),
        (["2.13.0+cpu", "2.13.0"], "Linux", "cpu"),
        (["2.13.0+cpu", "2.13.0+cu130", "2.13.0"], "Linux", "cuda"),
        (["2.12.0+cpu", "2.13.0"], "Linux", "cuda"),
        (["2.13.0"], "Darwin", "cpu"),
        ([], "Linux", "cuda"),
    ],
)
def test_the_build_of_torch_is_foreseen(offered, system, build):
    assert setup_env.torch_build(offered, "2.13.0", system) == build


def test_disk_space_is_asked_for_before_the_download():
    assert setup_env.disk_problem(50e9, "cuda") == setup_env.disk_problem(5e9, "cpu") == ""
    assert "10 GB" in setup_env.disk_problem(5e9, "cuda")
    assert "2.0 GB" in setup_env.disk_problem(2e9, "cpu")


def test_stamp_changes_with_requirements_and_python():
    stamps = {
        setup_env.stamp(text, version)
        for text in (b"a==1", b"a==2")
        for version in ((3, 11, "7"), (3, 12, "1"))
    }
    assert len(stamps) == 4
    assert setup_env.stamp(b"a==1", (3, 11, "7")) == setup_env.stamp(b"a==1", (3, 11, "8"))
    assert setup_env.UNDER_WAY not in stamps


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """An empty project folder in which nothing is ever installed.

    Pip and venv are stood in for by a list of their calls.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").write_text("torch==2.13.0  # x\nstreamlit==1.67.0  # x\n")
    (tmp_path / "requirements-test.txt").write_text("pytest==9.2.0  # x\n")
    calls = []

    def call(command, **_):
        calls.append(command[1:3])
        if command[2] == "venv":
            site = (
                tmp_path
                / ".venv"
                / "lib"
                / f"python{sys.version_info[0]}.{sys.version_info[1]}"
                / "site-packages"
                / "pip"
            )
            site.mkdir(parents=True)
            (tmp_path / ".venv" / "bin").mkdir()
            (tmp_path / ".venv" / "bin" / "python").touch()
        return call.answer if command[2] == "pip" else 0

    call.answer = 0
    monkeypatch.setattr(setup_env.subprocess, "call", call)
    monkeypatch.setattr(setup_env, "offered_versions", lambda *_: ["2.13.0+cpu"])
    monkeypatch.setattr(setup_env.shutil, "disk_usage", lambda _: SimpleNamespace(free=50e9))
    return tmp_path, calls, call


VENV, PIP = ["-m", "venv"], ["-m", "pip"]


def test_second_set_up_does_nothing(tree):
    _, calls, _ = tree
    setup_env.set_up()
    setup_env.set_up()
    assert calls == [VENV, PIP]


def test_changed_requirements_are_installed_into_the_same_environment(tree):
    folder, calls, _ = tree
    setup_env.set_up()
    (folder / "requirements.txt").write_text("torch==2.13.0  # x\nstreamlit==1.67.1  # x\n")
    setup_env.set_up()
    assert calls == [VENV, PIP, PIP]


def test_the_tests_tools_come_when_they_are_asked_for_and_stay(tree):
    folder, calls, _ = tree
    setup_env.set_up()
    setup_env.set_up(setup_env.TESTS)
    setup_env.set_up()  # what the tests installed is enough for the studio
    assert calls == [VENV, PIP, PIP]
    (folder / "requirements-test.txt").write_text("pytest==9.2.1  # x\n")
    setup_env.set_up(setup_env.TESTS)
    assert calls == [VENV, PIP, PIP, PIP]


def test_a_set_up_that_was_cut_short_is_made_anew(tree):
    folder, calls, _ = tree
    setup_env.set_up()
    (folder / ".venv" / ".ready").write_text(setup_env.UNDER_WAY)
    (folder / ".venv" / "torn").touch()
    setup_env.set_up()
    assert calls == [VENV, PIP, VENV, PIP]
    assert not (folder / ".venv" / "torn").exists()


def test_an_environment_made_by_hand_is_completed_and_kept(tree):
    folder, calls, _ = tree
    setup_env.set_up()
    (folder / ".venv" / ".ready").unlink()
    (folder / ".venv" / "mine").touch()
    setup_env.set_up()
    assert calls == [VENV, PIP, PIP]
    assert (folder / ".venv" / "mine").exists()


def test_pip_failing_keeps_what_worked_before(tree):
    folder, calls, call = tree
    setup_env.set_up()
    (folder / "requirements.txt").write_text("torch==2.13.0  # x\nstreamlit==1.67.1  # x\n")
    call.answer = 1
    with pytest.raises(SystemExit, match="make again"):
        setup_env.set_up()
    call.answer = 0
    setup_env.set_up()
    assert calls == [VENV, PIP, PIP, PIP]  # the environment itself was not made anew


def test_a_taken_port_is_named_with_another_one():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        problem = setup_env.port_problem(str(port))
    assert f"port {port} is taken" in problem
    other = re.search(r"make app PORT=(\d+)", problem)[1]
    assert other != str(port)
    assert setup_env.port_problem(other) == ""
    for wrong in ("80", "x", "70000", ""):
        assert "no port" in setup_env.port_problem(wrong)


def test_every_requirement_is_pinned_and_says_why():
    texts = [(ROOT / name).read_text() for name in setup_env.TESTS]
    lines = [x for text in texts for x in text.splitlines() if x and not x.startswith("#")]
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    names = [line.split("==")[0] for line in lines]
    assert len(set(names)) == len(names)


def test_the_installed_packages_agree():
    answer = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_studio_keeps_to_itself():
    assert CONFIG["server"]["address"] == "127.0.0.1"
    assert CONFIG["server"]["enableXsrfProtection"]
    assert CONFIG["server"]["enableCORS"]
    assert CONFIG["browser"]["gatherUsageStats"] is False
    assert CONFIG["client"]["showErrorDetails"] == "none"


def test_streamlit_knows_every_setting():
    from streamlit import config

    known = config.get_config_options()
    flat = {
        f"{section}.{key}"
        for section, table in CONFIG.items()
        for key, value in table.items()
        if not isinstance(value, dict)
    }
    flat |= {f"theme.{kind}.{key}" for kind in ("light", "dark") for key in CONFIG["theme"][kind]}
    assert flat <= set(known)


def contrast(one, other):
    """WCAG 2's contrast of two colours, 1 to 21."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_palette_is_legible(theme):
    colours = CONFIG["theme"][theme]
    for ground in (colours["backgroundColor"], colours["secondaryBackgroundColor"]):
        assert contrast(colours["textColor"], ground) >= 7
        assert contrast(colours["linkColor"], ground) >= 4.5
        assert contrast(colours["primaryColor"], ground) >= 3  # edges of buttons and sliders
    assert (
        contrast(colours["primaryColor"], "#ffffff") >= 4.5
    )  # a primary button's text is white in both themes


def test_ci_calls_what_a_person_calls():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()


def test_no_interpreter_is_said_in_one_line():
    answer = subprocess.run(
        ["make", "-C", ROOT, "--no-print-directory", "setup", "PYTHON=no-such-python"],
        capture_output=True,
        text=True,
    )
    assert answer.returncode != 0
    assert "install Python 3.11 to 3.14" in answer.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("No known vulnerabilities found", ""),
        ("x Dependency not found on PyPI and could not be audited: x (1)\nNo known", "1 packages"),
        ("urllib3 Max retries exceeded", "needs a network"),
    ],
)
def test_an_audit_that_looked_nothing_up_is_no_answer(said, words):
    problem = setup_env.audit_problem(said)
    assert words in problem
    assert bool(problem) == bool(words)
