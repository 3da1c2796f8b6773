"""Figs 6 to 11 of finished runs: matplotlib figures from saved files, without networks.

The samples of Figs 6 and 7 are those that a run stored of S4's faces. Real faces and voices need
the prepared corpora.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from core.config.settings import LogMel
from core.data import labels, prepared_corpora, splits
from core.data.corpora import CorpusError
from core.evaluation import metrics, results, significance
from core.evaluation.protocol import REVERSE_CASE, Cell
from core.media import spectrograms
from core.runs import store
from core.runs.directory import Run

CaseRuns = Sequence[tuple[Cell, Run]]  # a case's finished runs over folds and seeds
RunsByCase = Mapping[str, CaseRuns]
NETWORK_CASES = (
    *("EncDec · CP", "EncDec without L1 · CP", "EncDec without source · CP"),
    *("U-Net · CP", "convolutional · CP"),
)
SAMPLE_FIGURES = {  # Figs 6 and 7: file -> title, and cases, one row of samples each
    "fig6": ("samples by condition", ("EncDec · label", "EncDec · classifier", "EncDec · CP")),
    "fig6-networks": ("samples by generator, with and without L1 or the source", NETWORK_CASES),
    "fig6-sizes": (
        "samples by size of the spectrogram",
        ("28×28 · CP", "56×28 · CP", "112×28 · CP"),
    ),
    "fig7b": ("faces made from voices", (REVERSE_CASE,)),
}
ROW_COLOURS = {"S1": "tab:gray", "S1 + generated": "tab:blue"}


# ------------------------------------------------------------------ samples


@dataclass(frozen=True)
class SampleRow:
    """One row of a grid of samples: a picture per class, None if a run stored none."""

    title: str
    pictures: list[np.ndarray | None]  # (28, 28) or (columns, bands), in [-1, 1]
    logmel: LogMel
    ref_db: float = 0.0

    @property
    def face(self) -> bool:
        return self.title.endswith("face")


def sample_rows(members: Mapping[str, tuple[Cell, Run]]) -> list[SampleRow]:
    """The rows of a figure of samples: real faces, real voices, then each run's samples.

    All rows show the same faces of S4 (reverse: voices), a column per class. The real rows are of
    the first run with the longest spectrograms; they are left out if its corpora are not prepared
    here or have changed.
    """
    named = max(members, key=lambda k: members[k][0].config.logmel.columns)
    cell, first = members[named]
    stored = {name: run.arrays("generated") for name, (_, run) in members.items()}
    K = len(first.config.data.classes)
    common = [set(a["row"].tolist()) for a in stored.values() if len(a)]
    shared = set.intersection(*common) if common else set()
    rows = _real_rows(cell, first, [_first_sample(stored[named], k, shared) for k in range(K)])
    for name, (its, run) in members.items():
        a, s = stored[name], its.config.logmel
        places = [_first_sample(a, k, shared) for k in range(K)]
        pictures = [None if i is None else a["y"][i].astype(np.float32) for i in places]
        what = "face" if its.config.gan.direction == "voice-face" else "voice"
        ref = run.json("corpus")["voices"]["ref_db"]
        rows.append(SampleRow(f"{name}:\ngenerated {what}", pictures, s, ref))
    return rows


def _first_sample(stored: Mapping[str, np.ndarray], k: int, shared: set[int]) -> int | None:
    """Index in generated.npz of the first sample of class k, preferably of a shared face."""
    of = np.nonzero(stored["label"] == k)[0] if "label" in stored else np.zeros(0, int)
    both = [int(i) for i in of if int(stored["row"][i]) in shared]
    return both[0] if both else int(of[0]) if len(of) else None


def _real_rows(cell: Cell, run: Run, places: Sequence[int | None]) -> list[SampleRow]:
    """S4's faces and voices of the clips behind the first run's samples.

    Without pairs, the target modality shows any clip of the class.
    """
    try:
        if run.json("provenance").get("corpus") != prepared_corpora.corpus_digest(cell.config.data):
            return []
        S4 = splits.build_sets(cell.config)["S4"]
    except CorpusError:
        return []
    row = run.arrays("generated")["row"]
    x = [None if i is None else int(row[i]) for i in places]
    y = (
        x
        if S4.paired
        else [next(iter(np.nonzero(S4.y_label == k)[0]), None) for k in range(len(places))]
    )
    names = {"face": "real face", "voice": "real voice"}
    source, target = ("face", "voice") if S4.source == "face" else ("voice", "face")
    s, ref = cell.config.logmel, run.json("corpus")["voices"]["ref_db"]
    return [
        SampleRow(names[source], [None if i is None else S4.x[i] for i in x], s, ref),
        SampleRow(names[target], [None if i is None else S4.y[i] for i in y], s, ref),
    ]


def figure_samples(rows: Sequence[SampleRow], classes: Sequence[str]) -> Figure:
    """A grid of samples; all spectrograms share the scales of time, centred, and of dB."""
    figure = Figure((1.6 + 1.35 * len(classes), 0.6 + 1.25 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(classes), squeeze=False)
    longest = max((r.logmel.columns * r.logmel.hop / r.logmel.rate for r in rows), default=1.0)
    shown, last = None, max((i for i, r in enumerate(rows) if not r.face), default=-1)
    for i, row in enumerate(rows):
        for k, (ax, picture) in enumerate(zip(axes[i], row.pictures, strict=True)):
            if i == 0:
                ax.set_title(classes[k], fontsize=8)
            if row.face:
                ax.set_xticks([])
                ax.set_yticks([])
                if picture is not None:
                    ax.imshow(picture, cmap="gray", vmin=-1, vmax=1)
            else:
                if picture is not None:
                    shown = _draw_spectrogram(ax, picture, row, longest)
                ax.set(xlim=(0, longest), ylim=(0, row.logmel.bands))
                ax.tick_params(labelsize=6, labelleft=k == 0, labelbottom=i == last)
                if i == last:
                    ax.set_xlabel("time, s", fontsize=7)
            if picture is None:
                centred = {"ha": "center", "va": "center", "transform": ax.transAxes}
                ax.text(0.5, 0.5, "none stored", fontsize=6, **centred)
        axes[i][0].set_ylabel(row.title + ("" if row.face else "\nmel band"), fontsize=7)
    if shown:
        figure.colorbar(shown, ax=axes, label="level, dB", shrink=0.6)
    return figure


def _draw_spectrogram(ax, picture: np.ndarray, row: SampleRow, longest: float):
    """Draw a scaled spectrogram in dB, centred on an axis of `longest` seconds."""
    s = row.logmel
    db, half = spectrograms.unscale(picture, row.ref_db, s), len(picture) * s.hop / s.rate / 2
    extent = (longest / 2 - half, longest / 2 + half, 0, s.bands)
    scale = {"cmap": "magma", "vmin": row.ref_db - s.range_db, "vmax": row.ref_db}
    return ax.imshow(db.T, origin="lower", aspect="auto", extent=extent, **scale)


# ------------------------------------------------------------------ confusion


def rater_shares(cell: Cell, by: str = "voice") -> np.ndarray | None:
    """Raters' confusion by voice, face or both, as shares; None without votes or the corpus."""
    d = cell.config.data
    try:
        corpus = prepared_corpora.load_corpus(d.faces if by == "face" else d.voices, d.demo_takes)
    except CorpusError:
        return None
    votes = corpus.votes[:, labels.VOTE_MODALITIES.index(by)]
    if not (votes != "").any():
        return None
    return metrics.normalise_rows(metrics.rater_confusion(corpus.emotion, votes, d.classes))


