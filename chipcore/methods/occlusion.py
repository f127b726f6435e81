"""Occlusion (Zeiler and Fergus 2014): how far the class's probability drops when a gray square covers a place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from chipcore.maps import without_rounding
from chipcore.methods.base import Explanation, MethodInputs, Properties, register

_AT_ONCE = 32


@register(
    "occlusion", "Occlusion", "Zeiler and Fergus 2014",
    Properties(instance=("perturbation",), class_discriminative=True), order=130, slow=True, options={"windows": 7, "overlap": 2},
)  # fmt: skip
def occlusion(request: MethodInputs) -> Explanation:
    """Mean drop of f^c over the squares that cover a pixel, shape (size, size); negative where f^c rises.

    The square's side is the input's shorter one divided by ``windows`` and it moves by its side divided by ``overlap``
    (224 pixels: 32 and 16); the last one of a row ends at the border. Its color is the data set's mean, 0
    after normalization. One pass a square, and one for the whole image.
    """
    height, width = request.inputs.shape[-2:]
    side = max(1, round(min(height, width) / request.options["windows"]))
    step = max(1, side // request.options["overlap"])
    tops, lefts = (sorted({*range(0, extent - side + 1, step), extent - side}) for extent in (height, width))
    corners = [(top, left) for top in tops for left in lefts]
    (whole, covered), fresh = request.once(("occlusion", side, step), lambda: _asked(request, corners, side))
    total, times = torch.zeros(height, width), torch.zeros(height, width)
    for (top, left), drop in zip(corners, (whole[request.target] - covered[:, request.target]).tolist(), strict=True):
        place = slice(top, top + side), slice(left, left + side)
        total[place] += drop
        times[place] += 1
    raw = without_rounding(total / times.clamp(min=1), float(whole[request.target]))
    return Explanation(raw, passes=1 + len(corners) if fresh else 0)


def _asked(request: MethodInputs, corners: Sequence[tuple[int, int]], side: int) -> tuple[Tensor, Tensor]:
    """f of the whole image, shape (C,), and with a square over each of ``corners`` (top, left), shape (N, C), in float64."""
    whole, answers = request.network.probabilities(request.inputs)[0].cpu().double(), []
    for first in range(0, len(corners), _AT_ONCE):
        some = corners[first : first + _AT_ONCE]
        covered = request.inputs.repeat(len(some), 1, 1, 1)
        for number, (top, left) in enumerate(some):
            covered[number, :, top : top + side, left : left + side] = 0
        answers.append(request.network.probabilities(covered).cpu().double())
        request.report(first + len(some), len(corners))
    return whole, torch.cat(answers)
