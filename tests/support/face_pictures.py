"""Pictures with faces at given places, and real ones of ../shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from core.files import ROOT

DATA = ROOT.parent / "shared" / "data"


def canvas(h: int, w: int, *pasted: tuple[np.ndarray, int, int, int]) -> np.ndarray:
    """Brick wall (h, w) with pictures pasted: (picture, side, x, y)."""
    wall = Image.fromarray(np.tile(skimage.data.brick()[:, :, None], (3, 4, 3))[:h, :w])
    for picture, side, x, y in pasted:
        wall.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS), (x, y))
    return np.asarray(wall)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])


def real(pattern: str) -> list[Path]:
    paths = sorted(DATA.glob(pattern))
    if not paths:
        pytest.skip(f"no real media at {DATA / pattern}")
    return paths
