"""§4.5: tables of finished runs in Markdown: the cases, Tables 1 and 2, conformal, augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core.config.presets import Method, with_method
from core.config.settings import Config
from core.data import labels
from core.evaluation import comparison, protocol, significance
from core.evaluation.comparison import RunSummary
from core.evaluation.protocol import Cell
from core.evaluation.reporting import calibration_share, figures
from core.evaluation.reporting.figures import accuracies
from core.evaluation.results import quality, rules_note
from core.evaluation.significance import Gain, format_mean, format_p_value
from core.files import UserError
from core.paper.equations import markdown_table
from core.paper.published import PUBLISHED_TABLE_1, PUBLISHED_TABLE_2
from core.runs.directory import Run

RunsByCase = dict[str, list[tuple[Cell, Run]]]  # case -> its finished runs over folds and seeds
# CREMA-D: share of single ratings that match the intended emotion, in %
SINGLE_RATING_ACCURACY = {"voice": 40.9, "face": 58.2, "both": 63.6}
GAIN_TITLES = {
    "a": "**(a)** what generated voices add to S1",
    "b": "**(b)** what generation adds to S1 + S3",
}
MAX_FEW_SUBJECTS = 6  # up to here the report names the smallest possible p-value


def _summaries(found: RunsByCase) -> dict[str, list[RunSummary]]:
    """The same runs as `comparison` reads them, without curves."""
    done = {"state": "done", "shipped": False}
    return {k: [comparison.summarise_run(r, done, {}) for _, r in m] for k, m in found.items()}


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


METHODS: dict[Method, str] = {
    "paper": "the paper's method",
    "strict": "the paper's method, S3's labels unread",
    "studio": "our method",
}


def describe_game(config: Config) -> str:
    """The losses, networks and optimiser behind a run's columns, and the method they belong to."""
    g = config.gan
    sizes = ("width", "batch", "z", "steps", "lr_g", "lr_d", "augment")
    free = {*sizes, "generator", "use_source", "direction", "l1"}
    named = "a mixture of methods"
    for method, words in METHODS.items():
        of_method = with_method(method, config).gan
        if all(v == vars(g)[k] for k, v in vars(of_method).items() if k not in free):
            named = words
    q = "trained on S3 beside D" if g.q_training == "joint" else "trained on S1 and frozen"
    target = "the true labels" if g.q_labels == "true" else "argmax c"
    parts = [
        f"{g.optimiser.capitalize()} at {g.lr_g:g} for G and {g.lr_d:g} for D, {g.steps:,} steps",
        f"batches of {g.batch}",
        f"weights {g.adversarial:g} : {g.l1:g} : {g.classify:g} (adversarial, L1, class)",
        f"{g.d_norm} norm in D, its target {g.real_target:g}",
        f"R1 {g.r1:g}" if g.r1 else "no R1",
        "D sees c" if g.projection else "D does not see c",
        f"averaged weights of G ({g.average:g})" if g.average else "the last weights of G",
        f"Q {q}, its target {target}",
        f"{g.width} networks",
    ]
    classifiers = f"classifiers by {config.f_t.optimiser.capitalize()} at {config.f_t.lr:g}"
    return f"{named}: {', '.join(parts)}; {classifiers}"


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
    return markdown_table(list(entries[0]), [baseline, *(list(e.values()) for e in entries)])


