"""Layers whose output is a grid of tokens: read as feature maps, and written back.

Swin and the inside of a ConvNeXt block give (B, u, v, K), their channels last; a vision transformer gives (B, tokens, K), where some
tokens stand for patches of the image and others (class token, registers) for none. Both hold the values of feature maps (B, K, u, v)
in another order, so gating a channel means the same: the k-th value of every token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from chipcore.errors import ChipError

# None: channels last are found, tokens are refused. "tokens": these are read as a grid too. A function: from a layer's output to maps.
Reshape = Literal["tokens"] | Callable[[Tensor], Tensor] | None
_MOST_EXTRA = 16  # tokens in front of the patches' that stand for no place: a class token, registers


class ToMaps(nn.Module):
    """From a layer's output (B, ...) to feature maps (B, K, u, v); ``places`` (K, u, v) index one image's values."""

    places: Tensor

    def __init__(self, places: Tensor) -> None:
        super().__init__()
        self.register_buffer("places", places, persistent=False)

    def forward(self, output: Tensor) -> Tensor:
        return output.flatten(1)[:, self.places.flatten()].unflatten(1, self.places.shape)


class FromMaps(nn.Module):
    """Back from feature maps to what the layer gives; where ``whole`` is None, ``output`` gives the values that are in no map.

    Args:
        places: as of :class:`ToMaps`.
        shape: of the layer's output, without the batch.
    """

    places: Tensor

    def __init__(self, places: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.complete = places.numel() == torch.Size(shape).numel()
        flat = places.flatten()
        self.register_buffer("places", flat.argsort() if self.complete else flat, persistent=False)

    def forward(self, maps: Tensor, output: Tensor | None = None) -> Tensor:
        if self.complete or output is None:
            return maps.flatten(1)[:, self.places].unflatten(1, self.shape)
        return output.flatten(1).index_copy(1, self.places, maps.flatten(1)).unflatten(1, self.shape)


def places_of(shape: Sequence[int], images: Sequence[int], reshape: Reshape) -> Tensor | None:
    """Where the values of feature maps (K, u, v) lie in a layer's output, int64; None where they are maps as they are, or none at all.

    Args:
        shape: of the layer's output, with the batch.
        images: shape of the input, (B, channels, h, w).
        reshape: see ``Reshape``; a function is tried on numbers, so it may pick and reorder values but not compute.

    Raises:
        ChipError: ``reshape`` gives anything but maps of some of the values.
    """
    count = torch.Size(shape[1:]).numel()
    values = torch.arange(count).view(tuple(shape[1:])) if count else torch.empty(0)
    last = len(shape) == 4 and channels_are_last(shape, images)
    if callable(reshape) and (last or len(shape) == 3):
        return _asked(reshape, values, shape)
    if last:
        return values.permute(2, 0, 1).contiguous()
    if len(shape) == 3 and reshape == "tokens":
        for extra in range(_MOST_EXTRA + 1):
            grid = _grid(shape[1] - extra, images)
            if grid is not None:
                return values[extra:].T.reshape(-1, *grid).contiguous()
    return None


def channels_are_last(shape: Sequence[int], images: Sequence[int]) -> bool:
    """Whether (B, a, b, c) is more likely (B, u, v, K) than (B, K, u, v), from the shape of the images alone."""
    _batch, a, b, c = shape
    height, width = images[2:]
    if height == width:
        return a == b != c

    def fits(u: int, v: int) -> bool:
        return min(u, v) > 0 and abs(u * width - v * height) <= max(height, width)

    return fits(a, b) and not fits(b, c)


def _grid(tokens: int, images: Sequence[int]) -> tuple[int, int] | None:
    """Height and width of a grid of so many patches of an image, at least 2 x 2; None where there is none of the image's shape."""
    height, width = images[2:]
    side = round((tokens * height / width) ** 0.5) if tokens > 0 else 0
    for u in (side, side - 1, side + 1):
        if u >= 2 and tokens % u == 0 and tokens // u >= 2 and abs(u * width - tokens // u * height) <= max(height, width):
            return u, tokens // u
    return None


def _asked(reshape: Callable[[Tensor], Tensor], values: Tensor, shape: Sequence[int]) -> Tensor:
    said = "reshape takes a layer's output (batch, ...) and returns its maps (batch, channels, height, width), its values reordered"
    try:
        found = reshape(values[None].double())
    except Exception as error:  # somebody's code may raise anything
        raise ChipError(f"reshape fails on an output of {tuple(shape[1:])} ({str(error).splitlines()[0]}); {said}.") from None
    if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != 1:
        raise ChipError(f"reshape gives no maps from an output of {tuple(shape[1:])}; {said}.")
    places = found[0].round().long()
    known = (found[0] == places).all() and bool((places >= 0).all()) and bool((places < values.numel()).all())
    if not known or len(places.unique()) != places.numel():
        raise ChipError(f"reshape changes the values of an output of {tuple(shape[1:])}; {said}.")
    return places.contiguous()
