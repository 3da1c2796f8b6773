"""The line that tells how far long work is."""

import pytest

from core.cli import progress
from core.experiments import tasks


@pytest.fixture
def clock(monkeypatch):
    """A list whose last value is the time."""
    times = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[-1])
    return times


def test_the_time_left_is_at_the_speed_of_the_last_minute(clock, monkeypatch, capsys):
    rates = []
    monkeypatch.setattr(tasks, "report_progress", lambda *a: rates.append(a[3]))
    tell = progress.Progress()
    for step in range(0, 101):  # ten a second
        tell("fit", step, 1_000)
        clock.append(clock[-1] + 0.1)
    assert rates[-1] == pytest.approx(10)
    clock.append(clock[-1] + 3_600)  # the process was paused
    for step in range(101, 200):
        tell("fit", step, 1_000)
        clock.append(clock[-1] + 1)
    assert rates[-1] == pytest.approx(1, rel=0.05)
    assert "13 min left" in capsys.readouterr().err.splitlines()[-1]
    tell("evaluate", 0, 4)  # another phase starts anew
    clock.append(clock[-1] + 2)
    tell("evaluate", 1, 4)
    assert rates[-1] == pytest.approx(0.5)
