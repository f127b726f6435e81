"""A download outlives the pages of other visitors that end before the browser has fetched it."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.media_file_storage import MediaFileKind
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage

from explorer.state import download_retention
from tests.helpers.visitor import Visitor, serving


def made(manager: MediaFileManager, words: bytes = b"a map") -> str:
    """A file as a click makes it."""
    place = manager.add_deferred(lambda: words, "application/zip", "map.zip", "a button")
    return manager.execute_deferred(place).rsplit("/", 1)[-1]


def there(manager: MediaFileManager, name: str) -> bool:
    return name.split(".")[0] in manager._file_metadata


@pytest.mark.parametrize("kept", [True, False])
def test_a_download_stays_for_a_minute_and_goes_then(kept: bool) -> None:
    now = [0.0]
    manager = MediaFileManager(MemoryMediaFileStorage("/media"))
    if kept:
        manager._get_inactive_file_ids = download_retention.old_enough(manager, lambda: now[0])  # type: ignore[method-assign]
    name = made(manager)
    for _ in range(5):  # pages of others end
        manager.remove_orphaned_files()
    assert there(manager, name) is kept, "without it, Streamlit's own rule: whoever upgrades may find it mended"
    if kept:
        now[0] = download_retention.SECONDS - 1
        assert made(manager) == name
        now[0] = download_retention.SECONDS + 1
        manager.remove_orphaned_files()
        assert there(manager, name), "made again, it is new"
        now[0] += download_retention.SECONDS
        manager.remove_orphaned_files()
        manager.remove_orphaned_files()
        assert not there(manager, name)


def test_pictures_of_the_page_go_as_before() -> None:
    manager = MediaFileManager(MemoryMediaFileStorage("/media"))
    manager._get_inactive_file_ids = download_retention.old_enough(manager)  # type: ignore[method-assign]
    url = manager.add(b"picture", "image/png", "a picture")
    name = url.rsplit("/", 1)[-1]
    assert there(manager, name) and manager._file_metadata[name.split(".")[0]].kind is MediaFileKind.MEDIA
    manager.clear_session_refs()
    manager.remove_orphaned_files()
    assert not there(manager, name)


@pytest.mark.slow
def test_pages_of_another_visitor_do_not_take_a_download_away(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log.txt", CHIP_CACHE=str(tmp_path / "cache")) as (address, _process),
        Visitor(address) as visitor,
        Visitor(address) as other,
    ):
        file = visitor.open("", model="vgg16_slim").made("strip-png")
        for step in (1, 2, 3):
            other.open("learn", model="vgg16_slim", step=str(step))
        with urllib.request.urlopen(file, timeout=30) as answer:
            assert answer.read(8) == b"\x89PNG\r\n\x1a\n"
