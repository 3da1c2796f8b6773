"""A child process gives the same clip as this one, whatever it does; each file gets its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from core.files import ROOT
from core.media import clips, sandbox
from core.media.clips import Clip, DecodedFrame
from core.media.containers import Limits, MediaError
from tests.support.media_files import POINTER, pictures, refused, tone, write


@pytest.fixture
def clip(tmp_path):
    return write(tmp_path / "clip.mp4", "libx264", sound=tone(1.0, 44_100))


@pytest.fixture
def standing_by():
    sandbox.keep_decoder_ready()
    yield
    sandbox.end_idle_decoders()


def test_it_gives_the_same_as_here(tmp_path, clip):
    here, there = clips.read_clip(clip, name="shown"), sandbox.read_clip(clip, name="shown")
    for array in ("frames", "waveform", "times"):
        assert (getattr(here, array) == getattr(there, array)).all()
    for field in ("name", "rate", "notes", "is_still"):
        assert getattr(here, field) == getattr(there, field)
    Image.fromarray(pictures(1)[0]).save(tmp_path / "still.png")
    still = sandbox.read_clip(tmp_path / "still.png")
    assert (still.is_still, still.waveform, still.frames.shape) == (True, None, (1, 96, 128, 3))
    refused("has no sound", sandbox.read_clip, tmp_path / "still.png", need_sound=True)
    middle = Limits(near=0.5)
    assert (sandbox.read_clip(clip, middle).frames == clips.read_clip(clip, middle).frames).all()


def test_each_frame_comes_before_the_whole(clip):
    *early, whole = sandbox.stream_clip(clip)
    assert all(isinstance(one, DecodedFrame) for one in early)
    assert isinstance(whole, Clip)
    assert (np.stack([one.frame for one in early]) == whole.frames).all()
    assert [one.time for one in early] == pytest.approx(whole.times)
    assert [one.number for one in early] == list(range(1, len(early) + 1))
    assert [one.header_seconds for one in early] == pytest.approx([1.0] * len(early), abs=0.05)


@pytest.mark.parametrize("kind", ["mp4", "mpg"])
def test_of_a_film_longer_than_its_frames_every_other_is_kept(tmp_path, kind):
    """An mp4 states its length, so nothing is decoded in vain; an mpg may state anything."""
    codec = "mpeg4" if kind == "mp4" else "mpeg1video"
    path = write(tmp_path / f"long.{kind}", codec, pictures(100))
    few = Limits(frames=10)
    *early, whole = sandbox.stream_clip(path, few)
    kept = []
    for one in early:
        kept = clips.append_and_thin(kept, one.frame, one.number)
    assert 4 < len(kept) <= 10
    assert (np.stack(kept) == whole.frames).all()
    assert (whole.frames == clips.read_clip(path, few).frames).all()
    assert kind != "mp4" or len(early) == len(kept)


def test_frames_are_gathered_as_they_are_counted():
    frames = []
    for k, number in enumerate((1, 2, 3, 4, 3, 4, 3)):
        frames = clips.append_and_thin(frames, k, number)
    assert frames == [0, 4, 6]  # 0 1 2 3 4 -> 0 2 4; 0 2 4 5 6 -> 0 4 6


def read_large_picture(folder) -> None:
    """A picture that needs more than its limit of memory is refused."""
    Image.new("1", (6000, 4000)).save(folder / "large.png")  # in colours 72 MB
    message, limits = r"large\.png needs more than 64 MiB", Limits(memory=2**26)
    refused(message, sandbox.read_clip, folder / "large.png", limits)


def test_what_takes_too_long_or_too_much_is_ended(tmp_path, clip):
    late = r"clip\.mp4 takes longer than 0\.01 s"
    refused(late, sandbox.read_clip, clip, Limits(wall_seconds=0.01))
    read_large_picture(tmp_path)


def test_names_are_those_that_people_know(tmp_path):
    (tmp_path / "0f3a").write_bytes(POINTER)
    message = r"^my clip\.flv is a git-lfs pointer"
    refused(message, sandbox.read_clip, tmp_path / "0f3a", name="my clip.flv")
    refused(r"gone\.mp4", sandbox.read_clip, tmp_path / "gone.mp4")
    refused("cannot be read", sandbox.read_clip, tmp_path)


def test_a_path_that_leads_nowhere_takes_no_decoder(tmp_path, monkeypatch):
    """A loop of links, a NUL, a pipe: each is refused in words before a process is started."""
    monkeypatch.setattr(sandbox, "_take_decoder", lambda: pytest.fail("a decoder was taken"))
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(r"loop\.mp4 cannot be", sandbox.read_clip, tmp_path / "loop.mp4")
    refused("cannot be opened", sandbox.read_clip, f"{tmp_path}/a\0b.mp4")
    refused(
        r"pipe\.mp4 cannot be read \(it is no plain file\)",
        sandbox.read_clip,
        tmp_path / "pipe.mp4",
    )


def test_a_decoder_that_has_used_its_processor_time_is_said(clip, monkeypatch):
    """It may be never late, as one that waits for us; the system ends it with SIGXCPU."""
    program = "import os, signal; input(); os.kill(os.getpid(), signal.SIGXCPU)"
    pipe = subprocess.PIPE
    sandbox.end_idle_decoders()

    def start():
        return subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe)

    monkeypatch.setattr(sandbox, "start_decoder", start)
    refused("longer than 30 s of processor time", sandbox.read_clip, clip)
    sandbox.end_idle_decoders()  # it has started the next one in the same way


def test_one_that_waits_is_used_once_and_replaced(standing_by, tmp_path, clip):
    (first,) = sandbox.idle_decoders
    whole = sandbox.read_clip(clip)
    assert first.returncode is not None  # a process for each file
    (second,) = sandbox.idle_decoders
    assert second.pid != first.pid
    refused("cannot be read", sandbox.read_clip, tmp_path)
    refused("takes longer", sandbox.read_clip, clip, Limits(wall_seconds=0.0))
    (third,) = sandbox.idle_decoders
    assert third.pid not in (first.pid, second.pid)
    third.kill()
    third.wait()
    # One that has died meanwhile does no harm.
    assert (sandbox.read_clip(clip).frames == whole.frames).all()
    assert len(sandbox.idle_decoders) == 1


def test_one_that_waits_knows_the_limits_of_its_file(standing_by, tmp_path):
    read_large_picture(tmp_path)


def test_without_standing_by_none_waits(clip):
    sandbox.read_clip(clip)
    assert sandbox.idle_decoders == []


def test_one_that_waits_ends_with_its_process():
    start = "from core.media import sandbox; sandbox.keep_decoder_ready()"
    tell = "print(sandbox.idle_decoders[0].pid, flush=True)"
    command = [sys.executable, "-c", f"{start}; {tell}; import os; os.kill(os.getpid(), 9)"]
    pid = int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)
    end = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")


def test_who_stops_asking_ends_the_decoder(standing_by, clip):
    (child,) = sandbox.idle_decoders
    stream = sandbox.stream_clip(clip)
    next(stream)
    stream.close()
    assert child.returncode is not None


def lying(monkeypatch, script: str) -> None:
    """A child whose decoder was exploited: it sends what it likes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    code = f"import sys, os; sys.stdin.readline(); out = sys.stdout.buffer\n{script}"
    command = [sys.executable, "-c", code]
    monkeypatch.setattr(sandbox, "start_decoder", lambda: subprocess.Popen(command, **pipes))


