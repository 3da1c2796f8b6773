"""§4.1: clips -> arrays on disk; balance; the subject-disjoint sets S1-S4; pairing by clip or by emotion. No torch.

A prepared corpus is one npz without pickle, `data/processed/<name>.npz`. Faces are uint8 (28, 28); voices are float32 dB of the
middle 112 columns, so that every length, range and reference can be taken from the same file. Mel bands cannot: the same clips in more
bands than the paper's are a corpus of its own, whose name says so (`ravdess-64`).
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from core import files
from core.config import BAND_COUNTS, Config, DataSettings, LogMel
from core.data import labels
from core.data.corpora import CorpusError
from core.media import spectrograms

STORED_COLUMNS = 112  # stored; smaller spectrograms are its middle
SET_NAMES = ("S1", "S2", "S3", "S4")
LUNA_JIMENEZ_2021_TEST_ACTORS = (
    (2, 5, 14, 15, 16),
    (3, 6, 7, 13, 18),
    (10, 11, 12, 19, 20),
    (8, 17, 21, 23, 24),
    (1, 4, 9, 22),
)  # actors tested
UNKNOWN_SUBJECT = re.compile(
    r"image-\d{5}|clip: .*"
)  # what stands for a subject where none is known: near duplicates, or one clip


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus as arrays, one row per clip; `face_of` and `voice_of` are rows of `faces` and `voices`, -1 where a clip has none."""

    name: str
    clip: np.ndarray  # (N,) str
    subject: np.ndarray  # (N,) str
    sex: np.ndarray  # (N,) str
    emotion: np.ndarray  # (N,) str
    face_of: np.ndarray  # (N,) int64
    voice_of: np.ndarray  # (N,) int64
    faces: np.ndarray  # (n_x, 28, 28) uint8
    voices: np.ndarray  # (n_y, 112, bands) float32 dB
    meta: dict  # ref_db, level, key, licence, source, left_out, frames, crops, repeated
    votes: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 3), "<U1")
    )  # (N, 3) str of labels.VOTED; (0, 3): nobody voted
    faces_more: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 0, 28, 28), np.uint8)
    )  # (n_x, frames - 1, 28, 28): further frames
    voices_more: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 0, STORED_COLUMNS, 28), np.float32)
    )  # (n_y, crops - 1, 112, bands) dB

    @property
    def digest(self) -> str:
        return self.meta["digest"]

    @property
    def bands(self) -> int:
        """Mel bands of its voices."""
        return self.voices.shape[2]


@dataclass(frozen=True)
class SampleSet:
    """One of S1-S4. With `paired` row i of x and of y is the same clip; otherwise they are split separately and meet by emotion.

    x is the source and y the target: faces and voices, or with `source` "voice" the other way round.
    """

    x: np.ndarray  # (n_x, 28, 28) float32 in [-1, 1]
    x_label: np.ndarray  # (n_x,) int64
    x_subject: np.ndarray  # (n_x,) str
    y: np.ndarray  # (n_y, columns, bands) float32 in [-1, 1]
    y_label: np.ndarray  # (n_y,) int64
    y_subject: np.ndarray  # (n_y,) str
    paired: bool
    classes: tuple[str, ...] = ()  # what the labels number
    source: Literal["face", "voice"] = "face"
    more: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 0, 28, 28), np.float32)
    )  # (n faces, frames - 1, 28, 28): further frames

    @property
    def reverse(self) -> SampleSet:
        """The same set with source and target changed for each other (§4.5's voice → face)."""
        source: Literal["face", "voice"] = "voice" if self.source == "face" else "face"
        given, made = (self.y, self.y_label, self.y_subject), (self.x, self.x_label, self.x_subject)
        return SampleSet(*given, *made, self.paired, self.classes, source, self.more)


# ------------------------------------------------------------------ the file of a corpus


def processed_folder() -> Path:
    """Where prepared corpora live: `data/processed/` of the project, or the folder that DACSSGAN_DATA names."""
    return files.data_folder() / "processed"


