"""Many visitors: turns, limits, seats, the line before the networks, and who may stop what."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from chipcore.methods import METHODS
from explorer.services import fits, limits
from explorer.services.jobs import Job, JobQueue, TooMany
from explorer.services.limits import VisitorSlots, WorkSlots
from explorer.state import queues, visitors
from tests.helpers.visitor import Visitor, serving

A_TOKEN = "2|aabbccdd|" + bytes(one ^ (0xAA, 0xBB, 0xCC, 0xDD)[i % 4] for i, one in enumerate(range(16))).hex() + "|1700000000"


# --- turns and limits -------------------------------------------------------------------------------------------


def held(desk: JobQueue) -> threading.Event:
    """Work that takes until the event is set."""
    go = threading.Event()
    job = desk.start("held", "held", lambda _job: go.wait(60))
    while job.state == "waiting":
        time.sleep(0.001)
    return go


def test_visitors_take_turns() -> None:
    desk, order = JobQueue(), []
    go = held(desk)

    def work(job: Job) -> None:
        order.append(job.key)

    for key in ("a1", "a2", "a3", "b1", "c1", "b2"):
        desk.start(key, key, work, owner=key[0])
    expected = ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert [desk.ahead_of(desk.get(key)) for key in expected] == [1, 2, 3, 4, 5, 6]  # type: ignore[arg-type]
    late = desk.start("d1", "d1", work, owner="d")
    assert [desk.ahead_of(one) for one in (late, desk.get("a2"))] == [4, 5]  # type: ignore[arg-type]
    expected.insert(3, "d1")
    go.set()
    assert all(desk.get(key).finished.wait(10) for key in expected)  # type: ignore[union-attr]
    assert order == expected


def test_a_visitor_has_so_many_jobs_and_all_together_so_many() -> None:
    desk = JobQueue(each=2, most=4, what="slow maps")
    go = held(desk)
    first = desk.start("a1", "a1", lambda _job: None, owner="a")
    desk.start("a2", "a2", lambda _job: None, owner="a")
    with pytest.raises(TooMany, match="you have 2 slow maps under way and waiting"):
        desk.start("a3", "a3", lambda _job: None, owner="a")
    with pytest.raises(TooMany):
        desk.check("a")
    assert desk.get("a3") is None
    assert desk.start("a1", "a1", lambda _job: None, owner="a") is first, "what is there already is no further one"
    first.stop()
    assert first.state == "stopped" and first.finished.is_set(), "at once, though another one runs"
    desk.start("a3", "a3", lambda _job: None, owner="a")
    desk.start("b1", "b1", lambda _job: None, owner="b")
    with pytest.raises(TooMany, match="4 slow maps of all visitors"):
        desk.start("c1", "c1", lambda _job: None, owner="c")
    go.set()
    assert desk.get("b1").finished.wait(10)  # type: ignore[union-attr]
    assert first.state == "stopped" and first.started is None


@pytest.mark.parametrize(("visitors_told", "started"), [("5", 4), ("", 12)])
def test_one_click_for_many_maps(
    visitors_told: str, started: int, open_app: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among strangers it starts as many as one may have; who is alone with the app has no limit."""
    monkeypatch.setenv(limits.VISITORS, visitors_told)
    desk = queues.slow_maps()
    go = held(desk)
    app = open_app("compare", model="vgg16_slim")
    app.multiselect(key="methods").set_value([name for name, method in METHODS.items() if method.slow]).run()
    app.button(key="start-all").click().run()
    assert not app.exception
    jobs = [job for job in desk.jobs() if job.key != "held"]
    assert len(jobs) == started
    assert [toast.value.startswith("Not now: you have 4 slow maps") for toast in app.toast] == ([True] if started == 4 else [])
    for job in jobs:
        job.stop()
    go.set()


# --- seats and the line -----------------------------------------------------------------------------------------


