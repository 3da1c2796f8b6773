"""The view Labels: what generated voices are worth where few voices have labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from core.config.presets import PRESETS
from core.evaluation.few_labels import curve, report, rows
from core.evaluation.significance import STEP_RULE_NAMES, STEP_RULES
from core.files import UserError
from ui import theme
from ui.evaluate import figures, runs
from ui.widgets.charts import apply_layout

COLOURS = dict(  # of the curve's lines
    zip(curve.FAMILIES, (theme.REFERENCE_COLOUR, *theme.LINE_COLOURS), strict=False)
)
BAND_OPACITY = 0.12
TOLD = {  # condition of a report -> what the generator is told
    **{"CP": "p-values (CP)", "classifier": "softmax", "label": "true label"},
    **{"none": "nothing", "CP, flow": "p-values, our flow"},
    "classifier, flow": "softmax, our flow",
}
EXPLANATION = """
A source with labels (faces) should help where a target (voices) has few. *S1* has a few labelled
voices of each emotion; *S3* has clips without labels. **Pseudo-labels** are what f_S says of S3's
faces; **generated** voices are made from these faces. Conformal prediction may **choose** faces
that f_S is confident of. The **ceiling** knows S3's true labels."""


def show() -> None:
    """The label-efficiency curves whose reports are kept, the project's own among them."""
    try:
        found = curve.load_all()
    except UserError as e:
        st.error(theme.escape_markdown(str(e)), icon=":material/error:")
        return
    st.markdown(EXPLANATION)
    if not found:
        _show_command("demo", "No curve is kept here yet.")
        return
    left, middle, right = st.columns([2, 6, 3], gap="medium", vertical_alignment="bottom")
    with left:
        names = list(found)
        name = runs.choose_from_list("Corpus", "curve", names, names[0])
    with middle:
        told = report.conditions(found[name])
        words = TOLD.get
        condition = runs.choose_one("Generator told", "condition", told, told[0], words)
    with right:
        rules = STEP_RULE_NAMES
        rule = runs.choose_one("Training time", "steps", STEP_RULES, "equal", rules.get)
    _show_summary(found[name], condition, rule)


def _show_command(preset: str, words: str) -> None:
    options = f"--grid labels --preset {preset}"
    st.info(f"{words} These commands make it:", icon=":material/terminal:")
    st.code(
        f"python -m core sweep {options}\npython -m core report {options}",
        language="bash",
        wrap_lines=True,
    )


def _show_summary(found: Mapping[str, Any], condition: str, rule: str) -> None:
    if report.is_surrogate(found):
        st.warning(report.SURROGATE_NOTE, icon=":material/link:")
    st.caption(report.describe(found))
    st.plotly_chart(
        curve_figure(found, condition, rule),
        key="labels curve",
        config=figures.export_config("labels"),
        alt="accuracy against labelled voices of each emotion, with bands over test people",
    )
    point = report.headline_points(found).get(condition)
    _show_headlines(found, condition, point, rule)
    size = report.size_text(point) if point else ""
    st.caption(f"{size} {report.S2_NOTE}".strip())
    with st.expander("Every row", icon=":material/table:"):
        st.markdown(report.rows_text(found))
    with st.expander("Gains and their tests over people", icon=":material/rule:"):
        st.markdown(report.gains_text(point) if point else "No run of the headline is done.")
    with st.expander("One condition or generator against another", icon=":material/compare:"):
        st.markdown(report.conditions_text(found) if found["conditions"] else "Not measured.")
        st.markdown(report.choice_text(found))
    with st.expander("What a generator gives away", icon=":material/lock:"):
        st.markdown(report.PRIVACY_NOTE)
        st.markdown(report.privacy_text(found))
    runs.show_csv_download(csv_lines(found), "labels")
    if found["preset"] in PRESETS:
        _show_command(found["preset"], "This is a kept result.")


