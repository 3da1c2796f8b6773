"""§4.1 for files of strangers: `clips` in a child process with limits, which hands each frame over as soon as it is decoded.

Every file has a process of its own, for a decoder that was deceived must not see the next visitor's clip. `keep_decoder_ready` keeps one started
beforehand that waits for its file, so that nobody waits for an interpreter to start. What a child sends is as little trusted as its file.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.media import clips
from core.media.clips import MAX_TIMESTAMP_JUMP, Clip, DecodedFrame
from core.media.containers import DEFAULT_LIMITS, EXPORT_HINT, Limits, MediaError, PathName

MAX_HEADER_BYTES = 2**20  # bytes at most of a message's head
PIPE_BYTES = (
    2**20
)  # bytes that a pipe holds, where the system lets us choose: fewer turns for a frame

_idle_decoders: list[
    subprocess.Popen
] = []  # processes that no file has used yet (list.pop, append are atomic)


def keep_decoder_ready() -> None:
    """Have a process wait for the next file, and from then on another after each file. It ends with this process."""
    if not _idle_decoders:
        with contextlib.suppress(
            OSError
        ):  # the next file starts its own, or says why none can be started
            _idle_decoders.append(_start_decoder())


@atexit.register
def _end_idle_decoders() -> None:
    while _idle_decoders:
        _end_decoder(_idle_decoders.pop())


def read_clip(
    path: PathName,
    limits: Limits = DEFAULT_LIMITS,
    need_sound: bool = False,
    name: str | None = None,
) -> Clip:
    """`clips.read_clip` in a child process with limits of memory and time.

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
) -> Iterator[DecodedFrame | Clip]:
    """`read_clip` as it goes: each frame when it is decoded, then the whole clip, which holds those frames. Raises MediaError.

    The child decodes on while the caller is busy with a frame. Closing the iterator ends it.
    """
    name = name or Path(path).name
    waited, begun = bool(_idle_decoders), time.monotonic()
    try:
        child = _take_decoder()
    except OSError as error:
        raise MediaError(
            f"{name} could not be decoded: no process could be started ({error.strerror}). Try again later"
        ) from error
    order = [str(Path(path).resolve()), name, dataclasses.asdict(limits), need_sound]
    came: queue.SimpleQueue[DecodedFrame | dict | None] = queue.SimpleQueue()
    reader = threading.Thread(
        target=_receive_messages, args=(child, json.dumps(order), limits, came), daemon=True
    )
    late = threading.Timer(limits.wall_seconds, child.kill)
    late.daemon = True
    frames: list[np.ndarray] = []
    last: dict[str, Any] = {}
    reader.start()
    late.start()
    try:
        while (one := came.get()) is not None:
            if isinstance(one, DecodedFrame):
                frames = clips.append_and_thin(frames, one.frame, one.number)
                yield one
            else:
                last = one
        code = child.wait()
        if "failure" in last:
            raise MediaError(last["failure"])
        if code == -signal.SIGXCPU or (
            code == -signal.SIGKILL and time.monotonic() - begun >= limits.wall_seconds
        ):
            raise MediaError(
                f"{name} takes longer than {limits.wall_seconds:g} s to decode. Cut it, or {EXPORT_HINT.lower()}"
            )
        if code or not last or len(last["times"]) != len(frames):
            raise MediaError(
                f"{name} made the decoder crash (status {code}): it is damaged or hostile. {EXPORT_HINT}"
            )
    finally:
        late.cancel()
        child.kill()
        reader.join()
        _end_decoder(child)
        if waited:
            keep_decoder_ready()
    stacked = np.stack(frames) if frames else np.zeros((0, 1, 1, 3), np.uint8)
    yield Clip(
        name,
        np.array(last["times"]),
        stacked,
        last["waveform"],
        notes=tuple(last["notes"]),
        is_still=last["is_still"],
    )


# ------------------------------------------------------------------ on this side


def _start_decoder() -> subprocess.Popen:
    # One BLAS thread: it starts sooner, and a pool for many cores would not fit the memory limit.
    env = os.environ | {
        "PYTHONPATH": str(files.ROOT),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
        "pipesize": PIPE_BYTES,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "core.media.sandbox"], cwd=files.ROOT, env=env, **pipes
    )


