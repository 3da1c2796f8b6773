"""The router: what every page has in common, and which pages there are."""

from pathlib import Path

import streamlit as st

from ui import preload, theme
from ui.session import cache

PAGE_TITLES = {  # file -> title; one whose file is not here is not offered. Bare words: all ten fit beside a sidebar at 1280 pixels
    "home": "Home",
    "listen": "Listen",
    "condition": "Condition lab",
    "gallery": "Gallery",
    "reverse": "Reverse",
    "conformal": "Conformal",
    "evaluate": "Evaluate",
    "train": "Train",
    "data": "Data",
    "paper": "Paper",
}
st.set_page_config(page_title="dacssGAN studio", page_icon=theme.icon(), layout="wide")
theme.apply_css()
page_files = [
    file
    for file in PAGE_TITLES
    if Path(__file__).with_name("pages").joinpath(f"{file}.py").exists()
]
page = st.navigation(
    [
        st.Page(f"pages/{file}.py", title=PAGE_TITLES[file], default=file == "home")
        for file in page_files
    ],
    position="top",
)
cache.prepare_server()
try:
    page.run()
finally:
    preload.start_thread()
