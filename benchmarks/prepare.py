"""This benchmark compares `data prepare` with what anybody must do with the same clips.

That is decoding and one search for landmarks. It also compares 2 workers with 1.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import av
import soundfile

from benchmarks.table import Row, measure_ratio
from core.data import preparation
from core.data.demo import recordings
from core.media.faces import detection

CLIP_COUNT = 48
REPEATS = 5


def decode_and_find_faces(folder: Path) -> None:
    """The floor decodes each clip and finds the landmarks of its middle frame.

    PyAV goes through every frame and converts none but that one; soundfile reads the sound.
    """
    for film in sorted(folder.glob("*.mp4")):
        soundfile.read(film.with_suffix(".wav"), dtype="float32")
        with av.open(str(film)) as box:
            video = box.streams.video[0]
            video.thread_type, video.codec_context.thread_count = "AUTO", 2  # as core.clips
            frames = list(box.decode(video))
        detection.detect(frames[len(frames) // 2].to_ndarray(format="rgb24"))


def whole_preparation(folder: Path, workers: int) -> Callable[[], None]:
    """A whole `prepare` of those clips from nothing."""

    def work() -> None:
        with (
            tempfile.TemporaryDirectory() as home,
            mock.patch.dict(os.environ, {"DACSSGAN_DATA": home}),
        ):
            preparation.prepare_corpus("demo-clips", folder, workers=workers)

    return work


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recordings.draw_demo_clips(folder, CLIP_COUNT)
        one = whole_preparation(folder, 1)
        least = measure_ratio(
            f"prepare, 1 worker / bare decoding and landmarks, {CLIP_COUNT} clips",
            one,
            lambda: decode_and_find_faces(folder),
            REPEATS,
            aim="at most 1.25",
        )
        cores = os.cpu_count() or 1
        note = f"of {cores} cores; processes started before" + (
            "" if cores > 1 else ": nothing to gain here"
        )
        scaling = measure_ratio(
            f"prepare, 1 worker / 2 workers, {CLIP_COUNT} clips",
            one,
            whole_preparation(folder, 2),
            REPEATS,
            aim="at least 1.6",
            note=note,
        )
        return [least, scaling]
