"""An evaluation's result as a table for the terminal."""

from __future__ import annotations

from typing import Any

# Column heading, field of the method's report, and whether it is a share to be shown in percent.
_COLUMNS: dict[str, tuple[tuple[str, str, bool], ...]] = {
    "localization": (
        ("MaxBoxAcc", "max_box_acc", True), ("at t", "threshold", False), ("V2", "max_box_acc_v2", True), ("energy", "energy_pointing", True),
        ("top-1 err", "top1_loc_error", True), ("top-5 err", "top5_loc_error", True), ("s/image", "seconds_per_image", False),
    ),
    "segmentation": (("IoU", "iou", True), ("at t", "threshold", False), ("own t", "iou_own_threshold", True), ("s/image", "seconds_per_image", False)),
    "pointing": (("pointing", "pointing", True), ("energy", "energy_pointing", True), ("s/image", "seconds_per_image", False)),
    "grid": (("grid", "grid_pointing", True), ("s/image", "seconds_per_image", False)),
    "faithfulness": (("deletion", "deletion_auc", False), ("insertion", "insertion_auc", False), ("s/image", "seconds_per_image", False)),
}  # fmt: skip
_MAIN = {
    "localization": "max_box_acc",
    "segmentation": "iou",
    "pointing": "pointing",
    "grid": "grid_pointing",
    "faithfulness": "deletion_auc",
}


def _cell(value: Any, percent: bool) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def _difference(compared: dict[str, Any], field: str, percent: bool) -> str:
    one = compared.get(field)
    if one is None:
        return ""
    scale, digits = (100, 1) if percent else (1, 3)
    return f"{scale * one['difference']:+.{digits}f} [{scale * one['low']:+.{digits}f}, {scale * one['high']:+.{digits}f}]"


def _block(kind: str, rows: dict[str, dict[str, Any]], baseline: str | None) -> list[str]:
    columns = [column for column in _COLUMNS[kind] if any(column[1] in row for row in rows.values())]
    main = _MAIN[kind]
    percent = next((share for _title, field, share in columns if field == main), True)
    wide = max([len(name) for name in rows] + [18])
    compared = (
        f"  {_title(kind, main)} - {baseline}'s [95%]"
        if baseline and any(main in row.get("difference", {}) for row in rows.values())
        else ""
    )
    lines = ["    " + " " * wide + "".join(f"{title:>11}" for title, _field, _share in columns) + compared]
    for name, row in rows.items():
        figures = "".join(f"{_cell(row.get(field), share):>11}" for _title_of, field, share in columns)
        lines.append(f"    {name:<{wide}}{figures}  {_difference(row.get('difference', {}), main, percent)}".rstrip())
    return lines


def _title(kind: str, field: str) -> str:
    return next(title for title, name, _share in _COLUMNS[kind] if name == field)


def table(result: dict[str, Any]) -> str:
    """The figures of every layer, one line a method; shares in percent."""
    kind = "grid" if "grid" in result else result["protocol"]
    lines = [
        f"{result['protocol']} of {result['network']} on {result['data']}" + (f" ({result['data_set']})" if "data_set" in result else "")
    ]
    if kind == "grid":
        lines.append(
            f"{result['grid']} x {result['grid']} mosaics of {result['mosaic_size']} px ({result['mosaic_scale']}); chance is {100 * result['chance']:.1f}"
        )
    for name, layer in result["layers"].items():
        counted = (
            f"{layer['objects']} objects in {layer['images']} photographs"
            if "objects" in layer
            else f"{layer['images']} {'mosaics' if kind == 'grid' else 'photographs'}"
        )
        why = ", ".join(f"{count} {reason}" for reason, count in layer["skipped_because"].items())
        lines.append(f"  {name}: {counted}" + (f"; left out: {why}" if why else ""))
        if kind != "faithfulness" or "deletion" in result["parts"]:
            lines += _block(kind, layer["methods"], result["baseline"])
        if "channels" in layer:
            lines.append("    closing channels, area under f^c (low is good)")
            lines += [
                f"    {order:<30}{_cell(row['closing_auc'], False):>8}  {_difference(row.get('difference', {}), 'closing_auc', False)}".rstrip()
                for order, row in layer["channels"].items()
            ]
        for method, row in layer["methods"].items():
            if "sanity" in row:
                stages = ", ".join(
                    f"{stage} {_cell(found['spearman'], False)} / {_cell(found['ssim'], False)}" for stage, found in row["sanity"].items()
                )
                lines.append(f"    {method}: likeness to maps with random weights (Spearman / SSIM): {stages}")
    if result["broken"]:
        lines.append(f"{len(result['broken'])} broken files were left out; they are named above.")
    return "\n".join(lines)
