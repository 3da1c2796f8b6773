"""§3.3 and §3.4 for one clip of a corpus: aligned faces and a log-mel spectrogram. No torch.

A clip is a ClipEntry with media, or a take of the demo corpus, which is drawn. The decoder and the
landmark model are imported only where they are needed: drawing needs neither. What is wrong with a
clip becomes the reason for which it is left out; a fault of the machine is raised.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.config.settings import LogMel
from core.data.corpora import ClipEntry
from core.data.prepared_corpora import STORED_COLUMNS
from core.data.sources import media_files
from core.files import UserError, printable
from core.media import spectrograms

if TYPE_CHECKING:  # the decoder is loaded with the first clip
    from core.media.clips import Clip

READERS_VERSION = 3  # raised whenever the same media would give other arrays or remarks
# Pixels of a picture's shorter side. Smaller pictures are cropped faces; larger ones are
# photographs, which are searched for a face.
MAX_CROP_SIDE = 128
MAX_CROP_RATIO = 2.0  # of a crop's sides; a longer picture is a scene that is searched for a face
CROP_SIZE = 48  # pixels of a crop's side, as in FER2013
MIN_GREY_SD = 3.0  # standard deviation of a crop's grey levels, of 255, below which it is plain
MAX_SEARCHED_FRAMES = 25  # frames around the middle that are searched for a face
WINDOW_SECONDS = STORED_COLUMNS * LogMel().hop / LogMel().rate  # seconds of a spectrogram
TURN_NOTES = {  # of appearance.crop_turn
    "yes": "the face stands on its head: it was turned upright",
    "perhaps": "the face may stand on its head: it is taken as it is",
    "side": "the face may lie on its side: it is taken as it is",
}
# Of clips.read_clip's remarks those that a corpus should keep; the doctor has kinds of its own
FILM_NOTES = "cut short", "damaged", "sound and picture have unrelated clocks"
SILENT_HINT = "Leave it out, cut it to its voice, or record it again"
PLAIN_REASON = "no face: the picture has one plain colour"
PLAIN_NOTE = "the picture has one plain colour, and is taken as FER2013 was published"


class MachineError(UserError):
    """The machine, not a clip, kept the work from going on; the message says how to mend it."""


@dataclass(frozen=True)
class ExtractionSettings:
    """Settings of the extraction from each clip, besides those of LogMel."""

    frames: int = 1  # faces, the first of the frame nearest the sound's middle
    crops: int = 1  # windows of STORED_COLUMNS columns, the first the clip's middle
    bands: int = LogMel().bands  # mel bands of a spectrogram
    as_published: bool = False  # crops are taken as they are, plain or upside down: FER2013


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
    note: str = ""  # what one should know of a clip that is taken
    may_change: bool = False  # the reason may be gone the next time: the clip is tried again then


def extract_clip(item: Any, how: ExtractionSettings) -> ClipFeatures:
    """Features of one clip, a ClipEntry or a demo.actors.Take, or why it is left out.

    Raises MachineError and ModelMissing: these are not the clip's fault, and all later clips would
    be left out, too.
    """
    from core.media import containers
    from core.media.faces import landmarker

    try:
        if isinstance(item, ClipEntry):
            return _extract_entry(item, how)
        return _extract_take(item, how)
    except (landmarker.ModelMissing, MachineError):
        raise
    except (containers.UnreadableError, OSError, ImportError, MemoryError) as e:
        raise MachineError(_machine_fault(item, e)) from e
    except UserError as e:
        return ClipFeatures(reason=printable(f"{type(e).__name__}: {e}"))
    except Exception as e:  # one odd clip must not stop a corpus
        if "start new thread" in str(e):
            raise MachineError(_machine_fault(item, e)) from e
        return ClipFeatures(reason=printable(f"{type(e).__name__}: {e}"), may_change=True)


def _machine_fault(item: Any, error: BaseException) -> str:
    clip = item.clip if isinstance(item, ClipEntry) else item.clip_id
    if isinstance(error, MemoryError):
        return f"{clip}: no memory is left; give fewer --workers"
    if isinstance(error, ImportError):
        return f"{clip}: a library is missing ({error}); install requirements.txt again"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{clip}: {reason}"


def load_tools(items: Sequence[Any]) -> None:
    """Load what the clips need before the first is read: the decoders and the landmark model.

    Raises MachineError where a library cannot be loaded or run, ModelMissing without the model.
    """
    from core.media.faces import landmarker

    entries = [e for e in items if isinstance(e, ClipEntry)]
    tool = ""
    try:
        for tool in ("av", "soundfile", "PIL.Image") if entries else ():
            importlib.import_module(tool)
        tool = "the landmark model"
        if any(e.video for e in entries):
            with landmarker.interpreters():
                pass
    except landmarker.ModelMissing:
        raise
    except Exception as e:
        raise MachineError(f"{tool} cannot be loaded ({e}); install requirements.txt again") from e


def _extract_take(take: Any, how: ExtractionSettings) -> ClipFeatures:
    from core.data.demo import expressions, voices

    wave = voices.synthesise_voice(take)
    y, repeated = spectrogram_windows(wave, how)
    times = _frame_times(spectrograms.centre_time(len(wave) / LogMel().rate), how.frames)
    x = np.stack([expressions.aligned_face(take, t) for t in times])
    return ClipFeatures(x=x, y=y, repeats=(False, repeated))


def _extract_entry(entry: ClipEntry, how: ExtractionSettings) -> ClipFeatures:
    """One clip through §3.3 and §3.4; a crop without landmarks is returned as it is."""
    from core.media import clips, probe  # late: training on prepared arrays needs no decoder

    content = media_files.read_content(entry.video) if entry.video else b""
    seen, voice = _shown_name(entry.video or ""), Voice(None, None, False, "")
    if entry.audio:
        same, heard = entry.audio == entry.video, _shown_name(entry.audio)
        sound = content if same else media_files.read_content(entry.audio)
        wave = clips.read_waveform(sound, name=heard)
        voice = take_voice(wave, how, heard, probe.sound_lead(content, seen) if same else 0.0)
    if not entry.video:
        return ClipFeatures(y=voice.y, repeats=(False, voice.repeated), note=voice.note)
    grey = read_crop(content, seen) if entry.crop else None
    if grey is None:
        x, few, note = find_faces(content, seen, voice.middle, how.frames, FILM_NOTES)
        notes = "; ".join(filter(None, (voice.note, note)))
        return ClipFeatures(x=x, y=voice.y, repeats=(few, voice.repeated), note=notes)
    return _crop_features(entry, grey, voice, how)


def _shown_name(reference: str) -> str:
    """A media file's name for people, without its folders."""
    member = media_files.split_reference(reference)[1]
    path = media_files.path_in_zip(member) if member else media_files.decoded(reference)
    return printable(path.rsplit("/", 1)[-1])


