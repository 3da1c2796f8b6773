"""Progress and end of long work: a line in the terminal, and the task file that a page watches."""

from __future__ import annotations

import functools
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from core.experiments import tasks
from core.files import StopRequested

RECENT = 60.0  # seconds whose speed counts; an older one misleads after a pause


class Progress:
    """Progress callback that prints one line: phase, share done, speed and time left.

    A terminal's line is overwritten; other outputs get a line every 10 s. Where this process runs
    as a task, its task file is updated too. Speed is that of the last RECENT seconds.
    """

    def __init__(self, unit: tuple[float, str] = (1.0, "")) -> None:
        """`unit` divides the counts and follows them, such as (1e6, " MB")."""
        self.size, self.unit = unit
        self.phase, self.phase_start = "", 0.0
        self.looks: deque[tuple[float, int]] = deque()  # (time, done), a second apart
        self.printed_at = self.reported_at = 0.0

    def __call__(self, phase: str, done: int, total: int, remark: str = "") -> None:
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if phase != self.phase:
            if self.phase and terminal:
                print(file=sys.stderr)
            self.phase, self.phase_start = phase, now
            self.looks = deque([(now, done)])
            self.printed_at = self.reported_at = 0.0
        while len(self.looks) > 1 and self.looks[1][0] <= now - RECENT:
            self.looks.popleft()
        began, first_count = self.looks[0]
        rate = (done - first_count) / max(1e-9, now - began)
        if now - self.looks[-1][0] >= 1:
            self.looks.append((now, done))
        if now - self.reported_at > 0.5 or done >= total:
            self.reported_at = now
            tasks.report_progress(phase, done, total, rate)
        if now - self.printed_at < (0.1 if terminal else 10) and done < total:
            return
        self.printed_at = now
        left = f"{now - self.phase_start:.1f} s"
        if rate > 0 and done < total:
            left = f"{format_duration((total - done) / rate)} left"
        bar = "█" * round(20 * done / max(1, total))
        count = f"{done / self.size:.0f}/{total / self.size:.0f}{self.unit}"
        speed = rate / self.size
        speed_text = f"{speed:.{0 if speed >= 10 else 1}f}{self.unit}/s"
        line = f"{phase:<24} {bar:<20} {count}  {speed_text}  {left}  {remark}"
        start, end = ("\r\x1b[K", "") if terminal else ("", "\n")
        print(start + line, end=end, file=sys.stderr, flush=True)


def format_duration(seconds: float) -> str:
    """A duration in whole seconds, whole minutes, or hours with one decimal."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def report_end(command: Callable[[Any], tuple[int, str]]) -> Callable[[Any], int]:
    """Decorator for a command that a page can start as a task: its end goes to the task file.

    `command` returns the exit status and a closing sentence. Ctrl-C, SIGTERM and StopRequested
    give status 130. Other exceptions are recorded and raised.
    """

    @functools.wraps(command)
    def run(options: Any) -> int:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM stops as Ctrl-C does
        try:
            status, message = command(options)
        except (KeyboardInterrupt, StopRequested) as e:
            for s in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not lose the report
                signal.signal(s, signal.SIG_IGN)
            tasks.report_end("stopped")
            print(f"\n{e if str(e) else 'stopped; the same command continues'}", file=sys.stderr)
            return 130
        except BaseException as e:
            tasks.report_end("failed", str(e) or type(e).__name__)
            raise
        tasks.report_end("done", message)
        return status

    return run
