"""Paper: each equation beside the function that computes it, figures, and published numbers."""

import streamlit as st

from core.paper.equations import PAPER_MAP
from ui import glossary, paper
from ui.session import query_params

paper.apply_css()
st.title("Paper: every equation, and the code that computes it")
st.markdown(
    "*Audio-visual domain adaptation using conditional semi-supervised Generative Adversarial "
    "Networks* (C. Athanasiadis, E. Hortal, S. Asteriadis, 2019), in its order. At the left the "
    "paper's equation, our repairs and where ours departs; at the right the function as it is in "
    "its file now."
)
parts = paper.entries_by_part()
part_by_entry = {e.key: part for part, entries in parts.items() for e in entries}
query_params.restore_widget("eq", "eq", None, {k: k for k in part_by_entry}.get)
# a chosen equation is shown in its own part or in the whole paper
entry_part = part_by_entry.get(st.session_state["eq"])
allowed_parts = [entry_part, paper.ALL_PARTS] if entry_part else list(paper.PART_LABELS)
default = entry_part or next(iter(parts))
query_params.restore_widget("part", "part", default, {k: k for k in allowed_parts}.get)
look = {"label_visibility": "collapsed", "required": True, "on_change": paper.save_part}
look["format_func"] = paper.PART_LABELS.get
part = st.segmented_control("Part of the paper", list(paper.PART_LABELS), key="part", **look)
look = {"help": "The URL keeps it: such a link can be shared.", "on_change": paper.save_equation}
look["format_func"] = paper.entry_label
entry_key = st.pills("Go to", list(part_by_entry), key="eq", **look)

for one, entries in parts.items():
    if part in (one, paper.ALL_PARTS):
        st.header(paper.PART_LABELS[one], divider="gray")
        for entry in entries:
            paper.show_entry(entry)
if part in (paper.TABLES_PART, paper.ALL_PARTS):
    st.header("The figures, and where ours are made", divider="gray")
    paper.show_figures()
    st.header("The published numbers", divider="gray")
    paper.show_published_numbers()
    st.header("What the paper leaves open", divider="gray")
    paper.show_choices()
if part == paper.GLOSSARY_PART:
    glossary.show_terms()
st.caption(f"{len(PAPER_MAP)} entries; `core/paper/equations.py` is the map.")
if entry_key:
    paper.scroll_to(entry_key, entry_key)
