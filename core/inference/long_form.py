"""A voice as long as its film: a generator draws a second at a time, and the seconds flow into each other.

Windows of a run's length follow each other and overlap a little. Each is drawn from the face nearest its middle and from what the run's
condition says of that face, all with one noise z, so that the voice stays one voice while its emotion follows the face. Neighbours are
cross-faded as spectrograms, in dB, and the whole is made sound at once: there are no seams in the waveform that could click.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from core.inference import generation
from core.inference.generation import AnalysedClip, Explanation, LoadedRun
from core.media import spectrograms

MAX_SECONDS = 20.0  # s of a film that are given a voice
OVERLAP_DIVISOR = 8  # windows share this part of their length. A mean of two utterances is neither: with halves their emotion is lost (LOG.md)


@dataclass(frozen=True)
class LongVoice:
    """What a generator makes of a film, n windows joined."""

    y: np.ndarray  # (columns, bands) in [-1, 1], the whole
    crops: np.ndarray  # (n, window, bands), as they were drawn
    starts: np.ndarray  # (n,) column of y at which each begins; the last may reach beyond the end
    frames: np.ndarray  # (n,) index of the frame whose face each was drawn from
    said: list[Explanation]  # of each face
    c: np.ndarray  # (n, K) what the generator was told, or (n, 0)
    told: str  # where c comes from
    is_truncated: bool  # the film is longer than LONGEST


def count_columns(opened: LoadedRun, seen: AnalysedClip) -> int:
    """How many columns a film's whole voice has: those of its sound, or of its frames, up to LONGEST; at least the run's window."""
    s = opened.config.logmel
    return int(
        np.clip(
            1 + _clip_seconds(opened, seen) * s.rate // s.hop,
            s.columns,
            1 + MAX_SECONDS * s.rate // s.hop,
        )
    )


def count_windows(opened: LoadedRun, seen: AnalysedClip) -> int:
    """How many windows that takes; 1 where the film is no longer than one."""
    window = opened.config.logmel.columns
    return 1 - (window - count_columns(opened, seen)) // (window - window // OVERLAP_DIVISOR)


def _clip_seconds(opened: LoadedRun, seen: AnalysedClip) -> float:
    return (
        len(seen.waveform) / opened.config.logmel.rate
        if seen.waveform is not None
        else float(seen.times[-1])
    )


@torch.no_grad()
def generate_long_voice(
    opened: LoadedRun, seen: AnalysedClip, emotion: str | None = None, seed: int = 0
) -> LongVoice:
    """The voice of a whole film, G(x_t|c_t, z) with z from `seed`: one call of f_S and one of G for all windows.

    `emotion` is for the label condition, and holds for the whole film; without it the classifier's first choice for each face is taken. A
    film of one window gets what `studio.generate` draws for its middle. Raises ValueError for a run of the reverse direction.
    """
    s, n, total = opened.config.logmel, count_windows(opened, seen), count_columns(opened, seen)
    starts = np.arange(n) * (s.columns - s.columns // OVERLAP_DIVISOR)
    frames = (
        np.array([nearest_frame(seen, t) for t in (starts + s.columns / 2) * s.hop / s.rate])
        if n > 1
        else np.array([seen.middle])
    )
    said = generation.explain_faces(opened, seen.aligned[frames])
    rows = [generation.condition_of(opened, one, emotion) for one in said]
    c, words = np.stack([row for row, _ in rows]), dict.fromkeys(words for _, words in rows)
    told = (
        next(iter(words))
        if len(words) == 1
        else "label: the face classifier's first choice for each face, since no emotion was named"
    )
    z = torch.randn((1, opened.config.gan.z), generator=torch.Generator().manual_seed(seed)).expand(
        n, -1
    )
    x = torch.cat([generation.face_tensor(face) for face in seen.aligned[frames]])
    crops = opened.G(x, torch.from_numpy(np.asarray(c, np.float32)), z)[:, 0].numpy()
    return LongVoice(
        cross_fade_crops(crops, total),
        crops,
        starts,
        frames,
        said,
        c,
        told,
        _clip_seconds(opened, seen) > MAX_SECONDS,
    )


def nearest_frame(seen: AnalysedClip, time: float) -> int:
    """The frame with a face that is nearest an instant (s)."""
    return int(np.where(seen.found, np.abs(seen.times - time), np.inf).argmin())


def cross_fade_crops(crops: np.ndarray, total: int) -> np.ndarray:
    """(n, window, bands) that follow each other -> (total, bands), raised-cosine cross-fades where neighbours overlap.

    The weights of a column sum to one, so that crops which agree stay as they are. One crop is itself.
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
    """(n + 1,) columns between which each window is the louder one: from the beginning, over the middles of the cross-fades, to the end."""
    return np.concatenate([[0], p.starts[1:] + window // OVERLAP_DIVISOR // 2, [len(p.y)]])


def crop_windows(p: LongVoice, window: int) -> np.ndarray:
    """(n, window, bands) of the joined spectrogram at the windows' places, the last moved back to its end: what its judges can hear."""
    return np.stack([p.y[k : k + window] for k in np.minimum(p.starts, len(p.y) - window)])


def classify_windows(opened: LoadedRun, p: LongVoice) -> dict[str, np.ndarray]:
    """What Q and the scorer hear in each part: name -> (n, K)."""
    return generation.classify_samples(opened, crop_windows(p, opened.config.logmel.columns))


def voice_spectrogram(
    opened: LoadedRun, waveform: np.ndarray, columns: int
) -> tuple[np.ndarray, float]:
    """`studio.heard` for a film's own voice from its beginning on: (columns, bands) in [-1, 1], and the gain in dB that was applied."""
    s = opened.config.logmel
    db = spectrograms.log_mel(waveform, s)[:columns]
    db = np.pad(db, ((0, columns - len(db)), (0, 0)), constant_values=spectrograms.FLOOR_DB)
    gain = spectrograms.upload_gain_db(db, opened.level)
    return spectrograms.scale(db + gain, opened.ref_db, s), gain


def window_records(
    opened: LoadedRun, seen: AnalysedClip, p: LongVoice, o: dict[str, np.ndarray]
) -> list[dict]:
    """For each window: its time, the frame it was drawn from, what was said of that face, what G was told, what is heard there."""
    s, classes = opened.config.logmel, opened.classes
    edges = window_edges(p, s.columns) * s.hop / s.rate

    def named(v: np.ndarray) -> dict[str, float]:
        return {k: round(float(a), 6) for k, a in zip(classes, v, strict=True)}

    return [
        {
            "from": round(float(edges[i]), 3),
            "to": round(float(edges[i + 1]), 3),
            "frame": int(p.frames[i]),
            "time": round(float(seen.times[p.frames[i]]), 3),
            "c": named(p.c[i]) if p.c.shape[1] else {},
            "softmax": named(one.softmax),
            "p-values": named(one.p),
            "credibility": one.credibility,
            "confidence": one.confidence,
            "heard by Q": named(o["Q"][i]),
            "heard by the scorer": named(o["scorer"][i]),
        }
        for i, one in enumerate(p.said)
    ]
