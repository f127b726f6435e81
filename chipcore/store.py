"""Where things live on disk, and how a file is written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

from chipcore.errors import ChipError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
BUNDLED_IMPORTANCE = ASSETS / "importance"


def cache_dir() -> Path:
    """The user's cache folder; ``CHIP_CACHE`` overrides the platform's own."""
    return Path(os.environ.get("CHIP_CACHE") or platformdirs.user_cache_dir("chipcore", appauthor=False))


def fitted_importance() -> Path:
    """The folder in which ``fit`` leaves W unless told otherwise."""
    return cache_dir() / "importance"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside ``path``, flush it to disk, and rename it into place.

    ``write`` receives the temporary path. A crash leaves the old file or the new one, never half of one.
    Raises ``ChipError`` where the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes files that only the owner can read; give it what any new file would have.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        raise ChipError(f"cannot write {path}: {error.strerror or error}; free some space or choose another folder.") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def sha256_of_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """A digest of names, shapes, types and values; independent of file format and device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
