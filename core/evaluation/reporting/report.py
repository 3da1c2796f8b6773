"""§4.5-4.6: a report of finished runs beside the paper, as Markdown with png and pdf figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from core import files
from core.evaluation import comparison, protocol
from core.evaluation.protocol import Cell
from core.evaluation.reporting import figures, tables
from core.evaluation.reporting.tables import RunsByCase
from core.paper.published import PUBLISHED_ELSEWHERE, PUBLISHED_TABLE_1
from core.runs import store
from core.runs.directory import Run

NOT_COMPARABLE = "other scorer, N, classes: not comparable"
REAL_SAMPLES_MISSING = (
    "\n\nReal faces and voices are not shown: the corpora that these runs were trained on "
    "are not prepared here."
)
MAX_LISTED_CELLS = 20  # unfinished cells that the report names
MAX_LISTED_RUNS = 3  # runs of a figure whose commands are printed


def finished_runs(
    cells: Sequence[Cell], folder: Path | None = None
) -> tuple[RunsByCase, list[str]]:
    """The runs of a grid that have results, by case, and the titles of the other cells."""
    folder, found, missing = folder or files.checkpoints_folder(), RunsByCase(), []
    for cell, run in protocol.locate_runs(cells, folder):
        if run:
            found.setdefault(cell.name, []).append((cell, run))
        else:
            missing.append(cell.title)
    return found, missing


# ------------------------------------------------------------------ the report


def write(
    cells: Sequence[Cell],
    out: Path,
    made_by: str,
    here: str,
    folder: Path | None = None,
    against: Sequence[Cell] = (),
) -> Path:
    """Write report.md and its figures into `out`; returns the path of report.md.

    `made_by` and `here` are the commands of the sweep and of this report. `against` are cells of
    another method, whose tables are compared with those of `cells`. Raises UserError if no run of
    the grid is finished.
    """
    groups, missing, by_corpus = dict[str, RunsByCase](), list[str](), cells_by_corpus(cells)
    for corpus, of in by_corpus.items():
        found, others = finished_runs(of, folder)
        missing += [f"{corpus}, {title}" for title in others] if len(by_corpus) > 1 else others
        if found:
            groups[corpus] = found
    if not groups:
        raise files.UserError(f"no run of this grid is done; train them with: {made_by}")
    store.index_existing(folder)
    out.mkdir(parents=True, exist_ok=True)

    # runs in the report, and cells without a run
    done, note = sum(len(m) for found in groups.values() for m in found.values()), "."
    if missing:
        more = " …" if len(missing) > MAX_LISTED_CELLS else ""
        note = f", {len(missing)} are not: {'; '.join(missing[:MAX_LISTED_CELLS])}{more}."
    summary = f"Made by `{here}` from the runs of `{made_by}`. {done} runs are done{note}"
    text = ["# The paper's experiments", summary]
    if any(c.section == "§4.7" for c in cells) and not any(c.config.data.f_s_corpus for c in cells):
        text.append(f"Left out: {protocol.F_S_CORPUS_HINT}.")

    # tables
    voices = {corpus: v for corpus, found in groups.items() if (v := _of_voices(found))}
    text += _all_tables(groups, voices, made_by)
    if against:
        text += _methods_sections(cells, against, list(voices), folder)

    # figures
    several = len(groups) > 1
    if several:
        text += _both_corpora_section(voices, out, here)
    for corpus, found in groups.items():
        mark = (f", {corpus}", f"-{slug(corpus)}") if several else ("", "")
        text += _sample_sections(found, out, here, *mark)
        text += _figure_sections(voices[corpus], out, here, *mark) if corpus in voices else []
    text.append(f"Every table and figure above is made again by `{here}`.")
    files.write_atomic(out / "report.md", "\n\n".join(text) + "\n")
    return out / "report.md"


def _all_tables(
    groups: dict[str, RunsByCase], voices: dict[str, RunsByCase], made_by: str
) -> list[str]:
    """All tables: every case by corpus, Table 2 over the corpora, then each corpus' own."""
    several, text = len(groups) > 1, []
    for corpus, found in groups.items():
        cell = found.get("EncDec · CP", next(iter(found.values())))[0][0]
        note = _comparability_note(cell, corpus in voices)
        game = f"Method: {tables.describe_game(cell.config)}."
        text += [f"## Every case: {corpus}" if several else "## Every case"]
        text += [f"{note}\n\n{game}", tables.cases_text(found)]
    if voices:
        text += ["## Table 2", f"{tables.table_2_text(voices)}\n\n{PUBLISHED_ELSEWHERE}"]
    for corpus, found in voices.items():
        text += _table_sections(found, made_by, f", {corpus}" if several else "")
    return text


