"""Show rows of W, their important channels, and what classes share (Fig. 10 and 11)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from chipcore.analysis.channel_overlap import SHARE, TOP, arrays
from chipcore.cli.common import add_network_options, load_network_from, write_arrays
from chipcore.cli.console import add_command
from chipcore.errors import DataError
from chipcore.importance import file_of, forget_rows, load_importance
from chipcore.networks import Layer, Network
from chipcore.storage import BUNDLED_IMPORTANCE, fitted_importance, locked


def register(commands: Any) -> None:
    """Add ``rows`` to the command line."""
    parser = add_command(commands, __name__, __doc__)
    add_network_options(parser)
    add = parser.add_argument
    add("--layer", metavar="L", help="layer name or module path (default: the deepest)")
    add("--classes", nargs="+", default=(), metavar="C", help="index, synset or name, in this order (default: all that have a row)")
    add("--top", type=int, default=TOP, metavar="N", help="the most important channels of a class (Fig. 11, left; default: %(default)s)")
    add(
        "--above", type=float, default=SHARE, metavar="SHARE", help="or those above this share of its largest weight (default: %(default)s)"
    )
    add(
        "--by", choices=("weight", "contribution"), default="weight",
        help="what channels are ranked by: the paper's weight, or the weight times the class's mean activation (default: %(default)s)",
    )  # fmt: skip
    add("--importance", type=Path, default=None, metavar="DIR", help="where W is (default: the cache folder, then what is bundled)")
    add("--out", type=Path, default=None, metavar="NPZ", help="W, the sets of important channels, what is shared, and cosines, by name")
    add(
        "--forget", action="store_true",
        help="take the rows of --classes out of the W that was fitted (all of it without --classes), so that what ships is used again",
    )  # fmt: skip
    add("--json", action="store_true", help="machine-readable result")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read W, write its rows, and say which channels matter."""
    network = load_network_from(options)
    layer = network.layer(options.layer) if options.layer is not None else network.layers[-1]
    if options.forget:
        _forget(options, network, layer)
        return
    importance = load_importance(network, layer.name, options.importance)
    classes = [network.classes.index(one) for one in options.classes] or [int(c) for c in (importance.support > 0).nonzero().flatten()]
    if not classes:
        raise DataError(f"no class has a row of W at {layer.name}; fit W first.")
    found = arrays(importance, classes, options.top, options.above, options.by)
    if options.out:
        write_arrays(options.out, found)
    told: list[dict[str, Any]] = [
        {
            "class": c, "label": network.classes.labels[c], "evidence": importance.evidence(c), "nonzero": int((found["W"][place] != 0).sum()),
            "above": int(found["above"][place].sum()), "top": importance.top_channels(c, options.top, options.by),
        }
        for place, c in enumerate(classes)
    ]  # fmt: skip
    if options.json:
        print(json.dumps({
            "network": network.name, "layer": layer.name, "by": options.by, "W": importance.metadata, "rows": told, "file": str(options.out) if options.out else None,
        }, indent=2))  # fmt: skip
        return
    print(f"W of {network.name} at {layer.name}: {len(classes)} rows of {layer.channels} channels, {np.mean(found['W'] == 0):.0%} zero")
    for one in told:
        print(f"{one['label'][:27]:<28}{one['evidence']:<6} {', '.join(map(str, one['top'])) or 'no row'}")


def _forget(options: argparse.Namespace, network: Network, layer: Layer) -> None:
    folder = options.importance or fitted_importance()
    if folder.resolve() == BUNDLED_IMPORTANCE.resolve():
        raise DataError("what ships is not forgotten; name the folder of a fit with --importance, or leave it out.")
    with locked(folder, wait=True):  # a fit may add its rows meanwhile
        rows = forget_rows(network, layer.name, folder, [network.classes.index(one) for one in options.classes])
    if options.json:
        print(
            json.dumps(
                {"network": network.name, "layer": layer.name, "forgotten": rows, "file": str(file_of(network, layer, folder))}, indent=2
            )
        )
        return
    print(f"forgot {rows} row{'s' if rows != 1 else ''} of {network.name} at {layer.name} in {folder}")
