"""CHIP and Grad-CAM at every depth on images that W is not fitted to: ``python -m tests.benchmarks.depth_maps WORK --layers L...``.

Boxes and energy on a draw of ILSVRC validation images, the grid pointing game on mosaics of ``WORK/unseen`` (prepared by
``tests.benchmarks.tables``), for shares of W's contrast; each on classes of even index (to choose on), of odd index (to confirm
on), and on all. One pass serves the features of all layers. The positive part is taken before up-sampling, for both methods.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import chipcore
from chipcore.datasets.annotations import boxes_in_view
from chipcore.datasets.ilsvrc import open_ilsvrc
from chipcore.datasets.mosaics import draw_mosaics, open_class_folders
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.grid_pointing import enlarged, join
from chipcore.evaluation.images import to_input
from chipcore.images import open_image
from chipcore.importance import Importance, load_importance
from chipcore.networks import Layer, Network
from tests.benchmarks.judging import Scene, box_interval, interval, judge_boxes, judge_mosaics
from tests.benchmarks.tables import prepare

SHARES = (0.0, 0.2, 0.4, 0.6, 1.0)  # of W's contrast
Scenes = dict[str, list[Scene]]  # by layer


def look(
    network: Network, layers: Sequence[Layer], inputs: Tensor, targets: Sequence[int]
) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
    """Features of every layer, and Grad-CAM's maps of every target, in half precision: they are many."""
    kept: dict[str, Tensor] = {}
    handles = []
    for layer in layers:

        def keep(_module: Any, _given: Any, output: Tensor, name: str = layer.name) -> Tensor:
            kept[name] = output.clone()
            return kept[name]

        handles.append(network.model.get_submodule(layer.path).register_forward_hook(keep))
    try:
        with torch.enable_grad():
            scores = network.model(inputs.clone().requires_grad_())[0]
            gradients = [torch.autograd.grad(scores[t], [kept[layer.name] for layer in layers], retain_graph=True) for t in targets]
    finally:
        for handle in handles:
            handle.remove()
    features = {name: value[0].detach() for name, value in kept.items()}
    maps = {
        layer.name: [torch.einsum("k,kuv->uv", g[place][0].mean((1, 2)), features[layer.name]).half() for g in gradients]
        for place, layer in enumerate(layers)
    }  # fmt: skip
    return {name: value.half() for name, value in features.items()}, maps


def boxed_scenes(network: Network, layers: Sequence[Layer], folder: Path, limit: int, index_of: Callable[[str], int]) -> Scenes:
    data = open_ilsvrc(folder)
    names = list(data.images.names)
    if limit < len(names):
        names = sorted(np.random.default_rng(0).choice(names, limit, replace=False).tolist())
    scenes: Scenes = {layer.name: [] for layer in layers}
    for name in names:
        annotation, image = data.annotation(name), open_image(data.images.root / name)
        target = index_of(annotation.synset)
        features, maps = look(network, layers, network.input(image), [target])
        truth = boxes_in_view(annotation.boxes, annotation.size, image.size, network.geometry)
        for layer in layers:
            scenes[layer.name].append(Scene(features[layer.name], (target,), truth, tuple(maps[layer.name]), network.geometry.size))
    return scenes


