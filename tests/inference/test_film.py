"""A film that speaks: voice and picture in step, its mark, its length, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import re

import av
import numpy as np
import pytest

from core.__main__ import main
from core.inference import generation
from core.inference.film import dubbing, encoder
from core.inference.generation import AnalysedClip
from core.media import clips
from core.media.clips import Clip
from core.media.containers import MediaError
from core.media.faces import tracking
from tests.support.media_files import RATE, tone, write

FLASH = 1.2  # s at which the picture turns white and the voice begins


def flash_frames(count: int = 50) -> np.ndarray:
    frames = np.full((count, 180, 241, 3), 90, np.uint8)  # an odd side
    frames[np.arange(count) / 25 >= FLASH] = 200
    return frames


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("film") / "flash.mkv"
    return write(path, "mpeg4", flash_frames()[:, :, :240], tone(2.0, 44_100)).read_bytes()


def beep(seconds: float = 2.0) -> np.ndarray:
    return np.where(np.arange(round(seconds * RATE)) / RATE >= FLASH, tone(seconds), 0)


def opened(content: bytes):
    return av.open(io.BytesIO(content))


def test_voice_and_picture_are_in_step_and_it_says_that_it_is_nobodys(film):
    told = []
    report = lambda words, done, total: told.append((words, done, total))  # noqa: E731
    made = dubbing.with_voice(film, "flash.mkv", beep(), "run, seed 3", report)
    with opened(made) as box:
        assert box.metadata["comment"] == "run, seed 3"
        assert "nobody's voice" in box.metadata["title"]
        names = [stream.codec_context.name for stream in box.streams]
        assert (names, box.duration / 1e6) == (["h264", "aac"], pytest.approx(2.0, abs=0.05))
    clip = clips.read_clip(made)
    centre = clip.frames[:, 60:120, 100:140].mean(axis=(1, 2, 3))
    bright = clip.times[np.argmax(centre > 150)]
    loud = np.argmax(np.abs(clip.waveform) > 0.2) / clip.rate
    assert bright == pytest.approx(FLASH, abs=0.05)
    assert loud == pytest.approx(FLASH, abs=0.03)
    corner = clip.frames[-1][:12, :80]  # white words on a dark ground
    assert corner.min() < 100 < 200 < corner.max()
    assert clip.frames[-1][-80:].min() > 150
    assert {words for words, *_ in told} == set(dubbing.PHASES.values())
    assert all(0 <= done <= total for _, done, total in told)


def test_its_own_sound_stays_where_it_was(film):
    own, again = clips.read_clip(film), clips.read_clip(dubbing.with_own_sound(film, "flash.mkv"))
    n = min(len(own.waveform), len(again.waveform))
    assert n / RATE == pytest.approx(2.0, abs=0.05)
    inner = slice(2000, n - 2000)
    assert np.corrcoef(own.waveform[inner], again.waveform[inner])[0, 1] > 0.99


@pytest.mark.parametrize(("seconds", "frames"), [(0.5, 50), (3.0, 50), (1.0, 1)])
def test_a_film_is_as_long_as_its_voice(seconds, frames):
    """The picture is cut, or its last frame stays."""
    clip = Clip("film", np.arange(frames) / 25, flash_frames(frames), None)
    made = encoder.encode(clip, tone(seconds), "mark", {}, list(dubbing.ENCODERS), lambda *_: None)
    with opened(made) as box:
        assert box.streams.video[0].frames == round(seconds * encoder.RATE)
        assert (box.streams.video[0].width, box.streams.video[0].height) == (242, 180)
        assert box.duration / 1e6 == pytest.approx(seconds, abs=0.06)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (480, 60), (64, 480), (480, 480)])
def test_the_mark_fits_every_picture(height, width):
    clip = Clip("film", np.zeros(1), np.full((1, height, width, 3), 255, np.uint8), None)
    words = dubbing.GENERATED_MARK
    made = encoder.encode(clip, tone(0.2), words, {}, list(dubbing.ENCODERS), lambda *_: None)
    frame = clips.read_clip(made).frames[0].astype(int)
    dark = (frame < 140).all(axis=2)
    assert dark[: height // 2].any()
    assert not dark[-height // 4 :].any()


def test_what_cannot_be_a_film_is_refused_with_the_fix(film, tmp_path, monkeypatch):
    for content, says in (
        (b"hello", "not a media file but text"),
        (film[:300], "damaged or cut short"),
        (write(tmp_path / "mute.mp4", frames=flash_frames(3)[:, :, :240]).read_bytes(), "no sound"),
    ):
        with pytest.raises(MediaError, match=says):
            dubbing.with_own_sound(content, "a film")
    monkeypatch.setattr(dubbing, "ENCODERS", ("no such encoder",))
    with pytest.raises(MediaError, match="no encoder of H.264.*pip install"):
        dubbing.with_voice(film, "a film", beep(), "")
    monkeypatch.setattr(dubbing, "LIMITS", dataclasses.replace(dubbing.LIMITS, wall_seconds=0.05))
    with pytest.raises(MediaError, match="takes too long"):
        dubbing.with_voice(film, "a film", beep(), "")


def test_who_asks_no_longer_ends_the_work(film):
    def leave(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dubbing.with_voice(film, "flash.mkv", beep(), "", leave)


def test_the_command_writes_a_film_that_speaks(film, tmp_path, monkeypatch, capsys):
    n = 25
    faces, found = np.zeros((n, 28, 28), np.uint8), np.ones(n, bool)
    seen = AnalysedClip(
        *("flash.mkv", np.arange(n) / 12.5, flash_frames(n), np.zeros((n, 4)), faces, found),
        *(1, tone(2.0), (), n // 2),
    )
    monkeypatch.setattr(tracking, "track_file", lambda *_: tracking.TrackedClip(None, []))
    monkeypatch.setattr(generation, "analyse_clip", lambda *_: seen)
    clip = tmp_path / "flash.mkv"
    clip.write_bytes(film)
    options = ["--run", "demo", "--condition", "label", "--out", str(tmp_path)]
    assert main(["generate", str(clip), "--video", *options]) == 0
    (made,) = tmp_path.glob("*-whole.mp4")
    assert str(made) in capsys.readouterr().out
    with av.open(str(made)) as box:
        assert re.search(r"demo-label-\w+ seed 0; .*nobody's voice", box.metadata["comment"])
        assert box.duration / 1e6 == pytest.approx(2.0, abs=0.05)
