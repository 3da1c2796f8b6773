"""The command `runs`: the list of runs, what is said of them, their index, and copies to share."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from core.cli.options import placeholder

NOTED = {"rename": "title", "note": "note", "tag": "tags"}  # action -> field of a run's notes


@dataclass(frozen=True)
class RunsOptions:
    """List runs, say something of one, put one away, or copy, import or export a finished one.

    rename, note and tag take a text, and none removes it. archive leaves a run out of lists, delete
    puts it aside, and restore undoes both. ship makes a small copy that can be shared, and import
    takes one in, after a check of all its files; export writes the curves. Examples:
      python -m core runs tag demo-cp-87b4dc5a "talk, best"
      python -m core runs export demo --out curves.csv
    """

    action: Annotated[
        Literal[
            "list",
            "rename",
            "note",
            "tag",
            "archive",
            "delete",
            "restore",
            "reindex",
            "ship",
            "import",
            "export",
        ],
        Positional,
    ] = "list"
    """What to do."""
    run: Annotated[str | None, Positional, placeholder("[RUN]", "none")] = None
    """The run's id; import: its folder or zip; list: a word to search for."""
    text: Annotated[str, Positional, placeholder("[TEXT]", "none")] = ""
    """rename: a title, shown beside the id; note: a note; tag: tags with commas between them."""
    out: Annotated[Path | None, placeholder("PATH", "checkpoints; RUN.csv")] = None
    """ship: folder in which the copy is put; export: the file, or TensorBoard's folder."""
    format: Literal["csv", "tensorboard"] = "csv"
    """export: a table of the curves, or event files where TensorBoard is installed."""


def manage_runs(options: RunsOptions) -> int:
    from core import files
    from core.runs import store

    if options.action == "reindex":
        print(f"{store.reindex()} runs in {files.checkpoints_folder()}")
    elif options.action == "list":
        _list_runs(options.run or "")
    elif not options.run:
        what = "folder or zip" if options.action == "import" else "run"
        raise files.UserError(f"name the {what}: python -m core runs {options.action} RUN")
    elif options.action == "import":
        _import_run(options.run)
    elif options.action == "restore":
        _restore_run(options.run)
    elif options.action in ("ship", "export"):
        _copy_run(options)
    else:
        _change_run(options)
    return 0


def _list_runs(word: str) -> None:
    from core import files
    from core.experiments import jobs
    from core.runs import store

    jobs.reconcile()
    for r in store.list_runs():
        texts = [r["run"], r["title"], r["note"], *r["tags"]]
        if word.lower() not in " ".join(texts).lower():
            continue
        error = r["error"] or jobs.describe_silence(r)
        said = [r["title"], *[f"#{tag}" for tag in r["tags"]], *["archived"] * r["archived"], error]
        words = " · ".join(filter(None, said))
        print(f"{r['run']:<40} {r['state']:<8} {r['step'] or 0}/{r['steps']}  {words}")
    for name, reason in store.unreadable_runs().items():
        print(f"{files.printable(name):<40} unreadable: {reason}")
    if gone := store.deleted_runs():
        print(f"deleted, for `runs restore`: {', '.join(gone)}")
    if fault := store.index_fault():
        print(fault, file=sys.stderr)


def _change_run(options: RunsOptions) -> None:
    """rename, note, tag, archive, delete: of the run with exactly this id."""
    from core import files
    from core.runs import notes, store

    assert options.run
    run = store.resolve(options.run)
    if run.id != options.run:  # a name may mean several runs
        raise files.UserError(
            f"{files.printable(options.run)} is no run's id; did you mean {run.id}?"
        )
    if options.action == "delete":
        store.delete(run)
        print(f"deleted {run.id}; undo: python -m core runs restore {run.id}")
    elif options.action == "archive":
        notes.write(run, archived=True)
        print(f"archived {run.id}; undo: python -m core runs restore {run.id}")
    else:
        said = (
            notes.parse_tags(options.text.split(",")) if options.action == "tag" else options.text
        )
        new = notes.write(run, **{NOTED[options.action]: said})
        print(
            f"{run.id}: {new.title} {' '.join(f'#{tag}' for tag in new.tags)} {new.note}".rstrip()
        )


def _restore_run(run_id: str) -> None:
    from core.runs import notes, store

    if run_id in store.deleted_runs():
        run = store.restore(run_id)
    else:
        run = store.resolve(run_id)
        notes.write(run, archived=False)
    print(f"{run.id} is listed again")


def _import_run(source: str) -> None:
    from core.inference import run_import

    run, passed_over = run_import.import_run(Path(source))
    if passed_over:
        more = f" and {len(passed_over) - 5} more" if len(passed_over) > 5 else ""
        print(f"passed over, as no file of a run: {', '.join(passed_over[:5])}{more}")
    print(f"imported {run.id}: python -m core evaluate {run.id}")


def _copy_run(options: RunsOptions) -> None:
    """ship and export."""
    from core.inference import export
    from core.runs import store

    assert options.run
    run = store.resolve(options.run)
    if options.action == "ship":
        print(export.ship_run(run, options.out or Path("checkpoints")))
    elif options.format == "csv":
        print(f"wrote {export.export_csv(run, options.out or Path(f'{run.id}.csv'))}")
    else:
        folder = export.export_events(run, options.out or Path("tensorboard") / run.id)
        print(f"wrote {folder}; look at it with: tensorboard --logdir {folder}")
