"""Evaluate: compare runs by their saved files."""

import streamlit as st

from ui import theme
from ui.evaluate import augmentation, confusion, labels, runs, tables
from ui.widgets import run_summary

VIEW_LABELS = {
    "runs": ":material/table: Runs",
    "curves": ":material/show_chart: Curves",
    "confusion": ":material/grid_on: Confusion",
    "augmentation": ":material/add_chart: Augmentation",
    "labels": ":material/label: Labels",
    "folds": ":material/groups: Folds",
    "paper": ":material/article: The paper's tables",
}

st.title("Evaluate: what the runs are worth")
st.markdown(
    "Runs side by side, from their saved files. Every figure is shown with its N, the level of "
    "chance and the value of real voices."
)
run_summaries, errors = runs.load_summaries()
for words in errors:
    st.error(theme.escape_markdown(words), icon=":material/error:")
if not run_summaries:
    run_summary.show_no_run()
    st.stop()
look = {"label_visibility": "collapsed", "width": "stretch"}
view = runs.choose_one("View", "view", tuple(VIEW_LABELS), "runs", VIEW_LABELS.get, **look)

if view == "paper":  # of all runs
    tables.show_paper(run_summaries)
    st.stop()
if view == "labels":  # of reports
    labels.show()
    st.stop()
compared_runs = runs.choose_runs(run_summaries)
if view == "runs":
    runs.show_table(run_summaries, compared_runs)
    st.stop()
if not compared_runs:
    st.info("Choose runs above: two or more to compare them.", icon=":material/arrow_upward:")
    st.stop()
if view in ("curves", "confusion"):
    runs.show_caveats(compared_runs)
if view == "curves":
    runs.show_curves(compared_runs)
elif view == "confusion":
    confusion.show_matrices(compared_runs, run_summaries)
elif view == "augmentation":
    augmentation.show_table(compared_runs, run_summaries)
else:
    tables.show_folds(compared_runs, run_summaries)
