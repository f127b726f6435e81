"""What a network takes: three channels or one, and why it fails on anything else."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import nn

from chipcore.errors import ChipError
from chipcore.images import InputGeometry

_COLORS = InputGeometry()


def one_channel(geometry: InputGeometry) -> InputGeometry:
    """The same input in gray. ImageNet's mean and std of colors mean nothing there, so values stay in [0, 1] unless others are given."""
    if geometry.channels == 1:
        return geometry
    usual = (geometry.mean, geometry.std) == (_COLORS.mean, _COLORS.std)
    mean, std = (0.0, 1.0) if usual else (sum(geometry.mean) / 3, sum(geometry.std) / 3)
    return replace(geometry, channels=1, mean=(mean,), std=(std,))


def find_input(model: nn.Module, geometry: InputGeometry, name: str) -> tuple[InputGeometry, tuple[str, ...]]:
    """The geometry with as many channels as the model takes, and what was found out, a sentence each.

    Raises ``ChipError`` that says what is wrong where it fails on three channels and on one.
    """
    failure = _failure(model, geometry)
    if failure is None:
        return geometry, ()
    if geometry.channels == 3:
        gray = one_channel(geometry)
        second = _failure(model, gray)
        if second is None:
            note = f"{name} takes one channel: photographs become gray, with mean {gray.mean[0]:g} and std {gray.std[0]:g}"
            return gray, (note,)
        if _first_channels(model) == 1:
            failure, geometry = second, gray
    shape = " x ".join(str(one) for one in (geometry.channels, *geometry.shape))
    raise ChipError(f"{name} fails on an input of {shape} ({_first_line(failure)}); {_advice(model, failure)}.")


def _failure(model: nn.Module, geometry: InputGeometry) -> Exception | None:
    training = model.training
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, geometry.channels, *geometry.shape))
    except Exception as error:  # user code may raise anything
        return error
    finally:
        model.train(training)
    return None


def _first_channels(model: nn.Module) -> int | None:
    return next((one.in_channels for one in model.modules() if isinstance(one, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)


def _advice(model: nn.Module, error: Exception) -> str:
    """What to do about it: the size is one fault of many."""
    text = str(error)
    first = next((one for one in model.modules() if isinstance(one, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    missing = re.search(r"missing \d+ required positional arguments?: (.*)", text)
    if isinstance(error, TypeError) and missing:
        return f"its forward takes {missing[1]} too; give a module whose forward takes the images alone"
    if isinstance(first, nn.Conv3d):
        return "it takes volumes or videos; give a network of single images"
    if isinstance(first, nn.Conv1d):
        return "it takes sequences; give a network of images"
    if first is not None and first.in_channels not in (1, 3):
        return f"it takes {first.in_channels} channels; give a network of images with one channel or three"
    if re.search(r"\b(Half|BFloat16|Double|dtype|scalar type|Input type)\b", text):
        return "it mixes precisions inside its forward; give a network that runs in float32"
    if isinstance(error, AssertionError | NotImplementedError | AttributeError | NameError | ImportError):
        return "mend it, or give the input's size with --size where the network has one of its own"
    return "give its input's size with --size (in Python size=), height and width where they differ"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
