"""This benchmark compares the way from an upload to its voices (§3.3, §3.4) with its floor.

The floor is decoding and the same search for landmarks, in this process.

The path is the page Listen's: the bytes into a private file, a process of its own that decodes it,
landmarks meanwhile, aligned faces, p-values, and for each condition shown a spectrogram, its sound
and the scorer's verdict. The floor does one thing after the other and nothing apart. What the page
adds, widgets and pictures, stands in a row of its own.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from benchmarks.table import Row, wall_seconds
from core.data.demo import recordings
from core.inference import generation
from core.media import clips, sandbox, spectrograms
from core.media.faces import tracking
from ui.session import cache
from ui.widgets import uploads

ROOT = Path(__file__).resolve().parents[1]
CLIP_SECONDS, REPEATS = 3.0, 7
PAUSE_SECONDS = 1.0  # seconds in which the next child gets ready to wait, outside what is timed


def make_clip(folder: Path) -> Path:
    """The first three seconds of a real clip where one is at hand, its packets copied.

    A drawn clip elsewhere.
    """
    real = sorted((ROOT.parent / "shared" / "data" / "ravdess_video").glob("*.mp4"))
    if not real:
        recordings.draw_demo_clips(folder, 1)
        return next(folder.glob("*.mp4"))
    target = folder / "three-seconds.mp4"
    with av.open(str(real[0])) as source, av.open(str(target), "w") as box:
        streams = {
            s: box.add_stream_from_template(s)
            for s in (source.streams.video[0], source.streams.audio[0])
        }
        for packet in source.demux(list(streams)):
            if packet.dts is not None and packet.pts * packet.time_base < CLIP_SECONDS:
                packet.stream = streams[packet.stream]
                box.mux(packet)
    return target


def decode_and_track(path: Path, times: np.ndarray) -> None:
    """PyAV through every frame, those at `times` made RGB, and the people in them followed."""
    with av.open(str(path)) as box:
        video = box.streams.video[0]
        video.thread_type, video.codec_context.thread_count = "AUTO", 2  # as core.clips
        frames = [
            f.to_ndarray(format="rgb24")
            for f in box.decode(video)
            if np.abs(times - f.time).min() < 1e-3
        ]
    if len(frames) != len(times):
        raise AssertionError(
            f"{len(frames)} frames for {len(times)}: the floor would search others"
        )
    tracking.track_faces(np.stack(frames), times)


def answer_upload(data: bytes, family: cache.RunFamily) -> None:
    """What pages/listen.py asks for when a clip has come, the caches left out."""
    *_, film = uploads.track_bytes("clip.mp4", data)
    assert isinstance(film, tracking.TrackedClip)
    seen = generation.analyse_clip(film.clip, 0, film.tracks)
    x, judged = seen.aligned[seen.middle], generation.judged_faces(seen)
    cache.explain_film.__wrapped__(cache.runs.root() / family.id, judged)
    for run_id in (family.members[c] for c in family.shown if c in family.members):
        cache.generate_voice.__wrapped__(cache.runs.root() / run_id, x, None, 0, judged)


def page_seconds(data: bytes) -> float:
    """Seconds of the page's whole script after an upload, in a session of its own."""
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(ROOT / "router.py"), default_timeout=120)
    app.switch_page("pages/listen.py").run()
    app.segmented_control(key="kind").set_value("Upload").run()
    took = wall_seconds(
        app.file_uploader(key="upload").set_value(("clip.mp4", data, "video/mp4")).run
    )
    if len(app.get("audio")) < 3:
        raise AssertionError("the page has no voices")
    return took


def find_first_face(data: bytes) -> None:
    """Until the frame near the middle is known, which is when the page shows it."""
    sights = uploads.track_bytes("clip.mp4", data)
    for sight in sights:
        if (
            isinstance(sight, tracking.TrackingProgress)
            and sight.faces
            and sight.time >= spectrograms.centre_time(sight.header_seconds)
        ):
            break
    sights.close()


def rows() -> list[Row]:
    logging.disable(logging.WARNING)  # Streamlit's, that no visitor is there
    with tempfile.TemporaryDirectory() as folder:
        path = make_clip(Path(folder))
        data, clip = path.read_bytes(), clips.read_clip(path)
        cache.prepare_server()
        family = cache.families()[0]
        sandbox.keep_decoder_ready()
        timed = {
            "its voices": lambda: wall_seconds(lambda: answer_upload(data, family)),
            "the first face": lambda: wall_seconds(lambda: find_first_face(data)),
            "the page's whole script": lambda: page_seconds(data),
            "floor": lambda: wall_seconds(lambda: decode_and_track(path, clip.times)),
        }
        took: dict[str, list[float]] = {name: [] for name in timed}
        for k in range(REPEATS + 1):
            for name, work in timed.items():
                time.sleep(PAUSE_SECONDS)
                once = work()
                if k:  # the first warms up
                    took[name].append(once)
    floors = took.pop("floor")
    count, height, width, _ = clip.frames.shape
    size = (
        f"{len(clip.waveform) / clip.rate:.1f} s, {count} frames of {width}×{height} looked at"
        if clip.waveform is not None
        else ""
    )
    found = []
    for name, ours in took.items():
        ratios = [a / b for a, b in zip(ours, floors)]
        note = (
            f"{1000 * statistics.median(ours):.0f} of "
            f"{1000 * statistics.median(floors):.0f} ms; {size}"
        )
        what, aim = (
            f"upload → {name} / bare decoding and landmarks",
            "at most 1.3" if name == "its voices" else "",
        )
        found.append(Row(what, statistics.median(ratios), min(ratios), max(ratios), aim, note))
    return found
