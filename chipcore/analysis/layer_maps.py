"""The maps of one class at every depth of a network, and what has to be said about them in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from chipcore import maps
from chipcore.errors import ChipError
from chipcore.importance import Importance
from chipcore.maps import STATES
from chipcore.networks import Layer


@dataclass(frozen=True)
class LayerMap:
    """One layer's answer: its raw map (u, v), or the reason why there is none to show.

    ``row`` is w_c (K,), of W or, where ``local_layer_map``, fitted on this image alone. ``missing`` is about W (not
    fitted, damaged, no row for this class), ``blank`` about a map with nothing positive to see in it. Both are
    sentences; where both are empty there is a picture.
    """

    layer: Layer
    importance: Importance | None = None
    raw: Tensor | None = None
    row: Tensor | None = None
    missing: str = ""
    blank: str = ""
    local: bool = False

    @property
    def shown(self) -> bool:
        """Whether there is something positive to see."""
        return self.drawn()

    @property
    def maximum(self) -> float:
        """The largest value that is drawn; 0 where nothing is."""
        return self.top()

    def drawn(self, signed: bool = False) -> bool:
        """Whether there is a picture, of the positive part or of both signs."""
        return self.raw is not None and (not self.blank or (signed and self.blank == STATES["no positive part"]))

    def top(self, signed: bool = False) -> float:
        """The value at the end of the colors: the maximum, for both signs the largest magnitude; 0 where nothing is drawn."""
        if self.raw is None or not self.drawn(signed):
            return 0.0
        return float(self.raw.abs().max() if signed else self.raw.max())


def layer_map(layer: Layer, target: int, features: Tensor, load: Callable[[], Importance]) -> LayerMap:
    """The CHIP map of a class at one layer.

    Args:
        layer: where.
        target: the class index c.
        features: A of the image, shape (K, u, v).
        load: gives W of the layer, or raises ``ChipError``.
    """
    try:
        importance = load()
    except ChipError as error:
        return LayerMap(layer, missing=str(error))
    if importance.evidence(target) == "none":
        return LayerMap(layer, importance, missing="no row of W for this class")
    return _mapped(layer, importance, importance.row(target), features)


def local_layer_map(found: LayerMap, row: Tensor, features: Tensor) -> LayerMap:
    """A depth without W, with a row that was fitted on the image itself in its place."""
    return _mapped(found.layer, found.importance, row, features, local=True)


def _mapped(layer: Layer, importance: Importance | None, row: Tensor, features: Tensor, local: bool = False) -> LayerMap:
    raw = maps.chip_map(row, features)
    state = maps.state(raw)
    return LayerMap(layer, importance, raw, row, blank="" if state == "ok" else STATES[state], local=local)


@dataclass(frozen=True)
class Contribution:
    """One channel's share w_c^k A_k(y, x) of a map's value at one place."""

    channel: int
    weight: float
    activation: float

    @property
    def value(self) -> float:
        return self.weight * self.activation


@dataclass(frozen=True)
class ContributionSum:
    """Eq. 10 at the strongest place of a map: its largest terms one by one, the others together."""

    row: int
    column: int
    terms: tuple[Contribution, ...]
    others: int
    rest: float
    total: float


def strongest_sum(found: LayerMap, features: Tensor, count: int = 3) -> ContributionSum:
    """Eq. 10 with its values filled in, where the map is largest."""
    if found.raw is None or found.row is None:
        raise ValueError(f"{found.layer.name} has no map")
    row, column = divmod(int(found.raw.argmax()), found.raw.shape[1])
    weights, activations = found.row, features[:, row, column]
    values = weights * activations
    order = [int(k) for k in values.abs().argsort(descending=True)[:count] if values[k] != 0]
    terms = tuple(Contribution(k, float(weights[k]), float(activations[k])) for k in order)
    total = float(found.raw[row, column])
    return ContributionSum(row, column, terms, int((values != 0).sum()) - len(terms), total - sum(term.value for term in terms), total)


def evidence_of(importances: Sequence[Importance], classes: int) -> list[str]:
    """Per class the best evidence that any of these W has for it: 'none', 'weak', 'pooled' or 'good'."""
    order = ("none", "weak", "pooled", "good")
    levels = [importance.evidence_levels(range(classes)) for importance in importances]
    return [max(of_one, key=order.index) for of_one in zip(*levels, strict=True)] if levels else ["none"] * classes
