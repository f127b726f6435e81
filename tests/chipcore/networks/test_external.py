"""Networks of one's own: somebody else's module, a checkpoint, labels, a sheet; and what is refused."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from chipcore.errors import CheckpointError, ChipError, DataError, SettingsError, UnknownName
from chipcore.images import open_image
from chipcore.networks import Network, load_network, torchvision_import
from chipcore.networks.external import recipe
from chipcore.networks.layer_discovery import discover
from chipcore.networks.registry import REGISTRY
from conftest import ROOT, TinyNet

# What we see on the ten images; any of these among the first five is right.
SCENES = {
    "mseg_ADE20K_2016_07_26/ADEChallengeData2016/images/training/ADE_train_00000001.jpg": (
        "airport_terminal",
        "lobby",
        "train_station/platform",
    ),
    "sceneparsing/sampleData/images/ADE_val_00000001.jpg": ("house", "cottage", "manufactured_home", "farm", "schoolhouse", "mansion"),
    "sceneparsing/sampleData/images/ADE_val_00000003.jpg": ("street", "crosswalk", "highway", "residential_neighborhood", "gas_station"),
    "sceneparsing/sampleData/images/ADE_val_00000002.jpg": ("tower", "church/outdoor", "palace", "mosque/outdoor", "castle"),
    "houston/pics/ADE_train_00000036.jpg": ("bathroom",),
    "dataset/ADE20K_2021_17_01/images/ADE/training/urban/street/ADE_train_00016900.jpg": ("street", "crosswalk", "downtown", "plaza"),
    "train_photos/training_ADE_train_00000191.jpg": ("beach", "coast", "ocean"),
    "train_photos/training_ADE_train_00000569.jpg": ("cliff", "coast", "ocean", "islet"),
    "train_photos/training_ADE_train_00001271.jpg": ("alley",),
    "train_photos/training_ADE_train_00003132.jpg": ("beach", "coast", "ocean"),
}


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current directory is that of somebody else's code."""
    monkeypatch.chdir(ROOT / "tests" / "helpers" / "somebody")
    yield
    sys.modules.pop("places_squeezenet", None)


@pytest.fixture
def places(somebody: None, data: Path) -> Network:
    networks = data / "networks"
    return load_network(
        "places_squeezenet:build",
        checkpoint=networks / "squeezenet_places365.pth",
        labels=networks / "categories_places365.txt",
        fit="squash",
    )


def test_somebody_elses_places365_network_sees_the_scenes(places: Network, data: Path) -> None:
    assert places.name == "places_squeezenet:build" and len(places.classes) == 365
    inputs = torch.cat([places.input(open_image(data / "ade20k" / file)) for file in SCENES])
    best = places.probabilities(inputs).topk(5).indices
    right = [bool({places.classes.names[int(i)] for i in row} & set(names)) for row, names in zip(best, SCENES.values(), strict=True)]
    assert sum(right) >= 8, dict(zip(SCENES, right, strict=True))


def test_its_layers_are_the_last_at_every_stride(places: Network) -> None:
    assert [(at.name, at.path, at.channels, at.height) for at in places.layers] == [
        ("stride2", "features.1", 64, 112), ("stride4", "features.4", 128, 55), ("stride8", "features.7", 256, 27), ("stride16", "features.12", 512, 13),
    ]  # fmt: skip
    assert str(ROOT / "tests" / "helpers" / "somebody") not in sys.path
    assert places.id.startswith("places_squeezenet:build-")


def test_what_somebodys_code_may_do_wrong(somebody: None, data: Path) -> None:
    for name, sentence in (
        ("no_such_module:build", "there is no module 'no_such_module'"),
        ("places_squeezenet:bild", "did you mean build"),
        ("places_squeezenet:broken", "failed .RuntimeError: no such drive"),
        ("places_squeezenet:words", "gave a str, not a torch.nn.Module"),
    ):
        with pytest.raises(ChipError, match=sentence):
            load_network(name)
    with pytest.raises(ChipError, match="fails on an input of 3 x 9 x 9 .*--size"):
        load_network("places_squeezenet:build", size=9)


def save(model: nn.Module, path: Path) -> Path:
    torch.save(model.state_dict(), path)
    return path


