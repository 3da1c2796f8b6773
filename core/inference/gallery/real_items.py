"""Faces of a set with real voices beside them, and the distance to the nearest training voice.

Faces of S4 and noise are those that FID was measured on (`evaluator.evaluate`): no cherry-picking.
A user may lack the corpus, or have it in another preparation or with more actors. Clips that match
the run's recorded sets are shown; mismatches are listed in `notes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.config.settings import Config
from core.conformal import prediction
from core.data import prepared_corpora, splits
from core.data.corpora import CorpusError
from core.data.splits import SampleSet
from core.evaluation import evaluator
from core.files import UserError
from core.media import spectrograms
from core.media.faces import alignment
from core.runs.directory import Run

# An eighth of the window: D sees voices shifted so far (`gan.augment_spectrograms`), so a copy of a
# training voice may be shifted so far too
MAX_SHIFT_COLUMNS = 14

SetName = Literal["S3", "S4"]
# Progress callback: (share done in 0..1, words for the user); it may raise to cancel the work
ProgressCallback = Callable[[float, str], None]


def no_progress(share: float, words: str) -> None:
    """Progress callback that does nothing."""


@dataclass(frozen=True)
class RealVoices:
    """Real voices of one set."""

    y: np.ndarray  # (m, columns, bands) in [-1, 1]
    label: np.ndarray  # (m,) emotion
    subject: np.ndarray  # (m,) speaker
    clip: np.ndarray  # (m,) name of the clip


KEPT_FILE = "real_voices"  # of a run: a few real voices of S4 that a shared copy brings along
NO_VOICES = RealVoices(
    np.zeros((0, 112, 28), np.float32), np.zeros(0, np.int64), np.zeros(0, str), np.zeros(0, str)
)


@dataclass(frozen=True)
class RealItems:
    """Faces of a set with real voices beside them; runs that differ in the condition share them."""

    name: SetName
    row: np.ndarray  # (n,) row among the set's faces
    label: np.ndarray  # (n,) emotion
    o: np.ndarray  # (n, K) softmax of f_S
    p: np.ndarray  # (n, K) p-values
    subject: np.ndarray  # (n,) person of the face; "" if unknown
    clip: np.ndarray  # (n,) name of the face in the corpus; "" without the corpus
    face: np.ndarray  # (n, 28, 28) uint8, or (0, 28, 28) without the corpus
    voices: RealVoices  # all real voices of the set; none without the corpus
    voice_row: np.ndarray  # (n,) row of `voices`, same clip or else same emotion; -1: none
    trained: RealVoices  # real voices of S3, the training set of G
    real_nearest_db: np.ndarray  # (q,) dB, sorted: real voices of S4 to the nearest of S3
    paired: bool  # a clip holds both face and voice
    missing: tuple[str, ...] = ()  # corpora that are not prepared on this machine
    notes: tuple[str, ...] = ()  # mismatches between the corpora here and the run's record

    def __len__(self) -> int:
        return len(self.row)

    @property
    def credibility(self) -> np.ndarray:
        return prediction.credibility(self.p)

    @property
    def confidence(self) -> np.ndarray:
        return prediction.confidence(self.p)

    @property
    def seen(self) -> np.ndarray:
        """(n,) first choice of f_S for each face."""
        return self.o.argmax(axis=1)

    # over the median of that distance among real voices; NaN: none here


def load_real_items(
    run: Run, name: SetName = "S4", report: ProgressCallback = no_progress
) -> RealItems:
    """Faces and real voices of S4 (or S3) of a finished run, as far as they are on this machine.

    Raises UserError if the run keeps no outputs, or for S3 without its faces, of which a run keeps
    no samples.
    """
    config, outputs = run.config, run.arrays()
    if config.gan.direction != "face-voice":
        raise UserError(f"{run.id} makes faces from voices; choose a run that makes voices")
    if f"p_{name}" not in outputs:
        raise UserError(
            f"{run.id} has no outputs.npz with p-values of {name}; let its training finish, "
            "or restore the run"
        )
    # Which faces and voices of this machine belong to the run
    report(0.0, "Reading faces and voices")
    sets, missing, notes = _build_sets(run, config)
    faces, voices = _matching_faces_and_voices(run, name, sets, missing, outputs, notes)
    rows, label = _rows_and_labels(run, name, faces, outputs)
    pixels = np.zeros((0, 28, 28), np.uint8)
    if faces is not None:
        pixels = alignment.to_uint8(faces.x[rows])
    # A real voice beside each face
    of_set, trained = voices.get(name, NO_VOICES), voices.get("S3", NO_VOICES)
    paired = config.data.pairing == "clip"
    if paired:
        beside = rows if len(of_set.y) else np.full(len(rows), -1)
    else:
        beside = _pair_by_emotion(label, of_set.label, evaluator.seed_of(config, "pairs"))
    # How near to S3 a voice may be without being a copy
    report(0.2, "Comparing real voices with each other")
    tested, typical = voices.get("S4", NO_VOICES).y, np.zeros(0)
    if len(tested) and len(trained.y):
        later = lambda share, words: report(0.2 + 0.8 * share, words)  # noqa: E731
        typical = np.sort(nearest_voices(tested, trained.y, config.logmel.range_db, later)[1])
    subject = outputs[f"subject_{name}"][rows]
    known = [not splits.UNKNOWN_SUBJECT.fullmatch(s) for s in subject.tolist()]
    return RealItems(
        name=name,
        row=rows,
        label=label,
        o=outputs[f"o_{name}"][rows],
        p=outputs[f"p_{name}"][rows],
        subject=np.where(np.array(known, bool), subject, ""),
        clip=_clip_names(config, "face", pixels) if len(pixels) else np.full(len(rows), ""),
        face=pixels,
        voices=of_set,
        voice_row=beside,
        trained=trained,
        real_nearest_db=typical,
        paired=paired,
        missing=missing,
        notes=tuple(notes),
    )


def load_real_voices(run: Run, name: SetName = "S4") -> RealVoices:
    """Real voices of a set, as far as they are on this machine, without comparing them."""
    sets, _, _ = _build_sets(run, run.config)
    found = _voices_by_set(run, sets, run.arrays(), []).get(name, NO_VOICES)
    return found if len(found.y) or name != "S4" else kept_voices(run)


def kept_voices(run: Run) -> RealVoices:
    """The real voices of S4 that a shared copy of a run brings along; none in most runs."""
    kept = run.arrays(KEPT_FILE)
    if not kept:
        return NO_VOICES
    kept["y"] = kept["y"].astype(np.float32)
    return RealVoices(**{k: kept[k] for k in ("y", "label", "subject", "clip")})


def few_voices(voices: RealVoices, most: int = 8) -> dict[str, np.ndarray]:
    """At most `most` voices of each emotion, of as many speakers as possible, for `KEPT_FILE`."""
    chosen: list[int] = []
    for k in np.unique(voices.label):
        own = np.nonzero(voices.label == k)[0]
        speaker = voices.subject[own]
        turn = [np.count_nonzero(speaker[:i] == s) for i, s in enumerate(speaker)]
        chosen += own[np.argsort(turn, kind="stable")[:most]].tolist()
    rows = np.sort(np.array(chosen, np.int64))
    y = voices.y[rows].astype(np.float16)
    kept = {"label": voices.label, "subject": voices.subject, "clip": voices.clip}
    return {"y": y, **{k: v[rows] for k, v in kept.items()}}


def _matching_faces_and_voices(
    run: Run,
    name: SetName,
    sets: dict[str, SampleSet] | None,
    missing: tuple[str, ...],
    outputs: dict[str, np.ndarray],
    notes: list[str],
) -> tuple[SampleSet | None, dict[str, RealVoices]]:
    """Faces of the set and voices of S3 and S4 that are the run's own; mismatches go to `notes`.

    A pair is shown whole or not at all.
    """
    d = run.config.data
    faces = sets.get(name) if sets and _has_same_faces(sets, outputs) else None
    voices = _voices_by_set(run, sets, outputs, notes)
    if d.pairing == "clip" and (faces is None or not voices):
        faces, voices = None, {}
    elif not voices and len(kept := kept_voices(run).y):
        notes.append(f"The real voices are {len(kept)} of {d.voices} that came with the run.")
        voices = {"S4": kept_voices(run)}
    lost = [d.faces] * bool(sets and faces is None)
    lost += [d.voices] * (not voices and d.voices not in missing and bool(sets or missing))
    notes += [
        f"{n} as prepared here falls into other sets than this run's: its real clips are left out."
        for n in dict.fromkeys(lost)
    ]
    return faces, voices


def _rows_and_labels(
    run: Run, name: SetName, faces: SampleSet | None, outputs: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows among the set's faces and their emotions: a balanced subsample, or the kept samples."""
    if faces is not None:
        seed = evaluator.seed_of(run.config, "balance")
        rows = splits.balanced_rows(faces.x_label, seed)
        return rows, faces.x_label[rows]
    stored = run.arrays("generated")
    if name != "S4" or not stored:
        raise UserError(
            f"{run.id}: {name}'s faces are not on this machine, and the run keeps no samples of "
            "them; prepare its corpora, or choose S4"
        )
    return stored["row"], outputs["label_S4"][stored["row"]]


