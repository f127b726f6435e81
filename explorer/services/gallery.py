"""The images that can be chosen: scikit-image's free ones, and what a visitor uploads.

scikit-image's wheel carries a few images under free licences, so the gallery needs no download and
no image of ours. Those are here of which an ImageNet network says something worth explaining.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageOps

from chipcore.errors import ImageError
from chipcore.images import open_image, suffixes

MAX_BYTES = 8 * 2**20  # of one image; the server takes larger files, for checkpoints and ZIPs
KINDS = [ending[1:] for ending in suffixes()]  # of the files that a visitor may give
THUMBNAIL = 120  # pixels; shown at half of that, for screens with two pixels a point


@dataclass(frozen=True)
class GalleryImage:
    """A file that may turn out to be a image. ``sha256`` of its bytes identifies it in every cache.

    ``key`` opens a visitor's own from a link (``explorer/services/photo_links.py``); ``refused`` says why its bytes are not here.
    """

    name: str
    description: str
    credit: str
    data: bytes
    sha256: str
    key: str = ""
    refused: str = ""

    def open(self) -> Image.Image:
        """Decoded, upright, RGB; ``ImageError`` with one sentence where it is no image or too large."""
        if self.refused:
            raise ImageError(self.refused)
        return open_image(self.data, self.name)


@dataclass(frozen=True)
class GalleryItem:
    """A image of the gallery: its file in scikit-image, and what to say of it."""

    file: str
    description: str
    credit: str


ENTRIES = {
    "cat": GalleryItem("chelsea.png", "A ginger tabby cat, seen from the front", "Chelsea, by Stéfan van der Walt, CC0"),
    "coffee": GalleryItem("coffee.png", "A cup of espresso with a spoon on a wooden table", "Coffee, by Rachel Michetti, CC0"),
    "camera": GalleryItem("camera.png", "A man with a camera on a tripod, black and white", "Cameraman, by Lav Varshney, CC0"),
    "motorcycle": GalleryItem("motorcycle_left.png", "A motorcycle in a cluttered garage", "Middlebury Stereo 2014, CC0"),
    "rocket": GalleryItem("rocket.jpg", "A rocket on its launch pad, between towers", "Falcon 9, by SpaceX, CC0"),
    "astronaut": GalleryItem(
        "astronaut.png", "An astronaut in an orange suit beside a model shuttle", "Eileen Collins, by NASA, public domain"
    ),
}
MAX_UPLOADS = 12  # kept for one visitor; 12 x 8 MB at the most


@cache
def image(name: str) -> GalleryImage:
    """A image of the gallery by name."""
    entry = ENTRIES[name]
    spec = find_spec("skimage")  # found, not imported: the package takes longer to load than its images
    if spec is None or spec.origin is None:
        raise ImageError("the gallery is part of scikit-image: pip install scikit-image, or upload a photograph.")
    path = Path(spec.origin).parent / "data" / entry.file
    if not path.is_file():
        raise ImageError(f"this scikit-image has no {entry.file}; upload a photograph.")
    return _image(name, entry.description, entry.credit, path.read_bytes())


def uploaded(file_name: str, data: bytes) -> GalleryImage:
    """What a visitor gave us; nothing of it is decoded yet, and of what is too large nothing is kept."""
    found = _image(file_name, f"Your photograph {file_name}", "", data)
    if len(data) <= MAX_BYTES:
        return found
    told = f"{file_name} has {len(data) / 2**20:.1f} MB; give a photograph of at most {MAX_BYTES // 2**20} MB."
    return replace(found, data=b"", refused=told)


def with_uploads(known: Mapping[str, GalleryImage], files: Iterable[tuple[str, bytes]]) -> tuple[dict[str, GalleryImage], str]:
    """A visitor's images by their names in the gallery, after more files came.

    Args:
        known: those that are there already.
        files: name and content of each new one; one that is there already is not added again.

    Returns:
        The images, of which the oldest go when there are more than ``MAX_UPLOADS``, and the name of the last one
        that came ('' where none did).
    """
    kept, last = dict(known), ""
    for file_name, data in files:
        image = uploaded(file_name, data)
        last = next((name for name, one in kept.items() if one.sha256 == image.sha256), "")
        if not last:
            last = free_name(file_name, {*ENTRIES, *kept})
            kept[last] = image
    for name in list(kept)[: max(0, len(kept) - MAX_UPLOADS)]:
        del kept[name]
    return kept, last


def free_name(file_name: str, taken: set[str]) -> str:
    """A short name for the gallery that is not taken. It stands in a label and in the URL, so no sign of Markdown is left."""
    stem = re.sub(r"[^\w. -]|_", "-", Path(file_name).name).strip()[:40] or "photograph"
    names = (stem if number == 1 else f"{stem} {number}" for number in itertools.count(1))
    return next(name for name in names if name not in taken)


def _image(name: str, description: str, credit: str, data: bytes) -> GalleryImage:
    return GalleryImage(name, description, credit, data, hashlib.sha256(data).hexdigest())


_SIGNS: dict[str, bytes | tuple[bytes, ...]] = {
    "png": b"\x89PNG",
    "gif": b"GIF8",
    "bmp": b"BM",
    "tif": (b"II*\0", b"MM\0*"),
    "jp2": (b"\0\0\0\x0cjP", b"\xffO\xffQ"),
}


def kind(data: bytes) -> str:
    """The ending that a image's file should have, by how its bytes begin."""
    for ending, sign in _SIGNS.items():
        if data.startswith(sign):
            return ending
    if data[4:8] == b"ftyp":
        return "avif" if data[8:12] in (b"avif", b"avis") else "heic"
    return "webp" if data[8:12] == b"WEBP" else "jpg"


def thumbnail(image: Image.Image) -> Image.Image:
    """The middle of a image, square."""
    return ImageOps.fit(image, (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
