"""`make bench`: one table, each row a ratio measured in this run.

`make bench ARGS=p_values` takes one module of this folder.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import sys
import time

import benchmarks

SLOW_BENCHMARKS = ("card", "precision", "quality", "upside_down")  # only where they are named

# what they share, and the pages of `make costs`
NO_BENCHMARKS = ("__main__", "browser", "grids", "scaling", "table", "textbook")


def processor_name() -> str:
    """The processor's name, from Linux' list of processors or from Python."""
    try:
        with open("/proc/cpuinfo") as f:
            return next(
                line.split(":", 1)[1].strip() for line in f if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine_text() -> str:
    """Processor, cores, torch's threads and versions, for a page that tells times."""
    import torch

    return (
        f"{processor_name()}, {os.cpu_count() or 1} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def main() -> int:
    every = sorted(
        m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in NO_BENCHMARKS
    )
    chosen = sys.argv[1:] or [name for name in every if name not in SLOW_BENCHMARKS]
    if set(chosen) - set(every):
        print(
            f"There is no benchmark {', '.join(sorted(set(chosen) - set(every)))}; "
            f"there are {', '.join(every)}.",
            file=sys.stderr,
        )
        return 2
    print(
        f"{time.strftime('%Y-%m-%d')} · {processor_name()} · {os.cpu_count()} cores · "
        f"Python {platform.python_version()}"
    )
    for name in chosen:
        for row in importlib.import_module(f"benchmarks.{name}").rows():
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
