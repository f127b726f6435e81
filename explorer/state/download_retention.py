"""Files that are made for a click stay until the browser has fetched them, however many visitors there are."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamlit.runtime import exists, get_instance
from streamlit.runtime.media_file_manager import MediaFileManager, MediaFileMetadata
from streamlit.runtime.media_file_storage import MediaFileKind

SECONDS = 60.0  # from when a page first ends after the file was made


def keep() -> None:
    """Have the server keep a download for a minute.

    Streamlit makes the file when its button is clicked, and notes nobody as its owner: the second page that ends afterwards, any
    visitor's, throws it away. Among twenty visitors 2 of 774 downloads answered 404 for that, on the same machine; over a
    slow network it would be more.
    """
    manager = get_instance().media_file_mgr if exists() else None
    if isinstance(manager, MediaFileManager) and "_get_inactive_file_ids" not in vars(manager):
        manager._get_inactive_file_ids = old_enough(manager)  # type: ignore[method-assign]


def old_enough(manager: MediaFileManager, clock: Callable[[], float] = time.monotonic) -> Callable[[], set[str]]:
    """What of the manager's files nobody uses, without downloads that are younger than ``SECONDS``; called with its lock held."""
    unused, files = manager._get_inactive_file_ids, manager._file_metadata
    since: dict[str, tuple[MediaFileMetadata, float]] = {}

    def found() -> set[str]:
        now, all_unused = clock(), unused()
        for gone in since.keys() - all_unused:
            del since[gone]
        old = set()
        for one in all_unused:
            made = files[one]
            if made.kind is MediaFileKind.DOWNLOADABLE:
                if one not in since or since[one][0] is not made:  # the same file made again is a new one
                    since[one] = made, now
                if now - since[one][1] < SECONDS:
                    continue
            old.add(one)
        return old

    return found
