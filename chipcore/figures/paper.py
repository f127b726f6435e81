"""The paper's figures and tables by their numbers: one door for the command line, a notebook and a page of an app.

A :class:`PaperFigures` holds a network, images and W; :meth:`PaperFigures.make` gives a :class:`PaperFigure`: its caption with the
numbers, its table as CSV, and the drawing as a Matplotlib figure, as the paper prints it or as a slide of 16:9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from chipcore.analysis import paper_figures as paper
from chipcore.analysis.paper_figures import FIGURES, Pick, Row
from chipcore.analysis.tables import to_csv
from chipcore.datasets.ilsvrc import Ilsvrc
from chipcore.datasets.mosaics import ClassFolders
from chipcore.datasets.sources import Images
from chipcore.errors import ChipError, DataError, SettingsError
from chipcore.evaluation import localization
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.images import Progress, no_progress
from chipcore.figures.channels import draw_heatmap, draw_venn
from chipcore.figures.pictures import map_grid
from chipcore.figures.slides import slide
from chipcore.figures.tables import table
from chipcore.images import open_image
from chipcore.importance import Importance, load_importance
from chipcore.methods import METHODS
from chipcore.networks import Network, load_network
from chipcore.storage import write_whole

MOST_ROWS = 6
LOCALIZERS = ("backprop", "cmwp", "gradcam", "chip")  # the rows of Table II


@dataclass(frozen=True)
class PaperFigure:
    """A figure or table: ``name`` ('11', 'II'), ``title`` ('Fig. 11'), ``caption`` with its numbers, ``records`` (a dict a line of its CSV)."""

    name: str
    caption: str
    records: list[dict[str, Any]] = field(repr=False)
    draw: Callable[[str], Figure] = field(repr=False)  # takes the caption, '' for none

    @property
    def title(self) -> str:
        return f"Table {self.name}" if self.name.startswith("I") else f"Fig. {self.name}"

    @property
    def file_name(self) -> str:
        """``fig_11`` or ``table_II``."""
        return f"{'table' if self.name.startswith('I') else 'fig'}_{self.name}"

    @property
    def figure(self) -> Figure:
        """As the paper prints it, the caption below."""
        return self.draw(f"{self.title}. {self.caption}")

    @property
    def slide(self) -> Figure:
        """On 13.3 x 7.5 inches (16:9), the caption in letters that the last row can read."""
        return slide(self.draw(""), self.title, self.caption)

    @property
    def csv(self) -> str:
        return to_csv(pd.DataFrame(self.records))

    def write(self, out: Path) -> list[str]:
        """``fig_11.png``, ``.pdf``, ``.csv`` and ``fig_11_slide.png`` below ``out``; their paths."""
        figure, wide, text = self.figure, self.slide, self.csv
        files: dict[str, Callable[[Path], object]] = {
            f"{self.file_name}.png": lambda path: figure.savefig(path, format="png", dpi=200, facecolor="white"),
            f"{self.file_name}.pdf": lambda path: figure.savefig(path, format="pdf", dpi=200, facecolor="white"),
            f"{self.file_name}_slide.png": lambda path: wide.savefig(path, format="png", dpi=144, facecolor="white"),
            f"{self.file_name}.csv": lambda path: path.write_text(text, encoding="utf-8"),
        }
        for name, write in files.items():
            write_whole(out / name, write)
        return [str(out / name) for name in files]


class PaperFigures:
    """The figures of one network and one set of images, each made when it is asked for.

    Parameters
    ----------
    network
        A network, or the name of one.
    images
        Class folders, or anything else that :func:`chipcore.datasets.sources.open_images` takes: ``[(image, "zebra/one"), ...]`` too, where
        the part before the slash names the class.
    importance
        The folder that W is in; by default the cache folder, then what is bundled.
    layer
        The deep layer of Fig. 3, 4, 5, 10, 11 and Table II; by default the deepest with W.
    classes, pair, subject
        Those of Fig. 10 and 11 (default: bullfrog, tree frog and zebra, else the first three with W), of Fig. 5 (banana and lemon, else the
        first two) and of Fig. 9 (zebra, else the first).
    several, together, boxes
        Images with several objects of a class for Fig. 4 and 9 (default: mosaics), one image of both classes for Fig. 5 (default: two halves), and
        boxed images in ILSVRC's layout for Table II (default: no Table II).
    lime_samples
        Hidden versions of an image for LIME; 0 for its own number.

    Raises
    ------
    ChipError
        No such network, class or layer, no W at the layer, or images that belong to no class of the network.

    Examples
    --------
    >>> from skimage import data
    >>> paper = PaperFigures("vgg16_slim", [(data.chelsea(), "cat/one"), (data.chelsea()[:, ::-1], "cat/two")], classes=["frog", "cat", "zebra"])
    >>> venn = paper.make("11")
    >>> venn.title, venn.csv.splitlines()[0].split(",")[:3]
    ('Fig. 11', ['channel', 'frog', 'frog: top 10'])
    >>> type(venn.figure).__name__, [round(side, 1) for side in venn.slide.get_size_inches().tolist()]
    ('Figure', [13.3, 7.5])
    """

    def __init__(
        self,
        network: Network | str,
        images: Images,
        importance: Path | None = None,
        *,
        layer: str | None = None,
        classes: Sequence[str | int] = (),
        pair: Sequence[str | int] = (),
        subject: str | int | None = None,
        several: Images | None = None,
        together: Path | None = None,
        boxes: Path | None = None,
        lime_samples: int = 0,
    ) -> None:
        if not 0 <= lime_samples <= 100_000:
            raise SettingsError(f"--lime-samples is {lime_samples}; give 1 to 100000, or leave it out.")
        self.network = load_network(network) if isinstance(network, str) else network
        self.folders = paper.open_folders(self.network, images)
        self._importance_folder, self._lime_samples = importance, lime_samples
        self._several, self._together, self._boxes = several, together, boxes
        self.layer = self._deepest() if layer is None else self.network.layer(layer).name
        self.importance: Importance = load_importance(self.network, self.layer, importance)
        self.named = [self.network.classes.index(one) for one in classes]
        self.pair = [self.network.classes.index(one) for one in pair]
        self.subject = None if subject is None else self.network.classes.index(subject)

    def make(self, name: str, progress: Progress = no_progress) -> PaperFigure:
        """The figure or table of this number, one of :data:`chipcore.analysis.paper_figures.FIGURES`; ``ChipError`` with one sentence where it can't be made of what is there."""
        if name not in FIGURES:
            raise SettingsError(f"there is no figure {name!r}; give one of {', '.join(FIGURES)}.")
        if name == "II":
            return PaperFigure(name, *self._make_II(progress))
        return PaperFigure(name, *getattr(self, f"_make_{name}")())

    def _deepest(self) -> str:
        for layer in reversed(self.network.layers):
            try:
                load_importance(self.network, layer.name, self._importance_folder)
            except ChipError:
                continue
            return layer.name
        return self.network.layers[-1].name  # and load_importance says how to fit it

    def _folder_classes(self, count: int = MOST_ROWS) -> list[int]:
        """The class folders with a row of W: those named first, then the paper's subjects, then the others."""
        known = [target for target in self.folders.by_class if self.importance.evidence(target) != "none"]
        if not known:
            raise DataError(f"none of the class folders has a fitted row of W at {self.layer}; fit those classes.")
        synsets = self.network.classes.synsets
        subjects = [synsets.index(one) for one in paper.SUBJECTS if one in synsets]
        first = [target for target in dict.fromkeys([*self.named, *subjects]) if target in known]
        return [*first, *(target for target in known if target not in first)][:count]

    def _rows(self, picks: Sequence[Pick], columns: Sequence[tuple[str, str]]) -> list[Row]:
        return [paper.row_of(self.network, pick, columns, self._importance_folder, self._lime_samples) for pick in picks]

    def _grid(self, rows: list[Row], headings: Sequence[str], caption: str, first: Sequence[str] = ()) -> Made:
        return caption, paper.records(rows), lambda text: map_grid(rows, headings, text, first=first)

    def _by_method(self, picks: Sequence[Pick], methods: Sequence[str]) -> tuple[list[Row], list[str]]:
        return self._rows(picks, [(method, self.layer) for method in methods]), [METHODS[method].title for method in methods]

    def _make_3(self) -> Made:
        picks = paper.choose(self.network, self.folders, self._folder_classes())
        rows, headings = self._by_method(picks, paper.SIMPLE)
        caption = (
            f"Visual interpretations for simple one-object images ({self.network.title}, {self.layer}). Of every folder the photograph "
            f"that the network is surest of: {_probabilities(rows)}."
        )
        return self._grid(rows, headings, caption)

    def _complex(self, classes: Sequence[int], each: int) -> tuple[list[Pick], str]:
        """Photographs with several objects of a class, or mosaics with two of them."""
        if self._several is not None:
            folders = paper.open_folders(self.network, self._several)
            wanted = [target for target in folders.by_class if target in classes] or list(folders.by_class)[:MOST_ROWS]
            picks = paper.choose(self.network, folders, wanted, each)
            return picks[:MOST_ROWS], "Photographs with several objects of the class"
        others = self._folder_classes(10**6)
        picks = []
        for target in classes:
            beside = [one for one in others if one != target]
            if len(beside) < 2:
                raise DataError("mosaics take three class folders; give more, or --several.")
            for place in range(each):
                one, two = (beside[(2 * place + k) % len(beside)] for k in (0, 1))
                layout = (target, one, two, target) if place % 2 == 0 else (one, target, target, two)
                picks += paper.mosaics(self.network, self.folders, layout, [target], 2 * place)
        return picks, "Mosaics of two photographs of the class and two of others"

    def _make_4(self) -> Made:
        picks, what = self._complex(self._folder_classes(), 1)
        rows, headings = self._by_method(picks, paper.SIMPLE)
        caption = (
            f"Visual interpretations for complex multi-object images ({self.network.title}, {self.layer}). {what}: {_probabilities(rows)}."
        )
        return self._grid(rows, headings, caption + _inside(rows, headings))

    def _make_5(self) -> Made:
        classes = self.network.classes
        folders: ClassFolders = self.folders
        pair = self.pair
        if not pair:
            usual = [classes.synsets.index(one) for one in ("n07753592", "n07749582") if one in classes.synsets]
            pair = usual if len(usual) == 2 and all(one in folders.by_class for one in usual) else self._folder_classes(2)
        if len(set(pair)) < 2:
            raise DataError("Fig. 5 takes two classes; give two class folders, or --pair.")
        if self._together is not None:
            view = self.network.geometry.view(open_image(self._together))
            picks = [Pick(self._together.name, target, classes.labels[target], view) for target in pair]
        else:
            picks = paper.mosaics(self.network, folders, pair, pair)
        rows, headings = self._by_method(picks, paper.PAIR)
        caption = f"Visual interpretations for a multi-category image ({self.network.title}, {self.layer}): {_probabilities(rows)}."
        return self._grid(rows, headings, caption + _inside(rows, headings))

    def _make_8(self) -> Made:
        picks = paper.choose(self.network, self.folders, self._folder_classes(3))
        layers = [layer.name for layer in self.network.layers]
        rows = self._rows(picks, [("chip", layer) for layer in layers])
        return self._grid(rows, layers, f"CHIP in different layers of {self.network.title} for simple images: {_probabilities(rows)}.")

    def _make_9(self) -> Made:
        classes = self.network.classes
        target = self.subject
        if target is None:
            zebras = [index for index in self.folders.by_class if classes.labels[index] == "zebra"]
            target = (zebras or self._folder_classes(1))[0]
        picks, what = self._complex([target], 2)
        layers = [layer.name for layer in self.network.layers]
        rows, first = [], []
        for pick in picks[:2]:
            for method in ("gradcam", "chip"):
                rows += self._rows([pick], [(method, layer) for layer in layers])
                first.append(f"{pick.label}: {METHODS[method].title}")
        caption = f"Grad-CAM and CHIP in different layers of {self.network.title} for complex images. {what}: {_probabilities(rows[::2])}."
        shares = [f"{METHODS[method].title} {_percents(rows[place::2])}" for place, method in enumerate(("gradcam", "chip"))]
        known = not np.isnan(rows[0].inside(0))
        return self._grid(
            rows,
            layers,
            caption + (f" Share of the map inside the class, {layers[0]} to {layers[-1]}: {'; '.join(shares)}." if known else ""),
            first,
        )

    def _shared(self, count: int) -> paper.Shared:
        wanted = paper.classes_to_show(self.network, self.folders, self.importance, self.named, count)
        if len(wanted) < 2:
            raise DataError("this figure compares at least two classes; give more class folders, or --classes.")
        return paper.shared_channels(self.importance, wanted, [self.network.classes.labels[one] for one in wanted])

    def _make_10(self) -> Made:
        shared = self._shared(3)
        counts = ", ".join(f"{label} {int((row > 0).sum())}" for label, row in zip(shared.labels, shared.W, strict=True))
        caption = (
            f"Class-discriminative importance of the {shared.W.shape[1]} channels of {self.layer} ({self.network.title}), each class as a share of its largest. "
            f"Channels with a positive weight: {counts}."
        )
        return caption, paper.channel_records(shared), lambda text: draw_heatmap(shared, text)

    def _make_11(self) -> Made:
        shared = self._shared(3)
        pairs = [(i, j) for i in range(len(shared.labels)) for j in range(i)]
        words = [
            f"{shared.labels[j]} and {shared.labels[i]} share {shared.common(i, j)} of {shared.count} (above a thousandth: {shared.common(i, j, 'above')})"
            for i, j in pairs
        ]
        caption = f"Important channels of {self.layer} ({self.network.title}) that classes share: {'; '.join(words)}."
        return caption, paper.channel_records(shared), lambda text: draw_venn(shared, text)

    def _make_I(self) -> Made:
        lines = paper.table_1()
        names = [name for name, _holds in paper.PROPERTIES]
        cells = [[line["method"], *("✓" if line[name] else "" for name in names)] for line in lines]
        return "Properties of different visual interpretation methods.", lines, lambda text: table(["Method", *names], cells, text)

    def _make_II(self, progress: Progress) -> Made:
        if self._boxes is None:
            raise DataError("localization errors take annotated photographs; give --boxes, a folder in ILSVRC's layout.")
        found = localization_errors(self.network, self.layer, self._boxes, self._importance_folder, progress=progress)
        errors = 1 - found["top1_accuracy"], 1 - found["top5_accuracy"]
        lines: list[dict[str, Any]] = []
        cells: list[list[str]] = []
        for method, figures in found["methods"].items():
            line = {
                "method": METHODS[method].title, "top-1 localization error": figures["top1_loc_error"], "top-5 localization error": figures["top5_loc_error"],
                "network": self.network.title, "top-1 classification error": errors[0], "top-5 classification error": errors[1],
                "threshold": figures["threshold_top1"], "images": found["images"],
            }  # fmt: skip
            compared = figures.get("difference", {}).get("top1_loc_error")
            if compared:
                line |= {"top-1 minus Grad-CAM": compared["difference"], "low": compared["low"], "high": compared["high"]}
            lines.append(line)
            first = not cells
            cells.append([
                line["method"], f"{100 * figures['top1_loc_error']:.1f}", f"{100 * figures['top5_loc_error']:.1f}",
                self.network.name if first else "", f"{100 * errors[0]:.1f}" if first else "", f"{100 * errors[1]:.1f}" if first else "",
            ])  # fmt: skip
        best = [min(range(len(lines)), key=lambda r: lines[r][key]) for key in ("top-1 localization error", "top-5 localization error")]
        chip = found["methods"]["chip"]["difference"]["top1_loc_error"]
        caption = (
            f"Localization and classification errors (%) on {found['images']} annotated photographs, {self.layer}; each method at its best threshold. "
            f"CHIP minus Grad-CAM, top-1: {100 * chip['difference']:+.1f} [{100 * chip['low']:+.1f}, {100 * chip['high']:+.1f}]."
        )
        headings = [
            "Localization method",
            "Top 1 loc error",
            "Top 5 loc error",
            "Classification network",
            "Top 1 cls error",
            "Top 5 cls error",
        ]
        return caption, lines, lambda text: table(headings, cells, text, strong=[(best[0], 1), (best[1], 2)])


