"""What pages share.

Streamlit lists the folder pages/ by itself until the router (app.py) has run once in a server. A visitor may come to another page's address
first, and would see that page without its frame: so the first import of this package turns the listing off and has the router run.
"""

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

if PagesManager.uses_pages_directory:
    PagesManager.uses_pages_directory = False
    st.rerun()
