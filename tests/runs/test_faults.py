"""The campaign of `make faults` in its short form: no case fails, and a failure would be seen."""

from __future__ import annotations

import pytest

from core.media import sandbox
from tests.support import faults


@pytest.mark.parametrize(("name", "count"), [("uploads", 4), ("conformal", 40)])
def test_the_short_form_survives(tmp_path, name, count):
    assert faults.CLASSES[name][1](count, tmp_path) == []


def test_a_failure_is_counted(tmp_path, monkeypatch, capsys):
    def break_down(path):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(sandbox, "read_clip", break_down)
    counts = dict.fromkeys(faults.CLASSES, 0) | {"uploads": 3}
    assert faults.campaign(counts) == 3
    assert "ZeroDivisionError" in capsys.readouterr().out
