"""Files that a visitor takes home, opened by their kind: an empty or broken one is an error."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image


def open_file(name: str, content: bytes) -> str:
    """Read a file to its end; what it holds, in words. KeyError for a kind that nobody knows."""
    assert content, f"{name} is empty"
    return READERS[Path(name).suffix.lower()](content)


def _wav(content: bytes) -> str:
    wave, rate = soundfile.read(io.BytesIO(content))
    assert len(wave)
    assert np.isfinite(wave).all()
    return f"{len(wave) / rate:.2f} s"


def _npy(content: bytes) -> str:
    return str(np.load(io.BytesIO(content), allow_pickle=False).shape)


def _npz(content: bytes) -> str:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
    assert shapes
    return f"{len(shapes)} arrays"


def _zip(content: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        names = [n for n in archive.namelist() if not n.endswith("/")]
        assert names
        for name in names:
            open_file(name, archive.read(name))
    return f"{len(names)} files"


def _picture(content: bytes) -> str:
    image = Image.open(io.BytesIO(content))
    image.load()
    return str(image.size)


def _csv(content: bytes) -> str:
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    assert len(rows) > 1
    assert {len(r) for r in rows} == {len(rows[0])}
    return f"{len(rows) - 1} rows"


def _json(content: bytes) -> str:
    return type(json.loads(content)).__name__


def _text(content: bytes) -> str:
    return f"{len(content.decode().splitlines())} lines"


def _film(content: bytes) -> str:
    with av.open(io.BytesIO(content)) as film:
        n = sum(1 for _ in film.decode(video=0))
    assert n
    return f"{n} frames"


def _pdf(content: bytes) -> str:
    assert content.startswith(b"%PDF-")
    assert b"%%EOF" in content[-1024:]
    return f"{content.count(b'/Type /Page')} pages"


READERS: dict[str, Callable[[bytes], str]] = {
    ".wav": _wav,
    ".npy": _npy,
    ".npz": _npz,
    ".zip": _zip,
    ".png": _picture,
    ".csv": _csv,
    ".json": _json,
    ".txt": _text,
    ".md": _text,
    ".mp4": _film,
    ".pdf": _pdf,
}
