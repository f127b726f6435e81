"""The explorer: ``streamlit run explorer/app.py``. The router and the sidebar that all views share."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # Streamlit puts the script's own folder there, not the repository
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from chipcore import ChipError  # noqa: E402
from explorer import sidebar  # noqa: E402
from explorer.views import explore  # noqa: E402
from explorer.words import plain  # noqa: E402

HERE = Path(__file__).parent
# A Material symbol as icon, here or on a page, would have the browser fetch it from fonts.gstatic.com.
st.set_page_config(page_title="CHIP explorer", page_icon=str(HERE / "icon.png"), layout="wide", initial_sidebar_state="expanded")
st.html(HERE / "style.css")


def explore_page() -> None:
    """Maps of one class at every depth."""
    explore.show(selection)


page = st.navigation([st.Page(explore_page, title="Explore", url_path="explore", default=True)])
try:
    with st.sidebar:
        selection = sidebar.choose()
except ChipError as error:  # a mistake that the visitor can mend: say so in place of the page
    st.header("Nothing to explain yet", anchor=False)
    st.warning(f"**Why:** {plain(str(error))}", icon=":material/info:")
else:
    page.run()
