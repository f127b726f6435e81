"""Every image that somebody will hand in: refused in one sentence, or drawn on the right view."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from refusals import SLIM, files_below, load_once, said

from chipcore.cli.main import main


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def networks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chipcore.cli.common.load_network", load_once)


@cache
def _cat() -> Image.Image:
    return Image.fromarray(skimage.data.chelsea()).resize((150, 100))


def cat() -> Image.Image:
    return _cat().copy()


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims to be a large one."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def zipped_text() -> bytes:
    """A PNG whose comment unpacks to 20 MB."""
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("comment", "a" * 20_000_000, zip=True)
    return encoded(cat(), pnginfo=about)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing.jpg": (lambda: b"", "is not a photograph we can read"),
    "text.jpg": (lambda: b"What a lovely cat.\n" * 50, "is not a photograph we can read"),
    "page.png": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "is not a photograph we can read"),
    "truncated.jpg": (lambda: encoded(cat(), "JPEG")[:2000], "is not a photograph we can read"),
    "truncated.png": (lambda: encoded(cat())[:-3000], "is not a photograph we can read"),
    "truncated.webp": (lambda: encoded(cat(), "WEBP")[:700], "is not a photograph we can read"),
    "truncated.gif": (lambda: encoded(cat().convert("P"), "GIF")[:60], "is not a photograph we can read"),
    "truncated.tif": (lambda: encoded(cat(), "TIFF")[:500], "is not a photograph we can read"),
    "header.jpg": (lambda: encoded(cat(), "JPEG")[:20], "is not a photograph we can read"),
    "postscript.png": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ls) run\n", "is not a photograph we can read"),
    "bomb.png": (lambda: bomb(10_000, 8_000), "10000 x 8000 pixels; give at most 50 million"),
    "larger_bomb.png": (lambda: bomb(2**31 - 1, 2**31 - 1), "give at most 50 million"),
    "zipped_text.png": (zipped_text, "is not a photograph we can read"),
    "floating.tif": (
        lambda: encoded(Image.fromarray(np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)), "TIFF"),
        "save it with 8 or 16 bits",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, sentence = REFUSED[name]
    (tmp_path / name).write_bytes(make())
    told = said(["explain", tmp_path / name, *SLIM, "--class", "cat", "--out", tmp_path / "map.png", "--raw", tmp_path / "map.npy"], capsys)
    assert sentence in told
    assert files_below(tmp_path) == [name]


def test_places_that_hold_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # opened, it would wait for a writer for ever
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "round.jpg").symlink_to(tmp_path / "round.jpg")
    end = [*SLIM, "--class", "cat", "--out", tmp_path / "map.png"]
    for place, sentence in (
        (tmp_path, "is a folder"), (tmp_path / "pipe.jpg", "is not a file"), (Path("/dev/zero"), "is not a file"),
        (tmp_path / "link.jpg", "does not exist"), (tmp_path / "round.jpg", "does not exist"), (tmp_path / ("a" * 300), "check the path"),
        ("a\0b.jpg", "does not exist"), (tmp_path / "\x1b[2J\n.jpg", "does not exist"),
    ):  # fmt: skip
        assert sentence in said(["explain", place, *end], capsys)
    encoded_cat = tmp_path / "closed.jpg"
    encoded_cat.write_bytes(encoded(cat(), "JPEG"))
    real = Image.open

    def closed(*given: object, **named: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", closed)  # the tests may run as root, who may read everything
    assert "may not be read" in said(["explain", encoded_cat, *end], capsys)
    monkeypatch.setattr(Image, "open", real)


def test_the_image_itself_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cat.png").write_bytes(encoded(cat()))
    before = (tmp_path / "cat.png").read_bytes()
    assert "the photograph itself" in said(
        ["explain", tmp_path / "cat.png", *SLIM, "--class", "cat", "--out", tmp_path / "cat.png"], capsys
    )
    assert (tmp_path / "cat.png").read_bytes() == before


# --- odd, and good ------------------------------------------------------------------------------------------


def raw_map(content: bytes, folder: Path, name: str = "odd.jpg") -> np.ndarray:
    (folder / name).write_bytes(content)
    arguments = [
        "explain",
        folder / name,
        *SLIM,
        "--class",
        "cat",
        "--layer",
        "pool4",
        "--out",
        folder / "m.png",
        "--raw",
        folder / "m.npy",
    ]
    assert main([str(one) for one in arguments]) == 0
    with Image.open(folder / "m.png") as drawn:
        assert drawn.size == (160, 160) and drawn.mode == "RGB"
    found: np.ndarray = np.load(folder / "m.npy")
    assert found.shape == (10, 10) and np.isfinite(found).all()
    return found


def rotated(turn: int) -> bytes:
    """The cat as a camera stores it that was held another way, with the EXIF that says how."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # of Image.Transpose: what exif_transpose will put right
    image = cat() if turn == 1 else cat().transpose(Image.Transpose(undo[turn]))
    exif = Image.Exif()
    exif[0x0112] = turn
    return encoded(image, "PNG", exif=exif)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_image_that_exif_turns_has_the_map_of_the_upright_one(turn: int, tmp_path: Path) -> None:
    upright = raw_map(encoded(cat()), tmp_path)
    assert np.array_equal(raw_map(rotated(turn), tmp_path), upright)


