"""Where things live on disk, and how a file is written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor

from chipcore.errors import ChipError

_HERE = Path(__file__).resolve().parent
ASSETS = next(
    (folder for folder in (_HERE / "assets", _HERE.parent / "assets") if folder.is_dir()), _HERE / "assets"
)  # installed, or a checkout
BUNDLED_IMPORTANCE = ASSETS / "importance"
_ABANDONED = 3600.0  # seconds after which a half-written file is that of a process that was killed


def cache_dir() -> Path:
    """The user's cache folder; ``CHIP_CACHE`` overrides the platform's own."""
    return Path(os.environ.get("CHIP_CACHE") or platformdirs.user_cache_dir("chipcore", appauthor=False))


def fitted_importance() -> Path:
    """The folder in which ``fit`` leaves W unless told otherwise."""
    return cache_dir() / "importance"


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file can have is no reason to fail."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, in a folder that may not be read, or with a zero byte
        return False


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside ``path``, flush it to disk, and rename it into place.

    ``write`` receives the temporary path. A crash leaves the old file or the new one, never half of one.
    Raises ``ChipError`` where the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_away(path)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        # With the rights that any new file would have; mkstemp's are for its owner alone, and asking for the umask
        # changes it for every thread.
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        temporary = beside
        write(temporary)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except Exception as error:
        if not _is_of_the_disk(error):
            raise
        reason = "the disk is full or has failed" if isinstance(error, RuntimeError) else getattr(error, "strerror", None) or str(error)
        raise ChipError(f"cannot write {path}: {reason}; free some space or choose another folder.") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _is_of_the_disk(error: Exception) -> bool:
    """safetensors and torch have errors of their own for a disk that is full."""
    of_torch = isinstance(error, RuntimeError) and any(
        word in str(error) for word in ("PytorchStreamWriter", "inline_container", "iostream")
    )
    return of_torch or isinstance(error, OSError | SafetensorError)


def _clear_away(path: Path) -> None:
    """Remove what processes that were killed while they wrote ``path`` have left beside it."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _ABANDONED:
                old.unlink()


def check_writable(folder: Path) -> None:
    """Say now, not after hours of work, that nothing can be written below ``folder``; makes the folder."""
    write_whole(folder / ".writable", lambda _path: None)
    (folder / ".writable").unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Keep every other process and thread that asks out of ``folder`` meanwhile; makes the folder.

    The lock is the operating system's on the file ``.lock`` in it: a process that is killed gives it up, and the file
    that stays locks nothing. Where the folder is taken and ``wait`` is False, raises ``ChipError``.
    """
    lock = FileLock(folder / ".lock", timeout=-1 if wait else 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ChipError(f"{folder} is in use by another fit; wait until that has ended, or give another folder with --out.") from None
    except OSError as error:
        raise ChipError(f"cannot write {folder}: {error.strerror or error}; free some space or choose another folder.") from None
    try:
        yield
    finally:
        lock.release()


def sha256_of_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """A digest of names, shapes, types and values; independent of file format and device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
