"""The report on a grid `labels`: its curve as a figure, its tests and tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from core import files
from core.evaluation.few_labels import curve, rows
from core.evaluation.protocol import CONDITION_NAMES, Cell
from core.evaluation.reporting.report import save_figure
from core.evaluation.reporting.tables import markdown_table
from core.evaluation.significance import STEP_RULE_NAMES, STEP_RULES, format_p_value

SURROGATE_NOTE = (
    "**Surrogate pairs**: each face and voice were joined once by a hidden label; they are of no "
    "common person. The joining read labels, no training did."
)
PRIVACY_NOTE = (
    "What a generator gives away of S3's recordings (pseudo-labels pass the recordings "
    "themselves on). Attack: AUC of guessing from the distance to generated voices whether a voice "
    "trained G, 0.5 is chance. Nearest: distance of generated voices to S3's over that of new "
    "people's, 0 for copies."
)
_NO_LINE: dict[str, dict[str, float]] = dict.fromkeys(STEP_RULES, {})
S2_NOTE = (
    "S2's voices, which choose a row's best steps and a family's row, are labelled in every case: "
    "the few labels are those that train."
)


def write(cells: Sequence[Cell], out: Path, made_by: str, here: str) -> Path:
    """Write report.md, a figure for each condition, and the summary that the page Evaluate shows.

    Returns the path of report.md. Raises UserError where no run of the grid has its table.
    """
    found = curve.summary(cells, made_by)
    out.mkdir(parents=True, exist_ok=True)
    figures = {}
    for name in conditions(found):
        stem = "-".join(["labels", *name.lower().replace(",", "").split()])
        figures[name] = save_figure(draw(found, name), out, stem)
    saved = curve.save(found)
    text = [*sections(found, figures), f"Made by `{here}` from the runs of `{made_by}`."]
    text.append(f"Evaluate's view *Labels* shows `{saved.name}`, kept in `{saved.parent.name}/`.")
    files.write_atomic(out / "report.md", "\n\n".join(text) + "\n")
    return out / "report.md"


def by_preset(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells of each preset, which have a curve of their own."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.config.name.removesuffix("-labels"), []).append(cell)
    return groups


def sections(found: Mapping[str, Any], figures: Mapping[str, str] | None = None) -> list[str]:
    """All parts of the report as Markdown; `figures`: condition -> its curve's picture."""
    text = [f"# Few labels: {found['preset']}", describe(found)]
    if is_surrogate(found):
        text.append(SURROGATE_NOTE)
    text.append("## Label-efficiency curve")
    for condition in conditions(found):
        text += [f"Generator told: {condition}.", (figures or {}).get(condition, "")]
        text += [curve_text(found, condition), worth_text(found, condition)]
    text.append(S2_NOTE)
    if headlines := headline_points(found):
        text += [f"## {curve.HEADLINE_COUNT} labelled voices a class: rows", rows_text(found)]
        for condition, point in headlines.items():
            title = f"## Headline gains, generator told: {condition}"
            text += [title, size_text(point), gains_text(point)]
        text += ["## The choice of conformal prediction", choice_text(found)]
    if found["conditions"]:
        text += ["## One condition or generator against another", conditions_text(found)]
    return [*filter(None, text), "## What is given away", PRIVACY_NOTE, privacy_text(found)]


def is_surrogate(found: Mapping[str, Any]) -> bool:
    """Whether the clips of a summary are surrogate pairs."""
    return str(found["corpus"]).startswith("surrogate")


def describe(found: Mapping[str, Any]) -> str:
    """Corpus, use of labels, chance, classifiers and number of runs, in words."""
    done = found["cells"]
    return (
        f"{found['corpus']}, {found['labels']}, {len(found['classes'])} classes, chance "
        f"{100 * found['chance']:.1f} %; {found['settings']}. {done['done']} of {done['all']} runs "
        "are done. Accuracy on S4's real voices in %, mean over test people [95 % band over them]."
    )


def conditions(found: Mapping[str, Any]) -> list[str]:
    """The conditions that have runs, CP first, those of a flow last."""
    told = dict.fromkeys(p["condition"] for p in found["points"])
    return [n for n in dict.fromkeys(("CP", *CONDITION_NAMES.values(), *told)) if n in told]