def test_odd_files_have_the_map_of_the_plain_one(tmp_path: Path) -> None:
    plain = raw_map(encoded(cat()), tmp_path)
    clear = cat().convert("RGBA")
    deep = Image.fromarray(np.asarray(cat().convert("L")).astype(np.uint16) * 257)
    gray = raw_map(encoded(cat().convert("L")), tmp_path)
    assert np.array_equal(raw_map(encoded(cat().convert("L").convert("RGB")), tmp_path), gray)
    assert np.array_equal(raw_map(encoded(deep), tmp_path), gray), "16 bits are scaled, not clipped"
    assert np.array_equal(raw_map(encoded(deep, "TIFF"), tmp_path), gray)
    assert np.array_equal(raw_map(encoded(clear), tmp_path), plain), "opaque"
    assert np.array_equal(raw_map(encoded(cat(), "WEBP", lossless=True), tmp_path), plain), "a WebP named .jpg"
    assert np.array_equal(raw_map(encoded(cat(), "BMP"), tmp_path), plain)
    few = cat().quantize(200)
    assert np.array_equal(raw_map(encoded(few), tmp_path), raw_map(encoded(few.convert("RGB")), tmp_path)), "a palette"
    frames = [cat(), Image.new("RGB", (150, 100), "red")]
    moving = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(raw_map(moving, tmp_path), plain), "the first frame of an animation"
    assert np.array_equal(raw_map(encoded(few, "GIF", save_all=True, append_images=[few.rotate(90)]), tmp_path),
                          raw_map(encoded(few.convert("RGB")), tmp_path))  # fmt: skip
    inks = raw_map(encoded(cat().convert("CMYK"), "JPEG", quality=100, subsampling=0), tmp_path)
    assert np.corrcoef(inks.ravel(), plain.ravel())[0, 1] > 0.98, "CMYK of a JPEG is not inverted"


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    clear = cat().convert("RGBA")
    white = cat()
    white.paste("white", (0, 0, 75, 100))
    clear.paste((9, 99, 9, 0), (0, 0, 75, 100))
    assert np.array_equal(raw_map(encoded(clear), tmp_path), raw_map(encoded(white), tmp_path))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (7000, 7000)])
def test_extreme_sizes_have_a_map(size: tuple[int, int], tmp_path: Path) -> None:
    raw_map(encoded(Image.new("L", size, 120)), tmp_path)


def test_damaged_exif_is_no_reason_to_refuse(tmp_path: Path) -> None:
    plain = raw_map(encoded(cat(), "JPEG", quality=95), tmp_path)
    for exif in (
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\3\xff\xff\xff\xff" * 9,
        b"Exif\0\0nonsense",
    ):
        assert np.array_equal(raw_map(encoded(cat(), "JPEG", quality=95, exif=exif), tmp_path), plain)
