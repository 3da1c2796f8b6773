"""Judges of speech that this project did not train: DNSMOS P.835 and Silero VAD.

They are test tools (requirements-test.txt) and are loaded here alone. Both hear 16 kHz sounds at
one level; DNSMOS hears them repeated to the length that it was trained for.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from core.files import UserError

RATE = 16_000  # Hz of both judges
LEVEL_DBFS = -26.0  # RMS of a judged sound, as in the judges' training
MAX_PEAK = 0.99
DNSMOS_SECONDS = 9.01
VAD_CHUNK, VAD_CONTEXT = 512, 64  # samples
INSTALL = ".venv/bin/python -m pip install -r requirements.txt -r requirements-test.txt"
SCORES = ("OVRL", "SIG", "BAK", "P.808", "VAD")  # the first four from 1, bad, to 5; VAD from 0 to 1


def set_level(waves: np.ndarray) -> np.ndarray:
    """Sounds (n, samples) at an RMS of LEVEL_DBFS; less where a peak would exceed MAX_PEAK.

    >>> out = set_level(np.sin(np.arange(16_000))[None])
    >>> round(20 * float(np.log10(out.std())), 1)
    -26.0
    """
    waves = np.asarray(waves, np.float64)
    rms = np.sqrt((waves**2).mean(axis=1, keepdims=True))
    gain = 10 ** (LEVEL_DBFS / 20) / np.maximum(rms, 1e-9)
    peak = np.abs(waves).max(axis=1, keepdims=True)
    gain = np.minimum(gain, MAX_PEAK / np.maximum(peak, 1e-9))
    return (waves * gain).astype(np.float32)


def repeat_to(wave: np.ndarray, samples: int) -> np.ndarray:
    """A sound (T,) again and again, (samples,).

    >>> repeat_to(np.array([1, 2, 3]), 7)
    array([1, 2, 3, 1, 2, 3, 1])
    """
    return np.resize(wave, samples)


def judge(waves: np.ndarray) -> dict[str, np.ndarray]:
    """Score -> (n,) for sounds (n, samples) of at least 0.1 s at 16 kHz; the scores are SCORES.

    OVRL, SIG, BAK: overall quality, speech and background of P.835. P.808: quality. VAD: mean
    probability of speech. Raises UserError where the judges are not installed.
    """
    dnsmos, vad = _load_dnsmos(), _load_vad()
    sounds, rows = set_level(waves), []
    for sound in sounds:
        heard = dnsmos(repeat_to(sound, int(DNSMOS_SECONDS * RATE) + 1), RATE, False)
        four = [heard[k] for k in ("ovrl_mos", "sig_mos", "bak_mos", "p808_mos")]
        rows.append([*four, _speech_probability(vad, sound)])
    table = np.array(rows, np.float64).reshape(-1, len(SCORES))
    return dict(zip(SCORES, table.T, strict=True))


def _speech_probability(session: Any, sound: np.ndarray) -> float:
    """Mean probability of speech over the chunks of a sound (T,), heard once from rest."""
    samples = np.pad(sound, (0, -len(sound) % VAD_CHUNK)).astype(np.float32)
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros(VAD_CONTEXT, np.float32)
    found, rate = [], np.array(RATE, np.int64)
    for chunk in samples.reshape(-1, VAD_CHUNK):
        heard = np.concatenate([context, chunk])[None]
        probability, state = session.run(None, {"input": heard, "state": state, "sr": rate})
        found.append(float(probability[0, 0]))
        context = chunk[-VAD_CONTEXT:]
    return float(np.mean(found))


@functools.cache
def _load_dnsmos() -> Any:
    try:
        from speechmos.dnsmos import DNSMOS
    except ImportError as e:
        raise UserError(f"DNSMOS is not installed ({e}); install the test tools: {INSTALL}") from e
    folder = _package_folder("speechmos") / "dnsmos_models"
    return DNSMOS(str(folder / "sig_bak_ovr.onnx"), str(folder / "model_v8.onnx"))


@functools.cache
def _load_vad() -> Any:
    """The network alone: the package's code would change the number of torch's threads."""
    path = _package_folder("silero_vad") / "data" / "silero_vad.onnx"
    try:
        import onnxruntime
    except ImportError as e:
        words = f"onnxruntime is not installed ({e}); install the test tools: {INSTALL}"
        raise UserError(words) from e
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _package_folder(name: str) -> Path:
    """Folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{name} is not installed; install the test tools: {INSTALL}")
    return Path(spec.submodule_search_locations[0])
