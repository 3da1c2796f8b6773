"""§4.1: prepared corpora -> the subject-disjoint sets S1-S4, balance, training pairs. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from core.config.settings import Config, DataSettings, LogMel, fold_count
from core.data import labels
from core.data.corpora import CorpusError
from core.data.prepared_corpora import (
    STORED_COLUMNS,
    PreparedCorpus,
    band_mismatch,
    check_pairing,
    further_faces,
    load_corpus,
    parse_name,
    speech_windows,
)
from core.media import spectrograms

SET_NAMES = ("S1", "S2", "S3", "S4")
LUNA_JIMENEZ_2021_TEST_ACTORS = (  # RAVDESS' actors in S4, by fold (Sensors 21, 7665)
    *((2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20)),
    *((8, 17, 21, 23, 24), (1, 4, 9, 22)),
)
# Names of subjects where none is known: a group of near duplicates, or one clip.
UNKNOWN_SUBJECT = re.compile(r"image-\d{5}|clip: .*")


@dataclass(frozen=True)
class SampleSet:
    """One of S1-S4: x is the source and y the target, faces and voices.

    With `source` "voice" x are voices and y faces. If `paired`, row i of x and of y is the same
    clip; otherwise they are split separately and paired by emotion.
    """

    x: np.ndarray  # (n_x, 28, 28) float32 in [-1, 1]
    x_label: np.ndarray  # (n_x,) int64
    x_subject: np.ndarray  # (n_x,) str
    y: np.ndarray  # (n_y, columns, bands) float32 in [-1, 1]
    y_label: np.ndarray  # (n_y,) int64
    y_subject: np.ndarray  # (n_y,) str
    paired: bool
    classes: tuple[str, ...] = ()  # names of the labels
    source: Literal["face", "voice"] = "face"
    # (n faces, frames - 1, 28, 28): further frames
    more: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 28, 28), np.float32))
    # (n voices, W, columns, bands): a voice's windows with speech, repeated to W; and how many (n,)
    windows: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.float32))
    window_counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def reverse(self) -> SampleSet:
        """The same set with source and target exchanged (§4.5's voice → face)."""
        source: Literal["face", "voice"] = "voice" if self.source == "face" else "face"
        x, y = (self.y, self.y_label, self.y_subject), (self.x, self.x_label, self.x_subject)
        return SampleSet(*x, *y, self.paired, self.classes, source, self.more)


# ------------------------------------------------------------------ rows of S1..S4


def by_subject(
    subject: np.ndarray,
    sex: np.ndarray,
    sets: tuple[float, ...],
    seed: int,
    fold: int,
    tested: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """Subject-disjoint S1-S4: name -> rows. (N,), (N,) str -> index arrays that partition 0..N-1.

    `sets` are the shares of S1..S4. Subjects are shuffled within each sex by `seed` and
    interleaved, so that every stretch of the order is balanced by sex. S4 is the fold's stretch, so
    that each subject is tested once over the folds; the others fill S1, S2, S3 by their shares. If
    S4's subjects are given as `tested`, all others are ordered in the same way and fill S1, S2, S3.

    >>> subject, sex = np.array(["a", "b", "c", "d", "a"]), np.array(["f", "m", "f", "m", "f"])
    >>> sets = by_subject(subject, sex, (0.25, 0.25, 0.25, 0.25), seed=0, fold=0)
    >>> {name: rows.tolist() for name, rows in sets.items()}
    {'S1': [1], 'S2': [2], 'S3': [3], 'S4': [0, 4]}
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
    folds = fold_count(share)
    a, b = (0, 0) if tested else (round((fold % folds + k) * n * share) for k in (0, 1))
    rest = np.concatenate([order[b:], order[:a]])
    cuts = [round(c) for c in np.cumsum(sets[:3]) / sum(sets[:3]) * len(rest)]
    parts = (rest[: cuts[0]], rest[cuts[0] : cuts[1]], rest[cuts[1] :], tested or order[a:b])
    return {k: np.nonzero(np.isin(subject, v))[0] for k, v in zip(SET_NAMES, parts, strict=True)}


def _published_test_subjects(
    d: DataSettings, corpus: PreparedCorpus, subject: np.ndarray
) -> tuple[str, ...]:
    """S4's subjects where a published list names them, else ().

    The folds of RAVDESS' 24 actors are those of Luna-Jiménez et al. 2021 (Sensors 21, 7665).
    Raises CorpusError where the list does not fit the corpora.
    """
    if d.subjects == "seeded":
        return ()
    if parse_name(d.voices)[0] != "ravdess":
        what = f"subjects {d.subjects!r} are RAVDESS' actors and the voices are {d.voices}'s"
        raise CorpusError(f"{what}; use subjects 'seeded'")
    folds = LUNA_JIMENEZ_2021_TEST_ACTORS
    if d.fold not in range(len(folds)):
        known = f"has the folds 0 to {len(folds) - 1}"
        raise CorpusError(f"{d.subjects} {known}, and none is {d.fold}")
    if parse_name(corpus.name)[0] != "ravdess":
        return ()  # faces of another corpus have subjects of their own
    actors = tuple(f"ravdess-{a:02d}" for a in folds[d.fold])
    if lacking := sorted(set(actors) - set(subject)):
        raise CorpusError(
            f"fold {d.fold} of {d.subjects} tests {', '.join(actors)}, and ravdess as prepared has "
            f"no usable clip of {', '.join(lacking)}; prepare all 24 actors, or use subjects "
            "'seeded'"
        )
    return actors


def _label_names(d: DataSettings, corpora: tuple[PreparedCorpus, ...]) -> list[np.ndarray]:
    """(N,) label names of each corpus by `d.labels` and `d.ties`, "" where a clip has none.

    A corpus without votes keeps the intended emotions.
    """
    rated = [bool((c.votes != "").any()) for c in corpora]
    if d.labels != "intended" and not any(rated):
        names = " and ".join(dict.fromkeys(c.name for c in corpora))
        raise CorpusError(
            f"labels {d.labels!r} are raters' votes and {names} has none; use labels 'intended', "
            "or for CREMA-D put its summaryTable.csv into the corpus' folder and prepare it again"
        )
    return [
        labels.choose_labels(c.emotion, c.votes, d.labels if r else "intended", d.ties)
        for c, r in zip(corpora, rated, strict=True)
    ]


def _subjects_or_clips(c: PreparedCorpus) -> np.ndarray:
    """(N,) subjects; a clip of an unknown subject is a subject of its own (UNKNOWN_SUBJECT)."""
    unknown = c.subject == ""
    return (
        np.where(unknown, np.char.add("clip: ", c.clip), c.subject) if unknown.any() else c.subject
    )


def _split_rows(
    d: DataSettings,
    corpora: tuple[PreparedCorpus, ...],
    subjects: tuple[np.ndarray, ...],
    rows: list[np.ndarray],
) -> list[dict[str, np.ndarray]]:
    """Rows of S1..S4, for faces and for voices.

    Faces and voices of one corpus are split together, so that a subject's are in the same set.
    """
    folds, both = fold_count(d.sets[3]), d.faces == d.voices
    if d.subjects == "seeded" and d.fold >= folds:
        what = f"data.fold is {d.fold}, and with S4 of {d.sets[3]:.0%} of the people"
        raise CorpusError(f"{what} the folds are 0 to {folds - 1}")
    splitting = [np.union1d(*rows)] * 2 if both else rows
    out = []
    for c, subject, own, r in zip(corpora, subjects, rows, splitting, strict=True):
        unknown = np.array([bool(UNKNOWN_SUBJECT.fullmatch(s)) for s in subject], bool)
        whole = unknown  # subjects with a face and a voice
        if both:
            whole = np.isin(subject, np.intersect1d(subject[rows[0]], subject[rows[1]]))
        # Each kind of subject is spread evenly over the sets
        stratum = np.where(whole, np.char.add(c.sex, " both"), c.sex)
        stratum = np.where(unknown, "unknown", stratum)
        tested = _published_test_subjects(d, c, subject[own])
        parts = by_subject(subject[r], stratum[r], d.sets, d.split_seed, d.fold, tested)
        out.append({k: np.intersect1d(r[v], own) for k, v in parts.items()})
    return out


# ------------------------------------------------------------------ the sets


def build_sets(config: Config) -> dict[str, SampleSet]:
    """The four sets of a configuration, S1..S4, from the prepared corpora.

    Clips whose label is none of the classes are left out, among them those whose vote is tied or
    missing (`DataSettings.labels`, `ties`). Clips of unknown subjects are split one by one. Raises
    CorpusError where a set would be empty, the voices have other mel bands than the run, nobody
    gave the votes that are the labels, a published list of subjects does not fit, or all frames are
    wanted and one was prepared.
    """
    d, reversed_ = config.data, config.gan.direction == "voice-face"
    if reversed_ and d.windows == "all":
        raise CorpusError("windows 'all' is for voices from faces; use windows 'middle'")
    faces, voices = _load_faces_and_voices(config)
    paired = d.pairing == "clip"

    # Labels, and the clips that have one
    x_emotion, y_emotion = _label_names(d, (faces, voices))
    keep = [
        (faces.face_of >= 0) & np.isin(x_emotion, d.classes),
        (voices.voice_of >= 0) & np.isin(y_emotion, d.classes),
    ]
    if paired:
        keep = [keep[0] & keep[1]] * 2
    rows = [np.nonzero(k)[0] for k in keep]

    # Rows of each set
    x_subject, y_subject = _subjects_or_clips(faces), _subjects_or_clips(voices)
    x_rows, y_rows = _split_rows(d, (faces, voices), (x_subject, y_subject), rows)

    sets = {}
    for name in SET_NAMES:
        i, j = x_rows[name], y_rows[name]
        _check_set(d, name, x_emotion[i], y_emotion[j], reversed_)
        if name == "S3" and d.g_fraction < 1:
            i, j = _fraction_of_target(d, i, j, reversed_)
        samples = SampleSet(
            x=_face_images(faces, i),
            x_label=np.array([d.classes.index(e) for e in x_emotion[i]], np.int64),
            x_subject=x_subject[i],
            y=_voice_images(voices, j, config.logmel),
            y_label=np.array([d.classes.index(e) for e in y_emotion[j]], np.int64),
            y_subject=y_subject[j],
            paired=paired,
            classes=d.classes,
        )
        if name == "S3" and d.frames == "all":
            samples = replace(samples, more=further_faces(faces, i))
        if d.windows == "all":
            windows, counts = _voice_windows(voices, j, config)
            samples = replace(samples, windows=windows, window_counts=counts)
        sets[name] = samples.reverse if reversed_ else samples
    return sets


def _load_faces_and_voices(config: Config) -> tuple[PreparedCorpus, PreparedCorpus]:
    """The run's two corpora. Raises CorpusError where they do not fit each other or the run."""
    d = config.data
    if d.faces != d.voices and parse_name(d.faces)[0] == parse_name(d.voices)[0]:
        what = f"{d.faces} and {d.voices} are the same clips, whose subjects must stay together"
        raise CorpusError(f"{what}; use {d.voices} for faces too")
    faces, voices = load_corpus(d.faces, d.demo_takes), load_corpus(d.voices, d.demo_takes)
    if len(voices.voices) and (words := band_mismatch(voices.name, voices.bands, config.logmel)):
        raise CorpusError(words)
    check_pairing(faces, voices, d)
    return faces, voices


def _check_set(
    d: DataSettings, name: str, x_emotion: np.ndarray, y_emotion: np.ndarray, reversed_: bool
) -> None:
    """Raise CorpusError where a set is empty, or a target's emotion has no source to be paired."""
    if not len(x_emotion) or not len(y_emotion):
        what = f"{d.faces} × {d.voices} has too few subjects of {', '.join(d.classes)}"
        raise CorpusError(f"{name} would be empty: {what}")
    if d.pairing == "clip":
        return
    if lacking := ", ".join(sorted(set(y_emotion) - set(x_emotion))):
        what = f"{d.faces} has no face for {lacking} of {d.voices}"
        raise CorpusError(f"{name}: {what}; add faces, or name fewer classes")
    if reversed_ and (lacking := ", ".join(sorted(set(x_emotion) - set(y_emotion)))):
        what = f"{d.voices} has no voice for {lacking} of {d.faces}"
        raise CorpusError(f"{name}: {what}; add voices, or name fewer classes")


def _fraction_of_target(
    d: DataSettings, i: np.ndarray, j: np.ndarray, reversed_: bool
) -> tuple[np.ndarray, np.ndarray]:
    """S3's rows of faces and voices, of the target only a random share `d.g_fraction`.

    It is drawn without the labels, which the strict mode may not use.
    """
    n = len(i if reversed_ else j)
    order = np.random.default_rng(d.split_seed).permutation(n)
    part, paired = order[: max(1, round(d.g_fraction * n))], d.pairing == "clip"
    return (i[part] if paired or reversed_ else i), (j[part] if paired or not reversed_ else j)


def _face_images(c: PreparedCorpus, rows: np.ndarray) -> np.ndarray:
    """(n, 28, 28) float32 in [-1, 1]: the faces of clips."""
    return c.faces[c.face_of[rows]].astype(np.float32) / 127.5 - 1


def _voice_images(c: PreparedCorpus, rows: np.ndarray, s: LogMel) -> np.ndarray:
    """(n, columns, bands) float32 in [-1, 1]: the middle of the voices of clips."""
    start = (STORED_COLUMNS - s.columns) // 2
    db = c.voices[c.voice_of[rows]][:, start : start + s.columns]
    return spectrograms.scale(db, c.meta["ref_db"], s)


def _voice_windows(
    c: PreparedCorpus, rows: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """Windows with speech of clips: (n, W, columns, bands) float32 in [-1, 1], counts (n,)."""
    s, (db, counts) = config.logmel, speech_windows(c, rows, config.data.speech)
    start = (STORED_COLUMNS - s.columns) // 2
    return spectrograms.scale(db[:, :, start : start + s.columns], c.meta["ref_db"], s), counts


def f_s_training_data(config: Config, sets: dict[str, SampleSet]) -> tuple[np.ndarray, np.ndarray]:
    """Training data of f_S: images (n, H, W) float32 in [-1, 1], labels (n,) int64.

    They are S1's source, or that of another corpus (`DataSettings.f_s_corpus`, §4.7): all its
    samples of the run's classes but those of subjects in S2, S3 or S4. Raises CorpusError where
    that corpus is not prepared, is the run's own, or leaves a class without a sample.
    """
    d, S1 = config.data, sets["S1"]
    if not d.f_s_corpus:
        return S1.x, S1.x_label
    own, kind = (d.faces, "face") if S1.source == "face" else (d.voices, "voice")
    if parse_name(d.f_s_corpus)[0] == parse_name(own)[0]:
        what = f"f_s_corpus is {own}, of which the {kind}s of S1 train f_S anyway"
        raise CorpusError(f"{what}; name another corpus, or leave it empty")
    names = (d.faces, d.voices, d.f_s_corpus)
    faces, voices, corpus = (load_corpus(name, d.demo_takes) for name in names)
    mismatch = band_mismatch(corpus.name, corpus.bands, config.logmel)
    if kind == "voice" and len(corpus.voices) and mismatch:
        raise CorpusError(mismatch.replace("--data.voices", "--data.f_s_corpus"))
    emotion = _label_names(d, (faces, voices, corpus))[2]
    later = [s for k in SET_NAMES[1:] for s in (sets[k].x_subject, sets[k].y_subject)]
    usable = (corpus.face_of if kind == "face" else corpus.voice_of) >= 0
    usable &= np.isin(emotion, d.classes)
    usable &= ~np.isin(_subjects_or_clips(corpus), np.concatenate(later))
    rows = np.nonzero(usable)[0]
    if lacking := [c for c in d.classes if c not in set(emotion[rows])]:
        present = ", ".join(c for c in d.classes if c not in lacking) or "none of these"
        raise CorpusError(
            f"f_S cannot be trained on {corpus.name}, which has no {kind} for {', '.join(lacking)} "
            f"of people outside S2, S3 and S4; name only the classes it has ({present}), or "
            "another corpus"
        )
    if kind == "face":
        x = _face_images(corpus, rows)
    else:
        x = _voice_images(corpus, rows, config.logmel)
    return x, np.array([d.classes.index(e) for e in emotion[rows]], np.int64)


def set_table(sets: dict[str, SampleSet]) -> dict:
    """Clips and subjects of each set, ready for json.

    {set: {"faces" or "voices": {"clips", "classes", "subjects", "unknown"}}}: `classes` counts
    clips by class, `subjects` does so for each subject, in order. Clips of unknown subjects are in
    `unknown` groups, which were kept together and have no row in `subjects`.
    """
    classes = next((s.classes for s in sets.values() if s.classes), ())
    labels = [k for s in sets.values() for k in (s.x_label, s.y_label) if len(k)]
    n = max([len(classes), *(int(k.max()) + 1 for k in labels)])
    names = [*classes, *map(str, range(len(classes), n))]

    def counts(subject: np.ndarray, label: np.ndarray) -> dict:
        who, row = np.unique(subject, return_inverse=True)
        table = np.zeros((len(who), n), np.int64)
        np.add.at(table, (row, label), 1)
        by_class = [dict(zip(names, t, strict=True)) for t in table.tolist()]
        rows = {str(w): t for w, t in zip(who, by_class, strict=True)}
        known = {w: t for w, t in rows.items() if not UNKNOWN_SUBJECT.fullmatch(w)}
        total = dict(zip(names, table.sum(axis=0).tolist(), strict=True))
        unknown = len(who) - len(known)
        return {"clips": len(label), "classes": total, "subjects": known, "unknown": unknown}

    table = {}
    for name, s in sets.items():
        s = s if s.source == "face" else s.reverse
        faces, voices = counts(s.x_subject, s.x_label), counts(s.y_subject, s.y_label)
        table[name] = {"faces": faces, "voices": voices}
    return table


def balanced_rows(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rows, in order, of a seeded subsample with equally many of each class that occurs.

    Evaluation is balanced in this way.

    >>> np.bincount(np.array([0, 0, 0, 1, 1])[balanced_rows(np.array([0, 0, 0, 1, 1]))]).tolist()
    [2, 2]
    """
    rng = np.random.default_rng(seed)
    parts = [np.nonzero(labels == k)[0] for k in np.unique(labels)]
    n = min(map(len, parts), default=0)
    chosen = [rng.permutation(p)[:n] for p in parts]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def epoch_pairs(
    x_group: np.ndarray, y_group: np.ndarray, paired: bool, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """One epoch's training pairs: rows of x and of y, shuffled, with groups oversampled to balance.

    (n_x,), (n_y,) -> two (n,) index arrays, a pure function of the arguments. Paired rows keep
    their clip; otherwise every voice meets a face of its own group, drawn anew each epoch. Groups
    are true labels, or argmax c in the strict mode, which may not know labels.
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