def _methods_sections(
    cells: Sequence[Cell], against: Sequence[Cell], corpora: Sequence[str], folder: Path | None
) -> list[str]:
    """Two methods on each corpus, paired by test subject."""
    text, names = [], (cells[0].config.name, against[0].config.name)
    pools = cells_by_corpus(cells), cells_by_corpus(against)
    for corpus in corpora:
        ours, theirs = (_runs_of(finished_runs(p.get(corpus, ()), folder)[0]) for p in pools)
        of = f", {corpus}" if len(corpora) > 1 else ""
        text += [f"## {names[0]} against {names[1]}{of}", tables.methods_text(ours, theirs, names)]
    return text


def cells_by_corpus(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells by the corpus they are of, under the paper's name for it: CREMA-D, RAVDESS, demo.

    Raises UserError where two presets of one corpus have the same cases.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        corpus = comparison.published_corpus(cell.config) or cell.corpus
        groups.setdefault(corpus, []).append(cell)
    for corpus, of in groups.items():
        if len({c.title for c in of}) < len(of):
            fix = "report presets of one corpus one by one"
            raise files.UserError(f"two of the presets are of {corpus}, with equal cases; {fix}")
    return groups


def slug(corpus: str) -> str:
    """A corpus' name in the name of a file: "fer2013 × ravdess" -> "fer2013-ravdess"."""
    return re.sub(r"\W+", "-", corpus.lower())


def _of_voices(found: RunsByCase) -> RunsByCase:
    """The cases whose G makes voices."""
    return {k: m for k, m in found.items() if m[0][0].config.gan.direction == "face-voice"}


def _runs_of(found: RunsByCase) -> list[Run]:
    return [r for m in found.values() for _, r in m]


def _comparability_note(cell: Cell, voices: bool) -> str:
    """Text on how far the figures can be compared with the paper's."""
    of, d = comparison.published_corpus(cell.config), cell.config.data
    note = (
        f"Ours are of {d.faces} faces and {d.voices} voices and the paper's of CREMA-D and "
        "RAVDESS: another corpus, not comparable."
    )
    if of:
        note = f"The paper's figures are of {of}, as ours; its sets, sizes and classifiers "
        note += "are not known exactly."
    note += f" FID and IS beside the paper's: {NOT_COMPARABLE}."
    if voices:
        note += (
            " Accuracies are of real voices of S4's subjects, balanced by class, in %, "
            "mean ± sd (n − 1) over folds and seeds."
        )
    if cell.config.name == "quick":
        note += (
            "\n\n**The grid `quick` has a handful of training steps: it shows that everything "
            "works; its figures mean nothing.**"
        )
    return note


def _table_sections(voices: RunsByCase, made_by: str, of: str) -> list[str]:
    """Table 1, conformal prediction, raters, the augmentation tables and the headline gains."""
    text = []
    if any(f"{k} · {c}" in voices for k in PUBLISHED_TABLE_1 for c in PUBLISHED_TABLE_1[k]):
        note = "Accuracy with S1 + generated, in %; the paper's is of CREMA-D."
        text += [f"## Table 1{of}", note, tables.table_1_text(voices)]
    inductive = voices.get("inductive CP", voices.get("EncDec · CP"))
    share = tables.calibration_share_text(inductive[0][1]) if inductive else ""
    if conformal := [part for part in (share, tables.conformal_text(voices)) if part]:
        note = "How the paper chose r (§3.1, §4.4): inductive beside full CP."
        text += [f"## Conformal prediction in classification{of}", note, *conformal]
    if raters := tables.raters_text(next(iter(voices.values()))[0][0]):
        text += [f"## People{of}", raters]
    tabled = {k: [r for _, r in m if r.json("table")] for k, m in voices.items()}
    tabled = {k: have for k, have in tabled.items() if have}
    for name, have in tabled.items():
        table = tables.augmentation_text([r.json("table") for r in have])
        text += [f"## Augmentation table: {name}{of}", table]
        text += [tables.gains_text(tables.gains_of(have))]
    if tabled:
        return [*text, f"## Headline gains{of}", tables.headline_text(tabled)]
    return [*text, f"## Augmentation table{of}", f"No run has one yet: `{made_by} --table`."]


def _both_corpora_section(voices: dict[str, RunsByCase], out: Path, here: str) -> list[str]:
    """Fig. 9 as in the paper: the baseline and condition CP of both corpora."""
    case = "EncDec · CP"
    shown = {f"{corpus}: {case}": found[case] for corpus, found in voices.items() if case in found}
    if len(shown) < 2:
        return []
    figure = save_figure(figures.figure_9(shown), out, "fig9")
    title = f"## Figure 9: spread over folds, {' and '.join(voices)}"
    return [title, figure, commands_text(_runs_of(shown), here)]


def save_figure(figure: Figure, out: Path, name: str) -> str:
    """Write <name>.png and .pdf; returns the Markdown that shows the figure."""
    figure.draw_without_rendering()  # lay it out once, not for each file
    figure.set_layout_engine("none")
    for kind in ("png", "pdf"):
        figure.savefig(out / f"{name}.{kind}", dpi=130)
    return f"![{name}]({name}.png) ([pdf]({name}.pdf))"


def _sample_sections(
    found: RunsByCase, out: Path, here: str, of: str = "", end: str = ""
) -> list[str]:
    """Figs 6 and 7: samples of S4's faces by the first run (fold and seed) of each case."""
    text = []
    for name, (title, cases) in figures.SAMPLE_FIGURES.items():
        members = {k: found[k][0] for k in cases if k in found}
        if name == "fig6" and not members:  # a grid without the paper's cases
            firsts = {k: m[0] for k, m in found.items()}
            voices = [k for k, (c, _) in firsts.items() if c.config.gan.direction == "face-voice"]
            members = {k: firsts[k] for k in voices[:3]}
        if not members:
            continue
        rows = figures.sample_rows(members)
        classes = next(iter(members.values()))[0].config.data.classes
        number = "7b" if name == "fig7b" else "6"
        missing = "" if any(r.title.startswith("real") for r in rows) else REAL_SAMPLES_MISSING
        figure = save_figure(figures.figure_samples(rows, classes), out, f"{name}{end}")
        commands = commands_text([r for _, r in members.values()], here)
        text += [f"## Figure {number}: {title}{of}", figure + missing, commands]
    return text


def _figure_sections(
    voices: RunsByCase, out: Path, here: str, of: str = "", end: str = ""
) -> list[str]:
    """Figs 8 to 11: each a title, the figure, and the commands that make it."""

    def section(title: str, figure: Figure, name: str, members: list[Run], note: str = ""):
        return [
            f"## Figure {title}{of}",
            note + save_figure(figure, out, f"{name}{end}"),
            commands_text(members, here),
        ]

    # Fig. 8: confusion of up to three cases; Fig. 9: spread
    encdec = ("EncDec · label", "EncDec · classifier", "EncDec · CP")
    named = [k for k in encdec if k in voices] or list(voices)
    with_s1 = [k for k in named if figures.confusion_shares(voices[k], "S1") is not None]
    text, shown = [], {k: voices[k] for k in with_s1[:3]}
    if shown:
        under = "; ".join(f"{name}: {tables.describe_test(m)}" for name, m in shown.items())
        figure = figures.figure_8(shown)
        text += section("8: confusion", figure, "fig8", _runs_of(shown), f"{under}.\n\n")
    figure = figures.figure_9(voices)
    text += section("9: spread over folds", figure, "fig9", _runs_of(voices))

    # Fig. 10: losses of a run that trains Q as well, if there is one; Fig. 11: quality of one run
    first = ("EncDec · CP", protocol.JOINT_Q_CASE, *shown)
    name = next((k for k in first if k in voices), next(iter(voices)))
    run = voices[name][0][1]
    with_q = [k for k in (*first, *voices) if k in voices and _trains_q(voices[k][0][0])]
    losses = [
        ("losses of G's terms", ("loss/G", "loss/adversarial", "loss/l1", "loss/class")),
        ("losses of D and Q", ("loss/D", "loss/Q")),
    ]
    quality = [(k, (k, f"{k} real")) for k in ("FID", "KID", "IS")]
    lossy = with_q[0] if with_q else name
    figure = figures.figure_curves(voices[lossy][0][1], losses, lossy)
    note = "" if with_q else f"Q is frozen in all these runs; `{protocol.JOINT_Q_CASE}` trains it."
    note += "\n\n" if note else ""
    text += section("10: losses", figure, "fig10", [voices[lossy][0][1]], note)
    figure = figures.figure_curves(run, quality, name)
    title = "11: FID, KID and IS while training (S2's faces)"
    text += section(title, figure, "fig11", [run])

    # Fig. 11, §4.6: less target data
    shares = [f"{s} of the target data" for s in ("100%", "50%", "20%")]
    sparse = {s: voices[k] for s in shares if (k := f"{s} · CP") in voices}
    if len(sparse) > 1:
        title = "11: less of the target data (§4.6)"
        figure = figures.figure_sparsity(sparse)
        text += section(title, figure, "fig11-sparsity", _runs_of(sparse))
    return text


def _trains_q(cell: Cell) -> bool:
    return cell.config.gan.q_training == "joint"


def commands_text(members: Sequence[Run], here: str) -> str:
    """The commands behind a figure: the report's, and those of its (first three) runs."""
    each = list({r.id: r for r in members}.values())
    shown = each[:MAX_LISTED_RUNS]
    files_of = [f"{display_path(r)}/config.json" for r in shown]
    commands = [f"`python -m core train --config-file {path}`" for path in files_of]
    more = f" and {len(each) - len(shown)} more" if len(each) > len(shown) else ""
    return f"Figure: `{here}`. Runs: {', '.join(commands)}{more}."


def display_path(run: Run) -> str:
    """A run's directory, relative to the working directory where it lies inside it."""
    path, here = run.directory, Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
