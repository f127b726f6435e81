"""One network of every family: a quick local fit explains a real image on the command line, on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from chipcore.cli.main import main
from chipcore.networks import REGISTRY

PHOTOGRAPH = Path(skimage.__file__).parent / "data" / "chelsea.png"
# With the side of input at which the family still runs and its deepest map has more than a pixel, to be quick.
FAMILIES = {
    "vgg11_bn": 64, "inception_v3": 107, "googlenet": 64, "resnet18": 64, "squeezenet1_1": 64, "mobilenet_v3_small": 64, "densenet121": 64,
    "efficientnet_b0": 64, "convnext_tiny": 64, "efficientnet_lite1": 64,
}  # fmt: skip
WITH_WEIGHTS = ("efficientnet_lite0", "vgg16_slim")


def calibrate(model: torch.nn.Module, side: int) -> None:
    """Batch norm as after training: without it, random weights shrink everything until no channel moves a score."""
    norms = [one for one in model.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    for one in norms:
        one.momentum = None  # the average of what it sees
        one.train()
    image = Image.open(PHOTOGRAPH).convert("RGB")
    views = [image.crop((at, 0, at + 300, 300)).resize((side, side)) for at in (0, 100)]
    with torch.no_grad():
        model(torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) / 127.5 - 1 for one in views]))
    for one in norms:
        one.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, *WITH_WEIGHTS])
def test_local_chip_explains_a_image(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights are random where none can be had: with them the map means nothing, but everything must run."""
    entry = REGISTRY[name]
    given: list[str] = []
    if name in FAMILIES:
        torch.manual_seed(0)
        model = entry.build(classes=5)
        calibrate(model, FAMILIES[name])
        torch.save(model.state_dict(), tmp_path / "w.pth")
        (tmp_path / "names.txt").write_text("ape\nbee\ncat\ndog\nelk\n")
        given = ["--checkpoint", str(tmp_path / "w.pth"), "--labels", str(tmp_path / "names.txt"), "--size", str(FAMILIES[name])]
    layer = entry.depths[len(entry.depths) // 2].name
    status = main(
        ["explain", str(PHOTOGRAPH), "--network", name, *given, "--layer", layer, "--class", "1", "--method", "local_chip", "--option", "gates=12",
         "--device", "cpu", "--out", str(tmp_path / "map.png"), "--json"]
    )  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert status == 0 and told["state"] in ("ok", "no positive part") and told["passes"] == 13
    assert told["network"] == name and told["layer"] == layer and min(told["map"]) > 1
    assert told["minimum"] < told["maximum"]
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_every_family_of_the_table_is_here() -> None:
    def family(name: str) -> str:
        return name.rstrip("0123456789").removesuffix("_bn").rstrip("0123456789_").split("_")[0]

    told = {family(name) for name in (*FAMILIES, *WITH_WEIGHTS)}
    assert {family(name) for name in REGISTRY} <= told
