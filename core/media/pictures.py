"""§3.4: a still picture of any mode -> upright RGB; the only reader of pictures.

Depths above 8 bits are scaled, not cut off; transparent parts become white; CMYK and palettes are
converted; EXIF's orientation is applied.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from core.media import containers
from core.media.containers import Limits, MediaError

MIN_PICTURE_SIDE = 16  # pixels of a picture's shorter side
FULL_SCALES = (255, 1023, 4095, 65535)  # largest grey level of 8, 10, 12, 16 bits
ORIENTATION_TAG = 0x0112  # of EXIF; 2..8 ask for a turn or a mirror image, all others for nothing
TURNED_NOTE = "turned upright, as its EXIF data ask"


def read_picture(content: bytes, kind: str, name: str, limits: Limits) -> tuple[Image.Image, str]:
    """An upright RGB image, its long side at most limits.side, and a remark or "".

    `kind` is a key of containers.PICTURE_FORMATS, or gif. Raises MediaError for a picture that is
    damaged, too large or too small.
    """
    if kind == "heic":
        import pi_heif

        pi_heif.register_heif_opener()  # it turns pictures upright itself
    wanted = containers.PICTURE_FORMATS.get(kind, kind.upper())
    try:
        with Image.open(io.BytesIO(content), formats=[wanted]) as image:
            check_size(*image.size, name, limits)
            is_turned = _orientation(image) in range(2, 9)
            turned = ImageOps.exif_transpose(image) if is_turned else image
            rgb = to_rgb(turned, name)
    except Image.DecompressionBombError as error:
        raise MediaError(f"{name} has too many pixels. Scale it down") from error
    except (MediaError, MemoryError):
        raise
    except Exception as error:  # each of PIL's decoders raises errors of its own
        raise MediaError(f"{name} is a damaged picture. Save it again as jpg or png") from error
    rgb.thumbnail((limits.side, limits.side), Image.Resampling.LANCZOS)
    return rgb, TURNED_NOTE if is_turned else ""


def _orientation(image: Image.Image) -> object:
    """EXIF's orientation as the file has it, None where it has none that can be read."""
    try:
        return image.getexif().get(ORIENTATION_TAG)
    except Exception:  # damaged EXIF data ask for nothing
        return None


def is_still_gif(content: bytes) -> bool:
    """Whether a gif holds one picture; an animated one is a film."""
    try:
        with Image.open(io.BytesIO(content), formats=["GIF"]) as image:
            return getattr(image, "n_frames", 1) == 1
    except Exception:  # damaged: the reader that it is given to says so
        return True


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """An image of any of PIL's modes as RGB. Raises MediaError for colours that are not read."""
    if image.mode == "F" or image.mode.startswith("I"):
        grey = scale_to_8_bits(np.asarray(image), name)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("LAB", "HSV"):
        raise MediaError(f"{name} is in {image.mode} colours. Save it as RGB, as jpg or png")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def scale_to_8_bits(grey: np.ndarray, name: str = "the picture") -> np.ndarray:
    """Grey levels (H, W) of more than 8 bits, or floats -> uint8 0..255.

    The full scale is the smallest usual one that holds the brightest pixel: 1 for floats up to 1,
    else that of 8, 10, 12 or 16 bits. Raises MediaError for levels outside of these.

    >>> scale_to_8_bits(np.array([[0, 32768, 65535]]))
    array([[  0, 128, 255]], dtype=uint8)
    >>> scale_to_8_bits(np.array([[0.0, 0.5, 1.0]]))
    array([[  0, 128, 255]], dtype=uint8)
    """
    low, high = float(grey.min()), float(grey.max())
    is_float = np.issubdtype(grey.dtype, np.floating)
    scales = (1, *FULL_SCALES) if is_float else FULL_SCALES
    full = next((s for s in scales if high <= s), None)
    if full is None or not low >= 0:
        what = f"{name} has grey levels from {low:g} to {high:g}"
        raise MediaError(f"{what}, of no usual depth. Save it as jpg or png")
    return np.rint(grey.astype(np.float64) * (255 / full)).astype(np.uint8)


def check_size(w: int, h: int, name: str, limits: Limits) -> None:
    """Raise MediaError for a frame of too many pixels, or too few for a face."""
    if w * h > limits.pixels:
        most = f"at most {limits.pixels / 1e6:.0f} million are taken"
        raise MediaError(f"{name} has {w} x {h} pixels; {most}. Scale it down")
    if min(w, h) < MIN_PICTURE_SIDE:
        fault = f"{name} has only {w} x {h} pixels, too few for a face"
        raise MediaError(f"{fault}. Choose a larger picture")
