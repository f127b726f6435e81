"""Add the moments of shards and solve W."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from chipcore.cli.common import ProgressBars
from chipcore.cli.console import add_command, print_error
from chipcore.cli.fit import layer_row, print_layers
from chipcore.errors import SettingsError
from chipcore.fitting.memory import keep_freed_memory
from chipcore.fitting.pipeline import Progress
from chipcore.fitting.shards import merge, unreadable
from chipcore.importance import Importance
from chipcore.storage import check_writable, locked


def register(commands: Any) -> None:
    """Add ``merge`` to the command line."""
    parser = add_command(commands, __name__, __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="what `fit --shard` was given as --out, one folder or several")
    parser.add_argument("--out", type=Path, required=True, metavar="W", help="where W goes")
    parser.add_argument("--half", action="store_true", help="keep W in half precision")
    parser.add_argument("--json", action="store_true", help="machine-readable result")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Solve layer by layer, and print a line for each."""
    keep_freed_memory()
    check_writable(options.out)
    start, results = time.perf_counter(), []
    with ProgressBars() as bars:

        def report(progress: Progress) -> None:
            bars.report(progress.stage, progress.done, progress.total)

        for layer, importance in merge(options.folders, report):
            with locked(options.out, wait=True):
                results.append(layer_row(layer, importance, _save(importance, options.out, options.half)))
    left_out = unreadable(options.folders)
    for sentence in left_out:
        print_error(f"left out: {sentence}")
    seconds = time.perf_counter() - start
    if options.json:
        print(json.dumps({"seconds": round(seconds, 1), "unreadable": left_out, "layers": results}, indent=2))
        return
    print(f"{importance.metadata['photographs']} photographs, solved in {seconds:.0f} s")
    print_layers(results)


def _save(importance: Importance, out: Path, half: bool) -> Path:
    """Rows that the shards were not asked for must not take the place of what an earlier fit left."""
    file = importance.file_below(out)
    if file.exists() and int((importance.support > 0).sum()) < len(importance.support):
        raise SettingsError(f"{file} is there already, and these shards do not hold every row of it; give another --out.")
    return importance.save(out, half=half)