def _crop_features(
    entry: ClipEntry, crop: np.ndarray, voice: Voice, how: ExtractionSettings
) -> ClipFeatures:
    """Features of a picture that one face fills, (48, 48) uint8."""
    from core.media.faces import alignment

    if crop_is_plain(crop) and not how.as_published:
        return ClipFeatures(reason=f"{entry.clip}: {PLAIN_REASON}")
    crop, remarks = _upright_crop(crop, how.as_published)
    found, note = alignment.crop_points(crop), "; ".join(filter(None, [voice.note, *remarks]))
    repeats = how.frames > 1, voice.repeated
    if found is None:
        return ClipFeatures(
            y=voice.y, five=np.full((5, 2), np.nan), crop=crop, repeats=repeats, note=note
        )
    x = np.stack([alignment.align(crop, found)] * how.frames)
    return ClipFeatures(x=x, y=voice.y, five=found, repeats=repeats, note=note)


def _upright_crop(crop: np.ndarray, as_published: bool) -> tuple[np.ndarray, list[str]]:
    """A crop, turned if it surely stands on its head, and remarks; `as_published` as it is."""
    from core.media.faces import appearance

    if as_published:
        return crop, [PLAIN_NOTE] if crop_is_plain(crop) else []
    turn = appearance.crop_turn(crop)
    notes = [TURN_NOTES[turn]] if turn != "no" else []
    notes += [appearance.FAINT_NOTE] if crop.std() < appearance.MIN_CONTRAST else []
    return np.ascontiguousarray(crop[::-1, ::-1]) if turn == "yes" else crop, notes


