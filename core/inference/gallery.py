"""Generated and real voices of the same faces, side by side: which clips, what a run made of them, who hears what, and is it a copy?

The faces of S4 and the noise are those that FID was measured on (`evaluation.evaluate`): nothing is picked for its looks. A user may
have no corpus, another preparation of it, or one with more actors: what fits the run's own record of its sets is shown, the rest said.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from scipy.spatial.distance import cdist

from core import files
from core.config import Config
from core.conformal import prediction
from core.data import splits
from core.data.corpora import CorpusError
from core.data.splits import SampleSet
from core.evaluation import evaluator
from core.inference.generation import LoadedRun
from core.media import spectrograms
from core.models import classifiers, gan, networks
from core.runs import Run

CACHE_VERSION = 1  # of what is kept in `checkpoints/.cache/`; raised whenever the same run would give other arrays
MAX_SHIFT_COLUMNS = 14  # columns, an eighth of the window: D sees voices moved so far (`gan.augmented`), so a copy may be moved so far too

SetName = Literal["S3", "S4"]
ProgressCallback = Callable[
    [float, str], None
]  # (share done in 0..1, what is being done); whoever gives it may raise, and the work ends


def no_progress(share: float, words: str) -> None:
    """A report to nobody."""


@dataclass(frozen=True)
class RealVoices:
    """Real voices of one set."""

    y: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 112, 28), np.float32)
    )  # (m, columns, bands) in [-1, 1]
    label: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (m,)
    subject: np.ndarray = field(default_factory=lambda: np.zeros(0, str))  # (m,)
    clip: np.ndarray = field(default_factory=lambda: np.zeros(0, str))  # (m,)


@dataclass(frozen=True)
class RealItems:
    """Some faces of a set with the real voices beside them: what runs that differ in the condition alone share."""

    name: SetName
    row: np.ndarray  # (n,) among the set's faces
    label: np.ndarray  # (n,) emotion
    o: np.ndarray  # (n, K) softmax of f_S
    p: np.ndarray  # (n, K) p-values
    subject: np.ndarray  # (n,) whose face; "" unknown
    clip: np.ndarray  # (n,) its name in the corpus; "" where the faces are not here
    face: np.ndarray  # (n, 28, 28) uint8, or (0, 28, 28) where they are not here
    voices: RealVoices  # the set's real voices, all of them; empty where they are not here
    voice_row: np.ndarray  # (n,) row of `voices`: the same clip, or with class pairs one of the same emotion; -1 where there is none
    trained: RealVoices  # S3's real voices, which G learnt from
    real_nearest_db: (
        np.ndarray
    )  # (q,) dB, sorted: from each real voice of S4 to the nearest of S3's, whom other people speak
    paired: bool  # a clip holds both face and voice
    missing: tuple[str, ...] = ()  # corpora that are not prepared here
    notes: tuple[str, ...] = ()  # what a looker must know of how they fit

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
        """(n,) the emotion that f_S sees in each face."""
        return self.o.argmax(axis=1)


@dataclass(frozen=True)
class GeneratedVoices:
    """What one run's generator made of those faces, and who hears what in it."""

    condition: str
    c: np.ndarray  # (n, K) what G was told, or (n, 0)
    y: np.ndarray  # (n, columns, bands) float16 in [-1, 1]
    Q: np.ndarray  # (n, K) Q's softmax
    scorer: np.ndarray  # (n, K) the scorer's
    near: (
        np.ndarray
    )  # (n,) row of `Real.trained`: the most similar training voice; -1 where they are not here
    near_db: np.ndarray  # (n,) dB to it; NaN where they are not here
    far: np.ndarray  # (n,) to the nearest real voice of the set in FID's features, over the median of that among real voices; or NaN


# ------------------------------------------------------------------ the real side


