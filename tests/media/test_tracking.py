"""People are tracked through drawn films and real clips, also while a file is still decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.files import StopRequested
from core.media import clips, sandbox
from core.media.containers import Limits, MediaError
from core.media.faces import tracking
from tests.support.face_pictures import canvas, likeness, real

pytestmark = pytest.mark.usefixtures("model")


def film(
    photo: np.ndarray, count: int = 16, gone: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """A head that moves and comes nearer (F, 360, 480, 3), and its places (F, 3): x, y, side."""
    at = np.array([(30 + 6 * k, 20 + 2 * k, 240 + 3 * k) for k in range(count)])
    shown = [[] if k in gone else [(photo, s, x, y)] for k, (x, y, s) in enumerate(at.tolist())]
    return np.stack([canvas(360, 480, *pasted) for pasted in shown]), at


def test_a_moving_face_is_followed(photo, face):
    frames, at = film(photo)
    (person,) = tracking.track_faces(frames)
    assert person.points.shape == (16, 478, 2)
    assert person.points.dtype == np.float32
    assert person.found.dtype == bool
    assert person.found.all()
    assert person.scores.min() > 0.9
    expected = face.points * (at[:, 2] / 512)[:, None, None] + at[:, None, :2]
    assert np.hypot(*np.moveaxis(person.points - expected, -1, 0)).mean(1).max() < 1.5
    assert (tracking.track_faces(frames)[0].points == person.points).all()


def test_a_lost_face_is_found_again_and_bridged(photo):
    whole, (gappy, _) = tracking.track_faces(film(photo)[0])[0], film(photo, gone=(0, 6, 7, 8, 15))
    (person,) = tracking.track_faces(gappy)
    assert (~person.found).nonzero()[0].tolist() == [0, 6, 7, 8, 15]
    assert (person.scores[~person.found] == 0).all()
    assert np.isfinite(person.points).all()
    bridge = (person.points[5] * 2 + person.points[9] * 2) / 4
    assert person.points[7] == pytest.approx(bridge, abs=1e-3)
    assert np.abs(person.points[7] - whole.points[7]).mean() < 2
    assert (person.points[0] == person.points[1]).all()
    assert (person.points[15] == person.points[14]).all()
    assert tracking.aligned_faces(gappy, person).shape == (16, 28, 28)


def test_people_are_told_apart_and_counted(photo):
    shown = [
        [(photo, 300, 10 + 5 * k, 30), (photo[:, ::-1], 220, 400 - 6 * k, 100)] for k in range(10)
    ]
    frames = np.stack([canvas(360, 640, *pasted) for pasted in shown])
    people = tracking.track_faces(frames)
    assert len(people) == 2
    assert all(person.found.all() for person in people)
    large, small = people
    assert np.ptp(large.points[0], axis=0).max() > np.ptp(small.points[0], axis=0).max()
    assert (np.diff(large.points[:, 1, 0]) > 2).all()
    assert (np.diff(small.points[:, 1, 0]) < -2).all()


def test_somebody_who_comes_later_is_noticed(photo):
    one, both = [(photo, 280, 5, 10)], [(photo, 280, 5, 10), (photo, 230, 400, 30)]
    frames = np.stack([canvas(300, 640, *(both if k > 3 else one)) for k in range(8)])
    people = tracking.track_faces(frames, np.arange(8) * 1.0)
    assert sorted(person.found.sum().item() for person in people)[-1] == 8
    assert len(people) == 2
    late = min(people, key=lambda person: person.found.sum())
    assert late.found.tolist() == [False] * 4 + [True] * 4  # followed back to where they came in


def test_no_face_at_all():
    frames = np.stack([canvas(200, 300)] * 3)
    assert tracking.track_faces(frames) == []
    assert tracking.track_faces(frames[:0]) == []
    with pytest.raises(ValueError, match="2 times for 3 frames"):
        tracking.track_faces(frames, np.arange(2))


def test_aligned_faces_of_a_clip_hold_still(photo):
    frames, _ = film(photo)
    got = tracking.aligned_faces(frames, tracking.track_faces(frames)[0])
    assert (got.shape, got.dtype) == ((16, 28, 28), np.uint8)
    assert min(likeness(got[0], other) for other in got) > 0.97
    large = tracking.aligned_faces(frames, tracking.track_faces(frames)[0], size=56)
    assert large.shape == (16, 56, 56)
    with pytest.raises(ValueError, match="a track of 16 frames for 15"):
        tracking.aligned_faces(frames[:15], tracking.track_faces(frames)[0])


def test_every_real_clip_shows_one_person_in_every_frame():
    patterns = "crema-d/VideoFlash/*.flv", "grid/*.mpg", "ravdess_video/*.mp4"
    for path in (path for pattern in patterns for path in real(pattern)):
        clip = clips.read_clip(path)
        people = tracking.track_faces(clip.frames, clip.times)
        assert [person.found.all() for person in people] == [True], path
        got = tracking.aligned_faces(clip.frames, people[0])
        # The head turns, but the picture does not jump.
        assert min(map(likeness, got[1:], got[:-1])) > 0.7, path


def same(some: list[tracking.Track], others: list[tracking.Track]) -> bool:
    return len(some) == len(others) and all(
        np.array_equal(getattr(a, k), getattr(b, k))
        for a, b in zip(some, others)
        for k in ("points", "scores", "found")
    )


def test_a_film_is_looked_at_while_it_comes_and_gives_the_same(photo, tmp_path):
    path = tmp_path / "film.mp4"
    clips.write_clip(path, film(photo, 25)[0], 12.5, np.zeros(32_000, np.float32))
    *progress, last = tracking.track_stream(path)
    assert (last.clip.frames == clips.read_clip(path).frames).all()
    assert same(last.tracks, tracking.track_faces(last.clip.frames, last.clip.times))
    assert len(progress) == len(last.clip.frames)
    assert (np.diff([s.time for s in progress]) > 0).all()
    assert all(s.header_seconds == pytest.approx(2.0, abs=0.15) for s in progress)
    (person,) = last.tracks
    for k, step in enumerate(progress):
        assert (step.faces[0].points == person.points[k]).all()
        assert (step.frame == last.clip.frames[k]).all()


def test_frames_that_are_left_out_later_leave_no_trace(photo, tmp_path, monkeypatch):
    """Of a film that outlasts its header, every second frame is dropped after it was tracked."""
    frames = film(photo, 11)[0]
    told, kept = [], []
    for k, frame in enumerate(frames):
        kept = clips.append_and_thin(kept, k, len(kept) + 1 if len(kept) < 6 else 4)
        told.append(clips.DecodedFrame(0.08 * k, frame, len(kept), 0.0))
    whole = clips.Clip("film", 0.08 * np.array(kept), frames[kept], None)
    monkeypatch.setattr(sandbox, "stream_clip", lambda *_, **__: iter([*told, whole]))
    *progress, last = tracking.track_stream("film")
    assert kept == [0, 4, 7, 9, 10]
    assert len(progress) == 11
    assert same(last.tracks, tracking.track_faces(whole.frames, whole.times))


def test_what_cannot_be_read_is_said_as_ever(tmp_path):
    (tmp_path / "notes.mp4").write_text("no film")
    with pytest.raises(MediaError, match="not a media file"):
        list(tracking.track_stream(tmp_path / "notes.mp4"))
    clips.write_clip(tmp_path / "slow.mp4", np.zeros((5, 64, 64, 3), np.uint8), 5)
    with pytest.raises(MediaError, match="takes longer"):
        list(tracking.track_stream(tmp_path / "slow.mp4", Limits(wall_seconds=0.0)))


def test_a_file_is_followed_to_its_end_unless_it_is_to_stop(monkeypatch):
    end, ended = tracking.TrackedClip(None, []), []

    def stream(path, name):
        try:
            yield from ("a frame", "a frame", end)
        finally:
            ended.append(name)

    monkeypatch.setattr(tracking, "track_stream", stream)
    assert tracking.track_file(Path("film.mp4")) is end
    with pytest.raises(StopRequested):
        tracking.track_file(Path("film.mp4"), "mine", lambda: True)
    assert ended == ["film.mp4", "mine"]  # and so its decoder
