"""A network that sees nothing but color, so that every map and every figure can be worked out by hand."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from chipcore.datasets.class_names import Classes
from chipcore.images import InputGeometry
from chipcore.importance import Importance, describe
from chipcore.networks import Network

SIZE = 16
SYNSETS = ("n00000001", "n00000002", "n00000003")
RED, GREEN, BLUE = range(3)


def color_network(names: tuple[str, ...] = ("red", "green", "blue"), synsets: tuple[str, ...] = SYNSETS) -> Network:
    """f^c is the softmax of 40 x the mean of color c; the features are the colors themselves, pixel by pixel."""
    model = nn.Sequential(OrderedDict(
        mix=nn.Conv2d(3, 3, 1), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), classifier=nn.Linear(3, 3)
    ))  # fmt: skip
    with torch.no_grad():
        model.mix.weight.copy_(torch.eye(3)[..., None, None])
        model.classifier.weight.copy_(40 * torch.eye(3))
        model.mix.bias.zero_()
        model.classifier.bias.zero_()
    geometry = InputGeometry(size=SIZE, resize=SIZE, fit="squash", mean=(0.0,) * 3, std=(1.0,) * 3)
    return Network.wrap(model, name="colours", layers=(("colours", "relu"),), geometry=geometry, classes=Classes(names, synsets))


def save_w(network: Network, folder: Path, rows: tuple[int, ...] = (RED, GREEN, BLUE), weak: tuple[int, ...] = ()) -> Path:
    """W that gives every color its own channel; rows that are not listed are not fitted."""
    there = torch.tensor([float(c in rows) for c in range(3)])
    loyalty = torch.tensor([1.0 if c in weak else 50.0 for c in range(3)]) * there
    Importance(
        torch.eye(3) * there[:, None], torch.ones(3), there, 50 * there, loyalty, describe(network, network.layers[0], settings={})
    ).save(folder)
    return folder


def patch(color: int, box: tuple[int, int, int, int], size: int = SIZE) -> np.ndarray:
    """A black picture with one colored rectangle, both ends of the box inside."""
    picture = np.zeros((size, size, 3), np.uint8)
    x0, y0, x1, y1 = box
    picture[y0 : y1 + 1, x0 : x1 + 1, color] = 255
    return picture


def save_png(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def xml(synset: str, boxes: list[tuple[int, int, int, int]], size: tuple[int, int] = (SIZE, SIZE)) -> str:
    objects = "".join(
        f"<object><name>{synset}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>{objects}</annotation>"
