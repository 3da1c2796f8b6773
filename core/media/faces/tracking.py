"""§3.4 over time: the people of a film, followed from frame to frame while the frames still come.

`track_faces` is for frames that are all here; `track_stream` for a stranger's file, which is decoded apart meanwhile. Both look at each frame once, in
its order, so that they find the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.media import clips, sandbox
from core.media.clips import Clip, DecodedFrame
from core.media.containers import DEFAULT_LIMITS, Limits, PathName
from core.media.faces import alignment, detection, landmarker
from core.media.faces.alignment import ALIGNED_SIZE
from core.media.faces.detection import Face, FaceFinder

SEARCH_INTERVALS = (
    2.0,
    0.4,
)  # seconds between two searches for newcomers, while somebody or nobody is in sight
MIN_PRESENCE = 0.1  # share of the frames that a person must be seen in, beside the one seen most
TIME_TOLERANCE = 1e-6  # seconds: two clocks' rounding


@dataclass(frozen=True)
class Track:
    """One person over F frames. Where the face is not found its points are interpolated in time, or held at the ends."""

    points: np.ndarray  # (F, 478, 2) float32, pixels
    scores: np.ndarray  # (F,) float32 in 0..1, 0 where not found
    found: np.ndarray  # (F,) bool


@dataclass(frozen=True)
class TrackingProgress:
    """How far a film has been looked at, and what its last frame shows."""

    time: float  # s after the first frame
    header_seconds: float  # s that the film says it lasts, 0 where it does not say
    frame: np.ndarray  # (H, W, 3) uint8 RGB
    faces: list[Face]  # in it, the largest first


@dataclass(frozen=True)
class TrackedClip:
    """A film that was looked at to its end."""

    clip: Clip
    tracks: list[Track]


class Tracker:
    """The people of one film, whose frames are shown to it in their order."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self.people: list[
            dict[int, Face]
        ] = []  # of each person, the face in those frames that show it
        self.last_search = -math.inf

    def see(self, frame: np.ndarray, time: float) -> list[Face]:
        """The next frame (H, W, 3) uint8 at so many seconds -> the faces in it, the largest first. Raises as `faces.detect`."""
        t, people = len(self.frames), self.people
        self.frames.append(frame)
        with landmarker.interpreters() as nets:
            look = FaceFinder(nets, frame)
            for person in people:
                if t - 1 in person:
                    self._track_person(person, t, t - 1, look)
            here, lost = (
                [person[t] for person in people if t in person],
                [person for person in people if t not in person],
            )
            due = time - self.last_search >= SEARCH_INTERVALS[not here] - TIME_TOLERANCE
            if lost or due or not people:
                nearby = [
                    (*detection.next_roi(last)[:2], 3 * last.side, 0.0)
                    for last in (person[max(person)] for person in lost)
                ]
                new = look.place(look.propose_rois([look.whole(), *nearby]), here)
                if due:  # tiles cost as much as following three faces: not for every frame
                    self.last_search = time
                    new += look.search(here + new)
                for face in new:
                    self._assign_face(face, t, lost)
        return sorted((person[t] for person in people if t in person), key=lambda face: -face.side)

    def _track_person(
        self, person: dict[int, Face], t: int, neighbour: int, look: FaceFinder
    ) -> None:
        face = look.fit_mesh(detection.next_roi(person[neighbour]))
        if detection.is_new(face, [other[t] for other in self.people if t in other]):
            person[t] = face

    def _assign_face(self, face: Face, t: int, lost: list[dict[int, Face]]) -> None:
        """A face that was found anew belongs to one of those lost, or to somebody new."""
        centre = detection.next_roi(face)[:2]
        away = [
            math.dist(centre, detection.next_roi(person[max(person)])[:2]) / face.side
            for person in lost
        ]
        if away and (
            min(away) < 1.5 or len(self.people) == 1
        ):  # a sole person is the same, wherever found again
            lost.pop(int(np.argmin(away)))[t] = face
        else:
            self.people.append({t: face})

    def tracks(self) -> list[Track]:
        """Everybody, the largest (and longest seen) first, each followed back to where they came in."""
        count = len(self.frames)
        with landmarker.interpreters() as nets:
            for person in self.people:
                for t in range(min(person) - 1, -1, -1):
                    self._track_person(person, t, t + 1, FaceFinder(nets, self.frames[t]))
                    if t not in person:
                        break
        most = max(map(len, self.people), default=0)
        kept = [person for person in self.people if len(person) >= min(MIN_PRESENCE * count, most)]
        kept.sort(
            key=lambda person: (
                -float(np.median([face.side for face in person.values()])) * len(person)
            )
        )
        return [_interpolate_track(person, count) for person in kept]


def _interpolate_track(seen: dict[int, Face], length: int) -> Track:
    at = np.array(sorted(seen))
    known, scores = np.stack([seen[t].points for t in at]), np.zeros(length, np.float32)
    scores[at] = [seen[t].score for t in at]
    place = np.interp(np.arange(length), at, np.arange(len(at)))
    before = place.astype(int)
    share = (place - before).astype(np.float32)[:, None, None]
    points = known[before] * (1 - share) + known[np.minimum(before + 1, len(at) - 1)] * share
    return Track(points, scores, np.isin(np.arange(length), at))


def track_faces(frames: np.ndarray, times: np.ndarray | None = None) -> list[Track]:
    """People in (F, H, W, 3) uint8 frames, the largest (and longest seen) first; len() is their number, [] if there is none.

    A face is followed from its last landmarks, and from where it was noticed back to where it came in. The detector runs when a face is
    lost, and now and then for newcomers: `times` (F,) are seconds, 12.5 frames a second if None. The result depends on the frames alone.
    Raises as `faces.detect`.
    """
    times = np.arange(len(frames)) / 12.5 if times is None else np.asarray(times, np.float64)
    if len(times) != len(frames):
        raise ValueError(f"{len(times)} times for {len(frames)} frames")
    people = Tracker()
    for frame, time in zip(frames, times.tolist()):
        people.see(frame, time)
    return people.tracks()


def track_stream(
    path: PathName, limits: Limits = DEFAULT_LIMITS, name: str | None = None
) -> Iterator[TrackingProgress | TrackedClip]:
    """A stranger's film or picture, decoded by `apart.stream` and looked at meanwhile: a Sight for each frame, in the end all of it.

    Raises MediaError, ModelMissing. Closing the iterator ends the decoder.
    """
    shown: list[DecodedFrame] = []
    people = Tracker()
    for one in sandbox.stream_clip(path, limits, name=name):
        if isinstance(one, Clip):
            yield TrackedClip(one, people.tracks())
            return
        before, shown = len(shown), clips.append_and_thin(shown, one, one.number)
        if (
            len(shown) <= before
        ):  # every other frame was left out: those that stay are looked at anew
            people = Tracker()
            for kept in shown[:-1]:
                people.see(kept.frame, kept.time)
        yield TrackingProgress(
            shown[-1].time,
            one.header_seconds,
            shown[-1].frame,
            people.see(shown[-1].frame, shown[-1].time),
        )


def aligned_faces(frames: np.ndarray, track: Track, size: int = ALIGNED_SIZE) -> np.ndarray:
    """(F, H, W, 3) uint8 and one person's track over them -> (F, size, size) uint8 grey."""
    if len(frames) != len(track.points):
        raise ValueError(f"a track of {len(track.points)} frames for {len(frames)} frames")
    return np.stack(
        [
            alignment.align(frame, five, size)
            for frame, five in zip(frames, alignment.five_points(track.points))
        ]
    )
