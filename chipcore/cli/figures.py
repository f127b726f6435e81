"""Draw the paper's figures and tables from your own photographs, as PNG, PDF and CSV."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from chipcore.analysis import paper_figures as paper
from chipcore.analysis.paper_figures import Pick, Row
from chipcore.cli.common import add_network_options, load_network_from
from chipcore.cli.console import add_command, print_error
from chipcore.datasets.ilsvrc import open_ilsvrc
from chipcore.datasets.mosaics import ClassFolders
from chipcore.errors import ChipError, DataError, SettingsError
from chipcore.evaluation import localization
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.images import Progress, no_progress
from chipcore.importance import Importance, load_importance
from chipcore.methods import METHODS
from chipcore.networks import Network
from chipcore.storage import check_writable, write_whole

NAMES = ("3", "4", "5", "8", "9", "10", "11", "I", "II")
MOST_ROWS = 6
LOCALIZERS = ("backprop", "cmwp", "gradcam", "chip")  # the rows of Table II


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
    add("--subject", default="", metavar="C", help="the class of Fig. 9 (default: zebra, or the first folder)")
    add("--layer", metavar="L", help="the deep layer of Fig. 3, 4, 5, 10, 11 and Table II (default: the deepest with W)")
    add("--only", nargs="+", choices=NAMES, default=NAMES, metavar="N", help=f"some of {', '.join(NAMES)} (default: all)")
    add("--lime-samples", type=int, default=0, metavar="N", help="hidden versions of a photograph for LIME (default: its own)")
    add("--importance", type=Path, default=None, metavar="DIR", help="where W is (default: the cache folder, then what is bundled)")
    add("--out", type=Path, required=True, metavar="DIR", help="where the files go: fig_3.png, fig_3.pdf, fig_3.csv, ... and captions.txt")
    add("--json", action="store_true", help="machine-readable result")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Draw what was asked for; what cannot be drawn is named, with the reason, and does not stop the rest."""
    if not 0 <= options.lime_samples <= 100_000:
        raise SettingsError(f"--lime-samples is {options.lime_samples}; give 1 to 100000, or leave it out.")
    check_writable(options.out)
    network = load_network_from(options)
    maker = Maker(network, options)
    told: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for name in tqdm([one for one in NAMES if one in options.only], desc="figures", disable=None, leave=False):
        title = f"Table {name}" if name.startswith("I") else f"Fig. {name}"
        try:
            figure, lines, caption = getattr(maker, f"make_{name}")()
        except ChipError as error:
            left_out[title] = str(error)
            continue
        caption = f"{title}. {caption}"
        files = _write(options.out, f"{'table' if name.startswith('I') else 'fig'}_{name}", figure(caption), lines)
        told.append({"figure": title, "caption": caption, "files": files})
    for title, reason in left_out.items():
        print_error(f"no {title}: {reason}")
    if not told:
        raise DataError(f"none of the figures could be drawn; the first reason: {next(iter(left_out.values()))}")
    text = "\n\n".join(one["caption"] for one in told) + "\n"
    write_whole(options.out / "captions.txt", lambda path: path.write_text(text, encoding="utf-8"))
    if options.json:
        print(json.dumps({"network": network.name, "layer": maker.layer, "figures": told, "left_out": left_out}, indent=2))
        return
    for one in told:
        print(f"{one['files'][0]}: {one['caption']}")


def _write(out: Path, name: str, figure: Figure, lines: Sequence[dict[str, Any]]) -> list[str]:
    """``name``.png, .pdf and .csv."""
    files = []
    for suffix in ("png", "pdf"):
        path = out / f"{name}.{suffix}"
        write_whole(path, lambda temporary, kind=suffix: figure.savefig(temporary, format=kind, dpi=200, facecolor="white"))  # type: ignore[misc]
        files.append(str(path))
    fields = list(dict.fromkeys(key for line in lines for key in line))
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(out / f"{name}.csv", lambda path: path.write_text(stream.getvalue(), encoding="utf-8"))
    return [*files, str(out / f"{name}.csv")]


Made = tuple[Callable[[str], Figure], list[dict[str, Any]], str]


