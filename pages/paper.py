"""Paper: every equation beside the function that computes it, where the figures are made again, and the published numbers."""

import streamlit as st

from core.paper import PAPER_MAP
from ui import paper
from ui.session import query_params

paper.apply_css()
st.title("Paper: every equation, and the code that computes it")
st.markdown(
    "*Audio-visual domain adaptation using conditional semi-supervised Generative Adversarial Networks* (C. Athanasiadis, E. Hortal, "
    "S. Asteriadis, 2019), in its order. At the left what it says and what had to be mended; at the right the function as it stands in "
    "its file at this moment."
)
parts = paper.entries_by_part()
part_by_entry = {e.key: part for part, entries in parts.items() for e in entries}
query_params.restore_widget("eq", "eq", None, lambda k: k if k in part_by_entry else None)
entry_part = part_by_entry.get(
    st.session_state["eq"]
)  # an equation stands in its part, or in the whole paper
allowed_parts = {entry_part, paper.ALL_PARTS} if entry_part else {*paper.PART_LABELS}
query_params.restore_widget(
    "part", "part", entry_part or next(iter(parts)), lambda k: k if k in allowed_parts else None
)
go = {"on_change": paper.save_part, "label_visibility": "collapsed", "required": True}
part = st.segmented_control(
    "Part of the paper",
    list(paper.PART_LABELS),
    format_func=paper.PART_LABELS.get,
    key="part",
    **go,
)
about = "The address keeps it: such a link can be shared."
entry_key = st.pills(
    "Go to",
    list(part_by_entry),
    format_func=paper.entry_label,
    key="eq",
    help=about,
    on_change=paper.save_equation,
)

for one, entries in parts.items():
    if part in (one, paper.ALL_PARTS):
        st.subheader(paper.PART_LABELS[one], divider="gray")
        for entry in entries:
            paper.show_entry(entry)
if part in (paper.TABLES_PART, paper.ALL_PARTS):
    st.subheader("The figures, and where ours are made", divider="gray")
    paper.show_figures()
    st.subheader("The published numbers", divider="gray")
    paper.show_published_numbers()
st.caption(f"{len(PAPER_MAP)} entries; `core/paper.py` is the map.")
if entry_key:
    paper.scroll_to(entry_key, entry_key)
