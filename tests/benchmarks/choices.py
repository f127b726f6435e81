"""The choices that the paper leaves open, one at a time: ``python -m tests.benchmarks.choices [--json FILE]``.

SqueezeNet and EfficientNet-Lite0, two depths each. W is fitted on up to 40 photographs a class, in as many ways
as there are choices, from the same perturbed scores. It is judged on other photographs:

- grid: the grid pointing game on 2 x 2 mosaics of photographs that no W has seen (chance 0.25)
- boxes, energy: MaxBoxAcc and the share of the positive part inside the boxes of ILSVRC validation photographs

Classes are split in two halves by turns. Defaults are chosen on the first; the second confirms them. The
difference to Grad-CAM on the same mosaics comes with a bootstrap 95% interval.
"""

from __future__ import annotations

import argparse
import dataclasses
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
from chipcore.__main__ import keep_freed_memory
from chipcore.datasets.folder import Photographs, batches, find_photographs
from chipcore.datasets.ilsvrc import open_ilsvrc
from chipcore.datasets.mosaics import draw_mosaics, open_class_folders
from chipcore.evaluation.boxes import overlap_curves
from chipcore.evaluation.grid import cells_of, enlarged, join
from chipcore.evaluation.localization import true_boxes
from chipcore.evaluation.panel import Panel
from chipcore.evaluation.photographs import as_input, min_max
from chipcore.fit import batch_size, solve_rows
from chipcore.gates import draw_uniform, generator
from chipcore.images import open_image
from chipcore.maps import upsample
from chipcore.methods import METHODS, Request
from chipcore.moments import Moments
from chipcore.networks import Layer, Network
from chipcore.perturbation import perturbed_scores

DATA = Path(os.environ.get("CHIP_DATA") or "../shared/data")
PLACES = (
    ("squeezenet1_0", "features.12"),
    ("squeezenet1_0", "features.11"),
    ("efficientnet_lite0", "head"),
    ("efficientnet_lite0", "stage5"),
)
PHOTOGRAPHS, GATES, MOSAICS, CUTOFF = 40, 30, 80, 0.01


@dataclass(frozen=True)
class Choice:
    """One way to learn W; the defaults are those that design.md starts from."""

    target: str = "score"
    sigma2: float = 1.0  # in units of K
    ratio: float = 1e-3
    gates: int = GATES
    photographs: int = PHOTOGRAPHS
    offset: str = "none"  # what is taken off the gated prediction before it is fitted
    sign: str = "signed"
    background: float = 0.0  # the share that all photographs alike have in a class's sums

    @property
    def kind(self) -> tuple[Any, ...]:
        """What the sums over photographs and gates depend on; choices that share it share them."""
        return self.sigma2, self.gates, self.photographs, self.offset if self.offset in ("photograph", "closed") else ""


CHOICES: dict[str, Choice] = {
    "as the paper": Choice(),
    "background 0.1": Choice(background=0.1),
    "background 0.25": Choice(background=0.25),
    "background 0.5": Choice(background=0.5),
    "background 0.75": Choice(background=0.75),
    "background 0.9": Choice(background=0.9),
    "background 0.5, ratio 1e-2": Choice(background=0.5, ratio=1e-2),
    "background 0.5, ratio 1e-4": Choice(background=0.5, ratio=1e-4),
    "background 0.9, ratio 1e-4": Choice(background=0.9, ratio=1e-4),
    "background 0.5, intercept": Choice(background=0.5, offset="intercept"),
    "background 0.5, closed off": Choice(background=0.5, offset="closed"),
    "background 0.5, probability": Choice(background=0.5, target="probability"),
    "background 0.5, log-probability": Choice(background=0.5, target="log-probability"),
    "background 0.5, positive": Choice(background=0.5, sign="positive"),
    "target: probability": Choice(target="probability"),
    "target: log-probability": Choice(target="log-probability"),
    "ratio 1e-1": Choice(ratio=1e-1),
    "ratio 1e-2": Choice(ratio=1e-2),
    "ratio 1e-4": Choice(ratio=1e-4),
    "ratio 1e-5": Choice(ratio=1e-5),
    "positive weights only": Choice(sign="positive"),
    "closed network's score off": Choice(offset="closed"),
    "intercept": Choice(offset="intercept"),
    "intercept a photograph": Choice(offset="photograph"),
    "intercept a photograph, 1e-4": Choice(offset="photograph", ratio=1e-4),
    "background 0.5, photograph": Choice(background=0.5, offset="photograph"),
    "background 0.5, photograph, 1e-4": Choice(background=0.5, offset="photograph", ratio=1e-4),
    "background 0.9, photograph, 1e-4": Choice(background=0.9, offset="photograph", ratio=1e-4),
    "sigma^2 = 0.15 K": Choice(sigma2=0.15),
    "background 0.5, sigma^2 = 0.15 K": Choice(background=0.5, sigma2=0.15),
    "no proximity": Choice(sigma2=1e9),
    "10 gates": Choice(gates=10),
    "background 0.5, 10 gates": Choice(background=0.5, gates=10),
    "1 photograph": Choice(photographs=1),
    "background 0.5, 1 photograph": Choice(background=0.5, photographs=1),
    "background 0.9, 1 photograph": Choice(background=0.9, photographs=1),
    "3 photographs": Choice(photographs=3),
    "background 0.5, 3 photographs": Choice(background=0.5, photographs=3),
    "10 photographs": Choice(photographs=10),
    "background 0.5, 10 photographs": Choice(background=0.5, photographs=10),
}
TARGETS = ("score", "probability", "log-probability")


