"""§3.3 and §3.4 for one clip of a corpus: what `prepare` does thousands of times, in whatever process or machine. No torch.

A clip is a corpora.Entry with media, or a take of the invented corpus, which is drawn. Decoder and landmarks are imported where they are
needed: drawing wants neither.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.config import LogMel
from core.data.corpora import ClipEntry
from core.data.sources import media_files
from core.data.splits import STORED_COLUMNS
from core.media import spectrograms

MAX_CROP_SIDE = 128  # pixels: pictures with a shorter side are faces cut out already, others photographs to find one in
CROP_SIZE = 48  # pixels of a crop's side, as FER2013's
MAX_SEARCHED_FRAMES = 25  # frames around the middle in which a face is looked for
WINDOW_SECONDS = STORED_COLUMNS * LogMel().hop / LogMel().rate  # seconds that a spectrogram shows


@dataclass(frozen=True)
class ExtractionSettings:
    """What is taken from each clip, besides what LogMel says."""

    frames: int = 1  # faces, the first of the frame nearest the sound's middle
    crops: int = 1  # windows of COLUMNS columns, the first the clip's middle
    bands: int = LogMel().bands  # of a spectrogram


@dataclass(frozen=True)
class ClipFeatures:
    """What has come of one clip."""

    reason: str = ""  # why it is left out
    x: np.ndarray | None = None  # (frames, 28, 28) uint8
    y: np.ndarray | None = None  # (crops, 112, bands) float32 dB
    five: np.ndarray | None = (
        None  # (5, 2) float64 landmarks of a crop, pixels; NaN where none were found
    )
    crop: np.ndarray | None = (
        None  # (48, 48) uint8: a crop without landmarks, to be aligned by the median of the others' when all are read
    )
    repeats: tuple[bool, bool] = (
        False,
        False,
    )  # fewer different frames, or windows, than asked for


def extract_clip(item: Any, how: ExtractionSettings) -> ClipFeatures:
    """What comes of one clip, a corpora.Entry or a demo.Take. Whatever is wrong with it is its `reason`; raises ModelMissing only."""
    try:
        return (
            _extract_entry(item, how) if isinstance(item, ClipEntry) else _extract_take(item, how)
        )
    except Exception as e:  # one odd clip must not stop a corpus; its reason is kept
        from core.media.faces import landmarker

        if isinstance(e, landmarker.ModelMissing | MemoryError):
            raise  # not the clip's fault, and all the others would be left out, too
        return ClipFeatures(reason=f"{type(e).__name__}: {e}")


def _extract_take(take: Any, how: ExtractionSettings) -> ClipFeatures:
    from core.data.demo import actors
    from core.media.faces import alignment

    wave = actors.synthesise_voice(take)
    y, repeated = _spectrogram_windows(wave, how)
    times = _frame_times(spectrograms.centre_time(len(wave) / LogMel().rate), how.frames)
    return ClipFeatures(
        x=np.stack([alignment.align(*actors.render_face(take, t=t)) for t in times]),
        y=y,
        repeats=(False, repeated),
    )


def _extract_entry(entry: ClipEntry, how: ExtractionSettings) -> ClipFeatures:
    """One clip through §3.3 and §3.4; pictures of faces already cut out keep only their landmarks where none can be found."""
    from core.media import (
        clips,  # late: a training on prepared arrays needs no decoder and no landmarks
    )

    y, seconds, repeated = None, None, False
    if entry.audio:
        with media_files.media_file(entry.audio) as path:
            wave = clips.read_waveform(path)
        seconds = len(wave) / LogMel().rate
        y, repeated = _spectrogram_windows(wave, how)
    if not entry.video:
        return ClipFeatures(y=y, repeats=(False, repeated))
    with media_files.media_file(entry.video) as path:
        crop = (
            _read_crop(path)
            if path.suffix.lower() in media_files.MEDIA_EXTENSIONS["picture"]
            else None
        )
        if crop is None:
            x, few = _aligned_faces(path, entry.clip, seconds, how.frames)
            return ClipFeatures(x=x, y=y, repeats=(few, repeated))
    from core.media.faces import alignment

    five = alignment.crop_points(crop)
    few = how.frames > 1
    if five is None:
        return ClipFeatures(y=y, five=np.full((5, 2), np.nan), crop=crop, repeats=(few, repeated))
    return ClipFeatures(
        x=np.stack([alignment.align(crop, five)] * how.frames),
        y=y,
        five=five,
        repeats=(few, repeated),
    )


def _read_crop(path: Path) -> np.ndarray | None:
    """A picture that is a face already cut out, (48, 48) uint8 grey; None for a larger one."""
    from PIL import Image

    with Image.open(path) as image:
        return (
            None
            if min(image.size) > MAX_CROP_SIDE
            else np.asarray(image.convert("L").resize((CROP_SIZE, CROP_SIZE)))
        )


def _spectrogram_windows(wave: np.ndarray, how: ExtractionSettings) -> tuple[np.ndarray, bool]:
    """dB of the clip's middle and of further windows evenly over its length: (crops, 112, bands); True where some are the same."""
    db, crops = spectrograms.log_mel(wave, LogMel(bands=how.bands)), how.crops
    first = spectrograms.centre_crop(db, STORED_COLUMNS)
    if len(db) <= STORED_COLUMNS:
        return np.stack([first] * crops), crops > 1
    starts = [round(s * (len(db) - STORED_COLUMNS)) for s in _further_positions(crops)]
    return np.stack([first, *(db[s : s + STORED_COLUMNS] for s in starts)]), len(
        {(len(db) - STORED_COLUMNS) // 2, *starts}
    ) < crops


def _further_positions(n: int) -> list[float]:
    """n - 1 places in 0..1, evenly apart, but for the middle one, which is taken already."""
    every = np.linspace(0, 1, n | 1).tolist()
    return [p for i, p in enumerate(every) if i != len(every) // 2][: n - 1]


def _frame_times(middle: float, frames: int) -> list[float]:
    """Instants (s) at which faces are taken: the middle, and further ones over the second that the spectrogram shows."""
    return [middle, *(middle + (p - 0.5) * WINDOW_SECONDS for p in _further_positions(frames))]


def _aligned_faces(
    path: Path, name: str, seconds: float | None, frames: int
) -> tuple[np.ndarray, bool]:
    """Aligned faces (frames, 28, 28) of one person in a film, the first nearest the sound's middle; True where a frame is used again.

    Raises faces.NoFaceError where AROUND frames show none. Of several people it is the largest in the first frame.
    """
    from core.media import clips, containers
    from core.media.faces import alignment, detection

    if frames == 1 and seconds is not None:  # one picture is enough, nearly always
        clip = clips.read_clip(path, containers.Limits(near=spectrograms.centre_time(seconds)))
        found = detection.detect(clip.frames[0]) if len(clip.frames) == 1 else []
        if found:
            return alignment.align(clip.frames[0], alignment.five_points(found[0].points))[
                None
            ], False
    clip = clips.read_clip(path)
    look = functools.cache(lambda i: detection.detect(clip.frames[i]))
    times = _frame_times(
        spectrograms.centre_time(float(clip.times[-1]) if seconds is None else seconds), frames
    )
    order = np.argsort(np.abs(clip.times - times[0]), kind="stable")
    first = next((int(i) for i in order[:MAX_SEARCHED_FRAMES] if look(int(i))), None)
    if first is None:
        raise detection.NoFaceError(
            f"{name}: no face within {MAX_SEARCHED_FRAMES} frames of the middle"
        )
    face = look(first)[0]
    chosen = {first: face}
    x = [alignment.align(clip.frames[first], alignment.five_points(face.points))]
    inside = [int(i) for i in order if abs(clip.times[i] - times[0]) <= WINDOW_SECONDS / 2]
    for t in times[1:]:
        free = sorted((i for i in inside if i not in chosen), key=lambda i: abs(clip.times[i] - t))
        i = next((i for i in free if look(i)), None)
        if i is None:
            i = min(chosen, key=lambda i: abs(clip.times[i] - t))
        else:  # the same person: the one whose face lies nearest
            centre = face.points.mean(0)
            chosen[i] = min(look(i), key=lambda f: float(np.hypot(*(f.points.mean(0) - centre))))
        x.append(alignment.align(clip.frames[i], alignment.five_points(chosen[i].points)))
    return np.stack(x), len(chosen) < frames
