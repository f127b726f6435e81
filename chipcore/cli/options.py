"""The flags of the command line that say which network is meant, for every command that takes one."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from chipcore.networks.network import Network
from chipcore.networks.registry import load_network


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """``--network``, ``--checkpoint``, ``--labels`` and the input's geometry."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--network",
        metavar="N",
        help="a name from `networks`, another torchvision classifier, timm:NAME, or module:factory, "
        "a function of yours that returns the network (its module is imported, which runs its code)",
    )
    group.add_argument(
        "--checkpoint",
        type=Path,
        default=None,
        metavar="F",
        help="a state_dict (.pth, .pt, .safetensors) instead of the published weights; F.toml beside it may hold what follows",
    )
    group.add_argument("--labels", type=Path, default=None, metavar="F", help="class names: text (one a line), JSON or CSV")
    group.add_argument("--size", type=int, default=None, metavar="PX", help="side of the network's input")
    group.add_argument(
        "--mean", type=float, nargs="+", default=None, metavar="X", help="of the normalisation, one value or three (RGB, 0 to 1)"
    )
    group.add_argument("--std", type=float, nargs="+", default=None, metavar="X", help="of the normalisation, one value or three")
    group.add_argument("--fit", choices=("squash", "crop"), default=None, help="how a photograph is made square")


def load_from_options(options: argparse.Namespace, device: str | torch.device) -> Network:
    """The network that the flags of ``add_network_options`` name; raises as :func:`load_network` does."""
    return load_network(
        options.network, checkpoint=options.checkpoint, labels=options.labels, size=options.size, mean=options.mean, std=options.std,
        fit=options.fit, device=device,
    )  # fmt: skip
