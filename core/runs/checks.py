"""One validation of a run's files against its own settings, for the run may be a stranger's.

The rules are written by hand: each depends on the run's classes and sizes, and they need neither a
further package nor torch. `formats` reads no more of a file than the rules need.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import files
from core.config.settings import Config
from core.files import DamagedError, UserError
from core.runs.directory import NAME, Run, index_row
from core.runs.formats import ArraySpec, check_arrays, network_header

MAX_CLASSES = 64
MIN_WIDTH = 1_024  # up to which a layer may be wider than the file's tensors: 4 MB
MAX_MEMBERS = 16  # networks whose mean an f_S is
MAX_WIDTH = 16_384  # of a layer; the authors' widest has 8,192
FACE = (28, 28)
CORPUS_NAME = re.compile(r"(\w[\w .-]{0,79})?")
CLASS_NAME = re.compile(r"\w[\w -]{0,39}")  # no markup: pages show it in HTML and Markdown
KEY = re.compile(r"[\w .,:;+%&()/=~-]{1,120}")  # plain words, which need no escaping
WORDS = object()  # spec of a text of plain words
SAMPLE_FILE = re.compile(r"step-\d{1,12}\.npz")
GENERATORS = ("encdec", "unet", "conv", "flow")
NETWORKS = ("G", "D", "f_S", "f_T", "Q", "scorer")
_CHECKED: dict[Path, tuple[tuple, Fault | None]] = {}  # directory -> its files' state, its fault


@dataclass(frozen=True)
class Fault:
    """Why a run's files cannot be used, with the fix, in one line."""

    reason: str
    can_be_remade: bool  # a file that training makes; otherwise the run itself makes no sense


def fault(run: Run) -> Fault | None:
    """What `check` says of a run; cheap for files that have not changed since the last call."""
    state = _files_state(run.directory)
    known = _CHECKED.get(run.directory)
    if known is None or known[0] != state:
        found = None
        try:
            check(run)
        except (UserError, OSError) as e:
            found = Fault(str(e), isinstance(e, DamagedError))
        known = _CHECKED[run.directory] = (state, found)
    return known[1]


def readable_runs(folder: Path) -> tuple[list[Run], dict[str, str]]:
    """The runs in a folder whose settings can be read, and why the other directories cannot."""
    found, faults = [], {}
    for directory in sorted(p for p in folder.glob("*") if os.path.lexists(p / "config.json")):
        run = Run(directory)
        if (wrong := fault(run)) and not wrong.can_be_remade:
            faults[run.id] = wrong.reason
        else:
            found.append(run)
    return found, faults


def check(run: Run) -> None:
    """Raise UserError, which names the first file that breaks a rule, the rule and the fix."""
    if not NAME.fullmatch(run.id):
        raise UserError(
            f"{files.printable(run.id)[:80]}: rename the folder: letters, digits, - _ ."
        )
    index_row(run)
    c = run.config
    sizes = _check_config(run, c)
    for name, spec in _json_specs(c).items():
        found = run.json(name)
        if found and (misfit := _misfit(found, spec)):
            raise DamagedError(f"{run.shown(f'{name}.json')}: {misfit}; {_FIX}")
    for name, arrays in _array_specs(c).items():
        needed: tuple[str, ...] = _NEEDED if name == "outputs" and run.json("results") else ()
        if name == "real_voices" and os.path.lexists(run.directory / "real_voices.npz"):
            needed = tuple(arrays)
        with _named(run, f"{name}.npz"):
            check_arrays(run.directory / f"{name}.npz", arrays, sizes, needed)
    for path in sorted((run.directory / "samples").glob("*")):
        if SAMPLE_FILE.fullmatch(path.name):
            with _named(run, f"samples/{path.name}"):
                check_arrays(path, _sample_spec(c), sizes)
    for name in NETWORKS:
        if os.path.lexists(run.model_path(name)):
            with _named(run, f"models/{name}.safetensors"):
                about, widest = network_header(run.model_path(name))
                _check_architecture(c, name, about, max(widest, MIN_WIDTH))


