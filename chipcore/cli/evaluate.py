"""Measure methods against each other.

The options that every protocol of ``chipcore.evaluation`` has, the JSON file and the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from chipcore import __version__
from chipcore.cli.common import ProgressBars, add_network_options, count, load_network_from, write_arrays
from chipcore.cli.console import add_command, print_error
from chipcore.datasets.tar_shards import is_tar
from chipcore.errors import SettingsError
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.grid_game import MosaicGame
from chipcore.evaluation.protocols import Protocol, protocols
from chipcore.evaluation.report import table
from chipcore.evaluation.results import plain
from chipcore.methods import METHODS
from chipcore.storage import check_writable, write_whole


def register(commands: Any) -> None:
    """Add ``evaluate`` and its protocols to the command line."""
    parser = add_command(commands, __name__, __doc__)
    kinds = parser.add_subparsers(required=True, dest="kind", metavar="KIND", parser_class=type(parser))
    for name, protocol in protocols().items():
        if protocol.command:
            one = kinds.add_parser(name, help=protocol.help, description=protocol.help)
            add_network_options(one)
            _common_options(one, protocol)
            protocol.add_options(one)
            one.set_defaults(run=run)


def _common_options(parser: argparse.ArgumentParser, protocol: Protocol) -> None:
    add = parser.add_argument
    add("--layer", nargs="+", action="extend", required=True, metavar="L", help="layers, in one run; 'all' for every named one")
    add("--methods", nargs="+", required=True, metavar="M", help=f"of {', '.join(METHODS)}")
    add(
        "--data",
        type=Path,
        required=protocol.needs_data,
        metavar="DIR",
        help="the folder of photographs and annotations; where none are needed, also tar files ('shards-{000..127}.tar') and data sets of Hugging Face",
    )
    add("--importance", type=Path, default=None, metavar="DIR", help="where W is (default: the cache folder, then what is bundled)")
    add("--limit", type=count, default=0, metavar="N", help="draw at most N photographs (or mosaics) from the whole set")
    add("--seed", type=count, default=0, help="of every draw (default: %(default)s)")
    add(
        "--evidence", choices=("any", "good"), default="any", help="'good' leaves out classes whose row of W is weak (default: %(default)s)"
    )
    add("--lime-samples", type=count, default=0, metavar="N", help="hidden versions of a photograph for LIME (default: its own)")
    add("--json", type=Path, default=None, metavar="FILE", help="write everything that was measured here")


def run(options: argparse.Namespace) -> None:
    """Measure, write the JSON file, and print the table."""
    if options.json:
        _check_writable(options.json)
    protocol = protocols()[options.kind]
    protocol.check(options)
    archive = options.data is not None and protocol.takes_archives(options) and is_tar(options.data)
    if options.data is not None and not options.data.is_dir() and not archive:
        raise SettingsError(f"--data {options.data} is not a folder; give a folder of photographs.")
    network = load_network_from(options)
    layers = [layer.name for layer in network.layers] if options.layer == ["all"] else options.layer
    extra: dict[str, Any] = {"seed": options.seed} | ({"samples": options.lime_samples} if options.lime_samples else {})
    panel = MethodSet.of(network, layers, options.methods, options.importance, options.evidence, extra)
    start = time.perf_counter()
    found, fingerprint = protocol.run(options, panel, _bar)
    result = {
        "protocol": options.kind, "network": network.id, "title": network.title, "source": network.source, "methods": list(panel.methods),
        "baseline": panel.baseline, "data": str(options.data or " ".join(map(str, options.mosaic))), "fingerprint": fingerprint, "limit": options.limit, "seed": options.seed,
        "evidence": options.evidence, "importance": {name: w.metadata for name, w in panel.importances.items()},
        "command": ["python", "-m", "chipcore", *sys.argv[1:]],
        "chipcore": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": time.perf_counter() - start, **found.to_dict(),
    }  # fmt: skip
    for sentence in found.broken:
        print_error(f"left out: {sentence}")
    if options.json:
        text = json.dumps(plain(result), indent=2, allow_nan=False)
        write_whole(options.json, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    if isinstance(found, MosaicGame) and options.raw:
        write_arrays(options.raw, found.arrays)
    print(table(result))


def _bar(unit: str) -> Callable[[Sequence[Any]], Iterable[Any]]:
    """A progress bar on standard error, where that is a terminal."""
    return partial(ProgressBars().iterate, unit)


def _check_writable(path: Path) -> None:
    """Say now, not after hours of measuring, that the result can't be written."""
    if path.is_dir():
        raise SettingsError(f"--json {path} is a folder; give a file.")
    check_writable(path.parent)
