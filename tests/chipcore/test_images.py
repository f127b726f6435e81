"""One geometry: every kind of file ends upright, opaque, RGB and fitted."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chipcore import images
from chipcore.errors import ImageError, SettingsError
from chipcore.images import InputGeometry, as_rgb, open_image
from chipcore.networks.torchvision_import import transforms


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format, **options)
    return stream.getvalue()


def half_red() -> Image.Image:
    """Left half red, right half blue."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20, 0] = 255
    pixels[:, 20:, 2] = 255
    return Image.fromarray(pixels)


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    image = open_image(encoded(half_red(), "JPEG", exif=exif, quality=95))
    assert image.size == (20, 40)
    top = np.asarray(image)[:10].mean((0, 1))
    assert top[0] > 200 and top[2] < 60


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    if mode == "P":
        clear = Image.new("P", (8, 8), 0)
        clear.info["transparency"] = 0
        data = encoded(clear, transparency=0)
    else:
        data = encoded(clear)
    assert np.asarray(open_image(data)).min() == 255


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "RGB", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert as_rgb(half_red().convert(mode)).mode == "RGB"


def test_16_bit_greys_are_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    assert np.asarray(open_image(encoded(deep)))[0, 0].tolist() == [128, 128, 128]


def test_squash_keeps_everything_and_crop_keeps_the_aspect() -> None:
    squash = InputGeometry(size=16, resize=16, fit="squash")
    view = np.asarray(squash.view(half_red())).astype(int)
    assert view.shape == (16, 16, 3) and view[:, 0, 0].min() > 200 and view[:, -1, 2].min() > 200
    crop = np.asarray(InputGeometry(size=16, resize=16, fit="crop").view(half_red())).astype(int)
    assert crop[:, 0, 0].min() > 200 and crop[:, -1, 2].min() > 200  # the middle 20 x 20
    assert InputGeometry().view(Image.new("RGB", (1, 5000))).size == (224, 224)
    assert InputGeometry().view(Image.new("RGB", (1, 1))).size == (224, 224)


def test_crop_agrees_with_torchvisions_resize_and_centre_crop() -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (6, 10, 3), dtype=np.uint8)).resize((400, 300), Image.Resampling.BICUBIC)
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                                   transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])(photo)  # fmt: skip
    got = InputGeometry().tensor(photo)
    assert got.shape == expected.shape and got.dtype == torch.float32
    # Half a pixel of rounding in the crop's position and one more rounding to 8 bits are all that may differ.
    assert float((got - expected).abs().mean()) < 0.03


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff\xd8\xff\xe0" + b"0" * 40, encoded(half_red())[:60], encoded(half_red(), "JPEG")[:200]]
)
def test_what_is_not_a_whole_image_is_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(content)
    with pytest.raises(ImageError, match="not a photograph we can read"):
        open_image(file)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="does not exist"):
        open_image(tmp_path / "none.png")


def test_a_png_named_jpg_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(half_red()))
    assert open_image(tmp_path / "a.jpg").size == (40, 20)


def test_size_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="40 x 20 pixels"):
        open_image(encoded(half_red()))
    with pytest.raises(ImageError, match="pixels"):
        open_image(encoded(Image.new("1", (20000, 20000))))


def test_geometry_refuses_nonsense() -> None:
    for wrong in ({"size": 0}, {"size": 300}, {"fit": "stretch"}, {"std": (0.0, 1.0, 1.0)}):
        with pytest.raises(SettingsError):
            InputGeometry(**wrong)