def _build_sets(
    run: Run, config: Config
) -> tuple[dict[str, SampleSet] | None, tuple[str, ...], list[str]]:
    """S1-S4 from the corpora here (None if impossible), names of missing corpora, and notes."""
    d = config.data
    names = tuple(dict.fromkeys((d.faces, d.voices)))
    missing = tuple(n for n in names if not prepared_corpora.corpus_path(n, d.demo_takes).exists())
    if missing:
        return None, missing, []
    try:
        sets = splits.build_sets(config)
    except CorpusError as e:
        return None, (), [str(e)]
    known = {of["name"]: of["digest"] for of in run.json("corpus").values()}
    digests = {n: prepared_corpora.load_corpus(n, d.demo_takes).digest for n in names}
    anew = " and ".join(n for n in names if digests[n] != known.get(n))
    note = (
        f"{anew}, prepared on this machine, may differ in detail from the real clips that trained "
        "this run."
    )
    return sets, (), [note] if anew else []


def _has_same_faces(sets: dict[str, SampleSet], outputs: dict[str, np.ndarray]) -> bool:
    """Whether subjects and emotions here have the order of the run's saved softmax outputs."""
    return all(
        np.array_equal(sets[k].x_subject, outputs[f"subject_{k}"]) for k in ("S3", "S4")
    ) and np.array_equal(sets["S4"].x_label, outputs["label_S4"])


