"""A crowd at the door and at work: how many visitors there may be, and how many may use a network at once.

Nothing in here knows Streamlit. ``explorer/state/visitors.py`` asks it on the page.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

VISITORS = "CHIP_VISITORS"  # the environment variable: how many at once; given at all, it says that there are strangers among them
MAX_VISITORS = 200  # visitors, unless whoever runs the app says otherwise
POLL_S = 0.5  # seconds between two looks at the line


def most_visitors() -> int:
    """How many visitors may be here at once; what cannot be read as a number from 1 on is no answer."""
    try:
        return max(1, int(os.environ.get(VISITORS, "")))
    except ValueError:
        return MAX_VISITORS


class VisitorSlots:
    """Who may stay: the first ``most`` who came, for as long as they are here. Safe to use from any thread."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def take(self, who: str, here: Collection[str], most: int) -> bool:
        """A seat for ``who`` if there is one, or the one that ``who`` has; those who are not ``here`` any more have given theirs up."""
        with self._lock:
            self._taken &= set(here)
            if who not in self._taken and len(self._taken) >= most:
                return False
            self._taken.add(who)
            return True


class WorkSlots:
    """Work that takes memory, ``most`` at a time, in the order in which it came; so memory is bounded by the room, not by the visitors.

    A thread that is in the room may enter again: what it does is one work.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._line: deque[object] = deque()
        self._changed = threading.Condition()
        self._mine = threading.local()

    @contextmanager
    def enter(self, waiting: Callable[[int], None] = lambda _before: None) -> Iterator[None]:
        """Wait for a place and hold it.

        Args:
            waiting: called now and then meanwhile with how many are before; what it raises ends the wait.
        """
        if getattr(self._mine, "inside", False):
            yield
            return
        self._wait(waiting)
        self._mine.inside = True
        try:
            yield
        finally:
            self._mine.inside = False
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def _wait(self, waiting: Callable[[int], None]) -> None:
        ticket = object()
        with self._changed:
            self._line.append(ticket)
        try:
            while True:
                with self._changed:
                    if self._changed.wait_for(lambda: self._free > 0 and self._line[0] is ticket, POLL_S):
                        self._free -= 1
                        return
                    before = self._line.index(ticket)
                waiting(before)
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()
