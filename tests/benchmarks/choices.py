"""The choices that the paper leaves open, one at a time: ``python -m tests.benchmarks.choices WORK [--json FILE]``.

SqueezeNet and EfficientNet-Lite0, two depths each. W is fitted in as many ways as there are choices, from the same
perturbed scores of the images that ``tests.benchmarks.tables`` fits on. It is judged on others:

- boxes, energy: MaxBoxAcc and the share of the positive part inside the boxes of ILSVRC validation images
- grid: the grid pointing game on 2 x 2 mosaics (chance 0.25)

Classes are split in two halves by turns. Defaults are chosen on the first; the second confirms them. Differences
to Grad-CAM on the same images come with a bootstrap 95% interval.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chipcore import load_network
from chipcore.datasets.ilsvrc import open_ilsvrc
from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.datasets.image_set import batches
from chipcore.datasets.mosaics import open_class_folders
from chipcore.fitting.memory import keep_freed_memory
from chipcore.fitting.moments import Moments
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import draw_uniform, generator
from chipcore.gating.perturbation import batch_size, perturbed_scores
from chipcore.networks import Layer, Network
from chipcore.solvers import admm
from tests.benchmarks.judging import box_interval, boxed, interval, judge_boxes, judge_mosaics, mosaics
from tests.benchmarks.tables import prepare

DATA = Path(os.environ.get("CHIP_DATA") or "../shared/data")
PLACES = (
    ("squeezenet1_0", "features.12"),
    ("squeezenet1_0", "features.11"),
    ("efficientnet_lite0", "head"),
    ("efficientnet_lite0", "stage5"),
)
CUTOFF = 0.01
FEW, MANY = 25, 100  # gates of a image that has others of its class, and of one that is alone


@dataclass(frozen=True)
class Choice:
    """One way to learn W; the defaults are those that design.md starts from."""

    target: str = "score"
    sigma2: float = 1.0  # in units of K
    ratio: float = 1e-3
    gates: float = 1.0  # share of the gates that is used
    images: int = 40  # of a class folder, at most
    offset: str = "none"  # what is taken off the gated prediction before it is fitted
    sign: str = "signed"
    background: float = 0.0  # the share that all images alike have in a class's sums

    @property
    def kind(self) -> tuple[Any, ...]:
        """What the sums over images and gates depend on; choices that share it share them."""
        return self.sigma2, self.gates, self.images, self.offset if self.offset in ("photograph", "closed") else ""


CHOICES: dict[str, Choice] = {
    "as the paper": Choice(),
    "background 0.25": Choice(background=0.25),
    "background 0.5": Choice(background=0.5),
    "background 0.9": Choice(background=0.9),
    "ratio 1e-1": Choice(ratio=1e-1),
    "ratio 1e-2": Choice(ratio=1e-2),
    "ratio 1e-4": Choice(ratio=1e-4),
    "background 0.5, ratio 1e-2": Choice(background=0.5, ratio=1e-2),
    "background 0.5, ratio 1e-4": Choice(background=0.5, ratio=1e-4),
    "positive weights only": Choice(sign="positive"),
    "background 0.5, positive": Choice(background=0.5, sign="positive"),
    "intercept": Choice(offset="intercept"),
    "background 0.5, intercept": Choice(background=0.5, offset="intercept"),
    "closed network's score off": Choice(offset="closed"),
    "target: probability": Choice(target="probability"),
    "target: log-probability": Choice(target="log-probability"),
    "background 0.5, log-probability": Choice(background=0.5, target="log-probability"),
    "background 0.9, quarter log": Choice(background=0.9, target="quarter"),
    "background 0.5, quarter log": Choice(background=0.5, target="quarter"),
    "sigma^2 = 0.15 K": Choice(sigma2=0.15),
    "background 0.5, 0.15 K": Choice(background=0.5, sigma2=0.15),
    "no proximity": Choice(sigma2=1e9),
    "a third of the gates": Choice(gates=1 / 3),
    "background 0.5, a third of the gates": Choice(background=0.5, gates=1 / 3),
    "1 photograph": Choice(images=1),
    "background 0.5, 1 photograph": Choice(background=0.5, images=1),
    "3 photographs": Choice(images=3),
    "10 photographs": Choice(images=10),
    "background 0.5, 10 photographs": Choice(background=0.5, images=10),
}
TARGETS = ("score", "probability", "log-probability")
BETWEEN = {"quarter": 0.25}  # so much of the way from the score to the log-probability


@dataclass(frozen=True)
class Perturbed:
    """What one image leaves: f (M,), pooled features a (K,), gates d (N, K); scores (N + 1, M) and their
    log-sum-exp over all classes (N + 1,), the last of the closed network."""

    turn: int  # its place in its folder
    f: Tensor
    a: Tensor
    d: Tensor
    scores: Tensor
    total: Tensor

    def every(self, target: str) -> Tensor:
        """The prediction (N + 1, M) that W is to explain."""
        if target == "score":
            return self.scores
        logarithm = self.scores - self.total[:, None]
        return logarithm if target == "log-probability" else logarithm.exp()

    def gated(self, target: str) -> Tensor:
        """The same (N, M) without the closed network's."""
        return self.every(target)[:-1]

    def closed(self, target: str) -> Tensor:
        """The prediction (M,) of the network with every gate closed."""
        return self.every(target)[-1]