def table_2_text(groups: Mapping[str, RunsByCase]) -> str:
    """Table 2 in Markdown, of EncDec or else of the grid's cases: ours beside the paper's.

    `groups` are the cases by corpus. A corpus of the paper stands beside its own figures; another
    one beside both of the paper's.
    """
    parts = {}
    for corpus, found in groups.items():
        of = _summaries(found)
        rows = {c: m for c, m in comparison.by_condition(of).items() if m} or of
        parts[corpus] = comparison.table_2(rows)
    if len(parts) == 1 and not set(parts) & set(PUBLISHED_TABLE_2):
        entries = comparison.table_2_rows(next(iter(parts.values())))
        return markdown_table(list(entries[0]), [list(e.values()) for e in entries])
    both: dict[str, dict[str, str]] = {}
    for corpus, found_entries in parts.items():
        for e in found_entries:
            label = comparison.METRIC_LABELS[e.metric]
            row = both.setdefault(e.case, {"case": e.case})
            row[f"{corpus}, ours: {label}"] = e.ours
            if corpus in PUBLISHED_TABLE_2:
                row[f"{corpus}, paper: {label}"] = e.paper(corpus)
    columns = list(dict.fromkeys(k for row in both.values() for k in row))
    columns = ["case", *sorted(columns[1:], key=lambda k: list(parts).index(k.split(", ")[0]))]
    return markdown_table(columns, [[row.get(k, "") for k in columns] for row in both.values()])


CONFORMAL_CASES = (  # how f_S's outputs become p-values, from the cheapest to Algorithm 1
    *("inductive CP", "50% of S2 calibrates · CP", "25% of S2 calibrates · CP"),
    *("inductive CP of a light head", "cross-conformal CP", "full CP"),
)


def calibration_share_text(run: Run) -> str:
    """§3.1, §4.4: inductive(r), cross-conformal and full CP on one run's S4, as r was chosen.

    "" for a run whose outputs hold no features of f_S.
    """
    try:
        choices = calibration_share.of_run(run, "S4")
    except UserError:
        return ""
    about = calibration_share.describe(run.config, choices, "S4")
    return f"{about} Run: {run.id}.\n\n{calibration_share.table(choices)}"


def conformal_text(found: RunsByCase) -> str:
    """§4.4: the predictors as conditions of runs, in classification; "" without such cases.

    A face is classified by its highest p-value; labels that share it count in equal parts.
    """
    rows = []
    for name in CONFORMAL_CASES:
        members = found.get(name, [])
        arrays = [a for _, r in members if "label_S4" in (a := r.arrays()) and "p_S4" in a]
        if not arrays:
            continue
        right = [highest_p_accuracy(a["p_S4"], a["label_S4"]) for a in arrays]
        levels = [r.json("results")["conformal"]["levels"]["0.1"] for _, r in members]
        n = "/".join(map(str, sorted({len(a["calibration"]) for a in arrays})))
        sizes = format_mean([x["set size"] for x in levels])
        errors = format_mean([x["error"] for x in levels], 100)
        faces = "/".join(map(str, sorted({len(a["label_S4"]) for a in arrays})))
        rows.append([name, n, format_mean(right, 100), errors, sizes, faces])
    head = ["predictor", "calibration points", "highest p is right, %", "error at 0.1, %"]
    head += ["set size at 0.1", "N"]
    return markdown_table(head, rows) if len(rows) > 1 else ""


def highest_p_accuracy(p: np.ndarray, label: np.ndarray) -> float:
    """Share of points whose highest p-value is the true label's, in [0, 1].

    p (n, K), label (n,). Of m labels that share the highest p-value each counts 1/m.

    >>> highest_p_accuracy(np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([0, 1]))
    0.75
    """
    top = p == p.max(axis=1, keepdims=True)
    return float((top[np.arange(len(p)), label] / top.sum(axis=1)).mean())


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
    if any(g.recovered is not None for g in gains):
        note += f" {significance.CEILING_TEXT}"
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
    table = markdown_table([*head, "p, Holm except for the primary"], rows)
    return f"{table}\n\n{significance.CEILING_TEXT}"


def methods_text(ours: Sequence[Run], theirs: Sequence[Run], names: tuple[str, str]) -> str:
    """Two methods on equal sets, row by row, paired by test subject."""
    tables = [[t for r in found if (t := r.arrays("table"))] for found in (ours, theirs)]
    gains = significance.method_gains(tables[0], tables[1])
    if not gains:
        return "No two runs of both have a table of the same test voices."
    rows = [[g.name, g.rule, _points_text(g), *_test_cells(g)] for g in gains]
    change = f"{names[0]} − {names[1]}, points [95 %]"
    return markdown_table(["row", "steps", change, "p", "p, Holm", "subjects"], rows)
