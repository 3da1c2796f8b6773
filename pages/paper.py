"""Paper: every equation beside the function that computes it, where the figures are made again, and the published numbers."""

import streamlit as st

from core.paper import PAPER
from ui import address, paper

paper.dress()
st.title("Paper: every equation, and the code that computes it")
st.markdown(
    "*Audio-visual domain adaptation using conditional semi-supervised Generative Adversarial Networks* (C. Athanasiadis, E. Hortal, "
    "S. Asteriadis, 2019), in its order. At the left what it says and what had to be mended; at the right the function as it stands in "
    "its file at this moment."
)
keys = [e.key for of in paper.entries().values() for e in of]
address.follow("eq", "eq", None, lambda k: k if k in keys else None)
go = {"on_change": address.keep, "args": ("eq", "eq")}
chosen = st.pills("Go to", keys, format_func=paper.short, key="eq", help="The address keeps it: such a link can be shared.", **go)

for section, entries in paper.entries().items():
    st.subheader(paper.title(section), divider="gray")
    for entry in entries:
        paper.show(entry)

st.subheader("The figures, and where ours are made", divider="gray")
paper.figures()
st.subheader("The published numbers", divider="gray")
paper.numbers()
st.caption(f"{len(PAPER)} entries; `core/paper.py` is the map.")
if chosen:
    paper.scroll_to(chosen, chosen)
