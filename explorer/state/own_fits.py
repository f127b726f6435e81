"""Which fits this visitor uses: a fit is its visitor's own until it is published for everybody.

Their keys are in the URL, so that a reload keeps them and whoever is given the link sees the same maps. A key is a hash of
all that the fit was made from, which nobody can guess.
"""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from chipcore import Network
from explorer.services import fits
from explorer.services.fits import Run
from explorer.state import url

PARAMETER = url.OWN_FITS
_AT = "own-fits-at"  # in the session: the run that is used at a layer, by network and layer
_MOST = 8  # fits of a link that are looked at


def restore(network: Network, model: str) -> None:
    """Find the runs that the link or the session names, for :func:`run_at`; those that are gone are forgotten.

    Args:
        network: the one that is looked at, which the app calls ``model``.
    """
    asked = url.asked(PARAMETER)
    if asked is not None:
        st.session_state[PARAMETER] = asked
    wanted = str(st.session_state.get(PARAMETER, "")).split(".")[:_MOST]
    known = {run.key: run for run in fits.runs() if run.finished} if any(wanted) else {}
    kept = [key for key in wanted if key in known]
    st.session_state[_AT] = {
        (network.id, layer): key for key in kept for layer in known[key].request.layers if known[key].request.network == model
    }  # a later one in the place of an earlier one
    _remember(kept)


def use(run: Run) -> None:
    """Use a run's W in this visitor's views, from the next run of the page on."""
    _remember([*(key for key in _keys() if key != run.key), run.key][-_MOST:])


def stop_using(run: Run) -> None:
    """Go back to the W that everybody has."""
    _remember([key for key in _keys() if key != run.key])


def is_used(run: Run) -> bool:
    return run.key in _keys()


def run_at(network_id: str, layer: str) -> str:
    """The key of the run whose W this visitor uses at a layer; empty where it is everybody's, or nobody's page is drawn."""
    if get_script_run_ctx(suppress_warning=True) is None:
        return ""
    return str(st.session_state.get(_AT, {}).get((network_id, layer), ""))


def _keys() -> list[str]:
    return [key for key in str(st.session_state.get(PARAMETER, "")).split(".") if key]


def _remember(keys: list[str]) -> None:
    st.session_state[PARAMETER] = ".".join(keys)
    url.write_unless(PARAMETER, ".".join(keys), "")
