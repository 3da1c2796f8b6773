"""Kept samples of single faces (or voices) of S4: source, condition, output, verdict. No torch.

A run directory holds samples and scores but no picture of a person. The demo corpus is drawn again
from its numbers, cell for cell as it was; faces and voices of another corpus are shown if it is
prepared on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.config.settings import Config
from core.data import prepared_corpora, splits
from core.data.corpora import CorpusError
from core.data.demo import actors, expressions, voices
from core.files import UserError
from core.media import spectrograms
from core.media.faces import alignment
from core.runs.directory import Run


@dataclass(frozen=True)
class _Source:
    """A row of S4 as far as it is on this machine."""

    name: str = ""  # name of the clip, where known
    face: np.ndarray | None = None  # (28, 28) uint8, the networks' input
    picture: np.ndarray | None = None  # (H, W, 3) uint8, uncropped frame; drawn faces only
    y: np.ndarray | None = None  # (columns, bands) in [-1, 1], the clip's own voice
    wave: np.ndarray | None = None  # (T,) float32, whole recording; drawn voices only


@dataclass(frozen=True)
class FaceExample:
    """One face of S4 and the voice that the run generated for it."""

    run: str  # run id
    emotion: str  # class of the face
    number: int  # among this emotion's examples, from 0
    of: int  # number of this emotion's examples
    name: str  # name of the clip, where known
    face: np.ndarray | None  # (28, 28) uint8, the networks' input; None without the corpus
    picture: np.ndarray | None  # (H, W, 3) uint8, uncropped frame; drawn faces only
    real: np.ndarray | None  # (columns, bands) in [-1, 1], the clip's own voice; None: not paired
    wave: np.ndarray | None  # (T,) float32, the clip's whole recording; drawn voices only
    y: np.ndarray  # (columns, bands) in [-1, 1], the generated voice
    softmax: np.ndarray  # (K,) f_S of the face
    p: np.ndarray  # (K,) its p-values, Eq. (9)
    c: np.ndarray  # (K,) condition of G
    heard: np.ndarray  # (K,) the scorer's softmax of y


@dataclass(frozen=True)
class VoiceExample:
    """One voice of S4, for a run that makes faces (§4.5)."""

    emotion: str  # class of the voice
    number: int  # among this emotion's examples, from 0
    of: int  # number of this emotion's examples
    name: str  # name of the clip, where known
    y: np.ndarray  # (columns, bands) in [-1, 1], the networks' input
    wave: np.ndarray | None  # (T,) float32, the whole recording; drawn voices only
    face: np.ndarray | None  # (28, 28) uint8, the clip's own face; None: not paired


def load_face_example(run: Run, emotion: str, number: int = 0) -> FaceExample:
    """Kept sample `number` (modulo their count) of an emotion.

    Raises UserError if the run has kept none, or makes faces.
    """
    config, kept, outputs = run.config, run.arrays("generated"), run.arrays()
    corpus, classes = run.json("corpus"), config.data.classes
    if config.gan.direction != "face-voice":
        raise UserError(f"{run.id} makes faces from voices; choose a run that makes voices")
    if not kept or not corpus or emotion not in classes:
        raise UserError(
            f"{run.id} has kept no sample of {emotion!r}; let its training finish, "
            "or choose another run"
        )
    own = np.nonzero(kept["label"] == classes.index(emotion))[0]
    if not len(own):
        raise UserError(f"{run.id} has kept no sample of {emotion!r}; choose another emotion")
    at = own[number % len(own)]
    row = int(kept["row"][at])
    source = _load_source(config, corpus, outputs, row)
    y, c, heard = (kept[k][at].astype(np.float32) for k in ("y", "c", "o"))
    return FaceExample(
        run=run.id,
        emotion=emotion,
        number=number % len(own),
        of=len(own),
        name=source.name,
        face=source.face,
        picture=source.picture,
        real=source.y,
        wave=source.wave,
        y=y,
        softmax=outputs["o_S4"][row],
        p=outputs["p_S4"][row],
        c=c,
        heard=heard,
    )


def heard_as_meant(run: Run, emotion: str) -> np.ndarray:
    """Whether the scorer hears the emotion in each kept sample of it: (n,) bool, in their order."""
    kept = run.arrays("generated")
    if not kept or emotion not in run.config.data.classes:
        return np.zeros(0, bool)
    k = run.config.data.classes.index(emotion)
    return kept["o"][kept["label"] == k].argmax(axis=1) == k


def load_voice_example(run: Run, emotion: str, number: int = 0) -> VoiceExample:
    """Voice `number` (modulo their count) of an emotion, alternating between speakers.

    Raises UserError if the run or its corpus has none, or the run makes voices.
    """
    config, outputs, corpus = run.config, run.arrays(), run.json("corpus")
    if config.gan.direction != "voice-face":
        raise UserError(f"{run.id} makes voices from faces; choose a run that makes faces")
    if "label_S4" not in outputs or not corpus or emotion not in config.data.classes:
        raise UserError(
            f"{run.id} knows no voice of {emotion!r}; let its training finish, "
            "or choose another run"
        )
    own = np.nonzero(outputs["label_S4"] == config.data.classes.index(emotion))[0]
    if not len(own):
        raise UserError(
            f"{run.id} has no voice of {emotion!r} in its test set; choose another emotion"
        )
    speakers = outputs["subject_S4"][own]
    turn = [np.count_nonzero(speakers[:i] == speaker) for i, speaker in enumerate(speakers)]
    row = int(own[np.argsort(turn, kind="stable")][number % len(own)])
    source = _load_source(config, corpus, outputs, row)
    if source.y is None:
        raise UserError(
            f"the voices of {config.data.voices} that {run.id} was tested on are not on this "
            "machine; upload or record one"
        )
    at = number % len(own)
    return VoiceExample(emotion, at, len(own), source.name, source.y, source.wave, source.face)


def _load_source(config: Config, corpus: dict, outputs: dict[str, np.ndarray], row: int) -> _Source:
    """Face and voice of a row of S4: drawn again, or from the prepared corpora of the run.

    A partner from another clip is left out.
    """
    if is_demo(config):
        return _render_demo_row(config, corpus["voices"]["ref_db"], outputs, row)
    S4 = _load_s4(config, corpus)
    if S4 is None:
        return _Source()
    if config.gan.direction == "voice-face":
        return _Source(y=S4.x[row], face=alignment.to_uint8(S4.y[row]) if S4.paired else None)
    return _Source(face=alignment.to_uint8(S4.x[row]), y=S4.y[row] if S4.paired else None)


def is_demo(config: Config) -> bool:
    """Whether faces and voices are of the invented corpus."""
    return config.data.faces == config.data.voices and prepared_corpora.is_demo(config.data.faces)


def _render_demo_row(
    config: Config, ref_db: float, outputs: dict[str, np.ndarray], row: int
) -> _Source:
    """A row of S4 of the demo corpus, drawn as `preparation` drew it; empty if its takes differ."""
    subject, label, s = outputs["subject_S4"][row], outputs["label_S4"][row], config.logmel
    same = np.nonzero((outputs["subject_S4"] == subject) & (outputs["label_S4"] == label))[0]
    if len(same) != config.data.demo_takes:
        return _Source()
    wanted = (
        int(subject.removeprefix("demo-")),
        config.data.classes[label],
        int(np.searchsorted(same, row)),
    )
    takes = actors.list_takes(config.data.demo_takes)
    take = next(t for t in takes if (t.actor, t.emotion, t.number) == wanted)
    wave = voices.synthesise_voice(take)
    picture, places = expressions.render_face(take, t=spectrograms.centre_time(len(wave) / s.rate))
    stored = spectrograms.centre_crop(
        spectrograms.log_mel(wave, s), prepared_corpora.STORED_COLUMNS
    )
    y = spectrograms.scale(spectrograms.centre_crop(stored, s.columns), ref_db, s)
    return _Source(take.clip_id, alignment.align(picture, places), picture, y, wave)


def _load_s4(config: Config, corpus: dict) -> splits.SampleSet | None:
    """The run's own S4; None if its corpora are not on this machine."""
    d = config.data
    try:
        for role, name in (("faces", d.faces), ("voices", d.voices)):
            here = prepared_corpora.load_corpus(name, d.demo_takes)
            if here.digest != corpus[role]["digest"]:
                return None
        return splits.build_sets(config)["S4"]
    except CorpusError:
        return None