def labels(path: Path, count: int) -> Path:
    path.write_text("".join(f"place {chr(97 + i // 26)}{chr(97 + i % 26)}\n" for i in range(count)))
    return path


@pytest.mark.slow
def test_inception_of_365_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # As somebody trains it: with the auxiliary head.
    model = torchvision_import.models.inception_v3(weights=None, aux_logits=True, num_classes=365, init_weights=False)
    file = save(model, tmp_path / "places.pth")
    with pytest.raises(CheckpointError, match="other shapes for .*it seems to have 365 classes, not 1000: give their names with --labels"):
        load_network("inception_v3", checkpoint=file)
    network = load_network("inception_v3", checkpoint=file, labels=labels(tmp_path / "l.txt", 365))
    assert len(network.classes) == 365 and network.geometry.size == 299
    assert [at.name for at in network.layers] == [at.name for at in REGISTRY["inception_v3"].depths]


def test_a_torchvision_name_outside_the_table(tmp_path: Path) -> None:
    file = save(torchvision_import.models.shufflenet_v2_x0_5(num_classes=12), tmp_path / "w.pth")
    network = load_network("shufflenet_v2_x0_5", checkpoint=file, labels=labels(tmp_path / "l.txt", 12), size=96)
    assert [at.stride for at in network.layers] == sorted(at.stride for at in network.layers) and network.layers[-1].height == 3
    assert network.geometry.size == 96 and network.geometry.resize == round(96 * 256 / 224)
    with pytest.raises(ChipError, match="squeezenet1_1 fails on an input of 3 x 9 x 9"):
        load_network("squeezenet1_1", size=9, checkpoint=save(torchvision_import.models.squeezenet1_1(), tmp_path / "s.pth"))
    with pytest.raises(UnknownName, match="did you mean shufflenet"):
        load_network("shufflenet_v3")


# --- the sheet beside a checkpoint ------------------------------------------------------------------------

SHEET = """
network = "squeezenet1_1"
labels = "names.txt"
size = 64
fit = "squash"
mean = [0.5, 0.4, 0.3]
std = [0.2, 0.2, 0.2]
interpolation = "bicubic"
[layers]
early = "features.1"
late = "features.12"
"""


def test_a_sheet_says_it_all_and_flags_win(tmp_path: Path) -> None:
    file = save(torchvision_import.models.squeezenet1_1(num_classes=4), tmp_path / "trees.pth")
    labels(tmp_path / "names.txt", 4)
    (tmp_path / "trees.toml").write_text(SHEET)
    network = load_network(checkpoint=file)
    assert network.name == "squeezenet1_1" and network.classes.names[3] == "place ad"
    assert [(at.name, at.path) for at in network.layers] == [("early", "features.1"), ("late", "features.12")]
    geometry = network.geometry
    assert (geometry.size, geometry.fit, geometry.mean, geometry.interpolation) == (64, "squash", (0.5, 0.4, 0.3), "bicubic")
    other = load_network(checkpoint=file, size=96, mean=[0.1], fit="crop", layers={"only": "features.7"})
    assert (other.geometry.size, other.geometry.mean, other.geometry.fit, other.geometry.std) == (96, (0.1,) * 3, "crop", (0.2,) * 3)
    assert [at.name for at in other.layers] == ["only"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("size = ", "is not TOML"),
        ("colour = 1", "has the key 'colour'; known: network, labels"),
        ('size = "64"', "size must be a whole number"),
        ("mean = 1", "mean must be a list"),
        ("mean = [0.1, 0.2]\nnetwork = 'squeezenet1_1'", "mean has 2 values"),
        ("size = 0\nnetwork = 'squeezenet1_1'", "size is 0"),
        ("fit = 'stretch'\nnetwork = 'squeezenet1_1'", "fit is 'stretch'; give squash or crop"),
        ('network = "places_squeezenet:build"', "may not name code to import"),
        ("size = 64", "no network is named"),
        ("network = 'squeezenet1_1'\nlabels = 'gone.txt'", "no file of labels .*gone.txt"),
    ],
)
def test_sheets_that_are_refused(tmp_path: Path, text: str, sentence: str, somebody: None) -> None:
    file = save(nn.Linear(2, 2), tmp_path / "w.pth")
    (tmp_path / "w.toml").write_text(text)
    with pytest.raises((SettingsError, ChipError, DataError), match=sentence) as caught:
        load_network(checkpoint=file)
    assert "places_squeezenet" not in sys.modules and "\n" not in str(caught.value)


