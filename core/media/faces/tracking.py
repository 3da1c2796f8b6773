"""§3.4 over time: people are tracked through a video's frames while these are still decoded.

`track_faces` takes frames that are all in memory; `track_stream` an untrusted file, which the
sandbox decodes meanwhile. Both look at each frame once, in order, and find the same.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.files import StopRequested
from core.media import clips, containers, sandbox
from core.media.clips import Clip, DecodedFrame
from core.media.containers import DEFAULT_LIMITS, Limits, PathName
from core.media.faces import alignment, detection
from core.media.faces.alignment import ALIGNED_SIZE
from core.media.faces.detection import Face, FaceFinder
from core.media.faces.landmarker import interpreters

SEARCH_INTERVALS = 2.0, 0.4  # s between two searches for newcomers: with, without a face in sight
MIN_PRESENCE = 0.1  # share of the frames that show a person; the one seen most always counts
MAX_REAPPEARANCE = 1.5  # sides of the face, between where a person was lost and is found again
DEFAULT_FRAME_RATE = 12.5  # frames/s where no times are given
TIME_TOLERANCE = 1e-6  # s; rounding of two clocks


@dataclass(frozen=True)
class Track:
    """One person over F frames.

    Where the face is not found its points are interpolated in time, or repeated at the ends.
    """

    points: np.ndarray  # (F, 478, 2) float32, pixels
    scores: np.ndarray  # (F,) float32 in 0..1, 0 where not found
    found: np.ndarray  # (F,) bool


@dataclass(frozen=True)
class TrackingProgress:
    """The latest tracked frame of a video, and its faces."""

    time: float  # s after the first frame
    header_seconds: float  # length by the video's header, 0 where it states none
    frame: np.ndarray  # (H, W, 3) uint8 RGB
    faces: list[Face]  # in it, the largest first


@dataclass(frozen=True)
class TrackedClip:
    """A video tracked to its end."""

    clip: Clip
    tracks: list[Track]


class Tracker:
    """Tracks the people of one video, given its frames in order."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self.people: list[dict[int, Face]] = []  # per person: index of a frame -> face
        self.last_search = -math.inf  # s

    def see(self, frame: np.ndarray, time: float) -> list[Face]:
        """The faces in the next frame (H, W, 3) uint8 at `time` s, the largest first.

        Raises as `detection.detect`.
        """
        t, people = len(self.frames), self.people
        self.frames.append(frame)
        with interpreters() as nets:
            finder = FaceFinder(nets, frame)
            for person in people:
                if t - 1 in person:
                    self._track_person(person, t, t - 1, finder)
            here = [person[t] for person in people if t in person]
            lost = [person for person in people if t not in person]
            is_due = time - self.last_search >= SEARCH_INTERVALS[not here] - TIME_TOLERANCE
            if lost or is_due or not people:
                last_faces = (person[max(person)] for person in lost)
                nearby = [(*detection.next_roi(f)[:2], 3 * f.side, 0.0) for f in last_faces]
                new = finder.place(finder.propose_rois([finder.whole(), *nearby]), here)
                if is_due:  # tiles cost as much as tracking three faces: not for every frame
                    self.last_search = time
                    new += finder.search(here + new)
                for face in new:
                    self._assign_face(face, t, lost)
        return sorted((person[t] for person in people if t in person), key=lambda face: -face.side)

    def _track_person(
        self, person: dict[int, Face], t: int, neighbour: int, finder: FaceFinder
    ) -> None:
        """Fit a person's face in frame `t`, starting from the neighbouring frame's."""
        face = finder.fit_mesh(detection.next_roi(person[neighbour]))
        known = [other[t] for other in self.people if t in other]
        if detection.is_new(face, known) and finder.accepts(face):
            person[t] = face

    def _assign_face(self, face: Face, t: int, lost: list[dict[int, Face]]) -> None:
        """Give a detected face to the nearest lost person, or to a new one."""
        centre = detection.next_roi(face)[:2]
        last_faces = (person[max(person)] for person in lost)
        away = [math.dist(centre, detection.next_roi(f)[:2]) / face.side for f in last_faces]
        # A sole person is the same wherever found again.
        if away and (min(away) < MAX_REAPPEARANCE or len(self.people) == 1):
            lost.pop(int(np.argmin(away)))[t] = face
        else:
            self.people.append({t: face})

    def tracks(self) -> list[Track]:
        """All people, the largest (and longest seen) first, each tracked back to their entrance."""
        count = len(self.frames)
        with interpreters() as nets:
            for person in self.people:
                for t in range(min(person) - 1, -1, -1):
                    self._track_person(person, t, t + 1, FaceFinder(nets, self.frames[t]))
                    if t not in person:
                        break
        least = min(MIN_PRESENCE * count, max(map(len, self.people), default=0))
        people = [person for person in self.people if len(person) >= least]
        people.sort(key=lambda p: -float(np.median([f.side for f in p.values()])) * len(p))
        return [_interpolate_track(person, count) for person in people]


