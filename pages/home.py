"""Home: the method in one example that can be heard, and links to the other pages."""

import streamlit as st

from ui.home import status
from ui.widgets import run_summary

st.title("A face that shows an emotion becomes the sound of it")
st.markdown(
    "Choose a face, press play: hear a voice that a network drew for it.  \n"
    ":small[The generator G gets the face x, noise z and a condition c that names the emotion: by "
    "name, by a classifier's softmax, or by *p-values*, which tell how far that classifier can be "
    "believed. D tells generated from real voices, Q checks whether the emotion can be heard. "
    "[All terms](paper?part=glossary)]"
)
status.show_faults()
status.show_live_work()
family = status.example_family()
if family is None:
    run_summary.show_no_run()
else:
    status.show_example(family)
st.header("Where to go")
status.show_page_links()
st.caption(
    "After C. Athanasiadis, E. Hortal and S. Asteriadis, *Audio-visual domain adaptation using "
    "conditional semi-supervised Generative Adversarial Networks*, 2019; the drawing is their "
    "Fig. 3. Acted or invented emotions, nobody's real voice: it does not tell what a person feels."
)
