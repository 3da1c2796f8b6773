"""One reader of pictures: depths, colours, transparency, EXIF, kinds; all give the same picture."""

import dataclasses
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.media import clips, pictures
from core.media.containers import DEFAULT_LIMITS, MediaError

GREY = (np.add.outer(np.arange(96), np.arange(128)) * 255 / 222).astype(np.uint8)


def encoded(image, kind, **more):
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def near(content, wanted=GREY, most=6):
    frame = clips.read_clip(content, name="x").frames[0]
    assert frame.shape == (*wanted.shape[:2], 3)
    assert np.abs(frame[:, :, 1].astype(int) - wanted.astype(int)).mean() < most


@pytest.mark.parametrize("full", [255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_more_than_8_bits_are_scaled(kind, full):
    deep = (GREY.astype(np.float64) / 255 * full).round().astype(np.uint16)
    near(encoded(Image.fromarray(deep), kind), most=1)


@pytest.mark.parametrize("full", [1.0, 255.0, 65535.0])
def test_floats_are_scaled(full):
    near(encoded(Image.fromarray((GREY / 255 * full).astype(np.float32)), "TIFF"), most=1)


@pytest.mark.parametrize("values", [[[-1.0, 0.5]], [[0.0, 1e9]], [[np.nan, 1.0]]])
def test_floats_of_no_known_scale_are_refused(values):
    with pytest.raises(MediaError, match="no usual depth. Save it as jpg or png"):
        pictures.scale_to_8_bits(np.array(values), "x")


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("PNG", "L"),
        ("PNG", "P"),
        ("GIF", "P"),
        ("JPEG", "CMYK"),
        ("TIFF", "CMYK"),
        ("PPM", "L"),
        ("PPM", "RGB"),
        ("AVIF", "RGB"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
    ],
)
def test_kinds_and_colours(kind, mode):
    image = Image.fromarray(GREY).convert("RGB")
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    near(encoded(image, kind))


@pytest.mark.parametrize("name", ["grey", "turned"])
def test_pictures_of_telephones(name):
    """The files hold GREY, one lying on its side with the turn that EXIF asks for."""
    content = (Path(__file__).parent / f"{name}.heic").read_bytes()
    near(content)
    with pytest.raises(MediaError, match="damaged picture. Save it again as jpg or png"):
        clips.read_clip(content[:500], name="x")
    with pytest.raises(MediaError, match="pixels; at most"):
        clips.read_clip(content, dataclasses.replace(DEFAULT_LIMITS, pixels=1000), name="x")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white_whatever_lies_below(mode):
    shown, below = Image.fromarray(GREY).convert("RGB"), np.zeros((96, 128), np.uint8)
    mask = np.zeros((96, 128), np.uint8)
    mask[:, 64:] = 255
    image = Image.composite(shown, Image.fromarray(below).convert("RGB"), Image.fromarray(mask))
    image.putalpha(Image.fromarray(mask))
    wanted = GREY.copy()
    wanted[:, :64] = 255
    near(encoded(image if mode == "RGBA" else image.convert(mode), "PNG"), wanted)


@pytest.mark.parametrize("orientation", [0, 1, 9, 77])
def test_an_orientation_that_asks_for_nothing_is_not_told(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    clip = clips.read_clip(encoded(Image.fromarray(GREY), "JPEG", exif=exif), name="x")
    assert (clip.notes, clip.frames.shape) == ((), (1, 96, 128, 3))


def test_an_orientation_that_is_text_asks_for_nothing():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(GREY), "JPEG", exif=exif)
    number, text = b"\x01\x12\0\x03\0\0\0\1\0\6", b"\x01\x12\0\x02\0\0\0\2" + b"6\0"
    assert content.count(number) == 1
    clip = clips.read_clip(content.replace(number, text), name="x")
    assert (clip.notes, clip.frames.shape) == ((), (1, 96, 128, 3))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_other_orientation_is_applied_and_told(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    clip = clips.read_clip(encoded(Image.fromarray(GREY), "JPEG", exif=exif), name="x")
    assert clip.notes == (pictures.TURNED_NOTE,)
    assert clip.frames.shape[1:3] == ((96, 128) if orientation < 5 else (128, 96))


def test_colours_that_are_not_read_are_named():
    lab = Image.new("LAB", (32, 32))
    with pytest.raises(MediaError, match="is in LAB colours. Save it as RGB"):
        clips.read_clip(encoded(lab, "TIFF"), name="x")


def test_a_gif_with_several_pictures_is_a_film_and_with_one_a_picture():
    frames = [Image.fromarray(np.roll(GREY, 9 * i, 1)) for i in range(4)]
    still = clips.read_clip(encoded(frames[0], "GIF"), name="x")
    film = clips.read_clip(
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=200), name="x"
    )
    assert (still.is_still, len(still.frames)) == (True, 1)
    assert (film.is_still, len(film.frames)) == (False, 4)


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded():
    content = bytearray(encoded(Image.new("1", (40, 40)), "PNG"))
    content[16:24] = struct.pack(">II", 40_000, 40_000)  # the sides in the header, and its sum
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(MediaError, match="Scale it down"):
        pictures.read_picture(bytes(content), "png", "x", DEFAULT_LIMITS)
