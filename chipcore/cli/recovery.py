"""Compare W with weights that are known: those of a network that is linear behind the layer."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from chipcore.analysis.recovery import TOP, recovery_of
from chipcore.cli.common import add_network_options, load_network_from
from chipcore.cli.console import add_command
from chipcore.importance import load_importance
from chipcore.storage import write_whole


def register(commands: Any) -> None:
    """Add ``recovery`` to the command line."""
    parser = add_command(commands, __name__, __doc__)
    add_network_options(parser)
    add = parser.add_argument
    add("--layer", metavar="L", help="layer that only pooling and one linear map follow (default: the deepest)")
    add("--importance", type=Path, default=None, metavar="DIR", help="where W is (default: the cache folder, then what is bundled)")
    add("--json", type=Path, default=None, metavar="FILE", help="machine-readable result")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read W and the known weights, and say how near they are."""
    network = load_network_from(options)
    layer = network.layer(options.layer) if options.layer is not None else network.layers[-1]
    importance = load_importance(network, layer.name, options.importance)
    found = recovery_of(network, layer, importance)
    told = found.summary()
    print(f"W of {network.name} at {layer.name} against the weights that follow it, over {told['rows']} rows:")
    print(f"cosine: median {told['cosine_median']:.4f}, least {told['cosine_least']:.4f}")
    print(f"of the {TOP} largest channels right: median {told['shared_median']:.0f}, mean {told['shared_mean']:.2f}")
    if options.json:
        text = json.dumps({"network": network.name, "layer": layer.name, "W": importance.metadata, **told}, indent=2)
        write_whole(options.json, lambda path: path.write_text(text, encoding="utf-8"))
