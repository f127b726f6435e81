"""Class names from a file: text, JSON or CSV.

- Text: one name a line. Where every line ends in an index (Places365's ``/a/airfield 0``), the index gives the
  order and is taken off, and so is Places365's leading ``/a/``. Lines that begin with a WordNet id
  (``n01440764 tench, Tinca tinca``) give synsets too.
- JSON: a list of names, ``{"0": "airfield", ...}``, or ImageNet's ``{"0": ["n01440764", "tench"], ...}``.
- CSV: a column of names, and an index column if there is one; a header is recognized by its words.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chipcore.datasets.class_names import Classes
from chipcore.errors import DataError
from chipcore.storage import is_file

_SYNSET = re.compile(r"n\d{8}")
_NAME_WORDS = ("name", "class_name", "classname", "label", "category", "scene", "class")  # the first that is there holds the names
_INDEX_WORDS = ("index", "idx", "id", "class_id", "number", "")
_SYNSET_WORDS = ("synset", "wnid", "wordnet")


def read_labels(path: str | Path) -> Classes:
    """The classes that a file names, in the order of the network's outputs.

    Raises ``DataError`` with one sentence for a file that is missing, empty, not UTF-8, not what its ending
    says, or that names two classes alike.
    """
    path = Path(path)
    if not is_file(path):
        raise DataError(f"there is no file of labels {path}; check the path.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check its permissions.") from None
    try:
        rows = {".json": _json, ".csv": _csv, ".tsv": _csv}.get(path.suffix.lower(), _text)(text)
    except (ValueError, csv.Error, RecursionError) as error:  # a JSONDecodeError is a ValueError
        raise DataError(f"{path} holds no labels we can read ({error}); give one name a line.") from None
    if not rows:
        raise DataError(f"{path} holds no labels; give one name a line.")
    for place, (name, _synset) in enumerate(rows):
        if not name:
            raise DataError(f"{path} has no name for class {place}; give every class one.")
    synsets = tuple(synset for _name, synset in rows) if all(synset for _name, synset in rows) else ()
    again = [row for row, times in Counter(rows if synsets else [(name, "") for name, _ in rows]).items() if times > 1]
    if again:  # ImageNet's two cranes are told apart by their synsets
        raise DataError(f"{path} names {again[0][0]!r} more than once; give every class a name of its own.")
    return Classes(tuple(name for name, _synset in rows), synsets)


def _text(text: str) -> list[tuple[str, str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ends = [re.fullmatch(r"(.*\S)\s+(\d+)", line) for line in lines]
    if all(ends):
        order = [int(end[2]) for end in ends if end]
        bare = [end[1] for end in ends if end]
        # 'stage 0', 'stage 1', ... are names, not one name and its indices.
        if sorted(order) == list(range(len(lines))) and len(set(bare)) == len(lines):
            lines = [name for _place, name in sorted(zip(order, bare, strict=True))]
    if all(re.match(r"/[a-z]/", line) for line in lines):
        lines = [line[3:] for line in lines]
    return [_with_synset(line) for line in lines]


def _with_synset(line: str) -> tuple[str, str]:
    first, _space, rest = line.partition(" ")
    return (rest.strip(), first) if rest and _SYNSET.fullmatch(first) else (line, "")


def _json(text: str) -> list[tuple[str, str]]:
    content = json.loads(text)
    if isinstance(content, dict):
        content = _in_order({str(key): value for key, value in content.items()})
    if not isinstance(content, list):
        raise ValueError("neither a list nor an object")
    return [_json_name(value) for value in content]


def _json_name(value: Any) -> tuple[str, str]:
    if isinstance(value, str):
        return value.strip(), ""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value):
        return (value[1].strip(), value[0]) if _SYNSET.fullmatch(value[0]) else (value[0].strip(), "")
    raise ValueError(f"{json.dumps(value)[:40]} is not a name")


def _in_order(named: dict[str, Any]) -> list[Any]:
    if not all(key.strip().isdigit() for key in named):
        if all(isinstance(value, int) for value in named.values()):  # {"airfield": 0, ...}
            named = {str(value): key for key, value in named.items()}
        else:
            raise ValueError("its keys are not class indices")
    by_index = {int(key): value for key, value in named.items()}
    if sorted(by_index) != list(range(len(named))):
        raise ValueError(f"its indices are not 0 to {len(named) - 1}")
    return [by_index[place] for place in range(len(named))]


def _csv(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    delimiter = max(",;\t", key=lines[0].count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    header = [cell.lower() for cell in rows[0]]
    headed = any(cell in (*_NAME_WORDS, *_INDEX_WORDS[:-1], *_SYNSET_WORDS) for cell in header)
    body = rows[1:] if headed else rows
    if any(len(row) != len(rows[0]) for row in body):
        raise ValueError("its rows differ in length")
    columns = list(zip(*body, strict=True))
    index = next((i for i, column in enumerate(columns) if _counts(column) and (not headed or header[i] in (*_INDEX_WORDS, "class"))), None)
    synset = next((i for i, column in enumerate(columns) if all(_SYNSET.fullmatch(cell) for cell in column)), None)
    left = [i for i in range(len(columns)) if i not in (index, synset)]
    named = sorted((i for i in left if headed and header[i] in _NAME_WORDS), key=lambda i: _NAME_WORDS.index(header[i])) or left
    if not named:
        raise ValueError("it has no column of names")
    found = [(row[named[0]], row[synset] if synset is not None else "") for row in body]
    return found if index is None else _in_order({row[index]: one for row, one in zip(body, found, strict=True)})


def _counts(column: Sequence[str]) -> bool:
    return all(cell.isdigit() for cell in column) and sorted(int(cell) for cell in column) == list(range(len(column)))
