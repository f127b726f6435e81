"""Images and ZIPs that are uploaded for a fit: what is kept, under which names, and what is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chipcore.errors import DataError
from chipcore.images import open_image
from explorer.services import gallery, photo_links, uploads


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path))
    return tmp_path


def image(shade: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(stream, kind)
    return stream.getvalue()


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_names_are_never_paths_and_class_folders_stay_apart(cache: Path) -> None:
    data = packed({
        "cats/../../../../evil.png": image(1), "/etc/cron.d/evil.png": image(2), "cats/a.txt": b"hello", "cats/b.jpg": image(3, "JPEG"),
        "cats/c.jpg": image(4), "__MACOSX/cats/._b.jpg": b"x", "cats/same.jpg": image(4), "..\\..\\evil.png": image(5),
    })  # fmt: skip
    stored = uploads.store([("holiday.zip", data), ("../../one.png", image(6))])
    assert (stored.images, stored.left_out) == (6, 2), "the text, and the photograph that is there twice"
    found = uploads.images(stored.id)
    assert len(found) == 6
    assert all(name.startswith("group-0") and Path(name).stem.isalnum() and len(Path(name).stem) == 32 for name in found.names)
    assert sum(name.endswith(".jpg") for name in found.names) == 1, "by what it is, not by what it is called"
    assert len({Path(name).parent for name in found.names}) == 5
    everything = [path for path in cache.rglob("*") if path.is_file()]
    assert all((cache / "uploads" / stored.id) in path.parents for path in everything)
    assert uploads.store([("holiday.zip", data), ("../../one.png", image(6))]) == stored, "the same again is the same"


def bomb() -> bytes:
    return packed({f"{i}.png": bytes(4 << 20) for i in range(10)})


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.zip", bomb, "more than 32 MB when unpacked"),
        ("a.zip", lambda: packed({f"{i}.png": b"" for i in range(5001)}), "5,001 files"),
        ("a.zip", lambda: packed({"a.png": image(1)})[:60], "damaged"),
        ("a.zip", lambda: image(1), "damaged"),
        ("a.zip", lambda: packed({}), "none of the uploaded files is a photograph"),
        ("a.png", lambda: b"not a picture", "none of the uploaded files is a photograph"),
        ("a.png", lambda: packed({"a.png": image(1)}), "none of the uploaded files is a photograph"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(name: str, data: object, said: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_TOTAL_BYTES", 32 << 20)
    with pytest.raises(DataError, match=said):
        uploads.store([(name, data())])  # type: ignore[operator]
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_an_archive_that_lies_about_its_sizes_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed({"a.png": bytes(30 << 20), "b.png": image(1)})
    small = (30 << 20).to_bytes(4, "little")
    lying = data.replace(small, (1000).to_bytes(4, "little"))
    assert lying != data
    with pytest.raises(DataError, match="damaged"):
        uploads.store([("a.zip", lying)])


def test_too_many_pixels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_TOTAL_PIXELS", 500)
    assert uploads.store([("a.png", image(1)), ("b.png", image(2))]).images == 2
    with pytest.raises(DataError, match="million pixels together"):
        uploads.store([(f"{i}.png", image(i)) for i in range(3)])


def test_a_large_image_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    monkeypatch.setattr(uploads, "MAX_BYTES", 1000)
    stored = uploads.store([("large.png", stream.getvalue()), ("a.png", image(1)), ("z.zip", packed({"l.png": stream.getvalue()}))])
    assert (stored.images, stored.left_out) == (1, 2)


@pytest.mark.parametrize("wrong", ["", "..", "../fits", "A" * 32, "0" * 32])
def test_an_id_is_no_path(wrong: str) -> None:
    uploads.store([("a.png", image(1))])
    with pytest.raises(DataError, match="not here any more"):
        uploads.images(wrong)


def test_the_oldest_go_when_the_disk_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_KEPT_BYTES", 100)
    first, second = (uploads.store([("a.png", image(shade))]) for shade in (1, 2))
    third = uploads.store([("a.png", image(3))], needed={second.id})
    with pytest.raises(DataError):
        uploads.images(first.id)
    assert len(uploads.images(second.id)) == len(uploads.images(third.id)) == 1


def from_a_phone() -> bytes:
    """Two pictures in one .jpg (MPO), as phones write portraits."""
    stream, photo = io.BytesIO(), Image.new("RGB", (20, 10), (9, 0, 0))
    photo.save(stream, "MPO", save_all=True, append_images=[photo.resize((10, 5))])
    return stream.getvalue()


@pytest.mark.parametrize(("data", "ending"), [(from_a_phone(), ".jpg"), (image(1, "AVIF"), ".avif"), (image(1, "JPEG2000"), ".jp2")])
def test_whatever_explain_reads_a_fit_takes_and_the_gallery_keeps(data: bytes, ending: str) -> None:
    for given in ([("IMG_0001.JPG", data)], [("phone.zip", packed({"a/IMG_0001.JPG": data}))]):
        stored = uploads.store(given)
        assert (stored.images, stored.left_out) == (1, 0)
        found = uploads.images(stored.id)
        assert found.names[0].endswith(ending) and open_image(found.root / found.names[0]).size == (20, 10)
    kept = photo_links.save("IMG_0001", gallery.uploaded("IMG_0001.JPG", data))
    again, gone = photo_links.resolve(photo_links.link([kept]))
    (one,) = again.values()
    assert gone == 0 and one.open().size == (20, 10), "it survives a reload"
    assert f".{gallery.kind(data)}" == ending
