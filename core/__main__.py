"""The command line: `python -m core data … | train | baseline | evaluate | table | sweep | report | generate | conformal |
vocoder | examples | runs`.

Each command has `--help`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import tyro

from core.cli import data, experiments, inference, training
from core.config import PRESETS, Config, from_dict


def main(argv: list[str] | None = None) -> int:
    """Parse, run, and turn expected failures into one line on stderr; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["data"]:
        commands: dict[str, Any] = {
            "prepare": data.PrepareOptions,
            "fetch": data.FetchOptions,
            "doctor": data.DoctorOptions,
            "draw": data.DrawOptions,
        }
        prog, argv = "python -m core data", argv[1:]
    else:
        commands = {
            "data": None,
            "train": training.TrainOptions,
            "baseline": training.BaselineOptions,
            "evaluate": inference.EvaluateOptions,
            "generate": inference.GenerateOptions,
        }
        commands |= {
            "table": experiments.TableOptions,
            "sweep": experiments.SweepOptions,
            "report": experiments.ReportOptions,
        }
        commands |= {
            "conformal": inference.ConformalOptions,
            "vocoder": experiments.VocoderOptions,
            "examples": experiments.ExamplesOptions,
            "runs": inference.RunsOptions,
        }
        prog = "python -m core"
    if not argv or argv[0] not in commands:
        print(f"usage: {prog} {{{','.join(commands)}}} …    (each with --help)", file=sys.stderr)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    name, rest = argv[0], argv[1:]
    kind = commands[name]
    preset = _find_preset(rest)
    default = (
        kind(preset=preset, config=_base_config(rest, preset))
        if kind in (training.TrainOptions, training.BaselineOptions)
        else None
    )
    options = tyro.cli(kind, args=rest, default=default, prog=f"{prog} {name}")
    from core.data.corpora import CorpusError
    from core.media.containers import MediaError
    from core.media.faces.detection import NoFaceError
    from core.media.faces.landmarker import ModelMissing

    actions: dict[Any, Any] = {
        training.TrainOptions: training.train,
        training.BaselineOptions: training.baseline,
        inference.EvaluateOptions: inference.evaluate,
        inference.GenerateOptions: inference.generate,
    }
    actions |= {
        inference.ConformalOptions: inference.conformal,
        inference.RunsOptions: inference.manage_runs,
    } | experiments.ACTIONS
    try:
        return actions.get(kind, data.run_command)(options)
    except (
        CorpusError,
        MediaError,
        NoFaceError,
        ModelMissing,
        KeyError,
        ValueError,
        RuntimeError,
    ) as e:
        print(f"{prog} {name}: {e.args[0] if isinstance(e, KeyError) else e}", file=sys.stderr)
        return 1


def _find_preset(args: list[str]) -> str:
    for i, a in enumerate(args):
        if a == "--preset" and i + 1 < len(args) and args[i + 1] in PRESETS:
            return args[i + 1]
        if a.startswith("--preset=") and a.split("=", 1)[1] in PRESETS:
            return a.split("=", 1)[1]
    return "demo"


def _base_config(args: list[str], preset: str) -> Config:
    for i, a in enumerate(args):
        if a == "--config-file" and i + 1 < len(args):
            return from_dict(Config, json.loads(Path(args[i + 1]).read_text()))
    return PRESETS[preset]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
