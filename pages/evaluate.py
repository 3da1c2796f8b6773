"""Evaluate: what the runs are worth, one beside the other, from what each has saved."""

import streamlit as st

from ui import theme
from ui.evaluate import augmentation, confusion, runs, tables
from ui.widgets import run_summary

VIEWS = {
    "runs": ":material/table: Runs",
    "curves": ":material/show_chart: Curves",
    "confusion": ":material/grid_on: Confusion",
    "augmentation": ":material/add_chart: Augmentation",
    "folds": ":material/groups: Folds",
    "paper": ":material/article: The paper's tables",
}

st.title("Evaluate: what the runs are worth")
st.markdown("Runs side by side, from what each has saved. Every figure has its N, its chance and the line of real voices beside it.")
found, wrong = runs.summaries()
for words in wrong:
    st.error(theme.escaped(words), icon=":material/error:")
if not found:
    run_summary.no_run()
    st.stop()
view = runs.one("View", "view", tuple(VIEWS), "runs", VIEWS.get, label_visibility="collapsed", width="stretch")

if view == "paper":  # of all runs
    tables.paper(found)
    st.stop()
picked = runs.chosen(found)
if view == "runs":
    runs.table(found, picked)
    st.stop()
if not picked:
    st.info("Choose runs above: two or more to compare them.", icon=":material/arrow_upward:")
    st.stop()
if view in ("curves", "confusion"):
    runs.caveats(picked)
if view == "curves":
    runs.curves(picked)
elif view == "confusion":
    confusion.show(picked, found)
elif view == "augmentation":
    augmentation.show(picked, found)
else:
    tables.folds(picked, found)
