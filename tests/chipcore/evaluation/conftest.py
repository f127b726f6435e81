"""Fixtures of the evaluation's tests: the color network, rivals with known maps, and an annotated folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from color_world import BLUE, GREEN, RED, SYNSETS, color_network, patch, save_png, xml

from chipcore.methods import METHODS
from chipcore.methods.base import Explanation, Method, MethodInputs, Properties
from chipcore.networks import Network


@pytest.fixture
def colors() -> Network:
    return color_network()


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods with known maps: 'gradcam' is CHIP's map turned upside down, 'blank' shows nothing."""

    def upside_down(request: MethodInputs) -> Explanation:
        features = request.known_activations().features[request.layer.path][0]
        return Explanation(features[request.target % len(features)].flip(0), passes=1)

    def blank(request: MethodInputs) -> Explanation:
        return Explanation(torch.full((4, 4), float("nan")), passes=1)

    for name, compute in (("gradcam", upside_down), ("blank", blank)):
        monkeypatch.setitem(METHODS, name, Method(name, name, "this test", Properties(), compute))


@pytest.fixture
def ilsvrc_folder(tmp_path: Path) -> Path:
    """Two images with annotations (one in another size), one whose XML is missing, one whose XML is broken, one that is no picture."""
    root = tmp_path / "ilsvrc"
    images, annotations = root / "Data/CLS-LOC/val", root / "Annotations/CLS-LOC/val"
    annotations.mkdir(parents=True)
    save_png(patch(RED, (2, 2, 7, 5)), images / "a.png")
    (annotations / "a.xml").write_text(xml(SYNSETS[RED], [(2, 2, 7, 5)]))
    save_png(patch(GREEN, (8, 9, 15, 15)), images / "b.png")
    (annotations / "b.xml").write_text(xml(SYNSETS[GREEN], [(80, 45, 159, 79)], size=(160, 80)))  # ten and five times as large
    save_png(patch(BLUE, (0, 0, 3, 3)), images / "c.png")
    save_png(patch(BLUE, (0, 0, 3, 3)), images / "d.png")
    (annotations / "d.xml").write_text("<annotation><size>")
    (images / "e.png").write_text("no picture")
    (annotations / "e.xml").write_text(xml(SYNSETS[RED], [(0, 0, 3, 3)]))
    return root
