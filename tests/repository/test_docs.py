"""Generated documents match the code; the README's lines of Python run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.files import ROOT
from docs import generate

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["equations", "cli"])
def test_what_is_generated_is_as_the_code_is(name):
    text = {"equations": generate.equations_text, "cli": generate.commands}[name]()
    assert (ROOT / "docs" / f"{name}.md").read_text() == text, "run `make docs`"


def test_the_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= 120
    assert [x for x in lines if len(x) > 100] == []


def test_every_link_of_a_document_leads_to_a_file():
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ):
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_python_of_the_readme_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = tmp_path / "readme.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert list(Path(tmp_path).glob("*.wav"))
