"""§4.5-4.6: a report of finished runs beside the paper, as Markdown with png and pdf figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from core import files, runs
from core.data import labels
from core.evaluation import comparison, protocol, significance
from core.evaluation.comparison import RunSummary
from core.evaluation.protocol import Cell
from core.evaluation.reporting import figures
from core.evaluation.reporting.figures import accuracies
from core.evaluation.results import quality, rules_note
from core.evaluation.significance import Gain, format_mean, format_p_value
from core.published import PUBLISHED_ELSEWHERE, PUBLISHED_TABLE_1, PUBLISHED_TABLE_2
from core.runs import Run

RunsByCase = dict[str, list[tuple[Cell, Run]]]  # case -> its finished runs over folds and seeds
# CREMA-D: share of single ratings that match the intended emotion, in %
SINGLE_RATING_ACCURACY = {"voice": 40.9, "face": 58.2, "both": 63.6}
GAIN_TITLES = {
    "a": "**(a)** what generated voices add to S1",
    "b": "**(b)** what generation adds to S1 + S3",
}
NOT_COMPARABLE = "other scorer, N, classes: not comparable"
REAL_SAMPLES_MISSING = (
    "\n\nReal faces and voices are not shown: the corpora that these runs were trained on "
    "are not prepared here."
)
MAX_FEW_SUBJECTS = 6  # up to here the report names the smallest possible p-value
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


def _summaries(found: RunsByCase) -> dict[str, list[RunSummary]]:
    """The same runs as `comparison` reads them, without curves."""
    done = {"state": "done", "shipped": False}
    return {k: [comparison.summarise_run(r, done, {}) for _, r in m] for k, m in found.items()}


def markdown_table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown.

    >>> print(markdown_table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows])


def describe_test(members: Sequence[tuple[Cell, Run]]) -> str:
    """The conditions of a case's figures: labels, classes, chance, N, number of runs."""
    results = [r.json("results") for _, r in members]
    config = members[0][0].config
    target = config.gan.direction.split("-")[1]
    n = "/".join(map(str, sorted({x[f"N test {target}s"] for x in results})))
    of = f"N = {n}" + (" faces" if target == "face" else "")
    chance = f"{len(results[0]['classes'])} classes, chance {100 * results[0]['chance']:.1f} %"
    count = f"{len(members)} run" + ("s" if len(members) > 1 else "")
    return f"{protocol.labels_mode(config)}; {chance}; {of}; {count}"


# ------------------------------------------------------------------ tables of cases


def cases_text(found: RunsByCase) -> str:
    """Every case: accuracies (of voices, reverse: faces), f_S, FID and IS with real references."""
    rows = ("S1", "S1 + generated", "S1 + S3")
    head = ["case", "section", *rows, "f_S", "FID (real)", "IS (real)", "under"]
    lines = []
    for name, m in found.items():
        source = m[0][0].config.gan.direction.split("-")[0]
        results = [r.json("results") for _, r in m]
        f_S = format_mean([x[source]["accuracy"] for x in results], 100) + f" ({source}s)"
        keys = ("FID", "FID real", "IS", "IS real")
        means = {k: format_mean([quality(x, k) for x in results], digits=2) for k in keys}
        both = [f"{means[k]} ({means[f'{k} real']})" for k in ("FID", "IS")]
        figures_of = [format_mean(accuracies(m, row), 100) for row in rows]
        lines.append([name, m[0][0].section, *figures_of, f_S, *both, describe_test(m)])
    every = [r for m in found.values() for _, r in m]
    note = rules_note({r.id: (r.json("results"), r.json("table")) for r in every})
    return "\n\n".join(filter(None, [markdown_table(head, lines), note]))


def table_1_text(found: RunsByCase) -> str:
    """Table 1: ours beside the paper's (CREMA-D), after a row of the baseline S1."""
    entries = comparison.table_1_rows(comparison.table_1(_summaries(found)))
    baseline, first = ["baseline: S1"], next(iter(found.values()))
    published = f"{PUBLISHED_TABLE_2['CREMA-D']['audio baseline'][0]:.2f}"
    for kind in PUBLISHED_TABLE_1:
        names = [f"{kind} · {c}" for c in ("CP", "label", "classifier")]
        members = next((found[k] for k in names if k in found), first)
        baseline += [format_mean(accuracies(members, "S1"), 100), published]
    return markdown_table(list(entries[0]), [baseline, *(e.values() for e in entries)])


