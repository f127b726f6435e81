"""A fit's progress on disk: kill it at any moment, resume, and get the same W."""

from __future__ import annotations

import functools
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from chipcore.errors import ChipError
from chipcore.fitting.settings import FitSettings
from chipcore.storage import locked, write_whole

if TYPE_CHECKING:
    from chipcore.fitting.accumulate import LayerSums

FORMAT = 2  # 1 held a Gram for every class

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

# What a person calls the parts of a run, for the sentence that refuses to resume.
PARTS = {
    "network": "the network", "weights_sha256": "the network's weights", "layers": "the layers", "settings": "the settings", "classes": "the classes",
    "data_fingerprint": "the photographs", "processes": "the number of processes", "memory": "the memory budget", "chipcore": "the version of chipcore",
    "format": "the format of checkpoints", "shard": "the shard",
}  # fmt: skip


@dataclass
class Cursor:
    """Where a run stands: the pass, how many batches of it are in the sums, and what was unreadable."""

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
        self.folder, self.run, self.every = folder, {**run, "format": FORMAT}, every
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

    def write(self, at: Cursor, sums: Sequence[LayerSums], rows: dict[str, np.ndarray]) -> None:
        """Save the sums of the pass under way and the rows of W solved in earlier passes."""
        started = time.monotonic()
        arrays: dict[str, np.ndarray] = {f"rows/{name}": value for name, value in rows.items()}
        for number, one in enumerate(sums):
            arrays |= {f"{number}/{name}": value for name, value in one.arrays().items()}
        arrays["about"] = np.frombuffer(json.dumps({"run": self.run, "position": vars(at)}).encode(), np.uint8)

        def save(path: Path) -> None:
            with open(path, "wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)

        write_whole(self.path(at.number), save)
        self._next = time.monotonic() + max(self.every, 20 * (time.monotonic() - started))

    def read(self, number: int) -> tuple[Cursor, dict[str, np.ndarray], CheckpointPart]:
        """Cursor, solved rows and sums of a pass.

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
            run, cursor = dict(about["run"]), Cursor(**about["position"])
        except Exception:  # zipfile and numpy raise many types for a damaged file
            raise _damaged(path) from None
        changed = what_differs(run, self.run)
        if changed:
            raise ChipError(
                f"cannot resume: {' and '.join(changed)} changed since {path} was written; give what was given then, or leave --resume out to begin again."
            )
        rows = {name.removeprefix("rows/"): file[name] for name in file.files if name.startswith("rows/")}
        return cursor, rows, CheckpointPart(file, path)

    def forget(self, number: int) -> None:
        """A pass that every process has left behind is not needed any more."""
        self.path(number).unlink(missing_ok=True)

    def remove(self) -> None:
        """The run is over: its checkpoints are of no more use."""
        shutil.rmtree(self.folder, ignore_errors=True)


def what_differs(run: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What a person calls the parts in which two runs differ."""
    return [words for key, words in PARTS.items() if _comparable(key, run) != _comparable(key, other)]


def _comparable(key: str, run: Mapping[str, Any]) -> Any:
    """A part of a run; settings and parts that there were not yet when it was written are as they are by default."""
    found = run.get(key, "" if key == "shard" else None)
    if key != "settings" or not isinstance(found, dict):
        return found
    try:
        return FitSettings.from_dict(found)
    except (ChipError, TypeError):  # written by a later version
        return found


def how_far(path: Path) -> tuple[dict[str, Any], Cursor]:
    """The run that a checkpoint belongs to and where it stands, without reading its sums; raises ``ChipError`` for a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
        return dict(about["run"]), Cursor(**about["position"])
    except Exception:  # see Checkpoint.read
        raise _damaged(path) from None


class CheckpointPart:
    """The sums in a checkpoint, read layer by layer."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path = file, path

    def restore(self, number: int, into: LayerSums) -> None:
        """Put the sums of the pass's ``number``-th layer into empty ones."""
        lead = f"{number}/"
        try:
            into.restore({name.removeprefix(lead): self._file[name] for name in self._file.files if name.startswith(lead)})
        except Exception:  # see Checkpoint.read
            raise _damaged(self._path) from None


def _damaged(path: Path) -> ChipError:
    return ChipError(f"{path} is damaged; leave --resume out to begin again.")


def alone_in_its_folder(fit: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Refuse a second fit that would write its checkpoints (``checkpoints=``) where another one that runs has its own."""

    @functools.wraps(fit)
    def guarded(*given: _Given.args, **named: _Given.kwargs) -> _Result:
        folder, team = named.get("checkpoints"), named.get("team")
        folder = Path(folder) if isinstance(folder, str) else folder
        if not isinstance(folder, Path) or getattr(team, "rank", 0) > 0:  # the first process of a team locks for all
            return fit(*given, **named)
        with locked(folder, wait=False):
            return fit(*given, **named)

    return guarded
