"""The command line: `python -m core --help` lists the commands, and each has its own `--help`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Union

import tyro

from core.cli import data, experiments, grids, inference, runs, training
from core.cli.options import check_numbers
from core.config.serialisation import check_settings
from core.files import UserError, disk_fault

# Words of a command -> its options and the function that runs them; that loads torch if it needs it
COMMANDS: dict[tuple[str, ...], tuple[type, Callable[[Any], int]]] = {
    ("data", "prepare"): (data.PrepareOptions, data.prepare),
    ("data", "fetch"): (data.FetchOptions, data.fetch),
    ("data", "doctor"): (data.DoctorOptions, data.doctor),
    ("data", "draw"): (data.DrawOptions, data.draw),
    ("train",): (training.TrainOptions, training.train),
    ("baseline",): (training.BaselineOptions, training.baseline),
    ("evaluate",): (training.EvaluateOptions, training.evaluate),
    ("generate",): (inference.GenerateOptions, inference.generate),
    ("table",): (experiments.TableOptions, experiments.table),
    ("sweep",): (experiments.SweepOptions, experiments.sweep),
    ("report",): (experiments.ReportOptions, experiments.report),
    ("conformal",): (inference.ConformalOptions, inference.conformal),
    ("vocoder",): (experiments.VocoderOptions, experiments.train_or_measure_vocoder),
    ("examples",): (inference.ExamplesOptions, inference.write_examples),
    ("runs",): (runs.RunsOptions, runs.manage_runs),
}
PROGRAM = "python -m core"
DESCRIPTION = "Speech spectrograms from faces, with a GAN conditioned on conformal p-values."
DATA_DESCRIPTION = "Download, check and prepare corpora."


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and run the command; returns the exit status.

    UserError and OSError become one line on stderr and status 1. Any other exception is a bug and
    keeps its traceback.
    """
    # OpenMP's threads would spin while they wait, and beside other work take its cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = tuple(sys.argv[1:] if argv is None else argv)
    if args in ((), ("data",)):
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
            _parse((*args, "--help"))
        return 2
    words = args[: 2 if args[0] == "data" else 1]
    try:
        options = _parse(args)
        _check_settings(options)
        return COMMANDS[words][1](options)
    except BrokenPipeError:
        raise
    except UserError as e:
        message = str(e)
    except OSError as e:
        message = disk_fault(e)
    print(f"{' '.join((PROGRAM, *words))}: {message}", file=sys.stderr)
    return 1


def _parse(args: tuple[str, ...]) -> Any:
    """The options of the command in `args`. Raises SystemExit after `--help` or a wrong option."""
    return tyro.cli(_subcommands(args), args=args, prog=PROGRAM, description=DESCRIPTION)


def _check_settings(options: Any) -> None:
    """Raise UserError if a number of the options, or of their configuration, is out of range."""
    check_numbers(options)
    if config := getattr(options, "config", None):
        try:
            check_settings(config)
        except ValueError as e:
            raise UserError(str(e)) from None


def _subcommands(args: tuple[str, ...], group: tuple[str, ...] = ()) -> Any:
    """Union of the options types of a group of commands, which tyro takes as subcommands."""
    members: list[Any] = []
    for words, (kind, _) in COMMANDS.items():
        if words[:-1] != group:
            continue
        chosen, default = args[: len(words)] == words, tyro.MISSING_NONPROP
        if chosen and kind in (training.TrainOptions, training.BaselineOptions):
            preset, config = training.starting_config(args[1:], f"{PROGRAM} {args[0]}")
            default = kind(preset=preset, config=config)
        elif chosen and issubclass(kind, grids.GridOptions):
            presets, config = grids.starting_config(args[1:], f"{PROGRAM} {args[0]}")
            default = kind(preset=presets, config=config)
        # The list of commands shows the first sentence, the command's own help the whole text
        summary = None if chosen else (kind.__doc__ or "").partition("\n")[0]
        about = tyro.conf.subcommand(words[-1], default=default, description=summary)
        members.append(Annotated[kind, about])
    if not group:
        data_commands = _subcommands(args, ("data",))
        about = tyro.conf.subcommand(
            "data", constructor_factory=lambda: data_commands, description=DATA_DESCRIPTION
        )
        members.insert(0, Annotated[Any, about])
    return Union[tuple(members)]  # noqa: UP007  `|` takes no tuple


if __name__ == "__main__":
    for name in ("stdout", "stderr"):  # closed, as by >&-
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    # Names of files may hold what the terminal's encoding has not.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
