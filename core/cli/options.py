"""Options that several commands share: type, placeholder in `--help`, and help text."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from core.config.presets import Method
from core.config.settings import Condition
from core.files import UserError


def placeholder(metavar: str, default: str = "") -> Any:
    """Show METAVAR for a value, and in words the default of an option whose default is None."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {default})" if default else None)


RUN_HELP = "Run id, the beginning of one, or a name such as demo."
RunArgument = Annotated[str, Positional, arg(metavar="RUN", help=RUN_HELP)]
RunOption = Annotated[str, arg(metavar="RUN", help=RUN_HELP)]
Sibling = Annotated[
    Condition | None,
    arg(
        metavar="{label,classifier,cp,none}",
        help="Condition of the run, where several runs have its name.",
        help_behavior_hint="(default: the first that is done)",
    ),
]
MethodOption = Annotated[
    Method | None,
    arg(
        metavar="{paper,strict,studio}",
        help="Networks, losses and optimiser: the paper's, where Q learns from S3's labels; "
        "strict: the paper's without these labels; or ours.",
        help_behavior_hint="(default: the preset's)",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], arg(help="auto takes an NVIDIA card where there is one.")
]


@dataclass(frozen=True)
class Between:
    """Part of an option's type: the lowest and the highest number that is allowed."""

    low: float
    high: float


def check_numbers(options: Any) -> None:
    """Raise UserError that names an option whose number is not `Between` its bounds."""
    for name, hint in typing.get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, name)
        for part in typing.get_args(hint):
            if not isinstance(part, Between) or value is None or part.low <= value <= part.high:
                continue
            option = f"--{name.replace('_', '-')}"
            limits = f"{part.low:,.10g} and {part.high:,.10g}"
            raise UserError(f"{option} is {value}; it must lie between {limits}")


Seed = Annotated[int, placeholder("N"), Between(0, 2**32 - 1)]
Count = Annotated[int, placeholder("N"), Between(1, 1_000_000)]
Index = Annotated[int, placeholder("N"), Between(0, 1_000_000)]
Folder = Annotated[Path, placeholder("FOLDER")]
Engine = Annotated[
    Literal["local", "ray"],
    arg(help="ray uses a Ray cluster (pip install -r requirements-cluster.txt)."),
]
Address = Annotated[
    str | None,
    arg(
        metavar="HOST:PORT",
        help="ray: address of the cluster, such as auto or 10.0.0.1:6379.",
        help_behavior_hint="(default: a cluster is started on this machine)",
    ),
]
