"""CHIP maps (Eq. 10), and from a raw map to a picture."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

State = Literal["ok", "constant", "no positive part", "not finite"]
Smoothing = Literal["bilinear", "bicubic", "nearest"]
SMOOTHING: tuple[Smoothing, ...] = ("bilinear", "bicubic", "nearest")


def chip_map(row: Tensor, features: Tensor) -> Tensor:
    """Eq. 10, the sum of w_c^k A_k over channels.

    Args:
        row: w_c, shape (K,).
        features: A, shape (K, u, v).

    Returns:
        The signed map, shape (u, v).

    Example:
        >>> chip_map(torch.tensor([2.0, -1.0]), torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]])).tolist()
        [[2.0, -3.0]]
    """
    return torch.einsum("k,kuv->uv", row.to(features), features)


def state(raw: Tensor) -> State:
    """Whether a map (u, v) has anything to show; the app explains every state but 'ok'.

    Example:
        >>> state(torch.zeros(7, 7)), state(torch.tensor([[-1.0, -2.0]])), state(torch.tensor([[0.0, 1.0]]))
        ('constant', 'no positive part', 'ok')
    """
    if not torch.isfinite(raw).all():
        return "not finite"
    if raw.max() == raw.min():
        return "constant"
    return "ok" if raw.max() > 0 else "no positive part"


ROUNDING = 1e-5  # of a probability in float32, whatever else is in its batch


def without_rounding(raw: Tensor, scale: float) -> Tensor:
    """Zeros where a map of differences of numbers as large as ``scale`` holds nothing but their rounding, else the map as it is.

    For methods that watch how a probability changes: on an image where nothing changes it, the rounding of float32 (6e-8 of 1)
    would be drawn at full color.

    Examples
    --------
    >>> without_rounding(torch.tensor([[6e-8, 0.0]]), scale=0.9).any().item(), without_rounding(torch.tensor([[0.01, 0.0]]), 0.9).any().item()
    (False, True)
    """
    return raw if float(raw.abs().max()) > ROUNDING * scale else torch.zeros_like(raw)


def upsample(raw: Tensor, size: int | tuple[int, int], smoothing: Smoothing = "bilinear") -> Tensor:
    """A signed map (u, v) at another resolution, float32: (size, size), or (height, width) where both are given.

    ``smoothing`` other than bilinear is for the eye alone; bicubic may overshoot the map's own extremes.

    Example:
        >>> upsample(torch.tensor([[1.0, -1.0]]), (1, 4)).tolist()
        [[1.0, 0.5, -0.5, -1.0]]
    """
    shape = (size, size) if isinstance(size, int) else size
    aligned = None if smoothing == "nearest" else False
    return functional.interpolate(raw[None, None].float(), shape, mode=smoothing, align_corners=aligned)[0, 0]


def positive_map(raw: Tensor, size: int | tuple[int, int], smoothing: Smoothing = "bilinear") -> Tensor:
    """A method's finished map: max(0, raw) at the map's own resolution, then up-sampled, float32 (size, size) or (height, width).

    Grad-CAM is defined in this order (Selvaraju et al. 2017, Eq. 2: the ReLU belongs to the coarse map), and it
    is what torch-cam, pytorch-grad-cam and captum's ``relu_attributions`` give. Cutting after the up-sampling would
    let negative neighbors eat into positive cells and tear a map of alternating signs to specks. Every picture, box
    and measure of every method goes through here.

    Example:
        >>> positive_map(torch.tensor([[1.0, -3.0]]), 4)[0].tolist()  # not [1.0, 0.0, 0.0, 0.0]
        [1.0, 0.75, 0.25, 0.0]
    """
    return upsample(raw.clamp(min=0), size, smoothing).clamp(min=0)


def picture(
    raw: Tensor, size: int | tuple[int, int], *, signed: bool = False, maximum: float | None = None, smoothing: Smoothing = "bilinear"
) -> Tensor:
    """A map for the eye: up-sampled and scaled, float32 (size, size) or (height, width).

    :func:`positive_map` in [0, 1], or for ``signed`` both parts, up-sampled together, in [-1, 1] with 0 at 0. ``maximum`` is the
    value drawn as 1; by default the map's own, so give one to put several maps on one scale. A map with
    nothing to show gives zeros.

    Example:
        >>> picture(torch.tensor([[-4.0, 2.0]]), 2).tolist(), picture(torch.tensor([[-4.0, 2.0]]), 2, signed=True)[0].tolist()
        ([[0.0, 1.0], [0.0, 1.0]], [-1.0, 0.5])
    """
    if state(raw) == "not finite":
        return torch.zeros((size, size) if isinstance(size, int) else size)
    large = upsample(raw, size, smoothing) if signed else positive_map(raw, size, smoothing)
    top = maximum if maximum is not None else float(large.abs().max())
    return (large / top).clamp(-1, 1) if top > 0 else torch.zeros_like(large)


STATES = {
    "constant": "the map has the same value everywhere, so it points nowhere",
    "no positive part": "at this depth every place speaks against this class, or none for it",
    "not finite": "the map holds NaN or infinity; the weights or W are damaged",
}