class Maker:
    """The figures of one network and one folder, made on demand."""

    def __init__(self, network: Network, options: argparse.Namespace) -> None:
        self.network, self.options = network, options
        self.folders = paper.open_folders(network, options.images)
        self.layer = self._deepest()
        self._fitted: dict[str, Importance] = {self.layer: load_importance(network, self.layer, options.importance)}
        self.named = [network.classes.index(one) for one in options.classes]

    def _deepest(self) -> str:
        if self.options.layer is not None:
            return self.network.layer(self.options.layer).name
        for layer in reversed(self.network.layers):
            try:
                load_importance(self.network, layer.name, self.options.importance)
            except ChipError:
                continue
            return layer.name
        return self.network.layers[-1].name  # and load_importance says how to fit it

    @property
    def importance(self) -> Importance:
        return self._fitted[self.layer]

    def _folder_classes(self, count: int = MOST_ROWS) -> list[int]:
        """The class folders with a row of W, those named first."""
        known = [target for target in self.folders.by_class if self.importance.evidence(target) != "none"]
        if not known:
            raise DataError(f"no class folder of {self.options.images} has a fitted row of W at {self.layer}; fit those classes.")
        first = [target for target in self.named if target in known]
        return [*first, *(target for target in known if target not in first)][:count]

    def _rows(self, picks: Sequence[Pick], columns: Sequence[tuple[str, str]]) -> list[Row]:
        return [paper.row_of(self.network, pick, columns, self.options.importance, self.options.lime_samples) for pick in picks]

    def _grid(self, rows: list[Row], headings: Sequence[str], caption: str, first: Sequence[str] = ()) -> Made:
        from chipcore.figures import map_grid

        return lambda text: map_grid(rows, headings, text, first=first), paper.records(rows), caption

    def _by_method(self, picks: Sequence[Pick], methods: Sequence[str]) -> tuple[list[Row], list[str]]:
        return self._rows(picks, [(method, self.layer) for method in methods]), [METHODS[method].title for method in methods]

    def make_3(self) -> Made:
        picks = paper.choose(self.network, self.folders, self._folder_classes())
        rows, headings = self._by_method(picks, paper.SIMPLE)
        caption = (
            f"Visual interpretations for simple one-object images ({self.network.title}, {self.layer}). Of every folder the photograph "
            f"that the network is surest of: {_probabilities(rows)}."
        )
        return self._grid(rows, headings, caption)

    def _several(self, classes: Sequence[int], each: int) -> tuple[list[Pick], str]:
        """Photographs with several objects of a class, or mosaics with two of them."""
        if self.options.several is not None:
            folders = paper.open_folders(self.network, self.options.several)
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

    def make_4(self) -> Made:
        picks, what = self._several(self._folder_classes(), 1)
        rows, headings = self._by_method(picks, paper.SIMPLE)
        caption = (
            f"Visual interpretations for complex multi-object images ({self.network.title}, {self.layer}). {what}: {_probabilities(rows)}."
        )
        return self._grid(rows, headings, caption + _inside(rows, headings))

    def make_5(self) -> Made:
        classes = self.network.classes
        folders: ClassFolders = self.folders
        pair = [classes.index(one) for one in self.options.pair]
        if not pair:
            usual = [classes.synsets.index(one) for one in ("n07753592", "n07749582") if one in classes.synsets]
            pair = usual if len(usual) == 2 and all(one in folders.by_class for one in usual) else self._folder_classes(2)
        if len(set(pair)) < 2:
            raise DataError("Fig. 5 takes two classes; give two class folders, or --pair.")
        if self.options.together is not None:
            from chipcore.images import open_image

            view = self.network.geometry.view(open_image(self.options.together))
            picks = [Pick(self.options.together.name, target, classes.labels[target], view) for target in pair]
        else:
            picks = paper.mosaics(self.network, folders, pair, pair)
        rows, headings = self._by_method(picks, paper.PAIR)
        caption = f"Visual interpretations for a multi-category image ({self.network.title}, {self.layer}): {_probabilities(rows)}."
        return self._grid(rows, headings, caption + _inside(rows, headings))

    def make_8(self) -> Made:
        picks = paper.choose(self.network, self.folders, self._folder_classes(3))
        layers = [layer.name for layer in self.network.layers]
        rows = self._rows(picks, [("chip", layer) for layer in layers])
        return self._grid(rows, layers, f"CHIP in different layers of {self.network.title} for simple images: {_probabilities(rows)}.")

    def make_9(self) -> Made:
        classes = self.network.classes
        if self.options.subject:
            target = classes.index(self.options.subject)
        else:
            zebras = [index for index in self.folders.by_class if classes.labels[index] == "zebra"]
            target = (zebras or self._folder_classes(1))[0]
        picks, what = self._several([target], 2)
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

    def make_10(self) -> Made:
        from chipcore.figures.channels import draw_heatmap

        shared = self._shared(3)
        counts = ", ".join(f"{label} {int((row != 0).sum())}" for label, row in zip(shared.labels, shared.W, strict=True))
        caption = (
            f"Class-discriminative importance of the {shared.W.shape[1]} channels of {self.layer} ({self.network.title}), each class as a share of its largest. "
            f"Channels with a weight: {counts}."
        )
        return lambda text: draw_heatmap(shared, text), paper.channel_records(shared), caption

    def make_11(self) -> Made:
        from chipcore.figures.channels import draw_venn

        shared = self._shared(3)
        pairs = [(i, j) for i in range(len(shared.labels)) for j in range(i)]
        words = [
            f"{shared.labels[j]} and {shared.labels[i]} share {shared.common(i, j)} of {shared.count} (above a thousandth: {shared.common(i, j, 'above')})"
            for i, j in pairs
        ]
        caption = f"Important channels of {self.layer} ({self.network.title}) that classes share: {'; '.join(words)}."
        return lambda text: draw_venn(shared, text), paper.channel_records(shared), caption

    def make_I(self) -> Made:
        from chipcore.figures import table

        lines = paper.table_1()
        names = [name for name, _holds in paper.PROPERTIES]
        cells = [[line["method"], *("✓" if line[name] else "" for name in names)] for line in lines]
        return lambda text: table(["Method", *names], cells, text), lines, "Properties of different visual interpretation methods."

    def make_II(self) -> Made:
        from chipcore.figures import table

        if self.options.boxes is None:
            raise DataError("localization errors take annotated photographs; give --boxes, a folder in ILSVRC's layout.")
        bar: Callable[[Sequence[Any]], Iterable[Any]] = lambda items: tqdm(items, desc="boxes", disable=None, leave=False)  # noqa: E731
        found = localization_errors(self.network, self.layer, self.options.boxes, self.options.importance, progress=bar)
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
        return lambda text: table(headings, cells, text, strong=[(best[0], 1), (best[1], 2)]), lines, caption


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
    found = localization.evaluate(panel, open_ilsvrc(boxes), limit, seed, progress)
    one: dict[str, Any] = found["layers"][layer]
    if not one["images"]:
        raise DataError(
            f"{boxes} holds no annotated photograph of a class that W at {layer} knows; give other photographs or fit those classes."
        )
    return one
