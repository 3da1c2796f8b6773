"""Write docs/equations.md from the map in core/paper/equations.py, and docs/cli.md from `--help`.

`make docs`.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

from core import __main__ as command_line
from core.paper import equations, published

FOLDER = Path(__file__).parent
EQUATIONS = """# Equations and the functions that compute them

Written by `make docs` from core/paper/equations.py; the page *Paper* shows the same map with the
source code.

"""
CHOICES = """
# What the paper leaves open

From core/paper/published.py: what the preset `paper` has where the paper gives no value.

"""
COMMANDS = """# The command line

Written by `make docs` from `--help`. `python` is `.venv/bin/python`.

"""


def equations_text() -> str:
    """The text of docs/equations.md: the map, and what the paper leaves open."""
    choices = [(c.what, c.choice, c.why) for c in published.CHOICES]
    table = equations.markdown_table(("not in the paper", "preset `paper`", "why"), choices)
    return f"{EQUATIONS}{equations.equations_table()}\n{CHOICES}{table}\n"


def help_text(*words: str) -> str:
    """What `python -m core WORDS --help` prints, 100 characters wide."""
    text = io.StringIO()
    plain = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    quiet = contextlib.redirect_stdout(text), contextlib.suppress(SystemExit)
    with mock.patch.dict(os.environ, plain), quiet[0], quiet[1]:
        command_line.main([*words, "--help"])
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def commands() -> str:
    """The text of docs/cli.md: all commands, then each with its options."""
    parts = [COMMANDS, f"```\n{help_text()}\n```\n"]
    for words in command_line.COMMANDS:
        name = " ".join(words)
        parts.append(f"\n## {name}\n\n```\n{help_text(*words)}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    for name, text in (("equations.md", equations_text()), ("cli.md", commands())):
        (FOLDER / name).write_text(text)
        print(f"wrote docs/{name}")