def perturb(network: Network, layer: Layer, images: ImageFolder, classes: list[int]) -> list[Perturbed]:
    suffix, found = network.suffix(layer, (layer,)), list[Perturbed]()
    turns: dict[str, int] = {}
    with torch.inference_mode():
        alone = {name for name in images.names if "/one/" in f"/{name}"}
        groups = ((FEW, [name for name in images.names if name not in alone]), (MANY, sorted(alone)))
        for many, batch in ((many, batch) for many, names in groups for batch in batches(images, names, network.geometry, 16)):
            activations = network.forward_prefix(network.geometry.normalize(batch.views), (layer,))
            features, side_inputs = activations.features[layer.path], activations.side_inputs[layer.path]
            drawn = [draw_uniform(many, layer.channels, generator(0, layer.path, name)) for name in batch.names]
            d = torch.from_numpy(np.stack(drawn)).to(features)
            d = torch.cat([d, torch.zeros_like(d[:, :1])], 1)  # the last is closed
            scores = perturbed_scores(suffix, features, side_inputs, d, batch_size(suffix.peak, network.device))
            f, total = activations.scores.softmax(1)[:, classes], scores.logsumexp(-1)
            scores, a = scores[..., classes], features.mean((2, 3))
            for s, name in enumerate(batch.names):
                folder = str(Path(name).parent)
                turns[folder] = turns.get(folder, 0) + 1
                found.append(Perturbed(turns[folder], f[s].clone(), a[s], d[s, :-1].bool(), scores[s].clone(), total[s].clone()))
            if len(found) % 160 < 16:
                print(f"\r{network.name} {layer.path}: {len(found)} of {len(images)} photographs  ", end="", file=sys.stderr, flush=True)
    return found


@dataclass
class Sums:
    """Moments of a kind: each class's own (f^c h) and those in which every image counts alike (h); divided by their weights."""

    own: Moments
    first: Tensor  # (M, K) mean of z
    crosses: dict[str, Tensor]  # (M, K) mean of g z, by target
    means: dict[str, Tensor]  # (M,) mean of g
    all_gram: Tensor
    all_first: Tensor
    all_crosses: dict[str, Tensor]
    all_means: dict[str, Tensor]


