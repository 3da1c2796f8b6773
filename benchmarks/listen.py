"""From an upload to its voices (§3.3, §3.4) against the floor of that: decoding and the same search for landmarks, in this process.

The path is the page Listen's: the bytes into a private file, a process of its own that decodes it, landmarks meanwhile, aligned faces,
p-values, and for each condition shown a spectrogram, its sound and the scorer's verdict. The floor does one thing after the other and
nothing apart. What the page adds, widgets and pictures, stands in a row of its own.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from benchmarks.table import Row, seconds
from core.data import preparation
from core.inference import generation
from core.media import clips, sandbox, spectrograms, tracking
from ui.session import cache
from ui.widgets import uploads

ROOT = Path(__file__).resolve().parents[1]
SECONDS, REPEATS = 3.0, 7
REST = 1.0  # seconds in which the next child gets ready to wait, outside what is timed


def film(folder: Path) -> Path:
    """The first three seconds of a real clip where one is at hand, its packets copied; a drawn clip elsewhere."""
    real = sorted((ROOT.parent / "shared" / "data" / "ravdess_video").glob("*.mp4"))
    if not real:
        preparation.draw_demo_clips(folder, 1)
        return next(folder.glob("*.mp4"))
    target = folder / "three-seconds.mp4"
    with av.open(str(real[0])) as source, av.open(str(target), "w") as box:
        streams = {s: box.add_stream_from_template(s) for s in (source.streams.video[0], source.streams.audio[0])}
        for packet in source.demux(list(streams)):
            if packet.dts is not None and packet.pts * packet.time_base < SECONDS:
                packet.stream = streams[packet.stream]
                box.mux(packet)
    return target


def bare(path: Path, times: np.ndarray) -> None:
    """PyAV through every frame, those at `times` made RGB, and the people in them followed."""
    with av.open(str(path)) as box:
        video = box.streams.video[0]
        video.thread_type, video.codec_context.thread_count = "AUTO", 2  # as core.clips
        frames = [f.to_ndarray(format="rgb24") for f in box.decode(video) if np.abs(times - f.time).min() < 1e-3]
    if len(frames) != len(times):
        raise AssertionError(f"{len(frames)} frames for {len(times)}: the floor would search others")
    tracking.track(np.stack(frames), times)


def voices(data: bytes, family: cache.Family) -> None:
    """What pages/listen.py asks for when a clip has come, the caches left out."""
    *_, film = uploads._sights("clip.mp4", data)
    assert isinstance(film, tracking.Watched)
    seen = generation.see(film.clip, 0, film.tracks)
    x = seen.aligned[seen.middle]
    cache._explain.__wrapped__(cache.runs.root() / family.id, x)
    for run_id in (family.members[c] for c in family.shown if c in family.members):
        cache._generate.__wrapped__(cache.runs.root() / run_id, x, None, 0)


def page(data: bytes) -> float:
    """Seconds of the page's whole script after an upload, in a session of its own."""
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.switch_page("pages/listen.py").run()
    app.segmented_control(key="kind").set_value("Upload").run()
    took = seconds(app.file_uploader(key="upload").set_value(("clip.mp4", data, "video/mp4")).run)
    if len(app.get("audio")) < 3:
        raise AssertionError("the page has no voices")
    return took


def face(data: bytes) -> None:
    """Until the frame near the middle is known, which is when the page shows it."""
    sights = uploads._sights("clip.mp4", data)
    for sight in sights:
        if isinstance(sight, tracking.Sight) and sight.faces and sight.time >= spectrograms.middle_time(sight.promised):
            break
    sights.close()


def rows() -> list[Row]:
    logging.disable(logging.WARNING)  # Streamlit's, that no visitor is there
    with tempfile.TemporaryDirectory() as folder:
        path = film(Path(folder))
        data, clip = path.read_bytes(), clips.read_clip(path)
        cache.begin()
        family = cache.families()[0]
        sandbox.stand_by()
        timed = {
            "its voices": lambda: seconds(lambda: voices(data, family)),
            "the first face": lambda: seconds(lambda: face(data)),
            "the page's whole script": lambda: page(data),
            "floor": lambda: seconds(lambda: bare(path, clip.times)),
        }
        took: dict[str, list[float]] = {name: [] for name in timed}
        for k in range(REPEATS + 1):
            for name, work in timed.items():
                time.sleep(REST)
                once = work()
                if k:  # the first warms up
                    took[name].append(once)
    floors = took.pop("floor")
    count, height, width, _ = clip.frames.shape
    size = f"{len(clip.waveform) / clip.rate:.1f} s, {count} frames of {width}×{height} looked at" if clip.waveform is not None else ""
    found = []
    for name, ours in took.items():
        ratios = [a / b for a, b in zip(ours, floors)]
        note = f"{1000 * statistics.median(ours):.0f} of {1000 * statistics.median(floors):.0f} ms; {size}"
        what, aim = f"upload → {name} / bare decoding and landmarks", "at most 1.3" if name == "its voices" else ""
        found.append(Row(what, statistics.median(ratios), min(ratios), max(ratios), aim, note))
    return found
