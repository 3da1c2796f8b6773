"""The command `runs`: the list of runs, their index, and copies of a run to share."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from core.cli.options import placeholder


@dataclass(frozen=True)
class RunsOptions:
    """List the runs, rebuild their index, or copy, import or export a finished one.

    ship makes a small copy that can be shared, and import takes one in, after a check of all its
    files; export writes the curves. Examples:
      python -m core runs export demo --out curves.csv
      python -m core runs import their-run.zip
    """

    action: Annotated[Literal["list", "reindex", "ship", "import", "export"], Positional] = "list"
    """What to do."""
    run: Annotated[str | None, Positional, placeholder("[RUN]", "none")] = None
    """ship, export: the run's id; import: its folder or zip."""
    out: Annotated[Path | None, placeholder("PATH", "checkpoints; RUN.csv")] = None
    """ship: folder in which the copy is put; export: the file, or TensorBoard's folder."""
    format: Literal["csv", "tensorboard"] = "csv"
    """export: a table of the curves, or event files where TensorBoard is installed."""


def manage_runs(options: RunsOptions) -> int:
    from core import files
    from core.experiments import jobs
    from core.inference import export
    from core.runs import store

    if options.action == "reindex":
        print(f"{store.reindex()} runs in {files.checkpoints_folder()}")
    elif options.action == "list":
        jobs.reconcile()
        for r in store.list_runs():
            steps = f"{r['step'] or 0}/{r['steps']}"
            error = r["error"] or jobs.describe_silence(r)
            print(f"{r['run']:<40} {r['state']:<8} {steps}  {error}")
        for name, reason in store.unreadable_runs().items():
            print(f"{files.printable(name):<40} unreadable: {reason}")
        if fault := store.index_fault():
            print(fault, file=sys.stderr)
    elif options.action == "import":
        from core.inference import run_import

        if not options.run:
            raise files.UserError("name the folder or zip: python -m core runs import FOLDER")
        run, passed_over = run_import.import_run(Path(options.run))
        if passed_over:
            more = f" and {len(passed_over) - 5} more" if len(passed_over) > 5 else ""
            print(f"passed over, as no file of a run: {', '.join(passed_over[:5])}{more}")
        print(f"imported {run.id}: python -m core evaluate {run.id}")
    else:
        if not options.run:
            raise files.UserError(f"name the run: python -m core runs {options.action} RUN")
        run = store.resolve(options.run)
        if options.action == "ship":
            print(export.ship_run(run, options.out or Path("checkpoints")))
        elif options.format == "csv":
            print(f"wrote {export.export_csv(run, options.out or Path(f'{run.id}.csv'))}")
        else:
            folder = export.export_events(run, options.out or Path("tensorboard") / run.id)
            print(f"wrote {folder}; look at it with: tensorboard --logdir {folder}")
    return 0
