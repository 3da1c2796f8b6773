"""The router: the list of pages, and the frame around each."""

from pathlib import Path

import streamlit as st

from ui import preload, theme
from ui.session import cache, query_params, viewport

# File -> title; a missing file is not offered. Short titles: all ten fit into 1280 pixels.
PAGE_TITLES = {
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
folder = Path(__file__).with_name("pages")
titles = {file: title for file, title in PAGE_TITLES.items() if (folder / f"{file}.py").exists()}
pages = [st.Page(f"pages/{k}.py", title=v, default=k == "home") for k, v in titles.items()]
page = st.navigation(pages, position="top")
# A tab of the browser says which page it shows
name = f"{page.title} · dacssGAN studio"
st.set_page_config(page_title=name, page_icon=theme.icon(), layout="wide")
theme.apply_css()
viewport.follow()
query_params.note_page(page.title)
cache.prepare_server()
try:
    page.run()
finally:
    preload.note_page()