@contextmanager
def _named(run: Run, file: str) -> Iterator[None]:
    """Turn what a damaged file raises into an error that names it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        text = f"it has no {e}" if isinstance(e, KeyError) else str(e)
        raise DamagedError(f"{run.shown(file)} cannot be used ({text}); {_FIX}") from e


_FIX = "restore it, or remove it and train the run again"


def _files_state(directory: Path) -> tuple:
    """What changes when a file of the run does."""
    found = []
    for folder in (directory, directory / "models", directory / "samples"):
        try:
            with os.scandir(folder) as entries:
                for e in entries:
                    s = (
                        e.stat(follow_symlinks=True)
                        if e.is_file()
                        else e.stat(follow_symlinks=False)
                    )
                    if e.name not in ("metrics.jsonl", "log.txt"):
                        found.append((e.path, s.st_mtime_ns, s.st_size, s.st_mode))
        except OSError:
            continue
    return tuple(sorted(found))


def _check_config(run: Run, c: Config) -> dict[str, int]:
    """Check settings against each other and names; returns the sizes that arrays must have."""

    def refuse(what: str) -> None:
        fix = "restore the run or remove its folder"
        raise UserError(f"{run.shown('config.json')}: {what}; {fix}")

    s, classes = c.logmel, c.data.classes
    if s.window > s.n_fft or s.f_min >= s.f_max or s.f_max > s.rate / 2:
        refuse("logmel's window, FFT size and frequencies do not fit each other")
    if not 2 <= len(classes) <= MAX_CLASSES or len(set(classes)) < len(classes):
        refuse(f"data.classes must be 2 to {MAX_CLASSES} different names")
    for name in classes:
        if not CLASS_NAME.fullmatch(name):
            refuse(f"the class {files.printable(name)[:40]!r} is no word")
    for name in (c.data.faces, c.data.voices, c.data.f_s_corpus):
        if not CORPUS_NAME.fullmatch(name):
            refuse(f"the corpus {files.printable(name)[:40]!r} is no name")
    if not NAME.fullmatch(c.name):
        refuse(f"the name {files.printable(c.name)[:40]!r} cannot be a folder's")
    voice = (s.columns, s.bands)
    made, given = (voice, FACE) if c.gan.direction == "face-voice" else (FACE, voice)
    sizes = {"K": len(classes), "H": made[0], "W": made[1], "given H": given[0]}
    return sizes | {"given W": given[1]}


# ------------------------------------------------------------------ json


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_square(value: Any, size: int) -> bool:
    """Whether it is a list of `size` lists of as many numbers that are not negative."""
    rows = value if isinstance(value, list) and len(value) == size else [None]
    return all(
        isinstance(r, list) and len(r) == size and all(_is_number(n) and n >= 0 for n in r)
        for r in rows
    )


def _misfit(value: Any, spec: Any, where: str = "") -> str:
    """Where a JSON value is not as its spec says; "" if it is.

    A spec is float, int (>= 0), str or WORDS; [spec] for a list; a dict of the keys that must be
    there, those that may be ("name?"), and "*" for all others; or a number K for a K×K matrix.
    """
    wrong = f"{where or 'it'} is {str(value)[:30]!r}"
    if spec is float:
        return "" if _is_number(value) else f"{wrong}, no finite number"
    if isinstance(spec, int):
        is_square = _is_square(value, spec)
        return "" if is_square else f"{where or 'it'} is no matrix of {spec}×{spec} counts"
    if spec is int:
        is_count = type(value) is int and 0 <= value < 1 << 53
        return "" if is_count else f"{wrong}, no whole number"
    if spec is WORDS:
        is_plain = isinstance(value, str) and KEY.fullmatch(value)
        return "" if is_plain else f"{wrong}, no plain words"
    if spec is str:
        return "" if isinstance(value, str) and len(value) <= 4_000 else f"{wrong}, no short text"
    if isinstance(spec, list):
        if not isinstance(value, list) or len(value) > 100_000:
            return f"{wrong}, no list"
        return next(filter(None, (_misfit(v, spec[0], where) for v in value)), "")
    if not isinstance(value, dict):
        return f"{wrong}, no object"
    for key, of in spec.items():
        name = key.rstrip("?")
        if key != "*" and (name in value or key == name):
            if name not in value:
                return f"{where} lacks {name}".strip()
            if fault := _misfit(value[name], of, f"{where} {name}".strip()):
                return fault
    rest = [k for k in value if k not in spec and f"{k}?" not in spec] if "*" in spec else []
    if odd := [k for k in rest if not KEY.fullmatch(k)]:
        return f"{where} has the key {files.printable(odd[0])[:40]!r}"
    return next(filter(None, (_misfit(value[k], spec["*"], f"{where} {k}") for k in rest)), "")


def _json_specs(c: Config) -> dict[str, Any]:
    """The specs of the json files that pages read; their other keys are free."""
    matrix = len(c.data.classes)
    judged = {"accuracy": float, "confusion": matrix}
    row = judged | {"N train": int}
    corpus = {"name": str, "title": str, "licence": str, "source": str, "clips": int}
    levels = {"ref_db": float, "level": float}
    trained = {"accuracy": [float], "steps?": [int], "confusion": matrix}
    given, made = c.gan.direction.split("-")
    results = {
        **{"classes": [str], "chance": float, "labels": WORDS, "notes": [str], "steps": int},
        **{f"N test {given}s": int, f"N test {made}s": int, given: judged, f"{made}?": judged},
        "conformal": {"n": int, "levels": {"*": {"error": float, "set size": float}}},
        "quality": {"N": int, "features": int, "scorer": WORDS, "*": float},
        "augmentation": {"*": row},
        "parameters": {"G": int, "*": int},
        "subjects": {"*": [str]},
        "evaluation?": int,
        "direction?": WORDS,
    }
    table = {
        "plan": {"seeds": int, "*": int},
        "rows": {"*": {"N train": int, "equal": trained, "best": trained}},
        "test subjects?": [str],
        "classes?": [str],
    }
    correlations = {"correlation with the first": {"*": float}}
    line = {"N": int, "N acoustics?": int, "scores": {"*": [float]}, **correlations}
    side = {"clips": int, "classes": {"*": int}, "subjects": {}, "unknown?": int}
    return {
        "corpus": {"faces": corpus, "voices": corpus | levels},
        "sets": {"*": {"faces": side, "voices": side}},
        "results": results,
        "table": table,
        "ears": {"*": line},
    }


# ------------------------------------------------------------------ arrays


_NEEDED = ("o_S2", "p_S2", "label_S2", "o_S4", "p_S4", "label_S4", "calibration")


def _array_specs(c: Config) -> dict[str, dict[str, ArraySpec]]:
    """The arrays of outputs.npz, generated.npz, table.npz and real_voices.npz."""
    most = len(c.data.classes) - 1
    outputs = {"calibration": ArraySpec(("calibration",), "i", 0)}
    for infix in ("", "voice_", "face_"):
        for name in ("S2", "S3", "S4"):
            of = f"{infix}{name}"
            outputs[f"o_{of}"] = outputs[f"p_{of}"] = ArraySpec((of, "K"), "f", 0, 1 + 1e-6)
            outputs[f"label_{of}"] = ArraySpec((of,), "i", 0, most)
            outputs[f"subject_{of}"] = ArraySpec((of,), "U")
    outputs |= {
        "features_centre": ArraySpec(("D",)),
        "features_scale": ArraySpec(("D", "F")),
        "features_S2": ArraySpec(("S2", "F")),
        "fold_S2": ArraySpec(("S2",), "i", -1, 1_000),
    }
    generated = {
        "y": ArraySpec(("n", "H", "W"), is_read=False),
        "label": ArraySpec(("n",), "i", 0, most),
        "row": ArraySpec(("n",), "i", 0),
        "o": ArraySpec(("n", "K"), "f", 0, 1 + 1e-3),
        "c": ArraySpec(("n", "length of c"), is_read=False),
    }
    table = {
        "rows": ArraySpec(("rows",), "U"),
        "predicted": ArraySpec(("rows", 2, "seeds", "n"), "i", 0, most),
        "S2": ArraySpec(("rows", "seeds", "marks")),
        "marks": ArraySpec(("marks",), "i", 0),
        "equal": ArraySpec((), "i", 0),
        "label": ArraySpec(("n",), "i", 0, most),
        "subject": ArraySpec(("n",), "U"),
        "row": ArraySpec(("n",), "i", 0),
        "counted": ArraySpec(("n",), "b"),
    }
    real_voices = {
        "y": ArraySpec(("real", c.logmel.columns, c.logmel.bands), "f", -1, 1),
        "label": ArraySpec(("real",), "i", 0, most),
        "subject": ArraySpec(("real",), "U"),
        "clip": ArraySpec(("real",), "U"),
    }
    return {"outputs": outputs, "generated": generated, "table": table, "real_voices": real_voices}


def _sample_spec(c: Config) -> dict[str, ArraySpec]:
    """The arrays of a checkpoint's samples."""
    most = len(c.data.classes) - 1
    return {
        "y": ArraySpec(("n", "H", "W")),
        "label": ArraySpec(("n",), "i", 0, most),
        "confusion": ArraySpec(("K", "K"), "i", 0),
        "at": ArraySpec(("of", 2)),
        "of": ArraySpec(("of",), "i", 0, most),
        "at_real": ArraySpec(("of real", 2)),
        "of_real": ArraySpec(("of real",), "i", 0, most),
        "share": ArraySpec((2,)),
    }


