"""What people say of a run: its title, note, tags, and whether it is archived.

They lie in the run's folder as notes.json and change nothing that was trained or measured. Standard
library only.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from core import files
from core.runs.directory import Run

MAX_TITLE, MAX_NOTE, MAX_TAG, MAX_TAGS = 80, 2000, 30, 12  # letters; number of tags
FILE = "notes.json"


@dataclass(frozen=True)
class Notes:
    """Words on a run; empty ones are unsaid."""

    title: str = ""  # shown beside the id, which stays
    note: str = ""
    tags: tuple[str, ...] = ()
    archived: bool = False  # kept, and left out of lists


def read(run: Run) -> Notes:
    """A run's notes; what is damaged or of another kind counts as unsaid.

    A stranger's file harms no page: texts are cut to their limits and made printable.
    """
    try:
        found = run.json(FILE.removesuffix(".json"))
    except (files.UserError, OSError):
        return Notes()
    tags, note = found.get("tags"), found.get("note")
    return Notes(
        one_line(found.get("title"))[:MAX_TITLE],
        "\n".join(map(one_line, note.splitlines()))[:MAX_NOTE] if isinstance(note, str) else "",
        parse_tags(tags if isinstance(tags, list) else []),
        found.get("archived") is True,
    )


def write(run: Run, **changes: Any) -> Notes:
    """Change some of a run's notes; returns all. Raises UserError for a text beyond its limit."""
    for name, most in (("title", MAX_TITLE), ("note", MAX_NOTE)):
        if len(changes.get(name, "")) > most:
            raise files.UserError(f"a {name} has at most {most} letters: shorten it")
    new = dataclasses.replace(read(run), **changes)
    content = {k: v for k, v in dataclasses.asdict(new).items() if v}
    path = run.directory / FILE
    if content:
        files.write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False))
    else:
        path.unlink(missing_ok=True)
    return new


def parse_tags(words: list[Any]) -> tuple[str, ...]:
    """Tags in small letters without doubles, in their order.

    >>> parse_tags(["Talk", " talk ", "", "best of 3"])
    ('talk', 'best of 3')
    """
    tags = (one_line(word)[:MAX_TAG].lower() for word in words)
    return tuple(dict.fromkeys(t for t in tags if t))[:MAX_TAGS]


def one_line(value: Any) -> str:
    """A text without control characters; "" for what is no text."""
    return files.printable(value.strip()) if isinstance(value, str) else ""
