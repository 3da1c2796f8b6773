"""The server: `streamlit run app.py` serves the router's pages behind the gate."""

# Home's slow imports, so that its first visitor does not wait for them
import plotly.basedatatypes  # noqa: F401
import streamlit as st
from starlette.middleware import Middleware
from streamlit.runtime.pages_manager import PagesManager

from core.experiments import tasks  # noqa: F401
from ui.gate import Gate
from ui.session import reclaim

reclaim.limit_arenas()

# Otherwise Streamlit lists the folder pages/ by itself until the router has run once, and a first
# visitor of another page than Home sees it without its frame.
PagesManager.uses_pages_directory = False

app = st.App("router.py", middleware=[Middleware(Gate)])