def _of(target: str, scores: Tensor, probabilities: Tensor) -> Tensor:
    if target == "log-probability":
        return probabilities.clamp(min=1e-12).log()
    return scores if target == "score" else probabilities


@dataclass(frozen=True)
class Perturbed:
    """What one photograph leaves: f (M,), pooled features a (K,), gates d (N, K), scores and probabilities (N, M), of the closed network (2, M)."""

    turn: int  # its place in its folder
    f: Tensor
    a: Tensor
    d: Tensor
    scores: Tensor
    probabilities: Tensor
    last: Tensor

    def gated(self, target: str) -> Tensor:
        """The gated prediction (N, M) that W is to explain."""
        return _of(target, self.scores, self.probabilities)

    def closed(self, target: str) -> Tensor:
        """The prediction (M,) of the network with every gate closed."""
        return _of(target, *self.last)


@dataclass(frozen=True)
class Scene:
    """A picture to be judged on: features (K, u, v), and per map its class's row, what is true, and Grad-CAM's raw map."""

    features: Tensor
    rows: tuple[int, ...]
    truth: Any  # the cell of each row, or boxes
    gradcam: tuple[Tensor, ...]
    size: int


def perturb(network: Network, layer: Layer, photographs: Photographs, classes: list[int]) -> list[Perturbed]:
    suffix, found = network.suffix(layer, (layer,)), list[Perturbed]()
    turns: dict[str, int] = {}
    with torch.inference_mode():
        for batch in batches(photographs, photographs.names, network.geometry, 16):
            activations = network.trunk(network.geometry.normalise(batch.views), (layer,))
            features, carried = activations.features[layer.path], activations.carried[layer.path]
            drawn = [draw_uniform(GATES, layer.channels, generator(0, layer.path, name)) for name in batch.names]
            d = torch.from_numpy(np.stack(drawn)).to(features)
            d = torch.cat([d, torch.zeros_like(d[:, :1])], 1)  # the last is closed
            scores = perturbed_scores(suffix, features, carried, d, batch_size(suffix.peak, network.device))
            f, p = activations.scores.softmax(1)[:, classes], scores.softmax(-1)[..., classes]
            scores, a = scores[..., classes], features.mean((2, 3))
            for s, name in enumerate(batch.names):
                folder = str(Path(name).parent)
                turns[folder] = turns.get(folder, 0) + 1
                found.append(
                    Perturbed(
                        turns[folder], f[s], a[s], d[s, :-1].bool(), scores[s, :-1].clone(), p[s, :-1].clone(),
                        torch.stack([scores[s, -1], p[s, -1]]),
                    )
                )  # fmt: skip
            print(f"\r{network.name} {layer.path}: {len(found)} of {len(photographs)} photographs  ", end="", file=sys.stderr, flush=True)
    return found


