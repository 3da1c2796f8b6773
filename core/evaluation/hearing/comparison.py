"""Generated voices beside real ones, by the judges and by acoustics, with the lines between.

Lines: the recording's own second; the same through the run's bands and the vocoder, which is what
this size of a spectrogram can carry; the same through Griffin-Lim; generated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.data.corpora import CorpusError
from core.evaluation.hearing import acoustics, emotions, judges, recordings
from core.files import UserError
from core.media import spectrograms, vocoder
from core.runs.directory import Run

RECORDED, GENERATED = "real, as recorded", "generated, vocoder"  # lines; others lie between
MOST_PER_EMOTION = 15  # sounds of each emotion that are judged; seven emotions make 105
# Of each that acoustics measure, all that there are of RAVDESS's S4: one second of a voice says
# little of its range of pitch.
MOST_MEASURED = 32
ProgressCallback = Callable[[str, int, int, str], None]  # (phase, lines done, total, remark)


@dataclass(frozen=True)
class Sounds:
    """The sounds of one line."""

    name: str
    waves: np.ndarray  # (n, samples) float32, at their own level
    labels: np.ndarray  # (n,) class of each


@dataclass(frozen=True)
class Line:
    """What judges and acoustics find in the sounds of one line."""

    name: str
    n: int
    scores: dict[str, np.ndarray]  # judges.SCORES, emotions.LISTENERS -> (n,)
    features: np.ndarray  # (m, 4), acoustics.FEATURES, of more sounds than are judged
    labels: np.ndarray  # (m,)


def at_most_of_each(labels: np.ndarray, classes: int, most: int, seed: int = 0) -> np.ndarray:
    """Rows, at most `most` of each class, drawn by `seed`."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == k][:most] for k in range(classes)]))


def first_of_each(labels: np.ndarray, classes: int, most: int, seed: int = 0) -> np.ndarray:
    """Rows, equally many of each class that occurs, at most `most`, drawn by `seed`."""
    counts = np.bincount(labels, minlength=classes)
    return at_most_of_each(labels, classes, int(counts[counts > 0].min(initial=most)), seed)


def real_sounds(run: Run, most: int = MOST_MEASURED, seed: int = 0) -> list[Sounds]:
    """The three lines of S4's recordings. Raises CorpusError where they are not here."""
    config, s = run.config, run.config.logmel
    labelled = recordings.labelled_recordings(config, ("S4",))
    labels = np.array([k for k, _ in labelled])
    rows = at_most_of_each(labels, len(config.data.classes), most, seed)
    db, waves = recordings.voiced_seconds([labelled[i][1] for i in rows], s)
    ref_db = run.json("corpus")["voices"]["ref_db"]
    y, labels = spectrograms.scale(db, ref_db, s), labels[rows]
    lines = [Sounds(RECORDED, waves.astype(np.float32), labels)]
    for way, plain in (("vocoder", False), ("Griffin-Lim", True)):
        again = own_level(y, ref_db, run, seed, plain)
        lines.append(Sounds(f"real, {s.bands} bands, {way}", again, labels))
    return lines


def generated_sounds(run: Run, most: int = MOST_MEASURED, seed: int = 0) -> Sounds:
    """The run's saved samples of S4's faces, through the vocoder. Raises UserError without any."""
    saved = run.arrays("generated")
    if not saved:
        raise UserError(f"{run.id} keeps no generated samples; let its training finish")
    rows = at_most_of_each(saved["label"], len(run.config.data.classes), most, seed)
    ref_db = run.json("corpus")["voices"]["ref_db"]
    waves = own_level(saved["y"][rows].astype(np.float32), ref_db, run, seed)
    return Sounds(GENERATED, waves, saved["label"][rows])


def own_level(
    y: np.ndarray, ref_db: float, run: Run, seed: int = 0, plain: bool = False
) -> np.ndarray:
    """Spectrograms as sounds at the level that they show; `to_waveform` turns loud ones down."""
    waves, gain = vocoder.to_waveform(y, ref_db, run.config.logmel, seed, plain)
    return waves / 10 ** (gain[:, None] / 20)


