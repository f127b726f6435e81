"""The sheet beside a checkpoint: a small TOML file with what the tensors alone do not say.

``flowers.pth`` is described by ``flowers.toml``, all keys optional::

    network = "inception_v3"        # a registry, torchvision or timm name
    labels = "flowers.txt"          # beside the TOML
    size = 299                      # side of the input in pixels, or [height, width]
    fit = "crop"                    # or "squash"
    resize = 342                    # side the short edge gets before the crop
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
    interpolation = "bilinear"      # or "bicubic"
    outputs = "logits"              # or "probabilities", "multilabel", "binary", "auto"
    [layers]
    last = "Mixed_7c"

A ``module:factory`` is not accepted as ``network`` here: importing somebody's code is for the command line
to say, not for a file that came with the weights.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from chipcore.errors import SettingsError
from chipcore.images import Fit, InputGeometry
from chipcore.storage import is_file

Layers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CheckpointConfig:
    """What is said about a network of one's own; None or empty: not said. Lengths are in pixels."""

    network: str | None = None
    labels: Path | None = None
    size: int | tuple[int, ...] | None = None
    fit: str | None = None
    resize: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    layers: Layers = ()
    outputs: str | None = None

    def over(self, other: CheckpointConfig) -> CheckpointConfig:
        """This sheet, with what it doesn't say taken from another."""
        return replace(other, **{key: value for key, value in vars(self).items() if value not in (None, ())})

    def geometry(self, base: InputGeometry) -> InputGeometry:
        """``base`` with what the sheet says; another size keeps the ratio of ``resize`` to ``size``."""
        size, width = (
            base.shape if self.size is None else (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[-1])
        )
        if min(size, width) < 1 or (not isinstance(self.size, int | None) and len(self.size) > 2):
            raise SettingsError(f"size is {self.size}; give the side of the input in pixels, above 0, or its height and width.")
        changes: dict[str, Any] = {"size": size, "width": width, "resize": self.resize or round(size * base.resize / base.size)}
        for key, choices in (("fit", get_args(Fit)), ("interpolation", ("bilinear", "bicubic"))):
            value = getattr(self, key)
            if value is not None and value not in choices:
                raise SettingsError(f"{key} is {value!r}; give {' or '.join(choices)}.")
            if value is not None:
                changes[key] = value
        for key in ("mean", "std"):
            value = getattr(self, key)
            if value is not None and len(value) not in (1, 3):
                raise SettingsError(f"{key} has {len(value)} values; give one for each of red, green and blue.")
            if value is not None:
                changes[key] = tuple(value) * (3 // len(value))
        return replace(base, **changes)


def read_sheet(checkpoint: Path | None) -> CheckpointConfig:
    """The sheet beside a checkpoint, or an empty one. Raises ``SettingsError`` with one sentence."""
    if checkpoint is None:
        return CheckpointConfig()
    stem = checkpoint.with_suffix("") if checkpoint.name.endswith(".pth.tar") else checkpoint
    path = stem.with_suffix(".toml")
    if not is_file(path):
        return CheckpointConfig()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:  # what is no TOML or no UTF-8 is a ValueError
        raise SettingsError(f"{path} is not TOML we can read ({error}); mend it or move it away.") from None
    read: dict[str, Any] = {}
    for key, value in content.items():
        if key not in _KEYS:
            raise SettingsError(f"{path} has the key {key!r}; known: {', '.join(_KEYS)}.")
        fits, wanted = _KEYS[key]
        if not fits(value):
            raise SettingsError(f"{path}: {key} must be {wanted}.")
        read[key] = (
            tuple(value.items()) if key == "layers" else tuple(value) if key in ("mean", "std") or isinstance(value, list) else value
        )
    if ":" in read.get("network", "").removeprefix("timm:"):
        raise SettingsError(f"{path} may not name code to import ({read['network']}); give it as --network.")
    if "labels" in read:
        read["labels"] = path.parent / read["labels"]
    return CheckpointConfig(**read)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _side(value: Any) -> bool:
    return _whole(value) or (isinstance(value, list) and len(value) == 2 and all(_whole(one) for one in value))


def _numbers(value: Any) -> bool:
    return isinstance(value, Sequence) and not _text(value) and all(isinstance(one, int | float) for one in value)


def _table(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_text(one) for one in value.values())


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "network": (_text, "text"), "labels": (_text, "the name of a file"), "size": (_side, "a whole number, or two (height and width)"), "fit": (_text, "squash or crop"),
    "resize": (_whole, "a whole number"), "mean": (_numbers, "a list of numbers"), "std": (_numbers, "a list of numbers"),
    "interpolation": (_text, "bilinear or bicubic"),
    "outputs": (_text, "logits, probabilities, multilabel, binary or auto"), "layers": (_table, "a table of names and module paths"),
}  # fmt: skip