def parse_name(name: str) -> tuple[str, int]:
    """A prepared corpus' name -> whose clips it holds, and in how many mel bands: "ravdess-64" -> ("ravdess", 64); "ravdess" has 28."""
    of, _, bands = name.rpartition("-")
    return (of, int(bands)) if of and bands in map(str, BAND_COUNTS[1:]) else (name, BAND_COUNTS[0])


def name_with_bands(clips: str, bands: int) -> str:
    """Inverse of `parse_name`."""
    return clips if bands == BAND_COUNTS[0] else f"{clips}-{bands}"


def is_demo(name: str) -> bool:
    """Whether a corpus is the invented one, in whatever bands: it needs no source."""
    return parse_name(name)[0] == "demo"


def demo_corpora(data: DataSettings) -> list[str]:
    """The invented corpora among a run's faces and voices."""
    return [n for n in dict.fromkeys((data.faces, data.voices)) if is_demo(n)]


def corpus_path(name: str, takes: int = 10) -> Path:
    """File of a prepared corpus; the demo corpus has one per number of takes."""
    clips, bands = parse_name(name)
    return (
        processed_folder()
        / f"{name_with_bands(f'demo-{takes}', bands) if clips == 'demo' else name}.npz"
    )


def parse_stem(stem: str) -> tuple[str, int]:
    """Inverse of `corpus_path`: a file's name without its ending -> the corpus' name, and its takes, 0 where it is not drawn."""
    found = re.fullmatch(r"demo-(\d+)((?:-\d+)?)", stem)
    return (f"demo{found[2]}", int(found[1])) if found else (stem, 0)


def prepare_command(name: str, takes: int = 0) -> str:
    """What makes a prepared corpus."""
    clips, bands = parse_name(name)
    of = f"demo --takes {takes or 10}" if clips == "demo" else f"{clips} --source FOLDER_OR_ZIP"
    return f"python -m core data prepare {of}" + f" --bands {bands}" * (bands != BAND_COUNTS[0])


def load_corpus_file(path: Path) -> PreparedCorpus:
    """A prepared corpus; raises CorpusError with the command that makes it."""
    if not path.exists():
        raise CorpusError(
            f"{path} is not there; make it with: {prepare_command(*parse_stem(path.stem))}"
        )
    try:
        arrays = files.read_arrays(path)
        meta = json.loads(str(arrays.pop("meta")))
        arrays.setdefault(
            "votes", np.full((len(arrays["clip"]), 3), "")
        )  # files of earlier versions have none
        return PreparedCorpus(name=meta["name"], meta=meta, **arrays)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        SyntaxError,
        zipfile.BadZipFile,
        zlib.error,
    ) as e:
        raise CorpusError(f"{path} is damaged ({e}); remove it and prepare the corpus again") from e


def load_corpus(name: str, takes: int = 10) -> PreparedCorpus:
    """`load_corpus_file` by the corpus' name."""
    return load_corpus_file(corpus_path(name, takes))


# ------------------------------------------------------------------ from arrays to S1..S4


def corpus_digest(data: DataSettings) -> str:
    """Digest of the prepared arrays a run stands on; part of its id."""
    return "+".join(
        dict.fromkeys(
            load_corpus(n, data.demo_takes).digest
            for n in (data.faces, data.voices, data.f_s_corpus)
            if n
        )
    )


def describe_corpora(data: DataSettings) -> dict:
    """What a run must know of its corpora when they are not at hand: dB reference, level, licence, source, counts."""
    out = {}
    for role, name in (("faces", data.faces), ("voices", data.voices), ("f_S", data.f_s_corpus)):
        if not name:
            continue
        corpus = load_corpus(name, data.demo_takes)
        out[role] = {k: v for k, v in corpus.meta.items() if k not in ("left_out", "key")} | {
            "clips": len(corpus.clip)
        }
    return out


def is_same_corpus(now: Mapping, then: Mapping) -> bool:
    """Whether a corpus that is described by `now` may be the one of `then`, as `describe_corpora` has them: the same digest, or as many clips on
    the same dB reference. A digest is of exact bits, and the last ones differ between processors."""
    return now["digest"] == then.get("digest") or all(
        abs(now[k] - then.get(k, np.nan)) < 1e-3 for k in ("clips", "ref_db")
    )