def _take_decoder() -> subprocess.Popen:
    """A process that no file has used: one that waits and is well, or else a new one."""
    while True:
        try:
            child = _idle_decoders.pop()
        except IndexError:
            return _start_decoder()
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
    child: subprocess.Popen, order: str, limits: Limits, came: queue.SimpleQueue
) -> None:
    """Gives the order and puts into the queue what comes back, as far as it keeps to the limits; None is the end."""
    number = 0
    try:
        assert child.stdin
        assert child.stdout
        child.stdin.write(order.encode() + b"\n")
        child.stdin.close()
        while line := child.stdout.readline(MAX_HEADER_BYTES):
            head = json.loads(line)
            if "number" not in head:
                came.put(_read_result(child.stdout, head, limits))
                continue
            (h, w), kept = head["shape"], int(head["number"])
            if not (
                0 < h <= limits.side
                and 0 < w <= limits.side
                and 0 < kept <= min(number + 1, limits.frames)
            ):
                raise ValueError("a frame beyond the limits")
            number = kept
            frame = np.frombuffer(_read_exactly(child.stdout, 3 * h * w), np.uint8).reshape(h, w, 3)
            came.put(DecodedFrame(float(head["time"]), frame, number, float(head["promised"])))
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
    ):  # it crashed, was ended, or lies: what is missing will say so
        child.kill()
    finally:
        came.put(None)


def _read_result(pipe: Any, head: dict, limits: Limits) -> dict:
    """The end of a child's report: a failure in words, or what a clip has besides its frames."""
    if "failure" in head:
        return {"failure": str(head["failure"])}
    samples, waveform = head["samples"], None
    if samples is not None:
        if not 0 <= samples <= (limits.seconds + 2 * MAX_TIMESTAMP_JUMP) * Clip.rate:
            raise ValueError("more sound than asked for")
        waveform = np.frombuffer(_read_exactly(pipe, 4 * samples), np.float32)
    notes = [str(note) for note in head["notes"]]
    return {
        "times": [float(t) for t in head["times"]],
        "notes": notes,
        "is_still": bool(head["is_still"]),
        "waveform": waveform,
    }


def _read_exactly(pipe: Any, size: int) -> bytearray:
    into = bytearray(size)
    if pipe.readinto(into) != size:  # a buffered pipe waits for all of it
        raise ValueError("cut short")
    return into


# ------------------------------------------------------------------ in the child


def _decode_request(order: str, pipe: Any) -> None:
    """Decode the file that is ordered and report on it: a line of JSON and raw bytes for each frame, then for the rest."""
    path, name, limits_, need_sound = json.loads(order)
    limits, told = Limits(**limits_), 0

    def report(head: dict, *arrays: Any) -> None:
        pipe.write(json.dumps(head).encode() + b"\n")
        for array in arrays:
            pipe.write(np.ascontiguousarray(array).data)
        pipe.flush()

    def tell(one: DecodedFrame) -> None:
        nonlocal told
        told += 1
        report(
            {
                "number": one.number,
                "time": one.time,
                "promised": one.header_seconds,
                "shape": one.frame.shape[:2],
            },
            one.frame,
        )

    try:
        _apply_limits(limits)
        clip = clips.read_clip(path, limits, need_sound, name, tell)
        if not told:
            for k, frame in enumerate(clip.frames):
                tell(DecodedFrame(0.0, frame, k + 1, 0.0))
        sound = [] if clip.waveform is None else [clip.waveform.astype(np.float32, copy=False)]
        samples = len(sound[0]) if sound else None
        report(
            {
                "times": clip.times.tolist(),
                "notes": clip.notes,
                "is_still": clip.is_still,
                "samples": samples,
            },
            *sound,
        )
    except MediaError as error:
        report({"failure": str(error)})
    except MemoryError:
        report(
            {
                "failure": f"{name} needs more than {limits.memory / 2**20:.0f} MiB to decode. Scale it down, or cut it"
            }
        )


def _apply_limits(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # not a Unix
        return
    used = 0
    with contextlib.suppress(OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    seconds = int(2 * limits.wall_seconds) + 1  # of processor time, over two threads
    for what, most in (
        (resource.RLIMIT_AS, used + limits.memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of address space
            resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    given = sys.stdin.readline()  # nothing, when who started it has ended
    if given:
        with os.fdopen(os.dup(1), "wb", PIPE_BYTES) as back:
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), 1
            )  # a library that prints does not print into the report
            with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                _decode_request(given, back)