def table_2_text(found: RunsByCase) -> str:
    """Table 2 in Markdown, of EncDec or else of the grid's cases: ours beside the paper's."""
    of = _summaries(found)
    rows = {c: m for c, m in comparison.by_condition(of).items() if m} or of
    entries = comparison.table_2_rows(comparison.table_2(rows))
    return markdown_table(list(entries[0]), [e.values() for e in entries])


def raters_text(cell: Cell) -> str:
    """How often raters' winning votes match the intended emotion; "" for a corpus without votes."""
    rows = []
    for by in labels.VOTE_MODALITIES:
        if (m := figures.rater_shares(cell, by)) is not None:
            share = f"{100 * float(np.diag(m).mean()):.1f}"
            rows.append([by, share, f"{SINGLE_RATING_ACCURACY[by]:.1f}"])
    if not rows:
        return ""
    head = ["raters had", "winning votes right, % (mean over classes)"]
    head.append("single ratings right, %, CREMA-D's authors")
    note = "A clip's winning vote is right more often than a single rating.\n\n"
    return note + markdown_table(head, rows)


# ------------------------------------------------------------------ augmentation tables and gains


def augmentation_text(tables: Sequence[dict]) -> str:
    """The augmentation table over runs (contents of table.json), by step rule.

    Mean ± sd over runs of each run's mean over its trainings.
    """
    first, rows = tables[0], []
    for row in protocol.TABLE_ROWS:
        have = [t["rows"][row.name] for t in tables if row.name in t["rows"]]
        if not have:
            reason = "not defined: " + first["left out"].get(row.name, "")
            rows.append([row.name, "–", reason, "–", "–"])
            continue
        n = "/".join(map(str, sorted({h["N train"] for h in have})))
        steps = sorted(s for h in have for s in h["best"]["steps"])
        shown = [
            format_mean([float(np.mean(h[rule]["accuracy"])) for h in have], 100)
            for rule in significance.STEP_RULES
        ]
        rows.append([row.name, n, *shown, f"{steps[0]}–{steps[-1]}"])
    subjects = {n for t in tables for n in t["test subjects"]}
    note = (
        f"labels: {first['labels']} · chance {100 * first['chance']:.1f} % · "
        f"{len(subjects)} test subjects · {len(tables)} runs, "
        f"{first['plan']['seeds']} trainings of each row in each"
    )
    equal = f"equal steps ({first['rows']['S1']['equal']['steps'][0]}), %"
    head = ["trained on", "N", equal, "own best steps on S2, %", "these steps"]
    return f"{note}\n\n{markdown_table(head, rows)}"


def _points_text(g: Gain) -> str:
    return significance.format_gain(g, 2).replace(" points", "")


def _test_cells(g: Gain) -> list[str]:
    return [*map(format_p_value, (g.p, g.adjusted)), str(g.subjects)]


def gains_of(found: Sequence[Run]) -> list[Gain]:
    """`significance.gains` over the tables of runs; [] if none has a table."""
    tables = [t for r in found if (t := r.arrays("table"))]
    return significance.gains(tables) if tables else []


def gains_text(gains: Sequence[Gain]) -> str:
    """All comparisons in points with their tests, and whether the headline gains hold."""
    rows = []
    for g in gains:
        name, change = GAIN_TITLES.get(g.name, g.name), _points_text(g)
        if g.recovered is not None:
            change += f"; {100 * g.recovered:.0f} % of the way to the ceiling"
        rows.append([name, g.rule, " − ".join(g.rows), change, *_test_cells(g)])
    head = ["comparison", "steps", "rows", "points [95 %]", "p", "p, Holm", "subjects"]
    holds = {k: significance.is_significant(gains, k) for k in GAIN_TITLES}
    verdict = " · ".join(
        f"({k}) {'holds' if v else 'does not hold'} under both rules" for k, v in holds.items()
    )
    few, note = min((g.subjects for g in gains), default=0), ""
    if 0 < few <= MAX_FEW_SUBJECTS:
        note = f" With {few} subjects no p below {2 / 2**few:.4f} is possible."
    return f"{markdown_table(head, rows)}\n\n{verdict}.{note}"


