"""Room on the disk for what visitors upload: what was not used for longest goes first. Used are folders whose time is renewed."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path

DAY = 86_400  # seconds
_ABANDONED = 3_600  # seconds after which a hidden folder is what a process left behind that was killed as it wrote


def evict_until(folder: Path, most: int, needed: Collection[str] = (), *, days: float | None = None, count: int | None = None) -> None:
    """Remove folders of ``folder`` until all together are small, few and young enough.

    Args:
        most: bytes of all together.
        needed: names of folders that must stay.
        days: since its last use, after which a folder goes whatever room there is.
        count: the most folders there may be.
    """
    now = time.time()
    held = sorted((path for path in folder.iterdir() if path.is_dir()), key=_used)
    sizes = {path: sum(_bytes(one) for one in path.rglob("*")) for path in held}
    total, left = sum(sizes.values()), len(held)
    for path in held:
        age = now - _used(path)
        hidden = path.name.startswith(".")  # still being written
        old = age > _ABANDONED if hidden else days is not None and age > days * DAY
        crowded = not hidden and (total > most or (count is not None and left > count))
        if path.name not in needed and (old or crowded):
            shutil.rmtree(path, ignore_errors=True)
            total, left = total - sizes[path], left - 1


def touch(folder: Path) -> None:
    """Renew a folder's time, so that others go first."""
    with contextlib.suppress(OSError):  # a cache that is read-only is none the worse for it
        os.utime(folder)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # somebody else has just removed it
        return 0.0


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