def load_real_items(
    run: Run, name: SetName = "S4", report: ProgressCallback = no_progress
) -> RealItems:
    """The faces and real voices of S4 (or S3) that belong to a finished run, as far as they are on this machine.

    Raises ValueError where the run keeps no outputs, or where S3 is asked for without its faces, of which a run keeps no samples.
    """
    config, outputs = run.config, run.arrays()
    if config.gan.direction != "face-voice":
        raise ValueError(
            f"{run.id} makes faces from voices; this shows voices that were made from faces"
        )
    if f"p_{name}" not in outputs:
        raise ValueError(
            f"{run.id} has no outputs.npz with p-values of {name}; let its training finish, or restore the run"
        )
    report(0.0, "Reading faces and voices")
    sets, missing, notes = _build_sets(run, config)
    faces = sets.get(name) if sets and _has_same_faces(sets, outputs) else None
    voices = _voices_by_set(run, config, sets, outputs, notes)
    paired = config.data.pairing == "clip"
    if paired and (faces is None or not voices):
        faces, voices = None, {}  # of a pair both are shown, or none
    lost = [config.data.faces] * bool(sets and faces is None)
    lost += [config.data.voices] * (
        not voices and config.data.voices not in missing and bool(sets or missing)
    )
    notes += [
        f"{n} as prepared here falls into other sets than this run's: its real clips are left out."
        for n in dict.fromkeys(lost)
    ]
    if faces is not None:
        label, rows = (
            faces.x_label,
            splits.balanced_rows(faces.x_label, evaluator.seed_of(config, "balance")),
        )
    else:
        stored = run.arrays("generated")
        if name != "S4" or not stored:
            raise ValueError(
                f"{run.id}: {name}'s faces are not on this machine, and the run keeps no samples of them"
            )
        label, rows = outputs["label_S4"], stored["row"]
    pixels = (
        np.rint((faces.x[rows] + 1) * 127.5).astype(np.uint8)
        if faces is not None
        else np.zeros((0, 28, 28), np.uint8)
    )
    subject = outputs[f"subject_{name}"][rows]
    known = ~np.array([bool(splits.UNKNOWN_SUBJECT.fullmatch(s)) for s in subject.tolist()], bool)
    of_set, trained = voices.get(name, RealVoices()), voices.get("S3", RealVoices())
    if not paired:
        beside = _pair_by_emotion(label[rows], of_set.label, evaluator.seed_of(config, "pairs"))
    else:
        beside = rows if len(of_set.y) else np.full(len(rows), -1)
    report(0.2, "Comparing real voices with each other")
    tested = voices.get("S4", RealVoices()).y
    typical = np.zeros(0)
    if len(tested):
        typical = np.sort(
            nearest_voices(
                tested, trained.y, config.logmel.range_db, lambda s, w: report(0.2 + 0.8 * s, w)
            )[1]
        )
    return RealItems(
        name=name,
        row=rows,
        label=label[rows],
        o=outputs[f"o_{name}"][rows],
        p=outputs[f"p_{name}"][rows],
        subject=np.where(known, subject, ""),
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
    """A set's real voices, as far as they are on this machine, without a comparison of any."""
    config, notes = run.config, list[str]()
    sets, _, _ = _build_sets(run, config)
    return _voices_by_set(run, config, sets, run.arrays(), notes).get(name, RealVoices())


def _build_sets(
    run: Run, config: Config
) -> tuple[dict[str, SampleSet] | None, tuple[str, ...], list[str]]:
    """S1-S4 from the corpora here (None where that cannot be), names of corpora that are not here, and notes."""
    d = config.data
    names = tuple(dict.fromkeys((d.faces, d.voices)))
    missing = tuple(n for n in names if not splits.corpus_path(n, d.demo_takes).exists())
    if missing:
        return None, missing, []
    try:
        sets = splits.build_sets(config)
    except CorpusError as e:
        return None, (), [str(e)]
    known = {of["name"]: of["digest"] for of in run.json("corpus").values()}
    anew = [n for n in names if splits.load_corpus(n, d.demo_takes).digest != known.get(n)]
    words = f"{' and '.join(anew)}, prepared on this machine, may differ in detail from the real clips that trained this run."
    return sets, (), [words] if anew else []


def _has_same_faces(sets: dict[str, SampleSet], outputs: dict[str, np.ndarray]) -> bool:
    """Whether the faces here are those whose softmax the run keeps: the same subjects and emotions in the same order."""
    return all(
        np.array_equal(sets[k].x_subject, outputs[f"subject_{k}"]) for k in ("S3", "S4")
    ) and np.array_equal(sets["S4"].x_label, outputs["label_S4"])


def _voices_by_set(
    run: Run, config: Config, sets: dict[str, SampleSet] | None, outputs: dict, notes: list[str]
) -> dict[str, RealVoices]:
    """Real voices of S3 and S4, {} where they are not here. Faces of another corpus may lack: voices are told by their subjects' names."""
    level = run.json("corpus")["voices"]["ref_db"]
    if sets:
        known = ("subject_voice_S4", "subject_S4")[config.data.pairing == "clip"]
        if np.array_equal(sets["S4"].y_subject, outputs.get(known, [])):
            here = splits.load_corpus(config.data.voices, config.data.demo_takes).meta["ref_db"]
            if abs(here - level) < 0.5:
                return {
                    k: RealVoices(s.y, s.y_label, s.y_subject, _clip_names(config, "voice", s.y))
                    for k, s in sets.items()
                    if k in ("S3", "S4")
                }
    if (
        config.data.pairing == "emotion"
        and splits.corpus_path(config.data.voices, config.data.demo_takes).exists()
    ):
        try:
            if found := _voices_of_subjects(run, config, level):
                return found
        except CorpusError as e:
            notes.append(str(e))
            return {}
    return {}


def _clip_names(config: Config, role: Literal["face", "voice"], images: np.ndarray) -> np.ndarray:
    """(n,) names of the clips that hold these faces (n, 28, 28) uint8 or voices (n, columns, bands), told by their content."""
    d, s = config.data, config.logmel
    corpus = splits.load_corpus(d.faces if role == "face" else d.voices, d.demo_takes)
    start, row = (
        (splits.STORED_COLUMNS - s.columns) // 2,
        corpus.face_of if role == "face" else corpus.voice_of,
    )
    bank = (
        corpus.faces
        if role == "face"
        else spectrograms.scale(
            corpus.voices[:, start : start + s.columns], corpus.meta["ref_db"], s
        )
    )
    names = {bank[row[i]].tobytes(): str(corpus.clip[i]) for i in np.nonzero(row >= 0)[0][::-1]}
    return np.array([names.get(image.tobytes(), "") for image in images])


def _voices_of_subjects(run: Run, config: Config, ref_db: float) -> dict[str, RealVoices]:
    """Voices of the people whom the run's own record names for each set, from a corpus that may hold more; {} where clips lack."""
    d, s, table = config.data, config.logmel, run.json("sets")
    corpus = splits.load_corpus(d.voices, d.demo_takes)
    start, out = (splits.STORED_COLUMNS - s.columns) // 2, {}
    for name in ("S3", "S4"):
        of = table.get(name, {}).get("voices", {"clips": 0, "subjects": {}})
        usable = (corpus.voice_of >= 0) & np.isin(corpus.emotion, d.classes)
        rows = np.nonzero(usable & np.isin(corpus.subject, list(of["subjects"])))[0]
        if not len(rows) or len(rows) != of["clips"]:
            return {}
        y = spectrograms.scale(
            corpus.voices[corpus.voice_of[rows], start : start + s.columns], ref_db, s
        )
        label = np.array([d.classes.index(e) for e in corpus.emotion[rows].tolist()], np.int64)
        out[name] = RealVoices(y, label, corpus.subject[rows], corpus.clip[rows])
    return out


def _pair_by_emotion(label: np.ndarray, voices: np.ndarray, seed: int) -> np.ndarray:
    """For each face a real voice of its emotion, each voice about equally often: (n,), (m,) -> (n,) rows of the voices, -1 for none."""
    rng, out = np.random.default_rng(seed), np.full(len(label), -1)
    for k in np.unique(label):
        pool, rows = np.nonzero(voices == k)[0], np.nonzero(label == k)[0]
        if len(pool):
            out[rows] = np.resize(rng.permutation(pool), len(rows))
    return out


# ------------------------------------------------------------------ the generated side


def nearest_voices(
    y: np.ndarray, bank: np.ndarray, range_db: float, report: ProgressCallback = no_progress
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar of `bank` (m, columns, bands) for each of y (n, columns, bands), all in [-1, 1]: rows (n,) and distances (n,) in dB.

    Distance: root mean square difference over all cells, the smallest over shifts around the circle of time by up to an eighth, so that
    a copy that came late is still a copy. 0 dB: the same picture. Raises ValueError where there is no bank.
    """
    if not len(bank):
        raise ValueError("there is no voice to compare with")
    a, most = y.reshape(len(y), -1).astype(np.float32), min(MAX_SHIFT_COLUMNS, y.shape[1] // 8)
    square = (a * a).sum(axis=1)[:, None] + (bank.astype(np.float32) ** 2).sum(axis=(1, 2))
    best, row = np.full(len(y), np.inf, np.float32), np.zeros(len(y), np.int64)
    for k in range(-most, most + 1):
        report((k + most) / (2 * most + 1), "Looking for copies among the training voices")
        apart = (
            square - 2 * a @ np.roll(bank, k, axis=1).reshape(len(bank), -1).astype(np.float32).T
        )
        i = apart.argmin(axis=1)
        least = apart[np.arange(len(y)), i]
        row, best = np.where(least < best, i, row), np.minimum(least, best)
    return row, np.sqrt(np.maximum(best, 0) / a.shape[1]).astype(np.float64) * range_db / 2


def load_generated_voices(
    opened: LoadedRun, r: RealItems, report: ProgressCallback = no_progress
) -> GeneratedVoices:
    """G's voices for the faces of `r`, as `evaluation.evaluate` draws them; without faces, the samples that come with the run.

    Computed once: kept in `checkpoints/.cache/` under what decides it, where that can be written. Raises ValueError where samples lack.
    """
    path, key = _cache_path(opened.run, r), _cache_key(opened, r)
    try:
        stored = files.read_arrays(path)
        if str(stored.pop("key", "")) == key:
            return GeneratedVoices(opened.config.gan.condition, **stored)
    except Exception:  # not there, or damaged: zip, zlib and NumPy's header raise what they like
        pass
    found = _compute_generated_voices(opened, r, report)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_arrays(
            path, key=np.array(key), **{k: v for k, v in vars(found).items() if k != "condition"}
        )
    except OSError:
        pass  # a folder that is only read: the next visit computes again
    return found


def _cache_path(run: Run, r: RealItems) -> Path:
    return run.directory.parent / ".cache" / "gallery" / f"{run.id}-{r.name}.npz"


def _cache_key(opened: LoadedRun, r: RealItems) -> str:
    """Digest of all that decides what is kept."""
    found = hashlib.sha256(
        f"{CACHE_VERSION} {opened.run.id} {r.name} {evaluator.seed_of(opened.config, 'samples')}".encode()
    )
    for name in ("G", "Q", "scorer"):
        found.update(opened.run.model_path(name).read_bytes())
    for a in (r.row, r.face, r.o, r.p, r.label, r.trained.y, r.voices.y):
        found.update(np.ascontiguousarray(a).tobytes())
    return found.hexdigest()[:16]


@torch.no_grad()
def _compute_generated_voices(
    opened: LoadedRun, r: RealItems, report: ProgressCallback
) -> GeneratedVoices:
    g, K = opened.config.gan, len(opened.classes)
    if len(r.face):
        c = gan.condition(
            g.condition, r.label if g.condition == "label" else None, r.o, r.p, K, g.soft
        )
        y = _sample_voices(opened, r, c, lambda s, w: report(0.3 * s, w))
    else:
        stored = opened.run.arrays("generated")
        at = {int(row): i for i, row in enumerate(stored.get("row", []))}
        if set(r.row.tolist()) - set(at):
            raise ValueError(
                f"{opened.run.id}: generated.npz lacks samples that its sibling runs have; restore the run"
            )
        pick = [at[row] for row in r.row.tolist()]
        c, y = stored["c"][pick], stored["y"][pick]
    report(0.3, "Asking Q and the scorer")
    Q, S = (cast(networks.Classifier, network) for network in (opened.Q, opened.scorer))
    images = torch.from_numpy(y.astype(np.float32))[:, None]
    scorer, features = classifiers.outputs(S, images)
    near, near_db, far = np.full(len(r), -1), np.full(len(r), np.nan), np.full(len(r), np.nan)
    if len(r.trained.y):
        bounds = opened.config.logmel.range_db
        near, near_db = nearest_voices(
            y.astype(np.float32), r.trained.y, bounds, lambda s, w: report(0.4 + 0.6 * s, w)
        )
    if len(r.voices.y) > 1:
        own = classifiers.outputs(S, torch.from_numpy(r.voices.y)[:, None])[1]
        among = np.sort(cdist(own, own), axis=1)[:, 1]
        far = cdist(features, own).min(axis=1) / max(float(np.median(among)), 1e-9)
    heard = classifiers.softmax(Q, images)
    return GeneratedVoices(
        g.condition, c, y, heard.astype(np.float32), scorer.astype(np.float32), near, near_db, far
    )


def _sample_voices(
    opened: LoadedRun, r: RealItems, c: np.ndarray, report: ProgressCallback
) -> np.ndarray:
    """(n, columns, bands) float16: `gan.sample` on a copy of G, which says after each batch how far it is."""
    G, done = copy.deepcopy(opened.G), 0

    def tell(_, given, __) -> None:
        nonlocal done
        done += len(given[0])
        report(
            done / len(r),
            f"Drawing voices, condition {opened.config.gan.condition}: {done} of {len(r)}",
        )

    G.register_forward_hook(tell)
    x = torch.from_numpy(r.face.astype(np.float32) / 127.5 - 1)[:, None]
    told, seed = torch.from_numpy(c.astype(np.float32)), evaluator.seed_of(opened.config, "samples")
    return (
        gan.sample(G, x, told, opened.config.gan.z, seed, batch=32)[:, 0].numpy().astype(np.float16)
    )