def _show_headlines(
    found: Mapping[str, Any], condition: str, point: Mapping[str, Any] | None, rule: str
) -> None:
    """The headline gains, and whether they hold under both rules, as metrics."""
    worth = found["worth"].get(condition, {}).get(rule)
    columns = st.columns(len(rows.HEADLINES) + 1, gap="large")
    if worth:
        more = worth["needs"] is None
        needs = f"> {worth['beyond']:.0f}" if more else f"{worth['needs']:.0f}"
        label = f"(c') to match {worth['labels']} and generated, S1 needs"
        columns[0].metric(label, f"{needs} labels", help=report.worth_text(found, condition))
    for column, name in zip(columns[1:], rows.HEADLINES, strict=True):
        gain = next((g for g in (point or {}).get("gains", ()) if _is(g, name, rule)), None)
        if point is None or gain is None:
            continue
        held = report.holds_in(point, name)
        words = "holds under both rules" if held else "not shown"
        title = f"({name})" if name != "whole" else name
        column.metric(
            f"{title}: {words}",
            f"{100 * gain['difference']:+.1f} points",
            help=f"{rows.HEADLINE_TEXTS[name]}; p = {gain['p']:.3f}, {gain['subjects']} people",
        )


def _is(gain: Mapping[str, Any], name: str, rule: str) -> bool:
    return gain["name"] == name and gain["rule"] == rule


def curve_figure(found: Mapping[str, Any], condition: str, rule: str) -> go.Figure:
    """Accuracy in % against labelled voices a class: a line and a band for each family of rows."""
    figure, classes = go.Figure(), len(found["classes"])
    points = report.curve_points(found, condition)
    for name in curve.FAMILIES:
        per_class = report.aside(name, points) / classes
        at = [(p["labelled"] * per_class, p["lines"][name][rule], p["people"]) for p in points]
        at = [(x, one, people) for x, one, people in at if one]
        bands = [(x, one["band"]) for x, one, _ in at if "band" in one]
        if len(bands) > 1:
            x = [x for x, _ in bands]
            edge = [100 * b[1] for _, b in bands] + [100 * b[0] for _, b in reversed(bands)]
            look = {"fill": "toself", "fillcolor": COLOURS[name], "opacity": BAND_OPACITY}
            look |= {"mode": "lines", "line_width": 0, "hoverinfo": "skip", "showlegend": False}
            figure.add_scatter(x=[*x, *x[::-1]], y=edge, legendgroup=name, **look)
        alone = {}  # a band of one point has no width
        if len(bands) == 1:
            mean, (low, high) = at[0][1]["mean"], bands[0][1]
            alone = {"array": [100 * (high - mean)], "arrayminus": [100 * (mean - low)]}
        text = [f"{name}: {report.format_accuracy(one)} %, {n} people" for _, one, n in at]
        figure.add_scatter(
            x=[x for x, _, _ in at],
            y=[100 * one["mean"] for _, one, _ in at],
            name=name,
            legendgroup=name,
            mode="lines+markers",
            line={"color": COLOURS[name], "width": 2},
            error_y={"visible": bool(alone), "width": 0, "thickness": 1.2} | alone,
            hovertext=text,
            hoverinfo="text",
        )
    ticks = [p["labelled"] / classes for p in points]
    shown = {"tickvals": ticks, "ticktext": [f"{v:.0f}" for v in ticks]}
    figure.update_xaxes(title="labelled voices of each emotion in S1", type="log", **shown)
    figure.update_yaxes(title="accuracy on S4's people (%)")
    line = {"color": theme.REFERENCE_COLOUR, "dash": "dot", "width": 1.5}
    figure.add_hline(100 * found["chance"], line=line)
    place = {"x": 0, "y": 100 * found["chance"], "xref": "paper", "yshift": 2}
    figure.add_annotation(text=f"chance {100 * found['chance']:.1f} %", **place, **figures.CORNER)
    return apply_layout(figure, 420, left=54, top=60, legend=figures.TOP_LEGEND)


def csv_lines(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each row, number of labels, condition and step rule; accuracies in %."""
    return [
        {
            "labelled voices": p["labelled"],
            "condition": p["condition"],
            "trained on": name,
            "steps": rule,
            "accuracy": 100 * one["mean"],
            "from": 100 * one["band"][0] if "band" in one else None,
            "to": 100 * one["band"][1] if "band" in one else None,
            "runs": p["runs"],
            "people": p["people"],
        }
        for p in found["points"]
        for name, of in p["lines"].items()
        for rule, one in of.items()
        if one
    ]
