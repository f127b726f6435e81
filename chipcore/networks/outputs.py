"""What a network's outputs are, and how f^c is read off them.

CHIP needs two numbers of a class: a score that the gates move (g^c, before any softmax or sigmoid) and a probability
(f^c). A user's network may end in either, so it is looked at first:

- ``logits``: scores, f^c their softmax
- ``probabilities``: after a softmax; the softmax is taken off where it is a module, else undone: the score is then log f^c
- ``multilabel``: every output answers a question of its own, f^c its sigmoid; a sigmoid at the end is taken off or undone
- ``binary``: one output, f^c its sigmoid
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from chipcore.errors import ChipError, SettingsError
from chipcore.gating.graph import set_submodule

Outputs = Literal["logits", "probabilities", "multilabel", "binary"]
CHOICES = ("auto", *get_args(Outputs))
_TINY = 1e-38  # the smallest probability whose logarithm float32 holds
_ENDS = {"_softmax": "softmax", "softmax": "softmax", "_log_softmax": "log_softmax", "log_softmax": "log_softmax", "sigmoid": "sigmoid"}
_SCALES = (0.0, 1.0, -1.0, 3.0, 100.0, -1000.0)  # of the noise that outputs are looked at with: only what is bounded stays within 0 and 1


def class_probabilities(scores: Tensor, outputs: Outputs) -> Tensor:
    """f of Eq. 4 from scores (..., C): a softmax over the classes, or each output's own sigmoid.

    Example:
        >>> class_probabilities(torch.tensor([0.0, 0.0]), "logits").tolist()
        [0.5, 0.5]
        >>> class_probabilities(torch.tensor([[0.0]]), "binary").tolist()
        [[0.5]]
    """
    return scores.sigmoid() if outputs in ("multilabel", "binary") else scores.softmax(-1)


def only_scores(model: nn.Module, example: Tensor, name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A model that gives one tensor (B, C), and what was done to it, a sentence each.

    Of a tuple or mapping the one tensor (B, C) inside is taken; (B,) becomes (B, 1), and (B, C, 1, 1) becomes (B, C).

    Args:
        model: our own copy, in eval mode; it is changed.
        example: one input, (1, channels, h, w).

    Raises:
        ChipError: where that is not to be had.
    """
    with torch.inference_mode():
        try:
            given = model(torch.cat([example, example]))
        except Exception:  # one input at a time, which ``check_answers`` says more of
            given = model(example)
    count = len(example) if isinstance(given, Tensor) and len(given) == 1 else 2
    notes: tuple[str, ...] = ()
    if not isinstance(given, Tensor):
        items = list(given.items()) if isinstance(given, Mapping) else list(enumerate(given)) if isinstance(given, Sequence) else []
        usable = [(key, value) for key, value in items if isinstance(value, Tensor) and value.ndim == 2 and len(value) == count]
        named = [pair for pair in usable if pair[0] in ("logits", "scores")] or usable
        if len(named) != 1:
            kinds = f", in which {len(usable)} could be class scores" if items else ""
            raise ChipError(
                f"{name} gives a {type(given).__name__}{kinds}, not class scores (batch x classes); give a network that returns its scores only."
            )
        key = named[0][0]
        _end_with(model, lambda result: result[key])
        notes = (f"of the {type(given).__name__} that {name} gives, {key!r} is taken as the scores",)
    elif given.ndim == 1 and len(given) == count:
        _end_with(model, lambda result: result.unsqueeze(1))
    elif given.ndim == 4 and given.shape[2:] == (1, 1):
        _end_with(model, lambda result: result.flatten(1))
    elif given.ndim != 2:
        maps = ", one score for every pixel, as segmentation does" if given.ndim == 4 else ""
        raise ChipError(
            f"{name} gives a tensor of {given.ndim} axes{maps}, not class scores (batch x classes); give a network that returns one score a class."
        )
    return model, notes


