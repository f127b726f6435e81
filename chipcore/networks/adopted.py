"""A private copy of somebody's module, in the form that the rest of the program works on; the module itself stays as it is.

Wrappers that training code leaves around a network come off (``DataParallel``, ``torch.compile``), old ``weight_norm`` is
worked out, half and double precision become float32. What has no Python inside to cut (TorchScript) or no real weights
(quantized models) is refused with the reason.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from chipcore.errors import ChipError

_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


def adopt(model: nn.Module, name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A frozen float32 copy in eval mode, and what was changed, a sentence each.

    Raises ``ChipError`` for TorchScript, quantized models and weights that are not finite.
    """
    if not isinstance(model, nn.Module):
        raise ChipError(f"{name} is a {type(model).__name__}, not a torch.nn.Module; give the network itself.")
    while (inner := _WRAPPERS.get(type(model).__name__)) and isinstance(getattr(model, inner, None), nn.Module):
        model = getattr(model, inner)
    if isinstance(model, torch.jit.ScriptModule) or any(isinstance(one, torch.jit.ScriptModule) for one in model.modules()):
        raise ChipError(f"{name} is TorchScript, which can be run but not cut at a layer; give the Python module that it was made from.")
    if any("quantized" in type(one).__module__ for one in model.modules()):
        raise ChipError(f"{name} is quantized, so its layers hold no real weights to cut and fold; give the float model that it was made from.")
    own = _without_weight_norm(copy.deepcopy(model, _baked(model))).eval().requires_grad_(False)
    notes = []
    kinds = {str(one.dtype).removeprefix("torch.") for one in (*own.parameters(), *own.buffers()) if one.is_floating_point()} - {"float32"}
    if kinds:
        own = own.float()
        notes.append(f"{name} holds {' and '.join(sorted(kinds))} weights; it is run in float32 here")
    for key, value in own.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            raise ChipError(f"the weights of {name} hold NaN or infinity in {key!r}; give another checkpoint.")
    return own, tuple(notes)


def _baked(model: nn.Module) -> dict[int, Any]:
    """Tensors that hooks have computed (weight_norm's weight): not copied by ``deepcopy``, which wants leaves, but by value."""
    computed = (value for one in model.modules() for value in vars(one).values() if isinstance(value, Tensor) and not value.is_leaf)
    return {id(value): value.detach().clone() for value in computed}


def _without_weight_norm(own: nn.Module) -> nn.Module:
    """torch's first ``weight_norm`` recomputes a plain attribute before every pass; its weight becomes a parameter again."""
    from torch.nn.utils.weight_norm import WeightNorm

    for module in own.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, WeightNorm):
                hook.remove(module)
                del module._forward_pre_hooks[key]
    return own


def takes_channels_last(model: nn.Module, example: Tensor) -> bool:
    """Whether the model runs with channels last in memory, which convolutions are fastest with.

    ``x.view(x.size(0), -1)`` does not: it needs the channels' values side by side.
    """
    with torch.inference_mode():
        try:
            like = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            laid_out = example.expand(2, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            like(laid_out)
        except Exception:  # somebody's code may raise anything
            return False
    return True


def answers_alike(model: nn.Module, example: Tensor) -> bool:
    """Whether two passes over the same input give the same scores (a dropout that ignores ``eval()`` does not)."""
    with torch.inference_mode():
        first, second = model(example), model(example)
    return bool(torch.allclose(first, second, rtol=1e-3, atol=1e-5 * float(first.abs().max().clamp(min=1e-6)), equal_nan=True))
