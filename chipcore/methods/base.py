"""What a method is given, what it gives back, and the one call that runs any of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from chipcore.errors import ChipError, ImageError, SettingsError, UnknownName
from chipcore.gating.suffix import Activations
from chipcore.images import InputGeometry, as_image
from chipcore.importance import Importance, load_importance
from chipcore.methods.saliency import Saliency
from chipcore.networks.network import Layer, Network

T = TypeVar("T")
MAX_SAMPLES = 100_000  # of samples, steps and the like


@dataclass(frozen=True)
class Properties:
    """A row of the paper's Table I.

    ``instance`` says how a method explains one image (empty: it doesn't), ``general`` whether it holds
    knowledge of the network beyond that image. ``row`` is the row's name as printed; methods that are
    not in the table have none and are judged by us.
    """

    instance: tuple[Literal["perturbation", "gradient"], ...] = ()
    general: bool = False
    class_discriminative: bool = False
    high_resolution: bool = False
    multi_layer: bool = False
    post_hoc: bool = True
    row: str | None = None


@dataclass(frozen=True)
class MethodInputs:
    """One question: which part of this image speaks for this class, at this layer?

    Args:
        network: the network.
        inputs: one normalized image, shape (1, 3, size, size).
        target: index of the class.
        layer: the layer; methods with ``uses_layer`` False pay no heed to it.
        importance: W of ``layer``, for methods with ``needs_importance``.
        activations: what :meth:`Network.forward_prefix` gave for these inputs, where it has been run already.
        shallow_importance: W of the network's first layer for Refined CHIP; the cached or bundled one by default.
        options: a method's own settings; names and defaults are in ``METHODS[name].options``.
        progress: called with (done, total) by methods that take long.
        rows: w_c, shape (K,), by the path of its layer: in place of W's, where it was learned otherwise.
        channels: the only ones of ``layer`` that a sum of Eq. 10 takes; all where None.
        versus: another class, whose row is taken off: why the target and not this one.
        share: called with a key and what makes a value: gives the value made before for this network and image, where
            there is one. So methods whose passes do not depend on the class take them once an image.
    """

    network: Network
    inputs: Tensor
    target: int
    layer: Layer
    importance: Importance | None = None
    activations: Activations | None = None
    shallow_importance: Importance | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    progress: Callable[[int, int], None] | None = None
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    channels: Sequence[int] | None = None
    versus: int | None = None
    share: Callable[[Hashable, Callable[[], Any]], Any] | None = None

    def once(self, key: Hashable, make: Callable[[], T]) -> tuple[T, bool]:
        """What ``make`` gives, and whether it was made now: another class of this image may have had it made before."""
        made: list[bool] = []

        def making() -> T:
            made.append(True)
            return make()

        value: T = making() if self.share is None else self.share(key, making)
        return value, bool(made)

    def known_activations(self, *layers: Layer) -> Activations:
        """Features of ``layers`` (by default of the request's own): those that were handed in, or one pass."""
        wanted = layers or (self.layer,)
        if self.activations is not None and all(layer.path in self.activations.features for layer in wanted):
            return self.activations
        return self.network.forward_prefix(self.inputs, wanted)

    def report(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


@dataclass(frozen=True)
class Explanation:
    """What a method computes.

    - ``raw``: its map (u, v), signed where the method has a sign
    - ``passes``: forward and backward passes through the network, one each; a pass through a part of the
      network counts as one, and so does every image of a batch
    - ``image``: a color picture (3, h, w) in [0, 1], where the method makes one
    """

    raw: Tensor
    passes: int
    image: Tensor | None = None


Compute = Callable[[MethodInputs], Explanation]


@dataclass(frozen=True)
class Method:
    """A method of the registry; call it with a :class:`MethodInputs`.

    - ``title``: its name for people
    - ``source``: where it comes from
    - ``properties``: its row of Table I
    - ``options``: its own settings with their defaults
    - ``needs_importance``: reads a row of W, so it needs a fit
    - ``needs_shallow``: reads the first layer of the network besides the chosen one
    - ``uses_layer``: its map depends on the chosen layer
    - ``from_features``: begins with the layer's features, which one pass can share with others
    - ``adds_channels``: made from the sum of Eq. 10, so channels of it can be chosen
    - ``is_image``: its result is an image of its own, not a map of the image
    - ``order``: its place in lists, lowest first; what has none comes last
    - ``slow``: takes seconds a map on a CPU, so the explorer waits to be asked for it
    - ``shows_image``: its paper prints the colors of ``Explanation.image``, not a map
    - ``zero_means``: the sentence that says why a map of zeros alone came out, where the method knows
    - ``prepare``: what is done once for a network and layer, not once for a map
    """

    name: str
    title: str
    source: str
    properties: Properties
    compute: Compute
    options: Mapping[str, int | float] = field(default_factory=dict)
    needs_importance: bool = False
    needs_shallow: bool = False
    uses_layer: bool = False
    from_features: bool = False
    adds_channels: bool = False
    is_image: bool = False
    order: int = 1000
    slow: bool = False
    shows_image: bool = False
    zero_means: str = ""
    prepare: Callable[[Network, Layer], object] | None = None

    def layers(self, network: Network, layer: Layer) -> tuple[Layer, ...]:
        """The layers whose features it reads."""
        return (network.layers[0], layer) if self.needs_shallow else (layer,)

    def __call__(self, request: MethodInputs) -> Explanation:
        """Run it. May be called under ``inference_mode`` and from several threads.

        Raises:
            ChipError: a class, input or option outside its range, or a network that the method can't explain.
        """
        network = request.network
        wanted = (1, network.geometry.channels, *network.geometry.shape)
        if tuple(request.inputs.shape) != wanted:
            raise SettingsError(
                f"{self.name} explains one photograph at a time: give inputs of shape {wanted}, not {tuple(request.inputs.shape)}."
            )
        target = network.classes.index(request.target)
        # Tensors made in inference mode can't be differentiated through; a copy made outside of it can.
        with torch.inference_mode(False), torch.no_grad():
            inputs = request.inputs.to(network.device)
            inputs = inputs.clone() if inputs.is_inference() else inputs.detach()
            return self.compute(replace(request, inputs=inputs, target=target, options=self._checked(request.options)))

    def _checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        for name, value in given.items():
            if name not in self.options:
                raise UnknownName(f"option of {self.name}", name, self.options)
            whole = isinstance(self.options[name], int)
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            counts = whole and name != "seed"
            # More would not end today, or not fit into memory.
            if not number or not (1 if counts else 0) <= value <= (MAX_SAMPLES if counts else 2**32 - 1):
                kind = "a whole number" if whole else "a number"
                limits = f"above 0, at most {MAX_SAMPLES:,}" if counts else "of 0 or more, below 2^32"
                raise SettingsError(f"{name} of {self.name} is {value!r}; give {kind} {limits}.")
        return {**self.options, **given}


METHODS: dict[str, Method] = {}


def register(name: str, title: str, source: str, properties: Properties, **more: Any) -> Callable[[Compute], Compute]:
    """Add a method to the registry; the command line and the app take their choices from it.

    Parameters
    ----------
    name, title, source, properties
        As in :class:`Method`.
    more
        Further fields of :class:`Method`.

    Examples
    --------
    >>> @register("brightness", "Brightness", "nobody", Properties(instance=("gradient",)), order=999)
    ... def brightness(request: MethodInputs) -> Explanation:
    ...     return Explanation(request.inputs[0].mean(0), passes=0)
    >>> METHODS.pop("brightness").title
    'Brightness'
    """

    def add(compute: Compute) -> Compute:
        METHODS[name] = Method(name, title, source, properties, compute, **more)
        for other in sorted(METHODS, key=lambda known: METHODS[known].order):  # a dictionary keeps its order
            METHODS[other] = METHODS.pop(other)
        return compute

    return add


def explain(
    network: Network, image: Any, target: int | str | None = None, method: str = "chip", layer: str | None = None,
    importance: Importance | None = None, *, shallow_importance: Importance | None = None,
    options: Mapping[str, Any] | None = None, progress: Callable[[int, int], None] | None = None,
    rows: Mapping[str, Tensor] | None = None, channels: Sequence[int] | None = None,
    versus: int | str | None = None,
) -> Saliency:  # fmt: skip
    """A map of what speaks for a class in a image.

    Args:
        network: from :func:`chipcore.load_network`.
        image: a path, a file's bytes, a PIL image, an array (H, W, 3) or a tensor (3, H, W), of uint8 or in [0, 1] before any
            normalization; a tensor of the network's own size is taken as the view. For several see :func:`explain_many`.
        target: a class by index, synset or name; the network's first by default.
        method: a name from ``chipcore.methods.METHODS``.
        layer: a layer by name or module path; the deepest by default.
        importance: W to use with CHIP; the cached or bundled one by default.
        shallow_importance: the same for the first layer, which Refined CHIP multiplies with.
        options: the method's own settings, see ``METHODS[method].options``.
        progress: called with (done, total) by methods that take long.
        rows: w_c (K,) by layer path, in place of W's: learned from this image alone, say.
        channels: the only ones that the sum of Eq. 10 at the layer takes, for CHIP and what is made from it.
        versus: another class d: the map is the sum of (w_c - w_d) A, why the target and not that class; for the same methods.

    Raises:
        ChipError: an unknown class, layer or method, an unreadable image, or W that is not fitted.
    """
    view = view_of_any(image, network.geometry)
    return explain_view(
        network, view, target, method, layer, importance, shallow_importance=shallow_importance, options=options, progress=progress, rows=rows,
        channels=channels, versus=versus,
    )  # fmt: skip


def explain_view(
    network: Network, view: Image.Image, target: int | str | None = None, method: str = "chip", layer: str | None = None,
    importance: Importance | None = None, *, shallow_importance: Importance | None = None,
    options: Mapping[str, Any] | None = None, progress: Callable[[int, int], None] | None = None,
    rows: Mapping[str, Tensor] | None = None, channels: Sequence[int] | None = None,
    versus: int | str | None = None,
    share: Callable[[Hashable, Callable[[], Any]], Any] | None = None, activations: Activations | None = None,
) -> Saliency:  # fmt: skip
    """:func:`explain` for an image that is the network's view of it already, ``network.geometry.view(image)``.

    For many maps of one image: it is decoded and cropped once, and with ``share`` (see :class:`MethodInputs`) the passes of LIME
    and occlusion are taken once for all classes; a map that took none of its own has ``passes`` 0. ``activations`` are those of
    the view, where a pass has been made.
    """
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    chosen = METHODS[method]
    at = network.layer(layer) if layer is not None else network.layers[-1]
    if channels is not None and not chosen.adds_channels:
        raise SettingsError(f"{chosen.title} is no sum over channels, so none can be chosen; leave them out, or take chip.")
    if any(not 0 <= k < at.channels for k in channels or ()):
        raise SettingsError(f"{at.name} has channels 0 to {at.channels - 1}; give some of these.")
    index = None if target is None else network.classes.index(target)
    other = None if versus is None else network.classes.index(versus)
    if other is not None and not (chosen.needs_importance and chosen.adds_channels):
        raise SettingsError(f"{chosen.title} has no rows of W whose difference could be mapped; leave versus out, or take chip.")
    inputs = network.geometry.normalize(torch.from_numpy(np.array(view)))[None]
    start = time.perf_counter()
    # Every caption shows f^c; where the method begins with the features, one pass serves both.
    with torch.inference_mode():
        if activations is None:
            activations = network.forward_prefix(inputs, chosen.layers(network, at))
        if not bool(activations.scores.isfinite().all()):
            raise ChipError(f"{network.name} gives NaN or infinity for this photograph; its weights are damaged or too large.")
        if index is None:
            index = int(activations.scores[0].argmax())
        probability = float(network.class_probabilities(activations.scores)[0, index])
    if other == index:
        raise SettingsError(f"{network.classes.labels[index]} is compared with itself; give another class to compare with.")
    if not chosen.from_features:
        start = time.perf_counter()
    known = rows or {}
    if chosen.needs_importance and importance is None and at.path not in known:
        importance = load_importance(network, at.name)
    found = chosen(
        MethodInputs(
            network,
            inputs,
            index,
            at,
            importance,
            activations,
            shallow_importance,
            options or {},
            progress,
            known,
            channels,
            other,
            share,
        )
    )
    if found.raw.ndim != 2:
        raise SettingsError(f"{method} gave a map of {found.raw.ndim} axes; a method must give (height, width).")
    seconds = time.perf_counter() - start
    return Saliency(
        method, network.name, at.name, index, network.classes.labels[index], probability, found.raw.cpu(), view, seconds, found.passes,
        None if found.image is None else found.image.cpu(),
    )  # fmt: skip


def view_of_any(image: Any, geometry: InputGeometry) -> Image.Image:
    """The network's view of whatever :func:`explain` takes; ``ImageError`` names what that is."""
    if hasattr(image, "shape") and len(image.shape) == 4:
        if len(image.shape) and image.shape[0] != 1:
            raise ImageError(f"this is a batch of {image.shape[0]} images; give one, or all of them to chipcore.explain_many.")
        image = image[0]
    found = as_image(image)
    if isinstance(image, Tensor) and found.size == geometry.shape[::-1]:
        return found.convert("L").convert("RGB") if geometry.channels == 1 else found
    return geometry.view(found)


def fitted_row(request: MethodInputs, importance: Importance | None, layer: Layer) -> Tensor:
    """w_c, shape (K,), with the request's channels alone; raises ``ChipError`` where the class has no fitted row of W."""
    if layer.path in request.rows:
        return mask_channels(request, request.rows[layer.path], layer)
    if importance is None:
        raise ChipError("CHIP needs W; give importance=chipcore.load_importance(network, layer), or use the method local_chip.")
    if tuple(importance.W.shape) != (len(request.network.classes), layer.channels):
        raise ChipError(
            f"this W has {importance.W.shape[1]} channels but {layer.name} has {layer.channels}; give load_importance(network, {layer.name!r})."
        )
    if importance.evidence(request.target) == "none":
        label = request.network.classes.labels[request.target]
        raise ChipError(
            f"the class {label} has no fitted row of W at {layer.name}: the photographs it was fitted on held too little of it; "
            f"fit with photographs of {label}, or use the method local_chip, which fits a row on this photograph alone."
        )
    contrast = float(request.options.get("contrast", 1.0))
    if not 0 <= contrast <= 1:
        raise SettingsError(f"contrast is {contrast:g}; give a share from 0 (the score, as in the paper) to 1 (all of this W's).")
    row = importance.row(request.target, contrast)
    if request.versus is not None:
        if importance.evidence(request.versus) == "none":
            label = request.network.classes.labels[request.versus]
            raise ChipError(f"the class {label} has no fitted row of W at {layer.name}; compare with another class.")
        row = row - importance.row(request.versus, contrast)
    return mask_channels(request, row, layer)


def mask_channels(request: MethodInputs, row: Tensor, layer: Layer) -> Tensor:
    """A row (K,) of ``layer`` with zeros for the channels that the request does not ask for."""
    if request.channels is None or layer.path != request.layer.path:
        return row
    some = torch.tensor(list(request.channels), dtype=torch.long, device=row.device)
    return torch.zeros_like(row).index_copy(0, some, row[some])
