"""§3.3 and §3.4 for one clip of a corpus: aligned faces and a log-mel spectrogram. No torch.

A clip is a ClipEntry with media, or a take of the demo corpus, which is drawn. The decoder and the
landmark model are imported only where they are needed: drawing needs neither.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.config import LogMel
from core.data.corpora import ClipEntry
from core.data.prepared_corpora import STORED_COLUMNS
from core.data.sources import media_files
from core.media import spectrograms

# Pixels of a picture's shorter side. Smaller pictures are cropped faces; larger ones are
# photographs, which are searched for a face.
MAX_CROP_SIDE = 128
CROP_SIZE = 48  # pixels of a crop's side, as in FER2013
MAX_SEARCHED_FRAMES = 25  # frames around the middle that are searched for a face
WINDOW_SECONDS = STORED_COLUMNS * LogMel().hop / LogMel().rate  # seconds of a spectrogram


@dataclass(frozen=True)
class ExtractionSettings:
    """Settings of the extraction from each clip, besides those of LogMel."""

    frames: int = 1  # faces, the first of the frame nearest the sound's middle
    crops: int = 1  # windows of STORED_COLUMNS columns, the first the clip's middle
    bands: int = LogMel().bands  # mel bands of a spectrogram


@dataclass(frozen=True)
class ClipFeatures:
    """Features of one clip, or the reason why it is left out."""

    reason: str = ""  # why the clip is left out
    x: np.ndarray | None = None  # (frames, 28, 28) uint8
    y: np.ndarray | None = None  # (crops, 112, bands) float32 dB
    five: np.ndarray | None = None  # (5, 2) float64 pixels: landmarks of a crop, NaN if none found
    # (48, 48) uint8: a crop without landmarks. It is aligned by the median of the others' landmarks
    # when all crops are read.
    crop: np.ndarray | None = None
    repeats: tuple[bool, bool] = (False, False)  # fewer different frames, or windows, than wanted


def extract_clip(item: Any, how: ExtractionSettings) -> ClipFeatures:
    """Features of one clip, a ClipEntry or a demo.actors.Take. Raises ModelMissing only.

    Any other error becomes the `reason` for which the clip is left out.
    """
    try:
        if isinstance(item, ClipEntry):
            return _extract_entry(item, how)
        return _extract_take(item, how)
    except Exception as e:  # one odd clip must not stop a corpus
        from core.media.faces import landmarker

        if isinstance(e, landmarker.ModelMissing | MemoryError):
            raise  # not the clip's fault, and all others would be left out, too
        return ClipFeatures(reason=f"{type(e).__name__}: {e}")


def _extract_take(take: Any, how: ExtractionSettings) -> ClipFeatures:
    from core.data.demo import expressions, voices
    from core.media.faces import alignment

    wave = voices.synthesise_voice(take)
    y, repeated = spectrogram_windows(wave, how)
    times = _frame_times(spectrograms.centre_time(len(wave) / LogMel().rate), how.frames)
    x = np.stack([alignment.align(*expressions.render_face(take, t=t)) for t in times])
    return ClipFeatures(x=x, y=y, repeats=(False, repeated))


def _extract_entry(entry: ClipEntry, how: ExtractionSettings) -> ClipFeatures:
    """One clip through §3.3 and §3.4; a crop without landmarks is returned as it is."""
    from core.media import clips  # late: training on prepared arrays needs no decoder

    y, seconds, repeated = None, None, False
    if entry.audio:
        with media_files.media_file(entry.audio) as path:
            wave = clips.read_waveform(path)
        seconds = len(wave) / LogMel().rate
        y, repeated = spectrogram_windows(wave, how)
    if not entry.video:
        return ClipFeatures(y=y, repeats=(False, repeated))
    with media_files.media_file(entry.video) as path:
        picture = media_files.media_kind(path.name)[0] == "picture"
        crop = _read_crop(path) if picture else None
        if crop is None:
            x, few = _aligned_faces(path, entry.clip, seconds, how.frames)
            return ClipFeatures(x=x, y=y, repeats=(few, repeated))
    from core.media.faces import alignment

    five, repeats = alignment.crop_points(crop), (how.frames > 1, repeated)
    if five is None:
        return ClipFeatures(y=y, five=np.full((5, 2), np.nan), crop=crop, repeats=repeats)
    x = np.stack([alignment.align(crop, five)] * how.frames)
    return ClipFeatures(x=x, y=y, five=five, repeats=repeats)


def _read_crop(path: Path) -> np.ndarray | None:
    """A picture that is a cropped face, as (48, 48) uint8 grey; None for a larger picture."""
    from PIL import Image

    with Image.open(path) as image:
        if min(image.size) > MAX_CROP_SIDE:
            return None
        return np.asarray(image.convert("L").resize((CROP_SIZE, CROP_SIZE)))


def spectrogram_windows(wave: np.ndarray, how: ExtractionSettings) -> tuple[np.ndarray, bool]:
    """(crops, 112, bands) dB: the middle, others evenly over the clip; whether some are equal."""
    db, crops = spectrograms.log_mel(wave, LogMel(bands=how.bands)), how.crops
    first, spare = spectrograms.centre_crop(db, STORED_COLUMNS), len(db) - STORED_COLUMNS
    if spare <= 0:
        return np.stack([first] * crops), crops > 1
    starts = [round(s * spare) for s in further_positions(crops)]
    windows = np.stack([first, *(db[s : s + STORED_COLUMNS] for s in starts)])
    return windows, len({spare // 2, *starts}) < crops


def further_positions(n: int) -> list[float]:
    """n - 1 positions in 0..1, evenly spaced, without the middle, which is taken already."""
    positions = np.linspace(0, 1, n | 1).tolist()
    return [p for i, p in enumerate(positions) if i != len(positions) // 2][: n - 1]


def _frame_times(middle: float, frames: int) -> list[float]:
    """Times (s) of the faces: the middle, then others over the second of the spectrogram."""
    return [middle, *(middle + (p - 0.5) * WINDOW_SECONDS for p in further_positions(frames))]


def _aligned_faces(
    path: Path, name: str, seconds: float | None, frames: int
) -> tuple[np.ndarray, bool]:
    """Aligned faces (frames, 28, 28) of one person in a film; and whether a frame is used twice.

    The first face is nearest the sound's middle; of several people it is the largest in its frame.
    `seconds` is the sound's length. Raises NoFaceError where MAX_SEARCHED_FRAMES frames show none.
    """
    from core.media import clips, containers
    from core.media.faces import alignment, detection

    def align(i: int, face: Any) -> np.ndarray:
        return alignment.align(clip.frames[i], alignment.five_points(face.points))

    # One face: decoding a single frame suffices, nearly always
    if frames == 1 and seconds is not None:
        clip = clips.read_clip(path, containers.Limits(near=spectrograms.centre_time(seconds)))
        faces = detection.detect(clip.frames[0]) if len(clip.frames) == 1 else []
        if faces:
            return align(0, faces[0])[None], False

    # The first face: of the frame nearest the middle that has one
    clip = clips.read_clip(path)
    detect = functools.cache(lambda i: detection.detect(clip.frames[i]))
    length = float(clip.times[-1]) if seconds is None else seconds
    times = _frame_times(spectrograms.centre_time(length), frames)
    order = [int(i) for i in np.argsort(np.abs(clip.times - times[0]), kind="stable")]
    first = next((i for i in order[:MAX_SEARCHED_FRAMES] if detect(i)), None)
    if first is None:
        where = f"within {MAX_SEARCHED_FRAMES} frames of the middle"
        raise detection.NoFaceError(f"{name}: no face {where}")
    face = detect(first)[0]
    centre, chosen, x = face.points.mean(0), {first: face}, [align(first, face)]

    # Further faces of the same person: those that lie nearest to the first face
    inside = [i for i in order if abs(clip.times[i] - times[0]) <= WINDOW_SECONDS / 2]
    for t in times[1:]:
        distance = lambda i, t=t: abs(clip.times[i] - t)  # noqa: E731
        free = sorted((i for i in inside if i not in chosen), key=distance)
        i = next((i for i in free if detect(i)), None)
        if i is None:
            i = min(chosen, key=distance)
        else:
            chosen[i] = min(detect(i), key=lambda f: float(np.hypot(*(f.points.mean(0) - centre))))
        x.append(align(i, chosen[i]))
    return np.stack(x), len(chosen) < frames
