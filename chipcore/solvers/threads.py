"""The threads that the solver works in, made once and kept.

``torch.set_num_threads`` holds for its own thread and for every thread that is born later, in the whole process.
A solve that changed it while it ran left visitors' threads, born meanwhile, with another number, and two solves
at once could leave that number behind for good. So it is changed for the moment in which the pool is made.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def solving_threads(count: int) -> ThreadPoolExecutor:
    """A pool of ``count`` threads, each of which runs torch's operations alone."""
    with _lock:
        if count not in _pools:
            _pools[count] = _make(count)
        return _pools[count]


def _make(count: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(count, thread_name_prefix="solver")
    everyone = threading.Barrier(count + 1)

    def settle() -> None:
        torch.set_num_threads(1)
        everyone.wait()

    for _ in range(count):
        pool.submit(settle)
    everyone.wait()
    torch.set_num_threads(count)  # for the threads born from here on
    return pool


def _forget() -> None:
    """A fork takes no threads along, and perhaps a lock that one of them held."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