def test_who_has_a_seat_keeps_it_until_he_goes() -> None:
    seats = VisitorSlots()
    assert seats.take("a", {"a"}, 2) and seats.take("b", {"a", "b"}, 2)
    assert not seats.take("c", {"a", "b", "c"}, 2)
    assert seats.take("a", {"a", "b", "c"}, 2) and seats.take("b", {"a", "b", "c"}, 2)
    assert seats.take("c", {"b", "c"}, 2), "a has gone"
    assert not seats.take("a", {"a", "b", "c"}, 2)


@pytest.mark.parametrize(("given", "most"), [("", 200), ("3", 3), ("0", 1), ("-2", 1), ("many", 200)])
def test_how_many_visitors(given: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.VISITORS, given)
    assert limits.most_visitors() == most


def test_so_many_are_in_the_room_in_the_order_in_which_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "POLL_S", 0.01)
    room, inside, most, order, lines = WorkSlots(2), [0], [0], [], []
    lock = threading.Lock()

    def visit(number: int) -> None:
        with room.enter(lines.append), room.enter():  # who is inside may enter again
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                order.append(number)
            time.sleep(0.3)
            with lock:
                inside[0] -= 1

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(7)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert most == [2] and order == list(range(7))
    assert max(lines) == 4 and min(lines) == 0


def test_who_leaves_the_line_or_fails_inside_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "POLL_S", 0.01)
    room = WorkSlots(1)

    def leave(_before: int) -> None:
        raise KeyError("the visitor turned to something else")

    with room.enter():
        gone: list[BaseException] = []

        def visit() -> None:
            try:
                with room.enter(leave):
                    pytest.fail("there was no place")
            except KeyError as error:
                gone.append(error)

        thread = threading.Thread(target=visit)
        thread.start()
        thread.join()
    assert len(gone) == 1
    with pytest.raises(ValueError), room.enter():
        raise ValueError
    with room.enter():
        pass


# --- who is who -------------------------------------------------------------------------------------------------


def test_the_token_is_the_same_however_it_is_masked() -> None:
    other = "2|01020304|" + bytes(one ^ (1, 2, 3, 4)[i % 4] for i, one in enumerate(range(16))).hex() + "|1700000000"
    assert visitors.token_of(A_TOKEN) == visitors.token_of(f'"{other}"') == bytes(range(16)).hex()
    from streamlit.web.server.starlette.starlette_app_utils import generate_xsrf_token_string

    assert visitors.token_of(generate_xsrf_token_string(bytes(range(16)), 1)) == bytes(range(16)).hex(), "as this Streamlit makes it"


@pytest.mark.parametrize(
    "cookie", ["", "x", "2||00|1", "2|zz|00|1", "1|aa|" + "00" * 16 + "|1", "2|aa|00|1", "2|aa|" + "00" * 16, "||||||"]
)
def test_what_is_no_token_is_nobody(cookie: str) -> None:
    assert visitors.token_of(cookie) == ""


HERE = {"origin": "http://localhost:8501", "host": "127.0.0.1:8501"}


@pytest.mark.parametrize(
    ("address", "headers", "limit", "alone"),
    [
        ("127.0.0.1", HERE, "", True), ("127.0.0.1", {}, "", True), ("::1", {"host": "[::1]:8501"}, "", True),
        ("0.0.0.0", HERE, "", False), ("", HERE, "", False), ("127.0.0.1", HERE, "30", False),
        ("127.0.0.1", {**HERE, "x-forwarded-for": "10.0.0.1"}, "", False), ("127.0.0.1", {**HERE, "origin": "https://chip.example.org"}, "", False),
        ("127.0.0.1", {**HERE, "host": "chip.example.org"}, "", False), ("127.0.0.1", {**HERE, "origin": "http://[::1"}, "", False),
    ],
)  # fmt: skip
def test_who_is_alone_with_the_app(address: str, headers: dict[str, str], limit: str, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.VISITORS, limit)
    assert visitors.is_single_user(address, headers) is alone