@dataclass
class Sums:
    """Moments of a kind: each class's own (f^c h) and those in which every photograph counts alike (h); divided by their weights."""

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
    chosen = [one for one in found if one.turn <= choice.photographs]
    for start in range(0, len(chosen), 16):
        some = chosen[start : start + 16]
        d = torch.stack([one.d[: choice.gates] for one in some]).double()
        h = torch.exp((d.sum(2) - channels) / (choice.sigma2 * channels))
        z = d * torch.stack([one.a for one in some])[:, None]
        g = {t: torch.stack([one.gated(t)[: choice.gates] for one in some]).double() for t in TARGETS}
        if choice.offset == "closed":
            g = {t: value - torch.stack([one.closed(t) for one in some])[:, None] for t, value in g.items()}
        if choice.offset == "photograph":
            each = h.sum(1)[:, None, None]
            z = z - torch.einsum("bn,bnk->bk", h, z)[:, None] / each
            g = {t: value - torch.einsum("bn,bnm->bm", h, value)[:, None] / each for t, value in g.items()}
        f = torch.stack([one.f for one in some])
        own.add(z, h, f, g["score"].to(f), CUTOFF)
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
    beta, many = choice.background, len(sums.first)
    gram = (1 - beta) * sums.own.gram + beta * sums.all_gram
    gram = (gram + gram.transpose(1, 2)) / 2
    cross = (1 - beta) * sums.crosses[choice.target] + beta * sums.all_crosses[choice.target]
    first, mean = (
        (1 - beta) * sums.first + beta * sums.all_first,
        (1 - beta) * sums.means[choice.target] + beta * sums.all_means[choice.target],
    )
    if choice.offset == "intercept":  # centred moments are those of a fit with a constant that is not penalised
        gram = gram - first[:, :, None] * first[:, None]
        cross = cross - first * mean[:, None]
    known = (sums.own.loyalty > 0).nonzero().flatten()
    mixed = dataclasses.replace(sums.own, gram=gram, cross=cross.double(), weight=torch.ones(many, dtype=torch.float64))
    W = torch.zeros(many, cross.shape[1], dtype=torch.float64)
    W[known] = solve_rows(mixed, known, choice.ratio)
    return W.clamp(min=0) if choice.sign == "positive" else W


