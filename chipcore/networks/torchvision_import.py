"""The one place that imports torchvision.

torchvision's compiled extension only loads next to the very torch build it was compiled for. Where the
two differ (a CPU torch beside the CUDA torchvision, the usual accident) ``import torchvision`` dies with
``operator torchvision::nms does not exist``, although nothing here needs a compiled operator. Declaring
the two schemas that torchvision registers Python kernels for lets the pure-Python part (models, weight
metadata, transforms) import. Where the extension does load, nothing is declared.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

# The operators that torchvision/_meta_registrations.py and friends look up while they are imported.
_SCHEMAS = (
    ("nms", "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ("qnms", "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
)
_library: torch.library.Library | None = None  # the declaration lives as long as this object
_lock = threading.Lock()


def extension_loads() -> bool:
    """Whether torchvision's compiled extension can be loaded next to the installed torch."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    folder = Path(spec.origin).parent
    candidates = [*folder.glob("_C*.so"), *folder.glob("_C*.pyd"), *folder.glob("_C*.dylib")]
    for candidate in candidates:
        try:
            torch.ops.load_library(candidate)
        except (OSError, RuntimeError):
            continue
        return True
    return False


def declare_missing_operators() -> bool:
    """Declare torchvision's operator schemas if its extension can't be loaded; True where it did so."""
    global _library
    with _lock:  # two visitors may be the first to ask, and a second declaration is refused
        if _library is not None:
            return True
        if extension_loads():
            return False
        library = torch.library.Library("torchvision", "DEF")
        for _name, schema in _SCHEMAS:
            library.define(schema)
        _library = library
        return True


def load() -> ModuleType:
    """torchvision, importable whether or not its compiled extension is."""
    declare_missing_operators()
    return importlib.import_module("torchvision")


def __getattr__(name: str) -> ModuleType:
    """``models``, ``transforms`` and ``torchvision`` itself, imported when first asked for: it takes seconds."""
    if name == "torchvision":
        return load()
    if name in ("models", "transforms"):
        load()
        return importlib.import_module(f"torchvision.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    torchvision: Any
    models: Any
    transforms: Any

__all__ = ["declare_missing_operators", "extension_loads", "load", "models", "torchvision", "transforms"]
