"""Beginning from the convolutions of a network that is trained already."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from chipcore.errors import SettingsError
from chipcore.networks import load_network
from chipcore.networks.architectures.vgg_slim import VGG, VGGSlim

LENGTH = 2**0.5  # of a filter as it is drawn at random, between layers of equal width


@torch.no_grad()
def start_from(name: str, network: nn.Module, inputs: Tensor) -> None:
    """Give ``network`` the convolutions of the network called ``name``, without batch norm, and keep what they compute.

    ``inputs`` (B, 3, S, S) are normalised views. Their statistics become those of every batch norm, and its scale and shift
    undo them, so that convolution and norm together give what the folded convolution gave. Every filter is brought to one
    length first, which the norm undoes too: a step of the same size turns a short filter further, and folding shortens.
    Where both networks flatten and read inputs of one size, fc6, fc7 and (with as many classes) fc8 follow.

    Raises ``SettingsError`` where the two networks' convolutions are not alike.
    """
    source = load_network(name).model
    if not isinstance(source, (VGGSlim, VGG)):
        raise SettingsError(f"{name} is no VGG of ours to start from; give vgg16_slim.")
    features = cast(nn.Sequential, network.features)
    x = inputs
    for key, part in features.named_children():
        if not key.startswith("conv"):
            x = part(x)
            continue
        theirs = cast(nn.Conv2d, source.features.get_submodule(f"{key}.conv"))
        if theirs.weight.shape != cast(nn.Conv2d, part.conv).weight.shape or theirs.bias is None:
            raise SettingsError(f"{name} has other widths than the network to train; give its width.")
        x = _take(part.get_submodule("conv"), part.get_submodule("norm"), theirs, x)
    if not isinstance(source, VGG) or not isinstance(network, VGG):
        return
    theirs_6, ours_6 = cast(nn.Linear, source.fc6.linear), cast(nn.Linear, network.fc6.linear)
    if theirs_6.weight.shape != ours_6.weight.shape:
        return
    x = network.flatten(x)
    if x.shape[1] != ours_6.in_features:
        raise SettingsError(f"{name} reads larger inputs than the images given; give its size.")
    for ours, other in ((network.fc6, source.fc6), (network.fc7, source.fc7)):
        x = _take(ours.get_submodule("linear"), ours.get_submodule("norm"), cast(nn.Linear, other.linear), x)
    if network.fc8.weight.shape == source.fc8.weight.shape:
        network.fc8.load_state_dict(source.fc8.state_dict())


def _take(linear: nn.Module, norm: nn.Module, source: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """Give ``linear`` the source's filters, and ``norm`` what makes both together compute what the source does; what they give for ``x``."""
    ours, scale = cast(nn.Linear, linear), cast(nn.BatchNorm1d, norm)
    bias = cast(Tensor, source.bias)
    lengths = source.weight.flatten(1).norm(dim=1).clamp(min=1e-6) / LENGTH
    ours.weight.copy_(source.weight / lengths.view(-1, *[1] * (source.weight.ndim - 1)))
    before = ours(x)
    var, mean = torch.var_mean(before, (0, 2, 3) if before.ndim == 4 else 0, correction=0)
    cast(Tensor, scale.running_mean).copy_(mean)
    cast(Tensor, scale.running_var).copy_(var)
    scale.weight.copy_((var + scale.eps).sqrt() * lengths)
    scale.bias.copy_(mean * lengths + bias)
    shape = (-1, *[1] * (before.ndim - 2))
    return torch.relu(before * lengths.view(shape) + bias.view(shape))
