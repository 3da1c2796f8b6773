"""One line of progress for long work in a terminal, and for the page that watches it."""

from __future__ import annotations

import sys
import time

from core.experiments import tasks


class Progress:
    """One line that says what is done, how fast and for how long still; a line every 10 s where the output is no terminal.

    Where this process runs as an errand, the errand's file says it too.
    """

    def __init__(self, unit: tuple[float, str] = (1.0, "")) -> None:
        self.phase, self.begun, self.first, self.printed_at, self.told = "", 0.0, 0, 0.0, 0.0
        self.size, self.unit = (
            unit  # counts are divided by the one and followed by the other, such as (1e6, " MB")
        )

    def __call__(self, phase: str, done: int, total: int, remark: str = "") -> None:
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if phase != self.phase:
            if self.phase and terminal:
                print(file=sys.stderr)
            self.phase, self.begun, self.first, self.printed_at, self.told = (
                phase,
                now,
                done,
                0.0,
                0.0,
            )
        rate = (done - self.first) / max(1e-9, now - self.begun)
        if now - self.told > 0.5 or done >= total:
            self.told = now
            tasks.report_progress(phase, done, total, rate)
        if now - self.printed_at < (0.1 if terminal else 10) and done < total:
            return
        self.printed_at = now
        left = (
            f"{format_duration((total - done) / rate)} left"
            if rate > 0 and done < total
            else f"{now - self.begun:.1f} s"
        )
        bar = "█" * round(20 * done / max(1, total))
        speed = rate / self.size
        of = f"{done / self.size:.0f}/{total / self.size:.0f}{self.unit}"
        line = f"{phase:<24} {bar:<20} {of}  {speed:.{0 if speed >= 10 else 1}f}{self.unit}/s  {left}  {remark}"
        print(
            f"\r\x1b[K{line}" if terminal else line,
            end="" if terminal else "\n",
            file=sys.stderr,
            flush=True,
        )


def format_duration(seconds: float) -> str:
    """Seconds, minutes or hours, as people say them."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
