"""Memory that is free goes back to the system, and the garbage collector does not keep visitors waiting.

Every run of a page is a thread of its own, and so is every pass's helper. By default glibc gives threads heaps of their own, up to
eight a core, and each keeps what was once used for a pass: with eight visitors the server had grown from 0.5 to 1.6 GB,
of which the caches were a tenth, and kept it when all had gone. With one heap that is swept every few seconds it stays
at what is in use. Thresholds at which glibc maps memory anew for every tensor would do that too, but make a fit a third slower.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
import threading
import time

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8  # mallopt's names for them
_LARGE = 32 << 20  # bytes: what glibc's own rule comes to once large tensors were freed; activations are below
_EVERY = 5.0  # seconds
_SETTLE_EVERY = 60  # sweeps
_begun = threading.Lock()


def bound() -> bool:
    """Have what is freed given back from now on; False where there is nothing to be told, or it was before."""
    if sys.platform != "linux" or not _begun.acquire(blocking=False):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        sweep = libc.malloc_trim
        libc.mallopt(_ARENA_MAX, 1)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, 1 << 30)  # the sweep does it
    except (OSError, AttributeError):  # musl has neither
        return False
    threading.Thread(target=_sweep, args=(sweep,), name="chip-sweep", daemon=True).start()
    return True


def _sweep(trim: ctypes._NamedFuncPointer) -> None:
    for number in itertools.count(1):
        time.sleep(_EVERY)
        if number % _SETTLE_EVERY == 0:
            settle()  # visitors who were here when it was done last have gone
        trim(ctypes.c_size_t(0))


def settle() -> None:
    """Take what is in memory by now out of the garbage collector's rounds; for after something large was loaded.

    Streamlit collects garbage after every run of a page, and every look at a job under way is one. With torch, Plotly and
    a network's graphs in memory that took 0.2 s of CPU each time, in which no other thread runs: a job with three lines of
    progress on the page was ten times slower. What was frozen before is looked through once more, so that a network
    that the cache has let go of does not stay.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
