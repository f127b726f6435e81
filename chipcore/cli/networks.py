"""List the networks and their layers.

Reads the registry, builds only the networks whose weights are bundled, and fetches nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from chipcore.cli.console import add_command
from chipcore.errors import ChipError
from chipcore.importance import load_importance
from chipcore.networks import REGISTRY, Network, load_network
from chipcore.networks.spec import NetworkSpec


def register(commands: Any) -> None:
    """Add ``networks`` to the command line."""
    parser = add_command(commands, __name__, __doc__)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print every network of the registry, with what is fitted of W for those that are bundled."""
    rows = [network_summary(spec) for spec in REGISTRY.values()]
    for row in rows:
        if row["bundled"]:  # its weights are here, so W can be told
            network = load_network(row["name"])
            for layer in row["layers"]:
                layer["fitted"] = _fitted_rows(network, layer["name"])
    print(json.dumps(rows, indent=2) if options.json else "\n".join(line for row in rows for line in format_network(row)))


def _fitted_rows(network: Network, layer: str) -> int:
    try:
        return int((load_importance(network, layer).support > 0).sum())
    except ChipError:
        return 0


def network_summary(spec: NetworkSpec) -> dict[str, Any]:
    """One network of the registry, ready for JSON. Sizes are [height, width] in pixels of the maps."""
    size = spec.geometry.size
    return {
        "name": spec.name, "title": spec.title, "bundled": spec.bundled, "here": spec.here, "input": size, "fit": spec.geometry.fit,
        "classes": len(spec.classes()),
        "layers": [
            {"name": at.name, "path": at.path, "channels": at.channels, "size": [at.side, at.side], "stride": round(size / at.side)}
            for at in spec.depths
        ],
    }  # fmt: skip


def format_network(row: dict[str, Any]) -> Iterator[str]:
    """The same in words."""
    weights = "weights bundled" if row["bundled"] else "weights on this machine" if row["here"] else "weights by --checkpoint or download"
    yield f"{row['name']:<20} {row['title']}, {row['classes']} classes, {row['input']} px ({row['fit']}), {weights}"
    for at in row["layers"]:
        fitted = "" if "fitted" not in at else f"  {at['fitted']} rows of W" if at["fitted"] else "  no W yet"
        yield f"    {at['name']:<11} {at['path']:<26} {at['channels']:>5} channels, {at['size'][0]:>3} x {at['size'][1]:<3}{fitted}"
