"""§4.1: decode an untrusted upload in a child process with limits, frame by frame.

Each file gets its own process, so that an exploited decoder never sees another visitor's clip.
`keep_decoder_ready` starts one in advance, so that nobody waits for an interpreter to start. The
child's messages are as untrusted as its file: they are checked against the limits.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.media import clips, containers
from core.media.clips import MAX_TIMESTAMP_JUMP, Clip, DecodedFrame
from core.media.containers import DEFAULT_LIMITS, EXPORT_HINT, Limits, MediaError, PathName

MAX_HEADER_BYTES = 2**20  # bytes of a message's first line
PIPE_BYTES = 2**20  # capacity of a pipe, where the system lets us choose: fewer writes per frame

# At most as many files are decoded at once as there are cores: more would be slower for all, and
# each takes memory.
DECODERS = max(1, os.cpu_count() or 1)
TURN_SECONDS = 0.5  # between two messages to somebody who waits

# Processes that wait for their file (list.pop and append are atomic).
idle_decoders: list[subprocess.Popen] = []


def keep_decoder_ready() -> None:
    """Start a process that waits for the next file; after each file another one is started.

    It ends with this process.
    """
    if not idle_decoders:
        # Without it, the next file starts its own process or says why it cannot.
        with contextlib.suppress(OSError):
            idle_decoders.append(start_decoder())


@atexit.register
def end_idle_decoders() -> None:
    while idle_decoders:
        _end_decoder(idle_decoders.pop())


class Turns:
    """Who may decode: at most `most` at once, in the order in which they came."""

    def __init__(self, most: int) -> None:
        self.most, self.active = most, 0
        self.line: list[object] = []
        self.change = threading.Condition()

    @contextlib.contextmanager
    def taken(self, on_wait: Callable[[int], None] | None = None) -> Iterator[None]:
        """Wait for a turn and hold it; `on_wait` is told the place in the line meanwhile, from 1.

        What `on_wait` raises ends the wait.
        """
        me = object()
        with self.change:
            self.line.append(me)
        try:
            while True:
                with self.change:
                    place = self.line.index(me) + 1
                    if place == 1 and self.active < self.most:
                        self.active += 1
                        break
                if on_wait:
                    on_wait(place)
                with self.change:
                    self.change.wait(TURN_SECONDS)
        finally:
            with self.change:
                self.line.remove(me)
                self.change.notify_all()
        try:
            yield
        finally:
            with self.change:
                self.active -= 1
                self.change.notify_all()


turns = Turns(DECODERS)


def read_clip(
    path: PathName,
    limits: Limits = DEFAULT_LIMITS,
    need_sound: bool = False,
    name: str | None = None,
) -> Clip:
    """`clips.read_clip` in a child process with limited memory and time.

    Raises MediaError also where the decoder crashes, takes too long or needs too much memory.
    """
    *_, clip = stream_clip(path, limits, need_sound, name)
    assert isinstance(clip, Clip)
    return clip


def stream_clip(
    path: PathName,
    limits: Limits = DEFAULT_LIMITS,
    need_sound: bool = False,
    name: str | None = None,
    on_wait: Callable[[int], None] | None = None,
) -> Iterator[DecodedFrame | Clip]:
    """Yield each frame of `read_clip` once it is decoded, then the whole clip. Raises MediaError.

    The child goes on decoding while the caller works on a frame. Closing the iterator ends it.
    `on_wait` is told the place in the line while others are decoded.
    """
    name = name or containers.file_name(path)
    whole = _plain_file(path, name)  # before a decoder is taken for it
    with turns.taken(on_wait):
        yield from _stream_in_turn(whole, limits, need_sound, name)


def _plain_file(path: PathName, name: str) -> str:
    """The path of a file that can be opened without waiting. Raises MediaError for another."""
    try:
        whole = Path(path).resolve()
        if whole.exists() and not whole.is_file():
            raise MediaError(f"{name} cannot be read (it is no plain file). Choose another file")
    except MediaError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{name} cannot be opened ({reason}). Choose another file") from error
    return str(whole)


def _stream_in_turn(
    path: str, limits: Limits, need_sound: bool, name: str
) -> Iterator[DecodedFrame | Clip]:
    had_idle, start = bool(idle_decoders), time.monotonic()
    try:
        child = _take_decoder()
    except OSError as error:
        fault = f"no process could be started ({error.strerror})"
        raise MediaError(f"{name} could not be decoded: {fault}. Try again later") from error
    # A thread sends the request and receives the messages; a timer ends a child that is late.
    request = json.dumps([path, name, dataclasses.asdict(limits), need_sound])
    messages: queue.SimpleQueue[DecodedFrame | dict | None] = queue.SimpleQueue()
    arguments = (child, request, limits, messages)
    receiver = threading.Thread(target=_receive_messages, args=arguments, daemon=True)
    timer = threading.Timer(limits.wall_seconds, child.kill)
    timer.daemon = True
    frames: list[np.ndarray] = []
    result: dict[str, Any] = {}
    receiver.start()
    timer.start()
    try:
        while (message := messages.get()) is not None:
            if isinstance(message, DecodedFrame):
                frames = clips.append_and_thin(frames, message.frame, message.number)
                yield message
            else:
                result = message
        code, is_late = child.wait(), time.monotonic() - start >= limits.wall_seconds
        _check_outcome(code, is_late, result, len(frames), name, limits)
    finally:
        timer.cancel()
        child.kill()
        receiver.join()
        _end_decoder(child)
        if had_idle:
            keep_decoder_ready()
    stacked = np.stack(frames) if frames else np.zeros((0, 1, 1, 3), np.uint8)
    yield Clip(name, frames=stacked, **result)


def _check_outcome(
    code: int, is_late: bool, result: dict, frames: int, name: str, limits: Limits
) -> None:
    """Raise MediaError unless a child ended well: exit status 0 and a result for all its frames."""
    limit = f"{limits.wall_seconds:g} s"
    if "failure" in result:
        raise MediaError(result["failure"])
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and is_late):
        spent = f"{limits.processor_seconds} s of processor time"
        fault = f"{name} takes longer than {spent if code == -signal.SIGXCPU else limit} to decode"
        raise MediaError(f"{fault}. Cut it, scale it down, or export it again as mp4 (H.264)")
    if code or not result or len(result["times"]) != frames:
        fault = f"{name} made the decoder crash (status {code})"
        raise MediaError(f"{fault}: it is damaged or hostile. {EXPORT_HINT}")


# ------------------------------------------------------------------ in the parent process


def start_decoder() -> subprocess.Popen:
    # One BLAS thread: it starts sooner, and a pool for many cores would exceed the memory limit.
    env = os.environ | {
        "PYTHONPATH": str(files.ROOT),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "core.media.sandbox"],
        cwd=files.ROOT,
        env=env,
        pipesize=PIPE_BYTES,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _take_decoder() -> subprocess.Popen:
    """A process without a file: a waiting one that is alive, or else a new one."""
    while True:
        try:
            child = idle_decoders.pop()
        except IndexError:
            return start_decoder()
        if child.poll() is None:
            return child
        _end_decoder(child)


def _end_decoder(child: subprocess.Popen) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            pipe.close()  # type: ignore[union-attr]


def _receive_messages(
    child: subprocess.Popen, request: str, limits: Limits, messages: queue.SimpleQueue
) -> None:
    """Send the request, then queue the child's messages while they keep to the limits.

    None is the end. A message that breaks the limits ends the child.
    """
    number = 0
    try:
        assert child.stdin
        assert child.stdout
        child.stdin.write(request.encode() + b"\n")
        child.stdin.close()
        while line := child.stdout.readline(MAX_HEADER_BYTES):
            head = json.loads(line)
            if "number" not in head:
                messages.put(_read_result(child.stdout, head, limits))
                continue
            (h, w), before, number = head["shape"], number, int(head["number"])
            is_small = 0 < h <= limits.side and 0 < w <= limits.side
            if not (is_small and 0 < number <= min(before + 1, limits.frames)):
                raise ValueError("a frame beyond the limits")
            frame = np.frombuffer(_read_exactly(child.stdout, 3 * h * w), np.uint8).reshape(h, w, 3)
            messages.put(DecodedFrame(float(head["time"]), frame, number, float(head["promised"])))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        # The child crashed, was killed or sent garbage; stream_clip raises for the missing result.
        child.kill()
    finally:
        messages.put(None)


def _read_result(pipe: Any, head: dict, limits: Limits) -> dict:
    """A child's last message: the text of a failure, or a clip's fields besides its frames."""
    if "failure" in head:
        return {"failure": str(head["failure"])}
    samples, waveform = head["samples"], None
    if samples is not None:
        if not 0 <= samples <= (limits.seconds + 2 * MAX_TIMESTAMP_JUMP) * Clip.rate:
            raise ValueError("more sound than asked for")
        waveform = np.frombuffer(_read_exactly(pipe, 4 * samples), np.float32)
    return {
        "times": np.array([float(t) for t in head["times"]]),
        "waveform": waveform,
        "notes": tuple(str(note) for note in head["notes"]),
        "is_still": bool(head["is_still"]),
    }


def _read_exactly(pipe: Any, size: int) -> bytearray:
    into = bytearray(size)
    if pipe.readinto(into) != size:  # a buffered pipe waits for all of it
        raise ValueError("cut short")
    return into


# ------------------------------------------------------------------ in the child process


def _decode_request(request: str, pipe: Any) -> None:
    """Decode the requested file; send a line of JSON and raw bytes per frame, then for the rest."""
    path, name, limits_, need_sound = json.loads(request)
    limits, sent = Limits(**limits_), 0

    def send(head: dict, *arrays: Any) -> None:
        pipe.write(json.dumps(head).encode() + b"\n")
        for array in arrays:
            pipe.write(np.ascontiguousarray(array).data)
        pipe.flush()

    def send_frame(one: DecodedFrame) -> None:
        nonlocal sent
        sent += 1
        head = {"number": one.number, "time": one.time, "promised": one.header_seconds}
        send(head | {"shape": one.frame.shape[:2]}, one.frame)

    try:
        apply_limits(limits)
        clip = clips.read_clip(path, limits, need_sound, name, send_frame)
        if not sent:
            for k, frame in enumerate(clip.frames):
                send_frame(DecodedFrame(0.0, frame, k + 1, 0.0))
        sound = [] if clip.waveform is None else [clip.waveform.astype(np.float32, copy=False)]
        head = {"times": clip.times.tolist(), "notes": clip.notes, "is_still": clip.is_still}
        send(head | {"samples": len(sound[0]) if sound else None}, *sound)
    except MediaError as error:
        send({"failure": str(error)})
    except MemoryError:
        fault = f"{name} needs more than {limits.memory / 2**20:.0f} MiB to decode"
        send({"failure": f"{fault}. Scale it down, or cut it"})


def apply_limits(limits: Limits) -> None:
    """Limit the memory and the processor time of this process, where the system can."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    used = 0
    with contextlib.suppress(OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, used + limits.memory),
        (resource.RLIMIT_CPU, limits.processor_seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
            resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    request_line = sys.stdin.readline()  # empty once the parent has ended
    if request_line:
        with os.fdopen(os.dup(1), "wb", PIPE_BYTES) as result_pipe:
            # A library that prints must not print into the messages.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            with contextlib.suppress(BrokenPipeError):  # the parent no longer waits
                _decode_request(request_line, result_pipe)
