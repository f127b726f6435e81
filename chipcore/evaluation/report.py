"""An evaluation's result as a table for the terminal."""

from __future__ import annotations

from typing import Any

from chipcore.evaluation.protocols import Protocol, format_difference, format_value, protocols


def table(result: dict[str, Any]) -> str:
    """The figures of every layer, one line a method; shares in percent.

    Parameters
    ----------
    result
        What ``chipcore evaluate --json`` writes.
    """
    protocol = protocols()["grid" if "grid" in result else result["protocol"]]
    shown = f" ({result['data_set']})" if "data_set" in result else ""
    lines = [f"{result['protocol']} of {result['network']} on {result['data']}{shown}", *protocol.intro(result)]
    for name, layer in result["layers"].items():
        counted = f"{layer['images']} {protocol.unit}"
        if "objects" in layer:
            counted = f"{layer['objects']} objects in {counted}"
        why = ", ".join(f"{count} {reason}" for reason, count in layer["skipped_because"].items())
        lines.append(f"  {name}: {counted}" + (f"; left out: {why}" if why else ""))
        if any(protocol.main in figures for figures in layer["methods"].values()):
            lines += _block(protocol, layer["methods"], result["baseline"])
        lines += protocol.details(layer)
    if result["broken"]:
        lines.append(f"{len(result['broken'])} broken files were left out; they are named above.")
    return "\n".join(lines)


def _block(protocol: Protocol, rows: dict[str, dict[str, Any]], baseline: str | None) -> list[str]:
    columns = [column for column in protocol.columns if any(column.figure in row for row in rows.values())]
    main = next(column for column in protocol.columns if column.figure == protocol.main)
    wide = max([len(name) for name in rows] + [18])
    compared = baseline and any(main.figure in row.get("difference", {}) for row in rows.values())
    heads = "".join(f"{column.title:>11}" for column in columns)
    lines = ["    " + " " * wide + heads + (f"  {main.title} - {baseline}'s [95%]" if compared else "")]
    for name, row in rows.items():
        figures = "".join(f"{format_value(row.get(column.figure), column.percent):>11}" for column in columns)
        difference = format_difference(row.get("difference", {}), main.figure, main.percent)
        lines.append(f"    {name:<{wide}}{figures}  {difference}".rstrip())
    return lines