def _voices_by_set(
    run: Run, sets: dict[str, SampleSet] | None, outputs: dict, notes: list[str]
) -> dict[str, RealVoices]:
    """Real voices of S3 and S4; {} if they are not here.

    Where only the faces' corpus is missing, voices are found by the names of their speakers.
    """
    d, level = run.config.data, run.json("corpus")["voices"]["ref_db"]
    if sets:
        known = "subject_S4" if d.pairing == "clip" else "subject_voice_S4"
        if np.array_equal(sets["S4"].y_subject, outputs.get(known, [])):
            here = prepared_corpora.load_corpus(d.voices, d.demo_takes).meta["ref_db"]
            if abs(here - level) < 0.5:
                return {
                    k: RealVoices(
                        s.y, s.y_label, s.y_subject, _clip_names(run.config, "voice", s.y)
                    )
                    for k, s in sets.items()
                    if k in ("S3", "S4")
                }
    if d.pairing == "emotion" and prepared_corpora.corpus_path(d.voices, d.demo_takes).exists():
        try:
            return _voices_of_subjects(run, level)
        except CorpusError as e:
            notes.append(str(e))
    return {}


def _clip_names(config: Config, role: Literal["face", "voice"], images: np.ndarray) -> np.ndarray:
    """(n,) names of the clips that hold these images, found by content; "" where there is none.

    Faces are (n, 28, 28) uint8, voices (n, columns, bands).
    """
    d, s = config.data, config.logmel
    corpus = prepared_corpora.load_corpus(d.faces if role == "face" else d.voices, d.demo_takes)
    if role == "face":
        bank, row = corpus.faces, corpus.face_of
    else:
        crops = _centre_columns(corpus.voices, s.columns)
        bank, row = spectrograms.scale(crops, corpus.meta["ref_db"], s), corpus.voice_of
    names = {bank[row[i]].tobytes(): str(corpus.clip[i]) for i in np.nonzero(row >= 0)[0][::-1]}
    return np.array([names.get(image.tobytes(), "") for image in images])