def by_subject(
    subject: np.ndarray,
    sex: np.ndarray,
    sets: tuple[float, ...],
    seed: int,
    fold: int,
    tested: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """Subject-disjoint S1-S4: name -> rows. (N,), (N,) -> index arrays that part 0..N-1.

    Subjects are shuffled within each sex by `seed` and interleaved, so that every stretch of the order is balanced by sex; S4 is the
    fold's stretch, so that over the folds each subject is tested once; the others fill S1, S2, S3 by their shares. Where S4 is given as
    the names `tested`, all others are so ordered and fill S1, S2, S3.
    """
    rng = np.random.default_rng(seed)
    names, first = np.unique(subject, return_index=True)
    names, first = (part[~np.isin(names, tested)] for part in (names, first))
    sexes = sex[first]
    places, members = [np.zeros(0)], [names[:0]]
    for s in np.unique(sexes):
        of_sex = rng.permutation(names[sexes == s])
        places.append((np.arange(len(of_sex)) + 0.5) / len(of_sex))
        members.append(of_sex)
    order = np.concatenate(members)[np.argsort(np.concatenate(places), kind="stable")]
    n, share = len(order), sets[3]
    folds = max(1, round(1 / share)) if share > 0 else 1
    a, b = (0, 0) if tested else (round((fold % folds + k) * n * share) for k in (0, 1))
    rest = np.concatenate([order[b:], order[:a]])
    cuts = [round(c) for c in np.cumsum(sets[:3]) / sum(sets[:3]) * len(rest)]
    groups = {
        "S1": rest[: cuts[0]],
        "S2": rest[cuts[0] : cuts[1]],
        "S3": rest[cuts[1] :],
        "S4": tested or order[a:b],
    }
    return {k: np.nonzero(np.isin(subject, v))[0] for k, v in groups.items()}


def _published_test_subjects(
    d: DataSettings, corpus: PreparedCorpus, subject: np.ndarray
) -> tuple[str, ...]:
    """S4's subjects where a published list names them, else (). Raises CorpusError where the list does not fit the corpora.

    The subject-wise folds of RAVDESS' 24 actors are those of Luna-Jimenez et al. 2021 (Sensors 21, 7665).
    """
    if d.subjects == "seeded":
        return ()
    if parse_name(d.voices)[0] != "ravdess":
        raise CorpusError(
            f"subjects {d.subjects!r} are RAVDESS' actors and the voices are {d.voices}'s; use subjects 'seeded'"
        )
    if d.fold not in range(len(LUNA_JIMENEZ_2021_TEST_ACTORS)):
        raise CorpusError(
            f"{d.subjects} has the folds 0 to {len(LUNA_JIMENEZ_2021_TEST_ACTORS) - 1}, and none is {d.fold}"
        )
    if parse_name(corpus.name)[0] != "ravdess":
        return ()  # faces of another corpus have subjects of their own
    actors = tuple(f"ravdess-{a:02d}" for a in LUNA_JIMENEZ_2021_TEST_ACTORS[d.fold])
    if lacking := sorted(set(actors) - set(subject)):
        raise CorpusError(
            f"fold {d.fold} of {d.subjects} tests {', '.join(actors)}, and ravdess as prepared has no usable clip of {', '.join(lacking)}; "
            "prepare all 24 actors, or use subjects 'seeded'"
        )
    return actors


def _label_names(d: DataSettings, found: tuple[PreparedCorpus, ...]) -> list[np.ndarray]:
    """(N,) label names of each corpus as `d.labels` and `d.ties` say, "" where a clip has none; what nobody rated keeps what was meant."""
    rated = [bool((c.votes != "").any()) for c in found]
    if d.labels != "intended" and not any(rated):
        raise CorpusError(
            f"labels {d.labels!r} are raters' votes and {' and '.join(dict.fromkeys(c.name for c in found))} has none; use labels "
            "'intended', or for CREMA-D put its summaryTable.csv into the corpus' folder and prepare it again"
        )
    return [
        labels.choose_labels(c.emotion, c.votes, d.labels if r else "intended", d.ties)
        for c, r in zip(found, rated, strict=True)
    ]


def _subjects_or_clips(c: PreparedCorpus) -> np.ndarray:
    """(N,) subjects; a clip of nobody in particular stands for itself, as UNKNOWN says."""
    nobody = c.subject == ""
    return np.where(nobody, np.char.add("clip: ", c.clip), c.subject) if nobody.any() else c.subject


def _split_rows(
    d: DataSettings,
    found: tuple[PreparedCorpus, ...],
    subjects: tuple[np.ndarray, ...],
    rows: list[np.ndarray],
) -> list[dict[str, np.ndarray]]:
    """Rows of S1..S4, for faces and for voices. Those of one corpus are split at once, so that nobody's face and voice part ways."""
    every = [np.union1d(*rows)] * 2 if d.faces == d.voices else rows
    out = []
    for c, subject, own, r in zip(found, subjects, rows, every, strict=True):
        nobody = np.array([bool(UNKNOWN_SUBJECT.fullmatch(s)) for s in subject], bool)
        whole = (
            np.isin(subject, np.intersect1d(subject[rows[0]], subject[rows[1]]))
            if d.faces == d.voices
            else nobody
        )
        stratum = np.where(
            nobody, "unknown", np.where(whole, np.char.add(c.sex, " both"), c.sex)
        )  # each kind falls evenly over the sets
        parts = by_subject(
            subject[r],
            stratum[r],
            d.sets,
            d.split_seed,
            d.fold,
            _published_test_subjects(d, c, subject[own]),
        )
        out.append({k: np.intersect1d(r[v], own) for k, v in parts.items()})
    return out


def build_sets(config: Config) -> dict[str, SampleSet]:
    """The four sets of a configuration, S1..S4, from the prepared corpora.

    Clips whose label is none of the classes drop out, among them those whose raters' vote is tied or lacking (`Data.labels`, `Data.ties`).
    Clips of unknown subjects are split one by one. Raises CorpusError where a set would be empty, where the voices have other mel bands
    than the run, where votes are asked for that nobody gave, where a published list of subjects does not fit, and where all frames are
    asked for and one was prepared.
    """
    d, s, turned = config.data, config.logmel, config.gan.direction == "voice-face"
    if d.faces != d.voices and parse_name(d.faces)[0] == parse_name(d.voices)[0]:
        raise CorpusError(
            f"{d.faces} and {d.voices} are the same clips, whose people must not part ways; use {d.voices} for faces too"
        )
    fx, fy = load_corpus(d.faces, d.demo_takes), load_corpus(d.voices, d.demo_takes)
    if len(fy.voices) and (words := band_mismatch(fy.name, fy.bands, s)):
        raise CorpusError(words)
    paired = d.pairing == "clip"
    if paired and d.faces != d.voices:
        raise CorpusError(
            "pairing by clip needs faces and voices of one corpus; use pairing 'emotion' across corpora"
        )
    x_emotion, y_emotion = _label_names(d, (fx, fy))
    keep = (
        (fx.face_of >= 0) & np.isin(x_emotion, d.classes),
        (fy.voice_of >= 0) & np.isin(y_emotion, d.classes),
    )
    if paired:
        keep = (keep[0] & keep[1],) * 2
    rows = [np.nonzero(k)[0] for k in keep]
    x_subject, y_subject = _subjects_or_clips(fx), _subjects_or_clips(fy)
    x_rows, y_rows = _split_rows(d, (fx, fy), (x_subject, y_subject), rows)
    label = {k: i for i, k in enumerate(d.classes)}
    out = {}
    for name in SET_NAMES:
        i, j = x_rows[name], y_rows[name]
        if not len(i) or not len(j):
            raise CorpusError(
                f"{name} would be empty: {d.faces} × {d.voices} has too few subjects of {', '.join(d.classes)}"
            )
        if not paired and set(y_emotion[j]) - set(x_emotion[i]):
            lacking = ", ".join(sorted(set(y_emotion[j]) - set(x_emotion[i])))
            raise CorpusError(
                f"{name}: {d.faces} has no face for {lacking} of {d.voices}; add faces, or name fewer classes"
            )
        if turned and not paired and set(x_emotion[i]) - set(y_emotion[j]):
            lacking = ", ".join(sorted(set(x_emotion[i]) - set(y_emotion[j])))
            raise CorpusError(
                f"{name}: {d.voices} has no voice for {lacking} of {d.faces}; add voices, or name fewer classes"
            )
        if (
            name == "S3" and d.g_fraction < 1
        ):  # of the target; drawn without a look at the labels, which strict mode may not read
            n = len(i if turned else j)
            part = np.random.default_rng(d.split_seed).permutation(n)[
                : max(1, round(d.g_fraction * n))
            ]
            i, j = (i[part] if paired or turned else i), (j[part] if paired or not turned else j)
        made = SampleSet(
            x=_face_images(fx, i),
            x_label=np.array([label[e] for e in x_emotion[i]], np.int64),
            x_subject=x_subject[i],
            y=_voice_images(fy, j, s),
            y_label=np.array([label[e] for e in y_emotion[j]], np.int64),
            y_subject=y_subject[j],
            paired=paired,
            classes=d.classes,
        )
        if name == "S3" and d.frames == "all":
            made = replace(made, more=_further_face_images(fx, i))
        out[name] = made.reverse if turned else made
    return out


def band_mismatch(name: str, bands: int, s: LogMel) -> str:
    """Why voices of a corpus that has so many mel bands cannot be a run's spectrograms, and what mends it; "" where they can."""
    if bands == s.bands:
        return ""
    fitting = name_with_bands(parse_name(name)[0], s.bands)
    said = f"{name} holds voices in {bands} mel bands, and the run asks for {s.bands}; use --logmel.bands {bands}"
    return (
        f"{said}, or --data.voices {fitting}, which this makes: {prepare_command(fitting)}"
        if s.bands in BAND_COUNTS
        else said
    )


def _face_images(c: PreparedCorpus, rows: np.ndarray) -> np.ndarray:
    """(n, 28, 28) float32 in [-1, 1]: the faces of clips."""
    return c.faces[c.face_of[rows]].astype(np.float32) / 127.5 - 1


def _voice_images(c: PreparedCorpus, rows: np.ndarray, s: LogMel) -> np.ndarray:
    """(n, columns, bands) float32 in [-1, 1]: the middle of the voices of clips."""
    start = (STORED_COLUMNS - s.columns) // 2
    return spectrograms.scale(
        c.voices[c.voice_of[rows]][:, start : start + s.columns], c.meta["ref_db"], s
    )


def _further_face_images(c: PreparedCorpus, rows: np.ndarray) -> np.ndarray:
    """(n, frames - 1, 28, 28) float32 in [-1, 1]: the further frames of clips."""
    if not c.faces_more.shape[1]:
        raise CorpusError(
            f"{c.name} was prepared with one frame of each clip; use frames 'middle', or prepare it again with more: "
            f"{prepare_command(c.name)} --frames 3"
        )
    return c.faces_more[c.face_of[rows]].astype(np.float32) / 127.5 - 1


def f_s_training_data(config: Config, sets: dict[str, SampleSet]) -> tuple[np.ndarray, np.ndarray]:
    """What f_S is trained on: images (n, H, W) float32 in [-1, 1], labels (n,). S1's source, or that of another corpus (§4.7).

    Of another corpus (`Data.f_s_corpus`) it is every sample of the run's classes but those of people who are in S2, S3 or S4, so that f_S
    has met nobody of them. Raises CorpusError where that corpus is not prepared, is the run's own, or leaves a class without a sample.
    """
    d, S1 = config.data, sets["S1"]
    if not d.f_s_corpus:
        return S1.x, S1.x_label
    own, what = (d.faces, "face") if S1.source == "face" else (d.voices, "voice")
    if parse_name(d.f_s_corpus)[0] == parse_name(own)[0]:
        raise CorpusError(
            f"f_s_corpus is {own}, of which the {what}s of S1 train f_S anyway; name another corpus, or leave it empty"
        )
    corpus = load_corpus(d.f_s_corpus, d.demo_takes)
    if (
        what == "voice"
        and len(corpus.voices)
        and (words := band_mismatch(corpus.name, corpus.bands, config.logmel))
    ):
        raise CorpusError(words.replace("--data.voices", "--data.f_s_corpus"))
    emotion = _label_names(
        d, (load_corpus(d.faces, d.demo_takes), load_corpus(d.voices, d.demo_takes), corpus)
    )[2]
    has = corpus.face_of if what == "face" else corpus.voice_of
    met = np.concatenate(
        [s for k in ("S2", "S3", "S4") for s in (sets[k].x_subject, sets[k].y_subject)]
    )
    rows = np.nonzero(
        (has >= 0) & np.isin(emotion, d.classes) & ~np.isin(_subjects_or_clips(corpus), met)
    )[0]
    if lacking := [c for c in d.classes if c not in set(emotion[rows])]:
        raise CorpusError(
            f"f_S cannot be trained on {corpus.name}, which has no {what} for {', '.join(lacking)} of people outside S2, S3 and S4; "
            f"name only the classes it has ({', '.join(c for c in d.classes if c not in lacking) or 'none of these'}), or another corpus"
        )
    images = (
        _face_images(corpus, rows) if what == "face" else _voice_images(corpus, rows, config.logmel)
    )
    return images, np.array([d.classes.index(e) for e in emotion[rows]], np.int64)


def set_table(sets: dict[str, SampleSet]) -> dict:
    """Who is in which set, ready for json: {set: {"faces" or "voices": {"clips", "classes", "subjects", "unknown"}}}.

    `classes` counts clips by class, `subjects` does so for each subject, in order; clips of unknown subjects fall into `unknown` many
    groups that were kept together and have no row in `subjects`.
    """
    classes = next((s.classes for s in sets.values() if s.classes), ())
    n = max(
        [
            len(classes),
            *(int(k.max()) + 1 for s in sets.values() for k in (s.x_label, s.y_label) if len(k)),
        ]
    )
    names = [*classes, *map(str, range(len(classes), n))]

    def counts(subject: np.ndarray, label: np.ndarray) -> dict:
        who, row = np.unique(subject, return_inverse=True)
        table = np.zeros((len(who), n), np.int64)
        np.add.at(table, (row, label), 1)
        known = {
            str(w): dict(zip(names, t.tolist(), strict=True))
            for w, t in zip(who, table, strict=True)
            if not UNKNOWN_SUBJECT.fullmatch(w)
        }
        total = dict(zip(names, table.sum(axis=0).tolist(), strict=True))
        return {
            "clips": len(label),
            "classes": total,
            "subjects": known,
            "unknown": len(who) - len(known),
        }

    both = {k: s if s.source == "face" else s.reverse for k, s in sets.items()}
    return {
        k: {"faces": counts(s.x_subject, s.x_label), "voices": counts(s.y_subject, s.y_label)}
        for k, s in both.items()
    }


def balanced_rows(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rows of a seeded subsample with equally many of each class that occurs, in order: how evaluation is balanced (PROTOCOL)."""
    rng = np.random.default_rng(seed)
    parts = [np.nonzero(labels == k)[0] for k in np.unique(labels)]
    n = min(map(len, parts))
    return np.sort(np.concatenate([rng.permutation(p)[:n] for p in parts]))


def epoch_pairs(
    x_group: np.ndarray, y_group: np.ndarray, paired: bool, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """One epoch's training pairs, a pure function of its arguments: rows of x and of y, shuffled, groups oversampled to balance.

    (n_x,), (n_y,) -> two (n,) index arrays. Paired rows keep their clip; otherwise every voice meets a face of its own group, drawn
    anew each epoch. The groups are what the caller may know: true labels, or in the strict mode argmax c.
    """
    rng = np.random.default_rng([seed, epoch])
    by_group = [np.nonzero(y_group == k)[0] for k in np.unique(y_group)]
    most = max(map(len, by_group))
    j = rng.permutation(np.concatenate([np.resize(rng.permutation(p), most) for p in by_group]))
    if paired:
        return j, j
    i = np.empty_like(j)
    for k in np.unique(y_group):
        rows = y_group[j] == k
        i[rows] = rng.choice(np.nonzero(x_group == k)[0], int(rows.sum()))
    return i, j
