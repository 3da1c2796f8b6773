"""The router: what every page has in common, and which pages there are."""

import streamlit as st

from ui import access, theme

st.set_page_config(page_title="dacssGAN studio", page_icon=theme.icon(), layout="wide")
theme.dress()
page = st.navigation(
    [
        st.Page("pages/listen.py", title="Listen", icon=":material/hearing:", default=True),
        st.Page("pages/conformal.py", title="Conformal", icon=":material/target:"),
        st.Page("pages/data.py", title="Data", icon=":material/database:"),
        st.Page("pages/train.py", title="Train", icon=":material/model_training:"),
    ],
    position="top",
)
access.begin()
page.run()