def summed(found: list[Perturbed], choice: Choice, many: int) -> Sums:
    channels = len(found[0].a)
    own = Moments.zeros(range(many), channels)
    first, all_first = torch.zeros(many, channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    all_gram, total = torch.zeros(channels, channels, dtype=torch.float64), 0.0
    crosses = {t: torch.zeros(many, channels, dtype=torch.float64) for t in TARGETS}
    all_crosses = {t: torch.zeros(many, channels, dtype=torch.float64) for t in TARGETS}
    means, all_means = ({t: torch.zeros(many, dtype=torch.float64) for t in TARGETS} for _ in range(2))
    chosen = [one for one in found if one.turn <= choice.images]
    for some in [
        same[i : i + 16] for N in (FEW, MANY) for same in [[one for one in chosen if len(one.d) == N]] for i in range(0, len(same), 16)
    ]:
        N = max(1, round(choice.gates * len(some[0].d)))
        d = torch.stack([one.d[:N] for one in some]).double()
        h = torch.exp((d.sum(2) - channels) / (choice.sigma2 * channels))
        z = d * torch.stack([one.a for one in some])[:, None]
        g = {t: torch.stack([one.gated(t)[:N] for one in some]).double() for t in TARGETS}
        if choice.offset == "closed":
            g = {t: value - torch.stack([one.closed(t) for one in some])[:, None] for t, value in g.items()}
        if choice.offset == "photograph":
            each = h.sum(1)[:, None, None]
            z = z - torch.einsum("bn,bnk->bk", h, z)[:, None] / each
            g = {t: value - torch.einsum("bn,bnm->bm", h, value)[:, None] / each for t, value in g.items()}
        f = torch.stack([one.f for one in some])
        whole = torch.zeros(len(some), N, many)  # only the Gram is wanted of it
        own.add(z, h, f, whole, CUTOFF)
        active = torch.where(f >= CUTOFF, f, 0.0).double()
        weighted = z * h[..., None]
        first += active.T @ weighted.sum(1)
        all_first += weighted.sum((0, 1))
        all_gram += torch.tensordot(weighted, z, dims=([0, 1], [0, 1]))
        total += float(h.sum())
        for t in TARGETS:
            each_cross = torch.einsum("bnm,bnk->bmk", g[t], weighted)
            crosses[t] += torch.einsum("bm,bmk->mk", active, each_cross)
            all_crosses[t] += each_cross.sum(0)
            each_mean = torch.einsum("bn,bnm->bm", h, g[t])
            means[t] += (active * each_mean).sum(0)
            all_means[t] += each_mean.sum(0)
    weight = own.weight.clamp(min=1e-12)
    own.gram /= weight[:, None, None]
    return Sums(
        own, first / weight[:, None], {t: v / weight[:, None] for t, v in crosses.items()}, {t: v / weight for t, v in means.items()},
        all_gram / total, all_first / total, {t: v / total for t, v in all_crosses.items()}, {t: v / total for t, v in all_means.items()},
    )  # fmt: skip


def fitted(sums: Sums, choice: Choice) -> Tensor:
    """W (M, K) by one choice."""
    beta = choice.background
    W = torch.zeros_like(sums.first)

    def mixed(own: dict[str, Tensor], everybody: dict[str, Tensor]) -> Tensor:
        if choice.target in BETWEEN:
            way = BETWEEN[choice.target]
            own, everybody = ({choice.target: (1 - way) * one["score"] + way * one["log-probability"]} for one in (own, everybody))
        return (1 - beta) * own[choice.target] + beta * everybody[choice.target]

    crosses, means = mixed(sums.crosses, sums.all_crosses), mixed(sums.means, sums.all_means)
    firsts = (1 - beta) * sums.first + beta * sums.all_first
    for some in (sums.own.loyalty > 0).nonzero().flatten().split(32):  # all Grams at once would be there three times over
        gram, cross = (1 - beta) * sums.own.gram[some] + beta * sums.all_gram, crosses[some]
        if choice.offset == "intercept":  # centerd moments are those of a fit with a constant that is not penalised
            gram = gram - firsts[some][:, :, None] * firsts[some][:, None]
            cross = cross - firsts[some] * means[some][:, None]
        W[some] = admm.solve((gram + gram.transpose(1, 2)) / 2, cross, choice.ratio * admm.lambda_max(cross)).W
    return W.clamp(min=0) if choice.sign == "positive" else W


def study(name: str, path: str, work: Path) -> dict[str, Any]:
    start = time.perf_counter()
    network = load_network(name, checkpoint=DATA / "networks/squeezenet1_0.pth" if name == "squeezenet1_0" else None)
    layer = network.layer(path)
    used = find_images([work / "fit" / one for one in ("classes", "one", "fourteen")])
    folders = open_class_folders(work / "unseen", network.classes)
    data = open_ilsvrc(work / "ilsvrc")
    truth = {network.classes.synsets.index(data.annotation(one).synset) for one in data.images.names}
    classes = sorted(truth | set(folders.by_class))
    rows = {target: row for row, target in enumerate(classes)}
    halves = classes[::2], classes[1::2]
    grids = [
        mosaics(network, layer, {t: folders.by_class[t] for t in half if t in folders.by_class}, folders, rows, seed)
        for seed, half in enumerate(halves)
    ]
    boxes = [boxed(network, layer, {t: rows[t] for t in half}, work) for half in halves]
    found = perturb(network, layer, used, classes)
    fitted_rows = torch.stack([torch.where(one.f >= CUTOFF, one.f, 0.0) for one in found]).sum(0) >= FitSettings.min_evidence
    boxes = [[scene for scene in scenes if fitted_rows[scene.rows[0]]] for scenes in boxes]
    base = [(judge_mosaics(grid, None), *judge_boxes(some, None)) for grid, some in zip(grids, boxes, strict=True)]
    report: dict[str, Any] = {}
    sums: Sums | None = None
    last: tuple[Any, ...] = ()
    for label, choice in [("Grad-CAM", None), *sorted(CHOICES.items(), key=lambda one: str(one[1].kind))]:
        print(f"\r{name} {path}: {label:<60}", end="", file=sys.stderr, flush=True)
        W = None
        if choice is not None:
            if sums is None or choice.kind != last:
                sums, last = None, choice.kind
                sums = summed(found, choice, len(classes))
            W = fitted(sums, choice)
        report[label] = {} if W is None else {"support": float((W != 0).sum(1).double().median())}
        for half, grid, some, own in zip(("choose", "confirm"), grids, boxes, base, strict=True):
            share, (right, energy) = judge_mosaics(grid, W), judge_boxes(some, W)
            report[label][half] = {
                "boxes": float(right.mean(0).max()), "boxes_difference": float(right.mean(0).max() - own[1].mean(0).max()),
                "boxes_interval": box_interval(right, own[1]), "energy": float(energy.mean()), "energy_difference": float((energy - own[2]).mean()),
                "energy_interval": interval(energy - own[2]), "grid": float(share.mean()), "grid_difference": float((share - own[0]).mean()),
                "grid_interval": interval(share - own[0]),
            }  # fmt: skip
    return {
        "network": name, "layer": path, "photographs": len(used), "gates": [FEW, MANY], "classes": len(classes),
        "mosaics": [len(one) for one in grids], "boxed": [len(one) for one in boxes], "seconds": time.perf_counter() - start,
        "choices": {label: report[label] for label in ("Grad-CAM", *CHOICES)},
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Shares in percent; differences to Grad-CAM with their 95% interval."""
    lines = [
        f"{result['network']} {result['layer']}: {result['photographs']} photographs, {result['gates']} gates each; boxed photographs {result['boxed']}, "
        f"mosaics {result['mosaics']}; {result['seconds']:.0f} s",
    ]
    for half in ("choose", "confirm"):
        lines.append(
            f"{half + ' on these classes':<34}{'boxes':>6}{'to Grad-CAM':>22}{'energy':>9}{'to Grad-CAM':>22}{'grid':>8}{'to Grad-CAM':>22}{'channels':>10}"
        )
        for label, cells in result["choices"].items():
            text = f"{label:<34}"
            for name, width in (("boxes", 6), ("energy", 9), ("grid", 8)):
                low, high = cells[half][f"{name}_interval"]
                text += f"{100 * cells[half][name]:>{width}.1f}{100 * cells[half][f'{name}_difference']:>+8.1f} [{100 * low:+5.1f},{100 * high:+5.1f}]"
            lines.append(text + f"{cells.get('support', 0):>10.0f}")
    return "\n".join(lines)


def overview(results: list[dict[str, Any]]) -> str:
    """Markdown: boxes and grid of every choice at every place, on the half that chose / on the half that confirms."""
    header = " | ".join(f"{one['network']} `{one['layer']}`: boxes | grid" for one in results)
    lines = [f"| choice | {header} |", "| --- |" + " --- | --- |" * len(results)]
    for label in ("Grad-CAM", *CHOICES):
        cells = []
        for one in results:
            found = one["choices"].get(label)
            cells += [
                " / ".join(f"{100 * found[half][name]:.1f}" for half in ("choose", "confirm")) if found else ""
                for name in ("boxes", "grid")
            ]
        if any(cells):
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("work", type=Path, help="the folder of tests.benchmarks.tables, made where it is missing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--print", action="store_true", help="show what is in --json as one table")
    parser.add_argument("--places", nargs="*", type=int, default=range(len(PLACES)), help="which of the four places, by number")
    parser.add_argument("--choices", nargs="*", help="only those whose name holds one of these words")
    options = parser.parse_args()
    if options.print:
        print(overview(json.loads(options.json.read_text())))
        return
    keep_freed_memory()
    work = options.work.resolve()
    prepare(work)
    for label in [one for one in CHOICES if options.choices and not any(word in one for word in options.choices)]:
        del CHOICES[label]
    for number in options.places:
        result = study(*PLACES[number], work)
        print("\n" + table(result), flush=True)
        if options.json:
            known = json.loads(options.json.read_text()) if options.json.exists() else []
            found = {(one["network"], one["layer"]): one for one in [*known, result]}
            options.json.write_text(json.dumps([found[place] for place in PLACES if place in found], indent=1))


if __name__ == "__main__":
    main()
