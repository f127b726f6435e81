"""Images that a visitor gives to a fit: single files or a ZIP, kept in the user's cache until they are old.

Nothing of a file's name becomes a path: files are called by their content's hash, class folders of a ZIP by
their number. Limits hold for what is really read, whatever an archive says of itself.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.errors import ChipError, DataError
from chipcore.images import KINDS, MAX_PIXELS, formats
from chipcore.storage import cache_dir
from explorer.services.disk_quota import evict_until, touch
from explorer.services.gallery import MAX_BYTES

MAX_UPLOAD = 64  # MB, as maxUploadSize of .streamlit/config.toml: one file or ZIP
_MEMBERS = 5_000
_TOTAL_BYTES = 512 << 20
_TOTAL_PIXELS = 2_000_000_000
_KEPT_BYTES = 2 << 30  # of all uploads together; the oldest go first
_SEEN = ".files"  # holds the number of files that were uploaded
_SUFFIX = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "DIB": ".bmp", "TIFF": ".tif",
    "JPEG2000": ".jp2", "AVIF": ".avif", "HEIF": ".heic",
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """An upload on disk: its id, how many images it holds, and how many files in it were none."""

    id: str
    images: int
    left_out: int


def folder_of(upload: str) -> Path:
    """Where an upload lies; ``DataError`` for what is no id of one, or is gone."""
    path = _all() / upload
    if len(upload) != 32 or not set(upload) <= set("0123456789abcdef") or not path.is_dir():
        raise DataError("these uploaded photographs are not here any more; upload them again.")
    return path


def images(upload: str) -> ImageFolder:
    """The images of an upload."""
    return find_images(folder_of(upload))


def is_image(data: bytes) -> bool:
    """Whether a file says of itself that it is a image we take: of a known format, with few enough pixels and bytes."""
    return len(data) <= MAX_BYTES and _image(data) is not None


def store(given: Sequence[tuple[str, bytes]], needed: Collection[str] = ()) -> Stored:
    """Check uploaded files and write the images among them to the cache; the same files are stored once.

    Args:
        given: (name, content) of images and ZIP files; of the name only the ending counts.
        needed: ids of uploads that must stay, because a fit wants them.

    Raises:
        DataError: too much of anything, a broken ZIP, or nothing that is a image.
    """
    digest = hashlib.sha256()
    for name, data in given:
        digest.update(hashlib.sha256(data).digest() + (b"zip" if _is_zip(name) else b"one"))
    upload = digest.hexdigest()[:32]
    final = _all() / upload
    if final.is_dir():
        touch(final)
        held = len(find_images(final))
        return Stored(upload, held, int((final / _SEEN).read_text()) - held)
    try:
        _all().mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=_all()))
    except OSError as error:
        raise _full(error) from None
    try:
        seen, kept = _write(given, temporary)
        if not kept:
            raise DataError(f"none of the uploaded files is a photograph we can read ({KINDS}); give others.")
        (temporary / _SEEN).write_text(str(seen))
        os.replace(temporary, final)
    except OSError as error:
        if not final.is_dir():  # else another visitor has just uploaded the same
            raise _full(error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    evict_until(_all(), _KEPT_BYTES, {upload, *needed})
    return Stored(upload, kept, seen - kept)


def _all() -> Path:
    return cache_dir() / "uploads"


def _full(error: OSError) -> ChipError:
    return ChipError(f"the photographs could not be kept ({error.strerror}); free some space on the machine that the app runs on.")


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _write(given: Sequence[tuple[str, bytes]], folder: Path) -> tuple[int, int]:
    """Write what is a image; gives the number of files seen and of different images kept."""
    seen, pixels = 0, 0
    kept: set[str] = set()
    for group, data in _files(given):
        seen += 1
        found = _image(data) if data is not None else None
        if data is None or found is None:
            continue
        suffix, size = found
        pixels += size
        if pixels > _TOTAL_PIXELS:
            raise DataError(
                f"these photographs have more than {_TOTAL_PIXELS // 10**6:,} million pixels together; give fewer or smaller ones."
            )
        name = hashlib.sha256(data).hexdigest()[:32]
        if name not in kept:  # the same image twice would count twice
            kept.add(name)
            place = folder / f"group-{group:04d}"
            place.mkdir(exist_ok=True)
            (place / f"{name}{suffix}").write_bytes(data)
    return seen, len(kept)


def _files(given: Sequence[tuple[str, bytes]]) -> Iterator[tuple[int, bytes | None]]:
    """Every file with the number of its folder; None for one that is too large."""
    total, groups = 0, {"": 0}
    for name, data in given:
        members = _members(data, _TOTAL_BYTES - total, groups) if _is_zip(name) else iter([(0, data, len(data))])
        for group, content, read in members:
            total += read
            if total > _TOTAL_BYTES:
                raise DataError(f"these files hold more than {_TOTAL_BYTES >> 20} MB when unpacked; give fewer.")
            yield group, content if content is not None and len(content) <= MAX_BYTES else None


def _members(data: bytes, room: int, groups: dict[str, int]) -> Iterator[tuple[int, bytes | None, int]]:
    """Folder number, content (None where it is too large) and bytes read of every file in a ZIP."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [one for one in archive.infolist() if not one.is_dir() and not _hidden(one.filename)]
            if len(members) > _MEMBERS:
                raise DataError(f"the ZIP holds {len(members):,} files; give at most {_MEMBERS:,}.")
            if sum(one.file_size for one in members) > room:
                raise DataError(f"the ZIP holds more than {_TOTAL_BYTES >> 20} MB when unpacked; give fewer photographs.")
            for member in members:
                if member.flag_bits & 1:
                    raise DataError("the ZIP is locked with a password; give one without.")
                # A file may unpack to more than the archive says: never more than the limit is read.
                with archive.open(member) as stream:
                    content = stream.read(MAX_BYTES + 1)
                folder = member.filename.replace("\\", "/").rpartition("/")[0]
                group = groups.setdefault(folder, len(groups))
                yield group, content if len(content) <= MAX_BYTES else None, len(content)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, UnicodeDecodeError):
        raise DataError("the ZIP is damaged or packed in a way we can't read; pack it again.") from None


def _hidden(name: str) -> bool:
    """What macOS and Windows put into a ZIP beside the images."""
    parts = name.replace("\\", "/").split("/")
    return parts[-1].startswith(".") or parts[-1] == "Thumbs.db" or "__MACOSX" in parts


def _image(data: bytes) -> tuple[str, int] | None:
    """Ending and number of pixels, from the header alone; None where it is no image or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats()) as image:
                pixels = image.width * image.height
                return (_SUFFIX[image.format or ""], pixels) if pixels <= MAX_PIXELS else None
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, MemoryError, Image.DecompressionBombError):
        return None
