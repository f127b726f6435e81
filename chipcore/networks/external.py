"""Networks outside the registry: any torchvision classifier, timm's, and somebody's own ``module:factory``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from chipcore.datasets.class_names import Classes, imagenet
from chipcore.errors import CheckpointError, ChipError, UnknownName
from chipcore.images import InputGeometry
from chipcore.networks import torchvision_import
from chipcore.networks.adopted import private_copy, unwrapped
from chipcore.networks.spec import LayerSpec, NetworkSpec, Weights
from chipcore.networks.weights import Torchvision
from chipcore.networks.zoo import build_torchvision, colors, geometry_of


@dataclass(frozen=True)
class ArchitectureSource:
    """How a network is made. ``build`` takes the number of classes, or None where nobody has said it.

    ``weights`` are published ones; None where ``build`` itself gives a network with its weights in it.
    ``classes`` are those of the published weights.
    """

    name: str
    title: str
    build: Callable[[int | None], nn.Module]
    geometry: InputGeometry
    entry: NetworkSpec | None = None
    weights: Weights | None = None
    classes: Callable[[], Classes] | None = None
    depths: tuple[LayerSpec, ...] = ()


def recipe(name: str, registry: dict[str, NetworkSpec], published: bool) -> ArchitectureSource:
    """How the network called ``name`` is made.

    Looked up in this order: the registry, ``timm:NAME``, ``module:factory`` (imported from the current
    directory too, which runs its code), torchvision's classifiers, timm's. ``published`` asks for the
    weights that come with the name.
    """
    if name in registry:
        return _of_entry(registry[name])
    if name.startswith("timm:"):
        return _timm(name, published)
    if ":" in name:
        return _factory(name)
    if name in _torchvision_names():
        return _torchvision(name)
    if importlib.util.find_spec("timm") is not None and name in _import_timm().list_models():
        return _timm(f"timm:{name}", published)
    raise UnknownName(
        "network", name, dict.fromkeys((*registry, *_torchvision_names())), "timm's are timm:NAME, your own is module:factory."
    )


def _of_entry(entry: NetworkSpec) -> ArchitectureSource:
    return ArchitectureSource(
        entry.name, entry.title, lambda count: entry.build(classes=count or len(entry.classes())), entry.geometry,
        entry, entry.weights, classes=entry.classes, depths=entry.depths,
    )  # fmt: skip


def _torchvision_names() -> list[str]:
    return cast(list[str], torchvision_import.models.list_models(module=torchvision_import.models))


def _torchvision(name: str) -> ArchitectureSource:
    preset = torchvision_import.models.get_model_weights(name).DEFAULT.transforms()
    build = build_torchvision(name)
    return ArchitectureSource(
        name, name, lambda count: build(count or 1000), geometry_of(preset), weights=Torchvision(name), classes=imagenet
    )


# --- timm -------------------------------------------------------------------------------------------------


def _import_timm() -> Any:
    torchvision_import.declare_missing_operators()  # timm imports torchvision
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        if error.name not in (None, "timm"):
            raise ChipError(f"timm's networks need {error.name}, which is not installed: pip install {error.name}") from None
        raise ChipError("timm's networks need timm, which is not installed: pip install timm") from None


def _timm(name: str, published: bool) -> ArchitectureSource:
    timm, bare = _import_timm(), name.removeprefix("timm:")
    if bare not in timm.list_models():
        raise UnknownName("timm network", bare, timm.list_models())

    def build(count: int | None) -> nn.Module:
        options = {} if count is None else {"num_classes": count}
        try:
            return cast(nn.Module, timm.create_model(bare, pretrained=published, **options))
        except Exception as error:  # timm asks the Hugging Face hub, which has errors of many types
            raise CheckpointError(f"timm could not make {bare} ({_first_line(error)}); give --checkpoint.") from None

    config = timm.get_pretrained_cfg(bare)
    size = int(config.input_size[-1])
    share = config.crop_pct or 1.0
    bicubic = config.interpolation == "bicubic"
    geometry = InputGeometry(
        size=size, resize=max(size, round(size / share)), mean=colors(config.mean), std=colors(config.std),
        interpolation="bicubic" if bicubic else "bilinear",
    )  # fmt: skip
    return ArchitectureSource(name, bare, build, geometry, classes=imagenet if config.num_classes == 1000 else None)


# --- module:factory ---------------------------------------------------------------------------------------


def _factory(name: str) -> ArchitectureSource:
    module_name, _colon, attribute = name.partition(":")
    torchvision_import.declare_missing_operators()  # it may import torchvision
    here = str(Path.cwd())
    sys.path.insert(0, here)  # as `python -m` would have it
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = (
            f"module {module_name!r}"
            if error.name and module_name.startswith(error.name)
            else f"module {error.name!r}, which {module_name} needs"
        )
        raise ChipError(f"there is no {missing}; run from the folder that holds it, or install it.") from None
    except Exception as error:  # somebody's code may raise anything
        raise ChipError(f"importing {module_name} failed ({_first_line(error)}); mend it first.") from None
    finally:
        sys.path.remove(here)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName(f"function in {module_name} called", attribute, offered)

    def build(count: int | None) -> nn.Module:
        takes = "num_classes" in inspect.signature(factory).parameters
        options = {"num_classes": count} if takes and count is not None else {}
        try:
            made = factory(**options)
        except Exception as error:  # somebody's code may raise anything
            raise ChipError(f"{name} failed ({_first_line(error)}); it is called without arguments, or with num_classes.") from None
        if not isinstance(made, nn.Module):
            raise ChipError(f"{name} gave a {type(made).__name__}, not a torch.nn.Module; return the network.")
        # It may be a model that the user's module keeps, into which a checkpoint must not be loaded.
        return private_copy(unwrapped(made), name)

    return ArchitectureSource(name, attribute, build, InputGeometry())


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
