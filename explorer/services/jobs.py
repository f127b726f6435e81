"""Long work in the background: it goes on when a tab is reloaded or closed, and is found again by its key.

Nothing in here knows Streamlit: the work runs in threads of its own, where no ``st`` call may be made.
``explorer/components/job_progress.py`` shows a job on a page. Where many visitors ask, each has a few jobs at most, and they take turns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from chipcore import ChipError

State = Literal["waiting", "running", "done", "failed", "stopped"]
MAX_FINISHED_JOBS = 32  # finished jobs that are remembered; the oldest go first


class Stopped(Exception):
    """Raised inside the work when its job is to stop."""


class TooMany(ChipError):
    """One visitor, or all of them, wait for too much already."""


@dataclass(eq=False)
class Job:
    """One piece of work. The work calls :meth:`report` now and then; that is also where a stop takes effect.

    - ``key``: names the work and everything it depends on; equal keys are the same job
    - ``owner``: names the visitor who asked for it first; empty where nobody did
    - ``round``: when it is its turn: that of all visitors' first jobs comes before that of their second ones
    - ``error``: one sentence for the visitor where ``state`` is ``failed``
    """

    key: str
    title: str
    owner: str = ""
    round: int = 0
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
    _turning: threading.Lock = field(default_factory=threading.Lock)  # between waiting and what comes after it

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
        """Ask it to end at its next report; one that has not begun ends here and now."""
        self.stopping.set()
        with self._turning:
            if self.state == "waiting":
                self.state, self.ended = "stopped", time.monotonic()
                self.finished.set()

    def begin(self) -> bool:
        """From waiting to running; False where it was stopped before."""
        with self._turning:
            if self.state != "waiting":
                return False
            self.state, self.started = "running", time.monotonic()
            return True


class JobQueue:
    """Runs jobs, ``workers`` at a time. Safe to use from any thread.

    Visitors take turns: the first job that waits of each goes before the second of any, and among those the one that came first.

    Args:
        each: jobs that one visitor may have under way and waiting; 0 for any number.
        most: jobs of all visitors under way and waiting.
        what: these jobs are called.
    """

    def __init__(self, workers: int = 1, *, each: int = 0, most: int = 200, what: str = "jobs") -> None:
        self._each, self._most, self._what = each, most, what
        self._waiting: list[tuple[Job, Callable[[Job], Any]]] = []
        self._jobs: dict[str, Job] = {}
        self._rounds: dict[str, int] = {}  # of each visitor's last job
        self._round = 0  # that has begun
        self._changed = threading.Condition()
        for number in range(workers):
            # Daemons: a server that is asked to end must not wait for a fit.
            threading.Thread(target=self._serve, name=f"chip-job-{number}", daemon=True).start()

    def start(self, key: str, title: str, work: Callable[[Job], Any], *, owner: str = "", again: bool = False) -> Job:
        """The job of this key: the one there is, whoever asked for it, or a new one. ``again`` replaces one that is over.

        Raises ``TooMany`` where a new one is one too many.
        """
        with self._changed:
            job = self._jobs.get(key)
            if job is not None and not (job.over and (again or job.state != "done")):
                return job
            self._check(owner)
            job = self._jobs[key] = Job(key, title, owner, self._next_fair_round(owner))
            over = [one for one in self._jobs.values() if one.over]
            for old in over[: max(0, len(over) - MAX_FINISHED_JOBS)]:
                del self._jobs[old.key]
            self._waiting.append((job, work))
            self._changed.notify()
        return job

    def check(self, owner: str) -> None:
        """Raise ``TooMany`` where this visitor can't have one more job."""
        with self._changed:
            self._check(owner)

    def _check(self, owner: str) -> None:
        busy = [one for one in self._jobs.values() if not one.over and not one.stopping.is_set()]
        own = sum(one.owner == owner for one in busy) if owner else 0
        if self._each and own >= self._each:
            raise TooMany(
                f"you have {own} {self._what} under way and waiting, as many as one visitor may; try again when one of them is done."
            )
        if len(busy) >= self._most:
            raise TooMany(f"{len(busy)} {self._what} of all visitors are under way and waiting, as many as may; try again in some minutes.")

    def get(self, key: str) -> Job | None:
        with self._changed:
            return self._jobs.get(key)

    def jobs(self) -> list[Job]:
        """All that are remembered, the oldest first."""
        with self._changed:
            return list(self._jobs.values())

    def ahead_of(self, job: Job) -> int:
        """How many jobs come before one that is waiting, as far as is known now."""
        with self._changed:
            running = sum(one.state == "running" for one in self._jobs.values())
            queue = [one for one, _work in self._in_turn()]
        return running + (queue.index(job) if job in queue else 0)

    def _in_turn(self) -> list[tuple[Job, Callable[[Job], Any]]]:
        """What waits, in the order in which it will run."""
        self._waiting = [(job, work) for job, work in self._waiting if not job.over]
        return sorted(self._waiting, key=lambda one: one[0].round)  # equal rounds stay in the order in which they came

    def _next_fair_round(self, owner: str) -> int:
        """The round in which a visitor's next job runs: one after that of the visitor's last one, but none that has begun."""
        self._rounds = {one: last for one, last in self._rounds.items() if last > self._round}
        found = self._rounds.get(owner, self._round) + 1
        if owner:
            self._rounds[owner] = found
        return found

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not (turn := self._in_turn()):
                    self._changed.wait()
                job, work = turn[0]
                self._round = max(self._round, job.round)
                self._waiting.remove(turn[0])
                begun = job.begin()  # here, so that another worker sees whose turn it was
            if begun:
                run(job, work)
            del job, work, turn  # or the last one's images would stay until the next comes


def _server_ends(error: Exception) -> bool:
    """Whether it says that Python closes its pools of threads, as it does when the server is told to end."""
    return isinstance(error, RuntimeError) and "cannot schedule new futures after" in str(error)


def run(job: Job, work: Callable[[Job], Any]) -> None:
    """Do the work of a job that has begun; every way it can end is a state of the job."""
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
        if _server_ends(error):  # its pools of threads are closed under the work; a fit goes on from its checkpoints
            state = "stopped"
            return
        state, job.error = "failed", f"something went wrong in the program ({type(error).__name__}); the server's log says more."
        import logging

        logging.getLogger("explorer").exception("the job %s failed", job.title)
    finally:
        job.ended = time.monotonic()
        job.state = state
        job.finished.set()
