"""The visitor of this run of the page: who it is, what that visitor may do, and the line before the networks.

There are no accounts. A visitor is known by the token that the server gives every browser against forged requests: nobody
else can guess it, it survives a reload, it is the same in every tab, and unlike a key in the URL it is not in a link that
is given away. A hash of it is all that is kept.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from urllib.parse import urlsplit

import streamlit as st
from starlette.exceptions import HTTPException
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime import exists, get_instance
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from explorer.services.jobs import Job
from explorer.services.limits import VISITORS, VisitorSlots, WorkSlots, most_visitors

LOOPBACK = ("127.0.0.1", "localhost", "::1")
AT_CAPACITY = "**The server is at capacity.** Please try again in a few minutes."
_COOKIE = "_streamlit_xsrf"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
# Each pass takes all cores by itself: more at once would take more memory and no less time.
AT_WORK = max(2, min(8, (os.cpu_count() or 2) // 4))
UPLOADS_EACH, UPLOADS_ALL = 640 << 20, 2 << 30  # bytes that Streamlit's own store may hold of one visitor, and of all
_seats, _room = VisitorSlots(), WorkSlots(AT_WORK)


def current_visitor() -> str:
    """A name for this visitor that nobody else can know."""
    token = token_of(st.context.cookies.get(_COOKIE, "")) if exists() else ""
    if not token:  # cookies are off: a reload is another visitor
        token = st.session_state.setdefault("visitor", secrets.token_hex(16))
    return hashlib.sha256(f"visitor {token}".encode()).hexdigest()[:32]


def token_of(cookie: str) -> str:
    """The token in Streamlit's cookie ``2|mask|masked|time``, which looks different with every answer; empty where it is none."""
    try:
        version, mask, masked, _time = cookie.strip('"').split("|")
        pad, hidden = bytes.fromhex(mask), bytes.fromhex(masked)
        return bytes(one ^ pad[i % len(pad)] for i, one in enumerate(hidden)).hex() if version == "2" and len(hidden) >= 8 else ""
    except (ValueError, ZeroDivisionError):
        return ""


def operator() -> bool:
    """Whether nobody but whoever runs the app can be here, who may do everything."""
    headers = dict(st.context.headers.items()) if exists() else {}
    return is_single_user(str(st.get_option("server.address") or ""), {name.lower(): value for name, value in headers.items()})


def is_single_user(address: str, headers: Mapping[str, str]) -> bool:
    """Whether the app answers on this machine alone, this request was not passed on by a proxy, and no limit of visitors was given."""
    if address not in LOOPBACK or os.environ.get(VISITORS) or any(name in headers for name in _FORWARDED):
        return False
    return all(_host(headers[name]) in LOOPBACK for name in ("origin", "host") if name in headers)


def _host(header: str) -> str | None:
    try:
        return urlsplit(header if "//" in header else f"//{header}").hostname
    except ValueError:  # brackets that do not close
        return None


def is_local_user() -> str:
    """Whose the jobs are that this visitor starts: nobody's, and so without limits, where the operator is alone."""
    return "" if operator() else current_visitor()


def can_shut_down(owner: str) -> bool:
    """Whether this visitor may stop or forget what ``owner`` started; what belongs to nobody is the operator's."""
    return operator() or owner == current_visitor()


def can_stop_job(job: Job) -> bool:
    """Whether this visitor may stop a job."""
    return can_shut_down(job.owner)


def has_slot() -> bool:
    """Whether there is a seat for this visitor; one who has it keeps it for as long as the tab is open."""
    context = get_script_run_ctx(suppress_warning=True)
    sessions = getattr(get_instance(), "_session_mgr", None) if exists() else None
    if context is None or sessions is None:  # a test without a server
        return True
    here = [one.session.id for one in sessions.list_active_sessions()]
    return _seats.take(context.session_id, {*here, context.session_id}, most_visitors())


def bound_uploads() -> None:
    """Have the server refuse uploads (413) beyond what one visitor, or all of them, may keep in its memory.

    Streamlit limits a single file only, and keeps all of them for as long as their tab is open, whether or not a page has asked for them.
    """
    manager = get_instance().uploaded_file_mgr if exists() else None
    if isinstance(manager, MemoryUploadedFileManager) and "add_file" not in vars(manager):
        manager.add_file = _with_limits(manager)  # type: ignore[method-assign, assignment]


def _with_limits(manager: MemoryUploadedFileManager) -> Callable[[str, UploadedFileRec], None]:
    add = manager.add_file

    def within(session_id: str, file: UploadedFileRec) -> None:
        held = {session: sum(len(one.data) for one in list(files.values())) for session, files in list(manager.file_storage.items())}
        more = len(file.data)
        if held.get(session_id, 0) + more > UPLOADS_EACH or sum(held.values()) + more > UPLOADS_ALL:
            raise HTTPException(413, "too much was uploaded already; reload the page, or come back later.")
        add(session_id, file)

    return within


@contextmanager
def at_work(words: str = "") -> Iterator[None]:
    """Around what takes much memory, such as a pass through a network: only so many of them go on at once.

    Who has to wait sees how many are before; ``words`` are on the page meanwhile and while it goes on. A visitor who turns to
    something else leaves the line, because the line is drawn again and again. Nothing that is drawn here may be cached.
    """
    if get_script_run_ctx(suppress_warning=True) is None:  # nobody's page: a warm start, or a file that is being made
        with _room.enter():
            yield
        return
    place: list[DeltaGenerator] = []

    def line(before: int) -> None:
        if not place:
            place.append(st.empty())
        place[0].caption(f":material/hourglass_top: The server is busy: {before + 1:,} ahead of you; it continues by itself.")

    with _room.enter(line):
        for one in place:
            one.empty()
        with st.spinner(words) if words else nullcontext():
            yield
