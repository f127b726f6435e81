"""Hook-based fallback: the whole network is run for every gate, on a private copy that shares the weights.

For networks that torch.fx cannot trace, and as the reference that every cut is compared with once.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from chipcore.errors import ChipError
from chipcore.gating.suffix import WIDENED, Suffix, why_no_feature_maps
from chipcore.gating.token_grid import FromMaps, Reshape, ToMaps, places_of


class HookedModel:
    """A model whose layers are read and replaced by hooks; the caller's own module gets none.

    A module that is called several times counts where it is called last, as it does in a traced graph.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str], example: Tensor, reshape: Reshape = None) -> None:
        # A copy of the structure alone: the weights are shared, the hooks are not.
        shared: dict[int, Any] = {id(value): value for value in (*model.parameters(), *model.buffers())}
        self.paths = tuple(paths)
        self._model = copy.deepcopy(model, shared)
        self._lock = threading.Lock()  # two threads must not see each other's hooks
        self._calls: Counter[str] = Counter()
        shapes: dict[str, Any] = {}

        def note(path: str) -> Callable[[Any], None]:
            def look(output: Any) -> None:
                self._calls[path] += 1
                shapes[path] = tuple(output.shape) if isinstance(output, Tensor) else None

            return look

        with torch.inference_mode(), self._hooked({path: note(path) for path in paths}):
            self._model(example)
        self._grids: dict[str, tuple[ToMaps, FromMaps]] = {}
        for path in paths:
            if path not in shapes:
                raise ChipError(f"layer {path!r} takes no part in the network's forward pass; choose another.")
            places = places_of(shapes[path], example.shape, reshape) if shapes[path] is not None else None
            if places is not None:
                places = places.to(example.device)
                self._grids[path] = ToMaps(places), FromMaps(places, shapes[path][1:])
                continue
            refused = why_no_feature_maps(shapes[path], example.shape)
            if refused:
                raise ChipError(f"layer {path!r} gives {refused}, so CHIP has no channels to gate there.")

    def features(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores (B, C), and the features (B, K, u, v) of every layer."""
        kept: dict[str, Tensor] = {}

        def keep(path: str) -> Callable[[Tensor], None]:
            def look(output: Tensor) -> None:
                kept[path] = self._grids[path][0](output) if path in self._grids else output.clone()

            return look

        with self._lock, self._hooked({path: keep(path) for path in self.paths}, last=True):
            scores = cast(Tensor, self._model(images))
        return scores, kept

    def scores(self, path: str, images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Scores (B, C) of a full pass in which ``change`` is applied to a layer's features."""

        def put(output: Tensor) -> Tensor:
            if path not in self._grids:
                return change(output)
            to_maps, from_maps = self._grids[path]
            return from_maps(change(to_maps(output)), output)

        with self._lock, self._hooked({path: put}, last=True):
            return cast(Tensor, self._model(images))

    @contextmanager
    def _hooked(self, hooks: dict[str, Callable[[Any], Any]], last: bool = False) -> Iterator[None]:
        seen: Counter[str] = Counter()

        def hook_of(path: str, use: Callable[[Any], Any]) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
                seen[path] += 1
                return use(output) if not last or seen[path] == self._calls[path] else None

            return hook

        handles = [self._model.get_submodule(path).register_forward_hook(hook_of(path, use)) for path, use in hooks.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def cut_by_hooks(model: nn.Module, paths: Sequence[str], example: Tensor, reshape: Reshape = None) -> tuple[Any, dict[str, Suffix]]:
    """Prefix and suffixes of a network that can't be cut; each suffix is the whole network again."""
    hooked = HookedModel(model, paths, example, reshape)

    def forward_prefix(images: Tensor) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        scores, kept = hooked.features(images)
        return scores, [(kept[path], images) for path in hooked.paths]

    return forward_prefix, {path: Suffix(path, _WholeNetwork(hooked, path), (True,), WIDENED * example.numel()) for path in hooked.paths}


class _WholeNetwork(nn.Module):
    """The suffix: a full pass in which a hook puts in the gated features."""

    def __init__(self, hooked: HookedModel, path: str) -> None:
        super().__init__()
        self._hooked, self._path = hooked, path

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        return self._hooked.scores(self._path, images, lambda _output: features.clone())
