"""A fit's progress on disk: kill it at any moment, resume, and get the same W."""

from __future__ import annotations

import functools
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from chipcore.errors import ChipError
from chipcore.fitting.moments import Moments
from chipcore.storage import locked, write_whole

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

# What a person calls the parts of a run, for the sentence that refuses to resume.
_PARTS = {
    "network": "the network", "weights_sha256": "the network's weights", "layers": "the layers", "settings": "the settings", "classes": "the classes",
    "data_fingerprint": "the photographs", "processes": "the number of processes", "memory": "the memory budget", "chipcore": "the version of chipcore",
}  # fmt: skip


@dataclass
class Position:
    """Where a run stands: the pass, how many batches of it are in the moments, and what was unreadable."""

    number: int = 0
    batches: int = 0
    readable: int = 0
    unreadable: list[str] = field(default_factory=list)


class Checkpoint:
    """The state of one process of a run in ``folder``.

    ``run`` describes everything that W depends on; a folder of another run is refused. Files are written
    whole or not at all, at most every ``every`` seconds and never for more than a twentieth of the time.
    """

    def __init__(self, folder: Path, run: dict[str, Any], rank: int = 0, every: float = 60.0) -> None:
        self.folder, self.run, self.every = folder, run, every
        self.rank = rank
        self._next = time.monotonic() + every

    def path(self, number: int) -> Path:
        """The file of a pass. The last pass's stays until this one's sums have met: another process may be behind."""
        return self.folder / f"moments-{self.rank}-{number}.npz"

    def last_pass(self) -> int:
        """The latest pass that anything was saved of, or -1."""
        numbers = (file.stem.rsplit("-", 1)[1] for file in self.folder.glob(f"moments-{self.rank}-*.npz"))
        return max((int(number) for number in numbers if number.isdecimal()), default=-1)

    def begin(self) -> None:
        """Forget what an earlier run left: its later passes would otherwise be taken for this one's."""
        for file in self.folder.glob(f"moments-{self.rank}-*.npz"):
            file.unlink(missing_ok=True)

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def write(self, at: Position, moments: Sequence[Moments], rows: dict[str, np.ndarray]) -> None:
        """Save the moments of the pass under way and the rows of W solved in earlier passes."""
        started = time.monotonic()
        arrays: dict[str, np.ndarray] = {f"rows/{name}": value for name, value in rows.items()}
        for number, one in enumerate(moments):
            touched = one.images.nonzero().flatten()
            arrays[f"{number}/touched"] = touched.cpu().numpy()
            for name in Moments.names():
                value = getattr(one, name)
                if name == "gram":  # class by class: a copy of all Grams would double the memory
                    arrays |= {f"{number}/gram/{slot}": value[slot].cpu().numpy() for slot in touched.tolist()}
                else:
                    arrays[f"{number}/{name}"] = value.cpu().numpy()
        arrays["about"] = np.frombuffer(json.dumps({"run": self.run, "position": vars(at)}).encode(), np.uint8)

        def save(path: Path) -> None:
            with open(path, "wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)

        write_whole(self.path(at.number), save)
        self._next = time.monotonic() + max(self.every, 20 * (time.monotonic() - started))

    def read(self, number: int) -> tuple[Position, dict[str, np.ndarray], Stored]:
        """Position, solved rows and moments of a pass.

        Raises ``ChipError`` where the file is damaged or what it was written for has changed.
        """
        path = self.path(number)
        try:
            # Checks every member's CRC, so a damaged byte is found here and not in W.
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise ValueError
            file = np.load(path, allow_pickle=False)
            about = json.loads(file["about"].tobytes())
            run, position = dict(about["run"]), Position(**about["position"])
        except Exception:  # zipfile and numpy raise many types for a damaged file
            raise _damaged(path) from None
        changed = [words for key, words in _PARTS.items() if run.get(key) != self.run.get(key)]
        if changed:
            raise ChipError(
                f"cannot resume: {' and '.join(changed)} changed since {path} was written; give what was given then, or leave --resume out to begin again."
            )
        rows = {name.removeprefix("rows/"): file[name] for name in file.files if name.startswith("rows/")}
        return position, rows, Stored(file, path)

    def forget(self, number: int) -> None:
        """A pass that every process has left behind is not needed any more."""
        self.path(number).unlink(missing_ok=True)

    def remove(self) -> None:
        """The run is over: its checkpoints are of no more use."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Stored:
    """Moments in a checkpoint, read one after another."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path = file, path

    def restore(self, number: int, into: Moments) -> None:
        try:
            for name in Moments.names():
                if name != "gram":
                    _copy(self._file[f"{number}/{name}"], getattr(into, name))
            for slot in self._file[f"{number}/touched"].tolist():
                _copy(self._file[f"{number}/gram/{slot}"], into.gram[slot])
        except Exception:  # see Checkpoint.read
            raise _damaged(self._path) from None


def _copy(saved: np.ndarray, into: torch.Tensor) -> None:
    if saved.shape != tuple(into.shape):  # copy_ would stretch it
        raise ValueError
    into.copy_(torch.from_numpy(saved))


def _damaged(path: Path) -> ChipError:
    return ChipError(f"{path} is damaged; leave --resume out to begin again.")


def alone_in_its_folder(fit: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Refuse a second fit that would write its checkpoints (``checkpoints=``) where another one that runs has its own."""

    @functools.wraps(fit)
    def guarded(*given: _Given.args, **named: _Given.kwargs) -> _Result:
        folder, team = named.get("checkpoints"), named.get("team")
        if not isinstance(folder, Path) or getattr(team, "rank", 0) > 0:  # the first process of a team locks for all
            return fit(*given, **named)
        with locked(folder, wait=False):
            return fit(*given, **named)

    return guarded