def mosaic_scenes(network: Network, layers: Sequence[Layer], folder: Path, count: int) -> Scenes:
    folders, size = open_class_folders(folder, network.classes), network.geometry.size
    large = enlarged(MethodSet.of(network, [layers[-1].path], ["gradcam"]), 2 * size)
    assert large is not None

    def view(name: str) -> np.ndarray:
        return np.asarray(network.geometry.view(open_image(folders.images.root / name)))

    def usable(name: str, target: int) -> bool:
        f = network.probabilities(to_input(view(name), network.geometry))[0]
        return int(f.argmax()) == target and float(f[target]) >= 0.9

    scenes: Scenes = {layer.name: [] for layer in layers}
    for half in (0, 1):
        classes = [c for c in folders.by_class if c % 2 == half]
        for mosaic in draw_mosaics(folders, usable, classes, 2, count // 2, half):
            inputs = to_input(join([view(name) for name in mosaic.names], 2), large.network.geometry)
            features, maps = look(network, layers, inputs, mosaic.targets)
            for layer in layers:
                truth = tuple(range(4))
                scenes[layer.name].append(Scene(features[layer.name], mosaic.targets, truth, tuple(maps[layer.name]), 2 * size))
    return scenes


def judge(boxed: list[Scene], mosaics: list[Scene], importance: Importance) -> dict[str, Any]:
    """By share of contrast (and Grad-CAM): what it reaches, and the difference to Grad-CAM with its 95% interval."""
    boxed, mosaics = ([_single(scene) for scene in scenes] for scenes in (boxed, mosaics))
    halves = {"choose": 0, "confirm": 1, "all": None}
    on_boxes = {name: np.array([half is None or scene.rows[0] % 2 == half for scene in boxed], bool) for name, half in halves.items()}
    on_grids = {name: np.array([half is None or scene.rows[0] % 2 == half for scene in mosaics], bool) for name, half in halves.items()}
    ways: dict[str, Tensor | None] = {"gradcam": None}
    other = importance.W if importance.contrast_W is None else importance.contrast_W
    ways |= {f"contrast {importance.contrast * share:.3g}": torch.lerp(importance.W, other, share) for share in SHARES}
    found: dict[str, Any] = {}
    base = (*judge_boxes(boxed, None), judge_mosaics(mosaics, None))
    for way, W in ways.items():
        right, energy, grid = base if W is None else (*judge_boxes(boxed, W), judge_mosaics(mosaics, W))
        found[way] = {}
        for half in halves:
            b, m = on_boxes[half], on_grids[half]
            found[way][half] = {
                "boxes": float(right[b].mean(0).max()), "boxes_difference": float(right[b].mean(0).max() - base[0][b].mean(0).max()),
                "boxes_interval": box_interval(right[b], base[0][b]), "energy": float(energy[b].mean()),
                "energy_difference": float((energy - base[1])[b].mean()), "energy_interval": interval((energy - base[1])[b]),
                "grid": float(grid[m].mean()), "grid_difference": float((grid - base[2])[m].mean()), "grid_interval": interval((grid - base[2])[m]),
                "images": int(b.sum()), "mosaics": int(m.sum()),
            }  # fmt: skip
    return found


def _single(scene: Scene) -> Scene:
    return Scene(scene.features.float(), scene.rows, scene.truth, tuple(one.float() for one in scene.gradcam), scene.size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = parser.add_argument
    add("work", type=Path)
    add("--network", default="efficientnet_lite0")
    add("--checkpoint", type=Path, default=None)
    add("--layers", nargs="+", required=True)
    add("--importance", type=Path, default=None)
    add("--images", type=int, default=240)
    add("--mosaics", type=int, default=40)
    add("--json", type=Path, default=None)
    options = parser.parse_args()
    prepare(options.work)
    network = chipcore.load_network(options.network, **({"checkpoint": options.checkpoint} if options.checkpoint else {}))
    layers = [network.layer(name) for name in options.layers]
    boxed = boxed_scenes(network, layers, options.work / "ilsvrc", options.images, network.classes.synsets.index)
    mosaics = mosaic_scenes(network, layers, options.work / "unseen", options.mosaics)
    result = {}
    for layer in layers:
        result[layer.name] = judge(boxed[layer.name], mosaics[layer.name], load_importance(network, layer.name, options.importance))
        for way, halves in result[layer.name].items():
            at = halves["all"]
            print(f"{layer.name} {way}: boxes {at['boxes']:.1%}, energy {at['energy']:.1%}, grid {at['grid']:.1%}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
