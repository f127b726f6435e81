"""A private copy of a user's module, in the form that the rest of the program works on; the module itself stays as it is.

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
    model = unwrapped(model)
    if any(isinstance(one, torch.jit.ScriptModule) for one in model.modules()):
        raise ChipError(f"{name} is TorchScript, which can be run but not cut at a layer; give the Python module that it was made from.")
    if any(".quantized" in type(one).__module__ or "torchao" in type(one).__module__ for one in model.modules()):
        raise ChipError(
            f"{name} is quantized, so its layers hold no real weights to cut and fold; give the float model that it was made from."
        )
    own = private_copy(model, name)
    _remove_weight_norm(own)
    own.eval().requires_grad_(False)
    notes = []
    for module in own.modules():
        module._compiled_call_impl = None  # module.compile() hides the Python that is cut
    tensors = [one for one in (*own.parameters(), *own.buffers()) if one.is_floating_point()]
    kinds = {str(one.dtype).removeprefix("torch.") for one in tensors} - {"float32"}
    if kinds:
        own = own.float()
        notes.append(f"{name} holds {' and '.join(sorted(kinds))} weights; it is run in float32")
    for key, value in own.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            raise ChipError(f"the weights of {name} hold NaN or infinity in {key!r}; give another checkpoint.")
    return own, tuple(notes)


def private_copy(model: nn.Module, name: str) -> nn.Module:
    """A copy that may be changed; ``ChipError`` where there can be none."""
    try:
        return copy.deepcopy(model, _computed(model))
    except Exception as error:  # a module may hold what cannot be copied
        raise ChipError(f"{name} cannot be copied ({_first_line(error)}); give a module that copy.deepcopy takes.") from None


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``."""
    while (inner := _WRAPPERS.get(type(model).__name__)) and isinstance(getattr(model, inner, None), nn.Module):
        model = getattr(model, inner)
    return model


def _computed(model: nn.Module) -> dict[int, Any]:
    """Tensors that hooks have computed (weight_norm's weight): ``deepcopy`` wants leaves, so they are copied by value."""
    found = (value for one in model.modules() for value in vars(one).values() if isinstance(value, Tensor) and not value.is_leaf)
    return {id(value): value.detach().clone() for value in found}


def _remove_weight_norm(own: nn.Module) -> None:
    """torch's first ``weight_norm`` recomputes a plain attribute before every pass; its weight becomes a parameter again."""
    from torch.nn.utils.weight_norm import WeightNorm

    for module in own.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, WeightNorm):
                hook.remove(module)
                del module._forward_pre_hooks[key]


def lay_out(model: nn.Module, example: Tensor) -> torch.memory_format:
    """Put our own model's weights channels last, which convolutions are fastest with, where it runs so; returns the format taken.

    ``x.view(x.size(0), -1)`` does not: it needs each channel's values side by side. Found by one pass of two inputs.
    """
    if not any(isinstance(one, nn.Conv2d) for one in model.modules()):
        return torch.contiguous_format
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        try:
            model(torch.cat([example, example]).contiguous(memory_format=torch.channels_last))
        except Exception:  # user code may raise anything
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            return torch.contiguous_format
    return torch.channels_last


def check_answers(model: nn.Module, example: Tensor, name: str) -> tuple[str, ...]:
    """Sentences about a model whose answer to an input is not always the same.

    Raises ``ChipError`` where it takes one input at a time only, or where it depends on what else is in the batch: gates are run in
    batches.
    """
    noise = torch.randn(2, *example.shape[1:], generator=torch.Generator().manual_seed(0)).to(example)
    with torch.inference_mode():
        one, again = model(noise[:1]), model(noise[:1])
        if not _alike(one, again):
            return (
                f"{name} gives other scores every time it is asked, as a dropout that ignores eval() does; its maps hold that noise too",
            )
        try:
            both = model(noise)
        except Exception as error:  # user code may raise anything
            raise ChipError(
                f"{name} takes one image at a time ({_first_line(error)}), but gates are run in batches; give a network that takes any batch."
            ) from None
        if both.shape[:1] != (2,) or not _alike(both[:1], one):
            raise ChipError(
                f"{name} gives an image other scores when another image is beside it (a batch norm without running statistics does), "
                "so its gates cannot be run in batches; give a network that looks at each image alone."
            )
    return ()


def _alike(first: Tensor, second: Tensor) -> bool:
    scale = float(first.abs().max().nan_to_num(posinf=1e30).clamp(min=1e-6))
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
