"""Class names from files, worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from chipcore.datasets.label_files import read_labels
from chipcore.errors import DataError

CRANES = '{"0": ["n02012849", "crane"], "1": ["n03126707", "crane"]}'


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("a.txt", "oak\n\n ash \nfir\n", ["oak", "ash", "fir"]),
        ("a.txt", "\ufeffoak\nash\n", ["oak", "ash"]),
        ("a.txt", "/f/fir 2\n/o/oak 0\n/a/ash/old 1\n", ["oak", "ash/old", "fir"]),
        ("a.txt", "stage 0\nstage 1\n", ["stage 0", "stage 1"]),
        ("a.txt", "route 66\nroute 5\n", ["route 66", "route 5"]),
        ("a.json", '["oak", "ash"]', ["oak", "ash"]),
        ("a.json", '{"10": "k", ' + ", ".join(f'"{i}": "{chr(97 + i)}"' for i in range(10)) + "}", list("abcdefghijk")),
        ("a.json", '{"ash": 1, "oak": 0}', ["oak", "ash"]),
        ("a.json", CRANES, ["crane", "crane"]),
        ("a.csv", "index,name\n1,ash\n0,oak\n", ["oak", "ash"]),
        ("a.csv", "oak\nash\n", ["oak", "ash"]),
        ("a.csv", "id;latin;name\n0;quercus;oak\n1;fraxinus;ash\n", ["oak", "ash"]),
        ("a.csv", '0,"oak, common"\n1,ash\n', ["oak, common", "ash"]),
        ("a.tsv", "n02012849\tcrane\nn03126707\tcrane\n", ["crane", "crane"]),
    ],
)
def test_formats(tmp_path: Path, file: str, text: str, names: list[str]) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert list(read_labels(tmp_path / file).names) == names


def test_synsets_are_kept(tmp_path: Path, data: Path) -> None:
    (tmp_path / "a.json").write_text(CRANES)
    assert read_labels(tmp_path / "a.json").synsets == ("n02012849", "n03126707")
    imagenet = read_labels(data / "synset_words.txt")
    assert len(imagenet) == 1000 and imagenet.synsets[340] == "n02391049" and imagenet.index("zebra") == 340


def test_the_places365_file_as_it_comes(data: Path) -> None:
    places = read_labels(data / "networks" / "categories_places365.txt")
    assert len(places) == 365
    assert (places.names[0], places.names[8], places.names[364]) == ("airfield", "apartment_building/outdoor", "zen_garden")
    assert places.index("airport terminal") == 2


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("a.txt", b"oak\nash\noak\n", "names 'oak' more than once"),
        ("a.txt", b"\xff\xfeo\x00", "not UTF-8"),
        ("a.txt", b"\n\n", "holds no labels"),
        ("a.json", b"[1, 2]", "1 is not a name"),
        ("a.json", b'["oak"', "no labels we can read"),
        ("a.json", b'{"0": "oak", "2": "ash"}', "indices are not 0 to 1"),
        ("a.json", b'["oak", ""]', "no name for class 1"),
        ("a.csv", b"index,name\n0,oak\n1\n", "rows differ in length"),
        ("a.csv", b"index\n0\n1\n", "no column of names"),
    ],
)
def test_refused_with_one_sentence(tmp_path: Path, file: str, content: bytes, sentence: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        read_labels(tmp_path / file)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="there is no file of labels"):
        read_labels(tmp_path / "none.txt")
