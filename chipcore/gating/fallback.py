"""Networks that can't be traced, run whole for every gate: hooks on a private copy that shares the weights."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from chipcore.errors import ChipError
from chipcore.gating.suffix import WIDENED, Suffix, why_no_feature_maps


def cut_by_hooks(model: nn.Module, paths: Sequence[str], example: Tensor) -> tuple[Any, dict[str, Suffix]]:
    """Trunk and suffixes of a network that can't be traced; each suffix is the whole network again."""
    # A copy of the structure alone: the weights are shared, the hooks are not.
    shared: dict[int, Any] = {id(value): value for value in (*model.parameters(), *model.buffers())}
    private = copy.deepcopy(model, shared)
    lock = threading.Lock()  # two threads must not see each other's hooks

    def forward_prefix(images: Tensor) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        kept: dict[str, Tensor] = {}

        def keep(path: str) -> Any:
            return lambda _module, _inputs, output: kept.__setitem__(path, output.clone() if isinstance(output, Tensor) else output)

        with lock, _hooks(private, {path: keep(path) for path in paths}):
            scores = private(images)
        return scores, [(kept[path], images) for path in paths]

    with torch.inference_mode():
        _scores, layers = forward_prefix(example)
    for path, values in zip(paths, layers, strict=True):
        refused = why_no_feature_maps(values[0].shape if isinstance(values[0], Tensor) else None, example.shape)
        if refused:
            raise ChipError(f"layer {path!r} gives {refused}, so CHIP has no channels to gate there.")
    return forward_prefix, {path: Suffix(path, _WholeNetwork(private, path, lock), (True,), WIDENED * example.numel()) for path in paths}


class _WholeNetwork(nn.Module):
    """The suffix of an untraceable network: a full pass in which a hook puts in the gated features."""

    def __init__(self, private: nn.Module, path: str, lock: threading.Lock) -> None:
        super().__init__()
        self._run, self._path, self._lock = private, path, lock

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        with self._lock, _hooks(self._run, {self._path: lambda _module, _inputs, _output: features.clone()}):
            return cast(Tensor, self._run(images))


@contextmanager
def _hooks(model: nn.Module, hooks: dict[str, Any]) -> Iterator[None]:
    handles = [model.get_submodule(path).register_forward_hook(hook) for path, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