def bare_scores(model: nn.Module, asked: str, example: Tensor, name: str) -> tuple[nn.Module, Outputs, tuple[str, ...]]:
    """A model that gives scores, what its outputs are, and what was found out or done, a sentence each.

    Args:
        model: our own copy, in eval mode, that gives (B, C); it is changed.
        asked: one of ``CHOICES``.
        example: one input, (1, channels, h, w).
        name: what to call the network.

    Raises:
        SettingsError: ``asked`` is not a choice, or contradicts what the network gives.
    """
    if asked not in CHOICES:
        raise SettingsError(f"outputs is {asked!r}; give {', '.join(CHOICES)}.")
    path, end = _end(model, example)
    probe = _probe(model, example)
    count = probe.shape[1]
    within = bool(((probe >= 0) & (probe <= 1)).all())
    sums_to_one = count > 1 and within and bool(torch.allclose(probe.sum(1), torch.ones(len(probe)), atol=1e-3))
    kind = cast(Outputs, asked)
    if asked == "auto":
        kind = "probabilities" if sums_to_one else "logits"
        if count == 1:
            kind = "binary"
        elif end == "sigmoid" or (within and not sums_to_one):
            kind = "multilabel"
    if kind == "probabilities" and not sums_to_one and end != "log_softmax":
        raise SettingsError(f"the outputs of {name} are no probabilities: they do not add up to 1; give outputs logits or multilabel.")
    if kind == "binary" and count != 1:
        raise SettingsError(f"{name} has {count} outputs; binary means a single one. Give logits, or multilabel for {count} questions.")
    if kind in ("logits", "probabilities") and count == 1:
        raise SettingsError(f"{name} has one output, whose softmax is 1 for every image; give outputs binary.")
    if kind == "multilabel" and sums_to_one:
        raise SettingsError(f"the outputs of {name} add up to 1, so they exclude each other; give outputs probabilities.")
    closing = "sigmoid" if kind in ("multilabel", "binary") and within else "softmax" if kind == "probabilities" and sums_to_one else ""
    notes: list[str] = []
    if closing and end == closing and path is not None:
        set_submodule(model, path, nn.Identity())
        notes.append(f"the {closing} at the end of {name} is taken off: scores are what goes into it, f^c what comes out")
    elif closing:
        _end_with(model, _logarithm if closing == "softmax" else _logit)
        undone = "logarithms" if closing == "softmax" else "logits"
        notes.append(f"the outputs of {name} are probabilities ({kind}); their {undone} are taken as scores, and f^c is what it gives")
    elif kind == "binary":
        notes.append(f"the one output of {name} is taken as the logit of yes or no: f^c is its sigmoid")
    elif kind == "multilabel":
        notes.append(f"every output of {name} is taken as the logit of a question of its own: f^c is its sigmoid")
    elif kind == "logits" and sums_to_one:
        notes.append(f"the outputs of {name} look like probabilities, of which a softmax is taken once more, as asked")
    return model, kind, tuple(notes)


def check_count(outputs: int, classes: int, name: str) -> None:
    """Raises ``ChipError`` where the number of outputs and of class names differ."""
    if outputs != classes:
        raise ChipError(f"{name} has {outputs} outputs but {classes} class names were given; give one name an output.")


def _logarithm(p: Tensor) -> Tensor:
    return p.clamp(min=_TINY).log()


def _logit(p: Tensor) -> Tensor:
    return torch.logit(p, eps=1e-7)


def _probe(model: nn.Module, example: Tensor) -> Tensor:
    """Scores of noise of several scales, (n, C)."""
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    with torch.inference_mode():
        found = torch.cat([model(scale * noise).cpu().float() for scale in _SCALES])
    return found[found.isfinite().all(1)]


class _Ends(TorchDispatchMode):
    """Keeps what every softmax and sigmoid gives, however it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        end = _ENDS.get(func.overloadpacket.__name__.rstrip("_"), "")
        if end and isinstance(result, Tensor):
            self.seen.append((end, result))
        return result


def _end(model: nn.Module, example: Tensor) -> tuple[str | None, str]:
    """What the scores come out of: (path of its module or None, 'softmax', 'log_softmax', 'sigmoid' or '')."""
    called: list[tuple[str, Tensor]] = []

    def note(path: str) -> Any:
        return lambda _module, _inputs, output: called.append((path, output))

    kinds = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid)
    modules = [(path, module) for path, module in model.named_modules() if path and type(module) in kinds]
    handles = [module.register_forward_hook(note(path)) for path, module in modules]
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(1)).to(example)
    try:
        with torch.no_grad(), _Ends() as ends:
            result = model(noise)
    finally:
        for handle in handles:
            handle.remove()

    def same(output: Tensor) -> bool:
        return output.numel() == result.numel() and torch.equal(output.flatten(), result.flatten())

    end = next((end for end, output in reversed(ends.seen) if same(output)), "")
    times = [path for path, _output in called]
    path = next((path for path, output in reversed(called) if same(output) and times.count(path) == 1), None)
    return path, end


def _end_with(model: nn.Module, last: Callable[[Any], Tensor]) -> None:
    """Give the model a forward pass that ends with ``last``; paths, weights and everything else stay as they are."""
    plain = type(model)

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return last(plain.forward(self, x))

    model.__class__ = type(plain.__name__, (plain,), {"forward": forward, "__module__": plain.__module__})
