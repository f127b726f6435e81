"""Close channels of a layer and see what the network then says of a image (Eq. 1-3, 8)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chipcore.analysis.channel_ablation import ablated_scores, gates_for, random_channels
from chipcore.cli.common import add_network_options, load_network_from, refuse_overwriting, write_arrays
from chipcore.cli.console import add_command
from chipcore.errors import SettingsError
from chipcore.gating.gates import proximity
from chipcore.images import open_image
from chipcore.networks import Layer, Network

SHOWN = 5  # classes that are printed
MOST_DRAWS = 1000


def register(commands: Any) -> None:
    """Add ``gate`` to the command line."""
    parser = add_command(commands, __name__, __doc__)
    parser.add_argument("image", type=Path, metavar="IMAGE")
    add_network_options(parser)
    add = parser.add_argument
    add("--layer", metavar="L", help="layer name or module path (default: the deepest)")
    add("--close", nargs="+", type=int, default=[], metavar="K", help="channels that are closed (default: none)")
    add("--random", type=int, default=0, metavar="N", help="also close as many random channels, N times")
    add("--seed", type=int, default=0, help="of the random channels (default: %(default)s)")
    add("--sigma2", type=float, default=None, metavar="X", help="sigma^2 of the proximity, Eq. 8 (default: number of channels)")
    add("--features", nargs="*", type=int, default=None, metavar="K", help="channels whose feature maps are written (default: all)")
    add("--out", type=Path, default=None, metavar="NPZ", help="gates, pooled features, scores, probabilities and feature maps, by name")
    add("--json", action="store_true", help="machine-readable result")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Close, ask, write, and say what has changed."""
    refuse_overwriting(options.image, {"--out": options.out})
    network = load_network_from(options)
    layer = network.layer(options.layer) if options.layer is not None else network.layers[-1]
    found = measure(network, layer, options)
    if options.out:
        write_arrays(options.out, found)
    before, after = found["probabilities_all_open"], found["probabilities"]
    order = list(dict.fromkeys(int(c) for one in (before, after[0]) for c in np.argsort(-one, kind="stable")[:SHOWN]))
    told: list[dict[str, Any]] = [
        {
            "class": c, "label": network.classes.labels[c], "all_open": float(before[c]), "closed": float(after[0, c]),
            "random_closed": float(after[1:, c].mean()) if len(after) > 1 else None,
        }
        for c in order
    ]  # fmt: skip
    if options.json:
        print(json.dumps({
            "network": network.name, "layer": layer.name, "closed": options.close, "proximity": float(found["proximity"][0]), "classes": told,
            "file": str(options.out) if options.out else None,
        }, indent=2))  # fmt: skip
        return
    print(
        f"{len(options.close)} of {layer.channels} channels of {layer.name} closed; weight of this gate (Eq. 8): {found['proximity'][0]:.3g}"
    )
    print(f"{'class':<28}{'all open':>10}{'closed':>10}" + (f"{'random':>10}" if options.random else ""))
    for one in told:
        blind = f"{one['random_closed']:>10.3f}" if one["random_closed"] is not None else ""
        print(f"{one['label'][:27]:<28}{one['all_open']:>10.3f}{one['closed']:>10.3f}{blind}")


def measure(network: Network, layer: Layer, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Everything by name; G gates, the first as asked, the others random.

    Returns:
        ``gates`` (G, K) bool; ``z`` (G, K), the pooled gated features of Eq. 2; ``proximity`` (G,), Eq. 8;
        ``scores_all_open`` and ``probabilities_all_open`` (C,), f of Eq. 4; ``ablated_scores`` and ``probabilities`` (G, C), g of Eq. 3;
        ``channels`` (n,) and their feature maps ``features`` (n, u, v).
    """
    K = layer.channels
    for flag, some in (("--close", options.close), ("--features", options.features or [])):
        if any(not 0 <= k < K for k in some):
            raise SettingsError(f"{flag} names a channel that {layer.name} does not have; give numbers from 0 to {K - 1}.")
    if not 0 <= options.random <= MOST_DRAWS:
        raise SettingsError(f"--random is {options.random}; give 0 to {MOST_DRAWS}.")
    sigma2 = K if options.sigma2 is None else options.sigma2
    if not 0 < sigma2 < float("inf"):
        raise SettingsError(f"--sigma2 is {options.sigma2}; give a number above 0.")
    closed = sorted(set(options.close))
    gates = gates_for([closed, *random_channels(K, len(closed), options.random, options.seed)], K)
    with torch.inference_mode():
        activations = network.forward_prefix(network.input(open_image(options.image)).to(network.device), (layer,))
    features = activations.features[layer.path][0].cpu()
    whole, gated = activations.scores[0].cpu(), ablated_scores(network, layer, activations, gates, (layer,))
    written = list(range(K)) if options.features is None else options.features
    return {
        "gates": gates.numpy(), "z": (gates * features.mean((1, 2))).numpy(), "proximity": proximity(gates.double(), sigma2).numpy(),
        "scores_all_open": whole.numpy(), "probabilities_all_open": network.class_probabilities(whole).numpy(), "scores": gated.numpy(),
        "probabilities": network.class_probabilities(gated).numpy(), "channels": np.array(written, dtype=np.int64), "features": features[written].numpy(),
    }  # fmt: skip