# --- the running app --------------------------------------------------------------------------------------------


def until(visitor: Visitor, what: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end, visitor.texts()[-5:]
        time.sleep(0.2)
        visitor.again()


@pytest.mark.slow
def test_strangers_see_a_fit_but_cannot_end_it_and_one_too_many_is_asked_to_come_back(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path / "cache"))
    settings = {"CHIP_CACHE": str(tmp_path / "cache"), "CHIP_FOLDERS": str((data / "fourteen").resolve()), limits.VISITORS: "2"}
    asked = {"model": "vgg16_slim", "folder": str((data / "fourteen" / "val").resolve()), "layers": "pool5", "per-folder": "10"}
    with serving(tmp_path / "log.txt", **settings) as (address, _process):
        with Visitor(address) as owner, Visitor(address) as stranger:
            owner.open("fit", gates="300", **asked)
            stranger.open("fit", model="vgg16_slim")
            with Visitor(address) as late:
                assert late.open("", model="vgg16_slim").texts()[1:] == [visitors.AT_CAPACITY], "after the style"
                assert not late.has("model")
            owner.click("start")
            [run] = fits.runs()
            stop, forget = f"stop-fit-{run.key}", f"forget-{run.key}"
            until(owner, lambda: owner.has(stop))
            until(stranger, stranger.busy)
            assert not stranger.has(stop)
            owner.open("fit", gates="301", **asked)
            owner.click("start")
            owner.open("fit", gates="302", **asked)
            owner.click("start")
            assert any("you have 2 fits under way and waiting" in text for text in owner.texts()) and len(fits.runs()) == 2
            owner_token = owner.token
        with Visitor(address, token=owner_token) as again:  # the tab was closed
            again.open("fit", model="vgg16_slim")
            until(again, lambda: again.has(stop))
            with Visitor(address) as other:
                again.click(stop)
                until(again, lambda: again.has(forget))
                other.open("fit", model="vgg16_slim")
                assert any("was stopped before it was done" in text for text in other.texts()) and not other.has(forget)
                assert again.click(forget) and run.key not in [one.key for one in fits.runs()]
    assert "Traceback" not in (tmp_path / "log.txt").read_text()


def test_uploads_have_a_limit_for_each_visitor_and_for_all(tmp_path: Path) -> None:
    """In the server's memory, whether or not a page has asked for them; lowered here, so that it takes no gigabytes."""
    (tmp_path / "few.py").write_text(
        "import sys\nfrom explorer.state import visitors\nvisitors.UPLOADS_EACH, visitors.UPLOADS_ALL = 3_000_000, 5_000_000\n"
        "from streamlit.web import cli\nsys.argv = ['streamlit', 'run', 'explorer/app.py', *sys.argv[1:]]\ncli.main()\n"
    )
    environment = {"CHIP_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, str(tmp_path / "few.py")]
    with serving(tmp_path / "log.txt", command, **environment) as (address, _process), Visitor(address) as one, Visitor(address) as other:
        one.open("", model="vgg16_slim")
        other.open("", model="vgg16_slim")
        million = bytes(1_000_000)
        for _ in range(3):
            one.send("x.png", million)
        with pytest.raises(AssertionError, match="413"):
            one.send("x.png", million)
        other.send("x.png", million)
        other.send("x.png", million)
        with pytest.raises(AssertionError, match="413"):
            other.send("x.png", million)
        assert "vgg16_slim" in one.again().query, "the page goes on"
    assert "Traceback" not in (tmp_path / "log.txt").read_text()


def test_a_server_that_ends_is_no_mistake_of_the_work(caplog: pytest.LogCaptureFixture) -> None:
    """Python closes its pools of threads first; the work that meets a closed one has not failed."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    job = JobQueue().start("a", "a fit", lambda _job: pool.submit(print))
    assert job.finished.wait(10) and job.state == "stopped" and not job.error
    assert not caplog.records
