"""Tell how far the shards and interrupted fits in a folder are."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chipcore.cli.console import add_command
from chipcore.errors import DataError
from chipcore.fitting.status import RunStatus, statuses


def register(commands: Any) -> None:
    """Add ``status`` to the command line."""
    parser = add_command(commands, __name__, __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="the --out of a fit")
    parser.add_argument("--json", action="store_true", help="machine-readable result")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print a line for each shard and each fit under way."""
    found, missing = statuses(options.folders)
    if not found:
        raise DataError(f"{', '.join(map(str, options.folders))} holds neither shards nor checkpoints; give the --out of a fit.")
    if options.json:
        print(json.dumps({"runs": [{**asdict(one), "share": round(one.share, 4)} for one in found], "missing": missing}, indent=2))
        return
    print(f"{'run':<24}{'state':<12}{'done':>6}  {'images':>14}  {'pass':>6}  folder")
    for one in found:
        print(
            f"{_name(one):<24}{one.state:<12}{one.share:>6.0%}  {f'{one.images_done}/{one.images}':>14}  {f'{one.number}/{one.passes}':>6}  {one.folder}"
        )
    if missing:
        print(f"missing: shard {', '.join(missing)}")


def _name(one: RunStatus) -> str:
    return f"{one.network} {one.shard}".strip()
