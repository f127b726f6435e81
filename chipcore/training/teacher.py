"""What a pretrained network knows about the training images, computed once and read at every crop.

One pass keeps, for every image, the teacher's last feature maps, reduced to a few principal
directions. A random crop of the image cuts the same crop out of the maps: their average over the crop,
through a linear map fitted to the class folders, gives soft targets for what the crop shows (label
maps: Yun et al. 2021, ReLabel), and the maps themselves are something to imitate place by place (FitNets:
Romero et al. 2015). Both teach where things are, not only that they are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from chipcore.datasets.image_set import batches
from chipcore.errors import ChipError
from chipcore.networks import Network
from chipcore.storage import write_whole
from chipcore.training.photographs import ClassFolders

DIRECTIONS = 128
MULTIPLIES_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # names of instructions, as PyTorch tells them


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the device multiplies it, else nothing.

    A processor without the instructions emulates them: on an AVX2 processor a training step took 17.8 s in bfloat16 and 1.6 s in
    float32, the teacher's pass over 13,564 images 148 and 12 minutes.
    """
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu" or any(known.get(one) for one in MULTIPLIES_BFLOAT16))


@dataclass(frozen=True)
class Guide:
    """A teacher's maps (n, D, u, v) in float16, centerd, and its class scores ``weight`` (C, D), ``bias`` (C)."""

    maps: Tensor
    weight: Tensor
    bias: Tensor

    def scores(self, maps: Tensor) -> Tensor:
        """Class scores (B, C) of the average of maps (B, D, u, v)."""
        return functional.linear(maps.mean((2, 3)), self.weight, self.bias)

    def to(self, device: torch.device) -> Guide:
        """The linear map on another device; the maps stay where there is room for them."""
        return Guide(self.maps, self.weight.to(device), self.bias.to(device))

    def save(self, path: Path, run: str) -> None:
        content = {"maps": self.maps, "weight": self.weight, "bias": self.bias, "run": run}
        write_whole(path, lambda temporary: torch.save(content, temporary))

    @classmethod
    def load(cls, path: Path, run: str) -> Guide | None:
        """The guide in a file, or None where there is none, or that of another run."""
        if not path.is_file():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            return cls(content["maps"], content["weight"], content["bias"]) if content["run"] == run else None
        except Exception:  # torch raises many types for a damaged file; what it holds can be computed again
            return None


def guide(network: Network, folders: ClassFolders, report: Callable[[str, int, int], None] | None = None, balance: float = 1.0) -> Guide:
    """The maps of ``network`` at its deepest layer for every image, and a linear map from them to the classes.

    The principal directions are those of the pooled features of the first images of every class; what
    could not be read has maps of zeros. The linear map is a ridge-penalised logistic regression in which a class counts by
    its number of images to the power ``balance``.
    """
    names = folders.images.names
    layer = network.layers[-1]
    position = {name: index for index, name in enumerate(names)}
    order = _spread(folders.labels)
    first = order[: min(len(order), max(4 * DIRECTIONS, 64 * len(folders.classes)))].tolist()
    with torch.inference_mode(), mixed_precision(network.device):
        sample = torch.cat(
            [_maps(network, batch.views) for batch in batches(folders.images, [names[i] for i in first], network.geometry, 32)]
        )
    vectors = sample.movedim(1, -1).reshape(-1, layer.channels).float()
    mean = vectors.mean(0)
    _values, directions = torch.linalg.eigh((vectors - mean).T @ (vectors - mean))
    basis = directions[:, -min(DIRECTIONS, layer.channels) :].flip(1)
    maps = torch.zeros(len(names), basis.shape[1], *sample.shape[-2:], dtype=torch.float16)
    scale = ((vectors - mean) @ basis).std()
    done = 0
    for batch in batches(folders.images, names, network.geometry, 32):
        with torch.inference_mode(), mixed_precision(network.device):
            features = _maps(network, batch.views) if batch.names else sample[:0]
        features = torch.einsum("bkuv,kd->bduv", features.float() - mean[:, None, None], basis) / scale
        for name, one in zip(batch.names, features, strict=True):
            maps[position[name]] = one.half()
        done += len(batch.names) + len(batch.unreadable)
        if report:
            report("teacher", done, len(names))
    if not maps.any():
        raise ChipError(f"{network.name} sees nothing in these photographs; choose another teacher.")
    labeled = folders.labels >= 0
    return Guide(maps, *_logistic(maps[labeled].float().mean((2, 3)), folders.labels[labeled], len(folders.classes), balance))


def _maps(network: Network, views: Tensor) -> Tensor:
    layer = network.layers[-1]
    return network.forward_prefix(network.geometry.normalize(views.to(network.device)), (layer,)).features[layer.path].cpu()


def _spread(labels: Tensor) -> Tensor:
    """All positions, ordered so that any beginning holds the classes in like numbers."""
    rank = torch.zeros_like(labels)
    for label in labels.unique():
        which = (labels == label).nonzero().flatten()
        rank[which] = torch.arange(len(which))
    return rank.argsort(stable=True)


def _logistic(features: Tensor, labels: Tensor, classes: int, balance: float = 1.0, penalty: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and bias (C) of a multinomial logistic regression on features (n, D)."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).float()
    share = counts ** (balance - 1)  # of one photograph of the class
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(functional.linear(features, weight, bias), labels, share) + penalty * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()
