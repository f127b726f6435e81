"""The explorer: ``streamlit run explorer/app.py``. The router and the sidebar that all views share."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # Streamlit puts the script's own folder there, not the repository
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from chipcore import ChipError  # noqa: E402
from explorer.components import history, sidebar  # noqa: E402
from explorer.services import memory  # noqa: E402
from explorer.state import download_retention, navigation, visitors  # noqa: E402
from explorer.text import plain  # noqa: E402

memory.bound()
visitors.bound_uploads()
download_retention.keep()

HERE = Path(__file__).parent
# A Material symbol as icon, here or on a page, would have the browser fetch it from fonts.gstatic.com.
st.set_page_config(page_title="CHIP explorer", page_icon=str(HERE / "icon.png"), layout="wide", initial_sidebar_state="auto")
st.html(HERE / "style.css")


# One line a view: its module, and what it is for. A module is imported when its page is opened, so that the first
# page does not wait for the charts of the others.
VIEWS = {
    "explore": "Maps of one class at every depth",
    "compare": "Methods side by side on one photograph",
    "channels": "Which channels matter for which class",
    "localize": "From a map to a box",
    "fit": "Learn W from photographs",
    "learn": "The method in six steps",
}


# What a page looks like before it is there: a heading, and a row of maps.
SKELETON = (
    '<div class="chip-skeleton" role="status"><p>Loading the network and looking at the photograph …</p><i></i><div>'
    + "<b></b>" * 6 + "</div></div>"
)  # fmt: skip


def page_of(name: str) -> Callable[[], None]:
    def show() -> None:
        first = f"explorer.views.{name}" not in sys.modules
        importlib.import_module(f"explorer.views.{name}").show(selection)
        if first:
            memory.settle()

    show.__name__ = name
    return show


def wrong(error: Exception) -> None:
    """A mistake of ours: one sentence for the visitor, the rest for whoever runs the app."""
    logging.getLogger("explorer").error("a page failed", exc_info=error)
    st.error(
        f"**Something went wrong in the program** ({type(error).__name__}). Choose something else, or reload the page; "
        "the server’s log says more.",
        icon=":material/error:",
    )


pages = {name: st.Page(page_of(name), title=name.capitalize(), url_path=name, default=name == "explore") for name in VIEWS}
st.session_state["views"] = pages  # for links from one view to another, see navigation.open_view
admitted = visitors.has_slot()
page = st.navigation(list(pages.values()), position="top" if admitted else "hidden")
if not admitted:
    st.info(visitors.AT_CAPACITY, icon=":material/group:")
    st.stop()
first_paint = st.empty()
if "painted" not in st.session_state:  # a network and a photograph's pass may take seconds, and the page would be blank meanwhile
    first_paint.html(SKELETON)
history.one_step_a_view()
navigation.apply_pending()
try:
    with st.sidebar:
        selection = sidebar.choose()
except ChipError as error:  # a mistake that the visitor can mend: say so in place of the page
    first_paint.empty()
    st.header("No network available", anchor=False)
    st.warning(f"**Why:** {plain(str(error))}", icon=":material/info:")
except Exception as error:
    first_paint.empty()
    wrong(error)
else:
    st.session_state["painted"] = True
    first_paint.empty()
    try:
        page.run()
    except Exception as error:
        wrong(error)
