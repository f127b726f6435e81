"""The page Localize: its boxes agree with the evaluation's, and the page as a visitor drives it."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

import chipcore
from chipcore import Importance, Network, maps
from chipcore.datasets.annotations import boxes_in_view
from chipcore.datasets.ilsvrc import Ilsvrc, open_ilsvrc
from chipcore.errors import DataError
from chipcore.evaluation import localization
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.boxes import THRESHOLDS, best_overlap, best_threshold, curves_csv, energy_in_boxes, overlap_curves
from chipcore.evaluation.cutting import relative, threshold_map
from chipcore.images import InputGeometry
from explorer.figures import localize as drawing
from explorer.services import gallery, ground_truth
from explorer.services.start_threshold import start_threshold
from explorer.state import queues

OpenApp = Callable[..., AppTest]
XML = b"<annotation><size><width>451</width><height>300</height></size><object><name>cat</name><bndbox><xmin>45</xmin><ymin>30</ymin><xmax>404</xmax><ymax>269</ymax></bndbox></object></annotation>"


@pytest.fixture
def open_page(open_app: OpenApp) -> OpenApp:
    return partial(open_app, "localize")


@pytest.fixture(autouse=True)
def quiet_desk() -> Iterator[None]:
    yield
    for job in queues.slow_maps().jobs():
        job.stop()
        job.finished.wait(240)
    queues.slow_maps.clear()


def numbers(app: AppTest) -> list[list[str]]:
    """The rows of the first table of scores, as text."""
    body = next(element.proto.body for element in app.get("html") if 'class="chip-scores"' in element.proto.body)
    rows = body.split("<tbody>")[1].split("</tr>")[:-1]
    return [[cell.split("</td>")[0] for cell in row.split("<td>")[1:]] for row in rows]


# --- worked by hand, and against the evaluation ---------------------------------------------------------------


def test_a_cut_by_hand() -> None:
    shares = np.array([[0.9, 0.0, 0.4, 0.4], [0.0, 0.0, 0.4, 1.0], [0.0, 0.0, 0.0, 0.2]])
    low = threshold_map(shares, 0.3)
    assert low.mask.sum() == 5 and low.largest.sum() == 4
    assert low.box == (2, 0, 3, 1)
    assert threshold_map(shares, 0.1).box == (2, 0, 3, 2)
    assert threshold_map(shares, 0.99).box == (3, 1, 3, 1)
    assert threshold_map(np.zeros((3, 3)), 0.0).box is None
    # The box (2, 0, 3, 1) has 4 pixels, the true one 6, and they share 4.
    assert best_overlap(low.box, np.array([[2, 0, 3, 2]])) == pytest.approx(4 / 6)
    assert best_overlap(None, np.array([[2, 0, 3, 2]])) == 0
    square = np.vstack([shares, np.zeros(4)])
    assert energy_in_boxes(square, np.array([[2, 0, 3, 1]])) == pytest.approx(2.2 / 3.3)


def test_a_blank_map_has_no_box() -> None:
    for raw in (torch.full((2, 2), -1.0), torch.full((2, 2), float("nan"))):
        shares = relative(raw, 8)
        assert not shares.any()
        assert threshold_map(shares, 0.0).box is None
        assert not overlap_curves(shares, np.array([[0, 0, 3, 3]]))[0].any()


@pytest.mark.parametrize("method", ["chip", "gradcam", "backprop"])
def test_the_box_that_is_drawn_has_the_iou_of_the_curve_at_every_threshold(lite0: Network, method: str) -> None:
    for name in ("cat", "motorcycle"):
        image = gallery.image(name).open()
        target = int(lite0.probabilities(lite0.input(image))[0].argmax())
        true = ground_truth.from_gallery(name, lite0.geometry)
        assert true is not None
        shares = relative(chipcore.explain(lite0, image, target, method).raw, 224)
        curve = overlap_curves(shares, true.boxes)[0]
        drawn = [best_overlap(threshold_map(shares, float(threshold)).box, true.boxes) for threshold in THRESHOLDS]
        assert drawn == pytest.approx(curve, abs=1e-12)
        assert best_threshold(curve)[1] == max(drawn)


def test_the_app_agrees_with_evaluate_localization(lite0: Network, data: Path) -> None:
    """The same image, map, boxes and thresholds: the curve reaches 0.5 exactly where Table II counts a box as right."""
    images = open_ilsvrc(data / "ilsvrc_val_dev")
    panel = MethodSet.of(lite0, ["head"], ["gradcam"])
    some = dataclasses.replace(images.images, names=images.images.names[:3])
    source = Ilsvrc(data / "ilsvrc_val_dev", lite0.classes, lite0.geometry)
    source.images = some
    report = localization.evaluate(panel, source)
    hits = []
    for name in some.names:
        annotation = images.annotation(name)
        target = lite0.classes.index(annotation.synset)
        image = Image.open(some.root / name).convert("RGB")
        content = (images.annotations / name).with_suffix(".xml").read_bytes()
        true = ground_truth.from_voc_xml(content, "it.xml", image.size, lite0.geometry)
        assert true.boxes.tolist() == boxes_in_view(annotation.boxes, annotation.size, image.size, lite0.geometry).tolist()
        raw = chipcore.explain(lite0, image, target, "gradcam", "head").raw
        curve = overlap_curves(relative(raw, 224), true.boxes)[0]
        outcomes = localization.Outcomes()
        outcomes.add(maps.positive_map(raw, 224).numpy(), true.boxes)
        assert (curve >= 0.5).tolist() == outcomes.table2[0].tolist()
        top = int(lite0.probabilities(lite0.input(image))[0].argmax()) == target
        hits.append((curve >= 0.5) & top)
    found = report.layers["head"].methods["gradcam"]
    assert 1 - np.mean(hits, axis=0).max() == pytest.approx(found["top1_loc_error"])
    assert energy_in_boxes(relative(raw, 224), true.boxes) == pytest.approx(outcomes.energy[0])


@pytest.mark.parametrize("name", list(gallery.ENTRIES))
def test_every_image_of_the_gallery_has_a_box_inside_it(name: str) -> None:
    _what, annotation = ground_truth.GALLERY[name]
    assert annotation.size == gallery.image(name).open().size
    (box,) = annotation.boxes
    assert 0 <= box[0] < box[2] < annotation.size[0] and 0 <= box[1] < box[3] < annotation.size[1]
    for geometry in (InputGeometry(fit="squash"), InputGeometry(fit="crop")):
        assert ground_truth.from_gallery(name, geometry) is not None


def test_boxes_from_links_and_browsers_are_checked() -> None:
    assert ground_truth.read_box("1,2,30,40", 224) == (1, 2, 30, 40)
    for wrong in ("", "1,2,3", "1,2,3,400", "9,2,3,40", "-1,2,3,4", "1,2,x,4", "1,2,3,4,5", "１,2,3,4", "1,2,3,99999999999"):
        assert ground_truth.read_box(wrong, 224) is None, wrong
    assert ground_truth.from_drag([1, 2.0, 30, 40], 224) == (1, 2, 30, 40)
    for sent in ([], [1, 2, 3], ["1", 2, 3, 4], [float("nan"), 0, 1, 1], [None] * 4, [0, 0, 1e12, 1]):
        assert ground_truth.from_drag(sent, 224) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not xml", "not whole XML"),
        (b"<!DOCTYPE x><annotation/>", "not an annotation"),
        (XML.replace(b"<name>cat</name>", b""), "names no object"),
        (XML.replace(b">404<", b">4<"), "empty or outside"),
        (XML.replace(b"<width>451</width>", b""), "lacks a number"),
    ],
)
def test_a_bad_xml_is_refused_in_a_sentence(content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        ground_truth.from_voc_xml(content, "boxes.xml", (451, 300), InputGeometry())
    assert str(caught.value).startswith("boxes.xml")


def test_an_xml_outside_the_crop_says_so() -> None:
    wide = XML.replace(b">451<", b">3000<").replace(b">45<", b">0<").replace(b">404<", b">20<")
    with pytest.raises(DataError, match="outside the part"):
        ground_truth.from_voc_xml(wide, "boxes.xml", (3000, 300), InputGeometry(fit="crop"))


def test_the_picture_of_a_cut(lite0: Network) -> None:
    view = Image.new("RGB", (4, 4), (200, 100, 50))
    shares = np.zeros((4, 4))
    shares[1:3, 1:3] = 1.0
    picture = np.asarray(drawing.cut_picture(view, shares, threshold_map(shares, 0.5), colormap="inferno", opacity=0.0, scale=8))
    assert picture.shape == (32, 32, 3)
    assert (picture[12, 12] == (200, 100, 50)).all(), "kept in colour"
    assert (picture[8, 8] == 255).all(), "outlined"
    assert len(set(picture[0, 0].tolist())) == 1 and picture[0, 0, 0] < 80, "dim and grey"


# --- the page -----------------------------------------------------------------------------------------------


def test_the_page_measures_the_gallery_s_box(open_page: OpenApp, lite0: Network) -> None:
    app = open_page(threshold="30", **{"class": "n02124075"})
    assert not app.exception
    rows = numbers(app)
    true = ground_truth.from_gallery("cat", lite0.geometry)
    assert true is not None
    for row, method in zip(rows, ("chip", "gradcam", "cmwp"), strict=True):
        shares = relative(chipcore.explain(lite0, gallery.image("cat").open(), "n02124075", method).raw, 224)
        curve = overlap_curves(shares, true.boxes)[0]
        assert row[0] == f"{curve[30]:.2f}"
        assert row[1] == f"{curve.max():.2f}"
    assert app.subheader[0].value == f"IoU {rows[0][0]}"
    assert "around the cat" in "".join(one.value for one in app.markdown)


def test_the_threshold_moves_the_box(open_page: OpenApp) -> None:
    app = open_page(located="CHIP")
    before = app.subheader[0].value
    app.slider(key="threshold").set_value(60).run()
    assert app.subheader[0].value != before
    best = next(button for button in app.button if button.key == "to-best")
    best.click().run()
    assert numbers(app)[0][0] == numbers(app)[0][1]


def test_the_slider_starts_at_the_method_s_threshold_until_it_is_moved(open_page: OpenApp, lite0: Network) -> None:
    chip, gradcam = (round(100 * start_threshold(lite0, lite0.layer("head"), method)) for method in ("chip", "gradcam"))
    assert chip != gradcam
    app = open_page()
    assert app.slider(key="threshold").value == chip
    app.segmented_control(key="drawn").set_value("gradcam").run()
    assert app.slider(key="threshold").value == gradcam
    app.slider(key="threshold").set_value(60).run()
    app.segmented_control(key="drawn").set_value("chip").run()
    assert app.slider(key="threshold").value == 60


def test_a_box_of_one_s_own_is_typed_and_in_the_link(open_page: OpenApp) -> None:
    app = open_page(located="CHIP")
    app.number_input(key="box-left").set_value(100).run()
    assert "".join(app.query_params["box"]) == "100,0,198,223"
    linked = open_page(located="CHIP", box="100,0,198,223")
    assert numbers(linked) == numbers(app)
    assert linked.number_input(key="box-left").value == 100
    next(button for button in linked.button if button.key == "forget").click().run()
    assert "box" not in linked.query_params
    assert linked.number_input(key="box-left").value == 0


def test_a_box_of_zero_area_is_a_sentence(open_page: OpenApp) -> None:
    app = open_page(located="CHIP")
    app.number_input(key="box-left").set_value(210).run()
    assert not app.exception
    assert "no area" in app.warning[0].value
    assert "There is no true box" in "".join(one.value for one in app.info)
    assert "box" not in app.query_params


def test_another_image_brings_its_own_box(open_page: OpenApp) -> None:
    app = open_page(located="CHIP", box="10,10,20,20")
    app.pills(key="photo").set_value("motorcycle").run()
    assert "around the motorcycle" in "".join(one.value for one in app.markdown)
    assert "box" not in app.query_params


def test_a_image_without_a_box_asks_for_one(open_page: OpenApp) -> None:
    app = open_page(located="CHIP")
    stream = io.BytesIO()
    gallery.image("coffee").open().save(stream, "PNG")
    box = f"upload-{app.session_state['uploads']}"
    app.file_uploader(key=box).upload("mine.png", stream.getvalue(), "image/png").run()
    assert "There is no true box" in "".join(one.value for one in app.info)
    app.file_uploader(key="xml").upload("mine.xml", XML, "text/xml").run()
    assert "cat, as mine.xml says" in "".join(one.value for one in app.markdown)
    assert app.subheader[0].value.startswith("IoU")
    app.file_uploader(key="xml").upload("bad.xml", b"<annotation>", "text/xml").run()
    assert "not whole XML" in app.warning[0].value
    assert not app.exception


def test_a_file_that_is_no_image_is_a_sentence(open_page: OpenApp) -> None:
    app = open_page(located="CHIP")
    app.file_uploader(key=f"upload-{app.session_state['uploads']}").upload("mine.png", b"no picture", "image/png").run()
    assert not app.exception
    assert "not a photograph" in "".join(one.value for one in app.warning)


def test_no_w_and_no_method_are_sentences(
    open_page: OpenApp, lite0: Network, change_w: Callable[[Callable[[Importance, str], Importance]], None]
) -> None:
    def without(found: Importance, _layer: str) -> Importance:
        found.W[11], found.support[11] = 0, 0
        return found

    rowless = 11
    change_w(without)
    app = open_page(**{"class": str(rowless)})
    assert not app.exception
    assert "has no fitted row of W" in app.info[0].value
    assert len(numbers(app)) == 2
    app.multiselect(key="located").set_value([]).run()
    assert not app.exception
    assert "no map to cut" in "".join(one.value for one in app.info)


def test_the_table_to_take_home() -> None:
    rows = list(csv.reader(io.StringIO(curves_csv({"chip": np.linspace(0, 1, 100)}))))
    assert rows[0] == ["threshold", "chip"]
    assert [[float(value) for value in row] for row in (rows[1], rows[100])] == [[0, 0], [0.99, 1]]
