"""Draw the paper's figures and tables from your own images, as PNG, PDF, CSV and slides."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from chipcore.analysis.paper_figures import FIGURES, NETWORK
from chipcore.cli.common import add_network_options, load_network_from
from chipcore.cli.console import add_command, print_error
from chipcore.errors import ChipError, DataError
from chipcore.storage import check_writable, write_whole


def register(commands: Any) -> None:
    """Add ``figures`` to the command line."""
    parser = add_command(commands, __name__, __doc__)
    add_network_options(parser)
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="class folders, named by synset, class name or index: Fig. 3 and 8")
    add("--several", type=Path, metavar="DIR", help="class folders of photographs with several objects: Fig. 4 and 9 (default: mosaics)")
    add("--together", type=Path, metavar="IMAGE", help="a photograph that shows both classes of --pair: Fig. 5 (default: two halves)")
    add("--boxes", type=Path, metavar="DIR", help="annotated photographs in ILSVRC's layout: Table II (default: none, no Table II)")
    add(
        "--classes",
        nargs="+",
        default=(),
        metavar="C",
        help="of Fig. 10 and 11 (default: bullfrog, tree frog and zebra, or the first three folders)",
    )
    add("--pair", nargs=2, default=(), metavar="C", help="the two classes of Fig. 5 (default: banana and lemon, or the first two folders)")
    add("--subject", default=None, metavar="C", help="the class of Fig. 9 (default: zebra, or the first folder)")
    add("--layer", metavar="L", help="the deep layer of Fig. 3, 4, 5, 10, 11 and Table II (default: the deepest with W)")
    add(
        "--only",
        nargs="+",
        choices=tuple(FIGURES),
        default=tuple(FIGURES),
        metavar="N",
        help=f"some of {', '.join(FIGURES)} (default: all)",
    )
    add("--lime-samples", type=int, default=0, metavar="N", help="hidden versions of a photograph for LIME (default: its own)")
    add("--importance", type=Path, default=None, metavar="DIR", help="where W is (default: the cache folder, then what is bundled)")
    add("--out", type=Path, required=True, metavar="DIR", help="where the files go: fig_3.png, fig_3.pdf, fig_3.csv, ... and captions.txt")
    add("--json", action="store_true", help="machine-readable result")
    parser.set_defaults(run=run, network=NETWORK)


def run(options: argparse.Namespace) -> None:
    """Draw what was asked for; what cannot be drawn is named, with the reason, and does not stop the rest."""
    from chipcore.figures.paper import PaperFigures  # matplotlib, which no other command needs

    check_writable(options.out)
    paper = PaperFigures(
        load_network_from(options), options.images, options.importance, layer=options.layer, classes=options.classes, pair=options.pair,
        subject=options.subject, several=options.several, together=options.together, boxes=options.boxes, lime_samples=options.lime_samples,
    )  # fmt: skip
    progress = partial(tqdm, desc="boxes", disable=None, leave=False)
    told: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for name in tqdm([one for one in FIGURES if one in options.only], desc="figures", disable=None, leave=False):
        title = f"Table {name}" if name.startswith("I") else f"Fig. {name}"
        try:
            made = paper.make(name, progress)
        except ChipError as error:
            left_out[title] = str(error)
            continue
        told.append({"figure": title, "caption": f"{title}. {made.caption}", "files": made.write(options.out)})
    for title, reason in left_out.items():
        print_error(f"no {title}: {reason}")
    if not told:
        raise DataError(f"none of the figures could be drawn; the first reason: {next(iter(left_out.values()))}")
    text = "\n\n".join(one["caption"] for one in told) + "\n"
    write_whole(options.out / "captions.txt", lambda path: path.write_text(text, encoding="utf-8"))
    if options.json:
        print(json.dumps({"network": paper.network.name, "layer": paper.layer, "figures": told, "left_out": left_out}, indent=2))
        return
    for one in told:
        print(f"{one['files'][0]}: {one['caption']}")