def headline_text(have: dict[str, list[Run]]) -> str:
    """Gains (a) and (b) of every case with tables.

    The first case of condition CP is the primary endpoint; the p-values of the other cases are
    Holm-corrected among them, within each rule.
    """
    primary = next((k for k in have if k.endswith("· CP")), next(iter(have)))
    gains = {k: gains_of(members) for k, members in have.items()}
    rows = []
    for rule in significance.STEP_RULES:
        names = significance.PRIMARY_COMPARISONS
        both = [(k, g) for k, of in gains.items() for g in of if g.rule == rule]
        found = [(k, g) for k, g in both if g.name in names]
        p_values = np.array([g.p for k, g in found if k != primary])
        others = significance.holm_p_values(p_values).tolist()
        for k, g in found:
            case, p = (f"{k} (primary)", g.p) if k == primary else (k, others.pop(0))
            share = "" if g.recovered is None else f"{100 * g.recovered:.0f} %"
            points = f"{100 * g.difference:+.2f}"
            rows.append([case, f"({g.name})", rule, points, share, format_p_value(p)])
    head = ["case", "gain", "steps", "points", "of the way to the ceiling"]
    return markdown_table([*head, "p, Holm except for the primary"], rows)


def methods_text(ours: Sequence[Run], theirs: Sequence[Run], names: tuple[str, str]) -> str:
    """Two methods on equal sets, row by row, paired by test subject."""
    tables = [[t for r in found if (t := r.arrays("table"))] for found in (ours, theirs)]
    gains = significance.method_gains(*tables)
    if not gains:
        return "No two runs of both have a table of the same test voices."
    rows = [[g.name, g.rule, _points_text(g), *_test_cells(g)] for g in gains]
    change = f"{names[0]} − {names[1]}, points [95 %]"
    return markdown_table(["row", "steps", change, "p", "p, Holm", "subjects"], rows)


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
    found, missing = finished_runs(cells, folder)
    if not found:
        raise files.UserError(f"no run of this grid is done; train them with: {made_by}")
    runs.index_existing(folder)
    out.mkdir(parents=True, exist_ok=True)

    # runs in the report, and cells without a run
    done, note = sum(map(len, found.values())), "."
    if missing:
        more = " …" if len(missing) > MAX_LISTED_CELLS else ""
        note = f", {len(missing)} are not: {'; '.join(missing[:MAX_LISTED_CELLS])}{more}."
    summary = f"Made by `{here}` from the runs of `{made_by}`. {done} runs are done{note}"
    text = ["# The paper's experiments", summary]
    if any(c.section == "§4.7" for c in cells) and not any(c.config.data.f_s_corpus for c in cells):
        text.append(f"Left out: {protocol.F_S_CORPUS_HINT}.")

    # tables
    voices = {k: m for k, m in found.items() if m[0][0].config.gan.direction == "face-voice"}
    first = next(iter(found.values()))[0][0]
    text += [_comparability_note(first, bool(voices)), "## Every case", cases_text(found)]
    text += _table_sections(voices, made_by) if voices else []
    if against:
        groups = (voices, finished_runs(against, folder)[0])
        ours, theirs = ([r for m in group.values() for _, r in m] for group in groups)
        names = cells[0].config.name, against[0].config.name
        text += [f"## {names[0]} against {names[1]}", methods_text(ours, theirs, names)]

    # figures
    text += _sample_sections(found, out, here)
    text += _figure_sections(voices, out, here) if voices else []
    text.append(f"Every table and figure above is made again by `{here}`.")
    files.write_atomic(out / "report.md", "\n\n".join(text) + "\n")
    return out / "report.md"


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