def confusion_shares(members: CaseRuns, row: str) -> np.ndarray | None:
    """The confusion of an augmentation row, summed over runs, as shares of each true class.

    None if no run has the row. Every run weighs the same, however many trainings it sums.
    """
    found = [results.row_confusion(r.json("results"), r.json("table"), row) for _, r in members]
    counts = [f[0] / f[1] for f in found if f is not None]
    return metrics.normalise_rows(np.sum(counts, axis=0)) if counts else None


def figure_8(found: RunsByCase) -> Figure:
    """Confusion of the baseline S1, of S1 + generated of each case, and of human raters.

    Below, each minus the baseline. All matrices share one scale, 0 to 100 %; all differences
    another, -50 to 50 points.
    """
    name, first = next(iter(found.items()))
    classes = first[0][0].config.data.classes
    base = confusion_shares(first, "S1")
    assert base is not None, f"{name} has no row S1"
    shown: dict[str, np.ndarray] = {"baseline: S1": base}
    shown |= {
        f"{k}: S1 + generated": m
        for k, of in found.items()
        if (m := confusion_shares(of, "S1 + generated")) is not None
    }
    if (raters := rater_shares(first[0][0])) is not None:
        shown["people, by voice"] = raters
    figure = Figure((0.8 + 2.9 * len(shown), 6.4), layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False)
    for k, (title, matrix) in enumerate(shown.items()):
        whole = _draw_matrix(axes[0][k], 100 * matrix, classes, title, "Blues", (0, 100))
        if k == 0:
            axes[1][0].axis("off")
            continue
        points, title = 100 * (matrix - base), "minus the baseline"
        gap = _draw_matrix(axes[1][k], points, classes, title, "RdBu", (-50, 50))
        if k == len(shown) - 1:
            figure.colorbar(gap, ax=axes[1], label="points", shrink=0.8)
    figure.colorbar(whole, ax=axes[0], label="% of the true class", shrink=0.8)
    return figure


