"""The part of a network from a gated layer on, and what one pass over images leaves for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from chipcore.gating.class_head import ClassHead
from chipcore.gating.gates import gate
from chipcore.gating.linear_front import LinearFront

# Where nothing is known of a network's inside: first layers widen an image about so much.
WIDENED = 16


@dataclass(frozen=True)
class Activations:
    """What one pass over B images leaves behind.

    ``scores``: (B, C) before softmax. ``features[l]``: (B, K, u, v) of layer ``l``. ``side_inputs[l]``: the
    other tensors that cross the cut at ``l``, each with the batch as its first axis unless listed as fixed.
    """

    scores: Tensor
    features: dict[str, Tensor]
    side_inputs: dict[str, tuple[Tensor, ...]]


class Suffix:
    """What depends on one layer: from its features to the scores.

    ``batched`` says which of the side inputs have the batch as their first axis; ``peak`` is the number
    of elements that the widest step of the suffix reads and writes for one gated network.
    """

    def __init__(
        self, path: str, module: nn.Module, batched: tuple[bool, ...], peak: int,
        front: LinearFront | None = None, front_is_head: bool = False, layout: torch.memory_format = torch.channels_last,
    ) -> None:  # fmt: skip
        self.path = path
        self.batched = batched
        self.peak = peak
        self._module = module  # what follows the front, where there is one
        self._front = front
        self._layout = layout
        self._front_is_head = front_is_head  # the first linear map is also the last

    @property
    def gates_contributions(self) -> bool:
        """Whether the channels' contributions to a first linear map are gated, not the features (see ``front``)."""
        return self._front is not None

    @property
    def contribution_size(self) -> int:
        """Elements of one image's contributions; 0 where the features themselves are gated."""
        return 0 if self._front is None else self._front.size

    def prepare(self, features: Tensor) -> Tensor:
        """What is computed once a image: the features (B, K, u, v) themselves, or their contributions."""
        return features if self._front is None else self._front.contributions(features)

    @property
    def selects_classes(self) -> bool:
        """Whether the scores of some classes cost less than those of all (see ``head``)."""
        return self._front_is_head or isinstance(self._module, ClassHead)

    def scores(self, prepared: Tensor, side_inputs: Sequence[Tensor], gates: Tensor, classes: Tensor | None = None) -> Tensor:
        """Scores g(X_s, d_n), shape (B, N, C).

        Args:
            prepared: from :meth:`prepare`, B images.
            side_inputs: the other tensors that cross the cut, each (B, ...).
            gates: d, shape (B, N, K), of the features' type.
            classes: indices of the classes wanted, in the order of the result's last axis; all where None.
        """
        times = gates.shape[1]
        at_front = classes if self._front_is_head else None
        hidden = gate(prepared, gates, self._layout) if self._front is None else self._front.gated(prepared, gates, at_front)
        beside = (
            value.repeat_interleave(times, dim=0) if batched else value for value, batched in zip(side_inputs, self.batched, strict=True)
        )
        if classes is None or self._front_is_head:
            scores = self._module(hidden, *beside)
        elif isinstance(self._module, ClassHead):
            scores = self._module(hidden, *beside, classes=classes)
        else:
            scores = self._module(hidden, *beside)[:, classes]
        return cast(Tensor, scores).unflatten(0, gates.shape[:2])


def why_no_feature_maps(shape: Sequence[int] | None, images: Sequence[int]) -> str:
    """What a layer gives in place of feature maps (B, K, u, v) for images (B, 3, h, w); empty where it gives them.

    ``shape`` is that of the layer's output, None where it is no tensor.
    """
    maps = "not feature maps (batch x channels x height x width)"
    if shape is None:
        return f"no tensor, {maps}"
    size = " x ".join(str(one) for one in shape[1:])
    if len(shape) == 3:
        return f"tokens (batch x {size}), as a transformer does, {maps}; ask for a map of its patches with reshape='tokens' (--tokens)"
    if len(shape) != 4:
        return f"a tensor of {len(shape)} axes, {maps}"
    return ""