def headline_points(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Condition -> its point at the headline's number of labels, where that is done."""
    points = {p["condition"]: p for p in found["points"] if p["a class"] == curve.HEADLINE_COUNT}
    return {name: points[name] for name in conditions(found) if name in points}


def curve_points(found: Mapping[str, Any], condition: str) -> list[dict[str, Any]]:
    """A condition's points, fewest labels first.

    At a number of labels without runs of this condition, another's point stands for it, with the
    lines alone that no generator takes part in.
    """
    points = {p["a class"]: p for p in found["points"] if p["condition"] == condition}
    for p in found["points"]:
        lines = {k: v if k in curve.WITHOUT_GENERATED else _NO_LINE for k, v in p["lines"].items()}
        points.setdefault(p["a class"], p | {"lines": lines})
    return sorted(points.values(), key=lambda p: p["labelled"])


def aside(name: str, points: Sequence[Mapping[str, Any]]) -> float:
    """Factor of the number of labels at which a family is drawn.

    Not 1 for the families with a single point, which would hide each other.
    """
    lone = [k for k in curve.FAMILIES if sum(bool(p["lines"][k]["equal"]) for p in points) == 1]
    return 1.06 ** (lone.index(name) - (len(lone) - 1) / 2) if name in lone else 1.0


def size_text(point: Mapping[str, Any]) -> str:
    """How many trainings and people stand behind a point."""
    folds, seeds, people = (point[k] for k in ("folds", "seeds", "people"))
    parts = (f"{n} {what}{'s' * (n != 1)}" for n, what in ((folds, "fold"), (seeds, "seed")))
    return f"At {labels_text(point)} labels a class: {' × '.join(parts)}, {people} people."


def labels_text(point: Mapping[str, Any]) -> str:
    """Labelled voices a class: "10", or "all (100)"."""
    return str(point["a class"] or f"all ({point['labelled']:.0f} voices)")


def format_accuracy(one: Mapping[str, Any]) -> str:
    """A mean in % with its band; "–" where it is missing.

    >>> format_accuracy({"mean": 0.4, "band": [0.35, 0.45]})
    '40.0 [35.0, 45.0]'
    """
    if not one:
        return "–"
    low, high = (f"{100 * v:.1f}" for v in one["band"]) if "band" in one else ("", "")
    return f"{100 * one['mean']:.1f}" + (f" [{low}, {high}]" if low else "")


def curve_text(found: Mapping[str, Any], condition: str) -> str:
    """Accuracy of each family of rows by the number of labels, under both step rules."""
    lines = []
    for p in curve_points(found, condition):
        size = f"{p['folds']} × {p['seeds']}", f"{p['people']}"
        for rule in STEP_RULES:
            values = [format_accuracy(p["lines"][k][rule]) for k in curve.FAMILIES]
            lines.append([labels_text(p), STEP_RULE_NAMES[rule], *size, *values])
    head = ["labelled voices a class", "steps", "folds × seeds", "people", *curve.FAMILIES]
    return markdown_table(head, lines)


def worth_text(found: Mapping[str, Any], condition: str) -> str:
    """(c'): how many labels a condition's voices are worth, in a sentence for each step rule."""
    told = []
    for rule, w in found["worth"].get(condition, {}).items():
        if not w:
            continue
        number = "more than " + f"{w['beyond']:.0f}" if w["needs"] is None else f"{w['needs']:.0f}"
        low, high = (f"> {w['beyond']:.0f}" if v is None else f"{v:.0f}" for v in w["band"])
        told.append(
            f"(c') {STEP_RULE_NAMES[rule]}: to match {w['labels']} labels a class with generated "
            f"voices, S1 alone needs {number} a class "
            f"(95 %: {low} to {high}; {w['people']} people)."
        )
    return " ".join(told) or "(c') needs S1 at two numbers of labels or more."


def rows_text(found: Mapping[str, Any]) -> str:
    """Every row at the headline's number of labels, under both rules, by condition."""
    lines, first = [], next(iter(headline_points(found)), "")
    for p in found["points"]:
        if p["a class"] != curve.HEADLINE_COUNT:
            continue
        for row in rows.ROWS:
            at = p["lines"].get(row.name)
            if at and (p["condition"] == first or "generated" in row.name):
                sd = at["equal"].get("sd")
                spread = "–" if sd is None else f"{100 * sd:.1f}"
                values = [format_accuracy(at[rule]) for rule in STEP_RULES]
                lines.append([p["condition"], row.name, *values, spread, str(p["runs"])])
    head = ["condition", "trained on", "equal steps", "own best steps", "sd over runs", "runs"]
    return markdown_table(head, lines)


def gains_text(point: Mapping[str, Any]) -> str:
    """All comparisons of a point in points with their tests; the headlines say whether they hold"""
    lines, holds = [], []
    for g in point["gains"]:
        change = _points_text(g)
        if g["recovered"] is not None:
            change += f"; {100 * g['recovered']:.0f} % of the way to the ceiling"
        name = f"({g['name']}) " if g["name"] in ("a'", "b'") else ""
        name += rows.HEADLINE_TEXTS.get(g["name"], g["name"])
        lines.append([name, STEP_RULE_NAMES[g["rule"]], " − ".join(g["rows"]), change, *_tests(g)])
    for name in rows.HEADLINES:
        is_held = holds_in(point, name)
        holds.append(f"{name} {'holds' if is_held else 'does not hold'} under both rules")
    head = ["comparison", "steps", "rows", "points [95 %]", "p", "p, Holm", "people"]
    return f"{markdown_table(head, lines)}\n\n{'; '.join(holds)}."


def holds_in(point: Mapping[str, Any], name: str, level: float = 0.05) -> bool:
    """Whether a comparison is above 0 and significant over people under both step rules."""
    both = [g for g in point["gains"] if g["name"] == name]
    held = all(g["difference"] > 0 and g["adjusted"] < level for g in both)
    return {g["rule"] for g in both} == set(STEP_RULES) and held


def _points_text(g: Mapping[str, Any]) -> str:
    text = f"{100 * g['difference']:+.1f}"
    return text + (
        f" [{100 * g['interval'][0]:+.1f}, {100 * g['interval'][1]:+.1f}]" if g["interval"] else ""
    )


def _tests(g: Mapping[str, Any]) -> list[str]:
    return [format_p_value(g["p"]), format_p_value(g["adjusted"]), str(g["subjects"])]


def choice_text(found: Mapping[str, Any]) -> str:
    """On how many of S3's faces f_S is right, among all and among those that CP chooses."""
    chosen = next(iter(headline_points(found).values()), {}).get("choice")
    if chosen is None:
        return ""
    right = chosen.get("right where chosen")
    among = "" if right is None else f", and on {100 * right:.0f} % of these"
    return (
        f"f_S is right on {100 * chosen['right']:.0f} % of S3's faces. Conformal prediction "
        f"chooses {100 * chosen['share']:.0f} % of them{among} (S3's labels were read for these "
        "figures alone). Of pooled calibration with the margin the choice has the order of the "
        "softmax's margin; the p-values give the threshold its meaning."
    )


def conditions_text(found: Mapping[str, Any]) -> str:
    """One generator minus another, paired by person, Holm-corrected within a rule."""
    lines = [
        [
            *(f"{g['of']} − {g['against']}", g["name"], STEP_RULE_NAMES[g["rule"]]),
            *(_points_text(g), *_tests(g)),
        ]
        for g in found["conditions"]
    ]
    head = ["generators told", "row", "steps", "points [95 %]", "p", "p, Holm", "people"]
    return markdown_table(head, lines)


def privacy_text(found: Mapping[str, Any]) -> str:
    """Attack and nearest neighbour of each point, on spectrograms and on the scorer's features."""
    lines = []
    for p in found["points"]:
        figures = [
            f"{p['privacy'][of].get(k, float('nan')):.2f}"
            for of in ("spectrograms", "features")
            for k in ("attack", "nearest")
        ]
        lines.append([labels_text(p), p["condition"], *figures, str(p["runs"])])
    head = ["labelled voices a class", "condition", "attack, spectrograms", "nearest, spectrograms"]
    return markdown_table([*head, "attack, features", "nearest, features", "runs"], lines)


def draw(found: Mapping[str, Any], condition: str) -> Figure:
    """A condition's curve under both step rules: a line and a band over people for each family."""
    figure = Figure((11, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    points, classes = curve_points(found, condition), len(found["classes"])
    x = [p["labelled"] / classes for p in points]
    for ax, rule in zip(axes, STEP_RULES, strict=True):
        for name in curve.FAMILIES:
            at = [(v, p["lines"][name][rule]) for v, p in zip(x, points, strict=True)]
            at = [(v * aside(name, points), one) for v, one in at if one]
            means = [100 * o["mean"] for _, o in at]
            (line,) = ax.plot([v for v, _ in at], means, "o-", ms=4, label=name)
            bands = [(v, o["band"]) for v, o in at if "band" in o]
            low, high = ([100 * b[i] for _, b in bands] for i in (0, 1))
            across, colour = [v for v, _ in bands], line.get_color()
            ax.fill_between(across, low, high, alpha=0.12, color=colour, lw=0)
            if len(bands) == 1:  # a band has no width there
                ax.vlines(across, low, high, color=colour, lw=1.2)
        ax.axhline(100 * found["chance"], ls=":", color="k", lw=1, label="chance")
        ax.set(xscale="log", xlabel="labelled voices a class in S1", title=STEP_RULE_NAMES[rule])
        ax.set_xticks(x, [f"{v:.0f}" for v in x])
        ax.minorticks_off()
    axes[0].set_ylabel("accuracy on S4's people, %")
    axes[1].legend(fontsize=7)
    mark = ", surrogate pairs" if is_surrogate(found) else ""
    figure.suptitle(f"{found['preset']}{mark}; generator told: {condition}", fontsize=10)
    return figure