def gradcam(network: Network, layer: Layer, inputs: Tensor, targets: tuple[int, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    with torch.no_grad():
        activations = network.trunk(inputs, (layer,))
    raw = tuple(METHODS["gradcam"](Request(network, inputs, target, layer, activations=activations)).raw for target in targets)
    return activations.features[layer.path][0], raw


def mosaics(network: Network, layer: Layer, held: dict[int, tuple[str, ...]], folders: Any, rows: dict[int, int], seed: int) -> list[Scene]:
    """Mosaics of photographs that no W has seen, of the classes in ``held``."""
    size = network.geometry.size
    large = enlarged(Panel.of(network, [layer.path], ["gradcam"]), 2 * size)
    assert large is not None

    def view(name: str) -> np.ndarray:
        return np.asarray(network.geometry.view(open_image(folders.photographs.root / name)))

    def usable(name: str, target: int) -> bool:
        f = network.probabilities(as_input(view(name), network.geometry))[0]
        return int(f.argmax()) == target and float(f[target]) >= 0.9

    scenes = []
    own = type(folders)(folders.photographs, held, ())
    for mosaic in draw_mosaics(own, usable, sorted(held), 2, MOSAICS, seed):
        inputs = as_input(join([view(name) for name in mosaic.names], 2), large.network.geometry)
        features, raw = gradcam(large.network, large.layers[0], inputs, mosaic.targets)
        scenes.append(Scene(features, tuple(rows[t] for t in mosaic.targets), tuple(range(4)), raw, 2 * size))
    return scenes


def boxed(network: Network, layer: Layer, rows: dict[int, int]) -> list[Scene]:
    """ILSVRC validation photographs of the fitted classes."""
    data, scenes = open_ilsvrc(DATA / "ilsvrc_val_dev"), []
    panel = Panel.of(network, [layer.path], ["gradcam"])
    for name in data.photographs.names:
        annotation = data.annotation(name)
        target = network.classes.synsets.index(annotation.synset)
        if target not in rows:
            continue
        image = open_image(data.photographs.root / name)
        features, raw = gradcam(network, layer, network.input(image), (target,))
        scenes.append(Scene(features, (rows[target],), true_boxes(annotation, image.size, panel), raw, network.geometry.size))
    return scenes


def judge_mosaics(scenes: list[Scene], W: Tensor | None) -> np.ndarray:
    """Mean share in the right cell of every mosaic."""
    cells = torch.from_numpy(cells_of(scenes[0].size, 2))
    shares = []
    for scene in scenes:
        own = []
        for at, (row, cell) in enumerate(zip(scene.rows, scene.truth, strict=True)):
            raw = scene.gradcam[at] if W is None else torch.einsum("k,kuv->uv", W[row].to(scene.features), scene.features)
            heat = upsample(raw, scene.size).clamp(min=0)
            own.append(float(heat[cells == cell].sum() / heat.sum().clamp(min=1e-20)))
        shares.append(np.mean(own))
    return np.array(shares)


def judge_boxes(scenes: list[Scene], W: Tensor | None) -> tuple[float, float]:
    """MaxBoxAcc and energy."""
    right, energy = [], []
    for scene in scenes:
        raw = scene.gradcam[0] if W is None else torch.einsum("k,kuv->uv", W[scene.rows[0]].to(scene.features), scene.features)
        heat = upsample(raw, scene.size).clamp(min=0).numpy()
        right.append(overlap_curves(min_max(heat), scene.truth)[0] >= 0.5)
        mask = np.zeros(heat.shape, bool)
        for x0, y0, x1, y1 in scene.truth:
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
        energy.append(heat[mask].sum() / max(heat.sum(), 1e-20))
    return float(np.mean(right, axis=0).max()), float(np.mean(energy))


def interval(differences: np.ndarray) -> list[float]:
    rng = np.random.default_rng(0)
    means = differences[rng.integers(0, len(differences), (2000, len(differences)))].mean(1)
    return [float(np.quantile(means, q)) for q in (0.025, 0.975)]


def study(name: str, path: str) -> dict[str, Any]:
    start = time.perf_counter()
    network = load_network(name, checkpoint=DATA / "networks/squeezenet1_0.pth" if name == "squeezenet1_0" else None)
    layer = network.layer(path)
    everything = find_photographs(DATA / "classes")
    used = everything.per_folder(PHOTOGRAPHS)
    folders = open_class_folders(DATA / "classes", network.classes)
    classes = sorted(folders.by_class)
    rows = {target: row for row, target in enumerate(classes)}
    halves = classes[::2], classes[1::2]
    unseen = {t: tuple(n for n in names if n not in set(used.names)) for t, names in folders.by_class.items()}
    grids = [mosaics(network, layer, {t: unseen[t] for t in half if unseen[t]}, folders, rows, seed) for seed, half in enumerate(halves)]
    boxes = [boxed(network, layer, {t: rows[t] for t in half}) for half in halves]
    found = perturb(network, layer, used, classes)
    ours: dict[str, Tensor] = {}
    last: tuple[Any, ...] = ()
    sums: Sums | None = None
    for label, choice in sorted(CHOICES.items(), key=lambda one: str(one[1].kind)):
        print(f"\r{name} {path}: {label:<60}", end="", file=sys.stderr, flush=True)
        if sums is None or choice.kind != last:
            sums, last = None, choice.kind
            sums = summed(found, choice, len(classes))
        ours[label] = fitted(sums, choice)
    base = [judge_mosaics(scenes, None) for scenes in grids]
    report: dict[str, Any] = {}
    for label, W in {"Grad-CAM": None, **{label: ours[label] for label in CHOICES}}.items():
        report[label] = {}
        for half, scenes, boxes_of, own in zip(("choose", "confirm"), grids, boxes, base, strict=True):
            share = judge_mosaics(scenes, W)
            box, energy = judge_boxes(boxes_of, W)
            report[label][half] = {
                "grid": float(share.mean()), "difference": float((share - own).mean()), "interval": interval(share - own), "boxes": box,
                "energy": energy,
            }  # fmt: skip
        if W is not None:
            report[label]["support"] = float((W != 0).sum(1).double().median())
    return {
        "network": name, "layer": path, "photographs": len(used), "gates": GATES, "classes": len(classes),
        "mosaics": [len(one) for one in grids], "boxed": [len(one) for one in boxes], "seconds": time.perf_counter() - start,
        "choices": report,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['network']} {result['layer']}: {result['photographs']} photographs x {result['gates']} gates; mosaics {result['mosaics']}, "
        f"boxed photographs {result['boxed']}; {result['seconds']:.0f} s",
        f"{'':<32}{'choose: grid':>13}{'to Grad-CAM':>22}{'boxes':>7}{'energy':>8} |{'confirm: grid':>14}{'to Grad-CAM':>22}{'boxes':>7}{'energy':>8}{'support':>9}",
    ]
    for label, cells in result["choices"].items():
        text = f"{label:<32}"
        for half, width in (("choose", 13), ("confirm", 14)):
            one = cells[half]
            low, high = one["interval"]
            text += f"{one['grid']:>{width}.3f}{one['difference']:>+8.3f} [{low:+.3f},{high:+.3f}]{one['boxes']:>7.3f}{one['energy']:>8.3f}"
            text += " |" if half == "choose" else f"{cells.get('support', 0):>9.0f}"
        lines.append(text)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--json", type=Path)
    parser.add_argument("--places", nargs="*", type=int, default=range(len(PLACES)), help="which of the four places, by number")
    options = parser.parse_args()
    keep_freed_memory()
    results = []
    for number in options.places:
        results.append(study(*PLACES[number]))
        print("\n" + table(results[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
