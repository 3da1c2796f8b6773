"""What an npz or a safetensors file of a stranger holds, before anything of its size is allocated.

Sizes come from the headers; values are read only where a rule asks for them. Standard library and
NumPy only.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core import files

MAX_ARRAY_BYTES = 2 << 30  # unpacked, of one npz of a run
MAX_VALUE_BYTES = 256 << 20  # of one array whose values are looked at
MAX_HEADER_BYTES = 1 << 20  # of a network's file; ours have some 3 kB
DTYPE_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
KINDS = {"f": "f", "i": "iu", "U": "U", "b": "b"}  # of a spec -> NumPy's


@dataclass(frozen=True)
class ArraySpec:
    """An array of an npz: its sizes, each a number or a name, its kind, and its values' range.

    A name has a number already, as K, H and W have, or gets it from the first array that has it.
    """

    sizes: tuple[str | int, ...]
    kind: Literal["f", "i", "U", "b"] = "f"
    low: float = -math.inf
    high: float = math.inf
    is_read: bool = True  # False: too large to be looked at


def check_arrays(
    path: Path,
    specs: Mapping[str, ArraySpec],
    sizes: Mapping[str, int],
    needed: tuple[str, ...] = (),
) -> None:
    """Raise ValueError for the first array of an npz that is not as its spec says.

    The file may be absent, and so may any array that is not needed.
    """
    if not os.path.lexists(path):
        if needed:
            raise ValueError("it is missing")
        return
    if not path.is_file():
        raise ValueError("it is no plain file")
    bound = dict(sizes)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            if sum(m.file_size for m in members.values()) > MAX_ARRAY_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_ARRAY_BYTES >> 20:,} MB")
            if missing := [name for name in needed if name not in members]:
                raise ValueError(f"{missing[0]} is missing")
            for name, member in members.items():
                with archive.open(member) as file:
                    shape, dtype = files.npy_header(file)
                _check_header(name, shape, dtype, specs.get(name), bound)
                if (spec := specs.get(name)) and spec.is_read and spec.kind in "fi":
                    if member.file_size > MAX_VALUE_BYTES:
                        raise ValueError(f"{name} has {member.file_size >> 20:,} MB")
                    with archive.open(member) as file:
                        _check_values(name, np.lib.format.read_array(file), spec)
    except (zipfile.BadZipFile, zlib.error, EOFError, SyntaxError, RuntimeError) as e:
        raise ValueError(str(e) or type(e).__name__) from e


def _check_header(
    name: str, shape: tuple[int, ...], dtype: np.dtype, spec: ArraySpec | None, bound: dict
) -> None:
    if dtype.hasobject:
        raise ValueError(f"{files.printable(name)[:40]} holds objects")
    if spec is None:
        return
    wanted = tuple(
        bound.setdefault(s, n) if isinstance(s, str) else s for s, n in zip(spec.sizes, shape)
    )
    if len(shape) != len(spec.sizes) or shape != wanted:
        of = "×".join(str(bound.get(s, s)) for s in spec.sizes) or "one value"
        raise ValueError(f"{name} is {'×'.join(map(str, shape)) or 'one value'}, not {of}")
    if dtype.kind not in KINDS[spec.kind]:
        raise ValueError(f"{name} is of the type {dtype}")


def _check_values(name: str, values: np.ndarray, spec: ArraySpec) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has values that are not finite")
    if values.size and not (spec.low <= values.min() and values.max() <= spec.high):
        raise ValueError(f"{name} has values beyond {spec.low:g} … {spec.high:g}")


def network_header(path: Path) -> tuple[Any, int]:
    """What a network's file says that it is built from, and the largest size of its tensors.

    Raises ValueError, KeyError, TypeError or AttributeError unless its tensors fill the file.
    """
    if not path.is_file():
        raise ValueError("it is no plain file")
    whole = path.stat().st_size
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if not 0 < length <= min(whole - 8, MAX_HEADER_BYTES):
            raise ValueError("its header is cut")
        try:
            header = json.loads(f.read(length))
            about = json.loads(header.pop("__metadata__")["network"])
        except RecursionError:
            raise ValueError("its header is nested too deeply") from None
    end, widest = 0, 1
    for tensor in header.values():
        first, last = tensor["data_offsets"]
        if last - first != math.prod(tensor["shape"]) * DTYPE_BYTES[tensor["dtype"]]:
            raise ValueError("a tensor's size is not its shape's")
        end, widest = max(end, last), max(widest, *tensor["shape"], 1)
    if end != whole - 8 - length:
        raise ValueError("its tensors do not fill the file")
    return about, widest
