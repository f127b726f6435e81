"""Draw a map on a image; on request a box from it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from chipcore.cli.common import ProgressBars, add_network_options, load_network_from, refuse_overwriting, write_array
from chipcore.cli.console import add_command
from chipcore.errors import SettingsError
from chipcore.images import open_image
from chipcore.importance import Importance, load_importance
from chipcore.methods import METHODS, MethodInputs, explain_view
from chipcore.methods.local_chip import local_row
from chipcore.networks import Layer, Network
from chipcore.storage import write_whole
from chipcore.visualization import COLORMAPS, overlay


def register(commands: Any) -> None:
    """Add ``explain`` to the command line."""
    parser = add_command(commands, __name__, __doc__)
    parser.add_argument("image", type=Path, metavar="IMAGE")
    add_network_options(parser)
    add = parser.add_argument
    add("--layer", metavar="L", help="layer name or module path (default: the deepest)")
    add("--class", dest="target", required=True, metavar="C", help="index, synset or name")
    add("--method", choices=tuple(METHODS), default="chip", metavar="M", help=f"{', '.join(METHODS)} (default: %(default)s)")
    add(
        "--option", dest="options", action="append", type=_option, default=[], metavar="NAME=NUMBER",
        help="a method's own setting, as in samples=200; may be repeated: "
        + "; ".join(f"{name} has {', '.join(f'{key}={value}' for key, value in method.options.items())}" for name, method in METHODS.items() if method.options),
    )  # fmt: skip
    add("--channels", nargs="+", type=int, default=None, metavar="K", help="add up these channels only (CHIP and what is made from it)")
    add(
        "--local", nargs="+", default=(), metavar="L",
        help="layers whose row is learned from this photograph alone, as local_chip does, in place of W",
    )  # fmt: skip
    add("--versus", default=None, metavar="C", help="another class: the map of what speaks for --class rather than for this one (CHIP)")
    add("--importance", type=Path, default=None, metavar="DIR", help="where W is (default: the cache folder, then what is bundled)")
    add("--out", type=Path, required=True, metavar="PNG", help="the map over the photograph, or the image itself where a method draws one")
    add("--raw", type=Path, default=None, metavar="NPY", help="the raw, signed map")
    add("--colormap", "--colour-map", choices=COLORMAPS, default=COLORMAPS[0], help="default: %(default)s")
    add("--opacity", type=float, default=0.6, metavar="0..1", help="default: %(default)s")
    add(
        "--threshold",
        type=float,
        default=None,
        metavar="0..1",
        help="tell the box around the largest piece above this share of the maximum",
    )
    add(
        "--true-box", nargs=4, type=int, default=None, metavar="PX",
        help="left, top, right and bottom on the network's view, both ends inside: tell the IoU at --threshold, and at 0.00 to 0.99",
    )  # fmt: skip
    add("--mask", type=Path, default=None, metavar="NPY", help="what is above --threshold, true or false for every pixel of the view")
    add("--json", action="store_true", help="machine-readable result")
    parser.set_defaults(run=run)


def _option(text: str) -> tuple[str, int | float]:
    name, _, number = text.partition("=")
    try:
        return name, int(number) if number.lstrip("-").isdigit() else float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=NUMBER") from None


def run(options: argparse.Namespace) -> None:
    """Make the map, write it, and say what it is."""
    _check(options)
    network = load_network_from(options)
    at = network.layer(options.layer) if options.layer is not None else network.layers[-1]
    method = METHODS[options.method]
    if options.local and not method.needs_importance:
        raise SettingsError(f"{method.title} reads no row of W, so none can be local; leave --local out.")
    if options.true_box is not None:
        (left, top, right, bottom), (height, width) = options.true_box, network.geometry.shape
        if not (0 <= left <= right < width and 0 <= top <= bottom < height):
            raise SettingsError(
                f"--true-box is {options.true_box}; give left, top, right and bottom within the view of {width} x {height} pixels."
            )
    view = network.geometry.view(open_image(options.image))
    target = network.classes.index(options.target)
    with ProgressBars(leave=False) as bars:

        def report(done: int, total: int) -> None:
            bars.report(method.title, done, total)

        rows = _local_rows(network, view, target, options.local, report)
        shallow = network.layers[0]
        wanted, below = method.needs_importance and at.path not in rows, method.needs_shallow and shallow.path not in rows
        importance = load_importance(network, at.name, options.importance) if wanted else None
        saliency = explain_view(
            network, view, target, options.method, at.name, importance,
            shallow_importance=load_importance(network, shallow.name, options.importance) if below else None,
            options=dict(options.options), progress=report, rows=rows, channels=options.channels, versus=options.versus,
        )  # fmt: skip
    if method.is_image and saliency.image is not None:
        drawn = Image.fromarray((saliency.image.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8))
    else:
        drawn = overlay(saliency.view, saliency.picture, colormap=options.colormap, opacity=options.opacity)
    write_whole(options.out, lambda path: drawn.save(path, format="PNG"))
    if options.raw:
        write_array(options.raw, saliency.raw.numpy())
    result: dict[str, Any] = {
        "method": saliency.method, "network": saliency.network, "layer": saliency.layer, "class": saliency.target, "label": saliency.label,
        "probability": round(saliency.probability, 6), "map": list(saliency.raw.shape), "minimum": float(saliency.raw.min()), "maximum": float(saliency.raw.max()),
        "state": saliency.state, "evidence": importance.evidence(saliency.target) if importance else None,
        "seconds": round(saliency.seconds, 4), "passes": saliency.passes, "file": str(options.out),
    }  # fmt: skip
    if options.versus is not None and importance is not None:
        result |= _versus(network, at, view, importance, target, network.classes.index(options.versus), dict(options.options))
    if options.channels is not None:
        result["channels"] = options.channels
    if rows:
        result["local"] = list(options.local)
    if options.threshold is not None:
        result |= _box(options, saliency.raw, network.geometry.shape)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"{options.out}: {saliency.method} of {saliency.label} (p = {saliency.probability:.3f}) at {saliency.layer} of {saliency.network}, {saliency.seconds:.2f} s"
    )
    if "versus" in result:
        told = ", ".join(f"{one['channel']} ({one['adds']:.3g})" for one in result["apart"])
        print(f"rather than {result['versus_label']}: channels {told}")
    if options.threshold is not None:
        box = result["box"]
        fits = f", IoU {result['iou']:.3f}" if "iou" in result else ""
        print(f"above {options.threshold:g} of its maximum: {'no box' if box is None else f'box {box}'}{fits}")
    if result["evidence"] == "weak":
        print("note: this row of W was learned from few photographs; take the map with care.")
    if result["evidence"] == "pooled":
        print("note: this row of W was learned from photographs of all classes, as few are of this one.")
    if saliency.state != "ok":
        print(f"note: the map has nothing to show ({saliency.state}).")


def _versus(
    network: Network, layer: Layer, view: Image.Image, importance: Importance, target: int, other: int, options: dict[str, Any], most: int = 10
) -> dict[str, Any]:  # fmt: skip
    """The channels that tell two classes apart in an image: those whose mean activation times (w_c - w_d) is largest."""
    inputs = network.geometry.normalize(torch.from_numpy(np.array(view)))[None].to(network.device)
    with torch.no_grad():
        pooled = network.forward_prefix(inputs, (layer,)).features[layer.path][0].mean((1, 2)).cpu()
    contrast = float(options.get("contrast", 1.0))
    adds = (importance.row(target, contrast) - importance.row(other, contrast)) * pooled
    first = adds.argsort(descending=True, stable=True)[:most]
    return {
        "versus": other, "versus_label": network.classes.labels[other],
        "apart": [{"channel": int(k), "adds": float(adds[k])} for k in first if adds[k] > 0],
    }  # fmt: skip


def _check(options: argparse.Namespace) -> None:
    if not 0 <= options.opacity <= 1:
        raise SettingsError(f"opacity is {options.opacity}; give a number from 0 to 1.")
    if options.out.suffix.lower() != ".png":
        raise SettingsError(f"--out is {options.out}; give a file that ends in .png.")
    if options.threshold is None and (options.true_box is not None or options.mask is not None):
        raise SettingsError("a box and a mask take a threshold; give --threshold, 0.15 say.")
    if options.threshold is not None and not 0 <= options.threshold < 1:
        raise SettingsError(f"--threshold is {options.threshold}; give a share of the maximum, 0 or more and below 1.")
    refuse_overwriting(options.image, {"--out": options.out, "--raw": options.raw, "--mask": options.mask})


def _local_rows(
    network: Network, view: Image.Image, target: int, layers: tuple[str, ...], report: Callable[[int, int], None]
) -> dict[str, Tensor]:
    """w_c by layer path, each learned from this image alone."""
    inputs = network.geometry.normalize(torch.from_numpy(np.array(view)))[None].to(network.device)
    found = {}
    with torch.no_grad():
        for layer in map(network.layer, layers):
            found[layer.path] = local_row(
                MethodInputs(network, inputs, target, layer, options=METHODS["local_chip"].options, progress=report)
            )
    return found


def _box(options: argparse.Namespace, raw: Tensor, size: tuple[int, int]) -> dict[str, Any]:
    from chipcore.evaluation.boxes import overlap_curves  # with pandas and scipy, which a map alone does not need
    from chipcore.evaluation.cutting import relative, threshold_map

    shares = relative(raw, size)
    found = threshold_map(shares, options.threshold)
    if options.mask:
        write_array(options.mask, found.mask)
    told: dict[str, Any] = {"threshold": options.threshold, "box": None if found.box is None else list(found.box)}
    if options.true_box is None:
        return told
    true = np.array([options.true_box])
    told["iou"] = float(overlap_curves(shares, true, np.array([options.threshold]))[0][0])
    told["iou_at_every_hundredth"] = [round(float(one), 6) for one in overlap_curves(shares, true)[0]]
    return told
