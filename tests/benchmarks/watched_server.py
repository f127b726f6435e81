"""Streamlit's server, which tells of itself what nobody outside can see: hooks that stay on modules, memory, and the caches.

    python -m tests.benchmarks.watched_server FILE --server.port=N

Methods that take long do little work a map here, so that a crowd gets many: how much plays no part in whether it is right.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from torch.utils.hooks import RemovableHandle

ROOT = Path(__file__).resolve().parent.parent.parent
FEW = {
    "lime": {"samples": 16}, "local_chip": {"gates": 24}, "deepdraw": {"octaves": 1, "steps": 2}, "occlusion": {"windows": 2, "overlap": 1},
}  # fmt: skip


class Hooks:
    """Every hook that is registered from now on, for as long as it is in its module's list."""

    def __init__(self) -> None:
        self._handles: list[tuple[Any, int]] = []
        real = RemovableHandle.__init__

        def init(handle: RemovableHandle, *args: Any, **kwargs: Any) -> None:
            real(handle, *args, **kwargs)
            self._handles.append((handle.hooks_dict_ref, handle.id))

        RemovableHandle.__init__ = init  # type: ignore[method-assign]

    def count(self) -> int:
        known = list(self._handles)
        live = [(of, number) for of, number in known if (hooks := of()) is not None and number in hooks]
        self._handles[: len(known)] = live  # others may have been added meanwhile
        return len(live)


def resident(process: int | str = "self") -> float:
    """Main memory of a process, in GB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**30, 3)


def tell(file: Path, hooks: Hooks) -> None:
    while True:
        known = sys.modules.get("explorer.services.cache")
        caches = dict(known.CACHES) if known else {}
        said = {
            "hooks": hooks.count(),
            "memory_gb": resident(),
            "kept_mb": {name: round(cache.size / 2**20, 1) for name, cache in caches.items()},
            "most_mb": {name: round(cache.maximum / 2**20) for name, cache in caches.items()},
        }
        file.with_suffix(".new").write_text(json.dumps(said))
        os.replace(file.with_suffix(".new"), file)
        time.sleep(0.5)


def hurry() -> None:
    """Little work for the methods that take long."""
    from chipcore.methods import METHODS

    for name, options in FEW.items():
        METHODS[name] = dataclasses.replace(METHODS[name], options={**METHODS[name].options, **options})


def main() -> None:
    from streamlit.web import cli

    file, *options = sys.argv[1:]
    sys.path.insert(0, str(ROOT))
    hurry()
    threading.Thread(target=tell, args=(Path(file), Hooks()), daemon=True).start()
    sys.argv = ["streamlit", "run", str(ROOT / "explorer" / "app.py"), *options]
    cli.main()


if __name__ == "__main__":
    main()
