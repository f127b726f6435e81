"""What ``python -m chipcore networks`` says; it reads the table, builds nothing and fetches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chipcore.networks.spec import NetworkSpec


def row_of(entry: NetworkSpec) -> dict[str, Any]:
    """One network of the registry, ready for JSON. Sizes are [height, width] in pixels of the maps."""
    size = entry.geometry.size
    return {
        "name": entry.name, "title": entry.title, "bundled": entry.bundled, "here": entry.here, "input": size, "fit": entry.geometry.fit,
        "classes": len(entry.classes()),
        "layers": [
            {"name": at.name, "path": at.path, "channels": at.channels, "size": [at.side, at.side], "stride": round(size / at.side)}
            for at in entry.depths
        ],
    }  # fmt: skip


def in_words(row: dict[str, Any]) -> Iterator[str]:
    """The same in words."""
    weights = "weights bundled" if row["bundled"] else "weights on this machine" if row["here"] else "weights by --checkpoint or download"
    yield f"{row['name']:<20} {row['title']}, {row['classes']} classes, {row['input']} px ({row['fit']}), {weights}"
    for at in row["layers"]:
        fitted = "" if "fitted" not in at else f"  {at['fitted']} rows of W" if at["fitted"] else "  no W yet"
        yield f"    {at['name']:<11} {at['path']:<26} {at['channels']:>5} channels, {at['size'][0]:>3} x {at['size'][1]:<3}{fitted}"
