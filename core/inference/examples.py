"""What a finished run has kept of single faces (or voices) of S4: the face, what G was told, what G drew, what the scorer heard. No torch.

A run directory holds samples and scores but no picture of anybody. The demo corpus follows from its numbers, so its faces and voices are
drawn again here, cell for cell as they were; those of another corpus are shown where it is prepared on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.config import Config
from core.data import prepared_corpora, splits
from core.data.corpora import CorpusError
from core.data.demo import actors
from core.media import spectrograms
from core.media.faces import alignment
from core.runs import Run


@dataclass(frozen=True)
class FaceExample:
    """One face of S4 and the voice that the run drew for it."""

    run: str
    emotion: str  # the face's own
    number: int  # of this emotion's examples, from 0
    of: int  # how many of this emotion there are
    name: str  # of the clip, where it is known
    face: (
        np.ndarray | None
    )  # (28, 28) uint8, what the networks see; None where the corpus is not on this machine
    picture: (
        np.ndarray | None
    )  # (H, W, 3) uint8, the frame that the face was cut from; drawn faces only
    real: (
        np.ndarray | None
    )  # (columns, bands) in [-1, 1], the same clip's own voice; None where faces and voices are not of one clip
    wave: np.ndarray | None  # (T,) float32, the clip's whole recording; drawn voices only
    y: np.ndarray  # (columns, bands) in [-1, 1], the generated voice
    softmax: np.ndarray  # (K,) f_S of the face
    p: np.ndarray  # (K,) its p-values, Eq. (9)
    c: np.ndarray  # (K,) what G was told
    heard: np.ndarray  # (K,) the scorer's softmax of y


def load_face_example(run: Run, emotion: str, number: int = 0) -> FaceExample:
    """The example `number` (counted round) of an emotion. Raises ValueError where the run has kept none of it."""
    config, kept, out, corpus = (
        run.config,
        run.arrays("generated"),
        run.arrays(),
        run.json("corpus"),
    )
    classes = config.data.classes
    if config.gan.direction != "face-voice":
        raise ValueError(f"{run.id} makes faces from voices; choose a run that makes voices")
    if not kept or not corpus or emotion not in classes:
        raise ValueError(
            f"{run.id} has kept no sample of {emotion!r}; let its training finish, or choose another run"
        )
    own = np.nonzero(kept["label"] == classes.index(emotion))[0]
    if not len(own):
        raise ValueError(f"{run.id} has kept no sample of {emotion!r}; choose another emotion")
    at = own[number % len(own)]
    row = int(kept["row"][at])
    name, face, picture, real, wave = "", None, None, None, None
    if _is_demo(config):
        name, face, picture, real, wave = _render_demo_row(
            config, corpus["voices"]["ref_db"], out, row
        )
    else:
        face, real = _load_prepared_row(config, corpus, row)
    y, c, heard = (kept[k][at].astype(np.float32) for k in ("y", "c", "o"))
    o, p = out["o_S4"][row], out["p_S4"][row]
    return FaceExample(
        run.id,
        emotion,
        number % len(own),
        len(own),
        name,
        face,
        picture,
        real,
        wave,
        y,
        o,
        p,
        c,
        heard,
    )


@dataclass(frozen=True)
class VoiceExample:
    """One voice of S4, for a run that makes faces (§4.5)."""

    emotion: str  # the voice's own
    number: int  # of this emotion's examples, from 0
    of: int  # how many of this emotion there are
    name: str  # of the clip, where it is known
    y: np.ndarray  # (columns, bands) in [-1, 1], what the networks hear
    wave: np.ndarray | None  # (T,) float32, the whole recording; drawn voices only
    face: (
        np.ndarray | None
    )  # (28, 28) uint8, the same clip's own face; None where faces and voices are not of one clip


def load_voice_example(run: Run, emotion: str, number: int = 0) -> VoiceExample:
    """The voice `number` (counted round) of an emotion, people by turns. Raises ValueError where the run or its corpus has none."""
    config, out, corpus = run.config, run.arrays(), run.json("corpus")
    if config.gan.direction != "voice-face":
        raise ValueError(f"{run.id} makes voices from faces; choose a run that makes faces")
    if "label_S4" not in out or not corpus or emotion not in config.data.classes:
        raise ValueError(
            f"{run.id} knows no voice of {emotion!r}; let its training finish, or choose another run"
        )
    own, subjects = (
        np.nonzero(out["label_S4"] == config.data.classes.index(emotion))[0],
        out["subject_S4"],
    )
    if not len(own):
        raise ValueError(
            f"{run.id} has no voice of {emotion!r} among those it has not met; choose another emotion"
        )
    turn = [np.count_nonzero(subjects[own[:i]] == subjects[row]) for i, row in enumerate(own)]
    row = int(own[np.argsort(turn, kind="stable")][number % len(own)])
    name, face, y, wave = "", None, None, None
    if _is_demo(config):
        name, face, _, y, wave = _render_demo_row(config, corpus["voices"]["ref_db"], out, row)
    elif S4 := _load_s4(config, corpus):
        y, face = S4.x[row], _to_uint8(S4.y[row]) if S4.paired else None
    if y is None:
        raise ValueError(
            f"the voices of {config.data.voices} are not on this machine as {run.id} met them; upload or record one"
        )
    return VoiceExample(emotion, number % len(own), len(own), name, y, wave, face)


def _to_uint8(face: np.ndarray) -> np.ndarray:
    """[-1, 1] -> 0..255."""
    return np.rint((face + 1) * 127.5).astype(np.uint8)


def _is_demo(config: Config) -> bool:
    """Whether faces and voices are of the invented corpus."""
    return config.data.faces == config.data.voices and prepared_corpora.is_demo(config.data.faces)


def _render_demo_row(config: Config, ref_db: float, out: dict[str, np.ndarray], row: int):
    """A row of S4 of the demo corpus, drawn again as `prepare` drew it: clip, face, frame, voice, recording; nothing where its takes are
    not known."""
    subject, label, s = out["subject_S4"][row], out["label_S4"][row], config.logmel
    same = np.nonzero((out["subject_S4"] == subject) & (out["label_S4"] == label))[0]
    if len(same) != config.data.demo_takes:
        return "", None, None, None, None
    actor, emotion, number = (
        int(subject.removeprefix("demo-")),
        config.data.classes[label],
        int(np.searchsorted(same, row)),
    )
    take = next(
        t
        for t in actors.list_takes(config.data.demo_takes)
        if (t.actor, t.emotion, t.number) == (actor, emotion, number)
    )
    wave = actors.synthesise_voice(take)
    picture, places = actors.render_face(take, t=spectrograms.centre_time(len(wave) / s.rate))
    db = spectrograms.centre_crop(
        spectrograms.centre_crop(spectrograms.log_mel(wave, s), prepared_corpora.STORED_COLUMNS), s.columns
    )
    return (
        take.clip_id,
        alignment.align(picture, places),
        picture,
        spectrograms.scale(db, ref_db, s),
        wave,
    )


def _load_prepared_row(
    config: Config, corpus: dict, row: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A row of S4's faces, and its own voice where a clip holds both, from the very corpora that the run was made of; None without them."""
    S4 = _load_s4(config, corpus)
    return (None, None) if S4 is None else (_to_uint8(S4.x[row]), S4.y[row] if S4.paired else None)


def _load_s4(config: Config, corpus: dict) -> splits.SampleSet | None:
    """S4 as the run met it; None where its corpora are not on this machine."""
    try:
        for role, name in (("faces", config.data.faces), ("voices", config.data.voices)):
            if prepared_corpora.load_corpus(name, config.data.demo_takes).digest != corpus[role]["digest"]:
                return None
        return splits.build_sets(config)["S4"]
    except CorpusError:
        return None
