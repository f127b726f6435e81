"""One geometry: every kind of file ends upright, opaque, RGB and fitted."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chipcore import images
from chipcore.errors import ImageError, ImageNotice, SettingsError
from chipcore.images import InputGeometry, as_rgb, exif_orientation, open_image
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


def gradient() -> np.ndarray:
    """Every gray from 0 to 255, uint8 (16, 256)."""
    return np.tile(np.arange(256, dtype=np.uint8), (16, 1))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("bits", "noticed"), [(8, False), (10, True), (12, True), (14, True), (16, False)])
def test_grays_of_16_bits_are_scaled_by_the_bits_that_they_use(format: str, bits: int, noticed: bool) -> None:
    """An X-ray's 12 bits in a file of 16 would otherwise be nearly black."""
    values = np.round(gradient().astype(float) * (2**bits - 1) / 255).astype(np.uint16)
    data = encoded(Image.fromarray(values), format)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = np.asarray(open_image(data))
    assert np.abs(found.astype(int) - gradient()[..., None]).max() <= 1
    assert [warning.category for warning in told] == [ImageNotice] * noticed
    assert not noticed or f"uses {bits} or fewer" in str(told[0].message)


def test_colors_of_16_bits_that_are_nearly_black_are_noticed() -> None:
    """Pillow keeps the upper 8 of 16 bits a color, so of 12 bits 4 are left."""

    def png(values: np.ndarray) -> bytes:
        def chunk(kind: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

    colors = np.repeat(gradient()[..., None], 3, axis=2).astype(np.uint16)
    with pytest.warns(ImageNotice, match="nearly black"):
        open_image(png(colors * 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.asarray(open_image(png(colors * 257))).max() == 255


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16"])
def test_a_color_that_is_named_transparent_becomes_white(mode: str) -> None:
    """PNG's tRNS: one color instead of an alpha channel."""
    dark = Image.new("RGB", (40, 20), "black")
    dark.paste((200, 200, 200), (20, 0, 40, 20))
    if mode == "I;16":
        image, transparent = Image.fromarray(np.asarray(dark.convert("L")).astype(np.uint16) * 257), 0
    else:
        image, transparent = dark.convert(mode), (0, 0, 0) if mode == "RGB" else 0
    if mode == "P":
        image.info["transparency"] = 0
        assert image.getpixel((0, 0)) == 0
    found = np.asarray(open_image(encoded(image, transparency=transparent)))
    assert found[:, :20].min() == 255, "the transparent half"
    assert mode == "1" or abs(int(found[5, 30, 0]) - 200) < 6, "the other half is as it was"


def test_what_phones_and_browsers_write_is_read() -> None:
    """MPO (two pictures in a .jpg), AVIF and JPEG 2000."""
    photo = half_red()
    mpo = io.BytesIO()
    photo.save(mpo, "MPO", save_all=True, append_images=[photo.resize((20, 10))], quality=95)
    for data in (mpo.getvalue(), encoded(photo, "AVIF"), encoded(photo, "JPEG2000")):
        found = np.asarray(open_image(data)).astype(int)
        assert found.shape == (20, 40, 3) and found[:, :15, 0].min() > 180 and found[:, 25:, 2].min() > 180


@pytest.mark.parametrize("orientation", range(1, 9))
def test_how_exif_had_an_image_turned_stays_known(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encoded(half_red(), "PNG", exif=exif))
    assert exif_orientation(image) == exif_orientation(as_rgb(image)) == orientation
    assert image.size == ((40, 20) if orientation < 5 else (20, 40)) == as_rgb(image).size, "turned once, whatever it is called again"