def _interpolate_track(person: dict[int, Face], length: int) -> Track:
    at = np.array(sorted(person))
    known, scores = np.stack([person[t].points for t in at]), np.zeros(length, np.float32)
    scores[at] = [person[t].score for t in at]
    place = np.interp(np.arange(length), at, np.arange(len(at)))
    before = place.astype(int)
    share = (place - before).astype(np.float32)[:, None, None]
    points = known[before] * (1 - share) + known[np.minimum(before + 1, len(at) - 1)] * share
    return Track(points, scores, np.isin(np.arange(length), at))


def track_faces(frames: np.ndarray, times: np.ndarray | None = None) -> list[Track]:
    """People in (F, H, W, 3) uint8 frames, the largest (and longest seen) first; [] if none.

    A face is tracked from its last landmarks, and from its first detection back to its entrance.
    The detector runs when a face is lost, and at intervals for newcomers. `times` (F,) are seconds;
    None means 12.5 frames/s. The result depends on frames and times alone. Raises as
    `detection.detect`.
    """
    if times is None:
        times = np.arange(len(frames)) / DEFAULT_FRAME_RATE
    if len(times) != len(frames):
        raise ValueError(f"{len(times)} times for {len(frames)} frames")
    tracker = Tracker()
    for frame, time in zip(frames, np.asarray(times, np.float64).tolist()):
        tracker.see(frame, time)
    return tracker.tracks()


def track_stream(
    path: PathName,
    limits: Limits = DEFAULT_LIMITS,
    name: str | None = None,
    on_wait: Callable[[int], None] | None = None,
) -> Generator[TrackingProgress | TrackedClip]:
    """Decode an untrusted video or picture by `sandbox.stream_clip` and track its faces meanwhile.

    Yields a TrackingProgress for each frame, then the TrackedClip. Raises MediaError, ModelMissing.
    Closing the iterator ends the decoder. `on_wait` is told the place in the line of decoders.
    """
    shown: list[DecodedFrame] = []
    tracker = Tracker()
    for new in sandbox.stream_clip(path, limits, name=name, on_wait=on_wait):
        if isinstance(new, Clip):
            yield TrackedClip(new, tracker.tracks())
            return
        before, shown = len(shown), clips.append_and_thin(shown, new, new.number)
        # Where every second frame was dropped, the remaining ones are tracked anew.
        if len(shown) <= before:
            tracker = Tracker()
            for one in shown[:-1]:
                tracker.see(one.frame, one.time)
        last = shown[-1]
        faces = tracker.see(last.frame, last.time)
        yield TrackingProgress(last.time, new.header_seconds, last.frame, faces)


def track_file(
    path: Path, name: str | None = None, should_stop: Callable[[], bool] = lambda: False
) -> TrackedClip:
    """A whole untrusted file by `track_stream`, which raises as this does.

    Raises StopRequested soon after `should_stop()`.
    """
    stream = track_stream(path, name=name or containers.file_name(path))
    with contextlib.closing(stream):  # which ends the decoder
        for found in stream:
            if should_stop():
                raise StopRequested
            last = found
    assert isinstance(last, TrackedClip)
    return last


@contextlib.contextmanager
def track_beside(path: Path) -> Iterator[Callable[[], TrackedClip]]:
    """`track_file` in a thread, beside what the block does; what is yielded waits for its end.

    It stops soon where the block ends first.
    """
    is_over = threading.Event()
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(track_file, path, None, is_over.is_set)
        try:
            yield reading.result
        finally:
            is_over.set()


def aligned_faces(frames: np.ndarray, track: Track, size: int = ALIGNED_SIZE) -> np.ndarray:
    """(F, H, W, 3) uint8 frames and one person's track over them -> (F, size, size) uint8 grey."""
    if len(frames) != len(track.points):
        raise ValueError(f"a track of {len(track.points)} frames for {len(frames)} frames")
    five = alignment.five_points(track.points)
    return np.stack([alignment.align(frame, points, size) for frame, points in zip(frames, five)])
