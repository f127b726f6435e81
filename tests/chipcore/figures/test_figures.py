"""The paper's figures: numbers worked by hand, what a figure says, and the command on real photographs."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import chipcore
from chipcore.analysis import paper_figures as paper
from chipcore.cli.main import main
from chipcore.datasets.class_names import Classes
from chipcore.errors import ChipError
from chipcore.figures import heatmap, map_grid, strip, table, venn
from chipcore.figures.channels import regions
from chipcore.importance import Importance
from chipcore.methods import Saliency
from chipcore.networks import Network, load_network

NAMES = Classes(("bullfrog, Rana", "tree frog", "zebra"))


def importance_of(W: list[list[float]]) -> Importance:
    rows = torch.tensor(W)
    ones = torch.ones(len(rows))
    return Importance(rows, ones, (rows != 0).sum(1).float(), 20 * ones, 20 * ones)


W = importance_of([[5, 4, 3, 0, 0, -9], [4, 5, 0, 3, 0, 0], [0, 0.004, 0, 0, 5, 0]])


def test_shared_channels_by_hand() -> None:
    shared = paper.shared_channels(W, (0, 1, 2), NAMES.labels, top=2)
    assert shared.top.tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0]]
    assert shared.above.tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]], "0.004 is less than a thousandth of 5"
    assert (shared.common(0, 1), shared.common(1, 2), shared.common(0, 1, "above"), shared.common(1, 2, "above")) == (2, 1, 2, 0)
    lines = paper.channel_records(shared)
    assert [line["channel"] for line in lines] == list(range(6))
    assert lines[5]["bullfrog"] == -9 and lines[0]["tree frog: top 2"] == 1 and lines[1]["zebra: above"] == 0
    with pytest.raises(ChipError, match="zebra has no fitted row"):
        paper.shared_channels(importance_of([[1.0, 0], [1, 0], [0, 0]]), (0, 2), ("bullfrog", "zebra"))


def test_the_regions_of_a_venn_diagram_by_hand() -> None:
    sets = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 0, 0, 1]], bool)
    assert regions(sets) == {"100": 1, "010": 1, "110": 1, "001": 1, "101": 0, "011": 0, "111": 1}
    assert sum(regions(sets).values()) == 5
    assert regions(sets[:2]) == {"10": 1, "01": 1, "11": 2}


def texts(figure) -> list[str]:  # type: ignore[no-untyped-def]
    import matplotlib.text

    return [one.get_text() for one in figure.findobj(matplotlib.text.Text) if one.get_text()]


def test_venn_says_the_counts_and_refuses_other_numbers_of_classes() -> None:
    found = texts(venn(W, ["bullfrog", 1, "zebra"], top=2, names=NAMES))
    # Left: channel 0 in both frogs, 1 in all, 4 in the zebra alone. Right: 0 and 1 in both frogs, 2, 3 and 4 in one each.
    numbers = [one for one in found if one.isdigit()]
    assert sorted(numbers[:7]) == sorted(["0", "0", "1", "1", "0", "0", "1"])
    assert sorted(numbers[7:]) == sorted(["1", "1", "2", "1", "0", "0", "0"])
    assert "zebra" in found and "the 2 most important" in found
    with pytest.raises(ChipError, match="two or three classes; you gave 1"):
        venn(W, [0], names=NAMES)
    with pytest.raises(ChipError, match="no class 'lion'"):
        venn(W, ["lion", "zebra"], names=NAMES)


def test_the_heat_map_shows_the_square_root_of_each_class_as_a_share_of_its_largest() -> None:
    figure = heatmap(W, [0, 2], names=NAMES)
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    assert drawn.shape == (6, 2), "channels down, classes across"
    assert drawn[:, 0] == pytest.approx([1, math.sqrt(0.8), math.sqrt(0.6), 0, 0, 0])
    assert drawn[:, 1] == pytest.approx([0, math.sqrt(0.0008), 0, 0, 1, 0])


def test_names_come_from_the_registered_network() -> None:
    network = load_network("vgg16_slim", download=False)
    found = texts(heatmap(chipcore.load_importance(network, "pool5"), ["zebra", "frog"]))
    assert "zebra" in found and "frog" in found and "channel index" in found


def saliency_of(raw: torch.Tensor, view: Image.Image) -> Saliency:
    return Saliency("chip", "net", "pool5", 2, "zebra", 0.75, raw, view, 0.0, 1)


def test_the_share_inside_a_class_by_hand() -> None:
    inside = np.zeros((4, 4), bool)
    inside[:, :2] = True
    pick = paper.Pick("a.jpg", 2, "zebra", Image.new("RGB", (4, 4)), inside)
    raw = torch.tensor([[3.0, 3, 1, 1]] * 4)
    raw[0, 3] = -7  # what speaks against the class counts as nothing
    row = paper.Row(pick, 0.75, (saliency_of(raw, pick.view), "no map"))
    assert row.inside(0) == pytest.approx(24 / 31)
    assert math.isnan(row.inside(1))
    lines = paper.records([row])
    assert lines[0]["share inside the class"] == round(24 / 31, 4) and lines[1]["problem"] == "no map"
    figure = map_grid([row], ["CHIP", "nothing"], "What it is.")
    assert len(figure.axes) == 3 and {"original image", "CHIP", "What it is."} <= set(texts(figure))


def test_a_strip_puts_a_photograph_before_the_first_of_its_maps(data: Path) -> None:
    network = load_network("vgg16_slim", download=False)
    photographs = [sorted((data / "fourteen" / "val" / name).iterdir())[0] for name in ("zebra", "frog")]
    maps = [chipcore.explain(network, photographs[0], "zebra", method, "pool5") for method in ("chip", "gradcam")]
    maps.append(chipcore.explain(network, photographs[1], "frog", "chip", "pool5"))
    figure = strip(maps, "Two photographs.")
    assert len(figure.axes) == 5
    labels = [ax.get_xlabel().split(",")[0] for ax in figure.axes]
    assert labels == ["", "CHIP", "Grad-CAM", "", "CHIP"]


def test_a_table_has_a_cell_for_every_heading() -> None:
    found = texts(table(["Method", "Error"], [["CHIP", "51.5"], ["Grad-CAM", "56.5"]], "Errors."))
    assert {"Method", "Error", "CHIP", "51.5", "Grad-CAM", "56.5", "Errors."} <= set(found)
    with pytest.raises(ValueError, match="a cell for every heading"):
        table(["Method", "Error"], [["CHIP"]])


def test_table_1_is_the_papers() -> None:
    lines = {line["method"]: [line[name] for name, _holds in paper.PROPERTIES] for line in paper.table_1()}
    assert list(lines)[:9] == list(paper.TABLE_1)
    assert lines["Grad-CAM"] == [False, True, False, True, False, False, True]
    assert lines["CHIP & Refined CHIP"] == [True, False, True, True, True, True, True]
    assert lines["CAM"] == [False, True, False, True, False, False, False]


@pytest.fixture(scope="module")
def folders(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    for name in ("cat", "frog", "zebra"):
        (root / name).mkdir()
        for file in sorted((data / "fourteen" / "val" / name).iterdir())[:5]:
            (root / name / file.name).symlink_to(file)
    return root


def test_the_photograph_that_is_shown_is_the_one_the_network_is_surest_of(folders: Path) -> None:
    network: Network = load_network("vgg16_slim", download=False)
    opened = paper.open_folders(network, folders)
    zebra = network.classes.index("zebra")
    (pick,) = paper.choose(network, opened, [zebra])
    shares = {}
    for file in sorted((folders / "zebra").iterdir()):
        with Image.open(file) as image:
            shares[f"zebra/{file.name}"] = float(network.probabilities(network.input(image))[0, zebra])
    assert pick.name == max(shares, key=lambda name: shares[name])
    left, right = paper.mosaics(network, opened, (zebra, network.classes.index("cat")), (zebra, network.classes.index("cat")))
    assert left.inside is not None and left.inside.mean() == 0.5 and (left.inside == ~right.inside).all()
    assert left.inside[:, 0].all() and not left.inside[:, -1].any(), "the first class is on the left"
    with pytest.raises(ChipError, match="too few photographs"):
        paper.mosaics(network, opened, (zebra,) * 4, [zebra], skip=3)


def test_the_command_writes_every_figure_it_can(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "figures",
        "--network",
        "vgg16_slim",
        "--images",
        str(folders),
        "--out",
        str(tmp_path),
        "--lime-samples",
        "20",
        "--device",
        "cpu",
    ]
    assert main([*words, "--classes", "frog", "cat", "zebra", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert [one["figure"] for one in told["figures"]] == ["Fig. 3", "Fig. 4", "Fig. 5", "Fig. 8", "Fig. 9", "Fig. 10", "Fig. 11", "Table I"]
    assert "--boxes" in told["left_out"]["Table II"] and "no Table II" in captured.err
    for one in told["figures"]:
        for file in map(Path, one["files"]):
            assert file.stat().st_size > 100, file
            assert file.read_bytes()[:4] == {".png": b"\x89PNG", ".pdf": b"%PDF"}.get(file.suffix, file.read_bytes()[:4])
    assert (tmp_path / "captions.txt").read_text().count("Fig. ") >= 7
    lines = list(csv.DictReader((tmp_path / "fig_9.csv").open()))
    assert {line["method"] for line in lines} == {"gradcam", "chip"} and {line["class"] for line in lines} == {"zebra"}
    assert len(lines) == 2 * 2 * 6, "two pictures, two methods, six depths"
    assert all(0 <= float(line["share inside the class"]) <= 1 for line in lines)
    eleven = list(csv.DictReader((tmp_path / "fig_11.csv").open()))
    assert len(eleven) == 128 and sum(int(line["zebra: top 10"]) for line in eleven) == 10


def test_images_in_memory_are_enough_and_what_is_made_is_one_thing(folders: Path, tmp_path: Path) -> None:
    images = [(Image.open(file).convert("RGB"), f"{file.parent.name}/{file.stem}") for file in sorted(folders.rglob("*.*"))]
    figures = chipcore.figures.PaperFigures("vgg16_slim", images, classes=["frog", "zebra"], pair=["cat", "zebra"])
    ten = figures.make("10")
    assert (ten.title, ten.file_name) == ("Fig. 10", "fig_10") and ten.csv.splitlines()[0].startswith("channel,frog,")
    assert any(one.startswith("Fig. 10. ") for one in texts(ten.figure))
    slide = ten.slide
    assert slide.get_size_inches()[0] / slide.get_size_inches()[1] == pytest.approx(16 / 9)
    assert "Fig. 10" in texts(slide) and not any(one.startswith("Fig. 10. ") for one in texts(slide))
    with pytest.raises(ChipError, match="no figure '7'; give one of 3, 4"):
        figures.make("7")
    with pytest.raises(ChipError, match="--boxes"):
        figures.make("II")


@pytest.mark.slow
def test_table_2_from_boxes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a few ILSVRC photographs, with a network whose classes are synsets."""
    small = tmp_path / "boxes"
    for part in ("Data", "Annotations"):
        (small / part / "CLS-LOC" / "val").mkdir(parents=True)
    for file in sorted((data / "ilsvrc_val_dev" / "Data" / "CLS-LOC" / "val").iterdir())[:12]:
        (small / "Data" / "CLS-LOC" / "val" / file.name).symlink_to(file)
        annotation = data / "ilsvrc_val_dev" / "Annotations" / "CLS-LOC" / "val" / f"{file.stem}.xml"
        (small / "Annotations" / "CLS-LOC" / "val" / annotation.name).symlink_to(annotation)
    words = ["figures", "--network", "efficientnet_lite0", "--layer", "head", "--images", str(data / "classes"), "--boxes", str(small)]
    assert main([*words, "--only", "II", "--out", str(tmp_path / "out")]) == 0
    assert "CHIP minus Grad-CAM" in capsys.readouterr().out
    lines = {line["method"]: line for line in csv.DictReader((tmp_path / "out" / "table_II.csv").open())}
    assert list(lines) == ["Backprop", "c-MWP", "Grad-CAM", "CHIP"]
    assert all(0 <= float(line["top-5 localization error"]) <= float(line["top-1 localization error"]) <= 1 for line in lines.values())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--images", "{none}"], "is not a folder"),
        (["--images", "{own}", "--layer", "pool9"], "no layer 'pool9'"),
        (["--images", "{own}", "--classes", "lion"], "no class 'lion'"),
        (["--images", "{own}", "--only", "II"], "none of the figures could be drawn"),
        (["--images", "{own}", "--only", "7"], "invalid choice"),
        (["--images", "{own}", "--lime-samples", "-1"], "--lime-samples is -1"),
    ],
)
def test_mistakes_cost_one_sentence(
    words: list[str], sentence: str, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [word.format(own=folders, none=tmp_path / "none") for word in words]
    assert main(["figures", "--network", "vgg16_slim", "--out", str(tmp_path / "out"), *named]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and "Traceback" not in captured.err


def test_a_plain_import_is_enough() -> None:
    code = "import chipcore; print(chipcore.figures.venn.__name__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "venn"
