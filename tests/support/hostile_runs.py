"""Directories of runs as a stranger may bring them: a copy of a good run with one file spoilt.

`spoil(NAME, source, folder)` makes one; the file that the fault must name stands in HOSTILE.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def _json(name: str, *keys: str, value: Any) -> Callable[[Path], None]:
    """Set a value deep in a json file; without keys, the whole file."""

    def act(run: Path) -> None:
        path = run / name
        whole = json.loads(path.read_text())
        inner = whole
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        if keys:
            inner[keys[-1]] = value
        path.write_text(json.dumps(whole if keys else value))

    return act


def _without(name: str, *keys: str) -> Callable[[Path], None]:
    def act(run: Path) -> None:
        whole = json.loads((run / name).read_text())
        inner = whole
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        (run / name).write_text(json.dumps(whole))

    return act


def _array(name: str, key: str, change: Callable[[np.ndarray], Any]) -> Callable[[Path], None]:
    def act(run: Path) -> None:
        path = run / name
        with np.load(path) as f:
            arrays = dict(f)
        arrays[key] = change(arrays[key])
        np.savez(path, **{k: v for k, v in arrays.items() if v is not None})

    return act


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(change((run / name).read_bytes()))


def _special(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def act(run: Path) -> None:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        make(path)

    return act


def _header(name: str, change: Callable[[dict], Any]) -> Callable[[Path], None]:
    """Change the header of a safetensors file; its tensors stay."""

    def act(run: Path) -> None:
        path = run / "models" / name
        data = path.read_bytes()
        (n,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + n])
        header = change(header) or header
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + n :])

    return act


def _argument(**values: Any) -> Callable[[dict], None]:
    def change(header: dict) -> None:
        network = json.loads(header["__metadata__"]["network"])
        network["arguments"] |= values
        header["__metadata__"]["network"] = json.dumps(network)

    return change


def _bomb(size: int) -> Callable[[bytes], bytes]:
    """An npz that says of its first array that it unpacks to so many bytes."""

    def make(data: bytes) -> bytes:
        file = io.BytesIO(data)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("more.npy", b"")  # so that the list of members is written anew
            archive.filelist[0].file_size = size
        return file.getvalue()

    return make


def _first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(a: np.ndarray) -> np.ndarray:
        a = a.copy()
        a.reshape(-1)[0] = value
        return a

    return change


IMAGE = '<img src="http://192.0.2.1/seen.png">'
MARKDOWN = "![seen](http://192.0.2.1/seen.png)"
OBJECTS = np.array([{"a": 1}], dtype=object)
# name -> (the file that the fault names, what is done to the copy)
HOSTILE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "hop-0": ("config.json", _json("config.json", "logmel", "hop", value=0)),
    "rate-0": ("config.json", _json("config.json", "logmel", "rate", value=0)),
    "bands-1e9": ("config.json", _json("config.json", "logmel", "bands", value=10**9)),
    "columns-0": ("config.json", _json("config.json", "logmel", "columns", value=0)),
    "range-negative": ("config.json", _json("config.json", "logmel", "range_db", value=-1)),
    "f-max": ("config.json", _json("config.json", "logmel", "f_max", value=90_000)),
    "window": ("config.json", _json("config.json", "logmel", "window", value=60_000)),
    "z-1e9": ("config.json", _json("config.json", "gan", "z", value=10**9)),
    "batch-0": ("config.json", _json("config.json", "gan", "batch", value=0)),
    "every-0": ("config.json", _json("config.json", "evaluate", "every", value=0)),
    "no-class": ("config.json", _json("config.json", "data", "classes", value=[])),
    "one-class": ("config.json", _json("config.json", "data", "classes", value=["happy"])),
    "classes-50000": (
        "config.json",
        _json("config.json", "data", "classes", value=[f"c{k}" for k in range(50_000)]),
    ),
    "classes-900": (
        "config.json",
        _json("config.json", "data", "classes", value=[f"c{k}" for k in range(900)]),
    ),
    "class-html": (
        "config.json",
        _json("config.json", "data", "classes", value=[IMAGE, "b", "c", "d", "e", "f"]),
    ),
    "class-markdown": (
        "config.json",
        _json("config.json", "data", "classes", value=[MARKDOWN, "b", "c", "d", "e", "f"]),
    ),
    "seven-classes": (
        "results.json",
        _json("config.json", "data", "classes", value=["a", "b", "c", "d", "e", "f", "g"]),
    ),
    "corpus-name": ("config.json", _json("config.json", "data", "voices", value="../../etc")),
    "name-markup": ("config.json", _json("config.json", "name", value=MARKDOWN)),
    "corpus-list": ("corpus.json", _json("corpus.json", value=[1])),
    "ref-db-text": ("corpus.json", _json("corpus.json", "voices", "ref_db", value="loud")),
    "ref-db-nan": ("corpus.json", _json("corpus.json", "voices", "ref_db", value=float("nan"))),
    "no-level": ("corpus.json", _without("corpus.json", "voices", "level")),
    "no-title": ("corpus.json", _without("corpus.json", "faces", "title")),
    "sets-list": ("sets.json", _json("sets.json", value=[1])),
    "sets-nested": ("sets.json", _json("sets.json", "S3", "voices", value=[])),
    "results-text": ("results.json", _json("results.json", value="done")),
    "no-quality": ("results.json", _without("results.json", "quality")),
    "no-classes": ("results.json", _without("results.json", "classes")),
    "FID-text": ("results.json", _json("results.json", "quality", "FID", value="good")),
    "FID-infinite": ("results.json", _json("results.json", "quality", "FID", value=1e999)),
    "augmentation-list": ("results.json", _json("results.json", "augmentation", value=[1])),
    "row-without-accuracy": (
        "results.json",
        _without("results.json", "augmentation", "S1", "accuracy"),
    ),
    "row-markup": (
        "results.json",
        _json(
            *("results.json", "augmentation", IMAGE),
            value={"accuracy": 0.5, "confusion": [[1]], "N train": 3},
        ),
    ),
    "labels-markup": ("results.json", _json("results.json", "labels", value=MARKDOWN)),
    "notes-number": ("results.json", _json("results.json", "notes", value=5)),
    "table-rows": ("table.json", _json("table.json", "rows", value={"S1": 3})),
    "table-plan": ("table.json", _without("table.json", "plan")),
    "outputs-1-dim": ("outputs.npz", _array("outputs.npz", "o_S2", lambda a: a[:, 0])),
    "outputs-fewer": ("outputs.npz", _array("outputs.npz", "o_S2", lambda a: a[:-1])),
    "outputs-5-classes": ("outputs.npz", _array("outputs.npz", "p_S4", lambda a: a[:, :5])),
    "outputs-nan": ("outputs.npz", _array("outputs.npz", "o_S4", _first(np.nan))),
    "outputs-2": ("outputs.npz", _array("outputs.npz", "p_S4", _first(2.0))),
    "labels-99": ("outputs.npz", _array("outputs.npz", "label_S4", _first(99))),
    "labels-text": ("outputs.npz", _array("outputs.npz", "label_S2", lambda a: a.astype(str))),
    "labels-negative": ("outputs.npz", _array("outputs.npz", "label_S2", _first(-1))),
    "calibration-far": ("outputs.npz", _array("outputs.npz", "calibration", _first(-7))),
    "outputs-missing": ("outputs.npz", _array("outputs.npz", "label_S4", lambda a: None)),
    "outputs-objects": ("outputs.npz", _array("outputs.npz", "o_S3", lambda a: OBJECTS)),
    "outputs-empty": ("outputs.npz", _bytes("outputs.npz", lambda b: b"")),
    "outputs-cut": ("outputs.npz", _bytes("outputs.npz", lambda b: b[: len(b) // 2])),
    "outputs-flipped": (
        "outputs.npz",
        _bytes("outputs.npz", lambda b: b[:300] + bytes(200) + b[500:]),
    ),
    "outputs-bomb": ("outputs.npz", _bytes("outputs.npz", _bomb(5 << 30))),
    "outputs-gone": ("outputs.npz", lambda run: (run / "outputs.npz").unlink()),
    "outputs-fifo": ("outputs.npz", _special("outputs.npz", os.mkfifo)),
    "outputs-folder": ("outputs.npz", _special("outputs.npz", Path.mkdir)),
    "generated-bands": ("generated.npz", _array("generated.npz", "y", lambda a: a[:, :, :20])),
    "generated-label": ("generated.npz", _array("generated.npz", "label", _first(77))),
    "generated-fewer": ("generated.npz", _array("generated.npz", "o", lambda a: a[:-2])),
    "generated-text": ("generated.npz", _bytes("generated.npz", lambda b: b"generated")),
    "table-predicted": ("table.npz", _array("table.npz", "predicted", lambda a: a[:, :, :, :9])),
    "table-subject": ("table.npz", _array("table.npz", "subject", lambda a: np.arange(len(a)))),
    "samples-shape": (
        "samples/step-0000100.npz",
        _array("samples/step-0000100.npz", "y", lambda a: a[:, :3]),
    ),
    "samples-nan": (
        "samples/step-0000100.npz",
        _array("samples/step-0000100.npz", "y", _first(np.nan)),
    ),
    "samples-label": (
        "samples/step-0000100.npz",
        _array("samples/step-0000100.npz", "label", _first(50)),
    ),
    "G-cut": ("models/G.safetensors", _bytes("models/G.safetensors", lambda b: b[:-100])),
    "G-longer": ("models/G.safetensors", _bytes("models/G.safetensors", lambda b: b + bytes(9))),
    "G-fifo": ("models/G.safetensors", _special("models/G.safetensors", os.mkfifo)),
    "G-zero": (
        "models/G.safetensors",
        _special("models/G.safetensors", lambda p: p.symlink_to("/dev/zero")),
    ),
    "G-no-header": ("models/G.safetensors", _bytes("models/G.safetensors", lambda b: bytes(64))),
    "G-long-header": (
        "models/G.safetensors",
        _bytes("models/G.safetensors", lambda b: b"\xff" * 7 + b"\x00" + b[8:]),
    ),
    "G-wide": ("models/G.safetensors", _header("G.safetensors", _argument(widths=[9_000] * 4))),
    "G-many-widths": (
        "models/G.safetensors",
        _header("G.safetensors", _argument(widths=[16] * 5_000)),
    ),
    "G-other-shape": ("models/G.safetensors", _header("G.safetensors", _argument(shape=[9, 9]))),
    "f_S-classes": ("models/f_S.safetensors", _header("f_S.safetensors", _argument(classes=9))),
    "f_S-members": ("models/f_S.safetensors", _header("f_S.safetensors", _argument(members=900))),
    "Q-members": ("models/Q.safetensors", _header("Q.safetensors", _argument(members=2))),
    "Q-kind": (
        "models/Q.safetensors",
        _header("Q.safetensors", lambda h: h["__metadata__"].update(network='{"kind": "x"}')),
    ),
    "Q-offsets": (
        "models/Q.safetensors",
        _header(
            "Q.safetensors",
            lambda h: {k: v if k[0] == "_" else v | {"shape": [10**12]} for k, v in h.items()},
        ),
    ),
    "scorer-nested": (
        "models/scorer.safetensors",
        _bytes(
            "models/scorer.safetensors", lambda b: struct.pack("<Q", 200_000) + b"[" * 200_000 + b
        ),
    ),
    "status-list": ("status.json", lambda run: (run / "status.json").write_text("[]")),
    "provenance": ("provenance.json", _json("provenance.json", value=[])),
    "config-fifo": ("config.json", _special("config.json", os.mkfifo)),
    "config-zero": ("config.json", _special("config.json", lambda p: p.symlink_to("/dev/zero"))),
    "config-deep": ("config.json", lambda run: (run / "config.json").write_text("[" * 100_000)),
    "no name ![x](y)": ("no name", lambda run: None),
}


def spoil(name: str, source: Path, folder: Path) -> Path:
    """A copy of the run `source` in `folder` with the damage of that name."""
    target = folder / name
    shutil.copytree(source, target)
    HOSTILE[name][1](target)
    return target
