"""Pointing game (Zhang et al. 2018) and energy pointing game (Wang et al. 2020) on objects with boxes or masks."""

from __future__ import annotations

import argparse
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from chipcore.datasets.annotations import AnnotatedObject, Source
from chipcore.datasets.registry import open_dataset
from chipcore.errors import SettingsError
from chipcore.evaluation import bootstrap, grid_game, grid_pointing
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.images import Progress, energy_inside, no_progress
from chipcore.evaluation.protocols import SECONDS, Column, ProgressOf, Protocol, register, whole_number
from chipcore.evaluation.results import Result
from chipcore.evaluation.runner import ObjectsLayer, run

TOLERANCE = 15  # pixels, of the network's view


def hits(heat: np.ndarray, mask: np.ndarray, tolerance: int = TOLERANCE) -> bool:
    """Whether the map's maximum lies on the mask or within ``tolerance`` pixels of it.

    A map without a positive part points nowhere and misses. Several equal maxima: the first in reading order.

    Args:
        heat: the finished map, shape (h, w).
        mask: bool, shape (h, w), not empty.

    Example:
        >>> heat, mask = np.eye(40)[:1], np.zeros((1, 40), dtype=bool)
        >>> mask[0, 10] = True
        >>> hits(heat, mask), hits(heat, mask, tolerance=5), hits(np.zeros((1, 40)), mask)
        (True, False, False)
    """
    if not heat.max() > 0:
        return False
    y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    rows, columns = np.nonzero(mask)
    distance = ((rows - y) ** 2 + (columns - x) ** 2).min()
    return bool(distance == 0 or distance < tolerance**2)  # TorchRay's disc, too, leaves out what lies at the tolerance itself


@dataclass(frozen=True)
class PointingLayer(ObjectsLayer):
    """A layer of :class:`Pointing`; ``classes`` is how many kinds of object there were."""

    json_order: ClassVar[tuple[str, ...]] = (*ObjectsLayer.json_order, "classes")

    classes: int


@dataclass(frozen=True)
class Pointing(Result):
    """The pointing game's accuracy and the energy inside the object, as shares of 1; ``tolerance`` is in pixels."""

    json_order: ClassVar[tuple[str, ...]] = ("data_set", "tolerance", "images", "broken", "layers")

    data_set: str
    tolerance: int


def evaluate(
    panel: MethodSet, source: Source, limit: int = 0, seed: int = 0, progress: Progress = no_progress, tolerance: int = TOLERANCE
) -> Pointing:
    """Measure every method; accuracy is hits / (hits + misses) for each kind of object, then averaged over kinds.

    Parameters
    ----------
    panel
        Network, layers and methods.
    source
        From :func:`chipcore.datasets.registry.open_dataset`.
    limit, seed
        Draw at most this many images (0: all) from the whole set.
    progress
        Wraps the names of the images.
    tolerance
        Pixels of the network's view by which the maximum may miss the object.

    Raises
    ------
    ChipError
        A method can't explain this network.
    """
    hit: dict[tuple[str, str], list[bool]] = defaultdict(list)
    energy: dict[tuple[str, str], list[float]] = defaultdict(list)

    def measure(layer: str, method: str, heat: np.ndarray, found: AnnotatedObject) -> None:
        assert found.mask is not None
        hit[layer, method].append(hits(heat, found.mask, tolerance))
        energy[layer, method].append(energy_inside(heat, found.mask))

    done = run(panel, source, limit, seed, progress, measure)
    layers = {}
    for layer in panel.layers:
        rows, stats = done.rows[layer.name], done.stats[layer.name]
        count = len(rows.images)
        names: dict[str, int] = {}
        kinds = [names.setdefault(name, len(names)) for name in rows.objects]
        methods: dict[str, dict[str, Any]] = {}
        statistics: dict[str, dict[str, bootstrap.Statistic]] = {}
        for method in panel.methods:
            methods[method] = {"pointing": None, "energy_pointing": None, "hits": 0, "misses": 0, **stats.of(method)}
            if count:
                found = np.array(hit[layer.name, method])
                statistics[method] = {
                    "pointing": bootstrap.class_mean(found, kinds), "energy_pointing": bootstrap.mean(np.array(energy[layer.name, method])),
                }  # fmt: skip
                methods[method] |= {name: bootstrap.whole(one, count) for name, one in statistics[method].items()}
                methods[method] |= {"hits": int(found.sum()), "misses": int((~found).sum())}
        for method, compared in bootstrap.compare(statistics, panel.baseline, rows.images, seed).items():
            methods[method]["difference"] = compared
        layers[layer.name] = PointingLayer.of(rows, stats, methods, classes=len(names))
    return Pointing(data_set=source.layout, tolerance=tolerance, images=done.images, broken=done.broken, layers=layers)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tolerance", type=whole_number, default=TOLERANCE, metavar="PX", help="of the pointing game (default: %(default)s)"
    )
    grid_pointing.add_options(parser)


def _check(options: argparse.Namespace) -> None:
    if options.data is None and not options.mosaic:
        raise SettingsError("give --data, a folder of photographs, or --mosaic with four of them.")
    if options.data is not None and options.mosaic:
        raise SettingsError("--data and --mosaic are two games; give one of them.")
    if not options.mosaic and (options.raw or options.mosaic_classes):
        raise SettingsError("--raw and --mosaic-classes go with --mosaic; give four photographs.")


def _run(options: argparse.Namespace, panel: MethodSet, progress: ProgressOf) -> tuple[Result, str]:
    """The pointing game where the folder has annotations, else the grid pointing game, which needs class folders alone."""
    if options.mosaic:
        played = grid_game.evaluate(panel, options.mosaic, options.mosaic_classes, options.importance, progress("methods"))
        return played, hashlib.sha256(b"".join(path.read_bytes() for path in options.mosaic)).hexdigest()
    source = None if options.grid else open_dataset(options.data, panel.network.classes, panel.network.geometry)
    if source is None:
        return grid_pointing.PROTOCOL.run(options, panel, progress)
    found = evaluate(panel, source, options.limit, options.seed, progress("photographs"), options.tolerance)
    return found, source.images.fingerprint


register(Protocol(
    "pointing", "pointing game and energy pointing (boxes or masks), grid pointing game (class folders)", _run,
    columns=(Column("pointing", "pointing"), Column("energy", "energy_pointing"), SECONDS), main="pointing",
    add_options=_add_options, check=_check, needs_data=False, takes_archives=lambda options: bool(options.grid),
))  # fmt: skip
