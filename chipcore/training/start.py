"""Beginning from the convolutions of a network that is trained already."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from chipcore.errors import SettingsError
from chipcore.networks import load_network
from chipcore.networks.architectures.vgg_slim import VGGSlim

LENGTH = 2**0.5  # of a filter as it is drawn at random, between layers of equal width


@torch.no_grad()
def start_from(name: str, network: nn.Module, inputs: Tensor) -> None:
    """Give ``network`` the convolutions of the network called ``name``, without batch norm, and keep what they compute.

    ``inputs`` (B, 3, S, S) are normalised views. Their statistics become those of every batch norm, and its scale and shift
    undo them, so that convolution and norm together give what the folded convolution gave. Every filter is brought to one
    length first, which the norm undoes too: a step of the same size turns a short filter further, and folding shortens.

    Raises ``SettingsError`` where the two networks' convolutions are not alike.
    """
    source = load_network(name).model
    if not isinstance(source, VGGSlim):
        raise SettingsError(f"{name} is no VGG of ours to start from; give vgg16_slim.")
    features = cast(nn.Sequential, network.features)
    x = inputs
    for key, part in features.named_children():
        if not key.startswith("conv"):
            x = part(x)
            continue
        theirs = cast(nn.Conv2d, source.features.get_submodule(f"{key}.conv"))
        conv, norm = cast(nn.Conv2d, part.conv), cast(nn.BatchNorm2d, part.norm)
        if theirs.weight.shape != conv.weight.shape or theirs.bias is None:
            raise SettingsError(f"{name} has other widths than the network to train; give its width.")
        lengths = theirs.weight.flatten(1).norm(dim=1).clamp(min=1e-6) / LENGTH
        conv.weight.copy_(theirs.weight / lengths[:, None, None, None])
        before = conv(x)
        var, mean = torch.var_mean(before, (0, 2, 3), correction=0)
        cast(Tensor, norm.running_mean).copy_(mean)
        cast(Tensor, norm.running_var).copy_(var)
        norm.weight.copy_((var + norm.eps).sqrt() * lengths)
        norm.bias.copy_(mean * lengths + theirs.bias)
        x = torch.relu(before * lengths[:, None, None] + theirs.bias[:, None, None])
