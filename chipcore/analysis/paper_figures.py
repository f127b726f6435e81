"""The numbers behind the paper's figures and tables, from one's own images; ``chipcore.figures`` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chipcore import maps
from chipcore.analysis.channel_overlap import SHARE, TOP, above_sets, top_sets
from chipcore.datasets.image_set import batches
from chipcore.datasets.mosaics import ClassFolders, open_class_folders
from chipcore.datasets.sources import Images
from chipcore.errors import ChipError, DataError
from chipcore.importance import Importance, load_importance
from chipcore.methods import METHODS, Saliency, explain_view
from chipcore.networks import Network

#: Every figure and table by the paper's number, and what it shows.
FIGURES = {
    "3": "Methods on simple one-object images",
    "4": "Methods on images with several objects of a class",
    "5": "Two classes in one image",
    "8": "CHIP in different layers, simple images",
    "9": "Grad-CAM and CHIP in different layers, complex images",
    "10": "Importance of channels for different classes",
    "11": "Important channels that classes share",
    "I": "Properties of the methods",
    "II": "Localization errors",
}
NETWORK = "vgg16_mini"  # the nearest to the paper's that is bundled, with its classes
SIMPLE = ("lime", "gradcam", "chip", "refined_chip")  # the columns of Fig. 3 and 4
PAIR = ("gradcam", "chip", "guided_backprop", "guided_gradcam", "guided_chip", "refined_chip")  # of Fig. 5
PAPER_CLASSES = ("n01641577", "n01644373", "n02391049")  # of Fig. 10 and 11: bullfrog, tree frog, zebra
# Zebra, airliner, dalmatian, cat, lemon, tree frog: what the paper shows, of the classes that NETWORK knows well.
SUBJECTS = ("n02391049", "n02690373", "n02110341", "n02121808", "n07749582", "n01644373")
LOOKED_AT = 40  # images of a class folder among which the one to show is chosen
TABLE_1 = (
    "Deconvolution", "Guided Backpropagation", "CAM", "Grad-CAM", "Guided Grad-CAM", "LIME", "DeepDraw", "Guided CHIP", "CHIP & Refined CHIP",
)  # fmt: skip
PROPERTIES = (
    ("instance interpretation, perturbation-based", lambda one: "perturbation" in one.instance),
    ("instance interpretation, gradient-based", lambda one: "gradient" in one.instance),
    ("general interpretation", lambda one: one.general),
    ("class-discriminative interpretation", lambda one: one.class_discriminative),
    ("high-resolution interpretation", lambda one: one.high_resolution),
    ("multi-layer interpretation", lambda one: one.multi_layer),
    ("post-hoc interpretation", lambda one: one.post_hoc),
)


@dataclass(frozen=True)
class Pick:
    """An image (or mosaic) to show for a class: the network's view of it, and the class's share of it where that is known.

    ``inside`` (size, size) is True where the class is, for mosaics; None for an image.
    """

    name: str
    target: int
    label: str
    view: Image.Image
    inside: np.ndarray | None = None


@dataclass(frozen=True)
class Row:
    """One image and one class in a figure: a map a column, or the sentence that stands in its place."""

    pick: Pick
    probability: float
    maps: tuple[Saliency | str, ...]

    def inside(self, column: int) -> float:
        """The share of a map's positive part that lies where the class is; NaN where that is not known or there is no map."""
        saliency = self.maps[column]
        if isinstance(saliency, str) or self.pick.inside is None:
            return float("nan")
        heat = maps.upsample(saliency.raw, self.pick.view.width).clamp(min=0).numpy()
        return float(heat[self.pick.inside].sum() / heat.sum()) if heat.sum() > 0 else 0.0


def open_folders(network: Network, images: Images) -> ClassFolders:
    """Class folders named after classes of the network; ``DataError`` where there are none."""
    return open_class_folders(images, network.classes)


def choose(network: Network, folders: ClassFolders, classes: Sequence[int], count: int = 1) -> list[Pick]:
    """Of every class the ``count`` images that the network is surest of, among the first ``LOOKED_AT`` of its folder.

    Chosen by f^c alone, before any map is made. Classes without a readable image are left out.
    """
    picks: list[Pick] = []
    for target in classes:
        names = folders.by_class.get(target, ())[:LOOKED_AT]
        found: list[tuple[float, str, np.ndarray]] = []
        for batch in batches(folders.images, names, network.geometry, 16):
            if not batch.names:
                continue
            shares = network.probabilities(network.geometry.normalize(batch.views))[:, target]
            found += [(float(share), name, view.numpy()) for share, name, view in zip(shares, batch.names, batch.views, strict=True)]
        for _share, name, view in sorted(found, key=lambda one: (-one[0], one[1]))[:count]:
            picks.append(Pick(name, target, network.classes.labels[target], Image.fromarray(view)))
    return picks