def listen(
    run: Run,
    report: ProgressCallback = lambda *a: None,
    most: int = MOST_PER_EMOTION,
    measured: int = MOST_MEASURED,
    seed: int = 0,
) -> list[Line]:
    """All lines of a run that makes voices, generated last; without recordings that one alone.

    The judges hear at most `most` sounds of an emotion, equally many of all; acoustics measure at
    most `measured` of each. Raises UserError for a run that makes faces, and where the judges are
    not installed.
    """
    if run.config.gan.direction != "face-voice":
        raise UserError(f"{run.id} makes faces; choose a run that makes voices")
    if run.config.logmel.rate != judges.RATE:
        raise UserError(f"{run.id} has sounds of {run.config.logmel.rate} Hz, not {judges.RATE}")
    judges.judge(np.zeros((0, judges.RATE)))  # missing judges are told before the work
    lines = [generated_sounds(run, measured, seed)]
    try:
        lines = [*real_sounds(run, measured, seed), *lines]
    except CorpusError as e:
        report("hear voices", 0, len(lines), f"no real ones: {e}")
    try:
        listeners = emotions.fit_listeners(run, report)
    except CorpusError as e:
        listeners = {}
        report("hear voices", 0, len(lines), f"nobody names emotions: {e}")
    out = []
    for i, sounds in enumerate(lines):
        report("hear voices", i, len(lines), sounds.name)
        rows = first_of_each(sounds.labels, len(run.config.data.classes), most, seed)
        judged, labels = sounds.waves[rows], sounds.labels[rows]
        scores = judges.judge(judged) | emotions.heard(listeners, judged, labels, run)
        features = acoustics.features(sounds.waves, run.config.logmel)
        out.append(Line(sounds.name, len(rows), scores, features, sounds.labels))
    return out


# ------------------------------------------------------------------ tables


def means_and_errors(line: Line) -> dict[str, tuple[float, float]]:
    """Judge's score -> its mean over a line's sounds and the mean's standard error."""
    n = line.n
    return {
        k: (float(v.mean()), float(v.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan"))
        for k, v in line.scores.items()
    }


def as_json(lines: list[Line], classes: tuple[str, ...]) -> dict:
    """Scores, acoustics and correlations of lines, ready for json."""
    K = len(classes)
    found = [acoustics.emotion_differences(x.features, x.labels, K) for x in lines]
    return {
        line.name: {
            "N": line.n,
            "scores": {
                k: [v for v in of if np.isfinite(v)] for k, of in means_and_errors(line).items()
            },
            "N acoustics": len(line.labels),
            "acoustics": dict(zip(classes, differences.tolist(), strict=True)),
            "correlation with the first": {
                k: r
                for k, r in acoustics.correlations(differences, found[0]).items()
                if np.isfinite(r)
            },
        }
        for line, differences in zip(lines, found, strict=True)
    }


def tables(lines: list[Line], classes: tuple[str, ...]) -> str:
    """Markdown: `scores_table` and `acoustics_table`."""
    return f"{scores_table(lines)}\n\n{acoustics_table(lines, classes)}"


def scores_table(lines: list[Line]) -> str:
    """Markdown: mean and standard error of each judge's score, a row for each line.

    A listener's score is the share of the sounds whose emotion it names.
    """
    names = list(lines[0].scores)
    head = ["| sound | N | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    rows = []
    for line in lines:
        found = means_and_errors(line)
        cells = [f"{found[k][0]:.2f} ± {found[k][1]:.2f}" for k in names]
        rows.append(f"| {line.name} | {line.n} | {' | '.join(cells)} |")
    return "\n".join(head + rows)


def acoustics_table(lines: list[Line], classes: tuple[str, ...]) -> str:
    """Markdown: differences of each emotion from the mean over emotions, real beside generated.

    The last rows are the correlations of the lines with the first one.
    """
    K, units = len(classes), ("semitones", "semitones", "dB", "dB/octave")
    shown = [lines[0], *lines[1:][-1:]] if len(lines) > 1 else lines
    found = {x.name: acoustics.emotion_differences(x.features, x.labels, K) for x in lines}
    names = [f"{f}, {u}" for f, u in zip(acoustics.FEATURES, units, strict=True)]
    out = ["| emotion | sound | " + " | ".join(names) + " |", "|---" * 6 + "|"]
    for k, emotion in enumerate(classes):
        for line in shown:
            values = " | ".join(f"{v:+.1f}" for v in found[line.name][k])
            out.append(f"| {emotion} | {line.name} | {values} |")
    for line in lines[1:]:
        r = acoustics.correlations(found[line.name], found[lines[0].name])
        values = " | ".join(f"{r[f]:.2f}" for f in acoustics.FEATURES)
        name = f"{line.name}, N = {len(line.labels)}"
        out.append(f"| correlation {r['all']:.2f} | {name} | {values} |")
    return "\n".join(out)
