"""Paper: every equation beside the function that computes it, where the figures are made again, and the published numbers."""

import streamlit as st

from core.paper import PAPER
from ui import paper
from ui.session import query_params

paper.dress()
st.title("Paper: every equation, and the code that computes it")
st.markdown(
    "*Audio-visual domain adaptation using conditional semi-supervised Generative Adversarial Networks* (C. Athanasiadis, E. Hortal, "
    "S. Asteriadis, 2019), in its order. At the left what it says and what had to be mended; at the right the function as it stands in "
    "its file at this moment."
)
parts = paper.parts()
home_of = {e.key: part for part, entries in parts.items() for e in entries}
query_params.follow("eq", "eq", None, lambda k: k if k in home_of else None)
found = home_of.get(st.session_state["eq"])  # an equation stands in its part, or in the whole paper
known = {found, paper.ALL} if found else {*paper.PARTS}
query_params.follow("part", "part", found or next(iter(parts)), lambda k: k if k in known else None)
go = {"on_change": paper.turned, "label_visibility": "collapsed", "required": True}
part = st.segmented_control("Part of the paper", list(paper.PARTS), format_func=paper.PARTS.get, key="part", **go)
about = "The address keeps it: such a link can be shared."
chosen = st.pills("Go to", list(home_of), format_func=paper.short, key="eq", help=about, on_change=paper.went)

for one, entries in parts.items():
    if part in (one, paper.ALL):
        st.subheader(paper.PARTS[one], divider="gray")
        for entry in entries:
            paper.show(entry)
if part in (paper.TABLES, paper.ALL):
    st.subheader("The figures, and where ours are made", divider="gray")
    paper.figures()
    st.subheader("The published numbers", divider="gray")
    paper.numbers()
st.caption(f"{len(PAPER)} entries; `core/paper.py` is the map.")
if chosen:
    paper.scroll_to(chosen, chosen)
