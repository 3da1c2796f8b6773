"""Code that pages share (session, with cached access; widgets; theme), and a package per page.

Streamlit lists the folder pages/ by itself until the router (app.py) has run once in a server. A
visitor's first URL may be that of another page, which would then appear without its frame. So the
first import of this package turns the listing off and has the router run.
"""

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

if PagesManager.uses_pages_directory:
    PagesManager.uses_pages_directory = False
    st.rerun()