def _table_sections(voices: RunsByCase, made_by: str) -> list[str]:
    """Tables 2 and 1, raters, the augmentation tables and the headline gains."""
    text = ["## Table 2", f"{table_2_text(voices)}\n\n{PUBLISHED_ELSEWHERE}"]
    if any(f"{k} · {c}" in voices for k in PUBLISHED_TABLE_1 for c in PUBLISHED_TABLE_1[k]):
        note = "Accuracy with S1 + generated, in %; the paper's is of CREMA-D."
        text += ["## Table 1", note, table_1_text(voices)]
    if raters := raters_text(next(iter(voices.values()))[0][0]):
        text += ["## People", raters]
    tabled = {k: [r for _, r in m if r.json("table")] for k, m in voices.items()}
    tabled = {k: have for k, have in tabled.items() if have}
    for name, have in tabled.items():
        table = augmentation_text([r.json("table") for r in have])
        text += [f"## Augmentation table: {name}", table, gains_text(gains_of(have))]
    if tabled:
        return [*text, "## Headline gains", headline_text(tabled)]
    return [*text, "## Augmentation table", f"No run has one yet: `{made_by} --table`."]


def save_figure(figure: Figure, out: Path, name: str) -> str:
    """Write <name>.png and .pdf; returns the Markdown that shows the figure."""
    for kind in ("png", "pdf"):
        figure.savefig(out / f"{name}.{kind}", dpi=130)
    return f"![{name}]({name}.png) ([pdf]({name}.pdf))"


def _sample_sections(found: RunsByCase, out: Path, here: str) -> list[str]:
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
        figure = save_figure(figures.figure_samples(rows, classes), out, name)
        commands = commands_text([r for _, r in members.values()], here)
        text += [f"## Figure {number}: {title}", figure + missing, commands]
    return text


def _figure_sections(voices: RunsByCase, out: Path, here: str) -> list[str]:
    """Figs 8 to 11: each a title, the figure, and the commands that make it."""

    def section(title: str, figure: Figure, name: str, members: list[Run], note: str = ""):
        return [title, note + save_figure(figure, out, name), commands_text(members, here)]

    def runs_of(cases: RunsByCase) -> list[Run]:
        return [r for m in cases.values() for _, r in m]

    # Fig. 8: confusion of up to three cases; Fig. 9: spread
    encdec = ("EncDec · label", "EncDec · classifier", "EncDec · CP")
    named = [k for k in encdec if k in voices] or list(voices)
    with_s1 = [k for k in named if figures.confusion_shares(voices[k], "S1") is not None]
    text, shown = [], {k: voices[k] for k in with_s1[:3]}
    if shown:
        under = "; ".join(f"{name}: {describe_test(m)}" for name, m in shown.items())
        figure = figures.figure_8(shown)
        text += section("## Figure 8: confusion", figure, "fig8", runs_of(shown), f"{under}.\n\n")
    figure = figures.figure_9(voices)
    text += section("## Figure 9: spread over folds", figure, "fig9", runs_of(voices))

    # Figs 10 and 11: curves of one run
    name = next((k for k in ("EncDec · CP", *shown) if k in voices), next(iter(voices)))
    run = voices[name][0][1]
    losses = [
        ("losses of G's terms", ("loss/G", "loss/adversarial", "loss/l1", "loss/class")),
        ("loss of D", ("loss/D", "loss/Q")),
    ]
    quality = [(k, (k, f"{k} real")) for k in ("FID", "KID", "IS")]
    figure = figures.figure_curves(run, losses, name)
    text += section("## Figure 10: losses", figure, "fig10", [run])
    figure = figures.figure_curves(run, quality, name)
    title = "## Figure 11: FID, KID and IS while training (S2's faces)"
    text += section(title, figure, "fig11", [run])

    # Fig. 11, §4.6: less target data
    shares = [f"{s} of the target data" for s in ("100%", "50%", "20%")]
    sparse = {s: voices[k] for s in shares if (k := f"{s} · CP") in voices}
    if len(sparse) > 1:
        title = "## Figure 11: less of the target data (§4.6)"
        figure = figures.figure_sparsity(sparse)
        text += section(title, figure, "fig11-sparsity", runs_of(sparse))
    return text


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
