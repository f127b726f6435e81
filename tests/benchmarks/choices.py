"""The choices that the paper leaves open, one at a time: ``python -m tests.benchmarks.choices [--json FILE]``.

SqueezeNet and EfficientNet-Lite0, two depths each. W is fitted on up to 16 photographs a class, in as many ways
as there are choices, from the same perturbed scores. It is judged on other photographs:

- grid: the grid pointing game on 2 x 2 mosaics of photographs that no W has seen (chance 0.25)
- boxes, energy: MaxBoxAcc and the share of the positive part inside the boxes of ILSVRC validation photographs

Classes are split in two halves by turns. Defaults are chosen on the first; the second confirms them. The
difference to Grad-CAM on the same mosaics comes with a bootstrap 95% interval.
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
PHOTOGRAPHS, GATES, MOSAICS, CUTOFF = 16, 20, 60, 0.01


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
    background: float = 0.0  # the share of a vote that a photograph has for every class, besides its f^c


CHOICES: dict[str, Choice] = {
    "as designed": Choice(),
    "target: probability": Choice(target="probability"),
    "target: log-probability": Choice(target="log-probability"),
    "sigma^2 = 0.15 K": Choice(sigma2=0.15),
    "sigma^2 = 0.4 K": Choice(sigma2=0.4),
    "no proximity": Choice(sigma2=1e9),
    "lambda ratio 1e-1": Choice(ratio=1e-1),
    "lambda ratio 1e-2": Choice(ratio=1e-2),
    "lambda ratio 1e-4": Choice(ratio=1e-4),
    "lambda ratio 1e-5": Choice(ratio=1e-5),
    "10 gates": Choice(gates=10),
    "1 photograph": Choice(photographs=1),
    "3 photographs": Choice(photographs=3),
    "10 photographs": Choice(photographs=10),
    "positive weights only": Choice(sign="positive"),
    "closed network's score off": Choice(offset="closed"),
    "intercept": Choice(offset="intercept"),
    "intercept a photograph": Choice(offset="photograph"),
    "intercept a photograph, 1e-4": Choice(offset="photograph", ratio=1e-4),
    "background 0.01": Choice(background=0.01),
    "background 0.1": Choice(background=0.1),
    "background 0.01, 1e-4": Choice(background=0.01, ratio=1e-4),
    "background 0.1, 1e-4": Choice(background=0.1, ratio=1e-4),
    "background 0.01, photograph, 1e-4": Choice(background=0.01, offset="photograph", ratio=1e-4),
    "background 0.1, photograph, 1e-3": Choice(background=0.1, offset="photograph"),
}


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
        return {"score": self.scores, "probability": self.probabilities, "log-probability": self.probabilities.clamp(min=1e-12).log()}[
            target
        ]

    def closed(self, target: str) -> Tensor:
        """The prediction (M,) of the network with every gate closed."""
        return self.last[int(target == "probability")]


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


def fitted(found: list[Perturbed], choice: Choice, many: int) -> Tensor:
    """W (M, K) by one choice."""
    channels = len(found[0].a)
    moments = Moments.zeros(range(many), channels)
    first = torch.zeros(many, channels, dtype=torch.float64)  # sum omega z, for the intercept
    everywhere, everywhere_cross = torch.zeros(channels, channels, dtype=torch.float64), torch.zeros(many, channels, dtype=torch.float64)
    chosen = [one for one in found if one.turn <= choice.photographs]
    for start in range(0, len(chosen), 16):
        some = chosen[start : start + 16]
        d = torch.stack([one.d[: choice.gates] for one in some]).float()
        h = torch.exp((d.sum(2) - channels) / (choice.sigma2 * channels))
        z = d * torch.stack([one.a for one in some])[:, None]
        g = torch.stack([one.gated(choice.target)[: choice.gates] for one in some])
        if choice.offset == "closed":
            g = g - torch.stack([one.closed(choice.target) for one in some])[:, None]
        elif choice.offset == "photograph":
            total = h.sum(1)[:, None, None]
            z, g = z - torch.einsum("bn,bnk->bk", h, z)[:, None] / total, g - torch.einsum("bn,bnm->bm", h, g)[:, None] / total
        f = torch.stack([one.f for one in some])
        moments.add(z, h, f, g, CUTOFF)
        active = torch.where(f >= CUTOFF, f, 0.0).double()
        first += torch.einsum("bm,bn,bnk->mk", active, h.double(), z.double())
        if choice.background:
            flat, weight = z.flatten(0, 1).double(), h.flatten().double()
            everywhere += flat.T @ (flat * weight[:, None])
            everywhere_cross += g.flatten(0, 1).double().T @ (flat * weight[:, None])
    known = (moments.loyalty > 0).nonzero().flatten()
    if choice.background:
        # As though every photograph had spoken a little for every class.
        moments.gram += choice.background * everywhere
        moments.cross += choice.background * everywhere_cross
        moments.weight += choice.background * sum(
            float(torch.exp((one.d[: choice.gates].sum(1) - channels) / (choice.sigma2 * channels)).sum()) for one in chosen
        )
    if choice.offset == "intercept":  # centred moments are those of a fit with a constant that is not penalised
        moments.gram -= first[:, :, None] * first[:, None] / moments.weight.clamp(min=1e-12)[:, None, None]
        moments.cross -= first * (moments.mean / moments.weight.clamp(min=1e-12))[:, None]
    W = torch.zeros(many, channels, dtype=torch.float64)
    W[known] = solve_rows(moments, known, choice.ratio)
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
    ours = {}
    for label, choice in CHOICES.items():
        print(f"\r{name} {path}: {label:<60}", end="", file=sys.stderr, flush=True)
        ours[label] = fitted(found, choice, len(classes))
    base = [judge_mosaics(scenes, None) for scenes in grids]
    report: dict[str, Any] = {}
    for label, W in {"Grad-CAM": None, **ours}.items():
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
