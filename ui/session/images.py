"""Arrays as pictures and files for the browser, and the colours of all spectrograms."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from plotly.colors import hex_to_rgb

from ui import theme


def _colour_map() -> np.ndarray:
    """(256, 3) uint8: the spectrograms' colour map."""
    stops = np.array([hex_to_rgb(k) for k in theme.SPECTROGRAM_COLOUR_SCALE], float)
    x, at = np.linspace(0, 1, 256), np.linspace(0, 1, len(stops))
    return np.stack([np.interp(x, at, part) for part in stops.T], axis=1).round().astype(np.uint8)


COLOUR_MAP = _colour_map()


def spectrogram_image(y: np.ndarray) -> np.ndarray:
    """(columns, bands) in [-1, 1] -> (bands, columns, 3) uint8, low frequencies at the bottom."""
    level = np.clip((np.asarray(y, np.float32) + 1) * 127.5, 0, 255).astype(np.uint8)
    return COLOUR_MAP[level.T[::-1]]


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """(H, W) or (H, W, 3) with each pixel as a square of `factor` pixels."""
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def png_bytes(image: np.ndarray) -> bytes:
    """(H, W), (H, W, 3) or (H, W, 4) uint8 as PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def png_data_url(image: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()


def npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
