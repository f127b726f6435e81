"""Uploaded images outlive a reload, for who has the link and for nobody else."""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from chipcore.errors import ChipError
from explorer.services import gallery, photo_links

OpenApp = Callable[..., AppTest]


def image(color: str, size: int = 60) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), color).save(stream, "JPEG")
    return stream.getvalue()


def kept(*colors: str) -> dict[str, gallery.GalleryImage]:
    given, _last = gallery.with_uploads({}, [(f"{one}.jpg", image(one)) for one in colors])
    found, problem = photo_links.load_all(given)
    assert not problem
    return found


# --- the store ------------------------------------------------------------------------------------------------


def test_a_link_gives_back_what_was_kept_in_its_order() -> None:
    given = kept("olive", "navy")
    found, gone = photo_links.resolve(photo_links.link(given.values()))
    assert found == given and not gone
    assert list(found) == ["olive.jpg", "navy.jpg"]


def test_keys_are_drawn_and_not_computed_from_the_image(own_cache: Path) -> None:
    one, other = kept("olive")["olive.jpg"], kept("olive")["olive.jpg"]
    assert one.sha256 == other.sha256 and one.key != other.key
    assert len(one.key) == 32 and one.key not in one.sha256, "128 random bits"
    assert stat.S_IMODE((own_cache / "photographs" / one.key).stat().st_mode) == 0o700
    assert photo_links.resolve(one.sha256) == ({}, 1) == photo_links.resolve(one.sha256[:32])


def test_the_same_name_behind_two_keys_is_told_apart() -> None:
    one, other = kept("olive")["olive.jpg"], kept("olive")["olive.jpg"]
    assert list(photo_links.resolve(photo_links.link([one, other]))[0]) == ["olive.jpg", "olive.jpg 2"]


@pytest.mark.parametrize("text", ["", ".", "..", "....", "../../etc/passwd", "/", "\0", "x" * 10_000, "0" * 32, "A" * 32, "é" * 32])
def test_what_is_no_key_opens_nothing(text: str) -> None:
    kept("olive")
    assert photo_links.resolve(text)[0] == {}


def test_a_link_holds_no_more_than_a_gallery() -> None:
    keys = [one.key for one in kept(*(f"#{20 * number:02x}0000" for number in range(gallery.MAX_UPLOADS))).values()]
    more = [one.key for one in kept("red").values()]
    assert len(photo_links.resolve(".".join([*keys, *more]))[0]) == gallery.MAX_UPLOADS


def test_what_is_no_image_is_not_kept(own_cache: Path) -> None:
    heavy = image("olive") + b"\0" * gallery.MAX_BYTES
    given, _last = gallery.with_uploads({}, [("a.jpg", b"text"), ("b.jpg", heavy)])
    found, _problem = photo_links.load_all(given)
    assert photo_links.link(found.values()) == "" and not (own_cache / "photographs").exists()
    assert found["b.jpg"].data == b"", "nor in memory, where it is too large"


def test_unused_images_go_by_age_and_the_oldest_for_room(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = kept("olive", "navy", "red").values()
    folder = own_cache / "photographs"
    now = time.time()
    for days, one in ((8, first), (2, second), (1, third)):
        os.utime(folder / one.key, (now - days * 86_400,) * 2)
    assert photo_links.resolve(first.key) == ({}, 1), "nobody opened it for a week"
    assert not (folder / first.key).exists()
    photo_links.resolve(second.key)  # used, so the third goes first
    size = sum(path.stat().st_size for path in (folder / second.key).iterdir())
    monkeypatch.setattr(photo_links, "KEPT_BYTES", int(2.5 * size))
    fourth = kept("gray")["gray.jpg"]
    assert [photo_links.resolve(one.key)[1] for one in (second, third, fourth)] == [0, 1, 0]
    monkeypatch.setattr(photo_links, "KEPT_COUNT", 1)
    fifth = kept("black")["black.jpg"]
    assert [photo_links.resolve(one.key)[1] for one in (second, fourth, fifth)] == [1, 1, 0]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ChipError, match="could not be kept on the server"):
        photo_links.save("a.jpg", gallery.uploaded("a.jpg", image("olive")))
    assert list((own_cache / "photographs").iterdir()) == []


# --- the app --------------------------------------------------------------------------------------------------


def names(app: AppTest) -> list[str]:
    return list(app.button_group(key="photo").options)[len(gallery.ENTRIES) :]


def uploaded(open_app: OpenApp, *colors: str) -> AppTest:
    app = open_app(model="vgg16_slim")
    app.file_uploader[0].set_value([(f"{one}.jpg", image(one), "image/jpeg") for one in colors]).run()
    assert not app.exception
    return app


def link(app: AppTest) -> dict[str, str]:
    return {key: value[0] if isinstance(value, list) else value for key, value in app.query_params.items()}


def test_a_reload_and_the_link_show_the_same_images(open_app: OpenApp) -> None:
    app = uploaded(open_app, "olive", "navy")
    query = link(app)
    assert query["photo"] == "navy.jpg" and query["mine"].count(".") == 1
    query["photo"] = "olive.jpg"  # as the browser writes it after a click
    again = open_app("compare", **query)
    assert not again.exception and not again.warning
    assert names(again) == ["olive.jpg", "navy.jpg"] and again.button_group(key="photo").value == "olive.jpg"
    assert link(again)["mine"] == query["mine"]
    assert any("Anyone with this page’s link can open your photographs" in caption.value for caption in again.sidebar.caption)


def test_nobody_without_the_link_is_shown_them_and_a_link_shows_nothing_later(open_app: OpenApp) -> None:
    app = uploaded(open_app, "olive")
    given_away = link(app)
    other = open_app(model="vgg16_slim")
    assert names(other) == [] and "mine" not in link(other)
    friend = open_app(**given_away)
    friend.file_uploader[0].set_value([("secret.jpg", image("red"), "image/jpeg")]).run()
    assert names(friend) == ["olive.jpg", "secret.jpg"]
    assert names(app.run()) == ["olive.jpg"] and names(open_app(**given_away)) == ["olive.jpg"], "what the friend adds is the friend's"


def test_a_link_whose_image_is_gone_says_so_and_falls_back(open_app: OpenApp) -> None:
    app = uploaded(open_app, "olive", "navy")
    query = link(app)
    app.button(key="remove").click().run()  # the second, which is chosen: whoever uploaded it can take it off the server
    assert names(app) == ["olive.jpg"] and "." not in link(app)["mine"]
    again = open_app(**query)
    assert not again.exception and names(again) == ["olive.jpg"]
    assert "navy" in again.warning[0].value and "is not on the server any more" in again.warning[0].value
    assert again.button_group(key="photo").value == "cat"
    again.button_group(key="photo").set_value("coffee").run()
    assert not again.warning
    nothing = open_app(model="vgg16_slim", mine="0" * 32, photo="holiday.jpg")
    assert "holiday" in nothing.warning[0].value and "mine" not in link(nothing)


def test_who_was_given_a_link_takes_a_image_out_of_their_own_gallery_only(open_app: OpenApp) -> None:
    app = uploaded(open_app, "olive")
    friend = open_app(**link(app))
    friend.button(key="remove").click().run()
    assert names(friend) == [] and "mine" not in link(friend)
    assert names(open_app(**link(app))) == ["olive.jpg"]
