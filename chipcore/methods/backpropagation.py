"""Back-propagation from a class score to the pixels: Backprop, Guided Backprop, Deconvolution.

The three differ in one thing, how a signal R passes a rectifier y = max(0, x) on its way down:

- Backprop (Simonyan, Vedaldi and Zisserman 2014), the gradient: R where x > 0
- Deconvolution (Zeiler and Fergus 2014): max(0, R)
- Guided Backprop (Springenberg et al. 2015): max(0, R) where x > 0

Zeiler and Fergus project the activity of any unit; here all three begin at the class score, so Deconvolution
is the network's deconvnet with max-pooling's switches.

The rule is changed by a ``TorchFunctionMode``, which belongs to one thread and ends with its ``with`` block:
no hook, no patch, no copy of the network, and in-place, functional and shared rectifiers are all met, traceable
or not. captum's GuidedBackprop and Deconvolution serve as references in the tests only: they put hooks on the
model they are given, and replace modules of type ``nn.ReLU`` alone, so on EfficientNet-Lite (ReLU6) or with
``functional.relu`` they would give plain gradients. ReLU6 and clipping from 0 on are rectifiers too: no
gradient above the upper bound, except for Deconvolution, which looks at no input and so passes a signal there as well. LeakyReLU, SiLU, hardswish and the like are no rectifiers, keep their gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from chipcore.methods.base import Explanation, MethodInputs, Properties, register
from chipcore.networks.network import Network

Rule = Literal["guided", "deconvolution"]

# How a network may call its rectifier: the upper bound, and whether the name says that it works in place.
_RELU: dict[Any, tuple[float, bool]] = {
    functional.relu: (math.inf, False), torch.relu: (math.inf, False), Tensor.relu: (math.inf, False),
    torch.relu_: (math.inf, True), Tensor.relu_: (math.inf, True), functional.relu6: (6.0, False),
}  # fmt: skip
_HARDTANH: dict[Any, bool] = {functional.hardtanh: False, functional.hardtanh_: True}


class _Rectify(torch.autograd.Function):
    """max(0, x), at most ``high``, with the backward rule of its name."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float, rule: Rule) -> Tensor:
        if rule == "guided":
            ctx.save_for_backward((x > 0) & (x < high))
        return x.clamp(0, high)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor, None, None]:
        signal = signals[0].clamp(min=0)
        if ctx.saved_tensors:  # guided
            signal = signal * ctx.saved_tensors[0]
        return signal, None, None


class _Rectifiers(TorchFunctionMode):
    """Within it, this thread's rectifiers pass signals down by ``rule``."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._rule = rule

    def __torch_function__(self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _RELU:
            high, in_place = _RELU[func]
            in_place = in_place or bool(kwargs.get("inplace", args[1] if len(args) > 1 else False))
        elif func in _HARDTANH:
            low, high, asked = (*args[1:], *(kwargs.get(name, default) for name, default in _BOUNDS[len(args) - 1 :]))
            if low != 0:
                return func(*args, **kwargs)
            in_place = _HARDTANH[func] or bool(asked)
        else:
            return func(*args, **kwargs)
        x = cast(Tensor, args[0] if args else kwargs["input"])
        y = cast(Tensor, _Rectify.apply(x.clone() if in_place else x, high, self._rule))
        # In place means that x changes too: a network may go on with x and drop what is returned.
        return x.copy_(y) if in_place else y


_BOUNDS = (("min_val", -1.0), ("max_val", 1.0), ("inplace", False))


def input_gradient(network: Network, inputs: Tensor, target: int, rule: Rule | None = None) -> Tensor:
    """The class score's gradient (or what ``rule`` makes of it) at the pixels, shape (3, size, size).

    Takes one forward and one backward pass. The model's parameters and flags stay as they are.
    """
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        # A network may begin with an in-place operation, which a leaf does not allow.
        x = network.arrange(leaf.clone())
        if rule is None:
            score = network.model(x)[0, target]
        else:
            with _Rectifiers(rule):
                score = network.model(x)[0, target]
        return torch.autograd.grad(score, leaf)[0][0]


def strongest(gradient: Tensor) -> Tensor:
    """Largest magnitude over the three colors, (3, h, w) to (h, w), as Simonyan et al. (2014) do; it has no sign."""
    return gradient.abs().amax(0)


def colors(gradient: Tensor) -> Tensor:
    """The signed gradient (3 or 1, h, w) as colors around gray, (3, h, w) in [0, 1]; the way the guided methods are printed."""
    top = gradient.abs().max()
    shown = 0.5 + 0.5 * gradient / top if top > 0 else torch.full_like(gradient, 0.5)
    return shown.expand(3, -1, -1)  # a gray network's in gray


def _method(rule: Rule | None) -> Callable[[MethodInputs], Explanation]:
    def compute(request: MethodInputs) -> Explanation:
        gradient = input_gradient(request.network, request.inputs, request.target, rule)
        return Explanation(strongest(gradient), passes=2, image=colors(gradient))

    return compute


_BLOCKED = (
    "{} lets only the positive part of its signal pass each rectifier on the way down from the score, and none of it reaches the pixels"
)
_properties = dict[str, Any](instance=("gradient",), high_resolution=True)
register(
    "guided_backprop", "Guided Backprop", "Springenberg et al. 2015", Properties(**_properties, row="Guided Backpropagation"), order=70,
    shows_image=True, zero_means=_BLOCKED.format("Guided Backprop"),
)(_method("guided"))  # fmt: skip
register(
    "backprop", "Backprop", "Simonyan, Vedaldi and Zisserman 2014", Properties(**_properties, class_discriminative=True), order=80,
)(_method(None))  # fmt: skip
register(
    "deconvolution", "Deconvolution", "Zeiler and Fergus 2014", Properties(**_properties, multi_layer=True, row="Deconvolution"), order=120,
    shows_image=True, zero_means=_BLOCKED.format("Deconvolution"),
)(_method("deconvolution"))  # fmt: skip