def _draw_matrix(
    ax,
    percent: np.ndarray,
    classes: Sequence[str],
    title: str,
    colours: str,
    scale: tuple[float, float],
):
    image = ax.imshow(percent, cmap=colours, vmin=scale[0], vmax=scale[1])
    signed = scale[0] < 0
    for i, j in np.ndindex(percent.shape):
        value = percent[i, j]
        number = f"{value:+.0f}" if signed and abs(value) >= 0.5 else f"{value:.0f}"
        colour = "white" if abs(value) > 0.6 * scale[1] else "black"
        ax.text(j, i, number, ha="center", va="center", fontsize=6, color=colour)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=6)
    ax.set_yticks(range(len(classes)), classes, fontsize=6)
    ax.set_title(title, fontsize=8)
    ax.set_xlabel("predicted", fontsize=7)
    ax.set_ylabel("true", fontsize=7)
    return image


# ------------------------------------------------------------------ spread and curves


def accuracies(members: CaseRuns, row: str) -> list[float]:
    """Accuracies in [0, 1] of an augmentation row in the runs that have it, at equal steps.

    A run's is the mean over its trainings, as on every page (`results.row_accuracy`).
    """
    found = (results.row_accuracy(r.json("results"), r.json("table"), row) for _, r in members)
    return [a.mean for a in found if a.trainings]


def figure_9(found: RunsByCase) -> Figure:
    """Accuracy of each case over folds and seeds: mean ± sd, S1 alone beside S1 + generated."""
    figure = Figure((8, 1.2 + 0.34 * len(found)), layout="constrained")
    ax = figure.subplots()
    for row, shift in (("S1", -0.15), ("S1 + generated", 0.15)):
        _draw_error_bars(ax, found, row, np.arange(len(found)) + shift, upright=False)
    ax.set_yticks(range(len(found)), list(found), fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="accuracy on real voices of S4, % (mean ± sd over runs)", ylabel="case")
    chance = 100 * next(iter(found.values()))[0][1].json("results")["chance"]
    ax.axvline(chance, ls=":", color="k", lw=1, label="chance")
    ax.legend(fontsize=8)
    return figure


def _draw_error_bars(ax, found: RunsByCase, row: str, places: np.ndarray, upright: bool) -> None:
    of = [[100 * v for v in accuracies(m, row)] for m in found.values()]
    values = [significance.mean_and_sd(a) if a else (math.nan, math.nan) for a in of]
    mean, sd = [v for v, _ in values], [0 if math.isnan(s) else s for _, s in values]
    along, across, error = ("x", "y", "yerr") if upright else ("y", "x", "xerr")
    place = {along: places, across: mean, error: sd}
    ax.errorbar(**place, fmt="o", ms=4, capsize=3, color=ROW_COLOURS[row], label=row)


def figure_curves(run: Run, names: Sequence[tuple[str, Sequence[str]]], titles: str) -> Figure:
    """Curves of a run by step, a panel per (axis label, curves); "… real" is a dashed line."""
    curves = store.load_curves(run.id, run.directory.parent)
    figure = Figure((4.2 * len(names), 3.2), layout="constrained")
    for ax, (label, shown) in zip(
        np.atleast_1d(figure.subplots(1, len(names))), names, strict=True
    ):
        for k in shown:
            if k not in curves:
                continue
            steps, values = curves[k]
            if k.endswith("real"):
                target = run.config.gan.direction.split("-")[1]
                label = results.reference_label(curves, f"{target}s")
                ax.axhline(values[-1], ls="--", color="k", lw=1, label=label)
            else:
                ax.plot(steps, values, lw=1.2, label=k.removeprefix("loss/"))
        ax.set(xlabel="step", ylabel=label)
        if ax.has_data():
            ax.legend(fontsize=7)
    figure.suptitle(f"{titles} · {run.id}", fontsize=9)
    return figure


def figure_sparsity(found: RunsByCase) -> Figure:
    """Fig. 11 (§4.6): FID and IS while training, and final accuracy, by share of S3."""
    figure = Figure((12.6, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for ax, k in ((left, "FID"), (middle, "IS")):
        for share, members in found.items():
            run = members[0][1]
            steps, values = store.load_curves(run.id, run.directory.parent).get(k, ([], []))
            label = f"{share} (fold {run.config.data.fold}, seed {run.config.seed})"
            ax.plot(steps, values, lw=1.2, label=label)
        ax.set(xlabel="step", ylabel=k)
        ax.legend(fontsize=7)
    for row, shift in (("S1", 0.06), ("S1 + generated", -0.06)):
        _draw_error_bars(right, found, row, np.arange(len(found)) + shift, upright=True)
    right.set_xticks(range(len(found)), [s.split(" ")[0] for s in found])
    right.set(xlabel="share of S3's pairs", ylabel="accuracy on real voices of S4, %")
    right.legend(fontsize=7)
    return figure