# ------------------------------------------------------------------ networks


def _check_architecture(c: Config, name: str, about: Any, widest: int) -> None:
    """Check what a network is built from against the run's sizes and the file's tensors."""
    kinds = {"G": GENERATORS, "D": ("discriminator",)}.get(name, ("classifier",))
    if about["kind"] not in kinds:
        raise ValueError(f"it is a {str(about['kind'])[:20]}")
    if name != "f_S" and "members" in about["arguments"]:
        raise ValueError("only f_S may be the mean of several networks")
    if about["arguments"].get("members", 1) > MAX_MEMBERS:
        raise ValueError(f"it is the mean of more than {MAX_MEMBERS} networks")
    for key, value in about["arguments"].items():
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > 16 or not all(isinstance(n, int | float | str) for n in numbers):
            raise ValueError(f"its {str(key)[:20]} is no short list")
        if any(not isinstance(n, str) and not 0 <= n <= min(widest, MAX_WIDTH) for n in numbers):
            raise ValueError(f"its {str(key)[:20]} is wider than its tensors")
    voice = [c.logmel.columns, c.logmel.bands]
    made, given = (voice, [*FACE]) if c.gan.direction == "face-voice" else ([*FACE], voice)
    wanted = given if name == "f_S" else made
    if about["arguments"].get("shape", wanted) != wanted:
        raise ValueError(f"its images are not {wanted[0]}×{wanted[1]}")
    if name not in ("G", "D") and about["arguments"].get("classes") != len(c.data.classes):
        raise ValueError("it knows another number of classes")
