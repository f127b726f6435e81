"""The images that visitors put into their galleries: kept on the server under a random key each, which their link carries.

Whoever knows a image's key can open it, nobody else: a key is drawn, not computed from the image, which
others may have too; nothing lists the keys, and a image behind a key never changes. So a link shows those
images that were in the gallery when it was copied, and none that came later. What nobody has opened for
``KEPT_DAYS`` goes, and before that what was not opened for longest where room runs short.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from chipcore.errors import ChipError
from chipcore.storage import cache_dir
from explorer.services import gallery, uploads
from explorer.services.cache import cached_by_size
from explorer.services.disk_quota import DAY, evict_until, touch
from explorer.services.gallery import MAX_UPLOADS, GalleryImage

PARAMETER = "mine"  # of the URL: the keys of the visitor's images
KEPT_DAYS = 7
KEPT_BYTES = 1 << 30  # of all visitors' images together
KEPT_COUNT = 4_000  # images
_BITS = 128
_RENEWED = DAY / 24  # a image's last use is no more exact than this many seconds


def save(name: str, image: GalleryImage) -> GalleryImage:
    """Keep a image under a new key; gives it with the key, or as it came where it is no image that can be read.

    Args:
        name: in the gallery.
        image: as it was uploaded.

    Raises:
        ChipError: the disk is full or may not be written.
    """
    if image.key or not uploads.is_image(image.data):
        return image
    key = secrets.token_hex(_BITS // 8)
    try:
        _all().mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=_all()))
        try:
            (temporary / "photograph").write_bytes(image.data)
            (temporary / "about.json").write_text(json.dumps({"name": name, "file": image.name}), encoding="utf-8")
            os.replace(temporary, _all() / key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        evict_until(_all(), KEPT_BYTES, {key}, days=KEPT_DAYS, count=KEPT_COUNT)
    except OSError as error:
        raise ChipError(
            f"your photographs could not be kept on the server ({error.strerror}), so they are gone when this page is loaded again."
        ) from None
    return replace(image, key=key)


def resolve(text: str) -> tuple[dict[str, GalleryImage], int]:
    """The images of a link, by their names in the gallery, and how many of them are gone.

    Args:
        text: what the URL says; anything may stand there.
    """
    keys = list(dict.fromkeys(text.split(".")))[:MAX_UPLOADS] if text else []
    found: dict[str, GalleryImage] = {}
    for key in keys:
        known = _named(key)
        if known is not None:
            name, image = known
            found[gallery.free_name(name, {*gallery.ENTRIES, *found})] = image
    return found, len(keys) - len(found)


def link(images: Iterable[GalleryImage]) -> str:
    """What the URL says of images: their keys."""
    return ".".join(one.key for one in images if one.key)


def delete(key: str) -> None:
    """Remove a image at once; its link opens it no more."""
    if _is_key(key):
        shutil.rmtree(_all() / key, ignore_errors=True)


def load_all(images: Mapping[str, GalleryImage]) -> tuple[dict[str, GalleryImage], str]:
    """Keep all images that are not kept yet; gives them, and why some could not be, in a sentence."""
    found, problem = dict(images), ""
    for name, image in images.items():
        try:
            found[name] = save(name, image)
        except ChipError as error:
            problem = str(error)
            break
    return found, problem


def _named(key: str) -> tuple[str, GalleryImage] | None:
    if not _is_key(key) or not (place := _all() / key).is_dir():
        return None
    if _age(place) > KEPT_DAYS * DAY:  # nobody came by to remove it
        shutil.rmtree(place, ignore_errors=True)
        return None
    if _age(place) > _RENEWED:
        touch(place)
    try:
        return _read(str(place), key)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_key(text: str) -> bool:
    """Whether it may be a key; what may not never becomes a path."""
    return len(text) == _BITS // 4 and set(text) <= set("0123456789abcdef")


def _age(place: Path) -> float:
    try:
        return time.time() - place.stat().st_mtime
    except OSError:
        return 0.0


@cached_by_size(256)  # MB; a lecturer's link is opened by a whole class
def _read(place: str, key: str) -> tuple[str, GalleryImage]:
    about = json.loads((Path(place) / "about.json").read_text(encoding="utf-8"))
    image = gallery.uploaded(str(about["file"]), (Path(place) / "photograph").read_bytes())
    return str(about["name"]), replace(image, key=key)


def clear() -> None:
    """Forget what was read, not what is kept."""
    _read.clear()


def _all() -> Path:
    return cache_dir() / "photographs"