def crop_is_plain(crop: np.ndarray) -> bool:
    """Whether a crop has one plain colour: no face can be in it."""
    return bool(crop.std() < MIN_GREY_SD)


def read_crop(content: bytes, name: str) -> np.ndarray | None:
    """A picture that is a cropped face, as (48, 48) uint8 grey; None for a larger one or a film."""
    from core.media import clips, containers, pictures

    kind, _ = containers.read_media(content, name)
    if not clips.is_picture(kind, content):
        return None
    image, _ = pictures.read_picture(content, kind, name, containers.DEFAULT_LIMITS)
    if min(image.size) > MAX_CROP_SIDE or max(image.size) > MAX_CROP_RATIO * min(image.size):
        return None
    return np.asarray(image.convert("L").resize((CROP_SIZE, CROP_SIZE)))


@dataclass(frozen=True)
class Voice:
    """The part of a clip's sound that is taken."""

    y: np.ndarray | None  # (crops, 112, bands) dB
    middle: float | None  # s on the clip's clock: the middle of the first window
    repeated: bool  # some windows are equal
    note: str  # "" where the middle of the clip is taken


def take_voice(wave: np.ndarray, how: ExtractionSettings, name: str, lead: float = 0.0) -> Voice:
    """The windows of a waveform (T,) at LogMel.rate that hold its voice: the middle if it does.

    `lead` is the time (s) at which the sound begins, on the picture's clock. Raises MediaError
    where no window holds a voice.
    """
    from core.media.containers import MediaError

    s = LogMel(bands=how.bands)
    start, total = spectrograms.voiced_start(wave, s, STORED_COLUMNS), 1 + len(wave) // s.hop
    if start is None:
        peak, seconds = spectrograms.peak_dbfs(wave), len(wave) / s.rate
        level = f"the mean of its channels peaks at {peak:.0f} dBFS"
        level = level if peak < spectrograms.MAX_SILENT_DBFS else f"{seconds:.2f} s of sound"
        raise MediaError(f"{name} holds no voice{_within(seconds)} ({level}). {SILENT_HINT}")
    windows, repeated = spectrogram_windows(wave, how)
    middle = lead + spectrograms.centre_time(len(wave) / s.rate)
    is_middle = start == max(0, (total - STORED_COLUMNS) // 2)
    if is_middle and how.crops == 1 or total <= STORED_COLUMNS:
        return Voice(windows, middle, repeated, "")
    db, note = spectrograms.log_mel(wave, s), ""
    first = windows[0] if is_middle else db[start : start + STORED_COLUMNS]
    if not is_middle:
        middle = lead + start * s.hop / s.rate + WINDOW_SECONDS / 2
        at = f"{start * s.hop / s.rate:.1f} s"
        note = f"the middle of {name} is silent: the second from {at} on is taken"
    # A further window without a voice gives way to the first
    voiced = spectrograms.voiced_columns(wave, s)
    starts = [round(p * (total - STORED_COLUMNS)) for p in further_positions(how.crops)]
    counts = [voiced[i : i + STORED_COLUMNS].sum() for i in starts]
    enough = [n >= spectrograms.MIN_VOICED_COLUMNS for n in counts]
    y = np.stack([first, *(w if is_voiced else first for w, is_voiced in zip(windows[1:], enough))])
    return Voice(y, middle, repeated or not all(enough), note)


def _within(seconds: float) -> str:
    """The part of a sound that was listened to, "" for all of it."""
    from core.media.containers import DEFAULT_LIMITS

    most = DEFAULT_LIMITS.seconds
    return f" in its first {most:g} s, of which alone one is taken" if seconds >= most else ""


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


def find_faces(
    content: bytes, name: str, middle: float | None, frames: int, told: tuple[str, ...] = ()
) -> tuple[np.ndarray, bool, str]:
    """Aligned faces (frames, 28, 28) of one person in a film or picture, and remarks.

    The first face is nearest `middle`, the time (s) of the voice; None means the middle of the
    film. Of several people it is the largest in its frame. The second value is whether a frame is
    used twice, the third remarks or "", with those on the film that begin as `told`. Raises
    NoFaceError where MAX_SEARCHED_FRAMES frames show none.
    """
    from core.media import clips, containers
    from core.media.faces import alignment, appearance, detection

    def align(i: int, face: Any) -> np.ndarray:
        return alignment.align(clip.frames[i], alignment.five_points(face.points))

    # One face: decoding a single frame suffices, nearly always
    if frames == 1 and middle is not None:
        clip = clips.read_clip(content, containers.Limits(near=middle), name=name)
        faces = detection.detect(clip.frames[0]) if len(clip.frames) == 1 else []
        if faces:
            notes = _film_notes(clip, told), appearance.describe(clip.frames[0], faces)
            return align(0, faces[0])[None], False, "; ".join(filter(None, notes))

    # The first face: of the frame nearest the middle that has one
    clip = clips.read_clip(content, name=name)
    detect = functools.cache(lambda i: detection.detect(clip.frames[i]))
    times = _frame_times(_film_middle(clip) if middle is None else middle, frames)
    order = [int(i) for i in np.argsort(np.abs(clip.times - times[0]), kind="stable")]
    first = next((i for i in order[:MAX_SEARCHED_FRAMES] if detect(i)), None)
    if first is None:
        where = f"within {MAX_SEARCHED_FRAMES} frames of the middle"
        where = "in the picture" if clip.is_still else where
        raise detection.NoFaceError(f"{name}: no face {where}")
    face = detect(first)[0]
    notes = _film_notes(clip, told), appearance.describe(clip.frames[first], detect(first))
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
    return np.stack(x), len(chosen) < frames, "; ".join(filter(None, notes))


def _film_notes(clip: Clip, told: tuple[str, ...]) -> str:
    return "; ".join(note for note in clip.notes if note.startswith(told)) if told else ""


def face_fault(
    content: bytes, crop: bool, middle: float | None, as_published: bool = False
) -> tuple[str, str]:
    """What `extract_clip` finds wrong with the face of a film or picture: (kind of fault, detail).

    "no-face", "no-landmarks" for a crop without any, "odd-face" for a face that is taken with a
    remark, or "". `middle` is the time (s) of the voice; `as_published` as in ExtractionSettings.
    Raises MediaError, ModelMissing.
    """
    from core.media.faces import alignment, detection

    grey = read_crop(content, "it") if crop else None
    if grey is not None:
        if crop_is_plain(grey) and not as_published:
            return "no-face", ""
        grey, notes = _upright_crop(grey, as_published)
        if notes:
            return "odd-face", "; ".join(notes)
        return ("no-landmarks", "") if alignment.crop_points(grey) is None else ("", "")
    try:
        note = find_faces(content, "it", middle, 1)[2]
    except detection.NoFaceError:
        return "no-face", ""
    return ("odd-face", note) if note else ("", "")


def _film_middle(clip: Clip) -> float:
    return spectrograms.centre_time(float(clip.times[-1]))


def align_with_fallback(
    clips: list[tuple[ClipEntry, ClipFeatures]], how: ExtractionSettings
) -> tuple[list[np.ndarray | None], dict[str, str]]:
    """Faces of all clips; crops without landmarks are aligned by the median of the others'.

    That is what `alignment.align_crops` does. Returns their number too: name -> sentence.
    """
    crops = [(e, clip) for e, clip in clips if clip.five is not None]
    if not crops:
        return [clip.x for _, clip in clips], {}
    from core.media.faces import alignment

    points = np.stack([clip.five for _, clip in crops])  # type: ignore[misc]
    found = np.isfinite(points).all((1, 2))
    median = alignment.CANONICAL_POINTS * CROP_SIZE
    if found.any():
        median = np.median(points[found], axis=0)
    x = [clip.x for _, clip in clips]
    for i, (_, clip) in enumerate(clips):
        if clip.crop is not None:
            x[i] = np.stack([alignment.align(clip.crop, median)] * how.frames)
    emotions = np.array([e.emotion for e, _ in crops])
    notes = {}
    for emotion in np.unique(emotions).tolist():
        of = emotions == emotion
        if missed := int((~found[of]).sum()):
            what = "aligned by the median transform, no landmarks found"
            notes[f"landmarks/{emotion}"] = f"{missed} of {int(of.sum())} {what}"
    return x, notes
