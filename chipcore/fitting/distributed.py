"""Several processes, one W: ``torchrun --nproc-per-node N -m chipcore fit ...``.

Every process takes its share of the images. Once a pass, pooled sums are added up everywhere and samples go to the
process of rank 0, which puts them in the images' order and solves: W is that of one process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

import numpy as np
import torch
import torch.distributed as dist

from chipcore.errors import ChipError, SettingsError
from chipcore.fitting.accumulate import IMAGES_AT_ONCE, LayerSums

MAX_SHARDS = 100_000


@dataclass(frozen=True)
class Team:
    """This process among those of a run."""

    rank: int = 0
    size: int = 1

    def share(self, names: Sequence[str]) -> tuple[str, ...]:
        """Every size-th image from this process's own on."""
        return tuple(names[self.rank :: self.size])

    def agree(self, number: int) -> int:
        """The smallest of all processes' numbers."""
        if self.size == 1:
            return number
        smallest = torch.tensor([number])
        if dist.get_backend() == "nccl":
            smallest = smallest.cuda()
        dist.all_reduce(smallest, dist.ReduceOp.MIN)
        return int(smallest.item())

    def add_up(self, sums: Sequence[LayerSums], count: int) -> int:
        """Bring the sums of all processes together: pooled sums everywhere, samples on rank 0; returns the sum of ``count``."""
        if self.size == 1:
            return count
        total = torch.tensor([count], dtype=torch.float64, device=sums[0].device)
        try:
            dist.all_reduce(total)
            for one in sums:
                for tensor in one.sums().values():
                    dist.all_reduce(tensor)
                parts: list[dict[str, np.ndarray] | None] | None = [None] * self.size if self.rank == 0 else None
                dist.gather_object(one.samples.arrays(), parts)
                for part in (parts or [])[1:]:
                    assert part is not None
                    one.samples.merge(part)
        except RuntimeError as error:
            raise ChipError(
                f"another process of this run was lost ({str(error).splitlines()[0][:80]}); run the same command again with --resume."
            ) from None
        return int(total.item())


ALONE = Team()

_SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count`` of a run on machines that never meet, counted from 1.

    Its images are every count-th batch, so that each batch is put together as in one run and W comes out the same.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= MAX_SHARDS:
            raise SettingsError(
                f"there is no shard {self.number}/{self.count}; give 1/{self.count} to {self.count}/{self.count}, of at most {MAX_SHARDS}."
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``3/64``, or ``slurm`` for the place of this task in its job array.

        >>> Shard.parse("3/64")
        Shard(number=3, count=64)
        """
        if text == "slurm":
            told = {name: os.environ.get(name, "") for name in (*_SLURM, "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP")}
            if not all(told[name].isdecimal() for name in _SLURM):
                raise SettingsError(
                    f"--shard slurm reads {' and '.join(_SLURM)}, which are not set; start it with sbatch --array, or give I/N."
                )
            first, step = (
                int(told[name]) if told[name].isdecimal() else other
                for name, other in (("SLURM_ARRAY_TASK_MIN", 0), ("SLURM_ARRAY_TASK_STEP", 1))
            )
            return cls((int(told[_SLURM[0]]) - first) // max(step, 1) + 1, int(told[_SLURM[1]]))
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise SettingsError(f"--shard is {text!r}; give I/N, the third of 64 being 3/64, or slurm.")
        return cls(int(number), int(count))

    def share(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names of this shard's images."""
        return tuple(name for place, name in enumerate(names) if place // IMAGES_AT_ONCE % self.count == self.number - 1)


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """The processes that torchrun started; a team of one without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    rank = int(os.environ["RANK"])

    def told_to_stop(_signal: int, _frame: FrameType | None) -> None:
        # torchrun stops the others when one is lost.
        print(
            f"chipcore: process {rank} was stopped (another one may have been lost); run the same command again with --resume.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    if device.type == "cuda":
        torch.cuda.set_device(device)  # what is made without naming a GPU belongs on this process's own
    before = signal.signal(signal.SIGTERM, told_to_stop)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=2))
    try:
        yield Team(rank, size)
    finally:
        signal.signal(signal.SIGTERM, before)
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process on its machine."""
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device