def test_checkpoints_that_do_not_fit(tmp_path: Path, places: Network) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(torchvision_import.models.squeezenet1_1(num_classes=4), whole)
    with pytest.raises(CheckpointError, match="pickled code"):
        load_network("squeezenet1_1", checkpoint=whole)
    weights = places.model.state_dict()
    del weights["features.3.squeeze.weight"], weights["classifier.1.bias"]
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="it lacks classifier.1.bias, features.3.squeeze.weight;"):
        load_network("places_squeezenet:build", checkpoint=tmp_path / "w.pth")


# --- transformers and the untraceable ---------------------------------------------------------------------


class Patches(nn.Module):
    """A small vision transformer: a patch embedding, then tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.position = nn.Parameter(torch.zeros(1, 16, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.patch(x).flatten(2).transpose(1, 2) + self.position).mean(1))


def wrap(model: nn.Module, at: str) -> Network:
    from chipcore.datasets.class_names import numbered
    from chipcore.images import InputGeometry

    return Network.wrap(model, name="vit", layers=(("at", at),), geometry=InputGeometry(size=32, resize=32), classes=numbered(5))


@pytest.mark.filterwarnings("ignore:.*cannot be traced")
def test_a_transformers_layer_is_refused_with_the_reason() -> None:
    network = wrap(Patches().eval(), "patch")
    with pytest.raises(ChipError, match=r"layer 'block' gives tokens \(batch x 16 x 16\), as a transformer does, not feature maps"):
        network.layer("block")


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last, self.head = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_channels_last_are_read_as_feature_maps() -> None:
    model = ChannelsLast().eval()
    assert discover(model, 32, "net") == (("stride4", "last"),)
    network = wrap(model, "last")
    assert (network.layers[0].channels, network.layers[0].height) == (6, 8)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gates = torch.tensor([[[1.0, 0, 1, 1, 0, 1]], [[0.0, 1, 1, 0, 1, 1]]])
    with torch.inference_mode():
        seen = network.forward_prefix(images)
        suffix = network.suffix(network.layers[0])
        got = suffix.scores(suffix.prepare(seen.features["last"]), seen.side_inputs["last"], gates)[:, 0]
        features = model.last(model.conv(images).permute(0, 2, 3, 1))
        torch.testing.assert_close(seen.features["last"], features.permute(0, 3, 1, 2))
        torch.testing.assert_close(got, model.head((features * gates[:, :, None]).mean((1, 2))), rtol=1e-4, atol=1e-5)


class Untraceable(TinyNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.mean() > -1e9 else -x)


def test_layers_are_found_without_a_graph_too() -> None:
    model = Untraceable().eval()
    assert discover(model, 8, "tiny") == (("stride1", "second"),)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ChipError, match="flat has no feature maps"):
        discover(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), 8, "flat")


# --- timm -------------------------------------------------------------------------------------------------


def test_timm_is_asked_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, object]] = []

    def create_model(name: str, **options: object) -> nn.Module:
        asked.append({"name": name, **options})
        return TinyNet(classes=int(str(options.get("num_classes", 1000))))

    timm = types.ModuleType("timm")
    config = types.SimpleNamespace(
        input_size=(3, 160, 160), crop_pct=0.8, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", num_classes=1000
    )
    timm.create_model, timm.list_models, timm.get_pretrained_cfg = create_model, lambda: ["tinynet_e"], lambda _name: config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    file = save(TinyNet(classes=3), tmp_path / "w.pth")
    network = load_network("timm:tinynet_e", checkpoint=file, labels=labels(tmp_path / "l.txt", 3), layers={"a": "first"})
    assert asked == [{"name": "tinynet_e", "pretrained": False, "num_classes": 3}]
    assert (network.geometry.size, network.geometry.resize, network.geometry.interpolation) == (160, 200, "bicubic")
    with pytest.raises(UnknownName, match="timm network"):
        recipe("timm:none", REGISTRY, True)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ChipError, match="pip install timm"):
        load_network("timm:tinynet_e")