Made = tuple[str, list[dict[str, Any]], Callable[[str], Figure]]


def _probabilities(rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.pick.label} (p = {row.probability:.2f})" for row in rows)


def _percents(rows: Sequence[Row]) -> str:
    shares = np.array([[row.inside(column) for column in range(len(row.maps))] for row in rows]).mean(0)
    return " ".join(f"{100 * one:.0f}%" for one in shares)


def _inside(rows: Sequence[Row], headings: Sequence[str]) -> str:
    """What share of each method's maps lies on the class, where that is known; chance is the class's share of the picture."""
    if not rows or rows[0].pick.inside is None:
        return ""
    shares = np.array([[row.inside(column) for column in range(len(headings))] for row in rows])
    told = ", ".join(
        f"{title} {100 * share:.0f}%" for title, share in zip(headings, np.nanmean(shares, 0), strict=True) if not np.isnan(share)
    )
    return f" Share of the map inside the class (chance {100 * rows[0].pick.inside.mean():.0f}%): {told}."


def localization_errors(
    network: Network,
    layer: str,
    boxes: Path,
    importance: Path | None = None,
    limit: int = 0,
    seed: int = 0,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Table II, and the differences to Grad-CAM with their intervals: see ``evaluation.localization``."""
    panel = MethodSet.of(network, [layer], LOCALIZERS, importance)
    found = localization.evaluate(panel, Ilsvrc(boxes, network.classes, network.geometry), limit, seed, progress).to_dict()
    one: dict[str, Any] = found["layers"][layer]
    if not one["images"]:
        raise DataError(
            f"{boxes} holds no annotated photograph of a class that W at {layer} knows; give other photographs or fit those classes."
        )
    return one
