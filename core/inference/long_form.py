"""A voice as long as its film, generated in overlapping windows of a second.

Each window gets the face nearest its middle and that face's condition, and all share one noise z:
the voice stays one voice while its emotion follows the face. Neighbouring windows are cross-faded
as spectrograms, in dB, and the whole is inverted at once, so that no seam can click.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from core.inference import generation
from core.inference.generation import AnalysedClip, Explanation, LoadedRun
from core.media import spectrograms
from core.models import networks

MAX_SECONDS = 20.0  # s; longer films get a voice for their beginning
# Windows overlap by 1/8 of their length. Longer overlaps average two utterances, and lose the
# emotion (LOG.md)
OVERLAP_DIVISOR = 8


@dataclass(frozen=True)
class LongVoice:
    """A generated voice of n windows, and the windows."""

    y: np.ndarray  # (columns, bands) in [-1, 1], the whole
    crops: np.ndarray  # (n, window, bands), G's outputs before cross-fading
    starts: np.ndarray  # (n,) first column of each window in y; the last may reach beyond y's end
    frames: np.ndarray  # (n,) index of the frame whose face a window gets
    explanations: list[Explanation]  # of each face
    c: np.ndarray  # (n, K) conditions of G, or (n, 0)
    told: str  # origin of c in words
    is_truncated: bool  # the film is longer than MAX_SECONDS


def count_columns(opened: LoadedRun, seen: AnalysedClip) -> int:
    """Columns of a film's whole voice: from one window up to MAX_SECONDS.

    The length is that of the sound, or of the frames without sound.
    """
    s = opened.config.logmel
    columns = 1 + _clip_seconds(opened, seen) * s.rate // s.hop
    return int(np.clip(columns, s.columns, 1 + MAX_SECONDS * s.rate // s.hop))


def count_windows(opened: LoadedRun, seen: AnalysedClip) -> int:
    """Windows of that voice; 1 if the film is no longer than a window."""
    window = opened.config.logmel.columns
    return 1 - (window - count_columns(opened, seen)) // (window - window // OVERLAP_DIVISOR)


def _clip_seconds(opened: LoadedRun, seen: AnalysedClip) -> float:
    if seen.waveform is None:
        return float(seen.times[-1])
    return len(seen.waveform) / opened.config.logmel.rate


@torch.no_grad()
def generate_long_voice(
    opened: LoadedRun, seen: AnalysedClip, emotion: str | None = None, seed: int = 0
) -> LongVoice:
    """The voice of a whole film, G(x_t|c_t, z) with z from `seed`: one call of f_S, one of G.

    `emotion` is for the label condition, for the whole film; without it each face's first choice is
    taken. A film of one window gets the voice of `generation.generate_voices` for its middle.
    Raises UserError for a run of the reverse direction.
    """
    s, n, total = opened.config.logmel, count_windows(opened, seen), count_columns(opened, seen)
    # The face of each window
    starts, frames = np.arange(n) * (s.columns - s.columns // OVERLAP_DIVISOR), [seen.middle]
    if n > 1:
        middles = (starts + s.columns / 2) * s.hop / s.rate
        frames = [nearest_frame(seen, t) for t in middles]
    aligned = seen.aligned[frames]
    # Its condition
    if n > 1:
        explanations = generation.explain_faces(opened, aligned)
    else:
        explanations = [generation.explain_film(opened, generation.judged_faces(seen))]
    rows = [generation.condition_of(opened, e, emotion) for e in explanations]
    c, origins = np.stack([row for row, _ in rows]), {words for _, words in rows}
    told = "label: the face classifier's first choice for each face, since no emotion was named"
    if len(origins) == 1:
        told = origins.pop()
    # One noise for all windows
    z = networks.draw_noise(opened.G, 1, opened.config.gan.z, seed).expand(n, -1)
    conditions = torch.from_numpy(np.asarray(c, np.float32))
    crops = opened.G(generation.faces_tensor(aligned), conditions, z)[:, 0].numpy()
    return LongVoice(
        y=cross_fade_crops(crops, total),
        crops=crops,
        starts=starts,
        frames=np.array(frames),
        explanations=explanations,
        c=c,
        told=told,
        is_truncated=_clip_seconds(opened, seen) > MAX_SECONDS,
    )


def nearest_frame(seen: AnalysedClip, time: float) -> int:
    """Index of the frame with a face that is nearest to a time in seconds."""
    return int(np.where(seen.found, np.abs(seen.times - time), np.inf).argmin())


def cross_fade_crops(crops: np.ndarray, total: int) -> np.ndarray:
    """Overlap-add of windows (n, window, bands) -> (total, bands), with raised-cosine cross-fades.

    The weights of a column sum to one: windows that agree stay unchanged.

    >>> np.allclose(cross_fade_crops(np.ones((2, 8, 1)), 15), 1)
    True
    """
    n, window, bands = crops.shape
    both = window // OVERLAP_DIVISOR
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(both) + 0.5) / both)
    out = np.zeros(((n - 1) * (window - both) + window, bands))
    for i, crop in enumerate(crops):
        weight = np.ones(window)
        if i:
            weight[:both] = rise
        if i < n - 1:
            weight[window - both :] = rise[::-1]
        start = i * (window - both)
        out[start : start + window] += weight[:, None] * crop
    return out[:total].astype(np.float32)


def window_edges(p: LongVoice, window: int) -> np.ndarray:
    """(n + 1,) columns between which each window dominates: start, middles of cross-fades, end."""
    return np.concatenate([[0], p.starts[1:] + window // OVERLAP_DIVISOR // 2, [len(p.y)]])


def crop_windows(p: LongVoice, window: int) -> np.ndarray:
    """(n, window, bands) crops of the whole at the windows' places; the last one ends with it."""
    return np.stack([p.y[k : k + window] for k in np.minimum(p.starts, len(p.y) - window)])


