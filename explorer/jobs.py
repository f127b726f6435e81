"""Long work in the background: it goes on when a tab is reloaded or closed, and is found again by its key.

Nothing in here knows Streamlit: the work runs in threads of its own, where no ``st`` call may be made.
``explorer/waiting.py`` shows a job on a page.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from chipcore import ChipError

State = Literal["waiting", "running", "done", "failed", "stopped"]
KEPT = 32  # finished jobs that are remembered; the oldest go first


class Stopped(Exception):
    """Raised inside the work when its job is to stop."""


@dataclass
class Job:
    """One piece of work. The work calls :meth:`report` now and then; that is also where a stop takes effect.

    - ``key``: names the work and everything it depends on; equal keys are the same job
    - ``error``: one sentence for the visitor where ``state`` is ``failed``
    """

    key: str
    title: str
    state: State = "waiting"
    stage: str = ""
    done: int = 0
    total: int = 0
    result: Any = None
    error: str = ""
    since: tuple[float, int] = (0.0, 0)  # when the stage was first reported, and how far it was: a fit goes on in its middle
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    ended: float | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    def report(self, done: int, total: int, stage: str = "") -> None:
        """Tell how far the work has come; raises :class:`Stopped` where it is to end."""
        if stage != self.stage or total != self.total:
            self.since = time.monotonic(), done
        self.done, self.total, self.stage = done, total, stage
        if self.stopping.is_set():
            raise Stopped

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "stopped")

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def rate(self) -> float:
        """Steps a second in this stage; 0 until it can be told."""
        began, first = self.since
        return (self.done - first) / max(1e-3, time.monotonic() - began) if self.done > first else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until this stage is over, once it has run for two."""
        told = self.rate > 0 and time.monotonic() - self.since[0] > 2
        return (self.total - self.done) / self.rate if told else None

    @property
    def seconds(self) -> float:
        """How long it has been running, or ran."""
        return 0.0 if self.started is None else (self.ended or time.monotonic()) - self.started

    def stop(self) -> None:
        """Ask it to end at its next report; one that has not begun never will."""
        self.stopping.set()


class Desk:
    """Runs jobs, ``workers`` at a time, in the order in which they came. Safe to use from any thread."""

    def __init__(self, workers: int = 1) -> None:
        self._waiting: queue.SimpleQueue[tuple[Job, Callable[[Job], Any]]] = queue.SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        for number in range(workers):
            # Daemons: a server that is asked to end must not wait for a fit.
            threading.Thread(target=self._serve, name=f"chip-job-{number}", daemon=True).start()

    def start(self, key: str, title: str, work: Callable[[Job], Any], *, again: bool = False) -> Job:
        """The job of this key: the one there is, or a new one. ``again`` replaces one that is over."""
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and not (job.over and (again or job.state != "done")):
                return job
            job = self._jobs[key] = Job(key, title)
            over = [one for one in self._jobs.values() if one.over]
            for old in over[: max(0, len(over) - KEPT)]:
                del self._jobs[old.key]
        self._waiting.put((job, work))
        return job

    def get(self, key: str) -> Job | None:
        with self._lock:
            return self._jobs.get(key)

    def jobs(self) -> list[Job]:
        """All that are remembered, the oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def ahead_of(self, job: Job) -> int:
        """How many jobs come before one that is waiting."""
        with self._lock:
            return sum(not one.over and one.created < job.created for one in self._jobs.values())

    def _serve(self) -> None:
        while True:
            job, work = self._waiting.get()
            run(job, work)


def run(job: Job, work: Callable[[Job], Any]) -> None:
    """Do the work of a job here and now; every way it can end is a state of the job."""
    if job.stopping.is_set():
        job.state, job.ended = "stopped", time.monotonic()
        job.finished.set()
        return
    job.state, job.started = "running", time.monotonic()
    state: State = "done"
    try:
        job.result = work(job)
    except Stopped:
        state = "stopped"
    except ChipError as error:
        state, job.error = "failed", str(error)
    except MemoryError:
        state, job.error = "failed", "this machine has not enough memory for it; choose fewer layers, classes or samples."
    except Exception as error:  # the visitor gets its kind, the operator's log the rest
        state, job.error = "failed", f"something went wrong in the program ({type(error).__name__}); the server's log says more."
        import logging

        logging.getLogger("explorer").exception("the job %s failed", job.title)
    finally:
        job.ended = time.monotonic()
        job.state = state
        job.finished.set()
