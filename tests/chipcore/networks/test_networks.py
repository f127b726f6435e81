"""The registry: layers, classes, weights, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from chipcore.datasets.class_names import Classes, imagenet
from chipcore.errors import CheckpointError, ChipError, UnknownName
from chipcore.images import open_image
from chipcore.networks import REGISTRY, Network, load_network


def test_lite0_has_six_depths_at_strides_2_to_32(lite0: Network) -> None:
    assert [layer.name for layer in lite0.layers] == ["stage1", "stage2", "stage3", "stage4", "stage5", "head"]
    assert [layer.stride for layer in lite0.layers] == [2, 4, 8, 16, 32, 32]
    assert lite0.layers[-1].channels == 1280
    assert lite0.weights_sha256.startswith("3ae2c6003f5e"), "the published weights; bundled W hangs on this"
    assert not lite0.model.training and not any(p.requires_grad for p in lite0.model.parameters())


@pytest.mark.parametrize(("name", "reached"), [("lite0", 0.80), ("squeezenet", 0.69)])
def test_top_1_on_real_images(name: str, reached: float, request: pytest.FixtureRequest, data: Path) -> None:
    """A sample of 130 ILSVRC validation images; README has the figures of all 650."""
    network: Network = request.getfixturevalue(name)
    rows = [line.split(",")[:2] for line in (data / "ilsvrc_val_dev" / "LOC_val_solution.csv").read_text().splitlines()[1::5]]
    right = 0
    for start in range(0, len(rows), 26):
        some = rows[start : start + 26]
        inputs = torch.stack(
            [network.geometry.tensor(open_image(data / "ilsvrc_val_dev/Data/CLS-LOC/val" / f"{image}.JPEG")) for image, _ in some]
        )
        predicted = network.probabilities(inputs).argmax(1)
        right += sum(network.classes.synsets[int(p)] == truth.split()[0] for p, (_, truth) in zip(predicted, some, strict=True))
    assert right / len(rows) >= reached - 0.05, f"{right} of {len(rows)}"


def test_layers_by_name_path_and_mistake(squeezenet: Network) -> None:
    assert squeezenet.layer("features.12") == squeezenet.layer("fire9")
    assert squeezenet.layer("features.11").channels == 512, "any module that gives feature maps has a layer"
    with pytest.raises(UnknownName, match=r"did you mean fire9.*fire9 \(512 channels, 13 x 13\)"):
        squeezenet.layer("fire99")


def test_classes_by_index_synset_and_name() -> None:
    classes = imagenet()
    assert len(classes) == 1000
    assert (
        classes.index(340) == classes.index("340") == classes.index("zebra") == classes.index("n02391049") == classes.index("ZEBRA") == 340
    )
    assert classes.index("tree-frog") == classes.index("Tree_Frog") == 31
    with pytest.raises(ChipError, match=r"names 2 classes: 134 \(crane\), 517 \(crane\)"):
        classes.index("crane")
    with pytest.raises(ChipError, match="did you mean bullfrog, tree frog, tailed frog"):
        classes.index("frog")
    with pytest.raises(ChipError, match="zebra"):
        classes.index("zebbra")
    for outside in (-1, 1000, "1000"):
        with pytest.raises(ChipError, match="0 to 999"):
            classes.index(outside)
    assert len(set(classes.labels)) == 1000, "every label tells its class from all others"
    with pytest.raises(ChipError, match="synset"):
        Classes(("a", "b"), ("n1",))


def test_torchvisions_own_class_names_are_in_our_order() -> None:
    from chipcore.networks import torchvision_import

    names = torchvision_import.models.get_model_weights("squeezenet1_0").DEFAULT.meta["categories"]
    ours = imagenet().names
    agree = sum(
        theirs.lower() in name.lower() or name.split(",")[0].lower() in theirs.lower() for theirs, name in zip(names, ours, strict=True)
    )
    assert agree > 985


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.trace}'",)


def test_checkpoints_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="efficientnet_lite0"):
        load_network("efficientnet_lite")
    bomb = tmp_path / "bomb.pth"
    bomb.write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    whole = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 2), whole)  # a whole module, which is pickled code
    for file in (bomb, whole):
        with pytest.raises(CheckpointError, match="pickled code|cut short"):
            load_network("squeezenet1_0", checkpoint=file)
    assert not (tmp_path / "trace").exists()
    good = REGISTRY["squeezenet1_0"].build().state_dict()
    path = tmp_path / "w.pth"
    for content, sentence in (
        ({**good, "more": torch.zeros(1)}, "too many: more"),
        ({k: v for k, v in good.items() if k != "classifier.1.bias"}, "lacks classifier.1.bias"),
        ({**good, "classifier.1.bias": torch.zeros(365)}, "other shapes for classifier.1.bias"),
        ({**good, "classifier.1.bias": torch.full((1000,), float("nan"))}, "NaN or infinity"),
        ([1, 2], "no state_dict"),
    ):
        torch.save(content, path)
        with pytest.raises(ChipError, match=sentence):
            load_network("squeezenet1_0", checkpoint=path)
    torch.save(good, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cut short"):
        load_network("squeezenet1_0", checkpoint=path)
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        load_network("squeezenet1_0", checkpoint=tmp_path / "none.pth")


def test_checkpoint_wrappings_are_seen_through(tmp_path: Path) -> None:
    good = REGISTRY["squeezenet1_0"].build().state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in good.items()}}, tmp_path / "w.pth")
    network = load_network("squeezenet1_0", checkpoint=tmp_path / "w.pth")
    assert torch.equal(network.model.state_dict()["classifier.1.bias"], good["classifier.1.bias"])


def test_missing_weights_say_which_file_goes_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def no_internet(*_args: object, **_kwargs: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_internet)
    for download in (True, False):
        with pytest.raises(CheckpointError, match="put squeezenet1_0-b66bff10.pth .* into .*checkpoints"):
            load_network("squeezenet1_0", download=download)
