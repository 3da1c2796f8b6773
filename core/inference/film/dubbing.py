"""A film that speaks with a generated voice, or with its own sound, as mp4 (H.264 and AAC).

The work is done by a process of its own, `encoder`. A film says in a corner of its picture and in
its metadata that its voice is nobody's.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from core import files
from core.inference.film import encoder
from core.inference.long_form import MAX_SECONDS
from core.media import sandbox, spectrograms
from core.media.containers import Limits, MediaError

GENERATED_MARK = spectrograms.GENERATED_COMMENT  # drawn into the picture
ORIGINAL_MARK = "original sound"
ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf", "h264")  # the first there is
LIMITS = Limits(
    seconds=MAX_SECONDS,
    side=480,
    fps=encoder.RATE,
    frames=round(MAX_SECONDS * encoder.RATE) + 1,
    kept_bytes=400 * 2**20,  # of frames of 480 x 480 pixels there is room for 20 s
    wall_seconds=180.0,
)
PHASES = {encoder.READING: "Reading the film", encoder.WRITING: "Writing the film"}
MAX_FILM_BYTES = 256 * 2**20
ProgressCallback = Callable[[str, int, int], None]  # words, done, in all


def with_voice(
    content: bytes,
    name: str,
    wave: np.ndarray,
    comment: str,
    report: ProgressCallback | None = None,
) -> bytes:
    """The film in `content` with a generated voice `wave` (T,) at 16 kHz in place of its sound.

    The film is as long as the voice. `comment` is of the voice's wav file. Raises MediaError for a
    file that is no film, and where no encoder of H.264 is installed.
    """
    metadata = {"title": f"{name}, {GENERATED_MARK}", "comment": comment, "artist": "dacssGAN"}
    return _encode(content, name, wave, GENERATED_MARK, metadata, report)


def with_own_sound(content: bytes, name: str, report: ProgressCallback | None = None) -> bytes:
    """The same film with its own sound, for comparison. Raises MediaError where it has none."""
    metadata = {"title": name, "comment": f"{ORIGINAL_MARK}; the film was encoded again"}
    return _encode(content, name, np.zeros(0, np.float32), ORIGINAL_MARK, metadata, report)


def _encode(
    content: bytes,
    name: str,
    wave: np.ndarray,
    mark: str,
    metadata: dict[str, str],
    report: ProgressCallback | None,
) -> bytes:
    with sandbox.turns.taken():
        child = _start_encoder(name)
        timer = threading.Timer(LIMITS.wall_seconds, child.kill)
        timer.daemon = True
        timer.start()
        try:
            line = encoder.request_line(name, LIMITS, len(wave), mark, metadata, ENCODERS)
            assert child.stdin
            with contextlib.suppress(BrokenPipeError):  # it has ended; its last message says why
                child.stdin.write(line + wave.astype(np.float32).tobytes() + content)
                child.stdin.close()
            return _receive(child, name, report)
        finally:
            timer.cancel()
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]


def _start_encoder(name: str) -> subprocess.Popen:
    env = os.environ | {
        "PYTHONPATH": str(files.ROOT),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    pipes["stderr"] = subprocess.DEVNULL
    command = [sys.executable, "-m", encoder.__name__]
    try:
        return subprocess.Popen(command, cwd=files.ROOT, env=env, **pipes)
    except OSError as error:
        fault = f"no process could be started ({error.strerror})"
        raise MediaError(f"{name} could not be encoded: {fault}. Try again later") from error


def _receive(child: subprocess.Popen, name: str, report: ProgressCallback | None) -> bytes:
    """The film out of a child's messages, which are as untrusted as its file."""
    assert child.stdout
    try:
        while line := child.stdout.readline(2**20):
            message = json.loads(line)
            if "failure" in message:
                raise MediaError(str(message["failure"]))
            if "bytes" in message:
                film = child.stdout.read(min(int(message["bytes"]), MAX_FILM_BYTES))
                if len(film) == message["bytes"]:
                    return film
                break
            if report:
                report(PHASES[message["phase"]], int(message["done"]), int(message["total"]))
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, MediaError):
            raise
    code = child.wait()
    raise MediaError(
        f"{name} could not be made a film with this sound (the encoder ended with status {code}): "
        "it is damaged, or takes too long. Cut it, or export it again as mp4 (H.264)"
    )
