"""How many channels a visitor may close; what then happens is ``chipcore.closing``."""

from __future__ import annotations

from chipcore.closing import Closed, close, random_channels

__all__ = ["Closed", "close", "random_channels", "steps"]


def steps(channels: int) -> list[int]:
    """How many channels one may close: finely at first, then in doublings, at last all."""
    some = [0, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 4000]
    return [k for k in some if k < channels] + [channels]