FRAME = {"number": 1, "time": 0.0, "promised": 1.0, "shape": [20, 20]}
END = {"times": [0.0], "notes": [], "is_still": False, "samples": None}


def says(*parts: dict | bytes) -> str:
    content = b"".join(p if isinstance(p, bytes) else f"{json.dumps(p)}\n".encode() for p in parts)
    return f"out.write({content!r}); out.flush()"


@pytest.mark.parametrize(
    "script",
    [
        "os.kill(os.getpid(), 11)",
        "",
        "out.write(b'no report at all\\n')",
        "out.write(b'[' * 2_000_000)",
        says(FRAME | {"shape": [20_000, 20_000]}),
        says(FRAME | {"shape": [-1, 20]}),
        says(FRAME | {"shape": "wide"}, bytes(1200)),
        says(FRAME | {"number": 7}, bytes(1200)),
        says(FRAME, bytes(600)),
        says(END),
        says(FRAME, bytes(1200), END | {"times": [0.0, 1.0]}),
        says(FRAME, bytes(1200), END | {"samples": 10**12}),
        says(FRAME, bytes(1200), {"times": [0.0]}),
        says(FRAME, bytes(1200), END) + "; sys.exit(3)",
    ],
)
def test_a_child_that_crashes_or_lies_is_a_clear_error(monkeypatch, clip, script):
    lying(monkeypatch, script)
    with pytest.raises(MediaError, match=r"clip\.mp4 made the decoder crash"):
        sandbox.read_clip(clip)


def test_a_child_that_never_ends_is_ended(monkeypatch, clip):
    lying(monkeypatch, says(FRAME, bytes(1200)) + "; import time; time.sleep(60)")
    begun = time.monotonic()
    refused("takes longer than 1 s", sandbox.read_clip, clip, Limits(wall_seconds=1))
    assert time.monotonic() - begun < 10


def test_a_child_that_another_ended_did_not_take_too_long(monkeypatch, clip):
    lying(monkeypatch, f"os.kill(os.getpid(), {int(signal.SIGKILL)})")
    refused(r"made the decoder crash \(status -9\)", sandbox.read_clip, clip)


# ------------------------------------------------------------------ turns


def test_turns_are_limited_and_in_the_order_of_arrival():
    turns, order, most = sandbox.Turns(2), [], []
    running = threading.Semaphore(0)
    threads = []

    def decode(number):
        with turns.taken():
            order.append(number)
            most.append(turns.active)
            running.acquire(timeout=10)

    for number in range(5):
        threads.append(threading.Thread(target=decode, args=(number,)))
        threads[-1].start()
        while len(turns.line) + turns.active < number + 1:
            time.sleep(0.001)
    assert turns.active == 2
    for _ in range(5):
        running.release()
    for thread in threads:
        thread.join(10)
    assert (max(most), turns.active, turns.line) == (2, 0, [])
    assert sorted(order[:2]) == [0, 1]
    assert sorted(order) == list(range(5))


def test_who_waits_is_told_the_place_and_may_leave(monkeypatch, clip):
    monkeypatch.setattr(sandbox, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(sandbox, "turns", turns := sandbox.Turns(1))

    class Left(Exception):
        pass

    def leave(place):
        raise Left(place)

    with turns.taken():
        with pytest.raises(Left, match="1"):
            next(sandbox.stream_clip(clip, on_wait=leave))
        assert turns.line == []
    assert len(sandbox.read_clip(clip).frames)
    assert turns.active == 0
    stream = sandbox.stream_clip(clip)
    next(stream)
    assert turns.active == 1
    stream.close()  # a visitor has left
    assert turns.active == 0
