"""Measure methods against each other.

The options of every kind of measurement, what runs for them, the JSON file and the table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

from chipcore import __version__
from chipcore.cli.common import ProgressBars, add_network_options, count, load_network_from, write_arrays
from chipcore.cli.console import add_command, print_error
from chipcore.datasets.annotations import Source, open_dataset, open_mask_dataset
from chipcore.datasets.ilsvrc import open_ilsvrc
from chipcore.datasets.sources import open_images
from chipcore.datasets.tar_shards import is_tar
from chipcore.errors import SettingsError
from chipcore.evaluation import faithfulness, grid_game, grid_pointing, localization, pointing, segmentation
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.report import table
from chipcore.methods import METHODS
from chipcore.storage import check_writable, write_whole

_HELP = {
    "localization": "boxes from maps on the ILSVRC layout: the paper's Table II, MaxBoxAcc V1 and V2",
    "segmentation": "maps against the masks of objects (ADE20K scenes, COCO panoptic)",
    "pointing": "pointing game and energy pointing (boxes or masks), grid pointing game (class folders)",
    "faithfulness": "deletion and insertion, closing channels, and randomised weights, on any photographs",
}


def register(commands: Any) -> None:
    """Add ``evaluate`` and its kinds to the command line."""
    parser = add_command(commands, __name__, __doc__)
    kinds = parser.add_subparsers(required=True, dest="kind", metavar="KIND", parser_class=type(parser))
    for kind, sentence in _HELP.items():
        one = kinds.add_parser(kind, help=sentence, description=sentence)
        add_network_options(one)
        _common_options(one, kind)
        one.set_defaults(run=run)


def _common_options(parser: argparse.ArgumentParser, kind: str) -> None:
    add = parser.add_argument
    add("--layer", nargs="+", action="extend", required=True, metavar="L", help="layers, in one run; 'all' for every named one")
    add("--methods", nargs="+", required=True, metavar="M", help=f"of {', '.join(METHODS)}")
    add(
        "--data",
        type=Path,
        required=kind != "pointing",
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
    if kind == "pointing":
        add("--tolerance", type=count, default=pointing.TOLERANCE, metavar="PX", help="of the pointing game (default: %(default)s)")
        add("--grid", type=count, default=0, metavar="n", help="play the grid pointing game on n x n mosaics of class folders")
        add(
            "--mosaic",
            nargs="+",
            type=Path,
            default=(),
            metavar="IMAGE",
            help="play once with these four photographs, in reading order, instead of --data",
        )
        add(
            "--mosaic-classes",
            nargs="+",
            default=(),
            metavar="C",
            help="what each of them plays for (default: what the network takes it for)",
        )
        add("--raw", type=Path, default=None, metavar="NPZ", help="with --mosaic: the mosaic and every map, by name")
        add("--mosaics", type=count, default=500, metavar="N", help="how many (default: %(default)s)")
        add("--confidence", type=float, default=0.99, metavar="P", help="of the photographs in a mosaic (default: %(default)s)")
        add(
            "--mosaic-scale",
            choices=get_args(grid_pointing.Scale),
            default="auto",
            help="n times the input size, or squashed to it (default: %(default)s)",
        )
    if kind == "faithfulness":
        add("--parts", nargs="+", choices=faithfulness.PARTS, default=faithfulness.PARTS, help="default: all three")
        add("--steps", type=count, default=faithfulness.STEPS, metavar="N", help="of deletion and insertion (default: %(default)s)")
        add(
            "--channel-steps",
            type=count,
            default=faithfulness.CHANNEL_STEPS,
            metavar="N",
            help="of closing channels (default: %(default)s)",
        )


def run(options: argparse.Namespace) -> None:
    """Measure, write the JSON file, and print the table."""
    if options.json:
        _check_writable(options.json)
    given = getattr(options, "mosaic", ())
    if options.data is None and not given:
        raise SettingsError("give --data, a folder of photographs, or --mosaic with four of them.")
    if options.data is not None and given:
        raise SettingsError("--data and --mosaic are two games; give one of them.")
    if not given and (getattr(options, "raw", None) or getattr(options, "mosaic_classes", ())):
        raise SettingsError("--raw and --mosaic-classes go with --mosaic; give four photographs.")
    plain = options.kind == "faithfulness" or bool(getattr(options, "grid", 0))  # needs no annotations beside the photographs
    if options.data is not None and not options.data.is_dir() and not (plain and is_tar(options.data)):
        raise SettingsError(f"--data {options.data} is not a folder; give a folder of photographs.")
    network = load_network_from(options)
    layers = [layer.name for layer in network.layers] if options.layer == ["all"] else options.layer
    extra: dict[str, Any] = {"seed": options.seed} | ({"samples": options.lime_samples} if options.lime_samples else {})
    panel = MethodSet.of(network, layers, options.methods, options.importance, options.evidence, extra)
    start = time.perf_counter()
    found, fingerprint = _measure(options, panel)
    result = {
        "protocol": options.kind, "network": network.id, "title": network.title, "source": network.source, "methods": list(panel.methods),
        "baseline": panel.baseline, "data": str(options.data or " ".join(map(str, given))), "fingerprint": fingerprint, "limit": options.limit, "seed": options.seed,
        "evidence": options.evidence, "importance": {name: w.metadata for name, w in panel.importances.items()},
        "command": ["python", "-m", "chipcore", *sys.argv[1:]],
        "chipcore": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": time.perf_counter() - start, **found,
    }  # fmt: skip
    for sentence in found["broken"]:
        print_error(f"left out: {sentence}")
    if options.json:
        text = json.dumps(_plain(result), indent=2, allow_nan=False)
        write_whole(options.json, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    print(table(result))


def _measure(options: argparse.Namespace, panel: MethodSet) -> tuple[dict[str, Any], str]:
    bar = _bar("mosaics" if getattr(options, "grid", 0) else "photographs")
    shared: dict[str, Any] = {"limit": options.limit, "seed": options.seed, "progress": bar}
    if options.kind == "localization":
        boxes = open_ilsvrc(options.data)
        return localization.evaluate(panel, boxes, **shared), boxes.images.fingerprint
    if options.kind == "segmentation":
        masks = open_mask_dataset(options.data, panel.network)
        return segmentation.evaluate(panel, masks, **shared), masks.images.fingerprint
    if options.kind == "faithfulness":
        images = open_images(options.data)
        found = faithfulness.evaluate(
            panel, images, **shared, parts=tuple(options.parts), steps=options.steps, channel_steps=options.channel_steps
        )
        return found, images.fingerprint
    if options.mosaic:
        played, arrays = grid_game.evaluate(panel, options.mosaic, options.mosaic_classes, options.importance, _bar("methods"))
        if options.raw:
            write_arrays(options.raw, arrays)
        return played, hashlib.sha256(b"".join(path.read_bytes() for path in options.mosaic)).hexdigest()
    source: Source | None = None if options.grid else open_dataset(options.data, panel.network)
    if source is not None:
        return pointing.evaluate(panel, source, **shared, tolerance=options.tolerance), source.images.fingerprint
    mosaics = min(options.mosaics, options.limit) if options.limit else options.mosaics
    images = open_images(options.data)
    found = grid_pointing.evaluate(
        panel, images, options.grid or 2, mosaics, options.confidence, options.seed, options.mosaic_scale, _bar("mosaics")
    )
    return found, images.fingerprint


def _bar(unit: str) -> Callable[[Sequence[Any]], Iterable[Any]]:
    """A progress bar on standard error, where that is a terminal."""
    return partial(ProgressBars().iterate, unit)


def _check_writable(path: Path) -> None:
    """Say now, not after hours of measuring, that the result can't be written."""
    if path.is_dir():
        raise SettingsError(f"--json {path} is a folder; give a file.")
    check_writable(path.parent)


def _plain(value: Any) -> Any:
    """JSON has no NaN; six digits are more than any of these figures is worth."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