def classify_windows(opened: LoadedRun, p: LongVoice) -> dict[str, np.ndarray]:
    """Softmax (n, K) of Q and of the scorer for each window of the whole, under their names."""
    return generation.classify_samples(opened, crop_windows(p, opened.config.logmel.columns))


def voice_spectrogram(
    opened: LoadedRun, waveform: np.ndarray, columns: int
) -> tuple[np.ndarray, float]:
    """`generation.voice_spectrogram` for the first `columns` of a film's own voice."""
    s = opened.config.logmel
    db = spectrograms.log_mel(waveform, s)[:columns]
    db = np.pad(db, ((0, columns - len(db)), (0, 0)), constant_values=spectrograms.FLOOR_DB)
    gain = spectrograms.upload_gain_db(db, opened.level)
    return spectrograms.scale(db + gain, opened.ref_db, s), gain


def window_records(
    opened: LoadedRun, seen: AnalysedClip, p: LongVoice, o: dict[str, np.ndarray]
) -> list[dict]:
    """Record of each window, ready for json: time, frame, explanation, condition, verdicts."""
    s = opened.config.logmel
    edges = window_edges(p, s.columns) * s.hop / s.rate
    by_class = functools.partial(generation.by_class, opened)
    return [
        {
            "from": round(float(edges[i]), 3),
            "to": round(float(edges[i + 1]), 3),
            "frame": int(p.frames[i]),
            "time": round(float(seen.times[p.frames[i]]), 3),
            "c": by_class(p.c[i]) if p.c.shape[1] else {},
            "softmax": by_class(one.softmax),
            "p-values": by_class(one.p),
            "credibility": one.credibility,
            "confidence": one.confidence,
            "heard by Q": by_class(o["Q"][i]),
            "heard by the scorer": by_class(o["scorer"][i]),
        }
        for i, one in enumerate(p.explanations)
    ]
