"""What an evaluation gives back: frozen dataclasses that become a table, JSON, or a file.

``json_order`` lists a class's fields as its JSON has them; in a result's JSON ``images`` is called ``photographs``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from chipcore.storage import write_whole

if TYPE_CHECKING:
    import pandas as pd

Figures = Mapping[str, Any]  # of one method at one layer, by their names in the JSON


def _as_dict(value: LayerResult | Result) -> dict[str, Any]:
    kept = {one.name for one in fields(value) if not (one.name in value.left_out_if_none and getattr(value, one.name) is None)}
    return {name: getattr(value, name) for name in value.json_order if name in kept}


@dataclass(frozen=True)
class LayerResult:
    """What was measured at one layer; protocols add fields of their own.

    ``images`` took part, ``skipped`` did not, for the reasons that ``skipped_because`` counts; ``weak_rows`` of them
    were of a class whose row of W is weak. ``methods`` has the figures of every method.
    """

    json_order: ClassVar[tuple[str, ...]] = ("images", "skipped", "skipped_because", "weak_rows", "methods")
    left_out_if_none: ClassVar[tuple[str, ...]] = ("weak_rows",)

    images: int
    skipped: int
    skipped_because: Mapping[str, int]
    weak_rows: int | None
    methods: Mapping[str, Figures]

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, in the JSON's order."""
        return _as_dict(self)


@dataclass(frozen=True)
class Result:
    """One evaluation of several methods at several layers; the base of every protocol's result.

    ``images`` is the number of images looked at, ``broken`` has a sentence for each that could not be read, and
    ``layers`` what was measured, by the layer's name.

    Examples
    --------
    >>> layer = LayerResult(2, 0, {}, 0, {"chip": {"iou": 0.5}, "gradcam": {"iou": 0.25}})
    >>> result = Result(images=2, broken=[], layers={"head": layer})
    >>> result.to_frame()[["method", "iou"]].values.tolist()
    [['chip', 0.5], ['gradcam', 0.25]]
    """

    json_order: ClassVar[tuple[str, ...]] = ("images", "broken", "layers")
    left_out_if_none: ClassVar[tuple[str, ...]] = ("images",)

    images: int | None
    broken: list[str]
    layers: Mapping[str, LayerResult]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists, in the JSON's order."""
        found = {"photographs" if name == "images" else name: value for name, value in _as_dict(self).items()}
        return {**found, "layers": {name: layer.to_dict() for name, layer in self.layers.items()}}

    def to_json(self) -> str:
        """The result as JSON; figures are rounded to six digits, NaN becomes null."""
        return json.dumps(plain(self.to_dict()), indent=2, allow_nan=False)

    def to_frame(self) -> pd.DataFrame:
        """A row for each layer and method, a column for each figure.

        Where methods are compared, ``X_difference``, ``X_low`` and ``X_high`` are the difference of figure X to the
        baseline and its 95% interval. Curves and tables within a figure are left out.
        """
        import pandas as pd  # half a second, which the command line would pay

        rows = []
        for name, layer in self.layers.items():
            for method, figures in layer.methods.items():
                row: dict[str, Any] = {"layer": name, "method": method, "images": layer.images}
                row |= {key: value for key, value in figures.items() if not isinstance(value, dict | list | tuple)}
                for key, compared in figures.get("difference", {}).items():
                    row |= {f"{key}_difference": compared["difference"], f"{key}_low": compared["low"], f"{key}_high": compared["high"]}
                rows.append(row)
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> Path:
        """Write the result, whole or not at all: the table where the file ends in ``.csv``, else the JSON."""
        file = Path(path)
        text = self.to_frame().to_csv(index=False) if file.suffix.lower() == ".csv" else self.to_json() + "\n"
        write_whole(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        return file


def plain(value: Any) -> Any:
    """A value as JSON takes it: no NaN, and six digits, which are more than any of these figures is worth."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
