"""The folders of this machine that a visitor may name: none, unless whoever runs the app says so.

``CHIP_FOLDERS`` holds them, separated as in ``PATH``. A path that comes from the browser is opened only if it
lies inside one of them after ``..`` and symbolic links are resolved. ``CHIP_MODULES`` holds, separated by commas,
the modules that a visitor may have imported for a network of their own: importing runs code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.errors import DataError

FOLDERS, MODULES = "CHIP_FOLDERS", "CHIP_MODULES"
ALLOW_HELP = "To use folders of the machine that the app runs on, start it with `python -m explorer --allow FOLDER`."
_LISTED = 500  # folders or files that are offered; others can be typed
_DEPTH = 3  # levels below an allowed folder that are looked through for the list


def roots() -> list[Path]:
    """The allowed folders that exist, resolved."""
    named = [Path(one).expanduser() for one in os.environ.get(FOLDERS, "").split(os.pathsep) if one.strip()]
    return list(dict.fromkeys(one.resolve() for one in named if one.is_dir()))


def modules() -> list[str]:
    """The modules that may be imported, by their full names."""
    return [one.strip() for one in os.environ.get(MODULES, "").split(",") if one.strip()]


def resolve(text: str) -> Path:
    """A path from the browser, resolved; ``DataError`` unless it is something that exists inside an allowed folder.

    A path that does not begin at the root is looked for in the allowed folders, with or without their own name. The sentence is the same for what does not exist and for what lies outside, so nobody can ask what is there.
    """
    for start in (Path("/"), *roots(), *(root.parent for root in roots())):
        try:
            path = (start / text.strip()).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # not there, not readable, a zero byte, links in a circle
            continue
        if text.strip() and _inside(path):
            return path
    listed = ", ".join(str(root) for root in roots()) or "none"
    raise DataError(f"{text.strip()[:200]!r} is not in the folders that this app may read ({listed}); choose from the list.")


def _inside(path: Path) -> bool:
    return any(path.is_relative_to(root) for root in roots())


def images(text: str) -> ImageFolder:
    """The images below a folder named in the browser.

    Raises ``DataError`` for a folder that is not allowed or has none. Links to files outside are left out.
    """
    folder = resolve(text)
    found = find_images(folder)
    folders = {name: os.path.dirname(name) for name in found.names}
    open_folders = {below for below in set(folders.values()) if _inside((found.root / below).resolve())}
    kept = tuple(
        name for name in found.names
        if folders[name] in open_folders and (not os.path.islink(found.root / name) or _inside((found.root / name).resolve()))
    )  # fmt: skip
    if not kept:
        raise DataError(f"{folder} holds no photographs that this app may read; choose another folder.")
    return ImageFolder(found.root, kept, found.closed)


def file(text: str, suffixes: Sequence[str]) -> Path:
    """A file named in the browser; ``DataError`` unless it is allowed and ends in one of ``suffixes``."""
    path = resolve(text)
    if not path.is_file() or path.suffix.lower() not in suffixes:
        raise DataError(f"{path.name} is not a file that ends in {', '.join(suffixes)}; choose another.")
    return path


def folders() -> list[str]:
    """Folders to choose from, the allowed ones first."""
    found = [parent for root in roots() for parent, _files in _walk(root)]
    return [str(path) for path in dict.fromkeys(sorted(found, key=lambda path: len(path.parts)))][:_LISTED]


def files(suffixes: Sequence[str]) -> list[str]:
    """Files with these endings to choose from."""
    found = [
        str(parent / name) for root in roots() for parent, names in _walk(root) for name in names if name.lower().endswith(tuple(suffixes))
    ]
    return list(dict.fromkeys(found))[:_LISTED]


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for seen, (parent, below, names) in enumerate(os.walk(root)):
        below[:] = sorted(one for one in below if not one.startswith("."))
        if len(Path(parent).relative_to(root).parts) >= _DEPTH:
            below.clear()
        yield Path(parent), sorted(names)
        if seen >= 4 * _LISTED:  # a folder of a hundred thousand is not read for a list
            return


def short(path: str) -> str:
    """A path as it is shown: from the allowed folder's own name on."""
    for root in roots():
        if Path(path).is_relative_to(root):
            return str(Path(root.name) / Path(path).relative_to(root))
    return path
