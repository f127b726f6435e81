"""From a user's module to a network: what is not said is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from chipcore.datasets.class_names import Classes, numbered
from chipcore.errors import ChipError, SettingsError
from chipcore.gating.split import CutOptions
from chipcore.gating.token_grid import Reshape
from chipcore.images import Fit, InputGeometry
from chipcore.networks.adopted import adopt, check_answers, unwrapped
from chipcore.networks.inputs import find_input, one_channel
from chipcore.networks.layer_discovery import discover
from chipcore.networks.network import Network
from chipcore.networks.outputs import Outputs, bare_scores, only_scores
from chipcore.networks.preprocessing import geometry_of_callable

LayerNames = Mapping[str, str | nn.Module] | Sequence[str | nn.Module] | None


@dataclass(frozen=True)
class Classifier:
    """Our own copy of a module, which gives scores (B, C), with what was found out about it."""

    model: nn.Module
    geometry: InputGeometry
    outputs: Outputs
    count: int
    notes: tuple[str, ...]
    steady: bool = True  # whether it gives the same answer twice


def examine(model: nn.Module, geometry: InputGeometry, name: str, outputs: str = "auto") -> Classifier:
    """Copy a module, see what it takes and gives, and bring it into the form that CHIP works on.

    Raises ``ChipError`` with the reason for a module that can't be explained.
    """
    own, notes = adopt(model, name)
    geometry, more = find_input(own, geometry, name)
    example = torch.zeros(1, geometry.channels, *geometry.shape)
    own, taken = only_scores(own, example, name)
    answers = check_answers(own, example, name)
    own, kind, said = bare_scores(own, outputs, example, name)
    with torch.inference_mode():
        count = int(own(example).shape[1])
    return Classifier(own, geometry, kind, count, (*notes, *more, *taken, *answers, *said), not answers)


def wrap(
    model: nn.Module, *, labels: Sequence[str] | Classes | None = None, size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | float | None = None, std: Sequence[float] | float | None = None, fit: Fit | None = None,
    preprocess: Callable[[Image.Image], Tensor] | None = None, channels: int | None = None, layers: LayerNames = None,
    outputs: str = "auto", reshape: Reshape = None, name: str | None = None, device: str | torch.device | None = None,
) -> Network:  # fmt: skip
    """A network of any ``nn.Module`` that gives class scores.

    The module is copied; its weights, flags and hooks stay as they are. What was found out is in ``notes`` of the result.

    Args:
        model: a classifier. ``DataParallel`` and ``torch.compile`` are taken off, half precision becomes float32.
        labels: class names in the order of the outputs; numbers by default.
        size: side of the input in pixels, or (height, width); 224 by default.
        mean, std: of the normalization, of values from 0 to 1; one value or one a channel. ImageNet's by default, for one channel 0
            and 1.
        fit: ``squash`` keeps the whole image, ``crop`` its middle; ``squash`` by default.
        preprocess: in place of size, mean, std and fit: a function from an RGB ``PIL.Image`` to the input (channels, h, w), such as
            torchvision's ``weights.transforms()``. It must normalize linearly, so that its view can be shown.
        channels: 3 or 1; found where it is not given.
        layers: module paths or modules, or a mapping from names of yours to these; by default the last feature map at every stride.
        outputs: ``logits``, ``probabilities``, ``multilabel``, ``binary`` or ``auto``, see :mod:`chipcore.networks.outputs`.
        reshape: for layers that give tokens: ``"tokens"`` reads the patches' tokens as a map whose channels are the token's dimensions,
            a function turns a layer's output (B, ...) to maps (B, K, u, v). Layers with their channels last (Swin) need none.
        name: what to call the network; its class by default.
        device: where it runs; by default where the module is.

    Raises:
        ChipError: a module that can't be explained, with the reason. SettingsError: an argument.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> network = wrap(model, labels=["cat", "dog"], size=32)
        >>> [(layer.name, layer.path, layer.channels, layer.height) for layer in network.layers]
        [('stride2', '1', 8, 15)]
    """
    if not isinstance(model, nn.Module):
        raise ChipError(f"this is a {type(model).__name__}, not a torch.nn.Module; give the network itself.")
    called = name or type(unwrapped(model)).__name__
    if preprocess is not None:
        if any(value is not None for value in (size, mean, std, fit, channels)):
            raise SettingsError("preprocess says size, mean, std, fit and channels; give it alone, or these alone.")
        geometry = geometry_of_callable(preprocess)
    else:
        geometry = _geometry(size, mean, std, fit, channels)
    device = device if device is not None else next((one.device for one in model.parameters()), torch.device("cpu"))
    found = examine(_on_cpu(model), geometry, called, outputs)
    classes = labels if isinstance(labels, Classes) else Classes(tuple(labels)) if labels is not None else numbered(found.count)
    places = _places(unwrapped(model), layers) or discover(found.model, found.geometry, called, reshape)
    network = Network.of_own(
        found.model, name=called, layers=places, geometry=found.geometry, classes=classes, source="a module", given=None,
        outputs=found.outputs, notes=found.notes, cutting=CutOptions(reshape=reshape, check=found.steady),
    )  # fmt: skip
    return network.to(device)


def _on_cpu(model: nn.Module) -> nn.Module:
    """A copy on the CPU where the module is elsewhere; everything is found out there."""
    if all(one.device.type == "cpu" for one in (*model.parameters(), *model.buffers())):
        return model
    return adopt(model, type(unwrapped(model)).__name__)[0].to("cpu")


def _geometry(
    size: int | tuple[int, int] | None, mean: Sequence[float] | float | None, std: Sequence[float] | float | None, fit: Fit | None,
    channels: int | None,
) -> InputGeometry:  # fmt: skip
    height, width = sides(size if size is not None else 224)
    base = InputGeometry(size=height, width=width, resize=height, fit=fit or "squash")
    if fit == "crop":
        base = replace(base, resize=max(height, round(height * 256 / 224)))
    if channels not in (None, 1, 3):
        raise SettingsError(f"channels is {channels}; give 1 or 3.")
    if channels == 1:
        base = one_channel(base)
    changes: dict[str, Any] = {}
    for key, given in (("mean", mean), ("std", std)):
        if given is not None:
            values = (float(given),) if isinstance(given, int | float) else tuple(float(one) for one in given)
            if len(values) not in (1, base.channels):
                raise SettingsError(f"{key} has {len(values)} values; give one, or one for each of {base.channels} channels.")
            changes[key] = values if len(values) == base.channels else values * base.channels
    return replace(base, **changes)


def sides(size: object) -> tuple[int, int]:
    """Height and width from one number or two; ``SettingsError`` for anything else."""
    values = [size] if isinstance(size, int) else list(size) if isinstance(size, Sequence) and not isinstance(size, str) else []
    if len(values) not in (1, 2) or not all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in values):
        raise SettingsError(f"size is {size!r}; give the side of the input in pixels, above 0, or its height and width.")
    return values[0], values[-1]


def _places(model: nn.Module, layers: LayerNames) -> tuple[tuple[str, str], ...]:
    """``(name, module path)`` of the layers that were given; modules are looked up in the model."""
    if layers is None:
        return ()
    if isinstance(layers, str | nn.Module):
        layers = [layers]
    paths = {id(module): path for path, module in model.named_modules()}
    pairs = layers.items() if isinstance(layers, Mapping) else [("", one) for one in layers]
    found = []
    for called, place in pairs:
        if isinstance(place, nn.Module) and id(place) not in paths:
            raise ChipError(f"a layer of type {type(place).__name__} is no part of the model; give one of its modules, or a module path.")
        path = paths[id(place)] if isinstance(place, nn.Module) else place
        found.append((called or path, path))
    return tuple(found)
