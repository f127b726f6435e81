"""Class names in any script are drawn with letters, not boxes, where the machine has a font for them."""

from __future__ import annotations

from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

from explorer.figures import fonts


def letters(file: object) -> set[int]:
    return set(FT2Font(str(file)).get_charmap())


def test_the_font_is_ours_where_it_has_the_letters_and_one_that_has_them_where_it_has_not() -> None:
    assert fonts.best_file("zèbre, ζέβρα, зебра, held-out R²") == fonts.OWN
    # Letters of a font that comes with Matplotlib and that DejaVu lacks: every machine has these.
    other = f"{get_data_path()}/fonts/ttf/STIXGeneral.ttf"
    rare = chr(max(code for code in letters(other) - letters(fonts.OWN) if not 0xE000 <= code < 0xF900))
    chosen = fonts.best_file(f"x{rare}")
    assert chosen != fonts.OWN and ord(rare) in letters(chosen) and ord("x") in letters(chosen)
    assert fonts.missing_letters([f"x{rare}", "zebra"]) == ""
    box = ImageFont.truetype(fonts.OWN, 40).getmask("\N{ZERO WIDTH SPACE}\u0378")
    assert bytes(fonts.font(rare, 40).getmask(rare)) != bytes(box)
    assert fonts.families("zebra") == ["DejaVu Sans"] and len(fonts.families(rare)) == 2


def test_letters_that_no_font_has_are_named() -> None:
    unassigned = "\u0378"
    assert fonts.missing_letters([f"a{unassigned}{unassigned}", "b c"]) == unassigned
    assert fonts.missing_letters(["tabby, tabby cat · 82%"]) == ""