def _centre_columns(db: np.ndarray, columns: int) -> np.ndarray:
    """The middle `columns` of stored spectrograms (n, STORED_COLUMNS, bands)."""
    start = (prepared_corpora.STORED_COLUMNS - columns) // 2
    return db[:, start : start + columns]


def _voices_of_subjects(run: Run, ref_db: float) -> dict[str, RealVoices]:
    """Voices of the speakers that the run's record names for S3 and S4; {} if clips are missing.

    The corpus may hold more speakers than the run's.
    """
    d, s, table = run.config.data, run.config.logmel, run.json("sets")
    corpus, out = prepared_corpora.load_corpus(d.voices, d.demo_takes), {}
    for name in ("S3", "S4"):
        of = table.get(name, {}).get("voices", {"clips": 0, "subjects": {}})
        usable = (corpus.voice_of >= 0) & np.isin(corpus.emotion, d.classes)
        rows = np.nonzero(usable & np.isin(corpus.subject, list(of["subjects"])))[0]
        if not len(rows) or len(rows) != of["clips"]:
            return {}
        crops = _centre_columns(corpus.voices[corpus.voice_of[rows]], s.columns)
        label = np.array([d.classes.index(e) for e in corpus.emotion[rows].tolist()], np.int64)
        y = spectrograms.scale(crops, ref_db, s)
        out[name] = RealVoices(y, label, corpus.subject[rows], corpus.clip[rows])
    return out


def _pair_by_emotion(label: np.ndarray, voices: np.ndarray, seed: int) -> np.ndarray:
    """For each face (n,) a voice (m,) of its emotion, each voice about equally often.

    Returns rows of the voices (n,), -1 where there is none.
    """
    rng, out = np.random.default_rng(seed), np.full(len(label), -1)
    for k in np.unique(label):
        pool, rows = np.nonzero(voices == k)[0], np.nonzero(label == k)[0]
        if len(pool):
            out[rows] = np.resize(rng.permutation(pool), len(rows))
    return out


def nearest_voices(
    y: np.ndarray, bank: np.ndarray, range_db: float, report: ProgressCallback = no_progress
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n,) of the most similar spectrograms of `bank`, and the distances (n,) in dB.

    y is (n, columns, bands) and the bank (m, columns, bands), both in [-1, 1]. The distance is the
    root mean square difference over all cells, minimised over circular shifts in time by up to an
    eighth, so that a delayed copy is still a copy. 0 dB: identical. Raises ValueError without a
    bank.
    """
    if not len(bank):
        raise ValueError("there is no voice to compare with")
    a, most = y.reshape(len(y), -1).astype(np.float32), min(MAX_SHIFT_COLUMNS, y.shape[1] // 8)
    square = (a * a).sum(axis=1)[:, None] + (bank.astype(np.float32) ** 2).sum(axis=(1, 2))
    best, row = np.full(len(y), np.inf, np.float32), np.zeros(len(y), np.int64)
    for k in range(-most, most + 1):
        report((k + most) / (2 * most + 1), "Looking for copies among the training voices")
        shifted = np.roll(bank, k, axis=1).reshape(len(bank), -1).astype(np.float32)
        squared_distance = square - 2 * a @ shifted.T
        i = squared_distance.argmin(axis=1)
        least = squared_distance[np.arange(len(y)), i]
        row, best = np.where(least < best, i, row), np.minimum(least, best)
    return row, np.sqrt(np.maximum(best, 0) / a.shape[1]).astype(np.float64) * range_db / 2
