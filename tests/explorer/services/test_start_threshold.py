"""The threshold that Localize begins with is the measured one of the method, where there is one worth beginning with."""

from __future__ import annotations

import json

from chipcore import Network
from chipcore.storage import ASSETS
from explorer.services.start_threshold import LOWEST, USUAL, start_threshold


def test_the_start_is_the_best_measured_threshold_on_the_most_images(lite0: Network, slim: Network) -> None:
    measured = json.loads((ASSETS / "results" / "localization_lite0.json").read_text(encoding="utf-8"))["layers"]["head"]["methods"]
    assert measured["chip"]["images"] > 500, "other files of this layer hold fewer"
    for method in ("chip", "gradcam"):
        assert start_threshold(lite0, lite0.layer("head"), method) == measured[method]["threshold"] >= LOWEST
    of_slim = json.loads((ASSETS / "results" / "localization_slim.json").read_text(encoding="utf-8"))["layers"]["pool5"]["methods"]
    assert start_threshold(slim, slim.layer("pool5"), "chip") == of_slim["chip"]["threshold"] > USUAL


def test_a_threshold_that_boxes_the_whole_picture_is_no_start(slim: Network) -> None:
    measured = json.loads((ASSETS / "results" / "localization_slim.json").read_text(encoding="utf-8"))["layers"]["pool3"]["methods"]
    assert measured["gradcam"]["threshold"] < LOWEST
    assert start_threshold(slim, slim.layer("pool3"), "gradcam") == USUAL
    assert start_threshold(slim, slim.layer("pool5"), "deepdraw") == USUAL, "never measured"