def mosaics(network: Network, folders: ClassFolders, layout: Sequence[int], targets: Sequence[int], skip: int = 0) -> list[Pick]:
    """The images of several classes joined to one picture, once a class of ``targets``, with where each class is.

    ``layout`` are the classes of its cells in reading order: two side by side, or four. A class that comes twice has two
    images of its own there; ``skip`` leaves out so many of the target's first. Stands in where there is no image of several objects.
    """
    size, side = network.geometry.size, 1 if len(layout) == 2 else 2
    times = {target: sum(one == target for one in layout) for target in dict.fromkeys(layout)}
    passed = {target: skip if target in targets else 0 for target in times}
    by_class = {target: choose(network, folders, [target], count + passed[target])[passed[target] :] for target, count in times.items()}
    if any(len(picks) < times[target] for target, picks in by_class.items()):
        raise DataError("too few photographs for a mosaic; give two of each class.")
    waiting = {target: list(picks) for target, picks in by_class.items()}
    picture = Image.new("RGB", (size, size))
    cells = np.zeros((size, size), int)
    names = []
    for place, target in enumerate(layout):
        row, column = divmod(place, 2)
        box = (column * size // 2, row * size // side, (column + 1) * size // 2, (row + 1) * size // side)
        pick = waiting[target].pop(0)
        view = pick.view
        if side == 1:  # a half is twice as high as it is wide: the middle of the image
            view = view.crop((size // 4, 0, size // 4 + (box[2] - box[0]), size))
        picture.paste(view.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BICUBIC), box[:2])
        cells[box[1] : box[3], box[0] : box[2]] = target
        names.append(pick.name)
    return [Pick(" + ".join(names), target, network.classes.labels[target], picture, cells == target) for target in targets]


def row_of(network: Network, pick: Pick, columns: Sequence[tuple[str, str]], importance: Path | None = None, lime_samples: int = 0) -> Row:
    """The maps of an image's class, one for each (method, layer) of ``columns``."""
    found: list[Saliency | str] = []
    for method, layer in columns:
        one = METHODS[method]
        try:
            at = load_importance(network, layer, importance) if one.needs_importance else None
            shallow = load_importance(network, network.layers[0].name, importance) if one.needs_shallow else None
            options = {"samples": lime_samples} if lime_samples and "samples" in one.options else {}
            found.append(explain_view(network, pick.view, pick.target, method, layer, at, shallow_importance=shallow, options=options))
        except ChipError as error:
            found.append(str(error))
    known = [one.probability for one in found if isinstance(one, Saliency)]
    return Row(pick, known[0] if known else float("nan"), tuple(found))


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A figure of maps as a table: one line a map."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        for column, saliency in enumerate(row.maps):
            line: dict[str, Any] = {"image": row.pick.name, "class": row.pick.label}
            if isinstance(saliency, str):
                lines.append(line | {"problem": saliency})
                continue
            line |= {
                "probability": round(row.probability, 6), "method": saliency.method, "layer": saliency.layer, "map": "x".join(map(str, saliency.raw.shape)),
                "minimum": float(saliency.raw.min()), "maximum": float(saliency.raw.max()), "state": saliency.state,
                "area above half of the maximum": round(float((saliency.picture > 0.5).float().mean()), 4),
            }  # fmt: skip
            share = row.inside(column)
            lines.append(line | ({} if np.isnan(share) else {"share inside the class": round(share, 4)}))
    return lines


@dataclass(frozen=True)
class Shared:
    """Rows of W of some classes and the important channels of each (Fig. 10 and 11).

    ``W`` (n, K) signed; ``top`` and ``above`` (n, K), bool: the ``count`` largest channels, and those above ``share`` of the
    largest one.
    """

    classes: tuple[int, ...]
    labels: tuple[str, ...]
    W: np.ndarray
    top: np.ndarray
    above: np.ndarray
    count: int = TOP
    share: float = SHARE

    def common(self, i: int, j: int, which: str = "top") -> int:
        sets = getattr(self, which)
        return int((sets[i] & sets[j]).sum())


def shared_channels(importance: Importance, classes: Sequence[int], labels: Sequence[str], top: int = TOP, share: float = SHARE) -> Shared:
    """The rows of ``classes``; raises ``DataError`` where one of them has no fitted row."""
    for target, label in zip(classes, labels, strict=True):
        if importance.evidence(target) == "none":
            raise DataError(f"the class {label} has no fitted row of W; fit it, or give other --classes.")
    W = importance.W[list(classes)].float().numpy()
    return Shared(tuple(classes), tuple(labels), W, top_sets(W, top), above_sets(W, share), top, share)


def channel_records(shared: Shared) -> list[dict[str, Any]]:
    """One line a channel: its weight for every class, and of which classes it is important."""
    lines = []
    for channel in range(shared.W.shape[1]):
        line: dict[str, Any] = {"channel": channel}
        for i, label in enumerate(shared.labels):
            line |= {
                label: float(shared.W[i, channel]), f"{label}: top {shared.count}": int(shared.top[i, channel]),
                f"{label}: above": int(shared.above[i, channel]),
            }  # fmt: skip
        lines.append(line)
    return lines


def table_1() -> list[dict[str, Any]]:
    """Table I: the methods of the paper's table in its order, then ours, with a mark for every property."""
    lines: dict[str, dict[str, Any]] = {}
    order = {row: place for place, row in enumerate(TABLE_1)}
    for method in sorted(METHODS.values(), key=lambda one: order.get(one.properties.row or "", len(order))):
        row = method.properties.row or method.title
        lines.setdefault(row, {"method": row, **{name: bool(holds(method.properties)) for name, holds in PROPERTIES}})
    return list(lines.values())


def classes_to_show(network: Network, folders: ClassFolders, importance: Importance, wanted: Sequence[int], count: int) -> tuple[int, ...]:
    """The classes of a figure: those named, else the paper's where they are fitted, else the first class folders with a row of W."""
    if wanted:
        return tuple(wanted)
    fitted = [target for target in folders.by_class if importance.evidence(target) != "none"]
    paper = [network.classes.synsets.index(one) for one in PAPER_CLASSES if one in network.classes.synsets]
    if len(paper) == len(PAPER_CLASSES) and all(importance.evidence(one) != "none" for one in paper):
        fitted = [*paper, *(one for one in fitted if one not in paper)]
    return tuple(fitted[:count])
