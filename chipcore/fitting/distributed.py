"""Several processes, one W: ``torchrun --nproc-per-node N -m chipcore fit ...``.

Every process takes its share of the images; moments add up (they are sums), so one all-reduce a pass
is all that is said between them.
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

import torch
import torch.distributed as dist
from torch import Tensor

from chipcore.errors import ChipError
from chipcore.fitting.moments import Moments

_CHUNK = 1 << 24  # elements a message: an eighth of a gigabyte of float64


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

    def add_up(self, moments: Sequence[Moments], count: int, beside: Sequence[Tensor] = ()) -> int:
        """Sum the moments of all processes, and the tensors ``beside`` them, in place, everywhere; returns the sum of ``count``."""
        if self.size == 1:
            return count
        total = torch.tensor([count], dtype=torch.float64, device=moments[0].gram.device)
        try:
            dist.all_reduce(total)
            for tensor in beside:
                dist.all_reduce(tensor)
            for one in moments:
                for name in Moments.names():
                    if name != "gram":
                        dist.all_reduce(getattr(one, name))
                # Grams are nearly all that is sent; a class that nobody saw has none.
                seen = (one.loyalty > 0).nonzero().flatten()
                for rows in seen.split(max(1, _CHUNK // one.gram[0].numel())):
                    some = one.gram[rows]
                    dist.all_reduce(some)
                    one.gram[rows] = some
        except RuntimeError as error:
            raise ChipError(
                f"another process of this run was lost ({str(error).splitlines()[0][:80]}); run the same command again with --resume."
            ) from None
        return int(total.item())


ALONE = Team()


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
