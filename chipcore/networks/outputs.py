"""What a network's outputs are, and how f^c is read off them.

CHIP needs two numbers of a class: a score that the gates move (g^c, before any softmax or sigmoid) and a probability
(f^c). Somebody's own network may end in either, so it is looked at first:

- ``logits``: scores, f^c their softmax
- ``probabilities``: after a softmax; the softmax is taken off where it is a module, else undone: the score is then log f^c
- ``multilabel``: every output answers a question of its own, f^c its sigmoid; a sigmoid at the end is taken off or undone
- ``binary``: one output, f^c its sigmoid
"""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from chipcore.errors import ChipError, SettingsError
from chipcore.gating import graph

Outputs = Literal["logits", "probabilities", "multilabel", "binary"]
CHOICES = ("auto", *get_args(Outputs))
_TINY = 1e-38  # the smallest probability whose logarithm float32 holds

_SOFTMAX = (nn.Softmax, nn.LogSoftmax)
_ENDS: dict[Any, str] = {
    torch.softmax: "softmax", functional.softmax: "softmax", "softmax": "softmax",
    torch.sigmoid: "sigmoid", functional.sigmoid: "sigmoid", "sigmoid": "sigmoid",
}  # fmt: skip
_KEEPS_VALUES = ("flatten", "squeeze", "view", "reshape", "contiguous", "float")


def class_probabilities(scores: Tensor, outputs: Outputs) -> Tensor:
    """f of Eq. 4 from scores (..., C): a softmax over the classes, or each output's own sigmoid.

    Example:
        >>> class_probabilities(torch.tensor([0.0, 0.0]), "logits").tolist()
        [0.5, 0.5]
        >>> class_probabilities(torch.tensor([[0.0]]), "binary").tolist()
        [[0.5]]
    """
    return scores.sigmoid() if outputs in ("multilabel", "binary") else scores.softmax(-1)


def bare_scores(model: nn.Module, asked: str, example: Tensor, name: str) -> tuple[nn.Module, Outputs, tuple[str, ...]]:
    """A model that gives scores, what its outputs are, and what was found out or done, a sentence each.

    Args:
        model: our own copy, in eval mode; it is changed.
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
    sums_to_one = count > 1 and bool((probe >= 0).all()) and bool(torch.allclose(probe.sum(1), torch.ones(len(probe)), atol=1e-3))
    within = bool(((probe >= 0) & (probe <= 1)).all())
    notes: list[str] = []
    if asked == "auto":
        if count == 1:
            kind: Outputs = "binary"
        elif end == "sigmoid":
            kind = "multilabel"
        else:
            kind = "probabilities" if end == "softmax" or sums_to_one else "logits"
        if kind == "logits" and within:
            notes.append(f"every output of {name} lies between 0 and 1; if they are probabilities, say so with outputs (--outputs)")
    else:
        kind = asked  # type: ignore[assignment]
    if kind == "probabilities" and not sums_to_one and end != "log_softmax":
        raise SettingsError(f"the outputs of {name} are no probabilities: they do not add up to 1; give outputs logits or multilabel.")
    if kind == "binary" and count != 1:
        raise SettingsError(f"{name} has {count} outputs; binary means a single one. Give logits, or multilabel for {count} questions.")
    if kind == "logits" and count == 1:
        raise SettingsError(f"{name} has one output, whose softmax is 1 for every image; give outputs binary.")
    closing = "sigmoid" if kind in ("multilabel", "binary") else "softmax" if kind == "probabilities" else ""
    if closing and end == closing:
        if path is not None:
            graph.set_submodule(model, path, nn.Identity())
            notes.append(f"the {closing} at the end of {name} is taken off: scores are what goes into it, f^c what comes out")
        else:
            _undo(model, closing)
            undone = "its logarithm" if closing == "softmax" else "its inverse"
            notes.append(f"the {closing} at the end of {name} is undone by {undone}: scores are what that gives, f^c what comes out")
    elif kind == "probabilities" and end != "log_softmax":
        _undo(model, "softmax")
        notes.append(f"the outputs of {name} are probabilities; their logarithms are taken as scores")
    elif closing == "sigmoid":
        what = "its one output as the logit of yes or no" if kind == "binary" else "every output as the logit of a question of its own"
        notes.append(f"{name} is taken to give {what}: f^c is the sigmoid of it")
    return model, kind, tuple(notes)


def _probe(model: nn.Module, example: Tensor) -> Tensor:
    """Scores of three inputs: nothing, and two kinds of noise."""
    random = torch.Generator().manual_seed(0)
    inputs = [torch.zeros_like(example), *(scale * torch.randn(example.shape, generator=random) for scale in (1.0, 3.0))]
    with torch.inference_mode():
        return torch.cat([model(one).detach().cpu().float() for one in inputs])


def _end(model: nn.Module, example: Tensor) -> tuple[str | None, str]:
    """What the scores come out of: (path of its module or None, 'softmax', 'log_softmax', 'sigmoid' or '')."""
    seen: list[tuple[str, nn.Module, Tensor]] = []
    kinds = (*_SOFTMAX, nn.Sigmoid)
    probe = copy.deepcopy(model)  # hooks only on a copy of our own

    def note(path: str) -> Any:
        return lambda module, _inputs, output: seen.append((path, module, output))

    for path, module in probe.named_modules():
        if path and type(module) in kinds:
            module.register_forward_hook(note(path))
    with torch.inference_mode():
        result = probe(example)
    called = [path for path, _module, _output in seen]
    for path, module, output in reversed(seen):
        if output.numel() == result.numel() and torch.equal(output.flatten(), result.flatten()):
            found = "sigmoid" if isinstance(module, nn.Sigmoid) else "softmax" if isinstance(module, nn.Softmax) else "log_softmax"
            return (path if called.count(path) == 1 else None), found
    try:
        traced = graph.trace(model)
    except Exception:  # fx reports what it can't trace by whatever exception comes up
        return None, ""
    node = next(node for node in traced.graph.nodes if node.op == "output").args[0]
    while isinstance(node, fx.Node) and node.op in ("call_function", "call_method"):
        if node.target in _ENDS:
            return None, _ENDS[node.target]
        if node.target not in (*_KEEPS_VALUES, torch.flatten, torch.squeeze) or not node.args:
            break
        node = node.args[0]
    return None, ""


def _undo(model: nn.Module, closing: str) -> None:
    """Give the model a forward pass that ends with the inverse; paths, weights and everything else stay as they are."""
    plain = type(model)

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        p = plain.forward(self, x)
        if closing == "softmax":
            return p.clamp(min=_TINY).log()
        return torch.logit(p, eps=1e-7)

    model.__class__ = type(plain.__name__, (plain,), {"forward": forward, "__module__": plain.__module__})


def check_count(outputs: int, classes: int, name: str) -> None:
    """Raises ``ChipError`` where the number of outputs and of class names differ."""
    if outputs != classes:
        raise ChipError(f"{name} has {outputs} outputs but {classes} class names were given; give one name an output.")
