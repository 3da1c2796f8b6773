"""Recordings of people in S1 to S4, and their seconds that a run's spectrograms show."""

from __future__ import annotations

import json

import numpy as np

from core.config.settings import Config, LogMel
from core.data import prepared_corpora, splits
from core.data.corpora import CorpusError
from core.data.demo import actors, voices
from core.data.sources import media_files
from core.media import clips, spectrograms

Recordings = list[tuple[str, np.ndarray]]  # (clip, (samples,) float32)


def load_recordings(config: Config, sets: tuple[str, ...]) -> Recordings:
    """All recordings, whatever their emotion, of the people in some of S1 to S4.

    The demo corpus' are synthesised. Raises CorpusError where the recordings are no longer on this
    machine: a prepared corpus holds spectrograms alone.
    """
    name, rate = config.data.voices, config.logmel.rate
    record = prepared_corpora.corpus_path(name).with_suffix(".source.json")
    invented = prepared_corpora.is_demo(name)
    if not invented and not record.exists():
        what = f"{record}, which names the recordings of {name}, is missing"
        raise CorpusError(f"{what}; prepare the corpus again from its source")
    built = splits.build_sets(config)
    people = {str(p) for k in sets for p in built[k].y_subject}
    if invented:
        takes = actors.list_takes(config.data.demo_takes)
        own = [t for t in takes if f"demo-{t.actor:02d}" in people]
        return [(t.clip_id, voices.synthesise_voice(t)) for t in own]
    corpus, sources = prepared_corpora.load_corpus(name), json.loads(record.read_text())["clips"]
    out = []
    for clip, subject in zip(map(str, corpus.clip), map(str, corpus.subject), strict=True):
        if subject not in people:
            continue
        try:
            with media_files.media_file(sources[clip]["audio"]) as path:
                out.append((clip, clips.read_waveform(path, rate)))
        except (OSError, KeyError) as e:
            raise CorpusError(
                f"the recording of {clip} is not where {record} says ({e}); prepare {name} again "
                "from its source"
            ) from e
    return out


def labelled_recordings(config: Config, sets: tuple[str, ...]) -> list[tuple[int, np.ndarray]]:
    """(class, waveform) of the recordings whose emotion is one of the configuration's classes."""
    classes, takes = config.data.classes, config.data.demo_takes
    corpus = prepared_corpora.load_corpus(config.data.voices, takes)
    emotion = dict(zip(map(str, corpus.clip), map(str, corpus.emotion), strict=True))
    return [
        (classes.index(emotion[clip]), wave)
        for clip, wave in load_recordings(config, sets)
        if emotion.get(clip) in classes
    ]


def voiced_seconds(waves: list[np.ndarray], s: LogMel) -> tuple[np.ndarray, np.ndarray]:
    """The window of each recording that a corpus takes (`voiced_start`), in dB and as a sound.

    Spectrograms (n, columns, bands) and sounds (n, (columns - 1) hop).
    """
    db, parts = [], []
    for wave in waves:
        start = spectrograms.voiced_start(wave, s, s.columns) or 0
        part = wave[start * s.hop : (start + s.columns - 1) * s.hop]
        missing = (s.columns - 1) * s.hop - len(part)
        whole = spectrograms.log_mel(wave, s)[start : start + s.columns]
        db.append(spectrograms.centre_crop(whole, s.columns))
        parts.append(np.pad(part, (missing // 2, missing - missing // 2)))
    return np.stack(db), np.stack(parts)
